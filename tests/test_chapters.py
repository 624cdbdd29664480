"""The chapters as they lie in the repository, and the machine that builds and judges them."""

import csv
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest

from minigpt.cli import run as command
from minigpt.coverage import read_chapter
from tools import chapters, exercises
from tools.chapters import nbformat  # imported the quick way

ROOT = Path(__file__).parent.parent
SOURCES = chapters.sources()
NUMBERS = [path.name[:2] for path in SOURCES]
EXERCISES = [
    pytest.param(path, number, id=number)
    for path in SOURCES
    for number in exercises.exercises_of(path)
]
WRONG = [
    pytest.param(path, number, why, id=f"{number}: {why}")
    for path in SOURCES
    for number, exercise in exercises.exercises_of(path).items()
    for why in exercise.wrong
]


# --- the chapters ---


def test_the_first_four_chapters_are_there():
    assert {"03", "07", "10", "11"} <= set(NUMBERS)


@pytest.mark.parametrize("path", SOURCES, ids=NUMBERS)
def test_a_chapter_is_in_order(path):
    assert chapters.chapter_problems(path) == []


def test_figures_and_contents_are_in_order():
    assert chapters.folder_problems() == []


@pytest.mark.parametrize("path", SOURCES, ids=NUMBERS)
def test_a_chapter_claims_enough_and_says_what_it_left_out(path):
    chapter = read_chapter(path.with_suffix(".ipynb"))
    assert len(chapter.tags) >= 12
    assert {"Read before", "Package file", "Minutes", "Runs in"} <= set(chapter.facts)
    assert "**Not checked:**" in path.read_text("utf-8")
    files = re.findall(r"`(minigpt/\S+\.py)`", chapter.facts["Package file"])
    assert files and all((ROOT / file).exists() for file in files)


def test_every_equation_is_checked(capsys):
    assert command(["chapters"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == len(SOURCES)
    for line in lines:
        _, equations, checked, _, _, checks, passed = line.split()
        assert equations == checked and checks == passed


# --- the exercises ---


def execute(*sources):
    """Run cells in a fresh namespace. A warning is no rejection, so warnings are off."""
    names: dict = {}
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("ignore")
        for source in sources:
            exec(compile(source, "<cell>", "exec"), names)
    return names


def parts(path, number):
    exercise = exercises.exercises_of(path)[number]
    return exercises.setup_of(path), exercise, exercises.hidden_code(number, exercise)


@pytest.mark.parametrize(("path", "number"), EXERCISES)
def test_the_solution_passes(path, number, capsys):
    setup, exercise, hidden = parts(path, number)
    execute(setup, exercise.code["solution"], exercise.code["check"], hidden)
    assert capsys.readouterr().out.endswith(f"{exercises.check_name(number)}: passed\n")


@pytest.mark.parametrize(("path", "number"), EXERCISES)
def test_no_answer_is_neither_an_error_nor_a_pass(path, number, capsys):
    setup, exercise, hidden = parts(path, number)
    execute(setup, exercise.code["stub"], exercise.code["check"])
    assert capsys.readouterr().out.endswith("not attempted yet\n")
    with pytest.raises(NotImplementedError):
        execute(setup, exercise.code["stub"], exercise.code["check"], hidden)


@pytest.mark.parametrize(("path", "number", "why"), WRONG)
def test_a_wrong_answer_is_rejected(path, number, why):
    setup, exercise, hidden = parts(path, number)
    with pytest.raises((AssertionError, ValueError, ArithmeticError)):
        execute(setup, exercise.wrong[why], exercise.code["check"], hidden)


NBGRADER = """
import ast, runpy, sys

for argv in ast.literal_eval(sys.argv[1]):
    sys.argv = ["nbgrader", *argv]
    try:
        runpy.run_module("nbgrader", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code:
            raise
    sys.modules["nbgrader.apps"].NbGraderApp.clear_instance()
"""


def nbgrader(course, *commands):
    """Run nbgrader's commands in a course, one after the other in one process.

    This environment's programs are on the path. As in tools/chapters.py, 3 seconds are saved in
    each process: a module that cannot be imported stands before the slow one.
    """
    quick = course / "quick"
    quick.mkdir(exist_ok=True)
    (quick / "rfc3987_syntax.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{quick}",
                   "MINIGPT_FIGURES": str(course / "nowhere")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", NBGRADER, repr(commands)],
        cwd=course, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course with the first chapter's problem set, handed in three times and graded."""
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: pip install nbgrader")
    course, path = tmp_path_factory.mktemp("nbgrader") / "course", SOURCES[0]
    assert chapters.assign(course) == 0
    nbgrader(course, ["generate_assignment", path.stem, "--create"])
    released = (course / "release" / path.stem / f"{path.stem}.ipynb").read_text("utf-8")
    found = exercises.exercises_of(path).items()
    answers = {
        "right": {number: exercise.code["solution"] for number, exercise in found},
        "wrong": {number: next(iter(exercise.wrong.values())) for number, exercise in found},
        "empty": {},
    }
    for student, given in answers.items():
        nb = nbformat.reads(released, 4)
        for cell in nb.cells:
            grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
            number = grade_id.removeprefix("stub-").replace("-", ".")
            cell.source = given.get(number, cell.source)
        place = course / "submitted" / student / path.stem / f"{path.stem}.ipynb"
        place.parent.mkdir(parents=True)
        nbformat.write(nb, place)
    nbgrader(
        course, ["autograde", path.stem, "--create"], ["generate_feedback", path.stem], ["export"]
    )
    return course


def test_students_get_stubs_and_no_hidden_tests(course):
    name = SOURCES[0].stem
    nb = nbformat.read(course / "release" / name / f"{name}.ipynb", 4)
    code = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    text = "\n".join(code)
    assert "SOLUTION" not in text and "HIDDEN" not in text
    for number, exercise in exercises.exercises_of(SOURCES[0]).items():
        assert any(exercise.code["check"].strip() == source.strip() for source in code), number
        assert exercise.code["hidden"].strip() not in text, number
        assert exercises.body(exercise).strip() not in text, number


def test_right_answers_get_all_points_wrong_and_empty_ones_none(course):
    with (course / "grades.csv").open(encoding="utf-8") as file:
        grades = {row["student_id"]: row for row in csv.DictReader(file)}
    full = sum(exercise.points for exercise in exercises.exercises_of(SOURCES[0]).values())
    assert full > 0
    assert {student: float(row["score"]) for student, row in grades.items()} == {
        "right": full, "wrong": 0, "empty": 0,
    }  # fmt: skip
    for student in grades:
        feedback = course / "feedback" / student / SOURCES[0].stem / f"{SOURCES[0].stem}.html"
        assert "Score" in feedback.read_text("utf-8")


# --- the machine ---

TINY = """# %% [markdown]
# # 99 · Tiny
#
# ## Question
#
# Is one one?
#
# - **Minutes:** 1 to read

# %% role="setup"
import matplotlib.pyplot as plt

from minigpt.drawing import save_figure
from minigpt.lab import attempt, check

# %% [markdown]
# ## Intuition
# ## Derivation
#
# $$ 1 = 1 \\tag{99.1} $$

# %%
one = 1.0
check("one", abs(one - 1), at_most=0.001)
figure, axes = plt.subplots()
axes.plot([one, 2])
save_figure(figure, "99_tiny.svg")
plt.show()

# %% [markdown]
# ## Code
# ## Gradient check
# ## Experiment
# ## What others get wrong
# ## Exercises
"""
TINY_EXERCISE = '''
# %% [markdown]
# ### Exercise 99.{k}: Double
#
# *Difficulty 1 of 5 · 1 minutes · 2 points*
#
# <details><summary>Hint 1</summary> Add. </details>
# <details><summary>Hint 2</summary> Twice. </details>

# %% exercise="99.{k}" role="stub"
def double(x):
    """x -> 2x."""
    raise NotImplementedError

# %% exercise="99.{k}" role="check"
def check_99_{k}(double):
    assert double(2) == 4

attempt(check_99_{k}, double)
'''
TINY_END = """
# %% [markdown]
# ## What was checked
#
# | equation or claim | check | bound |
# |---|---|---|
# | (99.1) one | `one` | <= 0.001 |
"""
TINY_SOLUTION = '''
# %% exercise="99.{k}" role="solution"
def double(x):
    """x -> 2x."""
    return x + x

# %% exercise="99.{k}" role="hidden"
assert double(3) == 6

# %% exercise="99.{k}" role="wrong" why="squares"
def double(x):
    return x * x

# %% exercise="99.{k}" role="wrong" why="forgets to return"
def double(x):
    x + x
'''


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A tiny chapter, built once by the real command."""
    root = tmp_path_factory.mktemp("repository")
    (root / "chapters" / "solutions").mkdir(parents=True)
    (root / "figures").mkdir()
    tiny = TINY + "".join(TINY_EXERCISE.format(k=k) for k in (1, 2, 3)) + TINY_END
    (root / "chapters" / "99_tiny.py").write_text(tiny)
    solutions = "".join(TINY_SOLUTION.format(k=k) for k in (1, 2, 3))
    (root / "chapters" / "solutions" / "99_tiny.py").write_text(solutions)
    for folder in ("minigpt", "tools"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    done = machine(root, "build")
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def machine(root, *argv):
    environment = {k: v for k, v in os.environ.items() if k != "MINIGPT_FIGURES"}
    return subprocess.run(
        [sys.executable, root / "tools" / "chapters.py", *argv],
        capture_output=True, text=True, env=environment, cwd=root,
    )  # fmt: skip


@pytest.fixture
def tiny(built, tmp_path, monkeypatch):
    """A copy of the built repository, with the machine looking at it."""
    root = tmp_path / "copy"
    shutil.copytree(built, root)
    monkeypatch.setattr(chapters, "CHAPTERS", root / "chapters")
    monkeypatch.setattr(chapters, "FIGURES", root / "figures")
    return root / "chapters" / "99_tiny.py"


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def everything_wrong_with(path):
    return "\n".join(chapters.chapter_problems(path) + chapters.folder_problems())


def test_what_was_built_is_in_order(tiny):
    assert everything_wrong_with(tiny) == ""
    nb = nbformat.read(tiny.with_suffix(".ipynb"), 4)
    images = [out for cell in nb.cells for out in cell.get("outputs", [])
              if "image/png" in out.get("data", {})]  # fmt: skip
    assert len(images) == 1, "the figure is visible in the notebook"
    assert "99 Tiny" in (tiny.parent / "README.md").read_text("utf-8")
    graded = [cell.metadata.nbgrader for cell in nb.cells if "nbgrader" in cell.metadata]
    assert [(cell.grade_id, cell.get("points")) for cell in graded][:2] == [
        ("stub-99-1", None), ("check-99-1", 2)]  # fmt: skip


def test_building_again_gives_the_same_bytes(tiny):
    root = tiny.parent.parent
    files = [tiny.with_suffix(".ipynb"), root / "figures" / "99_tiny.svg",
             tiny.parent / "README.md"]  # fmt: skip
    before = [file.read_bytes() for file in files]
    assert machine(root, "build", "99").returncode == 0
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("one = 1.0", "one = 1.0001", "99_tiny.ipynb differs from 99_tiny.py"),
        ("# ## Intuition\n", "", "sections are"),
        ("one = 1.0", "import os\none = 1.0", "os has no place in a chapter"),
        ("one = 1.0", "%time one = 1.0", "not plain Python"),
        ('role="setup"', "", 'must be marked role="setup"'),
        ("Difficulty 1 of 5", "Difficulty 9 of 5", "99.1 needs a line"),
        ("<details><summary>Hint 2", "<details><summary>Hunt 2", "99.1 has fewer than two hints"),
        ('exercise="99.1" role="check"', "", "exercise 99.1 has no check"),
        ("### Exercise 99.1", "### Problem 99.1", "no heading '### Exercise 99.1: ...'"),
        ("    raise NotImplementedError", "    x = 1\n    raise NotImplementedError",
         "the solution must begin with the stub's lines"),
        ("99_tiny.svg", "99_other.svg", "figures/99_other.svg is missing: build the chapter"),
        ("99_tiny.svg", "99_other.svg", "figures/99_tiny.svg is written by no chapter"),
        ("99_tiny.svg", "98_tiny.svg", "98_tiny.svg must begin with 99_"),
    ],
)  # fmt: skip
def test_a_fault_in_the_source_is_named(tiny, old, new, message):
    edit(tiny, old, new)
    assert message in everything_wrong_with(tiny)


def test_an_edited_output_is_found(tiny):
    edit(tiny.with_suffix(".ipynb"), "check one: 0 <= 0.001", "check one: 1e-9 <= 0.001")
    assert "outputs were changed by hand" in everything_wrong_with(tiny)


def test_an_edited_notebook_is_found(tiny):
    edit(tiny.with_suffix(".ipynb"), "one = 1.0", "one = 1.00")
    assert "edit the .py only" in everything_wrong_with(tiny)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('exercise="99.2" role="wrong" why="squares"', "", "99.2 ships 1 wrong answers"),
        ('exercise="99.2" role="hidden"', "", "99.2 has no hidden"),
        ('exercise="99.2" role="hidden"', 'exercise="99.9" role="hidden"', "has no exercise 99.9"),
    ],
)
def test_a_fault_in_the_solutions_is_named(tiny, old, new, message):
    edit(exercises.solutions_path(tiny), old, new)
    assert message in everything_wrong_with(tiny)


def test_missing_and_orphaned_files_are_named(tiny):
    exercises.solutions_path(tiny).unlink()
    assert "solutions/99_tiny.py is missing" in everything_wrong_with(tiny)
    tiny.with_suffix(".ipynb").unlink()
    assert "not built: python tools/chapters.py build 99" in everything_wrong_with(tiny)
    (tiny.parent / "98_old.ipynb").write_text("{}")
    (tiny.parent.parent / "figures" / "97_old.svg").write_text("")
    found = everything_wrong_with(tiny)
    assert "98_old.ipynb has no 98_old.py" in found
    assert "figures/97_old.svg is written by no chapter" in found


def test_two_chapters_may_not_write_one_figure(tiny):
    shutil.copy(tiny, tiny.with_name("98_twin.py"))
    assert "figures/99_tiny.svg is written by 98_twin and 99_tiny" in everything_wrong_with(tiny)


def test_a_contents_page_out_of_date_is_found(tiny):
    (tiny.parent / "README.md").write_text("old")
    assert "README.md is out of date" in everything_wrong_with(tiny)


FAULTS = {
    91: ("chapters", "one = 1.0", "one = 1.1",
         "91_tiny: FAILED: CheckFailed: check 'one': 0.1 is not <="),
    92: ("chapters", "one = 1.0", "import warnings\nwarnings.warn('odd')\none = 1.0",
         "92_tiny: a cell wrote an error or a warning"),
    93: ("chapters", "one = 1.0", "import not_there\none = 1.0",
         "93_tiny: FAILED: ModuleNotFoundError: No module named 'not_there': "
         "pip install -r requirements.txt"),
    94: ("chapters", "{94.1}", "{94.2}", "94_tiny: tags must count"),
    95: ("chapters/solutions", "double(3) == 6", "double(3) == 7",
         "95_tiny solutions: FAILED: AssertionError"),
}  # fmt: skip


@pytest.fixture(scope="module")
def faulty(built, tmp_path_factory):
    """A run of five tiny chapters without figures, each with a fault of its own."""
    root = tmp_path_factory.mktemp("faulty") / "repository"
    shutil.copytree(built, root)
    for folder in (root / "chapters", root / "chapters" / "solutions"):
        lines = (folder / "99_tiny.py").read_text("utf-8").splitlines(keepends=True)
        text = "".join(line for line in lines if not re.search("plt|figure|axes", line))
        for number in FAULTS:
            (folder / f"{number}_tiny.py").write_text(text.replace("99", str(number)), "utf-8")
        (folder / "99_tiny.py").unlink()
    for number, (folder, old, new, _) in FAULTS.items():
        edit(root / folder / f"{number}_tiny.py", old, new)
    return machine(root, "run")


@pytest.mark.parametrize("number", FAULTS)
def test_run_fails_by_name(faulty, number):
    *_, message = FAULTS[number]
    assert message in faulty.stdout


def test_each_fault_counts_as_a_failure_and_nothing_else_does(faulty):
    assert faulty.returncode == 1
    assert re.search(r"^10 notebooks in \d+ s, 5 failed\n\Z", faulty.stdout, re.MULTILINE)


def test_run_executes_solutions_and_leaves_figures_alone(tiny):
    root = tiny.parent.parent
    (root / "figures" / "99_tiny.svg").unlink()
    done = machine(root, "run", "99")
    assert done.returncode == 0 and "99_tiny solutions" in done.stdout
    assert not (root / "figures" / "99_tiny.svg").exists()


def test_an_unknown_chapter_is_one_line_and_exit_code_2(tiny):
    done = machine(tiny.parent.parent, "build", "42")
    assert (done.returncode, done.stderr) == (2, "chapters: no chapter 42: there are 99\n")


def test_a_sign_in_layer_norm_fails_chapter_11_by_name(tmp_path, monkeypatch):
    """A wrong derivative in the package must not survive the chapter that derives it."""
    for folder in ("minigpt", "tools", "chapters"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    edit(tmp_path / "minigpt" / "functional.py", "dx -= mean\n", "dx += mean\n")
    monkeypatch.setenv("MINIGPT_BACKEND", "numpy")  # elsewhere a kernel has a formula of its own
    done = machine(tmp_path, "run", "11")
    assert done.returncode == 1
    assert "11_layer_norm: FAILED: CheckFailed: check 'layer_norm_vjp'" in done.stdout
