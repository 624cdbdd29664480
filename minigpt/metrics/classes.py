"""Classification: accuracy, the confusion matrix, precision, recall and F.

For one class, an item is found (predicted and right), missed, or a false alarm:

    precision = found / predicted,    recall = found / actual,
    F_beta = (1 + beta^2) precision recall / (beta^2 precision + recall).

beta says how many times recall counts as much as precision. A share of nothing, 0 / 0, is 0 here.
Source: van Rijsbergen 1979, "Information Retrieval", ch. 7; Manning et al. 2008, ch. 8 and 13.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minigpt.metrics.checks import classes, equal_lengths, finite, integers, positive


class Counts(NamedTuple):
    """Items of each class: found (K,) predicted rightly, predicted (K,), actual (K,)."""

    found: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray


class Scores(NamedTuple):
    """precision, recall, f: a share for each class, (K,) each."""

    precision: np.ndarray
    recall: np.ndarray
    f: np.ndarray


class Score(NamedTuple):
    """precision, recall, f: one share of each."""

    precision: float
    recall: float
    f: float


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of predictions that equal their label.

    Shapes: labels (N,) int; predictions (N,) int  ->  a number in 0..1.
    Raises: ValueError if lengths differ, or they are empty or no integers.
    """
    labels, predictions = integers(labels, "labels"), integers(predictions, "predictions")
    equal_lengths(labels, predictions, "labels and predictions")
    return float((labels == predictions).mean())


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, n_classes: int) -> np.ndarray:
    """How often each class (row) was taken for each (column).

    Shapes: labels (N,) int in 0..K-1; predictions (N,) likewise  ->  (K, K) int, sum N.
    Raises: ValueError if lengths differ, they are empty, or a label is out of range.
    """
    labels = classes(labels, "labels", n_classes)
    predictions = classes(predictions, "predictions", n_classes)
    equal_lengths(labels, predictions, "labels and predictions")
    cells = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)  # (K * K,)
    return cells.reshape(n_classes, n_classes)


def count_classes(labels: ArrayLike, predictions: ArrayLike, n_classes: int) -> Counts:
    """The counts behind precision and recall, where each item has one class.

    Shapes and errors: those of confusion_matrix  ->  three of (K,).
    """
    matrix = confusion_matrix(labels, predictions, n_classes)
    return Counts(matrix.diagonal(), matrix.sum(0), matrix.sum(1))


def count_tags(labels: ArrayLike, predictions: ArrayLike) -> Counts:
    """The same, where an item may have several classes, or none.

    Shapes: labels (N, K) of 0 and 1; predictions (N, K) likewise  ->  three of (K,) int.
    Raises: ValueError if shapes differ, they are empty, or hold anything but 0 and 1.
    """
    tags = []
    for name, given in (("labels", labels), ("predictions", predictions)):
        array = finite(given, name, 2)  # (N, K)
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"{name}: expected only 0 and 1")
        tags.append(array.astype(np.int64))
    actual, predicted = tags
    if actual.shape != predicted.shape:
        raise ValueError(
            f"labels and predictions: expected equal shapes, got {actual.shape}"
            f" and {predicted.shape}"
        )
    return Counts((actual * predicted).sum(0), predicted.sum(0), actual.sum(0))


def class_scores(counts: Counts, beta: float = 1.0) -> Scores:
    """Precision, recall and F_beta of each class; 0 / 0 is 0.

    Shapes: counts three of (K,)  ->  three of (K,).
    Raises: ValueError if beta is not positive.
    """
    found, predicted, actual = counts
    precision, recall = _share(found, predicted), _share(found, actual)
    return Scores(precision, recall, f_measure(precision, recall, beta))


def average_scores(counts: Counts, average: str, beta: float = 1.0) -> Score:
    """One precision, recall and F_beta for all classes.

    "macro": the mean over classes, each of which counts alike, and a rare one as much as a common
    one. "weighted": the mean with each class as often as it occurs. "micro": of the counts added
    up, so every item counts alike; with one class an item, all three are the accuracy.
    Shapes: counts three of (K,)  ->  three numbers.
    Raises: ValueError if `average` is none of these, or beta is not positive.
    """
    if average == "micro":
        total = Counts(*(np.atleast_1d(n.sum()) for n in counts))
        return Score(*(float(s[0]) for s in class_scores(total, beta)))
    if average not in ("macro", "weighted"):
        raise ValueError(f"average: expected macro, micro or weighted, got {average!r}")
    actual = counts.actual
    weights = np.full(len(actual), 1 / len(actual))
    if average == "weighted":
        weights = _share(actual, np.full(len(actual), actual.sum()))
    return Score(*(float(weights @ s) for s in class_scores(counts, beta)))


def f_measure(precision: ArrayLike, recall: ArrayLike, beta: float = 1.0) -> np.ndarray:
    """The weighted harmonic mean of precision and recall, 0 where both are 0.

    Shapes: precision any, recall any that broadcasts  ->  the same.
    Raises: ValueError if beta is not positive and finite.
    """
    positive(beta, "beta")
    precision, recall = np.asarray(precision), np.asarray(recall)
    return _share((1 + beta**2) * precision * recall, beta**2 * precision + recall)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where whole is 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0.0)
