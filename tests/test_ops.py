"""Every primitive, at every row of cases.py: its value, its gradient, its dtype and its manners.

The gradient has three witnesses: finite differences, the adjoint identity <g, A u> = <A^T g, u>
where the op is linear, and the twin in reference.py where the op is fused.
"""

import importlib
import inspect
import math
import pkgutil
import re
import tracemalloc
from functools import cache

import hypothesis.extra.numpy as shapes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigpt
from minigpt import functional as F
from minigpt import memory, ops, reference
from minigpt.attention import attention, causal_attention, causal_self_attention
from minigpt.backend import to_numpy, xp
from minigpt.erf import erf
from minigpt.gradcheck import check_grads
from minigpt.positions import rotary
from minigpt.tensor import Tensor
from minigpt.variants.norms import rms_norm
from tests.cases import CASES, Case, generator, ids, nats

BY_ID = {case.id: case for case in CASES}
PRIMITIVE = [case for case in CASES if hasattr(case.op, "forward")]
HYPOTHESIS = settings(deadline=None, max_examples=60, derandomize=True, database=None)


def cases(chosen=CASES):
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.id)


def leaves(case: Case, dtype: str = "float64") -> list[Tensor]:
    return [Tensor(xp.asarray(x.astype(dtype)), requires_grad=True) for x in case.arrays]


def cotangent(out, dtype: str = "float64"):
    return xp.asarray(np.random.default_rng(1).standard_normal(out.shape).astype(dtype))


def assert_close(found, expected, tol: float, what: str = "") -> None:
    """The largest error, relative to the largest entry or to 1."""
    found, expected = to_numpy(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    scale = max(1.0, np.abs(expected).max(initial=0))
    error = np.abs(found - expected).max(initial=0) / scale
    assert error <= tol, f"{what}: relative error {error:.1e}"


# --- the registry -----------------------------------------------------------------------------


def primitives() -> dict[str, object]:
    """Every object of the package that has `.forward`, in the module that defines it."""
    found = {}
    for info in pkgutil.walk_packages(minigpt.__path__, "minigpt."):
        source = info.module_finder.find_spec(info.name).loader.get_source(info.name)
        if "primitive" not in source:  # such a file has none; its own dependencies may be missing
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if hasattr(value, "forward") and getattr(value, "__module__", "") == info.name:
                found[f"{info.name}.{name}"] = value
    return found


FUSED = {
    name: op
    for name, op in primitives().items()
    if op.__module__.split(".", 1)[1] in ("functional", "attention", "positions", "variants.llama")
}


def test_the_cases_have_different_ids():
    assert len(BY_ID) == len(CASES)


@pytest.mark.parametrize("name, op", primitives().items(), ids=primitives())
def test_every_primitive_has_a_row(name, op):
    assert any(case.op is op for case in CASES), f"{name} needs a row in tests/cases.py"


def test_the_registry_sees_the_primitives():
    assert {"minigpt.ops.add", "minigpt.functional.layer_norm"} < set(primitives())


@pytest.mark.parametrize("op", FUSED.values(), ids=FUSED)
def test_every_fused_primitive_has_a_twin_and_is_documented(op):
    twin = getattr(reference, op.__name__, None)
    assert callable(twin), f"{op.__name__} needs a twin in reference.py"
    assert not hasattr(twin, "forward"), "a twin is composed from ops"
    assert inspect.signature(twin) == inspect.signature(op)
    assert any(case.op is op and case.reference for case in CASES)
    for section in ("Shapes:", "VJP:", "Source:"):
        assert section in op.__doc__, f"{op.__name__}: the docstring has no {section}"


# --- value, dtype, manners --------------------------------------------------------------------


@cases()
def test_value(case):
    assert_close(case.f(*leaves(case)).data, case.expected(*case.arrays), 1e-12)


@cases()
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_in_is_dtype_out(case, dtype):
    tensors = leaves(case, dtype)
    out = case.f(*tensors)
    assert out.dtype == dtype
    out.backward(cotangent(out, dtype))
    assert [leaf.grad.dtype for leaf in tensors] == [dtype] * len(tensors)
    assert [leaf.grad.shape for leaf in tensors] == [leaf.shape for leaf in tensors]


@cases(PRIMITIVE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_below_the_tensor(case, dtype):
    """A leaf casts its gradient, a node in between does not: look at what the vjp returns."""
    out, vjp = case.pull(*[xp.asarray(x.astype(dtype)) for x in case.arrays])
    assert out.dtype == dtype
    assert [dx.dtype for dx in vjp(cotangent(out, dtype))] == [dtype] * len(case.arrays)


@cases()
def test_float32_is_float64_rounded(case):
    """Value and gradient in float32 are those of float64 to its rounding: nothing overflows."""
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        both = zip(run(case, "float32"), run(case), strict=True)
    for index, (small, large) in enumerate(both):
        # Of numbers near 1000, float32 has lost four digits before the op sees them.
        size = max(np.abs(x).max(initial=1) for x in case.arrays)
        assert_close(small, large, 1e-6 * max(3, size), f"result {index}")


def run(case: Case, dtype: str = "float64", f=None) -> list:
    """The value, then the gradient in each array."""
    tensors = leaves(case, dtype)
    out = (f or case.f)(*tensors)
    out.backward(cotangent(out, dtype))
    return [to_numpy(out.data)] + [to_numpy(leaf.grad) for leaf in tensors]


@cases()
def test_inputs_are_not_written_to(case):
    """Read-only arrays would raise; a copy shows writes that go around the flag."""
    tensors = leaves(case)
    for leaf in tensors:
        leaf.data.flags.writeable = False
    out = case.f(*tensors)
    out.backward(cotangent(out))
    for leaf, x in zip(tensors, case.arrays, strict=True):
        np.testing.assert_array_equal(to_numpy(leaf.data), x)
    writeable = leaves(case)
    case.f(*writeable).backward(cotangent(out))
    for leaf, x in zip(writeable, case.arrays, strict=True):
        np.testing.assert_array_equal(to_numpy(leaf.data), x)


@cases(PRIMITIVE)
def test_the_cotangent_is_not_written_to_and_a_vjp_can_run_twice(case):
    """Nodes may share a cotangent. And a vjp that spoils its own cache would differ when rerun."""
    out, vjp = case.pull(*map(xp.asarray, case.arrays))
    g = cotangent(out)
    kept, value = to_numpy(g).copy(), to_numpy(out).copy()
    g.flags.writeable = False
    first = [to_numpy(dx).copy() for dx in vjp(g)]
    for again, dx in zip(vjp(g), first, strict=True):
        np.testing.assert_array_equal(to_numpy(again), dx)
    np.testing.assert_array_equal(to_numpy(g), kept)
    np.testing.assert_array_equal(to_numpy(out), value)


# --- the gradient -----------------------------------------------------------------------------


@cache
def gradient_error(name: str) -> float:
    """Differences step in proportion to an argument's size: of 1000 + z, difference in z."""
    case = BY_ID[name]
    offsets = [1000.0 * (x.size > 0 and bool((x > 500).all())) for x in case.arrays]

    def f(*tensors):
        return case.f(*[z + c if c else z for z, c in zip(tensors, offsets, strict=True)])

    return check_grads(f, *[x - c for x, c in zip(case.arrays, offsets, strict=True)])


@cases()
def test_gradient_against_differences(case):
    assert gradient_error(case.id) < 1e-8


def test_most_gradients_agree_to_nine_digits():
    """The tolerance above is for the few with strong curvature: the rest are far below it."""
    errors = sorted((gradient_error(name), name) for name in BY_ID)
    print("worst gradients:", *(f"{error:.1e} {name}" for error, name in errors[-5:]), sep="\n  ")
    assert sum(error < 1e-9 for error, _ in errors) >= 0.95 * len(errors)


@cases([case for case in CASES if case.linear])
def test_adjoint_identity(case):
    """<g, f(u) - f(0)> = <vjp(g), u> to rounding, no differences: f is linear plus a constant."""
    rng = np.random.default_rng(2)
    g = cotangent(case.expected(*case.arrays))
    grads = run(case)[1:]
    for group in case.linear:
        us = [rng.standard_normal(x.shape) for x in case.arrays]

        def at(scale, group=group, us=us):
            moved = [scale * us[i] if i in group else x for i, x in enumerate(case.arrays)]
            return case.f(*[Tensor(xp.asarray(x)) for x in moved]).data

        forward = to_numpy(g * (at(1) - at(0)))
        backward = [grads[i] * us[i] for i in group]
        scale = np.abs(forward).sum() + 1
        error = abs(forward.sum() - sum(terms.sum() for terms in backward)) / scale
        assert error < 1e-12, f"arguments {group}"


@cases([case for case in CASES if case.reference])
def test_twin_in_reference(case):
    """Value and gradients of the fused op and of the same function composed from ops."""
    pairs = zip(run(case), run(case, f=case.reference), strict=True)
    for index, (fused, composed) in enumerate(pairs):
        assert_close(fused, composed, 1e-12, f"result {index}")


def test_cross_entropy_of_a_class_that_is_masked_out():
    """A logit of -inf means probability 0: no other target's loss or gradient becomes NaN."""
    x = np.array([[1.0, -math.inf, 2.0], [0.5, 1.5, -math.inf]])
    logits = Tensor(xp.asarray(x), requires_grad=True)
    loss = F.cross_entropy(logits, ids([2, 0]))
    loss.backward()
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    assert_close(loss.data, -np.log([p[0, 2], p[1, 0]]).mean(), 1e-15)
    assert_close(logits.grad, (p - np.array([[0, 0, 1], [1, 0, 0]])) / 2, 1e-15)


def test_cross_entropy_of_a_row_that_does_not_count():
    """Whatever stands in an ignored row, also where its probability of class 0 is 0."""
    x = np.array([[1.0, 3.0, 2.0], [-math.inf, 1.5, 0.5]])
    logits = Tensor(xp.asarray(x), requires_grad=True)
    loss = F.cross_entropy(logits, ids([2, -1]), ignore_index=-1)
    loss.backward()
    assert_close(loss.data, nats(x[:1], [2], None, 0.0), 1e-15)
    np.testing.assert_array_equal(to_numpy(logits.grad)[1], 0)


# --- the operators ----------------------------------------------------------------------------

OPERATORS = {
    "x + y": lambda x, y: x + y,
    "x - y": lambda x, y: x - y,
    "x * y": lambda x, y: x * y,
    "x / y": lambda x, y: x / y,
    "x ** y": lambda x, y: x**y,
    "x @ y.T": lambda x, y: x @ y.T,
    "-x + y": lambda x, y: -x + y,
    "x + 2.0, 2.0 + y": lambda x, y: (x + 2.0) * (2.0 + y),
    "x - 2.0, 2.0 - y": lambda x, y: (x - 2.0) * (2.0 - y),
    "x * 2.0, 2.0 * y": lambda x, y: x * 2.0 + 2.0 * y,
    "x / 2.0, 2.0 / y": lambda x, y: x / 2.0 + 2.0 / y,
    "x ** 2, 2.0 ** y": lambda x, y: x**2 + 2.0**y,
    "x[...]": lambda x, y: x[1] * y[:, 1:2],
    "exp": lambda x, y: x.exp() + y if isinstance(x, Tensor) else np.exp(x) + y,
    "log": lambda x, y: x.log() + y if isinstance(x, Tensor) else np.log(x) + y,
    "sum": lambda x, y: x.sum(axis=0) + y.sum(),
    "mean": lambda x, y: x.mean(axis=1, keepdims=True) + y.mean(),
    "max": lambda x, y: x.max(axis=0) + y.max(),
    "var": lambda x, y: x.var(axis=-1) + y.var(),
    "reshape": lambda x, y: x.reshape(9) + y.reshape(-1),
    "transpose": lambda x, y: x.transpose(1, 0) + y.transpose(),
}


@pytest.mark.parametrize("expression", OPERATORS.values(), ids=OPERATORS)
def test_operators_and_methods(expression):
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0.5, 2, (3, 3)), rng.uniform(0.5, 2, (3, 3))
    out = expression(Tensor(xp.asarray(x)), Tensor(xp.asarray(y)))
    assert isinstance(out, Tensor)
    assert_close(out.data, expression(x, y), 1e-14)
    assert check_grads(expression, x, y) < 1e-8


# --- shapes that nobody thought of ------------------------------------------------------------


@HYPOTHESIS
@given(shapes.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4), st.data())
def test_unbroadcast_is_the_adjoint_of_broadcasting(drawn, data):
    """For any two shapes that broadcast: the sums over stretched axes are the right ones."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x, y, u, v = (rng.standard_normal(s) for s in [*drawn.input_shapes, *drawn.input_shapes])
    g = rng.standard_normal(drawn.result_shape)
    a, b = (Tensor(xp.asarray(z), requires_grad=True) for z in (x, y))
    (a + b).backward(xp.asarray(g))
    left, right = (g * (u + v)).sum(), (to_numpy(a.grad) * u).sum() + (to_numpy(b.grad) * v).sum()
    assert abs(left - right) < 1e-12 * (1 + np.abs(g * (u + v)).sum())
    a.grad = b.grad = None
    (a * b).backward(xp.asarray(g))
    for left, right in (
        ((g * u * y).sum(), (to_numpy(a.grad) * u).sum()),
        ((g * x * v).sum(), (to_numpy(b.grad) * v).sum()),
    ):
        assert abs(left - right) < 1e-12 * (1 + np.abs(g).sum() * 10)


@HYPOTHESIS
@given(shapes.array_shapes(min_dims=1, max_dims=4, max_side=4), st.booleans(), st.data())
@pytest.mark.parametrize("name", ["sum", "mean", "max", "var", "logsumexp"])
def test_reductions_over_any_axes(name, shape, keepdims, data):
    """Value as NumPy's; and shifting all of x by t moves the value by what the gradients add to."""
    axis = data.draw(
        st.none()
        | st.integers(-len(shape), len(shape) - 1)
        | shapes.valid_tuple_axes(len(shape), min_size=1)
    )
    x = np.random.default_rng(0).permutation(math.prod(shape)).reshape(shape) / 7.0
    tensor = Tensor(xp.asarray(x), requires_grad=True)
    out = getattr(ops, name)(tensor, axis=axis, keepdims=keepdims)
    expected = {"logsumexp": lambda x, **axes: np.log(np.exp(x).sum(**axes))}
    f = expected.get(name) or getattr(np, name)
    assert_close(out.data, f(x, axis=axis, keepdims=keepdims), 1e-13)
    g = cotangent(out)
    out.backward(g)
    assert tensor.grad.shape == shape
    # Row by row, d out / d t is the row's length for a sum, 0 for a variance, and else 1.
    n = x.size // out.size
    wanted = to_numpy(g) * {"sum": n, "var": 0}.get(name, 1)
    totals = to_numpy(tensor.grad).sum(axis=axis, keepdims=keepdims)
    assert_close(totals, wanted, 1e-12)


# --- the error function -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype, tol", [("float64", 1e-15), ("float32", 2e-7)])
def test_erf_against_the_c_library(dtype, tol):
    x = np.concatenate([np.linspace(-7, 7, 60_001), [-1e3, -1e-9, 0, 1e-300, 1e3]]).astype(dtype)
    found = erf(xp.asarray(x))
    assert found.dtype == dtype
    expected = np.array([math.erf(value) for value in x])
    assert np.abs(to_numpy(found) - expected).max() <= tol


# --- errors -----------------------------------------------------------------------------------


def ones(*shape: int) -> Tensor:
    return Tensor(xp.ones(shape))


ERRORS = {
    "matmul: number": (lambda: ops.matmul(ones(2), 2.0), r"1 dimension or more, got \(2,\), \(\)"),
    "matmul: number first": (lambda: ops.matmul(2.0, ones(2)), r"or more, got \(\), \(2,\)"),
    "mean: empty": (lambda: ops.mean(ones(0, 3), axis=0), r"over axis 0 of shape \(0, 3\)"),
    "var: empty": (lambda: ops.var(ones(3, 0)), r"over axis None of shape \(3, 0\)"),
    "split: none": (lambda: ops.split(ones(4), 0), "does not split into 0 parts"),
    "heads: none": (
        lambda: causal_self_attention(ones(1, 2, 6), n_head=0),
        r"does not split into 3 \* 0 heads",
    ),
    "label smoothing": (
        lambda: F.cross_entropy(ones(1, 2), np.array([0]), label_smoothing=1.5),
        "label_smoothing must be in 0..1, got 1.5",
    ),
    "dropout: p without rng": (
        lambda: F.dropout(ones(2), p=2.0, rng=None),
        "p must be in 0 <= p < 1, got 2.0",
    ),
    "gelu: form": (lambda: F.gelu(ones(2), approximate="erf"), "'tanh' or 'none', got 'erf'"),
    "layer_norm: w": (
        lambda: F.layer_norm(ones(3, 4), ones(3), ones(4)),
        r"layer_norm: x \(3, 4\) needs weights of \(4,\), got \(3,\), \(4,\)",
    ),
    "layer_norm: eps": (
        lambda: F.layer_norm(ones(3, 4), ones(4), ones(4), eps=-1e-5),
        "layer_norm: eps must be at least 0, got -1e-05",
    ),
    "rms_norm: eps": (
        lambda: rms_norm(ones(3, 4), ones(4), eps=math.nan),
        "rms_norm: eps must be at least 0, got nan",
    ),
    "layer_norm: b": (
        lambda: F.layer_norm(ones(3, 4), ones(4), ones(1)),
        r"needs weights of \(4,\), got \(4,\), \(1,\)",
    ),
    "rms_norm: w": (
        lambda: rms_norm(ones(2, 3, 4), ones(1)),
        r"rms_norm: x \(2, 3, 4\) needs weights of \(4,\), got \(1,\)",
    ),
    "embedding: kind": (
        lambda: F.embedding(ones(4, 2), ones(3)),
        "idx must be integers, got float",
    ),
    "embedding: negative": (
        lambda: F.embedding(ones(4, 2), ids([0, -1])),
        re.escape("idx must be in 0..3, got -1..0"),
    ),
    "embedding: too large": (
        lambda: F.embedding(ones(4, 2), ids([4])),
        re.escape("idx must be in 0..3, got 4..4"),
    ),
    "dropout: p 1": (lambda: F.dropout(ones(2), p=1, rng=None), "0 <= p < 1, got 1"),
    "dropout: p < 0": (lambda: F.dropout(ones(2), p=-0.1, rng=None), "0 <= p < 1, got -0.1"),
    "linear: lengths": (
        lambda: F.linear(ones(2, 3), ones(4, 3)),
        "linear: x .* do not fit",
    ),
    **{
        f"attention: {what}": (
            lambda shapes=shapes: attention(*[ones(*shape) for shape in shapes]),
            re.escape("attention: q {}, k {}, v {} must agree".format(*shapes)),
        )
        for what, shapes in {
            "D": ((4, 3), (4, 2), (4, 3)),
            "Tk": ((4, 3), (5, 3), (4, 3)),
            "heads, which would broadcast": ((2, 4, 3), (1, 4, 3), (2, 4, 3)),
            "axes": ((2, 4, 3), (4, 3), (4, 3)),
            "the axes of v": ((4, 3), (4, 3), (1, 4, 3)),
            "vectors": ((3,), (3,), (3,)),
            "no keys": ((2, 3), (0, 3), (0, 3)),
        }.items()
    },
    "attention: bias of another shape": (
        lambda: attention(*[ones(2, 4, 3)] * 3, bias=np.zeros((4, 3))),
        r"bias \(4, 3\) does not broadcast to the scores \(2, 4, 4\)",
    ),
    "attention: bias that enlarges": (
        lambda: attention(*[ones(4, 3)] * 3, bias=np.zeros((2, 4, 4))),
        r"bias \(2, 4, 4\) does not broadcast to the scores \(4, 4\)",
    ),
    "attention: bias that stretches an axis": (
        lambda: attention(*[ones(1, 4, 3)] * 3, bias=np.zeros((2, 4, 4))),
        r"bias \(2, 4, 4\) does not broadcast to the scores \(1, 4, 4\)",
    ),
    "attention: a query without keys": (
        lambda: attention(*[ones(2, 3)] * 3, bias=np.array([[0, 0], [-math.inf] * 2])),
        r"bias \(2, 2\) leaves a query no key to see",
    ),
    "attention: no keys for any query": (
        lambda: attention(*[ones(2, 3)] * 3, bias=-math.inf),
        "leaves a query no key to see",
    ),
    "attention: bias inf": (
        lambda: attention(*[ones(2, 3)] * 3, bias=math.inf),
        "bias must be numbers below inf",
    ),
    "attention: bias not a number": (
        lambda: attention(*[ones(2, 3)] * 3, bias=np.array([0, math.nan])),
        "bias must be numbers below inf",
    ),
    "attention: a mask for a bias": (
        lambda: attention(*[ones(2, 3)] * 3, bias=np.tri(2, dtype=bool)),
        "bias must be numbers below inf",
    ),
    "attention: p 1": (lambda: attention(*[ones(4, 3)] * 3, p=1.0), "0 <= p < 1, got 1.0"),
    "causal_attention: T": (
        lambda: causal_attention(ones(4, 3), ones(5, 3), ones(5, 3)),
        r"q \(4, 3\) and k \(5, 3\) must agree in T",
    ),
    "causal_attention: bias of another shape": (
        lambda: causal_attention(*[ones(4, 3)] * 3, bias=np.zeros(3)),
        r"bias \(3,\) does not broadcast to the scores \(4, 4\)",
    ),
    "causal_attention: the first query's one key forbidden": (
        lambda: causal_attention(*[ones(2, 3)] * 3, bias=np.array([-math.inf, 0])),
        r"bias \(2, 2\) leaves a query no key to see",
    ),
    "causal_attention: bias inf where the mask is -inf": (
        lambda: causal_attention(*[ones(2, 3)] * 3, bias=np.array([0, math.inf])),
        "bias must be numbers below inf",
    ),
    "rotary: D": (lambda: rotary(ones(4, 3)), "need an even number, got 3"),
    "rotary: no D": (lambda: rotary(ones(4, 0)), "need an even number, got 0"),
    "rotary: axes": (lambda: rotary(ones(4)), r"x must be \(..., T, D\), got \(4,\)"),
    "rotary: base": (lambda: rotary(ones(4, 2), base=0), "base must be positive, got 0"),
    "causal_attention: shapes": (
        lambda: causal_attention(ones(4, 3), ones(5, 3), ones(4, 3)),
        r"q \(4, 3\), k \(5, 3\), v \(4, 3\) must agree",
    ),
    "causal_attention: p 1": (
        lambda: causal_attention(*[ones(4, 3)] * 3, p=1.0, rng=generator()),
        "p must be in 0 <= p < 1, got 1.0",
    ),
    "causal_attention: p < 0": (
        lambda: causal_attention(*[ones(4, 3)] * 3, p=-0.5, rng=generator()),
        "p must be in 0 <= p < 1, got -0.5",
    ),
    "causal_self_attention: heads": (
        lambda: causal_self_attention(ones(1, 2, 12), n_head=3),
        r"\(1, 2, 12\) does not split into 3 \* 3 heads",
    ),
    "cross_entropy: shapes": (
        lambda: F.cross_entropy(ones(4, 5), ids([0, 1, 2])),
        r"logits \(4, 5\) need targets \(4,\), got \(3,\)",
    ),
    "cross_entropy: kind": (
        lambda: F.cross_entropy(ones(2, 5), ones(2)),
        "targets must be integers, got float",
    ),
    "cross_entropy: too large": (
        lambda: F.cross_entropy(ones(2, 5), ids([0, 5])),
        re.escape("targets must be in 0..4, got 0..5"),
    ),
    "cross_entropy: negative": (
        lambda: F.cross_entropy(ones(2, 5), ids([0, -1]), ignore_index=-100),
        re.escape("targets must be in 0..4, got -1..0"),
    ),
    "cross_entropy: all ignored": (
        lambda: F.cross_entropy(ones(2, 5), ids([-1, -1]), ignore_index=-1),
        "no target counts",
    ),
    "split: rest": (
        lambda: ops.split(ones(3, 4), 3, axis=1),
        r"axis 1 of shape \(3, 4\) does not split into 3 parts",
    ),
    "scatter_add: too large": (
        lambda: ops.scatter_add(ones(2, 3), ids([0, 4]), n=4),
        re.escape("idx must be in 0..3, got 0..4"),
    ),
    "scatter_add: negative": (
        lambda: ops.scatter_add(ones(2, 3), ids([0, -1]), n=4),
        re.escape("idx must be in 0..3, got -1..0"),
    ),
}


# What only a look at a bias's values can tell.
LOOK = pytest.mark.skipif(xp is not np, reason="on a GPU the values of a bias are not looked at")
FOUND_BY_LOOKING = (
    "attention: a query without keys",
    "attention: no keys for any query",
    "attention: bias inf",
    "attention: bias not a number",
    "causal_attention: the first query's one key forbidden",
    "causal_attention: bias inf where the mask is -inf",
)


@pytest.mark.parametrize(
    "call, message",
    [pytest.param(*error, id=name, marks=LOOK if name in FOUND_BY_LOOKING else ())
     for name, error in ERRORS.items()],
)  # fmt: skip
def test_errors_name_the_argument_and_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_is_drawn_where_nothing_is_dropped():
    """A training step at p = 0 must not move the generator, nor pay for random numbers."""
    rng = np.random.default_rng(0)
    x = Tensor(xp.ones((1, 4, 6)))
    F.dropout(x, p=0.0, rng=rng)
    causal_self_attention(x, n_head=1, p=0.0, rng=rng)
    assert rng.random() == np.random.default_rng(0).random()


def test_ids_and_targets_may_be_lists():
    w = Tensor(xp.asarray([[1.0, 2.0], [3.0, 5.0]]))
    assert F.embedding(w, [1, 0]).data.tolist() == [[3.0, 5.0], [1.0, 2.0]]
    assert ops.scatter_add(w, [1, 1], n=2).data.tolist() == [[0.0, 0.0], [4.0, 7.0]]
    listed, array = (F.cross_entropy(w, t).item() for t in ([1, 0], np.array([1, 0])))
    assert listed == array


def slopes(op, *values):
    """The gradients of a scalar function at one point, a kink perhaps."""
    leaves = [Tensor(xp.asarray(value), requires_grad=True) for value in values]
    op(*leaves).backward()
    return [leaf.grad.item() for leaf in leaves]


def test_the_power_s_slopes_where_logarithms_and_reciprocals_fail():
    assert slopes(ops.power, 0.0, 0.0)[0] == 0  # x^0 is 1
    assert slopes(ops.power, 1e200, 0.0)[0] == 0  # though x^2 would overflow
    assert slopes(ops.power, 3.0, 0.0) == [0, math.log(3)]
    assert slopes(ops.power, 3.0, 1.0) == [1, pytest.approx(3 * math.log(3))]
    assert slopes(ops.power, 0.0, 2.0) == [0, 0]
    assert slopes(ops.power, -1.5, 2.0) == [-3, 0]  # no derivative in y: 0
    x = Tensor(xp.asarray([0.0, 2.0, -3.0]), requires_grad=True)
    ops.sum(x ** xp.asarray([0.0, 1.0, 2.0])).backward()
    np.testing.assert_array_equal(to_numpy(x.grad), [0, 1, -6])


def test_relu_passes_nothing_at_its_kink():
    assert slopes(ops.relu, 0.0) == [0]


def test_log_softmax_shifts_each_row_by_its_own_maximum():
    x = np.array([[1000.0, 0.0], [-1000.0, -1001.0]])
    out = F.log_softmax(Tensor(x)).numpy()
    np.testing.assert_allclose(out, [[0, -1000], [-0.31326169, -1.31326169]], rtol=1e-8)


def test_split_without_an_axis_and_into_one():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(ops.split(x, 2)[1].numpy(), [[3, 4, 5]])
    (whole,) = ops.split(x, 1, axis=1)
    np.testing.assert_array_equal(whole.numpy(), x.numpy())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.cross_entropy(ones(2, 5), ids([-1, -1]), ignore_index=-1),
         "cross_entropy: no target counts"),
        (lambda: F.cross_entropy(ones(2, 3, 5), ids([0, 1])),
         "logits (2, 3, 5) need targets (2, 3), got (2,)"),
        (lambda: attention(*[ones(2, 3)] * 3, bias=np.tri(2, dtype=bool)),
         "bias must be numbers below inf, -inf where a key is forbidden"),
        pytest.param(lambda: attention(*[ones(2, 3)] * 3, bias=math.inf),
                     "bias must be numbers below inf, -inf where a key is forbidden", marks=LOOK),
        (lambda: causal_attention(ones(2, 3), ones(2, 4), ones(2, 3)),
         "causal_attention: q (2, 3), k (2, 4), v (2, 3) must agree as "
         "(..., Tq, D), (..., Tk, D), (..., Tk, Dv) with Tk >= 1"),
        (lambda: ops.matmul(ones(2), 2.0),
         "matmul needs arrays of 1 dimension or more, got (2,), ()"),
    ],
)  # fmt: skip
def test_messages_to_the_letter(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message


def test_rows_of_very_different_size_do_not_disturb_each_other():
    x = np.array([[1000.0, 999.0], [-1000.0, -1001.0]])
    p = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(F.softmax(Tensor(x)).numpy(), [[p, 1 - p]] * 2)
    loss = F.cross_entropy(Tensor(x), [0, 1]).item()
    assert loss == pytest.approx(-(math.log(p) + math.log(1 - p)) / 2)


def test_cross_entropy_at_the_ends_of_its_options():
    logits = np.array([[0.0, math.log(3)], [1.0, 1.0]])
    uniform = F.cross_entropy(Tensor(logits), [0, 1], label_smoothing=1.0).item()
    rows = [-(math.log(0.25) + math.log(0.75)) / 2, math.log(2)]
    assert uniform == pytest.approx(sum(rows) / 2)
    one_token = F.cross_entropy(Tensor(np.zeros((2, 1))), [-1, 0], ignore_index=-1)
    assert one_token.item() == 0  # an ignored target stands for token 0, the only one there is


def test_a_tie_shares_the_gradient_of_the_maximum():
    x = Tensor(np.array([[2.0, 2.0, 1.0], [0.0, 3.0, 3.0]]), requires_grad=True)
    ops.max(x, axis=1).backward(np.array([1.0, 4.0]))
    np.testing.assert_array_equal(to_numpy(x.grad), [[0.5, 0.5, 0], [0, 2, 2]])


def test_dropout_drops_exactly_the_share_p():
    """Of a generator's evenly spaced numbers 0, 1/8, ..., 7/8, those below p and no other."""

    class Even:
        def random(self, shape, dtype):
            return (np.arange(8) / 8).astype(dtype).reshape(shape)

    for p, kept in ((0.25, 6), (0.5, 4), (0.75, 2)):
        out = F.dropout(ones(8), p=p, rng=Even()).numpy()
        np.testing.assert_allclose(out, [0] * (8 - kept) + [1 / (1 - p)] * kept)


@pytest.mark.parametrize("op", [attention, causal_attention])
def test_a_bias_below_the_range_of_float32_forbids_a_key_like_minus_infinity(op):
    """-1e300 is finite, yet in float32 it is -inf: a whole row of it must not become 0 / 0."""
    q, k, v = (Tensor(xp.asarray(normal, dtype="float32")) for normal in np.eye(3)[:, None] + 1)
    q, k, v = (ops.concatenate(x, 2 * x) for x in (q, k, v))  # (2, 3)
    far, never = (np.array([[0.0, 0.0], [low, 0.0]]) for low in (-1e300, -math.inf))
    with np.errstate(over="ignore"):
        hidden = [op(q, k, v, bias=bias).numpy() for bias in (far, never)]
        np.testing.assert_array_equal(*hidden)


@LOOK
@pytest.mark.parametrize("op", [attention, causal_attention])
def test_a_bias_that_becomes_minus_infinity_in_float32_may_leave_no_key(op):
    q, k, v = (Tensor(xp.ones((2, 3), "float32")) for _ in range(3))
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="leaves a query no key"):
        op(q, k, v, bias=np.full((2, 2), -1e300))


@pytest.mark.parametrize("op, first", [(attention, 5.0), (causal_attention, 3.0)])
def test_attention_with_scores_in_the_thousands(op, first):
    """exp(2000) overflows; the second key has all the weight wherever it may be seen."""
    q, k, v = (Tensor(xp.asarray(x)) for x in ([[1e3], [1e3]], [[1.0], [2.0]], [[3.0], [5.0]]))
    np.testing.assert_array_equal(op(q, k, v).numpy(), [[first], [5.0]])


def test_a_norm_without_eps_is_exact():
    x, one = Tensor(xp.asarray([[1.0, 3.0, 5.0, 7.0]])), ones(4)
    centred = F.layer_norm(x, one, Tensor(xp.zeros(4)), eps=0).numpy()
    np.testing.assert_allclose(centred, [np.array([-3, -1, 1, 3]) / math.sqrt(5)], rtol=1e-14)
    assert (rms_norm(x, one, eps=0).numpy() ** 2).mean() == pytest.approx(1, rel=1e-14)


# --- attention in blocks of queries ---

BLOCKS = [(1, 0), (2, 0), (2, 9), (3, 5), (64, 0)]  # queries at a time, keys whose weights are kept


def gradients(op, arrays, **options):
    """op's output, and the gradients of its sum with random weights."""
    inputs = [Tensor(xp.asarray(x), requires_grad=True) for x in arrays]
    out = op(*inputs, **options)
    out.backward(xp.asarray(np.random.default_rng(5).standard_normal(out.shape)))
    return [out.numpy(), *(to_numpy(x.grad) for x in inputs)]


@pytest.mark.parametrize(("block", "kept"), BLOCKS)
@pytest.mark.parametrize("bias", [None, "window", "heads"])
def test_blocks_of_queries_change_nothing(block, kept, bias, monkeypatch):
    rng, T = np.random.default_rng(0), 7
    window = np.where(np.tri(T, k=-3, dtype=bool), -math.inf, 0.5)  # three keys back at most
    bias = {"window": window, "heads": rng.standard_normal((3, T, T))}.get(bias)
    arrays = [rng.standard_normal((2, 3, T, n)) for n in (4, 4, 5)]
    wanted = gradients(reference.causal_attention, arrays, bias=bias)
    monkeypatch.setattr("minigpt.attention.BLOCK", block)
    monkeypatch.setattr("minigpt.attention.KEPT", kept)
    for found, right in zip(gradients(causal_attention, arrays, bias=bias), wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("block", "kept"), BLOCKS)
def test_weights_dropped_in_blocks_are_dropped_in_the_gradient_too(block, kept, monkeypatch):
    monkeypatch.setattr("minigpt.attention.BLOCK", block)
    monkeypatch.setattr("minigpt.attention.KEPT", kept)
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 6, 4))
    worst = check_grads(
        lambda q, k, v: causal_attention(q, k, v, p=0.3, rng=np.random.default_rng(1)), q, k, v
    )
    assert worst < 1e-8
    dropped = gradients(causal_attention, (q, k, v), p=0.3, rng=np.random.default_rng(1))[0]
    assert abs(dropped - gradients(causal_attention, (q, k, v))[0]).max() > 0.1


def peak(run):
    """The most bytes that run() held at once, beyond what there was before."""
    tracemalloc.start()
    run()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.skipif(xp.__name__ == "cupy", reason="tracemalloc does not see a GPU's memory")
def test_long_contexts_take_memory_in_proportion_to_their_length(monkeypatch):
    """T = 2048 in 6 heads of 64: less for forward and backward than the (H, T, T) weights."""

    def run(T):
        rng = np.random.default_rng(0)
        qkv = Tensor(rng.standard_normal((1, T, 3 * 384), dtype="float32"), requires_grad=True)
        monkeypatch.setattr(memory, "BLOCKS", memory.Blocks())  # with no block from before
        monkeypatch.setattr(memory, "LARGE", memory.WORTHWHILE)  # the most that it can take
        return peak(lambda: causal_self_attention(qkv, n_head=6).sum().backward())

    whole = 6 * 2048**2 * 4
    found = {T: run(T) for T in (1024, 2048)}
    assert found[2048] < 0.75 * whole
    assert found[2048] < 2.3 * found[1024]


def test_a_long_context_is_exact_to_the_precision_of_float32():
    qkv = np.random.default_rng(0).standard_normal((1, 700, 3 * 16))
    wanted = gradients(reference.causal_self_attention, [qkv], n_head=2)
    for found, right in zip(
        gradients(causal_self_attention, [qkv.astype("float32")], n_head=2), wanted, strict=True
    ):
        assert found.dtype == np.float32
        assert abs(found - right).max() < 1e-6 * abs(right).max()
