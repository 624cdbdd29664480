# %% [markdown]
# # 11 · Normalisation: layer norm's backward pass
#
# ## Question
#
# What does layer norm take away from an activation, and what does its backward pass therefore
# take away from a gradient?
#
# - **Read before:** [03](03_softmax_cross_entropy.ipynb) (what a VJP is), the chain rule
# - **Package file:** `minigpt/functional.py` (`layer_norm`), `minigpt/variants/norms.py`
# - **Minutes:** 60 to read, 75 for the exercises
# - **Runs in:** under 45 seconds on one core

# %% role="setup"
import inspect
import math

import numpy as np

from minigpt import data, ops, reference
from minigpt import functional as F
from minigpt.attention import causal_self_attention
from minigpt.drawing import BLUE, GREEN, GREY, PURPLE, RED, YELLOW, plt, save_figure, style
from minigpt.lab import (
    attempt,
    central_differences,
    check,
    complex_step,
    rel_error,
    show_table,
    witnesses,
)
from minigpt.nn import Embedding, LayerNorm, Linear, Module
from minigpt.optim import SGD, AdamW
from minigpt.tensor import Tensor, no_grad
from minigpt.tokenizer import CharTokenizer
from minigpt.variants.norms import rms_norm

style()
rng = np.random.default_rng(11)

# %% [markdown]
# ## Intuition
#
# Take one row of four numbers, $x=(0,2,2,8)$. Its mean is $3$. Subtract it: $(-3,-1,-1,5)$. The
# mean of the squares of these is $(9+1+1+25)/4=9$, so the standard deviation is $3$. Divide by
# it:
#
# $$\hat x=\left(-1,\ -\tfrac13,\ -\tfrac13,\ \tfrac53\right). \tag{11.1}$$
#
# Two facts about $x$ are gone: where it was (its mean), and how large it was (its deviation).
# Only its *shape* is left. The row $(100,102,102,108)$ gives the same four numbers, and so does
# $(0,20,20,80)$.
#
# So there are two directions in which we can push $x$ without moving $\hat x$ at all: adding the
# same number everywhere, and stretching it away from its mean. A gradient in $x$ can have no
# component along either: nothing would change, so there is nothing to gain. Suppose the loss is
# simply the last output, so the incoming cotangent is $g=(0,0,0,1)$. What comes back is
#
# $$dx=\left(\tfrac1{18},\ -\tfrac1{27},\ -\tfrac1{27},\ \tfrac1{54}\right), \tag{11.2}$$
#
# which sums to $\frac{3-2-2+1}{54}=0$ and has inner product $\frac{-9+2+2+5}{54}=0$ with
# $(-3,-1,-1,5)$. Note the sign of the first entry: to raise the *last* output it helps to raise
# the *first*, lowest input. That shrinks the deviation, by which everything is divided.


# %%
def rows_normalised(x, eps=0.0):
    """Each row of x (..., C) with mean 0 and variance 1 -> (..., C)."""
    c = x - x.mean(-1, keepdims=True)
    return c / np.sqrt((c * c).mean(-1, keepdims=True) + eps)


row = np.array([0.0, 2.0, 2.0, 8.0])
check("four_numbers", rel_error(rows_normalised(row), [-1, -1 / 3, -1 / 3, 5 / 3]), at_most=1e-14)
slope = central_differences(lambda x: rows_normalised(x)[3], row)
print("d(last output)/dx * 54 =", (54 * slope).round(6))
check("four_slopes", rel_error(slope, [1 / 18, -1 / 27, -1 / 27, 1 / 54]), at_most=1e-9)
same = [rows_normalised(100 + row), rows_normalised(10 * row)]
check("same_shape", [rel_error(z, rows_normalised(row)) for z in same], at_most=1e-14)

# %% [markdown]
# The same in a picture, for $C=3$ channels. Centring projects $x$ onto the plane at right angles
# to $\mathbf 1=(1,1,1)$. Dividing by the deviation moves the centred point, along its ray, onto a
# circle of radius $\sqrt3$. What a gradient may do is move $\hat x$ *along the circle*. Its part
# along $\mathbf 1$ and its part along the ray are cut off. (The arrow $g$ is drawn after the
# first cut, for a gain of 1.)


# %%
def draw_space(ax, x, e1, e2):
    """Left panel: x, its projection onto the plane, the circle."""
    turn = np.linspace(0, 2 * np.pi, 200)[:, None]
    circle = 3**0.5 * (np.cos(turn) * e1 + np.sin(turn) * e2)
    square = 3.1 * np.array([e1 + e2, e2 - e1, -e1 - e2, e1 - e2, e1 + e2])
    ax.plot(*square.T, color=GREY, lw=1)
    ax.plot(*circle.T, color=GREEN)
    up = np.array([np.zeros(3), 2.0 * np.ones(3)])
    ax.plot(*up.T, color=GREY, ls="--", lw=1.5)
    c = x - x.mean()
    for a, b, colour in ((x, c, RED), (np.zeros(3), c, BLUE)):
        ax.plot(*np.array([a, b]).T, color=colour)
    for name, p, colour, shift in (
        ("$x$", x, RED, (0, 0, 0.3)),
        ("$x-$mean", c, BLUE, (-1.25, 0, 0.2)),
        (r"$\hat x$", rows_normalised(x), GREEN, (-0.5, 0, 0.15)),
    ):
        ax.scatter(*p, color=colour, s=45, depthshade=False)
        ax.text(*(p + shift), name, color=colour, ha="center")
    ax.text(*(up[1] + 0.15), r"$\mathbf{1}$", color=GREY)
    ax.set(xticks=[], yticks=[], zticks=[])
    ax.set_axis_off()
    ax.view_init(elev=22, azim=100)
    ax.set_box_aspect((1, 1, 1), zoom=1.3)


# %%
def draw_plane(ax, x, g, e1, e2):
    """Right panel: in the plane, what a cotangent loses and what is left."""
    flat = np.stack([e1, e2], 1)  # (3, 2)
    c, z, push = (x - x.mean()) @ flat, rows_normalised(x) @ flat, g @ flat
    ray = z / np.linalg.norm(z)
    along = push - ray * (ray @ push)
    ax.add_patch(plt.Circle((0, 0), 3**0.5, fill=False, color=GREEN, lw=2))
    ax.plot(*np.array([(0, 0), 1.25 * c]).T, color=BLUE, lw=1, ls="--")

    def arrow(start, step, colour):
        ax.annotate("", start + step, start, arrowprops={
            "arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0})

    arrow(z, push, PURPLE)
    arrow(z, along, RED)
    arrow(c, along * 3**0.5 / np.linalg.norm(c), RED)
    ax.plot(*np.array([z + push, z + along]).T, color=GREY, ls=":")
    ax.plot(*c, "o", color=BLUE)
    ax.plot(*z, "o", color=GREEN)
    ax.text(*(z + (-0.35, -0.35)), r"$\hat x$", color=GREEN)
    ax.text(*(c + (0.1, -0.4)), "$x-$mean", color=BLUE)
    ax.text(*(z + push + (0, 0.12)), "$g$ in the plane", color=PURPLE, ha="center")
    ax.text(*(z + along + (-0.12, 0.05)), "what is left", color=RED, ha="right")
    ax.text(*(c + (0.1, 0.6)), "$dx$: the same,\nshrunk by rstd", color=RED, size=11)
    ax.set(xlim=(-2.2, 5.2), ylim=(-2.1, 3.4), aspect="equal", xticks=[], yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)


# %%
e1, e2 = np.array([1, -1, 0]) / 2**0.5, np.array([-1, -1, 2]) / 6**0.5  # a basis of the plane
point = 2.9 * e1 + 1.1 * e2 + 1.9 * np.ones(3)
fig = plt.figure(figsize=(9.5, 4.2))
left, right = fig.add_subplot(1, 2, 1, projection="3d"), fig.add_subplot(1, 2, 2)
draw_space(left, point, e1, e2)
draw_plane(right, point, 0.4 * e1 + 2.1 * e2, e1, e2)
left.set_title("Forward: onto the plane, then onto the circle")
right.set_title("Backward: only the tangent comes back")
save_figure(fig, "11_projections.svg")
plt.show()

# %% [markdown]
# ## Derivation
#
# ### What is computed
#
# One row at a time: $x\in\mathbb R^C$ has $C$ channels, and $i,j,k$ run over them.
# $w,b\in\mathbb R^C$ are the gain and the offset, and $\varepsilon\ge0$ is a small constant. In
# this order:
#
# $$\begin{aligned}
# m&=\frac1C\sum_k x_k, & c_i&=x_i-m, & v&=\frac1C\sum_k c_k^2,\\
# r&=(v+\varepsilon)^{-1/2}, & \hat x_i&=c_i\,r, & y_i&=w_i\hat x_i+b_i .
# \end{aligned}$$
#
# $m$ (mean), $v$ (variance) and $r$ (`rstd`, one over the standard deviation) are one number a
# row. $c$ (the centred row), $\hat x$ (`xhat`) and $y$ (the output) have shape $(C)$. A whole
# activation has shape $(\dots,C)$. Its rows never meet, so we derive for one row and add the
# leading axes at the end. This is Ba, Kiros and Hinton's layer norm (2016, arXiv:1607.06450).
#
# Two sums follow at once. $\sum_i c_i=\sum_i x_i-Cm=0$, and $\sum_i c_i^2=Cv$ by the definition
# of $v$. Multiply by $r$ and by $r^2=1/(v+\varepsilon)$:
#
# $$\sum_i\hat x_i=0, \tag{11.3}$$
#
# $$\lvert\hat x\rvert^2=\sum_i\hat x_i^2=C\,\frac{v}{v+\varepsilon}. \tag{11.4}$$
#
# With $\varepsilon=0$ every $\hat x$ lies on a sphere of radius $\sqrt C$. With $\varepsilon>0$
# it lies inside it, and a row whose variance is far below $\varepsilon$ lies near the centre.

# %%
eps = 0.1  # large, so that what it changes can be seen
x = rng.normal(size=(50, 6)) * 10.0 ** rng.uniform(-2, 2, (50, 1))  # rows of very unlike sizes
xhat = rows_normalised(x, eps)
check("xhat_sums_to_zero", np.abs(xhat.sum(-1)), at_most=1e-12)
length = 6 * x.var(-1) / (x.var(-1) + eps)
check("xhat_squared_length", np.abs((xhat**2).sum(-1) / length - 1), at_most=1e-12)
ends = np.sqrt([length.min(), length.max(), 6])
print("shortest xhat {:.4f}, longest {:.4f}, sqrt(6) = {:.4f}".format(*ends))

# %% [markdown]
# ### First way: index by index
#
# We need $\partial\hat x_i/\partial x_j$, a $(C,C)$ matrix. Write $\delta_{ij}$ for $1$ if $i=j$,
# else $0$, so $\partial x_i/\partial x_j=\delta_{ij}$. Go through the definitions in their order.
#
# **The mean.** Of the sum over $k$ only $k=j$ depends on $x_j$. The centred row has its own $x_i$
# besides:
#
# $$\frac{\partial m}{\partial x_j}=\frac1C\sum_k\delta_{kj}=\frac1C,\qquad
# \frac{\partial c_i}{\partial x_j}=\delta_{ij}-\frac1C. \tag{11.5}$$
#
# **The variance.** By the chain rule through every $c_k$. The mean moves too, but its term has
# the factor $\sum_kc_k=0$ and drops out:
#
# $$\frac{\partial v}{\partial x_j}=\frac2C\sum_k c_k\left(\delta_{kj}-\frac1C\right)
# =\frac2C\,c_j-\frac2{C^2}\sum_kc_k=\frac2C\,c_j. \tag{11.6}$$
#
# **One over the deviation.** $dr/dv=-\frac12(v+\varepsilon)^{-3/2}=-\frac12r^3$. Times (11.6),
# and with $c_j\,r=\hat x_j$:
#
# $$\frac{\partial r}{\partial x_j}=-\frac12\,r^3\cdot\frac2C\,c_j=-\frac{r^2\,\hat x_j}{C}.
# \tag{11.7}$$
#
# **The normalised row.** The product rule on $\hat x_i=c_i\,r$ takes (11.5) and (11.7), and
# $c_i\,r^2=\hat x_i\,r$:
#
# $$\frac{\partial\hat x_i}{\partial x_j}
# =\left(\delta_{ij}-\frac1C\right)r-c_i\,\frac{r^2\hat x_j}{C}
# =r\left(\delta_{ij}-\frac1C-\frac{\hat x_i\hat x_j}{C}\right). \tag{11.8}$$
#
# No step assumed $\varepsilon=0$: (11.8) is exact for every $\varepsilon$, with the $\hat x$ and
# $r$ that contain it. Each step is checked below by a complex step, which has no truncation
# error: perturb $x_j$ by $10^{-30}\mathrm i$ and read off the imaginary part.


# %%
def jacobian(f, x):
    """d f(x)_i / d x_j by complex steps. x (C,), f(x) (n,) -> (n, C)."""
    rows = range(len(f(x)))
    return np.stack([complex_step(lambda z, i=i: f(z)[i], x) for i in rows])


def steps(x, eps=eps):
    """mean (1,), c (C,), variance (1,), rstd (1,), xhat (C,) of one row."""
    m = x.mean(keepdims=True)
    c = x - m
    v = (c * c).mean(keepdims=True)  # not np.var, which takes |c|**2 of complex numbers
    return m, c, v, (v + eps) ** -0.5, c * (v + eps) ** -0.5


C = 6
x = rng.normal(size=C) * 0.5 + 3
m, c, v, r, xhat = steps(x)
numeric = [jacobian(lambda z, i=i: steps(z)[i], x) for i in range(5)]
eye, ones = np.eye(C), np.ones(C)
check("d_mean", rel_error(numeric[0], np.full((1, C), 1 / C)), at_most=1e-12)
check("d_centred", rel_error(numeric[1], eye - 1 / C), at_most=1e-12)
check("d_var", rel_error(numeric[2], 2 * c[None] / C), at_most=1e-12)
check("d_rstd", rel_error(numeric[3], -(r**2) * xhat[None] / C), at_most=1e-12)
J = r * (eye - 1 / C - np.outer(xhat, xhat) / C)  # (C, C)
check("d_xhat", rel_error(numeric[4], J), at_most=1e-12)

# %% [markdown]
# ### From the Jacobian to the VJP
#
# The incoming cotangent $g\in\mathbb R^C$ is $\partial L/\partial y$ for a loss $L$. The gain
# multiplies each channel, so what reaches $\hat x$ is $\partial L/\partial\hat x_i=g_iw_i$. Call
# it $h_i$ (`gw`). The chain rule sums over all outputs $i$ that $x_j$ can reach, and it reaches
# all of them:
#
# $$dx_j=\sum_ih_i\frac{\partial\hat x_i}{\partial x_j}
# =r\left(h_j-\frac1C\sum_ih_i-\hat x_j\,\frac1C\sum_ih_i\hat x_i\right),\qquad h_i=g_iw_i.
# \tag{11.9}$$
#
# In arrays, for $x$ and $g$ of shape $(\dots,C)$, with means over the last axis that keep it as
# length 1:
#
# $$dx=\mathrm{rstd}\odot\left(\mathrm{gw}-\mathrm{mean}(\mathrm{gw})
# -\hat x\odot\mathrm{mean}(\mathrm{gw}\odot\hat x)\right),\qquad\mathrm{gw}=g\odot w. \tag{11.10}$$
#
# The matrix $J$ is never built. Two means a row do the work of $C^2$ entries.

# %%
w, g = rng.normal(size=(2, C))
gw = g * w
numeric = complex_step(lambda z: (g * w * steps(z)[4]).sum(), x)
index_form = [r[0] * (gw[j] - gw.sum() / C - xhat[j] * (gw * xhat).sum() / C) for j in range(C)]
check("vjp_index_form", rel_error(index_form, numeric), at_most=1e-12)
xs, gs = rng.normal(size=(2, 3, 4, C))  # (B, T, C)
numeric = complex_step(lambda z: (gs * w * rows_normalised(z, eps)).sum(), xs)
zs, rs, hs = rows_normalised(xs, eps), (xs.var(-1, keepdims=True) + eps) ** -0.5, gs * w
array_form = rs * (hs - hs.mean(-1, keepdims=True) - zs * (hs * zs).mean(-1, keepdims=True))
check("vjp_array_form", rel_error(array_form, numeric), at_most=1e-12)

# %% [markdown]
# ### Second way: two projections
#
# The same result without an index, and this time we see *why*. Let $\mathbf 1\in\mathbb R^C$ be
# all ones, $I$ the $(C,C)$ identity. Centring is multiplication by the matrix
# $P_{\mathbf 1}=I-\mathbf 1\mathbf 1^\top/C$, which subtracts from a row its component along
# $\mathbf 1$: the orthogonal projection onto the plane that is at right angles to $\mathbf 1$. So
# $c=P_{\mathbf 1}x$.
#
# Dividing by a length is the other half. Let $u=c/\lvert c\rvert$. From
# $\lvert c\rvert^2=\sum_kc_k^2$ we get
# $\partial\lvert c\rvert/\partial c_j=c_j/\lvert c\rvert=u_j$, and the quotient rule gives
#
# $$\frac{\partial u}{\partial c}=\frac1{\lvert c\rvert}\left(I-uu^\top\right). \tag{11.11}$$
#
# This is the projection out of $u$, over the length: a unit vector can only turn. For
# $\varepsilon=0$, $\hat x=\sqrt C\,u$ and $r=\sqrt C/\lvert c\rvert$. Chain the two, and use
# $u^\top P_{\mathbf 1}=u^\top$ (the vector $u$ lies in the plane already):
#
# $$J=\frac{\partial\hat x}{\partial x}=r\left(I-uu^\top\right)P_{\mathbf 1}
# =r\left(I-\frac{\mathbf 1\mathbf 1^\top}C-\frac{\hat x\hat x^\top}C\right)\quad(\varepsilon=0).
# \tag{11.12}$$
#
# The bracket subtracts the components along two orthogonal unit vectors, $\mathbf 1/\sqrt C$ and
# $\hat x/\sqrt C$. So it is an orthogonal projection, onto the $C-2$ directions that are left:
#
# $$\left(J/r\right)^2=J/r\quad(\varepsilon=0). \tag{11.13}$$
#
# **What $\varepsilon$ changes.** By (11.8) the formula on the right of (11.12) stays, but
# $\hat x$ is shorter than $\sqrt C$. With $\hat x\hat x^\top=\lvert\hat x\rvert^2uu^\top$ and
# (11.4):
#
# $$J=r\left(I-\frac{\mathbf 1\mathbf 1^\top}C-s\,uu^\top\right),\qquad
# s=\frac{\lvert\hat x\rvert^2}C=\frac v{v+\varepsilon}. \tag{11.14}$$
#
# Exactly the share $s<1$ of the component along $u$ is removed, and the projection out of
# $\mathbf 1$ is complete for every $\varepsilon$. In a network $v\approx1$ and
# $\varepsilon=10^{-5}$, so $s\approx0.99999$. For a row that hardly varies, $v\ll\varepsilon$,
# layer norm is no longer a normalisation: it is centring, times the constant
# $1/\sqrt\varepsilon$.

# %%
u = c / np.linalg.norm(c)
turning = jacobian(lambda z: z / (z * z).sum() ** 0.5, c)
check("unit_vector", rel_error(turning, (eye - np.outer(u, u)) / np.linalg.norm(c)), at_most=1e-12)
P1 = eye - np.outer(ones, ones) / C
r0, xhat0 = steps(x, 0.0)[3], steps(x, 0.0)[4]
J0 = jacobian(lambda z: steps(z, 0.0)[4], x)
check("two_projections", [
    rel_error(J0, r0 * (eye - np.outer(u, u)) @ P1),
    rel_error(J0, r0 * (eye - 1 / C - np.outer(xhat0, xhat0) / C))], at_most=1e-12)
check("is_a_projection", rel_error(J0 / r0 @ J0 / r0, J0 / r0), at_most=1e-12)
s = v / (v + eps)
numeric = jacobian(lambda z: steps(z)[4], x)
check("eps_removes_a_share", rel_error(numeric, r * (P1 - s * np.outer(u, u))), at_most=1e-12)
check("eps_breaks_the_projection", rel_error(J / r @ J / r, J / r), at_least=0.05)

# %% [markdown]
# ### What the Jacobian tells
#
# **It is symmetric, and it kills constants.** Every term of (11.14) is symmetric. And
# $J\mathbf 1=r(\mathbf 1-\mathbf 1-s\,u\,(u^\top\mathbf 1))=0$, because $u$ sums to zero. By
# symmetry $\mathbf 1^\top J=0$ as well, so every gradient that layer norm sends back sums to
# zero, for every $\varepsilon$:
#
# $$J=J^\top,\qquad J\mathbf 1=0,\qquad\sum_jdx_j=\mathbf 1^\top J\,h=0. \tag{11.15}$$
#
# **It nearly kills $\hat x$.** From (11.14) $Ju=r(1-s)u$, with
# $1-s=\varepsilon/(v+\varepsilon)=\varepsilon r^2$:
#
# $$J\,\hat x=\varepsilon\,r^3\,\hat x. \tag{11.16}$$
#
# **Its eigenvalues** are therefore known. $\mathbf 1$ and $u$ are two eigenvectors, and on
# everything at right angles to both $J$ acts as multiplication by $r$:
#
# $$\mathrm{spectrum}(J)=\{\,0,\ \varepsilon r^3,\ \underbrace{r,\dots,r}_{C-2}\,\}. \tag{11.17}$$
#
# Two zeros (for $\varepsilon\to0$), and the rest equal. Layer norm has no preferred direction
# among the $C-2$ that it lets through. With two channels none is left: $\hat x$ is $(1,-1)$ or
# $(-1,1)$, and only $\varepsilon$ lets a trace of gradient pass.

# %%
check("symmetric", rel_error(numeric, numeric.T), at_most=1e-12)
check("constants_are_killed", np.abs(numeric @ ones) / np.abs(numeric).max(), at_most=1e-12)
check("dx_sums_to_zero", np.abs(array_form.sum(-1)) / np.abs(array_form).sum(-1), at_most=1e-12)
check("xhat_is_an_eigenvector", rel_error(numeric @ xhat, eps * r**3 * xhat), at_most=1e-12)
spectrum = np.linalg.eigvalsh((numeric + numeric.T) / 2)
print("eigenvalues", spectrum.round(4), "; rstd, eps rstd^3:", r.round(4), (eps * r**3).round(4))
expected = np.concatenate([[0.0], eps * r**3, np.repeat(r, C - 2)])
check("spectrum", rel_error(spectrum, expected), at_most=1e-12)
pair = jacobian(lambda z: steps(z, 1e-5)[4], np.array([0.3, 1.7]))
check("two_channels_pass_nothing", np.abs(pair), at_most=1e-4)

# %% [markdown]
# **What it does not see.** Replace $x$ by $ax+\beta\mathbf 1$ with numbers $a>0$ and $\beta$. The
# centred row becomes $ac$, the variance $a^2v$, and
# $ac/\sqrt{a^2v+\varepsilon}=c/\sqrt{v+\varepsilon/a^2}$. Let $\mathrm{N}_\varepsilon(x)=\hat x$
# stand for the normalisation with its $\varepsilon$. Then exactly
#
# $$\mathrm N_\varepsilon(ax+\beta\mathbf 1)=\mathrm N_{\varepsilon/a^2}(x). \tag{11.18}$$
#
# For $\varepsilon\to0$ that is $\mathrm N(ax+\beta\mathbf 1)=\mathrm N(x)$. Differentiate (11.18)
# in $x$: the left side gives a factor $a$. Let $J_\varepsilon(x)$ be the Jacobian at $x$:
#
# $$J_\varepsilon(ax+\beta\mathbf 1)=\frac1a\,J_{\varepsilon/a^2}(x). \tag{11.19}$$
#
# **Scaling the input by $a$ scales the gradient by $1/a$.** And what is invariant along a ray has
# no slope along it. With (11.16), for every $h$:
#
# $$\sum_j(x_j-m)\,dx_j=c^\top J\,h=\varepsilon\,r^3\sum_jc_jh_j. \tag{11.20}$$
#
# The gradient is orthogonal to the centred row, up to $\varepsilon$.

# %%
value_errors, slope_errors = [], []
for a, shift in ((5.0, 2.0), (0.01, -40.0), (300.0, 0.0)):
    moved, other = a * x + shift, eps / a**2
    value_errors.append(rel_error(steps(moved)[4], steps(x, other)[4]))
    slopes = jacobian(lambda z: steps(z)[4], moved)
    wanted = jacobian(lambda z, other=other: steps(z, other)[4], x) / a
    slope_errors.append(rel_error(slopes, wanted))
check("scale_and_shift", value_errors, at_most=1e-10)
check("scaled_input_scales_the_slope", slope_errors, at_most=1e-10)
dx = complex_step(lambda z: (gw * steps(z)[4]).sum(), x)
check("orthogonal_up_to_eps", rel_error([c @ dx], eps * r**3 * (c @ gw)), at_most=1e-10)
dx = complex_step(lambda z: (gw * steps(z, 1e-5)[4]).sum(), x)
check("orthogonal", abs(c @ dx) / np.linalg.norm(c) / np.linalg.norm(dx), at_most=1e-3)

# %% [markdown]
# **What that does to the weights in front.** Let $x=zW$ be a linear layer without an offset, with
# an input $z\in\mathbb R^n$ and weights $W\in\mathbb R^{n\times C}$. Scaling $W$ scales $x$, so
# the loss does not change, and $dW=z^\top dx$ has no component along $W$:
# $\langle W,dW\rangle=\sum_{ij}W_{ij}dW_{ij} =\sum_jx_jdx_j$, which is (11.20) because $dx$ sums
# to zero. A step of gradient descent with learning rate $\eta$ then makes $W$ longer, by
# Pythagoras:
#
# $$\lvert W-\eta\,dW\rvert^2=\lvert W\rvert^2+\eta^2\lvert dW\rvert^2\quad(\varepsilon\to0).
# \tag{11.21}$$
#
# And a longer $W$ has a smaller gradient, by (11.19). Too large a rate therefore corrects itself:
# the first step overshoots, $\lvert W\rvert$ grows, and every later step is smaller against it.
# Nothing of the kind holds without the normalisation. This is a prediction, and the second
# experiment tests it.


# %%
inputs, h3 = rng.normal(size=(4, 5)), rng.normal(size=(4, 7))  # four inputs z, and their h
W = rng.normal(size=(5, 7))


def slope_in_weights(W):
    """dW (5, 7) of a loss behind a linear layer and a normalisation."""
    return complex_step(lambda z: (h3 * rows_normalised(inputs @ z)).sum(), W)


dW = slope_in_weights(W)
length, longer = (W**2).sum(), ((W - 0.5 * dW) ** 2).sum()
print(f"|W|^2 {length:.3f}, after a step of 0.5: {longer:.3f}")
check("weights_grow", abs(longer / (length + 0.25 * (dW**2).sum()) - 1), at_most=1e-12)
check("longer_weights_learn_slower", rel_error(slope_in_weights(10 * W), dW / 10), at_most=1e-10)

# %% [markdown]
# ### Gain, offset, and $\varepsilon$
#
# $w$ and $b$ are shared by all rows. Let $n$ count the rows, so all arrays are $(N,C)$. From
# $y_{ni}=w_i\hat x_{ni}+b_i$ we have $\partial y_{ni}/\partial w_j=\delta_{ij}\hat x_{ni}$ and
# $\partial y_{ni}/\partial b_j=\delta_{ij}$. Sum over everything that the loss sees:
#
# $$dw_j=\sum_{n,i}g_{ni}\delta_{ij}\hat x_{ni}=\sum_ng_{nj}\hat x_{nj},\qquad db_j=\sum_ng_{nj}.
# \tag{11.22}$$
#
# Sums over all axes but the last: forgetting one and taking the mean is a common slip.
#
# $\varepsilon$ is not trained, but its derivative says how much it matters. It enters through $r$
# alone, $\partial r/\partial\varepsilon=-\frac12r^3$, so
# $\partial\hat x_{ni}/\partial\varepsilon=-\frac12r_n^3c_{ni} =-\frac12r_n^2\hat x_{ni}$, and
#
# $$\frac{\partial L}{\partial\varepsilon}=-\frac12\sum_nr_n^2\sum_ih_{ni}\hat x_{ni}. \tag{11.23}$$
#
# The inner sum is $C$ times a mean that the backward pass needs anyway. For $v\approx1$ and
# $\varepsilon=10^{-5}$ a change of $\varepsilon$ by all of itself moves an output by
# $5\cdot10^{-6}$ of it. For a row of variance $10^{-5}$ the factor $r^2$ is $50{,}000$, and
# $\varepsilon$ decides the result.

# %%
x2, g2 = rng.normal(size=(2, 5, C))
w2, b2 = rng.normal(size=(2, C))
z2 = rows_normalised(x2, eps)
dw = complex_step(lambda z: (g2 * (z * z2 + b2)).sum(), w2)
db = complex_step(lambda z: (g2 * (w2 * z2 + z)).sum(), b2)
check("gain_and_offset", [rel_error((g2 * z2).sum(0), dw), rel_error(g2.sum(0), db)], at_most=1e-12)
d_eps = complex_step(lambda z: (g2 * w2 * rows_normalised(x2, z[0])).sum(), [eps])[0]
r2 = (x2.var(-1) + eps) ** -0.5  # (N,)
check("slope_in_eps", abs(-0.5 * (r2**2 * (g2 * w2 * z2).sum(-1)).sum() / d_eps - 1), at_most=1e-12)
flat = 10**-2.5 * np.array([1.0, -1.0])  # a row of variance 1e-5
check("flat_row_rstd_squared", abs((flat.var() + 1e-5) ** -1 / 50_000 - 1), at_most=1e-9)
unit = np.array([1.0, -1.0])  # a row of variance 1
lost = 1 - rows_normalised(unit, 1e-5)[0] / rows_normalised(unit)[0]
check("eps_moves_an_output", abs(lost / 5e-6 - 1), at_most=1e-4)

# %% [markdown]
# ### RMS norm: one projection
#
# Zhang and Sennrich (2019, arXiv:1910.07467) leave out the centring: with $q=\frac1C\sum_kx_k^2$
# (the mean square) and $\rho=(q+\varepsilon)^{-1/2}$ (`rrms`), $\hat x=\rho x$ and
# $y=w\odot\hat x$, without offset. Now $\partial q/\partial x_j=\frac2Cx_j$ and
# $\partial\rho/\partial x_j=-\frac12\rho^3\frac2Cx_j =-\rho^2\hat x_j/C$, so the product rule
# gives
#
# $$\frac{\partial\hat x_i}{\partial x_j}=\rho\,\delta_{ij}-x_i\,\frac{\rho^2\hat x_j}C
# =\rho\left(\delta_{ij}-\frac{\hat x_i\hat x_j}C\right). \tag{11.24}$$
#
# This is (11.8) without its $1/C$: one projection instead of two, so $C-1$ directions pass. With
# $h=g\odot w$
#
# $$dx_j=\rho\left(h_j-\hat x_j\,\frac1C\sum_ih_i\hat x_i\right),\qquad
# dw_j=\sum_ng_{nj}\hat x_{nj}. \tag{11.25}$$
#
# It forgets the size and keeps the mean; its gradient need not sum to zero. On a row that is
# centred already the two agree, since then $q=v$. With $\mathrm R_\varepsilon$ for RMS norm
# without gain,
#
# $$\mathrm N_\varepsilon(x)=\mathrm R_\varepsilon(x-m). \tag{11.26}$$


# %%
def rms(x, eps=eps):
    """Each row of x (..., C) with mean square 1."""
    return x * ((x * x).mean(-1, keepdims=True) + eps) ** -0.5


rrms, z = ((x * x).mean() + eps) ** -0.5, rms(x)
J_rms = rrms * (eye - np.outer(z, z) / C)
check("rms_jacobian", rel_error(jacobian(rms, x), J_rms), at_most=1e-12)
numeric = complex_step(lambda z: (gw * rms(z)).sum(), x)
dx = rrms * (gw - z * (gw * z).mean())
check("rms_vjp", rel_error(dx, numeric), at_most=1e-12)
dw = complex_step(lambda w: (gs * w * rms(xs)).sum(), w)
check("rms_gain", rel_error((gs * rms(xs)).sum((0, 1)), dw), at_most=1e-12)
dx = complex_step(lambda z: (hs * rms(z)).sum(), xs)
check("rms_dx_has_a_sum", np.median(np.abs(dx.sum(-1)) / np.abs(dx).sum(-1)), at_least=0.1)
check("rms_of_centred", rel_error(rows_normalised(xs, eps), rms(xs - xs.mean(-1, keepdims=True))),
      at_most=1e-12)
spectrum = np.linalg.eigvalsh(J_rms)
print("eigenvalues:", spectrum.round(4), "  rrms:", round(rrms, 4))
check("rms_spectrum", np.abs(spectrum[1:] / rrms - 1), at_most=1e-12)

# %% [markdown]
# ### Batch norm: the same formula down the columns
#
# Ioffe and Szegedy (2015, arXiv:1502.03167) normalise each *channel* over the rows of the batch.
# For $x$ of shape $(N,C)$, the mean, variance and $r_i$ of channel $i$ are over $n$. Everything
# above holds with the roles of rows and channels exchanged, and $N$ in place of $C$. With $n,k$
# for rows:
#
# $$\frac{\partial\hat x_{ni}}{\partial x_{kj}}=\delta_{ij}\,r_i\left(\delta_{nk}-\frac1N
# -\frac{\hat x_{ni}\hat x_{ki}}N\right). \tag{11.27}$$
#
# $$dx_{ki}=r_i\left(h_{ki}-\frac1N\sum_nh_{ni}
# -\hat x_{ki}\,\frac1N\sum_nh_{ni}\hat x_{ni}\right),\qquad
# h_{ni}=g_{ni}w_i. \tag{11.28}$$
#
# The difference lies in what is coupled. For $n\ne k$ and $i=j$, (11.27) is
# $-r_i(1+\hat x_{ni}\hat x_{ki})/N$: **the output of one sample depends on every other sample of
# the batch**, and the gradients of a channel sum to zero over the batch. In layer norm that entry
# is zero: rows never meet. And in a batch of one row $x-m=0$ exactly, whatever $x$ is:
#
# $$N=1:\qquad\hat x_{1i}=0,\qquad\frac{\partial\hat x_{1i}}{\partial x_{1i}}=0. \tag{11.29}$$


# %%
def columns_normalised(x, eps=eps):
    """Each column of x (N, C) with mean 0 and variance 1 over the batch."""
    return rows_normalised(x.T, eps).T


N = 4
xb, gb = rng.normal(size=(2, N, 3))
zb, rb = columns_normalised(xb), (xb.var(0) + eps) ** -0.5
numeric = jacobian(lambda z: columns_normalised(z.reshape(N, 3)).reshape(-1), xb.reshape(-1))
formula = np.zeros((N, 3, N, 3))
for i in range(3):
    formula[:, i, :, i] = rb[i] * (np.eye(N) - 1 / N - np.outer(zb[:, i], zb[:, i]) / N)
check("batch_jacobian", rel_error(numeric.reshape(formula.shape), formula), at_most=1e-12)
dx = rb * (gb - gb.mean(0) - zb * (gb * zb).mean(0))
check("batch_vjp", rel_error(dx.reshape(-1), gb.reshape(-1) @ numeric), at_most=1e-12)
check("batch_couples_samples", np.abs(numeric.reshape(formula.shape)[0, 0, 1:, 0]).max(),
      at_least=0.05)
one = jacobian(lambda z: columns_normalised(z[None])[0], xb[0])
check("batch_of_one", [np.abs(columns_normalised(xb[:1])).max(), np.abs(one).max()], at_most=0)

# %% [markdown]
# ## Code
#
# Line by line as derived, with the closure holding what the backward pass needs: `xhat`, `rstd`,
# `w`. Below it, the package's own. It may compute on a GPU, whose arrays do not turn into NumPy's
# by themselves, nor back. So NumPy arrays go in as `Tensor(x)`, and `.numpy()` brings out what a
# Tensor holds. Where the package computes with NumPy, neither copies.


# %%
def layer_norm_by_hand(x, w, b, eps=1e-5):
    """x (..., C), w (C,), b (C,) -> (..., C), and the VJP of (11.10) and (11.22)."""
    c = x - x.mean(-1, keepdims=True)  # (..., C)
    var = (c * c).mean(-1, keepdims=True)  # (..., 1)
    rstd = (var + eps) ** -0.5  # (..., 1)
    xhat = c * rstd  # (..., C)

    def vjp(g):
        gw = g * w  # (..., C)
        dx = rstd * (
            gw  # what arrives
            - gw.mean(-1, keepdims=True)  # less its part along 1
            - xhat * (gw * xhat).mean(-1, keepdims=True)  # less its part along xhat
        )
        rows = tuple(range(g.ndim - 1))  # all axes but the last
        return dx, (g * xhat).sum(rows), g.sum(rows)

    return w * xhat + b, vjp


def package_layer_norm(x, w, b):
    return F.layer_norm(Tensor(x), Tensor(w), Tensor(b)).numpy()


x, w, b = rng.normal(size=(2, 3, 6)), rng.normal(size=6), rng.normal(size=6)
out, _ = layer_norm_by_hand(x, w, b)
check("package_agrees", rel_error(package_layer_norm(x, w, b), out), at_most=1e-12)
print(inspect.getsource(F.layer_norm.forward))

# %% [markdown]
# What the package does differently, and why:
#
# - It flattens the leading axes to $(N,C)$. All sums are then over one of two axes.
# - `row_sums` and `column_sums` are products with a vector of ones. `row_dots` and `column_dots`
#   are inner products in one pass over memory, without a temporary of size $(N,C)$ for the squares.
# - It works in place on arrays that it made itself: `xhat` starts as the centred row and is
#   scaled where it lies. Of all these arrays only `xhat` and `rstd` survive to the backward pass.
# - `memory.multiply(x, w)` is `x * w`, and `memory.subtract` a difference. A large result is
#   written to memory that was used before; chapter 14 says what that saves.
# - On a GPU, `kernels.fused` puts kernels in its place, each of several elementwise steps in one
#   pass over memory. With NumPy the decorator leaves the function as it stands.
# - `in_float32` widens rows of float16, where a square beyond $255^2$ is infinite, and rounds what
#   comes out. Other dtypes go through as they are.
# - It centres *first* and squares *then*. The shorter formula $v=\frac1C\sum_kx_k^2-m^2$
#   subtracts two large numbers. For a row at $10{,}000\pm1$ in float32, the squares are near
#   $10^8$, where neighbouring float32 numbers lie 8 apart, and a variance of 1 is lost.

# %%
far = (10_000 + rng.normal(size=(200, 256))).astype("float32")
exact = far.astype("float64")
short = (far * far).mean(-1) - far.mean(-1) ** 2
check("short_variance_is_wrong", np.median(np.abs(short / exact.var(-1) - 1)), at_least=0.5)
unit, zero = np.ones(256, "float32"), np.zeros(256, "float32")
out32 = package_layer_norm(far, unit, zero)
check("float32_is_kept", int(out32.dtype != np.float32), at_most=0)
check("float32_neighbours", abs(np.spacing(np.float32(1e8)) - 8), at_most=0)
check("package_far_from_zero", np.abs(out32 - rows_normalised(exact, 1e-5)), at_most=1e-2)

# %% [markdown]
# ## Gradient check
#
# The derivation by hand, against the package's fused op, the same function composed of elementary
# ops on the tape, central differences, and the complex step. The complex step is allowed here:
# means, squares and a root are analytic. (`np.var` would not be: it takes the absolute value of
# complex numbers.)

# %%
arrays = {"x": x, "w": w, "b": b}
worst = witnesses(
    layer_norm_by_hand, F.layer_norm, reference.layer_norm, arrays,
    analytic=lambda *a: layer_norm_by_hand(*a)[0],
)
check("layer_norm_vjp", worst, at_most=1e-9)

# %% [markdown]
# RMS norm and batch norm the same way. The package has no batch norm. Its witness is the
# package's layer norm applied to the transposed array, since a column of $x$ is a row of
# $x^\top$.


# %%
def rms_norm_by_hand(x, w, eps=1e-5):
    """x (..., C), w (C,) -> (..., C), and the VJP of (11.25)."""
    rrms = ((x * x).mean(-1, keepdims=True) + eps) ** -0.5  # (..., 1)
    xhat = x * rrms

    def vjp(g):
        gw = g * w
        dx = rrms * (gw - xhat * (gw * xhat).mean(-1, keepdims=True))
        return dx, (g * xhat).sum(tuple(range(g.ndim - 1)))

    return w * xhat, vjp


worst = witnesses(
    rms_norm_by_hand, rms_norm, reference.rms_norm, {"x": x, "w": w},
    analytic=lambda *a: rms_norm_by_hand(*a)[0],
)
check("rms_norm_vjp", worst, at_most=1e-9)


# %%
def batch_norm_by_hand(x, w, b, eps=1e-5):
    """x (N, C), w (C,), b (C,) -> (N, C), and the VJP of (11.28)."""
    c = x - x.mean(0)  # (N, C)
    rstd = ((c * c).mean(0) + eps) ** -0.5  # (C,): one for each channel
    xhat = c * rstd

    def vjp(g):
        gw = g * w
        dx = rstd * (gw - gw.mean(0) - xhat * (gw * xhat).mean(0))
        return dx, (g * xhat).sum(0), g.sum(0)

    return w * xhat + b, vjp


def batch_norm_composed(x, w, b):
    centred = x - ops.mean(x, axis=0)
    return centred / ops.sqrt(ops.var(x, axis=0) + 1e-5) * w + b


def batch_norm_by_package(x, w, b):
    ones, zeros = Tensor(np.ones(len(x))), Tensor(np.zeros(len(x)))
    return F.layer_norm(x.T, ones, zeros).T * w + b


worst = witnesses(
    batch_norm_by_hand, batch_norm_by_package, batch_norm_composed,
    {"x": rng.normal(size=(5, 4)), "w": w[:4], "b": b[:4]},
    analytic=lambda *a: batch_norm_by_hand(*a)[0],
)
check("batch_norm_vjp", worst, at_most=1e-9)

# %% [markdown]
# And $\varepsilon$, (11.23), at the $\varepsilon=10^{-5}$ of the package. The composed function
# takes a Tensor for it, so the tape is a witness too. Rows of variance near $10^{-4}$ make it
# matter.

# %%
small, g = 0.01 * x, rng.normal(size=x.shape)
tape_eps = Tensor(np.array(1e-5), requires_grad=True)
reference.layer_norm(*map(Tensor, (small, w, b)), eps=tape_eps).backward(g)


def weighted(z):
    return (g * layer_norm_by_hand(small, w, b, z[0])[0]).sum()


rstd = (small.var(-1) + 1e-5) ** -0.5  # (2, 3)
formula = -0.5 * (rstd**2 * (g * w * rows_normalised(small, 1e-5)).sum(-1)).sum()
differences = central_differences(weighted, [1e-5], h=1e-8)[0]
rows = [[formula, tape_eps.grad.item(), differences, complex_step(weighted, [1e-5])[0]]]
show_table(["d/d eps: formula", "tape", "differences", "complex step"], rows)
check("eps_witnesses", [rel_error([formula], [other]) for other in rows[0][1:]], at_most=1e-7)

# %% [markdown]
# ### Break it
#
# Four plausible mistakes in `dx`: forget the mean, forget the projection on $\hat x$, forget the
# gain, and (worst of all) return zeros. Each is measured twice: with a random cotangent, and with
# a cotangent of ones and $w=1$, which is what `out.sum().backward()` on a fresh layer norm gives.


# %%
def vjp_without(part, x, w, g):
    """dx of layer norm, with one part left out. (..., C) -> (..., C)."""
    rstd, xhat = (x.var(-1, keepdims=True) + 1e-5) ** -0.5, rows_normalised(x, 1e-5)
    gw = g if part == "gain" else g * w
    dx = gw if part == "mean" else gw - gw.mean(-1, keepdims=True)
    dx = dx if part == "xhat" else dx - xhat * (gw * xhat).mean(-1, keepdims=True)
    return dx * 0 if part == "everything" else rstd * dx


def errors_of(part, w, g):
    """|wrong dx - differences|, over the size of g: sums of dx along 1 and along x - mean too."""
    truth = central_differences(lambda z: (g * layer_norm_by_hand(z, w, b)[0]).sum(), x)
    dx, c = vjp_without(part, x, w, g), x - x.mean(-1, keepdims=True)
    along = (dx.sum(-1) / 6**0.5, (dx * c).sum(-1) / np.linalg.norm(c, axis=-1))
    size = np.linalg.norm(g)
    return [np.linalg.norm(dx - truth) / size, *(np.linalg.norm(a) / size for a in along)]


wrong = {part: errors_of(part, w, g) for part in ("mean", "xhat", "gain", "everything")}
blind = {part: errors_of(part, np.ones(6), np.ones(x.shape)) for part in wrong}
show_table(["forgets", "error", "along 1", "along x - mean", "error under ones"],
           [[part, *wrong[part], blind[part][0]] for part in wrong])
check("wrong_vjps_are_caught", [row[0] for row in wrong.values()], at_least=0.05)
check("ones_are_blind", [blind[part][0] for part in ("xhat", "gain", "everything")], at_most=1e-8)

# %% [markdown]
# With a random cotangent all four are caught. With ones, three of the four pass, *a VJP of zeros
# among them*: the outputs of each row sum to zero whatever $x$ is (11.3), so the true gradient of
# their sum is zero too. "My layer norm has no gradient!" is this, and no bug.
#
# The table also says which mistake it was. Forgetting the mean leaves a component along
# $\mathbf 1$; forgetting the projection leaves one along $x-m$. Forgetting the gain keeps both
# laws, (11.15) and (11.20), and is still wrong: the laws are necessary, not sufficient.

# %%
check("mean_term_shows_along_ones", wrong["mean"][1], at_least=0.05)
check("projection_shows_along_x", wrong["xhat"][2], at_least=0.05)
check("missing_gain_keeps_both_laws", wrong["gain"][1:], at_most=1e-4)

# %% [markdown]
# ## Experiment
#
# ### Is layer norm a regulariser?
#
# A regulariser holds a network back from fitting its training set too closely, and is rewarded on
# new data. Dropout and weight decay do it. S2 (lines 113 and 190) says that layer norm does it
# too.
#
# A test in which there is much to over-fit: 100 images of handwritten digits, 8 by 8 pixels, with
# **20 of the 100 labels wrong**. Whoever learns those 20 has over-fitted. The network is 64-128-10
# with ReLU, and there are four treatments: plain; layer norm before the ReLU; weight decay
#   1.0 (AdamW); dropout 0.5. The test set is all other images, with their right labels. Ten seeds
#   each draw a split, the wrong labels and the initial weights; the four treatments share them,
#   so differences to plain are paired.
#
# **Prediction.** Layer norm adds no noise and no penalty. It sets the scale of the hidden units,
# and by (11.17) and (11.19) the size of the gradients. So it should make fitting *faster*, the
# wrong labels included. After 50 steps the gap between training and test accuracy will be
# **wider** with layer norm than without. After 300 steps, when everything has been memorised,
# layer norm will have closed less than half as much of the gap as dropout, and the same for the
# test loss.


# %%
def distinct_digits():
    """Images (n, 64) in 0..1 and their digits (n,), each image once."""
    from sklearn.datasets import load_digits  # a copy of UCI's optdigits test set, 8 by 8

    raw = load_digits()
    _, first = np.unique(raw.data, axis=0, return_index=True)
    first = np.sort(first)
    print(f"{len(raw.data)} images, {len(first)} distinct")
    return (raw.data[first] / 16).astype("float32"), raw.target[first]


class Identity(Module):
    def __call__(self, x):
        return x


class DigitsMLP(Module):
    """64 -> 128 -> 10, with layer norm before the ReLU or without it."""

    def __init__(self, rng, norm):
        self.fc = Linear(64, 128, rng=rng, std=(2 / 64) ** 0.5)
        self.norm = LayerNorm(128) if norm else Identity()
        self.out = Linear(128, 10, rng=rng, std=128**-0.5)

    def __call__(self, x, p=0.0, rng=None):
        return self.out(F.dropout(ops.relu(self.norm(self.fc(x))), p=p, rng=rng))


# %%
MARKS = (50, 300)  # steps after which a network is scored


def fit(seed, norm=False, p=0.0, weight_decay=0.0):
    """Scores (2, 4) at MARKS: train accuracy, wrong labels learnt, test accuracy, test nats."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    train, test = order[:100], order[100:]
    labels = digits[train].copy()
    labels[:20] = (labels[:20] + rng.integers(1, 10, 20)) % 10  # wrong, each of them
    x, model, scores = Tensor(images[train]), DigitsMLP(rng, norm), []
    opt = AdamW(model.parameters(), 3e-3, betas=(0.9, 0.999), weight_decay=weight_decay)
    for step in range(1, MARKS[-1] + 1):
        opt.zero_grad()
        F.cross_entropy(model(x, p, rng), labels).backward()
        opt.step()
        if step in MARKS:
            with no_grad():
                hits = model(x).numpy().argmax(-1) == labels
                logits = model(Tensor(images[test]))
                nats = F.cross_entropy(logits, digits[test]).item()
            right = (logits.numpy().argmax(-1) == digits[test]).mean()
            scores.append([hits.mean(), hits[:20].mean(), right, nats])
    return scores


# %%
images, digits = distinct_digits()
TREATMENTS = {
    "plain": {},
    "layer norm": {"norm": True},
    "weight decay": {"weight_decay": 1.0},
    "dropout": {"p": 0.5},
}
SEEDS, T_QUANTILE = 10, 2.262  # Student's t, 9 degrees of freedom, 97.5 %
scores = {name: np.array([fit(seed, **options) for seed in range(SEEDS)])
          for name, options in TREATMENTS.items()}
show_table(
    ["after steps", "treatment", "train acc.", "wrong learnt", "test acc.", "gap", "test nats"],
    [[mark, name, *(f"{value:.3f}" for value in (*row[:3], row[0] - row[2], row[3]))]
     for i, mark in enumerate(MARKS) for name, row in
     ((name, s[:, i].mean(0)) for name, s in scores.items())],
)


# %%
def interval(values):
    """Mean of one number a seed, and half the width of its 95 % interval."""
    return values.mean(), T_QUANTILE * values.std(ddof=1) / SEEDS**0.5


def gap(name, i):
    """Train accuracy less test accuracy at MARKS[i], one a seed."""
    return scores[name][:, i, 0] - scores[name][:, i, 2]


def nats(name, i):
    return scores[name][:, i, 3]


others = [name for name in TREATMENTS if name != "plain"]
show_table(["against plain, after", "gap, 50", "gap, 300", "test nats, 50", "test nats, 300"], [
    [name, *("{:+.3f} ± {:.3f}".format(*interval(f(name, i) - f("plain", i)))
             for f in (gap, nats) for i in (0, 1))] for name in others])
early, half = interval(gap("layer norm", 0) - gap("plain", 0))
check("layer_norm_widens_the_early_gap", early - half, at_least=0.03)
learnt, half = interval(scores["layer norm"][:, 0, 1] - scores["plain"][:, 0, 1])
check("layer_norm_learns_wrong_labels_sooner", learnt - half, at_least=0.1)
check("nine_tenths_with_layer_norm", scores["layer norm"][:, 0, 1].mean(), at_least=0.8)
check("about_half_without", scores["plain"][:, 0, 1].mean(), at_most=0.6)
closed = [(gap("plain", 1) - gap(name, 1)).mean() for name in ("layer norm", "dropout")]
check("gap_closed_against_dropout", closed[0] / closed[1], at_most=0.5)
closed = [(nats("plain", 1) - nats(name, 1)).mean() for name in ("layer norm", "dropout")]
check("nats_closed_against_dropout", closed[0] / closed[1], at_most=0.5)

# %%
fig, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
colours = {"layer norm": GREEN, "weight decay": YELLOW, "dropout": BLUE}
for i, (axes, mark) in enumerate(zip(panels, MARKS, strict=True)):
    axes.axvline(0, color=GREY, lw=1)
    for row, (name, colour) in enumerate(colours.items()):
        values = 100 * (gap(name, i) - gap("plain", i))
        middle, half = interval(values)
        axes.plot(values, np.full(SEEDS, row) + 0.22, "|", color=colour, ms=7, alpha=0.6)
        axes.errorbar(middle, row, xerr=half, fmt="o", color=colour, capsize=5, lw=2.5)
    axes.set(
        title=f"after {mark} steps",
        ylim=(2.6, -0.6),
        xlabel="gap less plain's gap (points of accuracy)",
    )
panels[0].set_yticks(range(3), list(colours))
panels[0].annotate("layer norm over-fits sooner", (13, 0.1), (-6, 0.75), size=11,
                   arrowprops={"arrowstyle": "->", "color": GREY})
panels[1].annotate("dropout closes it", (-3.3, 1.92), (-5.6, 1.4), size=11,
                   arrowprops={"arrowstyle": "->", "color": GREY})
fig.suptitle("Layer norm widens the train-test gap early, and closes little of it late")
save_figure(fig, "11_digits.svg")
plt.show()

# %% [markdown]
# Each thin stroke is one seed. After 50 steps the network with layer norm has learnt nine tenths
# of the wrong labels, the plain one about half of them, and its gap is wider by an interval far
# from zero. After 300 steps both have learnt everything by heart. What layer norm has closed of
# the gap by then is less than half of what dropout has (here a quarter), and its interval reaches
# zero. The test loss tells the same. (Weight decay does little for the accuracy, and much for the
# loss.) These ten seeds cannot exclude a small benefit of layer norm at the end. They do exclude
# that it holds the network back: it does the opposite, it hurries.
#
# ### What layer norm is for: room for the learning rate
#
# A small GPT over characters: 4 blocks of 32 channels, trained by plain gradient descent (SGD, no
# momentum, no clipping, no warm-up) for 150 steps on the default corpus. Once as usual, with a
# layer norm before each attention, each MLP and the head; once with the identity in its place.
# Nothing else differs: the same weights at the start, the same batches, and initial scales under
# which both begin near $\ln V$.
#
# **Prediction**, from (11.19) and (11.21). At the smallest rate layer norm brings nothing: it
# adds no knowledge. But without it the loss explodes at some rate, and with it a rate several
# times larger still trains, since larger weights answer with smaller gradients. There the loss
# hardly depends on the rate. Among the usable rates the largest are the best, so the network with
# layer norm ends lower.


# %%
class TinyBlock(Module):
    """x + attention(norm(x)), then x + MLP(norm(x)). (B, T, 32) -> the same."""

    def __init__(self, rng, norm, C=32):
        self.ln_1, self.ln_2 = (LayerNorm(C) if norm else Identity() for _ in range(2))
        self.c_attn = Linear(C, 3 * C, rng=rng, std=C**-0.5)
        self.proj = Linear(C, C, rng=rng, std=0.5 * C**-0.5)
        self.up = Linear(C, 4 * C, rng=rng, std=C**-0.5)
        self.down = Linear(4 * C, C, rng=rng, std=0.25 * C**-0.5)

    def __call__(self, x):
        x = x + self.proj(causal_self_attention(self.c_attn(self.ln_1(x)), n_head=2))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class TinyGPT(Module):
    def __init__(self, rng, norm, V, T=32, C=32):
        self.wte, self.wpe = (Embedding(n, C, rng=rng, std=0.5) for n in (V, T))
        self.h = [TinyBlock(rng, norm) for _ in range(4)]
        self.ln_f = LayerNorm(C) if norm else Identity()
        self.head = Linear(C, V, rng=rng)

    def __call__(self, idx):
        x = self.wte(idx) + self.wpe(np.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


# %%
corpus = data.load("facts")
parts = data.split(corpus)
tokenizer = CharTokenizer.from_text(corpus.text)
train_ids, val_ids = tokenizer.encode(parts.train), tokenizer.encode(parts.val)


def windows(ids, rng, B, T=32):
    rows = ids[rng.integers(0, len(ids) - T, B)[:, None] + np.arange(T + 1)]
    return rows[:, :-1], rows[:, 1:]


def final_loss(rate, norm, seed, steps=150):
    """(loss at the start, held-out loss at the end) in nats per character; inf if it diverged."""
    rng = np.random.default_rng(seed)
    model = TinyGPT(rng, norm, tokenizer.vocab_size)
    opt, losses = SGD(model.parameters(), rate), []
    with np.errstate(all="ignore"):  # a diverging run overflows
        for _ in range(steps):
            idx, targets = windows(train_ids, rng, B=8)
            loss = F.cross_entropy(model(idx), targets)
            losses.append(loss.item())
            if not losses[-1] < 100:  # NaN too
                return losses[0], math.inf
            opt.zero_grad()
            loss.backward()
            opt.step()
        with no_grad():
            idx, targets = windows(val_ids, np.random.default_rng(0), B=64)
            loss = F.cross_entropy(model(idx), targets).item()
    return losses[0], loss if loss < 100 else math.inf


# %%
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
runs = {norm: np.array([[final_loss(rate, norm, seed) for seed in (0, 1)] for rate in RATES])
        for norm in (True, False)}
ends = {norm: run[:, :, 1].mean(1) for norm, run in runs.items()}  # inf if either seed diverged
show_table(["learning rate", "with layer norm", "without"],
           [[rate, *(f"{v:.3f}" if v < 100 else "diverged" for v in (a, b))]
            for rate, a, b in zip(RATES, ends[True], ends[False], strict=True)])
start = math.log(tokenizer.vocab_size)
check(
    "both_start_at_ln_v", [np.abs(run[:, :, 0] / start - 1) for run in runs.values()], at_most=0.1
)
usable = {
    norm: max(r for r, v in zip(RATES, e, strict=True) if v < 100) for norm, e in ends.items()
}
check("layer_norm_makes_room", usable[True] / usable[False], at_least=3)
check("no_better_at_the_smallest_rate", ends[True][0] - ends[False][0], at_least=0.03)
check("best_with_layer_norm_is_lower", ends[False].min() - ends[True].min(), at_least=0.03)
large = [v for r, v in zip(RATES, ends[True], strict=True) if 0.3 <= r <= 1]
check("flat_where_the_other_diverges", max(large) - min(large), at_most=0.2)

# %%
fig, axes = plt.subplots(figsize=(7, 4.2))
top = 3.55
for norm, colour in ((True, GREEN), (False, RED)):
    good = np.isfinite(ends[norm])
    axes.plot(np.array(RATES)[good], ends[norm][good], "o-", color=colour)
    offset = 1.06 if norm else 0.94
    axes.plot(
        np.array(RATES)[~good] * offset, np.full((~good).sum(), top), "x", color=colour, ms=10
    )
    for seed in (0, 1):
        axes.plot(RATES, runs[norm][:, seed, 1], ".", color=colour, alpha=0.5)
axes.text(0.031, ends[True][0] + 0.04, "with layer norm", color=GREEN)
axes.text(0.031, ends[False][0] - 0.2, "without", color=RED)
axes.axhline(top - 0.12, color=GREY, lw=1, ls=":")
axes.text(0.031, top - 0.02, "diverged", color=GREY)
axes.set(xscale="log", ylim=(2.7, 3.65), xlabel="learning rate of SGD",
         ylabel="held-out loss\n(nats per character)",
         title="Layer norm makes room: its best rates\ndiverge without it")
axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
axes.minorticks_off()
save_figure(fig, "11_learning_rate.svg")
plt.show()

# %% [markdown]
# As predicted, and with limits that should be said. At small rates the network with layer norm is
# *behind*: the same rate moves it less. The room is finite: at a rate of 3 both diverge. And 150
# steps of SGD make no language model. What the sweep shows is that layer norm buys steps that are
# several times larger. (11.21) is exact only for a linear layer that feeds a normalisation
# directly. In a residual network the normalised row is a sum of many layers' outputs, so there it
# is an argument by analogy, and the experiment is what counts.
#
# ## What others get wrong
#
# The documents S0 to S4 are listed in the [chapters' README](README.md).
#
# ### An epsilon below zero (S2:119)
#
# S2 adds an $\varepsilon$ under the root against division by zero, and says that it is below
# zero. It must be above. For a constant row $v=0$: with $\varepsilon>0$ the result is
# $0/\sqrt\varepsilon=0$, with $\varepsilon=0$ it is $0/0$, and with $\varepsilon<0$ the root of a
# negative number. Any row with $v<\lvert\varepsilon\rvert$ fails in the same way, constant or
# not.


# %%
def first_output(row, eps):
    with np.errstate(all="ignore"):
        return layer_norm_by_hand(np.array(row), np.ones(4), np.zeros(4), eps)[0][0].item()


constant = [first_output([3.0] * 4, e) for e in (1e-5, 0.0, -1e-5)]
uneven = first_output([0, 0.002, 0, 0.002], -1e-5)  # variance 1e-6
print("constant row, eps = 1e-5, 0, -1e-5:", constant, "  variance 1e-6, eps = -1e-5:", uneven)
check("positive_eps_gives_zero", abs(constant[0]), at_most=0)
check("eps_not_above_zero_gives_nan", [math.isnan(v) for v in (*constant[1:], uneven)], at_least=1)
try:
    F.layer_norm(np.ones(4), np.ones(4), np.zeros(4), eps=-1e-5)
except ValueError as refused:
    print("the package:", refused)

# %% [markdown]
# ### A formula without gain and offset (S2:116)
#
# S2's formula ends at $\hat x$. Then every output row has the same length $\sqrt C$, by (11.4):
# for 64 channels, 8. And by (11.18) the rows $x$ and $5x+2$ cannot be told apart. Ba et al.
# multiply by $w$ and add $b$, so that the layer can choose its scale in each channel. (Where a
# linear layer follows at once, as in a GPT's blocks, it can take over that choice: exercise 11.2.
# The formula is then incomplete rather than harmful.) Also unsaid there: over which axis. In a
# transformer it is the channels of each token.

# %%
x64 = rng.normal(size=(1000, 64)) * 7 + 3
bare = [package_layer_norm(z, np.ones(64), np.zeros(64)) for z in (x64, 5 * x64 + 2)]
lengths = np.linalg.norm(bare[0], axis=1)
print(f"row lengths from {lengths.min():.6f} to {lengths.max():.6f}")
check("all_rows_have_length_8", np.abs(lengths - 8), at_most=1e-5)
check("five_x_plus_two_is_the_same", np.abs(bare[1] - bare[0]), at_most=1e-6)
gained = package_layer_norm(x64, rng.normal(size=64), rng.normal(size=64))
check("gain_and_offset_free_the_lengths", np.ptp(np.linalg.norm(gained, axis=1)), at_least=1)

# %% [markdown]
# ### Layer norm as a remedy for over-fitting (S2:113, S2:190)
#
# S2 counts layer norm among the regularisers, and names it as GPT's means against over-fitting.
# The first experiment tested that. A network with layer norm learns the wrong labels by heart as
# well as a plain one, and sooner. It is a tool of optimisation. What S2 needs against
# over-fitting is more data, dropout, weight decay or stopping early.

# %%
by_heart = scores["layer norm"][:, 1, 1]  # share of the wrong labels learnt, one a seed
print("wrong labels learnt after 300 steps:", by_heart)
check("layer_norm_memorises_wrong_labels", by_heart, at_least=0.95)

# %% [markdown]
# ### Batch norm in a language model (S4:105, 111, 887, 917, 947)
#
# S4 recommends batch norm for training GPT. By (11.27) that couples what must not meet: the
# statistics of a channel are taken over the texts of the batch *and* over their positions, later
# ones included. A causal model would read its own future out of the mean. We move one activation
# (the last position of the first text) by 3 in every channel, and look at what changes elsewhere.
# For generation there is a second fault: one text, one token is a batch of one, and by (11.29)
# all that comes out is the offset. (Real batch norm keeps running averages for that case, and
# then computes something else than what was trained.)

# %%
texts = rng.normal(size=(4, 8, 16))  # (B, T, C)
moved = texts.copy()
moved[0, 7] += 3
unit, zero = np.ones(16), np.zeros(16)


def batch_norm(z):
    return batch_norm_by_hand(z.reshape(-1, 16), unit, zero)[0].reshape(z.shape)


def layer_norm(z):
    return package_layer_norm(z, unit, zero)


change = {f: np.abs(f(moved) - f(texts)).max(-1) for f in (batch_norm, layer_norm)}  # (B, T)
leaks = {f.__name__: [c[0, :7].max(), c[1:].max()] for f, c in change.items()}
show_table(["largest change", "earlier positions", "other texts"],
           [[name, *leak] for name, leak in leaks.items()])
check("batch_norm_leaks", leaks["batch_norm"], at_least=0.1)
check("layer_norm_does_not_leak", leaks["layer_norm"], at_most=0)
token = batch_norm(texts[:1, :1])  # decoding: one text, one position
check("batch_norm_of_one_token_is_zero", np.abs(token), at_most=0)
check("layer_norm_of_one_token_is_not", np.abs(layer_norm(texts[:1, :1])).max(), at_least=0.5)

# %%
fig, axes = plt.subplots(figsize=(7, 3.8))
where = np.arange(2)
axes.bar(where - 0.2, leaks["batch_norm"], 0.38, color=RED)
axes.bar(where + 0.2, leaks["layer_norm"], 0.38, color=GREEN)
for i, value in enumerate(leaks["batch_norm"]):
    axes.text(i - 0.2, value + 0.01, f"{value:.2f}", ha="center", color=RED)
    axes.text(i + 0.2, 0.01, "layer norm:\nexactly 0", ha="center", color=GREEN)
    axes.text(i - 0.2, value / 2, "batch norm", ha="center", color="white")
axes.set_xticks(where, ["earlier positions\nof the same text", "the other texts\nof the batch"])
axes.set(ylabel="largest change of an output\n(in standard deviations)",
         ylim=(0, 1.2 * max(leaks["batch_norm"])),
         title="Batch norm shows a later token to others; layer norm does not")
axes.grid(axis="x", visible=False)
save_figure(fig, "11_leakage.svg")
plt.show()

# %% [markdown]
# S4 also repeats the founding explanation of batch norm, a reduction of "internal covariate
# shift". Santurkar et al. (2018, arXiv:1805.11604) put the shift back by adding noise after the
# batch norm, and the networks trained as well. They found a smoother loss instead. The formula
# stands; the reason given for it does not.
#
# ## Exercises
#
# Each has a stub to fill in and a cell that tries it. Solutions are in
# `solutions/11_layer_norm.py`.

# %% [markdown]
# ### Exercise 11.1: One row by hand
#
# *Difficulty 1 of 5 · 10 minutes · 1 point*
#
# With paper and pencil: normalise the row $x=(2,4,4,6)$ with $\varepsilon=0$, $w=1$ and $b=0$.
# Then take the cotangent $g=(1,0,0,0)$ and compute $dx$. Write both results as lists of four
# numbers; `math.sqrt` is allowed.
#
# <details><summary>Hint 1</summary>
#
# Mean, centred row, variance, one over the root of the variance: four small computations in that
# order.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# (11.9) needs two means: of $g$, and of $g\odot\hat x$. Only one entry of $g$ is not zero.
#
# </details>


# %% exercise="11.1" role="stub"
def row_and_gradient():
    """xhat and dx of x = (2, 4, 4, 6) under g = (1, 0, 0, 0). -> (four numbers, four numbers)."""
    raise NotImplementedError


# %% exercise="11.1" role="check"
def check_11_1(row_and_gradient):
    """xhat keeps the row's shape with mean 0 and mean square 1; dx is the slope of xhat's first."""
    xhat, dx = (np.array(a, dtype=float) for a in row_and_gradient())
    assert xhat.shape == dx.shape == (4,), "two lists of four numbers are wanted"
    assert abs(xhat.sum()) < 1e-6, "xhat must have mean 0"
    assert abs((xhat**2).mean() - 1) < 1e-6, "the mean of the squares of xhat must be 1"
    assert xhat[0] < xhat[1] == xhat[2] < xhat[3], "xhat must keep the order of x"
    slope = central_differences(lambda z: (z[0] - z.mean()) / z.std(), np.array([2.0, 4, 4, 6]))
    assert rel_error(dx, slope) < 1e-6, "dx is not the slope of the first output"


attempt(check_11_1, row_and_gradient)

# %% [markdown]
# ### Exercise 11.2: Fold gain and offset into the next layer
#
# *Difficulty 2 of 5 · 15 minutes · 2 points*
#
# After layer norm often comes a linear layer: $z=(w\odot\hat x+b)\,A+d$, with $A$ of shape
# $(C,M)$ and $d$ of shape $(M)$. Return $A'$ and $d'$ such that $z=\hat x A'+d'$ for every
# $\hat x$: then the layer norm needs neither gain nor offset. Do not change the arguments.
#
# <details><summary>Hint 1</summary>
#
# Multiply out the product. One part has $\hat x$ in it, the other has not.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $\sum_i w_i\hat x_iA_{im}$: does $w_i$ scale a row of $A$ or a column?
#
# </details>


# %% exercise="11.2" role="stub"
def fold(w, b, A, d):
    """The linear layer (A', d') that does the gain and the offset too.

    w (C,), b (C,), A (C, M), d (M,) -> A' (C, M), d' (M,).
    """
    raise NotImplementedError


# %% exercise="11.2" role="check"
def check_11_2(fold):
    """Layer norm with gain and offset, then A and d, equals layer norm without, then A' and d'."""
    r = np.random.default_rng(2)
    w, b, d, A, x = (r.normal(size=s) for s in (5, 5, 3, (5, 3), (4, 5)))
    kept = [a.copy() for a in (w, b, A, d)]
    A2, d2 = fold(w, b, A, d)
    assert A2.shape == (5, 3) and d2.shape == (3,), "A' is (C, M) and d' is (M,)"
    assert all((a == k).all() for a, k in zip((w, b, A, d), kept, strict=True)), (
        "an argument was changed"
    )
    want = F.layer_norm(Tensor(x), Tensor(w), Tensor(b)).numpy() @ A + d
    got = F.layer_norm(Tensor(x), Tensor(np.ones(5)), Tensor(np.zeros(5))).numpy() @ A2 + d2
    assert rel_error(got, want) < 1e-10, "the folded layer gives other outputs"


attempt(check_11_2, fold)

# %% [markdown]
# ### Exercise 11.3: Two laws to diagnose a gradient
#
# *Difficulty 2 of 5 · 20 minutes · 2 points*
#
# A gradient that comes back through layer norm (with $\varepsilon\to0$) obeys two laws in every
# row: it is at right angles to $\mathbf 1$, and to the centred row. Write a function that
# measures how far an array is from obeying them: for each law the **largest absolute cosine**
# over all rows. Both numbers lie between 0 (obeyed) and 1.
#
# <details><summary>Hint 1</summary>
#
# The cosine of two vectors is their inner product over the product of their lengths. $\mathbf 1$
# has length $\sqrt C$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Take the absolute value before you combine rows: $+0.5$ and $-0.5$ must not cancel.
#
# </details>


# %% exercise="11.3" role="stub"
def two_laws(x, dx):
    """How far dx is from a layer norm's gradient at x. x, dx (..., C) -> two numbers in 0..1.

    First: the largest |cosine| of a row of dx with (1, ..., 1). Second: with the row of x, centred.
    """
    raise NotImplementedError


# %% exercise="11.3" role="check"
def check_11_3(two_laws):
    """0 and 0 for a true gradient; 1 where dx points along what a law forbids."""
    r = np.random.default_rng(3)
    x, g = r.normal(size=(2, 3, 6)) + 2

    def phi(z):
        return (g * (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)).sum()

    dx = central_differences(phi, x)
    assert max(two_laws(x, dx)) < 1e-6, "a true gradient obeys both laws"
    assert max(two_laws(x, 100 * dx)) < 1e-6, "the size of dx must not matter"
    first, second = two_laws(x, dx - 3)
    assert first > 0.5 and second < 1e-6, "a constant added to dx breaks the first law alone"
    first, second = two_laws(x, x - x.mean(-1, keepdims=True))
    assert first < 1e-6 and abs(second - 1) < 1e-6, "dx along x - mean: the second cosine is 1"


attempt(check_11_3, two_laws)

# %% [markdown]
# ### Exercise 11.4: Normalise over any axes
#
# *Difficulty 3 of 5 · 25 minutes · 3 points*
#
# Layer norm takes its statistics over the last axis, batch norm over the first ones, group norm
# over a block. Write the normalisation over any axis or tuple of axes, with its VJP, without gain
# and offset: mean 0 and variance $v/(v+\varepsilon)$ over those axes together.
#
# <details><summary>Hint 1</summary>
#
# Nothing in the derivation used that the axis is the last. $C$ becomes the number of elements
# that share one mean.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# NumPy's `mean` takes a tuple of axes, and `keepdims=True` makes everything broadcast.
#
# </details>


# %% exercise="11.4" role="stub"
def normalise_over(x, axis, eps=1e-5):
    """Mean 0 and variance 1 over axis. x any shape; axis: an int or a tuple -> (out, vjp).

    vjp(g) -> dx, with g and dx of x's shape.
    """
    raise NotImplementedError


# %% exercise="11.4" role="check"
def check_11_4(normalise_over):
    """Statistics over the axes asked for, and a VJP that differences confirm."""
    r = np.random.default_rng(4)
    x, g = r.normal(size=(2, 4, 3))
    for axis in (0, -1):
        out, vjp = normalise_over(x, axis)
        assert out.shape == x.shape, "out has the shape of x"
        assert np.abs(out.mean(axis)).max() < 1e-9, f"axis {axis}: the mean must be 0"
        assert np.abs(out.var(axis) - 1).max() < 1e-2, f"axis {axis}: the variance must be 1"
        slope = central_differences(lambda z, a=axis: (g * normalise_over(z, a)[0]).sum(), x)
        assert rel_error(vjp(g), slope) < 1e-6, f"axis {axis}: the VJP is not the gradient"


attempt(check_11_4, normalise_over)

# %% [markdown]
# ### Exercise 11.5: Mean and variance in one pass, in float32
#
# *Difficulty 5 of 5 · 45 minutes · 4 points*
#
# The package reads a row twice: once for the mean, once for the squares of what is left. On a GPU
# the second reading costs as much as the first. Write a one-pass version: channels arrive one at
# a time, as float32 arrays of shape $(N)$ (one number for each row), and may be read once. Keep a
# few arrays of shape $(N)$, all float32, and no more. The short formula $\overline{x^2}-\bar x^2$
# loses everything if the mean is large against the deviation: find one that does not.
#
# <details><summary>Hint 1</summary>
#
# The variance does not change if you subtract the same number from all channels. Which number
# near the mean do you know when the first channel has arrived?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Or keep the mean $m_n$ and the sum of squares $S_n$ of the first $n$ channels, and find how both
# change when channel $n+1$ arrives (Welford 1962).
#
# </details>
#
# <details><summary>Hint 3</summary>
#
# The array that arrives may be reused for the next channel: what you keep, copy.
#
# </details>


# %% exercise="11.5" role="stub"
def one_pass(columns):
    """Mean and population variance of each row. columns: yields (N,) float32 arrays, one a channel.

    -> mean (N,), variance (N,), both float32.
    """
    raise NotImplementedError


# %% exercise="11.5" role="check"
def check_11_5(one_pass):
    """Right for easy rows, and for rows whose mean is 10,000 times their deviation."""
    r = np.random.default_rng(5)
    for offset, tolerance in ((0.0, 1e-4), (10_000.0, 1e-2)):
        x = (offset + r.normal(size=(6, 400))).astype("float32")
        mean, var = one_pass(iter(x.T))
        assert mean.shape == var.shape == (6,), "mean and variance have shape (N,)"
        assert mean.dtype == var.dtype == np.float32, "both must be float32"
        exact = x.astype("float64")
        assert np.abs(mean - exact.mean(1)).max() < 1e-2, f"offset {offset:g}: the mean is off"
        error = np.abs(var / exact.var(1) - 1).max()
        assert error < tolerance, f"offset {offset:g}: the variance is off by {error:.1%}"


attempt(check_11_5, one_pass)

# %% [markdown]
# ## What was checked
#
# | equation or claim | check | bound |
# |---|---|---|
# | (11.1) the four numbers of the example | `four_numbers` | <= 1e-14 |
# | (11.2) their gradient | `four_slopes` | <= 1e-09 |
# | shifting and stretching the row changes nothing | `same_shape` | <= 1e-14 |
# | (11.3) xhat sums to zero | `xhat_sums_to_zero` | <= 1e-12 |
# | (11.4) its squared length is C v / (v + eps) | `xhat_squared_length` | <= 1e-12 |
# | (11.5) slope of the mean | `d_mean` | <= 1e-12 |
# | (11.5) slope of the centred row | `d_centred` | <= 1e-12 |
# | (11.6) slope of the variance | `d_var` | <= 1e-12 |
# | (11.7) slope of rstd | `d_rstd` | <= 1e-12 |
# | (11.8) Jacobian, for any eps | `d_xhat` | <= 1e-12 |
# | (11.9) VJP, index form | `vjp_index_form` | <= 1e-12 |
# | (11.10) VJP, array form, with leading axes | `vjp_array_form` | <= 1e-12 |
# | (11.11) slope of a unit vector | `unit_vector` | <= 1e-12 |
# | (11.12) Jacobian as two projections, eps = 0 | `two_projections` | <= 1e-12 |
# | (11.13) J / rstd is a projection, eps = 0 | `is_a_projection` | <= 1e-12 |
# | (11.14) with eps, a share s is removed | `eps_removes_a_share` | <= 1e-12 |
# | with eps it is no projection | `eps_breaks_the_projection` | >= 0.05 |
# | (11.15) J is symmetric | `symmetric` | <= 1e-12 |
# | (11.15) J sends constants to zero | `constants_are_killed` | <= 1e-12 |
# | (11.15) dx sums to zero | `dx_sums_to_zero` | <= 1e-12 |
# | (11.16) xhat is an eigenvector | `xhat_is_an_eigenvector` | <= 1e-12 |
# | (11.17) eigenvalues: 0, eps rstd^3, and rstd C - 2 times | `spectrum` | <= 1e-12 |
# | two channels let nothing through | `two_channels_pass_nothing` | <= 0.0001 |
# | (11.18) scaling and shifting x changes eps alone | `scale_and_shift` | <= 1e-10 |
# | (11.19) scaling x by a scales the Jacobian by 1/a | `scaled_input_scales_the_slope` | <= 1e-10 |
# | (11.20) the gradient along the centred row, exactly | `orthogonal_up_to_eps` | <= 1e-10 |
# | (11.20) it is small at eps = 1e-5 | `orthogonal` | <= 0.001 |
# | (11.21) a step lengthens the weights in front | `weights_grow` | <= 1e-12 |
# | (11.19) longer weights have smaller gradients | `longer_weights_learn_slower` | <= 1e-10 |
# | (11.22) gain and offset | `gain_and_offset` | <= 1e-12 |
# | (11.23) slope in eps | `slope_in_eps` | <= 1e-12 |
# | a row of variance 1e-5: rstd^2 is 50,000 | `flat_row_rstd_squared` | <= 1e-09 |
# | a row of variance 1: eps = 1e-5 costs 5e-6 | `eps_moves_an_output` | <= 0.0001 |
# | (11.24) RMS norm's Jacobian | `rms_jacobian` | <= 1e-12 |
# | (11.25) RMS norm's VJP in x | `rms_vjp` | <= 1e-12 |
# | (11.25) RMS norm's VJP in the gain | `rms_gain` | <= 1e-12 |
# | RMS norm's dx need not sum to zero | `rms_dx_has_a_sum` | >= 0.1 |
# | (11.26) on centred rows the two norms agree | `rms_of_centred` | <= 1e-12 |
# | C - 1 directions pass RMS norm | `rms_spectrum` | <= 1e-12 |
# | (11.27) batch norm's Jacobian | `batch_jacobian` | <= 1e-12 |
# | (11.28) batch norm's VJP | `batch_vjp` | <= 1e-12 |
# | samples of a batch are coupled | `batch_couples_samples` | >= 0.05 |
# | (11.29) a batch of one: output and slope are 0 | `batch_of_one` | <= 0 |
# | the package computes the same output | `package_agrees` | <= 1e-12 |
# | the one-line variance loses a far row in float32 | `short_variance_is_wrong` | >= 0.5 |
# | float32 stays float32 | `float32_is_kept` | <= 0 |
# | float32 numbers near 1e8 lie 8 apart | `float32_neighbours` | <= 0 |
# | the package does not lose it | `package_far_from_zero` | <= 0.01 |
# | (11.10), (11.22) package, composed, differences, complex step | `layer_norm_vjp` | <= 1e-09 |
# | (11.25) the same for RMS norm | `rms_norm_vjp` | <= 1e-09 |
# | (11.28) the same for batch norm | `batch_norm_vjp` | <= 1e-09 |
# | (11.23) tape, differences, complex step | `eps_witnesses` | <= 1e-07 |
# | four wrong VJPs are far off | `wrong_vjps_are_caught` | >= 0.05 |
# | three of them pass under a cotangent of ones | `ones_are_blind` | <= 1e-08 |
# | a forgotten mean shows along 1 | `mean_term_shows_along_ones` | >= 0.05 |
# | a forgotten projection shows along x - mean | `projection_shows_along_x` | >= 0.05 |
# | a forgotten gain keeps both laws | `missing_gain_keeps_both_laws` | <= 0.0001 |
# | the gap is wider after 50 steps (lower end) | `layer_norm_widens_the_early_gap` | >= 0.03 |
# | it learns wrong labels sooner (lower end) | `layer_norm_learns_wrong_labels_sooner` | >= 0.1 |
# | wrong labels learnt after 50 steps, with layer norm | `nine_tenths_with_layer_norm` | >= 0.8 |
# | wrong labels learnt after 50 steps, plain | `about_half_without` | <= 0.6 |
# | gap closed after 300 steps, against dropout | `gap_closed_against_dropout` | <= 0.5 |
# | test loss won after 300 steps, against dropout | `nats_closed_against_dropout` | <= 0.5 |
# | both small GPTs start near ln V | `both_start_at_ln_v` | <= 0.1 |
# | largest usable rate, with against without | `layer_norm_makes_room` | >= 3 |
# | at the smallest rate layer norm is behind (nats) | `no_better_at_the_smallest_rate` | >= 0.03 |
# | the best loss is lower with it (nats) | `best_with_layer_norm_is_lower` | >= 0.03 |
# | flat over rates where the other diverges (nats) | `flat_where_the_other_diverges` | <= 0.2 |
# | eps > 0: a constant row gives 0 (S2:119) | `positive_eps_gives_zero` | <= 0 |
# | eps = 0 or below gives NaN (S2:119) | `eps_not_above_zero_gives_nan` | >= 1 |
# | without gain every row has length 8 (S2:116) | `all_rows_have_length_8` | <= 1e-05 |
# | without gain 5x + 2 is x (S2:116) | `five_x_plus_two_is_the_same` | <= 1e-06 |
# | gain and offset free the lengths | `gain_and_offset_free_the_lengths` | >= 1 |
# | it learns wrong labels by heart (S2:113) | `layer_norm_memorises_wrong_labels` | >= 0.95 |
# | batch norm leaks from later positions and other texts (S4:105) | `batch_norm_leaks` | >= 0.1 |
# | layer norm does not | `layer_norm_does_not_leak` | <= 0 |
# | batch norm of one token is zero | `batch_norm_of_one_token_is_zero` | <= 0 |
# | layer norm of one token is not | `layer_norm_of_one_token_is_not` | >= 0.5 |
#
# **Not checked:** that layer norm helps other networks, data or optimizers than these two
# experiments; why it helps beyond (11.17) to (11.21), which is still argued about; the cause that
# Santurkar et al. found for batch norm; batch norm's running averages; the speed of the package's
# sums against NumPy's `mean`; and the two papers' own results.
