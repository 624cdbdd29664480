"""The filters keep what their definitions say, and draws follow what they keep."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import scipy.stats

from minigpt.decoding import (
    Decoding,
    draw,
    log_probs,
    min_p,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
)

INF = math.inf


def probabilities(row):
    total = math.fsum(math.exp(x - max(row)) for x in row)
    return [math.exp(x - max(row)) / total for x in row]


def ranked(row):
    """Ids, the likeliest first; of equal ones, the smaller id."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))


def slow_temperature(row, t):
    if t == 0:
        return [0.0 if i == ranked(row)[0] else -INF for i in range(len(row))]
    return [(x - max(row)) / t for x in row]


def slow_top_k(row, k):
    return [x if k == 0 or ranked(row).index(i) < k else -INF for i, x in enumerate(row)]


def slow_top_p(row, p):
    kept, total = [], 0.0
    for i in ranked(row):
        if total < p or p == 1:
            kept.append(i)
        total += probabilities(row)[i]
    return [x if i in kept else -INF for i, x in enumerate(row)]


def slow_min_p(row, p):
    shares = probabilities(row)
    return [x if share >= p * max(shares) else -INF for x, share in zip(row, shares, strict=True)]


def slow_penalty(row, text, penalty):
    return [x if i not in text else x / penalty if x > 0 else x * penalty
            for i, x in enumerate(row)]  # fmt: skip


def with_ties(seed, dtype="float64"):
    """Logits (5, 12): few distinct values, and in two rows some are excluded already."""
    rng = np.random.default_rng(seed)
    logits = rng.choice([-3.1, -1.2, -0.4, 0.0, 0.7, 1.5, 2.3], (5, 12)).astype(dtype)
    logits[:2, 3:6] = -INF
    return logits


# The shares of min_p are no ratio of two of the values, so that rounding decides nothing.
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("fast", "slow", "values"),
    [
        (temperature, slow_temperature, [0, 0.3, 1.0, 2.5]),
        (top_k, slow_top_k, [0, 1, 2, 5, 11, 12, 13, 1000]),
        (top_p, slow_top_p, [1e-9, 0.0917, 0.3131, 0.7177, 0.9519, 0.9999991, 1.0]),
        (min_p, slow_min_p, [0.0, 0.003, 0.05, 0.27, 0.6, 1.0]),
    ],
)
def test_each_filter_equals_its_definition(fast, slow, values, dtype):
    for seed in range(40):
        logits = with_ties(seed, dtype)
        before = logits.copy()
        for value in values:
            wanted = [slow(row, value) for row in logits.tolist()]
            np.testing.assert_allclose(fast(logits, value), wanted, rtol=1e-6, atol=1e-6)
            assert (logits == before).all()


def test_the_penalty_equals_its_definition():
    rng = np.random.default_rng(0)
    for penalty in (0.5, 1.0, 1.3, 4.0):
        logits, texts = rng.normal(size=(3, 9)), [rng.integers(0, 9, n) for n in (1, 4, 40)]
        texts[1][:] = 2  # once or often: the same
        rows = zip(logits.tolist(), texts, strict=True)
        wanted = [slow_penalty(row, text.tolist(), penalty) for row, text in rows]
        np.testing.assert_allclose(repetition_penalty(logits, texts, penalty), wanted, rtol=1e-14)


def test_the_token_that_crosses_stays():
    logits = np.log([[0.125, 0.5, 0.25, 0.125]])
    for p, kept in (
        (0.49, [1]),
        (0.51, [1, 2]),
        (0.74, [1, 2]),
        (0.76, [0, 1, 2]),
        (1.0, [*range(4)]),
    ):
        assert np.flatnonzero(np.isfinite(top_p(logits, p)[0])).tolist() == kept


def test_top_p_of_one_keeps_what_rounding_would_lose():
    logits = np.array([[0.0, -40.0, -100.0]])
    assert np.isfinite(top_p(logits, 1.0)).all()


CHOICES = [
    Decoding(),
    Decoding(temperature=0.6),
    Decoding(temperature=1.7, top_k=5),
    Decoding(temperature=2.0, top_p=0.8),
    Decoding(temperature=1.3, min_p=0.2),
    Decoding(repetition_penalty=1.8),
    Decoding(temperature=1.4, top_k=7, top_p=0.9, min_p=0.15, repetition_penalty=1.5),
]


def exact(decoding, row, text):
    """Probabilities after every filter, in the order that Decoding states."""
    row = slow_temperature(slow_penalty(row, text, decoding.repetition_penalty),
                           decoding.temperature)  # fmt: skip
    row = slow_min_p(slow_top_p(slow_top_k(row, decoding.top_k), decoding.top_p), decoding.min_p)
    return np.array(probabilities(row))


@pytest.mark.parametrize("decoding", CHOICES)
def test_draws_follow_the_exact_distribution(decoding):
    """Chi-square over 200,000 draws. A right implementation fails for one seed in a million."""
    logits, text, n = np.array([1.1, -0.9, 0.2, 2.0, 1.9, -2.2, 0.6, 1.4]), [3, 1, 3], 200_000
    p = exact(decoding, logits.tolist(), text)
    filtered = decoding(logits[None], [np.array(text)])
    tokens = draw(np.broadcast_to(filtered, (n, 8)), np.random.default_rng(1))
    counts = np.bincount(tokens, minlength=8)
    assert (counts[p == 0] == 0).all()
    assert scipy.stats.chisquare(counts[p > 0], n * p[p > 0]).pvalue > 1e-6
    for other in CHOICES:  # and so many draws tell each of these from any other
        q = exact(other, logits.tolist(), text)
        if other != decoding:
            alien = counts[q == 0].any()
            kept = counts[q > 0]
            assert alien or scipy.stats.chisquare(kept, kept.sum() * q[q > 0]).pvalue < 1e-6


def test_the_filters_stand_in_the_stated_order():
    """On random logits, where another order would keep other tokens."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        logits, text = rng.normal(0, 2, (1, 10)), rng.integers(0, 10, 4)
        decoding = Decoding(
            temperature=rng.uniform(0.3, 2), top_k=int(rng.integers(2, 9)),
            top_p=rng.uniform(0.5, 1), min_p=rng.uniform(0, 0.3),
            repetition_penalty=rng.uniform(0.7, 2),
        )  # fmt: skip
        found = scipy.special.softmax(decoding(logits, [text]), axis=-1)[0]
        np.testing.assert_allclose(found, exact(decoding, logits[0].tolist(), text), atol=1e-12)


def test_temperature_zero_leaves_the_first_of_the_likeliest_whatever_else_is_asked():
    logits = np.array([[1.0, 3.0, 3.0, -1.0]])
    for decoding in CHOICES:
        if decoding.repetition_penalty == 1:
            found = replace(decoding, temperature=0)(logits, [np.array([1])])
            assert found.tolist() == [[-INF, 0, -INF, -INF]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_temperature_near_zero_is_greedy(dtype):
    logits = np.array([[1.0, 3.0, 2.0, -1.0]], dtype)
    for t in (1e-30, 1e-50, 1e-320):
        for options in ({}, {"top_p": 0.9}, {"min_p": 0.1}):
            filtered = Decoding(temperature=t, **options)(logits, [np.array([0])])
            assert draw(filtered, np.random.default_rng(0)) == [1]


def test_log_probs_equal_scipys():
    logits = np.random.default_rng(0).normal(0, 300, (4, 7))
    np.testing.assert_allclose(log_probs(logits), scipy.special.log_softmax(logits, axis=-1),
                               rtol=1e-13)  # fmt: skip


def test_a_generator_for_each_row():
    logits = np.random.default_rng(0).normal(size=(50, 6))
    rows = draw(logits, np.random.default_rng(1).spawn(50))
    generators = np.random.default_rng(1).spawn(50)
    alone = [draw(row[None], rng)[0] for row, rng in zip(logits, generators, strict=True)]
    assert rows.tolist() == alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be >= 0 and finite, got -0.1"),
        ({"temperature": math.nan}, "got nan"),
        ({"temperature": INF}, "got inf"),
        ({"top_k": -1}, "top_k must be an integer >= 0, got -1"),
        ({"top_k": 2.5}, "got 2.5"),
        ({"top_p": 0.0}, "top_p must be in 0 < top_p <= 1, got 0.0"),
        ({"top_p": 1.01}, "got 1.01"),
        ({"top_p": math.nan}, "got nan"),
        ({"min_p": -0.1}, "min_p must be in 0 <= min_p <= 1, got -0.1"),
        ({"min_p": 1.1}, "got 1.1"),
        ({"min_p": math.nan}, "got nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be positive and finite, got 0.0"),
        ({"repetition_penalty": INF}, "got inf"),
        ({"repetition_penalty": math.nan}, "got nan"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**options)
