"""Training in float16: half the memory for a batch, and products that a GPU does faster.

What float16 lacks is room: it ends at 65,504, has 11 bits, and calls 0 what is below 6e-8. So

- the optimizer's weights stay float32, since a step is often less than 1/2,048 of a weight. A
  replica of the model, rounded anew for each batch, computes;
- many gradients are below 6e-8. They are linear in the loss's cotangent, so that is a large scale
  instead of 1, and the scale is divided out in float32;
- a scale that is too large shows in a gradient that is inf or NaN. Then the step is skipped;
- sums and powers are float32: those of wide.py, and all of the loss with its cotangent, which as
  float16 would overflow at a scale of 2^16.

To know whether a step may be taken is to wait for the GPU, once a step: float32 never waits.
Source: Micikevicius et al. 2018, arXiv:1710.03740, sec. 3.
"""

import math
from typing import Any

import numpy as np

from minigpt import functional as F
from minigpt.backend import xp
from minigpt.model import GPT
from minigpt.optim import Optimizer
from minigpt.parallel import DataParallel, plan, replica
from minigpt.settings import TrainConfig
from minigpt.tensor import primitive
from minigpt.wide import HALF

FIRST = 2.0**16  # powers of 2: to multiply by one and to divide by it again rounds nothing
GOOD_STEPS = 2000  # until a larger scale is tried


class LossScale:
    """What multiplies the loss, so that its gradients fit float16. Nothing else is kept here.

    value: the scale. good: steps taken since it changed. skipped: steps not taken, in all.
    """

    def __init__(self):
        self.value, self.good, self.skipped = FIRST, 0, 0

    def accepts(self, norm: Any) -> bool:
        """Whether a gradient of this norm, a 0-d array, may move the weights. Waits for a GPU.

        The scale falls by half where it is not finite, and doubles after GOOD_STEPS that were.
        """
        taken = math.isfinite(norm.item())
        self.good, self.skipped = self.good + 1 if taken else 0, self.skipped + (not taken)
        if not taken:
            self.value /= 2
        elif self.good == GOOD_STEPS:
            self.value, self.good = self.value * 2, 0
        return taken

    def __str__(self) -> str:
        return f"loss scale {self.value:g}, skipped steps {self.skipped}"


class HalfPrecision:
    """Computes a batch's gradient in float16, as DataParallel does in the weights' own dtype.

    optimizer: of the model's parameters, which stay as they are. scale: looked up at each batch.
    """

    def __init__(self, model: GPT, optimizer: Optimizer, scale: LossScale):
        self.optimizer, self.scale = optimizer, scale
        self.data, self.grad = (xp.zeros(optimizer.data.shape, HALF) for _ in range(2))  # (P,)
        self.model = replica(model, optimizer.params, self.data, self.grad)
        if hasattr(model, "waves"):  # the one constant that is added to activations
            self.model.waves = model.waves.astype(HALF)

    def __str__(self) -> str:
        return "1, whose products are float16"

    def backward(self, idx: np.ndarray, targets: np.ndarray, rng: Any = None, weight: float = 1.0):
        """Add weight * the gradient of the mean loss to the parameters' gradients, unscaled.

        Shapes: idx, targets (B, T) int. Returns the mean loss in nats per token, a 0-d array of
        float32. rng: for dropout.
        """
        with np.errstate(all="ignore"):  # what overflows is found in the gradient's norm
            self.data[...] = self.optimizer.data
            self.grad.fill(0)
            logits = primitive(_widened)(self.model(idx, rng))
            loss = F.cross_entropy(logits, targets)
            loss.backward(weight * self.scale.value)
            self.optimizer.grad += self.grad.astype("float32") / self.scale.value
        return loss.data


def _widened(x):
    """A primitive: the same numbers as float32. VJP: dx = g, rounded to x's dtype."""
    dtype = x.dtype
    return x.astype("float32"), (lambda g: g.astype(dtype),)


def workers_of(model: GPT, optimizer: Optimizer, config: TrainConfig, scale: LossScale) -> Any:
    """What computes the gradients of a run: by config.precision and, in float32, its workers."""
    if config.precision == "float16":
        return HalfPrecision(model, optimizer, scale)
    shape = model.config.block_size, model.config.n_embd
    return DataParallel(model, optimizer, *plan(config.batch_size, *shape, config.workers))
