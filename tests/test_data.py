"""Corpora and their split: nothing leaks, nothing is lost, and every machine cuts alike."""

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zlib
from dataclasses import replace
from importlib import metadata
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt import data
from minigpt.__main__ import main
from minigpt.data import corpus as corpus_module
from minigpt.data.corpus import Corpus, Splits, deduplicate, paragraphs, split
from minigpt.tokenizer import build


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


@pytest.fixture(scope="module")
def chinese():
    return data.load("chinese")


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


@pytest.mark.parametrize("name", ["facts", "pydoc", "chinese"])
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
    monkeypatch.setattr(data.facts, "VERSION", "0.1")
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


def test_chinese_is_the_pinned_text_without_code_and_skin_colours(chinese):
    assert len(chinese.documents) == 4506 and chinese.duplicates == 714
    assert chinese.characters == 41_446 and len(set(chinese.text)) == 1833
    assert zlib.crc32(split(chinese).test.encode()) == 626_832_176
    share = sum("\u4e00" <= c <= "\u9fff" for c in chinese.text) / chinese.characters
    assert 0.75 < share < 0.76
    assert not re.search(r"%\d|<a |\{|肤色", chinese.text)
    assert not any(re.search("[:_]", name) for name in chinese.documents[2570:])  # of emoji
    assert {"保存", "红苹果"} <= {*chinese.documents}  # from one wheel, from the other


@pytest.mark.parametrize("package", ["jupyterlab-language-pack-zh-CN", "emoji"])
def test_chinese_needs_both_wheels(package, monkeypatch):
    found = metadata.distribution

    def absent(name):
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ValueError, match=f"'chinese' needs {package} .*pip install {package}=="):
        data.load("chinese")


LIBRARY = {
    "json/__init__.py": '"Module."\nraise SystemExit("was run")\n',
    "ast.py": """
class A:
    'Class.'
    async def f(self):
        TTTMethod,\\d
            indented.TTT
        if True:
            def g():
                'Inner.'
    def f(): 'Class.'
x = 'not a docstring'
def last(): 'Last.'
""".replace("TTT", '"' * 3),
    "test/test_ast.py": "'A test.'",
    "json/tests/x.py": "'A test.'",
    "site-packages/json.py": "'Installed.'",
    "sitecustomize.py": "'Of another.'",
}


def test_docstrings_are_those_of_the_library_alone_and_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(ValueError, match="needs the standard library's .*py files.*'pydoc'"):
        data.load("docstrings")
    for name, content in LIBRARY.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(content, "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the escape in a docstring is no business of the user's
        corpus = data.load("docstrings")
    assert corpus.documents == ("Class.", "Method,\\d\nindented.", "Inner.", "Last.", "Module.")
    assert corpus.duplicates == 1


def test_docstrings_of_this_python(monkeypatch):
    """Of its first modules: all of them take five seconds."""
    modules = data.docstrings._modules
    monkeypatch.setattr(data.docstrings, "_modules", lambda folder: islice(modules(folder), 60))
    corpus = data.load("docstrings")
    assert corpus.characters > 100_000 and len(corpus.documents) > 300
    assert any(document.startswith("Command-line parsing library") for document in corpus.documents)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """No parsing of the whole library, no cache of a user, no tokenizer of 1000 tokens."""
    monkeypatch.setitem(data.LOADERS, "docstrings", lambda: make(3))
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    monkeypatch.setattr("minigpt.commands.data.TOKENIZERS", ("char", "bpe-300"))


def rows(out):
    """name -> the words of its line."""
    return {line.split()[0]: line.split() for line in out.splitlines()[1:]}


def test_the_table_of_all_corpora(quick, facts, pydoc, capsys):
    assert main(["data"]) == 0
    table = rows(capsys.readouterr().out)
    assert [*table] == [*data.LOADERS]
    assert table["facts"][1:] == ["English", "622,769", "7,193", "0", "MIT", "ready"]
    assert table["chinese"][1:5] == ["Chinese", "41,446", "4,506", "714"]
    assert table["pydoc"][2] == f"{pydoc.characters:,}"
    assert table["docstrings"][3] == "3"


def test_a_corpus_that_is_not_installed_is_a_line_of_the_table(quick, monkeypatch, capsys):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    assert main(["data"]) == 0
    table = rows(capsys.readouterr().out)
    assert table["facts"][2:] == ["-", "-", "-", "MIT", "pip", "install", "randfacts==0.24.4"]
    assert table["chinese"][6:8] == ["pip", "install"] and table["pydoc"][-1] == "ready"
    assert main(["data", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert not found["facts"]["ready"] and found["facts"]["characters"] is None
    assert found["facts"]["how"] == "pip install randfacts==0.24.4"
    assert found["pydoc"]["ready"] and found["pydoc"]["characters"] > 300_000


def test_the_data_card(quick, facts, capsys):
    assert main(["data", "facts", "--json"]) == 0
    [card] = json.loads(capsys.readouterr().out)
    parts = split(facts)
    assert card["name"] == "facts" and card["language"] == "English" and "MIT" in card["licence"]
    assert card["characters"] == 622_769 and card["bytes"] == len(facts.text.encode())
    assert card["documents"] == 7193 and card["distinct_characters"] == 94
    assert card["splits"]["train"] == {"documents": 6473, "characters": len(parts.train)}
    assert card["splits"]["test"] == {"documents": 360, "characters": len(parts.test)}
    assert len({*card["samples"]}) == 3 and {*card["samples"]} <= {*facts.documents}
    tokens = len(build("bpe-300", parts.train).encode(parts.test))
    assert card["characters_per_token"] == {
        "char": 1.0, "bpe-300": round(len(parts.test) / tokens, 3)
    }  # fmt: skip
    assert main(["data", "facts"]) == 0
    out = capsys.readouterr().out
    for line in (
        "source      PyPI randfacts", "bytes       622,7", "test        360 documents, 30,362 ch",
        "char        1.00 characters a token", f"bpe-300     {len(parts.test) / tokens:.2f} ch",
        f"\n2. {card['samples'][1][:50]}",
    ):  # fmt: skip
        assert line in out


def test_the_card_of_a_text_too_small_to_split(quick, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("one\ntwo", "utf-8")
    assert main(["data", str(tmp_path / "mine.txt")]) == 0
    out = capsys.readouterr().out
    assert "too few to split in three" in out and "1. one" in out
    (tmp_path / "mine.txt").write_text("".join(f"{i}\n" for i in range(40)), "utf-8")
    assert main(["data", str(tmp_path / "mine.txt")]) == 0
    assert re.search(r"^bpe-300 +- \(vocab_size 300 is too large", capsys.readouterr().out, re.M)


def test_a_card_of_what_is_not_there_is_one_line(capsys):
    assert main(["data", "fact"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_readme_lists_the_corpora(facts, chinese):
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    section = readme.split("## Corpora")[1].split("\n## ")[0]
    lines = dict(re.findall(r"^\| `(\w+)` \|(.*)$", section, re.M))
    assert [*lines] == [*data.LOADERS]
    assert all(data.MODULES[name].LICENCE.startswith(line.split("|")[-2].strip())
               for name, line in lines.items())  # fmt: skip
    for corpus in (facts, chinese):  # the others differ between versions of Python
        assert f" {corpus.characters:,} |" in lines[corpus.name]


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
    names = "facts, pydoc, docstrings, chinese, shakespeare, or the path"
    with pytest.raises(ValueError, match=f"no corpus 'fact': expected one of {names}"):
        data.load("fact")


def test_a_stray_blank_line_does_not_make_paragraphs_of_a_list(tmp_path):
    names = [f"name {i}" for i in range(100)]
    (tmp_path / "names.txt").write_text("\n".join([*names[:50], "", *names[50:]]), "utf-8")
    assert data.load(str(tmp_path / "names.txt")).documents == tuple(names)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder: .*nothing"):
        data.text.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caf\xe9 noir".encode("latin-1"), "is not UTF-8 text: .*, byte 0xe9 at position 3"),
        (b"one\r\ntwo\n\n\xe4\xbd", "is not UTF-8 text: .*, byte 0xe4 at position 10"),
        (b"one\ntwo\n\0 ELF", "is not text: it has a zero byte at position 8"),
        ("two\n".encode("utf-16"), "is not UTF-8 text: .*, byte 0xff at position 0|zero byte"),
    ],
)
def test_what_is_not_text_is_named_with_the_place(tmp_path, content, message):
    (tmp_path / "a.txt").write_text("fine", "utf-8")
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(ValueError, match="bad.txt " + message):
        data.load(str(tmp_path))


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def closed(file, mode):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.txt").write_text("fine", "utf-8")
    monkeypatch.setattr(data.text, "open", closed, raising=False)
    with pytest.raises(ValueError, match="cannot read .*secret.txt: Permission denied"):
        data.load(str(tmp_path))


@given(st.text("ab \n\r\t\u3000", max_size=60))
def test_streamed_documents_are_those_of_the_whole_text(content):
    """Against a rule that sees all of the text at once."""
    whole = content.replace("\r\n", "\n").replace("\r", "\n")
    blocks = [block for block in re.split(r"\n\s*\n|\A\s*\n", whole) if block.strip()]
    lines = [line for line in whole.split("\n") if line.strip()]
    expected = blocks if 1 < len(blocks) >= len(lines) / 20 else lines
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.txt")
        file.write_bytes(content.encode())
        if not expected:
            with pytest.raises(ValueError, match="holds no text"):
                data.load(str(file))
            return
        found = [*data.text.stream(file)]
    assert [document.rstrip() for document in found] == [document.rstrip() for document in expected]


def test_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no \\*.txt file with text"):
        data.load(str(tmp_path))
    for content in ("", " \n\n"):
        (tmp_path / "blank.txt").write_text(content, "utf-8")
        with pytest.raises(ValueError, match="blank.txt: it holds no text"):
            data.load(str(tmp_path / "blank.txt"))
