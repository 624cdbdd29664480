"""`python -m minigpt stories`."""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from minigpt.variants.stories import load, tell


def stories(args: argparse.Namespace) -> None:
    """Let a published model of 260,000 parameters tell a story.

    It is a Llama, and runs in this package's own code. Its files (1 MB, MIT licence) are looked for
    in --model FOLDER; else in the cache, into which they are downloaded at the first use.
    """
    if args.seed < 0:
        raise ValueError(f"--seed must be at least 0, got {args.seed}")
    model, tokenizer = load(args.model)
    rng = np.random.default_rng(args.seed)
    pieces = tell(model, tokenizer, args.prompt, args.n, temperature=args.temperature, rng=rng)
    started, count = time.perf_counter(), -2  # the prompt and the end are no tokens
    with threadpool_limits(1, user_api="blas"):  # products this small are slower on two
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
            count += 1
    speed = count / (time.perf_counter() - started)
    print(f"\n\n{count} tokens, {speed:,.0f} tokens/s")


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        stories, "stories", "", ' "Once upon a time" -n 256 --temperature 0',
        ' "Tom had a red ball." --seed 3',
    )  # fmt: skip
    sub.add_argument("prompt", nargs="?", default="Once upon a time",
                     help="how the story begins (default: Once upon a time)")  # fmt: skip
    sub.add_argument("-n", type=int, default=256,
                     help="tokens to draw; fewer if the story ends (default: 256)")  # fmt: skip
    sub.add_argument("--temperature", type=float, default=0.8,
                     help="below 1: safer, above: wilder, 0: likeliest (default: 0.8)")  # fmt: skip
    sub.add_argument("--seed", type=int, default=0, help="another seed, another text (default: 0)")
    sub.add_argument("--model", metavar="FOLDER", help="with stories260K.bin and tok512.bin")
