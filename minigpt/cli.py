"""The command line: all commands of minigpt/commands/."""

from collections.abc import Sequence

from minigpt import options
from minigpt.commands import (
    chapters,
    chat,
    data,
    demo,
    doctor,
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

COMMANDS = (demo, train, plot, sample, chat, evaluate, explain, data, tokenize, stories, chapters,
            verify, gradcheck, import_, info, doctor, graph)  # fmt: skip


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; its exit code. Raises ValueError on bad input."""
    return options.run(COMMANDS, argv)
