"""RMS norm: what Llama has in place of GPT-2's layer norm."""

from minigpt import memory
from minigpt.backend import column_dots, row_dots, xp
from minigpt.functional import check_norm
from minigpt.tensor import primitive
from minigpt.wide import in_float32


@primitive
@in_float32
def rms_norm(x, w, *, eps=1e-5):
    """Mean square 1 along the last axis, then a gain w: layer_norm without centring.

    Shapes: x (..., C), w (C,) -> (..., C).
    VJP:    with rrms = 1 / sqrt(mean(x^2) + eps), xhat = x * rrms, gw = g * w:
            dx = rrms * (gw - xhat * mean(gw * xhat));
            dw = sum of g * xhat over all but the last axis.
    Raises: ValueError if w is not of x's last length, or eps is below 0.
    Source: Zhang & Sennrich 2019, arXiv:1910.07467.  Derived in chapters/11_layer_norm.
    """
    check_norm("rms_norm", x, eps, w)
    C, x_shape = x.shape[-1], x.shape
    x = x.reshape(-1, C)  # (N, C)
    rrms = 1 / xp.sqrt(row_dots(x, x) / C + eps)  # (N, 1)
    xhat = memory.multiply(x, rrms)

    def vjp(g):
        g = g.reshape(-1, C)
        dx = memory.multiply(g, w)  # gw
        dx -= memory.multiply(xhat, row_dots(dx, xhat) / C)
        dx *= rrms
        return dx.reshape(x_shape), column_dots(g, xhat)

    return memory.multiply(xhat, w).reshape(x_shape), vjp
