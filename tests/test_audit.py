"""`python -m minigpt gradcheck`: nothing is left out, and a wrong gradient is named."""

import csv
import io
import math
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context, rcParams

from minigpt import audit, functional, ops, subjects
from minigpt.__main__ import main
from minigpt.audit import TOLERANCES, Result
from minigpt.model import GPT, GPTConfig
from minigpt.tensor import primitive
from tests.test_ops import primitives

ROOT = Path(__file__).parent.parent


def read(path):
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run with all its files: exit code, text, lines of the table, figure."""
    folder, out = tmp_path_factory.mktemp("audit"), io.StringIO()
    with redirect_stdout(out):
        code = main(["gradcheck", "--out", str(folder / "new" / "t.csv"),
                     "--figure", str(folder / "f.svg")])  # fmt: skip
    lines = read(folder / "new" / "t.csv")
    return code, out.getvalue(), lines, (folder / "f.svg").read_text("utf-8")


def test_everything_holds_and_the_last_lines_say_so(run):
    code, text, lines, _ = run
    assert code == 0
    assert "all errors are below their tolerances" in text
    found = re.search(r"(\d+) gradients in [\d.]+ s; worst error (\S+), in (\S+) of (.+)", text)
    assert int(found[1]) == len(lines)
    heard = {(line["in"], line["gradient_of"]): max(float(line[w] or 0) for w in line
             if w not in ("in", "gradient_of")) for line in lines}  # fmt: skip
    assert heard[found[3], found[4]] == float(found[2]) == max(heard.values())


def test_no_primitive_is_missing(run):
    named = {line["gradient_of"].split(",")[0] for line in run[2]}
    assert {name.removeprefix("minigpt.") for name in primitives()} <= named


def test_every_array_of_a_primitive_has_a_row(run):
    """Counted by what each vjp gives: a gradient, or None for ids and masks."""
    rows = [line["gradient_of"] for line in run[2]]
    for subject in subjects.subjects():
        assert rows.count(subject.what) == len(subject.leaves)
    assert rows.count("functional.layer_norm") == 3
    assert rows.count("ops.where") == rows.count("ops.power") == 2


def test_every_layer_and_every_parameter_of_the_gpt_has_a_row(run):
    named = {line["gradient_of"] for line in run[2]}
    layers = {"Linear", "Embedding", "LayerNorm", "Dropout", "CausalSelfAttention", "MLP", "Block"}
    assert layers <= named
    config = GPTConfig(vocab_size=7, block_size=4, n_layer=2, n_head=2, n_embd=8)
    names = [name for name, _ in GPT(config, np.random.default_rng(0)).named_parameters()]
    assert [line["in"] for line in run[2] if line["gradient_of"] == "GPT"] == names
    assert len(names) == 28


def test_every_row_has_its_witnesses(run):
    """Differences always; the twin for all that is fused; the adjoint for all that is linear."""
    for line in run[2]:
        what = line["gradient_of"]
        assert line["differences"], what
        fused = not what.startswith(("ops", "shapes"))
        assert bool(line["composed"]) == fused, what
        blind = ("ops.maximum", "ops.relu", "ops.max", "ops.var", "functional.gelu, exact")
        assert bool(line["complex_step"]) == (what not in blind), what
    linear = {line["gradient_of"] + " " + line["in"] for line in run[2] if line["adjoint"]}
    assert {"ops.matmul x", "ops.matmul y", "ops.sum x", "functional.embedding w",
            "attention.attention v", "positions.rotary x", "Linear weight"} <= linear  # fmt: skip
    assert "ops.exp x" not in linear


def test_parameters_are_at_random_values():
    """At a gain of 1, a backward pass that forgets the gain would pass."""
    for subject in subjects.subjects():
        for name, leaf in subject.leaves.items():
            assert leaf.size < 2 or leaf.data.std() > 0.05, f"{subject.what} {name}"


def test_the_table_has_a_line_a_row_in_the_given_order(run):
    text = run[1].splitlines()
    assert [word for word in TOLERANCES if word in text[0]] == list(TOLERANCES)
    shown = text[2 : 2 + len(run[2])]
    for shown_line, line in zip(shown, run[2], strict=True):
        assert shown_line.startswith(f"{line['gradient_of']:33s}{line['in']}")
        cells = re.findall(r"\d\.\de[-+]\d\d|(?<= )-(?= |$)", shown_line)
        assert [c for c in cells if c != "-"] == [
            line[w.replace(" ", "_")] for w in TOLERANCES if line[w.replace(" ", "_")]
        ]


def test_the_figure_has_a_dot_a_comparison(run):
    _, _, lines, svg = run
    columns = [name.replace(" ", "_") for name in TOLERANCES]
    heard = sum(bool(line[name]) for line in lines for name in columns)
    assert svg.count("<use ") >= heard  # the markers; ticks are drawn so too
    assert f"{heard} comparisons" in re.sub(r"\s+", " ", svg)  # a comment beside the glyphs
    assert "<dc:date>" not in svg


def test_the_figure_repeats_to_the_byte():
    results = [Result("ops.add", "x", {"differences": 1e-11, "adjoint": 0.0}),
               Result("Linear", "w", {"differences": 1e-13, "composed": 1e-16}),
               Result("GPT", "wte", {"differences": math.inf})]  # fmt: skip
    with rc_context({"font.size": 30}):  # whatever the user's style, which stays
        before, figure = dict(rcParams), audit._figure(results)
        assert before == dict(rcParams)
    assert audit._figure(results) == figure


def test_what_is_committed_is_of_this_code(run):
    """Errors differ in their last digits from machine to machine, the rows do not."""
    assert audit.EXAMPLE == "--figure figures/gradcheck.svg --out figures/data/gradcheck.csv"
    lines = read(ROOT / "figures/data/gradcheck.csv")
    keys = ("gradient_of", "in")
    assert [[line[k] for k in keys] for line in lines] == [[line[k] for k in keys]
                                                           for line in run[2]]  # fmt: skip
    for line in lines:
        for name, tolerance in TOLERANCES.items():
            assert float(line[name.replace(" ", "_")] or 0) <= tolerance
    assert f"{len(lines)} gradients of minigpt" in (ROOT / "figures/gradcheck.svg").read_text()


# --- what is wrong is found -------------------------------------------------------------------


def flipped(op):
    """The primitive with the sign of its gradients exchanged."""

    @primitive
    def wrong(*arrays, **options):
        out, vjp = op.forward(*arrays, **options)
        if callable(vjp):
            return out, lambda g: [None if dx is None else -dx for dx in vjp(g)]
        return out, tuple(None if f is None else (lambda g, f=f: -f(g)) for f in vjp)

    wrong.__name__, wrong.__module__ = op.__name__, op.__module__
    return wrong


def test_a_flipped_sign_is_exit_code_1_and_named(monkeypatch, capsys):
    monkeypatch.setattr(ops, "tanh", flipped(ops.tanh))
    monkeypatch.setattr(subjects, "_layers", lambda: iter(()))
    assert main(["gradcheck"]) == 1
    out = capsys.readouterr().out
    wrong = [line for line in out.splitlines() if line.endswith("  WRONG")]
    assert [line.split()[0] for line in wrong] == ["ops.tanh", "functional.gelu"]
    # gelu itself is right: the twin that it is compared with is made of tanh
    assert out.splitlines()[-1] == "WRONG: x of ops.tanh, x of functional.gelu"
    assert "worst error 2.0e+00" in out


def test_each_witness_sees_a_wrong_gradient(monkeypatch):
    monkeypatch.setattr(functional, "linear", flipped(functional.linear))
    for subject in subjects.subjects():
        if subject.what in ("functional.linear", "Linear", "MLP"):
            for result in audit.examine(subject):
                heard = {name: error for name, error in result.errors.items() if error is not None}
                wrong_twice = subject.what == "MLP" and not result.argument.startswith("c_proj")
                assert result.holds == wrong_twice, result
                if not wrong_twice:
                    assert min(heard.values()) > 0.1, result


def test_a_gradient_of_the_wrong_shape_is_a_row_that_does_not_hold(monkeypatch):
    wrong = primitive(lambda x: (np.exp(x), (lambda g: g[:1],)))
    wrong.__name__, wrong.__module__ = "exp", "minigpt.ops"
    monkeypatch.setattr(ops, "exp", wrong)
    (subject,) = (s for s in subjects.subjects() if s.what == "ops.exp")
    (result,) = audit.examine(subject)
    assert not result.holds
    assert "a vjp returned shape" in result.note


def test_a_primitive_without_a_row_is_refused(monkeypatch, capsys):
    new = primitive(lambda x: (x, (lambda g: g,)))
    new.__module__ = "minigpt.ops"
    monkeypatch.setattr(ops, "sine", new, raising=False)
    assert main(["gradcheck"]) == 2
    assert "no row in subjects.CASES for sine" in capsys.readouterr().err


def test_a_result_holds_within_tolerance_only():
    assert Result("f", "x", {"differences": 1e-9, "composed": None}).holds
    assert not Result("f", "x", {"differences": 1e-9, "composed": 1e-9}).holds
    assert not Result("f", "x", {"differences": math.nan}).holds
    assert not Result("f", "x", {"differences": None}).holds
    assert Result("f", "x", {"differences": math.nan}).worst == math.inf
