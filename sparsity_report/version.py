"""The version of the package that runs, read from its installed metadata."""

import re
from importlib import metadata
from pathlib import Path


def _running() -> str:
    """Return the installed version; ``0+source`` for a source tree, whose commit is unknown."""
    try:
        installed = metadata.distribution("sparsity-report")
    except metadata.PackageNotFoundError:
        return "0+source"
    # An editable installation, or another copy on the path, may run other code than it installed.
    location = Path(str(installed.locate_file("sparsity_report/version.py")))
    return (
        readable(installed.version)
        if location.resolve() == Path(__file__).resolve()
        else "0+source"
    )


def readable(version: str) -> str:
    """Return a version; of a commit in a clone without tags, only the commit.

    Examples
    --------
    >>> readable("0.post1.dev1987+unknown.g1ce1cdb3b"), readable("0.2.0"), readable("0+unknown")
    ('0+g1ce1cdb3b', '0.2.0', '0+unknown')
    """
    return re.sub(r".+\+unknown\.(g[0-9a-f]+)", r"0+\1", version)


__version__ = _running()
