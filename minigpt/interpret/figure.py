"""An explanation as one figure: the logit lens above, the maps of all heads below.

Matplotlib is loaded only here, and draws into a file, never on a screen.
"""

import io
from typing import Any

from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from minigpt.interpret.explain import Explanation
from minigpt.interpret.labels import shortened
from minigpt.interpret.text import layer_name

FORMS: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None}}
LABELLED = 40  # tokens: beyond, their numbers stand in their place
WIDEST = 8  # characters of a label
FONT = "DejaVu Sans"


@style.context("default")  # whatever the user has set for figures of his own
def as_figure(found: Explanation, ending: str) -> bytes:
    """The file's content. ending: of FORMS."""
    L, H, T, _ = found.trace.att.shape
    above, below = 1.6 + 0.25 * L, 2.2 * L  # inches
    labels = [drawable(shortened(label, WIDEST)) for label in found.labels]
    with rc_context({"svg.hashsalt": "minigpt", "font.family": FONT, "font.size": 9}):
        figure = Figure(figsize=(max(7.0, 2.0 * H, 0.22 * min(T, LABELLED)), above + below),
                        layout="constrained")  # fmt: skip
        parts: Any = figure.subfigures(2, height_ratios=[above, below])
        lens, maps = parts
        _lens(lens.add_subplot(), found, labels)
        grid = maps.subplots(L, H, squeeze=False, sharex=True, sharey=True)
        for layer in range(L):
            for head in range(H):
                axes = grid[layer, head]
                axes.imshow(found.trace.att[layer, head], cmap="Blues", vmin=0, vmax=1)
                axes.set_title(f"block {layer + 1}, head {head + 1}", size=9)
                _name(axes.yaxis, labels)
                _name(axes.xaxis, labels, upright=True)
        content = io.BytesIO()
        figure.savefig(content, format=ending[1:], dpi=150, metadata=FORMS[ending])
    return content.getvalue()


def _lens(axes: Axes, found: Explanation, labels: list[str]) -> None:
    """Nats of the token that comes, by layer and position. Blank: nothing comes any more."""
    layers = range(len(found.readings))
    axes.set_title("nats of the token that comes after each, by layer (the logit lens)", size=9)
    axes.set_yticks(layers, [layer_name(layer) for layer in layers])
    _name(axes.xaxis, labels, upright=True)
    if len(labels) > 1:
        nats = [reading.nats for reading in found.readings]
        picture = axes.imshow(nats, cmap="cividis", vmin=0, aspect="auto")
        axes.figure.colorbar(picture, ax=axes, pad=0.01)
    axes.set_xlim(-0.5, len(labels) - 0.5)


def _name(axis: Any, labels: list[str], upright: bool = False) -> None:
    """Tokens on an axis, if there is room for them."""
    if len(labels) <= LABELLED:
        turn = 90 if upright and max(map(len, labels)) > 2 else 0
        axis.set_ticks(range(len(labels)), labels, size=6, rotation=turn, parse_math=False)


def drawable(label: str) -> str:
    """The label, with code points in place of characters that the figure's font lacks."""
    font = get_font(findfont(FONT))
    return "".join(c if font.get_char_index(ord(c)) else f"\\u{ord(c):04x}" for c in label)
