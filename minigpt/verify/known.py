"""Known operations, term by term, and the wrong forms that are often written for them.

A function under test is recognised by its values. Its true gradient is a sum of named terms, so a
wrong one that lies in their span says itself which term is missing, doubled or of the wrong sign.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

# For each differentiated argument: its terms by name, and wrong forms as (pattern, what, values).
Parts = list[tuple[dict[str, np.ndarray], list[tuple[str, str, np.ndarray]]]]


@dataclass(frozen=True)
class Known:
    """An operation: its value, and parts(g, *args) of its gradient."""

    name: str
    chapter: str
    value: Callable[..., Any]
    parts: Callable[..., Parts]


def _rows(x, axis=-1):
    return x.sum(axis, keepdims=True)


def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _turn(x):
    return x.swapaxes(-1, -2)


def _down(x, like):
    """Sum the leading axes away, as un-broadcasting to like's shape does."""
    return x.sum(tuple(range(x.ndim - np.ndim(like))))


# --- softmax and its family -----------------------------------------------------------------------


def _softmax_parts(g, x):
    p = _softmax(x)
    wrong = [("diagonal only", "g p (1 - p): the Jacobian's diagonal", g * p * (1 - p))]
    if x.ndim > 1:
        wrong.append(("wrong axis", "the row sum over axis 0", p * (g - _rows(g * p, 0))))
    return [({"diagonal": p * g, "row sum": -p * _rows(g * p)}, wrong)]


def _log_softmax(x):
    return x - x.max(-1, keepdims=True) - np.log(_rows(np.exp(x - x.max(-1, keepdims=True))))


def _log_softmax_parts(g, x):
    p = _softmax(x)
    wrong = [("diagonal only", "g (1 - p): the Jacobian's diagonal", g * (1 - p)),
             ("missing factor in a term", "the row sum of g without its factor p",
              g - _rows(g))]  # fmt: skip
    return [({"diagonal": g + 0 * x, "row sum": -p * _rows(g)}, wrong)]


def _logsumexp_parts(g, x):
    column = np.expand_dims(g, -1)
    wrong = [("wrong axis", "softmax over axis 0", column * _softmax(x, 0))]
    return [({"softmax": column * _softmax(x)}, wrong)]


def _cross_entropy(x, t):
    return -np.take_along_axis(_log_softmax(x), t[..., None], -1).mean()


def _cross_entropy_parts(g, x, t):
    onehot = np.arange(x.shape[-1]) == t[..., None]
    wrong = [("wrong axis", "softmax over axis 0", g * (_softmax(x, 0) - onehot) / t.size)]
    return [({"row sum": g * _softmax(x) / t.size, "one-hot": -g * onehot / t.size}, wrong)]


def _past(x):
    return np.where(np.tri(*x.shape[-2:]) > 0, x, -math.inf)


def _masked_parts(g, x):
    p, all_p, keep = _softmax(_past(x)), _softmax(x), np.tri(*x.shape[-2:])
    late = all_p * (keep * g - _rows(keep * g * all_p))
    free = all_p * (g - _rows(g * all_p))
    wrong = [("mask after softmax", "the derivative of the mask times softmax(x)", late),
             ("missing mask", "softmax's gradient without a mask", free)]  # fmt: skip
    return [({"diagonal": p * g, "row sum": -p * _rows(g * p)}, wrong)]


# --- attention ------------------------------------------------------------------------------------


def _attention(q, k, v, causal, scaled):
    return _weights(q, k, causal, scaled)[0] @ v


def _weights(q, k, causal, scaled):
    scale = 1 / math.sqrt(q.shape[-1]) if scaled else 1.0
    scores = q @ _turn(k) * scale
    return _softmax(_past(scores) if causal else scores), scale


def _attention_parts(g, q, k, v, causal, scaled):
    p, scale = _weights(q, k, causal, scaled)
    dp = g @ _turn(v)
    pieces = {"diagonal": p * dp * scale, "row sum": -p * _rows(dp * p) * scale}
    scores = [("diagonal only", "p (1 - p): the softmax's diagonal", p * (1 - p) * dp * scale),
              ("wrong axis", "the softmax's row sum over the queries",
               p * (dp - _rows(dp * p, -2)) * scale)]  # fmt: skip
    values = []
    if causal:
        free, keep = _weights(q, k, False, scaled)[0], np.tri(*p.shape[-2:])
        late = free * (keep * dp - _rows(keep * dp * free)) * scale
        what = "the derivative of the mask times softmax(scores)"
        scores.append(("mask after softmax", what, late))
        scores.append(("missing mask", "no mask", free * (dp - _rows(dp * free)) * scale))
        values.append(("mask after softmax", what, _turn(keep * free) @ g))
        values.append(("missing mask", "no mask in the weights", _turn(free) @ g))
    if p.shape[-1] == p.shape[-2]:
        values.append(("transposed", "p g, where its transpose belongs", p @ g))
    return [
        ({a: d @ k for a, d in pieces.items()}, [(a, b, d @ k) for a, b, d in scores]),
        ({a: _turn(d) @ q for a, d in pieces.items()},
         [(a, b, _turn(d) @ q) for a, b, d in scores]
         + ([("transposed", "ds q, where its transpose belongs", sum(pieces.values()) @ q)]
            if p.shape[-1] == p.shape[-2] else [])),
        ({"values": _turn(p) @ g}, values),
    ]  # fmt: skip


# --- normalisations -------------------------------------------------------------------------------


def _moments(x, axis, eps, centred):
    """(xhat, 1 / scale) with the mean taken off or not."""
    mean = x.mean(axis, keepdims=True) if centred else 0.0
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axis, keepdims=True) + eps)
    return (x - mean) * rstd, rstd


def _normalise(x, w=1.0, b=0.0, *, axis, eps, centred):
    return _moments(x, axis, eps, centred)[0] * w + b


def _normalise_parts(g, x, w=None, b=None, *, axis, eps, centred):
    xhat, rstd = _moments(x, axis, eps, centred)
    gw, n = g * (1.0 if w is None else w), x.shape[axis]
    terms = {"direct": rstd * gw,
             "projection": -rstd * xhat * (gw * xhat).mean(axis, keepdims=True)}  # fmt: skip
    if centred:
        terms["mean"] = -rstd * gw.mean(axis, keepdims=True) + 0 * x
    dx = sum(terms.values())
    biased = np.sqrt((n - 1) / n)
    wrong = [("missing factor", "no 1 / std in front", dx / rstd),
             ("missing factor", "1 / std twice", dx * rstd),
             ("n - 1 for n", "the variance divided by n - 1", dx * biased)]  # fmt: skip
    parts: Parts = [(terms, wrong)]
    if w is not None:
        gain = [("missing factor", "g alone, without xhat", _down(g, w)),
                ("missing factor", "x, where x / scale belongs", _down(g * x, w))]  # fmt: skip
        if x.ndim > 1:
            other = _moments(x, 0 if axis == -1 else -1, eps, centred)[0]
            gain.append(("wrong axis", "x normalised along the other axis", _down(g * other, w)))
        parts.append(({"gain": _down(g * xhat, w)}, gain))
    if b is not None:
        parts.append(({"bias": _down(g, b)}, []))
    return parts


def _unit(x):
    return x / np.sqrt(_rows(x * x))


def _unit_parts(g, x):
    norm, y = np.sqrt(_rows(x * x)), _unit(x)
    terms = {"direct": g / norm, "projection": -y * _rows(g * y) / norm}
    return [(terms, [("missing factor", "not divided by the norm", sum(terms.values()) * norm)])]


# --- the rest -------------------------------------------------------------------------------------

_U, _CUBIC = math.sqrt(2 / math.pi), 0.044715


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(_U * (x + _CUBIC * x**3)))


def _gelu_parts(g, x):
    t = np.tanh(_U * (x + _CUBIC * x**3))
    gate, slope = 0.5 * (1 + t), 0.5 * x * (1 - t * t) * _U
    terms = {"gate": g * gate, "slope": g * slope, "cubic": g * slope * 3 * _CUBIC * x * x}
    held = "0.5 x times the derivative of 1 + tanh(u) is missing"
    return [(terms, [
        ("missing product-rule branch", held, terms["gate"]),
        ("missing product-rule branch", "0.5 (1 + tanh(u)) is missing",
         terms["slope"] + terms["cubic"]),
        ("missing inner derivative", "x^3 in u is held constant", terms["gate"] + terms["slope"]),
        ("missing inner derivative", "x^3 in u is derived as x^2, without its 3",
         terms["gate"] + terms["slope"] + terms["cubic"] / 3),
    ])]  # fmt: skip


def _matmul_parts(g, x, w):
    wrong: list[list] = [[], []]
    if x.ndim == w.ndim == 2 and w.shape[0] == w.shape[1]:
        wrong[0].append(("wrong order", "w^T g, where g w^T belongs", w.T @ g)
                        if len(g) == len(w) else ("transposed", "g w", g @ w))  # fmt: skip
    if g.shape == x.shape == w.shape:
        wrong[1].append(("wrong order", "g x^T, where x^T g belongs", g @ x.T))
    return [({"product": g @ _turn(w)}, wrong[0]), ({"product": _down(_turn(x) @ g, w)}, wrong[1])]


KNOWN = [
    Known("softmax", "03_softmax_cross_entropy", _softmax, _softmax_parts),
    Known("log_softmax", "03_softmax_cross_entropy", _log_softmax, _log_softmax_parts),
    Known("logsumexp", "03_softmax_cross_entropy",
          lambda x: (x - _log_softmax(x))[..., 0], _logsumexp_parts),
    Known("cross-entropy", "03_softmax_cross_entropy", _cross_entropy, _cross_entropy_parts),
    Known("causal softmax", "07_scaled_dot_product_attention",
          lambda x: _softmax(_past(x)), _masked_parts),
    Known("unit vectors", "11_layer_norm", _unit, _unit_parts),
    Known("gelu", "00_gradient_checks", _gelu, _gelu_parts),
    Known("matmul", "00_gradient_checks", lambda x, w: x @ w, _matmul_parts),
]  # fmt: skip
for _causal in (False, True):
    for _scaled in (True, False):
        _how = dict(causal=_causal, scaled=_scaled)
        KNOWN.append(Known("causal attention" if _causal else "attention",
                           "07_scaled_dot_product_attention", partial(_attention, **_how),
                           partial(_attention_parts, **_how)))  # fmt: skip
for _name, _axis, _centred in (("layer norm", -1, True), ("RMS norm", -1, False),
                               ("batch norm", 0, True)):  # fmt: skip
    for _eps in (1e-5, 1e-6, 1e-8, 1e-12, 1e-3, 0.0):
        _with = dict(axis=_axis, eps=_eps, centred=_centred)
        KNOWN.append(Known(_name, "11_layer_norm", partial(_normalise, **_with),
                           partial(_normalise_parts, **_with)))  # fmt: skip


def recognised(draws: list[tuple[list[Any], np.ndarray]]) -> Iterator[Known]:
    """The known operations with the values of the function under test, on every (args, out)."""
    for known in KNOWN:
        if all(_same(known.value, args, out) for args, out in draws):
            yield known


def _same(value: Callable, args: list[Any], out: np.ndarray) -> bool:
    try:
        with np.errstate(all="ignore"):
            own = np.asarray(value(*args))
    except Exception:  # other arguments than this operation takes
        return False
    return own.shape == out.shape and bool(np.allclose(own, out, rtol=1e-9, atol=1e-9))
