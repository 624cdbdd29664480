"""All functions of the stand-in: those of table.py, and those that need more than a line."""

import math
from typing import Any

import numpy

from minigpt.strict import indexing
from minigpt.strict.calls import finish, function, host_function, method
from minigpt.strict.device import ndarray, stable, wrap
from minigpt.strict.memory import Memory, from_host, operand, quiet, supported
from minigpt.strict.operators import FUNCTIONS, LINALG
from minigpt.strict.table import FUNCTIONS as LINES
from minigpt.strict.table import LINALG as LINALG_LINES
from minigpt.strict.table import METHODS, ON_THE_HOST, SYNCHRONISE


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """A new array on the device: a copy of the host's, or of another array of the device."""
    if isinstance(obj, Memory):
        same = dtype is None or supported(dtype) == obj._a.dtype
        if same and not copy and ndmin <= obj._a.ndim:
            return obj
        if copy is False and not same:
            raise ValueError("Unable to avoid copy while creating an array as requested.")
        raw = quiet.run(numpy.array, obj._a, dtype, order=order or "K", ndmin=ndmin)
    else:
        raw = from_host(obj, dtype, order or "K")
        raw = raw.reshape((1,) * (ndmin - raw.ndim) + raw.shape)
    return finish(raw)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    """The array itself if it is on the device, else a copy of the host's on the device."""
    return array(a, dtype, copy, order)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    """A copy on the host: the one way back."""
    return a.get(stream, order, out) if isinstance(a, ndarray) else numpy.asarray(a, order=order)


def arange(start, stop=None, step=1, dtype=None):
    """start, start + step, ... below stop. Made on the device: no copy."""
    if stop is None:
        start, stop = 0, start
    return finish(numpy.arange(operand(start), operand(stop), operand(step), dtype=dtype))


def where(condition, x=None, y=None):
    """x where the condition holds, else y; without them, where it holds (the host waits)."""
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return FUNCTIONS["nonzero"](condition)
    if not isinstance(condition, Memory):
        raise TypeError(f"a cupy.ndarray is wanted, not {type(condition)}")
    return wrap(quiet.run(numpy.where, condition._a, operand(x), operand(y)))


def einsum(*operands, **kwargs):
    """Sums of products as Einstein wrote them."""
    if not kwargs.keys() <= {"dtype", "optimize"}:
        raise TypeError(f"Did not understand the following kwargs: {list(kwargs)}")
    raws = [x if isinstance(x, str | list) else operand(x) for x in operands]
    call: Any = numpy.einsum  # its overloads are beyond mypy
    return wrap(quiet.run(call, *raws, **kwargs))


def take(a, indices, axis=None, out=None):
    """The elements at the indices; those out of range wrap around."""
    return a.take(indices, axis, out)


def take_along_axis(a, indices, axis):
    """Along an axis, the element that each index names; those out of range wrap around."""
    return wrap(indexing.take_along_axis(operand(a), operand(indices), axis))


def clip(a, a_min, a_max, out=None):
    """Each element brought into a_min..a_max; None: no bound."""
    return a.clip(a_min, a_max, out)


def argsort(a, axis=-1, kind=None):
    """The order that sorts, always stable."""
    stable(kind)
    return wrap(numpy.argsort(operand(a), axis, kind="stable"))


def sort(a, axis=-1, kind=None):
    """A sorted copy."""
    stable(kind)
    return wrap(numpy.sort(operand(a), axis, kind="stable"))


def meshgrid(*xi, indexing="xy", sparse=False, copy=True):
    """The coordinates of each point of a grid."""
    raws = map(operand, xi)
    return [wrap(raw) for raw in numpy.meshgrid(*raws, indexing=indexing, sparse=sparse, copy=copy)]


def broadcast_arrays(*args):
    """All arrays at the shape they share."""
    return [wrap(raw) for raw in numpy.broadcast_arrays(*map(operand, args))]


def atleast_1d(*arys):
    """Each array with one axis or more."""
    out = [wrap(numpy.atleast_1d(operand(x))) for x in arys]
    return out[0] if len(out) == 1 else out


def copyto(dst, src, casting="same_kind", where=None):
    """Write src into dst."""
    extra = {} if where is None else {"where": operand(where)}
    numpy.copyto(operand(dst), operand(src), casting=casting, **extra)


def shape(a):
    """The lengths of the axes: () for a number."""
    return a.shape if isinstance(a, ndarray) else numpy.shape(a)


def ndim(a):
    """The number of axes: 0 for a number."""
    return len(shape(a))


def size(a, axis=None):
    """The number of elements, in all or along an axis."""
    lengths = shape(a)
    return math.prod(lengths) if axis is None else lengths[axis]


def result_type(*arrays_and_dtypes):
    """The dtype that NumPy's promotion gives."""
    return numpy.result_type(*[x._a if isinstance(x, Memory) else x for x in arrays_and_dtypes])


def is_available() -> bool:
    """There is always a device to pretend."""
    return True


OWN = [
    array, asarray, asnumpy, arange, where, einsum, take, take_along_axis, clip, argsort, sort,
    meshgrid, broadcast_arrays, atleast_1d, copyto, shape, ndim, size, result_type, is_available,
]  # fmt: skip
FUNCTIONS.update({
    name: host_function(name, getattr(numpy, name), line) if name in ON_THE_HOST
    else function(name, getattr(numpy, name), line, name in SYNCHRONISE)
    for name, line in LINES.items()
})  # fmt: skip
FUNCTIONS.update({call.__name__: call for call in OWN})
LINALG.update({
    name: function(name, getattr(numpy.linalg, name), line) for name, line in LINALG_LINES.items()
})  # fmt: skip
for _name, _line in METHODS.items():
    setattr(ndarray, _name, method(_name, _line, _name in SYNCHRONISE))
setattr(ndarray, "argsort", argsort)  # noqa: B010
