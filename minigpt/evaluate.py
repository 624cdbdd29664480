"""Held-out loss of a model, beside the baselines on the same characters."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from minigpt import functional as F
from minigpt.baselines.ngram import NGram
from minigpt.model import GPT
from minigpt.parallel import by_shares
from minigpt.tensor import no_grad
from minigpt.tokenizer import Tokenizer


def nats_per_token(model: GPT, ids: np.ndarray, batch_size: int = 64) -> float:
    """Mean negative log-likelihood of ids[1:], each token scored once.

    Windows of block_size overlap by half, and only the second half of each is scored (of the first
    window, all): every token has at least half a block of context, or all there is.
    Shapes: ids (N,) int, N >= 2.
    """
    if len(ids) < 2:
        raise ValueError(f"need at least 2 tokens to score one, got {len(ids)}")
    total, T = 0.0, model.config.block_size
    stride = max(1, T // 2)
    starts = [0, *range(stride, len(ids) - 1 - T + stride, stride)] if len(ids) - 1 > T else [0]
    T = min(T, len(ids) - 1)
    with no_grad():
        for i in range(0, len(starts), batch_size):
            batch = starts[i : i + batch_size]
            score = partial(_score, model, ids, batch, T, stride)
            total += sum(by_shares(score, len(batch), T, model.config.n_embd))
    return total / (len(ids) - 1)


def _score(
    model: GPT, ids: np.ndarray, starts: list[int], T: int, stride: int, first: int, end: int
) -> float:
    """Summed nats of the tokens that windows first..end score. The last one is moved to the end."""
    starts, total_tokens = starts[first:end], len(ids) - 1
    places = np.array([[min(s, total_tokens - T)] for s in starts]) + np.arange(T)  # (B, T)
    # A window starting at s > 0 scores what the window before it did not reach.
    fresh = np.array([s + T - stride if s else 0 for s in starts])  # first place scored
    targets = np.where(places >= fresh[:, None], ids[places + 1].astype(np.int64), -1)
    logits = model(ids[places])
    loss = F.cross_entropy(logits, targets, ignore_index=-1)
    return loss.item() * int((targets >= 0).sum())


def scored_characters(tokenizer: Tokenizer, ids: np.ndarray) -> int:
    """The characters that ids[1:] stand for: what a loss must be shared among, to be compared.

    Nats per token mean nothing beside another vocabulary, whose tokens are longer or shorter.
    """
    return max(1, len(tokenizer.decode(ids)) - len(tokenizer.decode(ids[:1])))


def nats_per_character(model: GPT, tokenizer: Tokenizer, ids: np.ndarray) -> float:
    """Total nats of ids[1:] over its characters. Shapes and errors: see nats_per_token."""
    return nats_per_token(model, ids) * (len(ids) - 1) / scored_characters(tokenizer, ids)


@dataclass(frozen=True)
class Score:
    """One line of the table: nats per character on the held-out text."""

    name: str
    nats: float

    @property
    def bits(self) -> float:
        return self.nats / math.log(2)


def score_baselines(
    V: int, train: np.ndarray, test: np.ndarray, order: int = 5, skip: int = 1
) -> list[Score]:
    """Uniform guessing over V tokens, and n-grams counted on train, on the tokens test[skip:].

    Shapes: train (N,), test (M,) int, M > skip. order: of the longest n-gram.
    """
    nats = NGram(order, V).fit(train).nats_by_order(test)[:, skip:].mean(1)  # (order,)
    grams = [Score(f"{n + 1}-gram", float(nats[n])) for n in range(order)]
    return [Score("uniform", math.log(V)), *grams]
