"""Contestants take turns: each in a process of its own, one at a time, a few steps a turn.

A process of its own, so that neither allocator nor thread pool is shared. Turns, so that a change
in the machine's speed meets all: a ratio is taken within a repeat. Losses are compared before
anything is timed, so that all do the same work.
"""

import importlib.metadata
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.contestants import CONTESTANTS
from benchmarks.workload import Config

WARM_UP_STEPS = 5
TURN_SECONDS = 0.4  # about this long does one contestant run before it is another's turn
PAUSE_SECONDS = 0.1  # before a turn, so that the threads of the last one have gone to sleep
SLOW_SECONDS = 2.0  # a step of this length: 2 steps of warm-up, 1 a turn, in SLOW_REPEATS repeats
SLOW_REPEATS = 3
LOSS_TOLERANCE = 1e-5  # nats per token, at every step of the warm-up


@dataclass(frozen=True)
class Job:
    """One contestant at work. forward: only the loss is computed, and no gradient."""

    contestant: str
    config: Config
    forward: bool = False


@dataclass
class Result:
    """What was measured. ms, cpu_ms: per step, of each repeat; mib: peak memory since the import.

    cpu_ms is processor time, the sum over the threads: what other programs take is not in it.
    """

    losses: list[float] = field(default_factory=list)  # of the first steps
    turn: int = 0  # steps a repeat
    ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    mib: float | None = None
    failed: str = ""  # why there is nothing else


def peak_mib() -> float | None:
    """The largest resident set this process has had, in MiB; None where it cannot be asked."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss would start at the parent's
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text("ascii"))[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


_worker: dict = {}  # of a worker process: its step, its memory after the import


def prepare(job: Job, threads: int) -> None:
    """Make this fresh process the worker of one contestant."""
    os.environ["MINIGPT_BACKEND"] = "numpy"  # all on the CPU
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["NPROC"] = str(threads)  # the size of XLA's thread pool
    contestant = CONTESTANTS[job.contestant]
    for module in contestant.modules:
        importlib.import_module(module)
    _worker["imported"] = peak_mib()
    threadpool_limits(threads)  # BLAS and OpenMP, for the rest of the process
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    _worker["step"] = contestant.build(job.config, job.forward)


def take_steps(n: int) -> tuple[float, float, list[float], float | None]:
    """In a worker, n steps. -> ms a step, of the clock and of the processor; their losses; peak
    memory in MiB since the import."""
    step, imported = _worker["step"], _worker["imported"]
    start, cpu = time.perf_counter(), time.process_time()
    losses = [step() for _ in range(n)]
    ms, cpu_ms = (1000 * (time.perf_counter() - start) / n, 1000 * (time.process_time() - cpu) / n)
    return ms, cpu_ms, losses, None if imported is None else peak_mib() - imported


def measure(
    jobs: dict[str, Job],
    repeats: int,
    threads: int,
    report: Callable[[str], None] = lambda line: None,
    same_loss: bool = True,
) -> dict[str, Result]:
    """Time the jobs in turns; a job that raises has failed and takes no further part.

    Raises: SystemExit if two losses differ, unless the jobs are of different sizes.
    """
    spawn, results = multiprocessing.get_context("spawn"), {name: Result() for name in jobs}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(ProcessPoolExecutor(1, spawn)) for name in jobs}

        def run(name: str, n: int) -> tuple[float, float]:
            *ms, losses, results[name].mib = workers[name].submit(take_steps, n).result()
            results[name].losses += losses[: WARM_UP_STEPS - len(results[name].losses)]
            return tuple(ms)

        for name, job in jobs.items():
            report(f"{name}: first steps")
            try:
                workers[name].submit(prepare, job, threads).result()
                results[name].turn = warm_up(lambda n, name=name: run(name, n)[0])
            except Exception as error:  # what a library may raise is its own
                results[name].failed = f"{type(error).__name__}: {str(error).strip()}"
                report(f"{name}: failed: {results[name].failed}")
        if same_loss:
            check_losses({
                name: results[name].losses
                for name, job in jobs.items()
                if not results[name].failed and job.contestant != "products"
            })  # fmt: skip
        for repeat in range(repeats):
            report(f"repeat {repeat + 1} of {repeats}")
            for name in jobs if repeat % 2 == 0 else reversed(jobs):
                turn = results[name].turn
                if turn == 0 or (turn == 1 and repeat >= SLOW_REPEATS):
                    continue
                time.sleep(PAUSE_SECONDS)
                if turn > 1:
                    run(name, 1)  # untimed: wakes the threads, refills the caches
                ms, cpu_ms = run(name, turn)
                results[name].ms.append(ms)
                results[name].cpu_ms.append(cpu_ms)
    return results


def warm_up(run: Callable[[int], float]) -> int:
    """The first steps, with what is compiled in them. -> how many steps make a turn."""
    run(1)
    if run(1) > SLOW_SECONDS * 1000:
        return 1
    run(WARM_UP_STEPS - 2)
    return max(3, round(TURN_SECONDS * 1000 / run(3)))


def check_losses(losses: dict[str, list[float]]) -> None:
    """Stop unless all have the first one's loss at every step: else they did different work.

    A slow contestant is compared on the steps that it took.
    """
    first = next(iter(losses), None)
    for name, values in losses.items():
        for step, (ours, theirs) in enumerate(zip(losses[first], values, strict=False), 1):
            if not abs(ours - theirs) <= LOSS_TOLERANCE:
                raise SystemExit(f"error: the losses differ at step {step}: {first} {ours:.6f}, "
                                 f"{name} {theirs:.6f} nats per token")  # fmt: skip


def ratios(times: list[float], others: list[float]) -> list[float]:
    """times / others within each repeat that both took part in."""
    return [a / b for a, b in zip(times, others, strict=False)]


def spread(values: list[float], digits: int) -> str:
    """The median, and the smallest and largest value."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def print_table(rows: list[list[str]]) -> None:
    """Rows of equal length, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(map(str.ljust, cells, widths)).rstrip())


def describe(threads: int, has_torch: bool) -> str:
    """The machine and the versions, in one line."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    torch = importlib.metadata.version("torch") if has_torch else "not installed"
    numpy = f"NumPy {np.__version__} with {blas['name']} {blas['version']}"
    python = f"Python {platform.python_version()}, {threads} threads on {os.cpu_count()} CPUs"
    return f"{platform.system()} {platform.machine()}, {python}, {numpy}, PyTorch {torch}"
