"""Positions of zeros in each matrix: rows, columns, heads, N:M patterns and blocks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.bit_statistics import in_runs, matrix_places
from sparsity_report.counting.moments import Moments
from sparsity_report.counting.n_m_patterns import KNOWN, compliance, find_pattern, group_counts
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Pruning
from sparsity_report.deferred import torch
from sparsity_report.errors import SparsityReportError, within_memory
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.schema import BLOCKS, TABLES, typed
from sparsity_report.study.variants import Variant
from sparsity_report.weights.packed.group_rounding import ROUNDING, squared_errors
from sparsity_report.weights.tensor_slices import Slice, pieces
from sparsity_report.weights.weights import Module, Parameter, Weights

# Weights that are read together, in whole rows, and rows that cut no block of any layout.
_BLOCK, _LINES = 2**20, 64
Mask = npt.NDArray[np.bool_]


def weight_patterns(variant: Variant, *, progress: Progress | None = None) -> pd.DataFrame:
    """Return the positions of zeros in every prunable matrix of a variant.

    Parameters
    ----------
    variant : Variant
        From :func:`dense`, :func:`masked` or :func:`csr`. Its weights are read slice by slice.
    progress : callable, optional
        Called with the bytes read, the bytes in all and the name of the tensor.

    Returns
    -------
    pandas.DataFrame
        One row per matrix, experts apart.

        ``rows`` (outputs), ``columns`` (inputs) and ``sparsity`` describe the matrix; ``mean_abs``,
        ``std`` and ``least_abs``, the smallest nonzero magnitude, its weights before pruning.
        ``expected_sparsity`` is the share that one global threshold t would remove from a Gaussian
        with the same standard deviation σ, ``erf(t / (σ·√2))``, null without a threshold.

        ``zero_rows`` and ``zero_columns`` are the shares of rows and columns without a nonzero,
        ``head_sparsity`` the sparsity of each attention head. ``n_m`` is the sparsest of 1:4, 2:8,
        2:4 and 4:8 that 99 % of the groups of M weights along the input comply with, or else the
        pattern that most groups comply with; ``n_m_share`` is the share of groups that comply.

        ``fill_b`` is the share of b × b blocks with a nonzero. Of experts that are not packed,
        ``weight_norm`` is ‖W‖₂ before pruning and ``rounding_b`` is ‖W − Q(W)‖₂, where Q rounds to
        b bits in groups of weights.

    Raises
    ------
    SparsityReportError
        Values are unknown.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> frame = sr.weight_patterns(sr.masked(pruning))
    >>> len(frame), len(frame.loc[0, "head_sparsity"])
    (24, 4)
    """
    return variant_patterns([variant], progress=progress)


@with_bar("looking for patterns")
def variant_patterns(
    variants: Sequence[Variant], *, progress: Progress | None = None
) -> pd.DataFrame:
    """Return :func:`weight_patterns` of several variants; every tensor is read once."""
    models = dict.fromkeys(variant.weights for variant in variants)
    done, size = 0, sum(p.total * p.itemsize for weights in models for p in weights.prunable)
    rows_of: dict[tuple[Weights, int], list[dict[str, object]]] = defaultdict(list)
    for weights in models:
        prunings = {id(v.pruning): v.pruning for v in variants if v.weights is weights}
        parts = [(m, p) for m in weights.modules for p in m.parameters if p.prunable]
        # Two threads, as the smallest machines have two cores.
        instead = "leave them out (patterns=False)"
        with within_memory(f"{weights.name}: patterns", instead), ThreadPoolExecutor(2) as pool:
            results = pool.map(lambda part: _patterns(weights, prunings, *part), parts)  # noqa: B023
            for (_, parameter), by_pruning in zip(parts, results, strict=True):
                for key, rows in by_pruning.items():
                    rows_of[weights, key] += rows
                done += parameter.total * parameter.itemsize
                if progress:
                    progress(done, size, parameter.name)
    keys = [(v.name, (v.weights, id(v.pruning))) for v in variants]
    rows = [{"variant": name, **row} for name, key in keys for row in rows_of[key]]
    return typed("patterns", pd.DataFrame(rows, columns=list(TABLES["patterns"])))


def expected_sparsity(threshold: float | None, std: float) -> float | None:
    """Return the share of a centered Gaussian below a threshold t, ``erf(t / (σ·√2))``.

    None without a threshold or with a deviation σ that is not finite.

    Examples
    --------
    >>> round(expected_sparsity(1.0, 1.0), 4)
    0.6827
    """
    if threshold is None or not math.isfinite(std):
        return None
    return math.erf(threshold / (std * math.sqrt(2))) if std else 1.0


def _patterns(
    weights: Weights,
    prunings: Mapping[int, Pruning | None],
    module: Module,
    parameter: Parameter,
) -> dict[int, list[dict[str, object]]]:
    """Return the rows of a tensor under every pruning, reading it once, block by block."""
    rows, columns = _stored_sizes(weights, parameter)
    cuts = {key: cut for key, p in prunings.items() if p and (cut := p.cuts.get(parameter.name))}
    step = max(_BLOCK // max(columns, 1) // _LINES, 1) * _LINES
    if any(cut.input_first for cut in cuts.values()):
        step = rows  # groups along the inputs go across rows
    values = [Moments() for _ in range(parameter.experts)]
    is_rounded = parameter.experts > 1 and not parameter.packing
    errors = np.full((parameter.experts, len(ROUNDING)), 0.0 if is_rounded else np.nan)
    outputs_inputs = (columns, rows) if parameter.transposed else (rows, columns)
    zeros = {key: [Zeros(*outputs_inputs) for _ in values] for key in prunings}
    slices = weights.as_in_memory(parameter.name)
    # itertools.tee would keep dozens of blocks in memory.
    waiting: dict[int, list[torch.Tensor]] = {key: [] for key in cuts}
    stays = {key: cut.masks(_drained(waiting[key])) for key, cut in cuts.items()}
    places = matrix_places(parameter.experts, rows, step) if rows * columns else []
    for number, start, tensor in _blocks(slices, places, columns):
        values[number].add(tensor)
        if is_rounded:
            errors[number] += squared_errors(tensor.T if parameter.transposed else tensor)
        nonzero = tensor != 0
        for key, matrices in zeros.items():
            mask = nonzero
            if key in stays:
                waiting[key].append(tensor)
                mask = nonzero & next(stays[key])
            place = (0, start) if parameter.transposed else (start, 0)
            matrices[number].add(*place, (mask.T if parameter.transposed else mask).numpy())
    for masks in stays.values():
        next(masks, None)  # ends the generator
    rows_of: dict[int, list[dict[str, object]]] = {key: [] for key in prunings}
    for key, pruning in prunings.items():
        for number, counted in enumerate(zeros[key]):
            std, threshold = values[number].std, pruning.threshold if pruning else None
            row = {
                "module_name": module.name,
                "parameter": parameter.name,
                "expert": number if parameter.experts > 1 else None,
                "block": module.block,
                "group": module.group,
                "expected_sparsity": expected_sparsity(threshold, std),
                "mean_abs": values[number].mean_abs,
                "std": std,
                "least_abs": values[number].least_abs,
            }
            row |= dict(zip(ROUNDING, np.sqrt(errors[number]).tolist(), strict=True))
            rows_of[key].append(row | counted.figures(parameter))
    return rows_of


def _stored_sizes(weights: Weights, parameter: Parameter) -> tuple[int, int]:
    """Return the rows and columns of a stored matrix; refuse unknown values."""
    if not parameter.known:
        raise SparsityReportError(
            f"{weights.name}: {parameter.name} has unknown values; give a model whose values are "
            "known, or leave patterns out"
        )
    assert parameter.matrix is not None
    return parameter.inputs_outputs or parameter.matrix


def _blocks(
    slices: Iterable[Slice], places: Sequence[tuple[int, int, int]], columns: int
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield the number of the matrix, the row and the values of each block of rows."""
    runs = in_runs(pieces(slices), (size * columns for *_, size in places), torch.cat)
    for (number, start, _), run in zip(places, runs, strict=True):
        yield number, start, run.reshape(-1, columns)


def _drained(queue: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield the tensors of a queue that is filled meanwhile."""
    while queue:
        yield queue.pop()


class Zeros:
    """Positions of the zeros of one matrix, counted block by block.

    Attributes
    ----------
    rows, columns : numpy.ndarray of int64
        Nonzeros of each output and each input.

    Examples
    --------
    >>> zeros = Zeros(2, 4)
    >>> zeros.add(0, 0, np.array([[True, False, False, True], [False, False, False, False]]))
    >>> zeros.rows.tolist(), zeros.columns.tolist(), zeros.n_m(), zeros.heads(2, 1)
    ([2, 0], [1, 0, 0, 1], ('2:4', 1.0), (0.75, 0.75))
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = (np.zeros(lines, dtype=np.int64) for lines in (rows, columns))
        self._complying = {p: 0 for p in KNOWN if rows and columns and columns % p.m == 0}
        self._filled = dict.fromkeys(BLOCKS, 0)

    def add(self, row: int, column: int, mask: Mask) -> None:
        """Add a block of nonzero flags that begins at a row and a column, both multiples of 64."""
        mask = np.ascontiguousarray(mask)
        flags = mask.view(np.uint8)
        for lines, first, axis in ((self.rows, row, 1), (self.columns, column, 0)):
            lines[first : first + flags.shape[1 - axis]] += flags.sum(axis=axis, dtype=np.uint32)
        held = {m: group_counts(mask, m) for m in {p.m for p in self._complying}}
        for pattern in self._complying:
            fits = held[pattern.m] <= pattern.n
            self._complying[pattern] += int(np.count_nonzero(fits))
        blocks = _quarter(_quarter(mask))
        for size in BLOCKS:
            self._filled[size] += int(np.count_nonzero(blocks))
            blocks = _quarter(blocks)

    def heads(self, head_dim: int | None, axis: int) -> tuple[float, ...] | None:
        """Return the sparsity of each run of `head_dim` rows (axis 0) or columns (axis 1)."""
        lines, across = (self.columns, self.rows) if axis else (self.rows, self.columns)
        if not head_dim or lines.size % head_dim:
            return None
        shares = 1 - lines.reshape(-1, head_dim).sum(axis=1) / (head_dim * across.size)
        return tuple(shares.tolist())

    def figures(self, parameter: Parameter) -> dict[str, object]:
        """Return the columns of :func:`weight_patterns` about the zeros of a matrix."""
        rows, columns = self.rows.size, self.columns.size
        pattern, share = self.n_m()
        return {
            "rows": rows,
            "columns": columns,
            "sparsity": zero_share(rows * columns, int(self.rows.sum())),
            "zero_rows": zero_share(rows, int(np.count_nonzero(self.rows))),
            "zero_columns": zero_share(columns, int(np.count_nonzero(self.columns))),
            "head_sparsity": self.heads(parameter.head_dim, parameter.head_axis),
            "n_m": pattern,
            "n_m_share": share,
            **{f"fill_{size}": fill for size, fill in self.fill().items()},
        }

    def n_m(self) -> tuple[str | None, float | None]:
        """Return the closest N:M pattern and the share of groups that comply."""
        size = self.rows.size * self.columns.size
        shares = compliance(self._complying, size)
        if not shares:
            return None, None
        pattern = find_pattern(self._complying, size) or max(shares, key=lambda p: shares[p])
        return str(pattern), shares[pattern]

    def fill(self) -> dict[int, float]:
        """Return the share of b × b blocks with a nonzero, edges padded with zeros."""
        numbers = {b: -(-self.rows.size // b) * -(-self.columns.size // b) for b in BLOCKS}
        return {b: self._filled[b] / number if number else 0.0 for b, number in numbers.items()}


def _quarter(mask: Mask) -> Mask:
    """Return whether each block of 2 × 2 has any flag."""
    rows, columns = mask.shape
    if rows % 2 or columns % 2:
        mask = np.pad(mask, ((0, rows % 2), (0, columns % 2)))
    lines = mask[0::2] | mask[1::2]
    return lines[:, 0::2] | lines[:, 1::2]
