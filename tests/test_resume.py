"""A run that was killed, at any moment, and resumed is the run that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kills import kills, summary
from minigpt import checkpoint as module
from minigpt.__main__ import main
from minigpt.checkpoint import CheckpointError, load_checkpoint
from minigpt.record import BEST, LAST, Record, load_last, read_log
from tests.test_train import losses, quiet, trainer, weights

ROOT = Path(__file__).parent.parent
SMALL = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16"]
OPTIONS = {
    "steps": 3, "eval_every": 2, "eval_tokens": 50, "save_every": 1, "accumulate": 2,
    "schedule": "plateau", "patience": 5, "lr": 0.1, "warmup": 3,
}  # fmt: skip


def resume(folder):
    last = load_last(folder)
    return trainer(folder, last, **last.training["config"])


def log_of(folder):
    return [
        {
            name: value
            for name, value in line.items()
            if name not in ("seconds", "tokens_per_second")
        }
        for line in read_log(folder)
    ]


# --- killed ---


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_eight_random_kills(tmp_path):
    """The short form of benchmarks/kills.py, which has 200 of them."""
    found = [*kills(tmp_path, 8, seed=4)]
    assert len(found) == 8
    assert all(kill.outcome == "exact" for kill in found), summary(found)
    assert len({kill.step for kill in found}) > 2
    assert max(kill.saved for kill in found) > 0


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it may touch the disk."""


def kill_at(patch, n):
    """The process dies at its n-th dealing with the disk; half-written files stay as they are."""
    calls = []

    def dying(real, half=None):
        def call(*args):
            calls.append(real)
            if len(calls) == n and half:
                half(*args)
            if len(calls) >= n:
                raise Killed
            return real(*args)

        return call

    class File:
        def __init__(self, *args):
            self.file = open(*args)  # noqa: SIM115
            self.flush, self.fileno = self.file.flush, self.file.fileno
            self.write = dying(self.file.write, lambda content: self.file.write(content[:100]))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    patch.setattr(module, "open", File, raising=False)
    patch.setattr(os, "fsync", dying(lambda file: None))  # as slow as a disk
    patch.setattr(os, "replace", dying(os.replace, os.replace))  # the last deed, then death
    patch.setattr(Path, "unlink", dying(Path.unlink))
    return calls


def test_killed_at_every_single_write_of_a_run(tmp_path, monkeypatch):
    """Every write, flush, renaming and deletion of a run in turn is the last thing that happens."""
    whole = trainer(tmp_path / "whole", **OPTIONS)
    with monkeypatch.context() as patch:
        calls = kill_at(patch, 10**9)
        whole.run(quiet)
    assert len(calls) > 40
    best, nothing = load_checkpoint(tmp_path / "whole" / BEST), 0
    assert best.training["step"] == 2  # so it is not the last, and must not become it
    for n in range(1, len(calls) + 1):
        folder = tmp_path / str(n)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, n)
            trainer(folder, **OPTIONS).run(quiet)
        if (folder / LAST).exists():
            run = resume(folder)
        else:
            nothing += 1
            run = trainer(folder, **OPTIONS)
        assert read_log(folder) == run.log if run.step else True
        run.run(quiet)
        assert losses(run) == losses(whole), n
        assert weights(run) == weights(whole), n
        assert log_of(folder) == log_of(tmp_path / "whole")
        kept = load_checkpoint(folder / BEST)
        assert kept.training["step"] == 2, n
        assert weights(kept) == weights(best), n
        assert not [*folder.glob(".*")], n
    assert 0 < nothing < 20


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_command_killed_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("sums.txt").write_text("".join(f"line {i} says {2 * i}\n" for i in range(300)), "utf-8")
    args = ["train", "--data", "sums.txt", "--steps", "120", "--eval-every", "40",
            "--save-every", "5", "--dropout", "0.1", "--tokenizer", "bpe-270", *SMALL]  # fmt: skip
    assert main([*args, "--out", "whole"]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt", *args, "--out", "killed"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while not Path("killed", LAST).exists() or load_last(Path("killed")).training["step"] < 10:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 10 <= load_last(Path("killed")).training["step"] < 120
    capsys.readouterr()
    assert main(["train", "--resume", "killed"]) == 0
    assert log_of(Path("killed")) == log_of(Path("whole"))
    last, wanted = (load_checkpoint(Path(name, LAST)) for name in ("killed", "whole"))
    for p, q in zip(last.model.parameters(), wanted.model.parameters(), strict=True):
        assert p.data.tobytes() == q.data.tobytes()
    assert {p.name for p in Path("killed").iterdir()} == {p.name for p in Path("whole").iterdir()}


# --- resumed ---


def test_killed_before_the_first_checkpoint(tmp_path, monkeypatch, capsys):
    """It is said clearly, and beginning again in the same folder works."""
    monkeypatch.chdir(tmp_path)
    Path("sums.txt").write_text("".join(f"line {i} says {2 * i}\n" for i in range(300)), "utf-8")
    args = ["train", "--data", "sums.txt", "--steps", "3", *SMALL, "--out", "mine"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 5)  # run.json is there, log.jsonl only half
        main(args)
    assert (tmp_path / "mine" / "run.json").exists()
    capsys.readouterr()
    assert main(["train", "--resume", "mine"]) == 2
    assert capsys.readouterr().err == (
        "minigpt: error: mine: the run ended before anything was saved; start it again\n"
    )
    assert main(args) == 0
    assert [line["step"] for line in read_log(Path("mine"))] == [0, 3]
    assert not [*Path("mine").glob(".*")]


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such run"):
        load_last(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is not a run: it has no last.safetensors"):
        load_last(tmp_path)


@pytest.mark.parametrize("stop", [2, 7, 11])
@pytest.mark.parametrize(
    "options",
    [{"schedule": "plateau"}, {"schedule": "linear", "accumulate": 3}, {"patience": 4}],
    ids=["plateau", "accumulate", "patience"],
)
def test_stopped_anywhere_and_resumed(tmp_path, monkeypatch, options, stop):
    """Judged on the text reversed, the loss rises: the plateau's scale and the patience matter."""
    options = {"steps": 40, "eval_every": 2, "lr": 0.05, "warmup": 2} | options

    def start(folder, last=None):
        run = trainer(folder, last, **options)
        run.val_ids = run.val_ids[::-1].copy()
        return run

    whole = start(tmp_path / "whole")
    whole.run(quiet)
    part = start(tmp_path / "part")
    real = part._step
    monkeypatch.setattr(
        part,
        "_step",
        lambda: part.step == stop - 1 and signal.raise_signal(signal.SIGINT) or real(),
    )
    part.run(quiet)
    assert part.step == stop
    again = start(tmp_path / "part", load_last(tmp_path / "part"))
    again.run(quiet)
    assert losses(again) == losses(whole)
    assert [line["lr"] for line in again.log] == [line["lr"] for line in whole.log]
    assert weights(again) == weights(whole)
    if "patience" in options:
        assert again.step == whole.step < 40
    if options.get("schedule") == "plateau":
        assert vars(again.plateau) == vars(whole.plateau)
        assert again.plateau.scale < 0.5


def test_a_resumed_log_says_what_the_checkpoint_says(tmp_path):
    """Killed between the two writes, the log is a line ahead: the checkpoint decides."""
    run = trainer(tmp_path)
    run.run(quiet)
    ahead = run.log[-1] | {"step": 40}
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write(json.dumps(ahead) + "\n")
    resume(tmp_path)
    assert read_log(tmp_path) == run.log


def test_temporary_files_of_a_killed_save_are_deleted_and_no_others(tmp_path):
    trainer(tmp_path).run(quiet)
    for name in (".last.safetensors.77.tmp", ".log.jsonl.8.tmp", ".notes.tmp", "last.tmp"):
        (tmp_path / name).write_text("half")
    resume(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "last.safetensors", "best.safetensors", "log.jsonl", ".notes.tmp", "last.tmp",
    }  # fmt: skip


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")]
)
def test_a_save_that_fails_says_what_is_kept_and_nothing_is_lost(tmp_path, monkeypatch, error):
    whole = trainer(tmp_path / "whole")
    whole.run(quiet)
    run = trainer(tmp_path / "run")
    real = run._step

    def step():
        if run.step == 14:
            monkeypatch.setattr(os, "fsync", fail)
        return real()

    def fail(*args):
        raise error

    run._step = step
    message = rf"cannot write .*log.jsonl: {error.strerror}; .*last.safetensors keeps step 10$"
    with monkeypatch.context() as patch:
        monkeypatch = patch
        with pytest.raises(CheckpointError, match=message):
            run.run(quiet)
    again = resume(tmp_path / "run")
    assert again.step == 10
    again.run(quiet)
    assert losses(again) == losses(whole)
    assert weights(again) == weights(whole)


def test_a_first_save_that_fails_says_that_nothing_was_saved(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write .*; nothing was saved yet$"):
        trainer(tmp_path / "file").run(quiet)
    assert Record(tmp_path).kept() == "nothing was saved yet"


def test_a_plan_is_saved_when_it_is_made(tmp_path):
    """Or a killed run would make another plan, and its learning rates would be others."""
    run, planned = trainer(tmp_path, steps=0, seconds=5.0, warmup=6, eval_every=1000), []

    def report(line):
        if line.startswith("plan"):
            planned.append(run.planned)

    real = run._step

    def step():
        if planned:
            raise KeyboardInterrupt
        return real()

    run._step = step
    with pytest.raises(KeyboardInterrupt):
        run.run(report)
    again = resume(tmp_path)
    assert again.step == run.step > 0
    assert [again.planned] == planned


def test_a_checkpoint_of_the_first_version_goes_on(tmp_path):
    """It has no patience, no norms and no plateau, and its run had none either."""
    whole = trainer(tmp_path)
    whole.run(quiet)
    last = load_last(tmp_path)
    for name in ("waited", "norms", "plateau"):
        del last.training[name]
    for name in ("tokenizer", "accumulate", "schedule", "save_every", "patience", "sample_tokens"):
        del last.training["config"][name]
    last.training["planned"] = 33
    again = trainer(tmp_path, last, **last.training["config"])
    again.run(quiet)
    assert again.step == 33
    assert np.isfinite(again.log[-1]["grad_norm"])


def test_a_checkpoint_that_lacks_a_counter_is_refused(tmp_path):
    trainer(tmp_path).run(quiet)
    last = load_last(tmp_path)
    del last.training["best"]
    with pytest.raises(CheckpointError, match=r"cannot be resumed: KeyError\('best'\)"):
        trainer(tmp_path, last)
