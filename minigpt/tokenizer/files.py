"""Tokenizers in the files that others use.

vocab.json and merges.txt: GPT-2's own pair of files, which first were encoder.json and vocab.bpe.
They do not say which tokens are special, but what is neither a byte nor made by a merge must be.
tokenizer.json: all in one, as the `tokenizers` library has it; see huggingface.py.
"""

import json
import os
from pathlib import Path

from minigpt.tokenizer import huggingface
from minigpt.tokenizer.bpe import BPETokenizer
from minigpt.tokenizer.names import names_of, numbered
from minigpt.tokenizer.vocabulary import parse_object

_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_ALL_IN_ONE = "tokenizer.json"
_HEADER = "#version: 0.2"  # the first line of merges.txt; a "# #" further down is a merge


def load(path: str | os.PathLike) -> BPETokenizer:
    """The tokenizer of a tokenizer.json, or of a folder with that or with a pair of files.

    Raises: ValueError naming the path, and what is wrong or missing there.
    """
    path = Path(path)
    if (path / _ALL_IN_ONE).is_file():
        path /= _ALL_IN_ONE
    try:
        if path.is_dir():
            return parse_pair(*read_pair(path))
        return huggingface.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load a tokenizer from {path}: {error}") from error


def save(tokenizer: BPETokenizer, folder: str | os.PathLike) -> None:
    """Write vocab.json, merges.txt and tokenizer.json into a folder, which is made if need be.

    Raises: ValueError if the files cannot be written, or cannot say what the tokenizer does.
    """
    vocab, pairs = names_of(tokenizer)
    contents = {
        _PAIRS[0][0]: json.dumps(vocab, ensure_ascii=False),
        _PAIRS[0][1]: "\n".join([_HEADER, *(f"{a} {b}" for a, b in pairs), ""]),
        _ALL_IN_ONE: json.dumps(huggingface.fields(tokenizer), ensure_ascii=False, indent=1),
    }
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (Path(folder) / name).write_bytes(content.encode("utf-8"))
    except OSError as error:
        raise ValueError(f"cannot write a tokenizer to {folder}: {error}") from error


def read_pair(folder: Path) -> tuple[bytes, bytes]:
    """The vocabulary and the merges in a folder, under either pair of names, not parsed yet.

    Raises: ValueError if they are not there.
    """
    for vocab, merges in _PAIRS:
        if (folder / vocab).is_file() and (folder / merges).is_file():
            return (folder / vocab).read_bytes(), (folder / merges).read_bytes()
    pairs = " or ".join(" and ".join(names) for names in _PAIRS)
    raise ValueError(f"expected {pairs} in {folder}")


def parse_pair(vocab: bytes, merges: bytes) -> BPETokenizer:
    """The tokenizer of such a pair of files.

    Raises: ValueError saying what is wrong with them.
    """
    lines = [line.rstrip("\r") for line in merges.decode("utf-8").split("\n")]
    if lines[0].startswith("#version"):
        lines[0] = ""
    pairs = []
    for number, line in enumerate(lines, 1):
        halves = line.split(" ")
        if len(halves) == 2 and all(halves):
            pairs.append((halves[0], halves[1]))
        elif line:
            raise ValueError(f"line {number} of the merges must be two tokens, got {line[:60]!r}")
    return BPETokenizer(*numbered(pairs, parse_object(vocab)))
