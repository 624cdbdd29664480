"""The numerical witnesses: right where they speak, silent where they cannot know."""

import numpy as np
import pytest

from minigpt import lab, witness
from minigpt.witness import (
    NotAnalytic,
    adjoint_slope,
    complex_slope,
    gradient,
    is_linear,
    rel_error,
    size_of,
    slope,
    spread,
    worst_index,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal(6)


def test_lab_uses_the_same_functions():
    for name in ("rel_error", "central_differences", "complex_step"):
        assert getattr(lab, name) is getattr(witness, name)


def test_rel_error_takes_tensors_and_what_lies_on_a_gpu():
    class OnGpu:
        """As CuPy's arrays: NumPy may not convert them, and get() copies them to the host."""

        def get(self):
            return np.array([1.0, 2.0])

        def __array__(self, *_, **__):
            raise TypeError("implicit conversion")

    assert rel_error(lab.Tensor(OnGpu().get()), OnGpu()) == 0.0
    assert rel_error(np.float64(2.0), 1.0) == 0.5


def test_a_direction_hides_no_entry():
    u = spread(np.random.default_rng(0), (100, 100))
    assert np.abs(u).min() >= 0.5 and np.abs(u).max() <= 1.5
    assert 0.4 < (u > 0).mean() < 0.6
    assert spread(RNG, ()).shape == ()


# --- differences ------------------------------------------------------------------------------

SMOOTH = {  # f, its derivative, the points
    "exp": (np.exp, np.exp, X),
    "exp, steep": (lambda x: np.exp(8 * x), lambda x: 8 * np.exp(8 * x), X),
    "tanh, steep": (lambda x: np.tanh(100 * x), lambda x: 100 / np.cosh(100 * x) ** 2, X / 50),
    "log near 0": (np.log, lambda x: 1 / x, np.abs(X) / 100 + 1e-4),
    "sqrt near 0": (np.sqrt, lambda x: 0.5 / np.sqrt(x), np.abs(X) / 100 + 1e-4),
    "large": (lambda x: x**2, lambda x: 2 * x, 1e6 * X),
    "waves on a small scale": (lambda x: np.sin(1e4 * x), lambda x: 1e4 * np.cos(1e4 * x), X),
    "tiny arguments": (lambda x: x / (1e-6 + np.abs(x)), lambda x: 1e-6 / (1e-6 + np.abs(x)) ** 2,
                       1e-6 * X),
    "relu near 0": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, np.array([1e-6, -1e-6])),
    "third power of |x|": (lambda x: np.abs(x) ** 3, lambda x: 3 * x * np.abs(x), X),
    "x |x| at 0": (lambda x: x * np.abs(x), lambda x: 2 * np.abs(x), np.array([0.0, 1.0])),
}  # fmt: skip


@pytest.mark.parametrize("f, derivative, x", SMOOTH.values(), ids=SMOOTH)
@pytest.mark.parametrize("seed", range(20))
def test_differences_know_the_derivative_and_their_own_error(f, derivative, x, seed):
    u = spread(np.random.default_rng(seed), x.shape)
    found = slope(lambda t: f(x + t * u), size_of(x))
    true = float((derivative(x) * u).sum())
    scale = np.abs(derivative(x)).max()
    assert found.kink == 0
    assert abs(found.value - true) <= 10 * found.error + 1e-9 * scale  # judged to 1e-8
    assert found.error <= 1e-6 * scale


KINKS = {  # f, x, the entry, the bend
    "relu at 0": (lambda x: np.maximum(x, 0), [1.0, 0.0, -1.0], 1),
    "abs at 0, beside curvature": (lambda x: np.exp(3 * x) + np.abs(x), [1.0, 2.0, 0.0], 2),
    "hinge": (lambda x: np.maximum(0, 1 - x), [1.0, 0.3, 2.0], 0),
    "norm at 0": (lambda x: np.sqrt(x * x), [0.5, 0.0], 1),
    "a small kink": (lambda x: np.sin(x) + 1e-3 * np.abs(x), [0.5, 0.0], 1),
}


@pytest.mark.parametrize("f, x, entry", KINKS.values(), ids=KINKS)
@pytest.mark.parametrize("summed", [False, True])
def test_a_kink_is_found_and_where(f, x, entry, summed):
    x = np.array(x)

    def phi(z):
        return f(z).sum(keepdims=True) if summed else f(z)

    for seed in range(5):
        u = spread(np.random.default_rng(seed), x.shape)
        assert slope(lambda t, u=u: phi(x + t * u)).kink != 0
        bend = worst_index(lambda v: slope(lambda t: phi(x + t * v)).kink, u)
        assert bend == (entry,)


def test_a_tie_of_max_is_a_kink():
    x = np.array([1.0, 3.0, 3.0, 2.0])
    found = worst_index(lambda v: slope(lambda t: (x + t * v).max(keepdims=True)).kink, np.ones(4))
    assert found in {(1,), (2,)}
    assert slope(lambda t: (x + t * np.array([1.0, 1, -1, 1])).max(keepdims=True)).kink == 2.0


def test_a_jump_is_no_slope():
    x = np.array([0.0, 1.0])
    found = slope(lambda t: np.sign(x + t))
    assert not found.error < 1  # it does not settle


@pytest.mark.parametrize("value", [1e6, 1e12, 1e15, 1e20])
def test_a_slope_lost_in_rounding_is_not_believed(value):
    """Small steps change nothing, and would say 0 with certainty."""
    for measure in (slope, complex_slope):
        found = measure(lambda t: value + np.abs(X + t))
        assert abs(found.value - np.sign(X).sum()) <= 10 * found.error


def test_outside_the_domain_there_is_no_slope():
    assert not np.isfinite(slope(lambda t: np.log(np.array([0.0]) + t)).error)


def test_of_262144_entries_one_kink_is_found_in_few_questions():
    x = np.random.default_rng(0).standard_normal((512, 512))
    x[100, 300] = 0
    asked = []

    def bend(v):
        asked.append(1)
        return slope(lambda t: np.maximum(x + t * v, 0).reshape(-1), size_of(x)).kink

    assert worst_index(bend, spread(RNG, x.shape)) == (100, 300)
    assert len(asked) <= 19


# --- the complex step -------------------------------------------------------------------------

ANALYTIC = {
    "exp": (np.exp, np.exp),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "powers": (lambda x: x**3 - x**0.5, lambda x: 3 * x**2 - 0.5 * x**-0.5),
    "log1p": (np.log1p, lambda x: 1 / (1 + x)),
    "relu, away from 0": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "softmax's maximum": (lambda x: np.exp(x - x.max()), None),
    "a constant": (lambda x: np.ones(6), lambda x: 0 * x),
    "steep": (lambda x: np.tanh(30 * x), lambda x: 30 / np.cosh(30 * x) ** 2),
}


@pytest.mark.parametrize("f, derivative", ANALYTIC.values(), ids=ANALYTIC)
def test_the_complex_step_is_exact_where_the_function_is_analytic(f, derivative):
    x, u = np.abs(X) + 0.1, spread(RNG, X.shape)
    found = complex_slope(lambda t: f(x + t * u))
    assert found.error <= 1e-10 * max(1, abs(found.value))
    if derivative:
        true = (derivative(x) * u).sum()
        assert abs(found.value - true) <= 1e-13 * max(1, abs(true))


NOT_ANALYTIC = {  # the complex step would be wrong, and says nothing
    "abs": np.abs,
    "norm": lambda x: np.linalg.norm(x),
    "var": np.var,
    "times its conjugate": lambda x: (x * x.conj()).real,
    "real part": lambda x: np.sin(x.real),
    "a little abs beside much else": lambda x: np.exp(x) + 1e-4 * np.abs(x),
    "log of the absolute determinant": lambda x: np.linalg.slogdet(np.diag(x))[1],
}


@pytest.mark.parametrize("f", NOT_ANALYTIC.values(), ids=NOT_ANALYTIC)
def test_a_function_that_is_not_analytic_is_found_out(f):
    u = spread(RNG, X.shape)
    wrong = complex_slope(lambda t: np.asarray(f(X + t * u)))
    right = slope(lambda t: np.asarray(f(X + t * u)).reshape(-1)).value
    assert abs(wrong.value - right) > 1e-5  # so it must not be believed
    assert wrong.error > 0.3 * abs(wrong.value - right)


def into_floats(x):
    out = np.zeros(6)
    out[...] = x
    return out


REFUSED = {
    "float()": lambda x: np.full(6, float(x[0])),
    "a float array": into_floats,
    "arctan2": lambda x: np.arctan2(x, 1.0),
    "floor": np.floor,
}


@pytest.mark.parametrize("f", REFUSED.values(), ids=REFUSED)
def test_a_function_that_takes_no_complex_numbers_is_not_asked(f):
    with pytest.raises(NotAnalytic, match="TypeError|ComplexWarning"):
        complex_slope(lambda t: f(X + t))


# --- the adjoint ------------------------------------------------------------------------------

A = RNG.standard_normal((4, 6))
LINEAR = {
    "a matrix": lambda x: A @ x,
    "affine": lambda x: A @ x + 1000,
    "cumsum": np.cumsum,
    "a constant": lambda x: np.ones(3),
    "fft, real part": lambda x: np.fft.fft(x).real,
}
NOT_LINEAR = {
    "relu": lambda x: np.maximum(x, 0),
    "abs": np.abs,
    "square": lambda x: x**2,
    "almost": lambda x: A @ x + 1e-9 * x.sum() ** 2,
    "max": lambda x: x.max(keepdims=True),
    "raises": lambda x: np.linalg.inv(x),
    "not finite at 0": lambda x: x / x.sum(),
}


@pytest.mark.parametrize("f", LINEAR.values(), ids=LINEAR)
def test_a_linear_map_is_known(f):
    assert all(is_linear(f, X, np.random.default_rng(seed)) for seed in range(20))
    u = spread(RNG, X.shape)
    found, other = adjoint_slope(f, u), slope(lambda t: np.asarray(f(X + t * u)))
    assert abs(found.value - other.value) <= 10 * (found.error + other.error)
    assert found.error < 1e-11


@pytest.mark.parametrize("f", NOT_LINEAR.values(), ids=NOT_LINEAR)
def test_a_map_that_is_not_linear_is_known(f):
    assert not any(is_linear(f, X, np.random.default_rng(seed)) for seed in range(20))


@pytest.mark.parametrize("f", [np.abs, lambda x: np.maximum(x, 0)])
def test_one_number_is_not_taken_for_linear_by_its_sign(f):
    x = np.array(1.0)
    assert not any(is_linear(f, x, np.random.default_rng(seed)) for seed in range(50))


# --- where ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8, 8), (9, 8), (64, 64), (512, 512)])
def test_one_bad_entry_is_found_in_few_questions(shape):
    rng = np.random.default_rng(1)
    bad = tuple(int(rng.integers(n)) for n in shape)
    error, asked = np.zeros(shape), []
    error[bad] = 1e-7

    def residual(v):
        asked.append(1)
        return float((error * v).sum()) + 1e-11 * rng.normal()

    assert worst_index(residual, spread(rng, shape)) == bad
    assert len(asked) <= max(64, 20)


def test_of_many_bad_entries_one_of_the_worse_is_found():
    error = np.full((64, 64), 1e-6)
    error[5, 6] = 1.0
    assert worst_index(lambda v: float((error * v).sum()), spread(RNG, error.shape)) == (5, 6)


def test_a_nan_is_the_worst():
    error = np.array([1.0, np.nan, 5.0])
    assert worst_index(lambda v: float((error * v)[v != 0].sum()), np.ones(3)) == (1,)


@pytest.mark.parametrize("f", NOT_ANALYTIC.values(), ids=NOT_ANALYTIC)
def test_a_gradient_takes_no_complex_step_that_differences_do_not_confirm(f):
    got = gradient(lambda x: np.asarray(f(x)), X, RNG)
    want = [slope(lambda t, u=u: np.asarray(f(X + t * u)).reshape(-1)).value for u in np.eye(6)]
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-7)


def test_the_gradient_entry_by_entry():
    for f, derivative, tolerance in (
        (np.exp, np.exp, 1e-15),
        (lambda x: np.abs(x) ** 3, lambda x: 3 * x * np.abs(x), 1e-9),
    ):
        got = gradient(f, X.reshape(2, 3), RNG)
        assert rel_error(got, derivative(X.reshape(2, 3))) < tolerance
