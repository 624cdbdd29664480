"""Figures of the chapters: one style, deterministic files, a tape and an attention map.

Run `style()` once, draw with pyplot, and end with `save_figure`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minigpt.backend import to_numpy
from minigpt.tensor import Tensor

FIGURES = Path(__file__).parent.parent / "figures"
BLUE, RED, GREEN, YELLOW, PURPLE, SKY, GREY = (
    "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#666666",
)  # fmt: skip


def style() -> None:
    """Use the course's figure style, where the figures/ folder of a clone is at hand."""
    if (sheet := FIGURES / "minigpt.mplstyle").exists():
        plt.style.use(sheet)


def save_figure(figure: Figure, name: str) -> None:
    """Write a figure, named NN_what.svg or .png, whose bytes repeat from run to run.

    It goes to figures/, or to the folder that MINIGPT_FIGURES names; outside a clone, nowhere.
    Raises: ValueError if name ends in neither .svg nor .png.
    """
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}}.get(Path(name).suffix)
    if metadata is None:
        raise ValueError(f"figure {name!r}: expected a name that ends in .svg or .png")
    folder = Path(os.environ.get("MINIGPT_FIGURES", FIGURES))
    if folder.is_dir():
        with plt.rc_context({"svg.hashsalt": "minigpt"}):
            figure.savefig(folder / name, metadata=metadata)


def draw_attention(
    axes: Axes, att: Any, queries: Sequence[str] = (), keys: Sequence[str] = ()
) -> None:
    """Draw weights (Tq, Tk) as a map, one row a query, each weight of 0.005 or more as a number.

    queries, keys: labels of rows and columns. Each row sums to 1, so one colour scale fits all.
    """
    att = np.asarray(to_numpy(att))
    axes.imshow(att, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="key position", ylabel="query position")
    axes.set_xticks(range(att.shape[1]), keys or [str(j) for j in range(att.shape[1])])
    axes.set_yticks(range(att.shape[0]), queries or [str(i) for i in range(att.shape[0])])
    axes.grid(False)
    if max(att.shape) <= 10:
        for (i, j), weight in np.ndenumerate(att):
            if weight >= 0.005:
                colour = "white" if weight > 0.6 else "black"
                axes.text(j, i, f"{weight:.2f}", ha="center", va="center", color=colour, size=9)


def draw_tape(axes: Axes, out: Tensor, names: dict[str, Tensor] | None = None) -> None:
    """Draw the graph that backward() will walk: ops in blue, leaves in yellow.

    out: a Tensor whose graph has not been freed. names: name -> leaf. Time runs to the right,
    and each box says what it computes and of which shape.
    """
    labels = {id(tensor): name for name, tensor in (names or {}).items()}
    depths = _depths(out)
    columns: dict[int, list[Tensor]] = {}
    for node, depth in depths.values():
        columns.setdefault(depth, []).append(node)
    place = {
        id(node): (depth, (len(nodes) - 1) / 2 - row)
        for depth, nodes in columns.items()
        for row, node in enumerate(nodes)
    }
    boxes = {}
    for key, (node, _) in depths.items():
        leaf = node._vjp is None
        name = labels.get(key, "leaf") if leaf else _op_name(node)
        boxes[key] = axes.text(
            *place[key], f"{name}\n{node.shape}", ha="center", va="center", size=9,
            bbox={"boxstyle": "round", "fc": "#fff3d6" if leaf else "#dceaf7", "ec": GREY},
        )  # fmt: skip
    for key, (node, depth) in depths.items():
        for parent in node._parents:
            if parent is not None:
                long = depth - depths[id(parent)][1] > 1  # bend it around what lies between
                ends = {"patchA": boxes[id(parent)], "patchB": boxes[key]}
                axes.annotate("", place[key], place[id(parent)], arrowprops={
                    **{end: text.get_bbox_patch() for end, text in ends.items()},
                    "arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0,
                    "connectionstyle": f"arc3,rad={-0.4 if long else 0}"})  # fmt: skip
    axes.set_xlim(-0.5, max(columns) + 0.5)
    tallest = max(len(nodes) for nodes in columns.values())
    axes.set_ylim(-tallest / 2 - 0.2, tallest / 2 + 0.2)
    axes.axis("off")


def _depths(out: Tensor) -> dict[int, tuple[Tensor, int]]:
    """Each node of the graph, with the length of the longest way to it from a leaf."""
    found: dict[int, tuple[Tensor, int]] = {}

    def visit(node: Tensor) -> int:
        if id(node) not in found:
            depths = [visit(parent) for parent in node._parents if parent is not None]
            found[id(node)] = (node, 1 + max(depths, default=-1))
        return found[id(node)][1]

    visit(out)
    return found


def _op_name(node: Tensor) -> str:
    """The name of the primitive that made a node, from where its vjp was defined."""
    vjp = node._vjp if callable(node._vjp) else next(f for f in node._vjp if f is not None)
    return vjp.__qualname__.split(".")[0]
