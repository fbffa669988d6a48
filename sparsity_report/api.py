"""Composition of the wings: what ``sr`` offers, and what values need from the wings above them.

Imports happen inside the functions, so that ``import sparsity_report`` stays light.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsity_report.hooks import hooks

if TYPE_CHECKING:
    from sparsity_report.study.comparison import Study
    from sparsity_report.study.pairs.pair import Pair
    from sparsity_report.study.published_scores import Reproduction


def summarize(
    study: Study | Pair | Reproduction | str | os.PathLike[str],
) -> list[str]:
    """Return the findings about a study or a pair as sentences, most important first.

    Parameters
    ----------
    study : Study, Pair, Reproduction or path-like
        The study, the pair, the comparison with a paper, or the path of a saved study or pair.

    Returns
    -------
    list of str
        Sentences.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> study = sr.compare(sr.dense(sr.load()), sr.masked(pruning), sr.csr(pruning))
    >>> print(sr.summarize(study)[0][:53])
    At 30 % sparsity, CSR makes the model a third larger,
    """
    from sparsity_report.findings.pair_findings import pair_findings
    from sparsity_report.findings.quality_findings import reproduction_findings
    from sparsity_report.findings.study_findings import study_findings
    from sparsity_report.study.comparison import Study
    from sparsity_report.study.files.json_files import value_or_saved
    from sparsity_report.study.pairs.pair import Pair
    from sparsity_report.study.published_scores import Reproduction

    findings: dict[type, Callable[[Any], Iterable[str]]] = {
        Pair: pair_findings,
        Reproduction: reproduction_findings,
        Study: study_findings,
    }
    value = value_or_saved("summarize", study, *findings)
    return [*findings[type(value)](value)]


def _audit(study: Study) -> list[str]:
    from sparsity_report.findings.audit import audit

    return audit(study)


def _content(value: Study | Pair) -> dict[str, Any]:
    from sparsity_report.study.files.json_files import content_of

    return content_of(value, summarize(value))


def _save(value: Study | Pair, path: str | os.PathLike[str]) -> Path:
    from sparsity_report.files.atomic import write_file

    return write_file(path, json.dumps(_content(value), ensure_ascii=False))


hooks.describe = lambda value: import_module("sparsity_report.report.value_display").describe(value)
hooks.mime_bundle = lambda value: import_module("sparsity_report.report.value_display").bundle(
    value
)
hooks.sentences = summarize
hooks.audit = _audit
hooks.save = _save
hooks.content = _content
hooks.chart = lambda *parts: import_module("sparsity_report.draw.heat_maps").metric_map(*parts)
hooks.progress_bar = lambda *bar: import_module("sparsity_report.report.progress_bars").drawn(*bar)
