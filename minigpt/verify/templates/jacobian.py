"""The Jacobian of softmax: fill in what raises NotImplementedError. Then run

python -m minigpt verify jacobian_derivation.py
"""

import numpy as np

from minigpt.verify import derivation


def softmax(x):
    """exp(x) / sum(exp(x)). x (C,) -> p (C,)."""
    e = np.exp(x - x.max())
    return e / e.sum()


@derivation(of=softmax, kind="jacobian", x=("C",))
def softmax_jacobian(x):
    """x (C,)  ->  J (C, C): J[i, j] is the derivative of p[i] in x[j]."""
    raise NotImplementedError
