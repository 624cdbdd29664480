"""Numbers for people, of what a trace holds: guesses, ranks, how wide and how far a head looks."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reading:
    """What a layer says at T positions about the token that comes next.

    guesses, p (T, k): the likeliest tokens, best first, and their probabilities.
    nats, rank (T - 1,): of the token that does come next. Rank 1 is the likeliest.
    """

    guesses: np.ndarray
    p: np.ndarray
    nats: np.ndarray
    rank: np.ndarray


def read(log_p: np.ndarray, idx: np.ndarray, k: int) -> Reading:
    """The k likeliest tokens at each position, and how likely the text's own were.

    Of tokens that tie, the smaller id ranks first. k is cut to the number of tokens there are.
    Shapes: log_p (T, V) nats; idx (T,) int, the text: log_p[t] is about idx[t + 1].
    Raises: ValueError if k is below 1.
    """
    if k < 1:
        raise ValueError(f"alternatives must be at least 1, got {k}")
    guesses = np.array([likeliest(row, k) for row in log_p])  # (T, k)
    p = np.exp(np.take_along_axis(log_p, guesses, -1))  # (T, k)
    true, before = idx[1:, None], log_p[:-1]  # (T - 1, 1), (T - 1, V)
    mine = np.take_along_axis(before, true, -1)  # (T - 1, 1)
    ahead = (before > mine) | ((before == mine) & (np.arange(before.shape[1]) < true))
    return Reading(guesses, p, -mine[:, 0], 1 + ahead.sum(-1))


def likeliest(row: np.ndarray, k: int) -> np.ndarray:
    """The ids of the k largest, in falling order. Shapes: (V,) -> (k,), or (V,) where V < k.

    Only what reaches the k-th largest is sorted: of 50,000 tokens a page needs five.
    """
    k = min(k, len(row))
    found = np.flatnonzero(row >= np.partition(row, -k)[-k])  # k ids, or more that tie, rising
    return found[np.argsort(-row[found], kind="stable")[:k]]


def entropy(att: np.ndarray) -> np.ndarray:
    """How widely heads look, in nats, averaged over the queries.

    0: at one key each. exp(entropy) is how many equal keys it would be.
    Shapes: att (..., T, T), rows that sum to 1 -> (...).
    """
    logs = np.log(np.where(att > 0, att, 1))  # p log p goes to 0 with p
    return -(att * logs).sum(-1).mean(-1)


def distance(att: np.ndarray) -> np.ndarray:
    """How many tokens back heads look, weighted by their weights, averaged over the queries.

    Shapes: att (..., T, T) -> (...), from 0 to (T - 1) / 2.
    """
    places = np.arange(att.shape[-1])
    return (att * (places[:, None] - places)).sum(-1).mean(-1)
