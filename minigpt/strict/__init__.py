"""A stand-in for CuPy over NumPy: what MINIGPT_BACKEND=strict makes of `backend.xp`.

It keeps CuPy's rules where they differ from NumPy's, so that code which runs on it may be expected
to run on a GPU: no conversion to or from NumPy that is not written out, 0-d arrays where NumPy
gives scalars, only the functions and keywords that CuPy has. And it counts what a GPU's speed
depends on, copies and waits. figures/cupy_differences.md lists the rules with their tests.
"""

from typing import Any

import numpy

from minigpt.strict import functions, operators, table, ufuncs
from minigpt.strict.counts import Counts, counting
from minigpt.strict.device import ndarray
from minigpt.strict.kernels import ElementwiseKernel
from minigpt.strict.memory import device_bytes

__all__ = ["Counts", "ElementwiseKernel", "counting", "device_bytes", "linalg", "ndarray", "ufunc"]
__version__ = f"for CuPy 14.2, over NumPy {numpy.__version__}"
ufunc = ufuncs.ufunc


class _Linalg:
    """xp.linalg: a few functions."""

    def __init__(self):
        vars(self).update(operators.LINALG)


linalg = _Linalg()
globals().update({name: getattr(numpy, name) for name in table.SAME.split()})
globals().update(functions.FUNCTIONS)
globals().update(ufuncs.ALL)


def __getattr__(name: str) -> Any:
    why = {
        "random": "draw with a NumPy generator on the host and copy: CuPy draws other numbers",
        "errstate": "CuPy has none, and never warns",
    }
    raise AttributeError(f"xp.{name}: {why.get(name, 'not in strict/table.py; has CuPy got it?')}")


__name__ = "strict"
