"""`python -m minigpt sample`."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator

from minigpt.checkpoint import load_checkpoint
from minigpt.commands.models import add_speech_options, checkpoint_path, generator, pieces_of
from minigpt.decoding import Decoding
from minigpt.options import config_of


def sample(args: argparse.Namespace) -> None:
    """Continue a prompt with a trained model."""
    checkpoint = load_checkpoint(checkpoint_path(args.checkpoint))
    decoding = config_of(Decoding, args)
    if args.samples < 1:
        raise ValueError(f"--samples must be at least 1, got {args.samples}")
    drawn, seconds = 0, 0.0
    for seed in range(args.seed, args.seed + args.samples):
        rng = generator(seed)
        pieces = pieces_of(checkpoint, args.prompt, args.n, rng, decoding, args.stop)
        if args.samples > 1:
            print("\n\n" * (seed > args.seed) + f"--- seed {seed}")
        started = time.perf_counter()
        sys.stdout.write(args.prompt)
        # Every piece is a token, but for the last: what was left when all n were drawn.
        drawn += min(write(pieces), args.n)
        seconds += time.perf_counter() - started
    print(f"\n\n{drawn} tokens, {drawn / seconds:,.0f} tokens/s")


def write(pieces: Iterator[str]) -> int:
    """Print the pieces as they come; how many there were."""
    count = 0
    for piece in pieces:
        count += 1
        sys.stdout.write(piece)
        sys.stdout.flush()
    return count


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        sample, "sample", "", ' --prompt "The average" -n 200 --temperature 0.5',
        ' --prompt "The" --top-p 0.9 --stop "." --samples 3',
    )  # fmt: skip
    sub.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    sub.add_argument("--samples", type=int, default=1, metavar="N",
                     help="texts to draw: seed, seed + 1, ... (default: 1)")  # fmt: skip
    add_speech_options(sub, 300, "end before this text; can be given more than once")
