# %% [markdown]
# # Solutions to chapter 18 · Metrics

# %% [markdown]
# ## Exercise 18.1: Perplexity per word
#
# By (18.8) $\mathrm{PPL}_w^{\,\mathrm{words}}=\mathrm{PPL}_t^{\,\mathrm{tokens}}$. Take logarithms,
# divide by the words, and only then the exponential: the power itself overflows for any real text.


# %% exercise="18.1" role="solution"
def perplexity_per_word(perplexity, tokens, words):
    """Perplexity per word, from that per token. tokens, words: how many the text has."""
    return math.exp(math.log(perplexity) * tokens / words)


# %% exercise="18.1" role="hidden"
got = perplexity_per_word(1000.0, 30_000, 15_000)
assert abs(got / 1e6 - 1) < 1e-9, "a long text: 1000 ** 30000 is no float"
got = perplexity_per_word(2.5, 7, 3)
assert abs(got - 2.5 ** (7 / 3)) < 1e-9, "seven tokens, three words"


# %% exercise="18.1" role="wrong" why="in proportion, as if perplexities added up"
def perplexity_per_word(perplexity, tokens, words):
    return perplexity * tokens / words


# %% exercise="18.1" role="wrong" why="the exponent upside down"
def perplexity_per_word(perplexity, tokens, words):
    return math.exp(math.log(perplexity) * words / tokens)


# %% exercise="18.1" role="wrong" why="by way of P(text), which overflows: only hidden tests see it"
def perplexity_per_word(perplexity, tokens, words):
    return (perplexity**tokens) ** (1 / words)


# %% [markdown]
# ## Exercise 18.2: BLEU of a shuffled hypothesis
#
# All words differ, so an $n$-gram of the hypothesis is in the reference only if its words are
# consecutive there. Inside a piece they are. Across a joint they are not, since the pieces that
# meet were no neighbours in that order. A piece of $l$ words holds $\max(0,l-n+1)$ $n$-grams, the
# whole of $N$ words $N-n+1$. The lengths are equal, so there is no penalty:
# $\mathrm{BLEU}=\prod_n\big(\sum_l\max(0,l-n+1)/(N-n+1)\big)^{1/4}$, and 0 if one factor is 0. It
# hardly matters what the order is. BLEU sees the joints, and nothing beyond four words.


# %% exercise="18.2" role="solution"
def shuffled_bleu(lengths):
    """BLEU of the pieces of a reference in another order. lengths: of the pieces -> 0..1."""
    product = 1.0
    for n in range(1, 5):
        hits = sum(max(0, length - n + 1) for length in lengths)
        if not hits:
            return 0.0
        product *= hits / (sum(lengths) - n + 1)
    return product**0.25


# %% exercise="18.2" role="hidden"
for lengths in ((2, 6, 2), (1, 1, 5, 1), (1, 7), (2, 2, 2, 2), (3,), (1,), (4,), (30, 1, 1)):
    ends = np.cumsum(lengths)
    pieces = np.split(np.arange(ends[-1]), ends[:-1])
    turned = np.concatenate(pieces[::-1]).tolist()
    want = m.corpus_bleu([turned], [[list(range(ends[-1]))]])
    assert abs(shuffled_bleu(lengths) - want) < 1e-9, f"wrong for pieces of {lengths}"


# %% exercise="18.2" role="wrong" why="all words are there, so BLEU is 1"
def shuffled_bleu(lengths):
    return 1.0 if min(sum(lengths) - 3, 1) > 0 else 0.0


# %% exercise="18.2" role="wrong" why="n-grams of the pieces over n-grams of the pieces"
def shuffled_bleu(lengths):
    hits = [sum(max(0, length - n + 1) for length in lengths) for n in range(1, 5)]
    return float(np.prod([h / h if h else 0.0 for h in hits]) ** 0.25)


# %% exercise="18.2" role="wrong" why="an arithmetic mean of the four precisions"
def shuffled_bleu(lengths):
    N = sum(lengths)
    shares = [sum(max(0, length - n + 1) for length in lengths) / max(1, N - n + 1)
              for n in range(1, 5)]
    return float(np.mean(shares)) if all(shares) else 0.0


# %% exercise="18.2" role="wrong" why="leaves out an n without a hit instead of giving 0"
def shuffled_bleu(lengths):
    N = sum(lengths)
    hits = [sum(max(0, length - n + 1) for length in lengths) for n in range(1, 5)]
    logs = [math.log(h / (N - n)) for n, h in enumerate(hits) if h]
    return math.exp(sum(logs) / len(logs))


# %% exercise="18.2" role="wrong" why="short pieces count below zero: only hidden tests see it"
def shuffled_bleu(lengths):
    product, N = 1.0, sum(lengths)
    for n in range(1, 5):
        hits = sum(length - n + 1 for length in lengths)
        if hits <= 0:
            return 0.0
        product *= hits / (N - n + 1)
    return product**0.25


# %% [markdown]
# ## Exercise 18.3: The same answers, another charge
#
# All charges sum to $Nn$ with $n$ for `nats`. Let $w=N-\mathrm{right}$ answers be wrong. With each
# at its least, $\ln2$, there is $s=Nn-w\ln2>0$ to spend. Give each right answer a charge $r$ that
# is positive, below $\ln2$, and takes at most half of $s$ in all. The wrong ones share the rest,
# each more than $\ln2$, as at least $s/2$ is left over. Without wrong answers each right one pays
# $n<\ln2$. A charge $x$ is the probability $e^{-x}$ at the label. So accuracy leaves the charge
# free upwards.


# %% exercise="18.3" role="solution"
def same_answers(labels, right, nats):
    """Probabilities (N, 2): the first `right` answers right, the others wrong, mean charge `nats`.

    labels: (N,) of 0 and 1. right: 0..N. Rows sum to 1.
    """
    N = len(labels)
    wrong, ln2 = N - right, math.log(2)
    charges = np.full(N, nats, dtype=float)  # (N,) as they are if no answer is wrong
    if wrong:
        spare = N * nats - wrong * ln2
        charges[:right] = min(spare / (2 * N), ln2 / 2)
        charges[right:] = (N * nats - charges[:right].sum()) / wrong
    p = np.empty((N, 2))
    p[np.arange(N), labels] = np.exp(-charges)
    p[np.arange(N), 1 - labels] = 1 - np.exp(-charges)
    return p


# %% exercise="18.3" role="hidden"
r = np.random.default_rng(3)
for N, right, nats in ((50, 49, math.log(2) / 50 + 1e-6), (50, 49, 0.5), (9, 0, 0.6932),
                       (5, 5, 1e-6), (5, 5, 0.69), (1, 1, 0.3), (1, 0, 8.0), (100, 10, 9.0)):
    labels = r.integers(0, 2, N)
    p = same_answers(labels, right, nats)
    at_label = p[np.arange(N), labels]
    assert ((at_label > 0.5) == (np.arange(N) < right)).all(), f"{right} of {N} at {nats}"
    assert abs(-np.log(at_label).mean() - nats) < 1e-9, f"{right} of {N} at {nats} nats"
    assert np.abs(p.sum(1) - 1).max() < 1e-12 and p.min() >= 0, "rows are distributions"


# %% exercise="18.3" role="wrong" why="the same charge for each answer, right or wrong"
def same_answers(labels, right, nats):
    p = np.full((len(labels), 2), 1 - math.exp(-nats))
    p[np.arange(len(labels)), labels] = math.exp(-nats)
    return p


# %% exercise="18.3" role="wrong" why="the charge is that of the wrong answers alone"
def same_answers(labels, right, nats):
    N = len(labels)
    at_label = np.where(np.arange(N) < right, 0.99, math.exp(-max(nats, 0.7)))
    p = np.stack([1 - at_label, at_label], 1)
    p[labels == 0] = p[labels == 0][:, ::-1]
    return p


# %% exercise="18.3" role="wrong" why="column 0 is taken for the label's"
def same_answers(labels, right, nats):
    N, wrong = len(labels), len(labels) - right
    charges = np.full(N, nats, dtype=float)
    if wrong:
        charges[:right] = min((N * nats - wrong * math.log(2)) / (2 * N), 0.3)
        charges[right:] = (N * nats - charges[:right].sum()) / wrong
    return np.stack([np.exp(-charges), 1 - np.exp(-charges)], 1)


# %% exercise="18.3" role="wrong" why="right answers may pay too much: only hidden tests see it"
def same_answers(labels, right, nats):
    N, wrong = len(labels), len(labels) - right
    charges = np.full(N, 0.01 if wrong else nats)
    if wrong:
        charges[right:] = (N * nats - 0.01 * right) / wrong
    p = np.empty((N, 2))
    p[np.arange(N), labels] = np.exp(-charges)
    p[np.arange(N), 1 - labels] = 1 - np.exp(-charges)
    return p


# %% [markdown]
# ## Exercise 18.4: The interval of a difference of F
#
# One draw of items is an index array; both models and the labels are read at the same places. For
# each draw $F=2\,\mathrm{tp}/(\text{predicted}+\text{actual})$, which is (18.15) with
# $\mathrm{tp}+\mathrm{fp}$ and $\mathrm{tp}+\mathrm{fn}$ put in. F is no mean, so nothing can be
# said item by item; but the draw does not care what is computed from it.


# %% exercise="18.4" role="solution"
def f_difference(labels, first, second, rng, resamples):
    """F of first less F of second, and the ends of its paired 95 % bootstrap interval.

    labels, first, second: (N,) of 0 and 1; F is that of class 1. -> three numbers.
    """
    labels, first, second = (np.asarray(x) for x in (labels, first, second))

    def f(chosen, guesses):
        y, g = labels[chosen], guesses[chosen]
        return 2 * (y * g).sum() / max(1, y.sum() + g.sum())

    def difference(chosen):
        return f(chosen, first) - f(chosen, second)

    N = len(labels)
    draws = [difference(rng.integers(0, N, N)) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return difference(np.arange(N)), low, high


# %% exercise="18.4" role="hidden"
r = np.random.default_rng(14)
y = (r.random(200) < 0.3).astype(int)
a, b = (np.where(r.random(200) < share, y, 1 - y) for share in (0.85, 0.8))
mean, low, high = f_difference(y, a, b, np.random.default_rng(1), 3000)
spread = []
for _ in range(3000):  # the same, independently, to compare widths
    i = r.integers(0, 200, 200)
    f = [2 * (y[i] & g[i]).sum() / (y[i].sum() + g[i].sum()) for g in (a, b)]
    spread.append(f[0] - f[1])
assert abs((high - low) / (3.92 * np.std(spread)) - 1) < 0.08, "not the middle 95 %"
assert abs((low + high) / 2 - np.mean(spread)) < 0.1 * np.std(spread), "not in the middle"
rare = np.array([1, 0, 0, 0, 0, 0])
ends = f_difference(rare, rare, 0 * rare, np.random.default_rng(2), 300)
assert np.isfinite(ends).all() and ends[0] == 1 and ends[1] == 0, "draws without a positive: F = 0"


# %% exercise="18.4" role="wrong" why="each model gets other items"
def f_difference(labels, first, second, rng, resamples):
    def f(chosen, guesses):
        y, g = labels[chosen], guesses[chosen]
        return 2 * (y * g).sum() / max(1, y.sum() + g.sum())

    N = len(labels)
    draws = [f(rng.integers(0, N, N), first) - f(rng.integers(0, N, N), second)
             for _ in range(resamples)]
    everything = np.arange(N)
    return (f(everything, first) - f(everything, second), *np.quantile(draws, [0.025, 0.975]))


# %% exercise="18.4" role="wrong" why="the difference of accuracies"
def f_difference(labels, first, second, rng, resamples):
    d = (first == labels).astype(float) - (second == labels)
    draws = [d[rng.integers(0, len(d), len(d))].mean() for _ in range(resamples)]
    return (d.mean(), *np.quantile(draws, [0.025, 0.975]))


# %% exercise="18.4" role="wrong" why="the mean of the draws in place of the difference"
def f_difference(labels, first, second, rng, resamples):
    def f(chosen, guesses):
        y, g = labels[chosen], guesses[chosen]
        return 2 * (y * g).sum() / max(1, y.sum() + g.sum())

    N, draws = len(labels), []
    for _ in range(resamples):
        i = rng.integers(0, N, N)
        draws.append(f(i, first) - f(i, second))
    return (float(np.mean(draws)), *np.quantile(draws, [0.025, 0.975]))


# %% exercise="18.4" role="wrong" why="the middle 90 %: only hidden tests see it"
def f_difference(labels, first, second, rng, resamples):
    def f(chosen, guesses):
        y, g = labels[chosen], guesses[chosen]
        return 2 * (y * g).sum() / max(1, y.sum() + g.sum())

    N, draws = len(labels), []
    for _ in range(resamples):
        i = rng.integers(0, N, N)
        draws.append(f(i, first) - f(i, second))
    everything = np.arange(N)
    return (f(everything, first) - f(everything, second), *np.quantile(draws, [0.05, 0.95]))


# %% exercise="18.4" role="wrong" why="0 / 0 where a draw has no positive: only hidden tests see it"
def f_difference(labels, first, second, rng, resamples):
    def f(chosen, guesses):
        y, g = labels[chosen], guesses[chosen]
        return np.float64(2 * (y * g).sum()) / (y.sum() + g.sum())

    N, draws = len(labels), []
    for _ in range(resamples):
        i = rng.integers(0, N, N)
        draws.append(f(i, first) - f(i, second))
    everything = np.arange(N)
    return (f(everything, first) - f(everything, second), *np.quantile(draws, [0.025, 0.975]))


# %% [markdown]
# ## Exercise 18.5: The temperature in a few Newton steps
#
# The slope rises with $b$ (18.35), so its sign says on which side the root lies: a negative slope
# moves the lower end, a positive one the upper. Newton's $b-L'/L''$ is taken if it falls inside.
# Otherwise the interval is halved in its logarithm, or, without an upper end, doubled, or, without
# a lower one, divided by a factor that grows: 2, 4, 16, ..., so that a scale of $10^6$ is no
# trouble. Near the root Newton always falls inside and doubles the digits. The stop is a step too
# small to matter. With the largest logit of each row subtracted, every exponent is at most 0.


# %% exercise="18.5" role="solution"
def newton_temperature(logits, labels):
    """The temperature of the fewest nats, and how many slopes were evaluated (at most 40).

    logits: (N, V), labels: (N,) int. -> T > 0, to a relative error of 1e-10, and an int.
    """
    z = logits - logits.max(1, keepdims=True)  # (N, V) <= 0
    at_label = z[np.arange(len(labels)), labels].mean()
    low, high, b, factor, steps = 0.0, math.inf, 1.0, 2.0, 0
    while steps < 40:
        steps += 1
        p = np.exp(b * z)
        p /= p.sum(1, keepdims=True)
        mean = (p * z).sum(1)
        slope, curvature = mean.mean() - at_label, ((p * z**2).sum(1) - mean**2).mean()
        low, high = (b, high) if slope < 0 else (low, b)
        new = b - slope / curvature if curvature > 0 else -1.0
        if not low <= new <= high or new == 0:
            if low == 0 or high == math.inf:
                new = b * factor if high == math.inf else b / factor
                factor *= factor
            else:
                new = math.sqrt(low * high)
        if abs(new / b - 1) < 1e-13:
            break
        b = new
    return 1 / b, steps


# %% exercise="18.5" role="hidden"
r = np.random.default_rng(15)
for scale, shift, hits in ((100.0, 0.0, 0.6), (1e4, 0.0, 0.6), (0.01, 0.0, 0.6), (1e-4, 0.0, 0.6),
                           (2.0, 1e5, 0.6), (2.0, -1e5, 0.6), (1.0, 0.0, 0.97),
                           (1.0, 0.0, 0.35)):
    logits = scale * r.normal(size=(300, 5)) + shift
    labels = np.where(r.random(300) < hits, logits.argmax(1), r.integers(0, 5, 300))
    T, steps = newton_temperature(logits, labels)
    want = m.best_temperature(logits, labels)
    assert abs(T / want - 1) < 1e-9, f"scale {scale}, shift {shift}: T = {T}, not {want}"
    assert steps <= 40, f"scale {scale}: {steps} steps"


# %% exercise="18.5" role="wrong" why="plain Newton leaves the domain: only hidden tests see it"
def newton_temperature(logits, labels):
    z, b = logits - logits.max(1, keepdims=True), 1.0
    at_label = z[np.arange(len(labels)), labels].mean()
    for _ in range(40):
        p = np.exp(b * z)
        p /= p.sum(1, keepdims=True)
        mean = (p * z).sum(1)
        b -= (mean.mean() - at_label) / ((p * z**2).sum(1) - mean**2).mean()
    return 1 / b, 40


# %% exercise="18.5" role="wrong" why="the slope in b, taken for the slope in T"
def newton_temperature(logits, labels):
    z, T = logits - logits.max(1, keepdims=True), 1.0
    at_label = z[np.arange(len(labels)), labels].mean()
    for _ in range(40):
        p = np.exp(z / T)
        p /= p.sum(1, keepdims=True)
        mean = (p * z).sum(1)
        T = max(0.01, T - (mean.mean() - at_label) / ((p * z**2).sum(1) - mean**2).mean())
    return T, 40


# %% exercise="18.5" role="wrong" why="gives b, not T"
def newton_temperature(logits, labels):
    z, low, high = logits - logits.max(1, keepdims=True), 1e-9, 1e9
    at_label = z[np.arange(len(labels)), labels].mean()
    for _ in range(200):
        b = math.sqrt(low * high)
        p = np.exp(b * z)
        low, high = (b, high) if ((p * z).sum(1) / p.sum(1)).mean() < at_label else (low, b)
    return b, 40


# %% exercise="18.5" role="wrong" why="halving alone: three digits in 40 steps"
def newton_temperature(logits, labels):
    z, low, high = logits - logits.max(1, keepdims=True), 1e-9, 1e9
    at_label = z[np.arange(len(labels)), labels].mean()
    for _ in range(40):
        b = (low + high) / 2
        p = np.exp(b * z)
        low, high = (b, high) if ((p * z).sum(1) / p.sum(1)).mean() < at_label else (low, b)
    return 1 / b, 40


# %% exercise="18.5" role="wrong" why="exp of the logits overflows: only hidden tests see it"
def newton_temperature(logits, labels):
    low, high, b, steps = 0.0, math.inf, 1.0, 0
    at_label = logits[np.arange(len(labels)), labels].mean()
    while steps < 40:
        steps += 1
        p = np.exp(b * logits)
        p /= p.sum(1, keepdims=True)
        mean = (p * logits).sum(1)
        slope = mean.mean() - at_label
        low, high = (b, high) if slope < 0 else (low, b)
        new = b - slope / ((p * logits**2).sum(1) - mean**2).mean()
        if not low < new < high:
            new = 2 * b if high == math.inf else (low + high) / 2
        if abs(new / b - 1) < 1e-12:
            break
        b = new
    return 1 / b, steps


# %% [markdown]
# ## Exercise 18.6: Calibration without a formula
#
# Let two neighbouring blocks have means that fall. In the best increasing map they get the same
# value: if the lower block got less than the upper one, then moving both towards each other's mean
# would lower the error, until they meet. So they are one block, and the best value of a block is
# the mean of its items. Merging keeps the total, so the mean of all is kept. Each merge removes a
# block, so after the sort it takes at most $N$ of them. Equal confidences are one block from the
# start: the order of ties in the sort must not matter. (Ayer et al. 1955: "pool adjacent
# violators".)


# %% exercise="18.6" role="solution"
def isotonic(confidence, correct):
    """The increasing map of confidences with the least squared error: new confidences, (N,).

    confidence: (N,) in 0..1, in any order, ties allowed. correct: (N,) of 0 and 1.
    """
    _, row = np.unique(confidence, return_inverse=True)  # (N,) the block of each, in order
    blocks = []  # [items that are right, items, different confidences] of each
    for right, size in zip(np.bincount(row, correct), np.bincount(row), strict=True):
        blocks.append([right, size, 1])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    means = [right / size for right, size, _ in blocks]
    return np.repeat(means, [kinds for *_, kinds in blocks])[row]


# %% exercise="18.6" role="hidden"
got = isotonic(np.array([0.5, 0.5, 0.9]), np.array([1, 0, 1]))
assert np.abs(got - [0.5, 0.5, 1]).max() < 1e-12, "equal confidences get the same"
got = isotonic(np.array([0.5, 0.9, 0.5]), np.array([0, 1, 1]))
assert np.abs(got - [0.5, 1, 0.5]).max() < 1e-12, "equal confidences, whatever their order"
got = isotonic(np.array([0.1, 0.2, 0.2, 0.2, 0.3]), np.array([1, 0, 0, 0, 1]))
assert np.abs(got - [0.25, 0.25, 0.25, 0.25, 1]).max() < 1e-12, "a block counts by its size"
got = isotonic(np.linspace(0, 1, 6), np.array([1, 1, 1, 0, 0, 0]))
assert np.abs(got - 0.5).max() < 1e-12, "all falling: one block"
got = isotonic(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), np.array([1, 0, 1, 1, 0, 0]))
assert np.abs(got - 0.5).max() < 1e-12, "a merge may make the next one necessary"
got = isotonic(np.array([0.7]), np.array([0]))
assert got.shape == (1,) and got[0] == 0, "a single answer"
r = np.random.default_rng(16)
c = np.round(r.random(3000), 2)
h = (r.random(3000) < c).astype(float)
new = isotonic(c, h)
fresh_order = r.permutation(3000)
assert np.abs(isotonic(c[fresh_order], h[fresh_order]) - new[fresh_order]).max() < 1e-12, "order"
size, conf, acc = m.reliability(new, h, bins=50)
assert np.abs(conf - acc).max() < 0.05, "on its own data the new confidence is calibrated"


# %% exercise="18.6" role="wrong" why="the largest so far: increasing, but not the least error"
def isotonic(confidence, correct):
    order = np.argsort(confidence)
    new = np.empty(len(order))
    new[order] = np.maximum.accumulate(np.asarray(correct, float)[order])
    return new


# %% exercise="18.6" role="wrong" why="merges neighbours once, from left to right"
def isotonic(confidence, correct):
    order = np.argsort(confidence, kind="stable")
    h = np.asarray(correct, float)[order]
    for i in range(len(h) - 1):
        if h[i] > h[i + 1]:
            h[i] = h[i + 1] = (h[i] + h[i + 1]) / 2
    new = np.empty(len(h))
    new[order] = h
    return new


# %% exercise="18.6" role="wrong" why="in the order of the confidences, not of the answers"
def isotonic(confidence, correct):
    blocks = []
    for right in np.asarray(correct, float)[np.argsort(confidence)]:
        blocks.append([right, 1])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            right, size = blocks.pop()
            blocks[-1] = [blocks[-1][0] + right, blocks[-1][1] + size]
    return np.repeat([right / size for right, size in blocks], [size for _, size in blocks])


# %% exercise="18.6" role="wrong" why="the mean of two blocks' means, whatever their sizes"
def isotonic(confidence, correct):
    order, blocks = np.argsort(confidence, kind="stable"), []
    for right in np.asarray(correct, float)[order]:
        blocks.append([right, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, size = blocks.pop()
            blocks[-1] = [(blocks[-1][0] + mean) / 2, blocks[-1][1] + size]
    new = np.empty(len(order))
    new[order] = np.repeat([mean for mean, _ in blocks], [size for _, size in blocks])
    return new


# %% exercise="18.6" role="wrong" why="ties may get different confidences: only hidden tests see it"
def isotonic(confidence, correct):
    order, blocks = np.argsort(confidence, kind="stable"), []
    for right in np.asarray(correct, float)[order]:
        blocks.append([right, 1])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            right, size = blocks.pop()
            blocks[-1] = [blocks[-1][0] + right, blocks[-1][1] + size]
    new = np.empty(len(order))
    new[order] = np.repeat([right / size for right, size in blocks], [size for _, size in blocks])
    return new
