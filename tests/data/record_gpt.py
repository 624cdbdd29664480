"""Record what PyTorch computes, so that the tests can compare minigpt with it without PyTorch.

Run from the repository root, with benchmarks/requirements.txt installed:

    python -m tests.data.record_gpt

Writes next to this file:
    gpt_oracle.npz       a small GPT: parameters, batch, logits, loss, every gradient
    function_oracle.npz  single functions and optimizers: inputs, results, gradients

Recorded with Python 3.11.7, NumPy 2.4.6, PyTorch 2.13.0 (CPU). A second run with the same versions
gives the same bytes; with others, expect the last bits to move.

Keys are "group/name". All arrays are float64 or int64, except `logits_float32`.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.torch_gpt import TorchGPT, random_params

HERE = Path(__file__).parent
CONFIG = {"vocab_size": 13, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16}
BATCH_SIZE = 2
ADAM = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8}


def record_gpt(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """idx, targets (B, T); logits (B, T, V); loss (); param/NAME and grad/NAME."""
    model = TorchGPT(**CONFIG).double()
    params = random_params(model, rng, std=0.3)
    model.load_from(params)
    idx, targets = rng.integers(CONFIG["vocab_size"], size=(2, BATCH_SIZE, CONFIG["block_size"]))

    logits = model(torch.from_numpy(idx))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
    loss.backward()
    record = {
        "idx": idx,
        "targets": targets,
        "logits": logits.detach().numpy(),
        "loss": loss.detach().numpy(),
    }
    record |= {f"config/{key}": np.array(value) for key, value in CONFIG.items()}
    record |= {f"param/{name}": p for name, p in params.items()}
    record |= {f"grad/{name}": dp for name, dp in model.gradients().items()}
    with torch.no_grad():
        record["logits_float32"] = model.float()(torch.from_numpy(idx)).numpy()
    return record


def record_function(name, function, inputs: dict, rng) -> dict[str, np.ndarray]:
    """One function: NAME/out, NAME/g (random cotangent), and NAME/x, NAME/dx for each input x."""
    tensors = {key: torch.tensor(x, requires_grad=True) for key, x in inputs.items()}
    out = function(*tensors.values())
    g = rng.normal(size=tuple(out.shape))
    out.backward(torch.tensor(g))
    record = {f"{name}/out": out.detach().numpy(), f"{name}/g": np.array(g)}
    for key, tensor in tensors.items():
        record |= {f"{name}/{key}": inputs[key], f"{name}/d{key}": tensor.grad.numpy()}
    return record


def record_elementwise(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """gelu, softmax, log_softmax and layer_norm."""
    x = rng.normal(0, 3, (3, 4, 7))
    x[0, 0, :3] = 0.0, -12.0, 12.0  # the centre and both tails of gelu
    far = np.round(x * 64) / 64 + 1000  # exp overflows; exact in float32 too
    w, b = rng.normal(1, 0.3, 7), rng.normal(0, 0.3, 7)
    return {
        **record_function("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), {"x": x}, rng),
        **record_function("gelu_none", lambda x: F.gelu(x, approximate="none"), {"x": x}, rng),
        **record_function("softmax", lambda x: F.softmax(x, -1), {"x": x}, rng),
        **record_function("softmax_far", lambda x: F.softmax(x, -1), {"x": far}, rng),
        **record_function("log_softmax", lambda x: F.log_softmax(x, -1), {"x": x}, rng),
        **record_function(
            "layer_norm",
            lambda x, w, b: F.layer_norm(x, (7,), w, b, eps=1e-5),
            {"x": x, "w": w, "b": b},
            rng,
        ),
    }


def record_cross_entropy(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mean cross entropy of logits (B, T, V): plain, with ignored targets, smoothed, and both."""
    logits = {"x": rng.normal(0, 2, (2, 5, 7))}
    targets = rng.integers(7, size=(2, 5))
    ignored = targets.copy()
    ignored[0, 1] = ignored[1, 3:] = -100  # 7 of 10 targets count in the mean

    def record(name, targets, **options):
        def loss(x):
            return F.cross_entropy(x.flatten(0, 1), torch.tensor(targets).flatten(), **options)

        return {f"{name}/targets": targets, **record_function(name, loss, logits, rng)}

    return {
        **record("cross_entropy", targets),
        **record("cross_entropy_ignore", ignored, ignore_index=-100),
        **record("cross_entropy_smooth", targets, label_smoothing=0.1),
        **record("cross_entropy_ignore_smooth", ignored, ignore_index=-100, label_smoothing=0.1),
    }


def record_optimizers(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Five steps of each optimizer on one (3, 4) parameter; optimizer/NAME: (5, 3, 4)."""
    start, grads = rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4))
    record = {"optimizer/start": start, "optimizer/grads": grads}
    for name, make in {
        "adamw": lambda params: torch.optim.AdamW(params, weight_decay=0.1, **ADAM),
        "adam": lambda params: torch.optim.Adam(params, **ADAM),
        "sgd": lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9),
    }.items():
        param = torch.nn.Parameter(torch.tensor(start))
        optimizer = make([param])
        steps = []
        for g in grads:
            param.grad = torch.tensor(g)
            optimizer.step()
            steps.append(param.detach().numpy().copy())
        record[f"optimizer/{name}"] = np.array(steps)
    return record


def main() -> None:
    rng = np.random.default_rng(20)
    gpt = record_gpt(rng)
    functions = record_elementwise(rng) | record_cross_entropy(rng) | record_optimizers(rng)
    for name, record in {"gpt_oracle": gpt, "function_oracle": functions}.items():
        path = HERE / f"{name}.npz"
        np.savez_compressed(path, **record)
        print(f"{path.name}: {len(record)} arrays, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
