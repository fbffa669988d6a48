"""What was measured, and what storage comes to, in plain sentences with their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from sparsity_report.measure.sensitivity import sensitivity_correlation
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.zero_shot import SEVEN, seven_tasks
from sparsity_report.study.layers import records
from sparsity_report.words.display_names import display_name, layout_name, part_name
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import figures, with_error
from sparsity_report.words.sentences import say

# Parts from which a rank correlation is looked at; and how many standard deviations, 1 ÷ √(n − 1)
# each, the largest of five must lie from 0, which one in a hundred does by chance.
_PARTS, _FAR = 10, 3.09


# Distinct answers up to which each has a sentence of its own.
_SEVERAL = 2


def smallest_layout(study: Comparison) -> Iterator[str]:
    """Say which layout that loses nothing would be the smallest for the prunable weights."""
    facts = study.facts
    together: dict[tuple[Any, ...], list[str]] = {}
    for variant in study.variants.loc[study.variants["pruned"].notna(), "variant"]:
        if layout := facts.smallest_layout(variant):
            share = round(float(facts.lossless(variant)["ratio"][layout]), 2)
            key = (layout, share, tuple(facts.unpacked_dtypes(variant)))
            together.setdefault(key, []).append(variant)
    plain = "finding.smallest_layout"
    packed = "finding.smallest_layout_unpacked"
    if len(together) > _SEVERAL:
        yield _smallest_of_several(together)
        return
    for (layout, ratio, unpacked), variants in together.items():
        yield say(
            packed if unpacked else plain,
            dtypes=unpacked,
            variants=variants,
            layout=layout_name(layout),
            ratio=ratio,
        )


def _smallest_of_several(together: Mapping[tuple[Any, ...], list[str]]) -> str:
    """Say at once which layout is the smallest for each of many variants."""
    by_layout: dict[tuple[Any, ...], tuple[list[str], list[float]]] = {}
    for (layout, ratio, unpacked), variants in together.items():
        names, ratios = by_layout.setdefault((layout, unpacked), ([], []))
        names += variants
        ratios.append(ratio)
    plain = "finding.layout_ratio"
    packed = "finding.layout_ratio_unpacked"
    told = []
    for (layout, unpacked), (names, ratios) in by_layout.items():
        low, high = (figures(end(ratios), ".2f") for end in (min, max))
        told.append(
            say(
                packed if unpacked else plain,
                layout=layout_name(layout),
                variants=names,
                ratio=low if low == high else say("format.range", low=low, high=high),
                dtypes=unpacked,
            )
        )
    return say("finding.smallest_layouts", told=told)


def smaller_file(study: Comparison) -> Iterator[str]:
    """Say where a compressed file is smaller than every layout that one computes with."""
    facts = study.facts
    together: dict[tuple[Any, ...], list[str]] = {}
    for variant in study.variants.loc[study.variants["pruned"].notna(), "variant"]:
        if (share := facts.smaller_file(variant)) is not None:
            key = (share, tuple(facts.unpacked_dtypes(variant)))
            together.setdefault(key, []).append(variant)
    plain = "finding.zstd_file"
    packed = "finding.zstd_file_unpacked"
    for (share, unpacked), variants in together.items():
        yield say(packed if unpacked else plain, variants=variants, ratio=share, dtypes=unpacked)


def zero_shot(study: Comparison) -> Iterator[str]:
    """Say the mean accuracy over the seven tasks of papers, of variants that have all."""
    if study.tasks is None or (scores := seven_tasks(study.tasks)) is None:
        return
    means = [
        say(
            "finding.accuracy_of_variant",
            mean=with_error(row["value"], row["stderr"], space=spoken().space),
            variant=row["variant"],
        )
        for row in records(scores[scores["task"] == "mean"])
    ]
    yield say("finding.zero_shot_accuracy", tasks=list(SEVEN.values()), means=means)


def costliest_part(study: Comparison) -> Iterator[str]:
    """Say which part costs most when it alone is pruned, and what that goes with."""
    frame = study.sensitivity
    if frame is None or len(frame) < 2:
        return
    increase = frame["nll_increase"].astype(float)
    worst, least = frame.iloc[int(increase.argmax())], frame.iloc[int(increase.argmin())]
    yield say(
        "finding.sensitivity_extremes",
        level=float(round(frame["sparsity"].iloc[0], 4)),
        worst=part_name(worst["by"], worst["part"]),
        most=worst["nll_increase"],
        least=part_name(least["by"], least["part"]),
        little=least["nll_increase"],
    )
    best = sensitivity_correlation(frame).iloc[0]
    if _telling(best["rho"], int(best["parts"])):
        yield say(
            "finding.sensitivity_correlation",
            parts=int(best["parts"]),
            structure=display_name("structure", best["structure"]),
            rho=best["rho"],
        )


def _telling(rho: float, parts: int) -> bool:
    """Whether a rank correlation over so many parts is more than chance."""
    return pd.notna(rho) and parts >= _PARTS and abs(rho) * math.sqrt(parts - 1) >= _FAR
