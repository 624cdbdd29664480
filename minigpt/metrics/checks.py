"""What the metrics take, or ValueError naming what was wrong: a function for each kind."""

import math
from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 1e-5  # a softmax in float32 sums to 1 only nearly


def floats(values: ArrayLike, name: str, ndim: int | None = None) -> np.ndarray:
    """`values` as float64, of `ndim` axes unless None, not empty, no nan."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected an array of numbers, got {values!r:.60}") from error
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes, got shape {array.shape}")
    if not array.size:
        raise ValueError(f"{name}: expected at least one number, got none")
    if np.isnan(array).any():
        raise ValueError(f"{name}: expected numbers, got nan")
    return array


def finite(values: ArrayLike, name: str, ndim: int | None = None) -> np.ndarray:
    """The same, and no infinity either."""
    array = floats(values, name, ndim)
    if np.isinf(array).any():
        raise ValueError(f"{name}: expected finite numbers, got an infinite one")
    return array


def integers(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as (N,) int64, N >= 1."""
    array = np.asarray(values)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name}: expected (N,) integers, N >= 1, got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}")
    return array.astype(np.int64)


def classes(labels: ArrayLike, name: str, n_classes: int) -> np.ndarray:
    """`labels` as (N,) int64, each in 0..n_classes - 1."""
    at_least_1(n_classes, "n_classes")
    array = integers(labels, name)
    if array.min() < 0 or array.max() >= n_classes:
        wrong = array[(array < 0) | (array >= n_classes)][0]
        raise ValueError(f"{name}: {wrong} is out of range: expected 0 <= label < {n_classes}")
    return array


def probabilities(probs: ArrayLike, name: str) -> np.ndarray:
    """`probs` as (N, V) float64, each row a distribution."""
    array = finite(probs, name, 2)
    in_unit(array, name)
    sums = array.sum(1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > ROUNDING:
        raise ValueError(f"{name}: row {worst} sums to {sums[worst]:.6g}, expected 1")
    return array


def in_unit(array: np.ndarray, name: str) -> None:
    """Every number in 0..1, but for rounding."""
    if array.min() < 0 or array.max() > 1 + ROUNDING:
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name}: expected 0 <= probability <= 1, got {wrong:.6g}")


def equal_lengths(first: Sized, second: Sized, names: str) -> None:
    """Both as long, and not empty. names: "labels and predictions"."""
    if len(first) != len(second):
        raise ValueError(f"{names}: expected equal lengths, got {len(first)} and {len(second)}")
    if not len(first):
        raise ValueError(f"{names}: expected at least one of each, got none")


def pairs(hypotheses: Sequence[Any], references: Sequence[Any]) -> None:
    """Two lists, an entry of one for each of the other, and neither a string by itself."""
    for name, given in (("hypotheses", hypotheses), ("references", references)):
        if isinstance(given, str | bytes):
            raise ValueError(f"{name}: expected a list of texts, got one string {given!r:.60}")
    equal_lengths(hypotheses, references, "hypotheses and references")


def token_list(tokens: Sequence[Any], name: str) -> list[Any]:
    """`tokens` as a list. A string is refused: it would be scored by characters, unnoticed."""
    if isinstance(tokens, str | bytes) or not hasattr(tokens, "__len__"):
        raise ValueError(f"{name}: expected a list of tokens, got {tokens!r:.60}: split it first")
    return list(tokens)


def at_least_1(n: int, name: str) -> None:
    """A count: an integer of 1 or more."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {n!r}")


def positive(value: float, name: str) -> None:
    """A finite number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a positive, finite number, got {value!r}")


def share(value: float, name: str) -> None:
    """A number strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {value!r}")
