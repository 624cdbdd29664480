"""The command line: one subcommand a function. Its options are the fields of dataclasses."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from inspect import getdoc
from itertools import count
from pathlib import Path
from typing import NoReturn

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from minigpt import data
from minigpt.backend import xp
from minigpt.checkpoint import Checkpoint, load_checkpoint
from minigpt.evaluate import Score, nats_per_token, score_baselines
from minigpt.generate import generate
from minigpt.model import GPT, GPTConfig
from minigpt.tokenizer import CharTokenizer
from minigpt.train import TrainConfig, Trainer

RUNS = Path("runs")


class Parser(argparse.ArgumentParser):
    """argparse, with an error on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def run(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and run the command that they name. Raises ValueError on bad input."""
    args = _parser().parse_args(argv)
    args.command(args)
    return 0


# --- commands ---


def demo(args: argparse.Namespace) -> None:
    """Train the default GPT for a short time, compare it with n-grams, and let it speak."""
    trainer, ids = _train(args, _free_folder("demo"))
    test = ids["test"]
    print(f"\nOn {len(test) - 1:,} characters that no model was trained on or chosen by:\n")
    _print_table(trainer.model, ids)
    print("\nThree samples at temperature 0.8:\n")
    started = time.perf_counter()
    for seed in range(3):
        print(
            f"{seed + 1}. " + "".join(_sample(trainer, "\n", 150, 0.8, seed)).replace("\n", "\n   ")
        )
    speed = 3 * 150 / (time.perf_counter() - started)
    print(f"\ntraining    {trainer.tokens_per_second():,.0f} tokens/s, {trainer.step} steps")
    print(f"sampling    {speed:,.0f} tokens/s")
    _print_written(trainer.folder)


def train(args: argparse.Namespace) -> None:
    """Train a GPT on a corpus, or go on with a stopped run.

    The same options, steps, machine, library versions and BLAS threads give the same losses and
    weights to the last bit, also for a run that was stopped and resumed. Not promised: the same
    bits on another machine, thread count or backend. With --seconds the clock plans the number of
    steps; the run says how many, and --steps repeats it.
    """
    trainer, _ = _train(args, args.resume or args.out or _free_folder(Path(args.data).stem))
    _print_written(trainer.folder)


def sample(args: argparse.Namespace) -> None:
    """Continue a prompt with a trained model."""
    checkpoint, started = load_checkpoint(args.checkpoint or _newest()), time.perf_counter()
    sys.stdout.write(args.prompt)
    for piece in _sample(checkpoint, args.prompt, args.n, args.temperature, args.seed):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print(f"\n\n{args.n} tokens, {args.n / (time.perf_counter() - started):,.0f} tokens/s")


def evaluate(args: argparse.Namespace) -> None:
    """Score a trained model on held-out text, beside uniform guessing and n-grams."""
    path = args.checkpoint or _newest()
    checkpoint = load_checkpoint(path)
    name = args.data or checkpoint.training.get("config", {}).get("data", TrainConfig.data)
    ids = _encode(checkpoint.tokenizer, data.load(name))
    print(f"{path} on {len(ids['test']) - 1:,} held-out characters of {name}:\n")
    _print_table(checkpoint.model, ids)


def info(args: argparse.Namespace) -> None:
    """Print a model's parameters and cost, and what this machine computes with."""
    if args.checkpoint:
        model = load_checkpoint(args.checkpoint).model
    else:
        model = GPT(_config(GPTConfig, args, vocab_size=94), np.random.default_rng(0))
    for name, p in model.named_parameters():
        print(f"{name:26s}{str(p.shape):>14s}{p.size:14,d}")
    print(f"{'parameters':40s}{model.num_parameters():14,d}")
    print(f"{'FLOPs per training token':40s}{model.flops_per_token():14,d}\n")
    print(f"backend   {xp.__name__} {xp.__version__}")
    for library in threadpool_info():
        print(f"threads   {library['num_threads']} in {library['user_api']}: "
              f"{library['internal_api']} {library['version']}")  # fmt: skip


# --- what the commands share ---


def _train(args: argparse.Namespace, folder: str | Path) -> tuple[Trainer, dict[str, np.ndarray]]:
    """Set a run up from the options or from its checkpoint, train, and draw the loss figure."""
    from minigpt.plot import loss_figure  # Matplotlib loads slower than all the rest together

    folder = Path(folder)
    resume = load_checkpoint(folder / "last.safetensors") if getattr(args, "resume", 0) else None
    if resume is None and (folder / "last.safetensors").exists():
        raise ValueError(f"{folder} holds a run: --resume {folder} goes on with it")
    config = TrainConfig(**resume.training["config"]) if resume else _config(TrainConfig, args)
    corpus = data.load(config.data)
    tokenizer = resume.tokenizer if resume else CharTokenizer.from_text(corpus.text)
    ids = _encode(tokenizer, corpus)
    rng = np.random.default_rng(config.seed)
    shape = _config(GPTConfig, args, vocab_size=tokenizer.vocab_size)
    model = resume.model if resume else GPT(shape, rng)
    print(corpus.card())
    print(f"model       {model.num_parameters():,} parameters, "
          f"{model.flops_per_token() / 1e6:.1f} MFLOP a token")  # fmt: skip
    print(f"threads     {'1: a narrow model gains nothing from more' if _narrow(model) else 'all'}")
    print(f"run         {folder}\n")
    trainer = Trainer(model, tokenizer, ids["train"], ids["val"], config, folder, rng, resume)
    with _threads(model):
        trainer.run()
    grams = score_baselines(tokenizer.vocab_size, ids["train"], trainer.val_ids)[1:]
    loss_figure(folder / "loss.png", trainer.log, grams)
    return trainer, ids


def _narrow(model: GPT) -> bool:
    """Whether the matrix products are too small to be worth sharing among cores."""
    return model.config.n_embd < 128


def _threads(model: GPT) -> threadpool_limits:
    """BLAS threads by a rule, not by measuring, so that a run can be repeated to the last bit.

    A second thread saves a narrow model a few per cent on an idle machine. On a busy one each
    product waits for a core that it does not get, and a step takes many times as long.
    """
    return threadpool_limits(1 if _narrow(model) else None, user_api="blas")


def _encode(tokenizer: CharTokenizer, corpus: data.Corpus) -> dict[str, np.ndarray]:
    """The three parts as ids (N,)."""
    parts = data.split(corpus)
    return {name: tokenizer.encode(getattr(parts, name)) for name in ("train", "val", "test")}


def _sample(trained: Trainer | Checkpoint, prompt: str, n: int, temperature: float, seed: int):
    """Yield n characters that continue the prompt."""
    if not prompt:
        raise ValueError("--prompt must have at least one character")
    idx, rng = trained.tokenizer.encode(prompt)[None], np.random.default_rng(seed)  # (1, T)
    with _threads(trained.model):
        for token in generate(trained.model, idx, n, rng=rng, temperature=temperature):
            yield trained.tokenizer.decode(token)


def _print_table(model: GPT, ids: dict[str, np.ndarray]) -> None:
    """The baselines and the model on the test part."""
    with _threads(model):
        gpt = Score("GPT", nats_per_token(model, ids["test"]))
    print(f"  {'model':10s}{'nats/char':>12s}{'bits/char':>12s}")
    for score in [*score_baselines(model.config.vocab_size, ids["train"], ids["test"]), gpt]:
        print(f"  {score.name:10s}{score.nats:12.3f}{score.bits:12.3f}")


def _print_written(folder: Path) -> None:
    print(f"checkpoints {folder / 'best.safetensors'} and {folder / 'last.safetensors'}")
    print(f"figure      {folder / 'loss.png'}\nlog         {folder / 'log.jsonl'}")


def _free_folder(name: str) -> Path:
    """runs/name-1, or with the next number that is not taken."""
    return next(f for i in count(1) if not (f := RUNS / f"{name}-{i}").exists())


def _newest() -> Path:
    """The best checkpoint of the latest run."""
    found = sorted(RUNS.glob("*/best.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ValueError(f"no trained model in {RUNS}/: run `python -m minigpt demo`, or name one")
    return found[-1]


# --- options ---


def _config(cls, args: argparse.Namespace, **values):
    """A config dataclass from the options of its names, or the values given here."""
    return cls(**{f.name: getattr(args, f.name, f.default) for f in fields(cls)} | values)


def _add_options(parser: Parser, cls, *leave_out: str) -> None:
    """An option for each field of a config dataclass, with the field's help and default."""
    group = parser.add_argument_group(cls.__doc__.split(".")[0].lower())
    for f in fields(cls):
        if f.name not in leave_out:
            flag = "--" + f.name.replace("_", "-")
            text = f.metadata["help"] + " (default: %(default)s)"
            if isinstance(f.default, bool):
                group.add_argument(
                    flag, default=f.default, help=text, action=argparse.BooleanOptionalAction
                )
            else:
                group.add_argument(
                    flag, default=f.default, help=text, type=type(f.default), metavar="X"
                )


def _parser() -> Parser:
    parser = Parser(prog="minigpt", description="GPT from first principles in NumPy.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(function: Callable, name: str, *examples: str) -> Parser:
        summary = str(function.__doc__).split("\n")[0]
        lines = ["examples:", *(f"  python -m minigpt {name}{example}" for example in examples)]
        sub = commands.add_parser(
            name, help=summary, description=getdoc(function), epilog="\n".join(lines),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(command=function)
        return sub

    sub = command(demo, "demo", "", " --seconds 20")
    sub.add_argument("--seconds", type=float, default=90.0, help="training time (default: 90)")
    sub = command(
        train,
        "train",
        " --data facts --seconds 20 --seed 1",
        " --data my_text.txt --steps 500 --out runs/mine",
        " --resume runs/mine",
    )
    sub.add_argument("--out", help="folder of the run (default: runs/DATA-N)")
    sub.add_argument("--resume", metavar="RUN", help="folder of a stopped run to go on with")
    _add_options(sub, TrainConfig)
    _add_options(sub, GPTConfig, "vocab_size")
    sub = command(sample, "sample", "", ' --prompt "The average" -n 200 --temperature 0.5')
    sub.add_argument("checkpoint", nargs="?", help="a checkpoint (default: the latest run's best)")
    sub.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    sub.add_argument("-n", type=int, default=300, help="tokens to draw (default: 300)")
    sub.add_argument("--temperature", type=float, default=0.8,
                     help="below 1: safer, above: wilder, 0: likeliest (default: 0.8)")  # fmt: skip
    sub.add_argument("--seed", type=int, default=0, help="another seed, another text (default: 0)")
    sub = command(evaluate, "eval", "", " runs/demo-1/best.safetensors --data pydoc")
    sub.add_argument("checkpoint", nargs="?", help="a checkpoint (default: the latest run's best)")
    sub.add_argument("--data", help="a corpus (default: the one it was trained on)")
    sub = command(info, "info", "", " --n-layer 12 --n-head 12 --n-embd 768")
    sub.add_argument("checkpoint", nargs="?", help="a checkpoint (default: a new model)")
    _add_options(sub, GPTConfig, "vocab_size")
    return parser
