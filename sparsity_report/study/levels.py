"""Every layer at every sparsity, from one pass over the weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.counts import Progress, count_weights
from sparsity_report.counting.histogram import BUCKETS, Magnitudes, bucket_of
from sparsity_report.counting.policies import check_sparsity, prunable_counts
from sparsity_report.counting.ranks import Level, look_into, select, settle
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import dense_bytes, index_bytes, value_bytes
from sparsity_report.sparse.shares import ratio, zero_shares
from sparsity_report.study.layers import csr_stored, layer_frame, useful_flops
from sparsity_report.weights.weights import Weights

SWEEP_COLUMNS = (
    "sparsity",
    "threshold",
    "module_name",
    "block",
    "group",
    "total",
    "nonzero",
    "weight_total",
    "weight_nonzero",
    "useful_flops_per_token",
    "dense_bytes",
    "csr_bytes",
    "uncertainty",
)
LEVEL_COLUMNS = ("module_name", "sparsity", "weight_nonzero", "uncertainty")
LEVEL_TOTALS = (
    "sparsity",
    "weight_nonzero",
    "nonzero",
    "useful_flops_per_token",
    "csr_bytes",
    "uncertainty",
)
_KEPT = (
    "module_name",
    "block",
    "group",
    "shape",
    "dtype",
    "prunable",
    "total",
    "nonzero",
    "weight_total",
    "weight_nonzero",
    "row_pointers",
    "flops_per_token",
    "useful_flops_per_token",
)
# Modules up to which a study keeps a level at every percent.
_FINE = 10_000
# Magnitudes that are looked at exactly in one reading: bounds the memory.
_LOOK = 2**21


def sweep(
    weights: Weights,
    sparsities: Iterable[float] | None = None,
    *,
    exact: bool = False,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Return what global magnitude pruning leaves of every layer at many sparsities.

    One pass over the weights serves all levels. The number of weights pruned in all is exact at
    every level, as :func:`global_magnitude` would prune. How they spread over the layers is exact
    for weights of 8 or 16 bits. For wider ones a layer's share of the 0.8 % wide bucket of
    magnitudes that the threshold lies in is interpolated: the column ``uncertainty`` says by how
    many weights ``nonzero`` may be off, for a bell curve at most some thousandths of the layer.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsities : iterable of float, optional
        Each between 0 and 1; by default 0, 0.01, … 0.99.
    exact : bool
        Read float32 weights again, once for a few levels, to make every level exact.
    progress, executor, cache : optional
        See :func:`sparsity_report.counting.counts.count_weights`.

    Returns
    -------
    pandas.DataFrame
        One row per sparsity and module: ``threshold`` (largest magnitude pruned, or the lower end
        of its bucket; null where nothing is), counts in elements, ``dense_bytes`` and
        ``csr_bytes`` of the module with its prunable matrices stored so, ``uncertainty`` in
        elements. The rest is as in ``study.layers``.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> frame = sr.sweep(sr.load(), [0.3, 0.6])
    >>> pruned = (frame["total"] - frame["nonzero"]).groupby(frame["sparsity"]).sum()
    >>> round(float(pruned[0.6] / pruned[0.3]), 1)
    2.0
    """
    wanted = np.arange(100) / 100 if sparsities is None else sparsities
    if not (levels := [check_sparsity(s) for s in wanted]):
        raise SparsityReportError("sweep needs at least one sparsity, such as [0.3]")
    counts = prunable_counts(weights, progress, executor, cache)
    found = _found(weights, counts, levels, exact, executor)

    shape = (len(weights.modules), len(levels))
    lost, idle, csr, slack = (np.zeros(shape, dtype=np.int64) for _ in range(4))
    place = {name: row for row, name in enumerate(counts)}
    for row, module in enumerate(weights.modules):
        for p in module.parameters:
            if p.tied_to is not None:
                continue
            if p.name not in place:
                csr[row] += dense_bytes(p.total, p.itemsize)
                continue
            seen, at = counts[p.name], place[p.name]
            left = found.left[:, at]
            lost[row] += seen.nonzero - left
            slack[row] += found.slack[:, at]
            csr[row] += [csr_stored(p, n) for n in left.tolist()]
            if module.per == "token":
                idle[row] += useful_flops(p, seen.nonzero)
                idle[row] -= [useful_flops(p, n) for n in left.tolist()]

    base = layer_frame(weights, count_weights(weights), variant="")
    frame = base.iloc[np.tile(np.arange(shape[0]), shape[1])].reset_index(drop=True)
    frame["sparsity"] = np.repeat(levels, shape[0])
    frame["threshold"] = np.repeat(found.thresholds, shape[0])
    for column in ("nonzero", "weight_nonzero"):
        frame[column] -= lost.T.ravel()
    frame["useful_flops_per_token"] -= idle.T.ravel()
    dense = [
        sum(dense_bytes(p.total, p.itemsize) for p in m.parameters if p.tied_to is None)
        for m in weights.modules
    ]
    frame["dense_bytes"] = np.tile(dense, shape[1])
    frame["csr_bytes"] = csr.T.ravel()
    frame["uncertainty"] = slack.T.ravel()
    return frame[list(SWEEP_COLUMNS)]


def level_table(weights: Weights) -> pd.DataFrame | None:
    """Return what is left of the prunable modules at each level, small enough to keep in a study.

    Returns
    -------
    pandas.DataFrame or None
        With the columns ``LEVEL_COLUMNS``, module by module, counts in elements; at 0, 1, … 99 %,
        or every 5 % where there are more than 10,000 modules. None where nothing is prunable or
        values are unknown.
    """
    owned = {p.name: m.name for m in weights.modules for p in m.parameters if p.tied_to is None}
    prunable = list(weights.prunable)
    if not prunable or not all(p.known for p in prunable):
        return None
    counts = prunable_counts(weights)
    names = [owned[name] for name in counts]
    modules = list(dict.fromkeys(names))
    step = 1 if len(modules) <= _FINE else 5
    levels = [percent / 100 for percent in range(0, 100, step)]
    found = _found(weights, counts, levels, exact=False, executor=None)
    place = {name: row for row, name in enumerate(modules)}
    left, slack = (np.zeros((len(modules), len(levels)), dtype=np.int64) for _ in range(2))
    at = [place[name] for name in names]
    np.add.at(left, at, found.left.T)
    np.add.at(slack, at, found.slack.T)
    return pd.DataFrame(
        {
            "module_name": np.repeat(np.array(modules, dtype=object), len(levels)),
            "sparsity": np.tile(levels, len(modules)),
            "weight_nonzero": left.ravel(),
            "uncertainty": slack.ravel(),
        }
    )


class Levels:
    """A model at each level of a study, from its tables alone: integers in, integers out.

    Of a module with `weight_total` weights in its matrices, `total` parameters, values of `v`
    bytes, and `n` weights left at a level: `nonzero` is `n` plus its other nonzeros, CSR takes
    ``n·(v + i) + row_pointers·i + (total − weight_total)·v`` bytes with `i` = 4 where int32 serves,
    useful FLOPs are ``round(2·n·uses)`` with the uses per token that its dense FLOPs show. Modules
    without prunable weights stay as they are.

    Parameters
    ----------
    layers : pandas.DataFrame
        Rows of the variant whose weights `levels` speaks of.
    levels : pandas.DataFrame
        From :func:`level_table`.
    """

    def __init__(self, layers: pd.DataFrame, levels: pd.DataFrame) -> None:
        self.sparsities: list[float] = levels["sparsity"].unique().tolist()
        shape = (-1, len(self.sparsities))
        self._left = levels["weight_nonzero"].to_numpy().reshape(shape)
        self._slack = levels["uncertainty"].to_numpy().reshape(shape)
        self._layers = layers.reset_index(drop=True)
        names = levels["module_name"].iloc[:: len(self.sparsities)]
        self.rows = pd.Index(self._layers["module_name"]).get_indexer(pd.Index(names))
        if (self.rows < 0).any():
            raise SparsityReportError("the levels of the study speak of modules it does not have")
        own = self._layers.iloc[self.rows]
        weights, before = (_integers(own[c]) for c in ("weight_total", "weight_nonzero"))
        sizes = np.array([value_bytes(dtype) for dtype in own["dtype"]])
        self._value = sizes
        self._weights, self._before = weights, before
        self._columns, self._pointers = _integers(own["columns"]), _integers(own["row_pointers"])
        self._rest_bytes = (_integers(own["total"]) - weights) * sizes
        self._rest_nonzero = _integers(own["nonzero"]) - before
        # A row in CSR shows its uses by what is left, others by all their weights.
        counted = np.where(own["layout"] == "csr", before, weights)
        flops = _integers(own["flops_per_token"])
        self._uses = np.divide(flops / 2, counted, out=np.zeros(len(own)), where=counted > 0)
        self._dense_flops = np.rint(2 * self._uses * weights).astype(np.int64)

    def at(self, sparsity: float) -> pd.DataFrame:
        """Return one row per module, columns as of :func:`sweep`, and ``flops_per_token`` if dense.

        Raises
        ------
        SparsityReportError
            The level is not among those kept.
        """
        near = int(np.argmin(np.abs(np.array(self.sparsities) - sparsity)))
        if abs(self.sparsities[near] - sparsity) > 1e-9:
            raise SparsityReportError(
                f"a study keeps the levels {', '.join(f'{s:g}' for s in self.sparsities[:3])} … "
                f"{self.sparsities[-1]:g}, not {sparsity!r}; sweep(weights, [{sparsity!r}]) has any"
            )
        frame = self._layers[list(_KEPT)].assign(sparsity=self.sparsities[near], uncertainty=0)
        frame["dense_bytes"] = frame["csr_bytes"] = self._layers["stored_bytes"]
        left = self._left[:, near]
        changed = {
            "weight_nonzero": left,
            "nonzero": left + self._rest_nonzero,
            "flops_per_token": self._dense_flops,
            "useful_flops_per_token": self._flops(left),
            "dense_bytes": _integers(frame["total"])[self.rows] * self._value,
            "csr_bytes": self._bytes(left),
            "uncertainty": self._slack[:, near],
        }
        for column, values in changed.items():
            whole = frame[column].array.copy()
            whole[self.rows] = values
            frame[column] = whole
        return frame

    @cached_property
    def totals(self) -> pd.DataFrame:
        """Sums over the prunable modules, one row per level, with the columns ``LEVEL_TOTALS``."""
        sums = [
            (
                sparsity,
                int(left.sum()),
                int((left + self._rest_nonzero).sum()),
                int(self._flops(left).sum()),
                int(self._bytes(left).sum()),
                int(slack.sum()),
            )
            for sparsity, left, slack in zip(
                self.sparsities, self._left.T, self._slack.T, strict=True
            )
        ]
        return pd.DataFrame(sums, columns=list(LEVEL_TOTALS))

    @cached_property
    def dense_bytes(self) -> int:
        """Bytes of the prunable modules as dense tensors."""
        return int((_integers(self._layers["total"])[self.rows] * self._value).sum())

    @cached_property
    def dense_flops(self) -> int:
        """FLOPs per token of the prunable modules as dense tensors."""
        return int(self._dense_flops.sum())

    @cached_property
    def model(self) -> pd.DataFrame:
        """The whole model with its prunable matrices in CSR, see :attr:`Facts.levels`."""
        inside = np.zeros(len(self._layers), dtype=bool)
        inside[self.rows] = True
        beside = self._layers[~inside]
        zeros = self.zeros.sum(axis=0)
        other_zeros = (self._layers["total"] - self._layers["nonzero"]).sum(skipna=False)
        whole = int(self._layers["total"].sum())
        frame = pd.DataFrame({"sparsity": self.sparsities, "zeros": zeros})
        frame["sparsity_prunable"] = [ratio(count, self.weights) for count in zeros]
        model_zeros = _plus(zeros - int(self.zeros_before.sum()), other_zeros)
        frame["model_zeros"] = model_zeros
        frame["sparsity_model"] = zero_shares(pd.Series(whole, frame.index), whole - model_zeros)
        for column, sparse, dense, rest in (
            ("stored_bytes", "csr_bytes", self.dense_bytes, "stored_bytes"),
            ("flops_per_token", "useful_flops_per_token", self.dense_flops, "flops_per_token"),
        ):
            other = beside[rest].sum(skipna=False)
            frame[column] = _plus(self.totals[sparse], other)
            known = None if pd.isna(other) else dense + int(other)
            name = f"{column.split('_')[0].replace('stored', 'bytes')}_ratio"
            frame[name] = [ratio(part, known) for part in frame[column]]
            frame[f"dense_{column}"] = _plus(np.full(len(frame), dense), other)
        frame["uncertainty"] = self._slack.max(axis=0)
        frame["uncertainty_share"] = (self._slack / np.maximum(self._weights, 1)[:, None]).max(
            axis=0
        )
        return frame

    @cached_property
    def zeros(self) -> npt.NDArray[np.int64]:
        """Zeros of the prunable weights, shape (prunable modules, levels)."""
        zeros: npt.NDArray[np.int64] = self._weights[:, None] - self._left
        return zeros

    @property
    def zeros_before(self) -> npt.NDArray[np.int64]:
        """Zeros that the rows of the layers speak of, per prunable module."""
        return self._weights - self._before

    @property
    def weights(self) -> int:
        """Number of prunable weights."""
        return int(self._weights.sum())

    def _flops(self, left: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        flops: npt.NDArray[np.int64] = np.rint(2 * self._uses * left).astype(np.int64)
        return flops

    def _bytes(self, left: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        index = np.array([index_bytes(*pair) for pair in zip(left, self._columns, strict=True)])
        matrices = left * (self._value + index) + self._pointers * index
        sizes: npt.NDArray[np.int64] = matrices + self._rest_bytes
        return sizes


def thresholds(weights: Weights, sparsities: Iterable[float]) -> list[float | None]:
    """Return the largest magnitude pruned at each level, or the lower end of its bucket."""
    counts = prunable_counts(weights)
    levels = [check_sparsity(sparsity) for sparsity in sparsities]
    found = _found(weights, counts, levels, exact=False, executor=None).thresholds
    return [None if np.isnan(threshold) else float(threshold) for threshold in found]


def _plus(counts: Any, known: Any) -> pd.Series:
    """Add one number to each; null throughout where it is not known."""
    sums = pd.Series(np.asarray(counts), dtype="Int64")
    return sums + (pd.NA if pd.isna(known) else int(known))


def _integers(column: pd.Series) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = column.to_numpy(dtype=np.int64, na_value=0)
    return numbers


class _Found(NamedTuple):
    """Per level and prunable tensor, in the order of the counts."""

    left: np.ndarray  # nonzeros, of shape (levels, tensors)
    slack: np.ndarray  # by how many they may be off
    thresholds: np.ndarray  # of shape (levels,), NaN where nothing is pruned


def _found(
    weights: Weights,
    counts: Mapping[str, Magnitudes],
    sparsities: Sequence[float],
    exact: bool,
    executor: Executor | None,
) -> _Found:
    total = sum(seen.total for seen in counts.values())
    targets = [round(sparsity * total) for sparsity in sparsities]
    levels = {level.target: level for level in _levels(weights, counts, targets, exact, executor)}
    none = np.zeros(len(counts), dtype=np.int64)
    pruned = np.array([levels[t].below + levels[t].ties if t else none for t in targets])
    slack = np.array([levels[t].slack if t else none for t in targets])
    sizes = np.array([seen.total for seen in counts.values()], dtype=np.int64)
    zeros = sizes - np.array([seen.nonzero for seen in counts.values()], dtype=np.int64)
    thresholds = [levels[t].threshold if t else None for t in targets]
    # What was zero before is pruned first, where its own tensor lost less than it held.
    return _Found(sizes - np.maximum(pruned, zeros), slack, np.array(thresholds, dtype=float))


def _levels(
    weights: Weights,
    counts: Mapping[str, Magnitudes],
    targets: Iterable[int],
    exact: bool,
    executor: Executor | None,
) -> Iterator[Level]:
    found = list(select(counts, sorted({target for target in targets if target})))
    rough = [level for level in found if exact and not level.exact]
    yield from (level for level in found if level not in rough)
    if not rough:
        return
    tally = np.zeros(BUCKETS, dtype=np.int64)
    for seen in counts.values():
        np.add.at(tally, bucket_of(seen.values), seen.counts)
    while rough:
        # As many levels at a time as their buckets and those between hold few magnitudes.
        first = rough[0].bucket
        upto = np.cumsum(tally[first:])
        group = [level for level in rough if upto[level.bucket - first] <= _LOOK] or rough[:1]
        inside = look_into(counts, weights.slices, first, group[-1].bucket, executor)
        yield from (settle(level, inside) for level in group)
        rough = rough[len(group) :]
