"""Attention: each query takes a mean of the values, weighted by how well their keys fit it.

`_attend` holds the arithmetic, once. The public functions check what they are given, decide which
keys a query may see, and call it.
"""

import math
from typing import Any

from minigpt.backend import row_dots, row_sums, xp
from minigpt.functional import dropout_mask
from minigpt.tensor import primitive


@primitive
def attention(q, k, v, *, bias=None, p=0.0, rng=None):
    """softmax(q k^T / sqrt(D) + bias) v: a mean of the values for each query.

    Shapes: q (..., Tq, D), k (..., Tk, D), v (..., Tk, Dv) -> (..., Tq, Dv). bias: a constant that
            broadcasts to (..., Tq, Tk), -inf forbids a key. p, rng: dropout of the weights.
    VJP:    dv = att^T g;  datt = g v^T;  ds = att * (datt - sum(datt * att)) per row;
            dq = ds k / sqrt(D);  dk = ds^T q / sqrt(D).
    Raises: ValueError if shapes do not fit, a query may see no key, or p is outside 0 <= p < 1.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.1. Derived in
            chapters/07_scaled_dot_product_attention.
    """
    _check_shapes("attention", q, k, v)
    if bias is not None:
        nothing = xp.zeros(1, q.dtype)
        bias = _plus_bias(nothing, bias, scores=(*q.shape[:-1], k.shape[-2]))
    return _attend(q, k, v, bias, p, rng)


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
    mask = xp.triu(xp.full((T, T), -math.inf, dtype=q.dtype), 1)  # -inf above the diagonal
    if bias is not None:
        mask = _plus_bias(mask, bias, scores=(*q.shape[:-1], T))
    return _attend(q, k, v, mask, p, rng)


def _attend(q: Any, k: Any, v: Any, bias: Any, p: float, rng: Any) -> tuple:
    """attention on arrays that fit one another: (out, vjp). In place on what is made here."""
    scale = 1 / math.sqrt(q.shape[-1])  # D products of variance 1 sum to variance D
    q = q * scale  # (..., Tq, D), fewer numbers than the scores
    att = q @ k.swapaxes(-1, -2)  # (..., Tq, Tk), the scores at first
    if bias is not None:
        att += bias  # before the softmax, so that the weights of the rest still sum to 1
    att -= att.max(-1, keepdims=True)  # exp cannot overflow; the softmax does not notice
    xp.exp(att, out=att)
    att /= row_sums(att)
    mask = dropout_mask(att, p, rng)
    used = att if mask is None else att * mask
    out = used @ v  # (..., Tq, Dv)

    def vjp(g):
        ds = g @ v.swapaxes(-1, -2)  # (..., Tq, Tk), datt at first
        if mask is not None:
            ds *= mask
        ds -= row_dots(g, out)  # sum(datt * att) = sum(g * out): Dv numbers a row instead of Tk
        ds *= att
        dq = ds @ k  # (..., Tq, D)
        dq *= scale
        dk = ds.swapaxes(-1, -2) @ q  # (..., Tk, D), q carries the scale
        dv = used.swapaxes(-1, -2) @ g  # (..., Tk, Dv)
        return dq, dk, dv

    return out, vjp


def _check_shapes(name: str, q: Any, k: Any, v: Any) -> None:
    """Nothing broadcasts among q, k and v, and there is a key to see."""
    fit = q.ndim == k.ndim == v.ndim >= 2 and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    fit = fit and q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2] > 0
    if not fit:
        raise ValueError(f"{name}: q {q.shape}, k {k.shape}, v {v.shape} must agree as "
                         f"(..., Tq, D), (..., Tk, D), (..., Tk, Dv) with Tk >= 1")  # fmt: skip


def _plus_bias(mask: Any, bias: Any, scores: tuple[int, ...]) -> Any:
    """mask + bias in mask's dtype, if it broadcasts to the scores and leaves each query a key."""
    bias = xp.asarray(bias)
    lengths = zip(bias.shape[::-1], scores[::-1], strict=False)  # from the last axis on
    if bias.ndim > len(scores) or any(n not in (1, wanted) for n, wanted in lengths):
        raise ValueError(f"bias {bias.shape} does not broadcast to the scores {scores}")
    if bias.dtype.kind == "b" or not (bias < math.inf).all():  # nor is NaN below inf
        raise ValueError("bias must be numbers below inf, -inf where a key is forbidden")
    mask = mask + bias.astype(mask.dtype)
    if not (mask > -math.inf).any(-1).all():  # a softmax over nothing would be 0 / 0
        raise ValueError(f"bias {bias.shape} leaves a query no key to see: -inf in a whole row")
    return mask


@primitive
def causal_self_attention(qkv, *, n_head, bias=None, p=0.0, rng=None):
    """causal_attention in n_head heads, on q, k, v packed side by side as one product makes them.

    Shapes: qkv (B, T, 3C) -> (B, T, C), C = n_head * D. Head h has columns h*D..(h+1)*D of each.
            bias: a constant that broadcasts to (B, n_head, T, T).
    VJP:    causal_attention's, written into one array of qkv's shape.
    Raises: ValueError if 3 * n_head does not divide the last length.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.2.
    """
    B, T, width = qkv.shape
    if n_head < 1 or width % (3 * n_head):
        raise ValueError(f"qkv of shape {qkv.shape} does not split into 3 * {n_head} heads")
    C, D = width // 3, width // (3 * n_head)

    def heads(x):  # (B, T, 3C) -> (3, B, H, T, D), a view
        return x.reshape(B, T, 3, n_head, D).transpose(2, 0, 3, 1, 4)

    out, attention_vjp = causal_attention.forward(*heads(qkv), bias=bias, p=p, rng=rng)

    def vjp(g):
        dqkv = xp.empty_like(qkv)
        parts = attention_vjp(g.reshape(B, T, n_head, D).transpose(0, 2, 1, 3))
        for place, part in zip(heads(dqkv), parts, strict=True):
            place[...] = part
        return (dqkv,)

    return out.transpose(0, 2, 1, 3).reshape(B, T, C), vjp
