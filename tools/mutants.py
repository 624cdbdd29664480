"""Break the engine in a thousand small ways, and count how many the tests notice.

    python -m tools.mutants [FOLDER]

mutmut changes one operator, constant or name at a time and runs the tests that reach it. It leaves
decorated functions alone, so in a copy `@primitive` is written as a call below each function. The
copy stays in FOLDER (default: build/mutants), and a stopped run goes on where it was. About 30
minutes on one core. What the tests do not notice, and why, is in tests/MUTANTS.md.
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTATED = ("ops", "shapes", "functional", "attention", "positions", "nn", "optim", "schedules")
TESTS = ("ops", "gradcheck", "model", "tensor", "optim", "oracle", "positions",
         "schedules")  # fmt: skip
SLOW = ("test_every_entry_of_every_parameter", "test_leak_with_random_tokens", "live")
COPIED = ("minigpt", "tests")
NOTICED = ("killed", "timeout")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "mutants")
    folder = parser.parse_args().folder
    if importlib.util.find_spec("mutmut") is None:
        print("mutmut is not installed: pip install 'mutmut>=3.8,<4'", file=sys.stderr)
        return 2
    copied = folder / "copied"
    if not folder.exists():
        prepare(folder)
    elif not copied.exists() or copied.read_text("utf-8") != fingerprint():
        print(f"the files have changed since {folder} was made: delete it", file=sys.stderr)
        return 2
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    mutmut = [sys.executable, "-m", "mutmut"]
    run = subprocess.run([*mutmut, "run", "--max-children", "1"], cwd=folder, env=environment)
    results = subprocess.run(
        [*mutmut, "results", "--all", "true"], cwd=folder, capture_output=True, text=True
    ).stdout
    print(report(re.findall(r"^\s*(\S+): (.+)$", results, re.MULTILINE)))
    return run.returncode


def report(ends: list[tuple[str, str]]) -> str:
    """The mutants that no test noticed; then, for each file and for all, how many were."""
    lines = [f"{end}: {name}" for name, end in ends if end not in NOTICED]
    files: dict[str, Counter[str]] = {}
    for name, end in ends:
        for file in (name.split(".")[1], "all"):
            files.setdefault(file, Counter())[end] += 1
    for file in sorted(files, key=lambda file: (file == "all", file)):
        noticed, total = sum(files[file][end] for end in NOTICED), files[file].total()
        lines.append(f"{file}: {noticed} of {total} noticed, {100 * noticed / total:.1f} % "
                     f"({', '.join(f'{n} {end}' for end, n in files[file].items())})")  # fmt: skip
    return "\n".join(lines)


def fingerprint() -> str:
    """Of the files that are copied, and of this one."""
    files = [path for name in COPIED for path in sorted((ROOT / name).rglob("*.py"))]
    digest = hashlib.sha256()
    for path in (*files, Path(__file__)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def prepare(folder: Path) -> None:
    """Copy what the tests need, with primitives undecorated and mutmut's configuration."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in MUTATED:
        path = folder / "minigpt" / f"{name}.py"
        path.write_text(undecorated(path.read_text("utf-8")), "utf-8")
    selection = [f"tests/test_{name}.py" for name in TESTS]
    slow = ["-k", " and ".join(f"not {name}" for name in SLOW)]
    (folder / "pyproject.toml").write_text(
        (ROOT / "pyproject.toml").read_text("utf-8")
        + f"""
[tool.mutmut]
source_paths = ["minigpt/"]
only_mutate = {[f"minigpt/{name}.py" for name in MUTATED]}
pytest_add_cli_args_test_selection = {selection}
pytest_add_cli_args = {slow}
also_copy = ["tests"]
""",
        "utf-8",
    )
    (folder / "copied").write_text(fingerprint(), "utf-8")


def undecorated(source: str) -> str:
    """`@primitive def f` as `def f` with `f = primitive(f)` after its end."""
    out: list[str] = []
    name, lines = "", iter(source.split("\n"))
    for line in lines:
        if name and line and not line[0].isspace() and not line.startswith(")"):
            while out[-1] == "":
                out.pop()
            out += ["", f"{name} = primitive({name})", "", ""]
            name = ""
        if line == "@primitive":
            line = next(lines)
            name = line.partition("(")[0].removeprefix("def ")
        out.append(line)
    return "\n".join([*out, f"{name} = primitive({name})\n"] if name else out)


if __name__ == "__main__":
    sys.exit(main())
