"""`python -m minigpt sample`."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from minigpt.checkpoint import load_checkpoint
from minigpt.commands.models import CHECKPOINT_HELP, checkpoint_path, pieces_of
from minigpt.decoding import Decoding
from minigpt.options import add_options, config_of


class Stopper:
    """Text that arrives in pieces, up to the first stop string, however the pieces cut it.

    The end of what came may be the beginning of a stop string: that part waits.
    """

    def __init__(self, stops: Sequence[str]):
        if not all(stops):
            raise ValueError("--stop must have at least one character")
        self._stops, self._held, self.stopped = stops, "", False

    def push(self, text: str) -> str:
        """What is certain to come before any stop string, and was not given yet."""
        held = self._held + text
        found = [(held.find(stop) + len(stop), held.find(stop))
                 for stop in self._stops if stop in held]  # fmt: skip
        self.stopped = bool(found)
        if found:
            sure = min(found)[1]  # where the one begins that is complete first
        else:
            sure = min((at for at in range(len(held)) if self._may_begin(held[at:])),
                       default=len(held))  # fmt: skip
        self._held = "" if found else held[sure:]
        return held[:sure]

    def end(self) -> str:
        """The rest: what waited began no stop string."""
        rest, self._held = self._held, ""
        return rest

    def _may_begin(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stops)


def sample(args: argparse.Namespace) -> None:
    """Continue a prompt with a trained model."""
    checkpoint = load_checkpoint(checkpoint_path(args.checkpoint))
    decoding = config_of(Decoding, args)
    if args.samples < 1:
        raise ValueError(f"--samples must be at least 1, got {args.samples}")
    drawn, seconds = 0, 0.0
    for seed in range(args.seed, args.seed + args.samples):
        stopper = Stopper(args.stop)
        pieces = pieces_of(checkpoint, args.prompt, args.n, seed, decoding)
        if args.samples > 1:
            print("\n\n" * (seed > args.seed) + f"--- seed {seed}")
        started = time.perf_counter()
        sys.stdout.write(args.prompt)
        # Every piece is a token, but for the last: what was left when all n were drawn.
        drawn += min(_write(pieces, stopper), args.n)
        seconds += time.perf_counter() - started
    print(f"\n\n{drawn} tokens, {drawn / seconds:,.0f} tokens/s")


def _write(pieces: Iterator[str], stopper: Stopper) -> int:
    """Print the pieces as they come, up to a stop string; how many there were."""
    count = 0
    for piece in pieces:
        count += 1
        sys.stdout.write(stopper.push(piece))
        sys.stdout.flush()
        if stopper.stopped:
            break
    sys.stdout.write(stopper.end())
    return count


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        sample, "sample", "", ' --prompt "The average" -n 200 --temperature 0.5',
        ' --prompt "The" --top-p 0.9 --stop "." --samples 3',
    )  # fmt: skip
    sub.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    sub.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    sub.add_argument("-n", type=int, default=300, help="most tokens to draw (default: 300)")
    sub.add_argument("--stop", action="append", default=[], metavar="TEXT",
                     help="end before this text; can be given more than once")  # fmt: skip
    sub.add_argument("--samples", type=int, default=1, metavar="N",
                     help="texts to draw: seed, seed + 1, ... (default: 1)")  # fmt: skip
    sub.add_argument("--seed", type=int, default=0, help="another seed, another text (default: 0)")
    add_options(sub, Decoding, "temperature")
    sub.add_argument("--temperature", type=float, default=0.8,
                     help="below 1: safer, above: wilder, 0: likeliest (default: 0.8)")  # fmt: skip
