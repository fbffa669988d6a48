"""Losses of zeros over training: shares by group, module and block, from the table ``history``."""

from __future__ import annotations

from itertools import takewhile

import pandas as pd

# Most cells of the map by module; with more it is by block.
_CELLS = 2400
#: Columns of counts that are summed.
FATES = ["zeros", "kept", "revived", "new", "filled"]


def fate_sums(history: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the sums over masked modules by keys, and shares of the pruned weights."""
    rows = history[history["kept"].notna()]
    sums = rows.groupby(keys, sort=False)[FATES].sum(min_count=1)
    sums = sums.assign(pruned=sums["kept"] + sums["revived"])
    known = sums["pruned"].where(sums["pruned"] > 0)
    return sums.assign(kept_share=sums["kept"] / known, new_share=sums["new"] / known)


def fate_shares(history: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Return the fate of the pruned weights by columns such as step and group.

    The shares are relative to the pruned weights, new zeros too.
    """
    sums = fate_sums(history, [*keys])
    return sums[sums["pruned"] > 0].reset_index()


def module_losses(history: pd.DataFrame) -> pd.DataFrame:
    """Return modules that lost zeros at any step, those with the largest share at the end first.

    ``seen`` is the first step of the history with a loss.
    """
    lost = history[history["revived"].gt(0).fillna(False)]
    last = history[history["step"] == history["step"].max()]
    sums = fate_shares(last, "module_name")
    sums = sums.assign(
        seen=sums["module_name"].map(lost.groupby("module_name")["step"].min()).astype("Int64"),
        n_m_kept=sums["module_name"].map(last.set_index("module_name")["n_m_kept"]),
        order=-sums["revived"],
    )
    lossy = sums.dropna(subset="seen")
    return lossy.sort_values(["kept_share", "order"], kind="stable", ignore_index=True)


def kept_by_place(history: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return the fate of the pruned weights by step and ``place``, in the order of the model.

    A place is a module, without the words that all begin with. In a long history it is the number
    of a Transformer block, or a module outside of blocks.
    """
    rows = history[history["kept"].notna()]
    names = rows["module_name"]
    shared = list(
        takewhile(lambda words: len({*words}) == 1, zip(*names.str.split("."), strict=False))
    )
    place = names.str.split(".", n=len(shared)).str[-1]
    if len(rows) > _CELLS:
        blocks = layers.drop_duplicates("module_name").set_index("module_name")["block"]
        place = names.map(blocks).astype("string").fillna(names)
    return fate_shares(rows.assign(place=place), "step", "place")
