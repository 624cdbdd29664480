"""Answers that must be right to the token: exact match, edit distance, word error rate."""

from collections.abc import Sequence
from typing import Any

from minigpt.metrics.checks import pairs, token_list


def exact_match(hypotheses: Sequence[Any], references: Sequence[Any]) -> float:
    """Share of hypotheses that equal their reference. Normalise both first if case is no matter.

    Raises: ValueError if lengths differ or there are none.
    """
    pairs(hypotheses, references)
    return sum(h == r for h, r in zip(hypotheses, references, strict=True)) / len(hypotheses)


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Fewest tokens to insert, delete or replace, to make one of the other.

    Works on lists of tokens and on strings, by characters. Time: the product of both lengths.
    row[j] is the distance from the tokens of `first` so far to second[:j].
    Source: Levenshtein 1966; Wagner & Fischer 1974.
    """
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before = row
        row = [i]
        for j, b in enumerate(second):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (a != b)))
    return row[-1]


def word_error_rate(hypotheses: Sequence[Sequence[Any]], references: Sequence[Sequence]) -> float:
    """Edits in all over tokens of the references in all; above 1 if much was put in.

    hypotheses, references: lists of lists of tokens.
    Raises: ValueError if lengths differ, there are none, no reference has a token, or one is a
    string.
    """
    pairs(hypotheses, references)
    ours = [token_list(h, "hypothesis") for h in hypotheses]
    theirs = [token_list(r, "reference") for r in references]
    total = sum(map(len, theirs))
    if not total:
        raise ValueError("references: expected at least one token, got none")
    return sum(map(edit_distance, ours, theirs)) / total
