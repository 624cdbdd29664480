"""`python -m minigpt explain`: the table, the page that stands alone, the figure, and bad input."""

import base64
import math
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context

from minigpt.__main__ import main
from minigpt.backend import xp
from minigpt.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minigpt.interpret import maps
from minigpt.interpret.explain import explain
from minigpt.interpret.figure import as_figure, drawable
from minigpt.interpret.maps import attention_map, detail_of, largest_of_blocks, png
from minigpt.interpret.page import as_page
from minigpt.interpret.reading import distance, entropy
from minigpt.interpret.text import percent
from minigpt.model import GPT, GPTConfig
from minigpt.tensor import no_grad
from minigpt.tokenizer import CharTokenizer, train_bpe
from tests.test_report import tags

CHARS = "abcdefghijklmnopqrstuvwxyzS <>&\"'/();1\n\\$%中"
L, H, BLOCK = 2, 3, 24
TEXT = "hall <b>&'"  # a tied embedding guesses the token itself, and is right of "ll"


def save(path, tokenizer=None, block_size=BLOCK, **shape):
    tokenizer = tokenizer or CharTokenizer(CHARS)
    rng = np.random.default_rng(0)
    shape = {"n_layer": L, "n_head": H, "n_embd": 12} | shape
    model = GPT(GPTConfig(tokenizer.vocab_size, block_size, **shape), rng)
    for p in model.parameters():
        p.data += xp.asarray(0.4 * rng.standard_normal(p.shape).astype("float32"))
    save_checkpoint(path, Checkpoint(model, tokenizer))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("runs/a-1/best.safetensors")
    return tmp_path


def expected(text, path="runs/a-1/best.safetensors"):
    """Log-probabilities (T, V) of what comes after each character, and the ids."""
    checkpoint = load_checkpoint(path)
    ids = checkpoint.tokenizer.encode(text)[-checkpoint.model.config.block_size :]
    with no_grad():
        logits = checkpoint.model(ids[None]).numpy()[0].astype(float)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True)), ids


def found_of(text, k=5, path="runs/a-1/best.safetensors"):
    checkpoint = load_checkpoint(path)
    return explain(checkpoint.model, checkpoint.tokenizer, text, k)


def shown(token):
    return {" ": "␣", "\n": r"\n", "\\": r"\\"}.get(CHARS[token], CHARS[token])


# --- the terminal -----------------------------------------------------------------------------


def test_the_table_has_nats_ranks_and_alternatives(capsys):
    assert main(["explain", "--prompt", TEXT, "--alternatives", "3"]) == 0
    out = capsys.readouterr().out
    log_p, ids = expected(TEXT)
    assert out.startswith("runs/a-1/best.safetensors, 10 tokens\n")
    rows = re.findall(r"^ +(\d+)  (\S+) +(\d+\.\d\d) +(\d+)  (.*)$", out, re.M)
    assert [int(row[0]) for row in rows] == list(range(2, 11))
    for t, (_, token, nats, rank, said) in enumerate(rows):
        true = ids[t + 1]
        order = np.argsort(-log_p[t], kind="stable")
        assert token == shown(true)
        assert float(nats) == pytest.approx(-log_p[t, true], abs=0.006)
        assert int(rank) == order.tolist().index(true) + 1
        assert said == "  ".join(f"{shown(i)} {percent(math.exp(log_p[t, i]))}" for i in order[:3])
    assert re.search(r"^ +1  h +- +-  \(nothing", out, re.M)
    mean = -np.mean([log_p[t, ids[t + 1]] for t in range(9)])
    assert float(re.search(r"^ mean +(\S+)$", out, re.M)[1]) == pytest.approx(mean, abs=0.006)
    last = "  ".join(f"{shown(i)} {percent(math.exp(log_p[-1, i]))}"
                     for i in np.argsort(-log_p[-1], kind="stable")[:3])  # fmt: skip
    assert re.search(r"^ next  \? +(.*)$", out, re.M)[1] == last
    assert re.search(r"^  block 2  (.*)$", out, re.M)[1] == last  # the last layer is the model


def test_the_terminal_has_a_row_for_each_layer(capsys):
    main(["explain", "--prompt", "the"])
    out = capsys.readouterr().out
    found = found_of("the")
    rows = re.findall(r"^ *(embedding|block \d)  (.*)$", out, re.M)
    assert [name for name, _ in rows] == ["embedding", "block 1", "block 2"]
    for layer, (_, said) in enumerate(rows):
        log_p = found.trace.lens(layer)[-1]
        best = int(log_p.argmax())
        assert said.split("  ")[0] == f"{shown(best)} {percent(math.exp(log_p[best]))}"


def test_one_token_alone(capsys):
    assert main(["explain", "--prompt", "t"]) == 0
    out = capsys.readouterr().out
    assert "mean" not in out
    assert out.startswith("runs/a-1/best.safetensors, 1 token\n")
    page = read("runs/a-1/explain.html")
    assert "nats each" not in page
    assert page.count("<rect") == L * H
    tags(page)


def test_a_long_text_is_cut_as_in_generation_and_both_say_so(capsys):
    assert main(["explain", "--prompt", "ab" * 8 + "the quick brown fox jumps"]) == 0
    out = capsys.readouterr().out
    assert "24 tokens (the last of 41: more do not fit)" in out
    page = read("runs/a-1/explain.html")
    assert "The text has 41 tokens, and the model sees 24" in page
    wanted = as_page(found_of("he quick brown fox jumps"), "runs/a-1/best.safetensors")
    assert re.sub(r" The text has.*?about these\.", "", page) == wanted


def test_many_tokens_are_capped_and_it_is_said(capsys):
    save("long.safetensors", block_size=200)
    assert main(["explain", "long.safetensors", "--prompt", "a<b" * 60]) == 0
    out = capsys.readouterr().out
    assert "... (140 tokens more, not printed here)" in " ".join(out.split())
    assert len(re.findall(r"^ +\d+  \S+ +\d", out, re.M)) == 40
    page = read("explain.html")
    assert page.count("The last 128 of 180 tokens.") == 2
    tables = re.findall(r"<table.*?</table>", page, re.S)
    assert [table.count("<tr>") for table in tables] == [129, 129]
    assert page.count('class="tok hot"') == 180 + 2  # the text is whole; two are in its legend


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


# --- where it goes ----------------------------------------------------------------------------


def test_the_page_lies_beside_the_checkpoint_or_where_it_is_told(folder, capsys):
    main(["explain", "--prompt", "the"])
    assert "page    runs/a-1/explain.html" in capsys.readouterr().out.replace("\\", "/")
    (folder / "other").mkdir()
    save("other/best.safetensors")
    main(["explain", "other", "--prompt", "the"])
    main(["explain", "--prompt", "the", "--out", "pages/one.html"])
    first, second = (read(path) for path in ("runs/a-1/explain.html", "pages/one.html"))
    assert first == second
    assert read("other/explain.html") != first  # it names another model
    assert {p.name for p in (folder / "runs/a-1").iterdir()} == {"best.safetensors", "explain.html"}


def test_a_figure_has_a_map_for_each_head(folder, capsys):
    save("wide.safetensors", block_size=64)
    for prompt in ("$x$ <b>中\n", "the quick brown fox " * 3, "t"):  # no formula; too long; no lens
        argv = ["explain", "wide.safetensors", "--prompt", prompt, "--out", "maps.svg"]
        assert main(argv) == 0
        content = (folder / "maps.svg").read_bytes()
        svg = ElementTree.fromstring(content)
        images = list(svg.iter("{http://www.w3.org/2000/svg}image"))
        assert len(images) == L * H + 2 * (len(prompt) > 1)  # and the lens with its colours
    assert "figure  maps.svg" in capsys.readouterr().out
    with rc_context(
        {"figure.constrained_layout.use": False, "axes.grid": True, "image.cmap": "hot"}
    ):
        main(argv)  # whatever the user's style
    assert (folder / "maps.svg").read_bytes() == content
    assert main(["explain", "--prompt", "the", "--out", "maps.png"]) == 0
    assert (folder / "maps.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_tokens_in_a_figure_are_no_formulas():
    found = found_of("ab")
    drawn = [as_figure(replace(found, vocabulary=[label] * len(CHARS)), ".svg")
             for label in ("$$", "$x^2$", "x^2")]  # fmt: skip
    sizes = [len(drawing) for drawing in drawn]
    assert sizes[0] < sizes[2] < sizes[1]  # the dollars are drawn


def test_characters_that_the_font_lacks_have_their_code_in_a_figure():
    assert drawable("aé␣…中") == "aé␣…\\u4e2d"


# --- the page ---------------------------------------------------------------------------------


@pytest.fixture
def page():
    return as_page(found_of(TEXT), "runs/a<1>/best.safetensors")


def test_the_page_stands_alone(page):
    names = {tag for tag, _ in tags(page)}
    assert not names & {"script", "link", "img", "iframe", "object", "base", "form", "input"}
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert not any(key.startswith("on") or key in ("src", "srcset", "href")
                   for _, attrs in tags(page) for key in attrs)  # fmt: skip
    assert "prefers-color-scheme: dark" in page


def test_what_the_text_says_is_escaped():
    found = found_of("</title><script>")
    page = as_page(found, "a<b>.safetensors")
    assert "<script" not in page
    assert "What a GPT makes of “&lt;/title&gt;&lt;script&gt;”</title>" in page
    assert "a&lt;b&gt;.safetensors" in page
    tags(page)
    labels = [f"\"'<i>&{i}" for i in range(len(CHARS))]  # in every place where a token is named
    page = as_page(replace(found, vocabulary=labels), "")
    assert "<i>" not in page
    assert not any("i>" in key for _, attrs in tags(page) for key in attrs)
    assert all("&quot;&#x27;&lt;i&gt;&amp;" in part for part in page.split("<h2>")[1:])


def test_a_line_ends_where_the_text_has_it():
    assert as_page(found_of("a\nb\n"), "").count("<br/>") == 2
    assert as_page(found_of("a\\nb"), "").count("<br/>") == 0


class Texts(HTMLParser):
    """(tag, class, title, text) of each element that has a title attribute or is an SVG title."""

    def __init__(self):
        super().__init__()
        self.found, self.stack = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "meta":
            return
        self.stack.append([tag, dict(attrs), ""])

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        for entry in self.stack:
            entry[2] += data

    def handle_endtag(self, tag):
        self.found.append(tuple(self.stack.pop()))


def elements(page, name, kind=""):
    parser = Texts()
    parser.feed(page)
    return [(attrs, text) for tag, attrs, text in parser.found
            if tag == name and kind in attrs.get("class", "").split() + [""]]  # fmt: skip


def test_every_token_tells_its_numbers(page):
    log_p, ids = expected(TEXT)
    chips = [(attrs, text) for attrs, text in elements(page, "span", "hot") if "title" in attrs]
    assert [text for _, text in chips] == [shown(i) for i in ids]
    for t, (attrs, text) in enumerate(chips):
        if t == 0:
            assert attrs["title"] == f"1 {text}: nothing was seen before it"
            continue
        nats = -log_p[t - 1, ids[t]]
        rank = 1 + (log_p[t - 1] > log_p[t - 1, ids[t]]).sum()
        assert attrs["title"].startswith(f"{t + 1} {text}: {nats:.2f} nats, rank {rank}. Likeliest")
        level = float(attrs["style"].removeprefix("--p:"))
        assert level == pytest.approx(min(nats / 6, 1), abs=0.006)
    mean = np.mean([-log_p[t, ids[t + 1]] for t in range(len(ids) - 1)])
    assert f"9 tokens at {mean:.3f} nats each" in page
    assert f"evenly would cost {math.log(len(CHARS)):.3f}" in page


def test_the_next_token_has_bars_that_are_its_probabilities(page):
    log_p, _ = expected(TEXT)
    order = np.argsort(-log_p[-1], kind="stable")[:5]
    widths = [float(w) for w in re.findall(r'<div style="width:([\d.]+)%">', page)]
    assert widths == pytest.approx(100 * np.exp(log_p[-1][order]), abs=0.051)
    rest = 1 - np.exp(log_p[-1][order]).sum()
    assert f"All other tokens together: {percent(rest)}." in page
    assert "All other" not in as_page(found_of(TEXT, 100), "")


def test_every_cell_of_the_lens_tells_its_numbers(page):
    found = found_of(TEXT)
    ids, T = found.trace.idx, len(TEXT)
    cells = elements(page, "td", "cell")
    assert len(cells) == T * (L + 1)
    rights = 0
    for n, (attrs, text) in enumerate(cells):
        t, layer = divmod(n, L + 1)
        log_p = found.trace.lens(layer)[t]
        best = int(log_p.argmax())
        assert text.startswith(shown(best))
        assert float(attrs["style"][4:]) == pytest.approx(math.exp(log_p[best]), abs=0.006)
        right = t + 1 < T and best == ids[t + 1]
        assert ("right" in attrs["class"].split()) == ("✓" in text) == right
        rights += right
        assert percent(math.exp(log_p[best])) in text
        assert (f", {-log_p[ids[t + 1]]:.2f} nats" in attrs["title"]) if t + 1 < T else True
    assert rights
    means = re.search(r'<tr class="mean">(.*?)</tr>', page, re.S)[1]
    nats = [f"{-found.trace.lens(layer)[np.arange(T - 1), ids[1:]].mean():.2f}"
            for layer in range(L + 1)]  # fmt: skip
    assert re.findall(r"<td>(\d+\.\d\d)</td>", means) == nats


def test_the_right_guess_is_marked_in_the_table(page):
    log_p, ids = expected(TEXT)
    alternatives, rights = elements(page, "span", "alt"), 0
    assert len(alternatives) == 5 * (len(ids) - 1)
    for n, (attrs, _) in enumerate(alternatives):
        t, place = divmod(n, 5)
        guess = np.argsort(-log_p[t], kind="stable")[place]
        assert ("right" in attrs["class"].split()) == (guess == ids[t + 1])
        rights += guess == ids[t + 1]
    assert rights


def test_every_head_has_its_map_and_its_numbers(page):
    att = found_of(TEXT).trace.att
    assert page.count('<svg class="map"') == page.count('tabindex="0"') == L * H
    captions = [text for _, text in elements(page, "figcaption")]
    far, wide = distance(att).reshape(-1), entropy(att).reshape(-1)
    assert captions == [
        f"head {n % H + 1} looks {far[n]:.1f} tokens back, entropy {wide[n]:.2f} nats"
        for n in range(L * H)
    ]
    assert "Point at a cell" in page
    for n, svg in enumerate(page.split('<svg class="map"')[1:]):
        weights = [float(w) for w in re.findall(r": ([\d.]+)</title>", svg)]
        wanted = att.reshape(L * H, *att.shape[2:])[n]
        assert weights == pytest.approx(wanted[wanted >= 0.005], abs=0.0006)


# --- the maps ---------------------------------------------------------------------------------

ATT = np.array([[1.0, 0, 0], [0.3, 0.7, 0], [0.004, 0.25, 0.746]])


def test_a_cell_for_each_weight_that_is_seen():
    svg = attention_map(ATT, ["a", "<", "␣c"], "Block 1, head 1", "cells")
    rects = re.findall(r'<rect x="(\d+)" y="(\d+)" width="10" height="10" opacity="([\d.]+)">'
                       r"<title>(.*?)</title>", svg)  # fmt: skip
    assert rects == [
        ("0", "0", "1.00", "1 a looks at 1 a: 1.000"),
        ("0", "10", "0.30", "2 &lt; looks at 1 a: 0.300"),
        ("10", "10", "0.70", "2 &lt; looks at 2 &lt;: 0.700"),
        ("10", "20", "0.25", "3 ␣c looks at 2 &lt;: 0.250"),
        ("20", "20", "0.75", "3 ␣c looks at 3 ␣c: 0.746"),
    ]
    assert svg.count("<text") == 6
    assert "rotate" not in svg
    assert "rotate(-90)" in attention_map(ATT, ["a", "bcd", "e"], "", "cells")
    ElementTree.fromstring(svg)


def pixels(content):
    """The weights (n, m) that a PNG's transparency says, read as the specification says."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            kind + data
        )
        chunks[kind], at = data, at + 12 + length
    m, n, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour, len(chunks[b"PLTE"])) == (8, 3, 768)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(n, m + 1)
    assert (rows[:, 0] == 0).all()
    return np.frombuffer(chunks[b"tRNS"], np.uint8)[rows[:, 1:]] / 255


def test_a_png_keeps_the_weights():
    weights = np.random.default_rng(0).random((7, 5))
    np.testing.assert_allclose(pixels(png(weights)), weights, atol=0.5 / 255 + 1e-9)


def test_another_reader_sees_the_same_picture(folder):
    from matplotlib.image import imread

    (folder / "map.png").write_bytes(png(ATT))
    np.testing.assert_allclose(imread("map.png")[..., 3], ATT, atol=0.5 / 255 + 1e-6)


def test_an_image_takes_the_place_of_many_cells():
    svg = attention_map(ATT, ["a", "<", "c"], "", "rows")
    data = base64.b64decode(re.search(r'href="data:image/png;base64,(.*?)"', svg)[1])
    np.testing.assert_allclose(pixels(data) ** 2, ATT, atol=0.005)
    titles = re.findall(r"<title>(.*?)</title>", svg)
    assert titles == ["1 a looks at 1 a: 1.000",
                      "2 &lt; looks at 2 &lt;: 0.700, 1 a: 0.300",
                      "3 c looks at 3 c: 0.746, 2 &lt;: 0.250"]  # fmt: skip
    bare = attention_map(ATT, ["a", "<", "c"], "", "")
    assert "<title>" not in bare
    assert "data:image/png" in bare


def test_a_large_map_keeps_the_largest_of_each_block():
    att = np.zeros((601, 601))
    att[300, 7] = 0.5
    att[600, 600] = 0.25
    small = largest_of_blocks(att, 256)
    assert small.shape == (201, 201)
    assert (small[100, 2], small[200, 200]) == (0.5, 0.25)
    assert small.sum() == 0.75
    np.testing.assert_array_equal(largest_of_blocks(ATT, 3), ATT)
    svg = attention_map(att, ["a"] * 601, "", "")
    assert "<text" not in svg
    assert len(svg) < 5000


def test_the_more_there_is_to_see_the_less_is_told():
    assert detail_of((2, 4, 32, 32)) == "cells"
    assert detail_of((1, 1, 199, 199)) == "cells"  # 19,900 of them
    assert detail_of((1, 1, 200, 200)) == "rows"
    assert detail_of((4, 8, 600, 600)) == "rows"
    assert detail_of((12, 12, 139, 139)) == ""


@pytest.mark.parametrize(
    ("cells", "word", "image"),
    [(1000, "Point at a cell", False), (100, "Point at a row", True), (10, "the root of", True)],
)
def test_the_page_says_what_its_maps_tell(monkeypatch, cells, word, image):
    monkeypatch.setattr(maps, "CELLS", cells)
    page = as_page(found_of(TEXT), "")
    assert word in page
    assert ("data:image/png" in page) == image
    assert ("Point at" in page.split("Where each head looks")[1]) == (cells > 10)


# --- other tokens, bad input ------------------------------------------------------------------


def test_byte_pairs(capsys):
    save("zh.safetensors", train_bpe("low lower lowest 你好 " * 20, 265))
    assert main(["explain", "zh.safetensors", "--prompt", "low ö你\x07"]) == 0
    out, page = capsys.readouterr().out, read("explain.html")
    for words in (out, page):
        assert r"\xc3" in words
        assert r"\u0007" in words
        assert "\x07" not in words
    assert "What a GPT makes of “low ö你\\u0007”" in page
    tags(page)


def test_bad_input_is_one_line_and_exit_code_2(folder, capsys):
    (folder / "file").write_text("")
    broken = load_checkpoint("runs/a-1/best.safetensors")
    broken.model.wte.weight.data[:] = np.inf
    save_checkpoint("broken.safetensors", broken)
    for argv, message in (
        (["--prompt", ""], "the prompt must have at least one character"),
        (["--prompt", "§"], "does not know: '§'"),
        (["--prompt", "a", "--alternatives", "0"], "alternatives must be 1 to 100, got 0"),
        (["--prompt", "a", "--alternatives", "1.5"], "argument --alternatives: invalid int value"),
        (["--prompt", "a", "--out", "a.pdf"], "--out must end in .html, .png, .svg, got a.pdf"),
        (["--prompt", "a", "--out", "file/a.html"], "cannot write file/a.html"),
        (["missing.safetensors", "--prompt", "a"], "no such checkpoint"),
        (["file", "--prompt", "a"], "not a whole safetensors file"),
        (["broken.safetensors", "--prompt", "a"], "not finite"),
        ([], "required: --prompt"),
    ):
        try:
            code = main(["explain", *argv])
        except SystemExit as done:  # argparse
            code = done.code
        assert code == 2, argv
        error = capsys.readouterr().err
        assert message in error.replace("\\", "/"), argv
        assert error.count("\n") == 1
    (folder / "runs/a-1/best.safetensors").unlink()
    assert main(["explain", "--prompt", "a"]) == 2
    assert "run `python -m minigpt demo`" in capsys.readouterr().err
    assert not (folder / "explain.html").exists()
