"""A text through a model, and all that is told about it."""

from dataclasses import dataclass

from minigpt.interpret.labels import labels
from minigpt.interpret.reading import Reading, read
from minigpt.interpret.trace import Trace, trace
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

MOST = 100  # alternatives: more are a list nobody reads


@dataclass(frozen=True)
class Explanation:
    """readings: of layers 0..L. vocabulary: labels of all tokens. text: what the model saw.

    left_out: how many tokens came before those, beyond block_size.
    """

    trace: Trace
    readings: list[Reading]
    vocabulary: list[str]
    text: str
    left_out: int

    @property
    def labels(self) -> list[str]:
        """Of the T tokens of the text."""
        return [self.vocabulary[token] for token in self.trace.idx]


def explain(model: GPT, tokenizer: Tokenizer, text: str, k: int) -> Explanation:
    """Run the model on a text and read every layer. k: alternatives at each position.

    Of a text beyond block_size tokens the model sees the last block_size only, as in `generate`.
    Raises: ValueError if the text is empty or the tokenizer does not know it, k is not 1 to MOST,
            or the logits are not finite.
    """
    if not text:
        raise ValueError("the prompt must have at least one character")
    if not 1 <= k <= MOST:
        raise ValueError(f"alternatives must be 1 to {MOST}, got {k}")
    ids = tokenizer.encode(text)  # (N,)
    found = trace(model, ids[-model.config.block_size :])
    readings = [read(found.lens(layer), found.idx, k) for layer in range(len(found.stream))]
    vocabulary = labels(tokenizer, range(tokenizer.vocab_size))
    seen = tokenizer.decode(found.idx)
    return Explanation(found, readings, vocabulary, seen, len(ids) - len(found.idx))
