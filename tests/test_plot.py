"""The loss figure shows the numbers of the log: read back from the figure, not from its pixels."""

import math

import pytest
from matplotlib.figure import Figure

from minigpt import plot
from minigpt.evaluate import Score

LOG = [
    {"step": 0, "train_loss": None, "val_loss": 4.5},
    {"step": 10, "train_loss": 3.0, "val_loss": 3.25},
    {"step": 15, "train_loss": 2.0, "val_loss": 2.75},
]


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is made."""
    made = []

    class Kept(Figure):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(plot, "Figure", Kept)
    return made


def test_the_lines_are_the_logs(figures, tmp_path):
    grams = [Score("1-gram", 3.5), Score("2-gram", 2.5)]
    plot.loss_figure(tmp_path / "loss.png", LOG, grams)
    (axes,) = figures[0].axes
    lines = {line.get_label().split(" (")[0]: line for line in axes.lines}
    assert lines["training"].get_xydata().tolist() == [[10, 3.0], [15, 2.0]]
    assert lines["held out"].get_xydata().tolist() == [[10, 3.25], [15, 2.75]]
    assert lines["training"].get_color() != lines["held out"].get_color()
    flat = [line.get_ydata()[0] for line in axes.lines if len({*line.get_ydata()}) == 1]
    assert flat == [3.5, 2.5]
    texts = {text.get_text(): text for text in axes.texts}
    assert {"1-gram 3.50", "2-gram 2.50", "2.75"} <= set(texts)
    assert texts["2-gram 2.50"].xy == (1, 2.5)
    assert texts["2.75"].xy == (15, 2.75)
    assert texts["2.75"].get_color() == lines["held out"].get_color()
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        line.get_label() for line in axes.lines[:2]
    }
    assert "nats" in axes.get_ylabel() and "step" in axes.get_xlabel()
    assert math.isclose(axes.get_xlim()[0], 0)


def test_a_run_that_has_only_been_started(figures, tmp_path):
    plot.loss_figure(tmp_path / "loss.png", LOG[:1])
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_a_figure_is_written_whole(monkeypatch, tmp_path):
    written = {}
    monkeypatch.setattr(plot, "write_whole", lambda path, content: written.update({path: content}))
    plot.loss_figure(tmp_path / "loss.png", LOG)
    assert written[tmp_path / "loss.png"][:4] == b"\x89PNG"
    assert not (tmp_path / "loss.png").exists()
