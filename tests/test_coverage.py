"""The coverage of equations: each way to leave one unchecked is found and named."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from minigpt.cli import run
from minigpt.coverage import coverage_table, find_chapters, problems, read_chapter

HEAD = """# 99 · A title

## Question

Is one and one
two?

- **Read before:** nothing
- **Minutes:** 1 to read"""
EQUATIONS = "$$ a = b \\tag{99.1} $$\n\n$$ b = c \\tag{99.2} $$"
CODE = 'check("sum", abs(a - b), at_most=1e-12)\ncheck("effect", a, at_least=0.5)'
PRINTED = "check sum: 2e-16 <= 1e-12\ncheck effect: 0.7 >= 0.5\n"
TABLE = """## What was checked

| equation or claim | check | bound |
|---|---|---|
| (99.1), (99.2) a sum | `sum` | <= 1e-12 |
| an effect | `effect` | >= 0.5 |"""


def write(folder, head=HEAD, equations=EQUATIONS, code=CODE, printed=PRINTED, table=TABLE):
    cell = new_code_cell(code, outputs=[new_output("stream", text=printed)] if printed else [])
    cells = [new_markdown_cell(head), new_markdown_cell(equations), cell, new_markdown_cell(table)]
    nbformat.write(new_notebook(cells=cells), folder / "99_tiny.ipynb")
    return folder / "99_tiny.ipynb"


def test_a_good_chapter_has_no_problems(tmp_path):
    chapter = read_chapter(write(tmp_path))
    assert problems(chapter) == []
    assert (chapter.number, chapter.title) == ("99", "A title")
    assert chapter.question == "Is one and one two?"
    assert chapter.facts == {"Read before": "nothing", "Minutes": "1 to read"}
    assert chapter.tags == ["99.1", "99.2"]
    assert coverage_table([chapter]).splitlines()[1].split() == [
        "99_tiny", "2", "2", "2.0e-16", "1e-12", "2", "2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"equations": EQUATIONS + "\n$$ c = d \\tag{99.3} $$"}, r"equation \(99.3\) has no row"),
        ({"equations": EQUATIONS.replace("99.2", "99.4")}, r"tags must count .* \\tag\{99.4\}"),
        ({"equations": EQUATIONS.replace("99.2", "98.2")}, r"tags must count .* \\tag\{98.2\}"),
        ({"table": TABLE.replace("99.2", "99.7")}, r"names \(99.7\), which tags no equation"),
        ({"table": TABLE.replace("`sum`", "`product`")}, "no cell has the check 'product'"),
        ({"table": TABLE.replace("| <= 1e-12 |", "| <= 1e-13 |")}, "held to <= 1e-12, not to <="),
        ({"table": TABLE.replace("| <= 1e-12 |", "| >= 1e-12 |")}, "held to <= 1e-12, not to >="),
        ({"table": TABLE.replace("<= 1e-12", "tiny")}, r"equation \(99.1\) has no row"),
        ({"table": TABLE.replace("an effect |", "(99.2) |").replace(", (99.2)", "")},
         r"equation \(99.2\) has no row with an error"),
        ({"table": "\n".join(TABLE.splitlines()[:-1])}, "check 'effect' has no row"),
        ({"printed": PRINTED.splitlines()[0] + "\n"}, "check 'effect' has not run"),
        ({"printed": ""}, "check 'sum' has not run"),
        ({"printed": PRINTED.replace("2e-16", "2e-11")}, "'sum' measured 2e-11, not <= 1e-12"),
        ({"printed": PRINTED.replace("0.7", "0.4")}, "'effect' measured 0.4, not >= 0.5"),
        ({"printed": PRINTED.replace("2e-16", "nan")}, "'sum' measured nan"),
        ({"code": CODE.replace("abs(a - b)", "0.0")}, "'sum' measures a number that was typed in"),
        ({"code": CODE.replace('"effect"', '"sum"')}, "two checks share a name"),
    ],
)  # fmt: skip
def test_each_gap_is_named(tmp_path, change, message):
    found = problems(read_chapter(write(tmp_path, **change)))
    assert any(problem.startswith("99_tiny: ") for problem in found)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(found))


def test_a_check_of_numpy_alone_is_left_out_on_other_backends_and_nowhere_else(tmp_path):
    printed = PRINTED.splitlines()[0] + "\ncheck effect: not run: the backend is strict\n"
    chapter = read_chapter(write(tmp_path, printed=printed))
    assert problems(chapter, on_numpy=False) == []
    assert problems(chapter) == ["99_tiny: check 'effect' has not run: build the chapter again"]
    assert coverage_table([chapter]).split()[-2:] == ["2", "1"]  # of two, one has passed
    silent = read_chapter(write(tmp_path, printed=PRINTED.splitlines()[0] + "\n"))
    assert problems(silent, on_numpy=False) == problems(chapter)


@pytest.mark.parametrize("content", ["not json", "{}", '{"cells": []}'])
def test_a_file_that_is_no_chapter_is_named(tmp_path, content):
    (tmp_path / "99_tiny.ipynb").write_text(content)
    with pytest.raises(ValueError, match="99_tiny.ipynb"):
        read_chapter(tmp_path / "99_tiny.ipynb")


def test_the_command_prints_the_table(tmp_path, capsys):
    write(tmp_path)
    assert run(["chapters", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split()[:4] == ["chapter", "equations", "checked", "worst"]


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    write(tmp_path, printed="")
    with pytest.raises(ValueError, match="check 'sum' has not run: build the chapter again"):
        run(["chapters", "--folder", str(tmp_path)])
    assert "99_tiny" in capsys.readouterr().out


def test_no_chapters_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no chapters in"):
        find_chapters(tmp_path)
