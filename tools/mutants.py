"""Break the engine in a thousand small ways, and count how many the tests notice.

    python -m tools.mutants [FOLDER]

mutmut changes one operator, constant or name at a time and runs the tests that reach it. It leaves
decorated functions alone, so in a copy `@primitive` is written as a call below each function. The
copy stays in FOLDER (default: build/mutants), and a stopped run goes on where it was. About 20
minutes on one core. Needs `pip install "mutmut>=3.8,<4"`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTATED = ("ops", "shapes", "functional", "attention", "positions", "nn", "optim")
TESTS = ("ops", "gradcheck", "model", "tensor", "optim", "oracle", "positions")
SLOW = ("test_every_entry_of_every_parameter", "test_leak_with_random_tokens", "live")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "mutants")
    folder = parser.parse_args().folder
    if not folder.exists():
        prepare(folder)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    mutmut = [sys.executable, "-m", "mutmut"]
    run = subprocess.run([*mutmut, "run", "--max-children", "1"], cwd=folder, env=environment)
    results = subprocess.run(
        [*mutmut, "results", "--all", "true"], cwd=folder, capture_output=True, text=True
    ).stdout
    ends = re.findall(r"^\s*(\S+): (.+)$", results, re.MULTILINE)
    alive = [name for name, end in ends if end not in ("killed", "timeout")]
    print("\n".join(alive))
    print(f"{len(ends) - len(alive)} of {len(ends)} mutants noticed: "
          f"{100 * (1 - len(alive) / max(len(ends), 1)):.1f} %")  # fmt: skip
    return run.returncode


def prepare(folder: Path) -> None:
    """Copy what the tests need, with primitives undecorated and mutmut's configuration."""
    for name in ("minigpt", "tests"):
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
