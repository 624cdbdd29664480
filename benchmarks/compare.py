"""Training steps and forward passes of one GPT in every library at hand: one table from one run.

All run the same network from the same weights on the same batches in float32 on the CPU, with the
same number of threads. A training step is forward, loss, backward, clipping at a global norm of 1
and AdamW; a forward pass is network and loss, without a gradient. Before anything is timed, the
losses of the first steps must agree to 1e-5 nats per token.

  minigpt      this package               recompute  the same, every block computed twice
  torch        PyTorch, eagerly           compiled   PyTorch under torch.compile
  alone        one worker, whose products take all BLAS threads
  returned     minigpt where freed memory goes back to the system, as Linux does unless told
  pooled       there, minigpt keeps it itself, as on macOS and Windows
  autograd     HIPS autograd on NumPy     jax        JAX, the whole step under jax.jit
  products     only the step's matrix products, by NumPy: the limit that the machine sets

Each has a process of its own, and they take turns: a repeat times a few steps of each, and a ratio
is taken within a repeat. A contestant whose step takes more than 2 s gets 2 steps of warm-up, and
then one step in each of 3 repeats: the column "steps" says how many were timed.

ms are of the clock. cpu ms are of the processor, in all threads: on a machine that others use they
are the steadier ones.

MiB: the largest resident set of the process, less what importing took: parameters, gradients,
optimizer state, activations, and what a compiler needed. Import seconds are those of a fresh
interpreter, NumPy included, the median of 3.
"""

import argparse
import csv
import importlib.metadata
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from benchmarks.turns import Job, Result, describe, measure, ratios, spread
from benchmarks.workload import CONFIGS

FORWARD = ("T", "A", "B")  # sizes whose forward pass is timed unless others are asked for
COLUMNS = {  # name: width
    "work": 10, "contestant": 18, "ms": 24, "/ PyTorch": 19, "of limit": 8, "cpu ms": 7,
    "/ PyTorch's": 11, "MiB": 5, "import s": 8, "steps": 0,
}  # fmt: skip
LEGEND = """\
ms, / PyTorch: median (smallest-largest) over the repeats; / PyTorch: ms over PyTorch's, below 1 is
faster; of limit: ms of the matrix products alone over ms; cpu ms: of the processor, all threads;
steps: repeats x steps in each"""
EXAMPLES = """\
examples:
  python -m benchmarks.compare
  python -m benchmarks.compare --configs T A --contestants minigpt torch jax products
  python -m benchmarks.compare --forward --threads 1
  python -m benchmarks.compare --out figures/data/compare.csv
"""


def import_seconds(modules: tuple[str, ...]) -> float:
    """Seconds that importing takes in a fresh interpreter."""
    code = (f"import time; start = time.perf_counter(); import {', '.join(modules)}; "
            "print(time.perf_counter() - start)")  # fmt: skip
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              check=True)  # fmt: skip
        times.append(float(done.stdout.split()[-1]))
    return statistics.median(times)


def jobs_of(label: str, forward: bool, names: list[str]) -> dict[str, Job]:
    """The jobs of one block of the table; what changes the backward pass only, for training."""
    return {
        name: Job(name, CONFIGS[label], forward)
        for name in names
        if CONTESTANTS[name].installed() and not (forward and name in ("alone", "recompute"))
    }


def rows_of(
    work: str, names: list[str], results: dict[str, Result], imports: dict[str, float]
) -> list[list[str]]:
    """A line for each contestant, a string per column of COLUMNS."""
    rows, torch, products = [], results.get("torch"), results.get("products")
    for name in names:
        start, result = [work, CONTESTANTS[name].label], results.get(name)
        if result is None or result.failed:
            why = "not installed" if result is None else f"failed: {result.failed.split(':')[0]}"
            rows.append([*start, why, *[""] * (len(COLUMNS) - 3)])
            continue
        versus = ratios(result.ms, torch.ms) if torch else []
        cpu = ratios(result.cpu_ms, torch.cpu_ms) if torch else []
        share = ratios(products.ms, result.ms) if products else []
        rows.append([
            *start,
            spread(result.ms, 1),
            spread(versus, 2) if versus else "",
            f"{statistics.median(share):.0%}" if share else "",
            f"{statistics.median(result.cpu_ms):.1f}",
            f"{statistics.median(cpu):.2f}" if cpu else "",
            "?" if result.mib is None else f"{result.mib:.0f}",
            f"{imports[name]:.2f}",
            f"{len(result.ms)} x {result.turn}",
        ])  # fmt: skip
    return rows


def write(path: Path, threads: int, blocks: dict[str, dict[str, Result]]) -> None:
    """Every repeat of every contestant that came through: a line each."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["work", "threads", "contestant", "repeat", "ms", "cpu_ms", "mib"])
        for work, results in blocks.items():
            for name, result in results.items():
                mib = "" if result.mib is None else f"{result.mib:.0f}"
                for i, (ms, cpu) in enumerate(zip(result.ms, result.cpu_ms, strict=True)):
                    table.writerow([work, threads, name, i, f"{ms:.2f}", f"{cpu:.2f}", mib])


def print_row(cells: list[str]) -> None:
    print("  ".join(map(str.ljust, cells, COLUMNS.values())).rstrip(), flush=True)


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.compare", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, metavar="SIZE",
                        help=f"of {', '.join(CONFIGS)} (default: all; forward: "
                        f"{', '.join(FORWARD)})")  # fmt: skip
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, metavar="NAME",
                        default=list(CONTESTANTS),
                        help="of those above (default: all)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="default: 7")
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="of each contestant (default: %(default)s, the CPUs)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv with every repeat")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--training", action="store_true", help="training steps only")
    only.add_argument("--forward", action="store_true", help="forward passes only")
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.threads < 1:
        parser.error(f"--repeats and --threads must be at least 1, got {args.repeats} and "
                     f"{args.threads}")  # fmt: skip
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    names = [name for name in CONTESTANTS if name in args.contestants]
    present = [name for name in names if CONTESTANTS[name].installed()]
    imports = {}
    for name in present:
        progress(f"import of {name}")
        imports[name] = import_seconds(CONTESTANTS[name].modules)

    found = [f"{package} {importlib.metadata.version(package)}"
             for package in ("jax", "autograd") if package in present]  # fmt: skip
    machine = describe(args.threads, CONTESTANTS["torch"].installed())
    print(", ".join([machine, *found]), flush=True)
    print_row(list(COLUMNS))
    blocks = [(label, False) for label in args.configs or CONFIGS if not args.forward]
    blocks += [(label, True) for label in args.configs or FORWARD if not args.training]
    recorded = {}
    for label, forward in blocks:
        work, jobs = f"{label} {'forward' if forward else 'train'}", jobs_of(label, forward, names)
        results = measure(jobs, args.repeats, args.threads,
                          lambda line, work=work: progress(f"{work}: {line}"))  # fmt: skip
        recorded[work] = {name: r for name, r in results.items() if not r.failed}
        shown = [name for name in names if name in jobs or name not in present]
        for cells in rows_of(work, shown, results, imports):
            print_row(cells)
    print(LEGEND)
    if args.out:
        write(args.out, args.threads, recorded)


if __name__ == "__main__":
    main()
