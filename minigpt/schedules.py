"""Learning-rate schedules: what the rate of a step is, counted from 0.

All begin with the same linear warm-up, from lr / warmup to lr, because Adam's first steps rest on
few gradients. They differ in what follows. A schedule that knows the number of steps is a function;
one that waits to see how training goes has a state.
"""

import math


def warmup_constant(step: int, *, lr: float, warmup: int) -> float:
    """lr after the warm-up, for ever."""
    return lr * (step + 1) / warmup if step < warmup else lr


def warmup_linear(step: int, *, lr: float, warmup: int, steps: int, final: float = 0.1) -> float:
    """A straight line from lr down to final * lr at the last of `steps` steps."""
    if step < warmup:
        return warmup_constant(step, lr=lr, warmup=warmup)
    return lr * (1 - (1 - final) * _progress(step, warmup, steps))


def warmup_cosine(step: int, *, lr: float, warmup: int, steps: int, final: float = 0.1) -> float:
    """Half a cosine from lr down to final * lr at the last of `steps` steps.

    Flat at both ends: it stays near lr while there is far to go, and lands softly.
    Source: Loshchilov & Hutter 2016, arXiv:1608.03983.
    """
    if step < warmup:
        return warmup_constant(step, lr=lr, warmup=warmup)
    wave = 0.5 * (1 + math.cos(math.pi * _progress(step, warmup, steps)))
    return lr * (final + (1 - final) * wave)


def _progress(step: int, warmup: int, steps: int) -> float:
    """0 at the first step after the warm-up, 1 at the last step and beyond."""
    return min(1.0, (step - warmup) / max(1, steps - 1 - warmup))


class Plateau:
    """Shrink the rate whenever the held-out loss has stopped falling.

    `scale` is 1 at first; it is multiplied by `factor` after `patience` evaluations in a row
    without a new best. Nothing has to be known of the number of steps.
    """

    def __init__(self, factor: float = 0.5, patience: int = 3):
        if not 0 < factor < 1 or patience < 1:
            raise ValueError(f"expected 0 < factor < 1 and patience >= 1, got {factor}, {patience}")
        self.factor, self.patience = factor, patience
        self.scale, self.best, self.waited = 1.0, math.inf, 0

    def update(self, loss: float) -> float:
        """Tell the loss of an evaluation; the scale from now on."""
        if loss < self.best:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited == self.patience:
            self.scale, self.waited = self.scale * self.factor, 0
        return self.scale
