"""`python -m minigpt eval`."""

import argparse
from collections.abc import Callable

from minigpt.checkpoint import load_checkpoint
from minigpt.commands.models import CHECKPOINT_HELP, checkpoint_path, print_table
from minigpt.commands.parts import prepare
from minigpt.evaluate import scored_characters
from minigpt.record import fingerprint
from minigpt.settings import TrainConfig


def evaluate(args: argparse.Namespace) -> None:
    """Score a trained model on held-out text, beside uniform guessing and n-grams."""
    path = checkpoint_path(args.checkpoint)
    checkpoint = load_checkpoint(path)
    trained_on = checkpoint.training.get("config", {}).get("data", TrainConfig.data)
    name = args.data or trained_on
    parts = prepare(name, checkpoint.tokenizer)
    n = scored_characters(parts.tokenizer, parts.ids["test"])
    print(f"{path} on {n:,} held-out characters of {name}:\n")
    if name != trained_on:
        print(f"The n-grams are counted on {name}; the GPT was trained on {trained_on}.\n")
    elif checkpoint.training.get("corpus") != fingerprint(parts.ids["train"], parts.ids["val"]):
        print(f"{name} has changed since the training, which may have seen this text.\n")
    print_table(checkpoint.model, parts)


def add(command: Callable) -> None:
    """Its options."""
    sub = command(evaluate, "eval", "", " runs/demo-1/best.safetensors --data pydoc")
    sub.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    sub.add_argument("--data", help="a corpus (default: the one it was trained on)")
