"""Layers, heads, rows and columns without a nonzero, as one finding for each kind."""

from collections.abc import Iterator, Mapping

from sparsity_report.findings.variant_names import group_names
from sparsity_report.words.sentences import say

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
