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
import importlib.metadata
import importlib.util
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

WARM_UP_STEPS = 5
TURN_SECONDS = 0.4  # about this long does one contestant run before it is another's turn
PAUSE_SECONDS = 0.1  # before a turn, so that the threads of the last one have gone to sleep
LOSS_TOLERANCE = 1e-5  # nats per token, after the warm-up
ADAMW = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


@dataclass(frozen=True)
class Config:
    batch_size: int
    network: dict[str, int]  # under the names that both libraries take


CONFIGS = {
    "T": Config(8, dict(n_layer=2, n_embd=64, block_size=32, n_head=2, vocab_size=65)),
    "A": Config(12, dict(n_layer=4, n_embd=128, block_size=64, n_head=4, vocab_size=65)),
    "B": Config(4, dict(n_layer=6, n_embd=384, block_size=256, n_head=6, vocab_size=65)),
}


def initial_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 0.02^2) for a matrix, 1 for a gain, 0 for an offset; equal in every process."""
    if len(shape) == 1:
        return np.full(shape, name.endswith("weight"), np.float32)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.normal(0, 0.02, shape).astype(np.float32)


def batches(config: Config) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random idx and targets (B, T), without end and equal in every process."""
    rng, network = np.random.default_rng(1), config.network
    while True:
        size = (2, config.batch_size, network["block_size"])
        yield tuple(rng.integers(network["vocab_size"], size=size))


def minigpt_step(config: Config) -> Callable[[], float]:
    from minigpt import functional as F
    from minigpt.model import GPT, GPTConfig
    from minigpt.optim import AdamW, clip_grad_norm

    model = GPT(GPTConfig(**config.network), rng=np.random.default_rng(0), dtype="float32")
    model.load_arrays({k: initial_weight(k, p.shape) for k, p in model.named_parameters()})
    params, stream = model.parameters(), batches(config)
    optimizer = AdamW(params, decay=model.decayed_parameters(), **ADAMW)

    def step() -> float:
        idx, targets = next(stream)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(idx), targets)
        loss.backward()
        clip_grad_norm(params, 1.0)
        optimizer.step()
        return loss.item()

    return step


def torch_step(config: Config) -> Callable[[], float]:
    import torch

    from benchmarks.torch_gpt import TorchGPT

    model = TorchGPT(**config.network)
    model.load_from({k: initial_weight(k, shape) for k, shape in model.shapes().items()})
    params, stream = list(model.parameters()), batches(config)
    optimizer = torch.optim.AdamW(model.optimizer_groups(), fused=True, **ADAMW)

    def step() -> float:
        idx, targets = map(torch.from_numpy, next(stream))
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(idx).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        return loss.item()

    return step


def matrix_products(config: Config) -> Counter:
    """How often the step needs each product (..., m, k) @ (..., k, n): {(batch, m, k, n): count}.

    Attention's are counted in full, as dense products: a causal kernel could skip nearly half.
    """
    C, T, H = (config.network[name] for name in ("n_embd", "block_size", "n_head"))
    BT, BH, D = config.batch_size * T, config.batch_size * H, C // H
    block = [
        (1, BT, C, 3 * C),  # q, k, v
        (BH, T, D, T),  # scores = q @ k^T
        (BH, T, T, D),  # out = att @ v
        (1, BT, C, C),  # attention's projection
        (1, BT, C, 4 * C),  # into the MLP
        (1, BT, 4 * C, C),  # out of the MLP
    ]
    head = (1, BT, C, config.network["vocab_size"])
    return Counter(
        shape
        for batch, m, k, n in [*config.network["n_layer"] * block, head]
        # out = x @ w, dx = g @ w^T, dw = x^T @ g
        for shape in ((batch, m, k, n), (batch, m, n, k), (batch, k, m, n))
    )


def products_step(config: Config) -> Callable[[], float]:
    """Only the matrix products of a step, on operands that are already there."""
    rng = np.random.default_rng(2)
    work = []
    for (batch, m, k, n), count in matrix_products(config).items():
        lead = () if batch == 1 else (batch,)
        x = rng.normal(size=(*lead, m, k)).astype(np.float32)
        y = rng.normal(size=(*lead, k, n)).astype(np.float32)
        work.append((x, y, np.empty((*lead, m, n), np.float32), count))

    def step() -> float:
        for x, y, out, count in work:
            for _ in range(count):
                np.matmul(x, y, out=out)
        return math.nan

    return step


CONTESTANTS = {  # name: (the modules it needs, what builds its step)
    "minigpt": (("minigpt.model", "minigpt.optim"), minigpt_step),
    "PyTorch": (("torch", "torch._dynamo"), torch_step),  # torch.optim would import it later
    "products": ((), products_step),
}


def peak_mib() -> float | None:
    """The largest resident set this process has had, in MiB; None where it cannot be asked."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


_worker: dict = {}  # of a worker process: its step, its memory after the import


def prepare(name: str, config: Config, threads: int) -> None:
    """Make this fresh process the worker of one contestant."""
    os.environ["MINIGPT_BACKEND"] = "numpy"  # both sides on the CPU
    modules, build = CONTESTANTS[name]
    for module in modules:
        importlib.import_module(module)
    _worker["imported"] = peak_mib()
    threadpool_limits(threads)  # BLAS and OpenMP, for the rest of the process
    if name == "PyTorch":
        sys.modules["torch"].set_num_threads(threads)
    _worker["step"] = build(config)


def take_steps(n: int) -> tuple[float, float, float | None]:
    """In a worker, n steps. -> ms per step, the last loss, peak memory in MiB since the import."""
    step, imported = _worker["step"], _worker["imported"]
    start = time.perf_counter()
    for _ in range(n):
        loss = step()
    ms = (time.perf_counter() - start) * 1000 / n
    return ms, loss, None if imported is None else peak_mib() - imported


def measure(config: Config, names: list[str], repeats: int, threads: int):
    """Time the contestants in turns. -> {name: ms of each repeat}, {name: peak MiB}."""
    spawn = multiprocessing.get_context("spawn")
    times: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float | None] = {}
    with ExitStack() as stack:
        workers = {}
        for name in names:
            pool = ProcessPoolExecutor(1, spawn, prepare, (name, config, threads))
            workers[name] = stack.enter_context(pool)

        def run(name: str, n: int):
            return workers[name].submit(take_steps, n).result()

        check_losses({name: run(name, WARM_UP_STEPS)[1] for name in names})
        turn = {name: max(3, round(TURN_SECONDS * 1000 / run(name, 3)[0])) for name in names}
        for repeat in range(repeats):
            for name in names if repeat % 2 == 0 else reversed(names):
                time.sleep(PAUSE_SECONDS)
                run(name, 1)  # untimed: wakes the threads, refills the caches
                ms, _, memory[name] = run(name, turn[name])
                times[name].append(ms)
    return times, memory


def check_losses(losses: dict[str, float]) -> None:
    """Stop unless both libraries have trained to the same loss: else they did different work."""
    ours, theirs = losses["minigpt"], losses.get("PyTorch")
    if theirs is not None and not abs(ours - theirs) <= LOSS_TOLERANCE:
        found = f"minigpt {ours:.6f}, PyTorch {theirs:.6f} nats per token"
        raise SystemExit(f"error: the losses differ after {WARM_UP_STEPS} steps: {found}")


def spread(values: list[float], digits: int) -> str:
    """The median, and the smallest and largest value."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def row(label: str, times: dict[str, list[float]], memory: dict[str, float | None]) -> list[str]:
    """One line of the table, a string per column of COLUMNS."""
    ours, products, theirs = times["minigpt"], times["products"], times.get("PyTorch")
    mib = {name: "not available" if m is None else f"{m:.0f}" for name, m in memory.items()}
    share = statistics.median(p / t for p, t in zip(products, ours, strict=True))
    versus = ("not installed", "", "")
    if theirs:
        ratios = [t / p for t, p in zip(ours, theirs, strict=True)]
        versus = (spread(theirs, 1), spread(ratios, 2), mib["PyTorch"])
    return [label, spread(ours, 1), *versus[:2], spread(products, 1), f"{share:.0%}",
            mib["minigpt"], versus[2]]  # fmt: skip


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


def describe(threads: int, has_torch: bool) -> str:
    """The machine and the versions, in one line."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    torch = importlib.metadata.version("torch") if has_torch else "not installed"
    numpy = f"NumPy {np.__version__} with {blas['name']} {blas['version']}"
    python = f"Python {platform.python_version()}, {threads} threads on {os.cpu_count()} CPUs"
    return f"{platform.system()} {platform.machine()}, {python}, {numpy}, PyTorch {torch}"


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.train_step", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=list(CONFIGS),
                        help="sizes to time (default: all)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="at least 5 (default: 7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="of each contestant (default: %(default)s, the CPUs)")  # fmt: skip
    args = parser.parse_args()
    if args.repeats < 5 or args.threads < 1:
        parser.error("--repeats must be at least 5 and --threads at least 1")
    has_torch = importlib.util.find_spec("torch") is not None
    names = ["minigpt", "PyTorch", "products"] if has_torch else ["minigpt", "products"]

    print(describe(args.threads, has_torch), flush=True)
    results = {k: measure(CONFIGS[k], names, args.repeats, args.threads) for k in args.configs}
    rows = [COLUMNS, *(row(label, *result) for label, result in results.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(map(str.ljust, cells, widths)).rstrip())
    print(LEGEND)


if __name__ == "__main__":
    main()
