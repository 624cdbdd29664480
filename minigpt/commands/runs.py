"""What the commands that train share: a run is a folder with a log and two checkpoints."""

import argparse
from itertools import count
from pathlib import Path

import numpy as np

from minigpt import data
from minigpt.checkpoint import load_checkpoint
from minigpt.commands.models import RUNS, encode_parts, is_narrow, threads_for
from minigpt.evaluate import score_baselines
from minigpt.model import GPT, GPTConfig
from minigpt.options import config_of
from minigpt.tokenizer import CharTokenizer
from minigpt.train import TrainConfig, Trainer, saved_config


def train_run(
    args: argparse.Namespace, folder: str | Path
) -> tuple[Trainer, dict[str, np.ndarray]]:
    """Set a run up from the options or from its checkpoint, train, and draw the loss figure."""
    from minigpt.plot import loss_figure  # Matplotlib loads slower than all the rest together

    folder = Path(folder)
    resume = load_checkpoint(folder / "last.safetensors") if getattr(args, "resume", 0) else None
    if resume is None and (folder / "last.safetensors").exists():
        raise ValueError(f"{folder} holds a run: --resume {folder} goes on with it")
    config = saved_config(resume) if resume else config_of(TrainConfig, args)
    corpus = data.load(config.data)
    tokenizer = resume.tokenizer if resume else CharTokenizer.from_text(corpus.text)
    ids = encode_parts(tokenizer, corpus)
    rng = np.random.default_rng(config.seed)
    shape = config_of(GPTConfig, args, vocab_size=tokenizer.vocab_size)
    model = resume.model if resume else GPT(shape, rng)
    print(corpus.card())
    print(f"model       {model.num_parameters():,} parameters, "
          f"{model.flops_per_token() / 1e6:.1f} MFLOP a token")  # fmt: skip
    print(f"threads     {'1, since the model is narrow' if is_narrow(model) else 'all'}")
    print(f"run         {folder}\n")
    trainer = Trainer(model, tokenizer, ids["train"], ids["val"], config, folder, rng, resume)
    with threads_for(model):
        trainer.run()
    grams = score_baselines(tokenizer.vocab_size, ids["train"], trainer.val_ids)[1:]
    loss_figure(folder / "loss.png", trainer.log, grams)
    return trainer, ids


def print_written(folder: Path) -> None:
    """Where the run's files are."""
    print(f"checkpoints {folder / 'best.safetensors'} and {folder / 'last.safetensors'}")
    print(f"figure      {folder / 'loss.png'}\nlog         {folder / 'log.jsonl'}")


def free_folder(name: str) -> Path:
    """runs/name-1, or with the next number that is not taken."""
    return next(f for i in count(1) if not (f := RUNS / f"{name}-{i}").exists())
