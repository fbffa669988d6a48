"""Structure beyond a number: where in a matrix the zeros of a variant stand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sparsity_report.counting.moments import Moments
from sparsity_report.counting.n_m_patterns import KNOWN, compliance, find_pattern
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Pruning
from sparsity_report.errors import SparsityReportError, within_memory
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.schema import BLOCKS, GAP, TABLES, TILE, typed
from sparsity_report.study.variants import Variant
from sparsity_report.study.zstd_sizes import Frames, check_zstd, zstd_version
from sparsity_report.weights.anatomy.parameters import Module, Parameter
from sparsity_report.weights.tensor_slices import Slice
from sparsity_report.weights.weights import Weights

# Weights looked at together, whole rows, so many at a time that no block of a layout is cut.
_BLOCK, _LINES = 2**20, max(*BLOCKS, TILE)
Mask = npt.NDArray[np.bool_]


def weight_patterns(
    variant: Variant, *, zstd: bool = False, progress: Progress | None = None
) -> pd.DataFrame:
    """Look at every prunable matrix of a variant, one row each and one per expert.

    Parameters
    ----------
    variant : Variant
        From :func:`dense`, :func:`masked` or :func:`csr`; it is read, not materialised.
    zstd : bool
        Whether to compress each matrix as well, which takes several times as long. It needs
        Python 3.14 or ``pip install 'sparsity-report[zstd]'``.
    progress : callable, optional
        Called with bytes done, bytes in all and the tensor's name.

    Returns
    -------
    pandas.DataFrame
        ``rows`` (out), ``columns`` (in) and ``sparsity`` of the matrix, and
        ``expected_sparsity``, the share that one global threshold would take of a Gaussian with
        the matrix's own standard deviation, ``erf(t / (σ·√2))`` (null without a threshold);
        ``mean_abs`` and ``std`` of the weights before pruning; shares of rows and columns that
        are zero throughout; sparsity of each attention head; ``n_m``, the sparsest of 1:4, 2:8,
        2:4 and 4:8 that 99 % of the groups of M weights along the input comply with, else the
        pattern most comply with, and that share; ``fill_b``, the share of b × b blocks that hold
        a nonzero; ``gap_padding`` and ``tile_padding``, zeros that MACKO and a tensor-core bitmap
        store among the nonzeros (every sixteenth of a run of zeros; what fills the nonzeros of a
        tile of 64 × 64 up to a multiple of 8); ``zstd_bytes``, the size of a frame of the matrix
        at level 3, row by row as the model holds it, in the dtype it is counted in, with the
        library's ``zstd_version``, both null unless asked for.

    Raises
    ------
    SparsityReportError
        Values are not known, or there is no zstd to compress with.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> frame = sr.weight_patterns(sr.masked(pruning))
    >>> len(frame), len(frame.loc[0, "head_sparsity"])
    (24, 4)
    """
    return variant_patterns([variant], zstd=zstd, progress=progress)


@with_bar("looking for patterns")
def variant_patterns(
    variants: Sequence[Variant], *, zstd: bool = False, progress: Progress | None = None
) -> pd.DataFrame:
    """Look at several variants at once, see :func:`weight_patterns`; every tensor is read once."""
    if zstd:
        check_zstd()
    models = dict.fromkeys(variant.weights for variant in variants)
    done, size = 0, sum(p.total * p.itemsize for weights in models for p in weights.prunable)
    looks: dict[tuple[Weights, int], list[dict[str, object]]] = defaultdict(list)
    for weights in models:
        prunings = {id(v.pruning): v.pruning for v in variants if v.weights is weights}
        parts = [(m, p) for m in weights.modules for p in m.parameters if p.prunable]
        # Two: a core each on the smallest machine.
        instead = "leave them out (patterns=False, --no-patterns)"
        with within_memory(f"{weights.name}: patterns", instead), ThreadPoolExecutor(2) as pool:
            looked = pool.map(lambda part: _look(weights, prunings, zstd, *part), parts)  # noqa: B023
            for (_, parameter), by_pruning in zip(parts, looked, strict=True):
                for key, rows in by_pruning.items():
                    looks[weights, key] += rows
                done += parameter.total * parameter.itemsize
                if progress:
                    progress(done, size, parameter.name)
    rows = [
        {"variant": variant.name, **row}
        for variant in variants
        for row in looks[variant.weights, id(variant.pruning)]
    ]
    return typed("patterns", pd.DataFrame(rows, columns=list(TABLES["patterns"].names)))


def expected_sparsity(threshold: float | None, std: float) -> float | None:
    """Share of a centred Gaussian below a threshold in magnitude, ``erf(t / (σ·√2))``.

    None without a threshold, and where the deviation is not finite.

    Examples
    --------
    >>> round(expected_sparsity(1.0, 1.0), 4)
    0.6827
    """
    if threshold is None or not math.isfinite(std):
        return None
    return math.erf(threshold / (std * math.sqrt(2))) if std else 1.0


def _look(
    weights: Weights,
    prunings: Mapping[int, Pruning | None],
    zstd: bool,
    module: Module,
    parameter: Parameter,
) -> dict[int, list[dict[str, object]]]:
    """Read a tensor once, block by block, and look at it under every pruning."""
    if not parameter.known:
        raise SparsityReportError(f"{weights.name}: {parameter.name} has no values to look at")
    assert parameter.matrix is not None
    rows, columns = parameter.inputs_outputs or parameter.matrix
    cuts = {key: p.cuts.get(parameter.name) if p else None for key, p in prunings.items()}
    waiting: dict[int, list[torch.Tensor]] = {key: [] for key, cut in cuts.items() if cut}
    stays = {key: cut.masks(_drained(waiting[key])) for key, cut in cuts.items() if cut}
    step = max(_BLOCK // max(columns, 1) // _LINES, 1) * _LINES
    if any(cut.input_first for cut in cuts.values() if cut):
        step = rows  # groups along the inputs go across rows
    values = [Moments() for _ in range(parameter.experts)]
    zeros = {key: [Zeros(*parameter.matrix) for _ in values] for key in prunings}
    size = rows * columns * parameter.itemsize
    frames = {key: Frames(len(values), size) for key in prunings} if zstd else {}
    slices = weights.as_in_memory(parameter.name)
    for number, start, tensor in _blocks(slices, rows, columns, step):
        values[number].add(tensor)
        nonzero = tensor != 0
        for key, found in zeros.items():
            mask = nonzero
            if key in stays:
                waiting[key].append(tensor)
                mask = nonzero & next(stays[key])
            if zstd:
                frames[key].add(tensor, mask)
            turned = parameter.transposed
            found[number].add(
                0 if turned else start, start if turned else 0, (mask.T if turned else mask).numpy()
            )
    for masks in stays.values():
        next(masks, None)  # which finds that all have been taken
    return {
        key: [
            _facts(module, parameter, number, values[number], found, pruning)
            | {
                "zstd_bytes": frames[key].sizes[number] if zstd else None,
                "zstd_version": zstd_version() if zstd else None,
            }
            for number, found in enumerate(zeros[key])
        ]
        for key, pruning in prunings.items()
    }


def _blocks(
    slices: Iterable[Slice], rows: int, columns: int, step: int
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield a stack of matrices in blocks of `step` rows, with number of the matrix and row."""
    if not rows * columns:
        return
    waiting: list[torch.Tensor] = []
    number, start, lacking = 0, 0, min(step, rows) * columns
    for piece in (piece for part in slices for piece in part.pieces()):
        rest = piece
        while rest.numel() >= lacking:
            parts, rest = [*waiting, rest[:lacking]], rest[lacking:]
            whole = torch.cat(parts) if len(parts) > 1 else parts[0]
            yield number, start, whole.reshape(-1, columns)
            start += step
            if start >= rows:
                number, start = number + 1, 0
            waiting, lacking = [], min(step, rows - start) * columns
        if rest.numel():
            waiting.append(rest)
            lacking -= rest.numel()


def _drained(queue: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield what lies in a queue when it is asked for."""
    while queue:
        yield queue.pop()


def _facts(
    module: Module,
    parameter: Parameter,
    number: int,
    values: Moments,
    zeros: Zeros,
    pruning: Pruning | None,
) -> dict[str, object]:
    """Say of one matrix what its weights are like and where its zeros stand."""
    mean_abs, std = values.mean_abs, values.std
    pattern, share = zeros.n_m()
    return {
        "module_name": module.name,
        "parameter": parameter.name,
        "expert": number if parameter.experts > 1 else None,
        "block": module.block,
        "group": module.group,
        "rows": zeros.rows.size,
        "columns": zeros.columns.size,
        "sparsity": zero_share(zeros.rows.size * zeros.columns.size, int(zeros.rows.sum())),
        "expected_sparsity": expected_sparsity(pruning.threshold if pruning else None, std),
        "mean_abs": mean_abs,
        "std": std,
        "zero_rows": zero_share(zeros.rows.size, int(np.count_nonzero(zeros.rows))),
        "zero_columns": zero_share(zeros.columns.size, int(np.count_nonzero(zeros.columns))),
        "head_sparsity": zeros.heads(parameter.head_dim, parameter.head_axis),
        "n_m": pattern,
        "n_m_share": share,
        **{f"fill_{size}": fill for size, fill in zeros.fill().items()},
        "gap_padding": zeros.gap_padding,
        "tile_padding": zeros.tile_padding,
    }


class Zeros:
    """Where the zeros of one matrix stand, as far as its blocks have been added.

    Attributes
    ----------
    rows, columns : numpy.ndarray of int64
        Nonzeros of each output and of each input.
    gap_padding, tile_padding : int
        Zeros that MACKO and a tensor-core bitmap store, see :func:`weight_patterns`.

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
        self.gap_padding = self.tile_padding = 0
        # Zeros behind the last value stored of each row.
        self._run = np.zeros(rows, dtype=np.int32)

    def add(self, row: int, column: int, mask: Mask) -> None:
        """Add a block that begins at a row and a column, both multiples of 64; its nonzeros."""
        flags = np.ascontiguousarray(mask).view(np.uint8)
        for lines, first, axis in ((self.rows, row, 1), (self.columns, column, 0)):
            lines[first : first + flags.shape[1 - axis]] += flags.sum(axis=axis, dtype=np.uint32)
        if self._complying:
            fours = flags[:, 0::4] + flags[:, 1::4] + flags[:, 2::4] + flags[:, 3::4]
            counts = {4: fours}
            if any(m == 8 for _, m in self._complying):
                counts[8] = fours[:, 0::2] + fours[:, 1::2]
            for n, m in self._complying:
                self._complying[n, m] += int(np.count_nonzero(counts[m] <= n))
        self._add_padding(row, flags)
        blocks = _quarter(_quarter(mask))
        for size in BLOCKS:
            self._filled[size] += int(np.count_nonzero(blocks))
            blocks = _quarter(blocks)

    def _add_padding(self, row: int, flags: npt.NDArray[np.uint8]) -> None:
        """Count the zeros that two layouts store of a block."""
        if not flags.size:
            return
        self.tile_padding += int((-_in_tiles(flags) % 8).sum())
        rows, width = flags.shape
        if width == self.columns.size:  # as most come: every run of zeros ends with its row
            ended = np.ones((rows, width + 1), dtype=np.bool_)
            ended[:, :width] = flags
            gaps = np.diff(np.flatnonzero(ended), prepend=-1) - 1
            self.gap_padding += int((gaps // GAP).sum())
            return
        places = np.arange(width, dtype=np.int32)
        last = np.maximum.accumulate(np.where(flags, places, np.int32(-1)), axis=1)
        before = self._run[row : row + rows]
        run = places - last + np.where(last < 0, before[:, None], np.int32(0))
        self.gap_padding += int(np.count_nonzero((run % GAP == 0) & (flags == 0)))
        before[:] = run[:, -1] % GAP

    def heads(self, head_dim: int | None, axis: int) -> tuple[float, ...] | None:
        """Sparsity of every run of `head_dim` rows (axis 0) or columns (axis 1); None without."""
        lines, across = (self.columns, self.rows) if axis else (self.rows, self.columns)
        if not head_dim or lines.size % head_dim:
            return None
        shares = 1 - lines.reshape(-1, head_dim).sum(axis=1) / (head_dim * across.size)
        return tuple(shares.tolist())

    def n_m(self) -> tuple[str | None, float | None]:
        """Name the N:M pattern it comes closest to, and the share of groups that comply."""
        size = self.rows.size * self.columns.size
        shares = compliance(self._complying, size)
        if not shares:
            return None, None
        pattern = find_pattern(self._complying, size) or max(shares, key=lambda p: shares[p])
        return str(pattern), shares[pattern]

    def fill(self) -> dict[int, float]:
        """Share of the b × b blocks that hold a nonzero, edges padded with zeros."""
        numbers = {b: -(-self.rows.size // b) * -(-self.columns.size // b) for b in BLOCKS}
        return {b: self._filled[b] / number if number else 0.0 for b, number in numbers.items()}


def _in_tiles(flags: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Count the flags of each tile; eight at a time are added, as 64 rows of them fit a byte."""
    lacking = [(0, -size % TILE) for size in flags.shape]
    whole = np.pad(flags, lacking) if any(after for _, after in lacking) else flags
    rows, columns = (size // TILE for size in whole.shape)
    eights = np.ascontiguousarray(whole).view(np.uint64).reshape(rows, TILE, -1).sum(axis=1)
    counts: npt.NDArray[np.int32] = (
        eights.view(np.uint8).reshape(rows, columns, TILE).sum(axis=2, dtype=np.int32)
    )
    return counts


def _quarter(mask: Mask) -> Mask:
    """Merge blocks of 2 × 2 into one that is filled where any of them is."""
    rows, columns = mask.shape
    if rows % 2 or columns % 2:
        mask = np.pad(mask, ((0, rows % 2), (0, columns % 2)))
    lines = mask[0::2] | mask[1::2]
    return lines[:, 0::2] | lines[:, 1::2]
