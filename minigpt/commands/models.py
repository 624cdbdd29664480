"""What commands do with a trained model: find it, score it, let it speak."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from minigpt.checkpoint import Checkpoint, load_checkpoint
from minigpt.commands.parts import COUNTED, Parts
from minigpt.decoding import Decoding
from minigpt.evaluate import Score, nats_per_character
from minigpt.model import GPT, GPTConfig
from minigpt.options import Parser, add_options, config_of
from minigpt.stream import stream
from minigpt.train import Trainer

RUNS = Path("runs")
CHECKPOINT_HELP = "a checkpoint, or the folder of a run (default: the latest run)"


def checkpoint_path(given: str | None) -> Path:
    """The file given, the best checkpoint of the run given, or that of the latest run."""
    if given:
        return Path(given, "best.safetensors") if Path(given).is_dir() else Path(given)
    found = sorted(RUNS.glob("*/best.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ValueError(f"no trained model in {RUNS}/: run `python -m minigpt demo`, or name one")
    return found[-1]


def model_of(args: argparse.Namespace) -> GPT:
    """The checkpoint's model, or without one a new model of the size that the options name."""
    if args.checkpoint:
        return load_checkpoint(checkpoint_path(args.checkpoint)).model
    return GPT(config_of(GPTConfig, args), np.random.default_rng(0))


def add_model_options(sub: Parser) -> None:
    """What `model_of` reads."""
    sub.add_argument("checkpoint", nargs="?", help="a checkpoint or a run (default: a new model)")
    add_options(sub, GPTConfig, "vocab_size")


def is_narrow(model: GPT) -> bool:
    """Whether the matrix products are too small to be worth sharing among cores."""
    return model.config.n_embd < 128


def threads_for(model: GPT) -> threadpool_limits:
    """BLAS threads by a rule, not by measuring, so that a run can be repeated to the last bit.

    A second thread saves a narrow model about a sixth of its time on an idle machine. On a busy
    one each product waits for a core that it does not get, and a step takes several times as long.
    """
    return threadpool_limits(1 if is_narrow(model) else None, user_api="blas")


def pieces_of(
    trained: Trainer | Checkpoint, prompt: str, n: int, rng: np.random.Generator,
    decoding: Decoding, stop: Sequence[str] = (),
) -> Iterator[str]:  # fmt: skip
    """`stream`, on as many threads as suit the model."""
    model, tokenizer = trained.model, trained.tokenizer
    pieces = stream(model, tokenizer, prompt, n, rng=rng, stop=stop, **asdict(decoding))

    def given() -> Iterator[str]:
        with threads_for(model):
            yield from pieces

    return given()


def generator(seed: int) -> np.random.Generator:
    """The random numbers of --seed."""
    if seed < 0:
        raise ValueError(f"--seed must be at least 0, got {seed}")
    return np.random.default_rng(seed)


def add_speech_options(sub: Parser, n: int, stop: str) -> None:
    """What commands that let a model speak have in common."""
    sub.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    sub.add_argument("-n", type=int, default=n, help=f"most tokens to draw (default: {n})")
    sub.add_argument("--stop", action="append", default=[], metavar="TEXT", help=stop)
    sub.add_argument("--seed", type=int, default=0, help="another seed, another text (default: 0)")
    add_options(sub, Decoding, "temperature")
    sub.add_argument("--temperature", type=float, default=0.8,
                     help="below 1: safer, above: wilder, 0: likeliest (default: 0.8)")  # fmt: skip


def print_table(model: GPT, parts: Parts) -> None:
    """The baselines and the model on the test part, per character."""
    test = parts.ids["test"]
    with threads_for(model):
        gpt = Score("GPT", nats_per_character(model, parts.tokenizer, test))
    print(f"  {'model':10s}{'nats/char':>12s}{'bits/char':>12s}")
    for score in [*parts.baselines(test), gpt]:
        print(f"  {score.name:10s}{score.nats:12.3f}{score.bits:12.3f}")
    if len(parts.counted) == COUNTED:
        print(f"\nThe n-grams are counted on the first {COUNTED:,} characters of training.")
