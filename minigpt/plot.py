"""Figures of runs. Matplotlib is loaded only here, and draws into a file, never on a screen.

Losses are drawn in nats per character, whatever the tokens are, so that runs and n-grams compare.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minigpt.checkpoint import write_whole
from minigpt.record import SETUP, read_log, read_setup

TRAIN, HELD_OUT, BASELINE = "#0072b2", "#d55e00", "#666666"  # told apart by the colour-blind
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # one a run
AXES = {"steps": "optimizer step", "seconds": "seconds of training", "tokens": "tokens trained on"}
ROOM = 0.045  # height of a label, as a share of the axes
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
Label = tuple[float, str, str]  # height, text, colour


@dataclass(frozen=True)
class Run:
    """What a figure needs of a run: its log, in nats per token, and run.json."""

    name: str
    log: list[dict[str, Any]]
    setup: dict[str, Any]

    def points(self, x: str, loss: str) -> tuple[list[float], list[float]]:
        """x values and losses in nats per character. loss: train_loss or val_loss."""
        unit = self.setup["tokens_per_step"] if x == "tokens" else 1
        field = "seconds" if x == "seconds" else "step"
        per_token = self.setup["characters_per_token"]["val" if loss == "val_loss" else "train"]
        rows = [row for row in self.log if row["step"]]
        return [unit * row[field] for row in rows], [row[loss] / per_token for row in rows]

    @property
    def best(self) -> tuple[float, int]:
        """The lowest held-out loss in nats per character, and its step."""
        row = min(self.log, key=lambda row: row["val_loss"])
        return row["val_loss"] / self.setup["characters_per_token"]["val"], row["step"]


def load_run(folder: Path) -> Run:
    """Read a run's folder. Raises ValueError if it is not one, or nothing was logged yet."""
    log, setup = read_log(folder), read_setup(folder)
    if not log:
        raise ValueError(f"{folder}: nothing was logged yet")
    run = Run(folder.name, log, setup)
    try:
        run.points("tokens", "train_loss"), run.points("seconds", "val_loss"), run.best
        _ = [*setup["baselines"].items()]
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{folder}: {SETUP} and log do not describe a run: {error!r}") from error
    return run


def common_baselines(runs: Sequence[Run]) -> dict[str, float]:
    """The n-grams' losses, if all runs were judged on the same characters; else none."""
    first = runs[0].setup["baselines"]
    return first if all(run.setup["baselines"] == first for run in runs) else {}


@style.context("default")  # whatever the user has set for figures of his own
def draw_runs(path: Path, runs: Sequence[Run], x: str = "steps") -> None:
    """Draw training and held-out losses of runs, the n-grams as horizontal lines.

    path: a .png or .svg file. x: steps, seconds or tokens. One run has a colour for each loss;
    several have a colour each, and their training losses are dotted.
    Raises: ValueError if path has another ending.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = _draw_one(axes, runs[0], x) if len(runs) == 1 else _draw_several(axes, runs, x)
    for name, nats in common_baselines(runs).items():
        axes.axhline(nats, color=BASELINE, lw=0.8, ls="--", zorder=1)
        labels.append((nats, f"{name} {nats:.2f}", BASELINE))
    axes.set(xlabel=AXES[x], ylabel="loss (nats per character)", title="Loss during training")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)
    axes.legend(loc="upper right", framealpha=1, edgecolor="none")
    _write_beside(axes, labels)
    write_figure(path, figure)


def write_figure(path: Path, figure: Figure) -> None:
    """Write a .png or .svg file whose bytes repeat. Raises ValueError for another ending."""
    form = path.suffix.removeprefix(".")
    if form not in _METADATA:
        raise ValueError(f"{path}: expected a name that ends in .png or .svg")
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "minigpt"}):
        figure.savefig(content, format=form, dpi=120, metadata=_METADATA[form])
    write_whole(path, content.getvalue())


def _draw_one(axes: Axes, run: Run, x: str) -> list[Label]:
    axes.plot(
        *run.points(x, "train_loss"), color=TRAIN, label="training (mean since the last point)"
    )
    xs, ys = run.points(x, "val_loss")
    axes.plot(xs, ys, color=HELD_OUT, marker="o", ms=3, label="held out")
    return [(ys[-1], f"{ys[-1]:.2f}", HELD_OUT)] if ys else []


def _draw_several(axes: Axes, runs: Sequence[Run], x: str) -> list[Label]:
    labels = []
    for i, run in enumerate(runs):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(*run.points(x, "train_loss"), color=colour, ls=":", lw=1)
        xs, ys = run.points(x, "val_loss")
        axes.plot(xs, ys, color=colour, marker="o", ms=3)
        if ys:
            labels.append((ys[-1], f"{run.name} {ys[-1]:.2f}", colour))
    axes.plot([], [], color=BASELINE, label="held out")
    axes.plot([], [], color=BASELINE, ls=":", lw=1, label="training")
    return labels


def _write_beside(axes: Axes, labels: list[Label]) -> None:
    """Write beside the right edge, each as near to the height of its loss as the others let it."""
    low, high = axes.get_ylim()
    labels = sorted(labels)
    heights = spread([y for y, _, _ in labels], (high - low) * ROOM)
    for (_, text, colour), y in zip(labels, heights, strict=True):
        axes.annotate(
            text, (1, y), xycoords=("axes fraction", "data"), xytext=(4, 0), fontsize=9,
            textcoords="offset points", va="center", color=colour, annotation_clip=False,
            weight="normal" if colour == BASELINE else "bold",
        )  # fmt: skip


def spread(heights: Sequence[float], room: float) -> list[float]:
    """The heights nearest to these, which increase, that are at least `room` apart.

    Less i * room, height i only has to increase: neighbours that do not take their common mean.
    """
    groups: list[tuple[float, int]] = []  # sum and number
    for i, y in enumerate(heights):
        total, n = y - i * room, 1
        while groups and groups[-1][0] / groups[-1][1] > total / n:
            total, n = total + groups[-1][0], n + groups.pop()[1]
        groups.append((total, n))
    means = [total / n for total, n in groups for _ in range(n)]
    return [mean + i * room for i, mean in enumerate(means)]
