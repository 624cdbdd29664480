"""Fresh inputs for a claim that does not hold, with what it says and what is measured there.

diagnose() knows nothing of the formula under test but its values. Every kind of claim is turned
into one about a VJP, and then asked again and again: on other sizes, cotangents and values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigpt.verify.claims import Claim
from minigpt.witness import gradient

LEAST = 3  # length. Not 2: normalised, two numbers are always +1 and -1
SEVERAL = 4  # trials: a hypothesis must hold on all of them
NOTHING = np.empty(0)  # of a shape that no gradient has
ENTRIES = 400  # of one argument, that are measured at most
WORK = 1_000_000  # and fewer where all arrays together are large: entries times their size


@dataclass(frozen=True)
class Question:
    """A claim as one about a VJP. of: the positions of the arguments that are differentiated.

    differentiated: False for an identity, where what is said is compared with f's own value.
    mirrored: what a Jacobian says if it is read with its axes exchanged.
    """

    claim: Claim
    f: Callable[..., Any]
    said: Callable[..., Any]
    of: tuple[int, ...]
    differentiated: bool = True
    mirrored: Callable[..., Any] | None = None


def as_question(claim: Claim) -> Question:
    """Turn any kind of claim into one about a VJP; an identity into one about values."""
    kind, f, said = claim.kind, guarded(claim.f), claim.said
    floats = tuple(i for i, s in enumerate(claim.inputs.values()) if s.below is None)
    if kind == "vjp":
        return Question(claim, f, said, floats)
    if kind == "gradient":
        return Question(claim, f, lambda g, *a: [None if d is None else g.reshape(-1)[0] * d
                                                 for d in listed(said(*a))], floats)  # fmt: skip
    if kind == "identity":
        return Question(claim, f, lambda g, *a: said(*a), (0,), differentiated=False)
    if kind == "jacobian":
        return Question(claim, f, lambda g, *a: np.tensordot(g, said(*a), np.ndim(g)), floats[:1],
                        mirrored=lambda g, *a: np.tensordot(said(*a), g, np.ndim(g)))  # fmt: skip
    if kind == "hessian":
        return Question(claim, lambda *a: measure(f, a, 0, 1.0),
                        lambda g, *a: np.tensordot(g, said(*a), np.ndim(g)),
                        floats[:1])  # fmt: skip
    raise ValueError(f"{claim.name}: a claim of kind {kind!r} has no patterns")


def guarded(f: Callable) -> Callable:
    """f, with a ValueError for whatever it raises: probes ask at values that it may not take."""

    def guard(*args: Any) -> np.ndarray:
        try:
            with np.errstate(all="ignore"):
                return np.asarray(f(*args))
        except Exception as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    return guard


def listed(values: Any) -> list[Any]:
    """What a derivation returned, as a list: one gradient may come without its tuple."""
    return list(values) if isinstance(values, tuple | list) else [values]


def measure(f: Callable, args: Sequence[Any], i: int, g: Any) -> np.ndarray:
    """The gradient of sum(g * f) in argument i by witness.gradient; NaN where it was not measured.

    A large argument is measured at some of its entries: the larger all arrays are, the fewer.
    """
    x, rng = np.array(args[i], dtype=float), np.random.default_rng(0)
    most = min(ENTRIES, max(4, WORK // sum(map(np.size, args))))
    picked = rng.choice(x.size, most, replace=False) if x.size > most else np.arange(x.size)

    def phi(entries: np.ndarray) -> np.ndarray:
        moved = x.astype(entries.dtype)
        moved.reshape(-1)[picked] = entries
        return np.where(inside, g * f(*args[:i], moved, *args[i + 1 :]), 0.0)

    out = np.full(x.shape, np.nan)
    with np.errstate(all="ignore"):
        inside = np.isfinite(f(*args))  # what is not a number says nothing, and must not spread
        out.reshape(-1)[picked] = gradient(phi, x.reshape(-1)[picked], rng)
    return out


def distance(got: Any, want: np.ndarray) -> float:
    """The relative error of the measured entries; infinite if the shapes differ."""
    if np.shape(got) != want.shape:
        return math.inf
    known = np.isfinite(want)
    if known.sum() < min(want.size / 2, 4):
        return math.inf
    got, want = np.asarray(got)[known], want[known]
    size = max(np.abs(got).max(), np.abs(want).max())
    error = np.abs(got - want).max() / size if size else 0.0
    return float(error) if np.isfinite(error) else math.inf


@dataclass
class Trial:
    """One draw of the arguments; what is said about it, and what is measured, by argument."""

    question: Question
    args: list[Any]
    g: np.ndarray
    sizes: dict[str, int]
    out: np.ndarray = field(init=False)
    said: list[np.ndarray] = field(init=False)  # NOTHING where said() fails
    measured: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.args = [_read_only(a) for a in self.args]
        self.g = _read_only(self.g)
        self.out = self.question.f(*self.args)
        self.said = self.ask(self.g, self.args)

    def ask(self, g: Any, args: Sequence[Any]) -> list[np.ndarray]:
        """What is said at other values: NOTHING for each argument if that fails."""
        of = self.question.of
        try:
            with np.errstate(all="ignore"):
                said = listed(self.question.said(*map(_read_only, (g, *args))))
            if len(said) == len(args):  # a place for every argument
                said = [said[i] for i in of]
            values = [np.asarray(v, float) for v in said]
        except Exception:  # the claim's own code, called with shapes that it may not take
            return [NOTHING] * len(of)
        return values if len(values) == len(of) else [NOTHING] * len(of)

    def true(self, k: int) -> np.ndarray:
        """The measured gradient in the k-th differentiated argument, kept once measured."""
        if not self.question.differentiated:
            return self.out
        if k not in self.measured:
            self.measured[k] = measure(self.question.f, self.args, self.question.of[k], self.g)
        return self.measured[k]

    def gap(self, k: int, got: Any) -> float:
        """How far got is from the measured gradient."""
        return distance(got, self.true(k))

    def error(self, k: int) -> float:
        """How far the claim is from the measured gradient."""
        return self.gap(k, self.said[k])

    def x(self, k: int) -> np.ndarray:
        """The k-th differentiated argument."""
        return self.args[self.question.of[k]]

    def at(self, args: Sequence[Any] | None = None, g: Any = None) -> "Trial":
        """The same question at other values."""
        args = list(self.args) if args is None else list(args)
        return Trial(self.question, args, self.g if g is None else g, self.sizes)

    def put(self, i: int, value: Any) -> list[Any]:
        """The arguments with another value for one of them."""
        return [*self.args[:i], value, *self.args[i + 1 :]]

    def moved(self, i: int, value: Any) -> "Trial":
        """The same question with one argument changed."""
        return self.at(self.put(i, value))


def _read_only(a: Any) -> np.ndarray:
    """A view that cannot be written to."""
    view = np.asarray(a).view()
    view.flags.writeable = False
    return view


def letters(claim: Claim) -> list[str]:
    """The letters in the claim's shapes."""
    names = {n for s in claim.inputs.values() for n in (*s.shape, s.below) if isinstance(n, str)}
    return sorted(names)


def draw(question: Question, seed: int, turn: int, square: bool = False) -> Trial:
    """One trial. Each turn gives every letter another length; all the same if square."""
    rng = np.random.default_rng([seed, turn, 77])
    names = letters(question.claim)
    order = names if turn % 2 else names[::-1]  # of two lengths each is the larger once
    sizes = {a: LEAST + turn + (0 if square else order.index(a)) for a in names}
    args = question.claim.draw(rng, sizes)
    out = np.shape(question.f(*args))
    g = rng.standard_normal(out) if question.differentiated else np.ones(out)
    return Trial(question, args, g, sizes)


def trials(question: Question, seed: int, square: bool = False) -> list[Trial]:
    """Fresh trials of a question, fewer where its arrays are large."""
    first = draw(question, seed, 0, square)
    count = SEVERAL if sum(map(np.size, first.args)) < WORK / 10 else 2
    return [first, *(draw(question, seed, turn, square) for turn in range(1, count))]


def loosened(claim: Claim, seed: int = 0) -> Claim:
    """The claim with letters for fixed lengths, if it gives right shapes at other lengths too.

    A mistake in the size shows only where sizes vary, and small arrays are measured faster.
    """

    def letter(n: Any) -> Any:
        return f"n{n}" if isinstance(n, int) and n > 1 else n

    inputs = {
        name: replace(s, shape=tuple(map(letter, s.shape)), below=letter(s.below))
        for name, s in claim.inputs.items()
    }
    if inputs == claim.inputs:
        return claim
    loose = replace(claim, inputs=inputs)
    try:
        question = as_question(loose)
        for trial in trials(question, seed):
            for k, said in enumerate(trial.said):
                want = trial.x(k).shape if question.differentiated else trial.out.shape
                if said.shape != want:
                    return claim
    except Exception:  # f itself does not take other lengths
        return claim
    return loose
