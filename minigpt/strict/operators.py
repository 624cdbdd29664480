"""What `+`, `==`, `+=` and NumPy's own functions do with an array of the device."""

from collections.abc import Callable
from typing import Any

import numpy

from minigpt.strict.device import ndarray, wrap
from minigpt.strict.memory import NUMBERS, Memory, operand, quiet
from minigpt.strict.ufuncs import ALL

BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "matmul": "matmul",
    "truediv": "divide", "floordiv": "floor_divide", "mod": "remainder", "divmod": "divmod",
    "pow": "power", "lshift": "left_shift", "rshift": "right_shift",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip
COMPARISONS = {"lt": "less", "le": "less_equal", "eq": "equal", "ne": "not_equal",
               "gt": "greater", "ge": "greater_equal"}  # fmt: skip
FUNCTIONS: dict[str, Any] = {}  # these two are filled by functions.py
LINALG: dict[str, Any] = {}
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def _defers(other: Any) -> bool:
    """Does the other side want the operator? Tensor says so with `__array_ufunc__ = None`."""
    handler = getattr(other, "__array_ufunc__", ...)
    if handler is not ...:
        return handler is None
    return getattr(other, "__array_priority__", 0) > ndarray.__array_priority__


def _binary(call: Callable) -> tuple[Callable, Callable]:
    """The method for x + y and the one for y + x, where x is the device's array."""

    def forward(self, other):
        if type(other) is ndarray:
            return wrap(quiet.run(call, self._a, other._a))
        if type(other) in NUMBERS:
            return wrap(quiet.run(call, self._a, other))
        return NotImplemented if _defers(other) else call(self, other)  # to __array_ufunc__

    def reflected(self, other):
        if type(other) in NUMBERS:
            return wrap(quiet.run(call, other, self._a))
        return NotImplemented if _defers(other) else call(other, self)

    return forward, reflected


def _comparison(call: Callable, odd: Callable | None) -> Callable:
    """odd: what == and != give for what is no number at all, such as None."""

    def method(self, other):
        if type(other) is ndarray:
            return wrap(quiet.run(call, self._a, other._a))
        if type(other) in NUMBERS:
            return wrap(quiet.run(call, self._a, other))
        if _defers(other):
            return NotImplemented
        if odd and (other is None or type(other).__eq__ is object.__eq__):
            return wrap(odd(self._a.shape, bool))
        return call(self, other)

    return method


def _in_place(call: Callable) -> Callable:
    def method(self, other):
        quiet.run(call, self._a, operand(other), out=self._a)
        return self

    return method


def _unary(call: Callable) -> Callable:
    return lambda self: wrap(quiet.run(call, self._a))


def _array_ufunc(self, ufunc, method, *inputs, **kwargs):
    """NumPy's ufunc on a device array is the device's own, if only device arrays take part."""
    own = ALL.get(ufunc.__name__, FUNCTIONS.get(ufunc.__name__))
    call = own if method == "__call__" else getattr(own, method, None)
    if call is None:
        return NotImplemented
    if "out" in kwargs and len(kwargs["out"]) == 1:
        kwargs["out"] = kwargs["out"][0]
    known = (Memory, numpy.ndarray)  # a NumPy array is known, and refused by name
    if not all(isinstance(x, known) or type(x) in NUMBERS for x in inputs):
        return NotImplemented
    return call(*inputs, **kwargs)


def _array_function(self, func, types, args, kwargs):
    """numpy.sum(x) is xp.sum(x) where there is one, so that no copy goes unseen."""
    module = func.__module__
    own = {"numpy": FUNCTIONS, "numpy.linalg": LINALG}.get(module, {}).get(func.__name__)
    if own is None or not all(issubclass(t, Memory | numpy.ndarray) for t in types):
        return NotImplemented
    return own(*args, **kwargs)


def bind() -> None:
    """Give the array its operators."""
    for short, name in BINARY.items():
        call = getattr(numpy, name)
        forward, reflected = _binary(call)
        setattr(ndarray, f"__{short}__", forward)
        setattr(ndarray, f"__r{short}__", reflected)
        if short not in ("matmul", "divmod"):
            setattr(ndarray, f"__i{short}__", _in_place(call))
    for short, name in COMPARISONS.items():
        odd = {"eq": numpy.zeros, "ne": numpy.ones}.get(short)
        setattr(ndarray, f"__{short}__", _comparison(getattr(numpy, name), odd))
    for short, name in UNARY.items():
        setattr(ndarray, f"__{short}__", _unary(getattr(numpy, name)))
    ndarray.__array_ufunc__ = _array_ufunc
    ndarray.__array_function__ = _array_function


bind()
