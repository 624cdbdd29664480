"""GPT-2 checkpoints in Hugging Face's format: the same numbers as transformers, or a named error.

tests/data/record_gpt2.py made the recordings and says with which versions.
"""

import json
import os
import random
import shutil
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigpt import functional as F
from minigpt import gpt2 as module
from minigpt import weights
from minigpt.__main__ import main
from minigpt.backend import to_numpy, xp
from minigpt.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minigpt.cost import flops_per_token
from minigpt.gpt2 import read_gpt2, write_gpt2
from minigpt.gradcheck import check_parameters
from minigpt.model import GPT, GPTConfig
from minigpt.tokenizer import CharTokenizer, gpt2, load, save, train_bpe

TINY = Path(__file__).parent / "data" / "gpt2_tiny"
CONFIG = GPTConfig(vocab_size=7, block_size=5, n_layer=2, n_head=3, n_embd=6, dropout=0.2)
IDX = [[3, 1, 4, 1, 5], [6, 2, 6, 5, 3]]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def make(config=CONFIG, dtype="float32", seed=0):
    """A GPT whose every parameter is random, offsets and gains too."""
    rng = np.random.default_rng(seed)
    model = GPT(config, rng, dtype)
    for p in model.parameters():
        p.data[...] = xp.asarray(rng.normal(p.numpy(), 0.2))
    return model


@pytest.fixture
def folder(tmp_path):
    """A written model, to be spoilt."""
    write_gpt2(make(), tmp_path / "model")
    return tmp_path / "model"


def edit(folder, *leave_out, **changes):
    """Change settings in config.json."""
    fields = json.loads((folder / "config.json").read_text()) | changes
    for name in leave_out:
        del fields[name]
    (folder / "config.json").write_text(json.dumps(fields))


def rewrite(folder, change, dtype=None):
    """Apply a function to the dictionary of arrays."""
    arrays = change(load_file(folder / WEIGHTS))
    save_file({name: np.asarray(a, dtype) for name, a in arrays.items()}, folder / WEIGHTS)


def raw(folder, header, body=b""):
    """A file with any header at all."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(content)) + content + body)


def shard(folder):
    """Deal the arrays to two files, with an index."""
    arrays = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    files = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(arrays)}
    for file in {*files.values()}:
        save_file({name: arrays[name] for name in files if files[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def assert_same(model, other):
    """The same settings and parameters, to the last bit."""
    assert model.config == other.config
    for (name, p), (its, q) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert name == its
        assert p.dtype == q.dtype
        assert to_numpy(p.data).tobytes() == to_numpy(q.data).tobytes(), name


def assert_agrees(model, idx, targets, record, tolerance):
    """Logits, loss and every gradient: errors relative to the largest entry expected."""
    logits = model(idx)
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    found = {"logits": logits.data, "loss": loss.data}
    for name, p in model.named_parameters():
        found["grad/" + (name if name.startswith("lm_head") else f"transformer.{name}")] = p.grad
    assert {*found} == {name for name in record if name not in ("idx", "targets")}
    for name, value in found.items():
        error = np.abs(to_numpy(value) - record[name]).max() / np.abs(record[name]).max()
        assert error <= tolerance, f"{name}: relative error {error:.1e} > {tolerance:.0e}"


# --- reading what others wrote ----------------------------------------------------------------


@pytest.mark.parametrize("path", [TINY, TINY / WEIGHTS], ids=["folder", "file"])
def test_the_recorded_gpt2_of_transformers(path):
    with np.load(TINY / "expected.npz") as file:
        record = dict(file)
    model = read_gpt2(path)
    assert model.config == GPTConfig(97, 16, n_layer=2, n_head=3, n_embd=12)
    assert {p.dtype.name for p in model.parameters()} == {"float64"}
    assert_agrees(model, record["idx"], record["targets"], record, 1e-11)


def test_recordings_are_small():
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 200_000


def test_names_without_prefix_masks_and_a_copy_of_wte_change_nothing(folder):
    def published(arrays):
        arrays = {name.removeprefix("transformer."): a for name, a in arrays.items()}
        masks = {f"h.{i}.attn.bias": np.ones((1, 1, 5, 5), bool) for i in range(2)}
        masks |= {f"h.{i}.attn.masked_bias": np.float32(-1e4) for i in range(2)}
        return arrays | masks | {"lm_head.weight": arrays["wte.weight"]}

    rewrite(folder, published)
    assert_same(read_gpt2(folder), make())


@pytest.mark.parametrize("says", [True, False])
def test_a_head_of_its_own_is_kept_whatever_the_config_says(folder, says):
    edit(folder, tie_word_embeddings=says)
    rewrite(folder, lambda a: a | {"lm_head.weight": a["transformer.wte.weight"] * 2})
    model = read_gpt2(folder)
    assert model.config == replace(CONFIG, tied=False)
    assert (model(IDX).data == 2 * make()(IDX).data).all()


def test_a_head_that_is_said_to_be_untied_is_untied_though_it_equals_wte(folder):
    edit(folder, tie_word_embeddings=False)
    rewrite(folder, lambda a: a | {"lm_head.weight": a["transformer.wte.weight"]})
    model = read_gpt2(folder)
    assert model.lm_head is not model.wte
    assert (model(IDX).data == make()(IDX).data).all()


def test_an_untied_head_that_is_missing_is_named(folder):
    edit(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"lm_head.weight is missing, expected \(7, 6\)"):
        read_gpt2(folder)


def test_half_precision_becomes_float32(folder):
    rewrite(folder, dict, np.float16)
    model = read_gpt2(folder)
    for p, q in zip(model.parameters(), make().parameters(), strict=True):
        assert p.dtype == np.float32
        assert (p.data == q.data.astype(np.float16).astype(np.float32)).all()


def test_bfloat16_becomes_float32(folder):
    """It is the upper half of a float32; NumPy and safetensors' reader for it know it not."""
    places, body = {}, b""
    for name, a in load_file(folder / WEIGHTS).items():
        half = (np.ascontiguousarray(a).view(np.uint32) >> 16).astype("<u2").tobytes()
        places[name] = {"dtype": "BF16", "shape": a.shape,
                        "data_offsets": [len(body), len(body) + len(half)]}  # fmt: skip
        body += half
    raw(folder, places, body)
    for p, q in zip(read_gpt2(folder).parameters(), make().parameters(), strict=True):
        assert p.dtype == np.float32
        assert (p.data.view(np.uint32) == q.data.view(np.uint32) & 0xFFFF0000).all()


def test_one_array_in_float64_makes_the_model_float64(folder):
    def widened(arrays):
        return arrays | {"transformer.ln_f.bias": np.full(6, 1 / 3)}

    rewrite(folder, widened)
    model = read_gpt2(folder)
    assert {p.dtype.name for p in model.parameters()} == {"float64"}
    assert (model.ln_f.bias.data == 1 / 3).all()


def test_several_files_with_an_index(folder):
    assert len({*shard(folder).values()}) == 2
    assert_same(read_gpt2(folder), make())


def test_old_names_of_settings_and_defaults_do(folder):
    edit(folder, "n_positions", "layer_norm_epsilon", "minigpt_bias", "resid_pdrop", "embd_pdrop",
         "attn_pdrop", "activation_function", "tie_word_embeddings", n_ctx=5)  # fmt: skip
    assert read_gpt2(folder).config == replace(CONFIG, dropout=0.1)


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"bias": False}, {"n_layer": 11}])
def test_round_trip_to_the_last_bit(tmp_path, dtype, changes):
    model = make(replace(CONFIG, **changes), dtype)
    write_gpt2(model, tmp_path / "a" / "b")
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["config.json", WEIGHTS]
    assert_same(read_gpt2(tmp_path / "a" / "b"), model)
    fields = json.loads((tmp_path / "a" / "b" / "config.json").read_text())
    assert fields["tie_word_embeddings"] == model.config.tied


def test_offsets_that_should_be_zero_are_refused_if_they_are_not(tmp_path):
    write_gpt2(make(replace(CONFIG, bias=False)), tmp_path / "model")
    rewrite(tmp_path / "model", lambda a: a | {"transformer.h.1.ln_2.bias": np.full(6, 0.5)})
    with pytest.raises(ValueError, match="minigpt_bias is false, but h.1.ln_2.bias is not zero"):
        read_gpt2(tmp_path / "model")


def test_what_the_format_cannot_say_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="GPT-2 has learned positions, this model has 'alibi'"):
        write_gpt2(make(replace(CONFIG, position="alibi")), tmp_path / "model")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("after", range(2))
def test_written_whole_or_not_at_all(tmp_path, monkeypatch, after):
    real, calls = module.write_whole, []

    def full(path, content):
        if len(calls) == after:
            raise OSError(28, "No space left on device")
        calls.append(path)
        real(path, content)

    monkeypatch.setattr(module, "write_whole", full)
    with pytest.raises(ValueError, match="cannot write .*model: No space left on device"):
        write_gpt2(make(), tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_exists_is_left_alone(folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="exists already"):
        write_gpt2(make(seed=3), folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is llama, but only gpt2 is supported"),
        ({"activation_function": "gelu"}, "activation_function is gelu, but only gelu_new"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, but only 1e-05"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False, but only True"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True, but only False"),
        ({"n_inner": 25}, r"n_inner is 25, but only 4 \* n_embd = 24 is supported"),
        ({"embd_pdrop": 0.3}, "resid_pdrop, embd_pdrop, attn_pdrop must be one number"),
        (dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), "x"), "one number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
        ({"minigpt_bias": 0}, "minigpt_bias and tie_word_embeddings must be"),
        ({"n_head": 4}, "n_embd 6 must be a multiple of n_head 4"),
        ({"n_layer": 2.0}, "n_layer must be a positive integer, got 2.0"),
        ({"vocab_size": None}, "vocab_size must be a positive integer, got None"),
        ({"n_positions": "5"}, "n_positions must be a positive integer, got 5"),
        ({"n_layer": 10**15}, "n_layer is 1000000000000000, but it has 28 arrays"),
        ({"n_layer": 3}, r"h.2.ln_1.weight is missing, expected \(6,\); .*; and 7 more"),
        ({"n_layer": 1}, r"h.1.ln_1.bias of shape \(6,\) is unknown; and 7"),
        ({"vocab_size": 8}, r"wte.weight has shape \(7, 6\), expected \(8, 6\)"),
        ({"n_positions": 10**12}, r"wpe.weight has shape \(5, 6\), expected \(10+, 6\)"),
        ({"n_embd": 3 * 10**9}, r"h.0.attn.c_attn.weight has shape \(6, 18\), expected \(30+, 90+"),
    ],
)
def test_settings_that_do_not_fit_are_named(folder, changes, message):
    read_gpt2(folder)
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message):
        read_gpt2(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {k: v for k, v in a.items() if "h.1.mlp.c_fc.bias" not in k},
         r"h.1.mlp.c_fc.bias is missing, expected \(24,\)"),
        (lambda a: a | {"h.2.strange": np.zeros((2, 3))}, r"h.2.strange of shape \(2, 3\) is unk"),
        (lambda a: a | {"transformer.ln_f.weight": np.zeros((6, 1))},
         r"ln_f.weight has shape \(6, 1\), expected \(6,\)"),
        (lambda a: a | {"transformer.h.0.mlp.c_fc.weight": np.zeros((24, 6))},
         r"h.0.mlp.c_fc.weight has shape \(24, 6\), expected \(6, 24\)"),
        (lambda a: a | {"lm_head.weight": np.zeros((8, 6))},
         r"lm_head.weight has shape \(8, 6\), expected \(7, 6\)"),
        (lambda a: a | {"ln_f.weight": np.zeros(6)}, "names both with and without 'transformer.'"),
        (lambda a: a | {"transformer.ln_f.weight": np.array([1, 1, 1, np.nan, 1, 1], "f4")},
         "transformer.ln_f.weight holds what is no finite number"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        read_gpt2(folder)


def test_whole_numbers_are_no_weights(folder):
    rewrite(folder, lambda a: a, np.int32)
    with pytest.raises(ValueError, match="h.0.ln_1.bias is of I32, expected one of F64, F32, F16"):
        read_gpt2(folder)


def entry(**changes):
    """A header of one array "a"."""
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        (b"", 8, "its header should have 0 bytes"),
        (b"{", 8, "not valid JSON"),
        (b"[" * 100_000, 8, "not valid JSON"),
        (b"\xff{}", 8, "not valid JSON"),
        (b"[]", 8, "expected a JSON object"),
        ({"a": 3}, 8, "its header says of 'a': 3"),
        ({"a": {"dtype": "F32"}}, 8, "its header says of 'a': "),
        (entry(shape="2"), 8, "its header says of 'a'"),
        (entry(shape=[-2]), 8, "its header says of 'a'"),
        (entry(shape=[True, 2]), 8, "its header says of 'a'"),
        (entry(shape=[2.0]), 8, "its header says of 'a'"),
        (entry(shape=[2] + [1] * 99), 8, "its header says of 'a'"),
        (entry(shape=[10**30]), 8, "its header says of 'a'"),
        (entry(dtype=[]), 8, "its header says of 'a'"),
        (entry(data_offsets=[0]), 8, "its header says of 'a'"),
        (entry(data_offsets=[-8, 0]), 8, "its header says of 'a'"),
        (entry(shape=[1 << 40]), 8, "'a' has 8 bytes, not those of F32"),
        (entry(shape=[1 << 40], data_offsets=[0, 1 << 42]), 8, "its arrays end at byte 4,398,"),
        (entry(data_offsets=[8, 0]), 8, "'a' has -8 bytes"),
        (entry(data_offsets=[4, 12]), 12, "'a' should begin at byte"),
        (entry() | {"b": entry()["a"]}, 8, "'b' should begin at byte"),
        (entry(dtype="I8", data_offsets=[8, 0]), 8, "'a' should begin at byte"),
        (entry() | {"b": entry(dtype="I8", data_offsets=[8, 4])["a"]}, 8, "'b' should begin"),
        (entry(), 7, "its arrays end at byte"),
        (entry(), 9, "its arrays end at byte"),
    ],
)
def test_a_lying_header_is_refused(folder, header, body, message):
    raw(folder, header, bytes(body))
    with pytest.raises(ValueError, match=f"is no whole safetensors file: .*{message}"):
        read_gpt2(folder)


def test_a_header_longer_than_the_file_is_not_believed(folder):
    for length in (1 << 40, (1 << 64) - 1, 17):
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + b"{}")
        tracemalloc.start()
        with pytest.raises(ValueError, match="its header should have"):
            read_gpt2(folder)
        assert tracemalloc.get_traced_memory()[1] < 1e6
        tracemalloc.stop()


def test_mangled_bytes_raise_valueerror_or_read_as_a_model(folder):
    """200 files with bytes changed, cut, doubled or put in; half of the changes in the header."""
    whole, rng = (folder / WEIGHTS).read_bytes(), random.Random(5)
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    refused = 0
    for case in range(200):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(header if case % 2 else len(content))
            kind = rng.choice(["change", "change", "digit", "cut", "double", "insert"])
            if kind == "change":
                content[at % len(content)] = rng.randrange(256)
            elif kind == "digit":
                content[at % len(content)] = rng.choice(b'0123456789[]{},:"-e.')
            elif kind == "cut":
                del content[at : at + rng.randint(1, 200)]
            elif kind == "double":
                content[at:at] = content[at : at + rng.randint(1, 200)]
            else:
                content[at:at] = rng.randbytes(rng.randint(1, 9))
        (folder / WEIGHTS).write_bytes(content)
        tracemalloc.start()
        try:
            model = read_gpt2(folder)
        except ValueError as error:
            refused += 1
            assert "model" in str(error)
        else:
            assert model.num_parameters() == make().num_parameters()
        assert tracemalloc.get_traced_memory()[1] < 3e6
        tracemalloc.stop()
    assert 120 < refused < 200


def test_cut_at_any_length_is_refused(folder):
    whole = (folder / WEIGHTS).read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        (folder / WEIGHTS).write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is no whole safetensors file"):
            read_gpt2(folder)


@pytest.mark.parametrize("lost", [30, 48])  # amid a number, and between two
def test_a_file_that_is_cut_after_its_header_was_read(folder, monkeypatch, lost):
    real = module._check

    def cut(*args):
        real(*args)
        os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - lost)

    monkeypatch.setattr(module, "_check", cut)
    with pytest.raises(ValueError, match=r"model.safetensors ends within transformer\."):
        read_gpt2(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: {}, r"says, wrongly, that|n_layer is 2, but it has 0 arrays"),
        (lambda files: [], "weight_map must be an object of file names"),
        (lambda files: dict.fromkeys(files, "../a"), "weight_map must be an object of file names"),
        (lambda files: dict.fromkeys(files, 3), "weight_map must be an object of file names"),
        (lambda files: dict.fromkeys(files, "none.safetensors"), "cannot read .*none.safetensors"),
        (lambda files: dict.fromkeys(files, "model-0.safetensors"), "says, wrongly, that"),
        (lambda files: dict([*files.items()][1:]), "does not say that"),
        (lambda files: files | {"b": "model-1.safetensors"}, "says, wrongly, that b is in model-1"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder, change, message):
    files = shard(folder)
    read_gpt2(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": change(files)}))
    with pytest.raises(ValueError, match=message):
        read_gpt2(folder)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"cannot read .*{name}: No such file"):
        read_gpt2(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"n_embd": 6}', b"[" * 99999]
)
def test_a_config_that_is_none_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json: "):
        read_gpt2(folder)


# --- memory -----------------------------------------------------------------------------------


def test_reading_takes_little_more_memory_than_the_model(tmp_path, monkeypatch):
    """No second copy of the weights, and none of the random ones that they replace."""
    monkeypatch.setattr(weights, "_PIECE", 1 << 16)  # as small beside this model as it really is
    config = GPTConfig(3000, 64, n_layer=3, n_head=4, n_embd=256)
    write_gpt2(GPT(config, np.random.default_rng(0)), tmp_path / "model")
    size = (tmp_path / "model" / WEIGHTS).stat().st_size
    monkeypatch.setattr(np.random, "default_rng", None)
    tracemalloc.start()
    model = read_gpt2(tmp_path / "model")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.num_parameters() * 4 < size
    assert size < peak + 1e5
    assert peak < 1.2 * size
    stored = load_file(tmp_path / "model" / WEIGHTS)
    for name, p in model.named_parameters():  # most of them in several pieces
        assert (to_numpy(p.data) == stored[f"transformer.{name}"]).all(), name


# --- live, where transformers is installed ----------------------------------------------------


@pytest.fixture
def live(monkeypatch):
    """transformers' side: how recordings are made and computed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch = pytest.importorskip("torch", reason="the live comparison needs torch")
    pytest.importorskip("transformers", reason="the live comparison needs transformers")
    torch.set_num_threads(1)  # on matrices this small, threads wait for each other
    from tests.data import record_gpt2

    return record_gpt2


SHAPES = [
    {"n_layer": 2, "n_head": 3, "n_embd": 12, "vocab_size": 97, "n_positions": 16},
    {"n_layer": 12, "n_head": 7, "n_embd": 35, "vocab_size": 50, "n_positions": 9},
    {"n_layer": 5, "n_head": 1, "n_embd": 8, "vocab_size": 2, "n_positions": 33},
    {"n_layer": 3, "n_head": 5, "n_embd": 5, "vocab_size": 300, "n_positions": 1},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['n_layer']}-layers")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_transformers_computes_the_same_both_ways(live, tmp_path, shape, tied, dtype, tolerance):
    import torch
    from transformers import GPT2LMHeadModel

    theirs = live.make(shape, getattr(torch, dtype), tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path / "theirs")
    rng = np.random.default_rng(4)
    idx, targets = rng.integers(shape["vocab_size"], size=(2, 3, shape["n_positions"]))
    record = live.compute(theirs, idx, targets)
    ours = read_gpt2(tmp_path / "theirs")
    assert ours.config.tied == tied
    assert {p.dtype.name for p in ours.parameters()} == {dtype}
    assert_agrees(ours, idx, targets, record, tolerance)

    write_gpt2(ours, tmp_path / "ours")
    again, info = GPT2LMHeadModel.from_pretrained(
        tmp_path / "ours", dtype=getattr(torch, dtype), output_loading_info=True
    )
    assert not any(info.values()), info
    with torch.no_grad():
        logits = again.eval()(torch.from_numpy(idx)).logits.numpy()
    assert all(map(torch.equal, again.state_dict().values(), theirs.state_dict().values()))
    rounding = 1e-5 if dtype == "float32" else 1e-13  # sums depend on where arrays lie in memory
    assert np.abs(logits - record["logits"]).max() <= rounding * np.abs(logits).max()


@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_a_model_without_offsets(live, tmp_path):
    import torch
    from transformers import GPT2LMHeadModel

    model = make(replace(CONFIG, bias=False), "float64")
    write_gpt2(model, tmp_path / "model")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "model").eval()
    assert theirs.dtype == torch.float64
    with torch.no_grad():
        logits = theirs(torch.tensor(IDX)).logits.numpy()
    np.testing.assert_allclose(to_numpy(model(IDX).data), logits, rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_several_files_as_transformers_splits_them(live, tmp_path):
    theirs = live.make(SHAPES[0])
    theirs.save_pretrained(tmp_path / "split", max_shard_size="10KB")
    assert (tmp_path / "split" / INDEX).is_file()
    assert_same(read_gpt2(tmp_path / "split"), read_gpt2(TINY))


# --- the untied head, and the command ---------------------------------------------------------


def test_an_untied_head_is_kept_in_checkpoints_and_has_no_gradient_in_wte(tmp_path):
    model = make(replace(CONFIG, tied=False))
    assert model.num_parameters() == make().num_parameters() + 7 * 6
    save_checkpoint(tmp_path / "a.safetensors", Checkpoint(model, CharTokenizer("abcdefg")))
    assert_same(load_checkpoint(tmp_path / "a.safetensors").model, model)
    F.cross_entropy(model(IDX), IDX).backward()
    unread = 0  # this token is never read, but always one of those predicted
    assert not model.wte.weight.grad[unread].any()
    assert model.lm_head.weight.grad[unread].all()


def test_every_parameter_of_a_model_with_an_untied_head():
    model = make(replace(CONFIG, tied=False), "float64")
    assert flops_per_token(model) == flops_per_token(make())
    loss = lambda: F.cross_entropy(model(IDX), IDX)  # noqa: E731
    assert max(row.error for row in check_parameters(loss, model.named_parameters())) < 1e-6


@pytest.fixture
def bpe():
    return train_bpe("the cat sat on the mat, the rat sat on the cat. " * 20, 270)


def imported(*argv, capsys):
    code = main(["import", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("files", ["pair", "all in one"])
def test_import_makes_a_checkpoint_that_sample_speaks_with(tmp_path, capsys, bpe, files):
    model, out = make(replace(CONFIG, vocab_size=270)), tmp_path / "made.safetensors"
    write_gpt2(model, tmp_path / "model")
    save(bpe, tmp_path / "model")
    for name in ["tokenizer.json"] if files == "pair" else ["vocab.json", "merges.txt"]:
        (tmp_path / "model" / name).unlink()
    path = tmp_path / "model" / ("" if files == "pair" else WEIGHTS)  # a folder, or a file in it
    code, told, _ = imported(path, "--out", out, capsys=capsys)
    assert code == 0
    assert "n_layer    2\n" in told
    assert f"parameters {model.num_parameters():,} (float32)" in told
    made = load_checkpoint(out)
    assert_same(made.model, model)
    assert made.tokenizer.to_json() == load(tmp_path / "model").to_json()
    assert main(["sample", str(out), "--prompt", "the cat", "-n", "5"]) == 0
    assert capsys.readouterr().out.startswith("the cat")


def test_import_takes_gpt2s_own_tokenizer_where_there_is_none(tmp_path, capsys):
    config = GPTConfig(50257, 4, n_layer=1, n_head=1, n_embd=2)
    write_gpt2(GPT(config, np.random.default_rng(0)), tmp_path / "model")
    out = tmp_path / "made.safetensors"
    code, _, _ = imported(tmp_path / "model" / WEIGHTS, "--out", out, capsys=capsys)
    assert code == 0
    assert load_checkpoint(out).tokenizer.to_json() == gpt2().to_json()
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    assert fields["eos_token_id"] == 50256


def test_import_tells_bad_input_in_one_line(folder, tmp_path, capsys, bpe):
    out = tmp_path / "made.safetensors"
    cases = {"no such folder": tmp_path / "none", "other tokenizer": folder}
    for name in ("tokenizer", "merges", "weights"):
        cases[name] = shutil.copytree(folder, tmp_path / name)
    save(bpe, cases["tokenizer"])
    (cases["merges"] / "merges.txt").write_text("a b\n")
    (cases["weights"] / WEIGHTS).write_bytes(b"no")
    expected = {
        "no such folder": "cannot read ",
        "other tokenizer": "the model has 7 tokens, but the tokenizer 50257",
        "tokenizer": "the model has 7 tokens, but the tokenizer 270",
        "merges": "expected vocab.json and merges.txt or encoder.json and vocab.bpe",
        "weights": "is no whole safetensors file",
    }
    for name, path in cases.items():
        code, told, err = imported(path, "--out", out, capsys=capsys)
        assert (code, told) == (2, ""), name
        assert err.startswith("minigpt: error: ")
        assert expected[name] in err
        assert err.count("\n") == 1
        assert not out.exists()
