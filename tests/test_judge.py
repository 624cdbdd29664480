"""The judge is judged: right claims hold, wrong ones do not, and what cannot be known is said."""

import math

import numpy as np
import pytest

from minigpt.verify.claims import KINDS, Claim, Input
from minigpt.verify.judge import (
    check_bound,
    check_gradient,
    check_hessian,
    check_identity,
    check_jacobian,
    check_optimum,
    check_vjp,
    judge,
    require,
    verdict_table,
)

# --- functions and their derivations, in plain NumPy ----------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(g, x):
    p = softmax(x)
    return p * (g - (g * p).sum(-1, keepdims=True))


def layer_norm(x, w, b):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b


def layer_norm_vjp(g, x, w, b):
    r = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    xhat, gw = (x - x.mean(-1, keepdims=True)) * r, g * w
    rest = gw.mean(-1, keepdims=True) + xhat * (gw * xhat).mean(-1, keepdims=True)
    lead = tuple(range(x.ndim - 1))
    return r * (gw - rest), (g * xhat).sum(lead), g.sum(lead)


def matmul_vjp(g, x, w):
    return (g @ w.T), np.einsum("btc,btd->cd", x, g)


def logsumexp(x):
    return x.max(-1) + np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_vjp(g, x):
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi)
                * (1 + 3 * 0.044715 * x * x))  # fmt: skip


def scale_rows_vjp(g, x, s):
    return g * s, (g * x).sum(-1, keepdims=True)


def embedding_vjp(g, table, idx):
    out = np.zeros(table.shape)
    np.add.at(out, idx, g)
    return out


def cross_entropy(logits, targets):
    return (logsumexp(logits) - np.take_along_axis(logits, targets[:, None], -1)[:, 0]).mean()


def cross_entropy_vjp(g, logits, targets):
    onehot = np.arange(logits.shape[-1]) == targets[:, None]
    return g * (softmax(logits) - onehot) / len(targets)


def inverse_vjp(g, x):
    y = np.linalg.inv(x)
    return -y.T @ g @ y.T


def relu_vjp(g, x):
    return g * (x > 0)


ROWS = {"x": Input(("N", "C"))}
RIGHT = [
    Claim("softmax", "vjp", softmax, softmax_vjp, {"x": Input(("B", "T", "C"))}),
    Claim("layer norm", "vjp", layer_norm, layer_norm_vjp,
          {"x": Input(("B", "T", "C")), "w": Input(("C",)), "b": Input(("C",))}),
    Claim("matmul", "vjp", np.matmul, matmul_vjp,
          {"x": Input(("B", "T", "C")), "w": Input(("C", "D"))}),
    Claim("logsumexp", "vjp", logsumexp, lambda g, x: g[..., None] * softmax(x), ROWS),
    Claim("gelu", "vjp", gelu, gelu_vjp, ROWS),
    Claim("rows scaled", "vjp", np.multiply, scale_rows_vjp, ROWS | {"s": Input(("N", 1))}),
    Claim("embedding", "vjp", lambda table, idx: table[idx], embedding_vjp,
          {"table": Input(("V", "C")), "idx": Input(("N",), below="V")}),
    Claim("cross entropy", "vjp", cross_entropy, cross_entropy_vjp,
          {"logits": Input(("N", "V")), "targets": Input(("N",), below="V")}),
    Claim("inverse", "vjp", np.linalg.inv, inverse_vjp, {"x": Input(("N", "N"))}),
    Claim("relu", "vjp", lambda x: np.maximum(x, 0), relu_vjp, ROWS),
]  # fmt: skip


@pytest.mark.parametrize("claim", RIGHT, ids=lambda claim: claim.name)
def test_right_derivations_are_accepted_on_100_shapes_each(claim):
    """1,000 verdicts in all, each on other shapes and values, without one false alarm."""
    alarms = [v for seed in range(100) if not (v := judge(claim, seed=seed, trials=1)).holds]
    assert not alarms, verdict_table(alarms[0])


@pytest.mark.parametrize("claim", RIGHT, ids=lambda claim: claim.name)
def test_any_one_entry_off_by_a_part_in_a_thousand_is_rejected(claim):
    def wrong(g, *arrays):
        out = claim.said(g, *arrays)
        first = (out[0] if isinstance(out, tuple) else out).copy()
        flat = first.reshape(-1)
        flat[np.abs(flat).argmax()] *= 1.001
        return (first, *out[1:]) if isinstance(out, tuple) else first

    spoiled = Claim(claim.name, "vjp", claim.f, wrong, claim.inputs)
    for seed in range(10):
        verdict = judge(spoiled, seed=seed, trials=1)
        name = next(iter(claim.inputs))
        assert not verdict.holds
        assert {row.argument for row in verdict.rows if not row.error <= row.tolerance} == {name}


# --- a small error in a large gradient --------------------------------------------------------


@pytest.mark.parametrize("witness", ["complex step", "differences"])
@pytest.mark.parametrize("index", [(0, 0), (63, 63), (17, 40), (5, 5)])
def test_one_part_in_a_hundred_thousand_of_one_entry_is_found(witness, index):
    x = np.random.default_rng(0).standard_normal((64, 64))

    def f(x):  # with abs, no complex step; without it, analytic
        return np.abs(softmax(x)) if witness == "differences" else softmax(x)

    def wrong(g, x):
        dx = softmax_vjp(g, x)
        dx[index] *= 1 + 1e-5
        return dx

    assert check_vjp(f, softmax_vjp, x).holds
    verdict = check_vjp(f, wrong, x)
    assert not verdict.holds
    row = next(row for row in verdict.rows if row.witness == witness)
    assert row.index == index and not row.error <= row.tolerance
    assert abs(row.claimed / row.measured - 1 - 1e-5) < 2e-6
    assert f"[{index[0]}, {index[1]}]" in verdict_table(verdict)


def test_a_large_function_is_judged_in_few_calls():
    rng, calls = np.random.default_rng(0), []
    arrays = [rng.standard_normal((512, 512)), *rng.standard_normal((2, 512))]

    def counted(x, w, b):
        calls.append(1)
        return layer_norm(x, w, b)

    def wrong(g, *arrays):
        dx, dw, db = layer_norm_vjp(g, *arrays)
        dx[300, 77] *= 1.001
        return dx, dw, db

    for vjp in (layer_norm_vjp, wrong):
        calls.clear()
        verdict = check_vjp(counted, vjp, *arrays)
        assert verdict.holds == (vjp is layer_norm_vjp)
        assert len(calls) <= (150 if verdict.holds else 500)
    assert (300, 77) in {row.index for row in verdict.rows}


def test_large_arguments_are_drawn_once_and_small_ones_three_times():
    def drawn(shape, **options):
        inputs, seen = {"x": Input(shape)}, set()

        def vjp(g, x):
            seen.add(float(x[0, 0]))
            return 2 * g

        assert judge(Claim("twice", "vjp", lambda x: 2 * x, vjp, inputs), **options).holds
        return {x for x in seen if abs(x) > 1e-6}

    assert len(drawn((300, 400))) == 1
    assert len(drawn((30, 400))) == 3
    assert len(drawn((300, 400), trials=2)) == 2


# --- every kind, right and wrong ------------------------------------------------------------------

VECTOR, POSITIVE = {"x": Input(("N",))}, {"x": Input(("N",), 0.1, 4.0)}
SYSTEM = {"x": Input(("N",)), "a": Input((9, "N")), "b": Input((9,))}


def squares(x, a, b):
    return ((a @ x - b) ** 2).sum()


def swish_outer(x):
    return np.outer(np.tanh(x), x)


def swish_outer_jacobian(x):
    eye = np.eye(len(x))
    return (np.einsum("ik,j->ijk", eye / np.cosh(x)[:, None] ** 2, x)
            + np.einsum("i,jk->ijk", np.tanh(x), eye))  # fmt: skip


# kind, f, inputs, right, wrong
BOTH = {
    "vjp": ("vjp", softmax, ROWS, softmax_vjp, lambda g, x: g * softmax(x) * (1 - softmax(x))),
    "gradient": ("gradient", lambda x: logsumexp(x), VECTOR, softmax, lambda x: softmax(2 * x)),
    "jacobian": ("jacobian", softmax, VECTOR,
                 lambda x: np.diag(softmax(x)) - np.outer(softmax(x), softmax(x)),
                 lambda x: np.diag(softmax(x) * (1 - softmax(x)))),
    "jacobian of a matrix": ("jacobian", swish_outer, VECTOR, swish_outer_jacobian,
                             lambda x: swish_outer_jacobian(x).transpose(1, 0, 2)),
    "hessian": ("hessian", lambda x: logsumexp(x), VECTOR,
                lambda x: np.diag(softmax(x)) - np.outer(softmax(x), softmax(x)),
                lambda x: np.diag(softmax(x))),
    "hessian, not analytic": ("hessian", lambda x: (np.abs(x) ** 3).sum(), VECTOR,
                              lambda x: np.diag(6 * np.abs(x)), lambda x: np.diag(6 * x)),
    "hessian of a matrix": ("hessian", lambda x: (x * x).sum() ** 2, {"x": Input(("M", "N"))},
                            lambda x: 8 * np.multiply.outer(x, x) + 4 * (x * x).sum()
                            * np.eye(x.size).reshape(*x.shape, *x.shape),
                            lambda x: 8 * np.multiply.outer(x, x)),
    "identity": ("identity", lambda x: np.cosh(x) ** 2 - np.sinh(x) ** 2, VECTOR,
                 lambda x: np.ones(x.shape), lambda x: np.ones(x.shape) + 1e-8 * x),
    "identity on a domain": ("identity", lambda x: np.log(x * x), POSITIVE,
                             lambda x: 2 * np.log(x), lambda x: np.log(x) ** 2),
    "identity for positive x": ("identity", lambda x: np.sqrt(x * x), VECTOR,
                                lambda x: np.abs(x), lambda x: x),
    "optimum": ("optimum", squares, SYSTEM, lambda a, b: np.linalg.lstsq(a, b)[0],
                lambda a, b: a.T @ b / len(b)),
    "optimum, nearly": ("optimum", squares, SYSTEM, lambda a, b: np.linalg.solve(a.T @ a, a.T @ b),
                        lambda a, b: np.linalg.solve(a.T @ a + 1e-5 * np.eye(a.shape[1]), a.T @ b)),
    "optimum, not a saddle": ("optimum", lambda x, y: (x[0] - y) ** 2 + (x[0] * x[1]) ** 2
                              + x[1] ** 4 - 2 * x[1] ** 2,
                              {"x": Input((2,)), "y": Input(())},
                              None, lambda y: np.stack([y, 0 * y])),
    "optimum, not a maximum": ("optimum", lambda x, y: -((x - y) ** 2).sum(), VECTOR
                               | {"y": Input(("N",))}, None, lambda y: y),
    "optimum, not local only": ("optimum", lambda x: ((x * x - 1) ** 2 + x / 4).sum(),
                                {"x": Input(())}, None, lambda: np.array(0.9672604)),
    "bound": ("bound", logsumexp, VECTOR, lambda x: x.max() + np.log(len(x)),
              lambda x: x.max() + np.log(len(x) - 0.5)),
    "bound, by entry": ("bound", np.log, POSITIVE, lambda x: x - 1, lambda x: 0.7 * (x - 1)),
    "bound at the corners": ("bound", lambda x: x, POSITIVE, lambda x: 4 + 0 * x,
                             lambda x: 3.999 + 0 * x),
    "bound far out": ("bound", np.tanh, VECTOR, lambda x: 1 + 0 * x, lambda x: 0.9999 + 0 * x),
    "bound in a narrow place": ("bound", lambda x: np.exp(-1e4 * (x - 3.123) ** 2), POSITIVE,
                                lambda x: 1 + 0 * x, lambda x: 0.99 + 0 * x),
}  # fmt: skip


def test_every_kind_is_there():
    assert {kind for kind, *_ in BOTH.values()} == set(KINDS)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("seed", range(3))
def test_the_right_claim_holds_and_the_wrong_one_does_not(name, seed):
    kind, f, inputs, right, wrong = BOTH[name]
    if right:
        verdict = judge(Claim(name, kind, f, right, inputs), seed=seed)
        assert verdict.holds, verdict_table(verdict)
        assert require(verdict) is verdict
    verdict = judge(Claim(name, kind, f, wrong, inputs), seed=seed)
    assert not verdict.holds, verdict_table(verdict)
    with pytest.raises(ValueError, match="does not hold"):
        require(verdict)


def test_the_same_on_given_arrays():
    x = np.array([0.5, -1.0, 2.0])
    for check, f, right, wrong in (
        (check_vjp, np.exp, lambda g, x: g * np.exp(x), lambda g, x: g * x),
        (check_gradient, np.sum, lambda x: np.ones(3), lambda x: np.ones(3) / 3),
        (check_jacobian, np.tanh, lambda x: np.diag(1 - np.tanh(x) ** 2), lambda x: np.eye(3)),
        (check_identity, np.abs, lambda x: np.sqrt(x * x), lambda x: x),
        (check_bound, np.sin, lambda x: x + 10, lambda x: x),
    ):
        assert check(f, right, x).holds
        assert not check(f, wrong, x).holds
    y = np.array([1.0, 2.0, 3.0])
    assert check_optimum(lambda x, y: ((x - y) ** 2).sum(), y, y).holds
    assert not check_optimum(lambda x, y: ((x - y) ** 2).sum(), y + [0, 1e-4, 0], y).holds


def test_a_hessian_is_the_derivative_of_a_gradient_that_is_checked_too():
    x = np.array([0.5, -1.0, 2.0])

    def f(x):
        return np.cosh(x).sum()

    def hessian(x):
        return np.diag(np.cosh(x))

    assert check_hessian(f, np.sinh, hessian, x).holds
    verdict = check_hessian(f, np.sinh, lambda x: np.diag(np.sinh(x)), x)
    assert {row.argument for row in verdict.rows if not row.error <= row.tolerance} == {"x"}
    verdict = check_hessian(f, lambda x: np.sinh(x) + 1, hessian, x)
    assert {r.argument for r in verdict.rows if not r.error <= r.tolerance} == {"gradient in x"}


@pytest.mark.parametrize("index", [(0, 1, 2), (2, 1, 1), (1, 0, 0)])
def test_a_jacobian_is_wrong_at_an_entry_of_the_output_and_one_of_x(index):
    def wrong(x):
        jacobian = swish_outer_jacobian(x)
        jacobian[index] += 1e-4
        return jacobian

    verdict = check_jacobian(swish_outer, wrong, np.array([0.5, -1.0, 2.0]))
    assert {row.index for row in verdict.rows} == {index}
    assert all(abs(row.claimed - row.measured - 1e-4) < 1e-9 for row in verdict.rows)


# --- which witness is heard -----------------------------------------------------------------------


def heard(verdict):
    return {(row.argument, row.witness) for row in verdict.rows}


def test_the_witnesses_that_are_heard():
    x, w = np.random.default_rng(0).standard_normal((2, 3, 3))
    verdict = check_vjp(np.matmul, lambda g, x, w: (g @ w.T, x.T @ g), x, w, names=["x", "w"])
    assert heard(verdict) == {(a, b) for a in "xw"
                              for b in ("differences", "complex step", "adjoint")}  # fmt: skip
    assert all(row.error < 1e-14 for row in verdict.rows if row.witness == "adjoint")
    assert heard(check_vjp(np.tanh, lambda g, x: g / np.cosh(x) ** 2, x, names="x")) == {
        ("x", "differences"), ("x", "complex step")}  # fmt: skip


NOT_ANALYTIC = {
    "abs": (np.abs, lambda g, x: g * np.sign(x)),
    "norm": (np.linalg.norm, lambda g, x: g * x / np.linalg.norm(x)),
    "var": (np.var, lambda g, x: g * 2 * (x - x.mean()) / x.size),
    "maximum": (lambda x: np.maximum(np.abs(x), x**2), lambda g, x: g * np.where(
        np.abs(x) > x**2, np.sign(x), 2 * x)),
    "into floats": (lambda x: np.array(x, float) * 2, lambda g, x: 2 * g),
}  # fmt: skip


@pytest.mark.parametrize("f, vjp", NOT_ANALYTIC.values(), ids=NOT_ANALYTIC)
def test_without_a_complex_step_there_is_no_false_alarm_and_no_false_pass(f, vjp):
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((3, 4))
        verdict = check_vjp(f, vjp, x, names="x", seed=seed)
        assert verdict.holds, verdict_table(verdict)
        assert ("x", "complex step") not in heard(verdict)
        assert "x: complex step not heard" in " ".join(verdict.notes)
        # What the complex step would have believed: Im f(x + ih) = 0, a gradient of zero.
        assert not check_vjp(f, lambda g, x: np.zeros(x.shape), x, seed=seed).holds


# --- what cannot be known is said -----------------------------------------------------------------

KINKS = {
    "relu": (lambda x: np.maximum(x, 0), relu_vjp, [1.0, 0.0, -1.0], {(1,)}),
    "abs": (np.abs, lambda g, x: g * np.sign(x), [1.0, 2.0, 0.0], {(2,)}),
    "max tie": (lambda x: x.max(), lambda g, x: g * (np.arange(3) == x.argmax()),
                [1.0, 3.0, 3.0], {(1,), (2,)}),
}  # fmt: skip


@pytest.mark.parametrize("f, vjp, x, where", KINKS.values(), ids=KINKS)
def test_a_kink_makes_the_verdict_not_hold_and_is_named(f, vjp, x, where):
    verdict = check_vjp(f, vjp, np.array(x), names=["weights"])
    assert not verdict.holds
    assert any(f"weights[{i}]: kink" in note for note in verdict.notes for (i,) in where)
    assert any(row.index in where for row in verdict.rows)
    assert "kink" in verdict_table(verdict)


def test_an_optimum_at_a_kink_is_not_confirmed():
    y = np.array([1.0, 2.0, 4.0])
    verdict = check_optimum(lambda x, y: np.abs(x - y).sum(), np.array(2.0), y)
    assert not verdict.holds and "kink" in verdict.notes[0]


def test_a_gradient_lost_in_rounding_is_not_confirmed():
    x = np.random.default_rng(0).standard_normal(5)
    verdict = check_gradient(lambda x: 1e12 + np.abs(x).sum(), lambda x: 3 * np.sign(x), x)
    assert not verdict.holds
    assert "no witness could be heard" in verdict_table(verdict)
    assert "not heard" in " ".join(verdict.notes)


def test_a_gradient_of_zero_is_confirmed():
    x = np.random.default_rng(0).standard_normal(5)
    assert check_gradient(lambda x: softmax(x).sum(), lambda x: 0 * x, x).holds
    assert check_gradient(lambda x: softmax(x).sum(), lambda x: 1e-17 * x, x).holds
    assert not check_gradient(lambda x: softmax(x).sum(), lambda x: 1e-6 * x, x).holds
    assert check_vjp(lambda x, y: x * 1.0, lambda g, x, y: (g, 0 * y), x, x).holds


def stochastic(x, rng=np.random.default_rng(0)):  # noqa: B008 - one generator for all calls
    return x * rng.random(x.shape)


def writes(x):
    x *= 2
    return x


def ok(g, x):
    return g * 2


X = np.array([0.5, -1.0, 2.0])
REFUSED = {  # f, vjp, arrays, what is said
    "stochastic": (stochastic, ok, [X], "two calls of f differ: fix its generator"),
    "stochastic vjp": (np.exp, lambda g, x: stochastic(x), [X], "two calls of the vjp differ"),
    "float32": (np.exp, ok, [X.astype("float32")], "x is float32: check in float64, where"),
    "complex": (np.exp, ok, [X + 1j], "x is complex128"),
    "float32 inside": (lambda x: np.exp(x.astype("float32")), ok, [X], "f is float32: check in"),
    "integers only": (np.sign, ok, [np.arange(3)], "f returns int64, which has no derivative"),
    "no float": (lambda x: x * 1.0, ok, [np.arange(3)], "no argument is float64"),
    "wrong shape": (np.exp, lambda g, x: g.sum(), [X],
                    r"the gradient of x has shape \(\), but x has shape \(3,\)"),
    "too many": (np.exp, lambda g, x: (g, g), [X], "2 gradients were returned for 1 float"),
    "nothing": (np.exp, lambda g, x: None, [X], "must return real numbers in one array, got None"),
    "NaN": (np.exp, lambda g, x: g * [1, np.nan, 1], [X],
            r"the gradient of x is nan at index \[1\]"),
    "outside the domain": (np.log, lambda g, x: g / x, [X], r"f is nan at index \[1\]: give"),
    "f raises": (lambda x: x @ np.ones(4), ok, [X], "f raised ValueError: matmul"),
    "vjp raises": (np.exp, lambda g: g, [X], "the vjp raised TypeError"),
    "writes": (writes, ok, [X], "f raised ValueError: output array is read-only"),
    "vjp writes into g": (np.exp, lambda g, x: np.multiply(g, np.exp(x), out=g), [X],
                          "the vjp raised ValueError: output array is read-only"),
    "two outputs": (lambda x: (x, x[:2]), ok, [X], "f must return real numbers in one array"),
    "strings": (lambda x: "x", ok, [X], "f must return real numbers"),
}  # fmt: skip


@pytest.mark.parametrize("f, vjp, arrays, words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_judged_is_refused_with_the_reason(f, vjp, arrays, words):
    before = [a.copy() for a in arrays]
    with pytest.raises(ValueError, match=words):
        check_vjp(f, vjp, *arrays, names=["x"])
    np.testing.assert_array_equal(arrays, before)


def test_a_refusal_names_the_claim():
    claim = Claim("my norm", "vjp", np.exp, lambda g, x: g[:1], {"x": Input((3,))})
    with pytest.raises(ValueError, match=r"^my norm: the gradient of x has shape \(1,\)"):
        judge(claim)
    with pytest.raises(ValueError, match="my norm: trials must be at least 1, got 0"):
        judge(claim, trials=0)


OTHERS = {
    "gradient of many": (lambda: check_gradient(np.exp, np.exp, X), "one number for a gradient"),
    "jacobian": (lambda: check_jacobian(np.exp, np.exp, X),
                 r"claim has shape \(3,\), but the jacobian .* has shape \(3, 3\)"),
    "hessian of many": (lambda: judge(Claim("h", "hessian", np.exp, np.exp, {"x": Input((3,))})),
                        "f must return one number"),
    "identity": (lambda: check_identity(np.exp, np.sum, X),
                 r"f has shape \(3,\), but the claim has shape \(\)"),
    "bound": (lambda: check_bound(np.sum, np.exp, X), r"f has shape \(\), but the claim has"),
    "optimum": (lambda: judge(Claim("o", "optimum", lambda x: (x**2).sum(), lambda: np.zeros(2),
                                    {"x": Input((3,))})), r"x has shape \(2,\), not \(3,\)"),
    "optimum of many": (lambda: check_optimum(np.exp, X), "f must return one number"),
    "names": (lambda: check_vjp(np.exp, ok, X, names=["a", "b"]), "2 names for 1 arrays"),
}  # fmt: skip


@pytest.mark.parametrize("refused, words", OTHERS.values(), ids=OTHERS)
def test_the_other_kinds_refuse_too(refused, words):
    with pytest.raises(ValueError, match=words):
        refused()


# --- details --------------------------------------------------------------------------------------


def test_integers_and_options_are_passed_on_and_not_differentiated():
    table, idx = np.random.default_rng(0).standard_normal((5, 3)), np.array([1, 4, 1])

    def lookup(table, idx, scale):
        assert isinstance(scale, int)
        return scale * table[idx]

    def vjp(g, table, idx, scale):
        return scale * embedding_vjp(g, table, idx)

    assert check_vjp(lookup, vjp, table, idx, 3).holds
    assert check_vjp(lookup, lambda *a: (vjp(*a), None, None), table, idx, 3).holds
    assert {row.argument for row in check_vjp(lookup, vjp, table, idx, 3).rows} == {"table"}


def test_numbers_lists_and_empty_arrays():
    assert check_vjp(lambda x, y: x * y, lambda g, x, y: (g * y, g * x), 2.0, 3.0).holds
    assert check_gradient(lambda x: float(x[0] ** 2), lambda x: [2 * x[0], 0.0], [3.0, 1.0]).holds
    empty = np.zeros((0, 3))
    assert check_vjp(np.exp, lambda g, x: g * np.exp(x), empty).holds
    assert check_vjp(
        lambda x, y: x * y.sum(), lambda g, x, y: (g * 0.0, g.sum() + y), X, empty
    ).holds


def test_the_cotangent_is_not_ones():
    """A vjp of zeros passes for softmax with a cotangent of ones."""
    assert np.abs(softmax_vjp(np.ones(3), X)).max() < 1e-15
    assert not check_vjp(softmax, lambda g, x: 0 * x, X).holds


def test_rounding_of_the_arguments_is_no_error():
    """(1 - cos x) / x^2 loses digits near 0, and so does its derivative: no false alarm."""

    def vjp(g, x):
        return g * (x * np.sin(x) - 2 * (1 - np.cos(x))) / x**3

    x = np.array([0.003, -0.002, 0.5])
    assert check_vjp(lambda x: (1 - np.cos(x)) / x**2, vjp, x).holds
    assert not check_vjp(lambda x: (1 - np.cos(x)) / x**2, lambda g, x: 1.001 * vjp(g, x), x).holds


def test_seed_trials_and_sizes():
    claim = RIGHT[0]
    assert judge(claim, seed=3) == judge(claim, seed=3)
    assert judge(claim, seed=3) != judge(claim, seed=4)
    shapes = []

    def seen(x):
        shapes.append(x.shape)
        return softmax(x)

    judge(Claim("seen", "vjp", seen, softmax_vjp, claim.inputs), trials=4)
    assert len(set(shapes)) > 1
    shapes.clear()
    judge(Claim("seen", "vjp", seen, softmax_vjp, claim.inputs), sizes={"B": 2, "T": 2, "C": 2})
    assert set(shapes) == {(2, 2, 2)}


def test_the_worst_of_the_trials_is_kept():
    calls = []

    def sometimes(g, x):
        calls.append(x.shape)
        return softmax_vjp(g, x) * (1.01 if len(set(calls)) == 2 else 1)

    verdict = judge(Claim("sometimes", "vjp", softmax, sometimes, ROWS), trials=3)
    assert len(set(calls)) == 3 and not verdict.holds


def test_the_table():
    verdict = check_vjp(softmax, lambda g, x: 2 * softmax_vjp(g, x), X)
    lines = verdict_table(verdict).splitlines()
    assert lines[0] == "softmax (vjp) does not hold"
    assert lines[1].split() == [
        "argument", "witness", "error", "tolerance", "index", "claimed", "measured"]  # fmt: skip
    assert lines[2].startswith("x          complex step   5.0e-01")
    assert sum(line.startswith("tolerance of ") for line in lines) == 2
