"""A diagram as a figure, drawn by Matplotlib into a file."""

from functools import cache
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Line
from matplotlib.textpath import TextPath

from minigpt.diagram.layout import Area, Layout, Point, lay_out
from minigpt.diagram.parts import Box, Diagram, Edge
from minigpt.plot import write_figure

FILL = {"input": "#fff3d6", "module": "#dceaf7", "op": "#ffffff", "sum": "#d5efe2"}
INK, GREY, RESIDUAL = "#222222", "#777777", "#009e73"
FRAMES = ("#f4f4f4", "#fafafa")  # outer and inner
BOLD, SMALL = 9.5, 8.0  # points
LINE = 0.155  # inches from one line of text to the next
MARGIN = 0.25


@style.context("default")  # whatever the user has set for figures of his own
def draw(diagram: Diagram, path: Path) -> None:
    """Write the figure as a .png or .svg file. Raises: ValueError if path has another ending."""
    sizes = {box.name: _size(box) for box in diagram.boxes}
    layout = lay_out(diagram, sizes)
    area = _extent(layout).wider(MARGIN, MARGIN, MARGIN, MARGIN + 0.35)
    width, height = area.right - area.left, area.top - area.bottom
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(area.left, area.right), ylim=(area.bottom, area.top))
    axes.axis("off")
    _draw_frames(axes, diagram, layout)
    for edge in diagram.edges:
        _draw_edge(axes, edge, layout.paths[edge])
    for box in diagram.boxes:
        _draw_box(axes, box, layout.boxes[box.name])
    axes.text(area.left + MARGIN, area.top - MARGIN, diagram.title, size=14, weight="bold",
              color=INK, va="top")  # fmt: skip
    write_figure(path, figure)


def lines_of(box: Box) -> list[str]:
    """The text of a box, shorter than Mermaid's: the note and the shape share a line."""
    title, *rest = box.lines()
    middle = rest[: 2 if box.note else 1]
    return [title, "  ".join(middle), *rest[len(middle) :]]


def _size(box: Box) -> tuple[float, float]:
    """Width and height that hold the text."""
    lines = lines_of(box)
    widths = [_width(line, BOLD if i == 0 else SMALL, i == 0) for i, line in enumerate(lines)]
    return max(0.7, max(widths) + 0.2), LINE * len(lines) + 0.12


@cache  # a shape or a class comes in many boxes
def _width(text: str, size: float, bold: bool) -> float:
    weight = "bold" if bold else "normal"
    font = FontProperties(family="DejaVu Sans", weight=weight)
    return TextPath((0, 0), text, size=size, prop=font).get_extents().width / 72


def _extent(layout: Layout) -> Area:
    area = next(iter(layout.boxes.values()))
    points = [Area(x, y, x, y) for path in layout.paths.values() for x, y in path]
    for other in (*layout.boxes.values(), *layout.frames.values(), *points):
        area = area.around(other)
    return area


def _draw_frames(axes: Axes, diagram: Diagram, layout: Layout) -> None:
    for frame in diagram.frames:
        area, inner = layout.frames[frame.scope], bool(frame.parent)
        axes.add_patch(Rectangle(
            (area.left, area.bottom), area.right - area.left, area.top - area.bottom,
            fc=FRAMES[inner], ec=GREY, lw=0.8 if inner else 1.2, ls="--" if inner else "-",
        ))  # fmt: skip
        if inner:
            axes.text(area.left + 0.05, area.bottom + 0.08, frame.title, rotation=90, ha="left",
                      va="bottom", size=SMALL, color=GREY)  # fmt: skip
        else:
            axes.text(area.left + 0.1, area.top - 0.06, frame.title, ha="left", va="top",
                      size=BOLD, color=INK, weight="bold")  # fmt: skip


def _draw_box(axes: Axes, box: Box, area: Area) -> None:
    round_ = {"op": 0.07, "sum": 0.16}.get(box.kind, 0.01)
    fill = FILL[box.kind] if box.count or box.kind != "module" else "#eeeeee"
    axes.add_patch(FancyBboxPatch(
        (area.left, area.bottom), area.right - area.left, area.top - area.bottom,
        boxstyle=f"round,pad=0,rounding_size={round_}", fc=fill, ec=INK, lw=0.9,
    ))  # fmt: skip
    lines = lines_of(box)
    middle = (area.left + area.right) / 2, (area.bottom + area.top) / 2
    for i, line in enumerate(lines):
        y = middle[1] + LINE * ((len(lines) - 1) / 2 - i)
        axes.text(middle[0], y, line, ha="center", va="center_baseline", color=INK,
                  size=SMALL if i else BOLD, weight="normal" if i else "bold",
                  family="DejaVu Sans")  # fmt: skip


def _draw_edge(axes: Axes, edge: Edge, path: list[Point]) -> None:
    colour = RESIDUAL if edge.kind == "residual" else GREY if edge.kind == "tied" else INK
    axes.add_patch(FancyArrowPatch(
        path=Line(path), arrowstyle="-|>", mutation_scale=9, color=colour, fill=False,
        lw=2.6 if edge.kind == "residual" else 1.1, ls=":" if edge.kind == "tied" else "-",
        joinstyle="round",
    ))  # fmt: skip
    if edge.label:
        (x, y), (u, v) = max(zip(path, path[1:], strict=False), key=_length)
        if abs(v - y) > 1e-9:
            place, ha, va = ((x + u) / 2 + 0.05, (y + v) / 2), "left", "center"
        else:  # near the arrow's head, clear of what branches off
            place, ha, va = (max(x, u) - 0.15, max(y, v) + 0.05), "right", "bottom"
        axes.text(*place, edge.label, size=SMALL, color=colour, ha=ha, va=va, style="italic")


def _length(segment: tuple[Point, Point]) -> float:
    (x, y), (u, v) = segment
    return abs(u - x) + abs(v - y)
