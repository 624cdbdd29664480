"""The command line as a user meets it: files, tables, help, and errors on one line."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from minigpt import cli, data, plot
from minigpt.__main__ import main
from minigpt.backend import xp
from minigpt.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minigpt.cost import activation_bytes, cache_bytes, flops_per_token, parameters_by_part
from minigpt.data.writing import write_tokens
from minigpt.evaluate import nats_per_token, score_baselines
from minigpt.generate import generate
from minigpt.model import GPT
from minigpt.record import Record, fingerprint, read_log
from minigpt.tokenizer import build
from minigpt.train import Trainer

SMALL = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16"]
ROOT = Path(__file__).parent.parent
SPLITS = ("train", "val", "test")
COMMANDS = (
    "demo",
    "train",
    "plot",
    "sample",
    "chat",
    "eval",
    "explain",
    "info",
    "doctor",
    "graph",
    "chapters",
    "verify",
    "gradcheck",
    "data",
    "tokenize",
    "stories",
    "import",
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def write_text(folder):
    lines = [f"line {i} says that {i} and {i} are {2 * i}\n" for i in range(400)]
    (folder / "sums.txt").write_text("".join(lines), "utf-8")
    return "sums.txt"


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    """A folder with a text and a run on it, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        name = write_text(folder)
        assert main(["train", "--data", name, "--steps", "20", "--eval-every", "10", *SMALL]) == 0
    return folder


@pytest.fixture
def trained(one_run, tmp_path, capsys):
    """A copy of it, to be changed at will."""
    shutil.copytree(one_run, tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    return "runs/sums-1"


def python(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "minigpt", *args],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
    )  # fmt: skip


def table(out):
    """name -> nats per character, from a printed table; bits must be nats / ln 2."""
    rows = re.findall(r"^  (\S+) +(\d+\.\d{3}) +(\d+\.\d{3})$", out, re.M)
    for _, nats, bits in rows:
        assert abs(float(nats) / 0.693147 - float(bits)) < 2e-3
    return {name: float(nats) for name, nats, _ in rows}


def test_train_writes_everything_and_says_where(text, tmp_path, capsys):
    assert main(["train", "--data", text, "--steps", "20", "--eval-every", "10", *SMALL]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "runs" / "sums-1"
    names = {"best.safetensors", "last.safetensors", "log.jsonl", "loss.png"}
    assert {p.name for p in folder.iterdir()} == names | {"run.json"}
    for name in names:
        assert name in out
    assert "sums.txt" in out
    assert "held out" in out
    assert (folder / "loss.png").read_bytes()[:4] == b"\x89PNG"
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 10, 20]


def test_a_second_run_gets_a_folder_of_its_own_and_the_same_losses(text, tmp_path):
    for _ in range(2):
        assert main(["train", "--data", text, "--steps", "10", "--seed", "1", *SMALL]) == 0
    texts = [(tmp_path / f"runs/sums-{i}/log.jsonl").read_text() for i in (1, 2)]
    logs = [[json.loads(line) for line in text.splitlines()] for text in texts]
    for log in logs:
        for line in log:
            del line["seconds"], line["tokens_per_second"]
    assert [line["step"] for line in logs[0]] == [0, 10]
    assert logs[0] == logs[1]


def test_sample_streams_the_prompt_and_n_characters(trained, capsys):
    assert main(["sample", "--prompt", "line 7", "-n", "40", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    text, speed = out.rsplit("\n\n", 1)
    assert text.startswith("line 7")
    assert len(text) == len("line 7") + 40
    assert re.fullmatch(r"40 tokens, [\d,]+ tokens/s\n", speed)
    main(["sample", "--prompt", "line 7", "-n", "40", "--seed", "3"])
    assert capsys.readouterr().out.rsplit("\n\n", 1)[0] == text
    main(["sample", "--prompt", "line 7", "-n", "40", "--seed", "4"])
    assert capsys.readouterr().out.rsplit("\n\n", 1)[0] != text


def test_eval_prints_the_table(trained, capsys):
    assert main(["eval", f"{trained}/best.safetensors"]) == 0
    names = ["uniform", "1-gram", "2-gram", "3-gram", "4-gram", "5-gram", "GPT"]
    assert list(table(capsys.readouterr().out)) == names


def test_info_of_a_checkpoint_and_of_a_shape(trained, capsys):
    assert main(["info", f"{trained}/last.safetensors"]) == 0
    out = capsys.readouterr().out
    sizes = re.findall(r"^\w\S*\.(?:weight|bias) .*? ([\d,]+)$", out, re.M)
    total = re.search(r"^parameters +([\d,]+)$", out, re.M)[1]
    assert sum(int(size.replace(",", "")) for size in sizes) == int(total.replace(",", ""))
    assert f"backend   {xp.__name__} {xp.__version__}" in out
    assert "blas" in out
    assert main(["info", "--n-layer", "2", "--n-embd", "64"]) == 0
    out = capsys.readouterr().out
    assert "h.1.mlp.c_proj.weight" in out
    assert "wpe.weight" in out
    assert main(["info", "--n-layer", "2", "--n-embd", "64", "--position", "rope"]) == 0
    without = capsys.readouterr().out
    assert "wpe" not in without
    flops, parameters = (
        [
            int(re.search(rf"^{name} +([\d,]+)$", text, re.M)[1].replace(",", ""))
            for text in (out, without)
        ]
        for name in ("FLOPs per training token", "parameters")
    )
    assert flops[0] == flops[1]
    assert parameters[0] - parameters[1] == 32 * 64


def test_demo_in_short(capsys):
    assert main(["demo", "--seconds", "4"]) == 0
    out = capsys.readouterr().out
    scores = table(out)
    assert list(scores) == ["uniform", "1-gram", "2-gram", "3-gram", "4-gram", "5-gram", "GPT"]
    assert scores["GPT"] < scores["uniform"] - 0.5  # a busy machine does few steps in 4 seconds
    assert abs(scores["5-gram"] - 1.571) < 1e-3  # counted anew, on the pinned text
    samples = re.findall(r"^[123]\. (.+(?:\n   .*)*)", out, re.M)
    assert len(set(samples)) == 3
    assert re.search(r"training +[\d,]+ tokens/s", out)
    assert "runs/demo-1/loss.png" in out.replace("\\", "/")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"python -m minigpt {command}" in out


def test_help_lists_the_commands_and_every_option_has_a_unit_or_meaning(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\s+\S+", out, re.M)


def fails(capsys, *argv):
    """Run a command that must fail; return its one line of error."""
    try:
        code = main(argv)
    except SystemExit as done:  # argparse
        code = done.code
    assert code == 2
    out, error = capsys.readouterr()
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, trained, capsys):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("".join(f"{i}\n" for i in range(30)))
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    best = f"{trained}/best.safetensors"
    bare = load_checkpoint(best)
    save_checkpoint("weights/last.safetensors", Checkpoint(bare.model, bare.tokenizer))
    (tmp_path / "nothing.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes("größer\n".encode("latin-1") * 50)
    (tmp_path / "binary.txt").write_bytes(b"line\0\n" * 50)
    last = load_checkpoint(f"{trained}/last.safetensors")
    last.training["config"] |= {"batches": 4}
    save_checkpoint("older/last.safetensors", last)
    other = load_checkpoint(f"{trained}/last.safetensors")
    other.model.config = replace(other.model.config, n_embd=8)
    save_checkpoint("narrow/last.safetensors", other)
    for argv, message in (
        (["train", "--data", "empty.txt"], "holds no text"),
        (["train", "--data", "short.txt"], "block_size"),
        (["train", "--data", "nowhere"], "expected one of facts, pydoc"),
        (["train", "--n-embd", "10", "--n-head", "4"], "n_embd 10 must be a multiple"),
        (["train", "--lr", "-1"], "lr must be positive"),
        (["train", "--steps", "many"], "invalid int value"),
        (["train", "--steps", "5", "--seconds", "5"], "not both"),
        (["train", "--seconds", "inf"], "seconds must be 0 or more, and finite"),
        (["train", "--beta2", "1"], "beta2 must be in 0 <= beta2 < 1"),
        (["train", "--lr", "inf"], "lr must be 0 or more, and finite"),
        (["train", "--data", ""], "expected one of facts, pydoc"),
        (["train", "--data", "x" * 5000], "x"),
        (["train", "--resume", trained, "--steps", "9", "--lr", "1"], "leave out --lr, --steps"),
        (["train", "--resume", "weights"], "cannot be resumed: KeyError('config')"),
        (["demo", "--seconds", "0"], "must be positive and finite"),
        (["info", "--n-embd", "1000000000", "--n-head", "1"], "not enough memory"),
        (["info", "--position", "polar"], "learned, sinusoid, rope, alibi, none; got 'polar'"),
        (["train", "--position", "rope", "--n-embd", "12", "--n-head", "4"], "3 is odd"),
        (["sample", best, "--seed", "-1"], "--seed must be at least 0"),
        (["sample", best, "-n", "-5"], "must be >= 0"),
        (["train", "--resume", "runs/none"], "runs/none: no such run"),
        (["train", "--data", "sums.txt", "--out", trained], f"--resume {trained}"),
        (["sample", best, "--prompt", "line §"], "does not know: '§'"),
        (["sample", best, "--prompt", ""], "at least one character"),
        (["sample", best, "--temperature", "-1"], "must be >= 0"),
        (["sample", best, "--temperature", "nan"], "temperature must be >= 0 and finite, got nan"),
        (["sample", best, "--top-k", "-1"], "top_k must be an integer >= 0, got -1"),
        (["sample", best, "--top-k", "2.5"], "argument --top-k: invalid int value"),
        (["sample", best, "--top-p", "0"], "top_p must be in 0 < top_p <= 1, got 0.0"),
        (["sample", best, "--min-p", "2"], "min_p must be in 0 <= min_p <= 1, got 2.0"),
        (["sample", best, "--repetition-penalty", "0"], "must be positive and finite, got 0.0"),
        (["sample", best, "--stop", ""], "a stop text must have at least one character"),
        (["sample", best, "--stop", "a", "--stop", ""], "a stop text must have at least one"),
        (["sample", best, "--samples", "0"], "--samples must be at least 1, got 0"),
        (["sample", "broken.safetensors"], "not a whole safetensors file"),
        (["sample", "missing.safetensors"], "no such checkpoint"),
        (["eval", best, "--data", "facts"], "does not know"),
        (["train", "--bogus"], "unrecognized arguments"),
        (["train", "--lr", "nan"], "lr must be positive, got nan"),
        (["train", "--accumulate", "0"], "accumulate must be positive, got 0"),
        (["train", "--schedule", "wave"], "schedule must be one of cosine, linear, constant, p"),
        (["train", "--data", "nothing.txt"], "holds no text"),
        (["train", "--data", "latin.txt"], "latin.txt is not UTF-8 text"),
        (["train", "--data", "binary.txt"], "binary.txt is not text: it has a zero byte"),
        (["train", "--data", "sums.txt", "--tokenizer", "sentences"], "no tokenizer 'sentences'"),
        (["train", "--resume", "."], "is not a run: it has no last.safetensors"),
        (["train", "--resume", "older"], "cannot be resumed: TypeError"),
        (["train", "--resume", "narrow"], "does not fit its own config"),
        (["plot", "."], "is not a run"),
        (["plot", "nowhere"], "nowhere is not a run"),
        (["plot", trained, "--out", "runs.pdf"], "expected a name that ends in .png or .svg"),
        (["plot", trained, "--x", "days"], "invalid choice: 'days'"),
        (["plot"], "required: RUN"),
        (["fly"], "invalid choice"),
        ([], "required"),
    ):
        assert message in fails(capsys, *argv), argv


def test_no_trained_model_yet(capsys):
    assert "run `python -m minigpt demo`" in fails(capsys, "sample")


def test_a_full_disk_while_training(text, tmp_path, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "cannot write" in fails(capsys, "train", "--data", text, "--steps", "2", *SMALL)


def gpu():
    try:
        import cupy

        return cupy.is_available()
    except ImportError:
        return False


@pytest.mark.parametrize(
    ("backend", "message"),
    [("torch", "expected 'numpy', 'cupy' or 'strict'"), ("cupy", "MINIGPT_BACKEND=cupy")],
)
def test_a_backend_that_is_not_there(backend, message):
    if backend == "cupy" and gpu():
        pytest.skip("there is a GPU here, so this backend is there")
    done = python("info", MINIGPT_BACKEND=backend)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_saves_and_resume_goes_on(text, tmp_path, capsys):
    process = subprocess.Popen(
        [sys.executable, "-m", "minigpt", "train", "--data", text, "--steps", "100000", *SMALL],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    last = tmp_path / "runs/sums-1/last.safetensors"
    while not last.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert "stopped at step" in out
    assert "--resume runs/sums-1" in out
    assert (tmp_path / "runs/sums-1/loss.png").exists()


def test_a_corpus_that_changed_is_noticed(trained, text, tmp_path, capsys):
    (tmp_path / text).write_text("".join(f"line {i} says that\n" for i in range(400)), "utf-8")
    assert "not the text that this run began with" in fails(capsys, "train", "--resume", trained)
    assert main(["eval", trained]) == 0
    assert "has changed since the training" in capsys.readouterr().out


def test_eval_on_another_corpus_says_so(trained, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("".join(f"line {i} says\n" for i in range(400)), "utf-8")
    assert main(["eval", trained, "--data", "other.txt"]) == 0
    out = capsys.readouterr().out
    assert "n-grams are counted on other.txt; the GPT was trained on sums.txt" in out
    assert "held-out characters of other.txt" in out


def test_a_folder_stands_for_its_best_checkpoint(trained, capsys):
    for command in (["sample", trained, "-n", "5"], ["info", trained]):
        assert main(command) == 0


def test_nan_in_the_loss_is_one_line(text, capsys):
    assert main(["train", "--data", text, "--steps", "3", "--lr", "1e30", *SMALL]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"minigpt: error: the (loss|gradient) is .* keeps step 0\n", error), error


def test_a_console_without_the_characters_gets_replacements(trained, tmp_path):
    done = python("sample", trained, "--prompt", "line 1", "-n", "5", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert re.fullmatch(r"minigpt \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_resume_continues_the_options_of_the_run(text, capsys):
    args = ["train", "--data", text, "--steps", "20", "--eval-every", "10", *SMALL]
    assert main([*args, "--out", "runs/mine"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "runs/mine"]) == 0
    out = capsys.readouterr().out
    assert "complete: step 20 of 20" in out
    assert "runs/mine/best.safetensors" in out.replace("\\", "/")


# --- the numbers and options are the right ones ---


def encoded(checkpoint, text):
    parts = data.split(data.load(text))
    return {name: checkpoint.tokenizer.encode(getattr(parts, name)) for name in SPLITS}


def test_eval_scores_the_named_model_on_the_held_out_part(text, trained, tmp_path, capsys):
    assert main(["train", "--data", text, "--steps", "1", "--lr", "1e-9", *SMALL]) == 0
    os.utime(tmp_path / "runs/sums-1/best.safetensors", (1, 1))  # the second run is the newest
    (tmp_path / "runs/sums-2/last.safetensors").write_bytes(b"is not what is asked for")
    capsys.readouterr()
    for argv, run in (([f"{trained}/best.safetensors"], "sums-1"), ([], "sums-2")):
        assert main(["eval", *argv]) == 0
        out = capsys.readouterr().out
        checkpoint = load_checkpoint(tmp_path / f"runs/{run}/best.safetensors")
        ids = encoded(checkpoint, text)
        assert f"{run}/best.safetensors on {len(ids['test']) - 1:,} held-out" in out
        wanted = {
            score.name: score.nats
            for score in score_baselines(checkpoint.tokenizer.vocab_size, ids["train"], ids["test"])
        } | {"GPT": nats_per_token(checkpoint.model, ids["test"])}  # fmt: skip
        assert table(out) == pytest.approx(wanted, abs=6e-4)
        if argv:  # so that another part would not print the same
            assert abs(wanted["GPT"] - nats_per_token(checkpoint.model, ids["val"])) > 1.2e-3


def test_sample_draws_from_the_named_model_at_the_temperature(text, trained, capsys):
    assert main(["train", "--data", text, "--steps", "1", *SMALL]) == 0
    capsys.readouterr()
    path = f"{trained}/best.safetensors"
    checkpoint = load_checkpoint(path)
    for temperature in (0.5, 3.0):
        argv = ["--prompt", "line 7", "-n", "40", "--seed", "3", "--temperature", str(temperature)]
        assert main(["sample", path, *argv]) == 0
        rng, idx = np.random.default_rng(3), checkpoint.tokenizer.encode("line 7")[None]
        drawn = generate(checkpoint.model, idx, 40, rng=rng, temperature=temperature)
        wanted = "line 7" + "".join(checkpoint.tokenizer.decode(token) for token in drawn)
        assert capsys.readouterr().out.rsplit("\n\n", 1)[0] == wanted


def test_every_option_of_sample_reaches_the_draws(trained, capsys):
    path = f"{trained}/best.safetensors"
    checkpoint = load_checkpoint(path)
    idx, texts = checkpoint.tokenizer.encode("line 7")[None], set()
    values = {"top_k": 2, "top_p": 0.5, "min_p": 0.4, "repetition_penalty": 3.0}
    for options in [{}, *({name: value} for name, value in values.items())]:
        flags = [str(part) for name, value in options.items()
                 for part in ("--" + name.replace("_", "-"), value)]  # fmt: skip
        assert main(["sample", path, "--prompt", "line 7", "-n", "40", "--seed", "3", *flags]) == 0
        rng = np.random.default_rng(3)
        drawn = generate(checkpoint.model, idx, 40, rng=rng, temperature=0.8, **options)
        wanted = "line 7" + checkpoint.tokenizer.decode(np.concatenate([*drawn]))
        assert capsys.readouterr().out.rsplit("\n\n", 1)[0] == wanted
        texts.add(wanted)
    assert len(texts) == 5


def test_each_of_several_samples_is_that_of_its_seed(trained, capsys):
    def told(*argv):
        assert main(["sample", "--prompt", "line 7", "-n", "30", *argv]) == 0
        return capsys.readouterr().out.rsplit("\n\n", 1)

    together, count = told("--seed", "4", "--samples", "3")
    alone = [told("--seed", str(seed))[0] for seed in (4, 5, 6)]
    assert together == "\n\n".join(
        f"--- seed {seed}\n{text}" for seed, text in zip((4, 5, 6), alone, strict=True)
    )
    assert len(set(alone)) == 3
    assert count.startswith("90 tokens, ")


def test_a_sample_ends_before_the_stop_text(trained, capsys):
    def told(*argv):
        assert main(["sample", "--prompt", "line 7", "-n", "60", "--seed", "3", *argv]) == 0
        return capsys.readouterr().out.rsplit("\n\n", 1)

    whole = told()[0].removeprefix("line 7")
    stop = whole[20:24]  # four tokens
    at = whole.index(stop)
    text, count = told("--stop", "never§", "--stop", stop)
    assert text == "line 7" + whole[:at]
    assert count.startswith(f"{at + 4} tokens, ")
    text, count = told("--stop", whole[-3:] + "§")
    assert text == "line 7" + whole  # what waited is not lost
    assert count.startswith("60 tokens, ")
    assert told("--stop", "line 7")[0].startswith("line 7")  # the prompt is not searched


def test_info_is_about_the_checkpoint(trained, capsys):
    model = load_checkpoint(f"{trained}/last.safetensors").model
    assert main(["info", f"{trained}/last.safetensors"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^parameters +{model.num_parameters():,}$", out, re.M)
    assert re.search(rf"^FLOPs per training token +{flops_per_token(model):,}$", out, re.M)
    assert len(re.findall(r"\.(?:weight|bias) ", out)) == len(model.parameters())
    costs = dict(re.findall(r"^ *(\D+?) +([\d,]+)$", out.partition("\nparameters ")[2], re.M))
    wanted = {**parameters_by_part(model), "bytes of gradients": 4 * model.num_parameters(),
              "bytes of activations, each text": activation_bytes(model),
              "bytes of the KV cache, each text": cache_bytes(model)}  # fmt: skip
    assert {name: costs[name] for name in wanted} == {k: f"{n:,}" for k, n in wanted.items()}


def test_every_option_reaches_the_run(text, tmp_path):
    values = {
        "steps": 2, "batch_size": 3, "lr": 0.01, "final_lr": 0.5, "warmup": 1, "weight_decay": 0.2,
        "beta2": 0.9, "clip": 0.5, "eval_every": 1, "eval_tokens": 50, "seed": 7,
        "tokenizer": "char", "accumulate": 2, "schedule": "linear", "save_every": 1, "patience": 9,
        "sample_tokens": 2, "workers": 1, "precision": "float16",
    }  # fmt: skip
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8, "dropout": 0.1,
             "position": "rope"}  # fmt: skip
    argv = [
        part for name, value in (values | shape).items()
        for part in ("--" + name.replace("_", "-"), str(value))
    ]  # fmt: skip
    switches = ["--no-bias", "--no-tied", "--recompute"]
    assert main(["train", "--data", text, *argv, *switches, "--out", "mine"]) == 0
    last = load_checkpoint(tmp_path / "mine/last.safetensors")
    assert last.training["config"] == values | {
        "data": text, "seconds": 0.0, "recompute": True
    }  # fmt: skip
    assert asdict(last.model.config) == shape | {
        "bias": False, "tied": False, "vocab_size": last.tokenizer.vocab_size
    }  # fmt: skip
    rng, ids = np.random.default_rng(7), encoded(last, text)
    start = GPT(last.model.config, rng)
    assert last.training["log"][0]["val_loss"] == nats_per_token(start, ids["val"][:51])


def test_stopped_and_resumed_is_the_undisturbed_run(text, tmp_path, monkeypatch, capsys):
    args = ["train", "--data", text, "--steps", "20", "--eval-every", "10", "--seed", "3",
            "--dropout", "0.1", *SMALL]  # fmt: skip
    assert main([*args, "--out", "whole"]) == 0
    real = Trainer._step

    def step(trainer):
        if trainer.step == 12:
            signal.raise_signal(signal.SIGINT)
        return real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        assert main([*args, "--out", "part"]) == 0
    assert (
        "stopped at step 13; to go on: python -m minigpt train --resume part"
        in capsys.readouterr().out
    )
    assert main(["train", "--resume", "part"]) == 0
    whole, part = (
        load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "part")
    )
    assert part.training["config"] == whole.training["config"]
    for key in ("step", "best", "rng"):
        assert part.training[key] == whole.training[key]
    for a, b in zip(whole.model.parameters(), part.model.parameters(), strict=True):
        assert a.data.tobytes() == b.data.tobytes()


def test_the_run_gets_the_right_parts_and_its_n_grams_those_it_is_judged_by(
    text, tmp_path, monkeypatch
):
    """Trained on train, judged on val; the figure's n-grams are those of the figure's loss."""
    drawn, parts = [], []
    init = Trainer.__init__
    monkeypatch.setattr(plot, "draw_runs", lambda *args: drawn.append(args))
    monkeypatch.setattr(
        Trainer, "__init__", lambda self, *args: parts.append(args[2:4]) or init(self, *args)
    )
    args = ["--steps", "3", "--eval-every", "1", "--eval-tokens", "300", "--accumulate", "2"]
    assert main(["train", "--data", text, *args, *SMALL]) == 0
    last = load_checkpoint(tmp_path / "runs/sums-1/last.safetensors")
    ids = encoded(last, text)
    for found, name in zip(parts[0], ("train", "val"), strict=True):
        np.testing.assert_array_equal(found, ids[name])
    ((path, (run,)),) = drawn
    assert path.as_posix() == "runs/sums-1/loss.png"
    assert run.log == last.training["log"]
    wanted = score_baselines(last.tokenizer.vocab_size, ids["train"], ids["val"][:301])[1:]
    assert run.setup["baselines"] == {score.name: score.nats for score in wanted}
    assert run.setup["characters_per_token"] == {"train": 1.0, "val": 1.0}
    assert run.setup["tokens_per_step"] == 32 * 2 * 16
    assert run.setup["training"] == last.training["config"]


# --- other tokens than characters ---


def long_words(n):
    """The lines of a text in which tokens of byte pairs are much longer than a character."""
    return [f"das größte Beispiel Nummer {i % 90} sagt größere Beispiele an\n" for i in range(n)]


@pytest.fixture
def german(tmp_path):
    lines = [line.replace("Nummer", f"Nummer {i}") for i, line in enumerate(long_words(400))]
    (tmp_path / "german.txt").write_text("".join(lines), "utf-8")
    return "german.txt"


def test_byte_pairs_are_learnt_from_the_training_part_and_compared_per_character(
    german, tmp_path, capsys
):
    args = ["--steps", "30", "--eval-every", "10", "--lr", "0.02", *SMALL]
    assert main(["train", "--data", german, "--tokenizer", "bpe-300", *args]) == 0
    out = capsys.readouterr().out
    last = load_checkpoint(tmp_path / "runs/german-1/last.safetensors")
    parts = data.split(data.load(german))
    assert last.tokenizer.to_json() == build("bpe-300", parts.train).to_json()
    ids = encoded(last, german)
    assert all(last.tokenizer.decode(ids[name]) == getattr(parts, name) for name in SPLITS)
    ratio = len(parts.train) / len(ids["train"])
    assert re.search(rf"^tokenizer   300 tokens, {ratio:.2f} characters each$", out, re.M)
    first, characters = len(last.tokenizer.decode(ids["val"][:1])), len(parts.val)
    val = last.training["log"][-1]["val_loss"]
    each = val * (len(ids["val"]) - 1) / (characters - first)
    assert f"held out {val:.4f} nats per token ({each:.4f} per character)" in out
    setup = json.loads((tmp_path / "runs/german-1/run.json").read_text())
    assert setup["characters_per_token"]["train"] == pytest.approx(ratio)
    assert setup["characters_per_token"]["val"] == pytest.approx(val / each)

    assert main(["eval", "runs/german-1/last.safetensors"]) == 0
    out = capsys.readouterr().out
    first = len(last.tokenizer.decode(ids["test"][:1]))
    assert f"on {len(parts.test) - first:,} held-out characters" in out
    letters = build("char", data.load(german).text)
    train, test = letters.encode(parts.train), letters.encode(parts.test)
    total = nats_per_token(last.model, ids["test"]) * (len(ids["test"]) - 1)
    wanted = {
        score.name: score.nats
        for score in score_baselines(letters.vocab_size, train, test, skip=first)
    } | {"GPT": total / (len(parts.test) - first)}  # fmt: skip
    assert table(out) == pytest.approx(wanted, abs=6e-4)


def test_byte_pairs_repeat_resume_and_speak(german, tmp_path, capsys):
    args = ["--data", german, "--tokenizer", "bpe-290", "--eval-every", "5", *SMALL]
    for name in ("one", "two"):
        assert main(["train", *args, "--steps", "10", "--out", name]) == 0
    one, two = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for p, q in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert p.data.tobytes() == q.data.tobytes()
    assert main(["train", "--resume", "one"]) == 0
    assert "complete: step 10 of 10" in capsys.readouterr().out
    drawn = np.concatenate([*generate(
        load_checkpoint(tmp_path / "one/best.safetensors").model,
        one.tokenizer.encode("größer")[None], 200, rng=np.random.default_rng(0), temperature=2,
    )])  # fmt: skip
    lead = [0xC2 <= one.tokenizer.decode_bytes([token])[-1] <= 0xF4 for token in drawn]
    n = lead.index(True, 40) + 1  # the last token begins a character, and nothing ends it
    wanted = one.tokenizer.decode(drawn[:n])
    assert main(["sample", "one", "--prompt", "größer", "-n", str(n), "--temperature", "2"]) == 0
    out = capsys.readouterr().out.rsplit("\n\n", 1)[0]
    assert out == "größer" + wanted
    assert out.endswith("\ufffd") and out.count("\ufffd") > 1


def test_token_files_are_a_corpus(german, tmp_path, capsys):
    """They stay on the disk, bring their tokenizer, and change nothing in what is compared."""
    tokens = build("bpe-300", (tmp_path / german).read_text("utf-8"))
    documents = (tmp_path / german).read_text("utf-8").splitlines()
    write_tokens(tmp_path / "tokens", documents, tokens, spec="bpe-300", source="x",
                 licence="y")  # fmt: skip
    args = ["--data", "tokens", "--steps", "6", "--eval-every", "3", *SMALL]
    assert "leave out --tokenizer bpe-300" in fails(
        capsys, "train", *args, "--tokenizer", "bpe-300"
    )
    assert main(["train", *args, "--out", "run"]) == 0
    assert "(token files)" in capsys.readouterr().out
    last, files = load_checkpoint(tmp_path / "run/last.safetensors"), data.open_tokens("tokens")
    assert last.tokenizer.to_json() == tokens.to_json()
    assert last.training["config"]["tokenizer"] == "of the token files"
    assert last.training["corpus"] == fingerprint(np.array(files.train), np.array(files.val))
    assert main(["eval", "run/last.safetensors"]) == 0
    scores = table(capsys.readouterr().out)
    text = {name: tokens.decode(getattr(files, name)) for name in SPLITS}
    letters = build("char", "".join(text.values()))
    first = len(tokens.decode(files.test[:1]))
    wanted = score_baselines(
        letters.vocab_size, letters.encode(text["train"]), letters.encode(text["test"]), skip=first
    )
    assert scores["5-gram"] == pytest.approx(wanted[-1].nats, abs=6e-4)
    assert main(["train", "--resume", "run"]) == 0
    write_tokens(tmp_path / "other", documents, build("bpe-290", text["train"]),
                 spec="bpe-290", source="x", licence="y")  # fmt: skip
    message = "other was written with another tokenizer than this model's"
    assert message in fails(capsys, "eval", "run", "--data", "other")


# --- plot ---


def test_plot_compares_runs(text, tmp_path, capsys):
    for lr in ("0.001", "0.02"):
        args = ["--steps", "20", "--eval-every", "10", "--lr", lr, *SMALL]
        assert main(["train", "--data", text, *args]) == 0
    worse = read_log(tmp_path / "runs/sums-2")
    worse[-1]["val_loss"] += 1  # so that the best is not the last
    Record(tmp_path / "runs/sums-2").write_log(worse)
    capsys.readouterr()
    assert main(["plot", "runs/sums-1", "runs/sums-2", "--out", "two.svg", "--x", "tokens"]) == 0
    out = capsys.readouterr().out
    for name in ("sums-1", "sums-2"):
        log = read_log(tmp_path / "runs" / name)
        best = min(log, key=lambda line: line["val_loss"])
        row = re.search(rf"^{name} +20 +(\S+) +(\d+) +([\d,]+)$", out, re.M)
        assert row.groups() == (
            f"{best['val_loss']:.4f}", str(best["step"]), f"{log[-1]['tokens_per_second']:,}",
        )  # fmt: skip
    setup = json.loads((tmp_path / "runs/sums-1/run.json").read_text())
    assert re.search(rf"^3-gram +{setup['baselines']['3-gram']:.4f}$", out, re.M)
    assert "two.svg" in out
    assert b"<svg" in (tmp_path / "two.svg").read_bytes()


def test_a_run_of_the_first_version_can_be_drawn_once_it_was_resumed(trained, tmp_path, capsys):
    (tmp_path / trained / "run.json").unlink()
    assert f"run.json is missing: train --resume {trained} writes it" in fails(
        capsys, "plot", trained
    )
    assert main(["train", "--resume", trained]) == 0
    assert main(["plot", trained]) == 0


def test_plot_of_runs_judged_on_different_texts_says_so(text, german, tmp_path, capsys):
    for name in (text, german):
        assert main(["train", "--data", name, "--steps", "1", *SMALL]) == 0
    capsys.readouterr()
    assert main(["plot", "runs/sums-1", "runs/german-1"]) == 0
    out = capsys.readouterr().out
    assert "judged on different texts: no n-grams" in out
    assert "3-gram" not in out
    assert (tmp_path / "runs.png").exists()


# --- how it ends ---


def test_ctrl_c_outside_training_is_one_line_and_130(monkeypatch, capsys):
    def stopped(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", stopped)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "minigpt: stopped\n"


@pytest.mark.parametrize("command", [["info"], ["train", "--help"]])
def test_a_reader_that_has_gone_gets_no_traceback(command):
    read, write = os.pipe()
    os.close(read)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-m", "minigpt", *command], stdout=write, stderr=subprocess.PIPE,
        text=True, env=env | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
