"""The training process as a diagram, from the calls of one small real run.

An arrow says that the one function was called next after the other. What a function calls inside
counts as its own, so the evaluation's forward passes are no second arrow into GPT.__call__.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from minigpt import data, tokenizer
from minigpt import functional as F
from minigpt.checkpoint import load_checkpoint
from minigpt.commands.parts import prepare
from minigpt.evaluate import nats_per_character, nats_per_token
from minigpt.generate import generate
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW, clip_grad_norm
from minigpt.record import BEST
from minigpt.settings import TrainConfig
from minigpt.tensor import Tensor
from minigpt.train import Trainer

NODES = {  # the function's name in the package, without minigpt. -> what it does
    "data.corpus.split": "train, val and test: no document is cut",
    "tokenizer.build": "byte pairs, learnt from the train part alone",
    "model.GPT.__init__": "weights from N(0, 0.02²)",
    "evaluate.nats_per_token": "loss on the val part",
    "train.Trainer.save best": "the model with the lowest val loss",
    "train.Trainer.save last": "all that is needed to go on",
    "train.Trainer._step": "a step begins: gradients are 0",
    "train.Trainer._batches": "random windows of the train part",
    "model.GPT.__call__": "forward pass",
    "functional.cross_entropy": "loss, in nats per token",
    "tensor.Tensor.backward": "gradients, added up",
    "optim.clip_grad_norm": "the norm of all gradients: at most 1",
    "train.Trainer.learning_rate": "warm-up, then falling",
    "optim.AdamW.step": "the weights move",
    "checkpoint.load_checkpoint": "the best model, not the last",
    "train.Trainer.run": "fine-tuning: the same loop on a text of its own, at a lower rate",
    "evaluate.nats_per_character": "the test part, read once",
    "generate.generate": "tokens, one after another",
}
LABELS = {
    ("tensor.Tensor.backward", "train.Trainer._batches"): "next micro-batch",
    ("evaluate.nats_per_token", "train.Trainer.save best"): "better",
    ("evaluate.nats_per_token", "train.Trainer.save last"): "not better",
    ("optim.AdamW.step", "evaluate.nats_per_token"): "every k steps",
    ("optim.AdamW.step", "train.Trainer._step"): "next step",
    ("train.Trainer.save last", "train.Trainer._step"): "next step",
    ("train.Trainer.save last", "checkpoint.load_checkpoint"): "after the last step",
}

# What these two call is not their own: a step is the whole of it, and a batch is used where it is
# drawn.
AROUND = ("train.Trainer._step", "train.Trainer._batches")


def record() -> tuple[list[str], dict[str, Any]]:
    """The functions of NODES in the order in which one small run called them.

    Also what they were called on: "split" gave these parts, "build" learnt from this text.
    """
    calls: list[str] = []
    seen: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, _watching(calls, seen):
        _run(Path(folder))
    return calls, seen


def diagram() -> str:
    """The recorded calls as Mermaid's text: each pair of neighbours once."""
    calls, _ = record()
    nodes = list(dict.fromkeys(calls))
    names = {name: f"n{i}" for i, name in enumerate(nodes)}
    lines = ["flowchart TD"]
    lines += [f'  {names[node]}["{node}<br/>{NODES[node]}"]' for node in nodes]
    for a, b in dict.fromkeys(zip(calls, calls[1:], strict=False)):
        label = f"|{LABELS[a, b]}|" if (a, b) in LABELS else ""
        lines.append(f"  {names[a]} -->{label} {names[b]}")
    return "\n".join(lines) + "\n"


def _run(folder: Path) -> None:
    """Train on a text, whose loss must get worse at an evaluation, and fine-tune on another."""
    parts = prepare(_text(folder, "sun"), "bpe-300")
    kind, ids, rng = parts.tokenizer, parts.ids, np.random.default_rng(0)
    model = GPT(GPTConfig(kind.vocab_size, 8, 1, 1, 8), rng)
    # At so high a rate the loss rises: one evaluation finds a new best, and the next does not.
    high = TrainConfig(steps=4, eval_every=2, batch_size=2, accumulate=2, lr=3.0, warmup=0)
    Trainer(model, kind, ids["train"], ids["val"], high, folder / "run", rng).run(_quiet)
    best = load_checkpoint(folder / "run" / BEST).model
    ids = _fine_tune(best, kind, folder, rng)
    nats_per_character(best, kind, ids["test"])
    _sample(best, rng)


def _text(folder: Path, word: str) -> str:
    """A file of made-up lines."""
    path = folder / f"{word}.txt"
    lines = (f"the {word} of day {i} is like the {word} of day {i + 1}\n" for i in range(60))
    path.write_text("".join(lines), "utf-8")
    return str(path)


def _fine_tune(model: GPT, kind: Any, folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Train it on another text, in the tokens that it knows. Returns that text's parts."""
    ids = prepare(_text(folder, "rain"), kind).ids
    low = TrainConfig(steps=2, eval_every=2, batch_size=2, lr=1e-3)
    Trainer(model, kind, ids["train"], ids["val"], low, folder / "fine", rng).run(_quiet)
    return ids


def _sample(model: GPT, rng: np.random.Generator) -> None:
    list(generate(model, np.zeros((1, 1), np.int64), 3, rng=rng))


def _quiet(line: str) -> None:
    pass


def _watched() -> dict[Any, str]:
    """Code object -> its name in NODES."""
    functions: dict[str, Callable] = {
        "data.corpus.split": data.split, "tokenizer.build": tokenizer.build,
        "model.GPT.__init__": GPT.__init__, "evaluate.nats_per_token": nats_per_token,
        "train.Trainer.save": Trainer.save, "train.Trainer._step": Trainer._step,
        "train.Trainer._batches": Trainer._batches, "model.GPT.__call__": GPT.__call__,
        "tensor.op": F.cross_entropy, "tensor.Tensor.backward": Tensor.backward,
        "optim.clip_grad_norm": clip_grad_norm, "train.Trainer.learning_rate":
        Trainer.learning_rate, "optim.AdamW.step": AdamW.step,
        "checkpoint.load_checkpoint": load_checkpoint, "train.Trainer.run": _fine_tune,
        "evaluate.nats_per_character": nats_per_character, "generate.generate": _sample,
    }  # fmt: skip
    return {function.__code__: name for name, function in functions.items()}


@contextmanager
def _watching(calls: list[str], seen: dict[str, Any]) -> Iterator[None]:
    """Inside, add the name of each watched function that is called by none of them."""
    watched = _watched()
    inside: list[FrameType] = []  # the watched call under way

    def hook(frame: FrameType, event: str, result: Any) -> None:
        name = watched.get(frame.f_code)
        if name in AROUND:
            given = event == "return" and result is not None  # by a generator
            if not inside and (given if name == "train.Trainer._batches" else event == "call"):
                calls.append(name)
        elif name and event == "call" and not inside:
            if name == "tensor.op":
                if frame.f_locals["forward"].__name__ != "cross_entropy":
                    return
                name = "functional.cross_entropy"
            inside.append(frame)
            if name == "train.Trainer.save":
                name += " best" if frame.f_locals["name"] == BEST else " last"
            if name == "tokenizer.build":
                seen.setdefault("learnt from", []).append(frame.f_locals["text"])
            calls.append(name)
        elif event == "return" and inside and inside[0] is frame:
            inside.clear()
            if name == "data.corpus.split":
                seen.setdefault("parts", []).append(result)

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        yield
    finally:
        sys.setprofile(before)
