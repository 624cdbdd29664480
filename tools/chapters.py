"""Build, check and run the chapters, and make graded problem sets of their exercises.

    python tools/chapters.py build 03        write and execute chapters/03_*.ipynb
    python tools/chapters.py check           are the notebooks what their sources say?
    python tools/chapters.py run             execute everything in fresh kernels
    python tools/chapters.py assign course   an nbgrader course: one problem set a chapter

A chapter is written as chapters/NN_name.py. The notebook beside it is built, never edited.
"""

import argparse
import ast
import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# jsonschema would import this for addresses in other scripts: 3 seconds, and notebooks have none.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
try:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from nbformat import NotebookNode
except ModuleNotFoundError as error:
    sys.exit(f"chapters: {error}: pip install -r requirements.txt")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script sees its own folder only

from minigpt.backend import on_host  # noqa: E402
from minigpt.coverage import problems, read_chapter  # noqa: E402
from tools import exercises  # noqa: E402
from tools.contents import contents  # noqa: E402

CHAPTERS, FIGURES = ROOT / "chapters", ROOT / "figures"
LARGEST = 600_000  # bytes of a notebook
SECTIONS = (
    "Question", "Intuition", "Derivation", "Code", "Gradient check", "Experiment",
    "What others get wrong", "Exercises", "What was checked",
)  # fmt: skip
AT_ONCE = 2  # kernels, each with one BLAS thread


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/chapters.py", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, text in (
        ("build", "write and execute notebooks"), ("check", "compare notebooks with their sources"),
        ("run", "execute chapters and solutions in fresh kernels"),
    ):  # fmt: skip
        sub = commands.add_parser(name, help=text)
        sub.add_argument("numbers", nargs="*", metavar="NN", help="chapters (default: all)")
    sub = commands.add_parser("assign", help="write an nbgrader course of problem sets")
    sub.add_argument("folder", type=Path, help="folder of the course, made if it is missing")
    args = parser.parse_args(argv)
    try:
        if args.command == "assign":
            return assign(args.folder)
        return {"build": build, "check": check, "run": run}[args.command](sources(args.numbers))
    except ValueError as error:
        print(f"chapters: {error}", file=sys.stderr)
        return 2


def sources(numbers: Sequence[str] = ()) -> list[Path]:
    """The chapters' sources, all or those numbered. Raises: ValueError for an unknown number."""
    found = sorted(CHAPTERS.glob("[0-9][0-9]_*.py"))
    known = {path.name[:2]: path for path in found}
    for number in numbers:
        if number not in known:
            raise ValueError(f"no chapter {number}: there are {', '.join(known)}")
    return [known[number] for number in numbers] if numbers else found


# --- commands ---


def build(paths: list[Path]) -> int:
    """Execute, and write each notebook whose every cell ran."""
    notebooks = [(path.stem, notebook(path)) for path in paths]
    failed = execute(notebooks)
    for path, (name, nb) in zip(paths, notebooks, strict=True):
        if name not in failed:
            nb.metadata["minigpt"]["outputs"] = _outputs_hash(nb)
            nbformat.write(nb, path.with_suffix(".ipynb"))
    (CHAPTERS / "README.md").write_text(contents(sources()), "utf-8")
    return 1 if failed else 0


def check(paths: list[Path]) -> int:
    """Print everything that is wrong with the chapters as they lie there."""
    found = [problem for path in paths for problem in chapter_problems(path)]
    found += folder_problems()
    print("\n".join(found) or f"{len(paths)} chapters are in order")
    return 1 if found else 0


def run(paths: list[Path]) -> int:
    """Execute chapters and solutions in fresh kernels; figures go to a folder that is deleted."""
    started = time.perf_counter()
    notebooks = [(path.stem, notebook(path)) for path in paths]
    notebooks += [(f"{path.stem} solutions", exercises.solved(path)) for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINIGPT_FIGURES"] = folder
        failed = execute(notebooks)
        for name, nb in notebooks[: len(paths)]:
            if name in failed:
                continue
            copy = Path(folder, f"{name}.ipynb")
            nbformat.write(nb, copy)
            for problem in [*problems(read_chapter(copy), on_host), *_noise(name, nb)]:
                print(problem)
                failed.add(name)
    print(f"{len(notebooks)} notebooks in {time.perf_counter() - started:.0f} s, "
          f"{len(failed)} failed")  # fmt: skip
    return 1 if failed else 0


def assign(folder: Path) -> int:
    """Write source/NAME/NAME.ipynb for each chapter, with solutions and hidden tests marked."""
    folder.mkdir(parents=True, exist_ok=True)
    config = 'c = get_config()\nc.CourseDirectory.course_id = "minigpt"\n'
    (folder / "nbgrader_config.py").write_text(config, "utf-8")
    for path in sources():
        place = folder / "source" / path.stem / f"{path.stem}.ipynb"
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(exercises.problem_set(path), place)
    print(f"In {folder}: nbgrader generate_assignment {sources()[0].stem} --create")
    return 0


# --- notebooks ---


def notebook(path: Path) -> NotebookNode:
    """The notebook of a source, not executed. Equal sources give equal notebooks."""
    nb = exercises.read_cells(path)
    points = exercises.points_of(nb)
    for cell in nb.cells:
        if cell.metadata.get("role") in ("stub", "check"):
            cell.metadata["nbgrader"] = exercises.nbgrader_metadata(cell, points)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    nb.metadata = NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
        minigpt={"source": digest},
    )
    return nb


def execute(notebooks: list[tuple[str, NotebookNode]]) -> set[str]:
    """Execute in fresh kernels, AT_ONCE at a time; print time or failure. Returns: what failed."""
    import matplotlib.font_manager  # noqa: F401 - builds its cache here, or a kernel says that it does

    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    failed: set[str] = set()

    async def one(name: str, nb: NotebookNode, gate: asyncio.Semaphore) -> None:
        async with gate:
            started = time.perf_counter()
            resources = {"metadata": {"path": str(CHAPTERS)}}
            client = NotebookClient(nb, timeout=600, resources=resources, record_timing=False)
            try:
                # What cells write to stderr comes as output; the rest is the kernel's own talk.
                await client.async_execute(stderr=subprocess.DEVNULL)
            except (CellExecutionError, DeadKernelError) as error:
                failed.add(name)
                kind, said = getattr(error, "ename", "kernel died"), getattr(error, "evalue", error)
                hint = ": pip install -r requirements.txt" * (kind == "ModuleNotFoundError")
                print(f"{name}: FAILED: {kind}: {said}{hint}")
                return
            finally:
                nb.metadata.language_info = {"name": "python", "file_extension": ".py",
                                             "mimetype": "text/x-python"}  # fmt: skip
            _join_streams(nb)
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)

    async def everything() -> None:
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(one(name, nb, gate) for name, nb in notebooks))

    asyncio.run(everything())
    return failed


def _join_streams(nb: NotebookNode) -> None:
    """One output for consecutive prints: how a kernel cuts its output into pieces is chance."""
    for cell in nb.cells:
        joined: list[NotebookNode] = []
        for out in cell.get("outputs", []):
            last = joined[-1] if joined else None
            if last and out.output_type == "stream" == last.output_type and out.name == last.name:
                last.text += out.text
            else:
                joined.append(out)
        if cell.cell_type == "code":
            cell.outputs = joined


def _outputs_hash(nb: NotebookNode) -> str:
    outputs = [cell.get("outputs", []) for cell in nb.cells]
    return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()


# --- what can be wrong with a chapter ---


def chapter_problems(path: Path) -> list[str]:
    """Everything wrong with one chapter, each line naming the file and what to do."""
    name, built = path.stem, path.with_suffix(".ipynb")
    if not built.exists():
        return [f"{name}: not built: python tools/chapters.py build {name[:2]}"]
    saved, wanted = nbformat.read(built, as_version=4), notebook(path)
    again = f"python tools/chapters.py build {name[:2]}"
    found = []
    if _sources(saved) != _sources(wanted):
        found.append(f"{name}.ipynb differs from {name}.py: edit the .py only, then {again}")
    elif saved.metadata.get("minigpt", {}).get("outputs") != _outputs_hash(saved):
        found.append(f"{name}.ipynb: outputs were changed by hand: {again}")
    if built.stat().st_size > LARGEST:
        found.append(f"{name}.ipynb has {built.stat().st_size:,} bytes, more than {LARGEST:,}")
    found += _noise(name, saved) + _structure(name, wanted) + problems(read_chapter(built))
    return found + exercises.exercise_problems(path)


def _sources(nb: NotebookNode) -> list:
    return [(cell.cell_type, cell.id, cell.source, cell.metadata) for cell in nb.cells]


def _noise(name: str, nb: NotebookNode) -> list[str]:
    """Outputs that a reader should not have to see."""
    return [
        f"{name}: a cell wrote an error or a warning: {cell.source.splitlines()[0]!r}"
        for cell in nb.cells
        for out in cell.get("outputs", [])
        if out.output_type == "error" or out.get("name") == "stderr"
    ]


def _structure(name: str, nb: NotebookNode) -> list[str]:
    """The nine sections, and what chapters may import."""
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    headings = tuple(re.findall(r"^## (.+)$", prose, re.MULTILINE))
    found = []
    if headings != SECTIONS:
        found.append(f"{name}: sections are {headings}, expected {SECTIONS}")
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            found.append(f"{name}: not plain Python (magics are not allowed): {error.text!r}")
            continue
        found += [f"{name}: {word} has no place in a chapter" for word in _forbidden(tree)]
    return found


def _forbidden(tree: ast.AST) -> list[str]:
    """Modules of the network, of the system's paths, and other chapters."""
    imported = {
        dotted.split(".")[0]
        for node in ast.walk(tree)
        for dotted in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    banned = {"sys", "os", "subprocess", "urllib", "http", "socket", "requests", "pickle", ""}
    return sorted(imported & banned)


def folder_problems() -> list[str]:
    """Notebooks and figures that no source writes, and a table of contents that is out of date."""
    found = [
        f"{path.name} has no {path.stem}.py: delete it, or bring its source back"
        for path in sorted(CHAPTERS.glob("*.ipynb"))
        if not path.with_suffix(".py").exists()
    ]
    writers: dict[str, list[str]] = {}
    for path in sources():
        for figure in re.findall(r'save_figure\(\w+, "([^"]+)"\)', path.read_text("utf-8")):
            writers.setdefault(figure, []).append(path.stem)
    drawn = {path.name for path in FIGURES.glob("[0-9][0-9]_*.*")}
    for figure, names in sorted(writers.items()):
        if len(names) > 1:
            found.append(f"figures/{figure} is written by {' and '.join(names)}: rename one")
        if figure[:2] != names[0][:2]:
            found.append(f"{names[0]}: figure {figure} must begin with {names[0][:2]}_")
        if figure not in drawn:
            found.append(f"{names[0]}: figures/{figure} is missing: build the chapter")
    found += [f"figures/{figure} is written by no chapter: delete it, or save it in one"
              for figure in sorted(drawn - set(writers))]  # fmt: skip
    readme = CHAPTERS / "README.md"
    if not readme.exists() or readme.read_text("utf-8") != contents(sources()):
        found.append("chapters/README.md is out of date: python tools/chapters.py build")
    return found


if __name__ == "__main__":
    sys.exit(main())
