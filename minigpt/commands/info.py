"""`python -m minigpt info`."""

import argparse
from collections.abc import Callable

from threadpoolctl import threadpool_info

from minigpt.backend import xp
from minigpt.commands.models import add_model_options, model_of
from minigpt.cost import (
    activation_bytes,
    cache_bytes,
    flops_per_token,
    parameters_by_part,
    state_bytes,
)
from minigpt.model import GPT
from minigpt.parallel import plan
from minigpt.settings import TrainConfig


def info(args: argparse.Namespace) -> None:
    """Print a model's parameters and cost, and what this machine computes with."""
    model = model_of(args)
    for name, p in model.named_parameters():
        print(f"{name:26s}{str(p.shape):>14s}{p.size:14,d}")
    print_cost(model)
    print(f"backend   {xp.__name__} {xp.__version__}")
    batch_size, config = TrainConfig.batch_size, model.config
    workers, each = plan(batch_size, config.block_size, config.n_embd)
    print(f"threads   {workers} to share a batch of {batch_size}, {each} for each one's products")
    for library in threadpool_info():
        print(f"threads   {library['num_threads']} in {library['user_api']}: "
              f"{library['internal_api']} {library['version']}")  # fmt: skip


def print_cost(model: GPT) -> None:
    """Parameters by part, the operations of training, and the bytes that a run holds."""
    rows = {"parameters": model.num_parameters()}
    rows |= {f"  {part}": count for part, count in parameters_by_part(model).items()}
    rows["FLOPs per training token"] = flops_per_token(model)
    rows |= {f"bytes of {name}": count for name, count in state_bytes(model).items()}
    rows["bytes of activations, each text"] = activation_bytes(model)
    rows["bytes of the KV cache, each text"] = cache_bytes(model)
    for name, count in rows.items():
        print(f"{name:40s}{count:14,d}")
    print()


def add(command: Callable) -> None:
    """Its options."""
    sub = command(info, "info", "", " --n-layer 12 --n-head 12 --n-embd 768")
    add_model_options(sub)
