"""The parser of the command line, and options made from dataclasses, one for each field."""

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from inspect import getdoc
from types import ModuleType
from typing import Any, NoReturn

from minigpt import __version__


class Parser(argparse.ArgumentParser):
    """argparse, with an error on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def run(modules: Iterable[ModuleType], argv: Sequence[str] | None) -> int:
    """Run the command that the arguments name; its exit code. Raises ValueError on bad input.

    modules: those of minigpt/commands/, each of which adds its command to the parser.
    """
    parser = Parser(prog="minigpt", description="GPT from first principles in NumPy.")
    parser.add_argument("--version", action="version", version=f"minigpt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(function: Callable, name: str, *examples: str) -> Parser:
        lines = ["examples:", *(f"  python -m minigpt {name}{example}" for example in examples)]
        sub = commands.add_parser(
            name, help=str(function.__doc__).split("\n")[0], description=getdoc(function),
            epilog="\n".join(lines), formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(command=function)
        return sub

    for module in modules:
        module.add(command)
    args = parser.parse_args(argv)
    return args.command(args) or 0


def config_of(cls, args: argparse.Namespace, **values) -> Any:
    """A config dataclass from the options of its names, or the values given here."""
    return cls(**{f.name: getattr(args, f.name, f.default) for f in fields(cls)} | values)


def add_options(parser: Parser, cls, *leave_out: str) -> None:
    """An option for each field of a config dataclass; one that is not given leaves no trace."""
    group = parser.add_argument_group(cls.__doc__.split(".")[0].lower())
    for f in fields(cls):
        if f.name not in leave_out:
            flag = "--" + f.name.replace("_", "-")
            text = f"{f.metadata['help']} (default: {f.default})"
            kind: dict = {"type": type(f.default), "metavar": type(f.default).__name__.upper()}
            if isinstance(f.default, bool):
                kind = {"action": argparse.BooleanOptionalAction}
            group.add_argument(flag, default=argparse.SUPPRESS, help=text, **kind)


def positive(text: str) -> float:
    """A number for an option that makes no sense otherwise. Raises what argparse reports."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text}")
    return value
