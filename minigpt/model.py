"""GPT-2's architecture: pre-norm blocks, learned positions, a head tied to the embedding.

Four other ways to tell positions apart can take the place of the learned table wpe, and the head
can have a table of its own.

Attribute names are those of GPT-2's published checkpoints, which load without renaming:

    wte, wpe        token and learned position embedding  (V, C), (block_size, C)
    h               the list of blocks
    ln_1, ln_2      layer norms before attention and MLP
    attn.c_attn     x -> q, k, v side by side             (C, 3C)
    attn.c_proj     joined heads -> residual stream       (C, C)
    mlp.c_fc        up                                    (C, 4C)
    mlp.c_proj      down, into the residual stream        (4C, C)
    ln_f            the last layer norm
    lm_head         wte again, or if not tied its own     (V, C)

Shapes: B batch, T time, C channels, H heads, D = C / H head size, V vocabulary.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from minigpt import functional as F
from minigpt.attention import causal_self_attention
from minigpt.backend import host_arange, to_numpy, xp
from minigpt.nn import Dropout, Embedding, LayerNorm, Linear, Module
from minigpt.positions import alibi_bias, sinusoids
from minigpt.tensor import Tensor

POSITIONS = ("learned", "sinusoid", "rope", "alibi", "none")


def option(default: Any, help: str) -> Any:
    """A dataclass field with the help text that the command line shows."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class GPTConfig:
    """Model. Raises ValueError if a size is not positive, or n_head or position does not fit."""

    vocab_size: int = option(94, "distinct tokens")
    block_size: int = option(32, "longest context, in tokens")
    n_layer: int = option(2, "blocks")
    n_head: int = option(4, "attention heads a block")
    n_embd: int = option(96, "channels of the residual stream")
    dropout: float = option(0.0, "probability of dropping an activation, 0 <= p < 1")
    bias: bool = option(True, "offsets in linear layers and layer norms")
    position: str = option("learned", f"how positions are told apart: {', '.join(POSITIONS)}")
    tied: bool = option(True, "one table for tokens read and tokens predicted")

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in 0 <= p < 1, got {self.dropout}")
        if self.position not in POSITIONS:
            raise ValueError(f"position must be one of {', '.join(POSITIONS)}; "
                             f"got {self.position!r}")  # fmt: skip
        pairs = {"sinusoid": self.n_embd, "rope": self.n_embd // self.n_head}.get(self.position, 0)
        if pairs % 2:
            raise ValueError(f"position {self.position!r} pairs channels: {pairs} is odd "
                             f"(n_embd {self.n_embd}, n_head {self.n_head})")  # fmt: skip


class CausalSelfAttention(Module):
    """Every position gathers from itself and the ones before it. (B, T, C) -> (B, T, C).

    bias: what ALiBi adds to the scores, (H, T, T).
    """

    def __init__(self, config: GPTConfig, rng, dtype):
        C = config.n_embd
        self.c_attn = Linear(C, 3 * C, rng=rng, bias=config.bias, dtype=dtype)  # q, k, v at once
        self.c_proj = Linear(C, C, rng=rng, bias=config.bias, std=residual_std(config), dtype=dtype)
        self.n_head, self.p = config.n_head, config.dropout
        self.rope = config.position == "rope"

    def __call__(self, x: Tensor, rng=None, bias=None) -> Tensor:
        qkv, options = self.c_attn(x), {"bias": bias, "p": self.p, "rng": rng}  # (B, T, 3C)
        out = causal_self_attention(qkv, n_head=self.n_head, rope=self.rope, **options)
        return self.c_proj(out)  # (B, T, C)


class MLP(Module):
    """Each position by itself: up to 4C, GELU, down. (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig, rng, dtype):
        C, std = config.n_embd, residual_std(config)
        self.c_fc = Linear(C, 4 * C, rng=rng, bias=config.bias, dtype=dtype)
        self.c_proj = Linear(4 * C, C, rng=rng, bias=config.bias, std=std, dtype=dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))  # (B, T, 4C) inside


def residual_std(config: GPTConfig) -> float:
    """0.02 / sqrt(2L): 2L sums go into the residual stream, and its variance should not grow."""
    return 0.02 / math.sqrt(2 * config.n_layer)


class Block(Module):
    """x + attention(norm(x)), then x + MLP(norm(x)): the stream itself is never normalised."""

    def __init__(self, config: GPTConfig, rng, dtype):
        self.ln_1 = LayerNorm(config.n_embd, bias=config.bias, dtype=dtype)
        self.attn = CausalSelfAttention(config, rng, dtype)
        self.ln_2 = LayerNorm(config.n_embd, bias=config.bias, dtype=dtype)
        self.mlp = MLP(config, rng, dtype)
        self.drop = Dropout(config.dropout)

    def __call__(self, x: Tensor, rng=None, bias=None) -> Tensor:
        x = x + self.drop(self.attn(self.ln_1(x), rng, bias), rng)  # positions exchange: (B, T, C)
        return x + self.drop(self.mlp(self.ln_2(x)), rng)  # each position by itself


class GPT(Module):
    """Scores for the next token at every position.

    rng: NumPy generator for the initial weights. dtype: "float32" or "float64", kept throughout.
    """

    def __init__(self, config: GPTConfig, rng, dtype: str = "float32"):
        self.config = config
        V, T, C = config.vocab_size, config.block_size, config.n_embd
        self.wte = Embedding(V, C, rng=rng, dtype=dtype)
        if config.position == "learned":
            self.wpe = Embedding(T, C, rng=rng, dtype=dtype)
        elif config.position == "sinusoid":  # a constant, so a plain array, and no parameter
            # Its root mean square, sqrt(1/2), would drown tokens, which start at 0.02: scale to it.
            self.waves = xp.asarray(0.02 * math.sqrt(2) * sinusoids(T, C), dtype)  # (T, C)
        elif config.position == "alibi":
            self.distances = xp.asarray(alibi_bias(config.n_head, T), dtype)  # (H, T, T)
        self.drop = Dropout(config.dropout)
        self.h = [Block(config, rng, dtype) for _ in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, bias=config.bias, dtype=dtype)
        self.lm_head = self.wte if config.tied else Embedding(V, C, rng=rng, dtype=dtype)

    def __call__(self, idx: Any, rng=None) -> Tensor:
        """Logits of the next token.

        Shapes: idx (B, T) int, T <= block_size -> (B, T, V). rng: generator for dropout; without
                one, nothing is dropped.
        Raises: ValueError if idx has another shape, is too long, or holds an id out of range.
        """
        idx = to_numpy(idx)  # checked where it comes from
        if idx.ndim != 2 or not 1 <= idx.shape[1] <= self.config.block_size:
            raise ValueError(f"idx must be (B, T) with 1 <= T <= block_size "
                             f"{self.config.block_size}, got shape {idx.shape}")  # fmt: skip
        T, position = idx.shape[1], self.config.position
        x = self.wte(idx)  # (B, T, C)
        if position in ("learned", "sinusoid"):
            x = x + (self.wpe(host_arange(T)) if position == "learned" else self.waves[:T])
        x = self.drop(x, rng)
        bias = self.distances[:, :T, :T] if position == "alibi" else None  # the same in every layer
        for block in self.h:
            x = block(x, rng, bias)  # (B, T, C), the residual stream
        return F.linear(self.ln_f(x), self.lm_head.weight.T)  # (B, T, V)

    def decayed_parameters(self) -> list[Tensor]:
        """What weight decay shrinks: the matrices of the linear layers.

        Gains and offsets set a scale, which shrinking would change, not simplify. Embedding rows
        are moved only by their own token's gradient: decay would make rare tokens' rows short.
        """
        return [p for name, p in self.named_parameters() if name.startswith("h.") and p.ndim == 2]
