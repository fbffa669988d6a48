"""A model at every kept level of sparsity, computed from integers and without its weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.histogram import Integers
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import (
    bitmask_bytes,
    csr_bytes,
    dense_bytes,
    index_bytes,
    value_bytes,
)
from sparsity_report.sparse.shares import ratio, zero_shares
from sparsity_report.study.heatmap_grid import Cell, Grid
from sparsity_report.study.layers import added, used
from sparsity_report.study.schema import TABLES
from sparsity_report.weights.anatomy.groups import GROUPS

LEVEL_COUNTS = [*TABLES["levels"]][2:]
_LAYER_COLUMNS = [name for name in TABLES["level"] if name in TABLES["layers"]]
# Columns of a level, and the column of the layers that holds for modules without prunable weights.
_STARTS = {
    "dense_bytes": "stored_bytes",
    "csr_bytes": "stored_bytes",
    "csr_flops_per_token": "flops_per_token",
}
# Largest difference of two shares that are one level.
_SAME = 1e-4
_SUMS = [
    *("zeros", "prunable_total", "total", "sparsity_prunable", "model_zeros", "sparsity_model"),
    *("stored_bytes", "dense_stored_bytes", "bytes_ratio"),
    *("flops_per_token", "dense_flops_per_token", "flops_ratio"),
    *("uncertainty", "uncertainty_share"),
]


class LevelParts(NamedTuple):
    """Zeros of parts of a model at every level.

    Attributes
    ----------
    names : list
        Names of groups, or cells of a heat map.
    totals : numpy.ndarray
        Elements that the zeros are counted among, shape (parts,).
    zeros : numpy.ndarray
        Shape (parts, levels).
    """

    names: list[str] | list[Cell]
    totals: Integers
    zeros: Integers


class Levels:
    """A model at each level of a study: integers in, integers out.

    A module has `weight_total` weights in its matrices, values of `v` bytes, and `n` nonzero
    weights at a level. CSR takes ``n·(v + i) + row_pointers·i`` bytes, with `i` = 4 where int32
    indices suffice. Useful FLOPs are ``round(2·n·uses)``. Other parameters, modules without
    prunable weights, and modules that cannot run as CSR keep their bytes and FLOPs.

    Parameters
    ----------
    layers : pandas.DataFrame
        Rows of ``study.layers`` of the variant that `levels` describes.
    levels : pandas.DataFrame
        The table ``levels`` of a study, module by module.

    Attributes
    ----------
    names : list of str
        The prunable modules, in the order of the table.
    sparsities : list of float
        The levels, in the order of the table.
    left, slack : numpy.ndarray
        Nonzero weights, and the most weights by which they may be wrong, of shape (prunable
        modules, levels).
    rows : numpy.ndarray
        Positions of the prunable modules among the layers, in the order of the table.
    """

    def __init__(self, layers: pd.DataFrame, levels: pd.DataFrame) -> None:
        self.names, self.sparsities, counts = level_matrices(levels)
        self.left, self.slack = counts.values()
        self._layers = layers.reset_index(drop=True)
        self.rows = pd.Index(self._layers["module_name"]).get_indexer(pd.Index(self.names))
        if (self.rows < 0).any():
            raise SparsityReportError(
                "levels: a module is not among the layers of the study; count the levels again"
            )
        prunable = self._layers.iloc[self.rows]
        self._weights = _integers(prunable["weight_total"])
        self._before = _integers(prunable["weight_nonzero"])
        self._columns = _integers(prunable["columns"])
        self._pointers = _integers(prunable["row_pointers"])
        self._value = prunable["dtype"].map(value_bytes).to_numpy(dtype=np.int64)
        self._runs = prunable["runs_as_csr"].to_numpy(dtype=bool)[:, None]
        self._uses = prunable["uses"].to_numpy(dtype=float)
        self._rest_nonzero = _integers(prunable["nonzero"]) - self._before
        self._rest_bytes = _integers(bytes_beside(prunable))
        # The formulas are typed for one matrix and serve for many at a time.
        dense: Any = dense_bytes(self._weights, self._value)  # type: ignore[arg-type]
        self._dense_bytes = dense + self._rest_bytes
        self._dense_flops = used(2 * self._weights, self._uses)

    def at(self, sparsity: float) -> pd.DataFrame:
        """Return every module at one level.

        Parameters
        ----------
        sparsity : float
            One of :attr:`sparsities`.

        Returns
        -------
        pandas.DataFrame
            Columns as of :func:`sweep`, with FLOPs per token of the module dense and as CSR.

        Raises
        ------
        SparsityReportError
            The level is not among those kept.
        """
        near = int(np.argmin(np.abs(np.array(self.sparsities) - sparsity)))
        if abs(self.sparsities[near] - sparsity) > 1e-9:
            raise SparsityReportError(
                f"sparsity: a study keeps the levels "
                f"{', '.join(f'{s:g}' for s in self.sparsities[:3])} … {self.sparsities[-1]:g}, "
                f"not {sparsity!r}; use sweep(weights, [{sparsity!r}])"
            )
        return self.frame([near])

    def frame(self, places: Sequence[int]) -> pd.DataFrame:
        """Return every module at the levels of some positions, level by level; see :meth:`at`."""
        modules, levels = len(self._layers), len(places)
        repeated = np.tile(np.arange(modules), levels)
        prunable = np.add.outer(self.rows, modules * np.arange(levels)).ravel()
        frame = self._layers[_LAYER_COLUMNS].take(repeated).reset_index(drop=True)
        counts = self._counts(places)
        same = {"flops_per_token": self._dense_flops, "dense_bytes": self._dense_bytes}
        for name, numbers in same.items():
            counts[name] = np.broadcast_to(numbers[:, None], (len(numbers), levels))
        uncertainty = np.zeros(len(repeated), dtype=np.int64)
        uncertainty[prunable] = counts.pop("uncertainty").ravel()
        frame["sparsity"] = np.repeat([self.sparsities[place] for place in places], modules)
        frame["uncertainty"] = uncertainty
        for name, numbers in counts.items():
            column = self._layers[_STARTS.get(name, name)].array.take(repeated)
            column[prunable] = numbers.ravel()
            frame[name] = column
        return frame[[*_LAYER_COLUMNS, "uncertainty", *_STARTS]]

    @cached_property
    def model(self) -> pd.DataFrame:
        """The whole model at every level, see :meth:`sums`."""
        return self.sums()

    def sums(self, modules: Collection[str] = ()) -> pd.DataFrame:
        """Return sums over some modules with their prunable matrices in CSR, a row per level.

        Parameters
        ----------
        modules : collection of str
            Names of modules; all where none are given.

        Returns
        -------
        pandas.DataFrame
            ``sparsity`` of the level; ``zeros`` among the ``prunable_total`` prunable weights and
            their share ``sparsity_prunable``; ``model_zeros`` among ``total`` parameters and their
            share ``sparsity_model``; ``stored_bytes`` and ``flops_per_token``, each also with all
            matrices dense (``dense_…``) and as a ratio (``bytes_ratio``, ``flops_ratio``);
            ``uncertainty`` in weights of the least certain module, and ``uncertainty_share``, the
            largest uncertainty as a share of a module's weights. Unknown figures are null.
        """
        inside = selected(self._layers, modules)
        part, layers = inside[self.rows], self._layers[inside]
        beside = layers.drop(index=self.rows[part])
        zeros, slack = self.zeros[part].sum(axis=0), self.slack[part]
        changed = zeros - int(self.zeros_before[part].sum())
        frame = pd.DataFrame({"sparsity": self.sparsities, "zeros": zeros})
        frame["prunable_total"] = int(self._weights[part].sum())
        frame["total"] = int(layers["total"].sum())
        before = (layers["total"] - layers["nonzero"]).sum(skipna=False)
        frame["model_zeros"] = _plus(changed, before)
        for column, sparse, dense in (
            ("stored_bytes", "csr_bytes", self._dense_bytes[part]),
            ("flops_per_token", "csr_flops_per_token", self._dense_flops[part]),
        ):
            other = beside[column].sum(skipna=False)
            frame[column] = _plus(self._everywhere[sparse][part].sum(axis=0), other)
            frame[f"dense_{column}"] = _plus(np.full(len(frame), dense.sum()), other)
        frame["uncertainty"] = slack.max(axis=0, initial=0)
        shares = slack / np.maximum(self._weights[part], 1)[:, None]
        frame["uncertainty_share"] = shares.max(axis=0, initial=0)
        return _with_shares(frame)[["sparsity", *_SUMS]]

    def at_most(self, quantity: str, layout: str = "csr") -> pd.Series:
        """Return the most bytes or FLOPs of the whole model in a layout at each level.

        The number of zeros of all modules is known: one has fewer only where others have more. If
        a weight costs ``c`` where its module is uncertain by ``s`` weights, the cost is exceeded by
        at most ``Σ s·|c − c′|``, which is least where ``c′`` is the median cost.

        Parameters
        ----------
        quantity : {"stored_bytes", "flops_per_token"}
        layout : {"csr", "bitmask", "dense"}
        """
        slack, runs = self.slack, self._runs[:, 0]
        rounded: Any = 0
        if quantity == "flops_per_token":
            costs, uneven = 2 * self._uses, (2 * self._uses % 1 > 0)[:, None]
            costs = np.where(runs & (layout == "csr"), costs, 0.0)
            rounded = 2 * (uneven & (slack > 0) & (costs > 0)[:, None]).sum(axis=0)
        elif layout == "csr":
            index = index_bytes(self._weights, self._columns)  # type: ignore[arg-type]
            costs = np.where(runs, self._value + index, 0.0)
        else:
            costs = np.where(self._has_bitmask & (layout == "bitmask"), self._value, 0.0)
        order = np.argsort(costs)
        halves = 2 * slack[order].cumsum(axis=0) >= slack.sum(axis=0)
        medians = costs[order][halves.argmax(axis=0)]
        beyond = (slack * np.abs(costs[:, None] - medians)).sum(axis=0)
        most = np.ceil(beyond).astype(np.int64) + rounded
        return self.total(quantity, layout) + pd.Series(most, dtype="Int64")

    def total(self, quantity: str, layout: str = "csr") -> pd.Series:
        """Return bytes or FLOPs of the whole model in a layout at each level; null if unknown.

        Parameters
        ----------
        quantity : {"stored_bytes", "flops_per_token"}
        layout : {"csr", "bitmask", "dense"}
            Matrices to which a layout does not apply stay dense. A bitmask saves no FLOPs.
        """
        if layout == "csr":
            return self.model[quantity]
        dense = self.model[f"dense_{quantity}"]
        if layout == "dense" or quantity == "flops_per_token":
            return dense
        inside = self._has_bitmask
        weights, value = self._weights[inside, None], self._value[inside, None]
        sizes: Any = bitmask_bytes(weights, self.left[inside], value)  # type: ignore[arg-type]
        saved = (weights * value - sizes).sum(axis=0)
        return dense - pd.Series(saved, dtype="Int64")

    @property
    def _has_bitmask(self) -> npt.NDArray[np.bool_]:
        return self._pointers > 0

    @cached_property
    def groups(self) -> LevelParts | None:
        """Zeros among all parameters of each group, biases included; None where unknown."""
        layers = self._layers
        if layers["nonzero"].isna().any():
            return None
        order = {group: place for place, group in enumerate(GROUPS)}
        names = sorted(dict.fromkeys(layers["group"]), key=lambda group: order.get(group, -1))
        before = (layers["total"] - layers["nonzero"]).to_numpy(dtype=np.int64)
        zeros = np.repeat(before[:, None], len(self.sparsities), axis=1)
        zeros[self.rows] += self.zeros - self.zeros_before[:, None]
        codes = pd.Categorical(layers["group"], names).codes
        return _level_parts(names, codes, layers["total"], zeros)

    @cached_property
    def grid(self) -> Grid:
        """Cells of the heat map of prunable modules, if some are in numbered blocks."""
        return Grid(self._layers.iloc[self.rows[self._mapped]])

    @cached_property
    def cells(self) -> LevelParts:
        """Zeros among the matrices' weights in each cell of :attr:`grid`."""
        inside = self._mapped
        totals = self._layers["weight_total"].iloc[self.rows[inside]]
        return _level_parts(list(self.grid.cells), self.grid.codes, totals, self.zeros[inside])

    @property
    def _mapped(self) -> npt.NDArray[np.bool_]:
        layers = self._layers.iloc[self.rows]
        flags = (layers["weight_total"] > 0) & layers["block"].notna().any()
        return np.asarray(flags, dtype=bool)

    @cached_property
    def zeros(self) -> Integers:
        """Zeros of the prunable weights, shape (prunable modules, levels)."""
        zeros: Integers = self._weights[:, None] - self.left
        return zeros

    @property
    def zeros_before(self) -> Integers:
        """Zeros of the prunable weights in the rows of the layers, shape (prunable modules,)."""
        return self._weights - self._before

    @cached_property
    def _everywhere(self) -> dict[str, Integers]:
        return self._counts(range(len(self.sparsities)))

    def _counts(self, places: Sequence[int]) -> dict[str, Integers]:
        """Return the figures that change with the level, of shape (prunable modules, places)."""
        left: Any = self.left[:, places]
        parts: Any = (self._columns, self._pointers, self._value, self._rest_bytes)
        columns, pointers, value, rest = (numbers[:, None] for numbers in parts)
        sparse = csr_bytes(left, pointers - 1, value, index_bytes(left, columns)) + rest
        useful, runs = used(2 * left, self._uses), self._runs
        return {
            "weight_nonzero": left,
            "nonzero": left + self._rest_nonzero[:, None],
            "useful_flops_per_token": useful,
            # Matrices that cannot run as CSR stay dense.
            "csr_flops_per_token": np.where(runs, useful, self._dense_flops[:, None]),
            "csr_bytes": np.where(runs, sparse, self._dense_bytes[:, None]),
            "uncertainty": self.slack[:, places],
        }


def level_matrices(levels: pd.DataFrame) -> tuple[list[str], list[float], dict[str, Integers]]:
    """Return a table of levels as modules, sparsities, and counts of shape (modules, levels)."""
    sparsities = levels["sparsity"].unique().tolist()
    names = levels["module_name"].iloc[:: len(sparsities)].tolist()
    counts = {name: levels[name].to_numpy(dtype=np.int64) for name in LEVEL_COUNTS}
    shape = (len(names), len(sparsities))
    return names, sparsities, {name: numbers.reshape(shape) for name, numbers in counts.items()}


def level_rows(
    names: Sequence[str], sparsities: Sequence[float], left: Integers, slack: Integers
) -> pd.DataFrame:
    """Return the table of levels that :func:`level_matrices` reads, module by module."""
    return pd.DataFrame(
        {
            "module_name": np.repeat(np.array(names, dtype=object), len(sparsities)),
            "sparsity": np.tile(np.array(sparsities, dtype=float), len(names)),
            "weight_nonzero": left.ravel(),
            "uncertainty": slack.ravel(),
        }
    )


def same_level(share: float, other: float) -> bool:
    """Return true if two shares of zeros differ by no more than rounding to whole weights."""
    return abs(share - other) < _SAME


def variant_sums(rows: pd.DataFrame, modules: Collection[str] = ()) -> pd.Series[Any]:
    """Return sums over some modules of one variant, under the names of :meth:`Levels.sums`.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of ``study.layers`` of the variant.
    modules : collection of str
        Names of modules; all where none are given.
    """
    sparse = rows["prunable"] & (rows["layout"] == "csr")
    uses = rows["uses"].to_numpy(dtype=float, na_value=1.0)
    flops = pd.Series(used(2 * _integers(rows["weight_total"]), uses), rows.index, dtype="Int64")
    zeros = rows["weight_total"] - rows["weight_nonzero"]
    counts = rows[["total", "stored_bytes", "flops_per_token"]].assign(
        zeros=zeros.where(rows["prunable"], 0),
        prunable_total=rows["weight_total"].where(rows["prunable"], 0),
        model_zeros=rows["total"] - rows["nonzero"],
        dense_stored_bytes=rows["stored_bytes"].mask(sparse, dense_sizes(rows)),
        dense_flops_per_token=rows["flops_per_token"].mask(sparse, flops),
        uncertainty=0,
    )
    sums = counts[selected(rows, modules)].astype("Int64").sum(skipna=False).to_frame().T
    return _with_shares(sums).assign(uncertainty_share=0.0)[_SUMS].astype(object).iloc[0]


def dense_sizes(rows: pd.DataFrame) -> pd.Series:
    """Return the bytes that each layer takes with nothing stored sparse."""
    return dense_bytes(rows["total"], rows["dtype"].map(value_bytes))  # type: ignore[arg-type,return-value]


def bytes_beside(rows: pd.DataFrame) -> pd.Series:
    """Return the bytes beside the prunable matrices of layers: of biases, or of a whole layer."""
    value: Any = rows["dtype"].map(value_bytes)
    dense: Any = dense_bytes(rows["weight_total"], value)  # type: ignore[arg-type]
    # The bytes of a bias of another type are known only where the weights are stored dense.
    other = (rows["total"] - rows["weight_total"]) * value
    beside: pd.Series[Any] = (rows["stored_bytes"] - dense).where(rows["layout"] == "dense", other)
    return beside.where(rows["prunable"], rows["stored_bytes"]).astype("Int64")


def in_layout(rows: pd.DataFrame, layout: str) -> pd.DataFrame:
    """Return bytes and FLOPs per token of layers with their prunable matrices in a layout.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of ``study.layers``, or those with the nonzeros of a level.
    layout : {"csr", "bitmask", "dense"}
        Matrices to which it does not apply are dense.

    Returns
    -------
    pandas.DataFrame
        ``stored_bytes`` and ``flops_per_token``, null where unknown.
    """
    columns = ("weight_total", "weight_nonzero", "row_pointers", "columns")
    weights, left, pointers, widths = (rows[name].astype("Int64") for name in columns)
    value: Any = rows["dtype"].map(value_bytes)
    dense: Any = dense_bytes(weights, value)  # type: ignore[arg-type]
    matrix, held, multiplied = rows["prunable"] & (weights > 0), dense, weights
    if layout == "csr":
        index: Any = index_bytes(left, widths)  # type: ignore[arg-type]
        sparse: Any = csr_bytes(left, pointers - 1, value, index)  # type: ignore[arg-type]
        runs = rows["runs_as_csr"].eq(True).fillna(False).astype(bool)
        held, multiplied = dense.mask(runs, sparse), weights.mask(runs, left)
    elif layout == "bitmask":
        mask: Any = bitmask_bytes(weights, left, value)  # type: ignore[arg-type]
        held = dense.mask(pointers.notna(), mask)
    uses = rows["uses"].to_numpy(dtype=float, na_value=1.0)
    flops = pd.Series(used(2 * _integers(multiplied), uses), rows.index, dtype="Int64")
    flops = flops.mask(multiplied.isna(), pd.NA)
    beside = bytes_beside(rows)
    return pd.DataFrame(
        {
            "stored_bytes": (held + beside).where(matrix, beside),
            "flops_per_token": flops.where(matrix, rows["flops_per_token"].astype("Int64")),
        }
    )


def selected(rows: pd.DataFrame, modules: Collection[str]) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows of some modules; of all where none are given."""
    inside: npt.NDArray[np.bool_] = rows["module_name"].isin(list(modules)).to_numpy(dtype=bool)
    return inside if modules else np.ones(len(rows), dtype=bool)


def _with_shares(sums: pd.DataFrame) -> pd.DataFrame:
    """Add the shares of zeros, and the ratios to dense."""
    prunable, total = sums["prunable_total"], sums["total"]
    sums["sparsity_prunable"] = zero_shares(prunable, prunable - sums["zeros"])
    sums["sparsity_model"] = zero_shares(total, total - sums["model_zeros"])
    for name, column in (("bytes_ratio", "stored_bytes"), ("flops_ratio", "flops_per_token")):
        pairs = zip(sums[column], sums[f"dense_{column}"], strict=True)
        sums[name] = [ratio(*pair) for pair in pairs]
    return sums


def _level_parts(
    names: list[str] | list[Cell], codes: npt.NDArray[np.intp], totals: pd.Series, zeros: Integers
) -> LevelParts:
    """Sum rows that share a code, the position of their part among the names."""
    sizes = added(totals.to_numpy(dtype=np.int64), codes, len(names))
    return LevelParts(names, sizes, added(zeros, codes, len(names)))


def _plus(counts: Any, known: Any) -> pd.Series:
    """Add one number to each count; all are null where the number is unknown."""
    sums = pd.Series(np.asarray(counts), dtype="Int64")
    return sums + (pd.NA if pd.isna(known) else int(known))


def _integers(column: pd.Series) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = column.to_numpy(dtype=np.int64, na_value=0)
    return numbers
