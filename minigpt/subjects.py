"""What `python -m minigpt gradcheck` looks at: every primitive, every layer, and a small GPT.

Each is a function of leaves that is ready to run, beside its twin composed from reference.py.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from minigpt import attention, functional, ops, positions, reference, shapes
from minigpt.backend import xp
from minigpt.model import GPT, MLP, Block, CausalSelfAttention, GPTConfig
from minigpt.nn import Dropout, Embedding, LayerNorm, Linear
from minigpt.tensor import Tensor
from minigpt.variants import llama, norms

MODULES = (shapes, ops, functional, attention, positions, llama, norms)


@dataclass(frozen=True)
class Case:
    """A primitive and its arguments, each drawn of a shape; options are bound in `call`.

    linear: the arguments in which it is linear, or linear plus a constant, the others fixed.
    domain: "normal", "positive", or "apart": no two values, and no value and 0, within 0.1.
    """

    arguments: Mapping[str, tuple[int, ...]]
    call: Callable = lambda op, *arrays: op(*arrays)
    linear: str = ""
    domain: str = "normal"
    analytic: bool = True


IDS = np.array([2, 0, 2, 1, 2])  # repeated: their gradients must add up
MASK = np.array([[True, False, True], [False, False, True]])


def noise() -> np.random.Generator:
    """The same numbers at every call, so that a random op is a function."""
    return np.random.default_rng(7)


PAIR, TRIPLE = {"x": (2, 3), "y": (3,)}, {"x": (2, 3, 4)}
HEADS = {"q": (2, 4, 3), "k": (2, 4, 3), "v": (2, 4, 5)}
CASES = {
    "reshape": Case(TRIPLE, lambda op, x: op(x, shape=(4, 6)), "x"),
    "transpose": Case(TRIPLE, lambda op, x: op(x, axes=(1, 2, 0)), "x"),
    "broadcast_to": Case({"x": (3, 1)}, lambda op, x: op(x, shape=(2, 3, 4)), "x"),
    "concatenate": Case({"x": (2, 3), "y": (2, 1)}, lambda op, *x: op(*x, axis=1), "xy"),
    "getitem": Case({"x": (4, 3)}, lambda op, x: op(x, index=xp.asarray(IDS)), "x"),
    "scatter_add": Case({"x": (5, 3)}, lambda op, x: op(x, IDS, n=4), "x"),
    "add": Case(PAIR, linear="xy"),
    "subtract": Case(PAIR, linear="xy"),
    "multiply": Case(PAIR, linear="xy"),
    "divide": Case(PAIR, linear="x", domain="positive"),
    "power": Case(PAIR, domain="positive"),
    "maximum": Case({"x": (2, 3), "y": (1, 3)}, domain="apart", analytic=False),
    "where": Case(PAIR, lambda op, x, y: op(xp.asarray(MASK), x, y), "xy"),
    "negative": Case(TRIPLE, linear="x"),
    "exp": Case(TRIPLE),
    "log": Case(TRIPLE, domain="positive"),
    "sqrt": Case(TRIPLE, domain="positive"),
    "tanh": Case(TRIPLE),
    "relu": Case(TRIPLE, domain="apart", analytic=False),
    "sum": Case(TRIPLE, lambda op, x: op(x, axis=1), "x"),
    "mean": Case(TRIPLE, lambda op, x: op(x, axis=(0, 2)), "x"),
    "max": Case(TRIPLE, lambda op, x: op(x, axis=-1), domain="apart", analytic=False),
    "var": Case(TRIPLE, lambda op, x: op(x, axis=-1), analytic=False),  # |x|^2 of complex numbers
    "logsumexp": Case(TRIPLE, lambda op, x: op(x, axis=1)),
    "matmul": Case({"x": (2, 3, 4), "y": (4, 2)}, linear="xy"),
    "gelu": Case(TRIPLE),
    "gelu, exact": Case(TRIPLE, lambda op, x: op(x, approximate="none"), analytic=False),
    "softmax": Case(TRIPLE),
    "log_softmax": Case(TRIPLE),
    "layer_norm": Case({"x": (2, 3, 5), "w": (5,), "b": (5,)}, linear="wb"),
    "rms_norm": Case({"x": (2, 3, 5), "w": (5,)}, linear="w"),
    "embedding": Case({"w": (4, 3)}, lambda op, w: op(w, IDS), "w"),
    "dropout": Case(TRIPLE, lambda op, x: op(x, p=0.3, rng=noise()), "x"),
    "linear": Case({"x": (2, 3, 4), "w": (4, 2), "b": (2,)}, linear="xwb"),
    "cross_entropy": Case({"logits": (5, 4)}, lambda op, x: op(x, IDS)),
    "attention": Case({"q": (2, 3, 4), "k": (2, 5, 4), "v": (2, 5, 2)}, linear="v"),
    "causal_attention": Case(HEADS, linear="v"),
    "causal_self_attention": Case({"qkv": (2, 4, 12)}, lambda op, x: op(x, n_head=2)),
    "rotary": Case({"x": (2, 3, 4)}, linear="x"),
    "swiglu": Case({"gate": (2, 3, 4), "up": (2, 3, 4)}, linear="up"),
}  # fmt: skip


def primitives() -> dict[str, Any]:
    """Every primitive of the package, by name, from the module that defines it."""
    return {
        name: value for module in MODULES for name, value in vars(module).items()
        if hasattr(value, "forward") and getattr(value, "__module__", "") == module.__name__
    }  # fmt: skip


# --- what is checked --------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A function of leaves, ready to run; its twin composed from elementary ops, if it has one."""

    what: str
    f: Callable[[], Tensor]
    leaves: dict[str, Tensor]
    composed: Callable[[], Tensor] | None = None
    linear: str = ""  # names of leaves, or their initials
    analytic: bool = True


def subjects() -> Iterator[Subject]:
    """Every primitive, every layer, and a GPT. Raises: ValueError for a primitive without a row."""
    known = primitives()
    if missing := set(known) - {name.split(",")[0] for name in CASES}:
        raise ValueError(f"no row in subjects.CASES for {', '.join(sorted(missing))}")
    for name, case in CASES.items():
        op = known[name.split(",")[0]]
        leaves = {a: _leaf(name + a, n, case.domain) for a, n in case.arguments.items()}
        twin = getattr(reference, op.__name__, None)
        yield Subject(
            f"{op.__module__.removeprefix('minigpt.')}.{name}",
            partial(case.call, op, *leaves.values()),
            leaves,
            twin and partial(case.call, twin, *leaves.values()),
            case.linear,
            case.analytic,
        )
    yield from _layers()


def _leaf(name: str, shape: tuple[int, ...], domain: str = "normal") -> Tensor:
    """Values that depend on the name alone, so that a new row leaves the others as they are."""
    rng, n = np.random.default_rng(zlib.crc32(name.encode())), math.prod(shape)
    x: np.ndarray = rng.standard_normal(shape)
    if domain == "positive":
        x = rng.uniform(0.5, 2.0, shape)
    if domain == "apart":  # a grid; a second argument's lies between the first one's points
        offset = 0.1 if name.endswith("x") else 0.2
        x = ((rng.permutation(n) - n // 2) * 0.4 + offset).reshape(shape)
    return Tensor(xp.asarray(x), requires_grad=True)


def _layers() -> Iterator[Subject]:
    config = GPTConfig(vocab_size=7, block_size=4, n_layer=2, n_head=2, n_embd=8)
    rng, kind = np.random.default_rng(1), "float64"
    x = _leaf("stream", (2, 4, 8))
    idx = rng.integers(0, 7, (2, 4))
    rope = replace(config, position="rope")
    for layer, arguments, linear in (
        (Linear(8, 3, rng=rng, dtype=kind), (x,), "xwb"),
        (Embedding(7, 8, rng=rng, dtype=kind), (idx,), "w"),
        (LayerNorm(8, dtype=kind), (x,), "wb"),
        (Dropout(0.3), (x,), "x"),
        (CausalSelfAttention(config, rng, kind), (x,), ""),
        (CausalSelfAttention(rope, rng, kind), (x,), ""),
        (MLP(config, rng, kind), (x,), ""),
        (Block(config, rng, kind), (x,), ""),
        (GPT(config, rng, kind), (idx,), ""),
    ):
        leaves = {} if arguments[0] is idx else {"x": x}
        for name, p in layer.named_parameters():  # a gain of 1 would hide a gain left out
            p.data = _leaf(f"{type(layer).__name__}.{name}", p.shape).data
            leaves[name] = p
        what = type(layer).__name__ + ", rope" * getattr(layer, "rope", False)
        run, composed = (partial(f, layer, *arguments) for f in (_run, _compose))
        yield Subject(what, run, leaves, composed, linear)


def _run(layer: Any, x: Any) -> Tensor:
    return layer(x, noise()) if isinstance(layer, Dropout) else layer(x)


def _compose(m: Any, x: Any) -> Tensor:
    """A layer again, from reference.py: its output on x."""
    if isinstance(m, Linear):
        return reference.linear(x, m.weight, m.bias)
    if isinstance(m, Embedding):
        return reference.embedding(m.weight, x)
    if isinstance(m, LayerNorm):
        return reference.layer_norm(x, m.weight, m.bias)
    if isinstance(m, Dropout):
        return reference.dropout(x, p=m.p, rng=noise())
    if isinstance(m, CausalSelfAttention):
        qkv = _compose(m.c_attn, x)
        out = reference.causal_self_attention(qkv, n_head=m.n_head, rope=m.rope)
        return _compose(m.c_proj, out)
    if isinstance(m, MLP):
        return _compose(m.c_proj, reference.gelu(_compose(m.c_fc, x)))
    if isinstance(m, Block):
        x = x + _compose(m.attn, _compose(m.ln_1, x))
        return x + _compose(m.mlp, _compose(m.ln_2, x))
    x = _compose(m.wte, x) + _compose(m.wpe, np.arange(x.shape[1]))
    for block in m.h:
        x = _compose(block, x)
    return reference.linear(_compose(m.ln_f, x), m.lm_head.weight.T)
