"""`python -m minigpt train`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from minigpt.commands.runs import free_folder, print_written, train_run
from minigpt.model import GPTConfig
from minigpt.options import add_options
from minigpt.settings import TrainConfig


def train(args: argparse.Namespace) -> None:
    """Train a GPT on a corpus, or go on with a stopped run.

    The same options, steps, machine, library versions and BLAS threads give the same losses and
    weights to the last bit, also for a run that was stopped, or killed, and resumed. Not promised:
    the same bits on another machine, thread count or backend, where the first 20 losses agree to
    1e-5. With --seconds the clock plans the number of steps; the run says how many, and --steps
    repeats it.

    A step learns from --batch-size times --accumulate sequences, and equals one large batch of
    them. Stopped with Ctrl-C or killed, a run goes on with --resume. `plot` compares runs.
    """
    given = sorted(set(vars(args)) - {"command", "out", "resume"})
    if args.resume and (given or args.out):
        given = ["--" + name.replace("_", "-") for name in given] + ["--out"] * bool(args.out)
        raise ValueError(f"--resume keeps the run's own options: leave out {', '.join(given)}")
    name = Path(getattr(args, "data", TrainConfig.data)).resolve().stem
    trainer, _ = train_run(args, args.resume or args.out or free_folder(name))
    print_written(trainer.folder)


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        train, "train", " --data facts --seconds 20 --seed 1",
        " --data my_text.txt --tokenizer bpe-1000 --steps 500 --out runs/mine",
        " --resume runs/mine",
    )  # fmt: skip
    sub.add_argument("--out", help="folder of the run (default: runs/DATA-N)")
    sub.add_argument("--resume", metavar="RUN", help="folder of a stopped run to go on with")
    add_options(sub, TrainConfig)
    add_options(sub, GPTConfig, "vocab_size")
