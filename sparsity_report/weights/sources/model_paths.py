"""Local paths of models, distinguished from Hub ids without loading any library."""

import re
from pathlib import Path

from sparsity_report.errors import SparsityReportError

_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[\w.-]{1,96})?")


def is_hub_id(text: str) -> bool:
    """Return True for a text in the form of a Hub model id.

    Examples
    --------
    >>> is_hub_id("facebook/opt-125m"), is_hub_id("gpt2"), is_hub_id("./gpt2"), is_hub_id("a/b/c")
    (True, True, False, False)
    """
    return bool(_ID.fullmatch(text))


def local_path(model: str, subfolder: str = "", file: str = "") -> Path | None:
    """Return the local path of a model; None for a Hub id.

    Raises
    ------
    SparsityReportError
        Nothing is there.
    """
    if not Path(model).exists() and is_hub_id(model):
        return None
    path = Path(model, subfolder, file)
    if not path.exists():
        missing = path if Path(model).exists() else model  # as given, "./" included
        raise SparsityReportError(f"{missing}: no such file or directory; give a path or a Hub id")
    return path
