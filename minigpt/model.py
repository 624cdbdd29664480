"""GPT-2's architecture: pre-norm blocks, learned positions, a head tied to the embedding.

Attribute names are those of GPT-2's published checkpoints, which load without renaming:

    wte, wpe        token and position embedding          (V, C), (block_size, C)
    h               the list of blocks
    ln_1, ln_2      layer norms before attention and MLP
    attn.c_attn     x -> q, k, v side by side             (C, 3C)
    attn.c_proj     joined heads -> residual stream       (C, C)
    mlp.c_fc        up                                    (C, 4C)
    mlp.c_proj      down, into the residual stream        (4C, C)
    ln_f            the last layer norm

Shapes: B batch, T time, C channels, H heads, D = C / H head size, V vocabulary.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from minigpt import functional as F
from minigpt.backend import xp
from minigpt.nn import Dropout, Embedding, LayerNorm, Linear, Module
from minigpt.tensor import Tensor


def option(default: Any, help: str) -> Any:
    """A dataclass field with the help text that the command line shows."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class GPTConfig:
    """Model. Raises ValueError if a size is not positive or n_head does not fit."""

    vocab_size: int = option(94, "distinct tokens")
    block_size: int = option(32, "longest context, in tokens")
    n_layer: int = option(2, "blocks")
    n_head: int = option(4, "attention heads a block")
    n_embd: int = option(96, "channels of the residual stream")
    dropout: float = option(0.0, "probability of dropping an activation, 0 <= p < 1")
    bias: bool = option(True, "offsets in linear layers and layer norms")

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in 0 <= p < 1, got {self.dropout}")


class CausalSelfAttention(Module):
    """Every position gathers from itself and the ones before it. (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig, rng, dtype):
        C = config.n_embd
        self.c_attn = Linear(C, 3 * C, rng=rng, bias=config.bias, dtype=dtype)  # q, k, v at once
        self.c_proj = Linear(C, C, rng=rng, bias=config.bias, std=residual_std(config), dtype=dtype)
        self.n_head, self.p = config.n_head, config.dropout

    def __call__(self, x: Tensor, rng=None) -> Tensor:
        qkv = self.c_attn(x)  # (B, T, 3C)
        out = F.causal_self_attention(qkv, n_head=self.n_head, p=self.p, rng=rng)  # (B, T, C)
        return self.c_proj(out)


class MLP(Module):
    """Each position by itself: up to 4C, GELU, down. (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig, rng, dtype):
        C = config.n_embd
        self.c_fc = Linear(C, 4 * C, rng=rng, bias=config.bias, dtype=dtype)
        self.c_proj = Linear(
            4 * C, C, rng=rng, bias=config.bias, std=residual_std(config), dtype=dtype
        )

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

    def __call__(self, x: Tensor, rng=None) -> Tensor:
        x = x + self.drop(self.attn(self.ln_1(x), rng), rng)  # positions exchange: (B, T, C)
        return x + self.drop(self.mlp(self.ln_2(x)), rng)  # each position by itself


class GPT(Module):
    """Scores for the next token at every position.

    rng: NumPy generator for the initial weights. dtype: "float32" or "float64", kept throughout.
    """

    def __init__(self, config: GPTConfig, rng, dtype: str = "float32"):
        self.config = config
        self.wte = Embedding(config.vocab_size, config.n_embd, rng=rng, dtype=dtype)
        self.wpe = Embedding(config.block_size, config.n_embd, rng=rng, dtype=dtype)
        self.drop = Dropout(config.dropout)
        self.h = [Block(config, rng, dtype) for _ in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, bias=config.bias, dtype=dtype)

    def __call__(self, idx: Any, rng=None) -> Tensor:
        """Logits of the next token.

        Shapes: idx (B, T) int, T <= block_size -> (B, T, V). rng: generator for dropout; without
                one, nothing is dropped.
        Raises: ValueError if idx has another shape, is too long, or holds an id out of range.
        """
        idx = xp.asarray(idx)
        if idx.ndim != 2 or not 1 <= idx.shape[1] <= self.config.block_size:
            raise ValueError(
                f"idx must be (B, T) with 1 <= T <= block_size {self.config.block_size}, "
                f"got shape {idx.shape}"
            )
        x = self.wte(idx) + self.wpe(xp.arange(idx.shape[1]))  # (B, T, C) + (T, C)
        x = self.drop(x, rng)
        for block in self.h:
            x = block(x, rng)  # (B, T, C), the residual stream
        return F.linear(self.ln_f(x), self.wte.weight.T)  # (B, T, V): the head is wte again

    def decayed_parameters(self) -> list[Tensor]:
        """What weight decay shrinks: the matrices of the linear layers.

        Gains and offsets set a scale, which shrinking would change, not simplify. Embedding rows
        are moved only by their own token's gradient: decay would make rare tokens' rows short.
        """
        return [p for name, p in self.named_parameters() if name.startswith("h.") and p.ndim == 2]

    def flops_per_token(self) -> int:
        """Floating point operations of one token's training step, forward and backward.

        A product with an (n, m) matrix is 2nm operations a token; the backward pass does two more
        of the kind. Attention at full context adds 2 products of T * C. Elementwise work is left
        out.
        """
        c = self.config
        matrices = sum(p.size for p in self.decayed_parameters()) + self.wte.weight.size
        attention = c.n_layer * 2 * c.block_size * c.n_embd
        return 3 * 2 * (matrices + attention)
