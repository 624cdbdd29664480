"""Claims about derivatives before the witnesses: VJPs, gradients, Jacobians, Hessians.

Each claim is reduced to questions. A question is an argument x, a function phi whose elements sum
to a number, and the gradient of that number as claimed. Each witness measures the derivative along
one random direction u; the claim says it is <claimed, u>. Errors are shares of the largest entry.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from minigpt.verify.arguments import CAP, Found, call, finite, is_float, moved, result, value
from minigpt.verify.claims import Claim, Row
from minigpt.witness import (
    TINY,
    NotAnalytic,
    Slope,
    adjoint_slope,
    complex_slope,
    gradient,
    is_linear,
    size_of,
    slope,
    spread,
    worst_index,
)

# A witness's tolerance, relative to the largest entry, and the reason.
WHY = {
    "differences": (1e-8, "truncation and rounding: ten times their own estimate, or 1e-8"),
    "complex step": (1e-10, "rounding of f alone: nothing is subtracted"),
    "adjoint": (1e-12, "rounding of two inner products: no step is taken"),
}
FLOOR = 1e-4  # a gradient below this share of f / x is compared with that share


@dataclass(frozen=True)
class Question:
    """Is `claimed` the gradient of sum(phi(x))?"""

    name: str
    x: np.ndarray
    claimed: np.ndarray
    phi: Callable[[np.ndarray], np.ndarray]  # real or complex x -> flat array


Witness = Callable[[Question, np.ndarray], Slope]  # the derivative along a direction


def hear_vjp(claim: Claim, arrays: list[Any], rng: np.random.Generator) -> Found:
    """A VJP or a gradient: one question for each float argument."""
    out = _output(claim, arrays)
    g = np.ones(out.shape) if claim.kind == "gradient" else spread(rng, out.shape)
    g.flags.writeable = False
    return _hear_all(lambda a: _questions(claim, a, g), arrays, rng)


def hear_jacobian(claim: Claim, arrays: list[Any], rng: np.random.Generator) -> Found:
    """A Jacobian in the first argument: a random cotangent makes a gradient of it."""
    out = _output(claim, arrays)
    g = spread(rng, out.shape)

    def ask(a: list[Any]) -> list[Question]:
        said = _jacobian(claim, a, out.shape)
        name, phi = next(iter(claim.inputs)), partial(_phi, claim.f, a, 0, g)
        return [Question(name, a[0], np.tensordot(g, said, out.ndim), phi)]

    rows, notes = _hear_all(ask, arrays, rng)
    said = _jacobian(claim, arrays, out.shape)
    return [_entry(claim, arrays, said, row) for row in rows], notes


def hear_hessian(claim: Claim, arrays: list[Any], rng: np.random.Generator) -> Found:
    """A Hessian in the first argument: the Jacobian of the gradient, which is measured."""
    if (out := _output(claim, arrays)).size != 1:
        raise ValueError(f"{claim.name}: f must return one number, got shape {out.shape}")

    def measured(x: np.ndarray, *rest: Any) -> np.ndarray:
        if x.dtype != np.float64:
            raise TypeError("a measured gradient has no complex step")
        same = np.random.default_rng(0)
        return gradient(lambda z: np.asarray(claim.f(z, *rest)).reshape(-1), x, same)

    rows, notes = hear_jacobian(replace(claim, f=measured), arrays, rng)
    return rows, [note for note in notes if "complex step" not in note]


# --- the questions --------------------------------------------------------------------------------


def _output(claim: Claim, arrays: list[Any]) -> np.ndarray:
    out = value(claim, "f", claim.f, arrays)
    if out.dtype != np.float64:
        raise ValueError(f"{claim.name}: f returns {out.dtype}, which has no derivative")
    if not any(is_float(a) for a in arrays):
        raise ValueError(f"{claim.name}: no argument is float64: nothing can be differentiated")
    if claim.kind == "gradient" and out.size != 1:
        raise ValueError(f"{claim.name}: f must return one number for a gradient, got shape "
                         f"{out.shape}: claim a vjp or a jacobian")  # fmt: skip
    return finite(claim, "f", out)


def _phi(f: Callable, arrays: list[Any], i: int, g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """f with argument i at x, times the cotangent, as a flat array."""
    return (g * np.asarray(f(*arrays[:i], x, *arrays[i + 1 :]))).reshape(-1)


def _questions(claim: Claim, arrays: list[Any], g: np.ndarray) -> list[Question]:
    names, floats = list(claim.inputs), [i for i, a in enumerate(arrays) if is_float(a)]
    said = _gradients(claim, arrays, g)
    if len(said) == len(arrays):  # a place for every argument
        said = [said[i] for i in floats]
    if len(said) != len(floats):
        wanted = ", ".join(names[i] for i in floats)
        raise ValueError(f"{claim.name}: {len(said)} gradients were returned for {len(floats)} "
                         f"float arguments: {wanted}")  # fmt: skip
    asked = []
    for i, raw in zip(floats, said, strict=True):
        who = f"the gradient of {names[i]}"
        claimed = result(claim, who, raw)
        if claimed.shape != arrays[i].shape:
            raise ValueError(f"{claim.name}: {who} has shape {claimed.shape}, but {names[i]} has "
                             f"shape {arrays[i].shape}")  # fmt: skip
        finite(claim, who, claimed)
        asked.append(Question(names[i], arrays[i], claimed, partial(_phi, claim.f, arrays, i, g)))
    return asked


def _gradients(claim: Claim, arrays: list[Any], g: np.ndarray) -> list[Any]:
    """What the claim returns, the same on two calls, as a list."""
    args = arrays if claim.kind == "gradient" else [g, *arrays]
    lists = []
    for _ in range(2):
        said = call(claim, f"the {claim.kind}", claim.said, *args)
        many = isinstance(said, tuple) or (  # one list is one array, if one array is wanted
            isinstance(said, list)
            and (sum(map(is_float, arrays)) > 1 or any(s is None for s in said))
        )
        lists.append(list(said) if many else [said])
    first, second = lists
    same = len(first) == len(second) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)
        if a is not None
    )  # fmt: skip
    if not same:
        raise ValueError(f"{claim.name}: two calls of the {claim.kind} differ: fix its generator")
    return first


def _jacobian(claim: Claim, arrays: list[Any], out: tuple[int, ...]) -> np.ndarray:
    said = value(claim, f"the {claim.kind}", claim.said, arrays)
    wanted = out + arrays[0].shape if is_float(arrays[0]) else None
    if said.shape != wanted:
        raise ValueError(f"{claim.name}: the claim has shape {said.shape}, but the {claim.kind} in "
                         f"the first argument has shape {wanted}")  # fmt: skip
    return finite(claim, f"the {claim.kind}", said)


# --- the witnesses --------------------------------------------------------------------------------


def _hear_all(ask: Callable, arrays: list[Any], rng: np.random.Generator) -> Found:
    rows, notes = [], []
    for i, question in enumerate(ask(arrays)):

        def again(i: int = i) -> Question:
            return ask(moved(arrays))[i]

        found = _hear(question, again, rng)
        rows += found[0] or [Row(question.name, "none", np.nan, (), np.nan, np.nan, 0.0,
                                 "no witness could be heard")]  # fmt: skip
        notes += found[1]
    return rows, notes


def _differences(q: Question, u: np.ndarray) -> Slope:
    return slope(lambda t: q.phi(q.x + t * u), size_of(q.x))


def _complex_step(q: Question, u: np.ndarray) -> Slope:
    return complex_slope(lambda t: q.phi(q.x + t * u), size_of(q.x))


def _imaginary(q: Question, u: np.ndarray) -> Slope:
    """The complex step alone."""
    with np.errstate(all="ignore"):
        return Slope(float(np.imag(q.phi(q.x + 1j * TINY * u)).sum()) / TINY, 0.0)


def _quick(witness: Witness) -> Witness:
    """The same value in fewer questions, once phi is known to be analytic."""
    return _imaginary if witness is _complex_step else witness


def _adjoint(q: Question, u: np.ndarray) -> Slope:
    return adjoint_slope(q.phi, u)


def _hear(q: Question, again: Callable[[], Question], rng: np.random.Generator) -> Found:
    """Every witness on one question. again: the same question at arguments moved by rounding."""
    u, rows, notes = spread(rng, q.x.shape), [], []
    witnesses: dict[str, Witness] = {"complex step": _complex_step, "differences": _differences}
    if is_linear(q.phi, q.x, rng):
        witnesses = {"adjoint": _adjoint} | witnesses
    where: list[tuple[int, ...]] = []  # the worst entry, as the most exact witness finds it
    for name, witness in witnesses.items():
        try:
            found = _confront(q, name, witness, u, again, where)
        except NotAnalytic as error:
            notes.append(f"{q.name}: complex step not heard: {error}")
            continue
        rows += found[0]
        notes += found[1]
    return rows, notes


def _confront(q: Question, name: str, witness: Witness, u: Any, again: Any, where: list) -> Found:
    """What the claim says along u against what the witness measures."""
    found, (tolerance, why) = witness(q, u), WHY[name]
    if found.kink:
        return _kink(q, witness, u)
    claimed, largest = float((q.claimed * u).sum()), float(np.abs(q.claimed).max(initial=0))
    natural = float(np.linalg.norm(q.phi(q.x))) / size_of(q.x)
    share = abs(found.value) / float(np.linalg.norm(u)) if u.size else 0.0
    scale = max(largest, share, FLOOR * natural) or 1.0
    cap = CAP * max(scale, float(np.linalg.norm(q.claimed)), abs(found.value)) / scale
    error, doubt = abs(claimed - found.value) / scale, 10 * found.error / scale
    if max(tolerance, doubt) < error and doubt <= cap:  # may rounding of the arguments explain it?
        other = again()
        wobble = abs(float((other.claimed * u).sum()) - claimed)
        doubt += 10 * (wobble + abs(_quick(witness)(other, u).value - found.value)) / scale
    tolerance = max(tolerance, doubt)
    if not tolerance <= cap:
        why = "f is not analytic there" if name == "complex step" and not doubt < 1e3 * cap else (
            f"it is uncertain by more than {CAP:.0e} of the derivative")  # fmt: skip
        return [], [f"{q.name}: {name} not heard: {why}"]
    if tolerance * scale > 0.1 * largest > 1e-13 * natural:
        return [], [f"{q.name}: {name} not heard: the claimed gradient is lost in f's rounding"]
    if error > tolerance:
        row = _worst(q, name, witness, u, where)
        row = replace(row, error=row.error / max(scale, abs(row.measured)), tolerance=tolerance)
        if row.error > tolerance:  # otherwise many entries, each off by little
            return [row], []
    return [Row(q.name, name, error, (), claimed, found.value, tolerance, why)], []


def _worst(q: Question, name: str, witness: Witness, u: np.ndarray, where: list) -> Row:
    """The entry where claim and witness differ most; its error is not yet divided by a scale."""
    quick = _quick(witness)
    where += where or [worst_index(lambda v: float((q.claimed * v).sum()) - quick(q, v).value, u)]
    unit = np.zeros(u.shape)
    unit[where[0]] = 1.0
    claimed, measured = float(q.claimed[where[0]]), quick(q, unit).value
    return Row(
        q.name, name, abs(claimed - measured), where[0], claimed, measured, 0.0, WHY[name][1]
    )


def _kink(q: Question, witness: Witness, u: np.ndarray) -> Found:
    """A row that cannot hold, and a note that says which entry has no derivative."""
    index = worst_index(lambda v: witness(q, v).kink, u)
    words = f"{q.name}{list(index)}: kink: the slopes left and right differ, so none is the slope"
    return [Row(q.name, "differences", np.nan, index, float(q.claimed[index]), np.nan,
                WHY["differences"][0], "a kink has no derivative")], [words]  # fmt: skip


def _entry(claim: Claim, arrays: list[Any], said: np.ndarray, row: Row) -> Row:
    """A failed row of a Jacobian names an entry of x: add the entry of the output."""
    if not row.error > row.tolerance or (not row.index and arrays[0].ndim):
        return row
    unit, h = np.zeros(arrays[0].shape), 1e-3 * size_of(arrays[0])
    unit[row.index] = 1.0

    def f(t: float) -> np.ndarray:
        return np.asarray(claim.f(arrays[0] + t * unit, *arrays[1:]))

    near, far = ((f(t) - f(-t)) / (2 * t) for t in (h, 2 * h))
    column = said.reshape(*said.shape[: said.ndim - unit.ndim], -1)
    column = column[..., np.ravel_multi_index(row.index, unit.shape) if unit.ndim else 0]
    k = np.unravel_index(np.abs((4 * near - far) / 3 - column).argmax(), column.shape)
    measured = slope(lambda t: f(t)[k].reshape(1), size_of(arrays[0])).value
    index = tuple(int(i) for i in k) + row.index
    return replace(row, index=index, claimed=float(column[k]), measured=measured)
