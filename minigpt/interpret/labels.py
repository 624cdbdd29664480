"""Tokens as a reader can see them: spaces, line ends and lone bytes have no shape of their own."""

import unicodedata
from collections.abc import Iterable

from minigpt.tokenizer import BPETokenizer, Tokenizer

SPACE = "␣"
ESCAPES = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


def labels(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    r"""A label for each token: `the`, `␣and`, `\n`, and `\xe4\xbd` for a part of a character.

    A backslash is doubled, so that `\n` is a line end and `\\n` is what somebody typed.
    """
    return [visible(_text(tokenizer, int(token))) for token in ids]


def _text(tokenizer: Tokenizer, token: int) -> str:
    """The text of one token, with escapes for bytes that are no whole character."""
    if isinstance(tokenizer, BPETokenizer):
        data = tokenizer.tokens[token].replace(b"\\", b"\\\\")
        return data.decode("utf-8", "backslashreplace")
    return tokenizer.decode([token]).replace("\\", "\\\\")


def visible(text: str, space: str = SPACE) -> str:
    """The text with escapes for what has no shape, or would move what is written beside it."""
    shown = "".join(
        space if c == " " else c if c.isprintable() else ESCAPES.get(c, f"\\u{ord(c):04x}")
        for c in text
    )
    # An accent without its letter would stand on whatever is written before it.
    return "◌" + shown if _is_mark(shown[:1]) else shown


def _is_mark(c: str) -> bool:
    """Whether a character stands on the one before it."""
    return bool(c) and unicodedata.category(c) in ("Mn", "Me")


def shortened(label: str, most: int) -> str:
    """The label, or its beginning and an ellipsis."""
    return label if len(label) <= most else label[: most - 1] + "…"


def padded(label: str, width: int) -> str:
    """The label in a column of a terminal, where some characters are two columns wide."""
    return label + " " * (width - columns(label))


def columns(label: str) -> int:
    """How many columns of a terminal a label takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in label)
    return len(label) + wide - sum(map(_is_mark, label))
