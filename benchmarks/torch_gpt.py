"""The network of minigpt.model.GPT as a plain PyTorch module, for timing and for comparison.

Attribute names are GPT-2's, as in minigpt, so `named_parameters()` lists the same names in both.
One layout differs: `nn.Linear` keeps its weight as (n_out, n_in), minigpt as (n_in, n_out);
`load_from` and `gradients` speak minigpt's layout.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        """x: (B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 times (B, H, T, D)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        return self.c_proj(out.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, n_embd: int):
        super().__init__()
        self.c_fc = nn.Linear(n_embd, 4 * n_embd)
        self.c_proj = nn.Linear(4 * n_embd, n_embd)

    def forward(self, x):
        """x: (..., C) -> (..., C)."""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd)
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd)
        self.mlp = MLP(n_embd)

    def forward(self, x):
        """x: (B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TorchGPT(nn.Module):
    def __init__(self, *, vocab_size: int, block_size: int, n_layer: int, n_head: int, n_embd: int):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(block_size, n_embd)
        self.h = nn.ModuleList(Block(n_embd, n_head) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd)

    def forward(self, idx):
        """idx: (B, T) int -> logits (B, T, V)."""
        x = self.wte(idx) + self.wpe.weight[: idx.shape[1]]  # (B, T, C) + (T, C)
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)  # the head is tied to wte: (V, C)

    def load_from(self, params: dict[str, np.ndarray]) -> None:
        """Copy minigpt's parameters in, converted to this module's dtype."""
        own = dict(self.named_parameters())
        if own.keys() != params.keys():
            raise ValueError(f"params: names differ: {sorted(own.keys() ^ params.keys())}")
        with torch.no_grad():
            for name, p in own.items():
                source, target = torch.from_numpy(params[name]), self._in_out(name, p)
                if source.shape != target.shape:
                    raise ValueError(
                        f"params[{name!r}]: shape {tuple(source.shape)}, "
                        f"expected {tuple(target.shape)}"
                    )
                target.copy_(source)

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradient of every parameter, under minigpt's names and in minigpt's layout."""
        return {name: self._in_out(name, p.grad).numpy() for name, p in self.named_parameters()}

    def optimizer_groups(self) -> list[dict]:
        """Two groups: what minigpt decays, the matrices of the linear layers, and the rest."""
        decayed = [m.weight for m in self.modules() if isinstance(m, nn.Linear)]
        chosen = {id(p) for p in decayed}
        rest = [p for p in self.parameters() if id(p) not in chosen]
        return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter, under minigpt's names and in minigpt's layout."""
        return {name: tuple(self._in_out(name, p).shape) for name, p in self.named_parameters()}

    def _in_out(self, name: str, p: torch.Tensor) -> torch.Tensor:
        """A parameter or its gradient seen as minigpt stores it (a view, not a copy)."""
        module = self.get_submodule(name.rpartition(".")[0])
        return p.T if isinstance(module, nn.Linear) and p.ndim == 2 else p


def random_params(model: TorchGPT, rng: np.random.Generator, std: float) -> dict[str, np.ndarray]:
    """A float64 value for every parameter, in minigpt's layout: N(0, std^2), gains about 1.

    Nothing is 0 or 1 as it would be at the start of training, so every term of a gradient counts.
    """

    def value(name, shape):
        is_gain = len(shape) == 1 and name.endswith("weight")
        return rng.normal(1.0 if is_gain else 0.0, std, shape)

    return {name: value(name, shape) for name, shape in model.shapes().items()}
