"""Generation draws from the model's distribution, token after token."""

import numpy as np
import pytest

from minigpt import functional as F
from minigpt.generate import choose, generate
from minigpt.model import GPT, GPTConfig
from minigpt.tensor import no_grad

CONFIG = GPTConfig(vocab_size=6, block_size=4, n_layer=1, n_head=2, n_embd=8)


def model():
    rng = np.random.default_rng(0)
    gpt = GPT(CONFIG, rng)
    for p in gpt.parameters():
        p.data += rng.standard_normal(p.shape).astype("float32")
    return gpt


def draw(idx, n=12, seed=0, **options):
    tokens = generate(model(), np.asarray(idx), n, rng=np.random.default_rng(seed), **options)
    return np.stack(list(tokens), axis=1)  # (B, n)


def test_choose_draws_from_the_softmax():
    logits = np.array([1.0, -1.0, 0.0, 2.0])
    n = 200_000
    for temperature in (0.5, 1.0, 2.0):
        tokens = choose(np.tile(logits, (n, 1)), temperature, np.random.default_rng(0))
        p = F.softmax(logits / temperature).data
        spread = np.sqrt(p * (1 - p) / n)
        assert (np.abs(np.bincount(tokens, minlength=4) / n - p) < 4 * spread).all()


def test_temperature_zero_is_greedy_and_sees_the_whole_context():
    idx = np.array([[1, 2, 3]])
    tokens = draw(idx, 6, temperature=0)[0]
    seen = [1, 2, 3]
    for token in tokens:
        with no_grad():
            logits = model()(np.array([seen[-4:]])).data[0, -1]  # the last block_size tokens
        assert token == logits.argmax()
        seen.append(token)


def test_same_seed_same_tokens():
    assert (draw([[1, 2]]) == draw([[1, 2]])).all()
    assert (draw([[1, 2]], 40) != draw([[1, 2]], 40, seed=1)).any()


def test_a_batch_draws_each_row_from_its_own_prompt():
    together = draw([[1, 2], [4, 0]], temperature=0)
    for row, prompt in zip(together, ([1, 2], [4, 0]), strict=True):
        assert (row == draw([prompt], temperature=0)[0]).all()


def test_tokens_come_one_at_a_time():
    stream = generate(model(), np.array([[0]]), 10**9, rng=np.random.default_rng(0))
    assert next(stream).shape == (1,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw([1, 2]), r"\(B, T\).*got shape \(2,\)"),
        (lambda: draw(np.zeros((1, 0), int)), r"got shape \(1, 0\)"),
        (lambda: draw([[0]], -1), "got -1 and 1.0"),
        (lambda: draw([[0]], temperature=-0.1), "got 12 and -0.1"),
        (lambda: draw([[0]], temperature=float("nan")), "got 12 and nan"),
        (lambda: draw([[9]]), "idx must be in 0..5, got 9..9"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Spy:
    """A model that remembers what it was asked and what it answered."""

    def __init__(self):
        self.model, self.config, self.asked, self.answers = model(), CONFIG, [], []

    def __call__(self, idx):
        self.asked.append(idx)
        self.answers.append(self.model(idx))
        return self.answers[-1]


@pytest.mark.parametrize("T", [1, 3, 4, 7])
def test_the_model_sees_the_last_block_size_tokens_and_records_no_graph(T):
    spy, prompt = Spy(), np.random.default_rng(T).integers(0, 6, (2, T))
    drawn = list(generate(spy, prompt, 6, rng=np.random.default_rng(0)))
    assert len(drawn) == len(spy.asked) == 6
    text = np.concatenate([prompt, np.stack(drawn, axis=1)], axis=1)
    for i, idx in enumerate(spy.asked):
        np.testing.assert_array_equal(idx, text[:, max(0, T + i - 4) : T + i])
    assert not any(answer.requires_grad for answer in spy.answers)
    assert list(generate(spy, prompt, 0, rng=np.random.default_rng(0))) == []


def test_the_temperature_reaches_every_draw():
    runs = []
    for temperature in (0.25, 4.0):
        seen, rng = [1, 2], np.random.default_rng(0)
        for _ in range(20):
            with no_grad():
                logits = model()(np.array([seen[-4:]])).data[:, -1]
            seen.append(int(choose(logits, temperature, rng)[0]))
        assert draw([[1, 2]], 20, temperature=temperature)[0].tolist() == seen[2:]
        runs.append(seen)
    assert runs[0] != runs[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_temperature_near_zero_is_greedy(dtype):
    logits = np.array([[1.0, 3.0, 2.0, -1.0]], dtype)
    for temperature in (1e-30, 1e-50, 1e-320):
        assert choose(logits, temperature, np.random.default_rng(0)) == [1]
