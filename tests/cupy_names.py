"""What CuPy has and what it takes, as it is installed. Importing it needs no GPU."""

import ast
import importlib
import inspect
import re
from inspect import Parameter, Signature
from types import ModuleType
from typing import Any

import numpy as np

DTYPES = "?bBhHiIlLqQefdFD"  # booleans, integers, and floats and complex numbers of 16 to 128 bits
# Keywords in a signature that only raise. A test asks CuPy whether each row is so.
LIKE = ("array", "empty_like", "zeros_like", "ones_like", "full_like")
TRAPS = {"astype": {"casting", "subok"}, **dict.fromkeys(LIKE, {"subok"})}
SORTS = {None, "stable"}  # all others raise, in sort and argsort
# A ufunc's methods that are there for all and raise NotImplementedError for most: how many
# arguments each must be given to say so.
UFUNC_METHODS = {"at": 3, "reduce": 1, "accumulate": 1, "reduceat": 2}


def of_ufunc(ufunc: Any) -> Signature:
    """A ufunc's `__call__` is declared as (*args, **kwargs), and refuses all but these."""
    inputs = range(ufunc.nargs - ufunc.nout)
    parameters = [Parameter(f"x{i}", Parameter.POSITIONAL_ONLY) for i in inputs]
    for i in range(ufunc.nout):
        name = f"out{i}" if i else "out"
        parameters.append(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None))
    for name in ("casting", "dtype"):
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None))
    return Signature(parameters)


def written(thing: Any) -> Signature | None:
    """The signature in line 1 of a docstring: Cython's functions, and some of Python's."""
    line = (thing.__doc__ or "").strip().split("\n")[0]
    match = re.fullmatch(r"[\w.]+\((.*)\)(?: -> .*)?", line)
    if not match:
        return None
    bare = re.sub(r"\b\w+ (?=\w)", "", match[1])  # without C types: `int axis=-1`
    try:  # Python reads its own syntax best; the text comes with the library that is imported
        return inspect.signature(eval(f"lambda {bare}: 0", {}))
    except (SyntaxError, NameError):
        return None


def misfit(found: Signature, call: ast.Call) -> str | None:
    """Why a call does not fit a signature, or None. What `*` and `**` stand for is not known."""
    parameters = list(found.parameters.values())
    kinds = {p.kind for p in parameters}
    given = {word.arg for word in call.keywords if word.arg}
    starred = len(given) < len(call.keywords) or any(
        isinstance(argument, ast.Starred) for argument in call.args
    )
    named = {p.name for p in parameters if p.kind is not Parameter.POSITIONAL_ONLY}
    for word in sorted(given - named):
        if Parameter.VAR_KEYWORD not in kinds:
            return f"CuPy takes no keyword {word!r}"
    by_place = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    places = [p for p in parameters if p.kind in by_place]
    count = sum(not isinstance(argument, ast.Starred) for argument in call.args)
    if count > len(places) and Parameter.VAR_POSITIONAL not in kinds:
        return f"CuPy takes at most {len(places)} positional, got {count}"
    for p in places[count:]:
        if not starred and p.default is Parameter.empty and p.name not in given:
            return f"CuPy needs an argument {p.name!r}"
    return None


def unknown_dtype(node: ast.expr) -> str | None:
    """The text of a dtype that CuPy has not, or None. Only what the source spells out is read."""
    text = ast.unparse(node)
    spelt = node.value if isinstance(node, ast.Constant) else text.split(".")[-1]
    if not isinstance(spelt, str) or (spelt == text and text not in ("object", "str", "bytes")):
        return None
    try:
        return text if np.dtype(spelt).char not in DTYPES else None
    except TypeError:  # no name of a dtype, such as x.dtype
        return None


class CuPy:
    """CuPy's names and signatures, to ask about pieces of source."""

    def __init__(self, module: ModuleType):
        self.module, self.array, self.ufunc = module, module.ndarray, module.ufunc
        self.name = f"CuPy {module.__version__.split('.')[0]}"
        self.flags = dir(importlib.import_module("cupy._core.flags").Flags)
        self._signatures: dict[tuple[str, ...], Signature | None] = {}

    def find(self, path: tuple[str, ...]) -> tuple[Any, str | None]:
        """What xp.a.b is, and what is wrong with the name."""
        thing = self.module
        for i, name in enumerate(path, 1):
            text = ".".join(("xp", *path[:i]))
            if not hasattr(thing, name):
                return None, f"{text}: {self.name} has no such name"
            if isinstance(thing, self.ufunc) and self._only_raises(thing, name):
                return None, f"{text}: {self.name} does not implement it"
            thing = getattr(thing, name)
        return thing, None

    def _only_raises(self, ufunc: Any, name: str) -> bool:
        if name not in UFUNC_METHODS:
            return False
        try:
            getattr(ufunc, name)(*[None] * UFUNC_METHODS[name])
        except NotImplementedError:
            return True
        except AttributeError:  # it went on to use its argument, None
            return False
        raise AssertionError(f"{ufunc}.{name} took None for an array")

    def call(self, path: tuple[str, ...], node: ast.Call) -> list[str]:
        """What is wrong with the arguments of xp.a.b(...)."""
        thing, owner = self.find(path)[0], self.find(path[:-1])[0]
        bound = isinstance(owner, self.ufunc)  # a method: the docstring says `self`
        return [] if isinstance(thing, type) else self._arguments(path, thing, node, bound)

    def method(self, name: str, node: ast.Call) -> list[str]:
        """What is wrong with the arguments of a method of an array."""
        return self._arguments(("ndarray", name), getattr(self.array, name), node, True)

    def _arguments(self, path, thing, node: ast.Call, bound: bool) -> list[str]:
        if path not in self._signatures:
            self._signatures[path] = self._signature(thing, bound)
        found = self._signatures[path]
        if found is None:
            return ["what it takes is not known"]
        traps = TRAPS.get(path[-1], set())
        words = {word.arg: word.value for word in node.keywords if word.arg}
        wrong = [f"{self.name} does not implement {word!r}" for word in words if word in traps]
        if not wrong:
            wrong = [text] if (text := misfit(found, node)) else []
        given = {**dict(zip(found.parameters, node.args, strict=False)), **words}
        kind = given.get("kind")
        if isinstance(kind, ast.Constant) and kind.value not in SORTS:
            wrong.append(f"{self.name} has no kind {kind.value!r} of sorting")
        if "dtype" in given and (text := unknown_dtype(given["dtype"])):
            wrong.append(f"{self.name} has no dtype {text}")
        return wrong

    def _signature(self, thing: Any, bound: bool) -> Signature | None:
        if isinstance(thing, self.ufunc):
            return of_ufunc(thing)
        try:
            found: Signature | None = inspect.signature(thing)
        except (TypeError, ValueError):
            found = None
        parameters = found.parameters.values() if found else ()
        if not found or any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
            found = written(thing) or found  # einsum's docstring says which keywords it takes
        if found and bound:
            found = Signature(list(found.parameters.values())[1:])  # without self
        return found
