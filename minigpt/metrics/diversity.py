"""Does a generated text repeat itself? Small models do: the likeliest token leads into a loop."""

from collections.abc import Sequence
from typing import Any

from minigpt.metrics.checks import at_least_1
from minigpt.metrics.ngrams import count_ngrams


def distinct_n(texts: Sequence[Sequence[Any]], n: int) -> float:
    """Different n-grams of all texts together, over all their n-grams: 1 if none comes twice.

    texts: lists of tokens, or strings, by characters. It falls as texts get longer: compare equal
    lengths only.
    Raises: ValueError if n is no integer of at least 1, no text has n tokens, or texts is a string.
    Source: Li et al. 2016, arXiv:1510.03055.
    """
    at_least_1(n, "n")
    if isinstance(texts, str):
        raise ValueError("texts: expected a list of texts, got one string")
    counts = [count_ngrams(text, n) for text in texts]
    total = sum(count.total() for count in counts)
    if not total:
        raise ValueError(f"texts: expected one of at least n = {n} tokens, got none")
    return len(set().union(*counts)) / total


def repetition_rate(text: Sequence[Any], n: int) -> float:
    """Share of a text's n-grams that stood before in the same text: 1 - distinct_n.

    text: a list of tokens, or a string, by characters.
    Raises: ValueError if n is no integer of at least 1, or the text is shorter.
    Source: Welleck et al. 2020, arXiv:1908.04319 (seq-rep-n).
    """
    return 1 - distinct_n([text], n)


def repeated_suffix(text: Sequence[Any]) -> int:
    """Tokens at the end that stood in the same order before: long if the text ended in a loop.

    Both places may overlap: "xababab" ends with "abab", seen two tokens before.
    fits[i] is the length of the longest beginning of the reversed text that ends again at i.
    text: a list of tokens, or a string, by characters.
    Raises: ValueError if the text is empty.
    Source: Knuth, Morris & Pratt 1977, "Fast pattern matching in strings", for fits.
    """
    if not len(text):
        raise ValueError("text: expected at least one token, got none")
    back = list(reversed(text))
    fits = [0]
    for token in back[1:]:
        fit = fits[-1]
        while fit and back[fit] != token:
            fit = fits[fit - 1]  # the next longest beginning that ends here
        fits.append(fit + (back[fit] == token))
    return max(fits)
