"""Positions: what each of the four ways promises, to rounding."""

import math

import numpy as np
import pytest

from minigpt.backend import to_numpy, xp
from minigpt.positions import alibi_bias, rotary, sinusoids
from minigpt.tensor import Tensor


def turned(x, **options):
    return to_numpy(rotary(Tensor(xp.asarray(x)), **options).data)


def at(position, x, **options):
    """The vector x (D,) at one position."""
    return turned(x[None], start=position, **options)[0]


# --- rotary -----------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [2, 8, 64])
def test_the_inner_product_depends_on_the_distance_only(D):
    q, k = np.random.default_rng(D).standard_normal((2, D))
    scores = np.array([[at(i, q) @ at(j, k) for j in range(12)] for i in range(12)])
    for distance in range(-11, 12):
        diagonal = np.diagonal(scores, -distance)  # i - j = distance
        assert np.abs(diagonal - diagonal[0]).max() < 1e-12 * D
    assert np.ptp(scores[:, 0]) > 0.1  # and it does depend on it
    assert abs(at(1000, q) @ at(997, k) - scores[3, 0]) < 1e-12 * D


def test_a_row_is_turned_by_its_own_position():
    """Rows 0, 1, 2 from start 5 stand at 5, 6, 7; whatever axes come before."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    rows = turned(x, start=5)
    for t in range(4):
        for before in np.ndindex(2, 3):
            np.testing.assert_allclose(rows[before][t], at(5 + t, x[before][t]), rtol=1e-14)
    np.testing.assert_array_equal(turned(x[..., :1, :]), x[..., :1, :])  # position 0: no turn


def test_norms_are_kept():
    x = np.random.default_rng(0).standard_normal((3, 50, 8))
    lengths = np.linalg.norm(turned(x, start=100), axis=-1)
    np.testing.assert_allclose(lengths, np.linalg.norm(x, axis=-1), rtol=1e-12)


def test_pairs_and_angles_are_those_of_the_paper():
    """By hand: pair i of 2 at position 3 turns by 3 / 100^(2i / 4), so by 3 and by 0.3."""
    for i, angle in ((0, 3.0), (1, 0.3)):
        x = np.zeros(4)
        x[2 * i] = 1
        expected = np.zeros(4)
        expected[2 * i : 2 * i + 2] = math.cos(angle), math.sin(angle)
        np.testing.assert_allclose(at(3, x, base=100.0), expected, atol=1e-15)


# --- sinusoids --------------------------------------------------------------------------------


def test_a_shift_is_a_rotation():
    """Row t + s is row t with every pair turned by the same angle, whatever t is."""
    table = to_numpy(sinusoids(40, 6))
    for shift in (1, 7):
        for i in range(3):
            angle = shift / 10000 ** (2 * i / 6)
            R = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            pairs = table[:, 2 * i : 2 * i + 2]  # sin, cos
            np.testing.assert_allclose(pairs[:-shift] @ R.T, pairs[shift:], atol=1e-12)


def test_the_sinusoids_are_those_of_the_paper():
    table = to_numpy(sinusoids(5, 4, base=100.0))
    assert table.shape == (5, 4)
    assert table.dtype == "float64"
    expected = [[math.sin(t), math.cos(t), math.sin(t / 10), math.cos(t / 10)] for t in range(5)]
    np.testing.assert_allclose(table, expected, atol=1e-15)


@pytest.mark.parametrize("C", [2, 6, 128])
def test_every_row_has_the_same_norm(C):
    norms = np.linalg.norm(to_numpy(sinusoids(100, C)), axis=1)
    np.testing.assert_allclose(norms, math.sqrt(C / 2), rtol=1e-12)


# --- ALiBi ------------------------------------------------------------------------------------


def test_the_bias_by_hand():
    expected = [[0, 0, 0], [-1, 0, 0], [-2, -1, 0]]
    found = to_numpy(alibi_bias(2, 3))
    np.testing.assert_array_equal(
        found, np.stack([np.array(expected) / 16, np.array(expected) / 256])
    )
    assert found.dtype == "float64"
    assert not np.signbit(found[:, 0]).any()  # 0, not -0


@pytest.mark.parametrize("n_head", [1, 3, 8, 12])
def test_the_slopes_are_a_geometric_sequence(n_head):
    """From 2^(-8/n) to 2^-8; for 8 heads 1/2, 1/4, ..., 1/256, as the paper gives them."""
    slopes = -to_numpy(alibi_bias(n_head, 2))[:, 1, 0]
    np.testing.assert_allclose(slopes, [2 ** (-8 * (h + 1) / n_head) for h in range(n_head)])
    assert slopes[-1] == 1 / 256
    if n_head == 8:
        np.testing.assert_array_equal(slopes, 0.5 ** np.arange(1, 9))


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sinusoids(4, 3), "need an even number, got 3"),
        (lambda: sinusoids(4, 0), "need an even number, got 0"),
        (lambda: sinusoids(0, 4), "T must be at least 1, got 0"),
        (lambda: sinusoids(4, 4, base=-1.0), "base must be positive, got -1.0"),
        (lambda: alibi_bias(0, 4), "at least 1, got 0 and 4"),
        (lambda: alibi_bias(4, 0), "at least 1, got 4 and 0"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_one_position_is_enough():
    np.testing.assert_array_equal(to_numpy(sinusoids(1, 4)), [[0, 1, 0, 1]])
    np.testing.assert_array_equal(to_numpy(alibi_bias(2, 1)), np.zeros((2, 1, 1)))


def test_a_base_below_one_turns_later_pairs_faster():
    angles = np.array([1.0, 2.0])  # 1 / 0.25 ** (2i / 4)
    table = to_numpy(sinusoids(2, 4, base=0.25))
    np.testing.assert_allclose(table[1, ::2], np.sin(angles))
