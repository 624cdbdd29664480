"""Learning rates, number by number, and optimizers over a hundred steps beside their formulas."""

import math

import numpy as np
import pytest

from minigpt.backend import xp
from minigpt.optim import SGD, Adam, AdamW
from minigpt.schedules import Plateau, warmup_constant, warmup_cosine, warmup_linear
from minigpt.settings import TrainConfig
from minigpt.tensor import Tensor


def test_a_constant_rate_after_the_warm_up():
    rates = [warmup_constant(step, lr=2.0, warmup=4) for step in range(8)]
    np.testing.assert_allclose(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert warmup_constant(0, lr=2.0, warmup=0) == 2.0


def test_a_straight_line_to_the_last_step():
    options = {"lr": 2.0, "warmup": 4, "steps": 9, "final": 0.1}
    rates = [warmup_linear(step, **options) for step in range(12)]
    np.testing.assert_allclose(rates[:4], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(rates[4:9], [2.0, 1.55, 1.1, 0.65, 0.2])
    np.testing.assert_allclose(rates[9:], 0.2)  # it stays at its end
    assert warmup_linear(9, lr=1.0, warmup=0, steps=10) == pytest.approx(0.1)


def test_warmup_then_cosine():
    lr = [warmup_cosine(i, lr=2.0, warmup=4, steps=21, final=0.1) for i in range(21)]
    np.testing.assert_allclose(lr[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    assert lr[12] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half-way between step 4 and step 20
    assert lr[20] == pytest.approx(0.2)
    assert all(b < a for a, b in zip(lr[4:], lr[5:], strict=False))
    quarter = warmup_cosine(8, lr=2.0, warmup=4, steps=21, final=0.0)
    assert warmup_cosine(9, lr=1.0, warmup=0, steps=10) == pytest.approx(0.1)
    assert quarter == pytest.approx(1 + math.cos(math.pi / 4))


def test_the_cosine_stays_at_its_end():
    options = {"lr": 2.0, "warmup": 4, "steps": 21, "final": 0.1}
    assert warmup_cosine(30, **options) == pytest.approx(0.2)
    assert warmup_cosine(1, lr=2.0, warmup=0, steps=2, final=0.5) == pytest.approx(1.0)


def test_a_plateau_counts_evaluations_without_a_new_best():
    plateau = Plateau(factor=0.5, patience=2)
    losses = [3.0, 2.0, 2.5, 2.0, 2.1, 1.9, 2.0, 1.9, 1.8]
    scales = [plateau.update(loss) for loss in losses]
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert plateau.best == 1.8
    assert [Plateau(0.5, patience=1).update(loss) for loss in (1.0, math.inf)] == [1, 0.5]
    default = Plateau()
    assert [default.update(1.0) for _ in range(4)] == [1, 1, 1, 0.5]
    assert Plateau(0.5, patience=2).update(math.inf) == 1  # the first of two


@pytest.mark.parametrize(("factor", "patience"), [(0, 3), (1, 3), (-0.5, 3), (0.5, 0)])
def test_a_plateau_that_cannot_work(factor, patience):
    with pytest.raises(ValueError, match="expected 0 < factor < 1 and patience >= 1"):
        Plateau(factor, patience)


def test_without_a_plan_the_rate_is_that_of_the_warm_up():
    """With --seconds the number of steps is known only after some of them."""
    for schedule in ("cosine", "linear", "constant", "plateau"):
        config = TrainConfig(schedule=schedule, lr=2.0, warmup=4)
        unplanned = [config.learning_rate(step, None) for step in range(4)]
        assert unplanned == [config.learning_rate(step, 100) for step in range(4)]
        assert unplanned == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_only_the_plateau_and_the_constant_rate_are_scaled():
    for schedule, scaled in (("plateau", 0.5), ("constant", 0.5), ("cosine", 1), ("linear", 1)):
        config = TrainConfig(schedule=schedule, lr=2.0, warmup=4)
        whole, half = (config.learning_rate(5, 50, scale) for scale in (1.0, 0.5))
        assert half == pytest.approx(scaled * whole)


# --- optimizers: each entry by itself, in Python's own numbers, as the papers write it ---


def sgd(x, gradients, lr, momentum):
    m = 0.0
    for g in gradients:
        m = momentum * m + g
        x = x - lr * m
    return x


def adam(x, gradients, lr, b1, b2, eps, decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        mean, square = m / (1 - b1**t), v / (1 - b2**t)
        x = x - lr * decay * x
        x = x - lr * mean / (math.sqrt(square) + eps)
    return x


@pytest.mark.parametrize(
    ("make", "matrix", "vector"),
    [
        (lambda p: SGD(p, 0.02), *[lambda x, g: sgd(x, g, 0.02, 0.0)] * 2),
        (lambda p: SGD(p, 0.02, 0.9), *[lambda x, g: sgd(x, g, 0.02, 0.9)] * 2),
        (
            lambda p: Adam(p, 0.02, (0.8, 0.95), 1e-6),
            *[lambda x, g: adam(x, g, 0.02, 0.8, 0.95, 1e-6)] * 2,
        ),
        (
            lambda p: AdamW(p, 0.02, (0.9, 0.99), 1e-8, weight_decay=0.3),
            lambda x, g: adam(x, g, 0.02, 0.9, 0.99, 1e-8, decay=0.3),
            lambda x, g: adam(x, g, 0.02, 0.9, 0.99, 1e-8),  # a vector does not decay
        ),
    ],
    ids=["SGD", "momentum", "Adam", "AdamW"],
)
def test_a_hundred_steps_beside_the_formulas(make, matrix, vector):
    rng = np.random.default_rng(0)
    params = [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in ((3, 4), (5,))]
    start = [p.numpy().copy() for p in params]
    scale = 10.0 ** rng.uniform(-3, 3, 100)  # gradients of very different sizes
    gradients = [scale.reshape(-1, *[1] * p.ndim) * rng.standard_normal((100, *p.shape))
                 for p in params]  # fmt: skip
    optimizer = make(params)
    for t in range(100):
        for p, g in zip(params, gradients, strict=True):
            p.grad[...] = xp.asarray(g[t])
        optimizer.step()
    for p, x, g, by_hand in zip(params, start, gradients, (matrix, vector), strict=True):
        wanted = [by_hand(x[i], [float(h[i]) for h in g]) for i in np.ndindex(x.shape)]
        np.testing.assert_allclose(p.numpy().reshape(-1), wanted, rtol=1e-12, atol=1e-12)
