"""Where float16 is too narrow: sums, squares and exponentials of half arrays, in float32.

A number of float16 has 11 bits, at most 65,504, and no less than 6e-8. So a square overflows from
256 on, an eps of 1e-8 is 0, and a sum that has come to 2,048 does not notice a 1. What is stored
may be half; what is squared or added up should not be. Three kinds of sums, each in its own way:

- a product of matrices adds up in float32 by itself, in NumPy's loops as in cuBLAS by CuPy, so the
  row and column sums of backend.py, which are products with ones, do too;
- what adds element by element is told to (backend.sums, backend.scatter_add);
- a primitive that needs it throughout has the decorator of this file.
Source: Micikevicius et al. 2018, arXiv:1710.03740, sec. 3.3.
"""

from collections.abc import Callable
from functools import wraps

from minigpt.backend import xp

HALF = xp.dtype("float16")


def in_float32(forward: Callable) -> Callable:
    """A decorator of a primitive's forward: on half arrays it computes in float32, both ways.

    The result is half again, and each gradient of its argument's dtype. Other dtypes pass through.
    The vjp computes anew what it needs: kept, it would take the memory that float16 is to save.
    """

    @wraps(forward)
    def wide(*arrays, **options):
        if getattr(arrays[0], "dtype", None) != HALF:
            return forward(*arrays, **options)

        def computed():
            return forward(*(x.astype("float32") for x in arrays), **options)

        def vjp(g):
            _, vjp = computed()
            g = g.astype("float32")
            gradients = vjp(g) if callable(vjp) else [f(g) for f in vjp]
            return [dx.astype(x.dtype) for dx, x in zip(gradients, arrays, strict=True)]

        return computed()[0].astype(HALF), vjp

    return wide
