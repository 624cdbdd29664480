"""Metrics of a model's numbers, each beside scikit-learn's, or SciPy's, or the definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from minigpt import metrics as m

CASES = 100
CLOSE = {"rtol": 0, "atol": 1e-9}


def labelled(seed):
    """A case with K classes, of which some may be absent, or never predicted."""
    rng = np.random.default_rng(seed)
    K, N = int(rng.integers(2, 7)), int(rng.integers(1, 40))
    skew = rng.dirichlet(np.full(K, 0.5))
    labels = rng.choice(K, N, p=skew)
    guesses = np.where(rng.random(N) < 0.5, labels, rng.integers(0, K, N))
    return K, labels, guesses


def scored(seed, wide=2.0):
    """Logits (N, V) and labels that agree with them more often than not."""
    rng = np.random.default_rng(seed)
    N, V = int(rng.integers(30, 80)), int(rng.integers(2, 8))
    logits = wide * rng.normal(size=(N, V))
    labels = np.where(rng.random(N) < 0.6, logits.argmax(1), rng.integers(0, V, N))
    return logits, labels


# --- language ---


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    assert m.perplexity(np.full((3, 5), math.log(65))) == pytest.approx(65, rel=1e-12)
    assert m.perplexity(math.log(65)) == pytest.approx(65, rel=1e-12)


def test_perplexity_by_hand():
    # p = 1/2, 1/8: the mean is 2 ln 2, so 4; the mean of 2 and 8 would be 5.
    assert m.perplexity([math.log(2), math.log(8)]) == pytest.approx(4, rel=1e-12)
    assert m.perplexity([0.0, math.inf]) == math.inf
    assert m.perplexity([800.0]) == math.inf
    assert m.perplexity([0.0]) == 1.0


def test_perplexity_equals_the_product_of_probabilities():
    for seed in range(CASES):
        p = np.random.default_rng(seed).uniform(0.01, 1, 1 + seed % 20)
        want = np.prod(p) ** (-1 / len(p))
        np.testing.assert_allclose(m.perplexity(-np.log(p)), want, rtol=1e-12)


def test_perplexity_by_position_averages_over_the_batch_only():
    nats = np.log([[2.0, 4.0, 1.0], [8.0, 4.0, 1.0]])
    table = m.perplexity_by_position(nats)
    np.testing.assert_allclose(table.nats, np.log([4, 4, 1]), **CLOSE)
    np.testing.assert_allclose(table.perplexity, [4, 4, 1], **CLOSE)
    assert m.perplexity(nats) == pytest.approx(math.exp(table.nats.mean()))


def test_bits_are_shared_among_bytes_or_characters():
    text = "née"  # three characters, four bytes
    assert m.bits_per_character(6 * math.log(2), text) == pytest.approx(2)
    assert m.bits_per_byte(6 * math.log(2), text) == pytest.approx(1.5)
    assert m.bits_per_byte(0.0, "a") == 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.randoms())
def test_perplexity_is_bounded_and_blind_to_order(nats, random):
    value = m.perplexity(nats)
    assert math.exp(min(nats)) * (1 - 1e-9) <= value <= math.exp(max(nats)) * (1 + 1e-9)
    random.shuffle(nats)
    assert m.perplexity(nats) == pytest.approx(value, rel=1e-12)


# --- classes ---


def test_counts_by_hand():
    labels, guesses = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 1]
    assert m.confusion_matrix(labels, guesses, 4).tolist() == [
        [2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]  # fmt: skip
    scores = m.class_scores(m.count_classes(labels, guesses, 4))
    np.testing.assert_allclose(scores.precision, [2 / 3, 1 / 3, 0, 0], **CLOSE)
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 2, 0, 0], **CLOSE)
    np.testing.assert_allclose(scores.f, [2 / 3, 2 / 5, 0, 0], **CLOSE)
    assert m.accuracy(labels, guesses) == 0.5


def test_classes_equal_scikit_learn():
    for seed in range(CASES):
        K, labels, guesses = labelled(seed)
        counts, names = m.count_classes(labels, guesses, K), range(K)
        assert m.accuracy(labels, guesses) == pytest.approx(sk.accuracy_score(labels, guesses))
        matrix = sk.confusion_matrix(labels, guesses, labels=names)
        assert np.array_equal(m.confusion_matrix(labels, guesses, K), matrix)
        options = {"beta": (1.0, 0.5, 2.0)[seed % 3], "labels": names, "zero_division": 0}
        want = sk.precision_recall_fscore_support(labels, guesses, **options)
        np.testing.assert_allclose(m.class_scores(counts, options["beta"]), want[:3], **CLOSE)
        assert np.array_equal(counts.actual, want[3])
        for average in ("macro", "micro", "weighted"):
            got = m.average_scores(counts, average, options["beta"])
            want = sk.precision_recall_fscore_support(labels, guesses, average=average, **options)
            np.testing.assert_allclose(got, want[:3], **CLOSE)


def test_tags_equal_scikit_learn():
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        shape = int(rng.integers(1, 12)), int(rng.integers(2, 6))
        labels, guesses = (rng.random((2, *shape)) < rng.random()).astype(int)
        counts = m.count_tags(labels, guesses)
        want = sk.precision_recall_fscore_support(labels, guesses, zero_division=0)
        np.testing.assert_allclose(m.class_scores(counts), want[:3], **CLOSE)
        average = ("macro", "micro", "weighted")[seed % 3]
        want = sk.precision_recall_fscore_support(labels, guesses, average=average, zero_division=0)
        np.testing.assert_allclose(m.average_scores(counts, average), want[:3], **CLOSE)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1), st.randoms())
def test_scores_of_classes_have_their_properties(pairs, random):
    labels, guesses = np.array(pairs).T
    counts = m.count_classes(labels, guesses, 4)
    micro = m.average_scores(counts, "micro")
    np.testing.assert_allclose(micro, m.accuracy(labels, guesses))
    weighted = m.average_scores(counts, "weighted")
    assert weighted.recall == pytest.approx(micro.recall)
    scores = m.class_scores(counts)
    assert all(s.min() >= 0 and s.max() <= 1 for s in scores)
    assert (scores.f <= np.maximum(scores.precision, scores.recall) + 1e-12).all()
    swapped = m.class_scores(m.count_classes(guesses, labels, 4))
    assert np.array_equal(swapped.precision, scores.recall)
    random.shuffle(pairs)
    again = m.count_classes(*np.array(pairs).T, 4)
    assert all(map(np.array_equal, again, counts))


# --- calibration ---


def test_a_reliability_table_by_hand():
    # Two bins: (0, 1/2] holds 0.2 and 0.5; (1/2, 1] holds 0.6, 0.8 and 1.
    sure, right = [0.6, 0.2, 1.0, 0.5, 0.8], [0, 0, 1, 1, 1]
    table = m.reliability(sure, right, bins=2)
    assert table.size.tolist() == [2, 3]
    np.testing.assert_allclose(table.confidence, [0.35, 0.8], **CLOSE)
    np.testing.assert_allclose(table.accuracy, [0.5, 2 / 3], **CLOSE)
    want = (2 * 0.15 + 3 * (0.8 - 2 / 3)) / 5
    assert m.calibration_error(sure, right, bins=2) == pytest.approx(want)


def test_what_is_sure_and_right_is_calibrated_and_what_is_sure_and_wrong_is_not():
    assert m.calibration_error([1.0, 1.0], [1, 1]) == 0
    assert m.calibration_error([1.0, 1.0], [False, False]) == 1
    assert m.brier_score(np.eye(3), [0, 1, 2]) == 0
    assert m.brier_score(np.eye(3), [1, 2, 0]) == 2
    assert m.brier_score(np.full((2, 4), 0.25), [0, 3]) == pytest.approx(0.75)


@pytest.mark.parametrize("mass", [False, True])
def test_the_table_equals_scikit_learn(mass):
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        N, bins = int(rng.integers(5, 80)), int(rng.integers(1, 12))
        while mass and math.gcd(N - 1, bins) > 1:  # scikit-learn's edge may miss its own number
            N += 1
        sure = np.round(rng.random(N), 2)  # with ties, and on the edges of bins
        right = rng.random(N) < sure
        right[:2] = False, True  # scikit-learn wants both
        table = m.reliability(sure, right, bins, mass)
        accuracy, confidence = calibration_curve(
            right, sure, n_bins=bins, strategy="quantile" if mass else "uniform"
        )
        np.testing.assert_allclose(table.accuracy, accuracy, **CLOSE)
        np.testing.assert_allclose(table.confidence, confidence, **CLOSE)
        assert table.size.sum() == N
        order = rng.permutation(N)
        error = m.calibration_error(sure, right, bins, mass)
        assert m.calibration_error(sure[order], right[order], bins, mass) == pytest.approx(error)
        assert abs(sure.mean() - right.mean()) - 1e-12 <= error <= 1


def test_the_calibration_error_equals_the_definition():
    for seed in range(CASES):
        probs, labels = softmax(scored(seed)[0], axis=1), scored(seed)[1]
        sure, right = m.top_choice(probs, labels)
        want = 0.0
        for b in range(10):
            inside = [i for i, p in enumerate(sure) if b / 10 < p <= (b + 1) / 10]
            if inside:
                hits = sum(probs[i].argmax() == labels[i] for i in inside) / len(inside)
                gap = abs(hits - sum(probs[i].max() for i in inside) / len(inside))
                want += gap * len(inside) / len(labels)
        np.testing.assert_allclose(m.calibration_error(sure, right), want, **CLOSE)


def test_equal_mass_goes_by_whole_ranks():
    # A fraction (k + 1) / bins of the N - 1 steps from the least to the largest, and ties with it.
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        bins = int(rng.integers(1, 8))
        sure = rng.integers(0, 30, bins * int(rng.integers(1, 9)) + 1) / 30
        ranked, sizes = sorted(sure), [0] * bins
        for p in sure:
            sizes[
                min(k for k in range(bins) if p <= ranked[(k + 1) * (len(sure) - 1) // bins])
            ] += 1
        table = m.reliability(sure, sure > 0.5, bins, equal_mass=True)
        assert table.size.tolist() == [size for size in sizes if size]


def test_equal_mass_fills_bins_alike():
    sure = np.random.default_rng(0).beta(8, 1, 100)  # most are near 1
    assert m.reliability(sure, sure > 0.5, 5, equal_mass=True).size.tolist() == [20] * 5
    assert m.reliability(sure, sure > 0.5, 5).size.max() > 50


def test_brier_equals_the_definition_and_scikit_learn():
    for seed in range(CASES):
        logits, labels = scored(seed)
        probs = softmax(logits, axis=1)
        target = np.eye(probs.shape[1])[labels]
        want = np.mean(np.sum((probs - target) ** 2, axis=1))
        np.testing.assert_allclose(m.brier_score(probs, labels), want, **CLOSE)
        p = probs[:, 0]  # two classes: this one, and the rest
        two = m.brier_score(np.stack([1 - p, p], 1), (labels == 0).astype(int))
        want = sk.brier_score_loss(labels == 0, p, pos_label=True)
        np.testing.assert_allclose(two / 2, want, **CLOSE)


def test_nats_at_a_temperature_equal_scipy():
    for seed in range(CASES):
        logits, labels = scored(seed)
        temperature = 0.1 + seed / 20
        want = -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()
        np.testing.assert_allclose(
            m.nats_at_temperature(logits, labels, temperature), want, **CLOSE
        )


def test_the_best_temperature_equals_the_root_of_the_slope_in_scipy():
    for seed in range(CASES):
        logits, labels = scored(seed, wide=10.0 ** (seed % 5 - 2))
        at_label = logits[np.arange(len(labels)), labels].mean()

        def slope(x, logits=logits, at_label=at_label):
            return (softmax(math.exp(x) * logits, axis=1) * logits).sum(1).mean() - at_label

        want = math.exp(-brentq(slope, -15, 15, xtol=1e-14))
        np.testing.assert_allclose(m.best_temperature(logits, labels), want, rtol=1e-9)


def test_the_best_temperature_by_hand_and_around_it():
    # Two classes, logits 0 and 3, right 3 times in 4: sigmoid(3 / T) = 3/4, so T = 3 / ln 3.
    logits, labels = np.array([[0.0, 3.0]] * 4), [1, 1, 1, 0]
    best = m.best_temperature(logits, labels)
    assert best == pytest.approx(3 / math.log(3), rel=1e-12)
    least = m.nats_at_temperature(logits, labels, best)
    assert all(m.nats_at_temperature(logits, labels, best * t) > least for t in (0.9, 1.1))
    assert m.best_temperature(10 * logits, labels) == pytest.approx(10 * best, rel=1e-12)
    assert m.best_temperature(logits + 1000, labels) == pytest.approx(best, rel=1e-9)


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_calibrated_probabilities_lose_nothing_to_a_temperature(seed):
    logits, labels = scored(seed)
    best = m.best_temperature(logits, labels)
    least = m.nats_at_temperature(logits, labels, best)
    assert least <= m.nats_at_temperature(logits, labels) + 1e-12
    assert m.best_temperature(logits / best, labels) == pytest.approx(1, rel=1e-9)


# --- bad input ---

HALF = [[0.5, 0.5]]
REFUSED = [
    (lambda: m.perplexity([]), "nats: expected at least one number"),
    (lambda: m.perplexity([0.1, math.nan]), "nats: expected numbers, got nan"),
    (lambda: m.perplexity([-0.1]), "nats: expected none below 0"),
    (lambda: m.perplexity("many"), "nats: expected an array of numbers, got 'many'"),
    (lambda: m.perplexity([[1.0], [1.0, 2.0]]), "nats: expected an array of numbers"),
    (lambda: m.perplexity_by_position([0.1]), r"nats: expected 2 axes, got shape \(1,\)"),
    (lambda: m.bits_per_byte(1.0, ""), "text: expected at least one character"),
    (lambda: m.bits_per_character(1.0, ""), "text: expected at least one character"),
    (lambda: m.bits_per_byte(math.nan, "a"), "nats: expected numbers, got nan"),
    (lambda: m.bits_per_character(-1.0, "a"), "nats: expected none below 0"),
    (lambda: m.bits_per_byte([1.0], "a"), "nats: expected 0 axes"),
    (lambda: m.accuracy([0, 1], [0]), "labels and predictions: expected equal lengths, got 2 and"),
    (lambda: m.accuracy([], []), r"labels: expected \(N,\) integers, N >= 1, got shape \(0,\)"),
    (lambda: m.accuracy([0], [0.0]), "predictions: expected integers, got dtype float64"),
    (lambda: m.confusion_matrix([0, 3], [0, 1], 3), "labels: 3 is out of range: expected 0 <= lab"),
    (lambda: m.confusion_matrix([0, 1], [0, -1], 3), "predictions: -1 is out of range"),
    (lambda: m.confusion_matrix([0], [0, 1], 3), "expected equal lengths, got 1 and 2"),
    (lambda: m.confusion_matrix([0], [0], 0), "n_classes: expected an integer of at least 1"),
    (lambda: m.count_tags([[0, 2]], [[0, 1]]), "labels: expected only 0 and 1"),
    (lambda: m.count_tags([[0, 1]], [[0]]), r"expected equal shapes, got \(1, 2\) and \(1, 1\)"),
    (lambda: m.count_tags([[]], [[]]), "labels: expected at least one"),
    (lambda: m.class_scores(m.count_tags([[1]], [[1]]), 0), "beta: expected a positive"),
    (lambda: m.average_scores(m.count_tags([[1]], [[1]]), "mean"), "average: expected macro, mic"),
    (lambda: m.f_measure(0.5, 0.5, math.nan), "beta: expected a positive, finite number"),
    (lambda: m.reliability([0.5], [1], 0), "bins: expected an integer of at least 1, got 0"),
    (lambda: m.reliability([0.5], [1], 2.5), "bins: expected an integer of at least 1, got 2.5"),
    (lambda: m.reliability([], []), "confidence: expected at least one number"),
    (lambda: m.reliability([0.5, 0.5], [1]), "confidence and correct: expected equal lengths"),
    (lambda: m.reliability([1.5], [1]), "confidence: expected 0 <= probability <= 1, got 1.5"),
    (lambda: m.reliability([-0.5], [1]), "confidence: expected 0 <= probability <= 1, got -0.5"),
    (lambda: m.reliability([math.nan], [1]), "confidence: expected numbers, got nan"),
    (lambda: m.calibration_error([0.5], [0.5]), "correct: expected only 0 and 1"),
    (lambda: m.top_choice([[0.5, 0.6]], [0]), "probs: row 0 sums to 1.1, expected 1"),
    (lambda: m.top_choice([*HALF, [0.9, 0.0]], [0, 1]), "probs: row 1 sums to 0.9, expected 1"),
    (lambda: m.brier_score([[1.5, -0.5]], [0]), "probs: expected 0 <= probability <= 1, got -0.5"),
    (lambda: m.brier_score(HALF, [2]), "labels: 2 is out of range"),
    (lambda: m.brier_score(HALF, [0, 1]), "probs and labels: expected equal lengths, got 1 and 2"),
    (lambda: m.brier_score([[math.nan, 1.0]], [0]), "probs: expected numbers, got nan"),
    (lambda: m.brier_score([0.5, 0.5], [0]), "probs: expected 2 axes"),
    (lambda: m.nats_at_temperature(HALF, [0], 0), "temperature: expected a positive"),
    (lambda: m.nats_at_temperature([[math.inf, 0]], [0]), "logits: expected finite numbers"),
    (lambda: m.nats_at_temperature(HALF, [0, 1]), "logits and labels: expected equal lengths"),
    (lambda: m.best_temperature([[0, 1]], [1]), "every label has the largest logit"),
    (lambda: m.best_temperature([[0, 1]], [0]), "logits say nothing of the labels"),
    (lambda: m.best_temperature([[0, 1], [0, 1]], [0, 1]), "the best temperature is infinite"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_softmax_in_float32_is_a_distribution():
    logits = np.random.default_rng(0).normal(size=(4, 50_000)).astype(np.float32)
    e = np.exp(logits)
    assert 0 < m.brier_score(e / e.sum(1, keepdims=True), [0, 1, 2, 3]) < 2


def test_inputs_are_not_changed():
    logits, labels = scored(0)
    before = logits.copy()
    logits.flags.writeable = labels.flags.writeable = False
    m.best_temperature(logits, labels)
    m.confusion_matrix(labels, labels, 8)
    assert np.array_equal(logits, before)
