"""Work on several processors at once: plain threads.

NumPy releases Python's lock while it computes, so threads that mostly call NumPy run at the same
time. Each call costs a few microseconds under the lock: small arrays gain nothing.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import cache
from typing import Any


@cache
def _pool() -> ThreadPoolExecutor:
    """The threads of this process. They sleep while there is nothing to do."""
    return ThreadPoolExecutor(os.cpu_count())


def each(work: Callable, parts: Iterable[tuple]) -> list[Any]:
    """[work(*part) for part in parts], all at once: the first part here, the others on threads.

    Under no_grad here, they are too. If several fail, the first one's error is raised, when all
    have ended.
    """
    first, *others = parts
    running = [_pool().submit(copy_context().run, work, *part) for part in others]
    try:
        done = work(*first)
    finally:
        wait(running)
    return [done, *(future.result() for future in running)]


def shares(n: int, workers: int) -> list[tuple[int, int]]:
    """0..n cut into as many ranges (start, end) as there are workers, their lengths equal to 1."""
    cuts = [n * i // workers for i in range(workers + 1)]
    return list(zip(cuts, cuts[1:], strict=False))
