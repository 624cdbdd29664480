"""Options of the command line, made from dataclasses: one for each field, with its help text."""

import argparse
import math
from dataclasses import fields
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse, with an error on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


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
