"""Token files: nothing lost, nothing in two parts, whole or not there, never trusted blindly."""

import hashlib
import io
import json
import os
import tracemalloc

import numpy as np
import pytest

from minigpt import data
from minigpt.__main__ import main
from minigpt.commands import tokenize as command
from minigpt.data import is_token_folder, open_tokens
from minigpt.data.writing import distinct, sample, write_tokens
from minigpt.tokenizer import CharTokenizer, build, from_json

PARTS = ("train", "val", "test")
LINES = [f"line {i} says that {i} and {i} are {2 * i}" for i in range(400)]
ABOUT = {"spec": "char", "source": "here", "licence": "none"}
NAMES = {"train.npy", "val.npy", "test.npy", "tokens.json"}


class Numbers:
    """A tokenizer with any number of tokens: each text is its first and its last."""

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def encode(self, text):
        return np.array([0, self.vocab_size - 1])

    def to_json(self):
        return "{}"


@pytest.fixture
def chars():
    return CharTokenizer.from_text("".join(LINES) + "\n")


@pytest.fixture
def written(tmp_path, chars):
    return write_tokens(tmp_path / "tokens", LINES, chars, **ABOUT)


def documents_of(files, tokenizer):
    return {p: tokenizer.decode(getattr(files, p)).removesuffix("\n").split("\n") for p in PARTS}


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["char", "bpe-300"])
def test_every_distinct_document_is_in_exactly_one_part(spec, tmp_path):
    tokenizer = build(spec, "".join(LINES) + "L\n")
    repeated = [*LINES, *(line.replace("line", "  Line ") for line in LINES[:50])]
    files = write_tokens(tmp_path / "new" / "tokens", repeated, tokenizer, removed=7, **ABOUT)
    found = documents_of(files, from_json(files.tokenizer))
    assert sorted(sum(found.values(), [])) == sorted(LINES)
    assert files.about["documents"] == 400 and files.about["duplicates"] == 57
    assert files.characters == {p: sum(len(d) + 1 for d in found[p]) for p in PARTS}
    assert files.tokenizer == tokenizer.to_json()
    for part in PARTS:
        array = getattr(files, part)
        assert array.dtype == np.uint16 and array.ndim == 1 and not array.flags.writeable
        assert isinstance(array, np.memmap)
        assert np.array_equal(np.load(tmp_path / f"new/tokens/{part}.npy"), array)
        assert files.about["parts"][part]["documents"] == len(found[part])
        assert found[part] == [line for line in LINES if line in {*found[part]}]  # in order
    assert {path.name for path in (tmp_path / "new/tokens").iterdir()} == NAMES
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tokens"]


def test_the_part_hangs_on_the_document_alone_and_is_the_recorded_one(written, tmp_path, chars):
    found = documents_of(written, chars)
    fewer = write_tokens(tmp_path / "fewer", LINES[:100:-1], chars, **ABOUT)
    for part, documents in documents_of(fewer, chars).items():
        assert {*documents} == {*found[part]} & {*LINES[101:]}
    assert [part for _, part in distinct(["document 1", "document 2", "document 10"])] == [
        "train", "test", "val"
    ]  # fmt: skip
    parts = [part for _, part in distinct(f"document {i}" for i in range(10_000))]
    assert 450 < parts.count("val") < 550 and 450 < parts.count("test") < 550
    assert parts.count("train") == 10_000 - parts.count("val") - parts.count("test")


def test_duplicates_are_those_of_deduplicate():
    documents = ["One  two", "three", "one two", " ONE\n\ttwo ", "Three", "onetwo", "three"]
    kept = [document for document, part in distinct(documents) if part]
    assert tuple(kept) == data.deduplicate(documents)[0]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids_get_as_many_bytes_as_they_need(vocab_size, dtype, tmp_path):
    files = write_tokens(tmp_path / "tokens", LINES, Numbers(vocab_size), **ABOUT)
    assert files.val.dtype == dtype
    assert files.val[:4].tolist() == [0, vocab_size - 1] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("a character is unknown")])
def test_a_stop_in_the_middle_leaves_nothing(error, tmp_path, chars):
    def documents():
        yield from LINES[:300]
        raise error

    with pytest.raises(type(error) if isinstance(error, ValueError) else error):
        write_tokens(tmp_path / "tokens", documents(), chars, **ABOUT)
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_leaves_nothing(tmp_path, chars, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="cannot write .*tokens: No space left"):
        write_tokens(tmp_path / "tokens", LINES, chars, **ABOUT)
    assert [*tmp_path.iterdir()] == []


def test_what_is_there_is_never_overwritten(written, tmp_path, chars):
    before = (tmp_path / "tokens/train.npy").read_bytes()
    with pytest.raises(ValueError, match="tokens is there already"):
        write_tokens(tmp_path / "tokens", LINES[:200], chars, **ABOUT)
    assert (tmp_path / "tokens/train.npy").read_bytes() == before


def test_too_few_documents(tmp_path, chars):
    with pytest.raises(ValueError, match="2 documents .1 duplicates removed. are too few"):
        write_tokens(tmp_path / "tokens", [*LINES[:2], LINES[0]], chars, **ABOUT)
    assert [*tmp_path.iterdir()] == []


def test_a_sample_is_the_beginning_of_the_training_part(written, chars):
    train = documents_of(written, chars)["train"]
    assert sample([*LINES[:30], *LINES]) == "".join(line + "\n" for line in train)
    assert sample(LINES, len(train[0]) + 2) == f"{train[0]}\n{train[1]}\n"


def test_memory_does_not_grow_with_the_file(tmp_path):
    """6 MB in documents of 3 kB, each another; a reader of the whole file would need 6 MB."""
    rng = np.random.default_rng(0)
    with open(tmp_path / "big.txt", "w", encoding="ascii") as file:
        for row in rng.integers(97, 123, (2000, 3000), np.uint8):
            file.write(row.tobytes().decode() + "\n\n")
    chars = CharTokenizer("abcdefghijklmnopqrstuvwxyz\n")
    tracemalloc.start()
    files = write_tokens(tmp_path / "t", data.text.stream(tmp_path / "big.txt"), chars, **ABOUT)
    sample(data.text.stream(tmp_path / "big.txt"), 10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(files.characters.values()) == 2000 * 3001
    assert peak < 1.5e6


# --- reading ----------------------------------------------------------------------------------


def test_fingerprint_and_card(written, tmp_path, chars):
    same = write_tokens(tmp_path / "same", LINES, chars, **ABOUT)
    other = write_tokens(tmp_path / "other", LINES[:-1], chars, **ABOUT)
    assert written.fingerprint == same.fingerprint != other.fingerprint
    digest = hashlib.sha256((tmp_path / "tokens/val.npy").read_bytes()).hexdigest()
    assert written.about["parts"]["val"]["sha256"] == digest
    tokens, n = len(written.val), written.characters["val"]
    for line in (
        "tokens (token files)", "source      here", "licence     none", "400 (0 duplicates",
        f"char, {chars.vocab_size} tokens", f"{tokens:,} tokens, {n:,} characters, 1.00 char",
    ):  # fmt: skip
        assert line in written.card()


def test_is_token_folder(written, tmp_path):
    assert is_token_folder(written.path) and is_token_folder(str(written.path))
    assert not is_token_folder(tmp_path) and not is_token_folder("facts")
    with pytest.raises(ValueError, match="no token files in .*: cannot read tokens.json"):
        open_tokens(tmp_path)


@pytest.mark.parametrize("name", sorted(NAMES - {"tokens.json"}))
def test_a_file_that_is_missing_cut_or_too_long_is_named(written, name):
    file = written.path / name
    content = file.read_bytes()
    for length in [0, 1, 5, 60, 127, 128, 129, len(content) - 1, len(content) + 1]:
        file.write_bytes((content + b"\0")[:length])
        with pytest.raises(ValueError, match=f"{name}"):
            open_tokens(written.path)
    file.unlink()
    with pytest.raises(ValueError, match=f"cannot open .*{name}: No such file"):
        open_tokens(written.path)


def saved(array, save=np.save):
    stream = io.BytesIO()
    save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain text, and more of it than a header has", "not a whole array file"),
        (saved(np.arange(9), np.savez), "not a whole array file"),
        (saved(np.array([{}], object)), "not a whole array file"),
        (saved(np.zeros(9)), "holds float64 of shape .9,.: expected"),
        (saved(np.zeros((3, 3), np.uint16)), "holds uint16 of shape .3, 3.: expected"),
        (saved(np.zeros(9, np.uint16)), "holds 9 tokens, but tokens.json says"),
    ],
)
def test_a_foreign_array_is_named(written, content, message):
    (written.path / "val.npy").write_bytes(content)
    with pytest.raises(ValueError, match=f"val.npy.* {message}"):
        open_tokens(written.path)


def test_a_changed_byte_is_found_when_asked_for(written):
    file = written.path / "test.npy"
    content = bytearray(file.read_bytes())
    assert open_tokens(written.path, verify=True).fingerprint == written.fingerprint
    content[-1] ^= 1
    file.write_bytes(content)
    open_tokens(written.path)
    with pytest.raises(ValueError, match="test.npy is not the file that was written"):
        open_tokens(written.path, verify=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: "{", "is not JSON"),
        (lambda about: [], "is not of format 'minigpt tokens 1', but None"),
        (lambda about: about | {"format": "other"}, "is not of format .*, but 'other'"),
        (lambda about: about | {"parts": 3}, "is incomplete"),
        (lambda about: about | {"parts": about["parts"] | {"val": {}}}, "incomplete: .*'tokens'"),
        (lambda about: {k: v for k, v in about.items() if k != "tokenizer"}, "'tokenizer'"),
        (lambda about: {k: v for k, v in about.items() if k != "licence"}, "'licence'"),
        (lambda about: about | {"documents": None}, "is incomplete"),
        (lambda about: about | {"vocab_size": "many"}, "is incomplete"),
    ],
)
def test_a_card_that_says_too_little_is_named(written, change, message):
    changed = change(written.about)
    text = changed if isinstance(changed, str) else json.dumps(changed)
    (written.path / "tokens.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"tokens.json.*{message}"):
        open_tokens(written.path)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.txt").write_text("".join(line + "\n" for line in LINES * 2), "utf-8")
    return "sums.txt"


def test_the_command_writes_a_folder(text, capsys):
    assert main(["tokenize", text, "--tokenizer", "bpe-280", "--out", "tokens"]) == 0
    out = capsys.readouterr().out
    files = open_tokens("tokens")
    assert files.card() in out and "written to tokens" in out
    assert files.about["duplicates"] == 400 and files.about["source"] == text
    tokenizer = from_json(files.tokenizer)
    found = documents_of(files, tokenizer)
    assert sorted(sum(found.values(), [])) == sorted(LINES)
    # The held-out parts taught the tokenizer nothing.
    train = "".join(line + "\n" for line in found["train"])
    assert files.tokenizer == build("bpe-280", train).to_json()
    assert main(["data", "tokens"]) == 0
    assert files.card() in capsys.readouterr().out
    assert main(["data", "tokens", "--json"]) == 0
    [card] = json.loads(capsys.readouterr().out)
    assert card["documents"] == 400 and "tokenizer" not in card


def test_characters_of_every_part_are_known_and_a_corpus_goes_by_name(tmp_path, capsys):
    out = tmp_path / "tokens"
    assert main(["tokenize", "chinese", "--tokenizer", "char", "--out", str(out)]) == 0
    files, corpus = open_tokens(out), data.load("chinese")
    assert files.about["licence"] == corpus.licence and files.about["source"] == corpus.source
    assert files.about["documents"] == 4506 and files.about["duplicates"] == corpus.duplicates
    found = documents_of(files, from_json(files.tokenizer))
    assert sorted(sum(found.values(), [])) == sorted(corpus.documents)
    assert files.characters == {"train": 37_282, "val": 2207, "test": 1957}


def test_the_bar_counts_the_bytes_of_the_file(text, tmp_path, monkeypatch):
    counted = []

    class Bar(command.tqdm):
        def update(self, n=1):
            counted.append((n, self.total))

    monkeypatch.setattr(command, "tqdm", Bar)
    assert main(["tokenize", text, "--tokenizer", "char", "--out", "tokens"]) == 0
    size = (tmp_path / text).stat().st_size
    assert sum(n for n, _ in counted) == size and {total for _, total in counted} == {size}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["facts", "--tokenizer", "words", "--out", "."], "is there already"),
        (["nowhere", "--out", "t"], "no corpus 'nowhere': expected one of facts, pydoc"),
        (["sums.txt", "--tokenizer", "words", "--out", "t"], "no tokenizer 'words'"),
        (["sums.txt", "--tokenizer", "bpe-90000", "--out", "t"], "vocab_size 90000 is too large"),
        (["empty.txt", "--out", "t"], "it holds no text"),
        (["binary.txt", "--out", "t"], "zero byte at position 3"),
        (["sums.txt"], "--out"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(text, argv, message, tmp_path, capsys):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "binary.txt").write_bytes(b"ELF\0")
    before = sorted(tmp_path.iterdir())
    try:
        code = main(["tokenize", *argv])
    except SystemExit as done:  # argparse
        code = done.code
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and message in error
    assert sorted(tmp_path.iterdir()) == before
