"""Tiny Shakespeare: forty thousand lines of the plays, on which small language models are compared.

Source:  github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt at a fixed commit. It is
         downloaded at the first use, checked against its SHA-256, and kept in the user's cache
         folder, or in the folder that the environment variable MINIGPT_DATA names.
Licence: public domain.
Size:    1,115,394 bytes, 65 distinct characters. A document is a speech: who speaks, and what.
"""

import hashlib
from pathlib import Path

from minigpt.data.corpus import Corpus, deduplicate, paragraphs
from minigpt.download import cache_folder, fetch

URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/"
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
)
HASH = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"  # SHA-256
FILE = "tinyshakespeare.txt"

LANGUAGE = "English"
LICENCE = "public domain"
HOW = "python -m minigpt data shakespeare (downloads 1.1 MB)"


def load() -> Corpus:
    """One document a speech. The network is used only while the file is not in the cache.

    Raises: ValueError if the file cannot be had, or is not the expected one; then nothing is kept.
    """
    documents, duplicates = deduplicate(paragraphs(_file().read_text("utf-8")))
    return Corpus("shakespeare", documents, URL, LICENCE, duplicates)


def path() -> Path:
    """Where the file is, or will be."""
    return cache_folder() / FILE


def cached() -> bool:
    """Whether the file is there, and is the expected one."""
    file = path()
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == HASH


def _file() -> Path:
    return fetch(URL, HASH, path(), "This corpus needs the internet once; 'facts' and 'pydoc' do"
                                    " not")  # fmt: skip
