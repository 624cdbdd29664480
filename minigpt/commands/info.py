"""`python -m minigpt info`."""

import argparse
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_info

from minigpt.backend import xp
from minigpt.checkpoint import load_checkpoint
from minigpt.commands.models import checkpoint_path
from minigpt.cost import flops_per_token
from minigpt.model import GPT, GPTConfig
from minigpt.options import add_options, config_of


def info(args: argparse.Namespace) -> None:
    """Print a model's parameters and cost, and what this machine computes with."""
    if args.checkpoint:
        model = load_checkpoint(checkpoint_path(args.checkpoint)).model
    else:
        model = GPT(config_of(GPTConfig, args), np.random.default_rng(0))
    for name, p in model.named_parameters():
        print(f"{name:26s}{str(p.shape):>14s}{p.size:14,d}")
    print(f"{'parameters':40s}{model.num_parameters():14,d}")
    print(f"{'FLOPs per training token':40s}{flops_per_token(model):14,d}\n")
    print(f"backend   {xp.__name__} {xp.__version__}")
    for library in threadpool_info():
        print(f"threads   {library['num_threads']} in {library['user_api']}: "
              f"{library['internal_api']} {library['version']}")  # fmt: skip


def add(command: Callable) -> None:
    """Its options."""
    sub = command(info, "info", "", " --n-layer 12 --n-head 12 --n-embd 768")
    sub.add_argument("checkpoint", nargs="?", help="a checkpoint or a run (default: a new model)")
    add_options(sub, GPTConfig, "vocab_size")
