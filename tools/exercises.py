"""Exercises: found in a chapter and its solutions, and turned into a graded problem set.

In chapters/NN_name.py a cell marked `exercise="NN.1" role="stub"` is what the reader fills in, and
one marked `role="check"` tries the answer. In chapters/solutions/NN_name.py the roles are
`solution`, `hidden` (more asserts) and `wrong` (a mistake that the checks must reject).
"""

import re
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FACTS = r"\*Difficulty ([1-5]) of 5 · (\d+) minutes · (\d+) points?\*"
WRONG_ANSWERS = 2  # that each exercise ships at least


@dataclass
class Exercise:
    """One exercise, as code: roles -> source; wrong: reason -> source."""

    text: str = ""
    code: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def points(self) -> int:
        found = re.search(FACTS, self.text)
        return int(found[3]) if found else 0

    @property
    def minutes(self) -> int:
        found = re.search(FACTS, self.text)
        return int(found[2]) if found else 0


def read_cells(path: Path) -> NotebookNode:
    """A source as a notebook, with ids that depend on the order of the cells alone."""
    return deepcopy(_parsed(path.read_text("utf-8")))


@cache
def _parsed(text: str) -> NotebookNode:
    """Reading takes a tenth of a second, and one source is asked for again for each exercise."""
    nb = jupytext.reads(text, fmt="py:percent")
    for i, cell in enumerate(nb.cells):
        cell.id = f"cell-{i:03d}"
    return nb


def setup_of(path: Path) -> str:
    """The source of the chapter's setup cell: all that exercises may rely on."""
    found = [c.source for c in read_cells(path).cells if c.metadata.get("role") == "setup"]
    if len(found) != 1:
        raise ValueError(f'{path.name}: one code cell must be marked role="setup"')
    return found[0]


def solutions_path(path: Path) -> Path:
    return path.parent / "solutions" / path.name


def exercises_of(path: Path) -> dict[str, Exercise]:
    """The exercises of a chapter, by number, with what its solutions add.

    Raises: ValueError if the solutions are missing or name an exercise that is not there.
    """
    found: dict[str, Exercise] = {}
    for cell in read_cells(path).cells:
        heading = re.match(r"### Exercise (\d\d\.\d+): ", cell.source)
        if cell.cell_type == "markdown" and heading:
            found[heading[1]] = Exercise(cell.source)
        elif number := cell.metadata.get("exercise"):
            if number not in found:
                raise ValueError(f"{path.name}: no heading '### Exercise {number}: ...' above it")
            found[number].code[cell.metadata["role"]] = cell.source
    if not solutions_path(path).exists():
        raise ValueError(f"solutions/{path.name} is missing: each exercise needs a solution")
    for cell in read_cells(solutions_path(path)).cells:
        if number := cell.metadata.get("exercise"):
            if number not in found:
                raise ValueError(f"solutions/{path.name}: {path.name} has no exercise {number}")
            if cell.metadata["role"] == "wrong":
                found[number].wrong[cell.metadata["why"]] = cell.source
            else:
                found[number].code[cell.metadata["role"]] = cell.source
    return found


def points_of(nb: NotebookNode) -> dict[str, int]:
    """Exercise number -> points, from the exercises' text."""
    return {
        heading[1]: Exercise(cell.source).points
        for cell in nb.cells
        if (heading := re.match(r"### Exercise (\d\d\.\d+): ", cell.source))
    }


def nbgrader_metadata(cell: NotebookNode, points: dict[str, int]) -> dict[str, Any]:
    """What nbgrader wants to know: an answer may be edited, a check is locked and gives points."""
    number, graded = cell.metadata["exercise"], cell.metadata["role"] == "check"
    return {
        "schema_version": 3, "grade_id": f"{cell.metadata['role']}-{number.replace('.', '-')}",
        "grade": graded, "locked": graded, "solution": not graded, "task": False,
        **({"points": points.get(number, 0)} if graded else {}),
    }  # fmt: skip


def exercise_problems(path: Path) -> list[str]:
    """What is missing or misplaced, each line naming the exercise and what to do."""
    try:
        setup_of(path)
        found = exercises_of(path)
    except ValueError as error:
        return [str(error)]
    out = [] if 3 <= len(found) <= 6 else [f"{path.stem}: {len(found)} exercises, expected 3 to 6"]
    for number, exercise in found.items():
        where = f"{path.stem}: exercise {number}"
        if not re.search(FACTS, exercise.text):
            out.append(f"{where} needs a line '*Difficulty 2 of 5 · 10 minutes · 2 points*'")
        if exercise.text.count("<details><summary>Hint") < 2:
            out.append(f"{where} has fewer than two hints")
        missing = {"stub", "check", "solution", "hidden"} - set(exercise.code)
        if missing:
            out.append(f"{where} has no {' and no '.join(sorted(missing))}")
            continue
        if not exercise.code["solution"].startswith(_head(exercise)):
            out.append(f"{where}: the solution must begin with the stub's lines")
        if len(exercise.wrong) < WRONG_ANSWERS:
            out.append(f"{where} ships {len(exercise.wrong)} wrong answers, expected at least "
                       f"{WRONG_ANSWERS}")  # fmt: skip
    return out


def _head(exercise: Exercise) -> str:
    """The stub up to its `raise NotImplementedError`: signature and docstring."""
    return exercise.code["stub"].partition("    raise NotImplementedError")[0]


def body(exercise: Exercise) -> str:
    """What the solution has instead of the stub's `raise NotImplementedError`."""
    return exercise.code["solution"].removeprefix(_head(exercise))


def check_name(number: str) -> str:
    """The function that a check cell defines."""
    return f"check_{number.replace('.', '_')}"


def hidden_code(number: str, exercise: Exercise) -> str:
    """The visible check without its leniency towards no answer, then the hidden asserts."""
    answer = re.match(r"def (\w+)\(", exercise.code["stub"])
    assert answer is not None
    return f"{check_name(number)}({answer[1]})\n{exercise.code['hidden']}"


def solved(path: Path) -> NotebookNode:
    """Setup, solutions, checks and hidden asserts: a notebook that must run without an error."""
    cells = [new_code_cell(setup_of(path))]
    for number, exercise in exercises_of(path).items():
        for source in (exercise.code["solution"], exercise.code["check"],
                       hidden_code(number, exercise)):  # fmt: skip
            cells.append(new_code_cell(source))
    return new_notebook(cells=cells)


def problem_set(path: Path) -> NotebookNode:
    """The exercises as nbgrader's source notebook: solutions and hidden tests between its marks.

    `nbgrader generate_assignment` takes both out, and what is left is the chapter's stubs.
    """
    title = read_cells(path).cells[0].source.split("\n")[0]
    cells = [
        new_markdown_cell(f"{title}: exercises\n\nRead the chapter first: `{path.stem}.ipynb`."),
        new_code_cell(setup_of(path)),
    ]
    for number, exercise in exercises_of(path).items():
        points = {number: exercise.points}
        answer = NotebookNode(metadata={"exercise": number, "role": "stub"})
        check = NotebookNode(metadata={"exercise": number, "role": "check"})
        cells += [
            new_markdown_cell(exercise.text),
            new_code_cell(
                f"{_head(exercise)}    ### BEGIN SOLUTION\n{body(exercise)}\n    ### END SOLUTION",
                metadata={"nbgrader": nbgrader_metadata(answer, points)},
            ),
            new_code_cell(
                f"{exercise.code['check']}\n\n### BEGIN HIDDEN TESTS\n"
                f"{hidden_code(number, exercise)}\n### END HIDDEN TESTS",
                metadata={"nbgrader": nbgrader_metadata(check, points)},
            ),
        ]
    nb = new_notebook(cells=cells)
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.validate(nb)
    return nb
