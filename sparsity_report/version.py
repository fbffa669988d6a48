"""The version of the package that runs, read from its installed metadata."""

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
    return installed.version if location.resolve() == Path(__file__).resolve() else "0+source"


__version__ = _running()
