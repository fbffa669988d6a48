"""A model at every kept level of sparsity, computed from integers and without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

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
from sparsity_report.study.layers import used
from sparsity_report.study.schema import TABLES

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
    weights : numpy.ndarray
        Weights of the prunable modules.
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
        self.weights = _integers(prunable["weight_total"])
        self._columns = _integers(prunable["columns"])
        self._pointers = _integers(prunable["row_pointers"])
        self._value = prunable["dtype"].map(value_bytes).to_numpy(dtype=np.int64)
        self._runs = prunable["runs_as_csr"].to_numpy(dtype=bool)[:, None]
        self._uses = prunable["uses"].to_numpy(dtype=float)
        self._rest_nonzero = _integers(prunable["nonzero"]) - _integers(prunable["weight_nonzero"])
        self._rest_bytes = _integers(bytes_beside(prunable))
        # The formulas are typed for one matrix and serve for many at a time.
        dense: Any = dense_bytes(self.weights, self._value)  # type: ignore[arg-type]
        self._dense_bytes = dense + self._rest_bytes
        self._dense_flops = used(2 * self.weights, self._uses)

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
            index = index_bytes(self.weights, self._columns)  # type: ignore[arg-type]
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
        sparse, dense = {
            "stored_bytes": ("csr_bytes", self._dense_bytes),
            "flops_per_token": ("csr_flops_per_token", self._dense_flops),
        }[quantity]
        if layout == "csr":
            sums = self._everywhere[sparse].sum(axis=0)
        else:
            sums = np.full(len(self.sparsities), dense.sum())
        if layout == "bitmask" and quantity == "stored_bytes":
            inside = self._has_bitmask
            weights, value = self.weights[inside, None], self._value[inside, None]
            sizes: Any = bitmask_bytes(weights, self.left[inside], value)  # type: ignore[arg-type]
            sums -= (weights * value - sizes).sum(axis=0)
        beside = self._layers.drop(index=self.rows)[quantity].sum(skipna=False)
        return pd.Series(sums, dtype="Int64") + (pd.NA if pd.isna(beside) else int(beside))

    @property
    def _has_bitmask(self) -> npt.NDArray[np.bool_]:
        return self._pointers > 0

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


def _integers(column: pd.Series) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = column.to_numpy(dtype=np.int64, na_value=0)
    return numbers
