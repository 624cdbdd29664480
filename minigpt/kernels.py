"""Fused kernels for a GPU: work of several array operations in one launch and one pass of memory.

On a GPU each operation of NumPy's style starts a kernel, which reads and writes its arrays once.
Elementwise work is bound by both, so what stands between two sums or products is one kernel here.

A kernel's formula is written once, as C that CuPy compiles. minigpt/strict reads the same text with
NumPy, so it is tested without a GPU. Two habits follow from C:
- A number such as 0.5 is a double, and makes a float kernel compute in double, on many GPUs 64
  times slower. So constants are arguments of type T, and whole numbers stand beside a T.
- An output may be an input's memory, and is then overwritten when it is assigned. So outputs are
  assigned last, and what they need twice goes into a new name first.
With NumPy nothing here is used but the plain versions: its in-place operations are the quicker.
"""

import math
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any

from minigpt.backend import column_dots, column_sums, row_dots, row_sums, xp

# name: (inputs, outputs, formula)
FORMULAS = {
    "gelu": (
        "T x, T linear, T cubic",
        "T y",
        "y = x / (1 + exp(-x * (linear + cubic * x * x)))",
    ),
    "gelu_vjp": (
        "T g, T x, T linear, T cubic, T slope",
        "T dx",
        """T s = 1 / (1 + exp(-x * (linear + cubic * x * x)));
        dx = g * (s * (1 + x * (linear + slope * x * x) * (1 - s)))""",
    ),
    "centre": ("T x, T total, T n", "T y", "y = x - total / n"),
    "rstd": ("T squares, T n, T eps", "T y", "y = 1 / sqrt(squares / n + eps)"),
    "norm": (
        "T x, T rstd, T w, T b",
        "T xhat, T y",
        "T scaled = x * rstd; y = scaled * w + b; xhat = scaled",
    ),
    "norm_vjp": (
        "T gw, T xhat, T rstd, T total, T projection, T n",
        "T dx",
        "dx = (gw - total / n - xhat * (projection / n)) * rstd",
    ),
    "exp_minus": ("T x, T top", "T y", "y = exp(x - top)"),
    "minus_times": ("T x, T y, T z", "T out", "out = (x - y) * z"),
    "cross_entropy_vjp": (
        "T logp, S column, U target, bool counted, T g, T n, T even, T peak",
        "T d",
        "d = (exp(logp) - even - (column == target) * peak) * (counted * (g / n))",
    ),
    "adam": (  # i: the element's place. 1 + (shrink - 1) is shrink, without rounding
        """T g, T m, T v, T x, T keep1, T new1, T keep2, T new2, T root, T eps, T rate,
        T shrink, int64 shrinking""",
        "T m_new, T v_new, T x_new",
        """T mean = m * keep1 + g * new1;
        T square = v * keep2 + g * g * new2;
        T kept = x * (1 + (i < shrinking) * (shrink - 1));
        m_new = mean; v_new = square;
        x_new = kept - mean / (sqrt(square) * root + eps) * rate""",
    ),
}
LINEAR = 2 * math.sqrt(2 / math.pi)  # GELU's 2u = x (LINEAR + CUBIC x^2)
CUBIC = LINEAR * 0.044715


def build(xp: Any) -> Any:
    """The kernels of FORMULAS as attributes; None if the array library has no kernels (NumPy)."""
    if not hasattr(xp, "ElementwiseKernel"):
        return None
    kernels = {
        name: xp.ElementwiseKernel(ins, outs, formula, f"minigpt_{name}")
        for name, (ins, outs, formula) in FORMULAS.items()
    }
    return SimpleNamespace(**kernels)


KERNELS = build(xp)


def fit(*arrays: Any) -> bool:
    """Whether these arrays have kernels: on a GPU, and all float32 or all float64."""
    if KERNELS is None or not all(isinstance(x, xp.ndarray) for x in arrays):
        return False
    return {x.dtype.char for x in arrays} in ({"f"}, {"d"})


def fused(on_gpu: Callable) -> Callable:
    """A decorator: on a GPU, use on_gpu instead, unless it returns None, for "not with these".

    Then the plain version computes, or says what was wrong. With NumPy it is left as it is.
    """

    def choose(plain: Callable) -> Callable:
        @wraps(plain)
        def forward(*arrays, **options):
            out = on_gpu(*arrays, **options)
            return plain(*arrays, **options) if out is None else out

        return plain if KERNELS is None else forward

    return choose


def gelu(x: Any, *, approximate: str = "tanh") -> Any:
    """functional.gelu's tanh form in a kernel each way; only x is kept. x any -> the same."""
    if approximate != "tanh" or not fit(x):
        return None

    def vjp(g):
        return (KERNELS.gelu_vjp(g, x, LINEAR, CUBIC, 3 * CUBIC),)

    return KERNELS.gelu(x, LINEAR, CUBIC), vjp


def layer_norm(x: Any, w: Any, b: Any, *, eps: float = 1e-5) -> Any:
    """functional.layer_norm: between its row sums, one kernel. x (..., C), w, b (C,) -> x's."""
    if not (fit(x, w, b) and x.ndim and w.shape == b.shape == x.shape[-1:] and eps >= 0):
        return None
    C, x_shape = x.shape[-1], x.shape
    x = x.reshape(-1, C)  # (N, C)
    xhat = KERNELS.centre(x, row_sums(x), C)
    rstd = KERNELS.rstd(row_dots(xhat, xhat), C, eps)  # (N, 1)
    xhat, out = KERNELS.norm(xhat, rstd, w, b, xhat, xp.empty_like(x))

    def vjp(g):
        g = g.reshape(-1, C)
        gw = g * w
        sums = row_sums(gw), row_dots(gw, xhat)  # (N, 1)
        dx = KERNELS.norm_vjp(gw, xhat, rstd, *sums, C, gw)
        return dx.reshape(x_shape), column_dots(g, xhat), column_sums(g)

    return out.reshape(x_shape), vjp


def softmax(x: Any, top: Any) -> Any:
    """exp(x - top), divided by its row sums, in x's memory. x (..., n), top (..., 1)."""
    if fit(x, top):
        KERNELS.exp_minus(x, top, x)
    else:
        x -= top
        xp.exp(x, out=x)
    x /= row_sums(x)
    return x


def softmax_vjp(g: Any, dots: Any, p: Any) -> Any:
    """(g - dots) * p, in g's memory: softmax's dx, dots = sum(g * p) a row. g, p (..., n)."""
    if fit(g, dots, p):
        return KERNELS.minus_times(g, dots, p, g)
    g -= dots
    g *= p
    return g


def cross_entropy_vjp(g: Any, logits: Any, logp: Any, t: Any, counted: Any, e: float, n: int):
    """dlogits of functional.cross_entropy in one kernel; n: how many targets are counted.

    Shapes: g (), logits (..., V), logp (N, V), t and counted (N,) -> (..., V).
    """
    if not fit(g, logp):
        return None
    V = logp.shape[1]
    columns = xp.arange(V), t[:, None], counted[:, None]
    return KERNELS.cross_entropy_vjp(logp, *columns, g, n, e / V, 1 - e).reshape(logits.shape)


def adam(optimizer: Any) -> None:
    """A step of optim.Adam or AdamW, all parameters in one kernel."""
    o, (b1, b2), t = optimizer, optimizer.betas, optimizer.steps
    scales = b1, 1 - b1, b2, 1 - b2, 1 / math.sqrt(1 - b2**t), o.eps, o.lr / (1 - b1**t)
    decay = 1 - o.lr * o.weight_decay, len(o.shrinking)
    KERNELS.adam(o.grad, o.m, o.v, o.data, *scales, *decay, o.m, o.v, o.data)
