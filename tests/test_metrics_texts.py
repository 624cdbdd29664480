"""Metrics of texts, each beside sacrebleu's, or the definition written as slowly as it reads."""

import math
from functools import cache
from time import process_time

import numpy as np
import pytest
import sacrebleu
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt import metrics as m

CASES = 100
CLOSE = {"rtol": 0, "atol": 1e-9}
WORDS = st.lists(st.sampled_from("abc"), max_size=12)
TEXT = st.text("ab", min_size=1, max_size=20)


def words(rng, least, most, kinds=5):
    return [f"w{i}" for i in rng.integers(0, kinds, rng.integers(least, most + 1))]


def spoken(sentence):
    return sentence.split()


def translations(seed):
    """Sentences, each with 1 to 3 references, some far off and some equal."""
    rng = np.random.default_rng(seed)
    ours, theirs = [], []
    for _ in range(rng.integers(1, 5)):
        reference = words(rng, 1, 15)
        kept = [w for w in reference if rng.random() < 0.9]
        ours.append(kept if rng.random() < 0.7 else words(rng, 0, 15))
        theirs.append([reference, *(words(rng, 1, 15) for _ in range(rng.integers(0, 3)))])
    return ours, theirs


def grams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


# --- BLEU ---


@pytest.mark.parametrize(("smoothing", "k"), [("none", 1), ("exp", 1), ("add-k", 1), ("add-k", 3)])
def test_bleu_of_a_corpus_equals_sacrebleu(smoothing, k):
    seen = []
    for seed in range(CASES):
        ours, theirs = translations(seed)
        most = max(map(len, theirs))
        columns = [[" ".join((r + r[:1] * most)[j]) for r in theirs] for j in range(most)]
        k_there = k if smoothing == "add-k" else None
        judge = sacrebleu.BLEU(
            tokenize="none", force=True, smooth_method=smoothing, smooth_value=k_there
        )
        want = judge.corpus_score([" ".join(h) for h in ours], columns).score / 100
        seen.append(m.corpus_bleu(ours, theirs, smoothing, k))
        np.testing.assert_allclose(seen[-1], want, **CLOSE)
    assert len({round(value, 6) for value in seen}) > CASES / 2  # not all of them 0


@pytest.mark.parametrize(("smoothing", "k"), [("none", 1), ("exp", 1), ("add-k", 1), ("add-k", 3)])
def test_bleu_of_a_sentence_equals_sacrebleu(smoothing, k):
    seen = []
    for seed in range(CASES):
        ours, theirs = translations(seed)
        judge = sacrebleu.BLEU(
            tokenize="none", force=True, smooth_method=smoothing, effective_order=True,
            smooth_value=k if smoothing == "add-k" else None)  # fmt: skip
        want = judge.sentence_score(" ".join(ours[0]), [" ".join(r) for r in theirs[0]]).score
        seen.append(m.sentence_bleu(ours[0], theirs[0], smoothing, k))
        np.testing.assert_allclose(seen[-1], want / 100, **CLOSE)
    assert len({round(value, 6) for value in seen}) > 30


def test_bleu_by_hand():
    ours, reference = spoken("the cat sat on the mat"), spoken("the cat lay on the mat")
    # hits 5, 3, 1, 0 of 6, 5, 4, 3; the fourth stands in as 1/2.
    assert m.sentence_bleu(ours, [reference], "none") == 0
    want = (5 / 6 * 3 / 5 * 1 / 4 * 0.5 / 3) ** 0.25
    assert m.sentence_bleu(ours, [reference]) == pytest.approx(want)
    want = (5 / 6 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25
    assert m.sentence_bleu(ours, [reference], "add-k") == pytest.approx(want)
    # Five tokens of six, all right: exp(1 - 6/5).
    assert m.corpus_bleu([reference[:5]], [[reference]]) == pytest.approx(math.exp(-0.2))
    # The larger count of each reference, and, of two as near in length, the shorter.
    assert m.corpus_bleu([list("aabb")], [[list("aabbx"), list("aab")]]) == 1


def test_bleu_of_the_reference_is_1_and_of_a_stranger_0():
    for seed in range(20):
        _, theirs = translations(seed)
        long = [[*r[0], *"wxyz"] for r in theirs]
        assert m.corpus_bleu(long, [[r, ["other"]] for r in long]) == pytest.approx(1)
        assert m.corpus_bleu([["q"] * 9 for _ in theirs], theirs, "exp") == 0


def test_the_order_of_sentences_and_of_references_is_nothing():
    for seed in range(20):
        ours, theirs = translations(seed)
        want = m.corpus_bleu(ours, theirs, "exp")
        turned = [r[::-1] for r in theirs[::-1]]
        assert m.corpus_bleu(ours[::-1], turned, "exp") == pytest.approx(want)


# --- ROUGE and chrF ---


def rouge_by_definition(ours, theirs, n):
    """Strike out each n-gram of the reference once found; for n = 0 the common subsequence."""

    @cache
    def common(i, j):
        if i == len(ours) or j == len(theirs):
            return 0
        if ours[i] == theirs[j]:
            return 1 + common(i + 1, j + 1)
        return max(common(i + 1, j), common(i, j + 1))

    left, total = grams(theirs, n or 1), len(grams(ours, n or 1))
    hits, all_theirs = 0, len(left)
    for gram in grams(ours, n or 1):
        if gram in left:
            left.remove(gram)
            hits += 1
    hits = hits if n else common(0, 0)
    p, r = (hits / total if total else 0), (hits / all_theirs if all_theirs else 0)
    return p, r, 2 * p * r / (p + r) if p + r else 0


def rouge(ours, theirs):
    return [m.rouge_n(ours, theirs, 1), m.rouge_n(ours, theirs, 2), m.rouge_l(ours, theirs)]


def test_rouge_equals_the_definition():
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        ours, theirs = words(rng, 0, 15), words(rng, 0, 15)
        want = [rouge_by_definition(ours, theirs, n) for n in (1, 2, 0)]
        np.testing.assert_allclose(rouge(ours, theirs), want, **CLOSE)


def test_rouge_equals_the_package_of_that_name():
    reason = "rouge-score is not among the requirements, since it brings NLTK: pip install it"
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason=reason)
    judge = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        ours, theirs = words(rng, 0, 15), words(rng, 0, 15)
        want = judge.score(" ".join(theirs), " ".join(ours)).values()
        np.testing.assert_allclose(rouge(ours, theirs), list(want), **CLOSE)


def test_rouge_by_hand():
    ours, theirs = spoken("police kill the gunman"), spoken("police killed the gunman")
    assert m.rouge_n(ours, theirs, 1) == (0.75, 0.75, 0.75)
    assert m.rouge_n(ours, theirs, 2) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert m.rouge_l(spoken("the gunman kill police"), theirs) == (0.5, 0.5, 0.5)
    assert m.rouge_n(["the"] * 4, theirs, 1) == pytest.approx((0.25, 0.25, 0.25))
    assert m.rouge_l([], theirs) == (0, 0, 0)


@given(WORDS, WORDS)
def test_rouge_has_its_properties(ours, theirs):
    for there, back in zip(rouge(ours, theirs), rouge(theirs, ours), strict=True):
        assert there.f == pytest.approx(back.f) and there.precision == back.recall
        assert 0 <= there.f <= max(there[:2]) + 1e-12 <= 1 + 1e-12
    if ours:
        assert m.rouge_l(ours, ours) == (1, 1, 1)
        assert m.rouge_l(ours, theirs).f <= m.rouge_n(ours, theirs, 1).f + 1e-12


def test_chrf_equals_sacrebleu():
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        ours, theirs = (
            ["".join(rng.choice(list("ab cd"), rng.integers(0, 12))) for _ in range(1 + seed % 3)]
            for _ in range(2)
        )
        want = sacrebleu.CHRF().corpus_score(ours, [theirs]).score / 100
        np.testing.assert_allclose(m.chrf(ours, theirs), want, **CLOSE)


def test_chrf_forgives_an_ending_and_white_space():
    assert m.chrf(["a cat sat"], ["acat  sat"]) == 1
    assert 0.5 < m.chrf(["he kills a man"], ["he killed a man"]) < 1
    assert m.chrf(["xyz"], ["abc"]) == 0


# --- edits ---


def test_edit_distance_equals_the_definition():
    @cache
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        steps = slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0])
        return min(steps)

    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        a, b = ("".join(words(rng, 0, 6, 3)) for _ in range(2))
        assert m.edit_distance(a, b) == slow(a, b)
    assert m.edit_distance("kitten", "sitting") == 3


@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_a_distance(a, b, c):
    d = m.edit_distance
    assert d(a, b) == d(b, a) <= max(len(a), len(b))
    assert (d(a, b) == 0) == (a == b)
    assert d(a, c) <= d(a, b) + d(b, c)


def test_word_errors_and_exact_matches():
    ours = [spoken("the cat sat"), spoken("a b")]
    theirs = [spoken("the cat sat down"), ["a"]]
    assert m.word_error_rate(ours, theirs) == pytest.approx(2 / 5)
    assert m.word_error_rate([["x", "y", "z"]], [["a"]]) == 3
    assert m.exact_match(["yes", "No", "no"], ["yes", "no", "no"]) == pytest.approx(2 / 3)


# --- diversity ---


@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(1, 4))
def test_distinct_ngrams_equal_the_definition(texts, n):
    found = [gram for text in texts for gram in grams(text, n)]
    if not found:
        with pytest.raises(ValueError, match=f"one of at least n = {n} tokens"):
            m.distinct_n(texts, n)
        return
    assert m.distinct_n(texts, n) == len(set(found)) / len(found)
    assert m.distinct_n(texts[::-1], n) == m.distinct_n(texts, n)


@given(TEXT, st.integers(1, 4))
def test_repetition_equals_the_definition(text, n):
    found = grams(text, n)
    if found:
        before = [gram in found[:i] for i, gram in enumerate(found)]
        assert m.repetition_rate(text, n) == pytest.approx(sum(before) / len(found))
        assert m.repetition_rate([*map(ord, text)], n) == m.repetition_rate(text, n)


def test_repetition_by_hand():
    assert m.repetition_rate("abab", 2) == pytest.approx(1 / 3)  # ab ba ab
    assert m.distinct_n(["abab", "ba"], 2) == pytest.approx(2 / 4)
    assert m.repetition_rate("abcd", 2) == 0
    assert m.repeated_suffix("xababab") == 4
    assert m.repeated_suffix("abc") == 0
    assert m.repeated_suffix([1, 2, 3, 1, 2]) == 2
    assert m.repeated_suffix("aaaa") == 3


@given(TEXT)
@example("aabaaabaabaa")  # where the next shorter fit is needed
def test_the_repeated_suffix_equals_the_definition(text):
    n = len(text)
    want = max(k for k in range(n) if text[n - k :] in text[: n - 1] or not k)
    assert m.repeated_suffix(text) == want


# --- copying ---


def slow_copy(text, training):
    spans = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    return max((len(s) for s in spans if s in training), default=0)


@given(st.text("abc", min_size=1, max_size=30), st.text("abx", min_size=1, max_size=40))
@example("a", "b")
@example("ab", "ba")
@example("aab", "aba")  # b before -1 is no pair
def test_the_longest_copy_equals_the_definition(text, training):
    length, start, source = m.longest_copy(text, training)
    assert length == slow_copy(text, training)
    span = text[start : start + length]
    assert len(span) == length and training[source : source + length] == span
    assert training.find(span) == source  # the first of several
    assert m.longest_copy(*([*map(ord, t)] for t in (text, training))) == (length, start, source)
    for n in range(1, len(text) + 1):
        want = sum("".join(g) in training for g in grams(text, n)) / (len(text) - n + 1)
        assert m.copied_share(text, training, n) == pytest.approx(want)
        assert (want > 0) == (n <= length)


def test_copies_in_longer_texts_equal_the_definition():
    rng = np.random.default_rng(0)
    for length in [*range(1, 20), 31, 32, 33, 63, 64, 65, 90]:
        training = "".join(rng.choice(list("abcdefghij"), 500))
        at = int(rng.integers(0, 500 - length))
        text = "".join(rng.choice(list("klmno"), 20)) + training[at : at + length] + "é" * 9
        assert m.longest_copy(text, training)[:2] == (length, 20)
        inside = sum(text[i : i + 5] in training for i in range(len(text) - 4))
        assert m.copied_share(text, training, 5) == pytest.approx(inside / (len(text) - 4))


def test_a_copy_is_found_in_600_000_characters_within_seconds():
    rng = np.random.default_rng(0)
    training = "".join(rng.choice(list("etaoin shrdlu"), 600_000))
    text = "".join(rng.choice(list("etaoin shrdlu"), 900)) + "Q" + training[400_000:400_100]
    start = process_time()
    assert m.longest_copy(text, training) == (100, 901, 400_000)
    assert process_time() - start < 5  # about 0.3


def test_copies_of_everything_and_of_nothing():
    assert m.longest_copy("abcabc", "abcabc") == (6, 0, 0)
    assert m.longest_copy("abc", "xyz") == (0, 0, 0)
    assert m.copied_share("abc", "xyz", 1) == 0
    assert m.copied_share("abcabc", "bca", 4) == 0  # training shorter than n
    assert m.copied_share("abcabc", "abc", 3) == 0.5
    assert m.longest_copy([70_000, 5, 6], np.array([5, 6, 70_000])) == (2, 1, 0)


# --- bad input ---

A = ["a", "b"]
REFUSED = [
    (lambda: m.corpus_bleu([], []), "hypotheses and references: expected at least one"),
    (lambda: m.corpus_bleu([A], [[A], [A]]), "references: expected equal lengths, got 1 and 2"),
    (lambda: m.corpus_bleu(["a b"], [[A]]), "hypothesis: expected a list of tokens, got 'a b'"),
    (lambda: m.corpus_bleu("ab", [[A], [A]]), "hypotheses: expected a list of texts, got one str"),
    (lambda: m.corpus_bleu([A], [A]), "reference: expected a list of tokens, got 'a'"),
    (lambda: m.corpus_bleu([A], [[]]), "references: expected at least one for each hypothesis"),
    (lambda: m.sentence_bleu(A, []), "references: expected at least one"),
    (lambda: m.sentence_bleu(A, [A], "floor"), "smoothing: expected none, add-k, exp, got 'floor'"),
    (lambda: m.sentence_bleu(A, [A], "add-k", 0), "k: expected a positive, finite number, got 0"),
    (lambda: m.rouge_n(A, A, 0), "n: expected an integer of at least 1, got 0"),
    (lambda: m.rouge_n("a b", A, 1), "hypothesis: expected a list of tokens"),
    (lambda: m.rouge_l(A, "a b"), "reference: expected a list of tokens"),
    (lambda: m.rouge_l(A, None), "reference: expected a list of tokens, got None"),
    (lambda: m.chrf([], []), "hypotheses and references: expected at least one"),
    (lambda: m.chrf("ab", ["ab"]), "hypotheses: expected a list of texts, got one string"),
    (lambda: m.chrf(["ab"], [A]), "hypotheses and references: expected strings"),
    (lambda: m.exact_match([], []), "expected at least one"),
    (lambda: m.exact_match("no", "no"), "hypotheses: expected a list of texts, got one string"),
    (lambda: m.exact_match(["a"], A), "expected equal lengths, got 1 and 2"),
    (lambda: m.word_error_rate([A], [[]]), "references: expected at least one token"),
    (lambda: m.word_error_rate(["a b"], [A]), "hypothesis: expected a list of tokens"),
    (lambda: m.distinct_n([], 1), "texts: expected one of at least n = 1 tokens"),
    (lambda: m.distinct_n("abc", 1), "texts: expected a list of texts, got one string"),
    (lambda: m.distinct_n([A], True), "n: expected an integer of at least 1, got True"),
    (lambda: m.repetition_rate("abc", 4), "texts: expected one of at least n = 4 tokens"),
    (lambda: m.repetition_rate("abc", 0), "n: expected an integer of at least 1, got 0"),
    (lambda: m.repeated_suffix(""), "text: expected at least one token"),
    (lambda: m.longest_copy("", "a"), r"text: expected \(N,\) integers, N >= 1"),
    (lambda: m.longest_copy("a", ""), r"training: expected \(N,\) integers, N >= 1"),
    (lambda: m.longest_copy("a", [97]), "text and training: expected two strings, or token ids"),
    (lambda: m.longest_copy([1.5], [1]), "text: expected integers, got dtype float64"),
    (lambda: m.copied_share("abc", "abc", 4), "text: expected at least n = 4 tokens, got 3"),
    (lambda: m.copied_share("abc", "abc", 0), "n: expected an integer of at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
