"""The fused kernels against the plain primitives, in both readings of each formula.

The stand-in reads a formula with NumPy; a C++ compiler reads it as CuPy's would. What the
primitives do with the kernels runs here on the stand-in, whatever the backend of the test run.
"""

import ctypes
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minigpt import backend, kernels, strict
from minigpt import functional as F
from minigpt.backend import to_numpy, xp
from minigpt.optim import Adam, AdamW
from minigpt.tensor import Tensor

DTYPES = ("float32", "float64")
SHAPES = [(1,), (7,), (3, 1), (2, 5), (2, 3, 4), (4, 0, 3), (1, 1, 1, 9), (3, 2, 4, 65)]
KERNELS = kernels.build(strict)


@contextmanager
def on_device():
    """Inside, minigpt.kernels works on the stand-in, as it does under MINIGPT_BACKEND=strict."""
    with pytest.MonkeyPatch.context() as patch:
        backend._ones.cache_clear()
        for module in (backend, kernels):
            patch.setattr(module, "xp", strict)
        patch.setattr(backend, "on_host", False)
        patch.setattr(kernels, "KERNELS", KERNELS)
        yield
    backend._ones.cache_clear()


def plain(function, *arrays, **options):
    """The primitive as functional.py writes it: NumPy's result, and its vjp on NumPy arrays."""
    function = inspect.unwrap(function.forward)
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(kernels, "KERNELS", None)
        out, vjp = function(*map(xp.asarray, arrays), **options)

    def gradients(g):
        with np.errstate(all="ignore"):
            grads = [f(xp.asarray(g)) for f in vjp if f] if isinstance(vjp, tuple) else \
                vjp(xp.asarray(g))  # fmt: skip
        return [to_numpy(dx) for dx in grads]

    return to_numpy(out), gradients


def fused(function, *arrays, **options):
    """The same through the kernels, which write to no argument."""
    given = [strict.asarray(x) for x in arrays]
    with on_device():
        out, vjp = function(*given, **options)

    def gradients(g):
        with on_device():
            cotangent = strict.asarray(g)
            grads = [dx.get() for dx in vjp(cotangent)]
        for kept, x in zip([*given, cotangent], [*arrays, g], strict=True):
            np.testing.assert_array_equal(kept.get(), x)
        return grads

    return out.get(), gradients


def assert_close(got, want, times=16):
    """Equal but for rounding, in the wanted dtype; NaN and inf in the same places."""
    assert got.dtype == want.dtype and got.shape == want.shape
    few = times * np.finfo(want.dtype).eps
    finite = np.abs(want[np.isfinite(want)])
    np.testing.assert_allclose(got, want, rtol=few, atol=few * min(1, finite.max(initial=0)))


def assert_same(function, primitive, arrays, g, times=16, **options):
    """Fused and plain agree in the result and in every gradient."""
    (got, got_vjp), (want, want_vjp) = (
        fused(function, *arrays, **options), plain(primitive, *arrays, **options))  # fmt: skip
    assert_close(got, want, times)
    for dx, wanted in zip(got_vjp(g), want_vjp(g), strict=True):
        assert_close(dx, wanted, times)


def normal(*shape, dtype="float64", seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


# --- each against the plain primitive ------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gelu(shape, dtype):
    assert_same(
        kernels.gelu, F.gelu, [normal(*shape, dtype=dtype, scale=3)], normal(*shape, dtype=dtype)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_at_the_edges(dtype):
    x = np.array([0.0, -0.0, 1e-30, -1e-30, 5, -5, 12, -12, 1e4, -1e4, 1e15, -1e15, 1e30, -1e30,
                  np.inf, -np.inf, np.nan], dtype)  # fmt: skip
    assert_same(kernels.gelu, F.gelu, [x], np.full_like(x, -1.5))
    out, gradients = fused(kernels.gelu, x)
    assert out[8] == x[8] and out[9] == 0 and not np.signbit(out[2])
    assert list(gradients(np.ones_like(x))[0][:2]) == [0.5, 0.5]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eps", [1e-5, 0.0, 0.5])
@pytest.mark.parametrize("shape", [(2,), (1, 3), (5, 8), (2, 3, 16), (0, 4), (2, 2, 2, 33)])
def test_layer_norm(shape, eps, dtype):
    w, b = normal(shape[-1], dtype=dtype, seed=1), normal(shape[-1], dtype=dtype, seed=2)
    x, g = normal(*shape, dtype=dtype, scale=2) + 1, normal(*shape, dtype=dtype, seed=3)
    assert_same(kernels.layer_norm, F.layer_norm, [x, w, b], g, times=64, eps=eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_at_the_edges(dtype):
    """Rows that are constant, tiny, huge, and of NaN."""
    rows = [[0, 0, 0], [3, 3, 3], [1e-20, -1e-20, 0], [1e15, -1e15, 1e14], [np.nan, 1, 2]]
    x, w, b = np.array(rows, dtype), np.array([1, -2, 3], dtype), np.array([0, 5, 1], dtype)
    assert_same(kernels.layer_norm, F.layer_norm, [x, w, b], normal(5, 3, dtype=dtype), times=64)
    out, gradients = fused(kernels.layer_norm, x, w, b)
    np.testing.assert_array_equal(out[:2], [b, b])
    assert np.isfinite(gradients(np.ones_like(x))[0][:4]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1, 100])
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 3, 5, 7), (2, 0, 4)])
def test_softmax_of_attention(shape, scale, dtype):
    """With causal scores: -inf above the diagonal, and one row that sees a single key."""
    x = normal(*shape, dtype=dtype, scale=scale)
    g, p = (normal(*shape, dtype=dtype, seed=seed) for seed in (1, 2))
    x = x + np.triu(np.full(x.shape[-2:], -np.inf, dtype), 1)
    top, dots = x.max(-1, keepdims=True), normal(*shape[:-1], 1, dtype=dtype, seed=3)
    with np.errstate(all="ignore"):
        p64 = np.exp(x.astype(float) - top)
        want = (p64 / p64.sum(-1, keepdims=True)).astype(dtype)
    with on_device():
        y, h = strict.asarray(x), strict.asarray(g)
        assert kernels.softmax(y, strict.asarray(top)) is y
        assert kernels.softmax_vjp(h, strict.asarray(dots), strict.asarray(p)) is h
    few = 16 if scale == 1 else 512  # exp makes of an error in x that error times x
    assert_close(y.get(), want, few)
    assert_close(h.get(), (g - dots) * p)
    if xp is np:  # the plain versions: also in place
        assert kernels.softmax(x, top) is x and kernels.softmax_vjp(g, dots, p) is g
        assert_close(x, want, few)
        assert_close(g, h.get())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ids", ["int64", "int32", "uint8"])
@pytest.mark.parametrize("e", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("lead, V", [((1,), 1), ((3,), 5), ((2, 3), 11), ((2, 1, 4), 65)])
def test_cross_entropy_s_gradient(lead, V, e, ids, dtype):
    logits = normal(*lead, V, dtype=dtype, scale=5)
    targets = np.random.default_rng(1).integers(V, size=lead).astype(ids)
    options = {"ignore_index": int(targets.flat[0])} if targets.size > 1 and V > 5 else {}
    if options and (targets == options["ignore_index"]).all():
        options = {}
    counted = targets != options.get("ignore_index", -1)
    flat = logits.reshape(-1, V)
    logp = flat - flat.max(-1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    g = np.array(0.7, dtype)
    with on_device():
        t = (targets * counted).astype(ids).reshape(-1)
        arrays = (strict.asarray(a) for a in (g, logits, logp, t, counted.reshape(-1)))
        got = kernels.cross_entropy_vjp(*arrays, e, int(counted.sum())).get()
    _, gradients = plain(F.cross_entropy, logits, targets, label_smoothing=e, **options)
    assert_close(got, gradients(g)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind, options", [
    (Adam, {}), (Adam, {"betas": (0.5, 0.999), "eps": 1e-3}), (AdamW, {}),
    (AdamW, {"weight_decay": 0.5, "lr": 0.1}), (AdamW, {"weight_decay": 0.0})])  # fmt: skip
def test_adam_s_update(kind, options, dtype):
    """Several steps; a gradient of 0 too, and one so large that its square is inf in float32."""
    shapes, options = [(3, 4), (5,), (2, 3), (1, 1)], {"lr": 0.01} | options
    values = [normal(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]
    params = [Tensor(xp.asarray(value), requires_grad=True) for value in values]
    optimizer = kind(params, **options)
    data = to_numpy(optimizer.data)
    shrinking = to_numpy(optimizer.data[: 12 + 6 + 1]) if kind is AdamW else data[:0]
    twin = SimpleNamespace(
        data=strict.asarray(data), m=strict.zeros_like(strict.asarray(data)), steps=0,
        v=strict.zeros_like(strict.asarray(data)), shrinking=shrinking, lr=options["lr"],
        betas=optimizer.betas, eps=optimizer.eps,
        weight_decay=getattr(optimizer, "weight_decay", 0.0))  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(kernels, "KERNELS", None)
        for step in range(4):
            grad = normal(data.size, dtype=dtype, seed=10 + step)
            grad[3], grad[-1] = 0, 1e25
            optimizer.grad[...] = xp.asarray(grad)
            twin.grad, twin.lr = strict.asarray(grad), twin.lr / 2
            optimizer.lr /= 2
            optimizer.step()
            twin.steps += 1
            with on_device():
                kernels.adam(twin)
            for name in ("data", "m", "v"):
                assert_close(getattr(twin, name).get(), to_numpy(getattr(optimizer, name)))


@pytest.mark.parametrize("shape", [(), (1,), (50_001,), (3, 20_000), (20_000, 3), (2, 0, 5)])
def test_the_stand_in_counts_places_through_all_pieces(shape):
    """It computes large arrays piece by piece. Broadcast inputs, and an output in place."""
    x, place = strict.ones(shape), np.arange(math.prod(shape), dtype=float).reshape(shape)
    column = strict.asarray(np.arange(shape[-1] if shape else 1, dtype=float))
    kernel = strict.ElementwiseKernel("T x, T column, T y", "T z", "z = x * (i + column) + y")
    assert kernel(x, column if shape else 0.0, 0.5, x) is x
    np.testing.assert_array_equal(x.get(), place + (column.get() if shape else 0) + 0.5)
    with pytest.raises(ValueError, match="'i'"):
        strict.ElementwiseKernel("T i", "T z", "z = i")


# --- what has no kernel --------------------------------------------------------------------------


def test_what_does_not_fit_is_left_to_the_plain_version():
    x = strict.asarray(normal(2, 3))
    with on_device():
        assert kernels.fit(x, x) and kernels.fit(x.astype("float32"))
        assert not kernels.fit(x, x.astype("float32"))
        for other in (x.astype("float16"), x.astype(complex), x.astype(int), x.get(), 3.0):
            assert not kernels.fit(other)
            assert kernels.gelu(other) is None
        assert kernels.gelu(x, approximate="none") is None
        assert kernels.layer_norm(x, x[0], x[0, :2]) is None
        assert kernels.layer_norm(x, x[0, :2], x[0]) is None
        assert kernels.layer_norm(x[0, 0], x[0], x[0]) is None
        assert kernels.layer_norm(x, x[0], x[0], eps=-1) is None
        assert kernels.layer_norm(x, x[0], x[0], eps=math.nan) is None
        assert kernels.cross_entropy_vjp(x[0, 0].astype("float32"), x, x, x, x, 0.0, 1) is None
    assert kernels.build(np) is None


def test_the_decorator_asks_the_kernels_first():
    def on_gpu(x, *, times=1):
        return None if times == 3 else x * times

    def plain(x, *, times=1):
        return "plain"

    with on_device():
        choice = kernels.fused(on_gpu)(plain)
        assert [choice(1), choice(5, times=2), choice(1, times=3)] == [1, 10, "plain"]
        assert choice(0) == 0  # only None means no
        assert choice.__wrapped__ is plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "KERNELS", None)
        assert kernels.fused(on_gpu)(plain) is plain  # with NumPy nothing is wrapped


# --- the formulas as C ---------------------------------------------------------------------------


def parameters(text):
    return [tuple(part.split()) for part in text.split(",")]


ARGUMENTS = {  # an input that is one number, for all kernels; the rest are arrays
    "linear": kernels.LINEAR, "cubic": kernels.CUBIC, "slope": 3 * kernels.CUBIC, "n": 7,
    "eps": 1e-5, "even": 0.02, "peak": 0.9, "keep1": 0.9, "new1": 0.1, "keep2": 0.95, "new2": 0.05,
    "root": 3.2, "rate": 0.01, "shrink": 0.97, "shrinking": 20,
}  # fmt: skip
IN_PLACE = {  # output: the input whose memory it takes
    "norm": {"xhat": "x"}, "norm_vjp": {"dx": "gw"}, "exp_minus": {"y": "x"},
    "minus_times": {"out": "x"}, "adam": {"m_new": "m", "v_new": "v", "x_new": "x"},
}  # fmt: skip
ROOM = 50


def inputs_of(name, dtype):
    """Arrays (ROOM,) and numbers for a kernel, by name."""
    rng, values = np.random.default_rng(3), {}
    for kind, what in parameters(kernels.FORMULAS[name][0]):
        if what in ARGUMENTS:
            values[what] = ARGUMENTS[what]
        elif kind == "T":
            values[what] = rng.normal(size=ROOM).astype(dtype)
            if what in ("v", "squares", "rstd"):
                values[what] = abs(values[what])
        else:
            values[what] = rng.integers(2, size=ROOM).astype("bool" if kind == "bool" else "int64")
    return values


def read_by_numpy(name, dtype, in_place):
    """The kernel's outputs by name, as the stand-in computes them."""
    values = {what: strict.asarray(x) if isinstance(x, np.ndarray) else x
              for what, x in inputs_of(name, dtype).items()}  # fmt: skip
    outs = [what for _, what in parameters(kernels.FORMULAS[name][1])]
    memory = [values[IN_PLACE[name][what]] if what in in_place else strict.empty(ROOM, dtype)
              for what in outs]  # fmt: skip
    getattr(KERNELS, name)(*values.values(), *memory)
    return {what: x.get() for what, x in zip(outs, memory, strict=True)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", IN_PLACE)
def test_outputs_may_overwrite_their_inputs(name, dtype):
    apart, together = (read_by_numpy(name, dtype, in_place) for in_place in ({}, IN_PLACE[name]))
    for what in apart:
        np.testing.assert_array_equal(together[what], apart[what])


@pytest.mark.parametrize("name", kernels.FORMULAS)
def test_no_formula_has_a_double_in_it(name):
    assert not re.search(r"[\d.][eEfF]?[-+]?\d*\.|\.\d|\d[eE]", kernels.FORMULAS[name][2])
    assert "double" not in kernels.FORMULAS[name][2]


def source(T):
    """All kernels as plain C++ loops, with references to the elements as CuPy writes them."""
    lines = ["#include <cmath>", "#include <cstddef>", "using std::exp; using std::sqrt;",
             f"typedef {T} T; typedef long long S; typedef long long U; typedef long long int64;"
             ]  # fmt: skip
    for name, (ins, outs, formula) in kernels.FORMULAS.items():
        heads, loads = [], []
        for const, group in (("const ", parameters(ins)), ("", parameters(outs))):
            for kind, what in group:
                if what in ARGUMENTS:
                    heads.append(f"const {kind} {what}")
                else:
                    heads.append(f"{const}{kind} *_raw_{what}")
                    loads.append(f"{const}{kind} &{what} = _raw_{what}[i];")
        lines += [f'extern "C" void {name}({", ".join(heads)}) {{',
                  f"for (ptrdiff_t i = 0; i < {ROOM}; i++) {{", *loads, formula, ";}}"]  # fmt: skip
    return "\n".join(lines)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """{dtype: the kernels as C++}. A double in a float kernel is an error of the compiler's."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or os.name == "nt":
        pytest.skip("needs a C++ compiler: g++ or clang++")
    folder, libraries = tmp_path_factory.mktemp("kernels"), {}
    for dtype, T in zip(DTYPES, ("float", "double"), strict=True):
        file, library = folder / f"{T}.cpp", folder / f"{T}.so"
        file.write_text(source(T), "utf-8")
        strict_c = ["-Wall", "-Wdouble-promotion", "-Werror", "-ffp-contract=off"]
        command = [compiler, "-O1", "-fPIC", "-shared", *strict_c, str(file), "-o", str(library)]
        subprocess.run(command, check=True)
        libraries[dtype] = ctypes.CDLL(str(library))
    return libraries


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", kernels.FORMULAS)
def test_c_and_numpy_read_the_same(name, dtype, in_place, compiled):
    in_place = IN_PLACE.get(name, {}) if in_place else {}
    values, arguments, outs = inputs_of(name, dtype), [], {}
    number = ctypes.c_float if dtype == "float32" else ctypes.c_double
    for kind, what in parameters(kernels.FORMULAS[name][0]):
        x = values[what]
        if isinstance(x, np.ndarray):
            arguments.append(ctypes.c_void_p(x.ctypes.data))
        else:
            arguments.append(ctypes.c_longlong(x) if kind == "int64" else number(x))
    for _, what in parameters(kernels.FORMULAS[name][1]):
        outs[what] = values[in_place[what]] if what in in_place else np.empty(ROOM, dtype)
        arguments.append(ctypes.c_void_p(outs[what].ctypes.data))
    getattr(compiled[dtype], name)(*arguments)
    for what, want in read_by_numpy(name, dtype, in_place).items():
        assert_close(outs[what], want, times=8)


def test_cuda_compiles_what_cupy_would_compile(tmp_path):
    """CuPy writes the CUDA source of each float kernel, and nvcc finds no double in it."""
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    pytest.importorskip("cupy", reason="needs CuPy's headers")
    import cupy
    from cupy._core import _carray, _kernel, _scalar

    def parse(text, const):
        return tuple(_kernel.ParameterInfo(part, const) for part in text.split(","))

    types = {"T": np.dtype("float32"), "S": np.dtype("int64"), "U": np.dtype("int64")}
    lines = ["#include <cupy/complex.cuh>", "#include <cupy/carray.cuh>"]
    for name, (ins, outs, formula) in kernels.FORMULAS.items():
        known, infos = (*parse(ins, True), *parse(outs, False)), []
        for kind, what in parameters(ins) + parameters(outs):
            dtype = types.get(kind) or np.dtype(kind)
            number = what in ARGUMENTS
            infos.append(_kernel._ArgInfo(3, _scalar.CScalar, dtype, 0, True, True) if number else
                         _kernel._ArgInfo(1, cupy.ndarray, dtype, 2, True, True))  # fmt: skip
        infos.append(_kernel._ArgInfo(2, _carray.Indexer, None, 2, True, True))
        letters = {kind for kind, _ in parameters(ins) + parameters(outs)} & set(types)
        type_map = _kernel._TypeMap(tuple(sorted((k, types[k]) for k in letters)))
        params = (*known, *parse("CIndexer _ind", False))
        lines.append(_kernel._get_elementwise_kernel_code(
            tuple(infos), type_map, params, formula, f"minigpt_{name}", ""))  # fmt: skip
    file, ptx = tmp_path / "kernels.cu", tmp_path / "kernels.ptx"
    file.write_text("\n".join(lines), "utf-8")
    include = Path(cupy.__file__).parent / "_core" / "include"
    subprocess.run(["nvcc", "-ptx", "-std=c++17", "-I", str(include), str(file), "-o", str(ptx)],
                   check=True)  # fmt: skip
    text = ptx.read_text("utf-8")
    assert all(f".entry minigpt_{name}(" in text for name in kernels.FORMULAS)
    assert ".f64" not in text


# --- in use --------------------------------------------------------------------------------------

TRAIN_AND_DRAW = """
import json
import numpy as np
from minigpt import functional as F, kernels
from minigpt.generate import generate
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW

launched = set()
def watched(name, kernel):
    return lambda *args: launched.add(name) or kernel(*args)
for name, kernel in dict(vars(kernels.KERNELS) if kernels.KERNELS else {}).items():
    setattr(kernels.KERNELS, name, watched(name, kernel))

rng = np.random.default_rng(0)
model = GPT(GPTConfig(vocab_size=13, block_size=70, n_layer=2, n_head=2, n_embd=8), rng, "float64")
optimizer, losses = AdamW(model.parameters(), lr=0.01, decay=model.decayed_parameters()), []
for _ in range(3):
    idx, targets = rng.integers(13, size=(2, 2, 70))
    optimizer.zero_grad()
    loss = F.cross_entropy(model(idx), targets, label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
tokens = [t.tolist() for t in generate(model, idx[:, :9], 5, rng=rng, temperature=0)]
params = [p.numpy().ravel().tolist() for p in model.parameters()]
print(json.dumps([losses, params, tokens, sorted(launched)]))
"""


def test_training_and_drawing_use_every_kernel_and_are_numpys():
    """In fresh processes, with the kernels (the stand-in) and without (NumPy)."""
    results = []
    for name in ("strict", "numpy"):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN_AND_DRAW], capture_output=True, text=True, check=True,
            env=os.environ | {"MINIGPT_BACKEND": name}, cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        results.append(json.loads(done.stdout))
    (losses, params, tokens, launched), (*plain, none) = results
    assert launched == sorted(kernels.FORMULAS) and none == []
    assert losses == pytest.approx(plain[0], rel=1e-12)
    for ours, theirs in zip(params, plain[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert tokens == plain[2]


HALF = """
import json
import numpy as np
from minigpt import kernels
from minigpt.half import HalfPrecision, LossScale
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW

launched = {}
def watched(name, kernel):
    def call(*args):
        arrays = {x.dtype.name for x in args if hasattr(x, "dtype") and x.dtype.kind == "f"}
        launched[name] = sorted(arrays | {*launched.get(name, [])})
        return kernel(*args)
    return call
for name, kernel in vars(kernels.KERNELS).items():
    setattr(kernels.KERNELS, name, watched(name, kernel))

rng = np.random.default_rng(0)
model = GPT(GPTConfig(vocab_size=13, block_size=9, n_layer=1, n_head=2, n_embd=8), rng)
optimizer = AdamW(model.parameters(), lr=0.01)
HalfPrecision(model, optimizer, LossScale()).backward(*rng.integers(13, size=(2, 2, 9)))
optimizer.step()
print(json.dumps(launched))
"""


def test_in_float16_the_kernels_are_float32s_and_softmax_has_none():
    done = subprocess.run(
        [sys.executable, "-c", HALF], capture_output=True, text=True, check=True,
        env=os.environ | {"MINIGPT_BACKEND": "strict"}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    names = {*kernels.FORMULAS} - {"exp_minus", "minus_times"}
    assert json.loads(done.stdout) == dict.fromkeys(names, ["float32"])
