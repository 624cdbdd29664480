"""GPT from first principles in NumPy: a hand-written autograd, a transformer, and their checks.

Read in this order: tensor, ops, functional, attention, positions, nn, model. That is the whole
network and its gradient.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "Tensor": "tensor", "no_grad": "tensor", "primitive": "tensor",
    "GPT": "model", "GPTConfig": "model",
    "check_grads": "gradcheck",
    "SGD": "optim", "Adam": "optim", "AdamW": "optim", "clip_grad_norm": "optim",
    "CharTokenizer": "tokenizer", "BPETokenizer": "tokenizer",
    "generate": "generate",
    "save_checkpoint": "checkpoint", "load_checkpoint": "checkpoint",
}  # fmt: skip
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str):
    """Import a public name on first use (PEP 562).

    So `--help` needs no NumPy, and a backend that is not there is reported by the command line in
    one line instead of by a traceback from here.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'minigpt' has no attribute {name!r}")
    importlib.import_module("minigpt.ops")  # binds the operators of Tensor
    return getattr(importlib.import_module(f"minigpt.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
