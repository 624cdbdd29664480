"""Arrays in safetensors files, read piece by piece straight to where they belong.

The safetensors library hands out whole copies of arrays, and NumPy has no bfloat16. A file is 8
bytes with the length of its header, little-endian; the header, a JSON object of name -> dtype,
shape and place; then the numbers. What a header says is compared with the file's size before
anything is made of that size.

Source: github.com/huggingface/safetensors, README, "Format".
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.backend import xp
from minigpt.tokenizer.vocabulary import parse_object

# bfloat16 is the upper half of a float32, and read as 16 bits.
FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_LONGEST_HEADER = 100_000_000  # bytes, the limit of the library
_MOST_AXES = 8
_PIECE = 1 << 22  # numbers read at a time: 16 MiB in float32


@dataclass(frozen=True)
class Stored:
    """An array in a file: bytes begin to end. dtype: the format's name of it."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def pieces(self) -> Iterator[np.ndarray]:
        """The numbers in order, at most 4 million at a time, as float32, or float64 if they are.

        Raises: ValueError, naming file and array, if one cannot be read, or is not finite.
        """
        kind, left = FLOATS[self.dtype], self.end - self.begin  # bytes to come
        try:
            with open(self.path, "rb") as file:
                file.seek(self.begin)
                while left:
                    content = file.read(min(_PIECE * kind.itemsize, left))
                    if not content or len(content) % kind.itemsize:
                        raise ValueError(f"{self.path} ends within {self.name}")
                    left -= len(content)
                    yield self._checked(np.frombuffer(content, kind))
        except OSError as error:
            raise ValueError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _checked(self, numbers: np.ndarray) -> np.ndarray:
        if self.dtype == "BF16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        if not np.isfinite(numbers).all():
            raise ValueError(f"{self.path}: {self.name} holds what is no finite number")
        return numbers.astype("f8" if self.dtype == "F64" else "f4", copy=False)

    def fill(self, array: Any) -> None:
        """Copy the numbers into an array of the same shape, without a second one of its size."""
        flat, start = array.reshape(-1), 0
        for piece in self.pieces():
            flat[start : start + piece.size] = xp.asarray(piece)
            start += piece.size


def read_header(path: Path) -> dict[str, Stored]:
    """What a safetensors file holds, by name. No numbers are read.

    Raises: ValueError, naming the file, if it cannot be read, or the header does not describe
            exactly the bytes that follow it.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = 8 + int.from_bytes(file.read(8), "little")
            if not 8 < start <= min(size, _LONGEST_HEADER):
                raise ValueError(f"its header should have {start - 8:,} bytes, the file {size:,}")
            entries = parse_object(file.read(start - 8))
        entries.pop("__metadata__", None)
        arrays = {name: _stored(path, name, entry, start) for name, entry in entries.items()}
        _check_places(arrays, start, size)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    return arrays


def _stored(path: Path, name: str, entry: Any, start: int) -> Stored:
    """One entry of the header, checked by itself. Places in it count from the header's end."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > _MOST_AXES:
            raise ValueError
        if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, begin, end)):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"its header says of {name[:60]!r}: {str(entry)[:80]}") from None
    if dtype in FLOATS and end - begin != math.prod(shape) * FLOATS[dtype].itemsize:
        raise ValueError(f"{name[:60]!r} has {end - begin} bytes, not those of {dtype} {shape}")
    return Stored(path, name, dtype, tuple(shape), start + begin, start + end)


def _check_places(arrays: dict[str, Stored], start: int, size: int) -> None:
    """Raises ValueError unless the arrays fill the file from start to size, one after another."""
    for array in sorted(arrays.values(), key=lambda array: (array.begin, array.end)):
        if array.begin != start or array.end < start:
            raise ValueError(f"{array.name[:60]!r} should begin at byte {start}, "
                             f"but is bytes {array.begin} to {array.end}")  # fmt: skip
        start = array.end
    if start != size:
        raise ValueError(f"its arrays end at byte {start:,}, the file at {size:,}")
