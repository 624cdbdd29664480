"""Interpolated Witten-Bell n-gram: counting, the baseline that a language model must beat.

With c(h, w) the times that w followed the context h in training, c(h) = sum_w c(h, w), t(h) the
number of *distinct* tokens seen after h, and h' = h without its oldest token:

    P_k(w | h) = (c(h, w) + t(h) P_{k-1}(w | h')) / (c(h) + t(h)),      P_0(w) = 1 / V

where h holds the last k - 1 tokens. t(h) plays the part of "how often something new follows h": a
context with many continuations trusts the shorter context more. If h was never continued in
training, P_k(w | h) = P_{k-1}(w | h').

Source: Witten & Bell 1991, "The zero-frequency problem", IEEE Trans. Inf. Theory 37(4), method C;
        Chen & Goodman 1998, "An empirical study of smoothing techniques", TR-10-98.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAX_ORDER = 7


class Level(NamedTuple):
    """The counts of one context length. H contexts h, N pairs (h, w) seen in training.

    A context is a number below H: the row of its pair (h without its newest token, newest token)
    in the level before. So a key is always below H * V and never overflows, as V ** order would.
    The last row of each of the other arrays answers for whatever was not seen, at index -1.
    """

    keys: np.ndarray  # (N,) h * V + w, increasing
    pairs: np.ndarray  # (N + 1,) c(h, w), then 0
    tokens: np.ndarray  # (H + 1,) c(h), then 0
    types: np.ndarray  # (H + 1,) t(h), then 1: (0 + 1 * P) / (0 + 1) backs off wholly


class NGram:
    """Order n predicts a token from the n - 1 before it; order 1 ignores the context.

    Raises: ValueError if `order` is not in 1..7 or `vocab_size` is not positive.
    """

    def __init__(self, order: int, vocab_size: int):
        if order not in range(1, MAX_ORDER + 1):
            raise ValueError(f"order must be 1 to {MAX_ORDER}, got {order}")
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
        self.order = int(order)
        self.vocab_size = int(vocab_size)
        self._levels: list[Level] = []  # one per context length 0..order-1

    def fit(self, ids: Sequence[int] | np.ndarray) -> "NGram":
        """Count every context of up to order - 1 tokens. Replaces what was counted before.

        Shapes: ids (n,) integers, n >= order -> self.
        Raises: ValueError if there are fewer than `order` tokens or an id is out of range.
        """
        ids = _checked(ids, self.vocab_size)
        if ids.size < self.order:
            raise ValueError(
                f"the training text has {ids.size} tokens: order {self.order} needs"
                f" at least {self.order}"
            )
        self._levels = []
        context, n_contexts = np.zeros(ids.size, np.int64), 1  # all: the empty context
        for k in range(self.order):
            keys, row, counts = np.unique(
                context * self.vocab_size + ids[k:],  # each (n - k,)
                return_inverse=True,
                return_counts=True,
            )
            h = keys // self.vocab_size  # (N,)
            tokens = np.bincount(h, weights=counts, minlength=n_contexts + 1)  # (H + 1,)
            # The text's last tokens may form a context that nothing follows: it backs off too.
            types = np.maximum(np.bincount(h, minlength=n_contexts + 1), 1)  # (H + 1,)
            self._levels.append(Level(keys, np.append(counts, 0), tokens, types))
            context, n_contexts = row[:-1], keys.size  # the pair at i is the context of i + 1
        return self

    def nats_by_order(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """-log P_k of each token, for every order k up to this model's, from one fit.

        The tokens before it within `ids` are the context; near the start there are fewer than
        k - 1 of them, and the order that they allow is used.
        Shapes: ids (n,) integers -> (order, n) nats per token; row k - 1 belongs to order k.
        Raises: ValueError before `fit`, or if an id is out of range.
        """
        ids = _checked(ids, self.vocab_size)
        p = np.full(ids.size, 1 / self.vocab_size)  # (n,) P_0
        context = np.zeros(ids.size, np.int64)  # (n,) -1: not seen
        nats = []
        for level in self._fitted():
            row = self._find(level, context, ids)  # (n,)
            tokens, types = level.tokens[context], level.types[context]  # (n,) each
            p = (level.pairs[row] + types * p) / (tokens + types)  # (n,) P_k
            nats.append(-np.log(p))
            context = np.append(-1, row)[: ids.size]  # the first token has no longer context
        return np.stack(nats)

    def nats(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """-log P of each token given up to order - 1 tokens before it within `ids`.

        Shapes: ids (n,) integers -> (n,) nats per token.
        Raises: ValueError before `fit`, or if an id is out of range.
        """
        return self.nats_by_order(ids)[-1]

    def probs(self, context: Sequence[int] | np.ndarray) -> np.ndarray:
        """The distribution of the token after `context`, of which the last order - 1 count.

        Shapes: context (n,) integers, n may be 0 -> (V,), sums to 1.
        Raises: ValueError before `fit`, or if an id is out of range.
        """
        context = _checked(context, self.vocab_size)
        p = np.full(self.vocab_size, 1 / self.vocab_size)  # (V,) P_0
        every = np.arange(self.vocab_size)  # (V,) each token as w
        for length, level in enumerate(self._fitted()[: context.size + 1]):
            h = np.zeros(1, np.int64)  # the empty context
            for depth, token in enumerate(context[context.size - length :]):
                h = self._find(self._levels[depth], h, token)  # (1,)
            row = self._find(level, h, every)  # (V,)
            p = (level.pairs[row] + level.types[h] * p) / (level.tokens[h] + level.types[h])
        return p

    def _find(self, level: Level, context: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Rows of the pairs (context, id) in `level`, -1 where not seen. (n,), (n,) -> (n,)."""
        keys = context * self.vocab_size + ids  # an unseen context, -1, gives keys below 0
        row = np.minimum(np.searchsorted(level.keys, keys), level.keys.size - 1)
        return np.where(level.keys[row] == keys, row, -1)

    def _fitted(self) -> list[Level]:
        if not self._levels:
            raise ValueError("this n-gram has no counts yet: call fit(ids) first")
        return self._levels


def _checked(ids: Sequence[int] | np.ndarray, vocab_size: int) -> np.ndarray:
    """`ids` as (n,) int64, or ValueError."""
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise ValueError(f"ids must be one-dimensional, got shape {ids.shape}")
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be integers, got dtype {ids.dtype}")
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if outside.size:
        raise ValueError(f"id {outside[0]} is out of range: expected 0 <= id < {vocab_size}")
    return ids.astype(np.int64)
