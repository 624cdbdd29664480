"""The bank: functions with right derivations, wrong ones, and right ones in unusual forms.

Each wrong derivation carries the name of its mistake, as diagnose() should name it; "" is for two
mistakes at once and for noise, which have no name. Those marked held_out were written before
diagnose() was tuned, and it was not tuned on them. `python -m tests.bank` prints the scores.
"""

# fmt: off
# Set by hand, as a table: a line or two for each derivation.

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt.verify.claims import Claim, Input
from minigpt.verify.diagnosis import diagnose
from minigpt.verify.judge import judge


@dataclass(frozen=True)
class Entry:
    """One derivation. mistake: its label; None where it is right. note: what exactly it does."""

    claim: Claim
    mistake: str | None
    note: str
    held_out: bool = False


RIGHT: dict[str, Entry] = {}
UNUSUAL: list[Entry] = []
WRONG: list[Entry] = []


def right(function: str, f: Callable, said: Callable, *, kind: str = "vjp", **inputs: Any) -> None:
    """Put a function and its derivation into the bank. inputs: shapes by letters, or an Input."""
    specs = {k: v if isinstance(v, Input) else Input(tuple(v)) for k, v in inputs.items()}
    RIGHT[function] = Entry(Claim(function, kind, f, said, specs), None, "as in the textbook")


def unusual(function: str, note: str, said: Callable) -> None:
    """Another right derivation of the same function, in a form that a checker could trip over."""
    UNUSUAL.append(Entry(_other(function, note, said), None, note))


def wrong(
    function: str, mistake: str, said: Callable, note: str = "", held_out: bool = False
) -> None:
    """A wrong derivation of the same function. mistake: the name that diagnose() should find."""
    WRONG.append(Entry(_other(function, note or mistake, said), mistake, note, held_out))


def _other(function: str, note: str, said: Callable) -> Claim:
    of = RIGHT[function].claim
    return Claim(f"{function}: {note}", of.kind, of.f, said, of.inputs)


# --- small words that the derivations use ---------------------------------------------------------


def rows(x):
    """The sum of each row, kept as a column."""
    return x.sum(-1, keepdims=True)


def mean(x):
    return x.mean(-1, keepdims=True)


def T(x):
    return x.swapaxes(-1, -2)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def logsumexp(x):
    top = x.max(-1, keepdims=True)
    return np.log(np.exp(x - top).sum(-1)) + top[..., 0]


def log_softmax(x):
    return x - logsumexp(x)[..., None]


def onehot(t, n):
    return (np.arange(n) == t[..., None]).astype(float)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def noise(x, seed=0):
    """Numbers that have nothing to do with x but its shape; the same ones on each call."""
    return np.random.default_rng([seed, *x.shape]).standard_normal(x.shape)


# --- elementary, with broadcasting ----------------------------------------------------------------

right("add", lambda x, b: x + b, lambda g, x, b: (g, g.sum(0)), x="NC", b="C")
unusual("add", "ones @ g", lambda g, x, b: (1 * g, np.ones(len(g)) @ g))
wrong("add", "missing broadcast sum", lambda g, x, b: (g, g), "db as large as g")
wrong("add", "mean where sum belongs", lambda g, x, b: (g, g.mean(0)), "db averaged over rows")
wrong("add", "wrong axis", lambda g, x, b: (g, g.sum(1)), "db summed along the row")
wrong("add", "sign", lambda g, x, b: (g, -g.sum(0)), "db of a difference", held_out=True)
wrong("add", "cotangent ignored", lambda g, x, b: (g, np.full(b.shape, 1.0 * len(x))),
      "db counts rows", held_out=True)

right("multiply", lambda x, w: x * w, lambda g, x, w: (g * w, (g * x).sum(0)), x="NC", w="C")
unusual("multiply", "einsum", lambda g, x, w: (np.einsum("nc,c->nc", g, w),
                                               np.einsum("nc,nc->c", g, x)))
wrong("multiply", "missing broadcast sum", lambda g, x, w: (g * w, g * x), "dw as large as x")
wrong("multiply", "missing factor", lambda g, x, w: (g, (g * x).sum(0)), "dx without w")
wrong("multiply", "axis kept", lambda g, x, w: (g * w, (g * x).sum(0, keepdims=True)),
      "dw with keepdims")
wrong("multiply", "cotangent ignored", lambda g, x, w: (w + 0 * x, x.sum(0)), "g left out")
wrong("multiply", "wrong axis", lambda g, x, w: (g * w, (g * x).sum(1)), "dw summed along the row",
      held_out=True)

right("product", lambda x, y: x * y, lambda g, x, y: (g * y, g * x), x="NC", y="NC")
wrong("product", "wrong argument", lambda g, x, y: (g * x, g * y), "factors not exchanged")
wrong("product", "zero", lambda g, x, y: (g * y, 0 * x), "y held constant")

right("divide", lambda x, y: x / y, lambda g, x, y: (g / y, -g * x / y**2),
      x="NC", y=Input(("N", "C"), 0.5, 2))
unusual("divide", "through the output", lambda g, x, y: (g / y, -(g / y) * (x / y)))
wrong("divide", "sign", lambda g, x, y: (g / y, g * x / y**2), "dy without its minus")
wrong("divide", "missing factor", lambda g, x, y: (g / y, -g * x / y), "dy without the square")
wrong("divide", "missing factor", lambda g, x, y: (g / y, -g / y**2), "dy without x", held_out=True)

right("exp", np.exp, lambda g, x: g * np.exp(x), x="NC")
unusual("exp", "real part of a complex exponential",
        lambda g, x: g * (np.exp(x + 1j) * np.exp(-1j)).real)
wrong("exp", "input where the output belongs", lambda g, x: g * x, "g * x, not g * exp(x)")
wrong("exp", "missing factor", lambda g, x: g, "identity", held_out=True)

right("log", np.log, lambda g, x: g / x, x=Input(("N", "C"), 0.5, 3))
unusual("log", "exp(-log x)", lambda g, x: g * np.exp(-np.log(x)))
wrong("log", "output where the input belongs", lambda g, x: g / np.log(x), "g / log(x)")
wrong("log", "cotangent ignored", lambda g, x: 1 / x, "1 / x alone")

right("cube", lambda x: x**3, lambda g, x: 3 * g * x**2, x="NC")
wrong("cube", "constant factor", lambda g, x: g * x**2, "3 lost")
wrong("cube", "missing factor", lambda g, x: 3 * g * x, "3 x, not 3 x^2", held_out=True)

right("distance", lambda x, y: np.sqrt(((x - y) ** 2).sum(-1)),
      lambda g, x, y: (g[:, None] * (x - y) / np.sqrt(rows((x - y) ** 2)),
                       g[:, None] * (y - x) / np.sqrt(rows((x - y) ** 2))),
      x="NC", y="NC")
wrong("distance", "sign", lambda g, x, y: 2 * (g[:, None] * (x - y) / np.sqrt(rows((x - y) ** 2)),),
      "dy equal to dx")
wrong("distance", "missing factor",
      lambda g, x, y: (g[:, None] * (x - y), g[:, None] * (y - x)),
      "not divided by the distance", held_out=True)

right("sine of a square", lambda x: np.sin(x * x), lambda g, x: g * np.cos(x * x) * 2 * x, x="NC")
unusual("sine of a square", "Euler", lambda g, x: g * (2 * x * np.exp(1j * x * x)).real)
wrong("sine of a square", "missing factor", lambda g, x: g * np.cos(x * x), "no inner derivative")
wrong("sine of a square", "", lambda g, x: g * np.cos(x), "two mistakes: inner value and slope")

# --- activations ----------------------------------------------------------------------------------

right("tanh", np.tanh, lambda g, x: g * (1 - np.tanh(x) ** 2), x="NC")
unusual("tanh", "1 / cosh^2", lambda g, x: g / np.cosh(x) ** 2)
unusual("tanh", "4 s (1 - s)", lambda g, x: 4 * g * sigmoid(2 * x) * sigmoid(-2 * x))
wrong("tanh", "input where the output belongs", lambda g, x: g * (1 - x * x), "1 - x^2")
wrong("tanh", "sign", lambda g, x: -g * (1 - np.tanh(x) ** 2), "the sign of tan's cousin")
wrong("tanh", "", lambda g, x: g * (1 - np.tanh(x)) * np.cosh(0.3 * x), "two mistakes at once")
wrong("tanh", "missing factor", lambda g, x: g * (1 - np.tanh(x)), "1 - y, not 1 - y^2")

right("sigmoid", sigmoid, lambda g, x: g * sigmoid(x) * (1 - sigmoid(x)), x="NC")
unusual("sigmoid", "exp(-x) s^2", lambda g, x: g * np.exp(-x) * sigmoid(x) ** 2)
unusual("sigmoid", "through tanh", lambda g, x: g * (1 - np.tanh(x / 2) ** 2) / 4)
wrong("sigmoid", "missing factor", lambda g, x: g * sigmoid(x), "no 1 - s")
wrong("sigmoid", "input where the output belongs", lambda g, x: g * x * (1 - x), "x (1 - x)",
      held_out=True)

right("softplus", lambda x: np.log1p(np.exp(x)), lambda g, x: g * sigmoid(x), x="NC")
unusual("softplus", "1 - exp(-y)", lambda g, x: -g * np.expm1(-np.log1p(np.exp(x))))
wrong("softplus", "sign", lambda g, x: -g * sigmoid(x), "minus")
wrong("softplus", "output where the input belongs", lambda g, x: g * sigmoid(np.log1p(np.exp(x))),
      "sigmoid(y)", held_out=True)

U, CUBIC = math.sqrt(2 / math.pi), 0.044715


def gelu(x):
    return 0.5 * x * (1 + np.tanh(U * (x + CUBIC * x**3)))


def gelu_slope(x, cubic=3 * CUBIC, left=1, right=1):
    t = np.tanh(U * (x + CUBIC * x**3))
    return left * 0.5 * (1 + t) + right * 0.5 * x * (1 - t * t) * U * (1 + cubic * x * x)


right("gelu", gelu, lambda g, x: g * gelu_slope(x), x="NC")
unusual("gelu", "through the sigmoid", lambda g, x: g * (
    (s := sigmoid(2 * U * (x + CUBIC * x**3)))
    + 2 * U * x * s * (1 - s) * (1 + 3 * CUBIC * x * x)))
wrong("gelu", "missing product-rule branch", lambda g, x: g * gelu_slope(x, right=0), "gate alone")
wrong("gelu", "missing product-rule branch", lambda g, x: g * gelu_slope(x, left=0),
      "gate held constant", held_out=True)
wrong("gelu", "missing inner derivative", lambda g, x: g * gelu_slope(x, cubic=0),
      "inner slope without its cubic term")
wrong("gelu", "missing inner derivative", lambda g, x: g * gelu_slope(x, cubic=CUBIC),
      "x^3 derived as x^2, no 3", held_out=True)

right("silu", lambda x: x * sigmoid(x),
      lambda g, x: g * (sigmoid(x) + x * sigmoid(x) * (1 - sigmoid(x))), x="NC")
unusual("silu", "y + s (1 - y)", lambda g, x: g * (x * sigmoid(x) + sigmoid(x)
                                                   * (1 - x * sigmoid(x))))
wrong("silu", "missing product-rule branch", lambda g, x: g * sigmoid(x), "gate alone")
wrong("silu", "missing product-rule branch", lambda g, x: g * x * sigmoid(x) * (1 - sigmoid(x)),
      "gate held constant")

right("gated unit", lambda x, y: x * sigmoid(y),
      lambda g, x, y: (g * sigmoid(y), g * x * sigmoid(y) * (1 - sigmoid(y))),
      x="NC", y="NC")
wrong("gated unit", "wrong argument",
      lambda g, x, y: (g * sigmoid(x), g * y * sigmoid(x) * (1 - sigmoid(x))),
      "gate and value exchanged")
wrong("gated unit", "missing factor", lambda g, x, y: (g * sigmoid(y),
                                                       g * sigmoid(y) * (1 - sigmoid(y))),
      "dy without x", held_out=True)

# --- sums, means, shapes --------------------------------------------------------------------------

right("sum of columns", lambda x: x.sum(0), lambda g, x: g + 0 * x, x="NC")
unusual("sum of columns", "outer product", lambda g, x: np.outer(np.ones(len(x)), g))
wrong("sum of columns", "mean where sum belongs", lambda g, x: (g + 0 * x) / len(x), "the mean's")
wrong("sum of columns", "wrong axis", lambda g, x: g[:, None] + 0 * x, "g stood up")

right("mean of rows", lambda x: x.mean(1), lambda g, x: g[:, None] / x.shape[1] + 0 * x, x="NC")
unusual("mean of rows", "tiled", lambda g, x: np.tile(g / x.shape[1], (x.shape[1], 1)).T)
wrong("mean of rows", "sum where mean belongs", lambda g, x: g[:, None] + 0 * x, "the sum's")
wrong("mean of rows", "wrong length", lambda g, x: g[:, None] / x.shape[0] + 0 * x,
      "divided by the rows")
wrong("mean of rows", "wrong length", lambda g, x: g[:, None] / x.size + 0 * x,
      "divided by all elements", held_out=True)
wrong("mean of rows", "cotangent ignored", lambda g, x: 0 * x + 1 / x.shape[1], "1 / C")

right("variance", lambda x: x.var(1),
      lambda g, x: 2 * g[:, None] * (x - mean(x)) / x.shape[1], x="NC")
unusual("variance", "E x^2 - (E x)^2", lambda g, x: g[:, None] * (2 * x / x.shape[1]
                                                                  - 2 * mean(x) / x.shape[1]))
wrong("variance", "constant factor", lambda g, x: g[:, None] * (x - mean(x)) / x.shape[1], "2 lost")
wrong("variance", "missing mean term", lambda g, x: 2 * g[:, None] * x / x.shape[1], "not centred")
wrong("variance", "sum where mean belongs", lambda g, x: 2 * g[:, None] * (x - mean(x)),
      "not divided by C", held_out=True)
wrong("variance", "n - 1 for n", lambda g, x: 2 * g[:, None] * (x - mean(x)) / (x.shape[1] - 1),
      "the unbiased estimate's")

right("cumulative sum", lambda x: x.cumsum(1), lambda g, x: g[:, ::-1].cumsum(1)[:, ::-1], x="NT")
unusual("cumulative sum", "triangular matrix", lambda g, x: g @ np.tri(x.shape[1]))
unusual("cumulative sum", "a loop", lambda g, x: np.stack(
    [g[:, t:].sum(1) for t in range(x.shape[1])], 1))
wrong("cumulative sum", "transposed", lambda g, x: g.cumsum(1), "summed forwards")
wrong("cumulative sum", "wrong axis", lambda g, x: g[::-1].cumsum(0)[::-1], "summed over the batch")

right("permute axes", lambda x: x.transpose(1, 2, 0), lambda g, x: g.transpose(2, 0, 1), x="ABC")
unusual("permute axes", "moveaxis", lambda g, x: np.moveaxis(g, -1, 0))
wrong("permute axes", "transposed", lambda g, x: g.transpose(1, 2, 0), "the same axes again")

right("flatten", lambda x: x.reshape(len(x), -1), lambda g, x: g.reshape(x.shape), x="NHD")
wrong("flatten", "transposed", lambda g, x: g.reshape(x.shape[0], x.shape[2], x.shape[1])
      .swapaxes(1, 2), "heads and channels exchanged")

# --- products -------------------------------------------------------------------------------------

right("matmul", lambda x, w: x @ w, lambda g, x, w: (g @ w.T, x.T @ g), x="NC", w="CD")
unusual("matmul", "einsum", lambda g, x, w: (np.einsum("nd,cd->nc", g, w),
                                             np.einsum("nc,nd->cd", x, g)))
unusual("matmul", "a sum of outer products", lambda g, x, w: (
    (w @ g.T).T, sum(np.outer(x[n], g[n]) for n in range(len(x)))))
wrong("matmul", "transposed", lambda g, x, w: (g @ w.T, g.T @ x), "dw laid down the other way")
wrong("matmul", "mean where sum belongs", lambda g, x, w: (g @ w.T, x.T @ g / len(x)),
      "dw averaged over rows")
wrong("matmul", "zero", lambda g, x, w: (0 * x, x.T @ g), "dx never filled in")

right("square matmul", lambda x, w: x @ w, lambda g, x, w: (g @ w.T, x.T @ g), x="NN", w="NN")
wrong(
    "square matmul", "transposed", lambda g, x, w: (g @ w, x.T @ g), "dx with w for its transpose"
)
wrong("square matmul", "transposed", lambda g, x, w: (g @ w.T, x @ g),
      "dw with x for its transpose", held_out=True)
wrong("square matmul", "wrong order", lambda g, x, w: (w.T @ g, x.T @ g), "dx from the other side")

right("linear", lambda x, w, b: x @ w + b,
      lambda g, x, w, b: (g @ w.T, np.einsum("btc,btd->cd", x, g), g.sum((0, 1))),
      x="BTC", w="CD", b="D")
unusual("linear", "flattened rows", lambda g, x, w, b: (
    g @ w.T, x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1]),
    g.reshape(-1, g.shape[-1]).sum(0)))
wrong("linear", "missing broadcast sum",
      lambda g, x, w, b: (g @ w.T, T(x) @ g, g.sum((0, 1))), "dw for each sequence")
wrong("linear", "missing broadcast sum",
      lambda g, x, w, b: (g @ w.T, np.einsum("btc,btd->cd", x, g), g.sum(0)),
      "db summed over one axis of two", held_out=True)
wrong("linear", "mean where sum belongs",
      lambda g, x, w, b: (g @ w.T, np.einsum("btc,btd->cd", x, g), g.mean((0, 1))),
      "db averaged over batch and time")
wrong("linear", "mean where sum belongs",
      lambda g, x, w, b: (g @ w.T, np.einsum("btc,btd->cd", x, g) / len(x), g.sum((0, 1))),
      "dw averaged over the batch", held_out=True)

right("outer product", lambda x, y: np.outer(x, y), lambda g, x, y: (g @ y, x @ g), x="N", y="M")
wrong("outer product", "transposed", lambda g, x, y: (g.T @ y, g @ x), "g transposed in both")
wrong("outer product", "missing broadcast sum", lambda g, x, y: (g * y, x @ g), "dx not summed")
wrong("outer product", "wrong argument", lambda g, x, y: (x @ g, g @ y), "dx and dy exchanged",
      held_out=True)

right("Gram matrix", lambda x: x @ x.T, lambda g, x: (g + g.T) @ x, x="NC")
wrong("Gram matrix", "missing product-rule branch", lambda g, x: g @ x, "one factor held constant")
wrong("Gram matrix", "missing product-rule branch", lambda g, x: g.T @ x,
      "the other factor held constant", held_out=True)
wrong("Gram matrix", "symmetric only", lambda g, x: 2 * g @ x, "g taken to be symmetric")

right("quadratic form", lambda x, a: x @ a @ x, lambda g, x, a: (g * (a + a.T) @ x,
                                                                g * np.outer(x, x)),
      x="N", a="NN")
wrong("quadratic form", "missing product-rule branch",
      lambda g, x, a: (g * a @ x, g * np.outer(x, x)), "A x")
wrong("quadratic form", "symmetric only", lambda g, x, a: (2 * g * a @ x, g * np.outer(x, x)),
      "2 A x")

# --- softmax and its family -----------------------------------------------------------------------


def softmax_vjp(g, x):
    p = softmax(x)
    return p * (g - rows(g * p))


def softmax_loop(g, x):
    """The Jacobian written out, row by row."""
    out = np.empty_like(x)
    for n, p in enumerate(softmax(x)):
        out[n] = (np.diag(p) - np.outer(p, p)) @ g[n]
    return out


right("softmax", softmax, softmax_vjp, x="NC")
unusual("softmax", "through log_softmax",
        lambda g, x: (gp := g * np.exp(log_softmax(x))) - softmax(x) * rows(gp))
unusual("softmax", "the Jacobian in a loop", softmax_loop)
unusual("softmax", "without shifting by the maximum", lambda g, x: (
    (e := np.exp(x)) / rows(e) * (g - rows(g * e) / rows(e))))
wrong("softmax", "missing row sum", lambda g, x: softmax(x) * g, "p * g")
wrong("softmax", "diagonal only", lambda g, x: softmax(x) * (1 - softmax(x)) * g, "p (1 - p) g")
wrong("softmax", "wrong axis", lambda g, x: (p := softmax(x)) * (g - (g * p).sum(0)),
      "the row sum over the batch")
wrong("softmax", "wrong axis", lambda g, x: T(softmax_vjp(g.T, x.T)), "all of it over the batch",
      held_out=True)
wrong("softmax", "mean where sum belongs", lambda g, x: (p := softmax(x)) * (g - mean(g * p)),
      "the row mean")
wrong("softmax", "sign of a term", lambda g, x: (p := softmax(x)) * (g + rows(g * p)),
      "the row sum added")
wrong("softmax", "missing factor", lambda g, x: g - rows(g * softmax(x)), "p outside forgotten",
      held_out=True)
wrong("softmax", "zero", lambda g, x: 0 * x, "right for a cotangent of ones")
wrong("softmax", "", lambda g, x: -2 * softmax(x, 0) * g, "two mistakes: axis and row sum")
wrong("softmax", "", lambda g, x: softmax_vjp(g, x) * (1 + 0.1 * noise(x)), "10 % noise")

right("log_softmax", log_softmax, lambda g, x: g - softmax(x) * rows(g), x="NC")
unusual("log_softmax", "exp of the output", lambda g, x: g - rows(g) * np.exp(log_softmax(x)))
wrong("log_softmax", "missing row sum", lambda g, x: g, "identity")
wrong("log_softmax", "missing factor in a term", lambda g, x: g - rows(g), "row sum without p")
wrong("log_softmax", "diagonal only", lambda g, x: g - softmax(x) * g, "g (1 - p)", held_out=True)
wrong("log_softmax", "sign of a term", lambda g, x: g + softmax(x) * rows(g), "plus",
      held_out=True)
wrong("log_softmax", "right only for ones", lambda g, x: g - x.shape[-1] * softmax(x),
      "the sum of g taken to be C")

right("logsumexp", logsumexp, lambda g, x: g[:, None] * softmax(x), x="NC")
unusual("logsumexp", "exp(x - y)", lambda g, x: g[:, None] * np.exp(x - logsumexp(x)[:, None]))
wrong("logsumexp", "missing factor", lambda g, x: g[:, None] * np.exp(x), "exp(x) alone")
wrong("logsumexp", "wrong axis", lambda g, x: g[:, None] * softmax(x, 0), "softmax over the batch",
      held_out=True)

right("masked softmax", lambda x: softmax(np.where(np.tri(len(x), dtype=bool), x, -1e9)),
      lambda g, x: softmax_vjp(g, np.where(np.tri(len(x), dtype=bool), x, -1e9)),
      x="TT")
wrong("masked softmax", "missing mask", softmax_vjp, "softmax's own")
wrong("masked softmax", "mask after softmax",
      lambda g, x: (p := softmax(x)) * (np.tri(len(x)) * g - rows(np.tri(len(x)) * g * p)),
      "the derivative of tril(softmax(x))")


def cross_entropy(x, t):
    return -log_softmax(x)[np.arange(len(t)), t].mean()


right("cross-entropy", cross_entropy,
      lambda g, x, t: g * (softmax(x) - onehot(t, x.shape[1])) / len(x),
      x="NV", t=Input(("N",), below="V"))


def cross_entropy_in_place(g, x, t):
    """As in a fused kernel: subtract 1 at the targets."""
    dx = softmax(x)
    dx[np.arange(len(t)), t] -= 1
    dx *= g / len(t)
    return dx


unusual("cross-entropy", "in place", cross_entropy_in_place)
unusual("cross-entropy", "through log_softmax's vjp", lambda g, x, t: (
    (up := -g / len(t) * onehot(t, x.shape[1])) - softmax(x) * rows(up)))
wrong("cross-entropy", "sum where mean belongs",
      lambda g, x, t: g * (softmax(x) - onehot(t, x.shape[1])), "not divided by N")
wrong("cross-entropy", "sign",
      lambda g, x, t: g * (onehot(t, x.shape[1]) - softmax(x)) / len(x), "target - p")
wrong("cross-entropy", "missing one-hot term", lambda g, x, t: g * softmax(x) / len(x), "p alone")
wrong("cross-entropy", "cotangent ignored",
      lambda g, x, t: (softmax(x) - onehot(t, x.shape[1])) / len(x), "g left out")
wrong("cross-entropy", "wrong length",
      lambda g, x, t: g * (softmax(x) - onehot(t, x.shape[1])) / x.shape[1],
      "divided by V", held_out=True)
wrong("cross-entropy", "missing row sum",
      lambda g, x, t: -g * onehot(t, x.shape[1]) / len(x), "one-hot alone", held_out=True)
wrong("cross-entropy", "wrong axis",
      lambda g, x, t: g * (softmax(x, 0) - onehot(t, x.shape[1])) / len(x),
      "softmax over the batch")

right("KL of two logits", lambda a, b: (softmax(a) * (log_softmax(a) - log_softmax(b))).sum(-1)
      .mean(),
      lambda g, a, b: (
          (p := softmax(a)) * ((r := log_softmax(a) - log_softmax(b)) - rows(p * r)) * g / len(a),
          (softmax(b) - p) * g / len(a)),
      a="NV", b="NV")
wrong("KL of two logits", "sign", lambda g, a, b: (
    (p := softmax(a)) * ((r := log_softmax(a) - log_softmax(b)) - rows(p * r)) * g / len(a),
    (p - softmax(b)) * g / len(a)), "db")
wrong("KL of two logits", "sum where mean belongs", lambda g, a, b: (
    (p := softmax(a)) * ((r := log_softmax(a) - log_softmax(b)) - rows(p * r)) * g / len(a),
    (softmax(b) - p) * g), "db not divided by N", held_out=True)
wrong("KL of two logits", "missing row sum", lambda g, a, b: (
    (p := softmax(a)) * (log_softmax(a) - log_softmax(b)) * g / len(a),
    (softmax(b) - p) * g / len(a)), "da without the row's divergence")

right("focal loss", lambda z: -((1 - sigmoid(z)) ** 2) * np.log(sigmoid(z)),
      lambda g, z: g * (1 - (s := sigmoid(z))) ** 2 * (2 * s * np.log(s) - (1 - s)), z="N")
wrong("focal loss", "missing product-rule branch",
      lambda g, z: -g * (1 - sigmoid(z)) ** 3, "weight held constant")
wrong("focal loss", "constant factor",
      lambda g, z: 3 * g * (1 - (s := sigmoid(z))) ** 2 * (2 * s * np.log(s) - (1 - s)),
      "3 times too large", held_out=True)

# --- normalisations -------------------------------------------------------------------------------

EPS = 1e-5


def standard(x, axis=-1, eps=EPS):
    """(xhat, rstd) along one axis."""
    rstd = 1 / np.sqrt(x.var(axis, keepdims=True) + eps)
    return (x - x.mean(axis, keepdims=True)) * rstd, rstd


def layer_norm(x, w, b):
    return standard(x)[0] * w + b


def layer_norm_dx(g, x, w, mean_term=1, projection=1):
    xhat, rstd = standard(x)
    return rstd * (g * w - mean_term * mean(g * w) - projection * xhat * mean(g * w * xhat))


def layer_norm_with(dx):
    """Layer norm's vjp with a dx of one's own, the rest right."""
    return lambda g, x, w, b: (dx(g, x, w), (g * standard(x)[0]).sum(0), g.sum(0))


right("layer norm", layer_norm, layer_norm_with(layer_norm_dx), x="NC", w="C", b="C")
unusual("layer norm", "fused, as in a kernel", layer_norm_with(
    lambda g, x, w: standard(x)[1] / x.shape[1] * (
        x.shape[1] * g * w - rows(g * w) - standard(x)[0] * rows(g * w * standard(x)[0]))))
unusual("layer norm", "step by step through mean and variance", layer_norm_with(
    lambda g, x, w: (
        (rstd := standard(x)[1]) * g * w
        + (x - mean(x)) * 2 / x.shape[1] * rows(g * w * (x - mean(x))) * -0.5 * rstd**3
        - mean(rstd * g * w))))
unusual("layer norm", "a Jacobian for each row", layer_norm_with(lambda g, x, w: np.stack([
    rstd * (np.eye(len(xhat)) - 1 / len(xhat) - np.outer(xhat, xhat) / len(xhat)) @ (row * w)
    for xhat, rstd, row in zip(*standard(x), g, strict=True)])))
wrong("layer norm", "missing mean term", layer_norm_with(
    lambda g, x, w: layer_norm_dx(g, x, w, mean_term=0)), "mean(gw) lost")
wrong("layer norm", "missing projection term", layer_norm_with(
    lambda g, x, w: layer_norm_dx(g, x, w, projection=0)), "variance held constant")
wrong("layer norm", "missing mean and projection terms", layer_norm_with(
    lambda g, x, w: standard(x)[1] * g * w), "both statistics held constant")
wrong("layer norm", "right only at gain = 1", layer_norm_with(
    lambda g, x, w: layer_norm_dx(g, x, 1)), "dx without the gain")
wrong("layer norm", "right only at gain = 1", layer_norm_with(
    lambda g, x, w: w * layer_norm_dx(g, x, 1)), "the gain after the projection",
    held_out=True)
wrong("layer norm", "sum where mean belongs", layer_norm_with(
    lambda g, x, w: layer_norm_dx(g, x, w, mean_term=x.shape[1])), "sum(gw) for mean(gw)")
wrong("layer norm", "sum where mean belongs", layer_norm_with(
    lambda g, x, w: layer_norm_dx(g, x, w, projection=x.shape[1])), "sum(gw xhat)",
    held_out=True)
wrong("layer norm", "sign of a term", layer_norm_with(
    lambda g, x, w: layer_norm_dx(g, x, w, projection=-1)), "projection added",
    held_out=True)
wrong("layer norm", "missing factor", layer_norm_with(
    lambda g, x, w: layer_norm_dx(g, x, w) / standard(x)[1]), "no rstd")
wrong("layer norm", "eps in the wrong place", layer_norm_with(
    lambda g, x, w: layer_norm_dx(g, x, w) / standard(x)[1] / (x.std(1, keepdims=True) + EPS)),
    "1 / (std + eps)")
wrong(
    "layer norm",
    "missing broadcast sum",
    lambda g, x, w, b: (layer_norm_dx(g, x, w), g * standard(x)[0], g.sum(0)),
    "dw not summed",
)
wrong("layer norm", "missing factor",
      lambda g, x, w, b: (layer_norm_dx(g, x, w), g.sum(0), g.sum(0)), "dw without xhat",
      held_out=True)
wrong("layer norm", "wrong argument",
      lambda g, x, w, b: (layer_norm_dx(g, x, w), g.sum(0), (g * standard(x)[0]).sum(0)),
      "dw and db exchanged")
wrong("layer norm", "wrong axis",
      lambda g, x, w, b: (layer_norm_dx(g, x, w), (g * standard(x, 0)[0]).sum(0), g.sum(0)),
      "dw with columns normalised", held_out=True)
wrong("layer norm", "", layer_norm_with(
    lambda g, x, w: -3 * layer_norm_dx(g, x, 1, projection=0)), "three mistakes at once")


def rms(x, eps=EPS):
    return 1 / np.sqrt(mean(x * x) + eps)


def rms_norm_dx(g, x, w, r, projection=1):
    return r * (g * w - projection * x * r * mean(g * w * x * r))


right("RMS norm", lambda x, w: x * rms(x) * w,
      lambda g, x, w: (rms_norm_dx(g, x, w, rms(x)), (g * x * rms(x)).sum(0)),
      x="NC", w="C")
unusual("RMS norm", "powers of the root", lambda g, x, w: (
    g * w * rms(x) - x * rms(x) ** 3 * rows(g * w * x) / x.shape[1],
    np.einsum("nc,nc,n->c", g, x, rms(x)[:, 0])))
wrong("RMS norm", "missing projection term",
      lambda g, x, w: (rms(x) * g * w, (g * x * rms(x)).sum(0)), "root held constant")
wrong("RMS norm", "right only at gain = 1",
      lambda g, x, w: (rms_norm_dx(g, x, 1, rms(x)), (g * x * rms(x)).sum(0)), "no gain")
wrong("RMS norm", "missing factor",
      lambda g, x, w: (rms_norm_dx(g, x, w, rms(x)), (g * x).sum(0)), "dw with x for xhat")
wrong("RMS norm", "sum where mean belongs",
      lambda g, x, w: (rms_norm_dx(g, x, w, rms(x), x.shape[1]), (g * x * rms(x)).sum(0)),
      "projection not divided by C", held_out=True)
wrong("RMS norm", "eps in the wrong place",
      lambda g, x, w: (rms_norm_dx(g, x, w, 1 / (np.sqrt(mean(x * x)) + EPS)),
                       (g * x * rms(x)).sum(0)), "1 / (rms + eps)", held_out=True)

right("batch norm", lambda x, w, b: standard(x, 0)[0] * w + b,
      lambda g, x, w, b: (
          w * standard(x, 0)[1] * (g - g.mean(0) - (h := standard(x, 0)[0]) * (g * h).mean(0)),
          (g * h).sum(0), g.sum(0)),
      x="NC", w="C", b="C")
wrong("batch norm", "missing mean and projection terms", lambda g, x, w, b: (
    w * standard(x, 0)[1] * g, (g * standard(x, 0)[0]).sum(0), g.sum(0)),
    "statistics held constant")
wrong("batch norm", "missing projection term", lambda g, x, w, b: (
    w * standard(x, 0)[1] * (g - g.mean(0)), (g * standard(x, 0)[0]).sum(0), g.sum(0)),
    "variance held constant", held_out=True)
wrong("batch norm", "missing factor", lambda g, x, w, b: (
    standard(x, 0)[1] * (g - g.mean(0) - (h := standard(x, 0)[0]) * (g * h).mean(0)),
    (g * h).sum(0), g.sum(0)), "dx without the gain")

right("L2 normalise", lambda x: x / np.sqrt(rows(x * x)),
      lambda g, x: ((n := np.sqrt(rows(x * x))), (y := x / n), (g - y * rows(g * y)) / n)[-1],
      x="NC")
wrong("L2 normalise", "missing projection term", lambda g, x: g / np.sqrt(rows(x * x)),
      "norm held constant")
wrong("L2 normalise", "missing factor",
      lambda g, x: g - (y := x / np.sqrt(rows(x * x))) * rows(g * y), "not divided by the norm")
wrong("L2 normalise", "sign of a term",
      lambda g, x: ((n := np.sqrt(rows(x * x))), (y := x / n), (g + y * rows(g * y)) / n)[-1],
      "projection added", held_out=True)

# --- attention ------------------------------------------------------------------------------------


def attention(q, k, v, mask=0.0):
    return softmax(q @ T(k) / math.sqrt(q.shape[-1]) + mask) @ v


def attention_vjp(g, q, k, v, mask=0.0, row_sum=1, diagonal=False, factor=1.0):
    """The right vjp, with handles to break it by."""
    p, scale = softmax(q @ T(k) / math.sqrt(q.shape[-1]) + mask), 1 / math.sqrt(q.shape[-1])
    dp = g @ T(v)
    ds = p * (1 - p) * dp if diagonal else p * (dp - row_sum * rows(dp * p))
    return ds @ k * scale * factor, T(ds) @ q * scale * factor, T(p) @ g


right("attention", attention, attention_vjp, q="TD", k="SD", v="SE")
unusual("attention", "row sum as g times the output", lambda g, q, k, v: (
    (p := softmax(q @ k.T / math.sqrt(q.shape[1]))),
    (ds := p * (g @ v.T - rows(g * (p @ v))) / math.sqrt(q.shape[1])),
    (ds @ k, ds.T @ q, p.T @ g))[-1])
unusual("attention", "one query at a time", lambda g, q, k, v: tuple(
    np.concatenate(parts) if i == 0 else sum(parts) for i, parts in enumerate(zip(
        *(attention_vjp(g[t : t + 1], q[t : t + 1], k, v) for t in range(len(q))),
        strict=True))))
wrong("attention", "missing 1/sqrt(d)", lambda g, q, k, v: attention_vjp(
    g, q, k, v, factor=math.sqrt(q.shape[1])), "scale left out of the backward pass")
wrong("attention", "1/sqrt(d) twice", lambda g, q, k, v: attention_vjp(
    g, q, k, v, factor=1 / math.sqrt(q.shape[1])), "scale in scores and again", held_out=True)
wrong("attention", "missing row sum", lambda g, q, k, v: attention_vjp(
    g, q, k, v, row_sum=0), "p * dp")
wrong("attention", "diagonal only", lambda g, q, k, v: attention_vjp(
    g, q, k, v, diagonal=True), "p (1 - p) dp", held_out=True)
wrong("attention", "transposed", lambda g, q, k, v: (
    (d := attention_vjp(g, q, k, v))[0], d[1].T, d[2]), "dk laid down as k^T")
wrong("attention", "wrong argument", lambda g, q, k, v: (
    (d := attention_vjp(g, q, k, v))[1], d[0], d[2]), "dq and dk exchanged")


def causal(q):
    return np.where(np.tri(q.shape[-2], dtype=bool), 0.0, -1e9)


def masked_late_vjp(g, q, k, v, renormalised=False):
    """The derivative of tril(softmax(scores)) @ v, which is not causal attention."""
    scale, keep = 1 / math.sqrt(q.shape[-1]), np.tri(q.shape[-2])
    p = softmax(q @ T(k) * scale)
    dp = keep * (g @ T(v))
    ds = p * (dp - rows(dp * p)) * scale
    return ds @ k, T(ds) @ q, T(keep * p) @ g


right("causal attention", lambda q, k, v: attention(q, k, v, causal(q)),
      lambda g, q, k, v: attention_vjp(g, q, k, v, causal(q)),
      q="BTD", k="BTD", v="BTD")
unusual("causal attention", "einsum", lambda g, q, k, v: (
    (s := 1 / math.sqrt(q.shape[-1])),
    (p := softmax(np.einsum("btd,bsd->bts", q, k) * s + causal(q))),
    (dp := np.einsum("bte,bse->bts", g, v)),
    (ds := p * (dp - np.einsum("bts,bts->bt", p, dp)[..., None]) * s),
    (np.einsum("bts,bsd->btd", ds, k), np.einsum("bts,btd->bsd", ds, q),
     np.einsum("bts,bte->bse", p, g)))[-1])
wrong("causal attention", "mask after softmax", masked_late_vjp, "tril after the softmax")
wrong("causal attention", "missing mask", attention_vjp, "no mask in the backward pass")
wrong("causal attention", "missing row sum", lambda g, q, k, v: attention_vjp(
    g, q, k, v, causal(q), row_sum=0), "p * dp", held_out=True)
wrong("causal attention", "transposed", lambda g, q, k, v: (
    *attention_vjp(g, q, k, v, causal(q))[:2],
    softmax(q @ T(k) / math.sqrt(q.shape[-1]) + causal(q)) @ g), "dv with p for its transpose")
wrong("causal attention", "missing 1/sqrt(d)", lambda g, q, k, v: (
    (d := attention_vjp(g, q, k, v, causal(q)))[0], d[1] * math.sqrt(q.shape[-1]), d[2]),
    "scale left out of dk", held_out=True)

# --- tables, positions, contrast ------------------------------------------------------------------


def embedding_vjp(g, w, i):
    dw = np.zeros(w.shape)
    np.add.at(dw, i, g)
    return dw


def assigned(g, w, i):
    dw = np.zeros(w.shape)
    dw[i] = g
    return dw


right("embedding", lambda w, i: w[i], embedding_vjp, w="VC", i=Input(("B", "T"), below="V"))
unusual("embedding", "one-hot product",
        lambda g, w, i: np.einsum("btv,btc->vc", onehot(i, len(w)), g))
unusual("embedding", "sorted and reduced", lambda g, w, i: np.stack(
    [g[i == row].sum(0) for row in range(len(w))]))
wrong("embedding", "assigned instead of accumulated", assigned, "dw[i] = g")
wrong("embedding", "averaged over repeats", lambda g, w, i: embedding_vjp(g, w, i)
      / np.maximum(1, np.bincount(i.ravel(), minlength=len(w)))[:, None], "mean of the repeats")
wrong("embedding", "cotangent ignored", lambda g, w, i: embedding_vjp(1 + 0 * g, w, i), "counts",
      held_out=True)

right("lookup of a weighted table", lambda w, i: (w * w)[i], lambda g, w, i: 2 * w
      * embedding_vjp(g, w, i), w="VC", i=Input(("T",), below="V"))
wrong("lookup of a weighted table", "assigned instead of accumulated",
      lambda g, w, i: 2 * w * assigned(g, w, i), "dw[i] = g", held_out=True)


def rotate(x, back=1):
    """Pairs (x[..., 0], x[..., 1]) turned by an angle for each place and pair."""
    t, p = np.arange(x.shape[0])[:, None], np.arange(x.shape[1])
    angle = back * t / 10.0 ** (p / x.shape[1])
    a, b = x[..., 0], x[..., 1]
    return np.stack([a * np.cos(angle) - b * np.sin(angle),
                     a * np.sin(angle) + b * np.cos(angle)], -1)


def rotate_complex(g, x):
    """The turn as a product with exp(-i angle)."""
    t, p = np.arange(x.shape[0])[:, None], np.arange(x.shape[1])
    z = (g[..., 0] + 1j * g[..., 1]) * np.exp(-1j * t / 10.0 ** (p / x.shape[1]))
    return np.stack([z.real, z.imag], -1)


right("rotary", rotate, lambda g, x: rotate(g, -1), x=("T", "P", 2))
unusual("rotary", "complex exponential", rotate_complex)
wrong("rotary", "transposed", lambda g, x: rotate(g), "turned the same way again")
wrong("rotary", "missing rotation", lambda g, x: g, "not turned back", held_out=True)

TAU = 0.5


def info_nce(a, b):
    s = a @ b.T / TAU
    return -(np.diag(log_softmax(s)) + np.diag(log_softmax(s.T))).mean() / 2


def info_nce_vjp(g, a, b, over_rows=1, over_columns=1):
    s = a @ b.T / TAU
    ds = over_rows * (softmax(s) - np.eye(len(s))) + over_columns * (softmax(s, 0) - np.eye(len(s)))
    ds = g * ds / (2 * len(s) * TAU)
    return ds @ b, ds.T @ a


right("contrastive loss", info_nce, info_nce_vjp, a="ND", b="ND")
wrong("contrastive loss", "constant factor", lambda g, a, b: tuple(
    TAU * d for d in info_nce_vjp(g, a, b)), "temperature left out")
wrong("contrastive loss", "sum where mean belongs", lambda g, a, b: tuple(
    len(a) * d for d in info_nce_vjp(g, a, b)), "not divided by N", held_out=True)
wrong("contrastive loss", "missing term", lambda g, a, b: info_nce_vjp(g, a, b, over_columns=0),
      "one direction of two")
wrong("contrastive loss", "wrong argument", lambda g, a, b: info_nce_vjp(g, a, b)[::-1],
      "da and db exchanged")

right("mean squared error", lambda x, y: ((x - y) ** 2).mean(),
      lambda g, x, y: (2 * g * (x - y) / x.size, 2 * g * (y - x) / x.size),
      x="NC", y="NC")
unusual("mean squared error", "half of four", lambda g, x, y: (
    (d := g * (x - y) * 4 / x.size / 2), -d))
wrong("mean squared error", "constant factor",
      lambda g, x, y: (g * (x - y) / x.size, g * (y - x) / x.size), "2 lost")
wrong("mean squared error", "sum where mean belongs",
      lambda g, x, y: (2 * g * (x - y) / len(x), 2 * g * (y - x) / len(x)),
      "divided by N alone")
wrong("mean squared error", "sign",
      lambda g, x, y: (2 * g * (x - y) / x.size, 2 * g * (x - y) / x.size), "dy", held_out=True)

# --- networks of two steps ------------------------------------------------------------------------

right("tanh layer", lambda x, w: np.tanh(x @ w),
      lambda g, x, w: ((d := g * (1 - np.tanh(x @ w) ** 2)) @ w.T, x.T @ d), x="NC", w="CD")
unusual("tanh layer", "1 / cosh^2", lambda g, x, w: ((d := g / np.cosh(x @ w) ** 2) @ w.T, x.T @ d))
wrong("tanh layer", "missing inner derivative", lambda g, x, w: (g @ w.T, x.T @ g), "no tanh slope")
wrong("tanh layer", "missing broadcast sum",
      lambda g, x, w: ((d := g * (1 - np.tanh(x @ w) ** 2)) @ w.T, x[:, :, None] * d[:, None]),
      "dw for each row", held_out=True)

right("residual", lambda x, w: x + np.tanh(x @ w),
      lambda g, x, w: (g + (d := g * (1 - np.tanh(x @ w) ** 2)) @ w.T, x.T @ d),
      x="NC", w="CC")
wrong("residual", "missing term",
      lambda g, x, w: ((d := g * (1 - np.tanh(x @ w) ** 2)) @ w.T, x.T @ d), "no skip")
wrong("residual", "transposed",
      lambda g, x, w: (g + (d := g * (1 - np.tanh(x @ w) ** 2)) @ w, x.T @ d),
      "w for its transpose", held_out=True)

right("gated product", lambda x, u, w: sigmoid(x @ u) * (x @ w),
      lambda g, x, u, w: (
          (s := sigmoid(x @ u)), (a := g * (x @ w) * s * (1 - s)), (b := g * s),
          (a @ u.T + b @ w.T, x.T @ a, x.T @ b))[-1],
      x="NC", u="CD", w="CD")
wrong("gated product", "missing product-rule branch", lambda g, x, u, w: (
    (s := sigmoid(x @ u)), (a := g * (x @ w) * s * (1 - s)), (b := g * s),
    (b @ w.T, x.T @ a, x.T @ b))[-1], "dx through the value alone")
wrong("gated product", "", lambda g, x, u, w: (
    g @ w.T * 0.7 + 0.1 * x, x.T @ g, x.T @ g), "many mistakes at once")

# --- gradients and Jacobians ----------------------------------------------------------------------

right("least squares", lambda w, x, y: ((x @ w - y) ** 2).sum() / (2 * len(y)),
      lambda w, x, y: ((r := (x @ w - y) / len(y)) @ x, np.outer(r, w), -r),
      kind="gradient", w="C", x="NC", y="N")
wrong("least squares", "sum where mean belongs",
      lambda w, x, y: ((x @ w - y) @ x, np.outer(x @ w - y, w) / len(y), (y - x @ w) / len(y)),
      "dw not divided by N")
wrong("least squares", "sign",
      lambda w, x, y: ((r := (x @ w - y) / len(y)) @ x, np.outer(r, w), r), "dy", held_out=True)

right("logistic regression",
      lambda w, x: np.log1p(np.exp(-x @ w)).mean() + 0.05 * (w @ w),
      lambda w, x: (-(s := sigmoid(-x @ w)) @ x / len(x) + 0.1 * w,
                    -np.outer(s, w) / len(x)),
      kind="gradient", w="C", x="NC")
wrong("logistic regression", "missing term",
      lambda w, x: (-(s := sigmoid(-x @ w)) @ x / len(x), -np.outer(s, w) / len(x)),
      "dw without the penalty")
wrong("logistic regression", "term with a factor",
      lambda w, x: (-(s := sigmoid(-x @ w)) @ x / len(x) + 0.05 * w, -np.outer(s, w) / len(x)),
      "penalty without its 2", held_out=True)

right("softmax of a vector", softmax, lambda x: np.diag(p := softmax(x)) - np.outer(p, p),
      kind="jacobian", x="N")
unusual("softmax of a vector", "einsum", lambda x: np.einsum(
    "i,ij->ij", p := softmax(x), np.eye(len(x)) - p[None]))
wrong("softmax of a vector", "diagonal only", lambda x: np.diag((p := softmax(x)) * (1 - p)),
      "off-diagonal forgotten")
wrong("softmax of a vector", "missing row sum", lambda x: np.diag(softmax(x)), "diag(p)")
wrong("softmax of a vector", "sign", lambda x: np.outer(p := softmax(x), p) - np.diag(p), "minus")

right("matrix times vector", lambda x, a: np.tanh(a @ x),
      lambda x, a: (1 - np.tanh(a @ x) ** 2)[:, None] * a, kind="jacobian", x="C", a="NC")
wrong("matrix times vector", "transposed", lambda x, a: ((1 - np.tanh(a @ x) ** 2)[:, None] * a).T,
      "(in, out) for (out, in)")
wrong("matrix times vector", "missing inner derivative", lambda x, a: a, "no tanh slope",
      held_out=True)
wrong("matrix times vector", "", lambda x, a: noise(a), "noise")
wrong("matrix times vector", "", lambda x, a: a * (1 + x), "nothing that has a name")

right("unit vector", lambda x: x / np.sqrt(x @ x),
      lambda x: (np.eye(len(x)) - np.outer(x, x) / (x @ x)) / np.sqrt(x @ x),
      kind="jacobian", x="N")
wrong("unit vector", "missing projection term", lambda x: np.eye(len(x)) / np.sqrt(x @ x),
      "norm held constant")
wrong("unit vector", "missing factor",
      lambda x: np.eye(len(x)) - np.outer(x, x) / (x @ x), "not divided by the norm",
      held_out=True)

right("Hessian of a quadratic", lambda x, a: 0.5 * x @ a @ x + np.exp(x).sum(),
      lambda x, a: 0.5 * (a + a.T) + np.diag(np.exp(x)), kind="hessian", x="N", a="NN")
wrong("Hessian of a quadratic", "symmetric only", lambda x, a: a + np.diag(np.exp(x)),
      "a not symmetrised")
wrong("Hessian of a quadratic", "constant factor",
      lambda x, a: a + a.T + 2 * np.diag(np.exp(x)), "1/2 lost", held_out=True)

right("double angle", lambda x: np.sin(2 * x), lambda x: 2 * np.sin(x) * np.cos(x),
      kind="identity", x="N")
wrong("double angle", "constant factor", lambda x: np.sin(x) * np.cos(x), "2 lost")
wrong("double angle", "sign", lambda x: -2 * np.sin(x) * np.cos(x), "minus", held_out=True)

right("centred tanh", lambda x: np.tanh(x - mean(x)),
      lambda g, x: (h := g * (1 - np.tanh(x - mean(x)) ** 2)) - mean(h), x="NC")
unusual("centred tanh", "centring matrix", lambda g, x: (
    g / np.cosh(x - mean(x)) ** 2 @ (np.eye(x.shape[1]) - 1 / x.shape[1])))
wrong("centred tanh", "square only",
      lambda g, x: (h := g * (1 - np.tanh(x - mean(x)) ** 2)) - rows(h) / len(x),
      "divided by the rows")
wrong("centred tanh", "missing mean term", lambda g, x: g * (1 - np.tanh(x - mean(x)) ** 2),
      "mean held constant", held_out=True)


# --- the figures ----------------------------------------------------------------------------------


def holds(entry: Entry) -> bool:
    """Judge's verdict; a claim that it refuses, for its shape or its error, does not hold."""
    try:
        return judge(entry.claim).holds
    except ValueError:
        return False


def figures() -> dict[str, Any]:
    """Every entry before judge and diagnose. misnamed: (claim, label, what diagnose said)."""
    right_ones = [*RIGHT.values(), *UNUSUAL]
    held = {id(e): holds(e) for e in [*right_ones, *WRONG]}
    said = {id(e): diagnose(e.claim).pattern for e in [*right_ones, *WRONG]}
    labelled = [e for e in WRONG if e.mistake]
    nameless = [e for e in WRONG if not e.mistake]
    return {
        "functions": len(RIGHT),
        "right, accepted": share(right_ones, lambda e: held[id(e)]),
        "right, no mistake named": share(right_ones, lambda e: not said[id(e)]),
        "wrong, rejected": share(WRONG, lambda e: not held[id(e)]),
        "wrong, named": share(labelled, lambda e: said[id(e)] == e.mistake),
        "of these tuned": share([e for e in labelled if not e.held_out],
                                lambda e: said[id(e)] == e.mistake),
        "of these held out": share([e for e in labelled if e.held_out],
                                   lambda e: said[id(e)] == e.mistake),
        "without a name, none found": share(nameless, lambda e: not said[id(e)]),
        "misjudged": [e.claim.name for e in [*right_ones, *WRONG]
                      if held[id(e)] != (e.mistake is None)],
        "misnamed": [(e.claim.name, e.mistake, said[id(e)]) for e in WRONG
                     if said[id(e)] != e.mistake],
    }


def share(entries: list[Entry], test: Callable[[Entry], bool]) -> tuple[int, int]:
    """(how many pass, of how many)."""
    return sum(map(bool, map(test, entries))), len(entries)


def show(found: dict[str, Any]) -> None:
    """Print the figures, and every mistake that was named differently from its label."""
    for name, value in found.items():
        if isinstance(value, tuple):
            print(f"{name:28} {value[0]:4} of {value[1]:4} {value[0] / value[1]:7.1%}")
        elif isinstance(value, int):
            print(f"{name:28} {value:4}")
    for claim in found["misjudged"]:
        print(f"  {claim}: judge is wrong about it")
    for claim, label, said in found["misnamed"]:
        print(f"  {claim}: {label or 'no name'}; diagnose says {said or 'no pattern found'}")


if __name__ == "__main__":
    show(figures())
