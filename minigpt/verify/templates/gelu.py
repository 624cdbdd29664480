"""The backward pass of GELU: fill in what raises NotImplementedError. Then run

python -m minigpt verify gelu_derivation.py
"""

import numpy as np

from minigpt.verify import derivation


def gelu(x):
    """x times a smooth step, in GPT-2's form. x (T, C) -> (T, C)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@derivation(of=gelu, x=("T", "C"))
def gelu_vjp(g, x):
    """g (T, C): the gradient in the output  ->  dx (T, C)."""
    raise NotImplementedError
