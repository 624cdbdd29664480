# %% [markdown]
# # 18 · Metrics
#
# ## Question
#
# A model has been trained: which number says how good it is, what does that number not see, and
# how large must the difference between two such numbers be before it means anything?
#
# - **Read before:** [03](03_softmax_cross_entropy.ipynb), [16](16_pretraining.ipynb); variances
# - **Package file:** `minigpt/metrics/__init__.py` and the files beside it, one kind of metric each
# - **Minutes:** 75 to read, 140 for the exercises
# - **Runs in:** under 45 seconds on one core

# %% role="setup"
import inspect
import itertools
import math
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from minigpt import data, ops, reference
from minigpt import functional as F
from minigpt import metrics as m
from minigpt.baselines.ngram import NGram
from minigpt.drawing import BLUE, GREEN, GREY, RED, plt, save_figure, style
from minigpt.generate import generate
from minigpt.lab import attempt, central_differences, check, rel_error, show_table, witnesses
from minigpt.metrics import bleu, calibration
from minigpt.model import GPT, GPTConfig
from minigpt.tensor import Tensor, no_grad
from minigpt.tokenizer import CharTokenizer
from minigpt.train import TrainConfig, Trainer

style()
rng = np.random.default_rng(18)

# %% [markdown]
# ## Intuition
#
# Ten mails, three of them spam. Filter A flags four mails, and two of those are spam. Filter B
# flags nothing at all. Count what each gets right: A is right on 2 flagged and 5 unflagged mails,
# B on the 7 that are no spam.
#
# | | flagged and spam | flagged, no spam | spam, not flagged | accuracy | precision | recall | F |
# |---|---|---|---|---|---|---|---|
# | A | 2 | 2 | 1 | 7/10 | 2/4 | 2/3 | 4/7 |
# | B | 0 | 0 | 3 | 7/10 | 0/0 | 0/3 | 0 |
#
# *Precision* is the share of the flagged mails that are spam, *recall* the share of the spam that
# was flagged, and $F$ a kind of mean of the two. Accuracy cannot tell a filter from no filter:
#
# $$\mathrm{accuracy}_A=\mathrm{accuracy}_B=\tfrac7{10},\qquad F_A=\tfrac47,\quad F_B=0.
# \tag{18.1}$$
#
# And there is a second thing that none of these four numbers sees. Let A say of each answer that it
# is 90 % sure. Another filter gives the *same answers* and says 70 %. The mean charge $-\ln p$,
# with $p$ what was given to the truth, of A, of the other, and of one that says 50 %:
#
# $$-\tfrac7{10}\ln0.9-\tfrac3{10}\ln0.1=0.765,\qquad
# -\tfrac7{10}\ln0.7-\tfrac3{10}\ln0.3=0.611,\qquad-\ln\tfrac12=0.693. \tag{18.2}$$
#
# Said too surely, seven right answers in ten are worth *less* than ten flips of a coin. So there
# are at least three questions: how many answers are right, which ones, and does the model know how
# sure it may be? A metric answers one of them. This chapter derives the usual ones, says what each
# does not see, and ends with the question that should come first: is the difference more than
# chance?

# %%
spam = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
flags = {"A": np.array([1, 1, 0, 1, 1, 0, 0, 0, 0, 0]), "B": np.zeros(10, int)}
rows = []
for name, flagged in flags.items():
    scores = m.class_scores(m.count_classes(spam, flagged, 2))
    rows.append([name, m.accuracy(spam, flagged), *(float(s[1]) for s in scores)])
show_table(["filter", "accuracy", "precision", "recall", "F"], rows)
check("two_filters", np.abs(np.array([r[1:] for r in rows], float)
                            - [[0.7, 1 / 2, 2 / 3, 4 / 7], [0.7, 0, 0, 0]]), at_most=1e-15)
sure = [-0.7 * math.log(p) - 0.3 * math.log(1 - p) for p in (0.9, 0.7, 0.5)]
check("three_ways_to_be_sure", np.abs(np.array(sure) - [0.765, 0.611, 0.693]), at_most=5e-4)
check("too_sure_is_worse_than_a_coin", sure[0] - sure[2], at_least=0.05)

# %% [markdown]
# ## Derivation
#
# | symbol | shape | meaning |
# |---|---|---|
# | $n$ | number | items that are scored: tokens, mails, sentences |
# | $p_i$, $x_i=-\ln p_i$ | $(n)$ | probability given to the true token $i$; its charge, in nats |
# | $L=\frac1n\sum_ix_i$ | number | mean nats per token |
# | $y_i$, $\hat y_i$ | $(n)$ | label and answer of item $i$, classes $0..K-1$ |
# | $\pi$, $P$, $R$, $F$ | numbers | share of a class among all items; precision, recall, F |
# | $h$, $r$ | lists of tokens | hypothesis (what a model wrote) and reference (what was wanted) |
# | $z$, $b=1/T$ | $(n,V)$, number | logits; inverse temperature |
# | $\mathbb E$, $\mathrm{Var}$ | | mean and variance over what is random |
#
# ### Perplexity
#
# $$\mathrm{PPL}=e^L=\exp\Big(-\frac1n\sum_{i=1}^{n}\ln p_i\Big)=\Big(\prod_{i=1}^{n}\frac1{p_i}
# \Big)^{1/n}. \tag{18.3}$$
#
# A model that guesses among $k$ equally likely tokens has $p_i=1/k$, so its perplexity is $k$: that
# is the unit. In general perplexity is a **geometric mean** of the $1/p_i$. It lies between the two
# other means (Jensen's inequality for $\ln$, applied to the $1/p_i$ and to the $p_i$):
#
# $$\frac n{\sum_ip_i}\ \le\ \mathrm{PPL}\ \le\ \frac1n\sum_{i=1}^{n}\frac1{p_i}. \tag{18.4}$$
#
# The one on the left could be cheated. $\sum p_i$ is the expected number of tokens that a model
# would get right by drawing, and it barely moves if a token with $p=10^{-2}$ gets $10^{-9}$. The
# geometric mean notices: one token with $p=0$ makes it infinite.
#
# **Perplexities must not be averaged.** Let text $k$ of several have $n_k$ of the $n$ tokens and
# mean charge $L_k$, so that $L=\sum_k\frac{n_k}nL_k$. By Jensen again, for the exponential,
#
# $$\mathrm{PPL}=\prod_k\mathrm{PPL}_k^{\,n_k/n}\ \le\ \sum_k\frac{n_k}n\,\mathrm{PPL}_k.
# \tag{18.5}$$
#
# How much is lost? Write $L_k=L+\delta_k$. Then $\sum_k\frac{n_k}n\delta_k=0$, and to second order
# in $\delta$
#
# $$\sum_k\frac{n_k}n\,e^{L+\delta_k}\approx\mathrm{PPL}\,\Big(1+\frac{s^2}2\Big),\qquad
# s^2=\sum_k\frac{n_k}n\,\delta_k^2. \tag{18.6}$$

# %%
for k in (2, 65):
    print(f"guessing among {k}: perplexity {m.perplexity(np.full(7, math.log(k))):.6f}")
errors, outside = [], []
for _ in range(100):
    p = rng.uniform(0.01, 1, rng.integers(1, 30))
    product = np.prod(1 / p) ** (1 / len(p))
    errors.append(m.perplexity(-np.log(p)) / product - 1)
    outside += [1 / p.mean() / product - 1, product / (1 / p).mean() - 1]
check("perplexity_is_a_geometric_mean", np.abs(errors), at_most=1e-12)
check("between_two_other_means", outside, at_most=1e-12)

rare = np.full(100, 0.5)
rare[0] = 1e-2
means = [(1 / rare.mean(), m.perplexity(-np.log(rare)))]
rare[0] = 1e-9
means.append((1 / rare.mean(), m.perplexity(-np.log(rare))))
show_table(["one token of 100 has p =", "1 / mean p", "perplexity"],
           [["1e-2", *means[0]], ["1e-9", *means[1]]])
check("harmonic_mean_does_not_notice", means[1][0] / means[0][0] - 1, at_most=1e-3)
check("perplexity_notices", means[1][1] / means[0][1] - 1, at_least=0.1)

# %%
misses, second_order, excess = [], [], []
for _ in range(100):
    sizes, base = rng.integers(5, 50, 12), rng.uniform(1, 3)
    texts = [base + rng.normal(0, 0.1) + rng.exponential(0.1, n) for n in sizes]
    share = sizes / sizes.sum()
    whole = m.perplexity(np.concatenate(texts))
    each = np.array([m.perplexity(text) for text in texts])
    misses.append(whole / np.prod(each**share) - 1)
    excess.append(share @ each / whole - 1)
    s2 = share @ (np.log(each) - math.log(whole)) ** 2
    second_order.append(excess[-1] / (s2 / 2) - 1)
check("perplexities_multiply", np.abs(misses), at_most=1e-12)
check("averaged_perplexity_is_too_high", -np.array(excess), at_most=0)
check("too_high_by_half_the_variance", np.abs(second_order), at_most=0.2)

# %% [markdown]
# ### Why perplexities of two tokenizers do not compare
#
# Let a text have $n$ tokens in one vocabulary, $c$ characters and $\beta$ bytes in UTF-8. All
# charges together are $nL=-\ln P(\text{text})$. Shared among the bytes, in bits:
#
# $$\frac{\text{bits}}{\text{byte}}=\frac{nL}{\beta\ln2}=\frac n\beta\log_2\mathrm{PPL}
# =\frac c\beta\cdot\frac{\text{bits}}{\text{character}}. \tag{18.7}$$
#
# Bytes do not depend on the vocabulary, so this compares. Perplexity has $n$ in its exponent: two
# models that give the *same* probability to the text, with $n_1$ and $n_2$ tokens, have
#
# $$\mathrm{PPL}_1^{\,n_1}=\mathrm{PPL}_2^{\,n_2}=\frac1{P(\text{text})}. \tag{18.8}$$
#
# (Chapter 16 has the case of pairs, $n_2=n_1/2$.) There is a second trap. A vocabulary of whole
# words cannot write every text, and what it lacks becomes one token, "unknown". Let $U$ be the set
# of tokens that are thrown together. For each $w$ in $U$
#
# $$-\ln\sum_{v\in U}p_v\ \le\ -\ln p_w: \tag{18.9}$$
#
# **throwing tokens together can only lower the charge.** A vocabulary with nothing but "unknown"
# has a perplexity of 1. What was gained was not predicted but left out: *which* unknown word it is.
# Charge that too and the sum is whole again, $-\ln p_w=-\ln p_U-\ln(p_w/p_U)$ with
# $p_U=\sum_{v\in U}p_v$.

# %%
text = "naïve café, 東京 and 大阪"
nats = 31.5
bits = m.bits_per_byte(nats, text), m.bits_per_character(nats, text)
n_bytes, n_chars = len(text.encode()), len(text)
print(f"{n_chars} characters, {n_bytes} bytes: "
      f"{bits[1]:.3f} bits/character, {bits[0]:.3f} bits/byte")
errors = []
for n in (3, 9, 22):  # three ways to cut it into tokens, the same probability
    ppl = m.perplexity(np.full(n, nats / n))
    errors.append([bits[0] / (n / n_bytes * math.log2(ppl)) - 1, n * math.log(ppl) / nats - 1,
                   bits[0] / (n_chars / n_bytes * bits[1]) - 1])
check("bits_per_byte_from_perplexity", np.abs(np.array(errors)[:, [0, 2]]), at_most=1e-12)
check("powers_of_perplexity_agree", np.abs(np.array(errors)[:, 1]), at_most=1e-12)

p = rng.dirichlet(np.full(9, 0.4), 200)  # 200 distributions over 9 tokens
together = -np.log(p[:, 3:].sum(1))  # 3..8 become "unknown"
check("throwing_together_lowers", together[:, None] + np.log(p[:, 3:]), at_most=0)
which = -np.log(p[:, 3:] / p[:, 3:].sum(1, keepdims=True))
check("which_one_is_the_rest",
      np.abs(together[:, None] + which + np.log(p[:, 3:])), at_most=1e-9)

# %% [markdown]
# Real words: a bigram over the commonest words of the default corpus, and "unknown". Its
# perplexity, and then its honest price: each unknown word is spelled by a 3-gram over characters.

# %%
corpus = data.load("facts")
parts = data.split(corpus)
tokenizer = CharTokenizer.from_text(corpus.text)
V = tokenizer.vocab_size  # 94
train_ids, val_ids = tokenizer.encode(parts.train), tokenizer.encode(parts.val)


def words_of(text):
    return text.replace("\n", " \n ").split(" ")


def score_words(most):
    """Share unknown, perplexity, and bits per character with the unknown words spelled out."""
    train, val = words_of(parts.train), words_of(parts.val)
    known = {w: i + 1 for i, (w, _) in enumerate(Counter(train).most_common(most))}  # 0: unknown
    ids = [np.array([known.get(w, 0) for w in words]) for words in (train, val)]
    nats = NGram(2, len(known) + 1).fit(ids[0]).nats(ids[1])
    unknown = [[w for w in words if w not in known] for words in (train, val)]
    speller = NGram(3, V).fit(tokenizer.encode("\n".join(unknown[0] or ["a b"]) + "\n"))
    spelled = speller.nats(tokenizer.encode("\n" + "\n".join(unknown[1]) + "\n"))[1:]
    bits = (nats.sum() + spelled.sum()) / len(parts.val) / math.log(2)
    return [len(known), float((ids[1] == 0).mean()), m.perplexity(nats), bits]


rows = [score_words(most) for most in (0, 10, 100, 1000, 5000)]
show_table(["known words", "share unknown", "perplexity", "bits/character, spelled out"], rows)
check("knowing_nothing_is_perfect", rows[0][2] - 1, at_most=1e-12)
check("fewer_words_lower_perplexity", np.diff([row[2] for row in rows]), at_least=1)
check("more_words_lower_bits", [a[3] - b[3] for a, b in itertools.pairwise(rows)], at_least=0.01)

# %% [markdown]
# The two columns on the right order the five models in opposite ways. A perplexity without its
# vocabulary, and without the share of unknown words, says nothing.
#
# ### Perplexity by position
#
# A model reads blocks of $T$ tokens. Let $L_t$ be the mean charge at place $t$ of the block, over
# $B$ blocks, so that $L=\frac1T\sum_tL_t$ and
#
# $$\mathrm{PPL}=\Big(\prod_{t=1}^{T}\mathrm{PPL}_t\Big)^{1/T},\qquad\mathrm{PPL}_t=e^{L_t}.
# \tag{18.10}$$
#
# Later places have more context. Does it help? For the *best* predictor of a stationary source it
# can never hurt. Its charge with $k$ tokens of context $X_{t-k},\dots,X_{t-1}$ is the conditional
# entropy, and one token more takes away a mutual information, which is a divergence and so not
# negative (16.7):
#
# $$\begin{aligned}H(X_t\mid X_{t-k-1},\dots,X_{t-1})&=H(X_t\mid X_{t-k},\dots,X_{t-1})
# -I(X_t;X_{t-k-1}\mid X_{t-k},\dots,X_{t-1})\\
# &\le H(X_t\mid X_{t-k},\dots,X_{t-1}).\end{aligned} \tag{18.11}$$
#
# So the curve of $\mathrm{PPL}_t$ says how much of its context a model *uses*: it falls as long as
# more tokens help, and is flat where they do not. The experiment draws it.


# %%
def hidden_source(rng):
    """P of all texts of 6 letters from a source of 2 hidden states and 3 letters. -> (3,) * 6"""
    step = 0.9 * rng.dirichlet([0.5, 0.5], 2) + 0.05  # (2, 2), rows sum to 1
    emit = rng.dirichlet(np.full(3, 0.4), 2)  # (2, 3)
    start = np.linalg.matrix_power(step, 500)[0]  # (2,) stationary
    state = start[:, None]  # (state, texts so far)
    for i in range(6):
        state = step.T @ state if i else state
        state = (state[:, :, None] * emit[:, None, :]).reshape(2, -1)
    return state.sum(0).reshape((3,) * 6)


def entropy(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


falls, gains = [], []
for _ in range(50):
    P = hidden_source(rng)
    H = [entropy(P.sum(tuple(range(k, 6)))) for k in range(7)]  # of the first k letters
    by_context = np.diff(H)  # (6,) of a letter, given 0..5 before it
    falls += [*-np.diff(by_context)]
    a, b, c = P.sum((3, 4, 5)), P.sum((2, 3, 4, 5)), P.sum((0, 3, 4, 5))  # of 3 letters; of 2, 2
    one = P.sum((0, 2, 3, 4, 5))  # the middle letter
    ratio = a * one[None, :, None] / (b[:, :, None] * c[None])
    gains.append((a * np.log(ratio)).sum() - (by_context[1] - by_context[2]))
nats = rng.exponential(2, (40, 8))
table = m.perplexity_by_position(nats)
check("positions_multiply", abs(np.prod(table.perplexity) ** (1 / 8) / m.perplexity(nats) - 1),
      at_most=1e-12)
check("context_never_hurts", -min(falls), at_most=1e-12)
check("it_helps_by_the_information", np.abs(gains), at_most=1e-12)

# %% [markdown]
# ### Accuracy
#
# The share of items whose likeliest token is the true one. It looks at one token of each
# distribution and asks yes or no. Whoever answers wrongly has given another token at least as much,
# so at most $p_i\le\frac12$ to the true one, and pays $\ln2$ or more. With accuracy $a$:
#
# $$L\ \ge\ (1-a)\ln2,\qquad\text{or}\qquad a\ \ge\ 1-\frac L{\ln2}. \tag{18.12}$$
#
# A low cross-entropy forces a high accuracy. **Not the other way round**: $L$ has no upper bound at
# any accuracy below 1, since one wrong answer can cost as much as it likes. And as accuracy is a
# mean of $n$ zeros and ones, its variance (for independent items of expected accuracy $a$) is
#
# $$\mathrm{Var}(\hat a)=\frac{a(1-a)}n: \tag{18.13}$$
#
# on 100 items an accuracy of 0.8 has a standard error of 0.04.

# %%
gaps, loose = [], 0
for _ in range(300):
    n, K = 40, int(rng.integers(2, 8))
    z, y = rng.normal(0, rng.uniform(0.1, 8), (n, K)), rng.integers(0, K, n)
    z[np.arange(n), y] += rng.uniform(0, 8)
    nats = m.nats_at_temperature(z, y)
    gaps.append((1 - m.accuracy(y, z.argmax(1))) * math.log(2) - nats)
    loose = max(loose, nats)
print(f"least distance from the bound: {-max(gaps):.4f} nats; highest charge {loose:.1f} nats")
check("wrong_answers_cost_ln_two", gaps, at_most=0)
two = np.array([[0.5 + 1e-9, 0.5 - 1e-9]] * 4)  # all wrong, as cheaply as can be
check("the_bound_is_reached", abs(-np.log(two[:, 1]).mean() - math.log(2)), at_most=1e-8)
draws = rng.random((20_000, 100)) < 0.8
check("variance_of_accuracy", abs(draws.mean(1).var() / (0.8 * 0.2 / 100) - 1), at_most=0.05)
check("standard_error_of_100", abs(draws.mean(1).std() - 0.04), at_most=0.002)

# %% [markdown]
# ### Precision and recall
#
# Fix one class, "positive". Of the $n$ items, $\mathrm{tp}$ are predicted positive and are,
# $\mathrm{fp}$ are predicted and are not, $\mathrm{fn}$ are and were missed, $\mathrm{tn}$ are the
# rest. Precision is conditional on the answer, recall on the truth:
#
# $$P=\frac{\mathrm{tp}}{\mathrm{tp}+\mathrm{fp}},\qquad
# R=\frac{\mathrm{tp}}{\mathrm{tp}+\mathrm{fn}}.$$
#
# Recall belongs to the model alone. Precision does not: it depends on how common the class is. Let
# $\pi=(\mathrm{tp}+\mathrm{fn})/n$ be that share, and
# $\varphi=\mathrm{fp}/(\mathrm{fp}+\mathrm{tn})$ the rate of false alarms. A share $\pi R$ of all
# items is found, a share $(1-\pi)\varphi$ are false alarms, so
#
# $$\frac P{1-P}=\frac{\mathrm{tp}}{\mathrm{fp}}=\frac\pi{1-\pi}\cdot\frac R\varphi. \tag{18.14}$$
#
# That is Bayes' rule in odds. A detector with $R=0.99$ and $\varphi=0.01$ multiplies the odds by
# 99. On a class of one in a thousand its precision is still only 9 %.
#
# ### F: one number for both
#
# $$F=\frac2{\frac1P+\frac1R}=\frac{2PR}{P+R}
# =\frac{2\,\mathrm{tp}}{2\,\mathrm{tp}+\mathrm{fp}+\mathrm{fn}} \tag{18.15}$$
#
# is their harmonic mean. Why harmonic? Ask for *errors per item found*. A precision $P$ comes with
# $\mathrm{fp}/\mathrm{tp}=(1-P)/P$ of them, a recall $R$ with $\mathrm{fn}/\mathrm{tp}=(1-R)/R$. As
# $1/P=1+(1-P)/P$, the harmonic mean of $P$ and $R$ is the plain **arithmetic mean of the odds
# against**:
#
# $$\frac{1-F}F=\frac12\Big(\frac{1-P}P+\frac{1-R}R\Big)
# =\frac{\mathrm{fp}+\mathrm{fn}}{2\,\mathrm{tp}}. \tag{18.16}$$
#
# $F$ counts errors per item found, whichever of the two kinds they are. It does not see
# $\mathrm{tn}$ at all. What would the arithmetic mean of $P$ and $R$ do? Subtract:
#
# $$\frac{P+R}2-\frac{2PR}{P+R}=\frac{(P-R)^2}{2(P+R)}\ge0,\qquad\min(P,R)\le F\le2\min(P,R).
# \tag{18.17}$$
#
# $F$ is never more than twice the *worse* of the two. The arithmetic mean is at least half of the
# *better* one, and that can be had for nothing. Flag everything, and $R=1$, $P=\pi$:
#
# $$F=\frac{2\pi}{1+\pi}\to0\quad(\pi\to0),\qquad\frac{P+R}2=\frac{1+\pi}2\ge\frac12. \tag{18.18}$$
#
# $F_\beta=(1+\beta^2)PR/(\beta^2P+R)$ weighs the two. What does $\beta$ mean? By the quotient rule
# $\partial F_\beta/\partial P=(1+\beta^2)R^2/(\beta^2P+R)^2$ and
# $\partial F_\beta/\partial R=(1+\beta^2)\beta^2P^2/(\beta^2P+R)^2$. So
#
# $$\frac{\partial F_\beta}{\partial P}=\frac{\partial F_\beta}{\partial R}\iff R=\beta P.
# \tag{18.19}$$
#
# That is van Rijsbergen's definition (1979, chapter 7): $\beta$ is the ratio $R/P$ at which one
# would trade a little of one for as much of the other.


# %%
def table_of(labels, guesses):
    """tp, fp, fn, tn of class 1, counted one by one."""
    cells = Counter(zip(labels.tolist(), guesses.tolist(), strict=True))
    return cells[1, 1], cells[0, 1], cells[1, 0], cells[0, 0]


errors = {name: [] for name in ("bayes", "counts", "odds", "gap", "outside")}
for _ in range(200):
    labels = (rng.random(300) < rng.uniform(0.1, 0.6)).astype(int)
    guesses = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 2, 300))
    tp, fp, fn, tn = table_of(labels, guesses)
    P, R, f = (float(s[1]) for s in m.class_scores(m.count_classes(labels, guesses, 2)))
    share, alarms = (tp + fn) / 300, fp / (fp + tn)
    errors["bayes"].append(P / (1 - P) / (share / (1 - share) * R / alarms) - 1)
    errors["counts"] += [2 * tp / (2 * tp + fp + fn) - f, 2 / (1 / P + 1 / R) - f]
    errors["odds"] += [(1 - f) / f - ((1 - P) / P + (1 - R) / R) / 2,
                       (1 - f) / f - (fp + fn) / (2 * tp)]
    errors["gap"].append((P + R) / 2 - f - (P - R) ** 2 / (2 * (P + R)))
    errors["outside"] += [min(P, R) - f, f - 2 * min(P, R)]
check("precision_by_bayes", np.abs(errors["bayes"]), at_most=1e-12)
check("f_from_counts", np.abs(errors["counts"]), at_most=1e-12)
check("f_as_odds", np.abs(errors["odds"]), at_most=1e-12)
check("arithmetic_minus_harmonic", np.abs(errors["gap"]), at_most=1e-12)
check("f_is_near_the_worse", errors["outside"], at_most=1e-12)
found, alarms = 0.001 * 0.99, 0.999 * 0.01
print(f"a rare class: precision {found / (found + alarms):.3f}")
check("rare_class_nine_percent", abs(found / (found + alarms) - 0.09), at_most=5e-4)

# %%
flag_all = []
for n_positive in (1, 10, 250, 500):
    labels = np.arange(1000) < n_positive
    _, _, f = m.class_scores(m.count_classes(labels.astype(int), np.ones(1000, int), 2))
    share = n_positive / 1000
    flag_all.append([share, float(f[1]), (share + 1) / 2])
show_table(["share of the class", "F of flagging everything", "arithmetic mean"], flag_all)
check("flagging_everything", [abs(f - 2 * s / (1 + s)) for s, f, _ in flag_all], at_most=1e-12)
check("arithmetic_mean_is_fooled", [mean for *_, mean in flag_all], at_least=0.5)

slopes = []
for beta in (0.5, 1.0, 2.0, 3.0):
    for P in (0.1, 0.25, 0.3):
        dP, dR = central_differences(lambda x, b=beta: m.f_measure(x[0], x[1], b), [P, beta * P])
        slopes.append(dP / dR - 1)
dP, dR = central_differences(lambda x: m.f_measure(x[0], x[1], 2.0), [0.3, 0.3])
check("beta_is_the_ratio_of_equal_slopes", np.abs(slopes), at_most=1e-6)
check("elsewhere_slopes_differ", abs(dP / dR - 1), at_least=0.5)

# %%
fig, axes = plt.subplots(1, 2, figsize=(9.6, 4.6), sharey=True)
grid = np.linspace(0.005, 1, 30)
precision, recall = np.meshgrid(grid, grid)
levels = np.arange(0.1, 1, 0.1)
surfaces = (m.f_measure(precision, recall), (precision + recall) / 2)
for ax, surface, name in zip(axes, surfaces, ("harmonic mean: F", "arithmetic mean"), strict=True):
    ax.contourf(precision, recall, surface, np.linspace(0, 1, 6), cmap="Blues", vmax=1.4)
    lines = ax.contour(precision, recall, surface, levels, colors="black", linewidths=0.8)
    ax.clabel(lines, fmt="%.1f", fontsize=10, manual=[(v, v) for v in levels])
    ax.plot(0.1, 1, "o", color=RED, ms=9, clip_on=False, zorder=5)
    ax.set(xlabel="precision", aspect="equal")
    ax.set_title(name, size=12)
    ax.grid(False)
axes[0].set_ylabel("recall")
for ax, value in zip(axes, (0.18, 0.55), strict=True):
    ax.annotate(f"flag everything,\none in ten positive: {value:.2f}", (0.1, 0.98), (0.42, 0.08),
                color=RED, size=11, arrowprops={"arrowstyle": "->", "color": RED},
                bbox={"fc": "white", "ec": "none", "alpha": 0.8})
fig.suptitle("F is near the worse of the two; the arithmetic mean can be had for nothing")
save_figure(fig, "18_f.svg")
plt.show()

# %% [markdown]
# ### Several classes
#
# With $K$ classes there are $K$ precisions and recalls. *Macro* averages their $F$, so that each
# class counts alike. *Micro* adds up the counts first. If each item has exactly one label and one
# answer, then every error is a false alarm for one class and a miss for another:
# $\sum_k\mathrm{fp}_k=\sum_k\mathrm{fn}_k=$ the number of errors. So
#
# $$P_{\mathrm{micro}}=R_{\mathrm{micro}}=F_{\mathrm{micro}}=\frac{\sum_k\mathrm{tp}_k}n
# =\mathrm{accuracy}. \tag{18.20}$$
#
# "Macro F" has two meanings in the literature: the mean of the $F_k$, or the harmonic mean of the
# mean precision and the mean recall. The second is the larger one, at times by much, and high for
# answers that are lopsided in opposite ways (Opitz and Burst 2019, arXiv:1911.03347). The package
# means the first.

# %%
off, two_macros = [], []
for _ in range(200):
    K = int(rng.integers(2, 7))
    labels = rng.choice(K, 60, p=rng.dirichlet(np.full(K, 0.7)))
    guesses = np.where(rng.random(60) < 0.4, labels, rng.choice(K, 60, p=rng.dirichlet(np.ones(K))))
    counts = m.count_classes(labels, guesses, K)
    off += [s - m.accuracy(labels, guesses) for s in m.average_scores(counts, "micro")]
    macro = m.average_scores(counts, "macro")
    two_macros.append(float(m.f_measure(macro.precision, macro.recall)) - macro.f)
check("micro_is_accuracy", np.abs(off), at_most=1e-12)
check("second_macro_is_not_smaller", -min(two_macros), at_most=1e-12)
check("two_macros_differ", max(two_macros), at_least=0.1)

# %% [markdown]
# ### BLEU
#
# How good is a translation, if all that is at hand is another translation? Count the $n$-grams of
# the hypothesis that stand in a reference. "the the the the the the the" has seven words that all
# stand in "the cat is on the mat", so each hit may be used up only as often as the reference has
# it. With $C_h(g)$ how often the $n$-gram $g$ stands in $h$, and several references $r$ each:
#
# $$p_n=\frac{\sum_h\sum_g\min\big(C_h(g),\max_rC_r(g)\big)}{\sum_h\sum_gC_h(g)}. \tag{18.21}$$
#
# The sums run over all sentences *before* the division: BLEU belongs to a corpus, and is no mean of
# its sentences' scores. This is a precision. What of recall? With several references there is no
# one list that should be recalled. So BLEU punishes hypotheses that are too short, $c$ tokens in
# all against the $r$ of the references nearest in length:
#
# $$\mathrm{BLEU}=\min\big(1,e^{1-r/c}\big)\cdot\Big(\prod_{n=1}^{4}p_n\Big)^{1/4}. \tag{18.22}$$
#
# Why $e^{1-r/c}$? Let a share $\delta$ of the words be missing, $c=(1-\delta)r$. Then
#
# $$e^{1-r/c}=e^{-\delta/(1-\delta)}=1-\delta+O(\delta^2): \tag{18.23}$$
#
# to first order each missing word costs its share, and leaving out more costs more than that. Why
# the geometric mean? Let each word be right with probability $q$, independently of the others. An
# $n$-gram is right if its $n$ words are:
#
# $$\mathbb E\,p_n=q^n,\qquad(q\cdot q^2\cdot q^3\cdot q^4)^{1/4}=q^{5/2}. \tag{18.24}$$
#
# The four precisions shrink like powers, so an arithmetic mean would be ruled by $p_1$, which knows
# nothing of word order. And one $p_n=0$ makes BLEU 0, which in single sentences is common: hence
# *smoothing*, which replaces the zeros, and makes scores that differ from one kind to the next.

# %%
reference_text = ["the", "cat", "is", "on", "the", "mat"]
babble = ["the"] * 7
hits = sum(min(c, Counter(reference_text)[w]) for w, c in Counter(babble).items())
print(f"clipped: {hits} of 7; not clipped: {sum(w in reference_text for w in babble)} of 7")
unigrams = bleu._counts(babble, [reference_text, ["a", "cat"]])[:, 1]  # hits, total
check("clipped_two_of_seven", [abs(hits - 2), *np.abs(unigrams - [2, 7])], at_most=0)

long = [f"w{i}" for i in range(400)]
deltas, fits = np.array([0.0025, 0.025, 0.1, 0.25]), []
for delta in deltas:
    c = round(400 * (1 - delta))
    fits.append(m.corpus_bleu([long[:c]], [[long]]) / math.exp(1 - 400 / c) - 1)
penalty = np.exp(-deltas / (1 - deltas))
show_table(["share missing", "penalty", "1 - share"], [*zip(deltas, penalty, 1 - deltas,
                                                         strict=True)])
check("brevity_penalty", np.abs(fits), at_most=1e-12)
check("missing_words_cost_their_share", np.abs((1 - penalty[:2]) / deltas[:2] - 1), at_most=0.05)
check("and_more_if_many", (1 - penalty[3]) / deltas[3] - 1, at_least=0.1)

# %%
misses = []
for q in (0.95, 0.8, 0.6):
    tokens = np.arange(60_000)
    noisy = np.where(rng.random(60_000) < q, tokens, -1 - tokens)  # a wrong word is a new word
    hits, totals = bleu._counts(noisy.tolist(), [tokens.tolist()])[:, 1:]
    wanted = q ** np.arange(1, 5)
    misses += [*(hits / totals / wanted - 1),
               m.corpus_bleu([noisy.tolist()], [[tokens.tolist()]]) / q**2.5 - 1]
check("precisions_are_powers", np.abs(misses), at_most=0.05)

pairs = [("a b c d", "a b c d"), ("p q r s t u v w", "p q r s x y z u")]
ours, theirs = [h.split() for h, _ in pairs], [[r.split()] for _, r in pairs]
by_sentence = [m.corpus_bleu([h], [r]) for h, r in zip(ours, theirs, strict=True)]
whole = m.corpus_bleu(ours, theirs)
print(f"sentences {by_sentence}, their mean {np.mean(by_sentence):.3f}, the corpus {whole:.3f}")
check("corpus_is_no_mean", abs(whole - np.mean(by_sentence)), at_least=0.05)

# %% [markdown]
# ### ROUGE, edit distance, chrF
#
# For summaries one asks for recall: is what the reference says found again? ROUGE-$n$ takes both.
# Let $S=\sum_g\min(C_h(g),C_r(g))$ be the shared $n$-grams and $N_h,N_r$ all $n$-grams of the two.
# Then $P=S/N_h$, $R=S/N_r$, and by (18.15) with $\mathrm{tp}=S$
#
# $$F=\frac{2S}{N_h+N_r}: \tag{18.25}$$
#
# the same, whichever of the two is called the reference. ROUGE-L replaces $S$ by the length
# $\ell$ of the longest common subsequence, whose tokens need not be neighbours. Compare the
# *last* tokens of two lists $a$ and $b$. If they are equal, some longest subsequence ends in this
# pair. If not, it leaves out one of the two. With $\ell_{ij}$ for the first $i$ and $j$ tokens, and
# $\ell_{i0}=\ell_{0j}=0$:
#
# $$\ell_{ij}=\begin{cases}\ell_{i-1,j-1}+1&a_i=b_j\\
# \max(\ell_{i-1,j},\ \ell_{i,j-1})&a_i\ne b_j.\end{cases} \tag{18.26}$$
#
# The edit distance $d$ counts insertions, deletions and replacements that make $b$ of $a$; the
# *word error rate* is $d$ over the length of the reference. The two count nearly the same. Keep a
# longest common subsequence, delete the rest of $a$, insert the rest of $b$: that is one way, so
# $d$ is at most its cost. And a cheapest way with $k$ kept tokens has $k\le\ell$, and needs at
# least one edit for every other token of the longer list:
#
# $$\max(\vert a\vert,\vert b\vert)-\ell\ \le\ d\ \le\ \vert a\vert+\vert b\vert-2\ell.
# \tag{18.27}$$
#
# chrF is an $F_2$ of character $n$-grams, $n=1..6$: a wrong ending spoils a word for BLEU, and a
# few $n$-grams for chrF.


# %%
def subsequences(tokens):
    """All of them, as tuples."""
    return {tuple(itertools.compress(tokens, keep))
            for keep in itertools.product((0, 1), repeat=len(tokens))}


swaps, lengths, edits, rates = [], [], [], []
for _ in range(100):
    a, b = (rng.integers(0, 4, rng.integers(1, 9)).tolist() for _ in range(2))
    for n in (1, 2):
        grams = [Counter(itertools.pairwise(x) if n == 2 else x) for x in (a, b)]
        S = sum(min(grams[0][g], grams[1][g]) for g in grams[0])
        size = sum(map(len, (a, b))) - 2 * (n - 1)
        there, back = m.rouge_n(a, b, n).f, m.rouge_n(b, a, n).f
        swaps += [there - (2 * S / size if size else 0), there - back]
    common = max(map(len, subsequences(a) & subsequences(b)))  # by trying all
    lengths.append(m.rouge_l(a, b).recall * len(b) - common)
    d = m.edit_distance(a, b)
    edits += [max(len(a), len(b)) - common - d, d - len(a) - len(b) + 2 * common]
check("rouge_f_from_counts", np.abs(swaps), at_most=1e-12)
check("longest_common_subsequence", np.abs(lengths), at_most=1e-12)
check("edits_within_bounds", edits, at_most=0)
wanted, rows = "she walked slowly", []
for written in ("she walks slowly", "she dreamt slowly"):
    words = m.rouge_n(written.split(), wanted.split(), 1).f
    rows.append([written, words, m.chrf([written], [wanted])])
show_table([f"against '{wanted}'", "F of words", "chrF"], rows)
check("words_see_no_difference", abs(rows[0][1] - rows[1][1]), at_most=1e-15)
check("chrf_forgives_an_ending", rows[0][2] - rows[1][2], at_least=0.1)
check("error_rate_above_one", m.word_error_rate([babble], [["the", "cat"]]), at_least=1.5)

# %% [markdown]
# ### Is it new, or the same again?
#
# *distinct-n* is the number of different $n$-grams over all $n$-grams, and the repetition rate is
# $1-\text{distinct-}n$. Both depend on the length of the text. Draw $N$ tokens independently with
# probabilities $\pi_v$. Token $v$ is among them with probability $1-(1-\pi_v)^N$, so
#
# $$\mathbb E\,[\text{distinct-}1]=\frac1N\sum_{v}\big(1-(1-\pi_v)^N\big), \tag{18.28}$$
#
# which is 1 for $N=1$ and falls to 0, whoever writes. **Compare equal lengths only.**
#
# A model may also have learned its text by heart. The longest span that a text shares with the
# training text says so, if it is longer than chance allows. How long is that? Let two texts of $M$
# and $N$ letters be independent, each letter drawn with probabilities $\pi_v$. Two letters agree
# with probability $\rho=\sum_v\pi_v^2$, $k$ neighbouring pairs with $\rho^k$. So the expected
# number of pairs of places from which $k$ letters agree, which is at least the probability that
# there is one, is
#
# $$P(\text{longest}\ge k)\ \le\ \mathbb E\,[\text{pairs}]=(M-k+1)(N-k+1)\,\rho^k. \tag{18.29}$$
#
# It is near 1 at $k\approx\ln(MN)/\ln(1/\rho)$: chance grows with the *logarithm* of the lengths.
# For real text, whose letters depend on each other, the yardstick is not this formula but a piece
# of text that people wrote and that was not trained on.

# %%
weights = rng.dirichlet(np.full(30, 0.5))
rows = []
for N in (1, 10, 100, 1000):
    measured = np.mean([m.distinct_n([rng.choice(30, N, p=weights).tolist()], 1)
                        for _ in range(400)])
    rows.append([N, measured, (1 - (1 - weights) ** N).sum() / N])
show_table(["tokens", "distinct-1", "(18.28)"], rows)
check("distinct_falls_with_length", [abs(a / b - 1) for _, a, b in rows], at_most=0.03)

letters = np.array([0.4, 0.3, 0.2, 0.1])
rho, k, counted, there = (letters**2).sum(), 6, [], []
for _ in range(3000):
    a, b = rng.choice(4, 30, p=letters), rng.choice(4, 50, p=letters)
    views = [np.lib.stride_tricks.sliding_window_view(x, k) for x in (a, b)]
    counted.append((views[0][:, None] == views[1][None]).all(-1).sum())
    there.append(counted[-1] > 0)
expected = 25 * 45 * rho**k
print(f"pairs: {np.mean(counted):.3f}, expected {expected:.3f}; any: {np.mean(there):.3f}")
check("expected_pairs", abs(np.mean(counted) / expected - 1), at_most=0.1)
check("bound_on_any_pair", np.mean(there) - np.mean(counted), at_most=0)
longest = [m.longest_copy(rng.choice(4, 2000, p=letters), rng.choice(4, 20_000, p=letters)).length
           for _ in range(20)]
typical = math.log(2000 * 20_000) / math.log(1 / rho)
print(f"longest shared span of 2,000 and 20,000 random letters: {np.mean(longest):.1f}, "
      f"ln(MN) / ln(1 / rho) = {typical:.1f}")
check("longest_span_by_chance", abs(np.mean(longest) / typical - 1), at_most=0.15)

# %% [markdown]
# ### Calibration
#
# Let $c_i=\max_vp_{iv}$ be the *confidence* of answer $i$, and $h_i$ be 1 if it is right, else 0. A
# model is calibrated if, of all answers of confidence $c$, the share $c$ is right, for every $c$.
# No confidence comes twice, so the answers are sorted into bins. Bin $B_b$ holds $n_b$ of them,
# with mean confidence $\bar c_b$ and share correct $\bar a_b$. The *expected calibration error* is
#
# $$\mathrm{ECE}=\sum_b\frac{n_b}n\,\lvert\bar a_b-\bar c_b\rvert\ \ge\
# \Big\lvert\sum_b\frac{n_b}n(\bar a_b-\bar c_b)\Big\rvert=\lvert\bar a-\bar c\rvert. \tag{18.30}$$
#
# The inequality is the triangle's, and it holds for any two bins that are made one. So coarser bins
# can only lower it, and finer ones only raise it. At one answer a bin the ECE of a *perfect* model
# is the mean of $\lvert h_i-c_i\rvert$, which is large. How large is pure noise in general? The sum
# of $h_i-c_i$ over a bin has mean 0 and variance $\sum c_i(1-c_i)$ for a calibrated model. It is
# nearly normal, and the mean size of a normal variable is $\sqrt{2/\pi}$ of its standard deviation:
#
# $$\mathbb E\,\mathrm{ECE}\approx\frac1n\sum_b\sqrt{\frac2\pi\sum_{i\in B_b}c_i(1-c_i)}
# \qquad\text{(calibrated)}. \tag{18.31}$$
#
# Below this *floor* an ECE says nothing. It falls like $1/\sqrt n$, and grows like the square root
# of the number of bins.


# %%
def noise_floor(confidence, bins=10):
    """(18.31): the ECE that a calibrated model with these confidences has by chance."""
    row = np.ceil(confidence * bins).astype(int)  # low < c <= high
    variance = np.bincount(row, confidence * (1 - confidence))
    return np.sqrt(2 / math.pi * variance).sum() / len(confidence)


rows, floors = [], []
for n, bins in ((200, 10), (2000, 10), (2000, 40)):
    c = rng.uniform(0.2, 1, n)
    errors = [m.calibration_error(c, rng.random(n) < c, bins) for _ in range(400)]
    rows.append([n, bins, np.mean(errors), noise_floor(c, bins)])
    floors.append(abs(rows[-1][2] / rows[-1][3] - 1))
show_table(["answers", "bins", "ECE of a calibrated model", "(18.31)"], rows)
check("perfect_models_have_an_ece", floors, at_most=0.05)
below, merged = [], []
for _ in range(100):
    c = rng.random(100)
    h = rng.random(100) < c**2
    by_bins = [m.calibration_error(c, h, bins) for bins in (1, 5, 10, 20)]  # each halves or joins
    below.append(abs(h.mean() - c.mean()) - by_bins[-1])
    merged += [*-np.diff(by_bins)]
check("never_below_the_mean_gap", below, at_most=1e-12)
check("finer_bins_never_lower", merged, at_most=1e-12)

# %% [markdown]
# ### A score that cannot be gamed
#
# ECE is no measure of quality. Answer every question with the commonest class, say each time how
# common it is, and the ECE is nearly 0. What else does a good forecast have? Let the confidences
# take few values $\bar c_b$. For the squared error of the confidence write
# $h_i-c_i=(h_i-\bar a_b)+(\bar a_b-\bar c_b)$; within a bin the first part sums to 0. And
# $\sum_i(h_i-\bar a_b)^2$ over all bins is the variance of $h$ less that of the bins' means:
#
# $$\frac1n\sum_i(c_i-h_i)^2
# =\underbrace{\sum_b\frac{n_b}n(\bar a_b-\bar c_b)^2}_{\text{calibration}}
# -\underbrace{\sum_b\frac{n_b}n(\bar a_b-\bar a)^2}_{\text{resolution}}+\bar a(1-\bar a).
# \tag{18.32}$$
#
# (Murphy 1973.) Calibration is one of two terms. The other says how far the forecaster can *tell
# apart* what will be right from what will not. The Brier score takes the whole distribution,
# $\sum_v(p_v-[v=y])^2$, where $[v=y]$ is 1 if $v=y$, else 0. If $y$ is drawn from $q$ $(V)$, its
# mean is
#
# $$\sum_yq_y\sum_v(p_v-[v=y])^2=\sum_v(p_v-q_v)^2+1-\sum_vq_v^2. \tag{18.33}$$
#
# It is least at $p=q$ and nowhere else: whoever believes $q$ does best to *say* $q$. Such a score
# is called **proper**. $-\ln p_y$ is proper by (16.7). Accuracy is not: any $p$ with the same
# largest entry scores the same.

# %%
terms = []
for _ in range(100):
    c = rng.choice([0.15, 0.45, 0.55, 0.95], 300)
    h = (rng.random(300) < rng.uniform(0, 1, 4)[(c * 10).astype(int) % 4]).astype(float)
    size, conf, acc = m.reliability(c, h)
    share = size / 300
    split = share @ (acc - conf) ** 2 - share @ (acc - h.mean()) ** 2 + h.mean() * (1 - h.mean())
    half = m.brier_score(np.stack([1 - c, c], 1), h.astype(int)) / 2  # two classes
    terms += [split - half, ((c - h) ** 2).mean() - half]
check("calibration_and_resolution", np.abs(terms), at_most=1e-12)
gaps = []
for _ in range(200):
    q, p = rng.dirichlet(np.ones(6), 2)
    mean = sum(q[y] * m.brier_score(p[None], [y]) for y in range(6))
    gaps.append(mean - ((p - q) ** 2).sum() - 1 + (q**2).sum())
check("brier_is_proper", np.abs(gaps), at_most=1e-12)
labels = (rng.random(4000) < 0.3).astype(int)
lazy = np.full((4000, 2), [0.7, 0.3])  # always the same answer, and how common it is
confidence, right = m.top_choice(lazy, labels)
print(f"always 0: ECE {m.calibration_error(confidence, right):.4f}, "
      f"Brier {m.brier_score(lazy, labels):.3f}")
check("lazy_and_calibrated", m.calibration_error(confidence, right), at_most=0.02)

# %% [markdown]
# ### Temperature scaling
#
# Divide all logits by one number $T>0$, with $b=1/T$. No order changes, so no answer does, and
# accuracy, precision, recall and $F$ stay what they are. What changes is the confidence. The
# charge, with $y_i$ the label of row $i$ and $p_{iv}\propto e^{bz_{iv}}$:
#
# $$L(b)=\frac1n\sum_i\Big(\ln\sum_ve^{bz_{iv}}-b\,z_{iy_i}\Big).$$
#
# Differentiate in $b$. The logarithm's derivative is $\sum_vp_{iv}z_{iv}$, the mean logit under the
# model's own distribution, written $\mathbb E_i z$:
#
# $$\frac{dL}{db}=\frac1n\sum_i\big(\mathbb E_i z-z_{iy_i}\big). \tag{18.34}$$
#
# Once more. $dp_{iv}/db=p_{iv}(z_{iv}-\mathbb E_i z)$, so
#
# $$\frac{d^2L}{db^2}=\frac1n\sum_i\big(\mathbb E_i z^2-(\mathbb E_i z)^2\big)
# =\frac1n\sum_i\mathrm{Var}_i(z)\ \ge0. \tag{18.35}$$
#
# $L$ is convex in $b$: there is *one* best temperature, and it is where the logits that the model
# expects are on average those of the labels. Sure and wrong, and $\mathbb E_iz>z_{iy_i}$: the slope
# is positive, $b$ should fall, $T$ should rise. To learn a temperature by gradient descent, one
# keeps it positive as $T=e^\tau$. Then $db/d\tau=-b$ and
#
# $$\frac{dL}{d\tau}=\frac bn\sum_i\big(z_{iy_i}-\mathbb E_i z\big),\qquad
# \frac{\partial L}{\partial z_{iv}}=\frac bn\big(p_{iv}-[v=y_i]\big). \tag{18.36}$$
#
# What can be gained? To second order around the best $b^*$
#
# $$L(1)-L(b^*)\approx\tfrac12(1-b^*)^2\cdot\frac1n\sum_i\mathrm{Var}_i(z). \tag{18.37}$$
#
# It goes with the *square* of the distance: a temperature near 1 gains next to nothing.


# %%
def scored(rng, n=400, V=6, scale=2.0, hits=0.6):
    """Logits (n, V), and labels (n,) that are often the largest."""
    z = scale * rng.normal(size=(n, V))
    return z, np.where(rng.random(n) < hits, z.argmax(1), rng.integers(0, V, n))


def moments(z, y, b):
    """Mean over rows of E_i z - z_iy, and of Var_i(z), at inverse temperature b."""
    p = np.exp(b * z - (b * z).max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    mean = (p * z).sum(1)
    return (mean - z[np.arange(len(y)), y]).mean(), ((p * z**2).sum(1) - mean**2).mean()


errors = {"slope": [], "curvature": [], "gain": []}
for _ in range(30):
    z, y = scored(rng)
    b = rng.uniform(0.3, 2)
    slope, curvature = moments(z, y, b)
    errors["slope"].append(central_differences(
        lambda x, z=z, y=y: m.nats_at_temperature(z, y, 1 / float(x)), b) - slope)
    errors["curvature"].append(central_differences(
        lambda x, z=z, y=y: moments(z, y, float(x))[0], b) / curvature - 1)
    best = 1 / m.best_temperature(z, y)
    z = z * best * rng.uniform(0.9, 1.1)  # so that the best is near 1
    best = 1 / m.best_temperature(z, y)
    gain = m.nats_at_temperature(z, y) - m.nats_at_temperature(z, y, 1 / best)
    errors["gain"].append(gain - (1 - best) ** 2 / 2 * moments(z, y, best)[1])
    errors["gain"][-1] /= (0.1**2 / 2 * moments(z, y, best)[1])
check("slope_in_inverse_temperature", np.abs(errors["slope"]), at_most=1e-9)
check("curvature_is_a_variance", np.abs(errors["curvature"]), at_most=1e-8)
check("gain_of_a_temperature", np.abs(errors["gain"]), at_most=0.1)

# %% [markdown]
# ### Intervals
#
# A metric on $n$ items is a mean of $n$ numbers $x_i$ (or is made of such means). On other items it
# would come out otherwise. The **bootstrap** asks how much so, by drawing $n$ of the $n$ items
# *with replacement*, again and again, and taking the metric of each draw. Under this drawing,
# written $\mathbb E^*$, each draw is $x_i$ with probability $1/n$, and the $n$ draws are
# independent:
#
# $$\mathbb E^*\bar x^*=\bar x,\qquad
# \mathrm{Var}^*(\bar x^*)=\frac1n\cdot\frac1n\sum_i(x_i-\bar x)^2=\frac{n-1}n\cdot\frac{s^2}n,
# \tag{18.38}$$
#
# with $s^2$ the sample variance. So for a mean the bootstrap finds what the textbook has, the
# standard error $s/\sqrt n$, but for a factor that matters for few items only. Its use is that it
# needs no formula: $F$, BLEU and ECE go the same way. The middle 95 % of the draws is the interval.
#
# **Two models on the same items** should be compared by the differences. With variances
# $\sigma_1^2,\sigma_2^2$ of the items' scores and correlation $r$ between the models
#
# $$\mathrm{Var}(\bar x-\bar y)=\frac1n\big(\sigma_1^2+\sigma_2^2-2r\sigma_1\sigma_2\big),
# \tag{18.39}$$
#
# and what is hard for one model is hard for the other: $r$ is often above 0.9. Two intervals
# that overlap may hide a difference that is far beyond chance.
#
# **Few values**, such as three seeds: the factor in (18.38) is $2/3$, and $s$ itself is hardly
# known. Student's $t$ pays for both, if the values are normal. For two values it can be derived by
# hand. $x_1+x_2-2\mu$ and $x_1-x_2$ are independent and normal with the same variance, so their
# ratio is the tangent of an angle that is uniform, and
# $\lvert\bar x-\mu\rvert\le\frac12\lvert x_1-x_2\rvert\tan\alpha$ with probability
# $\alpha/(\pi/2)$. At level $\gamma$ therefore
#
# $$\bar x\pm\frac{\lvert x_1-x_2\rvert}2\tan\frac{\pi\gamma}2. \tag{18.40}$$
#
# At 95 % the factor is 12.7: two seeds say almost nothing.
#
# All of this takes the items to be independent. Characters of one document are not. Whole
# *documents* have to be drawn then, as in (16.23).

# %%
x = rng.exponential(size=12)
draws = x[rng.integers(0, 12, (100_000, 12))].mean(1)
check("bootstrap_mean_and_variance",
      [abs(draws.mean() / x.mean() - 1), abs(draws.var() / (x.var() / 12) - 1)], at_most=0.03)
check("the_factor_for_few", abs(x.var() / 12 / (x.var(ddof=1) / 12) - 11 / 12), at_most=1e-12)
hard = rng.normal(size=(4000, 50))  # 50 items, each hard or easy for both models
first, second = (hard + 0.3 * rng.normal(size=(4000, 50)) for _ in range(2))
r, spread = np.corrcoef(first.ravel(), second.ravel())[0, 1], (first - second).mean(1).var()
formula = (first.var() + second.var() - 2 * r * first.std() * second.std()) / 50
print(f"r = {r:.2f}: variance of the difference {spread:.4f}, "
      f"unpaired {(first.var() + second.var()) / 50:.4f}")
check("variance_of_a_paired_difference", abs(spread / formula - 1), at_most=0.1)
check("unpaired_is_far_too_wide", (first.var() + second.var()) / 50 / spread, at_least=5)

# %%
two_seeds = []
for level in (0.5, 0.9, 0.95):
    pair = rng.normal(2, 0.3, 2)
    got = m.student_mean(pair, level)
    half = abs(pair[0] - pair[1]) / 2 * math.tan(math.pi * level / 2)
    two_seeds += [got.low - (pair.mean() - half), got.high - (pair.mean() + half)]
check("two_seeds_by_hand", np.abs(two_seeds), at_most=1e-9)
factor = math.tan(math.pi * 0.95 / 2)
check("twelve_point_seven", abs(factor - 12.7), at_most=0.01)
pairs = rng.normal(size=(20_000, 2))  # around 0
held = np.abs(pairs.mean(1)) <= np.abs(pairs[:, 0] - pairs[:, 1]) / 2 * factor
check("two_seeds_cover_as_often_as_they_say", abs(held.mean() - 0.95), at_most=0.01)

rows = []
for n in (3, 40):
    worlds = [rng.exponential(size=n) for _ in range(300)]  # the true mean is 1
    boot = [m.bootstrap_mean(w, rng, resamples=200) for w in worlds]
    student = [m.student_mean(w) for w in worlds]
    rows.append([n, *(np.mean([i.low <= 1 <= i.high for i in found]) for found in (boot, student))])
show_table(["values", "bootstrap holds the mean", "Student holds it"], rows)
check("of_three_the_bootstrap_is_too_narrow", 0.95 - rows[0][1], at_least=0.1)
check("of_forty_both_are_nearly_right", [0.95 - share for share in rows[1][1:]], at_most=0.08)

# %% [markdown]
# ## Code
#
# Each metric once more, written as slowly as its definition reads: items are struck out one by one,
# and nothing is shared between the functions. First the texts.


# %%
def grams_of(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def struck_out(ours, allowed):
    """How many of ours can be struck out of the list allowed, each entry used once."""
    allowed, hits = list(allowed), 0
    for gram in ours:
        if gram in allowed:
            allowed.remove(gram)
            hits += 1
    return hits


def bleu_by_hand(hypotheses, references):
    """(18.21), (18.22), several references for each hypothesis."""
    product, c, r = 1.0, sum(map(len, hypotheses)), 0
    for h, given in zip(hypotheses, references, strict=True):
        r += sorted((abs(len(g) - len(h)), len(g)) for g in given)[0][1]
    for n in (1, 2, 3, 4):
        hits = total = 0
        for h, given in zip(hypotheses, references, strict=True):
            allowed = []  # each n-gram as often as in the reference that has it most often
            for gram in {gram for g in given for gram in grams_of(g, n)}:
                allowed += [gram] * max(grams_of(g, n).count(gram) for g in given)
            hits, total = hits + struck_out(grams_of(h, n), allowed), total + len(grams_of(h, n))
        if hits == 0:
            return 0.0
        product *= hits / total
    return (1.0 if c >= r else math.exp(1 - r / c)) * product**0.25


def rouge_by_hand(h, r, n):
    hits = struck_out(grams_of(h, n), grams_of(r, n))
    return 2 * hits / (len(grams_of(h, n)) + len(grams_of(r, n))) if hits else 0.0


# %%
def common_by_hand(a, b):
    """(18.26), as a recursion from the end."""

    @cache
    def length(i, j):
        if i == 0 or j == 0:
            return 0
        if a[i - 1] == b[j - 1]:
            return length(i - 1, j - 1) + 1
        return max(length(i - 1, j), length(i, j - 1))

    return length(len(a), len(b))


def edits_by_hand(a, b):
    @cache
    def steps(i, j):
        if i == 0 or j == 0:
            return i + j
        same = a[i - 1] == b[j - 1]
        return min(steps(i - 1, j) + 1, steps(i, j - 1) + 1, steps(i - 1, j - 1) + (not same))

    return steps(len(a), len(b))


def chrf_by_hand(h, r):
    """F_2 of the mean precision and recall over n = 1..6 characters, blanks left out."""
    h, r, shares = h.replace(" ", ""), r.replace(" ", ""), []
    for n in range(1, 7):
        ours, theirs = grams_of(h, n), grams_of(r, n)
        if ours and theirs:
            hits = struck_out(ours, theirs)
            shares.append((hits / len(ours), hits / len(theirs)))
    P, R = (sum(column) / len(shares) for column in zip(*shares, strict=True))
    return 5 * P * R / (4 * P + R) if P + R else 0.0


def longest_copy_by_hand(text, training):
    spans = [text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    return max((len(span) for span in spans if span in training), default=0)


# %% [markdown]
# Then the numbers. The temperature is found by (18.34) as it stands: halve an interval until the
# slope is 0.


# %%
def f_by_hand(labels, guesses, k, beta):
    """F_beta of class k from its counts, item by item."""
    tp = fp = fn = 0
    for label, guess in zip(labels, guesses, strict=True):
        tp += label == k == guess
        fp += guess == k != label
        fn += label == k != guess
    return (1 + beta**2) * tp / ((1 + beta**2) * tp + beta**2 * fn + fp) if tp else 0.0


def ece_by_hand(p, labels, bins=10):
    """(18.30), bin by bin."""
    error = 0.0
    for b in range(bins):
        inside = [i for i in range(len(p)) if b / bins < max(p[i]) <= (b + 1) / bins]
        right = sum(np.argmax(p[i]) == labels[i] for i in inside)
        error += abs(right - sum(max(p[i]) for i in inside)) / len(p)
    return error


def brier_by_hand(p, labels):
    return sum((p[i][v] - (v == labels[i])) ** 2
               for i in range(len(p)) for v in range(len(p[i]))) / len(p)


def temperature_by_hand(z, y):
    """The root of (18.34), for b between 1/20 and 20."""
    low, high = 1 / 20, 20.0
    for _ in range(100):
        b = (low + high) / 2
        low, high = (b, high) if moments(z, y, b)[0] < 0 else (low, b)
    return 1 / low


def bootstrap_by_hand(values, rng, resamples):
    means = []
    for _ in range(resamples):
        chosen = [values[i] for i in rng.integers(0, len(values), len(values))]
        means.append(sum(chosen) / len(chosen))
    means.sort()

    def quantile(q):  # between two neighbours, in proportion
        place = q * (resamples - 1)
        i = min(int(place), resamples - 2)
        return means[i] + (place - i) * (means[i + 1] - means[i])

    return sum(values) / len(values), quantile(0.025), quantile(0.975)


# %% [markdown]
# The package beside them, on 100 random cases each: short lists over few words, so that there are
# many repeats, ties, and lists without a 4-gram.


# %%
def random_words(most=14, kinds=4):
    return [f"w{i}" for i in rng.integers(0, kinds, rng.integers(1, most))]


off = {name: [] for name in ("BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L", "edits", "chrF", "distinct",
                             "longest copy")}
for _ in range(100):
    size = rng.integers(1, 5)
    hs = [random_words() for _ in range(size)]
    rs = [[random_words() for _ in range(rng.integers(1, 4))] for _ in range(size)]
    off["BLEU"].append(m.corpus_bleu(hs, rs) - bleu_by_hand(hs, rs))
    h, r = hs[0], rs[0][0]
    for n in (1, 2):
        off[f"ROUGE-{n}"].append(m.rouge_n(h, r, n).f - rouge_by_hand(h, r, n))
    off["ROUGE-L"].append(m.rouge_l(h, r).f - 2 * common_by_hand(h, r) / (len(h) + len(r)))
    off["edits"].append(m.edit_distance(h, r) - edits_by_hand(h, r))
    off["chrF"].append(m.chrf([" ".join(h)], [" ".join(r)])
                       - chrf_by_hand(" ".join(h), " ".join(r)))
    grams = grams_of(h, 1)
    off["distinct"].append(m.distinct_n([h], 1) - len(set(grams)) / len(grams))
    a, b = ("".join(rng.choice(list("abc"), rng.integers(1, 60))) for _ in range(2))
    off["longest copy"].append(m.longest_copy(a, b).length - longest_copy_by_hand(a, b))
worst = {name: np.abs(errors).max() for name, errors in off.items()}
show_table(["texts: package less by hand", "largest of 100"], [*worst.items()])
not_zero = m.corpus_bleu([["a", "b", "c", "d", "x"]], [[["a", "b", "c", "d", "y"]]])
print(f"and BLEU is not always 0: {not_zero:.3f}")
check("texts_agree", [*worst.values()], at_most=1e-12)

# %%
off = {name: [] for name in ("perplexity", "F", "confusion", "ECE", "Brier", "temperature",
                             "bootstrap")}
for case in range(100):
    z, y = scored(rng, 60, int(rng.integers(2, 7)), rng.uniform(0.5, 4))
    K, guesses = z.shape[1], z.argmax(1)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    at_label = p[np.arange(60), y]
    off["perplexity"].append(m.perplexity(-np.log(at_label)) / np.prod(at_label) ** (-1 / 60) - 1)
    beta = (0.5, 1.0, 2.0)[case % 3]
    f = m.class_scores(m.count_classes(y, guesses, K), beta).f
    off["F"] += [f[k] - f_by_hand(y, guesses, k, beta) for k in range(K)]
    table = m.confusion_matrix(y, guesses, K)
    off["confusion"] += [table[i, j] - ((y == i) & (guesses == j)).sum()
                         for i in range(K) for j in range(K)]
    off["ECE"].append(m.calibration_error(*m.top_choice(p, y)) - ece_by_hand(p, y))
    off["Brier"].append(m.brier_score(p, y) - brier_by_hand(p, y))
    off["temperature"].append(m.best_temperature(z, y) / temperature_by_hand(z, y) - 1)
    values, seed = rng.exponential(size=int(rng.integers(2, 30))), int(rng.integers(1000))
    two = m.bootstrap_mean(values, np.random.default_rng(seed), resamples=40), bootstrap_by_hand(
        values, np.random.default_rng(seed), 40)
    off["bootstrap"] += [a - b for a, b in zip(*two, strict=True)]
worst = {name: np.abs(errors).max() for name, errors in off.items()}
show_table(["numbers: package less by hand", "largest of 100"], [*worst.items()])
check("numbers_agree", [*worst.values()], at_most=1e-12)

# %% [markdown]
# A reader may suspect that package and definition were misread by the same person. So here are
# numbers that other people's programs gave: sacreBLEU 2.6.0 (Post 2018), rouge-score 0.1.2,
# scikit-learn 1.9.1 and SciPy 1.17.1, on the inputs below, recorded once. (The package's tests run
# them live, on 100 random cases each.)

# %%
OURS = ["the small model wrote a short note about the weather in early spring",
        "it rains and it rains and it rains", "a bird sat on the old wall"]
THEIRS = ["a small model wrote the short note about weather in early spring",
          "it rains every day and then it rains again", "the old bird sat on a wall in the sun"]
ours, theirs = [s.split() for s in OURS], [[s.split()] for s in THEIRS]
LABELS = np.repeat([0, 1, 2], [7, 4, 5])
GUESSES = np.array([0, 0, 0, 0, 0, 1, 2, 1, 1, 0, 0, 2, 2, 2, 0, 0])
counts = m.count_classes(LABELS, GUESSES, 3)
P_ONE, ONE = np.array([0.05, 0.2, 0.3, 0.35, 0.6, 0.7, 0.8, 0.9]), [0, 0, 1, 0, 1, 0, 1, 1]
two = np.stack([1 - P_ONE, P_ONE], 1)
recorded = [  # name, the package, the other program
    ["BLEU of the corpus", m.corpus_bleu(ours, theirs), 0.2379526199682838],
    ["BLEU, 1 added", m.corpus_bleu(ours, theirs, "add-k"), 0.2921326549320134],
    ["BLEU of sentence 2", m.sentence_bleu(ours[1], theirs[1]), 0.14575161396875705],
    ["BLEU of sentence 3", m.sentence_bleu(ours[2], theirs[2]), 0.21782177700343552],
    ["chrF", m.chrf(OURS, THEIRS), 0.6431306264649909],
    ["ROUGE-1, sentence 1", m.rouge_n(ours[0], theirs[0][0], 1).f, 0.96],
    ["ROUGE-2, sentence 1", m.rouge_n(ours[0], theirs[0][0], 2).f, 0.6086956521739131],
    ["ROUGE-L, sentence 3", m.rouge_l(ours[2], theirs[2][0]).f, 0.47058823529411764],
    ["macro precision", m.average_scores(counts, "macro").precision, 0.6574074074074074],
    ["macro F", m.average_scores(counts, "macro").f, 0.621031746031746],
    ["weighted F", m.average_scores(counts, "weighted").f, 0.6246279761904762],
    ["F_2 of class 0", m.class_scores(counts, 2.0).f[0], 0.6756756756756757],
    ["Brier, two classes", m.brier_score(two, ONE) / 2, 0.169375],
    ["mean charge", m.nats_at_temperature(np.log(two), ONE), 0.49406188264801415],
    ["t, 4 degrees of freedom", m.student_quantile(0.95, 4), 2.7764451051977934],
    ["Student, lower end", m.student_mean([1.61, 1.58, 1.66]).low, 1.5162714363058463],
]
show_table(["", "package", "recorded"], [[name, *(f"{x:.10f}" for x in row)]
                                         for name, *row in recorded])
check("others_agree", [abs(a - b) for _, a, b in recorded], at_most=1e-9)

# %%
print(inspect.getsource(bleu._counts))
print(inspect.getsource(bleu._score))

# %% [markdown]
# What the package does differently, and why:
#
# - It counts with `Counter`s. `a & b` keeps the smaller count of each $n$-gram, which *is* the
#   clipping, and `a | b` the larger, which is the maximum over references.
# - The four ratios are added as logarithms. `skip` is for sentences of fewer than four words, which
#   have no 4-gram: a ratio of nothing by nothing is left out rather than taken as 0.
# - It takes lists of tokens and refuses strings. How a text is cut into words changes BLEU by
#   several points (Post 2018, arXiv:1804.08771), so that choice should be seen.
# - A share of nothing, 0/0, is 0, as in most programs. A class that was never predicted then has a
#   precision of 0, which pulls a macro average down.

# %%
print(inspect.getsource(calibration.best_temperature).split('"""')[2])

# %% [markdown]
# - The package looks for the zero of the *slope*. Comparing values of $L$ would be the obvious way,
# but a minimum is flat: $L$ changes by $\frac12L''\delta^2$ at a distance $\delta$, which drowns in
# the sixteen digits of $L$ when $\delta$ is about $10^{-8}$. The slope changes by $L''\delta$.
# - There may be no best temperature. If every label has the largest logit, the charge falls for
#   ever as $T\to0$. If labels are no larger than others on average, it falls as $T\to\infty$. Both
#   are refused by name.


# %%
def by_values(z, y):
    """The best temperature by comparing charges: three parts, drop one, 200 times."""
    low, high = 0.2, 5.0  # of b
    for _ in range(200):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        keep_low = m.nats_at_temperature(z, y, 1 / a) < m.nats_at_temperature(z, y, 1 / b)
        low, high = (low, b) if keep_low else (a, high)
    return 1 / low


lost, kept = [], []
for _ in range(10):
    z, y = scored(rng, 200)
    best = m.best_temperature(z, y)
    lost.append(abs(by_values(z, y) / best - 1))
    kept.append(abs(moments(z, y, 1 / best)[0]))
print(f"found by values: {max(lost):.0e} off; the slope where the package ends: {max(kept):.0e}")
check("values_lose_half_the_digits", max(lost), at_least=1e-11)
check("the_slope_does_not", kept, at_most=1e-12)

# %% [markdown]
# ## Gradient check
#
# The charge as a function of all logits $z$ $(n,V)$ and of $\tau=\ln T$: (18.36). By hand, and from
# the package's `cross_entropy` on `z * exp(-tau)`, whose backward pass adds up the gradient of the
# one number $\tau$ over all logits that it scaled.

# %%
Y = rng.integers(0, 6, 9)


def temperature_loss_by_hand(z, tau):
    """Mean nats of Y under softmax(z / T), T = exp(tau), and its VJP. z (9, 6), tau ()."""
    n, rows, b = len(z), np.arange(len(z)), np.exp(-tau)
    e = np.exp(b * z)
    p = e / e.sum(1, keepdims=True)  # (n, V)
    out = (np.log(e.sum(1)) - b * z[rows, Y]).mean()

    def vjp(g):
        dz = b / n * (p - np.eye(6)[Y])  # (n, V)
        dtau = b / n * (z[rows, Y] - (p * z).sum(1)).sum()
        return g * dz, np.asarray(g * dtau)

    return out, vjp


def on_tape(cross_entropy):
    return lambda z, tau: cross_entropy(z * ops.exp(-tau), Y)


arrays = {"z": rng.normal(size=(9, 6)), "tau": np.array(0.4)}
worst = [witnesses(temperature_loss_by_hand, on_tape(F.cross_entropy),
                   on_tape(reference.cross_entropy), arrays,
                   analytic=lambda z, tau: temperature_loss_by_hand(z, tau)[0])]
for tau in (-1.0, 0.0, 1.5):
    out, vjp = temperature_loss_by_hand(arrays["z"], tau)
    slope = central_differences(
        lambda t: m.nats_at_temperature(arrays["z"], Y, math.exp(float(t))), np.array(tau))
    worst += [abs(out - m.nats_at_temperature(arrays["z"], Y, math.exp(tau))),
              abs(vjp(1.0)[1] / slope - 1)]
check("temperature_gradient", worst, at_most=1e-9)

# %%
print(inspect.getsource(F.cross_entropy.forward).split('"""')[2])

# %% [markdown]
# `cross_entropy` knows of no temperature. Its backward pass ends at its argument, $z/T$, with
# $(p-\mathrm{onehot})/n$. (`memory.subtract(x, y)` is `x - y`, and `memory.like(x)` an empty array
# like `x`, both in memory that was used before if they are large: chapter 14.) The product
# `z * exp(-tau)` passes that on twice: times $b$ to $z$, and, summed over all entries because one
# $\tau$ was used in all of them, to $\tau$. Gradient descent on $\tau$ must end where halving ends,
# and the logits of the best temperature need no second one:

# %%
z, y = scored(rng, 300, 6, 5.0)
tau = Tensor(np.zeros(()), requires_grad=True)
for _ in range(400):
    tau.grad = None
    F.cross_entropy(Tensor(z) * ops.exp(-tau), y).backward()
    tau.data = tau.data - 1.0 * tau.grad
best = m.best_temperature(z, y)
print(f"descent: T = {math.exp(tau.item()):.10f}, halving: T = {best:.10f}")
check("descent_finds_the_same", abs(math.exp(tau.item()) / best - 1), at_most=1e-9)
again = m.best_temperature(z / best, y)
check("scaled_once_is_enough", abs(again - 1), at_most=1e-12)
before, after = (np.argsort(x, 1) for x in (z, z / best))
check("no_answer_changes", np.abs(before - after), at_most=0)

# %% [markdown]
# ### Break it
#
# Four wrong slopes in $\tau$, each against differences, and then each set to work: from $T=1$, with
# gradient descent.
#
# 1. $dL/db$ with the sign turned, but without the factor $b$;
# 2. the sign forgotten;
# 3. $p$ taken at $T=1$ all along, as if the confidence did not change with $T$;
# 4. the largest logit in place of the mean one, as if the model were sure.


# %%
def slope_in_tau(z, y, tau, mistake=None):
    """dL/dtau, (18.36), or one of four mistakes."""
    b, at_label = math.exp(-tau), z[np.arange(len(y)), y]
    p = np.exp((1.0 if mistake == "p at T = 1" else b) * z)
    p /= p.sum(1, keepdims=True)
    mean = z.max(1) if mistake == "largest for mean" else (p * z).sum(1)
    factor = {"no factor b": 1.0, "sign": -b}.get(mistake, b)
    return factor * (at_label - mean).mean()


rows, off = [], []
for mistake in (None, "no factor b", "sign", "p at T = 1", "largest for mean"):
    true = central_differences(
        lambda t: m.nats_at_temperature(z, y, math.exp(float(t))), np.array(0.5))
    off.append(abs(slope_in_tau(z, y, 0.5, mistake) / true - 1))
    t = 0.0
    for _ in range(2000):
        t = min(max(t - 0.5 * slope_in_tau(z, y, t, mistake), -3.0), 3.0)
    rows.append([mistake or "right", off[-1], math.exp(t)])
show_table(["slope", "relative error at T = 1.65", "descent ends at T ="], rows)
check("the_right_slope", off[0], at_most=1e-9)
check("four_wrong_slopes", off[1:], at_least=0.1)
check("one_of_them_works_as_well", abs(rows[1][2] / best - 1), at_most=1e-9)
check("three_do_not", [abs(row[2] / best - 1) for row in rows[2:]], at_least=0.5)

# %% [markdown]
# The first is the one to remember. It is **wrong and finds the right temperature**, because a
# positive factor does not move a zero. No result could have shown the mistake, only the comparison.
# In a network, where $\tau$ is one parameter among others, its step would be wrong by that factor
# next to theirs. The other three run to the end of the allowed range.

# %% [markdown]
# ## Experiment
#
# ### Three models that answer
#
# The default corpus, 94 characters, de-duplicated and split by document. Three models of the next
# character:
#
# - a small GPT (2 blocks of 64 channels, 32 characters of context) that reads 300 batches of fresh
#   text, less than the corpus once;
# - a smaller one (1 block of 48 channels) that reads the *first 2,000 characters* of it, over and
#   over;
# - the counted 7-gram, whose 560,000 characters are few for contexts of six.
#
# Each is judged on the same 5,000 held-out characters. The temperature is fitted on 2,500 *others*:
# whole documents apart, so that nothing leaks.
#
# **Prediction.** Training makes $-\ln p$ small, and $-\ln p$ is proper: on text like that which it
# was trained on, a model is calibrated as a by-product. For the first GPT nearly all text is new
# when it is read. So it will be near the noise floor, and its temperature near 1. The other two
# have seen their training text many times or count it exactly, and mistake it for the world. They
# will be **too sure**, $T>1$. One number will mend the over-fitted GPT. The 7-gram it will mend
# only partly: its confidence is wrong in different ways where it has counted much and where it has
# counted little.
#
# All measures take NumPy arrays. A GPT's logits come out by `.numpy()`, since the package may
# compute on a GPU, whose arrays do not turn into NumPy's by themselves.


# %%
def train(ids, config, steps, batch_size):
    """A GPT of that config after `steps`."""
    model, plan = GPT(config, np.random.default_rng(0)), TrainConfig(
        steps=steps, batch_size=batch_size, lr=6e-3, warmup=30, eval_every=steps, eval_tokens=2000)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, tokenizer, ids, val_ids, plan, Path(folder),
                          np.random.default_rng(0))
        trainer.run(said.append)
    return model


said = []
fresh = train(train_ids, GPTConfig(V, 32, n_layer=2, n_head=4, n_embd=64), 300, 32)
overfit = train(train_ids[:2000], GPTConfig(V, 32, n_layer=1, n_head=4, n_embd=48), 300, 16)
grams = NGram(7, V).fit(train_ids)
for line in said:
    print(line)


# %%
def gpt_logits(model, ids):
    """Logits for ids[1:], (n, V), each with 16 to 32 characters of context, or all there are."""
    T, out = model.config.block_size, []
    padded = np.concatenate([ids, np.zeros(T, ids.dtype)])
    starts = np.arange(0, len(ids) - 1, T // 2)
    with no_grad():
        for some in np.array_split(starts, 10):
            out.append(model(padded[some[:, None] + np.arange(T)]).numpy())  # (B, T, V)
    z = np.concatenate(out).astype(float)
    first, rest = z[0, : T // 2], z[:, T // 2 :].reshape(-1, V)
    return np.concatenate([first, rest])[: len(ids) - 1]


def gram_logits(model, ids):
    """ln P of the character after each place, which softmax turns back into P. -> (n, V)"""
    return np.log([model.probs(ids[max(0, i - 6) : i]) for i in range(1, len(ids))])


def split_at_document(ids, size):
    """The next place after `size` that begins a document."""
    return size + 1 + int((ids[size:] == tokenizer.encode("\n")[0]).argmax())


cut = split_at_document(val_ids, 2500)
held = val_ids[:cut], val_ids[cut : cut + 5001]  # to fit by, to judge by
labels = [ids[1:] for ids in held]
models = {"GPT, fresh text": [gpt_logits(fresh, ids) for ids in held],
          "GPT, over-fitted": [gpt_logits(overfit, ids) for ids in held],
          "7-gram": [gram_logits(grams, ids) for ids in held]}
one = fresh(held[1][None, 16:48]).numpy()[0]  # the second window, by itself
check("logits_at_their_places",
      [rel_error(models["GPT, fresh text"][1][32:48], one[16:].astype(float)),
       np.abs(-models["7-gram"][1][range(5000), labels[1]] - grams.nats(held[1])[1:]).max()],
      at_most=1e-4)


# %%
def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def judge(z, y, T):
    """Confidence, ECE, floor, nats and Brier score at temperature T."""
    p = softmax(z / T)
    c, h = m.top_choice(p, y)
    return [h.mean(), c.mean(), m.calibration_error(c, h), noise_floor(c),
            m.nats_at_temperature(z, y, T), m.brier_score(p, y)]


rows, results = [], {}
for name, (z_fit, z) in models.items():
    T = m.best_temperature(z_fit, labels[0])
    results[name] = T, judge(z, labels[1], 1.0), judge(z, labels[1], T)
    rows += [[name, 1.0, *results[name][1]], ["", T, *results[name][2]]]
show_table(["model", "T", "accuracy", "confidence", "ECE", "its floor", "nats", "Brier"], rows)
(T_fresh, a_fresh, b_fresh), (T_over, a_over, b_over), (T_gram, a_gram, b_gram) = results.values()
check("fresh_text_temperature_near_one", abs(T_fresh - 1), at_most=0.1)
check("fresh_text_near_the_floor", a_fresh[2] / a_fresh[3], at_most=3)
check("and_gains_nothing", a_fresh[4] - b_fresh[4], at_most=0.01)
check("over_fitted_is_too_sure", [T_over - 1, a_over[1] - a_over[0] - a_over[3]], at_least=0.02)
check("one_number_mends_it", a_over[2] / b_over[2], at_least=1.5)
check("seven_gram_is_too_sure", [T_gram - 1, a_gram[1] - a_gram[0]], at_least=0.05)
check("one_number_mends_the_seven_gram_partly",
      [a_gram[2] / b_gram[2] - 1, b_gram[2] / b_gram[3] - 1], at_least=0.1)
check("accuracy_stays", [abs(a[0] - b[0]) for _, a, b in results.values()], at_most=1e-12)
check("gain_in_nats", [a_over[4] - b_over[4], a_gram[4] - b_gram[4] - 0.05], at_least=0.01)

# %% [markdown]
# As predicted, in all three. The first GPT's ECE is its noise floor: there is nothing to mend, and
# the temperature has next to nothing to gain, as (18.37) said. That does not make it a good model.
# It knows little, and *knows how little*. The over-fitted GPT claims 30 % and gets 24 %, and one
# number more than halves its error. The 7-gram is the best of the three and the least honest. A
# temperature takes a sixth of a nat off its charge, and then it is too *modest*. Why? It was too
# sure by different amounts in different places:

# %%
contexts = {bytes(row) for row in np.lib.stride_tricks.sliding_window_view(
    train_ids.astype(np.uint8), 6)}
ids = held[1].astype(np.uint8)
seen = np.array([bytes(ids[max(0, i - 6) : i]) in contexts for i in range(1, 5001)])
gaps = []
for group, name in ((seen, "seen in training"), (~seen, "never seen")):
    z, y = models["7-gram"][1][group], labels[1][group]
    tops = [m.top_choice(softmax(z / T), y) for T in (1.0, T_gram)]
    gaps.append([(confidence - right).mean() for confidence, right in tops])
    print(f"context of 6 {name}: {group.mean():.0%} of places; too sure by "
          f"{gaps[-1][0]:+.3f}, after scaling by {gaps[-1][1]:+.3f}")
check("new_contexts_are_the_worse", gaps[1][0] - gaps[0][0], at_least=0.03)
check("known_contexts_end_too_modest", -gaps[0][1], at_least=0.02)

# %%
fig, axes = plt.subplots(1, 3, figsize=(10.5, 4.1), sharey=True)
for ax, (name, (T, *_)) in zip(axes, results.items(), strict=True):
    z, y = models[name][1], labels[1]
    ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    for t, colour, marker in ((1.0, RED, "o"), (T, BLUE, "s")):
        size, conf, acc = m.reliability(*m.top_choice(softmax(z / t), y))
        keep = size >= 20
        error = 2 * np.sqrt(conf * (1 - conf) / size)[keep]
        ax.errorbar(conf[keep], acc[keep], error, color=colour, marker=marker, ms=5, lw=1.5,
                    elinewidth=1)
    ax.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xticks([0.25, 0.5, 0.75])
    ax.set_title(name, size=12)
    before, after = (r[2] for r in results[name][1:])
    ax.text(0.05, 0.93, f"T = 1: ECE {before:.3f}", color=RED, size=11)
    ax.text(0.05, 0.85, f"T = {T:.2f}: ECE {after:.3f}", color=BLUE, size=11)
axes[0].set_ylabel("share that was right")
axes[1].annotate("too sure", (0.62, 0.42), (0.66, 0.12), color=RED, ha="center",
                 arrowprops={"arrowstyle": "->", "color": RED})
axes[0].text(0.66, 0.3, "bars: 2 standard\nerrors by chance", size=10, color=GREY, ha="center")
fig.suptitle("What has seen its text once knows how sure to be; what knows it by heart does not")
save_figure(fig, "18_reliability.svg")
plt.show()

# %% [markdown]
# ### Who wins depends on the metric
#
# The 5-gram beside the 7-gram, on the same characters. **Prediction:** the longer memory gives more
# right answers, and a *worse* charge, because where it is wrong it is too sure. If that is the
# whole reason, a temperature must reverse the order.

# %%
five = NGram(5, V).fit(train_ids)
z_fit, z = (gram_logits(five, ids) for ids in held)
T_five = m.best_temperature(z_fit, labels[0])
a_five, b_five = judge(z, labels[1], 1.0), judge(z, labels[1], T_five)
show_table(["model", "accuracy", "nats", "nats at its best T", "T"],
           [["5-gram", a_five[0], a_five[4], b_five[4], T_five],
            ["7-gram", a_gram[0], a_gram[4], b_gram[4], T_gram]])
check("seven_gram_has_more_right_answers", a_gram[0] - a_five[0], at_least=0.02)
check("and_a_worse_charge", a_gram[4] - a_five[4], at_least=0.01)
check("scaled_it_wins", b_five[4] - b_gram[4], at_least=0.03)

# %% [markdown]
# ### How much context does the GPT use?
#
# **Prediction.** The GPT's charge lies between a 2-gram's and a 3-gram's (chapter 16). If that is
# how it works, too, then its perplexity falls over the first one or two places of a block and is
# flat from there: 32 characters of context, of which it uses about two. The 7-gram, shown the same
# contexts, must go on falling.

# %%
T = 32
starts = np.arange(0, len(val_ids) - T - 1, T)
rows = val_ids[starts[:, None] + np.arange(T + 1)]  # (B, T + 1), no character twice
with no_grad():
    logp = F.log_softmax(fresh(rows[:, :T])).numpy()
gpt_nats = -np.take_along_axis(logp, rows[:, 1:, None], -1)[..., 0].astype(float)  # (B, T)
by_order = grams.nats_by_order(val_ids)  # (7, n)
order = np.minimum(np.arange(T) + 2, 7)  # with t + 1 characters of context
gram_nats = by_order[order - 1, starts[:, None] + 1 + np.arange(T)]  # (B, T)
gpt_at, gram_at = (m.perplexity_by_position(nats) for nats in (gpt_nats, gram_nats))
show_table(["characters of context", "GPT", "7-gram"],
           [[t + 1, gpt_at.perplexity[t], gram_at.perplexity[t]] for t in (0, 1, 2, 3, 4, 5, 31)])
check("gpt_falls_at_first", gpt_at.nats[0] - gpt_at.nats[8:].mean(), at_least=0.1)
check("then_it_is_flat", abs(gpt_at.nats[2:5].mean() - gpt_at.nats[8:].mean()), at_most=0.1)
check("seven_gram_goes_on_falling", gram_at.nats[1] - gram_at.nats[8:].mean(), at_least=0.3)

# %%
fig, axes = plt.subplots(figsize=(7, 4.1))
place = np.arange(1, T + 1)
for at, nats, colour in ((gpt_at, gpt_nats, BLUE), (gram_at, gram_nats, RED)):
    error = 2 * nats.std(0) / math.sqrt(len(nats))
    axes.fill_between(place, np.exp(at.nats - error), np.exp(at.nats + error), color=colour,
                      alpha=0.2, lw=0)
    axes.plot(place, at.perplexity, "o-", color=colour, ms=4)
axes.annotate("GPT: flat from the\nsecond character on", (10, gpt_at.perplexity[9]), (12, 13),
              color=BLUE, arrowprops={"arrowstyle": "->", "color": GREY})
axes.annotate("7-gram: goes on falling,\nfor two places more", (4, gram_at.perplexity[3]),
              (9, 7.1), color=RED, arrowprops={"arrowstyle": "->", "color": GREY})
axes.set(xlabel="characters of context that the model sees", ylabel="perplexity per character",
         ylim=(0, 16), title="Perplexity by position shows how much context is used")
axes.set_xticks([1, 2, 4, 6, 8, 16, 24, 32])
save_figure(fig, "18_position.svg")
plt.show()

# %% [markdown]
# The prediction holds: 300 steps have taught this GPT little more than which character follows
# which. A mean over all places would not have told whether it uses its context badly or has none.
#
# ### Is the difference more than chance?
#
# All 30,000 held-out characters, 360 documents. Documents are drawn with replacement, and each
# model gets the *same* documents in each draw. The mean is a ratio of sums, all nats over all
# characters.
#
# **Prediction.** The intervals of the 5-gram and the 7-gram overlap, since each must allow for
# whichever documents were drawn. The interval of their difference will not hold 0. Taking
# characters for independent makes all intervals too narrow.

# %%
document = np.cumsum(val_ids[:-1] == tokenizer.encode("\n")[0])  # (n - 1,) of val_ids[1:]
z = gpt_logits(fresh, val_ids)
z -= np.log(np.exp(z).sum(1, keepdims=True))
charges = {f"{k}-gram": by_order[k - 1, 1:] for k in (2, 3, 5, 6, 7)}
charges["GPT"] = -z[np.arange(len(z)), val_ids[1:]]
sums = np.array([np.bincount(document, x) for x in charges.values()])  # (models, documents)
sizes = np.bincount(document)
draws = rng.integers(0, len(sizes), (4000, len(sizes)))
means = {name: s[draws].sum(1) / sizes[draws].sum(1)
         for name, s in zip(charges, sums, strict=True)}  # (4000,) each


def middle(values, level=0.95):
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2])


show_table(["model", "nats/character", "low", "high"],
           [[name, charges[name].mean(), *middle(means[name])] for name in charges])
PAIRS = (("GPT", "2-gram"), ("GPT", "3-gram"), ("5-gram", "7-gram"), ("5-gram", "6-gram"))
ends = {pair: middle(means[pair[0]] - means[pair[1]]) for pair in PAIRS}
show_table(["difference", "mean", "low", "high"],
           [[f"{a} less {b}", (charges[a] - charges[b]).mean(), *ends[a, b]] for a, b in PAIRS])

# %%
end_of_five, start_of_seven = middle(means["5-gram"])[1], middle(means["7-gram"])[0]
check("single_intervals_overlap", end_of_five - start_of_seven, at_least=0.005)
check("the_difference_is_beyond_chance", -ends["5-gram", "7-gram"][1], at_least=0.01)
check("the_gpt_is_between_two_and_three",
      [-ends["GPT", "2-gram"][1], ends["GPT", "3-gram"][0]], at_least=0.05)
low, high = ends["5-gram", "6-gram"]
check("five_and_six_cannot_be_told_apart", min(-low, high), at_least=0.001)
paired = (means["5-gram"] - means["7-gram"]).var()
r = np.corrcoef(means["5-gram"], means["7-gram"])[0, 1]
apart = means["5-gram"].var() + means["7-gram"].var()
print(f"correlation {r:.3f}: variance of the difference {apart / paired:.0f} times smaller")
check("documents_are_correlated", r, at_least=0.9)
check("pairs_are_sharper", apart / paired, at_least=5)
by_characters = m.bootstrap_difference(charges["5-gram"], charges["7-gram"], rng, resamples=500)
ratio = np.diff(ends["5-gram", "7-gram"])[0] / (by_characters.high - by_characters.low)
print(f"by documents the interval is {ratio:.2f} times as wide as by characters")
check("characters_are_not_independent", ratio, at_least=1.1)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.9), width_ratios=[3, 2])
for name, colour in (("5-gram", BLUE), ("7-gram", RED)):
    left.hist(means[name], 40, color=colour, alpha=0.55)
    left.plot(middle(means[name]), [-12 if name == "5-gram" else -24] * 2, color=colour, lw=4)
    left.text(charges[name].mean(), 325, name, color=colour, ha="center")
left.set(xlabel="nats per character", ylabel="draws of 4,000", ylim=(-35, 370))
left.set_title("each model: the intervals overlap", size=12)
right.hist(means["5-gram"] - means["7-gram"], 40, color=GREEN, alpha=0.7)
right.plot(ends["5-gram", "7-gram"], [-18] * 2, color=GREEN, lw=4)
right.axvline(0, color=GREY, lw=1.5)
right.text(-0.001, 325, "no difference", color=GREY, ha="right")
right.set(xlabel="5-gram less 7-gram", ylim=(-35, 370), xlim=(-0.075, 0.008))
right.set_title("in pairs: 0 is far outside", size=12)
fig.suptitle("Drawing documents 4,000 times: what is hard for one model is hard for the other")
save_figure(fig, "18_difference.svg")
plt.show()

# %% [markdown]
# And a result to be honest about: the 5-gram and the 6-gram *cannot* be told apart by this text.
# The 6-gram's mean is lower, and a table with four digits would rank them. Its interval of the
# difference holds 0.
#
# ### Is its text new?
#
# 500 characters by each: the GPT taking the likeliest character each time, the GPT drawing, the
# 7-gram drawing, and a person (held-out documents). **Prediction:** the likeliest character leads
# into a loop. The 7-gram copies *more* than the person does, who has not read the training text;
# the GPT that draws copies less, as it does not spell well enough to copy.


# %%
def gram_text(model, n, rng):
    ids = tokenizer.encode("\n").tolist()
    for _ in range(n):
        ids.append(int(rng.choice(V, p=model.probs(ids[-6:]))))
    return tokenizer.decode(np.array(ids[1:]))


def gpt_text(model, n, **decoding):
    prompt = tokenizer.encode("\n")[None]
    ids = [int(t[0]) for t in generate(model, prompt, n, rng=np.random.default_rng(1), **decoding)]
    return tokenizer.decode(np.array(ids))


texts = {"GPT, likeliest": gpt_text(fresh, 500, temperature=0.0),
         "GPT, drawn": gpt_text(fresh, 500), "7-gram, drawn": gram_text(grams, 500, rng),
         "a person": parts.val[:500]}
rows = [[name, m.distinct_n([text], 4), m.repeated_suffix(text),
         m.copied_share(text, parts.train, 10), m.longest_copy(text, parts.train).length]
        for name, text in texts.items()]
show_table(["text", "distinct-4", "repeats at its end", "10-grams copied", "longest copy"], rows)
for name, text in texts.items():
    print(f"{name}: {text[:60]!r}")
greedy, drawn, counted, person = rows
check("the_likeliest_loops", greedy[2], at_least=200)
check("drawing_does_not", [drawn[1], counted[1]], at_least=0.7)
check("the_person_copies_too", person[3], at_least=0.05)
check("the_seven_gram_copies_more", counted[3] - person[3], at_least=0.05)
check("the_gpt_copies_less", person[3] - drawn[3], at_least=0.05)

# %% [markdown]
# The person is the yardstick: of the runs of ten characters in that text, a sixth had been written
# before, letter for letter. "Copied" without that number beside it means nothing.

# %% [markdown]
# ## What others get wrong
#
# The documents S0 to S4 are listed in the [chapters' README](README.md). S4 names three metrics for
# a GPT in three lines. None of the five says how a language model itself is scored: there is no
# perplexity in them, and no interval.
#
# ### Cross-entropy as a measure of accuracy (S4:119)
#
# S4 computes the cross-entropy in order to judge how accurate predictions are. By (18.12) the two
# are tied in one direction only. Four items, two classes, the last item wrong in both models:

# %%
labels = np.zeros(4, int)
careful, bold = (np.stack([p, 1 - p], 1) for p in (np.array([0.51, 0.51, 0.51, 0.49]),
                                                  np.array([0.99, 0.99, 0.99, 0.49])))
rows = [[name, m.accuracy(labels, p.argmax(1)), m.nats_at_temperature(np.log(p), labels)]
        for name, p in (("careful", careful), ("bold", bold))]
show_table(["model", "accuracy", "nats"], rows)
check("same_accuracy", [abs(row[1] - 0.75) for row in rows], at_most=0)
check("other_cross_entropy", [abs(rows[0][2] - 0.683), abs(rows[1][2] - 0.186)], at_most=5e-4)

# %% [markdown]
# And the experiment above has the reverse: of two n-grams, the one with more right answers has the
# higher cross-entropy. It takes both numbers, and calibration says why they disagree.
#
# ### F1 as *the* score of a classifier (S4:120)
#
# The formula is right: the harmonic mean (18.15). What is missing is that it belongs to *one
# class*, and that it does not see true negatives. Ten positives in a hundred, and a model that
# always says "negative":

# %%
labels, never = np.repeat([1, 0], [10, 90]), np.zeros(100, int)
f = m.class_scores(m.count_classes(labels, never, 2)).f
macro = m.average_scores(m.count_classes(labels, never, 2), "macro").f
print(f"accuracy {m.accuracy(labels, never)}; F of the positives {f[1]}, "
      f"of the negatives {f[0]:.4f}, macro {macro:.4f}")
check("always_negative", [abs(m.accuracy(labels, never) - 0.9), f[1], abs(f[0] - 18 / 19)],
      at_most=1e-12)
guesses = np.concatenate([np.ones(6, int), np.zeros(85, int), np.ones(9, int)])
few, many = ((np.append(labels, np.zeros(k, int)), np.append(guesses, np.zeros(k, int)))
             for k in (0, 900))  # 900 more true negatives
same = [m.class_scores(m.count_classes(*pair, 2)).f[1] for pair in (few, many)]
check("f_does_not_see_true_negatives", abs(same[0] - same[1]), at_most=1e-15)
check("accuracy_does", m.accuracy(*many) - m.accuracy(*few), at_least=0.1)

# %% [markdown]
# An F of 0.95 and one of 0, for the same answers. A report of F must say: of which class, or which
# average.
#
# ### BLEU as similarity, and similarity as quality (S4:121)
#
# S4 takes BLEU for the similarity to a reference, and this for the quality of a translation. It is
# neither a similarity in meaning nor the same in both directions. It is (18.22): clipped counts,
# here $2/7$ for seven times "the", and a penalty, here $e^{1-11/10}=0.9048$ for ten words where the
# reference has eleven. What it does with meaning:

# %%
WANTED = "the committee did not approve the plan for the new bridge on monday"
VERSIONS = {
    "the opposite": "the committee did approve the plan for the new bridge on monday",
    "the same, in other words": "on monday the plan to build another bridge was turned down",
    "its pieces, shuffled": "the new bridge on monday the committee did not approve the plan for",
}
rows = [[name, m.sentence_bleu(text.split(), [WANTED.split()])] for name, text in VERSIONS.items()]
show_table(["against the reference", "BLEU"], rows)
check("one_word_short_of_eleven",
      abs(m.corpus_bleu([long[:10]], [[long[:11]]]) - 0.9048), at_most=5e-5)
check("the_opposite_scores_high", rows[0][1], at_least=0.7)
check("the_same_scores_low", rows[1][1], at_most=0.2)
check("shuffled_pieces_score_high", rows[2][1], at_least=0.7)
short, full = ["the", "plan"], WANTED.split()
there, back = m.sentence_bleu(short, [full]), m.sentence_bleu(full, [short])
check("bleu_is_not_symmetric", abs(there - back), at_least=0.05)

# %% [markdown]
# (Callison-Burch, Osborne and Koehn 2006 count how many permutations of a sentence have one BLEU.)
# It was made to compare *similar systems on a whole corpus*, and there it is of use.
#
# ### The higher the accuracy, the better the model (S4:892)
#
# S4 judges a service that answers customers by its accuracy on a test set: the higher, the better.
# Two things must stand beside it. What does the commonest answer reach? And how many items? Four
# kinds of question, 85 % of them of one kind; and two models with true accuracies of 0.80 and 0.83,
# tried on 100 questions:

# %%
kinds = rng.choice(4, 2000, p=[0.85, 0.05, 0.05, 0.05])
lazy = m.count_classes(kinds, np.zeros(2000, int), 4)
print(f"always the same answer: accuracy {m.accuracy(kinds, 0 * kinds):.3f}, "
      f"macro F {m.average_scores(lazy, 'macro').f:.3f}")
worse, better = (rng.binomial(100, a, 20_000) for a in (0.80, 0.83))
print(f"the worse model is at least as good in {(worse >= better).mean():.0%} of the tests")
check("the_commonest_answer_is_accurate", m.accuracy(kinds, 0 * kinds), at_least=0.8)
check("and_knows_one_class", m.average_scores(lazy, "macro").f, at_most=0.25)
check("the_worse_often_wins", (worse >= better).mean(), at_least=0.2)

# %% [markdown]
# ### An accuracy along the wrong axis (S3:209, S3:214)
#
# S3 takes the largest logit along axis 1, calls the result the label of each word, and proposes its
# accuracy as the score. For a batch, logits are $(B,T,V)$ and axis 1 is *time*: it finds, for each
# token of the vocabulary, the place where its logit is largest. The result is $(B,V)$. It cannot be
# compared with targets $(B,T)$, unless $T=V$; then it can, and nothing complains.

# %%
targets = rng.integers(0, 8, (50, 8))  # T = V = 8
logits = rng.normal(size=(50, 8, 8)) + 20 * np.eye(8)[targets]  # always right
shares = [(logits.argmax(axis) == targets).mean() for axis in (-1, 1)]
print(f"accuracy along the last axis {shares[0]:.2f}, along axis 1 {shares[1]:.2f}")
check("last_axis_is_right", 1 - shares[0], at_most=0)
check("axis_one_is_near_chance", shares[1], at_most=0.3)

# %% [markdown]
# ### "Original and accurate" as one quality (S4:922)
#
# S4 scores generated content by whether it meets the user's need and is original and accurate, all
# under one heading. These are several numbers, and they pull apart. Of the texts above the GPT's is
# the most original, hardly anything in it was ever written before. That is because it is hardly
# English: a 5-gram, as a judge of spelling, charges it far more.

# %%
rows = []
for name in ("GPT, drawn", "a person", "7-gram, drawn"):
    nats = five.nats(tokenizer.encode(texts[name])).mean()
    rows.append([name, m.copied_share(texts[name], parts.train, 10), nats])
show_table(["text", "10-grams copied", "nats/character, by a 5-gram"], rows)
check("most_original_and_least_like_english", rows[0][2] - rows[1][2], at_least=0.3)

# %% [markdown]
# ## Exercises
#
# Each has a stub to fill in and a cell that tries the answer. Solutions are in
# `solutions/18_metrics.py`.

# %% [markdown]
# ### Exercise 18.1: Perplexity per word
#
# *Difficulty 1 of 5 · 10 minutes · 1 point*
#
# A paper reports a perplexity per *word*, your model has one per byte-pair token. The text has
# `tokens` of your tokens and `words` words. Convert yours.
#
# <details><summary>Hint 1</summary>
#
# What do the two have in common? (18.8).
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $P(\text{text})$ of a long text is 0 for a computer. Go by way of the nats.
#
# </details>


# %% exercise="18.1" role="stub"
def perplexity_per_word(perplexity, tokens, words):
    """Perplexity per word, from that per token. tokens, words: how many the text has."""
    raise NotImplementedError


# %% exercise="18.1" role="check"
def check_18_1(perplexity_per_word):
    """The same probability of the text, shared among other units."""
    assert abs(perplexity_per_word(4.0, 200, 100) - 16) < 1e-9, "two tokens a word: 4 * 4 choices"
    assert abs(perplexity_per_word(16.0, 50, 100) - 4) < 1e-9, "half a token a word"
    assert abs(perplexity_per_word(7.0, 30, 30) - 7) < 1e-9, "a token is a word"
    assert abs(perplexity_per_word(1.0, 300, 100) - 1) < 1e-12, "no surprise, whatever the unit"


attempt(check_18_1, perplexity_per_word)

# %% [markdown]
# ### Exercise 18.2: BLEU of a shuffled hypothesis
#
# *Difficulty 2 of 5 · 20 minutes · 2 points*
#
# A reference of different words is cut into pieces of the given lengths, and the pieces are put
# together in another order, in which no two pieces that were neighbours follow each other as
# before. What is the BLEU of the result (no smoothing)? Compute it from the lengths alone.
#
# <details><summary>Hint 1</summary>
#
# An $n$-gram is found again if it lies inside one piece.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A piece of $l$ words has $l-n+1$ of them, if that is not negative. How many $n$-grams has the
# whole?
#
# </details>


# %% exercise="18.2" role="stub"
def shuffled_bleu(lengths):
    """BLEU of the pieces of a reference in another order. lengths: of the pieces -> 0..1."""
    raise NotImplementedError


# %% exercise="18.2" role="check"
def check_18_2(shuffled_bleu):
    """The number that BLEU itself gives for the pieces in reverse order."""
    for lengths in ((10,), (6, 6), (3, 5, 4), (4, 7, 9, 5), (3, 3, 3, 3)):
        ends = np.cumsum(lengths)
        pieces = np.split(np.arange(ends[-1]), ends[:-1])
        turned = np.concatenate(pieces[::-1]).tolist()
        want = m.corpus_bleu([turned], [[list(range(ends[-1]))]])
        assert abs(shuffled_bleu(lengths) - want) < 1e-9, f"wrong for pieces of {lengths}"


attempt(check_18_2, shuffled_bleu)

# %% [markdown]
# ### Exercise 18.3: The same answers, another charge
#
# *Difficulty 3 of 5 · 25 minutes · 3 points*
#
# Given labels of two classes, write probabilities $(N,2)$ whose first `right` answers are right,
# all others wrong (no ties), and whose mean charge is exactly `nats`. You are asked only for what
# can be had: a charge above the bound (18.12), and below $\ln2$ if all answers are right.
#
# <details><summary>Hint 1</summary>
#
# Choose the charge of each item, then turn charges into probabilities. Right answers cost less than
# $\ln2$ each, wrong ones more, and a wrong one can cost as much as you like.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# How much is left when each wrong answer has paid its $\ln2$? Give the right answers a part of
# that, small enough, and the wrong ones the rest. Mind the cases without right or without wrong
# answers.
#
# </details>


# %% exercise="18.3" role="stub"
def same_answers(labels, right, nats):
    """Probabilities (N, 2): the first `right` answers right, the others wrong, mean charge `nats`.

    labels: (N,) of 0 and 1. right: 0..N. Rows sum to 1.
    """
    raise NotImplementedError


# %% exercise="18.3" role="check"
def check_18_3(same_answers):
    """Accuracy and charge are those that were asked for."""
    labels = np.array([1, 0, 0, 1, 1, 0, 1, 0])
    for right, nats in ((6, 0.3), (6, 3.0), (8, 0.01), (4, 0.5), (0, 1.0)):
        p = same_answers(labels, right, nats)
        case = f"{right} of 8 right at {nats} nats"
        assert np.shape(p) == (8, 2) and np.min(p) >= 0, f"{case}: probabilities (8, 2)"
        assert np.abs(np.sum(p, 1) - 1).max() < 1e-12, f"{case}: rows must sum to 1"
        at_label = np.asarray(p)[np.arange(8), labels]
        assert ((at_label > 0.5) == (np.arange(8) < right)).all(), f"{case}: other answers"
        assert abs(-np.log(at_label).mean() - nats) < 1e-9, f"{case}: another charge"


attempt(check_18_3, same_answers)

# %% [markdown]
# ### Exercise 18.4: The interval of a difference of F
#
# *Difficulty 3 of 5 · 25 minutes · 3 points*
#
# F is no mean over items, so `bootstrap_difference` does not take it. Write a paired bootstrap for
# F of class 1: draw items with replacement, give both models the *same* items, and take F of each
# draw anew. Return $F_{\mathrm{first}}-F_{\mathrm{second}}$ on all items, and the middle 95 % of
# the draws. Where there is nothing to find and nothing was predicted, $F=0$.
#
# <details><summary>Hint 1</summary>
#
# `rng.integers(0, N, N)` draws the items. (18.15) has F from the counts.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Draw once, and index `labels`, `first` and `second` by the same places.
#
# </details>


# %% exercise="18.4" role="stub"
def f_difference(labels, first, second, rng, resamples):
    """F of first less F of second, and the ends of its paired 95 % bootstrap interval.

    labels, first, second: (N,) of 0 and 1; F is that of class 1. -> three numbers.
    """
    raise NotImplementedError


# %% exercise="18.4" role="check"
def check_18_4(f_difference):
    """Equal models differ by 0 in every draw, and one that only loses hits is never better."""
    r = np.random.default_rng(4)
    labels = (r.random(80) < 0.4).astype(int)
    first = np.where(r.random(80) < 0.8, labels, 1 - labels)
    same = f_difference(labels, first, first, np.random.default_rng(0), 200)
    assert np.abs(same).max() == 0, "a model does not differ from itself: draw the same items"
    second = first.copy()
    second[np.flatnonzero(labels & first)[:6]] = 0  # six hits less, nothing else changed
    mean, low, high = f_difference(labels, first, second, np.random.default_rng(0), 400)
    f = [float(m.class_scores(m.count_classes(labels, g, 2)).f[1]) for g in (first, second)]
    assert abs(mean - (f[0] - f[1])) < 1e-12, "the difference is that on all items"
    assert 0 <= low < mean < high, "losing hits never raises F: no draw may be below 0"
    back = f_difference(labels, second, first, np.random.default_rng(0), 400)
    assert np.abs(np.array(back) + [mean, high, low]).max() < 1e-9, "exchanged, the signs turn"


attempt(check_18_4, f_difference)

# %% [markdown]
# ### Exercise 18.5: The temperature in a few Newton steps
#
# *Difficulty 4 of 5 · 40 minutes · 4 points*
#
# The charge is convex in $b=1/T$, its slope (18.34) and curvature (18.35) are known: Newton's
# method doubles the number of right digits at each step. Find the best temperature to ten digits in
# at most 40 evaluations of slope and curvature, whatever the scale of the logits. Do not call
# `best_temperature`.
#
# <details><summary>Hint 1</summary>
#
# Plain Newton jumps to a negative $b$ where the curvature is tiny, for instance where the model is
# far too sure. The sign of each slope tells on which side the root lies: keep an interval.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A Newton step that leaves the interval is replaced: by its middle, or, while it has no upper end,
# by twice the lower one. If the interval is very long, halving *in the logarithm* is faster.
#
# </details>
#
# <details><summary>Hint 3</summary>
#
# Adding a number to all logits of a row changes nothing. Subtract the largest before `exp`.
#
# </details>


# %% exercise="18.5" role="stub"
def newton_temperature(logits, labels):
    """The temperature of the fewest nats, and how many slopes were evaluated (at most 40).

    logits: (N, V), labels: (N,) int. -> T > 0, to a relative error of 1e-10, and an int.
    """
    raise NotImplementedError


# %% exercise="18.5" role="check"
def check_18_5(newton_temperature):
    """The temperature at which the charge is least, found quickly."""
    r = np.random.default_rng(5)
    for V, scale in ((3, 1.0), (8, 2.0), (5, 0.5)):
        logits = scale * r.normal(size=(200, V))
        labels = np.where(r.random(200) < 0.6, logits.argmax(1), r.integers(0, V, 200))
        kept = logits.copy()
        T, steps = newton_temperature(logits, labels)
        assert (logits == kept).all(), "the logits were changed"
        nats = [m.nats_at_temperature(logits, labels, T * t) for t in (0.999, 1, 1.001)]
        assert nats[1] < min(nats[0], nats[2]), f"another T is better: V = {V}, scale {scale}"
        assert abs(T / m.best_temperature(logits, labels) - 1) < 1e-10, "fewer than ten digits"
        assert 1 <= steps <= 40, f"{steps} evaluations: Newton needs few"


attempt(check_18_5, newton_temperature)

# %% [markdown]
# ### Exercise 18.6: Calibration without a formula
#
# *Difficulty 5 of 5 · 40 minutes · 4 points*
#
# One temperature could not mend the 7-gram. A more flexible map of confidences is *any increasing
# one*: give each answer a new confidence such that a more confident answer never gets less, equal
# ones get the same, and the squared error $\sum_i(\hat c_i-h_i)^2$ is least. (Isotonic regression;
# Zadrozny and Elkan 2002.)
#
# <details><summary>Hint 1</summary>
#
# Sort by confidence, and let every different confidence be a block with the mean of its $h_i$. When
# the means already increase, they are the answer.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Where a block has a smaller mean than the one before it, the two must be made one, with the mean
# of all its items. That may put it below the one before. Keep the blocks on a stack.
#
# </details>


# %% exercise="18.6" role="stub"
def isotonic(confidence, correct):
    """The increasing map of confidences with the least squared error: new confidences, (N,).

    confidence: (N,) in 0..1, in any order, ties allowed. correct: (N,) of 0 and 1.
    """
    raise NotImplementedError


# %% exercise="18.6" role="check"
def check_18_6(isotonic):
    """Right for four answers, increasing, and better than other increasing maps."""
    got = isotonic(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 1, 0, 1]))
    assert np.abs(np.asarray(got) - [0, 0.5, 0.5, 1]).max() < 1e-12, "the middle two must be pooled"
    got = isotonic(np.array([0.4, 0.1, 0.3, 0.2]), np.array([1, 0, 0, 1]))
    assert np.abs(np.asarray(got) - [1, 0, 0.5, 0.5]).max() < 1e-12, "answers in their own order"
    r = np.random.default_rng(6)
    c = r.random(120)
    h = (r.random(120) < c**2).astype(float)
    new = np.asarray(isotonic(c, h))
    assert new.shape == (120,) and new[c.argsort()].min() >= 0, "one new confidence each, in 0..1"
    assert np.diff(new[c.argsort()]).min() >= -1e-12, "a more confident answer never gets less"
    assert abs(new.mean() - h.mean()) < 1e-12, "pooling keeps the mean"
    error = ((new - h) ** 2).sum()
    for power in (0.5, 1, 1.5, 2, 2.5, 3):
        assert error <= ((c**power - h) ** 2).sum(), "another increasing map has a smaller error"
    for size in (0.01, 0.05):  # nearby increasing maps
        for bend in (np.sin(3 * c), c, -c, (c > 0.5).astype(float)):
            near = np.maximum.accumulate((new + size * bend)[c.argsort()])
            assert error <= ((near - h[c.argsort()]) ** 2).sum() + 1e-12, "not yet the least"


attempt(check_18_6, isotonic)

# %% [markdown]
# ## What was checked
#
# | equation or claim | check | bound |
# |---|---|---|
# | (18.1) two filters of equal accuracy | `two_filters` | <= 1e-15 |
# | (18.2) the same answers at three confidences | `three_ways_to_be_sure` | <= 0.0005 |
# | too sure is worse than a coin | `too_sure_is_worse_than_a_coin` | >= 0.05 |
# | (18.3) perplexity is a geometric mean | `perplexity_is_a_geometric_mean` | <= 1e-12 |
# | (18.4) between the harmonic and the arithmetic mean | `between_two_other_means` | <= 1e-12 |
# | the harmonic mean does not notice one bad token | `harmonic_mean_does_not_notice` | <= 0.001 |
# | perplexity does | `perplexity_notices` | >= 0.1 |
# | (18.5) perplexities of parts multiply | `perplexities_multiply` | <= 1e-12 |
# | (18.5) averaged, they are too high | `averaged_perplexity_is_too_high` | <= 0 |
# | (18.6) by half the variance of the parts' nats | `too_high_by_half_the_variance` | <= 0.2 |
# | (18.7) bits per byte, per character, perplexity | `bits_per_byte_from_perplexity` | <= 1e-12 |
# | (18.8) one probability, three tokenizers | `powers_of_perplexity_agree` | <= 1e-12 |
# | (18.9) throwing tokens together lowers the charge | `throwing_together_lowers` | <= 0 |
# | (18.9) the rest is which of them it was | `which_one_is_the_rest` | <= 1e-09 |
# | a vocabulary of "unknown" has perplexity 1 | `knowing_nothing_is_perfect` | <= 1e-12 |
# | perplexity grows with the vocabulary | `fewer_words_lower_perplexity` | >= 1 |
# | while bits per character fall | `more_words_lower_bits` | >= 0.01 |
# | (18.10) perplexities of the places multiply | `positions_multiply` | <= 1e-12 |
# | (18.11) more context never hurts the best predictor | `context_never_hurts` | <= 1e-12 |
# | (18.11) it helps by the information | `it_helps_by_the_information` | <= 1e-12 |
# | (18.12) each wrong answer costs ln 2 or more | `wrong_answers_cost_ln_two` | <= 0 |
# | (18.12) the bound can be reached | `the_bound_is_reached` | <= 1e-08 |
# | (18.13) variance of an accuracy | `variance_of_accuracy` | <= 0.05 |
# | 0.04 for 100 items | `standard_error_of_100` | <= 0.002 |
# | (18.14) precision by Bayes' rule | `precision_by_bayes` | <= 1e-12 |
# | (18.15) F from the counts | `f_from_counts` | <= 1e-12 |
# | (18.16) F as odds | `f_as_odds` | <= 1e-12 |
# | (18.17) arithmetic less harmonic mean | `arithmetic_minus_harmonic` | <= 1e-12 |
# | (18.17) F is at most twice the worse | `f_is_near_the_worse` | <= 1e-12 |
# | 9 % for a class of one in a thousand | `rare_class_nine_percent` | <= 0.0005 |
# | (18.18) F of flagging everything | `flagging_everything` | <= 1e-12 |
# | the arithmetic mean is fooled by it | `arithmetic_mean_is_fooled` | >= 0.5 |
# | (18.19) equal slopes where R is beta P | `beta_is_the_ratio_of_equal_slopes` | <= 1e-06 |
# | and not elsewhere | `elsewhere_slopes_differ` | >= 0.5 |
# | (18.20) micro averages are the accuracy | `micro_is_accuracy` | <= 1e-12 |
# | the other macro F is not smaller | `second_macro_is_not_smaller` | <= 1e-12 |
# | and differs by much | `two_macros_differ` | >= 0.1 |
# | (18.21) clipped counts: 2 of 7 (S4:121) | `clipped_two_of_seven` | <= 0 |
# | (18.22) the penalty of prefixes | `brevity_penalty` | <= 1e-12 |
# | (18.23) to first order words cost their share | `missing_words_cost_their_share` | <= 0.05 |
# | many missing words cost more | `and_more_if_many` | >= 0.1 |
# | (18.24) precisions are powers | `precisions_are_powers` | <= 0.05 |
# | BLEU of a corpus is no mean of sentences | `corpus_is_no_mean` | >= 0.05 |
# | (18.25) F of ROUGE, both ways | `rouge_f_from_counts` | <= 1e-12 |
# | (18.26) against all subsequences | `longest_common_subsequence` | <= 1e-12 |
# | (18.27) edit distance between its bounds | `edits_within_bounds` | <= 0 |
# | a wrong ending and a wrong word cost words the same | `words_see_no_difference` | <= 1e-15 |
# | chrF forgives the ending | `chrf_forgives_an_ending` | >= 0.1 |
# | a word error rate above 1 | `error_rate_above_one` | >= 1.5 |
# | (18.28) distinct-1 of random tokens | `distinct_falls_with_length` | <= 0.03 |
# | (18.29) expected pairs of equal spans | `expected_pairs` | <= 0.1 |
# | (18.29) bounds the probability of one | `bound_on_any_pair` | <= 0 |
# | the longest by chance grows like a logarithm | `longest_span_by_chance` | <= 0.15 |
# | (18.31) the noise floor | `perfect_models_have_an_ece` | <= 0.05 |
# | (18.30) ECE is at least the mean gap | `never_below_the_mean_gap` | <= 1e-12 |
# | (18.30) finer bins never lower it | `finer_bins_never_lower` | <= 1e-12 |
# | (18.32) calibration, resolution, variance | `calibration_and_resolution` | <= 1e-12 |
# | (18.33) the Brier score is proper | `brier_is_proper` | <= 1e-12 |
# | a lazy forecaster is calibrated | `lazy_and_calibrated` | <= 0.02 |
# | (18.34) the slope, by differences | `slope_in_inverse_temperature` | <= 1e-09 |
# | (18.35) the curvature, by differences | `curvature_is_a_variance` | <= 1e-08 |
# | (18.37) what a temperature gains | `gain_of_a_temperature` | <= 0.1 |
# | (18.38) mean and variance of a bootstrap | `bootstrap_mean_and_variance` | <= 0.03 |
# | (18.38) its factor for few values | `the_factor_for_few` | <= 1e-12 |
# | (18.39) variance of a paired difference | `variance_of_a_paired_difference` | <= 0.1 |
# | unpaired it is far larger | `unpaired_is_far_too_wide` | >= 5 |
# | (18.40) Student's interval of two values | `two_seeds_by_hand` | <= 1e-09 |
# | (18.40) the factor 12.7 | `twelve_point_seven` | <= 0.01 |
# | (18.40) its coverage | `two_seeds_cover_as_often_as_they_say` | <= 0.01 |
# | of three values the bootstrap is too narrow | `of_three_the_bootstrap_is_too_narrow` | >= 0.1 |
# | of forty it is nearly right | `of_forty_both_are_nearly_right` | <= 0.08 |
# | (18.21), (18.22), (18.26) by definition, texts | `texts_agree` | <= 1e-12 |
# | (18.3), (18.15), (18.30), (18.34) numbers | `numbers_agree` | <= 1e-12 |
# | (18.22), (18.25), (18.40) other programs' numbers | `others_agree` | <= 1e-09 |
# | a minimum found by values is less exact | `values_lose_half_the_digits` | >= 1e-11 |
# | than one found by the slope | `the_slope_does_not` | <= 1e-12 |
# | (18.36) package, composed, differences, complex step | `temperature_gradient` | <= 1e-09 |
# | (18.36) descent and halving meet | `descent_finds_the_same` | <= 1e-09 |
# | (18.34) scaled logits need no second temperature | `scaled_once_is_enough` | <= 1e-12 |
# | no answer changes | `no_answer_changes` | <= 0 |
# | (18.36) the right slope | `the_right_slope` | <= 1e-09 |
# | four wrong ones | `four_wrong_slopes` | >= 0.1 |
# | one of them finds the same temperature | `one_of_them_works_as_well` | <= 1e-09 |
# | three do not | `three_do_not` | >= 0.5 |
# | scored logits stand at their places | `logits_at_their_places` | <= 0.0001 |
# | a GPT on fresh text needs no temperature | `fresh_text_temperature_near_one` | <= 0.1 |
# | (18.31) its ECE is near the noise floor | `fresh_text_near_the_floor` | <= 3 |
# | and has nothing to gain by one | `and_gains_nothing` | <= 0.01 |
# | an over-fitted GPT is too sure | `over_fitted_is_too_sure` | >= 0.02 |
# | a temperature mends it | `one_number_mends_it` | >= 1.5 |
# | the 7-gram is too sure | `seven_gram_is_too_sure` | >= 0.05 |
# | a temperature mends it partly | `one_number_mends_the_seven_gram_partly` | >= 0.1 |
# | accuracies do not change | `accuracy_stays` | <= 1e-12 |
# | the charges fall | `gain_in_nats` | >= 0.01 |
# | unseen contexts are the worse | `new_contexts_are_the_worse` | >= 0.03 |
# | known contexts end too modest | `known_contexts_end_too_modest` | >= 0.02 |
# | the 7-gram has more right answers | `seven_gram_has_more_right_answers` | >= 0.02 |
# | and a worse charge | `and_a_worse_charge` | >= 0.01 |
# | scaled, a better one | `scaled_it_wins` | >= 0.03 |
# | the GPT uses its first character of context | `gpt_falls_at_first` | >= 0.1 |
# | and hardly more | `then_it_is_flat` | <= 0.1 |
# | the 7-gram uses more | `seven_gram_goes_on_falling` | >= 0.3 |
# | intervals of 5-gram and 7-gram overlap | `single_intervals_overlap` | >= 0.005 |
# | their difference is beyond chance | `the_difference_is_beyond_chance` | >= 0.01 |
# | the GPT is between 2-gram and 3-gram | `the_gpt_is_between_two_and_three` | >= 0.05 |
# | 5-gram and 6-gram cannot be told apart | `five_and_six_cannot_be_told_apart` | >= 0.001 |
# | hard documents are hard for both | `documents_are_correlated` | >= 0.9 |
# | (18.39) pairing makes the variance smaller | `pairs_are_sharper` | >= 5 |
# | characters are not independent | `characters_are_not_independent` | >= 1.1 |
# | the likeliest character leads into a loop | `the_likeliest_loops` | >= 200 |
# | drawing does not | `drawing_does_not` | >= 0.7 |
# | a person's text stands in part in the training text | `the_person_copies_too` | >= 0.05 |
# | the 7-gram copies more | `the_seven_gram_copies_more` | >= 0.05 |
# | the GPT less | `the_gpt_copies_less` | >= 0.05 |
# | accuracy 0.75 twice (S4:119) | `same_accuracy` | <= 0 |
# | cross-entropy 0.683 and 0.186 | `other_cross_entropy` | <= 0.0005 |
# | (18.15) accuracy 0.9, F 0 and 18/19 (S4:120) | `always_negative` | <= 1e-12 |
# | (18.15) F does not see true negatives | `f_does_not_see_true_negatives` | <= 1e-15 |
# | accuracy does | `accuracy_does` | >= 0.1 |
# | (18.22) a penalty of 0.9048 (S4:121) | `one_word_short_of_eleven` | <= 5e-05 |
# | BLEU of the opposite | `the_opposite_scores_high` | >= 0.7 |
# | BLEU of the same in other words | `the_same_scores_low` | <= 0.2 |
# | BLEU of shuffled pieces | `shuffled_pieces_score_high` | >= 0.7 |
# | BLEU is not symmetric | `bleu_is_not_symmetric` | >= 0.05 |
# | the commonest answer is accurate (S4:892) | `the_commonest_answer_is_accurate` | >= 0.8 |
# | and knows one class | `and_knows_one_class` | <= 0.25 |
# | the worse model often wins on 100 items | `the_worse_often_wins` | >= 0.2 |
# | accuracy along the last axis (S3:209) | `last_axis_is_right` | <= 0 |
# | accuracy along axis 1 | `axis_one_is_near_chance` | <= 0.3 |
# | original and poor English (S4:922) | `most_original_and_least_like_english` | >= 0.3 |
#
# **Not checked:** what people think of a text, which all metrics of texts stand in for, and how
# well these agree with it; that confidences mean the same off the kind of text that was tried; the
# coverage of intervals of ECE, F and BLEU; near-copies, where a word was changed; the bias of
# fitting a temperature on the text that it is judged by, which was avoided and not measured; and
# what the cited papers report.
