"""Generation: predict a distribution for the next token, draw from it, append, repeat."""

from collections.abc import Iterator

import numpy as np

from minigpt.backend import to_numpy
from minigpt.model import GPT
from minigpt.tensor import no_grad


def generate(
    model: GPT, idx: np.ndarray, n: int, *, rng: np.random.Generator, temperature: float = 1.0
) -> Iterator[np.ndarray]:
    """Draw n further tokens for each prompt of a batch, one step at a time.

    Shapes: idx (B, T) int, T >= 1 -> yields (B,) int, n times. Beyond block_size tokens the model
            sees the last block_size only (a sliding window).
    temperature: logits are divided by it; 0 takes the likeliest token each time (greedy).
    Raises: ValueError if idx has another shape, or n or temperature is negative.
    """
    idx = np.asarray(idx)
    if idx.ndim != 2 or idx.shape[1] == 0:
        raise ValueError(f"a prompt must be (B, T) with T >= 1, got shape {idx.shape}")
    if n < 0 or not temperature >= 0:
        raise ValueError(f"n and temperature must be >= 0, got {n} and {temperature}")
    return _draw(model, idx, n, rng, temperature)


def _draw(model, idx, n, rng, temperature) -> Iterator[np.ndarray]:
    for _ in range(n):
        with no_grad():
            logits = model(idx[:, -model.config.block_size :]).data[:, -1]  # (B, V)
        token = choose(to_numpy(logits), temperature, rng)  # (B,)
        idx = np.concatenate([idx, token[:, None]], axis=1)
        yield token


def choose(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """One token a row, from softmax(logits / temperature). logits (B, V) -> (B,) int.

    Adding Gumbel noise and taking the largest draws from the softmax without normalising it;
    scaling the noise instead of the logits keeps a tiny temperature from overflowing.
    """
    if temperature == 0:
        return logits.argmax(-1)
    return (logits + temperature * rng.gumbel(size=logits.shape)).argmax(-1)
