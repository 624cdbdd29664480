"""Data parallelism: threads share a batch, each with a replica of the model, and add up gradients.

A matrix product uses every processor by itself; what stands between two products uses one. So each
worker takes some of the sequences, with its part of the BLAS threads, and nothing waits. The
replicas share the weights. Their gradients are their own, and the sum over all sequences is what
one worker would compute, but for rounding.
"""

import copy
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from minigpt import functional as F
from minigpt.backend import on_host, xp
from minigpt.model import GPT
from minigpt.optim import Optimizer, views
from minigpt.tensor import Tensor
from minigpt.threads import each, shares

# Numbers in the residual stream, B * T * C, that are worth a thread. With fewer, calls are so short
# that handing work over, to a thread of Python's or of BLAS's, takes longer than doing it.
ENOUGH = 1 << 15


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def processors() -> int:
    """How many threads BLAS may use now, which is how many processors we take."""
    counts = [library.num_threads for library in _blas().lib_controllers]
    return max(counts, default=os.cpu_count() or 1)


def plan(sequences: int, T: int, C: int, workers: int = 0) -> tuple[int, int]:
    """How to share a batch of (sequences, T, C) numbers: (workers, BLAS threads of each).

    workers: so many; 0: by the rule.

    A worker gets a sequence or more, and ENOUGH numbers or more. What is not enough for two
    workers runs on one thread. A GPU needs no workers.
    """
    if workers == 0 and (sequences * T * C < 2 * ENOUGH or not on_host):
        return 1, 1
    workers = workers or min(sequences, processors(), sequences * T * C // ENOUGH)
    return workers, max(1, processors() // workers)


def by_shares(work: Callable[[int, int], Any], sequences: int, T: int, C: int) -> list[Any]:
    """[work(start, end), ...] for shares of the sequences, at once, as plan() has it."""
    workers, blas_threads = plan(sequences, T, C)
    with _blas().limit(limits=blas_threads):
        return each(work, shares(sequences, workers))


def replica(model: GPT, params: list[Tensor], data: Any, grad: Any) -> GPT:
    """A copy of the model whose parameters and gradients lie in flat arrays, (P,) each.

    params: the model's parameters, in the order of the arrays.
    """
    twins = [Tensor(view, requires_grad=True) for view in views(data, params)]
    for twin, view in zip(twins, views(grad, params), strict=True):
        twin.grad = view
    return copy.deepcopy(model, {id(p): twin for p, twin in zip(params, twins, strict=True)})


class DataParallel:
    """Computes a batch's gradient with several workers, and gives the optimizer as many.

    optimizer: of the model's parameters, which stay where it has put them.
    workers: threads. blas_threads: of each.
    """

    def __init__(self, model: GPT, optimizer: Optimizer, workers: int, blas_threads: int = 1):
        self.optimizer, self.workers, self.blas_threads = optimizer, workers, blas_threads
        self.models, self.grads = [model], [optimizer.grad]
        for _ in range(workers - 1):
            self.grads.append(xp.zeros_like(optimizer.grad))
            twin = replica(model, optimizer.params, optimizer.data, self.grads[-1])
            self.models.append(twin)
        optimizer.workers = workers

    def __str__(self) -> str:
        return f"{self.workers} to share a batch, {self.blas_threads} for each one's products"

    def backward(self, idx: np.ndarray, targets: np.ndarray, rng: Any = None, weight: float = 1.0):
        """Add weight * the gradient of the mean loss to the parameters' gradients.

        Shapes: idx, targets (B, T) int. Returns the mean loss in nats per token, a 0-d array (on a
        GPU nothing waits).
        rng: for dropout. Several workers draw from generators of their own, seeded by it: other
        masks than one worker's, and the same ones in each run.
        """
        parts = [part for part in shares(len(idx), self.workers) if part[0] < part[1]]
        rngs = self._generators(rng, len(parts))

        def work(worker: int, start: int, end: int) -> Any:
            if worker:
                self.grads[worker].fill(0)
            share = (end - start) / len(idx)
            logits = self.models[worker](idx[start:end], rngs[worker])
            loss = F.cross_entropy(logits, targets[start:end])
            loss.backward(weight * share)
            return loss.data * share

        def add(start: int, end: int) -> None:
            for grad in self.grads[1 : len(parts)]:
                self.grads[0][start:end] += grad[start:end]

        with _blas().limit(limits=self.blas_threads):
            losses = each(work, [(i, *part) for i, part in enumerate(parts)])
            each(add, shares(self.optimizer.grad.size, len(parts)))
        return sum(losses)

    def _generators(self, rng: Any, n: int) -> list[Any]:
        if rng is None or n == 1 or self.models[0].config.dropout == 0:
            return [rng] * n
        return [np.random.default_rng(seed) for seed in rng.integers(2**63, size=n)]
