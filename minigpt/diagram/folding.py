"""Equal blocks, drawn once.

A list of modules is folded if every block holds the same boxes and edges, takes the stream from the
block before and nothing else from there, and all else from the same boxes; and if only the last
gives to what comes after. Else all are drawn.
"""

from dataclasses import replace
from typing import Any

from minigpt.diagram.build import whole_diagram
from minigpt.diagram.parts import Box, Diagram, Edge, Frame, within


def diagram_of(model: Any) -> Diagram:
    """A model's diagram, read off one forward pass, equal blocks drawn once.

    model: called as GPT is, `model(idx, rng)`, with vocab_size and block_size in its config.
    Raises: ValueError if the loss hangs on what is no parameter, or an attention is an unknown one.
    """
    diagram = whole_diagram(model)
    for name, value in vars(model).items():
        if isinstance(value, list) and len(value) > 1:
            diagram = fold(diagram, name, len(value))
    return diagram


def fold(diagram: Diagram, name: str, n: int) -> Diagram:
    """The blocks name.0 to name.(n - 1) as one, or the same diagram if they differ."""
    scopes = [f"{name}.{i}" for i in range(n)]
    blocks = [[box for box in diagram.boxes if within(box.scope, scope)] for scope in scopes]
    place = {box.name: (i, j) for i, block in enumerate(blocks) for j, box in enumerate(block)}
    looks = [[_look(box, scope) for box in block]
             for scope, block in zip(scopes, blocks, strict=True)]  # fmt: skip
    kinds = [[frame.title[len(scope) :] for frame in diagram.frames if within(frame.scope, scope)]
             for scope in scopes]  # fmt: skip
    if not looks[0] or looks != looks[:1] * n or kinds != kinds[:1] * n:
        return diagram
    exits = {place[edge.source][1] for edge in diagram.edges
             if edge.source in place and not _inside(edge, place)}  # fmt: skip
    wires = [_wires(diagram, place, i) for i in range(n)]
    entries = {source for source, *_ in wires[0]} - {source for source, *_ in wires[1]}
    streams = [source for source in entries if isinstance(source, str)]
    early = any(edge.source in place and place[edge.source][0] < n - 1 and edge.target not in place
                for edge in diagram.edges)  # fmt: skip
    if len(exits) != 1 or len(streams) != 1 or early:
        return diagram
    if any({(streams[0] if wire[0] == "before" else wire[0], *wire[1:]) for wire in found}
           != wires[0] for found in wires[1:]):  # fmt: skip
        return diagram
    return _folded(diagram, scopes, blocks, place)


def _look(box: Box, scope: str) -> tuple:
    """All that must agree between the copies of a box."""
    cut = len(scope) + 1
    title = box.title[cut:] if within(box.title, scope) else box.title
    return title, box.kind, box.note, box.shape, box.count, box.scope[cut:]


def _inside(edge: Edge, place: dict[str, tuple[int, int]]) -> bool:
    """Whether an edge stays within one block."""
    ends = place.get(edge.source), place.get(edge.target)
    return ends[0] is not None and ends[1] is not None and ends[0][0] == ends[1][0]


def _wires(diagram: Diagram, place: dict[str, tuple[int, int]], i: int) -> set[tuple]:
    """The edges that end in block i: (where from, box, label, kind).

    Where from: a place in the block, "before" for the block before, else the name of a box.
    """
    found: set[tuple] = set()
    for edge in diagram.edges:
        if edge.target in place and place[edge.target][0] == i:
            block, box = place.get(edge.source, (None, edge.source))
            start = {i: box, i - 1: "before", None: box}.get(block, edge.source)
            found.add((start, place[edge.target][1], edge.label, edge.kind))
    return found


def _folded(
    diagram: Diagram, scopes: list[str], blocks: list[list[Box]], place: dict[str, tuple[int, int]]
) -> Diagram:
    """Block 0 stands for all; what left the last one leaves it."""
    first = [copies[0].name for copies in zip(*blocks, strict=True)]
    cut = len(scopes[0]) + 1
    boxes = [
        _stack(tuple(block[place[box.name][1]] for block in blocks), cut)
        if box.name in first else box
        for box in diagram.boxes if box.name in first or box.name not in place
    ]  # fmt: skip
    edges = []
    for edge in diagram.edges:
        last = place.get(edge.source, (None, 0))
        if edge.target in place and place[edge.target][0] > 0:
            continue
        if edge.target not in place and last[0] is not None:  # it leaves the last block
            edge = replace(edge, source=first[last[1]])
        edges.append(edge)
    frames = tuple(
        _retitled(frame, scopes) for frame in diagram.frames
        if within(frame.scope, scopes[0]) or not any(within(frame.scope, s) for s in scopes)
    )  # fmt: skip
    return replace(diagram, boxes=tuple(boxes), edges=tuple(edges), frames=frames)


def _stack(copies: tuple[Box, ...], cut: int) -> Box:
    """One box for its copies in all blocks, named as within the block."""
    box = copies[0]
    title = box.title[cut:] if within(box.title, box.scope[: cut - 1]) else box.title
    parameters = tuple(name for copy in copies for name in copy.parameters)
    return replace(box, title=title, parameters=parameters, copies=len(copies))


def _retitled(frame: Frame, scopes: list[str]) -> Frame:
    """The frame of block 0 says how many there are; those in it drop its name."""
    if frame.scope == scopes[0]:
        kind = frame.title.rpartition(": ")[2]
        return replace(frame, title=f"{scopes[0]} to {scopes[-1]}: {kind} × {len(scopes)}")
    if within(frame.scope, scopes[0]):
        return replace(frame, title=frame.title[len(scopes[0]) + 1 :])
    return frame
