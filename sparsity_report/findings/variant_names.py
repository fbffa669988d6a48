"""Names of variants in findings, and all-zero parts that variants share."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from sparsity_report.words.sentences import say

_Key = TypeVar("_Key")


def group_names(pairs: Iterable[tuple[_Key, str]]) -> dict[_Key, list[str]]:
    """Return names by the key they share, in order of first appearance.

    Examples
    --------
    >>> group_names([(0.3, "Masked30"), (0.5, "Masked50"), (0.3, "CSR30")])
    {0.3: ['Masked30', 'CSR30'], 0.5: ['Masked50']}
    """
    groups: dict[_Key, list[str]] = {}
    for key, name in pairs:
        groups.setdefault(key, []).append(name)
    return groups


#: Keys by kind: where all variants agree, and where they differ.
ALL_ZERO = {
    "layers": ("audit.zero_layers", "audit.zero_layers_by_variant"),
    "heads": ("audit.zero_heads", "audit.zero_heads_by_variant"),
    "rows": ("audit.zero_rows", "audit.zero_rows_by_variant"),
    "columns": ("audit.zero_columns", "audit.zero_columns_by_variant"),
}


def zero_parts(kind: str, counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Name the modules where variants agree, else give the count of each variant."""
    agree, differ = ALL_ZERO[kind]
    groups = group_names((tuple(parts.items()), name) for name, parts in counts.items() if parts)
    if len(groups) > 1:
        yield say(differ, counts=[_count(kind, n, dict(parts)) for parts, n in groups.items()])
        return
    for parts, names in groups.items():
        yield say(agree, variants=names, modules=_modules(kind, dict(parts)))


def _count(kind: str, names: list[str], counts: Mapping[str, int]) -> str:
    key = "audit.zero_count" if kind == "layers" else "audit.zero_count_in_matrices"
    return say(key, count=sum(counts.values()), modules=len(counts), variants=names)


def _modules(kind: str, counts: Mapping[str, int]) -> list[str]:
    """Return modules with the number of their all-zero parts, largest number first."""
    ranked = sorted(counts, key=lambda name: -counts[name])
    if kind == "layers":
        return [*ranked]
    return [say("audit.module_count", module=name, count=counts[name]) for name in ranked]
