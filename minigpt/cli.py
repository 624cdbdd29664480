"""The command line: one subcommand a function. Its options are the fields of dataclasses."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from inspect import getdoc
from itertools import count
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from minigpt import __version__, data
from minigpt.audit import EXAMPLE, gradcheck
from minigpt.backend import xp
from minigpt.checkpoint import Checkpoint, load_checkpoint
from minigpt.coverage import CHAPTERS, coverage_table, find_chapters, problems, read_chapter
from minigpt.evaluate import Score, nats_per_token, score_baselines
from minigpt.generate import generate
from minigpt.model import GPT, GPTConfig
from minigpt.options import Parser, add_options, config_of, positive
from minigpt.tokenizer import CharTokenizer
from minigpt.train import TrainConfig, Trainer, fingerprint, saved_config
from minigpt.verify.derivations import verify

RUNS = Path("runs")
CHECKPOINT_HELP = "a checkpoint, or the folder of a run (default: the latest run)"


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; its exit code. Raises ValueError on bad input."""
    args = _parser().parse_args(argv)
    return args.command(args) or 0


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
    given = sorted(set(vars(args)) - {"command", "out", "resume"})
    if args.resume and (given or args.out):
        given = ["--" + name.replace("_", "-") for name in given] + ["--out"] * bool(args.out)
        raise ValueError(f"--resume keeps the run's own options: leave out {', '.join(given)}")
    name = Path(getattr(args, "data", TrainConfig.data)).resolve().stem
    trainer, _ = _train(args, args.resume or args.out or _free_folder(name))
    _print_written(trainer.folder)


def sample(args: argparse.Namespace) -> None:
    """Continue a prompt with a trained model."""
    checkpoint = load_checkpoint(_checkpoint_path(args.checkpoint))
    pieces = _sample(checkpoint, args.prompt, args.n, args.temperature, args.seed)
    started = time.perf_counter()
    sys.stdout.write(args.prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    print(f"\n\n{args.n} tokens, {args.n / (time.perf_counter() - started):,.0f} tokens/s")


def evaluate(args: argparse.Namespace) -> None:
    """Score a trained model on held-out text, beside uniform guessing and n-grams."""
    path = _checkpoint_path(args.checkpoint)
    checkpoint = load_checkpoint(path)
    trained_on = checkpoint.training.get("config", {}).get("data", TrainConfig.data)
    name = args.data or trained_on
    ids = _encode(checkpoint.tokenizer, data.load(name))
    print(f"{path} on {len(ids['test']) - 1:,} held-out characters of {name}:\n")
    if name != trained_on:
        print(f"The n-grams are counted on {name}; the GPT was trained on {trained_on}.\n")
    elif checkpoint.training.get("corpus") != fingerprint(ids["train"], ids["val"]):
        print(f"{name} has changed since the training, which may have seen this text.\n")
    _print_table(checkpoint.model, ids)


def chapters(args: argparse.Namespace) -> None:
    """Print how many equations of each chapter are checked, and the worst error found.

    An equation counts if the check that stands for it has run and has kept its bound.
    """
    read = [read_chapter(path) for path in find_chapters(Path(args.folder))]
    print(coverage_table(read))
    if found := [problem for chapter in read for problem in problems(chapter)]:
        raise ValueError("\n".join(found))


def info(args: argparse.Namespace) -> None:
    """Print a model's parameters and cost, and what this machine computes with."""
    if args.checkpoint:
        model = load_checkpoint(_checkpoint_path(args.checkpoint)).model
    else:
        model = GPT(config_of(GPTConfig, args), np.random.default_rng(0))
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
    config = saved_config(resume) if resume else config_of(TrainConfig, args)
    corpus = data.load(config.data)
    tokenizer = resume.tokenizer if resume else CharTokenizer.from_text(corpus.text)
    ids = _encode(tokenizer, corpus)
    rng = np.random.default_rng(config.seed)
    shape = config_of(GPTConfig, args, vocab_size=tokenizer.vocab_size)
    model = resume.model if resume else GPT(shape, rng)
    print(corpus.card())
    print(f"model       {model.num_parameters():,} parameters, "
          f"{model.flops_per_token() / 1e6:.1f} MFLOP a token")  # fmt: skip
    print(f"threads     {'1, since the model is narrow' if _narrow(model) else 'all'}")
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

    A second thread saves a narrow model about a sixth of its time on an idle machine. On a busy
    one each product waits for a core that it does not get, and a step takes several times as long.
    """
    return threadpool_limits(1 if _narrow(model) else None, user_api="blas")


def _encode(tokenizer: CharTokenizer, corpus: data.Corpus) -> dict[str, np.ndarray]:
    """The three parts as ids (N,)."""
    parts = data.split(corpus)
    return {name: tokenizer.encode(getattr(parts, name)) for name in ("train", "val", "test")}


def _sample(
    trained: Trainer | Checkpoint, prompt: str, n: int, temperature: float, seed: int
) -> Iterator[str]:
    """The n characters that continue the prompt, one at a time. Checks its arguments at once."""
    if not prompt:
        raise ValueError("--prompt must have at least one character")
    if seed < 0:
        raise ValueError(f"--seed must be at least 0, got {seed}")
    idx, rng = trained.tokenizer.encode(prompt)[None], np.random.default_rng(seed)  # (1, T)
    tokens = generate(trained.model, idx, n, rng=rng, temperature=temperature)

    def pieces() -> Iterator[str]:
        with _threads(trained.model):
            yield from (trained.tokenizer.decode(token) for token in tokens)

    return pieces()


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


def _checkpoint_path(given: str | None) -> Path:
    """The file given, the best checkpoint of the run given, or that of the latest run."""
    if given:
        return Path(given, "best.safetensors") if Path(given).is_dir() else Path(given)
    found = sorted(RUNS.glob("*/best.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ValueError(f"no trained model in {RUNS}/: run `python -m minigpt demo`, or name one")
    return found[-1]


# --- options ---


def _parser() -> Parser:
    parser = Parser(prog="minigpt", description="GPT from first principles in NumPy.")
    parser.add_argument("--version", action="version", version=f"minigpt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(function: Callable, name: str, *examples: str) -> Parser:
        lines = ["examples:", *(f"  python -m minigpt {name}{example}" for example in examples)]
        sub = commands.add_parser(
            name, help=str(function.__doc__).split("\n")[0], description=getdoc(function),
            epilog="\n".join(lines), formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(command=function)
        return sub

    sub = command(demo, "demo", "", " --seconds 20")
    sub.add_argument(
        "--seconds", type=positive, default=90.0, help="training time, in seconds (default: 90)"
    )
    _add_train_options(command(
        train, "train", " --data facts --seconds 20 --seed 1",
        " --data my_text.txt --steps 500 --out runs/mine", " --resume runs/mine",
    ))  # fmt: skip
    _add_sample_options(command(
        sample, "sample", "", ' --prompt "The average" -n 200 --temperature 0.5'
    ))  # fmt: skip
    sub = command(evaluate, "eval", "", " runs/demo-1/best.safetensors --data pydoc")
    sub.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    sub.add_argument("--data", help="a corpus (default: the one it was trained on)")
    sub = command(chapters, "chapters", "", " --folder my_chapters")
    sub.add_argument("--folder", default=CHAPTERS, help="where the notebooks are")
    _add_verify_options(command(
        verify, "verify", " --template layer_norm", " my_derivation.py",
        " my_notebook.ipynb --html report.html",
    ))  # fmt: skip
    sub = command(gradcheck, "gradcheck", "", f" {EXAMPLE}")
    sub.add_argument("--out", metavar="FILE", help="write the table as CSV (default: no file)")
    sub.add_argument("--figure", metavar="FILE", help="draw the errors as SVG (default: no file)")
    sub = command(info, "info", "", " --n-layer 12 --n-head 12 --n-embd 768")
    sub.add_argument("checkpoint", nargs="?", help="a checkpoint or a run (default: a new model)")
    add_options(sub, GPTConfig, "vocab_size")
    return parser


def _add_train_options(sub: Parser) -> None:
    sub.add_argument("--out", help="folder of the run (default: runs/DATA-N)")
    sub.add_argument("--resume", metavar="RUN", help="folder of a stopped run to go on with")
    add_options(sub, TrainConfig)
    add_options(sub, GPTConfig, "vocab_size")


def _add_verify_options(sub: Parser) -> None:
    sub.add_argument("files", nargs="*", help="derivation files, .py or .ipynb")
    sub.add_argument("--json", action="store_true", help="print one JSON document instead")
    sub.add_argument("--html", metavar="FILE", help="write a page with pictures of the errors")
    sub.add_argument("--seconds", type=positive, default=60.0, help="limit a file (default: 60)")
    sub.add_argument("--memory", type=positive, default=2048.0, help="MiB (default: 2048)")
    sub.add_argument("--seed", type=int, default=0, help="other arguments are drawn (default: 0)")
    sub.add_argument("--template", metavar="NAME", help="write a file to begin with, or `list`")


def _add_sample_options(sub: Parser) -> None:
    sub.add_argument("checkpoint", nargs="?", help=CHECKPOINT_HELP)
    sub.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    sub.add_argument("-n", type=int, default=300, help="tokens to draw (default: 300)")
    sub.add_argument("--temperature", type=float, default=0.8,
                     help="below 1: safer, above: wilder, 0: likeliest (default: 0.8)")  # fmt: skip
    sub.add_argument("--seed", type=int, default=0, help="another seed, another text (default: 0)")
