"""Whether a saved study is as it was written: a digest over all that the file says.

The digest is the SHA-256 of the content as JSON without white space, names in order, so that a
formatter may set it out anew. It tells an edit, and is no signature: whoever edits a study can
compute it, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

#: Notes of a study that was not as it was written, and of one that cannot tell.
EDITED = (
    "this study was edited by hand after it was written: its digest is not that of its content; "
    "what follows from other figures was computed anew and agrees"
)
UNTOLD = (
    "this study was written by a version that kept no digest: whether it was edited by hand since "
    "is not known"
)
#: The first version of the format that has a digest.
FIRST = 5


def digest_of(data: Mapping[str, Any]) -> str:
    """Return the digest of a study's content, without the one that is in it.

    Examples
    --------
    >>> one, other = {"a": 1, "b": [0.5]}, {"b": [0.5], "a": 1, "digest": "any"}
    >>> digest_of(one) == digest_of(other)
    True
    """
    content = {name: value for name, value in data.items() if name != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def doubt(data: Mapping[str, Any]) -> str | None:
    """Return what there is to note of a study as it is in a file; None where it is as written."""
    if data["version"] < FIRST:
        return UNTOLD
    return None if data.get("digest") == digest_of(data) else EDITED
