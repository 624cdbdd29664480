"""A corpus as a model meets it: three parts of token ids, and the characters that they stand for.

Losses of different vocabularies compare only per character. So the n-grams always count and score
characters, on the very text whose tokens the model is scored on.
"""

from dataclasses import dataclass

import numpy as np

from minigpt import data, tokenizer
from minigpt.evaluate import Score, score_baselines
from minigpt.tokenizer import CharTokenizer, Tokenizer

COUNTED = 5_000_000  # n-grams are counted on at most so many characters: they need the memory
FROM_FILES = "of the token files"  # stands in a run's options in place of a tokenizer's name


@dataclass(frozen=True)
class Parts:
    """train, val and test as ids (N,); letters: the characters, for the n-grams."""

    card: str
    tokenizer: Tokenizer
    letters: CharTokenizer
    ids: dict[str, np.ndarray]

    @property
    def counted(self) -> str:
        """The text that the n-grams are counted on."""
        return _whole_characters(self.tokenizer, self.ids["train"][:COUNTED])[:COUNTED]

    def baselines(self, judged: np.ndarray) -> list[Score]:
        """Uniform guessing and n-grams, on the characters of the tokens judged[1:]."""
        text = _whole_characters(self.tokenizer, judged)
        skip = len(self.tokenizer.decode(judged[:1]))
        train, test = self.letters.encode(self.counted), self.letters.encode(text)
        return score_baselines(self.letters.vocab_size, train, test, skip=skip)

    def characters_per_token(self, part: str, most: int = 1_000_000) -> float:
        """Of the first million tokens: 1 if the tokens are characters."""
        ids = self.ids[part][:most]
        return len(self.tokenizer.decode(ids)) / len(ids)


def prepare(name: str, kind: Tokenizer | str) -> Parts:
    """The corpus of that name, in tokens.

    kind: the tokenizer of a trained model, or the name of one to make. Characters come from the
    whole corpus, so that none is unknown; byte pairs are learnt from the training part alone.
    Raises: ValueError if there is no such corpus or tokenizer, or the two do not fit.
    """
    if data.is_token_folder(name):
        return _from_files(name, kind)
    corpus = data.load(name)
    parts = data.split(corpus)
    if isinstance(kind, str):
        kind = tokenizer.build(kind, corpus.text if kind == "char" else parts.train)
    ids = {part: kind.encode(getattr(parts, part)) for part in ("train", "val", "test")}
    letters = kind if isinstance(kind, CharTokenizer) else CharTokenizer.from_text(corpus.text)
    return Parts(corpus.card(), kind, letters, ids)


def _from_files(name: str, kind: Tokenizer | str) -> Parts:
    """Token files have a tokenizer of their own. They stay on the disk, mapped into memory."""
    files = data.open_tokens(name)
    if isinstance(kind, str):
        if kind not in ("char", FROM_FILES):
            raise ValueError(f"{name} holds tokens already: leave out --tokenizer {kind}")
        kind = tokenizer.from_json(files.tokenizer)
    elif kind.to_json() != files.tokenizer:
        raise ValueError(f"{name} was written with another tokenizer than this model's")
    ids = {"train": files.train, "val": files.val, "test": files.test}
    if isinstance(kind, CharTokenizer):
        return Parts(files.card(), kind, kind, ids)
    pieces = [_whole_characters(kind, part[:COUNTED]) for part in ids.values()]
    return Parts(files.card(), kind, CharTokenizer.from_text("".join(pieces)), ids)


def _whole_characters(kind: Tokenizer, ids: np.ndarray) -> str:
    """The text of ids, without the character that the last byte pairs leave unfinished."""
    return kind.decode(ids).rstrip("\ufffd")
