"""Two pictures of an error, as inline SVG that follows the page's light or dark colours."""

import math
from collections.abc import Sequence

import numpy as np

LOW, HIGH = -16, 0  # powers of ten that the colours span
# From dark to light as the error grows: stops of the cividis map, for all kinds of eyes.
STOPS = ((0, 32, 77), (49, 68, 107), (102, 105, 112), (149, 143, 120), (202, 185, 105),
         (255, 234, 70))  # fmt: skip
ABOVE = 1  # the top of the curve's axis, so that a floor of 1 is seen
CELLS = 32  # rows and columns of a heat map at most; beyond, each cell is the worst of a block
SVG = '<svg role="img" '


def relative_errors(claimed: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """|claimed - measured| as a share of the largest entry of either; NaN where not measured.

    What is claimed but not a number is infinitely wrong.
    """
    known = np.isfinite(measured)
    both = known & np.isfinite(claimed)
    size = max(np.abs(measured[both]).max(initial=0), np.abs(claimed[both]).max(initial=0))
    errors = np.where(both, np.abs(claimed - measured) / (size or 1.0), np.inf)
    return np.where(known, errors, np.nan)


def _level(error: float) -> float:
    """Where an error lies between 10^LOW and 10^HIGH, from 0 to 1."""
    if not error > 0:
        return 0.0
    return min(max((math.log10(error) - LOW) / (HIGH - LOW), 0.0), 1.0)


def _colour(level: float) -> str:
    place = level * (len(STOPS) - 1)
    k = min(int(place), len(STOPS) - 2)
    mixed = [round(a + (b - a) * (place - k)) for a, b in zip(STOPS[k], STOPS[k + 1], strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def heat_map(claimed: np.ndarray, measured: np.ndarray, errors: np.ndarray) -> str:
    """The errors as a grid: the last axis across, the others downwards; values on hovering.

    Entries that were not measured are left blank.
    """
    last = errors.shape[-1] if errors.ndim else 1
    grid = errors.reshape(-1, last)
    n, m = (-(-length // CELLS) for length in grid.shape)  # block lengths, rounded up
    rows, columns = (-(-a // b) for a, b in zip(grid.shape, (n, m), strict=True))
    size = 44 if columns <= 8 else 30 if columns <= 14 else 14
    height = min(size, 30)
    left, top = 58, 34
    parts = [f'<text x="{left}" y="14">{_axis(errors.ndim)}</text>']
    for j in range(0, columns, max(1, columns // 8)):
        parts.append(f'<text class="small" text-anchor="middle" x="{left + (j + 0.5) * size}" '
                     f'y="{top - 5}">{j * m}</text>')  # fmt: skip
    for i in range(rows):
        y = top + i * height
        if i % max(1, rows // 12) == 0 and errors.ndim > 1:
            index = ", ".join(map(str, np.unravel_index(i * n, errors.shape[:-1])))
            parts.append(f'<text class="small" text-anchor="end" x="{left - 6}" '
                         f'y="{y + height / 2 + 4}">{index}</text>')  # fmt: skip
        for j in range(columns):
            block = grid[i * n : (i + 1) * n, j * m : (j + 1) * m]
            words = _words(claimed, measured, errors, (i, j), last) if n * m == 1 else ""
            parts.append(_cell(block, left + j * size, y, size, height, words))
    wide, tall = left + max(columns * size, 150) + 20, top + rows * height + 46
    parts.append(_scale(left, tall - 34))
    return (f'{SVG}width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}" '
            f'aria-label="heat map of the error by index">{"".join(parts)}</svg>')  # fmt: skip


def _axis(ndim: int) -> str:
    names = {0: "one number", 1: "index →"}
    return names.get(ndim, "last index →, " + ("first ↓" if ndim == 2 else "others ↓"))


def _words(claimed, measured, errors, place: tuple[int, int], last: int) -> str:
    k = place[0] * last + place[1]
    index = [int(i) for i in np.unravel_index(k, errors.shape)]
    values = [array.reshape(-1)[k] for array in (claimed, measured, errors)]
    return (f"{index}: claimed {values[0]:.6g}, measured {values[1]:.6g}, "
            f"error {values[2]:.1e}")  # fmt: skip


def _cell(block: np.ndarray, x: float, y: float, size: int, height: int, words: str) -> str:
    known = block[~np.isnan(block)]
    box = f'x="{x}" y="{y}" width="{size - 1}" height="{height - 1}"'
    if not known.size:
        return f'<rect class="none" {box}><title>not measured</title></rect>'
    worst = float(known.max())
    level = _level(worst)
    out = f'<rect fill="{_colour(level)}" {box}><title>{words or f"{worst:.1e}"}</title></rect>'
    if size >= 30:
        ink = "#fff" if level < 0.55 else "#000"
        label = "0" if worst == 0 else f"{worst:.0e}".replace("e-0", "e-").replace("e+00", "")
        out += (f'<text class="small" style="fill:{ink}" text-anchor="middle" '
                f'pointer-events="none" x="{x + size / 2 - 0.5}" y="{y + height / 2 + 3}">'
                f"{label}</text>")  # fmt: skip
    return out


def _scale(x: int, y: int) -> str:
    """The colours with their errors."""
    width = 150 / (HIGH - LOW)
    parts = [f'<rect x="{x + k * width:.1f}" y="{y}" width="{width + 0.5:.1f}" height="9" '
             f'fill="{_colour((k + 0.5) / (HIGH - LOW))}"/>'
             for k in range(HIGH - LOW)]  # fmt: skip
    for power in (LOW, -8, HIGH):
        place = x + (power - LOW) * width
        parts.append(f'<text class="small" text-anchor="middle" x="{place:.1f}" y="{y + 22}">'
                     f"{_power(power)}</text>")  # fmt: skip
    return "".join(parts)


def _power(k: int) -> str:
    return "1" if k == 0 else f'10<tspan dy="-4" font-size="8">{k}</tspan>'


def v_curve(steps: Sequence[float], lines: dict[str, Sequence[float]]) -> str:
    """Errors against steps, both logarithmic. Of two lines the first is a wrong claim's."""
    wide, tall, left, top = 400, 262, 48, 26
    right, bottom = wide - 14, tall - 42
    exponents = [math.log10(h) for h in steps]
    first, end = math.floor(min(exponents)), math.ceil(max(exponents))

    def x(h: float) -> float:
        return left + (math.log10(h) - first) / (end - first) * (right - left)

    def y(error: float) -> float:
        power = min(max(math.log10(error), LOW) if error > 0 else LOW, ABOVE)
        return bottom - (power - LOW) / (ABOVE - LOW) * (bottom - top)

    parts = []
    for power in range(LOW, HIGH + 1, 4):
        level = y(10.0**power)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{level}" y2="{level}"/>'
                     f'<text class="small" text-anchor="end" x="{left - 5}" y="{level + 4}">'
                     f"{_power(power)}</text>")  # fmt: skip
    for power in range(first, end + 1, 3):
        place = x(10.0**power)
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{top}" '
                     f'y2="{bottom}"/><text class="small" text-anchor="middle" x="{place:.1f}" '
                     f'y="{bottom + 16}">{_power(power)}</text>')  # fmt: skip
    parts.append(f'<path class="axis" fill="none" d="M{left} {top}V{bottom}H{right}"/>'
                 f'<text text-anchor="middle" x="{(left + right) / 2}" y="{tall - 8}">'
                 "step h</text>")  # fmt: skip
    for row, (name, errors) in enumerate(lines.items()):
        kind = "claim" if row < len(lines) - 1 else "true"
        points = " ".join(f"{x(h):.1f},{y(e):.1f}" for h, e in zip(steps, errors, strict=True)
                          if math.isfinite(e))  # fmt: skip
        parts.append(f'<polyline class="{kind}" points="{points}"/><text class="{kind}" '
                     f'x="{left + 150 * row}" y="{top - 10}">'
                     f"{name}</text>")  # fmt: skip
    return (f'{SVG}width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}" '
            'aria-label="V-curve: error of central differences by step">'
            f"{''.join(parts)}</svg>")  # fmt: skip
