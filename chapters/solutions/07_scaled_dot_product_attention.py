# %% [markdown]
# # Solutions to chapter 07 · Scaled dot-product attention

# %% [markdown]
# ## Exercise 07.1: One query, by loops
#
# The three steps are (07.5), (07.6) and (07.7) for one $i$. By (07.9) any constant may be
# subtracted from all scores. With the largest score every exponent is at most 0, so nothing
# overflows, and one of the exponents is exactly 0, so the sum is at least 1 and can be divided by.


# %% exercise="07.1" role="solution"
def attend_one(query, keys, values):
    """One look-up. query (D,), keys (T, D), values (T, Dv), all lists -> list of Dv floats."""
    root = math.sqrt(len(query))
    scores = []
    for key in keys:
        scores.append(sum(a * b for a, b in zip(query, key, strict=True)) / root)
    top = max(scores)
    e = [math.exp(score - top) for score in scores]
    weights = [x / sum(e) for x in e]
    out = [0.0] * len(values[0])
    for weight, value in zip(weights, values, strict=True):
        for c, number in enumerate(value):
            out[c] += weight * number
    return out


# %% exercise="07.1" role="hidden"
try:
    hidden_out = attend_one([2000.0], [[1.0], [0.9]], [[1.0], [3.0]])
except OverflowError:
    raise AssertionError("scores of 2,000 overflow: subtract something first") from None
assert abs(hidden_out[0] - 1) < 1e-9, "scores of 2,000"
hidden_rng = np.random.default_rng(71)
for size in (1.0, 300.0):
    hidden_q, hidden_k, hidden_v = (hidden_rng.standard_normal(s) for s in ((9,), (6, 9), (6, 3)))
    hidden_out = attend_one((size * hidden_q).tolist(), hidden_k.tolist(), hidden_v.tolist())
    hidden_arguments = map(Tensor, (size * hidden_q[None], hidden_k, hidden_v))
    hidden_want = attention(*hidden_arguments).numpy()[0]
    assert np.shape(hidden_out) == (3,), "three components in, three out"
    assert rel_error(np.array(hidden_out), hidden_want) < 1e-9, "disagrees for D = 9"
assert attend_one([1.0, 2.0], [[0.5, 0.5]], [[7.0]]) == [7.0], "one pair: its value"


# %% exercise="07.1" role="wrong" why="overflows: exponentials of the bare scores"
def attend_one(query, keys, values):
    root = math.sqrt(len(query))
    scores = [sum(a * b for a, b in zip(query, key, strict=True)) / root for key in keys]
    e = [math.exp(score) for score in scores]
    weights = [x / sum(e) for x in e]
    return [sum(w * v[c] for w, v in zip(weights, values, strict=True))
            for c in range(len(values[0]))]


# %% exercise="07.1" role="wrong" why="no scale"
def attend_one(query, keys, values):
    scores = [sum(a * b for a, b in zip(query, key, strict=True)) for key in keys]
    e = [math.exp(score - max(scores)) for score in scores]
    weights = [x / sum(e) for x in e]
    return [sum(w * v[c] for w, v in zip(weights, values, strict=True))
            for c in range(len(values[0]))]


# %% exercise="07.1" role="wrong" why="divides by D instead of its root"
def attend_one(query, keys, values):
    scores = [sum(a * b for a, b in zip(query, key, strict=True)) / len(query) for key in keys]
    e = [math.exp(score - max(scores)) for score in scores]
    weights = [x / sum(e) for x in e]
    return [sum(w * v[c] for w, v in zip(weights, values, strict=True))
            for c in range(len(values[0]))]


# %% [markdown]
# ## Exercise 07.2: A scale for other inputs
#
# Mean 0 was used twice: the mean of $q_d k_d$ is now $m_q m_k$, and the mean square of $q_d$ is
# $\sigma_q^2 + m_q^2$, not $\sigma_q^2$. By independence
#
# $$
# \mathrm{Var}(q_d k_d) = \mathbb{E}[q_d^2]\,\mathbb{E}[k_d^2] - m_q^2 m_k^2
# = (\sigma_q^2 + m_q^2)(\sigma_k^2 + m_k^2) - m_q^2 m_k^2.
# $$
#
# The $D$ products are still independent of one another, so their variances add, and a factor $c$
# multiplies a variance by $c^2$. (A non-zero mean of the score itself, $D m_q m_k$, is the same for
# every key and does nothing, by (07.9).)


# %% exercise="07.2" role="solution"
def score_scale(D, mean_q, var_q, mean_k, var_k):
    """The factor that gives a score of D products the variance 1. Five numbers -> a float."""
    square_q, square_k = var_q + mean_q**2, var_k + mean_k**2
    return 1 / math.sqrt(D * (square_q * square_k - mean_q**2 * mean_k**2))


# %% exercise="07.2" role="hidden"
assert abs(score_scale(100, 0, 4, 0, 25) - 0.01) < 1e-12, "s.d. 2 and 5, D = 100: 1 / 100"
assert abs(score_scale(4, 3, 1, 0, 1) - 1 / math.sqrt(40)) < 1e-12, "only the queries have a mean"
assert abs(score_scale(1, 1, 1, 1, 1) - 1 / math.sqrt(3)) < 1e-12, "both have a mean"
assert abs(score_scale(1, 5, 2, 1, 0) - 1 / math.sqrt(2)) < 1e-12, "a constant key of ones"


# %% exercise="07.2" role="wrong" why="ignores the means"
def score_scale(D, mean_q, var_q, mean_k, var_k):
    return 1 / math.sqrt(D * var_q * var_k)


# %% exercise="07.2" role="wrong" why="takes the mean square for the variance"
def score_scale(D, mean_q, var_q, mean_k, var_k):
    return 1 / math.sqrt(D * (var_q + mean_q**2) * (var_k + mean_k**2))


# %% exercise="07.2" role="wrong" why="a factor c multiplies the variance by c squared, not by c"
def score_scale(D, mean_q, var_q, mean_k, var_k):
    square_q, square_k = var_q + mean_q**2, var_k + mean_k**2
    return 1 / (math.sqrt(D) * (square_q * square_k - mean_q**2 * mean_k**2))


# %% [markdown]
# ## Exercise 07.3: Mend a matrix that was normalised over the queries
#
# $A_{ij} Z_i = e^{k_i \cdot q_j}$: row $i$ of `A` times its own divisor is the row of exponentials.
# The right weight of query $j$ on key $i$ divides by the sum over the **keys** instead:
#
# $$
# \mathrm{att}_{ji} = \frac{e^{k_i \cdot q_j}}{\sum_l e^{k_l \cdot q_j}}
# = \frac{A_{ij} Z_i}{\sum_l A_{lj} Z_l}.
# $$
#
# A common factor of all $Z_i$ cancels. Without the $Z_i$ it cannot be done: normalising the columns
# of $A$ alone gives other weights, since each key was divided by its own number.


# %% exercise="07.3" role="solution"
def mend(A, Z):
    """Weights normalised over queries -> over keys. A (Tk, Tq), Z (Tk,) -> (Tq, Tk)."""
    e = A * (Z / Z.max())[:, None]  # (Tk, Tq), exponentials up to one common factor
    return (e / e.sum(0)).T  # (Tq, Tk)


# %% exercise="07.3" role="hidden"
hidden_rng = np.random.default_rng(73)
for hidden_tq, hidden_tk in ((4, 4), (6, 3), (1, 5)):
    hidden_q = hidden_rng.standard_normal((hidden_tq, 2))
    hidden_k = hidden_rng.standard_normal((hidden_tk, 2))
    hidden_e = np.exp(hidden_k @ hidden_q.T)  # (Tk, Tq)
    hidden_z = hidden_e.sum(1)
    hidden_got = mend(hidden_e / hidden_z[:, None], hidden_z)
    # the scale of the package is undone by scaling the queries
    hidden_arguments = map(Tensor, (hidden_q * math.sqrt(2), hidden_k, np.eye(hidden_tk)))
    hidden_want = attention(*hidden_arguments)
    assert rel_error(hidden_got, hidden_want) < 1e-9, f"{hidden_tq} queries, {hidden_tk} keys"


# %% exercise="07.3" role="wrong" why="only transposes"
def mend(A, Z):
    return A.T


# %% exercise="07.3" role="wrong" why="normalises over the keys without undoing Z"
def mend(A, Z):
    return (A / A.sum(0)).T


# %% exercise="07.3" role="wrong" why="undoes Z with a division"
def mend(A, Z):
    e = A / Z[:, None]
    return (e / e.sum(0)).T


# %% [markdown]
# ## Exercise 07.4: Tokens as columns
#
# With $Q_{di}, K_{dj}, V_{cj}, G_{ci}$ and weights $\mathrm{att}_{ij}$ of shape $(T_q, T_k)$:
#
# $$
# \mathrm{out}_{ci} = \sum_j V_{cj}\, \mathrm{att}_{ij}, \qquad
# dV_{cj} = \sum_i G_{ci}\, \mathrm{att}_{ij}, \qquad
# d\mathrm{att}_{ij} = \sum_c G_{ci} V_{cj}, \qquad
# dQ_{di} = \frac{1}{\sqrt D} \sum_j K_{dj}\, dS_{ij}.
# $$
#
# In each product the summed index must stand inside: $V \mathrm{att}^\top$, $G\, \mathrm{att}$,
# $G^\top V$, $K\, dS^\top / \sqrt D$. $D$ is now the **first** length of `Q`.


# %% exercise="07.4" role="solution"
def attention_columns(Q, K, V, G):
    """Q (D, Tq), K (D, Tk), V (Dv, Tk), G (Dv, Tq) -> out (Dv, Tq), dQ (D, Tq), dV (Dv, Tk)."""
    root = math.sqrt(len(Q))
    scores = Q.T @ K / root  # (Tq, Tk)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    att = e / e.sum(-1, keepdims=True)  # (Tq, Tk)
    out = V @ att.T  # (Dv, Tq)
    datt = G.T @ V  # (Tq, Tk)
    dS = att * (datt - (datt * att).sum(-1, keepdims=True))
    return out, K @ dS.T / root, G @ att


# %% exercise="07.4" role="hidden"
hidden_rng = np.random.default_rng(74)
for hidden_sizes in ((4, 4, 4, 4), (6, 3, 5, 2)):  # D, Tq, Tk, Dv
    hidden_d, hidden_tq, hidden_tk, hidden_dv = hidden_sizes
    hidden_Q = hidden_rng.standard_normal((hidden_d, hidden_tq))
    hidden_K = hidden_rng.standard_normal((hidden_d, hidden_tk))
    hidden_V = hidden_rng.standard_normal((hidden_dv, hidden_tk))
    hidden_G = hidden_rng.standard_normal((hidden_dv, hidden_tq))
    hidden_got = attention_columns(hidden_Q, hidden_K, hidden_V, hidden_G)
    hidden_rows = [Tensor(a.T, requires_grad=True) for a in (hidden_Q, hidden_K, hidden_V)]
    hidden_out = attention(*hidden_rows)
    hidden_value = hidden_out.data.T
    hidden_out.backward(hidden_G.T)
    assert rel_error(hidden_got[0], hidden_value) < 1e-9, f"out, sizes {hidden_sizes}"
    assert rel_error(hidden_got[1], hidden_rows[0].grad.T) < 1e-9, f"dQ, sizes {hidden_sizes}"
    assert rel_error(hidden_got[2], hidden_rows[2].grad.T) < 1e-9, f"dV, sizes {hidden_sizes}"


# %% exercise="07.4" role="wrong" why="V att without the transpose: fits two tokens, silently wrong"
def attention_columns(Q, K, V, G):
    root = math.sqrt(len(Q))
    e = np.exp(Q.T @ K / root)
    att = e / e.sum(-1, keepdims=True)
    datt = G.T @ V
    dS = att * (datt - (datt * att).sum(-1, keepdims=True))
    return V @ att, K @ dS.T / root, G @ att.T


# %% exercise="07.4" role="wrong" why="takes the last length of Q for D"
def attention_columns(Q, K, V, G):
    root = math.sqrt(Q.shape[-1])
    e = np.exp(Q.T @ K / root)
    att = e / e.sum(-1, keepdims=True)
    datt = G.T @ V
    dS = att * (datt - (datt * att).sum(-1, keepdims=True))
    return V @ att.T, K @ dS.T / root, G @ att


# %% exercise="07.4" role="wrong" why="the row sum is taken over the queries"
def attention_columns(Q, K, V, G):
    root = math.sqrt(len(Q))
    e = np.exp(Q.T @ K / root)
    att = e / e.sum(-1, keepdims=True)
    datt = G.T @ V
    dS = att * (datt - (datt * att).sum(0))
    return V @ att.T, K @ dS.T / root, G @ att


# %% [markdown]
# ## Exercise 07.5: Additive scores
#
# With $t_{ijd} = \tanh(q_{id} + k_{jd})$ and cotangent $dS_{ij}$: $w_d$ multiplies $t_{ijd}$ in
# every score, so $dw_d = \sum_{ij} dS_{ij}\, t_{ijd}$. Let $u_{ijd}$ be the gradient of the sum
# inside:
#
# $$
# u_{ijd} = dS_{ij}\, w_d\, (1 - t_{ijd}^2), \qquad
# dq_{id} = \sum_j u_{ijd}, \qquad dk_{jd} = \sum_i u_{ijd}.
# $$
#
# $q_{id}$ was repeated for all keys, so its gradient is summed over $j$; $k_{jd}$ for all queries.
# Note the cost: $T_q T_k D$ numbers of memory, where the dot product needs $T_q T_k$.


# %% exercise="07.5" role="solution"
def additive_scores(q, k, w):
    """S[i, j] = sum_d w[d] tanh(q[i, d] + k[j, d]). q (Tq, D), k (Tk, D), w (D,) -> S, vjp."""
    t = np.tanh(q[:, None, :] + k[None, :, :])  # (Tq, Tk, D)

    def vjp(ds):
        u = ds[:, :, None] * w * (1 - t * t)  # (Tq, Tk, D)
        return u.sum(1), u.sum(0), np.einsum("ij,ijd->d", ds, t)

    return t @ w, vjp


# %% exercise="07.5" role="hidden"
hidden_rng = np.random.default_rng(75)
for hidden_tq, hidden_tk, hidden_d in ((3, 3, 3), (1, 4, 2), (5, 1, 6)):
    hidden_q = hidden_rng.standard_normal((hidden_tq, hidden_d))
    hidden_k = hidden_rng.standard_normal((hidden_tk, hidden_d))
    hidden_w = hidden_rng.standard_normal(hidden_d)
    hidden_leaves = [Tensor(a, requires_grad=True) for a in (hidden_q, hidden_k, hidden_w)]
    hidden_sum = hidden_leaves[0].reshape(hidden_tq, 1, hidden_d) + hidden_leaves[1]
    hidden_out = ops.matmul(ops.tanh(hidden_sum), hidden_leaves[2])
    hidden_S, hidden_vjp = additive_scores(hidden_q, hidden_k, hidden_w)
    assert rel_error(hidden_S, hidden_out.data) < 1e-9, "wrong scores"
    hidden_g = hidden_rng.standard_normal((hidden_tq, hidden_tk))
    hidden_out.backward(hidden_g)
    for hidden_got, hidden_leaf in zip(hidden_vjp(hidden_g), hidden_leaves, strict=True):
        assert rel_error(hidden_got, hidden_leaf.grad) < 1e-9, "a gradient disagrees with the tape"


# %% exercise="07.5" role="wrong" why="the derivative of tanh is 1 - t^2, not 1 - t"
def additive_scores(q, k, w):
    t = np.tanh(q[:, None, :] + k[None, :, :])

    def vjp(ds):
        u = ds[:, :, None] * w * (1 - t)
        return u.sum(1), u.sum(0), np.einsum("ij,ijd->d", ds, t)

    return t @ w, vjp


# %% exercise="07.5" role="wrong" why="sums dq over the queries and dk over the keys"
def additive_scores(q, k, w):
    t = np.tanh(q[:, None, :] + k[None, :, :])

    def vjp(ds):
        u = ds[:, :, None] * w * (1 - t * t)
        return u.sum(0), u.sum(1), np.einsum("ij,ijd->d", ds, t)

    return t @ w, vjp


# %% exercise="07.5" role="wrong" why="a mean over the scores in dw"
def additive_scores(q, k, w):
    t = np.tanh(q[:, None, :] + k[None, :, :])

    def vjp(ds):
        u = ds[:, :, None] * w * (1 - t * t)
        return u.sum(1), u.sum(0), np.einsum("ij,ijd->d", ds, t) / ds.size

    return t @ w, vjp


# %% [markdown]
# ## Exercise 07.6: A table too long for memory
#
# For a block with largest score $m$ and sum $z = \sum_j e^{S_j - m}$ (one query; the others
# likewise), the two sums that matter are
#
# $$
# \sum_j e^{S_j} = e^{m} z, \qquad \sum_j e^{S_j} v_j = e^{m} z\, \mathrm{out}.
# $$
#
# Both add up over blocks. Relative to the joined largest score $m = \max(m_a, m_b)$, block $a$
# contributes with the factor $f_a = e^{m_a - m} \le 1$, and
#
# $$
# z = f_a z_a + f_b z_b, \qquad
# \mathrm{out} = \frac{f_a z_a\, \mathrm{out}_a + f_b z_b\, \mathrm{out}_b}{z}.
# $$
#
# The larger block has $f = 1$ and $z \ge 1$, so nothing overflows and the division is safe. The
# result is exact, not an approximation: the softmax is a quotient of two sums, and sums can be
# taken in pieces. Merging is associative, so the blocks may also be merged in a tree.


# %% exercise="07.6" role="solution"
def merge(a, b):
    """Two blocks' (out (Tq, Dv), top (Tq, 1), total (Tq, 1)) -> the triple of both together."""
    out_a, top_a, total_a = a
    out_b, top_b, total_b = b
    top = np.maximum(top_a, top_b)
    share_a, share_b = np.exp(top_a - top) * total_a, np.exp(top_b - top) * total_b  # (Tq, 1)
    total = share_a + share_b
    return (share_a * out_a + share_b * out_b) / total, top, total


# %% exercise="07.6" role="hidden"
hidden_rng = np.random.default_rng(76)
hidden_v = hidden_rng.standard_normal((10, 3))
for hidden_size in (1.0, 3000.0):  # e^3000 overflows
    hidden_S = hidden_size * hidden_rng.standard_normal((4, 10))

    def hidden_block(part, S=hidden_S):
        top = S[:, part].max(-1, keepdims=True)
        e = np.exp(S[:, part] - top)
        total = e.sum(-1, keepdims=True)
        return e / total @ hidden_v[part], top, total

    hidden_parts = [slice(0, 1), slice(1, 6), slice(6, 10)]
    hidden_ab, hidden_c = merge(*map(hidden_block, hidden_parts[:2])), hidden_block(hidden_parts[2])
    hidden_want = hidden_block(slice(0, 10))
    for hidden_got in (merge(hidden_ab, hidden_c), merge(hidden_c, hidden_ab)):
        for hidden_x, hidden_y in zip(hidden_got, hidden_want, strict=True):
            assert rel_error(hidden_x, hidden_y) < 1e-9, f"three blocks, scores of {hidden_size}"


# %% exercise="07.6" role="wrong" why="overflows: exponentials of the bare largest scores"
def merge(a, b):
    out_a, top_a, total_a = a
    out_b, top_b, total_b = b
    top = np.maximum(top_a, top_b)
    share_a, share_b = np.exp(top_a) * total_a, np.exp(top_b) * total_b
    out = (share_a * out_a + share_b * out_b) / (share_a + share_b)
    return out, top, (share_a + share_b) / np.exp(top)


# %% exercise="07.6" role="wrong" why="adds the totals without bringing them to one top"
def merge(a, b):
    out_a, top_a, total_a = a
    out_b, top_b, total_b = b
    total = total_a + total_b
    return (total_a * out_a + total_b * out_b) / total, np.maximum(top_a, top_b), total


# %% exercise="07.6" role="wrong" why="forgets that out was already divided by its total"
def merge(a, b):
    out_a, top_a, total_a = a
    out_b, top_b, total_b = b
    top = np.maximum(top_a, top_b)
    f_a, f_b = np.exp(top_a - top), np.exp(top_b - top)
    total = f_a * total_a + f_b * total_b
    return (f_a * out_a + f_b * out_b) / total, top, total
