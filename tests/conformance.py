"""Does array code keep to what CuPy has? Read from its syntax tree, against CuPy's own names.

It follows names through a function in the order of its lines. What it knows to be no array of xp
(a module, text, a NumPy array) it leaves alone; all else with the name of an array's attribute it
reads as an array. It reads names, keywords and numbers of arguments, not values: an index out of
range, or a Python number where CuPy wants an array, shows only when the code runs.
"""

import ast
from typing import NamedTuple

from array_kinds import CROSSING, DEVICE, DEVICES, NUMPY, OF_ARRAYS, OTHER, Kinds, dotted
from cupy_names import CuPy


class Misuse(NamedTuple):
    """A line and what CuPy would refuse there."""

    line: int
    text: str


def misuse(source: str, cupy: CuPy, may_import_numpy: bool = True) -> list[Misuse]:
    """All that CuPy would refuse in a file that handles arrays of xp, by line."""
    tree = ast.parse(source)
    reader = Reader(cupy, names_of_xp(tree), may_import_numpy)
    reader.visit(tree)
    return sorted(reader.found)


def names_of_xp(tree: ast.Module) -> set[str]:
    """How a file may write the array library: `xp`, `backend.xp`; empty if it never does."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name
                match node.module, alias.name:
                    case "minigpt.backend", "xp":
                        names.add(name)
                    case "minigpt", "backend":
                        names.add(f"{name}.xp")
        elif isinstance(node, ast.Import):
            names |= {f"{alias.asname or alias.name}.xp"
                      for alias in node.names if alias.name == "minigpt.backend"}  # fmt: skip
        elif isinstance(node, ast.AnnAssign) and dotted(node.target) == "xp":
            names.add("xp")  # backend.py itself
    return {name for name in names if any(dotted(node) == name for node in ast.walk(tree))}


class Reader(Kinds, ast.NodeVisitor):
    """Walks one file in the order of its lines, and collects what is wrong."""

    def __init__(self, cupy: CuPy, names_of_xp: set[str], may_import_numpy: bool):
        super().__init__(cupy, names_of_xp)
        self.may_import_numpy = may_import_numpy
        self.found: set[Misuse] = set()

    def report(self, node: ast.AST, text: str) -> None:
        self.found.add(Misuse(node.lineno, text))

    # What names come to hold.

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        kind = self.kind(node.value)
        for target in node.targets:
            self.bind(target, node.value, kind)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if dotted(node.target) not in self.xp:  # in backend.py, `xp: Any = ...`
            self.bind(node.target, node.value, self.kind(node.value))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self.bind(node.target, node.value, self.kind(node.value))

    def each(self, target: ast.AST, many: ast.AST) -> None:
        """The target of a loop takes, one by one, what `many` holds."""
        self.bind(target, None, DEVICE if self.kind(many) in (DEVICE, DEVICES) else None)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self.each(node.target, node.iter)
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit(node.iter)
        self.each(node.target, node.iter)
        for test in node.ifs:
            self.visit(test)

    def visit_withitem(self, node: ast.withitem) -> None:
        self.visit(node.context_expr)
        if node.optional_vars:
            self.bind(node.optional_vars, None, None)

    def visit_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> None:
        for part in [*node.generators, node.elt]:
            self.visit(part)

    visit_GeneratorExp = visit_SetComp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> None:
        for part in [*node.generators, node.key, node.value]:
            self.visit(part)

    def visit_If(self, node: ast.If) -> None:
        """Inside `if isinstance(x, np.ndarray)`, x is one."""
        self.visit(node.test)
        guarded = None
        match node.test:
            case ast.Call(ast.Name("isinstance"), [ast.Name(name), what]):
                guarded = name if self.of_numpy(what) == "ndarray" else None
        before = self.kinds.get(guarded) if guarded else None
        if guarded:
            self.kinds[guarded] = NUMPY
        for statement in node.body:
            self.visit(statement)
        if guarded:
            self.kinds[guarded] = before
        for statement in node.orelse:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]:
            if part is not None:
                self.visit(part)
        self.kinds[node.name] = OTHER
        self.scope(node.args, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in [*node.args.defaults, *node.args.kw_defaults]:
            if part is not None:
                self.visit(part)
        self.scope(node.args, [node.body])

    def scope(self, args: ast.arguments, body: list) -> None:
        """A function's inside: its arguments are its own, and what it binds ends with it."""
        outside = dict(self.kinds), dict(self.xp)
        for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]:
            if arg is not None:
                hint = arg.annotation
                numpy = hint is not None and self.of_numpy(hint) == "ndarray"
                plain = dotted(hint) in ("str", "int", "float", "bool") if hint else False
                self.bind(ast.Name(arg.arg), None, NUMPY if numpy else OTHER if plain else None)
        for part in body:
            self.visit(part)
        self.kinds, self.xp = outside

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.generic_visit(node)
        self.kinds[node.name] = OTHER

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            if name not in self.xp:
                self.kinds[name] = OTHER
            if isinstance(node, ast.Import) and alias.name.split(".")[0] == "numpy":
                self.numpy.add(name)
                if not self.may_import_numpy:
                    self.report(node, "numpy: this file computes with xp alone")

    visit_ImportFrom = visit_Import

    # What is wrong.

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A name of xp, or an attribute of what may be an array."""
        path = self.path(node)
        if path is None:
            self.visit(node.value)
            wrong = self.attribute(node)
        else:
            _, wrong = self.cupy.find(path)
            if not wrong and path[:1] == ("random",):
                wrong = f"xp.{'.'.join(path)}: random numbers come from a NumPy generator"
        if wrong:
            self.report(node, wrong)

    def attribute(self, node: ast.Attribute) -> str | None:
        kind, text = self.kind(node.value), ast.unparse(node)
        if self.flags(node.value):
            known = node.attr in self.cupy.flags
            return None if known else f"{text}: {self.cupy.name} has no such flag"
        read = kind == DEVICE or (kind is None and node.attr in OF_ARRAYS)
        if not read or hasattr(self.cupy.array, node.attr):
            return None
        return f"{text}: {self.cupy.name}'s arrays have no such attribute"

    def flags(self, node: ast.AST) -> bool:
        """Whether a node is the flags of what may be an array of xp."""
        found = isinstance(node, ast.Attribute) and node.attr == "flags"
        return found and self.kind(node.value) not in (NUMPY, OTHER)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        if self.flags(node.value):
            self.report(node, f"{ast.unparse(node)}: {self.cupy.name}'s flags have no index")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if path := self.path(node.func):
            text, wrong = f"xp.{'.'.join(path)}", self.call_of_xp(path, node)
        elif name := self.of_numpy(node.func):
            text, crossed = ast.unparse(node.func), {DEVICE, DEVICES} & self.given(node)
            advice = f"an argument comes from xp: use xp.{name} or backend.to_numpy"
            wrong = [advice] if crossed else []
        elif isinstance(node.func, ast.Attribute):
            text, wrong = ast.unparse(node.func), self.call_of_method(node.func, node)
        else:
            return
        for each in wrong:
            self.report(node, f"{text}: {each}")

    def given(self, node: ast.Call) -> set[str | None]:
        """What the arguments are, and the parts of those that are lists."""
        arguments = [*node.args, *(word.value for word in node.keywords)]
        for argument in [*arguments]:
            arguments += argument.elts if isinstance(argument, ast.List | ast.Tuple) else []
        return {self.kind(argument) for argument in arguments}

    def call_of_xp(self, path: tuple[str, ...], node: ast.Call) -> list[str]:
        if self.cupy.find(path)[1] or path[0] == "random":
            return []  # the name has been reported
        wrong = self.cupy.call(path, node)
        if NUMPY in self.given(node) and path[-1] not in CROSSING:
            wrong.append("an argument is a NumPy array: xp.asarray takes it across")
        return wrong

    def call_of_method(self, method: ast.Attribute, node: ast.Call) -> list[str]:
        known = method.attr in OF_ARRAYS and hasattr(self.cupy.array, method.attr)
        if not known or self.kind(method.value) not in (None, DEVICE):
            return []
        return self.cupy.method(method.attr, node)

    def mixed(self, node: ast.AST, left: ast.AST, right: ast.AST) -> None:
        self.generic_visit(node)
        if {self.kind(left), self.kind(right)} == {DEVICE, NUMPY}:
            self.report(node, f"{ast.unparse(node)}: an array of xp meets a NumPy array")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.mixed(node, node.left, node.right)

    def visit_Compare(self, node: ast.Compare) -> None:
        self.mixed(node, node.left, node.comparators[0])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.mixed(node, node.target, node.value)
