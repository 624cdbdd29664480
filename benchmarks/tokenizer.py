"""Encoding with GPT-2's vocabulary beside tiktoken, and training byte pairs on a megabyte.

Both encode the same English text to the same ids, in turns, on one core; tiktoken is built from our
ranks, so nothing is fetched. "cold" is a tokenizer that has seen no text yet, "warm" one that has
met these words before. Times are of this process's processor, so that what neighbours take does not
count. A ratio is taken within a repeat, so that a change in the machine's speed meets both sides.
"""

import argparse
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import tiktoken

from minigpt import data
from minigpt.tokenizer import BPETokenizer, from_json, gpt2, train_bpe

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CHARACTERS = 1_000_000
MERGES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="of each timing; default: 5")
    repeats = parser.parse_args().repeats
    if repeats < 1:
        parser.error(f"--repeats must be at least 1, got {repeats}")
    load, ours = seconds(gpt2)
    theirs = tiktoken.Encoding(
        "GPT-2 from our ranks",
        pat_str=PATTERN,
        mergeable_ranks={token: i for i, token in enumerate(ours.tokens[:-1])},
        special_tokens=ours.special,
    )
    text = corpus()
    print(
        f"Python {platform.python_version()}, tiktoken {importlib.metadata.version('tiktoken')},"
        f" {len(text.encode()):,} bytes of English"
    )
    print(f"loading GPT-2's vocabulary  {load:.2f} s")
    encoding(ours, theirs, text, repeats)
    training = [seconds(lambda: train_bpe(text, 256 + MERGES))[0] for _ in range(repeats)]
    print(f"training {MERGES} merges        {spread(training, '.2f')} s")
    print("median (smallest-largest) over the repeats; ratio = minigpt's speed / tiktoken's")


def corpus() -> str:
    """A million characters of English: the facts, Python's manual, and some of the facts again."""
    facts = data.load("facts").text
    return (facts + data.load("pydoc").text + facts)[:CHARACTERS]


def encoding(ours: BPETokenizer, theirs: tiktoken.Encoding, text: str, repeats: int) -> None:
    """Print the table of encoding speeds."""
    speeds: dict[str, list[float]] = {"minigpt, cold": [], "minigpt, warm": [], "tiktoken": []}
    megabytes, saved = len(text.encode()) / 1e6, ours.to_json()
    expected = theirs.encode_ordinary(text)
    for _ in range(repeats):
        fresh = from_json(saved)
        for name, encode in (
            ("minigpt, cold", fresh.encode),
            ("minigpt, warm", fresh.encode),
            ("tiktoken", theirs.encode_ordinary),
        ):
            taken, ids = seconds(lambda encode=encode: encode(text))
            if list(ids) != expected:
                raise SystemExit(f"{name}: the ids are not tiktoken's")
            speeds[name].append(megabytes / taken)
    print("encoding       MB/s                ratio")
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, speeds["tiktoken"], strict=True)]
        print(f"{name:13}  {spread(values, '.1f'):18}  {spread(ratios, '.2f')}")


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds that a call takes, and what it returns."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def spread(values: list[float], form: str) -> str:
    """Median, smallest and largest."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({least:{form}}-{most:{form}})"


if __name__ == "__main__":
    main()
