"""A model at every level of global magnitude pruning, from the tables of a study alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.histogram import Integers
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import csr_bytes, dense_bytes, index_bytes, value_bytes
from sparsity_report.sparse.shares import ratio, zero_shares
from sparsity_report.study.layers import used
from sparsity_report.study.schema import TABLES

LEVEL_COUNTS = TABLES["levels"].names[2:]
_OF_LAYERS = [name for name in TABLES["level"].names if name in TABLES["layers"].names]


def level_matrices(levels: pd.DataFrame) -> tuple[list[str], list[float], dict[str, Integers]]:
    """Return a table of levels as modules, sparsities, and counts of shape (modules, levels)."""
    sparsities = levels["sparsity"].unique().tolist()
    names = levels["module_name"].iloc[:: len(sparsities)].tolist()
    counts = {name: levels[name].to_numpy(dtype=np.int64) for name in LEVEL_COUNTS}
    shape = (len(names), len(sparsities))
    return names, sparsities, {name: numbers.reshape(shape) for name, numbers in counts.items()}


def level_rows(
    names: Sequence[str], sparsities: Sequence[float], counts: Mapping[str, Integers]
) -> pd.DataFrame:
    """Return the table of levels of :func:`level_matrices`, module by module."""
    return pd.DataFrame(
        {
            "module_name": np.repeat(np.array(names, dtype=object), len(sparsities)),
            "sparsity": np.tile(np.array(sparsities, dtype=float), len(names)),
            **{name: numbers.ravel() for name, numbers in counts.items()},
        }
    )


class Levels:
    """A model at each level of a study: integers in, integers out.

    Of a module with `weight_total` weights in its matrices, values of `v` bytes, and `n` weights
    left at a level, CSR takes ``n·(v + i) + row_pointers·i`` bytes with `i` = 4 where int32 serves,
    and useful FLOPs are ``round(2·n·uses)``; its other parameters, modules without prunable
    weights, and as CSR those that do not run so, stay as they are.

    Parameters
    ----------
    layers : pandas.DataFrame
        Rows of the variant whose weights `levels` speaks of.
    levels : pandas.DataFrame
        From :func:`sparsity_report.study.levels.sweep.level_table`.

    Attributes
    ----------
    sparsities : list of float
        The levels, in the order of the table.
    rows : numpy.ndarray
        Where the prunable modules, in the order of the table, stand among the layers.
    """

    def __init__(self, layers: pd.DataFrame, levels: pd.DataFrame) -> None:
        names, self.sparsities, counts = level_matrices(levels)
        self._left, self._slack = counts.values()
        self._layers = layers.reset_index(drop=True)
        self.rows = pd.Index(self._layers["module_name"]).get_indexer(pd.Index(names))
        if (self.rows < 0).any():
            raise SparsityReportError("the levels of the study speak of modules it does not have")
        prunable = self._layers.iloc[self.rows]
        self._weights = _integers(prunable["weight_total"])
        self._before = _integers(prunable["weight_nonzero"])
        self._columns = _integers(prunable["columns"])
        self._pointers = _integers(prunable["row_pointers"])
        self._value = prunable["dtype"].map(value_bytes).to_numpy(dtype=np.int64)
        self._runs = prunable["runs_as_csr"].to_numpy(dtype=bool)[:, None]
        self._uses = prunable["uses"].to_numpy(dtype=float)
        self._rest_nonzero = _integers(prunable["nonzero"]) - self._before
        # Typed loosely: the formulas are written for one matrix and serve for many at a time.
        weights: Any = self._weights
        value: Any = self._value
        dense = dense_bytes(weights, value)
        # Where the weights are dense, a bias of another type is counted by its own.
        self._rest_bytes = np.where(
            prunable["layout"] == "dense",
            _integers(prunable["stored_bytes"]) - dense,
            (_integers(prunable["total"]) - self._weights) * self._value,
        )
        self._dense_bytes = dense + self._rest_bytes
        self._dense_flops = used(2 * self._weights, self._uses)

    def at(self, sparsity: float) -> pd.DataFrame:
        """Return one row per module as of :func:`sweep`, and FLOPs if dense and if CSR.

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
        return self.frame(near)

    def frame(self, place: int) -> pd.DataFrame:
        """Return the level at a place of ``sparsities``, see :meth:`at`."""
        frame = self._layers[_OF_LAYERS].assign(sparsity=self.sparsities[place], uncertainty=0)
        frame["dense_bytes"] = frame["csr_bytes"] = self._layers["stored_bytes"]
        frame["csr_flops_per_token"] = self._layers["flops_per_token"]
        changed = {"flops_per_token": self._dense_flops, "dense_bytes": self._dense_bytes}
        for column, counts in self._counts(slice(place, place + 1)).items():
            changed[column] = counts[:, 0]
        for column, values in changed.items():
            whole = frame[column].array.copy()
            whole[self.rows] = values
            frame[column] = whole
        return frame

    @cached_property
    def totals(self) -> pd.DataFrame:
        """Sums over the prunable modules, one row per level."""
        sums = {column: counts.sum(axis=0) for column, counts in self._everywhere.items()}
        return pd.DataFrame({"sparsity": self.sparsities, **sums})

    @cached_property
    def model(self) -> pd.DataFrame:
        """The whole model with its prunable matrices in CSR, see :attr:`Facts.levels`."""
        return self.sums(np.ones(len(self._layers), dtype=bool))

    def sums(self, inside: npt.NDArray[np.bool_]) -> pd.DataFrame:
        """Return some modules together, as :attr:`model` has all of them.

        Parameters
        ----------
        inside : numpy.ndarray of bool
            Which of the layers.
        """
        part = inside[self.rows]
        layers = self._layers[inside]
        beside = layers.drop(index=self.rows[part])
        zeros = self.zeros[part].sum(axis=0)
        other_zeros = (layers["total"] - layers["nonzero"]).sum(skipna=False)
        frame = pd.DataFrame({"sparsity": self.sparsities, "zeros": zeros})
        weights, whole = (
            pd.Series(int(total.sum()), frame.index)
            for total in (self._weights[part], layers["total"])
        )
        frame["prunable_total"], frame["total"] = weights, whole
        frame["sparsity_prunable"] = zero_shares(weights, weights - zeros)
        model_zeros = _plus(zeros - int(self.zeros_before[part].sum()), other_zeros)
        frame["model_zeros"] = model_zeros
        frame["sparsity_model"] = zero_shares(whole, whole - model_zeros)
        for column, sparse, name, dense in (
            ("stored_bytes", "csr_bytes", "bytes_ratio", self._dense_bytes[part]),
            ("flops_per_token", "csr_flops_per_token", "flops_ratio", self._dense_flops[part]),
        ):
            other = beside[column].sum(skipna=False)
            frame[column] = _plus(self._everywhere[sparse][part].sum(axis=0), other)
            frame[f"dense_{column}"] = _plus(np.full(len(frame), dense.sum()), other)
            pairs = zip(frame[column], frame[f"dense_{column}"], strict=True)
            frame[name] = [ratio(*pair) for pair in pairs]
        slack = self._slack[part]
        frame["uncertainty"] = slack.max(axis=0, initial=0)
        shares = slack / np.maximum(self._weights[part], 1)[:, None]
        frame["uncertainty_share"] = shares.max(axis=0, initial=0)
        return frame

    @cached_property
    def _everywhere(self) -> dict[str, Integers]:
        return self._counts(slice(None))

    @cached_property
    def zeros(self) -> Integers:
        """Zeros of the prunable weights, shape (prunable modules, levels)."""
        zeros: Integers = self._weights[:, None] - self._left
        return zeros

    @property
    def zeros_before(self) -> Integers:
        """Zeros that the rows of the layers speak of, per prunable module."""
        return self._weights - self._before

    def _counts(self, places: slice) -> dict[str, Integers]:
        """Return what changes with the level, of shape (prunable modules, places)."""
        left: Any = self._left[:, places]
        parts: Any = (self._columns, self._pointers, self._value, self._rest_bytes)
        columns, pointers, value, rest = (numbers[:, None] for numbers in parts)
        sparse = csr_bytes(left, pointers - 1, value, index_bytes(left, columns)) + rest
        useful, runs = used(2 * left, self._uses), self._runs
        return {
            "weight_nonzero": left,
            "nonzero": left + self._rest_nonzero[:, None],
            "useful_flops_per_token": useful,
            # With the matrices in CSR that run so.
            "csr_flops_per_token": np.where(runs, useful, self._dense_flops[:, None]),
            "csr_bytes": np.where(runs, sparse, self._dense_bytes[:, None]),
            "uncertainty": self._slack[:, places],
        }


def _plus(counts: Any, known: Any) -> pd.Series:
    """Add one number to each; null throughout where it is not known."""
    sums = pd.Series(np.asarray(counts), dtype="Int64")
    return sums + (pd.NA if pd.isna(known) else int(known))


def _integers(column: pd.Series) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = column.to_numpy(dtype=np.int64, na_value=0)
    return numbers
