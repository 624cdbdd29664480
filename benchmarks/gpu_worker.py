"""What a contestant on a GPU computes, in a process of its own, and the clock in the GPU's queue.

Nothing here imports minigpt, CuPy or PyTorch before it is used: the environment, which names the
backend, must be set first.
"""

import importlib.metadata
import importlib.util
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generation import PROMPT, minigpt_draws, prompt
from benchmarks.workload import (
    ADAMW,
    Config,
    batches,
    initial_weight,
    initial_weights,
    matrix_products,
)

Turn = Callable[[int], list[Any]]  # so many steps or draws -> a number of each, still on the GPU
_worker: dict = {}  # of a worker process: its turn, its clock


# --- what a turn computes --------------------------------------------------------------------


def minigpt_turn(config: Config, half: bool = False) -> Turn:
    from minigpt.half import HalfPrecision, LossScale
    from minigpt.model import GPT, GPTConfig
    from minigpt.optim import AdamW, clip_grad_norm
    from minigpt.parallel import DataParallel

    model = GPT(GPTConfig(**config.network), rng=np.random.default_rng(0), dtype="float32")
    model.load_arrays(initial_weights(config))
    params, stream = model.parameters(), batches(config)
    optimizer = AdamW(params, decay=model.decayed_parameters(), **ADAMW)
    scale = LossScale()
    workers = HalfPrecision(model, optimizer, scale) if half else DataParallel(model, optimizer, 1)

    def step() -> Any:
        optimizer.zero_grad()
        loss = workers.backward(*next(stream))
        norm = clip_grad_norm(params, 1.0)
        if not half or scale.accepts(norm):
            optimizer.step()
        return loss

    return lambda n: [step() for _ in range(n)]


def torch_turn(config: Config, half: bool, device: str) -> Turn:
    """half: in autocast to float16, with a scaler of gradients; off, both do nothing."""
    import torch

    from benchmarks.torch_gpt import TorchGPT

    model = TorchGPT(**config.network)
    model.load_from({k: initial_weight(k, shape) for k, shape in model.shapes().items()})
    model.to(device)
    params, stream = list(model.parameters()), batches(config)
    adamw = torch.optim.AdamW(model.optimizer_groups(), fused=True, **ADAMW)
    scaler = torch.amp.GradScaler(device, enabled=half)

    def step() -> Any:
        idx, targets = (torch.from_numpy(x).to(device) for x in next(stream))
        adamw.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.float16, enabled=half):
            logits = model(idx).flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, targets.flatten())
        scaler.scale(loss).backward()
        scaler.unscale_(adamw)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        scaler.step(adamw)
        scaler.update()
        return loss.detach()

    return lambda n: [step() for _ in range(n)]


def products_turn(config: Config, half: bool = False) -> Turn:
    """Only the matrix products of a step, on operands that are already on the device."""
    from minigpt.backend import xp

    dtype = "float16" if half else "float32"
    numbers = xp.asarray(np.random.default_rng(2).normal(size=1 << 16).astype(dtype))

    def operand(*shape: int) -> Any:
        size = math.prod(shape)
        return xp.tile(numbers, -(-size // len(numbers)))[:size].reshape(shape)

    work = [
        (operand(batch, m, k), operand(batch, k, n), count)
        for (batch, m, k, n), count in matrix_products(config).items()
    ]

    def step() -> float:
        for x, y, count in work:
            for _ in range(count):
                x @ y  # noqa: B018 - into memory that CuPy's pool keeps
        return math.nan

    return lambda n: [step() for _ in range(n)]


def minigpt_draw_turn(folder: Path, n: int) -> Turn:
    draw = minigpt_draws(folder, n, cached=True)
    return lambda times: [token for _ in range(times) for token in draw()]


def transformers_turn(folder: Path, n: int, device: str) -> Turn:
    import torch
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder).eval().to(device)
    idx = torch.from_numpy(prompt(model.config.vocab_size)).to(device)
    options = dict(max_new_tokens=n, min_new_tokens=n, do_sample=False, use_cache=True,
                   pad_token_id=0, eos_token_id=None)  # fmt: skip

    def draw() -> list[int]:
        with torch.no_grad():
            return model.generate(idx, **options)[0, PROMPT:].tolist()

    return lambda times: [token for _ in range(times) for token in draw()]


# --- in a worker process ---------------------------------------------------------------------


class HostEvent:
    """In place of a GPU's event where there is no GPU."""

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """Nothing is queued."""


def clock(name: str, backend: str) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """What makes an event, and what tells the milliseconds between two."""
    if backend == "strict":
        return HostEvent, lambda start, stop: 1000 * (stop.at - start.at)
    if name in ("torch", "transformers"):
        import torch

        event = partial(torch.cuda.Event, enable_timing=True)
        return event, lambda start, stop: start.elapsed_time(stop)
    import cupy

    return cupy.cuda.Event, cupy.cuda.get_elapsed_time


def prepare(name: str, backend: str, tf32: bool, *work: Any) -> None:
    """Make this fresh process the worker of one contestant. work: its turn's arguments."""
    os.environ["MINIGPT_BACKEND"] = backend  # read when minigpt is imported, which is below
    os.environ["CUPY_TF32"] = str(int(tf32))  # read at CuPy's first product
    device = "cuda" if backend == "cupy" else "cpu"
    if name in ("torch", "transformers"):
        import torch

        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        work = (*work, device)
    turns = {"minigpt": minigpt_turn, "torch": torch_turn, "products": products_turn,
             "minigpt draws": minigpt_draw_turn, "transformers": transformers_turn}  # fmt: skip
    _worker.update(turn=turns[name](*work), clock=clock(name, backend), name=name, backend=backend)


def take_turn(n: int) -> tuple[float, list[float]]:
    """n steps (or draws) between two events. -> ms for each number that they gave; the numbers."""
    make, milliseconds = _worker["clock"]
    start, stop = make(), make()
    start.record()
    numbers = _worker["turn"](n)
    stop.record()
    stop.synchronize()
    return milliseconds(start, stop) / len(numbers), [float(x) for x in numbers]


def device_mib() -> float | None:
    """The GPU's memory that this process's library holds for its arrays, in MiB."""
    if _worker["backend"] == "strict":
        return None
    if _worker["name"] in ("torch", "transformers"):
        import torch

        return torch.cuda.max_memory_reserved() / 2**20
    import cupy

    return cupy.get_default_memory_pool().total_bytes() / 2**20


def describe(backend: str) -> str:
    """The device and the versions. Raises: ValueError if there is no such backend here."""
    os.environ["MINIGPT_BACKEND"] = backend
    from minigpt.backend import xp

    versions = f"NumPy {np.__version__}, PyTorch {version('torch')}, transformers " \
               f"{version('transformers')}"  # fmt: skip
    if backend == "strict":
        return f"no GPU, but {xp.__name__}, which only tests this program; {versions}"
    runtime = xp.cuda.runtime
    props = runtime.getDeviceProperties(xp.cuda.runtime.getDevice())
    gpu = f"{props['name'].decode()}, {props['multiProcessorCount']} multiprocessors, " \
          f"{props['totalGlobalMem'] / 2**30:.0f} GiB"  # fmt: skip
    cuda = f"driver for CUDA {runtime.driverGetVersion()}, runtime {runtime.runtimeGetVersion()}"
    return f"{gpu}, {cuda}, CuPy {xp.__version__}, {versions}"


def version(package: str) -> str:
    found = importlib.util.find_spec(package)
    return importlib.metadata.version(package) if found else "not installed"


def absent(name: str, backend: str) -> str:
    """Why a competitor takes no part, or "" if it does."""
    for package in ("torch", "transformers")[: 1 + (name == "transformers")]:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    built = f"PyTorch {torch.__version__}"
    return "" if backend == "strict" or torch.cuda.is_available() else f"{built} finds no GPU"


def write_model(folder: Path, network: dict[str, int]) -> None:
    """In a process of its own, on the host: the model that all draw from."""
    os.environ["MINIGPT_BACKEND"] = "numpy"
    from minigpt.gpt2 import write_gpt2
    from minigpt.model import GPT, GPTConfig

    write_gpt2(GPT(GPTConfig(**network), np.random.default_rng(0)), folder)
