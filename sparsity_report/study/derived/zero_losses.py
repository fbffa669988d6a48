"""Losses of zeros over training: shares by group, module and block, from the table ``history``."""

from __future__ import annotations

import pandas as pd

from sparsity_report.study.zero_history import fate_sums


def group_fates(history: pd.DataFrame) -> pd.DataFrame:
    """Return the fate of the pruned weights by step and group.

    The shares are relative to the pruned weights, new zeros too.
    """
    return _shares(history, ["step", "group"])


def module_losses(history: pd.DataFrame) -> pd.DataFrame:
    """Return modules that lost zeros at any step, those with the largest share at the end first.

    ``seen`` is the first step of the history with a loss.
    """
    lost = history[history["revived"].gt(0).fillna(False)]
    last = history[history["step"] == history["step"].max()]
    sums = _shares(last, ["module_name"])
    sums = sums.assign(
        seen=sums["module_name"].map(lost.groupby("module_name")["step"].min()).astype("Int64"),
        n_m_kept=sums["module_name"].map(last.set_index("module_name")["n_m_kept"]),
        order=-sums["revived"],
    )
    lossy = sums.dropna(subset="seen")
    return lossy.sort_values(["kept_share", "order"], kind="stable", ignore_index=True)


def kept_by_place(history: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return the fate of the pruned weights by step and ``place``, in the order of the model.

    A place is the number of a Transformer block, or a module outside of blocks.
    """
    blocks = layers.drop_duplicates("module_name").set_index("module_name")["block"]
    rows = history[history["kept"].notna()]
    names = rows["module_name"]
    place = names.map(blocks).astype("string").fillna(names)
    return _shares(rows.assign(place=place), ["step", "place"])


def _shares(history: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    sums = fate_sums(history, keys)
    return sums[sums["pruned"] > 0].reset_index()
