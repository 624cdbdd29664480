"""What commands do with a trained model: find it, score it, let it speak."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from minigpt.checkpoint import Checkpoint
from minigpt.commands.parts import COUNTED, Parts
from minigpt.decoding import Decoding
from minigpt.evaluate import Score, nats_per_character
from minigpt.generate import generate
from minigpt.model import GPT
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
    trained: Trainer | Checkpoint, prompt: str, n: int, seed: int, decoding: Decoding
) -> Iterator[str]:
    """The text of the n tokens that continue the prompt, as it comes. Checks its arguments at once.

    A piece is what one token adds; the last is what was left after all of them. A token of byte
    pairs may end amid a character, which then comes with the next one.
    """
    if not prompt:
        raise ValueError("--prompt must have at least one character")
    if seed < 0:
        raise ValueError(f"--seed must be at least 0, got {seed}")
    idx, rng = trained.tokenizer.encode(prompt)[None], np.random.default_rng(seed)  # (1, T)
    tokens = generate(trained.model, idx, n, rng=rng, **asdict(decoding))

    def pieces() -> Iterator[str]:
        decoder = trained.tokenizer.decoder()
        with threads_for(trained.model):
            yield from (decoder.push(token) for token in tokens)
        yield decoder.end()

    return pieces()


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
