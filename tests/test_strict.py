"""The stand-in for CuPy: one test for each way in which CuPy differs from NumPy.

figures/cupy_differences.md lists the differences, each with its test here. CuPy 14.2's source
is where they were read. The last tests hold the stand-in's tables to CuPy itself, where installed.
"""

import copy
import gc
import inspect
import json
import math
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from minigpt import strict as xp
from minigpt.strict import table
from minigpt.strict.calls import Signature
from minigpt.strict.counts import add as count

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "figures" / "cupy_differences.md").read_text("utf-8")


def vector(*numbers, dtype=float):
    return xp.asarray(np.array(numbers, dtype))


def assert_same(x, expected):
    """x is an array of the device with these values and, if told by NumPy, this dtype."""
    assert type(x) is xp.ndarray
    if isinstance(expected, np.ndarray | np.generic):
        assert x.dtype == expected.dtype
    assert np.array_equal(x.get(), expected, equal_nan=True), (x, expected)


# --- the border between host and device ----------------------------------------------------


CONVERSIONS = {
    "asarray": np.asarray,
    "array": np.array,
    "asarray with a dtype": lambda x: np.asarray(x, np.float32),
    "a scalar type": np.float64,
    "in a list": lambda x: np.array([x[0], 1.0]),
    "a host function": lambda x: np.random.default_rng(0).permutation(x),
    "assignment": lambda x: np.zeros(1).__setitem__(slice(None), x),
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_no_conversion_to_numpy_that_is_not_written_out(convert):
    with pytest.raises(TypeError, match=r"Implicit conversion.*Please use `\.get\(\)`"):
        convert(vector(1.0))
    assert type(vector(1.0).get()) is np.ndarray


MIXED = {
    "array + NumPy": lambda x, a: x + a,
    "NumPy + array": lambda x, a: a + x,
    "NumPy @ array": lambda x, a: a @ x,
    "array < NumPy": lambda x, a: x < a,
    "array == NumPy": lambda x, a: x == a,
    "array += NumPy": lambda x, a: x.__iadd__(a),
    "NumPy += array": lambda x, a: a.__iadd__(x),
    "0-d NumPy": lambda x, a: x * np.array(2.0),
    "ufunc": lambda x, a: xp.maximum(x, a),
    "ufunc of NumPy alone": lambda x, a: xp.exp(a),
    "NumPy's ufunc": lambda x, a: np.maximum(x, a),
    "function": lambda x, a: xp.sum(a),
    "where": lambda x, a: xp.where(x > 0, x, a),
    "condition": lambda x, a: xp.where(a > 0, x, x),
    "concatenate": lambda x, a: xp.concatenate([x, a]),
    "matmul": lambda x, a: xp.matmul(x, a),
    "einsum": lambda x, a: xp.einsum("i,i->", x, a),
    "out": lambda x, a: xp.exp(x, out=a),
    "out of NumPy's": lambda x, a: np.exp(x, out=a),
    "out of a sum": lambda x, a: xp.sum(x, out=a),
    "fill_value": lambda x, a: xp.full((2,), a),
    "repeats": lambda x, a: xp.repeat(x, a.astype(int)),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_numpy_arrays_do_not_mix_with_device_arrays(mix):
    with pytest.raises(TypeError):
        mix(vector(1, 2), np.array([1.0, 2.0]))


def test_results_are_stored_in_device_arrays():
    x, total, product = xp.ones((2, 3)), xp.zeros(3), xp.zeros((2, 2))
    assert xp.sum(x, axis=0, out=total) is total
    assert xp.matmul(x, x.T, out=product) is product
    assert_same(total, np.full(3, 2.0))
    assert_same(product, np.full((2, 2), 3.0))


def test_numbers_mix_and_promote_as_in_numpy():
    x = xp.ones(2, xp.float32)
    for number in (2, 2.0, True, np.float64(2), np.float32(2), np.int64(2), np.bool_(True)):
        for out, expected in (
            (x * number, x.get() * number),
            (number * x, number * x.get()),
            (xp.add(number, x), np.add(number, x.get())),
            (number - x, number - x.get()),
        ):
            assert_same(out, expected)
    assert_same(xp.exp(1.0), np.array(np.exp(1.0)))
    assert_same(xp.where(x > 1, x, 0), np.zeros(2, np.float32))
    for other in ("2", [2.0, 2.0], None, object(), np.longdouble(2)):
        with pytest.raises(TypeError):
            x * other


def test_lists_are_no_arrays():
    for call in (xp.sum, xp.exp, xp.concatenate, xp.reshape, xp.argsort):
        with pytest.raises(TypeError):
            call([1.0, 2.0])


def test_numpy_functions_of_a_device_array_run_on_the_device():
    x = vector(1, 2)
    with xp.counting() as counts:
        for call in (np.sum, np.exp, np.mean, np.sort, np.linalg.norm, np.zeros_like):
            assert type(call(x)) is xp.ndarray
        assert type(np.concatenate([x, x])) is xp.ndarray
        assert type(np.add.reduce(x)) is xp.ndarray
    assert counts == xp.Counts()
    for call in (np.spacing, np.apply_over_axes, np.block):  # CuPy has none of these
        with pytest.raises(TypeError):
            call(x)


def test_both_crossings_copy():
    a = np.zeros(3)
    for to_device in (xp.asarray, xp.array):
        x = to_device(a)
        a[0] += 1
        assert float(x[0]) == a[0] - 1
    for to_host in (xp.asnumpy, xp.ndarray.get):
        b = to_host(x)
        b[1] = 5
        assert float(x[1]) == 0
    assert xp.asarray(x) is x and xp.array(x) is not x and xp.array(x, copy=None) is x
    assert not xp.shares_memory(xp.array(x), x) and xp.shares_memory(x[1:], x)
    out = np.ones(3)
    assert x.get(out=out) is out and out[1] == 0


def test_copies_are_counted_with_their_bytes():
    x = np.zeros((2, 3), np.float32)
    with xp.counting() as counts:
        y = xp.asarray(x)
        y = y + xp.asarray(y)  # no copy: it is there already
        xp.asnumpy(y)
        y.get()
        xp.asnumpy(x)  # nor is this
        xp.asarray(3.0)  # a number goes with the kernel that writes it
        xp.asarray([1, 2])
    assert counts == xp.Counts(2, 2, 2, 24 + 16, 48)


WAITS = {
    "item": (lambda x: x.sum().item(), 1),
    "float": (lambda x: float(x.sum()), 1),
    "int": (lambda x: int(x.sum()), 1),
    "complex": (lambda x: complex(x.sum()), 1),
    "bool": (lambda x: bool(x.any()), 1),
    "if": (lambda x: 1 if x.any() else 0, 1),
    "tolist": (lambda x: x.tolist(), 1),
    "tobytes": (lambda x: x.tobytes(), 1),
    "repr": (repr, 1),
    "str": (str, 1),
    "format": (lambda x: f"{x.sum():.3f}", 1),
    "get": (lambda x: x.get(), 1),
    "asnumpy": (xp.asnumpy, 1),
    "pickle": (pickle.dumps, 1),
    "a mask": (lambda x: x[x > 1], 1),
    "writing through a mask": (lambda x: x.__setitem__(x > 1, 0), 1),
    "nonzero": (lambda x: x.nonzero(), 1),
    "flatnonzero": (xp.flatnonzero, 1),
    "argwhere": (xp.argwhere, 1),
    "where of one": (lambda x: xp.where(x > 1), 1),
    "unique": (xp.unique, 1),
    "bincount": (lambda x: xp.bincount(x.astype(int)), 1),
    "a loop over == ": (lambda x: 3.0 in x, 2),
    "len": (len, 0),
    "shape": (lambda x: (x.shape, x.dtype, x.size, x.nbytes), 0),
    "iteration": (lambda x: list(x), 0),
    "arithmetic": (lambda x: (x + 1).sum() / xp.exp(x) @ x, 0),
    "an element": (lambda x: x[1], 0),
    "an index array": (lambda x: x[xp.arange(2)], 0),
    "where of three": (lambda x: xp.where(x > 1, x, 0), 0),
    "sort": (lambda x: xp.sort(x)[xp.argsort(x)], 0),
    "copy": (lambda x: (copy.copy(x), copy.deepcopy(x), x.copy()), 0),
    "equality": (lambda x: xp.allclose(x, x), 0),
}


@pytest.mark.parametrize(("action", "expected"), WAITS.values(), ids=WAITS)
def test_waits_for_the_device_are_counted(action, expected):
    x = vector(1, 3)
    with xp.counting() as counts:
        action(x)
    assert counts.synchronisations == expected


def test_counts_add_up_over_threads():
    def work():
        for _ in range(500):
            count(copies_in=1)

    with xp.counting() as counts:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts.copies_in == 2000


def test_device_memory_is_counted_once_until_its_last_view_goes():
    gc.collect()  # what other tests left in cycles would go in the middle of this one
    before = xp.device_bytes()
    x = xp.zeros(1000)
    view = x[10:]
    assert xp.device_bytes() - before == 8000
    del x
    assert xp.device_bytes() - before == 8000
    del view
    assert xp.device_bytes() == before


# --- 0-d arrays in place of scalars --------------------------------------------------------


def test_reductions_give_0d_arrays():
    x = vector(1, 2)
    for out in (x.sum(), xp.mean(x), x.max(), x.argmax(), x.any(), xp.vdot(x, x), x @ x, x.std(),
                xp.allclose(x, x), xp.array_equal(x, x), xp.count_nonzero(x), x.dot(x),
                xp.einsum("i,i->", x, x), xp.linalg.norm(x), xp.trace(x[:, None])):  # fmt: skip
        assert type(out) is xp.ndarray and out.shape == ()


def test_single_elements_are_0d_arrays():
    x = vector(1, 2)
    assert x[0].shape == xp.exp(x[0]).shape == (x[0] + 1).shape == next(iter(x)).shape == ()
    x[0][()] = 5.0  # and a view of the element
    assert_same(x, [5.0, 2.0])


def test_a_0d_array_is_no_index():
    n = xp.asarray(2)
    for use in (range, [1, 2, 3].__getitem__, np.zeros, xp.zeros, "a".__mul__):
        with pytest.raises(TypeError):
            use(n)
    for use in (lambda x: x[:n], lambda x: x.sum(n), lambda x: xp.split(x, n)):
        with pytest.raises(TypeError):
            use(vector(1, 2, 3))
    assert_same(vector(1, 2, 3)[n], 3.0)  # as an index array it will do


def test_item_takes_no_index():
    with pytest.raises(TypeError):
        vector(1, 2).item(0)
    with pytest.raises(ValueError, match="size 1"):
        vector(1, 2).item()


def test_an_empty_array_is_false_with_a_warning():
    with pytest.warns(DeprecationWarning):
        assert not xp.zeros(0)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(xp.zeros(2))


# --- indices -------------------------------------------------------------------------------


def test_index_arrays_out_of_range_wrap():
    x, far = xp.arange(12).reshape(3, 4), vector(-4, 5, dtype=int)
    a, near = x.get(), [2, 2]
    assert_same(x[far], a[near])
    assert_same(x[:, far], a[:, [0, 1]])
    assert_same(x[..., far], a[:, [0, 1]])
    assert_same(x[None, far], a[None][:, near])
    assert_same(x[far, far], a[near, [0, 1]])
    assert_same(x[far[:, None], xp.arange(4)], a[near])
    assert_same(x[1, far], a[1, [0, 1]])
    assert_same(x.take(far), a.ravel()[[8, 5]])
    assert_same(xp.take(x, far, axis=0), a[near])
    assert_same(xp.take_along_axis(x, xp.full((3, 1), 7), 1), a[:, 3:])
    assert_same(x[xp.asarray(7)], a[1])
    x[vector(4, dtype=int)] = -1
    assert_same(x[1], np.full(4, -1))
    xp.add.at(x, vector(3, dtype=int), 10)
    assert_same(x[0], a[0] + 10)


@pytest.mark.parametrize("index", [3, -4, (0, 4), np.int64(3), (slice(None), -5), (0, 0, 0)])
def test_a_single_index_out_of_range_is_an_error_as_in_numpy(index):
    x = xp.zeros((3, 4))
    with pytest.raises(IndexError):
        x[index]
    with pytest.raises(IndexError):
        x[index] = 1.0


def test_nothing_can_be_taken_from_an_empty_axis():
    with pytest.raises(IndexError):
        xp.zeros((0, 2))[vector(0, dtype=int)]
    with pytest.raises(IndexError):
        xp.zeros(2)[vector(0.0)]  # no integer


def test_index_arrays_of_the_host_are_copied_in():
    x = vector(1, 2, 3)
    for index in (np.array([0, 2]), [0, 2], ([0, 2],)):
        with xp.counting() as counts:
            assert_same(x[index], [1.0, 3.0])
        assert counts.copies_in == 1
    assert_same(x[[]], np.zeros(0))


@pytest.mark.parametrize("dtype", [float, np.float32, complex, int, np.uint8, bool])
def test_which_of_several_writes_to_one_element_stays_is_undefined(dtype):
    x, idx = xp.zeros((4, 2), dtype), vector(1, 1, 2, dtype=int)
    values = xp.asarray(np.array([[1, 0], [0, 0], [1, 1]], dtype))
    x[idx] = values
    got = x.get()
    assert got[1, 0] not in (0, 1) or dtype is bool
    assert got[1, 0] != values.get()[1, 0]  # NumPy keeps the last
    assert np.array_equal(got[1:3, 1], [0, 1])  # no conflict: the same value twice, one value
    assert np.array_equal(got[[0, 3]], np.zeros((2, 2)))
    assert got[2, 0] == 1


def test_undefined_writes_are_found_behind_views_masks_and_several_indices():
    def undefined(x, index, values):
        x[index] = vector(*values)
        return int(xp.isnan(x).sum())

    i, j = vector(0, 0, 1, dtype=int), vector(2, 2, 2, dtype=int)
    assert undefined(xp.zeros((2, 3)), (i, j), (1, 2, 3)) == 1
    assert undefined(xp.zeros((3, 2)).T, (i, j), (1, 2, 3)) == 1
    assert undefined(xp.zeros((2, 6))[:, ::2], (slice(None), i), (1, 2, 3)) == 2
    assert undefined(xp.zeros((2, 3)), (i, vector(0, 3, 0, dtype=int)), (1, 2, 3)) == 1  # wraps
    assert undefined(xp.zeros(3), vector(0, 1, 2, dtype=int), (1, 2, 3)) == 0
    assert undefined(xp.zeros(3), xp.ones(3, bool), (1, 2, 3)) == 0
    x, counts = xp.zeros(2), vector(0, 0, dtype=int)
    x[counts] += vector(1, 2)  # a read, a sum, a write: not a sum over repeats
    assert np.isnan(float(x[0]))


def test_several_writes_of_one_value_are_defined():
    x, idx = xp.zeros(3), vector(1, 1, dtype=int)
    x[idx] = 2.0
    assert_same(x, [0.0, 2.0, 0.0])
    x[idx] = vector(np.nan, np.nan)
    assert_same(x, [0.0, np.nan, 0.0])


def test_add_at_sums_over_repeats():
    x = xp.zeros((3, 2))
    xp.add.at(x, vector(1, 1, 4, dtype=int), xp.ones((3, 2)))
    assert_same(x, [[0, 0], [3, 3], [0, 0]])


def test_numpy_arrays_are_assigned_only_through_an_index_array():
    x = xp.zeros(3)
    for index in (slice(None), slice(0, 2), ..., (slice(0, 3, 2),)):
        with pytest.raises(ValueError, match="cannot be used for fill"):
            x[index] = np.ones(3)
        with pytest.raises(ValueError, match="cannot be used for fill"):
            x[index] = [1.0, 2.0]
    x[0], x[1:], x[...] = 1, np.float32(2), np.array(3.0)  # numbers, and 0-d arrays
    assert_same(x, [3.0, 3.0, 3.0])
    x[vector(0, 1, dtype=int)] = np.array([7.0, 8.0])
    x[2:] = vector(9)
    assert_same(x, [7.0, 8.0, 9.0])
    with pytest.raises(ValueError, match="cannot be used for fill"):
        x.fill(np.ones(3))
    with pytest.raises(ValueError, match="cannot be used for fill"):
        x.fill(x)


# --- functions and keywords ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["errstate", "vecdot", "einsum_path", "longdouble", "object_", "str_", "matvec"]
)
def test_cupy_lacks(name):
    with pytest.raises(AttributeError, match=f"xp.{name}: "):
        getattr(xp, name)


def test_random_numbers_are_drawn_on_the_host():
    with pytest.raises(AttributeError, match="draw with a NumPy generator"):
        xp.random  # noqa: B018


REFUSED = {
    "sum(where=)": lambda x: x.sum(where=x > 0),
    "sum(initial=)": lambda x: xp.sum(x, initial=0),
    "max(initial=)": lambda x: x.max(initial=0),
    "mean(where=)": lambda x: xp.mean(x, where=x > 0),
    "any(where=)": lambda x: x.any(where=x > 0),
    "var(mean=)": lambda x: x.var(mean=x),
    "std(correction=)": lambda x: xp.std(x, correction=1),
    "exp(where=)": lambda x: xp.exp(x, where=x > 0),
    "exp(order=)": lambda x: xp.exp(x, order="C"),
    "clip(min=, max=)": lambda x: xp.clip(x, min=0, max=1),
    "clip(dtype=)": lambda x: xp.clip(x, 0, 1, dtype=float),
    "concatenate(axes=)": lambda x: xp.concatenate([x, x], axes=0),
    "array(like=)": lambda x: xp.array([1.0], like=x),
    "zeros(like=)": lambda x: xp.zeros(2, like=x),
    "zeros(device=)": lambda x: xp.zeros(2, device="cpu"),
    "broadcast_to(subok=)": lambda x: xp.broadcast_to(x, (2, 3), subok=True),
    "take(mode=)": lambda x: xp.take(x, x.argsort(), mode="clip"),
    "astype(casting=)": lambda x: x.astype(int, casting="unsafe"),
    "tril(k=1, m=)": lambda x: xp.tril(x, k=0, m=x),
    "einsum(order=)": lambda x: xp.einsum("i->", x, order="C"),
    "einsum(out=)": lambda x: xp.einsum("i->i", x, out=x),
    "two values": lambda x: xp.sum(x, 0, axis=0),
    "too many": lambda x: xp.squeeze(x, None, None),
    "a third for a ufunc": lambda x: xp.exp(x, x, x),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_keywords_that_cupy_does_not_take(call):
    with pytest.raises(TypeError):
        call(vector(1, 2, 3))


def test_clip_takes_both_bounds():
    x = vector(1, 3, 2)
    assert_same(xp.clip(x, None, 2), np.array([1.0, 2.0, 2.0]))
    assert_same(x.clip(max=2), np.array([1.0, 2.0, 2.0]))  # the method takes one
    for call in (lambda: xp.clip(x, 0), lambda: xp.clip(x), lambda: xp.clip(x, a_min=0)):
        with pytest.raises(TypeError):
            call()


def test_sorting_is_stable_and_of_no_other_kind():
    x = xp.asarray(np.arange(100) % 2)
    assert_same(xp.argsort(x), np.argsort(x.get(), kind="stable"))
    assert_same(x.argsort(), np.argsort(x.get(), kind="stable"))
    for kind in ("quicksort", "mergesort", "heapsort"):
        for sort in (lambda k: xp.argsort(x, kind=k), lambda k: xp.sort(x, kind=k),
                     lambda k: x.sort(kind=k), lambda k: x.argsort(kind=k)):  # fmt: skip
            with pytest.raises(ValueError, match="stable"):
                sort(kind)


def test_few_ufuncs_have_at_reduce_accumulate_and_reduceat():
    x = vector(1, 2, 3)
    idx = vector(0, 0, dtype=int)
    assert_same(xp.multiply.reduce(x), np.array(6.0))
    assert_same(xp.add.accumulate(x), np.cumsum(x.get()))
    for call in (
        lambda: xp.maximum.reduce(x),
        lambda: xp.maximum.accumulate(x),
        lambda: xp.maximum.reduceat(x, idx),
        lambda: xp.multiply.reduceat(x, idx),
        lambda: xp.multiply.at(x, idx, x[:2]),
        lambda: np.maximum.reduce(x),
    ):
        with pytest.raises(NotImplementedError, match="not supported yet"):
            call()
    with pytest.raises(TypeError, match="at does not support int8"):
        xp.add.at(x.astype(np.int8), idx, 1)
    assert_same(xp.subtract.outer(x, x[:2]), np.subtract.outer(x.get(), x.get()[:2]))


def test_reduceat_is_a_difference_of_running_sums():
    x = vector(1, 2, 3, 4)
    runs = [0, 2, 2, 1]  # a start not below the next gives its one element
    assert_same(xp.add.reduceat(x, xp.asarray(runs)), np.add.reduceat(x.get(), runs))
    two = xp.arange(12.0).reshape(2, 3, 2)
    for axis in (0, 1, 2, -1):
        idx = [0, 1]
        assert_same(
            xp.add.reduceat(two, xp.asarray(idx), axis), np.add.reduceat(two.get(), idx, axis)
        )
    starts = vector(0, 1, dtype=int)
    assert float(xp.add.reduceat(vector(1e17, 1), starts)[1]) == 0.0  # NumPy: 1
    assert np.isnan(float(xp.add.reduceat(vector(np.inf, 1), starts)[1]))  # NumPy: 1


def test_results_overflow_and_divide_by_zero_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = vector(0, 1e308)
        x * 10, 1 / x, xp.log(x - 1), x.sum() * 10, xp.exp(x), -x / 0  # noqa: B018
        x /= 0
        vector(np.nan).astype(int)
        xp.ones(2, int) // 0  # noqa: B018
    assert np.isinf(x.get()[1]) and np.isnan(x.get()[0])


# --- dtypes, flags, small things -----------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: xp.asarray("text"),
        lambda: xp.asarray([None]),
        lambda: xp.asarray(np.array([1, "a"], object)),
        lambda: xp.zeros(2, object),
        lambda: xp.zeros(2, "U3"),
        lambda: xp.zeros(2, np.longdouble),
        lambda: xp.zeros(2).astype(np.longdouble),
        lambda: xp.asarray(np.zeros(2, "datetime64[s]")),
        lambda: xp.arange(3, dtype=np.clongdouble),
    ],
)
def test_only_numbers_of_at_most_64_bits_a_part(make):
    with pytest.raises(ValueError, match="Unsupported dtype"):
        make()


def test_foreign_byte_order_is_turned():
    assert_same(xp.asarray(np.array([1, 2], ">i4")), np.array([1, 2], np.int32))


def test_no_array_is_read_only():
    x = xp.zeros(2)
    with pytest.raises(AttributeError):
        x.flags.writeable  # noqa: B018
    x.flags.writeable = False  # changes nothing
    x[0] = 1.0
    assert_same(x, [1.0, 0.0])
    y = xp.broadcast_to(xp.zeros(1), (2,))
    assert y.shape == (2,) and y.flags.c_contiguous is False
    assert x.flags["C_CONTIGUOUS"] is True


def test_lists_of_device_arrays_stack():
    x = vector(1, 2)
    with xp.counting() as counts:
        assert_same(xp.asarray([x[0], x[1]]), x.get())
        assert_same(xp.array([[x, x], [x, x]]), [[[1, 2]] * 2] * 2)
    assert counts.copies_in == 0
    with pytest.raises(TypeError, match="Implicit conversion"):
        xp.asarray([x[0], 1.0])


def test_operators_leave_room_for_others():
    class Other:
        __array_ufunc__ = None

        def __radd__(self, other):
            return "radd"

        def __rmatmul__(self, other):
            return "rmatmul"

        def __gt__(self, other):
            return "gt"

    class Higher:
        __array_priority__ = 101
        __radd__, __rmatmul__, __gt__ = Other.__radd__, Other.__rmatmul__, Other.__gt__

    x = vector(1, 2)
    for other in (Other(), Higher()):
        assert (x + other, x @ other, x < other) == ("radd", "rmatmul", "gt")
    with pytest.raises(TypeError):
        x - Other()
    assert_same(x == None, np.array([False, False]))  # noqa: E711
    assert_same(x != object(), np.array([True, True]))


def test_a_vector_is_its_own_transpose():
    x = vector(1, 2)
    assert x.T is x and x.real is x
    assert xp.zeros((2, 3)).T.shape == (3, 2)


def test_isclose_copies_from_the_host():
    x = vector(1, 2)
    with xp.counting() as counts:
        assert_same(xp.isclose(x, np.array([1.0, 3.0])), np.array([True, False]))
    assert counts.copies_in == 1
    with pytest.raises(TypeError):
        xp.array_equal(x, x.get())


# --- ElementwiseKernel ---------------------------------------------------------------------


def kernel(text, ins="T x, T y", outs="T z"):
    return xp.ElementwiseKernel(ins, outs, text, "name")


def test_kernels_want_one_dtype_a_letter():
    k = kernel("z = x + y")
    x = xp.ones((2, 1), xp.float32)
    assert_same(k(x, xp.ones(3, xp.float32)), np.full((2, 3), 2, np.float32))
    assert_same(k(x, 0.5), np.full((2, 1), 1.5, np.float32))  # a number takes the letter's
    out = xp.zeros((2, 1), xp.float32)
    assert k(x, x, out) is out and float(out[0, 0]) == 2
    for wrong in ((x, xp.ones(3)), (x,), (x, x.get()), (x, x, xp.zeros((2, 1))), (x, x, x.get())):
        with pytest.raises(TypeError):
            k(*wrong)
    with pytest.raises(ValueError, match="size"):
        k(1.0, 2.0)
    with pytest.raises(ValueError, match="mismatched"):
        k(x, x, xp.zeros(3, xp.float32))
    with pytest.raises(TypeError):
        kernel("z = x + y", "float32 x, T y")(xp.ones(2), xp.ones(2))


def test_kernels_compute_as_c_does():
    x = vector(-7, 7, dtype=np.int32)
    assert_same(kernel("z = x / y")(x, 2), np.array([-3, 3], np.int32))  # NumPy: -3.5, floored -4
    assert_same(kernel("z = x % y")(x, 4), np.array([-3, 3], np.int32))  # NumPy: 1, 3
    one = xp.ones(1, xp.float32)
    assert_same(kernel("z = 1 / 2 * x + y")(one, 0), np.zeros(1, np.float32))
    assert_same(kernel("z = x / 3 + y")(one, 0), np.ones(1, np.float32) / np.float32(3))
    third = kernel("z = 0.1f * x + y", outs="double z")(one, 0)
    assert_same(third, np.array([np.float32(0.1)], float))
    assert float(kernel("z = 0.1 * x + y", outs="double z")(one, 0)[0]) == 0.1
    t, u = kernel("T s = x * x; z = s + exp(-y); w = (z > 1) * erf(x)", outs="T z, T w")(one, 0.0)
    assert_same(t, np.full(1, 2, np.float32))
    assert float(u[0]) == pytest.approx(0.8427008, rel=1e-6)
    float_erf = kernel("z = erf(x) + y", outs="double z")(one, 0)  # of a float, a float
    assert_same(float_erf, np.array([math.erf(1)], np.float32).astype(float))


@pytest.mark.parametrize(
    "text", ["z = x ** 2", "z = x // y", "z = x < y < 1", "z = x[i]", "z = q", "z = x if y else 0",
             "z == x", "q = x", "z = True", "z = x and y"]
)  # fmt: skip
def test_kernels_that_the_stand_in_does_not_read(text):
    with pytest.raises(ValueError):
        kernel(text)(vector(1, 2), 1.0)


# --- the package on the stand-in -----------------------------------------------------------

STEP = """
import json
import math
import numpy as np
from minigpt import strict
from minigpt.functional import cross_entropy
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW, clip_grad_norm

found = []
for V, options in ((65, {}), (1500, {}), (65, {"position": "rope", "dropout": 0.1})):
    rng = np.random.default_rng(0)
    config = GPTConfig(vocab_size=V, block_size=8, n_layer=2, n_head=2, n_embd=8, **options)
    model = GPT(config, rng)
    optimizer = AdamW(model.parameters(), 1e-3)
    idx, targets = rng.integers(0, V, (2, 4, 8))
    with strict.counting() as step:
        optimizer.zero_grad()
        loss = cross_entropy(model(idx, rng), targets)
        loss.backward()
        norm = clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
    with strict.counting() as logged:
        loss.item(), float(norm)
    found.append((step.synchronisations, step.copies_out, logged.synchronisations))
print(json.dumps(found))
"""


def test_a_training_step_waits_only_to_log():
    done = subprocess.run(
        [sys.executable, "-c", STEP],
        env={**os.environ, "MINIGPT_BACKEND": "strict"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[0, 0, 2]] * 3


# --- the page, and CuPy itself -------------------------------------------------------------


def names_of_tests():
    return {name for name in globals() if name.startswith("test_")}


OF_THE_STAND_IN = {
    "test_a_training_step_waits_only_to_log",
    "test_counts_add_up_over_threads",
    "test_device_memory_is_counted_once_until_its_last_view_goes",
    "test_kernels_that_the_stand_in_does_not_read",
    "test_the_page_names_each_test",
    "test_cupy_has_all_that_the_stand_in_offers",
    "test_cupy_s_arrays_have_all_that_the_stand_in_s_have",
    "test_cupy_s_ufuncs_are_the_stand_in_s",
}


def test_the_page_names_each_test():
    rows = re.findall(r"^\|(.*)\|(.*)\| `(\w+)` \|$", PAGE, re.MULTILINE)
    heads = PAGE.count("|---|---|---|")
    assert len(rows) == PAGE.count("\n|") - 2 * heads  # every line of a table is such a row
    assert {name for _, _, name in rows} == names_of_tests() - OF_THE_STAND_IN


def test_cupy_has_all_that_the_stand_in_offers():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed to compare with")
    for lines, module in ((table.FUNCTIONS, cupy), (table.LINALG, cupy.linalg)):
        for name, line in lines.items():
            if name == "matmul":
                line = line.removeprefix("@a @b out *") + " out"
            mine = Signature(line)
            parameters = inspect.signature(getattr(module, name)).parameters
            by_position = [k for k, p in parameters.items() if p.kind <= p.POSITIONAL_OR_KEYWORD]
            if name != "matmul":
                assert mine.positional == by_position[: len(mine.positional)], name
            if "kwargs" not in parameters:
                assert mine.checks.keys() <= parameters.keys(), name
    for call in xp.functions.OWN:
        theirs = getattr(cupy, call.__name__)
        if not inspect.isbuiltin(theirs) and call.__name__ != "meshgrid":  # **kwargs there
            assert list(inspect.signature(call).parameters) == list(
                inspect.signature(theirs).parameters
            ), call.__name__
    for name in table.SAME.split():
        assert hasattr(cupy, name), name
    assert not hasattr(cupy, "errstate") and not hasattr(cupy, "vecdot")


def test_cupy_s_arrays_have_all_that_the_stand_in_s_have():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed to compare with")
    assert {*dir(xp.ndarray)} - {*dir(cupy.ndarray)} <= {"_a", "__weakref__", "__annotations__"}
    for name, line in table.METHODS.items():
        theirs = re.search(r"\((.*)\)", getattr(cupy.ndarray, name).__doc__)[1].split(", ")[1:]
        theirs = [word.split("=")[0].split()[-1] for word in theirs]
        assert Signature(line).positional == theirs[: len(Signature(line).positional)], name
    assert "__index__" not in dir(cupy.ndarray) and "__array__" in dir(cupy.ndarray)


def test_cupy_s_ufuncs_are_the_stand_in_s():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed to compare with")
    for name in table.UFUNCS.split():
        theirs, mine = getattr(cupy, name), getattr(xp, name)
        assert type(theirs) is cupy.ufunc, name
        assert (mine.nin, mine.nout) == (theirs.nin, theirs.nout), name
        assert (theirs._scatter_op is not None) == (mine.__name__ in table.AT), name
    for attribute in ("at", "reduce", "accumulate", "reduceat", "outer"):
        mine = list(inspect.signature(getattr(xp.ufunc, attribute)).parameters)
        theirs = getattr(cupy.ufunc, attribute).__doc__.split("\n")[0]
        assert ", ".join(mine) == re.sub(r"=\w+", "", re.search(r"\((.*)\)", theirs)[1]).replace(
            "**", ""
        )
