"""An explanation as a web page that stands alone: the text, its next token, layers, heads."""

from collections.abc import Iterator
from html import escape

import numpy as np

from minigpt.interpret.explain import Explanation
from minigpt.interpret.labels import shortened, visible
from minigpt.interpret.maps import LEAST, SIDE, attention_map, detail_of
from minigpt.interpret.reading import Reading, distance, entropy
from minigpt.interpret.style import HOW_TO_READ, STYLE
from minigpt.interpret.text import guesses, layer_name, percent
from minigpt.webpage import document

ROWS = 128  # positions in the tables; all are in the text above them and in the maps
WIDEST = 16  # characters of a token in a table
SURPRISE = 6  # nats that have the full colour: one guess of 400
ROOT = "The colour grows with the root of the weight, so that small ones are seen."
TOLD = {  # by what detail_of says
    "cells": f"Point at a cell for its weight; below {LEAST} it is left blank.",
    "rows": f"Point at a row for its three largest weights. {ROOT}",
    "": ROOT,
}


def as_page(found: Explanation, source: str) -> str:
    """The page. source: where the model comes from, to be named."""
    beginning = shortened(visible(" ".join(found.text.split()), " "), 60)
    title = f"What a GPT makes of “{beginning}”"
    body = [f"<h1>{escape(title)}</h1>", _facts(found, source), HOW_TO_READ, *_text(found),
            *_next(found), *_tokens(found), *_lens(found), *_heads(found),
            '<p class="soft">Written by minigpt explain.</p>']  # fmt: skip
    return document(title, body, STYLE)


def _facts(found: Explanation, source: str) -> str:
    c, T = found.trace.model.config, len(found.labels)
    told = (f"{visible(source, ' ')}: {c.n_layer} blocks of {c.n_head} heads, {c.n_embd} channels, "
            f"{c.vocab_size:,} tokens known, positions: {c.position}.")  # fmt: skip
    if found.left_out:
        told += (f" The text has {found.left_out + T:,} tokens, and the model sees {T:,}: the last"
                 " that fit into its block size. All that follows is about these.")  # fmt: skip
    return f'<p class="soft">{escape(told)}</p>'


def _text(found: Explanation) -> Iterator[str]:
    """Every token, the more coloured the less it was expected."""
    last, T = found.readings[-1], len(found.labels)
    yield "<h2>The text, and how much it surprises the model</h2>"
    chips = []
    for t, label in enumerate(found.labels):
        nats = last.nats[t - 1] if t else 0.0
        chips.append(f'<span class="tok hot" style="--p:{min(nats / SURPRISE, 1):.2f}" '
                     f'title="{escape(_told(found, last, t))}">{escape(label)}</span>')  # fmt: skip
        if label.replace("\\\\", "").endswith("\\n"):
            chips.append("<br/>")
    yield f'<p class="text">{"".join(chips)}</p>'
    if T > 1:
        even = np.log(found.trace.model.config.vocab_size)
        yield (f"<p>{T - 1:,} tokens at {last.nats.mean():.3f} nats each; guessing all tokens "
               f"evenly would cost {even:.3f}. {int((last.rank == 1).sum()):,} of them were the "
               "model's first guess.</p>")  # fmt: skip
    yield ('<p class="soft">Colour: nats of a token, from <span class="tok hot" style="--p:0">0'
           f'</span> to <span class="tok hot" style="--p:1">{SURPRISE} and more</span>. Point at '
           "one for its numbers.</p>")  # fmt: skip


def _told(found: Explanation, reading: Reading, t: int) -> str:
    """One sentence about the token at t."""
    name = f"{t + 1} {found.labels[t]}"
    if t == 0:
        return f"{name}: nothing was seen before it"
    return (f"{name}: {reading.nats[t - 1]:.2f} nats, rank {reading.rank[t - 1]}. "
            f"Likeliest there: {guesses(found.vocabulary, reading, t - 1)}")  # fmt: skip


def _next(found: Explanation) -> Iterator[str]:
    last = found.readings[-1]
    yield "<h2>What comes next</h2>"
    rows = [
        f'<div class="tok">{escape(shortened(found.vocabulary[token], WIDEST))}</div>'
        f'<div class="bar"><div style="width:{100 * p:.1f}%"></div></div><div>{percent(p)}</div>'
        for token, p in zip(last.guesses[-1], last.p[-1], strict=True)
    ]
    yield f'<div class="bars">{"".join(rows)}</div>'
    rest = 1 - last.p[-1].sum()
    if len(last.p[-1]) < len(found.vocabulary):
        yield f'<p class="soft">All other tokens together: {percent(rest)}.</p>'


def _shown(found: Explanation) -> range:
    """The positions in the tables."""
    T = len(found.labels)
    return range(max(0, T - ROWS), T)


def _cap(found: Explanation) -> str:
    """A sentence about what the tables leave out."""
    first = _shown(found).start
    return f"The last {ROWS} of {first + ROWS:,} tokens." if first else ""


def _tokens(found: Explanation) -> Iterator[str]:
    last = found.readings[-1]
    yield (
        f"<h2>Token by token</h2><p>{_cap(found)}</p>" if _cap(found) else "<h2>Token by token</h2>"
    )
    rows = ['<tr><th class="n">#</th><th>token</th><th class="n">nats</th><th class="n">rank</th>'
            "<th>likeliest in its place</th></tr>"]  # fmt: skip
    for t in _shown(found):
        numbers = '<td class="n">–</td>' * 2 + '<td class="soft">nothing was seen before it</td>'
        if t:
            nats, rank = last.nats[t - 1], last.rank[t - 1]
            tint = f'style="--p:{min(nats / SURPRISE, 1):.2f}"'
            numbers = (f'<td class="n hot" {tint}>{nats:.2f}</td><td class="n">{rank:,}</td>'
                       f'<td class="alts">{_alternatives(found, last, t)}</td>')  # fmt: skip
        rows.append(f'<tr><td class="n soft">{t + 1}</td><td>{_tok(found.labels[t])}</td>'
                    f"{numbers}</tr>")  # fmt: skip
    yield f'<div class="scroll"><table class="tokens">{"".join(rows)}</table></div>'


def _tok(label: str) -> str:
    return f'<span class="tok">{escape(shortened(label, WIDEST))}</span>'


def _alternatives(found: Explanation, reading: Reading, t: int) -> str:
    """The guesses for the token at t; the right one is marked."""
    return " ".join(
        f'<span class="alt{" right" if token == found.trace.idx[t] else ""}">'
        f"{_tok(found.vocabulary[token])} {percent(p)}</span>"
        for token, p in zip(reading.guesses[t - 1], reading.p[t - 1], strict=True)
    )


def _lens(found: Explanation) -> Iterator[str]:
    """A row a position, a column a layer: its first guess of what comes next."""
    T, readings = len(found.labels), found.readings
    yield "<h2>What each layer would say: the logit lens</h2>"
    yield ("<p>The likeliest next token after each position, if the model ended after that block; "
           "its probability, as the colour too; and the nats of the token that does come. "
           f"<b>✓</b>: it is that token. {_cap(found)}</p>")  # fmt: skip
    heads = "".join(f"<th>{layer_name(layer)}</th>" for layer in range(len(readings)))
    rows = [f'<tr><th class="n">#</th><th class="stay">after</th>{heads}<th>comes</th></tr>']
    for t in _shown(found):
        comes = _tok(found.labels[t + 1]) if t + 1 < T else "?"
        cells = "".join(_cell(found, layer, t) for layer in range(len(readings)))
        rows.append(f'<tr><td class="n soft">{t + 1}</td><td class="stay">{_tok(found.labels[t])}'
                    f"</td>{cells}<td>{comes}</td></tr>")  # fmt: skip
    if T > 1:
        means = "".join(f"<td>{reading.nats.mean():.2f}</td>" for reading in readings)
        rows.append('<tr class="mean"><td></td><td class="stay">mean nats</td>'
                    f"{means}<td></td></tr>")  # fmt: skip
    yield f'<div class="scroll"><table class="lens">{"".join(rows)}</table></div>'


def _cell(found: Explanation, layer: int, t: int) -> str:
    reading, T = found.readings[layer], len(found.labels)
    right = t + 1 < T and reading.guesses[t, 0] == found.trace.idx[t + 1]
    told = f"after {layer_name(layer)}: {guesses(found.vocabulary, reading, t)}"
    small = percent(reading.p[t, 0])
    if t + 1 < T:
        told += f". Comes: rank {reading.rank[t]}, {reading.nats[t]:.2f} nats"
        small += f" · {reading.nats[t]:.1f}"
    return (f'<td class="cell{" right" if right else ""}" style="--p:{reading.p[t, 0]:.2f}" '
            f'title="{escape(told)}">{_tok(found.vocabulary[reading.guesses[t, 0]])}'
            f"{'<b> ✓</b>' if right else ''}<small>{small}</small></td>")  # fmt: skip


def _heads(found: Explanation) -> Iterator[str]:
    """A map for each head, with how far and how widely it looks."""
    att = found.trace.att
    L, H, T, _ = att.shape
    detail = detail_of(att.shape)
    told = TOLD[detail] + f" Beyond {SIDE} tokens a dot is the largest weight of a block." * (
        T > SIDE
    )
    yield "<h2>Where each head looks</h2>"
    yield ("<p>Each row is a token that asks, each column one that is looked at, and the stronger "
           f"the colour, the more of its weight goes there; a row sums to 1. {told} Click on a map "
           "to enlarge it, and beside it to go back.</p>")  # fmt: skip
    for layer in range(L):
        wide, far = entropy(att[layer]), distance(att[layer])
        figures = []
        for head in range(H):
            name = f"Block {layer + 1}, head {head + 1}"
            picture = attention_map(att[layer, head], found.labels, name, detail)
            said = (f"<b>head {head + 1}</b> looks {far[head]:.1f} tokens back, "
                    f"entropy {wide[head]:.2f} nats")  # fmt: skip
            figures.append(f'<figure tabindex="0">{picture}<figcaption>{said}</figcaption>'
                           "</figure>")  # fmt: skip
        yield f'<h3>Block {layer + 1}</h3><div class="heads">{"".join(figures)}</div>'
