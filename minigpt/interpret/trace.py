"""One pass of a GPT over one text, with everything on the way kept.

Nothing is computed twice in another way: the model's own blocks run, and each writes down what it
was given, where its heads look, and what it returns.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt import functional as F
from minigpt.attention import causal_attention
from minigpt.backend import to_numpy, xp
from minigpt.decoding import log_probs
from minigpt.model import GPT, Block, CausalSelfAttention
from minigpt.positions import rotary
from minigpt.tensor import Tensor, no_grad


@dataclass(frozen=True)
class Trace:
    """What happened, in the model's dtype: T tokens, L layers of H heads, C channels, V tokens.

    idx (T,) int: the tokens. logits (T, V): of the token after each position.
    att (L, H, T, T): the weight that a query (row) gives to each key; a row sums to 1.
    stream (L + 1, T, C): the residual stream before the first block and after each.
    """

    model: GPT
    idx: np.ndarray
    logits: np.ndarray
    att: np.ndarray
    stream: np.ndarray

    def lens(self, layer: int) -> np.ndarray:
        """What the model would say if it ended after this many blocks: the logit lens.

        The last norm and the head read the stream as if it were finished. It is the sum of what
        the blocks add, so they can; but only the last one was trained to be read so.
        Shapes: 0 <= layer <= L -> (T, V) float64, log-probabilities in nats.
        Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
        """
        if not 0 <= layer < len(self.stream):
            raise ValueError(f"layer must be in 0..{len(self.stream) - 1}, got {layer}")
        with no_grad():  # one layer at a time: V numbers a position are many
            x = self.model.ln_f(Tensor(xp.asarray(self.stream[layer])))  # (T, C)
            logits = F.linear(x, self.model.lm_head.weight.T)  # (T, V)
        return log_probs(to_numpy(logits.data))


def trace(model: GPT, idx: Any) -> Trace:
    """Run the model on one text, without dropout, and keep what happens.

    Shapes: idx (T,) int, 1 <= T <= block_size.
    Raises: ValueError if idx is not such, or the logits are not finite.
    """
    idx = to_numpy(idx)
    if idx.ndim != 1:
        raise ValueError(f"idx must be one text, (T,), got shape {idx.shape}")
    noting: Any = copy(model)  # the same parameters; the model itself is left as it is
    noting.h = [_Noting(block) for block in model.h]
    with no_grad(), np.errstate(all="ignore"):  # what is not finite is told below, once
        logits = to_numpy(noting(idx[None]).data)[0]  # (T, V)
    if not np.isfinite(logits).all():
        raise ValueError("the model's logits are not finite: has its training diverged?")
    stream = [noting.h[0].entered, *(block.left for block in noting.h)]
    att = [block.att for block in noting.h]
    return Trace(model, idx, logits, np.concatenate(att), np.concatenate(stream))


class _Noting:
    """A block that keeps what passes through it, as arrays: entered, left (1, T, C), att."""

    def __init__(self, block: Block):
        self.block = block

    def __call__(self, x: Tensor, rng=None, bias=None) -> Tensor:
        self.entered = to_numpy(x.data)
        self.att = to_numpy(attention_weights(self.block.attn, self.block.ln_1(x), bias).data)
        out = self.block(x, rng, bias)
        self.left = to_numpy(out.data)
        return out


def attention_weights(attn: CausalSelfAttention, x: Tensor, bias: Any = None) -> Tensor:
    """The weights of every head, by the package's own attention.

    Attention returns a mean of the values. With a value of its own for each key, the rows of the
    identity, that mean is the list of the weights.
    Shapes: x (B, T, C), normalised -> (B, H, T, T). bias: what is added to the scores.
    """
    B, T, _ = x.shape
    qkv = attn.c_attn(x).reshape(B, T, 3, attn.n_head, -1).transpose(2, 0, 3, 1, 4)
    q, k = qkv[0], qkv[1]  # (B, H, T, D)
    if attn.rope:
        q, k = rotary(q), rotary(k)
    eye = xp.broadcast_to(xp.eye(T, dtype=x.dtype), (B, attn.n_head, T, T))
    return causal_attention(q, k, eye, bias=bias)
