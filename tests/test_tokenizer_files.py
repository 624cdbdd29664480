"""Tokenizers in files: what is written is read again, by others too; what is wrong is named."""

import json
import random

import pytest

from minigpt.tokenizer import BPETokenizer, build, load, save, train_bpe
from minigpt.tokenizer.names import CHARACTERS, name_of

END = "<|endoftext|>"
TEXT = (
    "the cat sat on the mat; the dog's mat isn't the cat's # # # mat."
    " 猫猫猫 \n\n  naïve 12\t12 😀😀\n"
)
TRAINED = train_bpe(TEXT * 2, 300, special=[END, "<|é|>"])


@pytest.fixture
def folder(tmp_path):
    save(TRAINED, tmp_path / "new" / "one")
    return tmp_path / "new" / "one"


def rewrite(path, change):
    fields = json.loads(path.read_text("utf-8"))
    change(fields)
    path.write_text(json.dumps(fields), "utf-8")


def test_names_are_printable_and_as_gpt2_has_them():
    assert name_of(b" the\n") == "ĠtheĊ" and name_of(b"\0\xad\xff\x7f!") == "ĀŃÿġ!"
    assert len(set(CHARACTERS.values())) == 256 == len(CHARACTERS)
    assert all(c.isprintable() and not c.isspace() for c in CHARACTERS.values())


def test_what_is_saved_is_loaded_from_either_form(folder):
    for path in (folder, folder / "tokenizer.json"):
        assert load(path).to_json() == TRAINED.to_json()
        assert build(str(path), "").to_json() == TRAINED.to_json()
    (folder / "tokenizer.json").unlink()
    assert load(folder).to_json() == TRAINED.to_json()
    (folder / "vocab.json").rename(folder / "encoder.json")
    (folder / "merges.txt").rename(folder / "vocab.bpe")
    assert load(folder).to_json() == TRAINED.to_json()
    (folder / "vocab.bpe").unlink()
    with pytest.raises(ValueError, match=r"expected vocab.json and merges.txt or encoder.json and"):
        load(folder)


def test_ids_may_be_in_any_order(tmp_path):
    order = random.Random(0).sample(range(300), 300)
    shuffled = BPETokenizer(
        [order[i] for i in TRAINED.byte_ids],
        [tuple(order[i] for i in merge) for merge in TRAINED.merges],
        {text: order[i] for text, i in TRAINED.special.items()},
    )
    expected = [order[i] for i in TRAINED.encode(TEXT)]
    assert shuffled.encode(TEXT).tolist() == expected
    save(shuffled, tmp_path)
    assert load(tmp_path).encode(TEXT).tolist() == expected
    (tmp_path / "tokenizer.json").unlink()
    assert load(tmp_path).encode(TEXT).tolist() == expected
    assert load(tmp_path).special == shuffled.special


def test_a_merge_of_number_signs_is_no_comment_and_line_ends_may_be_windows(tmp_path):
    tokenizer = BPETokenizer(range(256), [(35, 35, 256), (32, 35, 257)])
    save(tokenizer, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    lines = (tmp_path / "merges.txt").read_text("utf-8").split("\n")
    assert lines == ["#version: 0.2", "# #", "Ġ #", ""]
    for content in ("# #\nĠ #", "#version: 0.2\r\n# #\r\nĠ #\r\n"):
        (tmp_path / "merges.txt").write_bytes(content.encode())
        assert load(tmp_path).merges == tokenizer.merges


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ("a b c", "line 1 of the merges must be two tokens, got 'a b c'"),
        ("#version: 0.2\n\nab", "line 3 of the merges must be two tokens, got 'ab'"),
        ("a ", "line 1 of the merges"),
        ("zz zz", "does not hold the token 'zz'"),
        ("t he\nh e", "merge 0 joins"),
        (b"\xff", "can't decode byte"),
    ],
)
def test_wrong_merges_are_named(folder, merges, message):
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").write_bytes(merges if isinstance(merges, bytes) else merges.encode())
    with pytest.raises(ValueError, match=f"cannot load a tokenizer from .*: .*{message}"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vocab: vocab.pop("a"), "does not hold the token 'a'"),
        (lambda vocab: vocab.pop("the"), "does not hold the token 'the'"),
        (lambda vocab: vocab.update(a=5.0), "integer from 0, got 5.0"),
        (lambda vocab: vocab.update(a=vocab["b"]), "two bytes have the same id"),
        (lambda vocab: vocab.update(new=999), "ids must be 0 to 300"),
    ],
)
def test_a_wrong_vocabulary_is_named(folder, change, message):
    (folder / "tokenizer.json").unlink()
    rewrite(folder / "vocab.json", change)
    with pytest.raises(ValueError, match=message):
        load(folder)


def put(*path_and_value):
    """A change: the value at a path of keys of nested objects and lists."""
    *path, last, value = path_and_value

    def change(fields):
        for key in path:
            fields = fields[key]
        fields[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("model", "type", "WordPiece"), "type is 'WordPiece', but only 'BPE' is supported"),
        (put("model", "dropout", 0.1), "dropout is 0.1, but only"),
        (put("model", "byte_fallback", True), "byte_fallback is True, but only None or False"),
        (put("model", "ignore_merges", True), "ignore_merges is True"),
        (put("model", "continuing_subword_prefix", "##"), "continuing_subword_prefix is ##"),
        (put("model", "end_of_word_suffix", "</w>"), "end_of_word_suffix is </w>"),
        (put("model", None), "model must be a JSON object, got None"),
        (put("model", "vocab", []), "vocab must be a JSON object"),
        (put("model", "vocab", "new", 300), "no merge makes 'new', nor is it 300 among the added"),
        (put("model", "vocab", END, 299), "no merge makes '<.*>', nor is it 299 among the added"),
        (put("model", "merges", {}), "merges must be a list"),
        (put("model", "merges", 0, "a b c"), "merge 0 must be two tokens, got a b c"),
        (put("model", "merges", 0, ["a", "b", "c"]), "merge 0 must be two tokens"),
        (put("model", "merges", 0, ["a", 5]), "merge 0 must be two tokens"),
        (put("model", "merges", 0, 5), "merge 0 must be two tokens, got 5"),
        (put("model", "merges", 0, ["Ġzz", "z"]), "does not hold the token 'Ġzz'"),
        (put("normalizer", {"type": "NFC"}), "normalizer is .*NFC.*, but only None"),
        (put("truncation", {"max_length": 5}), "truncation is"),
        (put("padding", {"length": 5}), "padding is"),
        (put("pre_tokenizer", {"type": "Whitespace"}), "pre_tokenizer must be of type ByteLevel"),
        (put("pre_tokenizer", None), "pre_tokenizer must be of type ByteLevel, got None"),
        (put("pre_tokenizer", "add_prefix_space", True), "add_prefix_space is True"),
        (put("pre_tokenizer", {"type": "ByteLevel"}), "add_prefix_space is True"),  # the default
        (put("pre_tokenizer", "use_regex", False), "use_regex is False"),
        (put("decoder", {"type": "WordPiece"}), "decoder must be of type ByteLevel"),
        (put("post_processor", {"type": "TemplateProcessing"}), "post_processor must be of type"),
        (put("added_tokens", 5), "added_tokens must be a list"),
        (put("added_tokens", [5]), "added_tokens' entry must be a JSON object"),
        (put("added_tokens", 0, "special", False), "special of the added token .* is False"),
        (put("added_tokens", 0, "lstrip", True), "lstrip of the added token .* is True"),
        (put("added_tokens", 0, "content", None), "content of its own, got None"),
        (
            put("added_tokens", [{"id": 3, "content": "new", "special": True}]),
            "298 among the added",
        ),
        (put("added_tokens", 1, "content", END), "content of its own, got '<"),
        (put("added_tokens", 0, "id", "298"), "nor is it 298 among the added"),
        (put("added_tokens", 0, "id", 3), "nor is it 298 among the added"),
    ],
)
def test_a_tokenizer_json_that_says_what_we_cannot_do_is_refused(folder, change, message):
    rewrite(folder / "tokenizer.json", change)
    with pytest.raises(ValueError, match=f"cannot load a tokenizer from .*json: .*{message}"):
        load(folder)


def test_a_tokenizer_json_may_have_pairs_and_leave_out_defaults(folder):
    def change(fields):
        model = fields["model"]
        model["merges"] = [merge.split(" ") for merge in model["merges"]]
        fields["post_processor"] = {"type": "ByteLevel", "trim_offsets": False}
        for text in TRAINED.special:
            del model["vocab"][text]  # the added tokens alone tell them
        for name in ("dropout", "byte_fallback", "ignore_merges", "type"):
            del model[name]
        for name in ("normalizer", "truncation", "padding"):
            del fields[name]

    rewrite(folder / "tokenizer.json", change)
    assert load(folder).to_json() == TRAINED.to_json()


@pytest.mark.parametrize(
    ("token", "message"), [("298", "integer from 0, got '298'"), (3, "its id 3 is taken")]
)
def test_an_added_token_outside_the_vocabulary_needs_a_free_id(folder, token, message):
    def change(fields):
        del fields["model"]["vocab"][END]
        fields["added_tokens"][0]["id"] = token

    rewrite(folder / "tokenizer.json", change)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_special_token_with_another_tokens_name_cannot_be_saved(tmp_path):
    tokenizer = BPETokenizer(range(256), [(32, 97, 256)], {"Ġa": 257})
    assert tokenizer.encode(" aĠa", allow_special=True).tolist() == [256, 257]
    with pytest.raises(ValueError, match="printable name of another token"):
        save(tokenizer, tmp_path)


def test_paths_that_do_not_do_are_named(tmp_path):
    (tmp_path / "file").write_text("[1]")
    for path, message in ((tmp_path / "no", "No such"), (tmp_path / "file", "a JSON object")):
        with pytest.raises(ValueError, match=f"cannot load a tokenizer from {path}: .*{message}"):
            load(path)
    with pytest.raises(ValueError, match="cannot write a tokenizer to"):
        save(TRAINED, tmp_path / "file")


def test_the_tokenizers_library_reads_what_we_write(folder):
    library = pytest.importorskip("tokenizers", reason="the tokenizers library is not installed")
    theirs = library.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert theirs.get_vocab_size() == 300
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choices([*TEXT, "the", " cat", "\u3000", "é", "'s"], k=40))
        assert theirs.encode(text).ids == TRAINED.encode(text).tolist()
        assert theirs.decode(theirs.encode(text).ids) == text
    ids = TRAINED.encode(f"the{END} cat", allow_special=True).tolist()
    assert theirs.encode(f"the{END} cat").ids == ids and 298 in ids
    theirs.save(str(folder / "tokenizer.json"))  # as the library itself writes it
    assert load(folder).to_json() == TRAINED.to_json()


def test_we_read_what_the_tokenizers_library_trains(tmp_path):
    library = pytest.importorskip("tokenizers", reason="the tokenizers library is not installed")
    theirs = library.ByteLevelBPETokenizer()
    theirs.train_from_iterator([TEXT] * 3, vocab_size=310, special_tokens=["<s>", END])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = load(tmp_path)
    assert ours.special == {"<s>": 0, END: 1}
    assert ours.encode(TEXT).tolist() == theirs.encode(TEXT).ids
