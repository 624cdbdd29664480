"""An explanation for a terminal."""

from collections.abc import Iterator

from minigpt.interpret.explain import Explanation
from minigpt.interpret.labels import columns, padded, shortened
from minigpt.interpret.reading import Reading

ROWS = 40  # tokens that are printed; the page has more
WIDEST = 20  # columns of a token


def as_text(found: Explanation) -> str:
    """The tokens with what the model said of each, and what each layer says comes next."""
    return "\n".join([*_tokens(found), "", *_layers(found)])


def _tokens(found: Explanation) -> Iterator[str]:
    shown = [shortened(label, WIDEST) for label in found.labels]
    T, last = len(shown), found.readings[-1]
    first = max(0, T - ROWS)
    width = max(map(columns, [*shown[first:], "token"]))
    yield f"{'#':>5s}  {padded('token', width)}    nats  rank  likeliest in its place"
    if first:
        yield f"{'...':>5s}  ({first} tokens more, not printed here)"
    for t in range(first, T):
        numbers, said = "     -     -", "(nothing was seen before it)"
        if t:
            numbers = f"{last.nats[t - 1]:6.2f}{last.rank[t - 1]:6d}"
            said = guesses(found.vocabulary, last, t - 1)
        yield f"{t + 1:5d}  {padded(shown[t], width)}  {numbers}  {said}"
    yield f"{'next':>5s}  {padded('?', width)}  {'':12s}  {guesses(found.vocabulary, last, -1)}"
    if T > 1:
        yield f"{'mean':>5s}  {'':{width}s}  {last.nats.mean():6.2f}"


def _layers(found: Explanation) -> Iterator[str]:
    yield "What comes next, read off after each block (the logit lens):"
    for layer, reading in enumerate(found.readings):
        yield f"{layer_name(layer):>9s}  {guesses(found.vocabulary, reading, -1)}"


def layer_name(layer: int) -> str:
    """Layers as people count them: the embedding, then block 1, 2, ..."""
    return f"block {layer}" if layer else "embedding"


def guesses(vocabulary: list[str], reading: Reading, t: int) -> str:
    """The likeliest tokens after position t, each with its probability."""
    pairs = zip(reading.guesses[t], reading.p[t], strict=True)
    return "  ".join(f"{shortened(vocabulary[i], WIDEST)} {percent(p)}" for i, p in pairs)


def percent(p: float) -> str:
    """A probability in two digits: 43%, 4.3%; below a thousandth <0.1%."""
    return f"{100 * p:.0f}%" if p >= 0.0995 else f"{100 * p:.1f}%" if p >= 0.001 else "<0.1%"
