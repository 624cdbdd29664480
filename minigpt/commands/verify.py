"""`python -m minigpt verify`: the command itself is in minigpt/verify/derivations.py."""

from collections.abc import Callable

from minigpt.options import positive
from minigpt.verify.derivations import verify


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        verify, "verify", " --template layer_norm", " my_derivation.py",
        " my_notebook.ipynb --html report.html",
    )  # fmt: skip
    sub.add_argument("files", nargs="*", help="derivation files, .py or .ipynb")
    sub.add_argument("--json", action="store_true", help="print one JSON document instead")
    sub.add_argument("--html", metavar="FILE", help="write a page with pictures of the errors")
    sub.add_argument("--seconds", type=positive, default=60.0, help="limit a file (default: 60)")
    sub.add_argument("--memory", type=positive, default=2048.0, help="MiB (default: 2048)")
    sub.add_argument("--seed", type=int, default=0, help="other arguments are drawn (default: 0)")
    sub.add_argument("--template", metavar="NAME", help="write a file to begin with, or `list`")
