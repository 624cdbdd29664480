"""The README keeps its word: its examples give what they show, and its commands run."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from minigpt.__main__ import main

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
    assert targets == {"demo", "test", "bench"}
    makefile, door = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    for target in targets:
        assert re.search(rf"^{target}: \.venv/installed", makefile, re.M)
    assert "\nmake demo" in door
    assert "\nmake test" in door
    assert "benchmarks.train_step" in makefile


def test_the_package_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = [shlex.split(line)[3:] for line in COMMANDS if line.startswith("python -m minigpt ")]
    assert [words[0] for words in found] == ["train", "sample", "eval", "info", "train"]
    for words in found:
        if "--seconds" in words:  # the same command, made shorter and smaller
            words[words.index("--seconds") + 1] = "1"
            words += SMALL
        try:
            assert main(words) == 0
        except SystemExit as done:  # --help
            assert done.code == 0
        assert capsys.readouterr().out


def test_every_command_is_of_a_kind_that_is_run_somewhere():
    assert len(COMMANDS) >= 8
    assert all(line.startswith(("make ", "python -m minigpt ")) for line in COMMANDS)


def test_the_files_on_the_map_exist():
    paths = re.findall(r"`((?:minigpt|tests|benchmarks|figures)/[\w./]*)`", README)
    assert len(paths) >= 15
    for path in [*paths, *re.findall(r"\]\((figures/[^)]*)\)", README)]:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("word", ["DEMO_OUTPUT", "BENCH_OUTPUT", "TODO"])
def test_nothing_was_left_to_fill_in(word):
    assert word not in README


def test_the_bank_is_as_large_as_it_says():
    from tests.test_gradcheck import BANK

    stated = int(re.search(r"- (\d+) plausible wrong derivatives", README)[1])
    assert len(BANK) == stated
