"""`python -m minigpt plot`."""

import argparse
from collections.abc import Callable
from pathlib import Path

X = ("steps", "seconds", "tokens")


def plot(args: argparse.Namespace) -> None:
    """Compare runs: a table, and a figure of their losses beside the n-grams."""
    from minigpt.plot import common_baselines, draw_runs, load_run  # Matplotlib loads slowly

    runs = [load_run(Path(folder)) for folder in args.runs]
    draw_runs(Path(args.out), runs, args.x)
    width = max(len("run"), *(len(run.name) for run in runs))
    print(f"{'run':{width}s}{'steps':>8s}{'best nats/char':>16s}{'at step':>9s}{'tokens/s':>10s}")
    for run in runs:
        (best, step), last = run.best, run.log[-1]
        print(f"{run.name:{width}s}{last['step']:8d}{best:16.4f}{step:9d}"
              f"{last['tokens_per_second']:10,d}")  # fmt: skip
    for name, nats in common_baselines(runs).items():
        print(f"{name:{width}s}{nats:24.4f}")
    if not common_baselines(runs):
        print("\nThe runs were judged on different texts: no n-grams, and compare with care.")
    print(f"\nfigure  {args.out}")


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        plot, "plot", " runs/facts-1", " runs/facts-1 runs/facts-2 --x seconds --out two.svg"
    )
    sub.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run")
    sub.add_argument("--x", choices=X, default="steps", help="the horizontal axis (default: steps)")
    sub.add_argument("--out", default="runs.png", help="a .png or .svg file (default: runs.png)")
