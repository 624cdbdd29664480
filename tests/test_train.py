"""The loop: repeatable to the last bit, stopped and resumed exactly, and safe when it fails."""

import json
import os
import signal
import time

import numpy as np
import pytest

from minigpt import functional as F
from minigpt.checkpoint import CheckpointError, load_checkpoint
from minigpt.evaluate import nats_per_token
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW, clip_grad_norm
from minigpt.schedules import warmup_cosine
from minigpt.tokenizer import CharTokenizer
from minigpt.train import TrainConfig, Trainer, TrainingError

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40
TOKENIZER = CharTokenizer.from_text(TEXT)
IDS = TOKENIZER.encode(TEXT)
SHAPE = GPTConfig(
    TOKENIZER.vocab_size, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.1
)  # fmt: skip


def trainer(folder, resume=None, **options):
    config = TrainConfig(**({"steps": 30, "eval_every": 10, "batch_size": 4} | options))
    rng = np.random.default_rng(config.seed)
    model = resume.model if resume else GPT(SHAPE, rng)
    return Trainer(model, TOKENIZER, IDS[:1000], IDS[1000:], config, folder, rng, resume)


def quiet(line):
    pass


def losses(run):
    return [(line["step"], line["train_loss"], line["val_loss"]) for line in run.log]


def weights(run):
    return b"".join(p.data.tobytes() for p in run.model.parameters())


def test_same_seed_same_bits(tmp_path):
    runs = [trainer(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    for run in runs:
        run.run(quiet)
    assert losses(runs[0]) == losses(runs[1])
    assert weights(runs[0]) == weights(runs[1])
    assert losses(runs[0]) != losses(runs[2])


def test_it_learns(tmp_path):
    run = trainer(tmp_path, steps=200, eval_every=100)
    run.run(quiet)
    first, last = run.log[0]["val_loss"], run.log[-1]["val_loss"]
    assert abs(first / np.log(SHAPE.vocab_size) - 1) < 0.05
    assert last < first - 1


def test_log_and_files(tmp_path):
    run = trainer(tmp_path / "run")
    lines = []
    run.run(lines.append)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log == run.log
    assert [line["step"] for line in log] == [0, 10, 20, 30]
    assert set(log[1]) == {"step", "train_loss", "val_loss", "lr", "tokens_per_second", "seconds"}
    assert len(lines) == 3
    assert f"held out {log[-1]['val_loss']:.4f} nats per token" in lines[-1]
    last = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert last.training["step"] == 30
    best = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert best.training["best"] == min(line["val_loss"] for line in log)
    assert last.tokenizer.chars == TOKENIZER.chars


def test_best_is_kept_when_it_gets_worse(tmp_path):
    """Trained on one text and judged on another, the held-out loss rises in the end."""
    run = trainer(tmp_path, steps=150, lr=2e-2)
    run.val_ids = run.val_ids[::-1].copy()
    run.run(quiet)
    val = [line["val_loss"] for line in run.log]
    assert min(val) < val[-1]
    best = load_checkpoint(tmp_path / "best.safetensors")
    assert best.training["log"][-1]["val_loss"] == min(val)


def test_stopped_and_resumed_is_the_undisturbed_run(tmp_path, monkeypatch):
    whole = trainer(tmp_path / "whole")
    whole.run(quiet)
    part = trainer(tmp_path / "part")
    real, lines = part._step, []

    def step_with_interrupt():
        if part.step == 16:
            os.kill(os.getpid(), signal.SIGINT)  # arrives in the middle of a step
        return real()

    monkeypatch.setattr(part, "_step", step_with_interrupt)
    handler = signal.getsignal(signal.SIGINT)
    part.run(lines.append)
    assert signal.getsignal(signal.SIGINT) is handler
    assert part.step == 17
    assert "stopped at step 17" in lines[-1]
    resumed = trainer(tmp_path / "part", load_checkpoint(tmp_path / "part" / "last.safetensors"))
    assert resumed.step == 17
    resumed.run(quiet)
    assert losses(resumed) == losses(whole)
    assert weights(resumed) == weights(whole)


def test_resumed_after_its_end_does_nothing(tmp_path):
    run = trainer(tmp_path)
    run.run(quiet)
    again = trainer(tmp_path, load_checkpoint(tmp_path / "last.safetensors"))
    again.run(quiet)
    assert again.step == 30
    assert weights(again) == weights(run)


def test_a_checkpoint_without_the_runs_state_cannot_be_resumed(tmp_path):
    trainer(tmp_path).run(quiet)
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        trainer(tmp_path, load_checkpoint(tmp_path / "best.safetensors"))


def test_the_planned_run_is_the_run_with_that_many_steps(tmp_path):
    timed, lines = trainer(tmp_path / "timed", steps=0, seconds=1.0, warmup=20), []
    timed.run(lines.append)
    plan = next(line for line in lines if line.startswith("plan"))
    assert f"{timed.planned} steps" in plan
    assert timed.step == timed.planned > 20
    counted = trainer(tmp_path / "counted", steps=timed.planned, warmup=20)
    counted.run(quiet)
    assert losses(counted) == losses(timed)
    assert weights(counted) == weights(timed)


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    run = trainer(tmp_path)
    real = run._step

    def poisoned():
        if run.step == 14:
            run.model.ln_f.weight.data[0] = np.nan
        return real()

    run._step = poisoned
    with pytest.raises(TrainingError, match=r"the loss is nan at step 14: .* keeps step 10"):
        run.run(quiet)
    kept = load_checkpoint(tmp_path / "last.safetensors")
    assert kept.training["step"] == 10
    assert all(np.isfinite(p.data).all() for p in kept.model.parameters())


def test_an_evaluation_that_is_nan_saves_nothing(tmp_path):
    run = trainer(tmp_path)
    real = run.optimizer.step

    def poisoned():
        real()
        if run.step == 9:  # the tenth step: the next thing is the evaluation
            run.optimizer.data[0] = np.nan

    run.optimizer.step = poisoned
    with pytest.raises(TrainingError, match="held-out loss is nan at step 10: .* keeps step 0"):
        run.run(quiet)
    assert load_checkpoint(tmp_path / "last.safetensors").training["step"] == 0


def test_too_short_texts(tmp_path):
    config = TrainConfig(steps=1)
    for train, val, message in (
        (IDS[:8], IDS, "the training text has 8 tokens: block_size 8 needs 9 or more"),
        (IDS, IDS[:8], "the validation text has 8 tokens"),
    ):
        rng = np.random.default_rng(0)
        with pytest.raises(ValueError, match=message):
            Trainer(GPT(SHAPE, rng), TOKENIZER, train, val, config, tmp_path, rng)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be positive, got 0"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
        ({"steps": -1}, "steps must be 0 or more, and finite, got -1"),
        ({"steps": 5, "seconds": 5.0}, "steps or seconds, not both"),
        ({"seconds": float("inf")}, "seconds must be 0 or more, and finite, got inf"),
        ({"beta2": 1.0}, "beta2 must be in 0 <= beta2 < 1, got 1.0"),
    ],
)
def test_config_errors(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


def test_batches_are_windows_with_targets_one_place_on(tmp_path):
    run = trainer(tmp_path)
    run.train_ids = np.arange(1000)
    starts = set()
    for _ in range(200):
        idx, targets = run._batch()
        assert idx.shape == targets.shape == (4, 8)
        assert (targets == idx + 1).all()
        assert (np.diff(idx) == 1).all()
        starts |= set(idx[:, 0])
    assert min(starts) < 20
    assert max(starts) > 970
    assert max(starts) + 8 <= 999


def test_the_loop_is_the_loop_written_out(tmp_path):
    """Batch, dropout, clipping, schedule, decay, and what is logged: every number by hand."""
    run = trainer(
        tmp_path, steps=12, eval_every=5, lr=0.05, final_lr=0.3, warmup=4,
        weight_decay=0.5, beta2=0.7, clip=0.05, eval_tokens=100,
    )  # fmt: skip
    run.run(quiet)
    rng = np.random.default_rng(0)
    model = GPT(SHAPE, rng)
    optimizer = AdamW(
        model.parameters(), 0.0, (0.9, 0.7), weight_decay=0.5, decay=model.decayed_parameters()
    )
    log, since = [(0, None, nats_per_token(model, IDS[1000:1101]), 0.0)], []
    for step in range(12):
        window = IDS[rng.integers(0, 1000 - 8, 4)[:, None] + np.arange(9)]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(window[:, :-1], rng), window[:, 1:])
        loss.backward()
        assert clip_grad_norm(optimizer.params, 0.05) > 0.05  # so clipping does change the run
        optimizer.lr = warmup_cosine(step, lr=0.05, warmup=4, steps=12, final=0.3)
        optimizer.step()
        since.append(loss.item())
        if step + 1 in (5, 10, 12):  # every fifth, and the last
            val = nats_per_token(model, IDS[1000:1101])
            log.append((step + 1, float(np.mean(since)), val, optimizer.lr))
            since = []
    assert [(*line, row["lr"]) for line, row in zip(losses(run), run.log, strict=True)] == log
    assert weights(run) == b"".join(p.data.tobytes() for p in model.parameters())


def test_the_seconds_of_a_resumed_run_go_on_from_those_before(tmp_path):
    run = trainer(tmp_path, steps=10)
    run.run(quiet)
    resume = load_checkpoint(tmp_path / "last.safetensors")
    assert 0 < run.log[-1]["seconds"] <= resume.training["elapsed"] + 0.005
    resume.training |= {"planned": 20, "elapsed": 1000.0}
    again = trainer(tmp_path, resume)
    again.run(quiet)
    assert again.step == 20
    assert 1000 < again.log[-1]["seconds"] < 1100


def test_without_steps_or_seconds_there_are_2000_steps(tmp_path):
    assert trainer(tmp_path, steps=0).planned == 2000


def test_every_window_can_be_drawn(tmp_path):
    run = trainer(tmp_path)
    run.train_ids = np.arange(12)  # four windows of 8 and a target
    assert {i for _ in range(50) for i in run._batch()[0][:, 0].tolist()} == {0, 1, 2, 3}


def test_the_plan_is_the_time_that_is_left_over_the_time_of_a_step(tmp_path):
    run = trainer(tmp_path, steps=0, seconds=100.0)
    run.step, run.step_seconds, run.eval_seconds = 7, [1.9, 2.0, 50.0], 10.0
    run.started = time.perf_counter() - 39
    assert run._plan() == 7 + 20  # 61 s, and a step with a tenth of an evaluation is 3 s
    run.started = time.perf_counter() - 1000
    assert run._plan() == 8


def test_speed_is_that_of_the_last_fifty_steps(tmp_path):
    run = trainer(tmp_path)
    assert run.tokens_per_second() == 0
    run.step_seconds = [9.0] * 100 + [0.5] * 50
    assert run.tokens_per_second() == 4 * 8 / 0.5


def test_the_time_since_the_last_evaluation_is_saved_too(tmp_path):
    run = trainer(tmp_path, steps=1)
    run.run(quiet)
    run.started -= 500
    run.save("last")
    assert load_checkpoint(tmp_path / "last.safetensors").training["elapsed"] > 500


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    run = trainer(tmp_path)

    def interrupted_twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the step went on")

    run._step = interrupted_twice
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run.run(quiet)
    assert signal.getsignal(signal.SIGINT) is handler
    assert load_checkpoint(tmp_path / "last.safetensors").training["step"] == 0


def test_killed_before_the_first_evaluation_and_resumed(tmp_path):
    """Only step 0 is on the disk then: it is evaluated once, and the run is the whole run."""
    whole = trainer(tmp_path / "whole")
    whole.run(quiet)
    killed = trainer(tmp_path / "killed")

    def killed_here():
        raise KeyboardInterrupt

    killed._step = killed_here
    with pytest.raises(KeyboardInterrupt):
        killed.run(quiet)
    last = load_checkpoint(tmp_path / "killed" / "last.safetensors")
    resumed = trainer(tmp_path / "killed", last)
    resumed.run(quiet)
    assert losses(resumed) == losses(whole)
    assert weights(resumed) == weights(whole)


def test_an_error_names_the_step_that_was_saved_last_not_the_one_evaluated_last(tmp_path):
    run = trainer(tmp_path)
    real = run._step

    def interrupted():
        if run.step == 16:
            os.kill(os.getpid(), signal.SIGINT)
        return real()

    run._step = interrupted
    run.run(quiet)
    resumed = trainer(tmp_path, load_checkpoint(tmp_path / "last.safetensors"))
    resumed.model.ln_f.weight.data[0] = np.nan
    with pytest.raises(TrainingError, match="the loss is nan at step 17: .* keeps step 17"):
        resumed.run(quiet)
