"""Mistakes that show when the claim is asked elsewhere: at other values, for another argument.

What was said is a function too. If it becomes right with g transposed, with the gain at one, or
with f(x) put for x, that says how it was made.
"""

import itertools
import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from minigpt.verify.patterns import EXACT, Bench, Guess
from minigpt.verify.trials import Trial, distance

# An argument's position; None stands for g.
Place = int | None


def _flip(a: np.ndarray) -> np.ndarray:
    return a.swapaxes(-1, -2) if np.ndim(a) > 1 else a


def _value(t: Trial, i: Place) -> np.ndarray:
    return t.g if i is None else t.args[i]


def _with(t: Trial, i: Place, value: np.ndarray) -> Trial:
    return t.at(g=value) if i is None else t.moved(i, value)


def _name(bench: Bench, i: Place) -> str:
    return "g" if i is None else bench.names[i]


# --- another argument -----------------------------------------------------------------------------


def wrong_argument(bench: Bench, k: int) -> Iterator[Guess]:
    """The gradient of another argument, or two arguments exchanged inside."""
    of, names = bench.question.of, bench.names
    for j in range(len(of)):
        if j != k:
            yield Guess("wrong argument",
                        f"it is the gradient of {names[of[j]]}, not of {names[of[k]]}",
                        partial(_of_another, k, j))  # fmt: skip
    for i, j in itertools.combinations(bench.floats(), 2):
        yield Guess("wrong argument", f"{names[i]} and {names[j]} are exchanged in it",
                    partial(_exchanged, k, i, j))  # fmt: skip


def _of_another(k: int, j: int, t: Trial) -> float:
    # Only if j's own gradient is wrong too: else two gradients are equal for another reason.
    return distance(t.said[k], t.true(j)) if t.error(j) > EXACT else math.inf


def _exchanged(k: int, i: int, j: int, t: Trial) -> float:
    args = list(t.args)
    args[i], args[j] = args[j], args[i]
    return t.gap(k, t.ask(t.g, args)[k])


def wrong_side(bench: Bench, k: int) -> Iterator[Guess]:
    """The input in a formula that holds for the output, or the other way round."""
    i, name = bench.question.of[k], bench.names[bench.question.of[k]]
    if not bench.question.differentiated:
        return

    def truth_at_output(t: Trial) -> float:
        there = t.moved(i, t.out)
        return distance(t.said[k], np.where(np.isfinite(there.out), there.true(k), np.nan))

    yield Guess("input where the output belongs", f"it is right with f({name}) put for {name}",
                lambda t: t.gap(k, t.ask(t.g, t.put(i, t.out))[k]))  # fmt: skip
    yield Guess("output where the input belongs", f"it is right with {name} put for f({name})",
                truth_at_output)  # fmt: skip


# --- turned round ---------------------------------------------------------------------------------


def wrong_sum(bench: Bench, k: int) -> Iterator[Guess]:
    """A sum of g, or of g times an argument, along the other axis."""
    for i, axis in itertools.product([None, *bench.floats()], (0, 1)):
        yield Guess("wrong axis", f"it is summed over axis {1 - axis}, and should be over {axis}",
                    partial(_other_sum, k, i, axis))  # fmt: skip


def _other_sum(k: int, i: Place, axis: int, t: Trial) -> float:
    a = t.g if i is None else t.g * t.args[i]
    if a.ndim != 2 or a.shape != t.g.shape:
        return math.inf
    return max(t.gap(k, a.sum(axis)), distance(t.said[k], a.sum(1 - axis)))


def turned(bench: Bench, k: int) -> Iterator[Guess]:
    """A matrix or g transposed inside, sums along the other axis, a map for its transpose."""
    mirrored, f = bench.question.mirrored, bench.question.f
    if mirrored is not None:
        yield Guess("transposed", "its axes are those of the argument first, then the output",
                    lambda t: t.gap(k, mirrored(t.g, *t.args)))  # fmt: skip
    for i in [None, *bench.floats()]:
        yield Guess("transposed", f"{_name(bench, i)} is used where its transpose belongs",
                    partial(_flipped, k, i))  # fmt: skip

    def forward(t: Trial) -> float:
        """f is linear in the argument, and was applied where its transpose belongs."""
        i = bench.question.of[k]
        return distance(t.said[k], f(*t.put(i, t.g)) - f(*t.put(i, 0 * t.g)))

    def both(t: Trial) -> float:
        floats = bench.floats()
        args = [_flip(a) if i in floats else a for i, a in enumerate(t.args)]
        return t.gap(k, _flip(t.ask(_flip(t.g), args)[k]))

    yield Guess("transposed", "f itself is applied to g, where its transpose belongs", forward)
    yield Guess("wrong axis", "it is right with rows and columns exchanged everywhere", both)


def _flipped(k: int, i: Place, t: Trial) -> float:
    a = _flip(_value(t, i))
    return t.gap(k, t.ask(a, t.args)[k] if i is None else t.ask(t.g, t.put(i, a))[k])


# --- right there, wrong elsewhere -----------------------------------------------------------------


def _right_at(t: Trial, there: Trial, k: int) -> float:
    """The claim's error there. Where the truth vanishes it says nothing: a wrong one may too."""
    blank = np.nanmax(np.abs(there.true(k))) < EXACT * np.nanmax(np.abs(t.true(k)))
    return math.inf if blank else there.error(k)


def special_arrays(bench: Bench, k: int) -> Iterator[Guess]:
    """Right for symmetric arrays only, or only where all lengths are equal."""
    for i in [*bench.floats(), None]:
        yield Guess("symmetric only", f"it is right where {_name(bench, i)} is symmetric",
                    partial(_symmetric, k, i))  # fmt: skip
    if len(bench.trials[0].sizes) > 1:
        yield Guess("square only", "it is right where all lengths are equal",
                    lambda t: _right_at(t, bench.square(t), k))  # fmt: skip


def _symmetric(k: int, i: Place, t: Trial) -> float:
    a = _value(t, i)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        return math.inf
    return _right_at(t, _with(t, i, (a + _flip(a)) / 2), k)


def gain(bench: Bench, k: int) -> Iterator[Guess]:
    """Right where another argument is all ones."""
    for i in bench.floats():
        if i != bench.question.of[k]:
            yield Guess("right only at gain = 1", f"it is right where {bench.names[i]} is all ones",
                        partial(_at_ones, k, i))  # fmt: skip


def _at_ones(k: int, i: int, t: Trial) -> float:
    return _right_at(t, t.moved(i, np.ones_like(t.args[i])), k)


def small_variance(bench: Bench, k: int) -> Iterator[Guess]:
    """Right for large inputs, wrong for small ones: what a misplaced eps does."""
    for i in bench.floats():
        yield Guess("eps in the wrong place",
                    f"it is right where {bench.names[i]} is large beside eps, and wrong where it "
                    "is small", partial(_falls, k, i))  # fmt: skip


def _falls(k: int, i: int, t: Trial) -> float:
    """The error where input i is 1000 times as large, if it falls all the way there."""
    error, x, f = t.error(k), t.args[i], t.question.f
    if error > 0.01:
        return math.inf
    # Along a straight line there is no eps: of what is added anywhere, a larger input hides much.
    if distance(f(*t.put(i, 2 * x)) * 2, t.out + f(*t.put(i, 3 * x))) < EXACT:
        return math.inf
    for scale, share in ((10, 1.0), (1000, 0.05)):
        before, error = error, t.moved(i, scale * x).error(k)
        if not error < share * before:
            return math.inf
    return error if t.moved(i, 0.1 * x).error(k) > 4 * t.error(k) else math.inf


def special_values(bench: Bench, k: int) -> Iterator[Guess]:
    """Right for a cotangent of ones, or for positive inputs: true, but less than an explanation."""
    yield Guess("right only for ones", "it is right for a cotangent of ones", partial(_for_ones, k))
    for i in bench.floats():
        yield Guess("positive only", f"it is right where {bench.names[i]} is positive",
                    partial(_positive, k, i))  # fmt: skip


def _for_ones(k: int, t: Trial) -> float:
    return _right_at(t, t.at(g=np.ones_like(t.g)), k)


def _positive(k: int, i: int, t: Trial) -> float:
    return _right_at(t, t.moved(i, np.abs(t.args[i])), k)
