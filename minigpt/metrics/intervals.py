"""How sure a mean is: bootstrap intervals for many values, Student's for a few seeds.

A 95 % interval is made by a recipe that holds the true mean 95 times in 100. The bootstrap asks how
the mean would vary if the values at hand were the world: it needs some dozens of them. Of three to
ten seeds that is too little, and Student's t pays for the unknown spread; it takes the values to be
normal. Values must be independent: windows of one text are not quite.
Source: Efron & Tibshirani 1993, "An introduction to the bootstrap", ch. 13; Student 1908.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minigpt.metrics.checks import at_least_1, equal_lengths, finite, share


class Interval(NamedTuple):
    """The mean of the values at hand, and the ends of its interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: ArrayLike, rng: np.random.Generator, level: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Draw N values with replacement, many times: the middle `level` of their means.

    Shapes: values (N,), N >= 2.
    Raises: ValueError if N < 2, a value is not finite, level not in 0..1, or resamples < 1.
    Source: Efron 1979; the percentile interval.
    """
    values = _values(values)
    share(level, "level")
    at_least_1(resamples, "resamples")
    N = len(values)
    means = [values[rng.integers(0, N, N)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """The interval of mean(first - second), where entry i of both belongs to the same item.

    A hard item is hard for both models; in pairs, that cancels. 0 outside: more than chance.
    Shapes: first (N,), second (N,), N >= 2.
    Raises: ValueError if lengths differ, and as bootstrap_mean.
    Source: Koehn 2004, "Statistical significance tests for machine translation evaluation".
    """
    first, second = finite(first, "first", 1), finite(second, "second", 1)
    equal_lengths(first, second, "first and second")
    return bootstrap_mean(first - second, rng, level, resamples)


def student_mean(values: ArrayLike, level: float = 0.95) -> Interval:
    """mean +- t s / sqrt(N), s the standard deviation with N - 1, t of N - 1 degrees of freedom.

    For the difference of two models with the same seeds, give the differences.
    Shapes: values (N,), N >= 2.
    Raises: ValueError if N < 2, a value is not finite, or level not in 0..1.
    """
    values = _values(values)
    mean, N = float(values.mean()), len(values)
    margin = student_quantile(level, N - 1) * float(values.std(ddof=1)) / math.sqrt(N)
    return Interval(mean, mean - margin, mean + margin)


def student_quantile(level: float, freedom: int) -> float:
    """t such that |T| <= t with probability `level`, T of `freedom` degrees of freedom.

    The probability grows with t, so t is found by halving, in the angle arctan(t / sqrt(freedom)).
    Raises: ValueError if level is not in 0..1, or freedom is no integer of at least 1.
    """
    share(level, "level")
    at_least_1(freedom, "freedom")
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # more halvings than float64 has binary digits
        angle = (low + high) / 2
        low, high = (angle, high) if _student_within(angle, freedom) < level else (low, angle)
    return math.sqrt(freedom) * math.tan(angle)


def _student_within(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle)), a finite sum for a whole number of degrees of freedom.

    Source: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for j in range(1 + odd, freedom, 2):  # each term is the one before times cos^2 j / (j + 1)
        total += term
        term *= cosine**2 * j / (j + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _values(values: ArrayLike) -> np.ndarray:
    array = finite(values, "values", 1)
    if len(array) < 2:
        raise ValueError("values: expected at least 2, since one shows no spread, got 1")
    return array
