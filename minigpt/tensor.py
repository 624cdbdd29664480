"""Reverse-mode automatic differentiation: Tensor, @primitive, backward.

A primitive works on raw arrays and returns `(out, vjp)`. `vjp` maps the cotangent `g` of the
output (the gradient of the final scalar with respect to `out`, so of its shape) to one gradient
per array argument. It is a closure: what the backward pass needs, it has captured.
`backward` walks the recorded graph from the output to the leaves and applies these closures.
Second derivatives are not recorded; difference the gradients instead.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from minigpt import memory
from minigpt.backend import to_numpy, xp

_FREED = object()  # in place of the vjp of a node whose graph was freed
_recording: ContextVar[bool] = ContextVar("recording", default=True)


class Tensor:
    """An array that remembers how it was computed.

    data: the array. grad: None, or an array of data's shape that no other Tensor uses; only leaves
    (Tensors that no primitive made) keep one, and it accumulates until it is set to None or 0.
    Raises: ValueError if the data is not numeric, or a gradient is asked for of integers.
    """

    __slots__ = ("data", "grad", "requires_grad", "_parents", "_vjp", "__weakref__")
    __array_ufunc__ = None  # ndarray + Tensor reaches Tensor.__radd__

    # Bound at the end of ops.py, which this file does not know.
    __add__: Callable[..., "Tensor"]
    __radd__: Callable[..., "Tensor"]
    __sub__: Callable[..., "Tensor"]
    __rsub__: Callable[..., "Tensor"]
    __mul__: Callable[..., "Tensor"]
    __rmul__: Callable[..., "Tensor"]
    __truediv__: Callable[..., "Tensor"]
    __rtruediv__: Callable[..., "Tensor"]
    __pow__: Callable[..., "Tensor"]
    __rpow__: Callable[..., "Tensor"]
    __matmul__: Callable[..., "Tensor"]
    __rmatmul__: Callable[..., "Tensor"]
    __neg__: Callable[..., "Tensor"]
    __getitem__: Callable[..., "Tensor"]
    exp: Callable[..., "Tensor"]
    log: Callable[..., "Tensor"]
    sum: Callable[..., "Tensor"]
    mean: Callable[..., "Tensor"]
    max: Callable[..., "Tensor"]
    var: Callable[..., "Tensor"]
    reshape: Callable[..., "Tensor"]
    transpose: Callable[..., "Tensor"]
    T: Any

    def __init__(self, data: Any, requires_grad: bool = False):
        self.data = xp.asarray(data)
        if self.data.dtype.kind not in "fiubc":
            raise ValueError(f"data must be numbers, not {type(data).__name__} ({self.data.dtype})")
        if requires_grad and self.data.dtype.kind not in "fc":
            raise ValueError(f"requires_grad needs floating point data, not {self.data.dtype}")
        self.grad: Any = None
        self.requires_grad = requires_grad
        self._parents: tuple[Tensor | None, ...] = ()
        self._vjp: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({to_numpy(self.data)}, dtype={self.dtype}{grad})"

    def item(self) -> float:
        """The one element as a Python number. On a GPU this waits for the device."""
        return self.data.item()

    def numpy(self) -> Any:
        """The data as a NumPy array: itself, or from a GPU a copy, which waits for the device."""
        return to_numpy(self.data)

    def detach(self) -> "Tensor":
        """The same data, cut off from the graph."""
        return Tensor(self.data)

    def backward(self, g: Any = None) -> None:
        """Add the gradient of sum(g * self) to `.grad` of every leaf, and free the graph.

        g: the cotangent, of this Tensor's shape; may be left out if there is one element.
        Raises: ValueError if nothing was recorded, the graph was freed, or g has another shape.
        """
        if not self.requires_grad:
            raise ValueError("backward() needs a Tensor computed from one with requires_grad=True")
        if g is None and self.size != 1:
            raise ValueError(f"backward() needs g for an output of shape {self.shape}")
        g = g.data if isinstance(g, Tensor) else g
        g = xp.ones_like(self.data) if g is None else xp.asarray(g, dtype=self.dtype)
        if g.shape != self.shape:
            raise ValueError(f"g has shape {g.shape}, but the output has shape {self.shape}")
        waiting = _count_consumers(self)
        grads = {id(self): g}  # node -> the cotangent summed so far
        ready = [self]  # nodes whose consumers are all done
        while ready:
            node = ready.pop()
            g = grads.pop(id(node))
            if node._vjp is None:
                node._accumulate(g)
                continue
            parents, gradients = node._parents, _apply(node, g)
            node._parents, node._vjp = (), _FREED  # drops the closure and what it captured
            for parent, dx in zip(parents, gradients, strict=False):
                if parent is None:
                    continue
                key = id(parent)
                # The sum is out of place: dx may be g.
                grads[key] = memory.add(grads[key], dx) if key in grads else dx
                waiting[key] -= 1
                if waiting[key] == 0:
                    ready.append(parent)

    def _accumulate(self, g: Any) -> None:
        """A leaf copies its gradient, so that no two Tensors ever share one."""
        if self.grad is None:
            self.grad = xp.array(g, dtype=self.dtype)
        else:
            self.grad += g


def _count_consumers(root: Tensor) -> dict[int, int]:
    """How many recorded uses each node below root has. Iterative: graphs are deeper than stacks."""
    counts = {id(root): 0}
    stack = [root]
    while stack:
        node = stack.pop()
        if node._vjp is _FREED:
            raise ValueError("the graph was freed by an earlier backward(): compute it again")
        for parent in node._parents:
            if parent is None:
                continue
            if id(parent) not in counts:
                counts[id(parent)] = 0
                stack.append(parent)
            counts[id(parent)] += 1
    return counts


def _apply(node: Tensor, g: Any) -> list[Any]:
    """The gradients for node's parents: from one closure, or from a tuple, one for each."""
    if callable(node._vjp):
        gradients = list(node._vjp(g))
    else:
        gradients = [
            f(g) if parent is not None else None
            for parent, f in zip(node._parents, node._vjp, strict=False)
        ]
    if len(gradients) < len(node._parents):
        raise ValueError(
            f"a vjp returned {len(gradients)} gradients for {len(node._parents)} arguments"
        )
    for parent, dx in zip(node._parents, gradients, strict=False):
        found = None if dx is None else dx.shape
        if parent is not None and found != parent.shape:
            raise ValueError(f"a vjp returned shape {found} for an argument of {parent.shape}")
    return gradients


def primitive(forward: Callable) -> Any:
    """Make an op on Tensors of a function on arrays that returns `(out, vjp)`.

    Arrays are positional, options are keywords. `vjp` is a tuple of functions, one per array
    argument, when these share nothing (only the needed ones run), or one function that returns a
    tuple. Closures capture arrays, never Tensors, so that no graph is a reference cycle.
    """

    @wraps(forward)
    def op(*args, **options) -> Tensor:
        lists = [x for a in args if isinstance(a, list | tuple) for x in a]
        if any(isinstance(x, Tensor) for x in (*lists, *options.values())):
            raise ValueError(f"{forward.__name__}: give each Tensor by itself and by position")
        arrays = [a.data if isinstance(a, Tensor) else a for a in args]
        data, vjp = forward(*arrays, **options)
        out = Tensor(data)
        if _recording.get():
            parents = tuple(a if isinstance(a, Tensor) and a.requires_grad else None for a in args)
            if any(parent is not None for parent in parents):
                out.requires_grad, out._parents, out._vjp = True, parents, vjp
        return out

    op.forward = forward  # type: ignore[attr-defined]
    return op


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside, primitives record nothing: for evaluation and generation."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)
