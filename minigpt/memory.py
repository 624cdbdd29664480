"""Large arrays in memory that was used before.

A training step asks for the same large arrays again and again. An allocator gives such blocks back
to the system when they are freed. When the next request brings memory in again, the system fills it
with zeros, page by page, which takes up to a third of a step.

Linux's usual C library can be told to keep what is freed, which costs nothing, and is. Others
cannot: there, freed blocks are kept here, by size, and a large array is a view of one. When nothing
looks at a block any more, it is free again. This is plain Python, the same under every system. A
view takes 3 microseconds, so where the library keeps memory, nothing else is done.

Where a result is large and made anew in each step, the core writes `memory.multiply(x, y)` for
x * y, and so on. On a GPU that is all it is: CuPy keeps freed memory by itself.
"""

import ctypes
import math
import threading
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy

from minigpt.backend import on_host, xp

WORTHWHILE = 1 << 16  # bytes; allocators begin to return blocks, which are then worth a view


def ask_glibc(keep: bool = True) -> bool:
    """Have Linux's usual C library keep all that is freed, or return blocks from 128 KiB on again.

    False where it is another one. Others cannot be asked.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    limit = 1 << 30 if keep else 1 << 17
    arena = mallopt(M_ARENA_MAX, 1)  # one store of freed blocks for all threads
    return bool(arena and mallopt(M_MMAP_THRESHOLD, limit) and mallopt(M_TRIM_THRESHOLD, limit))


LARGE = math.inf if ask_glibc() else WORTHWHILE  # bytes; from here on, blocks are kept here


class Blocks:
    """Blocks of memory, uint8 (size,), and which of them are free.

    Together they hold at most a quarter more bytes than were ever in use at once: if a new block
    would be more, all free ones are dropped first.
    """

    def __init__(self) -> None:
        self.free: dict[int, list[Any]] = {}  # size in bytes: the blocks nothing looks at
        self.held, self.most = 0, 0  # bytes of all blocks; the most that were in use at once
        self._lock = threading.Lock()

    def take(self, size: int) -> Any:
        """A lease of a free block, or of a new one: see _lease. Threads may ask at once."""
        free = self.free.setdefault(size, [])
        try:
            block = free.pop()  # one step, as append is
        except IndexError:
            block = self._new(size)
        lease = _lease(size).from_buffer(block)
        lease.block, lease.free = block, free
        return lease

    def _new(self, size: int) -> Any:
        with self._lock:
            free = sum(size * len(blocks) for size, blocks in list(self.free.items()))
            self.most = max(self.most, self.held - free + size)
            if self.held + size > 5 * self.most // 4:
                self._drop()
            self.held += size
        return numpy.empty(size, numpy.uint8)

    def _drop(self) -> None:
        for size, blocks in list(self.free.items()):
            with suppress(IndexError):  # none left, perhaps since another thread took the last
                while True:
                    blocks.pop()
                    self.held -= size


BLOCKS = Blocks()


@lru_cache(maxsize=1024)
def _lease(size: int) -> Any:
    """The type of what stands between a block and its arrays, and dies with the last of them."""
    return type("Lease", (ctypes.c_char * size,), {
        "__slots__": ("block", "free"), "__del__": lambda self: self.free.append(self.block)
    })  # fmt: skip


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """xp.empty, for a dtype such as arrays have."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or not on_host:
        return xp.empty(shape, dtype)
    return numpy.ndarray(shape, dtype, BLOCKS.take(size))  # it and its views keep the lease


def like(x: Any) -> Any:
    """xp.empty_like, in C order."""
    return empty(x.shape, x.dtype) if type(x) is numpy.ndarray else xp.empty_like(x)


def copy(x: Any) -> Any:
    """The same elements in C order."""
    out = like(x)
    out[...] = x
    return out


def _room(x: Any, y: Any) -> Any:
    """An array for x + y and the like, if x is large and the sum is surely like it; else None."""
    if type(x) is not numpy.ndarray or x.nbytes < LARGE:
        return None
    if type(y) is not numpy.ndarray:
        return like(x) if type(y) in (int, float) and x.dtype.kind in "fc" else None
    if y.shape != x.shape and y.shape != x.shape[-1:] and y.shape != (*x.shape[:-1], 1):
        return None
    return like(x) if y.dtype == x.dtype else None


def add(x: Any, y: Any) -> Any:
    """x + y, broadcasting."""
    return xp.add(x, y, out=_room(x, y))


def subtract(x: Any, y: Any) -> Any:
    """x - y, broadcasting."""
    return xp.subtract(x, y, out=_room(x, y))


def multiply(x: Any, y: Any) -> Any:
    """x * y elementwise, broadcasting."""
    return xp.multiply(x, y, out=_room(x, y))


def matmul(x: Any, y: Any) -> Any:
    """x @ y. Shapes: (..., n, k), and (k, m) or (..., k, m) -> (..., n, m)."""
    if math.inf == LARGE or not type(x) is type(y) is numpy.ndarray or x.dtype != y.dtype:
        return x @ y
    return xp.matmul(x, y, out=empty((*x.shape[:-1], y.shape[-1]), x.dtype))
