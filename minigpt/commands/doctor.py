"""`python -m minigpt doctor`."""

import argparse
from collections.abc import Callable

from minigpt.doctor.examination import BACKENDS, examine, summary
from minigpt.doctor.report import FAILED, as_text


def doctor(args: argparse.Namespace) -> int:
    """Check what this machine computes with, and say what to do about what does not work.

    Without --backend: the backend of MINIGPT_BACKEND, or numpy; and whether a GPU could be used.
    The exit code is 1 if a check failed. That there is no GPU is a failure only for cupy.
    """
    checks = []
    for check in examine(args.backend):
        print(as_text(check), flush=True)
        checks.append(check)
    print(f"\n{summary(checks)}")
    return int(any(check.state == FAILED for check in checks))


def add(command: Callable) -> None:
    """Its options."""
    sub = command(doctor, "doctor", "", " --backend cupy")
    sub.add_argument("--backend", choices=BACKENDS, help="ask about this one alone")
