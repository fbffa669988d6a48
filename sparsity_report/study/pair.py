"""Two checkpoints compared weight by weight: what was taken away, and what became of the zeros."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from sparsity_report.counting.counts import Progress
from sparsity_report.counting.cuts import Pruning
from sparsity_report.counting.entries import CacheFolder
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.pruned import PrunedWeights
from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.pairing.links import Plan
from sparsity_report.pairing.orders import order_notes
from sparsity_report.pairing.paired import compared
from sparsity_report.pairing.plan import plan
from sparsity_report.pairing.tally import Tally
from sparsity_report.study.layers import layer_frame
from sparsity_report.study.pair_frames import (
    gone_weights,
    group_sums,
    pair_layers,
    removed_frame,
    sparsity_frame,
    survival_frame,
    total_sums,
)
from sparsity_report.study.schema import typed
from sparsity_report.study.variants import Variant
from sparsity_report.weights.loading import load
from sparsity_report.weights.weights import Weights
from sparsity_report.words.names import short_name
from sparsity_report.words.sentences import say
from sparsity_report.words.shown import Shown

# Correlation of weights below which two models have nothing in common, and of how many.
UNRELATED, ENOUGH = 0.1, 1000

Checkpoint = Weights | Variant | Pruning | str | os.PathLike[str] | nn.Module
"""What can be compared: a model, opened or not, as it is or pruned."""


@dataclass(frozen=True, eq=False)
class Pair(Shown):
    """A base and what became of it, as data. Renderers take this and never touch a model.

    Attributes
    ----------
    models : pandas.DataFrame
        ``side`` (``before``, ``after``), ``model``, ``architecture``, ``source``.
    layers : pandas.DataFrame
        One row per module of the base, and of those that only the model after has. ``module_name``
        and ``block`` are the base's, ``after_name`` is the module it became, null where it is gone;
        ``alignment`` says how that is known and ``certainty`` how surely; of what is ``rotated``
        the module is known and no weight of it, so that nothing is compared. ``weight_*`` and
        ``zeros_*`` are of all weights of each side, ``compared`` of those that stand in both; of
        them ``kept`` are zero in both, ``revived`` before only, ``new`` after only, and ``changed``
        are nonzero in both with another value. ``relative_change`` is the norm of the change ÷ the
        norm before, ``norm``, of the weights that are nonzero in both; ``correlation`` the cosine
        of both; ``iou`` the zeros of both ÷ those of either. ``untouched``: every parameter, biases
        too, is what it was. ``n_m_*``: the sparsest of 1:4, 2:8, 2:4 and 4:8 that 99 % of the
        groups comply with, null of none. ``kv_cache_*``: bytes that a token leaves in the cache of
        keys and values, null where that is not known.
    removed : pandas.DataFrame
        One row per thing of the base that is gone: ``kind``, ``module`` and ``index`` (of ``among``
        such things there; null where nothing tells which) as the base has them, ``certainty`` that
        it is this one, and what went with it: ``weights``, ``parameters``, ``bytes`` and
        ``flops_per_token``. A weight is told once, with the largest thing that it was part of.
    before, after : pandas.DataFrame
        The table ``layers`` of a study of each model.
    notes : tuple of str
        What a careful reader should know.
    """

    models: pd.DataFrame
    layers: pd.DataFrame
    removed: pd.DataFrame
    before: pd.DataFrame
    after: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        before, after = map(short_name, self.models["model"])
        first = say("Pair: {before} → {after}", before=before, after=after)
        frames = ["layers", "removed", "survival", "groups", "totals", "sparsities"]
        return "\n".join([first, self.sentences()[0], say("Frames: {frames:names}", frames=frames)])

    @cached_property
    def taken(self) -> int:
        """Prunable weights of the base that stand in the model after no more."""
        rows = self.layers[self.layers["prunable"]]
        return int(gone_weights(rows).sum())

    @cached_property
    def totals(self) -> pd.DataFrame:
        """``figure, before, after, removed, share``: each denominator over the whole model.

        ``prunable_weights``, ``parameters``, ``active_parameters`` and ``flops_per_token`` of a
        token, ``stored_bytes``, ``kv_cache_bytes_per_token``. ``removed`` is before − after, less
        than zero of what came to it; zeros that stand there still are not removed.
        """
        return total_sums(self.before, self.after, self.layers)

    @cached_property
    def groups(self) -> pd.DataFrame:
        """The same sums as :attr:`totals` per ``group``."""
        return group_sums(self.before, self.after, self.layers)

    @cached_property
    def sparsities(self) -> pd.DataFrame:
        """Shares of zeros under three names, of three things.

        ``of`` the ``prunable`` weights, the ``non_embedding`` parameters and the whole ``model``:
        ``sparsity_before`` is of the base itself, ``sparsity_itself`` of the model after itself,
        and ``gone_of_base`` counts what is zero or gone against the base: 1 − nonzero after ÷ all
        before, of what stands in both; null where the model after is the larger one, or has what
        the base has not and nobody can tell the two apart.
        """
        return sparsity_frame(self.before, self.after, self.layers)

    @cached_property
    def survival(self) -> pd.DataFrame:
        """What became of zeros: per ``group`` of prunable weights, the first row (null) of all.

        Of the weights that stand in both: ``zeros_before`` = ``kept`` + ``revived``,
        ``zeros_after`` = ``kept`` + ``new``, ``kept_share`` = kept ÷ zeros before, ``iou`` = kept ÷
        zeros of either; of ``surviving``, nonzero in both, ``changed`` have another value.
        ``untouched`` of ``modules`` are what they were.
        """
        return survival_frame(self.layers)

    def sentences(self) -> list[str]:
        """Say what was taken away and what became of the zeros, most important first."""
        from sparsity_report.findings.pair import pair_sentences

        return pair_sentences(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the pair as JSON, to be read back exactly by :func:`read_pair`."""
        from sparsity_report.study.pair_file import write_pair

        return write_pair(self, path)


def compare_checkpoints(
    before: Checkpoint,
    after: Checkpoint,
    *,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
    progress: Progress | None = None,
) -> Pair:
    """Compare two checkpoints of one model, weight by weight: what was taken away, what became.

    Every count is taken from the values of both, which are read once, slice by slice, in step.

    Parameters
    ----------
    before, after : Weights, Variant, Pruning, path, Hub id or nn.Module
        The base (or the pruned parent) and what became of it: pruned, fine-tuned, merged with an
        adapter (``sr.load(adapter, base=…)``) or quantised. A pruning stands for the pruned model,
        of which one tensor at a time is in memory.
    executor : concurrent.futures.Executor, optional
        Reads checkpoints in files, see :func:`sparsity_report.counting.counts.count_weights`.
    cache : path-like or Cache, optional
        Folder where what was found of large tensors in files is kept.
    progress : callable, optional
        Called with bytes done, bytes in all and the tensor's name.

    Returns
    -------
    Pair

    Raises
    ------
    SparsityReportError
        The two are no models of one kind; the line says what differs.

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
    planned = plan(*models)
    tallies, kept = compared(planned, progress, executor=executor, cache=cache)
    _check_related(planned, tallies)
    frames = [_layers(planned, tallies, side) for side in ("before", "after")]
    described = [
        {
            "side": side,
            "model": weights.name,
            "architecture": weights.architecture,
            "source": weights.source,
        }
        for side, weights in zip(("before", "after"), models, strict=True)
    ]
    notes = [*(note for weights in models for note in weights.notes)]
    notes += [*order_notes(planned.alignment), *kept]
    return Pair(
        models=typed("pair_models", pd.DataFrame(described)),
        layers=pair_layers(planned, tallies),
        removed=removed_frame(planned),
        before=frames[0],
        after=frames[1],
        notes=tuple(dict.fromkeys(map(writable, notes))),
    )


def _check_related(planned: Plan, tallies: Mapping[str, Tally]) -> None:
    """Refuse two models whose weights have nothing to do with each other."""
    whole = Tally()
    for link in planned.links:
        if link.before and link.before.parameter.prunable:
            whole += tallies[link.name]
    alike = whole.correlation
    # Of what is nearly all zero little is alike, and yet what is left is what it was.
    surviving = whole.compared - whole.kept - whole.revived - whole.new
    if (
        alike is not None
        and whole.compared >= ENOUGH
        and alike < UNRELATED
        and whole.changed > surviving / 2
    ):
        raise SparsityReportError(
            f"{planned.before.name} and {planned.after.name} look unrelated: the "
            f"{whole.compared:,} prunable weights that have one place in both correlate by "
            f"{alike:.2f}, as those of two models trained apart; give the base of the second one"
        )


def _layers(planned: Plan, tallies: Mapping[str, Tally], side: str) -> pd.DataFrame:
    """Return the layers of one side as a study has them, of what was counted of both."""
    weights, zeros = getattr(planned, side), Counter[str]()
    for link in planned.links:
        if (part := getattr(link, side)) is not None:
            zeros[part.parameter.name] += getattr(tallies[link.name], f"zeros_{side}")
    counts = {p.name: Magnitudes(p.total, p.total - zeros[p.name]) for p in weights.stored}
    return layer_frame(weights, counts, variant=side)


def _opened(model: Any) -> Weights:
    """Open what is to be compared; a pruning becomes the model that it leaves."""
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
        # What is pruned in width often has a config that no class can be built of.
        weights.notes += (f"opened by names and shapes alone: {error}",)
        return weights
