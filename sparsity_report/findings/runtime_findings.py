"""Findings about runtimes that use the zeros of the headline's pruning, or misread its weights."""

from collections.abc import Iterator

from sparsity_report.sparse.runtime_support import LOOKED_AT, MISREAD, RUNTIMES, SOME, SPARSE
from sparsity_report.study.comparison import Study
from sparsity_report.words.sentences import say


def runtime_findings(study: Study) -> Iterator[str]:
    """Yield runtimes with sparse kernels for the stored weights; those no longer maintained not."""
    variant = study.facts.pruning or study.facts.headline
    rows = study.runtimes[study.runtimes["variant"] == variant]
    for layout, cells in rows.groupby("layout", sort=False):
        by_verdict: dict[str, list[str]] = {SPARSE: [], MISREAD: [], SOME: []}
        for runtime, verdict in zip(cells["runtime"], cells["verdict"], strict=True):
            if RUNTIMES[runtime].ended is None:
                by_verdict.setdefault(verdict, []).append(RUNTIMES[runtime].name)
        figures = {
            "layout": say(f"runtime_layout.{layout}"),
            "count": sum(runtime.ended is None for runtime in RUNTIMES.values()),
            "date": LOOKED_AT,
        }
        names = by_verdict[SPARSE]
        if layout == "uneven":
            yield say("runtimes.uneven", variant=variant, names=by_verdict[SOME])
        elif names:
            yield say("runtimes.sparse_kernels", names=names, **figures)
        else:
            yield say("runtimes.no_sparse_kernels", **figures)
        if by_verdict[MISREAD]:
            yield say("runtimes.random_weights", names=by_verdict[MISREAD], **figures)
