"""minigpt on a GPU beside PyTorch on the same one: a training step, and generation.

Both train the same network from the same weights on the same batches in float32: forward, loss,
backward, clipping at a global norm of 1, AdamW. PyTorch runs eagerly with its fused kernels of
attention and AdamW. A third contestant computes only the matrix products of the step, by cuBLAS
through CuPy: the limit that the device sets. Generation is that of `benchmarks.generation`, greedy
with a KV cache, beside transformers' `generate`.

Each contestant has a process of its own, and they take turns, so that a ratio is taken within a
repeat. A turn is a few steps between two events in the GPU's own queue; the host reads no loss in
between. Before the turns come steps that are not timed: they compile the kernels.

Float32 products are exact to float32; --tf32 lets both libraries use tensor cores in TF32, with
10 bits of fraction (for CuPy that is CUPY_TF32=1). --float16 trains in mixed precision instead:
minigpt with half.py, PyTorch with autocast and its GradScaler, and the products alone are float16.
"""

import argparse
import csv
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import gpu_worker
from benchmarks.generation import SIZES as GENERATION
from benchmarks.turns import PAUSE_SECONDS, print_table, ratios, spread, warm_up
from benchmarks.workload import CONFIGS, Config, matrix_products

GPT2 = dict(n_layer=12, n_embd=768, block_size=1024, n_head=12, vocab_size=50257)
SIZES = {"A": CONFIGS["A"], "B": CONFIGS["B"], "124M": Config(4, GPT2)}
LOSS_TOLERANCE = 1e-3  # nats per token, in the first steps: the two add in different orders
FIRST = 5  # steps whose losses are compared


def in_fresh_process(function: Callable, *args: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def measure(jobs: dict[str, tuple], repeats: int, backend: str, tf32: bool) -> tuple[dict, dict]:
    """Time the jobs, name -> arguments of its turn. -> ms of each repeat by name; MiB by name.

    Raises: SystemExit if the contestants' first losses or tokens differ.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    first: dict[str, list[float]] = {}
    spawn, steps = multiprocessing.get_context("spawn"), {}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                ProcessPoolExecutor(1, spawn, gpu_worker.prepare, (name, backend, tf32, *work))
            )
            for name, work in jobs.items()
        }

        def run(name: str, n: int) -> float:
            ms, numbers = workers[name].submit(gpu_worker.take_turn, n).result()
            first.setdefault(name, []).extend(numbers)
            return ms * len(numbers) / n

        for name in jobs:
            steps[name] = warm_up(partial(run, name))
            check_first(first)
        for repeat in range(repeats):
            for name in jobs if repeat % 2 == 0 else reversed(jobs):
                time.sleep(PAUSE_SECONDS)
                ms, _ = workers[name].submit(gpu_worker.take_turn, steps[name]).result()
                times[name].append(ms)
        return times, {
            name: worker.submit(gpu_worker.device_mib).result() for name, worker in workers.items()
        }


def check_first(first: dict[str, list[float]]) -> None:
    """Stop unless all begin with the same losses or tokens: else they did different work."""
    ours = next(iter(first.values()))
    for name, numbers in first.items():
        for step, (a, b) in enumerate(zip(ours[:FIRST], numbers, strict=False), 1):
            if name != "products" and not abs(a - b) <= LOSS_TOLERANCE:
                raise SystemExit(f"error: at step {step} minigpt has {a:.6f}, {name} {b:.6f}")


# --- the tables ----------------------------------------------------------------------------------

TRAINING = ["size", "minigpt ms", "tokens/s", "PyTorch ms", "ratio", "products ms", "TFLOP/s",
            "share of limit", "minigpt MiB", "PyTorch MiB"]  # fmt: skip
DRAWING = ["size", "minigpt ms/token", "tokens/s", "transformers ms/token", "times faster"]
LEGEND = """\
median (smallest-largest) over the repeats; ratio = minigpt / PyTorch, within a repeat; products =
the step's matrix products alone; TFLOP/s: of the products; share of limit = products / minigpt"""


def training_row(size: str, config: Config, times: dict, mib: dict, missing: str) -> list[str]:
    """One line of the table, a string for each of TRAINING."""
    ours, products, theirs = times["minigpt"], times["products"], times.get("torch")
    tokens = config.batch_size * config.network["block_size"]
    flop = 2 * sum(math.prod(shape) * n for shape, n in matrix_products(config).items())
    versus = [spread(theirs, 2), spread(ratios(ours, theirs), 2)] if theirs else [missing, ""]
    memory = [f"{mib[name]:.0f}" if mib.get(name) else "" for name in ("minigpt", "torch")]
    return [size, spread(ours, 2), f"{1000 * tokens / statistics.median(ours):,.0f}", *versus,
            spread(products, 2), f"{flop / statistics.median(products) / 1e9:.1f}",
            f"{statistics.median(ratios(products, ours)):.0%}", *memory]  # fmt: skip


def drawing_row(size: str, times: dict, missing: str) -> list[str]:
    """One line of the table, a string for each of DRAWING."""
    ours, theirs = times["minigpt draws"], times.get("transformers")
    versus = [spread(theirs, 2), spread(ratios(theirs, ours), 2)] if theirs else [missing, ""]
    return [size, spread(ours, 2), f"{1000 / statistics.median(ours):,.0f}", *versus]


def train(size: str, config: Config, args: Any, missing: str) -> tuple[dict, list[str]]:
    names = ["minigpt", "products"] + ["torch"] * (not missing)
    jobs = dict.fromkeys(names, (config, args.float16))
    times, mib = measure(jobs, args.repeats, args.backend, args.tf32)
    return times, training_row(size, config, times, mib, missing)


def draw(size: str, sizes: tuple, args: Any, missing: str) -> tuple[dict, list[str]]:
    network, n = sizes
    names = ["minigpt draws"] + ["transformers"] * (not missing)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "gpt2")
        in_fresh_process(gpu_worker.write_model, folder, network)
        jobs = dict.fromkeys(names, (folder, n))
        times, _ = measure(jobs, args.repeats, args.backend, args.tf32)
    return times, drawing_row(size, times, missing)


def write(path: Path, results: dict[tuple[str, str], dict[str, list[float]]]) -> None:
    """Every repeat, in ms a step or a token."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["work", "size", "contestant", "repeat", "ms"])
        for (work, size), times in results.items():
            for name, values in times.items():
                writer.writerows([work, size, name, i, f"{ms:.4f}"] for i, ms in enumerate(values))


EXAMPLES = """\
examples:
  python -m benchmarks.gpu
  python -m benchmarks.gpu --sizes 124M --repeats 15 --out figures/data/gpu.csv
  python -m benchmarks.gpu --tf32
  python -m benchmarks.gpu --float16 --sizes 124M
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES),
                        help="models to time (default: all)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="at least 3 (default: 7)")
    parser.add_argument("--tf32", action="store_true", help="products in TF32, on both sides")
    parser.add_argument("--float16", action="store_true",
                        help="train in mixed precision, on both sides")  # fmt: skip
    parser.add_argument("--backend", choices=("cupy", "strict"), default="cupy",
                        help="strict: no GPU; only to test this program")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv with every repeat")
    args = parser.parse_args(argv)
    if args.repeats < 3:
        parser.error("--repeats must be at least 3")
    try:
        print(in_fresh_process(gpu_worker.describe, args.backend), flush=True)
    except ValueError as error:  # what minigpt.backend says of a backend that is not there
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    missing = {name: in_fresh_process(gpu_worker.absent, name, args.backend)
               for name in ("torch", "transformers")}  # fmt: skip
    results, tables = {}, {"training": [TRAINING], "drawing": [DRAWING]}
    for size in args.sizes:
        for work, rows, row in (
            ("training", train, (SIZES[size], args, missing["torch"])),
            ("drawing", draw, (GENERATION[size], args, missing["transformers"])),
        ):
            print(f"{work}: {size}", file=sys.stderr, flush=True)
            results[work, size], cells = rows(size, *row)
            tables[work].append(cells)
    for rows in tables.values():
        print_table(rows)
    print(LEGEND)
    if args.out:
        write(args.out, results)


if __name__ == "__main__":
    main()
