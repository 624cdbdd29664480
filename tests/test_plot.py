"""The figures show the numbers of the logs: read back from the figure, not from its pixels."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.figure import Figure

from minigpt import plot
from minigpt.plot import Run, common_baselines, draw_runs, load_run, spread

LOG = [
    {"step": 0, "train_loss": None, "val_loss": 4.5, "seconds": 0.5},
    {"step": 10, "train_loss": 3.0, "val_loss": 3.25, "seconds": 2.0},
    {"step": 15, "train_loss": 2.0, "val_loss": 2.75, "seconds": 3.5},
    {"step": 20, "train_loss": 1.5, "val_loss": 3.0, "seconds": 4.5},
]
SETUP = {
    "tokens_per_step": 100,
    "characters_per_token": {"train": 1.0, "val": 1.0},
    "baselines": {"1-gram": 3.5, "2-gram": 2.5},
}
PAIRS = SETUP | {"characters_per_token": {"train": 2.0, "val": 2.5}, "tokens_per_step": 50}
ONE, PAIR = Run("one", LOG, SETUP), Run("pairs", LOG, PAIRS)


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


def labels(axes):
    return {text.get_text(): text for text in axes.texts}


def test_one_run(figures, tmp_path):
    draw_runs(tmp_path / "loss.png", [ONE])
    (axes,) = figures[0].axes
    lines = {line.get_label().split(" (")[0]: line for line in axes.lines}
    assert lines["training"].get_xydata().tolist() == [[10, 3.0], [15, 2.0], [20, 1.5]]
    assert lines["held out"].get_xydata().tolist() == [[10, 3.25], [15, 2.75], [20, 3.0]]
    assert lines["training"].get_color() != lines["held out"].get_color()
    flat = [line.get_ydata()[0] for line in axes.lines if len({*line.get_ydata()}) == 1]
    assert flat == [3.5, 2.5]
    texts = labels(axes)
    assert set(texts) == {"1-gram 3.50", "2-gram 2.50", "3.00"}
    assert texts["2-gram 2.50"].xy == (1, 2.5)
    assert texts["3.00"].xy == (1, 3.0)
    assert texts["3.00"].get_color() == lines["held out"].get_color()
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        line.get_label() for line in axes.lines[:2]
    }
    assert "nats per character" in axes.get_ylabel() and "step" in axes.get_xlabel()
    assert math.isclose(axes.get_xlim()[0], 0)


@pytest.mark.parametrize(
    ("x", "places"),
    [("steps", [10, 15, 20]), ("seconds", [2.0, 3.5, 4.5]), ("tokens", [500, 750, 1000])],
)
def test_several_runs_per_character_against_each_axis(figures, tmp_path, x, places):
    draw_runs(tmp_path / "both.svg", [ONE, PAIR], x)
    (axes,) = figures[0].axes
    training, held_out = axes.lines[2:4]
    np.testing.assert_allclose(training.get_xydata(), [*zip(places, [1.5, 1, 0.75], strict=True)])
    np.testing.assert_allclose(held_out.get_xydata(), [*zip(places, [1.3, 1.1, 1.2], strict=True)])
    assert training.get_color() == held_out.get_color() != axes.lines[0].get_color()
    texts = labels(axes)
    assert {"one 3.00", "pairs 1.20"} <= set(texts)
    assert texts["pairs 1.20"].get_color() == held_out.get_color()
    word = {"steps": "step", "seconds": "seconds", "tokens": "tokens"}[x]
    assert word in axes.get_xlabel()
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["held out", "training"]


def test_n_grams_are_drawn_only_where_all_runs_were_judged_on_their_text(figures, tmp_path):
    other = Run("other", LOG, SETUP | {"baselines": {"1-gram": 3.5, "2-gram": 2.4}})
    assert common_baselines([ONE, PAIR]) == {"1-gram": 3.5, "2-gram": 2.5}
    assert common_baselines([ONE, PAIR, other]) == {}
    draw_runs(tmp_path / "all.png", [ONE, other])
    assert not [text for text in labels(figures[0].axes[0]) if "gram" in text]


def test_the_best_is_the_lowest_per_character():
    assert ONE.best == (2.75, 15)
    assert PAIR.best == (pytest.approx(1.1), 15)


def test_a_run_that_has_only_been_started(figures, tmp_path):
    for runs in ([Run("one", LOG[:1], SETUP)], [Run("one", LOG[:1], SETUP), PAIR]):
        draw_runs(tmp_path / "loss.png", runs)
        assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_a_figure_is_written_whole_and_the_same_again(monkeypatch, tmp_path):
    written = []
    monkeypatch.setattr(plot, "write_whole", lambda path, content: written.append(content))
    for name in ("loss.png", "loss.svg"):
        for users_style in ({}, {"font.size": 30, "figure.constrained_layout.use": True}):
            with rc_context(users_style):
                draw_runs(tmp_path / name, [ONE, PAIR])
        assert written[-1] == written[-2]
    assert written[0][:4] == b"\x89PNG"
    assert b"<svg" in written[-1]
    assert not [*tmp_path.iterdir()]


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"loss.pdf: expected a name that ends in .png or .svg"):
        draw_runs(tmp_path / "loss.pdf", [ONE])


def write(folder, log, setup):
    folder.mkdir(exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "run.json").write_text(json.dumps(setup))
    return folder


def test_a_run_is_read_from_its_folder(tmp_path):
    run = load_run(write(tmp_path / "mine", LOG, PAIRS))
    assert (run.name, run.best) == ("mine", PAIR.best)
    assert run.points("tokens", "val_loss") == PAIR.points("tokens", "val_loss")


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run: .*log.jsonl: No such file"):
        load_run(tmp_path)
    folder = write(tmp_path / "run", LOG, SETUP)
    for name, content, message in (
        ("log.jsonl", "", "nothing was logged yet"),
        ("log.jsonl", "{nonsense\n", "log.jsonl is not the log of a run"),
        ("log.jsonl", "[]\n", "log.jsonl is not the log of a run"),
        ("log.jsonl", '{"step": 3}\n', "do not describe a run"),
        ("run.json", "{", "run.json does not describe a run"),
        ("run.json", "[]", "run.json does not describe a run"),
        ("run.json", "{}", "do not describe a run"),
    ):
        write(folder, LOG, SETUP)
        (folder / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            load_run(folder)
    (folder / "run.json").unlink()
    with pytest.raises(ValueError, match=r"is not a run: .*run.json: No such file"):
        load_run(folder)


def test_labels_that_do_not_meet_stay_and_others_share_the_move():
    assert spread([1.0, 2.0, 4.0], 0.5) == [1.0, 2.0, 4.0]
    assert spread([1.0, 1.0, 4.0], 0.5) == [0.75, 1.25, 4.0]
    assert spread([1.0, 1.0, 1.0], 0.5) == [0.5, 1.0, 1.5]
    assert spread([], 1.0) == []


@given(st.lists(st.floats(0, 10), max_size=12), st.floats(0.01, 1))
def test_spread_labels_are_apart_and_keep_their_mean(heights, room):
    heights.sort()
    moved = spread(heights, room)
    assert all(b - a > room - 1e-9 for a, b in zip(moved, moved[1:], strict=False))
    assert sum(moved) == pytest.approx(sum(heights), abs=1e-9)
