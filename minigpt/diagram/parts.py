"""What a diagram is made of: boxes, edges between them, and frames around them."""

from collections.abc import Iterable
from dataclasses import dataclass

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Box:
    """One thing that is done, or given.

    name: unique, and legal in Mermaid. kind: "input", "module", "op", or "sum" for a residual sum.
    note: the module's class, or how the op was set. shape: of what comes out, "B" and "T" where a
    length follows the batch. parameters: dotted names, of all copies. count: of one copy's numbers.
    scope: dotted name of the module around it.
    """

    name: str
    title: str
    kind: str
    note: str
    shape: Shape
    parameters: tuple[str, ...]
    count: int
    copies: int
    scope: str

    def lines(self) -> list[str]:
        """The label: what it is, of which shape, and how many parameters it has."""
        shape = f"({', '.join(map(str, self.shape))}{',' * (len(self.shape) == 1)})"
        number = [f"{self.count:,} parameters"] if self.count else []
        return [self.title, *([self.note] if self.note else []), shape, *number]


@dataclass(frozen=True)
class Edge:
    """From box to box, by their names. kind: "flow", "residual", or "tied" for shared weights."""

    source: str
    target: str
    label: str = ""
    kind: str = "flow"


@dataclass(frozen=True)
class Frame:
    """What is drawn around the boxes of a module. scope, parent: dotted names; "" is the model."""

    scope: str
    title: str
    parent: str


@dataclass(frozen=True)
class Diagram:
    """Boxes in the order in which they are computed; frames with the outer ones first."""

    title: str
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    frames: tuple[Frame, ...]

    def box(self, name: str) -> Box:
        """The box of that name."""
        return next(box for box in self.boxes if box.name == name)


def reachable(edges: Iterable[Edge], start: str) -> set[str]:
    """The boxes that a way leads to from start, which is one of them."""
    onward: dict[str, list[str]] = {}
    for edge in edges:
        onward.setdefault(edge.source, []).append(edge.target)
    found, stack = {start}, [start]
    while stack:
        new = {target for target in onward.get(stack.pop(), ()) if target not in found}
        found |= new
        stack += new
    return found


def within(scope: str, outer: str) -> bool:
    """Whether one dotted name is the other, or below it."""
    return not outer or scope == outer or scope.startswith(f"{outer}.")
