"""The backward pass of an embedding: fill in what raises NotImplementedError. Then run

python -m minigpt verify embedding_derivation.py
"""

import numpy as np

from minigpt.verify import Input, derivation


def embedding(w, idx):
    """The rows of a table that the ids name. w (V, C), idx (T,) integers -> (T, C)."""
    return np.take(w, idx, axis=0)


@derivation(of=embedding, w=("V", "C"), idx=Input(("T",), below="V"))
def embedding_vjp(g, w, idx):
    """g (T, C): the gradient in the output  ->  dw (V, C). Some ids come more than once."""
    raise NotImplementedError
