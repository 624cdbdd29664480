"""Fused primitives: the parts of a GPT whose backward pass is worth deriving by hand.

Each has a twin in reference.py, composed from ops, that must give the same values and gradients.
In-place work (`out=`, `+=`) is on arrays made here, never on an argument.
"""

import math
from typing import Any

from minigpt import backend, kernels, memory, ops  # noqa: F401 - ops binds Tensor's operators
from minigpt.backend import column_dots, column_sums, row_dots, row_sums, to_numpy, xp
from minigpt.erf import erf
from minigpt.tensor import primitive
from minigpt.wide import in_float32


@primitive
@in_float32
@kernels.fused(kernels.gelu)
def gelu(x, *, approximate="tanh"):
    """Gaussian error linear unit: x * P(N(0, 1) <= x), or GPT-2's tanh form of it.

    Shapes: x any -> the same.
    VJP:    "none": dx = g * (Phi(x) + x phi(x)).  "tanh": with s = 1 / (1 + exp(-2u)),
            u = sqrt(2/pi) (x + 0.044715 x^3):  dx = g * (s + 2 x s (1 - s) du/dx).
    Raises: ValueError if approximate is neither "tanh" nor "none".
    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415.
    """
    if approximate == "none":
        cdf = 0.5 * (1 + erf(x / math.sqrt(2)))
        return x * cdf, (lambda g: g * (cdf + x * xp.exp(-x * x / 2) / math.sqrt(2 * math.pi)),)
    if approximate != "tanh":
        raise ValueError(f"approximate must be 'tanh' or 'none', got {approximate!r}")
    linear, cubic = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715
    # 2u = x (linear + cubic x^2), and (1 + tanh u) / 2 = 1 / (1 + exp(-2u)): exp costs less.
    s = xp.asarray(memory.multiply(x, x))
    s *= -cubic
    s -= linear
    s *= x  # -2u
    with backend.overflow_allowed():  # to inf, where s is 0
        xp.exp(s, out=s)
    s += 1
    xp.divide(1, s, out=s)

    def vjp(g):
        dx = memory.multiply(x, x)
        dx *= -3 * cubic
        dx -= linear  # -2 du/dx
        dx *= x
        dx *= memory.subtract(s, 1)
        dx += 1
        dx *= s  # s + 2 x s (1 - s) du/dx
        dx *= g
        return (dx,)

    return memory.multiply(x, s), vjp


@primitive
def softmax(x, *, axis=-1):
    """exp(x) / sum(exp(x)) along an axis.

    Shapes: x any -> the same.
    VJP:    dx = p * (g - sum(g * p)): the Jacobian is diag(p) - p p^T.
    Source: Goodfellow et al. 2016, sec. 6.2.2.3.  Derived in chapters/03_softmax_cross_entropy.
    """
    p = xp.exp(x - x.max(axis=axis, keepdims=True))
    p /= p.sum(axis=axis, keepdims=True)
    return p, (lambda g: p * (g - (g * p).sum(axis=axis, keepdims=True)),)


@primitive
def log_softmax(x, *, axis=-1):
    """x - log(sum(exp(x))) along an axis, without overflow.

    Shapes: x any -> the same.
    VJP:    dx = g - softmax(x) * sum(g).
    Source: Goodfellow et al. 2016, sec. 6.2.2.3.  Derived in chapters/03_softmax_cross_entropy.
    """
    out = x - x.max(axis=axis, keepdims=True)
    out -= xp.log(xp.exp(out).sum(axis=axis, keepdims=True))
    return out, (lambda g: g - xp.exp(out) * g.sum(axis=axis, keepdims=True),)


@primitive
@in_float32
@kernels.fused(kernels.layer_norm)
def layer_norm(x, w, b, *, eps=1e-5):
    """Mean 0 and variance 1 along the last axis, then a gain w and an offset b.

    Shapes: x (..., C), w (C,), b (C,) -> (..., C).
    VJP:    dx = rstd * (gw - mean(gw) - xhat * mean(gw * xhat)),  gw = g * w;
            dw = sum of g * xhat, db = sum of g, both over all but the last axis.
    Raises: ValueError if w or b is not of x's last length, or eps is below 0.
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450.  Derived in chapters/11_layer_norm.
    """
    check_norm("layer_norm", x, eps, w, b)
    C, x_shape = x.shape[-1], x.shape
    x = x.reshape(-1, C)  # (N, C)
    xhat = memory.subtract(x, row_sums(x) / C)
    rstd = 1 / xp.sqrt(row_dots(xhat, xhat) / C + eps)  # (N, 1)
    xhat *= rstd
    out = memory.multiply(xhat, w)
    out += b

    def vjp(g):
        g = g.reshape(-1, C)
        dx = memory.multiply(g, w)  # gw
        mean, projection = row_sums(dx) / C, row_dots(dx, xhat) / C  # (N, 1)
        dx -= mean
        dx -= memory.multiply(xhat, projection)
        dx *= rstd
        return dx.reshape(x_shape), column_dots(g, xhat), column_sums(g)

    return out.reshape(x_shape), vjp


def check_norm(name: str, x: Any, eps: float, *weights: Any) -> None:
    """Weights of x's last length, and an eps under which no square root can fail."""
    if any(p.shape != x.shape[-1:] for p in weights):
        raise ValueError(f"{name}: x {x.shape} needs weights of {x.shape[-1:]}, "
                         f"got {', '.join(str(p.shape) for p in weights)}")  # fmt: skip
    if not eps >= 0:
        raise ValueError(f"{name}: eps must be at least 0, got {eps}")


@primitive
def embedding(w, idx):
    """Rows of a table: out[..., :] = w[idx[...], :].

    Shapes: w (V, C), idx (...) int, 0 <= idx < V  ->  (..., C).
    VJP:    dw[v] = sum of g over every place where idx == v: repeated ids add up.
    Raises: ValueError if an id is no integer or out of range.
    Source: Bengio et al. 2003, JMLR 3.
    """
    backend.check_ids("idx", idx, len(w))  # before they may cross to a GPU
    idx = xp.asarray(idx)
    V, C = w.shape
    return w[idx], (lambda g: backend.scatter_add(idx.reshape(-1), g.reshape(-1, C), V), None)


@primitive
def dropout(x, *, p, rng):
    """Each element is 0 with probability p, else divided by 1 - p, so that the mean is kept.

    Shapes: x any -> the same. rng: a NumPy generator; None drops nothing.
    VJP:    dx = g * mask / (1 - p), with the mask of the forward pass.
    Raises: ValueError if p is outside 0 <= p < 1.
    Source: Srivastava et al. 2014, JMLR 15 (their p is the probability of keeping).
    """
    mask = dropout_mask(x, p, rng)
    return (x, (lambda g: g,)) if mask is None else (x * mask, (lambda g: g * mask,))


def dropout_mask(x: Any, p: float, rng: Any) -> Any:
    """0 with probability p, else 1 / (1 - p), like x; or None, if nothing is dropped."""
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in 0 <= p < 1, got {p}")
    if rng is None or p == 0:
        return None
    keep = rng.random(x.shape, dtype="float32") >= p  # on the host, so that backends agree
    return xp.asarray(keep).astype(x.dtype) * (1 / (1 - p))


@primitive
def linear(x, w, b=None):
    """x @ w + b.

    Shapes: x (..., n), w (n, m), b (m,) -> (..., m).
    VJP:    dx = g @ w^T, dw = x^T @ g, db = sum of g, over all but the last axis.
    Raises: ValueError if the lengths n or m differ.
    Source: Goodfellow et al. 2016, sec. 6.5.6.
    """
    if x.shape[-1] != w.shape[0] or (b is not None and b.shape != w.shape[1:]):
        raise ValueError(f"linear: x {x.shape}, w {w.shape} and b do not fit")
    x_shape, m, rows = x.shape, w.shape[1], x.reshape(-1, len(w))  # (N, n): one product for all
    out = memory.matmul(rows, w)
    if b is not None:
        out += b
    return out.reshape(*x_shape[:-1], m), (
        lambda g: memory.matmul(g.reshape(-1, m), w.T).reshape(x_shape),
        lambda g: memory.matmul(rows.T, g.reshape(-1, m)),
        lambda g: column_sums(g.reshape(-1, m)),
    )


@primitive
def cross_entropy(logits, targets, *, ignore_index=None, label_smoothing=0.0):
    """Mean negative log-likelihood, in nats per token.

    Shapes: logits (..., V) float; targets (...) int, 0 <= t < V  ->  () of logits' dtype.
            Targets equal to ignore_index do not count. label_smoothing e: the target
            distribution is (1 - e) onehot + e / V.
    VJP:    dlogits = g * (softmax(logits) - target distribution) / N,  N = counted targets.
    Raises: ValueError if shapes disagree, a target or e is out of range, or no target counts.
    Source: Goodfellow et al. 2016, sec. 6.2.2.3; smoothing: arXiv:1512.00567, sec. 7. Derived in
            chapters/03_softmax_cross_entropy.
    """
    targets = to_numpy(targets)  # to be looked at; they come from the host
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"logits {logits.shape} need targets {logits.shape[:-1]}, "
                         f"got {targets.shape}")  # fmt: skip
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in 0..1, got {label_smoothing}")
    V = logits.shape[-1]
    flat, t = logits.reshape(-1, V), targets.reshape(-1)  # (N, V), (N,)
    counted = t == t if ignore_index is None else t != ignore_index
    t = t * counted
    backend.check_ids("targets", t, V)
    N = int(counted.sum())
    if N == 0:
        raise ValueError("cross_entropy: no target counts")
    t, counted = xp.asarray(t), xp.asarray(counted)
    logp = memory.subtract(flat, flat.max(-1, keepdims=True))
    logp -= xp.log(xp.exp(logp, out=memory.like(logp)).sum(-1, keepdims=True))
    rows, e = xp.arange(len(t)), label_smoothing
    nll = -logp[rows, t]  # (N,)
    if e:
        nll = (1 - e) * nll - e * logp.mean(-1)

    @kernels.fused(lambda g: kernels.cross_entropy_vjp(g, logits, logp, t, counted, e, N))
    def dlogits(g):
        d = memory.subtract(xp.exp(logp, out=memory.like(logp)), e / V)
        d[rows, t] -= 1 - e  # each row once
        d *= counted[:, None] * (g / N)
        return d.reshape(logits.shape)

    return xp.where(counted, nll, 0).sum() / N, (dlogits, None)
