"""`python -m minigpt demo`: the whole of it in two minutes."""

import argparse
import time
from collections.abc import Callable

from minigpt.commands.models import generator, pieces_of, print_table
from minigpt.commands.runs import free_folder, print_written, train_run
from minigpt.decoding import Decoding
from minigpt.evaluate import scored_characters
from minigpt.options import positive


def demo(args: argparse.Namespace) -> None:
    """Train the default GPT for a short time, compare it with n-grams, and let it speak."""
    trainer, parts = train_run(args, free_folder("demo"))
    n = scored_characters(parts.tokenizer, parts.ids["test"])
    print(f"\nOn {n:,} characters that no model was trained on or chosen by:\n")
    print_table(trainer.model, parts)
    print("\nThree samples at temperature 0.8:\n")
    started, decoding = time.perf_counter(), Decoding(temperature=0.8)
    for seed in range(3):
        print(
            f"{seed + 1}. "
            + "".join(pieces_of(trainer, "\n", 150, generator(seed), decoding)).replace(
                "\n", "\n   "
            )
        )
    speed = 3 * 150 / (time.perf_counter() - started)
    print(f"\ntraining    {trainer.tokens_per_second():,.0f} tokens/s, {trainer.step} steps")
    print(f"sampling    {speed:,.0f} tokens/s")
    print_written(trainer.folder)


def add(command: Callable) -> None:
    """Its options."""
    sub = command(demo, "demo", "", " --seconds 20")
    sub.add_argument(
        "--seconds", type=positive, default=90.0, help="training time, in seconds (default: 90)"
    )
