"""`python -m minigpt chat`."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from minigpt.checkpoint import load_checkpoint
from minigpt.commands.models import add_speech_options, checkpoint_path, generator, pieces_of
from minigpt.decoding import Decoding
from minigpt.options import config_of


def chat(args: argparse.Namespace) -> None:
    """Talk with a trained model: it continues all that was said so far, line by line.

    It answers in the manner of the text that it was trained on, and only the last block-size tokens
    are in its sight. An empty line begins anew. Ctrl-C ends an answer; Ctrl-D (on Windows Ctrl-Z
    and Enter) ends the talk.
    """
    checkpoint = load_checkpoint(checkpoint_path(args.checkpoint))
    rng, decoding = generator(args.seed), config_of(Decoding, args)
    stop, said = args.stop or ["\n"], ""
    some = checkpoint.tokenizer.decode([0])  # are the options right? Nothing is drawn
    pieces_of(checkpoint, some, args.n, rng, decoding, stop)
    for line in _lines():
        if not line:
            said = ""
            print("(anew)")
            continue
        try:
            pieces = pieces_of(checkpoint, f"{said}{line}\n", args.n, rng, decoding, stop)
        except ValueError as error:  # a character that the tokenizer does not know
            print(f"error: {error}", file=sys.stderr)
            continue
        reply = ""
        with suppress(KeyboardInterrupt):
            for piece in pieces:
                reply += piece
                print(piece, end="", flush=True)
        print()
        said += f"{line}\n{reply}\n"


def _lines() -> Iterator[str]:
    """What the user types, until the end. The prompt is for a terminal only."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            if sys.stdin.isatty():
                print()
            return


def add(command: Callable) -> None:
    """Its options."""
    sub = command(chat, "chat", "", " runs/facts-1 --temperature 0.5 -n 100")
    add_speech_options(
        sub,
        200,
        "an answer ends before this text; can be given more than once (default: a new line)",
    )
