"""Make token files: documents stream through, and a folder appears whole or not at all.

Nothing here grows with the text but the set of the hashes of its documents, about 100 bytes each.
A document goes to train, val or test by its own hash, so the parts do not depend on the order of
the documents, and a document that is added later moves no other. (`split` in corpus.py shuffles
instead, and must know all documents first; so the two do not cut alike.)
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np

from minigpt.data.corpus import PARTS, normal
from minigpt.data.tokens import CARD, FORMAT, TokenFiles, open_tokens, sha256

VAL = TEST = 0.05  # fraction of the documents, on average
SAMPLE = 10_000_000  # characters of the training part that a tokenizer is trained on, at most


class Tokenizer(Protocol):
    """What a tokenizer must offer here."""

    vocab_size: int

    def encode(self, text: str) -> np.ndarray:
        """n characters -> ids (m,)."""

    def to_json(self) -> str:
        """The tokenizer as JSON."""


def part_of(key: bytes) -> str:
    """The part of the document with this hash: even over all hashes, and always the same."""
    place = int.from_bytes(key[:8], "big") / 2**64  # in [0, 1)
    return "val" if place < VAL else "test" if place < VAL + TEST else "train"


def distinct(documents: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Each document with its part, or with None if it is a duplicate.

    Two documents are equal as in `deduplicate`; their hashes of 16 bytes stand for them.
    """
    seen: set[bytes] = set()
    for document in documents:
        key = hashlib.blake2b(normal(document).encode("utf-8", "replace"), digest_size=16).digest()
        yield document, None if key in seen else part_of(key)
        seen.add(key)


def sample(documents: Iterable[str], characters: int = SAMPLE) -> str:
    """The beginning of the training part, whole documents, to train a tokenizer on."""
    kept: list[str] = []
    for document, part in distinct(documents):
        if part == "train":
            kept.append(document + "\n")
            characters -= len(kept[-1])
            if characters <= 0:
                break
    return "".join(kept)


def write_tokens(
    folder: str | Path,
    documents: Iterable[str],
    tokenizer: Tokenizer,
    *,
    spec: str,
    source: str,
    licence: str,
    removed: int = 0,
) -> TokenFiles:
    """Tokenize the documents, each with its newline and on its own, into a new folder.

    spec: the tokenizer's name. removed: duplicates that are not among the documents any more.
    Raises: ValueError if the folder is there already, cannot be written, or a part stays empty.
    """
    folder = Path(folder)
    check_free(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        duplicates, parts = _write_arrays(temporary, documents, tokenizer)
        card = {
            "format": FORMAT, "source": source, "licence": licence,
            "documents": sum(part["documents"] for part in parts.values()),
            "duplicates": removed + duplicates, "parts": parts, "spec": spec,
            "vocab_size": tokenizer.vocab_size, "tokenizer": tokenizer.to_json(),
        }  # fmt: skip
        (temporary / CARD).write_text(json.dumps(card, indent=1), "utf-8")
        os.rename(temporary, folder)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # it is gone already if all went well
    return open_tokens(folder)


def check_free(folder: Path) -> None:
    """Raises ValueError if there is something at that path: nothing is ever overwritten."""
    if folder.exists():
        raise ValueError(f"{folder} is there already: name a new folder, or remove it first")


def _write_arrays(
    folder: Path, documents: Iterable[str], tokenizer: Tokenizer
) -> tuple[int, dict[str, dict]]:
    """The three arrays, flushed to the disk: how many duplicates, and what each part holds."""
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    duplicates, number, characters = 0, dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    with ExitStack() as stack:
        arrays = {p: stack.enter_context(_Array(folder / f"{p}.npy", dtype)) for p in PARTS}
        for document, part in distinct(documents):
            if part is None:
                duplicates += 1
                continue
            arrays[part].append(tokenizer.encode(document + "\n"))
            number[part] += 1
            characters[part] += len(document) + 1
    if not all(number.values()):
        empty = next(part for part in PARTS if not number[part])
        raise ValueError(
            f"{sum(number.values())} documents ({duplicates} duplicates removed) are too few to"
            f" split in three: {empty} stays empty"
        )
    return duplicates, {
        p: {"documents": number[p], "characters": characters[p], "tokens": arrays[p].n,
            "sha256": sha256(folder / f"{p}.npy")}
        for p in PARTS
    }  # fmt: skip


class _Array:
    """A file of one row of numbers that grows. Its header, at the front, is corrected at the end.

    NumPy leaves room in a header for the largest length, so that it need not move what follows.
    """

    def __init__(self, path: Path, dtype: np.dtype):
        self.dtype, self.n = dtype, 0
        self._path = path

    def __enter__(self) -> "_Array":
        self._file = open(self._path, "wb")  # noqa: SIM115 - closed at the exit
        self._header()
        return self

    def append(self, ids: np.ndarray) -> None:
        """Shapes: (m,) integers."""
        self._file.write(ids.astype(self.dtype).tobytes())
        self.n += len(ids)

    def __exit__(self, *error: object) -> None:
        with self._file:
            self._file.seek(0)
            self._header()
            self._file.flush()
            os.fsync(self._file.fileno())

    def _header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": self.dtype.str, "fortran_order": False, "shape": (self.n,)}
        )
