"""What a model costs, by formula: operations."""

from minigpt.model import GPT


def flops_per_token(model: GPT) -> int:
    """Floating point operations of one token's training step, forward and backward.

    A product with an (n, m) matrix is 2nm operations a token; the backward pass does two more of
    the kind. Attention at full context adds 2 products of T * C, counted as if no key were masked.
    Elementwise work is left out.
    """
    c = model.config
    matrices = sum(p.size for p in model.decayed_parameters()) + model.lm_head.weight.size
    attention = c.n_layer * 2 * c.block_size * c.n_embd
    return 3 * 2 * (matrices + attention)
