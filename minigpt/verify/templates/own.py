"""A derivation of your own: put your function and your formula in the places below. Then run

python -m minigpt verify own_derivation.py
"""

import numpy as np

from minigpt.verify import derivation


def f(x, w):
    """Your function of float64 arrays, in NumPy. x (N, C), w (C,) -> (N,)."""
    return np.tanh(x) @ w


# of: your function. Then each of its arguments with its shape: letters are lengths that are drawn
# anew for every trial, numbers are fixed, () is a single number. Domains and integer ids:
#     from minigpt.verify import Input
#     x=Input(("N", "C"), low=0.1, high=2.0)      idx=Input(("N",), below="V")
# Not a VJP? kind="gradient", "jacobian", "hessian", "identity", "optimum" or "bound".
@derivation(of=f, x=("N", "C"), w=("C",))
def f_vjp(g, x, w):
    """g (N,): the gradient in f's output  ->  dx (N, C), dw (C,), in the order of the arguments."""
    raise NotImplementedError
