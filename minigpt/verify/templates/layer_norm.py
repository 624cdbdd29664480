"""The backward pass of layer norm: fill in what raises NotImplementedError. Then run

python -m minigpt verify layer_norm_derivation.py
"""

import numpy as np

from minigpt.verify import derivation


def layer_norm(x, w, b, eps=1e-5):
    """Mean 0 and variance 1 along each row, times w, plus b. x (N, C), w, b (C,) -> (N, C)."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * w + b


@derivation(of=layer_norm, x=("N", "C"), w=("C",), b=("C",))
def layer_norm_vjp(g, x, w, b, eps=1e-5):
    """g (N, C): the gradient in the output  ->  dx (N, C), dw (C,), db (C,)."""
    raise NotImplementedError
