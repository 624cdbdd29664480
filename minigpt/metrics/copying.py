"""Is a generated text new, or copied from the training text?

Comparing every place of one text with every place of the other takes far too long: 10^9 pairs for a
page beside a small corpus. So spans get numbers, such that equal spans have equal numbers. Two
numbers make the number of a longer span, and from length 1 one is soon at 2, 4, 8, ... There is no
hashing, so no chance of an error, and a number in the corpus that the page lacks is just -1.
Source: Karp, Miller & Rosenberg 1972, "Rapid identification of repeated patterns in strings".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minigpt.metrics.checks import at_least_1, integers

Text = str | Sequence[int] | np.ndarray


class Copy(NamedTuple):
    """text[start : start + length] is training[source : source + length]."""

    length: int
    start: int
    source: int


class Spans(NamedTuple):
    """Numbers of the spans of one length. M and N: places at which such a span starts."""

    length: int
    text: np.ndarray  # (M,) int, 0 or more
    training: np.ndarray  # (N,) int, -1 for a span that the text does not hold


def longest_copy(text: Text, training: Text) -> Copy:
    """The longest span of `text` that stands in `training`; the first such place in `training`.

    Both are strings, or both token ids (M,) and (N,). Time: N log M for each halving.
    A span of some length is common only if one shorter by 1 is, so lengths are found by halves.
    Raises: ValueError if one is empty, or only one is a string.
    """
    spans = _letters(text, training)
    while _common(longer := _grown(spans, spans.length)):
        spans = longer
    low, high = 0, spans.length  # a span longer by low is common, by high is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _common(_grown(spans, middle)) else (low, middle)
    best = _grown(spans, low) if low else spans
    if not _common(best):
        return Copy(0, 0, 0)
    source = int((best.training >= 0).argmax())
    start = int((best.text == best.training[source]).argmax())
    return Copy(best.length, start, source)


def copied_share(text: Text, training: Text, n: int) -> float:
    """Share of the n-grams of `text` that stand in `training`.

    Both are strings, or both token ids (M,) and (N,).
    Raises: ValueError if n is no integer of at least 1, the text is shorter than n, one is empty,
    or only one is a string.
    Source: McCoy et al. 2021, arXiv:2111.09509, who print 1 minus it.
    """
    at_least_1(n, "n")
    spans = _letters(text, training)
    if len(spans.text) < n:
        raise ValueError(f"text: expected at least n = {n} tokens, got {len(spans.text)}")
    while 2 * spans.length <= n:
        spans = _grown(spans, spans.length)
    if spans.length < n:
        spans = _grown(spans, n - spans.length)
    return float(np.isin(spans.text, spans.training).mean())


def _letters(text: Text, training: Text) -> Spans:
    """Spans of length 1: a number for each different token of `text`."""
    if isinstance(text, str) != isinstance(training, str):
        raise ValueError("text and training: expected two strings, or token ids twice")
    keys, numbers = np.unique(_codes(text, "text"), return_inverse=True)
    return Spans(1, numbers, _find(keys, _codes(training, "training")))


def _codes(text: Text, name: str) -> np.ndarray:
    """A string's code points, or the ids. -> (n,) int64."""
    if isinstance(text, str):
        text = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return integers(text, name)


def _grown(spans: Spans, by: int) -> Spans:
    """Spans longer by 1 <= `by` <= length: each is two shorter ones that meet or overlap."""
    base = int(spans.text.max(initial=0)) + 1  # first * base + second < M ** 2: no overflow
    keys, numbers = np.unique(
        spans.text[:-by] * base + spans.text[by:],  # (M - by,)
        return_inverse=True,
    )
    first, second = spans.training[:-by], spans.training[by:]  # (N - by,)
    pairs = np.where((first < 0) | (second < 0), -1, first * base + second)
    return Spans(spans.length + by, numbers, _find(keys, pairs))


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The row of each in the sorted keys, -1 where it is missing or negative."""
    row = np.searchsorted(keys, wanted)
    found = np.append(keys, -1)[row] == wanted  # beyond the last key stands -1
    return np.where(found & (wanted >= 0), row, -1)


def _common(spans: Spans) -> bool:
    return bool((spans.training >= 0).any())
