"""Activation checkpointing: compute a block twice, and keep nothing of it but its input.

The backward pass needs what the forward pass computed. Kept for all blocks at once, that is most of
a step's memory. A block that is computed again when its gradient is due keeps one array instead of
thirty, and costs one more forward pass, a third of a step.
Source: Chen et al. 2016, arXiv:1604.06174, sec. 3.
"""

from typing import Any

from minigpt.model import GPT, Block
from minigpt.nn import Module
from minigpt.tensor import Tensor, _recording, no_grad, primitive


def recompute_blocks(model: GPT) -> None:
    """From now on, training steps of this model take less memory and more time.

    Gradients, parameter names and checkpoints stay the same to the last bit.
    """
    blocks: Any = [b if isinstance(b, Recomputed) else Recomputed(b) for b in model.h]
    model.h = blocks


class Recomputed(Module):
    """In place of a block, and with its attributes."""

    def __init__(self, block: Block):
        self.block = block

    def __getattr__(self, name: str) -> Any:
        if "block" not in vars(self):  # while this is being copied
            raise AttributeError(name)
        return getattr(self.block, name)

    def _walk(self, prefix: str):
        return self.block._walk(prefix)  # the parameters keep their names

    def __call__(self, x: Tensor, rng=None, bias=None) -> Tensor:
        if not x.requires_grad:  # the tape would not learn that the parameters are in this
            return self.block(x, rng, bias)
        return primitive(_computed_twice)(x, run=lambda x: self.block(x, rng, bias), rng=rng)


def _computed_twice(x, *, run, rng):
    """A primitive: run(x), with the same random numbers both times.

    Shapes: any -> that of run(x).
    VJP:    run's own, which also leaves the gradients of run's parameters in them.
    """
    before = rng and rng.bit_generator.state
    with no_grad():
        out = run(Tensor(x)).data

    def vjp(g):
        after, leaf = rng and rng.bit_generator.state, Tensor(x, requires_grad=True)
        if rng:
            rng.bit_generator.state = before
        token = _recording.set(True)  # also if backward() was called under no_grad
        run(leaf).backward(g)
        _recording.reset(token)
        if rng:
            rng.bit_generator.state = after
        return (leaf.grad,)

    return out, vjp
