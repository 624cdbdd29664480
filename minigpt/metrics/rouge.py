"""ROUGE: how much of a reference summary is found again in a generated one.

ROUGE-1 and ROUGE-2 compare sets of n-grams, blind to where they stand. ROUGE-L compares order: the
longest list of tokens that both hold in the same order, gaps allowed. Precision is what is shared
over the hypothesis, recall the same over the reference.
Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries".
"""

from collections.abc import Sequence
from typing import Any

from minigpt.metrics.checks import at_least_1, token_list
from minigpt.metrics.classes import Score, f_measure
from minigpt.metrics.ngrams import count_ngrams, shared


def rouge_n(hypothesis: Sequence[Any], reference: Sequence[Any], n: int) -> Score:
    """ROUGE-n of lists of tokens: shared n-grams, each as often as both have it.

    Where a list has no n-gram, its share is 0.
    Raises: ValueError if n is no integer of at least 1, or a list is a string.
    """
    at_least_1(n, "n")
    ours = count_ngrams(token_list(hypothesis, "hypothesis"), n)
    theirs = count_ngrams(token_list(reference, "reference"), n)
    return _rouge(shared(ours, theirs), ours.total(), theirs.total())


def rouge_l(hypothesis: Sequence[Any], reference: Sequence[Any]) -> Score:
    """ROUGE-L of lists of tokens: the longest common subsequence.

    Time: the product of both lengths.
    Raises: ValueError if a list is a string.
    """
    ours, theirs = token_list(hypothesis, "hypothesis"), token_list(reference, "reference")
    return _rouge(_common_subsequence(ours, theirs), len(ours), len(theirs))


def _rouge(hits: int, ours: int, theirs: int) -> Score:
    precision, recall = hits / max(1, ours), hits / max(1, theirs)
    return Score(precision, recall, float(f_measure(precision, recall)))


def _common_subsequence(first: list[Any], second: list[Any]) -> int:
    """Length of the longest common subsequence.

    row[j] is that of the tokens of `first` so far and of second[:j]. A pair of equal tokens
    extends the best of both shorter lists; else one of the two tokens is dropped.
    """
    row = [0] * (len(second) + 1)
    for a in first:
        before = row
        row = [0]
        for j, b in enumerate(second):
            row.append(before[j] + 1 if a == b else max(before[j + 1], row[j]))
    return row[-1]
