"""Record a tiny GPT-2 made and computed by transformers, so that tests can compare without it.

Run from the repository root, where torch and transformers are installed:

    python -m tests.data.record_gpt2

Writes into tests/data/gpt2_tiny:
    config.json, model.safetensors  as transformers saves them, in float64
    expected.npz                    idx, targets (B, T); logits (B, T, V); loss (), in nats a token;
                                    grad/NAME for every parameter, by transformers' names

Recorded with Python 3.11.7, NumPy 2.4.6, PyTorch 2.13.0 (CPU), transformers 5.23.0. A second run
with the same versions gives the same bytes; with others, expect the last bits to move.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

FOLDER = Path(__file__).parent / "gpt2_tiny"
SHAPE = {"n_layer": 2, "n_head": 3, "n_embd": 12, "vocab_size": 97, "n_positions": 16}


def make(shape: dict, dtype=torch.float64, **more) -> GPT2LMHeadModel:
    """transformers' GPT-2 without dropout; every weight, gain and offset is random."""
    torch.manual_seed(20)
    model = GPT2LMHeadModel(
        GPT2Config(**shape, bos_token_id=None, eos_token_id=None,
                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **more)
    ).to(dtype)  # fmt: skip
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, 0.2)
    return model


def compute(model: GPT2LMHeadModel, idx: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """logits, loss, and grad/NAME of every parameter."""
    logits = model(torch.from_numpy(idx)).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(targets).flatten()
    )
    model.zero_grad()
    loss.backward()
    record = {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    return record | {f"grad/{name}": p.grad.numpy() for name, p in model.named_parameters()}


def main() -> None:
    model = make(SHAPE)
    model.save_pretrained(FOLDER)
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    rng = np.random.default_rng(21)
    idx, targets = rng.integers(SHAPE["vocab_size"], size=(2, 2, SHAPE["n_positions"]))
    record = {"idx": idx, "targets": targets} | compute(model, idx, targets)
    np.savez_compressed(FOLDER / "expected.npz", **record)
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
