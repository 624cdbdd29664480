"""Figures of the chapters: the same bytes each time, the right folder, labels that are there."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from minigpt import drawing, reference
from minigpt.tensor import Tensor


@pytest.fixture
def axes():
    with plt.rc_context():
        drawing.style()
        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)


def words(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_the_style_is_the_course_s_own(axes):
    assert plt.rcParams["axes.grid"] and plt.rcParams["figure.dpi"] == 100
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert [to_hex(colour) for colour in colours[:2]] == [drawing.BLUE, drawing.RED]


@pytest.mark.parametrize("name", ["99_line.svg", "99_line.png"])
def test_saved_figures_repeat_to_the_byte(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_FIGURES", str(tmp_path))
    content = []
    for _ in range(2):
        with plt.rc_context():
            drawing.style()
            figure, axes = plt.subplots()
            axes.plot([0, 1], [1, 0], label="falls")
            axes.legend()
            drawing.save_figure(figure, name)
            plt.close(figure)
        content.append((tmp_path / name).read_bytes())
    assert content[0] == content[1]
    assert len(content[0]) > 1000


def test_save_figure_wants_a_known_format(axes):
    with pytest.raises(ValueError, match="99_line.pdf"):
        drawing.save_figure(axes.figure, "99_line.pdf")


def test_outside_a_clone_nothing_is_written(axes, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_FIGURES", str(tmp_path / "missing"))
    drawing.save_figure(axes.figure, "99_line.svg")
    assert not (tmp_path / "missing").exists()


def test_an_attention_map_names_rows_and_weights(axes):
    att = np.array([[0.75, 0.25, 0.0], [0.1, 0.2, 0.7]])
    drawing.draw_attention(axes, att, queries=["it", "sat"], keys=["the", "cat", "sat"])
    assert words(axes) == ["0.75", "0.25", "0.10", "0.20", "0.70"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["it", "sat"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["the", "cat", "sat"]
    np.testing.assert_array_equal(axes.images[0].get_array(), att)
    assert axes.images[0].get_clim() == (0, 1)


def test_a_large_attention_map_has_no_numbers(axes):
    drawing.draw_attention(axes, np.full((11, 11), 1 / 11))
    assert words(axes) == []


def test_the_tape_shows_every_op_and_names_the_leaf(axes):
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    drawing.draw_tape(axes, reference.softmax(x), {"x": x})
    assert sorted(words(axes)) == [
        "divide\n(2, 3)", "exp\n(2, 3)", "max\n(2, 1)", "subtract\n(2, 3)", "sum\n(2, 1)",
        "x\n(2, 3)",
    ]  # fmt: skip
    arrows = [text for text in axes.texts if not text.get_text()]
    assert len(arrows) == 7  # x is used twice, exp is used twice
