"""The error function, which is not among NumPy's functions, nor CuPy's of the same names."""

import math
from typing import Any

from minigpt.backend import xp

STEP = 1 / 64
TABLE = [math.erf(i * STEP) for i in range(-384, 385)]  # beyond +-6 it is +-1 to 2e-17


def erf(x: Any) -> Any:
    """2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x, to about 1e-15.

    Shapes: x any, float -> the same.
    The Taylor series in d = x - a around the nearest point a of a table of math.erf, |d| <= 1/128.
    The n-th derivative of exp(-a**2) is (-1)**n H_n(a) exp(-a**2), H_n Hermite's polynomials, so
    erf(a + d) = erf(a) + 2/sqrt(pi) exp(-a**2) * sum of (-1)**n H_n(a) d**(n+1) / (n+1)!
    Source: Abramowitz & Stegun 1964, 7.1.19 and 22.7.13.
    """
    x = xp.clip(x, -6, 6)
    i = xp.rint(x / STEP)
    a = i * x.dtype.type(STEP)
    d = x - a
    older, hermite, term, series = xp.zeros_like(a), xp.ones_like(a), d, d
    for n in range(1, 7):
        older, hermite = hermite, 2 * (a * hermite - (n - 1) * older)
        term = term * -d / (n + 1)
        series = series + hermite * term
    row = xp.nan_to_num(i).astype(int) + len(TABLE) // 2  # a NaN stays one through a
    return (
        xp.asarray(TABLE, dtype=x.dtype)[row] + (2 / math.sqrt(math.pi)) * xp.exp(-a * a) * series
    )
