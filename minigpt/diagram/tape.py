"""One forward pass: the tape from the loss to the parameters, and who put each node on it.

A tape knows what was computed from what. It knows neither the names of primitives, nor their
constants, nor in which module they ran. Python's profiler hook does, since it sees each call and
each return; so the core needs no hooks, and no class is patched. What the tape does not hold is
left out, whoever computed it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from itertools import count
from types import FrameType
from typing import Any

from minigpt import functional as F
from minigpt.backend import host_arange, xp
from minigpt.nn import Module
from minigpt.tensor import Tensor

_OP = F.linear.__code__  # of the wrapper that @primitive makes: one code object for all primitives


class KeepAll:
    """In place of a generator: dropout with it drops nothing, but stays on the tape."""

    def random(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Ones, which no p < 1 reaches."""
        return xp.ones(shape, dtype)


@dataclass(frozen=True, eq=False)
class Step:
    """One primitive that ran: its arguments by name, and the module whose call it ran in.

    inputs: argument's name -> array or Tensor. call: a number for each call of a module.
    """

    op: str
    inputs: dict[str, Any]
    options: dict[str, Any]
    module: str
    call: int
    out: Tensor


@dataclass(frozen=True)
class Pass:
    """The steps of one forward pass that are on the tape, in the order in which they ran."""

    model: Module
    idx: Any
    targets: Any
    steps: list[Step]


def named_modules(module: Module, name: str = "") -> Iterator[tuple[str, Module]]:
    """(dotted name, Module), the model itself first, as ""; one with two names comes twice."""
    yield name, module
    prefix = f"{name}." if name else ""
    for key, value in vars(module).items():
        for i, child in enumerate(value) if isinstance(value, list) else [("", value)]:
            if isinstance(child, Module):
                yield from named_modules(child, f"{prefix}{key}" + (f".{i}" if i != "" else ""))


def run(model: Any, B: int, T: int) -> Pass:
    """Run the model and its loss on B sequences of T tokens.

    Raises: ValueError if the loss hangs on a Tensor that is trained but no parameter of the model,
    or on what was computed before.
    """
    idx = (host_arange(B * T) % model.config.vocab_size).reshape(B, T)
    targets = idx.copy()  # an array of its own, to be told from idx
    names: dict[int, str] = {}
    for name, module in named_modules(model):
        names.setdefault(id(module), name)
    steps: list[Step] = []
    with _watching(names, steps.append):
        loss = F.cross_entropy(model(idx, KeepAll()), targets)
    tape = nodes(loss)
    known = {id(step.out) for step in steps} | {id(p) for p in model.parameters()}
    for node in tape.values():
        if id(node) not in known:
            raise ValueError(f"the loss depends on a Tensor of shape {node.shape} that is neither "
                             f"one of named_parameters() nor computed from them")  # fmt: skip
    return Pass(model, idx, targets, [step for step in steps if id(step.out) in tape])


def nodes(loss: Tensor) -> dict[int, Tensor]:
    """Every Tensor that backward() would reach, by its id."""
    found, stack = {id(loss): loss}, [loss]
    while stack:
        for parent in stack.pop()._parents:
            if parent is not None and id(parent) not in found:
                found[id(parent)] = parent
                stack.append(parent)
    return found


@contextmanager
def _watching(names: dict[int, str], found: Callable[[Step], None]) -> Iterator[None]:
    """Inside, each primitive that returns is reported. names: id of a module -> dotted name."""
    number, calls = count(1), [("", 0)]  # the modules whose call is under way, outermost first

    def hook(frame: FrameType, event: str, result: Any) -> None:
        if event in ("call", "return") and frame.f_code.co_name == "__call__":
            name = names.get(id(frame.f_locals.get("self")))
            if name is not None and event == "call":
                calls.append((name, next(number)))
            elif name is not None:
                calls.pop()
        elif event == "return" and frame.f_code is _OP and isinstance(result, Tensor):
            forward, args = frame.f_locals["forward"], frame.f_locals["args"]
            inputs = dict(zip(_argument_names(forward, len(args)), args, strict=True))
            options = frame.f_locals["options"]
            found(Step(forward.__name__, inputs, options, *calls[-1], result))

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        yield
    finally:
        sys.setprofile(before)


def _argument_names(forward: Callable, n: int) -> list[str]:
    """The names of a primitive's n arrays; those of a starred argument are numbered."""
    names = list(signature(forward).parameters)
    starred = len(names) < n or any(p.kind == p.VAR_POSITIONAL
                                    for p in signature(forward).parameters.values())  # fmt: skip
    return [f"{names[0]}{i}" for i in range(n)] if starred else names[:n]
