"""How surprised a language model is: perplexity, bits per byte, bits per character.

All three say the same thing as the loss, total nats, but share it among different units. Tokens
differ between vocabularies; bytes and characters do not, so only they compare tokenizers.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minigpt.metrics.checks import floats


class ByPosition(NamedTuple):
    """nats (T,) mean nats per token at each position; perplexity (T,) of each."""

    nats: np.ndarray
    perplexity: np.ndarray


def perplexity(nats: ArrayLike) -> float:
    """exp of the mean nats per token: among how many equally likely tokens it seems to choose.

    The mean is taken before exp: perplexities themselves must not be averaged.
    Shapes: nats any, >= 0, nats of each token  ->  a number >= 1; inf where a token had p = 0.
    Raises: ValueError if there are none, or one is negative or nan.
    Source: Jelinek et al. 1977, "Perplexity - a measure of the difficulty of speech recognition
    tasks".
    """
    with np.errstate(over="ignore"):  # above 709 nats it is inf
        return float(np.exp(_nats(nats).mean()))


def perplexity_by_position(nats: ArrayLike) -> ByPosition:
    """Mean nats and perplexity at each place in the block: does a longer context help?

    Shapes: nats (B, T), >= 0  ->  nats (T,), perplexity (T,).
    Raises: ValueError if there are none, they have no two axes, or one is negative or nan.
    Source: Khandelwal et al. 2018, arXiv:1805.04623, for the question.
    """
    mean = _nats(nats, 2).mean(0)  # (T,)
    with np.errstate(over="ignore"):
        return ByPosition(mean, np.exp(mean))


def bits_per_byte(total_nats: float, text: str) -> float:
    """Total nats of `text` in bits, shared among the bytes of its UTF-8 form.

    It is also how far the model with an arithmetic coder would compress: 8 is no compression.
    Raises: ValueError if the text is empty, or the nats are negative or nan.
    Source: Gao et al. 2020, arXiv:2101.00027, sec. 3.1.
    """
    return _bits(total_nats) / _size(len(text.encode("utf-8")))


def bits_per_character(total_nats: float, text: str) -> float:
    """Total nats of `text` in bits, shared among its characters (Unicode code points).

    Raises: ValueError if the text is empty, or the nats are negative or nan.
    Source: Shannon 1951, "Prediction and entropy of printed English".
    """
    return _bits(total_nats) / _size(len(text))


def _nats(nats: ArrayLike, ndim: int | None = None) -> np.ndarray:
    array = floats(nats, "nats", ndim)
    if array.min() < 0:
        raise ValueError(f"nats: expected none below 0, since p <= 1, got {array.min():.6g}")
    return array


def _bits(total_nats: float) -> float:
    return float(_nats(total_nats, 0)) / math.log(2)


def _size(size: int) -> int:
    if not size:
        raise ValueError("text: expected at least one character, got none")
    return size
