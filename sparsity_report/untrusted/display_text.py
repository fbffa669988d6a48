"""Names shortened for display: one line each, distinct, breakable, safe as part of a file name."""

import re
import unicodedata
from collections.abc import Sequence

from sparsity_report.errors import printable

#: Zero-width space at which a long word may break.
BREAK = "\u200b"
_LONG_WORD = re.compile(r"\S{24,}")
_PART = re.compile(r"[^._/]{0,23}[._/]|.{24}")


def clip(text: object, limit: int = 60) -> str:
    """Shorten text to one line of at most `limit` characters; invisible ones are escaped."""
    return printable(str(text), limit)


def short_name(name: object) -> str:
    """Shorten the name of a variant to 40 characters.

    Examples
    --------
    >>> short_name("Masked30"), len(short_name("M" * 41))
    ('Masked30', 40)
    """
    return clip(name, 40)


def distinct_names(names: Sequence[str], limit: int = 40) -> list[str]:
    """Shorten names and number those that would then look alike.

    Examples
    --------
    >>> distinct_names(["abcdef", "abcdeg", "abcdef"], 4)
    ['abc…', 'abc… (2)', 'abc…']
    """
    short: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        candidate, number = clip(name, limit), 2
        # Composed and decomposed accents look the same to a reader.
        while (normalized := unicodedata.normalize("NFC", candidate)) in taken:
            candidate, number = f"{clip(name, limit)} ({number})", number + 1
        short[name] = candidate
        taken.add(normalized)
    return [short[name] for name in names]


def breakable(text: str) -> str:
    r"""Insert zero-width spaces where a long word, such as a module's name, may break.

    Examples
    --------
    >>> breakable("of model.layers.0.self_attn.q_proj").split("\u200b")
    ['of model.', 'layers.', '0.', 'self_', 'attn.', 'q_', 'proj']
    """
    return _LONG_WORD.sub(lambda word: _PART.sub(rf"\g<0>{BREAK}", word[0]).rstrip(BREAK), text)


def file_name(name: str) -> str:
    """Turn a name into a plain lower-case part of a file name.

    Examples
    --------
    >>> file_name("Masked30"), file_name("../my model"), file_name("§")
    ('masked30', 'my-model', 'unnamed')
    """
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:80] or "unnamed"
