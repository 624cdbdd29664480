# %% [markdown]
# # Solutions to chapter 00 · How to check a gradient, and how checks lie

# %% [markdown]
# ## Exercise 00.1: A blind cotangent
#
# From (00.19) the right gradient is
# $\sum_kg_kp_k(\delta_{ki}-p_i)=p_i(g_i-\sum_kg_kp_k)$, and the wrong one $p_ig_i$. They differ
# by $p_i\,\langle p,g\rangle$, so every $g$ at right angles to $p$ is blind: $g_1+2g_2+3g_3=0$.
# That is a plane, two of three dimensions, and yet a random $g$ lies in it with probability zero.
# Constant cotangents, the usual choice, are *not* in it: ones catch this mistake.


# %% exercise="00.1" role="solution"
def blind_cotangent():
    """Three numbers g, not all 0, under which p * g is softmax's gradient at (ln 1, ln 2, ln 3)."""
    return [2.0, -1.0, 0.0]


# %% exercise="00.1" role="hidden"
g = np.array(blind_cotangent(), dtype=float)
assert abs(g @ [1, 2, 3]) < 1e-9 * np.abs(g).max(), "g must be at right angles to p, exactly"


# %% exercise="00.1" role="wrong" why="a constant cotangent, blind for zeros and not for this"
def blind_cotangent():
    return [1.0, 1.0, 1.0]


# %% exercise="00.1" role="wrong" why="sums to zero, but is not at right angles to p"
def blind_cotangent():
    return [1.0, -1.0, 0.0]


# %% exercise="00.1" role="wrong" why="zero"
def blind_cotangent():
    return [0.0, 0.0, 0.0]


# %% exercise="00.1" role="wrong" why="nearly at right angles: only hidden tests see it"
def blind_cotangent():
    return [2.0, -1.0, 1e-8]


# %% [markdown]
# ## Exercise 00.2: The best step of a second difference
#
# $\varphi(h)+\varphi(-h)=2\varphi+h^2\varphi''+\frac{h^4}{12}\varphi^{(4)}+\dots$, so
# $S(h)=\varphi''+\frac{h^2}{12}\varphi^{(4)}$. The rounding: $\varepsilon\varphi$ from each of the
# outer values and $2\varepsilon\varphi$ from the middle, over $h^2$. With $s=h^2$ the sum
# $\frac s{12}\varphi^{(4)}+4\varepsilon\varphi/s$ is least where both are equal:
# $s^2=48\,\varepsilon\varphi/\varphi^{(4)}$. Each is then
# $\sqrt{\frac1{12}\varphi^{(4)}\cdot4\varepsilon\varphi}=\sqrt{\varepsilon\varphi\varphi^{(4)}/3}$.
# Only **half the digits**, at a step near $3\cdot10^{-4}$.


# %% exercise="00.2" role="solution"
def best_second_step(phi, phi4, eps):
    """The step h that is best for S(h), and the bound of its error there: two numbers.

    phi, phi4: absolute values of phi and its fourth derivative. eps: the spacing at 1.
    """
    return (48 * eps * phi / phi4) ** 0.25, 2 * math.sqrt(eps * phi * phi4 / 3)


# %% exercise="00.2" role="hidden"
h, error = best_second_step(3.0, 1.0, 1.0 / 9)
assert abs(h - 2.0) < 1e-9, "the constant of the step is wrong"
assert abs(error - 2 / 3) < 1e-9, "the constant of the error is wrong"


# %% exercise="00.2" role="wrong" why="the step of a first derivative"
def best_second_step(phi, phi4, eps):
    h = (3 * eps * phi / phi4) ** (1 / 3)
    return h, h * h * phi4 / 12 + 4 * eps * phi / h**2


# %% exercise="00.2" role="wrong" why="rounding of two values instead of four: only hidden tests"
def best_second_step(phi, phi4, eps):
    return (24 * eps * phi / phi4) ** 0.25, 2 * math.sqrt(eps * phi * phi4 / 6)


# %% exercise="00.2" role="wrong" why="phi and phi4 exchanged"
def best_second_step(phi, phi4, eps):
    return (48 * eps * phi4 / phi) ** 0.25, 2 * math.sqrt(eps * phi * phi4 / 3)


# %% [markdown]
# ## Exercise 00.3: The Jacobian of a matrix function
#
# (00.12) holds for each entry of $f$ by itself, so one complex step in $X_{ij}$ gives
# $\partial f_{kl}/\partial X_{ij}$ for all $k,l$. The axes of $f(X)$ come first. `astype` copies,
# so $X$ stays as it was, and integers become numbers that can move.


# %% exercise="00.3" role="solution"
def matrix_jacobian(f, X):
    """J[k, l, i, j] = d f(X)[k, l] / d X[i, j]. X (n, m), f(X) (p, q) -> (p, q, n, m), float64."""
    J = np.zeros(f(X).shape + X.shape)
    for i, j in np.ndindex(X.shape):
        moved = X.astype(complex)
        moved[i, j] += 1e-30j
        J[:, :, i, j] = f(moved).imag / 1e-30
    return J


# %% exercise="00.3" role="hidden"
r = np.random.default_rng(13)
X = r.normal(size=(3, 3)) + 3 * np.eye(3)
kept, J, inverse = X.copy(), matrix_jacobian(np.linalg.inv, X), np.linalg.inv(X)
assert np.array_equal(X, kept), "X was changed"
exact = -np.einsum("ki,jl->klij", inverse, inverse)
assert np.abs(J - exact).max() < 1e-13, "the inverse's Jacobian is wrong"
J = matrix_jacobian(lambda Z: Z[:1] * Z[:1], np.array([[2, 3], [4, 5]]))
assert J.shape == (1, 2, 2, 2), "f(X) may have another shape than X, and X may hold integers"
wanted = np.array([[4, 0], [0, 6]])
assert (J[0, :, 0] == wanted).all() and (J[:, :, 1] == 0).all(), "slopes of squares"


# %% exercise="00.3" role="wrong" why="real differences"
def matrix_jacobian(f, X):
    J = np.zeros(f(X).shape + X.shape)
    for i, j in np.ndindex(X.shape):
        E = np.zeros(X.shape)
        E[i, j] = 1e-6
        J[:, :, i, j] = (f(X + E) - f(X - E)) / 2e-6
    return J


# %% exercise="00.3" role="wrong" why="the axes of X first: a square shape would hide it"
def matrix_jacobian(f, X):
    J = np.zeros(X.shape + f(X).shape)
    for i, j in np.ndindex(X.shape):
        moved = X.astype(complex)
        moved[i, j] += 1e-30j
        J[i, j] = f(moved).imag / 1e-30
    return J


# %% exercise="00.3" role="wrong" why="f's output has X's shape: only hidden tests see it"
def matrix_jacobian(f, X):
    J = np.zeros(X.shape + X.shape)
    for i, j in np.ndindex(X.shape):
        moved = X + 0j
        moved[i, j] += 1e-30j
        J[:, :, i, j] = f(moved).imag / 1e-30
    return J


# %% exercise="00.3" role="wrong" why="a complex step that is too long: only hidden tests see it"
def matrix_jacobian(f, X):
    J = np.zeros(f(X).shape + X.shape)
    for i, j in np.ndindex(X.shape):
        moved = X.astype(complex)
        moved[i, j] += 1e-3j
        J[:, :, i, j] = f(moved).imag / 1e-3
    return J


# %% exercise="00.3" role="wrong" why="divides by the imaginary step and keeps complex numbers"
def matrix_jacobian(f, X):
    J = np.zeros(f(X).shape + X.shape, complex)
    for i, j in np.ndindex(X.shape):
        moved = X.astype(complex)
        moved[i, j] += 1e-8j
        J[:, :, i, j] = (f(moved) - f(X)) / 1e-8j
    return J


# %% [markdown]
# ## Exercise 00.4: The adjoint test
#
# The two inner products are equal in exact arithmetic, so only rounding separates them: some
# $\varepsilon\lvert g\rvert\lvert Au\rvert$. If $B$ is off by a share $r$, their difference is
# typically $r\,\lvert Bg\rvert\lvert u\rvert/\sqrt n$. A tolerance of $10^{-10}$ lies between the
# two for every $r$ above $10^{-9}$ or so. Three pairs make a chance agreement (00.17) as good as
# impossible. The tolerance scales with both maps, so neither $10^{-9}A$ nor $10^9A$ fools it.


# %% exercise="00.4" role="solution"
def is_adjoint(A, B, n, m, rng):
    """True if B is the VJP of the linear map A. A: (n,) -> (m,), B: (m,) -> (n,), as functions."""
    for _ in range(3):
        u, g = rng.standard_normal(n), rng.standard_normal(m)
        forth, back = A(u), B(g)
        if back.shape != u.shape:
            return False
        scale = np.linalg.norm(g) * np.linalg.norm(forth) + np.linalg.norm(back) * np.linalg.norm(u)
        if not abs(g @ forth - back @ u) <= 1e-10 * scale:
            return False
    return True


# %% exercise="00.4" role="hidden"
M = np.random.default_rng(14).normal(size=(8, 8))
for K in (1e-12 * M, 1e9 * M):
    right = is_adjoint(lambda u, K=K: K @ u, lambda g, K=K: g @ K, 8, 8, np.random.default_rng(1))
    assert right, "a right adjoint of a small or large map was rejected"
    wrong = is_adjoint(lambda u, K=K: K @ u, lambda g, K=K: K @ g, 8, 8, np.random.default_rng(1))
    assert not wrong, "a small or large matrix that is not transposed was accepted"
assert not is_adjoint(lambda u: M @ u, lambda g: (1 + 1e-6) * (g @ M), 8, 8,
                      np.random.default_rng(1)), "off by 1e-6 as a whole"
turn = np.eye(2)[::-1] * [[1], [-1]]
assert not is_adjoint(lambda u: turn @ u, lambda g: turn @ g, 2, 2, np.random.default_rng(1)), (
    "a rotation is not its own adjoint"
)


# %% exercise="00.4" role="wrong" why="a cotangent of ones"
def is_adjoint(A, B, n, m, rng):
    u, g = rng.standard_normal(n), np.ones(m)
    return abs(g @ A(u) - B(g) @ u) <= 1e-10 * np.linalg.norm(g) * np.linalg.norm(A(u))


# %% exercise="00.4" role="wrong" why="an absolute tolerance: only hidden tests see it"
def is_adjoint(A, B, n, m, rng):
    u, g = rng.standard_normal(n), rng.standard_normal(m)
    return abs(g @ A(u) - B(g) @ u) < 1e-9


# %% exercise="00.4" role="wrong" why="a tolerance of a per mille"
def is_adjoint(A, B, n, m, rng):
    u, g = rng.standard_normal(n), rng.standard_normal(m)
    return abs(g @ A(u) - B(g) @ u) <= 1e-3 * np.linalg.norm(g) * np.linalg.norm(A(u))


# %% exercise="00.4" role="wrong" why="the same vector on both sides, where the shapes allow it"
def is_adjoint(A, B, n, m, rng):
    u = rng.standard_normal(n)
    g = u if m == n else rng.standard_normal(m)
    return abs(g @ A(u) - B(g) @ u) <= 1e-10 * np.linalg.norm(g) * np.linalg.norm(A(u))


# %% [markdown]
# ## Exercise 00.5: Measure a kink
#
# With one-sided derivatives $\varphi(\pm h)=\varphi\pm hs_\pm+\frac{h^2}2\varphi''_\pm
# \pm\frac{h^3}6\varphi'''_\pm$, so $B(h)=(s_+-s_-)+\frac h2(\varphi''_++\varphi''_-)
# +\frac{h^2}6(\varphi'''_+-\varphi'''_-)+\dots$ Doubling $h$ doubles the second term, so
# $2B(h)-B(2h)$ has none of it. What is left is of order $h^2$ times a jump of third derivatives.
# At $h=10^{-4}$ the rounding is $10^{-7}$ for $\varphi=10^4$.


# %% exercise="00.5" role="solution"
def jump(phi):
    """Slope of phi to the right of 0 less its slope to the left. phi: a number -> a number."""

    def bend_at(h):
        return (phi(h) - 2 * phi(0.0) + phi(-h)) / h

    return 2 * bend_at(1e-4) - bend_at(2e-4)


# %% exercise="00.5" role="hidden"
assert abs(jump(lambda t: min(t, 0.0)) + 1) < 1e-5, "the jump of min(t, 0) is negative"
assert abs(jump(lambda t: 1e4 + math.sin(20 * t) - abs(t)) + 2) < 1e-5, "a kink on a sine"
assert abs(jump(lambda t: 1e4 + 500 * t * t + 1e-4 * abs(t)) - 2e-4) < 1e-5, "a small kink"
assert abs(jump(lambda t: math.exp(t) * abs(t) + 100 * t**3) - 2) < 1e-5, "a curved kink"


# %% exercise="00.5" role="wrong" why="one bend with a small step"
def jump(phi):
    h = 1e-7
    return (phi(h) - 2 * phi(0.0) + phi(-h)) / h


# %% exercise="00.5" role="wrong" why="extrapolates as if the error went with the square of h"
def jump(phi):
    def bend_at(h):
        return (phi(h) - 2 * phi(0.0) + phi(-h)) / h

    return (4 * bend_at(1e-4) - bend_at(2e-4)) / 3


# %% exercise="00.5" role="wrong" why="loses the sign: only hidden tests see it"
def jump(phi):
    def bend_at(h):
        return (phi(h) - 2 * phi(0.0) + phi(-h)) / h

    return abs(2 * bend_at(1e-4) - bend_at(2e-4))


# %% exercise="00.5" role="wrong" why="calls small kinks none: only hidden tests see it"
def jump(phi):
    def bend_at(h):
        return (phi(h) - 2 * phi(0.0) + phi(-h)) / h

    found = 2 * bend_at(1e-4) - bend_at(2e-4)
    return found if abs(found) > 1e-3 else 0.0


# %% [markdown]
# ## Exercise 00.6: A checker of your own
#
# Each decision answers one lie. Random $g$: zeros and forgotten cotangents. Every entry: a single
# wrong one hides from a direction (00.17). Relative to the argument's own largest entry: a factor
# of 1,000 at a scale of $10^{-9}$ (00.29), and small right entries (00.28). A noise floor from
# (00.7): a gradient that is exactly zero. The shape first: NumPy would broadcast $(1,5)$ against
# $(5)$. `error <= bound`: NaN. Copies: writing.


# %% exercise="00.6" role="solution"
def holds(f, vjp, *arrays):
    """Is vjp(g, *arrays), a tuple with one gradient an array, the VJP of f(*arrays)? -> bool"""
    out = np.asarray(f(*arrays))
    g = np.asarray(np.random.default_rng(0).standard_normal(out.shape))
    given = [a.copy() for a in (g, *arrays)]
    claimed = vjp(*given)
    if any((a != b).any() for a, b in zip(given, (g, *arrays), strict=True)):
        return False  # something was written into
    if len(claimed) != len(arrays):
        return False
    h = 1e-3
    noise = 300 * np.finfo(float).eps * np.abs(g * out).sum() / h
    for i, (x, dx) in enumerate(zip(arrays, claimed, strict=True)):
        if np.shape(dx) != x.shape:
            return False

        def phi(z, i=i):
            return (g * f(*arrays[:i], z, *arrays[i + 1 :])).sum()

        measured = central_differences(phi, x, h)
        bound = max(1e-5 * np.abs(measured).max(), noise)
        if not np.abs(dx - measured).max() <= bound:
            return False
    return True


# %% exercise="00.6" role="hidden"
r = np.random.default_rng(16)
x, y = r.normal(size=(2, 4, 4))


def written(g, x):
    g *= np.cos(x)
    return (g,)


def not_a_number(g, x):
    dx = g * np.cos(x)
    dx[1, 2] = math.nan
    return (dx,)


def products(g, x, y):
    return g @ y.T, x.T @ g


assert holds(np.matmul, products, x, y), "a right product was rejected"
assert not holds(np.matmul, lambda g, x, y: (g @ y.T, g.T @ x), x, y), "dy is transposed"
assert not holds(np.matmul, lambda g, x, y: (g @ y.T, 1.002 * (x.T @ g)), x, y), "dy off by 0.2 %"
assert not holds(np.sin, written, x), "a VJP that writes into g was accepted"
assert not holds(np.sin, not_a_number, x), "a NaN was accepted"
assert holds(np.sum, lambda g, x: (np.full(x.shape, g),), x), "a single number as the output"
steep = np.array([0.5, 6.0])  # the second slope of tanh is 2e-5
assert holds(np.tanh, lambda g, x: (g * (1 - np.tanh(x) ** 2),), steep), "a small right entry"


# %% exercise="00.6" role="wrong" why="a cotangent of ones"
def holds(f, vjp, *arrays):
    out = np.asarray(f(*arrays))
    claimed = vjp(np.ones(out.shape), *arrays)
    for i, (x, dx) in enumerate(zip(arrays, claimed, strict=True)):
        measured = central_differences(
            lambda z, i=i: np.sum(f(*arrays[:i], z, *arrays[i + 1 :])), x)
        if dx.shape != x.shape:
            return False
        if not np.abs(dx - measured).max() <= 1e-5 * np.abs(measured).max() + 1e-9:
            return False
    return True


# %% exercise="00.6" role="wrong" why="an absolute tolerance"
def holds(f, vjp, *arrays):
    g = np.asarray(np.random.default_rng(0).standard_normal(np.shape(f(*arrays))))
    for i, (x, dx) in enumerate(zip(arrays, vjp(g.copy(), *arrays), strict=True)):
        measured = central_differences(
            lambda z, i=i: (g * f(*arrays[:i], z, *arrays[i + 1 :])).sum(), x)
        if dx.shape != x.shape or not np.allclose(dx, measured, atol=1e-5):
            return False
    return True


# %% exercise="00.6" role="wrong" why="one direction, a tolerance of a per mille"
def holds(f, vjp, *arrays):
    r = np.random.default_rng(0)
    g = np.asarray(r.standard_normal(np.shape(f(*arrays))))
    noise = 1e-10 * np.abs(g * f(*arrays)).sum()
    for i, (x, dx) in enumerate(zip(arrays, vjp(g.copy(), *arrays), strict=True)):
        u, h = r.standard_normal(x.shape), 1e-4
        ends = [(g * f(*arrays[:i], x + t * u, *arrays[i + 1 :])).sum() for t in (h, -h)]
        slope = (ends[0] - ends[1]) / (2 * h)
        if dx.shape != x.shape or not abs((dx * u).sum() - slope) <= 1e-3 * abs(slope) + noise:
            return False
    return True


# %% exercise="00.6" role="wrong" why="a NaN passes, and writing is not seen: only hidden tests"
def holds(f, vjp, *arrays):
    out = np.asarray(f(*arrays))
    g = np.asarray(np.random.default_rng(0).standard_normal(out.shape))
    noise = 1e-10 * np.abs(g * out).sum()
    for i, (x, dx) in enumerate(zip(arrays, vjp(g.copy(), *arrays), strict=True)):
        measured = central_differences(
            lambda z, i=i: (g * f(*arrays[:i], z, *arrays[i + 1 :])).sum(), x)
        if dx.shape != x.shape:
            return False
        if np.abs(dx - measured).max() > 1e-5 * np.abs(measured).max() + noise:
            return False
    return True
