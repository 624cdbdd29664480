"""Mistakes inside a formula: a term or a factor that is missing, a branch held constant.

For a known operation its terms are at hand by name. For any other, terms and factors are built
from what there is: g, the arguments, the output, their means and norms.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minigpt.verify.known import Known, Parts
from minigpt.verify.patterns import EXACT, Bench, Guess, share_name
from minigpt.verify.trials import Trial, distance

# --- known operations -----------------------------------------------------------------------------


def known_forms(bench: Bench, k: int) -> Iterator[Guess]:
    """The wrong forms that are written for the operation that f is, then its terms one by one."""
    for known in bench.known:
        parts = [_parts(known, t) for t in bench.trials]
        if any(k >= len(p) for p in parts):
            continue
        for pattern, what in dict.fromkeys((a, b) for p in parts for a, b, _ in p[k][1]):
            yield Guess(pattern, f"it is {known.name}'s gradient with this mistake: {what}",
                        partial(_form, bench, k, parts, what), known.chapter)  # fmt: skip
        yield from _by_terms(bench, k, known, [p[k][0] for p in parts])


def _parts(known: Known, t: Trial) -> Parts:
    with np.errstate(all="ignore"):
        return known.parts(t.g, *t.args)


def _form(bench: Bench, k: int, parts: list[Parts], what: str, t: Trial) -> float:
    """How far what was said is from a wrong form, which not all lengths may have."""
    forms = [values for _, name, values in parts[bench.turn(t)][k][1] if name == what]
    return distance(t.said[k], forms[0]) if forms else math.nan


def _by_terms(bench: Bench, k: int, known: Known, terms: list[dict]) -> Iterator[Guess]:
    """What was said as a sum of the known terms, each with a share that should be 1."""
    names = list(terms[0])
    if len(names) < 2 or any(t.said[k].shape != t.x(k).shape for t in bench.trials):
        return
    shares, gaps = np.ones((len(terms), len(names))), []
    for n, t in enumerate(bench.trials):
        columns = np.stack([terms[n][a].reshape(-1) for a in names], 1)
        said = t.said[k].reshape(-1)
        if not np.isfinite(said).all() or np.linalg.matrix_rank(columns) < len(names):
            return
        shares[n] = np.linalg.lstsq(columns, said, rcond=None)[0]
        gaps.append(distance(said, columns @ shares[n]))
    off = [j for j in range(len(names)) if np.abs(shares[:, j] - 1).max() > EXACT]
    named = _terms_name([names[j] for j in off], shares[:, off], bench)
    if named:
        # Exact if the terms, with these shares, are all that was said.
        yield Guess(named[0], f"{known.name}: {named[1]}", lambda t: gaps[bench.turn(t)],
                    known.chapter)  # fmt: skip


def _terms_name(off: list[str], shares: np.ndarray, bench: Bench) -> tuple[str, str] | None:
    """A name for the terms whose share is not 1, if they share one mistake."""
    if not off or np.abs(shares - shares[:, :1]).max() > EXACT:
        return None
    names = " and ".join(sorted(off))
    if np.abs(shares).max() < EXACT:
        short = "missing row sum" if off == ["row sum"] else f"missing {names} term"
        return short + "s" * (len(off) > 1), f"the {names} term is not there"
    named = share_name(list(shares[:, 0]), bench.trials)
    if named is None:
        return None
    pattern = {"sign": "sign of a term", "constant factor": "term with a factor"}
    return pattern.get(named[0], named[0]), f"of the {names} term, {named[1]}"


# --- a factor that is missing ---------------------------------------------------------------------


def missing_factor(bench: Bench, k: int) -> Iterator[Guess]:
    """The right gradient is a simple fraction times a recognisable quantity times what was said."""
    for name in _quantities(bench, k, bench.trials[0]):
        yield Guess("missing factor", f"times {name} it is right, up to a constant",
                    partial(_multiple, bench, k, name))  # fmt: skip


def _multiple(bench: Bench, k: int, name: str, t: Trial) -> float:
    value, true = _quantities(bench, k, t)[name](), t.true(k)
    got = t.said[k] * value
    if got.shape != true.shape or not np.isfinite(value).all():
        return math.inf
    known = np.isfinite(true)
    size = float((got[known] ** 2).sum())
    share = float((got[known] * true[known]).sum()) / size if size else 0.0
    simple = abs(share * 12 - round(share * 12)) < EXACT and 0 < abs(share) <= 6
    return distance(share * got, true) if simple else math.inf


Make = Callable[[], np.ndarray]  # an array that is made when it is asked for: it may be large

# What a factor may be: of each argument and of f, and of each axis of the input.
OF_VALUES: dict[str, Callable] = {
    "{}": lambda a: a, "1/{}": lambda a: 1 / a, "{}^2": lambda a: a * a,
    "1/{}^2": lambda a: 1 / (a * a), "(1 - {})": lambda a: 1 - a, "(1 + {})": lambda a: 1 + a,
    "exp({})": lambda a: np.exp(a), "exp(-{})": lambda a: np.exp(-a),
}  # fmt: skip
OF_ROWS: dict[str, Callable] = {
    "the norm over axis {}": lambda x, i: np.linalg.norm(x, axis=i, keepdims=True),
    "1/norm over axis {}": lambda x, i: 1 / np.linalg.norm(x, axis=i, keepdims=True),
    "std over axis {}": lambda x, i: x.std(i, keepdims=True),
    "1/std over axis {}": lambda x, i: 1 / x.std(i, keepdims=True),
}


def _quantities(bench: Bench, k: int, t: Trial) -> dict[str, Make]:
    """What a factor may be, by name, in shapes that broadcast against the k-th gradient."""
    x = t.x(k)
    values = {bench.names[i]: t.args[i] for i in bench.floats()}
    values["f"] = t.out[..., None] if t.out.ndim == x.ndim - 1 else t.out  # one number for each row
    found = {name.format(n): partial(of, a)
             for n, a in values.items() for name, of in OF_VALUES.items()}  # fmt: skip
    return found | {name.format(axis): partial(of, x, axis)
                    for axis in range(x.ndim) for name, of in OF_ROWS.items()}  # fmt: skip


# Slopes of common functions in terms of their output: an outer function left underived.
SLOPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "1 - f^2 (tanh)": lambda f: 1 - f * f,
    "f (1 - f) (sigmoid)": lambda f: f * (1 - f),
    "f (exp)": lambda f: f,
    "f^2": lambda f: f * f,
    "1/f": lambda f: 1 / f,
    "1 - exp(-f) (softplus)": lambda f: -np.expm1(-f),
    "exp(-f) (log)": lambda f: np.exp(-f),
    "f > 0 (relu)": lambda f: (f > 0).astype(float),
}


def inner_derivative(bench: Bench, k: int) -> Iterator[Guess]:
    """Right if g is first multiplied by the outer function's slope."""
    for name, slope in SLOPES.items():
        yield Guess("missing inner derivative", f"it is right with g times {name} for g",
                    partial(_sloped, k, slope))  # fmt: skip


def _sloped(k: int, slope: Callable, t: Trial) -> float:
    return t.gap(k, t.ask(t.g * slope(t.out), t.args)[k])


# --- a term that is missing -----------------------------------------------------------------------


def branches(bench: Bench, k: int) -> Iterator[Guess]:
    """x occurs twice in f, and one occurrence was held constant."""
    pattern, names, of = "missing product-rule branch", bench.names, bench.question.of
    yield Guess(pattern, "it is g f(x)/x: the other factor's derivative is not there",
                lambda t: distance(t.said[k], t.g * t.out / t.x(k)))  # fmt: skip
    yield Guess(pattern, "g f(x)/x is not there: it holds the other factor's derivative alone",
                lambda t: t.gap(k, _plus(t.said[k], t.g * t.out / t.x(k))))  # fmt: skip
    yield Guess(pattern, "the same with g transposed is to be added", partial(_mirrored, k, None))
    for i in bench.floats():
        yield Guess(pattern, f"the same with {names[i]} transposed is to be added",
                    partial(_mirrored, k, i))  # fmt: skip
    for j in range(len(of)):
        if j != k:
            yield Guess("missing term", f"the half in which {names[of[k]]} and {names[of[j]]} are "
                        "exchanged is to be added", partial(_other_half, k, j))  # fmt: skip


def _plus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum of two arrays of one shape: nothing is broadcast."""
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    return a + b


def _mirrored(k: int, i: int | None, t: Trial) -> float:
    a = t.g if i is None else t.args[i]
    if a.ndim < 2:
        return math.inf
    a = a.swapaxes(-1, -2)
    said = t.ask(a, t.args) if i is None else t.ask(t.g, t.put(i, a))
    return t.gap(k, _plus(t.said[k], said[k]))


def _other_half(k: int, j: int, t: Trial) -> float:
    """f(x, y) = f(y, x): what is said for y, with both exchanged, is x's other half."""
    args, of = list(t.args), t.question.of
    args[of[j]], args[of[k]] = args[of[k]], args[of[j]]
    return t.gap(k, _plus(t.said[k], t.ask(t.g, args)[j]))


def missing_path(bench: Bench, k: int) -> Iterator[Guess]:
    """What flows back through one matrix product x @ u is not there."""
    for j, i in enumerate(bench.question.of):
        if j != k:
            yield Guess("missing product-rule branch",
                        f"what flows back through {bench.names[i]} is not there",
                        partial(_path, k, j))  # fmt: skip


def _path(k: int, j: int, t: Trial) -> float:
    """With D the gradient in x @ u, u's own is x^T D. Rows of x that are independent give back D,
    and D u^T is the path. With more rows than columns there is nothing to say."""
    x, u = t.x(k), t.x(j)
    if x.ndim != 2 or u.ndim != 2 or x.shape[1] != u.shape[0]:
        return math.inf
    if x.shape[0] > x.shape[1]:
        return math.nan
    return t.gap(k, _plus(t.said[k], np.linalg.pinv(x.T) @ t.true(j) @ u.T))


def missing_term(bench: Bench, k: int) -> Iterator[Guess]:
    """The truth less what was said is a constant times one quantity, the same constant always."""
    first = bench.trials[0]
    if first.said[k].shape != first.true(k).shape:
        return
    rest = first.true(k) - first.said[k]
    known = np.isfinite(rest)
    for name, value in ((name, make()) for name, make in _terms(bench, k, first).items()):
        size = float((value[known] ** 2).sum())
        c = float((rest[known] * value[known]).sum()) / size if size else 0.0
        yield Guess("missing term", f"{c:.6g} times {name} is not there",
                    partial(_with_term, bench, k, name, c))  # fmt: skip


def _with_term(bench: Bench, k: int, name: str, c: float, t: Trial) -> float:
    return t.gap(k, _plus(t.said[k], c * _terms(bench, k, t)[name]()))


def _terms(bench: Bench, k: int, t: Trial) -> dict[str, Make]:
    """What a whole term may be, by name, in the shape of the k-th gradient."""
    x = t.x(k)
    like = {bench.names[i]: t.args[i] for i in bench.floats() if t.args[i].shape == x.shape}
    found: dict[str, Make] = {}
    if t.out.shape == x.shape:
        like["f"] = t.out
        found["g"] = lambda: t.g
    for n, a in like.items():
        found[n] = partial(np.asarray, a)
        if t.g.shape in (x.shape, ()):
            found[f"g {n}"] = partial(np.multiply, t.g, a)
    for n, make in list(found.items()):
        for axis, of in itertools.product(range(x.ndim), (np.mean, np.sum)):
            found[f"the {of.__name__} of {n} over axis {axis}"] = partial(_over, of, make, axis, x)
    return found


def _over(of: Callable, make: Make, axis: int, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(of(make(), axis, keepdims=True), x.shape)


# What a row of the missing term may be made of: pattern, words, vectors from the input's row.
ROWS: list[tuple[str, str, Callable[[Any], list]]] = [
    ("missing mean term", "a constant", lambda x: [0 * x + 1]),
    ("missing projection term", "a multiple of the input", lambda x: [x]),
    ("missing row sum", "a multiple of the input's softmax", lambda x: [np.exp(x - x.max())]),
    ("missing projection term", "a multiple of the centred input", lambda x: [x - x.mean()]),
    ("missing mean and projection terms", "a constant and a multiple of the input",
     lambda x: [0 * x + 1, x]),
]  # fmt: skip


def row_terms(bench: Bench, k: int) -> Iterator[Guess]:
    """The truth less what was said is, row by row, made of vectors that name the term."""
    if bench.known:
        return  # its terms were at hand, and are not the reason
    for axis in (-1, 0):
        for pattern, what, build in ROWS:
            yield Guess(pattern, f"in each row of axis {axis}, {what} is missing, or wrong",
                        partial(_row_by_row, k, axis, build))  # fmt: skip


def _row_by_row(k: int, axis: int, build: Callable, t: Trial) -> float:
    """What is left of truth - said when each row may take its own multiples of the vectors."""
    x, true = t.x(k), t.true(k)
    if not x.ndim or x.size > 10_000:
        return math.inf
    if x.shape[axis] <= len(build(x)) + 1:
        return math.nan  # so few numbers that anything fits
    rest = _plus(true, -t.said[k])
    # Vectors that explain all of the truth would explain any mistake in it too.
    if distance(_in_rows(x, true, axis, build), true) < 1e-3:
        return math.inf
    return t.gap(k, t.said[k] + _in_rows(x, rest, axis, build))


def _in_rows(x: np.ndarray, values: np.ndarray, axis: int, build: Callable) -> np.ndarray:
    """The nearest to values, row by row, that the vectors built from x's row can make."""
    x, values = np.moveaxis(x, axis, -1), np.moveaxis(values, axis, -1)
    near = []
    for row, wanted in zip(*(a.reshape(-1, x.shape[-1]) for a in (x, values)), strict=True):
        basis = np.stack(build(row), -1)
        near.append(basis @ np.linalg.lstsq(basis, wanted, rcond=None)[0])
    return np.moveaxis(np.reshape(near, x.shape), -1, axis)
