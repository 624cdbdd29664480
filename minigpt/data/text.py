"""Your own text: a file, or every `*.txt` below a folder.

Source:  the path you give.
Licence: yours to know; none is assumed.
Size:    that of your files. A document is a paragraph, or a line where blank lines are fewer than
         one in twenty (a list of names, one a line, is a list of documents).
"""

from pathlib import Path

from minigpt.data.corpus import Corpus, deduplicate, paragraphs


def load(path: str | Path) -> Corpus:
    """The paragraphs, or else the lines, of each file in turn; files sorted by path.

    Raises: ValueError naming the path if it is missing, holds no text, or is not UTF-8.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"no such file or folder: {path}")
    files = sorted(f for f in path.rglob("*.txt") if f.is_file()) if path.is_dir() else [path]
    documents, duplicates = deduplicate(d for file in files for d in _documents(_read(file)))
    if not documents:
        expected = "no *.txt file with text below it" if path.is_dir() else "it holds no text"
        raise ValueError(f"cannot make a corpus of {path}: {expected}")
    return Corpus(path.resolve().name, documents, str(path), "as you found it", duplicates)


def _documents(text: str) -> list[str]:
    blocks = paragraphs(text)
    lines = [line for line in text.split("\n") if line.strip()]
    return blocks if 1 < len(blocks) >= len(lines) / 20 else lines


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")  # UTF-8 with or without a byte-order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
