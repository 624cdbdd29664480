"""Files from the network, checked: fetched at the first use, then read from a cache folder."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder for this package, or the folder that MINIGPT_DATA names."""
    import pooch  # brings a whole HTTP library

    return Path(os.environ.get("MINIGPT_DATA") or pooch.os_cache("minigpt"))


def fetch(url: str, sha256: str, file: Path, otherwise: str) -> Path:
    """Have the checked file in place. The network is used only if it is not there yet.

    pooch writes a temporary file, checks that, and moves it: a wrong one is never kept.
    Raises: ValueError if the file cannot be had; it ends with `otherwise`, what to do instead.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it would announce a download; we report a failure
    try:
        pooch.retrieve(url, f"sha256:{sha256}", fname=file.name, path=file.parent)
    except ValueError:
        reason = "what came is not the expected file (its SHA-256 differs)"
    except OSError as error:  # of the disk or of the network: those of requests are of this kind
        reason = error.strerror or f"no whole answer ({type(error).__name__})"
    else:
        return file
    raise ValueError(f"cannot get {url} into {file.parent}: {reason}. {otherwise}")
