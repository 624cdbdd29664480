"""A diagram as Mermaid's text, which pages of Markdown show as a picture.

Source: https://mermaid.js.org/syntax/flowchart.html
"""

from minigpt.diagram.parts import Box, Diagram, Edge

SHAPES = {
    "input": ('[/"', '"/]'),
    "module": ('["', '"]'),
    "op": ('("', '")'),
    "sum": ('(["', '"])'),
}
ARROWS = {"flow": "-->", "residual": "==>", "tied": "-.->"}
ESCAPES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;"}


def mermaid(diagram: Diagram) -> str:
    """The text of a flowchart, from top to bottom. Equal diagrams give equal text."""
    lines = ["---", f'title: "{diagram.title}"', "---", "flowchart TD"]
    lines += _inside(diagram, "", "  ")
    return "\n".join([*lines, *(f"  {_edge(edge)}" for edge in diagram.edges)]) + "\n"


def _inside(diagram: Diagram, scope: str, indent: str) -> list[str]:
    """The boxes of a module, then the frames in it."""
    lines = [indent + _box(box) for box in diagram.boxes if box.scope == scope]
    for frame in diagram.frames:
        if frame.parent == scope:
            name = "frame_" + frame.scope.replace(".", "_")
            lines += [f'{indent}subgraph {name}["{_escaped(frame.title)}"]',
                      *_inside(diagram, frame.scope, indent + "  "), f"{indent}end"]  # fmt: skip
    return lines


def _box(box: Box) -> str:
    before, after = SHAPES[box.kind]
    return box.name + before + "<br/>".join(map(_escaped, box.lines())) + after


def _edge(edge: Edge) -> str:
    label = f"|{_escaped(edge.label)}|" if edge.label else ""
    return f"{edge.source} {ARROWS[edge.kind]}{label} {edge.target}"


def _escaped(text: str) -> str:
    """Text as it may stand in a label: Mermaid's own signs by their codes."""
    return "".join(ESCAPES.get(c, c) for c in text)
