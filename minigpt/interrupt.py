"""Ctrl-C during a long job: finish the step at hand, then stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C only raises a flag, so a step is never cut in half. A second one stops at once."""
    hit: list[int] = []

    def note(number, frame):
        if hit:
            raise KeyboardInterrupt
        hit.append(number)

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(hit)
    finally:
        signal.signal(signal.SIGINT, before)
