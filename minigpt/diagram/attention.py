"""What a fused attention is made of: its steps, run one by one on the arrays that it was given.

The tape has one node for all of them. A step is drawn only if these steps, with it, give what that
node gave: whether there is a mask is measured, not read off the primitive's name.
"""

import math
from dataclasses import dataclass
from typing import Any

from minigpt.backend import xp
from minigpt.diagram.tape import Step
from minigpt.positions import rotary
from minigpt.tensor import Tensor

FUSED = ("attention", "causal_attention", "causal_self_attention")


@dataclass(frozen=True)
class Part:
    """One step. reads: what it takes: "q", "k", "v", "bias", or an earlier part, by its title."""

    title: str
    reads: tuple[str, ...]
    out: Any


HEADS, SCORES, BIAS, MASK = "split into heads", "q kᵀ / √D", "+ bias", "causal mask"
SOFTMAX, DROP, MIX, JOIN = "softmax", "dropout", "att v", "join heads"
TURN = "rotary"


def parts_of(step: Step) -> list[Part]:
    """The steps of one attention, in order.

    Raises: ValueError if they do not give what the primitive gave.
    """
    T = list(step.inputs.values())[0].shape[-2]
    later = xp.triu(xp.ones((T, T), bool), 1)  # the keys that lie ahead of each query
    bias = step.options.get("bias")
    forbidden = xp.zeros(1, bool) if bias is None else xp.asarray(bias) == -math.inf
    for mask in (forbidden | later, forbidden):
        parts = _run(step, mask)
        error = abs(parts[-1].out - step.out.data).max()
        if error <= 1e-4 * abs(step.out.data).max():
            return parts
    raise ValueError(f"{step.op} in {step.module} does not compute softmax(q k^T / sqrt(D)) v")


def _run(step: Step, forbidden: Any) -> list[Part]:
    data = {name: _array(x) for name, x in step.inputs.items()}
    parts = []

    def part(title: str, reads: tuple[str, ...], out: Any) -> Any:
        parts.append(Part(title, reads, out))
        return out

    packed = step.op == "causal_self_attention"
    if packed:
        qkv, n_head = data["qkv"], step.options["n_head"]
        B, T, width = qkv.shape
        heads = qkv.reshape(B, T, 3, n_head, -1).transpose(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        data = dict(zip("qkv", part(HEADS, ("qkv",), heads), strict=True))
    made = {name: HEADS if packed else name for name in "qkv"}  # who gives q, k and v
    q, k, v = (data[name] for name in "qkv")
    if step.options.get("rope"):
        q, k = part(TURN, (HEADS,), rotary.forward(xp.stack([q, k]))[0])
        made |= {"q": TURN, "k": TURN}
    att = part(SCORES, (made["q"], made["k"]), q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
    if (bias := _finite(step.options.get("bias"), att.dtype)) is not None:
        att = part(BIAS, (SCORES, "bias"), att + bias)
    if forbidden.any():
        att = part(MASK, (parts[-1].title,), xp.where(forbidden, -math.inf, att))
    att = xp.exp(att - att.max(-1, keepdims=True))
    att = part(SOFTMAX, (parts[-1].title,), att / att.sum(-1, keepdims=True))
    if (p := step.options.get("p", 0)) and step.options.get("rng"):  # KeepAll drops nothing
        att = part(DROP, (SOFTMAX,), att / (1 - p))
    out = part(MIX, (parts[-1].title, made["v"]), att @ v)
    if packed:
        part(JOIN, (MIX,), out.transpose(0, 2, 1, 3).reshape(B, T, width // 3))
    return parts


def _array(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else xp.asarray(x)


def _finite(bias: Any, dtype: Any) -> Any:
    """What a bias adds to the scores that it does not forbid, or None if that is nothing."""
    if bias is None:
        return None
    bias = xp.asarray(bias).astype(dtype)
    bias = xp.where(bias == -math.inf, 0, bias)
    return bias if bias.any() else None
