"""Is what somebody says about a function true? Numerical witnesses are heard; out comes a Verdict.

    verdict = judge(claim)                        # arguments drawn anew, on several shapes
    verdict = check_vjp(f, vjp, x, w, b)          # or on arrays of your own
    require(verdict)                              # a ValueError with the table, if it does not hold

- float64 only. A function that differs between two calls, or writes into its arguments, is refused.
- The cotangent is random. With ones, a VJP of zeros passes for softmax and layer norm.
- One random direction first: any wrong entry shows there. On failure the entry is looked for.
- A witness that cannot be certain to CAP is not heard, and a note says why. An argument that no
  witness speaks about, or that has a kink, makes the verdict not hold.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minigpt.verify.arguments import Found, prepared
from minigpt.verify.claims import Claim, Input, Row, Verdict
from minigpt.verify.hearing import hear_hessian, hear_jacobian, hear_vjp
from minigpt.verify.values import hear_elsewhere, hear_optimum, hear_values

LARGE = 100_000  # numbers in all arguments together


def judge(
    claim: Claim,
    *,
    seed: int = 0,
    trials: int | None = None,
    sizes: dict[str, int] | None = None,
) -> Verdict:
    """Hear the witnesses on freshly drawn arguments; for each keep the worst row.

    trials: how often arguments are drawn, each time on other shapes: 3 times, but large ones once,
            of which one draw has entries enough. sizes: fixes some lengths.
    Raises: ValueError if f or the claim raises, differs between two calls, or returns another
            number of gradients, another shape, another dtype or something that is not finite.
    """
    if trials is not None and trials < 1:
        raise ValueError(f"{claim.name}: trials must be at least 1, got {trials}")
    rng, found = np.random.default_rng(seed), list[Found]()
    arrays = claim.draw(rng, sizes)
    for turn in range(trials or (1 if sum(map(np.size, arrays)) > LARGE else 3)):
        arrays = claim.draw(rng, sizes) if turn else arrays
        found.append(_hear(claim, arrays, rng))
        if claim.kind in ("identity", "bound"):
            found += hear_elsewhere(claim, rng, sizes)
    return _verdict(claim, found)


def _hear(claim: Claim, arrays: Sequence[Any], rng: np.random.Generator) -> Found:
    """The witnesses on these arguments."""
    arrays = prepared(claim, arrays)
    if claim.kind in ("identity", "bound"):
        return hear_values(claim, arrays)
    kinds = {"jacobian": hear_jacobian, "hessian": hear_hessian, "optimum": hear_optimum}
    return kinds.get(claim.kind, hear_vjp)(claim, arrays, rng)


def _verdict(claim: Claim, found: list[Found]) -> Verdict:
    """For each argument and witness the worst row; "none" only where no draw was ever judged."""
    worst: dict[tuple[str, str], Row] = {}
    for row in (row for rows, _ in found for row in rows):
        key = (row.argument, row.witness)
        if key not in worst or not _badness(row) <= _badness(worst[key]):
            worst[key] = row
    heard = {argument for argument, witness in worst if witness != "none"}
    rows = [r for r in worst.values() if r.witness != "none" or r.argument not in heard]
    notes = dict.fromkeys(note for _, notes in found for note in notes)
    return Verdict(claim.name, claim.kind, tuple(rows), tuple(notes))


def _badness(row: Row) -> float:
    """How far a row is beyond its tolerance; a NaN is worse than any."""
    return float("inf") if np.isnan(row.error) else row.error / max(row.tolerance, 1e-300)


def check_vjp(f, vjp, *arrays, names=None, seed=0) -> Verdict:
    """vjp(g, *arrays) returns the gradient of sum(g * f(*arrays)) in each float array."""
    return _check("vjp", f, vjp, arrays, names, seed)


def check_gradient(f, gradient, *arrays, names=None, seed=0) -> Verdict:
    """gradient(*arrays) returns the gradient of the number f(*arrays) in each float array."""
    return _check("gradient", f, gradient, arrays, names, seed)


def check_jacobian(f, jacobian, *arrays, names=None, seed=0) -> Verdict:
    """jacobian(*arrays)[k, j] is the derivative of f's entry k in the first array's entry j."""
    return _check("jacobian", f, jacobian, arrays, names, seed)


def check_hessian(f, gradient, hessian, *arrays, names=None, seed=0) -> Verdict:
    """The gradient in the first array is checked against f; the hessian against that gradient."""
    first = _check("gradient", f, gradient, arrays, names, seed)
    second = _check("jacobian", gradient, hessian, arrays, names, seed)
    rows = tuple(replace(row, argument=f"gradient in {row.argument}") for row in first.rows)
    notes = tuple(dict.fromkeys(first.notes + second.notes))
    return Verdict(first.claim, "hessian", rows + second.rows, notes)


def check_identity(f, g, *arrays, names=None, seed=0) -> Verdict:
    """f(*arrays) and g(*arrays) are the same, on these arrays."""
    return _check("identity", f, g, arrays, names, seed)


def check_optimum(f, x, *arrays, names=None, seed=0) -> Verdict:
    """f(x, *arrays) is least at x: gradient zero, curvature positive, no neighbour lower."""
    return _check("optimum", f, lambda *_: x, (x, *arrays), names, seed)


def check_bound(f, bound, *arrays, names=None, seed=0) -> Verdict:
    """f(*arrays) <= bound(*arrays) in every entry, on these arrays."""
    return _check("bound", f, bound, arrays, names, seed)


def require(verdict: Verdict) -> Verdict:
    """The verdict itself if it holds. Raises: ValueError, with the table, if not."""
    if not verdict.holds:
        raise ValueError(verdict_table(verdict))
    return verdict


def verdict_table(verdict: Verdict) -> str:
    """The verdict for a reader: one line a row, the reason of each tolerance, the notes.

    index: the worst entry; "-" where a whole random direction was compared, and no entry stood out.
    """
    cells = [["argument", "witness", "error", "tolerance", "index", "claimed", "measured"]]
    for r in verdict.rows:
        index = str(list(r.index)) if r.index else "-"
        cells.append([r.argument, r.witness, f"{r.error:.1e}", f"{r.tolerance:.1e}", index,
                      f"{r.claimed:.9g}", f"{r.measured:.9g}"])  # fmt: skip
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    title = f"{verdict.claim} ({verdict.kind}) {'holds' if verdict.holds else 'does not hold'}"
    padded = [[c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in cells]
    lines = ["   ".join(line).rstrip() for line in padded]
    whys = dict.fromkeys(f"tolerance of {r.witness}: {r.why}" for r in verdict.rows)
    return "\n".join([title, *lines, *whys, *(f"note: {note}" for note in verdict.notes)])


def _check(kind, f, said, arrays, names, seed) -> Verdict:
    names = names or _parameters(f, len(arrays))
    if len(names) != len(arrays) or not arrays:
        raise ValueError(f"{len(names)} names for {len(arrays)} arrays: give one for each")
    inputs = {name: Input(np.shape(a)) for name, a in zip(names, arrays, strict=True)}
    claim = Claim(getattr(f, "__name__", "f"), kind, f, said, inputs)
    return _verdict(claim, [_hear(claim, arrays, np.random.default_rng(seed))])


def _parameters(f: Callable, count: int) -> list[str]:
    """The names of f's first parameters, or numbers."""
    try:
        names = [p.name for p in inspect.signature(f).parameters.values() if p.kind in (0, 1)]
    except (TypeError, ValueError):  # a builtin has none
        names = []
    return names[:count] if len(names) >= count else [f"argument {i}" for i in range(count)]
