"""`python -m minigpt gradcheck`: the command itself is in minigpt/audit.py."""

from collections.abc import Callable

from minigpt.audit import EXAMPLE, gradcheck


def add(command: Callable) -> None:
    """Its options."""
    sub = command(gradcheck, "gradcheck", "", f" {EXAMPLE}")
    sub.add_argument("--out", metavar="FILE", help="write the table as CSV (default: no file)")
    sub.add_argument("--figure", metavar="FILE", help="draw the errors as SVG (default: no file)")
