"""From the model's logits to those that the next token is drawn from.

A model gives every token some probability, and tens of thousands of poor ones together are drawn
often. Each filter below takes logits (B, V) float and gives logits (B, V), -inf for what it
excludes. Of tokens that tie, the smaller id ranks first, as in argmax.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minigpt.model import option


@dataclass(frozen=True)
class Decoding:
    """Decoding. Raises ValueError for values that cannot work."""

    temperature: float = option(1.0, "below 1: safer, above: wilder, 0: likeliest")
    top_k: int = option(0, "draw from this many of the likeliest tokens only (0: from all)")
    top_p: float = option(1.0, "draw from the fewest tokens that have this probability together")
    min_p: float = option(0.0, "leave out what is less likely than this times the likeliest token")
    repetition_penalty: float = option(1.0, "above 1: tokens already in the text get less likely")

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be >= 0 and finite, got {self.temperature}")
        if not hasattr(self.top_k, "__index__") or operator.index(self.top_k) < 0:
            raise ValueError(f"top_k must be an integer >= 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in 0 < top_p <= 1, got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in 0 <= min_p <= 1, got {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty must be positive and finite, got {self.repetition_penalty}"
            )

    def __call__(self, logits: np.ndarray, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Penalty, temperature, then top_k, top_p, min_p, each on what the one before has left.

        Shapes: logits (B, V); texts: B arrays of ids, all that each row holds so far -> (B, V).
        """
        logits = repetition_penalty(logits, texts, self.repetition_penalty)
        logits = temperature(logits, self.temperature)
        return min_p(top_p(top_k(logits, self.top_k), self.top_p), self.min_p)


def repetition_penalty(
    logits: np.ndarray, texts: Sequence[np.ndarray], penalty: float
) -> np.ndarray:
    """Divide the positive logits of tokens that a row already holds, multiply the negative ones.

    Both move a logit down when penalty > 1, once, however often the token occurs.
    Source: Keskar et al. 2019, CTRL, sec. 4.1, as it is used since: they divided negative ones too.
    """
    if penalty == 1:
        return logits
    out = logits.astype(np.float64)  # a copy
    for row, text in zip(out, texts, strict=True):
        seen = np.unique(text)
        row[seen] = np.where(row[seen] > 0, row[seen] / penalty, row[seen] * penalty)
    return out


def temperature(logits: np.ndarray, t: float) -> np.ndarray:
    """logits / t, less the largest of the row; 0 leaves the likeliest token alone (greedy).

    Subtracting first changes no probability, and a tiny t then overflows to -inf only.
    """
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)  # (B, V) <= 0
    if t == 0:
        likeliest = logits.argmax(-1)[:, None]  # (B, 1)
        return np.where(np.arange(logits.shape[-1]) == likeliest, logits, -np.inf)
    with np.errstate(over="ignore"):
        return logits / t


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Keep the k likeliest tokens; 0 keeps all. Source: Fan et al. 2018, sec. 5.1."""
    V = logits.shape[-1]
    if k == 0 or k >= V:
        return logits
    return _keep(logits, _order(logits), np.broadcast_to(np.arange(V) < k, logits.shape))


def top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Keep the smallest set of likeliest tokens whose probabilities sum to p or more (the nucleus).

    The token that crosses p stays: what counts is the sum of those before it.
    Source: Holtzman et al. 2020, sec. 3.1.
    """
    if p == 1:
        return logits
    order = _order(logits)
    ranked = np.exp(log_probs(np.take_along_axis(logits, order, -1)))  # (B, V), falling
    before = np.roll(ranked.cumsum(-1), 1, axis=-1)  # (B, V)
    before[:, 0] = 0
    return _keep(logits, order, before < p)


def min_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Keep tokens of at least p times the largest probability. Source: Nguyen et al. 2024."""
    if p == 0:
        return logits
    # A ratio of probabilities is a difference of logits: no softmax is needed.
    return np.where(logits >= logits.max(-1, keepdims=True) + math.log(p), logits, -np.inf)


def log_probs(logits: np.ndarray) -> np.ndarray:
    """Log-softmax, in nats. Shapes: (B, V) -> (B, V) float64."""
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def draw(
    logits: np.ndarray, rng: np.random.Generator | Sequence[np.random.Generator]
) -> np.ndarray:
    """One token a row, from softmax(logits). Shapes: (B, V) -> (B,) int. -inf is never drawn.

    rng: one generator, or one for each row. Adding Gumbel noise and taking the largest draws from
    the softmax without normalising it.
    """
    if isinstance(rng, np.random.Generator):
        noise = rng.gumbel(size=logits.shape)  # (B, V)
    else:
        noise = np.stack([own.gumbel(size=logits.shape[-1]) for own in rng])  # (B, V)
    return (logits + noise).argmax(-1)


def _order(logits: np.ndarray) -> np.ndarray:
    """Ids by falling logit, equal ones by rising id. (B, V) -> (B, V) int."""
    return np.argsort(-logits, axis=-1, kind="stable")


def _keep(logits: np.ndarray, order: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """-inf but where kept, which is by rank. All (B, V)."""
    mask = np.empty_like(kept)
    np.put_along_axis(mask, order, kept, axis=-1)
    return np.where(mask, logits, -np.inf)
