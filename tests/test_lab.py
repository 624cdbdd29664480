"""The chapters' helpers: a check that can fail, errors that cannot hide, witnesses at odds."""

import numpy as np
import pytest

from minigpt import functional as F
from minigpt import lab, reference

RNG = np.random.default_rng(0)


def test_check_prints_what_it_measured(capsys):
    lab.check("small", np.array([1e-13, 3e-13]), at_most=1e-12)
    lab.check("large", [0.7, 0.6], at_least=0.5)
    assert capsys.readouterr().out == "check small: 3e-13 <= 1e-12\ncheck large: 0.6 >= 0.5\n"


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        (2.0, {"at_most": 1.0}),
        ([0.0, 2.0], {"at_most": 1.0}),
        ([2.0, 0.0], {"at_least": 1.0}),
        (np.nan, {"at_most": 1.0}),
        ([np.nan, 0.0], {"at_most": 1.0}),
        (np.nan, {"at_least": 1.0}),
        (np.inf, {"at_most": 1.0}),
    ],
)
def test_check_fails_by_name(value, bound, capsys):
    with pytest.raises(lab.CheckFailed, match="check 'claim': .* is not"):
        lab.check("claim", value, **bound)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "bounds"), [(1.0, {}), (1.0, {"at_most": 1.0, "at_least": 1.0}), ([], {"at_most": 1})]
)
def test_check_wants_one_bound_and_a_value(value, bounds):
    with pytest.raises(ValueError, match="check 'claim'"):
        lab.check("claim", value, **bounds)


@pytest.mark.parametrize("on_host", [True, False])
def test_checks_of_numpy_alone_say_why_they_do_not_run(on_host, monkeypatch, capsys):
    monkeypatch.setattr(lab, "on_host", on_host)
    assert lab.numpy_only("no pages here", "faults", "pages") is on_host
    lines = ["check faults: not run: no pages here", "check pages: not run: no pages here"]
    assert capsys.readouterr().out.splitlines() == ([] if on_host else lines)


def test_rel_error():
    assert lab.rel_error([1.0, 4.0], [1.0, 5.0]) == 0.2
    assert lab.rel_error([0.0], [0.0]) == 0.0
    assert lab.rel_error([0.0, 0.0], [0.0, 1e-9]) == 1.0
    assert np.isnan(lab.rel_error([np.nan], [1.0]))
    with pytest.raises(ValueError, match="shapes differ"):
        lab.rel_error(np.ones(3), np.ones((3, 1)))


def test_show_table_aligns(capsys):
    lab.show_table(["name", "error"], [["a", 1e-12], ["longer", None], ["b", 3]])
    assert capsys.readouterr().out.splitlines() == [
        "name     error",
        "a        1e-12",
        "longer       -",
        "b            3",
    ]


def test_differences_and_complex_step_know_a_derivative():
    x = RNG.normal(size=(2, 3))
    for derivative in (lab.central_differences, lab.complex_step):
        got = derivative(lambda x: (np.sin(x) * x).sum(), x)
        np.testing.assert_allclose(got, np.cos(x) * x + np.sin(x), rtol=1e-10)


def softmax_by_hand(x):
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    return p, lambda g: (p * (g - (g * p).sum(-1, keepdims=True)),)


def analytic(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_witnesses_agree_with_a_right_derivation(capsys):
    x = {"x": RNG.normal(size=(3, 4))}
    error = lab.witnesses(softmax_by_hand, F.softmax, reference.softmax, x, analytic=analytic)
    assert error < 1e-10
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("package    composed   differences   complex step")
    assert [line.split()[0] for line in out[1:]] == ["out", "dx"]


@pytest.mark.parametrize("which", ["by hand", "package", "composed", "analytic"])
def test_one_wrong_witness_shows(which):
    def wrong_by_hand(x):
        p, _ = softmax_by_hand(x)
        return p, lambda g: (p * g,)

    def doubled(x):
        return F.softmax(x) * 2.0

    hand = wrong_by_hand if which == "by hand" else softmax_by_hand
    package = doubled if which == "package" else F.softmax
    composed = doubled if which == "composed" else reference.softmax
    exact = (lambda x: 2 * analytic(x)) if which == "analytic" else analytic
    x = {"x": RNG.normal(size=(3, 4))}
    assert lab.witnesses(hand, package, composed, x, analytic=exact) > 0.1


def test_several_arguments_are_all_differenced(capsys):
    def by_hand(x, w):
        return x @ w, lambda g: (g @ w.T, x.T @ g + (1.0 if wrong else 0.0))

    arrays = {"x": RNG.normal(size=(2, 3)), "w": RNG.normal(size=(3, 4))}
    errors = []
    for wrong in (False, True):  # noqa: B007 - by_hand reads it
        errors.append(lab.witnesses(by_hand, F.linear, reference.linear, arrays))
    assert errors[0] < 1e-10 and errors[1] > 0.1
    assert "dw" in capsys.readouterr().out


def test_attempt(capsys):
    def check_99_1(answer):
        assert answer() == 1, "one is wanted"

    def stub():
        raise NotImplementedError

    lab.attempt(check_99_1, stub)
    lab.attempt(check_99_1, lambda: 1)
    assert capsys.readouterr().out == "check_99_1: not attempted yet\ncheck_99_1: passed\n"
    with pytest.raises(AssertionError, match="one is wanted"):
        lab.attempt(check_99_1, lambda: 2)
