"""Diagrams of models: every parameter once, the tape's arrows, and nothing that is not computed."""

import re
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from minigpt import attention as attention_module
from minigpt import functional as F
from minigpt import ops
from minigpt.__main__ import main
from minigpt.attention import attention
from minigpt.backend import to_numpy
from minigpt.checkpoint import Checkpoint, save_checkpoint
from minigpt.diagram.attention import parts_of
from minigpt.diagram.build import whole_diagram
from minigpt.diagram.folding import diagram_of
from minigpt.diagram.mermaid import _escaped, mermaid
from minigpt.diagram.parts import reachable
from minigpt.diagram.tape import KeepAll, named_modules, run
from minigpt.model import GPT, POSITIONS, Block, CausalSelfAttention, GPTConfig
from minigpt.nn import LayerNorm, Module, parameter
from minigpt.tensor import Tensor
from minigpt.tokenizer import CharTokenizer
from minigpt.variants.llama import Llama, LlamaConfig
from tests.flowchart import parse

TINY = GPTConfig(vocab_size=7, block_size=5, n_layer=2, n_head=2, n_embd=8)
LLAMA = LlamaConfig(vocab_size=7, block_size=5, n_layer=3, n_head=4, n_kv_head=2, n_embd=16,
                    n_hidden=6)  # fmt: skip
CONFIGS = [
    *(replace(TINY, position=position) for position in POSITIONS),
    replace(TINY, position="alibi", tied=False, bias=False, dropout=0.1),
    replace(TINY, tied=False), replace(TINY, bias=False), replace(TINY, dropout=0.5),
    replace(TINY, n_layer=1), replace(TINY, n_layer=5), replace(TINY, block_size=2),
    replace(TINY, block_size=1), LLAMA, replace(LLAMA, tied=False), replace(LLAMA, n_kv_head=4),
]  # fmt: skip


def build(config=TINY, dtype="float32"):
    kind = GPT if isinstance(config, GPTConfig) else Llama
    return kind(config, np.random.default_rng(0), dtype)


def edges(diagram, kind="flow"):
    """Pairs of titles."""
    names = {box.name: box.title for box in diagram.boxes}
    return [(names[e.source], names[e.target]) for e in diagram.edges if e.kind == kind]


# --- parameters ---


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_parameter_is_in_one_box_and_the_numbers_sum_to_the_model(config):
    model = build(config)
    for diagram in (diagram_of(model), whole_diagram(model)):
        held = Counter(name for box in diagram.boxes for name in box.parameters)
        assert held == Counter(name for name, _ in model.named_parameters())
        assert sum(box.count * box.copies for box in diagram.boxes) == model.num_parameters()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_text_is_legal_and_its_numbers_sum_to_the_model(config):
    """Read from the text alone: labels, and how many blocks a frame says there are."""
    model = build(config)
    chart = parse(mermaid(diagram_of(model)))
    total = 0
    for name, lines in chart.nodes.items():
        n = next((int(line.split()[0].replace(",", "")) for line in lines
                  if line.endswith(" parameters")), 0)  # fmt: skip
        for frame in chart.inside[name]:
            n *= int((re.search(r"× (\d+)", chart.subgraphs[frame]) or [0, 1])[1])
        total += n
    assert total == model.num_parameters()
    assert chart.title == f"{type(model).__name__}: {total:,} parameters"
    assert len(chart.inside) > len(chart.subgraphs)


def test_boxes_have_the_names_of_modules_and_their_shapes():
    diagram = diagram_of(build(replace(TINY, n_layer=1)))
    boxes = {box.title: box for box in diagram.boxes}
    modules = {name for name, _ in named_modules(build(replace(TINY, n_layer=1)))}
    assert {t for t, box in boxes.items() if box.kind == "module"} <= modules
    expected = {
        "ids": ("B", "T"), "positions": ("T",), "wte": ("B", "T", 8), "wpe": ("T", 8),
        "h.0.attn.c_attn": ("B", "T", 24), "split into heads": (3, "B", 2, "T", 4),
        "causal mask": ("B", 2, "T", "T"), "att v": ("B", 2, "T", 4), "join heads": ("B", "T", 8),
        "gelu": ("B", "T", 32), "lm_head": ("B", "T", 7), "cross_entropy": (),
        "targets": ("B", "T"),
    }  # fmt: skip
    assert {title: boxes[title].shape for title in expected} == expected
    assert boxes["h.0.attn.c_attn"].count == 8 * 24 + 24
    assert boxes["h.0.attn.c_attn"].lines() == [
        "h.0.attn.c_attn", "Linear", "(B, T, 24)", "216 parameters"]  # fmt: skip
    assert boxes["positions"].lines() == ["positions", "(T,)"]


def test_parameters_that_the_loss_does_not_hang_on_are_drawn_apart():
    class Cut(LayerNorm):
        def __call__(self, x):
            return x

    model = build()
    model.ln_f.__class__ = Cut
    diagram = diagram_of(model)
    unused = [box for box in diagram.boxes if box.note == "not used"]
    assert {box.parameters for box in unused} == {("ln_f.weight",), ("ln_f.bias",)}
    assert not any(e.source == box.name or e.target == box.name
                   for e in diagram.edges for box in unused)  # fmt: skip


def test_a_trained_tensor_that_no_module_lists_is_refused():
    model = build()
    model.h[0].gains = {"a": parameter(np.ones(8), "float32")}  # a dict is not walked
    old = Block.__call__

    class Hidden(Block):
        def __call__(self, x, rng=None, bias=None):
            return old(self, x, rng, bias) * self.gains["a"]

    model.h[0].__class__ = Hidden
    with pytest.raises(ValueError, match=r"shape \(8,\) that is neither"):
        diagram_of(model)


def test_what_the_loss_does_not_hang_on_is_not_drawn():
    class Idle(Block):
        def __call__(self, x, rng=None, bias=None):
            F.gelu(x) + x
            return super().__call__(x, rng, bias)

    model = build()
    for block in model.h:
        block.__class__ = Idle
    idle, plain = diagram_of(model), diagram_of(build())
    assert idle.boxes == plain.boxes and idle.edges == plain.edges


def test_zeros_in_place_of_an_offset_are_no_input():
    diagram = diagram_of(build(replace(TINY, bias=False)))
    inputs = [box.title for box in diagram.boxes if box.kind == "input"]
    assert inputs == ["ids", "positions", "targets"]


# --- edges ---


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_ways_are_those_of_the_tape(config):
    """For each two parameters: does what uses the one go into what uses the other?"""
    model = build(config)
    diagram = whole_diagram(model)
    idx = np.arange(2).reshape(2, 1) % 7
    loss = F.cross_entropy(model(idx, KeepAll()), idx)
    users = users_on_the_tape(loss, model)
    boxes = {name: {box.name} for box in diagram.boxes for name in box.parameters}
    for edge in diagram.edges:
        if edge.kind == "tied":
            for name in diagram.box(edge.source).parameters:
                boxes[name].add(edge.target)
    flows = [edge for edge in diagram.edges if edge.kind != "tied"]
    for a in users:
        reached = set().union(*(reachable(flows, name) for name in boxes[a]))
        for b in users:
            assert bool(reached & boxes[b]) == bool(users[a][1] & users[b][0]), (a, b)


def users_on_the_tape(loss, model):
    """Parameter -> (ids of the nodes that use it, ids of these and of all computed from them)."""
    children, nodes, stack = {}, {id(loss): loss}, [loss]
    while stack:
        node = stack.pop()
        for parent in node._parents:
            if parent is not None:
                children.setdefault(id(parent), []).append(node)
                if id(parent) not in nodes:
                    nodes[id(parent)] = parent
                    stack.append(parent)
    found = {}
    for name, p in model.named_parameters():
        users = list(children[id(p)])
        for i, node in enumerate(users):  # the head's transposed table is still the table
            if node.shape == p.shape[::-1] and p.ndim == 2:
                users[i : i + 1] = children[id(node)]
        below, stack = {id(node) for node in users}, list(users)
        while stack:
            for child in children.get(id(stack.pop()), []):
                if id(child) not in below:
                    below.add(id(child))
                    stack.append(child)
        found[name] = ({id(node) for node in users}, below)
    return found


@pytest.mark.parametrize("config", [TINY, replace(TINY, dropout=0.1), LLAMA], ids=str)
def test_two_residual_edges_a_block(config):
    diagram = whole_diagram(build(config))
    assert sum(edge.kind == "residual" for edge in diagram.edges) == 2 * config.n_layer
    assert sum(box.kind == "sum" for box in diagram.boxes) == 2 * config.n_layer
    assert len(edges(diagram_of(build(config)), "residual")) == 2


def test_which_the_residual_edges_are():
    diagram = whole_diagram(build(replace(TINY, n_layer=1)))
    names = [(e.source, e.target) for e in diagram.edges if e.kind == "residual"]
    assert names == [("add", "h_0_add"), ("h_0_add", "h_0_add_2")]
    assert ("wte", "+") in edges(diagram) and ("wpe", "+") in edges(diagram)  # no shortcut


class NoResidual(Block):
    def __call__(self, x, rng=None, bias=None):
        x = self.attn(self.ln_1(x), rng, bias)
        return x + self.mlp(self.ln_2(x))


def test_a_residual_that_is_taken_out_is_no_longer_drawn():
    model = build()
    before = diagram_of(model)
    for block in model.h:
        block.__class__ = NoResidual
    after = diagram_of(model)
    assert len(edges(before, "residual")) == 2
    assert [(e.source, e.target) for e in after.edges if e.kind == "residual"] == [
        ("h_0_attn_c_proj", "h_0_add")]  # fmt: skip
    assert mermaid(before) != mermaid(after)
    assert {b.title for b in before.boxes} == {b.title for b in after.boxes}


def test_tied_and_untied():
    tied, untied = (diagram_of(build(replace(TINY, tied=tied))) for tied in (True, False))
    assert edges(tied, "tied") == [("wte", "lm_head")]
    assert edges(untied, "tied") == []
    heads = [next(b for b in d.boxes if b.title == "lm_head") for d in (tied, untied)]
    assert [head.parameters for head in heads] == [(), ("lm_head.weight",)]
    assert edges(diagram_of(build(LLAMA)), "tied") == [("tok_embeddings", "linear")]
    assert edges(diagram_of(build(replace(LLAMA, tied=False))), "tied") == []


@pytest.mark.parametrize(
    ("position", "present", "absent"),
    [
        ("learned", [("positions", "wpe"), ("wpe", "+")], {"rotary", "+ bias", "waves"}),
        ("sinusoid", [("waves", "+")], {"wpe", "positions", "rotary", "+ bias"}),
        (
            "rope",
            [("split into heads", "rotary"), ("rotary", "q kᵀ / √D")],
            {"wpe", "waves", "+ bias"},
        ),
        ("alibi", [("distances", "+ bias"), ("q kᵀ / √D", "+ bias")], {"wpe", "waves", "rotary"}),
        ("none", [("wte", "ln_1")], {"wpe", "waves", "rotary", "+ bias", "distances"}),
    ],
)
def test_each_way_to_tell_positions(position, present, absent):
    diagram = diagram_of(build(replace(TINY, position=position)))
    assert set(present) <= set(edges(diagram))
    assert not absent & {box.title for box in diagram.boxes}
    assert ("causal mask", "softmax") in edges(diagram)


def test_indices_in_another_order_are_no_positions(monkeypatch):
    monkeypatch.setattr("minigpt.model.host_arange", lambda n: np.arange(n)[::-1])
    titles = {box.title for box in diagram_of(build()).boxes}
    assert "constant" in titles and "positions" not in titles


def test_where_q_k_and_v_go():
    def labels(config):
        diagram = diagram_of(build(config))
        names = {box.name: box.title for box in diagram.boxes}
        return {(names[e.source], e.label, names[e.target]) for e in diagram.edges if e.label}

    assert {("split into heads", "q, k", "q kᵀ / √D"), ("split into heads", "v", "att v"),
            ("lm_head", "logits", "cross_entropy")} <= labels(TINY)  # fmt: skip
    llama = labels(LLAMA)
    assert {("rotary", "q", "q kᵀ / √D"), ("broadcast_to", "k", "q kᵀ / √D"),
            ("broadcast_to", "v", "att v"), ("feed_forward.w1", "gate", "swiglu"),
            ("feed_forward.w3", "up", "swiglu")} <= llama  # fmt: skip
    full = diagram_of(build(replace(LLAMA, n_kv_head=4)))  # nothing is shared, nothing repeated
    assert "broadcast_to" not in {box.title for box in full.boxes}


def test_dropout_is_drawn_where_it_is():
    diagram = diagram_of(build(replace(TINY, dropout=0.25)))
    assert {("+", "drop"), ("drop", "ln_1"), ("softmax", "dropout"), ("dropout", "att v"),
            ("attn.c_proj", "drop"), ("mlp.c_proj", "drop")} <= set(edges(diagram))  # fmt: skip
    notes = {box.note for box in diagram.boxes if "drop" in box.title}
    assert notes == {"Dropout, p = 0.25", "p = 0.25"}
    assert not any("drop" in box.title for box in diagram_of(build()).boxes)


def test_swapped_sublayers_are_another_diagram_and_equal_models_are_the_same():
    class Swapped(Block):
        def __call__(self, x, rng=None, bias=None):
            x = x + self.mlp(self.ln_2(x))
            return x + self.attn(self.ln_1(x), rng, bias)

    model, same, swapped = build(), build(), build()
    for block in swapped.h:
        block.__class__ = Swapped
    assert mermaid(diagram_of(model)) == mermaid(diagram_of(same))
    assert mermaid(diagram_of(model)) != mermaid(diagram_of(swapped))
    flows = edges(diagram_of(swapped))
    assert ("+", "ln_2") in flows and ("attn.c_proj", "+") in flows


# --- attention ---


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_parts_of_attention_give_what_the_primitive_gave(config):
    steps = [s for s in run(build(config, "float64"), 2, 1).steps if "attention" in s.op]
    assert len(steps) == config.n_layer
    for step in steps:
        found = to_numpy(parts_of(step)[-1].out)
        np.testing.assert_allclose(found, step.out.numpy(), rtol=1e-9, atol=1e-12)


def test_the_mask_is_measured_and_not_believed():
    class Unmasked(CausalSelfAttention):
        def __call__(self, x, rng=None, bias=None):
            B, T, C = x.shape
            parts = self.c_attn(x).reshape(B, T, 3, self.n_head, -1).transpose(2, 0, 3, 1, 4)
            out = attention(*(parts[i] for i in range(3)))
            return self.c_proj(out.transpose(0, 2, 1, 3).reshape(B, T, C))

    model = build(TINY)
    for block in model.h:
        block.attn.__class__ = Unmasked
    titles = {box.title for box in diagram_of(model).boxes}
    assert "softmax" in titles and "causal mask" not in titles
    assert "causal mask" in {box.title for box in diagram_of(build(LLAMA)).boxes}


def test_another_scale_is_refused(monkeypatch):
    right = attention_module._attend

    def wrong(q, k, v, *rest, **options):
        return right(q * 1000, k, v, *rest, **options)

    monkeypatch.setattr(attention_module, "_attend", wrong)
    with pytest.raises(ValueError, match="does not compute softmax"):
        diagram_of(build())


# --- folding ---


def test_equal_blocks_are_drawn_once_and_others_each():
    model = build(replace(TINY, n_layer=3))
    folded, whole = diagram_of(model), whole_diagram(model)
    block = [box for box in folded.boxes if box.copies == 3]
    assert len(whole.boxes) == len(folded.boxes) + 2 * len(block)
    assert "h.0 to h.2: Block × 3" in {frame.title for frame in folded.frames}
    model.h[1].__class__ = NoResidual
    assert diagram_of(model) == whole_diagram(model)
    assert {"h.0.ln_1", "h.1.ln_1", "h.2.ln_1"} <= {box.title for box in diagram_of(model).boxes}


@pytest.mark.parametrize("change", ["width", "norm", "shared", "wiring", "class", "early", "skip"])
def test_whatever_differs_or_reaches_further_is_not_folded(change):
    model = build(replace(TINY, n_layer=3))
    if change == "width":
        wide = build(replace(TINY, n_head=4)).h[0].attn
        model.h[2].attn = wide
    elif change == "norm":
        model.h[1].ln_1 = LayerNorm(8, bias=False)
    elif change == "shared":
        model.h[1].mlp = model.h[0].mlp
    elif change == "wiring":
        model.h[1].__class__ = Rewired
        model.h[0].__class__ = model.h[2].__class__ = type("Rewired", (Block,), {})
    elif change == "class":
        model.h[2].__class__ = type("Other", (Block,), {})
    else:
        model.__class__ = Early if change == "early" else Skip
    diagram = diagram_of(model)
    assert all(box.copies == 1 for box in diagram.boxes)
    assert sum(box.count for box in diagram.boxes) == model.num_parameters()


class Rewired(Block):
    """The second sum adds to what came in, not to the first sum. All boxes are as ever."""

    def __call__(self, x, rng=None, bias=None):
        return x + self.mlp(self.ln_2(x + self.attn(self.ln_1(x), rng, bias)))


class Early(GPT):
    """The head reads the mean of all blocks' outputs."""

    def __call__(self, idx, rng=None):
        x, total = self.wte(idx), 0.0
        for block in self.h:
            x = block(x, rng)
            total = total + x
        return F.linear(self.ln_f(total), self.lm_head.weight.T)


class Skip(GPT):
    """Each block reads the output of the block before last, too."""

    def __call__(self, idx, rng=None):
        x = before = self.wte(idx)
        for block in self.h:
            x, before = block(x + before, rng), x
        return F.linear(self.ln_f(x), self.lm_head.weight.T)


# --- the recording ---


class ComposedNorm(Module):
    """A layer norm of six primitives."""

    def __init__(self, C):
        self.weight, self.bias = parameter(np.ones(C), "float32"), parameter(np.zeros(C), "float32")

    def __call__(self, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / ops.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) * self.weight + self.bias


def test_a_module_without_modules_is_one_box_whatever_it_computes():
    model = build()
    model.ln_f = ComposedNorm(8)
    diagram = diagram_of(model)
    box = next(box for box in diagram.boxes if box.title == "ln_f")
    assert (box.note, box.count, box.shape) == ("ComposedNorm", 16, ("B", "T", 8))
    assert sum("ln_f" in pair for pair in edges(diagram)) == 2
    assert len(diagram.boxes) == len(diagram_of(build()).boxes)


def test_the_profiler_is_left_as_it_was():
    def mine(frame, event, argument):
        pass

    before = sys.getprofile()
    sys.setprofile(mine)
    try:
        diagram_of(build())
        assert sys.getprofile() is mine
        model = build()
        model.ln_f = None
        with pytest.raises(TypeError):
            diagram_of(model)
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(before)


def test_recorded_arguments_are_the_parents_on_the_tape():
    steps = run(build(), 2, 3).steps
    assert steps[-1].op == "cross_entropy"
    for step in steps:
        traced = [x for x in step.inputs.values() if isinstance(x, Tensor) and x.requires_grad]
        assert traced == [parent for parent in step.out._parents if parent is not None]


def test_dropout_keeps_all_while_it_is_recorded():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    np.testing.assert_array_equal(F.dropout(x, p=0.5, rng=KeepAll()).numpy(), 2 * x.numpy())


def test_labels_are_escaped():
    assert _escaped('a "b" <c> #1') == "a #quot;b#quot; #lt;c#gt; #35;1"


# --- the command ---


def test_graph_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--n-layer", "2", "--n-head", "2", "--n-embd", "8", "--block-size", "5"]
    assert main(["graph", *options]) == 0
    text = capsys.readouterr().out
    assert text == mermaid(diagram_of(build(replace(TINY, vocab_size=94))))
    for name in ("a.mmd", "a.md", "a.svg", "a.png"):
        assert main(["graph", *options, "--out", name]) == 0
        assert capsys.readouterr().out == f"written {name}\n"
    assert (tmp_path / "a.mmd").read_text("utf-8") == text
    assert (tmp_path / "a.md").read_text("utf-8") == f"```mermaid\n{text}```\n"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "a.svg").read_text("utf-8")


def test_graph_draws_the_checkpoint(tmp_path, capsys):
    model = build(replace(TINY, vocab_size=3, position="rope"))
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint(model, CharTokenizer("abc"), {}, {}))
    assert main(["graph", str(tmp_path / "m.safetensors")]) == 0
    assert capsys.readouterr().out == mermaid(diagram_of(model))


@pytest.mark.parametrize("words", [["--out", "a.pdf"], ["--out", "a"], ["--n-head", "5"], ["no"]])
def test_graph_says_what_is_wrong_on_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["graph", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words[-1] in error
    assert not list(tmp_path.iterdir())
