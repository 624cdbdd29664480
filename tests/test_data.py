"""Corpora and their split: nothing leaks, nothing is lost, and every machine cuts alike."""

import os
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from minigpt import data
from minigpt.data import corpus as corpus_module
from minigpt.data.corpus import Corpus, Splits, deduplicate, paragraphs, split


def make(n):
    """A corpus of n distinct one-line documents."""
    return Corpus("made", tuple(f"document {i}" for i in range(n)), "here", "none", 0)


def plain(text):
    """Written apart from the package's own rule for equal documents."""
    return re.sub(r"\s+", " ", text.strip()).lower()


def run_python(code, **env):
    """What `code` prints in a fresh interpreter that finds this package."""
    env = {**os.environ, "PYTHONPATH": str(Path(corpus_module.__file__).parents[2]), **env}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


@pytest.fixture(scope="module")
def facts():
    return data.load("facts")


@pytest.fixture(scope="module")
def pydoc():
    return data.load("pydoc")


# --- de-duplication ---------------------------------------------------------------------------


def test_deduplicate_ignores_case_and_white_space_and_keeps_the_first():
    kept, removed = deduplicate(["One  two", "three", "one two", " ONE\n\ttwo ", "Three", "onetwo"])
    assert kept == ("One  two", "three", "onetwo") and removed == 3


def test_paragraphs_are_cut_at_blank_lines_and_keep_their_indent():
    assert paragraphs("\n\na\nb\n \t\n    c  \n\n\n\nd\n") == ["a\nb", "    c", "d"]
    assert paragraphs(" \n\n ") == []


# --- split ------------------------------------------------------------------------------------


def test_split_puts_every_document_into_exactly_one_part():
    corpus = make(200)
    parts = split(corpus, val=0.1, test=0.2)
    lines = [part.removesuffix("\n").split("\n") for part in (parts.train, parts.val, parts.test)]
    assert [len(part) for part in lines] == [140, 20, 40]
    assert sorted(sum(lines, [])) == sorted(corpus.documents)
    for part in lines:  # a random choice, in the first order
        numbers = [int(line.split()[1]) for line in part]
        assert numbers == sorted(numbers) and max(numbers) - min(numbers) > len(numbers)


def test_split_is_the_recorded_one():
    assert split(make(12), val=0.2, test=0.2).val == "document 6\ndocument 10\n"
    assert split(make(3)) == Splits("document 2\n", "document 0\n", "document 1\n")


@pytest.mark.parametrize("name", ["facts", "pydoc"])
def test_no_held_out_document_occurs_in_train(name, request):
    corpus = request.getfixturevalue(name)
    # On one line each, the documents can be told apart in the parts.
    lines = tuple(document.replace("\n", " ") for document in corpus.documents)
    parts = split(replace(corpus, documents=lines))
    train, val, test = (
        part.removesuffix("\n").split("\n") for part in (parts.train, parts.val, parts.test)
    )
    assert len(train) + len(val) + len(test) == len(lines)
    assert min(len(val), len(test)) > 0.04 * len(lines)
    seen = {plain(line) for line in train}
    assert not any(plain(line) in seen for line in val + test)
    assert not {plain(line) for line in val} & {plain(line) for line in test}
    assert len(parts.train + parts.val + parts.test) == corpus.characters


def test_split_is_the_same_whatever_the_hash_seed(pydoc):
    code = (
        "import zlib; from minigpt import data; s = data.split(data.load('pydoc'));"
        "print(*(zlib.crc32(t.encode()) for t in (s.train, s.val, s.test)))"
    )
    parts = split(pydoc)
    expected = [zlib.crc32(t.encode()) for t in (parts.train, parts.val, parts.test)]
    for seed in ("1", "2"):
        assert [int(word) for word in run_python(code, PYTHONHASHSEED=seed).split()] == expected


@pytest.mark.parametrize("n", [0, 1, 2])
def test_split_refuses_too_few_documents(n):
    with pytest.raises(ValueError, match=f"'made' has {n} documents .*too few"):
        split(make(n))


def test_split_refuses_to_leave_train_empty():
    with pytest.raises(ValueError, match="'made' has 4 documents .*too few"):
        split(make(4), val=0.45, test=0.45)


@pytest.mark.parametrize(
    ("val", "test"), [(0, 0.1), (0.1, 0), (0.5, 0.5), (-0.1, 0.1), (float("nan"), 0.1)]
)
def test_split_refuses_fractions_that_leave_a_part_out(val, test):
    with pytest.raises(ValueError, match="positive and sum to less than 1"):
        split(make(100), val=val, test=test)


# --- the corpora ------------------------------------------------------------------------------


def test_facts_are_the_pinned_text(facts):
    assert len(facts.documents) == 7193 and facts.duplicates == 0
    assert facts.characters == 622_769 and len(set(facts.text)) == 94
    parts = split(facts)
    assert [len(parts.train), len(parts.val), len(parts.test)] == [561_775, 30_632, 30_362]
    assert zlib.crc32(parts.test.encode()) == 3_510_431_038


def test_card_states_origin_and_sizes(facts):
    for part in ("facts", "randfacts 0.24.4", "MIT", "7,193 (0 dup", "622,769 (94 distinct)"):
        assert part in facts.card()
    made = Corpus("made", ("ab", "c"), "here", "none", 12)
    assert made.text == "ab\nc\n" and made.characters == 5
    assert "2 (12 duplicates removed)" in made.card() and "5 (4 distinct)" in made.card()


def test_facts_without_the_wheel_says_what_to_do(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ValueError, match="pip install randfacts==0.24.4, or use .* 'pydoc'"):
        data.load("facts")


def test_facts_refuses_another_release(monkeypatch):
    monkeypatch.setattr("minigpt.data.facts.VERSION", "0.1")
    with pytest.raises(ValueError, match="needs randfacts 0.1, but 0.24.4 is installed"):
        data.load("facts")


def test_pydoc_is_large_and_had_duplicates(pydoc):
    assert pydoc.characters > 300_000 and len(pydoc.documents) > 1_500
    assert pydoc.duplicates > 0.1 * len(pydoc.documents)
    assert not any(document.strip() == "" for document in pydoc.documents)


def test_importing_data_loads_no_corpus_and_loading_facts_runs_no_foreign_code():
    code = (
        "import sys; from minigpt import data; print('pydoc_data' in sys.modules);"
        "data.load('facts'); print('randfacts' in sys.modules)"
    )
    assert run_python(code).split() == ["False", "False"]


# --- your own text ----------------------------------------------------------------------------


def test_a_file_of_paragraphs(tmp_path):
    file = tmp_path / "poem.txt"
    file.write_bytes("\ufeffone\r\ntwo\r\n\r\nthrée\r\n\r\nONE two\r\n".encode())
    corpus = data.load(str(file))
    assert corpus.documents == ("one\ntwo", "thrée") and corpus.duplicates == 1
    assert corpus.name == "poem.txt" and corpus.source == str(file)


def test_a_file_of_lines(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("emma\nolivia\nava\nEmma\n\n", "utf-8")
    assert data.load(str(file)).documents == ("emma", "olivia", "ava")


def test_a_folder_is_every_text_file_below_it_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "odd.txt").mkdir()
    (tmp_path / "c.txt").write_text("five\nsix", "utf-8")
    (tmp_path / "b" / "z.txt").write_text("three\n\nfour", "utf-8")
    (tmp_path / "a.txt").write_text("one\ntwo", "utf-8")
    (tmp_path / "a.md").write_text("never", "utf-8")
    assert data.load(str(tmp_path)).documents == ("one", "two", "three", "four", "five", "six")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no corpus 'fact': expected one of facts, pydoc, or"):
        data.load("fact")


def test_a_stray_blank_line_does_not_make_paragraphs_of_a_list(tmp_path):
    names = [f"name {i}" for i in range(100)]
    (tmp_path / "names.txt").write_text("\n".join([*names[:50], "", *names[50:]]), "utf-8")
    assert data.load(str(tmp_path / "names.txt")).documents == tuple(names)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder: .*nothing"):
        data.text.load(tmp_path / "nothing")


def test_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "good.txt").write_text("fine", "utf-8")
    (tmp_path / "latin.txt").write_bytes("caf\xe9 noir".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.txt is not UTF-8"):
        data.load(str(tmp_path))


def test_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no \\*.txt file with text"):
        data.load(str(tmp_path))
    (tmp_path / "blank.txt").write_text(" \n\n", "utf-8")
    with pytest.raises(ValueError, match="blank.txt: it holds no text"):
        data.load(str(tmp_path / "blank.txt"))
