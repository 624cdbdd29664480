"""Claims about values: two functions are equal, one bounds the other, one is least at x."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigpt.verify.arguments import CAP, Found, call, finite, is_float, prepared, result, value
from minigpt.verify.claims import Claim, Row
from minigpt.witness import gradient, size_of, slope, spread, worst_index

# Scales of further draws, where the domain is all numbers. Far out, right identities are lost in
# rounding, such as cosh^2 - sinh^2 = 1 at 20; a bound that breaks there breaks by much.
SCALES = {"identity": (0.01, 0.1, 3.0), "bound": (1e-3, 0.1, 10.0, 1e3)}
CLIMB = 200  # steps towards a larger f - bound
WHY = {
    "identity": (1e-10, "rounding of both sides"),
    "bound": (1e-12, "rounding: a bound may be reached"),
}


def hear_values(claim: Claim, arrays: list[Any]) -> Found:
    """An identity or a bound on these arguments, where it must be defined."""
    got = finite(claim, "f", value(claim, "f", claim.f, arrays))
    want = finite(claim, "the claim", value(claim, "the claim", claim.said, arrays))
    fits = want.shape == got.shape or (claim.kind == "bound" and want.ndim <= got.ndim)
    if not fits:
        raise ValueError(
            f"{claim.name}: f has shape {got.shape}, but the claim has shape {want.shape}"
        )
    return _compared(claim, arrays, got, want, _largest(got, want), "")


def hear_elsewhere(
    claim: Claim, rng: np.random.Generator, sizes: dict[str, int] | None
) -> Iterator[Found]:
    """The same at other scales, at the corners of the domain, and for a bound, uphill."""
    drawn = prepared(claim, claim.draw(rng, sizes))
    usual = _largest(*(result(claim, "f", call(claim, "f", f, *drawn))
                       for f in (claim.f, claim.said)))  # fmt: skip
    for where, arrays in _draws(claim, rng, sizes):
        got, want = (result(claim, "f", call(claim, where, f, *arrays))
                     for f in (claim.f, claim.said))  # fmt: skip
        if np.isfinite(got).all() and np.isfinite(want).all():
            yield _compared(claim, arrays, got, want, usual, where)
        else:
            yield [], [f"not finite {where}: not compared there"]
    if claim.kind == "bound":
        yield hear_values(claim, _climb(claim, drawn, rng))


def _draws(claim: Claim, rng: np.random.Generator, sizes: Any) -> Iterator[tuple[str, list[Any]]]:
    """Further arguments, with words for where they are: other scales, the corners of the domain."""
    endless = any(spec.low is None and spec.below is None for spec in claim.inputs.values())
    for scale in SCALES[claim.kind] if endless else (1.0,):
        for end in ("low", "high", "random"):
            arrays = []
            for spec, a in zip(claim.inputs.values(), claim.draw(rng, sizes), strict=True):
                a = np.asarray(a)
                high: Any = {"low": False, "high": True, "random": rng.random(a.shape) < 0.5}[end]
                if a.dtype.kind != "f":
                    arrays.append(a)
                elif spec.low is not None and spec.high is not None:
                    arrays.append(np.where(high, spec.high, spec.low) + np.zeros(a.shape))
                else:  # many bounds are reached where all entries are equal; identities degenerate
                    same = end == "low" and claim.kind == "bound"
                    arrays.append(scale * (np.full(a.shape, rng.normal()) if same else a))
            where = f"at scale {scale:g}" if endless else "at the corners of the domain"
            yield where, prepared(claim, arrays)


def _compared(
    claim: Claim, arrays: list[Any], got: Any, want: Any, usual: float, where: str
) -> Found:
    """One row: the entry of the output that is furthest off, or furthest above its bound."""
    tolerance, why = WHY[claim.kind]
    gap, scale = _gap(claim, got, want, usual)
    if not gap.size:
        return [], ["there is nothing to compare: the output is empty"]
    index = tuple(int(i) for i in np.unravel_index(gap.argmax(), gap.shape))
    want = np.broadcast_to(want, got.shape)
    if gap[index] > tolerance:
        noise = sum(_noise(claim, f, arrays) for f in (claim.f, claim.said)) / float(scale[index])
        tolerance = max(tolerance, 10 * noise)
        if not tolerance <= CAP:
            return [], [f"lost in rounding {where or 'where it was drawn'}: not compared there"]
    error, why = max(0.0, float(gap[index])), f"{why}, {where}" if where else why
    return [Row("out", "value", error, index, float(want[index]), float(got[index]),
                tolerance, why)], []  # fmt: skip


def _noise(claim: Claim, function: Callable, arrays: list[Any]) -> float:
    """How much of a value is rounding: what is left of 6th differences, which no smooth part is.

    Where all values are off by 1 at random, they are off by sqrt(12!) / 6! = 30. Of two steps the
    smaller result counts: a narrow peak is not noise, and goes away with the step.
    Source: More and Wild 2011, Estimating computational noise, sec. 3.
    """
    noises = []
    for step in (1e-3, 1e-5):
        near = [[a * (1 + step * k) if is_float(a) else a for a in arrays] for k in range(-4, 5)]
        values = np.array([np.asarray(call(claim, "f", function, *a), float) for a in near])
        noises.append(float(np.abs(np.diff(values, 6, axis=0)).max(initial=0)) / 30)
    return min(noises)


def _largest(got: np.ndarray, want: np.ndarray) -> float:
    """The largest finite value of the two."""
    sizes = np.abs(np.concatenate([got.reshape(-1), want.reshape(-1)]).astype(float))
    return float(sizes[np.isfinite(sizes)].max(initial=0))


def _gap(claim: Claim, got: Any, want: Any, usual: float) -> tuple[np.ndarray, np.ndarray]:
    """By how much each entry fails, as a share of scale.

    The scale of an identity is the largest value, here or where it is usual; that of a bound is
    the entry's own, or 1/1000 of the usual: what is smaller may be rounding on the way to it.
    """
    if claim.kind == "identity":
        scale = np.full(got.shape, max(usual, _largest(got, want)))
    else:
        scale = np.maximum(np.maximum(np.abs(got), np.abs(want)).astype(float), 1e-3 * usual)
    scale = np.where(scale == 0, 1.0, scale)
    with np.errstate(invalid="ignore"):  # inf - inf, where a climb has left f's domain
        gap = (got.astype(float) - want) / scale
    return np.abs(gap) if claim.kind == "identity" else gap, scale


def _climb(claim: Claim, arrays: list[Any], rng: np.random.Generator) -> list[Any]:
    """Arguments at which f - bound is large: random steps of all sizes, kept where they help."""

    def height(arrays: list[Any]) -> float:
        got, want = (np.asarray(call(claim, "f", f, *arrays)) for f in (claim.f, claim.said))
        highest = float(_gap(claim, got, want, 0.0)[0].max(initial=-np.inf))
        return highest if np.isfinite(highest) else -np.inf

    best = height(arrays)
    for _ in range(CLIMB):
        tried = []
        for spec, a in zip(claim.inputs.values(), arrays, strict=True):
            if is_float(a):
                few = rng.random(a.shape) < rng.choice([0.2, 1.0])
                a = a + few * rng.standard_normal(a.shape) * size_of(a) * 10 ** rng.uniform(-4, 0)
                a = a if spec.low is None else np.clip(a, spec.low, spec.high)
            tried.append(a)
        if (now := height(tried)) > best:
            best, arrays = now, tried
    return prepared(claim, arrays)


# --- optima ---------------------------------------------------------------------------------------

ROUND_X = "rounding of x: relative to the gradient a tenth of x's size away"


def hear_optimum(claim: Claim, arrays: list[Any], rng: np.random.Generator) -> Found:
    """Gradient zero, curvature not negative, no neighbour lower, at the x that the claim says."""
    name, given = next(iter(claim.inputs)), arrays[0]
    x = finite(claim, name, value(claim, f"the claimed {name}", claim.said, arrays[1:]))
    if not is_float(given) or x.shape != given.shape:
        shape = getattr(given, "shape", None)
        raise ValueError(f"{claim.name}: the claimed {name} has shape {x.shape}, not {shape}")
    x, rest = x.astype(float), arrays[1:]
    least = finite(claim, "f", value(claim, "f", claim.f, [x, *rest]))
    if least.size != 1:
        raise ValueError(f"{claim.name}: f must return one number, got shape {least.shape}")

    def phi(z: np.ndarray) -> np.ndarray:
        return np.asarray(claim.f(z, *rest)).reshape(-1)

    flat, notes = _flatness(name, phi, x, rng)
    bent, more = _curvature(name, phi, x, rng)
    return [flat, bent, _neighbours(name, phi, x, given, rng)], notes + more


def _flatness(name: str, phi: Callable, x: np.ndarray, rng: Any) -> tuple[Row, list[str]]:
    """The slope at x along a random direction, as a share of the slopes a little way off."""
    u, size = spread(rng, x.shape), size_of(x)

    def along(v: np.ndarray, start: np.ndarray = x) -> Any:
        return slope(lambda t: phi(start + t * v), size)

    found = along(u)
    if found.kink:
        index = worst_index(lambda v: along(v).kink, u)
        words = f"{name}{list(index)}: kink: the slopes left and right differ, so none is the slope"
        return Row(name, "gradient", np.nan, index, 0.0, np.nan, 1e-7, "no derivative"), [words]
    aside = [x + 0.1 * size * spread(rng, x.shape) for _ in range(4)]
    near = [abs(along(u, start).value) for start in aside]
    scale = max([n for n in near if np.isfinite(n)], default=0.0) or 1.0
    tolerance, error = max(1e-7, 10 * found.error / scale), abs(found.value) / scale
    if not tolerance <= 1e-4:
        return Row(name, "gradient", np.nan, (), 0.0, found.value, 1e-7, ROUND_X), [
            f"{name}: differences not heard: they may be off by {found.error:.1e}"
        ]
    index = worst_index(lambda v: along(v).value, u) if error > tolerance else ()
    measured = along(_unit(x, index)).value if error > tolerance else found.value
    return Row(name, "gradient", error, index, 0.0, measured, tolerance, ROUND_X), []


def _unit(x: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(x.shape)
    out[index] = 1.0
    return out


def _curvature(name: str, phi: Callable, x: np.ndarray, rng: Any) -> tuple[Row, list[str]]:
    """The least curvature: of all directions up to 32 entries, else of 64 random directions."""
    h, n = 4e-3 * size_of(x), x.size
    if n <= 32:
        columns = []
        for u in np.eye(n).reshape(n, *x.shape):
            up, down = (gradient(phi, x + t * u, rng).reshape(-1) for t in (h, -h))
            columns.append((up - down) / (2 * h))
        hessian = np.array(columns).reshape(n, n)
        ok = np.isfinite(hessian).all()
        bends = np.linalg.eigvalsh((hessian + hessian.T) / 2) if ok else np.array([np.nan])
    else:
        ways = [u / np.linalg.norm(u) for u in (spread(rng, x.shape) for _ in range(64))]
        bends = np.array(
            [(phi(x + h * u) + phi(x - h * u) - 2 * phi(x)).sum() / h**2 for u in ways]
        )
    least, most = float(min(bends, default=0.0)), float(np.abs(bends).max(initial=0))
    error = max(0.0, -least / most) if most else 0.0
    flat = abs(least) <= 1e-6 * most
    notes = [f"{name}: flat along some direction: there may be other optima"] if flat else []
    why = "differences of gradients: relative to the largest curvature"
    return Row(name, "curvature", error, (), 0.0, least, 1e-6, why), notes


def _neighbours(name: str, phi: Callable, x: np.ndarray, given: np.ndarray, rng: Any) -> Row:
    """f at x against f at random points, near and far: none may be lower."""
    least, size = float(phi(x)[0]), size_of(x)
    others = [x + size * 10.0**k * spread(rng, x.shape) for k in range(-4, 2) for _ in range(8)]
    with np.errstate(all="ignore"):
        lowest = min([v for z in (*others, given) if np.isfinite(v := float(phi(z)[0]))],
                     default=np.inf)  # fmt: skip
    scale = max(abs(least), abs(lowest) if np.isfinite(lowest) else 0.0) or 1.0
    error = max(0.0, (least - lowest) / scale)
    return Row(name, "neighbours", error, (), least, lowest, 1e-12, "rounding of f")
