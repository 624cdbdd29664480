"""Modules: parameters with names, and the layers of a GPT.

A Module is a plain object. Its parameters are found by walking its attributes, in the order in
which `__init__` set them. There is no train/eval switch: a layer is noisy only when it is called
with a generator (`rng`), so evaluation cannot be noisy by mistake.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from minigpt import functional as F
from minigpt.backend import xp
from minigpt.tensor import Tensor


class Module:
    """Something with parameters. Subclasses set Tensors, Modules and lists of Modules."""

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, Tensor) in insertion order; a Tensor used twice comes once."""
        seen: set[int] = set()
        for name, p in self._walk(""):
            if id(p) not in seen:
                seen.add(id(p))
                yield name, p

    def _walk(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        for name, value in vars(self).items():
            children = enumerate(value) if isinstance(value, list) else [("", value)]
            for i, child in children:
                path = f"{prefix}{name}.{i}" if isinstance(value, list) else f"{prefix}{name}"
                if isinstance(child, Tensor):
                    yield path, child
                elif isinstance(child, Module):
                    yield from child._walk(path + ".")

    def parameters(self) -> list[Tensor]:
        return [p for _, p in self.named_parameters()]

    def num_parameters(self) -> int:
        return sum(p.size for p in self.parameters())

    def load_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Copy arrays into the parameters of the same names, keeping the parameters' dtype.

        Raises: ValueError naming what is missing, unknown or of another shape; then nothing
        has been changed.
        """
        own = dict(self.named_parameters())
        wrong = [f"{name} is missing" for name in own if name not in arrays]
        wrong += [f"{name} is unknown" for name in arrays if name not in own]
        wrong += [
            f"{name} has shape {tuple(arrays[name].shape)} instead of {p.shape}"
            for name, p in own.items()
            if name in arrays and tuple(arrays[name].shape) != p.shape
        ]
        if wrong:
            raise ValueError(f"arrays do not fit the model: {'; '.join(wrong[:3])}")
        for name, p in own.items():
            p.data[...] = xp.asarray(arrays[name])


def parameter(array: Any, dtype: str) -> Tensor:
    """A leaf that is trained, from values on the host."""
    return Tensor(xp.array(array, dtype=dtype), requires_grad=True)


class Linear(Module):
    """x (..., n_in) -> (..., n_out). Weights N(0, std**2), offset 0."""

    def __init__(self, n_in: int, n_out: int, *, rng, bias=True, std=0.02, dtype="float32"):
        self.weight = parameter(rng.normal(0, std, (n_in, n_out)), dtype)
        self.bias = parameter(xp.zeros(n_out), dtype) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Embedding(Module):
    """idx (...) int -> (..., C): rows of a table (n, C) of N(0, std**2)."""

    def __init__(self, n: int, C: int, *, rng, std=0.02, dtype="float32"):
        self.weight = parameter(rng.normal(0, std, (n, C)), dtype)

    def __call__(self, idx: Any) -> Tensor:
        return F.embedding(self.weight, idx)


class LayerNorm(Module):
    """x (..., C) -> the same. Gain 1; offset 0, fixed at 0 where bias is False."""

    def __init__(self, C: int, *, bias=True, dtype="float32"):
        self.weight = parameter(xp.ones(C), dtype)
        self.bias = parameter(xp.zeros(C), dtype) if bias else None
        self._zero = xp.zeros(C, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight, self._zero if self.bias is None else self.bias)


class Dropout(Module):
    """Dropout with probability p when called with a generator; without one, the identity."""

    def __init__(self, p: float):
        self.p = p

    def __call__(self, x: Tensor, rng=None) -> Tensor:
        return x if rng is None or self.p == 0 else F.dropout(x, p=self.p, rng=rng)
