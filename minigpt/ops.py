"""Elementary primitives, under NumPy's names, and the operators bound to them.

In a vjp, `g` comes in with the output's shape and a gradient of the argument's shape goes out.
"""

from itertools import accumulate
from typing import Any

from minigpt import backend
from minigpt.backend import xp
from minigpt.tensor import Tensor, primitive

shape = xp.shape  # also of Python numbers


def unbroadcast(g: Any, target: tuple[int, ...]) -> Any:
    """Broadcasting copies values, so its adjoint sums the copies. g: any -> target."""
    if g.shape == target:
        return g
    added = g.ndim - len(target)
    stretched = [i + added for i, n in enumerate(target) if n == 1 and g.shape[i + added] != 1]
    return g.sum((*range(added), *stretched)).reshape(target)


def unreduce(g: Any, ndim: int, axis: Any, keepdims: bool) -> Any:
    """Give g its reduced axes back, with length 1, so that it broadcasts against the input."""
    if axis is None:
        return g.reshape((1,) * ndim)
    return g if keepdims else xp.expand_dims(g, axis)


@primitive
def add(x, y):
    """x + y, broadcasting."""
    x_shape, y_shape = shape(x), shape(y)
    return x + y, (lambda g: unbroadcast(g, x_shape), lambda g: unbroadcast(g, y_shape))


@primitive
def subtract(x, y):
    """x - y, broadcasting."""
    x_shape, y_shape = shape(x), shape(y)
    return x - y, (lambda g: unbroadcast(g, x_shape), lambda g: unbroadcast(-g, y_shape))


@primitive
def multiply(x, y):
    """x * y elementwise, broadcasting."""
    return x * y, (lambda g: unbroadcast(g * y, shape(x)), lambda g: unbroadcast(g * x, shape(y)))


@primitive
def divide(x, y):
    """x / y elementwise, broadcasting."""
    out = x / y
    return out, (
        lambda g: unbroadcast(g / y, shape(x)),
        lambda g: unbroadcast(-g * out / y, shape(y)),
    )


@primitive
def power(x, y):
    """x ** y elementwise, broadcasting. The derivative in y exists where x > 0; elsewhere 0."""
    out = x**y
    return out, (
        lambda g: unbroadcast(g * y * x ** (y - 1), shape(x)),
        lambda g: unbroadcast(g * out * xp.log(xp.where(x > 0, x, 1)).astype(g.dtype), shape(y)),
    )


@primitive
def maximum(x, y):
    """The larger of x and y, broadcasting. At a tie (a kink) each side gets half of g."""

    half = 0.5 * (x == y)
    return xp.maximum(x, y), (
        lambda g: unbroadcast(g * ((x > y) + half).astype(g.dtype), shape(x)),
        lambda g: unbroadcast(g * ((y > x) + half).astype(g.dtype), shape(y)),
    )


@primitive
def where(condition, x, y):
    """x where the condition holds, else y, broadcasting. condition: bool array, no gradient."""
    x_shape, y_shape = shape(x), shape(y)
    return xp.where(condition, x, y), (
        None,
        lambda g: unbroadcast(xp.where(condition, g, xp.zeros_like(g)), x_shape),
        lambda g: unbroadcast(xp.where(condition, xp.zeros_like(g), g), y_shape),
    )


@primitive
def negative(x):
    """-x."""
    return -x, (lambda g: -g,)


@primitive
def exp(x):
    """e ** x."""
    out = xp.exp(x)
    return out, (lambda g: g * out,)


@primitive
def log(x):
    """The natural logarithm, x > 0."""
    return xp.log(x), (lambda g: g / x,)


@primitive
def sqrt(x):
    """The square root, x > 0."""
    out = xp.sqrt(x)
    return out, (lambda g: g / (2 * out),)


@primitive
def tanh(x):
    """The hyperbolic tangent."""
    out = xp.tanh(x)
    return out, (lambda g: g * (1 - out * out),)


@primitive
def relu(x):
    """max(x, 0). At 0 (a kink) the gradient is 0."""
    return xp.maximum(x, 0), (lambda g: g * (x > 0),)


@primitive
def sum(x, *, axis=None, keepdims=False):
    """Sum over axis (None: all)."""
    x_shape, out = x.shape, x.sum(axis=axis, keepdims=keepdims)
    return out, (lambda g: xp.broadcast_to(unreduce(g, len(x_shape), axis, keepdims), x_shape),)


@primitive
def mean(x, *, axis=None, keepdims=False):
    """Mean over axis (None: all)."""
    out = x.mean(axis=axis, keepdims=keepdims)
    x_shape, n = x.shape, x.size // out.size

    def dx(g):
        return xp.broadcast_to(unreduce(g, len(x_shape), axis, keepdims) / n, x_shape)

    return out, (dx,)


@primitive
def max(x, *, axis=None, keepdims=False):
    """Maximum over axis (None: all). Equal maxima (a kink) share g equally."""
    out = x.max(axis=axis, keepdims=keepdims)

    def dx(g):
        hit = (x == unreduce(out, x.ndim, axis, keepdims)).astype(g.dtype)
        return hit / hit.sum(axis=axis, keepdims=True) * unreduce(g, x.ndim, axis, keepdims)

    return out, (dx,)


@primitive
def var(x, *, axis=None, keepdims=False):
    """Population variance (divided by n) over axis (None: all)."""
    out = x.var(axis=axis, keepdims=keepdims)
    n = x.size // out.size

    def dx(g):
        centred = x - x.mean(axis=axis, keepdims=True)  # its mean is 0: no term from the mean
        return unreduce(g, x.ndim, axis, keepdims) * (2 / n) * centred

    return out, (dx,)


@primitive
def logsumexp(x, *, axis=None, keepdims=False):
    """log(sum(exp(x))) over axis, shifted by the maximum so that nothing overflows."""
    top = x.max(axis=axis, keepdims=True)
    total = xp.log(xp.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return total if keepdims else xp.squeeze(total, axis), (
        lambda g: unreduce(g, x.ndim, axis, keepdims) * xp.exp(x - total),
    )


@primitive
def matmul(x, y):
    """Matrix product of the last two axes, broadcasting the others; 1-D operands as in NumPy.

    Shapes: x (..., n, k), y (..., k, m)  ->  (..., n, m).
    VJP:    dx = g @ y^T, dy = x^T @ g, summed over broadcast axes.
    """
    rows = x if x.ndim > 1 else x[None, :]
    columns = y if y.ndim > 1 else y[:, None]

    def matrix(g):  # put the axes back that a 1-D operand had removed
        g = g if y.ndim > 1 else g[..., None]
        return g if x.ndim > 1 else xp.expand_dims(g, -2)

    def dx(g):
        return unbroadcast(matrix(g) @ columns.swapaxes(-1, -2), rows.shape).reshape(x.shape)

    def dy(g):
        return unbroadcast(rows.swapaxes(-1, -2) @ matrix(g), columns.shape).reshape(y.shape)

    return x @ y, (dx, dy)


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
    n, rest = divmod(x.shape[axis], sections)
    if rest:
        raise ValueError(f"axis {axis} of shape {x.shape} does not split into {sections} parts")
    before = (slice(None),) * (axis % x.ndim)
    return [getitem(x, index=(*before, slice(i * n, (i + 1) * n))) for i in range(sections)]


@primitive
def getitem(x, *, index):
    """x[index], by integers, slices, or integer arrays. What is taken twice gets two gradients."""
    x_shape, dtype = x.shape, x.dtype
    parts = index if isinstance(index, tuple) else (index,)
    repeats = any(isinstance(part, (list, xp.ndarray)) for part in parts)

    def dx(g):
        out = xp.zeros(x_shape, dtype)
        if repeats:
            xp.add.at(out, index, g)
        else:
            out[index] = g  # a plain slice takes each element once
        return out

    return x[index], (dx,)


@primitive
def scatter_add(x, idx, *, n):
    """The adjoint of taking rows: out[i] = sum of x[j] over all j with idx[j] == i.

    Shapes: x (N, C), idx (N,) int, 0 <= i < n  ->  (n, C).
    """
    backend.check_ids("idx", idx, n)
    return backend.scatter_add(idx, x, n), (lambda g: g[idx], None)


# --- operators and methods of Tensor ---------------------------------------------------------

Tensor.__add__ = Tensor.__radd__ = add
Tensor.__sub__ = subtract
Tensor.__rsub__ = lambda self, other: subtract(other, self)
Tensor.__mul__ = Tensor.__rmul__ = multiply
Tensor.__truediv__ = divide
Tensor.__rtruediv__ = lambda self, other: divide(other, self)
Tensor.__pow__ = power
Tensor.__rpow__ = lambda self, other: power(other, self)
Tensor.__matmul__ = matmul
Tensor.__rmatmul__ = lambda self, other: matmul(other, self)
Tensor.__neg__ = negative
Tensor.__getitem__ = lambda self, index: getitem(self, index=index)
Tensor.exp = exp
Tensor.log = log
Tensor.sum = sum
Tensor.mean = mean
Tensor.max = max
Tensor.var = var
Tensor.reshape = lambda self, *shape: reshape(self, shape=shape)
Tensor.transpose = lambda self, *axes: transpose(self, axes=axes or None)
Tensor.T = property(transpose)
