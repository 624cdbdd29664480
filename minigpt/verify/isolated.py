"""What runs in the process of its own: a derivation file, and the judge behind it.

Events go to a file, one JSON document a line, each written as soon as it is known: so what was
found before a kill is kept. What the file prints goes elsewhere, and cannot spoil it.
"""

import ast
import faulthandler
import json
import os
import re
import sys
import time
import traceback
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.verify import derivations
from minigpt.verify.claims import Claim, Diagnosis, Verdict
from minigpt.verify.diagnosis import diagnose
from minigpt.verify.judge import judge
from minigpt.verify.trials import as_question, listed, measure
from minigpt.witness import rel_error, slope, spread

PRINTED = 64 << 20  # bytes that a file may print or write
STEPS = 10.0 ** np.arange(-1, -13.5, -0.5)  # of the V-curve, in units of the argument's size
MARK = ('mark one with @derivation(of=f, x=("N", "C")), after '
        "`from minigpt.verify import derivation`")  # fmt: skip


class Refused(Exception):
    """A file that cannot be judged. The message says why, on one line."""


def main(job: dict[str, Any]) -> None:
    """Judge one file; see derivations.run_file for the job and the events."""
    with open(job["results"], "w", encoding="utf-8") as results:

        def tell(event: str, **values: Any) -> None:
            results.write(json.dumps({"event": event} | values) + "\n")
            results.flush()

        trace = open(job["trace"], "w")  # noqa: SIM115 - open until the end: where it hangs
        left = job["seconds"] - (time.time() - job["started"])
        faulthandler.dump_traceback_later(max(left, 0.01), file=trace)
        notes = limit(job["memory"], job["seconds"])
        try:
            claims, more = load(Path(job["file"]), job["shown"])
        except Refused as error:
            tell("error", error=str(error))
            return
        heads = [{"name": c.name, "kind": c.kind, "of": getattr(c.f, "__name__", "f"),
                  "where": _where_defined(c.said)} for c in claims]  # fmt: skip
        tell("file", claims=heads, notes=notes + more, printed=_position())
        for claim, head in zip(claims, heads, strict=True):
            found = examine(claim, job["shown"], job["seed"], job["details"])
            tell("claim", **head, **found, printed=_position())
        tell("done")
    sys.stdout.flush()
    os._exit(0)  # threads and exit handlers of the file have no more say


def _position() -> int:
    """How many bytes have been printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    try:
        return os.lseek(1, 0, os.SEEK_CUR)
    except OSError:  # the file has closed its output
        return 0


def limit(memory: float, seconds: float) -> list[str]:
    """Limit the address space, in MiB, and the size of files. Returns notes on what cannot be.

    And the processor time, in case nobody is left to stop this process on the clock.
    """
    try:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_FSIZE, (PRINTED, PRINTED))
        most = int(memory * 2**20)
        cpu = 2 * int(seconds) + 10  # beyond what the clock allows, even for two threads
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, ValueError, OSError) as error:
        return [f"memory is not limited on this platform ({type(error).__name__})"]
    return []


# --- the file ---------------------------------------------------------------------------------


def load(path: Path, shown: str) -> tuple[list[Claim], list[str]]:
    """Run the file, and return the claims that it marks, and notes. Raises: Refused."""
    module = types.ModuleType("derivation_file")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    sys.path.append(str(path.parent))  # last: a file of the user hides no library
    derivations.FOUND.clear()
    notes: list[str] = []
    try:
        text = path.read_text("utf-8")
        for where, source in (
            _cells(text, shown, notes) if path.suffix == ".ipynb" else [(shown, text)]
        ):
            exec(compile(source, where, "exec", dont_inherit=True), vars(module))  # noqa: S102
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise Refused(f"{place}: this is not Python: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{shown}: not a text file in UTF-8: {error}") from error
    except MemoryError as error:
        raise Refused(f"{_where(error, shown)}: too much memory; --memory allows more") from error
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        raise Refused(f"{_where(error, shown)}: {_words(error)}") from error
    if not derivations.FOUND:
        raise Refused(f"{shown}: no derivation is marked: {MARK}")
    return list(derivations.FOUND), notes


def _cells(text: str, shown: str, notes: list[str]) -> Iterator[tuple[str, str]]:
    """A notebook's code cells, each with its name. What only a notebook can run is left out."""
    try:
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
        sources = ["".join(c["source"]) for c in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{shown}: not a notebook: {type(error).__name__}: {error}") from error
    for number, source in enumerate(sources, 1):
        where = f"{shown}, code cell {number}"
        if source.lstrip().startswith("%%"):
            notes.append(f"{where}: left out: {source.split(chr(10))[0]}")
            continue
        try:
            ast.parse(source)
        except SyntaxError:  # perhaps for its magics: a line can begin with % in Python too
            magic = re.compile(r"^([ \t]*)([%!].*)$", re.MULTILINE)
            notes += [f"{where}: left out: {line}" for _, line in magic.findall(source)]
            source = magic.sub(r"\1pass", source)
        yield where, source


def _words(error: BaseException) -> str:
    """An exception on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _where(error: BaseException, shown: str, otherwise: str = "") -> str:
    """The last line of the user's file that an exception, or what caused it, has passed."""
    for found in (error, error.__cause__):
        frames = traceback.extract_tb(found.__traceback__) if found else []
        for frame in reversed(frames):
            if frame.filename.startswith(shown):
                return f"{frame.filename}, line {frame.lineno}"
    return otherwise or shown


def _where_defined(said: Any) -> str:
    code = getattr(said, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code else ""


# --- one claim --------------------------------------------------------------------------------


def examine(claim: Claim, shown: str, seed: int, details: bool) -> dict[str, Any]:
    """Judge and diagnose one claim, and return the record that run_file describes."""
    begun = time.perf_counter()
    record: dict[str, Any] = {"status": "error", "error": "", "rows": [], "notes": [],
                              "diagnosis": None, "details": []}  # fmt: skip
    try:
        verdict = judge(claim, seed=seed)
        record["status"] = "holds" if verdict.holds else "wrong"
        record["rows"], record["notes"] = _rows(verdict), list(verdict.notes)
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, NotImplementedError):
            return record | {"status": "not written", "error": "not written yet"}
        if isinstance(cause, MemoryError):
            words = f"{_where(error, shown)}: too much memory; --memory allows more"
            return record | {"error": words, "limit": True}
        words = str(error) if isinstance(error, ValueError) else _words(error)
        place = _where(error, shown, _where_defined(claim.said))
        record["error"] = f"{place}: {words}" if place else words
    if record["status"] != "holds":
        record["diagnosis"] = _diagnosed(claim, seed, record["notes"], bool(record["error"]))
    if details:
        with suppress(Exception):  # what cannot be drawn has been reported above
            record["details"] = list(_details(claim, seed))
    return record | {"seconds": round(time.perf_counter() - begun, 3)}


def _rows(verdict: Verdict) -> list[dict[str, Any]]:
    return [asdict(row) | {"index": [int(i) for i in row.index]} for row in verdict.rows]


def _diagnosed(claim: Claim, seed: int, notes: list, raised: bool) -> dict[str, Any] | None:
    """What is wrong, as JSON has it; where the claim raises, perhaps nothing can be said."""
    try:
        found: Diagnosis = diagnose(claim, seed=seed)
    except Exception as error:
        notes.append(f"no diagnosis: {_words(error)}")
        return None
    if raised and not found.pattern:
        return None  # what it raised says more than that nothing fits
    corrected = {name: np.asarray(a).tolist() for name, a in found.corrected.items()
                 if np.size(a) <= 400}  # fmt: skip
    return asdict(found) | {"corrected": corrected}


def _details(claim: Claim, seed: int) -> Iterator[dict[str, Any]]:
    """For each gradient, on one draw: as claimed, as measured, and its V-curve."""
    question, rng = as_question(claim), np.random.default_rng(seed)
    args = claim.draw(rng)
    for a in args:
        a.flags.writeable = False
    out = np.asarray(question.f(*args), float)
    g = rng.standard_normal(out.shape)
    said = listed(question.said(g, *args))
    if len(said) == len(args):  # a place for every argument
        said = [said[i] for i in question.of] if question.differentiated else said
    for i, claimed in zip(question.of, said, strict=True):
        claimed = np.asarray(claimed, float)
        if not question.differentiated:
            yield {"argument": "out", "claimed": claimed.tolist(), "measured": out.tolist()}
            continue
        measured = measure(question.f, args, i, g)
        detail = {"argument": list(claim.inputs)[i], "shape": list(measured.shape)}
        if measured.size <= 4096 and claimed.shape == measured.shape:
            detail |= {"claimed": claimed.tolist(), "measured": measured.tolist()}
        yield detail | _v_curve(question.f, args, i, g, claimed, rng)


def _v_curve(f: Any, args: list, i: int, g: Any, claimed: np.ndarray, rng: Any) -> dict[str, Any]:
    """The error of plain central differences against the step: of the claim, and of the truth."""
    x = np.asarray(args[i], float)
    u, size = spread(rng, x.shape), max(1.0, float(np.abs(x).max(initial=0)))

    def phi(t: float) -> np.ndarray:
        return np.asarray(g * f(*args[:i], x + t * u, *args[i + 1 :])).reshape(-1)

    with np.errstate(all="ignore"):
        true = slope(phi, size).value
        values = [(phi(h * size) - phi(-h * size)).sum() / (2 * h * size) for h in STEPS]
    along = float((claimed * u).sum()) if claimed.shape == x.shape else None
    curve = {"steps": (STEPS * size).tolist(), "true": [_share(v, true) for v in values]}
    return curve if along is None else curve | {"claim": [_share(v, along) for v in values]}


def _share(value: float, reference: float) -> float:
    return rel_error(np.array(value), np.array(reference))
