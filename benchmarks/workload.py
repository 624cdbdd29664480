"""What every contestant computes: sizes, first weights, batches, and the matrix products in it."""

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ADAMW = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


@dataclass(frozen=True)
class Config:
    batch_size: int
    network: dict[str, int]  # under the names that minigpt and TorchGPT take


CONFIGS = {
    "T": Config(8, dict(n_layer=2, n_embd=64, block_size=32, n_head=2, vocab_size=65)),
    "A": Config(12, dict(n_layer=4, n_embd=128, block_size=64, n_head=4, vocab_size=65)),
    "B": Config(4, dict(n_layer=6, n_embd=384, block_size=256, n_head=6, vocab_size=65)),
    "L": Config(2, dict(n_layer=4, n_embd=256, block_size=512, n_head=4, vocab_size=65)),
}


def initial_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 0.02^2) for a matrix, 1 for a gain, 0 for an offset; equal in every process."""
    if len(shape) == 1:
        return np.full(shape, name.endswith("weight"), np.float32)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.normal(0, 0.02, shape).astype(np.float32)


def initial_weights(config: Config) -> dict[str, np.ndarray]:
    """All of them under minigpt's names, for a contestant that has no modules to ask."""
    C, V, T = (config.network[name] for name in ("n_embd", "vocab_size", "block_size"))
    shapes = {"wte.weight": (V, C), "wpe.weight": (T, C)}
    for i in range(config.network["n_layer"]):
        for layer, n_in, n_out in (("attn.c_attn", C, 3 * C), ("attn.c_proj", C, C),
                                   ("mlp.c_fc", C, 4 * C), ("mlp.c_proj", 4 * C, C)):  # fmt: skip
            shapes |= {f"h.{i}.{layer}.weight": (n_in, n_out), f"h.{i}.{layer}.bias": (n_out,)}
    for norm in [f"h.{i}.ln_{j}" for i in range(config.network["n_layer"]) for j in (1, 2)]:
        shapes |= {f"{norm}.weight": (C,), f"{norm}.bias": (C,)}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    return {name: initial_weight(name, shape) for name, shape in shapes.items()}


def batches(config: Config) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random idx and targets (B, T), without end and equal in every process."""
    rng, network = np.random.default_rng(1), config.network
    while True:
        size = (2, config.batch_size, network["block_size"])
        yield tuple(rng.integers(network["vocab_size"], size=size))


def matrix_products(config: Config, forward: bool = False) -> Counter:
    """How often a step needs each product (..., m, k) @ (..., k, n): {(batch, m, k, n): count}.

    forward: of the forward pass alone. Attention's are counted in full, as dense products: a causal
    kernel can skip nearly half of each.
    """
    C, T, H = (config.network[name] for name in ("n_embd", "block_size", "n_head"))
    BT, BH, D = config.batch_size * T, config.batch_size * H, C // H
    block = [
        (1, BT, C, 3 * C),  # q, k, v
        (BH, T, D, T),  # scores = q @ k^T
        (BH, T, T, D),  # out = att @ v
        (1, BT, C, C),  # attention's projection
        (1, BT, C, 4 * C),  # into the MLP
        (1, BT, 4 * C, C),  # out of the MLP
    ]
    head = (1, BT, C, config.network["vocab_size"])
    return Counter(
        shape
        for batch, m, k, n in [*config.network["n_layer"] * block, head]
        # out = x @ w, dx = g @ w^T, dw = x^T @ g
        for shape in ((batch, m, k, n), (batch, m, n, k), (batch, k, m, n))[: 1 if forward else 3]
    )
