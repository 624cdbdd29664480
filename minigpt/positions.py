"""Where a token stands: attention alone sees a set, so the order has to be put in.

Three ways without a learned table: waves added to the embeddings, queries and keys turned by their
position, and a penalty on distant keys.
"""

from typing import Any

from minigpt.backend import xp
from minigpt.tensor import primitive


def _angles(T: int, C: int, base: float, start: Any = 0) -> Any:
    """(start + t) / base^(2i / C), shape (T, C / 2): a clock for each pair of channels.

    Raises: ValueError if C is not even and positive, or base not positive.
    """
    if C < 2 or C % 2:
        raise ValueError(f"positions come in pairs of channels: need an even number, got {C}")
    if not base > 0:
        raise ValueError(f"base must be positive, got {base}")
    periods = base ** (xp.arange(0, C, 2) / C)  # (C / 2,), from 1 up towards base, over 2 pi
    return (start + xp.arange(T))[..., None] / periods


def sinusoids(T: int, C: int, *, base: float = 10000.0) -> Any:
    """Waves of falling frequency: a shift in time turns each pair of columns by a fixed angle.

    Shapes: -> (T, C) float64: columns 2i hold sin(t / base^(2i / C)), columns 2i + 1 its cosine.
    Raises: ValueError if C is odd or T < 1.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5.  Derived in chapters/10_positions.
    """
    if T < 1:
        raise ValueError(f"T must be at least 1, got {T}")
    angles = _angles(T, C, base)  # (T, C / 2)
    return xp.stack([xp.sin(angles), xp.cos(angles)], axis=-1).reshape(T, C)


@primitive
def rotary(x, *, base=10000.0, start=0):
    """Each pair (x[2i], x[2i+1]) at position t turned by the angle (start + t) / base^(2i / D).

    Of two vectors so turned, the inner product depends on the distance of their positions only.

    Shapes: x (..., T, D), D even -> the same. start: the position of the first row, or one for
            each text, (B, 1, 1) for x (B, H, T, D).
    VJP:    dx = g turned back: the inverse of a rotation is its transpose.
    Raises: ValueError if x has fewer than 2 axes or D is odd.
    Source: Su et al. 2021, arXiv:2104.09864, sec. 3.2.  Derived in chapters/10_positions.
    """
    if x.ndim < 2:
        raise ValueError(f"rotary: x must be (..., T, D), got {x.shape}")
    T, D = x.shape[-2:]
    angles = _angles(T, D, base, start)  # (T, D / 2)
    cos, sin = xp.cos(angles).astype(x.dtype), xp.sin(angles).astype(x.dtype)

    def turn(x, sin):
        out = xp.empty_like(x)
        even, odd = x[..., 0::2], x[..., 1::2]  # (..., T, D / 2)
        out[..., 0::2] = even * cos - odd * sin
        out[..., 1::2] = even * sin + odd * cos
        return out

    return turn(x, sin), (lambda g: turn(g, -sin),)


def alibi_bias(n_head: int, T: int) -> Any:
    """-slope * distance for every earlier key: linear, steep in the first head, flat in the last.

    The slopes are 2^(-8h / n_head), h = 1..n_head, also where n_head is no power of two (there
    the paper takes slopes from the neighbouring powers instead).

    Shapes: -> (n_head, T, T) float64: -slope_h * (i - j) for key j <= query i, 0 for later keys,
            which the causal mask forbids.
    Raises: ValueError if n_head or T is below 1.
    Source: Press et al. 2021, arXiv:2108.12409, sec. 3.  Derived in chapters/10_positions.
    """
    if n_head < 1 or T < 1:
        raise ValueError(f"n_head and T must be at least 1, got {n_head} and {T}")
    slopes = 2.0 ** (-8 * xp.arange(1, n_head + 1) / n_head)  # (H,)
    ahead = xp.arange(T) - xp.arange(T)[:, None]  # (T, T), j - i
    return slopes[:, None, None] * xp.minimum(ahead, 0)
