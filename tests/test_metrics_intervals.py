"""Intervals of a mean beside SciPy's; they hold the true mean as often as they say."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from minigpt import metrics as m

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def test_the_bootstrap_equals_scipy_with_the_same_draws():
    for seed in range(100):
        values = np.random.default_rng(seed).lognormal(size=3 + seed % 30)
        level = LEVELS[seed % 5]
        mean, *ends = m.bootstrap_mean(values, np.random.default_rng(seed), level, 200)
        want = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=200, confidence_level=level, method="percentile",
            rng=np.random.default_rng(seed)).confidence_interval  # fmt: skip
        np.testing.assert_allclose(ends, want, rtol=0, atol=1e-9)
        assert mean == pytest.approx(values.mean(), abs=1e-12)


def test_the_bootstrap_repeats_with_its_generator_and_varies_with_another():
    values = np.random.default_rng(0).normal(size=30)
    first, same, other = (
        m.bootstrap_mean(values, np.random.default_rng(seed), resamples=200) for seed in (1, 1, 2)
    )
    assert first == same != other


def test_pairs_cancel_what_both_have():
    rng = np.random.default_rng(0)
    hardness = rng.normal(scale=100, size=50)
    noise = rng.normal(size=(2, 50))
    first, second = hardness + noise[0], hardness + noise[1] - 2
    paired = m.bootstrap_difference(first, second, np.random.default_rng(1), resamples=500)
    alone = m.bootstrap_mean(first - second, np.random.default_rng(1), resamples=500)
    assert paired == alone
    assert 1 < paired.low < paired.mean < paired.high < 3
    reverse = m.bootstrap_difference(second, first, np.random.default_rng(1), resamples=500)
    np.testing.assert_allclose(reverse, [-paired.mean, -paired.high, -paired.low], atol=1e-9)


def test_student_quantiles_equal_scipy():
    for freedom in [*range(1, 60), 1000]:
        for level in (*LEVELS, 0.01, 0.9999):
            want = scipy.stats.t.ppf((1 + level) / 2, freedom)
            np.testing.assert_allclose(m.student_quantile(level, freedom), want, rtol=1e-9)


def test_student_quantiles_by_hand():
    assert m.student_quantile(0.5, 1) == pytest.approx(1)  # Cauchy: tan(pi / 4)
    assert m.student_quantile(0.95, 2) == pytest.approx(0.95 / math.sqrt((1 - 0.95**2) / 2))


def test_student_intervals_equal_scipy():
    for seed in range(100):
        values = np.random.default_rng(seed).normal(5, 2, 2 + seed % 9)
        mean, *ends = m.student_mean(values, LEVELS[seed % 5])
        want = scipy.stats.ttest_1samp(values, 0).confidence_interval(LEVELS[seed % 5])
        np.testing.assert_allclose(ends, want, rtol=1e-9)
        assert mean == pytest.approx(values.mean())


def test_student_holds_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [m.student_mean(rng.normal(7, 3, 4), 0.9) for _ in range(1000)]
    held = np.mean([low <= 7 <= high for _, low, high in intervals])
    assert abs(held - 0.9) < 4 * math.sqrt(0.9 * 0.1 / 1000)


def test_the_bootstrap_of_few_values_is_too_narrow_and_of_many_is_not():
    rng = np.random.default_rng(0)
    held = {}
    for N in (3, 60):
        draws = [m.bootstrap_mean(rng.normal(size=N), rng, 0.9, 100) for _ in range(100)]
        held[N] = np.mean([low <= 0 <= high for _, low, high in draws])
    assert held[3] < 0.8 < held[60]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=10), st.randoms())
def test_intervals_have_their_properties(values, random):
    narrow, wide = m.student_mean(values, 0.5), m.student_mean(values, 0.99)
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high
    boot = m.bootstrap_mean(values, np.random.default_rng(0), resamples=20)
    assert min(values) - 1e-9 <= boot.low <= boot.high <= max(values) + 1e-9
    random.shuffle(values)
    np.testing.assert_allclose(m.student_mean(values, 0.5), narrow, atol=1e-6)


RNG = np.random.default_rng(0)
REFUSED = [
    (lambda: m.bootstrap_mean([], RNG), "values: expected at least one number"),
    (lambda: m.bootstrap_mean([1.0], RNG), "values: expected at least 2, since one shows no spre"),
    (lambda: m.bootstrap_mean([1.0, math.nan], RNG), "values: expected numbers, got nan"),
    (lambda: m.bootstrap_mean([1.0, math.inf], RNG), "values: expected finite numbers"),
    (lambda: m.bootstrap_mean([[1.0, 2.0]], RNG), "values: expected 1 axes"),
    (lambda: m.bootstrap_mean([1.0, 2.0], RNG, 95), "level: expected a number between 0 and 1, g"),
    (lambda: m.bootstrap_mean([1.0, 2.0], RNG, resamples=0), "resamples: expected an integer of"),
    (lambda: m.bootstrap_difference([1.0, 2.0], [1.0], RNG), "first and second: expected equal"),
    (lambda: m.bootstrap_difference([1.0], [math.nan], RNG), "second: expected numbers, got nan"),
    (lambda: m.student_mean([1.0]), "values: expected at least 2"),
    (lambda: m.student_mean([1.0, math.nan]), "values: expected numbers, got nan"),
    (lambda: m.student_mean([1.0, 2.0], 1.0), "level: expected a number between 0 and 1, got 1.0"),
    (lambda: m.student_quantile(0.9, 0), "freedom: expected an integer of at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
