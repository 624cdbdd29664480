"""Numerical witnesses: what a derivative is, measured without knowing how it was derived.

Each measures the derivative of sum(phi(t)) at t = 0, a Slope: its value, and how far it may be off.
- Differences need only values. Large steps truncate, small ones round: several are taken, and the
  estimate that its neighbours support best is kept.
- The complex step subtracts nothing and is right to the last digits, but only if phi is analytic.
  abs, norm and var are not, and it would be wrong without a sign of it. So phi is first asked for
  the Cauchy-Riemann equations, on a circle around 0.
- The adjoint identity <J u, g> = <u, J^T g> has no steps at all, where a map is linear.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

EPS = float(np.finfo(float).eps)
LEVELS = 0.25 ** np.arange(3, 10)  # steps 1.6e-2 .. 3.8e-6, in units of the argument's size
DEEPER = 0.25 ** np.arange(10, 17)  # .. 2.3e-10: where something happens on a small scale
CONFIRM = 4  # so many of the deeper steps must show a kink, or it is not one
TINY = 1e-30  # the complex step: its square is lost beside any value
RADII = (1e-3, 1e-5, 1e-7)  # of the circles; and steps, where differences confirm it


class NotAnalytic(ValueError):
    """A function that the complex step cannot be asked about. The message says why."""


@dataclass(frozen=True)
class Slope:
    """A derivative along a direction. error: what it may be off. kink: slope right minus left."""

    value: float
    error: float
    kink: float = 0.0


def rel_error(got: Any, want: Any) -> float:
    """The largest difference of two arrays, as a share of the largest value in either.

    Raises: ValueError if the shapes differ: broadcasting would hide a lost axis.
    """
    got, want = _on_host(got), _on_host(want)
    if got.shape != want.shape:
        raise ValueError(f"shapes differ: {got.shape} and {want.shape}")
    size = max(np.abs(got).max(initial=0), np.abs(want).max(initial=0))
    return float(np.abs(got - want).max(initial=0) / size) if size else 0.0


def _on_host(x: Any) -> np.ndarray:
    """A Tensor's data, or x itself, as a NumPy array; from a GPU by CuPy's own method."""
    x = x.data if hasattr(x, "requires_grad") else x
    return np.asarray(x.get() if hasattr(x, "get") else x)


def central_differences(phi: Callable[[np.ndarray], float], x: Any, h: float = 1e-3) -> np.ndarray:
    """The gradient of the number phi(x) by differences, with an error of order h**4.

    Central differences at h and 2h, extrapolated to h = 0 (Richardson). x: float64, any shape.
    """

    def slope(index, step):
        shift = np.zeros(x.shape)
        shift[index] = step
        return (phi(x + shift) - phi(x - shift)) / (2 * step)

    x = np.asarray(x, dtype=float)
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        out[index] = (4 * slope(index, h) - slope(index, 2 * h)) / 3
    return out


def complex_step(phi: Callable[[np.ndarray], complex], x: Any) -> np.ndarray:
    """The gradient of an analytic phi: Im phi(x + ih) / h, which subtracts nothing.

    phi must accept complex arrays and use no abs, max or comparison. x: float64, any shape.
    """
    x = np.asarray(x, dtype=float)
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1j * TINY
        out[index] = np.imag(phi(moved)) / TINY
    return out


# --- differences ------------------------------------------------------------------------------


def size_of(x: np.ndarray) -> float:
    """The unit of steps in x: its largest value, or 1 if that is larger."""
    return max(1.0, float(np.abs(x).max(initial=0)))


def spread(rng: "np.random.Generator", shape: tuple[int, ...]) -> np.ndarray:
    """A random direction in which no entry can hide: +-(0.5 .. 1.5), never near 0."""
    return np.asarray(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape))


def slope(phi: Callable[[float], np.ndarray], size: float = 1.0) -> Slope:
    """The derivative of sum(phi(t)) at t = 0, by differences whose steps are chosen by themselves.

    phi: number -> flat array. Keep it elementwise: what does not move then adds nothing, and a
    kink in one element stands out. size: the scale of t on which to start.
    """
    with np.errstate(all="ignore"):  # a step may leave phi's domain; it is not chosen
        centre = phi(0.0)
        samples = [(h, phi(h), phi(-h)) for h in size * LEVELS]
        best, suspect = _extrapolated(centre, samples), _suspects(centre, samples)
        natural = float(np.linalg.norm(centre)) / size
        if best.error <= 1e-9 * max(abs(best.value), 1e-3 * natural) and not suspect.any():
            return best
        deeper = [(h, phi(h), phi(-h)) for h in size * DEEPER]
        kink = _confirmed(centre, samples, deeper, suspect)
        best = _extrapolated(centre, samples + deeper)
        return Slope(best.value, best.error, kink) if kink else best


def _extrapolated(centre: np.ndarray, samples: list[tuple]) -> Slope:
    """Romberg's table, each step a quarter of the last; the entry with the smallest error.

    An entry's error is what it differs by from its neighbours of lower order, and its rounding.
    """
    found: list[tuple[Slope, int]] = []  # with its level
    plain, last = list[float](), list[float]()
    noise = 2 * EPS * float(np.linalg.norm(centre))
    for level, (h, up, down) in enumerate(samples):
        row = [float((up - down).sum()) / (2 * h)]
        plain.append(row[0])
        for order, older in enumerate(last[:2], 1):
            row.append(row[-1] + (row[-1] - older) / (16**order - 1))
            error = max(abs(row[-1] - row[-2]), abs(row[-1] - older)) + noise / h
            found.append((Slope(row[-1], error), level))
        last = row
    ordered = sorted((f for f in found if np.isfinite(f[0].error)), key=lambda f: f[0].error)
    kept = (f for f, level in ordered if not _refuted(f, plain[level + 1 :]))
    return next(kept, Slope(np.nan, np.inf))


def _refuted(found: Slope, finer: list[float]) -> bool:
    """True if three finer steps in a row agree with each other, and not with what was found.

    So it is where a kink lies closer than the coarse steps, which agree on a slope across it.
    """
    for three in zip(finer, finer[1:], finer[2:], strict=False):
        off = abs(three[-1] - found.value)
        if off > 10 * found.error and max(three) - min(three) < 0.1 * off:
            return True
    return False


def _bends(centre: np.ndarray, samples: list[tuple]) -> list[np.ndarray]:
    """For each step, and each element: slope right minus slope left, extrapolated to step 0."""
    raw = [(up + down - 2 * centre) / h for h, up, down in samples]
    return [(4 * fine - coarse) / 3 for coarse, fine in zip(raw, raw[1:], strict=False)]


def _suspects(centre: np.ndarray, samples: list[tuple]) -> np.ndarray:
    """The elements that may have a kink: their bend does not go away with the step."""
    *_, before, last = _bends(centre, samples)
    h, up, down = samples[-1]
    least = 1e-5 * np.abs(up - down) / (2 * h) + 50 * EPS * np.abs(centre) / h
    return (np.abs(last) > least) & (np.abs(last) > 0.25 * np.abs(before))


def _confirmed(centre: np.ndarray, samples: list, deeper: list, suspect: np.ndarray) -> float:
    """The largest bend of the suspects that stays what it is as the step goes on to shrink.

    A smooth bend shrinks with the step, and rounding grows as it shrinks: only a kink stays.
    """
    first, *others = _bends(centre, [*samples[-1:], *deeper[: CONFIRM + 1]])
    for bend in others:
        suspect = suspect & (np.abs(bend - first) <= 0.3 * np.abs(first))
    stays = np.where(suspect, first, 0.0)
    return float(stays[np.abs(stays).argmax()]) if stays.size else 0.0


# --- the complex step -------------------------------------------------------------------------


def complex_slope(phi: Callable[[complex], np.ndarray], size: float = 1.0) -> Slope:
    """The derivative of sum(phi(t)) at t = 0: Im phi(ih) / h, and its doubt as the error.

    The doubt is by how much the Cauchy-Riemann equations fail: on a circle of radius r, the mean of
    phi(r w) / w is r phi', and the mean of phi(r w) w is 0, if and only if phi is analytic there.
    Raises: NotAnalytic if phi does not take complex numbers, or drops their imaginary part.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            centre = phi(0.0)
            value = float(np.imag(phi(1j * TINY)).sum() / TINY)
            noise = EPS * float(np.linalg.norm(centre))
            doubts = []
            for radius in RADII:
                doubts.append(_doubt(phi, centre, value, radius * size) + noise / (radius * size))
                if doubts[-1] <= max(1e-12 * abs(value), 2 * noise / (radius * size)):
                    break
    except Exception as error:  # whatever f raises: it was not written for complex numbers
        raise NotAnalytic(f"{type(error).__name__}: {error}") from error
    return Slope(value, min(doubts))


def _doubt(phi: Callable, centre: np.ndarray, value: float, radius: float) -> float:
    """How far phi is from analytic on a circle, or value from the derivative that it has there."""
    w = np.exp(2j * np.pi * np.arange(8) / 8)
    values = np.array([(phi(radius * turn) - centre).sum() for turn in w])
    along, against = (values / w).mean() / radius, (values * w).mean() / radius
    doubt = abs(against) + abs(along - value) + abs(values.mean()) / radius
    return float(doubt) if np.isfinite(doubt) else np.inf


# --- the adjoint ------------------------------------------------------------------------------


def is_linear(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, rng: Any) -> bool:
    """True if f(x) - f(0) is linear in x, as far as rounding tells: sums, multiples and signs."""
    with suppress(Exception), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zero = f(np.zeros(x.shape))
        for factor in (-1.7, 0.6):
            u, v = (size_of(x) * rng.standard_normal(x.shape) for _ in range(2))
            fu, fv = f(u) - zero, f(v) - zero
            size = float(np.abs(fu).max(initial=0) + np.abs(fv).max(initial=0))
            size += float(np.abs(zero).max(initial=0))
            both, back = f(u + factor * v) - zero, f(-u) - zero
            gap = np.abs(both - fu - factor * fv) + np.abs(back + fu)
            if not float(gap.max(initial=0)) <= 1e-12 * size:
                return False
        return True
    return False  # f does not take such values


def adjoint_slope(phi: Callable[[np.ndarray], np.ndarray], u: np.ndarray) -> Slope:
    """<J u, g> of a linear map, where phi(x) is g * f(x) elementwise: no step, only rounding."""
    moved, zero = phi(u), phi(np.zeros(u.shape))
    rounding = EPS * float(np.linalg.norm(moved) + np.linalg.norm(zero))
    return Slope(float((moved - zero).sum()), 4 * rounding)


# --- where ------------------------------------------------------------------------------------


def worst_index(residual: Callable[[np.ndarray], float], u: np.ndarray) -> tuple[int, ...]:
    """Where residual, a linear function of the direction u, is large: the index of one entry.

    Up to 64 entries are asked one by one. Of more, one half is asked, and the half with the larger
    share is halved again: log2(n) questions. One bad entry is found; of many, one of the worse.
    """
    if u.size <= 64:
        each = [abs(residual(_only(u, [i]))) for i in range(u.size)]
        worst = np.argmax(np.where(np.isfinite(each), each, np.inf))
        return tuple(int(i) for i in np.unravel_index(worst, u.shape))
    block, total = np.arange(u.size), residual(u)
    while len(block) > 1:
        first, second = np.array_split(block, 2)
        share = residual(_only(u, first))
        if abs(share) >= abs(total - share) or not np.isfinite(share):
            block, total = first, share
        else:
            block, total = second, total - share
    return tuple(int(i) for i in np.unravel_index(block[0], u.shape))


def _only(u: np.ndarray, entries: Any) -> np.ndarray:
    """u at these entries, 0 elsewhere."""
    out = np.zeros(u.size)
    out[entries] = u.reshape(-1)[entries]
    return out.reshape(u.shape)


def gradient(phi: Callable[[np.ndarray], np.ndarray], x: np.ndarray, rng: Any) -> np.ndarray:
    """The gradient of sum(phi(x)), every entry: by complex steps where they are right, else slopes.

    phi: array -> array; x float64. rng: for the direction in which the complex step is tried.
    """

    def along(u: np.ndarray) -> Callable[[complex], np.ndarray]:
        return lambda t: phi(x + t * u).reshape(-1)

    size = size_of(x)
    if _steps_agree(along(spread(rng, x.shape)), size):
        return complex_step(lambda z: phi(z).sum(), x)
    units = (_only(np.ones(x.shape), [i]) for i in range(x.size))
    return np.reshape([slope(along(unit), size).value for unit in units], x.shape)


def _steps_agree(phi: Callable[[Any], np.ndarray], size: float) -> bool:
    """True if the complex step finds the slope that differences find: cheaper than a circle."""
    with suppress(Exception), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        value = float(np.imag(phi(1j * TINY)).sum()) / TINY
        scale = max(abs(value), float(np.linalg.norm(phi(0.0))) / size)
        slopes = (central_differences(lambda t: phi(t).sum(), 0.0, h * size) for h in RADII)
        return any(abs(slope - value) <= 1e-9 * scale for slope in slopes)
    return False  # phi was not written for complex numbers
