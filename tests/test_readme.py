"""The README keeps its word: its examples give what they show, and its commands run."""

import csv
import doctest
import io
import re
import shlex
import textwrap
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest

from minigpt import data
from minigpt.__main__ import main
from minigpt.backend import xp
from minigpt.coverage import coverage_table, find_chapters, read_chapter
from minigpt.evaluate import score_baselines
from minigpt.gpt2 import write_gpt2
from minigpt.gradcheck import check_grads
from minigpt.model import GPT, GPTConfig
from minigpt.tensor import Tensor, primitive
from minigpt.tokenizer import CharTokenizer
from tests import cases
from tests.test_architecture import CORE, code_lines
from tests.test_gradcheck import BANK, BLIND

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()
]
SMALL = ["--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--block-size", "16"]


def test_python_examples_give_what_they_show():
    failed, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried >= 12
    assert failed == 0


def test_every_make_command_exists_and_the_door_runs_the_two_main_ones():
    targets = {line.split(maxsplit=1)[1] for line in COMMANDS if line.startswith("make ")}
    assert targets == {"demo", "test", "bench", "chapters"}
    makefile, door = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    for target in targets:
        assert re.search(rf"^{target}: \.venv/installed", makefile, re.M)
    assert "\nmake demo" in door
    assert "\nmake test" in door
    assert "-m benchmarks.train_step" in makefile
    assert "-m benchmarks.train_step" in door  # `make bench` itself installs a framework first


def test_the_package_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("The average\n"))  # for chat
    config = GPTConfig(50257, block_size=8, n_layer=1, n_head=1, n_embd=2)
    write_gpt2(GPT(config, np.random.default_rng(0)), tmp_path / "gpt2")
    found = [shlex.split(line)[3:] for line in COMMANDS if line.startswith("python -m minigpt ")]
    assert [words[0] for words in found] == [
        "train",
        "chapters",
        "verify",
        "verify",
        "gradcheck",
        "train",
        "plot",
        "sample",
        "chat",
        "eval",
        "explain",
        "info",
        "doctor",
        "graph",
        "train",
        "import",
        "sample",
    ]
    for words in found:
        if "--seconds" in words:  # the same command, made shorter and smaller
            words[words.index("--seconds") + 1] = "1"
            words += SMALL
        try:
            unfilled = words[:2] == ["verify", "layer_norm_derivation.py"]
            assert main(words) == (1 if unfilled else 0)
        except SystemExit as done:  # --help
            assert done.code == 0
        assert capsys.readouterr().out


def test_every_command_is_of_a_kind_that_is_run_somewhere():
    assert len(COMMANDS) >= 8
    assert all(line.startswith(("make ", "python -m minigpt ")) for line in COMMANDS)


def test_every_file_of_the_package_is_on_the_map():
    package = ROOT / "minigpt"
    names = [path.name for path in package.glob("*.py") if not path.name.startswith("__")]
    names += [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    missing = [name for name in names if f"`minigpt/{name}`" not in README]
    assert not missing and len(names) > 40


def test_the_files_on_the_map_exist():
    paths = re.findall(r"`((?:minigpt|tests|benchmarks|figures|chapters|tools)/[\w./]*)`", README)
    assert len(paths) >= 15
    for path in [*paths, *re.findall(r"\]\(((?:figures|chapters)/[^)]*)\)", README)]:
        assert (ROOT / path).exists(), path


def test_the_op_of_the_how_to_passes_the_checks_of_every_op():
    blocks = [
        textwrap.dedent(block) for block in re.findall(r" +```python\n(.*?) +```", README, re.S)
    ]
    function, row = blocks
    names = {"primitive": primitive, "xp": xp, "np": np, "normal": cases.normal}
    exec(function, names)
    rows = []
    names |= {"ops": SimpleNamespace(sin=names["sin"]), "row": lambda *args: rows.append(args)}
    exec(row, names)
    op, _, call, expected, maker = rows[0]
    x = maker(np.random.default_rng(0))
    np.testing.assert_allclose(call(op, Tensor(x)).numpy(), expected(x))
    assert check_grads(lambda x: call(op, x), x) < 1e-8


def test_the_core_has_as_many_lines_as_it_says():
    lines = sum(code_lines(name) for name in CORE)
    assert f"in this order: {lines} lines of code" in README


def test_the_chapters_table_counts_what_the_notebooks_hold():
    """The worst errors are those of one machine; equations and checks are the same on all."""
    chapters = [read_chapter(path) for path in find_chapters()]
    lines = [line.split() for line in coverage_table(chapters).splitlines()[1:]]
    shown = [line.split() for line in README.splitlines() if re.match(r"\d\d_\w+ +\d", line)]
    assert [line[:3] + line[5:] for line in shown] == [line[:3] + line[5:] for line in lines]
    assert all(f"[{c.number} {c.title}](chapters/{c.path.name})" in README for c in chapters)


def test_recorded_numbers_are_those_of_their_files():
    kills = (ROOT / "figures" / "data" / "kills.csv").read_text("utf-8").splitlines()[1:]
    inside = sum(",yes," in line for line in kills)
    assert all(line.endswith(",exact") for line in kills)
    assert f"Of {len(kills)} kills\nat random moments, {inside} of them in the middle" in README
    table = (ROOT / "tests" / "MUTANTS.md").read_text("utf-8")
    rows = re.findall(r"^\| `\w+\.py` \| (\d+) \| (\d+) \|", table, re.M)
    broken, noticed = (sum(int(row[i]) for row in rows) for i in (0, 1))
    assert f"Of {broken:,} small breaks of the engine the tests notice {noticed:,}" in README
    assert f"## The {broken - noticed} survivors" in table


def test_the_speed_of_generation_is_that_of_its_file():
    with open(ROOT / "figures" / "data" / "generation.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["threads"] for row in rows} == {"2"}
    said = re.search(r"On two threads of a machine.*?nearly all", " ".join(README.split()))[0]
    found = re.findall(r"(\d\.\d) times.*?\(([\d,]+)(?: tokens/s)?\)", said)
    wanted = []
    for size in dict.fromkeys(row["size"] for row in rows):
        ours, theirs = (
            [float(row["ms_per_token"]) for row in rows if (row["size"], row["contestant"])
             == (size, name)] for name in ("minigpt", "transformers")
        )  # fmt: skip
        ratio = median(b / a for a, b in zip(ours, theirs, strict=True))
        wanted.append((f"{ratio:.1f}", f"{1000 / median(ours):,.0f}"))
    assert found == wanted
    assert len(wanted) == 3


def test_the_times_beside_pytorch_are_those_of_their_file():
    with open(ROOT / "figures" / "data" / "compare.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["threads"] for row in rows} == {"2"}
    times: dict = {}
    for row in rows:
        times.setdefault((row["contestant"], row["work"]), []).append(float(row["ms"]))
    works = list(dict.fromkeys(work for _, work in times))

    def cell(name, work):
        found = zip(times.get((name, work), []), times["torch", work], strict=False)
        ratios = [a / b for a, b in found]
        return f"{median(ratios):.2f}" if ratios else ""

    wanted = {name: [cell(name, work) for work in works] for name, _ in times if name != "torch"}
    head, _, *table = re.search(r"\| times PyTorch's \|.*?\n\n", README, re.S)[0].split("\n")[:-2]
    assert [name.strip() for name in head.split("|")[2:-1]] == works
    found = {}
    for line in table:
        name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        found[name.split()[0].strip("`:")] = cells
    assert found == wanted


def test_the_best_ngram_is_the_one_it_says():
    corpus = data.load("facts")
    parts, tokenizer = data.split(corpus), CharTokenizer.from_text(corpus.text)
    train, test = tokenizer.encode(parts.train), tokenizer.encode(parts.test)
    scores = score_baselines(tokenizer.vocab_size, train, test, 7)
    best = min(scores, key=lambda score: score.nats)
    text = " ".join(README.split())
    assert f"the best n-gram, the {best.name}, {best.nats:.3f}." in text
    reached = float(re.search(r"the GPT reaches \*\*(\d\.\d+)\*\*", text)[1])
    log = (ROOT / "figures" / "data" / "16_long_run.csv").read_text("utf-8").splitlines()
    held_out = min(float(line.split(",")[3]) for line in log[1:])  # on part of the validation text
    assert reached < best.nats
    assert abs(reached - held_out) < 0.05


@pytest.mark.parametrize("word", ["DEMO_OUTPUT", "BENCH_OUTPUT", "TODO"])
def test_nothing_was_left_to_fill_in(word):
    assert word not in README


def test_the_bank_is_as_large_as_it_says():
    wrong, blind = re.search(
        r"- (\d+) plausible wrong derivatives.*? (\d+) of them would pass", README, re.S
    ).groups()
    assert (len(BANK), len(BLIND)) == (int(wrong), int(blind))
