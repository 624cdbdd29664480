"""`python -m minigpt data`: which corpora there are, and what each is."""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

from minigpt.data import MODULES, Corpus, is_token_folder, load, open_tokens, shakespeare
from minigpt.data.corpus import count, split_documents
from minigpt.tokenizer import build

TOKENIZERS = ("char", "bpe-1000", "gpt2")
COLUMNS = ("name", "language", "characters", "documents", "duplicates")
ROW = "{:13s}{:10s}{:>12s}{:>11s}{:>12s}  {:15s}{}"  # wide enough for the names and licences
SAMPLE_CHARACTERS = 200  # of a document that is shown


def data(args: argparse.Namespace) -> None:
    """Print a table of the corpora, or what is known about those that you name.

    Characters a token are measured on the test part, with a tokenizer trained on the training part.
    The table needs no network: a corpus that is not here has a line that says how to get it.
    """
    if args.json:
        cards = [_card_of(name) for name in args.names] or list(rows())
        print(json.dumps(cards, ensure_ascii=False, indent=2))
    elif args.names:
        for name in args.names:
            print(_text_of(name))
    else:
        print(ROW.format(*COLUMNS, "licence", ""))
        for row in rows():
            print(_line_of(row), flush=True)  # at once, since some take seconds to load


def _line_of(row: dict[str, Any]) -> str:
    numbers = ("-" if row[name] is None else f"{row[name]:,}" for name in COLUMNS[2:])
    licence, how = row["licence"].split(" (")[0], "ready" if row["ready"] else row["how"]
    return ROW.format(row["name"], row["language"], *numbers, licence, how)


def rows() -> Iterator[dict[str, Any]]:
    """What the table says, corpus by corpus; numbers are None for one that is not here."""
    for name, module in MODULES.items():
        corpus = None
        try:
            if module is not shakespeare or shakespeare.cached():  # a table downloads nothing
                corpus = load(name)
        except (ValueError, OSError):
            pass  # the line says how to get it
        yield {
            "name": name,
            "language": module.LANGUAGE,
            "characters": corpus and corpus.characters,
            "documents": corpus and len(corpus.documents),
            "duplicates": corpus and corpus.duplicates,
            "licence": module.LICENCE,
            "ready": corpus is not None,
            "how": module.HOW,
        }


def card(corpus: Corpus) -> dict[str, Any]:
    """The data card: origin, licence, sizes, the split, and three documents from its inside."""
    text, n = corpus.text, len(corpus.documents)
    result: dict[str, Any] = {
        "name": corpus.name,
        "language": MODULES[corpus.name].LANGUAGE if corpus.name in MODULES else None,
        "source": corpus.source,
        "licence": corpus.licence,
        "characters": corpus.characters,
        "bytes": len(text.encode("utf-8", "surrogatepass")),
        "distinct_characters": len(set(text)),
        "documents": n,
        "duplicates": corpus.duplicates,
        "samples": [corpus.documents[n * i // 4] for i in (1, 2, 3)],
    }
    try:
        parts = split_documents(corpus)
    except ValueError as error:  # too small to train on, but not to look at
        return result | {"splits": str(error), "characters_per_token": {}}
    splits = {p: {"documents": len(d), "characters": count(d)} for p, d in parts.items()}
    train, test = ("".join(d + "\n" for d in parts[p]) for p in ("train", "test"))
    ratios = {spec: _characters_per_token(spec, train, test) for spec in TOKENIZERS}
    return result | {"splits": splits, "characters_per_token": ratios}


def _characters_per_token(spec: str, train: str, test: str) -> float | str:
    """On the test part; or why the tokenizer cannot be had."""
    if spec == "char":
        return 1.0  # by definition; and the test part may have characters of its own
    try:
        return round(len(test) / len(build(spec, train).encode(test)), 3)
    except ValueError as error:
        return str(error)


def _card_of(name: str) -> dict[str, Any]:
    if not is_token_folder(name):
        return card(load(name))
    return {key: value for key, value in open_tokens(name).about.items() if key != "tokenizer"}


def _text_of(name: str) -> str:
    """A card for people."""
    if is_token_folder(name):
        return open_tokens(name).card()
    corpus = load(name)
    about = card(corpus)
    lines = [corpus.card(), f"bytes       {about['bytes']:,} in UTF-8"]
    lines += [f"language    {about['language']}"] if about["language"] else []
    if isinstance(about["splits"], str):
        lines += [f"split       {about['splits']}"]
    else:
        lines += [
            f"{part:11s} {size['documents']:,} documents, {size['characters']:,} characters"
            for part, size in about["splits"].items()
        ]
    for spec, ratio in about["characters_per_token"].items():
        known = isinstance(ratio, float)
        lines += [f"{spec:11s} " + (f"{ratio:.2f} characters a token" if known else f"- ({ratio})")]
    for i, document in enumerate(about["samples"], 1):
        short = document[:SAMPLE_CHARACTERS] + " ..." * (len(document) > SAMPLE_CHARACTERS)
        lines += [f"\n{i}. " + short.replace("\n", "\n   ")]
    return "\n".join(lines) + "\n"


def add(command: Callable) -> None:
    """Its options."""
    sub = command(data, "data", "", " facts", " my_text.txt --json")
    what = "a corpus, a text file or folder, or token files (default: a table of the corpora)"
    sub.add_argument("names", nargs="*", metavar="NAME", help=what)
    sub.add_argument("--json", action="store_true", help="print one JSON document instead")
