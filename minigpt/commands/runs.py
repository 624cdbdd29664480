"""What the commands that train share: a run in a folder, from its options or its checkpoint."""

import argparse
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from minigpt import data
from minigpt.checkpoint import Checkpoint
from minigpt.commands.models import RUNS
from minigpt.commands.parts import FROM_FILES, Parts, prepare
from minigpt.cost import flops_per_token
from minigpt.model import GPT, GPTConfig
from minigpt.options import config_of
from minigpt.record import LAST, load_last, read_setup, saved_config, write_setup
from minigpt.settings import TrainConfig
from minigpt.train import Trainer


def train_run(args: argparse.Namespace, folder: str | Path) -> tuple[Trainer, Parts]:
    """Set a run up from the options or from its checkpoint, train, and draw the loss figure."""
    from minigpt.plot import draw_runs, load_run  # Matplotlib loads slower than all the rest

    folder = Path(folder)
    resume = load_last(folder) if getattr(args, "resume", 0) else None
    if resume is None and (folder / LAST).exists():
        raise ValueError(f"{folder} holds a run: --resume {folder} goes on with it")
    config = saved_config(resume) if resume else config_of(TrainConfig, args)
    parts = prepare(config.data, resume.tokenizer if resume else config.tokenizer)
    if data.is_token_folder(config.data):
        config = replace(config, tokenizer=FROM_FILES)
    trainer = _trainer(args, folder, config, parts, resume)
    _print_card(trainer, parts)
    _describe(trainer, parts)
    trainer.run()
    draw_runs(folder / "loss.png", [load_run(folder)])
    return trainer, parts


def _trainer(
    args: argparse.Namespace,
    folder: Path,
    config: TrainConfig,
    parts: Parts,
    resume: Checkpoint | None,
) -> Trainer:
    rng = np.random.default_rng(config.seed)
    shape = config_of(GPTConfig, args, vocab_size=parts.tokenizer.vocab_size)
    model = resume.model if resume else GPT(shape, rng)
    train, val = parts.ids["train"], parts.ids["val"]
    return Trainer(model, parts.tokenizer, train, val, config, folder, rng, resume)


def _print_card(trainer: Trainer, parts: Parts) -> None:
    model, tokenizer = trainer.model, parts.tokenizer
    print(parts.card)
    if trainer.config.tokenizer not in ("char", FROM_FILES):
        print(f"tokenizer   {tokenizer.vocab_size:,} tokens, "
              f"{parts.characters_per_token('train'):.2f} characters each")  # fmt: skip
    print(f"model       {model.num_parameters():,} parameters, "
          f"{flops_per_token(model) / 1e6:.1f} MFLOP a token")  # fmt: skip
    print(f"threads     {trainer.workers}")
    print(f"run         {trainer.folder}\n")


def _describe(trainer: Trainer, parts: Parts) -> None:
    """Write run.json, unless a run that is resumed has it: n-grams take a second to count."""
    if trainer.step:
        with suppress(ValueError):  # a file that is missing or broken is written anew
            read_setup(trainer.folder)
            return
    judged = trainer.val_ids
    setup: dict[str, Any] = {
        "training": asdict(trainer.config),
        "model": asdict(trainer.model.config),
        "tokens_per_step": trainer.config.sequences * trainer.model.config.block_size,
        "characters_per_token": {
            "train": parts.characters_per_token("train"),
            "val": trainer.characters / (len(judged) - 1),
        },
        "corpus": trainer.corpus,
        "baselines": {score.name: score.nats for score in parts.baselines(judged)[1:]},
    }
    write_setup(trainer.folder, setup)


def print_written(folder: Path) -> None:
    """Where the run's files are."""
    print(f"checkpoints {folder / 'best.safetensors'} and {folder / 'last.safetensors'}")
    print(f"figure      {folder / 'loss.png'}\nlog         {folder / 'log.jsonl'}")


def free_folder(name: str) -> Path:
    """runs/name-1, or with the next number that is not taken."""
    return next(f for i in count(1) if not (f := RUNS / f"{name}-{i}").exists())
