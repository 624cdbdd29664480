"""The KV cache: generation that computes each token once.

A key and a value depend on the tokens up to theirs, never on a later one. So those of a text stay
right when it grows. Kept, they make the next token cost one token's work, and one look at them.

With one token at a time, the time goes into calls, not into sums. So this is the forward pass of
model.py once more, on plain arrays and with nothing kept for a backward pass. The tests hold it to
the model's own logits.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minigpt import kernels
from minigpt.backend import overflow_allowed, to_numpy, xp
from minigpt.model import GPT, CausalSelfAttention
from minigpt.nn import LayerNorm, Linear
from minigpt.positions import rotary


class KVCache:
    """The keys and values of several texts, in every layer, allocated once.

    rows: B, the number of texts. room: the tokens that each can have, at most block_size.
    Raises: ValueError if one of them does not fit.

    kv: for each layer (2, B, H, room, D), keys and values. length: for each text the tokens read.
    """

    def __init__(self, model: GPT, rows: int, room: int):
        c = model.config
        if rows < 1 or not 1 <= room <= c.block_size:
            raise ValueError(
                f"expected rows >= 1 and room in 1..{c.block_size}, got {rows} and {room}"
            )
        shape = (2, rows, c.n_head, room, c.n_embd // c.n_head)
        self.model, self.room, self.length = model, room, [0] * rows
        self.kv = [xp.zeros(shape, model.wte.weight.dtype) for _ in model.h]

    @property
    def nbytes(self) -> int:
        """Bytes: 2 (keys, values) * layers * rows * room * channels * bytes a number."""
        return sum(layer.nbytes for layer in self.kv)

    def take(self, rows: Sequence[int]) -> None:
        """Make row i what row rows[i] was. A row may serve several texts, or none."""
        self.kv = [layer[:, rows] for layer in self.kv]
        self.length = [self.length[row] for row in rows]

    def __call__(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Logits of the token after each text. Each continues the one of the last call.

        Shapes: B arrays (T_i,) int, whole texts -> (B, V).
        Raises: ValueError if there are not B of them, one has nothing new, or room runs out.

        The new parts may differ in length. Shorter ones are filled up at their ends, which no real
        token sees; and the next token overwrites what the filling left in the cache.
        """
        ends = [len(text) for text in texts]
        if len(ends) != len(self.length):
            raise ValueError(f"the cache holds {len(self.length)} texts, got {len(ends)}")
        new = [end - start for start, end in zip(self.length, ends, strict=True)]  # tokens
        if min(new) < 1 or max(self.length) + max(new) > self.room:
            raise ValueError(f"texts of {ends} tokens cannot continue those of {self.length} in a "
                             f"cache with room for {self.room}")  # fmt: skip
        idx = np.zeros((len(ends), max(new)), int)  # (B, T)
        for row, text, count in zip(idx, texts, new, strict=True):
            row[:count] = text[-count:]
        with overflow_allowed():  # in GELU's exponential, to inf, where the quotient is 0
            x = self._read(xp.asarray(idx))  # (B * T, C)
        self.length = ends
        if max(new) > 1:  # of each text, the last token's
            x = x[xp.asarray([row * max(new) + count - 1 for row, count in enumerate(new)])]
        return to_numpy(_layer_norm(self.model.ln_f, x) @ self.model.lm_head.weight.data.T)

    def _read(self, idx: Any) -> Any:
        """The residual stream after the blocks for new tokens. (B, T) -> (B * T, C)."""
        model, position, T = self.model, self.model.config.position, idx.shape[1]
        pos = xp.asarray(self.length)[:, None] + xp.arange(T)  # (B, T)
        x = model.wte.weight.data[idx]  # (B, T, C)
        if position in ("learned", "sinusoid"):
            x += (model.wpe.weight.data if position == "learned" else model.waves)[pos]
        x, bias = x.reshape(-1, x.shape[-1]), self._bias(pos)
        for block, kv in zip(model.h, self.kv, strict=True):
            x += self._attend(block.attn, _layer_norm(block.ln_1, x), kv, pos, bias)
            up = _linear(block.mlp.c_fc, _layer_norm(block.ln_2, x))  # (B * T, 4C)
            x += _linear(block.mlp.c_proj, _gelu(up))
        return x

    def _bias(self, pos: Any) -> Any:
        """-inf for later keys, ALiBi's distances: (B, H or 1, T, keys), or None if all are 0."""
        keys, bias = max(self.length) + pos.shape[1], None
        if pos.size > 1:  # else the one query comes after all keys
            later = xp.arange(keys) > pos[:, None, :, None]  # (B, 1, T, keys)
            bias = xp.where(later, xp.asarray(-math.inf, self.kv[0].dtype), 0)
        if self.model.config.position == "alibi":
            distances = self.model.distances[:, pos, :keys].swapaxes(0, 1)  # (B, H, T, keys)
            bias = distances if bias is None else bias + distances
        return bias

    def _attend(self, attn: CausalSelfAttention, x: Any, kv: Any, pos: Any, bias: Any) -> Any:
        """From the new tokens to all so far. x (B * T, C) -> (B * T, C)."""
        (B, T), D = pos.shape, kv.shape[-1]
        qkv = _linear(attn.c_attn, x).reshape(B, T, 3, -1, D).transpose(2, 0, 3, 1, 4)
        if attn.rope:
            qkv[:2] = rotary.forward(qkv[:2], start=pos[:, :1, None])[0]  # (2, B, H, T, D)
        for row, start in enumerate(self.length):
            kv[:, row, :, start : start + T] = qkv[1:, row]
        k, v = kv[:, :, :, : max(self.length) + T]  # (B, H, keys, D)
        q = qkv[0] * (1 / math.sqrt(D))  # (B, H, T, D)
        att = q @ k.swapaxes(-1, -2)  # (B, H, T, keys), the scores
        if bias is not None:
            att += bias
        att -= att.max(-1, keepdims=True)
        xp.exp(att, out=att)
        att /= att.sum(-1, keepdims=True)
        return _linear(attn.c_proj, (att @ v).swapaxes(1, 2).reshape(B * T, -1))


def _linear(layer: Linear, x: Any) -> Any:
    out = x @ layer.weight.data
    if layer.bias is not None:
        out += layer.bias.data
    return out


def _layer_norm(layer: LayerNorm, x: Any, eps: float = 1e-5) -> Any:
    if kernels.fit(x):
        b = layer._zero if layer.bias is None else layer.bias.data
        return kernels.layer_norm(x, layer.weight.data, b, eps=eps)[0]
    mean = _averaging(x.shape[-1], x.dtype)
    x = x - x @ mean  # a product is the quickest mean
    var = (x * x) @ mean
    var += eps
    x /= xp.sqrt(var)
    x *= layer.weight.data
    if layer.bias is not None:
        x += layer.bias.data
    return x


@lru_cache(maxsize=8)
def _averaging(C: int, dtype: Any) -> Any:
    return xp.full((C, 1), 1 / C, dtype)


def _gelu(x: Any) -> Any:
    """GPT-2's: x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3). Overwrites x."""
    if kernels.fit(x):
        return kernels.gelu(x)[0]
    s = x * x
    s *= -2 * math.sqrt(2 / math.pi) * 0.044715
    s -= 2 * math.sqrt(2 / math.pi)
    s *= x
    xp.exp(s, out=s)
    s += 1
    x /= s
    return x
