"""What moved between the host and the pretended device, and how often the host waited for it.

On a GPU a copy costs microseconds to milliseconds, and a synchronisation (the host waits until the
device is done) stops the queue of work that keeps the GPU busy. Neither shows in NumPy's timings,
so both are counted here.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields


@dataclass
class Counts:
    """Copies host to device and back, in numbers and in bytes; waits of the host."""

    copies_in: int = 0
    copies_out: int = 0
    synchronisations: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


_total = Counts()  # since the start of the program
_lock = threading.Lock()


def add(**numbers: int) -> None:
    """Add to the totals: add(copies_in=1, bytes_in=8)."""
    with _lock:
        for name, number in numbers.items():
            setattr(_total, name, getattr(_total, name) + number)


def total() -> Counts:
    """The numbers since the program started."""
    with _lock:
        return Counts(**{field.name: getattr(_total, field.name) for field in fields(Counts)})


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what happens inside: the Counts it gives holds the numbers once the block is left."""
    before, inside = total(), Counts()
    try:
        yield inside
    finally:
        after = total()
        for field in fields(Counts):
            name = field.name
            setattr(inside, name, getattr(after, name) - getattr(before, name))
