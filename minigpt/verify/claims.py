"""Claims about mathematics, in plain NumPy, and the form in which they are put to the test.

A Claim is a function, what somebody says about it, and how its arguments are drawn: with lengths by
letters, so that one claim is tried on many shapes. judge.py hears the witnesses; diagnosis.py says
what went wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = ("vjp", "gradient", "jacobian", "hessian", "identity", "optimum", "bound")
SMALLEST, LARGEST = 2, 6  # lengths that are drawn


@dataclass(frozen=True)
class Input:
    """How one argument is drawn.

    shape: letters for lengths that each trial draws anew, numbers for fixed ones: ("T", "C"), ().
    low, high: uniform between them, as in the domain of log; both None: standard normal.
    below: a letter or number: integers in 0..below-1, with repeats, which are not differentiated.
    """

    shape: tuple[str | int, ...] = ()
    low: float | None = None
    high: float | None = None
    below: str | int | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (self.low or 0) > (self.high or 0):
            raise ValueError(f"low and high go together, low first: got {self.low}, {self.high}")


@dataclass(frozen=True)
class Claim:
    """What is said about f.

    kind and said, for arrays x, y, ... as f takes them, and float64 results:
      vjp       said(g, x, y, ...) -> one gradient for each float argument (a tuple, or one array)
      gradient  said(x, y, ...) -> the same, where f returns one number
      jacobian  said(x, ...) -> (*out, *x), of the first argument;  hessian: (*x, *x), f a number
      identity  said(x, ...) == f(x, ...);  bound: f(x, ...) <= said(x, ...), elementwise
      optimum   said(y, ...) -> the x at which f(x, y, ...), a number, is least
    """

    name: str
    kind: str
    f: Callable[..., Any]
    said: Callable[..., Any]
    inputs: dict[str, Input] = field(default_factory=dict)  # in the order of f's arguments

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: kind must be one of {', '.join(KINDS)}, "
                             f"got {self.kind!r}")  # fmt: skip
        if not self.inputs:
            raise ValueError(f"{self.name}: name at least one input")

    def draw(self, rng: np.random.Generator, sizes: dict[str, int] | None = None) -> list[Any]:
        """The arguments. sizes: letter -> length; other letters get lengths that all differ."""
        letters = sorted({n for spec in self.inputs.values() for n in (*spec.shape, spec.below)
                          if isinstance(n, str)})  # fmt: skip
        pool = np.arange(SMALLEST, max(LARGEST, SMALLEST + len(letters)) + 1)
        drawn = dict(zip(letters, map(int, rng.permutation(pool)), strict=False)) | (sizes or {})
        return [_draw(spec, drawn, rng) for spec in self.inputs.values()]


def _draw(spec: Input, sizes: dict[str, int], rng: np.random.Generator) -> Any:
    shape = tuple(sizes[n] if isinstance(n, str) else n for n in spec.shape)
    if spec.below is not None:
        below = sizes[spec.below] if isinstance(spec.below, str) else spec.below
        return rng.integers(0, below, shape)
    if spec.low is None or spec.high is None:
        return rng.standard_normal(shape)
    return rng.uniform(spec.low, spec.high, shape)


@dataclass(frozen=True)
class Row:
    """One argument against one witness, at the entry where they differ most."""

    argument: str
    witness: str  # "differences", "complex step", "adjoint", "value", ...
    error: float  # relative to the largest entry of either; for a bound, how far it is broken
    index: tuple[int, ...]
    claimed: float
    measured: float
    tolerance: float
    why: str  # where the tolerance comes from


@dataclass(frozen=True)
class Verdict:
    """What the witnesses say about one claim. notes: kinks, and witnesses that were not heard."""

    claim: str
    kind: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """True if a witness was heard, and every row keeps its tolerance. A NaN keeps none."""
        return bool(self.rows) and all(row.error <= row.tolerance for row in self.rows)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a claim that does not hold, or that nothing known explains it.

    pattern: the mistake's name, or "" (then words says that no pattern was found).
    residual: the relative error that is left when the mistake is undone, on fresh inputs.
    corrected: argument -> the right values, for the inputs of the verdict.
    chapter: the one that derives it, such as "11_layer_norm".
    """

    pattern: str
    words: str
    residual: float
    corrected: dict[str, np.ndarray] = field(default_factory=dict)
    chapter: str = ""
