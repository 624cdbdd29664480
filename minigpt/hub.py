"""GPT-2s from huggingface.co, checked against what their repository says of each file.

The site lists the files of any revision: the commit, and of each file its size and its name in
git's store. A small file is named by the SHA-1 of its content, a large one by its SHA-256. So it
is known what must come before it comes. It is kept in models/OWNER--NAME@COMMIT of the cache
folder, and not fetched again.

This checks that a file is whole, and is the one that the repository names; not who made it. But
numbers and JSON are all that is read: no pickles, and no code. For GPT-2 itself sizes and hashes
are written here, and nothing that the site says is believed.

Source:  huggingface.co/openai-community/gpt2 at a fixed commit: GPT-2 124M (Radford et al. 2019).
         Git's names: git-scm.com/book, "Git Objects". The list: huggingface.co/docs/hub/api.
Licence: MIT (GPT-2). Of others, the page of the repository tells.
Size:    548,105,171 bytes, and 1,499,284 for settings and vocabulary.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minigpt.download import NotFetched, cache_folder, fetch
from minigpt.gpt2 import read_index
from minigpt.tokenizer.vocabulary import parse_object

SITE = "https://huggingface.co"
INSTEAD = "It needs the internet; a folder that has the model's files can be named instead"
_LARGE = 10_000_000  # bytes: from here on a progress bar is shown, and a kept file is not reread
_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_TOKENIZER, _PAIR = "tokenizer.json", ("vocab.json", "merges.txt")
_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\w[\w.-]*))?", re.ASCII)
_COMMIT, _DIGEST = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """What a file must be. digest: its SHA-256 in 64 hexadecimal digits, or git's name in 40."""

    size: int
    digest: str

    def check(self, path: Path, thorough: bool = True) -> None:
        """Raises ValueError unless size and digest fit; if not thorough, the size is enough."""
        size = path.stat().st_size
        if size != self.size:
            raise ValueError(f"it has {size:,} bytes, and should have {self.size:,}")
        if not thorough:
            return
        git = len(self.digest) == 40  # git hashes a file with a line about it in front
        start = hashlib.sha1(b"blob %d\0" % size) if git else hashlib.sha256()
        with open(path, "rb") as file:
            if hashlib.file_digest(file, lambda: start).hexdigest() != self.digest:
                raise ValueError(f"its {'SHA-1' if git else 'SHA-256'} differs")


@dataclass(frozen=True)
class Snapshot:
    """A repository at a commit, and its files that matter here."""

    name: str
    commit: str
    files: dict[str, File]

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return _models() / f"{self.name.replace('/', '--')}@{self.commit}"

    def have(self, name: str) -> Path:
        """A file of it in the folder, fetched unless it is there already.

        Raises: ValueError if the repository has none of this name, or it cannot be had.
        """
        if name not in self.files:
            raise ValueError(f"{SITE}/{self.name} has no {name!r:.80} at {self.commit}")
        file, place = self.files[name], self.folder / name
        large = file.size >= _LARGE
        if not _passes(place, partial(file.check, thorough=not large)):
            url = f"{SITE}/{self.name}/resolve/{self.commit}/{name}"
            try:
                fetch(url, None, place, INSTEAD, check=file.check, bar=file.size if large else 0)
            except NotFetched as error:
                if error.status not in (401, 403):
                    raise
                raise ValueError(
                    f"cannot get {url}: the site hands it only to members who agreed to "
                    f"its terms (status {error.status}). Get {self.name} with the site's own "
                    "tools, and name the folder"
                ) from error
        return place


GPT2 = Snapshot(
    "openai-community/gpt2",
    "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    {
        _CONFIG: File(665, "0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4"),
        _WEIGHTS: File(
            548_105_171, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
        ),
        _PAIR[0]: File(
            1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
        ),
        _PAIR[1]: File(456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    },
)
KNOWN = {"gpt2": GPT2, GPT2.name: GPT2}


def locate(text: str) -> Path:
    """The path itself where there is something, else the folder with the model of that name.

    text: a path; or gpt2, OWNER/NAME or OWNER/NAME@REVISION, whose files are fetched if need be.
    Raises: ValueError if it is neither, or the model cannot be had, or is no GPT-2 in safetensors.
    """
    if Path(text).exists():
        return Path(text)
    if text in KNOWN:
        return _complete(KNOWN[text])
    found = None if text.endswith(".safetensors") else _NAME.fullmatch(text)
    if found is None:
        raise ValueError(f"cannot read {text}: there is no such file or folder, nor is it a model "
                         f"of {SITE}: gpt2, OWNER/NAME or OWNER/NAME@REVISION")  # fmt: skip
    return _complete(_snapshot(found[1], found[2] or "main"))


def _complete(snapshot: Snapshot) -> Path:
    """Have all the files of a model. Small ones come first: they tell whether it is a GPT-2."""
    if not {_WEIGHTS, _INDEX} & {*snapshot.files}:
        raise ValueError(f"{SITE}/{snapshot.name} has no {_WEIGHTS} at {snapshot.commit}; pickles "
                         "(pytorch_model.bin) are not read, since they can run code")  # fmt: skip
    config = snapshot.have(_CONFIG)
    try:
        kind = parse_object(config.read_bytes()).get("model_type", "gpt2")
    except ValueError as error:
        raise ValueError(f"{config}: {error}") from error
    if kind != "gpt2":
        raise ValueError(f"{SITE}/{snapshot.name} is of type {kind!r:.60}, not 'gpt2'")
    for name in [_TOKENIZER] if _TOKENIZER in snapshot.files else _PAIR:
        if name in snapshot.files:
            snapshot.have(name)
    if _WEIGHTS in snapshot.files:
        snapshot.have(_WEIGHTS)
    else:
        named = {*read_index(snapshot.have(_INDEX)).values()}
        for name in sorted(named, key=lambda name: (name in snapshot.files, name)):
            snapshot.have(name)  # one that is not there comes first
    return snapshot.folder


# --- what the site says of a repository -------------------------------------------------------


def _snapshot(name: str, revision: str) -> Snapshot:
    """The commit and the files that a branch, a tag or a commit now means.

    The list is kept, and that of a commit not asked for again: it never changes.
    """
    place = _models() / f"{name.replace('/', '--')}@{revision}.json"
    if not (_COMMIT.fullmatch(revision) and _passes(place, partial(_listed, name))):
        place.unlink(missing_ok=True)
        url = f"{SITE}/api/models/{name}/revision/{revision}?blobs=true"
        try:
            fetch(url, None, place, INSTEAD, check=partial(_listed, name))
        except NotFetched as error:
            if error.status not in (401, 403, 404):
                raise
            raise ValueError(
                f"cannot read {name}: there is no such file or folder, and {SITE} shows no model of"
                f" this name at {revision}, except perhaps to its members (status {error.status})"
            ) from error
    return _listed(name, place)


def _listed(name: str, place: Path) -> Snapshot:
    """The site's list. Raises ValueError if it is none."""
    fields = parse_object(place.read_bytes())
    commit, entries = fields.get("sha"), fields.get("siblings")
    if not _COMMIT.fullmatch(str(commit)) or not isinstance(entries, list):
        raise ValueError("it is no list of a repository's files")
    return Snapshot(name, str(commit), dict(filter(None, map(_entry, entries))))


def _entry(entry: Any) -> tuple[str, File] | None:
    """Name and file of one entry of the list; None if it is of no use here."""
    try:
        name, large = entry["rfilename"], entry.get("lfs")
        if name not in (_CONFIG, _INDEX, _TOKENIZER, *_PAIR) and not name.endswith(".safetensors"):
            return None
        size, digest = entry["size"], large["sha256"] if large else entry["blobId"]
        if type(size) is not int or not _DIGEST.fullmatch(digest):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"the site's list has the entry {str(entry)[:80]}") from None
    return name, File(size, digest)


def _models() -> Path:
    return cache_folder() / "models"


def _passes(place: Path, check: Callable[[Path], object]) -> bool:
    """Whether a file is there that is what it should be; one that is not is removed."""
    try:
        check(place)
    except FileNotFoundError:
        return False
    except ValueError:
        place.unlink()
        return False
    return True
