"""The engine: gradients add up over any graph, once each, in bounded time, stack and memory.

The ops are trusted here (test_ops.py holds them); what is tested is the walk that joins them, who
owns a gradient, when a graph is freed, and what is refused.
"""

import gc
import threading
import time
import weakref

import numpy as np
import pytest

from minigpt import functional as F
from minigpt import ops
from minigpt.attention import causal_attention
from minigpt.backend import to_numpy, xp
from minigpt.gradcheck import check_grads
from minigpt.tensor import Tensor, no_grad, primitive


def leaf(values, dtype: str = "float64") -> Tensor:
    return Tensor(xp.asarray(np.array(values, dtype=dtype)), requires_grad=True)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def gradient(tensor: Tensor) -> np.ndarray:
    return to_numpy(tensor.grad)


@primitive
def identity(x):
    """Hands on the very cotangent it gets, so that two nodes hold one array."""
    return x + 0, (lambda g: g,)


# --- graphs ------------------------------------------------------------------------------------


def test_diamond():
    x = leaf(3.0)
    a, b = x * 2.0, x * x
    (a * b).backward()  # 2 x^3
    assert gradient(x) == pytest.approx(6 * 3.0**2, rel=1e-15)


def test_unequal_paths():
    """A node waits for its last consumer, however far: x is used at depths 1, 2 and 4."""
    x = leaf(2.0)
    far = ((x * 3.0) * x) * 5.0
    (far * x + x).backward()  # 15 x^3 + x
    assert gradient(x) == 45 * 4.0 + 1


def test_fan_out():
    x = leaf(normal(3))
    uses = [x * float(i) for i in range(100)]
    total = uses[0]
    for use in uses[1:]:
        total = total + use
    total.backward(xp.ones(3))
    np.testing.assert_allclose(gradient(x), np.full(3, 4950.0))


@pytest.mark.parametrize("use, slope", [
    (lambda x: x + x, lambda x: 2 + 0 * x),
    (lambda x: x - x, lambda x: 0 * x),
    (lambda x: x * x, lambda x: 2 * x),
    (lambda x: x / x, lambda x: 0 * x),
    (lambda x: ops.maximum(x, x), lambda x: 1 + 0 * x),
    (lambda x: ops.concatenate(x, x, x), lambda x: 3 + 0 * x),
])  # fmt: skip
def test_one_tensor_twice_in_one_op(use, slope):
    x = leaf([0.5, 2.0])
    out = use(x)
    out.backward(xp.ones(out.shape))
    np.testing.assert_allclose(gradient(x), slope(to_numpy(x.data)), atol=1e-15)


def test_one_tensor_as_query_key_and_value():
    def attend_to_self(x):
        return causal_attention(x, x, x)

    assert check_grads(attend_to_self, normal(4, 3)) < 1e-8


def test_a_shared_parameter_collects_from_every_use():
    """A tied embedding: the table that reads the ids also scores the outputs."""
    idx = xp.asarray(np.array([0, 2, 2]))

    def tied(w):
        return ops.matmul(F.embedding(w, idx), w.T)

    w = normal(4, 3)
    assert check_grads(tied, w) < 1e-8
    whole, one, other = leaf(w), leaf(w), leaf(w)
    g = xp.asarray(normal(3, 4))
    tied(whole).backward(g)
    ops.matmul(F.embedding(one, idx), other.T).backward(g)
    np.testing.assert_allclose(gradient(whole), gradient(one) + gradient(other), rtol=1e-14)


def test_random_graphs_against_finite_differences():
    """Thirty nodes, each of two earlier ones at random: every shape of reuse."""
    for seed in range(5):

        def f(*leaves, seed=seed):
            rng = np.random.default_rng(seed)
            nodes = list(leaves)
            for _ in range(30):
                a, b = (nodes[i] for i in rng.integers(0, len(nodes), 2))
                nodes.append(ops.tanh(a * 0.7 + b) if rng.random() < 0.5 else a * b * 0.5)
            return nodes[-1] + nodes[-2] + nodes[-3]

        assert check_grads(f, normal(3), normal(3, seed=1)) < 1e-7


def test_a_chain_of_20000_ops():
    """Longer than any recursion limit."""
    x = leaf([1.0, -2.0])
    out = x
    for _ in range(20_000):
        out = out + 0.0
    out.backward(xp.asarray(np.array([3.0, 4.0])))
    np.testing.assert_array_equal(gradient(x), [3.0, 4.0])


def test_a_chain_of_20000_ops_is_dropped_without_backward():
    """Python frees it link by link, not by one recursion a link."""
    out = leaf([1.0])
    for _ in range(20_000):
        out = out + 0.0
    first = weakref.ref(out)
    del out
    gc.collect()
    assert first() is None


def test_thirty_doublings_take_thirty_steps():
    """2**30 paths, 30 nodes: an engine that walks paths takes minutes."""
    x = leaf(1.0)
    out = x
    for _ in range(30):
        out = out + out
    start = time.perf_counter()
    out.backward()
    assert time.perf_counter() - start < 1.0
    assert gradient(x) == 2.0**30


def test_each_vjp_runs_once():
    calls = []

    @primitive
    def counted(x):
        return x * 2, (lambda g: calls.append(1) or g * 2,)

    x = leaf(1.0)
    y = counted(x)
    (y + y * y + y).backward()
    assert len(calls) == 1
    assert gradient(x) == 2 * (2 + 2 * 2.0)


def test_only_the_needed_gradients_are_computed():
    """A tuple of functions: the one for a constant is not called."""
    called = []

    @primitive
    def product(x, y):
        return x * y, (lambda g: called.append("x") or g * y, lambda g: called.append("y") or g * x)

    x = leaf(2.0)
    product(x, Tensor(3.0)).backward()
    assert called == ["x"]
    assert gradient(x) == 3


# --- ownership ---------------------------------------------------------------------------------

ALIASES = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "reshape": lambda a, b: a.reshape(3, 2) + b.reshape(3, 2),
    "transpose": lambda a, b: a.T + b.T,
    "broadcast": lambda a, b: ops.broadcast_to(a, shape=(2, 3)) + ops.broadcast_to(b, shape=(2, 3)),
    "concatenate": lambda a, b: ops.concatenate(a, b),
    "sum": lambda a, b: a.sum(axis=0) + b.sum(axis=0),
    "mean": lambda a, b: a.mean() + b.mean(),
    "identity": lambda a, b: identity(a) + identity(identity(b)),
}  # fmt: skip


@pytest.mark.parametrize("f", ALIASES.values(), ids=ALIASES)
def test_a_leaf_owns_its_gradient(f):
    """So that clipping one gradient in place changes no other, nor the caller's cotangent."""
    a, b = leaf(normal(2, 3)), leaf(normal(2, 3, seed=1))
    out = f(a, b)
    g = xp.asarray(normal(*out.shape, seed=2)) if out.ndim else xp.asarray(np.array(2.0))
    kept = to_numpy(g).copy()
    out.backward(g)
    assert a.grad is not b.grad
    for one, other in ((a.grad, b.grad), (a.grad, g), (b.grad, g), (a.grad, a.data)):
        assert not xp.shares_memory(one, other)
    before_a, before_b = gradient(a).copy(), gradient(b).copy()
    a.grad *= 0.5  # also: no read-only view, and no two elements in one place
    np.testing.assert_array_equal(gradient(a), 0.5 * before_a)
    np.testing.assert_array_equal(gradient(b), before_b)
    np.testing.assert_array_equal(to_numpy(g), kept)


def test_backward_on_a_leaf_copies_the_callers_cotangent():
    x, g = leaf([1.0, 2.0]), xp.asarray(np.array([3.0, 4.0]))
    x.backward(g)
    g += 100
    np.testing.assert_array_equal(gradient(x), [3.0, 4.0])
    x.backward(g)
    np.testing.assert_array_equal(gradient(x), [106.0, 108.0])
    np.testing.assert_array_equal(to_numpy(g), [103.0, 104.0])


def test_a_cotangent_shared_by_two_nodes_is_not_added_to_in_place():
    """x and y get the very same array; the sum for x must not show up in y."""
    x, y = leaf([1.0]), leaf([1.0])
    a, b = identity(x), identity(y)
    (a + b + a + a).backward(xp.ones(1))
    assert gradient(x) == 3
    assert gradient(y) == 1


def test_gradients_accumulate_until_set_to_none():
    x = leaf([1.0, 2.0])
    for expected in (2.0, 4.0):
        (x * 2.0).backward(xp.ones(2))
        np.testing.assert_array_equal(gradient(x), [expected] * 2)
    x.grad = None
    (x * 3.0).backward(xp.ones(2))
    np.testing.assert_array_equal(gradient(x), [3.0, 3.0])


def test_only_leaves_keep_a_gradient():
    x = leaf([1.0])
    y = x * 2.0
    z = y * 3.0
    z.backward(xp.ones(1))
    assert y.grad is None and z.grad is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("partner", ["float32", "float64"])
def test_a_gradient_has_its_leafs_dtype(dtype, partner):
    """Also where a constant of the other kind takes part."""
    x = leaf([1.0, 2.0], dtype)
    out = x * Tensor(xp.asarray(np.array([3.0, 4.0], dtype=partner)))
    out.backward(xp.ones(2))
    assert x.grad.dtype == dtype
    (x * 2.0).backward(xp.ones(2))
    assert x.grad.dtype == dtype


def test_backward_takes_any_number_for_a_cotangent():
    x = leaf([[1.0, 2.0]], "float32")
    (x * 2.0).backward([[1, 3]])
    np.testing.assert_array_equal(gradient(x), [[2.0, 6.0]])
    assert x.grad.dtype == "float32"


# --- memory ------------------------------------------------------------------------------------


@pytest.fixture
def no_collector():
    """Reference counts alone: what a cycle would keep stays alive."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def small_network(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    nodes = [F.linear(x, w, b)]
    nodes.append(F.gelu(nodes[-1]))
    nodes.append(F.layer_norm(nodes[-1], b, b))
    nodes.append(causal_attention(nodes[-1], nodes[-1], nodes[-1]))
    nodes.append(F.softmax(nodes[-1]) * F.log_softmax(nodes[-1]))
    nodes.append(ops.concatenate(nodes[-1][1:], nodes[-1].T.reshape(3, 3) / 2.0))
    nodes.append(ops.max(nodes[-1], axis=0) + ops.var(nodes[-1], axis=0))
    nodes.append(ops.exp(nodes[-1].mean()) ** 2)
    return nodes


def test_no_graph_is_a_reference_cycle(no_collector):
    x, w, b = leaf(normal(3, 3)), leaf(normal(3, 3, seed=1)), leaf(normal(3))
    nodes = small_network(x, w, b)
    seen = [weakref.ref(node) for node in nodes]
    del nodes
    assert [ref() for ref in seen] == [None] * len(seen)


def test_nothing_is_left_of_a_graph_after_backward(no_collector):
    x, w, b = leaf(normal(3, 3)), leaf(normal(3, 3, seed=1)), leaf(normal(3))
    nodes = small_network(x, w, b)
    loss = nodes[-1]
    seen = [weakref.ref(node) for node in nodes[:-1]]
    del nodes
    assert all(ref() is not None for ref in seen)
    loss.backward()  # the caller keeps the loss, and only the loss
    assert [ref() for ref in seen] == [None] * len(seen)


class Buffer(np.ndarray):
    """An array of its own kind, so that a test can hold a weak reference to it."""


def watched():
    """An array that can be referred to weakly. NumPy's own cannot; a GPU's can."""
    return np.ones(3).view(Buffer) if xp is np else xp.ones(3)


def test_activations_die_during_backward(no_collector):
    """When an op's vjp runs, what the later ops had captured and computed is gone."""
    alive_at_vjp, captured, outputs = [], [], []

    @primitive
    def layer(x):
        activation = watched()  # what this op keeps for its backward pass
        captured.append(weakref.ref(activation))

        def vjp(g):
            alive_at_vjp.append(
                (sum(r() is not None for r in captured), sum(r() is not None for r in outputs))
            )
            return (g * xp.asarray(activation),)

        return x + 0, vjp

    out = leaf(normal(3))
    for _ in range(5):
        out = layer(out)
        outputs.append(weakref.ref(out))
    out.backward(xp.ones(3))
    # At each step one captured array fewer. Of the nodes, the caller holds the last, and backward
    # the one whose vjp runs.
    assert [arrays for arrays, _ in alive_at_vjp] == [5, 4, 3, 2, 1]
    assert [nodes for _, nodes in alive_at_vjp] == [5, 5, 4, 3, 2]
    assert [ref() for ref in captured] == [None] * 5


def test_detach_cuts_the_graph(no_collector):
    x = leaf([1.0, 2.0])
    y = x * 2.0
    node = weakref.ref(y)
    cut = y.detach()
    assert not cut.requires_grad and xp.shares_memory(cut.data, y.data)
    del y
    assert node() is None
    (cut * x).backward(xp.ones(2))
    np.testing.assert_array_equal(gradient(x), [2.0, 4.0])


# --- a graph is used once ----------------------------------------------------------------------


def test_a_second_backward_raises():
    x = leaf([1.0])
    y = x * 2.0
    y.backward(xp.ones(1))
    with pytest.raises(ValueError, match="freed by an earlier backward"):
        y.backward(xp.ones(1))
    np.testing.assert_array_equal(gradient(x), [2.0])


def test_a_new_graph_on_a_freed_node_raises_before_any_gradient_is_touched():
    x, other = leaf([1.0]), leaf([5.0])
    shared = x * 2.0
    (shared * 3.0).backward(xp.ones(1))
    again = other * 7.0 + shared * other
    for _ in range(2):  # and the part that is not freed stays whole
        with pytest.raises(ValueError, match="freed by an earlier backward"):
            again.backward(xp.ones(1))
    np.testing.assert_array_equal(gradient(x), [6.0])
    assert other.grad is None


def test_a_freed_nodes_value_can_be_used_detached():
    x = leaf([2.0])
    y = x * 3.0
    y.backward(xp.ones(1))
    (y.detach() * x).backward(xp.ones(1))
    np.testing.assert_array_equal(gradient(x), [3.0 + 6.0])


# --- no_grad -----------------------------------------------------------------------------------


def test_no_grad_records_nothing(no_collector):
    x = leaf([1.0])
    with no_grad():
        y = x * 2.0
        node = weakref.ref(y)
        z = y * 3.0
        del y
        assert node() is None
    assert not z.requires_grad
    with pytest.raises(ValueError, match="requires_grad=True"):
        z.backward(xp.ones(1))
    assert (x * 2.0).requires_grad


def test_no_grad_nests():
    x = leaf([1.0])
    with no_grad():
        with no_grad():
            assert not (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad


def test_no_grad_is_undone_after_an_exception():
    x = leaf([1.0])
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * 2.0).requires_grad


def test_no_grad_as_a_decorator():
    x = leaf([1.0])
    evaluate = no_grad()(lambda: (x * 2.0).requires_grad)
    assert [evaluate(), (x * 2.0).requires_grad, evaluate()] == [False, True, False]


def test_no_grad_is_per_thread():
    """A thread that generates does not stop another that trains."""
    x, inside, done, seen = leaf([1.0]), threading.Event(), threading.Event(), []

    def generate():
        with no_grad():
            inside.set()
            done.wait(5)
            seen.append((x * 2.0).requires_grad)

    thread = threading.Thread(target=generate)
    thread.start()
    assert inside.wait(5)
    seen.append((x * 2.0).requires_grad)
    done.set()
    thread.join()
    assert seen == [True, False]


# --- arrays and numbers on the left ------------------------------------------------------------

A = np.array([[2.0, 0.5], [1.5, 3.0]])
LEFT = {
    "array + Tensor": lambda x: xp.asarray(A) + x,
    "array - Tensor": lambda x: xp.asarray(A) - x,
    "array * Tensor": lambda x: xp.asarray(A) * x,
    "array / Tensor": lambda x: xp.asarray(A) / x,
    "array ** Tensor": lambda x: xp.asarray(A) ** x,
    "array @ Tensor": lambda x: xp.asarray(A) @ x,
    "float ** Tensor": lambda x: 2.0**x,
    "float - Tensor": lambda x: 2.0 - x,
    "float / Tensor": lambda x: 2.0 / x,
    "int - Tensor": lambda x: 2 - x,
    "NumPy number * Tensor": lambda x: np.float64(3) * x,
    "Tensor @ array": lambda x: x @ xp.asarray(A),
    "Tensor ** array": lambda x: x ** xp.asarray(A),
    "Tensor - array": lambda x: x - xp.asarray(A),
    "sum of a list": lambda x: sum([x, x, x]),
}


@pytest.mark.parametrize("f", LEFT.values(), ids=LEFT)
def test_arrays_and_numbers_meet_tensors(f):
    """A Tensor comes out, not an array of Tensors, with the right value and gradient."""
    x = np.array([[1.0, 2.0], [0.5, 1.5]])
    out = f(Tensor(xp.asarray(x)))
    assert type(out) is Tensor
    np.testing.assert_allclose(out.numpy(), to_numpy(f(xp.asarray(x))), rtol=1e-15)
    assert check_grads(f, x) < 1e-8


@pytest.mark.parametrize("f", [lambda x: 2.0**x, lambda x: 2.0 - x, lambda x: 2.0 / x,
                               lambda x: 3 * x, lambda x: x**0.5, lambda x: x / 3])  # fmt: skip
def test_python_numbers_do_not_widen_float32(f):
    """Looked at one node further down, where no leaf casts the gradient back."""
    seen = []

    @primitive
    def spy(x):
        return x + 0, (lambda g: seen.append(g.dtype) or g,)

    x = leaf([1.0, 2.0], "float32")
    out = f(spy(x))
    assert out.dtype == "float32"
    out.backward(xp.ones(2, "float32"))
    assert seen == [np.dtype("float32")]


# --- the Tensor itself -------------------------------------------------------------------------


def test_properties():
    x = Tensor(xp.zeros((2, 3), "float32"))
    assert (x.shape, x.ndim, x.size, x.dtype, len(x)) == ((2, 3), 2, 6, "float32", 2)
    assert x.grad is None and not x.requires_grad
    assert Tensor([[2.5]]).item() == 2.5 and isinstance(Tensor(2.0).item(), float)


def test_repr_shows_data_dtype_and_requires_grad():
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1. 2.], dtype=float64)"
    assert repr(leaf([1.0], "float32")) == "Tensor([1.], dtype=float32, requires_grad=True)"


def test_a_misspelt_attribute_raises():
    x = leaf([1.0])
    with pytest.raises(AttributeError):
        x.gradient = 1
    with pytest.raises(AttributeError):
        x.requires_gard  # noqa: B018


def test_op_keeps_its_name_and_docstring():
    assert ops.multiply.__name__ == "multiply" and "broadcasting" in ops.multiply.__doc__
    out, vjp = ops.multiply.forward(np.array([2.0]), np.array([3.0]))
    assert out == 6 and [f(np.array([1.0])) for f in vjp] == [3, 2]


@pytest.mark.parametrize("data", ["text", ["a", "b"], None, [None, 1.0], [Tensor(1.0)], object(),
                                  Tensor(1.0), Tensor([1.0, 2.0]), b"bytes"])  # fmt: skip
def test_only_numbers_make_a_tensor(data):
    refusal = "data must be numbers, not" if xp is np else "Unsupported dtype"  # CuPy's own words
    with pytest.raises(ValueError, match=refusal):
        Tensor(data)


@pytest.mark.parametrize("data", [1, [1, 2], [True]])
def test_integers_have_no_gradient(data):
    assert not Tensor(data).requires_grad
    with pytest.raises(ValueError, match="requires_grad needs floating point data, not (int|bool)"):
        Tensor(data, requires_grad=True)


# --- what backward refuses ---------------------------------------------------------------------


def test_backward_without_a_graph_raises():
    message = r"backward\(\) needs a Tensor computed from one with requires_grad=True"
    with pytest.raises(ValueError, match=message):
        Tensor([1.0]).backward()
    with pytest.raises(ValueError, match=message):
        (Tensor([1.0]) * 2.0).backward()


def test_g_may_be_left_out_only_for_one_element():
    x = leaf(normal(2, 3))
    y = x * 2.0
    with pytest.raises(ValueError, match=r"backward\(\) needs g for an output of shape \(2, 3\)"):
        y.backward()
    assert x.grad is None
    y.sum().backward()
    np.testing.assert_array_equal(gradient(x), np.full((2, 3), 2.0))
    one = leaf([[4.0]])
    (one * one).backward()
    np.testing.assert_array_equal(gradient(one), [[8.0]])


@pytest.mark.parametrize("shape", [(3,), (2, 1), (3, 2), (1, 2, 3), ()])
def test_g_must_have_the_outputs_shape(shape):
    """Also where it would broadcast."""
    x = leaf(normal(2, 3))
    y = x * 2.0
    with pytest.raises(ValueError, match=r"g has shape .*, but the output has shape \(2, 3\)"):
        y.backward(xp.ones(shape))
    assert x.grad is None
    y.backward(xp.ones((2, 3)))  # the refusal freed nothing


@pytest.mark.parametrize("form", ["a tuple of functions", "one function"])
def test_a_vjp_of_the_wrong_shape_is_refused(form):
    """Broadcasting would hide it otherwise, and the leaf would get another shape than its data."""

    @primitive
    def bias(x, b):
        if form == "one function":
            return x + b, lambda g: (g, g)
        return x + b, (lambda g: g, lambda g: g)

    x, b = leaf(normal(4, 3)), leaf(normal(3))
    with pytest.raises(
        ValueError, match=r"a vjp returned shape \(4, 3\) for an argument of \(3,\)"
    ):
        bias(x, b).backward(xp.ones((4, 3)))
    assert b.grad is None


@pytest.mark.parametrize("vjp", [lambda g: (g,), (lambda g: g,)], ids=["one function", "a tuple"])
def test_a_vjp_with_too_few_gradients_is_refused(vjp):
    """An argument that is silently left without a gradient would never be trained."""

    @primitive
    def forgets_y(x, y):
        return x * y, vjp

    x, y = leaf([2.0]), leaf([3.0])
    with pytest.raises(ValueError, match="gradient"):
        forgets_y(x, y * 1.0).backward(xp.ones(1))


@pytest.mark.parametrize(
    "call",
    [
        lambda t: ops.concatenate([t, t]),
        lambda t: ops.add(t, y=t),
        lambda t: ops.multiply((t, t), 2.0),
    ],
)
def test_tensors_in_lists_or_by_keyword_are_refused(call):
    with pytest.raises(ValueError, match="give each Tensor by itself and by position"):
        call(Tensor(xp.ones(2), requires_grad=True))


def test_a_vjp_that_returns_none_for_a_needed_argument_is_refused():
    @primitive
    def forgetful(x):
        return x * 2, lambda g: (None,)

    with pytest.raises(ValueError, match="returned shape None"):
        forgetful(Tensor(xp.ones(2), requires_grad=True)).backward(xp.ones(2))


def test_the_cotangent_may_be_a_tensor():
    x = Tensor(xp.ones(2), requires_grad=True)
    (x * 3.0).backward(Tensor(xp.asarray([1.0, 2.0])))
    assert x.grad.tolist() == [3.0, 6.0]


def test_methods_take_shapes_and_axes_as_numpy_does():
    x = Tensor(xp.arange(6.0).reshape(2, 3), requires_grad=True)
    assert x.reshape(3, 2).shape == x.reshape((3, 2)).shape == (3, 2)
    assert x.transpose().shape == x.transpose(1, 0).shape == x.transpose((1, 0)).shape == (3, 2)


def test_the_cotangent_takes_the_outputs_dtype():
    seen = []

    @primitive
    def spy(x):
        return x + 0, (lambda g: seen.append(g.dtype) or g,)

    spy(leaf([1.0, 2.0], "float32")).backward(xp.ones(2))
    assert seen == [np.dtype("float32")]


def test_cotangents_die_during_backward(no_collector):
    """Of a chain's cotangents only the one being worked on is alive."""
    made, alive = [], []

    @primitive
    def layer(x):
        def vjp(g):
            alive.append(sum(ref() is not None for ref in made))
            dx = to_numpy(g + 0).view(Buffer)
            made.append(weakref.ref(dx))
            return (dx,)

        return x + 0, vjp

    out = leaf(normal(3))
    for _ in range(5):
        out = layer(out)
    out.backward(xp.ones(3))
    assert max(alive) <= 2
