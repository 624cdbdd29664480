"""The benchmarks in small: all contestants do the same work, and the machinery measures it.

What needs a library that is not installed is skipped by name; compiled PyTorch is left to
`python -m benchmarks.compare`, which compares its losses too: it compiles for half a minute.
"""

import csv
import math

import numpy as np
import pytest

from benchmarks import compare, growth, turns
from benchmarks.composed_gpt import adamw, mean_loss
from benchmarks.contestants import CONTESTANTS
from benchmarks.turns import Job, Result
from benchmarks.workload import ADAMW, CONFIGS, Config, initial_weights, matrix_products
from minigpt import functional as F
from minigpt.backend import xp
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW, clip_grad_norm
from minigpt.tensor import Tensor

TINY = Config(2, dict(n_layer=1, n_embd=8, block_size=6, n_head=2, vocab_size=11))


@pytest.mark.filterwarnings("ignore")  # of other libraries among themselves
@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("name", ["alone", "recompute", "returned", "torch", "autograd", "jax"])
def test_every_contestant_has_minigpts_losses(name, forward):
    if not CONTESTANTS[name].installed():
        pytest.skip(f"needs {name}: benchmarks/requirements.txt")
    if name == "jax":
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_disable_most_optimizations", True)  # compiles faster
    ours, theirs = (CONTESTANTS[n].build(TINY, forward) for n in ("minigpt", name))
    losses = [(ours(), theirs()) for _ in range(3)]
    assert all(abs(a - b) <= 1e-5 for a, b in losses)
    assert len({a for a, _ in losses}) == 3  # another batch each time


def test_a_step_trains_and_a_forward_pass_does_not():
    train, forward = (CONTESTANTS["minigpt"].build(TINY, f) for f in (False, True))
    first, second = ((train(), forward()) for _ in range(2))
    assert first[0] == first[1]
    assert second[0] != second[1]


def test_autograd_stays_in_float32():
    autograd = pytest.importorskip("autograd", reason="needs autograd: benchmarks/requirements.txt")
    import autograd.numpy as anp

    params, idx = initial_weights(TINY), np.arange(12).reshape(2, 6) % 11
    grads = autograd.grad(lambda p: mean_loss(anp, p, idx, idx, TINY.network))(params)
    zeros = {name: 0 * p for name, p in params.items()}
    arrays = [a for new in (grads, *adamw(anp, params, grads, zeros, zeros, 1)) for a in
              new.values()]  # fmt: skip
    assert {a.dtype for a in arrays} == {np.dtype("float32")}
    assert mean_loss(np, params, idx, idx, TINY.network).dtype == "float32"


def test_the_composed_network_is_minigpts():
    """With weights so large that every term of it counts."""
    params = {name: 20 * p if p.ndim == 2 else p for name, p in initial_weights(TINY).items()}
    model, idx = GPT(GPTConfig(**TINY.network), np.random.default_rng(0)), np.eye(2, 6, dtype=int)
    model.load_arrays(params)
    loss = mean_loss(np, params, idx, 1 - idx, TINY.network)
    assert loss == pytest.approx(F.cross_entropy(model(idx), 1 - idx).item(), rel=1e-5)


def test_the_composed_update_is_minigpts():
    """Gradients that need clipping, and weights large enough to see them decay."""
    rng, shapes = np.random.default_rng(0), {"h.0.w.weight": (3, 4), "wte.weight": (5, 3)}
    params = {name: rng.normal(0, 100, shape) for name, shape in shapes.items()}
    tensors = {name: Tensor(p.copy(), requires_grad=True) for name, p in params.items()}
    optimizer = AdamW(tensors.values(), decay=[tensors["h.0.w.weight"]], **ADAMW)
    m, v = ({name: 0 * p for name, p in params.items()} for _ in range(2))
    for t, std in ((1, 10.0), (2, 0.01)):  # the second needs no clipping
        grads = {name: rng.normal(0, std, shape) for name, shape in shapes.items()}
        params, m, v = adamw(np, params, grads, m, v, t)
        for name, tensor in tensors.items():
            tensor.grad = xp.array(grads[name])
        clip_grad_norm(optimizer.params, 1.0)
        optimizer.step()
    for name, tensor in tensors.items():
        np.testing.assert_allclose(params[name], tensor.numpy(), rtol=1e-12)


@pytest.mark.parametrize("label", CONFIGS)
def test_the_products_are_all_there(label):
    B, n = CONFIGS[label].batch_size, CONFIGS[label].network
    C, T, V = n["n_embd"], n["block_size"], n["vocab_size"]

    def multiplications(forward):
        products = matrix_products(CONFIGS[label], forward)
        return sum(math.prod(shape) * count for shape, count in products.items())

    once = B * T * (n["n_layer"] * (12 * C * C + 2 * T * C) + C * V)
    assert (multiplications(True), multiplications(False)) == (once, 3 * once)


def test_jobs_are_measured_and_one_that_raises_has_failed():
    jobs = {name: Job(name, TINY) for name in ("minigpt", "products", "nobody")}
    lines = []
    results = turns.measure(jobs, repeats=2, threads=1, report=lines.append)
    assert results["nobody"].failed == "KeyError: 'nobody'"
    assert results["nobody"].ms == []
    for name in ("minigpt", "products"):
        result = results[name]
        assert not result.failed
        assert len(result.ms) == 2 and min(result.ms) > 0 and result.turn >= 3
        assert result.mib is None or 0 < result.mib < 100  # not this process's, which is larger
    assert len(results["minigpt"].losses) == turns.WARM_UP_STEPS
    assert all(abs(loss - math.log(11)) < 0.1 for loss in results["minigpt"].losses)
    assert "nobody: failed: KeyError: 'nobody'" in lines and "repeat 2 of 2" in lines


def test_a_slow_contestant_takes_single_steps():
    taken = []

    def run(ms):
        return lambda n: taken.append(n) or ms

    assert turns.warm_up(run(10.0)) == 40  # 0.4 s
    assert turns.warm_up(run(1000.0)) == 3
    taken.clear()
    assert turns.warm_up(run(2001.0)) == 1
    assert taken == [1, 1]


@pytest.mark.parametrize("other", [[4.0, 4.1, 4.20002], [4.0, 4.2], [math.nan]])
def test_other_losses_stop_the_run(other):
    turns.check_losses({"a": [4.0, 4.1, 4.2], "b": [4.000009, 4.1], "c": [4.0]})
    with pytest.raises(SystemExit, match="losses differ at step .: a 4.*, b "):
        turns.check_losses({"a": [4.0, 4.1, 4.2], "b": other})


def test_ratios_are_taken_within_a_repeat():
    results = {
        "minigpt": Result([], 4, [2.0, 40.0, 3.0], [6.0, 7.0, 8.0], 12.3),
        "torch": Result([], 4, [1.0, 20.0, 1.0], [2.0, 1.0, 1.0]),
        "autograd": Result([], 1, [8.0, 80.0], [4.0, 4.0]),
        "compiled": Result(failed="InductorError: no compiler: none"),
        "products": Result([], 9, [1.0, 10.0, 1.5], [1.0, 1.0, 1.0]),
    }
    names = ["minigpt", "torch", "compiled", "autograd", "jax", "products"]
    rows = compare.rows_of("A train", names, results, dict.fromkeys(names, 0.25))
    assert rows[0] == ["A train", "minigpt", "3.0 (2.0-40.0)", "2.00 (2.00-3.00)", "50%", "7.0",
                       "7.00", "12", "0.25", "3 x 4"]  # fmt: skip
    assert rows[1][3:8] == ["1.00 (1.00-1.00)", "100%", "1.0", "1.00", "?"]
    assert rows[2][2:] == ["failed: InductorError", *[""] * 7]
    assert [rows[3][i] for i in (3, 4, 6, 9)] == ["6.00 (4.00-8.00)", "12%", "3.00", "2 x 1"]
    assert rows[4][1:3] == ["JAX, compiled", "not installed"]


def test_one_command_prints_one_table(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(compare, "CONFIGS", {"A": TINY})
    monkeypatch.setattr(compare, "FORWARD", ("A",))
    monkeypatch.setattr(compare, "import_seconds", lambda modules: 0.25)
    compare.main(["--contestants", "products", "recompute", "minigpt", "--repeats", "2",
                  "--out", str(tmp_path / "all.csv")])  # fmt: skip
    printed = capsys.readouterr()
    lines = [line.split("  ")[0] + ":" + line[12:30].strip() for line in printed.out.splitlines()]
    assert lines[1:7] == ["work:contestant", "A train:minigpt", "A train:minigpt, recompute",
                          "A train:products alone", "A forward:minigpt",
                          "A forward:products alone"]  # fmt: skip
    assert "A forward: repeat 2 of 2" in printed.err
    with open(tmp_path / "all.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5 and {row["repeat"] for row in rows} == {"0", "1"}
    ours = [float(row["ms"]) for row in rows if row["contestant"] == "minigpt"][:2]
    shown = printed.out.splitlines()[2][32:].split()[0]
    assert float(shown) == pytest.approx(sum(ours) / 2, abs=0.06)  # the median of two


def test_import_seconds_are_those_of_a_fresh_interpreter():
    assert 0 < compare.import_seconds(("numpy", "numpy.linalg")) < 60  # here, it is imported


@pytest.mark.parametrize(
    "options",
    [["--configs", "Z"], ["--repeats", "0"], ["--contestants", "tf"], ["--training", "--forward"]],
)
def test_a_comparison_that_cannot_be_made(options, capsys):
    with pytest.raises(SystemExit) as end:
        compare.main(options)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_growth_fits_the_exponent_of_a_power():
    sizes = [1, 2, 4, 8]
    assert growth.exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    points = [growth.Point("layers", n, n + 0.1 * n * n, 0, 0, 7) for n in sizes]
    [_, cells] = growth.summary(points)
    assert cells[:2] == ["layers", "1-8"]
    assert 1 < float(cells[3]) < float(cells[4]) < 2  # the square takes over
    assert cells[6:] == ["0.00", "0.00"]


def test_growth_doubles_one_size_at_a_time():
    for axis, (name, *_) in growth.AXES.items():
        config, base = growth.config_of(axis, 4), growth.BASE
        sizes = config.network | {"batch_size": config.batch_size}
        before = base.network | {"batch_size": base.batch_size}
        assert {k for k in sizes if sizes[k] != before[k]} == {name}
        assert growth.size_of(axis, config) == 4 * growth.size_of(axis, base)


def test_growth_is_measured_and_drawn(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(growth, "BASE", TINY)
    monkeypatch.setattr(growth, "AXES", {"context": ("block_size", 1, "black")})
    out, figure = tmp_path / "growth.csv", tmp_path / "growth.svg"
    growth.main(["--repeats", "1", "--out", str(out), "--figure", str(figure)])
    header, *rows = out.read_text("utf-8").splitlines()
    assert header == "axis,size,ms,ms_low,ms_high,mib"
    assert [row.split(",")[:2] for row in rows] == [["context", "6"], ["context", "12"]]
    assert figure.read_text("utf-8").startswith("<?xml")
    assert "context" in capsys.readouterr().out
