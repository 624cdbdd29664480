"""The losses and gradient norms of the last steps, left on the device until somebody looks.

To read a number from a GPU is to wait until all that was asked of it is done, and while the host
waits it asks for nothing more. So a training step leaves its numbers where they are. On the
processor they are there at once, and are looked at after every step.
"""

import time
from typing import Any

from minigpt.backend import on_host, to_numpy, xp

LOOK_EVERY = 1 if on_host else 16  # steps


class Readings:
    """Two numbers of each step, 0-d arrays, and the time that the steps took."""

    def __init__(self):
        self.waiting: list[Any] = []
        self.began = 0.0

    def begin_step(self) -> None:
        """Call before each step: the clock of the first one counts."""
        if not self.waiting:
            self.began = time.perf_counter()

    def add(self, loss: Any, norm: Any) -> bool:
        """Keep a step's numbers. Returns whether it is time to read them."""
        self.waiting += [loss, norm]
        return len(self.waiting) == 2 * LOOK_EVERY

    def read(self) -> tuple[list[tuple[float, float]], float]:
        """All that wait, in one copy to the host: [(loss, norm), ...], and seconds a step."""
        if not self.waiting:
            return [], 0.0
        values = to_numpy(xp.stack(self.waiting)).tolist()
        pairs, self.waiting = list(zip(values[::2], values[1::2], strict=True)), []
        return pairs, (time.perf_counter() - self.began) / len(pairs)
