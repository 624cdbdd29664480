"""ElementwiseKernel for kernels of plain expressions: what C computes, by NumPy.

    relu = xp.ElementwiseKernel("T x", "T y", "y = fmax(x, 0)", "relu")

Read are statements `name = expression;` (a new name with its type before it) of numbers, names,
+ - * / %, comparisons and the functions below: C that is Python too. `i` is the element's place
in the result. Conditions, loops and raw arguments are not read. C's rules hold: 1 / 2 is 0, 0.5 is
a double and 0.5f a float; an output in an input's memory overwrites it when it is assigned.
"""

import ast
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from minigpt.strict.device import ndarray, wrap
from minigpt.strict.memory import operand, quiet, supported

FLOAT = re.compile(r"(?<![\w.])((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)[fF]\b")  # 0.5f
STATEMENT = re.compile(r"\s*(?:(\w+)\s+)?(\w+)\s*=(?!=)(.+)", re.DOTALL)
PIECE = 1 << 14  # elements
C_TYPES = {"float": "float32", "double": "float64", "int": "int32", "bool": "bool"}


def _divide(x: Any, y: Any) -> Any:
    if x.dtype.kind == y.dtype.kind == "f":
        return x / y
    return x // y + ((x % y != 0) & ((x < 0) != (y < 0)))  # towards 0


def _remainder(x: Any, y: Any) -> Any:
    if "f" in (x.dtype.kind, y.dtype.kind):
        raise ValueError("C has no % of floating point numbers: fmod")
    return numpy.fmod(x, y)


OPERATORS: dict[type, Callable] = {
    ast.Add: numpy.add, ast.Sub: numpy.subtract, ast.Mult: numpy.multiply,
    ast.Div: _divide, ast.Mod: _remainder,
    ast.Lt: numpy.less, ast.LtE: numpy.less_equal, ast.Gt: numpy.greater,
    ast.GtE: numpy.greater_equal, ast.Eq: numpy.equal, ast.NotEq: numpy.not_equal,
}  # fmt: skip
FUNCTIONS: dict[str, Callable] = {
    "exp": numpy.exp, "log": numpy.log, "sqrt": numpy.sqrt, "tanh": numpy.tanh,
    "erf": numpy.vectorize(math.erf, otypes=[float]),
    "sin": numpy.sin, "cos": numpy.cos, "log1p": numpy.log1p, "expm1": numpy.expm1,
    "floor": numpy.floor, "ceil": numpy.ceil, "rint": numpy.rint, "isnan": numpy.isnan,
    "abs": numpy.abs, "fabs": numpy.abs, "pow": numpy.power, "fmod": numpy.fmod,
    "fmax": numpy.fmax, "max": numpy.fmax, "fmin": numpy.fmin, "min": numpy.fmin,
}  # fmt: skip


class Parameter(NamedTuple):
    """An argument: its type, a letter (any dtype, the same wherever it stands) or a dtype."""

    kind: str
    name: str


def _parameters(text: str) -> list[Parameter]:
    words = [part.split() for part in text.split(",") if part.strip()]
    if any(len(pair) != 2 for pair in words):
        raise ValueError(f"parameters are 'type name', with commas between them: {text!r}")
    return [Parameter(*pair) for pair in words]


class ElementwiseKernel:
    """A function of arrays, element by element, written in C."""

    def __init__(self, in_params: str, out_params: str, operation: str, name: str = "kernel"):
        self.in_params, self.out_params = _parameters(in_params), _parameters(out_params)
        self.nin, self.nout, self.name = len(self.in_params), len(self.out_params), name
        if "i" in [p.name for p in self.in_params + self.out_params]:
            raise ValueError("Can not use 'i' as a parameter name")
        self.statements = []
        for line in filter(str.strip, operation.split(";")):
            found = STATEMENT.fullmatch(line)
            if not found:
                raise ValueError(f"{name}: {line.strip()!r} is no `name = expression`")
            kind, target, expression = found.groups()
            source = FLOAT.sub(r"_float(\1)", expression.strip())
            self.statements.append((kind, target, ast.parse(source, mode="eval").body))
        nodes = [node for *_, body in self.statements for node in ast.walk(body)]
        self.asks_place = any(isinstance(node, ast.Name) and node.id == "i" for node in nodes)

    def __call__(self, *args) -> Any:
        if len(args) not in (self.nin, self.nin + self.nout):
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)}")
        inputs, given = args[: self.nin], args[self.nin :]
        if any(type(x) is not ndarray for x in given):
            raise TypeError("Output arguments type must be cupy.ndarray")
        types = self._types(inputs, given)
        raws = [
            numpy.asarray(operand(x), dtype=types.get(p.kind, p.kind))
            for p, x in zip(self.in_params, inputs, strict=True)
        ]
        shape = numpy.broadcast_shapes(*(raw.shape for raw in raws), *(x.shape for x in given))
        outs = given or [
            wrap(numpy.empty(shape, types.get(p.kind, p.kind))) for p in self.out_params
        ]
        if any(out.shape != shape for out in outs):
            raise ValueError("Out shape is mismatched")
        for part in _parts(shape):
            pieces = [r if r.ndim == 0 else numpy.broadcast_to(r, shape)[part] for r in raws]
            quiet.run(self._run, pieces, [out._a[part] for out in outs], part, types)
        return outs[0] if self.nout == 1 else tuple(outs)

    def _types(self, inputs: tuple, given: tuple) -> dict[str, numpy.dtype]:
        """The dtype of each letter. Numbers take the letter's, arrays set it."""
        if not any(isinstance(x, ndarray) for x in inputs):
            raise ValueError("Loop size is undecided.")
        types: dict[str, numpy.dtype] = {}
        known = zip(self.out_params + self.in_params, given + inputs, strict=False)
        for p, x in known if given else zip(self.in_params, inputs, strict=True):
            if isinstance(x, ndarray):
                wanted = supported(p.kind) if len(p.kind) > 1 else types.setdefault(p.kind, x.dtype)
                if wanted != x.dtype:
                    raise TypeError(f"Type is mismatched. {p.name} {x.dtype} {wanted} {p.kind}")
        return types

    def _run(self, raws: list, outs: list, part: Any, types: dict[str, numpy.dtype]) -> None:
        names = {p.name: raw for p, raw in zip(self.in_params, raws, strict=True)}
        if self.asks_place:
            first = part.start * outs[0][0].size if outs[0].ndim else 0
            names["i"] = first + numpy.arange(outs[0].size).reshape(outs[0].shape)
        targets = {p.name: out for p, out in zip(self.out_params, outs, strict=True)}
        for kind, target, expression in self.statements:
            value = _evaluate(expression, names)
            if kind:  # a new name
                dtype = types.get(kind, C_TYPES.get(kind, kind))
                names[target] = numpy.asarray(value).astype(dtype)
            elif target in targets:
                targets[target][...] = value
                names[target] = targets[target]
            else:
                raise ValueError(f"{self.name}: {target} is no output")


def _parts(shape: tuple[int, ...]) -> list[Any]:
    """Indices of the first axis that cut an array into pieces of about PIECE elements or a row.

    A GPU keeps what lies between a kernel's steps in registers. Pieces make it small here, too.
    """
    if not shape:
        return [...]
    rows = max(1, PIECE // max(1, math.prod(shape[1:])))
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]


def _evaluate(node: ast.expr, names: dict[str, Any]) -> Any:
    """An expression's value, with C's conversions: an integer beside a float becomes that float."""
    match node:
        case ast.Constant(value=float(number)):
            return numpy.float64(number)
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return numpy.int32(number) if abs(number) < 2**31 else numpy.int64(number)
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_evaluate(inner, names)
        case ast.BinOp(left=x, op=op, right=y) if type(op) in OPERATORS:
            return OPERATORS[type(op)](*_converted(_evaluate(x, names), _evaluate(y, names)))
        case ast.Compare(left=x, ops=[op], comparators=[y]) if type(op) in OPERATORS:
            return OPERATORS[type(op)](*_converted(_evaluate(x, names), _evaluate(y, names)))
        case ast.Call(func=ast.Name(id="_float"), args=[number]):
            return numpy.float32(_evaluate(number, names))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            values = _converted(*(_evaluate(x, names) for x in args))
            value = FUNCTIONS[name](*values)
            return value.astype(values[0].dtype) if name == "erf" else value
    raise ValueError(f"the stand-in does not read {ast.unparse(node)!r}")


def _converted(*values: Any) -> list[Any]:
    """Integers beside floats as the widest of these."""
    floats = [x.dtype for x in values if x.dtype.kind == "f"]
    if not floats:
        return list(values)
    return [x if x.dtype.kind == "f" else x.astype(max(floats)) for x in values]
