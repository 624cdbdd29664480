"""From the tape to boxes and edges.

A module without modules in it is one box, whatever it computes. What a larger module computes
itself is a box for each primitive, and primitives that only move elements are none.
"""

import re
from dataclasses import replace
from typing import Any

import numpy as np

from minigpt.backend import host_arange, to_numpy
from minigpt.diagram import attention
from minigpt.diagram.parts import Box, Diagram, Edge, Frame, Shape, reachable, within
from minigpt.diagram.tape import Pass, Step, named_modules, run
from minigpt.nn import Module
from minigpt.tensor import Tensor

MOVES = ("reshape", "transpose", "getitem")
SYMMETRIC = ("add", "multiply")  # which argument is which does not matter
RESERVED = {"end", "graph", "flowchart", "subgraph", "style", "class", "click", "default"}
BLOCK = 3  # tokens of a sequence: enough for a mask to matter


def whole_diagram(model: Any) -> Diagram:
    """Every box of a model that is called as GPT is, nothing folded.

    Raises: ValueError if the loss hangs on what is no parameter, or an attention is an unknown one.
    """
    T = min(BLOCK, model.config.block_size)
    less = T - 1 if T > 2 else T
    base, wider, shorter = (_Builder(run(model, *size)).diagram()
                            for size in ((2, T), (3, T), (2, less)))  # fmt: skip
    shapes = [
        _follow(*(box.shape for box in boxes))
        for boxes in zip(base.boxes, wider.boxes, shorter.boxes, strict=True)
    ]
    boxes = (replace(box, shape=shape) for box, shape in zip(base.boxes, shapes, strict=True))
    return replace(base, boxes=tuple(boxes))


def _follow(base: Shape, wider: Shape, shorter: Shape) -> Shape:
    """The shape with "B" for a length that grew with the batch, "T" for one that shrank with T."""
    lengths = zip(base, wider, shorter, strict=True)
    return tuple("B" * (n != b) + "T" * (n != t) or n for n, b, t in lengths)


class _Builder:
    """Boxes and edges so far. origin: id of a Tensor -> its box's name, or its parameter's."""

    def __init__(self, run: Pass):
        self.run, self.model = run, run.model
        self.modules: dict[str, Module] = dict(named_modules(self.model))
        self.names: dict[int, list[str]] = {}  # of parameters; a tied one has several
        for name, p in self.model._walk(""):
            self.names.setdefault(id(p), []).append(name)
        self.sizes = {name: p.size for name, p in self.model.named_parameters()}
        self.parameters = {id(p): name for name, p in self.model.named_parameters()}
        self.origin: dict[int, str] = {}
        self.moved: dict[int, int] = {}  # id of a Tensor -> id of the parameter it is a view of
        self.owner: dict[str, str] = {}  # parameter -> its box
        self.calls: dict[int, str] = {}  # number of a call -> its box
        self.given: dict[str, str] = {}  # title of an input -> its box
        self.boxes: dict[str, Box] = {}
        self.edges: dict[tuple[str, str, str], list[str]] = {}  # source, target, kind -> labels

    def diagram(self) -> Diagram:
        for step in self.run.steps:
            self.add(step)
        for name, p in self.model.named_parameters():
            if name not in self.owner:
                self.box(name, "module", "not used", p.shape, "", [name])
        edges = [Edge(source, target, ", ".join(filter(None, labels)), kind)
                 for (source, target, kind), labels in self.edges.items()]  # fmt: skip
        edges = _mark_residuals(self.boxes, edges)
        sums = {edge.target for edge in edges if edge.kind == "residual"}
        boxes = [replace(self.boxes[name], kind="sum") if name in sums else self.boxes[name]
                 for name in self.order(edges)]  # fmt: skip
        title = f"{type(self.model).__name__}: {self.model.num_parameters():,} parameters"
        return Diagram(title, tuple(boxes), tuple(edges), self.frames())

    def add(self, step: Step) -> None:
        """Draw one step, or remember whose elements it moves."""
        leaf = step.module and len(list(named_modules(self.modules[step.module]))) == 1
        x = next(iter(step.inputs.values()))
        still = step.op in MOVES or (step.op == "broadcast_to" and step.out.size == x.size)
        if still and not leaf:
            if (p := self.parameter_id(x)) is not None:
                self.moved[id(step.out)] = p
            elif id(x) in self.origin:
                self.origin[id(step.out)] = self.origin[id(x)]
        elif step.op in attention.FUSED and not leaf:
            self.origin[id(step.out)] = self.add_attention(step)
        else:
            self.origin[id(step.out)] = self.add_box(step, bool(leaf))

    def add_box(self, step: Step, leaf: bool) -> str:
        """A box for a step; the steps of one call of a leaf module share one."""
        used = [p for x in step.inputs.values() if (p := self.parameter_id(x)) is not None]
        new = [self.parameters[p] for p in used if self.parameters[p] not in self.owner]
        if leaf and step.call in self.calls:
            name = self.calls[step.call]
            old = self.boxes[name]
            count = old.count + sum(self.sizes[p] for p in new)
            self.boxes[name] = replace(old, shape=step.out.shape, count=count,
                                       parameters=old.parameters + tuple(new))  # fmt: skip
        else:
            title, note = self.title(step, leaf, used)
            note += f", p = {step.options['p']}" if step.options.get("p") else ""
            scope = self.parent(step.module) if leaf else step.module
            kind = "module" if leaf or used else "op"
            name = self.box(title, kind, note, step.out.shape, scope, new)
            self.calls[step.call] = name if leaf else ""
        self.owner |= dict.fromkeys(new, name)
        for p in used:
            if (owner := self.owner[self.parameters[p]]) != name:
                self.edge(owner, name, "tied", "tied")
        sources = {argument: self.source(x) for argument, x in step.inputs.items()}
        told = sum(map(bool, sources.values())) > 1 and step.op not in SYMMETRIC
        for argument, source in sources.items():
            if source and source != name:
                self.edge(source, name, argument if told and source != argument else "")
        return name

    def add_attention(self, step: Step) -> str:
        """A box for each of its parts. Returns the last one's name."""
        sources = {argument: self.source(x) for argument, x in step.inputs.items()}
        made: dict[str, str] = {}
        for part in attention.parts_of(step):
            note = f"p = {step.options['p']}" if part.title == attention.DROP else ""
            made[part.title] = self.box(part.title, "op", note, part.out.shape, step.module, [])
            qkv = {attention.SCORES: ("q", "k"), attention.MIX: ("", "v")}.get(part.title)
            for read, label in zip(part.reads, qkv or ("", ""), strict=False):
                source = made.get(read) or sources.get(read)
                if read == "bias":
                    source = self.source(step.options["bias"])
                if source:
                    self.edge(source, made[part.title], label)
        return made[part.title]

    # --- what a step is called, and what it reads ---

    def title(self, step: Step, leaf: bool, used: list[int]) -> tuple[str, str]:
        """Title and note. One that uses a module's parameter, uncalled, has that module's name."""
        if leaf:
            return step.module, type(self.modules[step.module]).__name__
        for p in used:
            names = self.names[p]
            free = names[1:] if names[0] in self.owner else names
            if free and self.parent(free[0]) not in ("", step.module):
                return self.parent(free[0]), step.op
        return ("+" if step.op == "add" else step.op), ""

    def parent(self, name: str) -> str:
        """The innermost module around a module or a parameter."""
        while "." in name:
            name = name.rpartition(".")[0]
            if name in self.modules:
                return name
        return ""

    def parameter_id(self, x: Any) -> int | None:
        """The parameter that a Tensor is, or is a view of."""
        return id(x) if id(x) in self.parameters else self.moved.get(id(x))

    def source(self, x: Any) -> str | None:
        """The box that gives an argument; for a constant it is drawn now. None: not drawn."""
        if id(x) in self.origin:
            return self.origin[id(x)]
        array = x.data if isinstance(x, Tensor) else x
        if self.parameter_id(x) is not None or not getattr(array, "ndim", 0):
            return None
        title = self.constant(array)
        if title and title not in self.given:
            self.given[title] = self.box(title, "input", "", array.shape, "", [])
        return self.given.get(title)

    def constant(self, array: Any) -> str:
        """What an array is that nothing computed; empty for one that is not worth a box."""
        for title, known in (("ids", self.run.idx), ("targets", self.run.targets)):
            if array is known or _shared(array, known):
                return title
        for name, module in self.modules.items():
            for key, value in vars(module).items():
                if _shared(array, value):
                    return "" if key.startswith("_") else f"{name}.{key}".lstrip(".")
        places = array.ndim == 1 and array.dtype.kind == "i"
        if places and (to_numpy(array) == host_arange(len(array))).all():
            return "positions"
        return "constant"

    # --- putting it down ---

    def box(self, title: str, kind: str, note: str, shape: Shape, scope: str,
            parameters: list[str]) -> str:  # fmt: skip
        """Add a box, and return the name that it got."""
        words = {"+": "add"}.get(title, title)
        stem = re.sub(r"\W+", "_", words if within(words, scope) or not scope else
                      f"{scope}.{words}", flags=re.ASCII).strip("_") or "box"  # fmt: skip
        stem += "_" * (stem in RESERVED)
        name, n = stem, 1
        while name in self.boxes:
            n += 1
            name = f"{stem}_{n}"
        count = sum(self.sizes[p] for p in parameters)
        self.boxes[name] = Box(name, title, kind, note, shape, tuple(parameters), count, 1, scope)
        self.owner |= dict.fromkeys(parameters, name)
        return name

    def edge(self, source: str, target: str, label: str = "", kind: str = "flow") -> None:
        labels = self.edges.setdefault((source, target, kind), [])
        if label not in labels:
            labels.append(label)

    def order(self, edges: list[Edge]) -> list[str]:
        """The boxes as they were computed, each input before the first that reads it."""
        inputs = {name for name, box in self.boxes.items() if box.kind == "input"}
        order: dict[str, None] = {}
        for name in [name for name in self.boxes if name not in inputs]:
            order |= {e.source: None for e in edges if e.target == name and e.source in inputs}
            order[name] = None
        return list(order)

    def frames(self) -> tuple[Frame, ...]:
        """One for each module that has boxes in it, but the model."""
        scopes = {box.scope for box in self.boxes.values()}
        return tuple(
            Frame(name, f"{name}: {type(module).__name__}", self.parent(name))
            for name, module in self.modules.items()
            if name and any(within(scope, name) for scope in scopes)
        )


def _shared(a: Any, b: Any) -> bool:
    """Whether b is an array too, and lies in the same memory: ids on the host, others with xp."""
    return type(a) is type(b) and np.shares_memory(a, b)  # of a GPU's arrays it asks CuPy


def _mark_residuals(boxes: dict[str, Box], edges: list[Edge]) -> list[Edge]:
    """A residual edge adds to a sum what another of its terms was computed from."""
    flows = [edge for edge in edges if edge.kind == "flow"]
    sums = {name for name, box in boxes.items() if box.title == "+"}
    terms: dict[str, set[str]] = {}
    for edge in flows:
        if edge.target in sums:
            terms.setdefault(edge.target, set()).add(edge.source)
    return [
        replace(edge, kind="residual", label="residual")
        if edge.kind == "flow"
        and len(terms.get(edge.target, ())) > 1
        and (terms[edge.target] - {edge.source}) & reachable(flows, edge.source)
        else edge
        for edge in edges
    ]
