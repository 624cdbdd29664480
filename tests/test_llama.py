"""Llama from minigpt's parts: every gradient, grouped queries, causality, learning, the cache."""

import math
from dataclasses import replace

import numpy as np
import pytest

from minigpt import functional as F
from minigpt import ops, reference
from minigpt.backend import to_numpy, xp
from minigpt.generate import generate
from minigpt.gradcheck import check_grads, check_parameters
from minigpt.optim import AdamW
from minigpt.settings import TrainConfig
from minigpt.tensor import Tensor, no_grad
from minigpt.tokenizer import CharTokenizer
from minigpt.train import Trainer
from minigpt.variants.llama import (
    Attention,
    Block,
    FeedForward,
    Llama,
    LlamaConfig,
    Past,
    Remembering,
    swiglu,
)

TINY = LlamaConfig(vocab_size=5, block_size=6, n_layer=2, n_head=4, n_kv_head=2, n_embd=8,
                   n_hidden=6)  # fmt: skip
UNTIED = replace(TINY, tied=False)
RNG = np.random.default_rng(0)


def tiny(config=TINY, dtype="float64", seed=0):
    """A Llama with weights large enough that every term of every gradient matters."""
    rng = np.random.default_rng(seed)
    model = Llama(config, rng, dtype)
    for p in model.parameters():
        values = 0.5 * rng.standard_normal(p.shape) + (1.0 if p.ndim == 1 else 0.0)
        p.data[...] = xp.asarray(values)
    return model


def batch(config=TINY, B=2, T=4, seed=1):
    return np.random.default_rng(seed).integers(0, config.vocab_size, (2, B, T))


# --- gradients ---


@pytest.mark.parametrize("config", [TINY, UNTIED, replace(TINY, n_kv_head=1, n_layer=1)])
def test_every_parameter_against_differences(config):
    model, (idx, targets) = tiny(config), batch()
    loss = lambda: F.cross_entropy(model(idx), targets)  # noqa: E731
    rows = check_parameters(loss, model.named_parameters())
    assert len(rows) == 2 + 9 * config.n_layer + (not config.tied)
    worst = max(row.error for row in rows)
    print(f"worst relative error {worst:.1e}")
    assert worst < 1e-7


def test_every_parameter_by_the_complex_step():
    """d/dt Re loss(p + tu) = Im loss(p + ihu) / h: nothing is subtracted, so nothing is lost."""
    model, (idx, targets) = tiny(UNTIED), batch()
    F.cross_entropy(model(idx), targets).backward()
    rng, h = np.random.default_rng(5), 1e-30
    for name, p in model.named_parameters():
        data, u = p.data, xp.asarray(rng.standard_normal(p.shape))
        p.data = data + 1j * h * u
        with no_grad():
            slope = F.cross_entropy(model(idx), targets).item().imag / h
        p.data = data
        assert (p.grad * u).sum().item() == pytest.approx(slope, rel=1e-12, abs=1e-15), name


def composed(model, idx):
    """The model again, by its formula, from reference.py; head h looks at keys h // G."""
    c, weight = model.config, dict(model.named_parameters())
    B, T = idx.shape

    def heads(x, name, n):
        out = reference.linear(x, weight[name]).reshape(B, T, n, -1).transpose(0, 2, 1, 3)
        return out[:, np.arange(c.n_head) * n // c.n_head]  # (B, H, T, D), a copy for each query

    x = reference.embedding(weight["tok_embeddings.weight"], idx)
    for i in range(c.n_layer):
        w = f"layers.{i}."
        norm = reference.rms_norm(x, weight[w + "attention_norm.weight"])
        q = heads(norm, w + "attention.wq.weight", c.n_head)
        k, v = (heads(norm, w + f"attention.{a}.weight", c.n_kv_head) for a in ("wk", "wv"))
        out = reference.causal_attention(reference.rotary(q), reference.rotary(k), v)
        out = out.transpose(0, 2, 1, 3).reshape(B, T, c.n_embd)
        x = x + reference.linear(out, weight[w + "attention.wo.weight"])
        norm = reference.rms_norm(x, weight[w + "ffn_norm.weight"])
        w1, w2, w3 = (weight[w + f"feed_forward.w{j}.weight"] for j in (1, 2, 3))
        up = reference.linear(norm, w3)
        x = x + reference.linear(reference.swiglu(reference.linear(norm, w1), up), w2)
    return reference.linear(
        reference.rms_norm(x, weight["norm.weight"]),
        weight["tok_embeddings.weight"].T if c.tied else weight["output.weight"],
    )


@pytest.mark.parametrize("config", [TINY, UNTIED, replace(TINY, n_kv_head=4)])
def test_values_and_gradients_are_those_of_the_composed_model(config):
    model, (idx, _) = tiny(config), batch(T=6)
    outs, grads = [], []
    for f in (model, lambda idx: composed(model, idx)):
        out = f(idx)
        out.backward(np.random.default_rng(3).standard_normal(out.shape))
        outs.append(out.numpy())
        grads.append({name: to_numpy(p.grad) for name, p in model.named_parameters()})
        for p in model.parameters():
            p.grad = None
    np.testing.assert_allclose(*outs, rtol=0, atol=1e-12 * np.abs(outs[1]).max())
    for name, wanted in grads[1].items():
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(grads[0][name], wanted, rtol=0, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize("make", [Attention, FeedForward, Block])
def test_every_layer(make):
    layer, rng = make(TINY, np.random.default_rng(3), "float64"), np.random.default_rng(4)
    for p in layer.parameters():
        p.data[...] += xp.asarray(0.5 * rng.standard_normal(p.shape))
    x = rng.standard_normal((2, 3, 8))
    assert check_grads(layer, x) < 1e-8
    rows = check_parameters(lambda: layer(Tensor(x)), layer.named_parameters())
    assert max(row.error for row in rows) < 1e-8


def test_the_tied_weight_has_one_gradient_the_sum_of_its_two_uses():
    tied, untied, (idx, targets) = tiny(), tiny(UNTIED), batch()
    for name, p in untied.named_parameters():
        own = dict(tied.named_parameters())
        p.data = own["tok_embeddings.weight"].data.T if name == "output.weight" else own[name].data
    for model in (tied, untied):
        F.cross_entropy(model(idx), targets).backward()
    both = untied.tok_embeddings.weight.grad + untied.output.weight.grad.T
    grad = tied.tok_embeddings.weight.grad
    np.testing.assert_allclose(to_numpy(grad), to_numpy(both), rtol=1e-12, atol=1e-15)


def test_swiglu_refuses_what_would_broadcast():
    with pytest.raises(ValueError, match=r"gate \(2, 3\) and up \(3,\)"):
        swiglu(Tensor(np.ones((2, 3))), Tensor(np.ones(3)))


# --- grouped queries ---


def test_grouped_queries_are_full_attention_with_repeated_heads():
    """Keys and values of a head, copied for each of its queries: same output, summed gradient."""
    grouped = tiny(replace(TINY, n_layer=1))
    full = tiny(replace(TINY, n_layer=1, n_kv_head=4))

    def copied(weight):  # (C, K * D) -> (C, H * D)
        return xp.repeat(weight.reshape(8, 2, 2), 2, axis=1).reshape(8, 8)

    for (name, p), q in zip(grouped.named_parameters(), full.parameters(), strict=True):
        q.data = copied(p.data) if name.endswith(("wk.weight", "wv.weight")) else p.data
    idx, targets = batch()
    losses = [F.cross_entropy(model(idx), targets) for model in (grouped, full)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-14)
    for loss in losses:
        loss.backward()
    for (name, p), q in zip(grouped.named_parameters(), full.parameters(), strict=True):
        wanted = q.grad
        if name.endswith(("wk.weight", "wv.weight")):
            wanted = wanted.reshape(8, 2, 2, 2).sum(2).reshape(8, 4)
        found, wanted = to_numpy(p.grad), to_numpy(wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14, err_msg=name)


# --- causality ---


def test_gradient_to_future_inputs_is_exactly_zero():
    model, rng = tiny(), np.random.default_rng(2)
    for t in range(6):
        x = out = Tensor(rng.standard_normal((1, 6, 8)), requires_grad=True)
        for block in model.layers:
            out = block(out)
        g = np.zeros(out.shape)
        g[:, t] = rng.standard_normal(8)
        out.backward(g)
        grad = to_numpy(x.grad)
        assert (grad[:, t + 1 :] == 0).all()
        assert (np.abs(grad[:, : t + 1]).max(-1) > 0).all()  # and the past does matter


def test_where_a_token_stands_matters():
    """Without positions, a sum over the past would not know the order of what it adds up."""
    model = tiny(replace(TINY, n_layer=1))
    one, other = (model(np.array([[*start, 4]])).numpy()[:, -1] for start in ((1, 2, 3), (3, 1, 2)))
    assert np.abs(one - other).max() > 1e-3


# --- learning, names, sizes ---


def test_loss_at_the_start_is_that_of_guessing():
    idx, targets = batch(LlamaConfig(), B=4, T=32)
    loss = F.cross_entropy(Llama(LlamaConfig(), np.random.default_rng(0))(idx), targets).item()
    assert abs(loss / math.log(512) - 1) < 0.01


def test_overfits_one_batch():
    config = LlamaConfig(vocab_size=20, block_size=16, n_layer=2, n_head=4, n_kv_head=2, n_embd=32,
                         n_hidden=64)  # fmt: skip
    model = Llama(config, np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    idx, targets = batch(config, B=4, T=16)
    for _ in range(120):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(idx), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_the_trainer_trains_it(tmp_path):
    text = "the cat sat on the mat. " * 60
    tokenizer = CharTokenizer.from_text(text)
    config = replace(TINY, vocab_size=tokenizer.vocab_size, n_embd=16, n_hidden=32)
    model = Llama(config, np.random.default_rng(0))
    ids, setup = tokenizer.encode(text), TrainConfig(steps=60, eval_every=60, batch_size=8)
    trainer = Trainer(model, tokenizer, ids, ids[:200], setup, tmp_path, np.random.default_rng(0))
    trainer.run(report=lambda line: None)
    first, last = (line["val_loss"] for line in trainer.log)
    assert first > 2.3 and last < 1.2


def test_names_are_llamas_and_the_published_size():
    model = Llama(LlamaConfig(), RNG)
    assert model.num_parameters() == 260_032
    names = [name for name, _ in Llama(replace(UNTIED, n_layer=1), RNG).named_parameters()]
    assert names == [
        "tok_embeddings.weight", "layers.0.attention_norm.weight", "layers.0.attention.wq.weight",
        "layers.0.attention.wk.weight", "layers.0.attention.wv.weight",
        "layers.0.attention.wo.weight", "layers.0.ffn_norm.weight",
        "layers.0.feed_forward.w1.weight", "layers.0.feed_forward.w2.weight",
        "layers.0.feed_forward.w3.weight", "norm.weight", "output.weight",
    ]  # fmt: skip


def test_initial_weights_and_what_decays():
    model = Llama(replace(LlamaConfig(), n_embd=128, n_layer=8), np.random.default_rng(0))
    decayed = {id(p) for p in model.decayed_parameters()}
    for name, p in model.named_parameters():
        if p.ndim == 2:
            last = name.endswith(("wo.weight", "w2.weight"))  # into the stream: 16 sums
            assert p.numpy().std() == pytest.approx(0.02 / 4 if last else 0.02, rel=0.05), name
        else:
            assert (p.data == 1).all()
        assert (id(p) in decayed) == (p.ndim == 2 and name != "tok_embeddings.weight"), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype):
    model, (idx, targets) = tiny(UNTIED, dtype), batch()
    logits = model(idx)
    F.cross_entropy(logits, targets).backward()
    assert {a.dtype.name for p in model.parameters() for a in (p.data, p.grad)} == {dtype}
    assert logits.dtype == Remembering(model)(idx).dtype == dtype


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_kv_head": 3}, "n_head 4 must be a multiple of n_kv_head 3"),
        ({"n_kv_head": 8}, "n_head 4 must be a multiple of n_kv_head 8"),
        ({"n_embd": 12}, "n_embd 12 must be an even multiple of n_head 4"),
        ({"n_embd": 10}, "n_embd 10 must be an even multiple of n_head 4"),
        ({"n_hidden": 0}, "n_hidden must be a positive integer, got 0"),
        ({"vocab_size": 2.0}, "vocab_size must be a positive integer, got 2.0"),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


@pytest.mark.parametrize("idx", [[1, 2], np.zeros((1, 0), int), [[0] * 7]])
def test_texts_that_do_not_fit(idx):
    with pytest.raises(ValueError, match="idx must be .* block_size is 6"):
        tiny()(np.array(idx))


@pytest.mark.parametrize("idx", [[[0, 5]], [[-1]], [[0.5]]])
def test_ids_that_are_none(idx):
    with pytest.raises(ValueError, match="^idx must be (in 0..4|integers)"):
        tiny()(np.array(idx))


# --- what generation remembers ---


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5], [3], [2, 5]])
def test_in_parts_the_logits_are_those_of_the_whole(cuts):
    model, (idx, _) = tiny(), batch(B=3, T=6)
    whole, speaker, done = model(idx).numpy(), Remembering(model), 0
    for end in [*cuts, 6]:
        out = speaker(idx[:, :end]).numpy()
        assert out.shape == (3, end - done, 5)  # only what is new is computed
        np.testing.assert_allclose(out, whole[:, done:end], rtol=1e-12, atol=1e-12)
        done = end


def test_another_text_is_not_continued():
    model, (idx, other) = tiny(), batch(T=5)
    speaker = Remembering(model)
    speaker(idx[:, :3])
    changed = idx.copy()
    changed[1, 1] = (idx[1, 1] + 1) % 5
    for text in (changed, idx[:, :2], other, other, idx[:1], idx[:, 1:]):
        found, wanted = speaker(text).numpy(), model(text).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_another_number_of_texts_is_not_continued():
    """Also where the remembered text is repeated, which would broadcast."""
    model, speaker = tiny(), Remembering(tiny())
    for rows, T in ((2, 2), (1, 3), (3, 4), (2, 5)):
        text = np.array(rows * [[1, 2, 3, 4, 0][:T]])
        found, wanted = speaker(text).numpy(), model(text).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_an_error_leaves_nothing_half_remembered():
    model, (idx, _) = tiny(), batch()
    speaker = Remembering(model)
    speaker(idx[:, :2])
    with pytest.raises(ValueError, match="idx must be"):
        speaker(idx[0])
    speaker(idx[:, :2])
    with pytest.raises(ValueError, match="must be in 0..4"):
        speaker(np.where(np.arange(4) > 2, 7, idx))
    np.testing.assert_allclose(speaker(idx).numpy(), model(idx).numpy(), rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generate_draws_the_same_with_and_without(temperature, monkeypatch):
    """Also when the window slides, and all that was remembered is about another text."""
    model, prompt = tiny(), np.array([[1, 2], [4, 0]])
    computed = []
    real = Llama.__call__

    def counting(self, idx, *args, **options):
        computed.append(idx.shape[1])
        return real(self, idx, *args, **options)

    monkeypatch.setattr(Llama, "__call__", counting)
    drawn = [
        np.stack([*generate(m, prompt, 9, rng=np.random.default_rng(3), temperature=temperature)])
        for m in (model, Remembering(model))
    ]
    np.testing.assert_array_equal(*drawn)
    assert computed[:9] == [2, 3, 4, 5, 6, 6, 6, 6, 6]
    assert computed[9:] == [2, 1, 1, 1, 1, 6, 6, 6, 6]


def test_remembering_records_no_graph():
    speaker = Remembering(tiny())
    assert not speaker(np.array([[1, 2]])).requires_grad
    assert not speaker.past[0].k.requires_grad


def test_no_more_than_a_block_is_remembered():
    model, past = tiny(), [Past(), Past()]
    model(np.zeros((1, 4), int), past=past)
    with pytest.raises(ValueError, match="1 <= T <= 2, got shape"):
        model(np.zeros((1, 3), int), past=past)


def test_the_past_may_be_differentiated_too():
    """Past is plain Tensors: in parts, with the graph, the gradients are those of the whole."""
    model, (idx, _) = tiny(), batch(T=4)
    g = np.random.default_rng(6).standard_normal((2, 4, 5))
    model(idx).backward(g)
    whole = [p.grad for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    past = [Past(), Past()]
    parts = [model(part, past=past) for part in (idx[:, :3], idx[:, 3:])]
    ops.concatenate(*parts, axis=1).backward(g)
    for p, wanted in zip(model.parameters(), whole, strict=True):
        found, wanted = to_numpy(p.grad), to_numpy(wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-13)
