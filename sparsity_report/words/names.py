"""Names as people read them: groups, policies, layouts, and names of any length shortened."""

from __future__ import annotations

from collections.abc import Sequence

from sparsity_report.errors import printable
from sparsity_report.words.sentences import message, say

GROUP_NAMES = {
    "embedding": message("embedding"),
    "attention_linear": message("attention"),
    "mlp_linear": message("MLP"),
    "lm_head": message("output head"),
    "norm": message("norm"),
    "router": message("router"),
    "ssm": message("state space"),
    "other_linear": message("other linear"),
    "other": message("other"),
}
_METHODS = {
    "global_magnitude": message("global magnitude"),
    "layerwise_magnitude": message("layerwise magnitude"),
}
_LAYOUTS = {
    "dense": message("dense"),
    "masked": message("masked"),
    "csr": message("CSR"),
    "csr_int16": message("CSR with int16 columns"),
    "csr_int32": message("CSR with int32 indices"),
    "csr_int64": message("CSR with int64 indices"),
    "coo_int32": message("COO with int32 indices"),
    "coo_int64": message("COO with int64 indices"),
    "bitmask": message("bitmask"),
    "2:4": message("2:4"),
}


def group_name(group: str) -> str:
    """Return a group's name for people.

    Examples
    --------
    >>> group_name("attention_linear"), group_name("my rule")
    ('attention', 'my rule')
    """
    return say(GROUP_NAMES[group]) if group in GROUP_NAMES else group


def method_name(method: str) -> str:
    """Return the name of a way to prune for people.

    Examples
    --------
    >>> method_name("global_magnitude"), method_name("2:4")
    ('global magnitude', '2:4')
    """
    return say(_METHODS[method]) if method in _METHODS else method.replace("_", " ")


def layout_name(layout: str) -> str:
    """Return the name of a storage layout for people.

    Examples
    --------
    >>> layout_name("csr_int32"), layout_name("bsr_16")
    ('CSR with int32 indices', 'BSR 16 × 16')
    """
    if layout.startswith("bsr_"):
        side = layout.removeprefix("bsr_")
        return f"BSR {side} × {side}"
    return say(_LAYOUTS[layout]) if layout in _LAYOUTS else layout


def clip(text: object, limit: int = 60) -> str:
    """Shorten any text for one line of people's reading; control characters are spelled out."""
    return printable(str(text), limit)


def distinct_names(names: Sequence[str], limit: int = 40) -> list[str]:
    """Shorten names for people; different ones stay different.

    Examples
    --------
    >>> distinct_names(["abcdef", "abcdeg", "abcdef"], 4)
    ['abc…', 'abc… (2)', 'abc…']
    """
    short: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        shown, number = clip(name, limit), 2
        while shown in taken:
            shown, number = f"{clip(name, limit)} ({number})", number + 1
        short[name] = shown
        taken.add(shown)
    return [short[name] for name in names]
