"""GPT-2 checkpoints in Hugging Face's format, read and written.

A folder with config.json and model.safetensors; a large model lies in several files, which
model.safetensors.index.json lists. The names are this package's own, most often after
"transformer.", and matrices are (n_in, n_out) in both.

Their format has no model without offsets. Such a model is written with offsets of zero, and
`"minigpt_bias": false` in its config.json, by which `read_gpt2` knows it again.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from minigpt.backend import to_numpy
from minigpt.checkpoint import CheckpointError, write_whole
from minigpt.model import GPT, GPTConfig
from minigpt.tokenizer.vocabulary import parse_object
from minigpt.weights import FLOATS, Stored, read_header

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_PREFIX, _HEAD, _MARK = "transformer.", "lm_head.weight", "minigpt_bias"
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # the causal mask, which is no weight

# What would change the result, and is only this way here. All are the format's defaults.
_FIXED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


class _Blank:
    """In place of a generator: weights that are read from a file need not be drawn before."""

    @staticmethod
    def normal(mean: float, std: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(np.float32(0), shape)  # one number, however large the shape


def read_gpt2(path: str | os.PathLike) -> GPT:
    """The model in such a folder, or in one of its .safetensors files with config.json beside it.

    float64 stays; float32, float16 and bfloat16 become float32. The head is tied unless the file
    has one that differs from wte, or config.json says so.
    Raises: ValueError naming the file, and the arrays that are missing, unknown or misshapen, or
            the setting that is not supported.
    """
    path = Path(path)
    place = (path if path.is_dir() else path.parent) / _CONFIG
    try:
        fields = parse_object(place.read_bytes())
        config = _config(fields)
    except OSError as error:
        raise ValueError(f"cannot read {place}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    arrays = _arrays(path)
    config = _with_head(config, arrays)
    _check(arrays, config, path)
    dtype = "float64" if any(array.dtype == "F64" for array in arrays.values()) else "float32"
    model = GPT(config, _Blank, dtype)
    for name, p in model.named_parameters():
        arrays.pop(name).fill(p.data)
    for name, array in arrays.items():  # of a model without offsets
        if any(piece.any() for piece in array.pieces()):
            raise ValueError(f"{path}: {_MARK} is false, but {name} is not zero")
    return model


# --- config.json ------------------------------------------------------------------------------


def _config(fields: dict[str, Any]) -> GPTConfig:
    """Our settings from theirs. Raises ValueError naming one that is missing or not supported."""
    for name, only in _FIXED.items():
        if fields.get(name, only) != only:
            raise ValueError(f"{name} is {str(fields[name])[:60]}, but only {only} is supported")
    names = ("vocab_size", "n_layer", "n_head", "n_embd")
    sizes: dict[str, Any] = {name: fields.get(name) for name in names}
    sizes["block_size"] = fields.get("n_positions", fields.get("n_ctx"))
    for name, size in sizes.items():
        if type(size) is not int:
            theirs = "n_positions" if name == "block_size" else name
            raise ValueError(f"{theirs} must be a positive integer, got {str(size)[:60]}")
    dropouts = [fields.get(name, 0.1) for name in _DROPOUTS]
    if not isinstance(dropouts[0], int | float) or dropouts != dropouts[:1] * 3:
        raise ValueError(f"{', '.join(_DROPOUTS)} must be one number, got {str(dropouts)[:60]}")
    flags = {_MARK: fields.get(_MARK, True), "tied": fields.get("tie_word_embeddings", True)}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ValueError(f"{_MARK} and tie_word_embeddings must be true or false")
    config = GPTConfig(**sizes, dropout=dropouts[0], bias=flags[_MARK], tied=flags["tied"])
    if fields.get("n_inner") not in (None, 4 * config.n_embd):
        raise ValueError(f"n_inner is {str(fields['n_inner'])[:60]}, but only 4 * n_embd "
                         f"= {4 * config.n_embd} is supported")  # fmt: skip
    return config


def _fields(config: GPTConfig, dtype: str) -> dict[str, Any]:
    """Their settings from ours."""
    end = 50256 if config.vocab_size == 50257 else None  # GPT-2's <|endoftext|>
    return {
        "architectures": ["GPT2LMHeadModel"],
        **_FIXED,
        **{name: getattr(config, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")},
        "n_positions": config.block_size,
        **dict.fromkeys(_DROPOUTS, config.dropout),
        "tie_word_embeddings": config.tied,
        "torch_dtype": dtype,
        "bos_token_id": end,
        "eos_token_id": end,
        _MARK: config.bias,
    }


# --- the arrays -------------------------------------------------------------------------------


def _arrays(path: Path) -> dict[str, Stored]:
    """What the files hold, by our names, without masks."""
    if path.is_dir() and not (path / _WEIGHTS).is_file() and (path / _INDEX).is_file():
        found = _shards(path)
    else:
        found = read_header(path / _WEIGHTS if path.is_dir() else path)
    arrays = {name.removeprefix(_PREFIX): array for name, array in found.items()}
    if len(arrays) < len(found):
        raise ValueError(f"{path}: it has names both with and without {_PREFIX!r}")
    return {name: array for name, array in arrays.items() if not _MASK.fullmatch(name)}


def _shards(folder: Path) -> dict[str, Stored]:
    """The arrays of all the files that the index lists."""
    index = folder / _INDEX
    files = read_index(index)
    headers = {file: read_header(folder / file) for file in sorted({*files.values()})}
    found = [(name, file) for file, header in headers.items() for name in header]
    if wrong := {*found} ^ {*files.items()}:
        name, file = min(wrong)
        says = "does not say" if (name, file) in found else "says, wrongly,"
        raise ValueError(f"{index} {says} that {name} is in {file}")
    return {name: headers[file][name] for name, file in files.items()}


def read_index(index: Path) -> dict[str, str]:
    """The file in which each array is, all in the same folder.

    Raises: ValueError, naming the index, if it cannot be read, or a file could lie elsewhere.
    """
    try:
        files = parse_object(index.read_bytes()).get("weight_map")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {index}: {error}") from error
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and Path(file).name == file and file.endswith(".safetensors")
        for file in files.values()
    ):
        raise ValueError(f"{index}: weight_map must be an object of file names, all .safetensors "
                         "in the same folder")  # fmt: skip
    return files


def _with_head(config: GPTConfig, arrays: dict[str, Stored]) -> GPTConfig:
    """Decide whether the head is tied; if so, drop from arrays the copy of wte that may be there.

    As transformers has it: a head that differs from wte is kept, whatever config.json says.
    """
    head, wte = arrays.get(_HEAD), arrays.get("wte.weight")
    if not config.tied or head is None or wte is None:
        return config
    floats = head.dtype in FLOATS and wte.dtype in FLOATS
    if floats and head.shape == wte.shape and all(map(np.array_equal, head.pieces(), wte.pieces())):
        del arrays[_HEAD]
        return config
    return replace(config, tied=False)


def _check(arrays: dict[str, Stored], config: GPTConfig, path: Path) -> None:
    """Raises ValueError unless the arrays are those of the config, before any is made."""
    if config.n_layer > len(arrays):  # so that a wrong number does not make a list as long
        raise ValueError(f"{path}: n_layer is {config.n_layer}, but it has {len(arrays)} arrays")
    shapes = dict(_shapes(config))
    wrong = [f"{name} is missing, expected {shapes[name]}" for name in shapes if name not in arrays]
    for name, array in arrays.items():
        if name not in shapes:
            wrong.append(f"{name} of shape {array.shape} is unknown")
        elif array.shape != shapes[name]:
            wrong.append(f"{name} has shape {array.shape}, expected {shapes[name]}")
        elif array.dtype not in FLOATS:
            wrong.append(f"{name} is of {array.dtype}, expected one of {', '.join(FLOATS)}")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"{path} does not fit its {_CONFIG}: {'; '.join(wrong[:5])}{more}")


def _shapes(config: GPTConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each array in the files, offsets always among them."""
    C = config.n_embd
    yield "wte.weight", (config.vocab_size, C)
    yield "wpe.weight", (config.block_size, C)
    for i in range(config.n_layer):
        for name in ("ln_1", "ln_2"):
            yield f"h.{i}.{name}.weight", (C,)
            yield f"h.{i}.{name}.bias", (C,)
        for name, n_in, n_out in (("attn.c_attn", C, 3 * C), ("attn.c_proj", C, C),
                                  ("mlp.c_fc", C, 4 * C), ("mlp.c_proj", 4 * C, C)):  # fmt: skip
            yield f"h.{i}.{name}.weight", (n_in, n_out)
            yield f"h.{i}.{name}.bias", (n_out,)
    yield "ln_f.weight", (C,)
    yield "ln_f.bias", (C,)
    if not config.tied:
        yield _HEAD, (config.vocab_size, C)


# --- writing ----------------------------------------------------------------------------------


def write_gpt2(model: GPT, folder: str | os.PathLike) -> None:
    """Make a folder that `read_gpt2` reads, and `GPT2LMHeadModel.from_pretrained` of transformers.

    It gets its name when all is in it, so it is there whole or not at all.
    Raises: ValueError if it exists already or cannot be written, or positions are not learned.
    """
    config, folder = model.config, Path(folder)
    if config.position != "learned":
        raise ValueError(f"GPT-2 has learned positions, this model has {config.position!r}")
    if folder.exists():
        raise CheckpointError(f"{folder} exists already: name a folder to be made")
    params = {name: to_numpy(p.data) for name, p in model.named_parameters()}
    dtype = params["wte.weight"].dtype
    arrays = {
        name if name == _HEAD else _PREFIX + name: np.ascontiguousarray(
            params[name] if name in params else np.zeros(shape, dtype)
        )
        for name, shape in _shapes(config)
    }
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        write_whole(temporary / _WEIGHTS, save(arrays, metadata={"format": "pt"}))
        fields = json.dumps(_fields(config, dtype.name), indent=2)
        write_whole(temporary / _CONFIG, fields.encode())
        os.rename(temporary, folder)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # it is gone already if all went well
