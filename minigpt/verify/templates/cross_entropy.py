"""The backward pass of cross-entropy: fill in what raises NotImplementedError. Then run

python -m minigpt verify cross_entropy_derivation.py
"""

import numpy as np

from minigpt.verify import Input, derivation


def cross_entropy(logits, targets):
    """The mean of -log softmax(logits)[target]. logits (N, V), targets (N,) integers -> ()."""
    shifted = logits - logits.max(-1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))  # (N, V)
    return -logp[np.arange(len(targets)), targets].mean()


@derivation(of=cross_entropy, logits=("N", "V"), targets=Input(("N",), below="V"))
def cross_entropy_vjp(g, logits, targets):
    """g (): the gradient in the output  ->  dlogits (N, V)."""
    raise NotImplementedError
