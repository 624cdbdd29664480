"""`python -m minigpt tokenize`: a corpus into token files, once."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from minigpt import data
from minigpt.data import text
from minigpt.data.writing import SAMPLE, check_free, sample, write_tokens
from minigpt.tokenizer import build


def tokenize(args: argparse.Namespace) -> None:
    """Tokenize a corpus once, into files that training maps instead of loading.

    A text file may be larger than memory: documents stream through, equal ones are dropped, and
    each goes to train, val or test by its own hash. A byte-pair tokenizer is trained on the first
    ten million characters of the training part. FOLDER appears whole or not at all.
    """
    check_free(Path(args.out))
    documents, size, source, licence, removed = _opened(args.source)
    tokenizer = build(args.tokenizer, training_text(args.tokenizer, documents()))
    files = write_tokens(
        args.out, progress(documents(), size), tokenizer,
        spec=args.tokenizer, source=source, licence=licence, removed=removed,
    )  # fmt: skip
    print(files.card())
    print(f"\nwritten to {args.out}")


def _opened(name: str) -> tuple[Callable[[], Iterable[str]], int, str, str, int]:
    """What gives the documents, again at each call; bytes, source, licence, duplicates removed."""
    data.check_name(name)
    if name not in data.LOADERS:
        size = sum(file.stat().st_size for file in text.text_files(Path(name)))
        return partial(text.stream, name), size, name, text.LICENCE, 0
    corpus = data.load(name)
    size = sum(map(_bytes, corpus.documents))
    return lambda: corpus.documents, size, corpus.source, corpus.licence, corpus.duplicates


def training_text(spec: str, documents: Iterable[str]) -> str:
    """What the tokenizer is built on: a sample, or every character if characters are the tokens."""
    if spec != "char":
        return sample(documents, SAMPLE)
    characters = {"\n"}
    for document in documents:
        characters.update(document)
    return "".join(characters)


def progress(documents: Iterable[str], size: int) -> Iterator[str]:
    """The documents, with a bar that counts their bytes; none when the output is no terminal."""
    with tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar:
        for document in documents:
            yield document
            bar.update(_bytes(document))


def _bytes(document: str) -> int:
    return len(document.encode("utf-8", "surrogatepass")) + 1


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        tokenize, "tokenize", " facts --tokenizer bpe-1000 --out tokens/facts",
        " my_stories.txt --out tokens/stories",
    )  # fmt: skip
    sub.add_argument("source", help="a corpus, or the path of a text file or folder")
    sub.add_argument("--tokenizer", default="bpe-1000",
                     help="char, bpe-N, gpt2, or a path (default: bpe-1000)")  # fmt: skip
    sub.add_argument("--out", required=True, metavar="FOLDER", help="a new folder")
