"""`python -m minigpt sample`."""

import argparse
import sys
import time
from collections.abc import Callable

from minigpt.checkpoint import load_checkpoint
from minigpt.commands.models import CHECKPOINT_HELP, checkpoint_path, pieces_of


def sample(args: argparse.Namespace) -> None:
    """Continue a prompt with a trained model."""
    checkpoint = load_checkpoint(checkpoint_path(args.checkpoint))
    pieces = pieces_of(checkpoint, args.prompt, args.n, args.temperature, args.seed)
    started = time.perf_counter()
    sys.stdout.write(args.prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    print(f"\n\n{args.n} tokens, {args.n / (time.perf_counter() - started):,.0f} tokens/s")


def add(command: Callable) -> None:
    """Its options."""
    sub = command(sample, "sample", "", ' --prompt "The average" -n 200 --temperature 0.5')
    sub.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    sub.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    sub.add_argument("-n", type=int, default=300, help="tokens to draw (default: 300)")
    sub.add_argument("--temperature", type=float, default=0.8,
                     help="below 1: safer, above: wilder, 0: likeliest (default: 0.8)")  # fmt: skip
    sub.add_argument("--seed", type=int, default=0, help="another seed, another text (default: 0)")
