"""The mistakes that diagnose() knows, in the whole of a gradient: its shape, a factor, repeats.

A Guess says how far a trial is from the truth once a mistake is undone. diagnosis.py tries guesses,
the most specific first, on fresh inputs: one that leaves an error is no explanation. Mistakes that
show at other values are in probes.py, those inside a formula in terms.py.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from minigpt.verify.known import Known, recognised
from minigpt.verify.trials import Question, Trial, distance, trials

EXACT = 1e-6  # what may be left when a mistake is undone


class Guess(NamedTuple):
    """pattern: the mistake's name. what: how it was made. gap(trial): what is left undone.

    gap is NaN where the guess says nothing about a trial; such a trial does not count.
    """

    pattern: str
    what: str
    gap: Callable[[Trial], float]
    chapter: str = ""


class Bench:
    """The trials of one question, and the operations that its function may be."""

    def __init__(self, question: Question, seed: int) -> None:
        self.question, self.seed = question, seed
        self.trials = trials(question, seed)
        self.names = list(question.claim.inputs)
        self.known: list[Known] = []
        if question.differentiated:
            self.known = list(recognised([(t.args, t.out) for t in self.trials]))
        self._square: list[Trial] = []

    def turn(self, t: Trial) -> int:
        """Which of the trials this is."""
        return next(n for n, own in enumerate(self.trials) if own is t)

    def square(self, t: Trial) -> Trial:
        """The same turn with every length the same."""
        self._square = self._square or trials(self.question, self.seed, square=True)
        return self._square[self.turn(t)]

    def floats(self) -> list[int]:
        """The positions of arguments that are not integers."""
        specs = self.question.claim.inputs.values()
        return [i for i, spec in enumerate(specs) if spec.below is None]

    def integers(self) -> list[int]:
        """The positions of integer arguments."""
        return [i for i in range(len(self.names)) if i not in self.floats()]


# --- the shape ------------------------------------------------------------------------------------


def shape(bench: Bench, k: int) -> Iterator[Guess]:
    """Right numbers in another arrangement: an axis too many, not summed, axes exchanged."""
    said, want = bench.trials[0].said[k], bench.trials[0].true(k)
    axes = range(said.ndim)
    if said.shape != want.shape:
        yield Guess("axis kept", "it holds the right numbers in another shape",
                    partial(_arranged, k, tuple(axes)))  # fmt: skip
        for some in itertools.chain.from_iterable(
            itertools.combinations(axes, count + 1) for count in axes
        ):
            yield Guess("missing broadcast sum", f"it must be summed over axes {some}",
                        partial(_summed, k, some))  # fmt: skip
    for order in list(itertools.permutations(axes))[1:]:
        yield Guess("transposed", f"with its axes in the order {order} it is right",
                    partial(_arranged, k, order))  # fmt: skip


def _arranged(k: int, order: tuple[int, ...], t: Trial) -> float:
    return t.gap(k, t.said[k].transpose(order).reshape(t.true(k).shape))


def _summed(k: int, axes: tuple[int, ...], t: Trial) -> float:
    return t.gap(k, t.said[k].sum(axes))


# --- a factor -------------------------------------------------------------------------------------


def factor(bench: Bench, k: int) -> Iterator[Guess]:
    """One number times the right gradient: zero, the sign, a length, a root of one, a constant."""
    shares = []
    for trial in bench.trials:
        said, true = trial.said[k], trial.true(k)
        if said.shape != true.shape:
            return
        known = np.isfinite(true)
        size = float((true[known] ** 2).sum())
        shares.append(float((said[known] * true[known]).sum()) / size if size else 0.0)
    if all(not np.any(t.said[k]) for t in bench.trials):
        yield Guess("zero", "it is 0 everywhere", lambda t: distance(t.said[k], 0 * t.true(k)))
    elif named := share_name(shares, bench.trials):
        yield Guess(*named, lambda t: distance(t.said[k], shares[bench.turn(t)] * t.true(k)))


# What was said as a share of the truth, for a length n: pattern, words, share.
LENGTHS: list[tuple[str, str, Callable[[float], float]]] = [
    ("sum where mean belongs", "it is {} times too large", lambda n: n),
    ("mean where sum belongs", "it is divided by {}, and should not be", lambda n: 1 / n),
    ("missing 1/sqrt(d)", "it is sqrt({}) times too large", math.sqrt),
    ("1/sqrt(d) twice", "it is divided by sqrt({}) too often", lambda n: 1 / math.sqrt(n)),
    ("n - 1 for n", "it is divided by {0} - 1, not by {0}", lambda n: n / (n - 1)),
    ("n - 1 for n", "it is divided by {0}, not by {0} - 1", lambda n: (n - 1) / n),
]


def share_name(shares: Sequence[float], draws: Sequence[Trial]) -> tuple[str, str] | None:
    """Name what was said as a share of the truth: (pattern, what), None if it has no name."""
    first, names = shares[0], list(draws[0].sizes)
    if _equal(shares, [first] * len(shares)):
        if _equal([first], [-1]):
            return "sign", "it is minus the right one"
        return "constant factor", f"it is {first:.6g} times the right one"
    for group in itertools.chain.from_iterable(
        itertools.combinations(names, count) for count in (1, 2, 3)
    ):
        length = [math.prod(t.sizes[a] for a in group) for t in draws]
        for pattern, what, share in LENGTHS:
            if _equal(shares, [share(n) for n in length]):
                return pattern, what.format(" ".join(map(_letter, group)))
    for a, b in itertools.permutations(names, 2):
        if _equal(shares, [t.sizes[a] / t.sizes[b] for t in draws]):
            return "wrong length", f"it is divided by {_letter(b)}, and should be by {_letter(a)}"
    return None


def _equal(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(math.isclose(x, y, rel_tol=EXACT, abs_tol=1e-9) for x, y in zip(a, b, strict=True))


def _letter(name: str) -> str:
    """A length's name for the reader: a number that was loosened is that number again."""
    return name[1:] if name[1:].isdigit() else name


# --- the cotangent, and indices that repeat -------------------------------------------------------


def cotangent_ignored(bench: Bench, k: int) -> Iterator[Guess]:
    """The same for every g, and right for a g of ones."""

    def gap(t: Trial) -> float:
        ones = t.at(g=np.ones_like(t.g))
        same = distance(ones.said[k], t.said[k])
        return same if same > EXACT else max(same, ones.error(k))

    if bench.question.differentiated:
        yield Guess("cotangent ignored", "it does not depend on g, and is right if g is all ones",
                    gap)  # fmt: skip


def repeats(bench: Bench, k: int) -> Iterator[Guess]:
    """Right while the indices differ; with repeats, the last one wins or they are averaged."""
    for i in bench.integers():
        name = bench.names[i]
        yield Guess("assigned instead of accumulated",
                    f"of entries that {name} names twice, only the last counts",
                    partial(_assigned, k, i))  # fmt: skip
        yield Guess("averaged over repeats",
                    f"entries that {name} names twice are averaged, not added",
                    partial(_averaged, k, i))  # fmt: skip


def _assigned(k: int, i: int, t: Trial) -> float:
    """How far it is from the true gradient for a g without what an assignment overwrites."""
    index = t.args[i]
    if t.g.shape[: index.ndim] != index.shape:
        return math.inf
    flat = index.reshape(-1)
    later = np.array([row in flat[n + 1 :] for n, row in enumerate(flat)]).reshape(index.shape)
    kept = np.where(later.reshape(index.shape + (1,) * (t.g.ndim - index.ndim)), 0, t.g)
    return distance(t.said[k], t.at(g=kept).true(k))


def _averaged(k: int, i: int, t: Trial) -> float:
    n = len(t.x(k))
    counts = np.maximum(np.bincount(t.args[i].reshape(-1), minlength=n)[:n], 1)
    return t.gap(k, t.said[k] * counts.reshape(-1, *[1] * (t.x(k).ndim - 1)))
