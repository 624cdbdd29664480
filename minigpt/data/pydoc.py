"""The reference text behind Python's `help()`: a corpus that needs no installation.

Source:  `pydoc_data.topics` of the standard library that runs this, split into paragraphs.
Licence: PSF-2.0, as Python itself.
Size:    about 370,000 characters in 2,070 paragraphs on Python 3.11, after removing a fifth of the
         paragraphs as duplicates. The text differs between versions of Python, and so do losses.
"""

import platform

from minigpt.data.corpus import Corpus, deduplicate, paragraphs

LANGUAGE = "English"
LICENCE = "PSF-2.0"
HOW = "comes with Python"


def load() -> Corpus:
    """One document a paragraph, in the order of the topics."""
    from pydoc_data.topics import topics  # half a megabyte, for those who ask for it only

    documents, duplicates = deduplicate(p for topic in topics.values() for p in paragraphs(topic))
    source = f"pydoc_data.topics of Python {platform.python_version()}"
    return Corpus("pydoc", documents, source, LICENCE, duplicates)
