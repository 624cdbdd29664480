"""Can a model's probabilities be believed? Of what it calls 80 % likely, 80 % should come true.

Calibration is apart from accuracy: dividing all logits by a temperature changes the confidence and
no choice at all, which is why one number fitted on held-out data mends much.
Source: Guo et al. 2017, arXiv:1706.04599.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minigpt.metrics.checks import (
    at_least_1,
    classes,
    equal_lengths,
    finite,
    in_unit,
    positive,
    probabilities,
)


class TopChoice(NamedTuple):
    """confidence (N,): the largest probability of each row; correct (N,): was it the label's?"""

    confidence: np.ndarray
    correct: np.ndarray


class Reliability(NamedTuple):
    """For each bin that is not empty: items in it, their mean confidence, the share correct."""

    size: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def top_choice(probs: ArrayLike, labels: ArrayLike) -> TopChoice:
    """What the model would answer, how sure it is, and whether that was right.

    Shapes: probs (N, V), rows sum to 1; labels (N,) int, 0 <= label < V  ->  two of (N,).
    Raises: ValueError if a row is no distribution, lengths differ, or a label is out of range.
    """
    probs, labels = _pair(probabilities(probs, "probs"), labels, "probs")
    return TopChoice(probs.max(1), probs.argmax(1) == labels)


def reliability(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 10, equal_mass: bool = False
) -> Reliability:
    """The reliability table: items sorted into bins by confidence.

    A bin holds low < confidence <= high. Bins are equally wide, or, with equal_mass, bounded by the
    quantiles of the confidences; equal confidences share a bin, so the order of items is nothing.
    Shapes: confidence (N,) in 0..1; correct (N,) of 0 and 1  ->  three of (up to bins,).
    Raises: ValueError if lengths differ, a number is out of range, or bins < 1.
    """
    at_least_1(bins, "bins")
    confidence, correct = finite(confidence, "confidence", 1), finite(correct, "correct", 1)
    equal_lengths(confidence, correct, "confidence and correct")
    in_unit(confidence, "confidence")
    if not np.isin(correct, (0, 1)).all():
        raise ValueError("correct: expected only 0 and 1, or False and True")
    edges = np.linspace(0, 1, bins + 1)
    if equal_mass:  # by whole ranks: an interpolated edge may miss its own number by rounding
        edges = np.sort(confidence)[np.arange(bins + 1) * (len(confidence) - 1) // bins]
    row = np.searchsorted(edges[1:-1], confidence)  # (N,) bin of each
    size, sure, right = (np.bincount(row, w, bins) for w in (None, confidence, correct))
    used = size > 0
    return Reliability(size[used], sure[used] / size[used], right[used] / size[used])


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 10, equal_mass: bool = False
) -> float:
    """Expected calibration error: |share correct - mean confidence|, averaged over all items.

    It hangs on the bins: too many, and chance looks like error. Shapes and errors: see reliability.
    Source: Naeini et al. 2015; equal mass: Nixon et al. 2019, arXiv:1904.01685.
    """
    table = reliability(confidence, correct, bins, equal_mass)
    gaps = np.abs(table.accuracy - table.confidence)
    return float(table.size @ gaps / table.size.sum())


def brier_score(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance of the probabilities from 1 at the label and 0 elsewhere, 0 to 2.

    With two classes, half of it is the squared error of the probability of one.
    Shapes: probs (N, V), rows sum to 1; labels (N,) int, 0 <= label < V  ->  a number.
    Raises: ValueError if a row is no distribution, lengths differ, or a label is out of range.
    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    probs, labels = _pair(probabilities(probs, "probs"), labels, "probs")
    at_label = probs[np.arange(len(labels)), labels]
    # sum_k p_k^2, with p_y^2 replaced by (p_y - 1)^2
    return float(((probs**2).sum(1) - 2 * at_label + 1).mean())


def nats_at_temperature(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> float:
    """Mean nats of the labels under softmax(logits / temperature).

    Shapes: logits (N, V); labels (N,) int, 0 <= label < V  ->  a number.
    Raises: ValueError if lengths differ, a label is out of range, or temperature is not positive.
    """
    logits, labels = _pair(finite(logits, "logits", 2), labels, "logits")
    positive(temperature, "temperature")
    z = (logits - logits.max(1, keepdims=True)) / temperature  # (N, V)
    at_label = z[np.arange(len(labels)), labels]
    return float((np.log(np.exp(z).sum(1)) - at_label).mean())


def best_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature at which these labels cost the fewest nats. Above 1: it was overconfident.

    The nats are convex in b = 1 / temperature, with slope mean(E[logit] - logit of the label). So
    the slope's sign says on which side the least lies, and halving finds it to the last digit;
    comparing the nats themselves would lose half of the digits.
    Shapes: logits (N, V); labels (N,) int, 0 <= label < V  ->  a number > 0.
    Raises: ValueError as nats_at_temperature, and if there is no best one: at 0 if every label has
    the largest logit, at infinity if labels have no larger logits than others on average.
    """
    logits, labels = _pair(finite(logits, "logits", 2), labels, "logits")
    z = logits - logits.max(1, keepdims=True)  # (N, V) <= 0
    at_label = z[np.arange(len(labels)), labels].mean()
    if at_label == 0:
        raise ValueError("every label has the largest logit: the best temperature would be 0")
    if z.mean() >= at_label:
        raise ValueError("logits say nothing of the labels: the best temperature is infinite")

    def slope(b: float) -> float:
        p = np.exp(b * z)  # (N, V)
        return float(((p * z).sum(1) / p.sum(1)).mean() - at_label)

    low = high = 1.0
    while slope(low) > 0:
        low /= 2
    while slope(high) < 0:
        high *= 2
    for _ in range(60):  # more halvings than float64 has binary digits
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def _pair(rows: np.ndarray, labels: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """rows (N, V) and labels (N,) below V, or ValueError."""
    labels = classes(labels, "labels", rows.shape[1])
    equal_lengths(rows, labels, f"{name} and labels")
    return rows, labels
