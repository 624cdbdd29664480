"""What is shown of a model's inside is what the model computes, and its numbers are what they say.

Witnesses are written out here, in loops, from the parameters alone.
"""

import math

import numpy as np
import pytest

from minigpt.backend import to_numpy, xp
from minigpt.interpret.explain import explain
from minigpt.interpret.labels import columns, labels, padded, shortened, visible
from minigpt.interpret.reading import distance, entropy, likeliest, read
from minigpt.interpret.trace import trace
from minigpt.model import GPT, POSITIONS, Block, GPTConfig
from minigpt.tensor import Tensor, no_grad
from minigpt.tokenizer import BPETokenizer, CharTokenizer, train_bpe

V, T, C, H, D = 11, 7, 8, 2, 4
KINDS = [(position, tied, bias) for position in POSITIONS for tied in (True, False)
         for bias in (True, False)]  # fmt: skip


def model(position="learned", tied=True, bias=True, dtype="float64", block_size=T + 2):
    rng = np.random.default_rng(1)
    config = GPTConfig(V, block_size, n_layer=3, n_head=H, n_embd=C, dropout=0.3, bias=bias,
                       position=position, tied=tied)  # fmt: skip
    gpt = GPT(config, rng, dtype)
    for p in gpt.parameters():  # large enough that a wrong one is seen
        p.data += xp.asarray(0.5 * rng.standard_normal(p.shape), dtype)
    return gpt


IDX = np.array([3, 1, 4, 1, 5, 9, 2])


def of(tensor):
    return to_numpy(tensor.data)


def normed(x, norm):
    """Layer norm of each row, by hand."""
    rows = []
    for row in x:
        centred = row - sum(row) / len(row)
        rows.append(centred / math.sqrt(sum(centred**2) / len(row) + 1e-5))
    return np.array(rows) * of(norm.weight) + (0 if norm.bias is None else of(norm.bias))


def through(x, linear):
    return x @ of(linear.weight) + (0 if linear.bias is None else of(linear.bias))


def turned(x, position):
    """Rotary positions: each pair of channels is a complex number, which is turned."""
    clocks = 10000.0 ** (-np.arange(0, D, 2) / D)
    z = (x[0::2] + 1j * x[1::2]) * np.exp(1j * position * clocks)
    return np.stack([z.real, z.imag], -1).reshape(-1)


def softmax_by_hand(gpt, block, x):
    """Attention weights (H, T, T) of a block that is given the stream x (T, C), and its values."""
    qkv = through(normed(x, block.ln_1), block.attn.c_attn)  # (T, 3C)
    att, values = np.zeros((H, len(x), len(x))), []
    for h in range(H):
        q, k, v = (qkv[:, part * C + h * D : part * C + (h + 1) * D] for part in range(3))
        for i in range(len(x)):
            scores = []
            for j in range(i + 1):
                qi, kj = (turned(q[i], i), turned(k[j], j)) if block.attn.rope else (q[i], k[j])
                score = sum(qi * kj) / math.sqrt(D)
                if gpt.config.position == "alibi":
                    score -= 2.0 ** (-8 * (h + 1) / H) * (i - j)
                scores.append(score)
            weights = [math.exp(score) for score in scores]
            att[h, i, : i + 1] = np.array(weights) / sum(weights)
        values.append(v)
    return att, values


# --- the trace --------------------------------------------------------------------------------


@pytest.mark.parametrize(("position", "tied", "bias"), KINDS)
def test_the_logits_are_the_models_own(position, tied, bias):
    gpt = model(position, tied, bias)
    with no_grad():
        wanted = of(gpt(IDX[None]))[0]
    found = trace(gpt, IDX)
    assert found.logits.shape == (T, V)
    np.testing.assert_allclose(found.logits, wanted, atol=1e-12)
    last = wanted - np.log(np.exp(wanted).sum(-1, keepdims=True))
    np.testing.assert_allclose(found.lens(3), last, atol=1e-12)


@pytest.mark.parametrize(("position", "tied", "bias"), KINDS)
def test_the_weights_are_a_softmax_that_sees_nothing_ahead(position, tied, bias):
    gpt = model(position, tied, bias)
    found = trace(gpt, IDX)
    assert found.att.shape == (3, H, T, T)
    np.testing.assert_allclose(found.att.sum(-1), 1, atol=1e-12)
    assert (found.att[..., np.triu(np.ones((T, T), bool), 1)] == 0).all()
    for layer, block in enumerate(gpt.h):
        wanted, _ = softmax_by_hand(gpt, block, found.stream[layer])
        np.testing.assert_allclose(found.att[layer], wanted, atol=1e-12)


@pytest.mark.parametrize(("position", "tied", "bias"), KINDS)
def test_the_stream_grows_by_what_each_block_adds(position, tied, bias):
    gpt = model(position, tied, bias)
    found = trace(gpt, IDX)
    assert found.stream.shape == (4, T, C)
    start = of(gpt.wte.weight)[IDX]
    if position == "learned":
        start = start + of(gpt.wpe.weight)[:T]
    if position == "sinusoid":
        start = start + to_numpy(gpt.waves)[:T]
    np.testing.assert_allclose(found.stream[0], start, atol=1e-12)
    for layer, block in enumerate(gpt.h):
        x = found.stream[layer]
        _, values = softmax_by_hand(gpt, block, x)
        heads = [att @ v for att, v in zip(found.att[layer], values, strict=True)]
        attended = through(np.concatenate(heads, -1), block.attn.c_proj)
        within = Tensor(xp.asarray(normed(x + attended, block.ln_2)))
        wanted = attended + of(block.mlp(within))
        np.testing.assert_allclose(found.stream[layer + 1] - x, wanted, atol=1e-11)


@pytest.mark.parametrize("tied", [True, False])
def test_the_lens_reads_every_layer_through_the_last_norm_and_the_head(tied):
    gpt = model(tied=tied)
    found = trace(gpt, IDX)
    head = of(gpt.lm_head.weight)
    assert (gpt.lm_head.weight.data is gpt.wte.weight.data) == tied
    for layer in range(4):
        scores = np.exp(normed(found.stream[layer], gpt.ln_f) @ head.T)
        wanted = np.log(scores / scores.sum(-1, keepdims=True))
        assert found.lens(layer).dtype == np.float64
        np.testing.assert_allclose(found.lens(layer), wanted, atol=1e-11)
    for layer in (-1, 4):
        with pytest.raises(ValueError, match=f"layer must be in 0..3, got {layer}"):
            found.lens(layer)


def test_the_model_is_left_as_it_was_and_nothing_is_recorded():
    gpt = model(dtype="float32")
    blocks, before = list(gpt.h), [of(p).copy() for p in gpt.parameters()]
    found = trace(gpt, IDX)
    assert gpt.h == blocks
    assert all(isinstance(block, Block) for block in gpt.h)
    for p, old in zip(gpt.parameters(), before, strict=True):
        np.testing.assert_array_equal(of(p), old)
        assert p.grad is None
    with no_grad():
        np.testing.assert_array_equal(found.logits, of(gpt(IDX[None]))[0])  # and without dropout
    assert {a.dtype.name for a in (found.logits, found.att, found.stream)} == {"float32"}


def test_a_text_may_be_an_array_of_the_device():
    np.testing.assert_array_equal(
        trace(model(), xp.asarray(IDX)).logits, trace(model(), IDX).logits
    )


@pytest.mark.parametrize(
    ("idx", "message"),
    [
        ([[1, 2]], r"idx must be one text, \(T,\), got shape \(1, 2\)"),
        (np.zeros(0, int), "1 <= T <= block_size 9"),
        (np.zeros(10, int), "1 <= T <= block_size 9"),
        ([1, 11], "must be in 0..10, got 1..11"),
        ([0.5], "must be integers"),
    ],
)
def test_bad_texts(idx, message):
    with pytest.raises(ValueError, match=message):
        trace(model(), idx)


def test_a_model_that_diverged():
    gpt = model()
    gpt.ln_f.weight.data[0] = math.nan
    with pytest.raises(ValueError, match="not finite: has its training diverged"):
        trace(gpt, IDX)


# --- numbers for people -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, V, 50])
def test_ranks_and_alternatives_are_those_of_a_sort(k):
    rng = np.random.default_rng(k)
    scores = rng.integers(0, 5, (T, V)).astype(float)  # many ties
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    found = read(log_p, IDX, k)
    for t in range(T):
        order = sorted(range(V), key=lambda token, t=t: (-log_p[t, token], token))
        assert found.guesses[t].tolist() == order[:k]
        np.testing.assert_allclose(found.p[t], [math.exp(log_p[t, i]) for i in order[:k]])
        if t + 1 < T:
            assert found.rank[t] == order.index(IDX[t + 1]) + 1
            assert found.nats[t] == -log_p[t, IDX[t + 1]]
    assert found.nats.shape == found.rank.shape == (T - 1,)


def test_the_likeliest_of_all_equal_are_the_first():
    assert likeliest(np.zeros(9), 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="alternatives must be at least 1, got 0"):
        read(np.zeros((2, 3)), np.array([0, 1]), 0)


def test_entropy_counts_how_many_keys_are_looked_at():
    even = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
    wanted = [math.log(n) for n in (1, 2, 3, 4)]
    assert entropy(even) == pytest.approx(sum(wanted) / 4, abs=1e-15)
    assert entropy(np.eye(4)[None]) == pytest.approx([0.0], abs=0)
    rows = np.array([[1, 0], [0.25, 0.75]])
    assert entropy(rows) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / 2)


def test_distance_is_in_tokens_and_backwards():
    att = np.zeros((2, 3, 3))
    att[0, :, 0] = 1  # all look at the first: 0, 1 and 2 back
    att[1] = np.eye(3)
    att[1, 2] = [0.5, 0.25, 0.25]  # 0.5 * 2 + 0.25 * 1
    np.testing.assert_allclose(distance(att), [1.0, 1.25 / 3])


# --- labels -----------------------------------------------------------------------------------


def test_labels_of_characters():
    text = " a\n\t\r\\\x00é\u0301\u00a0\u202e中\ud800"
    tokenizer = CharTokenizer(text)
    found = labels(tokenizer, range(len(text)))
    assert found == ["␣", "a", r"\n", r"\t", r"\r", r"\\", r"\u0000", "é", "◌\u0301", r"\u00a0",
                     r"\u202e", "中", r"\ud800"]  # fmt: skip


def test_labels_of_bytes_that_are_no_character():
    tokenizer = BPETokenizer(range(256), [(0xE4, 0xBD, 256), (256, 0xA0, 257), (0x20, 0x61, 258)])
    assert labels(tokenizer, [0xE4, 256, 257, 258, 0x5C, 0x0A, 0x80]) == [
        r"\xe4", r"\xe4\xbd", "你", "␣a", r"\\", r"\n", r"\x80",
    ]  # fmt: skip
    every = labels(tokenizer, range(258))
    assert len(set(every)) == 258  # no two look the same
    assert all(label.isprintable() for label in every)


def test_labels_in_columns():
    assert [columns(label) for label in ("ab", "中", "◌\u0301", r"\n")] == [2, 2, 1, 2]
    assert padded("中", 4) + "|" == "中  |"
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert visible("a b\x1b", " ") == r"a b\u001b"


# --- a whole text -----------------------------------------------------------------------------


def test_of_a_long_text_the_model_sees_the_last_tokens():
    gpt, tokenizer = model(block_size=T), CharTokenizer("abcdefghij ")
    short = explain(gpt, tokenizer, "jad cab", 3)
    long = explain(gpt, tokenizer, "fed a jad cab", 3)
    assert (short.left_out, long.left_out) == (0, 6)
    assert short.text == long.text == "jad cab"
    assert long.labels == ["j", "a", "d", "␣", "c", "a", "b"]
    np.testing.assert_array_equal(long.trace.att, short.trace.att)
    assert len(long.readings) == 4
    for layer, (a, b) in enumerate(zip(long.readings, short.readings, strict=True)):
        wanted = read(short.trace.lens(layer), short.trace.idx, 3)
        for name in ("guesses", "p", "nats", "rank"):
            np.testing.assert_array_equal(getattr(a, name), getattr(wanted, name))
            np.testing.assert_array_equal(getattr(b, name), getattr(wanted, name))


def test_any_kind_of_token():
    tokenizer = train_bpe("low lower lowest 你好 " * 20, 265)
    config = GPTConfig(tokenizer.vocab_size, 16, 1, 2, 8)
    found = explain(GPT(config, np.random.default_rng(0)), tokenizer, "low你ö", 2)
    assert "".join(found.labels).endswith(r"\xc3\xb6")
    assert found.text == "low你ö"
    assert len(found.vocabulary) == 265


@pytest.mark.parametrize(("text", "k", "message"), [
    ("", 5, "the prompt must have at least one character"),
    ("a", 0, "alternatives must be 1 to 100, got 0"), ("a", 101, "got 101"),
    ("§", 5, "does not know: '§'"),
])  # fmt: skip
def test_bad_arguments(text, k, message):
    with pytest.raises(ValueError, match=message):
        explain(model(), CharTokenizer("abcdefghij "), text, k)
