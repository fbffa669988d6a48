"""Findings about bytes, the smallest lossless layout, and runtimes that use the zeros."""

from collections import defaultdict
from collections.abc import Iterator

from sparsity_report.sparse.runtime_support import (
    DENSE,
    LOOKED_AT,
    MISREAD,
    RUNTIMES,
    SOME,
    SPARSE,
)
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.words.number_format import quantities
from sparsity_report.words.sentences import say


def packed_bytes(study: StudyFigures) -> Iterator[str]:
    """Yield the bytes that packed variants take in their file and as they are counted."""
    facts = study.facts
    for row in records(study.totals):
        variant = row["variant"]
        packings, bits = facts.packings(variant), facts.bits_per_weight(variant)
        if packings and bits is not None:
            sizes = {key: row[key] for key in ("variant", "file_bytes", "stored_bytes")}
            packed = {"packings": packings, "dtypes": facts.unpacked_dtypes(variant)}
            yield say("finding.packed_bytes", bits=bits, **packed, **sizes)


def csr_bytes(study: StudyFigures) -> Iterator[str]:
    """Yield the bytes of CSR variants against the baseline, and where CSR breaks even."""
    facts = study.facts
    for variant in facts.csr_variants:
        times = facts.ratio(variant, "stored_bytes")
        layers, unpacked = facts.layers(variant), facts.unpacked_dtypes(variant)
        dtypes = list(layers.loc[layers["layout"] == "csr", "dtype"].unique())
        if times is None or not dtypes:
            continue
        level = facts.break_even(variant)
        key = "finding.csr_no_break_even" if level is None else "finding.csr_break_even"
        base, reference = facts.baseline, facts.total(facts.baseline, "stored_bytes")
        if facts.packings(base):
            base, reference = say("name.file_of", name=base), facts.size(base, "file")
        types = [say("name.unpacked_dtype", dtype=d) if d in unpacked else d for d in dtypes]
        texts = quantities([facts.total(variant, "stored_bytes"), reference], "B", " ")
        sizes = {"ratio": times, "bytes": texts[0], "reference": texts[1], "level": level}
        yield say(key, variant=variant, base=base, dtypes=types, **sizes)


def layers_kept_masked(study: StudyFigures) -> Iterator[str]:
    """Yield the prunable layers that CSR variants cannot store as CSR."""
    sparse = study.variants[study.variants["layout"] == "csr"]
    for _, rows in sparse.groupby("fingerprint", sort=False, dropna=False):
        variants = list(rows["variant"])
        prunable, kept = study.facts.prunable(variants[0]), study.facts.kept_masked(variants[0])
        if not kept.empty:
            share = ratio(kept["weight_total"].sum(), prunable["weight_total"].sum())
            sizes = {"count": len(kept), "layers": len(prunable), "share": share}
            names = list(kept["module_name"])
            yield say("finding.layers_kept_masked", variants=variants, names=names, **sizes)


def runtime_findings(study: StudyFigures) -> Iterator[str]:
    """Yield maintained runtimes by what they do with the stored weights."""
    variant = study.facts.pruning or study.facts.headline
    rows = study.runtimes[study.runtimes["variant"] == variant]
    for layout, cells in rows.groupby("layout", sort=False):
        by_verdict = defaultdict[str, list[str]](list)
        for runtime, verdict in zip(cells["runtime"], cells["verdict"], strict=True):
            if RUNTIMES[runtime].ended is None:
                by_verdict[verdict].append(RUNTIMES[runtime].name)
        figures = {"layout": say(f"runtime_layout.{layout}"), "date": LOOKED_AT}
        if by_verdict[DENSE]:
            yield say("runtimes.dense", names=by_verdict[DENSE], **figures)
        names = by_verdict[SPARSE]
        if layout == "uneven":
            yield say("runtimes.uneven", variant=variant, names=by_verdict[SOME])
        elif names:
            yield say("runtimes.sparse_kernels", names=names, **figures)
        else:
            yield say("runtimes.no_sparse_kernels", **figures)
        if by_verdict[MISREAD]:
            yield say("runtimes.random_weights", names=by_verdict[MISREAD], **figures)
