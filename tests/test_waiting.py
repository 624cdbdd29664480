"""How often the host waits for a GPU: counted on the stand-in, in a fresh interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.strict import counting

ROOT = Path(__file__).parent.parent
PROGRAM = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import numpy as np
from minigpt.generate import generate
from minigpt.model import GPT, GPTConfig
from minigpt.readings import LOOK_EVERY
from minigpt.strict import counting
from minigpt.tokenizer import CharTokenizer
from minigpt.train import TrainConfig, Trainer

options = json.loads(sys.argv[1])
shape = {"vocab_size": 3, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}
shape |= options["model"]
model = GPT(GPTConfig(**shape), np.random.default_rng(0))
ids = np.random.default_rng(1).integers(min(3, shape["vocab_size"]), size=200)
config = TrainConfig(steps=100, batch_size=4, **options["training"])
trainer = Trainer(model, CharTokenizer("abc"), ids, ids, config, Path(sys.argv[2]),
                  np.random.default_rng(2))
found = []
for _ in range(2 * LOOK_EVERY):
    with counting() as counts:
        trainer._step()
    found.append(asdict(counts))
with counting() as drawing:
    list(generate(model, np.zeros((2, 1), int), 5, rng=np.random.default_rng(3)))
print(json.dumps({"look_every": LOOK_EVERY, "steps": found, "drawing": asdict(drawing)}))
"""


def counts_of(tmp_path, model=None, **training):
    options = json.dumps({"model": model or {}, "training": training})
    done = subprocess.run([sys.executable, "-c", PROGRAM, options, str(tmp_path)], cwd=ROOT,
                          env=os.environ | {"MINIGPT_BACKEND": "strict"}, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({"dropout": 0.2}, {}),
        ({"position": "rope"}, {"accumulate": 3}),
        ({"position": "alibi"}, {"recompute": True}),
        ({"position": "sinusoid", "bias": False, "tied": False}, {}),
        ({"vocab_size": 1100}, {}),  # the embedding's gradient takes its other way
    ],
    ids=["dropout", "rope and accumulation", "alibi and recompute", "no bias", "many tokens"],
)
def test_a_training_step_waits_only_to_look(tmp_path, model, training):
    counts = counts_of(tmp_path, model, **training)
    waits = [step["synchronisations"] for step in counts["steps"]]
    assert counts["look_every"] == 16
    quiet = [0] * 15
    assert waits == [*quiet, 1, *quiet, 1]
    assert [step["copies_out"] for step in counts["steps"]] == waits
    assert [step["bytes_out"] for step in counts["steps"]] == [
        wait * counts["look_every"] * 2 * 4
        for wait in waits  # losses and norms, float32
    ]


def test_in_float16_a_step_waits_once_to_know_that_nothing_overflowed(tmp_path):
    """And a look is one more. A wait brings the norm, 4 bytes."""
    steps = counts_of(tmp_path, {"dropout": 0.2}, precision="float16", accumulate=2)["steps"]
    quiet = [1] * 15
    assert [step["synchronisations"] for step in steps] == [*quiet, 2, *quiet, 2]
    assert [step["copies_out"] for step in steps] == [*quiet, 2, *quiet, 2]
    assert [step["bytes_out"] for step in steps] == 2 * ([4] * 15 + [4 + 16 * 2 * 4])
    single = counts_of(tmp_path, {"dropout": 0.2}, accumulate=2)["steps"]
    assert [step["copies_in"] for step in steps] == [step["copies_in"] for step in single]


def test_what_a_step_copies_in(tmp_path):
    """The positions, and of each micro-batch the ids, the targets, and which of them count."""
    for accumulate in (1, 3):
        for step in counts_of(tmp_path, accumulate=accumulate)["steps"][1:]:
            assert step["copies_in"] == 4 * accumulate


def test_drawing_waits_once_a_token(tmp_path):
    drawing = counts_of(tmp_path)["drawing"]
    assert drawing["synchronisations"] == drawing["copies_out"] == 5


def test_the_counts_are_of_what_is_inside():
    from minigpt import strict

    x = strict.asarray([1.0, 2.0])
    with counting() as counts:
        float(x.sum())
        strict.asnumpy(x)
    assert (counts.synchronisations, counts.copies_out, counts.copies_in) == (2, 1 + 1, 0)
