"""Cut text into pre-tokens: a word with its space, a number, a run of signs, a run of white space.

Merges never cross such a cut. That keeps "dog", "dog." and "dog!" from becoming three tokens, and
it makes encoding cheap, because a text repeats a few thousand words again and again.

The cuts are GPT-2's. It writes them as one regular expression with the classes \\p{L}, letters, and
\\p{N}, numbers. The standard `re` has no such classes. They are spelled out here as ranges of code
points from `unicodedata`, once, in a fraction of a second; so nothing has to be installed, and what
the classes hold can be looked at. Which letters there are depends on the Unicode version of Python.

Source: Radford et al. 2019, "Language models are unsupervised multitask learners", sec. 2.2.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import chain, groupby

# Unicode's White_Space. Python's own \s also holds U+001C to U+001F, which GPT-2's does not.
WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

_STRETCH = 1 << 16  # characters that are cut at a time: bounds the memory of the list of pre-tokens
_LAST_CHARACTER = 0x3FFFF  # letters and numbers lie in the planes 0 to 3 of Unicode's 17
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_ANY_CUT = re.compile(r"\S(?=[ \n])")  # before a space after a non-space there is always a cut


def split(text: str) -> Iterator[str]:
    """The pre-tokens of `text`, in order; joined, they are `text` again.

    Every character belongs to one, so nothing is lost: white space is kept like the rest.
    """
    return chain.from_iterable(
        _pattern(_BEYOND.search(stretch) is not None).findall(stretch)
        for stretch in _stretches(text)
    )


def without_surrogates(text: str) -> str:
    """Text that UTF-8 can hold: a pair of surrogates is its character, a lone one becomes U+FFFD.

    A Python string may hold surrogates, such as JSON's "\\ud83d\\ude00"; no text does.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _stretches(text: str) -> Iterator[str]:
    """Parts of at least _STRETCH characters that end where a pre-token ends."""
    start = 0
    while start < len(text):
        cut = _ANY_CUT.search(text, start + _STRETCH)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end


@cache
def _pattern(beyond: bool) -> re.Pattern[str]:
    """GPT-2's expression. `beyond`: for characters above U+FFFF too, four times slower.

    `re` looks up a character up to U+FFFF in a table, but walks through the ranges that lie above.
    """
    letters, numbers = _classes(beyond)
    other = f"[^{letters}{numbers}{WHITE_SPACE}]"
    return re.compile(
        "'(?:[stmd]|re|ve|ll)"  # English contractions, lower case only: he's, don't, we're
        f"| ?[{letters}]+| ?[{numbers}]+| ?{other}+"  # a space goes with what follows it
        f"|[{WHITE_SPACE}]+(?![^{WHITE_SPACE}])"  # so a run stops short of its last space,
        f"|[{WHITE_SPACE}]+"  # unless nothing follows, or that last one is no plain space
    )


@cache
def _classes(beyond: bool) -> tuple[str, str]:
    """Letters (category L) and numbers (category N) as ranges for a character class."""
    last = _LAST_CHARACTER if beyond else 0xFFFF
    ranges: dict[str, list[str]] = {"L": [], "N": []}
    majors = (unicodedata.category(chr(code))[0] for code in range(last + 1))  # "Lu" -> "L"
    for major, run in groupby(enumerate(majors), key=lambda pair: pair[1]):
        if major in ranges:
            codes = [code for code, _ in run]
            ranges[major].append(f"{chr(codes[0])}-{chr(codes[-1])}")
    return "".join(ranges["L"]), "".join(ranges["N"])
