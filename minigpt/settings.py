"""How a run is trained: every choice but the model's shape, and the learning rate they lead to."""

import math
from dataclasses import dataclass

from minigpt.model import option
from minigpt.schedules import warmup_constant, warmup_cosine, warmup_linear

SCHEDULES = ("cosine", "linear", "constant", "plateau")
PRECISIONS = ("float32", "float16")


@dataclass(frozen=True)
class TrainConfig:
    """Training. Raises ValueError for values that cannot work."""

    data: str = option(
        "facts", "a corpus that `minigpt data` lists, a text file or folder, or token files"
    )
    tokenizer: str = option("char", "char, bpe-1000 (or another size), gpt2, or a tokenizer file")
    steps: int = option(0, "optimizer steps (0: what --seconds allows, or else 2000)")
    seconds: float = option(0.0, "train for about this long, in seconds")
    batch_size: int = option(32, "sequences of a micro-batch: what is in memory at once")
    accumulate: int = option(1, "micro-batches a step, whose gradients are averaged")
    workers: int = option(0, "threads that share a micro-batch (0: by its size and processors)")
    precision: str = option(
        "float32", "float32; or float16 with a scaled loss, for a GPU: on a CPU it is slow"
    )
    recompute: bool = option(False, "compute blocks twice: far less memory, a third more time")
    schedule: str = option("cosine", f"after the warm-up: {', '.join(SCHEDULES)}")
    lr: float = option(8e-3, "highest learning rate, after the warm-up; less for wider models")
    final_lr: float = option(0.05, "last rate of cosine and linear, as a fraction of the highest")
    warmup: int = option(50, "steps of linear warm-up")
    weight_decay: float = option(0.1, "decoupled weight decay, per unit of learning rate")
    beta2: float = option(0.99, "Adam's memory of squared gradients")
    clip: float = option(1.0, "largest global norm of the gradient")
    eval_every: int = option(200, "steps between evaluations, each followed by a checkpoint")
    eval_tokens: int = option(10_000, "held-out tokens of an evaluation during training")
    save_every: int = option(0, "steps between further checkpoints (0: evaluations are enough)")
    patience: int = option(0, "stop after so many evaluations without a new best (0: never)")
    sample_tokens: int = option(0, "tokens of a sample shown at each evaluation (0: no sample)")
    seed: int = option(0, "seed of weights, batches and dropout")

    def __post_init__(self):
        for name in ("batch_size", "accumulate", "lr", "eval_every", "eval_tokens", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("workers", "steps", "seconds", "lr", "warmup", "weight_decay", "final_lr",
                     "save_every", "patience", "sample_tokens", "seed"):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, and finite, got {getattr(self, name)}")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2 must be in 0 <= beta2 < 1, got {self.beta2}")
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule must be one of {', '.join(SCHEDULES)}; got {self.schedule!r}"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}"
            )
        if self.precision == "float16" and self.workers > 1:
            raise ValueError(f"precision float16 runs on one worker, got workers {self.workers}")
        if self.steps and self.seconds:
            raise ValueError("give steps or seconds, not both")

    @property
    def sequences(self) -> int:
        """Sequences that a step learns from."""
        return self.batch_size * self.accumulate

    def learning_rate(self, step: int, planned: int | None, scale: float = 1.0) -> float:
        """The rate of a step, counted from 0.

        planned: the steps of the run, or None while that is not known, which is during the warm-up.
        scale: of a plateau, see schedules.Plateau; it multiplies the constant rate.
        """
        if self.schedule in ("constant", "plateau"):
            return scale * warmup_constant(step, lr=self.lr, warmup=self.warmup)
        falling = warmup_cosine if self.schedule == "cosine" else warmup_linear
        return falling(
            step, lr=self.lr, warmup=self.warmup, steps=planned or self.warmup, final=self.final_lr
        )
