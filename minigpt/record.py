"""What a run leaves on the disk, in a folder of its own.

    last.safetensors   everything that is needed to go on
    best.safetensors   the model with the lowest held-out loss so far
    log.jsonl          one line an evaluation
    run.json           how the run was set up, and the n-grams' losses on the text it is judged by

A process may be killed at any moment, also between two of these writes. So last.safetensors alone
decides where a run stands: it holds the log too, and a resumed run writes log.jsonl from it anew.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    write_whole,
)
from minigpt.settings import TrainConfig

LAST, BEST, LOG, SETUP = "last.safetensors", "best.safetensors", "log.jsonl", "run.json"
LOG_FIELDS = ("step", "train_loss", "val_loss", "lr", "grad_norm", "tokens_per_second", "seconds")


class Record:
    """The folder of one run. Every file in it is the old one or the whole new one."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.saved = -1  # the step in last.safetensors

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Write the log that the checkpoint holds, then the checkpoint, as `name`.

        Raises: CheckpointError naming the file, the reason, and what is still there.
        """
        training = checkpoint.training
        try:
            self.write_log(training["log"])
            save_checkpoint(self.folder / name, checkpoint)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {self.kept()}") from error
        self.saved = training["step"] if name == LAST else self.saved

    def write_log(self, log: list[dict[str, Any]]) -> None:
        """One line of JSON for each evaluation."""
        lines = "".join(json.dumps(line) + "\n" for line in log)
        write_whole(self.folder / LOG, lines.encode())

    def kept(self) -> str:
        """What would be left if the run ended now, for messages."""
        last = self.folder / LAST
        return f"{last} keeps step {self.saved}" if self.saved >= 0 else "nothing was saved yet"

    def clean(self) -> None:
        """Delete what a process that was killed while saving has left of its temporary files."""
        for name in (LAST, BEST, LOG, SETUP):
            for file in self.folder.glob(f".{name}.*.tmp"):
                file.unlink(missing_ok=True)


def load_last(folder: Path) -> Checkpoint:
    """The checkpoint to go on from. Raises CheckpointError if there is none, saying why."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such run")
    if not (folder / LAST).exists():
        if (folder / SETUP).exists():
            raise CheckpointError(
                f"{folder}: the run ended before anything was saved; start it again"
            )
        raise CheckpointError(f"{folder} is not a run: it has no {LAST}")
    return load_checkpoint(folder / LAST)


def saved_config(checkpoint: Checkpoint) -> TrainConfig:
    """How a checkpoint's run was trained. Raises CheckpointError if it does not say."""
    try:
        return TrainConfig(**checkpoint.training["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"this checkpoint cannot be resumed: {error!r}") from error


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl. Raises ValueError if there is no such log, or it is broken."""
    path = folder / LOG
    try:
        log = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [{name: line.get(name) for name in LOG_FIELDS} for line in log]
    except OSError as error:
        raise ValueError(f"{folder} is not a run: {path}: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the log of a run: {error}") from error


def read_setup(folder: Path) -> dict[str, Any]:
    """What run.json says. Raises ValueError if there is no such file, or it is broken."""
    path = folder / SETUP
    if (folder / LAST).exists() and not path.exists():  # a run of the first version
        raise ValueError(f"{path} is missing: train --resume {folder} writes it")
    try:
        setup = json.loads(path.read_text("utf-8"))
        if not isinstance(setup, dict):
            raise ValueError(f"expected an object, got {setup!r}")
        return setup
    except OSError as error:
        raise ValueError(f"{folder} is not a run: {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} does not describe a run: {error}") from error


def write_setup(folder: Path, setup: dict[str, Any]) -> None:
    """Write run.json."""
    write_whole(folder / SETUP, (json.dumps(setup, indent=1) + "\n").encode())


def fingerprint(train: np.ndarray, val: np.ndarray) -> str:
    """SHA-256 of the token ids: whether a corpus is still the one that a run was trained on.

    The arrays may be files mapped into memory: they are read once, and never copied.
    """
    digest = hashlib.sha256(np.ascontiguousarray(train).data)
    digest.update(b"|")
    digest.update(np.ascontiguousarray(val).data)
    return digest.hexdigest()
