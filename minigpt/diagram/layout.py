"""Where the boxes of a figure stand, and how its edges run. All lengths are inches, y upwards.

Columns from left to right: one begins where a block begins or ends, and after each residual sum.
A column is read downwards, and ends in its last box at the bottom. So the residual stream is a
straight line along the bottom, and each branch comes up from it and goes down into the next sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from minigpt.diagram.parts import Box, Diagram, Edge, within

Point = tuple[float, float]
Size = tuple[float, float]
GAP_X, GAP_Y, GUTTER, LANE = 0.2, 0.24, 0.95, 0.16  # between boxes, columns, and lines side by side


@dataclass(frozen=True)
class Area:
    """A rectangle by its edges."""

    left: float
    bottom: float
    right: float
    top: float

    def around(self, other: "Area") -> "Area":
        """The smallest rectangle that holds both."""
        return Area(min(self.left, other.left), min(self.bottom, other.bottom),
                    max(self.right, other.right), max(self.top, other.top))  # fmt: skip

    def wider(self, left: float, bottom: float, right: float, top: float) -> "Area":
        """With so much more at each side."""
        return Area(self.left - left, self.bottom - bottom, self.right + right, self.top + top)


@dataclass(frozen=True)
class Layout:
    """boxes, frames: by name and by scope. paths: the corners of each edge of the diagram."""

    boxes: dict[str, Area]
    paths: dict[Edge, list[Point]]
    frames: dict[str, Area]


def lay_out(diagram: Diagram, sizes: Mapping[str, Size]) -> Layout:
    """Places for all boxes, given their widths and heights."""
    columns = _columns(diagram)
    column_of = {name: i for i, names in enumerate(columns) for name in names}
    rows = [_rows(diagram, names) for names in columns]
    step = max(height for _, height in sizes.values()) + GAP_Y
    bottom = -step * (max(map(len, rows)) - 1)
    boxes: dict[str, Area] = {}
    paths: dict[Edge, list[Point]] = {}
    edge = 0.0
    for levels in rows:
        xs, width = _across(diagram, levels, sizes)
        between = min(1.6 * step, -bottom / max(1, len(levels) - 1))  # few boxes, longer arrows
        for i, level in enumerate(levels):
            y = bottom + (len(levels) - 1 - i) * between
            for item in level:
                x = edge + xs[item]
                if isinstance(item, str):
                    w, h = sizes[item]
                    boxes[item] = Area(x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                else:  # a line that passes this row
                    paths.setdefault(item[0], []).extend([(x, y + step / 3), (x, y - step / 3)])
        edge += width + GUTTER
    for e in diagram.edges:
        if column_of[e.source] == column_of[e.target]:
            a, b = boxes[e.source], boxes[e.target]
            ends = ((a.left + a.right) / 2, a.bottom), ((b.left + b.right) / 2, b.top)
            paths[e] = _straight([ends[0], *paths.get(e, []), ends[1]])
    frames = _frames(diagram, boxes, paths)
    _route(diagram, columns, boxes, paths, frames)
    return Layout(boxes, paths, frames)


def _columns(diagram: Diagram) -> list[list[str]]:
    """The boxes by columns. What is only read goes beside its reader, outside of blocks."""
    outer = [frame.scope for frame in diagram.frames if not frame.parent]

    def block(box: Box) -> str:
        return next((scope for scope in outer if within(box.scope, scope)), "")

    columns: list[list[str]] = []
    last: Box | None = None
    for box in (box for box in diagram.boxes if box.kind != "input"):
        if last is None or last.kind == "sum" or block(last) != block(box):
            columns.append([])
        columns[-1].append(box.name)
        last = box
    for box in (box for box in diagram.boxes if box.kind == "input"):
        reader = next(edge.target for edge in diagram.edges if edge.source == box.name)
        i = next(i for i, names in enumerate(columns) if reader in names)
        columns[max(0, i - 1) if block(diagram.box(reader)) else i].append(box.name)
    return columns


Item = str | tuple[Edge, int]  # a box, or an edge that passes a row


def _rows(diagram: Diagram, names: list[str]) -> list[list[Item]]:
    """A column's boxes by their depth, and the edges that pass by; its last box at the bottom."""
    edges = [e for e in diagram.edges if e.source in names and e.target in names]
    depth = dict.fromkeys(names, 0)
    for box in diagram.boxes:  # in the order of computation, so parents come first
        for e in edges:
            if e.source == box.name:
                depth[e.target] = max(depth[e.target], depth[e.source] + 1)
    for box in diagram.boxes:  # an input stands just above its reader
        readers = [depth[e.target] for e in edges if e.source == box.name]
        if box.kind == "input" and readers:
            depth[box.name] = min(readers) - 1
    final = [box.name for box in diagram.boxes if box.name in names and box.kind != "input"][-1]
    depth[final] = max(depth.values())
    rows: list[list[Item]] = [[] for _ in range(depth[final] + 1)]
    for box in diagram.boxes:
        if box.name in depth:
            rows[depth[box.name]].append(box.name)
    for e in edges:
        for i in range(depth[e.source] + 1, depth[e.target]):
            rows[i].append((e, i))
    return rows


def _across(
    diagram: Diagram, rows: list[list[Item]], sizes: Mapping[str, Size]
) -> tuple[dict[Item, float], float]:
    """The x of each item, from the column's left edge, and the column's width.

    A box that is alone in its row stands in the middle, with what passes at its sides.
    """
    widest = max(sizes[item][0] for row in rows for item in row if isinstance(item, str))
    xs: dict[Item, float] = {}
    for i, row in enumerate(rows):
        wish = {item: _wish(diagram, item, i, xs) for item in row}
        row = sorted(row, key=lambda item: wish[item])  # noqa: B023 - used at once
        alone = [item for item in row if isinstance(item, str)]
        if len(alone) == 1:
            xs[alone[0]] = 0.0
            for side in (-1, 1):
                lanes = [x for x in row if not isinstance(x, str) and (wish[x] < 0) == (side < 0)]
                for k, lane in enumerate(lanes[::side]):
                    xs[lane] = side * (widest / 2 + LANE * (k + 1))
            continue
        widths = [sizes[item][0] if isinstance(item, str) else LANE for item in row]
        x = -(sum(widths) + GAP_X * (len(row) - 1)) / 2
        for item, width in zip(row, widths, strict=True):
            xs[item] = x + width / 2
            x += width + GAP_X
    halves = {item: sizes[item][0] / 2 if isinstance(item, str) else LANE / 2 for item in xs}
    left = min(x - halves[item] for item, x in xs.items())
    width = max(x + halves[item] for item, x in xs.items()) - left
    return {item: x - left for item, x in xs.items()}, width


def _wish(diagram: Diagram, item: Item, row: int, xs: dict[Item, float]) -> float:
    """Where an item would stand if it were alone: below what it comes from."""
    if not isinstance(item, str):
        return xs[(item[0], row - 1)] if (item[0], row - 1) in xs else xs[item[0].source]
    found = []
    for e in diagram.edges:
        if e.target == item:
            found += [xs[key] for key in ((e, row - 1), e.source) if key in xs][:1]
    return sum(found) / len(found) if found else 0.0


def _straight(path: list[Point]) -> list[Point]:
    """The path without the corners that are none, where it goes on straight down."""
    inner = [b for a, b, c in zip(path, path[1:], path[2:], strict=False)
             if not abs(a[0] - b[0]) + abs(b[0] - c[0]) < 1e-9]  # fmt: skip
    return [path[0], *inner, path[-1]]


def _frames(
    diagram: Diagram, boxes: dict[str, Area], paths: dict[Edge, list[Point]]
) -> dict[str, Area]:
    """A rectangle around each module, with room for its title, on top or at the left."""
    frames: dict[str, Area] = {}
    for frame in reversed(diagram.frames):  # inner ones first
        inside = [b.name for b in diagram.boxes if within(b.scope, frame.scope)]
        areas = [boxes[name] for name in inside]
        areas += [Area(x, y, x + 0.12, y) for e, path in paths.items() for x, y in path
                  if e.source in inside and e.target in inside]  # fmt: skip
        areas += [frames[f.scope] for f in diagram.frames if f.parent == frame.scope]
        area = areas[0]
        for other in areas[1:]:
            area = area.around(other)
        pad = 0.1
        frames[frame.scope] = (area.wider(0.27, pad, pad, pad) if frame.parent
                               else area.wider(pad, 2.2 * pad, pad, 0.32))  # fmt: skip
    return frames


def _route(
    diagram: Diagram, columns: list[list[str]], boxes: dict[str, Area],
    paths: dict[Edge, list[Point]], frames: dict[str, Area],
) -> None:  # fmt: skip
    """Paths between columns: through the gutters, and over the top where columns lie between."""
    column_of = {name: i for i, names in enumerate(columns) for name in names}
    lefts = [min(boxes[name].left for name in names) for names in columns]
    ceiling = max(area.top for area in (*boxes.values(), *frames.values())) + 0.15
    lanes: dict[int, list[str]] = {}  # gutter -> the sources of its lines
    for e in diagram.edges:
        start, end = column_of[e.source], column_of[e.target]
        if start == end:
            continue
        a, b = boxes[e.source], boxes[e.target]
        y, goal = (a.bottom + a.top) / 2, (b.bottom + b.top) / 2
        if end == start + 1 and abs(y - goal) < 1e-9:
            paths[e] = [(a.right, y), (b.left, goal)]
            continue
        down = _lane(lanes, end, e.source, lefts)
        if end == start + 1:
            paths[e] = [(a.right, y), (down, y), (down, goal), (b.left, goal)]
        else:
            up = _lane(lanes, start, e.source, lefts)
            paths[e] = [(a.left, y), (up, y), (up, ceiling), (down, ceiling), (down, goal),
                        (b.left, goal)]  # fmt: skip
            ceiling += LANE


def _lane(lanes: dict[int, list[str]], gutter: int, source: str, lefts: list[float]) -> float:
    """The x of a line in the gutter before a column; lines of one source share it."""
    sources = lanes.setdefault(gutter, [])
    if source not in sources:
        sources.append(source)
    return lefts[gutter] - 0.5 - LANE * sources.index(source)
