"""Held-out loss: each token scored once, with at least half a block of context."""

import math
from dataclasses import replace

import numpy as np
import pytest

from minigpt import functional as F
from minigpt.backend import xp
from minigpt.baselines.ngram import NGram
from minigpt.evaluate import Score, nats_per_token, score_baselines
from minigpt.model import GPT, GPTConfig
from minigpt.tensor import no_grad


def model(block_size=8):
    rng = np.random.default_rng(0)
    gpt = GPT(GPTConfig(5, block_size, n_layer=1, n_head=2, n_embd=8), rng, "float64")
    for p in gpt.parameters():
        p.data += xp.asarray(0.3 * rng.standard_normal(p.shape))
    return gpt


def one_at_a_time(gpt, ids, stride):
    """The definition, slowly: the context of target i starts where its window starts."""
    T, last = gpt.config.block_size, len(ids) - 1
    total = 0.0
    for i in range(last):  # the target is ids[i + 1]
        window = 0 if i < T else math.ceil((i - T + 1) / stride) * stride
        window = min(window, max(0, last - T))
        with no_grad():
            logp = F.log_softmax(gpt(ids[None, window : i + 1])).numpy()[0, -1]
        total -= logp[ids[i + 1]]
    return total / last


@pytest.mark.parametrize("n", [2, 5, 8, 9, 10, 12, 13, 16, 17, 29, 64])
@pytest.mark.parametrize("block_size", [1, 7, 8])
def test_each_token_once(n, block_size):
    gpt = model(block_size)
    ids = np.random.default_rng(n).integers(0, 5, n)
    for batch_size in (1, 3, 64):
        got = nats_per_token(gpt, ids, batch_size)
        assert got == pytest.approx(one_at_a_time(gpt, ids, max(1, block_size // 2)), rel=1e-12)


def test_uniform_model_scores_ln_v():
    gpt = model()
    for p in gpt.parameters():
        p.data[...] = 0
    ids = np.random.default_rng(0).integers(0, 5, 50)
    assert nats_per_token(gpt, ids) == pytest.approx(math.log(5), rel=1e-12)


def test_baselines_are_counted_on_train_and_scored_on_test():
    rng = np.random.default_rng(1)
    train, test = rng.integers(0, 5, 400), rng.integers(0, 5, 60)
    scores = score_baselines(5, train, test, order=3)
    assert [s.name for s in scores] == ["uniform", "1-gram", "2-gram", "3-gram"]
    assert scores[0].nats == pytest.approx(math.log(5))
    for order in (1, 2, 3):
        assert scores[order].nats == pytest.approx(NGram(order, 5).fit(train).nats(test)[1:].mean())
    assert Score("", math.log(2)).bits == pytest.approx(1.0)


def test_too_short():
    with pytest.raises(ValueError, match="at least 2 tokens"):
        nats_per_token(model(), np.array([1]))


def test_evaluation_drops_nothing_and_records_no_graph(monkeypatch):
    gpt, answers, call = model(), [], GPT.__call__
    ids = np.random.default_rng(0).integers(0, 5, 50)
    wanted = nats_per_token(gpt, ids)
    noisy = GPT(replace(gpt.config, dropout=0.9), np.random.default_rng(0), "float64")
    noisy.load_arrays({name: p.data for name, p in gpt.named_parameters()})
    monkeypatch.setattr(GPT, "__call__", lambda *args: answers.append(call(*args)) or answers[-1])
    assert nats_per_token(noisy, ids) == wanted
    assert answers and not any(answer.requires_grad for answer in answers)
