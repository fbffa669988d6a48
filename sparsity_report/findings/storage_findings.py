"""Findings about bytes: packed files, CSR against dense, and the smallest lossless layout."""

from collections.abc import Iterator
from typing import Any

from sparsity_report.findings.variant_names import counted_bytes, group_names, unpacked_name
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.layers import records


def packed_bytes(study: Comparison) -> Iterator[Phrase]:
    """Yield the bytes that packed variants take in their file and as they are counted."""
    facts = study.facts
    for row in records(study.totals):
        variant = row["variant"]
        packings, bits = facts.packings(variant), facts.bits_per_weight(variant)
        if packings and bits is not None:
            yield phrase(
                "finding.packed_bytes",
                variant=variant,
                file_bytes=row["file_bytes"],
                bits=bits,
                packings=packings,
                dtypes=facts.unpacked_dtypes(variant),
                stored_bytes=row["stored_bytes"],
            )


def csr_bytes(study: Comparison) -> Iterator[Phrase]:
    """Yield the bytes of CSR variants against the baseline, and where CSR breaks even."""
    facts = study.facts
    for variant in csr_variants(study):
        times = facts.ratio(variant, "stored_bytes")
        layers, unpacked = facts.layers(variant), facts.unpacked_dtypes(variant)
        dtypes = list(layers.loc[layers["layout"] == "csr", "dtype"].unique())
        if times is None or not dtypes:
            continue
        level = facts.break_even(variant)
        yield phrase(
            "finding.csr_no_break_even" if level is None else "finding.csr_break_even",
            variant=variant,
            ratio=times,
            base=unpacked_name(facts.baseline, facts.unpacked_dtypes(facts.baseline)),
            bytes=facts.total(variant, "stored_bytes"),
            reference=facts.total(facts.baseline, "stored_bytes"),
            dtypes=[phrase("name.unpacked_dtype", dtype=d) if d in unpacked else d for d in dtypes],
            level=level,
        )


def csr_variants(study: Comparison) -> list[str]:
    """Return the CSR variants other than the baseline."""
    names = study.variants.loc[study.variants["layout"] == "csr", "variant"]
    return [str(name) for name in names if name != study.facts.baseline]


def layers_kept_masked(study: Comparison) -> Iterator[Phrase]:
    """Yield the prunable layers that CSR variants cannot store as CSR."""
    sparse = study.variants[study.variants["layout"] == "csr"]
    for _, rows in sparse.groupby("fingerprint", sort=False, dropna=False):
        variants = list(rows["variant"])
        prunable, kept = study.facts.prunable(variants[0]), study.facts.kept_masked(variants[0])
        if not kept.empty:
            yield phrase(
                "finding.layers_kept_masked",
                count=len(kept),
                layers=len(prunable),
                variants=variants,
                share=ratio(kept["weight_total"].sum(), prunable["weight_total"].sum()),
                names=list(kept["module_name"]),
            )


def smallest_layouts(study: Comparison) -> Iterator[Phrase]:
    """Yield the smallest lossless layouts of the prunable weights of pruned variants."""
    facts = study.facts
    groups: dict[tuple[Any, ...], tuple[list[str], list[float]]] = {}
    for variant in _pruned_variants(study):
        if layout := facts.smallest_layout(variant):
            key = (layout, *facts.unpacked_dtypes(variant))
            names, ratios = groups.setdefault(key, ([], []))
            names.append(variant)
            ratios.append(facts.lossless(variant)["ratio"][layout])
    layouts = [
        phrase(
            "finding.layout_ratio",
            layout=layout,
            variants=names,
            ratios=ratios,
            bytes=counted_bytes(dtypes),
        )
        for (layout, *dtypes), (names, ratios) in groups.items()
    ]
    if layouts:
        yield phrase("finding.smallest_layouts", layouts=layouts)


def smaller_files(study: Comparison) -> Iterator[Phrase]:
    """Yield compressed files that are smaller than every layout that one computes with."""
    facts = study.facts
    groups = group_names(
        ((share, tuple(facts.unpacked_dtypes(variant))), variant)
        for variant in _pruned_variants(study)
        if (share := facts.smaller_file(variant)) is not None
    )
    for (share, unpacked), variants in groups.items():
        yield phrase(
            "finding.zstd_file", variants=variants, ratio=share, bytes=counted_bytes(unpacked)
        )


def _pruned_variants(study: Comparison) -> list[str]:
    return list(study.variants.loc[study.variants["pruned"].notna(), "variant"])
