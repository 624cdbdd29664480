"""The files of llama2.c: a Llama's weights, and its tokenizer. Numbers are little-endian.

A model (its format of version 0) is 7 int32: dim, hidden_dim, n_layers, n_heads, n_kv_heads,
vocab_size (negative where the head is not tied) and seq_len; then float32 arrays in the order of
`_layout`. It keeps a matrix as (n_out, n_in), minigpt as (n_in, n_out), so each is transposed.
Columns stay in their order: llama2.c turns the pairs (2i, 2i + 1), as positions.rotary does.

A tokenizer is an int32, the length in bytes of its longest piece; then for each id a float32
score, an int32 length, and so many bytes. It writes a piece's space as a space.

Source: github.com/karpathy/llama2.c (MIT), run.c, export.py, tokenizer.py.
"""

import codecs
import math
import os
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from minigpt.tokenizer.ids import checked_ids
from minigpt.tokenizer.merging import merge
from minigpt.tokenizer.pretokens import without_surrogates
from minigpt.variants.llama import Llama, LlamaConfig

_HEADER = struct.Struct("<7i")
_LATER_VERSION = 0x616B3432  # files of version 1 and later begin with it

UNKNOWN, BOS, EOS, FIRST_BYTE = range(4)  # ids; BOS and EOS: begin and end of a text
FIRST_PIECE = FIRST_BYTE + 256
_FIXED = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
# A wrong file must not take long. Llama's 32,000 pieces are 0.4 MB, the longest has 27 bytes.
_LARGEST, _LONGEST = 1 << 22, 128


# --- the model --------------------------------------------------------------------------------


def read_llama2c(path: str | os.PathLike, dtype: str = "float32") -> Llama:
    """The model in a file of llama2.c.

    Raises: ValueError, naming the file, if it cannot be read, is not such a file, is not of exactly
            the length that its header asks for, or holds what is no finite number.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            config = _config(file.read(_HEADER.size))
            wanted = _HEADER.size + 4 * sum(math.prod(shape) for _, shape in _layout(config))
            if size != wanted:  # before anything of that size is made
                raise ValueError(f"its header asks for {wanted:,} bytes, but it has {size:,}")
            numbers = np.frombuffer(file.read(wanted - _HEADER.size), "<f4")
        if not np.isfinite(numbers).all():
            raise ValueError("it holds weights that are no finite numbers")
        model = Llama(config, np.random.default_rng(0), dtype)
        model.load_arrays(dict(_named(config, numbers)))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no whole model of llama2.c: {error}") from error
    return model


def _config(header: bytes) -> LlamaConfig:
    """The sizes in the header, checked."""
    if len(header) < _HEADER.size:
        raise ValueError(f"it ends within its header of {_HEADER.size} bytes")
    C, n_hidden, n_layer, n_head, n_kv_head, V, T = _HEADER.unpack(header)
    if C == _LATER_VERSION:
        raise ValueError("it is of version 1 or later: export it as version 0")
    return LlamaConfig(
        vocab_size=abs(V), block_size=T, n_layer=n_layer, n_head=n_head, n_kv_head=n_kv_head,
        n_embd=C, n_hidden=n_hidden, tied=V > 0,
    )  # fmt: skip


def _layout(c: LlamaConfig) -> list[tuple[str, tuple[int, ...]]]:
    """The arrays of the file in order; one of all layers has these as its first axis."""
    C, D, L = c.n_embd, c.n_embd // c.n_head, c.n_layer
    arrays: list[tuple[str, tuple[int, ...]]] = [
        ("tok_embeddings", (c.vocab_size, C)),
        ("layers.attention_norm", (L, C)),
        ("layers.attention.wq", (L, C, C)),
        ("layers.attention.wk", (L, c.n_kv_head * D, C)),
        ("layers.attention.wv", (L, c.n_kv_head * D, C)),
        ("layers.attention.wo", (L, C, C)),
        ("layers.ffn_norm", (L, C)),
        ("layers.feed_forward.w1", (L, c.n_hidden, C)),
        ("layers.feed_forward.w2", (L, C, c.n_hidden)),
        ("layers.feed_forward.w3", (L, c.n_hidden, C)),
        ("norm", (C,)),
        ("cos", (c.block_size, D // 2)),  # tables of rotary, which computes its own
        ("sin", (c.block_size, D // 2)),
    ]
    return arrays if c.tied else [*arrays, ("output", (c.vocab_size, C))]


def _named(c: LlamaConfig, numbers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays under Llama's names, and as it keeps them."""
    end = 0
    for name, shape in _layout(c):
        array = numbers[end : end + math.prod(shape)].reshape(shape)
        end += array.size
        if name in ("cos", "sin"):
            _check_angles(name, array)
        elif name.startswith("layers."):
            for i, part in enumerate(array):
                yield f"layers.{i}.{name.removeprefix('layers.')}.weight", part.T
        else:
            yield f"{name}.weight", array.T if name == "output" else array


def _check_angles(name: str, table: np.ndarray) -> None:
    """Weights that were trained under other angles would speak nonsense, and nobody would know."""
    T, pairs = table.shape
    angles = np.arange(T)[:, None] * 10000.0 ** (-np.arange(pairs) / pairs)  # as in rotary
    if np.abs(table - getattr(np, name)(angles)).max() > 2e-3:  # float32 of angles up to 8,000
        raise ValueError(f"its table of {name} is not that of rotary positions of base 10000")


# --- the tokenizer ----------------------------------------------------------------------------


def read_tokenizer(path: str | os.PathLike) -> "Llama2cTokenizer":
    """The tokenizer in a file of llama2.c.

    Raises: ValueError, naming the file, if it cannot be read or is not such a file to its end.
    """
    try:
        with open(path, "rb") as file:
            return Llama2cTokenizer(_pieces(file.read(_LARGEST + 1)))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no whole tokenizer of llama2.c: {error}") from error


def _pieces(data: bytes) -> list[tuple[float, bytes]]:
    """(score, bytes) of each id."""
    if not 4 < len(data) <= _LARGEST:
        raise ValueError(f"expected 5 to {_LARGEST:,} bytes")
    (longest,), place = struct.unpack_from("<i", data), 4
    pieces: list[tuple[float, bytes]] = []
    while place < len(data):
        if place + 8 > len(data):
            raise ValueError(f"it ends within piece {len(pieces)}")
        score, length = struct.unpack_from("<fi", data, place)
        place += 8 + length
        if not 1 <= length <= longest or place > len(data):
            raise ValueError(f"piece {len(pieces)} cannot have {length:,} bytes")
        pieces.append((score, data[place - length : place]))
    return pieces


class Llama2cTokenizer:
    """Pieces of text with scores: neighbours whose union is a piece are joined, the best one first.

    pieces: (score, bytes) by id: unknown, begin, end, the 256 bytes, and then the real ones.
    A character that is no piece is written as its bytes, so every text can be.
    Raises: ValueError if the first 259 are others, or a piece is empty, very long or has no score.
    Source: Kudo & Richardson 2018, arXiv:1808.06226; its byte-pair form is what Llama uses.
    """

    def __init__(self, pieces: Sequence[tuple[float, bytes]]):
        if [piece for _, piece in pieces[:FIRST_PIECE]] != _FIXED:
            raise ValueError("its first 259 pieces are not <unk>, <s>, </s> and the bytes")
        for i, (score, piece) in enumerate(pieces):
            if not 1 <= len(piece) <= _LONGEST or not math.isfinite(score):
                raise ValueError(f"piece {i} has {len(piece):,} bytes and the score {score}")
        self.vocab_size = len(pieces)
        self.texts = ["\ufffd".encode(), b"", b"", *(bytes([b]) for b in range(256)),
                      *(piece for _, piece in pieces[FIRST_PIECE:])]  # fmt: skip
        ids = range(FIRST_PIECE, len(pieces))
        self._ids = {self.texts[i]: i for i in reversed(ids)}  # of two that are equal, the first
        # The rank of a piece is its place by score. Each way to cut it in two is a merge of it.
        self._made = sorted(ids, key=lambda i: (-pieces[i][0], i))
        self._ranks = {
            (self._ids[text[:cut]], self._ids[text[cut:]]): rank
            for rank, i in enumerate(self._made) if self._ids[text := self.texts[i]] == i
            for cut in range(1, len(text)) if text[:cut] in self._ids and text[cut:] in self._ids
        }  # fmt: skip

    def encode(self, text: str) -> np.ndarray:
        """Token ids of `text`, without BOS. A lone surrogate becomes U+FFFD.

        A space is put in front, so that the first word is the same token as further on.
        Shapes: text -> (n,) int64, 0 <= id < vocab_size; of no text, none.
        """
        ids: list[int] = []
        for character in " " + without_surrogates(text) if text else "":
            data = character.encode()
            known = self._ids.get(data)
            ids += [FIRST_BYTE + byte for byte in data] if known is None else [known]
        return np.array(merge(ids, self._ranks, self._made), np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, U+FFFD in place of what is not UTF-8; BOS and EOS have none.

        The space that `encode` put in front is taken off again: at the start, and after BOS or EOS.
        Raises: ValueError if `ids` is not one-dimensional, not integer or out of range.
        """
        decoder = self.decoder()
        return decoder.push(ids) + decoder.end()

    def decoder(self) -> "Llama2cDecoder":
        """A decoder for ids that arrive a few at a time."""
        return Llama2cDecoder(self)


class Llama2cDecoder:
    """Text from ids that arrive a few at a time. A token may end amid a character: that part waits.

    All that `push` and then `end` return, joined, is what `decode` returns for all the ids.
    """

    def __init__(self, tokenizer: Llama2cTokenizer):
        self._tokenizer, self._begins = tokenizer, True
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Sequence[int] | np.ndarray) -> str:
        """The characters that `ids` complete. Errors: those of `decode`."""
        found = []
        for token in checked_ids(ids, self._tokenizer.vocab_size).tolist():
            text = self._tokenizer.texts[token]
            found.append(text.removeprefix(b" ") if self._begins else text)
            self._begins = token in (BOS, EOS)
        return self._bytes.decode(b"".join(found))

    def end(self) -> str:
        """The rest: U+FFFD for a character that was not completed. Then it can start again."""
        self._begins = True
        return self._bytes.decode(b"", final=True)
