"""Attention: each query takes a mean of the values, weighted by how well their keys fit it.

`_attend` holds the arithmetic and its gradient. The public functions check what they are given,
decide which keys a query may see, and call it: the causal ones for a block of queries at a time.
"""

import functools
import math
from typing import Any

from minigpt import kernels, memory
from minigpt.backend import holds, row_dots, xp
from minigpt.functional import dropout_mask
from minigpt.positions import rotary
from minigpt.tensor import primitive

BLOCK = 64  # queries at a time: their scores fit a core's cache, and later keys cost nothing
KEPT = 512  # keys: the weights of longer contexts are computed anew in the backward pass


@primitive
def attention(q, k, v, *, bias=None, p=0.0, rng=None):
    """softmax(q k^T / sqrt(D) + bias) v: a mean of the values for each query.

    Shapes: q (..., Tq, D), k (..., Tk, D), v (..., Tk, Dv) -> (..., Tq, Dv). bias: a constant that
            broadcasts to (..., Tq, Tk), -inf forbids a key. p, rng: dropout of the weights.
    VJP:    dv = att^T g;  datt = g v^T;  ds = att * (datt - sum(datt * att)) per row;
            dq = ds k / sqrt(D);  dk = ds^T q / sqrt(D).
    Raises: ValueError if shapes do not fit, a query may see no key, or p is outside 0 <= p < 1.
            On a GPU the values of bias are not looked at: that would wait for it.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.1. Derived in
            chapters/07_scaled_dot_product_attention.
    """
    _check_shapes("attention", q, k, v)
    return _attend(q, k, v, _bias_of(q, k, bias), p, rng, causal=False)


@primitive
def causal_attention(q, k, v, *, bias=None, p=0.0, rng=None):
    """attention, where position t sees positions 0..t only.

    Shapes: q, k (..., T, D), v (..., T, Dv) -> (..., T, Dv). bias: a constant that broadcasts to
            (..., T, T), -inf forbids a key. p, rng: dropout of the weights, off without rng.
    VJP:    attention's: a forbidden key has weight 0, so its ds is 0 too.
    Raises: ValueError if shapes do not fit, a query may see no key, or p is outside 0 <= p < 1.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.3.
    """
    _check_shapes("causal_attention", q, k, v)
    T = q.shape[-2]
    if k.shape[-2] != T:
        raise ValueError(f"causal_attention: q {q.shape} and k {k.shape} must agree in T")
    bias = _bias_of(q, k, bias)
    if T <= BLOCK:
        return _attend(q, k, v, bias, p, rng, causal=True)
    out, blocks = memory.empty((*q.shape[:-1], v.shape[-1]), q.dtype), []
    for i in range(0, T, BLOCK):
        j = min(i + BLOCK, T)
        rows, keys = (..., slice(i, j), slice(None)), (..., slice(j), slice(None))
        part = None if bias is None else bias[..., i:j, :j]
        out[rows], block_vjp = _attend(q[rows], k[keys], v[keys], part, p, rng, causal=True)
        blocks.append((rows, keys, block_vjp))

    def vjp(g):
        dq, dk, dv = memory.like(q), xp.zeros_like(k), xp.zeros_like(v)
        for rows, keys, block_vjp in blocks:
            dq[rows], dk_part, dv_part = block_vjp(g[rows])
            dk[keys] += dk_part
            dv[keys] += dv_part
        return dq, dk, dv

    return out, vjp


def _attend(q: Any, k: Any, v: Any, bias: Any, p: float, rng: Any, causal: bool) -> tuple:
    """attention on arrays that fit one another: (out, vjp). In place on what is made here.

    causal: the queries are the last Tq positions, and see no later key.
    """
    scale = 1 / math.sqrt(q.shape[-1])  # D products of variance 1 sum to variance D
    q = memory.multiply(q, scale)  # (..., Tq, D), fewer numbers than the scores

    def weights():
        att = memory.matmul(q, k.swapaxes(-1, -2))  # (..., Tq, Tk), the scores at first
        if bias is not None:
            att += bias  # before the softmax, so that the weights of the rest still sum to 1
        if causal:  # only the last Tq keys can be later than a query
            att[..., -q.shape[-2] :] += _later(q.shape[-2], q.dtype)
        top = att.max(-1, keepdims=True)
        if bias is not None and not holds((top != -math.inf).all()):  # softmax of nothing: 0 / 0
            raise ValueError(f"bias {bias.shape} leaves a query no key to see: -inf in a whole row")
        return kernels.softmax(att, top)  # of att - top: exp cannot overflow

    att = weights()
    mask = dropout_mask(att, p, rng)
    out = memory.matmul(att if mask is None else att * mask, v)  # (..., Tq, Dv)
    kept = att if k.shape[-2] <= KEPT else None  # of a long context, computed once more

    def vjp(g):
        att = weights() if kept is None else kept
        ds = memory.matmul(g, v.swapaxes(-1, -2))  # (..., Tq, Tk), datt at first
        if mask is not None:
            ds *= mask
        # sum(datt * att) = sum(g * out): Dv numbers a row instead of Tk
        ds = kernels.softmax_vjp(ds, row_dots(g, out), att)
        dq = memory.matmul(ds, k)  # (..., Tq, D)
        dq *= scale
        dk = memory.matmul(ds.swapaxes(-1, -2), q)  # (..., Tk, D), q carries the scale
        dv = memory.matmul((att if mask is None else att * mask).swapaxes(-1, -2), g)
        return dq, dk, dv

    return out, vjp


@functools.lru_cache(maxsize=64)
def _later(n: int, dtype: Any) -> Any:
    """-inf where a key is later than its query, else 0: (n, n), not to be written to."""
    return xp.triu(xp.full((n, n), -math.inf, dtype), 1)


def _check_shapes(name: str, q: Any, k: Any, v: Any) -> None:
    """Nothing broadcasts among q, k and v, and there is a key to see."""
    fit = q.ndim == k.ndim == v.ndim >= 2 and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    fit = fit and q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2] > 0
    if not fit:
        raise ValueError(f"{name}: q {q.shape}, k {k.shape}, v {v.shape} must agree as "
                         f"(..., Tq, D), (..., Tk, D), (..., Tk, Dv) with Tk >= 1")  # fmt: skip


def _bias_of(q: Any, k: Any, bias: Any) -> Any:
    """bias in q's dtype, (..., Tq, Tk), if it broadcasts to that and is below inf; or None."""
    if bias is None:
        return None
    bias, scores = xp.asarray(bias), (*q.shape[:-1], k.shape[-2])
    lengths = zip(bias.shape[::-1], scores[::-1], strict=False)  # from the last axis on
    if bias.ndim > len(scores) or any(n not in (1, wanted) for n, wanted in lengths):
        raise ValueError(f"bias {bias.shape} does not broadcast to the scores {scores}")
    if bias.dtype.kind == "b" or not holds((bias < math.inf).all()):  # nor is NaN below inf
        raise ValueError("bias must be numbers below inf, -inf where a key is forbidden")
    return xp.broadcast_to(bias.astype(q.dtype), (*bias.shape[:-2], *scores[-2:]))


@primitive
def causal_self_attention(qkv, *, n_head, rope=False, bias=None, p=0.0, rng=None):
    """causal_attention in n_head heads, on q, k, v packed side by side as one product makes them.

    Shapes: qkv (B, T, 3C) -> (B, T, C), C = n_head * D. Head h has columns h*D..(h+1)*D of each.
            bias: a constant that broadcasts to (B, n_head, T, T). rope: q and k are turned first.
    VJP:    causal_attention's, written into one array of qkv's shape; then rotary's.
    Raises: ValueError if 3 * n_head does not divide the last length.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.2.
    """
    B, T, width = qkv.shape
    if n_head < 1 or width % (3 * n_head):
        raise ValueError(f"qkv of shape {qkv.shape} does not split into 3 * {n_head} heads")
    C, D = width // 3, width // (3 * n_head)

    def heads(x, n=3):  # (B, T, n * C) -> (n, B, H, T, D), a view
        return x.reshape(B, T, n, n_head, D).transpose(2, 0, 3, 1, 4)

    q, k, v = heads(qkv)
    if rope:
        (q, k), (turn_back,) = rotary.forward(heads(qkv)[:2])
    out, attention_vjp = causal_attention.forward(q, k, v, bias=bias, p=p, rng=rng)

    def vjp(g):
        dqkv = memory.like(qkv)
        parts = heads(dqkv)  # views of it
        parts[0], parts[1], parts[2] = attention_vjp(heads(g, 1)[0])
        if rope:
            parts[:2] = turn_back(parts[:2])
        return (dqkv,)

    return memory.copy(out.transpose(0, 2, 1, 3)).reshape(B, T, C), vjp
