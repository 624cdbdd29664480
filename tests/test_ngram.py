"""The vectorised n-gram against the formula written with dictionaries, and facts that must hold."""

from collections import Counter, defaultdict
from math import log

import numpy as np
import pytest

from minigpt import data
from minigpt.baselines.ngram import NGram
from minigpt.tokenizer import CharTokenizer

# Nats per character on the test part of facts, orders 1 to 7: recorded, and rounded to 4 places.
FACTS_NATS = [3.1896, 2.4969, 2.0822, 1.7303, 1.5711, 1.5585, 1.6062]


class ByTheFormula:
    """Witten-Bell with a dictionary from context to the counts of what followed it."""

    def __init__(self, train, vocab_size):
        self.vocab_size = vocab_size
        self.after: defaultdict[tuple, Counter] = defaultdict(Counter)
        for length in range(7):
            for i in range(length, len(train)):
                self.after[tuple(train[i - length : i])][train[i]] += 1

    def prob(self, w, h):
        """P of token w after the whole of context h, a tuple."""
        shorter = self.prob(w, h[1:]) if h else 1 / self.vocab_size
        if h not in self.after:
            return shorter
        c = self.after[h]
        return (c[w] + len(c) * shorter) / (sum(c.values()) + len(c))

    def nats(self, ids, order):
        return [
            -log(self.prob(w, tuple(ids[max(0, i - order + 1) : i]))) for i, w in enumerate(ids)
        ]


def random_ids(rng, n, vocab_size):
    """A text in which some tokens are rare: contexts of all kinds, seen and not."""
    return (vocab_size * rng.random(n) ** 2).astype(np.int64)


@pytest.fixture(scope="module")
def facts():
    """(vocabulary size, train ids, test ids) of the default corpus."""
    corpus = data.load("facts")
    parts, tokenizer = data.split(corpus), CharTokenizer.from_text(corpus.text)
    return tokenizer.vocab_size, tokenizer.encode(parts.train), tokenizer.encode(parts.test)


@pytest.mark.parametrize("order", range(1, 8))
def test_equals_the_formula(order):
    rng = np.random.default_rng(order)
    train, held_out = random_ids(rng, 300, 6), rng.integers(0, 7, 200)  # token 6 is never seen
    slow = ByTheFormula(train.tolist(), 7)
    model = NGram(order, 7).fit(train)
    np.testing.assert_allclose(
        model.nats(held_out), slow.nats(held_out.tolist(), order), rtol=1e-12, atol=0
    )
    for n in range(9):  # contexts shorter and longer than needed
        context = held_out[:n].tolist()
        used = tuple(context[max(0, n - order + 1) :])
        np.testing.assert_allclose(
            model.probs(context), [slow.prob(w, used) for w in range(7)], rtol=1e-12, atol=0
        )


def test_order_1_by_hand():
    # Training text 0 0 1, V = 4: c = (2, 1, 0, 0), n = 3, t = 2, so P(w) = (c + 2/4) / (3 + 2).
    model = NGram(1, 4).fit([0, 0, 1])
    np.testing.assert_allclose(model.probs([]), [0.5, 0.3, 0.1, 0.1], rtol=1e-15)
    np.testing.assert_allclose(model.nats([1, 3]), [-log(0.3), -log(0.1)], rtol=1e-15)


def test_order_2_by_hand():
    # Same text. After 0: 0 once, 1 once, so c = 2, t = 2. The 1 that ends the text has no
    # continuation: it says nothing and backs off to order 1.
    model = NGram(2, 4).fit([0, 0, 1])
    np.testing.assert_allclose(
        model.probs([0]), [(1 + 2 * 0.5) / 4, (1 + 2 * 0.3) / 4, 0.05, 0.05], rtol=1e-15
    )
    for context in ([1], [3], [0, 1]):
        np.testing.assert_allclose(model.probs(context), [0.5, 0.3, 0.1, 0.1], rtol=1e-15)


def test_large_vocabulary_keeps_contexts_apart():
    # With keys sum_i w_i V^(6-i) in 64 bits, V = 1024 = 2^10 loses all but 4 bits of the oldest
    # token: contexts that begin with 0, 16 and 32 would be one.
    rng = np.random.default_rng(0)
    train, held_out = 16 * rng.integers(0, 3, 2000), 16 * rng.integers(0, 3, 300)
    slow = ByTheFormula(train.tolist(), 1024)
    np.testing.assert_allclose(
        NGram(7, 1024).fit(train).nats(held_out),
        slow.nats(held_out.tolist(), 7),
        rtol=1e-12,
        atol=0,
    )


def test_one_fit_scores_every_order():
    rng = np.random.default_rng(0)
    train, held_out = random_ids(rng, 500, 5), random_ids(rng, 100, 5)
    table = NGram(5, 5).fit(train).nats_by_order(held_out)
    assert table.shape == (5, 100)
    for order in range(1, 6):
        assert np.array_equal(table[order - 1], NGram(order, 5).fit(train).nats(held_out))


def test_probs_sum_to_1_and_are_what_nats_scores(facts):
    vocab_size, train, held_out = facts
    model = NGram(5, vocab_size).fit(train)
    nats = model.nats(held_out[:60])
    for i in range(60):
        p = model.probs(held_out[:i])
        assert p.shape == (vocab_size,) and p.min() > 0
        assert abs(p.sum() - 1) < 1e-12
        assert abs(log(p[held_out[i]]) + nats[i]) < 1e-12


def test_longer_contexts_predict_facts_better_until_the_data_run_out(facts):
    vocab_size, train, held_out = facts
    means = NGram(7, vocab_size).fit(train).nats_by_order(held_out).mean(axis=1)
    np.testing.assert_allclose(means, FACTS_NATS, atol=5e-5)
    assert means[0] < log(vocab_size)
    assert all(longer < shorter for shorter, longer in zip(means[:5], means[1:6], strict=True))
    assert means[6] > means[5]


def test_fit_starts_afresh():
    rng = np.random.default_rng(0)
    first, second = random_ids(rng, 50, 5), random_ids(rng, 50, 5)
    again = NGram(3, 5).fit(first).fit(second)
    assert np.array_equal(again.nats(first), NGram(3, 5).fit(second).nats(first))


def test_no_tokens_have_no_nats():
    assert NGram(3, 5).fit([0, 1, 2]).nats_by_order([]).shape == (3, 0)


def test_inputs_are_not_changed():
    ids = np.arange(5)
    ids.flags.writeable = False
    model = NGram(3, 5).fit(ids)
    model.nats(ids)
    model.probs(ids)
    assert ids.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("order", [0, 8, -1, 2.5])
def test_order_is_1_to_7(order):
    with pytest.raises(ValueError, match=f"order must be 1 to 7, got {order}"):
        NGram(order, 5)


def test_vocabulary_is_not_empty():
    with pytest.raises(ValueError, match="vocab_size must be at least 1, got 0"):
        NGram(1, 0)


@pytest.mark.parametrize("call", ["fit", "nats", "nats_by_order", "probs"])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 1, 5], "id 5 is out of range: expected 0 <= id < 5"),
        ([0, -1, 1], "id -1 is out of range"),
        ([0.0, 1.0], "integers, got dtype float64"),
        ([[0, 1], [1, 0]], r"one-dimensional, got shape \(2, 2\)"),
    ],
)
def test_bad_ids_are_refused_everywhere(call, ids, message):
    model = NGram(2, 5).fit([0, 1, 2])
    with pytest.raises(ValueError, match=message):
        getattr(model, call)(ids)


@pytest.mark.parametrize("ids", [[], [0], [0, 1]])
def test_training_text_must_hold_one_window(ids):
    with pytest.raises(ValueError, match=f"has {len(ids)} tokens: order 3 needs at least 3"):
        NGram(3, 5).fit(ids)


@pytest.mark.parametrize("call", ["nats", "nats_by_order", "probs"])
def test_scoring_needs_a_fit(call):
    with pytest.raises(ValueError, match="call fit"):
        getattr(NGram(2, 5), call)([0, 1])
