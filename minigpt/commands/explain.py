"""`python -m minigpt explain`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from minigpt.checkpoint import load_checkpoint, write_whole
from minigpt.commands.models import CHECKPOINT_HELP, checkpoint_path, threads_for
from minigpt.interpret.explain import Explanation, explain
from minigpt.interpret.page import as_page
from minigpt.interpret.text import as_text

ENDINGS = (".html", ".png", ".svg")


def explain_text(args: argparse.Namespace) -> None:
    """Show what happens inside a trained model on one text.

    How much each token surprises it, and what it expected instead; where every head looks; and what
    each layer would say if the model ended there. The tables here are a part of the page. Of a text
    longer than the block size the model sees the last tokens only.
    """
    path = checkpoint_path(args.checkpoint)
    out = Path(args.out) if args.out else path.with_name("explain.html")
    if out.suffix not in ENDINGS:
        raise ValueError(f"--out must end in {', '.join(ENDINGS)}, got {out}")
    checkpoint = load_checkpoint(path)
    with threads_for(checkpoint.model):
        found = explain(checkpoint.model, checkpoint.tokenizer, args.prompt, args.alternatives)
    T = len(found.labels)
    cut = f" (the last of {T + found.left_out}: more do not fit)" if found.left_out else ""
    print(f"{path}, {T} token{'s' * (T != 1)}{cut}\n\n{as_text(found)}")
    write_whole(out, _content(found, str(path), out.suffix))
    print(f"\n{'page' if out.suffix == '.html' else 'figure':8s}{out}")


def _content(found: Explanation, source: str, ending: str) -> bytes:
    if ending == ".html":
        return as_page(found, source).encode()
    from minigpt.interpret.figure import as_figure  # Matplotlib loads slowly

    return as_figure(found, ending)


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        explain_text, "explain", ' --prompt "The average"',
        ' runs/demo-1 --prompt "Honey never spoils." --alternatives 8 --out honey.html',
        ' --prompt "The average" --out heads.svg',
    )  # fmt: skip
    sub.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    sub.add_argument("--prompt", required=True, help="the text")
    sub.add_argument("--alternatives", type=int, default=5, metavar="K",
                     help="likeliest tokens that are shown at each place (default: 5)")  # fmt: skip
    sub.add_argument("--out", metavar="FILE", help="an .html page, or a .png or .svg figure"
                     " (default: explain.html beside the checkpoint)")  # fmt: skip
