"""The gradient check is checked: it must reject what is wrong, and pass what is right.

BANK holds plausible wrong backward passes, each a mistake that a derivation or a hurried
implementation makes. The value is always right, so only the gradient can give it away. Each must be
rejected by check_grads, and its right twin, at the same inputs, must pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from minigpt import functional as F
from minigpt import ops
from minigpt.attention import attention, causal_attention, causal_self_attention
from minigpt.backend import scatter_add, to_numpy, xp
from minigpt.gradcheck import GradientError, check_grads, check_parameters
from minigpt.positions import rotary
from minigpt.tensor import Tensor, primitive
from minigpt.variants.llama import swiglu
from minigpt.variants.norms import rms_norm
from tests.cases import generator, ids

# --- the right twins: an op, how it is called, and its inputs ----------------------------------


@dataclass(frozen=True)
class Right:
    op: Callable
    arrays: tuple[np.ndarray, ...]
    call: Callable = lambda op, *tensors: op(*tensors)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(0.5, 2, shape)


REPEATED = [[3, 0, 3], [1, 3, 0]]
X, Y, Z = normal(3, 3), normal(3, 3, seed=1), normal(3, 3, seed=2)
QKV = tuple(normal(2, 4, 3, seed=seed) for seed in range(3))
CROSS = (normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 2))
BIAS = np.array([[0, -1, 2, 1], [1, 0, -math.inf, 2], [-math.inf, 3, 1, 0], [1, 0, 2, -2]])
CHOOSE = np.array([[True, False, True], [False, False, True], [True, True, False]])

RIGHT: dict[str, Right] = {
    "add": Right(ops.add, (normal(4, 3), normal(3))),
    "add, square": Right(ops.add, (X, normal(3))),
    "subtract": Right(ops.subtract, (X, Y)),
    "multiply": Right(ops.multiply, (X, Y)),
    "multiply, stretched": Right(ops.multiply, (X, normal(3, 1))),
    "divide": Right(ops.divide, (X, positive(3, 3))),
    "power": Right(ops.power, (positive(3, 3), Y)),
    "maximum": Right(ops.maximum, (X, Y)),
    "where": Right(ops.where, (X, Y), lambda op, x, y: op(xp.asarray(CHOOSE), x, y)),
    "negative": Right(ops.negative, (X,)),
    "exp": Right(ops.exp, (X,)),
    "log": Right(ops.log, (positive(3, 3),)),
    "sqrt": Right(ops.sqrt, (positive(3, 3),)),
    "tanh": Right(ops.tanh, (X,)),
    "relu": Right(ops.relu, (X,)),
    "sum": Right(ops.sum, (X,), lambda op, x: op(x, axis=1)),
    "mean": Right(ops.mean, (X,), lambda op, x: op(x, axis=1)),
    "max": Right(ops.max, (X,), lambda op, x: op(x, axis=1)),
    "var": Right(ops.var, (X,), lambda op, x: op(x, axis=1)),
    "logsumexp": Right(ops.logsumexp, (X,), lambda op, x: op(x, axis=1)),
    "matmul": Right(ops.matmul, (X, Y)),
    "matmul, batched": Right(ops.matmul, (normal(2, 3, 4), normal(4, 3))),
    "reshape": Right(ops.reshape, (X,), lambda op, x: op(x, shape=(9,))),
    "transpose": Right(ops.transpose, (normal(3, 3, 3),), lambda op, x: op(x, axes=(1, 2, 0))),
    "broadcast_to": Right(ops.broadcast_to, (normal(3),), lambda op, x: op(x, shape=(4, 3))),
    "concatenate": Right(ops.concatenate, (X, Y, Z), lambda op, *xs: op(*xs, axis=1)),
    "getitem": Right(ops.getitem, (X,), lambda op, x: op(x, index=np.array([2, 0, 2, 1]))),
    "scatter_add": Right(ops.scatter_add, (X,), lambda op, x: op(x, ids([1, 0, 1]), n=3)),
    "gelu tanh": Right(F.gelu, (2 * X,)),
    "gelu none": Right(F.gelu, (2 * X,), lambda op, x: op(x, approximate="none")),
    "swiglu": Right(swiglu, (X, Y)),
    "softmax": Right(F.softmax, (X,)),
    "log_softmax": Right(F.log_softmax, (X,)),
    "layer_norm": Right(F.layer_norm, (normal(4, 5), normal(5), normal(5, seed=1))),
    "layer_norm, gain 1": Right(F.layer_norm, (normal(4, 5), np.ones(5), np.zeros(5))),
    "embedding": Right(F.embedding, (normal(4, 3),), lambda op, w: op(w, ids(REPEATED))),
    "dropout": Right(F.dropout, (normal(4, 4),), lambda op, x: op(x, p=0.3, rng=generator())),
    "linear": Right(F.linear, (normal(2, 4, 3), Y, normal(3))),
    "rms_norm": Right(rms_norm, (normal(4, 5), normal(5))),
    "attention": Right(attention, QKV),
    "attention, cross": Right(attention, CROSS),
    "attention, bias": Right(attention, QKV, lambda op, *qkv: op(*qkv, bias=xp.asarray(BIAS))),
    "causal_attention": Right(causal_attention, QKV),
    "causal_attention, bias": Right(
        causal_attention, QKV, lambda op, *qkv: op(*qkv, bias=xp.asarray(BIAS))
    ),
    "causal_attention, dropout": Right(
        causal_attention, QKV, lambda op, *qkv: op(*qkv, p=0.3, rng=generator())
    ),
    "causal_self_attention": Right(
        causal_self_attention, (normal(2, 4, 12),), lambda op, qkv: op(qkv, n_head=2)
    ),
    "rotary": Right(rotary, (normal(4, 4, 4),)),
    "rotary, start and base": Right(
        rotary, (normal(2, 3, 4),), lambda op, x: op(x, base=10.0, start=5)
    ),
    "cross_entropy": Right(
        F.cross_entropy, (normal(4, 5),), lambda op, x: op(x, ids([0, 4, 2, 2]))
    ),
    "cross_entropy, ignored": Right(
        F.cross_entropy,
        (normal(4, 5),),
        lambda op, x: op(x, ids([0, -1, 2, -1]), ignore_index=-1),
    ),
    "cross_entropy, smoothed": Right(
        F.cross_entropy,
        (normal(4, 5),),
        lambda op, x: op(x, ids([0, 4, 2, 2]), label_smoothing=0.2),
    ),
}


@pytest.mark.parametrize("right", RIGHT.values(), ids=RIGHT)
def test_the_right_twin_passes(right):
    assert check_grads(lambda *xs: right.call(right.op, *xs), *right.arrays) < 1e-8


# --- the bank ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """right: a name in RIGHT. vjp(right, g, out, *arguments, **options) -> the wrong gradients,
    one an argument; its `right` is the true vjp, for mistakes that are close to it.
    blind: with a cotangent of ones, as `y.sum().backward()` has, the mistake cannot be seen.
    shape: the gradient has the wrong shape, and backward() itself refuses it.
    """

    right: str
    mistake: str
    vjp: Callable
    blind: bool = False
    shape: bool = False

    def f(self, *tensors: Tensor) -> Tensor:
        right = RIGHT[self.right]

        @primitive
        def op(*arguments, **options):
            out, true = right.op.forward(*arguments, **options)

            def true_gradients(g):
                if callable(true):
                    return list(true(g))
                return [f(g) if f else None for f in true[: len(arguments)]]

            return out, lambda g: self.vjp(true_gradients, g, out, *arguments, **options)

        return right.call(op, *tensors)


BANK: list[Wrong] = []


def wrong(right: str, mistake: str, *, blind: bool = False, shape: bool = False) -> Callable:
    """Put a wrong vjp into the bank."""

    def add(vjp):
        BANK.append(Wrong(right, mistake, vjp, blind, shape))
        return vjp

    return add


def times(factor: float) -> Callable:
    return lambda right, g, *_, **__: [None if d is None else factor * d for d in right(g)]


def of_ones(right, g, *_, **__):
    """The gradient for a cotangent of ones, whatever g is: g was never multiplied in."""
    return right(xp.ones_like(g))


# Any op: wholesale mistakes. Zeros, where the true gradient for a cotangent of ones is zero too.
wrong("softmax", "zeros", blind=True)(times(0))
wrong("layer_norm, gain 1", "dx zeros", blind=True)(
    lambda right, g, out, x, w, b: [xp.zeros_like(x), *right(g)[1:]]
)
wrong("matmul", "zeros")(times(0))
wrong("gelu tanh", "a factor of 2")(times(2))
wrong("linear", "a factor of 1.001")(times(1.001))
wrong("sum", "a factor of 1 + 1e-5")(times(1 + 1e-5))
wrong("causal_attention", "a factor of 1000")(times(1000))
wrong("embedding", "a factor of 1/1000")(times(1e-3))
wrong("layer_norm", "the sign")(times(-1))
wrong("tanh", "the last entry not a number")(
    lambda right, g, *_: [xp.where(xp.arange(9).reshape(3, 3) == 8, math.nan, right(g)[0])]
)
wrong("reshape", "one entry of nine")(
    lambda right, g, *_, **__: [xp.where(xp.arange(9).reshape(3, 3) == 4, 0, right(g)[0])]
)
for name in ("exp", "multiply", "divide", "matmul", "mean", "cross_entropy", "linear", "gelu none"):
    wrong(name, "the cotangent left out", blind=True)(of_ones)

# Elementwise.
wrong("add", "no un-broadcast", shape=True)(lambda right, g, *_: [g, g])
wrong("add", "un-broadcast keeps the axis", shape=True)(
    lambda right, g, *_: [g, g.sum(0, keepdims=True)]
)
wrong("add, square", "un-broadcast over the wrong axis", blind=True)(
    lambda right, g, *_: [g, g.sum(1)]
)
wrong("add, square", "un-broadcast by the mean")(lambda right, g, *_: [g, g.mean(0)])
wrong("subtract", "no sign for y")(lambda right, g, *_: [g, g])
wrong("multiply", "factors not exchanged")(lambda right, g, out, x, y: [g * x, g * y])
wrong("multiply, stretched", "summed before the product")(
    lambda right, g, out, x, y: [g * y, g.sum(1, keepdims=True) * x.sum(1, keepdims=True)]
)
wrong("divide", "the sign of dy")(lambda right, g, out, x, y: [g / y, g * out / y])
wrong("divide", "dy without the square")(lambda right, g, out, x, y: [g / y, -g * out])
wrong("power", "y instead of y - 1 in the exponent")(
    lambda right, g, out, x, y: [g * y * out, right(g)[1]]
)
wrong("power", "no logarithm in dy")(lambda right, g, out, x, y: [right(g)[0], g * out])
wrong("maximum", "g to both sides")(lambda right, g, *_: [g, g])
wrong("maximum", "the smaller gets it")(lambda right, g, *_: right(g)[::-1])
wrong("where", "branches exchanged")(
    lambda right, g, out, condition, x, y: [
        None,
        xp.where(condition, 0, g),
        xp.where(condition, g, 0),
    ]
)
wrong("negative", "identity")(lambda right, g, *_: [g])
wrong("exp", "g * x")(lambda right, g, out, x: [g * x])
wrong("log", "g * x")(lambda right, g, out, x: [g * x])
wrong("log", "g / out")(lambda right, g, out, x: [g / out])
wrong("sqrt", "no 2")(lambda right, g, out, x: [g / out])
wrong("tanh", "1 - out")(lambda right, g, out, x: [g * (1 - out)])
wrong("tanh", "1 - x^2")(lambda right, g, out, x: [g * (1 - x * x)])
wrong("relu", "g everywhere")(lambda right, g, *_: [g])
wrong("relu", "gated by g, not by x")(lambda right, g, out, x: [g * (g > 0)])

# Reductions: x is (3, 3) and axis is 1, so that a wrong axis fits.
wrong("sum", "the mean's")(lambda right, g, *_, **__: [right(g)[0] / 3])
wrong("sum", "spread along the wrong axis", blind=True)(
    lambda right, g, out, x, axis: [xp.broadcast_to(g, x.shape)]
)
wrong("mean", "the sum's")(lambda right, g, *_, **__: [right(g)[0] * 3])
wrong("mean", "divided by all elements, not the axis")(
    lambda right, g, out, x, axis: [right(g)[0] * x.shape[axis] / x.size]
)
wrong("max", "g to all")(lambda right, g, out, x, axis: [xp.broadcast_to(g[:, None], x.shape)])
wrong("max", "the maximum of everything, not of the row")(
    lambda right, g, out, x, axis: [(x == x.max()) * g[:, None]]
)
wrong("var", "no 2 / n")(lambda right, g, out, x, axis: [g[:, None] * (x - x.mean(1)[:, None])])
wrong("var", "n - 1 in the backward pass only")(lambda right, g, *_, **__: [right(g)[0] * 3 / 2])
wrong("var", "not centred")(lambda right, g, out, x, axis: [g[:, None] * (2 / 3) * x])
wrong("logsumexp", "exp(x), not divided by the sum")(
    lambda right, g, out, x, axis: [g[:, None] * xp.exp(x)]
)
wrong("logsumexp", "the hard maximum's")(
    lambda right, g, out, x, axis: [g[:, None] * (x == x.max(1)[:, None])]
)

# Matrix products of square matrices: every order of the factors fits.
wrong("matmul", "dx without the transpose")(lambda right, g, out, x, y: [g @ y, right(g)[1]])
wrong("matmul", "dy without the transpose")(lambda right, g, out, x, y: [right(g)[0], x @ g])
wrong("matmul", "dx with the factors exchanged")(lambda right, g, out, x, y: [y.T @ g, right(g)[1]])
wrong("matmul", "dy with the factors exchanged")(lambda right, g, out, x, y: [right(g)[0], g @ x.T])
wrong("matmul, batched", "not summed over the batch", shape=True)(
    lambda right, g, out, x, y: [right(g)[0], x.swapaxes(1, 2) @ g]
)
wrong("matmul, batched", "the mean over the batch")(
    lambda right, g, out, x, y: [right(g)[0], right(g)[1] / len(x)]
)

# Shapes and places: only the arrangement of g can be wrong, and ones have none.
wrong("reshape", "column order", blind=True)(
    lambda right, g, out, x, shape: [g.reshape(x.shape, order="F")]
)
wrong("transpose", "the same axes, not the inverse", blind=True)(
    lambda right, g, out, x, axes: [g.transpose(axes)]
)
wrong("broadcast_to", "the mean over the copies")(lambda right, g, *_, **__: [g.mean(0)])
wrong("broadcast_to", "one copy's g")(lambda right, g, *_, **__: [g[0]])
wrong("concatenate", "parts in the opposite order", blind=True)(
    lambda right, g, *_, **__: right(g)[::-1]
)
wrong("concatenate", "split along the wrong axis", blind=True)(
    lambda right, g, *_, **__: list(g.reshape(3, 3, 3))
)


@wrong("getitem", "assigned, so that repeats lose")
def _(right, g, out, x, index):
    dx = xp.zeros_like(x)
    dx[index] = g
    return [dx]


@wrong("getitem", "+= on an index, which NumPy does once a place")
def _(right, g, out, x, index):
    dx = xp.zeros_like(x)
    dx[index] += g
    return [dx]


wrong("getitem", "rows of g reversed")(lambda right, g, *_, **__: right(g[::-1]))
wrong("scatter_add", "divided by the count")(
    lambda right, g, out, x, idx, n: [g[idx] / xp.bincount(idx, minlength=n)[idx][:, None], None]
)
wrong("scatter_add", "g not gathered", blind=True)(lambda right, g, *_, **__: [g, None])

# gelu.
wrong("gelu tanh", "the exact form's derivative")(
    lambda right, g, out, x: [F.gelu.forward(x, approximate="none")[1][0](g)]
)


def inner(x):
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


@wrong("gelu tanh", "no cubic term in the inner derivative")
def _(right, g, out, x):
    t = xp.tanh(inner(x))
    return [g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi))]


@wrong("gelu tanh", "no 3 in the inner derivative")
def _(right, g, out, x):
    t = xp.tanh(inner(x))
    slope = math.sqrt(2 / math.pi) * (1 + 0.044715 * x * x)
    return [g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)]


wrong("gelu tanh", "one branch of the product rule")(
    lambda right, g, out, x: [g * 0.5 * (1 + xp.tanh(inner(x)))]
)
wrong("gelu tanh", "relu's derivative")(lambda right, g, out, x: [g * (x > 0)])
wrong("gelu none", "the tanh form's derivative")(
    lambda right, g, out, x, approximate: F.gelu.forward(x)[1](g)
)
wrong("gelu none", "one branch of the product rule")(
    lambda right, g, out, x, approximate: [g * out / x]
)


# swiglu.
def sigmoid(x):
    return 1 / (1 + xp.exp(-x))


wrong("swiglu", "one branch of the product rule")(
    lambda right, g, out, gate, up: [g * up * sigmoid(gate), right(g)[1]]
)
wrong("swiglu", "the other branch of the product rule")(
    lambda right, g, out, gate, up: [g * out * (1 - sigmoid(gate)), right(g)[1]]
)
wrong("swiglu", "up left out")(lambda right, g, out, gate, up: [right(g)[0] / up, right(g)[1]])
wrong("swiglu", "sigmoid where silu belongs")(
    lambda right, g, out, gate, up: [right(g)[0], g * sigmoid(gate)]
)
wrong("swiglu", "gate and up exchanged")(lambda right, g, *_: right(g)[::-1])

# softmax and log_softmax; rows of a square array, so that a wrong axis fits.
wrong("softmax", "only the diagonal of the Jacobian")(lambda right, g, p, x: [g * p * (1 - p)])
wrong("softmax", "no row sum")(lambda right, g, p, x: [g * p])
wrong("softmax", "identity")(lambda right, g, *_: [g])
wrong("softmax", "the row sum without p", blind=True)(
    lambda right, g, p, x: [p * (g - g.mean(-1, keepdims=True))]
)
wrong("softmax", "the sum over the wrong axis")(
    lambda right, g, p, x: [p * (g - (g * p).sum(0, keepdims=True))]
)
wrong("softmax", "the sum over everything")(lambda right, g, p, x: [p * (g - (g * p).sum())])
wrong("log_softmax", "no softmax factor")(lambda right, g, *_: [g - g.sum(-1, keepdims=True)])
wrong("log_softmax", "the sum of g taken to be 1")(lambda right, g, out, x: [g - xp.exp(out)])
wrong("log_softmax", "the sum of g taken to be its length", blind=True)(
    lambda right, g, out, x: [g - xp.exp(out) * x.shape[-1]]
)
wrong("log_softmax", "identity")(lambda right, g, *_: [g])


# layer_norm.
def normalised(x, eps=1e-5):
    rstd = 1 / xp.sqrt(x.var(-1, keepdims=True) + eps)
    return (x - x.mean(-1, keepdims=True)) * rstd, rstd


def row_mean(x):
    return x.mean(-1, keepdims=True)


def wrong_dx(mistake: str, right: str = "layer_norm", blind: bool = False) -> Callable:
    """A mistake in layer_norm's dx only: the function gets g, w, xhat, rstd and returns dx."""

    def add(dx):
        def vjp(right, g, out, x, w, b):
            return [dx(g, w, *normalised(x)), *right(g)[1:]]

        wrong(right, mistake, blind=blind)(vjp)
        return dx

    return add


def right_dx(g, w, xhat, rstd):
    gw = g * w
    return rstd * (gw - row_mean(gw) - xhat * row_mean(gw * xhat))


def test_the_template_for_wrong_dx_is_right():
    x, w, b = map(xp.asarray, RIGHT["layer_norm"].arrays)
    g = xp.asarray(normal(4, 5, seed=3))
    dx = F.layer_norm.forward(x, w, b)[1](g)[0]
    found = right_dx(g, w, *normalised(x))
    np.testing.assert_allclose(to_numpy(found), to_numpy(dx), rtol=1e-12)


wrong_dx("no mean of gw")(lambda g, w, xhat, rstd: rstd * (g * w - xhat * row_mean(g * w * xhat)))
wrong_dx("no projection on xhat")(lambda g, w, xhat, rstd: rstd * (g * w - row_mean(g * w)))
wrong_dx("neither term", "layer_norm, gain 1")(lambda g, w, xhat, rstd: rstd * g * w)
wrong_dx("the gain left out")(lambda g, w, xhat, rstd: right_dx(g, 1, xhat, rstd))
wrong_dx("the gain after the projection")(lambda g, w, xhat, rstd: w * right_dx(g, 1, xhat, rstd))
wrong_dx("sums instead of means")(
    lambda g, w, xhat, rstd: (
        rstd * (g * w - 5 * row_mean(g * w) - 5 * xhat * row_mean(g * w * xhat))
    )
)
wrong_dx("rstd squared")(lambda g, w, xhat, rstd: right_dx(g, w, xhat, rstd * rstd))
wrong_dx("no rstd")(lambda g, w, xhat, rstd: right_dx(g, w, xhat, 1))
wrong_dx("projection on x - mean, not on xhat")(
    lambda g, w, xhat, rstd: right_dx(g, w, xhat / rstd, rstd)
)
wrong_dx("mean and projection over the batch axis")(
    lambda g, w, xhat, rstd: rstd * (g * w - (g * w).mean(0) - xhat * (g * w * xhat).mean(0))
)
wrong("layer_norm", "eps outside the root")(
    lambda right, g, out, x, w, b: [
        right_dx(g, w, normalised(x)[0], 1 / (xp.sqrt(x.var(-1, keepdims=True)) + 1e-5)),
        *right(g)[1:],
    ]
)
wrong("layer_norm", "C - 1 in the backward pass only")(
    lambda right, g, out, x, w, b: [
        right_dx(g, w, normalised(x)[0], 1 / xp.sqrt(x.var(-1, keepdims=True, ddof=1) + 1e-5)),
        *right(g)[1:],
    ]
)
wrong("layer_norm", "dw without xhat")(lambda right, g, *_: [right(g)[0], g.sum(0), right(g)[2]])
wrong("layer_norm", "dw with x for xhat")(
    lambda right, g, out, x, w, b: [right(g)[0], (g * x).sum(0), right(g)[2]]
)
wrong("layer_norm", "db averaged")(lambda right, g, *_: [*right(g)[:2], g.mean(0)])
wrong("layer_norm", "dw and db exchanged")(lambda right, g, *_: [right(g)[0], *right(g)[:0:-1]])


# rms_norm: the same plan, without the mean.
def wrong_rms(mistake: str) -> Callable:
    """A mistake in rms_norm's dx only: the function gets g, w, xhat, rrms and returns dx."""

    def add(dx):
        def vjp(right, g, out, x, w):
            rrms = 1 / xp.sqrt(row_mean(x * x) + 1e-5)
            return [dx(g, w, x * rrms, rrms), right(g)[1]]

        wrong("rms_norm", mistake)(vjp)
        return dx

    return add


def right_rms(g, w, xhat, rrms):
    return rrms * (g * w - xhat * row_mean(g * w * xhat))


def test_the_template_for_wrong_rms_norm_is_right():
    wrong_rms("none")(right_rms)
    entry = BANK.pop()
    assert check_grads(entry.f, *RIGHT["rms_norm"].arrays) < 1e-8


wrong_rms("no projection on xhat")(lambda g, w, xhat, rrms: rrms * g * w)
wrong_rms("layer_norm's mean taken off as well")(
    lambda g, w, xhat, rrms: right_rms(g, w, xhat, rrms) - rrms * row_mean(g * w)
)
wrong_rms("the gain left out")(lambda g, w, xhat, rrms: right_rms(g, 1, xhat, rrms))
wrong_rms("the gain after the projection")(lambda g, w, xhat, rrms: w * right_rms(g, 1, xhat, rrms))
wrong_rms("a sum instead of the mean")(
    lambda g, w, xhat, rrms: rrms * (g * w - 5 * xhat * row_mean(g * w * xhat))
)
wrong_rms("the mean over the batch axis")(
    lambda g, w, xhat, rrms: rrms * (g * w - xhat * (g * w * xhat).mean(0))
)
wrong_rms("rrms squared")(lambda g, w, xhat, rrms: right_rms(g, w, xhat, rrms * rrms))
wrong_rms("no rrms")(lambda g, w, xhat, rrms: right_rms(g, w, xhat, 1))
wrong_rms("projection on x, not on xhat")(
    lambda g, w, xhat, rrms: right_rms(g, w, xhat / rrms, rrms)
)
wrong_rms("eps outside the root")(
    lambda g, w, xhat, rrms: right_rms(g, w, xhat, 1 / (xp.sqrt(1 / rrms**2 - 1e-5) + 1e-5))
)
wrong("rms_norm", "dw with x for xhat")(lambda right, g, out, x, w: [right(g)[0], (g * x).sum(0)])
wrong("rms_norm", "dw without xhat")(lambda right, g, *_: [right(g)[0], g.sum(0)])
wrong("rms_norm", "dw averaged")(lambda right, g, *_: [right(g)[0], right(g)[1] / 4])


# embedding.
@wrong("embedding", "assigned, so that repeated tokens lose")
def _(right, g, out, w, idx):
    dw = xp.zeros_like(w)
    dw[idx] = g
    return [dw, None]


@wrong("embedding", "averaged over the repeats")
def _(right, g, out, w, idx):
    counts = xp.bincount(idx.reshape(-1), minlength=len(w))
    return [right(g)[0] / xp.maximum(counts, 1)[:, None], None]


@wrong("embedding", "counts, not gradients", blind=True)
def _(right, g, out, w, idx):
    counts = xp.bincount(idx.reshape(-1), minlength=len(w)).astype(w.dtype)
    return [xp.broadcast_to(counts[:, None], w.shape), None]


wrong("embedding", "rows of g shifted by one place")(
    lambda right, g, out, w, idx: [
        scatter_add(xp.roll(idx.reshape(-1), 1), g.reshape(-1, 3), len(w)),
        None,
    ]
)

# dropout.
wrong("dropout", "a new mask in the backward pass")(
    lambda right, g, out, x, p, rng: [
        g * xp.asarray(rng.random(x.shape, dtype="float32") >= p) / (1 - p)
    ]
)
wrong("dropout", "no 1 / (1 - p)")(lambda right, g, out, x, p, rng: [right(g)[0] * (1 - p)])
wrong("dropout", "no mask")(lambda right, g, *_, **__: [g])
wrong("dropout", "the mask's complement")(
    lambda right, g, out, x, p, rng: [xp.where(out == 0, g / (1 - p), 0)]
)

# linear.
wrong("linear", "db averaged")(lambda right, g, *_: [*right(g)[:2], g.reshape(-1, 3).mean(0)])
wrong("linear", "db without the batch axis's sum", shape=True)(
    lambda right, g, *_: [*right(g)[:2], g.sum(0)]
)
wrong("linear", "dw from the last sequence only")(
    lambda right, g, out, x, w, b: [right(g)[0], x[-1].T @ g[-1], right(g)[2]]
)
wrong("linear", "dw divided by the number of rows")(
    lambda right, g, *_: [right(g)[0], right(g)[1] / 8, right(g)[2]]
)
wrong("linear", "dw transposed")(lambda right, g, *_: [right(g)[0], right(g)[1].T, right(g)[2]])
wrong("linear", "dx with w not transposed")(lambda right, g, out, x, w, b: [g @ w, *right(g)[1:]])
wrong("linear", "db the count of rows", blind=True)(
    lambda right, g, out, x, w, b: [*right(g)[:2], xp.full(b.shape, 8.0)]
)


# attention.
def transposed(x):
    return x.swapaxes(-1, -2)


def weights(q, k, bias=None, causal=False):
    """(att, scale): softmax(q k^T / sqrt(D) + bias), and 1 / sqrt(D)."""
    scale = 1 / math.sqrt(q.shape[-1])
    scores = scale * (q @ transposed(k)) + (0 if bias is None else bias)
    if causal:
        scores = xp.where(xp.tri(q.shape[-2], dtype=bool), scores, -math.inf)
    return F.softmax.forward(scores)[0], scale


def wrong_attention(mistake: str, right: str = "causal_attention") -> Callable:
    """A mistake in attention: the function gets g, q, k, v, att, ds and the scale."""

    def add(vjp):
        def from_arrays(true, g, out, q, k, v, bias=None):
            att, scale = weights(q, k, bias, causal=right.startswith("causal"))
            datt = g @ transposed(v)
            ds = att * (datt - (datt * att).sum(-1, keepdims=True))
            return vjp(g, q, k, v, att, ds, scale)

        wrong(right, mistake)(from_arrays)
        return vjp

    return add


def right_attention(g, q, k, v, att, ds, scale):
    return [ds @ k * scale, transposed(ds) @ q * scale, transposed(att) @ g]


@pytest.mark.parametrize(
    "right",
    [f"{name}{what}" for name in ("attention", "causal_attention") for what in ("", ", bias")]
    + ["attention, cross"],
)
def test_the_template_for_wrong_attention_is_right(right):
    wrong_attention("none", right)(right_attention)
    entry = BANK.pop()
    assert check_grads(entry.f, *RIGHT[right].arrays) < 1e-8


wrong_attention("no scale in the backward pass")(
    lambda g, q, k, v, att, ds, scale: right_attention(g, q, k, v, att, ds, 1)
)
wrong_attention("the scale twice")(
    lambda g, q, k, v, att, ds, scale: right_attention(g, q, k, v, att, ds, scale**2)
)
wrong_attention("the scale for dq only")(
    lambda g, q, k, v, att, ds, scale: [ds @ k * scale, transposed(ds) @ q, transposed(att) @ g]
)
wrong_attention("dk without the transpose")(
    lambda g, q, k, v, att, ds, scale: [ds @ k * scale, ds @ q * scale, transposed(att) @ g]
)
wrong_attention("dv without the transpose")(
    lambda g, q, k, v, att, ds, scale: [*right_attention(g, q, k, v, att, ds, scale)[:2], att @ g]
)
wrong_attention("no row sum in the softmax")(
    lambda g, q, k, v, att, ds, scale: right_attention(
        g, q, k, v, att, att * (g @ transposed(v)), scale
    )
)
wrong_attention("only the diagonal of the softmax's Jacobian")(
    lambda g, q, k, v, att, ds, scale: right_attention(
        g, q, k, v, att, att * (1 - att) * (g @ transposed(v)), scale
    )
)
wrong_attention("the softmax's row sum over the queries")(
    lambda g, q, k, v, att, ds, scale: right_attention(
        g,
        q,
        k,
        v,
        att,
        att * (g @ transposed(v) - (att * (g @ transposed(v))).sum(-2, keepdims=True)),
        scale,
    )
)
wrong_attention("no row sum in the softmax", "attention")(
    lambda g, q, k, v, att, ds, scale: right_attention(
        g, q, k, v, att, att * (g @ transposed(v)), scale
    )
)
for axes, what in ((-2, "the queries"), ((-2, -1), "queries and keys")):
    wrong_attention(f"the softmax's row sum over {what}", "attention")(
        lambda g, q, k, v, att, ds, scale, axes=axes: right_attention(
            g,
            q,
            k,
            v,
            att,
            att * (g @ transposed(v) - (att * (g @ transposed(v))).sum(axes, keepdims=True)),
            scale,
        )
    )
wrong_attention("the row sum of g and v, not of g and out", "attention")(
    lambda g, q, k, v, att, ds, scale: right_attention(
        g, q, k, v, att, att * (g @ transposed(v) - (g * v).sum(-1, keepdims=True)), scale
    )
)
wrong_attention("no scale in dq", "attention")(
    lambda g, q, k, v, att, ds, scale: [ds @ k, transposed(ds) @ q * scale, transposed(att) @ g]
)
wrong_attention("no scale in dk", "attention")(
    lambda g, q, k, v, att, ds, scale: [ds @ k * scale, transposed(ds) @ q, transposed(att) @ g]
)
wrong_attention("dq without the row sum, dk with it", "attention")(
    lambda g, q, k, v, att, ds, scale: [
        att * (g @ transposed(v)) @ k * scale,
        *right_attention(g, q, k, v, att, ds, scale)[1:],
    ]
)
wrong_attention("dk without the transpose", "attention")(
    lambda g, q, k, v, att, ds, scale: [ds @ k * scale, ds @ q * scale, transposed(att) @ g]
)
wrong_attention("dv with att not transposed", "attention")(
    lambda g, q, k, v, att, ds, scale: [*right_attention(g, q, k, v, att, ds, scale)[:2], att @ g]
)
wrong_attention("the causal mask in the backward pass", "attention")(
    lambda g, q, k, v, att, ds, scale: right_attention(g, q, k, v, att, xp.tril(ds), scale)
)
wrong_attention("the scale of Tk, not of D", "attention, cross")(
    lambda g, q, k, v, att, ds, scale: right_attention(g, q, k, v, att, ds, 1 / math.sqrt(5))
)
wrong_attention("the mean over the keys for the row sum", "attention, cross")(
    lambda g, q, k, v, att, ds, scale: right_attention(
        g,
        q,
        k,
        v,
        att,
        att * (g @ transposed(v) - (att * (g @ transposed(v))).mean(-1, keepdims=True)),
        scale,
    )
)
wrong("attention, cross", "dq, dk, dv of each other's shape", shape=True)(
    lambda right, g, *_: [right(g)[1], right(g)[0], right(g)[2]]
)
for name, op in (("attention", attention), ("causal_attention", causal_attention)):
    wrong(f"{name}, bias", "the bias left out of the backward pass")(
        lambda right, g, out, q, k, v, bias, op=op: op.forward(q, k, v)[1](g)
    )
    wrong(f"{name}, bias", "forbidden keys get a gradient")(
        lambda right, g, out, q, k, v, bias, op=op: op.forward(q, k, v, bias=xp.maximum(bias, -2))[
            1
        ](g)
    )
    wrong(f"{name}, bias", "the bias transposed in the backward pass")(
        lambda right, g, out, q, k, v, bias, op=op: op.forward(
            q, k, v, bias=xp.maximum(bias.T, -1e9)
        )[1](g)
    )
    wrong(f"{name}, bias", "the bias scaled like the scores in the backward pass")(
        lambda right, g, out, q, k, v, bias, op=op: op.forward(
            q, k, v, bias=bias / math.sqrt(q.shape[-1])
        )[1](g)
    )
wrong_attention("dv with scores for weights")(
    lambda g, q, k, v, att, ds, scale: [
        *right_attention(g, q, k, v, att, ds, scale)[:2],
        transposed(xp.tril(scale * (q @ transposed(k)))) @ g,
    ]
)


@wrong_attention("the mask after the softmax in the backward pass")
def _(g, q, k, v, att, ds, scale):
    p = F.softmax.forward(scale * (q @ transposed(k)))[0]
    att = xp.tril(p)
    datt = g @ transposed(v)
    ds = p * (datt - (datt * att).sum(-1, keepdims=True))
    return right_attention(g, q, k, v, att, xp.tril(ds), scale)


@wrong_attention("future queries' keys leak into dk")
def _(g, q, k, v, att, ds, scale):
    dq, dk, dv = right_attention(g, q, k, v, att, ds, scale)
    p = F.softmax.forward(scale * (q @ transposed(k)))[0]  # no mask
    datt = g @ transposed(v)
    leaky = p * (datt - (datt * p).sum(-1, keepdims=True))
    return [dq, transposed(leaky) @ q * scale, dv]


wrong("causal_attention", "dq and dk exchanged")(
    lambda right, g, *_: [right(g)[1], right(g)[0], right(g)[2]]
)
wrong("causal_attention", "k and v taken to be independent of the past")(
    lambda right, g, out, q, k, v: [right(g)[0], right(g)[1], g]
)
wrong("causal_attention, dropout", "no dropout in the backward pass")(
    lambda right, g, out, q, k, v, p, rng: causal_attention.forward(q, k, v)[1](g)
)


@wrong("causal_attention, dropout", "the row sum before the mask")
def _(right, g, out, q, k, v, p, rng):
    att, scale = weights(q, k, causal=True)
    keep = xp.asarray(generator().random(att.shape, dtype="float32") >= p)
    used, datt = att * keep / (1 - p), g @ transposed(v)
    ds = att * (datt * keep / (1 - p) - (datt * att).sum(-1, keepdims=True))
    return right_attention(g, q, k, v, used, ds, scale)


wrong("causal_self_attention", "heads of g not transposed", blind=True)(
    lambda right, g, *_, **__: right(g.reshape(2, 2, 4, 2).transpose(0, 2, 1, 3).reshape(2, 4, 4))
)
wrong("causal_self_attention", "parts packed as k, q, v")(
    lambda right, g, *_, **__: [
        xp.concatenate([xp.split(right(g)[0], 3, axis=-1)[i] for i in (1, 0, 2)], axis=-1)
    ]
)


# rotary: an orthogonal map, so every slip keeps the size and can only turn wrongly.
def angles(x, base=10000.0, start=0):
    T, D = x.shape[-2:]
    return (start + xp.arange(T))[:, None] / base ** (xp.arange(0, D, 2) / D)  # (T, D / 2)


def turned(x, by, even=slice(0, None, 2), odd=slice(1, None, 2)):
    """Each pair (x[even], x[odd]) turned by an angle: (..., T, D), (T, D / 2) -> (..., T, D)."""
    out = xp.empty_like(x)
    out[..., even] = x[..., even] * xp.cos(by) - x[..., odd] * xp.sin(by)
    out[..., odd] = x[..., even] * xp.sin(by) + x[..., odd] * xp.cos(by)
    return out


def test_the_template_for_wrong_rotary_is_right():
    wrong("rotary, start and base", "none")(
        lambda right, g, out, x, **options: [turned(g, -angles(x, **options))]
    )
    entry = BANK.pop()
    assert check_grads(entry.f, *RIGHT["rotary, start and base"].arrays) < 1e-8


wrong("rotary", "turned forward again")(lambda right, g, out, x: [turned(g, angles(x))])
wrong("rotary", "not turned")(lambda right, g, *_: [g])
wrong("rotary", "turned back twice")(lambda right, g, out, x: [turned(g, -2 * angles(x))])
wrong("rotary", "pairs (i, i + D / 2)")(
    lambda right, g, out, x: [turned(g, -angles(x), slice(0, 2), slice(2, 4))]
)
wrong("rotary", "position off by one")(lambda right, g, out, x: [turned(g, -angles(x, start=1))])
wrong("rotary", "positions in the opposite order")(
    lambda right, g, out, x: [turned(g, -angles(x)[::-1])]
)
wrong("rotary", "frequencies in the opposite order")(
    lambda right, g, out, x: [turned(g, -angles(x)[:, ::-1])]
)
wrong("rotary", "positions counted along the wrong axis")(
    lambda right, g, out, x: [turned(g.swapaxes(0, 1), -angles(x)).swapaxes(0, 1)]
)
wrong("rotary", "even and odd exchanged")(
    lambda right, g, out, x: [turned(g, -angles(x), slice(1, None, 2), slice(0, None, 2))]
)
wrong("rotary", "i instead of 2i in the exponent")(
    lambda right, g, out, x: [turned(g, -angles(x, base=100.0))]
)


@wrong("rotary", "one sign in the rotation matrix")
def _(right, g, out, x):
    cos, sin, dx = xp.cos(angles(x)), xp.sin(angles(x)), xp.empty_like(x)
    dx[..., 0::2] = g[..., 0::2] * cos + g[..., 1::2] * sin
    dx[..., 1::2] = g[..., 0::2] * sin + g[..., 1::2] * cos
    return [dx]


wrong("rotary, start and base", "start forgotten")(
    lambda right, g, out, x, base, start: [turned(g, -angles(x, base))]
)
wrong("rotary, start and base", "base forgotten")(
    lambda right, g, out, x, base, start: [turned(g, -angles(x, start=start))]
)


# cross_entropy.
wrong("cross_entropy", "no 1 / N")(lambda right, g, *_, **__: [4 * right(g)[0], None])
wrong("cross_entropy", "divided by V as well")(lambda right, g, *_, **__: [right(g)[0] / 5, None])
wrong("cross_entropy", "the sign of ascent")(lambda right, g, *_, **__: [-right(g)[0], None])
wrong("cross_entropy", "no onehot")(
    lambda right, g, out, x, t: [g * F.softmax.forward(x)[0] / len(x), None]
)
wrong("cross_entropy", "only the target's column")(
    lambda right, g, out, x, t: [right(g)[0] * (xp.arange(5) == t[:, None]), None]
)
wrong("cross_entropy, ignored", "N counts ignored targets")(
    lambda right, g, *_, **__: [right(g)[0] / 2, None]
)
wrong("cross_entropy, ignored", "ignored targets get a gradient")(
    lambda right, g, out, x, t, ignore_index: [
        F.cross_entropy.forward(x, xp.where(t < 0, 0, t))[1][0](g) * 2,
        None,
    ]
)
wrong("cross_entropy, smoothed", "no smoothing in the backward pass")(
    lambda right, g, out, x, t, label_smoothing: [F.cross_entropy.forward(x, t)[1][0](g), None]
)


def bank(chosen=BANK):
    return pytest.mark.parametrize("entry", chosen, ids=lambda e: f"{e.right}: {e.mistake}")


@bank()
def test_a_wrong_vjp_is_rejected(entry):
    """By GradientError; only a gradient of the wrong shape is refused before, by backward()."""
    with pytest.raises(ValueError) as caught:
        check_grads(entry.f, *RIGHT[entry.right].arrays)
    if entry.shape:
        assert type(caught.value) is ValueError
        assert "a vjp returned shape" in str(caught.value)
    else:
        assert caught.type is GradientError
        assert "the tape says" in str(caught.value)  # not a kink, and not a random function


def test_the_bank_is_large_and_varied():
    assert len(BANK) >= 45
    assert len({(entry.right, entry.mistake) for entry in BANK}) == len(BANK)
    assert {entry.right for entry in BANK} == set(RIGHT)
    assert sum(entry.shape for entry in BANK) <= 5


# --- why the cotangent is random ---------------------------------------------------------------


def ones_error(f: Callable, arrays: tuple[np.ndarray, ...]) -> float:
    """What a check by `f(x).sum().backward()` would report: entry by entry, written out here."""
    leaves = [Tensor(xp.asarray(x), requires_grad=True) for x in arrays]
    out = f(*leaves)
    out.backward(xp.ones(out.shape))
    worst = 0.0
    for i, x in enumerate(arrays):
        differences = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            for step in (1e-5, -1e-5):
                moved = x.copy()
                moved[index] += step
                tensors = [Tensor(xp.asarray(moved if j == i else y)) for j, y in enumerate(arrays)]
                differences[index] += to_numpy(f(*tensors).data).sum() / (2 * step)
        worst = np.maximum(worst, np.abs(to_numpy(leaves[i].grad) - differences).max())
    return float(worst)  # NaN if any is


BLIND = [entry for entry in BANK if entry.blind]


@bank(BLIND)
def test_a_cotangent_of_ones_is_blind_to_it(entry):
    """Each of these passes that check, and is among those that check_grads rejects above."""
    assert ones_error(entry.f, RIGHT[entry.right].arrays) < 1e-8


def test_ones_can_see_other_mistakes():
    """So that the test above is one of ones, not of a comparison that passes everything."""
    assert len(BLIND) >= 15
    seen = [e for e in BANK if not e.blind and not e.shape]
    errors = [ones_error(e.f, RIGHT[e.right].arrays) for e in seen]
    assert sum(not error < 1e-6 for error in errors) > 0.9 * len(errors)


def test_a_forgotten_gain_cannot_be_seen_where_the_gain_is_one():
    """So parameters are checked at random values, not as a new network has them."""
    forgotten = [e for e in BANK if e.right == "layer_norm" and "the gain" in e.mistake]
    assert len(forgotten) == 2
    x, w, b = RIGHT["layer_norm"].arrays
    for entry in forgotten:
        check_grads(entry.f, x, np.ones_like(w), b)
        with pytest.raises(GradientError, match="argument 0"):
            check_grads(entry.f, x, w, b)


# --- what cannot be checked is said, not passed ------------------------------------------------

KINKS = {
    "relu at 0": (ops.relu, [np.array([1.0, 0.0, -1.0])]),
    "maximum at a tie": (ops.maximum, [np.array([1.0, 2.0]), np.array([1.0, 3.0])]),
    "max at a tie": (ops.max, [np.array([1.0, 3.0, 3.0])]),
    "absolute value at 0": (lambda x: ops.maximum(x, -x), [np.array([0.5, 0.0])]),
    "square root of x^2 at 0": (lambda x: ops.maximum(x * x, 1e-300) ** 0.5, [np.array([1.0, 0])]),
    "relu at 0, deep inside": (lambda x: ops.tanh(ops.relu(x - 1) * 3), [np.array([1.0, 2.0])]),
}


@pytest.mark.parametrize("f, arrays", KINKS.values(), ids=KINKS)
def test_a_kink_is_reported(f, arrays):
    with pytest.raises(GradientError, match="kink"):
        check_grads(f, *arrays)


NEAR_KINKS = {
    "relu": (ops.relu, [np.array([1.0, 1e-3, -1e-3, -1.0])]),
    "maximum": (ops.maximum, [np.array([1.001, 2.0]), np.array([1.0, 2.001])]),
    "max": (ops.max, [np.array([1.0, 1.001, 0.5])]),
}


@pytest.mark.parametrize("f, arrays", NEAR_KINKS.values(), ids=NEAR_KINKS)
@pytest.mark.parametrize("seed", range(5))
def test_near_a_kink_the_gradient_is_checked(f, arrays, seed):
    assert check_grads(f, *arrays, seed=seed) < 1e-8


@pytest.mark.parametrize("seed", range(5))
def test_strong_curvature_is_no_kink(seed):
    check_grads(lambda x: ops.tanh(x * 30), normal(4), seed=seed)
    check_grads(lambda x: ops.exp(x * 8), normal(4), seed=seed)
    check_grads(lambda x: ops.log(x), np.array([0.01, 0.05, 1.0]) + 0.1, seed=seed)


def test_a_random_function_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(GradientError, match="two calls of f differ: fix its generator"):
        check_grads(lambda x: F.dropout(x, p=0.5, rng=rng), normal(5, 5))


@pytest.mark.parametrize("dtype", ["float32", "int64", "complex128"])
def test_other_dtypes_are_refused_with_the_reason(dtype):
    with pytest.raises(ValueError, match=f"is {dtype}: check in float64, where rounding is 1e-16"):
        check_grads(ops.exp, np.ones(3, dtype))


def test_an_op_that_writes_into_its_argument_is_caught():
    @primitive
    def doubled(x):
        x *= 2
        return x, (lambda g: 2 * g,)

    x = normal(3)
    with pytest.raises(ValueError, match="read-only"):
        check_grads(doubled, x)
    np.testing.assert_array_equal(x, normal(3))


# --- the report --------------------------------------------------------------------------------


def test_the_error_names_argument_index_and_both_values():
    @primitive
    def product(x, y):
        spoiled = xp.zeros((2, 3))
        spoiled[1, 2] = 100.0
        return x * y, (lambda g: g * y, lambda g: g * x + spoiled)

    x, y = normal(2, 3), normal(2, 3, seed=1)
    g = np.random.default_rng(0).standard_normal((2, 3))  # seed 0: the cotangent that is drawn
    tape, difference = g[1, 2] * x[1, 2] + 100, g[1, 2] * x[1, 2]
    with pytest.raises(GradientError) as caught:
        check_grads(product, x, y, seed=0)
    message = str(caught.value)
    assert message.startswith(f"argument 1[1, 2]: the tape says {tape:.9g}, differences say ")
    assert f"differences say {difference:.6g}"[:24] in message
    assert "> 1e-06" in message


@pytest.mark.parametrize("seed", range(10))
def test_any_seed_rejects_and_accepts(seed):
    """The verdict does not hang on one lucky direction."""
    right = RIGHT["layer_norm"]
    assert check_grads(right.op, *right.arrays, seed=seed) < 1e-8
    for entry in BANK:
        if entry.right == "layer_norm":
            with pytest.raises(GradientError):
                check_grads(entry.f, *right.arrays, seed=seed)


def test_the_tolerance_is_the_callers():
    slightly = next(e for e in BANK if e.mistake == "a factor of 1.001")
    arrays = RIGHT[slightly.right].arrays
    assert 5e-4 < check_grads(slightly.f, *arrays, tol=1e-2) < 2e-3
    with pytest.raises(GradientError):
        check_grads(slightly.f, *arrays, tol=5e-4)


def test_the_tolerance_is_strict_unless_told():
    slightly = next(e for e in BANK if e.mistake == "a factor of 1 + 1e-5")
    x = Tensor(xp.asarray(X), requires_grad=True)
    check_parameters(lambda: slightly.f(x), [("x", x)], tol=1e-4)
    with pytest.raises(GradientError, match=r"> 1e-06"):
        check_parameters(lambda: slightly.f(x), [("x", x)])


def test_an_argument_that_f_ignores_has_gradient_zero():
    assert check_grads(lambda x, y: x * 2.0, normal(3), normal(2)) < 1e-8


def test_a_constant_function_has_gradient_zero():
    assert check_grads(lambda x: x * 0.0, normal(3)) == 0
    with pytest.raises(GradientError, match="differences say 0"):
        check_grads(primitive(lambda x: (x * 0, (lambda g: g,))), normal(3))


def test_numbers_and_empty_arrays_can_be_checked():
    assert check_grads(lambda x, y: x * y, np.array(2.0), normal(3)) < 1e-8
    assert check_grads(lambda x, y: x + y.sum(), normal(3), np.zeros((0, 2))) < 1e-8


def test_parameters_are_named_and_left_as_they_were():
    w = Tensor(xp.asarray(normal(3, 2)), requires_grad=True)
    b = Tensor(xp.asarray(normal(2)), requires_grad=True)
    w.grad = xp.full((3, 2), 5.0)
    x = xp.asarray(normal(4, 3))
    rows = check_parameters(lambda: F.linear(x, w, b), [("w", w), ("b", b)])
    assert [row.name for row in rows] == ["w", "b"]
    assert max(row.error for row in rows) < 1e-8
    rows = check_parameters(lambda: F.linear(x, w, b), [("w", w), ("b", b)], elementwise=True)
    assert [row.name.split("[")[0] for row in rows] == ["w", "b"]
    assert all(row.name.endswith("]") and row.error < 1e-8 for row in rows)
    np.testing.assert_array_equal(to_numpy(w.grad), np.full((3, 2), 5.0))
    assert b.grad is None
    np.testing.assert_array_equal(to_numpy(w.data), normal(3, 2))


def test_a_wrong_parameter_is_named():
    entry = next(e for e in BANK if e.mistake == "dw without xhat")
    leaves = [Tensor(xp.asarray(x), requires_grad=True) for x in RIGHT[entry.right].arrays]
    with pytest.raises(GradientError, match=r"^ln\.w\[\d\]: the tape says"):
        check_parameters(lambda: entry.f(*leaves), zip(["x", "ln.w", "ln.b"], leaves, strict=True))


def test_the_checked_tensors_are_given_back_as_they_were():
    leaf = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    leaf.grad = before = np.array([5.0, 6.0])
    data = leaf.data
    check_parameters(lambda: leaf * leaf, [("leaf", leaf)])
    assert leaf.data is data
    assert leaf.grad is before
    leaf.data += 1  # still writeable
    with pytest.raises(GradientError):
        check_parameters(lambda: wrong_square(leaf), [("leaf", leaf)])
    leaf.data += 1
    assert leaf.data.tolist() == [3.0, 4.0]


@primitive
def wrong_square(x):
    return x * x, (lambda g: g * x,)


def test_the_edge_of_a_domain_is_no_warning():
    assert check_grads(ops.log, np.array([0.01, 3.0])) < 1e-6
    assert check_grads(ops.sqrt, np.array([0.001, 3.0])) < 1e-6


def test_parameters_can_be_written_to_afterwards():
    w = Tensor(xp.asarray(normal(3)), requires_grad=True)
    check_parameters(lambda: w * 2.0, [("w", w)])
    w.data[0] = 2.5
    assert w.data[0] == 2.5
    with pytest.raises(GradientError):
        check_parameters(lambda: F.dropout(w, p=0.5, rng=np.random.default_rng()), [("w", w)])
    w.data[1] = 3.5
    assert w.data[1] == 3.5


def test_a_gradient_that_is_not_a_number_is_rejected():
    with pytest.raises(GradientError, match="the tape says nan"):
        check_grads(primitive(lambda x: (x * 2, (lambda g: g * np.nan,))), normal(3))


def test_the_worst_argument_and_the_worst_entry_are_reported():
    @primitive
    def product(x, y):
        return x * y, (lambda g: g * y, lambda g: g * x * xp.asarray([1.0, 0.5, 1.0]))

    x, y = np.array([1.0, -1.0, 1.0]), np.array([2.0, 3.0, 4.0])
    assert check_grads(product, x, y, tol=10.0) > 1e-3
    assert check_grads(lambda y, x: product(x, y), y, x, tol=10.0) > 1e-3
    with pytest.raises(GradientError, match=r"^argument 1\[1\]: .* relative error 5.0e-01"):
        check_grads(product, x, y)
