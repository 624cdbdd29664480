"""The training loop: batches, schedule, evaluation, log, checkpoints, and a clean stop.

What is promised: with the same options, number of steps, machine, library versions and BLAS
threads, two runs give the same losses and weights bit for bit. All randomness comes from one
generator, kept in the checkpoint. What is not: the same bits on another machine, BLAS, thread
count or backend; there the sums are taken in another order. With `seconds` the clock decides how
many steps are planned; the run says how many, and `steps` repeats it exactly.
"""

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from minigpt import functional as F
from minigpt.backend import xp
from minigpt.checkpoint import Checkpoint, CheckpointError, save_checkpoint, write_whole
from minigpt.evaluate import nats_per_token
from minigpt.model import GPT, option
from minigpt.optim import AdamW, clip_grad_norm
from minigpt.schedules import warmup_cosine
from minigpt.tokenizer import CharTokenizer

_COUNTERS = ("step", "planned", "elapsed", "best", "losses", "log")  # kept in a checkpoint


class TrainingError(ValueError):
    """Training cannot go on; the message says at which step, and what was kept."""


@dataclass(frozen=True)
class TrainConfig:
    """Training. Raises ValueError for values that cannot work."""

    data: str = option("facts", "corpus: facts, pydoc, or the path of a text file or folder")
    steps: int = option(0, "optimizer steps (0: what --seconds allows, or else 2000)")
    seconds: float = option(0.0, "train for about this long, in seconds")
    batch_size: int = option(32, "sequences a step")
    lr: float = option(8e-3, "highest learning rate, after the warm-up; less for wider models")
    final_lr: float = option(0.05, "last learning rate, as a fraction of the highest")
    warmup: int = option(50, "steps of linear warm-up")
    weight_decay: float = option(0.1, "decoupled weight decay, per unit of learning rate")
    beta2: float = option(0.99, "Adam's memory of squared gradients")
    clip: float = option(1.0, "largest global norm of the gradient")
    eval_every: int = option(200, "steps between evaluations")
    eval_tokens: int = option(10_000, "held-out tokens of an evaluation during training")
    seed: int = option(0, "seed of weights, batches and dropout")

    def __post_init__(self):
        for name in ("batch_size", "lr", "eval_every", "eval_tokens", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("steps", "seconds", "lr", "warmup", "weight_decay", "final_lr", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, and finite, got {getattr(self, name)}")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2 must be in 0 <= beta2 < 1, got {self.beta2}")
        if self.steps and self.seconds:
            raise ValueError("give steps or seconds, not both")


class Trainer:
    """One training run in a folder: log.jsonl, last.safetensors, best.safetensors.

    train, val: token ids (N,) int. rng: for batches and dropout.
    resume: a checkpoint of this run to go on from.
    Raises: ValueError if a part is shorter than a block of the model and one token more.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: CharTokenizer,
        train: np.ndarray,
        val: np.ndarray,
        config: TrainConfig,
        folder: Path,
        rng: np.random.Generator,
        resume: Checkpoint | None = None,
    ):
        T = model.config.block_size
        for name, ids in (("training", train), ("validation", val)):
            if len(ids) <= T:
                raise ValueError(
                    f"the {name} text has {len(ids)} tokens: block_size {T} needs {T + 1} or more"
                )
        self.model, self.tokenizer, self.config, self.folder = model, tokenizer, config, folder
        self.train_ids, self.val_ids = train, val[: config.eval_tokens + 1]
        self.optimizer = AdamW(
            model.parameters(), config.lr, betas=(0.9, config.beta2),
            weight_decay=config.weight_decay, decay=model.decayed_parameters(),
        )  # fmt: skip
        self.rng = rng
        self.step, self.saved, self.elapsed = 0, -1, 0.0  # saved: the step in last.safetensors
        self.planned = config.steps or (None if config.seconds else 2000)  # None: not known yet
        self.best = math.inf
        self.log: list[dict[str, Any]] = []
        self.step_seconds: list[float] = []
        self.eval_seconds = 0.0
        self.losses: list[float] = []  # since the last evaluation
        self.corpus = fingerprint(train, val)
        if resume is not None:
            self._restore(resume)

    # --- the loop ---

    def run(self, report: Callable[[str], None] = tqdm.write) -> None:
        """Train to the last planned step, or until Ctrl-C; then everything is on the disk.

        Raises: TrainingError if the loss is no longer a number, CheckpointError if saving fails.
        """
        self.started = time.perf_counter() - self.elapsed
        if self.step == self.planned:
            report(f"this run is complete: step {self.step} of {self.planned}")
        with np.errstate(all="ignore"), _interruptible() as interrupted, tqdm(
            total=self.planned, initial=self.step, unit="step", disable=None
        ) as bar:  # fmt: skip
            if not self.log:
                self._evaluate(report)
            while self.planned is None or self.step < self.planned:
                loss = self._step()
                bar.update()
                bar.set_postfix_str(f"loss {loss:.3f}, {self.tokens_per_second():,.0f} tokens/s")
                if self.planned is None and self._can_plan():
                    bar.total = self.planned = self._plan()
                    report(f"plan: {self.planned} steps; train --steps {self.planned} repeats this")
                if self.step % self.config.eval_every == 0 or self.step == self.planned:
                    self._evaluate(report)
                if interrupted() and self.step != self.planned:
                    self.save("last")
                    report(f"stopped at step {self.step}; to go on: "
                           f"python -m minigpt train --resume {self.folder}")  # fmt: skip
                    return

    def _step(self) -> float:
        """One optimizer step. Returns the loss in nats per token."""
        started = time.perf_counter()
        idx, targets = self._batch()
        loss = F.cross_entropy(self.model(idx, self.rng), targets)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {self.step}: {self._kept()}")
        self.optimizer.zero_grad()
        loss.backward()
        norm = float(clip_grad_norm(self.optimizer.params, self.config.clip))
        if not math.isfinite(norm):
            raise TrainingError(f"the gradient is {norm} at step {self.step}: {self._kept()}")
        self.optimizer.lr = self.learning_rate()
        self.optimizer.step()
        self.step += 1
        self.losses.append(value)
        self.step_seconds.append(time.perf_counter() - started)
        return value

    def _batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Random windows: idx (B, T), and targets (B, T), the tokens one place on."""
        B, T = self.config.batch_size, self.model.config.block_size
        starts = self.rng.integers(0, len(self.train_ids) - T, B)
        window = self.train_ids[starts[:, None] + np.arange(T + 1)]  # (B, T + 1)
        return window[:, :-1], window[:, 1:]

    def learning_rate(self) -> float:
        """The schedule's value at this step; before a plan exists, it is still the warm-up."""
        c = self.config
        return warmup_cosine(
            self.step, lr=c.lr, warmup=c.warmup, steps=self.planned or c.warmup, final=c.final_lr
        )

    def _can_plan(self) -> bool:
        """At the end of the warm-up, whose rates need no plan; on a slow machine even earlier."""
        late = time.perf_counter() - self.started > 0.1 * self.config.seconds
        return self.step >= min(self.config.warmup, 50) or (late and self.step >= 5)

    def _plan(self) -> int:
        """How many steps fit into the time, from the steps and the evaluation done so far."""
        now = time.perf_counter() - self.started
        a_step = median(self.step_seconds[-30:]) + self.eval_seconds / self.config.eval_every
        return max(self.step + 1, self.step + int((self.config.seconds - now) / a_step))

    def tokens_per_second(self) -> float:
        """Training speed, from the median of the last steps."""
        tokens = self.config.batch_size * self.model.config.block_size
        return tokens / median(self.step_seconds[-50:]) if self.step_seconds else 0.0

    # --- evaluation, log, checkpoints ---

    def _evaluate(self, report: Callable[[str], None]) -> None:
        started = time.perf_counter()
        val = nats_per_token(self.model, self.val_ids)
        self.eval_seconds = time.perf_counter() - started
        if not math.isfinite(val):
            raise TrainingError(f"the held-out loss is {val} at step {self.step}: {self._kept()}")
        self.elapsed = time.perf_counter() - self.started
        line = {
            "step": self.step,
            "train_loss": float(np.mean(self.losses)) if self.losses else None,
            "val_loss": val,
            "lr": self.optimizer.lr if self.step else 0.0,
            "tokens_per_second": round(self.tokens_per_second()),
            "seconds": round(self.elapsed, 2),
        }
        self.log.append(line)
        self.losses = []
        if self.step:
            report(f"step {self.step:5d}: train {line['train_loss']:.4f}, held out {val:.4f} nats"
                   f" per token, {line['tokens_per_second']:,} tokens/s")  # fmt: skip
        if val < self.best:
            self.best = val
            self.save("best")
        self.save("last")

    def save(self, name: str) -> None:
        """Write the log, then the checkpoint that goes with it."""
        lines = "".join(json.dumps(line) + "\n" for line in self.log)
        write_whole(self.folder / "log.jsonl", lines.encode())
        self.elapsed = time.perf_counter() - self.started
        training = {
            "config": asdict(self.config),
            "corpus": self.corpus,
            "rng": self.rng.bit_generator.state,
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        state = self.optimizer.buffers() if name == "last" else {}
        checkpoint = Checkpoint(self.model, self.tokenizer, training, state)
        save_checkpoint(self.folder / f"{name}.safetensors", checkpoint)
        self.saved = self.step if name == "last" else self.saved

    def _restore(self, checkpoint: Checkpoint) -> None:
        saved: dict[str, Any] = checkpoint.training
        if saved.get("corpus") != self.corpus:
            raise CheckpointError(f"{self.config.data} is not the text that this run began with")
        try:
            for name, buffer in self.optimizer.buffers().items():
                buffer[...] = xp.asarray(checkpoint.state[name])
            for name in _COUNTERS:
                setattr(self, name, saved[name])
            self.optimizer.steps = self.saved = self.step
            self.rng.bit_generator.state = saved["rng"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"this checkpoint cannot be resumed: {error!r}") from error

    def _kept(self) -> str:
        last = self.folder / "last.safetensors"
        return f"{last} keeps step {self.saved}" if self.saved >= 0 else "nothing was saved yet"


def saved_config(checkpoint: Checkpoint) -> TrainConfig:
    """How a checkpoint's run was trained. Raises CheckpointError if it does not say."""
    try:
        return TrainConfig(**checkpoint.training["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"this checkpoint cannot be resumed: {error!r}") from error


def fingerprint(train: np.ndarray, val: np.ndarray) -> str:
    """SHA-256 of the token ids: whether a corpus is still the one that a run was trained on."""
    return hashlib.sha256(b"|".join((train.tobytes(), val.tobytes()))).hexdigest()


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C only raises a flag, so a step is never cut in half. A second one stops at once."""
    hit: list[int] = []

    def note(number, frame):
        if hit:
            raise KeyboardInterrupt
        hit.append(number)

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(hit)
    finally:
        signal.signal(signal.SIGINT, before)
