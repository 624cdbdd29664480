"""Short Chinese texts: what a program says on its buttons and in its messages, and names of emoji.

This is not literature, and hardly prose: a line has eight characters on average. A model learns the
set phrases of menus from it ("open", "cannot find the file"), and what things are called.

Source:  PyPI `jupyterlab-language-pack-zh-CN` 4.5.post3, the translations of JupyterLab and some of
         its extensions: 2,570 strings, 32,753 characters. PyPI `emoji` 2.16.0, the Chinese names of
         emoji from Unicode CLDR: 1,944 names, 8,718 characters. Their files are read as data.
Licence: BSD-3-Clause (both packages; the emoji names are Unicode CLDR's, Unicode-3.0).
Size:    4,506 lines, 41,446 characters, three quarters of them Chinese; 1,833 distinct, of which
         every fourth occurs once. 714 duplicates removed.

Left out: strings with placeholders or markup, which are code; strings of which less than a third is
Chinese; the five skin colours of each emoji, which would be half of all lines. The Chinese part of
`chatterbot-corpus` was read and left out too: a machine translated it, and badly.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain

from minigpt.data import wheel
from minigpt.data.corpus import Corpus, deduplicate

PACK, PACK_VERSION = "jupyterlab-language-pack-zh-CN", "4.5.post3"
EMOJI_VERSION = "2.16.0"

LANGUAGE = "Chinese"
LICENCE = "BSD-3-Clause (both packages; the emoji names are Unicode CLDR's, Unicode-3.0)"
HOW = f"pip install {PACK}=={PACK_VERSION} emoji=={EMOJI_VERSION}"

_CODE = re.compile(r"%\d|%[sd(]|[{}\\]|</?\w")  # "%1", "{name}", "\n" of a pattern, "<a href=...>"


def load() -> Corpus:
    """One document a string of the interface, then one a name.

    Raises: ValueError if exactly these releases of the two wheels are not installed.
    """
    documents, duplicates = deduplicate([*_messages(), *_emoji()])
    source = f"PyPI {PACK} {PACK_VERSION} and emoji {EMOJI_VERSION}"
    return Corpus("chinese", documents, source, LICENCE, duplicates)


def chinese_characters(text: str) -> int:
    """How many there are, of the 20,992 of Unicode's main block."""
    return sum("\u4e00" <= character <= "\u9fff" for character in text)


def _messages() -> Iterator[str]:
    """The translations, each on one line. A file maps an English string to a list of them."""
    root = wheel.folder(PACK, PACK_VERSION, "chinese")
    folder = root / "jupyterlab_language_pack_zh_CN" / "locale" / "zh_CN" / "LC_MESSAGES"
    for file in sorted(folder.glob("*.json")):
        translations = json.loads(file.read_text("utf-8"))
        del translations[""]  # the header of the file
        for message in (" ".join(text.split()) for text in chain(*translations.values())):
            if not _CODE.search(message) and 3 * chinese_characters(message) >= len(message) > 0:
                yield message


def _emoji() -> Iterator[str]:
    """The names, which the file writes as ":red_apple:"."""
    folder = wheel.folder("emoji", EMOJI_VERSION, "chinese") / "emoji" / "unicode_codes"
    names = json.loads((folder / "emoji_zh.json").read_text("utf-8")).values()
    for name in (name.strip(":").replace("_", " ") for name in names):
        if "肤色" not in name and chinese_characters(name):  # "... dark skin tone"
            yield name
