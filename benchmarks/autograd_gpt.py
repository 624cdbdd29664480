"""A training step by HIPS autograd, which records NumPy's functions one by one on a tape."""

from collections.abc import Callable

import autograd
import autograd.numpy as np

from benchmarks.composed_gpt import adamw, mean_loss
from benchmarks.workload import Config, batches, initial_weights


def autograd_step(config: Config, forward: bool) -> Callable[[], float]:
    params, stream = initial_weights(config), batches(config)
    m, v, t = *({k: 0 * p for k, p in params.items()} for _ in range(2)), 0

    def loss_of(params, idx, targets):
        return mean_loss(np, params, idx, targets, config.network)

    def step() -> float:
        nonlocal params, m, v, t
        idx, targets = next(stream)
        if forward:
            return float(loss_of(params, idx, targets))
        loss, grads = autograd.value_and_grad(loss_of)(params, idx, targets)
        t += 1
        params, m, v = adamw(np, params, grads, m, v, t)
        return float(loss)

    return step
