"""The table of contents, chapters/README.md, from what the built notebooks say."""

from pathlib import Path

from minigpt.coverage import Chapter, read_chapter

HEAD = """# The chapters

Each chapter derives one component of a GPT, runs it on real data, and checks every equation that it
tags. Read a notebook here with its outputs, or run it:

```sh
make chapters
```

opens JupyterLab on this folder. Every chapter stands alone: it imports the package and no other
chapter, needs no network, and runs in under a minute on one core.

"""

TABLE = """| | question | package file | read before | minutes | checks passed |
|---|---|---|---|---|---|
"""

TAIL = """
**Minutes** are to read and for the exercises. **Checks passed** counts the checks that ran when the
notebook was built; `python -m minigpt chapters` prints them beside the tagged equations.

## Exercises

Each chapter ends with exercises: a stub to fill in, and a cell that tries the answer. Solutions are
in `solutions/`, with the reason why each is right, and with wrong answers that the checks reject.
A teacher makes graded problem sets of them with [nbgrader](https://nbgrader.readthedocs.io):

```sh
python tools/chapters.py assign course
cd course
nbgrader generate_assignment 03_softmax_cross_entropy --create
```

Submissions go to `submitted/STUDENT/03_softmax_cross_entropy/`; then `nbgrader autograde` and
`nbgrader generate_feedback` with the same name. Students get stubs and visible checks; hidden
tests come back when their work is graded.

## How a chapter is made

The source is `NN_name.py`, one cell after each `# %%`. The notebook is built from it:

```sh
python tools/chapters.py build 03    # write and execute the notebook, its figures and this page
python tools/chapters.py check       # are notebooks, figures and this page what the sources say?
python tools/chapters.py run         # execute chapters and solutions in fresh kernels
```

An equation that claims something carries a tag, and "What was checked" at the end of the chapter
maps each tag to a check and its bound. A tag without a check, a check that has not run, and an
error above its bound each fail the tests.

## The documents S0 to S4

"What others get wrong" answers five Chinese articles about GPT, by line. They are not needed: what
each claims is restated where it is refuted.

| | file | subject |
|---|---|---|
| S0 | `000_6571208eb80b737a.txt` | the principles of GPT: a likelihood derivation, an example |
| S1 | `001_91bf0db57c9a739d.txt` | a short overview of GPT and attention |
| S2 | `002_6c2596e652b4b1fe.txt` | the transformer's formulas, attention to layer norm |
| S3 | `003_04990ecdbf17bfe1.txt` | the GPT series, and a program with PyTorch's transformer |
| S4 | `004_7cf6ea67d408ca56.txt` | "GPT: principles and code", and applications |

S0 to S3 have no title of their own in these files.
"""


def contents(sources: list[Path]) -> str:
    """The page as Markdown, with a line for each source that has been built."""
    built = [path.with_suffix(".ipynb") for path in sources]
    return HEAD + TABLE + "".join(_line(read_chapter(p)) for p in built if p.exists()) + TAIL


def _line(chapter: Chapter) -> str:
    facts, passed = chapter.facts, sum(check.holds for check in chapter.checks)
    cells = (
        f"[{chapter.number} {chapter.title}]({chapter.path.name})", chapter.question,
        facts.get("Package file", ""), facts.get("Read before", ""), facts.get("Minutes", ""),
        f"{passed} of {len(chapter.checks)}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"
