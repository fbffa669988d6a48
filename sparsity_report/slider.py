"""What the report's slider shows: a study's levels, added up so that no page has to count."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.charts import distinct_prunings, grid, group_name
from sparsity_report.comparison import Comparison
from sparsity_report.cost import csr_bytes, index_bytes, value_bytes
from sparsity_report.errors import printable

# Cells of a map up to which each says which module it is.
_NAMED = 2_000


class Slider(NamedTuple):
    """Global magnitude pruning of one model at many levels; lists have one number per level.

    Counts are of zeros, in elements. ``flops`` and ``bytes`` are those of the model with its
    prunable matrices in CSR; ``dense_flops`` and ``dense_bytes`` those without.
    """

    levels: list[float]
    start: int
    marks: list[tuple[str, float]]
    prunable: int
    total: int
    zeros: list[int]
    model: list[int | None]
    flops: list[int | None]
    bytes: list[int | None]
    dense_flops: int | None
    dense_bytes: int | None
    break_even: float | None
    slack: int
    groups: list[dict[str, Any]]
    cells: dict[str, Any]

    def row(self, level: int) -> dict[str, Any]:
        """Return the numbers of one level, for a table."""
        flops, size = self.flops[level], self.bytes[level]
        return {
            "level": self.levels[level],
            "zeros": self.zeros[level],
            "prunable_share": self.zeros[level] / self.prunable,
            "model_share": _ratio(self.model[level], self.total),
            "flops": flops,
            "flops_ratio": _ratio(flops, self.dense_flops),
            "bytes": size,
            "bytes_ratio": _ratio(size, self.dense_bytes),
        }


def slider(study: Comparison) -> Slider | None:
    """Add a study's levels up, per group, per cell of the map and in all.

    Returns
    -------
    Slider or None
        None where the study has no levels, or only of matrices without weights.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> made = slider(sr.compare(sr.dense(sr.load())))
    >>> round(made.zeros[30] / made.prunable, 3)
    0.3
    """
    if study.levels is None:
        return None
    names = study.levels["module_name"].drop_duplicates().tolist()
    levels = study.levels["sparsity"].drop_duplicates().tolist()
    counts = study.levels["weight_nonzero"].to_numpy(dtype=np.int64)
    left: Any = counts.reshape(len(names), len(levels))
    layers = study.layers[study.layers["variant"] == study.variants["variant"].iloc[0]]
    own = layers.set_index("module_name").loc[names].reset_index()
    rest = layers[~layers["module_name"].isin(names)]
    sizes = own["weight_total"].to_numpy(dtype=np.int64)[:, None]
    if not sizes.any():
        return None

    values = own["dtype"].map(value_bytes).to_numpy(dtype=np.int64)
    beside = (own["total"].to_numpy(dtype=np.int64) - sizes[:, 0]) * values
    stored = np.zeros(len(levels), dtype=np.int64)
    for n, v, pointers, columns, bias in zip(
        left, values.tolist(), own["row_pointers"], own["columns"], beside.tolist(), strict=True
    ):
        wide = index_bytes(int(n.max()), int(columns))
        stored += csr_bytes(n, int(pointers) - 1, v, wide) + bias
    per_weight = _flops_per_weight(own)
    flops = np.rint(left * per_weight).astype(np.int64).sum(axis=0)
    others = layers["total"] - layers["nonzero"]
    weights = (own["weight_total"] - own["weight_nonzero"]).sum(skipna=False)
    zeros = sizes - left
    dense = int((own["total"].to_numpy(dtype=np.int64) * values).sum())
    multiplied = rest["flops_per_token"].sum(skipna=False)
    beside_bytes = rest["stored_bytes"].sum(skipna=False)
    dense_flops = np.rint(sizes * per_weight).astype(np.int64).sum(axis=0)
    (whole_flops,) = _plus(dense_flops, multiplied)
    (whole_bytes,) = _plus([dense], beside_bytes)
    sizes_in_csr = _plus(stored, beside_bytes)
    marks = _marks(study)
    return Slider(
        levels=levels,
        start=int(np.abs(np.array(levels) - (marks[0][1] if marks else 0.5)).argmin()),
        marks=marks,
        prunable=int(sizes.sum()),
        total=int(layers["total"].sum()),
        zeros=zeros.sum(axis=0).tolist(),
        model=_plus(zeros.sum(axis=0), others.sum(skipna=False) - weights),
        flops=_plus(flops, multiplied),
        bytes=sizes_in_csr,
        dense_flops=whole_flops,
        dense_bytes=whole_bytes,
        break_even=_crossing(levels, sizes_in_csr, whole_bytes),
        slack=int(study.levels["uncertainty"].max()),
        groups=_groups(own, sizes, zeros),
        cells=_cells(own, sizes, zeros),
    )


def _flops_per_weight(own: pd.DataFrame) -> Any:
    """Two where every token meets every weight; of experts less, of a pooler none."""
    nonzero = own["weight_nonzero"].to_numpy(dtype=float)
    useful = own["useful_flops_per_token"].to_numpy(dtype=float)
    ratio = np.divide(useful, nonzero, out=np.full(len(own), 2.0), where=nonzero > 0)
    return ratio[:, None]


def _ratio(part: int | None, whole: int | None) -> float | None:
    return None if part is None or not whole else part / whole


def _plus(counts: Any, known: Any) -> list[int | None]:
    """Add one number to each; None throughout where it is not known."""
    if pd.isna(known):
        return [None] * len(counts)
    return [int(count) + int(known) for count in counts]


def _crossing(levels: list[float], sizes: list[int | None], dense: int | None) -> float | None:
    """Level from which CSR is smaller than dense; None where it never is, or is not known."""
    for place, size in enumerate(sizes):
        if size is None or dense is None:
            return None
        if size < dense:
            before = sizes[place - 1] if place else None
            if before is None:
                return levels[place]
            share = (before - dense) / (before - size)
            return levels[place - 1] + share * (levels[place] - levels[place - 1])
    return None


def _marks(study: Comparison) -> list[tuple[str, float]]:
    totals = study.totals.set_index("variant")["sparsity_prunable"]
    return [
        (variant, float(totals[variant]))
        for variant in distinct_prunings(study)
        if pd.notna(totals[variant])
    ]


def _groups(own: pd.DataFrame, sizes: np.ndarray, zeros: np.ndarray) -> list[dict[str, Any]]:
    found = []
    for group in dict.fromkeys(own["group"]):
        here = (own["group"] == group).to_numpy()
        counts = zeros[here].sum(axis=0).tolist()
        found.append({"name": group_name(group), "total": int(sizes[here].sum()), "zeros": counts})
    return found


def _cells(own: pd.DataFrame, sizes: np.ndarray, zeros: np.ndarray) -> dict[str, Any]:
    """Zeros per block and projection: those at the first level, then what each level adds."""
    inside = own["block"].notna().to_numpy() & (sizes[:, 0] > 0)
    own, sizes, zeros = own[inside], sizes[inside], zeros[inside]
    places = grid(own)
    keys = list(zip(places["block"].tolist(), places["projection"].tolist(), strict=True))
    order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    at = [order[key] for key in keys]
    counts = np.zeros((len(order), zeros.shape[1]), dtype=np.int64)
    totals = np.zeros(len(order), dtype=np.int64)
    np.add.at(counts, at, zeros)
    np.add.at(totals, at, sizes[:, 0])
    blocks = sorted({block for block, _ in order})
    projections = list(dict.fromkeys(projection for _, projection in order))
    alone = len(order) == len(own) <= _NAMED
    return {
        "blocks": blocks,
        "projections": projections,
        "block": [blocks.index(block) for block, _ in order],
        "projection": [projections.index(projection) for _, projection in order],
        "total": totals.tolist(),
        "zeros": np.diff(counts, axis=1, prepend=0).tolist(),
        "module": [printable(n, 2000) for n in own["module_name"]] if alone else None,
    }
