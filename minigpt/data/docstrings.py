"""The docstrings of Python's standard library: larger than `pydoc`, and as easy to get.

Source:  every module, class and function of the standard library that runs this, without its tests;
         the source files are parsed, never run.
Licence: PSF-2.0, as Python itself.
Size:    about 1,770,000 characters in 8,250 docstrings on Python 3.11. The text differs between
         versions of Python, and so do losses. Parsing takes some seconds.
"""

import ast
import platform
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from minigpt.data.corpus import Corpus, deduplicate

LANGUAGE = "English"
LICENCE = "PSF-2.0"
HOW = "comes with Python"

_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_STATEMENTS = ast.stmt | ast.excepthandler | ast.match_case


def load() -> Corpus:
    """One document a docstring, files in the order of their paths.

    Raises: ValueError if this Python has no source files of its library (a zipped one).
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    documents, duplicates = deduplicate(d for file in _modules(folder) for d in _docstrings(file))
    if not documents:
        raise ValueError(
            f"corpus 'docstrings' needs the standard library's *.py files, and {folder} has none:"
            " use the corpus 'pydoc'"
        )
    source = f"docstrings of the standard library of Python {platform.python_version()}"
    return Corpus("docstrings", documents, source, LICENCE, duplicates)


def _modules(folder: Path) -> Iterator[Path]:
    """The source files of the standard library: what was installed beside it is left out."""
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        if parts[0] in sys.stdlib_module_names and not _NOT_THE_LIBRARY.intersection(parts):
            yield file


def _docstrings(file: Path) -> Iterator[str]:
    """The docstrings of a file, in its order, with the indent of the code taken off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as "invalid escape sequence"
        nodes: list[ast.AST] = [ast.parse(file.read_bytes())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
            yield docstring
        # Most nodes are expressions, which hold no docstring: ast.walk would take twice as long.
        inner = (child for child in ast.iter_child_nodes(node) if isinstance(child, _STATEMENTS))
        nodes += reversed([*inner])
