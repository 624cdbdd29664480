"""float16: each primitive rounds but once or a few times, and a run survives what overflows."""

import numpy as np
import pytest

from minigpt import backend, half, ops, tensor
from minigpt import functional as F
from minigpt.__main__ import main
from minigpt.attention import attention, causal_attention, causal_self_attention
from minigpt.backend import to_numpy, xp
from minigpt.checkpoint import load_checkpoint
from minigpt.half import FIRST, HalfPrecision, LossScale
from minigpt.model import GPT, POSITIONS, GPTConfig
from minigpt.optim import AdamW
from minigpt.parallel import DataParallel
from minigpt.positions import alibi_bias, rotary
from minigpt.recompute import recompute_blocks
from minigpt.record import LAST, load_last
from minigpt.tensor import Tensor, primitive
from minigpt.train import TrainConfig, TrainingError
from minigpt.variants.llama import swiglu
from minigpt.variants.norms import rms_norm
from tests.test_cost import held, owner
from tests.test_train import losses, quiet, trainer, weights

EPS = 2.0**-11  # a number's largest relative error when it is rounded to float16
TINY = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8)


def halves(*shape, scale=1.0, mean=0.0, seed=0):
    """Random numbers that float16 holds, as float32."""
    x = mean + scale * np.random.default_rng(seed).normal(size=shape)
    return x.astype("float16").astype("float32")


def taken(op, dtype, arrays, g, options):
    """The result and the gradients of the floating arguments, on the host, in a dtype."""
    args = [xp.asarray(x, dtype) if x.dtype.kind == "f" else x for x in arrays]
    options = {k: v() if callable(v) else v for k, v in options.items()}
    with np.errstate(all="raise", under="ignore"):
        out, vjp = op.forward(*args, **options)
        g = xp.asarray(g, dtype)
        found = vjp(g) if callable(vjp) else [f and f(g) for f in vjp]
    assert out.dtype == dtype
    grads = [dx for dx, x in zip(found, args, strict=False) if x.dtype.kind == "f"]
    assert [dx.dtype for dx in grads] == [dtype] * len(grads)
    return [to_numpy(x) for x in (out, *grads)]


def rng():
    return np.random.default_rng(5)


IDS = np.where(np.arange(20_000) % 50, 7, np.arange(20_000) % 1500)  # one row is read 19,600 times
CASES = {
    # name: (op, arrays, cotangent, options, roundings: of the largest result)
    "layer_norm, whose squares overflow": (
        F.layer_norm, [halves(5, 4096, scale=8), halves(4096, seed=1), halves(4096, seed=2)],
        halves(5, 4096, seed=3), {}, 0),
    "layer_norm, whose sums overflow": (
        F.layer_norm, [halves(5, 4096, mean=60), halves(4096, seed=1), halves(4096, seed=2)],
        halves(5, 4096, mean=30), {}, 0),
    "layer_norm of rows that are constant": (
        F.layer_norm, [halves(6, 1) + np.zeros((6, 64), "f"), halves(64), halves(64, seed=1)],
        halves(6, 64, scale=1e-3), {"eps": 1e-8}, 0),
    "layer_norm of many rows": (
        F.layer_norm, [halves(20_000, 4), halves(4, seed=1), halves(4, seed=2)],
        halves(20_000, 4, mean=1), {}, 0),
    "gelu": (F.gelu, [halves(9, 65, scale=3)], halves(9, 65, seed=1), {}, 0),
    "gelu of large numbers": (F.gelu, [halves(9, 65, scale=9000)], halves(9, 65, seed=1), {}, 0),
    "gelu by erf": (F.gelu, [halves(9, 65, scale=3)], halves(9, 65), {"approximate": "none"}, 0),
    "rms_norm": (rms_norm, [halves(5, 4096, scale=8), halves(4096, seed=1)],
                 halves(5, 4096, seed=2), {}, 0),
    "swiglu": (swiglu, [halves(99, scale=40), halves(99, scale=40, seed=1)], halves(99), {}, 0),
    "linear": (F.linear, [halves(20_000, 3), halves(3, 2, seed=1), halves(2, seed=2)],
               halves(20_000, 2, mean=0.5), {}, 2),
    "linear without b": (F.linear, [halves(4, 9, 700), halves(700, 8, seed=1)],
                         halves(4, 9, 8), {}, 1),
    "embedding": (F.embedding, [halves(64, 4), IDS % 64], halves(20_000, 4, mean=0.2), {}, 1),
    "embedding of many tokens": (F.embedding, [halves(1500, 4), IDS],
                                 halves(20_000, 4, mean=0.2), {}, 1),
    "a row added to many": (ops.add, [halves(20_000, 2, 3), halves(2, 3)],
                            halves(20_000, 2, 3, mean=0.2), {}, 1),
    "dropout": (F.dropout, [halves(300)], halves(300, seed=1), {"p": 0.3, "rng": rng}, 3),
    "rotary": (rotary, [halves(2, 99, 8)], halves(2, 99, 8, seed=1), {}, 4),
    "attention": (attention, [halves(2, 9, 8, seed=i) for i in range(3)], halves(2, 9, 8), {}, 8),
    "causal_attention": (causal_attention, [halves(577, 8, seed=i) for i in range(3)],
                         halves(577, 8, mean=1), {}, 8),
    "causal_self_attention": (
        causal_self_attention, [halves(2, 130, 48)], halves(2, 130, 16, seed=1),
        {"n_head": 4, "rope": True, "p": 0.2, "rng": rng, "bias": alibi_bias(4, 130)}, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_primitive_in_float16_is_the_one_in_float32_but_for_rounding(name):
    op, arrays, g, options, roundings = CASES[name]
    single, found = (taken(op, d, arrays, g, options) for d in ("float32", "float16"))
    for ours, exact in zip(found, single, strict=True):
        assert np.isfinite(ours).all()
        if roundings == 0:  # computed in float32, from the same numbers, and rounded once
            np.testing.assert_array_equal(ours, exact.astype("float16"))
        bound = EPS * max(1, roundings) * np.abs(exact).max()
        np.testing.assert_allclose(ours.astype("float64"), exact, rtol=EPS, atol=bound)


def test_a_gpus_own_way_to_scatter_rows_adds_in_float32_too(monkeypatch):
    """In float16, 512 + 0.25 is 512."""
    rows, idx = xp.full((20_000, 2), 0.25, "float16"), xp.asarray(IDS)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "on_host", False)  # then by add.at
        out = backend.scatter_add(idx, rows, 1500)
    out = to_numpy(out)
    np.testing.assert_array_equal(out[7], np.full(2, 0.25 * (IDS == 7).sum(), "float16"))
    assert out[7, 0] > 4000


def test_the_loss_of_many_tokens_is_float32():
    """Sixteen thousand losses of more than 4 nats: as float16 their sum would be inf."""
    logits, targets = halves(16_384, 65, scale=2), np.arange(16_384) % 65
    single, wide = (Tensor(xp.asarray(logits, dtype), True) for dtype in ("float32", "float16"))
    exact = F.cross_entropy(single, targets)
    loss = F.cross_entropy(primitive(half._widened)(wide), targets)
    assert loss.dtype == "float32"
    assert loss.item() == exact.item() > 4
    for x in (exact, loss):
        x.backward(FIRST)  # no number of float16
    np.testing.assert_array_equal(to_numpy(wide.grad), to_numpy(single.grad).astype("float16"))
    assert float(np.finfo("float16").max) < FIRST


# --- the model ---


def team(scale=None, dropout=0.0, recompute=False, **sizes):
    """(float32's workers, float16's) of the same model."""
    model = GPT(GPTConfig(**TINY | sizes, dropout=dropout), np.random.default_rng(0))
    if recompute:
        recompute_blocks(model)
    optimizer = AdamW(model.parameters(), 1e-2, decay=model.decayed_parameters())
    loss_scale = LossScale()
    loss_scale.value = scale or loss_scale.value
    return DataParallel(model, optimizer, 1), HalfPrecision(model, optimizer, loss_scale)


def batch(n=6):
    return np.random.default_rng(1).integers(11, size=(2, n, 8))


def gradient(workers, *args, **options):
    """The loss, and the flat gradient, of a batch."""
    workers.optimizer.zero_grad()
    loss = workers.backward(*args, **options)
    assert (loss.dtype, workers.optimizer.grad.dtype) == ("float32", "float32")
    return loss.item(), to_numpy(workers.optimizer.grad).copy()


def error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


SHAPES = [{"position": name} for name in POSITIONS] + [
    {"tied": False, "bias": False}, {"dropout": 0.3}, {"recompute": True, "dropout": 0.3},
]  # fmt: skip


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_a_models_gradient_is_float32s_but_for_rounding(sizes, monkeypatch):
    """And all of it but the loss is float16: each result, and each gradient on its way."""
    found, apply = set(), tensor._apply

    def watched(node, g):
        gradients = apply(node, g)
        for parent, dx in zip(node._parents, gradients, strict=False):
            found.update((x.dtype.name, x.size) for x in (node, g, parent, dx) if parent)
        return gradients

    single, ours = team(2.0**12, **sizes)
    loss, wanted = gradient(single, *batch(), rng())
    monkeypatch.setattr(tensor, "_apply", watched)
    half_loss, grad = gradient(ours, *batch(), rng())
    assert half_loss == pytest.approx(loss, abs=1e-3)
    assert error(grad, wanted) < 4e-3
    logits = 6 * 8 * 11
    assert {size for name, size in found if name == "float32"} == {1, logits}
    assert {name for name, _ in found} == {"float16", "float32"}


@pytest.mark.parametrize("sizes", [{}, {"dropout": 0.1}, {"position": "rope"}], ids=str)
def test_until_the_backward_pass_it_keeps_half_arrays_alone(sizes):
    """And no more of them than float32 keeps: so half the bytes, or less."""
    single, ours = team(n_embd=32, **sizes)
    ours.data[...] = ours.optimizer.data
    found = []
    for model in (single.models[0], ours.model):
        own = {id(owner(p.data)) for p in model.parameters()}
        arrays = held(model(batch()[0], rng()))
        found.append([x for x in arrays if x.dtype.kind == "f" and id(x) not in own])
    assert {x.dtype.name for x in found[1]} == {"float16"}
    whole, part = (sum(x.nbytes for x in arrays) for arrays in found)
    print(f"{part / whole:.2f} of float32's bytes")
    assert 0.3 < part / whole <= 0.5


def test_the_replica_follows_the_weights_and_leaves_them_alone():
    _, ours = team()
    before, first = ours.optimizer.data.copy(), gradient(ours, *batch())
    assert (ours.optimizer.data == before).all()
    assert ours.optimizer.data.dtype == "float32"
    ours.optimizer.step()
    assert gradient(ours, *batch())[0] < first[0]


def test_gradients_too_small_for_float16_survive_the_scale():
    single, ours = team()
    _, wanted = gradient(single, *batch(), weight=1e-6)
    assert np.abs(wanted).max() < 2.0**-20
    _, grad = gradient(ours, *batch(), weight=1e-6)
    assert error(grad, wanted) < 4e-3
    _, bare = gradient(team(scale=1.0)[1], *batch(), weight=1e-6)
    assert (bare == 0).mean() > 0.8
    assert error(bare, wanted) > 0.1


def test_four_micro_batches_are_one_batch():
    _, ours = team()
    idx = batch(8)
    loss, whole = gradient(ours, *idx)
    ours.optimizer.zero_grad()
    parts = [ours.backward(*idx[:, i : i + 2], weight=1 / 4).item() for i in range(0, 8, 2)]
    assert np.mean(parts) == pytest.approx(loss, abs=1e-4)
    assert error(to_numpy(ours.optimizer.grad), whole) < 4e-3


# --- the scale ---


def test_the_scale_grows_after_good_steps_and_falls_at_once(monkeypatch):
    monkeypatch.setattr(half, "GOOD_STEPS", 3)
    scale, seen = LossScale(), []
    for norm in (1, 1, np.inf, 1, 1, 1, np.nan, 1, 1, 1, 1, 1, 1, 1):
        seen.append((scale.accepts(xp.asarray(norm, "float32")), scale.value / FIRST))
    taken, values = zip(*seen, strict=True)
    assert [i for i, ok in enumerate(taken) if not ok] == [2, 6]
    assert values == (1, 1, 0.5, 0.5, 0.5, 1, 0.5, 0.5, 0.5, 1, 1, 1, 2, 2)
    assert (scale.skipped, scale.good) == (2, 1)


def test_a_step_that_overflows_changes_nothing_but_the_scale(tmp_path):
    run = trainer(tmp_path, precision="float16", accumulate=2, warmup=0)
    for _ in range(2):
        run._step()
    run._look()
    run.scale.value = 2.0**60
    buffers = [run.optimizer.data, *run.optimizer.buffers().values()]
    before, count = [to_numpy(b).tobytes() for b in buffers], len(run.losses)
    run._step()
    run._look()
    assert [to_numpy(b).tobytes() for b in buffers] == before
    assert (run.step, run.optimizer.steps, len(run.losses)) == (3, 2, count)
    assert vars(run.scale) == {"value": 2.0**59, "good": 0, "skipped": 1}
    run.scale.value = FIRST
    run._step()
    assert (run.step, run.optimizer.steps) == (4, 3)
    assert [to_numpy(b).tobytes() for b in buffers] != before


def test_a_run_finds_its_scale_and_says_so(tmp_path):
    run, lines = trainer(tmp_path, precision="float16", steps=16, eval_every=2), []
    run.scale.value = 2.0**24
    run.run(lines.append)
    skipped = run.scale.skipped
    assert skipped > 2
    assert (run.step, run.optimizer.steps) == (16, 16 - skipped)
    assert f"loss scale {2.0 ** (24 - skipped):g}, skipped steps {skipped}" in lines[-1]
    assert run.log[1]["train_loss"] is None  # both steps before it were skipped
    assert "train nan" in lines[0]
    assert run.log[-1]["train_loss"] < run.log[0]["val_loss"]


def test_what_overflows_at_any_scale_ends_the_run(tmp_path):
    run = trainer(tmp_path, precision="float16", eval_every=100)
    run.optimizer.data[:5] = 1e5  # float32 holds it, and its squares
    with pytest.raises(TrainingError, match=r"float16 at a loss scale of 1, by step \d+: .* keeps"):
        run.run(quiet)
    assert run.optimizer.steps == 0
    assert load_checkpoint(tmp_path / LAST).training["step"] == 0


# --- runs ---


def test_fifty_steps_end_where_float32_does(tmp_path):
    """Held out: within 0.001 nats, of the 1.5 or more that were learned."""
    shape = GPTConfig(28, block_size=8, n_layer=1, n_head=2, n_embd=16)
    runs = [trainer(tmp_path / p, precision=p, shape=shape, steps=50, batch_size=8)
            for p in ("float32", "float16")]  # fmt: skip
    runs[1].scale.value = 2.0**12  # so that both take every step
    for run in runs:
        run.run(quiet)
    single, ours = ([line["val_loss"] for line in run.log] for run in runs)
    assert runs[1].scale.skipped == 0
    assert single[-1] < single[0] - 1.5
    assert ours[-1] != single[-1]
    np.testing.assert_allclose(ours, single, atol=1e-3)


def test_killed_and_resumed_is_the_undisturbed_run(tmp_path, monkeypatch):
    """With steps skipped before and after, scales that grow, dropout, and micro-batches."""
    monkeypatch.setattr(half, "GOOD_STEPS", 4)

    def begun(name):
        run = trainer(tmp_path / name, precision="float16", accumulate=2, save_every=5)
        run.scale.value = 2.0**20
        return run

    def killed():
        if part.step == 18:
            raise KeyboardInterrupt
        step()

    whole, part = begun("whole"), begun("part")
    whole.run(quiet)
    step, part._step = part._step, killed
    with pytest.raises(KeyboardInterrupt):
        part.run(quiet)
    last = load_last(tmp_path / "part")
    before = last.training["scale"]
    assert (last.training["step"], before["skipped"] > 0, before["good"] > 0) == (15, True, True)
    resumed = trainer(tmp_path / "part", last, **last.training["config"])
    assert resumed.optimizer.steps == 15 - before["skipped"]
    resumed.run(quiet)
    assert losses(resumed) == losses(whole)
    assert weights(resumed) == weights(whole)
    assert vars(resumed.scale) == vars(whole.scale)
    assert whole.scale.skipped > before["skipped"]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_checkpoint_that_knows_of_no_scale_is_resumed(tmp_path, precision):
    run = trainer(tmp_path, steps=2)
    run.run(quiet)
    last = load_last(tmp_path)
    del last.training["scale"], last.training["config"]["precision"]
    assert TrainConfig(**last.training["config"]).precision == "float32"
    resumed = trainer(tmp_path, last, steps=4, precision=precision)
    resumed.planned = 4
    resumed.run(quiet)
    assert (resumed.step, resumed.optimizer.steps) == (4, 4 - resumed.scale.skipped)


COMMAND = ["train", "--precision", "float16", "--batch-size", "4", "--n-layer", "1", "--n-head",
           "2", "--n-embd", "16", "--block-size", "16", "--eval-tokens", "100"]  # fmt: skip


def test_the_command(tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert main([*COMMAND, "--steps", "3", "--accumulate", "2", *out]) == 0
    shown = capsys.readouterr()
    assert "threads     1, whose products are float16" in shown.out
    assert "loss scale" in shown.out + shown.err
    last = load_last(tmp_path / "run")
    assert {p.dtype.name for p in last.model.parameters()} == {"float32"}
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "float64"], "precision must be one of float32, float16; got 'float64'"),
        (["--precision", "float16", "--workers", "2"], "float16 runs on one worker, got workers 2"),
    ],
)
def test_what_the_command_refuses(tmp_path, capsys, options, message):
    assert main([*COMMAND, *options, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
