"""Which backends are checked, each in its own process, and what their checks mean together."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from minigpt.doctor import machine
from minigpt.doctor.report import ABSENT, FAILED, OK, SKIPPED, Check, attempt

BACKENDS = ("numpy", "cupy", "strict")
SECONDS = 600.0  # a GPU's first run compiles some hundred kernels, and then keeps them
START = ("import json, sys; job = json.loads(sys.argv[1]); sys.path[:] = job['path']; "
         "from minigpt.doctor.process import main; main(job['wanted'])")  # fmt: skip


def examine(named: str | None = None) -> Iterator[Check]:
    """All checks, as they are made.

    named: the backend that is asked about. None: that of MINIGPT_BACKEND, and beside it whether
    there is a GPU that works; without one, nothing has failed.
    """
    asked = named or os.environ.get("MINIGPT_BACKEND", "numpy")
    yield attempt("Python", machine.python, "")
    whence = "by --backend" if named else "by MINIGPT_BACKEND"
    if asked not in BACKENDS:
        advice = f"set MINIGPT_BACKEND to one of {', '.join(BACKENDS)}, or unset it"
        yield Check("backend", FAILED, f"{asked!r}, {whence}: no such backend", advice)
    elif named or "MINIGPT_BACKEND" in os.environ:
        yield Check("backend", OK, f"{asked}, {whence}")
    else:
        yield Check("backend", OK, "numpy, as MINIGPT_BACKEND is not set")
    losses: list[float] = []
    yield from _checks("numpy", losses)
    for backend in ("strict", "cupy"):
        if backend == asked or (backend == "cupy" and not named):
            for check in _checks(backend, list(losses)):
                state = FAILED if asked == "cupy" else SKIPPED
                yield check._replace(state=state) if check.state == ABSENT else check


def summary(checks: list[Check]) -> str:
    """One line: what all of it means."""
    failed = sum(check.state == FAILED for check in checks)
    if failed:
        return f"{failed} check{'s' if failed > 1 else ''} failed"
    states = {check.name: check.state for check in checks}
    if states.get("cupy training") == SKIPPED:
        return "what is here works; no GPU: everything runs on the processor"
    if "cupy training" in states:
        return "everything works; the GPU: MINIGPT_BACKEND=cupy python -m minigpt train"
    return "everything works"


def _checks(backend: str, losses: list[float]) -> Iterator[Check]:
    """The checks of one backend, in a process of its own. losses: NumPy's; then this one's."""
    job = json.dumps({"path": [str(entry) for entry in sys.path], "wanted": losses})
    done, started = False, time.monotonic()
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            [sys.executable, "-X", "utf8", "-c", START, job], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=errors, env=os.environ | {"MINIGPT_BACKEND": backend},
        ) as process:  # fmt: skip
            clock = threading.Timer(SECONDS, process.kill)
            clock.start()
            try:
                for line in process.stdout or ():
                    match _read(line):
                        case [str(name), str(state), str(said), str(advice)]:
                            yield Check(name, state, said, advice)
                        case {"losses": [*found]}:
                            done, losses[:] = True, found
                code = process.wait()
            finally:
                clock.cancel()
                process.kill()  # nothing, where it has ended
        if not done:
            errors.seek(0)
            late = time.monotonic() - started > SECONDS
            yield _ended(backend, code, late, errors.read().decode(errors="replace"))


def _read(line: bytes) -> Any:
    """A line that the process printed. None: not one of ours, but of some library."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _ended(backend: str, code: int, late: bool, errors: str) -> Check:
    """The check that says how a process ended that did not come to its own end."""
    said = f"ended with exit code {code}"
    if late:
        said = f"took longer than {SECONDS:g} s, and was stopped"
    elif code < 0:
        said = f"was ended by signal {signal.Signals(-code).name}"
    last = [line.strip() for line in errors.splitlines() if line.strip()][-1:]
    return Check(f"{backend} process", FAILED, ": ".join([said, *last]),
                 f"see what `MINIGPT_BACKEND={backend} python -X faulthandler -m minigpt info` "
                 "says; a crash comes from a driver or library: reinstall it")  # fmt: skip
