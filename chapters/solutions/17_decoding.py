# %% [markdown]
# # Solutions to chapter 17 · Decoding and the KV cache

# %% [markdown]
# ## Exercise 17.1: Where does each text end?
#
# A token belongs to the text if no stop token stands before it. The running count of stop tokens,
# less the place's own, is 0 exactly there. The log-probability of a text is the sum over its own
# tokens, (17.21): the stop token is one of them, since the model had to predict it.


# %% exercise="17.1" role="solution"
def finished(tokens, logprobs, stop):
    """tokens (B, n) int, logprobs (B, n), stop: an id -> lengths (B,) int, log-probabilities (B,).

    The first stop token of a row belongs to its text; nothing after it does.
    """
    is_stop = tokens == stop
    own = np.cumsum(is_stop, axis=1) - is_stop == 0  # (B, n)
    return own.sum(1), np.where(own, logprobs, 0).sum(1)


# %% exercise="17.1" role="hidden"
r = np.random.default_rng(1)
tokens, logprobs = r.integers(0, 4, (50, 9)), -r.random((50, 9))
lengths, total = finished(tokens, logprobs, 2)
for row, values, length, sum_ in zip(tokens.tolist(), logprobs, lengths, total, strict=True):
    wanted = row.index(2) + 1 if 2 in row else 9
    assert length == wanted and abs(sum_ - values[:wanted].sum()) < 1e-12, "a random row is wrong"
wild = np.array([[-1.0, -np.inf]])  # what stands after the end may be anything
assert finished(np.array([[3, 1]]), wild, 3)[1].tolist() == [-1.0], "only the text's own tokens"


# %% exercise="17.1" role="wrong" why="leaves out the stop token"
def finished(tokens, logprobs, stop):
    own = np.cumsum(tokens == stop, axis=1) == 0
    return own.sum(1), np.where(own, logprobs, 0).sum(1)


# %% exercise="17.1" role="wrong" why="argmax is 0 where there is no stop token"
def finished(tokens, logprobs, stop):
    lengths = (tokens == stop).argmax(1) + 1
    own = np.arange(tokens.shape[1]) < lengths[:, None]
    return lengths, np.where(own, logprobs, 0).sum(1)


# %% exercise="17.1" role="wrong" why="0 * -inf is NaN: only hidden tests see it"
def finished(tokens, logprobs, stop):
    is_stop = tokens == stop
    own = np.cumsum(is_stop, axis=1) - is_stop == 0
    with np.errstate(invalid="ignore"):
        return own.sum(1), (own * logprobs).sum(1)


# %% [markdown]
# ## Exercise 17.2: Greedy decoding runs in circles
#
# What is written next depends on the window alone. So when a window comes again, all that followed
# it comes again. The first window that is met a second time closes the circle: it was seen before
# token $a$, is seen now before token $a+c$, and no earlier one repeats, or the search would have
# stopped there.


# %% exercise="17.2" role="solution"
def circle(next_token, prompt):
    """next_token: tuple of the last m ids -> id. prompt: m ids. -> (a, c), two ints."""
    window, seen = tuple(int(token) for token in prompt), {}
    while window not in seen:
        seen[window] = len(seen)
        window = (*window[1:], int(next_token(window)))
    return seen[window], len(seen) - seen[window]


# %% exercise="17.2" role="hidden"
for seed in range(20):
    table = np.random.default_rng(seed).integers(0, 6, (6, 6))
    a, c = circle(lambda w, table=table: table[w], [1, 4])
    text = [1, 4]
    for _ in range(150):
        text.append(int(table[text[-2], text[-1]]))
    windows = list(zip(text, text[1:], strict=False))  # windows[k] stands before token k
    first = next(k for k in range(40) if windows[k] in windows[k + 1 :])
    assert a == first, "the circle begins elsewhere"
    assert c == windows.index(windows[a], a + 1) - a, "the circle has another length"
assert circle(lambda w: (w[-1] + 1) % 3000, [0]) == (0, 3000), "a long circle"


# %% exercise="17.2" role="wrong" why="looks at the last token, not at the window"
def circle(next_token, prompt):
    window, seen = tuple(prompt), {}
    while window[-1] not in seen:
        seen[window[-1]] = len(seen)
        window = (*window[1:], next_token(window))
    return seen[window[-1]], len(seen) - seen[window[-1]]


# %% exercise="17.2" role="wrong" why="counts the first round as part of the way in"
def circle(next_token, prompt):
    window, seen = tuple(prompt), {}
    while window not in seen:
        seen[window] = len(seen)
        window = (*window[1:], next_token(window))
    return len(seen), len(seen) - seen[window]


# %% exercise="17.2" role="wrong" why="gives up after 100 tokens: only hidden tests see it"
def circle(next_token, prompt):
    window, seen = tuple(int(token) for token in prompt), {}
    while window not in seen and len(seen) < 100:
        seen[window] = len(seen)
        window = (*window[1:], int(next_token(window)))
    return seen.get(window, 0), len(seen) - seen.get(window, 0)


# %% [markdown]
# ## Exercise 17.3: Locally typical tokens
#
# With $\ln p=z-\ln Z$ the charge is $-\ln p_i$ and the entropy its mean under $p$, over the tokens
# that have a probability. Sorted by $\lvert-\ln p_i-H\rvert$, a token stays if what stands before
# it has less than $P$. $P=1$ must keep all, whatever rounding does to the sum.


# %% exercise="17.3" role="solution"
def typical(z, P):
    """Logits z (V,), 0 < P <= 1 -> logits (V,), -inf for what is left out."""
    if P == 1:
        return z.copy()
    logp = z - z.max()
    logp = logp - np.log(np.exp(logp).sum())
    p, there = np.exp(logp), np.isfinite(logp)
    H = -(p[there] * logp[there]).sum()
    order = np.argsort(np.where(there, np.abs(-logp - H), np.inf), kind="stable")
    before = np.cumsum(p[order]) - p[order]
    out = np.full_like(z, -np.inf)
    kept = order[before < P]
    out[kept] = z[kept]
    return out


# %% exercise="17.3" role="hidden"
r = np.random.default_rng(3)
for _ in range(40):
    z, P = 3 * r.normal(size=9) + 50, r.uniform(0.1, 0.95)
    p = np.exp(z - z.max())
    p /= p.sum()
    far = np.abs(-np.log(p) + (p * np.log(p)).sum())
    kept = np.isfinite(typical(z, P))
    assert p[kept].sum() >= P - 1e-12, "what is kept must have P together"
    assert kept.all() or far[kept].max() <= far[~kept].min(), "the nearest to the entropy stay"
    last = np.flatnonzero(kept)[far[kept].argmax()]
    assert p[kept].sum() - p[last] < P, "one token too many"
kept = np.isfinite(typical(np.zeros(8), 0.3))
assert kept.tolist() == [True] * 3 + [False] * 5, "ties: the smaller ids first"
before = np.array([1.0, 2.0, 0.5])
typical(before, 0.5)
assert before.tolist() == [1.0, 2.0, 0.5], "the logits were changed"


# %% exercise="17.3" role="wrong" why="sorts by probability: that is top-p"
def typical(z, P):
    p = np.exp(z - z.max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    out = np.full_like(z, -np.inf)
    out[order[before < P]] = z[order[before < P]]
    return out if P < 1 else z.copy()


# %% exercise="17.3" role="wrong" why="only charges above the entropy count as near"
def typical(z, P):
    logp = z - z.max() - np.log(np.exp(z - z.max()).sum())
    p, there = np.exp(logp), np.isfinite(logp)
    H = -(p[there] * logp[there]).sum()
    order = np.argsort(np.where(there, -logp - H, np.inf), kind="stable")
    before = np.cumsum(p[order]) - p[order]
    out = np.full_like(z, -np.inf)
    out[order[before < P]] = z[order[before < P]]
    return out if P < 1 else z.copy()


# %% exercise="17.3" role="wrong" why="drops the token that crosses P"
def typical(z, P):
    logp = z - z.max() - np.log(np.exp(z - z.max()).sum())
    p, there = np.exp(logp), np.isfinite(logp)
    H = -(p[there] * logp[there]).sum()
    order = np.argsort(np.where(there, np.abs(-logp - H), np.inf), kind="stable")
    out = np.full_like(z, -np.inf)
    kept = order[np.cumsum(p[order]) <= P]
    out[kept] = z[kept]
    return out if P < 1 else z.copy()


# %% exercise="17.3" role="wrong" why="ties go to the larger id: only hidden tests see it"
def typical(z, P):
    if P == 1:
        return z.copy()
    logp = z - z.max() - np.log(np.exp(z - z.max()).sum())
    p, there = np.exp(logp), np.isfinite(logp)
    H = -(p[there] * logp[there]).sum()
    order = np.lexsort((-np.arange(len(z)), np.where(there, np.abs(-logp - H).round(9), np.inf)))
    before = np.cumsum(p[order]) - p[order]
    out = np.full_like(z, -np.inf)
    out[order[before < P]] = z[order[before < P]]
    return out


# %% [markdown]
# ## Exercise 17.4: A KV cache for one layer, in chunks, with grouped queries
#
# The new keys and values go behind the old ones; the new queries see them by (17.27), each up to
# its own place. In a reshape of $HD$ to $(K,G,D)$ query head $hG+g$ is at $(h,g)$, which is the
# grouping asked for. Keys get an axis of length 1 where queries have $G$. What is returned is the
# $K$-head past: $G$ times smaller, (17.33).


# %% exercise="17.4" role="solution"
def read_chunk(x, wq, wk, wv, n_head, past=None):
    """Causal attention of new tokens to all so far.

    x (n, C) the chunk; wq (C, H D), wk and wv (C, K D), heads side by side; n_head: H.
    past: (keys, values), (K, T0, D) each, or None -> out (n, H D), the longer past.
    """
    n, D = len(x), wq.shape[1] // n_head
    k, v = ((x @ w).reshape(n, -1, D).swapaxes(0, 1) for w in (wk, wv))  # (K, n, D)
    if past is not None:
        k, v = (np.concatenate([old, new], 1) for old, new in zip(past, (k, v), strict=True))
    K, T, _ = k.shape
    q = (x @ wq).reshape(n, K, -1, D).transpose(1, 2, 0, 3)  # (K, G, n, D)
    scores = q @ k[:, None].swapaxes(-1, -2) / math.sqrt(D)  # (K, G, n, T)
    scores = np.where(np.tri(n, T, T - n, dtype=bool), scores, -np.inf)
    att = np.exp(scores - scores.max(-1, keepdims=True))
    out = att / att.sum(-1, keepdims=True) @ v[:, None]  # (K, G, n, D)
    return out.transpose(2, 0, 1, 3).reshape(n, -1), (k, v)


# %% exercise="17.4" role="hidden"
r = np.random.default_rng(14)
for H, K, D in ((6, 3, 4), (3, 3, 2), (4, 1, 2)):
    x, wq = r.normal(size=(6, 5)), r.normal(size=(5, H * D))
    wk, wv = r.normal(size=(2, 5, K * D))
    whole, past = read_chunk(x, wq, wk, wv, H)
    for t in range(6):
        for head in range(H):
            group = head // (H // K)
            q = (x @ wq)[t, head * D : (head + 1) * D]
            k, v = ((x @ w)[: t + 1, group * D : (group + 1) * D] for w in (wk, wv))
            e = np.exp((k @ q - (k @ q).max()) / D**0.5)
            got = whole[t, head * D : (head + 1) * D]
            assert np.abs(got - e @ v / e.sum()).max() < 1e-12, f"head {head} of {H} on {K}"
    first, past = read_chunk(x[:4], wq, wk, wv, H)
    kept = [a.copy() for a in past]
    one, _ = read_chunk(x[4:], wq, wk, wv, H, past)
    other, _ = read_chunk(x[4:] + 1, wq, wk, wv, H, past)  # two futures of one past
    assert np.abs(one - whole[4:]).max() < 1e-12, "the second chunk differs from the whole"
    assert all((a == b).all() for a, b in zip(past, kept, strict=True)), "the past was changed"
large, _ = read_chunk(40 * x, 40 * wq, wk, wv, H)
assert np.isfinite(large).all(), "scores in the thousands must not overflow"


# %% exercise="17.4" role="wrong" why="the mask forgets the tokens before the chunk"
def read_chunk(x, wq, wk, wv, n_head, past=None):
    n, D = len(x), wq.shape[1] // n_head
    k, v = ((x @ w).reshape(n, -1, D).swapaxes(0, 1) for w in (wk, wv))
    if past is not None:
        k, v = (np.concatenate([old, new], 1) for old, new in zip(past, (k, v), strict=True))
    K, T, _ = k.shape
    q = (x @ wq).reshape(n, K, -1, D).transpose(1, 2, 0, 3)
    scores = np.where(np.tri(n, T, dtype=bool), q @ k[:, None].swapaxes(-1, -2) / D**0.5, -np.inf)
    att = np.exp(scores - scores.max(-1, keepdims=True))
    out = att / att.sum(-1, keepdims=True) @ v[:, None]
    return out.transpose(2, 0, 1, 3).reshape(n, -1), (k, v)


# %% exercise="17.4" role="wrong" why="query head h looks at key head h modulo K"
def read_chunk(x, wq, wk, wv, n_head, past=None):
    n, D = len(x), wq.shape[1] // n_head
    k, v = ((x @ w).reshape(n, -1, D).swapaxes(0, 1) for w in (wk, wv))
    if past is not None:
        k, v = (np.concatenate([old, new], 1) for old, new in zip(past, (k, v), strict=True))
    K, T, _ = k.shape
    q = (x @ wq).reshape(n, -1, K, D).transpose(2, 1, 0, 3)
    scores = q @ k[:, None].swapaxes(-1, -2) / D**0.5
    scores = np.where(np.tri(n, T, T - n, dtype=bool), scores, -np.inf)
    att = np.exp(scores - scores.max(-1, keepdims=True))
    out = att / att.sum(-1, keepdims=True) @ v[:, None]
    return out.transpose(2, 1, 0, 3).reshape(n, -1), (k, v)


# %% exercise="17.4" role="wrong" why="no mask: a prompt sees its own future"
def read_chunk(x, wq, wk, wv, n_head, past=None):
    n, D = len(x), wq.shape[1] // n_head
    k, v = ((x @ w).reshape(n, -1, D).swapaxes(0, 1) for w in (wk, wv))
    if past is not None:
        k, v = (np.concatenate([old, new], 1) for old, new in zip(past, (k, v), strict=True))
    q = (x @ wq).reshape(n, len(k), -1, D).transpose(1, 2, 0, 3)
    scores = q @ k[:, None].swapaxes(-1, -2) / D**0.5
    att = np.exp(scores - scores.max(-1, keepdims=True))
    out = att / att.sum(-1, keepdims=True) @ v[:, None]
    return out.transpose(2, 0, 1, 3).reshape(n, -1), (k, v)


# %% exercise="17.4" role="wrong" why="overflows for large scores: only hidden tests see it"
def read_chunk(x, wq, wk, wv, n_head, past=None):
    n, D = len(x), wq.shape[1] // n_head
    k, v = ((x @ w).reshape(n, -1, D).swapaxes(0, 1) for w in (wk, wv))
    if past is not None:
        k, v = (np.concatenate([old, new], 1) for old, new in zip(past, (k, v), strict=True))
    K, T, _ = k.shape
    q = (x @ wq).reshape(n, K, -1, D).transpose(1, 2, 0, 3)
    with np.errstate(all="ignore"):
        e = np.exp(q @ k[:, None].swapaxes(-1, -2) / D**0.5) * np.tri(n, T, T - n)
        out = e / e.sum(-1, keepdims=True) @ v[:, None]
    return out.transpose(2, 0, 1, 3).reshape(n, -1), (k, v)


# %% [markdown]
# ## Exercise 17.5: The likeliest text, exactly
#
# What follows depends on the last token alone. So of two beginnings that end in the same token, the
# worse one can be exchanged for the better in any text, and the text gets likelier. One beginning
# for each last token is enough: $V$ beams, $nV^2$ additions instead of $V^n$ texts. A GPT looks at
# all tokens, so nothing can be exchanged, and this is not available.


# %% exercise="17.5" role="solution"
def likeliest(logp, start, n):
    """logp (V, V), start: the token before the text, n >= 1 -> tokens (n,) int, log-probability."""
    best, came_from = logp[start], []
    for _ in range(n - 1):
        through = best[:, None] + logp  # (V, V): ends in j, and i before it
        came_from.append(through.argmax(0))
        best = through.max(0)
    tokens = [int(best.argmax())]
    for back in reversed(came_from):
        tokens.append(int(back[tokens[-1]]))
    return np.array(tokens[::-1]), float(best.max())


# %% exercise="17.5" role="hidden"
r = np.random.default_rng(15)
for V, n in ((2, 9), (5, 4), (3, 1)):
    logp = np.log(r.dirichlet(np.full(V, 0.5), V) + 1e-12)
    tokens, total = likeliest(logp, 1, n)
    path = [1, *tokens]
    mine = sum(logp[i, j] for i, j in zip(path, path[1:], strict=False))
    assert len(tokens) == n and abs(mine - total) < 1e-9, "tokens and log-probability disagree"
    every = np.array(np.meshgrid(*[range(V)] * n, indexing="ij")).reshape(n, -1)
    sums = sum(logp[i, j] for i, j in zip([np.ones(V**n, int), *every[:-1]], every, strict=True))
    assert abs(total - sums.max()) < 1e-9, f"V = {V}, n = {n}: there is a likelier text"
chain = np.full((4, 4), -50.0)
for i, j in ((0, 1), (1, 2), (2, 3), (3, 1)):
    chain[i, j] = -0.01
assert likeliest(chain, 0, 200)[0].tolist()[:7] == [1, 2, 3, 1, 2, 3, 1], "200 tokens: a circle"


# %% exercise="17.5" role="wrong" why="greedy"
def likeliest(logp, start, n):
    tokens, total = [], 0.0
    for _ in range(n):
        token = int(logp[start].argmax())
        total += logp[start, token]
        tokens.append(token)
        start = token
    return np.array(tokens), total


# %% exercise="17.5" role="wrong" why="the right number with the tokens that were best on the way"
def likeliest(logp, start, n):
    best, tokens = logp[start], [int(logp[start].argmax())]
    for _ in range(n - 1):
        best = (best[:, None] + logp).max(0)
        tokens.append(int(best.argmax()))
    return np.array(tokens), float(best.max())


# %% exercise="17.5" role="wrong" why="logp read the wrong way round"
def likeliest(logp, start, n):
    best, came_from = logp[:, start], []
    for _ in range(n - 1):
        through = best[:, None] + logp.T
        came_from.append(through.argmax(0))
        best = through.max(0)
    tokens = [int(best.argmax())]
    for back in reversed(came_from):
        tokens.append(int(back[tokens[-1]]))
    return np.array(tokens[::-1]), float(best.max())


# %% exercise="17.5" role="wrong" why="tries all texts, up to six tokens: only hidden tests see it"
def likeliest(logp, start, n):
    V, length = len(logp), min(n, 6)
    every = np.array(np.meshgrid(*[range(V)] * length, indexing="ij")).reshape(length, -1)
    before = [np.full(every.shape[1], start), *every[:-1]]
    sums = sum(logp[i, j] for i, j in zip(before, every, strict=True))
    tokens = every[:, sums.argmax()]
    return np.concatenate([tokens, np.full(n - length, tokens[-1])]), float(sums.max())


# %% [markdown]
# ## Exercise 17.6: A draft, and a check that keeps the distribution
#
# Token $i$ comes out as an accepted draft with probability $\min(p_i,q_i)$. A draft is rejected
# with probability $1-\sum_j\min(p_j,q_j)=\sum_j\max(0,p_j-q_j)=R$. Draw then from
# $\max(0,p_i-q_i)/R$: together $\min(p_i,q_i)+\max(0,p_i-q_i)=p_i$. No procedure keeps more drafts:
# drafts that are $i$ and stay are at most $q_i$ of all, and at most $p_i$.


# %% exercise="17.6" role="solution"
def verified(p, q, drafts, rng):
    """Tokens that are distributed as p, and are the drafts as often as can be.

    p, q (V,) sum to 1; drafts (n,) int, drawn from q; rng: a generator -> (n,) int.
    """
    rejected = rng.random(len(drafts)) * q[drafts] >= p[drafts]  # no quotient, so no 0 / 0
    missing = np.maximum(p - q, 0)
    tokens = drafts.copy()
    if rejected.any() and missing.sum() > 0:
        tokens[rejected] = rng.choice(len(p), rejected.sum(), p=missing / missing.sum())
    return tokens


# %% exercise="17.6" role="hidden"
r = np.random.default_rng(16)
for _ in range(4):
    p, q = r.dirichlet(np.full(5, 0.6), 2)
    drafts = r.choice(5, 20_000, p=q)
    tokens = verified(p, q, drafts, r)
    found = np.bincount(tokens, minlength=5) / 20_000
    assert np.abs(found - p).max() < 0.02, "it does not follow p"
    assert abs((tokens == drafts).mean() - np.minimum(p, q).sum()) < 0.02, "not as often as can be"
same = r.dirichlet(np.full(5, 0.6))
drafts = r.choice(5, 1000, p=same)
assert (verified(same, same, drafts, r) == drafts).all(), "p = q: every draft stays"
p, q = np.array([0.0, 1.0]), np.array([1.0, 0.0])
assert (verified(p, q, np.zeros(50, int), r) == 1).all(), "nothing in common: no draft stays"
twice = [verified(p * 0.5 + 0.25, q * 0.5 + 0.25, np.zeros(50, int), np.random.default_rng(1))
         for _ in "ab"]
assert (twice[0] == twice[1]).all(), "all randomness must come from rng"


# %% exercise="17.6" role="wrong" why="draws again from p"
def verified(p, q, drafts, rng):
    keep = rng.random(len(drafts)) < np.minimum(1, p[drafts] / q[drafts])
    return np.where(keep, drafts, rng.choice(len(p), len(drafts), p=p))


# %% exercise="17.6" role="wrong" why="ignores the drafts: right distribution, nothing saved"
def verified(p, q, drafts, rng):
    return rng.choice(len(p), len(drafts), p=p)


# %% exercise="17.6" role="wrong" why="accepts with probability p instead of p / q"
def verified(p, q, drafts, rng):
    missing = np.maximum(p - q, 1e-12)
    other = rng.choice(len(p), len(drafts), p=missing / missing.sum())
    return np.where(rng.random(len(drafts)) < p[drafts], drafts, other)


# %% exercise="17.6" role="wrong" why="a generator of its own: only hidden tests see it"
def verified(p, q, drafts, rng):
    own = np.random.default_rng()
    keep = own.random(len(drafts)) * q[drafts] < p[drafts]
    missing = np.maximum(p - q, 0) + 1e-15
    return np.where(keep, drafts, own.choice(len(p), len(drafts), p=missing / missing.sum()))
