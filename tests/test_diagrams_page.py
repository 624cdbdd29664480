"""figures/diagrams.md: up to date, legal Mermaid, and true of the model and of the trainer."""

import importlib
import re
import sys

import matplotlib
import numpy as np
import pytest

from minigpt import parallel
from minigpt import train as train_module
from minigpt.diagram.figure import draw
from minigpt.model import GPT, GPTConfig
from minigpt.optim import AdamW
from minigpt.tensor import Tensor
from minigpt.tokenizer import CharTokenizer
from minigpt.train import TrainConfig, Trainer
from tests.flowchart import parse
from tools import diagrams, training_diagram


@pytest.fixture(scope="module")
def text():
    return diagrams.PAGE.read_text("utf-8")


@pytest.fixture(scope="module")
def calls():
    return training_diagram.record()


def test_the_page_is_what_its_tool_writes(text):
    assert text == diagrams.page(), "run python -m tools.diagrams"


def test_the_figure_is_what_its_tool_writes(tmp_path):
    made = f"Matplotlib v{matplotlib.__version__}"
    old = diagrams.FIGURE.read_text("utf-8")
    if made not in old:
        pytest.skip(f"{diagrams.FIGURE.name} was not drawn by {made}")
    draw(diagrams.gpt(), tmp_path / "gpt.svg")
    assert (tmp_path / "gpt.svg").read_text("utf-8") == old, "run python -m tools.diagrams"


def test_every_diagram_of_the_page_is_legal(text):
    charts = [parse(block) for block in re.findall(r"```mermaid\n(.*?)```", text, re.S)]
    assert [bool(chart.title) for chart in charts] == [True, True, False, False]
    assert all(len(chart.edges) >= 8 for chart in charts)


@pytest.mark.parametrize(
    "wrong",
    [
        'flowchart TD\n  a["x]\n', 'flowchart TD\n  end["x"]\n',
        'flowchart TD\n  a["x"]\n  a --> b\n',
        'flowchart TD\n  subgraph s["x"]\n    a["x"]\n', 'flowchart TD\n  a["x "y""]\n',
        'flowchart TD\n  a["x"]\n  a["y"]\n', 'flowchart TD\n  a["x"]\n  a -->|(q)| a\n',
        'flowchart TD\n  a["x")\n', 'flowchart TD\n  a["<b>x</b>"]\n', 'flowchart TD\n  1a["x"]\n',
        'graph TD\n  a["x"]\n', 'flowchart TD\n  a["x"]\n  end\n', 'flowchart TD\n  a -- x --> a\n',
    ],
)  # fmt: skip
def test_the_reader_is_strict(wrong):
    with pytest.raises((AssertionError, IndexError)):
        parse(wrong)


def test_the_arrows_that_no_way_of_the_model_follows():
    wrong = {d.where[:2]: diagrams.wrong_arrows(d, diagrams.gpt()) for d in diagrams.MODELS}
    assert wrong == {
        "S0": [],
        "S3": [("word-vector encoding", "position encoding")],
        "S4": [("embedding layer", "position encoding")],
    }
    for drawn in diagrams.MODELS:
        missing = diagrams.missing(drawn, diagrams.gpt())
        assert {"causal mask", "ln_1", "ln_2", "ln_f"} <= set(missing)
        assert set(drawn.boxes) == {end for arrow in drawn.arrows for end in arrow}


def test_an_arrow_is_found_wrong_when_the_model_lacks_it():
    """Without learned positions, nothing leads from positions to attention."""
    drawn = diagrams.MODELS[1]
    for edge in ("wpe", "wte"):
        diagram = diagrams.gpt()
        cut = tuple(e for e in diagram.edges if not (e.source == edge and e.target == "add"))
        wrong = diagrams.wrong_arrows(drawn, type(diagram)(diagram.title, diagram.boxes, cut, ()))
        assert len(wrong) == 2
        assert (edge == "wpe") == (("position encoding", "multi-head self-attention") in wrong)


def test_each_name_of_the_concepts_is_there():
    names = re.findall(r"minigpt\.[\w.]+", diagrams.CONCEPTS)
    assert len(names) == 5
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute)


def test_each_name_of_the_training_diagram_is_there():
    for name in training_diagram.NODES:
        parts = name.split(" ")[0].split(".")
        n = next(i for i in range(len(parts), 0, -1) if known(".".join(parts[:i])))
        found = importlib.import_module("minigpt." + ".".join(parts[:n]))
        for part in parts[n:]:
            found = getattr(found, part)
        assert callable(found)


def known(name):
    try:
        return importlib.import_module(f"minigpt.{name}")
    except ModuleNotFoundError:
        return None


def test_all_of_the_training_diagram_happened(calls):
    names, _ = calls
    assert set(names) == set(training_diagram.NODES)
    assert set(training_diagram.LABELS) <= set(zip(names, names[1:], strict=False))


def test_the_tokenizer_learnt_from_the_training_part_alone(calls):
    _, seen = calls
    assert seen["learnt from"] == [seen["parts"][0].train]
    assert not any(document in seen["learnt from"][0]
                   for document in seen["parts"][0].val.splitlines())  # fmt: skip


def test_the_profiler_is_left_as_it_was(calls):
    assert sys.getprofile() is None


def test_the_order_of_a_step_is_that_of_the_trainer(calls, tmp_path, monkeypatch):
    """Recorded anew, by wrapping the functions where the trainer finds them."""
    order = []

    def watch(owner, attribute, name):
        old = getattr(owner, attribute)

        def wrapped(*args, **options):
            order.append(name)
            return old(*args, **options)

        monkeypatch.setattr(owner, attribute, wrapped)

    watch(GPT, "__call__", "model.GPT.__call__")
    watch(parallel.F, "cross_entropy", "functional.cross_entropy")
    watch(Tensor, "backward", "tensor.Tensor.backward")
    watch(train_module, "clip_grad_norm", "optim.clip_grad_norm")
    watch(Trainer, "learning_rate", "train.Trainer.learning_rate")
    watch(AdamW, "step", "optim.AdamW.step")
    watch(Trainer, "_step", "train.Trainer._step")
    kind = CharTokenizer("abc")
    ids = np.arange(40) % 3
    config = TrainConfig(steps=2, batch_size=2, accumulate=2, warmup=0)
    model = GPT(GPTConfig(3, 4, 1, 1, 4), np.random.default_rng(0))
    trainer = Trainer(model, kind, ids, ids, config, tmp_path, np.random.default_rng(0))
    trainer._step()
    trainer._step()
    names = [name for name in calls[0] if name != "train.Trainer._batches"]
    start = names.index("train.Trainer._step")
    assert order == names[start : start + len(order)]
    assert len(order) == 2 * (1 + 2 * 3 + 3)
    drawn = set(zip(names, names[1:], strict=False))
    assert set(zip(order, order[1:], strict=False)) <= drawn
    assert ("evaluate.nats_per_token", "optim.AdamW.step") not in drawn  # as S4 draws it
    assert ("optim.AdamW.step", "evaluate.nats_per_token") in drawn
