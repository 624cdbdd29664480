# %% [markdown]
# # Solutions to chapter 14 · GPT assembled

# %% [markdown]
# ## Exercise 14.1: The widest model for a budget
#
# $P(C)=L(12C^2+13C)+(V+T)C+2C$ grows with $C$, so the first width that does not fit ends the
# search.


# %% exercise="14.1" role="solution"
def widest(budget, V, T, L, step):
    """The largest width, a multiple of step, of a tied GPT within a budget of parameters. -> int"""
    C = 0
    while True:
        wider = C + step
        if L * (12 * wider * wider + 13 * wider) + (V + T + 2) * wider > budget:
            return C
        C = wider


# %% exercise="14.1" role="hidden"
for budget, V, T, L, step in ((5000, 11, 8, 2, 4), (20_000, 94, 32, 1, 8), (3001, 7, 5, 3, 2)):
    C = widest(budget, V, T, L, step)
    assert C % step == 0, "not a multiple of step"
    sizes = [GPT(GPTConfig(V, T, n_layer=L, n_head=1, n_embd=c), np.random.default_rng(0))
             .num_parameters() for c in (C, C + step)]
    assert sizes[0] <= budget < sizes[1], "another width fits better"


# %% exercise="14.1" role="wrong" why="forgets the last norm"
def widest(budget, V, T, L, step):
    C = 0
    while L * (12 * (C + step) ** 2 + 13 * (C + step)) + (V + T) * (C + step) <= budget:
        C += step
    return C


# %% exercise="14.1" role="wrong" why="counts the tied head a second time"
def widest(budget, V, T, L, step):
    C = 0
    while L * (12 * (C + step) ** 2 + 13 * (C + step)) + (2 * V + T + 2) * (C + step) <= budget:
        C += step
    return C


# %% exercise="14.1" role="wrong" why="forgets the offsets"
def widest(budget, V, T, L, step):
    C = 0
    while 12 * L * (C + step) ** 2 + (V + T + 2) * (C + step) <= budget:
        C += step
    return C


# %% exercise="14.1" role="wrong" why="stops one step too early when it fits exactly"
def widest(budget, V, T, L, step):
    C = 0
    while L * (12 * (C + step) ** 2 + 13 * (C + step)) + (V + T + 2) * (C + step) < budget:
        C += step
    return C


# %% [markdown]
# ## Exercise 14.2: A branch with a gate
#
# Move $x$ by $u$: $y$ moves by $u+aJu$, so $dx=g+aJ^\top g$. Move $a$ by $\alpha$: $y$ moves by
# $\alpha f(x)$ in every entry, so $da=\sum g\odot f(x)$. At $a=0$ the branch is silent, but $da$ is
# not 0, so it learns to speak.


# %% exercise="14.2" role="solution"
def gated_residual(x, a, branch):
    """y = x + a * f(x), and vjp: g -> (dx, da). x: array; a: number; branch: x -> (out, vjp)."""
    out, branch_vjp = branch(x)
    return x + a * out, lambda g: (g + branch_vjp(a * g), (g * out).sum())


# %% exercise="14.2" role="hidden"
calls = []


def counted(x):
    calls.append(1)
    return x * x, lambda g: 2 * x * g


x, g = np.array([[[1.0, -2.0], [0.5, 3.0]]]), np.array([[[1.0, 2.0], [-1.0, 0.5]]])
y, vjp = gated_residual(x, 2.0, counted)
dx, da = vjp(g)
assert len(calls) == 1, "the branch is called once"
assert np.allclose(y, x + 2 * x * x) and np.allclose(dx, g * (1 + 4 * x)), "three axes"
assert abs(da - (g * x * x).sum()) < 1e-12, "da is a sum over all entries"
small = gated_residual(x.astype("float32"), 0.5, lambda x: (x, lambda g: g))
assert small[0].dtype == np.float32, "float32 stays float32"


# %% exercise="14.2" role="wrong" why="forgets the gate in dx"
def gated_residual(x, a, branch):
    out, branch_vjp = branch(x)
    return x + a * out, lambda g: (g + branch_vjp(g), (g * out).sum())


# %% exercise="14.2" role="wrong" why="forgets the highway"
def gated_residual(x, a, branch):
    out, branch_vjp = branch(x)
    return x + a * out, lambda g: (branch_vjp(a * g), (g * out).sum())


# %% exercise="14.2" role="wrong" why="does not sum da"
def gated_residual(x, a, branch):
    out, branch_vjp = branch(x)
    return x + a * out, lambda g: (g + branch_vjp(a * g), g * out)


# %% exercise="14.2" role="wrong" why="calls the branch again in the vjp: only hidden tests see it"
def gated_residual(x, a, branch):
    def vjp(g):
        out, branch_vjp = branch(x)
        return g + branch_vjp(a * g), (g * out).sum()

    return x + a * branch(x)[0], vjp


# %% [markdown]
# ## Exercise 14.3: Who depends on whom?
#
# For each place all $V$ tokens go in at once, as a batch; one of them is the base's own, which
# changes nothing. `any` over tokens and over logits keeps a leak that shows in one of them.


# %% exercise="14.3" role="solution"
def dependence(f, base, V):
    """Which output depends on which input. base (T,) int -> bool (T, T), [output, input]."""
    T, before = len(base), f(base[None])  # (1, T, V)
    depends = np.zeros((T, T), bool)
    for s in range(T):
        texts = np.repeat(base[None], V, axis=0)
        texts[:, s] = np.arange(V)
        depends[:, s] = (f(texts) != before).any((0, 2))
    return depends


# %% exercise="14.3" role="hidden"
base = np.array([1, 2, 3, 0])


def rare(idx):
    """Position 0 sees whether position 3 is a 6, and shows it in one logit."""
    z = np.zeros((*idx.shape, 7))
    z[:, 0, 5] = 1e-9 * (idx[:, 3] == 6)
    return z


want = np.zeros((4, 4), bool)
want[0, 3] = True
assert (dependence(rare, base, 7) == want).all(), "a leak that shows with one token, in one logit"
assert (base == [1, 2, 3, 0]).all(), "base was changed"
balanced = dependence(lambda idx: np.stack([idx, -idx], -1) * 1.0, base, 4)
assert (balanced == np.eye(4, dtype=bool)).all(), "logits that move against each other"


# %% exercise="14.3" role="wrong" why="tries one other token only: only hidden tests see it"
def dependence(f, base, V):
    T, before = len(base), f(base[None])[0]
    depends = np.zeros((T, T), bool)
    for s in range(T):
        text = base.copy()
        text[s] = (text[s] + 1) % V
        depends[:, s] = (f(text[None])[0] != before).any(-1)
    return depends


# %% exercise="14.3" role="wrong" why="rows are inputs"
def dependence(f, base, V):
    T, before = len(base), f(base[None])
    depends = np.zeros((T, T), bool)
    for s in range(T):
        texts = np.repeat(base[None], V, axis=0)
        texts[:, s] = np.arange(V)
        depends[s] = (f(texts) != before).any((0, 2))
    return depends


# %% exercise="14.3" role="wrong" why="sums the logits, so changes may cancel: hidden tests see it"
def dependence(f, base, V):
    T, before = len(base), f(base[None]).sum(-1)
    depends = np.zeros((T, T), bool)
    for s in range(T):
        texts = np.repeat(base[None], V, axis=0)
        texts[:, s] = np.arange(V)
        depends[:, s] = (f(texts).sum(-1) != before).any(0)
    return depends


# %% exercise="14.3" role="wrong" why="assumes causality"
def dependence(f, base, V):
    return np.tri(len(base), dtype=bool)


# %% [markdown]
# ## Exercise 14.4: Scores of a sliding window
#
# The block $i..j-1$ has $j-i$ queries. Its last key is $j-1$, and its first is what query $i$ sees
# earliest, $\max(0,i-w+1)$: later queries see less of the past. With $w\ge T$ the first key is 0
# always, and the sum is (14.29).


# %% exercise="14.4" role="solution"
def window_scores(T, w, b):
    """How many scores blocks of b queries compute, if each query sees w keys at most. -> int"""
    total = 0
    for i in range(0, T, b):
        j = min(i + b, T)
        total += (j - i) * (j - max(0, i - w + 1))
    return total


# %% exercise="14.4" role="hidden"
for T, w, b in ((10, 3, 4), (17, 5, 1), (9, 9, 2), (30, 7, 8), (1, 1, 64)):
    seen = np.tri(T, dtype=bool) & ~np.tri(T, k=-w, dtype=bool)
    want = sum(seen[i : i + b].any(0).sum() * len(seen[i : i + b]) for i in range(0, T, b))
    assert window_scores(T, w, b) == want, f"T {T}, window {w}, blocks of {b}"


# %% exercise="14.4" role="wrong" why="the block's last query decides the first key"
def window_scores(T, w, b):
    total = 0
    for i in range(0, T, b):
        j = min(i + b, T)
        total += (j - i) * (j - max(0, j - w))
    return total


# %% exercise="14.4" role="wrong" why="a window of w tokens before the query, and itself"
def window_scores(T, w, b):
    return sum((min(i + b, T) - i) * (min(i + b, T) - max(0, i - w)) for i in range(0, T, b))


# %% exercise="14.4" role="wrong" why="counts the last block as a whole one"
def window_scores(T, w, b):
    return sum(b * (i + b - max(0, i - w + 1)) for i in range(0, T, b))


# %% exercise="14.4" role="wrong" why="counts what is used, not what is computed"
def window_scores(T, w, b):
    return sum(min(t + 1, w) for t in range(T))


# %% [markdown]
# ## Exercise 14.5: Forget, and compute again
#
# Keep $n/k$ inputs, and during the backward pass the activations of $k$ blocks: with $k=\sqrt n$
# both are $\sqrt n$, for one more forward pass, 4/3 of the operations. A group is worked on in a
# function of its own, whose names go when it returns. `pop` lets each `vjp` go as soon as it was
# used.


# %% exercise="14.5" role="solution"
def checkpointed(blocks, x, every):
    """Apply blocks to x; keep only every so many-th input. -> (out, vjp), with vjp: g -> dx."""
    inputs = []
    for i, block in enumerate(blocks):
        if i % every == 0:
            inputs.append(x)
        x = block(x)[0]

    def back_through(group, x, g):
        vjps = []
        for block in group:
            x, vjp = block(x)
            vjps.append(vjp)
        vjp = None
        while vjps:
            g = vjps.pop()(g)
        return g

    def vjp(g):
        for i in reversed(range(len(inputs))):
            g = back_through(blocks[i * every : (i + 1) * every], inputs[i], g)
        return g

    return x, vjp


# %% exercise="14.5" role="hidden"
def scaled(factor, calls):
    def block(x):
        calls.append(factor)
        return factor * x * x, lambda g: 2 * factor * x * g

    return block


for n, every in ((5, 2), (4, 10), (7, 3), (3, 1)):  # an incomplete last group; one group only
    calls = []
    blocks = [scaled(0.5 + 0.1 * i, calls) for i in range(n)]
    out, vjp = checkpointed(blocks, np.array([1.0, 0.8]), every)
    assert len(calls) == n, "each block runs once in the forward pass"
    dx = vjp(np.array([1.0, -2.0]))
    assert len(calls) == 2 * n, "each block runs once more in the backward pass"
    want, x = np.array([1.0, -2.0]), np.array([1.0, 0.8])
    steps = []
    for i in range(n):
        steps.append(2 * (0.5 + 0.1 * i) * x)
        x = (0.5 + 0.1 * i) * x * x
    assert np.allclose(out, x) and np.allclose(dx, want * np.prod(steps, axis=0)), f"{n}, {every}"


# %% exercise="14.5" role="wrong" why="keeps every vjp"
def checkpointed(blocks, x, every):
    vjps = []
    for block in blocks:
        x, vjp = block(x)
        vjps.append(vjp)

    def back(g):
        for vjp in reversed(vjps):
            g = vjp(g)
        return g

    return x, back


# %% exercise="14.5" role="wrong" why="goes through the groups from the first to the last"
def checkpointed(blocks, x, every):
    inputs = []
    for i, block in enumerate(blocks):
        if i % every == 0:
            inputs.append(x)
        x = block(x)[0]

    def back_through(group, x, g):
        vjps = []
        for block in group:
            x, vjp = block(x)
            vjps.append(vjp)
        vjp = None
        while vjps:
            g = vjps.pop()(g)
        return g

    def vjp(g):
        for i in range(len(inputs)):
            g = back_through(blocks[i * every : (i + 1) * every], inputs[i], g)
        return g

    return x, vjp


# %% exercise="14.5" role="wrong" why="computes all of it again each time: hidden tests see it"
def checkpointed(blocks, x, every):
    start, n = x, len(blocks)
    for block in blocks:
        x = block(x)[0]

    def back_one(i, g):
        x = start
        for block in blocks[:i]:
            x = block(x)[0]
        return blocks[i](x)[1](g)

    def vjp(g):
        for i in reversed(range(n)):
            g = back_one(i, g)
        return g

    return x, vjp


# %% [markdown]
# ## Exercise 14.6: A stream that can be run backwards
#
# Values: $x_2=y_2-h(y_1)$, then $x_1=y_1-f(x_2)$. Cotangents: $y_1$ is an output and the input of
# $h$, so its whole cotangent is $\bar g_1=dy_1+J_h^\top dy_2$. It is that of $x_1$, and of $f$'s
# output, so $dx_1=\bar g_1$ and $dx_2=dy_2+J_f^\top\bar g_1$. The two `vjp`s are those of calls
# that were needed for the values anyway.


# %% exercise="14.6" role="solution"
def reversible_backward(y1, y2, dy1, dy2, f, h):
    """Inputs and their gradients, from the outputs and theirs. -> x1, x2, dx1, dx2"""
    out, h_vjp = h(y1)
    x2 = y2 - out
    out, f_vjp = f(x2)
    x1 = y1 - out
    dx1 = dy1 + h_vjp(dy2)
    return x1, x2, dx1, dy2 + f_vjp(dx1)


# %% exercise="14.6" role="hidden"
calls = []


def noted(name, W):
    def run(x):
        calls.append(name)
        return x @ W, lambda g: g @ W.T

    return run


A, B, x1, x2, g1, g2 = np.random.default_rng(5).normal(size=(6, 4, 4))
saved = g1.copy(), g2.copy()
y1 = x1 + x2 @ A
got = reversible_backward(y1, x2 + y1 @ B, g1, g2, noted("f", A), noted("h", B))
assert sorted(calls) == ["f", "h"], "each branch is called once"
assert (g1 == saved[0]).all() and (g2 == saved[1]).all(), "a cotangent was changed"
want = x1, x2, g1 + g2 @ B.T, g2 + (g1 + g2 @ B.T) @ A.T
assert all(np.allclose(a, b) for a, b in zip(got, want, strict=True)), "linear branches"
unused = reversible_backward(y1, x2 + y1 @ B, g1, 0 * g2, noted("f", A), noted("h", B))
assert np.allclose(unused[3], g1 @ A.T), "a loss of the first half alone"


# %% exercise="14.6" role="wrong" why="f gets y1's own cotangent, without what came through h"
def reversible_backward(y1, y2, dy1, dy2, f, h):
    out, h_vjp = h(y1)
    x2 = y2 - out
    out, f_vjp = f(x2)
    return y1 - out, x2, dy1 + h_vjp(dy2), dy2 + f_vjp(dy1)


# %% exercise="14.6" role="wrong" why="computes f at y2 instead of x2"
def reversible_backward(y1, y2, dy1, dy2, f, h):
    out, h_vjp = h(y1)
    x2 = y2 - out
    out, f_vjp = f(y2)
    dx1 = dy1 + h_vjp(dy2)
    return y1 - out, x2, dx1, dy2 + f_vjp(dx1)


# %% exercise="14.6" role="wrong" why="adds into a cotangent it was given: only hidden tests see it"
def reversible_backward(y1, y2, dy1, dy2, f, h):
    out, h_vjp = h(y1)
    x2 = y2 - out
    out, f_vjp = f(x2)
    dy1 += h_vjp(dy2)
    return y1 - out, x2, dy1, dy2 + f_vjp(dy1)


# %% exercise="14.6" role="wrong" why="calls the branches again: only hidden tests see it"
def reversible_backward(y1, y2, dy1, dy2, f, h):
    x2 = y2 - h(y1)[0]
    x1 = y1 - f(x2)[0]
    dx1 = dy1 + h(y1)[1](dy2)
    return x1, x2, dx1, dy2 + f(x2)[1](dx1)
