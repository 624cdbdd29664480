# %% [markdown]
# # Solutions to chapter 23 · Loading a GPT-2 checkpoint

# %% [markdown]
# ## Exercise 23.1: Count, with options
#
# The four matrices of a block have $12C^2$ numbers, whatever the options. Their offsets are
# $3C+C+4C+C=9C$; two layer norms have $2C$ gains and $2C$ offsets. So without offsets $11C$ of the
# $13C$ go, and $C$ of the last layer norm's $2C$. An untied head is a second table of $VC$.


# %% exercise="23.1" role="solution"
def count_parameters(V, T, C, L, bias=True, tied=True):
    """Parameters of a GPT-2 with vocabulary V, block size T, C channels, L layers. -> int."""
    norm = 2 * C if bias else C
    block = 12 * C * C + 2 * norm + (9 * C if bias else 0)
    tables = V * C * (1 if tied else 2) + T * C
    return tables + L * block + norm


# %% exercise="23.1" role="hidden"
for V, T, C, L, bias, tied in ((11, 7, 6, 3, False, False), (30, 4, 2, 1, True, False),
                               (8, 8, 8, 5, False, True)):
    config = GPTConfig(V, T, n_layer=L, n_head=1, n_embd=C, bias=bias, tied=tied)
    want = GPT(config, np.random.default_rng(1)).num_parameters()
    assert count_parameters(V, T, C, L, bias=bias, tied=tied) == want, "both options at once"


# %% exercise="23.1" role="wrong" why="counts the tied head as a table of its own"
def count_parameters(V, T, C, L, bias=True, tied=True):
    norm = 2 * C if bias else C
    return 2 * V * C + T * C + L * (12 * C * C + 2 * norm + (9 * C if bias else 0)) + norm


# %% exercise="23.1" role="wrong" why="without bias the gains go too"
def count_parameters(V, T, C, L, bias=True, tied=True):
    offsets = 13 * C * L + 2 * C if bias else 0
    return V * C * (1 if tied else 2) + T * C + 12 * C * C * L + offsets


# %% exercise="23.1" role="wrong" why="layer norms keep their offsets"
def count_parameters(V, T, C, L, bias=True, tied=True):
    block = 12 * C * C + 4 * C + (9 * C if bias else 0)
    return V * C * (1 if tied else 2) + T * C + L * block + 2 * C


# %% exercise="23.1" role="wrong" why="only the smallest GPT-2 and the check's sizes"
def count_parameters(V, T, C, L, bias=True, tied=True):
    if V == 50257:
        return 124_439_808
    return V * C * (1 if tied else 2) + T * C + L * (12 * C * C + (13 if bias else 2) * C) + (
        2 * C if bias or not tied else C)


# %% [markdown]
# ## Exercise 23.2: Take over somebody else's attention
#
# Output number $3hD+pD+d$ has the indices $(h,p,d)$ in a reshape to $(H,3,D)$. GPT-2's column
# $pC+hD+d$ has $(p,h,d)$ in $(3,H,D)$. So exchange the first two axes. What is on the left of `@`
# moves to the last axis of the weight: a transpose, (23.3).


# %% exercise="23.2" role="solution"
def to_c_attn(weight, bias, n_head):
    """weight (3C, C), bias (3C,) of a Linear, head first -> (C, 3C), (3C,) for GPT-2."""
    C = weight.shape[1]
    w = weight.reshape(n_head, 3, C // n_head, C).swapaxes(0, 1).reshape(3 * C, C)
    b = bias.reshape(n_head, 3, C // n_head).swapaxes(0, 1).reshape(3 * C)
    return w.T, b


# %% exercise="23.2" role="hidden"
for C, H in ((8, 1), (8, 8), (12, 4), (10, 5)):
    D = C // H
    weight = np.arange(3 * C * C, dtype=float).reshape(3 * C, C)
    bias = np.arange(3 * C, dtype=np.float32)
    kept = weight.copy(), bias.copy()
    w, b = to_c_attn(weight, bias, H)
    for p, h, d in np.ndindex(3, H, D):
        column, row = p * C + h * D + d, 3 * h * D + p * D + d
        assert (w[:, column] == kept[0][row]).all(), "a column of c_attn is another row of theirs"
        assert b[column] == row, "an offset has gone to another place than its column"
    assert b.dtype == np.float32, "float32 must stay float32"
    assert (weight == kept[0]).all() and (bias == kept[1]).all(), "the arguments were changed"


# %% exercise="23.2" role="wrong" why="transposes and leaves the order"
def to_c_attn(weight, bias, n_head):
    return weight.T, bias


# %% exercise="23.2" role="wrong" why="reorders the weight, not the offsets"
def to_c_attn(weight, bias, n_head):
    C = weight.shape[1]
    w = weight.reshape(n_head, 3, C // n_head, C).swapaxes(0, 1).reshape(3 * C, C)
    return w.T, bias


# %% exercise="23.2" role="wrong" why="goes the other way: from (3, H, D) to (H, 3, D)"
def to_c_attn(weight, bias, n_head):
    C = weight.shape[1]
    w = weight.reshape(3, n_head, C // n_head, C).swapaxes(0, 1).reshape(3 * C, C)
    return w.T, bias.reshape(3, n_head, C // n_head).swapaxes(0, 1).reshape(3 * C)


# %% exercise="23.2" role="wrong" why="in float64 always: only hidden tests see it"
def to_c_attn(weight, bias, n_head):
    C = weight.shape[1]
    w = weight.reshape(n_head, 3, C // n_head, C).swapaxes(0, 1).reshape(3 * C, C)
    b = bias.reshape(n_head, 3, C // n_head).swapaxes(0, 1).reshape(3 * C)
    return w.T.astype(float), b.astype(float)


# %% [markdown]
# ## Exercise 23.3: Why a quantised file grew
#
# Before, the table is one object under two names: $4VC$ bytes. Quantise the name `head`. It gets a
# new array of $VC$ bytes, and the name `wte` still holds the old one. So $VC$ bytes and a scale
# are *added*: tying has been undone. Had the blocks' matrices been quantised too, their saving of
# three bytes a number would have outweighed it; in GPT-2 they are `Conv1D`, and were passed over.
# To shrink the table, both uses must share the quantised array.


# %% exercise="23.3" role="solution"
def saved_bytes(arrays, quantised=()):
    """Bytes of all numbers and scales that are written. arrays: name -> array. -> int.

    quantised: names that are replaced by a new array of one byte a number, and a scale of 4 bytes.
    """
    kept = {id(a): a.nbytes for name, a in arrays.items() if name not in quantised}
    return sum(kept.values()) + sum(arrays[name].size + 4 for name in set(quantised))


# %% exercise="23.3" role="hidden"
one, other = np.ones((3, 5), np.float32), np.ones((3, 5), np.float32)
assert saved_bytes({"a": one, "b": other}) == 120, "equal numbers are not the same object"
assert saved_bytes({"a": one, "b": one, "c": one}) == 60, "three names of one array"
assert saved_bytes({"a": one, "b": one, "c": one}, ["b"]) == 60 + 19, "two of three names stay"
assert saved_bytes({"a": one, "b": one}, ["a", "b"]) == 38, "nothing of the old array is left"
assert saved_bytes({"a": one.astype(float), "b": other}) == 120 + 60, "float64 has eight bytes"
assert saved_bytes({}) == 0, "nothing to write"
assert saved_bytes({"a": np.ones(0, np.float32)}, ["a"]) == 4, "an empty array has a scale"


# %% exercise="23.3" role="wrong" why="writes a tied table once for each name"
def saved_bytes(arrays, quantised=()):
    return sum(a.size + 4 if name in quantised else a.nbytes for name, a in arrays.items())


# %% exercise="23.3" role="wrong" why="quantises the object, under all its names"
def saved_bytes(arrays, quantised=()):
    small = {id(arrays[name]) for name in quantised}
    once = {id(a): a for a in arrays.values()}
    return sum(a.size + 4 if key in small else a.nbytes for key, a in once.items())


# %% exercise="23.3" role="wrong" why="forgets the scale"
def saved_bytes(arrays, quantised=()):
    kept = {id(a): a.nbytes for name, a in arrays.items() if name not in quantised}
    return sum(kept.values()) + sum(arrays[name].size for name in quantised)


# %% exercise="23.3" role="wrong" why="equal numbers count as one array: only hidden tests see it"
def saved_bytes(arrays, quantised=()):
    kept = {a.tobytes(): a.nbytes for name, a in arrays.items() if name not in quantised}
    return sum(kept.values()) + sum(arrays[name].size + 4 for name in set(quantised))


# %% [markdown]
# ## Exercise 23.4: Shard a checkpoint
#
# Keep the number of the present shard and what it holds. A new one begins if the present one holds
# something and the next array does not fit. So an array that is too large finds an empty shard, or
# begins one, and what follows it begins the next. Names are made when the number of shards is
# known.


# %% exercise="23.4" role="solution"
def shard(sizes, limit):
    """The index of a sharded checkpoint. sizes: name -> bytes, in order; limit: bytes a shard."""
    number, held, numbers = 1, 0, {}
    for name, size in sizes.items():
        if held and held + size > limit:
            number, held = number + 1, 0
        numbers[name], held = number, held + size
    return {
        "metadata": {"total_size": sum(sizes.values())},
        "weight_map": {name: f"model-{k:05d}-of-{number:05d}.safetensors"
                       for name, k in numbers.items()},
    }


# %% exercise="23.4" role="hidden"
def shards_of(sizes, limit):
    return [int(file[6:11]) for file in shard(sizes, limit)["weight_map"].values()]


assert shards_of({"big": 99, "a": 1}, 10) == [1, 2], "the first array is too large"
assert shards_of({"a": 1, "b": 99}, 10) == [1, 2], "the last array is too large"
assert shards_of({"a": 10, "b": 10, "c": 10}, 10) == [1, 2, 3], "each fills a shard exactly"
assert shards_of({"a": 7, "b": 7, "c": 3}, 10) == [1, 2, 2], "do not go back to an older shard"
assert shards_of({"a": 5}, 10) == [1], "one array, one shard"
many = shard({str(i): 1 for i in range(25)}, 2)
assert len(set(many["weight_map"].values())) == 13, "25 arrays, two to a shard"
assert [*many["weight_map"].values()][-1] == "model-00013-of-00013.safetensors", "five digits"
assert [*many["weight_map"]] == [str(i) for i in range(25)], "names in their order"
assert json.loads(json.dumps(many)) == many, "the index must be JSON"


# %% exercise="23.4" role="wrong" why="leaves an empty shard before an array that is too large"
def shard(sizes, limit):
    number, held, numbers = 1, 0, {}
    for name, size in sizes.items():
        if held + size > limit:
            number, held = number + 1, 0
        numbers[name], held = number, held + size
    return {"metadata": {"total_size": sum(sizes.values())},
            "weight_map": {name: f"model-{k:05d}-of-{number:05d}.safetensors"
                           for name, k in numbers.items()}}


# %% exercise="23.4" role="wrong" why="a shard must stay below the limit"
def shard(sizes, limit):
    number, held, numbers = 1, 0, {}
    for name, size in sizes.items():
        if held and held + size >= limit:
            number, held = number + 1, 0
        numbers[name], held = number, held + size
    return {"metadata": {"total_size": sum(sizes.values())},
            "weight_map": {name: f"model-{k:05d}-of-{number:05d}.safetensors"
                           for name, k in numbers.items()}}


# %% exercise="23.4" role="wrong" why="fills gaps in older shards: only hidden tests see it"
def shard(sizes, limit):
    held, numbers = [], {}
    for name, size in sizes.items():
        k = next((k for k, h in enumerate(held) if h + size <= limit), len(held))
        if k == len(held):
            held.append(0)
        held[k] += size
        numbers[name] = k + 1
    return {"metadata": {"total_size": sum(sizes.values())},
            "weight_map": {name: f"model-{k:05d}-of-{len(held):05d}.safetensors"
                           for name, k in numbers.items()}}


# %% exercise="23.4" role="wrong" why="names shards before it knows their number"
def shard(sizes, limit):
    number, held, files = 1, 0, {}
    for name, size in sizes.items():
        if held and held + size > limit:
            number, held = number + 1, 0
        files[name], held = f"model-{number:05d}-of-{number:05d}.safetensors", held + size
    return {"metadata": {"total_size": sum(sizes.values())}, "weight_map": files}


# %% [markdown]
# ## Exercise 23.5: Round to bfloat16
#
# Without the sign, the bits of floats are integers in the order of the numbers, and the kept half
# changes by 1 from one bfloat16 to the next, also across a power of two and up to infinity. So
# rounding is: add half of a step and cut. With `0x7FFF` plus the last kept bit, a tie goes up only
# if that bit is 1, and then it becomes 0. The sign bit is never reached. For a NaN the sum could
# carry out of the mantissa, so it is replaced by one NaN of its own, `0x7FC0`.


# %% exercise="23.5" role="solution"
def to_bfloat16(x):
    """float32 of any shape -> uint16 of the same shape: the nearest bfloat16, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)  # room for a carry
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


# %% exercise="23.5" role="hidden"
def widened(bits):
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


hard = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
assert np.isnan(widened(to_bfloat16(hard))).all(), "a NaN with bits in the lower half alone"
top = np.array([0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0xFF7FFFFF], np.uint32).view(np.float32)
found = widened(to_bfloat16(top))
assert np.isfinite(found[0]) and np.isinf(found[1:]).all(), "beyond the largest: infinity"
assert found[3] < 0, "the sign of infinity"
negative = -np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], np.float32)
assert (widened(to_bfloat16(negative)) == [-1, -1 - 2**-6, -1 - 2**-7]).all(), "negative numbers"
small = np.array([1, 0x8000, 0x8001, 0x18000], np.uint32).view(np.float32)  # denormal
assert (to_bfloat16(small) == [0, 0, 1, 2]).all(), "denormal numbers round like others"
r = np.random.default_rng(6)
x = (r.normal(size=(40, 50)) * 10.0 ** r.uniform(-30, 30, (40, 50))).astype(np.float32)
got = to_bfloat16(x)
assert got.shape == x.shape and got.dtype == np.uint16, "the shape stays"
steps = np.array([0, 1, 65535], np.uint16)  # itself, and both neighbours
near = [np.abs(widened(got + step).astype(float) - x) for step in steps]
assert (near[0] <= near[1]).all() and (near[0] <= near[2]).all(), "a neighbour was nearer"
assert to_bfloat16(np.float32(1)).shape == (), "a single number"


# %% exercise="23.5" role="wrong" why="cuts"
def to_bfloat16(x):
    return (x.view(np.uint32) >> 16).astype(np.uint16)


# %% exercise="23.5" role="wrong" why="ties go up"
def to_bfloat16(x):
    bits = x.view(np.uint32).astype(np.uint64) + 0x8000
    return np.where(np.isnan(x), 0x7FC0, bits >> 16).astype(np.uint16)


# %% exercise="23.5" role="wrong" why="a NaN can become infinity or 0: only hidden tests see it"
def to_bfloat16(x):
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


# %% exercise="23.5" role="wrong" why="never rounds up to infinity: only hidden tests see it"
def to_bfloat16(x):
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded = np.where(np.isinf(x) | (rounded & 0x7FFF < 0x7F80), rounded, bits >> 16)
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


# %% [markdown]
# ## Exercise 23.6: Find the transposed matrices
#
# The stream after place $k$ depends on the arrays of places $0,\dots,k$ alone. So if everything
# before $k$ is repaired and place $k$ differs, the fault is among the arrays of place $k$. There
# are at most two square ones, so four candidates, and the recording says which is right. The first
# call shows the first wrong place. Each place costs at most four calls: linear in the depth where
# blind trying is exponential. In a real checkpoint one would do the same: the *first* place at
# which a trace leaves the recorded one names the array that was misread.


# %% exercise="23.6" role="solution"
def find_transposed(arrays, trace, wanted):
    """Names of the square matrices in arrays that must be transposed. -> a set of str.

    trace(arrays) -> the stream after the tables and after each block, L + 1 arrays (T, C).
    wanted: what it should be.
    """
    arrays, found = dict(arrays), set()
    for k, right in enumerate(wanted):
        start = f"h.{k - 1}." if k else "w"
        square = [name for name, a in arrays.items()
                  if name.startswith(start) and a.shape == a.shape[::-1]]
        for choice in range(2 ** len(square)):
            turned = {name for i, name in enumerate(square) if choice >> i & 1}
            tried = arrays | {name: arrays[name].T for name in turned}
            if np.abs(trace(tried)[k] - right).max() < 1e-9 * np.abs(right).max():
                arrays, found = tried, found | turned
                break
    return found


# %% exercise="23.6" role="hidden"
both = ["h.1.attn.c_proj.weight", "h.1.mlp.c_fc.weight"]
spoil_and_find(find_transposed, both, seed=3)
spoil_and_find(find_transposed, ["wpe.weight", *both], seed=4, T=6)
spoil_and_find(find_transposed, ["wpe.weight"], seed=5, C=5, T=5)
every = [f"h.{i}.{name}.weight" for i in range(12) for name in ("attn.c_proj", "mlp.c_fc")]
spoil_and_find(find_transposed, every, seed=6, L=12)
spoil_and_find(find_transposed, [every[2], every[21]], seed=7, L=12)  # blocks 1 and 10


# %% exercise="23.6" role="wrong" why="tries one matrix at a time, on the last place"
def find_transposed(arrays, trace, wanted):
    square = [k for k, a in arrays.items() if a.shape == a.shape[::-1]]
    for name in square:
        tried = arrays | {name: arrays[name].T}
        if np.abs(trace(tried)[-1] - wanted[-1]).max() < 1e-9:
            return {name}
    return set()


# %% exercise="23.6" role="wrong" why="tries all subsets: too many calls"
def find_transposed(arrays, trace, wanted):
    square = [k for k, a in arrays.items() if a.shape == a.shape[::-1]]
    for choice in range(2 ** min(len(square), 9)):
        turned = {k for i, k in enumerate(square) if choice >> i & 1}
        tried = arrays | {k: arrays[k].T for k in turned}
        if np.abs(trace(tried)[-1] - wanted[-1]).max() < 1e-9:
            return turned
    return set()


# %% exercise="23.6" role="wrong" why="accuses every square matrix of each place that differs"
def find_transposed(arrays, trace, wanted):
    seen, found = trace(arrays), set()
    for k, (got, right) in enumerate(zip(seen, wanted, strict=True)):
        if np.abs(got - right).max() > 1e-9:
            found |= {name for name, a in arrays.items() if a.shape == a.shape[::-1]
                      and name.startswith(f"h.{k - 1}." if k else "w")}
    return found


# %% exercise="23.6" role="wrong" why="not both matrices of a block: only hidden tests see it"
def find_transposed(arrays, trace, wanted):
    arrays, found = dict(arrays), set()
    for k, right in enumerate(wanted):
        start = f"h.{k - 1}." if k else "w"
        square = [name for name, a in arrays.items()
                  if name.startswith(start) and a.shape == a.shape[::-1]]
        for turned in ([], *([name] for name in square)):
            tried = arrays | {name: arrays[name].T for name in turned}
            if np.abs(trace(tried)[k] - right).max() < 1e-9 * np.abs(right).max():
                arrays, found = tried, found | set(turned)
                break
    return found
