"""The array library `xp`, chosen once: NumPy, or CuPy under MINIGPT_BACKEND=cupy.

Every other file computes with `xp`, so one environment variable moves the whole package to a GPU.
Random numbers always come from a NumPy generator that the caller passes in, so both start equal.
"""

import ctypes
import functools
import os
import sys
from types import ModuleType
from typing import Any

import numpy


def _choose(name: str) -> ModuleType:
    """The module behind a backend's name, or a ValueError that says what to install."""
    if name == "numpy":
        return numpy
    if name == "strict":
        from minigpt import strict  # NumPy with CuPy's rules: for tests, on any machine

        return strict
    if name != "cupy":
        raise ValueError(f"MINIGPT_BACKEND={name!r}: expected 'numpy', 'cupy' or 'strict'")
    try:
        import cupy  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ValueError(
            "MINIGPT_BACKEND=cupy, but CuPy cannot be imported: install the wheel for your CUDA, "
            f"cupy-cuda12x or cupy-cuda13x ({error})"
        ) from error
    if not cupy.is_available():
        raise ValueError("MINIGPT_BACKEND=cupy, but CuPy finds no usable GPU: check the driver")
    return cupy


def _keep_freed_memory() -> None:
    """Ask glibc to keep large freed blocks for the next allocation.

    A training step frees and asks for the same sizes again and again. By default glibc returns
    such blocks to the system, and the page faults that follow cost a third of a step. Other
    systems' allocators are left as they are.
    """
    if sys.platform != "linux":
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, 1 << 30)
    mallopt(M_ARENA_MAX, 1)  # one pool of freed blocks for all threads


xp: Any = _choose(os.environ.get("MINIGPT_BACKEND", "numpy"))
_keep_freed_memory()


def to_numpy(x: Any) -> numpy.ndarray:
    """The array as a NumPy array on the host. The one place where data leaves a GPU."""
    return numpy.asarray(x) if xp is numpy else xp.asnumpy(x)


def read_only(x: Any) -> Any:
    """A view of x that cannot be written to. (CuPy has no such views: there, x itself.)"""
    view = xp.asarray(x).view()
    if isinstance(view, numpy.ndarray):
        view.flags.writeable = False
    return view


def overflow_allowed() -> Any:
    """A context in which an overflow to inf is no warning. (CuPy never warns.)"""
    return numpy.errstate(over="ignore")


def check_ids(name: str, ids: Any, n: int) -> None:
    """Raise ValueError unless ids are integers in 0..n-1: NumPy wraps negative ones, CuPy any."""
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {ids.dtype}")
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < n:
        raise ValueError(f"{name} must be in 0..{n - 1}, got {int(ids.min())}..{int(ids.max())}")


@functools.lru_cache(maxsize=64)
def _ones(n: int, dtype: Any) -> Any:
    """(n,), not to be written to."""
    return xp.ones(n, dtype)


def row_sums(x: Any) -> Any:
    """Sums along the last axis, (..., C) -> (..., 1). Short rows sum faster as a product."""
    return (x @ _ones(x.shape[-1], x.dtype))[..., None]


def column_sums(x: Any) -> Any:
    """Sums along the first axis, (N, C) -> (C,), as a product with ones."""
    return _ones(len(x), x.dtype) @ x


def row_dots(x: Any, y: Any) -> Any:
    """Inner products along the last axis, (..., C) and (..., C) -> (..., 1), in one pass."""
    if xp is numpy:  # vecdot conjugates x, so twice is not at all; a real x stays itself
        return numpy.vecdot(x.conj(), y)[..., None]
    return xp.einsum("...c,...c->...", x, y)[..., None]


def column_dots(x: Any, y: Any) -> Any:
    """Inner products along the first axis, (N, C) and (N, C) -> (C,), in one pass."""
    return xp.einsum("nc,nc->c", x, y)


def scatter_add(idx: Any, rows: Any, n: int) -> Any:
    """Sum rows that share an index: out[i] = sum of rows[j] over all j with idx[j] == i.

    Shapes: idx (N,) int, 0 <= i < n; rows (N, C)  ->  (n, C).
    A loop over N (`add.at`) is slow. Few targets: a one-hot matrix product, (n, N) @ (N, C).
    Many: sort by target, then sum each run.
    """
    if n <= 1024 or len(idx) == 0:
        onehot = xp.arange(n)[:, None] == idx  # (n, N)
        return onehot.astype(rows.dtype) @ rows
    order = xp.argsort(idx, kind="stable")
    idx = idx[order]
    starts = xp.flatnonzero(xp.concatenate([xp.ones(1, bool), idx[1:] != idx[:-1]]))
    out = xp.zeros((n, rows.shape[1]), rows.dtype)
    out[idx[starts]] = xp.add.reduceat(rows[order], starts, axis=0)
    return out
