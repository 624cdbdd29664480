"""Generation draws from the model's distribution, token after token."""

from types import SimpleNamespace

import numpy as np
import pytest

from minigpt.backend import xp
from minigpt.decoding import Decoding, draw, log_probs
from minigpt.generate import Beam, beam_search, generate, next_logits, steps
from minigpt.model import GPT, GPTConfig
from minigpt.tensor import no_grad

CONFIG = GPTConfig(vocab_size=6, block_size=4, n_layer=1, n_head=2, n_embd=8)
RAGGED = [np.array(text) for text in ([1], [2, 3, 4], [0, 5, 5], [1, 2, 3, 4, 5, 0], [3, 1])]


def model():
    rng = np.random.default_rng(0)
    gpt = GPT(CONFIG, rng)
    for p in gpt.parameters():
        p.data += xp.asarray(rng.standard_normal(p.shape).astype("float32"))
    return gpt


def drawn(idx, n=12, seed=0, **options):
    tokens = generate(model(), idx, n, rng=np.random.default_rng(seed), **options)
    return np.stack(list(tokens), axis=1)  # (B, n)


def test_temperature_zero_is_greedy_and_sees_the_whole_context():
    idx = np.array([[1, 2, 3]])
    tokens = drawn(idx, 6, temperature=0)[0]
    seen = [1, 2, 3]
    for token in tokens:
        with no_grad():
            logits = model()(np.array([seen[-4:]])).numpy()[0, -1]  # the last block_size tokens
        assert token == logits.argmax()
        seen.append(token)


def test_same_seed_same_tokens():
    assert (drawn([[1, 2]]) == drawn([[1, 2]])).all()
    assert (drawn([[1, 2]], 40) != drawn([[1, 2]], 40, seed=1)).any()


def test_a_batch_draws_each_row_from_its_own_prompt():
    together = drawn([[1, 2], [4, 0]], temperature=0)
    for row, prompt in zip(together, ([1, 2], [4, 0]), strict=True):
        assert (row == drawn([prompt], temperature=0)[0]).all()


def test_prompts_may_be_arrays_of_the_device():
    np.testing.assert_array_equal(drawn(xp.asarray([[1, 2], [4, 0]])), drawn([[1, 2], [4, 0]]))


def test_tokens_come_one_at_a_time():
    stream = generate(model(), np.array([[0]]), 10**9, rng=np.random.default_rng(0))
    assert next(stream).shape == (1,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drawn(np.array([1, 2])), r"T >= 1, got shape \(\), int64"),
        (lambda: drawn(5), "prompts must be .*, got 5"),
        (lambda: drawn([]), "at least one prompt, got none"),
        (lambda: drawn(np.zeros((1, 0), int)), r"got shape \(0,\)"),
        (lambda: drawn([[0], [[1]]]), r"got shape \(1, 1\)"),
        (lambda: drawn([[0], [1.0]]), r"got shape \(1,\), float64"),
        (lambda: drawn([[0]], -1), "n must be >= 0, got -1"),
        (lambda: drawn([[0]], temperature=-0.1), "temperature must be >= 0 .*, got -0.1"),
        (lambda: drawn([[0]], temperature=float("nan")), "got nan"),
        (lambda: drawn([[9]]), "idx must be in 0..5, got 9..9"),
        (lambda: drawn([[0], [1, -1, 2, 2, 2, 2]]), "idx must be in 0..5, got -1..2"),
        (lambda: drawn([[0]], stop=6), "stop must be in 0..5, got 6"),
        (lambda: drawn([[0]], stop=-1), "stop must be in 0..5, got -1"),
        (
            lambda: list(generate(model(), RAGGED, 1, rng=[np.random.default_rng(0)])),
            "expected 5 generators, one for each prompt, got 1",
        ),
        (lambda: beam_search(model(), [0], 2, 0), "got 0 and 0.0"),
        (lambda: beam_search(model(), [0], 2, 1, length_penalty=-1.0), "got 1 and -1.0"),
        (lambda: beam_search(model(), [0], 2, 1, length_penalty=float("nan")), "got 1 and nan"),
        (lambda: beam_search(model(), [0], -1, 1), "n must be >= 0, got -1"),
        (lambda: beam_search(model(), [0], 1, 1, stop=9), "stop must be in 0..5, got 9"),
        (lambda: beam_search(model(), [[0]], 1, 1), r"got shape \(1, 1\)"),
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
    found = list(generate(spy, prompt, 6, rng=np.random.default_rng(0)))
    assert len(found) == len(spy.asked) == 6
    text = np.concatenate([prompt, np.stack(found, axis=1)], axis=1)
    for i, idx in enumerate(spy.asked):
        np.testing.assert_array_equal(idx, text[:, max(0, T + i - 4) : T + i])
    assert not any(answer.requires_grad for answer in spy.answers)
    assert list(generate(spy, prompt, 0, rng=np.random.default_rng(0))) == []


def test_the_temperature_reaches_every_draw():
    """One Gumbel number a logit, scaled by the temperature, and the largest sum is drawn."""
    runs = []
    for temperature in (0.25, 4.0):
        seen, rng = [1, 2], np.random.default_rng(0)
        for _ in range(20):
            with no_grad():
                logits = model()(np.array([seen[-4:]])).numpy()[:, -1]
            noise = temperature * rng.gumbel(size=(1, 6))
            seen.append(int((logits + noise).argmax()))
        assert drawn([[1, 2]], 20, temperature=temperature)[0].tolist() == seen[2:]
        runs.append(seen)
    assert runs[0] != runs[1]


def test_greedy_leaves_the_generator_alone():
    rng = np.random.default_rng(0)
    list(generate(model(), [[1]], 5, rng=rng, temperature=0))
    assert rng.random() == np.random.default_rng(0).random()


FILTERS = {"temperature": 1.5, "top_k": 4, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.7}


def test_every_option_reaches_every_draw_and_the_penalty_sees_what_the_window_does_not():
    prompt = np.array([5, 0, 1, 2, 3, 1, 2])
    alone = {"temperature": 3.0, "top_k": 2, "top_p": 0.6, "min_p": 0.3, "repetition_penalty": 3.0}
    for options in [{name: value} for name, value in alone.items()] + [FILTERS]:
        text, rng, plain = prompt, np.random.default_rng(0), np.random.default_rng(0)
        differs = False
        for _ in range(30):
            logits = next_logits(model(), [text])
            token = draw(Decoding(**options)(logits, [text]), rng)
            differs |= token != draw(logits, plain)
            text = np.append(text, token)
        assert drawn([prompt], 30, **options)[0].tolist() == text[7:].tolist()
        assert differs, options  # so that an option that is lost would be seen


def test_log_probabilities_are_the_models_own_whatever_the_filters():
    prompts = [[1, 2, 3], [4]]
    found = list(steps(model(), prompts, 8, rng=np.random.default_rng(0), **FILTERS))
    tokens = np.stack([step.token for step in found], axis=1)  # (2, 8)
    for row, prompt in enumerate(prompts):
        for i, step in enumerate(found):
            text = np.array(prompt + tokens[row, :i].tolist())
            wanted = log_probs(next_logits(model(), [text]))[0, tokens[row, i]]
            assert step.logprob[row] == pytest.approx(wanted, abs=1e-6)
    plain = generate(model(), prompts, 8, rng=np.random.default_rng(0), **FILTERS)
    np.testing.assert_array_equal(np.stack(list(plain), axis=1), tokens)


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, FILTERS])
def test_prompts_of_several_lengths_give_what_each_gives_alone(options):
    def generators():
        return np.random.default_rng(7).spawn(len(RAGGED))

    together = np.stack(list(generate(model(), RAGGED, 9, rng=generators(), **options)), axis=1)
    for row, prompt, rng in zip(together, RAGGED, generators(), strict=True):
        alone = np.concatenate(list(generate(model(), [prompt], 9, rng=rng, **options)))
        assert row.tolist() == alone.tolist()
    if options != {"temperature": 0}:  # each draws from its own generator
        shared = generate(model(), RAGGED, 9, rng=generators()[0], **options)
        assert (np.stack(list(shared), axis=1) != together).any()


def test_texts_of_one_length_are_computed_together():
    spy = Spy()
    list(generate(spy, RAGGED, 4, rng=np.random.default_rng(0)))
    assert [idx.shape for idx in spy.asked] == [
        (1, 1), (1, 2), (2, 3), (1, 4),
        (1, 2), (1, 3), (3, 4),
        (1, 3), (4, 4),
        (5, 4),
    ]  # fmt: skip


def test_a_row_that_drew_the_stop_token_repeats_it_until_all_have():
    def run(stop):
        rngs = np.random.default_rng(3).spawn(len(RAGGED))
        found = list(steps(model(), RAGGED, 60, rng=rngs, stop=stop, temperature=2.0))
        return [np.stack(part, axis=1) for part in zip(*found, strict=True)]

    (free, free_logprobs), (tokens, logprobs) = run(None), run(3)
    firsts = [row.tolist().index(3) for row in free]
    assert len(set(firsts)) > 2
    assert free.shape[1] == 60
    assert tokens.shape[1] == max(firsts) + 1
    for row, first in enumerate(firsts):
        assert (tokens[row, : first + 1] == free[row, : first + 1]).all()
        assert (tokens[row, first:] == 3).all()
        np.testing.assert_allclose(logprobs[row, : first + 1], free_logprobs[row, : first + 1])
        assert (logprobs[row, first + 1 :] == 0).all()


def every_continuation(prompt, n, stop=None):
    """Each Beam there is, by asking for one text at a time. Slow."""
    found, open_ = [], [Beam(np.array([], int), 0.0)]
    for _ in range(n):
        grown = []
        for tokens, logprob in open_:
            row = log_probs(next_logits(model(), [np.append(prompt, tokens)]))[0]
            grown += [Beam(np.append(tokens, t), logprob + row[t]) for t in range(6)]
        found += [beam for beam in grown if beam.tokens[-1] == stop]
        open_ = [beam for beam in grown if beam.tokens[-1] != stop]
    return found + open_


@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_enough_beams_are_an_exhaustive_search(stop, penalty):
    prompt, n = np.array([1, 2, 3]), 3  # the window slides
    wanted = every_continuation(prompt, n, stop)
    wanted.sort(key=lambda beam: -beam.logprob / len(beam.tokens) ** penalty)
    found = beam_search(model(), prompt, n, 36, length_penalty=penalty, stop=stop)
    assert len(found) == 36
    for ours, theirs in zip(found, wanted[:36], strict=True):
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-5)
    lengths = {len(beam.tokens) for beam in found}
    assert (len(lengths) > 1) == (stop is not None)


@pytest.mark.parametrize("stop", [None, 0, 1, 2, 3, 4, 5])
def test_one_beam_is_greedy(stop):
    for prompt in RAGGED:
        rng = np.random.default_rng(0)
        greedy = list(steps(model(), [prompt], 9, rng=rng, temperature=0, stop=stop))
        (beam,) = beam_search(model(), prompt, 9, 1, stop=stop)
        assert beam.tokens.tolist() == [int(step.token[0]) for step in greedy]
        total = sum(float(step.logprob[0]) for step in greedy)
        assert beam.logprob == pytest.approx(total, abs=1e-5)


class Bigram:
    """A model that looks at the last token alone: its row of a table of probabilities."""

    config = SimpleNamespace(block_size=4, vocab_size=3)

    def __init__(self, table):
        self.logits = np.log(np.array(table))

    def __call__(self, idx):
        return SimpleNamespace(data=self.logits[idx])


def test_a_beam_finds_what_greedy_misses():
    """0.6 * 0.4 = 0.24 the greedy way, 0.3 * 0.98 = 0.294 by the token that looked worse."""
    gpt = Bigram([[0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.01, 0.98, 0.01]])
    (greedy,) = beam_search(gpt, [0], 2, 1)
    assert (greedy.tokens.tolist(), greedy.logprob) == ([1, 2], pytest.approx(np.log(0.24)))
    best, second = beam_search(gpt, [0], 2, 2)
    assert (best.tokens.tolist(), best.logprob) == ([2, 1], pytest.approx(np.log(0.294)))
    assert second.tokens.tolist() == [1, 2]


def test_a_model_that_has_diverged_is_reported():
    gpt = Bigram(np.ones((3, 3)))
    gpt.logits[1, 2] = np.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        list(generate(gpt, [[1]], 1, rng=np.random.default_rng(0)))
