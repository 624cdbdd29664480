"""What every claim needs before a witness is heard: its arguments, and what its functions return.

Arguments are read-only and float64. Functions return real, finite numbers, the same on two calls.
What is not so is refused, with the claim's name and the reason.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minigpt.verify.claims import Claim, Row
from minigpt.witness import EPS

CAP = 1e-6  # a witness that is uncertain by a larger share is not heard
Found = tuple[list[Row], list[str]]  # what a hearing gives: rows and notes
_WHY_FLOAT64 = (
    "check in float64, where rounding is 1e-16 of a value; "
    "in float32 it is 1e-7, as large as the errors looked for"
)


def prepared(claim: Claim, arrays: Any) -> list[Any]:
    """Read-only copies of the arguments, which must be float64, or are left alone.

    Integers, booleans and what is no array at all are passed on as they are, never differentiated.
    """
    return [_prepared(claim, n, a) for n, a in zip(claim.inputs, arrays, strict=True)]


def _prepared(claim: Claim, name: str, given: Any) -> Any:
    if given is None or isinstance(given, bool | int | str):
        return given
    array = np.array(given)
    if array.dtype.kind in "fc" and array.dtype != np.float64:
        raise ValueError(f"{claim.name}: {name} is {array.dtype}: {_WHY_FLOAT64}")
    array.flags.writeable = False
    return array


def is_float(array: Any) -> bool:
    """True for an argument that is differentiated."""
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


def call(claim: Claim, who: str, function: Callable, *args: Any) -> Any:
    """function(*args); what it raises becomes a ValueError that names the claim and who raised."""
    try:
        with np.errstate(all="ignore"):
            return function(*args)
    except Exception as error:
        words = f"{claim.name}: {who} raised {type(error).__name__}: {error}"
        raise ValueError(words) from error


def result(claim: Claim, who: str, out: Any) -> np.ndarray:
    """What a function returned, as an array of real numbers."""
    try:
        array = np.asarray(out)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        what = type(out).__name__ if array.dtype == object else f"an array of {array.dtype}"
        raise ValueError(f"{claim.name}: {who} must return real numbers in one array, got {what}")
    if array.dtype.kind == "f" and array.dtype != np.float64:
        raise ValueError(f"{claim.name}: {who} is {array.dtype}: {_WHY_FLOAT64}")
    return array


def finite(claim: Claim, who: str, array: np.ndarray) -> np.ndarray:
    """The array, or a ValueError that says where it is not finite."""
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{claim.name}: {who} is {array[index]} at index {list(index)}: give finite values, "
            "or draw from f's domain with Input(shape, low, high)"
        )
    return array


def value(claim: Claim, who: str, function: Callable, arrays: list[Any]) -> np.ndarray:
    """function(*arrays), the same on two calls, as an array."""
    first, second = (result(claim, who, call(claim, who, function, *arrays)) for _ in range(2))
    if not np.array_equal(first, second, equal_nan=True):
        raise ValueError(
            f"{claim.name}: two calls of {who} differ: fix its generator, or it cannot be checked"
        )
    return first


def moved(arrays: list[Any]) -> list[Any]:
    """The arguments moved by a few roundings: what this changes, no claim can be held to."""
    rng = np.random.default_rng(0)
    return [a * (1 + 4 * EPS * rng.choice([-1.0, 1.0], a.shape)) if is_float(a) else a
            for a in arrays]  # fmt: skip
