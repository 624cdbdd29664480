"""A head's weights as a picture: inline SVG in the page's colours, a cell a weight.

Many cells would make the page slow. Then the map is a PNG inside the SVG, and beyond SIDE tokens a
pixel is the largest weight of a block.
"""

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np

from minigpt.interpret.labels import columns, shortened

CELLS = 20_000  # that tell a number when pointed at, in all maps of a page
SIDE = 256  # rows and columns of a map at most
LABELLED = 64  # tokens: beyond, no label could be read
LEAST = 0.005  # a weight that is drawn, and named
BLUE = (46, 137, 207)  # seen on a light page and on a dark one
UNIT = 10  # side of a cell, in the units of the SVG
WIDEST = 9  # characters of a label


def detail_of(shape: tuple[int, ...]) -> str:
    """What can tell numbers in maps (L, H, T, T): "cells", "rows", or, of too many, nothing, ""."""
    L, H, T, _ = shape
    maps = L * H
    return "cells" if maps * T * (T + 1) // 2 <= CELLS else "rows" if maps * T <= CELLS else ""


def attention_map(att: np.ndarray, labels: Sequence[str], name: str, detail: str) -> str:
    """One head. Shapes: att (T, T), a row a query. detail: see detail_of."""
    T = len(att)
    labelled = T <= LABELLED
    shown = [shortened(label, WIDEST) for label in labels] if labelled else []
    longest = max(map(columns, shown), default=0)
    margin = 0.5 * UNIT * longest + 4 if labelled else 1  # left of the queries
    top = margin if longest > 2 else UNIT + 2 if labelled else 1  # above the keys
    side = T * UNIT
    edge = f"h{UNIT}v{UNIT}" * T if T <= SIDE else f"L{side} {side}"  # of what may be seen
    parts = [f'<path class="seen" d="M0 0{edge}H0z"/>']
    parts += _cells(att, labels) if detail == "cells" else [_image(att, side)]
    parts += _rows(att, labels) if detail == "rows" else []
    parts += _labels(shown, turned=longest > 2)
    box = f"{-margin:g} {-top:g} {side + margin + 1:g} {side + top + 1:g}"
    return (f'<svg class="map" role="img" aria-label="{escape(name)}" viewBox="{box}">'
            + "".join(parts) + "</svg>")  # fmt: skip


def _cells(att: np.ndarray, labels: Sequence[str]) -> list[str]:
    """A square for each weight that can be seen, which says its number when pointed at."""
    return [
        f'<rect x="{j * UNIT}" y="{i * UNIT}" width="{UNIT}" height="{UNIT}" '
        f'opacity="{att[i, j]:.2f}"><title>{_place(labels, i)} looks at {_place(labels, j)}: '
        f"{att[i, j]:.3f}</title></rect>"
        for i, j in np.argwhere(att >= LEAST).tolist()
    ]


def _place(labels: Sequence[str], t: int) -> str:
    return f"{t + 1} {escape(shortened(labels[t], 40))}"


def _rows(att: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Over an image: what each query looks at most."""
    rows = []
    for i, weights in enumerate(att):
        best = [j for j in np.argsort(-weights, kind="stable")[:3].tolist() if weights[j] >= LEAST]
        said = ", ".join(f"{_place(labels, j)}: {weights[j]:.3f}" for j in best)
        rows.append(f'<rect y="{i * UNIT}" width="{(i + 1) * UNIT}" height="{UNIT}" opacity="0">'
                    f"<title>{_place(labels, i)} looks at {said}</title></rect>")  # fmt: skip
    return rows


def _labels(shown: Sequence[str], turned: bool) -> list[str]:
    """Queries on the left, keys above: upwards if they are long."""
    parts = []
    for t, label in enumerate(shown):
        middle = (t + 0.5) * UNIT
        parts.append(f'<text x="-2" y="{middle + 2.5:g}" text-anchor="end">{escape(label)}</text>')
        turn = f'transform="translate({middle + 2.5:g} -2) rotate(-90)"'
        place = turn if turned else f'x="{middle:g}" y="-2" text-anchor="middle"'
        parts.append(f"<text {place}>{escape(label)}</text>")
    return parts


def _image(att: np.ndarray, side: int) -> str:
    # The root: of many keys each has little weight, and would not be seen.
    data = base64.b64encode(png(np.sqrt(largest_of_blocks(att, SIDE)))).decode()
    return f'<image width="{side}" height="{side}" href="data:image/png;base64,{data}"/>'


def largest_of_blocks(att: np.ndarray, most: int) -> np.ndarray:
    """The map itself, or one of at most `most` rows: each entry is the largest of a block.

    Shapes: (T, T) -> (n, n), n <= most.
    """
    size = -(-len(att) // most)  # the side of a block, rounded up
    n = -(-len(att) // size)
    whole = np.zeros((n * size, n * size), att.dtype)
    whole[: len(att), : len(att)] = att
    return whole.reshape(n, size, n, size).max((1, 3))


def png(weights: np.ndarray) -> bytes:
    """A PNG in one colour, the more opaque the larger the weight. Shapes: (n, m) in 0..1.

    A palette of 256 times that colour, and its transparency beside it: one byte a pixel.
    Source: PNG specification, 3rd edition, sec. 11.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    pixels = np.rint(255 * np.clip(weights, 0, 1)).astype(np.uint8)  # (n, m)
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # each begins with a filter type, 0: none
    n, m = pixels.shape
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", m, n, 8, 3, 0, 0, 0))  # 8 bits, a palette
        + chunk(b"PLTE", bytes(BLUE) * 256)
        + chunk(b"tRNS", bytes(range(256)))
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + chunk(b"IEND", b"")
    )
