"""A training step by JAX: loss, gradient, clipping and AdamW compiled into one function."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as np

from benchmarks.composed_gpt import adamw, mean_loss
from benchmarks.workload import Config, batches, initial_weights


def jax_step(config: Config, forward: bool) -> Callable[[], float]:
    params, stream = jax.tree.map(np.asarray, initial_weights(config)), batches(config)
    m, v, t = *(jax.tree.map(np.zeros_like, params) for _ in range(2)), 0

    def loss_of(params, idx, targets):
        return mean_loss(np, params, idx, targets, config.network)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))  # the new values take the old ones' place
    def train(params, m, v, t, idx, targets):
        loss, grads = jax.value_and_grad(loss_of)(params, idx, targets)
        return loss, *adamw(np, params, grads, m, v, t)

    score = jax.jit(loss_of)

    def step() -> float:
        nonlocal params, m, v, t
        idx, targets = next(stream)
        if forward:
            return float(score(params, idx, targets))
        t += 1
        loss, params, m, v = jax.block_until_ready(train(params, m, v, t, idx, targets))
        return float(loss)

    return step
