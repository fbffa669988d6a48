"""Provenance of a study: its command, date, library versions and platform."""

import os
import platform
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import sparsity_report
from sparsity_report.errors import writable

#: The command line as the user typed it; None in calls from Python.
COMMAND: ContextVar[str | None] = ContextVar("COMMAND", default=None)
#: Facts about the origin of a study, by name.
Provenance = Mapping[str, Any]
_DATE = "%Y-%m-%dT%H:%M:%SZ"


def provenance() -> Provenance:
    """Return command, date in UTC, versions and platform of a study made now.

    The variable ``SOURCE_DATE_EPOCH`` replaces the clock. The version of a library that is not
    loaded is None.
    """
    epoch, command = os.environ.get("SOURCE_DATE_EPOCH", ""), COMMAND.get()
    seconds = int(epoch) if epoch.isdecimal() and len(epoch) < 12 else time.time()
    return {
        "command": None if command is None else writable(command),
        "date": time.strftime(_DATE, time.gmtime(seconds)),
        "versions": {
            "sparsity-report": sparsity_report.__version__,
            **{name: _version(name) for name in ("numpy", "torch", "transformers")},
        },
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def refreshed(origin: Provenance | None) -> Provenance | None:
    """Return a provenance with the versions of libraries loaded since."""
    if origin is None:
        return None
    versions = {name: text or _version(name) for name, text in origin["versions"].items()}
    return {**origin, "versions": versions}


def read_provenance(data: Mapping[str, Any] | None) -> Provenance | None:
    """Return the provenance in a study file; raise ValueError for other content."""
    if data is None:
        return None
    known = provenance()
    origin = {name: data[name] for name in known}
    origin["versions"] = {name: data["versions"].get(name) for name in known["versions"]}
    time.strptime(origin["date"], _DATE)
    texts = [origin["platform"], *filter(None, [origin["command"], *origin["versions"].values()])]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("provenance: holds other values than texts")
    return origin


def _version(name: str) -> str | None:
    version = getattr(sys.modules.get(name), "__version__", None)
    return version and str(version)
