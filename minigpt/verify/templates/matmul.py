"""The backward pass of a matrix product: fill in what raises NotImplementedError. Then run

python -m minigpt verify matmul_derivation.py
"""

import numpy as np

from minigpt.verify import derivation


def matmul(x, w):
    """The product of each matrix of the batch with w. x (B, N, K), w (K, M) -> (B, N, M)."""
    return np.matmul(x, w)


@derivation(of=matmul, x=("B", "N", "K"), w=("K", "M"))
def matmul_vjp(g, x, w):
    """g (B, N, M): the gradient in the output  ->  dx (B, N, K), dw (K, M)."""
    raise NotImplementedError
