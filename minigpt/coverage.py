"""Which equations of the chapters are checked, by what, and how well: read from the notebooks.

An equation claims something if it has a `\\tag{NN.k}`. The chapter's last section maps every tag to
a check; the check's printed line in the executed notebook says what was measured.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHAPTERS = Path(__file__).parent.parent / "chapters"
BOUND = r"(<=|>=) (-?[\d.]+(?:e[-+]?\d+)?)"


@dataclass(frozen=True)
class Row:
    """A line of "What was checked": the tags that it names, and the check that stands for them."""

    tags: tuple[str, ...]
    claim: str
    check: str
    sign: str  # "<=" for an error, ">=" for an effect
    bound: float


@dataclass(frozen=True)
class Check:
    """A call of check() in a code cell. measured: what the notebook's output says, None if not.

    left_out: the output says that the check does not run on this backend.
    """

    name: str
    computed: bool  # False where the value is typed in, so that it could not fail
    measured: float | None
    sign: str
    bound: float
    left_out: bool = False

    @property
    def holds(self) -> bool:
        if self.measured is None:
            return False
        return self.measured <= self.bound if self.sign == "<=" else self.measured >= self.bound


@dataclass(frozen=True)
class Chapter:
    """What one notebook claims and measured."""

    path: Path
    number: str
    title: str
    question: str
    facts: dict[str, str]  # "Read before", "Package file", "Minutes", "Runs in"
    tags: list[str]
    rows: list[Row]
    checks: list[Check]


def find_chapters(folder: Path = CHAPTERS) -> list[Path]:
    """The notebooks NN_name.ipynb, in order. Raises: ValueError if there are none."""
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise ValueError(f"no chapters in {folder}: run this in a clone of the repository")
    return found


def read_chapter(path: Path) -> Chapter:
    """Read an executed notebook. Raises: ValueError naming the file if it is no chapter."""
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path.name} is not a notebook: build it again ({error})") from error
    text = [(cell["cell_type"], "".join(cell["source"]), cell) for cell in cells]
    prose = "\n\n".join(source for kind, source, _ in text if kind == "markdown")
    head = re.match(r"# (\d\d) · (.+)\n+## Question\n+((?:.+\n)+)", prose)
    if head is None:
        raise ValueError(f"{path.name} must begin with '# NN · Title', '## Question', a question")
    facts = dict(re.findall(r"^- \*\*(.+?):\*\* (.+)$", prose, re.MULTILINE))
    code = [(source, _printed(cell)) for kind, source, cell in text if kind == "code"]
    return Chapter(
        path, head[1], head[2].strip(), " ".join(head[3].split()), facts,
        re.findall(r"\\tag\{([^}]*)\}", prose), list(_rows(prose)),
        [check for source, printed in code for check in _checks(source, printed)],
    )  # fmt: skip


def _printed(cell: dict) -> str:
    """All that a code cell printed."""
    return "".join("".join(out.get("text", "")) for out in cell.get("outputs", []))


def _rows(prose: str) -> Iterator[Row]:
    table = prose.partition("## What was checked")[2]
    pattern = rf"^\| (.+) \| `(\w+)` \| {BOUND} \|$"
    for claim, name, sign, bound in re.findall(pattern, table, re.MULTILINE):
        tags = tuple(re.findall(r"\((\d\d\.\d+)\)", claim))
        yield Row(tags, claim, name, sign, float(bound))


def _checks(source: str, printed: str) -> Iterator[Check]:
    """The calls of check("name", value, at_most=... or at_least=...) in a cell."""
    lines = {name: (float(value), sign, float(bound)) for name, value, sign, bound in re.findall(
        rf"^check (\w+): (\S+) {BOUND}$", printed, re.MULTILINE)}  # fmt: skip
    left_out = re.findall(r"^check (\w+): not run: ", printed, re.MULTILINE)
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check"):
            continue
        name = ast.literal_eval(node.args[0])
        (keyword,) = (k for k in node.keywords if k.arg in ("at_most", "at_least"))
        sign = "<=" if keyword.arg == "at_most" else ">="
        computed = any(isinstance(part, ast.Name) for part in ast.walk(node.args[1]))
        unsaid = (None, sign, ast.literal_eval(keyword.value))
        measured, said, bound = lines.get(name, unsaid)
        yield Check(name, computed, measured, said, bound, name in left_out)


def problems(chapter: Chapter, on_numpy: bool = True) -> list[str]:
    """What is wrong with a chapter's claims and checks, each naming the file and what to do.

    on_numpy: every check has to have run. On other backends, those of NumPy alone need not.
    """
    where = chapter.path.stem
    checks = {check.name: check for check in chapter.checks}
    wanted = [f"{chapter.number}.{k}" for k in range(1, len(chapter.tags) + 1)]
    found = []
    if chapter.tags != wanted:
        odd = next((tag for tag, want in zip(chapter.tags, wanted, strict=True) if tag != want), "")
        found.append(f"{where}: tags must count {chapter.number}.1, .2, ...: see \\tag{{{odd}}}")
    if len(checks) < len(chapter.checks):
        found.append(f"{where}: two checks share a name: give each its own")
    errors = {tag for row in chapter.rows if row.sign == "<=" for tag in row.tags}
    for tag in chapter.tags:
        if tag not in errors:
            found.append(f"{where}: equation ({tag}) has no row with an error in What was checked")
    for row in chapter.rows:
        found += [f"{where}: What was checked names ({tag}), which tags no equation"
                  for tag in row.tags if tag not in chapter.tags]  # fmt: skip
        check = checks.get(row.check)
        if check is None:
            found.append(f"{where}: no cell has the check {row.check!r} of What was checked")
        elif (check.sign, check.bound) != (row.sign, row.bound):
            found.append(f"{where}: {row.check!r} is held to {check.sign} {check.bound:g}, not to "
                         f"{row.sign} {row.bound:g} as its row says")  # fmt: skip
    listed = {row.check for row in chapter.rows}
    for check in chapter.checks:
        if check.name not in listed:
            found.append(f"{where}: check {check.name!r} has no row in What was checked")
        if not check.computed:
            found.append(f"{where}: check {check.name!r} measures a number that was typed in")
        if check.left_out and not on_numpy:
            continue
        if check.measured is None:
            found.append(f"{where}: check {check.name!r} has not run: build the chapter again")
        elif not check.holds:
            found.append(f"{where}: check {check.name!r} measured {check.measured:g}, "
                         f"not {check.sign} {check.bound:g}")  # fmt: skip
    return found


def coverage_table(chapters: list[Chapter]) -> str:
    """One line a chapter: tagged equations, how many are checked, the worst error, all checks.

    The worst error is the one that comes nearest to its bound.
    """
    head = ("chapter", "equations", "checked", "worst error", "bound", "checks", "passed")
    form = "{:32s}{:>10}{:>9}{:>13}{:>9}{:>8}{:>8}"
    lines = [form.format(*head)]
    for chapter in chapters:
        checks = {check.name: check for check in chapter.checks}
        rows = [row for row in chapter.rows if row.sign == "<=" and row.tags]
        held = [row for row in rows if row.check in checks and checks[row.check].holds]
        covered = {tag for row in held for tag in row.tags} & set(chapter.tags)
        used = [checks[row.check] for row in held]
        worst = max(
            used, key=lambda check: (check.measured or 0) / (check.bound or 1), default=None
        )
        error, bound = (f"{worst.measured:.1e}", f"{worst.bound:.0e}") if worst else ("-", "-")
        passed = sum(check.holds for check in checks.values())
        lines.append(form.format(chapter.path.stem, len(chapter.tags), len(covered), error, bound,
                                 len(checks), passed))  # fmt: skip
    return "\n".join(lines)
