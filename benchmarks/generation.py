"""Tokens a second of minigpt's generation beside transformers' `generate`, both with a KV cache.

Both draw from GPT-2s of the same shape in float32 with the same number of threads, one text at a
time: a prompt of 16 tokens and as many further tokens as the size's row says, greedily. The random
weights are equal too, and a run begins by comparing the tokens that the two have chosen.

Each contestant has a process of its own, and they take turns, so that a change in the machine's
speed meets all. Without transformers only minigpt runs, with and without its cache.
"""

import argparse
import csv
import importlib.util
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.turns import PAUSE_SECONDS, describe, spread

PROMPT = 16  # tokens
SIZES = {  # name: (GPTConfig's sizes, tokens to draw)
    "A": (dict(n_layer=4, n_embd=128, n_head=4, vocab_size=512, block_size=256), 200),
    "B": (dict(n_layer=6, n_embd=384, n_head=6, vocab_size=512, block_size=256), 200),
    "124M": (dict(n_layer=12, n_embd=768, n_head=12, vocab_size=50257, block_size=1024), 48),
}
CONTESTANTS = ("minigpt", "transformers", "no cache")
_worker: dict = {}  # of a worker process: what draws


def prompt(vocab_size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(vocab_size, size=(1, PROMPT))


def minigpt_draws(folder: Path, n: int, cached: bool):
    from minigpt.generate import generate
    from minigpt.gpt2 import read_gpt2

    model, rng = read_gpt2(folder), np.random.default_rng(0)
    idx = prompt(model.config.vocab_size)

    def draw() -> list[int]:
        tokens = generate(model, idx, n, rng=rng, temperature=0, cached=cached)
        return [int(token[0]) for token in tokens]

    return draw


def transformers_draws(folder: Path, n: int, threads: int):
    import torch
    from transformers import GPT2LMHeadModel

    torch.set_num_threads(threads)
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    idx = torch.from_numpy(prompt(model.config.vocab_size))
    options = dict(max_new_tokens=n, min_new_tokens=n, do_sample=False, use_cache=True,
                   pad_token_id=0, eos_token_id=None)  # fmt: skip

    def draw() -> list[int]:
        with torch.no_grad():
            return model.generate(idx, **options)[0, PROMPT:].tolist()

    return draw


def prepare(name: str, folder: Path, n: int, threads: int) -> None:
    """Make this fresh process the worker of one contestant."""
    os.environ["MINIGPT_BACKEND"] = "numpy"
    if name == "transformers":
        _worker["draw"] = transformers_draws(folder, n, threads)
    else:
        _worker["draw"] = minigpt_draws(folder, n, cached=name == "minigpt")
    threadpool_limits(threads)


def timed_draw() -> tuple[float, list[int]]:
    """In a worker. -> ms a token, the tokens."""
    start = time.perf_counter()
    tokens = _worker["draw"]()
    return (time.perf_counter() - start) * 1000 / len(tokens), tokens


def measure(size: str, names: list[str], repeats: int, threads: int) -> dict[str, list[float]]:
    """ms a token of each repeat, by contestant."""
    from minigpt.gpt2 import write_gpt2
    from minigpt.model import GPT, GPTConfig

    network, n = SIZES[size]
    times: dict[str, list[float]] = {name: [] for name in names}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary, "gpt2")
        write_gpt2(GPT(GPTConfig(**network), np.random.default_rng(0)), folder)
        workers = {}
        for name in names:
            drawn = n if name != "no cache" else min(n, 24)  # each costs as much as a forward pass
            pool = ProcessPoolExecutor(1, spawn, prepare, (name, folder, drawn, threads))
            workers[name] = stack.enter_context(pool)
        first = {name: worker.submit(timed_draw).result()[1] for name, worker in workers.items()}
        for name, tokens in first.items():
            if tokens[:8] != first["minigpt"][:8]:
                raise SystemExit(f"error: {size}: {name} draws {tokens[:8]}, minigpt "
                                 f"{first['minigpt'][:8]}")  # fmt: skip
        for repeat in range(repeats):
            for name in names if repeat % 2 == 0 else reversed(names):
                time.sleep(PAUSE_SECONDS)
                times[name].append(workers[name].submit(timed_draw).result()[0])
    return times


COLUMNS = ["size", "minigpt ms/token", "tokens/s", "transformers ms/token", "times faster",
           "no cache ms/token"]  # fmt: skip


def row(size: str, times: dict[str, list[float]]) -> list[str]:
    """One line of the table, a string for each of COLUMNS."""
    ours, theirs, plain = (times.get(name, []) for name in CONTESTANTS)
    ratios = [b / a for a, b in zip(ours, theirs, strict=False)]
    versus = [spread(theirs, 2), spread(ratios, 2)] if theirs else ["not installed", ""]
    speed = f"{1000 / statistics.median(ours):,.0f}"
    return [size, spread(ours, 2), speed, *versus, spread(plain, 2)]


def write(path: Path, threads: int, results: dict[str, dict[str, list[float]]]) -> None:
    """Every repeat: what README says of them, its test computes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["size", "threads", "contestant", "repeat", "ms_per_token"])
        for size, times in results.items():
            for name, values in times.items():
                for repeat, ms in enumerate(values):
                    writer.writerow([size, threads, name, repeat, f"{ms:.3f}"])


EXAMPLES = """\
examples:
  python -m benchmarks.generation
  python -m benchmarks.generation --sizes A B --threads 1 --out figures/data/generation.csv
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.generation", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES),
                        help="models to time (default: all)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="at least 3 (default: 7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="of each contestant (default: %(default)s, the CPUs)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv with every repeat")
    args = parser.parse_args()
    if args.repeats < 3 or args.threads < 1:
        parser.error("--repeats must be at least 3 and --threads at least 1")
    has_theirs = importlib.util.find_spec("transformers") is not None
    names = [name for name in CONTESTANTS if name != "transformers" or has_theirs]

    print(describe(args.threads, importlib.util.find_spec("torch") is not None), flush=True)
    results = {size: measure(size, names, args.repeats, args.threads) for size in args.sizes}
    rows = [COLUMNS, *(row(size, times) for size, times in results.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(map(str.ljust, cells, widths)).rstrip())
    if args.out:
        write(args.out, args.threads, results)
    print("ms/token: median (smallest-largest) over the repeats; times faster: within a repeat")


if __name__ == "__main__":
    main()
