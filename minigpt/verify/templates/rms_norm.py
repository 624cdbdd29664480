"""The backward pass of RMS norm: fill in what raises NotImplementedError. Then run

python -m minigpt verify rms_norm_derivation.py
"""

import numpy as np

from minigpt.verify import derivation


def rms_norm(x, w, eps=1e-5):
    """Each row divided by its root mean square, times w. x (N, C), w (C,) -> (N, C)."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * w


@derivation(of=rms_norm, x=("N", "C"), w=("C",))
def rms_norm_vjp(g, x, w, eps=1e-5):
    """g (N, C): the gradient in the output  ->  dx (N, C), dw (C,)."""
    raise NotImplementedError
