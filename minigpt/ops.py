"""Elementary primitives, under NumPy's names, and the operators bound to them.

In a vjp, `g` comes in with the output's shape and a gradient of the argument's shape goes out.
"""

import math

from minigpt import memory
from minigpt.backend import xp
from minigpt.shapes import (  # some only to be found here too
    broadcast_to,
    concatenate,
    getitem,
    reshape,
    scatter_add,
    split,
    transpose,
    unbroadcast,
    unreduce,
)
from minigpt.tensor import Tensor, primitive

__all__ = ["broadcast_to", "concatenate", "scatter_add", "split"]

shape = xp.shape  # also of Python numbers


@primitive
def add(x, y):
    """x + y, broadcasting."""
    x_shape, y_shape, out = shape(x), shape(y), memory.add(x, y)
    return out, (lambda g: unbroadcast(g, x_shape), lambda g: unbroadcast(g, y_shape))


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

    def dx(g):
        lower = xp.where(xp.asarray(y) == 0, 1, xp.asarray(y) - 1)  # y = 0: no 0 * 0 ** -1
        return unbroadcast(g * y * x ** lower.astype(g.dtype), shape(x))

    def dy(g):
        log_x = xp.log(xp.where(xp.asarray(x) > 0, x, 1)).astype(g.dtype)
        return unbroadcast(g * out * log_x, shape(y))

    return out, (dx, dy)


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


def count(x, axis):
    """How many elements each result of a reduction over axis is made of."""
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    n = math.prod(x.shape[i] for i in axes)
    if n == 0:
        raise ValueError(f"no mean or variance over axis {axis} of shape {x.shape}: it is empty")
    return n


@primitive
def mean(x, *, axis=None, keepdims=False):
    """Mean over axis (None: all)."""
    n, x_shape, out = count(x, axis), x.shape, x.mean(axis=axis, keepdims=keepdims)
    return out, (lambda g: xp.broadcast_to(unreduce(g / n, len(x_shape), axis, keepdims), x_shape),)


@primitive
def max(x, *, axis=None, keepdims=False):
    """Maximum over axis (None: all). Equal maxima (a kink) share g equally."""
    out = x.max(axis=axis, keepdims=keepdims)

    def dx(g):
        # 1 at each maximum, so that hit.sum is how many share
        hit = (x == unreduce(out, x.ndim, axis, keepdims)).astype(g.dtype)
        return hit / hit.sum(axis=axis, keepdims=True) * unreduce(g, x.ndim, axis, keepdims)

    return out, (dx,)


@primitive
def var(x, *, axis=None, keepdims=False):
    """Population variance (divided by n) over axis (None: all)."""
    n, out = count(x, axis), x.var(axis=axis, keepdims=keepdims)

    def dx(g):
        centred = x - x.mean(axis=axis, keepdims=True)  # its mean is 0: no term from the mean
        return unreduce(g, x.ndim, axis, keepdims) * (2 / n) * centred

    return out, (dx,)


@primitive
def logsumexp(x, *, axis=None, keepdims=False):
    """log(sum(exp(x))) over axis, shifted by the maximum so that nothing overflows."""
    top = x.max(axis=axis, keepdims=True)  # exp of what is left is at most 1
    total = xp.log(xp.exp(x - top).sum(axis=axis, keepdims=True)) + top
    out = total if keepdims else xp.squeeze(total, axis)
    return out, (lambda g: unreduce(g, x.ndim, axis, keepdims) * xp.exp(x - total),)


@primitive
def matmul(x, y):
    """Matrix product of the last two axes, broadcasting the others; 1-D operands as in NumPy.

    Shapes: x (..., n, k), y (..., k, m)  ->  (..., n, m).
    VJP:    dx = g @ y^T, dy = x^T @ g, summed over broadcast axes.
    """
    if shape(x) == () or shape(y) == ():
        raise ValueError(f"matmul needs arrays of 1 dimension or more, got {shape(x)}, {shape(y)}")
    rows = x if x.ndim > 1 else x[None, :]  # (..., n, k), n = 1 for a vector
    columns = y if y.ndim > 1 else y[:, None]  # (..., k, m), m = 1 for a vector

    def matrix(g):  # put the axes back that a 1-D operand had removed
        g = g if y.ndim > 1 else g[..., None]
        return g if x.ndim > 1 else xp.expand_dims(g, -2)

    def dx(g):
        dx = matrix(g) @ columns.swapaxes(-1, -2)  # (..., n, m) @ (..., m, k)
        return unbroadcast(dx, rows.shape).reshape(x.shape)

    def dy(g):
        dy = rows.swapaxes(-1, -2) @ matrix(g)  # (..., k, n) @ (..., n, m)
        return unbroadcast(dy, columns.shape).reshape(y.shape)

    return x @ y, (dx, dy)


def unpack(args):
    """x.reshape(2, 3) and x.reshape((2, 3)) mean the same, as in NumPy."""
    return args[0] if len(args) == 1 and isinstance(args[0], tuple) else args


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
Tensor.reshape = lambda self, *shape: reshape(self, shape=unpack(shape))
Tensor.transpose = lambda self, *axes: transpose(self, axes=unpack(axes) or None)
Tensor.T = property(transpose)
