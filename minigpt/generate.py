"""Generation: predict a distribution for the next token, draw from it, append, repeat."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt.backend import to_numpy
from minigpt.cache import KVCache
from minigpt.decoding import Decoding, draw, log_probs, repetition_penalty
from minigpt.model import GPT
from minigpt.tensor import no_grad

Generators = np.random.Generator | Sequence[np.random.Generator]


class Step(NamedTuple):
    """One further token of each row, and what the model itself, before any filter, gave it."""

    token: np.ndarray  # (B,) int
    logprob: np.ndarray  # (B,) float64, nats, <= 0


class Beam(NamedTuple):
    """A continuation of the prompt, and its log-probability under the model."""

    tokens: np.ndarray  # (n,) int, fewer if it ends in the stop token
    logprob: float  # nats


def generate(
    model: GPT, idx: Any, n: int, *, rng: Generators, stop: int | None = None,
    cached: bool = True, **decoding: Any,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Draw n further tokens for each prompt of a batch, one step at a time.

    Shapes: idx (B, T) int, T >= 1, or a list of B arrays (T_i,) -> yields (B,) int, n times. Beyond
            block_size tokens the model sees the last block_size only (a sliding window).
    rng: one generator for all rows; or one for each, and then a row is what it would be alone.
    stop: a row that drew this token repeats it; when all did, generation ends.
    cached: keep keys and values, or compute every text anew at each step, which is slower.
    decoding: temperature, top_k, ...: the fields of Decoding.
    Raises: ValueError if a prompt, n or the decoding is not such.
    """
    given = steps(model, idx, n, rng=rng, stop=stop, cached=cached, **decoding)
    return (step.token for step in given)


def steps(
    model: GPT, idx: Any, n: int, *, rng: Generators, stop: int | None = None,
    cached: bool = True, **decoding: Any,
) -> Iterator[Step]:  # fmt: skip
    """`generate`, with the log-probability of each token drawn (0 for a repeated stop token)."""
    texts = _prompts(model, idx)
    _check(model, n, stop)
    if not isinstance(rng, np.random.Generator) and len(rng) != len(texts):
        raise ValueError(f"expected {len(texts)} generators, one for each prompt, got {len(rng)}")
    cache = _cache(model, texts, n) if cached else None
    return _steps(model, texts, n, rng, stop, Decoding(**decoding), cache)


def _cache(model: GPT, texts: Sequence[np.ndarray], n: int) -> KVCache | None:
    """Room for n further tokens of each text. None for another kind of model than GPT."""
    room = max(len(text) for text in texts) + n
    if not isinstance(model, GPT):
        return None
    return KVCache(model, len(texts), min(room, model.config.block_size))


def _steps(model, texts, n, rng, stop, decoding, cache) -> Iterator[Step]:
    ended = np.zeros(len(texts), bool)
    for _ in range(n):
        logits = next_logits(model, texts, cache)  # (B, V)
        if decoding.temperature == 0:  # no filter takes away the likeliest; nothing is drawn
            token = repetition_penalty(logits, texts, decoding.repetition_penalty).argmax(-1)
        else:
            token = draw(decoding(logits, texts), rng)  # (B,)
        logprob = log_probs(logits)[np.arange(len(token)), token]  # (B,)
        if stop is not None:
            token, logprob = np.where(ended, stop, token), np.where(ended, 0.0, logprob)
            ended |= token == stop
        texts = [np.concatenate([text, token[row : row + 1]]) for row, text in enumerate(texts)]
        yield Step(token, logprob)
        if ended.all():
            return


def next_logits(
    model: GPT, texts: Sequence[np.ndarray], cache: KVCache | None = None
) -> np.ndarray:
    """Logits of the token after each text: the only place where generation asks the model.

    Shapes: B arrays (T_i,) int -> (B, V).
    cache: what it knows of the texts' beginnings is not computed again. Once a text is longer than
           the window, its tokens change their positions at every step, and no cache can help.
    Raises: ValueError if a logit is not finite.
    """
    fits = cache is not None and max(len(text) for text in texts) <= model.config.block_size
    logits = cache(texts) if cache and fits else _logits_anew(model, texts)
    if not np.isfinite(logits).all():
        raise ValueError("the model's logits are not finite: has its training diverged?")
    return logits


def _logits_anew(model: GPT, texts: Sequence[np.ndarray]) -> np.ndarray:
    """Texts of one length are computed together: no row is padded, none sees what another lacks."""
    windows = [text[-model.config.block_size :] for text in texts]
    logits: list[Any] = [None] * len(texts)
    for T in sorted({len(window) for window in windows}):
        rows = [row for row, window in enumerate(windows) if len(window) == T]
        with no_grad():
            out = model(np.stack([windows[row] for row in rows])).data[:, -1]  # (rows, V)
        for row, values in zip(rows, to_numpy(out), strict=True):
            logits[row] = values
    return np.stack(logits)


def beam_search(
    model: GPT, idx: Any, n: int, beams: int, *, length_penalty: float = 0.0,
    stop: int | None = None,
) -> list[Beam]:  # fmt: skip
    """The likeliest continuations that are found by keeping the best `beams` at every length.

    Shapes: idx (T,) int, one prompt -> up to `beams` of up to n tokens, best first.
    stop: a continuation that holds this token is complete, and competes as it is.
    length_penalty: compared is logprob / length**length_penalty. 0: the log-probability; 1: its
        mean a token. It tells only where stop makes lengths differ.
    Equals an exhaustive search if beams >= V**(n - 1), and greedy decoding if beams is 1.
    Raises: ValueError if an argument is not such.
    """
    (prompt,) = _prompts(model, [idx])
    _check(model, n, stop)
    if beams < 1 or not 0 <= length_penalty < math.inf:
        raise ValueError(f"expected beams >= 1 and length_penalty >= 0, finite, got {beams} and"
                         f" {length_penalty}")  # fmt: skip
    cache = _cache(model, [prompt], n)
    best = [(Beam(prompt[:0], 0.0), 0)]  # each with the row of the cache that it continues
    for _ in range(n):
        live = [(beam, row) for beam, row in best if stop is None or stop not in beam.tokens]
        if not live:
            break
        if cache:
            cache.take([row for _, row in live])
        found = [(beam, row) for beam, row in best if stop is not None and stop in beam.tokens]
        texts = [np.append(prompt, beam.tokens) for beam, _ in live]
        for row, logprobs in enumerate(log_probs(next_logits(model, texts, cache))):  # (V,)
            beam = live[row][0]
            for token in np.argsort(-logprobs, kind="stable")[:beams]:  # no others can be kept
                logprob = beam.logprob + float(logprobs[token])
                found.append((Beam(np.append(beam.tokens, token), logprob), row))
        found.sort(key=lambda pair: -pair[0].logprob / len(pair[0].tokens) ** length_penalty)
        best = found[:beams]
    return [beam for beam, _ in best]


def _prompts(model: GPT, idx: Any) -> list[np.ndarray]:
    """The rows of a batch, checked: each (T_i,) int64, T_i >= 1."""
    if not np.iterable(idx):
        raise ValueError(f"prompts must be (B, T), or a list of arrays, got {idx!r}")
    texts, V = [to_numpy(text) for text in idx], model.config.vocab_size
    if not texts:
        raise ValueError("expected at least one prompt, got none")
    for text in texts:
        if text.ndim != 1 or text.size == 0 or text.dtype.kind not in "iu":
            raise ValueError("a prompt must be (T,) integers with T >= 1, got shape"
                             f" {text.shape}, {text.dtype}")  # fmt: skip
        if text.min() < 0 or text.max() >= V:
            raise ValueError(f"idx must be in 0..{V - 1}, got {text.min()}..{text.max()}")
    return [text.astype(np.int64) for text in texts]


def _check(model: GPT, n: int, stop: int | None) -> None:
    if n < 0:
        raise ValueError(f"n must be >= 0, got {n}")
    if stop is not None and not 0 <= stop < model.config.vocab_size:
        raise ValueError(f"stop must be in 0..{model.config.vocab_size - 1}, got {stop}")
