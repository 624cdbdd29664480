# %% [markdown]
# # Solutions to chapter 10 · Where am I? Positions
#
# ## Exercise 10.1: Once round
#
# Clock $i$ turns $\omega_i = \mathrm{base}^{-2i/C}$ radians a step and is round after
# $2\pi / \omega_i = 2\pi\,\mathrm{base}^{2i/C}$ steps. The exponents $2i/C$ are
# `arange(0, C, 2) / C`. The first clock needs $2\pi$ steps at any base, the last nearly
# $2\pi \cdot \mathrm{base}$.


# %% exercise="10.1" role="solution"
def full_turns(C, base):
    """How many steps each clock needs for one turn. C even -> (C / 2,) float."""
    return 2 * math.pi * base ** (np.arange(0, C, 2) / C)


# %% exercise="10.1" role="hidden"
turns = full_turns(8, 81.0)
assert np.allclose(turns / (2 * math.pi), [1, 3, 9, 27]), "wrong for C = 8"
assert np.allclose(full_turns(2, 5.0), [2 * math.pi]), "wrong for a single clock"


# %% exercise="10.1" role="wrong" why="takes i / C for 2i / C"
def full_turns(C, base):
    """How many steps each clock needs for one turn. C even -> (C / 2,) float."""
    return 2 * math.pi * base ** (np.arange(C // 2) / C)


# %% exercise="10.1" role="wrong" why="gives the speed, not the time"
def full_turns(C, base):
    """How many steps each clock needs for one turn. C even -> (C / 2,) float."""
    return 2 * math.pi * base ** (-np.arange(0, C, 2) / C)


# %% exercise="10.1" role="wrong" why="is right for C = 4 only"
def full_turns(C, base):
    """How many steps each clock needs for one turn. C even -> (C / 2,) float."""
    return 2 * math.pi * base ** (np.arange(C // 2) / 2)


# %% [markdown]
# ## Exercise 10.2: The shift as a matrix
#
# (10.15) is one block, with $\omega = \omega_i$: in row $2i$ (the sine) $\cos \omega s$ and
# $\sin \omega s$, in row $2i+1$ (the cosine) $-\sin \omega s$ and $\cos \omega s$. The pairs do not
# mix, so all other entries are 0. Since $t$ does not occur in it, the matrix serves all rows; with
# $s < 0$ the sine changes its sign, and the matrix its direction.


# %% exercise="10.2" role="solution"
def shift_matrix(s, C, base):
    """M (C, C) with PE(t + s) = M PE(t) for every t. s int, C even, base > 0."""
    M = np.zeros((C, C))
    for i in range(0, C, 2):
        cos, sin = math.cos(s * base ** (-i / C)), math.sin(s * base ** (-i / C))
        M[i : i + 2, i : i + 2] = [[cos, sin], [-sin, cos]]
    return M


# %% exercise="10.2" role="hidden"
PE = to_numpy(sinusoids(20, 4, base=50.0))
assert np.allclose(PE[:-7] @ shift_matrix(7, 4, 50.0).T, PE[7:]), "wrong with another base"
assert np.allclose(PE[7:] @ shift_matrix(-7, 4, 50.0).T, PE[:-7]), "wrong backwards"
assert np.allclose(shift_matrix(0, 8, 10.0), np.eye(8)), "no shift is the identity"


# %% exercise="10.2" role="wrong" why="turns the other way"
def shift_matrix(s, C, base):
    """M (C, C) with PE(t + s) = M PE(t) for every t. s int, C even, base > 0."""
    M = np.zeros((C, C))
    for i in range(0, C, 2):
        cos, sin = math.cos(s * base ** (-i / C)), math.sin(s * base ** (-i / C))
        M[i : i + 2, i : i + 2] = [[cos, -sin], [sin, cos]]
    return M


# %% exercise="10.2" role="wrong" why="all clocks run as fast as the first"
def shift_matrix(s, C, base):
    """M (C, C) with PE(t + s) = M PE(t) for every t. s int, C even, base > 0."""
    block = np.array([[math.cos(s), math.sin(s)], [-math.sin(s), math.cos(s)]])
    return np.kron(np.eye(C // 2), block)


# %% exercise="10.2" role="wrong" why="ignores base"
def shift_matrix(s, C, base):
    """M (C, C) with PE(t + s) = M PE(t) for every t. s int, C even, base > 0."""
    M = np.zeros((C, C))
    for i in range(0, C, 2):
        cos, sin = math.cos(s * 10000 ** (-i / C)), math.sin(s * 10000 ** (-i / C))
        M[i : i + 2, i : i + 2] = [[cos, sin], [-sin, cos]]
    return M


# %% [markdown]
# ## Exercise 10.3: ALiBi with loops
#
# Head $h = 1, \dots, H$ has slope $2^{-8h/H}$, and index $h - 1$. The distance $i - j$ is counted
# for keys $j \le i$; the rest stays 0.


# %% exercise="10.3" role="solution"
def alibi_by_loops(H, T):
    """The bias of (10.26) for H heads and T positions -> (H, T, T) float, 0 for later keys."""
    bias = np.zeros((H, T, T))
    for h in range(1, H + 1):
        for i in range(T):
            for j in range(i + 1):
                bias[h - 1, i, j] = -(2 ** (-8 * h / H)) * (i - j)
    return bias


# %% exercise="10.3" role="hidden"
for H, T in ((1, 3), (2, 6), (3, 4), (16, 5)):
    assert np.allclose(alibi_by_loops(H, T), to_numpy(alibi_bias(H, T))), f"wrong for {H} heads"


# %% exercise="10.3" role="wrong" why="slopes 2^-h, right for 8 heads only"
def alibi_by_loops(H, T):
    """The bias of (10.26) for H heads and T positions -> (H, T, T) float, 0 for later keys."""
    bias = np.zeros((H, T, T))
    for h in range(H):
        for i in range(T):
            for j in range(i + 1):
                bias[h, i, j] = -(2.0 ** -(h + 1)) * (i - j)
    return bias


# %% exercise="10.3" role="wrong" why="counts heads from 0"
def alibi_by_loops(H, T):
    """The bias of (10.26) for H heads and T positions -> (H, T, T) float, 0 for later keys."""
    bias = np.zeros((H, T, T))
    for h in range(H):
        for i in range(T):
            for j in range(i + 1):
                bias[h, i, j] = -(2 ** (-8 * h / H)) * (i - j)
    return bias


# %% exercise="10.3" role="wrong" why="rewards later keys"
def alibi_by_loops(H, T):
    """The bias of (10.26) for H heads and T positions -> (H, T, T) float, 0 for later keys."""
    bias = np.zeros((H, T, T))
    for h in range(1, H + 1):
        for i in range(T):
            for j in range(T):
                bias[h - 1, i, j] = -(2 ** (-8 * h / H)) * (i - j)
    return bias


# %% [markdown]
# ## Exercise 10.4: RoPE in two halves
#
# Exchange the coordinates so that pair $i$ stands at $2i, 2i+1$, turn, exchange them back: nothing
# in the derivation depends on where in memory a pair lies. With the halves $u, v$ (T, D/2), the new
# ones are $u \cos - v \sin$ and $u \sin + v \cos$. Scores are the same sums in another
# order, as long as $q$ and $k$ use one layout.


# %% exercise="10.4" role="solution"
def rotary_halves(x, base):
    """RoPE with pairs (x[i], x[i + D/2]). x (T, D), D even -> (T, D)."""
    T, D = x.shape
    angle = np.arange(T)[:, None] * base ** (-np.arange(0, D, 2) / D)  # (T, D / 2)
    u, v = x[:, : D // 2], x[:, D // 2 :]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([u * cos - v * sin, u * sin + v * cos], axis=1)


# %% exercise="10.4" role="hidden"
for T, D, base in ((6, 8, 10000.0), (3, 2, 7.0), (9, 6, 50.0)):
    x = np.random.default_rng(D).normal(size=(T, D))
    order = np.r_[0:D:2, 1:D:2]  # first coordinates of all pairs, then the second ones
    want = rotary(Tensor(x), base=base).numpy()[:, order]
    assert np.allclose(rotary_halves(x[:, order], base), want), f"wrong for D = {D}, base {base}"


# %% exercise="10.4" role="wrong" why="pairs neighbours"
def rotary_halves(x, base):
    """RoPE with pairs (x[i], x[i + D/2]). x (T, D), D even -> (T, D)."""
    return rotary(Tensor(x), base=base).numpy()


# %% exercise="10.4" role="wrong" why="turns the second half the other way"
def rotary_halves(x, base):
    """RoPE with pairs (x[i], x[i + D/2]). x (T, D), D even -> (T, D)."""
    T, D = x.shape
    angle = np.arange(T)[:, None] * base ** (-np.arange(0, D, 2) / D)
    u, v = x[:, : D // 2], x[:, D // 2 :]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([u * cos + v * sin, v * cos - u * sin], axis=1)


# %% exercise="10.4" role="wrong" why="speeds that are right for D = 4 only"
def rotary_halves(x, base):
    """RoPE with pairs (x[i], x[i + D/2]). x (T, D), D even -> (T, D)."""
    T, D = x.shape
    angle = np.arange(T)[:, None] * base ** (-np.arange(D // 2) / 2)
    u, v = x[:, : D // 2], x[:, D // 2 :]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([u * cos - v * sin, u * sin + v * cos], axis=1)


# %% [markdown]
# ## Exercise 10.5: A learned price for each distance
#
# $b_d$ is added to every score with $\min(i - j, n - 1) = d$, in every sample, so
#
# $$
# db_d = \sum_s \sum_{i \ge j,\; \min(i - j,\, n - 1) = d} dS_{sij} .
# $$
#
# It is the gradient of an embedding, (10.10), whose ids are the clipped distances: a sum over all
# places with the same id. `np.bincount` with weights is such a sum; `np.add.at` another.


# %% exercise="10.5" role="solution"
def distance_gradient(dS, n):
    """Gradient of b (n,), where score i, j <= i has b[min(i - j, n - 1)]. dS (B, T, T) -> (n,)."""
    i, j = np.tril_indices(dS.shape[-1])  # the keys that are not masked
    return np.bincount(np.minimum(i - j, n - 1), weights=dS.sum(0)[i, j], minlength=n)


# %% exercise="10.5" role="hidden"
dS = np.random.default_rng(3).normal(size=(2, 4, 4))
assert np.allclose(distance_gradient(dS, 1), [np.tril(dS).sum()]), "wrong with one number for all"
got = distance_gradient(dS, 7)
assert np.shape(got) == (7,), "distances that do not occur have gradient 0, not no gradient"
want = [np.trace(dS.sum(0), offset=-d) for d in range(4)] + [0, 0, 0]
assert np.allclose(got, want), "wrong where n is larger than T"
assert np.allclose(distance_gradient(dS, 4), want[:4]), "wrong where n is T"


# %% exercise="10.5" role="wrong" why="+= with an array of ids keeps one of the repeats"
def distance_gradient(dS, n):
    """Gradient of b (n,), where score i, j <= i has b[min(i - j, n - 1)]. dS (B, T, T) -> (n,)."""
    db = np.zeros(n)
    i, j = np.tril_indices(dS.shape[-1])
    db[np.minimum(i - j, n - 1)] += dS.sum(0)[i, j]
    return db


# %% exercise="10.5" role="wrong" why="drops the far distances"
def distance_gradient(dS, n):
    """Gradient of b (n,), where score i, j <= i has b[min(i - j, n - 1)]. dS (B, T, T) -> (n,)."""
    return np.array([np.trace(dS.sum(0), offset=-d) for d in range(n)])


# %% exercise="10.5" role="wrong" why="as many numbers as occur, not n"
def distance_gradient(dS, n):
    """Gradient of b (n,), where score i, j <= i has b[min(i - j, n - 1)]. dS (B, T, T) -> (n,)."""
    i, j = np.tril_indices(dS.shape[-1])
    return np.bincount(np.minimum(i - j, n - 1), weights=dS.sum(0)[i, j])


# %% exercise="10.5" role="wrong" why="counts masked keys too"
def distance_gradient(dS, n):
    """Gradient of b (n,), where score i, j <= i has b[min(i - j, n - 1)]. dS (B, T, T) -> (n,)."""
    i, j = np.indices(dS.shape[1:])
    ids = np.clip(i - j, 0, n - 1)
    return np.bincount(ids.ravel(), weights=dS.sum(0).ravel(), minlength=n)


# %% [markdown]
# ## Exercise 10.6: Time that stretches
#
# With $\alpha_{ti} = t\,\sigma\,\omega_i$ and a pair as a complex number, the output is
# $o_{ti} = e^{\mathrm{i}\alpha_{ti}} z_{ti}$, and
# $\partial o_{ti} / \partial \alpha_{ti} = \mathrm{i}\, o_{ti}$: in real coordinates
# $(-o_{2i+1}, o_{2i})$, the output turned by a right angle. Since
# $\partial \alpha_{ti} / \partial \sigma = t\omega_i$,
#
# $$
# d\sigma = \sum_{t, i} t\,\omega_i \big( g_{t,2i+1}\, o_{t,2i} - g_{t,2i}\, o_{t,2i+1} \big) .
# $$
#
# $dx$ is the rotation back, by the same angles.


# %% exercise="10.6" role="solution"
def rotary_stretched(x, scale, base):
    """RoPE at positions t * scale. x (T, D) -> (out (T, D), vjp), vjp(g) -> (dx, dscale)."""
    T, D = x.shape
    speed = np.arange(T)[:, None] * base ** (-np.arange(0, D, 2) / D)  # (T, D / 2)

    def turned(x, angle):
        out, cos, sin = np.empty_like(x), np.cos(angle), np.sin(angle)
        out[:, 0::2] = x[:, 0::2] * cos - x[:, 1::2] * sin
        out[:, 1::2] = x[:, 0::2] * sin + x[:, 1::2] * cos
        return out

    out = turned(x, scale * speed)

    def vjp(g):
        dscale = (speed * (g[:, 1::2] * out[:, 0::2] - g[:, 0::2] * out[:, 1::2])).sum()
        return turned(g, -scale * speed), dscale

    return out, vjp


# %% exercise="10.6" role="hidden"
for T, D, scale, base in ((4, 6, 0.25, 50.0), (3, 2, 1.5, 10000.0), (5, 4, -1.0, 7.0)):
    x, g = np.random.default_rng(T).normal(size=(2, T, D))
    out, vjp = rotary_stretched(x, scale, base)
    rows = [rotary(Tensor(x[t : t + 1]), base=base, start=t * scale).numpy()[0] for t in range(T)]
    assert np.allclose(out, rows), f"wrong for base {base} and scale {scale}"
    dx, dscale = vjp(g)
    assert np.allclose((dx**2).sum(1), (g**2).sum(1)), "the gradient is only turned"
    want = central_differences(lambda s: (g * rotary_stretched(x, s, base)[0]).sum(), scale)  # noqa: B023
    assert abs(dscale - want) < 1e-8, f"dscale is wrong for base {base}"


# %% exercise="10.6" role="wrong" why="turns the gradient forward"
def rotary_stretched(x, scale, base):
    """RoPE at positions t * scale. x (T, D) -> (out (T, D), vjp), vjp(g) -> (dx, dscale)."""
    T, D = x.shape
    speed = np.arange(T)[:, None] * base ** (-np.arange(0, D, 2) / D)

    def turned(x, angle):
        out, cos, sin = np.empty_like(x), np.cos(angle), np.sin(angle)
        out[:, 0::2] = x[:, 0::2] * cos - x[:, 1::2] * sin
        out[:, 1::2] = x[:, 0::2] * sin + x[:, 1::2] * cos
        return out

    out = turned(x, scale * speed)

    def vjp(g):
        dscale = (speed * (g[:, 1::2] * out[:, 0::2] - g[:, 0::2] * out[:, 1::2])).sum()
        return turned(g, scale * speed), dscale

    return out, vjp


# %% exercise="10.6" role="wrong" why="uses x where the output belongs in dscale"
def rotary_stretched(x, scale, base):
    """RoPE at positions t * scale. x (T, D) -> (out (T, D), vjp), vjp(g) -> (dx, dscale)."""
    T, D = x.shape
    speed = np.arange(T)[:, None] * base ** (-np.arange(0, D, 2) / D)

    def turned(x, angle):
        out, cos, sin = np.empty_like(x), np.cos(angle), np.sin(angle)
        out[:, 0::2] = x[:, 0::2] * cos - x[:, 1::2] * sin
        out[:, 1::2] = x[:, 0::2] * sin + x[:, 1::2] * cos
        return out

    def vjp(g):
        dscale = (speed * (g[:, 1::2] * x[:, 0::2] - g[:, 0::2] * x[:, 1::2])).sum()
        return turned(g, -scale * speed), dscale

    return turned(x, scale * speed), vjp


# %% exercise="10.6" role="wrong" why="ignores base"
def rotary_stretched(x, scale, base):
    """RoPE at positions t * scale. x (T, D) -> (out (T, D), vjp), vjp(g) -> (dx, dscale)."""
    T, D = x.shape
    speed = np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)

    def turned(x, angle):
        out, cos, sin = np.empty_like(x), np.cos(angle), np.sin(angle)
        out[:, 0::2] = x[:, 0::2] * cos - x[:, 1::2] * sin
        out[:, 1::2] = x[:, 0::2] * sin + x[:, 1::2] * cos
        return out

    out = turned(x, scale * speed)

    def vjp(g):
        dscale = (speed * (g[:, 1::2] * out[:, 0::2] - g[:, 0::2] * out[:, 1::2])).sum()
        return turned(g, -scale * speed), dscale

    return out, vjp
