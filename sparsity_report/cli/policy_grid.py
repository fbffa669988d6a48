"""Pruning policies by name, each with its sparsities, and the experts to keep."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sparsity_report.cli.options import Policies
from sparsity_report.counting.pruning_policies import (
    CALIBRATED_SCORES,
    EXPERT_SCORES,
    calibrated_names,
    check_sparsity,
    read_option,
)
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.sources.model_paths import is_imatrix
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


def check_experts(options: Policies, choices: Choices, *, is_one: bool = False) -> None:
    """Refuse contradictory options, and policies without their libraries, before opening."""
    keeps, scores = _read_experts(options)
    if options.score and not scores:
        raise SparsityReportError(
            "--score has no effect; add --keep-experts with a number or a share, or leave it out"
        )
    is_scored = any(score in CALIBRATED_SCORES for score in scores)
    if options.calibration and not (calibrates(choices) or is_scored):
        raise SparsityReportError(
            f"--calibration has no effect; add --policy {' or '.join(calibrated_names())}, or "
            "--keep-experts with a number, or leave it out"
        )
    most = 1 if is_one or not is_scored else 2
    given = {"--calibration": (options.calibration, most)}
    given |= {"--keep-experts": (keeps, 1), "--score": (scores, 1)} if is_one else {}
    for name, (values, allowed) in given.items():
        if len(values) > allowed:
            raise SparsityReportError(f"{name} has {len(values)} values; give at most {allowed}")
    if needing := [policy.option for policy, _ in choices if policy.calibrates]:
        need_torch(needing[-1])


def needs_class(options: Policies) -> bool:
    """Return whether the class of a model decides the experts that are kept.

    It runs for a text, and its names of modules are keys of random scores. Other scores and lists
    need the tensors alone.
    """
    scores = {*_read_experts(options)[1]}
    has_counts = all(map(is_imatrix, options.calibration or [""]))
    return "random" in scores or not (has_counts or scores.isdisjoint(CALIBRATED_SCORES))


def chosen_experts(weights: Weights, options: Policies, seeds: int = 1) -> list[KeptExperts]:
    """Return the experts that each score keeps at each level; random scores for several seeds.

    A note to the model compares them with those of a second calibration text.
    """
    import sparsity_report as sr
    from sparsity_report.study.derived.heads_experts import overlap_note

    keeps, scores = _read_experts(options)
    if not scores:
        return [sr.read_experts(weights, keep) for keep in keeps]
    for keep in keeps:  # a wrong number is refused before calibration
        sr.reap(weights, keep=keep, score="random")
    read: list[Any] = []
    if any(score in CALIBRATED_SCORES for score in scores):
        texts: list[str | None] = [*options.calibration] or [None]
        read = [text if is_imatrix(text) else sr.calibrate(weights, text) for text in texts]
    first, second = (*read, None, None)[:2]
    lists = []
    for keep, score in product(keeps, scores):
        by_score = partial(sr.reap, weights, keep=keep, score=score)
        numbers, is_read = range(seeds if score == "random" else 1), score in CALIBRATED_SCORES
        source = None if isinstance(first, str) and not is_read else first
        lists += [by_score(source, seed=seed) for seed in numbers]
        if second and is_read:
            weights.notes += (overlap_note(lists[-1], by_score(second)),)
    return lists


def _read_experts(options: Policies) -> tuple[list[Any], list[str]]:
    """Return numbers of experts, their shares, or the file of a list, and the scores to use.

    Several levels have all scores by default.
    """
    if (text := options.keep_experts) is None:
        return [], []
    try:
        keeps = [int(each) if each.isdecimal() else read_share(each) for each in _split([text])]
    except ValueError:
        if Path(text).is_file():
            return [Path(text)], []
        raise SparsityReportError(
            f"--keep-experts {text!r} is neither a number, nor a share such as 75%, nor a file"
        ) from None
    scores = _split(options.score) or EXPERT_SCORES[: 1 if len(keeps) == 1 else None]
    if unknown := [score for score in scores if score not in EXPERT_SCORES]:
        raise SparsityReportError(
            f"--score {unknown[0]!r} is unknown; use {', '.join(EXPERT_SCORES)}"
        )
    return [*dict.fromkeys(keeps)], [*dict.fromkeys(scores)]
