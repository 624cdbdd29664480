"""What both tokenizers ask of the ids that they decode."""

from collections.abc import Sequence

import numpy as np


def checked_ids(ids: Sequence[int] | np.ndarray, vocab_size: int) -> np.ndarray:
    """The ids as an array.

    Shapes: (n,) integers, 0 <= id < vocab_size -> the same.
    Raises: ValueError if `ids` is not one-dimensional, not integer or out of range.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise ValueError(f"ids must be one-dimensional, got shape {ids.shape}")
    if ids.size == 0:
        return ids.astype(np.int64)  # NumPy calls an empty list float64
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be integers, got dtype {ids.dtype}")
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if outside.size:
        raise ValueError(f"id {outside[0]} is out of range: expected 0 <= id < {vocab_size}")
    return ids
