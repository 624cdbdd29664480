"""tokenizer.json, the file of the `tokenizers` library, as far as it describes byte-level BPE.

The format can say much more: other models, normalizers, templates that add tokens. Whatever would
make its ids differ from ours is refused by name, since wrong ids would be silent.
"""

from typing import Any

from minigpt.tokenizer.bpe import BPETokenizer
from minigpt.tokenizer.names import names_of, numbered
from minigpt.tokenizer.vocabulary import parse_object

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
               "use_regex": True}  # fmt: skip

# What these say must be one of the values that mean nothing; None is also the default.
_MEANINGLESS: dict[str, tuple[Any, ...]] = {
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}
_STRIPPING = ("single_word", "lstrip", "rstrip")


def fields(tokenizer: BPETokenizer) -> dict[str, Any]:
    """The content of tokenizer.json. Raises ValueError if names clash: see `names_of`."""
    vocab, pairs = names_of(tokenizer)
    special = sorted(tokenizer.special.items(), key=lambda item: item[1])
    flags = {**dict.fromkeys(_STRIPPING, False), "normalized": False, "special": True}
    model = {"type": "BPE", "unk_token": None, "fuse_unk": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for text, i in special],
        "normalizer": None,
        "pre_tokenizer": _BYTE_LEVEL,
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": model
        | {name: values[-1] if name != "dropout" else None for name, values in _MEANINGLESS.items()}
        | {"vocab": vocab, "merges": [f"{a} {b}" for a, b in pairs]},
    }


def parse(text: str | bytes) -> BPETokenizer:
    """The tokenizer that the content of a tokenizer.json describes.

    Raises: ValueError naming what is not supported, or not as the format has it.
    """
    content = parse_object(text)
    _check_stages(content)
    model = _object(content.get("model"), "model")
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"the model's type is {model['type']!r}, but only 'BPE' is supported")
    for name, values in _MEANINGLESS.items():
        _refuse(f"the model's {name}", model.get(name), values)
    special = _special(content.get("added_tokens"))
    vocab = _object(model.get("vocab"), "vocab")
    byte_ids, merges, rest = numbered(_pairs(model.get("merges")), vocab)
    for name, token in rest.items():
        if special.get(name) != token:
            raise ValueError(f"no merge makes {name!r}, nor is it {token!r} among the added_tokens")
    return BPETokenizer(byte_ids, merges, special)


def _check_stages(content: dict[str, Any]) -> None:
    """Raises ValueError unless text is cut as GPT-2 cuts it, and nothing is added or taken."""
    for name in ("normalizer", "truncation", "padding"):
        _refuse(f"the {name}", content.get(name), (None,))
    for name in ("pre_tokenizer", "decoder", "post_processor"):
        stage = content.get(name)
        if name == "post_processor" and stage is None:
            continue
        if not isinstance(stage, dict) or stage.get("type") != "ByteLevel":
            raise ValueError(f"the {name} must be of type ByteLevel, got {str(stage)[:60]}")
    pre = content["pre_tokenizer"]
    _refuse("the pre_tokenizer's add_prefix_space", pre.get("add_prefix_space", True), (False,))
    _refuse("the pre_tokenizer's use_regex", pre.get("use_regex", True), (True,))


def _special(added: Any) -> dict[str, Any]:
    """Texts and ids of the added tokens."""
    special: dict[str, Any] = {}
    for entry in _list(added or [], "added_tokens"):
        entry = _object(entry, "added_tokens' entry")
        text = entry.get("content")
        if not isinstance(text, str) or text in special:
            raise ValueError(f"an added token must have a content of its own, got {text!r}")
        # One that is not special would be found in everybody's text.
        _refuse(f"special of the added token {text!r}", entry.get("special"), (True,))
        for flag in _STRIPPING:
            _refuse(f"{flag} of the added token {text!r}", entry.get(flag), (None, False))
        special[text] = entry.get("id")
    return special


def _pairs(merges: Any) -> list[tuple[str, str]]:
    """The merges as pairs of names. The format has had them as "a b" and as ["a", "b"]."""
    pairs = []
    for rank, entry in enumerate(_list(merges, "merges")):
        halves = entry.split(" ") if isinstance(entry, str) else entry
        if (
            not isinstance(halves, list)
            or len(halves) != 2
            or not all(isinstance(half, str) and half for half in halves)
        ):
            raise ValueError(f"merge {rank} must be two tokens, got {str(entry)[:60]}")
        pairs.append((halves[0], halves[1]))
    return pairs


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"the {name} must be a JSON object, got {str(value)[:60]}")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"the {name} must be a list, got {str(value)[:60]}")
    return value


def _refuse(what: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises ValueError if the value would make ids that are not ours."""
    if value not in allowed:
        expected = " or ".join(map(repr, allowed))
        raise ValueError(f"{what} is {str(value)[:60]}, but only {expected} is supported")
