"""The pretended device memory, what may enter it, and how NumPy computes in it without warnings."""

import gc
import threading
from contextvars import copy_context
from typing import Any

import numpy

from minigpt.strict import counts

KINDS = "?bhilqBHILQefdFD"  # the dtypes CuPy has, as NumPy's characters
NUMBERS = {int, float, bool, complex} | {numpy.dtype(c).type for c in KINDS}


class Memory:
    """A block on the device, or a view of one. Only this package may touch `_a`."""

    __slots__ = ("_a", "__weakref__")
    _a: numpy.ndarray


class _Quiet(threading.local):
    """Each thread's own context in which NumPy warns of no overflow: a GPU never warns."""

    def __init__(self):
        context = copy_context()
        context.run(numpy.seterr, all="ignore")
        self.run = context.run


quiet = _Quiet()  # quiet.run(f, *args) is f(*args), three times as fast as under numpy.errstate


def device_bytes() -> int:
    """The bytes of all blocks that some device array still holds, each block once."""
    blocks = {}
    for x in gc.get_objects():
        if isinstance(x, Memory):
            raw = x._a
            while isinstance(raw.base, numpy.ndarray):
                raw = raw.base
            blocks[id(raw)] = raw.nbytes
    return sum(blocks.values())


def supported(dtype: Any) -> numpy.dtype:
    """The dtype, if CuPy has it: no text, no Python objects, no long double.

    Raises: ValueError for any other.
    """
    dtype = numpy.dtype(dtype)
    if dtype.char not in KINDS or dtype.byteorder == ">":
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def operand(x: Any) -> Any:
    """What NumPy may compute with: a device array's memory, or a number.

    Raises: TypeError for all else, NumPy arrays above all.
    """
    if isinstance(x, Memory):
        return x._a
    if type(x) in NUMBERS:
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def from_host(x: Any, dtype: Any = None, order: Any = "K") -> numpy.ndarray:
    """New device memory with a copy of a NumPy array, a number, or nested lists of numbers.

    A list of device arrays alone is stacked on the device. A number travels with the launch of
    the kernel that uses it, so it is no copy.
    """
    if isinstance(x, list | tuple) and _all_on_device(x):
        raw = numpy.array(_memories(x), dtype=dtype)
    else:
        raw = numpy.array(x, dtype=dtype, order=order)
        raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
        if raw.ndim:
            counts.add(copies_in=1, bytes_in=raw.nbytes)
    supported(raw.dtype)
    return raw


def _all_on_device(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return len(x) > 0 and all(map(_all_on_device, x))
    return isinstance(x, Memory)


def _memories(x: Any) -> Any:
    return [_memories(y) for y in x] if isinstance(x, list | tuple) else x._a
