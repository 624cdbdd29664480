"""What an expression of array code is, as far as its source tells: of xp, of NumPy, or neither."""

import ast

import numpy as np
from cupy_names import CuPy

# What an expression may be, as far as is known: an array of xp, a list of them, a NumPy array,
# or none of these.
DEVICE, DEVICES, NUMPY, OTHER = "device", "devices", "numpy", "other"
OF_ARRAYS = {name for name in dir(np.ndarray) if not name.startswith("_")}
SAME_KIND = {"T", "mT", "real", "imag", "flat"}  # attributes of an array that are arrays
TO_HOST = {"item", "tolist", "tobytes", "get"}  # methods of an array that give no array
# Functions of xp that give no array, and those that take a NumPy array.
NO_ARRAY = {"asnumpy", "shape", "ndim", "size", "result_type", "shares_memory"}
CROSSING = {"asarray", "array"}
# Functions of NumPy that give an array whatever they are given, and methods of an array that do.
MAKES_NUMPY = {"array", "asarray", "zeros", "ones", "empty", "full", "arange", "eye", "stack",
               "concatenate", "frombuffer", "linspace"}  # fmt: skip
STAYS_NUMPY = {"astype", "copy", "reshape", "ravel", "transpose", "swapaxes", "view"}
PLAIN = {"list", "tuple", "sorted", "dict", "set", "str", "len", "range", "int", "float", "bool"}


def dotted(node: ast.AST) -> str:
    """`a.b.c` as it is written; empty for anything but names and dots."""
    if isinstance(node, ast.Attribute):
        return f"{base}.{node.attr}" if (base := dotted(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""


class Kinds:
    """What the names of a file stand for at the line that its reader has come to."""

    def __init__(self, cupy: CuPy, names_of_xp: set[str]):
        self.cupy = cupy
        # How the source writes xp or a part of it: after `shape = xp.shape`, {"shape": ("shape",)}.
        self.xp: dict[str, tuple[str, ...]] = dict.fromkeys(names_of_xp, ())
        self.numpy: set[str] = set()  # names of the module
        self.kinds: dict[str, str | None] = {}  # what each name holds

    def path(self, node: ast.AST) -> tuple[str, ...] | None:
        """("add", "at") for xp.add.at, or None for anything that is not of xp."""
        text = dotted(node)
        if text in self.xp:
            return self.xp[text]
        if isinstance(node, ast.Attribute) and (base := self.path(node.value)) is not None:
            return (*base, node.attr)
        return None

    def of_numpy(self, node: ast.AST) -> str:
        """The text exp for np.exp; empty for anything that is not of NumPy."""
        module, _, name = dotted(node).partition(".")
        return name if module in self.numpy else ""

    def kind(self, node: ast.AST | None) -> str | None:
        """What an expression is, or None if that is not known."""
        match node:
            case ast.Name(id=name):
                return self.kinds.get(name)
            case ast.Attribute(value=value, attr=attr):
                return self.kind_of_attribute(node, value, attr)
            case ast.Subscript(value=value, slice=index):
                return self.kind_of_part(self.kind(value), index)
            case ast.Call():
                return self.kind_of_call(node)
            case ast.BinOp(left=left, right=right):
                return self.either(left, right)
            case ast.Compare(left=left, comparators=[right]):
                return self.either(left, right)
            case ast.IfExp(body=left, orelse=right):
                return self.either(left, right)
            case ast.UnaryOp(operand=value) | ast.NamedExpr(value=value):
                return self.kind(value)
            case ast.List(elts=elts) | ast.Tuple(elts=elts):
                arrays = [self.kind(part) in (DEVICE, DEVICES) for part in elts]
                return OTHER if not any(arrays) else DEVICES if all(arrays) else None
            case ast.ListComp(elt=elt) | ast.GeneratorExp(elt=elt):
                return DEVICES if self.kind(elt) in (DEVICE, DEVICES) else OTHER
            case ast.Starred(value=value):
                return self.kind(value)
            case ast.Constant() | ast.JoinedStr() | ast.Dict() | ast.DictComp() | ast.Lambda():
                return OTHER
        return None

    def kind_of_part(self, kind: str | None, index: ast.AST) -> str | None:
        """A part of NumPy's array may be a number, which xp takes, unless it is a slice."""
        if kind == NUMPY:
            return NUMPY if isinstance(index, ast.Slice) else None
        return DEVICE if kind in (DEVICE, DEVICES) else None

    def either(self, *nodes: ast.AST) -> str | None:
        kinds = [self.kind(node) for node in nodes]
        return next((kind for kind in (DEVICE, NUMPY, None) if kind in kinds), OTHER)

    def kind_of_attribute(self, node: ast.AST, value: ast.AST, attr: str) -> str | None:
        kind = self.kind(value)
        if self.path(node) is not None or kind == OTHER:
            return OTHER  # a number, a dtype or a function of xp
        if attr in ("data", "grad"):  # a Tensor's
            return None if kind == NUMPY else DEVICE
        return kind if attr in SAME_KIND else None

    def kind_of_call(self, node: ast.Call) -> str | None:
        if path := self.path(node.func):
            thing, _ = self.cupy.find(path)
            return OTHER if path[-1] in NO_ARRAY or isinstance(thing, type) else DEVICE
        if name := self.of_numpy(node.func):
            return NUMPY if name in MAKES_NUMPY else OTHER
        if dotted(node.func) in PLAIN:
            return DEVICES if DEVICES in map(self.kind, node.args) else OTHER
        if isinstance(node.func, ast.Attribute) and (kind := self.kind(node.func.value)):
            if kind == DEVICE:
                return OTHER if node.func.attr in TO_HOST else DEVICE
            return kind if kind == NUMPY and node.func.attr in STAYS_NUMPY else None
        return NUMPY if dotted(node.func).split(".")[-1] == "to_numpy" else None

    def bind(self, target: ast.AST, value: ast.AST | None, kind: str | None) -> None:
        """A name, or a row of names, takes the value."""
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else []
        if isinstance(target, ast.Name):
            self.kinds[target.id] = kind
            self.xp.pop(target.id, None)
            if value is not None and (path := self.path(value)) is not None:
                self.xp[target.id] = path
        elif isinstance(value, ast.Tuple) and len(value.elts) == len(parts):
            of_each = [self.kind(each) for each in value.elts]  # before any of them: x, y = y, x
            for part, each, its_kind in zip(parts, value.elts, of_each, strict=True):
                self.bind(part, each, its_kind)
        else:
            for part in parts:
                self.bind(part, None, DEVICE if kind in (DEVICE, DEVICES) else None)
