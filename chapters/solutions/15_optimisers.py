# %% [markdown]
# # Solutions to chapter 15 · Optimisers, clipping, schedules

# %% [markdown]
# ## Exercise 15.1: Three steps with pencil and paper
#
# $m_1=4$, so $x_1=1-0.4=0.6$. $m_2=0.5\cdot4+4\cdot0.6=4.4$, so $x_2=0.6-0.44=0.16$.
# $m_3=0.5\cdot4.4+4\cdot0.16=2.84$, so $x_3=0.16-0.284=-0.124$. The third step overshoots: the
# ball still rolls when the slope has nearly gone.


# %% exercise="15.1" role="solution"
def three_steps():
    """x after one, two and three steps of momentum. -> three numbers."""
    return [0.6, 0.16, -0.124]


# %% exercise="15.1" role="hidden"
assert np.abs(np.array(three_steps()) - [0.6, 0.16, -0.124]).max() < 1e-9, "not the three places"


# %% exercise="15.1" role="wrong" why="no momentum"
def three_steps():
    return [0.6, 0.36, 0.216]


# %% exercise="15.1" role="wrong" why="weights the gradient by 1 - mu"
def three_steps():
    return [0.8, 0.54, 0.302]


# %% exercise="15.1" role="wrong" why="moves along the momentum of the step before"
def three_steps():
    return [1.0, 0.6, 0.0]


# %% [markdown]
# ## Exercise 15.2: The critical momentum
#
# Let $z=\eta\lambda\le1$. For $\mu<(1-\sqrt z)^2$ the roots are real, and the larger,
# $\frac12\left(b+\sqrt{b^2-4\mu}\right)$ with $b=1+\mu-z$, falls as $\mu$ grows. For larger $\mu$
# they are complex with modulus $\sqrt\mu$, which rises. The best is the border: by (15.11)
# $z=(1-\sqrt\mu)^2$, so $\sqrt\mu=1-\sqrt z$, a double root.


# %% exercise="15.2" role="solution"
def critical_momentum(lr, lam):
    """The momentum that forgets the start fastest, and its factor. lr, lam (...) -> mu, factor."""
    factor = 1 - np.sqrt(lr * lam)
    return factor**2, factor


# %% exercise="15.2" role="hidden"
mu, factor = critical_momentum(np.array([0.25, 0.1]), np.array([1.0, 10.0]))
assert np.allclose(mu, [0.25, 0]) and np.allclose(factor, [0.5, 0]), "arrays, and rate 1 / lam"


# %% exercise="15.2" role="wrong" why="returns the root as the momentum"
def critical_momentum(lr, lam):
    factor = 1 - np.sqrt(lr * lam)
    return factor, factor


# %% exercise="15.2" role="wrong" why="takes 1 - rate * curvature for the factor"
def critical_momentum(lr, lam):
    factor = 1 - lr * lam
    return factor**2, factor


# %% exercise="15.2" role="wrong" why="one momentum for all curvatures: only hidden tests see it"
def critical_momentum(lr, lam):
    factor = 1 - np.sqrt(np.max(lr * lam))
    return factor**2, factor


# %% [markdown]
# ## Exercise 15.3: Nesterov's momentum
#
# On one curvature the gradient at the look-ahead is $\lambda(x_t-\eta\mu m_t)$. So the momentum is
# multiplied by $\mu(1-\eta\lambda)$ instead of $\mu$: more damping in steep directions, the same
# in flat ones. The product of the two roots is $\mu(1-\eta\lambda)$.


# %% exercise="15.3" role="solution"
def nesterov(grad, x0, lr, mu, steps):
    """Where Nesterov's momentum ends. grad: (n,) -> (n,); x0 (n,) -> (n,)."""
    x, m = x0.copy(), np.zeros_like(x0)
    for _ in range(steps):
        m = mu * m + grad(x - lr * mu * m)
        x = x - lr * m
    return x


# %% exercise="15.3" role="hidden"
lam, start = np.array([0.5, 3.0]), np.array([2.0, -1.0])
for n in (1, 7, 30):  # the state (x, m) is multiplied by a matrix
    want = []
    for k, c in zip(lam, start, strict=True):
        a = 0.9 * (1 - 0.2 * k)
        want.append((np.linalg.matrix_power(np.array([[1 - 0.2 * k, -0.2 * a], [k, a]]), n)
                     @ [c, 0])[0])
    assert rel_error(nesterov(lambda x: lam * x, start, 0.2, 0.9, n), want) < 1e-9, f"{n} steps"
assert np.allclose(nesterov(lambda x: x**3, np.array([1.0]), 0.1, 0.0, 1), 0.9), "not linear"


# %% exercise="15.3" role="wrong" why="the heavy ball: no look ahead"
def nesterov(grad, x0, lr, mu, steps):
    x, m = x0.copy(), np.zeros_like(x0)
    for _ in range(steps):
        m = mu * m + grad(x)
        x = x - lr * m
    return x


# %% exercise="15.3" role="wrong" why="looks ahead without the rate"
def nesterov(grad, x0, lr, mu, steps):
    x, m = x0.copy(), np.zeros_like(x0)
    for _ in range(steps):
        m = mu * m + grad(x - mu * m)
        x = x - lr * m
    return x


# %% exercise="15.3" role="wrong" why="changes x0 in place"
def nesterov(grad, x0, lr, mu, steps):
    x, m = x0, np.zeros_like(x0)
    for _ in range(steps):
        m = mu * m + grad(x - lr * mu * m)
        x -= lr * m
    return x


# %% [markdown]
# ## Exercise 15.4: A clip that survives float32
#
# Divide by the largest absolute entry $a$ first: then all squares are at most 1 and the largest is
# 1, so the sum neither overflows nor vanishes. (Computing the squares in float64 does it too, for
# float32 input.) The comparison `a < inf` is false for a NaN, which catches both bad cases.


# %% exercise="15.4" role="solution"
def clip_safely(grads, c):
    """Copies of grads scaled to a global norm of at most c > 0, and the norm before.

    grads: list of arrays of any shapes, of one float dtype -> (list of the same, float).
    """
    if not all(np.isfinite(g).all() for g in grads):
        return [np.zeros_like(g) for g in grads], math.inf
    a = max((float(np.abs(g).max()) for g in grads if g.size), default=0.0)
    if a == 0:
        return [g.copy() for g in grads], 0.0
    unit = [g.astype("float64") / a for g in grads]
    length = math.sqrt(sum(float((u * u).sum()) for u in unit))
    if length <= c / a:
        return [g.copy() for g in grads], a * length
    out = [(u * (c / length)).astype(g.dtype) for u, g in zip(unit, grads, strict=True)]
    return out, a * length


# %% exercise="15.4" role="hidden"
kept = [np.array([3.0, 4.0], "float32")]
out, norm = clip_safely(kept, 10.0)
assert (out[0] == kept[0]).all() and out[0] is not kept[0], "short gradients stay, as copies"
clip_safely(kept, 1.0)
assert (kept[0] == [3, 4]).all(), "the gradients given were changed"
out, norm = clip_safely([np.zeros(3)], 1.0)
assert (out[0] == 0).all() and norm == 0, "zeros stay zeros"
out, norm = clip_safely([np.full(4, 1e200)], 1.0)  # float64 overflows too
assert abs(norm / 2e200 - 1) < 1e-9 and np.allclose(out[0], 0.5), "1e200 squared overflows float64"
out, norm = clip_safely([np.array([1.0]), np.array([-np.inf])], 1.0)
assert norm == math.inf and all((g == 0).all() for g in out), "an infinity anywhere: all zeros"


# %% exercise="15.4" role="wrong" why="squares in float32"
def clip_safely(grads, c):
    with np.errstate(all="ignore"):
        norm = float(np.sqrt(sum((g * g).sum() for g in grads)))
    if not math.isfinite(norm):
        return [np.zeros_like(g) for g in grads], math.inf
    scale = min(1, c / norm) if norm else 1
    return [(g * scale).astype(g.dtype) for g in grads], norm


# %% exercise="15.4" role="wrong" why="clips each array by itself"
def clip_safely(grads, c):
    out, total = [], 0.0
    for g in grads:
        if not np.isfinite(g).all():
            return [np.zeros_like(g) for g in grads], math.inf
        norm = math.sqrt(float((g.astype("float64") ** 2).sum()))
        total += norm**2
        out.append((g * (min(1, c / norm) if norm else 1)).astype(g.dtype))
    return out, math.sqrt(total)


# %% exercise="15.4" role="wrong" why="squares in float64 overflow too: only hidden tests see it"
def clip_safely(grads, c):
    if not all(np.isfinite(g).all() for g in grads):
        return [np.zeros_like(g) for g in grads], math.inf
    with np.errstate(all="ignore"):
        norm = math.sqrt(sum(float((g.astype("float64") ** 2).sum()) for g in grads))
    scale = min(1, c / norm) if norm else 1
    return [(g * scale).astype(g.dtype) for g in grads], norm


# %% [markdown]
# ## Exercise 15.5: Lion
#
# As defined, and in this order: the step needs the old mean. By the sign every parameter moves by
# the rate at every step, not only at the first as in Adam. So Lion needs a smaller rate, and
# shrinking rates at the end: its steps do not become short by themselves.


# %% exercise="15.5" role="solution"
def lion(x, m, g, lr, betas=(0.9, 0.99), decay=0.0):
    """One step of Lion. x, m, g (n,) -> new x (n,), new m (n,). Arguments stay as they are."""
    b1, b2 = betas
    step = np.sign(b1 * m + (1 - b1) * g)
    return (1 - lr * decay) * x - lr * step, b2 * m + (1 - b2) * g


# %% exercise="15.5" role="hidden"
x, m = np.array([1.0, -1.0]), np.array([0.2, 0.3])
g = np.array([-0.5, 0.4])
x1, m1 = lion(x, m, g, 0.01, (0.5, 0.75), 2.0)
assert np.allclose(x1, 0.98 * x - 0.01 * np.sign(0.5 * m + 0.5 * g)), "decay and step together"
assert np.allclose(m1, 0.75 * m + 0.25 * g), "other betas"


# %% exercise="15.5" role="wrong" why="updates m first, and steps along the new one"
def lion(x, m, g, lr, betas=(0.9, 0.99), decay=0.0):
    m = betas[1] * m + (1 - betas[1]) * g
    return (1 - lr * decay) * x - lr * np.sign(m), m


# %% exercise="15.5" role="wrong" why="swaps the betas"
def lion(x, m, g, lr, betas=(0.9, 0.99), decay=0.0):
    b2, b1 = betas
    step = np.sign(b1 * m + (1 - b1) * g)
    return (1 - lr * decay) * x - lr * step, b2 * m + (1 - b2) * g


# %% exercise="15.5" role="wrong" why="puts the decay inside the sign"
def lion(x, m, g, lr, betas=(0.9, 0.99), decay=0.0):
    b1, b2 = betas
    step = np.sign(b1 * m + (1 - b1) * (g + decay * x))
    return x - lr * step, b2 * m + (1 - b2) * g


# %% exercise="15.5" role="wrong" why="ignores the betas given: only hidden tests see it"
def lion(x, m, g, lr, betas=(0.9, 0.99), decay=0.0):
    step = np.sign(0.9 * m + 0.1 * g)
    return (1 - lr * decay) * x - lr * step, 0.99 * m + 0.01 * g


# %% [markdown]
# ## Exercise 15.6: Adam's memory, factored
#
# Let $R_i=\sum_jv_{ij}$ and $C_j=\sum_iv_{ij}$, with the common total $S=\sum_iR_i=\sum_jC_j$. The
# matrix $R_iC_j/S$ has rank 1, row sums $R_iS/S=R_i$ and column sums $C_j$. It is the only one: in
# $a_ib_j$ the row sums make $a$ proportional to $R$, the column sums $b$ to $C$, and the total
# fixes the factor. Sums are linear, so running means of the sums are the sums of the running mean.
# If $v$ itself has rank 1, it is returned exactly.


# %% exercise="15.6" role="solution"
def factored(shape, beta):
    """An object with update(g) and estimate(), g and the estimate of this shape (n, m)."""

    class Memory:
        def __init__(self):
            self.rows, self.columns, self.steps = np.zeros(shape[0]), np.zeros(shape[1]), 0

        def update(self, g):
            self.steps += 1
            self.rows = beta * self.rows + (1 - beta) * (g * g).sum(1)
            self.columns = beta * self.columns + (1 - beta) * (g * g).sum(0)

        def estimate(self):
            unbiased = 1 - beta**self.steps
            total = self.rows.sum()
            if total == 0:
                return np.zeros(shape)
            return np.outer(self.rows, self.columns) / total / unbiased

    return Memory()


# %% exercise="15.6" role="hidden"
memory = factored((2, 3), 0.5)
memory.update(np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]))  # squares: rows 5, 5; columns 1, 5, 4
assert np.allclose(memory.estimate(), [[0.5, 2.5, 2.0], [0.5, 2.5, 2.0]]), "a case by hand"
memory = factored((3, 2), 0.9)
memory.update(np.zeros((3, 2)))
assert (memory.estimate() == 0).all(), "gradients of zero: an estimate of zero, and no NaN"
one, two = factored((2, 2), 0.9), factored((2, 2), 0.9)
one.update(np.ones((2, 2)))
two.update(3 * np.ones((2, 2)))
assert np.allclose(one.estimate(), 1) and np.allclose(two.estimate(), 9), "objects share a state"


# %% exercise="15.6" role="wrong" why="forgets the bias correction"
def factored(shape, beta):
    class Memory:
        def __init__(self):
            self.rows, self.columns = np.zeros(shape[0]), np.zeros(shape[1])

        def update(self, g):
            self.rows = beta * self.rows + (1 - beta) * (g * g).sum(1)
            self.columns = beta * self.columns + (1 - beta) * (g * g).sum(0)

        def estimate(self):
            return np.outer(self.rows, self.columns) / self.rows.sum()

    return Memory()


# %% exercise="15.6" role="wrong" why="forgets to divide by the total"
def factored(shape, beta):
    class Memory:
        def __init__(self):
            self.rows, self.columns, self.steps = np.zeros(shape[0]), np.zeros(shape[1]), 0

        def update(self, g):
            self.steps += 1
            self.rows = beta * self.rows + (1 - beta) * (g * g).sum(1)
            self.columns = beta * self.columns + (1 - beta) * (g * g).sum(0)

        def estimate(self):
            return np.outer(self.rows, self.columns) / (1 - beta**self.steps) ** 2

    return Memory()


# %% exercise="15.6" role="wrong" why="zeros give NaN: only hidden tests see it"
def factored(shape, beta):
    class Memory:
        def __init__(self):
            self.rows, self.columns, self.steps = np.zeros(shape[0]), np.zeros(shape[1]), 0

        def update(self, g):
            self.steps += 1
            self.rows = beta * self.rows + (1 - beta) * (g * g).sum(1)
            self.columns = beta * self.columns + (1 - beta) * (g * g).sum(0)

        def estimate(self):
            with np.errstate(all="ignore"):
                share = np.outer(self.rows, self.columns) / self.rows.sum()
            return share / (1 - beta**self.steps)

    return Memory()
