"""chrF: shared n-grams of characters, so that a wrong ending does not cost the whole word.

Source: Popovic 2015, "chrF: character n-gram F-score for automatic MT evaluation".
"""

from collections.abc import Sequence

import numpy as np

from minigpt.metrics.checks import pairs
from minigpt.metrics.classes import f_measure
from minigpt.metrics.ngrams import count_ngrams, shared

MAX_N = 6
BETA = 2.0  # recall counts twice as much as precision


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """chrF of a corpus, one reference each: F2 of the mean precision and recall over n = 1..6.

    White space does not count. An n for which either side has no n-gram is left out.
    Raises: ValueError if there are none, lengths differ, or one is no string.
    """
    pairs(hypotheses, references)
    counts = sum(_counts(h, r) for h, r in zip(hypotheses, references, strict=True))
    counts = np.asarray(counts)
    used = counts[(counts[:, 1:] > 0).all(1)]  # (up to MAX_N, 3)
    if not len(used):
        return 0.0
    hits, ours, theirs = used.T
    return float(f_measure((hits / ours).mean(), (hits / theirs).mean(), BETA))


def _counts(hypothesis: str, reference: str) -> np.ndarray:
    """(MAX_N, 3): for each n, the shared n-grams, those of the hypothesis, of the reference."""
    if not (isinstance(hypothesis, str) and isinstance(reference, str)):
        raise ValueError("hypotheses and references: expected strings")
    ours, theirs = "".join(hypothesis.split()), "".join(reference.split())
    rows = []
    for n in range(1, MAX_N + 1):
        a, b = count_ngrams(ours, n), count_ngrams(theirs, n)
        # A reference too short for n says nothing about the n-grams of the hypothesis.
        rows.append((shared(a, b), a.total() if b else 0, b.total()))
    return np.array(rows)
