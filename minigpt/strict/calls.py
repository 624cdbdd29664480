"""Functions of NumPy under the rules of CuPy: built from a line of table.py each.

The rules are worked out once, when the module loads, so that a call costs little more than
NumPy's own.
"""

from collections.abc import Callable
from typing import Any

import numpy

from minigpt.strict import counts
from minigpt.strict.device import ndarray, store, wrap
from minigpt.strict.memory import KINDS, Memory, from_host, operand, quiet


def _array(x: Any) -> Any:
    if isinstance(x, Memory):
        return x._a
    raise TypeError(f"a cupy.ndarray is wanted, not {type(x)}")


def _arrays(xs: Any) -> Any:
    if isinstance(xs, ndarray):
        return [x._a for x in xs]
    if isinstance(xs, list | tuple):
        return [_array(x) for x in xs]
    raise TypeError(f"a list of cupy.ndarray is wanted, not {type(xs)}")


def _number(x: Any) -> Any:
    return None if x is None else operand(x)


def _anything(x: Any) -> Any:
    if isinstance(x, Memory):
        raise TypeError("a number, tuple or name is wanted here, not a cupy.ndarray")
    return x


def _no_array(x: Any) -> Any:
    if isinstance(x, numpy.ndarray):
        raise TypeError("numpy.ndarray is not accepted; convert with cupy.array() first")
    return _anything(x)


def _made_array(x: Any) -> Any:
    return x._a if isinstance(x, Memory) else from_host(x)


CHECKS: dict[str, Callable] = {
    "@": _array, "[": _arrays, "~": _number, "^": _made_array, "-": _anything, "!": _no_array,
}  # fmt: skip


class Signature:
    """One line of the table: names, and what each argument must be."""

    def __init__(self, line: str):
        before, _, after = line.partition("*")
        words, names = before.split(), [self._name(word) for word in before.split()]
        every = words + after.split()
        self.positional = names
        self.checks = {self._name(word): CHECKS.get(word[0], _anything) for word in every}
        if "out" in self.checks:
            self.checks["out"] = lambda x: x  # looked at where the result is stored
        self.rename = {self._name(word): word.split(":")[-1].lstrip("@[~^!-") for word in every}
        marked = [i for i, word in enumerate(words) if word[0] in CHECKS]
        self.leading = marked[-1] + 1 if marked else 0  # so many go to NumPy by position
        self.leading_names = {*names[: self.leading]}
        self.leaders = [self.checks[name] for name in names[: self.leading]]

    @staticmethod
    def _name(word: str) -> str:
        return word.split(":")[0].lstrip("@[~^!-")

    def bind(self, name: str, args: tuple, kwargs: dict) -> tuple[list, dict]:
        """The arguments for NumPy. Raises: TypeError for what CuPy does not take."""
        if not kwargs and len(args) <= self.leading:  # as most calls are
            return [check(x) for check, x in zip(self.leaders, args, strict=False)], kwargs
        for keyword in kwargs:
            if keyword not in self.checks:
                raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}")
        if len(args) == self.leading and not self.leading_names & kwargs.keys():
            values = [check(x) for check, x in zip(self.leaders, args, strict=True)]
            return values, {self.rename[k]: self.checks[k](x) for k, x in kwargs.items()}
        if len(args) > len(self.positional):
            raise TypeError(f"{name}() takes {len(self.positional)} arguments by position")
        given = dict(zip(self.positional, args, strict=False))
        for keyword in given.keys() & kwargs.keys():
            raise TypeError(f"{name}() got multiple values for argument {keyword!r}")
        given.update(kwargs)
        values = []
        for keyword, check in zip(self.positional, self.leaders, strict=False):
            if keyword not in given:
                break
            values.append(check(given.pop(keyword)))
        return values, {self.rename[k]: self.checks[k](x) for k, x in given.items()}


def finish(raw: Any, out: Any = None) -> Any:
    """The result as device arrays; written into `out` where one was given."""
    if out is not None:
        return store(raw, out)
    if type(raw) is numpy.ndarray and raw.dtype.char not in KINDS:
        raise ValueError(f"Unsupported dtype {raw.dtype}")
    return wrap(raw)


def function(name: str, call: Callable, line: str, waits: bool = False) -> Callable:
    """NumPy's `call` as CuPy's function `name`, with the arguments of `line`."""
    signature = Signature(line)

    def on_device(*args, **kwargs):
        values, options = signature.bind(name, args, kwargs)
        out = options.pop("out", None)
        if waits:
            counts.add(synchronisations=1)
        return finish(quiet.run(call, *values, **options), out)

    on_device.__name__ = on_device.__qualname__ = name
    return on_device


def host_function(name: str, call: Callable, line: str) -> Callable:
    """The same where the result is no array: a shape, a truth about memory."""
    signature = Signature(line)

    def on_host(*args, **kwargs):
        values, options = signature.bind(name, args, kwargs)
        return call(*values, **options)

    on_host.__name__ = on_host.__qualname__ = name
    return on_host


def method(name: str, line: str, waits: bool = False) -> Callable:
    """numpy.ndarray's method `name` as that of the device's array."""
    return function(name, getattr(numpy.ndarray, name), f"@self {line}", waits)
