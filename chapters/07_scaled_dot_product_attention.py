# %% [markdown]
# # 07 · Scaled dot-product attention
#
# ## Question
#
# How can a layer look something up by its content, with nothing but sums, products and one
# softmax, and what exactly is the gradient of such a look-up?
#
# - **Read before:** [03](03_softmax_cross_entropy.ipynb); the variance of a sum
# - **Package file:** `minigpt/attention.py` (`attention`)
# - **Minutes:** 60 to read, 130 for the exercises
# - **Runs in:** under 30 seconds on one core

# %% role="setup"
import inspect
import math
import time

import numpy as np

from minigpt import data, kernels, ops, reference
from minigpt import functional as F
from minigpt.attention import _attend, attention
from minigpt.backend import to_numpy
from minigpt.drawing import BLUE, GREY, RED, draw_attention, plt, save_figure, style
from minigpt.gradcheck import check_grads
from minigpt.lab import (
    attempt,
    central_differences,
    check,
    complex_step,
    rel_error,
    show_table,
    witnesses,
)
from minigpt.optim import Adam
from minigpt.tensor import Tensor, no_grad
from minigpt.tokenizer import CharTokenizer

style()
rng = np.random.default_rng(7)

# %% [markdown]
# ## Intuition
#
# A dictionary holds pairs: a key $k_j$ and a value $v_j$, $j = 1, \dots, T$. Ask it with a query
# $q$, and it compares $q$ with every key and returns the value of the one key that is equal:
#
# $$
# \mathrm{out} = \sum_{j=1}^{T} \mathbb{1}[k_j = q]\; v_j = v_{j^*}
# \qquad \text{if } k_{j^*} = q \text{ and no other key is.} \tag{07.1}
# $$
#
# Written so, a look-up is already a weighted sum. The weights are all 0 but one, and that one is 1.

# %%
table = {"cat": 3.0, "dog": 5.0, "emu": 8.0}
weights = np.array([float(key == "dog") for key in table])
print("weights:", weights, " sum of weight * value:", weights @ np.array(list(table.values())))
check("exact_look_up", abs(weights @ np.array(list(table.values())) - table["dog"]), at_most=1e-12)

# %% [markdown]
# There are two troubles with it. A query that is *almost* a key gets nothing. And the weights jump
# from 0 to 1, so their derivative is 0 wherever it exists: nothing can be learned through them.
#
# So soften the comparison. Give each key a **score**, a real number that is large if the key fits
# the query, and make weights of the scores with a softmax. All weights are positive then, they sum
# to 1, and they move smoothly with the scores. Four numbers by hand: let the scores be
# $\ln 1, \ln 2, \ln 3, \ln 4$ and the values $20, 10, 10, 5$. The exponentials are $1, 2, 3, 4$,
# their sum is 10, so
#
# $$
# \begin{aligned}
# \mathrm{att} &= (0.1,\; 0.2,\; 0.3,\; 0.4), \\
# \mathrm{out} &= 0.1 \cdot 20 + 0.2 \cdot 10 + 0.3 \cdot 10 + 0.4 \cdot 5 = 9.
# \end{aligned} \tag{07.2}
# $$


# %%
def softmax_rows(scores):
    """Scores (..., T) -> weights (..., T) that are positive and sum to 1."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


scores, values = np.log([1.0, 2.0, 3.0, 4.0]), np.array([20.0, 10.0, 10.0, 5.0])
att = softmax_rows(scores)
print("weights", att, " out", att @ values)
check("four_weights", abs(att - np.array([0.1, 0.2, 0.3, 0.4])), at_most=1e-12)
check("four_numbers", abs(att @ values - 9), at_most=1e-12)

# %% [markdown]
# **Sharp scores give the dictionary back.** Multiply all scores by a number $\beta$. Let $j^*$ be
# the key with the largest score and $\Delta > 0$ its lead over the second. Divide numerator and
# denominator of each weight by $e^{\beta s_{j^*}}$: a losing key has
# $e^{-\beta(s_{j^*} - s_j)} \le e^{-\beta\Delta}$ over a denominator that is at least 1. There are
# $T - 1$ losers, so
#
# $$
# 1 - \mathrm{att}_{j^*}(\beta) = \sum_{j \ne j^*} \mathrm{att}_j(\beta) \le (T - 1)\,
# e^{-\beta\Delta} \;\longrightarrow\; 0 \qquad (\beta \to \infty). \tag{07.3}
# $$
#
# The limit is (07.1) with "the key that fits best" in place of "the key that is equal".

# %%
rows = []
for beta in (0, 1, 2, 4, 8, 16, 32):
    att = softmax_rows(beta * scores)
    bound = 3 * 0.75**beta  # three losers; the lead is ln 4 - ln 3, so exp(-lead) = 3/4
    rows.append([beta, *att, att @ values, att[:3].sum(), bound])
show_table(["beta", "att_1", "att_2", "att_3", "att_4", "out", "losers", "bound"], rows)
check("sharp_scores_within_bound", [row[6] / row[7] for row in rows], at_most=1.0)
random_scores = rng.standard_normal((50, 6))
random_scores[:, 2] = random_scores.max(-1) + 0.5  # key 2 leads by 0.5 or more
one_hot = np.eye(6)[np.full(50, 2)]
check("sharp_scores_look_up", abs(softmax_rows(100 * random_scores) - one_hot), at_most=1e-12)

# %% [markdown]
# **Where do the scores come from?** From the vectors themselves: the score of a key is its dot
# product with the query. One worked example. S3:119 (the five documents S0 to S4 are listed in
# the [chapters' README](README.md)) takes the two words "hello world" with the vectors
# $x_1 = (1, 0, -1)$ and $x_2 = (0, 1, 0)$, announces their attention, and does not compute it. Let
# each vector be its own query, key and value. The dot products are $x_1 \cdot x_1 = 2$,
# $x_1 \cdot x_2 = 0$, $x_2 \cdot x_2 = 1$, and each is divided by $\sqrt 3$ (why, is shown below):
#
# $$
# \mathrm{att}_{11} = \frac{e^{2/\sqrt 3}}{e^{2/\sqrt 3} + 1} = 0.7604, \qquad
# \mathrm{att}_{22} = \frac{e^{1/\sqrt 3}}{1 + e^{1/\sqrt 3}} = 0.6405, \tag{07.4}
# $$
#
# and the other two weights are what is missing to 1.
#
# `package_attention` asks the package the same. The package may compute on a GPU, whose arrays do
# not turn into NumPy's by themselves, nor back. `Tensor(x)` copies a NumPy array to where the
# package computes, and `.numpy()` copies what came out to NumPy. Where the package computes with
# NumPy itself, neither copies anything.

# %%
def package_attention(q, k, v, **options):
    """The package's attention, of NumPy arrays and as one."""
    return attention(Tensor(q), Tensor(k), Tensor(v), **options).numpy()


x = np.array([[1.0, 0, -1], [0, 1, 0]])  # (2, 3)
att = softmax_rows(x @ x.T / math.sqrt(3))
print("att", att.round(4).tolist())
print("out", (att @ x).round(4).tolist())
want = np.array([[0.7604, 0.2396], [0.3595, 0.6405]])
check("two_words", abs(att - want), at_most=5.1e-5)
check("two_words_package", abs(package_attention(x, x, x) - want @ x), at_most=1.1e-4)

# %% [markdown]
# ## Derivation
#
# ### The layer, in index form
#
# There are $T_q$ queries and $T_k$ pairs. $q$ has shape $(T_q, D)$, $k$ has $(T_k, D)$, $v$ has
# $(T_k, D_v)$. The index $i$ counts queries, $j$ and $l$ count keys, $d$ counts the $D$ components
# of queries and keys, $c$ the $D_v$ components of values. $b_{ij}$ is a constant, the *bias*,
# shape $(T_q, T_k)$, most often 0.
#
# $$
# S_{ij} = \frac{1}{\sqrt D} \sum_{d} q_{id}\, k_{jd} + b_{ij}
# \qquad (T_q, T_k) \quad \textit{scores} \tag{07.5}
# $$
#
# $$
# \mathrm{att}_{ij} = \frac{e^{S_{ij}}}{\sum_l e^{S_{il}}}, \qquad
# \sum_j \mathrm{att}_{ij} = 1
# \qquad (T_q, T_k) \quad \textit{weights} \tag{07.6}
# $$
#
# $$
# \mathrm{out}_{ic} = \sum_j \mathrm{att}_{ij}\, v_{jc}
# \qquad (T_q, D_v) \tag{07.7}
# $$
#
# The sum in (07.6) runs over the **keys** of one query. Each row of $\mathrm{att}$ is one query's
# division of its attention. In arrays, with the softmax along rows:
#
# $$
# \mathrm{out} = \mathrm{softmax}\!\left(\frac{q\, k^\top}{\sqrt D} + b\right) v. \tag{07.8}
# $$
#
# More axes in front (examples, heads) go along: each of their entries is a look-up of its own. The
# formula is Vaswani et al.'s (2017, arXiv:1706.03762, sec. 3.2.1); the soft, sharpened look-up by
# content is older (Graves et al. 2014, arXiv:1410.5401, sec. 3.3.1).

# %%
Tq, Tk, D, Dv = 3, 5, 4, 2
q, k, v = (rng.standard_normal(s) for s in ((Tq, D), (Tk, D), (Tk, Dv)))
bias = rng.standard_normal((Tq, Tk))
out = np.zeros((Tq, Dv))
sums = np.zeros(Tq)
for i in range(Tq):  # one query at a time, as written
    S = [sum(q[i, d] * k[j, d] for d in range(D)) / math.sqrt(D) + bias[i, j] for j in range(Tk)]
    total = sum(math.exp(S[j]) for j in range(Tk))
    row = [math.exp(S[j]) / total for j in range(Tk)]
    sums[i] = sum(row)
    out[i] = [sum(row[j] * v[j, c] for j in range(Tk)) for c in range(Dv)]
check("weights_sum_to_one", abs(sums - 1), at_most=1e-12)
arrays = softmax_rows(q @ k.T / math.sqrt(D) + bias) @ v
check("index_form_is_array_form", rel_error(arrays, out), at_most=1e-12)
check("index_form_is_package", rel_error(package_attention(q, k, v, bias=bias), out), at_most=1e-12)

# %% [markdown]
# ### Four properties
#
# **A constant added to all scores of one query changes nothing.** The factor $e^{a_i}$ cancels:
#
# $$
# \frac{e^{S_{ij} + a_i}}{\sum_l e^{S_{il} + a_i}} = \frac{e^{a_i} e^{S_{ij}}}{e^{a_i} \sum_l
# e^{S_{il}}} = \mathrm{att}_{ij}. \tag{07.9}
# $$
#
# With $a_i = -\max_j S_{ij}$ no exponential overflows; that is all that the subtraction in
# `softmax_rows` is for. Only *differences* between scores count.
#
# **The output is a convex combination of the values.** Weights are positive and sum to 1, so
# $\mathrm{out}_{ic} \le \sum_j \mathrm{att}_{ij} \max_l v_{lc} = \max_l v_{lc}$; likewise below:
#
# $$
# \min_j v_{jc} \;\le\; \mathrm{out}_{ic} \;\le\; \max_j v_{jc}. \tag{07.10}
# $$
#
# Attention mixes. It cannot extrapolate, add two values up, or return "nothing".
#
# **Permuting the pairs changes nothing.** Let $\pi$ be a permutation of $1..T_k$ and let pair $j$
# of the new table be pair $\pi(j)$ of the old one. Scores and values move together, and a sum does
# not know the order of its terms:
#
# $$
# \sum_j \mathrm{att}_{i\pi(j)}\, v_{\pi(j)c} = \sum_j \mathrm{att}_{ij}\, v_{jc}. \tag{07.11}
# $$
#
# A dictionary has no order, and neither has attention: to it a text is a *bag* of pairs. Where
# a word stands must be written into its vector (chapter [10](10_positions.ipynb)).
#
# **Equal scores give the mean.** If $S_{ij}$ does not depend on $j$, each weight is $1/T_k$:
#
# $$
# \mathrm{out}_{ic} = \frac{1}{T_k} \sum_j v_{jc}. \tag{07.12}
# $$
#
# This is what a layer with small random weights does at the start of training.

# %%
q, k, v = (rng.standard_normal(s) for s in ((40, 8), (30, 8), (30, 6)))
scores = q @ k.T / math.sqrt(8)
a = 50 * rng.standard_normal((40, 1))
check("constant_per_query", rel_error(softmax_rows(scores + a), softmax_rows(scores)), at_most=1e-9)
out = package_attention(q, k, v)
two = package_attention(q, k[:2], v[:2])  # of two values: the bounds are near
outside = [np.maximum(o - w.max(0), w.min(0) - o).max() for o, w in ((out, v), (two, v[:2]))]
check("out_within_values", outside, at_most=1e-12)
pi = rng.permutation(30)
check("order_of_pairs", rel_error(package_attention(q, k[pi], v[pi]), out), at_most=1e-12)
check("order_of_keys_alone", rel_error(package_attention(q, k[pi], v), out), at_least=0.1)
same = package_attention(q, np.tile(k[:1], (30, 1)), v)
check("equal_scores_give_mean", abs(same - v.mean(0)), at_most=1e-12)

# %% [markdown]
# ### Why the root of D
#
# At the start of training the components of queries and keys are like independent random numbers.
# Take mean 0 and variance 1. One term of $s = \sum_d q_d k_d$ has
#
# - mean $\mathbb{E}[q_d k_d] = \mathbb{E}[q_d]\,\mathbb{E}[k_d] = 0$, by independence;
# - variance $\mathbb{E}[q_d^2 k_d^2] - 0^2 = \mathbb{E}[q_d^2]\,\mathbb{E}[k_d^2] = 1$.
#
# Two terms $d \ne e$ are uncorrelated:
# $\mathbb{E}[q_d k_d q_e k_e] = \mathbb{E}[q_d]\mathbb{E}[k_d]\mathbb{E}[q_e]\mathbb{E}[k_e] = 0$.
# So the variances add:
#
# $$
# \mathrm{Var}(q \cdot k) = \sum_{d=1}^{D} \mathrm{Var}(q_d k_d) = D. \tag{07.13}
# $$
#
# $$
# \mathrm{Var}\!\left(\frac{q \cdot k}{\sqrt D}\right) = \frac{D}{(\sqrt D)^2} = 1
# \qquad \text{for every } D. \tag{07.14}
# $$
#
# Nothing was said about the shape of the distributions, so it is tested on three.

# %%
draws = {
    "normal": rng.standard_normal,
    "uniform": lambda s: rng.uniform(-math.sqrt(3), math.sqrt(3), s),
    "sign": lambda s: rng.choice([-1.0, 1.0], s),
}
rows, errors, scaled_errors = [], [], []
for D in (1, 4, 16, 64):
    found = []
    for draw in draws.values():
        s = (draw((60_000, D)) * draw((60_000, D))).sum(-1)  # 60,000 independent scores
        found.append(float(s.var()))
        errors.append(abs(s.var() / D - 1))
        scaled_errors.append(abs((s / math.sqrt(D)).var() - 1))
    rows.append([D, *found])
show_table(["D", *(f"Var, {name}" for name in draws)], rows)
check("variance_is_d", errors, at_most=0.05)
check("scaled_variance_is_one", scaled_errors, at_most=0.05)

# %% [markdown]
# ### What large scores do
#
# Multiply scores $s_1..s_T$ of variance 1 by $\beta$; without the scale, $\beta = \sqrt D$. Two
# things happen to $p = \mathrm{softmax}(\beta s)$, shape $(T,)$.
#
# *The weights sharpen.* Measure it by the entropy $H = -\sum_j p_j \ln p_j$, which is $\ln T$ for
# equal weights and 0 for a single one. With $Z = \sum_j e^{\beta s_j}$ we have
# $\ln p_j = \beta s_j - \ln Z$, so $H = \ln Z - \beta\,\mathbb{E}_p[s]$ where
# $\mathbb{E}_p[s] = \sum_j p_j s_j$. Differentiate: $d \ln Z / d\beta = \mathbb{E}_p[s]$, and
# $d\,\mathbb{E}_p[s] / d\beta = \mathbb{E}_p[s^2] - \mathbb{E}_p[s]^2 = \mathrm{Var}_p(s)$. The two
# $\mathbb{E}_p[s]$ cancel:
#
# $$
# \frac{dH}{d\beta} = \mathbb{E}_p[s] - \mathbb{E}_p[s] - \beta\, \mathrm{Var}_p(s)
# = -\beta\, \mathrm{Var}_p(s) \;\le\; 0. \tag{07.15}
# $$
#
# Entropy only ever falls as the scores grow.
#
# *The gradient dies.* The softmax's Jacobian was derived in chapter 03; again in two lines, by the
# quotient rule, with $\delta_{jl} = 1$ if $j = l$, else 0, and scores $S_l$, $p_j = e^{S_j}/Z$:
#
# $$
# J_{jl} = \frac{\partial p_j}{\partial S_l}
# = \frac{\delta_{jl}\, e^{S_j}\, Z - e^{S_j}\, e^{S_l}}{Z^2}
# = p_j (\delta_{jl} - p_l). \tag{07.16}
# $$
#
# Its size: $J_{jj} = p_j - p_j^2$ and $J_{jl} = -p_j p_l$. The squares of the whole matrix
# $-p p^\top$ sum to $(\sum_j p_j^2)^2$; on the diagonal $p_j^4$ must be replaced by
# $(p_j - p_j^2)^2 = p_j^2 - 2 p_j^3 + p_j^4$. Hence
#
# $$
# \lVert J \rVert_F^2 = \sum_j p_j^2 - 2 \sum_j p_j^3 + \Big(\sum_j p_j^2\Big)^2. \tag{07.17}
# $$
#
# At a one-hot $p$ this is $1 - 2 + 1 = 0$: a saturated softmax passes no gradient at all.


# %%
def entropy(p):
    """Weights (..., T) -> nats (...). A weight of exactly 0 counts 0."""
    return -(p * np.log(np.maximum(p, 1e-300))).sum(-1)


def jacobian_norm(p):
    """(07.17): weights (..., T) -> (...)."""
    square = (p**2).sum(-1)
    return np.sqrt(np.maximum(square - 2 * (p**3).sum(-1) + square**2, 0))


s = rng.standard_normal(7)
slope = central_differences(lambda b: entropy(softmax_rows(b * s)), 1.7)
p = softmax_rows(1.7 * s)
check("entropy_slope", abs(slope + 1.7 * (p @ s**2 - (p @ s) ** 2)), at_most=1e-9)
p = softmax_rows(s)
J = np.stack([complex_step(lambda S, j=j: np.exp(S[j]) / np.exp(S).sum(), s) for j in range(7)])
check("softmax_jacobian", abs(J - p[:, None] * (np.eye(7) - p)), at_most=1e-12)
check("jacobian_norm", abs(np.linalg.norm(J) - jacobian_norm(p)), at_most=1e-12)

# %% [markdown]
# Now measure both against $D$, with and without the scale: 20 tables of $T = 64$ random keys, 15
# random queries each. The entropy is shown as a share of $\ln 64$.


# %%
def saturation(D, scale, seed=0):
    """Mean largest weight, entropy share and Jacobian norm over 300 random queries, 64 keys."""
    r = np.random.default_rng(seed)
    q, k = r.standard_normal((20, 15, D)), r.standard_normal((20, 64, D))
    p = softmax_rows(q @ k.swapaxes(-1, -2) * scale)  # (20, 15, 64)
    return p.max(-1).mean(), entropy(p).mean() / math.log(64), jacobian_norm(p).mean()


sizes = [2**n for n in range(11)]
plain = np.array([saturation(D, 1.0) for D in sizes])  # (11, 3)
scaled = np.array([saturation(D, 1 / math.sqrt(D)) for D in sizes])
header = ["D", "largest weight", "entropy share", "Jacobian", "largest, / sqrt(D)", "share", "Jac."]
show_table(header, [[D, *plain[i], *scaled[i]] for i, D in enumerate(sizes) if D in (4, 64, 1024)])
check("scaled_share_is_high", scaled[:, 1], at_least=0.85)
check("scaled_share_is_flat", np.ptp(scaled[2:, 1]), at_most=0.02)
check("unscaled_share_falls", -np.diff(plain[:, 1]), at_least=0.01)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
for axes, column, label in ((left, 1, "entropy of the weights / ln 64"), (right, 2, "norm of J")):
    axes.plot(sizes, plain[:, column], "o-", color=RED)
    axes.plot(sizes, scaled[:, column], "s-", color=BLUE)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="components of a key, D", ylabel=label, ylim=(0, None))
    axes.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1024"])
left.text(1024, 0.8, "divided by $\\sqrt{D}$", color=BLUE, ha="right")
left.text(20, 0.36, "not divided", color=RED)
left.set_ylim(0, 1)
left.set_title("Unscaled weights collapse …")
right.text(1, 0.145, "divided by $\\sqrt{D}$", color=BLUE)
right.text(40, 0.26, "not divided", color=RED)
right.set_title("… and the gradient with them")
save_figure(fig, "07_scale.svg")
plt.show()

# %% [markdown]
# The Jacobian without the scale first rises (weights that differ a little pass more gradient than
# equal ones) and then dies. With the scale both curves are flat: the layer starts alike at any $D$.
#
# Be careful with the reason. (07.13) speaks about random vectors, so about the start. A trained
# query and its key are *not* independent, and learned projections could absorb any constant factor.
# The scale decides where training begins, not what can be represented; the experiment below shows
# how much that matters.
#
# ### Backward, from the index form
#
# Let $L$ be the final scalar. The cotangent $g_{ic} = \partial L / \partial \mathrm{out}_{ic}$,
# shape $(T_q, D_v)$, comes in. Write $dx$ for $\partial L/\partial x$; it has the shape of $x$. Go
# through (07.7), (07.6), (07.5) from the end.
#
# **The values.** In (07.7) $\mathrm{out}_{ic}$ depends on $v_{jc'}$ only if $c' = c$, with
# $\partial\,\mathrm{out}_{ic} / \partial v_{jc'} = \mathrm{att}_{ij}\,\delta_{cc'}$. Every query
# has used value $j$, so sum over $i$; the sum over $c$ leaves one term:
#
# $$
# dv_{jc} = \sum_i \mathrm{att}_{ij}\, g_{ic}
# \qquad (T_k, D_v). \tag{07.18}
# $$
#
# **The weights.** $\mathrm{att}_{ij}$ multiplies all $D_v$ components of $v_j$, in row $i$ alone:
#
# $$
# d\mathrm{att}_{ij} = \sum_c g_{ic}\, v_{jc}
# \qquad (T_q, T_k). \tag{07.19}
# $$
#
# **The scores.** Weights of query $i$ depend on scores of query $i$ only, and there (07.16) holds:
#
# $$
# \frac{\partial\, \mathrm{att}_{ij}}{\partial S_{ml}}
# = \delta_{im}\, \mathrm{att}_{ij}\, (\delta_{jl} - \mathrm{att}_{il}). \tag{07.20}
# $$
#
# Sum over all weights, $dS_{ml} = \sum_{i,j} d\mathrm{att}_{ij}\,
# \partial\, \mathrm{att}_{ij} / \partial S_{ml}$. The $\delta_{im}$ keeps $i = m$. Then
# $\sum_j d\mathrm{att}_{mj}\, \mathrm{att}_{mj}\, \delta_{jl} =
# d\mathrm{att}_{ml}\, \mathrm{att}_{ml}$ is the first part, and in the second part
# $\mathrm{att}_{ml}$ does not depend on $j$ and comes out of the sum. Renaming $m$ to $i$:
#
# $$
# dS_{il} = \mathrm{att}_{il} \Big( d\mathrm{att}_{il}
# - \sum_j d\mathrm{att}_{ij}\, \mathrm{att}_{ij} \Big)
# \qquad (T_q, T_k). \tag{07.21}
# $$
#
# Read it: a score should rise if its key's value serves the loss *better than this query's present
# mean*, and in proportion to the weight that the key already has.

# %%
Tq, Tk, D, Dv = 3, 5, 4, 2
q, k, v, g = (rng.standard_normal(s) for s in ((Tq, D), (Tk, D), (Tk, Dv), (Tq, Dv)))
S = q @ k.T / math.sqrt(D)
att = softmax_rows(S)
dv = np.einsum("ij,ic->jc", att, g)  # the letters are the indices of (07.18)
datt = np.einsum("ic,jc->ij", g, v)
dS = att * (datt - (datt * att).sum(-1, keepdims=True))
check("dv", rel_error(dv, central_differences(lambda v: (g * (att @ v)).sum(), v)), at_most=1e-9)
slopes = central_differences(lambda att: (g * (att @ v)).sum(), att)
check("datt", rel_error(datt, slopes), at_most=1e-9)
J = np.zeros((Tq, Tk, Tq, Tk))
for i, j in np.ndindex(Tq, Tk):
    J[i, j] = complex_step(lambda S, i=i, j=j: np.exp(S[i, j]) / np.exp(S[i]).sum(), S)
want = np.einsum("im,ij,jl->ijml", np.eye(Tq), att, np.eye(Tk))
want -= np.einsum("im,ij,il->ijml", np.eye(Tq), att, att)
check("kronecker_deltas", abs(J - want), at_most=1e-12)
slopes = central_differences(lambda S: (g * (softmax_rows(S) @ v)).sum(), S)
check("ds", rel_error(dS, slopes), at_most=1e-9)

# %% [markdown]
# **The subtracted number, cheaper.** It is the inner product of row $i$ of $d\mathrm{att}$ and of
# $\mathrm{att}$. Put (07.19) in, exchange the sums, and recognise (07.7):
#
# $$
# \sum_j d\mathrm{att}_{ij}\, \mathrm{att}_{ij}
# = \sum_c g_{ic} \sum_j \mathrm{att}_{ij}\, v_{jc}
# = \sum_c g_{ic}\, \mathrm{out}_{ic}. \tag{07.22}
# $$
#
# On the left $T_k$ products a query, on the right $D_v$, and no weight is read. For a context of
# thousands of keys and a head of 64 components that is the difference that matters (Dao et al.
# 2022, arXiv:2205.14135, rest their backward pass on it).
#
# **Rows of $dS$ sum to 0**, since $\sum_l \mathrm{att}_{il} = 1$ makes both parts equal. It had to
# be so: by (07.9) a common shift of a row's scores does not move the loss.
#
# $$
# \sum_l dS_{il} = \sum_l \mathrm{att}_{il}\, d\mathrm{att}_{il}
# - \Big(\sum_l \mathrm{att}_{il}\Big) \sum_j d\mathrm{att}_{ij}\, \mathrm{att}_{ij} = 0.
# \tag{07.23}
# $$
#
# **Queries and keys.** In (07.5), $\partial S_{ij} / \partial q_{md} = \delta_{im}\, k_{jd} /
# \sqrt D$ and $\partial S_{ij} / \partial k_{md} = \delta_{jm}\, q_{id} / \sqrt D$. A query takes
# part in one row, a key in one column. Multiply by $dS_{ij}$ and sum over $i$ and $j$:
#
# $$
# dq_{id} = \frac{1}{\sqrt D} \sum_j dS_{ij}\, k_{jd}
# \qquad (T_q, D) \tag{07.24}
# $$
#
# $$
# dk_{jd} = \frac{1}{\sqrt D} \sum_i dS_{ij}\, q_{id}
# \qquad (T_k, D) \tag{07.25}
# $$
#
# The whole backward pass in arrays, $\mathrm{rowsum}$ along the keys, kept as a column
# $(T_q, 1)$:
#
# $$
# \begin{aligned}
# dv &= \mathrm{att}^\top g, \qquad d\mathrm{att} = g\, v^\top, \\
# dS &= \mathrm{att} \odot \big(d\mathrm{att} - \mathrm{rowsum}(d\mathrm{att} \odot
# \mathrm{att})\big), \\
# dq &= dS\, k / \sqrt D, \qquad dk = dS^\top q / \sqrt D.
# \end{aligned} \tag{07.26}
# $$

# %%
out = att @ v
lhs, rhs = (datt * att).sum(-1), (g * out).sum(-1)
check("row_sum_from_out", rel_error(lhs, rhs), at_most=1e-12)
check("rows_of_ds_sum_to_zero", abs(dS.sum(-1)), at_most=1e-12)
dq = np.einsum("ij,jd->id", dS, k) / math.sqrt(D)
dk = np.einsum("ij,id->jd", dS, q) / math.sqrt(D)


def loss(q, k, v):
    """sum(g * out): the scalar whose gradient the backward pass is."""
    return (g * (softmax_rows(q @ k.T / math.sqrt(D)) @ v)).sum()


check("dq", rel_error(dq, central_differences(lambda q: loss(q, k, v), q)), at_most=1e-9)
check("dk", rel_error(dk, central_differences(lambda k: loss(q, k, v), k)), at_most=1e-9)
array_form = [dS @ k / math.sqrt(D), dS.T @ q / math.sqrt(D), att.T @ g]
errors = [rel_error(a, b) for a, b in zip(array_form, (dq, dk, dv), strict=True)]
check("array_form_of_gradients", errors, at_most=1e-12)

# %% [markdown]
# **Two sums that come for free.** Sum (07.25) over the keys and use (07.23), then sum (07.18) over
# the keys and use (07.6):
#
# $$
# \sum_j dk_{jd} = \frac{1}{\sqrt D} \sum_i q_{id} \sum_j dS_{ij} = 0. \tag{07.27}
# $$
#
# $$
# \sum_j dv_{jc} = \sum_i g_{ic} \sum_j \mathrm{att}_{ij} = \sum_i g_{ic}. \tag{07.28}
# $$
#
# The first says that adding one vector to *all* keys changes nothing: it adds the same number to
# all scores of a query. So the offset of a linear layer that makes the keys is a parameter with
# gradient 0. The second says that nothing is lost: what comes in is divided among the values.

# %%
moved = package_attention(q, k + rng.standard_normal(D), v)
check("shift_of_all_keys", rel_error(moved, out), at_most=1e-12)
check("key_gradients_sum_to_zero", abs(dk.sum(0)), at_most=1e-12)
check("value_gradients_sum_to_g", abs(dv.sum(0) - g.sum(0)), at_most=1e-12)

# %% [markdown]
# ### A key that may not be seen
#
# Some keys must not be looked at: padding, or the future (the causal mask, chapter 08). Set
# $b_{ij} = -\infty$ for such a pair. Then $e^{S_{ij}} = 0$ exactly, the other weights of the row
# still sum to 1, and since each of (07.18) and (07.21) carries the factor $\mathrm{att}_{ij}$, the
# pair passes no gradient either. If *no* query may see key $j$:
#
# $$
# b_{ij} = -\infty \;\; \forall i \quad \Longrightarrow \quad \mathrm{att}_{ij} = 0, \qquad
# dk_{jd} = 0, \qquad dv_{jc} = 0 \quad \text{exactly.} \tag{07.29}
# $$
#
# Multiplying the weights by 0 *after* the softmax is not the same: the row would no longer sum
# to 1, and the forbidden score would still sit in the denominator.

# %%
bias = np.zeros((Tq, Tk))
bias[:, 2] = -np.inf
tq, tk, tv = (Tensor(a, requires_grad=True) for a in (q, k, v))
masked = attention(tq, tk, tv, bias=bias)
masked.backward(g)
others = [0, 1, 3, 4]
without = package_attention(q, k[others], v[others])
check("as_if_not_there", rel_error(masked, without), at_most=1e-12)
check("forbidden_weight_is_zero", softmax_rows(S + bias)[:, 2], at_most=0.0)
check("forbidden_key_gets_nothing", abs(tk.grad[2]), at_most=0.0)
check("forbidden_value_gets_nothing", abs(tv.grad[2]), at_most=0.0)
check("other_keys_get_something", abs(tk.grad[others]).max(-1), at_least=1e-3)

# %% [markdown]
# ### What it costs
#
# A product of $(n, k)$ and $(k, m)$ takes $2nkm$ floating-point operations (a product and a sum
# each). Forward there are two of them: $q k^\top$ and $\mathrm{att}\, v$. Backward there are four:
# $\mathrm{att}^\top g$ and $g v^\top$ with $D_v$, $dS\, k$ and $dS^\top q$ with $D$.
#
# $$
# \mathrm{FLOPs} = \underbrace{2\, T_q T_k (D + D_v)}_{\text{forward}}
# + \underbrace{4\, T_q T_k (D + D_v)}_{\text{backward}}
# = 6\, T_q T_k (D + D_v). \tag{07.30}
# $$
#
# The backward pass must remember the weights and the three inputs:
#
# $$
# \mathrm{numbers\ kept} = T_q T_k + T_q D + T_k D + T_k D_v. \tag{07.31}
# $$
#
# With $T_q = T_k = T$ both grow like $T^2$: twice the context costs four times the time and, in
# the weights, four times the memory. (The softmax itself adds a few operations a weight.) The
# memory, though not the time, can be avoided: see exercise 07.6. Both claims are counted on the
# scratch version of the next section.

# %% [markdown]
# ## Code
#
# As derived, line by line. The arrays may have more axes in front.


# %%
def attention_by_hand(q, k, v, bias=0.0):
    """q (..., Tq, D), k (..., Tk, D), v (..., Tk, Dv) -> out (..., Tq, Dv), vjp."""
    root = math.sqrt(q.shape[-1])
    scores = q @ k.swapaxes(-1, -2) / root + bias  # (..., Tq, Tk)            (07.5)
    e = np.exp(scores - scores.max(-1, keepdims=True))  # (07.9)
    att = e / e.sum(-1, keepdims=True)  # (..., Tq, Tk)                       (07.6)
    out = att @ v  # (..., Tq, Dv)                                            (07.7)

    def vjp(g):
        dv = att.swapaxes(-1, -2) @ g  # (..., Tk, Dv)                        (07.18)
        datt = g @ v.swapaxes(-1, -2)  # (..., Tq, Tk)                        (07.19)
        ds = att * (datt - (datt * att).sum(-1, keepdims=True))  # (07.21)
        dq = ds @ k / root  # (..., Tq, D)                                    (07.24)
        dk = ds.swapaxes(-1, -2) @ q / root  # (..., Tk, D)                   (07.25)
        return dq, dk, dv

    return out, vjp


# %% [markdown]
# First the costs: an array that counts the operations of its matrix products, and a look at what
# the closure holds.


# %%
class Counted(np.ndarray):
    """An array whose matrix products add up their floating-point operations."""

    flops = 0

    def __matmul__(self, other):
        out = super().__matmul__(other)
        Counted.flops += 2 * out.size * self.shape[-1]
        return out


errors, kept = [], []
for Tq, Tk, D, Dv in ((3, 5, 4, 2), (16, 16, 8, 8), (7, 32, 16, 3)):
    Counted.flops = 0
    shapes = (Tq, D), (Tk, D), (Tk, Dv), (Tq, Dv)
    q, k, v, g = (rng.standard_normal(s).view(Counted) for s in shapes)
    _, vjp = attention_by_hand(q, k, v)
    errors.append(abs(Counted.flops - 2 * Tq * Tk * (D + Dv)))
    vjp(g)
    errors.append(abs(Counted.flops - 6 * Tq * Tk * (D + Dv)))
    held = [cell.cell_contents for cell in vjp.__closure__]
    kept.append(sum(a.size for a in held if isinstance(a, np.ndarray)))
    errors.append(abs(kept[-1] - (Tq * Tk + Tq * D + Tk * D + Tk * Dv)))
check("flops_and_numbers_kept", errors, at_most=0.0)

# %%
rows = []
for T in (256, 512, 1024):
    q, k, v, g = (rng.standard_normal((T, 64)).astype("float32") for _ in range(4))
    start = time.perf_counter()
    _, vjp = attention_by_hand(q, k, v)
    vjp(g)
    milliseconds = 1000 * (time.perf_counter() - start)
    rows.append([T, T * T * 4 / 1e6, 6 * T * T * 128 / 1e6, round(milliseconds, 1)])
show_table(["T = Tq = Tk", "weights, MB", "million FLOPs", "ms (this machine)"], rows)

# %% [markdown]
# Now the package's function. `attention` checks what it is given and calls `_attend`, which does
# the arithmetic; `kernels` holds what stands between two products. The causal version calls it
# too, for a block of queries at a time and the keys up to the block's end: of what the mask
# forbids, most is never computed.

# %%
print(inspect.getsource(attention.forward))
print(inspect.getsource(_attend))
print(inspect.getsource(kernels.softmax))
print(inspect.getsource(kernels.softmax_vjp))

# %% [markdown]
# What the package does differently, and why:
#
# - **It scales the queries, not the scores**: $T_q D$ products instead of $T_q T_k$. The scaled
#   queries are what the closure keeps, so `dk` needs no scale of its own; `dq` does.
# - **Scores, exponentials and weights share one array**, written in place. At $T = 1024$ each new
#   array of that shape would be 4 MB in float32, and fresh memory is not free. So large results
#   also go to memory that was used before: `memory.matmul(x, y)` is `x @ y`, `memory.multiply` a
#   product elementwise, and chapter 14 says what that saves.
# - **The subtracted row sums come from (07.22)**, as `dots`, and `datt` becomes `ds` in place.
# - **The causal mask is one small triangle**, `_later`: of a block's keys only the last $T_q$ can
#   be later than a query, so only those scores get the $-\infty$, and no mask of $T^2$ numbers
#   exists.
# - **Row sums are a product with ones** (`row_sums`), which is faster than `sum` on short rows.
# - **On a GPU, elementwise steps in a row are one kernel** (`KERNELS`), which reads and writes its
#   arrays once. With NumPy the in-place lines run instead: the same two formulas.
# - **Weights may be dropped** (`p`, `rng`): the used weights are $\mathrm{att} \odot m$ with a
#   random mask $m$. Then $d\mathrm{att} = (g v^\top) \odot m$, and (07.22) holds with no change:
#   $\sum_j d\mathrm{att}_{ij}\,\mathrm{att}_{ij} = \sum_c g_{ic} \sum_j (\mathrm{att}_{ij}
#   m_{ij}) v_{jc}$, and the inner sum is the output again.
# - **The weights of a long context are not kept** (`KEPT`) but computed once more from $q$ and $k$
#   in the backward pass: memory then grows with $T$ and not with $T^2$.
# - **Shapes are checked and nothing broadcasts** among `q`, `k`, `v`: a gradient for an argument
#   that was silently repeated would have to be summed over the copies.
# - A bias that forbids a query *every* key is refused: the softmax of nothing is 0/0. (On a GPU the
#   numbers are not looked at, since Python would have to wait for them: there, it is a NaN.)

# %% [markdown]
# ## Gradient check
#
# Five accounts of one gradient: by hand, the package, the same function composed of elementary
# operations, central differences, and the complex step (no subtraction, so exact to rounding; it
# needs a version without `max`, which by (07.9) is the same function). The cotangent is random.


# %%
def attention_analytic(q, k, v):
    """The same function without max: exp alone accepts complex numbers."""
    e = np.exp(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
    return e / e.sum(-1, keepdims=True) @ v


shapes = {"q": (2, 3, 4), "k": (2, 5, 4), "v": (2, 5, 3)}  # nothing square, two look-ups
arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
worst = witnesses(
    attention_by_hand, attention, reference.attention, arrays, analytic=attention_analytic
)
check("gradients_have_four_witnesses", worst, at_most=1e-9)

# %% [markdown]
# Once more with a bias that forbids some pairs, and with one pair only, where every weight is 1 and
# the gradients of query and key must vanish. Dropout is checked through the tape: its mask is the
# same in each call, because the generator is.

# %%
bias = np.where(rng.random((3, 5)) < 0.4, -np.inf, rng.standard_normal((3, 5)))
bias[:, 0] = 0.0  # each query keeps a key
worst = witnesses(
    lambda q, k, v: attention_by_hand(q, k, v, bias),
    lambda q, k, v: attention(q, k, v, bias=bias),
    lambda q, k, v: reference.attention(q, k, v, bias=bias),
    arrays,
)
check("gradients_with_a_bias", worst, at_most=1e-9)
q, k, v, g = (rng.standard_normal((n, 4)) for n in (3, 1, 1, 3))
dq, dk, _ = attention_by_hand(q, k, v)[1](g)
check("one_pair_passes_nothing", [abs(dq).max(), abs(dk).max()], at_most=1e-12)
dropped = check_grads(
    lambda q, k, v: attention(q, k, v, p=0.3, rng=np.random.default_rng(1)), *arrays.values()
)
check("gradients_with_dropout", dropped, at_most=1e-6)

# %% [markdown]
# ### Break it
#
# Four mistakes that are easy to make, against differences of the right function:
#
# 1. the scale $1/\sqrt D$ is forgotten in the backward pass;
# 2. the row sum is lost: $dS = \mathrm{att} \odot d\mathrm{att}$, the softmax as if elementwise;
# 3. $dk = dS\, q$ without the transpose, which fits whenever $T_q = T_k$;
# 4. the scores get no gradient at all: $dq = dk = 0$.


# %%
def broken_vjps(q, k, v, g):
    """name -> (dq, dk) of four wrong backward passes."""
    root = math.sqrt(q.shape[-1])
    att = softmax_rows(q @ k.T / root)
    datt = g @ v.T
    ds = att * (datt - (datt * att).sum(-1, keepdims=True))
    lost = att * datt
    return {
        "scale forgotten": (ds @ k, ds.T @ q),
        "row sum lost": (lost @ k / root, lost.T @ q / root),
        "transpose lost": (ds @ k / root, ds @ q / root),
        "zeros": (0 * q, 0 * k),
    }


def gaps(q, k, v, g):
    """name -> the largest error in dq and dk, as a share of the largest entry of k, q, v and g."""
    true = [
        central_differences(lambda q: (g * package_attention(q, k, v)).sum(), q),
        central_differences(lambda k: (g * package_attention(q, k, v)).sum(), k),
    ]
    size = max(abs(a).max() for a in (q, k, v, g))
    wrong = broken_vjps(q, k, v, g)
    return {n: max(abs(a - b).max() for a, b in zip(w, true, strict=True)) / size
            for n, w in wrong.items()}


# %% [markdown]
# A wrong backward pass is found only by a cotangent that sees the mistake. So each is tried with
# three cotangents: a random one; ones, which is what `out.sum().backward()` sends; and one that is
# orthogonal to the output, $\sum_c g_{ic}\, \mathrm{out}_{ic} = 0$. And each with two kinds of
# values: random ones, and values whose components sum to 0, as those of a layer norm do.

# %%
q, k, v, noise = (rng.standard_normal((5, 4)) for _ in range(4))
found = {}
for kind, values in (("any v", v), ("v sums to 0", v - v.mean(-1, keepdims=True))):
    out = package_attention(q, k, values)
    along = (noise * out).sum(-1, keepdims=True) / (out * out).sum(-1, keepdims=True)
    found["random", kind] = gaps(q, k, values, noise)
    found["ones", kind] = gaps(q, k, values, np.ones_like(out))
    found["orthogonal to out", kind] = gaps(q, k, values, noise - along * out)
names = list(found["random", "any v"])
show_table(
    ["cotangent", "values", *names],
    [[g, kind, *(row[n] if row[n] > 1e-9 else 0.0 for n in names)]
     for (g, kind), row in found.items()],
)
seen = [gap for (g, _), row in found.items() if g == "random" for gap in row.values()]
check("random_cotangent_sees_all_four", seen, at_least=0.01)
check("ones_see_them_here", list(found["ones", "any v"].values()), at_least=0.01)
check("ones_are_blind_here", list(found["ones", "v sums to 0"].values()), at_most=1e-9)
hidden = [found["orthogonal to out", kind]["row sum lost"] for kind in ("any v", "v sums to 0")]
check("orthogonal_hides_the_row_sum", hidden, at_most=1e-9)

# %% [markdown]
# (0 in the table means below $10^{-9}$.) Three things to take along.
#
# - With random values, ones *do* find all four mistakes. They are not always blind.
# - With values that sum to 0, ones are blind to everything: $d\mathrm{att}_{ij} = \sum_c v_{jc} =
#   0$, so the true $dq$ and $dk$ are 0, and a backward pass that returns zeros passes.
# - The lost row sum hides wherever (07.22) is 0. A cotangent that is orthogonal to the output is
#   no strange thing: it is what a layer norm sends back when it comes right after
#   (chapter [11](11_layer_norm.ipynb)).

# %%
out = Tensor(package_attention(q, k, v), requires_grad=True)
F.layer_norm(out, Tensor(np.ones(4)), Tensor(np.zeros(4)), eps=0.0).backward(noise)
after_norm = gaps(q, k, v, to_numpy(out.grad))
print({name: float(f"{gap:.2g}") for name, gap in after_norm.items()})
check("layer_norm_hides_the_row_sum", after_norm["row sum lost"], at_most=1e-9)
check("layer_norm_shows_the_scale", after_norm["scale forgotten"], at_least=0.01)

# %% [markdown]
# How does the error look when it is seen? A forgotten scale leaves `dv` right and makes `dq` and
# `dk` too large by the *same* factor $\sqrt D$, with the right direction: training works, with
# another step size. A lost row sum breaks (07.27): the gradients of the keys no longer sum to 0.

# %%
wrong = broken_vjps(q, k, v, noise)
dq, dk, _ = attention_by_hand(q, k, v)[1](noise)
ratio = wrong["scale forgotten"][0] / dq
print("forgotten scale, dq is too large by", ratio.min().round(6), "to", ratio.max().round(6))
print("sum of dk over the keys:", dk.sum(0).round(12) + 0.0)
print("with the row sum lost:  ", wrong["row sum lost"][1].sum(0).round(4))
check("forgotten_scale_is_a_factor", abs(ratio - 2.0), at_most=1e-9)
check("lost_row_sum_breaks_the_sum", abs(wrong["row sum lost"][1].sum(0)).max(), at_least=0.1)

# %% [markdown]
# **A mistake that no gradient check finds.** Apply the softmax twice (S2 does, see below) and let
# the tape differentiate it. The gradient is right, for the wrong function. Only a second opinion on
# the *value* sees it: that is why the table of witnesses has a row `out`. If instead only the
# forward pass is doubled and the backward pass is left as it was, the gradient check sees it.


# %%
def attention_twice(q, k, v):
    """The mistake on the tape: softmax(softmax(scores)) v."""
    swap = (*range(q.ndim - 2), q.ndim - 1, q.ndim - 2)
    scores = ops.matmul(q, ops.transpose(k, axes=swap)) * (q.shape[-1] ** -0.5)
    return ops.matmul(F.softmax(F.softmax(scores)), v)


worst = check_grads(attention_twice, q, k, v)
check("twice_passes_the_gradient_check", worst, at_most=1e-6)
values = [f(*map(Tensor, (q, k, v))) for f in (attention_twice, reference.attention)]
check("twice_fails_on_the_value", rel_error(*values), at_least=0.1)
key_value = Tensor(k), Tensor(v)
slopes = central_differences(
    lambda q: (noise * attention_twice(Tensor(q), *key_value).numpy()).sum(), q)
check("twice_forward_only_fails", rel_error(dq, slopes), at_least=0.1)

# %% [markdown]
# ## Experiment
#
# ### Learning to look up
#
# **The task.** A context holds 16 pairs: a random key vector with 32 components (all keys of the
# same length, so that by Cauchy and Schwarz no key fits a query better than the query's own copy),
# and a value, one of 64 symbols, none of them twice. A question is one of the keys, *rotated* by a
# fixed random rotation, plus noise. The answer is the symbol of that key's pair. Keys and symbols
# are drawn anew for every context: there is nothing to remember but *how to look up*. (Only 16 of
# the 64 symbols stand in a table, so that answering by exclusion, with the *least* weight on the
# right pair, does not pay.)
#
# **The layer.** $q = x_q W_q$, $k = x_k W_k$ with learned projections $(32, 64)$; $v$ = a learned
# row of 64 numbers for each symbol; out = `attention(q, k, v)`; scores over the 64 symbols =
# $\mathrm{out}\, W_o$. Queries speak another language than keys. A score is
# $x_q W_q W_k^\top x_k^\top / \sqrt D$, so $W_q W_k^\top$ must learn to turn the query back.
#
# **Prediction.** Before training the map of weights is noise, and the answer right once in 64.
# Whoever knew the table but not how to look up, would be right once in 16. After training each
# query's row is one-hot: since each of the 16 keys is asked for once, the map becomes a permutation
# matrix. Held-out contexts are answered as well as trained ones: at least 999 in 1,000. *Without
# projections* the rotation cannot be undone, so that variant does not get beyond 1 in 16. *Without
# the scale* learning starts from saturated weights; projections can absorb the factor, so it should
# get there, later. *Softmax twice* can put at most $e/(e + 15) = 0.153$ on the right pair, so its
# map must stay pale; but the matrix $W_o$ can magnify small differences, so its *accuracy* on 16
# pairs may well be near perfect.

# %%
E, T, V, D = 32, 16, 64, 64  # components of x, pairs, symbols, components of q and k
Q, R = np.linalg.qr(np.random.default_rng(5).standard_normal((E, E)))
rotation = Q * np.sign(np.diag(R))  # with these signs no direction is preferred


def contexts(rng, B, T=T, noise=0.3):
    """B tables of T pairs, each key asked once -> x_q, x_k (B, T, E), symbols, answers, places."""
    x_k = rng.standard_normal((B, T, E))
    x_k *= math.sqrt(E) / np.linalg.norm(x_k, axis=-1, keepdims=True)
    deck = np.tile(np.arange(max(T, V)) % V, (B, 1))
    symbols = rng.permuted(deck, axis=1)[:, :T]  # (B, T), no symbol twice where V are enough
    places = rng.permuted(np.tile(np.arange(T), (B, 1)), axis=1)  # which pair question i is about
    asked = np.take_along_axis(x_k, places[..., None], 1) @ rotation
    x_q = asked + noise * rng.standard_normal((B, T, E))
    answers = np.take_along_axis(symbols, places, 1)
    return x_q.astype("float32"), x_k.astype("float32"), symbols, answers, places


# %% [markdown]
# The wrong variants differ in one line each.


# %%
class LookUp:
    """Projections, one attention layer, and a read-out. attend: (q, k, v) -> out."""

    def __init__(self, attend, project=True, seed=0):
        r = np.random.default_rng(seed)
        sizes = [((E, D), E**-0.5), ((E, D), E**-0.5), ((V, D), 1.0), ((D, V), 0.02)]
        self.params = [
            Tensor((std * r.standard_normal(s)).astype("float32"), requires_grad=True)
            for s, std in sizes
        ]
        self.attend, self.project = attend, project

    def queries_keys(self, x_q, x_k):
        W_q, W_k = self.params[:2]
        return (F.linear(x_q, W_q), F.linear(x_k, W_k)) if self.project else (x_q, x_k)

    def __call__(self, x_q, x_k, symbols):
        _, _, table, W_o = self.params
        q, k = self.queries_keys(Tensor(x_q), Tensor(x_k))
        return F.linear(self.attend(q, k, F.embedding(table, symbols)), W_o)  # (B, T, V)


# %%
variants = {
    "right": LookUp(attention),
    "no scale": LookUp(lambda q, k, v: attention(q * q.shape[-1] ** 0.5, k, v)),
    "softmax twice": LookUp(attention_twice),
    "no projections": LookUp(attention, project=False),
}


# %%
def train(model, steps=400, B=16, lr=3e-3):
    """Adam on fresh contexts. Returns the loss of each step, nats per answer."""
    r, optimizer, losses = np.random.default_rng(1), Adam(model.params, lr), []
    for _ in range(steps):
        x_q, x_k, symbols, answers, _ = contexts(r, B)
        loss = F.cross_entropy(model(x_q, x_k, symbols), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def score(model, T=T):
    """Accuracy and loss on 4,096 questions about tables of T pairs never seen before."""
    x_q, x_k, symbols, answers, _ = contexts(np.random.default_rng(99), 4096 // T, T)
    with no_grad():
        logits = model(x_q, x_k, symbols)
        nats = F.cross_entropy(logits, answers).item()
    return float((logits.numpy().argmax(-1) == answers).mean()), nats


# %%
def weights_of(model, x_q, x_k):
    """The weights that the model really uses: attend to unit vectors instead of values."""
    unit = np.broadcast_to(np.eye(x_k.shape[1], dtype="float32"), (len(x_k), *[x_k.shape[1]] * 2))
    with no_grad():
        return model.attend(*model.queries_keys(Tensor(x_q), Tensor(x_k)), Tensor(unit)).numpy()


# %%
x_q, x_k, _, _, places = contexts(np.random.default_rng(3), 20)  # to look at, never trained on
right_pair = (np.arange(20)[:, None], np.arange(T), places)
maps = {"before": weights_of(variants["right"], x_q, x_k)}
before = score(variants["right"])
curves = {name: train(model) for name, model in variants.items()}
maps |= {name: weights_of(model, x_q, x_k) for name, model in variants.items()}
result = {name: score(model) for name, model in variants.items()}


def first_below(losses, nats=0.1):
    """The first step from which the mean of 10 losses is below; None if never."""
    smooth = np.convolve(losses, np.ones(10) / 10, "valid")
    return int(np.argmax(smooth < nats)) + 10 if (smooth < nats).any() else None


# %%
rows = [["right, untrained", *before, None, maps["before"][right_pair].mean()]]
rows += [[name, *result[name], first_below(curves[name]), maps[name][right_pair].mean()]
         for name in variants]
header = ["variant", "accuracy", "nats", "steps to 0.1 nats", "weight on the right pair"]
show_table([*header], rows)
print("a guess among the table's symbols: accuracy", 1 / 16, " nats", round(math.log(16), 4))

# %%
check("look_up_accuracy", result["right"][0], at_least=0.999)
check("look_up_one_hot", maps["right"][right_pair].mean(), at_least=0.95)
W_q, W_k = (W.numpy() for W in variants["right"].params[:2])
turned = W_q @ W_k.T  # (E, E), to be compared with the transposed rotation
alike = (turned * rotation.T).sum() / np.linalg.norm(turned) / np.linalg.norm(rotation)
check("rotation_was_learned", alike, at_least=0.7)  # unrelated matrices: about 0.03
check("untrained_is_chance", abs(before[0] - 1 / 64), at_most=0.02)
check("no_projections_no_look_up", result["no projections"][0], at_most=0.15)
cap = math.e / (math.e + 15)
check("twice_is_capped", maps["softmax twice"].max() - cap, at_most=1e-6)
check("twice_is_accurate_all_the_same", result["softmax twice"][0], at_least=0.98)
check("twice_loss_is_higher", result["softmax twice"][1] / result["right"][1], at_least=10)
steps = {name: first_below(curves[name]) or 400 for name in variants}
check("no_scale_learns_later", steps["no scale"] / steps["right"], at_least=1.1)
check("no_scale_gets_there_too", result["no scale"][0], at_least=0.99)

# %%
fig, panels = plt.subplots(1, 3, figsize=(11, 4.6))
titles = {"before": "Before: noise", "right": "After: a look-up", "softmax twice": "Softmax twice"}
for axes, (name, title) in zip(panels, titles.items(), strict=True):
    draw_attention(axes, maps[name][0])
    axes.scatter(places[0], range(T), s=14, facecolors="none", edgecolors=RED, linewidths=1.2)
    axes.set_xticks(range(0, 16, 5))
    axes.set_yticks(range(0, 16, 5))
    axes.set(title=title, xlabel="pair in the table", ylabel="")
panels[0].set_ylabel("question")
panels[2].set_title(f"Softmax twice: never above {cap:.3f}")
panels[1].set_xlabel("pair in the table\n(red ring: the pair asked for)")
save_figure(fig, "07_look_up.svg")
plt.show()

# %% [markdown]
# The honest reading of the table:
#
# - *No projections* looks nothing up: attention on raw vectors can only compare what is already
#   comparable.
# - *No scale* costs little here. $D$ is only 64, Adam is forgiving, and projections can shrink. It
#   needs more steps, and it arrives. The scale is about the start, as said.
# - *Softmax twice* answers nearly everything right and is still broken: after as many steps its
#   loss is many times higher, and its weights are nearly equal. **Accuracy does not see it.** A
#   longer table does, since the cap falls with the number of pairs:

# %%
rows = []
for T_long in (16, 64, 256):
    measured = {name: score(variants[name], T_long) for name in ("right", "softmax twice")}
    cap_long = math.e / (math.e + T_long - 1)
    rows.append([T_long, *measured["right"], *measured["softmax twice"], cap_long])
header = ["pairs", "right: accuracy", "nats", "twice: accuracy", "nats", "cap on a weight"]
show_table(header, rows)
check("right_look_up_of_256", rows[2][1], at_least=0.98)
check("twice_of_256_is_lost", rows[2][1] - rows[2][3], at_least=0.15)
check("twice_of_256_in_nats", rows[2][4] - rows[2][2], at_least=1.0)

# %% [markdown]
# Trained on tables of 16 pairs, the right layer reads tables of 256 (where each symbol stands four
# times). The doubled softmax reads 64, with hardly any confidence, and loses its way in 256: 0.0106
# is all that it can give to one pair, and the 255 others together get nearly everything.
#
# ### On real text: which place to look at
#
# **The task.** Windows of 32 characters of the facts corpus. Every character in turn is hidden, and
# one attention head must say what it was, from the other 31. The query knows *only its position*
# (a learned vector a position); keys know their character and position; values know their
# character alone. A bias of $-\infty$ on the diagonal hides the character itself, (07.29). Nothing
# in the layer says which positions are near.
#
# **Prediction.** The most informative place is next door. The head will put most of its weight on
# the two neighbours, where 2 of 31 equal weights would be 0.065. That tells it more than the left
# neighbour alone, so it should beat a counted table of character pairs. But a mean of values has no
# order (07.11): it cannot tell left from right by value. So it should do no better than a counted
# table of both neighbours *without* their order, and much worse than one with it.

# %%
corpus = data.load("facts")
parts = data.split(corpus)
tokenizer = CharTokenizer.from_text(corpus.text)
train_ids, val_ids = tokenizer.encode(parts.train), tokenizer.encode(parts.val)
W, C, n_chars = 32, 32, tokenizer.vocab_size  # window, channels, distinct characters
hide_itself = np.where(np.eye(W), -np.inf, 0.0).astype("float32")
r = np.random.default_rng(0)
sizes = {"wte": (n_chars, C), "wpe": (W, C), "W_q": (C, C), "W_k": (C, C), "W_v": (C, C)}
stds = {"wte": 0.3, "wpe": 1.0, "W_q": C**-0.5, "W_k": C**-0.5, "W_v": C**-0.5}
head = {
    name: Tensor((stds[name] * r.standard_normal(s)).astype("float32"), requires_grad=True)
    for name, s in sizes.items()
}
head["W_o"] = Tensor((0.02 * r.standard_normal((C, n_chars))).astype("float32"), requires_grad=True)


def windows(ids, rng, B):
    """B windows of W consecutive characters, (B, W)."""
    start = rng.integers(0, len(ids) - W, B)
    return ids[start[:, None] + np.arange(W)]


# %%
def query_key_value(idx):
    """idx (B, W) -> q, k, v (B, W, C): the query from the position alone."""
    positions = F.embedding(head["wpe"], np.broadcast_to(np.arange(W), idx.shape))  # (B, W, C)
    characters = F.embedding(head["wte"], idx)  # (B, W, C)
    k = F.linear(characters + positions, head["W_k"])
    return F.linear(positions, head["W_q"]), k, F.linear(characters, head["W_v"])


def guess(idx):
    """Scores of the hidden character, (B, W, n_chars): row t has not seen character t."""
    return F.linear(attention(*query_key_value(idx), bias=hide_itself), head["W_o"])


r, optimizer = np.random.default_rng(1), Adam(head.values(), 3e-3)
for _ in range(900):
    idx = windows(train_ids, r, 32)
    nats = F.cross_entropy(guess(idx), idx)
    optimizer.zero_grad()
    nats.backward()
    optimizer.step()

# %%
idx = windows(val_ids, np.random.default_rng(2), 400)  # 12,800 hidden characters
with no_grad():
    logits = guess(idx)
    q, k, _ = (a.numpy() for a in query_key_value(idx))
att = softmax_rows(q @ k.swapaxes(-1, -2) / math.sqrt(C) + hide_itself)  # (400, 32, 32)
by_distance = {d: np.diagonal(att, d, -2, -1).mean() for d in (-3, -2, -1, 1, 2, 3)}
header = ["distance of the key", *map(str, by_distance)]
show_table(header, [["mean weight", *by_distance.values()]])

# %% [markdown]
# What counting reaches on the same held-out characters, with tables made from the training part:

# %%
a, c, b = idx[:, :-2], idx[:, 1:-1], idx[:, 2:]  # (400, 30): c stands between a and b
twos, threes = np.full((n_chars,) * 2, 0.1), np.zeros((n_chars,) * 3, "float32")
np.add.at(twos, (train_ids[:-1], train_ids[1:]), 1)  # [a, c]
np.add.at(threes, (train_ids[:-2], train_ids[2:], train_ids[1:-1]), 1)  # [a, b, c]
either_two = twos + twos.T  # a before c, or after
either_three = threes + threes.swapaxes(0, 1)  # a and b may change places


def shares(counts):
    """Counts (..., n_chars) -> frequencies that sum to 1."""
    return counts / counts.sum(-1, keepdims=True)


letters = shares(np.bincount(train_ids, minlength=n_chars) + 1.0)
pair = shares(twos)[a]  # (400, 30, n_chars), as all below
either = (shares(either_two)[a] + shares(either_two)[b]) / 2
guesses = {
    "letter counts": np.broadcast_to(letters, pair.shape),
    "left neighbour": pair,
    "both neighbours, no order": shares(either_three[a, b] + 3 * either),  # 3 counts of prior
    "both neighbours, in order": shares(threes[a, b] + 3 * pair),
    "one attention head": softmax_rows(logits.numpy()[:, 1:-1]),
}

# %%
found = {
    name: (-np.log(np.take_along_axis(p, c[..., None], -1)).mean(), (p.argmax(-1) == c).mean())
    for name, p in guesses.items()
}
header = ["held-out facts", "nats per character", "accuracy"]
show_table(header, [[name, *x] for name, x in found.items()])
nats = {name: float(x[0]) for name, x in found.items()}
check("weight_next_door", by_distance[-1] + by_distance[1], at_least=0.6)
check("itself_gets_nothing", abs(np.diagonal(att, 0, -2, -1)), at_most=0.0)
head_nats = nats["one attention head"]
check("head_beats_left_neighbour", nats["left neighbour"] - head_nats, at_least=0.02)
check("bag_beats_head", head_nats - nats["both neighbours, no order"], at_least=0.05)
check("order_beats_bag", head_nats - nats["both neighbours, in order"], at_least=0.3)

# %%
line = tokenizer.encode(max(parts.val.split("\n")[:60], key=len)[:W])
with no_grad():
    q, k, _ = (a.numpy()[0] for a in query_key_value(line[None]))
text = [c if c != " " else "␣" for c in tokenizer.decode(line)]
fig, axes = plt.subplots(figsize=(6.4, 6))
draw_attention(axes, softmax_rows(q @ k.T / math.sqrt(C) + hide_itself), text, text)
axes.tick_params(labelsize=8, length=0)
axes.set(xlabel="character looked at", ylabel="hidden character")
axes.text(31, 3, "darkest: the neighbours\nwhite diagonal: the hidden\ncharacter itself, forbidden",
          ha="right", va="center", fontsize=11)
axes.set_title("One head finds the neighbours by itself")
save_figure(fig, "07_fill_in.svg")
plt.show()

# %% [markdown]
# The head has found out, from text alone, that the place to look at is next door. With both
# neighbours it beats the table that knows one, and it loses to the table that knows both, even to
# the one without their order. So much can one mean of values do, read out linearly. To know *which*
# neighbour said what takes a second head, and to combine the two takes a network after the mixing:
# the rest of the course.

# %% [markdown]
# ## What others get wrong
#
# The five documents S0 to S4 are listed in the [chapters' README](README.md).
#
# ### S1:23-27: attention straight on the embeddings
#
# S1 computes the similarity of every two word embeddings, normalises, and averages the embeddings
# themselves. There are no projections, no scale and no separate values, and it is not said along
# which axis to normalise. With $S = E E^\top$ and rows $e_i$ of $E$, shape $(T, d)$:
#
# $$
# S_{ij} = e_i \cdot e_j = S_{ji}, \qquad
# S_{ii} = \lVert e_i \rVert^2 \approx d \gg \lvert S_{ij} \rvert \approx \sqrt d. \tag{07.32}
# $$
#
# "The cat sees the dog as the dog sees the cat", always; and every word sees mostly itself, so that
# the output is nearly the input. The right form has $q = E W_q$, $k = E W_k$, $v = E W_v$ with
# three learned matrices: $S = E W_q W_k^\top E^\top / \sqrt{D}$ need not be symmetric, and its
# diagonal is not special.

# %%
rows = []
for d in (16, 64, 256):
    E_random = rng.standard_normal((200, 16, d))  # 200 texts of 16 words
    W_q, W_k = rng.standard_normal((2, d, d)) / math.sqrt(d)
    S = E_random @ E_random.swapaxes(-1, -2)  # (200, 16, 16)
    projected = (E_random @ W_q) @ (E_random @ W_k).swapaxes(-1, -2) / math.sqrt(d)
    diagonals = [np.einsum("nii->", softmax_rows(s)) / 3200 for s in (S, S / d**0.5, projected)]
    size = np.einsum("nii->", S) / 3200 / d, np.sqrt((S[:, 0, 1:] ** 2).mean() / d)
    rows.append([d, *diagonals, *size])
header = ["d", "self-weight", "… with scale", "… with W_q, W_k", "S_ii / d", "S_ij / sqrt(d)"]
show_table(header, rows)
check("bare_scores_are_symmetric", rel_error(S, S.swapaxes(-1, -2)), at_most=1e-12)
check("sizes_of_self_scores", [abs(n - 1) for row in rows for n in row[4:]], at_most=0.05)
check("self_weight_even_when_scaled", [row[2] for row in rows[1:]], at_least=0.9)
check("self_weight_with_projections", [row[3] for row in rows], at_most=0.12)

# %% [markdown]
# ### S2:72: no scale
#
# S2 takes the exponential of the bare dot product. The table in the derivation was this claim:
# at $d_k = 1024$ a random query gives nearly everything to one random key, and the Jacobian is a
# fraction of what it is with the scale. The right form divides by $\sqrt{d_k}$, (07.14).

# %%
bare, divided = plain[-1], scaled[-1]
print("at 1024: share of ln 64", bare[1].round(3), "against", divided[1].round(3), end="; ")
print("Jacobian", bare[2].round(3), "against", divided[2].round(3))
check("bare_largest_weight_at_1024", bare[0], at_least=0.9)
check("bare_share_at_1024", bare[1], at_most=0.06)
check("bare_jacobian_is_smaller", divided[2] / bare[2], at_least=2.0)

# %% [markdown]
# ### S2:72-75: a sum over the queries
#
# S2 defines a weight "of position $i$ for position $j$" as
# $\exp(k_i \cdot q_j) / \sum_m \exp(k_i \cdot q_m)$. Look at which index is summed: $m$ counts
# *queries*, for one fixed key. Taken at its word, it makes the queries compete for a key, and the
# numbers that belong to one query do not sum to 1 over the keys: they divide nothing. Write
# $A^{S2}(q, k)$ for S2's matrix and $A(q, k)$ for the unscaled right one. The definition is the
# right one with the two names exchanged:
#
# $$
# A^{S2}(q, k)_{ij} = \frac{e^{k_i \cdot q_j}}{\sum_m e^{k_i \cdot q_m}} = A(k, q)_{ij}
# \;\ne\; A(q, k)_{ij}. \tag{07.33}
# $$
#
# In plain self-attention, where $q = x W_q$ and $k = x W_k$ come from the same $x$, exchanging the
# names of $W_q$ and $W_k$ is no loss: such a network trains. That is why the mistake survives. It
# shows when queries and keys are *not* the same tokens: with 3 queries and 5 keys S2's matrix is
# (5, 3) and cannot multiply the 5 values. It also shows where queries come one by one, as in
# generation: each new query enters the sums of all keys and so changes what old queries were given.
# The right form sums over the keys, (07.6).

# %%
x, (W_q, W_k, W_v) = rng.standard_normal((5, 4)), rng.standard_normal((3, 4, 4))
q, k, v = x @ W_q, x @ W_k, x @ W_v
s2 = np.zeros((5, 5))
for i in range(5):
    s2[i] = [math.exp(k[i] @ q[j]) / sum(math.exp(k[i] @ q[m]) for m in range(5)) for j in range(5)]
print("one query's numbers, summed over the keys:", s2.sum(0).round(4))
check("s2_names_exchanged", rel_error(s2, softmax_rows(k @ q.T)), at_most=1e-9)
check("s2_is_not_attention", rel_error(s2, softmax_rows(q @ k.T)), at_least=0.2)
check("s2_query_sums_are_not_one", abs(s2.sum(0) - 1).max(), at_least=0.2)
for_three = softmax_rows(k @ (rng.standard_normal((3, 4)) @ W_q).T)
print("3 queries, 5 keys: S2's matrix", for_three.shape, "times values", v.shape, "has no shape")
check("s2_wrong_shape", abs(for_three.shape[1] - len(v)), at_least=1)

# %% [markdown]
# ### S2:61-63 with S2:94: columns, then rows
#
# S2 makes its queries, keys and values as $W x$: each token is a **column**. Then it multiplies the
# weights with the values from the left, which is right if each token is a **row**. If tokens are
# columns, $v$ has shape $(D_v, T_k)$, and with $\mathrm{att}_{ij}$ as in (07.6) the output is
#
# $$
# o_{ci} = \sum_j v_{cj}\, \mathrm{att}_{ij}, \qquad o = v\, \mathrm{att}^\top
# \qquad (D_v, T_q). \tag{07.34}
# $$
#
# $\mathrm{att}\, v$ mixes *features* with weights that were meant for tokens. If the number of
# tokens differs from the number of features, it is an error of shapes and found at once. If they
# happen to be equal, nothing is said, and the result is off by about as much as it is large.

# %%
x = rng.standard_normal((200, 5, 5))  # 200 texts: 5 features in rows, 5 tokens in columns
W_q, W_k, W_v = rng.standard_normal((3, 5, 5))
q, k, v = W_q @ x, W_k @ x, W_v @ x  # tokens are columns
att = softmax_rows(q.swapaxes(-1, -2) @ k / math.sqrt(5))  # (200, 5, 5)
rows_in = [a.swapaxes(-1, -2) for a in (q, k, v)]  # tokens are rows
truth = package_attention(*rows_in).swapaxes(-1, -2)
check("columns_need_the_transpose", rel_error(v @ att.swapaxes(-1, -2), truth), at_most=1e-12)
silent = np.linalg.norm(att @ v - truth, axis=(1, 2)) / np.linalg.norm(truth, axis=(1, 2))
print("relative difference, silent:", np.quantile(silent, [0.1, 0.5, 0.9]).round(3))
check("columns_silently_wrong", np.median(silent), at_least=0.8)

# %% [markdown]
# ### S2:72 with S2:87: softmax twice
#
# S2 normalises with exponentials, calls the result the scores, and applies a softmax to them
# again. The inner weights lie between 0 and 1, so *no outer weight can be more than $e$ times
# another*. How large can the largest be? Let $p_1$ be the inner one. The others sum to $1 - p_1$,
# so by convexity of the exponential $\sum_{j \ge 2} e^{p_j} \ge (N - 1)\, e^{(1 - p_1)/(N - 1)} \ge
# N - 1$, and $e^{p_1} \le e$. The weight $e^{p_1} / (e^{p_1} + \sum_{j \ge 2} e^{p_j})$ grows with
# the first and falls with the second:
#
# $$
# \max_j \mathrm{softmax}(\mathrm{softmax}(s))_j \le \frac{e}{e + N - 1}, \tag{07.35}
# $$
#
# reached in the limit of a one-hot inner softmax. However certain the layer wants to be, among
# 1,024 keys it can give no more than 0.00265 to one. The gradient suffers too: it passes two
# Jacobians, and the outer one is that of nearly equal weights. The right form has one softmax.

# %%
caps = {N: math.e / (math.e + N - 1) for N in (2, 8, 64, 1024)}
want = np.array([0.7311, 0.2797, 0.0414, 0.00265])
show_table(["keys N", *map(str, caps)], [["largest weight", *caps.values()]])
check("cap_numbers", abs(np.array(list(caps.values())) / want - 1), at_most=1.5e-3)
sharp = [softmax_rows(softmax_rows(1e4 * np.eye(N)[0]))[0] - caps[N] for N in caps]
check("cap_is_reached", np.abs(sharp), at_most=1e-12)
over = [softmax_rows(softmax_rows(c * rng.standard_normal((500, N)))).max() - caps[N]
        for N in caps for c in (0.1, 1, 10, 100)]
check("cap_holds", over, at_most=1e-12)

# %%
s = 3 * rng.standard_normal((1000, 64))
once = softmax_rows(s)
twice = softmax_rows(once)
J_once, J_outer = (p[:, :, None] * (np.eye(64) - p[:, None, :]) for p in (once, twice))
norms = [np.linalg.norm(J, axis=(1, 2)).mean() for J in (J_once, J_outer @ J_once)]
shares = [entropy(p).mean() / math.log(64) for p in (once, twice)]
show_table(["64 keys, scores of s.d. 3", "once", "twice"],
           [["entropy share", *shares], ["Jacobian norm", *norms]])
check("twice_is_nearly_uniform", shares[1], at_least=0.995)
check("twice_gradient_smaller", norms[0] / norms[1], at_least=30)

# %%
N = np.array([2**n for n in range(1, 13)])
fig, axes = plt.subplots(figsize=(7, 4))
axes.loglog(N, np.ones(len(N)), color=BLUE)
axes.loglog(N, math.e / (math.e + N - 1), "o-", color=RED)
axes.loglog(N, 1 / N, "--", color=GREY)
axes.text(60, 0.55, "one softmax: up to 1", color=BLUE)
axes.text(70, 0.075, "softmax twice: $e/(e+N-1)$", color=RED)
axes.text(150, 0.0011, "equal weights: $1/N$", color=GREY, ha="right")
measured_cap = maps["softmax twice"].max()
axes.plot(16, measured_cap, "*", color=RED, ms=15)
axes.annotate("largest weight of the\ntrained look-up layer", (16, measured_cap), (2, 0.008),
              arrowprops={"arrowstyle": "->", "color": GREY}, fontsize=10)
axes.set(xlabel="keys N", ylabel="largest weight that one key can get", ylim=(1e-4, 2))
axes.set_title("A doubled softmax can single out no key")
save_figure(fig, "07_softmax_twice.svg")
plt.show()

# %% [markdown]
# ### S2:58: a piece of the text for each head
#
# S2 says that the sequence is divided into sub-sequences, one for each head. Then a head would
# never see the tokens of another piece. What is divided is the *features*: with $H$ heads, each has
# $D = C/H$ of the $C$ components, of **all** tokens. The test: move the first token and see whether
# the last one notices.

# %%
x, weights = rng.standard_normal((6, 8)), rng.standard_normal((3, 8, 8)) / math.sqrt(8)
moved = x.copy()
moved[0] += 0.1


def by_features(x):  # (6, 8) -> (2 heads, 6 tokens, 4 components)
    q, k, v = ((x @ W).reshape(6, 2, 4).transpose(1, 0, 2) for W in weights)
    return package_attention(q, k, v)


def by_pieces(x):  # two pieces of three tokens, 8 components each
    return package_attention(*((x @ W).reshape(2, 3, 8) for W in weights))


change = abs(by_features(moved) - by_features(x))[:, -1].max(-1)
print("the last token's change, for each head:", change.round(4))
check("each_head_sees_the_first_token", change, at_least=1e-4)
check("pieces_do_not", abs(by_pieces(moved) - by_pieces(x))[-1, -1], at_most=0.0)

# %% [markdown]
# ### S3:94: names
#
# S3's formula is right. It calls $\mathrm{softmax}(q k^\top / \sqrt{d_k})$ the attention *scores*;
# these are the **weights**, and the scores are what stands inside the softmax. It is a word, but S2
# shows what it costs: who calls the weights scores, will normalise them once more.

# %% [markdown]
# ## Exercises
#
# The checks run on your answers as soon as they do not raise `NotImplementedError`. Solutions are
# in `solutions/`.

# %% [markdown]
# ### Exercise 07.1: One query, by loops
#
# *Difficulty 1 of 5 · 10 minutes · 1 point*
#
# Write attention for one query, with Python's lists and `math` alone. `query`: $D$ numbers; `keys`:
# $T$ lists of $D$ numbers; `values`: $T$ lists of $D_v$ numbers. Return the list of $D_v$ numbers.
# Scores may be large, such as 2,000.
#
# <details><summary>Hint 1</summary>
#
# Three steps, as in (07.5) to (07.7): a list of $T$ scores, a list of $T$ weights, and for each
# component a sum over the pairs.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `math.exp(2000)` raises. By (07.9) you may subtract any number from all scores first. Which one
# makes every exponent at most 0?
#
# </details>


# %% exercise="07.1" role="stub"
def attend_one(query, keys, values):
    """One look-up. query (D,), keys (T, D), values (T, Dv), all lists -> list of Dv floats."""
    raise NotImplementedError


# %% exercise="07.1" role="check"
def check_07_1(attend_one):
    """The four-number example, and a query with D = 4."""
    keys, values = [[math.log(n)] for n in (1, 2, 3, 4)], [[20.0], [10.0], [10.0], [5.0]]
    got = attend_one([1.0], keys, values)
    assert len(got) == 1, "one number for each component of a value"
    assert abs(got[0] - 9) < 1e-9, f"the four-number example gives 9, not {got[0]}"
    keys = [[0.0, 0.0, 0.0, math.log(3)], [0.0] * 4]
    got = attend_one([7.0, 0.0, 0.0, 2.0], keys, [[4.0, 0.0], [8.0, 4.0]])
    assert abs(got[0] - 5) < 1e-9 and abs(got[1] - 1) < 1e-9, "wrong for D = 4: mind the scale"


attempt(check_07_1, attend_one)

# %% [markdown]
# ### Exercise 07.2: A scale for other inputs
#
# *Difficulty 2 of 5 · 15 minutes · 2 points*
#
# The components of $q$, shape $(D,)$, are independent with mean `mean_q` and variance `var_q`,
# those of $k$ with `mean_k` and `var_k`. Return the number $c$ for which $c\,(q \cdot k)$ has
# variance 1.
#
# <details><summary>Hint 1</summary>
#
# Go through the derivation of (07.13) and find the two places where mean 0 was used.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $\mathrm{Var}(X) = \mathbb{E}[X^2] - \mathbb{E}[X]^2$ for $X = q_d k_d$, and
# $\mathbb{E}[q_d^2]$ is not the variance if the mean is not 0.
#
# </details>


# %% exercise="07.2" role="stub"
def score_scale(D, mean_q, var_q, mean_k, var_k):
    """The factor that gives a score of D products the variance 1. Five numbers -> a float."""
    raise NotImplementedError


# %% exercise="07.2" role="check"
def check_07_2(score_scale):
    """The chapter's case, other variances, and other means, measured on 20,000 scores."""
    assert abs(score_scale(64, 0, 1, 0, 1) - 0.125) < 1e-12, "mean 0, variance 1, D = 64: 1/8"
    r = np.random.default_rng(0)
    for D, mean_q, var_q, mean_k, var_k in ((16, 0, 4, 0, 9), (8, 1, 1, 0, 2), (8, 2, 1, -1, 3)):
        q = mean_q + math.sqrt(var_q) * r.standard_normal((20_000, D))
        k = mean_k + math.sqrt(var_k) * r.standard_normal((20_000, D))
        got = (score_scale(D, mean_q, var_q, mean_k, var_k) * (q * k).sum(-1)).var()
        assert abs(got - 1) < 0.08, f"means {mean_q}, {mean_k}: the variance is {got:.3f}, not 1"


attempt(check_07_2, score_scale)

# %% [markdown]
# ### Exercise 07.3: Mend a matrix that was normalised over the queries
#
# *Difficulty 3 of 5 · 15 minutes · 2 points*
#
# Somebody has computed S2's matrix, $A_{ij} = e^{k_i \cdot q_j} / Z_i$ with
# $Z_i = \sum_m e^{k_i \cdot q_m}$, for $T_k$ keys and $T_q$ queries, and the $q$ and $k$ are gone.
# `A` has shape $(T_k, T_q)$, `Z` has $(T_k,)$. Return the right weights (without a scale), one row
# a query, shape $(T_q, T_k)$.
#
# <details><summary>Hint 1</summary>
#
# Which products of things you have are the exponentials $e^{k_i \cdot q_j}$?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Once you have the exponentials, you need the sum over the keys of each query. Transpose last.
#
# </details>


# %% exercise="07.3" role="stub"
def mend(A, Z):
    """Weights normalised over queries -> over keys. A (Tk, Tq), Z (Tk,) -> (Tq, Tk)."""
    raise NotImplementedError


# %% exercise="07.3" role="check"
def check_07_3(mend):
    """Two queries and three keys whose exponentials are 1 to 6."""
    A, Z = np.array([[1 / 3, 2 / 3], [3 / 7, 4 / 7], [5 / 11, 6 / 11]]), np.array([3.0, 7.0, 11.0])
    got = np.asarray(mend(A, Z))
    assert got.shape == (2, 3), f"one row a query, one column a key: (2, 3), not {got.shape}"
    assert abs(got.sum(-1) - 1).max() < 1e-9, "each query's weights must sum to 1 over the keys"
    want = np.array([[1 / 9, 3 / 9, 5 / 9], [1 / 6, 2 / 6, 3 / 6]])
    assert abs(got - want).max() < 1e-9, "rows sum to 1, but the weights are not the softmax's"


attempt(check_07_3, mend)

# %% [markdown]
# ### Exercise 07.4: Tokens as columns
#
# *Difficulty 3 of 5 · 25 minutes · 3 points*
#
# Many texts write a token as a column. Write attention and two of its gradients in that
# convention. `Q` $(D, T_q)$, `K` $(D, T_k)$, `V` $(D_v, T_k)$, cotangent `G` $(D_v, T_q)$. Return
# `out` $(D_v, T_q)$, `dQ` $(D, T_q)$ and `dV` $(D_v, T_k)$. The scores are divided by $\sqrt D$.
#
# <details><summary>Hint 1</summary>
#
# Write the index form first: it is (07.5) to (07.7) with the two indices of each of q, k, v and out
# exchanged. Then turn each sum into a product of arrays in which the summed index stands inside.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Decide once whether your weights are $(T_q, T_k)$ or $(T_k, T_q)$, write it beside the line, and
# normalise over the keys. The row sum of (07.21) is over the keys, too.
#
# </details>


# %% exercise="07.4" role="stub"
def attention_columns(Q, K, V, G):
    """Q (D, Tq), K (D, Tk), V (Dv, Tk), G (Dv, Tq) -> out (Dv, Tq), dQ (D, Tq), dV (Dv, Tk)."""
    raise NotImplementedError


# %% exercise="07.4" role="check"
def check_07_4(attention_columns):
    """An output by hand, two queries and two keys; gradients against differences."""
    Q, K = np.array([[1.0, 0.0]]), np.array([[0.0, math.log(3)]])
    V = np.array([[4.0, 8.0], [0.0, 4.0]])
    out = attention_columns(Q, K, V, np.ones((2, 2)))[0]
    assert out.shape == (2, 2), "out must be (Dv, Tq)"
    assert abs(out - np.array([[7, 6], [3, 2]])).max() < 1e-9, "wrong output for two tokens"
    r = np.random.default_rng(0)
    Q, K, V, G = (r.standard_normal(s) for s in ((3, 2), (3, 4), (5, 4), (5, 2)))
    _, dQ, dV = attention_columns(Q, K, V, G)
    want = central_differences(lambda V: (G * attention_columns(Q, K, V, G)[0]).sum(), V)
    assert rel_error(dV, want) < 1e-6, "dV disagrees with differences"
    want = central_differences(lambda Q: (G * attention_columns(Q, K, V, G)[0]).sum(), Q)
    assert rel_error(dQ, want) < 1e-6, "dQ disagrees with differences"


attempt(check_07_4, attention_columns)

# %% [markdown]
# ### Exercise 07.5: Additive scores
#
# *Difficulty 4 of 5 · 25 minutes · 3 points*
#
# Before dot products, attention had a small network for its scores (Bahdanau et al. 2014,
# arXiv:1409.0473): $S_{ij} = \sum_d w_d \tanh(q_{id} + k_{jd})$. Return `(scores, vjp)`, where
# `vjp(ds)` maps a cotangent $(T_q, T_k)$ to `(dq, dk, dw)`. `q` $(T_q, D)$, `k` $(T_k, D)$,
# `w` $(D,)$.
#
# <details><summary>Hint 1</summary>
#
# Keep the array $t_{ijd} = \tanh(q_{id} + k_{jd})$, shape $(T_q, T_k, D)$. The derivative of
# $\tanh$ is $1 - t^2$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# First form the gradient of the sum inside the $\tanh$, shape $(T_q, T_k, D)$. Both $q$ and $k$
# broadcast into it: which axis was each repeated along?
#
# </details>


# %% exercise="07.5" role="stub"
def additive_scores(q, k, w):
    """S[i, j] = sum_d w[d] tanh(q[i, d] + k[j, d]). q (Tq, D), k (Tk, D), w (D,) -> S, vjp."""
    raise NotImplementedError


# %% exercise="07.5" role="check"
def check_07_5(additive_scores):
    """A score by hand, and three gradients against differences."""
    S, _ = additive_scores(np.array([[0.5, 1.0]]), np.array([[-0.5, 40.0]]), np.array([3.0, 2.0]))
    assert S.shape == (1, 1) and abs(S[0, 0] - 2) < 1e-9, "tanh(0) is 0 and tanh(41) is 1"
    r = np.random.default_rng(0)
    q, k, w, ds = (r.standard_normal(s) for s in ((2, 3), (4, 3), (3,), (2, 4)))
    dq, dk, dw = additive_scores(q, k, w)[1](ds)
    tests = {
        "dq": (dq, central_differences(lambda a: (ds * additive_scores(a, k, w)[0]).sum(), q)),
        "dk": (dk, central_differences(lambda a: (ds * additive_scores(q, a, w)[0]).sum(), k)),
        "dw": (dw, central_differences(lambda a: (ds * additive_scores(q, k, a)[0]).sum(), w)),
    }
    for name, (got, want) in tests.items():
        assert np.shape(got) == want.shape, f"{name} must have the shape {want.shape}"
        assert rel_error(got, want) < 1e-6, f"{name} disagrees with differences"


attempt(check_07_5, additive_scores)

# %% [markdown]
# ### Exercise 07.6: A table too long for memory
#
# *Difficulty 5 of 5 · 40 minutes · 4 points*
#
# Split the pairs into two blocks and attend to each alone. For a block you keep three arrays:
# `out` $(T_q, D_v)$, its output; `top` $(T_q, 1)$, each query's largest score in it; `total`
# $(T_q, 1)$, the sum of $e^{S_{ij} - \mathrm{top}_i}$ over its keys. Write the function that makes
# of two such triples the triple of the joined table, without seeing the keys again. Applied block
# after block, it needs memory for one block of weights only (Rabe & Staats 2021, arXiv:2112.05682;
# the running softmax is Milakov & Gimelshein's, 2018, arXiv:1805.02867).
#
# <details><summary>Hint 1</summary>
#
# What is the sum of $e^{S_{ij}}$ over a block, in terms of `top` and `total`? And the sum of
# $e^{S_{ij}} v_j$, with `out` too?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Those sums may overflow. The joined `top` is the larger of the two. Express each block's sums
# relative to *it*: each block gets a factor that is at most 1.
#
# </details>


# %% exercise="07.6" role="stub"
def merge(a, b):
    """Two blocks' (out (Tq, Dv), top (Tq, 1), total (Tq, 1)) -> the triple of both together."""
    raise NotImplementedError


# %% exercise="07.6" role="check"
def check_07_6(merge):
    """Blocks of 3 and 5 keys must give the output for 8 keys, also with a large lead."""

    def block(q, k, v):
        S = q @ k.T / math.sqrt(q.shape[-1])
        top = S.max(-1, keepdims=True)
        total = np.exp(S - top).sum(-1, keepdims=True)
        return attention(Tensor(q), Tensor(k), Tensor(v)).numpy(), top, total

    r = np.random.default_rng(0)
    for size in (1.0, 5.0):
        q, k, v = (r.standard_normal(s) for s in ((4, 6), (8, 6), (8, 2)))
        k *= size
        got = merge(block(q, k[:3], v[:3]), block(q, k[3:], v[3:]))
        names = "out", "top", "total"
        for name, found, want in zip(names, got, block(q, k, v), strict=True):
            assert np.shape(found) == want.shape, f"{name} must have the shape {want.shape}"
            assert rel_error(found, want) < 1e-9, f"{name} is not that of the joined table"


attempt(check_07_6, merge)

# %% [markdown]
# ## What was checked
#
# | equation or claim | check | bound |
# |---|---|---|
# | (07.1) exact look-up as a weighted sum | `exact_look_up` | <= 1e-12 |
# | (07.2) weights of the four numbers | `four_weights` | <= 1e-12 |
# | (07.2) their output, 9 | `four_numbers` | <= 1e-12 |
# | (07.3) losers stay below the bound (ratio) | `sharp_scores_within_bound` | <= 1 |
# | (07.3) the limit is one-hot | `sharp_scores_look_up` | <= 1e-12 |
# | (07.4) S3:119's two words | `two_words` | <= 5.1e-5 |
# | (07.4) and by the package | `two_words_package` | <= 1.1e-4 |
# | (07.6) weights sum to 1 over the keys | `weights_sum_to_one` | <= 1e-12 |
# | (07.5), (07.6), (07.7), (07.8) loops against arrays | `index_form_is_array_form` | <= 1e-12 |
# | (07.5), (07.6), (07.7) loops against the package | `index_form_is_package` | <= 1e-12 |
# | (07.9) a constant for each query | `constant_per_query` | <= 1e-9 |
# | (07.10) output within the values | `out_within_values` | <= 1e-12 |
# | (07.11) permuting the pairs | `order_of_pairs` | <= 1e-12 |
# | permuting keys without their values is seen | `order_of_keys_alone` | >= 0.1 |
# | (07.12) equal scores give the mean | `equal_scores_give_mean` | <= 1e-12 |
# | (07.13) Var(q.k) = D, three distributions, four D | `variance_is_d` | <= 0.05 |
# | (07.14) divided by the root: 1 | `scaled_variance_is_one` | <= 0.05 |
# | (07.15) slope of the entropy | `entropy_slope` | <= 1e-9 |
# | (07.16) softmax's Jacobian, complex step | `softmax_jacobian` | <= 1e-12 |
# | (07.17) its norm | `jacobian_norm` | <= 1e-12 |
# | scaled: entropy share at every D | `scaled_share_is_high` | >= 0.85 |
# | scaled: its range for D = 4 to 1024 | `scaled_share_is_flat` | <= 0.02 |
# | unscaled: it falls at each doubling | `unscaled_share_falls` | >= 0.01 |
# | (07.18) dv against differences | `dv` | <= 1e-9 |
# | (07.19) datt against differences | `datt` | <= 1e-9 |
# | (07.20) the four-index Jacobian, complex step | `kronecker_deltas` | <= 1e-12 |
# | (07.21) dS against differences | `ds` | <= 1e-9 |
# | (07.22) row sum from the output | `row_sum_from_out` | <= 1e-12 |
# | (07.23) rows of dS sum to 0 | `rows_of_ds_sum_to_zero` | <= 1e-12 |
# | (07.24) dq against differences | `dq` | <= 1e-9 |
# | (07.25) dk against differences | `dk` | <= 1e-9 |
# | (07.26) array form of all three | `array_form_of_gradients` | <= 1e-12 |
# | one vector added to all keys changes nothing | `shift_of_all_keys` | <= 1e-12 |
# | (07.27) key gradients sum to 0 | `key_gradients_sum_to_zero` | <= 1e-12 |
# | (07.28) value gradients sum to g's | `value_gradients_sum_to_g` | <= 1e-12 |
# | a forbidden key is as if not there | `as_if_not_there` | <= 1e-12 |
# | (07.29) its weight is exactly 0 | `forbidden_weight_is_zero` | <= 0 |
# | (07.29) its key gets exactly 0 | `forbidden_key_gets_nothing` | <= 0 |
# | (07.29) its value gets exactly 0 | `forbidden_value_gets_nothing` | <= 0 |
# | the other keys get something | `other_keys_get_something` | >= 1e-3 |
# | (07.30), (07.31) operations and numbers, counted | `flops_and_numbers_kept` | <= 0 |
# | by hand, package, composed, differences, complex | `gradients_have_four_witnesses` | <= 1e-9 |
# | the same with a bias and forbidden pairs | `gradients_with_a_bias` | <= 1e-9 |
# | one pair: no gradient for q and k | `one_pair_passes_nothing` | <= 1e-12 |
# | with dropout | `gradients_with_dropout` | <= 1e-6 |
# | a random cotangent sees four mistakes | `random_cotangent_sees_all_four` | >= 0.01 |
# | ones see them for random values | `ones_see_them_here` | >= 0.01 |
# | ones are blind for values that sum to 0 | `ones_are_blind_here` | <= 1e-9 |
# | a lost row sum hides from g orthogonal to out | `orthogonal_hides_the_row_sum` | <= 1e-9 |
# | and so does one that comes from a layer norm | `layer_norm_hides_the_row_sum` | <= 1e-9 |
# | the forgotten scale is seen there | `layer_norm_shows_the_scale` | >= 0.01 |
# | a forgotten scale is the factor 2 at D = 4 | `forgotten_scale_is_a_factor` | <= 1e-9 |
# | a lost row sum breaks (07.27) | `lost_row_sum_breaks_the_sum` | >= 0.1 |
# | softmax twice passes a gradient check | `twice_passes_the_gradient_check` | <= 1e-6 |
# | and fails on the value | `twice_fails_on_the_value` | >= 0.1 |
# | doubled forward only: fails | `twice_forward_only_fails` | >= 0.1 |
# | look-up of 16 fresh pairs: accuracy | `look_up_accuracy` | >= 0.999 |
# | weight on the right pair | `look_up_one_hot` | >= 0.95 |
# | cosine of W_q W_k^T and the rotation back | `rotation_was_learned` | >= 0.7 |
# | untrained: 1/64 | `untrained_is_chance` | <= 0.02 |
# | without projections: accuracy | `no_projections_no_look_up` | <= 0.15 |
# | softmax twice never above its cap | `twice_is_capped` | <= 1e-6 |
# | but accurate on 16 pairs | `twice_is_accurate_all_the_same` | >= 0.98 |
# | its loss over the right layer's | `twice_loss_is_higher` | >= 10 |
# | no scale: steps over the right layer's | `no_scale_learns_later` | >= 1.1 |
# | no scale: accuracy | `no_scale_gets_there_too` | >= 0.99 |
# | tables of 256 pairs: accuracy | `right_look_up_of_256` | >= 0.98 |
# | softmax twice loses accuracy there | `twice_of_256_is_lost` | >= 0.15 |
# | and certainty, in nats | `twice_of_256_in_nats` | >= 1 |
# | real text: weight on the two neighbours | `weight_next_door` | >= 0.6 |
# | none on the hidden character | `itself_gets_nothing` | <= 0 |
# | better than pairs, nats | `head_beats_left_neighbour` | >= 0.02 |
# | worse than both neighbours without order, nats | `bag_beats_head` | >= 0.05 |
# | much worse than with their order, nats | `order_beats_bag` | >= 0.3 |
# | (07.32) scores without projections are symmetric | `bare_scores_are_symmetric` | <= 1e-12 |
# | (07.32) sizes d and the root of d | `sizes_of_self_scores` | <= 0.05 |
# | S1: self-weight at d = 64 and 256, scaled | `self_weight_even_when_scaled` | >= 0.9 |
# | with projections | `self_weight_with_projections` | <= 0.12 |
# | S2:72, D = 1024: largest weight without scale | `bare_largest_weight_at_1024` | >= 0.9 |
# | entropy share there | `bare_share_at_1024` | <= 0.06 |
# | Jacobian, scaled over bare | `bare_jacobian_is_smaller` | >= 2 |
# | (07.33) S2's matrix is softmax(k q^T) | `s2_names_exchanged` | <= 1e-9 |
# | and not softmax(q k^T) | `s2_is_not_attention` | >= 0.2 |
# | its sums over the keys are not 1 | `s2_query_sums_are_not_one` | >= 0.2 |
# | cross-attention: queries and keys do not fit | `s2_wrong_shape` | >= 1 |
# | (07.34) columns: v att^T | `columns_need_the_transpose` | <= 1e-12 |
# | att v is silently wrong (median) | `columns_silently_wrong` | >= 0.8 |
# | 0.7311, 0.2797, 0.0414, 0.00265 | `cap_numbers` | <= 1.5e-3 |
# | (07.35) the cap is reached | `cap_is_reached` | <= 1e-12 |
# | (07.35) and never exceeded | `cap_holds` | <= 1e-12 |
# | softmax twice: entropy share | `twice_is_nearly_uniform` | >= 0.995 |
# | softmax twice: gradient smaller by | `twice_gradient_smaller` | >= 30 |
# | heads by features: each sees the first token | `each_head_sees_the_first_token` | >= 1e-4 |
# | pieces of the text do not | `pieces_do_not` | <= 0 |
#
# **Not checked:** the timings, which depend on the machine; (07.13) for dependent components, where
# it does not hold; what S2:72-75 does to generation one token at a time; that a second head would
# tell the neighbours apart; float32, in which the same formulas hold to fewer digits; and the
# experiments with other seeds, on which the exact numbers depend.
