# %% [markdown]
# # 00 · How to check a gradient, and how checks lie
#
# ## Question
#
# How do you find out whether a gradient is right, and how can a check say yes to one that is
# wrong?
#
# - **Read before:** nothing but the chain rule
# - **Package file:** `minigpt/gradcheck.py` (`check_grads`)
# - **Minutes:** 60 to read, 130 for the exercises
# - **Runs in:** under 40 seconds on one core

# %% role="setup"
import inspect
import math
import time

import numpy as np

from minigpt import data, gradcheck, ops, reference
from minigpt import functional as F
from minigpt.backend import to_numpy, xp
from minigpt.baselines.ngram import NGram
from minigpt.drawing import BLUE, GREEN, GREY, PURPLE, RED, YELLOW, plt, save_figure, style
from minigpt.gradcheck import GradientError, check_grads, check_parameters
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
from minigpt.optim import AdamW
from minigpt.tensor import Tensor, no_grad, primitive
from minigpt.tokenizer import CharTokenizer

style()
rng = np.random.default_rng(0)

# %% [markdown]
# ## Intuition
#
# A derivative is a claim about a small step, so take the step. Is the derivative of $x^3$ at
# $x=2$ equal to $12$? Go $0.1$ to the right, go $0.1$ to the left, and divide the difference by
# the distance:
#
# $$\frac{2.1^3-1.9^3}{0.2}=\frac{9.261-6.859}{0.2}=12.01. \tag{00.1}$$
#
# Not $12$, but $8$ (from $2x^2$) and $6$ (from $3x$) are out of the question. That is the whole
# idea. Everything else in this chapter is about two questions: how far from $12$ may the number
# be, and *what* do we differentiate when the output is not one number?
#
# The second is the dangerous one. Softmax turns scores $x\in\mathbb R^4$ into probabilities
# $p_i=e^{x_i}/\sum_je^{x_j}$. To check its gradient we need one number, so let us add up the
# outputs, as `softmax(x).sum().backward()` does. But $p_1+p_2+p_3+p_4=1$, whatever $x$ is. The
# derivative of a constant is zero. **A backward pass that returns nothing but zeros passes this
# check.** Ask for the first output alone instead, $g=(1,0,0,0)$ at $x=(0,0,0,0)$, and the right
# answer is
#
# $$dx=\left(\tfrac3{16},\ -\tfrac1{16},\ -\tfrac1{16},\ -\tfrac1{16}\right). \tag{00.2}$$
#
# Zeros fail at once.


# %%
def central(phi, h):
    """Central difference at 0 of phi: a number -> a number."""
    return (phi(h) - phi(-h)) / (2 * h)


def softmax(x):
    """Each row of x (..., n) as probabilities. The shift changes nothing but avoids overflow."""
    e = np.exp(x - x.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


check("cube", abs(central(lambda t: (2 + t) ** 3, 0.1) - 12.01), at_most=1e-12)
first = central_differences(lambda x: softmax(x)[0], np.zeros(4))
total = central_differences(lambda x: softmax(x).sum(), np.array([0.3, -1.0, 2.0, 0.5]))
print("first output:", first.round(6), "  sum of outputs:", total.round(6))
check("four_equal_scores", rel_error(first, np.array([3, -1, -1, -1]) / 16), at_most=1e-10)
check("sum_of_outputs_is_constant", np.abs(total), at_most=1e-12)

# %% [markdown]
# ## Derivation
#
# ### What a check compares
#
# Let $f:\mathbb R^n\to\mathbb R^m$, with $x\in\mathbb R^n$ and the Jacobian
# $J_{ki}=\partial f_k/\partial x_i$ of shape $(m,n)$. A backward pass never builds $J$. It gets a
# **cotangent** $g\in\mathbb R^m$ (how much the final loss gains for each output) and returns
# $dx\in\mathbb R^n$ (how much it gains for each input). By the chain rule
# $dx_i=\sum_kg_kJ_{ki}$, the **vector-Jacobian product** or VJP.
#
# Move $x$ along a direction $u\in\mathbb R^n$ by a number $t$, and weigh the outputs with $g$.
# That leaves one function of one number:
#
# $$\varphi(t)=\sum_kg_k\,f_k(x+tu).$$
#
# Its derivative at $0$ is $\sum_kg_k\sum_iJ_{ki}u_i$. Sum over $k$ first and the VJP appears:
#
# $$\varphi'(0)=\langle g,Ju\rangle=\langle J^\top g,u\rangle=\langle\mathrm{vjp}(g),u\rangle.
# \tag{00.3}$$
#
# The left side needs only *values* of $f$. The right side needs only the backward pass. So a
# check is: draw $g$ and $u$, difference $\varphi$ numerically, take one inner product, compare.
# It costs two evaluations of $f$ however large $n$ is. With $u=(0,\dots,1,\dots,0)$ it checks one
# entry of $dx$, and all entries cost $2n$ evaluations.
#
# A function with several arguments is checked in one at a time, the others held fixed.

# %%
A, x, u = rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=5)
g = rng.normal(size=3)
slope = complex_step(lambda t: (g * np.tanh(A @ (x + t * u))).sum(), np.zeros(()))
dx = A.T @ (g * (1 - np.tanh(A @ x) ** 2))  # the VJP of tanh(A x), by the chain rule
check("vjp_is_a_slope", rel_error(slope, np.array(dx @ u)), at_most=1e-13)

# %% [markdown]
# ### Truncation: the step is not small enough
#
# Write $\varphi^{(k)}$ for the $k$-th derivative at $0$. Taylor's series at $\pm h$ is
#
# $$\varphi(\pm h)=\varphi\pm h\varphi'+\frac{h^2}2\varphi''\pm\frac{h^3}6\varphi'''
# +\frac{h^4}{24}\varphi^{(4)}\pm\frac{h^5}{120}\varphi^{(5)}+\dots$$
#
# **Forward difference.** Subtract $\varphi$ and divide by $h$:
#
# $$\frac{\varphi(h)-\varphi(0)}h=\varphi'+\frac h2\varphi''+O(h^2). \tag{00.4}$$
#
# **Central difference.** Subtract the two signs from each other: every even term cancels, the one
# with $\varphi''$ among them. Divide by $2h$:
#
# $$C(h)=\frac{\varphi(h)-\varphi(-h)}{2h}
# =\varphi'+\frac{h^2}6\varphi'''+\frac{h^4}{120}\varphi^{(5)}+O(h^6). \tag{00.5}$$
#
# **Richardson's extrapolation** (1911). We know how the error depends on $h$: doubling $h$
# multiplies the $h^2$ term by $4$. So $4C(h)-C(2h)$ has none of it, and three times $\varphi'$.
# The $h^4$ term becomes $(4-16)/3\cdot h^4/120=-h^4/30$:
#
# $$R(h)=\frac{4C(h)-C(2h)}3=\varphi'-\frac{h^4}{30}\varphi^{(5)}+O(h^6). \tag{00.6}$$
#
# One more power of $h$ for the second evaluation, two more for the next two.


# %%
def forward(phi, h):
    return (phi(h) - phi(0.0)) / h


def richardson(phi, h):
    return (4 * central(phi, h) - central(phi, 2 * h)) / 3


def against_leading_term(rule, h, coefficient, order):
    """|error / (coefficient h**power phi^(order)) - 1|, for e^t and sin t at t = 1."""
    sin, cos = math.sin(1), math.cos(1)
    derivatives = ([math.e] * 6, [sin, cos, -sin, -cos, sin, cos])  # phi, phi', phi'', ...
    ratios = []
    for f, d in zip((np.exp, np.sin), derivatives, strict=True):
        error = rule(lambda t, f=f: f(1 + t), h) - d[1]
        ratios.append(error / (coefficient * h ** (order - 1) * d[order]))
    return np.abs(np.array(ratios) - 1)


check("forward_error", against_leading_term(forward, 1e-4, 1 / 2, 2), at_most=1e-4)
check("central_error", against_leading_term(central, 1e-2, 1 / 6, 3), at_most=1e-4)
check("richardson_error", against_leading_term(richardson, 3e-2, -1 / 30, 5), at_most=1e-3)

# %% [markdown]
# ### Rounding: the step is too small
#
# A computer knows $\varphi$ only to a relative error of about $\varepsilon=2.2\cdot10^{-16}$, the
# spacing of float64 numbers at $1$. So each of the two values is off by up to
# $\varepsilon\lvert\varphi\rvert$. Near each other as they are, their *difference* is off by up to
# twice that, and it is divided by the small number $2h$. The point itself is rounded too: at $x$
# the step $x+h$ lands up to $\frac12\varepsilon\lvert x\rvert$ beside its mark, which moves the
# value by that times $\varphi'$. Together
#
# $$\lvert\mathrm{rounding\ of\ }C(h)\rvert\le\frac{\varepsilon}{h}\left(\lvert\varphi\rvert
# +\tfrac12\lvert x\,\varphi'\rvert\right). \tag{00.7}$$
#
# This is for an $f$ that is itself computed to the last digit. After a sum over a million terms
# the noise is $\varepsilon$ times what was added up, not times what came out.

# %%
xs, hs = rng.uniform(-2, 2, 4000), 10 ** rng.uniform(-12, -7, 4000)
eps = np.finfo(float).eps
error = np.abs((np.exp(xs + hs) - np.exp(xs - hs)) / (2 * hs) - np.exp(xs))
limit = eps / hs * (np.exp(xs) + 0.5 * np.abs(xs) * np.exp(xs))
check("rounding_stays_below", error / limit, at_most=1)
check("rounding_comes_near", (error / limit).max(), at_least=0.2)

# %% [markdown]
# ### The V-curve, and the best step
#
# Truncation grows with $h$, rounding shrinks with it. On logarithmic axes their sum is a V. Leave
# out the rounding of $x$, and let $\varphi,\varphi'',\varphi''',\dots$ stand for absolute values:
#
# $$E_C(h)=\frac{h^2}6\varphi'''+\frac{\varepsilon\varphi}h.$$
#
# The derivative in $h$ is $\frac h3\varphi'''-\varepsilon\varphi/h^2$. It vanishes at
#
# $$h_C=\left(\frac{3\,\varepsilon\,\varphi}{\varphi'''}\right)^{1/3}. \tag{00.8}$$
#
# There $h^3\varphi'''=3\varepsilon\varphi$, so truncation is half of rounding, and
#
# $$E_C(h_C)=\frac32\cdot\frac{\varepsilon\varphi}{h_C}
# =\frac32\left(\varepsilon\varphi\right)^{2/3}\left(\frac{\varphi'''}3\right)^{1/3}. \tag{00.9}$$
#
# **Two thirds of the digits**: with $\varepsilon\approx10^{-16}$, a step near $10^{-5}$ and an
# error near $10^{-11}$. The same sum for forward differences is
# $\frac h2\varphi''+2\varepsilon\varphi/h$, with the best step and error
#
# $$h_F=2\sqrt{\frac{\varepsilon\varphi}{\varphi''}},\qquad
# E_F(h_F)=2\sqrt{\varepsilon\,\varphi\,\varphi''}. \tag{00.10}$$
#
# **Half the digits.** For Richardson the rounding is
# $\frac13\left(4+\frac12\right)\varepsilon\varphi/h=\frac32\varepsilon\varphi/h$, the truncation
# $\frac1{30}h^4\varphi^{(5)}$. Setting $\frac4{30}h^3\varphi^{(5)}=\frac32\varepsilon\varphi/h^2$
# gives
#
# $$h_R=\left(\frac{45}4\cdot\frac{\varepsilon\,\varphi}{\varphi^{(5)}}\right)^{1/5},\qquad
# E_R(h_R)=\frac{15}8\cdot\frac{\varepsilon\,\varphi}{h_R}: \tag{00.11}$$
#
# **four fifths of the digits**, at a step near $10^{-3}$. Better rules want *larger* steps. To
# test this we take $e^x$ at 41 points, where every derivative equals $\varphi$, and the median
# error relative to it. The constants above are worst cases: typical errors lie below.

# %%
points, steps = np.linspace(-1, 1, 41), np.logspace(-15, 0, 61)
h_F, h_C, h_R = 2 * eps**0.5, (3 * eps) ** (1 / 3), (45 / 4 * eps) ** 0.2
RULES = {  # rule -> colour, best h and its error by the formulas, where phi = phi'' = ...
    "forward": (forward, YELLOW, h_F, h_F),
    "central": (central, BLUE, h_C, 1.5 * eps ** (2 / 3) * (1 / 3) ** (1 / 3)),
    "Richardson": (richardson, GREEN, h_R, 15 / 8 * eps / h_R),
}


def v_curve(rule):
    """The median relative error of a rule at each step, for e^x at the points."""
    return np.array([np.median(np.abs(rule(lambda t: np.exp(points + t), h) / np.exp(points) - 1))
                     for h in steps])


curves = {name: v_curve(rule) for name, (rule, *_) in RULES.items()}
best = {name: int(curve.argmin()) for name, curve in curves.items()}
show_table(["rule", "best h", "formula", "error there", "formula"],
           [[name, steps[i], RULES[name][2], curves[name][i], RULES[name][3]]
            for name, i in best.items()])
apart = {name: abs(math.log10(steps[i] / RULES[name][2])) for name, i in best.items()}
check("best_central_step", apart["central"], at_most=0.7)
check("best_forward_step", apart["forward"], at_most=0.7)
check("best_richardson_step", apart["Richardson"], at_most=0.4)
share = {name: curves[name][i] / RULES[name][3] for name, i in best.items()}
check("best_errors_are_below", list(share.values()), at_most=1)
check("best_errors_are_near", list(share.values()), at_least=0.005)

# %% [markdown]
# ### The complex step: a difference without a difference
#
# The V has a left arm because two nearly equal numbers are subtracted. Lyness and Moler (1967)
# and Squire and Trapp (1998, SIAM Review 40) avoid it. If $\varphi$ is analytic (sums, products,
# quotients, powers, $\exp$, $\log$, $\tanh$), Taylor's series holds for a complex step too:
#
# $$\varphi(\mathrm ih)=\varphi+\mathrm ih\,\varphi'-\frac{h^2}2\varphi''
# -\mathrm i\frac{h^3}6\varphi'''+\dots$$
#
# Here $\varphi$ and its derivatives are real. The derivative stands alone in the imaginary part:
#
# $$\frac{\mathrm{Im}\,\varphi(\mathrm ih)}h=\varphi'-\frac{h^2}6\varphi'''+O(h^4). \tag{00.12}$$
#
# Nothing is subtracted, so $h$ may be $10^{-20}$. Then the truncation is of order $10^{-40}$, and
# what is left is the rounding of one evaluation: all the digits there are.


# %%
def imaginary(phi, h):
    return np.imag(phi(1j * h)) / h


check("complex_step_error", against_leading_term(imaginary, 1e-2, -1 / 6, 3), at_most=1e-4)
curves["complex step"] = v_curve(imaginary)
tiny = np.abs(imaginary(lambda t: np.exp(points + t), 1e-20) / np.exp(points) - 1)
check("complex_step_has_all_digits", tiny, at_most=1e-15)

# %%
fig, axes = plt.subplots(figsize=(7.5, 4.6))
colours = {**{name: colour for name, (_, colour, *_) in RULES.items()}, "complex step": PURPLE}
for name, curve in curves.items():
    axes.plot(steps, np.maximum(curve, 2e-17), color=colours[name],
              ls="--" if name == "complex step" else "-")
for name, i in best.items():
    axes.plot(steps[i], curves[name][i], "o", color=colours[name])
    axes.plot(*RULES[name][2:], "x", color=colours[name], ms=9, mew=2)
for name, at in (("forward", (2e-6, 8e-5)), ("central", (2e-5, 2e-7)),
                 ("Richardson", (2e-2, 2e-12)), ("complex step", (2e-13, 6e-17))):
    axes.text(*at, name, color=colours[name])
axes.annotate("rounding,\nfalls as $1/h$", (1e-11, 5e-6), (2e-15, 2e-9), color=GREY,
              arrowprops={"arrowstyle": "->", "color": GREY})
axes.text(1e-3, 0.05, "truncation: slopes\n1, 2 and 4", color=GREY, ha="right")
axes.text(3e-15, 4e-15, "o  measured best step\nx  step and bound by the formulas", color=GREY,
          size=11)
axes.set(xscale="log", yscale="log", xlabel="step h", ylabel="relative error (median)",
         ylim=(1e-17, 10), title="Every difference is a V; the complex step has no left arm")
save_figure(fig, "00_v_curves.svg")
plt.show()

# %% [markdown]
# **Where it does not apply.** Analytic is a strong word. The modulus of a complex number is
# $\lvert x+\mathrm ih\rvert=\sqrt{x^2+h^2}$, a *real* number, and so is $z\bar z$. They have no
# imaginary part to read:
#
# $$\frac{\mathrm{Im}\lvert x+\mathrm ih\rvert}h=0\ne\mathrm{sign}(x),\qquad
# \frac{\mathrm{Im}\,(x+\mathrm ih)(x-\mathrm ih)}h=0\ne2x. \tag{00.13}$$
#
# Nobody writes $z\bar z$ by accident. But `np.abs`, `np.var`, `np.std` and `np.linalg.norm` all
# take the modulus of complex input, and so give zero slopes without a word. The maximum is
# treacherous in another way. NumPy orders complex numbers by their real parts first. So away from
# ties `np.maximum` happens to be right, and *at* a tie the imaginary part decides: it reports
# slope 1 where there is no slope.

# %%
modulus = complex_step(np.abs, np.array(-3.0)).item()
square = complex_step(lambda z: z * z.conj(), np.array(3.0)).item()
variance = complex_step(np.var, np.array([1.0, 2.0, 6.0]))
check("modulus_has_no_imaginary_part", np.abs([modulus, square, *variance]), at_most=0)
truth = central_differences(np.var, np.array([1.0, 2.0, 6.0]))
print("slope of np.var, complex step:", variance, " true:", truth.round(6))
check("so_the_slope_is_wrong", np.abs(truth).max(), at_least=1)
hinge = [complex_step(lambda z: np.maximum(z, 0), np.array(x)).item() for x in (2.0, -2.0, 0.0)]
print("slope of max(x, 0) at 2, -2 and 0:", hinge)
check("maximum_away_from_a_tie", abs(hinge[0] - 1) + abs(hinge[1]), at_most=0)
check("maximum_at_a_tie_says_1", hinge[2], at_least=1)

# %% [markdown]
# ### One direction: what it sees and what it misses
#
# Let a wrong backward pass return $dx+\delta$ with an error $\delta\in\mathbb R^n$. The check
# along $u$ measures $\langle\delta,u\rangle$. Say only entry $i$ is wrong, by $e$. Then
# $\langle\delta,u\rangle=e\,u_i$, and an absolute tolerance $\tau$ misses it if
# $\lvert u_i\rvert<\tau/\lvert e\rvert$: an interval of length $2\tau/\lvert e\rvert$ around zero.
# For $u_i\sim N(0,1)$ the density there is $1/\sqrt{2\pi}$, and the product of the two is
#
# $$P(\mathrm{missed})=P\left(\lvert u_i\rvert<\frac\tau{\lvert e\rvert}\right)
# \approx\sqrt{\frac2\pi}\cdot\frac\tau{\lvert e\rvert}\approx0.8\,\frac\tau{\lvert e\rvert}.
# \tag{00.14}$$
#
# An error a thousand times the tolerance slips through once in 1,250 checks, and twice in a row
# (with fresh directions) once in 1.5 million. Directions of $\pm1$ see a single wrong entry
# always, as $\lvert e\,u_i\rvert=\lvert e\rvert$. But two equal errors (a symmetric mistake!)
# cancel if the signs differ:
#
# $$P(e\,u_i+e\,u_j=0)=\tfrac12\qquad(u_i,u_j=\pm1). \tag{00.15}$$
#
# Gaussian directions have no such blind spots: a sum of independent Gaussians is Gaussian, with
# the sum of the variances,
#
# $$\langle\delta,u\rangle\sim N\left(0,\ \lvert\delta\rvert^2\right),\qquad
# \lvert\delta\rvert^2=\sum_i\delta_i^2. \tag{00.16}$$
#
# Only the length of $\delta$ matters, not where it lies. $n$ small errors of size $e$ with any
# signs add up like a random walk: to $e\sqrt n$, not $en$, and not $0$.

# %%
n, draws, e = 100, 50_000, 1e-3
normal = rng.standard_normal((draws, n))
signs = np.sign(normal)
missed = (np.abs(e * normal[:, 7]) < 0.05 * e).mean()
check("one_wrong_entry_missed", abs(missed / (math.sqrt(2 / math.pi) * 0.05) - 1), at_most=0.1)
cancelled = (np.abs(e * signs[:, 3] + e * signs[:, 8]) < 1e-9).mean()
check("signs_cancel_half_the_time", abs(cancelled - 0.5), at_most=0.02)
errors = {"one entry": e * np.eye(n)[0], "all equal": np.full(n, e), "alternating": e * signs[0]}
seen = {name: (normal @ delta).std() / np.linalg.norm(delta) for name, delta in errors.items()}
print("typical |<delta, u>| / |delta|:", {name: round(float(s), 3) for name, s in seen.items()})
check("random_walk", np.abs(np.array(list(seen.values())) - 1), at_most=0.02)

# %% [markdown]
# **With a relative tolerance.** A check must not depend on the units of the loss, so it divides
# by the derivative itself, $\langle dx,u\rangle\sim N(0,\lvert dx\rvert^2)$. For $\delta$ at right
# angles to $dx$ the two are independent Gaussians. The quotient of two standard Gaussians is the
# tangent of a uniform angle (a Cauchy variable), so
#
# $$P\left(\frac{\lvert\langle\delta,u\rangle\rvert}{\lvert\langle dx,u\rangle\rvert}<\tau\right)
# =\frac2\pi\arctan\frac{\tau\,\lvert dx\rvert}{\lvert\delta\rvert}. \tag{00.17}$$
#
# So what counts is $\lvert\delta\rvert/\lvert dx\rvert$ against $\tau$. Read it backwards: **a
# single wrong entry hides among many right ones.** If one of $n$ entries of like size is off by a
# share $r$ of it, then $\lvert\delta\rvert/\lvert dx\rvert=r/\sqrt n$. One part in $10^5$ in one
# entry of a hundred gives $10^{-6}$. Under the tolerance $\tau=10^{-6}$ one direction misses it in
# $\frac2\pi\arctan1=50\,\%$ of all cases. Whoever looks for so small an error must look at every
# entry. The package's `check_grads` is such a one-direction check (it looks at entries only after
# a failure), so we can hold it to the formula: 80 seeds, $n=64$, $r=8\cdot10^{-6}$, which is again
# $r/\sqrt n=\tau$.
#
# `op_of` makes an op of the package of what was derived in NumPy. The package may compute on a GPU
# (`MINIGPT_BACKEND=cupy`). A GPU's arrays do not turn into NumPy's by themselves, nor back: that
# copies them, so it is written out. `to_numpy` brings an array to NumPy, `xp.asarray` takes one to
# the package's library. Where that is NumPy, both return what they were given. So does
# `.numpy()`, for the data of a Tensor.


# %%
def op_of(f, vjp):
    """A package op, for Tensors, of NumPy functions f(*arrays) and vjp(g, *arrays)."""

    def forward(*arrays):
        arrays = [to_numpy(x) for x in arrays]
        out = xp.asarray(f(*arrays))
        return out, lambda g: [xp.asarray(dx) for dx in vjp(to_numpy(g), *arrays)]

    return primitive(forward)


def accepted(f, vjp, *arrays, **options):
    """Does the package's check_grads accept it?"""
    try:
        check_grads(op_of(f, vjp), *arrays, **options)
    except GradientError:
        return False
    return True


def one_entry_off(share):
    """tanh's VJP, with one entry off by a share of the typical entry."""

    def vjp(g, x):
        dx = g * (1 - np.tanh(x) ** 2)
        dx[3, 5] += share * np.sqrt((dx**2).mean())
        return (dx,)

    return vjp


dx, ortho = rng.normal(size=(2, n))
ortho -= dx * (ortho @ dx) / (dx @ dx)
ratios = np.abs(normal @ ortho) / np.abs(normal @ dx) * np.linalg.norm(dx) / np.linalg.norm(ortho)
formula = 2 / math.pi * np.arctan([0.1, 1.0, 3.0])
measured = np.array([(ratios < bound).mean() for bound in (0.1, 1.0, 3.0)])
check("quotient_of_gaussians", np.abs(measured / formula - 1), at_most=0.06)
x = rng.normal(size=(8, 8))
passes = np.mean([accepted(np.tanh, one_entry_off(8e-6), x, seed=seed) for seed in range(80)])
print(f"one entry of 64 off by 8e-6: check_grads accepts it {passes:.0%} of the time")
check("package_misses_as_often", abs(passes - 2 / math.pi * math.atan(1)), at_most=0.2)
leaf = Tensor(x, requires_grad=True)
op = op_of(np.tanh, one_entry_off(8e-6))
try:
    check_parameters(lambda: op(leaf), [("x", leaf)], elementwise=True)
except GradientError as said:
    print("every entry:", said)
    check("every_entry_finds_it", int("x[3, 5]" in str(said)), at_least=1)

# %% [markdown]
# ### The cotangent: why ones are a trap
#
# A check never sees $J$. It sees $J^\top g$, for the $g$ at hand. With $g=\mathbf 1$ (all ones) it
# sees the gradient of the *sum of the outputs*:
#
# $$J^\top\mathbf 1=\nabla_x\sum_kf_k(x). \tag{00.18}$$
#
# Softmax: $\partial p_k/\partial x_i=p_k(\delta_{ki}-p_i)$, where $\delta_{ki}=1$ if $k=i$, else
# $0$. (Quotient rule; the checks below do not use it.) Sum over $k$, with $\sum_kp_k=1$:
#
# $$\sum_kp_k(\delta_{ki}-p_i)=p_i-p_i\sum_kp_k=0,\qquad J^\top\mathbf 1=0. \tag{00.19}$$
#
# Layer norm without gain: $\hat x_k=(x_k-m)\,r$ with the mean $m$ and $r$ one over the standard
# deviation. The sum of the centred row is zero, so
#
# $$\sum_k\hat x_k=r\left(\sum_kx_k-nm\right)=0\ \ \mathrm{for\ all\ }x,
# \qquad J^\top\mathbf 1=0. \tag{00.20}$$
#
# In general a wrong Jacobian $J+D$ is told apart by the pair $(g,u)$ only through one number:
#
# $$\langle(J+D)^\top g,u\rangle-\langle J^\top g,u\rangle=\langle D^\top g,u\rangle
# =\sum_{k,i}g_k\,D_{ki}\,u_i. \tag{00.21}$$
#
# It is a polynomial in $g$ and $u$. If $D\ne0$, it vanishes only on a set of measure zero: random
# Gaussian $g$ and $u$ miss $D$ with probability $0$, up to the tolerance. A *fixed* $g$ is
# blind to the whole space of $D$ with $D^\top g=0$, and for $g=\mathbf 1$ the most natural
# mistakes lie there: forgotten terms that sum to zero, rows in the wrong order, zeros, and every
# VJP that does not use $g$.


# %%
def normalise(x, eps=1e-5):
    """Each row with mean 0 and variance 1 (layer norm without gain)."""
    c = x - x.mean(-1, keepdims=True)
    return c * ((c * c).mean(-1, keepdims=True) + eps) ** -0.5


def jacobian(f, x):
    """d f(x)_k / d x_i by complex steps. x (n,), f(x) (m,) -> (m, n)."""
    return np.stack([complex_step(lambda z, k=k: f(z)[k], x) for k in range(len(f(x)))])


x, ones = rng.normal(size=6), np.ones(6)
J_soft, J_norm = jacobian(softmax, x), jacobian(normalise, x)
x5 = rng.normal(size=5)
of_sum = complex_step(lambda z: np.tanh(A @ z).sum(), x5)
columns = (A * (1 - np.tanh(A @ x5) ** 2)[:, None]).sum(0)  # J^T 1, J of tanh(A x)
check("ones_see_the_sum", rel_error(of_sum, columns), at_most=1e-13)
check("softmax_under_ones", np.abs(J_soft.T @ ones) / np.abs(J_soft).max(), at_most=1e-14)
check("layer_norm_under_ones", np.abs(J_norm.T @ ones) / np.abs(J_norm).max(), at_most=1e-14)
D, g, u = -J_soft, rng.normal(size=6), rng.normal(size=6)  # J + D = 0: the VJP of zeros
seen = -complex_step(lambda t: (g * softmax(x + t * u)).sum(), np.zeros(())).item()
check("a_pair_sees_one_number", abs(g @ D @ u / seen - 1), at_most=1e-12)


def zeros(g, x):
    return (np.zeros_like(x),)


verdicts = {f.__name__: accepted(f, zeros, x) for f in (softmax, normalise)}
print("a VJP of zeros, random cotangent: accepted?", verdicts)
check("zeros_fail_under_random_g", list(verdicts.values()), at_most=0)

# %% [markdown]
# ### Kinks
#
# At a kink $\varphi$ has a slope $s_-$ to the left, another $s_+$ to the right, and no derivative.
# The central difference has a value all the same. With $\varphi(h)=\varphi+s_+h+O(h^2)$ and
# $\varphi(-h)=\varphi-s_-h+O(h^2)$
#
# $$C(h)=\frac{s_-+s_+}2+O(h). \tag{00.22}$$
#
# ReLU at $0$: $\frac12$, for every $h$, without any noise that could warn. A backward pass that
# returns $0$ there (a common choice) "fails"; one that returns $\frac12$ "passes", by luck. Of
# a tie in a maximum each entry gets half, so a backward pass that splits $g$ among the tied
# entries passes as well. Neither verdict means anything: there is no derivative to be right about.
#
# A kink *near* $x$ is as bad. For ReLU at $\delta$ with $0<\delta<h$ the left point is cut off at
# $0$:
#
# $$C(h)=\frac{(\delta+h)-0}{2h}=\frac12+\frac\delta{2h}\ne1. \tag{00.23}$$
#
# Is that rare? Move $x_i\sim N(0,1)$ by $h\,u_i$, $u_i\sim N(0,1)$. The sign flips on one side or
# the other if $\lvert x_i\rvert<h\lvert u_i\rvert$: again a quotient of Gaussians,
#
# $$P(\mathrm{crossed})=\frac2\pi\arctan h\approx\frac{2h}\pi. \tag{00.24}$$
#
# A network with a million ReLUs crosses 64 of them at $h=10^{-4}$, each spoiling a little.
#
# A kink can be *seen*. The second difference, over $h$, is the jump of the slope there, and goes
# to zero with $h$ where $\varphi$ is smooth:
#
# $$B(h)=\frac{\varphi(h)-2\varphi(0)+\varphi(-h)}h
# =(s_+-s_-)+O(h),\qquad\mathrm{smooth:}\ B(h)=h\,\varphi''+O(h^3). \tag{00.25}$$
#
# The package watches $B$ while its step shrinks, output by output. If $B$ does not shrink too, it
# says *kink*, whatever the gradient.


# %%
def bend(phi, h):
    return (phi(h) - 2 * phi(0.0) + phi(-h)) / h


def bent(t):
    """Slope 0 to the left of 0 and 4 to the right, and curved on both sides."""
    return np.where(t < 0, -t, 3 * t) + 5 * t * t + np.exp(t)


check("central_is_the_mean_slope", abs(central(bent, 1e-4) - 2), at_most=1e-6)  # (0 + 4) / 2
spoilt = [central(lambda t, d=d: max(d + t, 0), 1e-3) - 0.5 - d / 2e-3 for d in (1e-4, 6e-4)]
check("near_a_kink", np.abs(spoilt), at_most=1e-12)
a, b = rng.normal(size=(2, 2_000_000))
crossed = (np.abs(a) < 0.01 * np.abs(b)).mean()
check("kinks_crossed", abs(crossed / (2 / math.pi * math.atan(0.01)) - 1), at_most=0.05)
check("bend_is_the_jump", abs(bend(bent, 1e-6) - 4), at_most=1e-4)
smooth = [bend(lambda t: np.exp(2 * t), h) / (4 * h) for h in (1e-3, 1e-4)]
check("smooth_bend_goes_with_h", np.abs(np.array(smooth) - 1), at_most=1e-5)

# %%
relu_at_0 = {slope: lambda g, x, slope=slope: (g * np.where(x == 0, slope, x > 0),)
             for slope in (0.0, 0.5)}
x = np.array([1.0, 0.0, -2.0])
verdicts = {}
for slope, vjp in relu_at_0.items():
    numeric = central(lambda t: np.maximum(x + t * np.eye(3)[1], 0).sum(), 1e-6)
    by_difference = abs(vjp(np.ones(3), x)[0][1] - numeric) < 1e-6
    try:
        check_grads(op_of(lambda x: np.maximum(x, 0), vjp), x)
        said = "accepted"
    except GradientError as refusal:
        said = str(refusal)
    verdicts[slope] = said
    print(f"slope {slope} at 0: central difference accepts: {by_difference}; package: {said}")
check("package_names_the_kink", ["kink" in said for said in verdicts.values()], at_least=1)

# %% [markdown]
# ### float32
#
# All of the above with $\varepsilon=1.2\cdot10^{-7}$. By (00.8) the best central step is
# $7\cdot10^{-3}$ and by (00.9) the error there up to $2.5\cdot10^{-5}$: **no step gives six
# digits**. At $h=10^{-6}$, the step of many float64 checks, the noise is up to
# $\varepsilon/h\approx10\,\%$. So whoever checks in float32 must use a tolerance of a
# per cent or so, and every mistake below a per cent passes.

# %%
single = np.array([np.median(np.abs(
    (np.exp((points + h).astype("f4")) - np.exp((points - h).astype("f4")))
    / np.float32(2 * h) / np.exp(points) - 1)) for h in steps[steps > 1e-9]])
print(f"float32, central: best error {single.min():.1e}")
check("float32_best_error", single.min() / (1.5 * (2.0**-23) ** (2 / 3) / 3 ** (1 / 3)), at_most=1)
check("float32_never_gets_six_digits", single.min(), at_least=1e-6)
check("float32_at_the_usual_step", single[np.abs(steps[steps > 1e-9] / 1e-6 - 1).argmin()],
      at_least=0.005)
try:
    check_grads(ops.exp, np.ones(3, "float32"))
except ValueError as refused:
    print("the package:", refused)

# %% [markdown]
# ### Saturation
#
# $1-\tanh x=\frac{2}{e^{2x}+1}\approx2e^{-2x}$. Below $1$ float64 numbers lie $2^{-53}$ apart. If
# $2e^{-2x}<\frac12\cdot2^{-53}$, then $\tanh x$ is rounded to $1$, and $1-\tanh^2x$ to exactly $0$:
#
# $$\tanh x=1\ \ \mathrm{in\ float64\ for}\ \ x>\tfrac12\ln2^{55}=\tfrac{55}2\ln2\approx19.06.
# \tag{00.26}$$
#
# There the difference is $0$, the formula is $0$, a wrong formula with a factor $1-\tanh^2x$ or
# $p(1-p)$ is $0$, and "relative error $0/0$" is usually defined as $0$. All agree, and nothing was
# tested. Scores of size $1{,}000$ do it to softmax. Check at values of order 1, and look whether
# the gradients that you compared are zeros.

# %%
low, high = 15.0, 25.0
for _ in range(60):
    middle = (low + high) / 2
    low, high = (low, middle) if np.tanh(middle) == 1 else (middle, high)
print(f"tanh rounds to 1 from {high:.3f}; formula {27.5 * math.log(2):.3f}")
check("tanh_saturates", abs(high - 27.5 * math.log(2)), at_most=0.5)


def no_row_sum(g, x):
    """Softmax's VJP without its second term."""
    return (g * softmax(x),)


def diagonal_only(g, x):
    p = softmax(x)
    return (g * p * (1 - p),)


x = rng.normal(size=(3, 4))
blind = [accepted(softmax, vjp, 1000 * x) for vjp in (zeros, diagonal_only)]
clear = [accepted(softmax, vjp, x) for vjp in (zeros, diagonal_only)]
print("scores of size 1000: accepted", blind, "  of size 1:", clear)
check("saturation_accepts_anything", blind, at_least=1)
check("order_1_accepts_neither", clear, at_most=0)

# %% [markdown]
# ### Randomness
#
# Dropout draws a new mask in every call, so $\varphi(h)$ and $\varphi(-h)$ are values of two
# *different* functions. Let each of the products $g_ix_i$ be kept with probability $1-p$ and
# divided by it. Their sum has the variance $\frac p{1-p}\sum_i(g_ix_i)^2$, a difference of two
# draws has twice that, and it is divided by $2h$:
#
# $$\mathrm{std\ of\ }C(h)\approx\frac1{2h}\sqrt{\frac{2p}{1-p}\sum_i(g_ix_i)^2}. \tag{00.27}$$
#
# At $h=10^{-6}$ that is about a million: no tolerance will help. Give every call a fresh generator
# of the *same* seed, and the masks are the same: dropout is then a linear function like any other.
# The package calls $f$ twice, and refuses it if the two differ.

# %%
x, g, u, p, h = rng.normal(size=50), rng.normal(size=50), rng.normal(size=50), 0.2, 1e-6
fresh = np.random.default_rng(5)


def noisy(t, generator):
    """Dropout at x + t u, with one row of the result for each of 2000 masks."""
    return ((generator.random((2000, 50)) > p) / (1 - p) * (x + t * u)) @ g


spread = ((noisy(h, fresh) - noisy(-h, fresh)) / (2 * h)).std()
formula = math.sqrt(2 * p / (1 - p) * ((g * x) ** 2).sum()) / (2 * h)
print(f"spread of the difference quotient {spread:.3g}, by the formula {formula:.3g}")
check("dropout_noise", abs(spread / formula - 1), at_most=0.1)
try:
    check_grads(lambda x: F.dropout(x, p=p, rng=fresh), x)
except GradientError as refused:
    print("the package:", refused)
fixed = check_grads(lambda x: F.dropout(x, p=p, rng=np.random.default_rng(1)), x)
check("fixed_masks_are_checked", fixed, at_most=1e-9)

# %% [markdown]
# ### Tolerances: relative to what?
#
# Take **each entry relative to itself**, $\lvert dx_i-d_i\rvert/\lvert dx_i\rvert<\tau$, where
# $d_i$ is the difference. By (00.7) it carries a noise of about
# $\varepsilon\lvert\varphi\rvert/h$, however small $dx_i$ is. So even a right entry fails as soon
# as
#
# $$\lvert dx_i\rvert<\frac{\varepsilon\,\lvert\varphi\rvert}{h\,\tau}, \tag{00.28}$$
#
# with $\varphi\approx1$, $h=\tau=10^{-6}$ below $2\cdot10^{-4}$. Such entries are common (a small
# probability, a saturated unit), and the failure says nothing.
#
# Take **everything relative to a fixed size**, $\lvert\tilde d-dx\rvert<\tau\max(1,\lvert
# dx\rvert)$ or `allclose` with an absolute tolerance. A backward pass that is wrong by a factor of
# $k$ passes as soon as
#
# $$(k-1)\,\lvert dx\rvert\le\tau,\qquad\mathrm{so\ up\ to}\qquad
# k=1+\frac\tau{\lvert dx\rvert}. \tag{00.29}$$
#
# Gradients of a mean over $10^6$ terms are of size $10^{-6}$. With $\tau=10^{-3}$ a factor of
# 1,000 passes.
#
# **Right** is the middle: the largest error of an argument, relative to the largest entry of *that
# argument's* gradient (`rel_error` in `lab`), or the derivative along a direction relative to
# itself. And the scale may not be smaller than what the noise allows: the package takes at least
# $10^9$ times the noise, so that a gradient that is exactly zero can be right too.

# %%
xs, tau, h = np.linspace(0.2, 13, 400), 1e-6, 1e-6  # the last units are nearly saturated
slopes = 1 - np.tanh(xs) ** 2
found = central(lambda t: np.tanh(xs + t), h)
fails = np.abs(found - slopes) > tau * slopes
print(f"a right gradient of {len(xs)} entries: {fails.sum()} fail, each relative to itself;",
      f"as an array it is off by {rel_error(found, slopes):.1e}")
check("right_entries_fail", fails.sum(), at_least=50)
check("only_entries_that_small_fail", slopes[fails] / (eps / (h * tau)), at_most=1)
check("as_an_array_it_passes", rel_error(found, slopes), at_most=1e-8)
size, tau = 1e-6, 1e-3
largest = max(k for k in range(1, 3000) if abs(k * size - size) <= tau * max(1, size))
check("factor_that_passes", abs(largest / (1 + tau / size) - 1), at_most=0.01)

# %% [markdown]
# ### A falling loss proves one inequality
#
# Let $d\in\mathbb R^n$ be whatever the backward pass returned, $L$ the loss. A step of size
# $\eta>0$ along $-d$ gives
#
# $$L(x-\eta d)=L(x)-\eta\,\langle d,\nabla L\rangle+O(\eta^2). \tag{00.30}$$
#
# It falls for **every** $d$ with $\langle d,\nabla L\rangle>0$: half of all directions there are.
# A "gradient" of random numbers makes the loss fall in every other case. That the loss falls says
# that an angle is below 90 degrees, in which one fact about thousands of numbers is right. The
# experiment will show how well such gradients train.


# %%
def loss(x):
    return (np.log(np.exp(x).sum()) - x[0]).item()  # cross-entropy of scores x for class 0


x, directions = rng.normal(size=40), rng.normal(size=(4000, 40))
change = np.array([loss(x - 1e-5 * d) - loss(x) for d in directions])
p = softmax(x)
inner = directions @ (p - np.eye(40)[0])  # <d, gradient of the loss>
check("first_order_change", rel_error(change, -1e-5 * inner), at_most=1e-4)
print(f"of 4000 random 'gradients' {np.mean(change < 0):.1%} make the loss fall")
check("half_of_all_directions", abs(np.mean(change < 0) - 0.5), at_most=0.04)

# %% [markdown]
# ## Code
#
# All decisions in twenty lines: random cotangent, random direction, float64, Richardson at a step
# near $10^{-3}$ of the argument's size (00.11), an error relative to the derivative itself, and a
# refusal of wrong shapes and NaN.


# %%
def check_by_hand(f, vjp, *arrays, seed=0):
    """The worst relative error of vjp(g, *arrays), along one random direction an argument."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal(f(*arrays).shape)  # never ones
    errors = []
    for i, (x, dx) in enumerate(zip(arrays, vjp(g, *arrays), strict=True)):
        if x.dtype != np.float64 or dx.shape != x.shape:
            raise ValueError(f"argument {i}: {x.dtype} {x.shape}, gradient {dx.shape}")
        u = rng.standard_normal(x.shape)

        def phi(t, i=i, x=x, u=u):
            return (g * f(*arrays[:i], x + t * u, *arrays[i + 1:])).sum()

        h = 1e-3 * max(1, np.abs(x).max())
        difference, claimed = richardson(phi, h), (dx * u).sum()
        errors.append(abs(claimed - difference) / max(abs(claimed), abs(difference)))
    return np.max(errors)  # unlike Python's max it keeps a NaN, which is below no tolerance


def softmax_vjp(g, x):
    p = softmax(x)
    return (p * (g - (g * p).sum(-1, keepdims=True)),)


x = rng.normal(size=(4, 4))
by_hand = {vjp.__name__: check_by_hand(softmax, vjp, x)
           for vjp in (softmax_vjp, zeros, diagonal_only, no_row_sum)}
show_table(["softmax's VJP", "relative error by hand"], list(by_hand.items()))
check("by_hand_accepts_the_right_one", by_hand["softmax_vjp"], at_most=1e-9)
check("by_hand_rejects_the_wrong_ones", sorted(by_hand.values())[1:], at_least=0.01)

# %%
print(inspect.getsource(gradcheck.check_grads))
print(inspect.getsource(gradcheck.check_parameters))

# %% [markdown]
# What the package does differently, and why:
#
# - It checks the *tape*: `f` maps Tensors to a Tensor, and the claimed gradient is what
#   `backward(g)` leaves in the leaves. So it also sees a graph that was cut, a gradient that was
#   overwritten, an op that is right by itself and wrongly connected.
# - It does not trust one step. It takes several, extrapolates, and keeps the estimate that agrees
#   best with its neighbours: the bottom of the V, found instead of computed, for any curvature.
# - It sums the *differences of the outputs*, not the difference of the sums: large outputs that do
#   not move cancel exactly.
# - An error is relative to the derivative, but never to less than $10^9$ times the rounding noise:
#   a gradient of zero passes, and (00.28) does no harm.
# - It looks for a kink (00.25), calls `f` twice to find randomness, and refuses float32.
# - Its arrays are read-only while it works: an op that writes into its arguments raises.
# - One direction first, as it is cheap. Entry by entry only on failure (to say *which*), or on
#   request: `check_parameters(..., elementwise=True)`. (00.17) says what that costs and what it
#   buys.
#
# For mathematics of your own there is `minigpt/judge.py`: `check_vjp(f, vjp, *arrays)` takes plain
# NumPy functions, knows nothing of Tensors, and hears several of this chapter's witnesses
# (differences, the complex step after a test that $f$ is analytic, the adjoint identity where $f$
# is linear). Its verdict says whether the claim `.holds`. On the command line
# `python -m minigpt verify my_derivation.py` does that for a file of derivations, and says what it
# takes the mistake to be.

# %% [markdown]
# ## Gradient check
#
# ### A right one
#
# This is what a right gradient looks like. Softmax by hand, against the package's fused op, the
# same function composed of elementary ops, differences of order $h^4$, and complex steps. And
# layer norm with gain $w$ and offset $b$, derived in [chapter 11](11_layer_norm.ipynb).


# %%
def layer_norm(x, w, b):
    """x (..., C), w (C,), b (C,) -> (..., C)."""
    return w * normalise(x) + b


def norm_dx(g, w, x, mean=1, projection=1):
    """dx of layer norm; mean, projection: 0 leaves that term out."""
    rstd, xhat, gw = (x.var(-1, keepdims=True) + 1e-5) ** -0.5, normalise(x), g * w
    return rstd * (gw - mean * gw.mean(-1, keepdims=True)
                   - projection * xhat * (gw * xhat).mean(-1, keepdims=True))


def layer_norm_vjp(g, x, w, b):
    rows = tuple(range(g.ndim - 1))
    return norm_dx(g, w, x), (g * normalise(x)).sum(rows), g.sum(rows)


def with_closure(f, vjp):
    """f and vjp(g, *arrays) in the form that witnesses wants: arrays -> (out, vjp)."""
    return lambda *arrays: (f(*arrays), lambda g: vjp(g, *arrays))


arrays = {"x": rng.normal(size=(4, 5)), "w": rng.normal(size=5), "b": rng.normal(size=5)}
worst = witnesses(with_closure(softmax, softmax_vjp), F.softmax, reference.softmax,
                  {"x": arrays["x"]}, analytic=softmax)
check("softmax_witnesses", worst, at_most=1e-9)
worst = witnesses(with_closure(layer_norm, layer_norm_vjp), F.layer_norm, reference.layer_norm,
                  arrays, analytic=layer_norm)
check("layer_norm_witnesses", worst, at_most=1e-9)

# %% [markdown]
# ### Break it: which check catches what?
#
# A check is an instrument, so calibrate it: twenty wrong VJPs, each a mistake that people make,
# and their eleven right twins, go through nine checks. A good check rejects all twenty and
# accepts all eleven. Here are the functions and their right VJPs.


# %%
def silu(x):
    return x / (1 + np.exp(-x))


def silu_vjp(g, x):
    s = 1 / (1 + np.exp(-x))
    return (g * (s + x * s * (1 - s)),)


def scores(q, k):
    """q, k (T, D) -> (T, T): inner products over the root of D."""
    return q @ k.T / math.sqrt(q.shape[1])


def heads(x, H=2):
    """(T, H D) -> (H, T, D)."""
    return x.reshape(len(x), H, -1).transpose(1, 0, 2)


def lookup(ids):
    """f, its VJP, and the VJP that assigns: rows of a table w (V, C) by ids."""

    def add(g, w):
        dw = np.zeros_like(w)
        np.add.at(dw, ids, g)
        return (dw,)

    def assign(g, w):
        dw = np.zeros_like(w)
        dw[ids] = g
        return (dw,)

    return lambda w: w[ids], add, assign


# %%
def gradient_of_tanh(g, x):
    return (g * (1 - np.tanh(x) ** 2),)


SQUARE, TABLE = (rng.normal(size=(4, 4)),), (rng.normal(size=(6, 3)),)
NORM = (rng.normal(size=(4, 5)), rng.normal(size=5), rng.normal(size=5))
NEW = (NORM[0], np.ones(5), np.zeros(5))  # a layer norm as it is initialised
PAIR, FLAT = tuple(rng.normal(size=(2, 4, 4))), (rng.normal(size=(4, 6)),)
WIDE, LONG = (rng.normal(size=(16, 16)),), (rng.normal(size=400),)
repeated, distinct = lookup(np.array([3, 0, 3, 5, 3])), lookup(np.array([3, 0, 1, 5, 2]))
RIGHT = {  # f, vjp, arrays, and the same in a fresh network
    "softmax": (softmax, softmax_vjp, SQUARE, SQUARE),
    "layer norm": (layer_norm, layer_norm_vjp, NORM, NEW),
    "embedding": (repeated[0], repeated[1], TABLE, TABLE),
    "product": (np.matmul, lambda g, x, y: (g @ y.T, x.T @ g), PAIR, PAIR),
    "heads": (heads, lambda g, x: (g.transpose(1, 0, 2).reshape(x.shape),), FLAT, FLAT),
    "silu": (silu, silu_vjp, SQUARE, SQUARE),
    "exp": (np.exp, lambda g, x: (g * np.exp(x),), SQUARE, SQUARE),
    "tanh": (np.tanh, gradient_of_tanh, WIDE, WIDE),
    "mean": (np.mean, lambda g, x: (np.full(x.shape, g / x.size),), LONG, LONG),
    "bias": (np.add, lambda g, x, b: (g, g.sum(0)), NORM[:2], NORM[:2]),
    "scores": (scores, lambda g, q, k: (g @ k / math.sqrt(q.shape[1]),
                                        g.T @ q / math.sqrt(q.shape[1])), PAIR, PAIR),
}

# %% [markdown]
# And the wrong ones. None is exotic: several of them have stood in published teaching code.


# %%
def in_x(dx):
    """A layer norm VJP whose dx(g, w, x) is wrong, and the rest right."""
    return lambda g, x, w, b: (dx(g, w, x), *layer_norm_vjp(g, x, w, b)[1:])


WRONG = [  # function, mistake, vjp
    ("softmax", "zeros", zeros),
    ("softmax", "only the Jacobian's diagonal", diagonal_only),
    ("softmax", "no row sum", no_row_sum),
    ("softmax", "mean of g, not its average under p",
     lambda g, x: (softmax(x) * (g - g.mean(-1, keepdims=True)),)),
    ("softmax", "row sum over the wrong axis",
     lambda g, x: (softmax(x) * (g - (g * softmax(x)).sum(0)),)),
    ("layer norm", "dx zeros", in_x(lambda g, w, x: 0 * x)),
    ("layer norm", "graph cut: no mean terms", in_x(lambda g, w, x: norm_dx(g, w, x, 0, 0))),
    ("layer norm", "no projection", in_x(lambda g, w, x: norm_dx(g, w, x, 1, 0))),
    ("layer norm", "gain forgotten", in_x(lambda g, w, x: norm_dx(g, 1, x))),
    ("embedding", "assigned, not added", repeated[2]),
    ("product", "dx without the transpose", lambda g, x, y: (g @ y, x.T @ g)),
    ("heads", "reshaped without transpose", lambda g, x: (g.reshape(x.shape),)),
    ("silu", "half of the product rule", lambda g, x: (g / (1 + np.exp(-x)),)),
    ("exp", "cotangent left out", lambda g, x: (np.exp(x),)),
    ("tanh", "1 - out, no square", lambda g, x: (g * (1 - np.tanh(x)),)),
    ("tanh", "a factor of 1.001", lambda g, x: (1.001 * gradient_of_tanh(g, x)[0],)),
    ("tanh", "one entry of 256 off by 1e-5", one_entry_off(1e-5)),
    ("mean", "divided by n twice", lambda g, x: (np.full(x.shape, g / x.size**2),)),
    ("bias", "mean over the batch", lambda g, x, b: (g, g.mean(0))),
    ("scores", "root of D forgotten", lambda g, q, k: (g @ k, g.T @ q)),
]

# %% [markdown]
# The checks, from the weakest to the strongest. Each gets a function, a VJP and two sets of
# arguments, and answers: accepted or not.
#
# - **loss falls**: 50 small steps of gradient descent on $\frac12\lvert f-\mathrm{target}\rvert^2$.
# - **ones**: every entry, float64, but $g=\mathbf 1$ and a fresh layer: gain 1, offset 0, no id
#   twice. That is `layer(x).sum().backward()`.
# - **absolute 1e-2**: random $g$; no entry off by more than $10^{-2}$.
# - **float32**: random $g$, $h=10^{-3}$, tolerance $1\,\%$ of the largest entry.
# - **fresh layer**: the same with a random $g$.
# - **one direction**: random $g$ and $u$, $h=10^{-6}$, relative tolerance $10^{-6}$.
# - **entry by itself**: every entry, $h=10^{-6}$, relative to itself, $10^{-6}$.
# - **package**: `check_grads`, and **package, entries**: `check_parameters(elementwise=True)`.


# %%
def entries(f, g, arrays, h):
    """Central differences of sum(g * f) in every entry of every array."""
    grads = []
    for i, x in enumerate(arrays):
        dx = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            up, down = x.copy(), x.copy()
            up[index] += h
            down[index] -= h
            values = [(g * f(*arrays[:i], z, *arrays[i + 1:])).sum() for z in (up, down)]
            dx[index] = (values[0] - values[1]) / (up[index] - down[index])
        grads.append(dx)
    return grads


def random_g(f, arrays, seed=1):
    return np.asarray(np.random.default_rng(seed).standard_normal(np.shape(f(*arrays))))


def loss_falls(f, vjp, arrays, fresh):
    moved = tuple(x + 0.3 * random_g(lambda a: a, (x,)) for x in arrays)
    target, now, losses = f(*moved), arrays, []
    for _ in range(50):
        error = f(*now) - target
        losses.append((error**2).sum())
        now = tuple(x - 0.02 * dx for x, dx in zip(now, vjp(error, *now), strict=True))
    return losses[-1] < losses[0]


# %%
def off(f, vjp, arrays, g, h):
    """Pairs (claimed gradient, central differences), one an argument."""
    return list(zip(vjp(g, *arrays), entries(f, g, arrays, h), strict=True))


def ones_pass(f, vjp, arrays, fresh):
    pairs = off(f, vjp, fresh, np.ones(np.shape(f(*fresh))), 1e-5)
    return all(np.abs(a - b).max() < 1e-6 for a, b in pairs)


def absolute(f, vjp, arrays, fresh):
    pairs = off(f, vjp, arrays, random_g(f, arrays), 1e-5)
    return all(np.abs(a - b).max() < 1e-2 for a, b in pairs)


def single_precision(f, vjp, arrays, fresh):
    arrays = tuple(x.astype("float32") for x in arrays)
    pairs = off(f, vjp, arrays, random_g(f, arrays).astype("float32"), np.float32(1e-3))
    return all(rel_error(a, b) < 1e-2 for a, b in pairs)


def fresh_layer(f, vjp, arrays, fresh):
    pairs = off(f, vjp, fresh, random_g(f, fresh), 1e-5)
    return all(rel_error(a, b) < 1e-6 for a, b in pairs)


def one_direction(f, vjp, arrays, fresh):
    g, rng = random_g(f, arrays), np.random.default_rng(2)
    us = [rng.standard_normal(x.shape) for x in arrays]
    slope = central(
        lambda t: (g * f(*(x + t * u for x, u in zip(arrays, us, strict=True)))).sum(), 1e-6)
    claimed = sum((dx * u).sum() for dx, u in zip(vjp(g, *arrays), us, strict=True))
    return abs(claimed - slope) < 1e-6 * max(abs(claimed), abs(slope))


def entry_by_itself(f, vjp, arrays, fresh):
    pairs = off(f, vjp, arrays, random_g(f, arrays), 1e-6)
    return all((np.abs(a - b) <= 1e-6 * np.maximum(np.abs(a), np.abs(b))).all() for a, b in pairs)


# %%
def package(f, vjp, arrays, fresh):
    return accepted(f, vjp, *arrays)


def package_entries(f, vjp, arrays, fresh):
    op, leaves = op_of(f, vjp), [Tensor(x, requires_grad=True) for x in arrays]
    try:
        check_parameters(lambda: op(*leaves), [(f"{i}", leaf) for i, leaf in enumerate(leaves)],
                         elementwise=True)
    except GradientError:
        return False
    return True


CHECKS = {
    "loss falls": loss_falls, "ones": ones_pass, "absolute 1e-2": absolute,
    "float32": single_precision, "fresh layer": fresh_layer, "one direction": one_direction,
    "entry by itself": entry_by_itself, "package": package, "package, entries": package_entries,
}


def case(name, vjp=None):
    """Which checks accept the function's right VJP, or the wrong one given: a list of bools."""
    f, right, arrays, fresh = RIGHT[name]
    verdicts = []
    for how in CHECKS.values():
        if how in (ones_pass, fresh_layer) and name == "embedding":  # no id twice
            verdicts.append(how(distinct[0], distinct[2] if vjp else distinct[1], arrays, fresh))
        else:
            verdicts.append(bool(how(f, vjp or right, arrays, fresh)))
    return verdicts


started = time.perf_counter()
accepts_wrong = np.array([case(name, vjp) for name, _, vjp in WRONG])  # (20, 9)
accepts_right = np.array([case(name) for name in RIGHT])  # (11, 9)
caught, alarms = (~accepts_wrong).sum(0), (~accepts_right).sum(0)
show_table(["check", "wrong ones caught, of 20", "right ones rejected, of 11"],
           [[name, int(a), int(b)] for name, a, b in zip(CHECKS, caught, alarms, strict=True)])
print(f"{time.perf_counter() - started:.1f} s")

# %%
def draw_grid(axes, accepts, labels):
    """A red cross where a check accepts what is wrong, a light square where it rejects it."""
    for (row, column), miss in np.ndenumerate(accepts):
        colour = RED if miss else "#cfe8df"
        axes.add_patch(plt.Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, color=colour, lw=0))
        if miss:
            axes.text(column, row, "×", ha="center", va="center", color="white", size=11)
    axes.set_xticks(range(len(CHECKS)), list(CHECKS), rotation=38, ha="left", size=10)
    axes.set_yticks(range(len(labels)), labels, size=9)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set(xlim=(-0.5, len(CHECKS) - 0.5), ylim=(len(labels) + 0.6, -0.5))
    for column, count in enumerate((~accepts).sum(0)):
        axes.text(column, len(labels) + 0.1, str(count), ha="center", va="center", size=11)
    axes.text(-0.7, len(labels) + 0.1, "caught, of 20", ha="right", va="center", size=10)
    axes.spines[:].set_visible(False)
    axes.grid(False)


fig, axes = plt.subplots(figsize=(7.8, 7.2))
draw_grid(axes, accepts_wrong, [f"{name}: {mistake}" for name, mistake, _ in WRONG])
axes.set_title(f"A falling loss accepts {20 - caught[0]} of 20 wrong gradients, "
               f"ones accept {20 - caught[1]}", loc="right", size=13, pad=12)
save_figure(fig, "00_which_check.png")
plt.show()

# %%
by_name = dict(zip(CHECKS, caught.tolist(), strict=True))
check("falling_loss_catches_few", by_name["loss falls"], at_most=6)
check("ones_catch_at_most_two_thirds", by_name["ones"], at_most=13)
check("float32_misses_what_is_small", by_name["float32"], at_most=18)
check("fresh_layers_hide_gain_and_repeats", by_name["fresh layer"], at_most=18)
check("entries_catch_all", by_name["package, entries"], at_least=20)
check("one_direction_misses_at_most_one", by_name["package"], at_least=19)
false_alarms = dict(zip(CHECKS, alarms.tolist(), strict=True))
check("package_has_no_false_alarm", false_alarms["package, entries"], at_most=0)
check("entry_by_itself_raises_one", false_alarms["entry by itself"], at_least=1)

# %% [markdown]
# Read the columns. **Loss falls** catches what does not point downhill at all. **Ones** on a fresh
# layer misses zeros, forgotten terms, a scrambled order and a forgotten cotangent. A **fresh
# layer** cannot show a forgotten gain (it is 1) or a lost repetition (there is none): random
# values for *everything* cost nothing. **float32** and **absolute** tolerances miss what is small:
# a factor of 1.001, and for the absolute one a mean's gradient that is 400 times too small.
# The two checks along **one direction** find the one entry of 256 by luck: (00.17) gives each of
# them $36\,\%$ at the tolerance $10^{-6}$. **Entry by itself** catches all twenty and *rejects a
# right one*, by (00.28): who meets that loosens the tolerance until it passes. Only a check of
# every entry, with a sane scale, makes no mistake here without luck. These twenty are
# a sample that we chose. On another list the counts will differ.
#
# What does an error look like? A **constant ratio** of claimed to measured is a factor (2, $n$,
# $\sqrt D$, $-1$). An error in **one row** is an index. An error that is **equal along an axis** is
# a missing sum. An error only at **repeated ids** is an assignment. An error of the size of the
# gradient, everywhere, is a transpose.

# %%
f, right, (q, k), _ = RIGHT["scores"]
g = random_g(f, (q, k))
ratio = (g @ k) / entries(f, g, (q, k), 1e-5)[0]  # claimed dq over the measured one
print("root of D forgotten: claimed / measured is", np.unique(ratio.round(6)), "everywhere")
check("a_factor_is_a_constant_ratio", np.abs(ratio - 2), at_most=1e-6)
f, _, (table,), _ = RIGHT["embedding"]
g = random_g(f, (table,))
wrong_rows = np.abs(repeated[2](g, table)[0] - entries(f, g, (table,), 1e-5)[0]).max(1) > 1e-6
print("assigned: wrong in the rows", np.flatnonzero(wrong_rows), "; ids were 3 0 3 5 3")
check("assignment_shows_at_repeated_ids", np.abs(wrong_rows - np.eye(6)[3]), at_most=0)

# %% [markdown]
# ## Experiment
#
# A GPT of one block on the default corpus of short facts: token and position embeddings, one
# attention head, an MLP, three layer norms, 32 channels, AdamW, 300 steps. It is trained six
# times, from the same weights on the same batches:
#
# - with the **right** gradients;
# - with the attention's **keys scrambled**: their gradient $(B,T,C)$ is transposed to $(B,C,T)$
#   and reshaped back, so that every number stands in a wrong place;
# - with an embedding that **assigns** its gradient: of a token that occurs 20 times in a batch, 19
#   contributions are lost;
# - with a softmax in the attention whose backward pass has **no row sum**;
# - with layer norms whose **graph is cut**: mean and deviation are taken for constants;
# - with a loss gradient that is **1,000 times too large**.
#
# And for comparison the right gradients at a third of the learning rate, which is no bug at all.
#
# **Prediction**, in words. By (00.30) a gradient at less than 90 degrees to the right one still
# goes down, and most of the parameters here even get their right gradient. All five wrong ones
# will learn: at the end each will predict held-out text clearly better than the frequencies of
# the characters do, and most of them will be closer to the right one than a learning rate that
# somebody might just as well have chosen. The factor of 1,000 will not show at all: Adam divides
# each gradient by its own size. The check will find each of them in milliseconds.


# %%
@primitive
def norm_cut(x, w, b):
    out, vjp = F.layer_norm.forward(x, w, b)
    rstd = 1 / xp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return out, lambda g: (rstd * g * w, *vjp(g)[1:])


@primitive
def embedding_assigned(w, idx):
    def dw(g):  # in NumPy, where the last of several writes stays; on a GPU that may be any
        out = np.zeros(w.shape, w.dtype)
        out[idx] = to_numpy(g)
        return xp.asarray(out)

    return w[idx], (dw, None)


@primitive
def softmax_without_sum(x):
    p, _ = F.softmax.forward(x)
    return p, (lambda g: p * g,)


@primitive
def scrambled(k):
    return k, (lambda g: g.swapaxes(-1, -2).reshape(g.shape),)


@primitive
def loud(x):
    return x, (lambda g: 1000 * g,)


def same(x):
    return x


PARTS = {"norm": F.layer_norm, "embed": F.embedding, "soft": F.softmax, "keys": same, "last": same}
RUNS = {  # name -> what is replaced, learning rate
    "right": ({}, 3e-3),
    "1,000 times too large": ({"last": loud}, 3e-3),
    "keys scrambled": ({"keys": scrambled}, 3e-3),
    "embedding assigned": ({"embed": embedding_assigned}, 3e-3),
    "no row sum": ({"soft": softmax_without_sum}, 3e-3),
    "layer norm cut": ({"norm": norm_cut}, 3e-3),
    "right, third of the rate": ({}, 1e-3),
}


# %%
class OneBlock(Module):
    """A GPT of one block and one head, whose parts can be replaced. (B, T) ids -> (B, T, V)."""

    def __init__(self, rng, V, parts=None, T=32, C=32):
        self._parts = PARTS | (parts or {})
        self.wte, self.wpe = (Embedding(n, C, rng=rng, std=0.5) for n in (V, T))
        self.ln_1, self.ln_2, self.ln_f = (LayerNorm(C) for _ in range(3))
        self.q, self.k, self.v, self.proj = (Linear(C, C, rng=rng, std=C**-0.5) for _ in range(4))
        self.up = Linear(C, 4 * C, rng=rng, std=C**-0.5)
        self.down = Linear(4 * C, C, rng=rng, std=0.5 * C**-0.5)
        self.head = Linear(C, V, rng=rng)

    def norm(self, layer, x):
        return self._parts["norm"](x, layer.weight, layer.bias)

    def __call__(self, idx):
        parts, T = self._parts, idx.shape[1]
        where = np.broadcast_to(np.arange(T), idx.shape)
        x = parts["embed"](self.wte.weight, idx) + parts["embed"](self.wpe.weight, where)
        h = self.norm(self.ln_1, x)
        q, k, v = self.q(h), parts["keys"](self.k(h)), self.v(h)  # (B, T, C)
        mask = xp.where(xp.tri(T, dtype=bool), 0, -1e9).astype(x.dtype)
        att = parts["soft"](q @ k.transpose(0, 2, 1) * 32**-0.5 + mask)  # (B, T, T)
        x = x + self.proj(att @ v)
        x = x + self.down(F.gelu(self.up(self.norm(self.ln_2, x))))
        return parts["last"](self.head(self.norm(self.ln_f, x)))


# %%
corpus = data.load("facts")
parts = data.split(corpus)
tokenizer = CharTokenizer.from_text(corpus.text)
train_ids, val_ids = tokenizer.encode(parts.train), tokenizer.encode(parts.val)
V = tokenizer.vocab_size


def windows(ids, rng, B, T=32):
    rows = ids[rng.integers(0, len(ids) - T, B)[:, None] + np.arange(T + 1)]
    return rows[:, :-1], rows[:, 1:]


HELD_OUT = windows(val_ids, np.random.default_rng(99), B=64)


def train(parts, rate, seed, steps=300, every=100):
    """Held-out loss in nats per character, after each `every` steps."""
    rng = np.random.default_rng(seed)
    model, losses = OneBlock(rng, V, parts), []
    opt = AdamW(model.parameters(), rate, weight_decay=0.0)
    for step in range(steps + 1):
        if step % every == 0:
            with no_grad():
                losses.append(F.cross_entropy(model(HELD_OUT[0]), HELD_OUT[1]).item())
        idx, targets = windows(train_ids, rng, B=8)
        opt.zero_grad()
        F.cross_entropy(model(idx), targets).backward()
        opt.step()
    return losses


# %%
def gradient(parts):
    """name -> gradient of the parameter of that name, at the start, with these parts."""
    model = OneBlock(np.random.default_rng(0), V, parts)
    idx, targets = windows(train_ids, np.random.default_rng(1), B=16)
    F.cross_entropy(model(idx), targets).backward()
    return {n: to_numpy(p.grad).reshape(-1).astype("float64")
            for n, p in model.named_parameters()}


def cosine(wrong, right, names):
    a, b = (np.concatenate([grads[name] for name in names]) for grads in (wrong, right))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


x4, w4, b4 = rng.normal(size=(3, 4, 4))
PROBES = {  # the op by itself, on arguments of order 1; a parameter that gets the wrong gradient
    "1,000 times too large": (loud, (x4,), "head.weight"),
    "keys scrambled": (scrambled, (x4,), "k.weight"),
    "embedding assigned": (
        lambda w: embedding_assigned(w, np.array([[3, 0], [3, 1]])), (x4,), "wte.weight"),
    "no row sum": (softmax_without_sum, (x4,), "q.weight"),
    "layer norm cut": (norm_cut, (x4, w4[0], b4[0]), "wte.weight"),
}
right, rows = gradient({}), []
for name, (op, arguments, hit) in PROBES.items():
    started = time.perf_counter()
    try:
        check_grads(op, *arguments)
        said = "accepted"
    except GradientError as refusal:
        said = str(refusal).split(": ")[-1]
    took, wrong = 1000 * (time.perf_counter() - started), gradient(RUNS[name][0])
    rows.append([name, said, f"{took:.0f} ms", cosine(wrong, right, right), hit,
                 cosine(wrong, right, [hit])])
show_table(["wrong gradient", "check_grads on the op", "in", "cosine to right", "in",
            "cosine there"], rows)
check("all_are_found", [row[1].startswith("relative error") for row in rows], at_least=1)
check("all_point_downhill", [row[3] for row in rows], at_least=0.5)
check("scrambled_keys_point_nowhere", abs(rows[1][5]), at_most=0.2)

# %% [markdown]
# The check says no to all five. The cosines say that all five point downhill: most of the
# gradient's length belongs to parameters behind the mistake. In the parameter in front of it the
# direction can be anything: what the keys' weights get is noise. Now train.

# %%
SEEDS = 3
curves = {name: np.array([train(*options, seed) for seed in range(SEEDS)])
          for name, options in RUNS.items()}  # name -> (seeds, marks)
ends = {name: curve[:, -1] for name, curve in curves.items()}
excess = {name: end - ends["right"] for name, end in ends.items()}  # paired: same start, batches
show_table(["gradients", "held-out nats, seeds 0 to 2", "mean", "more than right"],
           [[name, " ".join(f"{v:.3f}" for v in end), f"{end.mean():.3f}",
             f"{excess[name].mean():+.3f}"] for name, end in ends.items()])
frequencies, pairs = (NGram(n, V).fit(train_ids).nats(val_ids).mean() for n in (1, 2))
print(f"start {curves['right'][:, 0].mean():.3f}; character frequencies {frequencies:.3f}; "
      f"counts of pairs {pairs:.3f}")
slower = excess["right, third of the rate"].mean()
all_wrong = [end for name, end in ends.items() if not name.startswith("right")]
check("every_wrong_one_learns", np.array(all_wrong) / frequencies, at_most=0.97)
check("a_thousand_times_does_not_show", np.abs(excess["1,000 times too large"]), at_most=0.03)
quiet = [excess[name].mean() / slower for name in
         ("1,000 times too large", "keys scrambled", "embedding assigned", "no row sum")]
check("four_cost_less_than_a_slower_rate", quiet, at_most=0.8)
check("nobody_sees_scrambled_keys", abs(excess["keys scrambled"].mean()), at_most=0.06)
check("the_cut_graph_costs_most", excess["layer norm cut"].mean(), at_least=0.15)

# %%
fig, axes = plt.subplots(figsize=(8, 3.9))
order = sorted(excess, key=lambda name: excess[name].mean())
for row, name in enumerate(order):
    colour = GREEN if name.startswith("right") else RED
    axes.plot([0, excess[name].mean()], [row, row], color=colour, lw=7, alpha=0.35)
    axes.plot(excess[name], [row] * SEEDS, "o", color=colour, ms=6)
axes.axvline(slower, color=GREEN, ls=":", lw=1.5)
axes.text(slower + 0.006, 0.6, "a choice of learning rate\ncosts this much", color=GREEN, size=11)
axes.set_yticks(range(len(order)), order)
axes.set(xlabel="held-out loss more than with right gradients (nats per character)",
         ylim=(6.6, -0.6), title="Wrong gradients learn; the loss does not tell")
axes.grid(axis="y", visible=False)
save_figure(fig, "00_wrong_gradients_learn.svg")
plt.show()

# %% [markdown]
# The prediction holds for all five, more or less. Scrambled keys and a factor of 1,000 cannot be
# seen in the loss; an assigned embedding hardly; a missing row sum costs less than a cautious
# learning rate. The cut graph is the exception: it costs about a quarter of a nat, and still learns
# far more than frequencies. Without the right one beside it, who would say that $2.86$ is too much?
#
# With limits that should be said. 300 steps are few: counts of character *pairs* still do better
# than all of these networks. Three seeds show the order of size, no more. And the smaller a
# part's share of the work (one head, after 300 steps), the less its wrong gradient can cost. That
# is the point, not an excuse: **a loss curve cannot tell a wrong gradient from a choice of
# settings. A check of some milliseconds can.**

# %% [markdown]
# ## What others get wrong
#
# Each of these has stood in published code: in teaching libraries that we have read or run, with
# stars and with tests. Here are re-enactments in a few lines of our own. No names: the point is
# how the mistake got past the tests that were there.
#
# ### A test that zeros pass
#
# The test adds up the outputs, calls `backward()`, and compares with differences of the sum. It
# was written for softmax and for layer norm. By (00.19) and (00.20) both sides are zero.


# %%
def agrees_under_ones(f, vjp, x):
    """Accepts the VJP if it agrees with differences of f(x).sum()."""
    return np.allclose(vjp(np.ones(x.shape), x)[0], central_differences(lambda z: f(z).sum(), x),
                       atol=1e-6)


x = rng.normal(size=(3, 5))
passed = [agrees_under_ones(f, zeros, x) for f in (softmax, normalise)]
print("zeros under ones:", passed, "  under check_grads:",
      [accepted(f, zeros, x) for f in (softmax, normalise)])
check("zeros_pass_their_test", passed, at_least=1)
check("zeros_fail_ours", [accepted(f, zeros, x) for f in (softmax, normalise)], at_most=0)

# %% [markdown]
# ### A checker that accepts a factor of 1,000
#
# The checker works, but its tolerance is an absolute $10^{-2}$. The loss is a mean over $10^6$
# numbers, the gradient therefore of size $10^{-6}$. By (00.29) a factor up to about $10^4$ passes.
# Nobody had tried to make the checker fail: *test the tester*.

# %%
many = rng.normal(size=1_000_000)


def mean_square(t, i):
    """The mean of the squares of many numbers, of which number i is moved by t."""
    return ((many**2).sum() - many[i] ** 2 + (many[i] + t) ** 2) / many.size


measured = np.array([central(lambda t, i=i: mean_square(t, i), 1e-2) for i in range(20)])
claimed = 1000 * 2 * many[:20] / many.size
print("accepted by an absolute 1e-2:", np.allclose(claimed, measured, rtol=0, atol=1e-2),
      f"  relative error {rel_error(claimed, measured):.3f}")
check("absolute_tolerance_accepts", np.abs(claimed - measured), at_most=1e-2)
check("relative_error_does_not", rel_error(claimed, measured), at_least=0.99)

# %% [markdown]
# ### Layer norm on `.data`, with the graph cut
#
# Mean and deviation are computed from the raw array, because that is shorter. The tape takes them
# for constants. All values are right, the training falls (see the experiment), and more than a
# thousand tests of shapes and values pass.


# %%
def norm_on_data(x):
    raw = x.data
    return (x - raw.mean(-1, keepdims=True)) / raw.std(-1, keepdims=True)


x = rng.normal(size=(3, 5))
value = rel_error(norm_on_data(Tensor(x)), normalise(x, 0))
leaf, g = Tensor(x, requires_grad=True), rng.normal(size=(3, 5))
norm_on_data(leaf).backward(g)
truth = central_differences(lambda z: (g * normalise(z, 0)).sum(), x)
error = rel_error(leaf.grad, truth)
print(f"error of the value {value:.1e}, of the gradient {error:.2f}")
check("cut_graph_has_the_right_value", value, at_most=1e-12)
check("cut_graph_has_a_wrong_gradient", error, at_least=0.2)

# %% [markdown]
# ### An embedding that assigns
#
# `dw[ids] = g` keeps the last contribution of a repeated token, and `dw[ids] += g` does the same
# in NumPy: an index that occurs twice is written once. A test with the ids 0, 1, 2 passes. Text
# repeats itself.


# %%
def two_verdicts(ids):
    """Does check_grads accept the VJP that adds, and the one that assigns?"""
    f, add, assign = lookup(np.array(ids))
    return [accepted(f, vjp, rng.normal(size=(5, 3))) for vjp in (add, assign)]


verdict = {str(ids): two_verdicts(ids) for ids in ([0, 1, 2], [0, 1, 0])}
show_table(["ids", "added: accepted", "assigned: accepted"], [[k, *v] for k, v in verdict.items()])
check("distinct_ids_hide_it", verdict["[0, 1, 2]"], at_least=1)
check("repeated_ids_show_it", int(verdict["[0, 1, 0]"][1]), at_most=0)
check("added_passes_both", int(verdict["[0, 1, 0]"][0]), at_least=1)

# %% [markdown]
# ### Heads put back without the transpose
#
# Keys $(T,HD)$ become heads $(H,T,D)$ by a reshape and a transpose. The backward pass only
# reshaped: the shape is right, every number is there, and nearly all stand in wrong places. With
# one head it is correct, under ones it is correct, and the loss falls.

# %%
g = rng.normal(size=(2, 5, 3))  # (H, T, D)
x = rng.normal(size=(5, 6))
truth = central_differences(lambda z: (g * heads(z)).sum(), x)
error = rel_error(g.reshape(x.shape), truth)
one_head = central_differences(lambda z: (g[:1] * heads(z, H=1)).sum(), x[:, :3])
print(f"relative error with two heads {error:.2f}")
check("two_heads_show_it", error, at_least=1)
check("one_head_hides_it", rel_error(g[:1].reshape(5, 3), one_head), at_most=1e-9)

# %% [markdown]
# ### Fan-out: overwritten, or walked twice
#
# A value that is used twice gets two contributions. The smallest tape: a node knows its parents
# and the slopes towards them, and `backward` calls itself. With `=` in place of `+=` the second
# contribution erases the first. Every test of a *chain* passes.
#
# With `+=` it is right, but slow. A node that calls its parents once per *use* doubles the calls
# at each fan-out. In $y_k=y_{k-1}+y_{k-1}$, let $c_n$ count the calls for $n$ such steps:
#
# $$c_0=1,\quad c_n=1+2c_{n-1}\qquad\Rightarrow\qquad c_n=2^{n+1}-1. \tag{00.31}$$
#
# A residual block fans out, so a GPT's backward pass grows exponentially in its layers. A tape
# must count a node's consumers and go on when all have reported: then each op is called once.


# %%
class Number:
    """A tape in ten lines. add: accumulate (right) or overwrite (wrong)."""

    calls = 0

    def __init__(self, value, parents=(), add=True):
        self.value, self.parents, self.add, self.grad = value, parents, add, 0.0

    def backward(self, g=1.0):
        Number.calls += 1
        self.grad = self.grad + g if self.add else g
        for parent, slope in self.parents:
            parent.backward(g * slope)


def used_once_and_twice(add):
    """dy/dx at 3 of y = 5 x, and of y = x * x + x."""
    x, z = Number(3.0, add=add), Number(3.0, add=add)
    Number(15.0, [(x, 5.0)]).backward()
    square = Number(9.0, [(z, 3.0), (z, 3.0)])
    Number(12.0, [(square, 1.0), (z, 1.0)]).backward()
    return x.grad, z.grad


print("added:", used_once_and_twice(True), "  overwritten:", used_once_and_twice(False))
check("both_right_in_a_chain", abs(used_once_and_twice(False)[0] - 5), at_most=0)
check("overwriting_loses", abs(used_once_and_twice(False)[1] - 7), at_least=1)
check("adding_does_not", abs(used_once_and_twice(True)[1] - 7), at_most=0)


# %%
def doubled(n):
    """Calls of backward() for n steps of y = y + y: by recursion, and on the package's tape."""
    y, Number.calls = Number(1.0), 0
    for _ in range(n):
        y = Number(2 * y.value, [(y, 1.0), (y, 1.0)])
    y.backward()
    calls = []

    @primitive
    def add(a, b):
        return a + b, lambda g: (calls.append(1) or g, g)

    z = leaf = Tensor(np.array(1.0), requires_grad=True)
    for _ in range(n):
        z = add(z, z)
    z.backward()
    return Number.calls, len(calls), leaf.grad.item()


counts = {n: doubled(n) for n in (1, 5, 10, 16)}
show_table(["steps", "calls, recursion", "calls, package", "dy/dx"],
           [[n, a, b, int(c)] for n, (a, b, c) in counts.items()])
check("calls_double", [abs(a - (2 ** (n + 1) - 1)) for n, (a, _, _) in counts.items()], at_most=0)
check("package_calls_once", [abs(b - n) for n, (_, b, _) in counts.items()], at_most=0)
check("and_is_right", [abs(c / 2**n - 1) for n, (_, _, c) in counts.items()], at_most=0)

# %% [markdown]
# ### Two leaves, one gradient array
#
# The VJP of $a+b$ returns $g$ for both. If a leaf *keeps* that array instead of a copy, `a.grad is
# b.grad`. Each gradient is right, every gradient check passes. Then clipping scales gradients in
# place by $s=c/\lvert(a.\mathrm{grad},b.\mathrm{grad})\rvert$, one leaf after the other: the
# shared array is scaled twice, and the clipped length is $sc$ instead of $c$. What is checked here
# is not a derivative but who owns an array.

# %%
g = rng.normal(size=4)
owned, shared = [g.copy(), g.copy()], [g.copy()] * 2
lengths = []
for grads in (owned, shared):
    s = 1 / math.sqrt(sum((d**2).sum() for d in grads))  # clip to length c = 1
    for d in grads:
        d *= s
    lengths.append(math.sqrt(sum((d**2).sum() for d in grads)))
print("length after clipping to 1: owned {:.3f}, shared {:.3f}; s = {:.3f}".format(*lengths, s))
check("owned_gradients_are_clipped", abs(lengths[0] - 1), at_most=1e-12)
check("shared_ones_are_scaled_twice", abs(lengths[1] - s), at_most=1e-12)
a, b = (Tensor(rng.normal(size=4), requires_grad=True) for _ in range(2))
(a + b).backward(g)
check("package_leaves_own_theirs", int(xp.shares_memory(a.grad, b.grad)), at_most=0)

# %% [markdown]
# ### float32 that is silently float64
#
# `np.sqrt(64)` is a float64 *scalar of NumPy*, and since NumPy 2 it pulls a float32 array up with
# it. One scale of attention scores, and the whole network computes in float64: right, slower, and
# in twice the memory. No gradient check sees it, as all are made in float64. `math.sqrt(64)` is a
# Python number, which adapts.

# %%
x32 = rng.normal(size=(3, 8)).astype("float32")
print((x32 / np.sqrt(64)).dtype, (x32 / math.sqrt(64)).dtype)
check("numpy_scalar_makes_float64", int((x32 / np.sqrt(64)).dtype == np.float64), at_least=1)
x32, one32, zero32 = Tensor(x32), xp.ones(8, "float32"), xp.zeros(8, "float32")
outs = [F.softmax(x32), F.gelu(x32), F.layer_norm(x32, one32, zero32)]
check("package_keeps_float32", [int(out.dtype != np.float32) for out in outs], at_most=0)

# %% [markdown]
# ### A formula compared with itself: softmax twice
#
# A model ends in a softmax, and a cross-entropy that expects *scores* takes another one. Forward
# and backward pass contain the same mistake, so the gradient is the right gradient of the wrong
# function: **every gradient check passes**, as it must. Only an independent witness of the *value*
# tells. Here is one. For probabilities $p$ with $p_t$ for the right class, the loss is
# $\ln\sum_je^{p_j}-p_t$. Moving probability from a class $j$ to $t$ changes it at the rate
# $q_t-1-q_j<0$ (with $q$ the second softmax), so it is least where $p_t=1$:
#
# $$\min_p\left(\ln\sum_je^{p_j}-p_t\right)=\ln\left(e+V-1\right)-1. \tag{00.32}$$
#
# With $V=94$ characters that is $3.56$ nats, where a sure and right answer should cost $0$.


# %%
def twice(x, targets):
    return F.cross_entropy(F.softmax(x), targets)


x, targets = rng.normal(size=(4, 94)), np.array([0, 93, 5, 5])
worst = check_grads(lambda x: twice(x, targets), x)
check("gradient_check_accepts_it", worst, at_most=1e-6)
sure = Tensor(1000.0 * np.eye(94)[[7]])  # (1, 94)
floor, right = twice(sure, np.array([7])).item(), F.cross_entropy(sure, np.array([7])).item()
print(f"loss of a sure and right answer: {floor:.4f} with two softmaxes, {right:.4f} with one")
check("floor_of_two_softmaxes", abs(floor - (math.log(math.e + 93) - 1)), at_most=1e-12)
others = rng.dirichlet(np.full(94, 0.05), 20_000)
below = floor - (np.log(np.exp(others).sum(1)) - others[:, 7])
check("nothing_is_below_the_floor", below, at_most=0)
check("one_softmax_reaches_zero", right, at_most=1e-12)

# %% [markdown]
# The general rule: a check compares two things, and is worth as much as they are independent.
# Differences of `f` are independent of its VJP. They are not independent of `f`. For the value,
# ask a number known by other means, a law (sums to 1, does not change under a shift), or a second
# program.
#
# ## Exercises
#
# Each has a stub to fill in and a cell that tries it. Solutions are in
# `solutions/00_gradient_checks.py`.

# %% [markdown]
# ### Exercise 00.1: A blind cotangent
#
# *Difficulty 1 of 5 · 10 minutes · 1 point*
#
# With paper and pencil: at the scores $x=(\ln1,\ln2,\ln3)$ softmax gives
# $p=(\frac16,\frac26,\frac36)$. Somebody's backward pass forgot the row sum and returns
# $p\odot g$. Find three numbers $g$, not all zero, for which nobody can tell: the right gradient
# equals the wrong one.
#
# <details><summary>Hint 1</summary>
#
# (00.19) gives $\partial p_k/\partial x_i$. Sum over $k$ with weights $g_k$: which term is missing
# in the wrong VJP?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The missing term is a number that multiplies $p$. One equation for three unknowns: you may choose
# two.
#
# </details>


# %% exercise="00.1" role="stub"
def blind_cotangent():
    """Three numbers g, not all 0, under which p * g is softmax's gradient at (ln 1, ln 2, ln 3)."""
    raise NotImplementedError


# %% exercise="00.1" role="check"
def check_00_1(blind_cotangent):
    """The right gradient, measured, equals the wrong formula at this g."""
    g = np.array(blind_cotangent(), dtype=float)
    assert g.shape == (3,), "three numbers are wanted"
    assert np.abs(g).max() > 1e-3, "g must not be zero: then every VJP is right"
    slope = central_differences(lambda z: (g * np.exp(z) / np.exp(z).sum()).sum(),
                                np.log([1.0, 2.0, 3.0]))
    wrong = np.array([1, 2, 3]) / 6 * g
    assert np.abs(slope - wrong).max() < 1e-8 * np.abs(g).max(), "the two differ at this g"


attempt(check_00_1, blind_cotangent)

# %% [markdown]
# ### Exercise 00.2: The best step of a second difference
#
# *Difficulty 2 of 5 · 20 minutes · 2 points*
#
# The second derivative by differences is
# $S(h)=(\varphi(h)-2\varphi(0)+\varphi(-h))/h^2$. Find its leading truncation error (it has
# $\varphi^{(4)}$ in it), bound its rounding as in (00.7) with $x=0$, and return the best step and
# the sum of both errors there, for given $\lvert\varphi\rvert$, $\lvert\varphi^{(4)}\rvert$ and
# $\varepsilon$.
#
# <details><summary>Hint 1</summary>
#
# Add Taylor's series at $h$ and at $-h$: now the *odd* terms cancel.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Rounding: one value enters with weight 2. Errors add up in the worst case. Both errors contain
# $h^2$: call it a new unknown.
#
# </details>


# %% exercise="00.2" role="stub"
def best_second_step(phi, phi4, eps):
    """The step h that is best for S(h), and the bound of its error there: two numbers.

    phi, phi4: absolute values of phi and its fourth derivative. eps: the spacing at 1.
    """
    raise NotImplementedError


# %% exercise="00.2" role="check"
def check_00_2(best_second_step):
    """Right powers of each quantity, a plausible size, and the bound holds for exp."""
    h, error = best_second_step(1.0, 1.0, 2.0**-52)
    assert 1e-4 < h < 1e-3, "for exp in float64 the step is of another order of magnitude"
    assert 1e-9 < error < 1e-7, "for exp in float64 the error is of another order of magnitude"
    measured = abs((math.exp(h) - 2 + math.exp(-h)) / h**2 - 1)
    assert measured < error, "measured with this h, exp is further off than the bound"
    for change in ((16, 1, 1), (1, 16, 1), (1, 1, 16)):
        h2, error2 = best_second_step(*np.array([1.0, 1.0, 2.0**-52]) * change)
        assert abs(error2 / error - 4) < 1e-6, "the error depends on one of the three otherwise"
        factor = 0.5 if change[1] == 16 else 2
        assert abs(h2 / h - factor) < 1e-6, "the step depends on one of the three otherwise"


attempt(check_00_2, best_second_step)

# %% [markdown]
# ### Exercise 00.3: The Jacobian of a matrix function
#
# *Difficulty 2 of 5 · 20 minutes · 2 points*
#
# $f$ maps an $(n,m)$ matrix to a $(p,q)$ matrix and is analytic, such as $X\mapsto XAX$ or the
# inverse. Compute all its derivatives $\partial f_{kl}/\partial X_{ij}$ by complex steps, to the
# last digits. One evaluation of $f$ an entry of $X$ is enough.
#
# <details><summary>Hint 1</summary>
#
# A complex step in $X_{ij}$ gives the whole matrix $\partial f/\partial X_{ij}$ at once.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The step has to be complex before you add it: `X.astype(complex)` makes a copy that can hold it.
#
# </details>


# %% exercise="00.3" role="stub"
def matrix_jacobian(f, X):
    """J[k, l, i, j] = d f(X)[k, l] / d X[i, j]. X (n, m), f(X) (p, q) -> (p, q, n, m), float64."""
    raise NotImplementedError


# %% exercise="00.3" role="check"
def check_00_3(matrix_jacobian):
    """X A X has a Jacobian of four axes, with all digits."""
    r = np.random.default_rng(3)
    X, A = r.normal(size=(3, 2)), r.normal(size=(2, 3))
    J = matrix_jacobian(lambda Z: Z @ A @ Z, X)
    assert J.shape == (3, 2, 3, 2), "the axes are those of f(X), then those of X"
    assert J.dtype == np.float64, "derivatives of a real function are real"
    for i, j in ((0, 0), (2, 1), (1, 0)):
        E = np.zeros((3, 2))
        E[i, j] = 1
        exact = E @ A @ X + X @ A @ E  # the product rule
        assert np.abs(J[:, :, i, j] - exact).max() < 1e-13, f"X[{i}, {j}]: not to the last digits"


attempt(check_00_3, matrix_jacobian)

# %% [markdown]
# ### Exercise 00.4: The adjoint test
#
# *Difficulty 3 of 5 · 25 minutes · 3 points*
#
# A linear map $A:\mathbb R^n\to\mathbb R^m$ needs no differences: by (00.3) its VJP $B$ is right
# if $\langle g,Au\rangle=\langle Bg,u\rangle$ for all $g$ and $u$, to the last digits. Decide it,
# for maps of any scale, with a few random vectors. A relative error of $10^{-6}$ of $B$ as a whole
# must be found.
#
# <details><summary>Hint 1</summary>
#
# $g$ and $u$ have different lengths if $m\ne n$. Draw both from `rng`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The difference of the two inner products must be small against what? Against the lengths of the
# vectors that were multiplied, not against 1.
#
# </details>


# %% exercise="00.4" role="stub"
def is_adjoint(A, B, n, m, rng):
    """True if B is the VJP of the linear map A. A: (n,) -> (m,), B: (m,) -> (n,), as functions."""
    raise NotImplementedError


# %% exercise="00.4" role="check"
def check_00_4(is_adjoint):
    """Running sums and a gather, with right and wrong adjoints."""
    r, ids = np.random.default_rng(4), np.array([2, 0, 2, 4, 2, 1, 1])
    M = r.normal(size=(7, 5))

    def from_the_end(g):
        return np.cumsum(g[::-1])[::-1]

    for name, A, B, n, m, right in (
        ("running sums", np.cumsum, from_the_end, 6, 6, True),
        ("running sums, direction not reversed", np.cumsum, np.cumsum, 6, 6, False),
        ("a gather", lambda u: u[ids], lambda g: np.bincount(ids, g, minlength=5), 5, 7, True),
        ("a matrix", lambda u: M @ u, lambda g: g @ M, 5, 7, True),
        ("a matrix, times 1.00001", lambda u: M @ u, lambda g: 1.00001 * (g @ M), 5, 7, False),
        ("a cotangent that is ignored", lambda u: M @ u, lambda g: M.sum(0), 5, 7, False),
    ):
        said = bool(is_adjoint(A, B, n, m, np.random.default_rng(0)))
        assert said == right, f"{name}: should be {right}"


attempt(check_00_4, is_adjoint)

# %% [markdown]
# ### Exercise 00.5: Measure a kink
#
# *Difficulty 4 of 5 · 35 minutes · 3 points*
#
# $\varphi$ is continuous, and smooth on each side of $0$. Measure the jump of its slope,
# $s_+-s_-$, with an error below $10^{-5}$, and that where $\lvert\varphi\rvert$ may be $10^4$ and
# $\lvert\varphi''\rvert$ may be $10^3$. (00.25) alone is not enough: with a large step the
# curvature is in the way, with a small one the rounding.
#
# <details><summary>Hint 1</summary>
#
# Work out the next term of (00.25) if both sides are curved: $B(h)=(s_+-s_-)+c\,h+O(h^2)$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# You know how the disturbing term depends on $h$. Do what Richardson did, but for $h$ instead of
# $h^2$.
#
# </details>
#
# <details><summary>Hint 3</summary>
#
# The rounding of $B$ is about $4\varepsilon\lvert\varphi\rvert/h$, here $10^{-11}/h$. So $h$ need
# not be tiny: $10^{-4}$.
#
# </details>


# %% exercise="00.5" role="stub"
def jump(phi):
    """Slope of phi to the right of 0 less its slope to the left. phi: a number -> a number."""
    raise NotImplementedError


# %% exercise="00.5" role="check"
def check_00_5(jump):
    """A kink on a steep and strongly curved function far from 0, and no kink."""
    for name, phi, wanted in (
        ("a ReLU", lambda t: max(t, 0.0), 1.0),
        ("smooth and strongly curved", lambda t: 500 * t * t + 3 * t, 0.0),
        ("smooth, values of 10,000", lambda t: 1e4 + math.cos(30 * t), 0.0),
        ("kink and curvature", lambda t: 1e4 + 500 * t * t + 0.25 * abs(t) - 7 * t, 0.5),
        ("curved on one side", lambda t: t + 400 * t * t if t > 0 else -2 * t, 3.0),
    ):
        assert abs(jump(phi) - wanted) < 1e-5, f"{name}: the error is above 1e-5"


attempt(check_00_5, jump)

# %% [markdown]
# ### Exercise 00.6: A checker of your own
#
# *Difficulty 5 of 5 · 60 minutes · 5 points*
#
# Write the function that says whether a VJP is right. It gets $f$ and the VJP as NumPy functions
# and one or more float64 arrays with entries of order 1, where $f$ is smooth. It must accept what
# is right to $10^{-6}$ of the largest entry, and reject:
#
# - any entry, of any argument, that is off by $10^{-3}$ of that argument's largest entry,
# - another shape than the argument's, even one that would broadcast, and anything not finite,
# - a VJP that writes into $g$ or into an argument.
#
# The function's scale may be $10^{-9}$ or $10^9$, and a gradient may be exactly zero. Up to 1,000
# entries an argument; a second is too long.
#
# <details><summary>Hint 1</summary>
#
# The last checks of the table above, not the first. The cotangent is random, arguments are random
# already, each entry is differenced.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Compare the largest difference with the largest entry. If that is zero, or nearly, how large may
# the rounding be? (00.7) knows: some hundred times
# $\varepsilon\sum\lvert g\odot f\rvert/h$ is generous.
#
# </details>
#
# <details><summary>Hint 3</summary>
#
# Give the VJP copies, and compare them afterwards with what you gave. Write the acceptance as
# `error <= bound`, which a NaN fails, and not the rejection as `error > bound`.
#
# </details>


# %% exercise="00.6" role="stub"
def holds(f, vjp, *arrays):
    """Is vjp(g, *arrays), a tuple with one gradient an array, the VJP of f(*arrays)? -> bool"""
    raise NotImplementedError


# %% exercise="00.6" role="check"
def check_00_6(holds):
    """Right derivations are accepted, wrong ones rejected."""
    r = np.random.default_rng(6)
    x, b, big = r.normal(size=(4, 5)), r.normal(size=5), r.normal(size=(15, 20))

    def spike(g, x):
        dx = g * np.cos(x)
        dx[7, 11] += 2e-3 * np.abs(dx).max()
        return (dx,)

    def ratio(x):
        e = np.exp(x)
        return e / e.sum(-1, keepdims=True)

    for name, right, f, vjp, *arrays in (
        ("sin", True, np.sin, lambda g, x: (g * np.cos(x),), big),
        ("sin, one entry off", False, np.sin, spike, big),
        ("sin / 1e9", True, lambda x: 1e-9 * np.sin(x), lambda g, x: (1e-9 * g * np.cos(x),), x),
        ("sin / 1e9, 1000-fold", False, lambda x: 1e-9 * np.sin(x),
         lambda g, x: (1e-6 * g * np.cos(x),), x),
        ("1e9 sin", True, lambda x: 1e9 * np.sin(x), lambda g, x: (1e9 * g * np.cos(x),), x),
        ("softmax, zeros", False, ratio, lambda g, x: (np.zeros(x.shape),), x),
        ("sin, no cotangent", False, np.sin, lambda g, x: (np.cos(x),), x),
        ("rows of softmax summed", True, lambda x: ratio(x).sum(-1), lambda g, x: (0 * x,), x),
        ("x + b", True, np.add, lambda g, x, b: (g, g.sum(0)), x, b),
        ("x + b, mean", False, np.add, lambda g, x, b: (g, g.mean(0)), x, b),
        ("x + b, axis kept", False, np.add, lambda g, x, b: (g, g.sum(0, keepdims=True)), x, b),
    ):
        said = bool(holds(f, vjp, *(a.copy() for a in arrays)))
        assert said == right, f"{name}: should be {'accepted' if right else 'rejected'}"


attempt(check_00_6, holds)

# %% [markdown]
# ## What was checked
#
# | equation or claim | check | bound |
# |---|---|---|
# | (00.1) the cube's difference is 12.01 | `cube` | <= 1e-12 |
# | (00.2) softmax's gradient at four equal scores | `four_equal_scores` | <= 1e-10 |
# | the sum of softmax's outputs has no slope | `sum_of_outputs_is_constant` | <= 1e-12 |
# | (00.3) the VJP along u is the slope of g-weighted outputs | `vjp_is_a_slope` | <= 1e-13 |
# | (00.4) leading error of the forward difference | `forward_error` | <= 1e-4 |
# | (00.5) of the central difference | `central_error` | <= 1e-4 |
# | (00.6) of Richardson's extrapolation | `richardson_error` | <= 1e-3 |
# | (00.7) rounding over its bound | `rounding_stays_below` | <= 1 |
# | the bound is not far away | `rounding_comes_near` | >= 0.2 |
# | (00.8) best central step, in powers of ten | `best_central_step` | <= 0.7 |
# | (00.10) best forward step, in powers of ten | `best_forward_step` | <= 0.7 |
# | (00.11) best step of Richardson, in powers of ten | `best_richardson_step` | <= 0.4 |
# | (00.9), (00.10), (00.11) errors there, over the bounds | `best_errors_are_below` | <= 1 |
# | the bounds have the right order of magnitude | `best_errors_are_near` | >= 0.005 |
# | (00.12) leading error of the complex step | `complex_step_error` | <= 1e-4 |
# | with a step of 1e-20 it has all digits | `complex_step_has_all_digits` | <= 1e-15 |
# | (00.13) modulus, z times its conjugate, np.var | `modulus_has_no_imaginary_part` | <= 0 |
# | the true slopes of np.var are not zero | `so_the_slope_is_wrong` | >= 1 |
# | NumPy's complex maximum away from a tie | `maximum_away_from_a_tie` | <= 0 |
# | at a tie it reports a slope | `maximum_at_a_tie_says_1` | >= 1 |
# | (00.14) probability of missing one entry | `one_wrong_entry_missed` | <= 0.1 |
# | (00.15) two errors cancel under signs | `signs_cancel_half_the_time` | <= 0.02 |
# | (00.16) only the length of the error counts | `random_walk` | <= 0.02 |
# | (00.17) probability under a relative tolerance | `quotient_of_gaussians` | <= 0.06 |
# | (00.17) the package's one direction misses as often | `package_misses_as_often` | <= 0.2 |
# | entry by entry the same error is found and named | `every_entry_finds_it` | >= 1 |
# | (00.18) ones see the gradient of the sum | `ones_see_the_sum` | <= 1e-13 |
# | (00.19) softmax under ones | `softmax_under_ones` | <= 1e-14 |
# | (00.20) layer norm under ones | `layer_norm_under_ones` | <= 1e-14 |
# | (00.21) what a pair (g, u) sees | `a_pair_sees_one_number` | <= 1e-12 |
# | zeros fail under a random cotangent | `zeros_fail_under_random_g` | <= 0 |
# | (00.22) a central difference at a kink | `central_is_the_mean_slope` | <= 1e-6 |
# | (00.23) and near a kink | `near_a_kink` | <= 1e-12 |
# | (00.24) how many kinks a step crosses | `kinks_crossed` | <= 0.05 |
# | (00.25) the bend at a kink | `bend_is_the_jump` | <= 1e-4 |
# | (00.25) the bend where it is smooth | `smooth_bend_goes_with_h` | <= 1e-5 |
# | the package reports a kink for both slopes at 0 | `package_names_the_kink` | >= 1 |
# | (00.9) in float32: best error over its bound | `float32_best_error` | <= 1 |
# | no step gives six digits in float32 | `float32_never_gets_six_digits` | >= 1e-6 |
# | at a step of 1e-6 float32 is noise | `float32_at_the_usual_step` | >= 0.005 |
# | (00.26) where tanh rounds to 1 | `tanh_saturates` | <= 0.5 |
# | saturated, two wrong VJPs pass | `saturation_accepts_anything` | >= 1 |
# | at order 1 they do not | `order_1_accepts_neither` | <= 0 |
# | (00.27) noise of fresh masks | `dropout_noise` | <= 0.1 |
# | with fixed masks dropout passes | `fixed_masks_are_checked` | <= 1e-9 |
# | right entries fail, each relative to itself | `right_entries_fail` | >= 50 |
# | (00.28) only those below the bound | `only_entries_that_small_fail` | <= 1 |
# | as an array they pass | `as_an_array_it_passes` | <= 1e-8 |
# | (00.29) largest factor under a fixed scale | `factor_that_passes` | <= 0.01 |
# | (00.30) change of the loss along any direction | `first_order_change` | <= 1e-4 |
# | half of all random directions lower a loss | `half_of_all_directions` | <= 0.04 |
# | the check by hand accepts softmax's VJP | `by_hand_accepts_the_right_one` | <= 1e-9 |
# | and rejects three wrong ones | `by_hand_rejects_the_wrong_ones` | >= 0.01 |
# | (00.19) package, composed, differences, complex step | `softmax_witnesses` | <= 1e-9 |
# | the same for layer norm | `layer_norm_witnesses` | <= 1e-9 |
# | wrong VJPs of 20 that a falling loss catches | `falling_loss_catches_few` | <= 6 |
# | that ones on a fresh layer catch | `ones_catch_at_most_two_thirds` | <= 13 |
# | that float32 catches | `float32_misses_what_is_small` | <= 18 |
# | that a fresh layer shows | `fresh_layers_hide_gain_and_repeats` | <= 18 |
# | that the package catches entry by entry | `entries_catch_all` | >= 20 |
# | that the package catches along one direction | `one_direction_misses_at_most_one` | >= 19 |
# | right VJPs that it rejects | `package_has_no_false_alarm` | <= 0 |
# | right VJPs that fail entry by entry, each by itself | `entry_by_itself_raises_one` | >= 1 |
# | a forgotten root of D is a constant ratio | `a_factor_is_a_constant_ratio` | <= 1e-6 |
# | assignment is wrong at repeated ids alone | `assignment_shows_at_repeated_ids` | <= 0 |
# | five wrong gradients are found by the check | `all_are_found` | >= 1 |
# | their cosines to the right gradient | `all_point_downhill` | >= 0.5 |
# | their loss over that of character frequencies | `every_wrong_one_learns` | <= 0.97 |
# | a factor of 1,000 under Adam (nats) | `a_thousand_times_does_not_show` | <= 0.03 |
# | cost of four, over a third of the rate's | `four_cost_less_than_a_slower_rate` | <= 0.8 |
# | cosine of scrambled keys in k.weight | `scrambled_keys_point_nowhere` | <= 0.2 |
# | cost of scrambled keys (nats) | `nobody_sees_scrambled_keys` | <= 0.06 |
# | cost of the cut graph (nats) | `the_cut_graph_costs_most` | >= 0.15 |
# | zeros pass a test with ones | `zeros_pass_their_test` | >= 1 |
# | and fail with a random cotangent | `zeros_fail_ours` | <= 0 |
# | a thousandfold gradient is off by less than 1e-2 | `absolute_tolerance_accepts` | <= 1e-2 |
# | its relative error | `relative_error_does_not` | >= 0.99 |
# | layer norm on .data has the right value | `cut_graph_has_the_right_value` | <= 1e-12 |
# | and a wrong gradient | `cut_graph_has_a_wrong_gradient` | >= 0.2 |
# | without repeats assignment passes | `distinct_ids_hide_it` | >= 1 |
# | with repeats it fails | `repeated_ids_show_it` | <= 0 |
# | adding passes with repeats | `added_passes_both` | >= 1 |
# | a missing transpose, relative error | `two_heads_show_it` | >= 1 |
# | with one head it is right | `one_head_hides_it` | <= 1e-9 |
# | overwriting is right in a chain | `both_right_in_a_chain` | <= 0 |
# | and wrong at a fan-out | `overwriting_loses` | >= 1 |
# | adding is right | `adding_does_not` | <= 0 |
# | (00.31) calls of a recursive backward pass | `calls_double` | <= 0 |
# | the package calls each op once | `package_calls_once` | <= 0 |
# | and its gradient is right | `and_is_right` | <= 0 |
# | clipping of owned gradients | `owned_gradients_are_clipped` | <= 1e-12 |
# | of shared ones: scaled twice | `shared_ones_are_scaled_twice` | <= 1e-12 |
# | the package's leaves share nothing | `package_leaves_own_theirs` | <= 0 |
# | np.sqrt(64) makes float64 | `numpy_scalar_makes_float64` | >= 1 |
# | the package keeps float32 | `package_keeps_float32` | <= 0 |
# | softmax twice passes the gradient check | `gradient_check_accepts_it` | <= 1e-6 |
# | (00.32) loss of a sure and right answer | `floor_of_two_softmaxes` | <= 1e-12 |
# | (00.32) and nothing is below it | `nothing_is_below_the_floor` | <= 0 |
# | with one softmax it costs nothing | `one_softmax_reaches_zero` | <= 1e-12 |
#
# **Not checked:** that the twenty wrong VJPs represent what people get wrong, as we chose them;
# functions that are not computed to the last digit, for which (00.7) is too small; complex steps
# through linear algebra routines; second derivatives; kinks in many outputs at once; the experiment
# beyond one small network, one corpus, three seeds and 300 steps; and the projects themselves,
# whose mistakes are re-enacted here and not run.
