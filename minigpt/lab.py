"""What every chapter shares: checks that are recorded, a table of witnesses, exercises.

A chapter calls `check` for each of its claims. The line that `check` prints into the notebook is
what coverage.py reads, so a claim counts as checked only where the check has run and has held.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigpt.backend import on_host, to_numpy
from minigpt.tensor import Tensor
from minigpt.witness import central_differences, complex_step, rel_error


class CheckFailed(AssertionError):
    """A claim of a chapter does not hold. The message names the check."""


def check(
    name: str, value: Any, *, at_most: float | None = None, at_least: float | None = None
) -> None:
    """Hold a claim to its bound: print the measured value beside it, or fail by name.

    value: a number, or an array whose worst element counts. Give one bound: at_most for an error
           that must be small, at_least for one that must be seen.
    Raises: CheckFailed if the bound is not kept, a NaN included; ValueError without one bound.
    """
    if (at_most is None) == (at_least is None):
        raise ValueError(f"check {name!r}: give at_most or at_least, one of them")
    values = np.asarray(to_numpy(value), dtype=float)
    if values.size == 0:
        raise ValueError(f"check {name!r}: there is nothing to measure")
    # max and min of an array with a NaN are NaN, and a NaN keeps no bound.
    if at_most is not None:
        worst, sign, bound = float(values.max()), "<=", at_most
        holds = worst <= bound
    else:
        worst, sign, bound = float(values.min()), ">=", float(at_least or 0)
        holds = worst >= bound
    if not holds:
        raise CheckFailed(f"check {name!r}: {worst:.3g} is not {sign} {bound:g}")
    print(f"check {name}: {worst:.3g} {sign} {bound:g}")


def numpy_only(why: str, *names: str) -> bool:
    """Whether arrays are NumPy's. If not, print why these checks, which are of NumPy, do not run.

    tools/chapters.py run takes the printed lines for an answer, on other backends alone.
    """
    for name in () if on_host else names:
        print(f"check {name}: not run: {why}")
    return on_host


def show_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under a header, in columns. Floats get four digits, None a dash."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    for line in cells:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("   ".join([first, *rest]).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def witnesses(
    by_hand: Callable,
    package: Callable[..., Tensor],
    composed: Callable[..., Tensor],
    arrays: dict[str, Any],
    analytic: Callable | None = None,
    seed: int = 0,
) -> float:
    """Print a derivation's relative error against each independent witness; return the worst.

    by_hand:  arrays -> (out, vjp), and vjp(g) -> one gradient for each array.
    package, composed: the package's op and its composition from elementary ops, on Tensors.
    arrays:   name -> float64 array, in the order of the arguments.
    analytic: arrays -> out, for the complex step; None where the function is not analytic.
    """
    names, values = list(arrays), [np.asarray(a, dtype=float) for a in arrays.values()]
    out, vjp = by_hand(*values)
    g = np.random.default_rng(seed).standard_normal(out.shape)  # random: ones would be blind
    hand = vjp(g)
    tapes = [_from_tape(f, values, g) for f in (package, composed)]
    rows: list[list[Any]] = [["out", *(rel_error(value, out) for value, _ in tapes), None, None]]
    for i, name in enumerate(names):

        def phi(x: Any, f: Callable, i: int = i) -> Any:
            return (g * f(*values[:i], x, *values[i + 1 :])).sum()

        differences = central_differences(lambda x: phi(x, lambda *a: by_hand(*a)[0]), values[i])
        exact = analytic and complex_step(lambda x: phi(x, analytic), values[i])
        against = [grads[i] for _, grads in tapes] + [differences, exact]
        rows.append([f"d{name}", *(w if w is None else rel_error(hand[i], w) for w in against)])
    show_table(["by hand against", "package", "composed", "differences", "complex step"], rows)
    return max(error for row in rows for error in row[1:] if error is not None)


def _from_tape(f: Callable[..., Tensor], values: list[np.ndarray], g: np.ndarray) -> Any:
    """f's output and the gradients that backward() leaves in its arguments."""
    leaves = [Tensor(value, requires_grad=True) for value in values]
    out = f(*leaves)
    out.backward(g)
    return out.data, [leaf.grad for leaf in leaves]


def attempt(test: Callable[..., None], *answers: Any) -> None:
    """Run an exercise's check on the reader's answers, if there are any yet.

    An answer that still raises NotImplementedError is not an error. Otherwise the check's own
    AssertionError says what is wrong.
    """
    try:
        test(*answers)
    except NotImplementedError:
        print(f"{test.__name__}: not attempted yet")
    else:
        print(f"{test.__name__}: passed")
