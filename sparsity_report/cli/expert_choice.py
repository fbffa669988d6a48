"""Experts to keep, from ``--keep-experts`` and ``--score``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sparsity_report.cli.options import Choice, PruneOptions
from sparsity_report.errors import SparsityReportError
from sparsity_report.words.number_format import read_share

if TYPE_CHECKING:
    from sparsity_report.counting.kept_experts import KeptExperts
    from sparsity_report.measure.calibration import Calibration
    from sparsity_report.weights.weights import Weights

_SCORES = ("reap", "frequency", "magnitude")


def check_experts(options: Choice | PruneOptions, calibrates: bool) -> None:
    """Refuse contradictory options before a model is opened; `calibrates` is that of policies."""
    keep = None if options.keep_experts is None else _read(options.keep_experts)
    if options.score is not None and not isinstance(keep, int | float):
        raise SparsityReportError(
            "--score has no effect; add --keep-experts with a number or a share, or leave it out"
        )
    if options.score not in {None, *_SCORES}:
        raise SparsityReportError(f"--score {options.score!r} is unknown; use {', '.join(_SCORES)}")
    scored = isinstance(keep, int | float) and options.score != "magnitude"
    if options.calibration is not None and not (calibrates or scored):
        raise SparsityReportError(
            "--calibration has no effect; add --policy wanda or owl, or --keep-experts with a "
            "number, or leave it out"
        )


def chosen_experts(
    weights: Weights, options: Choice | PruneOptions, calibration: Calibration | None = None
) -> KeptExperts:
    """Return the experts that the options keep, scored on a calibration that exists or a text."""
    import sparsity_report as sr

    keep, score = _read(options.keep_experts or ""), options.score or "reap"
    if isinstance(keep, Path):
        return sr.read_experts(keep, weights)
    text = None if score == "magnitude" else calibration or options.calibration
    return sr.reap(weights, text, keep=keep, score=score)


def _read(text: str) -> float | Path:
    """Return a number of experts, their share, or the file of a list."""
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    try:
        return read_share(text)
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise SparsityReportError(
            f"--keep-experts {text!r} is neither a number, nor a share such as 75%, nor a file"
        ) from None
