# %% [markdown]
# # 16 · Pre-training on real text
#
# ## Question
#
# What exactly does pre-training minimise, how do we know that the loop really does that, and how
# much of the loss that it reports can be believed?
#
# - **Read before:** [03](03_softmax_cross_entropy.ipynb) for cross-entropy; variance of a mean
# - **Package file:** `minigpt/train.py` (`Trainer`), `evaluate.py`, `data/corpus.py`
# - **Minutes:** 75 to read, 145 for the exercises
# - **Runs in:** under 45 seconds on one core

# %% role="setup"
import csv
import inspect
import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from minigpt import data, reference
from minigpt import functional as F
from minigpt.backend import to_numpy, xp
from minigpt.baselines.ngram import NGram
from minigpt.checkpoint import load_checkpoint
from minigpt.cost import flops_per_token
from minigpt.data.corpus import Corpus, deduplicate, normal, paragraphs, split_documents
from minigpt.drawing import (
    BLUE,
    FIGURES,
    GREEN,
    GREY,
    RED,
    plt,
    save_figure,
    style,
)
from minigpt.evaluate import nats_per_token
from minigpt.lab import attempt, central_differences, check, rel_error, show_table, witnesses
from minigpt.model import GPT, GPTConfig
from minigpt.optim import SGD, Adam, clip_grad_norm
from minigpt.schedules import warmup_cosine
from minigpt.tensor import no_grad
from minigpt.tokenizer import CharTokenizer, train_bpe
from minigpt.train import TrainConfig, Trainer

style()
rng = np.random.default_rng(16)

# %% [markdown]
# ## Intuition
#
# A text has four tokens to be predicted. A model gave to those that came the probabilities
# $\frac12,\frac14,\frac12,\frac18$. Charge each with $-\log_2$ of it: 1, 2, 1 and 3 bits. What
# pre-training makes small is the mean,
#
# $$\frac{1+2+1+3}4=\frac74\ \text{bits per token}=\frac74\ln2=1.213\ \text{nats per token}.
# \tag{16.1}$$
#
# If the four tokens spell seven characters, that is exactly 1 bit per character: 7 bits for 7
# characters. Another tokenizer may cut the same seven characters into two tokens. The mean per
# token changes; the 7 bits do not have to.
#
# Now let the memory be too small for four tokens at once, and take two *micro-batches*. Cut them
# as $\{1,2\},\{1,3\}$: their means are $\frac32$ and $2$, and the mean of the two is $\frac74$
# again. Cut them as $\{1\},\{2,1,3\}$: the means are $1$ and $2$, and
#
# $$\tfrac12(1+2)=\tfrac32\ne\tfrac74,\qquad\tfrac14\cdot1+\tfrac34\cdot2=\tfrac74. \tag{16.2}$$
#
# A mean of means is the mean only if each counts by its size. Nothing crashes if you forget that,
# and the loss still falls. Most mistakes of a training loop are of this kind, so this chapter is
# about being exact: what is minimised, what is an estimate of it, and how far off that may be.

# %%
bits = -np.log2([1 / 2, 1 / 4, 1 / 2, 1 / 8])
print("bits", bits, "  mean", bits.mean(), "  nats", bits.mean() * math.log(2))
check("four_tokens", [abs(bits.mean() - 7 / 4), abs(bits.mean() * math.log(2) - 1.213)],
      at_most=5e-4)
check("seven_characters", abs(bits.sum() / 7 - 1), at_most=1e-15)
small, large = bits[:1], bits[1:]
equal = (bits[:2].mean() + bits[2:].mean()) / 2
unequal = (small.mean() + large.mean()) / 2
weighted = len(small) / 4 * small.mean() + len(large) / 4 * large.mean()
check("mean_of_means", [abs(equal - 7 / 4), abs(weighted - 7 / 4)], at_most=1e-15)
check("unequal_parts_mislead", abs(unequal - 7 / 4), at_least=0.2)

# %% [markdown]
# ## Derivation
#
# | symbol | shape | meaning |
# |---|---|---|
# | $s$ | $(N)$ | the training text as token ids, $s_0,\dots,s_{N-1}$, each in $0..V-1$ |
# | $V$, $T$, $B$ | numbers | vocabulary, block size, windows in a batch |
# | $M=N-T$ | number | windows of $T+1$ tokens; window $i$ starts at $s_i$ |
# | $\theta$ | $(P)$ | all parameters |
# | $p_\theta(v\mid h)$ | number | the model's probability of token $v$ after the context $h$ |
# | $\ell_i$, $L$ | numbers | mean nats per token of window $i$; mean over all windows |
# | $g_i=\nabla\ell_i$ | $(P)$ | gradient of one window |
# | $\mathbb E$, $\mathrm{Var}$ | | mean and variance over what is random |
#
# ### What is minimised
#
# A window is $T$ predictions at once: each of its tokens is predicted from those before it.
#
# $$\ell_i(\theta)=-\frac1T\sum_{k=1}^{T}\ln p_\theta(s_{i+k}\mid s_i,\dots,s_{i+k-1}),\qquad
# L(\theta)=\frac1M\sum_{i=0}^{M-1}\ell_i(\theta).$$
#
# Let $c_{n,k}=-\ln p_\theta(s_n\mid s_{n-k},\dots,s_{n-1})$ be the charge for token $n$ when $k$
# tokens are seen before it. Place $k$ of window $i$ is charged $c_{i+k,k}$. Exchange the sums:
#
# $$L(\theta)=\frac1T\sum_{k=1}^{T}\ \frac1M\sum_{i=0}^{M-1}c_{i+k,k}. \tag{16.3}$$
#
# So **pre-training asks for a good prediction from every context length**, 1 to $T$, all of equal
# weight; the mean length is $(T+1)/2$. (A token far from the ends stands in $T$ windows, once at
# each place.) It also says why a training loss cannot be set beside a held-out loss that shows
# each token a long context: they are different averages.
#
# In the code, `.numpy()` brings what a model says to NumPy, to be worked on here: the package may
# compute on a GPU, whose arrays do not turn into NumPy's by themselves. `xp.asarray` is the way
# back, `to_numpy` the way out for a gradient.


# %%
def cut(ids, starts, T):
    """Windows at starts (B,) -> idx (B, T), targets (B, T): the same one place on."""
    rows = ids[np.asarray(starts)[:, None] + np.arange(T + 1)]
    return rows[:, :-1], rows[:, 1:]


def charges(model, idx, targets):
    """-ln p of each target, in nats. idx, targets (B, T) -> (B, T)."""
    with no_grad():
        logp = F.log_softmax(model(idx)).numpy()
    return -np.take_along_axis(logp, targets[..., None], -1)[..., 0]


tiny = GPT(GPTConfig(5, 6, n_layer=1, n_head=2, n_embd=8), rng, dtype="float64")  # V = 5, T = 6
for p in tiny.parameters():  # away from its quiet start
    p.data += xp.asarray(0.3 * rng.normal(size=p.shape))
text = rng.integers(0, 5, 40)
by_window = charges(tiny, *cut(text, np.arange(34), 6)).mean()  # M = 40 - 6
c = [[charges(tiny, text[None, i : i + k], text[None, i + 1 : i + k + 1])[0, -1]
      for i in range(34)] for k in range(1, 7)]  # c[k - 1][i]: token i + k after k tokens
check("average_over_context_lengths", abs(np.mean(c) / by_window - 1), at_most=1e-12)

# %% [markdown]
# ### Maximum likelihood
#
# The chain rule of probability makes one distribution over whole sequences out of the next-token
# distributions, with no assumption at all:
#
# $$P_\theta(s_1,\dots,s_n\mid s_0)=\prod_{k=1}^{n}p_\theta(s_k\mid s_0,\dots,s_{k-1}),\qquad
# \sum_{s_1,\dots,s_n}P_\theta(s_1,\dots,s_n\mid s_0)=1. \tag{16.4}$$
#
# (Sum over $s_n$ first: its factor sums to 1, and so on down.) Take the logarithm:
#
# $$-\ln P_\theta(s_1,\dots,s_n\mid s_0)=\sum_{k=1}^{n}-\ln p_\theta(s_k\mid s_0,\dots,s_{k-1}).
# \tag{16.5}$$
#
# The least nats per token and the greatest likelihood of the text are the same $\theta$. Nobody
# labelled anything: the text is its own target.

# %%
every = np.array(np.meshgrid(*[np.arange(5)] * 3, indexing="ij")).reshape(3, -1).T  # (125, 3)
rows = np.concatenate([np.full((125, 1), 2), every], axis=1)  # s_0 = 2
nats = charges(tiny, rows[:, :-1], rows[:, 1:])  # (125, 3)
check("sequences_sum_to_one", abs(np.exp(-nats.sum(1)).sum() - 1), at_most=1e-12)
one_by_one = [1.0, 1.0]  # two sequences, one token at a time, and in one product
for j, row in enumerate(rows[[17, 99]]):
    for k in range(1, 4):
        with no_grad():
            one_by_one[j] *= F.softmax(tiny(row[None, :k])).numpy()[0, -1, row[k]]
check("likelihood_and_nats", rel_error(-np.log(one_by_one), nats[[17, 99]].sum(1)), at_most=1e-12)

# %% [markdown]
# ### A floor that no model passes
#
# Let the text come from a *source*: the context $h$ occurs with probability $q(h)$, and then $v$
# follows with probability $q(v\mid h)$. Write $\ln p=\ln q-\ln(q/p)$ in the expected charge of a
# model $p$:
#
# $$-\sum_hq(h)\sum_vq(v\mid h)\ln p(v\mid h)
# =\underbrace{-\sum_hq(h)\sum_vq(v\mid h)\ln q(v\mid h)}_{H}
# +\sum_hq(h)\underbrace{\sum_vq(v\mid h)\ln\frac{q(v\mid h)}{p(v\mid h)}}_{\mathrm{KL}_h}.
# \tag{16.6}$$
#
# $H$ is the entropy of the source, a property of the text alone. And from $\ln x\le x-1$
#
# $$-\mathrm{KL}_h=\sum_vq(v\mid h)\ln\frac{p(v\mid h)}{q(v\mid h)}
# \le\sum_vq(v\mid h)\left(\frac{p(v\mid h)}{q(v\mid h)}-1\right)=1-1=0, \tag{16.7}$$
#
# so **no model comes below $H$ in expectation on text that it has not seen**. A loss below the
# floor is not a triumph. It is a leak.
#
# To use this we need a source whose floor is known. Let it be a Markov chain of 8 letters. Row
# $h$ of the matrix $Q$ $(8,8)$ holds $q(\cdot\mid h)$, and $\pi$ $(8)$, with $\pi Q=\pi$, is how
# often each letter occurs. This source returns whenever a mistake must be caught.

# %%
Q = 0.95 * rng.dirichlet(np.full(8, 0.35), 8) + 0.05 / 8  # (8, 8), rows sum to 1
pi = np.linalg.matrix_power(Q, 500)[0]  # (8,)
FLOOR = -(pi[:, None] * Q * np.log(Q)).sum()
print(f"floor {FLOOR:.4f} nats per token; ln 8 = {math.log(8):.4f}")


def source_text(n, rng):
    """n letters of the chain, as ids 0..7."""
    ladder, out, u = np.cumsum(Q, 1), np.zeros(n, np.int64), rng.random(n)
    for i in range(1, n):
        out[i] = min(np.searchsorted(ladder[out[i - 1]], u[i]), 7)
    return out


excess = []
for _ in range(200):
    model = rng.dirichlet(np.full(8, 0.5), 8) + 1e-3
    model /= model.sum(1, keepdims=True)
    kl = (Q * np.log(Q / model)).sum(1)  # (8,) one a context
    excess.append([-(pi[:, None] * Q * np.log(model)).sum() - FLOOR, pi @ kl, kl.min()])
excess = np.array(excess)
check("entropy_plus_kl", np.abs(excess[:, 0] - excess[:, 1]), at_most=1e-12)
check("kl_is_not_negative", -excess[:, 2].min(), at_most=0)
long_text = source_text(20_000, rng)
seen = -np.log(Q[long_text[:-1], long_text[1:]])
check("the_text_has_that_entropy", abs(seen.mean() - FLOOR), at_most=0.05)

# %% [markdown]
# ### Below the floor: the text that was trained on
#
# The floor holds in expectation, for fresh text. The *training* loss may pass it. Take one
# context, drop it from the notation, and let it occur $N$ times. The shares of the $V$ outcomes
# in these $N$ are $\hat q$ $(V)$. By (16.6) with $\hat q$ as the source, the model with the least
# training loss is $\hat q$ itself, and that loss is its entropy $H(\hat q)$. Score the *true* $q$
# on the training text by the same formula:
# $-\sum_v\hat q_v\ln q_v=H(\hat q)+\mathrm{KL}(\hat q\Vert q)$. The mean of the left side is
# $H(q)$, because $\mathbb E\,\hat q=q$. So
#
# $$\mathbb E\,H(\hat q)=H(q)-\mathbb E\,\mathrm{KL}(\hat q\Vert q),\qquad
# \mathbb E\Big[-\sum_vq_v\ln\hat q_v\Big]=H(q)+\mathbb E\,\mathrm{KL}(q\Vert\hat q). \tag{16.8}$$
#
# Training loss below the floor, held-out loss above it. How far? To second order both divergences
# are $\frac12\sum_v(\hat q_v-q_v)^2/q_v$, and $\mathrm{Var}(\hat q_v)=q_v(1-q_v)/N$, so
#
# $$\mathbb E\,\mathrm{KL}\approx\frac12\sum_v\frac{1-q_v}N=\frac{V-1}{2N}. \tag{16.9}$$
#
# The gap between the two losses is $(V-1)/N$: **free parameters over tokens**. A GPT is no table,
# but the rule of thumb stays: what over-fits is many parameters on few tokens.

# %%
q = rng.dirichlet(np.full(6, 2.0)) * 0.7 + 0.05  # V = 6, sums to 1
counts = rng.multinomial(400, q, size=20_000)  # N = 400, drawn 20,000 times
q_hat = counts / 400
kl_train = (np.where(counts, q_hat * np.log(np.maximum(q_hat, 1e-9) / q), 0)).sum(1)
entropy = -(q * np.log(q)).sum()
entropy_hat = -(np.where(counts, q_hat * np.log(np.maximum(q_hat, 1e-9)), 0)).sum(1)
held_out = -(q * np.log(q_hat)).sum(1)
kl_held_out = (q * np.log(q / q_hat)).sum(1)
predicted = 5 / 800
show_table(["over or under the floor", "measured", "(V - 1) / 2N"],
           [["training", (entropy_hat - entropy).mean(), -predicted],
            ["held out", (held_out - entropy).mean(), predicted]])
left = [entropy_hat.mean() + kl_train.mean(), held_out.mean() - kl_held_out.mean()]
check("training_goes_below", np.abs(np.array(left) - entropy), at_most=1e-3)
check("gap_is_parameters_over_tokens",
      np.abs(np.array([kl_train.mean(), kl_held_out.mean()]) / predicted - 1), at_most=0.05)

# %% [markdown]
# ### Where the loss starts
#
# A model that knows nothing gives all tokens the same logit, so each has probability $1/V$:
#
# $$L=-\ln\frac1V=\ln V. \tag{16.10}$$
#
# A fresh network's logits are small but not equal. Let them be independent of the target, with
# mean 0 and variance $\sigma^2$. The charge is $\ln\sum_je^{z_j}-z_y$, and $\mathbb E\,z_y=0$.
# Expand: $\ln\sum_je^{z_j}=\ln V+\bar z+\frac12\,\overline{(z-\bar z)^2}+\dots$, and the mean of
# the last term is $\sigma^2(1-1/V)$:
#
# $$\mathbb E\,L\approx\ln V+\frac{\sigma^2}2\left(1-\frac1V\right). \tag{16.11}$$
#
# A first loss *above* $\ln V$ says how large the initial logits are: at 1 nat above,
# $\sigma\approx1.4$, and the network is sure of nonsense. A first loss *below* $\ln V$ says that
# the model sees what it should predict.

# %%
fresh = GPT(GPTConfig(94, 16, n_layer=2, n_head=4, n_embd=64), rng)
idx = rng.integers(0, 94, (16, 17))
start = charges(fresh, idx[:, :-1], idx[:, 1:]).mean()
print(f"a fresh GPT: {start:.4f}; ln 94 = {math.log(94):.4f}")
check("starts_at_ln_v", abs(start / math.log(94) - 1), at_most=0.01)
errors = []
for V, sigma in ((10, 0.3), (94, 0.5), (94, 0.2)):
    z = sigma * rng.normal(size=(400_000 // V, V))
    loss = (np.log(np.exp(z).sum(1)) - z.mean(1)).mean()  # the mean over all V targets
    errors.append(abs((loss - math.log(V)) / (sigma**2 / 2 * (1 - 1 / V)) - 1))
check("large_logits_cost", errors, at_most=0.05)

# %% [markdown]
# ### The gradient of a minibatch
#
# The full gradient $\nabla L=\frac1M\sum_ig_i$ needs every window. Draw $B$ starts
# $i_1,\dots,i_B$ instead, independently and each start equally likely, and average:
# $G=\frac1B\sum_bg_{i_b}$. The mean of one term is $\sum_i\frac1Mg_i=\nabla L$, so
#
# $$\mathbb E\,G=\frac1B\sum_{b=1}^{B}\mathbb E\,g_{i_b}=\nabla L. \tag{16.12}$$
#
# **Unbiased for every $B$**, one included. What $B$ buys is less scatter. Let
# $\tau=\frac1M\sum_i\lvert g_i-\nabla L\rvert^2$, the variance of one window's gradient summed
# over all $P$ entries, and $d_b=g_{i_b}-\nabla L$ the deviation of draw $b$. In
# $\mathbb E\lvert G-\nabla L\rvert^2=\frac1{B^2}\sum_{b,b'}\mathbb E\,d_b\cdot d_{b'}$ the terms
# with $b\ne b'$ vanish, as the draws are independent and each $d_b$ has mean 0. Left are $B$ terms
# of $\tau$:
#
# $$\mathbb E\lvert G-\nabla L\rvert^2=\frac\tau B. \tag{16.13}$$
#
# Four times the batch, half the error: the reason why large batches pay less and less. Drawn
# *without* replacement (an epoch, shuffled) two different draws repel each other. For $b\ne b'$,
# the pair's mean inner product is $-\tau/(M-1)$, since all deviations sum to zero. Together
# $\frac1{B^2}\left(B\tau-B(B-1)\frac\tau{M-1}\right)$, or
#
# $$\mathbb E\lvert G-\nabla L\rvert^2=\frac\tau B\cdot\frac{M-B}{M-1}, \tag{16.14}$$
#
# which is the same as long as $B\ll M$, and 0 for $B=M$. Last, add the mean back:
#
# $$\mathbb E\lvert G\rvert^2=\lvert\nabla L\rvert^2+\frac\tau B. \tag{16.15}$$
#
# The norm that a training log shows is not that of the gradient. Signal and noise are equal at
# $B=\tau/\lvert\nabla L\rvert^2$, the *noise scale* (McCandlish et al. 2018, arXiv:1812.06162).
# Below it, doubling the batch is nearly as good as doubling the steps. Far above it is waste.


# %%
def set_flat(model, x):
    """Put the numbers x (P,) into the parameters, in their order."""
    ends = np.cumsum([p.size for p in model.parameters()])
    for p, part in zip(model.parameters(), np.split(x, ends[:-1]), strict=True):
        p.data[...] = xp.asarray(part.reshape(p.shape))


def get_flat(model):
    return np.concatenate([p.numpy().reshape(-1) for p in model.parameters()])  # (P,)


def loss_and_gradient(model, idx, targets, rng=None):
    """Mean nats per token, and its gradient (P,)."""
    for p in model.parameters():
        p.grad = None
    loss = F.cross_entropy(model(idx, rng), targets)
    loss.backward()
    grads = [to_numpy(p.grad).reshape(-1) for p in model.parameters()]
    return loss.item(), np.concatenate(grads)


walker = GPT(GPTConfig(8, 8, n_layer=1, n_head=2, n_embd=12), rng, dtype="float64")
short_text = source_text(208, rng)  # M = 200 windows of T = 8
windows = [cut(short_text, [i], 8) for i in range(200)]
each = np.array([loss_and_gradient(walker, *w)[1] for w in windows])  # (M, P)
full = loss_and_gradient(walker, *cut(short_text, np.arange(200), 8))[1]  # (P,)
check("mean_of_window_gradients", rel_error(each.mean(0), full), at_most=1e-12)


# %%
def scatter(B, replace, draws=3000):
    """Mean of G (P,) over many batches, mean |G - full|^2, and mean |G|^2."""
    total, off, size = np.zeros_like(full), 0.0, 0.0
    for _ in range(draws // 500):
        if replace:
            weights = rng.multinomial(B, np.full(200, 1 / 200), size=500) / B  # (500, M)
        else:
            weights = (rng.random((500, 200)).argsort(1) < B) / B
        G = weights @ each  # (500, P)
        total += G.sum(0) / draws
        off, size = off + ((G - full) ** 2).sum() / draws, size + (G**2).sum() / draws
    return total, off, size


tau, signal = ((each - full) ** 2).sum(1).mean(), (full**2).sum()
SIZES = (1, 4, 16, 64, 160)
with_, without = ([scatter(B, replace) for B in SIZES] for replace in (True, False))
shrink = np.array([(200 - B) / 199 for B in SIZES])
show_table(["B", "with replacement", "tau / B", "without", "(16.14)"],
           [[B, w[1], tau / B, o[1], tau / B * s]
            for B, w, o, s in zip(SIZES, with_, without, shrink, strict=True)])
print(f"noise scale of this fresh network: B = {tau / signal:.1f}")
bias = [np.linalg.norm(w[0] - full) / (tau / B / 3000) ** 0.5
        for B, w in zip(SIZES, with_, strict=True)]
check("unbiased_for_every_batch", bias, at_most=3)  # in standard errors of 3,000 draws
ratios = np.array([w[1] * B / tau for B, w in zip(SIZES, with_, strict=True)])
check("variance_falls_as_one_over_b", np.abs(ratios - 1), at_most=0.1)
ratios = np.array([o[1] * B / tau for B, o in zip(SIZES, without, strict=True)])
check("without_replacement", np.abs(ratios / shrink - 1), at_most=0.1)
norms = [w[2] / (signal + tau / B) for B, w in zip(SIZES, with_, strict=True)]
check("norm_is_signal_plus_noise", np.abs(np.array(norms) - 1), at_most=0.1)

# %%
fig, axes = plt.subplots(figsize=(7, 4))
line = np.array([1, 200.0])
axes.plot(line, tau / line, color=GREY, lw=1)
axes.plot(SIZES, [w[1] for w in with_], "o", color=BLUE)
axes.plot(SIZES, [o[1] for o in without], "s", color=RED, mfc="none", mew=2)
axes.axhline(signal, color=GREEN, ls="--", lw=1.5)
axes.text(200, signal * 1.15, "squared length of the full gradient", color=GREEN, ha="right")
axes.text(20, tau / 13, "with replacement: slope -1", color=BLUE)
axes.annotate("without: falls to 0\nwhen B reaches M = 200", (160, without[-1][1]),
              (13, without[-1][1] * 0.8), color=RED,
              arrowprops={"arrowstyle": "->", "color": GREY})
axes.set(xscale="log", yscale="log", xlabel="windows in a batch, B",
         ylabel="squared error of the\nminibatch gradient",
         title="Four times the batch: half the error, a quarter of its square")
axes.set_xticks(SIZES, [str(B) for B in SIZES])
axes.minorticks_off()
save_figure(fig, "16_minibatch.svg")
plt.show()

# %% [markdown]
# ### Gradient accumulation
#
# Let a batch of $n$ tokens be cut into $K$ micro-batches of $n_1,\dots,n_K$ tokens, with mean
# losses $\ell^{(1)},\dots,\ell^{(K)}$. The sum of the charges in part $k$ is $n_k\ell^{(k)}$, so
#
# $$L_{\mathrm{batch}}=\sum_{k=1}^{K}\frac{n_k}n\,\ell^{(k)},\qquad
# \nabla L_{\mathrm{batch}}=\sum_{k=1}^{K}\frac{n_k}n\,\nabla\ell^{(k)}. \tag{16.16}$$
#
# Gradients add up in `.grad` over backward passes anyway. All that is left to do is to multiply
# each loss by $n_k/n$ before its backward pass. With equal parts that is
#
# $$\nabla L_{\mathrm{batch}}=\frac1K\sum_{k=1}^{K}\nabla\ell^{(k)}\qquad(n_1=\dots=n_K).
# \tag{16.17}$$
#
# It is the *same* gradient as that of one large batch, not a similar one. Only activations cost
# memory by the token, and they are freed after each part.
#
# **Clipping comes after the sum.** Clipping at $c$ replaces $g$ by $a(g)\,g$ with
# $a(g)=\min(1,c/\lvert g\rvert)$. Applied to each part it gives
#
# $$\frac1K\sum_ka(g_k)\,g_k\ne a(\bar g)\,\bar g,\qquad\bar g=\frac1K\sum_kg_k: \tag{16.18}$$
#
# long parts lose their say, and if all are longer than $c$, every part counts as a unit vector.
# That can turn the direction round. One parameter, four parts with gradients $-1,-1,-1$ and $9$,
# and $c=1$:
#
# $$\bar g=\tfrac64>0,\qquad\frac14\sum_ka(g_k)\,g_k=\frac{-1-1-1+1}4=-\tfrac12<0. \tag{16.19}$$
#
# **Adam does not feel a wrong factor.** With $m$ and $v$ the running means of $g$ and $g^2$,
# multiply every gradient by the same $a>0$: $m$ becomes $am$, $v$ becomes $a^2v$, and
#
# $$\frac{am}{\sqrt{a^2v}+\varepsilon}=\frac m{\sqrt v+\varepsilon/a}\approx\frac m{\sqrt v}.
# \tag{16.20}$$
#
# So a loop that forgets the $1/K$ hands Adam a gradient $K$ times too long and trains as before,
# until something meets the gradient that knows its size: the clipping bound, SGD, an L2 penalty.


# %%
def clipped(g, c):
    return g * min(1, c / np.linalg.norm(g))


idx, targets = cut(short_text, rng.integers(0, 200, 12), 8)
loss, whole = loss_and_gradient(walker, idx, targets)
for name, sizes in (("equal", (3, 3, 3, 3)), ("unequal", (1, 2, 4, 5))):
    ends = np.cumsum(sizes)[:-1]
    parts = [loss_and_gradient(walker, i, t)
             for i, t in zip(np.split(idx, ends), np.split(targets, ends), strict=True)]
    share = np.array(sizes) / 12  # n_k / n: every window has T tokens
    print(f"{name}: losses of the parts", np.round([part[0] for part in parts], 3))
    if name == "equal":
        plain = sum(part[1] for part in parts) / 4
        check("equal_parts_average", rel_error(plain, whole), at_most=1e-12)
    else:
        sums = [s * part[1] for s, part in zip(share, parts, strict=True)]
        values = share @ [part[0] for part in parts]
        check("unequal_parts_are_weighted", [rel_error(sum(sums), whole), abs(values / loss - 1)],
              at_most=1e-12)
        check("unequal_parts_must_be", rel_error(sum(p[1] for p in parts) / 4, whole),
              at_least=0.05)
    if name == "equal":
        late = clipped(whole, 0.1)
        early = sum(clipped(part[1], 0.1) for part in parts) / 4
        check("clip_each_is_another_vector", rel_error(early, late), at_least=0.05)
        a = [min(1, 0.1 / np.linalg.norm(part[1])) for part in parts]
        formula = sum(a_k * part[1] for a_k, part in zip(a, parts, strict=True)) / 4
        check("clip_each_as_written", rel_error(early, formula), at_most=1e-12)

# %%
four = [np.array([v]) for v in (-1.0, -1.0, -1.0, 9.0)]
turned = [sum(four)[0] / 4, sum(clipped(g, 1) for g in four)[0] / 4]
check("clip_each_turns_round", rel_error(turned, [1.5, -0.5]), at_most=1e-12)


def adam_update(gradients, eps, betas=(0.9, 0.99)):
    """The last update direction of Adam after these gradients (n, P)."""
    m = v = 0.0
    for g in gradients:
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    n = len(gradients)
    return m / (1 - betas[0] ** n) / (np.sqrt(v / (1 - betas[1] ** n)) + eps)


history = rng.normal(size=(20, 50)) * 10.0 ** rng.uniform(-3, 0, 50)
exact = rel_error(adam_update(4 * history, 1e-3), adam_update(history, 1e-3 / 4))
check("factor_moves_eps_alone", exact, at_most=1e-12)
check("adam_hides_a_factor", rel_error(adam_update(4 * history, 1e-8), adam_update(history, 1e-8)),
      at_most=1e-4)

# %% [markdown]
# ### A held-out loss, and how far to trust it
#
# Score $n$ held-out tokens: charges $x_1,\dots,x_n$, mean $\bar x$. It estimates the loss on all
# text of the kind. If the charges were independent with variance $\sigma^2$, its standard error
# would be $\sigma/\sqrt n$. They are not: a hard word is hard for several characters. Let
# $\rho_k$ be the correlation of charges that are $k$ apart. Of the $n^2$ pairs in the double sum
# for the variance, $2(n-k)$ are $k$ apart:
#
# $$\mathrm{Var}(\bar x)=\frac{\sigma^2}n\left(1+2\sum_{k=1}^{n-1}\Big(1-\frac kn\Big)\rho_k\right).
# \tag{16.21}$$
#
# Estimating every $\rho_k$ is hopeless. Instead cut the charges into $m$ blocks, long enough that
# neighbours hardly matter, and treat the block means $y_1,\dots,y_m$ as independent:
#
# $$\mathrm{SE}^2=\frac1m\cdot\frac1{m-1}\sum_{j=1}^{m}(y_j-\bar y)^2,\qquad
# \mathbb E\,\mathrm{SE}^2\approx\mathrm{Var}(\bar x). \tag{16.22}$$
#
# Documents are natural blocks, of unequal length. Let document $d$ of $D$ have $n_d$ tokens and
# charges of sum $S_d$. The mean is a ratio, $\bar x=\sum_dS_d/\sum_dn_d$, and what scatters is
# $r_d=S_d-\bar x\,n_d$ (their sum is 0 by construction). To first order
#
# $$\mathrm{SE}^2=\frac1{n^2}\cdot\frac D{D-1}\sum_{d=1}^{D}(S_d-\bar x\,n_d)^2. \tag{16.23}$$
#
# With equal lengths this is (16.22). To compare two models on the same text take the same formula
# on the *difference* of their charges: what is hard is hard for both, and cancels.

# %%
phi, n, runs = 0.8, 1000, 2000  # charges that remember: rho_k = 0.8**k
x = rng.normal(size=(runs, n))
for i in range(1, n):
    x[:, i] = phi * x[:, i - 1] + (1 - phi**2) ** 0.5 * x[:, i]
k = np.arange(1, n)
formula = (1 + 2 * ((1 - k / n) * phi**k).sum()) / n
check("variance_with_correlation", abs(x.mean(1).var() / formula - 1), at_most=0.15)
naive = x.var(1).mean() / n
blocks = x.reshape(runs, 20, 50).mean(2)  # 20 blocks of 50
by_blocks = (blocks.var(1, ddof=1) / 20).mean()
print(f"standard error: true {formula**0.5:.4f}, naive {naive**0.5:.4f}, "
      f"blocks {by_blocks**0.5:.4f}")
check("blocks_see_it", abs(by_blocks / formula - 1), at_most=0.25)
check("naive_error_is_too_small", (formula / naive) ** 0.5, at_least=2)


# %%
def error_by_documents(charge, document):
    """Mean of charge (n,), and its standard error by (16.23). document (n,): which one, 0..D-1."""
    S, size = np.bincount(document, charge), np.bincount(document)
    D = len(size)
    mean = S.sum() / size.sum()
    r = S - mean * size
    return mean, (D / (D - 1) * (r**2).sum()) ** 0.5 / size.sum()


spread = []  # 400 held-out sets of 60 documents, whose charges share a mood
for _ in range(400):
    size = rng.integers(5, 60, 60)
    document = np.repeat(np.arange(60), size)
    spread.append(error_by_documents((2 + rng.normal(size=60))[document]
                                     + rng.normal(size=len(document)), document))
means, errors = np.array(spread).T
check("documents_see_it", abs((errors**2).mean() / means.var() - 1), at_most=0.25)
x = rng.normal(size=(30, 40))
by_blocks = x.mean(1).std(ddof=1) / 30**0.5
same = error_by_documents(x.reshape(-1), np.repeat(np.arange(30), 40))[1]
check("equal_documents_are_blocks", abs(same / by_blocks - 1), at_most=1e-12)

# %% [markdown]
# ### Bits per character, and why perplexities do not compare
#
# A tokenizer cuts a text of $c$ characters into $n$ tokens, and a model charges them
# $x_1,\dots,x_n$ nats. By (16.5) their sum is $-\ln P(\text{text})$, which has no tokens in it any
# more. So share it among the characters:
#
# $$\frac{\text{bits}}{\text{character}}=\frac1{\ln2}\cdot\frac{\sum_kx_k}c
# =\frac1{\ln2}\cdot\frac{\text{nats per token}}{\text{characters per token}},\qquad
# \frac{\text{characters}}{\text{token}}=\frac cn. \tag{16.24}$$
#
# Bits per character compare across tokenizers. *Perplexity*, $e^{\text{nats per token}}$, does
# not: it is "between how many tokens is the model torn", and tokens differ. Take any model over
# characters, and let the new tokens be *pairs* of characters, with
# $p'(ab\mid h)=p(a\mid h)\,p(b\mid ha)$. Nothing was learned or lost. There are $n/2$ tokens, each
# charged twice as much on average:
#
# $$\mathrm{perplexity}'=e^{2\bar x}=\mathrm{perplexity}^2,\qquad
# \text{bits per character}'=\text{bits per character}. \tag{16.25}$$
#
# (One caution: a token model gives probability to several ways of cutting the same text, and is
# charged for one of them. Its bits per character are an upper bound, and on text unlike the
# training text not always a close one; Cao and Rimell 2021, arXiv:2109.02550.)
#
# Two real models on the default corpus: a 5-gram over characters, and a 3-gram over 500 byte-pair
# tokens.

# %%
corpus = data.load("facts")
parts = data.split(corpus)
tokenizer = CharTokenizer.from_text(corpus.text)
V = tokenizer.vocab_size
train_ids, val_ids = tokenizer.encode(parts.train), tokenizer.encode(parts.val)
grams = NGram(6, V).fit(train_ids)
bpe = train_bpe(parts.train, 500)
val_bpe = bpe.encode(parts.val)
by_tokens = NGram(3, 500).fit(bpe.encode(parts.train)).nats(val_bpe)  # (n,)
rows = []
for name, nats in (("5-gram, characters", grams.nats_by_order(val_ids)[4]),
                   ("3-gram, 500 byte pairs", by_tokens)):
    bits = nats.sum() / len(parts.val) / math.log(2)
    rows.append([name, nats.mean(), len(parts.val) / len(nats), math.exp(nats.mean()), bits])
show_table(["model", "nats/token", "characters/token", "perplexity", "bits/character"], rows)
formula = [row[1] / row[2] / math.log(2) - row[4] for row in rows]
check("bits_per_character", np.abs(formula), at_most=1e-12)
likelihood = 1.0  # of the first 40 characters, as one product of probabilities
for k in range(40):
    likelihood *= grams.probs(val_ids[:k])[val_ids[k]]
first = grams.nats(val_ids[:40]).mean() / math.log(2)  # one character a token
check("bits_are_minus_log_two_of_p", abs(-math.log2(likelihood) / 40 / first - 1), at_most=1e-12)
check("perplexity_looks_worse", rows[1][3] / rows[0][3], at_least=1.5)
check("though_its_bits_are_fewer", rows[0][4] - rows[1][4], at_least=0.02)

even = len(val_ids) // 2 * 2
x = grams.nats_by_order(val_ids[:even])[1]  # a bigram
pairs = x.reshape(-1, 2).sum(1)  # the same model, two characters a token
perplexity = [math.exp(x.mean()), math.exp(pairs.mean())]
print("bigram: perplexity {:.2f} by characters, {:.2f} by pairs".format(*perplexity))
check("pairs_square_the_perplexity", [abs(perplexity[0] ** 2 / perplexity[1] - 1),
      abs(x.sum() - pairs.sum()) / x.sum()], at_most=1e-12)

# %% [markdown]
# The second model has four times the perplexity of the first, and is the better one.
#
# ### Choosing the best makes it look better than it is
#
# Validation is for choosing: the step to stop at, the learning rate, the model. But the lowest of
# several noisy numbers is low partly by luck. Let $K$ candidates be *equally good*, all of true
# loss $\mu$, and let their validation losses be $X_k=\mu+\sigma Z_k$ with independent standard
# normal $Z_k$. For every $t>0$, by Jensen's inequality and because a maximum is below the sum,
# $e^{t\,\mathbb E\max Z}\le\mathbb E\,e^{t\max Z}\le\sum_k\mathbb E\,e^{tZ_k}=K\,e^{t^2/2}$. Take
# logs, divide by $t$, and choose the best $t=\sqrt{2\ln K}$:
#
# $$\mu-\sigma\sqrt{2\ln K}\ \le\ \mathbb E\min_kX_k\ \le\ \mu,\qquad
# K=2:\ \mathbb E\min(X_1,X_2)=\mu-\frac\sigma{\sqrt\pi}. \tag{16.26}$$
#
# (For $K=2$: $\min(a,b)=\frac12(a+b)-\frac12\lvert a-b\rvert$, and $\lvert X_1-X_2\rvert$ has mean
# $2\sigma/\sqrt\pi$.) The bias grows slowly in $K$, but it always flatters. So a third part of the
# text, the **test** part, is read once, after all choices. $\sigma$ here is the noise of the
# *differences* between candidates, which for checkpoints of one run is far smaller than the
# standard error of each.

# %%
rows, inside = [], []
for K in (1, 2, 10, 100, 1000):
    lowest = float(rng.standard_normal((10_000, K), dtype="float32").min(1).mean())
    rows.append([K, lowest, -math.sqrt(2 * math.log(K))])
    inside.append(rows[-1][2] <= lowest + 0.03 and lowest <= 0.03)
show_table(["candidates", "mean of the lowest, in sigma", "bound"], rows)
check("lowest_is_within_bounds", 1 - np.array(inside, float), at_most=0)
check("lowest_of_two", abs(rows[1][1] + 1 / math.sqrt(math.pi)), at_most=0.04)
check("lowest_of_a_hundred", -rows[3][1], at_least=2)

# %% [markdown]
# ### Leakage
#
# Let the share $\delta$ of the held-out tokens stand in documents that the training part has too.
# A mean over tokens splits into the two groups:
#
# $$\bar x=\delta\,\bar x_{\mathrm{copied}}+(1-\delta)\,\bar x_{\mathrm{new}}. \tag{16.27}$$
#
# $\bar x_{\mathrm{copied}}$ measures memory, and a model with more memory is rewarded more: the
# copies do not only lower all losses, they change who wins. The first experiment measures it.
#
# ### What training costs
#
# One weight of a linear layer takes part in one multiplication and one addition for each token:
# 2 operations. Forward, $y=xW$ with $x$ $(n,a)$ and $W$ $(a,b)$ is $2nab$ of them. Backward there
# are two products of the same size, $dx=g\,W^\top$ and $dW=x^\top g$. So for $N_w$ weights in
# matrices and $D$ tokens
#
# $$\text{operations}=(2+4)\,N_wD=6\,N_wD. \tag{16.28}$$
#
# What that leaves out: products in which no weight takes part. In attention each token's query
# meets $T$ keys, and its weights $T$ values: $2\cdot2TC$ operations a layer forward, for $C$
# channels, if the causal half that is thrown away is computed as well. With
# $12C^2$ weights in each of $L$ blocks and a head of $VC$:
#
# $$\frac{\text{operations}}{\text{token}}=6\,(12LC^2+VC)+3\cdot4\,LTC. \tag{16.29}$$
#
# $D/N_w$, *tokens per parameter*, says which of the two is scarce. Hoffmann et al. (2022,
# arXiv:2203.15556) found that for a given number of operations (16.28) parameters and tokens should
# grow together, at about 20 tokens a parameter.


# %%
def counted_product(a, b, done):
    """a @ b by three loops; done[0] counts multiplications and additions."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for i, j, k in np.ndindex(*out.shape, a.shape[1]):
        out[i, j] += a[i, k] * b[k, j]
        done[0] += 2
    return out


x, W, g, done = rng.normal(size=(7, 5)), rng.normal(size=(5, 4)), rng.normal(size=(7, 4)), [0]
results = [counted_product(*pair, done) for pair in ((x, W), (g, W.T), (x.T, g))]
wrong = [rel_error(got, want) for got, want in zip(results, (x @ W, g @ W.T, x.T @ g), strict=True)]
check("six_operations", [abs(done[0] - 6 * W.size * 7), *wrong], at_most=1e-12)
errors = []
for L, C, T in ((2, 64, 32), (4, 128, 64)):
    model = GPT(GPTConfig(V, T, n_layer=L, n_head=4, n_embd=C), rng)
    formula = 6 * (12 * L * C * C + V * C) + 12 * L * T * C
    errors.append(abs(formula - flops_per_token(model)))
    print(f"{L} layers of {C}: {formula / 1e6:.2f} million operations a token, "
          f"{12 * L * T * C / formula:.0%} of them between queries and keys")
check("operations_per_token", errors, at_most=0)

# %% [markdown]
# ### A run is a state machine
#
# Everything that the next step depends on is its state. For AdamW on random windows that is
#
# $$S=(\theta,\ m,\ v,\ t,\ \text{generator}),$$
#
# with $m,v$ $(P)$ the moments, $t$ the number of steps done (Adam's bias correction and the
# schedule need it), and the state of the random generator that draws windows and dropout. A step
# is a function $S\mapsto F(S)$ with no other input. Then $a+b$ steps are $a$ steps, then $b$:
#
# $$F^{a+b}(S)=F^b\left(F^a(S)\right), \tag{16.30}$$
#
# and that *is* exact resuming: write $F^a(S)$ to a file, read it, go on. No equation can fail
# more silently. Leave out any part of $S$ and the run still goes on and still learns, only it is
# another run. The next section leaves each out in turn.
#
# ## Code
#
# One training step, line by line as derived. The state is a dictionary that is never changed; a
# step returns the next one. Only the gradient of a micro-batch comes from the package's tape.

# %%
PLAN = {"lr": 3e-3, "warmup": 2, "steps": 8, "final": 0.1}  # of the schedule
BATCH, PARTS, CLIP, DECAY, BETAS = 4, 3, 0.95, 0.1, (0.9, 0.99)


def first_state(model, seed):
    """The state before step 0."""
    x = get_flat(model)
    generator = np.random.default_rng(seed).bit_generator.state
    return {"x": x, "m": 0 * x, "v": 0 * x, "t": 0, "generator": generator}


def step_by_hand(model, ids, state):
    """F of (16.30): one AdamW step on PARTS micro-batches. Returns the next state, and the loss."""
    rng = np.random.default_rng()
    rng.bit_generator.state = state["generator"]
    set_flat(model, state["x"])
    T = model.config.block_size
    starts = rng.integers(0, len(ids) - T, PARTS * BATCH)  # every start equally likely: (16.12)
    loss, g = 0.0, 0.0
    for part in np.split(starts, PARTS):  # equal parts: (16.17)
        l_k, g_k = loss_and_gradient(model, *cut(ids, part, T), rng)  # rng: dropout
        loss, g = loss + l_k / PARTS, g + g_k / PARTS
    g = clipped(g, CLIP)  # after the sum: (16.18)
    rate, t = warmup_cosine(state["t"], **PLAN), state["t"] + 1
    m = BETAS[0] * state["m"] + (1 - BETAS[0]) * g
    v = BETAS[1] * state["v"] + (1 - BETAS[1]) * g * g
    update = m / (1 - BETAS[0] ** t) / (np.sqrt(v / (1 - BETAS[1] ** t)) + 1e-8)
    x = state["x"] * (1 - rate * DECAY * shrinks(model)) - rate * update
    return {"x": x, "m": m, "v": v, "t": t, "generator": rng.bit_generator.state}, loss


def shrinks(model):
    """1 where weight decay acts, else 0. -> (P,)"""
    chosen = {id(p) for p in model.decayed_parameters()}
    return np.concatenate([np.full(p.size, float(id(p) in chosen)) for p in model.parameters()])


# %% [markdown]
# The package's `Trainer` does the same with the package's own optimizer. Same weights, same
# generator, three micro-batches of four, dropout on, in float64: the losses of eight steps and the
# final weights have to be the same numbers. The clipping bound is one that some of the steps meet
# and others do not. If *all* were clipped, a gradient three times too long would come out the same,
# and the comparison could not see a forgotten $1/K$.


# %%
def new_model(dropout=0.1):
    config = GPTConfig(8, 8, n_layer=1, n_head=2, n_embd=12, dropout=dropout)
    return GPT(config, np.random.default_rng(7), dtype="float64")


letters = CharTokenizer("abcdefgh")
texts = source_text(2000, rng), source_text(300, rng)  # train, val
config = TrainConfig(steps=8, batch_size=BATCH, accumulate=PARTS, clip=CLIP, lr=PLAN["lr"],
                     warmup=PLAN["warmup"], final_lr=PLAN["final"], weight_decay=DECAY,
                     beta2=BETAS[1], eval_every=1)
model, state, losses = new_model(), None, []
state = first_state(model, seed=3)
for _ in range(8):
    state, loss = step_by_hand(model, texts[0], state)
    losses.append(loss)
with tempfile.TemporaryDirectory() as folder:
    package = new_model()
    trainer = Trainer(package, letters, *texts, config, Path(folder), np.random.default_rng(3))
    trainer.run(report=lambda line: None)
logged = [line["train_loss"] for line in trainer.log[1:]]
show_table(["step", "by hand", "package"], [[i + 1, f"{a:.12f}", f"{b:.12f}"] for i, (a, b) in
           enumerate(zip(losses, logged, strict=True)) if i % 3 == 1])
meets = np.mean([line["grad_norm"] > CLIP for line in trainer.log[1:]])
check("some_steps_are_clipped_and_some_not", min(meets, 1 - meets), at_least=0.2)
check("package_has_the_same_losses", rel_error(losses, logged), at_most=1e-12)
check("package_has_the_same_weights", rel_error(get_flat(package), state["x"]), at_most=1e-10)

# %%
print(inspect.getsource(Trainer._step))
print(inspect.getsource(Trainer._batches))

# %% [markdown]
# What the package does differently, and why:
#
# - It scales the loss by calling `backward(1 / parts)`: the cotangent carries the $1/K$, and the
#   gradients add up where they are. No copy of a gradient is made.
# - All starts of a step are drawn at once, so that eight micro-batches of 4 see the same windows
#   as one of 32. How a step is cut is then no part of the run's meaning.
# - The optimizer keeps all parameters in one flat array and updates it in place. The state is
#   therefore *changed*, not replaced, and saving means copying.
# - A loss or gradient that is no longer a number stops the run. A checkpoint written after that
#   would be worthless, and Adam's moments never forget a NaN. (To read a number from a GPU is to
#   wait for it. There, `_look` reads those of several steps at once, and before anything is saved.)
# - It evaluates with windows that overlap by half, and scores the second half of each: every token
#   has at least $T/2$ tokens of context. By (16.3) the training loss has a mean of $(T+1)/2$.

# %%
print(inspect.getsource(nats_per_token))
fair = nats_per_token(package, texts[1])
places = len(texts[1]) - 1
contexts = []  # the context each token was scored with, recovered from single predictions
for n in range(1, places + 1):
    start = 0 if n <= 8 else 4 * math.ceil((n - 8) / 4)
    start = min(start, places - 8)  # the last window is moved to the end
    contexts.append(charges(package, texts[1][None, start:n], texts[1][None, start + 1 : n + 1]))
by_single_tokens = np.mean([c[0, -1] for c in contexts])
check("each_token_scored_once", abs(fair / by_single_tokens - 1), at_most=1e-12)
check("with_half_a_block_at_least", min(c.shape[1] for c in contexts[8:]), at_least=4)

# %% [markdown]
# ### Leave out one part of the state
#
# Four steps, a snapshot, four more steps. Then go on from the snapshot again: once with all of it,
# and once for each part with that part set back to what a new run would have.


# %%
def run(state, n):
    for _ in range(n):
        state, loss = step_by_hand(model, texts[0], state)
    return state, loss


begin = first_state(model := new_model(), seed=3)
half, _ = run(begin, 4)
end, loss = run(half, 4)
rows = []
for part in (None, *begin):
    resumed, other = run(half if part is None else half | {part: begin[part]}, 4)
    rows.append([part or "nothing", np.abs(resumed["x"] - end["x"]).max(), abs(other - loss)])
show_table(["left out", "largest change of a weight", "of the last loss"], rows)
check("all_of_the_state_resumes_exactly", rows[0][1:], at_most=0)
check("every_part_is_needed", [row[1] for row in rows[1:]], at_least=1e-4)

# %% [markdown]
# The first row is zero to the last bit. Of the five others only one might be noticed: without $v$
# the correction for its start at 0 is gone, and weights with small gradients jump. The rest would
# not stand out in a loss curve.
#
# Now the package's own run. It is killed in the middle and resumed from its file, and then
# compared, bit for bit, with one that was left alone:


# %%
class Killed(Exception):
    pass


def die_at_step_8(line):
    if " 8:" in line:  # its report comes after the evaluation, before anything is saved
        raise Killed


def trained(folder, report, resume=None):
    """Train as configured, evaluating every 4 steps, and return the weights."""
    config = TrainConfig(steps=8, batch_size=4, accumulate=3, eval_every=4)
    model = resume.model if resume else new_model()
    rng = np.random.default_rng(3)
    trainer = Trainer(model, letters, *texts, config, Path(folder), rng, resume)
    trainer.run(report)
    return get_flat(model)


with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
    wanted = trained(whole, report=lambda line: None)
    try:
        trained(broken, report=die_at_step_8)
    except Killed:
        checkpoint = load_checkpoint(Path(broken, "last.safetensors"))
    print("killed; the file holds step", checkpoint.training["step"])
    got = trained(broken, report=print, resume=checkpoint)
check("killed_and_resumed_bit_for_bit", np.abs(got - wanted), at_most=0)

# %% [markdown]
# ## Gradient check
#
# First the one formula of this chapter that has a backward pass of its own: (16.16), two
# micro-batches of unequal size, from logits to the loss of the batch. By chapter 03 the gradient
# of a mean of $n_k$ charges in a logit is $(p-\mathrm{onehot})/n_k$; times $n_k/n$ it is
# $(p-\mathrm{onehot})/n$, whatever part the token is in.

# %%
targets_a, targets_b = rng.integers(0, 6, 3), rng.integers(0, 6, 7)


def two_parts_by_hand(a, b):
    """Logits a (3, V), b (7, V) -> the mean of all ten charges, and its VJP."""
    n, charge, d = 10, 0.0, []
    for z, t in ((a, targets_a), (b, targets_b)):
        e = np.exp(z)
        p, rows = e / e.sum(-1, keepdims=True), np.arange(len(t))
        charge = charge + len(t) / n * -np.log(p[rows, t]).mean()  # n_k / n times a mean
        d.append(p - np.eye(6)[t])
    return charge, lambda g: tuple(g * part / n for part in d)


def two_parts(cross_entropy):
    """The same from a cross_entropy on Tensors."""
    return lambda a, b: 0.3 * cross_entropy(a, targets_a) + 0.7 * cross_entropy(b, targets_b)


arrays = {"a": rng.normal(size=(3, 6)), "b": rng.normal(size=(7, 6))}
worst = witnesses(
    two_parts_by_hand, two_parts(F.cross_entropy), two_parts(reference.cross_entropy), arrays,
    analytic=lambda a, b: two_parts_by_hand(a, b)[0],
)
check("two_parts_vjp", worst, at_most=1e-9)

# %% [markdown]
# Then the whole model: the gradient that a training step uses, for a GPT of two layers in float64
# with a dropout of 0. One batch of 12 windows against four micro-batches of 3, tensor by tensor.
# And against differences of the batch loss through the whole network, along one random direction
# in each tensor, so that no tensor can hide behind the others.

# %%
config = GPTConfig(8, 8, n_layer=2, n_head=2, n_embd=12)
deep = GPT(config, np.random.default_rng(1), dtype="float64")
for p in deep.parameters():
    p.data += xp.asarray(0.1 * rng.normal(size=p.shape))
idx, targets = cut(texts[0], rng.integers(0, 1990, 12), 8)
_, whole = loss_and_gradient(deep, idx, targets)
micro = sum(loss_and_gradient(deep, i, t)[1] / 4
            for i, t in zip(np.split(idx, 4), np.split(targets, 4), strict=True))
x, names = get_flat(deep), [name for name, _ in deep.named_parameters()]
ends = np.cumsum([p.size for p in deep.parameters()])


def batch_loss(moved):
    set_flat(deep, moved)
    with no_grad():
        return F.cross_entropy(deep(idx), targets).item()


rows = []
for name, first, last in zip(names, [0, *ends[:-1]], ends, strict=True):
    d = np.zeros_like(x)
    d[first:last] = rng.normal(size=last - first)
    d /= np.linalg.norm(d)
    slope = central_differences(lambda t, d=d: batch_loss(x + t[0] * d), [0.0])[0]
    cut_up = rel_error(micro[first:last], whole[first:last])
    rows.append([name, last - first, cut_up, abs(slope - whole @ d) / np.linalg.norm(whole)])
set_flat(deep, x)
show_table(["tensor", "numbers", "4 parts against 1", "differences"], rows[:2] + rows[-4:])
print(f"... {len(rows)} tensors in all")
check("four_micro_batches_are_one_batch", [row[2] for row in rows], at_most=1e-12)
check("differences_through_the_gpt", [row[3] for row in rows], at_most=1e-8)

# %% [markdown]
# ### Break it: the gradient
#
# Four mistakes in the accumulation, each with the length of its gradient against the true one and
# the cosine between the two. The parts are of 1, 2, 4 and 5 windows.

# %%
sizes = np.array([1, 2, 4, 5])
pieces = [loss_and_gradient(deep, i, t)[1] for i, t in
          zip(np.split(idx, [1, 3, 7]), np.split(targets, [1, 3, 7]), strict=True)]
c = 0.3 * np.linalg.norm(whole)  # a bound that is met
mistakes = {
    "weighted by size (right)": (sum(n / 12 * g for n, g in zip(sizes, pieces, strict=True)), 1),
    "not divided": (sum(n / 3 * g for n, g in zip(sizes, pieces, strict=True)), 1),
    "mean of unequal means": (sum(pieces) / 4, 1),
    "zeroed in the loop: the last part": (pieces[-1], 1),
    "clipped part by part": (sum(n / 12 * clipped(g, c) for n, g in
                                 zip(sizes, pieces, strict=True)), 0.3),
}
rows = []
for name, (g, wanted) in mistakes.items():
    length = np.linalg.norm(g) / np.linalg.norm(whole) / wanted
    rows.append([name, length, g @ whole / np.linalg.norm(g) / np.linalg.norm(whole)])
show_table(["gradient", "length / true length", "cosine with the true one"], rows)
right, undivided, unequal, last, early = (row[1:] for row in rows)
check("weighted_parts_are_right", np.abs(np.array(right) - 1), at_most=1e-12)
check("undivided_is_four_times_too_long", abs(undivided[0] - 4), at_most=1e-12)
check("undivided_points_the_right_way", abs(undivided[1] - 1), at_most=1e-12)
check("the_others_point_elsewhere", [1 - row[1] for row in (unequal, last, early)], at_least=0.003)

# %% [markdown]
# Differences or an exact comparison find all four. Does a *loss curve* find the first? A small GPT
# learns the Markov source, once with the right gradient and once with one four times too long, as
# four undivided micro-batches give it.


# %%
def practice(ids, steps, optimizer, factor=1.0, clip=math.inf, shift=1, seed=5, watch=None):
    """Train a small GPT on ids. factor: on the gradient. shift: of the targets. -> model, log."""
    rng = np.random.default_rng(seed)
    model = GPT(GPTConfig(12, 16, n_layer=1, n_head=2, n_embd=32), rng)
    opt, losses, norms = optimizer(model.parameters()), [], []
    for step in range(steps):
        opt.zero_grad()
        rows = ids[rng.integers(0, len(ids) - 16, 16)[:, None] + np.arange(17)]  # (16, 17)
        loss = F.cross_entropy(model(rows[:, :16]), rows[:, shift : 16 + shift])
        loss.backward(factor)
        norms.append(float(clip_grad_norm(opt.params, clip)))
        opt.step()
        losses.append(loss.item())
        if watch:
            watch(step, model)
    return model, np.array(losses), np.array(norms)


letters_text = source_text(20_000, rng)
settings = {
    "Adam": (lambda p: Adam(p, 3e-3), math.inf),
    "Adam, clipped at 1": (lambda p: Adam(p, 3e-3), 1.0),
    "SGD": (lambda p: SGD(p, 0.2), math.inf),
}
rows = []
for name, (optimizer, clip) in settings.items():
    (_, a, norm_a), (_, b, norm_b) = (
        practice(letters_text, 60, optimizer, factor, clip) for factor in (1.0, 4.0))
    rows.append([name, a[-5:].mean(), b[-5:].mean(), np.abs(a - b)[:40].max(),
                 (norm_a > clip).mean(), (norm_b > clip).mean()])
show_table(["optimizer", "loss, divided", "undivided", "largest difference", "clipped", "clipped"],
           rows)
check("adam_trains_as_before", rows[0][3], at_most=0.01)
check("clipping_notices", rows[1][5] - rows[1][4], at_least=0.2)
check("clipping_makes_another_run", rows[1][3], at_least=1e-3)
check("sgd_notices", rows[2][3], at_least=0.5)

# %% [markdown]
# With Adam the two curves lie on each other, as (16.20) says: the factor meets nothing that knows
# its size. With clipping the undivided gradient is over the bound far more often, so its steps are
# made equally long where they should differ. It is another run, though not visibly a worse one.
# With SGD the factor is a learning rate four times too large: the curves part by more than half a
# nat, though they meet again. (AdamW's decay does not notice
# either: it is decoupled from the gradient. An L2 penalty added *to* the gradient would be
# four times too weak.) "The loss falls" is no test of a gradient.
#
# ### Break it: the evaluation
#
# Three ways to report a number that is not the held-out loss. The source has a known floor, so they
# can be caught. The first two come out *below* what is possible.
#
# - Targets that are not shifted: the model is asked for the token that it sees.
# - Evaluating on windows of a small training text, after many steps.
# - Dropout left on: too high instead, and another number at each call.


# %%
def evaluate(model, ids):
    return nats_per_token(model, ids)


fresh_text = source_text(6000, rng)
honest, _, _ = practice(letters_text, 250, lambda p: Adam(p, 3e-3))
_, leaky, _ = practice(letters_text, 250, lambda p: Adam(p, 3e-3), shift=0)
noisy = GPT(GPTConfig(12, 16, n_layer=1, n_head=2, n_embd=32, dropout=0.2), rng)
noisy.load_arrays({name: p.data for name, p in honest.named_parameters()})
idx, targets = cut(fresh_text, np.arange(0, 5900, 16), 16)
with no_grad():
    without, *with_dropout = (F.cross_entropy(noisy(idx, r), targets).item()
                              for r in (None, rng, rng))
own = -np.log(Q[fresh_text[:-1], fresh_text[1:]]).mean()
rows = [["the source itself, on this text", own], ["held out, as it should be",
        evaluate(honest, fresh_text)], ["targets not shifted", leaky[-10:].mean()],
        ["dropout off, plain windows", without], ["dropout on", with_dropout[0]],
        ["dropout on, again", with_dropout[1]]]
show_table(["nats per token", f"floor {FLOOR:.3f}"], rows)
check("honest_loss_is_above_the_source", rows[1][1] - own, at_least=0)
check("honest_loss_is_near_the_source", rows[1][1] - own, at_most=0.1)
check("unshifted_targets_pass_the_floor", FLOOR - rows[2][1], at_least=0.5)
check("dropout_costs", min(with_dropout) - without, at_least=0.02)
check("dropout_is_random", abs(with_dropout[0] - with_dropout[1]), at_least=1e-5)

# %% [markdown]
# In the package dropout acts only where a generator is passed, `model(idx, rng)`, so an evaluation
# without one cannot be noisy by mistake. There is no `train()` switch to forget.
#
# Now the training windows. The text has 500 letters, the model 13,664 parameters, and it is
# trained far too long. By (16.8) the training loss can pass the floor. The held-out loss has to
# turn, and (16.9) predicts a large gap between the two, with 27 parameters a token.
# **Early stopping** keeps the weights of the lowest held-out loss (in the package: `patience`, and
# the file `best.safetensors`).

# %%
few, curve = source_text(500, rng), []
held, test = source_text(3000, rng), source_text(3000, rng)  # to choose by, to read once


def look(step, model):
    if step % 25 == 24:
        curve.append([step + 1, *(evaluate(model, ids) for ids in (few, held, test))])


over, _, _ = practice(few, 400, lambda p: Adam(p, 5e-3), watch=look)
curve = np.array(curve)  # (16, 4)
best = int(curve[:, 2].argmin())
show_table(["step", "training text", "held out", "test"],
           [curve[0].tolist(), curve[best].tolist(), curve[-1].tolist()])
print("parameters:", over.num_parameters())
check("training_loss_passes_the_floor", FLOOR - curve[-1, 1], at_least=0.1)
check("held_out_loss_turns", curve[-1, 2] - curve[best, 2], at_least=0.1)
check("early_stopping_helps_on_test", curve[-1, 3] - curve[best, 3], at_least=0.1)

# %%
fig, axes = plt.subplots(figsize=(7, 4))
axes.axhline(FLOOR, color=GREY, lw=1.5, ls="--")
axes.plot(curve[:, 0], curve[:, 1], color=BLUE)
axes.plot(curve[:, 0], curve[:, 2], color=RED)
axes.plot(curve[best, 0], curve[best, 2], "o", color=RED, ms=9, mfc="none", mew=2)
axes.annotate("stop here", curve[best, [0, 2]], (curve[best, 0] + 20, curve[best, 2] + 0.22),
              color=RED, arrowprops={"arrowstyle": "->", "color": GREY})
axes.text(395, curve[-1, 2] - 0.1, "held out", color=RED, ha="right", va="top")
axes.text(250, np.interp(250, curve[:, 0], curve[:, 1]) - 0.1, "training text", color=BLUE)
axes.text(400, FLOOR + 0.015, "entropy of the source", color=GREY, ha="right")
axes.set(xlabel="optimizer step", ylabel="nats per token", xlim=(0, 410),
         title="The training loss passes the floor; the held-out loss cannot")
save_figure(fig, "16_floor.svg")
plt.show()

# %% [markdown]
# ## Experiment
#
# ### Leakage, measured
#
# `pydoc`, the text behind Python's `help()`, repeats itself: the same paragraph stands under
# several topics. Split its paragraphs twice, once as they are and once after removing duplicates
# (equal but for white space and case), and fit n-grams of order 1 to 7 to each training part.
#
# **Prediction**, from (16.27). Without de-duplication about a third of the held-out text will also
# stand in the training part. The loss will come out lower, and the more so the longer the
# n-gram's memory: orders 1 and 2 will hardly notice, order 7 will gain most, and it will look like
# the best model, which on new text it is not.


# %%
def leak_table(documents):
    """Nats per character of orders 1..7: all, copied and new held-out text; share copied."""
    parts = split_documents(Corpus("pydoc", tuple(documents), "", "", 0))
    text = {part: "".join(d + "\n" for d in parts[part]) for part in parts}
    tokenizer = CharTokenizer.from_text("".join(text.values()))
    model = NGram(7, tokenizer.vocab_size).fit(tokenizer.encode(text["train"]))
    nats = model.nats_by_order(tokenizer.encode(text["val"]))  # (7, n)
    known = {normal(d) for d in parts["train"]}
    copied = np.repeat([normal(d) in known for d in parts["val"]],
                       [len(d) + 1 for d in parts["val"]])  # (n,) one a character
    means = [nats[:, chosen].mean(1) if chosen.any() else None
             for chosen in (np.ones(len(copied), bool), copied, ~copied)]
    return means, copied.mean()


def pydoc_paragraphs():
    from pydoc_data.topics import topics

    return [p for topic in topics.values() for p in paragraphs(topic)]


raw = pydoc_paragraphs()
distinct, removed = deduplicate(raw)
(all_of_it, copied, new), share = leak_table(raw)
(honest_loss, _, _), _ = leak_table(distinct)
print(f"{removed / len(raw):.1%} of the paragraphs are duplicates; "
      f"{share:.1%} of the held-out characters stand in the training part")
show_table(["order", "as it is", "its copied part", "its new part", "de-duplicated"],
           [[k + 1, *(row[k] for row in (all_of_it, copied, new, honest_loss))] for k in range(7)])
check("mixture_of_copied_and_new",
      np.abs(share * copied + (1 - share) * new - all_of_it), at_most=1e-10)
check("a_fifth_are_duplicates", removed / len(raw), at_least=0.1)
gain = new - all_of_it
check("leakage_flatters", gain[4:], at_least=0.05)
check("more_memory_gains_more", gain[6] - gain[1], at_least=0.1)
check("copies_choose_another_winner", all_of_it.argmin() - new.argmin(), at_least=1)

# %% [markdown]
# As predicted. On the leaking split the longest n-gram has the lowest loss; on the new part of the
# *same* held-out text it has not. One fifth of duplicated paragraphs was enough to choose the wrong
# model. (Lee et al. 2021, arXiv:2107.06499, found copies in the validation sets of large public
# corpora, and models that repeat what they have seen often.)
#
# Whole documents must go to one part for the same reason: the second half of a paragraph is easier
# after training on the first. Same paragraphs, same n-gram; only the first halves of the held-out
# paragraphs are added to the training text:

# %%
whole = split_documents(Corpus("pydoc", distinct, "", "", removed))
firsts = [d[: len(d) // 2] for d in whole["val"]]
seconds = "\n".join(d[len(d) // 2 :] for d in whole["val"])
alphabet = CharTokenizer.from_text("\n".join(distinct))
halves = [NGram(6, alphabet.vocab_size).fit(alphabet.encode("\n".join(documents)))
          .nats(alphabet.encode(seconds)).mean()
          for documents in (whole["train"], [*whole["train"], *firsts])]
print("second halves: {:.3f} nats per character; with their first halves known: {:.3f}"
      .format(*halves))
check("first_halves_leak", halves[0] - halves[1], at_least=0.01)

# %% [markdown]
# ### Pre-training
#
# The default corpus: 7,193 English facts, de-duplicated and split by document. A GPT of 2 blocks
# of 64 channels (108,160 parameters) reads 400 steps of 1,024 characters. The bar is the n-gram,
# counted on the same training part and scored on the same held-out characters.
#
# **Prediction.** The loss starts at $\ln94=4.54$. The first steps learn how often each character
# comes (3.2, the 1-gram). The run is short: 410,000 characters, under 4 for each parameter, and
# less than the corpus once. Nearly every window is fresh text when it is read, so there is nothing
# to over-fit yet: training and held-out loss will stay together. The number of steps is the limit.
# The run will end *between the 2-gram and the 3-gram*, far from what counting reaches with five
# characters of memory in a third of a second.

# %%
model_config = GPTConfig(V, 32, n_layer=2, n_head=4, n_embd=64)
config = TrainConfig(steps=400, batch_size=32, lr=6e-3, warmup=30, eval_every=40, sample_tokens=60)
gpt, said = GPT(model_config, np.random.default_rng(0)), []
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(gpt, tokenizer, train_ids, val_ids, config, Path(folder),
                      np.random.default_rng(0))
    trainer.run(said.append)
for line in [said[0], *said[1:3], *said[5:7], *said[-2:]]:
    print(line)
seen = 400 * 32 * 32
print(f"{gpt.num_parameters():,} parameters, {seen / gpt.num_parameters():.1f} tokens for each, "
      f"{seen / len(train_ids):.2f} passes, {seen * flops_per_token(gpt):.1e} operations")
check("sees_less_than_the_corpus_once", seen / len(train_ids), at_most=1)
check("few_tokens_a_parameter", seen / gpt.num_parameters(), at_most=4)

# %% [markdown]
# The first line is a sample of the untrained network, the others follow their steps. Now the
# comparison. The charges of single characters give standard errors by document (16.23), for each
# loss and for the difference to the GPT's.


# %%
def scored(model, ids):
    """Nats of ids[1:], (n,), in windows that overlap by half, as nats_per_token scores them."""
    T, n = model.config.block_size, len(ids) - 1
    out = charges(model, *cut(ids, [0], T))[0].tolist()
    starts = range(T // 2, n - T + T // 2, T // 2)
    ends = np.minimum(starts, n - T)  # the last window is moved to the end
    rows = charges(model, *cut(ids, ends, T))
    for start, row in zip(starts, rows, strict=True):
        out.extend(row[T // 2 + max(0, start - (n - T)) :])
    return np.array(out)


judged = val_ids[:10_001]  # the tokens that the run was evaluated on
document = np.cumsum(judged == tokenizer.encode("\n")[0])[:-1]  # (10000,) of ids[1:]
mine = scored(gpt, judged)
other = judged[:5008]  # a length that no windows fit exactly
check("scored_as_the_package_does", [abs(mine.mean() / nats_per_token(gpt, judged) - 1),
      abs(scored(gpt, other).mean() / nats_per_token(gpt, other) - 1)], at_most=1e-5)
by_order = grams.nats_by_order(judged)[:, 1:]  # (6, 10000)
rows = []
for name, x in [*((f"{k + 1}-gram", row) for k, row in enumerate(by_order)), ("GPT", mine)]:
    mean, error = error_by_documents(x, document)
    gap, gap_error = error_by_documents(x - mine, document)
    rows.append([name, mean, error, x.std() / 100, gap, gap_error])
show_table(["model", "nats/character", "s.e.", "s.e. if independent", "less GPT's", "s.e."], rows)
check("start_at_ln_v", abs(trainer.log[0]["val_loss"] / math.log(V) - 1), at_most=0.02)
check("above_the_trigram", rows[6][1] - rows[2][1], at_least=0.02)
check("below_the_bigram", rows[1][1] - rows[6][1], at_least=0.1)
together = abs(trainer.log[-1]["train_loss"] - trainer.log[-1]["val_loss"])
check("nothing_is_over_fitted", together, at_most=0.1)
check("far_beyond_the_noise", rows[1][4] / rows[1][5], at_least=5)
check("documents_are_not_independent_tokens", rows[5][2] / rows[5][3], at_least=1.1)
check("differences_are_sharper", rows[4][2] / error_by_documents(by_order[4] - by_order[3],
      document)[1], at_least=1.5)

# %% [markdown]
# So, honestly: a few seconds of training put this GPT **between a 2-gram and a 3-gram**, as
# predicted, and its samples look like it: letters in the right proportions, syllables, a few short
# words. The standard errors say what may be said. The distance to its neighbours is many standard
# errors. And the independence formula would understate the error of each loss.
#
# ### A longer run
#
# Thousands of steps instead of hundreds: 4 blocks of 128 channels, 64 characters of context,
# dropout 0.1, 6,000 steps of 2,048 characters. Recorded with
#
# ```sh
# python -m minigpt train --n-layer 4 --n-embd 128 --n-head 4 --block-size 64 --dropout 0.1 \
#     --lr 3e-3 --batch-size 32 --steps 6000 --eval-every 250 --seed 1
# ```
#
# and read here from `figures/data/16_long_run.csv` (step, seconds, and nats per character on the
# training batches and on the same 10,000 held-out characters).
#
# **Prediction.** It passes one n-gram after another, and ends below all six, but not far below:
# 12 million characters are 22 passes over a small corpus. Dropout is on in training alone, so the
# training loss stays above the held-out one.

# %%
with open(FIGURES / "data" / "16_long_run.csv", encoding="utf-8") as file:
    log = list(csv.DictReader(file))
long_run = np.array([[float(row[key] or "nan") for key in ("step", "train_loss", "val_loss")]
                     for row in log])  # no training loss at step 0
lines = by_order.mean(1)  # (6,)
rows = [[f"{k + 1}-gram", nats, int(long_run[(long_run[:, 2] < nats).argmax(), 0])]
        for k, nats in enumerate(lines) if (long_run[:, 2] < nats).any()]
show_table(["passes the", "nats/character", "by step"], rows)
lowest = long_run[:, 2].min()
minutes, passes = float(log[-1]["seconds"]) / 60, long_run[-1, 0] * 2048 / len(train_ids)
print(f"lowest held-out loss {lowest:.3f}, best n-gram {lines.min():.3f}; "
      f"{passes:.0f} passes in {minutes:.0f} minutes of the machine that recorded it")
check("long_run_starts_at_ln_v", abs(long_run[0, 2] / math.log(V) - 1), at_most=0.02)
check("long_run_passes_every_ngram", lines.min() - lowest, at_least=0.02)
check("but_not_by_far", lines.min() - lowest, at_most=0.3)
check("dropout_lifts_the_training_loss", long_run[-1, 1] - long_run[-1, 2], at_least=0)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.4), sharey=True, width_ratios=[2, 3])
mine_log = np.array([[row["step"], row["train_loss"] or np.nan, row["val_loss"]]
                     for row in trainer.log])
for axes, log, name in ((left, mine_log, "this chapter: 400 small steps"),
                        (right, long_run, "recorded: 6,000 larger steps")):
    for k, nats in enumerate(lines):
        axes.axhline(nats, color=GREY, lw=1, ls="--")
        if axes is right:
            axes.annotate(f"{k + 1}-gram", (1.01, nats + (0.05, 0, 0, 0, 0.04, -0.04)[k]),
                          xycoords=("axes fraction", "data"), color=GREY, size=10, va="center")
    axes.plot(log[1:, 0], log[1:, 1], color=BLUE, lw=1.5)
    axes.plot(log[:, 0], log[:, 2], "o-", color=RED, ms=4)
    axes.set(xlabel="optimizer step", ylim=(1.3, 3.45), xlim=(0, log[-1, 0] * 1.02))
    axes.set_title(name, size=12)
left.set_ylabel("loss (nats per character)")
left.annotate("held out", mine_log[6, [0, 2]], (120, 1.9), color=RED,
              arrowprops={"arrowstyle": "->", "color": GREY})
left.annotate("training (mean\nsince the last point)", mine_log[3, [0, 1]], (170, 2.9), size=11,
              color=BLUE, arrowprops={"arrowstyle": "->", "color": GREY})
right.annotate("with dropout, so above\nthe held-out loss", long_run[5, [0, 1]], (1900, 2.2),
               size=11, color=BLUE, arrowprops={"arrowstyle": "->", "color": GREY})
fig.suptitle("Seconds of training beat a 2-gram; it takes thousands of steps to beat all six")
save_figure(fig, "16_curves.svg")
plt.show()

# %% [markdown]
# As predicted: it takes about half of the run to pass the best n-gram, and it ends a tenth of a nat
# below. Its training loss lies *above* its held-out loss, and nothing leaks: the training loss is
# taken with dropout on, with contexts of 32 characters on average against 48 (16.3), and as a mean
# over the steps before.
#
# ## What others get wrong
#
# The documents S0 to S4 are listed in the [chapters' README](README.md).
#
# ### Removing stop words before pre-training (S0:59, S0:498, S3:39)
#
# Dropping "the", "of" or "not" can help a search engine that compares bags of words. A language
# model is asked for *every* token, so it would be asked for words that it was never shown. What
# would be lost, on the default corpus, with 51 common words? And how does a 5-gram that was
# counted on the cleaned text predict the text that people write?

# %%
STOP = """a an the and or but if of to in on at by for from with as is are was were be been being
have has had do does did it its this that these those he she they we you i his her their not no
than more so can"""
STOP = set(STOP.split())


def bare(word):
    return word.lower().strip(".,;:!?\"'()")


def without_stop_words(text):
    """Each line without its stop words."""
    return "\n".join(" ".join(w for w in line.split() if bare(w) not in STOP)
                     for line in text.split("\n"))


counts = Counter(bare(w) for w in corpus.text.split())
total = sum(counts.values())
lost = sum(n for w, n in counts.items() if w in STOP) / total
surprise = {w: -n / total * math.log(n / total) for w, n in counts.items()}  # of the unigram
carried = sum(s for w, s in surprise.items() if w in STOP)
turned = sum(any(bare(w) in ("not", "no") for w in line.split()) for line in corpus.documents)
print(f"{len(STOP)} stop words: {lost:.1%} of all words, {carried:.2f} of "
      f"{sum(surprise.values()):.2f} nats of the words' entropy; {turned} facts lose a negation")
cleaned = NGram(5, V).fit(tokenizer.encode(without_stop_words(parts.train)))
scores = [by_order[4].mean(), cleaned.nats(judged)[1:].mean()]
print("5-gram, nats/character on real text: {:.3f}; counted on cleaned: {:.3f}".format(*scores))
check("stop_words_are_a_third_of_the_text", lost, at_least=0.3)
check("they_carry_entropy", carried, at_least=1.2)
check("negations_are_lost", turned, at_least=200)
check("cleaned_text_trains_a_worse_model", scores[1] - scores[0], at_least=0.2)

# %% [markdown]
# Cleaning that *is* done before pre-training removes documents: duplicates, the wrong language,
# pages without sentences. It does not edit sentences. Nor are windows "padded" (S0:59): they are
# cut from one long text. Padding belongs to fine-tuning, with a mask in the loss (exercise 16.4).
#
# ### Vectors from Word2Vec or GloVe, or none (S3:69, S3:333, S4:238)
#
# S3 takes the input vectors from a model trained before; S4 says that no embedding step is
# needed. In every GPT the table `wte` is a parameter, starts at random, and is trained by the same
# loss as all else, over byte-pair tokens (Radford et al. 2018, 2019). Here it is even used twice,
# as the head. How far did it move in 400 steps?

# %%
untrained = GPT(model_config, np.random.default_rng(0))
before, after = (m.wte.weight.numpy() for m in (untrained, gpt))  # (V, C) each
moved = np.linalg.norm(after - before) / np.linalg.norm(before)
print(f"wte moved by {moved:.1f} times its first length; "
      f"it is {before.size / gpt.num_parameters():.1%} of all parameters")
check("embedding_is_learned", moved, at_least=1)
check("embedding_is_a_parameter",
      1 - sum(p is gpt.wte.weight for p in gpt.parameters()), at_most=0)

# %% [markdown]
# ### Bilingual and multimodal pre-training (S4:37, S4:141, S4:591, S4:653)
#
# S4 explains translation by bilingual texts, and image tasks by multimodal data, in GPT's
# pre-training. GPT-2's web text was filtered to English (Radford et al. 2019, who found 10 MB of
# French left in it), and it is text only. What a model has not seen it does not merely not know:
# it learns that it *never happens*. The small GPT above had 12 tokens and a text of only 8 of
# them. Its verdict on a word of a second language, written in the other four:

# %%
idx, _ = cut(fresh_text, np.arange(0, 5900, 16), 16)
with no_grad():
    p = F.softmax(honest(idx)).numpy()  # (B, T, 12)
charge = -np.log(p[..., 8:]).mean()  # of a first foreign token, after known ones
print(f"probability of all four foreign tokens together: {p[..., 8:].sum(-1).mean():.1e}; "
      f"charge for one: {charge:.1f} nats, ln 12 = {math.log(12):.1f}")
check("never_seen_means_never", p[..., 8:].sum(-1).mean(), at_most=0.02)
check("worse_than_knowing_nothing", charge / math.log(12), at_least=1.5)

# %% [markdown]
# ### Generative pre-training as "a method for generation" (S0:27)
#
# S0 defines generative pre-training as applying a model to generation. "Generative" names the
# *objective*, $\ln P(\text{text})$, as against $\ln P(\text{label}\mid\text{text})$. What the
# model is used for afterwards is open: the tasks of the first GPT paper were classification,
# entailment, similarity and multiple choice. Even the bare objective can classify. Two 3-grams,
# one counted on facts and one on `pydoc`, each give a probability to a held-out paragraph; Bayes'
# rule with equal priors chooses the larger.

# %%
kinds = {"facts": corpus, "pydoc": data.load("pydoc")}
split = {name: split_documents(kind) for name, kind in kinds.items()}
both = CharTokenizer.from_text("".join(kind.text for kind in kinds.values()))
models = {name: NGram(3, both.vocab_size).fit(both.encode("\n".join(split[name]["train"])))
          for name in kinds}
hits = []
for truth in kinds:
    documents = split[truth]["val"]
    ids = both.encode("".join(d + "\n" for d in documents))
    where = np.repeat(np.arange(len(documents)), [len(d) + 1 for d in documents])
    nats = {name: np.bincount(where, m.nats(ids)) for name, m in models.items()}  # -ln P(document)
    other = next(name for name in kinds if name != truth)
    hits.append(nats[truth] < nats[other])
    print(f"{truth}: {hits[-1].mean():.1%} of {len(documents)} recognised")
check("a_generative_model_classifies", np.concatenate(hits).mean(), at_least=0.9)

# %% [markdown]
# ### A loss table (S0:363-372)
#
# S0 shows the losses of a program that learns one pair by heart, $1..5\to2..6$ with 10 tokens:
# 2.3025, 2.2182, 2.1306, and 0.0012 from epoch 97 to 100. The start is right: $\ln10=2.3026$,
# (16.10), for a network whose logits are near zero. But the program cannot run (it calls a layer
# that does not exist). A GPT of one block with its 32 channels and 2 heads, trained with its Adam
# at the default rate of 0.001, on that pair, for five seeds:

# %%
idx, targets = np.arange(1, 6)[None], np.arange(2, 7)[None]
starts, finals = [], []
for seed in range(5):
    model = GPT(GPTConfig(10, 5, n_layer=1, n_head=2, n_embd=32), np.random.default_rng(seed))
    opt, losses = Adam(model.parameters(), 1e-3), []
    for _ in range(100):
        loss = F.cross_entropy(model(idx), targets)
        losses.append(loss.item())
        opt.zero_grad()
        loss.backward()
        opt.step()
    starts.append(losses[0])
    finals.append(losses[-1])
print("epoch 1:", np.round(starts, 4), " epoch 100:", np.round(finals, 4))
check("table_starts_at_ln_ten", abs(2.3025 - math.log(10)), at_most=1e-4)
check("starts_at_ln_ten", np.abs(np.array(starts) / math.log(10) - 1), at_most=0.05)
check("ends_far_above_the_table", min(finals) / 0.0012, at_least=20)

# %% [markdown]
# The end is far above the table's. It depends on the network; but a table from a program that does
# not run is no measurement. And with one training pair and no held-out
# text, even a true 0.0012 would show only that a table was learned by heart, (16.8).
#
# ### Judging by the data that chose (S0:71, S0:506)
#
# S0 names two parts of the data, for training and for validation, and ends its recipe by adjusting
# on the validation part until the result satisfies. By (16.26) the satisfying number is then
# biased. An extreme case: 1,000 "models" that guess coin flips, judged on 50 of them.

# %%
flips = rng.integers(0, 2, 100)
guesses = rng.integers(0, 2, (1000, 100)) == flips  # (models, flips)
chosen = guesses[:, :50].mean(1).argmax()
print(f"validation accuracy of the best: {guesses[chosen, :50].mean():.0%}, "
      f"its test accuracy: {guesses[chosen, 50:].mean():.0%}")
best_of = guesses[:, :50].mean(1).reshape(20, 50).max(1)  # 20 searches among 50 models each
test_of = guesses[np.arange(20) * 50 + guesses[:, :50].mean(1).reshape(20, 50).argmax(1), 50:]
check("chosen_guessers_look_good", best_of.mean(), at_least=0.6)
check("and_are_guessers", abs(test_of.mean() - 0.5), at_most=0.08)

# %% [markdown]
# ### "The probability of each word" (S1:15)
#
# S1 writes $P(w_1,\dots,w_T)$ and calls it the probability of each word. It is *one* number, for
# the whole sequence. What a model outputs for each word is $p(w_k\mid w_1,\dots,w_{k-1})$, and
# (16.4) multiplies them. The words' own probabilities would not do: their product is another
# distribution, as the 125 sequences of the first section show.

# %%
joint = np.exp(-charges(tiny, np.column_stack([np.full(125, 2), every[:, :2]]), every).sum(1))
joint = joint.reshape(5, 5, 5)
alone = [joint.sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]  # each word's own probabilities
product = np.einsum("i,j,k->ijk", *alone)
print(f"sums: {joint.sum():.6f} and {product.sum():.6f}; "
      f"largest ratio {np.max(joint / product):.2f}")
check("one_number_a_sequence", abs(joint.sum() - 1), at_most=1e-12)
check("no_product_of_single_words", np.max(joint / product) - 1, at_least=0.1)

# %% [markdown]
# ### Two flow charts (S0:35-43, S4:1046-1053)
#
# S4 draws training as a chain: preprocess, initialise, train, evaluate, optimise, end. Optimising
# is what training *is*, and evaluation decides whether to go on: there has to be a loop, and the
# chain has none. Nor does it have a validation part, or a fine-tuning stage. S0's chart is a chain
# of concepts, from "language model" over "Transformer" and "pre-training" to "downstream task". Its
# arrows mean *uses*, *is a kind of* and *comes before*, by turns. An autoregressive model does not
# follow from pre-training; it is what is pre-trained.
#
# A graph has a loop if some number of steps leads from a node back to itself: if a power of its
# adjacency matrix has a diagonal that is not zero.

# %%
PLACES = {  # name -> x, y
    "text": (0, 3), "without duplicates,\nsplit by document": (1.45, 3), "tokenizer": (3, 3),
    "training windows": (3, 2), "first weights": (0, 1),
    "forward, loss, backward,\nclip, AdamW": (1.45, 1), "weights": (3, 1),
    "validation loss": (4.6, 1), "best checkpoint": (4.6, 2), "fine-tuning": (4.6, 3),
    "test part, once": (6, 3),
}
ARROWS = [(0, 1, ""), (1, 2, "training part"), (2, 3, ""), (3, 5, "a batch"), (4, 5, ""),
          (5, 6, ""), (6, 5, "each step"), (6, 7, "every k steps"), (7, 8, "if lower"),
          (7, 3, "go on"), (8, 9, "then"), (9, 10, "then")]
THEIRS = [(i, i + 1) for i in range(5)]  # S4's chain of six boxes


def has_loop(arrows):
    size = 1 + max(max(arrow[:2]) for arrow in arrows)
    step = np.zeros((size, size))
    for start, end, *_ in arrows:
        step[start, end] = 1
    return sum(np.trace(np.linalg.matrix_power(step, k)) for k in range(1, size + 1)) > 0


check("their_chain_has_no_loop", float(has_loop(THEIRS)), at_most=0)
check("training_is_a_loop", float(has_loop(ARROWS)), at_least=1)

# %%
fig, axes = plt.subplots(figsize=(10, 4.2))
boxes, places = [], list(PLACES.values())
for i, (name, (x, y)) in enumerate(PLACES.items()):
    colour = "#dceaf7" if i in (3, 5, 6, 7) else "#fff3d6"
    boxes.append(axes.text(x, y, name, ha="center", va="center", size=11,
                           bbox={"boxstyle": "round,pad=0.4", "fc": colour, "ec": GREY}))
for start, end, label in ARROWS:
    loop = (start, end) in ((6, 5), (7, 3))
    bend = {(6, 5): 0.45, (7, 3): 0.25}.get((start, end), 0)
    axes.annotate("", places[end], places[start], arrowprops={
        "arrowstyle": "-|>", "color": RED if loop else GREY, "lw": 2 if loop else 1.3,
        "patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch(),
        "shrinkA": 0, "shrinkB": 0, "connectionstyle": f"arc3,rad={-bend}"})
    x, y = (np.array(places[start]) + places[end]) / 2
    dx, dy = {(1, 2): (0.05, 0.26), (6, 5): (0, -0.62), (6, 7): (0, -0.22), (7, 3): (0.05, 0.2),
              (3, 5): (-0.3, 0.12)}.get(
        (start, end), (0, 0.12) if places[start][1] == places[end][1] else (0.35, 0))
    axes.text(x + dx, y + dy, label, size=10, color=RED if loop else GREY, ha="center")
axes.set(xlim=(-0.5, 6.7), ylim=(0.2, 3.5))
axes.axis("off")
axes.set_title("Pre-training is a loop within a loop: every step, and every evaluation")
save_figure(fig, "16_loop.svg")
plt.show()

# %% [markdown]
# Two loops: a step leads to the next weights, and an evaluation decides whether to go on. What is
# chosen by the validation loss is the checkpoint that fine-tuning starts from, and the test part
# stands at the end, read once.
#
# ## Exercises
#
# Each has a stub to fill in and a cell that tries it. Solutions are in
# `solutions/16_pretraining.py`.

# %% [markdown]
# ### Exercise 16.1: Bits per character
#
# *Difficulty 1 of 5 · 10 minutes · 1 point*
#
# A model was scored on a text in micro-batches. You get, for each, the mean nats per token and the
# number of tokens, and the text itself. Return the bits per character of the whole.
#
# <details><summary>Hint 1</summary>
#
# What does a micro-batch contribute to $-\ln P(\text{text})$? A mean is not a sum.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# (16.24): all nats, over the characters of the text, over $\ln2$. The number of tokens is needed
# only to undo the means.
#
# </details>


# %% exercise="16.1" role="stub"
def bits_per_character(losses, tokens, text):
    """Bits per character of a text. losses: mean nats per token of each part, (K,).

    tokens: how many tokens each part has, (K,). text: the string. -> a number.
    """
    raise NotImplementedError


# %% exercise="16.1" role="check"
def check_16_1(bits_per_character):
    """Certain tokens cost nothing; a coin flip for each character costs one bit a character."""
    got = bits_per_character([math.log(2), math.log(2)], [3, 3], "abcdef")
    assert abs(got - 1) < 1e-9, "six tokens, six characters, ln 2 nats each: 1 bit a character"
    got = bits_per_character([math.log(4)], [3], "abcdef")
    assert abs(got - 1) < 1e-9, "tokens of two characters at ln 4 nats: 1 bit a character still"
    got = bits_per_character([0.0, math.log(2)], [6, 2], "abcdefgh")
    assert abs(got - 0.25) < 1e-9, "two of eight characters cost a bit; parts differ in size"


attempt(check_16_1, bits_per_character)

# %% [markdown]
# ### Exercise 16.2: Accumulate micro-batches of any size
#
# *Difficulty 2 of 5 · 20 minutes · 2 points*
#
# `loss_of(part)` gives, for a list of windows, the *mean* loss over its windows and that mean's
# gradient, an array $(P)$. It refuses lists that are empty or have more than `most` windows. Write
# the loss and the gradient of a batch of any size, clipped to a norm of at most `clip`. Do not
# change the arrays that `loss_of` hands out: it may hand out the same ones again.
#
# <details><summary>Hint 1</summary>
#
# The last part may be smaller than the others. (16.16) says what it weighs.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Clip once, when everything has been added up. A gradient of 0 must not be divided by its norm.
#
# </details>


# %% exercise="16.2" role="stub"
def batch_gradient(loss_of, windows, most, clip):
    """Mean loss over windows (a list), and its gradient (P,), of norm <= clip.

    loss_of(part): mean loss and gradient (P,) of a list of 1..most windows.
    """
    raise NotImplementedError


# %% exercise="16.2" role="check"
def check_16_2(batch_gradient):
    """The same as one large batch, whatever the size of the parts."""
    points = np.random.default_rng(2).normal(size=(10, 3)) + 1

    def loss_of(part, most=4):
        assert 1 <= len(part) <= most, f"loss_of takes 1 to {most} windows, got {len(part)}"
        chosen = points[part]
        return (chosen**2).sum(1).mean(), 2 * chosen.mean(0)

    loss, g = batch_gradient(loss_of, list(range(10)), 4, 1e9)
    assert abs(loss - (points**2).sum(1).mean()) < 1e-9, "the loss is not the mean over all windows"
    assert np.abs(g - 2 * points.mean(0)).max() < 1e-9, "the gradient is not that of one batch"
    _, g = batch_gradient(loss_of, list(range(10)), 4, 0.5)
    want = 2 * points.mean(0)
    assert abs(np.linalg.norm(g) - 0.5) < 1e-9, "a long gradient must come out with norm clip"
    assert g @ want / np.linalg.norm(want) > 0.5 - 1e-9, "clipping must not turn the gradient"


attempt(check_16_2, batch_gradient)

# %% [markdown]
# ### Exercise 16.3: A standard error by blocks
#
# *Difficulty 2 of 5 · 20 minutes · 2 points*
#
# Given the charges of $n$ held-out tokens in their order, cut them into $m$ consecutive blocks as
# equal as possible (the first $n\bmod m$ blocks one longer). Return the mean over all tokens and
# its standard error by blocks. As blocks may differ by one token, use the form (16.23).
#
# <details><summary>Hint 1</summary>
#
# `np.array_split` cuts like that.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# For each block you need its sum and its length. $r_j$ is the sum, less the length times the mean
# over all tokens.
#
# </details>


# %% exercise="16.3" role="stub"
def error_by_blocks(charge, m):
    """Mean of charge (n,), and its standard error from m blocks of neighbours. -> two numbers."""
    raise NotImplementedError


# %% exercise="16.3" role="check"
def check_16_3(error_by_blocks):
    """Right for hand-made blocks, and larger than the naive error where neighbours agree."""
    mean, error = error_by_blocks(np.array([1.0, 1, 3, 3]), 2)
    assert abs(mean - 2) < 1e-12, "the mean is that of all tokens"
    assert abs(error - 1) < 1e-12, "two blocks with means 1 and 3: the standard error is 1"
    r = np.random.default_rng(3)
    moods = np.repeat(r.normal(size=40), 25)  # 40 blocks in which all charges agree
    _, error = error_by_blocks(moods, 40)
    assert error > 3 * moods.std() / 1000**0.5, "agreeing neighbours must raise the error"
    x = r.normal(size=1003)
    mean, error = error_by_blocks(x, 10)
    assert abs(mean - x.mean()) < 1e-12, "no token may be left out"
    assert 0.3 < error / (x.std() / 1003**0.5) < 2, "independent charges: near the naive error"


attempt(check_16_3, error_by_blocks)

# %% [markdown]
# ### Exercise 16.4: Padding must not matter
#
# *Difficulty 3 of 5 · 25 minutes · 3 points*
#
# Sequences of unlike length are padded to a rectangle. `mask` $(B,T)$ is true where a target
# counts. Write the mean charge over the targets that count, and its gradient in the logits. What
# stands in a padded place, in logits or targets, must not matter at all: it may be infinite or
# NaN, and a target may be $-1$. If nothing counts, the loss and the gradient are 0.
#
# <details><summary>Hint 1</summary>
#
# $0\cdot\mathrm{NaN}$ is NaN. Multiplying by the mask is too late.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Boolean indexing, `logits[mask]`, takes out what counts, as $(n,V)$. Do everything there, and put
# the gradient back into an array of zeros.
#
# </details>


# %% exercise="16.4" role="stub"
def masked_loss(logits, targets, mask):
    """Mean nats over the targets where mask is true, and dlogits.

    logits (B, T, V) float, targets (B, T) int, mask (B, T) bool -> a number, (B, T, V).
    """
    raise NotImplementedError


# %% exercise="16.4" role="check"
def check_16_4(masked_loss):
    """Only what counts is counted, and the gradient agrees with differences."""
    r = np.random.default_rng(4)
    logits, targets = r.normal(size=(2, 3, 4)), r.integers(0, 4, (2, 3))
    mask = np.array([[True, True, False], [True, False, False]])
    loss, d = masked_loss(logits, targets, mask)
    rows = logits[mask] - np.log(np.exp(logits[mask]).sum(-1, keepdims=True))
    assert abs(loss + rows[range(3), targets[mask]].mean()) < 1e-9, "the loss is a mean over 3"
    assert d.shape == logits.shape, "dlogits has the shape of logits"
    slope = central_differences(lambda z: masked_loss(z, targets, mask)[0], logits)
    assert np.abs(d - slope).max() < 1e-8, "dlogits is not the gradient"
    dirty, marked = logits.copy(), np.where(mask, targets, -1)
    dirty[~mask] = np.nan
    again, d2 = masked_loss(dirty, marked, mask)
    assert again == loss and (d2 == d).all(), "what stands in padded places must not matter"


attempt(check_16_4, masked_loss)

# %% [markdown]
# ### Exercise 16.5: Find a leak
#
# *Difficulty 3 of 5 · 30 minutes · 3 points*
#
# Exact duplicates are easy to remove. Near-duplicates (a changed word, a new first line) stay, and
# leak too. A test for them: which share of the held-out characters lies in a run of `n` characters
# that stands somewhere in the training text, letter for letter?
#
# <details><summary>Hint 1</summary>
#
# Put all runs of `n` characters of the training text into a set.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Runs overlap. If the run that starts at $i$ is known, the characters $i$ to $i+n-1$ are covered;
# count each covered character once.
#
# </details>


# %% exercise="16.5" role="stub"
def leaked_share(train, held_out, n):
    """Share of held_out's characters that lie in a run of n which train holds too. -> 0..1."""
    raise NotImplementedError


# %% exercise="16.5" role="check"
def check_16_5(leaked_share):
    """Right for small strings: whole, partial and overlapping runs."""
    assert leaked_share("abcdef", "uvwxyz", 3) == 0, "no run in common"
    assert leaked_share("xxabcxx", "abc", 3) == 1, "all of it stands in the training text"
    assert abs(leaked_share("abcd", "zzabcd", 3) - 4 / 6) < 1e-12, "overlapping runs: 4 of 6"
    assert abs(leaked_share("abc", "abcabz", 3) - 3 / 6) < 1e-12, "'ab' alone is shorter than 3"
    assert leaked_share("abcd", "ab", 3) == 0, "a text shorter than n holds no run of n"


attempt(check_16_5, leaked_share)

# %% [markdown]
# ### Exercise 16.6: Resume a trainer that you did not write
#
# *Difficulty 5 of 5 · 40 minutes · 4 points*
#
# The class `Toy` in the check cell is a trainer with everything that makes resuming hard: momentum,
# a step counter that sets the rate, a shuffled epoch of which a part is done, and a generator.
# Write `snapshot(trainer)`. It returns the whole state as **text** (a string of JSON) and a
# function `restore(text, other)` that brings *another* `Toy`, made with another seed, to exactly
# that state. After that both must go on bit for bit alike, however far the first has gone on in
# the meantime.
#
# The attributes of a `Toy`: `w` and `m`, float64 arrays $(P)$; `t`, the steps done; `order`, the
# shuffled indices of this epoch, an array of int; `place`, how many of them are used; `rng`, a
# generator. `step()` makes one step.
#
# <details><summary>Hint 1</summary>
#
# `rng.bit_generator.state` is a dictionary of numbers that can be read and set. `json` takes it as
# it is.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `array.tolist()` gives Python numbers, and JSON writes a float with as many digits as bring it
# back exactly. `w[...] = ` fills an array in place; `np.array(list)` makes a new one.
#
# </details>
#
# <details><summary>Hint 3</summary>
#
# Six attributes, six entries. Test by leaving one out: does your own test notice?
#
# </details>


# %% exercise="16.6" role="stub"
def snapshot(trainer):
    """The state of a Toy as JSON text, and restore(text, other) -> None, which gives it to other.

    Neither may change trainer, and text must be all that restore needs.
    """
    raise NotImplementedError


# %% exercise="16.6" role="check"
class Toy:
    """Momentum on noisy linear regression, one shuffled example a step."""

    def __init__(self, seed, P=3, n=7):
        self.rng = np.random.default_rng(seed)
        self.w, self.m, self.t = self.rng.normal(size=P), np.zeros(P), 0
        self.order, self.place = self.rng.permutation(n), 0
        self.x = np.random.default_rng(0).normal(size=(n, P))  # the data, the same for all

    def step(self):
        if self.place == len(self.order):
            self.order, self.place = self.rng.permutation(len(self.order)), 0
        x = self.x[self.order[self.place]]
        noise = self.rng.integers(0, 2**20) / 2**20
        self.m = 0.9 * self.m + (x @ self.w - x.sum() - noise) * x
        self.w = self.w - 0.05 / (1 + 0.1 * self.t) * self.m
        self.t, self.place = self.t + 1, self.place + 1


def check_16_6(snapshot):
    """A Toy restored in the middle of an epoch goes on exactly as the first one did."""
    first = Toy(seed=1)
    for _ in range(9):  # one epoch of 7, and 2 steps
        first.step()
    kept = first.w.copy()
    text, restore = snapshot(first)
    assert isinstance(text, str), "the state must be text"
    assert json.loads(text) is not None, "the text must be JSON"
    assert (first.w == kept).all() and first.t == 9, "snapshot changed the trainer"
    for _ in range(12):
        first.step()
    second = Toy(seed=2)
    restore(text, second)
    for _ in range(12):
        second.step()
    assert second.t == first.t, "the steps are counted differently"
    assert (second.w == first.w).all(), "the two trainers are no longer alike"


attempt(check_16_6, snapshot)

# %% [markdown]
# ## What was checked
#
# | equation or claim | check | bound |
# |---|---|---|
# | (16.1) mean of four tokens, in bits and nats | `four_tokens` | <= 0.0005 |
# | seven bits on seven characters | `seven_characters` | <= 1e-15 |
# | (16.2) means of parts, weighted by size | `mean_of_means` | <= 1e-15 |
# | unweighted they mislead | `unequal_parts_mislead` | >= 0.2 |
# | (16.3) an average over context lengths 1 to T | `average_over_context_lengths` | <= 1e-12 |
# | (16.4) the chain rule makes a distribution over sequences | `sequences_sum_to_one` | <= 1e-12 |
# | (16.5) summed nats are minus the log-likelihood | `likelihood_and_nats` | <= 1e-12 |
# | (16.6) cross-entropy is entropy plus divergence | `entropy_plus_kl` | <= 1e-12 |
# | (16.7) the divergence is not negative | `kl_is_not_negative` | <= 0 |
# | a long text of the source has its entropy | `the_text_has_that_entropy` | <= 0.05 |
# | (16.8) training below the floor, held out above it | `training_goes_below` | <= 0.001 |
# | (16.9) by (V - 1) / 2N each | `gap_is_parameters_over_tokens` | <= 0.05 |
# | (16.10) a fresh GPT starts at ln V | `starts_at_ln_v` | <= 0.01 |
# | (16.11) what logits of variance sigma^2 add | `large_logits_cost` | <= 0.05 |
# | windows' gradients average to the full one | `mean_of_window_gradients` | <= 1e-12 |
# | (16.12) unbiased, in standard errors | `unbiased_for_every_batch` | <= 3 |
# | (16.13) squared error tau / B | `variance_falls_as_one_over_b` | <= 0.1 |
# | (16.14) without replacement | `without_replacement` | <= 0.1 |
# | (16.15) squared norm is signal plus noise | `norm_is_signal_plus_noise` | <= 0.1 |
# | (16.17) equal micro-batches | `equal_parts_average` | <= 1e-12 |
# | (16.16) unequal ones, weighted by size | `unequal_parts_are_weighted` | <= 1e-12 |
# | unweighted they are another gradient | `unequal_parts_must_be` | >= 0.05 |
# | (16.18) clipping each part, as written | `clip_each_as_written` | <= 1e-12 |
# | it is another vector | `clip_each_is_another_vector` | >= 0.05 |
# | (16.19) it can turn the direction round | `clip_each_turns_round` | <= 1e-12 |
# | (16.20) a factor moves Adam's eps alone | `factor_moves_eps_alone` | <= 1e-12 |
# | Adam hides a factor of 4 | `adam_hides_a_factor` | <= 0.0001 |
# | (16.21) variance of a mean of correlated charges | `variance_with_correlation` | <= 0.15 |
# | (16.22) blocks see it | `blocks_see_it` | <= 0.25 |
# | the formula for independent ones does not | `naive_error_is_too_small` | >= 2 |
# | (16.23) standard error by documents | `documents_see_it` | <= 0.25 |
# | (16.23) with equal lengths is (16.22) | `equal_documents_are_blocks` | <= 1e-12 |
# | (16.24) bits per character, two tokenizers | `bits_per_character` | <= 1e-12 |
# | (16.24) they are minus log2 of the probability | `bits_are_minus_log_two_of_p` | <= 1e-12 |
# | the higher perplexity | `perplexity_looks_worse` | >= 1.5 |
# | belongs to the model with fewer bits | `though_its_bits_are_fewer` | >= 0.02 |
# | (16.25) pairs square the perplexity, not the bits | `pairs_square_the_perplexity` | <= 1e-12 |
# | (16.26) the lowest of K lies between its bounds | `lowest_is_within_bounds` | <= 0 |
# | (16.26) the lowest of two | `lowest_of_two` | <= 0.04 |
# | the lowest of 100 flatters by sigmas | `lowest_of_a_hundred` | >= 2 |
# | (16.28) six operations a weight and token, counted | `six_operations` | <= 1e-12 |
# | (16.29) operations per token of a GPT | `operations_per_token` | <= 0 |
# | some steps meet the bound, some do not | `some_steps_are_clipped_and_some_not` | >= 0.2 |
# | the package's losses are those by hand | `package_has_the_same_losses` | <= 1e-12 |
# | and its weights | `package_has_the_same_weights` | <= 1e-10 |
# | evaluation scores each token once | `each_token_scored_once` | <= 1e-12 |
# | with half a block of context or more | `with_half_a_block_at_least` | >= 4 |
# | (16.30) the whole state resumes exactly | `all_of_the_state_resumes_exactly` | <= 0 |
# | each part of it is needed | `every_part_is_needed` | >= 0.0001 |
# | (16.30) the package, killed and resumed | `killed_and_resumed_bit_for_bit` | <= 0 |
# | (16.16) package, composed, differences, complex step | `two_parts_vjp` | <= 1e-09 |
# | (16.17) four micro-batches, every tensor | `four_micro_batches_are_one_batch` | <= 1e-12 |
# | differences through the whole GPT, every tensor | `differences_through_the_gpt` | <= 1e-08 |
# | (16.16) the right accumulation | `weighted_parts_are_right` | <= 1e-12 |
# | not divided: four times too long | `undivided_is_four_times_too_long` | <= 1e-12 |
# | and in the right direction | `undivided_points_the_right_way` | <= 1e-12 |
# | three other mistakes turn it | `the_others_point_elsewhere` | >= 0.003 |
# | (16.20) Adam trains as before | `adam_trains_as_before` | <= 0.01 |
# | the bound is met more often | `clipping_notices` | >= 0.2 |
# | which makes another run | `clipping_makes_another_run` | >= 0.001 |
# | SGD notices | `sgd_notices` | >= 0.5 |
# | an honest loss is above the source's | `honest_loss_is_above_the_source` | >= 0 |
# | and near it | `honest_loss_is_near_the_source` | <= 0.1 |
# | unshifted targets pass the floor | `unshifted_targets_pass_the_floor` | >= 0.5 |
# | dropout at evaluation costs | `dropout_costs` | >= 0.02 |
# | and is random | `dropout_is_random` | >= 1e-05 |
# | the training loss passes the floor | `training_loss_passes_the_floor` | >= 0.1 |
# | the held-out loss turns | `held_out_loss_turns` | >= 0.1 |
# | early stopping helps on the test text | `early_stopping_helps_on_test` | >= 0.1 |
# | (16.27) a mixture of copied and new | `mixture_of_copied_and_new` | <= 1e-10 |
# | share of duplicated paragraphs | `a_fifth_are_duplicates` | >= 0.1 |
# | leakage lowers the loss, orders 5 to 7 | `leakage_flatters` | >= 0.05 |
# | order 7 gains more than order 2 | `more_memory_gains_more` | >= 0.1 |
# | copies choose another winner | `copies_choose_another_winner` | >= 1 |
# | the first half of a paragraph leaks too | `first_halves_leak` | >= 0.01 |
# | passes over the corpus | `sees_less_than_the_corpus_once` | <= 1 |
# | tokens a parameter | `few_tokens_a_parameter` | <= 4 |
# | charges by token are what the package averages | `scored_as_the_package_does` | <= 1e-05 |
# | (16.10) the run starts at ln V | `start_at_ln_v` | <= 0.02 |
# | the short run ends above the 3-gram | `above_the_trigram` | >= 0.02 |
# | and below the 2-gram | `below_the_bigram` | >= 0.1 |
# | training and held-out loss stay together | `nothing_is_over_fitted` | <= 0.1 |
# | by many standard errors | `far_beyond_the_noise` | >= 5 |
# | the error by documents is the larger | `documents_are_not_independent_tokens` | >= 1.1 |
# | a difference is known more sharply than a loss | `differences_are_sharper` | >= 1.5 |
# | (16.10) the long run starts at ln V | `long_run_starts_at_ln_v` | <= 0.02 |
# | it ends below all n-grams | `long_run_passes_every_ngram` | >= 0.02 |
# | not far below | `but_not_by_far` | <= 0.3 |
# | its training loss stays above the held-out one | `dropout_lifts_the_training_loss` | >= 0 |
# | stop words are a third of all words (S0:59) | `stop_words_are_a_third_of_the_text` | >= 0.3 |
# | they carry entropy | `they_carry_entropy` | >= 1.2 |
# | facts that lose a negation | `negations_are_lost` | >= 200 |
# | cleaned text trains a worse model | `cleaned_text_trains_a_worse_model` | >= 0.2 |
# | the embedding moves (S3:69) | `embedding_is_learned` | >= 1 |
# | and is one parameter | `embedding_is_a_parameter` | <= 0 |
# | never seen means never (S4:37) | `never_seen_means_never` | <= 0.02 |
# | worse than knowing nothing | `worse_than_knowing_nothing` | >= 1.5 |
# | a generative model classifies (S0:27) | `a_generative_model_classifies` | >= 0.9 |
# | the table's start is ln 10 (S0:365) | `table_starts_at_ln_ten` | <= 0.0001 |
# | (16.10) five seeds start near ln 10 | `starts_at_ln_ten` | <= 0.05 |
# | and end far above its end (S0:372) | `ends_far_above_the_table` | >= 20 |
# | the best of many guessers looks good (S0:506) | `chosen_guessers_look_good` | >= 0.6 |
# | and guesses | `and_are_guessers` | <= 0.08 |
# | (16.4) one number a sequence (S1:15) | `one_number_a_sequence` | <= 1e-12 |
# | which single words do not give | `no_product_of_single_words` | >= 0.1 |
# | S4's chain has no loop (S4:1046) | `their_chain_has_no_loop` | <= 0 |
# | training is a loop | `training_is_a_loop` | >= 1 |
#
# **Not checked:** the recorded long run, of which only the file is read; that its losses repeat on
# another machine (they do not, bit for bit); the bias of choosing a checkpoint on real data, where
# candidates are correlated; how far the bits per character of a byte-pair model lie above those
# summed over all ways of cutting the text; near-duplicates; the rule of 20 tokens a parameter; and
# what the cited papers report.
