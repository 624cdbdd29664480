# %% [markdown]
# # Solutions to chapter 11 · Normalisation: layer norm's backward pass

# %% [markdown]
# ## Exercise 11.1: One row by hand
#
# The mean is 4, the centred row $(-2,0,0,2)$, the variance $8/4=2$, so $r=1/\sqrt2$ and
# $\hat x=(-\sqrt2,0,0,\sqrt2)$. The mean of $g$ is $\frac14$, and the mean of $g\odot\hat x$ is
# $-\frac{\sqrt2}4$. Then
#
# $$g-\tfrac14-\hat x\cdot\left(-\tfrac{\sqrt2}4\right)
# =\left(\tfrac34,-\tfrac14,-\tfrac14,-\tfrac14\right)+\left(-\tfrac12,0,0,\tfrac12\right)
# =\left(\tfrac14,-\tfrac14,-\tfrac14,\tfrac14\right),$$
#
# and $dx$ is that over $\sqrt2$. It sums to zero, and its inner product with the centred row is
# zero: the two laws hold.


# %% exercise="11.1" role="solution"
def row_and_gradient():
    """xhat and dx of x = (2, 4, 4, 6) under g = (1, 0, 0, 0). -> (four numbers, four numbers)."""
    root = math.sqrt(2)
    return [-root, 0, 0, root], [0.25 / root, -0.25 / root, -0.25 / root, 0.25 / root]


# %% exercise="11.1" role="hidden"
xhat, dx = (np.array(a) for a in row_and_gradient())
assert abs(dx.sum()) < 1e-9 and abs(dx @ xhat) < 1e-9, "dx must obey both laws"
assert abs(np.linalg.norm(dx) - math.sqrt(2) / 4) < 1e-9, "dx has the wrong length"


# %% exercise="11.1" role="wrong" why="divides by the variance, not by its root"
def row_and_gradient():
    return [-1, 0, 0, 1], [0.125, -0.125, -0.125, 0.125]


# %% exercise="11.1" role="wrong" why="divides the squares by C - 1"
def row_and_gradient():
    root = math.sqrt(8 / 3)
    return [-2 / root, 0, 0, 2 / root], [0.25 / root, -0.25 / root, -0.25 / root, 0.25 / root]


# %% exercise="11.1" role="wrong" why="treats the deviation as a constant in dx"
def row_and_gradient():
    root = math.sqrt(2)
    return [-root, 0, 0, root], [0.75 / root, -0.25 / root, -0.25 / root, -0.25 / root]


# %% [markdown]
# ## Exercise 11.2: Fold gain and offset into the next layer
#
# Multiply out: $z_m=\sum_i(w_i\hat x_i+b_i)A_{im}+d_m$ is $\sum_i\hat x_i(w_iA_{im})$ plus
# $\sum_ib_iA_{im}+d_m$. So $A'_{im}=w_iA_{im}$ scales the *rows* of $A$, and $d'=bA+d$. What is
# learnt by both sets of parameters together can be learnt by the linear layer alone; only the
# path of the training differs.


# %% exercise="11.2" role="solution"
def fold(w, b, A, d):
    """The linear layer (A', d') that does the gain and the offset too.

    w (C,), b (C,), A (C, M), d (M,) -> A' (C, M), d' (M,).
    """
    return w[:, None] * A, b @ A + d


# %% exercise="11.2" role="hidden"
r = np.random.default_rng(12)
for C, M in ((4, 4), (1, 3), (7, 1)):  # a square A hides a gain on the wrong axis
    w, b, A, d, z = (r.normal(size=s) for s in (C, C, (C, M), M, (3, C)))
    A2, d2 = fold(w, b, A, d)
    assert A2.shape == (C, M) and d2.shape == (M,), "A' is (C, M) and d' is (M,)"
    assert rel_error(z @ A2 + d2, (w * z + b) @ A + d) < 1e-10, f"wrong for C = {C}, M = {M}"
b = np.ones(2)
assert np.abs(fold(np.zeros(2), b, np.eye(2), np.zeros(2))[1] - 1).max() < 1e-12, "a gain of 0"


# %% exercise="11.2" role="wrong" why="scales the columns of A"
def fold(w, b, A, d):
    return A * np.resize(w, A.shape[1]), b @ A + d


# %% exercise="11.2" role="wrong" why="adds the offset after the product, with the folded matrix"
def fold(w, b, A, d):
    A = w[:, None] * A
    return A, b @ A + d


# %% exercise="11.2" role="wrong" why="changes A and d in place"
def fold(w, b, A, d):
    d += b @ A
    A *= w[:, None]
    return A, d


# %% exercise="11.2" role="wrong" why="divides by a gain that may be 0: only hidden tests see it"
def fold(w, b, A, d):
    A2 = w[:, None] * A
    with np.errstate(all="ignore"):
        return A2, (b / w) @ A2 + d


# %% [markdown]
# ## Exercise 11.3: Two laws to diagnose a gradient
#
# The first law is (11.15), the second (11.20) with $\varepsilon\to0$. In each row the inner
# product with $\mathbf 1$ is the sum, and $\lvert\mathbf 1\rvert=\sqrt C$. A cosine does not
# change when `dx` is scaled, so one bound serves for gradients of every size. If the first law
# holds, centring $x$ makes no difference to the second inner product; if it does not, only the
# centred row tells the two apart.


# %% exercise="11.3" role="solution"
def two_laws(x, dx):
    """How far dx is from a layer norm's gradient at x. x, dx (..., C) -> two numbers in 0..1.

    First: the largest |cosine| of a row of dx with (1, ..., 1). Second: with the row of x, centred.
    """
    c = x - x.mean(-1, keepdims=True)
    size = np.linalg.norm(dx, axis=-1)
    first = np.abs(dx.sum(-1)) / (size * math.sqrt(x.shape[-1]))
    second = np.abs((dx * c).sum(-1)) / (size * np.linalg.norm(c, axis=-1))
    return first.max(), second.max()


# %% exercise="11.3" role="hidden"
x = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 5.0, 1.0]])
first, second = two_laws(x, np.array([[1.0, 1, 1, 1], [-1.0, -1, -1, -1]]))
assert abs(first - 1) < 1e-9 and second < 1e-9, "rows of opposite sign must not cancel"
first, second = two_laws(x, np.array([[1.0, -1, 0, 0], [1.0, -1, 0, 0]]))
assert first < 1e-9 and abs(second - 1) < 1e-9, "one bad row is enough"
first, second = two_laws(x[0] + 7, np.array([1.0, 1.0, 1.0, 1.0]))
assert abs(first - 1) < 1e-9 and second < 1e-9, "x must be centred; one row alone must do"


# %% exercise="11.3" role="wrong" why="does not centre x"
def two_laws(x, dx):
    size = np.linalg.norm(dx, axis=-1)
    first = np.abs(dx.sum(-1)) / (size * math.sqrt(x.shape[-1]))
    second = np.abs((dx * x).sum(-1)) / (size * np.linalg.norm(x, axis=-1))
    return first.max(), second.max()


# %% exercise="11.3" role="wrong" why="lets rows of opposite sign cancel: only hidden tests see it"
def two_laws(x, dx):
    c = x - x.mean(-1, keepdims=True)
    size = np.linalg.norm(dx, axis=-1)
    first = dx.sum(-1) / (size * math.sqrt(x.shape[-1]))
    second = (dx * c).sum(-1) / (size * np.linalg.norm(c, axis=-1))
    return abs(first.mean()), abs(second.mean())


# %% exercise="11.3" role="wrong" why="inner products instead of cosines"
def two_laws(x, dx):
    c = x - x.mean(-1, keepdims=True)
    return np.abs(dx.sum(-1)).max(), np.abs((dx * c).sum(-1)).max()


# %% exercise="11.3" role="wrong" why="sums over all rows at once"
def two_laws(x, dx):
    c, size = x - x.mean(), np.linalg.norm(dx)
    return abs(dx.sum()) / size / math.sqrt(dx.size), abs((dx * c).sum()) / size / np.linalg.norm(c)


# %% [markdown]
# ## Exercise 11.4: Normalise over any axes
#
# The derivation used two facts about the axis: that the sums run over it, and that $C$ counts
# what is summed. Both become those of `axis`. `mean` divides by the right count by itself. Group
# norm is this after a reshape that gives every group an axis of its own.


# %% exercise="11.4" role="solution"
def normalise_over(x, axis, eps=1e-5):
    """Mean 0 and variance 1 over axis. x any shape; axis: an int or a tuple -> (out, vjp).

    vjp(g) -> dx, with g and dx of x's shape.
    """
    c = x - x.mean(axis, keepdims=True)
    rstd = ((c * c).mean(axis, keepdims=True) + eps) ** -0.5
    out = c * rstd

    def vjp(g):
        along = (g * out).mean(axis, keepdims=True)
        return rstd * (g - g.mean(axis, keepdims=True) - out * along)

    return out, vjp


# %% exercise="11.4" role="hidden"
r = np.random.default_rng(14)
x, g = r.normal(size=(2, 3, 2, 4))
for axis in ((0, 1), (1, 2), (0, 1, 2), 1):  # several axes at once share one mean
    out, vjp = normalise_over(x, axis, eps=0.5)
    want = x.var(axis) / (x.var(axis) + 0.5)
    assert np.abs(out.var(axis) - want).max() < 1e-9, f"axis {axis}, eps 0.5: wrong variance"
    slope = central_differences(lambda z, a=axis: (g * normalise_over(z, a, eps=0.5)[0]).sum(), x)
    assert rel_error(vjp(g), slope) < 1e-6, f"axis {axis}, eps 0.5: wrong VJP"
kept = x.copy()
normalise_over(x, 1)[1](g)
assert (x == kept).all(), "x was changed"


# %% exercise="11.4" role="wrong" why="forgets the projection on the output"
def normalise_over(x, axis, eps=1e-5):
    c = x - x.mean(axis, keepdims=True)
    rstd = ((c * c).mean(axis, keepdims=True) + eps) ** -0.5
    return c * rstd, lambda g: rstd * (g - g.mean(axis, keepdims=True))


# %% exercise="11.4" role="wrong" why="one axis after the other: only hidden tests see it"
def normalise_over(x, axis, eps=1e-5):
    axes = axis if isinstance(axis, tuple) else (axis,)
    vjps = []
    for one in axes:
        c = x - x.mean(one, keepdims=True)
        rstd = ((c * c).mean(one, keepdims=True) + eps) ** -0.5
        x = c * rstd

        def vjp(g, x=x, rstd=rstd, one=one):
            along = (g * x).mean(one, keepdims=True)
            return rstd * (g - g.mean(one, keepdims=True) - x * along)

        vjps.append(vjp)

    def back(g):
        for vjp in reversed(vjps):
            g = vjp(g)
        return g

    return x, back


# %% exercise="11.4" role="wrong" why="the backward pass always takes the last axis"
def normalise_over(x, axis, eps=1e-5):
    c = x - x.mean(axis, keepdims=True)
    rstd = ((c * c).mean(axis, keepdims=True) + eps) ** -0.5
    out = c * rstd

    def vjp(g):
        along = (g * out).mean(-1, keepdims=True)
        return rstd * (g - g.mean(-1, keepdims=True) - out * along)

    return out, vjp


# %% exercise="11.4" role="wrong" why="ignores eps in the backward pass"
def normalise_over(x, axis, eps=1e-5):
    c = x - x.mean(axis, keepdims=True)
    var = (c * c).mean(axis, keepdims=True)
    out = c * (var + eps) ** -0.5

    def vjp(g):
        unit = c * var**-0.5
        along = (g * unit).mean(axis, keepdims=True)
        return var**-0.5 * (g - g.mean(axis, keepdims=True) - unit * along)

    return out, vjp


# %% [markdown]
# ## Exercise 11.5: Mean and variance in one pass, in float32
#
# Let $K$ be any number, and $e_i=x_i-K$. Then $\bar x=K+\bar e$ and $v=\overline{e^2}-\bar e^2$,
# as the variance does not see a shift. With $K=x_1$ (the first channel of each row) the $e_i$ are
# of the size of the deviation, and the difference loses nothing. The subtraction $x_i-K$ of two
# nearby float32 numbers is exact (Sterbenz 1974). Welford's way is as good:
# $m_{n+1}=m_n+(x-m_n)/(n+1)$, $S_{n+1}=S_n+(x-m_n)(x-m_{n+1})$ and $v=S_C/C$. It has a division
# for each channel, and $m_n$ is as coarse as float32 is near 10,000.


# %% exercise="11.5" role="solution"
def one_pass(columns):
    """Mean and population variance of each row. columns: yields (N,) float32 arrays, one a channel.

    -> mean (N,), variance (N,), both float32.
    """
    columns = iter(columns)
    K = next(columns).copy()  # (N,) what is subtracted from all channels
    total, squares, count = np.zeros_like(K), np.zeros_like(K), 1  # of e = x - K; the first is 0
    for x in columns:
        e = x - K
        total += e
        squares += e * e
        count += 1
    mean = total / np.float32(count)
    return K + mean, squares / np.float32(count) - mean * mean


# %% exercise="11.5" role="hidden"
r = np.random.default_rng(15)
x = (np.array([[-30_000.0], [5.0], [1e-3]]) + r.normal(size=(3, 1000))).astype("float32")
exact = x.astype("float64")


def reused():
    """One buffer for all channels, as a device would do."""
    buffer = np.empty(3, "float32")
    for column in x.T:
        buffer[:] = column
        yield buffer


mean, var = one_pass(reused())
assert mean.dtype == var.dtype == np.float32, "both must be float32"
assert np.abs(mean / exact.mean(1) - 1)[:2].max() < 1e-4, "the mean is off"
assert np.abs(var / exact.var(1) - 1).max() < 1e-2, "the variance is off"
mean, var = one_pass(iter(np.full((4, 2), 3.0, "float32")))
assert (mean == 3).all() and (var == 0).all(), "a constant row has variance 0"
mean, var = one_pass(iter(np.array([[7.0]], "float32")))
assert mean[0] == 7 and var[0] == 0, "one channel alone"


# %% exercise="11.5" role="wrong" why="the short formula, without a shift"
def one_pass(columns):
    total = squares = count = np.float32(0)
    for x in columns:
        total, squares, count = total + x, squares + x * x, count + np.float32(1)
    mean = total / count
    return mean, squares / count - mean * mean


# %% exercise="11.5" role="wrong" why="divides by C - 1"
def one_pass(columns):
    columns = iter(columns)
    K = next(columns).copy()
    total, squares, count = np.zeros_like(K), np.zeros_like(K), 1
    for x in columns:
        e = x - K
        total, squares, count = total + e, squares + e * e, count + 1
    mean = total / np.float32(count)
    return K + mean, (squares - total * mean) / np.float32(count - 1)


# %% exercise="11.5" role="wrong" why="keeps the first channel uncopied: only hidden tests see it"
def one_pass(columns):
    columns = iter(columns)
    K = next(columns)
    total, squares, count = np.zeros_like(K), np.zeros_like(K), 1
    for x in columns:
        e = x - K
        total, squares, count = total + e, squares + e * e, count + 1
    mean = total / np.float32(count)
    return K + mean, squares / np.float32(count) - mean * mean


# %% exercise="11.5" role="wrong" why="Welford's update with the old mean twice"
def one_pass(columns):
    columns = iter(columns)
    mean = next(columns).copy()
    squares, count = np.zeros_like(mean), np.float32(1)
    for x in columns:
        count += np.float32(1)
        squares += (x - mean) ** 2
        mean += (x - mean) / count
    return mean, squares / count
