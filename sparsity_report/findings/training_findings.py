"""Findings about zeros over training: what became of the pruned weights, and where and when."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from sparsity_report.findings.checkpoint_findings import share_of
from sparsity_report.study.zero_history import first_revival
from sparsity_report.words.sentences import say


def training_sentences(history: pd.DataFrame) -> Iterator[str]:
    """Yield the fate of the pruned weights at the last step, and what else a reader must know.

    These are the zeros that a merge fills, the N:M patterns, and zeros outside of the mask.
    """
    steps = history["step"]
    last = history[steps == steps.max()]
    kept, revived, new = (int(last[name].sum()) for name in ("kept", "revived", "new"))
    step, pruned = int(steps.max()), kept + revived
    values = {"step": step, "steps": step - int(steps.min()), "pruned": pruned}
    if not pruned:
        yield say("track.no_zeros", **values)
    elif revival := first_revival(history):
        key = "track.revived" if revived else "track.zero_again"
        is_exact = revival.step - revival.after == 1 or not revived
        place = say("track.exact" if is_exact else "track.between", **revival._asdict())
        module, others = revival.module_name, revival.modules - 1
        where = say("track.modules", module=module, others=others) if others else module
        share = share_of(revived, pruned, say("track.pruned_weights"))
        yield say(key, share=share, where=where, place=place, **values)
    else:
        yield say("track.kept" if values["steps"] else "track.begun", **values)
    if len(tuned := last[last["filled"].notna()]):
        filled, zeros = (int(tuned[name].sum()) for name in ("filled", "zeros"))
        yield say("track.merge_fills", share=share_of(filled, zeros, say("track.adapter_zeros")))
    masked = last[last["kept"].notna()]
    if masked["n_m_kept"].notna().all() and masked["n_m"].nunique() == 1:
        shares = masked["n_m_kept"].tolist()
        key = "track.pattern_kept" if min(shares) == 1 else "track.pattern"
        yield say(key, pattern=masked["n_m"].iloc[0], shares=shares)
    if new:
        yield say("track.new", new=new)


def training_steps(history: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield advice after a loss, or before a merge, with the code that follows it."""
    last = history[history["step"] == history["step"].max()]
    if last["revived"].sum():
        yield say("next.hold"), 'sr.track(pruned, mode="hold")'
    elif last["filled"].sum():
        mask = 'sr.existing_zeros(sr.load("PRUNED"))'
        yield say("next.merge"), f'sr.track(merged, mode="hold", mask={mask})'
