"""Token files: a corpus tokenized once, for training on more text than fits into memory.

A folder with `train.npy`, `val.npy` and `test.npy`, one row of token ids each, and `tokens.json`,
which holds the tokenizer, the origin, and the SHA-256 of each array. A reader maps the arrays, so
only the pages that a batch touches are loaded. See writing.py for how such a folder is made.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.data.corpus import PARTS

FORMAT = "minigpt tokens 1"
CARD = "tokens.json"


@dataclass(frozen=True)
class TokenFiles:
    """An open folder. train, val, test: ids (N,) uint16 or uint32, mapped and read-only.

    tokenizer: its JSON. characters: part -> length of the text that its ids decode to.
    fingerprint: equal for equal ids. about: all of tokens.json.
    """

    path: Path
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    tokenizer: str
    characters: dict[str, int]
    fingerprint: str
    about: dict[str, Any]

    def card(self) -> str:
        """A short description for people: origin, licence and sizes."""
        about = self.about
        lines = [
            f"name        {self.path.name} (token files)",
            f"source      {about['source']}",
            f"licence     {about['licence']}",
            f"documents   {about['documents']:,} ({about['duplicates']:,} duplicates removed)",
            f"characters  {sum(self.characters.values()):,}",
            f"tokenizer   {about['spec']}, {about['vocab_size']:,} tokens",
        ]
        for part in PARTS:
            characters, tokens = self.characters[part], len(getattr(self, part))
            ratio = f"{characters / tokens:.2f} characters a token"
            lines.append(f"{part:11s} {tokens:,} tokens, {characters:,} characters, {ratio}")
        return "\n".join(lines)


def is_token_folder(path: str | Path) -> bool:
    """Whether path is a folder with a tokens.json; `open_tokens` says whether all is well."""
    return Path(path, CARD).is_file()


def open_tokens(path: str | Path, verify: bool = False) -> TokenFiles:
    """Open a folder of token files.

    Sizes are always checked against the headers and tokens.json. The content is checked against the
    SHA-256 only with `verify`, since that reads every byte.
    Raises: ValueError naming the file that is missing, cut short, changed, or not of this format.
    """
    path = Path(path)
    about = _read_card(path / CARD)
    arrays = {part: _open_array(path / f"{part}.npy") for part in PARTS}
    try:
        parts = {part: about["parts"][part] for part in PARTS}
        lengths = {part: parts[part]["tokens"] for part in PARTS}
        hashes = {part: parts[part]["sha256"] for part in PARTS}
        characters = {part: parts[part]["characters"] for part in PARTS}
        files = TokenFiles(path, **arrays, tokenizer=str(about["tokenizer"]), characters=characters,
                           fingerprint=fingerprint(hashes), about=about)  # fmt: skip
        files.card()  # it reads the rest
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path / CARD} is incomplete: {error!r}") from error
    for part, array in arrays.items():
        file = path / f"{part}.npy"
        if len(array) != lengths[part]:
            raise ValueError(f"{file} holds {len(array)} tokens, but {CARD} says {lengths[part]}")
        if verify and sha256(file) != hashes[part]:
            raise ValueError(f"{file} is not the file that was written: its SHA-256 differs")
    return files


def fingerprint(hashes: dict[str, str]) -> str:
    """One hash for the three arrays, from theirs."""
    return hashlib.sha256(" ".join(hashes[part] for part in PARTS).encode()).hexdigest()


def sha256(file: Path) -> str:
    """Of a file's bytes."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _read_card(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ValueError(
            f"no token files in {file.parent}: cannot read {CARD} ({error.strerror})"
        ) from error
    except ValueError as error:  # JSON or UTF-8
        raise ValueError(f"{file} is not JSON: {error}") from error
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file} is not of format {FORMAT!r}, but {found!r}")
    return about


def _open_array(file: Path) -> np.ndarray:
    """The ids (N,), mapped. NumPy refuses arrays of Python objects here, so nothing is executed."""
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except OSError as error:
        raise ValueError(f"cannot open {file}: {error.strerror or error}") from error
    except ValueError as error:  # foreign, or shorter than its header says
        raise ValueError(f"{file} is not a whole array file: {error}") from error
    if array.dtype not in (np.uint16, np.uint32) or array.ndim != 1:
        raise ValueError(
            f"{file} holds {array.dtype} of shape {array.shape}: expected a row of uint16 or uint32"
        )
    expected = array.offset + array.nbytes
    if (size := file.stat().st_size) != expected:
        raise ValueError(f"{file} has {size} bytes, but its header says {expected}")
    return array
