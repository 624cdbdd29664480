# %% [markdown]
# # Solutions to chapter 04 · Tokenisation

# %% [markdown]
# ## Exercise 04.1: Three merges by hand
#
# In `abracadabra` three pairs occur twice: `ab`, `br` and `ra`. The left id of `ab` is the
# smallest: `ab r a c a d ab r a`, 9 tokens. Now (`ab`, `r`) and (`r`, `a`) occur twice. A letter
# has a smaller id than a merged token, so `r` goes first: `ab ra c a d ab ra`, 7 tokens. Last
# (`ab`, `ra`): 5 tokens. By (04.7) each merge saves its count, two.


# %% exercise="04.1" role="solution"
def three_merges():
    """The tokens of "abracadabra" after three merges, and the lengths. -> strings, four numbers."""
    return ["abra", "c", "a", "d", "abra"], [11, 9, 7, 5]


# %% exercise="04.1" role="hidden"
tokens, lengths = three_merges()
assert tokens == ["abra", "c", "a", "d", "abra"], "these are not the tokens that three merges leave"
assert list(lengths) == [11, 9, 7, 5], "each merge saves two tokens"


# %% exercise="04.1" role="wrong" why="stops after two merges"
def three_merges():
    return ["ab", "ra", "c", "a", "d", "ab", "ra"], [11, 9, 7, 7]


# %% exercise="04.1" role="wrong" why="the right number of tokens, but other ones"
def three_merges():
    return ["ab", "ra", "ca", "dab", "ra"], [11, 9, 7, 5]


# %% exercise="04.1" role="wrong" why="counts a merge of two pairs as one token saved"
def three_merges():
    return ["abra", "c", "a", "d", "abra"], [11, 10, 9, 8]


# %% [markdown]
# ## Exercise 04.2: A character's bytes
#
# Take six bits at a time from the low end, put the mark `10` before each, and put what is left
# into the first byte, behind its mark. How many times six: (04.3) says. The first byte of
# $\ell\ge2$ bytes has room for $7-\ell$ bits, and what is left fits, by (04.2).


# %% exercise="04.2" role="solution"
def utf8(code):
    """The UTF-8 bytes of a code point. int -> 1 to 4 bytes. ValueError if it is no character."""
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError(f"{code:#x} is not the code point of a character")
    later = sum(code >= 2**bits for bits in (7, 11, 16))  # bytes after the first
    tail = [0x80 | (code >> 6 * i) & 0x3F for i in reversed(range(later))]
    return bytes([(0x00, 0xC0, 0xE0, 0xF0)[later] | code >> 6 * later, *tail])


# %% exercise="04.2" role="hidden"
for edge in (0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF):
    assert utf8(edge) == chr(edge).encode(), f"wrong at {edge:#x}, an end of a range"
for code in range(0, 0x110000, 4099):
    if not 0xD800 <= code <= 0xDFFF:
        assert utf8(code) == chr(code).encode(), f"wrong for {code:#x}"
for nothing in (-1, 0xD800, 0xDFFF, 0x110000):
    try:
        utf8(nothing)
    except ValueError:
        continue
    raise AssertionError(f"{nothing:#x} is no character: a ValueError is wanted")


# %% exercise="04.2" role="wrong" why="takes a surrogate for a character"
def utf8(code):
    if not 0 <= code <= 0x10FFFF:
        raise ValueError("no character")
    later = sum(code >= 2**bits for bits in (7, 11, 16))
    tail = [0x80 | (code >> 6 * i) & 0x3F for i in reversed(range(later))]
    return bytes([(0x00, 0xC0, 0xE0, 0xF0)[later] | code >> 6 * later, *tail])


# %% exercise="04.2" role="wrong" why="the last character of each range gets a byte too many"
def utf8(code):
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError("no character")
    later = sum(code >= 2**bits - 1 for bits in (7, 11, 16))
    tail = [0x80 | (code >> 6 * i) & 0x3F for i in reversed(range(later))]
    return bytes([(0x00, 0xC0, 0xE0, 0xF0)[later] | code >> 6 * later, *tail])


# %% exercise="04.2" role="wrong" why="writes the low bits first"
def utf8(code):
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError("no character")
    later = sum(code >= 2**bits for bits in (7, 11, 16))
    tail = [0x80 | (code >> 6 * i) & 0x3F for i in range(later)]
    return bytes([(0x00, 0xC0, 0xE0, 0xF0)[later] | code >> 6 * later, *tail])


# %% [markdown]
# ## Exercise 04.3: Keep back what is not finished
#
# Everything before the last character is finished, since the text is valid. Find where the last
# character starts: the last byte that does not begin with `10`. Its first bits say its length. If
# fewer bytes are there, the character waits; else all is finished.


# %% exercise="04.3" role="solution"
def finished(data):
    """The finished characters of cut-off UTF-8, and the rest. bytes -> str, bytes."""
    start = len(data) - 1
    while start > 0 and data[start] >> 6 == 0b10:
        start -= 1
    if start < 0:
        return "", b""
    length = 1 + sum(data[start] >= mark for mark in (0xC0, 0xE0, 0xF0))
    end = start if start + length > len(data) else len(data)
    return data[:end].decode(), data[end:]


# %% exercise="04.3" role="hidden"
whole = "a😀é你\u0000ß龍!😀".encode()
for cut in range(len(whole) + 1):
    text, rest = finished(whole[:cut])
    assert isinstance(text, str) and isinstance(rest, bytes), "a str and bytes are wanted"
    assert text == whole[:cut].decode("utf-8", "ignore"), f"cut at {cut}: wrong text"
    assert text.encode() + rest == whole[:cut], f"cut at {cut}: a byte is lost"
assert finished(b"\xf0\x9f\x98") == ("", b"\xf0\x9f\x98"), "three of four bytes must wait"


# %% exercise="04.3" role="wrong" why="drops the unfinished bytes"
def finished(data):
    return data.decode("utf-8", "ignore"), b""


# %% exercise="04.3" role="wrong" why="always keeps the last character back"
def finished(data):
    start = len(data) - 1
    while start > 0 and data[start] >> 6 == 0b10:
        start -= 1
    start = max(start, 0)
    return data[:start].decode(), data[start:]


# %% exercise="04.3" role="wrong" why="thinks that no character has four bytes"
def finished(data):
    start = len(data) - 1
    while start > 0 and data[start] >> 6 == 0b10:
        start -= 1
    if start < 0:
        return "", b""
    length = 1 + sum(data[start] >= mark for mark in (0xC0, 0xE0))
    end = start if start + length > len(data) else len(data)
    return data[:end].decode("utf-8", "ignore"), data[end:]


# %% [markdown]
# ## Exercise 04.4: Join two tokens, and mend the counts
#
# Let the row be $\dots x\,a\,b\,y\dots$ with $a$ at $i$. Three neighbourhoods go: $(x,a)$, $(a,b)$,
# $(b,y)$. Two come: $(x,X)$, $(X,y)$. Where $x$ or $y$ is missing, so are its two. That is (04.13),
# and repeated for every occurrence it gives (04.11) and (04.12): in `abab` the second join finds an
# $X$ on its left, takes $(X,a)$ out again, and puts $(X,X)$ in.


# %% exercise="04.4" role="solution"
def join_at(i, new, ids, after, before, counts):
    """Join the tokens at i and after[i] to new, and mend the four in place.

    i, new: int. ids, after, before: lists of length n. counts: Counter of (left, right).
    """
    j = after[i]
    left, right = before[i], after[j]
    counts[ids[i], ids[j]] -= 1
    if left >= 0:
        counts[ids[left], ids[i]] -= 1
        counts[ids[left], new] += 1
    if right < len(ids):
        counts[ids[j], ids[right]] -= 1
        counts[new, ids[right]] += 1
        before[right] = i
    ids[i], ids[j] = new, None
    after[i] = right


# %% exercise="04.4" role="hidden"
r = np.random.default_rng(44)
for n in (2, 3, 9, 9, 9):
    ids = [0] * n if n < 9 else r.integers(0, 2, n).tolist()
    counts, after = Counter(pairwise(ids)), list(range(1, n + 1))
    before, expected = list(range(-1, n - 1)), list(ids)
    for new in range(2, n + 1):  # until one token is left
        order = [i for i in range(n) if ids[i] is not None]
        k = int(r.integers(len(order) - 1))
        expected[k : k + 2] = [new]
        join_at(order[k], new, ids, after, before, counts)
        assert counts == Counter(pairwise(expected)), "the counts are not those of the new row"
        alive = [i for i in range(n) if ids[i] is not None]
        assert [before[i] for i in alive] == [-1, *alive[:-1]], "`before` is not mended"
        assert [after[i] for i in alive] == [*alive[1:], n], "`after` is not mended"


# %% exercise="04.4" role="wrong" why="forgets the pair on the right of the new token"
def join_at(i, new, ids, after, before, counts):
    j = after[i]
    left, right = before[i], after[j]
    counts[ids[i], ids[j]] -= 1
    if left >= 0:
        counts[ids[left], ids[i]] -= 1
        counts[ids[left], new] += 1
    if right < len(ids):
        before[right] = i
    ids[i], ids[j] = new, None
    after[i] = right


# %% exercise="04.4" role="wrong" why="takes neighbours in the list for neighbours in the text"
def join_at(i, new, ids, after, before, counts):
    j = after[i]
    left, right = i - 1, j + 1
    counts[ids[i], ids[j]] -= 1
    if left >= 0:
        counts[ids[left], ids[i]] -= 1
        counts[ids[left], new] += 1
    if right < len(ids):
        counts[ids[j], ids[right]] -= 1
        counts[new, ids[right]] += 1
        before[right] = i
    ids[i], ids[j] = new, None
    after[i] = right


# %% exercise="04.4" role="wrong" why="does not mend `before` of the token behind"
def join_at(i, new, ids, after, before, counts):
    j = after[i]
    left, right = before[i], after[j]
    counts[ids[i], ids[j]] -= 1
    if left >= 0:
        counts[ids[left], ids[i]] -= 1
        counts[ids[left], new] += 1
    if right < len(ids):
        counts[ids[j], ids[right]] -= 1
        counts[new, ids[right]] += 1
    ids[i], ids[j] = new, None
    after[i] = right


# %% [markdown]
# ## Exercise 04.5: The probability of a text
#
# Sort the spellings of the first $j$ bytes by where their last token starts. Those that end in the
# token from $i$ to $j$ are the spellings of the first $i$ bytes, each followed by that token:
# together $A_iP(\cdot)$. So $A_j=\sum_iA_iP(\text{bytes }i\text{ to }j)$, with $A_0=1$ for the
# empty text. In logarithms products are sums, and sums are `logaddexp`. With tokens of at most $m$
# bytes that takes $nm$ steps.


# %% exercise="04.5" role="solution"
def log_probability(text, logp):
    """log of the summed probability of all spellings of text. text: bytes; logp: bytes -> float."""
    longest = max(map(len, logp))
    total = [0.0]  # of the first 0, 1, ... bytes
    for j in range(1, len(text) + 1):
        ends = [
            total[i] + logp[text[i:j]] for i in range(max(0, j - longest), j) if text[i:j] in logp
        ]
        total.append(float(np.logaddexp.reduce(ends)) if ends else -math.inf)
    return total[-1]


# %% exercise="04.5" role="hidden"
fibonacci = [1, 1]
for _ in range(199):
    fibonacci.append(fibonacci[-1] + fibonacci[-2])
got = log_probability(b"a" * 200, {b"a": 0.0, b"aa": 0.0})
assert abs(got - math.log(fibonacci[200])) < 1e-9, "the number of spellings is wrong for 200 bytes"
got = log_probability(b"ab" * 1000, {b"a": math.log(1e-3), b"b": math.log(1e-3), b"ab": -99.0})
want = 1000 * float(np.logaddexp(math.log(1e-6), -99.0))
assert abs(got / want - 1) < 1e-9, "wrong for a probability below the smallest float"
assert log_probability(b"abc", {b"a": -1.0, b"bc": -2.0, b"x": 0.0}) == -3.0, "one spelling only"
assert log_probability(b"abd", {b"a": -1.0, b"ab": -2.0}) == -math.inf, "no spelling: -inf"
assert log_probability(b"", {b"a": -1.0}) == 0, "the empty text has one spelling, of no tokens"


# %% exercise="04.5" role="wrong" why="the best spelling instead of the sum"
def log_probability(text, logp):
    total = [0.0]
    for j in range(1, len(text) + 1):
        ends = [total[i] + logp[text[i:j]] for i in range(j) if text[i:j] in logp]
        total.append(max(ends, default=-math.inf))
    return total[-1]


# %% exercise="04.5" role="wrong" why="adds probabilities as they are, which underflow"
def log_probability(text, logp):
    total = [1.0]
    for j in range(1, len(text) + 1):
        total.append(
            sum(total[i] * math.exp(logp[text[i:j]]) for i in range(j) if text[i:j] in logp)
        )
    return math.log(total[-1]) if total[-1] else -math.inf


# %% exercise="04.5" role="wrong" why="knows tokens of one and two bytes only"
def log_probability(text, logp):
    total = [0.0]
    for j in range(1, len(text) + 1):
        starts = [i for i in range(max(0, j - 2), j) if text[i:j] in logp]
        ends = [total[i] + logp[text[i:j]] for i in starts]
        total.append(float(np.logaddexp.reduce(ends)) if ends else -math.inf)
    return total[-1]


# %% [markdown]
# ## Exercise 04.6: The best spelling, when neighbours matter
#
# What comes after byte $j$ depends on the past through one thing: the token $y$ that ends there.
# So keep $B_j(y)$, the best total of a spelling of the first $j$ bytes that ends in $y$. If $y$
# starts at $i$, then $B_j(y)=\max_x\left(B_i(x)+\log P(y\mid x)\right)$ over the tokens $x$ that
# end at $i$: any better way to reach $x$ at $i$ would make the whole better. Remember the $x$, and
# read the tokens off backwards.


# %% exercise="04.6" role="solution"
def best_spelling(text, logp):
    """The most probable spelling. text: bytes; logp: (bytes, bytes) -> float.

    -> list of tokens, total log-probability. ValueError if there is none.
    """
    tokens = {y for _, y in logp}
    best = [{b"": (0.0, None)}]  # at each position: last token -> total, the token before it
    for j in range(1, len(text) + 1):
        here = {}
        for y in tokens:
            if text[:j].endswith(y):
                before = best[j - len(y)]
                ways = [
                    (total + logp[x, y], x) for x, (total, _) in before.items() if (x, y) in logp
                ]
                if ways:
                    here[y] = max(ways)
        best.append(here)
    if not best[-1]:
        raise ValueError("nothing spells the text")
    last = max(best[-1], key=lambda y: best[-1][y][0])
    total, row, j = best[-1][last][0], [], len(text)
    while last:
        row.append(last)
        last, j = best[j][last][1], j - len(last)
    return row[::-1], total


# %% exercise="04.6" role="hidden"
def every_spelling(text, tokens):
    if not text:
        yield []
    for token in tokens:
        if text.startswith(token):
            yield from ([token, *rest] for rest in every_spelling(text[len(token) :], tokens))


r = np.random.default_rng(66)
tokens = [b"a", b"b", b"ab", b"ba", b"aba", b"bb"]
for trial in range(30):
    logp = {(x, y): float(3 * r.normal() - 5) for x in [b"", *tokens] for y in tokens}
    if trial >= 15:  # then some pairs are impossible
        logp = {pair: value for pair, value in logp.items() if r.random() < 0.8}
    text = bytes(r.choice(list(b"ab"), 9).tolist())
    totals = [
        sum(logp.get(pair, -math.inf) for pair in pairwise([b"", *way]))
        for way in every_spelling(text, tokens)
    ]
    if max(totals) == -math.inf:
        continue
    found, total = best_spelling(text, logp)
    assert b"".join(found) == text, "the tokens do not spell the text"
    own = sum(logp.get(pair, -math.inf) for pair in pairwise([b"", *found]))
    assert abs(total - own) < 1e-9, "the total is not that of the tokens"
    assert abs(total - max(totals)) < 1e-9, "there is a more probable spelling"
found, total = best_spelling(b"ab" * 500, {(x, y): -1.0 for x in [b"", *tokens] for y in tokens})
assert b"".join(found) == b"ab" * 500 and abs(total + 500) < 1e-6, "wrong for a long text"
try:
    best_spelling(b"abc", {(b"", b"ab"): -1.0})
except ValueError:
    pass
else:
    raise AssertionError("nothing spells abc: a ValueError is wanted")


# %% exercise="04.6" role="wrong" why="keeps only the best spelling of each beginning"
def best_spelling(text, logp):
    best = [(0.0, [])]
    for j in range(1, len(text) + 1):
        ways = []
        for i in range(j):
            if best[i] is not None:
                last = best[i][1][-1] if best[i][1] else b""
                if (last, text[i:j]) in logp:
                    ways.append((best[i][0] + logp[last, text[i:j]], [*best[i][1], text[i:j]]))
        best.append(max(ways, default=None))
    if best[-1] is None:
        raise ValueError("nothing spells the text")
    return best[-1][1], best[-1][0]


# %% exercise="04.6" role="wrong" why="always takes the most probable next token"
def best_spelling(text, logp):
    row, total, i = [], 0.0, 0
    while i < len(text):
        last = row[-1] if row else b""
        ways = [(v, y) for (x, y), v in logp.items() if x == last and text.startswith(y, i)]
        if not ways:
            raise ValueError("nothing spells the text")
        value, y = max(ways)
        row, total, i = [*row, y], total + value, i + len(y)
    return row, total


# %% exercise="04.6" role="wrong" why="ignores which token stood before"
def best_spelling(text, logp):
    alone = {}
    for (_, y), value in logp.items():
        alone[y] = max(value, alone.get(y, -math.inf))
    best = [(0.0, [])]
    for j in range(1, len(text) + 1):
        ways = [
            (best[i][0] + alone[text[i:j]], [*best[i][1], text[i:j]])
            for i in range(j)
            if best[i] is not None and text[i:j] in alone
        ]
        best.append(max(ways, default=None))
    if best[-1] is None:
        raise ValueError("nothing spells the text")
    return best[-1][1], best[-1][0]
