"""The stand-in's array: a NumPy array that nothing can reach but by the rules of CuPy.

`_a` is the pretended device memory. Whatever leaves it goes through `get`, which counts.
The rules were read in CuPy 14.2's source; figures/cupy_differences.md lists them.
"""

import warnings
from typing import Any

import numpy

from minigpt.strict import counts, indexing
from minigpt.strict.memory import Memory, from_host, quiet, supported


def wrap(raw: Any) -> Any:
    """A result of NumPy as device arrays: scalars become 0-d, tuples and lists their items."""
    if type(raw) is not numpy.ndarray:
        if isinstance(raw, list):
            return [wrap(r) for r in raw]
        if isinstance(raw, tuple):
            return tuple(map(wrap, raw))
        raw = numpy.asarray(raw)
    x = object.__new__(ndarray)
    x._a = raw
    return x


class Flags:
    """How the memory lies. Nothing reads `writeable`: setting it does nothing, as in CuPy."""

    def __init__(self, raw: numpy.ndarray):
        self.c_contiguous, self.f_contiguous = raw.flags.c_contiguous, raw.flags.f_contiguous
        self.owndata = raw.flags.owndata

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


class ndarray(Memory):
    """An array on the pretended device. It never turns into a NumPy array by itself."""

    __slots__ = ()
    __array_priority__ = 100
    __array_ufunc__: Any  # these two and the operators: operators.py
    __array_function__: Any
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, order: Any = "C"):
        self._a = numpy.empty(shape, supported(dtype), order or "C")

    # --- facts that the host knows without asking the device -------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self._a.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._a = self._a.reshape(shape, copy=False)

    @property
    def dtype(self) -> numpy.dtype:
        return self._a.dtype

    @property
    def ndim(self) -> int:
        return self._a.ndim

    @property
    def size(self) -> int:
        return self._a.size

    @property
    def itemsize(self) -> int:
        return self._a.itemsize

    @property
    def nbytes(self) -> int:
        return self._a.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        return self._a.strides

    @property
    def flags(self) -> Flags:
        return Flags(self._a)

    @property
    def base(self) -> "ndarray | None":
        return None if self._a.base is None else wrap(self._a.base)

    @property
    def T(self) -> "ndarray":
        return self if self._a.ndim < 2 else wrap(self._a.T)

    @property
    def mT(self) -> "ndarray":
        return wrap(self._a.mT)

    @property
    def real(self) -> "ndarray":
        return self if self._a.dtype.kind != "c" else wrap(self._a.real)

    @property
    def imag(self) -> "ndarray":
        return wrap(self._a.imag)

    def __len__(self) -> int:
        return len(self._a)

    # --- to the host: each waits for the device ----------------------------------------------

    def get(self, stream=None, order="C", out=None, blocking=True) -> numpy.ndarray:
        """A copy on the host."""
        counts.add(copies_out=1, synchronisations=1, bytes_out=self._a.nbytes)
        if out is None:
            return numpy.array(self._a, order=order)
        if not isinstance(out, numpy.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out.dtype != self._a.dtype or out.shape != self._a.shape:
            raise ValueError(f"out is {out.dtype} {out.shape}: {self.dtype} {self.shape} wanted")
        out[...] = self._a
        return out

    def item(self) -> Any:
        """The one element as a Python number."""
        if self._a.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.get().tolist()

    def tobytes(self, order="C") -> bytes:
        """The elements' bytes."""
        return self.get().tobytes(order)

    def __bool__(self) -> bool:
        if self._a.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. "
                "Use a.any() or a.all()"
            )
        if self._a.size == 0:
            warnings.warn(
                "The truth value of an empty array is ambiguous.", DeprecationWarning, stacklevel=2
            )
            return False
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __reduce__(self):
        return _copied_in, (self.get(order="A"),)

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    # --- elements -------------------------------------------------------------------------

    def __iter__(self):
        if self._a.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self._a)))

    def __getitem__(self, index: Any) -> "ndarray":
        return wrap(indexing.get(self._a, index))

    def __setitem__(self, index: Any, value: Any) -> None:
        indexing.put(self._a, index, value)

    def fill(self, value: Any) -> None:
        """Set every element to one number, a Python number or a 0-d array."""
        indexing.fill(self._a, value)

    def take(self, indices, axis=None, out=None) -> "ndarray":
        """The elements at the indices; those out of range wrap around."""
        raw = indexing.take(self._a, indices, axis)
        return wrap(raw) if out is None else store(raw, out)

    # --- copies and views -------------------------------------------------------------------

    def copy(self, order="C") -> "ndarray":
        """A copy on the device."""
        return wrap(self._a.copy(order))

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> "ndarray":
        return self.copy()

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True) -> "ndarray":
        """The values as another dtype; with copy=False the array itself where it has it."""
        if casting is not None or subok is not None:
            raise TypeError("casting and subok are not supported yet")
        dtype = supported(dtype)
        if not copy and dtype == self._a.dtype:
            return self
        return wrap(quiet.run(self._a.astype, dtype, order))

    def view(self, dtype=None, type=None) -> "ndarray":
        """The same memory, read as another dtype if one is given."""
        return wrap(self._a.view() if dtype is None else self._a.view(supported(dtype)))

    def reshape(self, *shape, order="C", copy=None) -> "ndarray":
        """The elements in another shape: the same memory where that can be."""
        options = {} if copy is None else {"copy": copy}
        return wrap(self._a.reshape(*shape, order=order, **options))

    def transpose(self, *axes) -> "ndarray":
        """The axes in another order: the same memory."""
        return wrap(self._a.transpose(*axes))

    def sort(self, axis=-1, kind=None) -> None:
        """Sort in place, stably."""
        stable(kind)
        self._a.sort(axis, "stable")


def store(raw: Any, out: Any) -> "ndarray":
    """Write a result into `out`, a device array of its shape and of a dtype that can hold it."""
    if type(out) is not ndarray:
        raise TypeError("Output arguments type must be cupy.ndarray")
    if out.shape != raw.shape:
        raise ValueError("Out shape is mismatched")
    numpy.copyto(out._a, raw, casting="same_kind")
    return out


def stable(kind: Any) -> None:
    """CuPy has one way to sort."""
    if kind not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")


def _copied_in(raw: numpy.ndarray) -> ndarray:
    return wrap(from_host(raw))
