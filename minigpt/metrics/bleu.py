"""BLEU: how many n-grams of a translation stand in one of its references.

With hits(n) the n-grams found in a reference, each counted at most as often as in the reference
that has it most often, and total(n) all n-grams, both summed over the corpus:

    BLEU = min(1, exp(1 - r / c)) * (prod over n = 1..4 of hits(n) / total(n)) ^ (1/4),

c tokens in the translations, r in the references nearest in length. The first factor is there
because precision alone rewards saying little. Scores compare only with the same tokens.
Source: Papineni et al. 2002; Post 2018, arXiv:1804.08771; smoothing: Chen & Cherry 2014.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigpt.metrics.checks import pairs, positive, token_list
from minigpt.metrics.ngrams import count_ngrams, shared

MAX_N = 4
SMOOTHING = ("none", "add-k", "exp")
Tokens = Sequence[Any]


def corpus_bleu(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    smoothing: str = "none",
    k: float = 1.0,
) -> float:
    """BLEU of a corpus: counts are added up first, so it is no mean of sentences' scores.

    hypotheses: one list of tokens each; references: for each of them, one or more such lists.
    smoothing: "none"; "add-k" adds k to hits and totals of n >= 2; "exp" takes 1/2, then 1/4, ...
    for each n without a hit.
    Raises: ValueError if there are none, lengths differ, a reference is missing, or smoothing is
    another word.
    """
    pairs(hypotheses, references)
    counts = sum(_counts(h, r) for h, r in zip(hypotheses, references, strict=True))
    return _score(np.asarray(counts), smoothing, k, skip=False)


def sentence_bleu(
    hypothesis: Tokens, references: Sequence[Tokens], smoothing: str = "exp", k: float = 1.0
) -> float:
    """BLEU of one sentence, where hits of long n-grams are few: hence smoothing.

    A hypothesis of fewer than 4 tokens has no 4-gram. Such n are left out.
    Parameters and errors: see corpus_bleu.
    """
    return _score(_counts(hypothesis, references), smoothing, k, skip=True)


def _counts(hypothesis: Tokens, references: Sequence[Tokens]) -> np.ndarray:
    """(2, 1 + MAX_N): row 0 the tokens c, then hits(n); row 1 the tokens r, then total(n)."""
    tokens = token_list(hypothesis, "hypothesis")
    given = [token_list(r, "reference") for r in token_list(references, "references")]
    if not given:
        raise ValueError("references: expected at least one for each hypothesis, got none")
    # Of two references as near in length, the shorter.
    nearest = min((abs(len(r) - len(tokens)), len(r)) for r in given)[1]
    hits, totals = [len(tokens)], [nearest]
    for n in range(1, MAX_N + 1):
        allowed: Counter = Counter()
        for reference in given:
            allowed |= count_ngrams(reference, n)  # the larger count of each n-gram
        grams = count_ngrams(tokens, n)
        hits.append(shared(grams, allowed))
        totals.append(grams.total())
    return np.array([hits, totals])


def _score(counts: np.ndarray, smoothing: str, k: float, skip: bool) -> float:
    """BLEU from the sums of _counts. skip: leave out n for which there is no n-gram."""
    if smoothing not in SMOOTHING:
        raise ValueError(f"smoothing: expected {', '.join(SMOOTHING)}, got {smoothing!r}")
    positive(k, "k")
    (c, *hits), (r, *totals) = counts.tolist()
    if not hits[0]:  # no smoothing makes a match of nothing
        return 0.0
    added = k if smoothing == "add-k" else 0.0
    logs, stand_in = [], 1.0
    for n, (hit, total) in enumerate(zip(hits, totals, strict=True), 1):
        hit, total = (hit + added, total + added) if n > 1 else (hit, total)
        if skip and not total:
            continue
        if total and not hit and smoothing == "exp":
            hit = stand_in = stand_in / 2
        if not hit:
            return 0.0
        logs.append(math.log(hit / total))
    return math.exp(min(0.0, 1 - r / c)) * math.exp(sum(logs) / len(logs))
