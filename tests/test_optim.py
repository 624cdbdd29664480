"""Optimizers: hand-computed steps, flat buffers, decay, clipping, errors.

Ten recorded steps of each optimizer against an independent framework are in test_oracle.py.
"""

import numpy as np
import pytest

from minigpt import ops  # noqa: F401 - binds the operators
from minigpt.backend import to_numpy, xp
from minigpt.optim import CHUNK, SGD, Adam, AdamW, clip_grad_norm
from minigpt.tensor import Tensor


def leaf(*values, dtype="float64"):
    return Tensor(np.array(values, dtype), requires_grad=True)


def test_sgd_with_momentum_by_hand():
    x = leaf(1.0)
    optimizer = SGD([x], lr=0.1, momentum=0.5)
    for wanted in (1 - 0.1 * 2, 0.8 - 0.1 * (0.5 * 2 + 2)):  # the gradient is always 2
        optimizer.zero_grad()
        (x * 2.0).sum().backward()
        optimizer.step()
        assert x.numpy()[0] == pytest.approx(wanted, rel=1e-15)
    assert optimizer.steps == 2


def test_adams_first_step_is_lr_whatever_the_gradients_size():
    for size in (1e-3, 1.0, 1e6):
        x = leaf(5.0, -5.0)
        optimizer = Adam([x], lr=0.01, eps=1e-12)
        x.grad = xp.asarray([size, -size])
        optimizer.step()
        np.testing.assert_allclose(x.numpy(), [4.99, -4.99], rtol=1e-8)


def test_adamw_decays_what_it_is_told_to_and_nothing_else():
    matrix, gain, table = leaf([2.0, 2.0]), leaf(2.0, 2.0), leaf([2.0, 2.0])
    for decay, kept in ((None, [gain]), ([matrix], [gain, table]), ([gain], [matrix, table])):
        params = [Tensor(p.data.copy(), requires_grad=True) for p in (matrix, gain, table)]
        chosen = None if decay is None else [
            q for q, p in zip(params, (matrix, gain, table), strict=True) if p in decay
        ]  # fmt: skip
        AdamW(params, lr=0.1, weight_decay=0.5, decay=chosen).step()  # gradients are 0
        for q, p in zip(params, (matrix, gain, table), strict=True):
            wanted = 2.0 if any(p is k for k in kept) else 2.0 * (1 - 0.1 * 0.5)
            np.testing.assert_allclose(q.numpy(), wanted, rtol=1e-15)


def test_decay_is_decoupled_from_the_gradient():
    """The decay is lr * weight_decay * x, not rescaled by Adam: compare two gradient sizes."""
    moved = []
    for size in (1e-2, 1e2):
        x = leaf([3.0])
        optimizer = AdamW([x], lr=0.1, weight_decay=0.2, eps=1e-12)
        x.grad = xp.asarray([[size]])
        optimizer.step()
        moved.append(x.item())
    assert moved[0] == pytest.approx(3 * (1 - 0.02) - 0.1, rel=1e-9)
    assert moved[1] == pytest.approx(moved[0], rel=1e-9)


def test_chunks_change_nothing():
    rng = np.random.default_rng(0)
    sizes = (CHUNK + 5, 3, 2 * CHUNK)
    start, grads = ([rng.standard_normal(n) for n in sizes] for _ in range(2))
    together = [Tensor(a.copy(), requires_grad=True) for a in start]
    apart = [Tensor(a.copy(), requires_grad=True) for a in start]
    optimizers = [Adam(together, 0.1), *(Adam([p], 0.1) for p in apart)]
    for _ in range(3):
        for p, q, g in zip(together, apart, grads, strict=True):
            p.grad, q.grad = xp.array(g), xp.array(g)
        for optimizer in optimizers:
            optimizer.step()
    for p, q, a in zip(together, apart, start, strict=True):
        assert (p.data == q.data).all()
        assert not np.allclose(p.numpy(), a)


def test_parameters_and_gradients_are_views_of_the_flat_buffers():
    a, b = leaf([1.0, 2.0], [3.0, 4.0]), leaf(5.0, 6.0)
    optimizer = SGD([a, b], lr=1.0)
    np.testing.assert_array_equal(to_numpy(optimizer.data), [1, 2, 3, 4, 5, 6])
    ((a * 2.0).sum() + (b * 3.0).sum()).backward()
    np.testing.assert_array_equal(to_numpy(optimizer.grad), [2, 2, 2, 2, 3, 3])
    optimizer.step()
    np.testing.assert_array_equal(b.numpy(), [2, 3])
    optimizer.zero_grad()
    assert (a.grad == 0).all()


def test_gradients_accumulate_until_zero_grad():
    x = leaf(1.0)
    optimizer = SGD([x], lr=1.0)
    for _ in range(3):
        (x * 2.0).sum().backward()
    assert x.grad[0] == 6
    optimizer.step()
    assert x.data[0] == 1 - 6


def test_a_replaced_gradient_is_used():
    x, y = leaf(1.0), leaf(1.0)
    optimizer = SGD([x, y], lr=1.0)
    (x * 1.0).sum().backward()
    (y * 1.0).sum().backward()
    x.grad, y.grad = xp.asarray([5.0]), None
    optimizer.step()
    assert (x.data[0], y.data[0]) == (-4.0, 1.0)


def test_clipping_scales_all_gradients_together():
    a, b = leaf(0.0, 0.0), leaf([0.0])
    a.grad, b.grad = xp.asarray([3.0, 0.0]), xp.asarray([[4.0]])
    assert float(clip_grad_norm([a, b], 10.0)) == pytest.approx(5.0)
    np.testing.assert_array_equal(to_numpy(a.grad), [3, 0])  # below the limit nothing changes
    assert float(clip_grad_norm([a, b], 1.0)) == pytest.approx(5.0)
    np.testing.assert_allclose(to_numpy(a.grad), [0.6, 0], rtol=1e-10)
    np.testing.assert_allclose(to_numpy(b.grad), [[0.8]], rtol=1e-10)


def test_clipping_passes_over_what_has_no_gradient():
    a, b = leaf(0.0), leaf(0.0)
    a.grad = xp.asarray([3.0])
    assert float(clip_grad_norm([a, b], 1.0)) == pytest.approx(3.0)
    assert b.grad is None


def test_clipping_gradients_that_are_all_zero():
    a = leaf(0.0)
    a.grad = xp.zeros(1)
    assert float(clip_grad_norm([a], 1.0)) == 0
    assert a.grad[0] == 0


def test_errors():
    with pytest.raises(ValueError, match="at least one parameter"):
        SGD([], lr=1.0)
    x = leaf(1.0)
    with pytest.raises(ValueError, match="twice"):
        SGD([x, x], lr=1.0)
    with pytest.raises(ValueError, match="one dtype"):
        SGD([x, leaf(1.0, dtype="float32")], lr=1.0)
    with pytest.raises(ValueError, match="requires_grad"):
        SGD([Tensor([1.0])], lr=1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD([], lr=1.0), "an optimizer needs at least one parameter"),
        (lambda: SGD([x := leaf(1.0), x], lr=1.0), "a parameter was given to the optimizer twice"),
        (
            lambda: SGD([Tensor([1.0])], lr=1.0),
            "parameters must have requires_grad and be of one dtype",
        ),
    ],
)
def test_errors_to_the_letter(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


def test_adam_against_its_formulas_over_several_steps():
    """eps as large as the gradients, so that its place and sign show; t grows from 1 to 5."""
    x, b1, b2, eps, lr = leaf(0.5, -2.0), 0.8, 0.9, 0.3, 0.1
    optimizer = Adam([x], lr=lr, betas=(b1, b2), eps=eps)
    wanted, m, v = x.numpy().copy(), np.zeros(2), np.zeros(2)
    for t in range(1, 6):
        g = np.array([0.1 * t, -0.4 / t])
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        wanted -= lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        x.grad[...] = xp.asarray(g)
        optimizer.step()
        assert optimizer.steps == t
        np.testing.assert_allclose(x.numpy(), wanted, rtol=1e-14)


def test_defaults_are_those_of_the_papers():
    x = leaf(1.0)
    adam, adamw, sgd = Adam([x], lr=1.0), AdamW([leaf(1.0)], lr=1.0), SGD([leaf(1.0)], lr=1.0)
    assert (adam.betas, adam.eps) == ((0.9, 0.999), 1e-8)
    assert (adamw.betas, adamw.eps, adamw.weight_decay) == ((0.9, 0.95), 1e-8, 0.1)
    assert sgd.momentum == 0


def test_a_gradient_taken_away_is_zero_and_back_in_the_buffer():
    x, y = leaf(1.0), leaf(1.0)
    optimizer = SGD([x, y], lr=1.0)
    x.grad = None
    optimizer.step()
    assert x.grad is not None and xp.shares_memory(x.grad, optimizer.grad)
    (x * 2.0 + y).sum().backward()
    np.testing.assert_array_equal(to_numpy(optimizer.grad), [2, 1])


def test_clipping_keeps_the_dtype():
    a = leaf(0.0, dtype="float32")
    a.grad = xp.asarray([5.0], dtype="float32")
    assert clip_grad_norm([a], 1.0).dtype == np.float32
    assert a.grad.dtype == np.float32


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda params: SGD(params, lr=0.1, momentum=0.9), ["m"]),
        (lambda params: AdamW(params, lr=0.1), ["m", "v"]),
    ],
    ids=["SGD", "AdamW"],
)
def test_a_run_goes_on_from_its_parameters_its_steps_and_its_buffers(make, names):
    """What a checkpoint holds is all there is to know; the buffers' names are those in its file."""
    x = leaf(1.0, -2.0)
    old = make([x])
    for t in range(6):
        if t == 3:
            y = Tensor(x.data.copy(), requires_grad=True)
            new = make([y])
            new.steps = old.steps
            assert list(new.buffers()) == names
            for name, buffer in new.buffers().items():
                buffer[...] = old.buffers()[name]
        for p in (x, y) if t >= 3 else (x,):
            p.grad[...] = xp.asarray([t + 1, -1 / (t + 1)])
        old.step()
        if t >= 3:
            new.step()
            np.testing.assert_array_equal(y.numpy(), x.numpy())


def test_clipping_leaves_the_smallest_gradient_as_it_is():
    a = leaf(0.0)
    a.grad = xp.asarray([1e-13])
    clip_grad_norm([a], 1.0)
    assert a.grad[0] == 1e-13


def test_a_parameter_added_afterwards_is_refused_instead_of_never_trained():
    optimizer = SGD([leaf(1.0)], lr=1.0)
    optimizer.params.append(leaf(2.0))
    with pytest.raises(ValueError):
        optimizer.zero_grad()
    with pytest.raises(ValueError):
        optimizer.step()
