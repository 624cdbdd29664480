"""Figures of a run. Matplotlib is loaded only here, and draws into a file, never on a screen."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minigpt.checkpoint import write_whole
from minigpt.evaluate import Score

TRAIN, HELD_OUT, BASELINE = "#0072b2", "#d55e00", "#666666"  # told apart by the colour-blind


def loss_figure(path: Path, log: Sequence[dict[str, Any]], baselines: Sequence[Score] = ()) -> None:
    """Draw training and held-out loss against steps, the baselines as horizontal lines.

    log: lines with step, train_loss, val_loss, in nats per token. path: a .png file.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = [row for row in log if row["step"]]
    steps = [row["step"] for row in rows]
    axes.plot(
        steps,
        [row["train_loss"] for row in rows],
        color=TRAIN,
        label="training (mean since the last point)",
    )
    held_out = [row["val_loss"] for row in rows]
    axes.plot(steps, held_out, color=HELD_OUT, marker="o", ms=3, label="held out")
    for score in baselines:
        axes.axhline(score.nats, color=BASELINE, lw=0.8, ls="--")
        axes.annotate(
            f"{score.name} {score.nats:.2f}", (1, score.nats), xycoords=("axes fraction", "data"),
            xytext=(4, 0), textcoords="offset points", va="center", fontsize=9, color=BASELINE,
        )  # fmt: skip
    if held_out:
        axes.annotate(
            f"{held_out[-1]:.2f}", (steps[-1], held_out[-1]), xytext=(0, -8),
            textcoords="offset points", ha="right", va="top", color=HELD_OUT, weight="bold",
        )  # fmt: skip
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", title="Loss during training")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)
    axes.legend(framealpha=1, edgecolor="none")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    write_whole(path, content.getvalue())
