"""Checkpoints: weights, config and tokenizer in one safetensors file, written whole or not at all.

The arrays have the model's parameter names. What else a run needs to go on (optimizer buffers,
counters, the generator's state) may lie beside them. Never pickle: a checkpoint is data, not code.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minigpt.backend import to_numpy
from minigpt.model import GPT, GPTConfig
from minigpt.tokenizer import Tokenizer, from_json

FORMAT = "minigpt 1"
_STATE = "state."  # prefix of arrays that are not parameters


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, written, or used; the message names the file."""


@dataclass
class Checkpoint:
    """model and tokenizer; training: JSON values; state: arrays, such as optimizer buffers."""

    model: GPT
    tokenizer: Tokenizer
    training: dict[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(path: str | os.PathLike, checkpoint: Checkpoint) -> None:
    """Write a checkpoint. Raises CheckpointError if it cannot; an older file at path then stays."""
    path, model = Path(path), checkpoint.model
    arrays = {name: p.data for name, p in model.named_parameters()}
    arrays |= {_STATE + name: array for name, array in checkpoint.state.items()}
    content = save(
        {name: np.ascontiguousarray(to_numpy(array)) for name, array in arrays.items()},
        metadata={
            "format": FORMAT,
            "config": json.dumps(asdict(model.config)),
            "tokenizer": checkpoint.tokenizer.to_json(),
            "training": json.dumps(checkpoint.training),
        },
    )
    write_whole(path, content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at every moment path is the old file or the whole new one.

    A temporary file beside it, flushed to the disk, then renamed over it: renaming is atomic.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it is gone already if all went well
            temporary.unlink()


def load_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint that save_checkpoint wrote.

    Raises: CheckpointError if the file is missing, truncated, not minigpt's, or does not fit its
            own config.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a checkpoint of format {FORMAT!r}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from error
    try:
        config = GPTConfig(**json.loads(metadata["config"]))
        tokenizer = from_json(metadata["tokenizer"])
        training = json.loads(metadata["training"])
        if not isinstance(training, dict) or not isinstance(training.get("config", {}), dict):
            raise ValueError(f"training state is {training!r}")
        state = {k.removeprefix(_STATE): arrays.pop(k) for k in [*arrays] if k.startswith(_STATE)}
        dtypes = {array.dtype.name for array in arrays.values()} or {"float32"}
        model = GPT(config, np.random.default_rng(0), dtype=max(dtypes))
        model.load_arrays(arrays)
        if tokenizer.vocab_size != config.vocab_size:
            raise ValueError(f"{tokenizer.vocab_size} tokens, vocab_size {config.vocab_size}")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: does not fit its own config: {error}") from error
    return Checkpoint(model, tokenizer, training, state)
