"""`python -m minigpt chapters`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from minigpt.coverage import CHAPTERS, coverage_table, find_chapters, problems, read_chapter


def chapters(args: argparse.Namespace) -> None:
    """Print how many equations of each chapter are checked, and the worst error found.

    An equation counts if the check that stands for it has run and has kept its bound.
    """
    read = [read_chapter(path) for path in find_chapters(Path(args.folder))]
    print(coverage_table(read))
    if found := [problem for chapter in read for problem in problems(chapter)]:
        raise ValueError("\n".join(found))


def add(command: Callable) -> None:
    """Its options."""
    sub = command(chapters, "chapters", "", " --folder my_chapters")
    sub.add_argument("--folder", default=CHAPTERS, help="where the notebooks are")
