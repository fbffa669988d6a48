"""Findings about zeros over training: what became of the pruned weights, and where and when."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from sparsity_report.sparse.shares import ratio
from sparsity_report.study.zero_history import first_revival
from sparsity_report.words.sentences import say


def training_sentences(history: pd.DataFrame) -> Iterator[str]:
    """Yield the fate of the pruned weights at the last step, and that of a merge."""
    last = history[history["step"] == history["step"].max()]
    kept, revived = int(last["kept"].sum()), int(last["revived"].sum())
    values = {"step": int(last["step"].iloc[0]), "pruned": kept + revived}
    if not kept + revived:
        yield say("track.no_zeros", **values)
    elif revival := first_revival(history):
        key = "track.revived" if revived else "track.zero_again"
        where = "track.exact" if revival.step - revival.after == 1 else "track.between"
        place = say(where, **revival._asdict())
        share, module = ratio(revived, kept + revived), revival.module_name
        yield say(key, share=share, module=module, place=place, **values)
    else:
        yield say("track.kept", **values)
    if last["filled"].notna().any():
        zeros = int(last.loc[last["filled"].notna(), "zeros"].sum())
        filled = int(last["filled"].sum())
        yield say("track.merge_fills", share=ratio(filled, zeros), zeros=zeros)
