"""One check: its name, its state, what was found, and what to do."""

from collections.abc import Callable
from typing import NamedTuple

OK, FAILED, SKIPPED = "ok", "FAILED", "skipped"
ABSENT = "absent"  # a failure where a GPU was asked for, else skipped
LONGEST = 300  # characters of an error's message


class Check(NamedTuple):
    """A line of the report."""

    name: str
    state: str
    said: str
    advice: str = ""


class Finding(Exception):
    """Something is not as it must be. The message is what was found."""

    def __init__(self, said: str, advice: str = "", state: str = FAILED):
        super().__init__(said)
        self.advice, self.state = advice, state


def attempt(name: str, look: Callable[[], str], advice: str) -> Check:
    """The check that look makes: what it returns is well, and whatever it raises is not.

    advice: what to do, unless a Finding knows better.
    """
    try:
        return Check(name, OK, look())
    except Finding as found:
        return Check(name, found.state, str(found), found.advice or advice)
    except Exception as error:
        return Check(name, FAILED, brief(error), advice)


def brief(error: BaseException) -> str:
    """An error in one line: its type, and the first line that it says.

    CuPy's import error wraps another one in a page of advice: of that, the other one.
    """
    _, original, text = str(error).rpartition("Original error:")
    lines = [line.strip() for line in text.splitlines() if line.strip(" =-")]
    first = lines[0][:LONGEST] if lines else "no message"
    return first if original else f"{type(error).__name__}: {first}"


def as_text(check: Check) -> str:
    """The lines that are printed: the state first, so that an eye finds it."""
    line = f"{check.state:8s} {check.name:16s} {check.said}"
    if check.state == FAILED and check.advice:
        line += f"\n{'':8s} what to do: {check.advice}"
    return line
