"""Structure beyond a number: where in a matrix the zeros of a variant stand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sparsity_report.counting.counts import Progress
from sparsity_report.counting.cuts import Pruning
from sparsity_report.counting.moments import moments
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.schema import BLOCKS, TABLES, typed
from sparsity_report.study.variants import Variant
from sparsity_report.weights.parameters import Module, Parameter
from sparsity_report.weights.weights import Weights

# Sparsest first; hardware runs 2:4, and 4:8 and 1:4 are its relatives in the literature.
N_M = ((1, 4), (2, 8), (2, 4), (4, 8))
COMPLYING = 0.99
Mask = npt.NDArray[np.bool_]


def weight_patterns(variant: Variant, *, progress: Progress | None = None) -> pd.DataFrame:
    """Look at every prunable matrix of a variant, one row each and one per expert.

    Parameters
    ----------
    variant : Variant
        From :func:`dense`, :func:`masked` or :func:`csr`; it is read, not materialised.
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
        a nonzero.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> frame = sr.weight_patterns(sr.masked(pruning))
    >>> len(frame), len(frame.loc[0, "head_sparsity"])
    (24, 4)
    """
    return variant_patterns([variant], progress)


def variant_patterns(variants: Sequence[Variant], progress: Progress | None = None) -> pd.DataFrame:
    """Look at several variants at once, see :func:`weight_patterns`; every tensor is read once."""
    models = dict.fromkeys(variant.weights for variant in variants)
    done, size = 0, sum(p.total * p.itemsize for weights in models for p in weights.prunable)
    looks: dict[tuple[Weights, int], list[dict[str, object]]] = defaultdict(list)
    for weights in models:
        prunings = {id(v.pruning): v.pruning for v in variants if v.weights is weights}
        parts = [(m, p) for m in weights.modules for p in m.parameters if p.prunable]
        # Two: a core each on the smallest machine, and no more than two tensors in memory.
        with ThreadPoolExecutor(2) as pool:
            looked = pool.map(lambda part: _look(weights, prunings, *part), parts)  # noqa: B023
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
    weights: Weights, prunings: Mapping[int, Pruning | None], module: Module, parameter: Parameter
) -> dict[int, list[dict[str, object]]]:
    """Read a tensor once and look at it under every pruning."""
    if not parameter.known:
        raise SparsityReportError(f"{weights.name}: {parameter.name} has no values to look at")
    tensor = weights.tensor(parameter.name)
    facts: list[dict[str, Any]] = []
    for number, matrix in enumerate(_stacked(tensor, parameter)):
        mean_abs, std = moments([matrix])
        facts.append(
            {
                "module_name": module.name,
                "parameter": parameter.name,
                "expert": number if parameter.experts > 1 else None,
                "block": module.block,
                "group": module.group,
                "mean_abs": mean_abs,
                "std": std,
            }
        )
    looks = {}
    for key, pruning in prunings.items():
        kept, threshold = tensor != 0, pruning.threshold if pruning else None
        if pruning and parameter.name in pruning.cuts:
            kept &= pruning.cuts[parameter.name].mask(tensor)
        looks[key] = [
            fact | _zeros(mask.numpy(), parameter, threshold, fact["std"])
            for fact, mask in zip(facts, _stacked(kept, parameter), strict=True)
        ]
    return looks


def _stacked(tensor: torch.Tensor, parameter: Parameter) -> torch.Tensor:
    """Return the matrices in a tensor, each as it lies in memory."""
    assert parameter.matrix is not None
    return tensor.reshape(parameter.experts, *(parameter.inputs_outputs or parameter.matrix))


def _zeros(
    mask: Mask, parameter: Parameter, threshold: float | None, std: float
) -> dict[str, object]:
    """Say of one matrix where its zeros stand."""
    mask = mask.T if parameter.transposed else mask
    pattern, share = best_n_m(mask)
    return {
        "rows": mask.shape[0],
        "columns": mask.shape[1],
        "sparsity": zero_share(mask.size, int(np.count_nonzero(mask))),
        "expected_sparsity": expected_sparsity(threshold, std),
        "zero_rows": zero_share(mask.shape[0], int(np.count_nonzero(mask.any(axis=1)))),
        "zero_columns": zero_share(mask.shape[1], int(np.count_nonzero(mask.any(axis=0)))),
        "head_sparsity": head_sparsity(mask, parameter.head_dim, parameter.head_axis),
        "n_m": pattern,
        "n_m_share": share,
        **{f"fill_{size}": fill for size, fill in block_fill(mask).items()},
    }


def head_sparsity(mask: Mask, head_dim: int | None, axis: int) -> tuple[float, ...] | None:
    """Sparsity of every run of `head_dim` rows (axis 0) or columns (axis 1); None without heads."""
    if not head_dim or mask.shape[axis] % head_dim:
        return None
    lines = np.count_nonzero(mask, axis=1 - axis).reshape(-1, head_dim).sum(axis=1)
    return tuple((1 - lines / (head_dim * mask.shape[1 - axis])).tolist())


def best_n_m(mask: Mask) -> tuple[str | None, float | None]:
    """Name the N:M pattern a matrix comes closest to, and the share of groups that comply."""
    if not mask.size or mask.shape[1] % 4:
        return None, None
    flags = np.ascontiguousarray(mask).view(np.uint8)
    fours = flags[:, 0::4] + flags[:, 1::4] + flags[:, 2::4] + flags[:, 3::4]
    counts = {4: fours}
    if mask.shape[1] % 8 == 0:
        counts[8] = fours[:, 0::2] + fours[:, 1::2]
    shares = {
        f"{n}:{m}": float(np.count_nonzero(counts[m] <= n) / counts[m].size)
        for n, m in N_M
        if m in counts
    }
    good = [name for name, share in shares.items() if share >= COMPLYING]
    name = good[0] if good else max(shares, key=lambda pattern: shares[pattern])
    return name, shares[name]


def block_fill(mask: Mask) -> dict[int, float]:
    """Share of the b × b blocks that hold a nonzero, edges padded with zeros."""
    fill = {}
    blocks = _quarter(_quarter(mask))
    for size in BLOCKS:
        fill[size] = float(np.count_nonzero(blocks) / blocks.size) if blocks.size else 0.0
        blocks = _quarter(blocks)
    return fill


def _quarter(mask: Mask) -> Mask:
    """Merge blocks of 2 × 2 into one that is filled where any of them is."""
    rows, columns = mask.shape
    if rows % 2 or columns % 2:
        mask = np.pad(mask, ((0, rows % 2), (0, columns % 2)))
    lines = mask[0::2] | mask[1::2]
    return lines[:, 0::2] | lines[:, 1::2]
