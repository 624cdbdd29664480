"""One training step of minigpt beside PyTorch's: time, memory, and the limit the machine sets.

Both run the same network from the same weights on the same batches in float32, with the same
number of threads: forward, loss, backward, clipping at a global norm of 1, AdamW. PyTorch runs
eagerly with its fused AdamW. A third contestant computes only the matrix products of the step.

Each contestant has a process of its own, so that neither allocator nor thread pool is shared. One
of them runs at a time, in turns: a repeat times a few steps of each, and a ratio is taken within
a repeat, so that a change in the machine's speed meets both sides.

Memory is the largest resident set of such a process, less what importing the library took. It
includes parameters, gradients, optimizer state and activations. Linux and macOS report it.
"""

import argparse
import os
import statistics

from benchmarks.contestants import CONTESTANTS
from benchmarks.turns import Job, Result, describe, measure, print_table, ratios, spread
from benchmarks.workload import CONFIGS

SIZES = ("T", "A", "B")


def row(label: str, results: dict[str, Result]) -> list[str]:
    """One line of the table, a string per column of COLUMNS."""
    ours, products, theirs = (results.get(name) for name in ("minigpt", "products", "torch"))
    versus = ("not installed", "", "")
    if theirs:
        ratio = spread(ratios(ours.ms, theirs.ms), 2)
        versus = (spread(theirs.ms, 1), ratio, mib(theirs))
    share = statistics.median(ratios(products.ms, ours.ms))
    return [label, spread(ours.ms, 1), *versus[:2], spread(products.ms, 1), f"{share:.0%}",
            mib(ours), versus[2]]  # fmt: skip


def mib(result: Result) -> str:
    return "not available" if result.mib is None else f"{result.mib:.0f}"


COLUMNS = ["config", "minigpt ms", "PyTorch ms", "ratio", "products ms", "share of limit",
           "minigpt MiB", "PyTorch MiB"]  # fmt: skip
LEGEND = """\
ms, ratio: median (smallest-largest) over the repeats; ratio = minigpt / PyTorch; products = the
step's matrix products alone, by NumPy; share of limit = products / minigpt; MiB: see --help"""
EXAMPLES = """\
examples:
  python -m benchmarks.train_step
  python -m benchmarks.train_step --configs T --threads 1
  python -m benchmarks.train_step --repeats 15
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.train_step", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--configs", nargs="+", choices=SIZES, default=list(SIZES),
                        help="sizes to time (default: all)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="at least 5 (default: 7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="of each contestant (default: %(default)s, the CPUs)")  # fmt: skip
    args = parser.parse_args()
    if args.repeats < 5 or args.threads < 1:
        parser.error("--repeats must be at least 5 and --threads at least 1")
    has_torch = CONTESTANTS["torch"].installed()
    names = ["minigpt", "torch", "products"] if has_torch else ["minigpt", "products"]

    print(describe(args.threads, has_torch), flush=True)
    rows = [COLUMNS]
    for label in args.configs:
        jobs = {name: Job(name, CONFIGS[label]) for name in names}
        results = measure(jobs, args.repeats, args.threads)
        for name, result in results.items():
            if result.failed:
                raise SystemExit(f"error: {label}: {name}: {result.failed}")
        rows.append(row(label, results))
    print_table(rows)
    print(LEGEND)


if __name__ == "__main__":
    main()
