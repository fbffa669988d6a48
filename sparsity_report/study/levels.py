"""A model at every kept level of sparsity, computed from integers and without its weights."""

from __future__ import annotations

from collections.abc import Sequence
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
    "dense_bytes": "stored_bytes", "csr_bytes": "stored_bytes",
    "csr_flops_per_token": "flops_per_token",
}  # fmt: skip


class Matrices:
    """Bytes and FLOPs of the matrices of layers in a layout, given their nonzeros.

    A module has `n` weights of `v` bytes in its matrices. CSR takes ``nonzero·(v + i) +
    row_pointers·i`` bytes, with `i` = 4 where int32 indices suffice. Useful FLOPs are
    ``round(2·nonzero·uses)``. Nonzeros have the shape (modules, levels).

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of ``study.layers``, or of a level.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        names = ("weight_total", "columns", "row_pointers")
        numbers: Any = (_integers(rows[name])[:, None] for name in names)
        # The formulas are typed for one matrix and serve for many at a time.
        self.weights, self.columns, self.pointers = numbers
        self.value: Any = rows["dtype"].map(value_bytes).to_numpy(dtype=np.int64)[:, None]
        self.runs = rows["runs_as_csr"].eq(True).fillna(False).to_numpy(dtype=bool)[:, None]
        self.uses = rows["uses"].to_numpy(dtype=float, na_value=1.0)

    def has_layout(self, layout: str) -> npt.NDArray[np.bool_]:
        """Return whether a sparse layout applies to the matrices of each module."""
        if layout == "csr":
            return self.runs
        inside: npt.NDArray[np.bool_] = (self.pointers > 0) & (layout == "bitmask")
        return inside

    def bytes(self, layout: str, left: Any) -> Any:
        """Return the bytes of the matrices, dense where the layout does not apply."""
        if layout == "csr":
            index: Any = index_bytes(left, self.columns)
            sparse = csr_bytes(left, self.pointers - 1, self.value, index)
        else:
            sparse = bitmask_bytes(self.weights, left, self.value)
        return np.where(self.has_layout(layout), sparse, dense_bytes(self.weights, self.value))

    def flops(self, layout: str, left: Any) -> Integers:
        """Return the FLOPs per token; only CSR saves any."""
        is_sparse = self.has_layout(layout) & (layout == "csr")
        return used(2 * np.where(is_sparse, left, self.weights), self.uses)


class Levels:
    """A model at each level of a study: integers in, integers out.

    Parameters other than matrices, modules without prunable weights, and modules that cannot run as
    CSR keep their bytes and FLOPs.

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
        self._matrices = Matrices(prunable)
        self.weights = self._matrices.weights[:, 0]
        rest = _integers(prunable["nonzero"]) - _integers(prunable["weight_nonzero"])
        self._rest_nonzero = rest[:, None]
        self._rest_bytes = _integers(bytes_beside(prunable))[:, None]

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
        left, matrices = self.left[:, places], self._matrices
        counts = {
            "weight_nonzero": left,
            "nonzero": left + self._rest_nonzero,
            "flops_per_token": matrices.flops("dense", left),
            "useful_flops_per_token": used(2 * left, matrices.uses),
            "csr_flops_per_token": matrices.flops("csr", left),
            "dense_bytes": matrices.bytes("dense", left) + self._rest_bytes,
            "csr_bytes": matrices.bytes("csr", left) + self._rest_bytes,
        }
        uncertainty = np.zeros(len(repeated), dtype=np.int64)
        uncertainty[prunable] = self.slack[:, places].ravel()
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
        slack, matrices = self.slack, self._matrices
        rounded: Any = 0
        if quantity == "flops_per_token":
            cost = 2 * matrices.uses * (layout == "csr")
            rounded = 2 * ((slack > 0) & (cost % 1 > 0)[:, None] & matrices.runs).sum(axis=0)
        else:
            index = index_bytes(matrices.weights, matrices.columns) if layout == "csr" else 0
            cost = (matrices.value + index)[:, 0]
        costs = np.where(matrices.has_layout(layout)[:, 0], cost, 0.0)
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
        if quantity == "flops_per_token":
            numbers = self._matrices.flops(layout, self.left)
        else:
            numbers = self._matrices.bytes(layout, self.left) + self._rest_bytes
        beside = self._layers.drop(index=self.rows)[quantity].sum(skipna=False)
        sums = pd.Series(numbers.sum(axis=0), dtype="Int64")
        return sums + (pd.NA if pd.isna(beside) else int(beside))


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


def bytes_beside(rows: pd.DataFrame) -> pd.Series:
    """Return the bytes beside the prunable matrices of layers: of biases, or of a whole layer."""
    matrices, left = Matrices(rows), _integers(rows["weight_nonzero"])[:, None]
    sparse, dense = (matrices.bytes(layout, left)[:, 0] for layout in ("csr", "dense"))
    number, layout = rows["total"] - rows["weight_total"], rows["layout"]
    beside: pd.Series[Any] = rows["stored_bytes"].astype("Int64")
    beside -= np.where(layout == "csr", sparse, dense)
    # Other layouts, and wider indices of opened tensors, hide the bytes of a bias.
    is_known = layout.isin(("dense", "csr")) & beside.between(0, 8 * number).fillna(False)
    beside = beside.where(is_known.astype(bool), number * matrices.value[:, 0])
    return beside.where(rows["prunable"], rows["stored_bytes"]).astype("Int64")


def in_layout(rows: pd.DataFrame, layout: str, nonzeros: pd.Series | None = None) -> pd.DataFrame:
    """Return bytes and FLOPs per token of layers with their prunable matrices in a layout.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of ``study.layers``.
    layout : {"csr", "bitmask", "dense"}
        Matrices to which it does not apply are dense.
    nonzeros : pandas.Series, optional
        Nonzero weights of a level, in place of those of the rows.

    Returns
    -------
    pandas.DataFrame
        ``stored_bytes`` and ``flops_per_token``, null where unknown.
    """
    left = (rows["weight_nonzero"] if nonzeros is None else nonzeros).astype("Int64")
    matrices = Matrices(rows)
    numbers = _integers(left)[:, None]
    stored, flops = (
        pd.Series(figure(layout, numbers)[:, 0], rows.index, dtype="Int64")
        for figure in (matrices.bytes, matrices.flops)
    )
    unknown = left.isna() & matrices.has_layout(layout)[:, 0]
    stored, flops = stored.mask(unknown), flops.mask(unknown & (layout == "csr"))
    matrix = rows["prunable"] & (rows["weight_total"] > 0)
    beside = bytes_beside(rows)
    return pd.DataFrame(
        {
            "stored_bytes": (stored + beside).where(matrix, beside),
            "flops_per_token": flops.where(matrix, rows["flops_per_token"].astype("Int64")),
        }
    )


def _integers(column: pd.Series) -> npt.NDArray[np.int64]:
    return column.to_numpy(dtype=np.int64, na_value=0)
