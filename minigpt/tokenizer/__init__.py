"""Text to token ids and back."""

from minigpt.tokenizer.characters import CharTokenizer

__all__ = ["CharTokenizer"]
