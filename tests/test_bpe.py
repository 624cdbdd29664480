"""BPETokenizer: every byte string comes back, merges go by rank, training counts what it says."""

import json
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigpt import tokenizer as tokenizers
from minigpt.tokenizer import BPETokenizer, CharTokenizer, build, from_json, pretokens, train_bpe
from minigpt.tokenizer import bpe as bpe_module
from minigpt.tokenizer.merging import merge_by_heap, merge_directly
from minigpt.tokenizer.pretokens import split

END = "<|endoftext|>"
TEXT = (
    "the cat sat on the mat, other cats too; the dog's mat isn't the cat's mat."
    " 猫猫猫 \n\n  naïve 12 12 12 😀😀\n"
)
TRAINED = train_bpe(TEXT * 2, 300, special=[END, "<|pad|>"])
# Bytes that no character has, halves of one, a surrogate in UTF-8, more than Unicode, overlong.
BROKEN = b"\xff\xfe a\xe7\x8c \xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf\xf0\x9f\x98"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*"a1.'  \n\t\x1c\u3000é😀𝟘", "'s", "   "])).map("".join))
@example("a   b" * 9)
def test_pre_tokens_do_not_depend_on_the_stretches_they_are_cut_in(text):
    whole = [*split(text)]
    assert "".join(whole) == text
    with pytest.MonkeyPatch.context() as patch:
        for length in (0, 1, 4):
            patch.setattr(pretokens, "_STRETCH", length)
            assert [*split(text)] == whole


def merges_of(tokenizer):
    return [(tokenizer.tokens[a] + b"|" + tokenizer.tokens[b]) for a, b, _ in tokenizer.merges]


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=20).map(str.encode))
@example(BROKEN)
@example(bytes(range(256)))
@example(TEXT.encode())
def test_every_byte_string_comes_back(data):
    ids = TRAINED.encode_bytes(data)
    assert ids.dtype == np.int64 and ids.ndim == 1 and len(ids) <= len(data)
    assert TRAINED.decode_bytes(ids) == data
    assert TRAINED.decode(ids) == data.decode("utf-8", "replace")
    assert TRAINED.decode_bytes(ids.tolist()) == data


@settings(max_examples=200, deadline=None)
@given(st.text())
@example(TEXT)
def test_every_text_comes_back_and_is_its_bytes(text):
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids) == text
    assert ids.tolist() == TRAINED.encode_bytes(text.encode()).tolist()


def test_merges_are_used():
    ids = TRAINED.encode("the the cat")
    assert [TRAINED.tokens[i] for i in ids] == [b"the", b" the", b" cat"]
    assert len(TRAINED.encode(TEXT)) < len(TEXT.encode()) / 2


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a\ud83d\ude00b", "a😀b"),  # a pair is a character
        ("a\ud83db", "a\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\udcff", "\ufffd"),  # nor does it stand for a byte: that is what encode_bytes is for
    ],
)
def test_surrogates_are_joined_or_replaced(text, meant):
    assert TRAINED.encode(text).tolist() == TRAINED.encode(meant).tolist()


def test_special_tokens_come_from_text_only_when_asked():
    assert TRAINED.special == {END: 298, "<|pad|>": 299} and TRAINED.vocab_size == 300
    text = f"{END}the cat{END}{END} sat<|pad|"
    plain, special = TRAINED.encode(text), TRAINED.encode(text, allow_special=True)
    assert max(plain) < 298
    assert TRAINED.decode(plain) == TRAINED.decode(special) == text
    assert special.dtype == np.int64 and special[0] == 298 and (special == 298).sum() == 3
    assert special[1:3].tolist() == TRAINED.encode("the cat").tolist()
    assert TRAINED.encode("", allow_special=True).shape == (0,)
    assert TRAINED.encode(f"{END}", allow_special=True).tolist() == [298]
    assert 298 not in TRAINED.encode_bytes(END.encode())


def test_of_two_special_tokens_the_longer_is_taken():
    tokenizer = BPETokenizer(range(256), [], {"<a>": 256, "<a><b>": 257, "a|.": 258})
    assert tokenizer.encode("<a><b><a>a|.ab", allow_special=True).tolist() == [
        257,
        256,
        258,
        97,
        98,
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 299), max_size=3), max_size=20))
@example([[0xF0], [0x9F, 0x98], [0x80, 0xF0], [], [0x9F]])
def test_a_streaming_decoder_says_the_same_in_pieces(parts):
    decoder, ids = TRAINED.decoder(), [i for part in parts for i in part]
    pieces = [decoder.push(part) for part in parts]
    assert "".join([*pieces, decoder.end()]) == TRAINED.decode(ids)
    assert decoder.push([97]) == "a"  # it can start again


def test_a_streaming_decoder_never_splits_a_character():
    decoder = TRAINED.decoder()
    pushed = [decoder.push([byte]) for byte in "aé猫😀".encode()]
    assert pushed == ["a", "", "é", "", "", "猫", "", "", "", "😀"]
    assert decoder.push(np.array([0xF0, 0x9F])) == "" and decoder.end() == "\ufffd"
    assert decoder.end() == ""
    with pytest.raises(ValueError, match="out of range"):
        decoder.push([300])


@settings(deadline=None)
@given(st.text(min_size=1))
@example("\ud83d\ude00")
def test_characters_stream_as_they_come(text):
    tokenizer = CharTokenizer.from_text(text)
    decoder = tokenizer.decoder()
    assert [decoder.push([i]) for i in tokenizer.encode(text)] == [*text]
    assert decoder.end() == ""


@settings(max_examples=300, deadline=None)
@given(st.text("ab", max_size=60), st.integers(0, 2**32))
def test_the_heap_and_the_direct_way_agree(text, seed):
    """On random merges, of which many overlap."""
    rng = random.Random(seed)
    merges = {}
    for new in range(256, 256 + rng.randint(0, 12)):
        merges.setdefault(tuple(rng.choices([97, 98, *range(256, new)], k=2)), len(merges))
    made = [256 + rank for rank in range(len(merges))]
    ids = [*text.encode()]
    direct = merge_directly(ids, merges, made)
    assert merge_by_heap(ids, merges, made) == direct
    assert ids == [*text.encode()]
    assert not any(pair in merges for pair in pairwise(direct))


def test_the_lowest_rank_goes_first_then_the_leftmost():
    ranks, made = {(2, 3): 0, (1, 2): 1, (1, 1): 2, (9, 1): 3}, [7, 8, 9, 10]
    for way in (merge_directly, merge_by_heap):
        assert way([1, 2, 3], ranks, made) == [1, 7]
        assert way([1, 1, 1], ranks, made) == [10]
        assert way([1, 1, 1, 1], ranks, made) == [9, 9]
        assert way([], ranks, made) == [] and way([1], ranks, made) == [1]


@pytest.mark.parametrize("length", [48, 49, 5000])
def test_long_pre_tokens_follow_the_same_merges(length):
    text = "".join(random.Random(length).choices("theca", k=length))
    ranks = {(a, b): rank for rank, (a, b, _) in enumerate(TRAINED.merges)}
    expected = merge_directly([*text.encode()], ranks, [new for *_, new in TRAINED.merges])
    assert TRAINED.encode(text).tolist() == expected


def test_a_long_run_without_a_space_takes_no_quadratic_time(monkeypatch):
    """Counted in steps of the heap, not in seconds."""
    steps = []
    real = tokenizers.merging.heappop
    monkeypatch.setattr(tokenizers.merging, "heappop", lambda heap: steps.append(1) or real(heap))
    doubling = BPETokenizer(range(256), [(97, 97, 256), *((n, n, n + 1) for n in range(256, 270))])
    ids = doubling.encode("a" * 100_000)
    assert doubling.decode(ids) == "a" * 100_000
    assert len(ids) == 3 + bin(100_000 % 2**15).count("1")
    assert len(steps) < 4 * 100_000


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(bpe_module, "_CACHED", 10)
    tokenizer = train_bpe(TEXT * 2, 300)
    text = " ".join(f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(200)) + "x" * 100
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 0 < len(tokenizer._cache) <= 10
    assert not any(len(piece) > 64 for piece in tokenizer._cache)


@pytest.mark.parametrize("data", ["text", 5, None, [1]])
def test_encode_bytes_wants_bytes(data):
    with pytest.raises(ValueError, match="data must be bytes, got"):
        TRAINED.encode_bytes(data)


def test_encode_wants_text():
    with pytest.raises(ValueError, match="text must be a string, got bytes"):
        TRAINED.encode(b"text")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 300], "id 300 is out of range: expected 0 <= id < 300"),
        ([-1], "id -1 is out of range"),
        ([0.0], "integers, got dtype float64"),
        ([[0, 1]], r"one-dimensional, got shape \(1, 2\)"),
    ],
)
def test_decode_refuses_what_is_not_an_id(ids, message):
    for decode in (TRAINED.decode, TRAINED.decode_bytes, TRAINED.decoder().push):
        with pytest.raises(ValueError, match=message):
            decode(ids)


def trained_by_counting(texts, merges):
    """The definition: before each merge, count all pairs of all pre-tokens afresh."""
    words = Counter(piece.encode() for text in texts for piece in split(text))
    rows = {word: [*word] for word in words}
    learned = []
    for new in range(256, 256 + merges):
        counts = Counter()
        for word, count in words.items():
            for pair in pairwise(rows[word]):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        learned.append((*best, new))
        for word, row in rows.items():
            rows[word] = merge_directly(row, {best: 0}, [new])
    return learned


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("aab c", max_size=30), max_size=4), st.integers(1, 12))
@example([TEXT, TEXT[::-1]], 60)
@example(["aaaa aaaaa aaaaaaa"], 5)
def test_training_joins_the_most_frequent_pair_each_time(texts, merges):
    expected = trained_by_counting(texts, merges)
    if len(expected) == merges:
        assert train_bpe(texts, 256 + merges).merges == expected
    else:
        with pytest.raises(ValueError, match=f"with {256 + len(expected)} tokens no pair occurs"):
            train_bpe(texts, 256 + merges)
        assert train_bpe(texts, 256 + len(expected)).merges == expected


def test_of_equally_frequent_pairs_the_smaller_ids_go_first():
    assert merges_of(train_bpe("dc dc ba ba", 257)) == [b" |b"]  # before " d", as b < d
    assert merges_of(train_bpe("dcdc.baba", 258)) == [b"b|a", b"d|c"]


def test_merges_cross_neither_pre_tokens_nor_texts():
    tokenizer = train_bpe(["ab ab ab", "xy", "yx", "zq", "zq"], 262 - 3)
    assert {token for token in tokenizer.tokens if len(token) > 1} == {b"ab", b" ab", b"zq"}
    with pytest.raises(ValueError, match="with 259 tokens no pair"):
        train_bpe(["ab ab ab", "xy", "yx", "zq", "zq"], 260)


def test_special_tokens_are_the_last_ids_and_no_part_of_training():
    tokenizer = train_bpe("ab ab", 259, special=["<x>", "<y>"])
    assert tokenizer.special == {"<x>": 257, "<y>": 258} and tokenizer.tokens[256:] == [
        b"ab",
        b"<x>",
        b"<y>",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ab", 255), "at least 256: 256 bytes and 0 special tokens; got 255"),
        (("ab", 256, ["<x>"]), "at least 257: 256 bytes and 1 special"),
        (("ab", 300.0), "must be an integer of at least 256"),
        (("abab", 300), "300 is too large for this text: with 257 tokens no pair .* at most 257"),
        (("abab", 300, ["<x>"]), "with 258 tokens no pair .* at most 258"),
        (("", 257), "at most 256"),
        ((b"abab", 257), "got int among them"),
        ((["ab", None], 257), "got NoneType among them"),
        (("abab", 270, "<x>"), "special must be a list of distinct texts"),
        (("abab", 258, ["<x>", "<x>"]), "special must be a list of distinct texts"),
        (("abab", 257, ["a"]), "special token 'a' or its id 256 is taken"),
        (("abab", 257, [""]), "text of at least a character"),
        (("abab", 257, ["\ud800"]), "lone surrogate"),
    ],
)
def test_training_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_bpe(*arguments)


def test_training_on_surrogates_sees_what_encode_sees():
    assert train_bpe("\ud83d\ude00 \ud800\ud800", 258).merges == train_bpe("😀 ��", 258).merges


def test_the_json_brings_the_same_tokenizer():
    saved = TRAINED.to_json()
    assert saved.isascii()
    again = from_json(saved)
    assert isinstance(again, BPETokenizer)
    assert again.to_json() == saved
    assert again.tokens == TRAINED.tokens and again.special == TRAINED.special
    assert again.encode(TEXT).tolist() == TRAINED.encode(TEXT).tolist()
    assert isinstance(from_json(CharTokenizer("ab").to_json()), CharTokenizer)
    for kind in ("{}", '{"kind": "word"}', '{"kind": ["bpe"]}'):
        with pytest.raises(ValueError, match="kind char or bpe"):
            from_json(kind)
    for broken in ("[]", "{", "[" * 100_000, None):
        with pytest.raises(ValueError, match="not valid JSON|expected a JSON object"):
            from_json(broken)
    with pytest.raises(ValueError, match='kind "bpe"'):
        BPETokenizer.from_json(CharTokenizer("ab").to_json())


BYTES = list(range(256))
AB, ABC = [97, 98, 256], [256, 99, 257]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bytes": None}, '"bytes" must be a list'),
        ({"bytes": BYTES[1:]}, "ids of 256 bytes, got 255"),
        ({"bytes": [1, *BYTES[1:]]}, "two bytes have the same id"),
        ({"bytes": [False, *BYTES[1:]]}, "integer from 0, got False"),
        ({"bytes": [0.0, *BYTES[1:]]}, "integer from 0, got 0.0"),
        ({"bytes": [-1, *BYTES[1:]]}, "integer from 0, got -1"),
        ({"bytes": [[], *BYTES[1:]]}, r"integer from 0, got \[\]"),
        ({"bytes": [900, *BYTES[1:]]}, "0 to 257, but 0 is none"),
        ({"merges": {}}, "3 ids a merge"),
        ({"merges": AB[:2]}, "3 ids a merge"),
        ({"merges": [97, 98, "256"]}, "integer from 0, got '256'"),
        ({"merges": [None, 98, 256]}, "integer from 0, got None"),
        ({"merges": ABC}, "merge 0 joins 256 and 99, of which one is not made yet"),
        ({"merges": AB + AB}, "merge 1 joins 97 and 98, as an earlier one does"),
        ({"merges": [97, 98, 99]}, "merge 0 makes the token 99, which is other bytes"),
        ({"merges": AB + [98, 99, 257, 256, 99, 258, 97, 257, 259]}, "two ids stand for the same"),
        ({"merges": [97, 98, 257]}, "'<|endoftext|>' or its id 257 is taken"),
        ({"merges": [97, 97, 256, *(x for n in range(256, 300) for x in (n, n, n + 1))]}, "more"),
        ({"special": None}, '"special" must be an object'),
        ({"special": {END: 300}}, "0 to 257, but 257 is none"),
        ({"special": {END: 256}}, "or its id 256 is taken"),
        ({"special": {END: "257"}}, "integer from 0, got '257'"),
        ({"special": {"": 257}}, "at least a character, got ''"),
        ({"special": {"ab": 257}}, "special token 'ab' .* taken"),
        ({"special": {"\ud800": 257}}, "lone surrogate"),
    ],
)
def test_from_json_refuses_what_to_json_cannot_have_written(changes, message):
    fields = {"kind": "bpe", "bytes": BYTES, "merges": AB, "special": {END: 257}}
    assert from_json(json.dumps(fields)).vocab_size == 258
    with pytest.raises(ValueError, match=message):
        from_json(json.dumps(fields | changes))


def test_two_merges_may_make_one_token():
    merges = [(97, 98, 256), (98, 99, 257), (256, 99, 258), (97, 257, 258)]
    tokenizer = from_json(BPETokenizer(range(256), merges).to_json())
    assert tokenizer.vocab_size == 259
    assert tokenizer.encode("abc").tolist() == [258]
    assert tokenizer.merges == merges


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_json_with_one_entry_changed_is_refused_or_still_a_tokenizer(data):
    fields = json.loads(TRAINED.to_json())
    junk = st.none() | st.booleans() | st.integers(-2, 400) | st.floats() | st.text(max_size=3)
    name = data.draw(st.sampled_from(["kind", "bytes", "merges", "special"]))
    if name == "kind" or data.draw(st.booleans()):
        fields[name] = data.draw(junk | st.lists(junk, max_size=4))
    elif name == "special":
        fields[name] |= {data.draw(st.text(max_size=3)): data.draw(junk)}
    else:
        fields[name][data.draw(st.integers(0, len(fields[name]) - 1))] = data.draw(junk)
    try:
        tokenizer = from_json(json.dumps(fields))
    except ValueError:
        return
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(BROKEN)) == BROKEN


def test_build_makes_what_the_name_says():
    text = "the cat and the other cat"
    assert build("char", text).chars == CharTokenizer.from_text(text).chars
    assert build("bpe-260", text).merges == train_bpe(text, 260).merges
    for spec in ("bpe", "bpe-", "bpe-1k", "bpe--3", "bpe-260 ", "", "word", "no/such/folder", "\0"):
        with pytest.raises(ValueError, match="expected char, gpt2, bpe-N"):
            build(spec, text)
    with pytest.raises(ValueError, match="at least 256"):
        build("bpe-12", text)
