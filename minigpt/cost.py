"""What a model costs, by formula: parameters, operations, bytes.

Derived and counted in chapters/14_gpt_assembled. A number is of the model's dtype.
"""

from minigpt.attention import BLOCK, KEPT
from minigpt.model import GPT

_PARTS = {"wte": "tokens", "wpe": "positions", "lm_head": "head", "ln_f": "norms",
          "ln_1": "norms", "ln_2": "norms", "attn": "attention", "mlp": "MLP"}  # fmt: skip


def parameters_by_part(model: GPT) -> dict[str, int]:
    """How many parameters each kind of part has. A tied head is the table of tokens."""
    counts = dict.fromkeys(_PARTS.values(), 0)
    for name, p in model.named_parameters():
        part = name.split(".")[2] if name.startswith("h.") else name.split(".")[0]
        counts[_PARTS[part]] += p.size
    return {part: count for part, count in counts.items() if count}


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


def scores(T: int, kept: bool = False) -> int:
    """Scores that causal attention computes for T tokens and one head; of T**2, half are masked.

    Blocks of queries skip later keys: of n whole blocks, the share (n + 1) / (2n) is left.
    kept: only those whose weights are held until the backward pass.
    """
    ends = [min(start + BLOCK, T) for start in range(0, T, BLOCK)]
    rows = [end - start for start, end in zip(range(0, T, BLOCK), ends, strict=True)]
    return sum(n * end for n, end in zip(rows, ends, strict=True) if not kept or end <= KEPT)


def state_bytes(model: GPT) -> dict[str, int]:
    """Bytes that a training run holds between steps, with Adam's or AdamW's two means."""
    one = sum(p.data.nbytes for p in model.parameters())
    return {"parameters": one, "gradients": one, "Adam's means": 2 * one}


def activation_bytes(model: GPT) -> int:
    """Bytes that one text of block_size tokens holds from the forward to the backward pass.

    A batch of B texts holds B times as much, and what the texts share, such as masks, once.
    With blocks that are computed twice (recompute.py), each holds C numbers a token instead.
    """
    c = model.config
    T, C, V, drops = c.block_size, c.n_embd, c.vocab_size, c.dropout > 0
    layer = 26 * C + 2  # a token's numbers; 2: the norms' rstd
    layer += 2 * C * (c.position == "rope")  # q and k, turned
    layer += 4 * C * drops  # a mask and what it leaves, twice
    ends = (3 + (c.position in ("learned", "sinusoid")) + 2 * drops) * C + 1 + 2 * V
    weights = c.n_head * (scores(T, kept=True) + scores(T) * drops)  # and the weights' mask
    return (T * (c.n_layer * layer + ends) + c.n_layer * weights) * model.wte.weight.data.itemsize


def cache_bytes(model: GPT) -> int:
    """Bytes of one text's keys and values at full context, as KVCache holds them."""
    c = model.config
    return 2 * c.n_layer * c.block_size * c.n_embd * model.wte.weight.data.itemsize
