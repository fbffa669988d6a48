"""The slider as it was: for report/ until it shows the chart of draw.slider."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.draw.charts import distinct_prunings, grid
from sparsity_report.errors import printable
from sparsity_report.study.study import Comparison
from sparsity_report.words.names import group_name

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
    by_level, table = study.by_level, study.levels
    if by_level is None or table is None:
        return None
    levels, names = by_level.sparsities, table["module_name"].drop_duplicates().tolist()
    left = table["weight_nonzero"].to_numpy(dtype=np.int64).reshape(len(names), len(levels))
    layers = study.layers[study.layers["variant"] == study.variants["variant"].iloc[0]]
    own = layers.set_index("module_name").loc[names].reset_index()
    rest = layers[~layers["module_name"].isin(names)]
    sizes = own["weight_total"].to_numpy(dtype=np.int64)[:, None]
    if not sizes.any():
        return None
    others = layers["total"] - layers["nonzero"]
    weights = (own["weight_total"] - own["weight_nonzero"]).sum(skipna=False)
    zeros, totals = sizes - left, by_level.totals
    multiplied = rest["flops_per_token"].sum(skipna=False)
    beside = rest["stored_bytes"].sum(skipna=False)
    (dense_flops,) = _plus([by_level.dense_flops], multiplied)
    (dense_bytes,) = _plus([by_level.dense_bytes], beside)
    marks = _marks(study)
    return Slider(
        levels=levels,
        start=int(np.abs(np.array(levels) - (marks[0][1] if marks else 0.5)).argmin()),
        marks=marks,
        prunable=int(sizes.sum()),
        total=int(layers["total"].sum()),
        zeros=zeros.sum(axis=0).tolist(),
        model=_plus(zeros.sum(axis=0), others.sum(skipna=False) - weights),
        flops=_plus(totals["useful_flops_per_token"], multiplied),
        bytes=_plus(totals["csr_bytes"], beside),
        dense_flops=dense_flops,
        dense_bytes=dense_bytes,
        break_even=None if dense_bytes is None else study.facts.break_even(study.facts.baseline),
        slack=int(table["uncertainty"].max()),
        groups=_groups(own, sizes, zeros),
        cells=_cells(own, sizes, zeros),
    )


def _ratio(part: int | None, whole: int | None) -> float | None:
    return None if part is None or not whole else part / whole


def _plus(counts: Any, known: Any) -> list[int | None]:
    """Add one number to each; None throughout where it is not known."""
    if pd.isna(known):
        return [None] * len(counts)
    return [int(count) + int(known) for count in counts]


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
