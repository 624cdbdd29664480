"""`python -m minigpt import`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from minigpt.checkpoint import Checkpoint, save_checkpoint
from minigpt.gpt2 import read_gpt2
from minigpt.hub import locate
from minigpt.tokenizer import BPETokenizer, gpt2, load

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe")


def import_gpt2(args: argparse.Namespace) -> None:
    """Make a checkpoint from a GPT-2 in Hugging Face's format, on your disk or on their site.

    A path that exists is read, and nothing is fetched. Otherwise gpt2 (MIT licence, 550 MB), or
    OWNER/NAME of another GPT-2, is fetched from huggingface.co once and kept in the cache folder,
    or in the one that MINIGPT_DATA names. Every file must have the size and the hash that are
    known of gpt2, or that the site states of the others: it is whole, whoever made it.

    Its tokenizer is that of the files beside the weights: tokenizer.json, or vocab.json and
    merges.txt. Where there are none, it is GPT-2's own.
    """
    path = locate(args.path)
    model, tokenizer = read_gpt2(path), _tokenizer(path if path.is_dir() else path.parent)
    config = model.config
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(f"{path}: the model has {config.vocab_size} tokens, but the tokenizer "
                         f"{tokenizer.vocab_size}")  # fmt: skip
    save_checkpoint(args.out, Checkpoint(model, tokenizer))
    names = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "bias", "tied")
    for name in names:
        print(f"{name:11s}{getattr(config, name)}")
    print(f"parameters {model.num_parameters():,} ({model.parameters()[0].dtype})")
    print(f"read from  {path}")
    print(f"checkpoint {args.out}")


def _tokenizer(folder: Path) -> BPETokenizer:
    found = any((folder / name).exists() for name in TOKENIZER_FILES)
    return load(folder) if found else gpt2()


def add(command: Callable) -> None:
    """Its options."""
    sub = command(
        import_gpt2, "import", " gpt2 --out gpt2.safetensors",
        " my_model/ --out mine.safetensors", " OWNER/NAME@REVISION --out theirs.safetensors",
    )  # fmt: skip
    sub.add_argument(
        "path",
        help="a folder with config.json and model.safetensors (or an index of several files);"
        " or a .safetensors file with config.json beside it; or, where there is no such path, a"
        " model of huggingface.co: gpt2, OWNER/NAME or OWNER/NAME@REVISION (a branch or commit)",
    )
    sub.add_argument("--out", required=True, help="the checkpoint to write")
