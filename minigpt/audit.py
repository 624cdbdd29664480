"""`python -m minigpt gradcheck`: every gradient of the package, before every witness.

A row is one argument of a primitive or of a layer, or one parameter of a small GPT. The gradient
that the tape gives is compared along a random direction u, for a random cotangent g, with

- differences: central differences, extrapolated (gradcheck.py);
- composed: the tape through the same function composed from elementary ops (reference.py);
- complex step: Im f(x + ihu) / h, which subtracts nothing; a dash where f is not analytic;
- adjoint: <g, f(u) - f(0)> = <dx, u>, where f is linear in the argument, or linear plus a constant.
"""

import argparse
import csv
import io
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.backend import to_numpy, xp
from minigpt.checkpoint import write_whole
from minigpt.gradcheck import check_parameters
from minigpt.subjects import Subject, subjects
from minigpt.tensor import Tensor, no_grad
from minigpt.witness import rel_error

TOLERANCES = {  # relative; differences keep eight digits, the others all but rounding
    "differences": 1e-8, "composed": 1e-12, "complex step": 1e-12, "adjoint": 1e-12,
}  # fmt: skip
STEP = 1e-30  # of the complex step: nothing is subtracted, so no step is too small
LEAST = 1e-17  # where the figure draws an error of 0
EXAMPLE = "--figure figures/gradcheck.svg --out figures/data/gradcheck.csv"


@dataclass(frozen=True)
class Result:
    """The errors of one gradient: a number for each witness, None for one that is not heard."""

    what: str
    argument: str
    errors: dict[str, float | None]
    note: str = ""

    @property
    def holds(self) -> bool:
        """Every error heard is within its tolerance; a NaN is not."""
        heard = {name: error for name, error in self.errors.items() if error is not None}
        return bool(heard) and all(e <= TOLERANCES[name] for name, e in heard.items())

    @property
    def worst(self) -> float:
        """The largest error. A NaN counts as infinite."""
        return max((math.inf if math.isnan(e) else e for e in self.errors.values()
                    if e is not None), default=math.inf)  # fmt: skip


# --- the command ------------------------------------------------------------------------------


def gradcheck(args: argparse.Namespace) -> int:
    """Check the gradient of every primitive, every layer and every parameter of a small GPT.

    Each against up to four independent witnesses. Exit code 1 if an error exceeds its tolerance.
    The errors are of rounding's size, so their last digits differ from machine to machine.
    """
    started, results = time.perf_counter(), []
    print(_line("gradient of", "in", list(TOLERANCES)))
    print(_line("tolerance", "", [f"{tolerance:.0e}" for tolerance in TOLERANCES.values()]))
    for subject in subjects():
        for result in examine(subject):
            results.append(result)
            errors = [result.errors.get(name) for name in TOLERANCES]
            cells = ["-" if e is None else f"{e:.1e}" for e in errors]
            mark = f"  WRONG {result.note}".rstrip() * (not result.holds)
            print(_line(result.what, result.argument, cells) + mark, flush=True)
    if args.out:
        write_whole(Path(args.out), _csv(results))
    if args.figure:
        write_whole(Path(args.figure), _figure(results))
    wrong = [result for result in results if not result.holds]
    worst = max(results, key=lambda result: result.worst)
    print(f"\n{len(results)} gradients in {time.perf_counter() - started:.1f} s; "
          f"worst error {worst.worst:.1e}, in {worst.argument} of {worst.what}")  # fmt: skip
    names = dict.fromkeys(f"{result.argument} of {result.what}" for result in wrong)
    print(f"WRONG: {', '.join(names)}" if wrong else "all errors are below their tolerances")
    return 1 if wrong else 0


def _line(what: str, argument: str, cells: Sequence[str]) -> str:
    return f"{what:33s}{argument:24s}" + "".join(f"{cell:>14s}" for cell in cells)


def _csv(results: Sequence[Result]) -> bytes:
    """The table as UTF-8 text: one line a gradient, an empty cell for a witness not heard."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["gradient_of", "in", *(name.replace(" ", "_") for name in TOLERANCES)])
    for result in results:
        errors = [result.errors.get(name) for name in TOLERANCES]
        writer.writerow([result.what, result.argument,
                         *("" if e is None else f"{e:.1e}" for e in errors)])  # fmt: skip
    return text.getvalue().encode()


def _figure(results: Sequence[Result]) -> bytes:
    """The errors as an SVG: one row a gradient, one colour a witness, a line a tolerance."""
    from matplotlib import style  # loads slower than the whole check runs

    with style.context("default"):  # and the project's style for this figure alone
        return _drawn(results)


def _drawn(results: Sequence[Result]) -> bytes:
    from matplotlib.figure import Figure

    from minigpt import drawing

    drawing.style()
    figure = Figure(figsize=(7, 6.8), layout="constrained")
    axes = figure.add_subplot()
    dots = []  # (error / tolerance, error, row, label)
    look = zip(TOLERANCES, (drawing.BLUE, drawing.YELLOW, drawing.GREEN, drawing.PURPLE), "osD^",
               strict=True)  # fmt: skip
    for name, colour, marker in look:
        found = [(max(e, LEAST), row, f"{r.argument} of {r.what}") for row, r in enumerate(results)
                 if (e := r.errors.get(name)) is not None and math.isfinite(e)]  # fmt: skip
        axes.plot([e for e, *_ in found], [row for _, row, _ in found], marker, color=colour,
                  ms=3.5, alpha=0.8, mec="none", label=name, clip_on=False)  # fmt: skip
        dots += [(e / TOLERANCES[name], e, row, label) for e, row, label in found]
    for tolerance in sorted(set(TOLERANCES.values())):
        axes.axvline(tolerance, color=drawing.RED, lw=1.2, ls="--")
        names = [name for name in TOLERANCES if TOLERANCES[name] == tolerance]
        text = "tolerance:\n" + ",\n".join(names)
        axes.text(tolerance * 1.4, -2, text, color=drawing.RED, size=9)
    place = -math.inf  # the labels stand in a column, none on another
    for _, error, row, label in sorted(sorted(dots)[-3:], key=lambda dot: dot[2]):
        place = max(row, place + 5)
        axes.annotate(label, (error, row), xytext=(2e-8, place), size=9, va="center",
                      arrowprops={"arrowstyle": "-", "color": drawing.GREY, "lw": 0.8})  # fmt: skip
    starts = [row for row, r in enumerate(results) if row and _part(r) != _part(results[row - 1])]
    for row in starts:
        axes.axhline(row - 0.5, color=drawing.GREY, lw=0.8)
    edges = [0, *starts, len(results)]
    axes.set_yticks([(a + b - 1) / 2 for a, b in pairwise(edges)],
                    [_part(results[a]) for a in edges[:-1]])  # fmt: skip
    axes.set(xscale="log", xlabel="relative error (red: the tolerances; 0 is drawn at 1e-17)",
             title=f"{len(results)} gradients of minigpt, {len(dots)} comparisons",
             xlim=(LEAST / 2, 3e-4), ylim=(len(results), -20))  # fmt: skip
    axes.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=4)
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _part(result: Result) -> str:
    return "primitives" if "." in result.what else "GPT" if result.what == "GPT" else "layers"


# --- the witnesses ----------------------------------------------------------------------------


def examine(subject: Subject) -> list[Result]:
    """One result for each leaf of the subject."""
    rng = np.random.default_rng(zlib.crc32(subject.what.encode()))
    leaves = subject.leaves
    try:
        g = rng.standard_normal(subject.f().shape)
        tape = _gradients(subject.f, leaves, g)
        twin = subject.composed and _gradients(subject.composed, leaves, g)
    except ValueError as error:  # such as a vjp of the wrong shape: there is nothing to compare
        return [
            Result(subject.what, name, {"differences": math.inf}, str(error)) for name in leaves
        ]
    results = []
    for name, leaf in leaves.items():
        u = rng.standard_normal(leaf.shape)
        errors: dict[str, float | None] = {}
        note = ""
        try:
            (row,) = check_parameters(subject.f, [(name, leaf)], tol=math.inf)
            errors["differences"] = row.error
        except ValueError as error:  # a kink, or a gradient that is not a number
            errors["differences"], note = math.inf, str(error)
        if twin:
            errors["composed"] = rel_error(tape[name], twin[name])
        scale, said = np.abs(tape[name] * u).sum(), (tape[name] * u).sum()
        if subject.analytic:
            step = _value(subject, name, to_numpy(leaf.data) + 1j * STEP * u, g).imag / STEP
            errors["complex step"] = abs(said - step) / max(scale, abs(step))
        if name[0] in subject.linear:
            rise = (_value(subject, name, u, g) - _value(subject, name, 0 * u, g)).real
            errors["adjoint"] = abs(said - rise) / max(scale, abs(rise))
        results.append(Result(subject.what, name, errors, note))
    return results


def _gradients(f: Callable[[], Tensor], leaves: dict[str, Tensor], g: np.ndarray) -> dict[str, Any]:
    """The gradient of sum(g * f()) in each leaf, from the tape."""
    for leaf in leaves.values():
        leaf.grad = None
    f().backward(xp.asarray(g))
    return {name: to_numpy(leaf.grad).copy() for name, leaf in leaves.items()}


def _value(subject: Subject, name: str, data: np.ndarray, g: np.ndarray) -> complex:
    """sum(g * f()), where one leaf has other data. All are complex meanwhile, then put back."""
    own = {other: leaf.data for other, leaf in subject.leaves.items()}
    try:
        for other, leaf in subject.leaves.items():
            leaf.data = xp.asarray(data if other == name else to_numpy(own[other]), complex)
        with no_grad():
            return complex((to_numpy(subject.f().data) * g).sum())
    finally:
        for other, leaf in subject.leaves.items():
            leaf.data = own[other]
