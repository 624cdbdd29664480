"""Text as it comes: tokens are drawn, decoded and given, piece after piece."""

from collections.abc import Iterator, Sequence
from typing import Any

from minigpt.generate import Generators, generate
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer


def stream(
    model: GPT, tokenizer: Tokenizer, prompt: str, n: int, *, rng: Generators,
    stop: Sequence[str] = (), **decoding: Any,
) -> Iterator[str]:  # fmt: skip
    """What the model continues the prompt with: `for piece in stream(...)`.

    A piece is what one token adds, and may be empty: a token of byte pairs may end amid a
    character. After n tokens comes one more piece, what was left. stop: the text ends before
    the first of these. decoding: temperature, top_k, ...: the fields of Decoding.
    Raises: ValueError, before the first piece, if an argument is not such.
    """
    if not prompt:
        raise ValueError("the prompt must have at least one character")
    stopper = Stopper(stop)
    idx = tokenizer.encode(prompt)[None]  # (1, T)
    tokens = generate(model, idx, n, rng=rng, **decoding)

    def pieces() -> Iterator[str]:
        decoder = tokenizer.decoder()
        for token in tokens:
            yield stopper.push(decoder.push(token))
            if stopper.stopped:
                return
        yield stopper.push(decoder.end()) + stopper.end()

    return pieces()


class Stopper:
    """Text that arrives in pieces, up to the first stop string, however the pieces cut it.

    The end of what came may be the beginning of a stop string: that part waits.
    Raises: ValueError if a stop string is empty.
    """

    def __init__(self, stops: Sequence[str]):
        if not all(stops):
            raise ValueError("a stop text must have at least one character")
        self._stops, self._held, self.stopped = stops, "", False

    def push(self, text: str) -> str:
        """What is certain to come before any stop string, and was not given yet."""
        held = self._held + text
        found = [(held.find(stop) + len(stop), held.find(stop))
                 for stop in self._stops if stop in held]  # fmt: skip
        self.stopped = bool(found)
        if found:
            sure = min(found)[1]  # where the one begins that is complete first
        else:
            sure = min((at for at in range(len(held)) if self._may_begin(held[at:])),
                       default=len(held))  # fmt: skip
        self._held = "" if found else held[sure:]
        return held[:sure]

    def end(self) -> str:
        """The rest: what waited began no stop string."""
        rest, self._held = self._held, ""
        return rest

    def _may_begin(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stops)
