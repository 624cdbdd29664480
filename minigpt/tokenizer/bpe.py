"""Byte-level byte-pair encoding (BPE): tokens are byte sequences, made by merging frequent pairs.

The 256 bytes are tokens, so every text can be written: no character is unknown. Each merge makes
one more token out of two, and its place in the list of merges is its rank. To encode, cut the text
into pre-tokens, start each from its bytes, and merge the pair of lowest rank until none is left.

Source: Sennrich et al. 2016, arXiv:1508.07909; on bytes, Radford et al. 2019, sec. 2.2.
"""

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from minigpt.tokenizer.ids import checked_ids
from minigpt.tokenizer.merging import merge
from minigpt.tokenizer.pretokens import split, without_surrogates
from minigpt.tokenizer.vocabulary import check_vocabulary, fields_of

_CACHED = 1 << 17  # pre-tokens whose ids are kept: of English, about 30 MB
_CACHED_LENGTH = 64  # characters; a longer pre-token is too rare to be worth the room


class BPETokenizer:
    """Ids of byte sequences.

    byte_ids[b] is the id of the byte b. A merge (left, right, new) joins two ids to a third, and
    stands in the list by rank. `special` maps texts such as "<|endoftext|>" to ids that no user's
    text encodes to, unless it is asked for. The ids are 0 to vocab_size - 1.
    Raises: ValueError if they are not, or a merge uses an id that no earlier merge has made.
    """

    def __init__(
        self,
        byte_ids: Sequence[int],
        merges: Sequence[tuple[int, int, int]],
        special: Mapping[str, int] | None = None,
    ):
        self.byte_ids, self.merges, self.special = list(byte_ids), list(merges), {**(special or {})}
        self.tokens = check_vocabulary(self.byte_ids, self.merges, self.special)  # bytes of each id
        self.vocab_size = len(self.tokens)
        self._cache = _Cache(self.byte_ids, self.merges)
        # The longest first: of "<|a|>" and "<|a|><|b|>", the text decides for the longer.
        texts = sorted(self.special, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, texts))})") if texts else None

    def encode(self, text: str, allow_special: bool = False) -> np.ndarray:
        """Token ids of `text`. A surrogate pair is its character; a lone surrogate becomes U+FFFD.

        The text "<|endoftext|>" is thirteen characters like any others, since a user may have typed
        it. With `allow_special`, it is the special token.
        Shapes: text -> (n,) int64, 0 <= id < vocab_size.
        Raises: ValueError if `text` is not a string.
        """
        if not isinstance(text, str):
            raise ValueError(f"text must be a string, got {type(text).__name__}")
        text = without_surrogates(text)
        if not (allow_special and self._special):
            return self._encode(text)
        parts = self._special.split(text)  # text, special, text, special, ..., text
        return np.concatenate(
            [[self.special[part]] if i % 2 else self._encode(part) for i, part in enumerate(parts)]
        ).astype(np.int64)

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """Token ids of any bytes, valid UTF-8 or not; `decode_bytes` gives the same bytes back.

        A byte that belongs to no character counts as a sign, neither letter nor number nor space.
        Shapes: n bytes -> (m,) int64, m <= n. Of valid UTF-8, the ids are those of `encode`.
        Raises: ValueError if `data` is not bytes.
        """
        if not isinstance(data, bytes | bytearray):
            raise ValueError(f"data must be bytes, got {type(data).__name__}")
        return self._encode(data.decode("utf-8", "surrogateescape"))

    def _encode(self, text: str) -> np.ndarray:
        """Ids of text in which U+DC80 to U+DCFF stand for bytes that belong to no character."""
        ids = chain.from_iterable(map(self._cache.__getitem__, split(text)))
        return np.fromiter(ids, np.int64)

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes of `ids`; those of a special token are its text's.

        Shapes: (n,) integers, 0 <= id < vocab_size -> bytes.
        Raises: ValueError if `ids` is not one-dimensional, not integer or out of range.
        """
        known = checked_ids(ids, self.vocab_size).tolist()
        return b"".join(map(self.tokens.__getitem__, known))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, U+FFFD in place of what is not UTF-8. Errors: as `decode_bytes`."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decoder(self) -> "BPEDecoder":
        """A decoder for ids that arrive a few at a time."""
        return BPEDecoder(self)

    def to_json(self) -> str:
        """The tokenizer as ASCII JSON, for the metadata of a checkpoint."""
        fields = {
            "kind": "bpe",
            "bytes": self.byte_ids,
            "merges": [*chain.from_iterable(self.merges)],  # left, right, new, left, right, new
            "special": self.special,
        }
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "BPETokenizer":
        """The tokenizer that `to_json` wrote.

        Raises: ValueError if `text` is not such JSON.
        """
        return cls(*fields_of(text))


class BPEDecoder:
    """Text from ids that arrive a few at a time. A token may end amid a character: that part waits.

    All that `push` and then `end` return, joined, is what `decode` returns for all the ids.
    """

    def __init__(self, tokenizer: BPETokenizer):
        self._tokenizer = tokenizer
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Sequence[int] | np.ndarray) -> str:
        """The characters that `ids` complete. Shapes and errors: those of `decode`."""
        return self._bytes.decode(self._tokenizer.decode_bytes(ids))

    def end(self) -> str:
        """The rest: U+FFFD for a character that was not completed. Then it can start again."""
        return self._bytes.decode(b"", final=True)


class _Cache(dict[str, tuple[int, ...]]):
    """The ids of pre-tokens, computed at the first use."""

    def __init__(self, byte_ids: Sequence[int], merges: Sequence[tuple[int, int, int]]):
        self._byte_ids = byte_ids
        self._ranks = {(left, right): rank for rank, (left, right, _) in enumerate(merges)}
        self._made = [new for _, _, new in merges]

    def __missing__(self, piece: str) -> tuple[int, ...]:
        data = piece.encode("utf-8", "surrogateescape")
        ids = tuple(merge([self._byte_ids[byte] for byte in data], self._ranks, self._made))
        if len(piece) <= _CACHED_LENGTH:
            if len(self) >= _CACHED:
                self.clear()  # the frequent ones are back at once
            self[piece] = ids
        return ids
