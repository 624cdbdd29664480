"""Derivation files as their writer meets them: marks, tables, errors on one line, limits, files.

Files are run by `main(["verify", ...])`, so each in a process of its own. Those are few: the kinds
of error share a file, and the tests share what was printed about it.
"""

import io
import json
import re
import shutil
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from minigpt.__main__ import main
from minigpt.verify import derivations, isolated
from minigpt.verify.derivations import Input, derivation, exit_code, run_file
from minigpt.verify.judge import judge
from tests.test_report import strict

HEAD = """
import numpy as np
from minigpt.verify import Input, derivation

def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
"""
MARK = '\n@derivation(of=softmax, x=("T", "C"))\n'
RIGHT = """
def softmax_vjp(g, x):
    p = softmax(x)
    return p * (g - (g * p).sum(-1, keepdims=True))
"""
CLAIMS = {
    "right": "    p = softmax(x)\n    return p * (g - (g * p).sum(-1, keepdims=True))",
    "sign": "    p = softmax(x)\n    return -p * (g - (g * p).sum(-1, keepdims=True))",
    "raises": '    print("<b>here & now</b>")\n    return {}["a key"]',
    "number": "    return g, g",
    "shape": "    return g.sum(0)",
    "nan": "    return g * np.nan",
    "memory": "    return np.empty(3 << 27)  # 3 GiB",
    "unwritten": "    raise NotImplementedError",
}


def run(*argv):
    """main(argv): exit code, what it printed, what it printed as errors."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(map(str, argv)))
    return code, out.getvalue(), err.getvalue()


def write(folder, name, text):
    path = folder / name
    path.write_text(textwrap.dedent(text), "utf-8")
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """One file with every mistake a claim can have: the exit code, the text, the JSON, the page."""
    folder = tmp_path_factory.mktemp("many")
    marked = (f"{MARK}def {name}(g, x):\n{body}\n" for name, body in CLAIMS.items())
    path = write(folder, "many.py", HEAD + 'print("read")\n' + "".join(marked))
    code, out, err = run("verify", path, "--json", "--html", folder / "page.html", "--seed", 3)
    lines = path.read_text().splitlines()
    return code, strict(out), err, (folder / "page.html").read_text("utf-8"), lines


@pytest.fixture(scope="module")
def claims(many):
    (report,) = many[1]["files"]
    return {claim["name"]: claim for claim in report["claims"]}


def line_of(many, start):
    """The number of the first line that starts so."""
    return next(i for i, line in enumerate(many[4], 1) if line.startswith(start))


# --- what is found ----------------------------------------------------------------------------


def test_each_claim_has_its_own_result(claims):
    assert {name: claim["status"] for name, claim in claims.items()} == {
        "right": "holds", "sign": "wrong", "raises": "error", "number": "error", "shape": "error",
        "nan": "error", "memory": "error", "unwritten": "not written",
    }  # fmt: skip
    assert all(claim["kind"] == "vjp" and claim["of"] == "softmax" for claim in claims.values())


def test_a_claim_that_holds_has_rows_and_no_diagnosis(claims):
    rows = claims["right"]["rows"]
    assert {row["witness"] for row in rows} >= {"differences", "complex step"}
    assert all(row["error"] <= row["tolerance"] < 1e-5 for row in rows)
    assert claims["right"]["diagnosis"] is None


def test_a_claim_that_fails_is_diagnosed(claims):
    found = claims["sign"]["diagnosis"]
    assert "sign" in found["pattern"]
    assert found["residual"] < 1e-6
    row = max(claims["sign"]["rows"], key=lambda row: row["error"])
    assert row["claimed"] == pytest.approx(-row["measured"])
    assert len(row["index"]) == 2


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        ("raises", '    return {}["a key"]', "the vjp raised KeyError: 'a key'"),
        ("number", None, "2 gradients were returned for 1 float arguments: x"),
        ("shape", None, r"the gradient of x has shape \(\d,\), but x has shape \(\d, \d\)"),
        ("nan", None, r"the gradient of x is nan at index \[0, 0\]"),
        ("memory", "    return np.empty", "too much memory; --memory allows more"),
    ],
)
def test_each_error_is_one_line_with_its_place(many, claims, name, place, message):
    error = claims[name]["error"]
    line = line_of(many, place) if place else line_of(many, f"def {name}(") - 1  # its mark
    assert re.search(message, error)
    assert error.startswith(f"many.py, line {line}: ")
    assert "\n" not in error
    assert claims[name]["rows"] == []


def test_what_a_file_prints_is_kept_apart(many, claims):
    code, found, err, page, _ = many
    assert found["files"][0]["printed"] == "read"
    assert re.fullmatch(r"<b>here & now</b>  \(\d+ times\)", claims["raises"]["printed"])
    assert claims["right"]["printed"] == ""
    assert "&lt;b&gt;here &amp; now&lt;/b&gt;" in page
    assert "<b>" not in page


def test_a_limit_that_was_hit_is_exit_code_2_and_the_page_is_named_apart_from_the_json(many):
    code, found, err, *_ = many
    assert code == found["exit_code"] == 2  # of "memory"
    assert found["seed"] == 3
    assert err.startswith("report      ")


def test_exit_codes():
    def report(*statuses, error=""):
        return {"error": error, "claims": [{"status": status} for status in statuses]}

    assert exit_code(report("holds", "holds")) == 0
    for status in ("wrong", "not written", "error"):
        assert exit_code(report("holds", status)) == 1
    assert exit_code(report("holds", error="no such file")) == 2
    assert exit_code({"error": "", "claims": [{"status": "error", "limit": True}]}) == 2


# --- files that cannot be judged --------------------------------------------------------------

BROKEN = {
    "raises.py": ("x = 1\n\nx / 0\n", "raises.py, line 3: ZeroDivisionError: division by zero"),
    "unmarked.py": ("def f(x):\n    return x\n", "unmarked.py: no derivation is marked: mark one "
                    'with @derivation(of=f, x=("N", "C"))'),
    "prose.py": ("y = 1\nThis is not Python.\n", "prose.py, line 2: this is not Python: invalid"),
    "names.py": (HEAD + '\n@derivation(of=softmax, y=("T", "C"))\ndef vjp(g, y): ...\n',
                 "names.py, line 9: ValueError: softmax has no argument y: its arguments are x"),
    "exits.py": ("import os\nos._exit(0)\n", "the process ended itself with exit code 0"),
    "leaves.py": ("import sys\nsys.exit('enough')\n", "leaves.py, line 2: SystemExit: enough"),
    "list.ipynb": ("[1, 2]", "list.ipynb: not a notebook: TypeError"),
}  # fmt: skip


def test_a_file_that_cannot_be_judged_is_exit_code_2_and_one_line(tmp_path):
    paths = [write(tmp_path, name, text) for name, (text, _) in BROKEN.items()]
    latin = tmp_path / "latin.py"
    latin.write_bytes("x = 'é'\n".encode("latin-1"))
    missing = tmp_path / "missing.py"
    right = write(tmp_path, "right.py", HEAD + MARK + RIGHT)
    code, out, err = run("verify", *paths, latin, missing, right)
    assert code == 2
    assert f"{right}: 1 derivation: 1 holds" in out
    lines = err.splitlines()
    wanted = [message for _, message in BROKEN.values()]
    wanted += ["latin.py: not a text file in UTF-8", f"{missing}: no such file"]
    assert len(lines) == len(wanted)
    for line, message in zip(lines, wanted, strict=True):
        assert line.startswith("minigpt: error: ")
        assert message in line


def test_an_infinite_loop_is_stopped_and_the_claims_before_it_are_kept(tmp_path):
    loop = f"{MARK}def loops(g, x):\n    while True:\n        pass\n"
    after = f"{MARK}def after(g, x):\n    return g\n"
    path = write(tmp_path, "loop.py", HEAD + MARK + RIGHT + loop + after)
    code, out, err = run("verify", path, "--seconds", "2")
    assert code == 2
    assert "softmax_vjp (vjp) holds" in out
    assert "after (vjp): not reached" in out
    assert "the process at loops was stopped after 2 s: an infinite loop?" in err
    lines = path.read_text().splitlines()
    number = int(re.search(r"it was at loop\.py, line (\d+)\)", err)[1])
    assert lines[number - 1].strip() in ("while True:", "pass")
    assert err.count("\n") == 1


def test_nothing_to_verify(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("verify")
    assert code == 2
    assert "name a derivation file" in err
    code, _, err = run("verify", "a.py", "--seed", "-1")
    assert code == 2
    assert "--seed must be at least 0, got -1" in err


# --- what a file may use ----------------------------------------------------------------------


def test_neighbours_can_be_imported_but_hide_no_library(tmp_path, monkeypatch):
    """And the process starts in the file's folder, without what PYTHON variables ask for."""
    monkeypatch.setenv("PYTHONSTARTUP", "nowhere")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    write(tmp_path, "colorsys.py", "raise RuntimeError('the wrong one')")
    write(tmp_path, "helper.py", "HALF = 0.5")
    write(tmp_path, "data.txt", "0.25")
    path = write(tmp_path, "square.py", """
        import colorsys
        import os
        import sys
        from helper import HALF
        from minigpt.verify import derivation
        assert "PYTHONPATH" not in os.environ and "elsewhere" not in str(sys.path)
        def f(x):
            return HALF * x * x + float(open("data.txt").read())
        @derivation(of=f, x=())
        def df(g, x):
            return g * x
        if __name__ == "__main__":
            raise RuntimeError("this is not the main program")
        """)  # fmt: skip
    code, out, err = run("verify", path)
    assert (code, err) == (0, "")
    assert "square.py: 1 derivation: 1 holds" in out


def test_a_notebook_is_its_code_cells_without_magics(tmp_path):
    cells = [
        ("markdown", "# Not code"),
        ("code", "%matplotlib inline\n" + HEAD + "if True:\n    !ls\n"),
        ("code", "%%bash\nexit 1"),
        ("code", "remainder = (7\n% 4)\nassert remainder == 3"),  # Python: nothing to leave out
        ("code", MARK + RIGHT + MARK + "def raises(g, x):\n    raise ValueError('no')\n"),
    ]
    text = json.dumps({"cells": [{"cell_type": kind, "source": source.splitlines(keepends=True)}
                                 for kind, source in cells]})  # fmt: skip
    path = tmp_path / "work.ipynb"
    path.write_text(text)
    report = run_file(path)
    assert [claim["status"] for claim in report["claims"]] == ["holds", "error"]
    assert report["notes"] == [
        "work.ipynb, code cell 1: left out: %matplotlib inline",
        "work.ipynb, code cell 1: left out: !ls",
        "work.ipynb, code cell 2: left out: %%bash",
    ]
    assert report["claims"][1]["error"].startswith("work.ipynb, code cell 4, line 10: raises: ")


# --- the mark ---------------------------------------------------------------------------------


@pytest.fixture
def found(monkeypatch):
    marks = []
    monkeypatch.setattr(derivations, "FOUND", marks)
    return marks


def product(x, y, scale=1.0):
    return x * y * scale


def test_the_mark_leaves_the_function_as_it_is_and_keeps_the_order_of_f(found):
    def vjp(g, x, y):
        return g * y, g * x

    assert derivation(of=product, y=["N"], x=Input(("N",), low=1.0, high=2.0))(vjp) is vjp
    (claim,) = found
    assert (claim.name, claim.kind, claim.f, claim.said) == ("vjp", "vjp", product, vjp)
    assert list(claim.inputs) == ["x", "y"]
    assert claim.inputs["y"] == Input(("N",))
    assert claim.inputs["x"].low == 1.0
    assert judge(claim).holds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": product, "x": ("N",), "z": ("N",)}, "product has no argument z: its arguments are "
         "x, y, scale"),
        ({"of": product, "x": ("N",)}, "give the shape of y too"),
        ({"of": product, "x": "N", "y": ("N",)}, 'a tuple of one needs a comma, \\("N",\\)'),
        ({"of": product, "x": 3, "y": ("N",)}, "x=3 is no shape"),
        ({"of": product, "x": (2.5,), "y": ("N",)}, "x=\\(2.5,\\) is no shape"),
        ({"of": product, "kind": "proof", "x": (), "y": ()}, "kind must be one of vjp"),
        ({"x": ("N",)}, "@derivation\\(of=f"),
        ({"of": lambda x, y=1.0, z=2.0: x, "x": (), "z": ()}, "give the shape of y too"),
    ],
)  # fmt: skip
def test_a_wrong_mark_is_refused(found, options, message):
    with pytest.raises(ValueError, match=message):
        derivation(**options)(lambda g, x, y: g)
    assert found == []


def test_a_bare_mark_is_refused(found):
    with pytest.raises(ValueError, match="mark a derivation with what it is of"):
        derivation(product)


def test_arguments_that_cannot_be_named_are_taken_as_given(found):
    derivation(of=lambda *xs: sum(xs), a=("N",), b=("N",))(lambda g, a, b: (g, g))
    derivation(of=np.exp, x=("N",))(lambda g, x: g * np.exp(x))
    assert list(found[0].inputs) == ["a", "b"]
    assert all(judge(claim).holds for claim in found)


# --- templates --------------------------------------------------------------------------------

P = "e = np.exp(x - x.max(-1, keepdims=True))\np = e / e.sum(-1, keepdims=True)\n"
FILLED = {
    "softmax": "p = softmax(x)\nreturn p * (g - (g * p).sum(-1, keepdims=True))",
    "jacobian": "p = softmax(x)\nreturn np.diag(p) - np.outer(p, p)",
    "layer_norm": """
        centred = x - x.mean(-1, keepdims=True)
        rstd = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        xhat, gw = centred * rstd, g * w
        dx = rstd * (gw - gw.mean(-1, keepdims=True) - xhat * (gw * xhat).mean(-1, keepdims=True))
        return dx, (g * xhat).sum(0), g.sum(0)""",
    "rms_norm": """
        rrms = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        xhat, gw = x * rrms, g * w
        return rrms * (gw - xhat * (gw * xhat).mean(-1, keepdims=True)), (g * xhat).sum(0)""",
    "attention": """
        T, D = q.shape
        scores = np.where(np.tri(T, dtype=bool), q @ k.T / np.sqrt(D), -np.inf)
        att = np.exp(scores - scores.max(-1, keepdims=True))
        att /= att.sum(-1, keepdims=True)
        datt = g @ v.T
        ds = att * (datt - (datt * att).sum(-1, keepdims=True)) / np.sqrt(D)
        return ds @ k, ds.T @ q, att.T @ g""",
    "cross_entropy": """
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return g * (p - np.eye(logits.shape[-1])[targets]) / len(targets)""",
    "matmul": "return g @ w.T, np.tensordot(x, g, ((0, 1), (0, 1)))",
    "embedding": "dw = np.zeros(w.shape)\nnp.add.at(dw, idx, g)\nreturn dw",
    "gelu": """
        c = np.sqrt(2 / np.pi)
        t = np.tanh(c * (x + 0.044715 * x**3))
        return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x**2))""",
    "own": "return g[:, None] * w * (1 - np.tanh(x) ** 2), np.tanh(x).T @ g",
}


def loaded(path, monkeypatch):
    """The claims of a file, read in this process."""
    monkeypatch.setattr("sys.path", ["", *derivations._import_path()])
    monkeypatch.setattr(derivations, "FOUND", [])
    return isolated.load(path, path.name)[0]


def test_the_templates_are_those_with_an_answer_here():
    assert derivations.template_names() == sorted(FILLED)


@pytest.mark.parametrize("name", FILLED)
def test_a_template_runs_and_is_not_written_yet(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = derivations.write_template(name)
    text = path.read_text()
    assert path.name == f"{name}_derivation.py"
    assert f"python -m minigpt verify {path.name}" in text
    assert text.count("raise NotImplementedError\n") == 1
    (claim,) = loaded(path, monkeypatch)
    assert isolated.examine(claim, path.name, 0, False)["status"] == "not written"


@pytest.mark.parametrize("name", FILLED)
def test_a_template_that_is_filled_in_holds(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = derivations.write_template(name)
    body = textwrap.indent(textwrap.dedent(FILLED[name]), "    ").lstrip()
    path.write_text(path.read_text().replace("raise NotImplementedError\n", body + "\n"))
    (claim,) = loaded(path, monkeypatch)
    record = isolated.examine(claim, path.name, 0, False)
    assert (record["status"], record["error"]) == ("holds", "")
    arguments = {row["argument"] for row in record["rows"]}
    assert arguments == {name for name, spec in claim.inputs.items() if spec.below is None}


def test_a_template_by_the_command_line_is_written_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("verify", "--template", "list")
    assert (code, out.split()) == (0, sorted(FILLED))
    code, out, _ = run("verify", "--template", "matmul")
    assert (code, out[:21]) == (0, "matmul_derivation.py ")
    Path("matmul_derivation.py").write_text("mine")
    code, _, err = run("verify", "--template", "matmul")
    assert (code, Path("matmul_derivation.py").read_text()) == (2, "mine")
    assert "is there already, and is left as it is" in err
    code, _, err = run("verify", "--template", "nothing")
    assert code == 2
    assert "no template 'nothing': choose attention, " in err
    code, out, _ = run("verify", write(tmp_path, "a.py", HEAD + MARK + "def f(g, x):\n"
                                       "    raise NotImplementedError\n"))  # fmt: skip
    assert code == 1
    assert "f (vjp): not written yet" in out


# --- the process ------------------------------------------------------------------------------


def test_memory_that_cannot_be_limited_is_a_note(monkeypatch):
    import resource

    def no(*args):
        raise ValueError

    monkeypatch.setattr(resource, "setrlimit", no)
    assert isolated.limit(100, 60) == ["memory is not limited on this platform (ValueError)"]


def test_a_crash_in_c_code_is_told(tmp_path):
    path = write(tmp_path, "crash.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    report = run_file(path)
    assert "the process was ended by SIGSEGV: too much memory, or a crash" in report["error"]
    assert exit_code(report) == 2


def test_the_curves_are_a_v_for_a_right_claim_and_a_floor_for_a_wrong_one(tmp_path, monkeypatch):
    bodies = {name: CLAIMS[name] for name in ("right", "sign")}
    text = HEAD + "".join(f"{MARK}def {name}(g, x):\n{body}\n" for name, body in bodies.items())
    path = write(tmp_path, "two.py", text)
    right, wrong = (isolated.examine(claim, path.name, 0, True)["details"][0]
                    for claim in loaded(path, monkeypatch))  # fmt: skip
    steps, errors = np.array(right["steps"]), np.array(right["claim"])
    best = int(errors.argmin())
    assert errors[best] < 1e-8
    assert errors[steps.argmax()] > 1e4 * errors[best]  # truncation
    assert errors[steps.argmin()] > 1e3 * errors[best]  # rounding
    truncating = (steps > 1e-3) & (steps < 0.1)
    slope = np.polyfit(np.log(steps[truncating]), np.log(errors[truncating]), 1)[0]
    assert abs(slope - 2) < 0.2
    assert min(wrong["claim"]) > 0.1  # a floor
    assert min(wrong["true"]) < 1e-8
    np.testing.assert_allclose(right["claimed"], right["measured"], atol=1e-12)
    np.testing.assert_allclose(wrong["claimed"], -np.array(wrong["measured"]), atol=1e-12)


def test_no_files_are_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    run_file(write(tmp_path, "empty.py", ""))
    assert list((tmp_path / "temp").iterdir()) == []
    shutil.rmtree(tmp_path / "temp")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.py"]
