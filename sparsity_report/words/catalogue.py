"""The catalogue: the text of each sentence, label and name by its key."""

import json
from functools import cache
from pathlib import Path


@cache
def catalogue() -> dict[str, str]:
    """Return all texts by key, with their placeholders.

    Examples
    --------
    >>> catalogue()["format.yes"]
    'yes'
    """
    file = Path(__file__).with_name("sentences.json")
    texts: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return texts
