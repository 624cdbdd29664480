"""`python -m minigpt graph`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from minigpt.checkpoint import write_whole
from minigpt.commands.models import add_model_options, model_of
from minigpt.diagram.folding import diagram_of
from minigpt.diagram.mermaid import mermaid

ENDINGS = (".mmd", ".md", ".svg", ".png")


def graph(args: argparse.Namespace) -> None:
    """Draw a model as it computes, from its modules and the tape of one forward pass.

    As text that Mermaid draws, or with --out as a file: .mmd the same text, .md a page that holds
    it, .svg or .png a figure. Equal blocks are drawn once. B is the batch, T the time.
    """
    out = Path(args.out) if args.out else None
    if out and out.suffix not in ENDINGS:
        raise ValueError(f"--out {out}: expected a name that ends in {', '.join(ENDINGS)}")
    diagram = diagram_of(model_of(args))
    if out and out.suffix in (".svg", ".png"):
        from minigpt.diagram.figure import draw  # Matplotlib loads slower than all the rest

        draw(diagram, out)
    elif out:
        text = mermaid(diagram)
        text = f"```mermaid\n{text}```\n" if out.suffix == ".md" else text
        write_whole(out, text.encode())
    print(f"written {out}" if out else mermaid(diagram), end="\n" if out else "")


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        graph, "graph", "", " --n-layer 12 --n-head 12 --n-embd 768 --out gpt2.svg",
        " --position rope --dropout 0.1 --out rope.mmd",
    )  # fmt: skip
    add_model_options(sub)
    sub.add_argument("--out", metavar="FILE", help="a .mmd, .md, .svg or .png file")
