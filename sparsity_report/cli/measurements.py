"""Measurements that options ask for; a refused one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sparsity_report.cli.compared_models import Compared
from sparsity_report.cli.options import Analysis
from sparsity_report.errors import SparsityReportError

if TYPE_CHECKING:
    import pandas as pd

    from sparsity_report.api.study import Study
    from sparsity_report.measure.clock import Clock


def clock_of(analysis: Analysis) -> Clock | None:
    """Return the clock of --latency, None without that option."""
    if analysis.latency is None:
        return None
    from sparsity_report.measure.clock import Clock

    seconds = analysis.seconds
    return Clock() if seconds is None else Clock(budget=seconds)


def studied(compared: Compared, analysis: Analysis) -> tuple[Study, bool]:
    """Compare and measure the variants; return the study, and True if a request was refused."""
    import sparsity_report as sr

    variants = compared.variants
    study = sr.compare(*variants, patterns=True)
    if clock := clock_of(analysis):
        study = study.with_measured(latency=sr.latency(variants, clock=clock))
    asked: list[tuple[str, bool, Callable[[Compared, Analysis], pd.DataFrame]]] = [
        ("quality", analysis.scores, _quality),
        ("sensitivity", analysis.sensitivity is not None, _sensitivity),
        ("continuations", bool(analysis.prompt), _continuations),
    ]
    refused = False
    for name, is_asked, measure in asked:
        if is_asked:
            try:
                study = study.with_measured(**{name: measure(compared, analysis)})
            except SparsityReportError as error:
                study, is_wrong = _noted(study, error)
                refused |= is_wrong
    return study, refused


def _noted(study: Study, error: SparsityReportError) -> tuple[Study, bool]:
    """Add a refusal to the notes and to stderr; return True, too, if the request was wrong."""
    from sparsity_report.measure.protocols import NoScoreError

    is_wrong = not isinstance(error, NoScoreError)
    note = error.note if isinstance(error, NoScoreError) else str(error)
    if note in study.notes:
        return study, is_wrong
    return replace(study, notes=(*study.notes, note)), is_wrong


def _quality(compared: Compared, analysis: Analysis) -> pd.DataFrame:
    """Score a text with the variants; with --curve, at each tenth of sparsity, too."""
    import sparsity_report as sr

    scored = list(compared.variants)
    if analysis.curve:
        known = {variant.name for variant in scored}
        steps = [sr.masked(pruning) for pruning in compared.steps()]
        if not steps:
            raise SparsityReportError(
                "--curve prunes by a policy at every 10 %, and none is chosen; add --sparsity"
            )
        scored += [step for step in steps if step.name not in known]
    return sr.perplexity(scored, analysis.text, protocol=analysis.protocol)


def _sensitivity(compared: Compared, analysis: Analysis) -> pd.DataFrame:
    """Score a text with one part pruned at a time."""
    import sparsity_report as sr

    pruning, by = next(iter(compared.prunings), None), analysis.sensitivity or "block"
    if pruning is None or pruning.target is None:
        raise SparsityReportError(
            "--sensitivity prunes one part at a time; add --sparsity with a share above that of "
            "the zeros that the model has"
        )
    return sr.sensitivity(
        pruning.weights, pruning.sparsity, by, text=analysis.text, protocol=analysis.protocol,
        cache=analysis.cache,
    )  # fmt: skip


def _continuations(compared: Compared, analysis: Analysis) -> pd.DataFrame:
    """Continue the prompts with the variants."""
    import sparsity_report as sr

    return sr.continuations(compared.variants, analysis.prompt)
