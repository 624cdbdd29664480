"""What a byte-pair vocabulary has to satisfy, and how it is read from JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

# Twenty merges of a token with itself are a megabyte, forty are a terabyte: a file of one line must
# not take all memory. GPT-2's 50,257 tokens have 320,000 bytes.
MOST_BYTES = 1 << 26

Merges = Sequence[tuple[int, int, int]]


def check_vocabulary(
    byte_ids: Sequence[int], merges: Merges, special: Mapping[str, int]
) -> list[bytes]:
    """The bytes of each id, by id.

    Raises: ValueError if the ids are not 0 to V - 1, or a merge uses an id not made before it.
    """
    if len(byte_ids) != 256:
        raise ValueError(f"expected the ids of 256 bytes, got {len(byte_ids)}")
    tokens = {_id(token): bytes([byte]) for byte, token in enumerate(byte_ids)}
    if len(tokens) != 256:
        raise ValueError("two bytes have the same id")
    _add_merges(tokens, merges)
    ordinary = set(tokens.values())
    if len(ordinary) != len(tokens):
        raise ValueError("two ids stand for the same bytes")
    for text, token in special.items():
        content = _special_bytes(text)
        if content in ordinary or _id(token) in tokens:
            raise ValueError(f"the special token {text!r} or its id {token} is taken already")
        tokens[token] = content
    missing = next((i for i in range(len(tokens)) if i not in tokens), None)
    if missing is not None:
        raise ValueError(f"{len(tokens)} ids must be 0 to {len(tokens) - 1}, but {missing} is none")
    return [tokens[i] for i in range(len(tokens))]


def _add_merges(tokens: dict[int, bytes], merges: Merges) -> None:
    """Add the token of each merge to `tokens`. Two merges may make the same one in two ways."""
    seen, size = set(), 256
    for rank, (left, right, new) in enumerate(merges):
        if _id(left) not in tokens or _id(right) not in tokens:
            raise ValueError(f"merge {rank} joins {left} and {right}, of which one is not made yet")
        if (left, right) in seen:
            raise ValueError(f"merge {rank} joins {left} and {right}, as an earlier one does")
        seen.add((left, right))
        size += len(tokens[left]) + len(tokens[right])
        if size > MOST_BYTES:
            raise ValueError(f"the tokens up to merge {rank} have more than {MOST_BYTES} bytes")
        made = tokens[left] + tokens[right]
        if tokens.setdefault(_id(new), made) != made:
            raise ValueError(f"merge {rank} makes the token {new}, which is other bytes already")


def _id(value: Any) -> int:
    """The value, if it is a plain integer from 0; True is none."""
    if type(value) is not int or value < 0:
        raise ValueError(f"an id must be an integer from 0, got {value!r}")
    return value


def _special_bytes(text: Any) -> bytes:
    """The bytes of a special token's text."""
    if not isinstance(text, str) or not text:
        raise ValueError(f"a special token must be a text of at least a character, got {text!r}")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"the special token {text!r} holds a lone surrogate") from None


def parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object, such as every file about tokenizers is.

    Raises: ValueError if `text` is not JSON, or not an object.
    """
    try:
        fields = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"expected a JSON object, got {text[:60]!r}")
    return fields


def fields_of(text: str) -> tuple[list[int], list[tuple[int, int, int]], dict[str, int]]:
    """The ids of the bytes, the merges and the special tokens that BPETokenizer.to_json wrote.

    Raises: ValueError if `text` is not such JSON; the ids themselves are not checked yet.
    """
    fields = parse_object(text)
    if fields.get("kind") != "bpe":
        raise ValueError(f'the tokenizer must be an object of kind "bpe", got {text[:60]}')
    byte_ids, flat, special = (fields.get(name) for name in ("bytes", "merges", "special"))
    if not isinstance(byte_ids, list) or not isinstance(flat, list) or len(flat) % 3:
        raise ValueError('"bytes" must be a list, and "merges" a list of 3 ids a merge')
    if not isinstance(special, dict):
        raise ValueError('"special" must be an object of ids by text')
    merges = [*zip(flat[::3], flat[1::3], flat[2::3], strict=True)]
    return byte_ids, merges, special
