"""Comparison of two checkpoints: open both, match their weights, tally the differences."""

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import pandas as pd
from torch import nn

from sparsity_report.counting.disk_cache import CacheFolder
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.pruning import PrunedWeights, Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.matches import Plan
from sparsity_report.pairing.paired_reading import compare_parameters
from sparsity_report.pairing.parameter_plan import plan_comparison
from sparsity_report.pairing.tally import Tally
from sparsity_report.study.layers import layer_frame
from sparsity_report.study.pairs.pair import ENOUGH, UNRELATED, Pair
from sparsity_report.study.pairs.pair_frames import pair_layers, removed_frame
from sparsity_report.study.schema import SIDES, typed
from sparsity_report.study.variants import Variant
from sparsity_report.weights.loading import load
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

Checkpoint = Weights | Variant | Pruning | str | os.PathLike[str] | nn.Module
"""A model that can be compared: opened or not, as it is or pruned."""


def compare_checkpoints(
    before: Checkpoint,
    after: Checkpoint,
    *,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
    progress: Progress | None = None,
) -> Pair:
    """Compare two checkpoints of one model weight by weight.

    Every count is taken from the values of both, which are read once, slice by slice, in step.

    Parameters
    ----------
    before, after : Weights, Variant, Pruning, path, Hub id or nn.Module
        The base (or the pruned parent) and the model made from it: pruned, fine-tuned, merged with
        an adapter (``sr.load(adapter, base=…)``) or quantized. A pruning means the pruned model,
        with one tensor at a time in memory.
    executor : concurrent.futures.Executor, optional
        Reads checkpoints in files, see :func:`global_magnitude`.
    cache : path-like or Cache, optional
        Folder that keeps the tallies of large tensors in files.
    progress : callable, optional
        Called with the bytes read, the bytes in all and the name of the tensor.

    Returns
    -------
    Pair
        Removed parts, the fate of zeros, and the sums of both models.

    Raises
    ------
    SparsityReportError
        The models are not of one kind; the message names the difference.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pruned = sr.global_magnitude(weights, sparsity=0.5)
    >>> pair = sr.compare_checkpoints(pruned, sr.global_magnitude(weights, sparsity=0.75))
    >>> row = pair.sparsities.set_index("of").loc["prunable"]
    >>> float(row["sparsity_before"]), float(row["sparsity_itself"])
    (0.5, 0.75)
    >>> int(pair.layers["revived"].sum())
    0
    """
    models = _opened(before), _opened(after)
    planned = plan_comparison(*models)
    tallies, kept = compare_parameters(planned, progress, executor=executor, cache=cache)
    _check_related(planned, tallies)
    described = [(each.name, each.architecture, each.source) for each in models]
    frame = pd.DataFrame(described, columns=["model", "architecture", "source"])
    notes: list[str] = [note for weights in models for note in weights.notes]
    notes += [*planned.alignment.order_notes(), *kept]
    return Pair(
        models=typed("pair_models", frame.assign(side=SIDES)),
        layers=pair_layers(planned, tallies),
        removed=removed_frame(planned),
        **{side: _layers(planned, tallies, side) for side in SIDES},
        notes=tuple(notes),
    )


def _check_related(planned: Plan, tallies: Mapping[str, Tally]) -> None:
    """Refuse two models whose weights are unrelated."""
    sums = Tally()
    for match in planned.matches:
        if match.before and match.before.parameter.prunable:
            sums += tallies[match.name]
    correlation = sums.correlation
    if correlation is None or sums.compared < ENOUGH:
        return
    # Weights that are nearly all zero correlate little although the rest is unchanged.
    if correlation < UNRELATED and sums.changed > sums.surviving / 2:
        raise SparsityReportError(
            f"{planned.before.name} and {planned.after.name} look unrelated: the "
            f"{sums.compared:,} matched prunable weights correlate by {correlation:.2f}, as in "
            "models trained apart; give the base of the second one"
        )


def _layers(planned: Plan, tallies: Mapping[str, Tally], side: str) -> pd.DataFrame:
    """Return the layers of one side as a study has them."""
    weights, zeros = getattr(planned, side), Counter[str]()
    for match in planned.matches:
        if (part := getattr(match, side)) is not None:
            zeros[part.parameter.name] += getattr(tallies[match.name], side).zeros
    counts = {p.name: Magnitudes(p.total, p.total - zeros[p.name]) for p in weights.stored}
    return layer_frame(weights, counts, variant=side)


def _opened(model: Any) -> Weights:
    """Open a model to compare; a pruning becomes the pruned model."""
    if isinstance(model, Weights):
        return model
    if isinstance(model, Pruning):
        return PrunedWeights(model, f"{model.weights.name}, Masked{model.label}")
    if isinstance(model, Variant):
        if model.pruning is None:
            return model.weights
        return PrunedWeights(model.pruning, f"{model.weights.name}, {model.name}")
    try:
        return load(model)
    except SparsityReportError as error:
        if isinstance(model, nn.Module):
            raise
        try:
            weights = load(model, config=False)
        except SparsityReportError:
            raise error from None
        # A model pruned in width often has a config from which no class can be built.
        weights.notes += (say("note.opened_by_names", reason=str(error)),)
        return weights
