# %% [markdown]
# # Solutions to chapter 16 · Pre-training on real text

# %% [markdown]
# ## Exercise 16.1: Bits per character
#
# The parts' means times their sizes give all the nats, $-\ln P(\text{text})$. Divide by the
# characters of the text and by $\ln2$. How the text was cut, into tokens or micro-batches, drops
# out.


# %% exercise="16.1" role="solution"
def bits_per_character(losses, tokens, text):
    """Bits per character of a text. losses: mean nats per token of each part, (K,).

    tokens: how many tokens each part has, (K,). text: the string. -> a number.
    """
    nats = sum(loss * n for loss, n in zip(losses, tokens, strict=True))
    return nats / len(text) / math.log(2)


# %% exercise="16.1" role="hidden"
got = bits_per_character([1.0, 3.0, 2.0], [10, 1, 5], "é" * 40)  # characters, not bytes
assert abs(got - 23 / 40 / math.log(2)) < 1e-9, "23 nats on 40 characters"
got = bits_per_character(np.array([2.0]), np.array([7]), "abc")  # more tokens than characters
assert abs(got - 14 / 3 / math.log(2)) < 1e-9, "14 nats on 3 characters"


# %% exercise="16.1" role="wrong" why="the mean of the parts' means"
def bits_per_character(losses, tokens, text):
    return sum(losses) / len(losses) * sum(tokens) / len(text) / math.log(2)


# %% exercise="16.1" role="wrong" why="bits per token"
def bits_per_character(losses, tokens, text):
    nats = sum(loss * n for loss, n in zip(losses, tokens, strict=True))
    return nats / sum(tokens) / math.log(2)


# %% exercise="16.1" role="wrong" why="divides by bytes: only hidden tests see it"
def bits_per_character(losses, tokens, text):
    nats = sum(loss * n for loss, n in zip(losses, tokens, strict=True))
    return nats / len(text.encode()) / math.log(2)


# %% [markdown]
# ## Exercise 16.2: Accumulate micro-batches of any size
#
# By (16.16) part $k$ weighs $n_k/n$, in the loss and in the gradient. The last part is smaller, and
# its weight with it. The sum is a new array, so nothing of `loss_of` is changed. Clipping comes
# last; with a norm below the bound, 0 included, the factor is 1.


# %% exercise="16.2" role="solution"
def batch_gradient(loss_of, windows, most, clip):
    """Mean loss over windows (a list), and its gradient (P,), of norm <= clip.

    loss_of(part): mean loss and gradient (P,) of a list of 1..most windows.
    """
    loss, g = 0.0, 0.0
    for start in range(0, len(windows), most):
        part = windows[start : start + most]
        share = len(part) / len(windows)
        l_k, g_k = loss_of(part)
        loss, g = loss + share * l_k, g + share * g_k
    norm = np.linalg.norm(g)
    return loss, g * (clip / norm) if norm > clip else g


# %% exercise="16.2" role="hidden"
shared = np.array([3.0, 4.0])


def same_array(part):
    assert 1 <= len(part) <= 3, "1 to 3 windows"
    return 1.0, shared


loss, g = batch_gradient(same_array, [0] * 7, 3, 1.0)
assert (shared == [3.0, 4.0]).all(), "an array of loss_of was changed"
assert abs(loss - 1) < 1e-12 and np.abs(g - [0.6, 0.8]).max() < 1e-12, "7 windows in parts of 3"
_, g = batch_gradient(lambda part: (0.0, np.zeros(2)), [0] * 4, 3, 1.0)
assert (g == 0).all(), "a gradient of 0 stays 0"
uneven = {0: -1.0, 1: -1.0, 2: -1.0, 3: 9.0}
_, g = batch_gradient(lambda part: (0.0, np.array([uneven[part[0]]])), [0, 1, 2, 3], 1, 1)
assert g[0] > 0.99, "clip after the sum: the mean of -1, -1, -1 and 9 is positive"
_, g = batch_gradient(same_array, [0, 1], 3, 100.0)
assert np.abs(g - shared).max() < 1e-12, "a short gradient must not be stretched"


# %% exercise="16.2" role="wrong" why="the last part weighs as much as the others"
def batch_gradient(loss_of, windows, most, clip):
    parts = [loss_of(windows[i : i + most]) for i in range(0, len(windows), most)]
    loss, g = (sum(column) / len(parts) for column in zip(*parts, strict=True))
    return loss, g * min(1, clip / max(np.linalg.norm(g), 1e-30))


# %% exercise="16.2" role="wrong" why="clips each part"
def batch_gradient(loss_of, windows, most, clip):
    loss, g = 0.0, 0.0
    for start in range(0, len(windows), most):
        part = windows[start : start + most]
        l_k, g_k = loss_of(part)
        loss = loss + len(part) / len(windows) * l_k
        g = g + len(part) / len(windows) * g_k * min(1, clip / max(np.linalg.norm(g_k), 1e-30))
    return loss, g


# %% exercise="16.2" role="wrong" why="drops the incomplete last part"
def batch_gradient(loss_of, windows, most, clip):
    n = max(most, len(windows) // most * most)
    parts = [loss_of(windows[i : i + most]) for i in range(0, n, most)]
    loss, g = (sum(column) / len(parts) for column in zip(*parts, strict=True))
    return loss, g * min(1, clip / max(np.linalg.norm(g), 1e-30))


# %% exercise="16.2" role="wrong" why="adds in place into loss_of's array: only hidden tests see it"
def batch_gradient(loss_of, windows, most, clip):
    loss, g = 0.0, None
    for start in range(0, len(windows), most):
        part = windows[start : start + most]
        l_k, g_k = loss_of(part)
        g_k *= len(part) / len(windows)
        loss, g = loss + l_k * len(part) / len(windows), g_k if g is None else g + g_k
    return loss, g * min(1, clip / max(np.linalg.norm(g), 1e-30))


# %% [markdown]
# ## Exercise 16.3: A standard error by blocks
#
# Blocks play the part of documents in (16.23). With $r_j=S_j-\bar x\,n_j$, their sum is
# $\sum_jS_j-\bar x\,n=0$, so $\frac1{m-1}\sum r_j^2$ is their sample variance; the total is a sum
# of $m$ such terms, and the mean is the total over $n$.


# %% exercise="16.3" role="solution"
def error_by_blocks(charge, m):
    """Mean of charge (n,), and its standard error from m blocks of neighbours. -> two numbers."""
    blocks = np.array_split(charge, m)
    mean = charge.mean()
    r = np.array([block.sum() - mean * len(block) for block in blocks])
    return mean, (m / (m - 1) * (r**2).sum()) ** 0.5 / len(charge)


# %% exercise="16.3" role="hidden"
x = np.array([1.0, 2, 3, 4, 5, 6, 7])  # blocks (1, 2, 3), (4, 5), (6, 7); mean 4
mean, error = error_by_blocks(x, 3)
assert abs(error - (1.5 * (36 + 1 + 25)) ** 0.5 / 7) < 1e-12, "blocks of 3, 2 and 2"
assert abs(error_by_blocks(x + 10, 3)[1] - error) < 1e-9, "a shift must not change the error"
assert abs(error_by_blocks(3 * x, 3)[1] - 3 * error) < 1e-9, "a scale must scale the error"
_, error = error_by_blocks(x, 7)  # blocks of one: the usual formula
assert abs(error - x.std(ddof=1) / 7**0.5) < 1e-12, "blocks of one token are the naive error"


# %% exercise="16.3" role="wrong" why="the naive standard error"
def error_by_blocks(charge, m):
    return charge.mean(), charge.std(ddof=1) / len(charge) ** 0.5


# %% exercise="16.3" role="wrong" why="forgets m / (m - 1)"
def error_by_blocks(charge, m):
    blocks, mean = np.array_split(charge, m), charge.mean()
    r = np.array([block.sum() - mean * len(block) for block in blocks])
    return mean, (r**2).sum() ** 0.5 / len(charge)


# %% exercise="16.3" role="wrong" why="every m-th token a block, so neighbours are torn apart"
def error_by_blocks(charge, m):
    mean = charge.mean()
    blocks = [charge[j::m] for j in range(m)]
    r = np.array([block.sum() - mean * len(block) for block in blocks])
    return mean, (m / (m - 1) * (r**2).sum()) ** 0.5 / len(charge)


# %% exercise="16.3" role="wrong" why="drops the tokens that are left over"
def error_by_blocks(charge, m):
    y = charge[: len(charge) // m * m].reshape(m, -1).mean(1)
    return y.mean(), y.std(ddof=1) / m**0.5


# %% exercise="16.3" role="wrong" why="unequal blocks weigh alike: only hidden tests see it"
def error_by_blocks(charge, m):
    y = np.array([block.mean() for block in np.array_split(charge, m)])
    return charge.mean(), y.std(ddof=1) / m**0.5


# %% [markdown]
# ## Exercise 16.4: Padding must not matter
#
# The loss is $\frac1n\sum$ over the $n$ places where the mask is true, so its gradient is
# $(p-\mathrm{onehot})/n$ there, and 0 elsewhere. Taking those rows out first is the point: padded
# rows never enter an arithmetic operation, so not even a NaN can get through. The largest logit of
# each row is subtracted, so that no exponential overflows.


# %% exercise="16.4" role="solution"
def masked_loss(logits, targets, mask):
    """Mean nats over the targets where mask is true, and dlogits.

    logits (B, T, V) float, targets (B, T) int, mask (B, T) bool -> a number, (B, T, V).
    """
    d, n = np.zeros_like(logits), int(mask.sum())
    if n == 0:
        return 0.0, d
    z, t, rows = logits[mask], targets[mask], np.arange(n)  # (n, V), (n,)
    z = z - z.max(-1, keepdims=True)
    p = np.exp(z)
    p /= p.sum(-1, keepdims=True)
    loss = (np.log(np.exp(z).sum(-1)) - z[rows, t]).mean()
    p[rows, t] -= 1
    d[mask] = p / n
    return loss, d


# %% exercise="16.4" role="hidden"
r = np.random.default_rng(14)
z, t = r.normal(size=(3, 2, 5)), r.integers(0, 5, (3, 2))
loss, d = masked_loss(z, t, np.zeros((3, 2), bool))
assert loss == 0 and (d == 0).all() and d.shape == z.shape, "nothing counts: 0 and zeros"
some = np.array([[True, True], [False, False], [True, False]])  # a row that is padding alone
loss, d = masked_loss(z, t, some)
z2, t2 = z.copy(), np.where(some, t, 99)
z2[~some] = np.inf
loss2, d2 = masked_loss(z2, t2, some)
assert loss == loss2 and (d == d2).all(), "infinite logits in padded places"
assert np.abs(d[~some]).max() == 0, "no gradient in padded places"
assert abs(masked_loss(z + 1000, t, some)[0] - loss) < 1e-9, "logits near 1000"
kept = z.copy()
masked_loss(z, t, some)
assert (z == kept).all(), "logits were changed"


# %% exercise="16.4" role="wrong" why="multiplies by the mask, so a NaN gets through"
def masked_loss(logits, targets, mask):
    z = logits - logits.max(-1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    onehot = np.eye(logits.shape[-1])[targets]
    n = max(1, mask.sum())
    loss = -(np.log(p) * onehot * mask[..., None]).sum() / n
    return loss, (p - onehot) * mask[..., None] / n


# %% exercise="16.4" role="wrong" why="divides by all places, padded ones too"
def masked_loss(logits, targets, mask):
    d = np.zeros_like(logits)
    z, t, rows = logits[mask], targets[mask], np.arange(int(mask.sum()))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    loss = -np.log(p[rows, t]).sum() / mask.size
    p[rows, t] -= 1
    d[mask] = p / mask.size
    return loss, d


# %% exercise="16.4" role="wrong" why="a mean of each sequence's mean"
def masked_loss(logits, targets, mask):
    d, losses = np.zeros_like(logits), []
    for b in range(len(mask)):
        z, t = logits[b][mask[b]], targets[b][mask[b]]
        p, rows = np.exp(z) / np.exp(z).sum(-1, keepdims=True), np.arange(len(t))
        losses.append(-np.log(p[rows, t]).mean())
        p[rows, t] -= 1
        d[b][mask[b]] = p / len(t) / len(mask)
    return np.mean(losses), d


# %% exercise="16.4" role="wrong" why="NaN if nothing counts: only hidden tests see it"
def masked_loss(logits, targets, mask):
    d = np.zeros_like(logits)
    z, t, rows = logits[mask], targets[mask], np.arange(int(mask.sum()))
    z = z - z.max(-1, keepdims=True, initial=-1e30)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    with np.errstate(all="ignore"):
        loss = -np.log(p[rows, t]).sum() / np.float64(len(t))
    p[rows, t] -= 1
    d[mask] = p / max(1, len(t))
    return loss, d


# %% [markdown]
# ## Exercise 16.5: Find a leak
#
# A set of all runs of the training text answers "is it there" at once. For the held-out text mark
# the $n$ characters of each known run; the share is the mean of the marks. GPT-3's authors searched
# their training data for runs of 13 words in this way (Brown et al. 2020, appendix C).


# %% exercise="16.5" role="solution"
def leaked_share(train, held_out, n):
    """Share of held_out's characters that lie in a run of n which train holds too. -> 0..1."""
    known = {train[i : i + n] for i in range(len(train) - n + 1)}
    covered = np.zeros(len(held_out), bool)
    for i in range(len(held_out) - n + 1):
        if held_out[i : i + n] in known:
            covered[i : i + n] = True
    return float(covered.mean()) if held_out else 0.0


# %% exercise="16.5" role="hidden"
assert leaked_share("abcabcabc", "cabcab", 4) == 1, "runs may cross the period of the text"
assert leaked_share("", "abc", 2) == 0, "an empty training text leaks nothing"
assert leaked_share("aaaa", "aaaaaaaa", 4) == 1, "the same run again and again"
assert abs(leaked_share("hello world", "say hello, world!", 5) - 11 / 17) < 1e-12, "5 and 6 of 17"
assert abs(leaked_share("abcdef", "abczdef", 3) - 6 / 7) < 1e-12, "all but the z"
assert leaked_share("abc", "ABC", 3) == 0, "letter for letter: case counts"


# %% exercise="16.5" role="wrong" why="counts runs, not characters"
def leaked_share(train, held_out, n):
    known = {train[i : i + n] for i in range(len(train) - n + 1)}
    runs = [held_out[i : i + n] in known for i in range(len(held_out) - n + 1)]
    return sum(runs) / len(runs) if runs else 0.0


# %% exercise="16.5" role="wrong" why="looks at runs that do not overlap only"
def leaked_share(train, held_out, n):
    known = {train[i : i + n] for i in range(len(train) - n + 1)}
    hits = sum(held_out[i : i + n] in known for i in range(0, len(held_out) - n + 1, n))
    return hits * n / len(held_out)


# %% exercise="16.5" role="wrong" why="ignores case: only hidden tests see it"
def leaked_share(train, held_out, n):
    train, held_out = train.lower(), held_out.lower()
    known = {train[i : i + n] for i in range(len(train) - n + 1)}
    covered = np.zeros(len(held_out), bool)
    for i in range(len(held_out) - n + 1):
        if held_out[i : i + n] in known:
            covered[i : i + n] = True
    return float(covered.mean())


# %% [markdown]
# ## Exercise 16.6: Resume a trainer that you did not write
#
# The next step reads `w`, `m`, `t`, `order`, `place` and `rng`, and nothing else that changes: that
# is the state. Text is a copy, so nothing that happens later can reach it. JSON writes a float with
# the shortest digits that give the same float back, so no bit is lost. The generator's state is a
# dictionary of integers; Python's JSON writes those of 128 bits whole.


# %% exercise="16.6" role="solution"
def snapshot(trainer):
    """The state of a Toy as JSON text, and restore(text, other) -> None, which gives it to other.

    Neither may change trainer, and text must be all that restore needs.
    """
    text = json.dumps({
        "w": trainer.w.tolist(), "m": trainer.m.tolist(), "t": trainer.t,
        "order": trainer.order.tolist(), "place": trainer.place,
        "rng": trainer.rng.bit_generator.state,
    })  # fmt: skip

    def restore(text, other):
        state = json.loads(text)
        other.w, other.m = np.array(state["w"]), np.array(state["m"])
        other.order = np.array(state["order"])
        other.t, other.place = state["t"], state["place"]
        other.rng.bit_generator.state = state["rng"]

    return text, restore


# %% exercise="16.6" role="hidden"
for steps in (0, 3, 7, 8):  # before an epoch, inside one, at its end, and just after it
    first = Toy(seed=4)
    for _ in range(steps):
        first.step()
    text, restore = snapshot(first)
    twins = [Toy(seed=seed) for seed in (5, 6)]
    for twin in twins:
        restore(text, twin)  # twice from one text
    for _ in range(15):
        for toy in (first, *twins):
            toy.step()
    for twin in twins:
        assert (twin.w == first.w).all() and (twin.m == first.m).all(), f"after {steps} steps"
        assert twin.place == first.place and (twin.order == first.order).all(), "the epoch differs"
    assert twins[0].rng is not twins[1].rng, "two trainers must not share a generator"


# %% exercise="16.6" role="wrong" why="forgets where in the epoch it was"
def snapshot(trainer):
    text = json.dumps({"w": trainer.w.tolist(), "m": trainer.m.tolist(), "t": trainer.t,
                       "rng": trainer.rng.bit_generator.state})  # fmt: skip

    def restore(text, other):
        state = json.loads(text)
        other.w, other.m, other.t = np.array(state["w"]), np.array(state["m"]), state["t"]
        other.rng.bit_generator.state = state["rng"]

    return text, restore


# %% exercise="16.6" role="wrong" why="forgets the momentum"
def snapshot(trainer):
    text = json.dumps({"w": trainer.w.tolist(), "t": trainer.t, "place": trainer.place,
                       "order": trainer.order.tolist(),
                       "rng": trainer.rng.bit_generator.state})  # fmt: skip

    def restore(text, other):
        state = json.loads(text)
        other.w, other.order = np.array(state["w"]), np.array(state["order"])
        other.t, other.place = state["t"], state["place"]
        other.rng.bit_generator.state = state["rng"]

    return text, restore


# %% exercise="16.6" role="wrong" why="hands over the generator itself, which goes on moving"
def snapshot(trainer):
    text = json.dumps({"w": trainer.w.tolist(), "m": trainer.m.tolist(), "t": trainer.t,
                       "order": trainer.order.tolist(), "place": trainer.place})  # fmt: skip

    def restore(text, other):
        state = json.loads(text)
        other.w, other.m = np.array(state["w"]), np.array(state["m"])
        other.order, other.rng = np.array(state["order"]), trainer.rng
        other.t, other.place = state["t"], state["place"]

    return text, restore


# %% exercise="16.6" role="wrong" why="rounds the weights to seven digits"
def snapshot(trainer):
    text = json.dumps({"w": [float(f"{x:.7g}") for x in trainer.w], "m": trainer.m.tolist(),
                       "t": trainer.t, "order": trainer.order.tolist(), "place": trainer.place,
                       "rng": trainer.rng.bit_generator.state})  # fmt: skip

    def restore(text, other):
        state = json.loads(text)
        other.w, other.m = np.array(state["w"]), np.array(state["m"])
        other.order = np.array(state["order"])
        other.t, other.place = state["t"], state["place"]
        other.rng.bit_generator.state = state["rng"]

    return text, restore


# %% exercise="16.6" role="wrong" why="the rate starts anew: the step counter is left out"
def snapshot(trainer):
    text = json.dumps({"w": trainer.w.tolist(), "m": trainer.m.tolist(),
                       "order": trainer.order.tolist(), "place": trainer.place,
                       "rng": trainer.rng.bit_generator.state})  # fmt: skip

    def restore(text, other):
        state = json.loads(text)
        other.w, other.m = np.array(state["w"]), np.array(state["m"])
        other.order, other.place = np.array(state["order"]), state["place"]
        other.rng.bit_generator.state = state["rng"]

    return text, restore
