"""Kill training runs at random moments, and see whether anything is lost.

    python -m benchmarks.kills --kills 200

Small runs, with dropout, accumulation and every schedule in turn, are killed (SIGKILL: the process
learns nothing of it) and resumed ten times each, then left to end. Half of the kills wait for a
random step. The others wait for a save, and strike at a random moment of it: for these, the child
makes its disk slow, so that a file is half written for a while.

Two things must hold. After a kill, last.safetensors is there, is whole, and is no older than
before. And at the end, losses and weights are bit for bit those of a run that nobody disturbed.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt import checkpoint
from minigpt.checkpoint import CheckpointError, load_checkpoint
from minigpt.model import GPT, GPTConfig
from minigpt.record import BEST, LAST, read_log
from minigpt.settings import SCHEDULES, TrainConfig
from minigpt.tokenizer import CharTokenizer
from minigpt.train import Trainer

ROOT = Path(__file__).resolve().parent.parent
CSV = ROOT / "figures" / "data" / "kills.csv"
TEXT = "the quick brown fox jumps over the lazy dog\n" * 40
STEPS, KILLS_A_RUN = 40, 10
SAVE_SECONDS = 0.04  # about as long as a save takes a child with a slow disk
FIELDS = ("kill", "run", "step", "saved", "inside_a_save", "outcome")


# --- the child ---


def train(folder: Path, variant: int, slow: bool) -> None:
    """Begin or resume a run. Tells its steps and saves on standard output, a line each."""
    tokenizer = CharTokenizer.from_text(TEXT)
    ids = tokenizer.encode(TEXT)
    last = folder / LAST
    resume = load_checkpoint(last) if last.exists() else None
    config = TrainConfig(
        steps=STEPS, batch_size=2, accumulate=2, schedule=SCHEDULES[variant], lr=0.02, warmup=5,
        eval_every=7, eval_tokens=100, save_every=3, sample_tokens=3, seed=variant,
    )  # fmt: skip
    rng = np.random.default_rng(variant)
    shape = GPTConfig(tokenizer.vocab_size, 8, n_layer=1, n_head=2, n_embd=16, dropout=0.1)
    model = resume.model if resume else GPT(shape, rng)
    trainer = Trainer(model, tokenizer, ids[:1000], ids[1000:], config, folder, rng, resume)
    if slow:
        _slow_disk()
    save, step = trainer.save, trainer._step

    def told_save(name: str) -> None:
        _tell("save")
        save(name)
        _tell("saved")

    def told_step() -> float:
        loss = step()
        _tell(f"step {trainer.step}")
        return loss

    trainer.save, trainer._step = told_save, told_step  # type: ignore[method-assign]
    trainer.run(lambda line: None)


def _tell(line: str) -> None:
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def _slow_disk() -> None:
    """Files are written in eight pieces, with pauses, also before and after they get their name."""
    real_replace = os.replace

    class Slow:
        def __init__(self, path: Path, mode: str):
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self) -> "Slow":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, content: bytes) -> None:
            for i in range(8):
                self.file.write(content[i * len(content) // 8 : (i + 1) * len(content) // 8])
                self.file.flush()
                time.sleep(SAVE_SECONDS / 25)

    def replace(source: Path, target: Path) -> None:
        time.sleep(SAVE_SECONDS / 12)
        real_replace(source, target)
        time.sleep(SAVE_SECONDS / 12)

    checkpoint.open, os.replace = Slow, replace  # type: ignore[attr-defined, assignment]


# --- the parent ---


@dataclass
class Kill:
    """What became of one: ended (not killed after all), lost, or, at the end of its run, exact."""

    run: int
    step: int = 0  # the last step that the child told
    saved: int = -1  # the step in last.safetensors afterwards; -1: nothing yet
    inside: bool = False  # between the beginning and the end of a save
    outcome: str = ""


def child(folder: Path, variant: int, slow: bool = False) -> subprocess.Popen:
    """A process that trains."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kills", "--child", str(folder),
         "--variant", str(variant), *(["--slow"] if slow else [])],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def strike(folder: Path, variant: int, run: int, chance: random.Random) -> Kill:
    """Start a child, kill it at a random step or within a random save, and look at what is left."""
    aimed, kill = chance.random() < 0.5, Kill(run, saved=saved_step(folder))
    before, left = kill.saved, chance.randrange(1, 5 if aimed else 12)
    with child(folder, variant, slow=aimed) as process:
        assert process.stdout is not None
        for line in process.stdout:
            _note(kill, line)
            left -= line.startswith("save\n" if aimed else "step")
            if left == 0:
                time.sleep(chance.uniform(0, SAVE_SECONDS if aimed else 0.004))
                break
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:  # what it told before it died
            _note(kill, line)
    if process.returncode != -signal.SIGKILL:
        kill.outcome = "ended" if process.returncode == 0 else "failed"
        return kill
    kill.saved = saved_step(folder)
    kill.outcome = "lost" if kill.saved < before else ""
    return kill


def _note(kill: Kill, line: str) -> None:
    if line.startswith("step"):
        kill.step = int(line.split()[1])
    else:
        kill.inside = line == "save\n"


def saved_step(folder: Path) -> int:
    """Where the run stands; -1 if nothing is there, -2 if something is, and is broken."""
    try:
        if (folder / BEST).exists():
            load_checkpoint(folder / BEST)
        return load_checkpoint(folder / LAST).training["step"] if (folder / LAST).exists() else -1
    except CheckpointError:
        return -2


def traces(folder: Path) -> tuple[list, bytes, bytes]:
    """Everything of a run that must repeat: losses, rates, norms, and the weights of both files."""
    log = [
        [value for name, value in line.items() if name not in ("seconds", "tokens_per_second")]
        for line in read_log(folder)
    ]
    last, best = (load_checkpoint(folder / name) for name in (LAST, BEST))
    state = [*last.state.values(), *(p.data for p in last.model.parameters())]
    return (
        [log, last.training["rng"], last.training["plateau"], best.training["step"]],
        b"".join(array.tobytes() for array in state),
        b"".join(p.data.tobytes() for p in best.model.parameters()),
    )


def kills(folder: Path, n: int, seed: int) -> Iterator[Kill]:
    """n kills, each with its outcome."""
    chance, wanted = random.Random(seed), {}
    run = 0
    while n > 0:
        variant = run % len(SCHEDULES)
        if variant not in wanted:
            child(folder / f"whole-{variant}", variant).communicate()
            wanted[variant] = traces(folder / f"whole-{variant}")
        place, struck = folder / f"run-{run}", []
        while len(struck) < min(n, KILLS_A_RUN):
            struck.append(strike(place, variant, run, chance))
            if struck[-1].outcome in ("ended", "failed"):
                break
        finish = child(place, variant)
        finish.communicate()
        exact = finish.returncode == 0 and traces(place) == wanted[variant]
        exact = exact and not [*place.glob(".*")]  # no temporary file stays
        for kill in struck:
            if kill.outcome != "ended":
                kill.outcome = kill.outcome or ("exact" if exact else "differs")
                n -= 1
                yield kill
        run += 1


def main() -> int:
    """Returns 1 if any kill did harm."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="other moments (default: 0)")
    parser.add_argument("--out", type=Path, default=CSV, help="a table (default: %(default)s)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--variant", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--slow", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.child, args.variant, args.slow)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = [*kills(Path(folder), args.kills, args.seed)]
    with open(args.out, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(FIELDS)
        for i, kill in enumerate(found, 1):
            inside = "yes" if kill.inside else "no"
            table.writerow([i, kill.run, kill.step, kill.saved, inside, kill.outcome])
    print(summary(found))
    return any(kill.outcome != "exact" for kill in found)


def summary(found: list[Kill]) -> str:
    """One line."""
    count = Counter(kill.outcome for kill in found)
    inside = sum(kill.inside for kill in found)
    return (
        f"{len(found)} kills, {inside} of them inside a save: {count['lost']} lost checkpoints, "
        f"{count['failed']} failed, {count['differs']} with other bits, {count['exact']} exact"
    )


if __name__ == "__main__":
    sys.exit(main())
