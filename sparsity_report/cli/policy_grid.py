"""Pruning policies by name, each with its sparsities, and the experts to keep."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sparsity_report.cli.options import Choice, PruneOptions
from sparsity_report.counting.pruning_policies import (
    calibrated_names,
    check_sparsity,
    read_option,
)
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.torch_extra import need_torch
from sparsity_report.words.number_format import read_share

if TYPE_CHECKING:
    from sparsity_report.counting.kept_experts import KeptExperts
    from sparsity_report.counting.pruning_policies import Policy
    from sparsity_report.weights.weights import Weights

# A policy and its sparsity, 0 for a pattern.
Choices: TypeAlias = "list[tuple[Policy, float]]"


def read_policies(policies: Iterable[str], sparsities: Iterable[str]) -> Choices:
    """Return every policy at every sparsity, and each pattern once, from comma-separated names.

    The default is magnitude at 30 %. A sparsity that no policy uses is refused.

    Examples
    --------
    >>> choices = read_policies(["magnitude,wanda", "2:4"], ["30%,0.5"])
    >>> [(policy.option, sparsity) for policy, sparsity in choices]
    [('magnitude', 0.3), ('magnitude', 0.5), ('wanda', 0.3), ('wanda', 0.5), ('2:4', 0.0)]
    """
    named = map(read_option, [name.lower() for name in _split(policies)] or ["magnitude"])
    levels = dict.fromkeys([read_sparsity(text) for text in _split(sparsities)] or [0.3])
    choices = [(p, s) for p in dict.fromkeys(named) for s in ((0.0,) if p.pattern else levels)]
    if sparsities and not any(sparsity for _, sparsity in choices):
        patterns = ", ".join(policy.option for policy, _ in choices)
        raise SparsityReportError(
            f"--sparsity has no effect on --policy {patterns}, whose pattern sets it; leave it out"
        )
    return choices


def calibrates(choices: Choices) -> bool:
    """Return whether a policy runs the model on a calibration text."""
    return any(policy.calibrates for policy, _ in choices)


def _split(texts: Iterable[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",")]


def read_sparsity(text: str) -> float:
    """Return the sparsity of an option such as ``0.3`` or ``30%``."""
    try:
        return check_sparsity(read_share(text))
    except ValueError:
        raise SparsityReportError(
            f"--sparsity {text!r} is not a share; use 0 to 1, or 0% to 100%; 30 % is 0.3"
        ) from None


def check_experts(
    options: Choice | PruneOptions, choices: Choices, score: str | None = None
) -> None:
    """Refuse contradictory options, and policies without their libraries, before opening."""
    keep = _read_experts(options.keep_experts) if options.keep_experts else None
    is_scored = isinstance(keep, int | float)
    if score is not None and not is_scored:
        raise SparsityReportError(
            "--score has no effect; add --keep-experts with a number or a share, or leave it out"
        )
    is_read = calibrates(choices) or (is_scored and score != "magnitude")
    if options.calibration is not None and not is_read:
        raise SparsityReportError(
            f"--calibration has no effect; add --policy {' or '.join(calibrated_names())}, or "
            "--keep-experts with a number, or leave it out"
        )
    if needing := [policy.option for policy, _ in choices if policy.calibrates]:
        need_torch(needing[-1])


def chosen_experts(
    weights: Weights, options: Choice | PruneOptions, score: str | None = None
) -> KeptExperts:
    """Return the experts that the options keep."""
    from sparsity_report.counting.kept_experts import read_experts
    from sparsity_report.measure.reap import reap

    keep, score = _read_experts(options.keep_experts or ""), score or "reap"
    if isinstance(keep, Path):
        return read_experts(weights, keep)
    text = None if score == "magnitude" else options.calibration
    return reap(weights, text, keep=keep, score=score)


def _read_experts(text: str) -> float | Path:
    """Return a number of experts, their share, or the file of a list."""
    try:
        return int(text) if text.isdecimal() else read_share(text)
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise SparsityReportError(
            f"--keep-experts {text!r} is neither a number, nor a share such as 75%, nor a file"
        ) from None
