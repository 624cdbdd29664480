"""Optimizers over one flat buffer of parameters and one of gradients; clipping.

An optimizer moves its parameters' data and gradients into two flat arrays, of which each
parameter keeps a view. An update is then a few array operations over the whole model. It runs in
chunks that fit the cache, so memory is read once and not once an operation.
"""

import math
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from minigpt import kernels, memory
from minigpt.backend import xp
from minigpt.tensor import Tensor
from minigpt.threads import each, shares

CHUNK = 1 << 15  # elements: five float32 arrays of this size fit a core's second-level cache


def views(flat: Any, params: list[Tensor]) -> list[Any]:
    """Parts of a flat array (P,), one in the shape of each parameter, in their order."""
    ends = [*accumulate(p.size for p in params)]
    return [flat[end - p.size : end].reshape(p.shape) for p, end in zip(params, ends, strict=True)]


class Optimizer:
    """Owns the flat buffers. Subclasses define step().

    params: Tensors with requires_grad, all of one dtype. lr: learning rate, may be set at any time.
    Raises: ValueError if there are none, one comes twice, or dtypes differ.
    """

    def __init__(self, params: Iterable[Tensor], lr: float):
        self.params, self.lr, self.steps = list(params), lr, 0
        if not self.params:
            raise ValueError("an optimizer needs at least one parameter")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError("a parameter was given to the optimizer twice")
        if len({p.dtype for p in self.params}) > 1 or not all(p.requires_grad for p in self.params):
            raise ValueError("parameters must have requires_grad and be of one dtype")
        self.workers = 1  # threads that share an update
        self.data = xp.concatenate([p.data.reshape(-1) for p in self.params])  # (P,)
        self.grad = xp.zeros_like(self.data)
        self._views = views(self.grad, self.params)
        for p, view in zip(self.params, views(self.data, self.params), strict=True):
            p.data = view
        self.zero_grad()

    def zero_grad(self) -> None:
        """Gradients accumulate over backward passes: start the next sum from 0."""
        self.grad.fill(0)
        for p, view in zip(self.params, self._views, strict=True):
            p.grad = view

    def gather(self) -> None:
        """Bring back a gradient that somebody has replaced instead of filled."""
        for p, view in zip(self.params, self._views, strict=True):
            if p.grad is not view:
                view[...] = 0 if p.grad is None else p.grad
                p.grad = view

    def step(self) -> None:
        raise NotImplementedError

    def buffers(self) -> dict:
        """The flat arrays that a later run needs to go on: name -> (P,)."""
        return {}


class SGD(Optimizer):
    """Stochastic gradient descent: m = momentum * m + g, then x = x - lr * m.

    Source: Polyak 1964; Sutskever et al. 2013, ICML, who put lr inside the momentum. Outside, as
    here, a changed lr takes effect at once.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.0):
        super().__init__(params, lr)
        self.momentum, self.m = momentum, xp.zeros_like(self.data)

    def step(self) -> None:
        """Move every parameter once, along its gradient and its momentum."""
        self.gather()
        self.steps += 1
        self.m *= self.momentum
        self.m += self.grad
        self.data -= self.lr * self.m

    def buffers(self) -> dict:
        return {"m": self.m}


class Adam(Optimizer):
    """Adam: the mean m of the gradient over the root of the mean v of its square.

    Both means start at 0, so after t steps they are too small by 1 - beta**t: divided out.
    Source: Kingma & Ba 2014, arXiv:1412.6980, algorithm 1.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, betas=(0.9, 0.999), eps: float = 1e-8):
        super().__init__(params, lr)
        self.betas, self.eps = betas, eps
        self.m, self.v = xp.zeros_like(self.data), xp.zeros_like(self.data)
        self.weight_decay, self.shrinking = 0.0, self.data[:0]  # AdamW's

    def step(self) -> None:
        """Move every parameter once, by about lr, against its mean gradient's sign."""
        self.gather()
        self.steps += 1
        if kernels.fit(self.data):  # on a GPU, one kernel
            return kernels.adam(self)
        each(self._update, shares(len(self.data), self.workers))

    def _update(self, start: int, end: int) -> None:
        """Move the numbers from start to end, by chunks that stay in the cache."""
        scratch = memory.like(self.data[:CHUNK])
        for i in range(start, end, CHUNK):
            self._update_chunk(slice(i, min(i + CHUNK, end)), scratch)

    def _update_chunk(self, chunk: slice, scratch: Any) -> None:
        (b1, b2), t = self.betas, self.steps
        x, g, m, v = (a[chunk] for a in (self.data, self.grad, self.m, self.v))
        s = scratch[: len(x)]
        m *= b1
        m += xp.multiply(g, 1 - b1, out=s)
        v *= b2
        xp.multiply(g, g, out=s)
        s *= 1 - b2
        v += s
        xp.sqrt(v, out=s)
        s *= 1 / math.sqrt(1 - b2**t)
        s += self.eps
        xp.divide(m, s, out=s)
        s *= self.lr / (1 - b1**t)
        x -= s

    def buffers(self) -> dict:
        return {"m": self.m, "v": self.v}


class AdamW(Adam):
    """Adam with decoupled weight decay: x = (1 - lr * weight_decay) x, apart from the gradient.

    decay: the parameters that shrink; None: every matrix, so that gains and offsets, which are
    vectors, are left alone. A GPT passes its decayed_parameters(), which says why.
    Source: Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2, which scales the decay by the
    schedule alone; here, as in PyTorch, by lr.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas=(0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        decay: Iterable[Tensor] | None = None,
    ):
        params = list(params)
        chosen = {id(p) for p in ([p for p in params if p.ndim > 1] if decay is None else decay)}
        params.sort(key=lambda p: id(p) not in chosen)  # stable: those that shrink come first
        super().__init__(params, lr, betas, eps)
        self.weight_decay = weight_decay
        self.shrinking = self.data[: sum(p.size for p in params if id(p) in chosen)]

    def _update_chunk(self, chunk: slice, scratch: Any) -> None:
        """Shrink what decays, then move as Adam does."""
        self.shrinking[chunk] *= 1 - self.lr * self.weight_decay
        super()._update_chunk(chunk, scratch)


def clip_grad_norm(params: Iterable[Tensor], max_norm: float):
    """Scale all gradients together so that their global norm is at most max_norm.

    Returns the norm before scaling, as a 0-d array (on a GPU nothing waits for it).
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063.
    """
    grads = [p.grad for p in params if p.grad is not None]
    norm = xp.sqrt(sum(xp.vdot(g, g) for g in grads))
    scale = xp.minimum(1, max_norm / (norm + 1e-12)).astype(norm.dtype)
    for g in grads:
        g *= scale
    return norm
