"""A strict reader of the part of Mermaid's flowcharts that the package writes."""

import re
from dataclasses import dataclass, field

ID = r"[A-Za-z_][A-Za-z0-9_]*"
RESERVED = {"end", "graph", "flowchart", "subgraph", "style", "class", "click", "default"}
SHAPES = {'["': '"]', '("': '")', '(["': '"])', '[/"': '"/]'}
NODE = re.compile(rf'({ID})(\[/"|\(\["|\["|\(")(.*?)("/\]|"\]\)|"\]|"\))')
EDGE = re.compile(rf"({ID}) (-->|==>|-\.->)(?:\|([^|]+)\|)? ({ID})")
SUBGRAPH = re.compile(rf'subgraph ({ID})\["(.*?)"\]')


@dataclass
class Flowchart:
    """nodes: id -> lines of its label; inside: id -> subgraphs around it, outermost first."""

    title: str = ""
    nodes: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)
    inside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    subgraphs: dict[str, str] = field(default_factory=dict)
    edges: list[tuple[str, str, str, str]] = field(default_factory=list)


def parse(text: str) -> Flowchart:
    """Read a flowchart. Raises AssertionError at anything that Mermaid might read otherwise."""
    assert text.endswith("\n")
    lines, chart = text.splitlines(), Flowchart()
    if lines[0] == "---":
        assert lines[2] == "---"
        chart.title = re.fullmatch(r'title: "([^"\\]+)"', lines[1])[1]
        lines = lines[3:]
    assert lines[0] == "flowchart TD"
    open_: list[str] = []
    for line in lines[1:]:
        assert line.startswith("  ") and line == line.rstrip(), line
        read(line.strip(), chart, open_)
    assert not open_, f"no end of {open_}"
    for a, b, _, _ in chart.edges:
        assert a in chart.nodes and b in chart.nodes, (a, b)
    assert not chart.nodes.keys() & chart.subgraphs.keys()
    return chart


def read(line: str, chart: Flowchart, open_: list[str]) -> None:
    if line == "end":
        open_.pop()
    elif found := SUBGRAPH.fullmatch(line):
        assert found[1] not in chart.subgraphs
        check_label(found[2])
        chart.subgraphs[found[1]] = found[2]
        open_.append(found[1])
    elif found := EDGE.fullmatch(line):
        a, arrow, label, b = found.groups()
        assert not label or not re.search(r'["\[\](){}<>|]', label), label
        chart.edges.append((a, b, arrow, label or ""))
    else:
        found = NODE.fullmatch(line)
        assert found, line
        name, before, label, after = found.groups()
        assert SHAPES[before] == after, line
        assert name not in RESERVED and name not in chart.nodes, name
        chart.nodes[name] = [check_label(part) for part in label.split("<br/>")]
        chart.shapes[name] = before
        chart.inside[name] = tuple(open_)


def check_label(text: str) -> str:
    """Nothing in it may end the label, open a tag, or begin a code that is none."""
    assert text and not re.search(r'["<>`]', text), text
    assert not re.search(r"#(?!\w+;)", text), text
    return text
