"""The scaling study in small: it measures what is missing, and its intervals are Student's."""

import numpy as np
import pytest
from scipy import stats

from benchmarks import scaling
from minigpt import data


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(scaling, "SIZES", {"small": (1, 8, 2), "large": (1, 16, 2)})
    parts = data.split(data.load("facts"))
    few = data.Splits(parts.train[:20_000], parts.val[:1000], parts.test[:1000])
    monkeypatch.setattr(data, "split", lambda corpus: few)


def test_a_study_goes_on_where_it_was(small, tmp_path, capsys, monkeypatch):
    out, figure = tmp_path / "rows.csv", tmp_path / "figure.svg"
    options = ["--steps", "2", "--out", str(out), "--figure", str(figure)]
    assert scaling.main([*options, "--seeds", "2"]) == 0
    rows = scaling.read(out)
    assert [(row.size, row.seed) for row in rows] == [
        ("small", 0), ("small", 1), ("large", 0), ("large", 1)]  # fmt: skip
    assert rows[0].parameters < rows[2].parameters
    assert all(3 < row.nats < 5 and row.tokens_per_second > 0 for row in rows)  # ln 94 = 4.5
    assert figure.read_text("utf-8").startswith("<?xml")
    measured = []
    monkeypatch.setattr(scaling, "measure", lambda size, seed, steps, *_: measured.append(
        (size, seed)) or scaling.Run(size, seed, steps, 1, 4.0, 1.0))  # fmt: skip
    assert scaling.main([*options, "--seeds", "3"]) == 0
    assert measured == [("small", 2), ("large", 2)]
    assert scaling.read(out)[:2] == rows[:2]
    assert "small" in capsys.readouterr().out


def test_the_interval_of_a_mean():
    nats = np.random.default_rng(0).normal(2, 0.1, 4)
    rows = [scaling.Run("a", seed, 9, 100, x, 10.0 + seed) for seed, x in enumerate(nats)]
    [(name, parameters, mean, half, speed)] = scaling.summary(rows)
    low, high = stats.t.interval(0.95, 3, nats.mean(), stats.sem(nats))
    assert (name, parameters, speed) == ("a", 100, 11.5)
    np.testing.assert_allclose([mean - half, mean + half], [low, high], atol=1e-3)
    assert all(abs(t - stats.t.ppf(0.975, n - 1)) < 0.006 for n, t in scaling.T95.items())


@pytest.mark.parametrize("options", [["--seeds", "1"], ["--steps", "0"]])
def test_a_study_that_cannot_be_drawn(options, capsys):
    with pytest.raises(SystemExit) as end:
        scaling.main(options)
    assert end.value.code == 2
    assert "expected 2 to 8 seeds and at least 1 step" in capsys.readouterr().err
