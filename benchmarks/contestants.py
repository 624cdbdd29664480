"""Who takes part: the modules each needs, and what builds its step.

A step is a function without arguments that returns the loss in nats per token. Training: forward,
loss, backward, clipping at a global norm of 1, AdamW. Forward only: the loss, without a tape.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from unittest.mock import patch

import numpy as np

from benchmarks.workload import (
    ADAMW,
    Config,
    batches,
    initial_weight,
    initial_weights,
    matrix_products,
)

Step = Callable[[], float]


def minigpt_step(
    config: Config, forward: bool = False, recompute: bool = False, workers: int = 0
) -> Step:
    from minigpt import functional as F
    from minigpt.model import GPT, GPTConfig
    from minigpt.optim import AdamW, clip_grad_norm
    from minigpt.parallel import DataParallel, by_shares, plan
    from minigpt.recompute import recompute_blocks
    from minigpt.tensor import no_grad

    model = GPT(GPTConfig(**config.network), rng=np.random.default_rng(0), dtype="float32")
    model.load_arrays(initial_weights(config))
    if recompute:
        recompute_blocks(model)
    params, stream = model.parameters(), batches(config)
    batch = (config.batch_size, config.network["block_size"], config.network["n_embd"])

    def forward_step() -> float:
        idx, targets = next(stream)

        def loss(start: int, end: int) -> float:
            part = F.cross_entropy(model(idx[start:end]), targets[start:end]).item()
            return part * (end - start) / len(idx)

        with no_grad():
            return sum(by_shares(loss, *batch))

    if forward:
        return forward_step
    optimizer = AdamW(params, decay=model.decayed_parameters(), **ADAMW)
    team = DataParallel(model, optimizer, *plan(*batch, workers))

    def step() -> float:
        optimizer.zero_grad()
        loss = team.backward(*next(stream))
        clip_grad_norm(params, 1.0)
        optimizer.step()
        return float(loss)

    return step


def alone_step(config: Config, forward: bool = False) -> Step:
    return minigpt_step(config, forward, workers=1)


def recompute_step(config: Config, forward: bool = False) -> Step:
    return minigpt_step(config, forward, recompute=True)


def returned_step(config: Config, forward: bool = False) -> Step:
    memory = memory_unasked()
    memory.LARGE = math.inf
    return minigpt_step(config, forward)


def pooled_step(config: Config, forward: bool = False) -> Step:
    assert math.inf > memory_unasked().LARGE
    return minigpt_step(config, forward)


def memory_unasked() -> ModuleType:
    """minigpt.memory, where the C library was not told to keep freed memory."""
    with patch("ctypes.CDLL", side_effect=OSError):
        return importlib.import_module("minigpt.memory")


def torch_step(config: Config, forward: bool = False, compiled: bool = False) -> Step:
    import torch

    from benchmarks.torch_gpt import TorchGPT

    model = TorchGPT(**config.network)
    model.load_from({k: initial_weight(k, shape) for k, shape in model.shapes().items()})
    params, stream = list(model.parameters()), batches(config)
    adamw = None if forward else torch.optim.AdamW(model.optimizer_groups(), fused=True, **ADAMW)

    def loss_of(idx, targets):
        return torch.nn.functional.cross_entropy(model(idx).flatten(0, 1), targets.flatten())

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        idx, targets = map(torch.from_numpy, next(stream))
        with torch.no_grad() if forward else nullcontext():
            loss = loss_of(idx, targets)
        if not forward:
            adamw.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            adamw.step()
        return loss.item()

    return step


def compiled_step(config: Config, forward: bool = False) -> Step:
    return torch_step(config, forward, compiled=True)


def autograd_step(config: Config, forward: bool = False) -> Step:
    from benchmarks import autograd_gpt

    return autograd_gpt.autograd_step(config, forward)


def jax_step(config: Config, forward: bool = False) -> Step:
    from benchmarks import jax_gpt

    return jax_gpt.jax_step(config, forward)


def products_step(config: Config, forward: bool = False) -> Step:
    """Only the matrix products of a step, on operands that are already there."""
    rng = np.random.default_rng(2)
    work = []
    for (batch, m, k, n), count in matrix_products(config, forward).items():
        lead = () if batch == 1 else (batch,)
        x = rng.normal(size=(*lead, m, k)).astype(np.float32)
        y = rng.normal(size=(*lead, k, n)).astype(np.float32)
        work.append((x, y, np.empty((*lead, m, n), np.float32), count))

    def step() -> float:
        for x, y, out, count in work:
            for _ in range(count):
                np.matmul(x, y, out=out)
        return math.nan

    return step


@dataclass(frozen=True)
class Contestant:
    label: str
    modules: tuple[str, ...]  # all that a step needs, so that none is imported in a timed one
    build: Callable[[Config, bool], Step]

    def installed(self) -> bool:
        return importlib.util.find_spec(self.modules[0].split(".")[0]) is not None


CONTESTANTS = {
    "minigpt": Contestant("minigpt", ("minigpt.model", "minigpt.parallel"), minigpt_step),
    "alone": Contestant("minigpt, 1 worker", ("minigpt.model", "minigpt.parallel"), alone_step),
    "recompute": Contestant("minigpt, recompute", ("minigpt.recompute", "minigpt.parallel"),
                            recompute_step),
    "returned": Contestant("minigpt, returning", ("numpy",), returned_step),
    "pooled": Contestant("minigpt, its blocks", ("numpy",), pooled_step),
    "torch": Contestant("PyTorch", ("torch", "torch._dynamo"), torch_step),
    "compiled": Contestant("PyTorch, compiled", ("torch", "torch._inductor.compile_fx"),
                           compiled_step),
    "autograd": Contestant("autograd", ("autograd.numpy",), autograd_step),
    "jax": Contestant("JAX, compiled", ("jax.numpy",), jax_step),
    "products": Contestant("products alone", ("numpy",), products_step),
}  # fmt: skip
