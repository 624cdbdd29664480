"""Four sizes of GPT on the same number of tokens: loss and speed against parameters.

    python -m benchmarks.scaling                    # measure what is missing, then draw
    python -m benchmarks.scaling --steps 100 --seeds 2 --out quick.csv --figure quick.svg

Every model reads the same number of characters of the default corpus, in windows of 32, with the
learning rate 0.4 / n_embd: matrices of twice the width want half the rate (Yang et al. 2022,
arXiv:2203.03466, for Adam). The loss is that of the last weights on the whole validation part.
A row is written as soon as it is known, and a row that is there is not measured again.
"""

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np
from threadpoolctl import threadpool_limits

from minigpt import data
from minigpt.drawing import BLUE, GREY, RED, plt, style
from minigpt.evaluate import nats_per_token, score_baselines
from minigpt.model import GPT, GPTConfig
from minigpt.tokenizer import CharTokenizer
from minigpt.train import TrainConfig, Trainer

SIZES = {  # name -> n_layer, n_embd, n_head
    "1 layer, 32": (1, 32, 2),
    "2 layers, 64": (2, 64, 4),
    "3 layers, 96": (3, 96, 4),
    "4 layers, 160": (4, 160, 5),
}
FIGURES = Path(__file__).parent.parent / "figures"
# Of Student's distribution: half the width of a 95 % interval of a mean, in its standard errors.
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}


@dataclass(frozen=True)
class Run:
    """One trained model. nats: per character, on the validation part."""

    size: str
    seed: int
    steps: int
    parameters: int
    nats: float
    tokens_per_second: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000, help="steps of 1,024 tokens")
    parser.add_argument("--seeds", type=int, default=3, help=f"runs a size, {min(T95)}-{max(T95)}")
    parser.add_argument("--out", type=Path, default=FIGURES / "data" / "scaling.csv")
    parser.add_argument("--figure", type=Path, default=FIGURES / "scaling.svg")
    args = parser.parse_args(argv)
    if args.seeds not in T95 or args.steps < 1:
        parser.error(f"expected {min(T95)} to {max(T95)} seeds and at least 1 step")
    parts = data.split(data.load("facts"))
    tokenizer = CharTokenizer.from_text(parts.train + parts.val + parts.test)
    train, val = tokenizer.encode(parts.train), tokenizer.encode(parts.val)
    rows = read(args.out)
    for size, seed in missing(rows, args.steps, args.seeds):
        print(f"{size}, seed {seed}: ", end="", flush=True)
        rows.append(measure(size, seed, args.steps, tokenizer, train, val))
        write(args.out, rows)
        print(f"{rows[-1].nats:.4f} nats/char, {rows[-1].tokens_per_second:,.0f} tokens/s")
    chosen = [row for row in rows if row.steps == args.steps and row.seed < args.seeds]
    grams = score_baselines(tokenizer.vocab_size, train, val)[1:]
    draw(chosen, [(score.name, score.nats) for score in grams], args.figure)
    print_table(chosen)
    return 0


def missing(rows: Sequence[Run], steps: int, seeds: int) -> Iterator[tuple[str, int]]:
    """What is not measured yet. Seed by seed, so that a change of the machine meets all sizes."""
    there = {(row.size, row.seed) for row in rows if row.steps == steps}
    return ((size, seed) for seed in range(seeds) for size in SIZES if (size, seed) not in there)


def measure(
    size: str, seed: int, steps: int, tokenizer: CharTokenizer, train: np.ndarray, val: np.ndarray
) -> Run:
    """Train one model on one BLAS thread."""
    n_layer, n_embd, n_head = SIZES[size]
    rng = np.random.default_rng(seed)
    shape = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=32, n_layer=n_layer,
                      n_head=n_head, n_embd=n_embd)  # fmt: skip
    config = TrainConfig(steps=steps, batch_size=32, lr=0.4 / n_embd, seed=seed, eval_every=steps)
    model = GPT(shape, rng)
    with threadpool_limits(1, user_api="blas"), tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, tokenizer, train, val, config, Path(folder), rng)
        trainer.run(report=lambda line: None)
        nats = nats_per_token(model, val)
    tokens = config.batch_size * shape.block_size
    return Run(size, seed, steps, model.num_parameters(), nats,
               tokens / median(trainer.step_seconds))  # fmt: skip


def read(path: Path) -> list[Run]:
    """The rows of an earlier call."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            Run(**{f.name: f.type(row[f.name]) for f in fields(Run)})  # type: ignore[operator]
            for row in csv.DictReader(file)
        ]


def write(path: Path, rows: Sequence[Run]) -> None:
    """All rows, by size and seed."""
    names = [f.name for f in fields(Run)]
    order = sorted(rows, key=lambda row: (row.steps, [*SIZES].index(row.size), row.seed))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in order:
            cells = {**vars(row), "nats": f"{row.nats:.4f}",
                     "tokens_per_second": f"{row.tokens_per_second:.0f}"}  # fmt: skip
            writer.writerow([cells[name] for name in names])


def summary(rows: Sequence[Run]) -> list[tuple[str, int, float, float, float]]:
    """For each size: name, parameters, mean loss, half of its 95 % interval, median tokens/s."""
    lines = []
    for size in dict.fromkeys(row.size for row in rows):
        runs = [row for row in rows if row.size == size]
        nats = [row.nats for row in runs]
        half = T95[len(runs)] * stdev(nats) / len(runs) ** 0.5
        speed = median(row.tokens_per_second for row in runs)
        lines.append((size, runs[0].parameters, mean(nats), half, speed))
    return lines


def print_table(rows: Sequence[Run]) -> None:
    print(f"\n{'size':16s}{'parameters':>12s}{'nats/char':>12s}{'95 %':>10s}{'tokens/s':>12s}")
    for size, parameters, nats, half, speed in summary(rows):
        print(f"{size:16s}{parameters:12,d}{nats:12.4f}{half:10.4f}{speed:12,.0f}")


@plt.rc_context()  # style() is for this figure alone
def draw(rows: Sequence[Run], grams: Sequence[tuple[str, float]], path: Path) -> None:
    """Loss and speed against parameters; each run a dot, the n-grams as lines."""
    style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    lines = summary(rows)
    n = [parameters for _, parameters, *_ in lines]
    left.errorbar(n, [line[2] for line in lines], [line[3] for line in lines], color=BLUE,
                  capsize=4, lw=1.5)  # fmt: skip
    left.scatter([r.parameters for r in rows], [r.nats for r in rows], color=BLUE, s=12, alpha=0.6)
    for i, (size, parameters, nats, half, _) in enumerate(lines):  # by turns, or they overlap
        below, last = i == 2, i == len(lines) - 1
        left.annotate(size, (parameters, nats - half if below else nats + half),
                      xytext=(3, -5 if below else 8 * last), textcoords="offset points",
                      va="top" if below else "bottom",
                      ha="right" if last else "center" if below else "left")  # fmt: skip
    low = min(row.nats for row in rows) - 0.15
    high = max(line[2] + line[3] for line in lines) + 0.1
    for name, nats in grams:
        if low < nats < high:
            left.axhline(nats, color=GREY, lw=0.8, ls="--")
            left.annotate(name, (1, nats), xycoords=("axes fraction", "data"), xytext=(-2, 2),
                          textcoords="offset points", ha="right", color=GREY)  # fmt: skip
    left.set(xscale="log", ylim=(low, high), xlabel="parameters",
             ylabel="held-out loss (nats per character)",
             title="More parameters, same tokens: lower loss")  # fmt: skip
    right.plot(n, [line[4] for line in lines], color=RED, marker="o")
    right.set(xscale="log", yscale="log", xlabel="parameters", ylabel="training tokens per second",
              title="and fewer tokens a second")  # fmt: skip
    with plt.rc_context({"svg.hashsalt": "minigpt"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


if __name__ == "__main__":
    started = time.perf_counter()
    code = main()
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    sys.exit(code)
