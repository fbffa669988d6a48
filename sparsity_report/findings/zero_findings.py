"""What variants hold without a nonzero weight: layers, heads, outputs, inputs; once for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparsity_report.study.comparison import Comparison
from sparsity_report.words.sentences import say

# By kind: what is said of one variant, of several alike, and of several that differ.
_SAID = {
    "layers": ("audit.zero_layers_one", "audit.zero_layers_many", "audit.zero_layers_by_variant"),
    "heads": ("audit.zero_heads_one", "audit.zero_heads_many", "audit.zero_heads_by_variant"),
    "rows": ("audit.zero_rows_one", "audit.zero_rows_many", "audit.zero_rows_by_variant"),
    "columns": (
        "audit.zero_columns_one",
        "audit.zero_columns_many",
        "audit.zero_columns_by_variant",
    ),
}


def without_weights(study: Comparison) -> Iterator[str]:
    """Say what of all variants is zero throughout, a sentence for each kind."""
    found = {str(name): study.facts.dead(str(name)) for name in study.variants["variant"]}
    known = {name: of for name, of in found.items() if of is not None}
    layers = {name: dict.fromkeys(of.layers, 1) for name, of in known.items()}
    yield from _of_kind("layers", layers)
    for kind in ("heads", "rows", "columns"):
        counts = {name: getattr(of, kind).to_dict() for name, of in known.items()}
        yield from _of_kind(kind, counts)


def _of_kind(kind: str, counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Name the modules where variants agree, else say how many are in how many of them."""
    alike: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for name, parts in counts.items():
        if parts:
            alike.setdefault(tuple(parts.items()), []).append(name)
    one, many, several = _SAID[kind]
    if len(alike) > 1:
        yield say(several, told=[_told(kind, names, dict(of)) for of, names in alike.items()])
    for of, names in alike.items():
        if len(alike) == 1:
            said = one if len(names) == 1 else many
            yield say(said, variant=names[0], variants=names, modules=_named(kind, dict(of)))


def _told(kind: str, names: list[str], counts: Mapping[str, int]) -> str:
    alone = "audit.zero_count_of_variants"
    inside = "audit.zero_count_in_matrices"
    number = sum(counts.values())
    said = alone if kind == "layers" else inside
    return say(said, count=number, modules=len(counts), variants=names)


def _named(kind: str, counts: Mapping[str, int]) -> list[str]:
    """Name modules and how many of their parts are meant, the most first."""
    ranked = sorted(counts, key=lambda name: -counts[name])
    if kind == "layers":
        return ranked
    return [say("audit.module_count", module=name, count=counts[name]) for name in ranked]
