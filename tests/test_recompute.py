"""Blocks that are computed twice: the same bits from less memory."""

import math
import tracemalloc

import numpy as np
import pytest

from minigpt import functional as F
from minigpt import memory
from minigpt.backend import on_host, to_numpy, xp
from minigpt.generate import generate
from minigpt.model import GPT, POSITIONS, GPTConfig
from minigpt.optim import AdamW
from minigpt.recompute import recompute_blocks
from minigpt.tensor import no_grad


def model(dtype="float32", **options):
    sizes = dict(vocab_size=11, block_size=8, n_layer=3, n_head=2, n_embd=12)
    return GPT(GPTConfig(**(sizes | options)), np.random.default_rng(0), dtype)


def batch(shape=(2, 8)):
    return np.random.default_rng(1).integers(0, 11, (2, *shape))


def gradients(gpt, passes=1):
    """Loss and gradients by name, after backward passes that accumulate; with dropout if any."""
    rng, (idx, targets) = np.random.default_rng(2), batch()
    for _ in range(passes):
        loss = F.cross_entropy(gpt(idx, rng), targets)
        loss.backward()
    found = {name: to_numpy(p.grad) for name, p in gpt.named_parameters()}
    return loss.item(), found, rng.random()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"tied": False, "bias": False}])
@pytest.mark.parametrize("passes", [1, 3])
def test_loss_gradients_and_random_numbers_are_the_same_to_the_last_bit(position, options, passes):
    once, twice = (model(position=position, **options) for _ in range(2))
    recompute_blocks(twice)
    (loss, wanted, after), (other, found, later) = (gradients(m, passes) for m in (once, twice))
    assert (loss, after) == (other, later)
    assert list(found) == list(wanted)  # the names, in their order
    for name, gradient in wanted.items():
        np.testing.assert_array_equal(found[name], gradient, err_msg=name)
        assert np.abs(gradient).max() > 0


def test_a_trained_model_is_the_same_and_speaks_the_same():
    models = [model(dropout=0.2), model(dropout=0.2)]
    recompute_blocks(models[1])
    recompute_blocks(models[1])  # once more changes nothing
    for gpt in models:
        optimizer, rng = AdamW(gpt.parameters(), 0.01), np.random.default_rng(3)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(gpt(batch()[0], rng), batch()[1]).backward()
            optimizer.step()
    arrays = [dict(gpt.named_parameters()) for gpt in models]
    for name, p in arrays[0].items():
        np.testing.assert_array_equal(p.numpy(), arrays[1][name].numpy())
    texts = [
        [int(token[0]) for token in generate(gpt, [[1]], 20, rng=np.random.default_rng(0))]
        for gpt in models
    ]
    assert texts[0] == texts[1]


def test_frozen_embeddings_leave_the_blocks_their_gradients():
    once, twice = model(), model()
    recompute_blocks(twice)
    for gpt in (once, twice):
        gpt.wte.weight.requires_grad = gpt.wpe.weight.requires_grad = False
    (_, wanted, _), (_, found, _) = gradients(once), gradients(twice)
    np.testing.assert_array_equal(found["h.0.attn.c_attn.weight"], wanted["h.0.attn.c_attn.weight"])
    assert wanted["h.0.attn.c_attn.weight"] is not None


def test_the_backward_pass_records_even_where_nothing_else_does():
    gpt = model()
    recompute_blocks(gpt)
    loss = F.cross_entropy(gpt(batch()[0]), batch()[1])
    with no_grad():
        loss.backward()
        assert not gpt(batch()[0]).requires_grad  # and afterwards it is as before
    assert gpt.h[0].attn.c_attn.weight.grad is not None


def peak(gpt, idx, targets):
    F.cross_entropy(gpt(idx), targets).backward()  # the gradients are there
    tracemalloc.start()
    F.cross_entropy(gpt(idx), targets).backward()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.skipif(xp.__name__ == "cupy", reason="tracemalloc does not see a GPU's memory")
def test_activations_of_one_block_instead_of_all(monkeypatch):
    monkeypatch.setattr(memory, "LARGE", math.inf)  # blocks from before would not be counted
    sizes = dict(n_layer=8, n_head=4, n_embd=64, block_size=64)
    models = [model(**sizes), model(**sizes)]
    recompute_blocks(models[1])
    whole, less = (peak(gpt, *batch((8, 64))) for gpt in models)
    assert less < whole / 4


@pytest.mark.skipif(not on_host, reason="on a GPU, CuPy keeps freed memory by itself")
def test_blocks_for_one_block_instead_of_all(monkeypatch):
    held = []
    for change in (lambda gpt: None, recompute_blocks):
        monkeypatch.setattr(memory, "BLOCKS", memory.Blocks())
        monkeypatch.setattr(memory, "LARGE", memory.WORTHWHILE)
        gpt = model(n_layer=8, n_head=4, n_embd=64, block_size=64)
        change(gpt)
        F.cross_entropy(gpt(batch((8, 64))[0]), batch((8, 64))[1]).backward()
        held.append(memory.BLOCKS.held)
    assert 0 < held[1] < held[0] / 4
