"""Whether this backend computes what NumPy does: a kernel, products, training, a gradient.

Numbers are drawn with NumPy on the host, so that every backend starts from equal ones.
"""

import math
import os
from typing import Any

import numpy as np

from minigpt import functional as F
from minigpt.backend import to_numpy, xp
from minigpt.doctor.report import Finding
from minigpt.gradcheck import check_parameters
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW
from minigpt.tensor import Tensor
from minigpt.witness import rel_error

STEPS, TOKENS = 3, 32
LN = math.log(TOKENS)  # nats per token: the loss of guessing
TF32 = os.environ.get("CUPY_TF32", "0") not in ("", "0")  # products of float32 in 10 bits
PRODUCT = {"float32": 1e-2 if TF32 else 1e-5, "float64": 1e-12}  # relative to the largest
LOSS = 1e-2 if TF32 else 1e-4  # nats per token: sums in another order, over three steps
GRADIENT = 1e-6  # relative, against differences in float64


def kernel() -> str:
    """A kernel is compiled, run, and gives the right numbers."""
    product = xp.ElementwiseKernel("T x, T y", "T z", "z = x * y + x", "minigpt_doctor")
    x = np.arange(1000, dtype=np.float32)
    z = to_numpy(product(xp.asarray(x), xp.asarray(x)))
    if not np.array_equal(z, x * x + x):
        raise Finding(f"wrong numbers: {worst(z, x * x + x)}")
    return "compiled, run, and right on 1,000 numbers"


def product() -> str:
    """Matrix products agree with NumPy's, in both precisions."""
    rng, said = np.random.default_rng(0), []
    for dtype, tolerance in PRODUCT.items():
        x, y = (rng.standard_normal((256, 256)).astype(dtype) for _ in range(2))
        got, want = to_numpy(xp.asarray(x) @ xp.asarray(y)), x @ y
        error = rel_error(got, want)
        if not error <= tolerance:  # a NaN is an error too
            raise Finding(f"{dtype}: {worst(got, want)}: relative error {error:.1e} > "
                          f"{tolerance:.0e}")  # fmt: skip
        said.append(f"{error:.0e} in {dtype} (at most {tolerance:.0e})")
    return f"relative error {', '.join(said)}{', with CUPY_TF32' if TF32 else ''}"


def training(wanted: list[float], losses: list[float]) -> str:
    """A tiny GPT starts by guessing and learns, and its losses are NumPy's.

    wanted: NumPy's losses; [] for NumPy itself. losses: filled in, with those of this backend.
    """
    losses += training_losses()
    said = f"loss {losses[0]:.4f} to {losses[-1]:.4f} nats in {STEPS} steps"
    if not abs(losses[0] - LN) < 0.05 * LN or not losses[-1] < losses[0] - 0.1:
        raise Finding(f"{said}: it must start near ln {TOKENS} = {LN:.4f}, and fall")
    if not wanted:
        return said
    error = max(abs(a - b) for a, b in zip(losses, wanted, strict=True))
    if not error <= LOSS:
        raise Finding(f"{said}, where NumPy's is {wanted[0]:.4f} to {wanted[-1]:.4f}: "
                      f"off by {error:.1e} > {LOSS:.0e}")  # fmt: skip
    return f"{said}, off NumPy's by {error:.0e} (at most {LOSS:.0e})"


def training_losses() -> list[float]:
    """The loss of a tiny float32 GPT before each of a few steps of AdamW, and after the last."""
    rng = np.random.default_rng(0)
    config = GPTConfig(vocab_size=TOKENS, block_size=16, n_layer=2, n_head=2, n_embd=32)
    model, idx = GPT(config, rng), rng.integers(0, TOKENS, (8, 17))
    optimizer = AdamW(model.parameters(), lr=1e-2, decay=model.decayed_parameters())
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(idx[:, :-1]), idx[:, 1:])
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return [*losses, F.cross_entropy(model(idx[:, :-1]), idx[:, 1:]).item()]


def gradient() -> str:
    """The gradient of a tiny float64 GPT in each parameter, against differences."""
    rng = np.random.default_rng(0)
    config = GPTConfig(vocab_size=8, block_size=4, n_layer=1, n_head=2, n_embd=8)
    model, idx = GPT(config, rng, dtype="float64"), rng.integers(0, 8, (2, 5))

    def loss() -> Tensor:
        return F.cross_entropy(model(idx[:, :-1]), idx[:, 1:])

    rows = check_parameters(loss, model.named_parameters(), tol=GRADIENT)
    error = max(row.error for row in rows)
    return f"{len(rows)} parameters of a GPT: relative error {error:.0e} (at most {GRADIENT:.0e})"


def worst(got: Any, want: Any) -> str:
    """The entry that is furthest off."""
    off = np.abs(got - want)
    at = np.unravel_index(np.argmax(off), off.shape)
    return f"{got[at]:.7g} where NumPy has {want[at]:.7g}"
