"""The downloaded corpus, from a server of our own on this machine: checked, whole, and kept."""

import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pooch
import pytest

from minigpt import data
from minigpt.__main__ import main
from minigpt.data import shakespeare

# A stand-in: these tests must not need the real file.
TEXT = "".join(f"SPEAKER {i % 7}:\nMy {i}th line,\nand no other.\n\n" for i in range(2000)).encode()


class Handler(BaseHTTPRequestHandler):
    """/good: the file. /wrong: another. /cut: half of it, and the connection closes."""

    def do_GET(self):
        self.server.requests.append(self.path)
        self.send_response(404 if self.path == "/gone" else 200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        body = {"/wrong": TEXT[::-1], "/cut": TEXT[: len(TEXT) // 2]}.get(self.path, TEXT)
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(shakespeare, "HASH", hashlib.sha256(TEXT).hexdigest())
    return tmp_path / "cache"


@pytest.fixture
def serve(server, cache, monkeypatch):
    """Make the loader look for its file at a path of the server."""

    def serve(path):
        url = f"http://127.0.0.1:{server.server_port}{path}"
        monkeypatch.setattr(shakespeare, "URL", url)

    return serve


def left_in(cache):
    return [path.name for path in cache.rglob("*")]


def test_the_file_is_fetched_once_and_then_needs_no_network(serve, server, cache):
    serve("/good")
    assert not shakespeare.cached()
    corpus = data.load("shakespeare")
    assert corpus.documents[1] == "SPEAKER 1:\nMy 1th line,\nand no other."
    assert len(corpus.documents) == 2000 and corpus.licence == "public domain"
    assert left_in(cache) == ["tinyshakespeare.txt"]
    assert shakespeare.cached()
    server.shutdown()
    serve("/gone")
    assert data.load("shakespeare").documents == corpus.documents
    assert server.requests == ["/good"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/wrong", "what came is not the expected file"),
        ("/cut", "no whole answer"),
        ("/gone", "no whole answer"),
    ],
)
def test_what_is_not_the_whole_file_is_refused_and_not_kept(
    serve, cache, path, reason, capsys, monkeypatch
):
    for handler in pooch.get_logger().handlers:  # what pooch would say, to where capsys listens
        monkeypatch.setattr(handler, "stream", sys.stderr)
    pooch.get_logger().setLevel("INFO")
    serve(path)
    with pytest.raises(ValueError, match=reason):
        data.load("shakespeare")
    assert left_in(cache) == []
    assert main(["data", "shakespeare"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "needs the internet once" in error


def test_no_server_is_one_line(server, cache, monkeypatch):
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(shakespeare, "URL", f"http://127.0.0.1:{server.server_port}/good")
    with pytest.raises(ValueError, match=r"cannot get http://127.0.0.1:.*no whole answer .Conn"):
        data.load("shakespeare")
    assert left_in(cache) == []


def test_a_spoiled_copy_is_not_used_but_fetched_again(serve, server, cache):
    cache.mkdir()
    (cache / "tinyshakespeare.txt").write_bytes(TEXT[:-1])
    assert not shakespeare.cached()
    serve("/good")
    assert len(data.load("shakespeare").documents) == 2000
    assert (cache / "tinyshakespeare.txt").read_bytes() == TEXT


def test_a_cache_that_cannot_be_written(serve, cache, monkeypatch):
    cache.write_text("a file where the folder should be")
    serve("/good")
    with pytest.raises(ValueError, match="cannot get .* into .*cache: "):
        data.load("shakespeare")


def test_the_cache_is_the_users_unless_told_otherwise(cache, monkeypatch):
    assert shakespeare.path() == cache / "tinyshakespeare.txt"
    monkeypatch.delenv("MINIGPT_DATA")
    assert shakespeare.path().parent == pooch.os_cache("minigpt")


def test_the_table_downloads_nothing(serve, server, cache, capsys, monkeypatch):
    made = data.Corpus("docstrings", ("made",), "here", "none", 0)
    monkeypatch.setitem(data.LOADERS, "docstrings", lambda: made)
    serve("/good")
    assert main(["data"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[:5] == ["shakespeare", "English", "-", "-", "-"]
    assert "downloads 1.1 MB" in line and server.requests == []
    data.load("shakespeare")
    assert main(["data"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "ready"
