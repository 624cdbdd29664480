"""Models from huggingface.co, of which a server of our own on this machine takes the part."""

import hashlib
import json
import re
import shutil
import sys
import threading
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from minigpt import hub
from minigpt.__main__ import main
from minigpt.backend import to_numpy
from minigpt.checkpoint import load_checkpoint
from minigpt.gpt2 import write_gpt2
from minigpt.model import GPTConfig
from minigpt.tokenizer import save, train_bpe
from minigpt.tokenizer.gpt2_vocabulary import SHA256, _wheel_folder
from tests.test_gpt2_checkpoint import INDEX, WEIGHTS, make, shard

NAME, COMMIT, LATER = "some.body/tiny-gpt2", "0123456789abcdef" * 2 + "01234567", "fedcba98" * 5
CONFIG = GPTConfig(vocab_size=260, block_size=5, n_layer=2, n_head=3, n_embd=6)
IDX = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 259]]
LIST, FILES = f"/api/models/{NAME}/revision", f"/{NAME}/resolve/{COMMIT}"


def git(content):
    """Git's name of a file, as `git hash-object` prints it."""
    return hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()


class Site(ThreadingHTTPServer):
    """files: what is handed out, by name. listed: what the list says, where not that. status: of
    the answer, by path. commit: what main means."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.listed, self.status = {}, {}, {}
        self.commit, self.list, self.asked = COMMIT, None, []

    def entries(self):
        for name, content in {**self.files, **self.listed}.items():
            entry = {"rfilename": name, "size": len(content), "blobId": git(content)}
            if name.endswith(".safetensors"):  # large: git has a pointer in its place
                sha256 = hashlib.sha256(content).hexdigest()
                lfs = {"size": len(content), "sha256": sha256, "pointerSize": 134}
                entry |= {"blobId": git(b"a pointer"), "lfs": lfs}
            yield entry

    def answer(self, path):
        """Status and content."""
        known = self.commit if path == f"{LIST}/main?blobs=true" else COMMIT
        if path in (f"{LIST}/main?blobs=true", f"{LIST}/{COMMIT}?blobs=true"):
            fields = {"id": NAME, "sha": known, "siblings": [*self.entries()]}
            return 200, json.dumps(fields).encode() if self.list is None else self.list
        name = path.rsplit("/", 1)[1]
        if path.startswith(f"/{NAME}/resolve/") and name in self.files:
            return 302, f"/elsewhere/{name}".encode()  # as the site does, to another server
        if path.startswith("/elsewhere/"):
            return 200, self.files[name]
        return 404, b"no such thing"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.path.startswith("/elsewhere"):
            self.server.asked.append(self.path)
        status, content = self.server.answer(self.path)
        status = self.server.status.get(self.path, status)
        self.send_response(200 if status == "cut" else status)
        if status == 302:
            self.send_header("Location", content.decode())
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if status == "cut" else content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def bpe():
    return train_bpe("the cat sat on the mat, the rat sat on the cat. " * 20, 260)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The server; the working folder and the cache are empty."""
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(hub, "SITE", f"http://127.0.0.1:{site.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield site
    site.shutdown()
    site.server_close()
    thread.join()


@pytest.fixture(scope="module")
def publish(tmp_path_factory, bpe):
    """A function that writes a model, or another one by seed; it, and the files by name."""

    @cache
    def write(sharded, tokenizer, seed):
        model, folder = make(CONFIG, seed=seed), tmp_path_factory.mktemp("published") / "model"
        write_gpt2(model, folder)
        save(bpe, folder)
        for name in {"tokenizer.json", *hub._PAIR} - {*tokenizer}:
            (folder / name).unlink()
        if sharded:
            shard(folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return model, files | {"README.md": b"# A card", "pytorch_model.bin": b"\x80\x02not read"}

    def publish(sharded=False, tokenizer=("tokenizer.json",), seed=0):
        model, files = write(sharded, tokenizer, seed)
        return model, dict(files)

    return publish


@pytest.fixture
def tiny(site, publish):
    """The model that the site has."""
    model, site.files = publish()
    return model


def logits(model):
    return to_numpy(model(IDX).data)


def imported(text, capsys):
    """What `import` prints, and the logits of the checkpoint that it made."""
    assert main(["import", text, "--out", "out.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    made = load_checkpoint("out.safetensors")
    return out, made.tokenizer, logits(made.model)


def refused(text, capsys, tmp_path):
    """The one line of an import that fails; it leaves nothing that looks whole."""
    assert main(["import", text, "--out", "out.safetensors"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minigpt: error: ")
    assert err.count("\n") == 1
    assert not [*tmp_path.rglob("*.safetensors")]
    assert not [*tmp_path.rglob("tmp*")]
    return err


def kept(tmp_path, commit=COMMIT):
    folder = tmp_path / "cache/models" / f"some.body--tiny-gpt2@{commit}"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- models that are there --------------------------------------------------------------------


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "several"])
@pytest.mark.parametrize("tokenizer", [("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_a_model_is_fetched_once(site, tmp_path, bpe, publish, capsys, sharded, tokenizer):
    model, site.files = publish(sharded, tokenizer)
    out, its, found = imported(NAME, capsys)
    assert (found == logits(model)).all()
    assert its.encode("the cat sat").tolist() == bpe.encode("the cat sat").tolist()
    assert f"some.body--tiny-gpt2@{COMMIT}\n" in out
    weights = [INDEX, "model-0.safetensors", "model-1.safetensors"] if sharded else [WEIGHTS]
    needed = ["config.json", *tokenizer, *weights]
    assert kept(tmp_path) == {name: site.files[name] for name in needed}
    assert site.asked == [f"{LIST}/main?blobs=true", *(f"{FILES}/{name}" for name in needed)]
    site.asked.clear()
    assert (imported(NAME, capsys)[2] == found).all()
    assert site.asked == [f"{LIST}/main?blobs=true"]


def test_of_a_commit_even_the_list_is_asked_for_once(site, tiny, capsys, tmp_path):
    imported(f"{NAME}@{COMMIT}", capsys)
    site.shutdown()
    assert (imported(f"{NAME}@{COMMIT}", capsys)[2] == logits(tiny)).all()
    assert len(site.asked) == 4


def test_a_branch_that_moved_is_fetched_into_a_folder_of_its_own(
    site, tiny, tmp_path, publish, capsys
):
    first = imported(NAME, capsys)[2]
    later, site.files = publish(seed=1)
    site.commit = LATER
    second = imported(f"{NAME}@main", capsys)[2]
    assert (first == logits(tiny)).all()
    assert (second == logits(later)).all()
    assert (first != second).any()
    assert kept(tmp_path).keys() == kept(tmp_path, LATER).keys()
    assert f"/{NAME}/resolve/{LATER}/{WEIGHTS}" in site.asked


@pytest.mark.parametrize("text", [NAME, "gpt2", "openai-community/gpt2", f"{NAME}@main"])
def test_a_path_that_exists_wins_over_a_name(site, tiny, tmp_path, bpe, capsys, text):
    other = make(CONFIG, seed=2)
    write_gpt2(other, tmp_path / "here" / text)
    save(bpe, tmp_path / "here" / text)
    assert (imported(text, capsys)[2] == logits(other)).all()
    assert site.asked == []


@pytest.mark.parametrize("text", ["gpt2", "openai-community/gpt2"])
def test_gpt2_is_known_and_its_list_is_not_asked_for(site, publish, capsys, monkeypatch, text):
    model, site.files = publish(tokenizer=("vocab.json", "merges.txt"))
    hashes = {
        name: hub.File(len(site.files[name]), hashlib.sha256(site.files[name]).hexdigest())
        for name in hub.GPT2.files
    }
    small = replace(hub.GPT2, name=NAME, commit=COMMIT, files=hashes)
    monkeypatch.setitem(hub.KNOWN, text, small)
    assert (imported(text, capsys)[2] == logits(model)).all()
    assert site.asked == [f"{FILES}/{n}" for n in ("config.json", *hub._PAIR, WEIGHTS)]
    site.shutdown()
    assert (imported(text, capsys)[2] == logits(model)).all()
    assert len(site.asked) == 4


def test_what_is_known_of_gpt2():
    files = hub.GPT2.files
    assert hub.KNOWN == {"gpt2": hub.GPT2, "openai-community/gpt2": hub.GPT2}
    assert hub.GPT2.commit == "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    assert all(re.fullmatch("[0-9a-f]{64}", file.digest) for file in files.values())
    assert (files["vocab.json"].digest, files["merges.txt"].digest) == SHA256
    numbers = 124_439_808 + 12 * 1024**2  # parameters, and a causal mask in each layer
    assert 0 < files[WEIGHTS].size - 4 * numbers < 20_000  # the header
    assert f"{files[WEIGHTS].size:,} bytes" in hub.__doc__
    for name, theirs in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        files[name].check(_wheel_folder() / theirs)


# --- names and paths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["gpt3", "./a/b", "../a", "a/../b", "a/b/c", "/a/b", "a/b@", "a/b@x/y", "@main", "a b/c",
     "a/bé", "models/tiny.safetensors", "http://a/b", "a/b?c", "a/b#c", "a/b%2e", "a/..", ".a/b",
     "a/b\x00"],
)  # fmt: skip
def test_what_is_neither_a_path_nor_a_name(site, capsys, tmp_path, text):
    error = refused(text, capsys, tmp_path)
    assert f"cannot read {text}: there is no such file or folder, nor is it a model of" in error
    assert "gpt2, OWNER/NAME or OWNER/NAME@REVISION" in error
    assert site.asked == []


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_model_that_is_not_there(site, tiny, capsys, tmp_path, status):
    site.status[f"{LIST}/main?blobs=true"] = status
    error = refused(NAME, capsys, tmp_path)
    assert f"{NAME}: there is no such file or folder, and {hub.SITE} shows no model" in error
    assert f"status {status}" in error
    assert "at none" in refused(f"{NAME}@none", capsys, tmp_path)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_gated_model(site, tiny, capsys, tmp_path, name, status):
    site.status[f"{FILES}/{name}"] = status
    error = refused(NAME, capsys, tmp_path)
    assert f"{FILES}/{name}: the site hands it only to members who agreed to its terms" in error


@pytest.mark.parametrize(
    ("path", "status"),
    [(f"{FILES}/{WEIGHTS}", 404), (f"{FILES}/config.json", 500), (f"{LIST}/main?blobs=true", 429)],
)
def test_other_answers(site, tiny, capsys, tmp_path, path, status):
    site.status[path] = status
    error = refused(NAME, capsys, tmp_path)
    assert f"no whole answer (status {status}). It needs the internet; a folder" in error


@pytest.mark.parametrize("known", [False, True], ids=["listed", "known"])
@pytest.mark.parametrize("name", [WEIGHTS, "vocab.json"])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[:-1] + b"\0", "differs"),
        (lambda content: content[:-1], r"it has [\d,]+ bytes, and should have [\d,]+"),
        (lambda content: b"<html>Sign in</html>", "it has 20 bytes, and should have"),
    ],
)
def test_another_file_than_named(
    site, tmp_path, publish, capsys, monkeypatch, spoil, reason, name, known
):
    _, site.files = publish(tokenizer=("vocab.json", "merges.txt"))
    site.listed = dict(site.files)
    if known:
        hashes = {
            n: hub.File(len(content), hashlib.sha256(content).hexdigest())
            for n, content in site.files.items()
        }
        monkeypatch.setitem(hub.KNOWN, NAME, hub.Snapshot(NAME, COMMIT, hashes))
    site.files[name] = spoil(site.files[name])
    error = refused(NAME, capsys, tmp_path)
    assert re.search(f"{name} into .* what came is not the expected file: .*{reason}", error)
    assert name not in kept(tmp_path)


@pytest.mark.parametrize("path", [f"{LIST}/main?blobs=true", f"/elsewhere/{WEIGHTS}"])
def test_a_connection_that_breaks_off(site, tiny, capsys, tmp_path, path):
    site.status[path] = "cut"
    assert "no whole answer (" in refused(NAME, capsys, tmp_path)


def test_a_download_that_is_stopped(site, tiny, capsys, tmp_path, monkeypatch):
    def stop(self, url, path, _):
        Path(path).write_bytes(site.files[WEIGHTS][:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", stop)
    assert main(["import", NAME, "--out", "out.safetensors"]) == 130
    assert {path.name for path in tmp_path.rglob("*")} == {"here", "cache", "models"}


def test_no_network(site, capsys, tmp_path):
    site.shutdown()
    site.server_close()
    for text in (NAME, f"{NAME}@{COMMIT}", "gpt2"):
        error = refused(text, capsys, tmp_path)
        assert "no whole answer (ConnectionError). It needs the internet; a folder that" in error


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>Sign in</html>", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b"{}", "it is no list"),
        (b'{"sha": "main", "siblings": []}', "it is no list"),
        ({"siblings": 3}, "it is no list"),
        ({"sha": "../" * 13 + "a"}, "it is no list"),
        ({"siblings": ["config.json"]}, "has the entry config.json"),
        ({"siblings": [{"rfilename": 3}]}, "has the entry {'rfilename': 3}"),
        ({"siblings": [{"rfilename": WEIGHTS}]}, "has the entry"),
        ({"siblings": [{"rfilename": WEIGHTS, "size": "1", "blobId": "0" * 40}]}, "has the entry"),
        ({"siblings": [{"rfilename": WEIGHTS, "size": 1, "blobId": "0" * 39}]}, "has the entry"),
        ({"siblings": [{"rfilename": WEIGHTS, "size": 1, "lfs": 3}]}, "has the entry"),
    ],
)
def test_a_list_that_is_none(site, tiny, capsys, tmp_path, answer, reason):
    fields = {"sha": COMMIT, "siblings": []}
    site.list = answer if isinstance(answer, bytes) else json.dumps(fields | answer).encode()
    assert reason in refused(NAME, capsys, tmp_path)
    assert [*(tmp_path / "cache/models").iterdir()] == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("../model.safetensors", "must be an object of file names, all .safetensors in the"),
        ("/model.safetensors", "must be an object of file names, all .safetensors in the"),
        ("..", "must be an object of file names, all .safetensors in the"),
        ("config.json", "must be an object of file names, all .safetensors in the"),
        ("not\nlisted.safetensors", r"has no 'not\nlisted.safetensors' at"),
    ],
)
def test_an_index_that_names_other_files(site, tmp_path, publish, capsys, file, reason):
    _, site.files = publish(sharded=True)
    site.files["../model.safetensors"] = site.files["/model.safetensors"] = b"listed, but outside"
    fields = json.loads(site.files[INDEX])
    fields["weight_map"] |= {"wte.weight": file}
    site.files[INDEX] = json.dumps(fields).encode()
    before = {*tmp_path.iterdir()}
    assert reason in refused(NAME, capsys, tmp_path)
    assert {*tmp_path.iterdir()} - before == {tmp_path / "cache"}
    assert kept(tmp_path).keys() == {"config.json", "tokenizer.json", INDEX}


def test_pickles_are_not_read(site, tiny, capsys, tmp_path):
    del site.files[WEIGHTS]
    error = refused(NAME, capsys, tmp_path)
    assert f"has no {WEIGHTS} at {COMMIT}; pickles (pytorch_model.bin) are not read" in error
    assert site.asked == [f"{LIST}/main?blobs=true"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "has no 'config.json' at"),
        (b'{"model_type": "llama\\n"}', r"is of type 'llama\n', not 'gpt2'"),
        (b"{", "config.json: not valid JSON"),
    ],
)
def test_what_is_no_gpt2_is_refused_before_its_weights_come(
    site, tiny, capsys, tmp_path, config, reason
):
    site.files["config.json"] = config
    if config is None:
        del site.files["config.json"]
    assert reason in refused(NAME, capsys, tmp_path)
    assert f"{FILES}/{WEIGHTS}" not in site.asked


# --- the cache --------------------------------------------------------------------------------


def kept_file(tmp_path, name):
    return tmp_path / "cache/models" / f"some.body--tiny-gpt2@{COMMIT}" / name


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_kept_file_that_was_spoilt_is_fetched_again(site, tiny, capsys, tmp_path, name):
    imported(NAME, capsys)
    whole = kept_file(tmp_path, name).read_bytes()
    for spoilt in (whole[:-1], whole[:-1] + b"?", b""):
        kept_file(tmp_path, name).write_bytes(spoilt)
        site.asked.clear()
        assert (imported(NAME, capsys)[2] == logits(tiny)).all()
        assert site.asked == [f"{LIST}/main?blobs=true", f"{FILES}/{name}"]


def test_of_a_large_kept_file_only_the_size_is_looked_at(site, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_LARGE", len(site.files[WEIGHTS]))
    imported(NAME, capsys)
    whole = kept_file(tmp_path, WEIGHTS).read_bytes()
    kept_file(tmp_path, WEIGHTS).write_bytes(whole[:-4] + b"\0\0\0\0")
    site.asked.clear()
    imported(NAME, capsys)
    assert site.asked == [f"{LIST}/main?blobs=true"]
    kept_file(tmp_path, WEIGHTS).write_bytes(whole[:-4])
    imported(NAME, capsys)
    assert kept_file(tmp_path, WEIGHTS).read_bytes() == whole


def test_a_kept_list_that_was_spoilt_is_asked_for_again(site, tiny, capsys, tmp_path):
    imported(f"{NAME}@{COMMIT}", capsys)
    (place,) = (tmp_path / "cache/models").glob("*.json")
    whole = place.read_bytes()
    place.write_bytes(whole[:-9])
    site.asked.clear()
    imported(f"{NAME}@{COMMIT}", capsys)
    assert site.asked == [f"{LIST}/{COMMIT}?blobs=true"]
    assert place.read_bytes() == whole


def test_a_cache_that_cannot_be_written(site, tiny, capsys, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert "cache" in refused(NAME, capsys, tmp_path)


# --- what is shown, and git's names -----------------------------------------------------------


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_for_large_files_where_there_is_a_terminal(
    site, tiny, capsys, tmp_path, monkeypatch, terminal
):
    monkeypatch.setattr(hub, "_LARGE", len(site.files[WEIGHTS]))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert main(["import", NAME, "--out", "out.safetensors"]) == 0
    err = capsys.readouterr().err
    assert err.endswith("\r") if terminal else err == ""
    assert ("model.safetensors:   0%" in err) == terminal
    assert "json" not in err
    site.status[f"/elsewhere/{WEIGHTS}"] = "cut"
    shutil.rmtree(tmp_path / "cache")
    assert main(["import", NAME, "--out", "out.safetensors"]) == 2
    assert capsys.readouterr().err.split("\r")[-1].startswith("minigpt: error: cannot get http")


@pytest.mark.parametrize(
    ("content", "digest"),  # as git hash-object and sha256sum print them
    [
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
        (b"hello\n", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"),
    ],
)
def test_digests_are_those_of_git_and_sha256(tmp_path, content, digest):
    path = tmp_path / "file"
    path.write_bytes(content)
    file = hub.File(len(content), digest)
    file.check(path)
    wrong = replace(file, digest=digest[:-1] + ("1" if digest[-1] == "0" else "0"))
    with pytest.raises(ValueError, match=r"its SHA-(1|256) differs"):
        wrong.check(path)
    wrong.check(path, thorough=False)
