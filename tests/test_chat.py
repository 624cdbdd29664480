"""`python -m minigpt chat`: what was said stays in sight, and an error loses nothing of it."""

import io
from dataclasses import asdict

import numpy as np
import pytest

from minigpt.__main__ import main
from minigpt.backend import xp
from minigpt.checkpoint import Checkpoint, save_checkpoint
from minigpt.decoding import Decoding
from minigpt.model import GPT, GPTConfig
from minigpt.stream import stream
from minigpt.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer("abc .\n")
SIZES = dict(vocab_size=6, block_size=64, n_layer=1, n_head=2, n_embd=8)


@pytest.fixture
def talk(tmp_path, monkeypatch, capsys):
    """Say lines to a model with --seed 5; the exit code, what was answered, what was complained."""
    rng = np.random.default_rng(0)
    model = GPT(GPTConfig(**SIZES), rng)
    for p in model.parameters():
        p.data += xp.asarray(0.5 * rng.standard_normal(p.shape).astype("float32"))
    save_checkpoint(tmp_path / "tiny.safetensors", Checkpoint(model, TOKENIZER))

    def talk(said, *options):
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        code = main(["chat", str(tmp_path / "tiny.safetensors"), "--seed", "5", *options])
        return (code, *capsys.readouterr())

    talk.model = model
    return talk


def answers(model, prompts, n=200, stop=("\n",), **decoding):
    """The model's replies to (text so far, line), one generator for all of them."""
    rng, said, found = np.random.default_rng(5), "", []
    options = asdict(Decoding(**({"temperature": 0.8} | decoding)))
    for line in prompts:
        if line is None:
            said = ""
            continue
        pieces = stream(model, TOKENIZER, f"{said}{line}\n", n, rng=rng, stop=stop, **options)
        found.append("".join(pieces))
        said += f"{line}\n{found[-1]}\n"
    return found


def test_each_answer_continues_all_that_was_said(talk):
    lines = ["ab", "c a", "abc."]
    wanted = answers(talk.model, lines)
    assert talk("ab\nc a\nabc.\n") == (0, "".join(f"{text}\n" for text in wanted), "")
    alone = answers(talk.model, ["ab", None, "c a", None, "abc."])
    assert alone != wanted
    anew = talk("ab\n\nc a\n\nabc.")  # an empty line begins anew; the last needs no line end
    assert anew == (0, "(anew)\n".join(f"{text}\n" for text in alone), "")


def test_options_reach_the_draws(talk):
    free = talk("ab\nc\n")[1]
    values = {"top_k": 2, "top_p": 0.5, "min_p": 0.4, "repetition_penalty": 3.0, "temperature": 2.0}
    for name, value in values.items():
        out = talk("ab\nc\n", "--" + name.replace("_", "-"), str(value))[1]
        assert out == "".join(f"{t}\n" for t in answers(talk.model, ["ab", "c"], **{name: value}))
        assert out != free, name
    wanted = answers(talk.model, ["ab"], n=9, stop=["a", "."])
    assert talk("ab\n", "-n", "9", "--stop", "a", "--stop", ".")[1] == wanted[0] + "\n"


def test_a_line_that_cannot_be_read_is_reported_and_the_talk_goes_on(talk):
    code, out, error = talk("ab\nnaïve\nc a\n")
    assert (code, out) == talk("ab\nc a\n")[:2]
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "-1"], "n must be >= 0, got -1"),
        (["--stop", ""], "a stop text must have at least one character"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--top-p", "0"], "top_p must be in 0 < top_p <= 1"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2_before_anything_is_said(talk, options, message):
    code, out, error = talk("ab\n", *options)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
