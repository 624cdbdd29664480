"""Your own text: a file, or every `*.txt` below a folder.

Source:  the path you give.
Licence: yours to know; none is assumed.
Size:    that of your files. A document is a paragraph, or a line where blank lines are fewer than
         one in twenty (a list of names, one a line, is a list of documents).
"""

from collections.abc import Iterator
from pathlib import Path

from minigpt.data.corpus import Corpus, blocks, deduplicate

LICENCE = "as you found it"


def load(path: str | Path) -> Corpus:
    """The documents of each file in turn; files sorted by path.

    Raises: ValueError naming the path if it is missing, holds no text, is binary or not UTF-8.
    """
    path = Path(path)
    documents, duplicates = deduplicate(stream(path))
    return Corpus(path.resolve().name, documents, str(path), LICENCE, duplicates)


def stream(path: str | Path) -> Iterator[str]:
    """The same documents, duplicates included, one by one: no file is ever whole in memory.

    Each file is read twice, first to see whether its documents are paragraphs or lines.
    Raises: ValueError as `load`, some of it only when the bad place is reached.
    """
    path, empty = Path(path), True
    for file in text_files(path):
        for document in blocks(_lines(file)) if _has_paragraphs(file) else _lines(file):
            if document.strip():
                yield document
                empty = False
    if empty:
        expected = "no *.txt file with text below it" if path.is_dir() else "it holds no text"
        raise ValueError(f"cannot make a corpus of {path}: {expected}")


def text_files(path: Path) -> list[Path]:
    """The file itself, or the text files below a folder, sorted. Raises ValueError if missing."""
    if not path.exists():
        raise ValueError(f"no such file or folder: {path}")
    if path.is_dir():
        return sorted(file for file in path.rglob("*.txt") if file.is_file())
    return [path]


def _has_paragraphs(file: Path) -> bool:
    """Whether blank lines part the file into blocks that are not, on average, beyond 20 lines."""
    lines = n_blocks = 0
    before = ""
    for line in (line.strip() for line in _lines(file)):
        lines += bool(line)
        n_blocks += bool(line) and not before
        before = line
    return 1 < n_blocks >= lines / 20


def _lines(file: Path) -> Iterator[str]:
    """The lines, without what ends them: "\\n", "\\r\\n" or "\\r".

    Raises: ValueError naming the file, and the byte at which it is not UTF-8 text.
    """
    position = 0  # of the line, in bytes
    try:
        with open(file, "rb") as content:
            for raw in content:
                if (zero := raw.find(b"\0")) >= 0:
                    raise ValueError(
                        f"{file} is not text: it has a zero byte at position {position + zero}"
                        " (a binary file, or UTF-16?)"
                    )
                line = raw.decode("utf-8")
                if position == 0:
                    line = line.removeprefix("\ufeff")  # a byte-order mark
                yield from line.removesuffix("\n").removesuffix("\r").split("\r")
                position += len(raw)
    except UnicodeDecodeError as error:
        bad = position + error.start
        raise ValueError(
            f"{file} is not UTF-8 text: {error.reason}, byte"
            f" 0x{error.object[error.start]:02x} at position {bad}"
        ) from error
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
