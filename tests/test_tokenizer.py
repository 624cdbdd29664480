"""CharTokenizer: an exact inverse pair, and errors that say what was wrong."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt.tokenizer import CharTokenizer

# A byte-order mark first, a null, a character beyond 16 bits, two surrogates side by side.
AWKWARD = "\ufeff\0\n\U0001f600\ud800\udc00"


@given(st.text(min_size=1))
@example(AWKWARD)
def test_decode_inverts_encode(text):
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist()) == text


@given(st.text(min_size=1))
@example(AWKWARD)
def test_json_round_trip_keeps_every_id(text):
    tokenizer = CharTokenizer.from_text(text)
    saved = tokenizer.to_json()
    again = CharTokenizer.from_json(saved)
    assert saved.isascii() and again.chars == tokenizer.chars
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_an_id_is_a_position_in_chars_whatever_their_order():
    tokenizer = CharTokenizer("zab")
    assert tokenizer.vocab_size == 3
    assert tokenizer.encode("abz").tolist() == [1, 2, 0]
    assert tokenizer.decode([0, 0, 2]) == "zzb"
    restored = CharTokenizer.from_json(tokenizer.to_json())
    assert restored.encode("abz").tolist() == [1, 2, 0]


def test_from_text_sorts_the_distinct_characters():
    assert CharTokenizer.from_text("banana\nΩ").chars == "\nabnΩ"


def test_empty_text_is_no_tokens():
    tokenizer = CharTokenizer("ab")
    assert tokenizer.encode("").shape == (0,) and tokenizer.encode("").dtype == np.int64
    assert tokenizer.decode([]) == "" and tokenizer.decode(np.zeros(0, np.int64)) == ""


@pytest.mark.parametrize("stranger", ["a", "n", "z", "\U0001f600"])
def test_encode_names_an_unknown_character_below_between_and_above_the_known(stranger):
    with pytest.raises(ValueError, match=rf"does not know: {stranger!r}; it knows 3"):
        CharTokenizer("bmy").encode("by" + stranger + "m")


def test_encode_names_only_the_first_few_strangers():
    with pytest.raises(ValueError, match=r"'b', 'c', 'd', 'e', 'f', \.\.\.; it knows 1"):
        CharTokenizer("a").encode("abcdefgh")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 2], "id 2 is out of range: expected 0 <= id < 2"),
        ([0, -1], "id -1 is out of range"),
        ([0.0, 1.0], "integers, got dtype float64"),
        ([True, False], "integers, got dtype bool"),
        ([[0, 1]], r"one-dimensional, got shape \(1, 2\)"),
    ],
)
def test_decode_refuses_what_is_not_an_id(ids, message):
    with pytest.raises(ValueError, match=message):
        CharTokenizer("ab").decode(ids)


@pytest.mark.parametrize(
    ("chars", "message"),
    [
        ("", "at least one character"),
        (["a", "b"], "must be a string"),
        ("abcb", "occur twice: 'b'"),
    ],
)
def test_chars_must_be_distinct_and_some(chars, message):
    with pytest.raises(ValueError, match=message):
        CharTokenizer(chars)


def test_from_text_refuses_empty_text():
    with pytest.raises(ValueError, match="at least one character"):
        CharTokenizer.from_text("")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ("{", "not valid JSON"),
        (None, "not valid JSON"),
        ("[]", "object of kind"),
        ('{"chars": ["a"]}', "object of kind"),
        ('{"kind": "bpe", "chars": ["a"]}', "object of kind"),
        ('{"kind": "char"}', "list of single characters"),
        ('{"kind": "char", "chars": "ab"}', "list of single characters"),
        ('{"kind": "char", "chars": ["ab"]}', "list of single characters"),
        ('{"kind": "char", "chars": [1]}', "list of single characters"),
        ('{"kind": "char", "chars": ["a", "a"]}', "occur twice"),
        ('{"kind": "char", "chars": []}', "at least one"),
    ],
)
def test_from_json_refuses_what_to_json_cannot_have_written(saved, message):
    with pytest.raises(ValueError, match=message):
        CharTokenizer.from_json(saved)


def test_the_json_says_what_it_is():
    saved = CharTokenizer("b\na").to_json()
    assert json.loads(saved) == {"kind": "char", "chars": ["b", "\n", "a"]}
