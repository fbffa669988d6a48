"""Measurements that options ask for; a refused one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparsity_report.cli.compared_models import Compared, cache_of
from sparsity_report.cli.options import Analysis
from sparsity_report.errors import SparsityReportError
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    import pandas as pd

    from sparsity_report.measure.clock import Clock
    from sparsity_report.study.comparison import Study

# Options of `sr.compare`.
_COMPARING = ("convention", "context", "patterns", "zstd")


def clock_of(analysis: Analysis) -> Clock | None:
    """Return the clock of --latency, None without that option."""
    names = ("cold", "budget", "precision")
    given = {name: value for name in names if (value := getattr(analysis, name)) is not None}
    if given and not analysis.latency:
        option = "--cold and --warm need" if "cold" in given else f"--{next(iter(given))} needs"
        raise SparsityReportError(f"{option} --latency, which is missing; add it")
    if not analysis.latency:
        return None
    from sparsity_report.measure.clock import Clock

    return Clock(**given)


def studied(compared: Compared, analysis: Analysis) -> tuple[Study, bool]:
    """Compare and measure the variants; return the study, and True if a request was refused."""
    import sparsity_report as sr

    variants = compared.variants
    options = {name: getattr(analysis, name) for name in _COMPARING}
    study = sr.compare(*variants, **options)
    if analysis.latency:
        times = sr.latency(variants, clock=clock_of(analysis))
        study = study.with_measured(latency=times)
    asked: list[tuple[str, bool, Callable[[Compared, Analysis], pd.DataFrame]]] = [
        ("quality", analysis.perplexity, _quality),
        ("sensitivity", analysis.sensitivity is not None, _sensitivity),
        ("continuations", bool(analysis.prompt or analysis.prompts), _continuations),
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
    note = error.note if isinstance(error, NoScoreError) else say("note.text", text=str(error))
    if note in study.notes:
        return study, is_wrong
    return replace(study, notes=(*study.notes, note)), is_wrong


def _quality(compared: Compared, analysis: Analysis) -> pd.DataFrame:
    """Score a text with the variants, and at each tenth of sparsity."""
    import sparsity_report as sr

    steps = map(sr.masked, compared.steps())
    known = {variant.name for variant in compared.variants}
    scored = [*compared.variants, *(step for step in steps if step.name not in known)]
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
    options: dict[str, Any] = {name: getattr(analysis, name) for name in ("text", "protocol")}
    options["cache"] = cache_of(analysis)
    return sr.sensitivity(pruning.weights, pruning.sparsity, by, **options)


def _continuations(compared: Compared, analysis: Analysis) -> pd.DataFrame:
    """Continue the prompts with the variants."""
    import sparsity_report as sr

    return sr.continuations(compared.variants, prompts_of(analysis), seeds=analysis.seeds)


def prompts_of(analysis: Analysis) -> list[str]:
    """Return the prompts to continue, given as text and in a file."""
    if analysis.prompts is None:
        return analysis.prompt
    from sparsity_report.measure.texts import read_prompts

    return [*analysis.prompt, *read_prompts(analysis.prompts)]
