"""The figure: no box on another, no line through a box, no text beyond its box."""

from dataclasses import replace
from functools import cache
from itertools import combinations

import matplotlib

matplotlib.use("agg")

import pytest
from matplotlib import rc_context
from matplotlib.patches import FancyBboxPatch

from minigpt.diagram import figure as module
from minigpt.diagram.figure import _size, draw
from minigpt.diagram.folding import diagram_of
from minigpt.diagram.layout import lay_out
from minigpt.diagram.parts import within
from minigpt.nn import LayerNorm
from tests.test_diagram import LLAMA, TINY, NoResidual, build

CONFIGS = [
    TINY, replace(TINY, position="alibi", tied=False, dropout=0.1), replace(TINY, position="rope"),
    replace(TINY, n_layer=1), LLAMA, replace(LLAMA, tied=False),
]  # fmt: skip


@cache
def placed(config):
    diagram = diagram_of(build(config))
    return diagram, lay_out(diagram, {box.name: _size(box) for box in diagram.boxes})


def overlap(a, b):
    wide, high = min(a.right, b.right) - max(a.left, b.left), min(a.top, b.top)
    return wide > 0 and high > max(a.bottom, b.bottom)


def crosses(area, a, b):
    """Whether the segment from a to b has a point inside the rectangle, its edge left out."""
    low, high = 0.0, 1.0
    for i, (least, most) in enumerate(((area.left, area.right), (area.bottom, area.top))):
        step = b[i] - a[i]
        if abs(step) < 1e-12:
            if not least + 1e-6 < a[i] < most - 1e-6:
                return False
        else:
            ends = sorted(((least + 1e-6 - a[i]) / step, (most - 1e-6 - a[i]) / step))
            low, high = max(low, ends[0]), min(high, ends[1])
    return low < high


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_boxes_and_lines_keep_clear_of_each_other(config):
    diagram, layout = placed(config)
    assert len(layout.boxes) == len(diagram.boxes) and len(layout.paths) == len(diagram.edges)
    for a, b in combinations(layout.boxes.values(), 2):
        assert not overlap(a, b)
    for edge, path in layout.paths.items():
        for name, area in layout.boxes.items():
            segments = zip(path, path[1:], strict=False)
            assert not any(crosses(area, a, b) for a, b in segments), (edge, name)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_lines_begin_and_end_at_their_boxes(config):
    _, layout = placed(config)
    for edge, path in layout.paths.items():
        for name, (x, y) in ((edge.source, path[0]), (edge.target, path[-1])):
            area = layout.boxes[name]
            at_side = min(abs(x - area.left), abs(x - area.right)) < 1e-9
            at_end = min(abs(y - area.bottom), abs(y - area.top)) < 1e-9
            assert at_side or at_end
            assert area.left - 1e-9 <= x <= area.right + 1e-9
            assert area.bottom - 1e-9 <= y <= area.top + 1e-9


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_frames_hold_their_boxes_and_no_others(config):
    diagram, layout = placed(config)
    for frame in diagram.frames:
        for box in diagram.boxes:
            inside = within(box.scope, frame.scope)
            assert overlap(layout.boxes[box.name], layout.frames[frame.scope]) == inside
            if inside:
                assert layout.frames[frame.scope].around(
                    layout.boxes[box.name]) == layout.frames[frame.scope]  # fmt: skip


def test_the_residual_stream_is_a_level_line():
    diagram, layout = placed(TINY)
    heights = {y for edge, path in layout.paths.items() if edge.kind == "residual" for _, y in path}
    assert len(heights) == 1
    assert min(heights) == min((a.bottom + a.top) / 2 for a in layout.boxes.values())


@pytest.mark.parametrize("config", [TINY, CONFIGS[1], CONFIGS[2], LLAMA], ids=str)
def test_text_is_inside_its_box_and_clear_of_the_rest(config, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(module, "write_figure", lambda path, figure: kept.append(figure))
    diagram = diagram_of(build(config))
    draw(diagram, tmp_path / "a.png")
    axes = kept[0].axes[0]
    axes.figure.canvas.draw()
    patches = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert len(patches) == len(diagram.boxes)
    lines = {line for box in diagram.boxes for line in module.lines_of(box)}
    page, others = kept[0].bbox, []
    for text in axes.texts:
        extent = text.get_window_extent()
        assert page.x0 <= extent.x0 and extent.x1 <= page.x1, text.get_text()
        assert page.y0 <= extent.y0 and extent.y1 <= page.y1, text.get_text()
        if text.get_text() in lines:
            around = [p for p in patches if p.contains(*extent.min) and p.contains(*extent.max)]
            assert len(around) == 1, text.get_text()
        else:
            others.append(extent)
            assert not any(p.overlaps(extent) for p in patches), text.get_text()
    assert len(axes.texts) == len(others) + sum(len(module.lines_of(b)) for b in diagram.boxes)
    assert not any(a.overlaps(b) for a, b in combinations(others, 2))


class Identity(LayerNorm):
    def __call__(self, x):
        return x


@pytest.mark.parametrize("change", ["no residual", "not used"])
def test_other_structures_are_laid_out_too(change):
    model = build()
    if change == "not used":
        model.ln_f.__class__ = Identity
    for block in model.h[1:] if change == "no residual" else ():
        block.__class__ = NoResidual
    diagram = diagram_of(model)
    layout = lay_out(diagram, {box.name: _size(box) for box in diagram.boxes})
    assert len(layout.boxes) == len(diagram.boxes) and len(layout.paths) == len(diagram.edges)
    assert not any(overlap(a, b) for a, b in combinations(layout.boxes.values(), 2))


def test_the_same_diagram_is_the_same_file_whatever_the_users_style(tmp_path):
    diagram = diagram_of(build())
    draw(diagram, tmp_path / "a.svg")
    with rc_context({"figure.constrained_layout.use": True, "font.size": 30, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        draw(diagram, tmp_path / "b.svg")
        assert before == dict(matplotlib.rcParams)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(ValueError, match=r"a.gif: expected a name that ends in"):
        draw(diagram, tmp_path / "a.gif")
