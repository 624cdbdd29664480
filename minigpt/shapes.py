"""Primitives that move elements and compute nothing: the adjoint of each moves them back."""

from itertools import accumulate
from typing import Any

from minigpt import backend
from minigpt.backend import xp
from minigpt.tensor import Tensor, primitive


def unbroadcast(g: Any, target: tuple[int, ...]) -> Any:
    """Broadcasting copies values, so its adjoint sums the copies. g: any -> target."""
    if g.shape == target:
        return g
    added = g.ndim - len(target)
    stretched = [i + added for i, n in enumerate(target) if n == 1 and g.shape[i + added] != 1]
    return backend.sums(g, (*range(added), *stretched)).reshape(target)


def unreduce(g: Any, ndim: int, axis: Any, keepdims: bool) -> Any:
    """Give g its reduced axes back, with length 1, so that it broadcasts against the input."""
    return g if keepdims else xp.expand_dims(g, tuple(range(ndim)) if axis is None else axis)


@primitive
def reshape(x, *, shape):
    """The same elements in another shape."""
    x_shape = x.shape
    return x.reshape(shape), (lambda g: g.reshape(x_shape),)


@primitive
def transpose(x, *, axes=None):
    """Axes in the given order (None: reversed)."""
    back = None if axes is None else sorted(range(x.ndim), key=lambda i: axes[i] % x.ndim)
    return x.transpose(axes), (lambda g: g.transpose(back),)


@primitive
def broadcast_to(x, *, shape):
    """x repeated to a larger shape."""
    x_shape = x.shape
    return xp.broadcast_to(x, shape), (lambda g: unbroadcast(g, x_shape),)


@primitive
def concatenate(*xs, axis=0):
    """Arrays joined along an axis."""
    ends = list(accumulate(x.shape[axis] for x in xs[:-1]))
    return xp.concatenate(xs, axis=axis), lambda g: xp.split(g, ends, axis=axis)


def split(x: Tensor, sections: int, axis: int = 0) -> list[Tensor]:
    """`sections` equal parts along an axis, each a slice."""
    if sections < 1 or x.shape[axis] % sections:
        raise ValueError(f"axis {axis} of shape {x.shape} does not split into {sections} parts")
    n = x.shape[axis] // sections
    before = (slice(None),) * (axis % x.ndim)
    return [getitem(x, index=(*before, slice(i * n, (i + 1) * n))) for i in range(sections)]


@primitive
def getitem(x, *, index):
    """x[index], by integers, slices, or integer arrays. What is taken twice gets two gradients."""
    x_shape, dtype = x.shape, x.dtype
    parts = index if isinstance(index, tuple) else (index,)
    plain = all(part is None or part is ... or isinstance(part, int | slice) for part in parts)

    def dx(g):
        out = xp.zeros(x_shape, dtype)
        if plain:
            out[index] = g  # a slice takes each element once
        else:
            xp.add.at(out, index, g)  # an array of indices may take one repeatedly
        return out

    return x[index], (dx,)


@primitive
def scatter_add(x, idx, *, n):
    """The adjoint of taking rows: out[i] = sum of x[j] over all j with idx[j] == i.

    Shapes: x (N, C), idx (N,) int, 0 <= i < n  ->  (n, C).
    """
    backend.check_ids("idx", idx, n)
    idx = xp.asarray(idx)
    return backend.scatter_add(idx, x, n), (lambda g: g[idx], None)
