"""n-grams of a list of tokens, and how many of them two lists share."""

from collections import Counter
from collections.abc import Sequence
from typing import Any


def count_ngrams(tokens: Sequence[Any], n: int) -> Counter[tuple]:
    """How often each n-gram occurs; empty if there are fewer than n tokens."""
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def shared(first: Counter, second: Counter) -> int:
    """n-grams in both, each as often as in the one that has it less often.

    So "the the the" shares one "the" with "the cat", not three.
    """
    return (first & second).total()
