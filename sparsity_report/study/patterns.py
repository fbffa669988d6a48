"""Positions of zeros in each matrix: rows, columns, heads, N:M patterns and blocks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd

from sparsity_report.counting.histogram import Moments, nonzero_flags
from sparsity_report.counting.matrix_counts import MatrixCount, dead_parts, head_sums, matrix_blocks
from sparsity_report.counting.n_m_patterns import KNOWN, compliance, find_pattern
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Pruning
from sparsity_report.counting.workers import unflushed
from sparsity_report.errors import SparsityReportError, within_memory
from sparsity_report.sparse.shares import ratio, zero_share
from sparsity_report.study.schema import BLOCKS, TABLES, typed
from sparsity_report.study.variants import Variant
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.tensor_slices import pieces
from sparsity_report.weights.weights import Module, Parameter, Weights

# Weights that are read together, in whole rows, and rows that cut no block of any layout.
_BLOCK, _LINES = 2**20, 64


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

        ``fill_b`` is the share of b × b blocks with a nonzero. ``row_std`` and ``column_std`` are
        the standard deviations of the sparsity of the rows and of the columns.

        ``equal_neighbors`` is the share of weights with their neighbor's magnitude, among those
        that are nonzero, as is their neighbor. It is high where weights have few magnitudes.

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
@unflushed()
def variant_patterns(
    variants: Sequence[Variant], *, module: str | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """Return :func:`weight_patterns` of several variants, or of one module of each.

    Every tensor is read once.
    """
    models = dict.fromkeys(variant.weights for variant in variants)
    done, size = 0, sum(p.total * p.itemsize for weights in models for p in weights.prunable)
    rows_of: dict[tuple[Weights, int], list[dict[str, object]]] = defaultdict(list)
    for weights in models:
        chosen = [m for m in weights.modules if module in {None, m.name}]
        parts = [(m, p) for m in chosen for p in m.parameters if p.prunable]
        prunings = {id(v.pruning): v.pruning for v in variants if v.weights is weights}
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
    weights: Weights, prunings: Mapping[int, Pruning | None], module: Module, parameter: Parameter
) -> dict[int, list[dict[str, object]]]:
    """Return the rows of a tensor under every pruning, reading it once, block by block."""
    if not parameter.known:
        raise SparsityReportError(
            f"{weights.name}: {parameter.name} has unknown values; give a model whose values are "
            "known, or leave patterns out"
        )
    matrix = parameter.stack
    assert matrix is not None
    rows, columns = matrix.stored
    cuts = {key: cut for key, p in prunings.items() if p and (cut := p.cuts.get(parameter.name))}
    step = max(_BLOCK // max(columns, 1) // _LINES, 1) * _LINES
    if any(cut.input_first for cut in cuts.values()):
        step = max(rows, 1)  # groups along the inputs go across rows
    values = [Moments() for _ in range(parameter.experts)]
    zeros = {key: MatrixCount(matrix, KNOWN, blocks=BLOCKS) for key in prunings}
    parts = pieces(weights.as_in_memory(parameter.name))
    # itertools.tee would keep dozens of blocks in memory.
    waiting: dict[int, list[Array]] = {key: [] for key in cuts}
    masks_by_key = {key: cut.masks(_drained(waiting[key])) for key, cut in cuts.items()}
    for number, start, block in matrix_blocks(parts, matrix, step):
        values[number].add(block)
        nonzero = nonzero_flags(block)
        for key, count in zeros.items():
            mask = nonzero
            if key in masks_by_key:
                waiting[key].append(block)
                mask = nonzero & next(masks_by_key[key])
            count.add(number, start, mask)
    for masks in masks_by_key.values():
        next(masks, None)  # ends the generator
    rows_of: dict[int, list[dict[str, object]]] = {key: [] for key in prunings}
    for key, pruning in prunings.items():
        for number in range(parameter.experts):
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
                "equal_neighbors": ratio(values[number].equal, values[number].pairs),
            }
            rows_of[key].append(row | zero_figures(zeros[key], number, parameter))
    return rows_of


def _drained(queue: list[Array]) -> Iterator[Array]:
    """Yield the blocks of a queue that is filled meanwhile."""
    while queue:
        yield queue.pop()


def zero_figures(count: MatrixCount, expert: int, parameter: Parameter) -> dict[str, object]:
    """Return the columns of :func:`weight_patterns` about the zeros of a matrix."""
    rows, columns = count.rows[expert], count.columns[expert]
    total = rows.size * columns.size
    kept = {pattern: int(groups[expert]) for pattern, groups in count.kept.items()}
    shares = compliance(kept, total)
    pattern = find_pattern(kept, total) or max(shares, key=lambda p: shares[p], default=None)
    lines = columns if parameter.head_axis else rows
    heads = None
    if parameter.heads:
        heads = tuple((1 - head_sums(lines, parameter.heads) / (total // parameter.heads)).tolist())
    return {
        "rows": rows.size,
        "columns": columns.size,
        "sparsity": zero_share(total, int(rows.sum())),
        "zero_rows": zero_share(rows.size, rows.size - dead_parts(rows)),
        "zero_columns": zero_share(columns.size, columns.size - dead_parts(columns)),
        "head_sparsity": heads,
        "n_m": str(pattern) if pattern else None,
        "n_m_share": shares[pattern] if pattern else None,
        **{f"fill_{b}": _fill(count, expert, b) for b in BLOCKS},
        "row_std": float((rows / columns.size).std()) if total else None,
        "column_std": float((columns / rows.size).std()) if total else None,
    }


def _fill(count: MatrixCount, expert: int, size: int) -> float:
    """Return the share of square blocks with a nonzero, edges padded with zeros."""
    blocks = -(-count.matrix.outputs // size) * -(-count.matrix.inputs // size)
    return int(count.filled[size][expert]) / blocks if blocks else 0.0
