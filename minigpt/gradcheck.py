"""Is a gradient right? The tape against finite differences, under rules that make the check fail.

- The cotangent is random. With ones, the gradient of softmax or layer norm sums to zero, and a
  backward pass that returns zeros would pass.
- float64 only: in float32 the differences are noise.
- Inputs are read-only, so an op that writes into its arguments raises. (A GPU's arrays cannot be:
  there, what was written is seen afterwards.)
- One random direction an argument first: any wrong entry shows there. Each entry on failure, to
  say which one it is.
- A kink has no derivative: it is reported, not passed. A random function is refused.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt.backend import read_only, to_numpy, xp
from minigpt.tensor import Tensor, no_grad
from minigpt.witness import EPS, size_of, slope


class GradientError(ValueError):
    """A gradient is wrong, or cannot be checked where it was asked for."""


@dataclass(frozen=True)
class Comparison:
    """One argument's gradient: tape against differences, along a direction or at an index."""

    name: str
    error: float  # |tape - difference| / the larger of the two
    tape: float
    difference: float


def check_grads(f: Callable[..., Tensor], *arrays: Any, tol: float = 1e-6, seed: int = 0) -> float:
    """Check f's gradient in every array, and return the worst relative error.

    f: Tensors -> Tensor, deterministic. arrays: float64, one for each argument of f.
    Raises: GradientError naming argument, index and both values if an error exceeds tol, at a
            kink, or if two calls of f differ; ValueError for arrays that are not float64.
    """
    leaves = [Tensor(xp.array(a), requires_grad=True) for a in map(_float64, arrays)]
    named = [(f"argument {i}", leaf) for i, leaf in enumerate(leaves)]
    rows = check_parameters(lambda: f(*leaves), named, tol=tol, seed=seed)
    return max(row.error for row in rows)


def check_parameters(
    f: Callable[[], Tensor],
    named: Iterable[tuple[str, Tensor]],
    *,
    tol: float = 1e-6,
    seed: int = 0,
    elementwise: bool = False,
) -> list[Comparison]:
    """Check the gradient of f() in each named leaf, such as a model's named_parameters().

    elementwise: compare every entry, and not only one random direction a leaf.
    Returns: the comparison, for each leaf, that has the largest error. Raises as check_grads does.
    """
    named, rng = list(named), np.random.default_rng(seed)
    own = [_float64(leaf.data, name) for name, leaf in named]
    try:
        for _, leaf in named:
            leaf.data = read_only(leaf.data)
        return _check(f, named, rng, tol, elementwise)
    finally:
        for (_, leaf), data in zip(named, own, strict=True):
            leaf.data = data


def _check(f, named, rng, tol, elementwise) -> list[Comparison]:
    before = [leaf.numpy().copy() for _, leaf in named]
    g = xp.asarray(rng.standard_normal(f().shape))
    analytic = _tape(f, [leaf for _, leaf in named], g)
    for (name, leaf), data in zip(named, before, strict=True):
        if not np.array_equal(leaf.numpy(), data, equal_nan=True):
            raise ValueError(f"{name} was written to, which is read-only")
    phi = _projection(f, g)
    rows = []
    for (name, leaf), dx in zip(named, analytic, strict=True):
        u = rng.standard_normal(leaf.shape)
        row = _compare(name, phi, leaf, u, dx)
        if elementwise or not row.error <= tol:
            entries = _entries(name, phi, leaf, dx)
            row = max(entries, key=lambda entry: entry.error, default=row)
        if not row.error <= tol:  # a NaN is an error too
            raise GradientError(
                f"{row.name}: the tape says {row.tape:.9g}, differences say "
                f"{row.difference:.9g}: relative error {row.error:.1e} > {tol:.0e}"
            )
        rows.append(row)
    return rows


def _float64(array: Any, name: str = "array") -> Any:
    array = xp.asarray(array)
    if array.dtype != xp.float64:
        raise ValueError(
            f"{name} is {array.dtype}: check in float64, where rounding is 1e-16 of a value; "
            "in float32 it is 1e-7, as large as the errors looked for"
        )
    return array


def _tape(f: Callable[[], Tensor], leaves: list[Tensor], g: Any) -> list[np.ndarray]:
    """The gradient of sum(g * f()) in each leaf, from backward(); the leaves' own are kept."""
    kept = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    f().backward(g)
    grads = [np.zeros(leaf.shape) if leaf.grad is None else to_numpy(leaf.grad) for leaf in leaves]
    for leaf, grad in zip(leaves, kept, strict=True):
        leaf.grad = grad
    return grads


def _projection(f: Callable[[], Tensor], g: Any) -> Callable[[], np.ndarray]:
    """f() times the cotangent, as a flat array: its sum is the scalar that is differenced."""

    def phi() -> np.ndarray:
        with no_grad(), np.errstate(all="ignore"):  # a step may leave f's domain; it is not chosen
            return to_numpy(f().data * g).reshape(-1)

    if not np.array_equal(phi(), phi(), equal_nan=True):
        raise GradientError("two calls of f differ: fix its generator, or it cannot be differenced")
    return phi


def _compare(name: str, phi: Callable, leaf: Tensor, u: np.ndarray, dx: np.ndarray) -> Comparison:
    """The derivative along u, from the tape and from differences."""
    size = size_of(to_numpy(leaf.data))
    found = slope(lambda t: _shifted(phi, leaf, t * u), size)
    if found.kink:
        raise GradientError(f"{name}: kink: slopes left and right differ by {abs(found.kink):.3g}")
    difference, tape = float(found.value), float((dx * u).sum())
    # Below noise / 1e-9 a difference has fewer than nine good digits: no smaller scale is fair.
    noise = 1e3 * EPS * float(np.abs(phi()).sum()) / size
    scale = max(abs(tape), abs(difference), noise / 1e-9)
    return Comparison(name, abs(tape - difference) / scale if scale else 0.0, tape, difference)


def _entries(name: str, phi: Callable, leaf: Tensor, dx: np.ndarray) -> Iterator[Comparison]:
    for index in np.ndindex(leaf.shape):
        u = np.zeros(leaf.shape)
        u[index] = 1.0
        yield _compare(f"{name}{list(index)}", phi, leaf, u, dx)


def _shifted(phi: Callable, leaf: Tensor, change: np.ndarray) -> np.ndarray:
    """phi with leaf moved by change; leaf is put back."""
    data = leaf.data
    try:
        leaf.data = read_only(data + xp.asarray(change))
        return phi()
    finally:
        leaf.data = data
