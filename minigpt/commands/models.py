"""What commands do with a trained model: find it, score it, let it speak."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from minigpt import data
from minigpt.checkpoint import Checkpoint
from minigpt.evaluate import Score, nats_per_token, score_baselines
from minigpt.generate import generate
from minigpt.model import GPT
from minigpt.tokenizer import CharTokenizer
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


def encode_parts(tokenizer: CharTokenizer, corpus: data.Corpus) -> dict[str, np.ndarray]:
    """The three parts as ids (N,)."""
    parts = data.split(corpus)
    return {name: tokenizer.encode(getattr(parts, name)) for name in ("train", "val", "test")}


def pieces_of(
    trained: Trainer | Checkpoint, prompt: str, n: int, temperature: float, seed: int
) -> Iterator[str]:
    """The n characters that continue the prompt, one at a time. Checks its arguments at once."""
    if not prompt:
        raise ValueError("--prompt must have at least one character")
    if seed < 0:
        raise ValueError(f"--seed must be at least 0, got {seed}")
    idx, rng = trained.tokenizer.encode(prompt)[None], np.random.default_rng(seed)  # (1, T)
    tokens = generate(trained.model, idx, n, rng=rng, temperature=temperature)

    def pieces() -> Iterator[str]:
        with threads_for(trained.model):
            yield from (trained.tokenizer.decode(token) for token in tokens)

    return pieces()


def print_table(model: GPT, ids: dict[str, np.ndarray]) -> None:
    """The baselines and the model on the test part."""
    with threads_for(model):
        gpt = Score("GPT", nats_per_token(model, ids["test"]))
    print(f"  {'model':10s}{'nats/char':>12s}{'bits/char':>12s}")
    for score in [*score_baselines(model.config.vocab_size, ids["train"], ids["test"]), gpt]:
        print(f"  {score.name:10s}{score.nats:12.3f}{score.bits:12.3f}")
