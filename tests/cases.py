"""One row or more for every primitive: how to call it, on what, and what NumPy says it gives.

test_ops.py runs every row through the same checks and fails, by name, for a primitive without a
row. A new primitive is one function in the package and one `row(...)` here.

Inputs lie in the op's domain and away from its kinks. A row's random numbers depend on its id
alone, so that a new row leaves the others as they are.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt import functional as F
from minigpt import ops, reference
from minigpt.attention import attention, causal_attention, causal_self_attention
from minigpt.backend import xp
from minigpt.positions import rotary
from minigpt.tensor import Tensor
from minigpt.variants import norms
from minigpt.variants.llama import swiglu


@dataclass(frozen=True, eq=False)
class Case:
    """A primitive at one set of inputs.

    call: takes the op as its first argument, so that one line serves the primitive itself, its
        `.forward` on raw arrays, and its twin in reference.py.
    arrays: float64, every one differentiable; integers and options are bound in `call`.
    expected: the same value from the arrays, in plain NumPy or a Python loop.
    linear: groups of argument numbers in which the op is jointly linear, or linear plus a
        constant, while the other arguments stay fixed.
    """

    id: str
    op: Callable
    call: Callable
    arrays: tuple[np.ndarray, ...]
    expected: Callable[..., np.ndarray]
    linear: tuple[tuple[int, ...], ...] = ()
    reference: Callable[..., Tensor] | None = None

    def f(self, *tensors: Tensor) -> Tensor:
        return self.call(self.op, *tensors)

    def pull(self, *arrays: Any) -> tuple[Any, Callable[[Any], list]]:
        """The raw value, and a function from a cotangent to the raw gradients, one an array."""
        arguments: list = []

        def forward(*args, **options):
            arguments.extend(args)
            return self.op.forward(*args, **options)

        out, vjp = self.call(forward, *arrays)
        places = [next(i for i, a in enumerate(arguments) if a is x) for x in arrays]

        def gradients(g):
            if not callable(vjp):
                return [vjp[i](g) for i in places]
            found = vjp(g)
            return [found[i] for i in places]

        return out, gradients


# --- inputs: each takes the row's generator ---------------------------------------------------


def normal(*shape: int) -> Callable:
    return lambda rng: rng.standard_normal(shape)


def positive(*shape: int) -> Callable:
    return lambda rng: rng.uniform(0.5, 2.0, shape)


def apart(*shape: int, offset: float = 0.0) -> Callable:
    """A shuffled grid with steps of 0.2: no two values, and no value and 0, within 0.1."""
    n = math.prod(shape)
    return lambda rng: ((rng.permutation(n) - n // 2) * 0.2 + 0.1 + offset).reshape(shape)


def fixed(values: Any) -> Callable:
    return lambda rng: np.array(values, dtype=np.float64)


CASES: list[Case] = []


def row(
    op: Callable,
    what: str,
    call: Callable,
    expected: Callable,
    *makers: Callable,
    linear: tuple[tuple[int, ...], ...] = (),
    twin: bool = True,
) -> None:
    """Add a row. twin=False: the twin in reference.py is not accurate at these inputs."""
    name = f"{op.__name__}: {what}"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    again = getattr(reference, op.__name__, None) if twin else None
    CASES.append(
        Case(
            id=name.replace(" ", ""),
            op=op,
            call=call,
            arrays=tuple(np.asarray(make(rng)) for make in makers),
            expected=expected,
            linear=linear,
            reference=None if again is None else (lambda *tensors: call(again, *tensors)),
        )
    )


def generator() -> np.random.Generator:
    """The same random numbers at every call, so that a random op is a function."""
    return np.random.default_rng(7)


def ids(values: Any) -> Any:
    return xp.asarray(np.array(values, dtype=np.int64))


# --- two arguments, broadcasting in both directions -------------------------------------------

SHAPES = [
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((4,), (3, 4)),
    ((3, 1), (1, 4)),
    ((2, 1, 4), (3, 1)),
    ((3,), ()),
    ((), (2, 3)),
    ((1, 1), (3,)),
    ((3, 3), (3,)),
    ((1, 3, 4), (3, 1)),
]
BINARY: list[tuple] = [
    (ops.add, np.add, normal, normal, ((0, 1),)),
    (ops.subtract, np.subtract, normal, normal, ((0, 1),)),
    (ops.multiply, np.multiply, normal, normal, ((0,), (1,))),
    (ops.divide, np.divide, normal, positive, ((0,),)),
    (ops.power, np.power, positive, normal, ()),
    (ops.maximum, np.maximum, apart, lambda *shape: apart(*shape, offset=0.1), ()),
]
for op, function, x, y, linear in BINARY:
    for x_shape, y_shape in SHAPES:
        what = f"{x_shape} {y_shape}"
        row(op, what, lambda op, x, y: op(x, y), function, x(*x_shape), y(*y_shape), linear=linear)
    # A Python number on either side: it takes the array's dtype.
    row(
        op,
        "(3,4) 2.0",
        lambda op, x: op(x, 2.0),
        lambda x, f=function: f(x, 2.0),
        apart(3, 4) if op is ops.maximum else positive(3, 4),
        linear=tuple(group for group in ((0,),) if linear),
    )
    row(
        op,
        "2.0 (3,4)",
        lambda op, y: op(2.0, y),
        lambda y, f=function: f(2.0, y),
        apart(3, 4, offset=2) if op is ops.maximum else positive(3, 4),
        linear=tuple(group for group in ((0,),) if len(linear) and op is not ops.divide),
    )
row(ops.power, "negative base, 3", lambda op, x: op(x, 3), lambda x: x * x * x, apart(3, 4))
row(ops.power, "negative base, -1", lambda op, x: op(x, -1), lambda x: 1 / x, apart(3, 4))
row(ops.power, "base 0, 2", lambda op, x: op(x, 2), lambda x: x * x, fixed([-1, 0, 1]))

CHOOSE = np.array([[True, False, True, True], [False, False, True, False], [True] * 4])
for x_shape, y_shape in SHAPES[:4] + [((), (4,))]:
    row(
        ops.where,
        f"{x_shape} {y_shape}",
        lambda op, x, y: op(xp.asarray(CHOOSE), x, y),
        lambda x, y: np.where(CHOOSE, x, y),
        normal(*x_shape),
        normal(*y_shape),
        linear=((0, 1),),
    )
row(
    ops.where,
    "(3,4) 0.5",
    lambda op, x: op(xp.asarray(CHOOSE), x, 0.5),
    lambda x: np.where(CHOOSE, x, 0.5),
    normal(3, 4),
    linear=((0,),),
)

# --- one argument, elementwise ----------------------------------------------------------------

UNARY: list[tuple] = [
    (ops.negative, np.negative, normal, ((0,),)),
    (ops.exp, np.exp, normal, ()),
    (ops.log, np.log, positive, ()),
    (ops.sqrt, np.sqrt, positive, ()),
    (ops.tanh, np.tanh, normal, ()),
    (ops.relu, lambda x: np.where(x < 0, 0, x), apart, ()),
]
for op, function, x, linear in UNARY:
    for shape in ((), (5,), (3, 4)):
        row(op, f"{shape}", lambda op, x: op(x), function, x(*shape), linear=linear)
row(ops.tanh, "saturated", lambda op, x: op(x), np.tanh, fixed([-40, -3, 0, 3, 40]))

# --- reductions -------------------------------------------------------------------------------

REDUCTIONS: list[tuple] = [
    (ops.sum, np.sum, normal, ((0,),)),
    (ops.mean, np.mean, normal, ((0,),)),
    (ops.max, np.max, apart, ()),
    (ops.var, np.var, normal, ()),
    (ops.logsumexp, lambda x, **axes: np.log(np.exp(x).sum(**axes)), normal, ()),
]
for op, function, x, linear in REDUCTIONS:
    for axis in (None, 0, 1, -1, (0, 2), (-1, 0), (0, 1, 2)):
        for keepdims in (False, True):
            row(
                op,
                f"axis {axis}" + ", kept" * keepdims,
                lambda op, x, a=axis, k=keepdims: op(x, axis=a, keepdims=k),
                lambda x, f=function, a=axis, k=keepdims: f(x, axis=a, keepdims=k),
                x(2, 3, 4),
                linear=linear,
            )
    row(op, "()", lambda op, x: op(x), function, x(), linear=linear)
    row(
        op,
        "one column",
        lambda op, x: op(x, axis=-1),
        lambda x, f=function: f(x, axis=-1),
        x(3, 1),
        linear=linear,
    )
row(
    ops.logsumexp,
    "near 1000",
    lambda op, x: op(x, axis=-1),
    lambda x: 1000 + np.log(np.exp(x - 1000).sum(-1)),
    lambda rng: 1000 + rng.standard_normal((3, 4)),
)
row(
    ops.logsumexp,
    "far apart",
    lambda op, x: op(x, axis=-1),
    lambda x: x.max(-1),
    fixed([[0, -1000], [1000, 5]]),
)

# --- matrix products --------------------------------------------------------------------------

PRODUCTS = [
    ((3, 4), (4, 5)),
    ((3, 3), (3, 3)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((1, 3, 4), (2, 4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 5)),
    ((2, 2, 3, 4), (4,)),
]
for x_shape, y_shape in PRODUCTS:
    row(
        ops.matmul,
        f"{x_shape} {y_shape}",
        lambda op, x, y: op(x, y),
        np.matmul,
        normal(*x_shape),
        normal(*y_shape),
        linear=((0,), (1,)),
    )

# --- shapes and places ------------------------------------------------------------------------

for before, after in (((6, 4), (3, -1)), ((2, 3, 4), (4, 6)), ((4,), (2, 1, 2)), ((1,), ())):
    row(
        ops.reshape,
        f"{before} to {after}",
        lambda op, x, shape=after: op(x, shape=shape),
        lambda x, shape=after: np.reshape(x, shape),
        normal(*before),
        linear=((0,),),
    )
for axes in (None, (1, 0, 2), (1, 2, 0), (2, 0, 1), (-1, 0, 1), (0, -1, -2), (-2, -1, -3)):
    row(
        ops.transpose,
        f"axes {axes}",
        lambda op, x, a=axes: op(x, axes=a),
        lambda x, a=axes: np.transpose(x, a),
        normal(2, 3, 4),
        linear=((0,),),
    )
row(ops.transpose, "1-D", lambda op, x: op(x), lambda x: x, normal(3), linear=((0,),))
for before, after in (((4,), (3, 4)), ((3, 1), (2, 3, 4)), ((), (2, 2)), ((3, 3), (3, 3, 3))):
    row(
        ops.broadcast_to,
        f"{before} to {after}",
        lambda op, x, shape=after: op(x, shape=shape),
        lambda x, shape=after: x + np.zeros(shape),
        normal(*before),
        linear=((0,),),
    )
for axis, shapes in (
    (0, ((1, 4), (3, 4), (2, 4))),
    (1, ((3, 1), (3, 2), (3, 4))),
    (-1, ((2, 2, 1), (2, 2, 3), (2, 2, 2))),
    (-2, ((2, 2, 3), (2, 1, 3), (2, 2, 3))),
    (0, ((3,), (3,), (3,))),
):
    row(
        ops.concatenate,
        f"axis {axis} of {len(shapes[0])}",
        lambda op, *xs, a=axis: op(*xs, axis=a),
        lambda *xs, a=axis: np.concatenate(xs, axis=a),
        *[normal(*shape) for shape in shapes],
        linear=((0, 1, 2),),
    )
for axis, parts in ((0, 2), (1, 3), (-1, 2), (-2, 3)):
    row(
        ops.split,
        f"{parts} parts of axis {axis}",
        lambda op, x, n=parts, a=axis: ops.concatenate(*reversed(op(x, n, axis=a)), axis=a),
        lambda x, n=parts, a=axis: np.concatenate(np.split(x, n, axis=a)[::-1], axis=a),
        normal(4, 3, 2) if axis != -2 else normal(4, 6, 2),
        linear=((0,),),
    )
INDICES: dict[str, Any] = {
    "an integer": 1,
    "a negative integer": -1,
    "a slice": slice(1, 3),
    "a backward slice": slice(None, None, -2),
    "integers": (1, 2, 0),
    "an integer and a slice": (0, slice(1, 3)),
    "ellipsis": (Ellipsis, 1),
    "a new axis": (slice(None), None, 2),
    "repeated ids": np.array([0, 2, 2, 0, 2]),
    "a list with repeats": [1, 1, 2],
    "a tuple with repeats": ((0, 0, 2),),
    "a tuple with repeats and a slice": ((3, 3), slice(None)),
    "the same place from both ends": np.array([3, -1]),
    "2-D ids": np.array([[0, 1], [1, 1]]),
    "a slice and repeated ids": (slice(1, 4), np.array([2, 0, 2])),
    "pairs of ids": (np.array([0, 1, 0]), np.array([2, 1, 2])),
    "a mask": np.array([True, False, True, True]),
}


def on_device(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(on_device(part) for part in index)  # a tuple of numbers stays what it is
    return xp.asarray(index) if isinstance(index, np.ndarray) else index


for what, index in INDICES.items():
    row(
        ops.getitem,
        what,
        lambda op, x, i=index: op(x, index=on_device(i)),
        lambda x, i=index: x[i],
        normal(4, 3, 2),
        linear=((0,),),
    )


def scatter(x: np.ndarray, idx: list[int], n: int) -> np.ndarray:
    out = np.zeros((n, x.shape[1]))
    for source, target in enumerate(idx):
        out[target] += x[source]
    return out


# n <= 1024 is a one-hot product, more is a sort: backend.scatter_add has two ways.
for n, idx in (
    (5, [4, 0, 4, 4, 2]),
    (1024, [1023, 7, 7, 0]),
    (1025, [1024, 7, 7, 0, 7]),
    (3000, [2] * 6),
    (2000, [5, 3, 4, 3, 5, 1999]),
    (4, []),
    (2000, []),
):
    row(
        ops.scatter_add,
        f"{len(idx)} rows to {n}",
        lambda op, x, i=idx, n=n: op(x, ids(i), n=n),
        lambda x, i=idx, n=n: scatter(x, i, n),
        normal(len(idx), 3),
        linear=((0,),),
    )

# --- functional: elementwise and along an axis ------------------------------------------------


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_exact(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * np.vectorize(math.erfc)(-x / math.sqrt(2))


for form, function in (("tanh", gelu_tanh), ("none", gelu_exact)):
    for what, x, twin in (
        ("normal", normal(3, 4), True),
        ("()", normal(), True),
        ("to 10", fixed([-10, -6, -3, -1, 0, 1, 3, 6, 10]), True),
        ("to 40", fixed([-40, -20, 20, 40]), form == "tanh"),  # the reference's series ends at 10
    ):
        row(
            F.gelu,
            f"{form}, {what}",
            lambda op, x, form=form: op(x, approximate=form),
            function,
            x,
            twin=twin,
        )


def gated(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    return gate * up * (1 + np.tanh(gate / 2)) / 2


for what, gate, up, twin in (
    ("normal", normal(3, 4), normal(3, 4), True),
    ("()", normal(), normal(), True),
    ("to 800", fixed([-800, -40, -3, 0, 3, 40, 800]), normal(7), False),  # the twin overflows
):
    row(swiglu, what, lambda op, x, y: op(x, y), gated, gate, up, linear=((1,),), twin=twin)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


for op, function in ((F.softmax, softmax), (F.log_softmax, lambda x, a: np.log(softmax(x, a)))):
    for axis in (0, 1, -1):
        row(
            op,
            f"axis {axis}",
            lambda op, x, a=axis: op(x, axis=a),
            lambda x, f=function, a=axis: f(x, a),
            normal(3, 4, 2),
        )
    row(op, "1-D", lambda op, x: op(x), lambda x, f=function: f(x, -1), normal(5))
    row(
        op,
        "near 1000",
        lambda op, x: op(x),
        lambda x, f=function: f(x - 1000, -1),
        lambda rng: 1000 + rng.standard_normal((3, 4)),
    )

# --- functional: the layers -------------------------------------------------------------------


def layer_norm(x: np.ndarray, w: np.ndarray, b: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w + b


for shape in ((5,), (3, 5), (2, 3, 5), (2, 2, 3, 4)):
    row(
        F.layer_norm,
        f"{shape}",
        lambda op, x, w, b: op(x, w, b),
        layer_norm,
        normal(*shape),
        normal(shape[-1]),
        normal(shape[-1]),
        linear=((1, 2),),
    )
row(
    F.layer_norm,
    "eps 0.5",
    lambda op, x, w, b: op(x, w, b, eps=0.5),
    lambda x, w, b: layer_norm(x, w, b, 0.5),
    normal(3, 5),
    normal(5),
    normal(5),
    linear=((1, 2),),
)


def rms_norm(x: np.ndarray, w: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * w


for what, shape, eps in (
    ("(5,)", (5,), 1e-5),
    ("(3, 5)", (3, 5), 1e-5),
    ("(2, 2, 3, 4)", (2, 2, 3, 4), 1e-5),
    ("eps 0.5", (3, 5), 0.5),
):
    row(
        norms.rms_norm,
        what,
        lambda op, x, w, eps=eps: op(x, w, eps=eps),
        lambda x, w, eps=eps: rms_norm(x, w, eps),
        normal(*shape),
        normal(shape[-1]),
        linear=((1,),),
    )

for V, places in (
    (7, [[3, 0, 3], [6, 3, 0]]),
    (7, [2, 2]),
    (7, 4),
    (1500, [[9, 8, 9], [1499, 0, 9]]),
    (1024, [1023, 1023]),
    (1025, [1024, 0, 1024]),
):
    row(
        F.embedding,
        f"{np.size(places)} ids, {np.ndim(places)}-D, of {V}",
        lambda op, w, i=places: op(w, ids(i)),
        lambda w, i=places: w[np.array(i)],
        normal(V, 3),
        linear=((0,),),
    )

for p in (0.0, 0.1, 0.5):
    row(
        F.dropout,
        f"p {p}",
        lambda op, x, p=p: op(x, p=p, rng=generator()),
        lambda x, p=p: x * (generator().random(x.shape, dtype="float32") >= p) / (1 - p),
        normal(4, 5),
        linear=((0,),),
    )

for shape in ((4,), (5, 4), (2, 3, 4)):
    row(
        F.linear,
        f"{shape} without b",
        lambda op, x, w: op(x, w),
        lambda x, w: np.tensordot(x, w, 1),
        normal(*shape),
        normal(4, 3),
        linear=((0,), (1,)),
    )
    row(
        F.linear,
        f"{shape} with b",
        lambda op, x, w, b: op(x, w, b),
        lambda x, w, b: np.tensordot(x, w, 1) + b,
        normal(*shape),
        normal(4, 3),
        normal(3),
        linear=((0, 2), (1, 2)),
    )


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, p: float = 0.0, bias: Any = 0.0, causal=True
) -> np.ndarray:
    """One query at a time, over the keys that it may see: no mask, so none to get wrong."""
    Tk, D = k.shape[-2:]
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    keep = generator().random((*q.shape[:-1], Tk), dtype="float32") >= p
    bias = np.broadcast_to(bias, keep.shape)
    for place in np.ndindex(q.shape[:-1]):
        before, t = place[:-1], place[-1]
        seen = [j for j in range(t + 1 if causal else Tk) if bias[place][j] > -math.inf]
        weights = softmax(k[before][seen] @ q[place] / math.sqrt(D) + bias[place][seen])
        out[place] = (weights * keep[place][seen] / (1 - p)) @ v[before][seen]
    return out


NO = -math.inf
CROSS = ((3, 4), (5, 4), (5, 2))  # Tq, D; Tk, D; Tk, Dv
BIASES: dict[str, Any] = {  # for scores (2, 2, 3, 5)
    "one number": 0.5,
    "a row": [0.0, 1.0, NO, -1.0, NO],
    "a matrix": [[0.0, NO, NO, NO, NO], [1.0, 0.5, NO, -1.0, 0.0], [0.0, 0.0, NO, NO, -2.0]],
    "one a head": np.arange(30.0).reshape(2, 3, 5) % 7 / 3,
    "padding": np.array([[0, 0, 0, NO, NO], [0, 0, 0, 0, NO]])[:, None, None],  # (2, 1, 1, 5)
    "integers": np.arange(5) // 2,
}
for what, heads, shapes in (
    ("(4, 3)", (), ((4, 3), (4, 3), (4, 3))),
    ("cross", (), CROSS),
    ("cross, batched", (2,), CROSS),
    ("cross, in heads", (2, 2), CROSS),
    ("one query", (2,), ((1, 3), (6, 3), (6, 3))),
    ("one key", (2,), ((4, 3), (1, 3), (1, 3))),
):
    for p in (0.0, 0.3):
        row(
            attention,
            what + f", dropout {p}" * (p > 0),
            lambda op, q, k, v, p=p: op(q, k, v, p=p, rng=generator()),
            lambda q, k, v, p=p: attend(q, k, v, p, causal=False),
            *(normal(*heads, *shape) for shape in shapes),
            linear=((2,),),
        )
for what, bias in BIASES.items():
    for p in (0.0, 0.3):
        row(
            attention,
            f"bias, {what}" + f", dropout {p}" * (p > 0),
            lambda op, q, k, v, p=p, b=bias: op(q, k, v, bias=xp.asarray(b), p=p, rng=generator()),
            lambda q, k, v, p=p, b=bias: attend(q, k, v, p, b, causal=False),
            *(normal(2, 2, *shape) for shape in CROSS),
            linear=((2,),),
        )

for shape in ((4, 3), (2, 4, 3), (2, 2, 4, 3), (2, 1, 3)):
    for p in (0.0, 0.3):
        row(
            causal_attention,
            f"{shape}" + f", dropout {p}" * (p > 0),
            lambda op, q, k, v, p=p: op(q, k, v, p=p, rng=generator()),
            lambda q, k, v, p=p: attend(q, k, v, p),
            normal(*shape),
            normal(*shape),
            normal(*shape),
            linear=((2,),),
        )
row(
    causal_attention,
    "no generator, so no dropout",
    lambda op, q, k, v: op(q, k, v, p=0.5),
    attend,
    normal(2, 4, 3),
    normal(2, 4, 3),
    normal(2, 4, 3),
    linear=((2,),),
)


WINDOW = np.where(np.tri(4, k=-2, dtype=bool), NO, 0.5)  # two keys back at most
SLOPES = np.arange(32.0).reshape(2, 4, 4) % 5 / 3  # one matrix a head
for what, shapes, bias in (
    ("a window", ((2, 4, 3), (2, 4, 3), (2, 4, 3)), WINDOW),
    ("one a head", ((3, 2, 4, 3), (3, 2, 4, 3), (3, 2, 4, 5)), SLOPES),
):
    row(
        causal_attention,
        f"bias, {what}",
        lambda op, q, k, v, b=bias: op(q, k, v, bias=xp.asarray(b)),
        lambda q, k, v, b=bias: attend(q, k, v, bias=b),
        *(normal(*shape) for shape in shapes),
        linear=((2,),),
    )


def attend_in_heads(
    qkv: np.ndarray, n_head: int, p: float = 0.0, bias: Any = 0.0, turned: bool = False
) -> np.ndarray:
    q, k, v = (
        np.stack(np.split(part, n_head, axis=-1), axis=1)  # (B, H, T, D)
        for part in np.split(qkv, 3, axis=-1)
    )
    if turned:
        q, k = turn(q, 10000.0, 0), turn(k, 10000.0, 0)
    return np.concatenate(list(attend(q, k, v, p, bias).swapaxes(0, 1)), axis=-1)


for n_head, p in ((1, 0.0), (2, 0.0), (3, 0.0), (2, 0.3)):
    row(
        causal_self_attention,
        f"{n_head} heads" + f", dropout {p}" * (p > 0),
        lambda op, qkv, n=n_head, p=p: op(qkv, n_head=n, p=p, rng=generator()),
        lambda qkv, n=n_head, p=p: attend_in_heads(qkv, n, p),
        normal(2, 4, 18),
    )
row(
    causal_self_attention,
    "queries and keys turned",
    lambda op, qkv: op(qkv, n_head=2, rope=True),
    lambda qkv: attend_in_heads(qkv, 2, turned=True),
    normal(2, 5, 24),
)
row(
    causal_self_attention,
    "bias, one a head",
    lambda op, qkv: op(qkv, n_head=2, bias=xp.asarray(SLOPES)),
    lambda qkv: attend_in_heads(qkv, 2, bias=SLOPES),
    normal(3, 4, 12),
)


def turn(x: np.ndarray, base: float, start: float) -> np.ndarray:
    """Each pair as one complex number, times exp(i angle)."""
    T, D = x.shape[-2:]
    angles = np.outer(start + np.arange(T), base ** (-np.arange(0, D, 2) / D))  # (T, D / 2)
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


for shape, base, start in (
    ((4, 2), 10000.0, 0),
    ((3, 6), 10000.0, 0),
    ((2, 5, 4), 10.0, 0),
    ((2, 2, 3, 8), 10000.0, 7),
    ((1, 4), 100.0, -3),
):
    row(
        rotary,
        f"{shape}, base {base:g}, start {start}",
        lambda op, x, base=base, start=start: op(x, base=base, start=start),
        lambda x, base=base, start=start: turn(x, base, start),
        normal(*shape),
        linear=((0,),),
    )


def nats(logits: np.ndarray, targets: Any, ignore: int | None, smoothing: float) -> np.ndarray:
    """The mean over counted targets, one target at a time."""
    V, losses = logits.shape[-1], []
    for place in np.ndindex(np.shape(targets)):
        target = np.array(targets)[place]
        if target != ignore:
            wanted = np.full(V, smoothing / V)
            wanted[target] += 1 - smoothing
            losses.append(-(wanted * np.log(softmax(logits[place]))).sum())
    return np.mean(losses)


for what, shape, targets, ignore, smoothing in (
    ("(N, V)", (4, 5), [0, 4, 2, 2], None, 0.0),
    ("(B, T, V)", (2, 3, 5), [[0, 4, 2], [2, 1, 1]], None, 0.0),
    ("(V,)", (5,), 3, None, 0.0),
    ("ignored -1", (2, 3, 5), [[0, -1, 2], [-1, -1, 1]], -1, 0.0),
    ("ignored 2", (4, 5), [0, 2, 4, 2], 2, 0.0),
    ("smoothed", (4, 5), [0, 4, 2, 2], None, 0.1),
    ("smoothed and ignored -100", (4, 5), [0, -100, 2, 2], -100, 0.3),
):
    row(
        F.cross_entropy,
        what,
        lambda op, x, t=targets, i=ignore, e=smoothing: op(
            x, ids(t), ignore_index=i, label_smoothing=e
        ),
        lambda x, t=targets, i=ignore, e=smoothing: nats(x, t, i, e),
        normal(*shape),
    )
row(
    F.cross_entropy,
    "near 1000",
    lambda op, x: op(x, ids([1, 0])),
    lambda x: nats(x - 1000, [1, 0], None, 0.0),
    lambda rng: 1000 + rng.standard_normal((2, 4)),
)
