"""A published model of 260,032 parameters that tells stories for small children.

Source:  huggingface.co/karpathy/tinyllamas, stories260K, at a fixed commit: a Llama trained on
         TinyStories (Eldan & Li 2023, arXiv:2305.07759), for llama2.c. The two files are downloaded
         at the first use, checked against their SHA-256, and kept in the user's cache folder, or in
         the folder that the environment variable MINIGPT_DATA names.
Licence: MIT.
Size:    1,056,540 and 6,227 bytes.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.download import cache_folder, fetch
from minigpt.generate import generate
from minigpt.variants.llama import Llama, Remembering
from minigpt.variants.llama2c import BOS, EOS, Llama2cTokenizer, read_llama2c, read_tokenizer

URL = (
    "https://huggingface.co/karpathy/tinyllamas/resolve/"
    "0bd21da7698eaf29a0d7de3992de8a46ef624add/stories260K"
)
MODEL, TOKENIZER = "stories260K.bin", "tok512.bin"
HASHES = {  # SHA-256
    MODEL: "b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
    TOKENIZER: "037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312",
}


def load(folder: str | os.PathLike | None = None) -> tuple[Llama, Llama2cTokenizer]:
    """The model and its tokenizer, from a folder, else from the cache, else from the network.

    Raises: ValueError if the files cannot be had, are not whole, or do not belong together.
    """
    place = cache() if folder is None else Path(folder)
    if folder is None:
        for name in HASHES:
            fetch(f"{URL}/{name}", HASHES[name], place / name, "It needs the internet once;"
                  " --model names a folder that has the files already")  # fmt: skip
    model, tokenizer = read_llama2c(place / MODEL), read_tokenizer(place / TOKENIZER)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ValueError(f"{place}: the tokenizer has {tokenizer.vocab_size} tokens, but the model "
                         f"{model.config.vocab_size}")  # fmt: skip
    return model, tokenizer


def cache() -> Path:
    """The folder where the files are, or will be."""
    return cache_folder() / "stories260K"


def tell(
    model: Llama, tokenizer: Llama2cTokenizer, prompt: str, n: int, *, temperature: float = 0.0,
    rng: np.random.Generator,
) -> Iterator[str]:  # fmt: skip
    """The prompt, and then the text of up to n further tokens as it comes; less if the story ends.

    Raises: ValueError if n or temperature is negative.
    """
    idx = np.concatenate([[BOS], tokenizer.encode(prompt)])  # (T,)
    speaker: Any = Remembering(model)
    tokens = generate(speaker, idx[None], n, rng=rng, temperature=temperature)

    def pieces() -> Iterator[str]:
        decoder = tokenizer.decoder()
        yield decoder.push(idx)
        for token in tokens:  # (1,)
            if token[0] in (BOS, EOS):
                break
            yield decoder.push(token)
        yield decoder.end()

    return pieces()
