"""Vega, Vega-Lite and their embedding as one script, made once per machine."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from importlib.metadata import version as release
from pathlib import Path

import vl_convert

from sparsity_report.errors import SparsityReportError
from sparsity_report.files import write_file


def bundle(snippet: str, version: str) -> str:
    """Return a script with everything `snippet` needs inside; nothing is fetched, ever.

    Bundling takes seconds, so the script is kept in the user's cache folder
    (``$XDG_CACHE_HOME/sparsity-report``, else ``~/.cache/sparsity-report``) under the hash of what
    went into it. Where that cannot be written it is made anew.

    Parameters
    ----------
    snippet : str
        JavaScript that uses ``vegaEmbed`` and ``lodashDebounce``.
    version : str
        Of Vega-Lite, such as ``"6.1"``.
    """
    key = hashlib.sha256(
        repr((snippet, version, release("vl-convert-python"))).encode()
    ).hexdigest()
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = place / "sparsity-report" / f"vega-{key[:24]}.js"
    with suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    made: str = vl_convert.javascript_bundle(snippet, vl_version=version)
    with suppress(OSError, SparsityReportError):
        write_file(kept, made)
    return made
