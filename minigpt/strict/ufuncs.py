"""Elementwise functions: a number or a device array in, a device array out.

CuPy's ufuncs take out=, dtype= and casting=, no where=. Few have at, reduce, accumulate, reduceat.
"""

from typing import Any

import numpy

from minigpt.strict.device import ndarray, store, wrap
from minigpt.strict.indexing import add_at
from minigpt.strict.memory import Memory, operand, quiet, supported
from minigpt.strict.table import ACCUMULATE, AT, REDUCE, UFUNCS


class ufunc:
    """NumPy's ufunc of the same name under CuPy's rules."""

    __slots__ = ("name", "__name__", "nin", "nout", "nargs", "_call")

    def __init__(self, name: str):
        self._call = getattr(numpy, name)
        self.__name__ = self._call.__name__
        self.name = f"cupy_{self.__name__}"
        self.nin, self.nout, self.nargs = self._call.nin, self._call.nout, self._call.nargs

    def __repr__(self) -> str:
        return f"<ufunc {self.name!r}>"

    def __call__(self, *args, **kwargs) -> Any:
        if kwargs or len(args) != self.nin:
            return self._with_options(args, **kwargs)
        return wrap(quiet.run(self._call, *[operand(x) for x in args]))

    def _with_options(self, args, out=None, dtype=None, casting="same_kind", **wrong) -> Any:
        if wrong:
            raise TypeError(f"Wrong arguments {wrong}")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)}")
        if len(args) > self.nin:
            if out is not None:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            args, out = args[: self.nin], args[self.nin :]
        options: dict[str, Any] = {"casting": casting}
        if dtype is not None:
            options["dtype"] = supported(dtype)
        if out is None:
            return wrap(quiet.run(self._call, *map(operand, args), **options))
        outs = out if isinstance(out, tuple) else (out,)
        if len(outs) != self.nout:
            raise ValueError("'out' must be a tuple with one array per output")
        if any(type(o) is not ndarray for o in outs if o is not None):
            raise TypeError("Output arguments type must be cupy.ndarray")
        memory = tuple(None if o is None else o._a for o in outs)
        raw = quiet.run(self._call, *map(operand, args), out=memory, **options)
        raws = raw if self.nout > 1 else (raw,)
        given = tuple(wrap(r) if o is None else o for r, o in zip(raws, outs, strict=True))
        return given if self.nout > 1 else given[0]

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """a[indices] = f(a[indices], b), each repeated index counting."""
        if self.__name__ not in AT:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        if a.dtype.char not in AT[self.__name__]:
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype}")
        add_at(self._call, a._a, indices, b)

    def reduce(self, array: ndarray, axis=0, dtype=None, out=None, keepdims=False) -> ndarray:
        """Sums (add) or products (multiply) along an axis."""
        return self._by_method(REDUCE, "reduce", array)(axis, dtype, out, keepdims)

    def accumulate(self, array: ndarray, axis=0, dtype=None, out=None) -> ndarray:
        """Running sums (add) or products (multiply) along an axis."""
        return self._by_method(ACCUMULATE, "accumulate", array)(axis, dtype, out)

    def _by_method(self, known: dict[str, str], what: str, array: ndarray) -> Any:
        if self.__name__ not in known:
            raise NotImplementedError(f"`{self.name}.{what}` is not supported yet")
        if not isinstance(array, Memory):
            raise TypeError(f"a cupy.ndarray is wanted, not {type(array)}")
        return getattr(array, known[self.__name__])

    def reduceat(self, array: ndarray, indices: Any, axis=0, dtype=None, out=None) -> ndarray:
        """Sums over runs that start at the indices: as CuPy, differences of one running sum.

        So a run's rounding error is that of all that came before it, and one inf spoils the rest.
        """
        if self.__name__ != "add":
            raise NotImplementedError(f"`{self.name}.reduceat` is not supported yet")
        raw, starts = operand(array), operand(indices)
        ends = numpy.append(starts[1:], raw.shape[axis])
        sums = quiet.run(raw.cumsum, axis, dtype)
        sums = numpy.concatenate([numpy.zeros_like(sums.take([0], axis)), sums], axis)
        runs = quiet.run(
            numpy.subtract, sums.take(ends, axis, mode="wrap"), sums.take(starts, axis, mode="wrap")
        )
        single = (starts >= ends).reshape(-1, *[1] * (raw.ndim - axis % raw.ndim - 1))
        raw = numpy.where(single, raw.take(starts, axis, mode="wrap"), runs)
        return wrap(raw) if out is None else store(raw, out)

    def outer(self, A: Any, B: Any, **kwargs) -> Any:
        """f(a, b) for each a in A and b in B."""
        A, B = (x if isinstance(x, Memory) else wrap(operand(x)) for x in (A, B))
        return self(A.reshape(A.shape + (1,) * B.ndim), B, **kwargs)


ALL = {name: ufunc(name) for name in UFUNCS.split()}
