"""The training loop: batches, steps, evaluations, and a clean stop.

What is promised: with the same options, number of steps, machine, library versions and BLAS
threads, two runs give the same losses and weights bit for bit, and so does a run that was stopped,
or killed at any moment, and resumed. All randomness comes from one generator, kept in the
checkpoint with the optimizer, the schedule and the counters; how often checkpoints are written, or
samples shown, changes nothing.

What is not: the same bits on another machine, BLAS, thread count or backend; there the sums are
taken in another order, and rounding errors grow with the steps. Over the first 20 steps the losses
stay within 1e-5 of each other, relatively; with dropout they do not, since other numbers of workers
draw other masks. With `seconds` the clock decides how many steps are planned; the run says how
many, and `steps` repeats it exactly.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from minigpt.backend import xp
from minigpt.checkpoint import Checkpoint, CheckpointError
from minigpt.evaluate import nats_per_token, scored_characters
from minigpt.generate import generate
from minigpt.half import LossScale, workers_of
from minigpt.interrupt import interruptible
from minigpt.model import GPT
from minigpt.optim import AdamW, clip_grad_norm
from minigpt.readings import Readings
from minigpt.recompute import recompute_blocks
from minigpt.record import BEST, LAST, Record, fingerprint
from minigpt.schedules import Plateau
from minigpt.settings import TrainConfig

__all__ = ["TrainConfig", "Trainer", "TrainingError"]
# Kept in a checkpoint, beside the plateau's and the generator's state.
_COUNTERS = ("step", "planned", "elapsed", "best", "waited", "losses", "norms", "log")
_LATER = {"waited": 0, "norms": [], "plateau": {}, "scale": {}}  # what older checkpoints lack


class TrainingError(ValueError):
    """Training cannot go on; the message says at which step, and what was kept."""


class Trainer:
    """One training run, recorded in a folder.

    train, val: token ids (N,) int, which may be files mapped into memory. rng: for batches and
    dropout. resume: a checkpoint of this run to go on from.
    Raises: ValueError if a part is shorter than a block of the model and one token more.
    """

    def __init__(
        self, model: GPT, tokenizer: Any, train: np.ndarray, val: np.ndarray, config: TrainConfig,
        folder: Path, rng: np.random.Generator, resume: Checkpoint | None = None,
    ):  # fmt: skip
        T = model.config.block_size
        for name, ids in (("training", train), ("validation", val)):
            if len(ids) <= T:
                raise ValueError(f"the {name} text has {len(ids)} tokens: "
                                 f"block_size {T} needs {T + 1} or more")  # fmt: skip
        if config.recompute:
            recompute_blocks(model)
        self.model, self.tokenizer, self.config, self.folder = model, tokenizer, config, folder
        self.train_ids, self.val_ids = train, val[: config.eval_tokens + 1]
        self.characters = scored_characters(tokenizer, self.val_ids)
        self.optimizer = AdamW(
            model.parameters(), config.lr, betas=(0.9, config.beta2),
            weight_decay=config.weight_decay, decay=model.decayed_parameters(),
        )  # fmt: skip
        self.scale = LossScale()
        self.workers = workers_of(model, self.optimizer, config, self.scale)
        self.rng, self.plateau, self.record = rng, Plateau(), Record(folder)
        self.step, self.elapsed, self.eval_seconds = 0, 0.0, 0.0
        self.planned = config.steps or (None if config.seconds else 2000)  # None: not known yet
        self.best, self.waited = math.inf, 0  # waited: evaluations since the best one
        self.log: list[dict[str, Any]] = []
        self.step_seconds: list[float] = []
        self.readings, self.loss = Readings(), math.nan  # loss: the last that was read
        self.losses: list[float] = []  # since the last evaluation, as are the gradient's norms
        self.norms: list[float] = []
        self.corpus = fingerprint(train, val)
        self.record.clean()
        if resume is not None:
            self._restore(resume)

    def run(self, report: Callable[[str], None] = tqdm.write) -> None:
        """Train to the last planned step, or until Ctrl-C; then everything is on the disk.

        Raises: TrainingError if the loss is no longer a number, CheckpointError if saving fails.
        """
        self.started = time.perf_counter() - self.elapsed
        if end := self.ended():
            report(f"this run is complete: {end}")
        with np.errstate(all="ignore"), interruptible() as interrupted, tqdm(
            total=self.planned, initial=self.step, unit="step", disable=None
        ) as bar:  # fmt: skip
            if not self.log:
                self._evaluate(report)
            while not self.ended():
                self._step()
                bar.update()
                speed = f"{self.tokens_per_second():,.0f} tokens/s"
                bar.set_postfix_str(f"loss {self.loss:.3f}, {speed}")
                self._after_step(report)
                bar.total = self.planned
                if interrupted() and not self.ended():
                    self.save(LAST)
                    report(f"stopped at step {self.step}; to go on: "
                           f"python -m minigpt train --resume {self.folder}")  # fmt: skip
                    return
        if not end and self.step != self.planned:
            report(f"stopped early: {self.ended()}")

    def ended(self) -> str:
        """Why there is nothing more to do; empty if there is."""
        if self.step == self.planned:
            return f"step {self.step} of {self.planned}"
        if self.config.patience and self.waited >= self.config.patience:
            return (f"step {self.step}, {self.waited} evaluations without a new best; "
                    f"{self.folder / BEST} keeps {self.best:.4f} nats per token")  # fmt: skip
        return ""

    def _after_step(self, report: Callable[[str], None]) -> None:
        """Plan, evaluate, save: whatever is due. Each evaluation is saved with its step."""
        due = self.config.save_every and self.step % self.config.save_every == 0
        if self.planned is None and self._can_plan():
            self.planned = self._plan()
            report(f"plan: {self.planned} steps; train --steps {self.planned} repeats this")
            due = True  # or a run that is killed would make another plan
        if self.step % self.config.eval_every == 0 or self.step == self.planned:
            self._evaluate(report)
        elif due:
            self.save(LAST)

    def _step(self) -> None:
        """One optimizer step. Its loss, and its gradient's norm, wait for `_look`.

        The mean over equal micro-batches of their mean losses is the mean over all sequences, and
        so are the gradients. They are clipped once, when all are there.
        """
        self.readings.begin_step()
        parts, loss = self.config.accumulate, 0.0
        self.optimizer.zero_grad()
        for idx, targets in self._batches():
            loss = loss + self.workers.backward(idx, targets, self.rng, 1 / parts) / parts
        norm = clip_grad_norm(self.optimizer.params, self.config.clip)
        self.optimizer.lr = self.learning_rate()
        if self.config.precision == "float32" or self.scale.accepts(norm):
            self.optimizer.step()
        self.step += 1
        if self.readings.add(loss, norm):
            self._look()

    def _look(self) -> None:
        """Read the last steps' losses and norms, and see that they are numbers.

        Nothing is written before this, so no checkpoint holds what follows from one that is not.
        """
        pairs, seconds = self.readings.read()
        if self.scale.value < 1:
            raise TrainingError(f"the gradient overflows float16 at a loss scale of 1, by step "
                                f"{self.step}: {self.record.kept()}")  # fmt: skip
        for step, pair in enumerate(pairs, self.step - len(pairs)):
            if self.config.precision == "float16" and not math.isfinite(pair[1]):
                continue  # a step that was skipped
            for name, value in zip(("loss", "gradient"), pair, strict=True):
                self._require_finite(name, value, step)
            self.loss, norm = pair
            self.losses.append(self.loss)
            self.norms.append(norm)
            self.step_seconds.append(seconds)

    def _require_finite(self, name: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(f"the {name} is {value} at step {step}: {self.record.kept()}")

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A step's random windows, in micro-batches: idx (B, T), and targets (B, T), one place on.

        All starts are drawn at once, so that they do not depend on how a step is cut.
        """
        T = self.model.config.block_size
        starts = self.rng.integers(0, len(self.train_ids) - T, self.config.sequences)
        for part in starts.reshape(self.config.accumulate, -1, 1):  # (B, 1)
            window = self.train_ids[part + np.arange(T + 1)].astype(np.int64)  # (B, T + 1)
            yield window[:, :-1], window[:, 1:]

    def learning_rate(self) -> float:
        """Of this step; before a plan exists, it is still the warm-up's."""
        return self.config.learning_rate(self.step, self.planned, self.plateau.scale)

    def _can_plan(self) -> bool:
        """At the end of the warm-up, whose rates need no plan; on a slow machine even earlier."""
        late = time.perf_counter() - self.started > 0.1 * self.config.seconds
        return self.step >= min(self.config.warmup, 50) or (late and self.step >= 5)

    def _plan(self) -> int:
        """How many steps fit into the time, from the steps and the evaluation done so far."""
        self._look()
        now = time.perf_counter() - self.started
        a_step = median(self.step_seconds[-30:]) + self.eval_seconds / self.config.eval_every
        return max(self.step + 1, self.step + int((self.config.seconds - now) / a_step))

    def tokens_per_second(self) -> float:
        """Training speed, from the median of the last steps."""
        tokens = self.config.sequences * self.model.config.block_size
        return tokens / median(self.step_seconds[-50:]) if self.step_seconds else 0.0

    def _evaluate(self, report: Callable[[str], None]) -> None:
        self._look()
        started = time.perf_counter()
        val = nats_per_token(self.model, self.val_ids)
        self._require_finite("held-out loss", val, self.step)
        sample = self._sample()
        self.eval_seconds = time.perf_counter() - started
        self._note(val, report)
        if sample:
            report(f"            {sample}")
        if self.config.schedule == "plateau":
            self.plateau.update(val)
        self.waited = 0 if val < self.best else self.waited + 1
        if val < self.best:
            self.best = val
            self.save(BEST)
        self.save(LAST)

    def _note(self, val: float, report: Callable[[str], None]) -> None:
        """Add a line to the log, and report it."""
        self.elapsed = time.perf_counter() - self.started
        line = {
            "step": self.step,
            "train_loss": float(np.mean(self.losses)) if self.losses else None,
            "val_loss": val,
            "lr": self.optimizer.lr if self.step else 0.0,
            "grad_norm": float(np.mean(self.norms)) if self.norms else None,
            "tokens_per_second": round(self.tokens_per_second()),
            "seconds": round(self.elapsed, 2),
        }
        self.log.append(line)
        self.losses, self.norms = [], []
        tokens = len(self.val_ids) - 1
        each = val * tokens / self.characters
        letters = "" if tokens == self.characters else f" ({each:.4f} per character)"
        train = math.nan if line["train_loss"] is None else line["train_loss"]  # all skipped
        scale = f", {self.scale}" if self.config.precision == "float16" else ""
        if self.step:
            report(f"step {self.step:5d}: train {train:.4f}, held out {val:.4f} nats per token"
                   f"{letters}, {line['tokens_per_second']:,} tokens/s{scale}")  # fmt: skip

    def _sample(self) -> str:
        """What the model says after the first held-out token, on one line.

        The generator is its own, so that looking at a run does not change it.
        """
        if not self.config.sample_tokens:
            return ""
        rng = np.random.default_rng(self.config.seed)
        start = self.val_ids[None, :1].astype(np.int64)  # (1, 1)
        drawn = generate(self.model, start, self.config.sample_tokens, rng=rng, temperature=0.8)
        ids = np.concatenate([start[0], *drawn])  # (1 + n,)
        return " ".join(self.tokenizer.decode(ids).split())

    def save(self, name: str) -> None:
        """Write the log, then the checkpoint that goes with it: LAST, or BEST, the model alone."""
        self._look()
        self.elapsed = time.perf_counter() - self.started
        training = {
            "config": asdict(self.config),
            "corpus": self.corpus,
            "rng": self.rng.bit_generator.state,
            "plateau": vars(self.plateau),
            "scale": vars(self.scale),
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        state = self.optimizer.buffers() if name == LAST else {}
        self.record.save(name, Checkpoint(self.model, self.tokenizer, training, state))

    def _restore(self, checkpoint: Checkpoint) -> None:
        saved: dict[str, Any] = _LATER | checkpoint.training
        if saved.get("corpus") != self.corpus:
            raise CheckpointError(f"{self.config.data} is not the text that this run began with")
        try:
            for name, buffer in self.optimizer.buffers().items():
                buffer[...] = xp.asarray(checkpoint.state[name])
            for name in _COUNTERS:
                setattr(self, name, saved[name])
            self.rng.bit_generator.state = saved["rng"]
            vars(self.plateau).update(saved["plateau"])
            vars(self.scale).update(saved["scale"])
            self.record.saved, self.optimizer.steps = self.step, self.step - self.scale.skipped
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"this checkpoint cannot be resumed: {error!r}") from error
        self.record.write_log(self.log)
