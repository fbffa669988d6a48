"""Findings about measured speed: speed-ups that exceed timing noise."""

from collections.abc import Iterator

import pandas as pd

from sparsity_report.study.derived.speedups import ENOUGH
from sparsity_report.study.figures import StudyFigures
from sparsity_report.words.sentences import say


def speed_findings(study: StudyFigures) -> Iterator[str]:
    """Yield speed-ups beside those that FLOPs promise, and the control.

    A ratio within timing noise is reported as no difference, and one without a sound measurement
    is not reported at all, with the reason.
    """
    frame = study.facts.speeds
    if frame is None:
        return
    base = study.facts.speed_base
    forward = frame[frame["scope"] == "model"]
    others = forward[forward["verdict"] != "same"]
    for variant, rows in others.groupby("variant", sort=False):
        stated = rows[rows["verdict"] == "stated"]
        if len(stated):
            yield _speed_up(str(variant), stated, base)
        rest = rows[rows["verdict"] != "stated"]
        for reason, part in rest.groupby("verdict", sort=False):
            yield _not_stated(str(variant), str(reason), part, base)
    yield from _control(forward[forward["noise"].notna()], base)


def _speed_up(variant: str, rows: pd.DataFrame, base: str) -> str:
    promised, threads = rows["promised_speedup"].iloc[0], int(rows["threads"].iloc[0])
    ends = zip(rows["realised_speedup"], rows["realised_low"], rows["realised_high"], strict=True)
    speeds = [say("format.ratio_interval", ratio=r, low=low, high=high) for r, low, high in ends]
    timed = {"tokens": rows["tokens"].tolist(), "speeds": speeds, "base": base}
    return say("speed.speed_up", variant=variant, promised=promised, threads=threads, **timed)


def _not_stated(variant: str, reason: str, rows: pd.DataFrame, base: str) -> str:
    ends = {"low": rows["realised_low"].min(), "high": rows["realised_high"].max()}
    ends |= {"fold": 1 + rows["noise"].max(), "others": rows["others"].max()}
    ends |= {key: rows[key].iloc[0] for key in ("cores", "threads")} | {"runs": rows["runs"].min()}
    names = {"variant": variant, "base": base, "tokens": rows["tokens"].tolist()}
    return say(f"speed.not_stated.{reason}", enough=ENOUGH, **names, **ends)


def _control(rows: pd.DataFrame, base: str) -> Iterator[str]:
    if rows.empty:
        return
    control, fold = rows["control"].iloc[0], 1 + rows["noise"].max()
    is_same = pd.isna(control) or control == base
    key = "speed.control_same_variant" if is_same else "speed.control_other_variant"
    yield say(key, base=base, control=control, fold=fold)
