"""What one backend began, another goes on with: weights, batches, checkpoints, tokenizers.

A backend is chosen once, so each run is a process of its own. NumPy and the stand-in for CuPy share
their arithmetic. What may differ between them is what the package itself does otherwise on a GPU:

- `row_dots` is `einsum` instead of `vecdot`, which adds up in another order;
- the fused kernels round at other places than the operations they stand for;
- `scatter_add` into more than 1,024 rows is `add.at` instead of sums over sorted runs.

Where both take `einsum`, no kernels, and fewer tokens, training is the same to the last bit. With
their own ways, and on a GPU, the losses of 20 steps stay within train.py's bound, 1e-5 relatively.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigpt import functional as F
from minigpt import kernels
from minigpt.backend import xp
from minigpt.checkpoint import load_checkpoint
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW
from minigpt.tokenizer import load, save, train_bpe
from minigpt.train import TrainConfig, Trainer

ROOT = Path(__file__).parent.parent
OTHER = "cupy" if xp.__name__ == "cupy" else "strict"  # than NumPy
BOUND = 1e-5  # of train.py, for 20 steps
TEXT = "the quick brown fox jumps over the lazy dog; " * 40
STEPS, HALF = 50, 25
SIZES = {"block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16}
RUNS = {
    "dropout": {"dropout": 0.2},
    "rope": {"position": "rope", "bias": False},
    "alibi, untied": {"position": "alibi", "tied": False},
}


# --- what runs in a process of its own ---


class Recorded(Trainer):
    """A run that tells each step's batch and loss, and keeps its checkpoint of step HALF."""

    def __init__(self, *args):
        self.every, self.drawn = [], []
        super().__init__(*args)

    def _batches(self):
        for idx, targets in super()._batches():
            self.drawn.append(hashlib.sha256(idx.tobytes() + targets.tobytes()).hexdigest())
            yield idx, targets

    def _note(self, val, report):
        self.every += self.losses
        super()._note(val, report)

    def save(self, name):
        super().save(name)
        if self.step == HALF:
            shutil.copy(self.folder / name, self.folder / "half.safetensors")


def digest(model):
    return hashlib.sha256(b"".join(p.data.tobytes() for p in model.parameters())).hexdigest()


def trained(tokenizer, folder, options, resume=None):
    """All there is to know of a run: begun here, or gone on with."""
    config = TrainConfig(steps=STEPS, eval_every=HALF, batch_size=4, workers=1, lr=1e-2, warmup=5,
                         sample_tokens=20)  # fmt: skip
    rng, ids = np.random.default_rng(3), tokenizer.encode(TEXT)
    model = GPT(GPTConfig(tokenizer.vocab_size, **SIZES, **options), rng)
    model = resume.model if resume else model
    start = digest(model)
    run = Recorded(model, tokenizer, ids[:300], ids[300:], config, folder, rng, resume)
    run.run(lambda line: None)
    return {
        "start": start, "batches": run.drawn, "losses": run.every,
        "norms": [line["grad_norm"] for line in run.log],
        "held out": [line["val_loss"] for line in run.log],
        "end": digest(model), "generator": run.rng.random(), "text": run._sample(),
    }  # fmt: skip


def begin(folder):
    """A tokenizer file, and each run from its first step to its last."""
    tokenizer = train_bpe(TEXT, 280)
    save(tokenizer, folder / "tokenizer")
    found = {name: trained(tokenizer, folder / name, options) for name, options in RUNS.items()}
    return found | {"many tokens": many_tokens()}


def go_on(folder):
    """Each run from the checkpoint of step HALF that another process wrote, with its tokenizer."""
    tokenizer, found = load(folder / "tokenizer"), {}
    for name, options in RUNS.items():
        half = load_checkpoint(folder / name / "half.safetensors")
        assert half.tokenizer.to_json() == tokenizer.to_json()
        found[name] = trained(tokenizer, folder / f"{name}, gone on", options, half)
    return found


def many_tokens():
    """Losses of 20 steps where rows are scattered over 1,500 tokens, most of them repeated."""
    rng = np.random.default_rng(0)
    model = GPT(GPTConfig(1500, **SIZES), rng)
    optimizer, losses = AdamW(model.parameters(), 1e-2), []
    for _ in range(20):
        idx = rng.integers(0, 1500, (2, 8, 8)) // rng.integers(1, 200, (2, 8, 8))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(idx[0]), idx[1])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def work(task, folder, same_sums):
    if same_sums:
        kernels.KERNELS = None
        np.vecdot = lambda x, y: np.einsum("...c,...c->...", x, y)
    print(json.dumps({"backend": xp.__name__, "found": globals()[task](Path(folder))}))


# --- what the processes found ---


def process(backend, task, folder, same_sums=True):
    """What a task found under a backend."""
    code = "import json, sys; from tests.test_backends import work; work(*json.loads(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([task, str(folder), same_sums])],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"MINIGPT_BACKEND": backend, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["backend"] == backend
    return answer["found"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {backend: tmp_path_factory.mktemp(backend) for backend in ("numpy", OTHER)}


@pytest.fixture(scope="module")
def begun(folders):
    """The runs by backend and name, each whole."""
    return {backend: process(backend, "begin", folder) for backend, folder in folders.items()}


@pytest.fixture(scope="module")
def own_way(tmp_path_factory):
    """The runs under each backend as it is."""
    return {
        backend: process(backend, "begin", tmp_path_factory.mktemp("own"), same_sums=False)
        for backend in ("numpy", OTHER)
    }


def assert_within_bound(found, wanted):
    error = np.abs(np.array(found[:20]) / wanted[:20] - 1).max()
    print(f"losses of 20 steps differ by {error:.1e}")
    assert error < BOUND


def assert_runs_agree(found, wanted):
    """What is drawn is the same everywhere; what is computed, where the arithmetic is."""
    for drawn in ("batches", "generator"):
        assert found[drawn] == wanted[drawn]
    assert_within_bound(found["losses"], wanted["losses"])
    if OTHER == "strict":
        for computed in ("losses", "norms", "held out", "end", "text"):
            assert found[computed] == wanted[computed]


@pytest.mark.parametrize("name", RUNS)
def test_a_seed_gives_the_same_weights_batches_and_losses(begun, name):
    found, wanted = begun[OTHER][name], begun["numpy"][name]
    assert found["start"] == wanted["start"]
    assert_runs_agree(found, wanted)
    assert len(wanted["losses"]) == STEPS
    assert wanted["losses"][-1] < wanted["losses"][0] - 1  # and there was something to learn


def test_a_tokenizer_is_the_same_file(begun, folders):
    mine, theirs = (sorted((folders[b] / "tokenizer").iterdir()) for b in ("numpy", OTHER))
    assert [path.name for path in mine] == [path.name for path in theirs]
    assert len(mine) == 3
    for a, b in zip(mine, theirs, strict=True):
        assert a.read_bytes() == b.read_bytes()
    ids = load(folders[OTHER] / "tokenizer").encode(TEXT)
    np.testing.assert_array_equal(ids, load(folders["numpy"] / "tokenizer").encode(TEXT))


@pytest.mark.parametrize(("writer", "reader"), [("numpy", OTHER), (OTHER, "numpy")])
def test_a_checkpoint_of_one_is_gone_on_with_under_the_other(begun, folders, writer, reader):
    """As if nothing had happened: what follows is what the writer itself went on to."""
    found = process(reader, "go_on", folders[writer])
    for name in RUNS:
        wanted = dict(begun[writer][name])
        model = load_checkpoint(folders[writer] / name / "half.safetensors").model
        assert found[name]["start"] == digest(model) != wanted["start"]
        for each_step in ("batches", "losses"):
            assert len(wanted[each_step]) == STEPS
            wanted[each_step] = wanted[each_step][HALF:]
        assert_runs_agree(found[name], wanted)


@pytest.mark.parametrize("name", RUNS)
def test_each_in_its_own_way_stays_within_the_stated_bound(own_way, name):
    """vecdot and single operations here, einsum and kernels there."""
    found, wanted = own_way[OTHER][name], own_way["numpy"][name]
    assert found["losses"] != wanted["losses"]  # else the ways were not their own
    assert (found["start"], found["batches"]) == (wanted["start"], wanted["batches"])
    assert_within_bound(found["losses"], wanted["losses"])


def test_many_tokens_stay_within_the_stated_bound(own_way):
    """Rows scattered over more than 1,024 tokens too: by add.at there."""
    found, wanted = (own_way[backend]["many tokens"] for backend in (OTHER, "numpy"))
    assert wanted[-1] < wanted[0] - 1
    assert_within_bound(found, wanted)
