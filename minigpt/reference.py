"""Every fused function again, composed from ops: slow, obvious, and the oracle for the fused ones.

Same names, same arguments, same values; the gradient comes from the tape, not from a derivation.
"""

import math

from minigpt import ops
from minigpt.backend import xp
from minigpt.tensor import Tensor


def gelu(x, *, approximate="tanh"):
    """x * Phi(x), with erf by its series of positive terms, or GPT-2's tanh form."""
    if approximate == "tanh":
        u = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + ops.tanh(u))
    # erf(z) = 2/sqrt(pi) exp(-z^2) * (z + 2 z^3 / 3 + 4 z^5 / 15 + ...)
    z = x * (1 / math.sqrt(2))
    term = total = z
    for n in range(1, 120):
        term = term * z * z * (2 / (2 * n + 1))
        total = total + term
    return 0.5 * x * (1 + (2 / math.sqrt(math.pi)) * ops.exp(-z * z) * total)


def swiglu(gate, up):
    """gate / (1 + exp(-gate)) * up."""
    return gate / (1 + ops.exp(-gate)) * up


def softmax(x, *, axis=-1):
    """exp(x) / sum(exp(x))."""
    e = ops.exp(x - ops.max(x, axis=axis, keepdims=True))
    return e / ops.sum(e, axis=axis, keepdims=True)


def log_softmax(x, *, axis=-1):
    """x - logsumexp(x)."""
    return x - ops.logsumexp(x, axis=axis, keepdims=True)


def layer_norm(x, w, b, *, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * w + b."""
    mean, variance = (f(x, axis=-1, keepdims=True) for f in (ops.mean, ops.var))
    return (x - mean) / ops.sqrt(variance + eps) * w + b


def rms_norm(x, w, *, eps=1e-5):
    """x / sqrt(mean(x^2) + eps) * w."""
    return x / ops.sqrt(ops.mean(x * x, axis=-1, keepdims=True) + eps) * w


def embedding(w, idx):
    """One-hot rows times the table."""
    onehot = (xp.arange(len(w)) == xp.asarray(idx)[..., None]).astype(w.dtype)  # (..., V)
    return ops.matmul(onehot, w)


def dropout(x, *, p, rng):
    """x * mask / (1 - p), with the fused version's mask."""
    mask = xp.asarray(rng.random(x.shape, dtype="float32") >= p).astype(x.dtype)
    return x * mask / (1 - p)


def linear(x, w, b=None):
    """x @ w + b."""
    out = ops.matmul(x, w)
    return out if b is None else out + b


def attention(q, k, v, *, bias=None, p=0.0, rng=None):
    """softmax(q k^T / sqrt(D) + bias) v."""
    swap = (*range(q.ndim - 2), q.ndim - 1, q.ndim - 2)
    scores = ops.matmul(q, ops.transpose(k, axes=swap)) / math.sqrt(q.shape[-1])  # (..., Tq, Tk)
    att = softmax(scores if bias is None else scores + xp.asarray(bias, q.dtype))
    if rng is not None and p > 0:
        att = dropout(att, p=p, rng=rng)
    return ops.matmul(att, v)


def causal_attention(q, k, v, *, bias=None, p=0.0, rng=None):
    """attention with a bias of -inf for later keys."""
    past = xp.tri(q.shape[-2], dtype=bool)  # (T, T)
    bias = xp.where(past, 0.0 if bias is None else xp.asarray(bias), -math.inf)
    return attention(q, k, v, bias=bias, p=p, rng=rng)


def causal_self_attention(qkv, *, n_head, rope=False, bias=None, p=0.0, rng=None):
    """Split into heads, turn queries and keys, attend, join."""
    B, T, width = qkv.shape
    D = width // (3 * n_head)
    q, k, v = (
        part.reshape(B, T, n_head, D).transpose(0, 2, 1, 3)  # (B, H, T, D)
        for part in ops.split(qkv, 3, axis=-1)
    )
    if rope:
        q, k = rotary(q), rotary(k)
    out = causal_attention(q, k, v, bias=bias, p=p, rng=rng)
    return out.transpose(0, 2, 1, 3).reshape(B, T, n_head * D)


def rotary(x, *, base=10000.0, start=0):
    """x times one large matrix a position, with a 2 x 2 rotation for each pair on its diagonal."""
    T, D = x.shape[-2:]
    R = xp.zeros((T, D, D))
    for t in range(T):
        for i in range(0, D, 2):
            angle = (start + t) / base ** (i / D)
            cos, sin = math.cos(angle), math.sin(angle)
            R[t, i : i + 2, i : i + 2] = xp.asarray([[cos, sin], [-sin, cos]])  # acts on rows
    rows = x.reshape(*x.shape[:-1], 1, D)  # (..., T, 1, D)
    return ops.matmul(rows, R.astype(x.dtype)).reshape(x.shape)


def cross_entropy(logits, targets, *, ignore_index=None, label_smoothing=0.0):
    """Minus the mean log-probability, under the smoothed target distribution."""
    V = logits.shape[-1]
    t = xp.asarray(targets).reshape(-1)
    counted = xp.ones(t.shape, bool) if ignore_index is None else t != ignore_index
    onehot = (xp.arange(V) == t[:, None]).astype(logits.dtype)
    wanted = ((1 - label_smoothing) * onehot + label_smoothing / V) * counted[:, None]  # (N, V)
    logp = log_softmax(logits.reshape(-1, V))
    return -ops.sum(Tensor(wanted.astype(logits.dtype)) * logp) / int(counted.sum())
