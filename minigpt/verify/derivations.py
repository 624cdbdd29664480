"""Derivation files: mark what you derived, and have it judged in a process of its own.

    from minigpt.verify import derivation

    @derivation(of=layer_norm, x=("N", "C"), w=("C",), b=("C",))
    def layer_norm_vjp(g, x, w, b): ...

`python -m minigpt verify FILE` runs the file apart from everything else, under limits of time and
memory. That guards against slips, not against malice: the file may do all that its user may.
"""

import argparse
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from minigpt.verify.claims import Claim, Input
from minigpt.verify.page import as_page
from minigpt.verify.report import as_json, as_text

__all__ = ["Input", "derivation", "run_file"]  # all that a derivation file needs

FOUND: list[Claim] = []  # what is marked while a file runs, in its order
TEMPLATES = Path(__file__).parent / "templates"
START = ("import json, sys; job = json.loads(sys.argv[1]); sys.path[:] = job['path']; "
         "from minigpt.verify.isolated import main; main(job)")  # fmt: skip
GRACE = 0.5  # seconds beyond --seconds for the process to start


def derivation(*bare: Any, of: Any = None, kind: str = "vjp", **inputs: Any) -> Callable:
    """Mark the function below as a claim about `of`, and return it unchanged.

    inputs: each argument of `of` with its shape, ("N", "C"): letters are lengths that are drawn
    anew, numbers are fixed. Or an Input, for a domain or for integer ids.
    kind: vjp, gradient, jacobian, hessian, identity, optimum or bound (see claims.Claim).
    Raises: ValueError if a name is not an argument of `of`, or a shape is no tuple.
    """
    if bare or not callable(of):
        raise ValueError("mark a derivation with what it is of, and each argument's shape: "
                         '@derivation(of=f, x=("N", "C"))')  # fmt: skip
    specs = _in_order(of, {name: _input(name, spec) for name, spec in inputs.items()})

    def mark(said: Callable) -> Callable:
        FOUND.append(Claim(getattr(said, "__name__", "derivation"), kind, of, said, specs))
        return said

    return mark


def _input(name: str, spec: Any) -> Input:
    if isinstance(spec, Input):
        return spec
    if isinstance(spec, tuple | list) and all(isinstance(n, str | int) for n in spec):
        return Input(tuple(spec))
    hint = f': a tuple of one needs a comma, ("{spec}",)' if isinstance(spec, str) else ""
    raise ValueError(f"{name}={spec!r} is no shape; expected a tuple of letters and numbers, or "
                     f"an Input{hint}")  # fmt: skip


def _in_order(f: Callable, inputs: dict[str, Input]) -> dict[str, Input]:
    """The inputs in the order of f's arguments, which must be its first ones."""
    what = getattr(f, "__name__", "f")
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):  # some builtins do not say
        return inputs
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return inputs
    own = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = ", ".join(p.name for p in own)
    if unknown := [name for name in inputs if name not in [p.name for p in own]]:
        raise ValueError(f"{what} has no argument {', '.join(unknown)}: its arguments are {names}")
    needed = [p.name for i, p in enumerate(own)
              if p.default is p.empty or any(q.name in inputs for q in own[i + 1 :])]  # fmt: skip
    if missing := [name for name in needed if name not in inputs]:
        raise ValueError(f"give the shape of {', '.join(missing)} too: the arguments of {what} "
                         f"are {names}")  # fmt: skip
    return {p.name: inputs[p.name] for p in own if p.name in inputs}


# --- the process ------------------------------------------------------------------------------


def run_file(
    path: str | Path,
    *,
    seed: int = 0,
    seconds: float = 60.0,
    memory: float = 2048.0,
    details: bool = False,
) -> dict[str, Any]:
    """Judge a file's derivations in a process of its own; what was found, as JSON has it.

    seconds, memory: limits, the second in MiB. details: also what the report draws.
    Returns: file, error (of the file as a whole, or ""), notes, printed, claims; each claim has
    name, kind, where, status ("holds", "wrong", "not written", "error", "not reached"), error,
    rows, notes, diagnosis, printed.
    """
    path = Path(path)
    if not path.is_file():
        return _report(path, error=f"{path}: no such file")
    with tempfile.TemporaryDirectory(prefix="minigpt-") as folder:
        results, printed, trace = (Path(folder, name) for name in ("results", "printed", "trace"))
        results.touch()
        job = {"file": str(path.resolve()), "shown": path.name, "results": str(results),
               "trace": str(trace), "seed": seed, "seconds": seconds, "memory": memory,
               "details": details, "path": _import_path(), "started": time.time()}  # fmt: skip
        with open(printed, "wb") as out:
            ended = _run(job, out, path.resolve().parent)
        if trace.exists() and (at := _hanging(trace.read_text(), path.name)):
            ended = f"{ended} (it was at {at})"
        lines = results.read_text("utf-8").splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return _gathered(path, events, printed.read_bytes(), ended)


def _hanging(trace: str, shown: str) -> str:
    """The innermost line of the user's file in what faulthandler wrote."""
    found = re.search(rf'File "({re.escape(shown)}[^"]*)", line (\d+)', trace)
    return f"{found[1]}, line {found[2]}" if found else ""


def _import_path() -> list[str]:
    """Ours first, then where this process imports from, but not the folder it was started in."""
    here = {"", os.getcwd()}
    home = str(Path(__file__).parents[2])
    return [home, *(entry for entry in sys.path if entry not in here | {home})]


def _run(job: dict[str, Any], out: Any, folder: Path) -> str:
    """Run the job. Returns how it ended if not by itself, else ""."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    env |= {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL", "OMP")}
    # glibc keeps large blocks for the next array: half of a large function's time is page faults.
    env |= {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
    process = subprocess.Popen(
        [sys.executable, "-I", "-X", "utf8", "-c", START, json.dumps(job)],
        stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=folder,
        env=env, start_new_session=True,
    )  # fmt: skip
    try:
        code = process.wait(job["seconds"] + GRACE)
    except subprocess.TimeoutExpired:
        return f"was stopped after {job['seconds']:g} s: an infinite loop? --seconds allows more"
    finally:
        _kill(process)
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}: too much memory, or a crash in C code?"
    return f"ended itself with exit code {code}"


def _kill(process: subprocess.Popen) -> None:
    """End the process and what it has started."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _report(path: Path, **values: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"error": "", "notes": [], "printed": "", "claims": []}
    return {"file": str(path)} | empty | values


def _gathered(path: Path, events: list[dict], printed: bytes, ended: str) -> dict[str, Any]:
    """The report from the events of the process: file, a claim each, then done."""
    report = _report(path)
    waiting, begun = [], 0
    for event in events:
        kind = event.pop("event")
        if kind == "file":
            waiting, begun = event.pop("claims"), event.pop("printed")
            report |= event | {"printed": _text(printed[:begun])}
        elif kind == "claim":
            end = event["printed"]
            report["claims"].append(event | {"printed": _text(printed[begun:end])})
            waiting, begun = waiting[1:], end
        elif kind == "error":
            return report | event | {"printed": _text(printed)}
        else:
            return report
    at = f" at {waiting[0]['name']}" if waiting else ""
    report["error"] = f"{path}: the process{at} {ended}"
    empty: dict[str, Any] = {
        "status": "not reached",
        "error": "",
        "rows": [],
        "notes": [],
        "diagnosis": None,
    }
    report["claims"] += [claim | empty | {"printed": ""} for claim in waiting]
    if waiting:
        report["claims"][-len(waiting)] |= {"status": "error", "error": ended,
                                            "printed": _text(printed[begun:])}  # fmt: skip
    return report


def _text(printed: bytes, most: int = 2000) -> str:
    """What a file printed: a line that repeats once, and not more than `most` characters."""
    runs = groupby(printed.decode("utf-8", "replace").strip().splitlines())
    lines = [(line, len(list(run))) for line, run in runs]
    text = "\n".join(line if n == 1 else f"{line}  ({n} times)" for line, n in lines)
    return text if len(text) <= most else f"{text[:most]}\n... {len(text) - most:,} characters more"


def exit_code(report: dict[str, Any]) -> int:
    """0 if every derivation of a file holds, 1 if one does not, 2 if the file cannot be judged."""
    if report["error"] or any(claim.get("limit") for claim in report["claims"]):
        return 2
    return int(any(claim["status"] != "holds" for claim in report["claims"]))


# --- templates --------------------------------------------------------------------------------


def template_names() -> list[str]:
    """What `--template` can write."""
    return sorted(path.stem for path in TEMPLATES.glob("[a-z]*.py"))


def write_template(name: str) -> Path:
    """Write NAME_derivation.py into the current folder. Raises: ValueError if it is there."""
    if name not in template_names():
        raise ValueError(f"no template {name!r}: choose {', '.join(template_names())}")
    path = Path(f"{name}_derivation.py")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write((TEMPLATES / f"{name}.py").read_text("utf-8"))
    except FileExistsError as error:
        raise ValueError(f"{path} is there already, and is left as it is") from error
    return path


# --- the command ------------------------------------------------------------------------------


def verify(args: argparse.Namespace) -> int:
    """Judge the derivations marked in your files, and say what is wrong with those that fail.

    A file runs in a process of its own, under limits of time and memory. Exit code 0 if all hold,
    1 if one does not, 2 if a file cannot be judged. --template NAME writes a file to begin with.
    """
    if args.template:
        names = template_names()
        if args.template != "list":
            names = [f"{write_template(args.template)} is written: fill it in, then verify it"]
        print("\n".join(names))
        return 0
    if not args.files:
        raise ValueError("name a derivation file, or write one: verify --template "
                         f"{'|'.join(template_names())}")  # fmt: skip
    if args.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {args.seed}")
    reports = []
    for path in args.files:
        report = run_file(path, seed=args.seed, seconds=args.seconds, memory=args.memory,
                          details=bool(args.html))  # fmt: skip
        reports.append(report)
        if not args.json:
            print(as_text(report, args.seed) + "\n", flush=True)
        if report["error"]:
            print(f"minigpt: error: {report['error']}", file=sys.stderr, flush=True)
    code = max(map(exit_code, reports))
    if args.html:
        Path(args.html).write_text(as_page(reports, args.seed), "utf-8")
        print(f"report      {args.html}", file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(as_json(reports, exit_code=code, seed=args.seed))
    return code
