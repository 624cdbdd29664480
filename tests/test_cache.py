"""The KV cache changes no logit and no token."""

import numpy as np
import pytest

from minigpt.backend import xp
from minigpt.cache import KVCache
from minigpt.generate import beam_search, generate, next_logits, steps
from minigpt.model import GPT, POSITIONS, GPTConfig
from minigpt.tensor import no_grad

V, WINDOW = 11, 16


def model(dtype="float64", **options):
    """Weights of standard deviation 0.3, so that every layer matters, offsets and gains too."""
    sizes = dict(vocab_size=V, block_size=WINDOW, n_layer=3, n_head=3, n_embd=18)
    rng = np.random.default_rng(0)
    gpt = GPT(GPTConfig(**(sizes | options)), rng, dtype)
    for p in gpt.parameters():
        p.data += xp.asarray(0.3 * rng.standard_normal(p.shape).astype(dtype))
    return gpt


def full(gpt, text):
    """The model's own logits after a text, from a whole forward pass. (V,)"""
    with no_grad():
        return gpt(text[None]).numpy()[0, -1]


def texts_of(*lengths):
    return [np.random.default_rng(n).integers(0, V, n) for n in lengths]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"tied": False}, {"n_layer": 1}])
def test_each_step_gives_the_logits_of_a_whole_forward_pass(position, options):
    gpt = model(position=position, **options)
    for lengths in ([1], [5], [3, 3], [4, 1, 6]):
        texts, cache = texts_of(*lengths), KVCache(gpt, len(lengths), WINDOW)
        for new in (1, 1, 1, 3, 1, 1, 2):  # the last texts fill the window
            for text, found in zip(texts, cache(texts), strict=True):
                assert abs(found - full(gpt, text)).max() <= 1e-12
            texts = [np.append(text, np.arange(new) % V) for text in texts]


def test_float32_stays_float32():
    gpt = model("float32")
    cache = KVCache(gpt, 1, 8)
    found = cache(texts_of(4))
    assert found.dtype == np.float32 == cache.kv[0].dtype
    assert abs(found[0] - full(gpt, texts_of(4)[0])).max() < 1e-4


def test_the_filling_of_a_short_text_leaves_no_trace():
    """In the cache there lies what the filling wrote, and no logit depends on it."""
    gpt, (long, short) = model(), texts_of(7, 2)
    cache = KVCache(gpt, 2, WINDOW)
    cache([long, short])
    assert all(abs(layer[:, 1, :, 2:7]).min() > 0 for layer in cache.kv)
    for layer in cache.kv:
        layer[:, 1, :, 2:7] = 1e6
    for _ in range(3):
        long, short = np.append(long, 1), np.append(short, 2)
        assert abs(cache([long, short])[1] - full(gpt, short)).max() <= 1e-12


STRATEGIES = [
    {"temperature": 0}, {}, {"temperature": 1.7}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.2},
    {"repetition_penalty": 1.5}, {"stop": 3, "temperature": 1.5},
]  # fmt: skip


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("options", STRATEGIES)
def test_the_tokens_are_the_same_for_every_strategy_and_beyond_the_window(position, options):
    gpt, prompts = model(position=position), texts_of(2, 5, 5, 1)

    def run(cached):
        rngs = np.random.default_rng(1).spawn(len(prompts))
        found = list(steps(gpt, prompts, WINDOW + 6, rng=rngs, cached=cached, **options))
        return [np.stack(part) for part in zip(*found, strict=True)]

    (tokens, logprobs), (plain, plain_logprobs) = run(True), run(False)
    np.testing.assert_array_equal(tokens, plain)
    np.testing.assert_allclose(logprobs, plain_logprobs, rtol=0, atol=1e-12)
    one, rng = generate(gpt, prompts[:1], 9, rng=np.random.default_rng(2)), np.random.default_rng(2)
    assert [*one] == [*generate(gpt, prompts[:1], 9, rng=rng, cached=False)]


@pytest.mark.parametrize("stop", [None, 3])
def test_beams_continue_their_own_rows(stop, monkeypatch):
    gpt, prompt = model(), texts_of(3)[0]
    found = beam_search(gpt, prompt, WINDOW, 4, stop=stop)  # beyond the window
    monkeypatch.setattr("minigpt.generate._cache", lambda *_: None)
    wanted = beam_search(gpt, prompt, WINDOW, 4, stop=stop)
    for beam, other in zip(found, wanted, strict=True):
        assert beam.tokens.tolist() == other.tokens.tolist()
        assert beam.logprob == pytest.approx(other.logprob, abs=1e-12)


def test_a_token_is_read_once(monkeypatch):
    """The work of a step does not grow with the text: what is computed anew is the last token."""
    gpt, asked, read = model(), [], KVCache._read
    monkeypatch.setattr(KVCache, "_read", lambda self, idx: asked.append(idx) or read(self, idx))
    tokens = [token[0] for token in generate(gpt, texts_of(4), 8, rng=np.random.default_rng(0))]
    assert [idx.shape for idx in asked] == [(1, 4), *7 * [(1, 1)]]
    assert [idx[0, 0] for idx in asked[1:]] == tokens[:-1]
    asked.clear()
    list(generate(gpt, texts_of(4), 3, rng=np.random.default_rng(0), cached=False))
    assert asked == []


def test_memory_is_allocated_once_and_counted():
    gpt = model("float32")
    cache = KVCache(gpt, 2, 9)
    assert cache.nbytes == 2 * 3 * 2 * 9 * 18 * 4  # keys and values, L, rows, room, C, bytes
    layers = list(cache.kv)
    cache(texts_of(3, 4))
    cache(texts_of(5, 9))
    assert all(layer is old for layer, old in zip(cache.kv, layers, strict=True))
    assert KVCache(model(), 2, 9).nbytes == 2 * cache.nbytes  # float64


def test_generation_asks_for_the_room_that_it_needs(monkeypatch):
    made, init = [], KVCache.__init__
    monkeypatch.setattr(KVCache, "__init__", lambda *args: made.append(args[2:]) or init(*args))
    for prompts, n in ((texts_of(3, 5), 4), (texts_of(5), WINDOW)):
        list(generate(model(), prompts, n, rng=np.random.default_rng(0)))
    assert made == [(2, 9), (1, WINDOW)]


def test_rows_are_taken_with_their_lengths():
    gpt, texts = model(), texts_of(4, 2, 6)
    cache = KVCache(gpt, 3, WINDOW)
    cache(texts)
    cache.take([2, 1, 1])
    assert cache.length == [6, 2, 2]
    longer = [np.append(texts[row], token) for row, token in ((2, 1), (1, 5), (1, 9))]
    for text, found in zip(longer, cache(longer), strict=True):
        assert abs(found - full(gpt, text)).max() <= 1e-12


def test_a_diverged_model_is_reported():
    gpt = model()
    gpt.ln_f.weight.data[0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        next_logits(gpt, texts_of(2), KVCache(gpt, 1, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cache: KVCache(model(), 0, 4), r"rows >= 1 and room in 1..16, got 0 and 4"),
        (lambda cache: KVCache(model(), 1, 17), "got 1 and 17"),
        (lambda cache: KVCache(model(), 1, 0), "got 1 and 0"),
        (lambda cache: cache(texts_of(4)), "the cache holds 2 texts, got 1"),
        (lambda cache: cache(texts_of(4, 3)), r"\[4, 3\] tokens cannot continue those of \[3, 3\]"),
        (lambda cache: cache(texts_of(4, 9)), "room for 8"),
    ],
)
def test_errors_change_nothing(call, message):
    gpt = model()
    cache = KVCache(gpt, 2, 8)
    cache(texts := texts_of(3, 3))
    with pytest.raises(ValueError, match=message):
        call(cache)
    longer = [np.append(text, 4) for text in texts]
    assert abs(cache(longer)[0] - full(gpt, longer[0])).max() <= 1e-12
