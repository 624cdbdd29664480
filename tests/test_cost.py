"""The formulas of cost.py against what is there: arrays, products, closures."""

import math
from contextlib import suppress

import numpy as np
import pytest

from minigpt import cost, tensor
from minigpt import functional as F
from minigpt.attention import BLOCK, KEPT
from minigpt.backend import xp
from minigpt.cache import KVCache
from minigpt.model import GPT, POSITIONS, GPTConfig
from minigpt.optim import AdamW
from minigpt.tensor import Tensor


@pytest.fixture(autouse=True)
def plain_versions(monkeypatch):
    """What is counted is NumPy's way: a GPU's kernel for GELU keeps less."""
    monkeypatch.setattr("minigpt.kernels.KERNELS", None)


def make(T=9, dtype="float32", **options):
    sizes = dict(vocab_size=7, n_layer=2, n_head=2, n_embd=8) | options
    return GPT(GPTConfig(block_size=T, **sizes), np.random.default_rng(0), dtype)


def loss_of(model, B):
    rng = np.random.default_rng(1)
    idx = rng.integers(0, model.config.vocab_size, (B, model.config.block_size + 1))
    return F.cross_entropy(model(idx[:, :-1], rng), idx[:, 1:])


def owner(x):
    """The array whose memory x is a view of; under the stand-in, the one that lies behind it."""
    x = getattr(x, "_a", x)
    while isinstance(x.base, type(x)):
        x = x.base
    return x


def held(loss):
    """Every array that the graph below a loss keeps alive, each once."""
    arrays, seen, stack = {}, set(), [loss]
    while stack:
        x = stack.pop()
        if isinstance(x, np.ndarray | xp.ndarray):
            arrays[id(owner(x))] = owner(x)
        elif id(x) in seen:
            continue
        elif isinstance(x, Tensor):
            stack += [x.data, x._vjp, *x._parents]
        elif isinstance(x, list | tuple):
            stack += x
        elif getattr(x, "__closure__", None):
            for cell in x.__closure__:
                with suppress(ValueError):  # a name that was never set
                    stack.append(cell.cell_contents)
        seen.add(id(x))
    return arrays.values()


def activations(model, B):
    own = {id(owner(p.data)) for p in model.parameters()}
    return sum(x.nbytes for x in held(loss_of(model, B)) if x.dtype.kind == "f"
               and id(x) not in own)  # fmt: skip


CONFIGS = [{}, {"tied": False}, {"bias": False}, {"dropout": 0.1}, {"n_layer": 3, "n_embd": 12},
           *({"position": position} for position in POSITIONS)]  # fmt: skip


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_parts_are_all_parameters(options):
    model = make(**options)
    parts = cost.parameters_by_part(model)
    assert sum(parts.values()) == model.num_parameters()
    C, L = model.config.n_embd, model.config.n_layer
    assert parts["tokens"] == 7 * C
    assert parts["norms"] == (2 * L + 1) * C * (2 if model.config.bias else 1)
    assert parts["MLP"] == L * (8 * C * C + 5 * C * model.config.bias)
    assert parts["attention"] == L * (4 * C * C + 4 * C * model.config.bias)
    assert ("head" in parts) == (not model.config.tied)
    assert ("positions" in parts) == (model.config.position == "learned")


@pytest.mark.parametrize("options", CONFIGS, ids=str)
@pytest.mark.parametrize("T", [9, BLOCK + 6])
def test_activations_are_what_the_graph_holds(options, T):
    """A text's share: the difference of two batches, so that what all texts share drops out."""
    model = make(T, **options)
    a_text = (activations(model, 5) - activations(model, 2)) / 3
    assert cost.activation_bytes(model) == a_text


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_weights_of_a_long_context_are_not_held(dropout):
    model = make(KEPT + BLOCK, "float64", n_layer=1, dropout=dropout)
    a_text = activations(model, 2) - activations(model, 1)
    assert cost.activation_bytes(model) == a_text


@pytest.mark.parametrize("n", [1, 2, 7])
def test_scores_of_whole_blocks(n):
    assert cost.scores(n * BLOCK) == (n * BLOCK) ** 2 * (n + 1) / (2 * n)


class Counted(np.ndarray):
    """An array that notes its products of matrices."""

    operations = 0

    def __matmul__(self, other):
        Counted.note(self, other)
        return super().__matmul__(other)

    def __rmatmul__(self, other):
        Counted.note(other, self)
        return super().__rmatmul__(other)

    @staticmethod
    def note(a, b):
        if b.ndim > 1 < a.ndim:
            Counted.operations += 2 * a.size * b.shape[-1]


class Library:
    """NumPy, whose asarray counts."""

    def __getattr__(self, name):
        return getattr(np, name)

    def asarray(self, x, dtype=None):
        return np.asarray(x, dtype).view(Counted)


def count_products(model, monkeypatch):
    """From now on. NumPy's own class cannot be changed, so its arrays become Counted."""
    Counted.operations = 0
    if xp is np:
        for p in model.parameters():
            p.data = p.data.view(Counted)
        monkeypatch.setattr(tensor, "xp", Library())
        return
    product = xp.ndarray.__matmul__
    monkeypatch.setattr(
        xp.ndarray, "__matmul__", lambda a, b: (Counted.note(a, b), product(a, b))[1]
    )


@pytest.mark.parametrize("T", [1, 9, BLOCK, BLOCK + 5])
@pytest.mark.parametrize("tied", [True, False])
def test_operations_are_those_of_the_products(T, tied, monkeypatch):
    """The formula, less the keys that blocks skip, plus the tables' gradients as products."""
    model, B = make(T, tied=tied), 3
    count_products(model, monkeypatch)
    loss_of(model, B).backward()
    skipped = 3 * 4 * B * 2 * 8 * (T * T - cost.scores(T))
    tables = 2 * 7 * B * T * 8 + 2 * T * T * 8
    assert Counted.operations == B * T * cost.flops_per_token(model) - skipped + tables


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_state_is_what_the_optimizer_holds(dtype):
    model = make(dtype=dtype)
    optimizer, state = AdamW(model.parameters(), 1e-3), cost.state_bytes(model)
    buffers = (optimizer.data, optimizer.grad, optimizer.m, optimizer.v)
    assert sum(state.values()) == sum(buffer.nbytes for buffer in buffers)
    assert state["parameters"] == optimizer.data.nbytes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cache_is_what_it_holds(dtype):
    model = make(dtype=dtype, n_layer=3)
    assert cost.cache_bytes(model) == KVCache(model, 1, 9).nbytes


def test_gpt2_by_its_parts():
    """Attention and MLP grow with C**2: with 12 layers of 768 they are two thirds of GPT-2."""
    per_layer = cost.parameters_by_part(make(n_layer=1, n_embd=768, n_head=12))
    total = 12 * (per_layer["attention"] + per_layer["MLP"]) + (2 * 12 + 1) * 2 * 768
    assert total + (50257 + 1024) * 768 == 124_439_808
    assert math.isclose(12 * (per_layer["attention"] + per_layer["MLP"]) / 124_439_808, 0.683,
                        abs_tol=1e-3)  # fmt: skip
