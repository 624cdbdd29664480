"""The whole GPT: every parameter's gradient, causality, the leak test, shapes, dtypes, errors."""

import math
from dataclasses import replace

import numpy as np
import pytest

import minigpt.model
from minigpt import functional as F
from minigpt import ops, reference
from minigpt.backend import to_numpy, xp
from minigpt.cost import flops_per_token
from minigpt.gradcheck import check_grads, check_parameters
from minigpt.model import GPT, MLP, POSITIONS, Block, CausalSelfAttention, GPTConfig
from minigpt.nn import Dropout, Embedding, LayerNorm, Linear, Module
from minigpt.optim import AdamW
from minigpt.tensor import Tensor, no_grad
from tests.cases import attend, turn

TINY = GPTConfig(vocab_size=5, block_size=3, n_layer=2, n_head=2, n_embd=4)


def tiny_gpt(config=TINY, dtype="float64", seed=0):
    """A GPT with weights large enough that every term of every gradient matters."""
    rng = np.random.default_rng(seed)
    model = GPT(config, rng, dtype)
    for p in model.parameters():
        centre = 1.0 if p.ndim == 1 else 0.0
        p.data[...] = xp.asarray(0.5 * rng.standard_normal(p.shape) + centre)
    return model


def batch(config=TINY, B=2, seed=1):
    rng = np.random.default_rng(seed)
    idx, targets = rng.integers(0, config.vocab_size, (2, B, config.block_size))
    return idx, targets


# --- gradients ---


@pytest.mark.parametrize("bias", [True, False])
def test_every_entry_of_every_parameter(bias):
    model = tiny_gpt(replace(TINY, bias=bias))
    idx, targets = batch()
    loss = lambda: F.cross_entropy(model(idx), targets)  # noqa: E731
    rows = check_parameters(loss, model.named_parameters(), elementwise=True)
    assert len(rows) == len(model.parameters()) == (28 if bias else 15)
    errors = sorted(row.error for row in rows)
    print(f"worst relative error {errors[-1]:.1e}")
    assert errors[-1] < 1e-6
    assert np.mean(np.array(errors) < 1e-8) >= 0.9


def test_every_parameter_with_a_random_cotangent_on_the_logits():
    config = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=4, n_embd=16)
    model = tiny_gpt(config)
    idx, _ = batch(config, B=3)
    rows = check_parameters(lambda: model(idx), model.named_parameters())
    assert len(rows) == 28
    assert max(row.error for row in rows) < 1e-8


def test_every_parameter_under_dropout_with_a_fixed_generator():
    config = replace(TINY, dropout=0.3)
    model = tiny_gpt(config)
    idx, targets = batch()
    loss = lambda: F.cross_entropy(model(idx, np.random.default_rng(7)), targets)  # noqa: E731
    assert max(row.error for row in check_parameters(loss, model.named_parameters())) < 1e-7


def test_a_wrong_gradient_inside_the_model_is_found(monkeypatch):
    model = tiny_gpt()
    idx, targets = batch()

    def lost_rowsum(qkv, **options):  # as if softmax's sum were constant
        B, T, _ = qkv.shape
        q, k, v = (x.reshape(B, T, 2, 2).transpose(0, 2, 1, 3) for x in ops.split(qkv, 3, -1))
        scores = ops.matmul(q, k.transpose(0, 1, 3, 2)) / math.sqrt(2)
        e = ops.exp(ops.where(xp.tri(T, dtype=bool), scores, xp.asarray(-np.inf)))
        out = ops.matmul(e / e.sum(axis=-1, keepdims=True).detach(), v)
        return out.transpose(0, 2, 1, 3).reshape(B, T, 4)

    monkeypatch.setattr("minigpt.model.causal_self_attention", lost_rowsum)
    with pytest.raises(ValueError, match="the tape says .* relative error"):
        check_parameters(lambda: F.cross_entropy(model(idx), targets), model.named_parameters())


def layers():
    rng = np.random.default_rng(3)
    make = {"rng": rng, "dtype": "float64"}
    return {
        "Linear": Linear(4, 3, std=0.5, **make),
        "Linear without bias": Linear(4, 3, std=0.5, bias=False, **make),
        "LayerNorm": LayerNorm(4, dtype="float64"),
        "LayerNorm without bias": LayerNorm(4, bias=False, dtype="float64"),
        "CausalSelfAttention": CausalSelfAttention(TINY, rng, "float64"),
        "MLP": MLP(TINY, rng, "float64"),
        "Block": Block(TINY, rng, "float64"),
    }


@pytest.mark.parametrize("name", layers())
def test_every_layer(name):
    layer, rng = layers()[name], np.random.default_rng(4)
    for p in layer.parameters():
        p.data[...] += xp.asarray(0.5 * rng.standard_normal(p.shape))
    x = rng.standard_normal((2, 3, 4))
    assert check_grads(layer, x) < 1e-8
    rows = check_parameters(lambda: layer(Tensor(x)), layer.named_parameters(), elementwise=True)
    assert max(row.error for row in rows) < 1e-7


def test_embedding_layer_with_repeated_ids():
    layer = Embedding(5, 3, rng=np.random.default_rng(0), dtype="float64")
    idx = np.array([[1, 1, 4], [1, 0, 4]])
    rows = check_parameters(lambda: layer(idx), layer.named_parameters(), elementwise=True)
    assert rows[0].error < 1e-8


def test_tied_weight_has_one_gradient_the_sum_of_its_two_uses():
    model = tiny_gpt()
    idx, targets = batch()
    F.cross_entropy(model(idx), targets).backward()
    together = to_numpy(model.wte.weight.grad)
    as_table = Tensor(model.wte.weight.data.copy(), requires_grad=True)
    as_head = Tensor(model.wte.weight.data.copy(), requires_grad=True)
    x = F.embedding(as_table, idx) + model.wpe(np.arange(3))
    for block in model.h:
        x = block(x)
    F.cross_entropy(F.linear(model.ln_f(x), as_head.T), targets).backward()
    table, head = to_numpy(as_table.grad), to_numpy(as_head.grad)
    assert np.abs(table).min() > 0 or np.abs(table).max() > 0
    np.testing.assert_allclose(together, table + head, rtol=1e-12, atol=1e-14)


# --- causality ---


def test_gradient_to_future_inputs_is_exactly_zero():
    config = GPTConfig(vocab_size=5, block_size=6, n_layer=2, n_head=2, n_embd=8)
    model = tiny_gpt(config)
    rng = np.random.default_rng(2)
    for t in range(6):
        x = Tensor(rng.standard_normal((1, 6, 8)), requires_grad=True)
        out = x
        for block in model.h:
            out = block(out)
        g = np.zeros(out.shape)
        g[:, t] = rng.standard_normal(8)
        out.backward(g)
        dx = to_numpy(x.grad)
        assert (dx[:, t + 1 :] == 0).all()
        assert (np.abs(dx[:, : t + 1]).max(-1) > 0).all()  # and the past does matter


def test_logits_do_not_change_with_later_tokens():
    model = tiny_gpt()
    idx, _ = batch()
    other = idx.copy()
    other[:, 2] = (idx[:, 2] + 1) % 5
    a, b = model(idx).numpy(), model(other).numpy()
    assert (a[:, :2] == b[:, :2]).all()
    assert not np.allclose(a[:, 2], b[:, 2])


def unmasked(qkv, *, n_head, **options):
    """Attention that sees the future: the leak that the test below must notice."""
    B, T, width = qkv.shape
    D = width // 3 // n_head
    q, k, v = (x.reshape(B, T, n_head, D).transpose(0, 2, 1, 3) for x in ops.split(qkv, 3, -1))
    att = reference.softmax(ops.matmul(q, k.transpose(0, 1, 3, 2)) / math.sqrt(D))
    return ops.matmul(att, v).transpose(0, 2, 1, 3).reshape(B, T, width // 3)


def loss_on_random_tokens(steps=300):
    """Held-out nats per token after training on tokens that nothing can predict, V = 16."""
    config = GPTConfig(vocab_size=16, block_size=16, n_layer=1, n_head=2, n_embd=32)
    rng = np.random.default_rng(0)
    model = GPT(config, rng)
    optimizer = AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(steps):
        tokens = rng.integers(0, 16, (32, 17))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
        optimizer.step()
    tokens = rng.integers(0, 16, (500, 17))
    with no_grad():
        return F.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).item()


def test_leak_with_random_tokens(monkeypatch):
    honest = loss_on_random_tokens()
    assert abs(honest - math.log(16)) < 0.02
    monkeypatch.setattr("minigpt.model.causal_self_attention", unmasked)
    leaking = loss_on_random_tokens()
    print(f"ln 16 = {math.log(16):.4f}, causal {honest:.4f}, unmasked {leaking:.4f}")
    assert leaking < math.log(16) - 1


# --- learning, counting, names ---


def test_loss_at_the_start_is_that_of_guessing():
    config = GPTConfig(vocab_size=65, block_size=32, n_layer=4, n_head=4, n_embd=64)
    idx, targets = batch(config, B=8)
    loss = F.cross_entropy(GPT(config, np.random.default_rng(0))(idx), targets).item()
    assert abs(loss / math.log(65) - 1) < 0.05


def test_overfits_one_batch():
    config = GPTConfig(vocab_size=20, block_size=16, n_layer=2, n_head=2, n_embd=32)
    model = GPT(config, np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    idx, targets = batch(config, B=4)
    for _ in range(200):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(idx), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def count(V, T, L, C):
    """Parameters of a GPT-2: two tables, per layer 12 C^2 + 13 C, the last layer norm."""
    return V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C


def test_parameter_count():
    model = GPT(GPTConfig(vocab_size=50, block_size=8, n_layer=3, n_head=2, n_embd=6), RNG)
    assert model.num_parameters() == count(50, 8, 3, 6)
    assert count(50257, 1024, 12, 768) == 124_439_808  # GPT-2, as published


def test_names_are_gpt2s():
    names = [name for name, _ in GPT(replace(TINY, n_layer=1), RNG).named_parameters()]
    assert names == [
        "wte.weight", "wpe.weight",
        "h.0.ln_1.weight", "h.0.ln_1.bias", "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias",
        "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias", "h.0.ln_2.weight", "h.0.ln_2.bias",
        "h.0.mlp.c_fc.weight", "h.0.mlp.c_fc.bias", "h.0.mlp.c_proj.weight", "h.0.mlp.c_proj.bias",
        "ln_f.weight", "ln_f.bias",
    ]  # fmt: skip


def test_initial_weights():
    config = GPTConfig(vocab_size=200, block_size=100, n_layer=8, n_head=4, n_embd=128)
    model = GPT(config, np.random.default_rng(0))
    std = {name: p.data.std() for name, p in model.named_parameters() if p.ndim == 2}
    for name, value in std.items():
        wanted = 0.02 / math.sqrt(16) if "c_proj" in name else 0.02
        assert abs(value / wanted - 1) < 0.03, name


def test_flops_per_token():
    config = GPTConfig(vocab_size=7, block_size=4, n_layer=2, n_head=1, n_embd=3)
    forward = 2 * (2 * (12 * 3 * 3) + 7 * 3 + 2 * 2 * 4 * 3)  # blocks, head, attention
    assert flops_per_token(GPT(config, RNG)) == 3 * forward


def test_decay_leaves_gains_offsets_and_embeddings_alone():
    model = GPT(TINY, RNG)
    decayed = {id(p) for p in model.decayed_parameters()}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    kinds = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"h.{i}.{kind}.weight" for i in range(2) for kind in kinds}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept_through_forward_backward_and_optimizer(dtype):
    model = GPT(replace(TINY, dropout=0.2), np.random.default_rng(0), dtype)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    idx, targets = batch()
    logits = model(idx, np.random.default_rng(1))
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    optimizer.step()
    arrays = [logits.data, loss.data, optimizer.m, optimizer.v, optimizer.data, optimizer.grad]
    arrays += [a for p in model.parameters() for a in (p.data, p.grad)]
    assert {a.dtype.name for a in arrays} == {dtype}


def test_dropout_only_with_a_generator():
    model = tiny_gpt(replace(TINY, dropout=0.5))
    idx, _ = batch()
    assert (model(idx).data == model(idx).data).all()
    noisy = [model(idx, np.random.default_rng(seed)).numpy() for seed in (0, 0, 1)]
    assert (noisy[0] == noisy[1]).all()
    assert not np.allclose(noisy[0], noisy[2])
    assert not np.allclose(noisy[0], model(idx).numpy())
    x = Tensor(np.ones(3))
    assert Dropout(0.5)(x) is x
    assert Dropout(0.0)(x, np.random.default_rng(0)) is x


def test_a_tensor_used_twice_is_named_once():
    class Twice(Module):
        def __init__(self):
            self.a = Linear(2, 2, rng=RNG)
            self.again = [self.a, Linear(2, 2, rng=RNG, bias=False)]

    names = [name for name, _ in Twice().named_parameters()]
    assert names == ["a.weight", "a.bias", "again.1.weight"]


def test_a_misspelt_attribute_raises():
    with pytest.raises(AttributeError):
        GPT(TINY, RNG).wtee  # noqa: B018


# --- the ways to tell positions apart ---

each_position = pytest.mark.parametrize("position", POSITIONS)
CONSTANT = [position for position in POSITIONS if position != "learned"]


@each_position
def test_every_parameter_with_every_kind_of_position(position):
    model = tiny_gpt(replace(TINY, position=position))
    idx, _ = batch()
    rows = check_parameters(lambda: model(idx), model.named_parameters())
    assert len(rows) == (28 if position == "learned" else 27)
    assert max(row.error for row in rows) < 1e-8


@each_position
@pytest.mark.parametrize("T", [4, 6])
def test_no_kind_of_position_sees_the_future(position, T):
    """The gradient of one position's logits to later tokens' embeddings is exactly 0."""
    config = GPTConfig(vocab_size=7, block_size=6, n_layer=2, n_head=2, n_embd=8, position=position)
    model, rng = tiny_gpt(config), np.random.default_rng(2)
    rows = Tensor(rng.standard_normal((1, T, 8)), requires_grad=True)  # instead of wte's
    head, model.wte = model.wte.weight, lambda idx: rows
    model.wte.weight = head
    for t in range(T):
        rows.grad, g = None, np.zeros((1, T, 7))
        g[:, t] = rng.standard_normal(7)
        model(np.zeros((1, T), int)).backward(g)
        dx = to_numpy(rows.grad)
        assert (dx[:, t + 1 :] == 0).all()
        assert (np.abs(dx[:, : t + 1]).max(-1) > 0).all()


@each_position
def test_only_none_is_blind_to_order(position):
    """One layer gathers from a set: permuted earlier tokens change nothing but by position."""
    config = GPTConfig(vocab_size=7, block_size=6, n_layer=1, n_head=4, n_embd=8, position=position)
    model = tiny_gpt(config)
    a, b = (model([ids]).numpy()[0, -1] for ids in ([1, 4, 2, 6, 0, 3], [6, 0, 1, 2, 4, 3]))
    change = np.abs(a - b).max()
    assert change < 1e-12 if position == "none" else change > 1e-3


@each_position
def test_the_loss_at_the_start_with_every_kind_of_position(position):
    config = GPTConfig(
        vocab_size=65, block_size=32, n_layer=4, n_head=4, n_embd=64, position=position
    )
    idx, targets = batch(config, B=8)
    loss = F.cross_entropy(GPT(config, np.random.default_rng(0))(idx), targets).item()
    assert abs(loss / math.log(65) - 1) < 0.05


@pytest.mark.parametrize("position", CONSTANT)
def test_a_constant_position_has_no_parameters_and_costs_no_draws(position):
    learned, other = (
        GPT(replace(TINY, position=p), np.random.default_rng(0)) for p in ("learned", position)
    )
    names = [name for name, _ in learned.named_parameters()]
    assert [name for name, _ in other.named_parameters()] == [n for n in names if n[:3] != "wpe"]
    assert learned.num_parameters() - other.num_parameters() == learned.wpe.weight.size == 12
    assert len(other.decayed_parameters()) == len(learned.decayed_parameters()) == 8
    assert flops_per_token(other) == flops_per_token(learned)
    assert (other.wte.weight.data == learned.wte.weight.data).all()
    drawn = np.random.default_rng(0)
    drawn.normal(size=TINY.vocab_size * 4)  # wte; the first block comes next
    expected = drawn.normal(0, 0.02, (4, 12)).astype("float32")
    assert (other.h[0].attn.c_attn.weight.numpy() == expected).all()


@each_position
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept_with_every_kind_of_position(position, dtype):
    config = replace(TINY, position=position, dropout=0.2)
    model = GPT(config, np.random.default_rng(0), dtype)
    logits = model(batch()[0], np.random.default_rng(1))
    logits.backward(np.ones(logits.shape))
    assert logits.dtype == dtype
    tables = [a for a in vars(model).values() if hasattr(a, "dtype")]
    assert {a.dtype.name for a in (*tables, *(p.grad for p in model.parameters()))} == {dtype}
    assert len(tables) == (position in ("sinusoid", "alibi"))


def test_the_sinusoids_are_of_the_tokens_size():
    config = GPTConfig(vocab_size=50, n_embd=64, block_size=40, position="sinusoid")
    model = GPT(config, np.random.default_rng(0), "float64")
    assert abs(math.sqrt((model.waves**2).mean()) / 0.02 - 1) < 1e-12
    model.wte.weight.data[...] = 0  # so that only positions are left
    added = []
    model.h = [lambda x, *_: added.append(x.numpy()) or x]
    model(np.zeros((2, 7), int))
    waves = to_numpy(model.waves[:7])
    np.testing.assert_allclose(added[0], np.broadcast_to(waves, (2, 7, 64)))


@pytest.mark.parametrize("position", ["rope", "alibi"])
def test_relative_positions_do_not_notice_when_all_move(position):
    """Five places alone, and the same five behind four that they may not see: the same outputs."""
    config = GPTConfig(vocab_size=5, block_size=9, n_layer=1, n_head=2, n_embd=8, position=position)
    model = tiny_gpt(config)
    block = model.h[0]
    x = np.random.default_rng(3).standard_normal((1, 9, 8))
    bias = model.distances if position == "alibi" else xp.zeros((2, 9, 9))
    hidden = xp.zeros((9, 9))
    hidden[4:, :4] = -math.inf
    alone = block(Tensor(x[:, 4:]), None, bias[:, :5, :5]).numpy()
    behind = block(Tensor(x), None, bias + hidden).numpy()[:, 4:]
    np.testing.assert_allclose(behind, alone, rtol=1e-10, atol=1e-12)


def test_rope_turns_queries_and_keys_of_every_head_and_leaves_values():
    config = GPTConfig(block_size=5, n_head=3, n_embd=12, position="rope")
    layer = CausalSelfAttention(config, np.random.default_rng(0), "float64")
    layer.c_attn.weight.data *= 50
    x = np.random.default_rng(1).standard_normal((2, 5, 12))
    qkv = (x @ layer.c_attn.weight.numpy()).reshape(2, 5, 3, 3, 4).transpose(2, 0, 3, 1, 4)
    q, k, v = qkv  # (B, H, T, D)
    out = attend(turn(q, 10000.0, 0), turn(k, 10000.0, 0), v)
    expected = out.transpose(0, 2, 1, 3).reshape(2, 5, 12) @ layer.c_proj.weight.numpy()
    np.testing.assert_allclose(layer(Tensor(x)).numpy(), expected, rtol=1e-12, atol=1e-14)


def test_alibi_reaches_every_layer(monkeypatch):
    biases, real = [], minigpt.model.causal_self_attention

    def spy(qkv, *, bias, **options):
        biases.append(bias)
        return real(qkv, bias=bias, **options)

    monkeypatch.setattr("minigpt.model.causal_self_attention", spy)
    tiny_gpt(replace(TINY, position="alibi"))(batch()[0][:, :2])
    expected = [[[0, 0], [-1 / 16, 0]], [[0, 0], [-1 / 256, 0]]]
    assert [bias.tolist() for bias in biases] == [expected] * 2


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_embd": 10, "n_head": 4}, "n_embd 10 must be a multiple of n_head 4"),
        ({"vocab_size": 0}, "vocab_size must be a positive integer, got 0"),
        ({"n_layer": 1.5}, "n_layer must be a positive integer, got 1.5"),
        ({"dropout": 1.0}, "dropout must be in 0 <= p < 1, got 1.0"),
        ({"position": "rotary"}, "one of learned, sinusoid, rope, alibi, none; got 'rotary'"),
        ({"position": None}, "position must be one of learned, .*; got None"),
        (
            {"position": "sinusoid", "n_embd": 5, "n_head": 1},
            r"'sinusoid' pairs channels: 5 is odd \(n_embd 5, n_head 1\)",
        ),
        (
            {"position": "rope", "n_embd": 6, "n_head": 2},
            r"'rope' pairs channels: 3 is odd \(n_embd 6, n_head 2\)",
        ),
    ],
)
def test_config_errors(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("idx", "message"),
    [
        ([0, 1], r"idx must be \(B, T\).*got shape \(2,\)"),
        ([[0, 1, 2, 3]], r"T <= block_size 3, got shape \(1, 4\)"),
        (np.zeros((1, 0), int), r"got shape \(1, 0\)"),
        ([[0, 5]], r"idx must be in 0..4, got 0..5"),
        ([[0, -1]], r"idx must be in 0..4, got -1..0"),
        ([[0.0, 1.0]], "idx must be integers, got float64"),
    ],
)
def test_idx_errors(idx, message):
    with pytest.raises(ValueError, match=message):
        GPT(TINY, RNG)(idx)


def test_load_arrays_is_all_or_nothing():
    model = tiny_gpt()
    arrays = {name: np.zeros(p.shape) for name, p in model.named_parameters()}
    before = model.ln_f.bias.data.copy()
    for name, change, message in (
        ("ln_f.bias", None, "ln_f.bias is missing"),
        ("wpe.weight", np.zeros((2, 2)), r"wpe.weight has shape \(2, 2\) instead of \(3, 4\)"),
        ("extra", np.zeros(1), "extra is unknown"),
    ):
        wrong = {k: v for k, v in arrays.items() if k != name} | (
            {} if change is None else {name: change}
        )
        with pytest.raises(ValueError, match=message):
            model.load_arrays(wrong)
        assert (model.ln_f.bias.data == before).all()
    model.load_arrays(arrays)
    assert all((p.data == 0).all() for p in model.parameters())


RNG = np.random.default_rng(0)


def test_names_of_lists_inside_modules():
    class Outer(Module):
        def __init__(self):
            self.inner = Inner()

    class Inner(Module):
        def __init__(self):
            self.parts = [Embedding(2, 1, rng=RNG), Embedding(2, 1, rng=RNG)]

    names = [name for name, _ in Outer().named_parameters()]
    assert names == ["inner.parts.0.weight", "inner.parts.1.weight"]


def test_load_arrays_keeps_dtype_and_the_optimizers_buffer():
    model = tiny_gpt(dtype="float32")
    optimizer = AdamW(model.parameters(), lr=1.0)
    model.load_arrays({name: np.ones(p.shape) for name, p in model.named_parameters()})
    assert (optimizer.data == 1).all()
    assert {p.dtype.name for p in model.parameters()} == {"float32"}


def test_initial_gains_are_one_and_offsets_zero():
    for name, p in GPT(TINY, RNG).named_parameters():
        if p.ndim == 1:
            assert (p.data == (1 if name.endswith("weight") else 0)).all(), name


def test_dropout_stands_where_gpt2_has_it(monkeypatch):
    """On the embeddings, the attention weights, and each branch before it is added."""
    model, rng, calls = tiny_gpt(replace(TINY, dropout=0.3)), np.random.default_rng(0), []
    for module, name in ((F, "dropout"), (minigpt.model, "causal_self_attention")):
        real = getattr(module, name)

        def spy(x, *, name=name, real=real, **options):
            calls.append((name, options["p"], options["rng"] is rng))
            return real(x, **options)

        monkeypatch.setattr(module, name, spy)
    model(batch()[0], rng)
    block = ["causal_self_attention", "dropout", "dropout"]
    assert calls == [(name, 0.3, True) for name in ["dropout", *block, *block]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_norm_without_bias_is_one_with_bias_zero(dtype):
    x = Tensor(np.random.default_rng(0).standard_normal((3, 4)).astype(dtype))
    bare, full = (LayerNorm(4, bias=bias, dtype=dtype)(x) for bias in (False, True))
    assert bare.dtype == dtype
    assert (bare.data == full.data).all()


def test_load_arrays_names_the_first_three_faults():
    with pytest.raises(ValueError) as error:
        tiny_gpt().load_arrays({})
    assert str(error.value) == (
        "arrays do not fit the model: wte.weight is missing; wpe.weight is missing; "
        "h.0.ln_1.weight is missing"
    )


@pytest.mark.parametrize("make", [Linear, Embedding])
def test_initial_weights_have_mean_0_and_their_standard_deviation(make):
    weight = make(300, 200, rng=np.random.default_rng(0), std=0.5).weight.numpy()
    assert abs(weight.mean()) < 0.01  # 5 standard errors
    assert weight.std() == pytest.approx(0.5, rel=0.02)


def test_a_layer_norm_has_an_offset_unless_it_is_told_not_to():
    plain, bare = LayerNorm(4), LayerNorm(4, bias=False)
    assert [name for name, _ in plain.named_parameters()] == ["weight", "bias"]
    assert [name for name, _ in bare.named_parameters()] == ["weight"]
    assert {p.dtype for p in plain.parameters()} == {np.dtype("float32")}
    x = Tensor(np.random.default_rng(0).normal(size=(2, 4)).astype("float32"))
    np.testing.assert_array_equal(plain(x).numpy(), bare(x).numpy())
