"""Llama's architecture: what changed in language models between GPT-2 and today, in one file.

Attribute names are those of Llama's published code, so that a stranger finds his way:

    tok_embeddings          token embedding; the head is it again, unless tied is False  (V, C)
    layers                  the list of blocks
    attention_norm          RMS norm before attention                                    (C,)
    attention.wq, wk, wv    x -> queries; keys; values: fewer heads of these two         (C, .)
    attention.wo            joined heads -> residual stream                              (C, C)
    ffn_norm                RMS norm before the MLP                                      (C,)
    feed_forward.w1, w3     up: the gate, and what it lets through                       (C, F)
    feed_forward.w2         down, into the residual stream                               (F, C)
    norm                    the last RMS norm                                            (C,)
    output                  the head, where tied is False                                (C, V)

Shapes: B batch, T time, C channels, H query heads in K groups of G = H / K, D = C / H head size,
F channels inside the MLP, V vocabulary.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from minigpt import functional as F
from minigpt.attention import attention
from minigpt.backend import overflow_allowed, to_numpy, xp
from minigpt.model import option
from minigpt.nn import Embedding, Linear, Module, parameter
from minigpt.ops import broadcast_to, concatenate
from minigpt.positions import rotary
from minigpt.tensor import Tensor, no_grad, primitive
from minigpt.variants.norms import rms_norm
from minigpt.wide import in_float32


@dataclass(frozen=True)
class LlamaConfig:
    """Model; by default the published one of stories. Raises ValueError if sizes do not fit."""

    vocab_size: int = option(512, "distinct tokens")
    block_size: int = option(512, "longest context, in tokens")
    n_layer: int = option(5, "blocks")
    n_head: int = option(8, "heads of queries a block")
    n_kv_head: int = option(4, "heads of keys and values, shared by the others")
    n_embd: int = option(64, "channels of the residual stream")
    n_hidden: int = option(172, "channels inside the MLP")
    tied: bool = option(True, "the head is the embedding again")

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_kv_head", "n_embd",
                     "n_hidden"):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.n_embd % (2 * self.n_head):  # rotary turns pairs of a head's channels
            raise ValueError(f"n_embd {self.n_embd} must be an even multiple of n_head "
                             f"{self.n_head}")  # fmt: skip
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head {self.n_head} must be a multiple of n_kv_head "
                             f"{self.n_kv_head}")  # fmt: skip


@primitive
@in_float32
def swiglu(gate, up):
    """gate * sigmoid(gate) * up: one half of the channels decides how much of the other passes.

    Shapes: gate, up any, alike -> the same.
    VJP:    with s = sigmoid(gate):  dgate = g * up * (s + gate * s * (1 - s));
            dup = g * gate * s.
    Raises: ValueError if the shapes differ.
    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if gate.shape != up.shape:
        raise ValueError(f"swiglu: gate {gate.shape} and up {up.shape} must be of one shape")
    with overflow_allowed():  # to inf, where s is 0
        s = 1 / (1 + xp.exp(-gate))
    silu = gate * s
    return silu * up, (lambda g: g * up * (s + silu * (1 - s)), lambda g: g * silu)


class RMSNorm(Module):
    """x (..., C) -> the same, of mean square 1, times a gain that starts at 1."""

    def __init__(self, C: int, dtype="float32"):
        self.weight = parameter(xp.ones(C), dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight)


class Past:
    """The keys and values of the positions so far, in one layer: (B, K, 1, length, D) each."""

    k: Tensor
    v: Tensor

    def __init__(self):
        self.length = 0

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of the next positions. Returns those of all."""
        if self.length:
            k, v = concatenate(self.k, k, axis=-2), concatenate(self.v, v, axis=-2)
        self.k, self.v, self.length = k, v, k.shape[-2]
        return k, v


class Attention(Module):
    """Causal attention in H heads of queries and K of keys and values. (B, T, C) -> (B, T, C).

    Query heads hG to hG + G - 1 look at key head h. In generation, all keys and values so far have
    to be kept and read again for each token: a G-th of the heads is a G-th of that memory.
    Source: Ainslie et al. 2023, arXiv:2305.13245.
    """

    def __init__(self, config: LlamaConfig, rng, dtype):
        C, self.n_kv_head, self.D = config.n_embd, config.n_kv_head, config.n_embd // config.n_head
        make = partial(Linear, rng=rng, bias=False, dtype=dtype)
        self.wq = make(C, C)
        self.wk = make(C, config.n_kv_head * self.D)
        self.wv = make(C, config.n_kv_head * self.D)
        self.wo = make(C, C, std=residual_std(config))

    def __call__(self, x: Tensor, past: Past | None = None) -> Tensor:
        B, T, C = x.shape
        start = past.length if past else 0
        q, k, v = (  # (B, K, G, T, D); G = 1 for k and v
            w(x).reshape(B, T, self.n_kv_head, -1, self.D).transpose(0, 2, 3, 1, 4)
            for w in (self.wq, self.wk, self.wv)
        )
        q, k = rotary(q, start=start), rotary(k, start=start)
        if past:
            k, v = past.extend(k, v)  # (B, K, 1, start + T, D)
        shared = (*q.shape[:3], *k.shape[3:])  # G copies that take no room; their gradients add up
        k, v = broadcast_to(k, shape=shared), broadcast_to(v, shape=shared)
        out = attention(q, k, v, bias=_later(T, start))  # (B, K, G, T, D)
        return self.wo(out.transpose(0, 3, 1, 2, 4).reshape(B, T, C))


def _later(T: int, start: int) -> Any:
    """-inf for the keys after each query, (T, start + T); None if there are none after any."""
    return None if T == 1 else xp.triu(xp.full((T, start + T), -math.inf), start + 1)


class FeedForward(Module):
    """Each position by itself: two ways up, the one a gate for the other, and down."""

    def __init__(self, config: LlamaConfig, rng, dtype):
        make = partial(Linear, rng=rng, bias=False, dtype=dtype)
        self.w1 = make(config.n_embd, config.n_hidden)
        self.w2 = make(config.n_hidden, config.n_embd, std=residual_std(config))
        self.w3 = make(config.n_embd, config.n_hidden)

    def __call__(self, x: Tensor) -> Tensor:
        return self.w2(swiglu(self.w1(x), self.w3(x)))  # (B, T, F) inside


def residual_std(config: LlamaConfig) -> float:
    """0.02 / sqrt(2L), as in GPT-2: 2L sums go into the residual stream."""
    return 0.02 / math.sqrt(2 * config.n_layer)


class Block(Module):
    """x + attention(norm(x)), then x + MLP(norm(x)). (B, T, C) -> (B, T, C)."""

    def __init__(self, config: LlamaConfig, rng, dtype):
        self.attention_norm = RMSNorm(config.n_embd, dtype)
        self.attention = Attention(config, rng, dtype)
        self.ffn_norm = RMSNorm(config.n_embd, dtype)
        self.feed_forward = FeedForward(config, rng, dtype)

    def __call__(self, x: Tensor, past: Past | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), past)
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(Module):
    """Scores for the next token at every position; called and trained as the GPT of model.py.

    rng: NumPy generator for the initial weights. dtype: "float32" or "float64", kept throughout.
    Source: Touvron et al. 2023, arXiv:2302.13971.
    """

    def __init__(self, config: LlamaConfig, rng, dtype: str = "float32"):
        self.config = config
        self.tok_embeddings = Embedding(config.vocab_size, config.n_embd, rng=rng, dtype=dtype)
        self.layers = [Block(config, rng, dtype) for _ in range(config.n_layer)]
        self.norm = RMSNorm(config.n_embd, dtype)
        if not config.tied:
            self.output = Linear(config.n_embd, config.vocab_size, rng=rng, bias=False, dtype=dtype)

    def __call__(self, idx: Any, rng=None, past: list[Past] | None = None) -> Tensor:
        """Logits of the next token.

        Shapes: idx (B, T) int -> (B, T, V). rng: not used, since nothing is dropped. past: what the
                layers kept of earlier positions; idx continues them. All together <= block_size.
        Raises: ValueError if idx has another shape, is too long, or holds an id out of range.
        """
        idx = to_numpy(idx)
        room = self.config.block_size - (past[0].length if past else 0)
        if idx.ndim != 2 or not 1 <= idx.shape[1] <= room:
            raise ValueError(f"idx must be (B, T) with 1 <= T <= {room}, got shape {idx.shape}: "
                             f"block_size is {self.config.block_size}")  # fmt: skip
        x = self.tok_embeddings(idx)  # (B, T, C)
        for i, block in enumerate(self.layers):
            x = block(x, past[i] if past else None)
        x = self.norm(x)
        return F.linear(x, self.tok_embeddings.weight.T) if self.config.tied else self.output(x)

    def decayed_parameters(self) -> list[Tensor]:
        """What weight decay shrinks, as in GPT: the matrices of the blocks."""
        named = self.named_parameters()
        return [p for name, p in named if name.startswith("layers.") and p.ndim == 2]


class Remembering:
    """A Llama in its place in `generate`, asked about ever longer texts: it computes what is new.

    No key and no value depends on a later token, so those of the text so far are right for the
    longer text. Any other text, as when the window has begun to slide, is computed from its start.
    """

    def __init__(self, model: Llama):
        self.model, self.config = model, model.config
        self.seen: Any = None  # (B, n) int, the tokens that `past` is of

    def __call__(self, idx: Any, rng=None) -> Tensor:
        """Logits after each new token. Shapes: idx (B, T) int -> (B, T - n, V), n known before."""
        idx = to_numpy(idx)
        n = 0 if self.seen is None or idx.ndim != 2 else self.seen.shape[1]
        alike = n and idx.shape[1] > n and len(idx) == len(self.seen)
        if not (alike and (idx[:, :n] == self.seen).all()):
            n, self.past = 0, [Past() for _ in self.model.layers]
        self.seen = None  # until all layers are through
        with no_grad():
            out = self.model(idx[:, n:] if n else idx, past=self.past)
        self.seen = idx
        return out
