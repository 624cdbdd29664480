"""GPT-2's printable names of tokens: a character stands for each byte.

Vocabulary files are text, and one of them separates its entries by spaces, so a byte that is not
printable needs another sign. The 188 bytes that are printable in Latin-1 stand for themselves, and
the other 68, in order, are the characters from U+0100 on: so the space is "Ġ", the newline "Ċ".
"""

from collections.abc import Mapping, Sequence

from minigpt.tokenizer.bpe import BPETokenizer

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # ! to ~, ¡ to ¬, ® to ÿ
_OTHER = [byte for byte in range(256) if byte not in _PRINTABLE]
CHARACTERS = dict(zip(_PRINTABLE, map(chr, _PRINTABLE), strict=True)) | {
    byte: chr(256 + i) for i, byte in enumerate(_OTHER)
}


def name_of(token: bytes) -> str:
    """The printable name of a token. n bytes -> n characters."""
    return "".join(map(CHARACTERS.__getitem__, token))


def names_of(tokenizer: BPETokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary by name, in the order of the ids, and the merges as pairs of names.

    A special token's name is its text.
    Raises: ValueError if that is another token's name.
    """
    names = [name_of(token) for token in tokenizer.tokens]  # (V,)
    for text, token in tokenizer.special.items():
        names[token] = text
    vocab = {name: i for i, name in enumerate(names)}
    taken = next((text for text, i in tokenizer.special.items() if vocab[text] != i), None)
    if taken is not None or len(vocab) != len(names):
        raise ValueError("a special token's text is the printable name of another token")
    return vocab, [(names[left], names[right]) for left, right, _ in tokenizer.merges]


def numbered(
    pairs: Sequence[tuple[str, str]], vocab: Mapping[str, int]
) -> tuple[list[int], list[tuple[int, int, int]], dict[str, int]]:
    """The ids of the 256 bytes; the merges as ids; the entries of vocab that are neither.

    Shapes: M pairs of names, by rank -> 256 ids, M times (left, right, new), the rest of vocab.
    Raises: ValueError if a name that a pair or a byte needs is not in vocab.
    """
    try:
        byte_ids = [vocab[CHARACTERS[byte]] for byte in range(256)]
        merges = [(vocab[a], vocab[b], vocab[a + b]) for a, b in pairs]
    except KeyError as error:
        raise ValueError(f"the vocabulary does not hold the token {error}") from None
    ordinary = {*CHARACTERS.values(), *(a + b for a, b in pairs)}
    return byte_ids, merges, {name: i for name, i in vocab.items() if name not in ordinary}
