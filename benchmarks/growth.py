"""How the cost of minigpt's training step grows with context, channels, layers and batch.

    python -m benchmarks.growth                     # 10 minutes
    python -m benchmarks.growth --repeats 1 --out quick.csv --figure quick.svg

From size A (4 layers, 128 channels, context 64, batch 12), one size is doubled again and again and
the others stay. Times are of the processor, on one BLAS thread, so that what other programs take
does not count; memory is the process's peak, less what importing took.

The exponent is the slope of log cost against log size: 1 is proportional, 2 is quadratic. It is
fitted to all sizes, and given for the last doubling too, where the fastest-growing terms show:
channels tend to 2 because matrices are C x C, context because scores are T x T.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.turns import Job, measure, print_table
from benchmarks.workload import CONFIGS, Config
from minigpt.drawing import BLUE, GREEN, GREY, RED, YELLOW, plt, style

FIGURES = Path(__file__).parent.parent / "figures"
BASE = CONFIGS["A"]
AXES = {  # name in the table: name in the network, or the batch; doublings; colour
    "context": ("block_size", 4, BLUE),
    "channels": ("n_embd", 3, RED),
    "layers": ("n_layer", 3, GREEN),
    "batch": ("batch_size", 3, YELLOW),
}


@dataclass(frozen=True)
class Point:
    """One size. ms: processor time of a step, the median over the repeats; mib: peak memory."""

    axis: str
    size: int
    ms: float
    ms_low: float
    ms_high: float
    mib: float


def config_of(axis: str, factor: int) -> Config:
    """BASE with one size multiplied."""
    name = AXES[axis][0]
    if name == "batch_size":
        return replace(BASE, batch_size=BASE.batch_size * factor)
    return replace(BASE, network=BASE.network | {name: BASE.network[name] * factor})


def size_of(axis: str, config: Config) -> int:
    return (config.network | {"batch_size": config.batch_size})[AXES[axis][0]]


def points_of(axis: str, repeats: int) -> list[Point]:
    """Measure one axis, its sizes in turns."""
    configs = {2**i: config_of(axis, 2**i) for i in range(AXES[axis][1] + 1)}
    jobs = {f"{axis} x {factor}": Job("minigpt", c) for factor, c in configs.items()}
    results = measure(jobs, repeats, 1, lambda line: print(line, file=sys.stderr, flush=True),
                      same_loss=False)  # fmt: skip
    points = []
    for config, (label, result) in zip(configs.values(), results.items(), strict=True):
        if result.failed:
            raise SystemExit(f"error: {label}: {result.failed}")
        mib = float("nan") if result.mib is None else result.mib
        ms = result.cpu_ms
        points.append(Point(axis, size_of(axis, config), median(ms), min(ms), max(ms), mib))
    return points


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost against log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def summary(points: Sequence[Point]) -> list[list[str]]:
    """A line an axis: the exponents of time and of memory, of all doublings and of the last."""
    rows = [["axis", "sizes", "ms", "exponent", "last", "MiB", "exponent", "last"]]
    for axis in dict.fromkeys(p.axis for p in points):
        line = [p for p in points if p.axis == axis]
        sizes, cells = [p.size for p in line], [axis, f"{line[0].size}-{line[-1].size}"]
        for costs in ([p.ms for p in line], [p.mib for p in line]):
            cells += [f"{costs[0]:.0f}-{costs[-1]:.0f}", f"{exponent(sizes, costs):.2f}",
                      f"{exponent(sizes[-2:], costs[-2:]):.2f}"]  # fmt: skip
        rows.append(cells)
    return rows


def write(path: Path, points: Sequence[Point]) -> None:
    names = [f.name for f in fields(Point)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for p in points:
            writer.writerow([p.axis, p.size, *(f"{getattr(p, name):.1f}" for name in names[2:])])


@plt.rc_context()  # style() is for this figure alone
def draw(points: Sequence[Point], path: Path) -> None:
    """Time and memory against the factor, on logarithmic axes, with their exponents."""
    style()
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for panel, cost, label in zip(
        panels, ("ms", "mib"), ("processor ms a step", "peak MiB"), strict=True
    ):
        for axis in dict.fromkeys(p.axis for p in points):
            line = [p for p in points if p.axis == axis]
            factors = [p.size / line[0].size for p in line]
            costs = [getattr(p, cost) for p in line]
            panel.plot(factors, costs, "o-", color=AXES[axis][2],
                       label=f"{axis}: exponent {exponent(factors, costs):.2f}")  # fmt: skip
        top = max(p.size / size_of(p.axis, BASE) for p in points)
        base = median(getattr(p, cost) for p in points if p.size == size_of(p.axis, BASE))
        panel.plot([1, top], [base, base * top], ":", color=GREY, lw=1, label="proportional")
        panel.set(xscale="log", yscale="log", xlabel="times size A's", ylabel=label)
        panel.set_xticks([2**i for i in range(int(np.log2(top)) + 1)])
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.minorticks_off()
        panel.legend(loc="upper left", fontsize=10)
    panels[0].set_title("Time of a training step")
    panels[1].set_title("and its memory")
    with plt.rc_context({"svg.hashsalt": "minigpt"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.growth", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="default: 5")
    parser.add_argument("--out", type=Path, default=FIGURES / "data" / "growth.csv")
    parser.add_argument("--figure", type=Path, default=FIGURES / "growth.svg")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {args.repeats}")
    points = [p for axis in AXES for p in points_of(axis, args.repeats)]
    write(args.out, points)
    draw(points, args.figure)
    print_table(summary(points))


if __name__ == "__main__":
    main()
