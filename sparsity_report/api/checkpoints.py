"""Comparison of two checkpoints: open both, match their weights, tally the differences."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Union

import pandas as pd

from sparsity_report.api.study import Study
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.pruning import PrunedWeights, Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.alignment import Plan
from sparsity_report.pairing.paired_reading import compare_parameters
from sparsity_report.pairing.parameter_plan import plan_comparison
from sparsity_report.pairing.tally import ENOUGH, UNRELATED, Tally
from sparsity_report.study.layers import LayerTable
from sparsity_report.study.provenance import provenance
from sparsity_report.study.schema import SIDES, typed
from sparsity_report.study.survival import match_frame, removed_frame
from sparsity_report.study.variants import Variant, fingerprint, variant_row
from sparsity_report.weights.loading import load
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from torch import nn

#: Names of the variants of a study of two checkpoints.
NAMES = ("Before", "After")
Checkpoint = Union[Weights, Variant, Pruning, str, os.PathLike[str], "nn.Module"]
"""A model that can be compared: opened or not, as it is or pruned."""


def compare_checkpoints(
    before: Checkpoint,
    after: Checkpoint,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Study:
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
    progress : callable, optional
        Called with the bytes read, the bytes in all and the name of the tensor.

    Returns
    -------
    Study
        A study of the variants ``Before`` and ``After``, with the tables ``matches``, ``removed``,
        ``survival`` and ``changes``.

    Raises
    ------
    SparsityReportError
        The models are not of one kind; the message names the difference.

    Notes
    -----
    In ``matches``, ``module_name`` and ``block`` are those of the base; ``after_name`` is the
    matching module, null if it was removed. ``alignment`` names how the two were matched, with
    ``certainty``. ``weight_*`` and ``zeros_*`` count all weights of each side, ``compared`` the
    weights that both have. Of those, ``kept`` are zero in both, ``revived`` only before, ``new``
    only after; ``changed`` are nonzero in both with different values. For the weights that are
    nonzero in both, ``norm`` is the norm before, and ``relative_change`` the norm of the change ÷
    the norm before. ``correlation`` is the cosine of all compared weights. ``iou`` is the number of
    common zeros ÷ the zeros of either. ``untouched`` is true if every parameter, biases included,
    is unchanged. ``n_m_*`` is the sparsest of 1:4, 2:8, 2:4 and 4:8 that 99 % of the groups comply
    with.

    In ``removed``, ``index`` is one of ``among`` such parts, and ``certainty`` the probability
    that this one was removed. A weight is counted once, with the largest removed part that
    contains it.

    A fingerprint covers names, shapes, types and numbers of zeros, and that of ``After`` the
    numbers of changed weights. It differs from the fingerprint that :func:`compare` gives, which
    covers magnitudes.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pruned = sr.global_magnitude(weights, sparsity=0.5)
    >>> study = sr.compare_checkpoints(pruned, sr.global_magnitude(weights, sparsity=0.75))
    >>> study.totals[["variant", "sparsity_prunable"]].values.tolist()
    [['Before', 0.5], ['After', 0.75]]
    >>> int(study.matches["revived"].sum())
    0
    """
    models = _opened(before), _opened(after)
    planned = plan_comparison(*models)
    tallies = compare_parameters(planned, progress, executor)
    _check_related(planned, tallies)
    notes: list[str] = [note for weights in models for note in weights.notes]
    notes += planned.alignment.order_notes()
    counts = [_counts(planned, tallies, side) for side in SIDES]
    digests = _fingerprints(planned, tallies, counts)
    described, layers = [], []
    for name, weights, counted, digest in zip(NAMES, models, counts, digests, strict=True):
        variant = Variant(name, weights, None, "dense")
        described.append(variant_row(variant, counted, digest, context=None))
        layers.append(LayerTable(weights, counted).frame(name))
    return Study(
        variants=typed("variants", pd.DataFrame(described)),
        layers=pd.concat(layers, ignore_index=True),
        matches=match_frame(planned, tallies),
        removed=removed_frame(planned),
        provenance=provenance(),
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


def _counts(planned: Plan, tallies: Mapping[str, Tally], side: str) -> dict[str, Magnitudes]:
    """Return the nonzeros of the stored parameters of one side."""
    weights, zeros = getattr(planned, side), Counter[str]()
    for match in planned.matches:
        if (part := getattr(match, side)) is not None:
            zeros[part.parameter.name] += getattr(tallies[match.name], side).zeros
    return {p.name: Magnitudes(p.total, p.total - zeros[p.name]) for p in weights.stored}


def _fingerprints(
    planned: Plan, tallies: Mapping[str, Tally], counts: Sequence[Mapping[str, Magnitudes]]
) -> list[str]:
    """Return digests of the zeros of both models; that of the second covers its differences."""
    first, second = map(fingerprint, (planned.before, planned.after), counts)
    tallied = ((match.name, tallies[match.name]) for match in planned.matches)
    differences = [(n, t.revived, t.new, t.changed) for n, t in tallied if not t.untouched]
    if differences:
        second = hashlib.sha256(repr((first, second, differences)).encode()).hexdigest()[:16]
    return [first, second]


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
        if not isinstance(model, str | os.PathLike):
            raise
        try:
            weights = load(model, config=False)
        except SparsityReportError:
            raise error from None
        # A model pruned in width often has a config from which no class can be built.
        weights.notes += (say("note.opened_by_names", reason=str(error)),)
        return weights
