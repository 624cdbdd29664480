"""A corpus: distinct documents with their origin, and its split into train, val and test.

Two habits keep a held-out score honest. Documents are de-duplicated *before* the split, since a
paragraph that stands in both parts rewards memory; and whole documents go to one part, since the
second half of a sentence is easy to guess after training on the first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Corpus:
    """Distinct documents, where they come from, and under which licence.

    `duplicates` counts the documents that `deduplicate` removed on the way here.
    """

    name: str
    documents: tuple[str, ...]
    source: str
    licence: str
    duplicates: int

    @property
    def text(self) -> str:
        """All documents, each ended by a newline."""
        return _join(self.documents)

    @property
    def characters(self) -> int:
        """Length of `text` in characters: the newline that ends each document counts."""
        return count(self.documents)

    def card(self) -> str:
        """A short description for people: origin, licence and sizes."""
        return "\n".join(
            [
                f"name        {self.name}",
                f"source      {self.source}",
                f"licence     {self.licence}",
                f"documents   {len(self.documents):,} ({self.duplicates:,} duplicates removed)",
                f"characters  {self.characters:,} ({len(set(self.text)):,} distinct)",
            ]
        )


@dataclass(frozen=True)
class Splits:
    """Three texts that share no document. Each ends in a newline."""

    train: str
    val: str
    test: str


def paragraphs(text: str) -> list[str]:
    """The blank-line separated blocks of `text`, without the blank ones; indents are kept."""
    return list(blocks(text.split("\n")))


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """The same of lines that come one by one: no more than one block is kept in memory."""
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line)
        elif block:
            yield "\n".join(block).rstrip()
            block = []
    if block:
        yield "\n".join(block).rstrip()


def normal(document: str) -> str:
    """What stays the same when only white space or case differ: equal means duplicate."""
    return " ".join(document.split()).casefold()


def count(documents: Iterable[str]) -> int:
    """Characters of the text that the documents make, each with its newline."""
    return sum(len(document) + 1 for document in documents)


def deduplicate(documents: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """The first of each set of equal documents, in order, and how many were removed.

    Two documents are equal when they differ only in white space or case.
    """
    documents = list(documents)
    first: dict[str, str] = {}  # a dict keeps order; a set would not
    for document in documents:
        first.setdefault(normal(document), document)
    return tuple(first.values()), len(documents) - len(first)


def split(corpus: Corpus, val: float = 0.05, test: float = 0.05) -> Splits:
    """Cut a corpus into three parts at random, whole documents at a time; always the same cut.

    `val` and `test` are fractions of the documents. Within a part the documents keep their order.
    Raises: ValueError if a fraction leaves no room, or there are too few documents for three parts.
    """
    parts = split_documents(corpus, val, test)
    return Splits(**{part: _join(documents) for part, documents in parts.items()})


def split_documents(
    corpus: Corpus, val: float = 0.05, test: float = 0.05
) -> dict[str, tuple[str, ...]]:
    """The documents of "train", "val" and "test", as `split` cuts them."""
    if not (val > 0 and test > 0 and val + test < 1):
        raise ValueError(f"val and test must be positive and sum to less than 1, got {val}, {test}")
    n = len(corpus.documents)
    n_val, n_test = max(1, round(val * n)), max(1, round(test * n))
    if n_val + n_test >= n:
        raise ValueError(
            f"corpus {corpus.name!r} has {n} documents ({corpus.duplicates} duplicates removed):"
            " too few to split in three. A document is a paragraph, or a line if there are none"
        )
    order = np.random.default_rng(0).permutation(n)  # (n,)
    parts = np.split(order, [n - n_val - n_test, n - n_test])  # train, val, test
    return {
        name: tuple(corpus.documents[i] for i in sorted(part))
        for name, part in zip(PARTS, parts, strict=True)
    }


def _join(documents: Iterable[str]) -> str:
    """The documents as one text, each ended by a newline."""
    return "".join(document + "\n" for document in documents)
