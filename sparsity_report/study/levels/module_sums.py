"""Some modules together: what a variant holds of them, under the names of a level's sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.sparse.shares import break_even, ratio, zero_share
from sparsity_report.study.layers import used
from sparsity_report.study.storage_layouts import layout_ends


def variant_sums(
    rows: pd.DataFrame, dense: pd.Series, inside: npt.NDArray[np.bool_]
) -> pd.Series[Any]:
    """Return some modules of a variant together, as :meth:`.levels.Levels.sums` has a level.

    Parameters
    ----------
    rows : pandas.DataFrame
        The variant's of ``study.layers``.
    dense : pandas.Series
        Bytes of each with nothing stored sparse.
    inside : numpy.ndarray of bool
        Which of them.
    """
    sparse = rows["prunable"] & (rows["layout"] == "csr")
    weights = rows["weight_total"].to_numpy(dtype=np.int64, na_value=0)
    uses = rows["uses"].to_numpy(dtype=float, na_value=1.0)
    full = pd.Series(used(2 * weights, uses), rows.index, dtype="Int64")
    whole = rows.assign(
        dense_stored_bytes=rows["stored_bytes"].mask(sparse, dense),
        dense_flops_per_token=rows["flops_per_token"].mask(sparse, full),
    )[inside]
    prunable = whole[whole["prunable"]]

    def summed(frame: pd.DataFrame, column: str) -> Any:
        return frame[column].sum(skipna=False)

    sums = {"prunable_total": summed(prunable, "weight_total"), "total": summed(whole, "total")}
    sums["zeros"] = sums["prunable_total"] - summed(prunable, "weight_nonzero")
    sums["model_zeros"] = sums["total"] - summed(whole, "nonzero")
    shares = (("sparsity_prunable", "prunable_total", "zeros"),)
    for name, total, zeros in (*shares, ("sparsity_model", "total", "model_zeros")):
        left = pd.NA if pd.isna(sums[zeros]) else sums[total] - sums[zeros]
        sums[name] = zero_share(sums[total], left)
    for column, name in (("stored_bytes", "bytes_ratio"), ("flops_per_token", "flops_ratio")):
        for key in (column, f"dense_{column}"):
            sums[key] = summed(whole, key)
        sums[name] = ratio(sums[column], sums[f"dense_{column}"])
    return pd.Series({**sums, "uncertainty": 0, "uncertainty_share": 0.0}, dtype=object)


def even_at(rows: pd.DataFrame, layout: str = "csr_int32") -> float | None:
    """Return the sparsity from which a layout of some modules' prunable weights beats dense."""
    ends = layout_ends(rows)
    if layout not in ends.index or ends.loc[layout].isna().any():
        return None
    _, dense, full, empty = map(int, ends.loc[[layout]].to_numpy()[0])
    share = break_even(dense, full, empty)
    return None if pd.isna(share) else float(share)
