"""The command line: the parser, to which every command of minigpt/commands/ adds itself."""

import argparse
from collections.abc import Callable, Sequence
from inspect import getdoc

from minigpt import __version__
from minigpt.commands import (
    chapters,
    chat,
    data,
    demo,
    evaluate,
    explain,
    gradcheck,
    graph,
    import_,
    info,
    plot,
    sample,
    stories,
    tokenize,
    train,
    verify,
)
from minigpt.options import Parser

COMMANDS = (demo, train, plot, sample, chat, evaluate, explain, data, tokenize, stories, chapters,
            verify, gradcheck, import_, info, graph)  # fmt: skip


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; its exit code. Raises ValueError on bad input."""
    args = _parser().parse_args(argv)
    return args.command(args) or 0


def _parser() -> Parser:
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

    for module in COMMANDS:
        module.add(command)
    return parser
