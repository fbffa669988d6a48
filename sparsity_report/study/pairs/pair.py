"""Two checkpoints compared weight by weight: what was taken away, and what became of the zeros."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from sparsity_report.hooks import Presentable, hooks
from sparsity_report.phrases import Phrase
from sparsity_report.study.notes import as_phrases
from sparsity_report.study.pairs.pair_frames import (
    gone_weights,
    group_sums,
    sparsity_frame,
    survival_frame,
    total_sums,
)

# Correlation of weights below which two models have nothing in common, and of how many.
UNRELATED, ENOUGH = 0.1, 1000


@dataclass(frozen=True, eq=False, repr=False)
class Pair(Presentable):
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
    notes : tuple of Phrase
        What a careful reader should know.
    """

    models: pd.DataFrame
    layers: pd.DataFrame
    removed: pd.DataFrame
    before: pd.DataFrame
    after: pd.DataFrame
    notes: tuple[Phrase, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", as_phrases(self.notes))

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
        """Return what was removed and what became of the zeros, most important first."""
        return hooks.sentences(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the pair as JSON, to be read back exactly by :func:`read_pair`."""
        return hooks.save(self, path)
