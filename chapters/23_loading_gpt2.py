# %% [markdown]
# # 23 · Loading a GPT-2 checkpoint
#
# ## Question
#
# A checkpoint is a list of named numbers: what must two programs agree on, beyond the numbers, so
# that they compute the same function from them, and how do you notice if they do not?
#
# - **Read before:** [07](07_scaled_dot_product_attention.ipynb), [11](11_layer_norm.ipynb)
# - **Package file:** `minigpt/gpt2.py` (`read_gpt2`, `write_gpt2`), `minigpt/weights.py`
# - **Minutes:** 75 to read, 150 for the exercises
# - **Runs in:** under 45 seconds on one core

# %% role="setup"
import inspect
import json
import math
import pickletools
import struct
import tempfile
import tracemalloc
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from safetensors.numpy import load as library_load
from safetensors.numpy import save as library_save

from minigpt import data, reference, weights
from minigpt import functional as F
from minigpt.backend import to_numpy, xp
from minigpt.download import cache_folder
from minigpt.drawing import (
    BLUE,
    FIGURES,
    GREEN,
    GREY,
    PURPLE,
    RED,
    YELLOW,
    plt,
    save_figure,
    style,
)
from minigpt.erf import erf
from minigpt.evaluate import nats_per_token
from minigpt.generate import generate
from minigpt.gpt2 import read_gpt2, write_gpt2
from minigpt.lab import attempt, check, rel_error, show_table, witnesses
from minigpt.model import GPT, GPTConfig
from minigpt.ops import tanh
from minigpt.optim import Adam, clip_grad_norm
from minigpt.positions import rotary
from minigpt.schedules import warmup_cosine
from minigpt.tensor import Tensor, no_grad
from minigpt.tokenizer import CharTokenizer, gpt2, load
from minigpt.variants import stories
from minigpt.variants.llama import Llama, LlamaConfig, Past
from minigpt.variants.llama2c import read_llama2c
from minigpt.weights import read_header

style()
rng = np.random.default_rng(23)

# %% [markdown]
# ## Intuition
#
# A file says: here are four numbers, 1, 2, 3, 4, and they are a $2\times2$ matrix. It is to be
# multiplied with $x=(1,2)$. One program fills the matrix row by row and puts $x$ on its left.
# Another has kept, for years, the transpose of every weight:
#
# $$(1,2)\begin{pmatrix}1&2\\3&4\end{pmatrix}=(7,10),\qquad
# (1,2)\begin{pmatrix}1&3\\2&4\end{pmatrix}=(5,11). \tag{23.1}$$
#
# Both read the file without an error. Both have a matrix of the right shape with the right numbers
# in it, of the same mean and the same norm. One of them speaks nonsense. **Shapes catch many
# mistakes, names catch more, and some are caught by nothing but a number that somebody else has
# computed.**
#
# Here is the whole file, in the format of this chapter. Eight bytes say how long the header is.
# The header, 57 characters of text and 7 spaces, says what there is and where it lies. The numbers
# follow:
#
# $$8+64+4\cdot4=88\ \text{bytes}. \tag{23.2}$$

# %%
header = b'{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'.ljust(64)
content = struct.pack("<Q", len(header)) + header + struct.pack("<4f", 1, 2, 3, 4)
print(content[:8], content[8:72], content[72:], sep="\n")
check("a_file_of_88_bytes", abs(len(content) - 88), at_most=0)


def in_a_file(content):
    """What the package reads from a file with these bytes: name -> array, or a ValueError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        found = read_header(path)
        return {name: np.concatenate([*array.pieces()]).reshape(array.shape)
                for name, array in found.items()}


W, x = in_a_file(content)["w"], np.array([1.0, 2])
print("x W =", x @ W, "  x W^T =", x @ W.T)
check("rows_or_columns", rel_error([x @ W, x @ W.T], [[7, 10], [5, 11]]), at_most=1e-12)
check("the_library_reads_it_too", rel_error(library_load(content)["w"], W), at_most=0)

# %% [markdown]
# ## Derivation
#
# | symbol | shape | meaning |
# |---|---|---|
# | $V,T,C,L$ | numbers | vocabulary, block size, channels, layers |
# | $H$, $D=C/H$ | numbers | heads, and channels of a head |
# | $x$ | $(n_{\mathrm{in}})$ or $(T,C)$ | an input; the residual stream |
# | $W$ | $(n_{\mathrm{in}},n_{\mathrm{out}})$ | a matrix as GPT-2's files hold it, row by row |
# | $A$ | $(n_{\mathrm{out}},n_{\mathrm{in}})$ | the same map as PyTorch's `Linear` holds it |
# | $E$ | $(V,C)$ | the token table `wte`, which is the head too |
# | $\varepsilon$ | number | what layer norm adds to the variance |
# | $g$ | shape of the output | the incoming cotangent |
# | $b_0,b_1,\dots$ | numbers 0..255 | the bytes of a file |
#
# ### Which side is the matrix on?
#
# GPT-2 was written with a layer called `Conv1D`, which is no convolution but a linear layer. In
# index form it is the first of these, and PyTorch's `Linear` is the second:
#
# $$y_j=\sum_ix_iW_{ij}+b_j,\qquad y_j=\sum_iA_{ji}\,x_i+b_j;\qquad
# \text{equal for every }x\iff A=W^\top. \tag{23.3}$$
#
# A file holds an array as one row of numbers. Row by row, $W_{ij}$ has number
#
# $$i\,n_{\mathrm{out}}+j\ \text{ in the file of }W,\qquad j\,n_{\mathrm{in}}+i\ \text{ in that of }
# A=W^\top. \tag{23.4}$$
#
# So the two files hold the same numbers in another order. Reading one as the other, the shape
# protects you wherever $n_{\mathrm{in}}\ne n_{\mathrm{out}}$. Where the matrix is square, it does
# not. How wrong is it then? Let the entries of $W$ $(C,C)$ be independent with mean 0 and variance
# $\sigma^2$. In $W-W^\top$ the diagonal is 0, and every other entry has variance $2\sigma^2$:
#
# $$\frac{\mathbb E\lvert xW-xW^\top\rvert^2}{\mathbb E\lvert xW\rvert^2}
# =\frac{2\sigma^2(C-1)\lvert x\rvert^2}{\sigma^2C\lvert x\rvert^2}=2\left(1-\frac1C\right).
# \tag{23.5}$$
#
# For two vectors that have nothing to do with each other it would be 2. **A transposed matrix is
# not a disturbed matrix. It is an unrelated one, of the same size.**

# %%
errors = []
for n_in, n_out in ((3, 5), (4, 4), (6, 2)):
    W, b, x = rng.normal(size=(n_in, n_out)), rng.normal(size=n_out), rng.normal(size=(7, n_in))
    A = np.empty((n_out, n_in))
    for i, j in np.ndindex(n_in, n_out):
        A[j, i] = W.reshape(-1)[i * n_out + j]  # from the file of W, number by number
        errors.append(abs(A.reshape(-1)[j * n_in + i] - W[i, j]))
    by_index = [[sum(row[i] * W[i, j] for i in range(n_in)) + b[j] for j in range(n_out)]
                      for row in x]
    linear = np.array([A @ row + b for row in x])  # PyTorch's way
    errors += [rel_error(linear, by_index),
               rel_error(F.linear(Tensor(x), Tensor(W), Tensor(b)), linear)]
check("conv_is_a_linear_transposed", errors, at_most=1e-12)

# %%
C = 24
W, x = rng.normal(size=(2000, C, C)), rng.normal(size=C)
both = x @ W, x @ W.transpose(0, 2, 1)
ratio = ((both[0] - both[1]) ** 2).sum() / (both[0] ** 2).sum()
print(f"squared error of the transposed product: {ratio:.3f}, formula {2 * (1 - 1 / C):.3f}")
check("transposed_is_unrelated", abs(ratio / (2 * (1 - 1 / C)) - 1), at_most=0.05)
turned = W[0].reshape(-1).reshape(C, C).T
check("no_statistic_notices", [rel_error(np.sort(turned.reshape(-1)), np.sort(W[0].reshape(-1))),
      abs(np.linalg.norm(turned) / np.linalg.norm(W[0]) - 1)], at_most=1e-12)

# %% [markdown]
# In a GPT-2 the matrices of a block are $(C,3C)$, $(C,C)$, $(C,4C)$ and $(4C,C)$. One of four is
# square: `attn.c_proj`. The second size of GPT-2 has one square more, as $T=C=1024$: its position
# table.
#
# ### Three matrices in one
#
# The queries, keys and values of all heads come from one product with `c_attn`, $(C,3C)$. Write
# $p=0,1,2$ for query, key and value, $h$ for the head, $d$ for the channel in it. Then column
#
# $$c=pC+hD+d\iff p=\Big\lfloor\frac cC\Big\rfloor,\quad
# h=\Big\lfloor\frac{c\bmod C}D\Big\rfloor,\quad d=c\bmod D \tag{23.6}$$
#
# holds channel $d$ of head $h$: `reshape(T, 3, H, D)`. Nothing in the file says so. Other families
# order by head first (GPT-NeoX does), $c'=3hD+pD+d$, which is `reshape(T, H, 3, D)` and has the
# same shape. A block $(p,h)$ of $D$ columns stays where it is if the two places agree:
#
# $$pC+hD=3hD+pD\iff p\,(H-1)=2h. \tag{23.7}$$
#
# That has the solutions $(0,0)$ and $(2,H-1)$, and for odd $H$ also $(1,\frac{H-1}2)$. So at least
# two blocks of $3H$ are right by chance, and with one head all are: **a test with one head cannot
# see this mistake.** Nor can a shape see queries and keys exchanged. Before the mask the scores are
#
# $$S'_{ts}=\frac{k_t\cdot q_s}{\sqrt D}=S_{st}: \tag{23.8}$$
#
# the transposed scores. "Who looks for whom" is turned round.
#
# What the file leaves open does not always matter. With $o_h$ $(T,D)$ the output of head $h$ and
# $R_h$ $(D,C)$ the rows $hD,\dots,hD+D-1$ of `c_proj`,
#
# $$\mathrm{out}=\sum_{h=0}^{H-1}o_hR_h, \tag{23.9}$$
#
# a sum, which does not know its order. Permute the heads in `c_attn` and in the rows of `c_proj`
# alike, and every array has changed but the function has not. So two checkpoints are compared by
# what they compute, not by their numbers.
#
# Last, **the number of heads is in no shape at all.** Every $H$ that divides $C$ fits all arrays.
# It stands in `config.json` alone, and so do $\varepsilon$ and which GELU it was.
#
# A file's arrays are NumPy's. The package may compute on a GPU, and a GPU's arrays do not turn into
# NumPy's by themselves: `.numpy()` brings a Tensor's data here, `to_numpy` a gradient, and
# `xp.asarray` takes an array there.


# %%
def places(C, H):
    """For each column, (p, h, d) by its order; and the place that head-first order gives it."""
    D = C // H
    c = np.arange(3 * C)
    p, h, d = c // C, c % C // D, c % D
    return p, h, d, 3 * h * D + p * D + d


errors, kept = [], []
for C, H in ((12, 3), (12, 4), (8, 1), (30, 5), (64, 8)):
    p, h, d, other = places(C, H)
    labels = np.arange(3 * C).reshape(3, H, C // H)  # what reshape makes of the columns
    errors += [np.abs(labels[p, h, d] - np.arange(3 * C)).max(),
               np.abs(p * C + h * (C // H) + d - np.arange(3 * C)).max(),
               np.abs(np.sort(other) - np.arange(3 * C)).max()]  # a permutation
    stay = sum((pp * (H - 1) == 2 * hh) for pp in range(3) for hh in range(H))
    measured = (other == np.arange(3 * C)).sum() / (C // H)
    kept.append([H, measured])
    errors.append(abs(measured - stay))
print("heads, and blocks in place of 3H:", [(H, int(n)) for H, n in kept])
check("columns_of_c_attn", errors, at_most=0)
wanted = [3 if H % 2 else 2 for H, _ in kept]
check("two_or_three_blocks_stay", np.abs(np.array(kept)[:, 1] - wanted), at_most=0)

# %%
T, C, H, D = 7, 12, 3, 4
qkv, proj = rng.normal(size=(T, 3 * C)), rng.normal(size=(C, C))
parts = qkv.reshape(T, 3, H, D)
S = np.einsum("thd,shd->hts", parts[:, 0], parts[:, 1]) / math.sqrt(D)
swapped = np.einsum("thd,shd->hts", parts[:, 1], parts[:, 0]) / math.sqrt(D)
check("swapped_scores_are_transposed", rel_error(swapped, S.transpose(0, 2, 1)), at_most=1e-12)


def heads_then_projection(qkv, proj, H):
    """Causal attention on packed columns (T, 3C), and then c_proj (C, C)."""
    att = reference.causal_self_attention(Tensor(qkv[None]), n_head=H)
    return F.linear(att, Tensor(proj)).numpy()[0]


out, total = heads_then_projection(qkv, proj, H), 0
for h in range(H):  # one head alone, with its own rows
    total = total + heads_then_projection(parts[:, :, h].reshape(T, -1), np.eye(D), 1) @ proj[
        h * D : (h + 1) * D]
check("heads_add_up", rel_error(total, out), at_most=1e-12)
order = np.array([2, 0, 1])
columns = np.arange(3 * C).reshape(3, H, D)[:, order].reshape(-1)
rows = np.arange(C).reshape(H, D)[order].reshape(-1)
check("heads_may_change_places", rel_error(heads_then_projection(qkv[:, columns],
      proj[rows], H), out), at_most=1e-12)
check("but_not_their_columns_alone", rel_error(heads_then_projection(qkv[:, columns], proj, H),
      out), at_least=0.1)

# %% [markdown]
# ### Two functions called GELU
#
# The Gaussian error linear unit is $x\,\Phi(x)=\frac x2\left(1+\mathrm{erf}(x/\sqrt2)\right)$.
# GPT-2 was trained with an approximation by the hyperbolic tangent (Hendrycks and Gimpel 2016,
# arXiv:1606.08415), and its weights are right for that one:
#
# $$\mathrm{gelu}_a(x)=\frac x2\Big(1+\tanh\big(\sqrt{2/\pi}\,(x+ax^3)\big)\Big),
# \qquad a=0.044715.$$
#
# Let $\delta_a(x)=\mathrm{gelu}_a(x)-x\Phi(x)$. Both functions are $\frac x2$ plus $\frac x2$ times
# an odd function, so
#
# $$\mathrm{gelu}(x)-\mathrm{gelu}(-x)=x\ \text{ for both, and therefore }\
# \delta_a(-x)=\delta_a(x). \tag{23.10}$$
#
# Near 0, with $\mathrm{erf}(x/\sqrt2)=\sqrt{2/\pi}\,(x-\frac{x^3}6+\dots)$ and
# $\tanh u=u-\frac{u^3}3+\dots$,
#
# $$\begin{aligned}
# \delta_a(x)&=\frac x2\sqrt{\frac2\pi}\Big(ax^3-\frac2\pi\cdot\frac{x^3}3+\frac{x^3}6\Big)+\dots\\
# &=\frac12\sqrt{\frac2\pi}\,(a-a_0)\,x^4+\dots,\qquad a_0=\frac2{3\pi}-\frac16=0.04554.
# \end{aligned} \tag{23.11}$$
#
# So $a_0$ would be the best constant close to 0. The published one is not that: it was fitted, and
# trades an error near 0 for a smaller one further out. The largest difference there is, anywhere,
#
# $$\max_x\lvert\delta_{0.044715}(x)\rvert=0.000473\ \text{ at }\ \lvert x\rvert=2.70,\qquad
# \max_x\lvert\delta_{a_0}(x)\rvert=0.000746. \tag{23.12}$$


# %%
def tanh_gelu(x, a=0.044715):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + a * x * x * x)))


def exact_gelu(x):
    return 0.5 * x * (1 + to_numpy(erf(xp.asarray(x / math.sqrt(2)))))


grid, a0 = np.linspace(-8, 8, 160_001), 2 / (3 * math.pi) - 1 / 6
delta, delta0 = (tanh_gelu(grid, a) - exact_gelu(grid) for a in (0.044715, a0))
check("gelus_differ_by_an_even_function", [np.abs(delta - delta[::-1]).max(),
      *(np.abs(f(grid) - f(-grid) - grid).max() for f in (tanh_gelu, exact_gelu))], at_most=1e-12)
small = np.array([0.02, 0.04, 0.06])
for a in (0.03, 0.044715, 0.06):  # a leading term: what is left falls with the square of x
    left = (tanh_gelu(small, a) - exact_gelu(small)) / small**4
    print(f"a = {a}: delta / x^4 =", np.round(left, 6),
          " formula", round(math.sqrt(0.5 / math.pi) * (a - a0), 6))
left = [(tanh_gelu(0.06, a) - exact_gelu(np.float64(0.06))) / 0.06**4
        - math.sqrt(0.5 / math.pi) * (a - a0) for a in (0.03, 0.044715, 0.06)]
check("fourth_order_near_zero", [*np.abs(left), abs(a0 - 0.04554)], at_most=1e-4)

# %%
at = abs(grid[np.abs(delta).argmax()])
check("largest_difference_of_gelus", [abs(np.abs(delta).max() / 4.73e-4 - 1),
      abs(np.abs(delta0).max() / 7.46e-4 - 1), abs(at / 2.70 - 1)], at_most=1e-3)
check("package_has_both", [rel_error(F.gelu(Tensor(grid)), tanh_gelu(grid)),
      rel_error(F.gelu(Tensor(grid), approximate="none"), exact_gelu(grid))], at_most=1e-12)

# %%
fig, axes = plt.subplots(figsize=(7.5, 4))
axes.axhline(0, color=GREY, lw=1)
axes.plot(grid, 1e3 * delta, color=BLUE)
axes.plot(grid, 1e3 * delta0, color=RED, lw=1.5, ls="--")
axes.plot([-at, at], [1e3 * np.abs(delta).max()] * 2, "o", color=BLUE)
axes.annotate(f"largest: {np.abs(delta).max():.6f}\nat |x| = {at:.2f}", (at, 0.473), (3.5, 0.55),
              color=BLUE, arrowprops={"arrowstyle": "->", "color": GREY})
axes.annotate("a = 0.04554, from the Taylor series:\nflat at 0, worse outside",
              (-2.1, np.interp(-2.1, grid, 1e3 * delta0)), (-6.4, 0.79), color=RED,
              arrowprops={"arrowstyle": "->", "color": GREY})
axes.text(-2.1, -0.16, "a = 0.044715", color=BLUE, ha="right")
axes.set(xlim=(-6.5, 6.5), ylim=(-0.32, 0.98), xlabel="x",
         ylabel="tanh form minus exact (thousandths)",
         title="Two functions called GELU never differ by more than 0.0005")
save_figure(fig, "23_gelu.svg")
plt.show()

# %% [markdown]
# ### What another epsilon costs
#
# Layer norm divides by $\sqrt{v+\varepsilon}$, with $v$ the variance of a row. GPT-2 has
# $\varepsilon=10^{-5}$; other models have $10^{-6}$ or $10^{-12}$. Read with $\varepsilon'$, what
# is normalised comes out multiplied by
#
# $$\sqrt{\frac{v+\varepsilon}{v+\varepsilon'}}=1+\frac{\varepsilon-\varepsilon'}{2v}
# +O\Big(\frac{\varepsilon^2}{v^2}\Big). \tag{23.13}$$
#
# So it depends on how large the stream is. With variance 1, the change is $5\cdot10^{-6}$, hardly
# more than float32 can see. In the first layer norm of a *fresh* GPT, the stream is a sum of two
# table rows of variance $0.02^2$ each, and
#
# $$\frac{\varepsilon}{2v}=\frac{10^{-5}}{2\cdot2\cdot0.02^2}=0.00625. \tag{23.14}$$

# %%
x, w, b = rng.normal(size=(50, 16)), rng.normal(size=16), np.zeros(16)
errors, left = [], []
for size, other in ((1.0, 1e-12), (0.1, 1e-6), (0.03, 1e-12), (0.03, 2e-5)):
    rows = size * x
    ours, theirs = (F.layer_norm(Tensor(rows), Tensor(w), Tensor(b), eps=eps).numpy()
                    for eps in (1e-5, other))
    v = rows.var(-1, keepdims=True)
    errors.append(rel_error(theirs, ours * np.sqrt((v + 1e-5) / (v + other))))
    first_order = ours * (1 + (1e-5 - other) / (2 * v))
    left.append(rel_error(theirs, first_order) / (1e-5 / v.min()) ** 2)
check("another_epsilon", errors, at_most=1e-12)
check("epsilon_to_first_order", left, at_most=1)  # what is left, in units of eps^2 / v^2
fresh = GPT(GPTConfig(300, 64, n_layer=1, n_head=4, n_embd=192), rng, dtype="float64")
stream = fresh.wte(rng.integers(0, 300, 64)) + fresh.wpe.weight
ours, theirs = (F.layer_norm(stream, xp.ones(192), xp.zeros(192), eps=eps).numpy()
                for eps in (1e-5, 1e-12))
check("in_a_fresh_stream", abs(np.mean(theirs / ours - 1) / 0.00625 - 1), at_most=0.05)

# %% [markdown]
# ### A table that is used twice
#
# GPT-2's logits are $z=h\,E^\top$: the head is the token table again (Press and Wolf 2016,
# arXiv:1608.05859). $h$ $(N,C)$ are the last layer norm's outputs, $z$ $(N,V)$. Let
# $\ell(E_1,E_2)$ be the loss if the two uses had a table each. The tied loss is $\ell(E,E)$, and by
# the chain rule its gradient is a sum:
#
# $$\frac{\mathrm d\,\ell(E,E)}{\mathrm dE}=G^{\mathrm{in}}+G^{\mathrm{out}},\qquad
# G^{\mathrm{in}}_v=\sum_{n:\,\mathrm{idx}_n=v}dx_n,\qquad
# G^{\mathrm{out}}=g^\top h. \tag{23.15}$$
#
# Here $dx$ $(N,C)$ is the gradient that reaches the embedding's output, and $g$ $(N,V)$ the
# gradient of the logits. The two parts are of different kinds. $G^{\mathrm{in}}$ has nothing in the
# rows of tokens that do not occur. $G^{\mathrm{out}}$ has something in *every* row, and as
# $g=(\mathrm{softmax}(z)-\mathrm{onehot})/N$ sums to 0 over the vocabulary,
#
# $$\sum_vG^{\mathrm{out}}_v=\sum_n\Big(\sum_vg_{nv}\Big)h_n=0. \tag{23.16}$$
#
# So a tied gradient summed over its rows shows the part of the embedding alone. A reader that
# makes two tables of one loads every number rightly, computes every logit rightly, and from the
# first training step on trains another model.

# %%
config = GPTConfig(11, 6, n_layer=1, n_head=2, n_embd=8)
tied = GPT(config, np.random.default_rng(4), dtype="float64")
for p in tied.parameters():
    p.data += xp.asarray(0.4 * rng.normal(size=p.shape))
untied = GPT(replace(config, tied=False), np.random.default_rng(5), dtype="float64")
untied.load_arrays({name: p.data for name, p in tied.named_parameters()}
                   | {"lm_head.weight": tied.wte.weight.data})
idx, targets = np.array([[1, 4, 1, 7, 2, 1]]), np.array([[4, 1, 7, 2, 1, 9]])
losses = []
for model in (tied, untied):
    loss = F.cross_entropy(model(idx), targets)
    loss.backward()
    losses.append(loss.item())
inside, outside = (to_numpy(table.weight.grad) for table in (untied.wte, untied.lm_head))
check("tied_gradient_is_a_sum", rel_error(tied.wte.weight.grad, inside + outside), at_most=1e-12)
check("untied_computes_the_same", abs(losses[0] - losses[1]), at_most=1e-12)
scale = np.abs(to_numpy(tied.wte.weight.grad)).max()
check("rows_of_the_head_sum_to_zero", np.abs(outside.sum(0)) / scale, at_most=1e-12)
absent = [v for v in range(11) if v not in idx]
check("embedding_part_only_where_a_token_occurs", np.abs(inside[absent]) / scale, at_most=0)
check("head_part_everywhere", np.abs(outside).max(1) / scale, at_least=1e-3)
moved = [p - 0.5 * g for p, g in ((untied.wte.weight.numpy(), inside),
                                  (untied.lm_head.weight.numpy(), outside))]
check("one_step_parts_the_tables", rel_error(*moved), at_least=0.05)

# %% [markdown]
# ### The file, byte by byte
#
# A safetensors file begins with the length of its header, in eight bytes, the lowest first:
#
# $$n=\sum_{k=0}^{7}256^kb_k. \tag{23.17}$$
#
# The next $n$ bytes are a JSON object. For each array $a$ it gives a name, a type with $s_a$ bytes
# a number, a shape $(m_1,\dots,m_r)$, and its bytes, from $\mathrm{begin}_a$ up to but not
# including $\mathrm{end}_a$, counted from the end of the header. So what is said there is said
# twice, and can contradict itself:
#
# $$\mathrm{end}_a-\mathrm{begin}_a=s_a\,m_1m_2\cdots m_r. \tag{23.18}$$
#
# The arrays, sorted by their place, tile what follows the header, without gap or overlap:
#
# $$\mathrm{begin}_1=0,\qquad\mathrm{begin}_{k+1}=\mathrm{end}_k,\qquad
# \mathrm{end}_{\mathrm{last}}=\mathrm{size}-8-n, \tag{23.19}$$
#
# and therefore
#
# $$\mathrm{size}=8+n+\sum_as_a\prod_im_i. \tag{23.20}$$
#
# A single number can be read without reading any other. $W_{ij}$ of array $a$ lies at byte
#
# $$8+n+\mathrm{begin}_a+s_a\,(i\,n_{\mathrm{out}}+j). \tag{23.21}$$
#
# The library that writes such files fills the header up with spaces,
#
# $$8+n\equiv0\pmod8, \tag{23.22}$$
#
# so that numbers of eight bytes can lie where a processor likes them. All of this can be checked on
# the file that the chapter's reference has written: a GPT-2 of two layers, made by the Python
# library `transformers` with random weights, in `tests/data/gpt2_tiny` of this repository. Beside
# it lie the logits, the loss and every gradient that `transformers` and PyTorch computed from it.

# %%
RECORDED = FIGURES.parent / "tests" / "data" / "gpt2_tiny"
content = (RECORDED / "model.safetensors").read_bytes()
n = sum(256**k * b for k, b in enumerate(content[:8]))
entries = json.loads(content[8 : 8 + n])
print(f"{len(content):,} bytes, header {n:,}:", content[8:110].decode(), "...")
metadata = entries.pop("__metadata__")
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
spans = sorted(entry["data_offsets"] for entry in entries.values())
sizes = [BYTES[entry["dtype"]] * math.prod(entry["shape"]) for entry in entries.values()]
text_end = content.index(b"}}") + 2  # then come fewer than 8 spaces
check("header_length", [abs(n - struct.unpack("<Q", content[:8])[0]), abs((8 + n - text_end) // 8)],
      at_most=0)
lengths = [end - begin for begin, end in (entry["data_offsets"] for entry in entries.values())]
check("length_is_said_twice", np.abs(np.subtract(lengths, sizes)), at_most=0)
gaps = [spans[0][0], *(b[0] - a[1] for a, b in zip(spans, spans[1:], strict=False)),
        spans[-1][1] - (len(content) - 8 - n)]
check("arrays_tile_the_file", np.abs(gaps), at_most=0)
check("size_of_the_file", abs(len(content) - 8 - n - sum(sizes)), at_most=0)


# %%
def one_number(name, i, j):
    entry = entries[name]
    s, n_out = BYTES[entry["dtype"]], entry["shape"][1]
    return struct.unpack_from("<d", content, 8 + n + entry["data_offsets"][0] + s * (i * n_out + j))


arrays = library_load(content)
name = "transformer.h.1.attn.c_attn.weight"
wrong = [abs(one_number(name, i, j)[0] - arrays[name][i, j]) for i, j in np.ndindex(12, 36)]
check("one_number_alone", wrong, at_most=0)
rest = []
for k in range(1, 60):  # names and shapes of many lengths
    made = library_save({"a" * (i + 1): np.zeros((k, i)) for i in range(k % 7)})
    rest.append((8 + struct.unpack("<Q", made[:8])[0]) % 8)
check("header_is_filled_up", [(8 + n) % 8, *rest], at_most=0)

# %% [markdown]
# **Half precision.** `BF16` is the upper half of a float32: sign, 8 bits of exponent, 7 bits of
# mantissa. NumPy has no such type; the package reads 16 bits and shifts them up, which is exact.
# What was lost was lost on writing. Cutting off the lower 16 bits of a normal number $x$ leaves
# $\tilde x$ with
#
# $$0\le\frac{x-\tilde x}x<2^{-7}, \tag{23.23}$$
#
# less than 1 %. (Rounding to the nearest halves that: exercise 23.5.) `F16` has 10 bits of
# mantissa, so it is eight times finer, but it ends at 65,504.

# %%
x = (rng.normal(size=5000) * 10.0 ** rng.uniform(-30, 30, 5000)).astype(np.float32)
upper = (x.view(np.uint32) >> 16).astype("<u2")
header = json.dumps({"x": {"dtype": "BF16", "shape": [5000], "data_offsets": [0, 10_000]}}).encode()
halved = in_a_file(struct.pack("<Q", len(header)) + header + upper.tobytes())["x"]
lost = (x.astype(float) - halved) / x
check("bfloat16_cuts_less_than_one_part_in_128", [lost.max() * 128, -lost.min()], at_most=1)
check("and_nearly_that_much", lost.max() * 128, at_least=0.9)
check("float16_ends_at_65504", abs(float(np.finfo(np.float16).max) - 65_504), at_most=0)
check("widening_is_exact", np.abs(halved.view(np.uint32) - (upper.astype(np.uint32) << 16)),
      at_most=0)

# %% [markdown]
# ### Files that lie
#
# A checkpoint comes from a stranger. Every statement of the header has a consequence if believed: a
# length becomes an allocation, an offset becomes a place to read from. The package compares them
# with each other and with the size of the file *before* anything of that size is made. Each of
# these is the 88-byte file of the beginning with one lie in it:


# %%
def lying(body=16, length=None, text=None, **changes):
    """The small file with a changed entry, header text, header length, or length of the body."""
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes
    header = json.dumps({"w": entry}).encode() if text is None else text
    length = len(header) if length is None else length
    return struct.pack("<Q", length) + header + bytes(body)


two = {"v": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
       "w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
LIES = {
    "a header of 2^63 bytes": lying(length=1 << 63),
    "a header of a terabyte": lying(length=1 << 40),
    "a header of 90 megabytes": lying(length=90_000_000),
    "no header": lying(text=b""),
    "a header that is cut": lying()[:40],
    "no JSON": lying(text=b"{{{"),
    "JSON 100,000 deep": lying(text=b"[" * 100_000),
    "a shape of 2^80 numbers": lying(shape=[1 << 40, 1 << 40]),
    "a negative shape": lying(shape=[-2, -2]),
    "a shape that is no integer": lying(shape=[2.0, 2]),
    "more bytes than the shape has": lying(shape=[2]),
    "an array before the file": lying(data_offsets=[-16, 0]),
    "an array behind the file": lying(data_offsets=[1 << 40, (1 << 40) + 16]),
    "end before begin": lying(data_offsets=[16, 0]),
    "two arrays in one place": lying(text=json.dumps(two).encode()),
    "bytes that no array has": lying(body=24),
    "bytes that are missing": lying(body=12),
    "an infinite weight": lying(body=0) + struct.pack("<4f", 1, 2, 3, math.inf),
}

# %%
refused = []
tracemalloc.start()
for what, content_of_a_lie in LIES.items():
    try:
        in_a_file(content_of_a_lie)
    except ValueError as error:
        _, named, said = str(error).partition("model.safetensors")
        print(f"{what:30s} ...{said.removeprefix(' is no whole safetensors file')[:56]}")
        refused += [what] if named else []  # by the reader, which names the file
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
print(f"at most {peak / 1e6:.2f} MB of memory were used")
check("every_lie_is_refused", len(LIES) - len(refused), at_most=0)
check("and_none_is_believed_first", peak / 1e6, at_most=3)
check("the_truth_is_not", rel_error(in_a_file(lying())["w"], np.zeros((2, 2))), at_most=0)

# %% [markdown]
# ### Counting
#
# A block has four matrices, $C\cdot3C+C\cdot C+C\cdot4C+4C\cdot C=12C^2$ numbers, and offsets and
# two layer norms: $3C+C+4C+C+2\cdot2C=13C$. With the tables and the last layer norm,
#
# $$P=VC+TC+L\,(12C^2+13C)+2C, \tag{23.24}$$
#
# where the head counts nothing: it is the table. For the smallest GPT-2, $V=50257$, $T=1024$,
# $C=768$, $L=12$:
#
# $$P=38{,}597{,}376+786{,}432+12\cdot7{,}087{,}872+1{,}536=124{,}439{,}808. \tag{23.25}$$
#
# In float32 that is 497,759,232 bytes. The published file has 548,105,171 (`openai-community/gpt2`,
# the file `model.safetensors`). What are the other fifty million? The causal masks, of which each
# block's code had kept one of $T\times T$ numbers as float32. They are constants, and were saved
# with the weights:
#
# $$548{,}105{,}171=4P+4LT^2+8+n,\qquad n=14{,}283. \tag{23.26}$$
#
# That last term was found by subtraction. It should be the length of a header with 160 entries, so
# build one.

# %%
TABLE = {"GPT-2": (768, 12), "GPT-2 medium": (1024, 24), "GPT-2 large": (1280, 36),
         "GPT-2 XL": (1600, 48)}  # C, L


def count(C, L, V=50257, T=1024):
    return V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C


errors = []
for V, T, C, L in ((97, 16, 12, 2), (50, 9, 8, 3)):
    model = GPT(GPTConfig(V, T, n_layer=L, n_head=4, n_embd=C), rng)
    errors.append(abs(model.num_parameters() - count(C, L, V, T)))
check("count_by_formula", errors, at_most=0)
P = count(768, 12)
terms = [50257 * 768, 1024 * 768, 12 * 7_087_872, 1536]
print(f"P = {P:,} = {' + '.join(f'{t:,}' for t in terms)}; {4 * P:,} bytes in float32")
check("gpt2_has_124_439_808", [abs(P - 124_439_808), abs(sum(terms) - P)], at_most=0)


# %%
def names_and_shapes(C, L, V=50257, T=1024):
    """Name and shape of every weight of a GPT-2."""
    shapes = {"wte.weight": (V, C), "wpe.weight": (T, C), "ln_f.weight": (C,), "ln_f.bias": (C,)}
    for i in range(L):
        for part, n_in, n_out in (("attn.c_attn", C, 3 * C), ("attn.c_proj", C, C),
                                  ("mlp.c_fc", C, 4 * C), ("mlp.c_proj", 4 * C, C)):
            shapes |= {f"h.{i}.{part}.weight": (n_in, n_out), f"h.{i}.{part}.bias": (n_out,)}
        for part in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{part}.weight": (C,), f"h.{i}.{part}.bias": (C,)}
    return shapes


def header_of(shapes):
    """A header for float32 arrays, one after another in the order of their names."""
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(shapes):
        end = at + 4 * math.prod(shapes[name])
        entries[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [at, end]}
        at = end
    return json.dumps(entries, separators=(",", ":")).encode(), at


# %%
masks = {f"h.{i}.attn.bias": (1, 1, 1024, 1024) for i in range(12)}
header, body = header_of(names_and_shapes(768, 12) | masks)
left = 548_105_171 - 4 * P - 4 * 12 * 1024**2
print(f"{len(masks) + len(names_and_shapes(768, 12))} arrays; left for length and header {left:,}; "
      f"our header {len(header):,} + 8")
check("published_bytes", [abs(body - 4 * P - 4 * 12 * 1024**2), abs(left - 8 - 14_283)], at_most=0)
shares = [4 * 50257 * 768 / 548_105_171, 4 * 12 * 1024**2 / 548_105_171]
check("a_table_of_28_percent_and_masks_of_9", np.abs(np.subtract(shares, [0.28, 0.09])),
      at_most=5e-3)
check("what_is_left_is_a_header", abs(len(header) / (left - 8) - 1), at_most=0.01)

# %%
COLOURS = {"mask": GREY, "attn": BLUE, "mlp": GREEN, "ln": PURPLE, "wpe": YELLOW, "wte": RED}


def kind_of(span):
    name, begin, end = span
    mask = name.endswith("attn.bias") and end - begin > 9999  # and no offset of c_attn
    return "mask" if mask else next(kind for kind in COLOURS if kind in name)


def strip(axes, y, spans, total):
    """Draw (name, begin, end) as a bar of the file's bytes, in per cent of total."""
    for kind, group in groupby(spans, kind_of):
        members = list(group)  # neighbours of one kind are one bar
        begin, end = members[0][1], members[-1][2]
        axes.barh(y, 100 * (end - begin) / total, left=100 * begin / total, height=0.5,
                  color=COLOURS[kind], lw=0)


# %%
fig, axes = plt.subplots(figsize=(10, 3.9))
tiny = [(name, 8 + n + e["data_offsets"][0], 8 + n + e["data_offsets"][1])
        for name, e in entries.items()]
strip(axes, 1, tiny, len(content))
axes.barh(1, 100 * (8 + n) / len(content), height=0.5, color="white", edgecolor=GREY, hatch="///",
          lw=1)
large = json.loads(header)
large.pop("__metadata__")
strip(axes, 0, [(name, *(14_291 + at for at in e["data_offsets"])) for name, e in large.items()],
      548_105_171)
for x, y, text, colour in (
    (4, 1.34, "header", GREY), (26, 1.34, "block 0", GREY), (57, 1.34, "block 1", GREY),
    (76, 1.34, "wpe", YELLOW), (88.5, 1.34, "wte", RED), (36, 0.34, "12 blocks", GREY),
    (68, 0.34, "wpe", YELLOW), (86.5, 0.34, "wte, also the head: 28 %", RED),
):
    axes.text(x, y, text, color=colour, ha="center", size=11)
for x, (text, colour) in zip((5, 20, 34, 57), (("attention", BLUE), ("MLP", GREEN), (
        "layer norms", PURPLE), ("masks, which are no weights: 9 %", GREY)), strict=True):
    axes.text(x, -0.52, text, color=colour, size=11, ha="left")
axes.set_yticks([0, 1], ["GPT-2 as published\n548,105,171 bytes", "recorded GPT-2\n43,752 bytes"])
axes.set(xlim=(0, 100), ylim=(-0.65, 1.6), xlabel="place in the file (per cent of its bytes)",
         title="A checkpoint is a short list of names, and then numbers without a gap")
axes.grid(False)
save_figure(fig, "23_bytes.svg")
plt.show()

# %% [markdown]
# The lower bar is in the order of our header. Theirs has another order, which changes how many
# digits the offsets have: ours is a few dozen bytes longer. A reader has to know the masks' names,
# and leave them out.
#
# The paper's own table says 117M, 345M, 762M and 1542M (Radford et al. 2019, table 2). The authors
# took that back later, in a note in their repository. By the formula:

# %%
rows = [[name, said, f"{count(C, L):,}", round(4 * count(C, L) / 1e9, 3)]
        for (name, (C, L)), said in zip(TABLE.items(), ("117M", "345M", "762M", "1542M"),
                                        strict=True)]
show_table(["model", "paper", "parameters", "GB in float32"], rows)
published = [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]
check("all_four_sizes", [abs(count(C, L) - p) for (C, L), p in
                         zip(TABLE.values(), published, strict=True)], at_most=0)
gpt1 = count(768, 12, V=40478, T=512) - 2 * 768  # without the last layer norm
print(f"GPT-1, with its 40,478 tokens and 512 places: {gpt1:,}, which is 117M")
check("gpt1_rounds_to_117_million", [abs(gpt1 - 116_534_784), abs(round(gpt1 / 1e6) - 117)],
      at_most=0)
check("the_small_one_is_off_by_millions", (P - 117e6) / 1e6, at_least=7)

# %% [markdown]
# **Several files.** A large model is cut into *shards*: safetensors files of a few gigabytes, and
# `model.safetensors.index.json`, which maps each name to a file. Each array lies in exactly one
# shard, whole, so with $F_k$ the bytes of shard $k$ and $n_k$ its header,
#
# $$\sum_kF_k=\sum_k(8+n_k)+\sum_as_a\prod_im_i, \tag{23.27}$$
#
# and every shard obeys (23.20) by itself. The index and the headers say the same thing twice
# again, so a reader can compare them.


# %%
def deal(folder, into, files):
    """Deal the arrays of a written model to shards, with an index."""
    arrays = library_load((folder / "model.safetensors").read_bytes())
    of = {name: f"model-{1 + i % files:05d}-of-{files:05d}.safetensors"
          for i, name in enumerate(sorted(arrays))}
    into.mkdir()
    for file in sorted({*of.values()}):
        (into / file).write_bytes(library_save({k: arrays[k] for k in of if of[k] == file}))
    index = {"metadata": {"total_size": sum(a.nbytes for a in arrays.values())}, "weight_map": of}
    (into / "model.safetensors.index.json").write_text(json.dumps(index))
    (into / "config.json").write_bytes((folder / "config.json").read_bytes())
    return index


# %%
with tempfile.TemporaryDirectory() as folder:
    into = Path(folder, "shards")
    index = deal(RECORDED, into, 3)
    files = [path.read_bytes() for path in sorted(into.glob("*.safetensors"))]
    heads = [8 + struct.unpack("<Q", file[:8])[0] for file in files]
    whole, dealt = read_gpt2(RECORDED), read_gpt2(into)
    first, *_, last = sorted({*index["weight_map"].values()})
    name = next(name for name, file in index["weight_map"].items() if file == first)
    index["weight_map"][name], said = last, ""
    (into / "model.safetensors.index.json").write_text(json.dumps(index))
    try:
        read_gpt2(into)
    except ValueError as error:
        said = str(error).partition("index.json ")[2]
print("bytes of the shards:", [len(file) for file in files])
print("a wrong index:", said)
total = index["metadata"]["total_size"]
check("bytes_of_shards", [abs(sum(map(len, files)) - sum(heads) - total), abs(total - sum(sizes))],
      at_most=0)
check("shards_are_the_same_model", [np.abs(p.numpy() - q.numpy()).max() for p, q in
      zip(whole.parameters(), dealt.parameters(), strict=True)], at_most=0)
check("a_wrong_index_is_refused", len(said), at_least=20)

# %% [markdown]
# ### A second architecture
#
# What follows GPT-2 keeps the skeleton, a residual stream with two branches a block, and exchanges
# the parts. Most open models are variations of Llama (Touvron et al. 2023, arXiv:2302.13971). The
# package has it in `minigpt/variants/llama.py`.
#
# | | GPT-2 | Llama | what a wrong reading does |
# |---|---|---|---|
# | matrix in the file | $W$, in times out | $A$, out times in | (23.5), if square |
# | q, k, v | one matrix | three | |
# | heads of k and v | $H$ | $K\le H$, shared by groups | the wrong group |
# | positions | a table, $(T,C)$ | rotations, no numbers | pairs or halves |
# | norm | mean, variance, gain, offset | root mean square, gain | |
# | MLP | GELU, $4C$ wide | SwiGLU, two ways up | gate and value swapped |
# | offsets | everywhere | nowhere | |
# | head | tied | tied or not | |
# | $\varepsilon$ | $10^{-5}$ | $10^{-5}$ or $10^{-6}$ | (23.13) |
#
# **Its count.** With $F$ channels inside the MLP, a block has $2C^2$ for queries and output,
# $2CKD$ for keys and values, $3CF$ for the MLP and two gains. Nothing for positions:
#
# $$P=VC+L\,(2C^2+2CKD+3CF+2C)+C\qquad(+\,VC\text{ if the head is not tied}). \tag{23.28}$$
#
# For the first Llama, with $V=32000$, $C=4096$, $L=32$, $K=H=32$, $F=11008$ and a head of its own,
# 6,738,415,616: "7B". Where does 11008 come from? Three matrices should cost what two of $4C$ did:
#
# $$3CF=2\cdot4C^2\ \Rightarrow\ F=\tfrac83C=10922.7,\ \text{ rounded up to a multiple of 256:}\
# 11008. \tag{23.29}$$
#
# **Grouped queries.** Query head $h$ looks at the keys of head $\lfloor h/G\rfloor$ with $G=H/K$
# (Ainslie et al. 2023, arXiv:2305.13245). What is kept for each token in generation is
#
# $$2\,L\,K\,D\ \text{ numbers, a } G\text{-th of } 2LC. \tag{23.30}$$
#
# **Pairs or halves.** A rotation turns channels in pairs. Llama's own code and this package turn
# $(2i,2i+1)$; the format of `transformers` turns $(i,i+\frac D2)$. Let the permutation $\pi$ list
# the even channels and then the odd ones, and $x_\pi$ be $x$ in that order. Then
#
# $$\mathrm{rope}^{\mathrm{halves}}(x_\pi)=\big(\mathrm{rope}^{\mathrm{pairs}}(x)\big)_\pi,
# \qquad x_\pi\cdot y_\pi=x\cdot y: \tag{23.31}$$
#
# so if the columns of $W_q$ and $W_k$ are permuted by $\pi$ within each head, the scores are the
# same. A published file is right for *one* of the two.


# %%
def llama_count(V, C, L, K, H, F, tied):
    return V * C * (1 if tied else 2) + L * (2 * C * C + 2 * C * K * C // H + 3 * C * F + 2 * C) + C


errors = []
for changes in ({}, {"tied": False}, {"n_kv_head": 8, "n_layer": 2}, {"n_hidden": 100}):
    c = LlamaConfig(**changes)
    formula = llama_count(c.vocab_size, c.n_embd, c.n_layer, c.n_kv_head, c.n_head, c.n_hidden,
                          c.tied)
    errors.append(abs(Llama(c, rng).num_parameters() - formula))
seven = llama_count(32000, 4096, 32, 32, 32, 11008, tied=False)
print(f"the published stories model {llama_count(512, 64, 5, 4, 8, 172, True):,}, 7B {seven:,}")
check("count_of_a_llama", [*errors, abs(seven - 6_738_415_616)], at_most=0)

# %%
width = 256 * math.ceil(8 * 4096 / 3 / 256)
check("width_of_swiglu", [abs(width - 11008), abs(8 * 4096 / 3 - 10922.7) / 1e3], at_most=1e-4)
config = LlamaConfig(20, 30, n_layer=3, n_head=8, n_kv_head=2, n_embd=32, n_hidden=24)
model, past = Llama(config, rng, "float64"), [Past() for _ in range(3)]
with no_grad():
    model(rng.integers(0, 20, (1, 17)), past=past)
kept = sum(p.k.data.size + p.v.data.size for p in past)
check("numbers_kept_per_token", [abs(kept / 17 - 2 * 3 * 2 * 4), abs(2 * 3 * 32 / (kept / 17) - 4)],
      at_most=0)


# %%
def rope_halves(x):
    """Channels (i, i + D/2) of x (T, D) turned by t / 10000^(2i/D)."""
    T, D = x.shape
    angle = np.arange(T)[:, None] * 10000.0 ** (-2 * np.arange(D // 2) / D)  # (T, D/2)
    a, b = x[:, : D // 2], x[:, D // 2 :]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle),
                           a * np.sin(angle) + b * np.cos(angle)], axis=1)


q, k = rng.normal(size=(2, 9, 8))
order = np.concatenate([np.arange(0, 8, 2), np.arange(1, 8, 2)])
pairs = [rotary(Tensor(x)).numpy() for x in (q, k)]
halves = [rope_halves(x[:, order]) for x in (q, k)]
check("halves_of_permuted_channels_are_pairs",
      [rel_error(h, p[:, order]) for h, p in zip(halves, pairs, strict=True)], at_most=1e-12)
check("scores_do_not_change", rel_error(halves[0] @ halves[1].T, pairs[0] @ pairs[1].T),
      at_most=1e-12)
check("unpermuted_they_do", rel_error(rope_halves(q) @ rope_halves(k).T, pairs[0] @ pairs[1].T),
      at_least=0.1)

# %% [markdown]
# ## Code
#
# First the file, as derived: eight bytes, a header, and each array from its place. This reader
# believes everything that it is told.


# %%
def read_by_hand(path):
    """Name -> array of a safetensors file of F32 and F64."""
    content = path.read_bytes()
    n = sum(256**k * b for k, b in enumerate(content[:8]))
    entries = json.loads(content[8 : 8 + n])
    entries.pop("__metadata__", None)
    arrays = {}
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        kind = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
        flat = np.frombuffer(content[8 + n + begin : 8 + n + end], kind)
        arrays[name.removeprefix("transformer.")] = flat.reshape(entry["shape"])
    return arrays


w = read_by_hand(RECORDED / "model.safetensors")
library = library_load((RECORDED / "model.safetensors").read_bytes())
check("read_as_the_library_reads", [np.abs(w[name.removeprefix("transformer.")] - a).max()
                                    for name, a in library.items()], at_most=0)
expected = {name: w[name].shape for name in w}
formula = names_and_shapes(12, 2, V=97, T=16)
print(f"{len(w)} arrays:", *list(w)[:4], "...")
check("names_and_shapes_of_the_recorded_file", len(set(expected.items()) ^ set(formula.items())),
      at_most=0)
model = read_gpt2(RECORDED)
check("the_package_holds_the_same_numbers", [np.abs(p.numpy() - w[name]).max()
      for name, p in model.named_parameters()], at_most=0)

# %% [markdown]
# Then the network, from the papers' conventions: no package function, no mask, no reshaping of
# heads. A query sees the keys up to its own place because the loop goes no further. Arguments allow
# for the mistakes that come later, and `trace` collects the residual stream.
#
# $$\begin{aligned}
# x_t&=E_{\mathrm{idx}_t}+U_t,\\
# x&\leftarrow x+\mathrm{attn}(\mathrm{LN}_1(x)),\quad
# x\leftarrow x+\mathrm{mlp}(\mathrm{LN}_2(x))\quad(L\text{ times}),\\
# z&=\mathrm{LN}_f(x)\,E^\top.
# \end{aligned} \tag{23.32}$$
#
# Here $U$ $(T,C)$ is the position table `wpe`, and $z$ $(T,V)$ are the logits; the MLP is
# $\mathrm{mlp}(x)=\mathrm{gelu}(xW_1+b_1)W_2+b_2$.


# %%
def norm_by_hand(x, gain, offset, eps):
    """Mean 0 and variance 1 of each row, then gain and offset. (..., C) -> (..., C)."""
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + eps) * gain + offset


def look_back(qkv, H):
    """Causal attention, query by query. qkv (..., T, 3C) -> (..., T, C)."""
    T, C = qkv.shape[-2], qkv.shape[-1] // 3
    D, out = C // H, np.zeros((*qkv.shape[:-1], C), qkv.dtype)
    for h in range(H):
        q, k, v = (qkv[..., p * C + h * D : p * C + (h + 1) * D] for p in range(3))  # (23.6)
        for t in range(T):
            s = (k[..., : t + 1, :] * q[..., t : t + 1, :]).sum(-1) / math.sqrt(D)  # (..., t + 1)
            e = np.exp(s - s.real.max(-1, keepdims=True))
            att = e / e.sum(-1, keepdims=True)
            out[..., t, h * D : (h + 1) * D] = (att[..., None] * v[..., : t + 1, :]).sum(-2)
    return out


def gpt2_by_hand(w, idx, H, gelu=tanh_gelu, eps=1e-5, trace=None):
    """Logits of idx (..., T): (..., T, V). w: name -> array. trace: a list, for the stream."""
    x = w["wte.weight"][idx] + w["wpe.weight"][: idx.shape[-1]]
    seen = [x]
    for i in range(sum(name.endswith("attn.c_attn.weight") for name in w)):
        def linear(x, name, i=i):
            return x @ w[f"h.{i}.{name}.weight"] + w[f"h.{i}.{name}.bias"]

        def norm(x, name, i=i):
            return norm_by_hand(x, w[f"h.{i}.{name}.weight"], w[f"h.{i}.{name}.bias"], eps)

        x = x + linear(look_back(linear(norm(x, "ln_1"), "attn.c_attn"), H), "attn.c_proj")
        seen.append(x)
        x = x + linear(gelu(linear(norm(x, "ln_2"), "mlp.c_fc")), "mlp.c_proj")
        seen.append(x)
    x = norm_by_hand(x, w["ln_f.weight"], w["ln_f.bias"], eps)
    logits = x @ w.get("lm_head.weight", w["wte.weight"]).T
    if trace is not None:
        trace += [*seen, x, logits]
    return logits


# %%
with np.load(RECORDED / "expected.npz") as file:
    record = dict(file)
by_hand = gpt2_by_hand(w, record["idx"], H=3)
with no_grad():
    package = model(record["idx"]).numpy()
error = np.abs(by_hand - record["logits"]).max()
print(f"logits {record['logits'].shape} of transformers, up to {record['logits'].max():.1f}: "
      f"by hand within {error:.1e}, package within {np.abs(package - record['logits']).max():.1e}")
check("by_hand_is_the_reference", error, at_most=1e-12)
check("by_hand_is_the_package", np.abs(by_hand - package), at_most=1e-12)

# %% [markdown]
# Three programs that share no line agree to the last digits. So (23.32) with (23.3),
# (23.6), the tanh form, $\varepsilon=10^{-5}$ and a tied head *is* what the file means. The
# package's reader:

# %%
print(inspect.getsource(read_gpt2))
print(inspect.getsource(weights.read_header))

# %% [markdown]
# What it does differently from ours, and why:
#
# - It reads the header, compares names, shapes and types of *all* arrays with `config.json`, and
#   only then makes a model. A wrong file costs no memory, and the message names up to five arrays.
# - It copies each array piece by piece into its place in the model: there is never a second copy of
#   a large table. `_Blank` stands in for the random generator, so nothing is drawn to be
#   overwritten.
# - A setting of `config.json` that would change the result and is not supported ($\varepsilon$,
#   GELU, how scores are scaled) is refused by name. A reader that ignores what it does not know
#   computes something else in silence.
# - It leaves out the masks, takes names with or without `transformer.`, and treats a copy of the
#   table under `lm_head.weight` as tied, but keeps a head that differs.
#
# Each of these, once:


# %%
def refusal(change, arrays=lambda a: a):
    """Write the recorded model with changed settings or arrays; what the reader says, or None."""
    with tempfile.TemporaryDirectory() as folder:
        fields = json.loads((RECORDED / "config.json").read_text()) | change
        Path(folder, "config.json").write_text(json.dumps(fields))
        path = Path(folder, "model.safetensors")
        path.write_bytes(library_save({k: np.ascontiguousarray(a)
                                       for k, a in arrays(dict(library)).items()}))
        try:
            return read_gpt2(folder)
        except ValueError as error:
            return str(error).replace(folder, "")[1:]


# %%
CHANGES = {
    "eps": ({"layer_norm_epsilon": 1e-12},),
    "GELU": ({"activation_function": "gelu"},),
    "scores": ({"scale_attn_by_inverse_layer_idx": True},),
    "family": ({"model_type": "llama"},),
    "too few layers": ({"n_layer": 1},),
    "heads": ({"n_head": 5},),
    "a transposed c_fc": ({}, lambda a: a | {"transformer.h.0.mlp.c_fc.weight":
                                             a["transformer.h.0.mlp.c_fc.weight"].T}),
    "a lost offset": ({}, lambda a: {k: v for k, v in a.items() if k != "transformer.ln_f.bias"}),
}
said = {what: refusal(*change) for what, change in CHANGES.items()}
for what, words in said.items():
    print(f"{what:18s}", str(words)[:90])
check("what_would_change_the_result_is_refused",
      sum(not isinstance(words, str) for words in said.values()), at_most=0)
bare = {k.removeprefix("transformer."): a for k, a in library.items()}
extra = {"h.0.attn.bias": np.ones((1, 1, 16, 16)), "lm_head.weight": bare["wte.weight"]}
same = refusal({}, lambda a: bare | extra)
check("masks_and_a_copied_head_change_nothing", [np.abs(p.numpy() - q.numpy()).max() for p, q in
      zip(same.parameters(), model.parameters(), strict=True)], at_most=0)
with no_grad():
    own = refusal({}, lambda a: bare | {"lm_head.weight": 2 * bare["wte.weight"]})(record["idx"])
check("a_head_that_differs_is_kept", rel_error(own, 2 * record["logits"]), at_most=1e-12)

# %% [markdown]
# One entry of that list is missing: another `n_head` that divides $C$. The file cannot contradict
# it, and it is not refused:

# %%
rows_of_heads = []
for H in (1, 2, 3, 4, 6, 12):
    with no_grad():
        other = refusal({"n_head": H})
        logits = other(record["idx"])
    rows_of_heads.append([H, other.num_parameters(), rel_error(logits, record["logits"])])
show_table(["heads", "parameters", "relative error of the logits"], rows_of_heads)
check("every_divisor_of_c_loads", len({row[1] for row in rows_of_heads}) - 1, at_most=0)
check("one_of_them_is_right", min(row[2] for row in rows_of_heads), at_most=1e-12)
check("the_others_are_not", [row[2] for row in rows_of_heads if row[0] != 3], at_least=0.05)

# %% [markdown]
# ### The other family's file, by hand
#
# llama2.c's format has no names at all: seven integers, and then all numbers in an agreed order,
# matrices as $(n_{\mathrm{out}},n_{\mathrm{in}})$, and at the end two tables of cosines and sines
# that a reader can compute. In float32, with the count $P$ of (23.28), its size is
#
# $$\mathrm{size}=28+4\,\Big(P+2\cdot T\cdot\frac D2\Big), \tag{23.33}$$
#
# and the wrong order is caught by nothing, since nothing has a name. A file written here with
# `struct`, the network written out from the right column of the table, and the package's reader:

# %%
V, T, L, H, K, C, HIDDEN = 30, 10, 2, 4, 2, 16, 24
D = C // H
ORDER = [("emb", (V, C)), ("att_norm", (L, C)), ("wq", (L, C, C)), ("wk", (L, K * D, C)),
         ("wv", (L, K * D, C)), ("wo", (L, C, C)), ("ffn_norm", (L, C)), ("w1", (L, HIDDEN, C)),
         ("w2", (L, C, HIDDEN)), ("w3", (L, HIDDEN, C)), ("norm", (C,))]
m = {name: (0.4 * rng.normal(size=shape) + ("norm" in name)).astype(np.float32)
     for name, shape in ORDER}
angle = np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)  # (T, D/2)


def llama_by_hand(m, idx, head_of=lambda h: h // (H // K)):
    """Logits (T, V) of idx (T,): pairs turned as complex numbers, one head after another."""
    def norm(x, gain):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain

    def turned(x):  # (T, D)
        z = (x[:, ::2] + 1j * x[:, 1::2]) * np.exp(1j * angle[: len(x)])
        return np.stack([z.real, z.imag], -1).reshape(x.shape)

    x = m["emb"][idx].astype(float)
    for i in range(L):
        y, outs = norm(x, m["att_norm"][i]), []
        q, k, v = (y @ m[name][i].T.astype(float) for name in ("wq", "wk", "wv"))
        for h in range(H):
            j = head_of(h)
            q_h, k_h, v_h = (turned(q[:, h * D : (h + 1) * D]), turned(k[:, j * D : (j + 1) * D]),
                             v[:, j * D : (j + 1) * D])
            e = np.tril(np.exp(q_h @ k_h.T / math.sqrt(D)))
            outs.append(e / e.sum(1, keepdims=True) @ v_h)
        x = x + np.concatenate(outs, 1) @ m["wo"][i].T
        y = norm(x, m["ffn_norm"][i])
        gate, up = y @ m["w1"][i].T, y @ m["w3"][i].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ m["w2"][i].T
    return norm(x, m["norm"]) @ m["emb"].T


# %%
def llama_from_file(m):
    """Write a file of llama2.c, and let the package read it, in float64. Also its size."""
    content = struct.pack("<7i", C, HIDDEN, L, H, K, V, T) + b"".join(
        a.astype("<f4").tobytes() for a in (*m.values(), np.cos(angle), np.sin(angle)))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.bin").write_bytes(content)
        return read_llama2c(Path(folder, "model.bin"), dtype="float64"), len(content)


llama, size = llama_from_file(m)
idx = rng.integers(0, V, T)
with no_grad():
    theirs = llama(idx[None]).numpy()[0]
P_llama = llama_count(V, C, L, K, H, HIDDEN, tied=True)
published = 28 + 4 * (llama_count(512, 64, 5, 4, 8, 172, True) + 2 * 512 * 4)
print(f"{size:,} bytes; the published stories260K: {published:,}")
check("size_of_a_llama2c_file", [abs(size - 28 - 4 * (P_llama + T * D)),
      abs(published - 1_056_540)], at_most=0)
check("llama_by_hand_is_the_package", rel_error(llama_by_hand(m, idx), theirs), at_most=1e-12)
check("heads_of_a_group_stand_together",
      rel_error(llama_by_hand(m, idx, head_of=lambda h: h % K), theirs), at_least=0.05)
exchanged = m | {"w1": m["w3"], "w3": m["w1"]}
with no_grad():
    silently = llama_from_file(exchanged)[0](idx[None]).numpy()[0]
check("gate_and_value_exchanged_load_too", rel_error(silently, theirs), at_least=0.05)

# %% [markdown]
# ## Gradient check
#
# The formula of this chapter with a backward pass of its own is (23.15). A small network that
# reads a table $E$ $(V,C)$, does something in between, here $h=\tanh(E_{\mathrm{idx}}M)$ with $M$
# $(C,C)$, and reads it again: $z=h\,E^\top$. With $u=g\,E$ the cotangent of $h$ and
# $r=u\odot(1-h^2)$ that of what went into the tanh: $dx=r\,M^\top$ reaches the embedding, and
# $dM=E_{\mathrm{idx}}^\top r$.

# %%
ids = np.array([2, 0, 2, 4, 2, 1])  # token 2 three times, token 3 never


def tied_by_hand(E, M):
    """E (V, C), M (C, C) -> logits (N, V), and the VJP."""
    x = E[ids]
    h = np.tanh(x @ M)

    def vjp(g):
        r = (g @ E) * (1 - h * h)
        dE = g.T @ h  # the head: every row
        for n, token in enumerate(ids):
            dE[token] += (r @ M.T)[n]  # the embedding: one row a place, and repeats add up
        return dE, x.T @ r

    return h @ E.T, vjp


def tied_op(functions):
    """The same on Tensors, from the package's fused functions or the composed ones."""
    def f(E, M):
        return functions.linear(tanh(functions.linear(functions.embedding(E, ids), M)), E.T)
    return f


values = {"E": rng.normal(size=(5, 4)), "M": 0.5 * rng.normal(size=(4, 4))}
worst = witnesses(tied_by_hand, tied_op(F), tied_op(reference), values,
                  analytic=lambda E, M: tied_by_hand(E, M)[0])
check("tied_vjp", worst, at_most=1e-9)

# %% [markdown]
# Then the whole network. The reference's file has the gradient of its loss for all 28 arrays. The
# package's must be these. Independently, (23.32) by hand is moved along one random direction in
# each array by a complex step, whose slope must be the inner product with the *recorded* gradient.

# %%
for p in model.parameters():
    p.grad = None
loss = F.cross_entropy(model(record["idx"]), record["targets"])
loss.backward()
NAMES = [name for name, _ in model.named_parameters()]
recorded = {name: record[f"grad/transformer.{name}"] for name in NAMES}


def loss_by_hand(w):
    """Mean nats per token of the recorded targets."""
    z = gpt2_by_hand(w, record["idx"], H=3)
    z = z - z.real.max(-1, keepdims=True)
    chosen = np.take_along_axis(z, record["targets"][..., None], -1)[..., 0]
    return (np.log(np.exp(z).sum(-1)) - chosen).mean()


# %%
rows = []
for name, p in model.named_parameters():
    u = rng.normal(size=p.shape)
    slope = loss_by_hand(w | {name: w[name] + 1e-30j * u}).imag / 1e-30
    size = np.abs(recorded[name]).max()
    rows.append([name, np.abs(to_numpy(p.grad) - recorded[name]).max() / size,
                 abs((recorded[name] * u).sum() - slope) / np.linalg.norm(recorded[name])])
show_table(["array", "package against reference", "by hand (complex step)"],
           [rows[0], *rows[4:8], rows[-1]])
print(f"... {len(rows)} arrays; loss {loss.item():.6f}, recorded {record['loss']:.6f}")
check("loss_of_the_reference", abs(loss.item() - record["loss"]), at_most=1e-12)
check("every_gradient_of_the_reference", [row[1] for row in rows], at_most=1e-9)
check("complex_step_through_the_network", [row[2] for row in rows], at_most=1e-9)

# %% [markdown]
# The recorded gradient of `wte` is the sum of two, by (23.15). It can be taken apart: by
# (23.16) the head's part sums to 0 over the rows, and an untied copy shows each alone.

# %%
two_tables = GPT(replace(model.config, tied=False), np.random.default_rng(0), dtype="float64")
two_tables.load_arrays(w | {"lm_head.weight": w["wte.weight"]})
F.cross_entropy(two_tables(record["idx"]), record["targets"]).backward()
G_in, G_out = (to_numpy(t.weight.grad) for t in (two_tables.wte, two_tables.lm_head))
both = recorded["wte.weight"]
print(f"lengths: embedding's part {np.linalg.norm(G_in):.3f}, head's {np.linalg.norm(G_out):.3f}, "
      f"together {np.linalg.norm(both):.3f}")
check("recorded_gradient_is_the_sum", rel_error(G_in + G_out, both), at_most=1e-9)
check("row_sum_of_the_recorded_gradient", rel_error(both.sum(0), G_in.sum(0)), at_most=1e-9)
check("either_part_alone_is_wrong", [rel_error(G, both) for G in (G_in, G_out)], at_least=0.05)

# %% [markdown]
# ### Break it
#
# Four wrong VJPs of the tied table. Each is compared with the right one for a random cotangent, and
# for a cotangent of ones. The last has mixed up the tokens' order in the head. With ones, every row
# of $g^\top h$ is the same, and no order can be seen:

# %%
E, M = values["E"], values["M"]
out, vjp = tied_by_hand(E, M)
h = np.tanh(E[ids] @ M)


def broken(kind, g):
    right = vjp(g)[0]
    scattered = right - g.T @ h
    if kind == "repeats overwrite each other":
        scattered = np.zeros_like(E)
        scattered[ids] = ((g @ E) * (1 - h * h)) @ M.T
    return {"the head's part alone": g.T @ h, "the embedding's part alone": scattered,
            "repeats overwrite each other": scattered + g.T @ h,
            "head rows in another order": scattered + (g.T @ h)[::-1]}[kind]


rows = []
for kind in ("the head's part alone", "the embedding's part alone",
             "repeats overwrite each other", "head rows in another order"):
    rows.append([kind, *(rel_error(broken(kind, g), vjp(g)[0])
                         for g in (rng.normal(size=out.shape), np.ones(out.shape)))])
show_table(["wrong VJP", "error, random cotangent", "cotangent of ones"], rows)
check("wrong_vjps_are_seen", [row[1] for row in rows], at_least=0.05)
check("ones_cannot_see_an_order", rows[-1][2], at_most=1e-12)

# %% [markdown]
# ## Experiment
#
# ### Parity, place by place
#
# How closely *should* two programs agree? A number of float32 is right to $2^{-24}=6\cdot10^{-8}$
# of its size, and every operation rounds again.
#
# **Prediction.** In float64, all logits and gradients within $10^{-9}$ of the recording. In
# float32, logits within $10^{-4}$; errors relative to the largest number of their place, below
# $10^{-5}$ everywhere, and growing slowly with depth, since the stream adds up what each
# block has rounded. To see depth, a network of 12 blocks is added, with random weights. Its
# reference is (23.32) by hand in float64, with the same float32 weights.

# %%
def in_float32(model):
    """The same GPT in float32, through a file."""
    copy = GPT(model.config, np.random.default_rng(0))
    copy.load_arrays({name: p.data for name, p in model.named_parameters()})
    with tempfile.TemporaryDirectory() as folder:
        write_gpt2(copy, Path(folder, "gpt2"))
        return read_gpt2(Path(folder, "gpt2"))


def trace_of(model, idx):
    """The package's residual stream: after the tables, after each branch, ln_f, the logits."""
    with no_grad():
        x = model.wte(idx) + model.wpe(np.arange(idx.shape[1]))
        seen = [x]
        for block in model.h:
            x = x + block.attn(block.ln_1(x))
            seen.append(x)
            x = x + block.mlp(block.ln_2(x))
            seen.append(x)
        x = model.ln_f(x)
        return [t.numpy() for t in (*seen, x, F.linear(x, model.lm_head.weight.T))]


# %%
single = in_float32(model)
F.cross_entropy(single(record["idx"]), record["targets"]).backward()


def gradient_errors(model):
    """Name -> the largest error of a gradient, in units of its largest number."""
    return {name: np.abs(to_numpy(p.grad) - recorded[name]).max() / np.abs(recorded[name]).max()
            for name, p in model.named_parameters()}


with no_grad():
    logits = [m(record["idx"]).numpy() for m in (model, single)]
print(f"logits: float64 within {np.abs(logits[0] - record['logits']).max():.1e}, "
      f"float32 within {np.abs(logits[1] - record['logits']).max():.1e}")
check("logits_in_float64", np.abs(logits[0] - record["logits"]), at_most=1e-9)
check("logits_in_float32", np.abs(logits[1] - record["logits"]), at_most=1e-4)
check("gradients_in_float32", [*gradient_errors(single).values()], at_most=1e-4)

# %%
config = GPTConfig(97, 32, n_layer=12, n_head=4, n_embd=64)
deep = GPT(config, np.random.default_rng(8))
for p in deep.parameters():
    p.data += xp.asarray((0.1 * rng.normal(size=p.shape)).astype(np.float32))
idx = rng.integers(0, 97, (2, 32))
exact = []
gpt2_by_hand({name: p.numpy().astype(float) for name, p in deep.named_parameters()}, idx, H=4,
             trace=exact)
wide = GPT(config, np.random.default_rng(0), dtype="float64")
wide.load_arrays({name: p.data for name, p in deep.named_parameters()})
errors = {kind: [rel_error(a, b) for a, b in zip(trace_of(m, idx), exact, strict=True)]
          for kind, m in (("float32", deep), ("float64", wide))}
with no_grad():
    check("trace_is_the_model", np.abs(trace_of(deep, idx)[-1] - deep(idx).numpy()), at_most=0)
check("every_place_in_float32", errors["float32"], at_most=1e-5)
check("every_place_in_float64", errors["float64"], at_most=1e-13)
check("rounding_grows_with_depth", errors["float32"][-1] / errors["float32"][1], at_least=1.5)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.6), width_ratios=[3, 2])
at = np.arange(len(exact))
for kind, colour, y in (("float32", BLUE, 1.2e-6), ("float64", GREEN, 2.5e-15)):
    left.semilogy(at, np.where(errors[kind], errors[kind], np.nan), "o-", color=colour, ms=4)
    left.text(13, y, kind, color=colour, ha="center")
left.axhline(1e-5, color=RED, ls="--", lw=1.5)
left.text(0, 1.6e-5, "what the chapter asks for", color=RED)
left.set_xticks([0, 2, 6, 12, 18, 24, 26], ["tables", "1", "3", "6", "9", "12", "logits"])
left.set(xlabel="place in the network (after block ...)", ylim=(1e-17, 3e-4),
         ylabel="largest difference / largest value")
left.set_title("12 blocks: rounding grows slowly", size=12)
kinds = ("wte", "wpe", "ln", "attn", "mlp")
for y, kind in enumerate(kinds):
    for network, colour in ((single, BLUE), (model, GREEN)):
        chosen = [e for name, e in gradient_errors(network).items() if kind in name]
        right.semilogx(np.maximum(chosen, 1e-17), np.full(len(chosen), y), "o", color=colour, ms=6,
                       alpha=0.6)
right.axvline(1e-5, color=RED, ls="--", lw=1.5)
right.set_yticks(range(5), kinds)
right.set(xlabel="largest difference / largest value", ylim=(4.6, -0.6), xlim=(1e-17, 3e-4))
right.set_title("gradients, against transformers", size=12)
for axes in (left, right):
    axes.minorticks_off()
fig.suptitle("Parity: two programs differ by rounding, and by nothing else")
save_figure(fig, "23_parity.svg")
plt.show()

# %% [markdown]
# As predicted. The gradients of `transformers`' own run are met as closely as the logits. Between
# the two precisions lie nine orders of magnitude: compare in float64 where you can, since what
# is left there is rounding and nothing else.
#
# ### There and back, bit for bit
#
# **Prediction.** Writing and reading rounds nothing, so nothing differs, in either precision, tied
# or untied, with offsets or without, and the second file is the first, byte for byte.

# %%
rows = []
for changes in ({}, {"tied": False}, {"bias": False}, {"n_layer": 11}):
    for dtype in ("float32", "float64"):
        first = GPT(replace(GPTConfig(31, 9, n_layer=2, n_head=3, n_embd=12), **changes),
                    np.random.default_rng(2), dtype)
        for p in first.parameters():
            p.data += xp.asarray(rng.normal(size=p.shape).astype(p.dtype))
        with tempfile.TemporaryDirectory() as folder:
            write_gpt2(first, Path(folder, "a"))
            back = read_gpt2(Path(folder, "a"))
            write_gpt2(back, Path(folder, "b"))
            files = [Path(folder, k, "model.safetensors").read_bytes() for k in "ab"]
        differ = sum(p.numpy().tobytes() != q.numpy().tobytes() or p.dtype != q.dtype for p, q in
                     zip(first.parameters(), back.parameters(), strict=True))
        rows.append([f"{changes or 'as it is'}, {dtype}", len(files[0]), differ,
                     int(files[0] != files[1] or first.config != back.config)])
show_table(["model", "bytes", "arrays that differ", "files that differ"], rows)
check("there_and_back_bit_for_bit", [row[2:] for row in rows], at_most=0)

# %% [markdown]
# ### What each wrong convention does
#
# Take a model that has learned something, so that its loss means something: two blocks of 48
# channels, trained for 700 steps on the default corpus, and saved as a GPT-2. Load it with one
# mistake at a time, and measure two things on 64 held-out windows: how far the logits are from the
# right ones, and how many nats per character the mistake costs.
#
# **Prediction.** Three groups. *Loud*: what makes a different matrix out of the numbers (heads in
# head-first order, `c_proj` transposed, a random head) costs tenths of a nat or more. *Quiet*:
# exact GELU and another $\varepsilon$ cost under 0.001 nats. No loss curve and no sample shows
# them, and yet they change the logits a hundred times more than rounding does. And in between,
# half-precision weights.

# %%
corpus = data.load("facts")
text = data.split(corpus)
tokenizer = CharTokenizer.from_text(corpus.text)
train_ids, val_ids = tokenizer.encode(text.train), tokenizer.encode(text.val)
config = GPTConfig(tokenizer.vocab_size, 32, n_layer=2, n_head=4, n_embd=48)
trained, draw = GPT(config, np.random.default_rng(0)), np.random.default_rng(1)
optimizer = Adam(trained.parameters(), 6e-3)
for step in range(700):
    optimizer.lr = warmup_cosine(step, lr=6e-3, warmup=20, steps=700)
    rows = train_ids[draw.integers(0, len(train_ids) - 32, 32)[:, None] + np.arange(33)]
    loss = F.cross_entropy(trained(rows[:, :-1]), rows[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm(optimizer.params, 1.0)
    optimizer.step()
print(f"held out: {nats_per_token(trained, val_ids[:10_001]):.3f} nats per character, "
      f"guessing {math.log(94):.3f}")
with tempfile.TemporaryDirectory() as folder:
    write_gpt2(trained, Path(folder, "gpt2"))
    right = {name: a.astype(float)
             for name, a in read_by_hand(Path(folder, "gpt2", "model.safetensors")).items()}
windows = val_ids[np.arange(0, 64 * 33).reshape(64, 33)]


def judged(w, H=4, **options):
    """Log-probabilities (64, 32, V) by hand, and nats per character."""
    z = gpt2_by_hand(w, windows[:, :-1], H, **options)
    z = z - z.max(-1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return logp, -np.take_along_axis(logp, windows[:, 1:, None], -1).mean()


# %%
def edited(changes):
    """The right weights, and a function applied to every array whose name ends as given."""
    return {name: next((f(a) for end, f in changes.items() if name.endswith(end)), a)
            for name, a in right.items()}


def columns(order):
    """What c_attn is if its columns are taken to stand in another order."""
    return edited({"c_attn.weight": lambda a: a[:, order], "c_attn.bias": lambda a: a[order]})


def cut_to_bfloat16(a):
    return (a.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(float)


# %%
C, square = 48, "attn.c_proj.weight"
head_first = places(C, 4)[3]  # where a reader of reshape(T, H, 3, D) finds each column
k_first = np.concatenate([np.arange(C, 2 * C), np.arange(C), np.arange(2 * C, 3 * C)])
noise = np.random.default_rng(3).normal(0, 0.02, right["wte.weight"].shape)
MISTAKES = {  # name -> weights, options
    "heads in head-first order": (columns(head_first), {}),
    "head random, not tied": (right | {"lm_head.weight": noise}, {}),
    "c_proj transposed": (edited({square: np.transpose}), {}),
    "c_proj transposed, one block": (edited({f"h.1.{square}": np.transpose}), {}),
    "q and k exchanged": (columns(k_first), {}),
    "2 heads, not 4": (right, {"H": 2}),
    "positions shifted by one": (edited({"wpe.weight": lambda a: np.roll(a, 1, 0)}), {}),
    "offsets forgotten": (edited({"bias": np.zeros_like}), {}),
    "ReLU for GELU": (right, {"gelu": lambda x: np.maximum(x, 0)}),
    "weights in bfloat16, cut": (edited({"weight": cut_to_bfloat16}), {}),
    "weights in float16": (edited({"weight": lambda a: a.astype("f2").astype(float)}), {}),
    "exact GELU": (right, {"gelu": exact_gelu}),
    "eps 1e-6": (right, {"eps": 1e-6}),
    "eps 1e-12": (right, {"eps": 1e-12}),
}

# %%
logp, honest = judged(right)
effects = {}
for name, (changed, options) in MISTAKES.items():
    other, loss = judged(changed, **options)
    effects[name] = (rel_error(other, logp), loss - honest)
with no_grad():
    rounding = rel_error(F.log_softmax(trained(windows[:, :-1])), logp)
show_table(["mistake", "relative error of log p", "nats per character more"],
           [[name, *effect] for name, effect in effects.items()])
print(f"right: {honest:.4f} nats per character; float32 instead of float64: {rounding:.1e}")

loud = ["heads in head-first order", "head random, not tied", "c_proj transposed",
        "q and k exchanged"]
quiet = ["weights in float16", "exact GELU", "eps 1e-6", "eps 1e-12"]
check("loud_mistakes_cost_tenths_of_a_nat", [effects[name][1] for name in loud], at_least=0.1)
check("quiet_ones_cost_nothing", [abs(effects[name][1]) for name in quiet], at_most=1e-3)
check("no_loss_shows_bfloat16", abs(effects["weights in bfloat16, cut"][1]), at_most=0.01)
check("one_transposed_block_can_hide", effects["c_proj transposed, one block"][1]
      / effects["c_proj transposed"][1], at_most=0.5)
check("but_parity_sees_every_one", [e / rounding for e, _ in effects.values()], at_least=50)

# %%
fig, (left, right_side) = plt.subplots(1, 2, figsize=(10.5, 5.2), sharey=True)
ordered = sorted(effects, key=lambda name: effects[name][0])
colours = [RED if name in loud else BLUE if name in quiet else YELLOW for name in ordered]
y = np.arange(len(ordered))
left.barh(y, [effects[name][0] for name in ordered], color=colours, height=0.7)
right_side.barh(y, np.maximum([effects[name][1] for name in ordered], 1e-5), color=colours,
                height=0.7)
left.axvline(rounding, color=GREY, ls="--", lw=1.5)
left.text(rounding * 1.5, 13.7, "float32 rounding", color=GREY, size=10)
right_side.axvline(0.03, color=GREY, ls="--", lw=1.5)
right_side.text(0.027, 13.7, "about what a curve shows", color=GREY, size=10, ha="right")
for i, name in enumerate(ordered):
    cost = effects[name][1]
    if cost < 1e-3:
        right_side.text(1.3e-5 if cost < 1e-5 else 1.2 * cost, i, f"{cost:+.5f}", va="center",
                        size=10, color=colours[i])
left.set_yticks(y, ordered)
left.set(xscale="log", xlim=(1e-7, 1.5), ylim=(-0.6, 14.5),
         xlabel="relative error of the log-probabilities")
right_side.set(xscale="log", xlim=(1e-5, 5), xlabel="nats per character more")
for axes in (left, right_side):
    axes.minorticks_off()
    axes.grid(axis="y", visible=False)
fig.suptitle("Comparing numbers finds every mistake; the loss, only the coarse ones")
save_figure(fig, "23_mistakes.svg")
plt.show()

# %% [markdown]
# The loud and the quiet are as predicted. (Some quiet ones even lower the loss, by chance.)
# Positions off by one and a wrong number of heads are nearly as loud. What is left in between is
# more than the half precision that was predicted, and it is the dangerous group: one transposed
# projection of two, forgotten offsets, ReLU for GELU. They cost some hundredths of a nat, or a
# tenth. Who does not know what the loss should be would take the model for a slightly worse one. A
# residual stream goes around a broken branch, and a small model leans on few of its parts. **Only
# numbers that another program has recorded find all of these.** (The model itself is a poor one: in
# its loss it is near a counted 2-gram. The chapter needs it to lose something, not to be good.)
#
# ### Files of your own
#
# Trained GPT-2 weights are not part of this repository. If the folder `gpt2` in the package's cache
# folder (the one that the environment variable `MINIGPT_DATA` names) has `config.json` and
# `model.safetensors`, the next cell loads them, counts, scores a sentence and lets the model go on.
# The same for a published Llama of 260,032 parameters that tells stories, whose files
# `python -m minigpt stories` fetches. Without them the cell says so, and does nothing else. No
# check depends on it.

# %%
def with_your_gpt2(folder):
    """Load it, and print what it is and what it does."""
    mine = read_gpt2(folder)
    c = mine.config
    has_own = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    tokens = load(folder) if has_own else gpt2()
    print(f"{mine.num_parameters():,} parameters; by (23.24) "
          f"{count(c.n_embd, c.n_layer, c.vocab_size, c.block_size):,} if the head is tied")
    ids = tokens.encode("The capital of France is Paris, and the capital of Italy is")
    with no_grad():
        logp = F.log_softmax(mine(ids[None, :-1])).numpy()[0]
    print(f"{-logp[np.arange(len(ids) - 1), ids[1:]].mean():.2f} nats per token; it goes on:")
    more = [int(t[0]) for t in generate(mine, ids[None], 12, rng=rng, temperature=0)]
    print(tokens.decode([*ids, *more]))


place = cache_folder() / "gpt2"
if (place / "config.json").is_file():
    with_your_gpt2(place)
else:
    print("GPT-2: there is no gpt2/config.json in the cache folder, so nothing was loaded.")
if all((stories.cache() / name).is_file() for name in stories.HASHES):
    print("".join(stories.tell(*stories.load(stories.cache()), "Once upon a time", 60, rng=rng)))
else:
    print("stories260K: its files are not in the cache folder, so no story.")

# %% [markdown]
# ## What others get wrong
#
# The documents S0 to S4 are listed in the [chapters' README](README.md).
#
# ### A quantised GPT-2 that grew (S4:735-756)
#
# S4 turns the `Linear` layers of GPT-2 into 8-bit integers with PyTorch's dynamic quantisation, and
# says that this makes the model smaller. Of a GPT-2's matrices, `transformers` has made *none* a
# `Linear`: they are `Conv1D`, (23.3). The one `Linear` is the head, which is the token table. So
# nothing in the blocks is quantised, and the file *grows*. Measured once with that library on a
# model of two layers, 64 channels and random weights: 13,538,319 bytes before, 16,755,910 after.
# Count, with (23.24): before, $4P$ and the container's own bytes. The growth is, nearly to the
# byte, the number of entries of one table:

# %%
before, after = 13_538_319, 16_755_910
P_two = count(64, 2)
print(f"4 P = {4 * P_two:,} of {before:,} bytes; grown by {after - before:,}, V C = {50257 * 64:,}")
check("before_it_is_four_bytes_a_parameter", abs(before / (4 * P_two) - 1), at_most=1e-3)
check("it_grows_by_one_byte_an_entry", abs((after - before) / (50257 * 64) - 1), at_most=1e-3)
by_then = 4 * P + 50257 * 768
print(f"GPT-2 by the same arithmetic: {4 * P / 1e6:.1f} MB become {by_then / 1e6:.1f} MB")
check("gpt2_would_grow_too", [abs(4 * P / 1e6 - 497.8), abs(by_then / 1e6 - 536.4)], at_most=0.1)

# %% [markdown]
# Why by one byte an entry, when 8 bits were to *replace* 32, is exercise 23.3. S4's sentence that
# quantising makes a model smaller is right for what is quantised.
#
# ### Weights without their settings (S3:180, S3:201)
#
# S3 saves the weights alone with `torch.save`, and loads them into a model that happens to be
# there. Two things are wrong with that. First, the settings are lost, and the number of heads is
# in no shape: of the six models above that loaded the same file, five were wrong. Second, such a
# file is a *pickle*, which is not a list of numbers but a program for a small machine that can call
# any function. Here is one of six instructions, written out by hand. It is taken apart below, and
# run by nobody:

# %%
program = b"cbuiltins\nprint\n(S'your files were here'\ntR."
steps = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(program)]
print(*steps, sep="\n")
calls = sum(name in ("GLOBAL", "REDUCE") for name, _ in steps)
check("a_pickle_names_a_function_and_calls_it", calls, at_least=2)
wrong_heads = [row[2] for row in rows_of_heads if row[0] != 3]
check("five_of_six_heads_were_wrong", min(wrong_heads), at_least=0.05)

# %% [markdown]
# `GLOBAL` fetches a function by its name, `REDUCE` calls it. (Newer versions of PyTorch allow only
# a short list of functions unless told otherwise.) A safetensors file has nothing that could be
# run, and minigpt's own checkpoints carry the settings and the tokenizer in the same file.
#
# ### The class that loads nothing (S1:44)
#
# S1 loads GPT-2 with `PreTrainedModel.from_pretrained`. That is the class that all models of
# `transformers` inherit from; it has no architecture, and the call fails. A file of numbers does
# not know its function. `config.json` names it, twice, and a reader has to be of that kind:

# %%
fields = json.loads((RECORDED / "config.json").read_text())
print(fields["architectures"], fields["model_type"], "->", said["family"])
check("the_config_names_the_architecture", fields["architectures"].count("GPT2LMHeadModel"),
      at_least=1)
check("another_family_is_refused", said["family"].count("only gpt2 is supported"), at_least=1)

# %% [markdown]
# ### A diagram with one block (S4:1057-1065, S3:309-316)
#
# S4 draws GPT as embedding, position, attention, feed-forward network, output layer, in a row. S3
# draws the position as computed *from* the embedding. A checkpoint is a diagram that cannot be
# vague. For each array, ask what box it belongs to. Ten of the 148 have one: the two tables, and
# eight arrays of one block. The layer norms and eleven further blocks have no place. And what the
# drawn model computes, without residual connections, is something else:


# %%
def as_drawn(w, idx, H):
    """Embedding, position, attention, feed-forward, output layer: one block, nothing around it."""
    x = w["wte.weight"][idx] + w["wpe.weight"][: idx.shape[-1]]
    for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        x = x @ w[f"h.0.{part}.weight"] + w[f"h.0.{part}.bias"]
        x = look_back(x, H) if part == "attn.c_attn" else tanh_gelu(x) if part == "mlp.c_fc" else x
    return x @ w["wte.weight"].T


# %%
shapes = names_and_shapes(768, 12)
drawn = {k for k in shapes if k.startswith(("wte", "wpe", "h.0.attn", "h.0.mlp"))}
left_over = sum(math.prod(shapes[k]) for k in shapes if k not in drawn)
z = as_drawn(right, windows[:, :-1], 4)
z = z - z.max(-1, keepdims=True)
logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
cost = -np.take_along_axis(logp, windows[:, 1:, None], -1).mean() - honest
print(f"{len(drawn)} of {len(shapes)} arrays have a place; {left_over / P:.0%} of the parameters "
      f"have none; the trained model, as drawn: {cost:+.2f} nats per character")
check("arrays_without_a_place", len(shapes) - len(drawn), at_least=138)
check("most_parameters_have_no_place", left_over / P, at_least=0.6)
check("as_drawn_it_is_another_function", cost, at_least=0.5)

# %% [markdown]
# ### "The last linear layer is the feed-forward network" (S3:190, S3:497)
#
# It is the head, and in GPT-2's file it has no array of its own. The feed-forward networks are
# `mlp.c_fc` and `mlp.c_proj`, one pair in each block, with a GELU between. Counting the head as a
# layer of its own gives a number that is often read about GPT-2, 163 million:

# %%
heads = [name for name in library if "lm_head" in name]
networks = {name.split(".mlp.")[0] for name in library if ".mlp." in name}
print(f"arrays of a head: {len(heads)}; feed-forward networks: {len(networks)}; "
      f"with a second table: {P + 50257 * 768:,}")
check("the_head_has_no_array", len(heads), at_most=0)
check("a_feed_forward_network_a_block", abs(len(networks) - 2), at_most=0)
check("counted_twice_it_is_163_million", abs(P + 50257 * 768 - 163_037_184), at_most=0)
rows = [GPT(replace(GPTConfig(50, 8), tied=t), rng).num_parameters() for t in (True, False)]
check("the_package_counts_a_tied_head_once", abs(rows[1] - rows[0] - 50 * 96), at_most=0)

# %% [markdown]
# ### Fine-tuning GPT-3, and three facts (S4:882, S4:942, S4:21, S4:1038, S1:77)
#
# S4 describes training "the GPT-3 model" with one's own data. Its weights were never published, so
# there is nothing to load. (It is reached through a service.) By (23.24) they would have
# $L=96$, $C=12288$ and $T=2048$: 174.6 billion, which S4:23 rightly rounds to 175. At two bytes
# each that is 349 GB. S4 also speaks of recurrent networks in GPT-2 and GPT-3. Of all the arrays
# listed above none is recurrent: each is used once for each token and layer.
#
# GPT-2 is of February 2019, not 2018 (S4:21). Its paper is "Language Models are Unsupervised
# Multitask Learners" (Radford et al. 2019), which is not on arXiv: the number that S4:1038 gives,
# 1909.08053, is Megatron-LM, and the PDF behind S1:77 is the paper of the first GPT.

# %%
gpt3 = count(12288, 96, T=2048)
print(f"GPT-3 by formula: {gpt3:,} parameters, {2 * gpt3 / 1e9:.0f} GB at two bytes each")
check("gpt3_has_175_billion", [abs(gpt3 - 174_604_259_328), abs(gpt3 / 175e9 - 1) * 1e-2],
      at_most=1e-4)
check("and_would_fill_349_gigabytes", 2 * gpt3 / 1e9, at_least=349)

# %% [markdown]
# ## Exercises
#
# Each has a stub to fill in and a cell that tries it. Solutions are in
# `solutions/23_loading_gpt2.py`.

# %% [markdown]
# ### Exercise 23.1: Count, with options
#
# *Difficulty 1 of 5 · 15 minutes · 1 point*
#
# (23.24) is for a tied GPT-2 with offsets. Write the count for a model that may have neither:
# without `bias` there are no offsets in linear layers and layer norms (gains stay), and without
# `tied` the head has a table of its own, without offsets.
#
# <details><summary>Hint 1</summary>
#
# Of the $13C$ of a block, how many are offsets of the four linear layers, how many gains and how
# many offsets of the two layer norms?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $9C$, $2C$ and $2C$. The last layer norm has $2C$, half of them offsets.
#
# </details>


# %% exercise="23.1" role="stub"
def count_parameters(V, T, C, L, bias=True, tied=True):
    """Parameters of a GPT-2 with vocabulary V, block size T, C channels, L layers. -> int."""
    raise NotImplementedError


# %% exercise="23.1" role="check"
def check_23_1(count_parameters):
    """As many as models of the package have."""
    assert count_parameters(50257, 1024, 768, 12) == 124_439_808, "the smallest GPT-2"
    for options in ({}, {"bias": False}, {"tied": False}):
        config = GPTConfig(17, 5, n_layer=2, n_head=1, n_embd=4, **options)
        want = GPT(config, np.random.default_rng(0)).num_parameters()
        got = count_parameters(17, 5, 4, 2, **options)
        assert got == want, f"{options or 'all as in GPT-2'}: the package's model has {want}"


attempt(check_23_1, count_parameters)

# %% [markdown]
# ### Exercise 23.2: Take over somebody else's attention
#
# *Difficulty 3 of 5 · 20 minutes · 3 points*
#
# A checkpoint holds its attention input as a `Linear`: `weight` $(3C,C)$ and `bias` $(3C)$. Its
# outputs stand in head-first order: output number $3hD+pD+d$ is channel $d$ of head $h$ of the
# query ($p=0$), key ($p=1$) or value ($p=2$). Return `c_attn` as GPT-2 wants it, $(C,3C)$ and
# $(3C)$, with (23.6). Do not change the arguments.
#
# <details><summary>Hint 1</summary>
#
# Give the outputs' axis its three indices, in the order in which they stand: a reshape to
# $(H,3,D,\cdot)$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Then exchange the first two axes, and flatten again. The offsets go the same way, without the last
# axis. What is left is the side on which the input stands.
#
# </details>


# %% exercise="23.2" role="stub"
def to_c_attn(weight, bias, n_head):
    """weight (3C, C), bias (3C,) of a Linear, head first -> (C, 3C), (3C,) for GPT-2."""
    raise NotImplementedError


# %% exercise="23.2" role="check"
def check_23_2(to_c_attn):
    """Every query, key and value of every head is what the other program computes."""
    C, H = 6, 3
    r = np.random.default_rng(2)
    weight, bias, x = r.normal(size=(3 * C, C)), r.normal(size=3 * C), r.normal(size=C)
    w, b = to_c_attn(weight.copy(), bias.copy(), H)
    assert np.shape(w) == (C, 3 * C), f"expected ({C}, {3 * C}), got {np.shape(w)}"
    assert np.shape(b) == (3 * C,), f"the offsets should be ({3 * C},), got {np.shape(b)}"
    theirs = (weight @ x + bias).reshape(H, 3, C // H)
    ours = (x @ w + b).reshape(3, H, C // H)
    for p, what in enumerate(("queries", "keys", "values")):
        assert np.abs(ours[p] - theirs[:, p]).max() < 1e-9, f"the {what} are not theirs"


attempt(check_23_2, to_c_attn)

# %% [markdown]
# ### Exercise 23.3: Why a quantised file grew
#
# *Difficulty 2 of 5 · 20 minutes · 2 points*
#
# A program saves a dictionary of arrays. Two names that hold *the same object* are written once.
# Quantising a name puts, in its place, a new array of 8-bit integers (one byte a number) and one
# scale of four bytes. Return how many bytes are written, before or after. Then explain S4's file
# with it: the check has a tied model.
#
# <details><summary>Hint 1</summary>
#
# Two arrays with equal numbers are not the same object. Python's `id` tells them apart.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A name that is quantised no longer holds the old object. But does another name?
#
# </details>


# %% exercise="23.3" role="stub"
def saved_bytes(arrays, quantised=()):
    """Bytes of all numbers and scales that are written. arrays: name -> array. -> int.

    quantised: names that are replaced by a new array of one byte a number, and a scale of 4 bytes.
    """
    raise NotImplementedError


# %% exercise="23.3" role="check"
def check_23_3(saved_bytes):
    """A tied model of 100 tokens, 8 channels and one matrix."""
    table, matrix = np.ones((100, 8), np.float32), np.ones((8, 32), np.float32)
    model = {"wte": table, "c_fc": matrix, "head": table}
    assert saved_bytes(model) == 4 * 800 + 4 * 256, "a tied table is written once"
    assert saved_bytes(model, ["c_fc"]) == 4 * 800 + 256 + 4, "one byte a number and a scale"
    grown = saved_bytes(model, ["head"]) - saved_bytes(model)
    assert grown == 800 + 4, "quantise the head alone: what happens to the table?"
    assert saved_bytes(model, ["wte", "head"]) == 2 * 804 + 4 * 256, "two names, two new arrays"


attempt(check_23_3, saved_bytes)

# %% [markdown]
# ### Exercise 23.4: Shard a checkpoint
#
# *Difficulty 3 of 5 · 25 minutes · 3 points*
#
# Deal arrays to files. `sizes` maps names to bytes, in order. Fill a shard as long as it stays
# within `limit` bytes, and begin the next one with the first array that does not fit. An array
# larger than the limit is never cut: it has a shard for itself. Shards are called
# `model-00001-of-00003.safetensors`, counted from 1. Return the index: a dictionary with
# `weight_map`, name to file, and `metadata`, `{"total_size": ...}`.
#
# <details><summary>Hint 1</summary>
#
# The file names need the number of shards, which you know at the end. Number first, name later.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Begin a new shard if the present one holds something and would grow beyond the limit. An empty
# shard is never left behind. This covers the array that is too large, too.
#
# </details>


# %% exercise="23.4" role="stub"
def shard(sizes, limit):
    """The index of a sharded checkpoint. sizes: name -> bytes, in order; limit: bytes a shard."""
    raise NotImplementedError


# %% exercise="23.4" role="check"
def check_23_4(shard):
    """Small cases by hand: what fits, what is too large, and what every index has."""
    index = shard({"a": 4, "b": 6, "c": 5, "d": 5, "e": 1}, 10)
    files = [f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)]
    assert index["weight_map"] == dict(zip("abcde", [files[0]] * 2 + [files[1]] * 2 + [files[2]],
                                           strict=True)), "4 + 6, 5 + 5, 1 with a limit of 10"
    assert index["metadata"] == {"total_size": 21}, "total_size is the bytes of all arrays"
    files = [*shard({"a": 3, "large": 50, "b": 3}, 10)["weight_map"].values()]
    assert len(set(files)) == 3, "an array larger than the limit has a shard for itself"
    assert all(file.endswith("-of-00003.safetensors") for file in files), "three shards, no empty"


attempt(check_23_4, shard)

# %% [markdown]
# ### Exercise 23.5: Round to bfloat16
#
# *Difficulty 4 of 5 · 30 minutes · 4 points*
#
# Cutting off the lower half of a float32 is (23.23). Write the better way, as processors do it:
# round to the *nearest* bfloat16, and where two are equally near, to the one whose last bit is 0.
# Return the 16 bits as `uint16`. What is not a number must stay so, infinity must stay infinity,
# and a number that is nearer to the next power of two than to the largest bfloat16 becomes
# infinity.
#
# <details><summary>Hint 1</summary>
#
# The bits of a positive float, read as an integer, are in the order of the numbers. So rounding is
# integer arithmetic: add half of the last place that is kept, `0x8000`, and cut.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Ties: add `0x7FFF`, and one more if the last bit that is kept is 1. A carry runs into the exponent
# by itself, even up to infinity.
#
# </details>
#
# <details><summary>Hint 3</summary>
#
# A NaN has all exponent bits set and something in the mantissa. If that lies in the lower half
# alone, or if a carry runs through, it is lost. Treat NaN apart: any bits of a NaN will do.
#
# </details>


# %% exercise="23.5" role="stub"
def to_bfloat16(x):
    """float32 of any shape -> uint16 of the same shape: the nearest bfloat16, ties to even."""
    raise NotImplementedError


# %% exercise="23.5" role="check"
def check_23_5(to_bfloat16):
    """Exact numbers stay, others go to the nearest, ties to even, and NaN stays NaN."""
    def back(bits):
        return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)

    exact = np.array([0, 1, -1, 0.5, -2.5, 3.0, 2.0**100, -np.inf], np.float32)
    bits = to_bfloat16(exact)
    assert bits.dtype == np.uint16 and bits.shape == exact.shape, "uint16 of the same shape"
    assert (back(bits) == exact).all(), "a number that bfloat16 can hold must not change"
    x = np.random.default_rng(5).normal(size=1000).astype(np.float32)
    error = np.abs(back(to_bfloat16(x)) - x) / np.abs(x)
    assert error.max() <= 2.0**-8, "the nearest is never further away than one part in 256"
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)  # between 1, 1 + 2^-7 and 1 + 2^-6
    assert (back(to_bfloat16(ties)) == [1, 1 + 2**-6]).all(), "in a tie the last bit becomes 0"
    assert np.isnan(back(to_bfloat16(np.array([np.nan], np.float32)))).all(), "NaN must stay NaN"


attempt(check_23_5, to_bfloat16)

# %% [markdown]
# ### Exercise 23.6: Find the transposed matrices
#
# *Difficulty 5 of 5 · 40 minutes · 5 points*
#
# Somebody converted a checkpoint and transposed *some* of its square matrices, nobody knows which.
# There is a recording of the right model. You get `arrays` (name to array), a function
# `trace(arrays)` that runs the network and returns the residual stream $(T,C)$ after the tables and
# after each block, a list of $L+1$ arrays, and `wanted`, the same list from the right model. Return
# the set of names to be transposed. In this network the MLP is as wide as the stream, so a block
# has *two* square matrices, `h.i.attn.c_proj.weight` and `h.i.mlp.c_fc.weight`; the position table
# `wpe.weight` is square if $T=C$. You may call `trace` at most $4(L+1)+2$ times. Do not change
# `arrays`.
#
# <details><summary>Hint 1</summary>
#
# Trying all subsets of $n$ matrices is $2^n$ calls. But a block cannot change what was before it:
# the first place that differs from the recording names the block.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Go through the places in their order. At each, try the subsets of *its* square matrices, at most
# four, with everything before repaired, and keep the one that agrees.
#
# </details>
#
# <details><summary>Hint 3</summary>
#
# Agree up to rounding: compare with a tolerance. In a right place the empty subset agrees at once,
# and costs one call.
#
# </details>


# %% exercise="23.6" role="stub"
def find_transposed(arrays, trace, wanted):
    """Names of the square matrices in arrays that must be transposed. -> a set of str.

    trace(arrays) -> the stream after the tables and after each block, L + 1 arrays (T, C).
    wanted: what it should be.
    """
    raise NotImplementedError


# %% exercise="23.6" role="check"
def toy_gpt(seed, L, C, T):
    """Random arrays of a network of L blocks without attention's details, and its trace."""
    r = np.random.default_rng(seed)
    arrays = {"wte.weight": r.normal(size=(9, C)), "wpe.weight": r.normal(size=(T, C))}
    for i in range(L):
        for name, shape in (("attn.c_attn", (C, 3 * C)), ("attn.c_proj", (C, C)),
                            ("mlp.c_fc", (C, C)), ("mlp.c_proj", (C + 1, C))):
            arrays[f"h.{i}.{name}.weight"] = r.normal(size=shape) / C**0.5
    idx = r.integers(0, 9, T)

    def trace(arrays):
        trace.calls += 1
        x = arrays["wte.weight"][idx] + arrays["wpe.weight"]
        seen = [x]
        for i in range(L):
            q, k, v = np.split(x @ arrays[f"h.{i}.attn.c_attn.weight"], 3, axis=1)
            e = np.tril(np.exp(np.tanh(q @ k.T)))
            x = x + np.tanh(e @ v / e.sum(1, keepdims=True)) @ arrays[f"h.{i}.attn.c_proj.weight"]
            up = np.column_stack([np.tanh(x @ arrays[f"h.{i}.mlp.c_fc.weight"]), np.ones(T)])
            x = x + up @ arrays[f"h.{i}.mlp.c_proj.weight"]
            seen.append(x)
        return seen

    trace.calls = 0
    return arrays, trace


def spoil_and_find(find_transposed, names, seed=0, L=5, C=6, T=4):
    """Transpose these, and see whether they are found, within the calls allowed."""
    arrays, trace = toy_gpt(seed, L, C, T)
    wanted = trace(arrays)
    spoilt = {k: a.T.copy() if k in names else a for k, a in arrays.items()}
    kept, trace.calls = {k: a.copy() for k, a in spoilt.items()}, 0
    found = find_transposed(spoilt, trace, wanted)
    assert trace.calls <= 4 * (L + 1) + 2, f"trace was called {trace.calls} times: too often"
    assert all((spoilt[k] == kept[k]).all() for k in kept), "arrays was changed"
    assert set(found) == set(names), f"{len(set(names) - set(found))} missed, " \
                                     f"{len(set(found) - set(names))} wrongly accused"


def check_23_6(find_transposed):
    """None, one, and several in different blocks."""
    spoil_and_find(find_transposed, [])
    spoil_and_find(find_transposed, ["h.3.attn.c_proj.weight"], seed=1)
    spoil_and_find(find_transposed, ["h.0.mlp.c_fc.weight", "h.4.attn.c_proj.weight"], seed=2)


attempt(check_23_6, find_transposed)

# %% [markdown]
# ## What was checked
#
# | equation or claim | check | bound |
# |---|---|---|
# | (23.2) the whole file by hand | `a_file_of_88_bytes` | <= 0 |
# | (23.1) rows or columns | `rows_or_columns` | <= 1e-12 |
# | the format's own library reads it | `the_library_reads_it_too` | <= 0 |
# | (23.3), (23.4) one map, two layers and files | `conv_is_a_linear_transposed` | <= 1e-12 |
# | (23.5) a transposed square matrix | `transposed_is_unrelated` | <= 0.05 |
# | of the same numbers and norm | `no_statistic_notices` | <= 1e-12 |
# | (23.6) place of query, key and value channels | `columns_of_c_attn` | <= 0 |
# | (23.7) blocks that stay by chance | `two_or_three_blocks_stay` | <= 0 |
# | (23.8) queries and keys exchanged | `swapped_scores_are_transposed` | <= 1e-12 |
# | (23.9) the output is a sum over heads | `heads_add_up` | <= 1e-12 |
# | (23.9) heads may change places | `heads_may_change_places` | <= 1e-12 |
# | only with their rows of c_proj | `but_not_their_columns_alone` | >= 0.1 |
# | (23.10) GELUs and their difference | `gelus_differ_by_an_even_function` | <= 1e-12 |
# | (23.11) the leading term | `fourth_order_near_zero` | <= 0.0001 |
# | (23.12) largest differences, and where | `largest_difference_of_gelus` | <= 0.001 |
# | the package has both GELUs | `package_has_both` | <= 1e-12 |
# | (23.13) another epsilon, exactly | `another_epsilon` | <= 1e-12 |
# | (23.13) to first order | `epsilon_to_first_order` | <= 1 |
# | (23.14) in a fresh network | `in_a_fresh_stream` | <= 0.05 |
# | (23.15) a tied gradient is a sum | `tied_gradient_is_a_sum` | <= 1e-12 |
# | two equal tables compute the same | `untied_computes_the_same` | <= 1e-12 |
# | (23.16) rows of the head's part | `rows_of_the_head_sum_to_zero` | <= 1e-12 |
# | rows of absent tokens | `embedding_part_only_where_a_token_occurs` | <= 0 |
# | the head's part is in every row | `head_part_everywhere` | >= 0.001 |
# | after one step two tables differ | `one_step_parts_the_tables` | >= 0.05 |
# | (23.17) length of the header | `header_length` | <= 0 |
# | (23.18) bytes by type and shape | `length_is_said_twice` | <= 0 |
# | (23.19) arrays tile the file | `arrays_tile_the_file` | <= 0 |
# | (23.20) size of the file | `size_of_the_file` | <= 0 |
# | (23.21) one number alone | `one_number_alone` | <= 0 |
# | (23.22) headers are filled up | `header_is_filled_up` | <= 0 |
# | (23.23) what cutting to bfloat16 loses | `bfloat16_cuts_less_than_one_part_in_128` | <= 1 |
# | the bound is sharp | `and_nearly_that_much` | >= 0.9 |
# | the largest float16 | `float16_ends_at_65504` | <= 0 |
# | reading bfloat16 is exact | `widening_is_exact` | <= 0 |
# | files that lie | `every_lie_is_refused` | <= 0 |
# | megabytes used for that | `and_none_is_believed_first` | <= 3 |
# | the honest file | `the_truth_is_not` | <= 0 |
# | (23.24) the count, on models | `count_by_formula` | <= 0 |
# | (23.25) GPT-2's | `gpt2_has_124_439_808` | <= 0 |
# | (23.26) bytes of the published file | `published_bytes` | <= 0 |
# | shares of table and masks | `a_table_of_28_percent_and_masks_of_9` | <= 0.005 |
# | the rest is a header | `what_is_left_is_a_header` | <= 0.01 |
# | (23.24) four sizes | `all_four_sizes` | <= 0 |
# | GPT-1's count | `gpt1_rounds_to_117_million` | <= 0 |
# | 117M is not GPT-2's, in millions | `the_small_one_is_off_by_millions` | >= 7 |
# | (23.27) bytes of shards | `bytes_of_shards` | <= 0 |
# | shards give the same model | `shards_are_the_same_model` | <= 0 |
# | a contradicting index, characters of the answer | `a_wrong_index_is_refused` | >= 20 |
# | (23.28) count of a Llama | `count_of_a_llama` | <= 0 |
# | (23.29) width of SwiGLU | `width_of_swiglu` | <= 0.0001 |
# | (23.30) numbers kept for a token | `numbers_kept_per_token` | <= 0 |
# | (23.31) halves and pairs | `halves_of_permuted_channels_are_pairs` | <= 1e-12 |
# | (23.31) the scores | `scores_do_not_change` | <= 1e-12 |
# | one read as the other | `unpermuted_they_do` | >= 0.1 |
# | our reader and the library | `read_as_the_library_reads` | <= 0 |
# | names and shapes of the reference's file | `names_and_shapes_of_the_recorded_file` | <= 0 |
# | the package's parameters are its numbers | `the_package_holds_the_same_numbers` | <= 0 |
# | (23.32) by hand against transformers | `by_hand_is_the_reference` | <= 1e-12 |
# | (23.32) by hand against the package | `by_hand_is_the_package` | <= 1e-12 |
# | settings and arrays that do not fit | `what_would_change_the_result_is_refused` | <= 0 |
# | what is no weight | `masks_and_a_copied_head_change_nothing` | <= 0 |
# | a head of its own | `a_head_that_differs_is_kept` | <= 1e-12 |
# | six numbers of heads load | `every_divisor_of_c_loads` | <= 0 |
# | one is right | `one_of_them_is_right` | <= 1e-12 |
# | five are not | `the_others_are_not` | >= 0.05 |
# | (23.33) size of a llama2.c file | `size_of_a_llama2c_file` | <= 0 |
# | Llama by hand, through the file | `llama_by_hand_is_the_package` | <= 1e-12 |
# | which heads share keys | `heads_of_a_group_stand_together` | >= 0.05 |
# | a wrong order loads too | `gate_and_value_exchanged_load_too` | >= 0.05 |
# | (23.15) package, composed, differences, complex step | `tied_vjp` | <= 1e-09 |
# | the recorded loss | `loss_of_the_reference` | <= 1e-12 |
# | 28 recorded gradients | `every_gradient_of_the_reference` | <= 1e-09 |
# | (23.32) by hand, complex step | `complex_step_through_the_network` | <= 1e-09 |
# | (23.15) the recorded gradient of wte | `recorded_gradient_is_the_sum` | <= 1e-09 |
# | (23.16) and its row sum | `row_sum_of_the_recorded_gradient` | <= 1e-09 |
# | one part of two | `either_part_alone_is_wrong` | >= 0.05 |
# | four wrong VJPs | `wrong_vjps_are_seen` | >= 0.05 |
# | ones cannot see the order of rows | `ones_cannot_see_an_order` | <= 1e-12 |
# | parity of logits, float64 | `logits_in_float64` | <= 1e-09 |
# | parity of logits, float32 | `logits_in_float32` | <= 0.0001 |
# | parity of gradients, float32 | `gradients_in_float32` | <= 0.0001 |
# | the trace ends in the model's logits | `trace_is_the_model` | <= 0 |
# | (23.32) every place of 12 blocks, float32 | `every_place_in_float32` | <= 1e-05 |
# | (23.32) every place of 12 blocks, float64 | `every_place_in_float64` | <= 1e-13 |
# | rounding grows | `rounding_grows_with_depth` | >= 1.5 |
# | there and back | `there_and_back_bit_for_bit` | <= 0 |
# | loud mistakes, nats per character | `loud_mistakes_cost_tenths_of_a_nat` | >= 0.1 |
# | quiet mistakes | `quiet_ones_cost_nothing` | <= 0.001 |
# | bfloat16 weights | `no_loss_shows_bfloat16` | <= 0.01 |
# | one transposed block, as a share of both | `one_transposed_block_can_hide` | <= 0.5 |
# | every mistake against float32's rounding | `but_parity_sees_every_one` | >= 50 |
# | S4's file before (S4:735) | `before_it_is_four_bytes_a_parameter` | <= 0.001 |
# | its growth (S4:756) | `it_grows_by_one_byte_an_entry` | <= 0.001 |
# | GPT-2's, in MB | `gpt2_would_grow_too` | <= 0.1 |
# | a pickle is a program (S3:180) | `a_pickle_names_a_function_and_calls_it` | >= 2 |
# | settings that are not saved (S3:201) | `five_of_six_heads_were_wrong` | >= 0.05 |
# | what names the architecture (S1:44) | `the_config_names_the_architecture` | >= 1 |
# | another one is refused | `another_family_is_refused` | >= 1 |
# | a diagram of one block (S4:1057) | `arrays_without_a_place` | >= 138 |
# | by parameters | `most_parameters_have_no_place` | >= 0.6 |
# | by nats per character | `as_drawn_it_is_another_function` | >= 0.5 |
# | the last linear layer (S3:190) | `the_head_has_no_array` | <= 0 |
# | feed-forward networks | `a_feed_forward_network_a_block` | <= 0 |
# | a count that counts the table twice | `counted_twice_it_is_163_million` | <= 0 |
# | the package counts it once | `the_package_counts_a_tied_head_once` | <= 0 |
# | (23.24) GPT-3's (S4:23) | `gpt3_has_175_billion` | <= 0.0001 |
# | its gigabytes | `and_would_fill_349_gigabytes` | >= 349 |
#
# **Not checked:** trained GPT-2 weights, which are read only if you have them; that the published
# file has the size that is quoted, and the masks that explain it; the two sizes of S4's quantised
# file, which were measured once with `transformers` and PyTorch; a header in which a name stands
# twice; other families' files, GPT-NeoX's and Llama's in the format of `transformers`; and what the
# cited papers and notes say.
