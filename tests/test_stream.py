"""Text that comes in pieces: nothing is lost, and nothing comes after a stop text."""

import numpy as np
import pytest

from minigpt.generate import generate
from minigpt.model import GPT, GPTConfig
from minigpt.stream import Stopper, stream
from minigpt.tokenizer import CharTokenizer, build

TOKENIZERS = {"char": CharTokenizer("abcd é雪\n"), "bpe": build("bpe-262", "éé雪雪 abab é雪 " * 30)}


def model(tokenizer):
    sizes = dict(vocab_size=tokenizer.vocab_size, block_size=8, n_layer=1, n_head=2, n_embd=8)
    return GPT(GPTConfig(**sizes), np.random.default_rng(0))


def streamed(kind, prompt="ab", n=40, seed=0, **options):
    tokenizer = TOKENIZERS[kind]
    rng = np.random.default_rng(seed)
    return list(stream(model(tokenizer), tokenizer, prompt, n, rng=rng, **options))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_pieces_are_the_text_of_the_tokens(kind):
    """One piece a token and one more; those of byte pairs end amid characters."""
    tokenizer, options = TOKENIZERS[kind], {"temperature": 0.5, "top_k": 200}
    for seed in range(5):
        idx, rng = tokenizer.encode("ab")[None], np.random.default_rng(seed)
        tokens = list(generate(model(tokenizer), idx, 40, rng=rng, **options))
        pieces = streamed(kind, seed=seed, **options)
        assert len(pieces) == 41
        assert "".join(pieces) == tokenizer.decode(np.concatenate(tokens))
    assert ("" in pieces[:40]) == (kind == "bpe")
    assert "".join(pieces) != "".join(streamed(kind, seed=seed, temperature=3.0))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_ends_before_its_stop_text_and_no_token_is_drawn_after(kind):
    whole, drawn = "".join(streamed(kind)), 0
    for length in (1, 2, 3):
        at = 10
        stop = whole[at : at + length]
        pieces = streamed(kind, stop=[whole[-2:] + "§", stop])
        assert "".join(pieces) == whole[: whole.index(stop)]
        assert len(pieces) < 40
        drawn += len(pieces)
    assert (
        "".join(streamed(kind, stop=["ab"])) == whole.split("ab")[0]
    )  # the prompt is not searched
    assert "".join(streamed(kind, stop=["§", whole[-1] + "§"])) == whole  # what waited is not lost


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "the prompt must have at least one character"),
        ({"prompt": "x"}, "x"),
        ({"stop": ["a", ""]}, "a stop text must have at least one character"),
        ({"n": -1}, "n must be >= 0"),
        ({"top_p": 0}, "top_p must be in"),
    ],
)
def test_errors_come_before_the_first_piece(options, message):
    tokenizer = TOKENIZERS["char"]
    given = {"prompt": "ab", "n": 5, "rng": np.random.default_rng(0)} | options
    with pytest.raises(ValueError, match=message):
        stream(model(tokenizer), tokenizer, **given)


def first_stop(text, stops):
    """Where the stop string begins that is complete first, the longest of these; slow."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return min(starts)
    return None


def test_a_stop_text_is_found_however_the_pieces_cut_it():
    rng, found = np.random.default_rng(0), 0
    for _ in range(3000):
        text = "".join(rng.choice([*"ab\n"], rng.integers(0, 14)))
        stops = ["".join(rng.choice([*"ab\n"], rng.integers(1, 6)))
                 for _ in range(rng.integers(0, 4))]  # fmt: skip
        at = first_stop(text, stops)
        stopper, out, rest = Stopper(stops), "", text
        while rest and not stopper.stopped:
            n = rng.integers(0, 4)
            out, rest = out + stopper.push(rest[:n]), rest[n:]
            assert text[:at].startswith(out)
            waiting = text[len(out) : len(text) - len(rest)]
            assert stopper.stopped or not waiting or any(s.startswith(waiting) for s in stops)
        assert stopper.stopped == (at is not None)
        assert out + stopper.end() == text[:at]
        found += at is not None
    assert 500 < found < 2500
