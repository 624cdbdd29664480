"""Text to token ids and back: characters as tokens, or byte pairs as GPT-2 has them.

`build` makes a tokenizer by name, `from_json` the one that a checkpoint holds. Both kinds have
`vocab_size`, `encode`, `decode`, `decoder` and `to_json`.
"""

import os
import re

from minigpt.tokenizer.bpe import BPETokenizer
from minigpt.tokenizer.characters import CharTokenizer
from minigpt.tokenizer.files import load, save
from minigpt.tokenizer.gpt2_vocabulary import gpt2
from minigpt.tokenizer.training import train_bpe
from minigpt.tokenizer.vocabulary import parse_object

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "Tokenizer",
    "build",
    "from_json",
    "gpt2",
    "load",
    "save",
    "train_bpe",
]

Tokenizer = CharTokenizer | BPETokenizer
_KINDS: dict[str, type[CharTokenizer] | type[BPETokenizer]] = {
    "char": CharTokenizer,
    "bpe": BPETokenizer,
}


def build(spec: str, text: str) -> Tokenizer:
    """The tokenizer that `spec` names.

    "char": the characters of `text`. "bpe-1000": byte pairs, 1000 tokens in all, trained on `text`.
    "gpt2": GPT-2's vocabulary. Else a path: a tokenizer.json, or a folder with vocab.json and
    merges.txt.
    Raises: ValueError if it is none of these, or the text or the files do not do.
    """
    if spec == "char":
        return CharTokenizer.from_text(text)
    if spec == "gpt2":
        return gpt2()
    if size := re.fullmatch(r"bpe-([0-9]{1,9})", spec):
        return train_bpe(text, int(size[1]))
    if not spec or not os.path.exists(spec):
        raise ValueError(
            f"no tokenizer {spec!r}: expected char, gpt2, bpe-N with N tokens in all, or the path"
            " of a tokenizer.json or of a folder with vocab.json and merges.txt"
        )
    return load(spec)


def from_json(text: str) -> Tokenizer:
    """The tokenizer that `to_json` of either kind wrote.

    Raises: ValueError if `text` is not such JSON.
    """
    kind = parse_object(text).get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"the tokenizer must be an object of kind {' or '.join(_KINDS)}")
    return _KINDS[kind].from_json(text)
