"""Files from the network, checked: fetched at the first use, then read from a cache folder."""

import os
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm


class NotFetched(ValueError):
    """A file that cannot be had. status: the server's answer, as 404; None if it gave none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def cache_folder() -> Path:
    """The user's cache folder for this package, or the folder that MINIGPT_DATA names."""
    import pooch  # brings a whole HTTP library

    return Path(os.environ.get("MINIGPT_DATA") or pooch.os_cache("minigpt"))


def fetch(
    url: str, sha256: str | None, file: Path, otherwise: str, *,
    check: Callable[[Path], object] | None = None, bar: int = 0,
) -> Path:  # fmt: skip
    """Have the checked file in place. The network is used only if it is not there yet.

    pooch writes a temporary file, checks that, and moves it: a wrong one is never kept.
    check: in place of a SHA-256, a function of a path that raises ValueError if what came is wrong;
           then a file that is there already is taken as it is. bar: bytes to come, where a terminal
           shall see them come.
    Raises: NotFetched if the file cannot be had; it ends with `otherwise`, what to do instead.
    """
    import pooch

    def get(url: str, temporary: str, _: object) -> None:
        with tqdm(total=bar, desc=file.name, unit="B", unit_scale=True, leave=False,
                  disable=None if bar else True) as shown:  # fmt: skip
            pooch.HTTPDownloader(shown if bar else False, chunk_size=1 << 18)(url, temporary, None)
        if check is not None:
            check(Path(temporary))

    pooch.get_logger().setLevel("WARNING")  # it would announce a download; we report a failure
    known = sha256 and f"sha256:{sha256}"
    status = None
    try:
        pooch.retrieve(url, known, fname=file.name, path=file.parent, downloader=get)
    except OSError as error:  # of the disk or of the network: those of requests are of this kind
        status = getattr(getattr(error, "response", None), "status_code", None)
        kind = type(error).__name__ if status is None else f"status {status}"
        reason = error.strerror or f"no whole answer ({kind})"
    except ValueError as error:
        reason = "what came is not the expected file: " + (
            f"{error}" if sha256 is None else "its SHA-256 differs"
        )
    else:
        return file
    raise NotFetched(f"cannot get {url} into {file.parent}: {reason}. {otherwise}", status)
