"""The backward pass of causal attention: fill in what raises NotImplementedError. Then run

python -m minigpt verify attention_derivation.py
"""

import numpy as np

from minigpt.verify import derivation


def attention(q, k, v):
    """softmax(q k^T / sqrt(D), each query sees no later key) v.

    q, k (T, D), v (T, E) -> (T, E).
    """
    T, D = q.shape
    scores = q @ k.T / np.sqrt(D)  # (T, T)
    scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
    att = np.exp(scores - scores.max(-1, keepdims=True))
    att = att / att.sum(-1, keepdims=True)
    return att @ v


@derivation(of=attention, q=("T", "D"), k=("T", "D"), v=("T", "E"))
def attention_vjp(g, q, k, v):
    """g (T, E): the gradient in the output  ->  dq (T, D), dk (T, D), dv (T, E)."""
    raise NotImplementedError
