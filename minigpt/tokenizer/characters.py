"""Text to token ids and back, one character a token.

A language model predicts integers. The simplest honest vocabulary is the set of characters of the
corpus: nothing is lost, nothing is unknown inside that corpus, and "nats per token" is already
"nats per character", so the loss of a GPT compares directly with that of an n-gram.
"""

import json
from collections.abc import Sequence

import numpy as np

from minigpt.tokenizer.ids import checked_ids


class CharTokenizer:
    """A character is a token; its id is its position in `chars`.

    Raises: ValueError if `chars` is empty or holds a character twice.
    """

    def __init__(self, chars: str):
        if not isinstance(chars, str) or not chars:
            raise ValueError(f"chars must be a string of at least one character, got {chars!r}")
        repeated = sorted({c for c in chars if chars.count(c) > 1})
        if repeated:
            raise ValueError(f"chars must be distinct, but these occur twice: {_quoted(repeated)}")
        self.chars = chars
        self.vocab_size = len(chars)
        self._codes = _code_points(chars)  # (V,) code point of each id
        self._order = np.argsort(self._codes)  # (V,) ids by increasing code point
        self._sorted_codes = self._codes[self._order]  # (V,)

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The tokenizer of the distinct characters of `text`, sorted by code point.

        Raises: ValueError if `text` is empty.
        """
        return cls("".join(sorted(set(text))))

    def encode(self, text: str) -> np.ndarray:
        """Token ids of `text`.

        Shapes: n characters -> (n,) int64, 0 <= id < vocab_size.
        Raises: ValueError naming the characters that the tokenizer does not know.
        """
        codes = _code_points(text)  # (n,)
        place = np.searchsorted(self._sorted_codes, codes)  # (n,) in 0..V
        place = np.minimum(place, self.vocab_size - 1)  # beyond the last code
        unknown = self._sorted_codes[place] != codes  # (n,)
        if unknown.any():
            strangers = [chr(code) for code in np.unique(codes[unknown])]
            raise ValueError(
                f"text holds characters that the tokenizer does not know:"
                f" {_quoted(strangers)}; it knows {self.vocab_size}"
            )
        return self._order[place].astype(np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`; the exact inverse of `encode`.

        Shapes: (n,) integers, 0 <= id < vocab_size -> n characters.
        Raises: ValueError if `ids` is not one-dimensional, not integer or out of range.
        """
        ids = checked_ids(ids, self.vocab_size)
        return self._codes[ids].tobytes().decode("utf-32-le", "surrogatepass")

    def decoder(self) -> "CharDecoder":
        """A decoder for ids that arrive a few at a time."""
        return CharDecoder(self)

    def to_json(self) -> str:
        """The tokenizer as ASCII JSON, for the metadata of a checkpoint."""
        # A list, not a string: JSON would fuse two neighbouring surrogates into one character.
        return json.dumps({"kind": "char", "chars": list(self.chars)})

    @classmethod
    def from_json(cls, text: str) -> "CharTokenizer":
        """The tokenizer that `to_json` wrote.

        Raises: ValueError if `text` is not such JSON.
        """
        try:
            fields = json.loads(text)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the tokenizer is not valid JSON: {error}") from error
        if not isinstance(fields, dict) or fields.get("kind") != "char":
            raise ValueError(f'the tokenizer must be an object of kind "char", got {text[:60]}')
        chars = fields.get("chars")
        if not isinstance(chars, list) or any(not isinstance(c, str) or len(c) != 1 for c in chars):
            raise ValueError(f'"chars" must be a list of single characters, got {text[:60]}')
        return cls("".join(chars))


class CharDecoder:
    """Text from ids that arrive a few at a time. Each id is a whole character: nothing waits."""

    def __init__(self, tokenizer: CharTokenizer):
        self._tokenizer = tokenizer

    def push(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`. Shapes and errors: those of `CharTokenizer.decode`."""
        return self._tokenizer.decode(ids)

    def end(self) -> str:
        """The rest of the text: none."""
        return ""


def _code_points(text: str) -> np.ndarray:
    """Unicode code points. n characters -> (n,) uint32."""
    # UTF-32 spends exactly four bytes on a character, so the bytes are the array.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _quoted(chars: Sequence[str], most: int = 5) -> str:
    """The first few characters, quoted, for an error message."""
    return ", ".join(map(repr, chars[:most])) + (", ..." if len(chars) > most else "")
