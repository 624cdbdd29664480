"""The array library `xp`, chosen once: NumPy, CuPy under MINIGPT_BACKEND=cupy, or for tests strict.

Every other file computes with `xp`, so one environment variable moves the whole package to a GPU.
Random numbers always come from a NumPy generator that the caller passes in, so both start equal.

Products of float32 are exact to float32. On a GPU, CUPY_TF32=1 in the environment (CuPy reads it at
its first product) trades that for speed: TF32, whose factors have 10 bits of fraction. half.py
trains in float16 there.
"""

import functools
import os
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
    except Exception as error:  # a half-installed CuPy raises whatever it stumbles over
        raise ValueError(
            "MINIGPT_BACKEND=cupy, but CuPy cannot be imported: install the wheel for your CUDA, "
            "cupy-cuda12x[ctk] or cupy-cuda13x[ctk] (python -m minigpt doctor says why)"
        ) from error
    if not cupy.is_available():
        raise ValueError(
            "MINIGPT_BACKEND=cupy, but cupy.is_available() is False: no GPU, or no driver for it "
            "(python -m minigpt doctor says why)"
        )
    return cupy


xp: Any = _choose(os.environ.get("MINIGPT_BACKEND", "numpy"))

on_host = xp is numpy  # whether arrays are in the memory that Python and files use


def to_numpy(x: Any) -> numpy.ndarray:
    """The array on the host: itself, or a copy. The one place where data leaves a GPU."""
    return numpy.asarray(x) if on_host else xp.asnumpy(x)


def read_only(x: Any) -> Any:
    """A view of x that cannot be written to. (CuPy has no such views: there, x itself.)"""
    view = xp.asarray(x).view()
    if isinstance(view, numpy.ndarray):
        view.flags.writeable = False
    return view


def overflow_allowed() -> Any:
    """A context in which an overflow to inf is no warning. (CuPy never warns.)"""
    return numpy.errstate(over="ignore")


def host_arange(n: int) -> numpy.ndarray:
    """0..n-1 where ids come from, which is the host."""
    return numpy.arange(n)


def holds(condition: Any) -> bool:
    """Whether a condition on values is met. On a GPU, where to ask is to wait, it is believed."""
    return not on_host or bool(condition)


def check_ids(name: str, ids: Any, n: int) -> None:
    """Raise ValueError unless ids are integers in 0..n-1: NumPy wraps negative ones, CuPy any.

    They are looked at on the host: where they come from there, nothing waits for a GPU.
    """
    ids = to_numpy(ids)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {ids.dtype}")
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < n:
        raise ValueError(f"{name} must be in 0..{n - 1}, got {int(ids.min())}..{int(ids.max())}")


@functools.lru_cache(maxsize=64)
def _ones(n: int, dtype: Any) -> Any:
    """(n,), not to be written to."""
    return xp.ones(n, dtype)


def sums(x: Any, axis: Any) -> Any:
    """x.sum(axis), element by element; of half numbers in float32, see wide.py."""
    if x.dtype.char == "e":
        return x.sum(axis, dtype="float32").astype(x.dtype)
    return x.sum(axis)


def row_sums(x: Any) -> Any:
    """Sums along the last axis, (..., C) -> (..., 1). Short rows sum faster as a product."""
    return (x @ _ones(x.shape[-1], x.dtype))[..., None]


def column_sums(x: Any) -> Any:
    """Sums along the first axis, (N, C) -> (C,), as a product with ones."""
    return _ones(len(x), x.dtype) @ x


def row_dots(x: Any, y: Any) -> Any:
    """Inner products along the last axis, (..., C) and (..., C) -> (..., 1), in one pass."""
    if on_host:  # vecdot conjugates x, so twice is not at all; a real x stays itself
        return numpy.vecdot(x.conj(), y)[..., None]
    return xp.einsum("...c,...c->...", x, y)[..., None]


def column_dots(x: Any, y: Any) -> Any:
    """Inner products along the first axis, (N, C) and (N, C) -> (C,), in one pass."""
    return xp.einsum("nc,nc->c", x, y)


def scatter_add(idx: Any, rows: Any, n: int) -> Any:
    """Sum rows that share an index: out[i] = sum of rows[j] over all j with idx[j] == i.

    Shapes: idx (N,) int, 0 <= i < n; rows (N, C)  ->  (n, C).
    A loop over N (`add.at`) is slow. Few targets: a one-hot matrix product, (n, N) @ (N, C).
    Many: sort by target, then sum each run; on a GPU, add.at, which is no loop there.
    """
    if n <= 1024 or len(idx) == 0:
        onehot = xp.arange(n)[:, None] == idx  # (n, N)
        return onehot.astype(rows.dtype) @ rows
    if rows.dtype.char == "e":
        return scatter_add(idx, rows.astype("float32"), n).astype(rows.dtype)
    out = xp.zeros((n, rows.shape[1]), rows.dtype)
    if not on_host:  # atomic additions, in no fixed order; runs would have to be counted here
        xp.add.at(out, idx, rows)
        return out
    order = numpy.argsort(idx, kind="stable")
    idx = idx[order]
    starts = numpy.flatnonzero(numpy.concatenate([numpy.ones(1, bool), idx[1:] != idx[:-1]]))
    out[idx[starts]] = numpy.add.reduceat(rows[order], starts, axis=0)
    return out
