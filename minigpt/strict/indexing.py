"""Reading and writing by index, as CuPy does it.

Integer arrays out of range wrap around; a single integer out of range is an IndexError. A mask's
shape depends on its values, so the host waits. Where several values are written to one element,
which of them stays is undefined: here it becomes a value that no result survives.
All functions take and return raw memory; indices and values are as the caller wrote them.
"""

from typing import Any

import numpy

from minigpt.strict import counts
from minigpt.strict.memory import Memory, from_host, quiet

BASIC = {int, slice, type(None), type(Ellipsis)}  # what NumPy reads as CuPy does
HOST = (bool, numpy.bool_, list, tuple, numpy.ndarray)


def get(raw: numpy.ndarray, index: Any) -> Any:
    """raw[index]: a view for slices and integers, else a copy."""
    key = _key(index)
    if not _has_arrays(key):
        return raw[_open(key)]
    try:
        return raw[key]
    except IndexError:
        return raw[wrapped(raw, key)]  # or the same error: it was no array that was out of range


def put(raw: numpy.ndarray, index: Any, value: Any) -> None:
    """raw[index] = value. From the host only numbers, except through an index array: as CuPy."""
    key = _key(index)
    on_device = isinstance(value, Memory)
    if not _has_arrays(key):
        if on_device:
            quiet.run(raw.__setitem__, key, _squeezed(value._a))
        else:
            fill(raw[_open(key)], value)
        return
    value = _squeezed(value._a) if on_device else from_host(value, raw.dtype)
    key = wrapped(raw, key)
    quiet.run(raw.__setitem__, key, value)
    if value.size > 1:  # one value cannot conflict with itself
        _poison(raw, key, value)


def add_at(add: Any, raw: numpy.ndarray, index: Any, value: Any) -> None:
    """raw[index] += value for a ufunc `add`, each repeated index counting."""
    value = value._a if isinstance(value, Memory) else from_host(value, raw.dtype)
    key = _key(index)
    quiet.run(add.at, raw, wrapped(raw, key), value.astype(raw.dtype, copy=False))


def fill(raw: numpy.ndarray, value: Any) -> None:
    """Every element one number: a Python number, a NumPy scalar or a 0-d device array."""
    on_device = isinstance(value, Memory)
    value = value._a if on_device else numpy.asarray(value, dtype=raw.dtype)
    if value.shape != ():
        library = "cupy" if on_device else "numpy"
        raise ValueError(f"non-scalar {library}.ndarray cannot be used for fill")
    quiet.run(raw.fill, value)


def take(raw: numpy.ndarray, indices: Any, axis: int | None) -> numpy.ndarray:
    """The elements at the indices along an axis (None: of all, flat); out of range they wrap."""
    if isinstance(indices, Memory):
        indices = indices._a
    elif not numpy.isscalar(indices):
        indices = from_host(indices, int)
    return raw.take(indices, axis, mode="wrap")


def take_along_axis(raw: numpy.ndarray, indices: numpy.ndarray, axis: int | None) -> Any:
    """As numpy.take_along_axis; out of range they wrap."""
    n = raw.size if axis is None else raw.shape[axis]
    return numpy.take_along_axis(raw, indices % n if n else indices, axis)


def wrapped(raw: numpy.ndarray, key: tuple) -> tuple:
    """The index with each integer array brought into 0..n-1 of its axis."""
    parts = list(key)
    free = raw.ndim - sum(map(_width, parts))  # the axes an ellipsis stands for
    axis = 0
    for i, s in enumerate(parts):
        if _is_integers(s) and axis < raw.ndim and raw.shape[axis]:
            parts[i] = numpy.asarray(s % raw.shape[axis])
        axis += free if s is Ellipsis else _width(s)
    return tuple(parts)


def _key(index: Any) -> tuple:
    """The index as NumPy takes it: a tuple, its arrays raw."""
    return tuple(map(_part, index)) if type(index) is tuple else (_part(index),)


def _part(s: Any) -> Any:
    """One entry of an index. Lists and NumPy arrays are copied in, as CuPy copies them."""
    if type(s) in BASIC:
        return s
    if isinstance(s, Memory):
        array = s._a
    elif isinstance(s, HOST):
        array = from_host(s)
        if isinstance(s, list | tuple) and array.size == 0:
            array = array.astype(int)
    else:
        return s
    if array.dtype.kind not in "biu":
        raise IndexError(
            f"arrays used as indices must be of integer or boolean type: {array.dtype}"
        )
    if array.dtype.kind == "b":
        counts.add(synchronisations=1)  # how many are true?
    return array


def _has_arrays(key: tuple) -> bool:
    return numpy.ndarray in map(type, key)


def _open(key: tuple) -> tuple:
    """With an ellipsis, so that NumPy gives a view where one element is left, not a scalar."""
    return key if type(Ellipsis) in map(type, key) else (*key, Ellipsis)


def _is_integers(s: Any) -> bool:
    return type(s) is numpy.ndarray and s.dtype.kind != "b"


def _width(s: Any) -> int:
    """How many axes an entry of an index takes."""
    if s is None or s is Ellipsis:
        return 0
    return s.ndim if type(s) is numpy.ndarray and s.dtype.kind == "b" else 1


def _squeezed(value: numpy.ndarray) -> numpy.ndarray:
    """Without leading axes of length 1, so that (1, 3) fits (3,)."""
    while value.ndim and value.shape[0] == 1:
        value = value[0]
    return numpy.asarray(value)


def _poison(raw: numpy.ndarray, key: tuple, value: numpy.ndarray) -> None:
    """Spoil each element to which two different values were written.

    NumPy lets the last one stay. So whoever reads back another value than it wrote was overwritten.
    """
    lost = raw[key] != value.astype(raw.dtype, copy=False)
    if not lost.any():
        return
    where = numpy.arange(raw.size).reshape(raw.shape)[key][lost]
    kind = raw.dtype.kind
    if kind == "b":
        raw.flat[where] = ~raw.flat[where]
    else:
        raw.flat[where] = numpy.nan if kind in "fc" else numpy.iinfo(raw.dtype).max // 3
