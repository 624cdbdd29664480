"""Checkpoints: exact round trip, whole or not at all, and a named error for every bad file."""

import json
import os
import struct
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from minigpt import checkpoint as module
from minigpt.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from minigpt.model import GPT, POSITIONS, GPTConfig
from minigpt.tokenizer import CharTokenizer

CONFIG = GPTConfig(vocab_size=3, block_size=4, n_layer=1, n_head=1, n_embd=2, dropout=0.1)


def make(seed=0, dtype="float32", **more):
    return Checkpoint(
        GPT(CONFIG, np.random.default_rng(seed), dtype), CharTokenizer("aä\n"), **more
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "model.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_to_the_last_bit(path, dtype):
    saved = make(5, dtype, training={"step": 3, "loss": [0.1, None]}, state={"m": np.arange(4.0)})
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded.model.config == CONFIG
    assert loaded.tokenizer.chars == "aä\n"
    assert loaded.training == saved.training
    assert list(loaded.state) == ["m"]
    assert (loaded.state["m"] == np.arange(4.0)).all()
    for (name, p), (other, q) in zip(
        saved.model.named_parameters(), loaded.model.named_parameters(), strict=True
    ):
        assert name == other
        assert p.dtype == q.dtype == dtype
        assert p.data.tobytes() == q.data.tobytes()


@pytest.mark.parametrize("position", POSITIONS)
def test_the_kind_of_position_is_kept(path, position):
    config, rng = replace(CONFIG, position=position), np.random.default_rng(0)
    saved = Checkpoint(GPT(config, rng), CharTokenizer("aä\n"))
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path).model
    assert loaded.config.position == position
    idx = [[0, 2, 1, 1]]
    assert (loaded(idx).data == saved.model(idx).data).all()


def test_a_checkpoint_from_before_there_was_a_choice_has_learned_positions(path):
    saved = make(5)
    save_checkpoint(path, saved)
    before = asdict(CONFIG)
    assert before.pop("position") == "learned"
    rewrite(path, config=json.dumps(before))
    loaded = load_checkpoint(path).model
    assert loaded.config == CONFIG
    assert (loaded.wpe.weight.data == saved.model.wpe.weight.data).all()


def test_it_is_an_ordinary_safetensors_file_with_gpt2s_names(path):
    save_checkpoint(path, make())
    with safe_open(path, framework="np") as file:
        assert "h.0.attn.c_attn.weight" in file.keys()  # noqa: SIM118
        assert json.loads(file.metadata()["config"])["n_embd"] == 2


def test_cut_at_any_length_is_refused(path):
    save_checkpoint(path, make())
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            load_checkpoint(path)


def test_foreign_files_are_refused(path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(path)
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04 certainly not")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(path)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of format 'minigpt 1'"):
        load_checkpoint(path)


def rewrite(path, **changes):
    """Replace entries of the metadata, leaving everything else as it is."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] |= changes
    new = json.dumps(header).encode()
    new += b" " * (-len(new) % 8)
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": json.dumps({"n_embd": 4, "n_head": 1})}, "config: arrays do not fit the model"),
        ({"config": json.dumps({"n_heads": 4})}, "unexpected keyword argument 'n_heads'"),
        ({"config": "{"}, "does not fit its own config"),
        ({"config": json.dumps({"position": "polar"})}, "position must be one of learned, "),
        (
            {"config": json.dumps(asdict(CONFIG) | {"position": "alibi"})},
            "wpe.weight is unknown",
        ),
        ({"tokenizer": CharTokenizer("ab").to_json()}, "2 tokens, vocab_size 3"),
        ({"tokenizer": "[]"}, "does not fit its own config"),
        ({"training": "nonsense"}, "does not fit its own config"),
        ({"training": "[]"}, "training state is"),
        ({"training": '{"config": 3}'}, "training state is"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(path, changes, message):
    save_checkpoint(path, make())
    rewrite(path)
    load_checkpoint(path)  # the rewriting itself does no harm
    rewrite(path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(path, monkeypatch, call):
    save_checkpoint(path, make(1))
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    if call == "write":
        real = open

        def opened(*args, **kwargs):
            file = real(*args, **kwargs)
            return type("Full", (), {
                "__enter__": lambda self: self, "__exit__": lambda self, *a: file.close(),
                "write": full,
            })()  # fmt: skip

        monkeypatch.setattr(module, "open", opened, raising=False)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match=r"cannot write .*model.safetensors: No space left"):
        save_checkpoint(path, make(2))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file stays


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_real_limit_on_file_size(path):
    """The system itself cuts the write short, as a full disk does."""
    save_checkpoint(path, make(1))
    before = path.read_bytes()
    code = f"""
import resource
from tests.test_checkpoint import make, save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    save_checkpoint({str(path)!r}, make(2))
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("CheckpointError cannot write")
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write .*file"):
        save_checkpoint(tmp_path / "file" / "model.safetensors", make())


def test_the_content_is_on_the_disk_before_the_rename(path, monkeypatch):
    events, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(os.fstat(fd).st_size) or sync(fd))
    monkeypatch.setattr(os, "replace", lambda *to: events.append("renamed") or replace(*to))
    save_checkpoint(path, make())
    assert events == [path.stat().st_size, "renamed"]


def test_a_ctrl_c_while_writing_leaves_the_old_file_alone(path, monkeypatch):
    save_checkpoint(path, make(1))
    before = path.read_bytes()

    def stopped(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, make(2))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_folders_are_made_and_are_no_checkpoints(tmp_path):
    save_checkpoint(tmp_path / "a" / "b" / "model.safetensors", make())
    assert load_checkpoint(tmp_path / "a" / "b" / "model.safetensors").model.config == CONFIG
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "a")


def test_other_formats_and_kinds_of_numbers_are_refused(path):
    """Published files have format "pt", and numbers that NumPy does not know."""
    path.parent.mkdir()
    for form in ("pt", "minigpt 2"):
        save_file({"a": np.zeros(2)}, path, metadata={"format": form})
        with pytest.raises(CheckpointError, match="not a checkpoint of format 'minigpt 1'"):
            load_checkpoint(path)
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]},
    }
    content = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + b"\0\0")
    with pytest.raises(CheckpointError, match="not a checkpoint of format 'minigpt 1'"):
        load_checkpoint(path)


@pytest.mark.parametrize("entry", ["config", "tokenizer", "training"])
def test_a_missing_entry_is_refused(path, entry):
    save_checkpoint(path, make())
    with safe_open(path, framework="np") as file:
        metadata = {k: v for k, v in file.metadata().items() if k != entry}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(arrays, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=f"does not fit its own config: '{entry}'"):
        load_checkpoint(path)


def test_a_file_that_the_system_will_not_open(path, monkeypatch):
    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")

    save_checkpoint(path, make())
    monkeypatch.setattr(module, "safe_open", denied)
    with pytest.raises(CheckpointError, match="model.safetensors: .*Permission denied"):
        load_checkpoint(path)
