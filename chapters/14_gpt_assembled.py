# %% [markdown]
# # 14 · GPT assembled
#
# ## Question
#
# How do the parts become one GPT, how do we know that the whole and every entry of its gradient
# are right, and what does a training step of it cost in parameters, operations, bytes and time?
#
# - **Read before:** [07](07_scaled_dot_product_attention.ipynb), [11](11_layer_norm.ipynb)
# - **Package file:** `minigpt/model.py` (`Block`, `GPT`), `minigpt/cost.py`
# - **Minutes:** 90 to read, 150 for the exercises
# - **Runs in:** about a minute on one core

# %% role="setup"
import inspect
import math
import time
import tracemalloc
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import cpu_count
from unittest.mock import patch

import numpy as np

from minigpt import backend, cost, data, memory, reference
from minigpt import functional as F
from minigpt.attention import BLOCK, KEPT
from minigpt.backend import on_host, to_numpy, xp
from minigpt.baselines.ngram import NGram
from minigpt.cache import KVCache
from minigpt.diagram.build import whole_diagram
from minigpt.drawing import BLUE, GREY, RED, plt, save_figure, style
from minigpt.evaluate import nats_per_token
from minigpt.gradcheck import check_parameters
from minigpt.lab import attempt, check, numpy_only, rel_error, show_table, witnesses
from minigpt.model import GPT, Block, GPTConfig
from minigpt.optim import Adam, AdamW, clip_grad_norm
from minigpt.parallel import DataParallel
from minigpt.recompute import recompute_blocks
from minigpt.schedules import warmup_cosine
from minigpt.tensor import Tensor, no_grad
from minigpt.tokenizer import CharTokenizer

try:
    import resource
except ImportError:  # not on Windows; used to count page faults
    resource = None

style()
rng = np.random.default_rng(14)

# %% [markdown]
# ## Intuition
#
# Take a number $x_0=8$ and two *branches* that read it and add what they make of it:
# $f_1(x)=\frac12x$ and $f_2(x)=\frac14x$. Then $x_1=8+4=12$ and $x_2=12+3=15$. Multiply out:
#
# $$x_2=\left(1+\tfrac12\right)\left(1+\tfrac14\right)x_0
# =x_0+\tfrac12x_0+\tfrac14x_0+\tfrac18x_0=8+4+2+1=15. \tag{14.1}$$
#
# Four *paths* lead from $x_0$ to $x_2$: past both branches, through one of them, or through both.
# Without the "$+x$" only the last is left, $\frac18x_0=1$. The derivative has the same four terms,
# and the first of them is 1 whatever the branches do. With 24 branches of $0.1$ each,
#
# $$\frac{\partial x_{24}}{\partial x_0}=1.1^{24}\approx9.85\quad\text{with the sums},\qquad
# 0.1^{24}=10^{-24}\quad\text{without}. \tag{14.2}$$
#
# That is the frame of a GPT. A vector for each token runs through the network, and nothing is ever
# done *to* it: branches read it and add to it. Attention is one kind of branch, and carries
# something from other tokens. The MLP is the other, and works on what is there. Everything else in
# this chapter is bookkeeping about that frame, of values, of gradients, and of cost.

# %%
x, paths = 8.0, [8.0]
for a in (1 / 2, 1 / 4):
    x, paths = x + a * x, paths + [a * path for path in paths]
print("x2 =", x, "=", " + ".join(f"{p:g}" for p in paths))
check("four_paths", [abs(x - 15), abs(sum(paths) - x)], at_most=1e-15)
deep = 1.0
for _ in range(24):
    deep += 0.1 * deep
check("twenty_four_branches", [abs(deep - 9.85) * 1e-3, 0.1**24], at_most=1e-5)

# %% [markdown]
# ## Derivation
#
# | symbol | shape | meaning |
# |---|---|---|
# | $s$ | $(T)$ | token ids $s_0,\dots,s_{T-1}$, each in $0..V-1$; a batch has $B$ such texts |
# | $E$, $P$ | $(V,C)$, $(T,C)$ | tables of tokens and of positions: `wte`, `wpe` |
# | $h^l$ | $(T,C)$ | the residual stream after block $l$; $h^0$ goes in, $h^L$ comes out |
# | $A_l$, $M_l$ | $(T,C)\to(T,C)$ | attention and MLP of block $l$, without their norms |
# | $N_1,N_2,N_f$ | $(T,C)\to(T,C)$ | layer norms: mean 0 and variance 1 a token, gain, offset |
# | $z$ | $(T,V)$ | logits |
# | $H$, $D=C/H$ | numbers | heads and their size |
# | $g$ | shape of what it belongs to | the incoming cotangent |
#
# ### The whole function
#
# A token's vector and its position's vector are added:
#
# $$h^0_t=E_{s_t}+P_t. \tag{14.3}$$
#
# Each of the $L$ blocks has two branches, each with its own norm before it (*pre-norm*):
#
# $$a^l=h^{l-1}+A_l\left(N_1(h^{l-1})\right),\qquad h^l=a^l+M_l\left(N_2(a^l)\right). \tag{14.4}$$
#
# A last norm, and then the table $E$ once more, now to compare with every token:
#
# $$z=N_f(h^L)\,E^\top. \tag{14.5}$$
#
# That is the whole network. Chapter 07 derived $A$, with the causal mask, and chapter 11 $N$.
# $M(x)=\mathrm{GELU}(xW_1+b_1)W_2+b_2$ with $W_1$ $(C,4C)$ and $W_2$ $(4C,C)$, each token by
# itself. The Code section computes it all by hand and compares. Insert (14.4) into itself, and the
# stream is a plain sum:
#
# $$h^L=h^0+\sum_{l=1}^{L}\Big(A_l\left(N_1(h^{l-1})\right)+M_l\left(N_2(a^l)\right)\Big).
# \tag{14.6}$$
#
# Every branch writes into the same $C$ channels, and every later branch reads all of them.
#
# In the code, `x.numpy()` is a Tensor's data as a NumPy array, to compute with by hand. The package
# may run on a GPU, whose arrays do not turn into NumPy's by themselves. (`to_numpy` does the same
# for a gradient, and `xp.asarray` takes an array the other way.)


# %%
def make(C=16, L=2, V=94, T=16, H=2, dtype="float64", seed=0, noise=0.0, **options):
    """A GPT; noise moves every parameter away from its quiet start."""
    rng = np.random.default_rng(seed)
    config = GPTConfig(V, T, n_layer=L, n_head=H, n_embd=C, **options)
    model = GPT(config, rng, dtype)
    for p in model.parameters():
        p.data += xp.asarray((noise * rng.normal(size=p.shape)).astype(dtype))
    return model


def read_stream(model, idx):
    """h^0 (B, T, C), and what each branch adds: a list of 2L arrays (B, T, C)."""
    with no_grad():
        x = model.wte(idx) + model.wpe(np.arange(idx.shape[1]))
        start, added = x.numpy(), []
        for block in model.h:
            for norm, branch in ((block.ln_1, block.attn), (block.ln_2, block.mlp)):
                out = branch(norm(x))
                added.append(out.numpy())
                x = x + out
    return start, added


model = make(noise=0.3, L=3)
idx = rng.integers(0, 94, (2, 16))
start, added = read_stream(model, idx)
with no_grad():
    logits = model(idx)
    by_sum = F.linear(model.ln_f(Tensor(start + sum(added))), model.wte.weight.T)
check("stream_is_a_sum", rel_error(by_sum, logits), at_most=1e-12)

# %% [markdown]
# ### Backward: the cotangent passes, and each branch adds to it
#
# One branch: $y=x+f(x)$, with the Jacobian $J=\partial f/\partial x$. Move $x$ by $u$; then $y$
# moves by $u+Ju$, and $g\cdot(u+Ju)=(g+J^\top g)\cdot u$. So
#
# $$dx=g+J^\top g. \tag{14.7}$$
#
# **The cotangent goes through a sum unchanged, and the branch adds its own.** For $n$ branches in
# a row multiply the Jacobians $I+J_k$ and expand, as in (14.1). There is one term for each choice
# of branches $k_1<\dots<k_m$, $2^n$ in all:
#
# $$\frac{\partial x_n}{\partial x_0}=(I+J_n)\cdots(I+J_1)
# =\sum_{m=0}^{n}\ \sum_{k_1<\dots<k_m}J_{k_m}\cdots J_{k_1}. \tag{14.8}$$
#
# The term with $m=0$ is $I$: the loss speaks to every layer directly. If a block's two output
# matrices and offsets are 0, it is the identity in both directions, and nothing is lost by its
# being there:
#
# $$W^{\mathrm{proj}}=0,\ b^{\mathrm{proj}}=0\quad\Rightarrow\quad h^l=h^{l-1},\quad
# dh^{l-1}=dh^l. \tag{14.9}$$

# %%
J = 0.5 * rng.normal(size=(5, 4, 4))
product, by_paths = np.eye(4), [np.eye(4)]
for J_k in J:
    product = (np.eye(4) + J_k) @ product
    by_paths = by_paths + [J_k @ path for path in by_paths]
print(len(by_paths), "paths through 5 branches")
check("sum_over_paths", rel_error(sum(by_paths), product), at_most=1e-12)
W = rng.normal(size=(4, 4))
x, u, g = rng.normal(size=(3, 4))
h = 1e-6
moved = [x + s * h * u + np.tanh((x + s * h * u) @ W) for s in (1, -1)]
slope = g @ (moved[0] - moved[1]) / (2 * h)  # of g . (x + f(x)) along u, f(x) = tanh(x W)
dx = g + (g * (1 - np.tanh(x @ W) ** 2)) @ W.T
check("residual_vjp", abs(slope / (dx @ u) - 1), at_most=1e-8)

block = make(noise=0.3).h[0]
for layer in (block.attn.c_proj, block.mlp.c_proj):
    layer.weight.data[...] = 0
    layer.bias.data[...] = 0
x = Tensor(rng.normal(size=(2, 16, 16)), requires_grad=True)
g = rng.normal(size=x.shape)
y = block(x)
y.backward(g)
check("empty_block_is_the_identity",
      [np.abs(y.numpy() - x.numpy()).max(), np.abs(to_numpy(x.grad) - g).max()], at_most=0)

# %% [markdown]
# ### Post-norm: a gate on the highway
#
# The first transformer put the norm *after* the sum: $x_k=N(x_{k-1}+f_k(x_{k-1}))$. Let $\Pi$ be
# the projection that takes away a token's mean, and $r_k$ the reciprocal standard deviation of what
# is normed, one number a token. Without gain and offset, $N(y)=r\,\Pi y$, and $\Pi\Pi=\Pi$. Unroll:
#
# $$x_n=\Big(\prod_{k=1}^{n}r_k\Big)\Pi x_0+\sum_{k=1}^{n}\Big(\prod_{j=k}^{n}r_j\Big)\Pi f_k.
# \tag{14.10}$$
#
# In pre-norm all weights in the sum are 1. Here the stream is multiplied again after each branch.
# If $x_{k-1}$ has variance 1 and $f_k$, unrelated to it, $s^2$, then $r_k=1/\sqrt{1+s^2}$. So of
# the variance of $x_n$, the share that is still the token itself is
#
# $$\text{post-norm: }\prod_{k=1}^{n}r_k^2=\frac1{(1+s^2)^n},\qquad
# \text{pre-norm: }\frac1{1+ns^2}. \tag{14.11}$$
#
# At $s=1$ and 24 branches: $6\cdot10^{-8}$ against $\frac1{25}$. Exponential against polynomial.
#
# **Gradients.** In pre-norm a branch reads $N(x)$, and the norm divides by the stream's standard
# deviation $\sigma_k$, forward and therefore backward:
# $|J_k^\top g|^2\approx\frac{v}{\sigma_k^2}|g|^2$ for a branch that turns variance 1 into variance
# $v$ (and is unrelated to $g$). The stream's own variance grows by $v$ too. So
# $|g_{k-1}|^2=|g_k|^2\,(1+v/\sigma_{k-1}^2) =|g_k|^2\,\sigma_k^2/\sigma_{k-1}^2$, and the product
# telescopes:
#
# $$|g_k|\,\sigma_k\approx\text{the same for all }k. \tag{14.12}$$
#
# The gradient at the input is $\sigma_n/\sigma_0$ times that at the output: a factor like
# $\sqrt n$, for any depth. (It is a law of the mean, of random weights: check it, do not trust it.)

# %%
n, s = 6, 0.9
x0, f = rng.normal(size=(4, 50)), s * rng.normal(size=(n, 4, 50))  # four tokens of 50 channels
x, r = x0 / 1, []
for f_k in f:
    y = x + f_k
    r.append(1 / y.std(-1, keepdims=True))
    x = r[-1] * (y - y.mean(-1, keepdims=True))
centred = [y - y.mean(-1, keepdims=True) for y in (x0, *f)]
unrolled = np.prod(r, axis=0) * centred[0] + sum(
    np.prod(r[k:], axis=0) * centred[k + 1] for k in range(n))
check("post_norm_unrolled", rel_error(unrolled, x), at_most=1e-12)

wide = rng.normal(size=300_000)
pre, post, gates = wide, wide, 1.0
for _ in range(10):
    f_k = s * rng.normal(size=300_000)
    pre, y = pre + f_k, post + f_k
    post, gates = y / y.std(), gates / y.var()
shares = [np.corrcoef(stream, wide)[0, 1] ** 2 for stream in (pre, post)]  # of the variance
predicted = [1 / (1 + 10 * s**2), (1 + s**2) ** -10]
show_table(["10 branches, s = 0.9", "own share, measured", "(14.11)"],
           [["pre-norm", shares[0], predicted[0]], ["post-norm", gates, predicted[1]]])
check("own_share", [abs(shares[0] / predicted[0] - 1), abs(gates / predicted[1] - 1)],
      at_most=0.04)
check("post_norm_forgets", shares[0] / shares[1], at_least=10)

# %% [markdown]
# Now real blocks, with matrices of variance $1/n_{\mathrm{in}}$, so that branches are as strong as
# the stream. Three ways to join them: as in (14.4), post-norm, and with no sums at all.


# %%
class PostNorm(Block):
    """x = norm(x + attention(x)), then x = norm(x + MLP(x))."""

    def __call__(self, x, rng=None, bias=None):
        x = self.ln_1(x + self.attn(x))
        return self.ln_2(x + self.mlp(x))


class NoSums(Block):
    """The branches, one after the other."""

    def __call__(self, x, rng=None, bias=None):
        return self.mlp(self.ln_2(self.attn(self.ln_1(x))))


def likeness(x):
    """Mean cosine between the centred vectors of two tokens of a text. x (B, T, C)."""
    x = x - x.mean(-1, keepdims=True)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    T = x.shape[1]
    return float(((x @ x.swapaxes(1, 2)).sum((1, 2)) - T).mean() / (T * T - T))


def through(kind, L, strong=True, C=64, seed=0):
    """By depth 0..L: the stream's rms, its gradient's rms, the likeness of its tokens."""
    model, rng = make(C, L, T=32, H=4, seed=seed), np.random.default_rng(seed + 1)
    idx = rng.integers(0, 94, (4, 32))
    x = model.wte.weight.numpy()[idx] + model.wpe.weight.numpy()
    if strong:
        x = x / x.std()
        for p in model.decayed_parameters():
            p.data[...] = xp.asarray(rng.normal(0, p.shape[0] ** -0.5, p.shape))
    stream, outs = [Tensor(x, requires_grad=True)], []
    for block in model.h:
        block.__class__ = kind
        outs.append(block(stream[-1]))
        stream.append(Tensor(outs[-1].data, requires_grad=True))  # a cut: its gradient is read
    g = rng.normal(size=x.shape)
    if kind is not PostNorm:  # whose stream is normed already
        model.ln_f(stream[-1]).backward(g)
        g = stream[-1].grad
    for x, out in zip(stream[-2::-1], outs[::-1], strict=True):
        out.backward(g)
        g = x.grad
    grads = [x.grad for x in stream[:-1]] + [stream[-1].grad if kind is not PostNorm else None]
    sizes = [np.nan if d is None else (to_numpy(d) ** 2).mean() ** 0.5 for d in grads]
    values = [x.numpy() for x in stream]
    return np.array([[(x**2).mean() ** 0.5 for x in values], sizes, [*map(likeness, values)]])


runs = {name: through(kind, 24) for name, kind in
        (("pre-norm", Block), ("post-norm", PostNorm), ("no sums", NoSums))}
quiet = through(Block, 24, strong=False)  # GPT-2's own start
show_table(["24 blocks", "stream rms in, out", "gradient rms in, out", "tokens alike, in, out"],
           [[name, *(f"{row[0]:.3g}, {row[last]:.3g}" for row, last in
             zip(run, (-1, -2, -1), strict=True))]
            for name, run in (*runs.items(), ("pre-norm, GPT-2's start", quiet))])
strong = runs["pre-norm"]
seeds = [through(Block, 12, seed=seed) for seed in (1, 2, 3)]
slopes = [np.polyfit(np.log(run[0]), np.log(run[1]), 1)[0] for run in (strong, *seeds)]
print("gradient ~ stream to the power of", np.round(slopes, 2))
check("gradient_goes_as_one_over_stream", np.abs(np.array(slopes) + 1), at_most=0.25)
law = quiet[1] * quiet[0] / (quiet[1, -1] * quiet[0, -1])
check("closer_at_gpt2s_start", np.abs(law - 1), at_most=0.06)
check("while_the_stream_itself_grows", strong[0, -1] / strong[0, 0], at_least=3)
check("pre_norm_keeps_tokens_apart", strong[2, -1], at_most=0.9)
check("post_norm_makes_them_alike", runs["post-norm"][2, -1], at_least=0.97)
check("so_does_a_stack_without_sums", runs["no sums"][2, -1], at_least=0.999)

# %% [markdown]
# The gradients are *not* what tells the three apart here: none of them vanishes, since norms keep
# them up. What dies without sums is the difference between tokens (Dong, Cordonnier and Loukas
# 2021, arXiv:2103.03404): after 24 blocks all tokens of a text are one vector, and there is nothing
# left to predict from. Post-norm does the same, more slowly, by (14.11).
#
# ### Why the last matrix of each branch starts smaller
#
# GPT-2 starts all weights at $N(0,0.02^2)$, but the $2L$ matrices that write into the stream with
# the standard deviation $\rho=0.02/\sqrt{2L}$. Follow the variance of a channel. At the start
#
# $$\mathrm{Var}(h^0)=0.02^2+0.02^2=8\cdot10^{-4}. \tag{14.13}$$
#
# A norm makes the variance 1. A matrix of $C$ inputs then gives $\varsigma^2=0.02^2C$. In the MLP
# that passes through GELU, which has $4C$ outputs to be added up with weights of variance $\rho^2$:
#
# $$\mathrm{Var}(M)=4C\rho^2\;\mathbb E\left[\mathrm{GELU}(\varsigma u)^2\right],\qquad
# u\sim N(0,1). \tag{14.14}$$
#
# In attention the scores are nearly 0 at first, so token $t$ takes the plain mean of $t+1$ values
# of variance $\varsigma^2$. If the tokens are unrelated, the variance of that mean is
# $\varsigma^2/(t+1)$. If they are all alike, it is $\varsigma^2$. The output matrix makes of it
#
# $$C\rho^2\varsigma^2\cdot\frac1T\sum_{t=1}^{T}\frac1t
# \ \le\ \mathrm{Var}(A)\ \le\ C\rho^2\varsigma^2, \tag{14.15}$$
#
# the left side for unrelated tokens. The branches are unrelated to each other, so variances add up:
#
# $$\mathrm{Var}(h^L)=8\cdot10^{-4}+\sum_{l=1}^{L}\big(\mathrm{Var}(A_l)+\mathrm{Var}(M_l)\big)
# \ \propto\ 2L\rho^2\text{ for large }L. \tag{14.16}$$
#
# With $\rho=0.02$ the stream grows with depth, and so later branches, of variance that the norm
# makes the same for all, have less and less to say. With $\rho=0.02/\sqrt{2L}$ the sum is that of
# *one* layer, at any depth.

# %%
nodes, weights = np.polynomial.hermite_e.hermegauss(60)  # means over N(0, 1)


def gelu_power(sd):
    """The mean of GELU(sd * u)^2."""
    with np.errstate(over="ignore"):
        return weights @ F.gelu(Tensor(sd * nodes)).numpy() ** 2 / weights.sum()


def branch_variances(C, T, rho):
    """What (14.14) and (14.15) say: MLP, attention of unrelated tokens, of equal ones."""
    values = C * 0.02**2
    most = C * rho**2 * values
    return 4 * C * rho**2 * gelu_power(values**0.5), most * (1 / np.arange(1, T + 1)).mean(), most


def variances(C, L, scaled, T=32, texts=8):
    """Measured: h^0, attention and MLP of the first block, h^L, and the rho used."""
    model = make(C, L, T=T, H=4, dtype="float32", seed=L)
    rho = 0.02 / (math.sqrt(2 * L) if scaled else 1)
    for block in model.h:
        for layer in (block.attn.c_proj, block.mlp.c_proj):
            layer.weight.data *= rho * math.sqrt(2 * L) / 0.02
    start, added = read_stream(model, np.random.default_rng(L).integers(0, 94, (texts, T)))
    return [(x**2).mean() for x in (start, *added[:2], start + sum(added))], rho


DEPTHS = (2, 4, 8, 16, 32)
measured = {scaled: [variances(64, L, scaled) for L in DEPTHS] for scaled in (True, False)}
found, errors, within, gaps = [], [], [], []
for scaled, results in measured.items():
    for L, ((first, att, mlp, last), rho) in zip(DEPTHS, results, strict=True):
        want_mlp, least, most = branch_variances(64, 32, rho)
        errors.append([abs(first / 8e-4 - 1), abs(mlp / want_mlp - 1)])
        within.append([least / att, att / most])
        bounds = 8e-4 + L * (want_mlp + least), 8e-4 + L * (want_mlp + most)
        gaps.append([bounds[0] / last, last / bounds[1]])
        found.append(["0.02 / sqrt(2L)" if scaled else "0.02", L, last, *bounds])
show_table(["rho", "L", "Var(h^L) x 1000", "least", "most"],
           [[*row[:2], *(1000 * v for v in row[2:])] for row in found[::2] + found[-1:]])
check("variance_at_the_start", [e[0] for e in errors], at_most=0.1)
check("variance_of_an_mlp", [e[1] for e in errors], at_most=0.12)
check("variance_of_attention", within, at_most=1.15)
check("variance_adds_up", gaps, at_most=1.1)
ends = [[r[0][3] for r in results] for results in measured.values()]
check("scaled_stays", abs(ends[0][-1] / ends[0][0] - 1), at_most=0.25)
check("unscaled_grows", ends[1][-1] / ends[1][0], at_least=8)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
for scaled, colour in ((False, RED), (True, BLUE)):
    left.plot(DEPTHS, [r[0][3] for r in measured[scaled]], "o-", color=colour)
low = [8e-4 + L * sum(branch_variances(64, 32, 0.02)[:2]) for L in DEPTHS]
high = [8e-4 + L * sum(branch_variances(64, 32, 0.02)[::2]) for L in DEPTHS]
left.fill_between(DEPTHS, low, high, color=RED, alpha=0.15, lw=0)
left.text(2, 0.022, "last matrices at 0.02:\nbetween the bounds\nof (14.16)", color=RED)
left.text(8, 0.00065, "at 0.02 / sqrt(2L): flat", color=BLUE, ha="center", va="top")
left.set(xscale="log", yscale="log", xlabel="blocks, L", ylabel="variance of the stream's end",
         ylim=(4e-4, 6e-2), title="The stream's variance at the start")
left.set_xticks(DEPTHS, [str(L) for L in DEPTHS])
left.minorticks_off()
for name, colour in (("pre-norm", BLUE), ("post-norm", RED), ("no sums", GREY)):
    right.plot(range(25), runs[name][2], color=colour, lw=2)
right.text(24, 0.5, "pre-norm", color=BLUE, ha="right")
right.text(6.6, 0.7, "post-norm", color=RED)
right.text(4.5, 1.06, "no sums", color=GREY)
right.set(xlabel="block", ylabel="cosine between two tokens", ylim=(-0.05, 1.2),
          title="Without sums, tokens become alike")
save_figure(fig, "14_stream.svg")
plt.show()

# %% [markdown]
# ### One table, used twice
#
# $E$ is read in (14.3) and again in (14.5). It is *one* array, so its gradient is the sum over both
# uses. Let $g^0$ $(B,T,C)$ be the cotangent of $h^0$, $x^f=N_f(h^L)$, and $dz$ $(B,T,V)$ that of
# the logits. Over all places $(b,t)$, in index form and in array form,
#
# $$dE_v=\underbrace{\sum_{b,t:\,s_{bt}=v}g^0_{bt}}_{\text{read: only tokens that occur}}
# +\underbrace{\sum_{b,t}dz_{btv}\,x^f_{bt}}_{\text{compared: every token}},\qquad
# dE=S^\top g^0+dz^\top x^f, \tag{14.17}$$
#
# with $S$ $(BT,V)$ the one-hot rows of the ids. By chapter 03, with $N=BT$ targets $y$,
#
# $$dz_{btv}=\frac1N\big(p_{btv}-[y_{bt}=v]\big), \tag{14.18}$$
#
# so a token that never occurs is still pushed away from every $x^f$, a little at each step.

# %%
idx, targets = rng.integers(0, 12, (2, 3, 16))  # of 94 tokens the last 82 never occur
tied = make(noise=0.2)
untied = make(tied=False)
for mine, theirs in zip(untied.parameters(), tied.parameters(), strict=False):
    mine.data[...] = theirs.data
untied.lm_head.weight.data[...] = tied.wte.weight.data  # equal numbers in two arrays
for model in (tied, untied):
    F.cross_entropy(model(idx), targets).backward()
read, compared = (to_numpy(layer.weight.grad) for layer in (untied.wte, untied.lm_head))
check("tied_gradient_is_a_sum", rel_error(tied.wte.weight.grad, read + compared), at_most=1e-12)
with no_grad():
    x = tied.wte(idx) + tied.wpe(np.arange(16))
    for block in tied.h:
        x = block(x)
    x_f = tied.ln_f(x).numpy()
    p = F.softmax(tied(idx)).numpy()
dz = (p - np.eye(94)[targets]) / targets.size
by_index = np.zeros((94, 16))
for v, b, t in np.ndindex(94, 3, 16):
    by_index[v] += dz[b, t, v] * x_f[b, t]
check("head_gradient_by_index", rel_error(compared, by_index), at_most=1e-12)
check("unread_rows_have_no_first_term", np.abs(read[12:]), at_most=0)
check("but_all_have_the_second", np.linalg.norm(compared[12:], axis=1), at_least=1e-4)

# %% [markdown]
# ### Where the loss starts
#
# Chapter 16 has the loss of logits of mean 0 and variance $\varsigma^2$ that know nothing:
# $\ln V+\frac{\varsigma^2}2(1-\frac1V)$. Now we know the variance. A normed $x^f$ has squared
# length $C$, and the head's rows are $N(0,0.02^2)$ and, if they are not tied, independent of it:
#
# $$\mathrm{Var}(z)=0.02^2C,\qquad
# \mathbb E\,L_0\approx\ln V+2\cdot10^{-4}\,C\left(1-\tfrac1V\right). \tag{14.19}$$
#
# If they *are* tied, one row is not independent: that of the token just read, since $h^0=E_s+P_t$
# is still in the stream, of standard deviation $\sigma_L$ by (14.16). Its logit is
# $E_s\cdot h^L/\sigma_L$ with mean
#
# $$\mathbb E\,z_{s}=\frac{\lvert E_s\rvert^2}{\sigma_L}=\frac{0.02^2\,C}{\sigma_L}. \tag{14.20}$$
#
# **A fresh tied GPT expects every token to be repeated.** With $C=64$ the logit is about $0.74$,
# its odds twice those of any other token. It adds $e^m-1$ to a sum of $V$ exponentials, with $m$
# the mean of (14.20), and pays itself back in one target of $V$:
#
# $$\mathbb E\,L_0^{\mathrm{tied}}\approx\mathbb E\,L_0+\frac{e^m-1-m}V. \tag{14.21}$$
#
# That costs little, but training begins by unlearning it.

# %%
errors, rows = [], []
for C, L, is_tied in ((64, 2, False), (64, 2, True), (256, 4, False), (256, 4, True)):
    losses, repeated, sigma = [], [], []
    for seed in range(4):
        model = make(C, L, T=32, H=4, dtype="float32", seed=seed, tied=is_tied)
        idx = np.random.default_rng(seed).integers(0, 94, (8, 32))
        with no_grad():
            z = model(idx)
            uniform = F.cross_entropy(z, idx, label_smoothing=1.0)  # the mean over all V targets
            losses.append(uniform.item() - math.log(94))
        repeated.append(np.take_along_axis(z.numpy(), idx[..., None], -1).mean())
        start, added = read_stream(model, idx[:4])
        sigma.append((start + sum(added)).std())
    m = 4e-4 * C / np.mean(sigma) * is_tied
    excess = 2e-4 * C * (1 - 1 / 94) + (math.exp(m) - 1 - m) / 94
    rows.append(["tied" if is_tied else "untied", C, np.mean(losses), excess, np.mean(repeated), m])
show_table(["head", "C", "loss - ln 94", "by formula", "logit of the token read", "(14.20)"], rows)
check("fresh_loss_untied", [abs(r[2] / r[3] - 1) for r in rows if r[0] == "untied"], at_most=0.08)
check("fresh_loss_tied", [abs(r[2] / r[3] - 1) for r in rows if r[0] == "tied"], at_most=0.1)
check("fresh_logit_of_the_token_read", [abs(r[4] / r[5] - 1) for r in rows if r[0] == "tied"],
      at_most=0.1)
check("untied_expects_no_repetition", [abs(r[4]) for r in rows if r[0] == "untied"], at_most=0.08)
check("starts_within_a_tenth_of_ln_v", [abs(r[2]) for r in rows], at_most=0.1)

# %% [markdown]
# ### Nothing leaks
#
# All operations but attention work on each position by itself, and attention's weight on a later
# position is exactly 0. By induction over the $2L$ branches, no logit knows a later token:
#
# $$\frac{\partial z_t}{\partial h^0_{s}}=0\quad(s>t). \tag{14.22}$$
#
# Exactly, not nearly: a weight of 0 times anything finite. Two tests, each through the whole model.
# Change a token, and see which logits change. And send a cotangent in at position $t$ alone, and
# see which rows of the tables get a gradient. Both have to be able to fail. So a model with a small
# leak takes them too: it adds a ten-thousandth of the last position's logits to all.


# %%
def leaks(model, V=94, T=16):
    """Largest change of a logit before a changed token; largest gradient after a position."""
    rng = np.random.default_rng(0)
    idx, changed, passed, table = rng.permutation(V)[None, :T], 0.0, 0.0, model.wte.weight
    with no_grad():
        before = model(idx).numpy()
        for t in range(1, T):
            other = idx.copy()
            other[0, t:] = (idx[0, t:] + 1 + rng.integers(0, V - 1, T - t)) % V
            changed = max(changed, np.abs(model(other).numpy() - before)[0, :t].max())
    for t in range(T - 1):
        table.grad, g = None, np.zeros(before.shape)
        g[0, t] = rng.normal(size=V)
        model(idx).backward(g)
        got = np.abs(to_numpy(table.grad)[idx[0]]).max(1)  # (T,), distinct tokens
        passed = max(passed, got[t + 1 :].max())
        if t == T // 2:
            seen = got[: t + 1]
    return changed, passed, seen.min()


class Leaky(GPT):
    def __call__(self, idx, rng=None):
        z = super().__call__(idx, rng)
        return z + 1e-4 * z[:, -1:]


sound = make(tied=False, noise=0.2)  # a head of its own, or every row of the table has a gradient
leaky = make(tied=False, noise=0.2)
leaky.__class__ = Leaky
changed, passed, seen = leaks(sound)
check("later_tokens_change_no_earlier_logit", changed, at_most=1e-13)
check("no_gradient_to_later_tokens", passed, at_most=0)
check("a_gradient_to_every_earlier_token", seen, at_least=1e-4)
check("a_small_leak_is_caught_both_ways", leaks(leaky)[:2], at_least=1e-6)

# %% [markdown]
# ### Counting parameters
#
# A linear layer from $n$ to $m$ has $nm+m$ numbers, a layer norm $2C$. In a block:
#
# | part | matrices | offsets and gains |
# |---|---|---|
# | `ln_1` | | $2C$ |
# | `attn.c_attn` | $3C^2$ | $3C$ |
# | `attn.c_proj` | $C^2$ | $C$ |
# | `ln_2` | | $2C$ |
# | `mlp.c_fc` | $4C^2$ | $4C$ |
# | `mlp.c_proj` | $4C^2$ | $C$ |
#
# $$P_{\mathrm{block}}=(3+1+4+4)\,C^2+(2+3+1+2+4+1)\,C=12C^2+13C. \tag{14.23}$$
#
# $H$ does not occur: heads share the width, they do not add to it. With two tables, a last norm,
# and a head that is a table already,
#
# $$P=L\,(12C^2+13C)+(V+T)\,C+2C. \tag{14.24}$$
#
# The smallest possible example, $V=3$, $T=2$, $C=2$, $L=1$: $48+26+10+4=88$. The smallest GPT-2 has
# $V=50257$, $T=1024$, $C=768$ and $L=12$:
#
# $$12\cdot7{,}087{,}872+51{,}281\cdot768+1{,}536=124{,}439{,}808. \tag{14.25}$$
#
# To check that against a *count*, build it. One or two of its blocks are enough: the difference of
# the two is a block, and the other ten are like it. A stand-in for the generator hands out zeros
# that take no memory.


# %%
def parameters(V, T, C, L):
    return L * (12 * C * C + 13 * C) + (V + T) * C + 2 * C


class Zeros:
    """Instead of a random generator: weights whose values do not matter."""

    def normal(self, mean, sd, shape):
        return np.broadcast_to(0.0, shape)


counts, by_part = [], []
for V, T, C, L, H in ((3, 2, 2, 1, 1), (94, 16, 24, 3, 2), (94, 16, 24, 3, 8), (7, 40, 12, 5, 3)):
    model = GPT(GPTConfig(V, T, n_layer=L, n_head=H, n_embd=C), Zeros())
    sizes = {name: p.data.size for name, p in model.named_parameters()}
    counts.append(abs(sum(sizes.values()) - parameters(V, T, C, L)))
    a_block = sum(size for name, size in sizes.items() if name.startswith("h.0."))
    counts.append(abs(a_block - (12 * C * C + 13 * C)))
    by_part.append(abs(sum(cost.parameters_by_part(model).values()) - sum(sizes.values())))
check("parameters_of_a_block_and_of_all", counts, at_most=0)
check("package_counts_the_same_by_part", by_part, at_most=0)
check("eighty_eight", abs(parameters(3, 2, 2, 1) - 88), at_most=0)
one, two = (GPT(GPTConfig(50257, 1024, n_layer=L, n_head=12, n_embd=768), Zeros()).num_parameters()
            for L in (1, 2))
gpt2 = one + 11 * (two - one)
print(f"GPT-2, from the arrays of one and of two blocks: {gpt2:,}")
check("gpt2_by_counting", [abs(gpt2 - 124_439_808), abs(parameters(50257, 1024, 768, 12) - gpt2)],
      at_most=0)

# %% [markdown]
# ### Counting operations
#
# A product of $(n,k)$ and $(k,m)$ is $nkm$ multiplications and as many additions. For one token,
# forward, the matrices of the blocks take $2\cdot12C^2$ operations each layer and the head $2VC$.
# Attention takes $2TC$ for the scores and $2TC$ for the sum of values, over all heads, if masked
# keys are computed too:
#
# $$F=L\,(24C^2+4TC)+2VC\quad\text{operations a token, forward}. \tag{14.26}$$
#
# Backward, each product has two, of the same size: for $y=xW$ they are $g\,W^\top$ and $x^\top g$,
# and for scores and values likewise. (There is no gradient for the ids, but a cotangent for $h^0$.)
#
# $$F_{\mathrm{back}}=2F,\qquad F_{\mathrm{step}}=3F\approx6P\quad\text{a token}. \tag{14.27}$$
#
# That is the rule "$6ND$" for $N$ parameters and $D$ tokens. What it leaves out is attention, which
# has caught up with the matrices of a block when $4TC=24C^2$:
#
# $$T=6C. \tag{14.28}$$
#
# **The mask saves half.** The package works on $b=64$ queries at a time, and takes only the keys up
# to the last of them. The $i$-th of $n=T/b$ blocks has $b$ queries and $ib$ keys, so the scores
# computed are
#
# $$\sum_{i=1}^{n}b\cdot ib=b^2\,\frac{n(n+1)}2=T^2\cdot\frac{n+1}{2n}, \tag{14.29}$$
#
# which tends to half of $T^2$ and is all of it for $n=1$. **And something is added.** The gradient
# of a table (14.17) is computed as the product $S^\top g^0$ if it has at most 1,024 rows, and so
# for the positions:
#
# $$F_{\mathrm{tables}}=2VC\ \text{a token}+2T^2C\ \text{a step}. \tag{14.30}$$
#
# Now count what really happens. `Counted` is an array that notes each product of matrices that it
# takes part in. Inside `counting()` every `Tensor` of the package holds such an array. (That needs
# NumPy: another library's arrays cannot be watched so. Where the package computes with one, the
# checks of what was counted are left out, and say why.)


# %%
class Counted(np.ndarray):
    """An array that notes the shapes of its products."""

    log: list = []

    def __matmul__(self, other):
        Counted.log.append((self.shape, other.shape))
        return super().__matmul__(other)

    def __rmatmul__(self, other):
        Counted.log.append((other.shape, self.shape))
        return super().__rmatmul__(other)


class CountingLibrary:
    """NumPy, except that its asarray makes Counted arrays."""

    def __getattr__(self, name):
        return getattr(np, name)

    def asarray(self, x, dtype=None):
        return np.asarray(x, dtype).view(Counted)


@contextmanager
def counting(model):
    """Inside, the products of matrices that model takes part in are noted in the list."""
    if not on_host:
        yield []
        return
    with patch("minigpt.tensor.xp", CountingLibrary()):
        for p in model.parameters():
            p.data = p.data.view(Counted)
        Counted.log = []
        yield Counted.log
    for p in model.parameters():
        p.data = p.data.view(np.ndarray)


def operations(log):
    """Of products of matrices; sums written as a product with a vector of ones do not count."""
    matrices = [2 * math.prod(a) * b[-1] for a, b in log if min(len(a), len(b)) > 1]
    return sum(matrices) if log else math.nan


rows, forward, both, factors = [], [], [], []
for V, T, C, L, H, B in ((94, 32, 64, 2, 4, 3), (50, 128, 32, 3, 2, 2), (94, 320, 16, 1, 2, 1)):
    model, n = make(C, L, V, T, H, "float32"), -(-T // BLOCK)
    idx = rng.integers(0, V, (B, T + 1))
    with counting(model) as log:
        loss = F.cross_entropy(model(idx[:, :-1]), idx[:, 1:])
        there = operations(log)
        loss.backward()
        back = operations(log) - there
    share = (n + 1) / (2 * n)
    formula = B * T * (L * (24 * C * C + 4 * T * C * share) + 2 * V * C)
    tables = B * T * 2 * V * C + 2 * T * T * C
    forward.append(abs(there / formula - 1))
    both.append(abs((there + back) / (3 * formula + tables) - 1))
    factors.append(abs(cost.scores(T) / T**2 / share - 1))
    rows.append([T, n, there / B / T, formula / B / T, back / there, share,
                 B * T * cost.flops_per_token(model) / (there + back)])
UNSEEN = "products of another library's arrays cannot be watched"
if numpy_only(UNSEEN, "forward_operations", "operations_of_a_step"):
    show_table(["T", "blocks", "forward a token, counted", "by formula", "back / forward",
                "share of scores", "without mask / counted"], rows)
    check("forward_operations", forward, at_most=1e-12)
    check("operations_of_a_step", both, at_most=1e-12)
check("share_of_scores", factors, at_most=1e-12)
short = make(64, 1, 94, 384, 2, "float32")  # T = 6C
plain = 3 * 4 * 384 * 64, 3 * 24 * 64**2
check("attention_catches_up", abs(plain[0] / plain[1] - 1), at_most=1e-12)
naive = cost.flops_per_token(short) - 6 * (12 * 64**2 + 94 * 64)
check("package_formula_without_mask", abs(naive / plain[0] - 1), at_most=1e-12)

# %% [markdown]
# `cost.flops_per_token`, which `python -m minigpt info` prints, keeps the usual convention: as if
# no key were masked, and tables free. The last column sets that beside what is done here: it is
# below 1 where the tables' products weigh more, and above 1 where the keys that are skipped do.
#
# ### Counting bytes
#
# **State.** In float32 each parameter has 4 bytes, its gradient 4, and Adam's two means 8:
#
# $$\text{state}=16P\ \text{bytes}. \tag{14.31}$$
#
# **Activations.** What the forward pass makes and the backward pass reads has to stay. Go through a
# block and ask what each closure captures, and what the tape's Tensors hold, in numbers a token:
#
# | made by | kept | numbers |
# |---|---|---|
# | (the block's input) | $h^{l-1}$ | $C$ |
# | `ln_1` | $\hat x$, its reciprocal deviation, the output, which `c_attn` reads | $2C+1$ |
# | `c_attn` | $q,k,v$ | $3C$ |
# | attention | the scaled $q$; the output by blocks, and joined, as `c_proj` reads it | $3C$ |
# | attention | the weights of all heads | $H\cdot\frac12(T+b)$ |
# | `c_proj`, and the sum | both | $2C$ |
# | `ln_2` | as above | $2C+1$ |
# | `c_fc`, GELU | its input; its logistic factor; its output, for the next product | $12C$ |
# | `c_proj` (the sum is the next block's input) | the output | $C$ |
#
# $1+2+3+3+2+2+12+1=26$. Outside the blocks: the tokens' rows, the last sum, and the last norm's
# two, so $4C+1$, and twice the logits, once as they are and once as log-probabilities. For one
# text:
#
# $$\text{activations}=T\,\big(L\,(26C+2)+4C+1+2V\big)+LHK(T)\quad\text{numbers}, \tag{14.32}$$
#
# with $K(T)$ the weights kept for one head. A block of queries with more than $512$ keys keeps
# none: they are computed once more in the backward pass. So, for multiples of $b=64$,
#
# $$K(T)=\begin{cases}\frac12T(T+b)&T\le512,\\
# \frac12\cdot512\,(512+b)=147{,}456&T\ge512.\end{cases}
# \tag{14.33}$$
#
# **Up to 512 tokens memory has a term in $T^2$, beyond it none.** (Korthikanti et al. 2022,
# arXiv:2205.05198, count another implementation in this way, at half precision: $34C+5HT$ *bytes* a
# token and layer.) **Cache.** Generation keeps keys and values only:
#
# $$\text{cache}=2LTC\quad\text{numbers a text}. \tag{14.34}$$
#
# To check (14.32), walk the tape, take every array that a closure or a Tensor holds, each buffer
# once, and add up. The difference between a batch of 5 and one of 2 texts is three texts, exactly:
# what all texts share, such as the positions' rows, drops out. A second witness knows nothing of
# closures: what Python's allocator says is alive after the forward pass. (Both see NumPy's arrays
# alone: they are in the host's memory, where Python allocates. And the package keeps large blocks
# to use them again, as told below. A block from before was not allocated now and would not be
# counted, so wherever bytes are counted nothing is kept.)


# %%
def held(loss):
    """Every float array that the graph below loss keeps alive: its buffer, once."""
    buffers, seen, stack = {}, set(), [loss]
    while stack:
        x = stack.pop()
        if isinstance(x, np.ndarray):
            while isinstance(x.base, np.ndarray):
                x = x.base
            if x.dtype.kind == "f":
                buffers[id(x)] = x
        elif id(x) not in seen:
            seen.add(id(x))
            if isinstance(x, Tensor):
                stack += [x.data, x._vjp, *x._parents]
            elif isinstance(x, tuple | list):
                stack += x
            for cell in getattr(x, "__closure__", None) or ():
                with suppress(ValueError):  # a name that was never set
                    stack.append(cell.cell_contents)
    return buffers


def memory_of(model, B):
    """Numbers that the graph holds; bytes alive after the forward pass; bytes at the peak."""
    if not on_host:
        return np.full(3, np.nan)
    T, V = model.config.block_size, model.config.vocab_size
    idx = np.random.default_rng(0).integers(0, V, (B, T + 1))
    own = {id(p.data) for p in model.parameters()}
    with patch.object(memory, "LARGE", math.inf):  # no array is large: no block is kept
        tracemalloc.start()
        loss = F.cross_entropy(model(idx[:, :-1]), idx[:, 1:])
        alive = tracemalloc.get_traced_memory()[0]
        numbers = sum(x.size for key, x in held(loss).items() if key not in own)
        for p in model.parameters():
            p.grad = None
        loss.backward()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return np.array([numbers, alive, peak])


rows, walked, traced, packaged = [], [], [], []
for V, T, C, L, H in ((94, 32, 64, 2, 4), (50, 128, 32, 3, 2), (94, 100, 16, 2, 4),
                      (20, 640, 16, 1, 2)):
    model = make(C, L, V, T, H, "float32")
    numbers, alive, peak = (memory_of(model, 5) - memory_of(model, 2)) / 3  # of one text
    K = cost.scores(T, kept=True)
    formula = T * (L * (26 * C + 2) + 4 * C + 1 + 2 * V) + L * H * K
    walked.append(abs(numbers - formula))
    traced.append(abs(alive / 4 / formula - 1))
    packaged.append(abs(cost.activation_bytes(model) - 4 * formula))
    if T % BLOCK == 0:
        walked.append(abs(K - min(T, KEPT) * (min(T, KEPT) + BLOCK) // 2))
    rows.append([T, C, L, f"{numbers:.0f}", formula, L * H * K / formula, alive / 4, peak / alive])
ELSEWHERE = "another library's arrays are not in the memory that Python allocates"
if numpy_only(ELSEWHERE, "activations_of_a_text", "activations_alive"):
    show_table(["T", "C", "L", "held, by the tape", "formula", "weights' share",
                "alive, by Python", "peak / alive"], rows)
    check("activations_of_a_text", walked, at_most=0)
    check("activations_alive", traced, at_most=0.03)
check("package_formula_of_activations", packaged, at_most=0)

# %%
model = make(32, 3, 50, 24, 2, "float32")
optimizer = Adam(model.parameters(), 1e-3)
buffers = [optimizer.data, optimizer.grad, *optimizer.buffers().values()]
state = sum(a.nbytes for a in buffers)
check("sixteen_bytes_a_parameter", [abs(state - 16 * model.num_parameters()),
      abs(sum(cost.state_bytes(model).values()) - state)], at_most=0)
caches = [abs(KVCache(model, B, T).nbytes - 4 * B * 2 * 3 * T * 32)
          for B, T in ((1, 24), (3, 24), (2, 7))]
check("bytes_of_the_cache", [*caches, abs(cost.cache_bytes(model) - KVCache(model, 1, 24).nbytes)],
      at_most=0)
small = 4 * (1024 * (12 * (26 * 768 + 2) + 4 * 768 + 1 + 2 * 50257) + 12 * 12 * 147_456)
print(f"GPT-2 in float32: parameters {4 * gpt2 / 1e6:.0f} MB, state {16 * gpt2 / 1e6:.0f} MB, "
      f"activations of one text {small / 1e6:.0f} MB, its cache {8 * 12 * 1024 * 768 / 1e6:.0f} MB")
check("gpt2_activations_exceed_its_weights", small / (4 * gpt2), at_least=2)

# %% [markdown]
# ### Operations and bytes
#
# A core can compute only what has been brought to it. Call *intensity* the operations of a piece of
# work over the bytes that it reads and writes at least. For a product of $(n,k)$ and $(k,m)$ in
# float32,
#
# $$I=\frac{2nkm}{4\,(nk+km+nm)}=\frac1{2\left(\frac1n+\frac1k+\frac1m\right)}, \tag{14.35}$$
#
# less than half of the shortest side: **that side decides.** With $k=D=16$ channels a head $I<8$,
# however long the text. A pass over an array, $y_i=\phi(x_i)$ with one operation, reads 4
# bytes and writes 4:
#
# $$I_{\mathrm{pass}}=\tfrac18, \tag{14.36}$$
#
# and has this intensity for arrays of any size. The *roofline* (Williams, Waterman and Patterson
# 2009) says that work of intensity $I$ runs at no more than
# $\min(\text{peak},\ I\cdot\text{bandwidth})$ operations a second. Where the two are equal is the
# *ridge*. Left of it, operations are free, and time is bytes.


# %%
def intensity(n, k, m):
    return 1 / (2 * (1 / n + 1 / k + 1 / m))


def spent(work, times=1, clock=time.process_time):
    """Processor seconds of a call, per call; or seconds of another clock."""
    start = clock()
    for _ in range(times):
        work()
    return (clock() - start) / times


def median_of(work, times=1, repeats=5):
    return float(np.median([spent(work, times) for _ in range(repeats)]))


model = make(64, 2, 94, 64, 4, "float32")
idx = rng.integers(0, 94, (16, 65))
with counting(model) as log:
    F.cross_entropy(model(idx[:, :-1]), idx[:, 1:]).backward()
products, errors = [], []
for a, b in log:
    if min(len(a), len(b)) > 1:
        x, y = np.ones(a, "float32"), np.ones(b, "float32")
        moved = x.nbytes + y.nbytes + (x @ y).nbytes
        products.append((x, y, 2 * x.size * b[-1], moved))
        errors.append(abs(products[-1][2] / moved / intensity(*a[-2:], b[-1]) - 1))
big = rng.normal(size=(2, 1024, 1024)).astype("float32")
wide, copy = np.ones(1 << 23, "float32"), np.ones(1 << 23, "float32")
check("intensity_of_a_pass", abs(wide.size / (wide.nbytes + copy.nbytes) - 1 / 8), at_most=0)
peak = 2 * 1024**3 / median_of(lambda: big[0] @ big[1], repeats=3)
bandwidth = 2 * wide.nbytes / median_of(lambda: np.negative(wide, out=copy))
print(f"this core: {peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s, ridge at "
      f"{peak / bandwidth:.0f} operations a byte (if nothing stays in a cache)")


def all_products():
    for x, y, *_ in products:
        x @ y


def whole_step():
    for p in model.parameters():
        p.grad = None
    F.cross_entropy(model(idx[:, :-1]), idx[:, 1:]).backward()


if numpy_only(UNSEEN, "intensity_of_products", "no_product_of_this_step_is_far_right"):
    total = sum(p[2] for p in products)
    seconds = median_of(all_products, repeats=7), median_of(whole_step, repeats=7)
    show_table(["", "ms", "GFLOP/s", "operations a byte"],
               [["its products alone", 1e3 * seconds[0], total / seconds[0] / 1e9,
                 total / sum(p[3] for p in products)],
                ["the pass forward and backward", 1e3 * seconds[1], total / seconds[1] / 1e9,
                 None]])
    largest = max(p[2] / p[3] for p in products)
    check("intensity_of_products", errors, at_most=1e-12)
    check("no_product_of_this_step_is_far_right", largest, at_most=32)

# %% [markdown]
# The shortest side of the products here is a head's 16 channels, or the width of 64. A pass over an
# array has about a hundredth of their intensity. So about half of a step is spent on work that is
# hardly any arithmetic, and that is where a step is made faster. "What makes it fast", below, has
# the list.
#
# ## Code
#
# The whole GPT by hand, forward and backward: four parts that return their output and their VJP, a
# block of them, and the model. Parameters come as a list in the package's order. The three
# keywords that start at 1, or `np.add.at`, are for breaking it later.


# %%
def norm_by_hand(x, w, b, eps=1e-5):
    """x (B, T, C), w and b (C,) -> the same as x."""
    d = x - x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt((d * d).mean(-1, keepdims=True) + eps)  # (B, T, 1)
    xhat = d * rstd

    def vjp(g):
        gw = g * w
        along = (gw * xhat).mean(-1, keepdims=True)
        dx = rstd * (gw - gw.mean(-1, keepdims=True) - xhat * along)
        return dx, (g * xhat).sum((0, 1)), g.sum((0, 1))

    return w * xhat + b, vjp


def linear_by_hand(x, w, b):
    """x (B, T, n), w (n, m), b (m,) -> (B, T, m)."""
    return x @ w + b, lambda g: (g @ w.T, np.einsum("btn,btm->nm", x, g), g.sum((0, 1)))


def gelu_by_hand(x):
    """x/2 (1 + tanh u), u = sqrt(2/pi) (x + 0.044715 x^3)."""
    a = math.sqrt(2 / math.pi)
    t = np.tanh(a * (x + 0.044715 * x**3))
    slope = (1 + t) / 2 + x / 2 * (1 - t * t) * a * (1 + 3 * 0.044715 * x * x)
    return x / 2 * (1 + t), lambda g: g * slope


# %%
def attention_by_hand(qkv, H):
    """qkv (B, T, 3C) -> (B, T, C), causal, in H heads."""
    B, T, width = qkv.shape
    q, k, v = qkv.reshape(B, T, 3, H, -1).transpose(2, 0, 1, 3, 4)  # (B, T, H, D) each
    scale = q.shape[-1] ** -0.5
    scores = scale * np.einsum("bthd,bshd->bhts", q, k)  # t: query, s: key
    scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
    att = np.exp(scores - scores.real.max(-1, keepdims=True))
    att = att / att.sum(-1, keepdims=True)
    out = np.einsum("bhts,bshd->bthd", att, v).reshape(B, T, -1)

    def vjp(g):
        g = g.reshape(B, T, H, -1)
        datt = np.einsum("bthd,bshd->bhts", g, v)
        ds = att * (datt - (datt * att).sum(-1, keepdims=True)) * scale
        dq, dk = np.einsum("bhts,bshd->bthd", ds, k), np.einsum("bhts,bthd->bshd", ds, q)
        dv = np.einsum("bhts,bthd->bshd", att, g)
        return np.stack([dq, dk, dv], axis=2).reshape(B, T, width)

    return out, vjp


# %%
def block_by_hand(x, *w, H=2, highway=1):
    """x (B, T, C), the block's 12 parameters -> (B, T, C); its vjp returns 13 gradients."""
    n1, norm_1 = norm_by_hand(x, *w[0:2])
    qkv, c_attn = linear_by_hand(n1, *w[2:4])
    mixed, attend = attention_by_hand(qkv, H)
    out, c_proj = linear_by_hand(mixed, *w[4:6])
    a = x + out  # (14.4)
    n2, norm_2 = norm_by_hand(a, *w[6:8])
    up, c_fc = linear_by_hand(n2, *w[8:10])
    active, gelu = gelu_by_hand(up)
    out, down = linear_by_hand(active, *w[10:12])

    def vjp(g):
        d, *d_down = down(g)
        d, *d_fc = c_fc(gelu(d))
        d, *d_norm_2 = norm_2(d)
        g = highway * g + d  # (14.7)
        d, *d_proj = c_proj(g)
        d, *d_attn = c_attn(attend(d))
        d, *d_norm_1 = norm_1(d)
        return highway * g + d, *d_norm_1, *d_attn, *d_proj, *d_norm_2, *d_fc, *d_down

    return a + out, vjp


# %%
def gpt_by_hand(weights, idx, targets, H=2):
    """Mean nats a token, and a function that returns one gradient for each of the weights."""
    E, P, *blocks, w_f, b_f = weights
    x = E[idx] + P[: idx.shape[1]]  # (14.3)
    starts, vjps = range(0, len(blocks), 12), []
    for i in starts:
        x, vjp = block_by_hand(x, *blocks[i : i + 12], H=H)
        vjps.append(vjp)
    x_f, norm_f = norm_by_hand(x, w_f, b_f)
    z = x_f @ E.T  # (14.5)
    z = z - z.real.max(-1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    loss = -np.take_along_axis(logp, targets[..., None], -1).mean()

    def gradients(head=1, add=np.add.at):
        dz = (np.exp(logp) - np.eye(len(E))[targets]) / targets.size  # (14.18)
        g, *out = norm_f(dz @ E)
        for vjp in reversed(vjps):
            g, *own = vjp(g)
            out = [*own, *out]
        dE = head * np.einsum("btv,btc->vc", dz, x_f)
        add(dE, idx, g)  # (14.17): into the same array
        dP = np.zeros_like(P)
        dP[: idx.shape[1]] = g.sum(0)  # every text has the same positions
        return [dE, dP, *out]

    return loss, gradients


model = make(noise=0.3, L=3, V=20, T=9)
weights = [p.numpy() for p in model.parameters()]
idx, targets = rng.integers(0, 20, (2, 4, 7))  # T = 7 of at most 9
loss, gradients = gpt_by_hand(weights, idx, targets)
package = F.cross_entropy(model(idx), targets)
package.backward()
check("forward_by_hand_is_the_package", abs(loss / package.item() - 1), at_most=1e-12)
errors = [rel_error(mine, p.grad) for mine, p in zip(gradients(), model.parameters(), strict=True)]
print(f"{len(errors)} gradients, worst relative error {max(errors):.1e}")
check("backward_by_hand_is_the_package", errors, at_most=1e-11)

# %%
print(inspect.getsource(Block))
print(inspect.getsource(GPT.__call__))

# %% [markdown]
# What the package does differently, and why:
#
# - There is no backward pass of a block or of a GPT. `x + branch(x)` records a sum with two
#   parents, and `backward` waits until both uses of `x` have sent their cotangents: (14.7) is
#   nobody's job. The same for the table that is used twice, (14.17): a leaf adds up what it is
#   sent.
# - $q,k,v$ are one product and one array, and the heads are views of it.
# - `F.linear` flattens all but the last axis, so that a batch is one product of matrices.
# - Dropout acts on each branch before its sum, and only where a generator is passed.
#
# ### What makes it fast
#
# The package computes the same numbers as the obvious code, in less time. Each line of the table
# has an obvious version and the one in the package. Both run in turns, seven times, on one thread,
# and the table shows the median of the seven ratios of processor time, with the smallest and the
# largest. That the two agree is checked. That one is faster is shown, since it depends on the
# machine. The list is of choices for NumPy on a processor: with another library, nothing is
# compared. And each line is to show one choice. So kept memory (below), of which an obvious version
# would have none, is there for both sides or for neither.


# %%
SPEED = {}


def compare(name, slow, fast, repeats=7):
    """Into SPEED: median, smallest and largest ratio of the two times; the two results' error."""
    if not on_host:
        return
    with patch.object(memory, "LARGE", math.inf):
        wanted = [np.array(a) for a in slow()]
        error = max(rel_error(a, b) for a, b in zip(wanted, fast(), strict=True))
        once = max(1, int(1.5e-3 / max(spent(fast), 1e-7)))
        ratios = sorted(spent(slow, once) / spent(fast, once) for _ in range(repeats))
    SPEED[name] = [ratios[repeats // 2], ratios[0], ratios[-1]], error


def normal(*shape):
    return rng.normal(size=shape).astype("float32")


def both_ways(op, *arrays):
    """A function that runs op on Tensors, forward and backward -> [out, gradients]."""
    g = np.random.default_rng(0).normal(size=op(*map(Tensor, arrays)).shape).astype("float32")

    def work():
        leaves = [Tensor(a, requires_grad=True) for a in arrays]
        out = op(*leaves)
        out.backward(g)
        return [out.data, *(leaf.grad for leaf in leaves)]

    return work


x, rows_of, gain, offset = normal(1024, 64), normal(4096, 64), normal(64), normal(64)
compare("row sums as a product with ones",
        lambda: [rows_of.sum(-1, keepdims=True)], lambda: [backend.row_sums(rows_of)])
compare("layer norm fused",
        *(both_ways(module.layer_norm, x, gain, offset) for module in (reference, F)))


def gelu_with_tanh(x, g):
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    t = np.tanh(u)
    slope = (1 + t) / 2 + x / 2 * (1 - t**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return [x / 2 * (1 + t), g * slope]


def gelu_with_exp(x, g):
    out, vjp = F.gelu.forward(x)
    return [out, *vjp(g)]


hidden, g = normal(1024, 256), normal(1024, 256)
compare("GELU by one exp, not tanh",
        lambda: gelu_with_tanh(hidden, g), lambda: gelu_with_exp(hidden, g))

# %%
w, g = normal(64, 192), normal(1024, 192)
thirds = [np.ascontiguousarray(part) for part in np.split(w, 3, axis=1)]


def one_product():
    out, (dx, dw, _) = F.linear.forward(x, w)
    return [out, dx(g), dw(g)]


def three_products():
    parts = np.split(g, 3, axis=1)
    done = [F.linear.forward(x, part) for part in thirds]
    dx = sum(vjp[0](d) for (_, vjp), d in zip(done, parts, strict=True))
    dw = [vjp[1](d) for (_, vjp), d in zip(done, parts, strict=True)]
    return [np.concatenate([out for out, _ in done], axis=1), dx, np.concatenate(dw, axis=1)]


compare("q, k, v in one product", three_products, one_product)


def add_at(idx, rows, n):
    out = np.zeros((n, rows.shape[1]), rows.dtype)
    np.add.at(out, idx, rows)
    return [out]


def as_product(idx, rows, n):
    return [backend.scatter_add(idx, rows, n)]


for n, name in ((94, "table's gradient: one-hot product"), (5000, "larger table: sorted runs")):
    idx, rows = rng.integers(0, n, 1024), normal(1024, 64)
    compare(name, partial(add_at, idx, rows, n), partial(as_product, idx, rows, n))

WHOLE = {"BLOCK": 10**9, "KEPT": 10**9}  # all queries in one block, all weights kept
block, x512 = make(64, 1, T=512, H=4, dtype="float32", noise=0.05).h[0], normal(2, 512, 64)


def whole_matrix():
    with patch.multiple("minigpt.attention", **WHOLE):
        return both_512()


both_512 = both_ways(block.attn, x512)
compare("attention in blocks, T = 512", whole_matrix, both_512, repeats=5)

# %%
many = [normal(256, 256) for _ in range(30)]  # two million numbers
grads = [normal(256, 256) for _ in many]


state = [[p, 0 * p, 0 * p] for p in many], [0]  # parameters with their means; steps


def adam_obvious():
    """One step, tensor by tensor, as the formula reads."""
    tensors, t = state
    t[0] += 1
    for i, ((p, m, v), g) in enumerate(zip(tensors, grads, strict=True)):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9 ** t[0]), v / (1 - 0.999 ** t[0])
        tensors[i] = [p - 1e-3 * m_hat / (np.sqrt(v_hat) + 1e-8), m, v]
    return [tensors[0][0]]


class WholeBuffer(Adam):
    """The package's step on the flat buffers, in one chunk."""

    def step(self):
        with patch("minigpt.optim.CHUNK", 1 << 30):
            super().step()


def stepping(kind):
    """A function that takes the package's next step."""
    optimizer = kind([Tensor(p.copy(), requires_grad=True) for p in many], 1e-3)
    optimizer.grad[...] = xp.asarray(np.concatenate([g.reshape(-1) for g in grads]))

    def work():
        optimizer.step()
        return [optimizer.params[0].data]

    return work


compare("Adam on one flat buffer", adam_obvious, stepping(WholeBuffer))
compare("Adam on the buffer, in chunks", stepping(WholeBuffer), stepping(Adam))
if numpy_only("nothing was compared", "fast_versions_compute_the_same"):
    check("fast_versions_compute_the_same", [error for _, error in SPEED.values()], at_most=2e-5)

# %% [markdown]
# Where there are two processors, there are two ways to use them. BLAS, which computes NumPy's
# products, can cut each product in two. Or two *workers*, threads with a replica of the model each,
# take half of the texts each (`parallel.DataParallel`). Both read the same weights. Each has
# gradients of its own, and these are added: with $B_1+B_2=B$ texts, the mean loss is
# $L=\frac{B_1}BL_1+\frac{B_2}BL_2$, and its gradient is the same sum. This line of the table is of
# time on the clock, not of processor time: the processors are to be busy.


# %%
def sharing(workers, blas_threads):
    """A function that computes a batch's gradient, 12 texts of 64 tokens, with these threads."""
    model = make(128, 4, T=64, H=4, dtype="float32", noise=0.02)
    together = DataParallel(model, Adam(model.parameters(), 1e-3), workers, blas_threads)
    idx = np.random.default_rng(0).integers(0, 94, (12, 65))

    def work():
        together.optimizer.zero_grad()
        together.backward(idx[:, :-1], idx[:, 1:])
        return [together.optimizer.grad]

    return work


cut_products, two_workers = sharing(1, 2), sharing(2, 1)
error = rel_error(*cut_products(), *two_workers())
check("workers_share_one_gradient", error, at_most=1e-5)
if not on_host:
    print("not timed: only NumPy's workers are threads of a processor")
elif cpu_count() < 2:
    print("not timed: there is one processor, and two workers would take turns")
else:
    def settled(work):
        """Seconds of a run. BLAS threads go on looking for work a while before they sleep."""
        time.sleep(0.1)
        work()
        return spent(work, 3, time.perf_counter)

    ratios = sorted(settled(cut_products) / settled(two_workers) for _ in range(7))
    SPEED["two workers, not two BLAS threads"] = [ratios[3], ratios[0], ratios[-1]], error

# %% [markdown]
# One entry is no algorithm. A step makes the same large arrays again and again, and frees them.
# Allocators do not hold on to much: most large blocks that are freed go back to the system. (Under
# Linux, those above a threshold, and what is free at the end of the heap; elsewhere by other
# rules.) The next request then gets fresh pages, and the first touch of each is a *fault*: the
# system has to find a page and fill it with zeros.
#
# So `memory.py` sees to it that freed blocks are kept. Linux's usual C library can be told to do so
# at import, and then nothing else has to be done (`ask_glibc`). Other systems' libraries cannot.
# There the package keeps blocks itself, in plain Python, which is the same everywhere:
#
# - **A block by its size.** A result of 64 KiB or more is a view of a *block* of bytes. Free blocks
#   wait in a list for each size. That is enough, since each step asks for the sizes of the last.
# - **A lease.** A block is free when nothing looks at it any more, and a slice looks at it, too.
#   So between a block and its arrays stands a *lease*. An array keeps what it is a view of, so
#   the lease lives as long as the last of them. Its last act is to put the block on its list.
# - **A bound.** Blocks of sizes that nobody asks for again must not pile up. Before a new block
#   would make the sum more than a quarter larger than what was ever in use at once, all free ones
#   are dropped.
#
# The price is a little time for each large array, and a name: the package writes
# `memory.multiply(x, w)` for `x * w` where that may be large. Here is a GPT's step with blocks kept
# in this way against the same step without, the C library being told to keep nothing meanwhile. And
# two checks that no machine can change: the gradients are equal, and after the first steps no step
# makes a new block.

# %%
blocks, sums, sizes = memory.Blocks(), [], np.random.default_rng(0).integers(1, 20, 200)
for size in sizes.tolist():
    blocks.take(size * memory.WORTHWHILE)  # and its lease ends here: one in use at a time
    sums.append(sum(size * len(found) for size, found in blocks.free.items()))
most = np.maximum.accumulate(sizes) * memory.WORTHWHILE  # ever in use at once
check("at_most_a_quarter_more", sums / most, at_most=1.25)

# %%
KEEPING = "freed memory is kept"


def free_blocks(size):
    """How many blocks of this many bytes wait to be used again."""
    return len(memory.BLOCKS.free.get(size, []))


def faults():
    """Page faults of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@contextmanager
def kept_here():
    """The package keeps blocks itself."""
    with patch.object(memory, "LARGE", memory.WORTHWHILE):
        yield


@contextmanager
def not_in_the_library():
    """The C library keeps nothing, if it is one that can be told."""
    told = math.isinf(memory.LARGE) and memory.ask_glibc(keep=False)
    try:
        yield
    finally:
        _ = told and memory.ask_glibc(keep=True)


def keeping():
    with kept_here():
        return step()


if numpy_only("another library keeps its memory by itself", "a_block_waits_for_its_last_view",
              "kept_memory_changes_no_number", "a_step_asks_for_large_arrays",
              "and_makes_no_new_block"):
    with kept_here():
        x = memory.empty((300, 100), np.dtype("float32"))
    view, size = x[5:6], x.nbytes
    free = [free_blocks(size)]
    del x
    free.append(free_blocks(size))  # the view looks at the block
    del view
    free.append(free_blocks(size))  # nothing does
    check("a_block_waits_for_its_last_view", np.abs(np.diff(free) - [0, 1]), at_most=0)

    step = sharing(1, 1)
    with not_in_the_library():
        compare(KEEPING, step, keeping)
    check("kept_memory_changes_no_number", SPEED[KEEPING][1], at_most=0)
    with (patch.object(memory.BLOCKS, "take", wraps=memory.BLOCKS.take) as take,
          patch.object(memory.BLOCKS, "_new", wraps=memory.BLOCKS._new) as new):
        keeping()
    asked = [size for (size,), _ in take.call_args_list]
    print(f"a step asks for {len(asked)} large arrays, of {len(set(asked))} sizes, "
          f"{sum(asked) / 1e6:.0f} MB in all; blocks hold {memory.BLOCKS.held / 1e6:.0f} MB")
    check("a_step_asks_for_large_arrays", len(asked), at_least=100)
    check("and_makes_no_new_block", new.call_count, at_most=0)
    for work, what in ((step, "returned"), (keeping, "kept")) if resource else ():
        with not_in_the_library(), patch.object(memory, "LARGE", math.inf):
            start = faults()
            work()
            print(f"page faults of a step, memory {what}: {faults() - start}")
    show_table(["what", "times faster", "smallest", "largest"],
               [[name, *ratios] for name, (ratios, _) in SPEED.items()])

# %%
if not on_host:
    print("nothing to draw: nothing was measured")
else:
    fig, axes = plt.subplots(figsize=(8, 4.4))
    order = sorted(SPEED, key=lambda name: SPEED[name][0][0])
    for row, name in enumerate(order):
        middle, low, high = SPEED[name][0]
        axes.barh(row, middle - 1, left=1, color=BLUE if middle > 1 else GREY, height=0.6)
        axes.plot([low, high], [row, row], color=GREY, lw=1.5)
        axes.text(1.02, row, f"{middle:.1f}", va="center", color=BLUE,
                  transform=axes.get_yaxis_transform())  # in the right margin
    axes.axvline(1, color=GREY, lw=1)
    axes.set_yticks(range(len(order)), order)
    axes.set(xscale="log", xlabel="time of the obvious version / time of the package's",
             xlim=(0.4, 12), title="Same numbers, less time (bars: median; lines: all repeats)")
    axes.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.grid(axis="y", visible=False)
    save_figure(fig, "14_fast.svg")
    plt.show()

# %% [markdown]
# The reasons, one by one:
#
# - **Row sums.** NumPy sums a short row pairwise, with a start and an end for each; a product with
#   a vector of ones is one call of a routine that was made for it.
# - **Layer norm.** Composed of elementary ops it makes a new array and a node for each. Fused, and
#   in place, it makes two. The backward pass (chapter 11) reads them instead of recomputing a
#   dozen.
# - **GELU.** $\frac12(1+\tanh u)=1/(1+e^{-2u})$: an `exp` costs less than a `tanh`. And $x^3$ as
#   `x**3` is a power function; as a product it is nearly free.
# - **One product.** Three thin products read the same $x$ three times. By (14.35) a wider one has
#   more intensity.
# - **The table's gradient.** `np.add.at` is a loop over ids. Sorted, equal ids stand in runs, and
#   each run is one sum. For few rows a product with one-hot rows does more operations in less time.
# - **Attention in blocks.** By (14.29) about half of the scores need not exist. And the
#   $64\times T$ scores of a block, made, exponentiated, normed and used, stay in a core's cache
#   meanwhile. The mask is one triangle of $64\times64$, added to the last 64 keys: all others are
#   earlier than any query of the block. No array of $T^2$ is left.
# - **Adam.** One array instead of thirty: no new arrays, and no time between them. By itself that
#   gains little where single tensors fit the cache. In chunks that do, each of the dozen passes
#   finds its numbers there, and by (14.36) their time is all bytes.
# - **Workers.** A product is cut among the processors, but what stands between two products, a
#   norm, a GELU, a softmax, is one call on one of them. Above, that was about half of a step. So of
#   two processors the second idles half of that time: $\frac12+\frac12\cdot\frac12=\frac34$ of
#   the time is left at best, whatever BLAS does (Amdahl 1967). Two workers are side by side in
#   everything but the sum of two gradients at the end, and can halve it: a ratio of 1.5. If the
#   processors have other work too, it swings, and is mostly larger, since the halves of each of
#   hundreds of products wait for one another. The price is a gradient for each worker. And handing
#   over a short call takes Python longer than the call: for small batches `parallel.plan` chooses
#   one worker.
# - **Kept memory.** See above. Without it, many of the activations of (14.32), and of their
#   gradients, are written to fresh pages in every step, with a fault for each page.
#
# ### Memory and time against the context
#
# The same block sizes also decide how memory grows. Here is one layer, with attention in blocks as
# it is, and with all queries in one block and all weights kept, as the formula of chapter 07 has
# it: the same code with two other constants.
#
# Fit a power of $T$ to the last two points of each curve. By (14.32) and (14.33) the whole matrix
# should come near to memory $\propto T^2$. Blocks hold a constant and a part in $T$: a power below
# 1.


# %%
def whole_step_of(model, idx):
    """Bytes alive before the backward pass, and the seconds of a step."""
    def work():
        for p in model.parameters():
            p.grad = None
        F.cross_entropy(model(idx), idx).backward()

    if not on_host:
        work()  # for its gradients alone
        return math.nan, math.nan
    with patch.object(memory, "LARGE", math.inf):
        tracemalloc.start()
        loss = F.cross_entropy(model(idx), idx)
        alive = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    del loss
    work()  # its blocks are there from now on
    return alive, median_of(work, repeats=3 if idx.shape[1] < 1024 else 1)


CONTEXTS = (64, 128, 256, 512, 1024, 2048)
curves, agree = {"blocks": [], "whole matrix": []}, []
for T in CONTEXTS:
    model, idx = make(32, 1, T=T, H=4, dtype="float32", noise=0.05), rng.integers(0, 94, (1, T))
    gradients = []
    for name, constants in (("blocks", {}), ("whole matrix", WHOLE)):
        with patch.multiple("minigpt.attention", **(constants or {"BLOCK": BLOCK})):
            curves[name].append(whole_step_of(model, idx))
        gradients.append(np.concatenate([to_numpy(p.grad).ravel() for p in model.parameters()]))
    agree.append(rel_error(*gradients))
check("blocks_change_no_gradient", agree, at_most=1e-4)
if numpy_only(ELSEWHERE, "whole_matrix_is_quadratic", "blocks_are_no_worse_than_linear",
              "blocks_save_memory"):
    curves = {name: np.array(curve) for name, curve in curves.items()}
    power = {name: np.log2(curve[-1] / curve[-2]) for name, curve in curves.items()}
    show_table(["T", *(f"{name}, {what}" for what in ("MB", "ms") for name in curves)],
               [[T, *(curve[i, 0] / 1e6 for curve in curves.values()),
                 *(1e3 * curve[i, 1] for curve in curves.values())]
                for i, T in enumerate(CONTEXTS)])
    print("powers of T, from 1024 to 2048 (memory, time):",
          {name: p.round(2).tolist() for name, p in power.items()})
    check("whole_matrix_is_quadratic", power["whole matrix"][0], at_least=1.8)
    check("blocks_are_no_worse_than_linear", power["blocks"][0], at_most=1.0)
    saved = curves["whole matrix"][-1, 0] / curves["blocks"][-1, 0]
    check("blocks_save_memory", saved, at_least=3)

# %%
if not on_host:
    print("nothing to draw: nothing was measured")
else:
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    for axes, column, unit in ((left, 0, 1e6), (right, 1, 1e-3)):
        for name, colour in (("whole matrix", RED), ("blocks", BLUE)):
            axes.plot(CONTEXTS, curves[name][:, column] / unit, "o-", color=colour)
        axes.set(xscale="log", yscale="log", xlabel="context, T (tokens)")
        axes.set_xticks(CONTEXTS, [str(T) for T in CONTEXTS])
        axes.minorticks_off()
    left.set(ylabel="held for the backward pass (MB)", title="Memory of a step, one layer")
    right.set(ylabel="processor time (ms)", title="Time of a step")
    left.text(480, 70, f"whole matrix:\npower {power['whole matrix'][0]:.1f}", color=RED,
              ha="right", va="top")
    left.text(2200, curves["blocks"][3, 0] / 1e6, f"blocks:\npower {power['blocks'][0]:.1f}",
              color=BLUE, ha="right", va="top")
    left.axvline(KEPT, color=GREY, ls="--", lw=1)
    left.text(KEPT * 1.06, 0.42, "blocks with more keys\nkeep no weights", color=GREY, size=11)
    right.text(950, 1e3 * curves["whole matrix"][4, 1], "whole matrix", color=RED, ha="right")
    right.text(1100, 0.9e3 * curves["blocks"][4, 1], "blocks", color=BLUE, va="top")
    save_figure(fig, "14_memory.svg")
    plt.show()

# %% [markdown]
# Time stays quadratic: the scores have to be computed, half of them, and beyond 512 keys once more.
# Memory does not: from 512 tokens on, the kept weights are a constant, the rest is in proportion to
# $T$, and the mask is the same triangle at any length.
#
# What is left is mostly the $26C$ numbers of (14.32). They can be traded for operations: keep of
# each block only its input, and compute the block again when its gradient is due (Chen et al. 2016,
# arXiv:1604.06174; `train --recompute`). For one text that leaves
#
# $$T\,\big(LC+4C+1+2V\big)\quad\text{numbers}, \tag{14.37}$$
#
# and those of one block while it is worked on, for one more forward pass through the blocks: a step
# of $4F$ instead of $3F$.

# %%
idx, rows, errors, less = rng.integers(0, 94, (2, 2, 64)), [], [], []
for C, L in ((32, 2), (16, 6)):
    kept, twice = (make(C, L, T=64, H=4, dtype="float32", noise=0.05) for _ in range(2))
    recompute_blocks(twice)
    per_text = [(memory_of(m, 5) - memory_of(m, 2)) / 3 for m in (kept, twice)]
    errors.append(abs(per_text[1][0] - 64 * (L * C + 4 * C + 1 + 2 * 94)))
    both = []
    for m in (kept, twice):
        for p in m.parameters():
            p.grad = None
        F.cross_entropy(m(idx[0]), idx[1]).backward()
        both.append(np.concatenate([to_numpy(p.grad).ravel() for p in m.parameters()]))
    rows.append([f"{L} blocks of {C}", *(f"{m[0]:.0f}" for m in per_text),
                 per_text[1][2] / per_text[0][2], np.abs(both[0] - both[1]).max()])
    less.append(per_text[0][0] / per_text[1][0])
check("and_change_no_gradient", [row[4] for row in rows], at_most=0)
if numpy_only(ELSEWHERE, "recomputed_blocks_hold_their_input", "they_hold_much_less"):
    show_table(["", "numbers a text, kept", "computed twice", "peak, of the peak",
                "gradients differ"], rows)
    check("recomputed_blocks_hold_their_input", errors, at_most=0)
    check("they_hold_much_less", less, at_least=3)

# %% [markdown]
# ## Gradient check
#
# First a block, alone: its input and its 12 parameters, 13 gradients. By hand against the package's
# `Block`, against the same block composed of `reference`'s functions, against central differences,
# and against complex steps.

# %%
NAMES = [name for name, _ in make(4).h[0].named_parameters()]


def block_of_package(x, *weights):
    """The package's Block, with these Tensors as its parameters."""
    block = make(4).h[0]
    for name, weight in zip(NAMES, weights, strict=True):
        owner = block
        *path, last = name.split(".")
        for attribute in path:
            owner = getattr(owner, attribute)
        setattr(owner, last, weight)
    return block(x)


def block_composed(x, *w, H=2):
    """The same from reference.py."""
    qkv = reference.linear(reference.layer_norm(x, *w[0:2]), *w[2:4])
    mixed = reference.causal_self_attention(qkv, n_head=H)
    x = x + reference.linear(mixed, *w[4:6])
    up = reference.linear(reference.layer_norm(x, *w[6:8]), *w[8:10])
    return x + reference.linear(reference.gelu(up), *w[10:12])


shapes = [p.shape for _, p in make(4).h[0].named_parameters()]
arrays = {"x": rng.normal(size=(2, 3, 4))}
arrays |= {name.replace(".weight", ".w").replace(".bias", ".b"): 0.5 * rng.normal(size=shape)
           for name, shape in zip(NAMES, shapes, strict=True)}
worst = witnesses(block_by_hand, block_of_package, block_composed, arrays,
                  analytic=lambda *a: block_by_hand(*a)[0])
check("block_vjp", worst, at_most=1e-8)

# %% [markdown]
# Then the whole model, with its loss: 2 layers, 28 tensors, and for each the same four witnesses.
# Differences and complex steps along one random direction in each tensor, so that no tensor can
# hide behind the others. After that every single *entry*, by the package's own `check_parameters`,
# for the smallest GPT of (14.24): its 88 numbers, one by one.


# %%
def gpt_composed(weights, idx, targets):
    """The whole GPT from reference.py."""
    E, P, *blocks, w_f, b_f = weights
    x = reference.embedding(E, idx) + reference.embedding(P, np.arange(idx.shape[1]))
    for i in range(0, len(blocks), 12):
        x = block_composed(x, *blocks[i : i + 12])
    z = reference.linear(reference.layer_norm(x, w_f, b_f), E.T)
    return reference.cross_entropy(z, targets)


model = make(C=4, V=6, T=5, noise=0.4)
names, leaves = zip(*model.named_parameters(), strict=True)
weights = [p.numpy() for p in leaves]
idx, targets = rng.integers(0, 6, (2, 3, 5))
_, gradients = gpt_by_hand(weights, idx, targets)
by_hand = gradients()
F.cross_entropy(model(idx), targets).backward()
copies = [Tensor(w, requires_grad=True) for w in weights]
gpt_composed(copies, idx, targets).backward()
rows = []
for i, name in enumerate(names):
    u, h = rng.normal(size=weights[i].shape), 1e-4

    def along(t, i=i, u=u):
        return gpt_by_hand([*weights[:i], weights[i] + t * u, *weights[i + 1 :]], idx, targets)[0]

    slope = (8 * (along(h) - along(-h)) - along(2 * h) + along(-2 * h)) / (12 * h)
    exact = along(1e-30j).imag / 1e-30
    want = (by_hand[i] * u).sum()
    scale = np.linalg.norm(by_hand[i]) * np.linalg.norm(u) / u.size**0.5
    rows.append([name, rel_error(leaves[i].grad, by_hand[i]), rel_error(copies[i].grad, by_hand[i]),
                 abs(slope - want) / scale, abs(exact - want) / scale])
show_table(["by hand against", "package", "composed", "differences", "complex step"],
           rows[:5] + rows[-3:])
print(f"... {len(rows)} tensors in all")
found = np.array([row[1:] for row in rows])
check("whole_model_by_four_witnesses", found[:, [0, 1, 3]], at_most=1e-11)
check("whole_model_by_differences", found[:, 2], at_most=1e-7)
smallest = make(C=2, L=1, V=3, T=2, H=1, noise=0.4)
idx, targets = np.array([[0, 2], [2, 2], [1, 0]]), np.array([[2, 1], [2, 0], [0, 1]])
every = check_parameters(lambda: F.cross_entropy(smallest(idx), targets),
                         smallest.named_parameters(), elementwise=True)
print(f"every entry of {smallest.num_parameters()}: worst {max(r.error for r in every):.1e} "
      f"in {max(every, key=lambda r: r.error).name}")
check("every_entry_of_every_tensor", [row.error for row in every], at_most=1e-6)

# %% [markdown]
# ### Break it
#
# Four mistakes of *assembly*. Every part is right, and has passed its own check:
#
# - the sum in the backward pass of a residual is forgotten, $dx=J^\top g$: only the branch is left;
# - the tied table gets the gradient of one use only: the head's, or the embedding's;
# - the table's gradient is assigned where it should be added to, so of a repeated id one copy
#   counts.
#
# How far off is the gradient? And would anyone notice from the loss? Each trains the same small GPT
# on real text with its own wrong gradient.

# %%
corpus = data.load("facts")
parts = data.split(corpus)
tokenizer = CharTokenizer.from_text(corpus.text)
V = tokenizer.vocab_size
train_ids, val_ids = tokenizer.encode(parts.train), tokenizer.encode(parts.val)


def assign(table, idx, rows):
    table[idx] = table[idx] + rows


def wrong_gradients(weights, idx, targets, highway=1, **mistake):
    """gpt_by_hand's gradients with a mistake put in."""
    with patch.dict(block_by_hand.__kwdefaults__, {"highway": highway}):
        return gpt_by_hand(weights, idx, targets)[1](**mistake)


MISTAKES = {"none": {}, "no highway": {"highway": 0}, "embedding's use only": {"head": 0},
            "head's use only": {"add": lambda *_: None}, "assigned, not added": {"add": assign}}


def batch(ids, B, T, rng):
    """B windows, and the same one place on: (B, T) each."""
    rows = ids[rng.integers(0, len(ids) - T, B)[:, None] + np.arange(T + 1)]
    return rows[:, :-1], rows[:, 1:]


results = []
for name, mistake in MISTAKES.items():
    own, losses = np.random.default_rng(0), []
    small = make(C=16, V=V, seed=1)
    optimizer = Adam(small.parameters(), 1e-2)
    idx, targets = batch(train_ids, 8, 16, own)
    values = [p.numpy() for p in small.parameters()]
    right, wrong = (wrong_gradients(values, idx, targets, **m) for m in ({}, mistake))
    flat = [np.concatenate([d.reshape(-1) for d in grads]) for grads in (right, wrong)]
    for _ in range(60):
        idx, targets = batch(train_ids, 8, 16, own)
        values = [p.numpy() for p in small.parameters()]
        losses.append(gpt_by_hand(values, idx, targets)[0])
        grads = wrong_gradients(values, idx, targets, **mistake)
        for p, grad in zip(small.parameters(), grads, strict=True):
            p.grad = xp.asarray(grad)
        optimizer.step()
    results.append([name, np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0]),
                    losses[0], np.mean(losses[-10:])])
show_table(["mistake", "relative error of the gradient", "first loss", "loss after 60 steps"],
           results)
check("mistakes_are_far_off", [row[1] for row in results[1:]], at_least=0.1)
check("yet_the_loss_falls", [row[2] - row[3] for row in results[1:]], at_least=0.6)
nearest = sorted(row[3] - results[0][3] for row in results[1:])[:3]
check("three_would_pass_for_right", nearest, at_most=0.3)

# %% [markdown]
# Every wrong gradient brings the loss down by a nat or so, and three of the four curves would pass
# for the right one. (The head's use alone is not behind at all, by the end of so short a run. It
# will return below.) A check by differences finds each of them before the first step.
#
# ## Experiment
#
# ### One batch by heart
#
# The cheapest test of an assembled model: it must be able to learn one batch by heart. If it
# cannot, something is cut or scaled wrongly. (If it can, that proves nothing about the gradient, as
# we just saw.) How low can the loss get? Two texts that begin with the same characters and then go
# on differently cannot both be right. Where $n$ texts agree up to position $t$, the best is their
# entropy:
#
# $$\text{floor}=\frac1{BT}\sum_{\text{beginnings}}\ \sum_{v}-n_v\ln\frac{n_v}n, \tag{14.38}$$
#
# with $n_v$ of the $n$ texts going on with $v$.
#
# **Prediction.** The loss starts within a tenth of $\ln94=4.543$, and ends above the floor, by less
# than 0.01.


# %%
def floor_of(idx, targets):
    """The least mean loss that a causal model can reach on one batch."""
    total = 0.0
    for t in range(idx.shape[1]):
        follow = {}
        for row, target in zip(idx, targets, strict=True):
            follow.setdefault(tuple(row[: t + 1]), []).append(int(target[t]))
        for seen in follow.values():
            n = np.unique(seen, return_counts=True)[1]
            total -= (n * np.log(n / n.sum())).sum()
    return total / idx.size


model = make(C=32, V=V, T=32, H=4, dtype="float32", L=2)
optimizer, losses = AdamW(model.parameters(), 1e-2, weight_decay=0.0), []
idx, targets = batch(train_ids, 4, 32, np.random.default_rng(0))
least = floor_of(idx, targets)
for _ in range(150):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(idx), targets)
    loss.backward()
    clip_grad_norm(optimizer.params, 1.0)
    optimizer.step()
    losses.append(loss.item())
print("loss at steps 1, 50, 100, 150:", np.round([losses[i] for i in (0, 49, 99, 149)], 4),
      f" floor {least:.4f}")
check("first_loss_is_ln_v", abs(losses[0] - math.log(V)), at_most=0.1)
check("one_batch_by_heart", abs(losses[-1] - least), at_most=0.01)
check("not_below_its_floor", least - losses[-1], at_most=1e-6)

# %% [markdown]
# ### Taking parts away
#
# Two blocks of 32 channels, 280 steps of 512 characters, and the same again with one part changed.
# All have a head of their own, except one that is tied. Scored on 10,000 held-out characters,
# beside the counted 1-gram and 2-gram.
#
# **Prediction.**
#
# - *Whole*: a few seconds are enough to pass the 2-gram, not by much.
# - *No attention*: each position sees its own token and nothing else. That is a 2-gram with a
#   position, whatever its size. It cannot pass the counted 2-gram by more than chance, and will end
#   above.
# - *No MLP*: a little worse than whole. Attention carries most of what matters in 16 characters.
# - *No sums*: by what was measured above, tokens become alike and nothing is left but how often
#   each character comes: the 1-gram.
# - *Post-norm*: with 4 branches (14.11) is no catastrophe: near the whole one. With 8, in 4 blocks,
#   and 20 steps of warm-up, where Xiong et al. 2020 (arXiv:2002.04745) needed thousands: far behind
#   pre-norm.
# - *Tied*: in large vocabularies tying saves a third of the parameters. With 94 characters it saves
#   nothing, and must unlearn (14.20): behind after 280 steps.


# %%
class NoAttention(Block):
    def __call__(self, x, rng=None, bias=None):
        return x + self.mlp(self.ln_2(x))


class NoMLP(Block):
    def __call__(self, x, rng=None, bias=None):
        return x + self.attn(self.ln_1(x))


def same(x):
    return x


def train(kind=Block, steps=280, L=2, lr=1e-2, tied=False, seed=0):
    """Train on the default corpus; the held-out loss in nats per character, and the model."""
    model, own = make(32, L, V, 16, 4, "float32", seed, tied=tied), np.random.default_rng(seed)
    for block in model.h:
        block.__class__ = kind
    if kind is PostNorm:
        model.ln_f = same  # its stream is normed already
    optimizer = AdamW(model.parameters(), lr, decay=model.decayed_parameters())
    for step in range(steps):
        idx, targets = batch(train_ids, 32, 16, own)
        optimizer.lr = warmup_cosine(step, lr=lr, warmup=20, steps=steps)
        optimizer.zero_grad()
        F.cross_entropy(model(idx), targets).backward()
        clip_grad_norm(optimizer.params, 1.0)
        optimizer.step()
    return nats_per_token(model, val_ids[:10_001]), model


judged = val_ids[:10_001]
one_gram, two_gram = NGram(2, V).fit(train_ids).nats_by_order(judged)[:, 1:].mean(1)
shallow = {"whole": train(), "no attention": train(NoAttention), "no MLP": train(NoMLP),
           "no sums": train(NoSums), "post-norm": train(PostNorm), "tied": train(tied=True)}
deeper = {"pre-norm": train(L=4, steps=120), "post-norm": train(PostNorm, L=4, steps=120)}
loss = {name: nats for name, (nats, _) in shallow.items()}
deep = {name: nats for name, (nats, _) in deeper.items()}
show_table(["2 blocks, 280 steps", "nats per character"], [*loss.items()])
show_table(["4 blocks, 120 steps", "nats per character"], [*deep.items()])
print(f"1-gram {one_gram:.3f}, 2-gram {two_gram:.3f}, ln 94 {math.log(94):.3f}")
check("whole_passes_the_bigram", two_gram - loss["whole"], at_least=0.015)
check("without_attention_it_cannot", loss["no attention"] - two_gram, at_least=0.02)
check("no_sums_learns_the_unigram", abs(loss["no sums"] - one_gram), at_most=0.1)
check("no_mlp_is_a_small_loss", abs(loss["no MLP"] - loss["whole"]), at_most=0.2)
check("shallow_post_norm_is_near", abs(loss["post-norm"] - loss["whole"]), at_most=0.2)
check("deeper_post_norm_falls_behind", deep["post-norm"] - deep["pre-norm"], at_least=0.2)
check("tied_is_behind", loss["tied"] - loss["whole"], at_least=0.1)
alike = {}
for name, (_, trained) in deeper.items():
    with no_grad():
        x = trained.wte(judged[None, :16]) + trained.wpe(np.arange(16))
        for block in trained.h:
            x = block(x)
    alike[name] = likeness(x.numpy())
print("tokens alike, after training 4 blocks:", {k: round(v, 3) for k, v in alike.items()})
check("stuck_since_tokens_are_alike", alike["post-norm"], at_least=0.95)
check("pre_norm_tells_them_apart", alike["pre-norm"], at_most=0.5)

# %%
fig, axes = plt.subplots(figsize=(8, 4.2))
bars = [*loss.items(), *((f"{name}, 4 blocks", nats) for name, nats in deep.items())]
for row, (name, nats) in enumerate(reversed(bars)):
    last_two = row < 2
    colour = BLUE if name in ("whole", "pre-norm, 4 blocks") else RED
    axes.barh(row, nats - 2.2, left=2.2, color=colour, height=0.6, alpha=0.6 if last_two else 1)
    axes.text(2.21, row, f"{nats:.2f}", va="center", color="white")
for nats, name in ((one_gram, "1-gram"), (two_gram, "2-gram")):
    axes.axvline(nats, color=GREY, ls="--", lw=1.5)
    axes.text(nats, 1.01, name, color=GREY, ha="center", transform=axes.get_xaxis_transform())
axes.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)])
axes.grid(axis="y", visible=False)
axes.set(xlabel="held-out loss (nats per character)", xlim=(2.2, 3.45), ylim=(-0.6, len(bars)))
axes.set_title("Without attention a GPT is a 2-gram, without sums a 1-gram", pad=18)
save_figure(fig, "14_ablations.svg")
plt.show()

# %% [markdown]
# As predicted, in every line. Three of them deserve a second look.
#
# *No attention* ends between the two n-grams, a little above the 2-gram. The 2-gram was counted on
# the whole training text, and is the best that can be done with one character. *Post-norm* with two
# blocks is even somewhat better than pre-norm here; with four it has not learned a thing: its
# tokens have all become the same vector, and what is left is the 1-gram. That is a matter of
# warm-up and rate, not of principle (GPT-1 and BERT are post-norm). It is why nearly everybody
# moved the norm: the deep pre-norm network simply trains. *Tied* is behind, in a short run and a
# small vocabulary. This is one seed and five seconds each: the large gaps are safe, and nothing
# should be read into a few hundredths.

# %% [markdown]
# ## What others get wrong
#
# The documents S0 to S4 are listed in the [chapters' README](README.md).
#
# ### GPT-3 has 175 billion parameters (S4:23)
#
# Right, and (14.24) can say so. With $L=96$, $C=12288$, $V=50257$ and $T=2048$ (Brown et al. 2020)
# it is 174.6 billion. The same formula gives GPT-2 XL's 1,557,611,200 ($L=48$, $C=1600$). GPT-1 (12
# layers of 768, $V=40478$, $T=512$) has no last norm: less $2C$, that is 116,534,784. A formula is
# checked by cases, so take the share that is matrices in blocks, too: it goes from two thirds to
# nearly all.

# %%
known = {"GPT-1": (40478, 512, 768, 12), "GPT-2": (50257, 1024, 768, 12),
         "GPT-2 XL": (50257, 1024, 1600, 48), "GPT-3": (50257, 2048, 12288, 96)}
sizes = {name: parameters(*shape) - 2 * 768 * (name == "GPT-1") for name, shape in known.items()}
show_table(["model", "parameters", "matrices of blocks", "attention catches up at T"],
           [[name, f"{P:,}", 12 * known[name][3] * known[name][2] ** 2 / P, 6 * known[name][2]]
            for name, P in sizes.items()])
published = {"GPT-1": 116_534_784, "GPT-2 XL": 1_557_611_200, "GPT-3": 174_604_259_328}
check("gpt1_xl_and_gpt3", [abs(sizes[name] - n) for name, n in published.items()], at_most=0)
check("rounds_to_175_billion", abs(sizes["GPT-3"] / 175e9 - 1), at_most=0.005)

# %% [markdown]
# ### A "GPT" of small networks (S2:142-147)
#
# S2's program makes, for each layer and each *head*, a network of two square matrices with a ReLU
# between. Nothing else has parameters but the embedding. For its arguments (10, 8, 2, 2) that is
# 656 numbers. None of them is a query, a key or a value; there are no positions, norms, or sums,
# and no head that gives scores for a vocabulary. (Its forward pass calls two methods that do not
# exist.) And it grows with the number of heads, which by (14.24) a GPT does not.


# %%
def theirs(V, C, layers, heads):
    """Parameters of S2's class: a table, and two square linear layers a head and layer."""
    return V * C + layers * heads * 2 * (C * C + C)


ours = [make(8, 2, V=10, H=H).num_parameters() for H in (1, 2, 4, 8)]
growing = [theirs(10, 8, 2, H) for H in (1, 2, 4, 8)]
print("by heads 1, 2, 4, 8: theirs", growing, " a GPT", ours)
check("theirs_has_656", abs(theirs(10, 8, 2, 2) - 656), at_most=0)
check("heads_cost_a_gpt_nothing", max(ours) - min(ours), at_most=0)
check("but_cost_them", growing[-1] - growing[0], at_least=1000)

# %% [markdown]
# ### A recursive structure, repeated for longer outputs (S2:46, S2:122-129)
#
# S2 puts attention, norm, feed-forward network and positional encoding in a row, calls it
# recursive, and repeats it to get outputs of different lengths. Depth and length are different
# things. The $L$ blocks have each their own parameters, and $L$ is fixed when the model is made.
# The length of the output is that of the input, whatever $L$ is, and text gets longer since a token
# is appended and the model asked again. A block applied again and again would be another model,
# with a fraction of the parameters. And without sums, 24 of them in a row give the "no sums" curve
# above.

# %%
model = make(16, 4, noise=0.2)
shapes = [model(rng.integers(0, 94, (1, T))).shape[1] for T in (1, 5, 16)]
recursive = make(16, 4, noise=0.2)
recursive.h = [recursive.h[0]] * 4  # one block, four times
idx = rng.integers(0, 94, (1, 16))
print(f"lengths {shapes}; parameters {model.num_parameters():,}, recursive "
      f"{recursive.num_parameters():,}")
check("length_is_that_of_the_input", rel_error(shapes, [1, 5, 16]), at_most=0)
lost = model.num_parameters() - recursive.num_parameters()
check("recursive_lacks_three_blocks", abs(lost - 3 * (12 * 16**2 + 13 * 16)), at_most=0)
with no_grad():
    gap = rel_error(recursive(idx), model(idx))
check("and_is_another_model", gap, at_least=0.1)

# %% [markdown]
# ### A width where the number of heads belongs (S3:152, S3:166)
#
# S3 passes 512, 1024, 3 and 0.1 by position to a library's transformer: meant as embedding width,
# hidden width, layers and dropout, read as width, *heads*, encoder layers, and *decoder layers*:
# 0.1 of them. 1024 heads do not divide 512 channels. What saves one from this is names, and a check
# where a configuration is made:

# %%
refused = []
for wrong in ({"n_embd": 512, "n_head": 1024}, {"n_layer": 0.1}):
    try:
        GPTConfig(10_000, **wrong)
    except ValueError as error:
        refused.append(str(error))
        print(error)
check("both_are_refused", 2 - len(refused), at_most=0)

# %% [markdown]
# ### Probabilities straight from the feed-forward network (S3:337)
#
# S3's last step is a softmax over the network's output. That has $C$ numbers a token, so it would
# be a distribution over *channels*. What is missing is (14.5): the last norm and the product with
# $E^\top$. Here $C=16$ and $V=94$; 78 of the tokens could not even be named.

# %%
with no_grad():
    x = model.wte(idx) + model.wpe(np.arange(16))
    for block in model.h:
        x = block(x)
    straight, right = F.softmax(x).shape[-1], F.softmax(model(idx)).shape[-1]
check("a_distribution_over_channels", right - straight, at_least=78)
check("the_head_gives_one_over_tokens", abs(right - 94), at_most=0)

# %% [markdown]
# ### Parameters that no optimizer knows (S0:261-287, S4:1110-1154)
#
# S0 applies its embedding and its transformer once, before training, outside the part that is
# recorded for the gradient. Only the last layer's variables are asked for a gradient. S4's sketch
# calls an embedding and an attention that are free functions, not parts of the model whose
# parameters the optimizer got. Both would train a last layer on random features, and the loss would
# fall. Here is S0's way, with the package: everything below the last norm is computed without
# recording. The loss even comes below that of the 1-gram, since $h^0$ still tells random vectors of
# 94 tokens apart.

# %%
blind = make(32, 2, V, H=4, dtype="float32", tied=False)
optimizer = AdamW(blind.parameters(), 1e-2, weight_decay=0.0)
before = [p.numpy().copy() for p in blind.parameters()]
own, losses = np.random.default_rng(0), []
for _ in range(60):
    idx, targets = batch(train_ids, 16, 16, own)
    with no_grad():
        x = blind.wte(idx) + blind.wpe(np.arange(16))
        for block in blind.h:
            x = block(x)
    optimizer.zero_grad()
    loss = F.cross_entropy(F.linear(blind.ln_f(x), blind.lm_head.weight.T), targets)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
still = [np.array_equal(a, p.numpy()) for a, p in zip(before, blind.parameters(), strict=True)]
print(f"{sum(still)} of {len(still)} tensors never moved; loss {losses[0]:.2f} to {losses[-1]:.2f}")
check("all_but_three_stay_where_they_were", abs(sum(still) - (len(still) - 3)), at_most=0)
check("and_the_loss_falls", losses[0] - losses[-1], at_least=0.5)
check("even_below_the_unigram", one_gram - np.mean(losses[-5:]), at_least=0.05)
whole = make(32, 2, V, H=4, dtype="float32", tied=False)
F.cross_entropy(whole(idx), targets).backward()
check("recorded_all_get_a_gradient",
      1 - min(float(abs(p.grad).max() > 0) for p in whole.parameters()), at_most=0)

# %% [markdown]
# ### The wrong axis (S4:1089)
#
# S4 hands scores $(B,T,V)$ and targets $(B,T)$ to a loss that wants the classes on axis 1. If
# $T\ne V$ it refuses. If $T=V$, it runs: and takes the softmax over *time*. Then a position's
# probability depends on later positions' logits, and (14.22) is gone.


# %%
def over_axis(z, targets, axis):
    """-log softmax(z) at the targets, with the classes on an axis. z (B, T, V) -> (B, T)."""
    z = z if axis == 2 else z.swapaxes(1, 2)
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -np.take_along_axis(logp, targets[..., None], -1)[..., 0]  # (B, T) charges


z, targets = rng.normal(size=(8, 9, 9)), rng.integers(0, 9, (8, 9))  # T = V = 9
charges = [over_axis(z, targets, axis) for axis in (2, 1)]
package = F.cross_entropy(Tensor(z), targets).item()
moved = z.copy()
moved[:, -1] += 1.0 + targets[:, -1:]  # later logits
later = [np.abs(over_axis(moved, targets, axis) - c)[:, :-1].max()
         for axis, c in zip((2, 1), charges, strict=True)]
print("largest change of an earlier charge if the last position's logits change:", later)
check("classes_are_the_last_axis", [abs(charges[0].mean() / package - 1), later[0]], at_most=1e-12)
check("the_other_axis_is_another_loss", np.abs(charges[1] - charges[0]).max(), at_least=0.5)
check("and_it_sees_the_future", later[1], at_least=0.1)

# %% [markdown]
# ### Diagrams (S0:250, S0:299, S3:309-316, S4:1057-1065)
#
# Drawn by hand, they show one block, no norm, no sum, no mask, a position computed from the
# embedding, and no tie. A diagram can be *read off* a forward pass instead (`python -m minigpt
# graph`): then it cannot leave out a sum that is there, or show one that is not.

# %%
sizes = {}
for name, kind in (("GPT", Block), ("no sums", NoSums)):
    model = make(16, 2, dtype="float32")
    for block in model.h:
        block.__class__ = kind
    diagram = whole_diagram(model)
    residual = sum(edge.kind == "residual" for edge in diagram.edges)
    counted = sum(box.count * box.copies for box in diagram.boxes)
    sizes[name] = [len(diagram.boxes), residual, abs(counted - model.num_parameters())]
    print(name, dict(zip(("boxes", "residual edges", "uncounted parameters"), sizes[name],
                         strict=True)))
check("every_parameter_has_a_box", [row[2] for row in sizes.values()], at_most=0)
check("two_sums_a_block", abs(sizes["GPT"][1] - 2 * 2), at_most=0)
check("removed_sums_disappear", sizes["no sums"][1], at_most=0)

# %% [markdown]
# ## Exercises
#
# Fill in a stub and run the cell after it. Solutions, with wrong answers and why they are wrong,
# are in `solutions/14_gpt_assembled.py`.

# %% [markdown]
# ### Exercise 14.1: The widest model for a budget
#
# *Difficulty 1 of 5 · 10 minutes · 1 point*
#
# You may have at most `budget` parameters. The vocabulary `V`, the context `T`, and the number of
# layers `L` are given, the head is tied, and the width must be a multiple of `step`. Return the
# largest such width, or 0 if there is none.
#
# <details><summary>Hint 1</summary>
#
# Write down how many parameters a width $C$ needs. All of them: also the positions and the last
# norm.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The count grows with $C$. Go up from `step` while the next width still fits.
#
# </details>


# %% exercise="14.1" role="stub"
def widest(budget, V, T, L, step):
    """The largest width, a multiple of step, of a tied GPT within a budget of parameters. -> int"""
    raise NotImplementedError


# %% exercise="14.1" role="check"
def check_14_1(widest):
    """The known sizes fit exactly, and with one parameter less they do not."""
    assert widest(88, 3, 2, 1, 2) == 2, "the smallest GPT of the chapter has 88 parameters"
    assert widest(87, 3, 2, 1, 2) == 0, "nothing fits into 87"
    assert widest(124_439_808, 50257, 1024, 12, 64) == 768, "GPT-2's own budget must give its width"
    assert widest(124_439_807, 50257, 1024, 12, 64) == 704, "one parameter less: one step narrower"


attempt(check_14_1, widest)

# %% [markdown]
# ### Exercise 14.2: A branch with a gate
#
# *Difficulty 2 of 5 · 15 minutes · 2 points*
#
# Instead of small initial weights, put a trained number before each branch: $y=x+a\,f(x)$, with
# $a=0$ at the start (Bachlechner et al. 2020, arXiv:2003.04887). `branch(x)` returns `(out, vjp)`,
# and `vjp(g)` the gradient of the branch's input. Call the branch once. Return `y` and its own
# `vjp`, which returns `(dx, da)`: an array of x's shape, and a number.
#
# <details><summary>Hint 1</summary>
#
# Two arguments, two questions: how does $g\cdot y$ change if $x$ moves, and if $a$ moves?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $a$ is one number that multiplies every entry of $f(x)$. What each entry sends back is summed.
#
# </details>


# %% exercise="14.2" role="stub"
def gated_residual(x, a, branch):
    """y = x + a * f(x), and vjp: g -> (dx, da). x: array; a: number; branch: x -> (out, vjp)."""
    raise NotImplementedError


# %% exercise="14.2" role="check"
def check_14_2(gated_residual):
    """Both gradients against differences, and the identity at a = 0."""
    rng = np.random.default_rng(1)
    W, x, u, g = (rng.normal(size=shape) for shape in ((4, 4), (3, 4), (3, 4), (3, 4)))

    def branch(x):
        out = np.sin(x @ W)
        return out, lambda g: (g * np.cos(x @ W)) @ W.T

    y, vjp = gated_residual(x, 0.7, branch)
    assert np.allclose(y, x + 0.7 * np.sin(x @ W)), "y is x plus a times the branch"
    dx, da = vjp(g)
    h = 1e-6
    slope = [(gated_residual(x + h * v, 0.7 + h * b, branch)[0]
              - gated_residual(x - h * v, 0.7 - h * b, branch)[0]) / (2 * h)
             for v, b in ((u, 0), (0 * u, 1))]
    assert np.shape(dx) == x.shape, "dx has x's shape"
    assert abs((g * slope[0]).sum() - (dx * u).sum()) < 1e-6, "dx differs from differences"
    assert np.shape(da) == (), "da is one number"
    assert abs((g * slope[1]).sum() - da) < 1e-6, "da differs from differences"
    y, vjp = gated_residual(x, 0.0, branch)
    assert (y == x).all() and (vjp(g)[0] == g).all(), "with a = 0 it is the identity, both ways"


attempt(check_14_2, gated_residual)

# %% [markdown]
# ### Exercise 14.3: Who depends on whom?
#
# *Difficulty 2 of 5 · 20 minutes · 2 points*
#
# `f` maps ids $(B,T)$, each in $0..V-1$, to logits $(B,T,V)$, and looks at each text by itself.
# Find out which output position depends on which input position, without looking inside. Start from
# the text `base` $(T)$. Return a bool array `depends` $(T,T)$: `depends[t, s]` is true if some
# *other token* at position `s`, with all else as in `base`, changes the logits at `t`. Try all of
# the other tokens.
#
# <details><summary>Hint 1</summary>
#
# For each `s` make a batch of $V$ texts: `base` with each token in place `s`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Compare each of them with the logits of `base` itself, over all $V$ logits of a position. A leak
# may show with one single token, and in one single logit.
#
# </details>


# %% exercise="14.3" role="stub"
def dependence(f, base, V):
    """Which output depends on which input. base (T,) int -> bool (T, T), [output, input]."""
    raise NotImplementedError


# %% exercise="14.3" role="check"
def check_14_3(dependence):
    """A causal function, one that sees two tokens, and one that looks ahead."""
    V, base = 5, np.array([3, 1, 4, 1, 0, 2])
    table = np.random.default_rng(0).normal(size=(V, V))
    own = lambda idx: table[idx]  # noqa: E731
    assert (dependence(own, base, V) == np.eye(6, dtype=bool)).all(), "each sees itself only"
    causal = lambda idx: np.cumsum(table[idx], axis=1)  # noqa: E731
    got = dependence(causal, base, V)
    assert got.dtype == bool and got.shape == (6, 6), "a bool array (T, T)"
    assert (got == np.tri(6, dtype=bool)).all(), "rows are outputs, columns inputs"
    ahead = lambda idx: table[idx] + np.roll(table[idx], -1, axis=1)  # noqa: E731
    want = np.eye(6, dtype=bool) | np.roll(np.eye(6, dtype=bool), 1, axis=1)
    assert (dependence(ahead, base, V) == want).all(), "a look one place ahead was not found"


attempt(check_14_3, dependence)

# %% [markdown]
# ### Exercise 14.4: Scores of a sliding window
#
# *Difficulty 3 of 5 · 20 minutes · 3 points*
#
# A query may see itself and the `w - 1` tokens before it. As in the package, queries are taken in
# blocks of `b` (the last block may be shorter), and a block computes *all its queries against all
# keys that any of them may see*, one rectangle. Return how many scores are computed for `T` tokens
# and one head.
#
# <details><summary>Hint 1</summary>
#
# A block of queries `i..j-1` needs keys up to `j - 1`. Which is the first? Its *first* query
# decides.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Query `i` sees `i - w + 1` as the earliest, unless that is before the text.
#
# </details>


# %% exercise="14.4" role="stub"
def window_scores(T, w, b):
    """How many scores blocks of b queries compute, if each query sees w keys at most. -> int"""
    raise NotImplementedError


# %% exercise="14.4" role="check"
def check_14_4(window_scores):
    """Small cases by hand, and the causal case."""
    assert window_scores(4, 1, 1) == 4, "each sees itself: 4 blocks of 1 query and 1 key"
    assert window_scores(4, 2, 2) == 10, "2 queries with 2 keys, then 2 with keys 1, 2, 3"
    assert window_scores(5, 5, 5) == 25, "one block computes everything"
    assert window_scores(5, 1, 2) == 9, "the last block has one query"
    for n in (1, 3, 8):
        assert window_scores(64 * n, 10_000, 64) == 64**2 * n * (n + 1) // 2, "a window too wide"


attempt(check_14_4, window_scores)

# %% [markdown]
# ### Exercise 14.5: Forget, and compute again
#
# *Difficulty 4 of 5 · 30 minutes · 4 points*
#
# `blocks` is a list of functions `x -> (out, vjp)`, to be applied one after the other. Their `vjp`s
# hold the activations. Write a forward pass that keeps only the *input* of every `every`-th block
# (0, `every`, 2 `every`, ...), and a `vjp` that computes the rest again, group by group, from the
# last to the first (Chen et al. 2016, arXiv:1604.06174). At no time may more than `every` of the
# blocks' `vjp`s be alive: none between the passes, and the last group's only while it is worked on.
#
# <details><summary>Hint 1</summary>
#
# Forward: keep the input of a block if its number is a multiple of `every`, and of `(out, vjp)`
# only `out`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Backward, for each group: run it forward again from its input, collecting its `vjp`s; then apply
# these from the end, with `list.pop`. Names that still point to a `vjp` keep it alive: `del` them,
# or put the work on a group into a function of its own.
#
# </details>


# %% exercise="14.5" role="stub"
def checkpointed(blocks, x, every):
    """Apply blocks to x; keep only every so many-th input. -> (out, vjp), with vjp: g -> dx."""
    raise NotImplementedError


# %% exercise="14.5" role="check"
def check_14_5(checkpointed):
    """The right gradient, and never more than a group of closures alive."""
    rng, alive, most = np.random.default_rng(0), [0], [0]

    class Activation:
        def __init__(self):
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def __del__(self):
            alive[0] -= 1

    def make_block(W):
        def block(x):
            y, kept = np.tanh(x @ W), Activation()

            def vjp(g):
                _ = kept  # lives as long as this vjp
                return g + (g * (1 - y * y)) @ W.T

            return x + y, vjp

        return block

    blocks = [make_block(0.3 * rng.normal(size=(4, 4))) for _ in range(6)]
    x, g = rng.normal(size=(2, 3, 4))
    want, back = x, g
    vjps = []
    for block in blocks:
        want, vjp = block(want)
        vjps.append(vjp)
    while vjps:
        back = vjps.pop()(back)
    del vjp
    out, vjp = checkpointed(blocks, x, 2)
    assert np.allclose(out, want), "the forward pass is another one"
    assert alive[0] == 0, "between the passes no block's vjp may be alive"
    most[0] = 0
    assert np.allclose(vjp(g), back), "the gradient is another one"
    assert most[0] <= 2, "more than a group of vjps was alive"


attempt(check_14_5, checkpointed)

# %% [markdown]
# ### Exercise 14.6: A stream that can be run backwards
#
# *Difficulty 5 of 5 · 40 minutes · 5 points*
#
# Split the stream in two halves and let each branch read one and write to the other (Gomez et al.
# 2017, arXiv:1707.04585):
#
# $$y_1=x_1+f(x_2),\qquad y_2=x_2+h(y_1).$$
#
# Nothing at all has to be kept: the inputs follow from the outputs. Given $y_1,y_2$, their
# cotangents, and the branches `f` and `h` (each `x -> (out, vjp)`), return `x1, x2, dx1, dx2`. Call
# each branch once.
#
# <details><summary>Hint 1</summary>
#
# First the values: $h$ can be computed at once, and then $x_2$, and then $f$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $y_1$ is used twice: it is an output, and it goes into $h$. Its whole cotangent comes first.
#
# </details>


# %% exercise="14.6" role="stub"
def reversible_backward(y1, y2, dy1, dy2, f, h):
    """Inputs and their gradients, from the outputs and theirs. -> x1, x2, dx1, dx2"""
    raise NotImplementedError


# %% exercise="14.6" role="check"
def check_14_6(reversible_backward):
    """Inputs are recovered, and gradients agree with differences."""
    rng = np.random.default_rng(0)
    A, B, x1, x2, u1, u2, g1, g2 = (rng.normal(size=(3, 3)) for _ in range(8))

    def branch(W):
        def run(x):
            y = np.tanh(x @ W)
            return y, lambda g: (g * (1 - y * y)) @ W.T

        return run

    f, h = branch(A), branch(B)

    def forward(x1, x2):
        y1 = x1 + np.tanh(x2 @ A)
        return y1, x2 + np.tanh(y1 @ B)

    got = reversible_backward(*forward(x1, x2), g1, g2, f, h)
    assert np.allclose(got[0], x1) and np.allclose(got[1], x2), "the inputs are not recovered"
    e = 1e-6
    up, down = (forward(x1 + s * e * u1, x2 + s * e * u2) for s in (1, -1))
    slope = sum((g * (a - b)).sum() for g, a, b in zip((g1, g2), up, down, strict=True)) / (2 * e)
    found = (got[2] * u1).sum() + (got[3] * u2).sum()
    assert abs(slope - found) < 1e-6, "the gradients differ from differences"


attempt(check_14_6, reversible_backward)

# %% [markdown]
# ## What was checked
#
# | equation or claim | check | bound |
# |---|---|---|
# | (14.1) four paths through two branches | `four_paths` | <= 1e-15 |
# | (14.2) a factor of 9.85 with sums, of 1e-24 without | `twenty_four_branches` | <= 1e-05 |
# | (14.6) the stream is a sum of branches | `stream_is_a_sum` | <= 1e-12 |
# | (14.8) a product of sums is a sum over paths | `sum_over_paths` | <= 1e-12 |
# | (14.7) the cotangent, and the branch's own | `residual_vjp` | <= 1e-08 |
# | (14.9) an empty block is the identity, both ways | `empty_block_is_the_identity` | <= 0 |
# | (14.10) post-norm, unrolled | `post_norm_unrolled` | <= 1e-12 |
# | (14.11) the token's own share of the variance | `own_share` | <= 0.04 |
# | post-norm forgets it | `post_norm_forgets` | >= 10 |
# | (14.12) gradient times stream: the power is -1 | `gradient_goes_as_one_over_stream` | <= 0.25 |
# | (14.12) at GPT-2's start | `closer_at_gpt2s_start` | <= 0.06 |
# | the stream grows meanwhile | `while_the_stream_itself_grows` | >= 3 |
# | pre-norm keeps tokens apart | `pre_norm_keeps_tokens_apart` | <= 0.9 |
# | post-norm makes them alike | `post_norm_makes_them_alike` | >= 0.97 |
# | so do branches without sums | `so_does_a_stack_without_sums` | >= 0.999 |
# | (14.13) variance of token plus position | `variance_at_the_start` | <= 0.1 |
# | (14.14) what an MLP adds | `variance_of_an_mlp` | <= 0.12 |
# | (14.15) what attention adds, between its bounds | `variance_of_attention` | <= 1.15 |
# | (14.16) the stream's end, between its bounds | `variance_adds_up` | <= 1.1 |
# | (14.16) with the scale it does not depend on L | `scaled_stays` | <= 0.25 |
# | without it grows | `unscaled_grows` | >= 8 |
# | (14.17) the gradient of the tied table | `tied_gradient_is_a_sum` | <= 1e-12 |
# | (14.17), (14.18) the head's part, index by index | `head_gradient_by_index` | <= 1e-12 |
# | (14.17) an unread token has no first term | `unread_rows_have_no_first_term` | <= 0 |
# | but a second | `but_all_have_the_second` | >= 0.0001 |
# | (14.19) first loss, untied | `fresh_loss_untied` | <= 0.08 |
# | (14.21) first loss, tied | `fresh_loss_tied` | <= 0.1 |
# | (14.20) a fresh tied GPT expects repetition | `fresh_logit_of_the_token_read` | <= 0.1 |
# | an untied one does not | `untied_expects_no_repetition` | <= 0.08 |
# | within a tenth of ln V | `starts_within_a_tenth_of_ln_v` | <= 0.1 |
# | (14.22) later tokens change nothing | `later_tokens_change_no_earlier_logit` | <= 1e-13 |
# | (14.22) no gradient to later tokens | `no_gradient_to_later_tokens` | <= 0 |
# | one to every earlier token | `a_gradient_to_every_earlier_token` | >= 0.0001 |
# | a leak of 1e-4 is caught by both | `a_small_leak_is_caught_both_ways` | >= 1e-06 |
# | (14.23), (14.24) parameters, counted in the arrays | `parameters_of_a_block_and_of_all` | <= 0 |
# | (14.24) the package's count by part | `package_counts_the_same_by_part` | <= 0 |
# | (14.24) the smallest GPT has 88 | `eighty_eight` | <= 0 |
# | (14.25) GPT-2, from the arrays of one and two blocks | `gpt2_by_counting` | <= 0 |
# | (14.26) operations forward, counted | `forward_operations` | <= 1e-12 |
# | (14.27), (14.30) operations of a step, counted | `operations_of_a_step` | <= 1e-12 |
# | (14.29) share of the scores that is computed | `share_of_scores` | <= 1e-12 |
# | (14.28) attention equals matrices at T = 6C | `attention_catches_up` | <= 1e-12 |
# | the package's formula is without mask | `package_formula_without_mask` | <= 1e-12 |
# | (14.32), (14.33) numbers held by the tape | `activations_of_a_text` | <= 0 |
# | (14.32) bytes alive, by the allocator | `activations_alive` | <= 0.03 |
# | (14.32) the package's formula | `package_formula_of_activations` | <= 0 |
# | (14.31) state of training | `sixteen_bytes_a_parameter` | <= 0 |
# | (14.34) bytes of the cache | `bytes_of_the_cache` | <= 0 |
# | a text's activations against weights | `gpt2_activations_exceed_its_weights` | >= 2 |
# | (14.35) intensity of every product of a step | `intensity_of_products` | <= 1e-12 |
# | (14.36) intensity of a pass | `intensity_of_a_pass` | <= 0 |
# | no product of this step has a high one | `no_product_of_this_step_is_far_right` | <= 32 |
# | (14.3), (14.4), (14.5) forward | `forward_by_hand_is_the_package` | <= 1e-12 |
# | (14.7), (14.17), (14.18) backward | `backward_by_hand_is_the_package` | <= 1e-11 |
# | fast versions compute the same | `fast_versions_compute_the_same` | <= 2e-05 |
# | two workers' gradients add up to one worker's | `workers_share_one_gradient` | <= 1e-05 |
# | kept memory: at most a quarter more than was in use | `at_most_a_quarter_more` | <= 1.25 |
# | a block is free after its last view, not before | `a_block_waits_for_its_last_view` | <= 0 |
# | kept memory changes no number of a gradient | `kept_memory_changes_no_number` | <= 0 |
# | a step makes many large arrays | `a_step_asks_for_large_arrays` | >= 100 |
# | and all of them in memory used before | `and_makes_no_new_block` | <= 0 |
# | attention in blocks changes no gradient | `blocks_change_no_gradient` | <= 0.0001 |
# | memory of the whole matrix grows as T squared | `whole_matrix_is_quadratic` | >= 1.8 |
# | (14.33) that of blocks as T at most | `blocks_are_no_worse_than_linear` | <= 1 |
# | what they save at 2,048 | `blocks_save_memory` | >= 3 |
# | (14.37) blocks computed twice hold their input | `recomputed_blocks_hold_their_input` | <= 0 |
# | and change no gradient | `and_change_no_gradient` | <= 0 |
# | which is far less | `they_hold_much_less` | >= 3 |
# | (14.4), (14.7) a block: package, composed, differences, complex step | `block_vjp` | <= 1e-08 |
# | (14.17) 28 tensors, three witnesses | `whole_model_by_four_witnesses` | <= 1e-11 |
# | 28 tensors: differences | `whole_model_by_differences` | <= 1e-07 |
# | all 88 entries of the smallest GPT | `every_entry_of_every_tensor` | <= 1e-06 |
# | mistakes of assembly in the gradient | `mistakes_are_far_off` | >= 0.1 |
# | the loss falls with each | `yet_the_loss_falls` | >= 0.6 |
# | three would pass for right | `three_would_pass_for_right` | <= 0.3 |
# | a run starts at ln V | `first_loss_is_ln_v` | <= 0.1 |
# | (14.38) one batch learned down to its floor | `one_batch_by_heart` | <= 0.01 |
# | (14.38) and not below | `not_below_its_floor` | <= 1e-06 |
# | the whole model passes the 2-gram | `whole_passes_the_bigram` | >= 0.015 |
# | without attention it does not | `without_attention_it_cannot` | >= 0.02 |
# | without sums it learns the 1-gram | `no_sums_learns_the_unigram` | <= 0.1 |
# | without MLP it loses little | `no_mlp_is_a_small_loss` | <= 0.2 |
# | post-norm is near with 2 blocks | `shallow_post_norm_is_near` | <= 0.2 |
# | and far behind with 4 | `deeper_post_norm_falls_behind` | >= 0.2 |
# | a tied head is behind | `tied_is_behind` | >= 0.1 |
# | trained post-norm: tokens are alike | `stuck_since_tokens_are_alike` | >= 0.95 |
# | trained pre-norm: they are not | `pre_norm_tells_them_apart` | <= 0.5 |
# | (14.24) GPT-1, GPT-2 XL and GPT-3 | `gpt1_xl_and_gpt3` | <= 0 |
# | GPT-3's 175 billion (S4:23) | `rounds_to_175_billion` | <= 0.005 |
# | a class of 656 parameters (S2:142) | `theirs_has_656` | <= 0 |
# | (14.24) heads cost a GPT nothing | `heads_cost_a_gpt_nothing` | <= 0 |
# | but cost that class | `but_cost_them` | >= 1000 |
# | length is that of the input (S2:129) | `length_is_that_of_the_input` | <= 0 |
# | (14.23) a recursive stack lacks three blocks | `recursive_lacks_three_blocks` | <= 0 |
# | and is another model | `and_is_another_model` | >= 0.1 |
# | 1024 heads, 0.1 layers (S3:166) | `both_are_refused` | <= 0 |
# | softmax of the network's output (S3:337) | `a_distribution_over_channels` | >= 78 |
# | the head gives one over tokens | `the_head_gives_one_over_tokens` | <= 0 |
# | what is not recorded stays (S0:275) | `all_but_three_stay_where_they_were` | <= 0 |
# | and the loss falls | `and_the_loss_falls` | >= 0.5 |
# | even below the 1-gram's | `even_below_the_unigram` | >= 0.05 |
# | recorded all get one | `recorded_all_get_a_gradient` | <= 0 |
# | classes are the last axis (S4:1089) | `classes_are_the_last_axis` | <= 1e-12 |
# | the other axis is another loss | `the_other_axis_is_another_loss` | >= 0.5 |
# | and sees the future | `and_it_sees_the_future` | >= 0.1 |
# | every parameter has a box in the diagram | `every_parameter_has_a_box` | <= 0 |
# | two sums a block | `two_sums_a_block` | <= 0 |
# | removed, they disappear from it | `removed_sums_disappear` | <= 0 |
#
# **Not checked:** timings, rates and page faults, which are shown and belong to one machine; what
# the runs of one seed would be with others, beyond the margins of the checks; that (14.12) holds
# after training; memory of a whole step on a GPU; bytes of a model with dropout or rotary
# positions, which the package's tests count; and what the cited papers report.
