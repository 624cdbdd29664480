"""minigpt against PyTorch: recorded values always, a live comparison where torch is installed.

tests/data/record_gpt.py made the recordings and says with which versions.
"""

from pathlib import Path

import numpy as np
import pytest

from minigpt import functional as F
from minigpt.backend import to_numpy, xp
from minigpt.model import GPT, GPTConfig
from minigpt.optim import SGD, Adam, AdamW, clip_grad_norm
from minigpt.tensor import Tensor

DATA = Path(__file__).parent / "data"
ADAM = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8}


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as record:
        return dict(record)


GPT_ORACLE = load("gpt_oracle")
FUNCTIONS = load("function_oracle")


def group(record: dict, prefix: str) -> dict[str, np.ndarray]:
    """The entries below "prefix/", under the rest of their names."""
    return {
        k.removeprefix(f"{prefix}/"): v for k, v in record.items() if k.startswith(f"{prefix}/")
    }


def assert_close(value, expected: np.ndarray, tolerance: float = 1e-9, what: str = "") -> None:
    """The largest difference is at most `tolerance` times the largest expected entry."""
    value = to_numpy(value)
    assert value.shape == expected.shape, f"{what}: {value.shape} instead of {expected.shape}"
    error = np.abs(value - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what}: relative error {error:.1e} > {tolerance:.0e}"


def build(config: dict, params: dict[str, np.ndarray], dtype: str = "float64") -> GPT:
    """A GPT with these parameters, whose names must be exactly its own."""
    config = GPTConfig(**{key: int(value) for key, value in config.items()}, dropout=0.0, bias=True)
    model = GPT(config, rng=np.random.default_rng(0), dtype=dtype)
    model.load_arrays(params)
    return model


def assert_gradients_close(model: GPT, expected: dict[str, np.ndarray]) -> None:
    for name, p in model.named_parameters():
        assert_close(p.grad, expected[name], what=f"gradient of {name}")


# --- the recorded GPT ------------------------------------------------------------------------


def recorded_model(dtype: str = "float64") -> GPT:
    return build(group(GPT_ORACLE, "config"), group(GPT_ORACLE, "param"), dtype)


def test_logits_loss_and_every_gradient():
    model = recorded_model()
    logits = model(xp.asarray(GPT_ORACLE["idx"]))
    assert_close(logits.data, GPT_ORACLE["logits"], what="logits")
    loss = F.cross_entropy(logits, xp.asarray(GPT_ORACLE["targets"]))
    assert_close(loss.data, GPT_ORACLE["loss"], what="loss")
    loss.backward()
    assert_gradients_close(model, group(GPT_ORACLE, "grad"))


def test_logits_in_float32():
    logits = recorded_model("float32")(xp.asarray(GPT_ORACLE["idx"]))
    assert logits.data.dtype == np.float32
    assert_close(logits.data, GPT_ORACLE["logits_float32"], 1e-5, "logits in float32")


# --- single functions ------------------------------------------------------------------------


def cross_entropy(name: str, **options):
    targets = xp.asarray(FUNCTIONS[f"{name}/targets"])
    return lambda logits: F.cross_entropy(logits, targets, **options)


CASES = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_none": lambda x: F.gelu(x, approximate="none"),
    "softmax": F.softmax,
    "softmax_far": F.softmax,
    "log_softmax": F.log_softmax,
    "layer_norm": lambda x, w, b: F.layer_norm(x, w, b, eps=1e-5),
    "cross_entropy": cross_entropy("cross_entropy"),
    "cross_entropy_ignore": cross_entropy("cross_entropy_ignore", ignore_index=-100),
    "cross_entropy_smooth": cross_entropy("cross_entropy_smooth", label_smoothing=0.1),
    "cross_entropy_ignore_smooth": cross_entropy(
        "cross_entropy_ignore_smooth", ignore_index=-100, label_smoothing=0.1
    ),
}


def test_every_recorded_function_is_compared():
    assert CASES.keys() | {"optimizer"} == {key.split("/")[0] for key in FUNCTIONS}


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_function_and_its_gradients(name, dtype, tolerance):
    record = group(FUNCTIONS, name)
    inputs = {key: record[key] for key in ("x", "w", "b") if key in record}
    tensors = [Tensor(xp.asarray(x.astype(dtype)), requires_grad=True) for x in inputs.values()]
    out = CASES[name](*tensors)
    out.backward(xp.asarray(record["g"].astype(dtype)))
    assert_close(out.data, record["out"], tolerance, name)
    for key, tensor in zip(inputs, tensors, strict=True):
        assert_close(tensor.grad, record[f"d{key}"], tolerance, f"d{key} of {name}")


# --- optimizers ------------------------------------------------------------------------------

OPTIMIZERS = {
    "adamw": lambda params: AdamW(params, weight_decay=0.1, **ADAM),
    "adam": lambda params: Adam(params, **ADAM),
    "sgd": lambda params: SGD(params, lr=1e-2, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_step_by_step(name):
    record = group(FUNCTIONS, "optimizer")
    param = Tensor(xp.array(record["start"]), requires_grad=True)
    optimizer = OPTIMIZERS[name]([param])
    for step, (g, expected) in enumerate(zip(record["grads"], record[name], strict=True), 1):
        optimizer.zero_grad()
        (param * 1.0).backward(xp.asarray(g))  # the gradient is g itself
        optimizer.step()
        assert_close(param.data, expected, what=f"{name} after step {step}")


# --- live, on another model ------------------------------------------------------------------

LIVE = {"vocab_size": 29, "block_size": 12, "n_layer": 3, "n_head": 4, "n_embd": 32}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch: benchmarks/requirements.txt")


@pytest.fixture
def pair(torch):  # torch: skips here when it is not installed
    """The same random network, in float64, from both libraries."""
    from benchmarks.torch_gpt import TorchGPT, random_params

    theirs = TorchGPT(**LIVE).double()
    params = random_params(theirs, np.random.default_rng(7), std=0.2)
    theirs.load_from(params)
    return build(LIVE, params), theirs


def losses(pair, torch, idx, targets):
    ours, theirs = pair
    our_loss = F.cross_entropy(ours(xp.asarray(idx)), xp.asarray(targets))
    logits = theirs(torch.from_numpy(idx))
    their_loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(targets).flatten()
    )
    return our_loss, their_loss


@pytest.mark.parametrize("T", [1, 5, 12])
def test_live_loss_and_gradients(pair, torch, T):
    idx, targets = np.random.default_rng(T).integers(LIVE["vocab_size"], size=(2, 3, T))
    our_loss, their_loss = losses(pair, torch, idx, targets)
    assert_close(our_loss.data, their_loss.detach().numpy(), what="loss")
    our_loss.backward()
    their_loss.backward()
    assert_gradients_close(pair[0], pair[1].gradients())


def test_live_training_steps(pair, torch):
    """Loss, clipping by the global norm and AdamW, five times: losses and norms stay together."""
    ours, theirs = pair
    our_optimizer = AdamW(
        ours.parameters(), weight_decay=0.1, decay=ours.decayed_parameters(), **ADAM
    )
    their_optimizer = torch.optim.AdamW(theirs.optimizer_groups(), weight_decay=0.1, **ADAM)
    batches = np.random.default_rng(8).integers(LIVE["vocab_size"], size=(5, 2, 3, 12))
    for idx, targets in batches:
        our_loss, their_loss = losses(pair, torch, idx, targets)
        # 1e-6, because PyTorch clips by the norm + 1e-6, minigpt by the norm + 1e-12
        assert our_loss.item() == pytest.approx(their_loss.item(), rel=1e-6)
        our_optimizer.zero_grad()
        their_optimizer.zero_grad()
        our_loss.backward()
        their_loss.backward()
        our_norm = clip_grad_norm(ours.parameters(), 1.0)
        their_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        assert float(our_norm) == pytest.approx(their_norm.item(), rel=1e-6)
        our_optimizer.step()
        their_optimizer.step()
