"""Figures of continuations by variant: means over prompts, and differences from dense.

Texts of one temperature and limit of tokens are averaged by prompt, and intervals treat prompts as
independent. Differences pair the texts of one prompt and seed. An interval of no width, from
prompts that are all alike, is unknown.
"""

import math

import pandas as pd

from sparsity_report.study.derived.block_bootstrap import LEVEL, Mean, holm_levels, mean_over
from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.derived.paired_tasks import compared_variants
from sparsity_report.study.schema import COLUMNS

# Columns of continuations that are averaged.
FIGURES = ("written", "repeated", "distinct", "dense_nll")
_COLUMNS = [
    *("temperature", "token_limit", "figure", "variant", "prompts", "mean", "low", "high"),
    *("against", "paired", "against_mean", "gap", "gap_low", "gap_high"),
]


def continuation_figures(facts: Facts, texts: pd.DataFrame) -> pd.DataFrame:
    """Return the mean figures of continuations by variant, and differences from dense.

    Parameters
    ----------
    facts : Facts
    texts : pandas.DataFrame
        As :func:`sparsity_report.continuations` returns it.

    Returns
    -------
    pandas.DataFrame
        As :attr:`sparsity_report.Study.writing`.
    """
    pairs = compared_variants(facts, texts)
    dense = {name: base for name, base in pairs if base not in facts.contenders}
    # A checkpoint pruned before it was opened judges its texts itself.
    is_judged = texts["against"].eq(texts["variant"].map(lambda name: dense.get(name, name)))
    texts = texts.assign(dense_nll=texts["dense_nll"].where(is_judged), seed=_draws(texts))
    rows: list[dict[str, object]] = []
    gaps: list[tuple[dict[str, object], Mean]] = []
    for decoding, part in texts.groupby(_COLUMNS[:2], sort=False, dropna=False):
        for figure in FIGURES:
            wide = part.pivot(index=["prompt", "seed"], columns="variant", values=figure)
            wide = wide.astype(float)[[*part["variant"].unique()]]
            for name in wide:
                rows.append({**dict(zip(_COLUMNS, (*decoding, figure, name), strict=False))})
                rows[-1] |= _mean(wide[name], COLUMNS[figure].high or math.inf)
                if name in facts.prunings and (base := dense.get(name)) in wide:
                    gap, both = wide[name] - wide[base], wide[name].notna()
                    values = _by_prompt(gap)
                    rows[-1] |= {
                        "against": base,
                        "paired": len(values),
                        "against_mean": _by_prompt(wide[base].where(both)).mean(),
                        "gap": values.mean(),
                    }
                    mean = mean_over(values, block=1)
                    gaps += [(rows[-1], mean)] if mean and mean.error else []
    for (row, mean), level in zip(
        gaps, holm_levels([mean.p_value for _, mean in gaps]), strict=True
    ):
        row["gap_low"], row["gap_high"] = mean.interval(level)
    return pd.DataFrame(rows, columns=_COLUMNS)


def _draws(texts: pd.DataFrame) -> "pd.Series[int]":
    """Return the seeds of texts, -1 for greedy decoding."""
    return texts["seed"].astype("Int64").fillna(-1).astype(int)


def _by_prompt(values: "pd.Series[float]") -> "pd.Series[float]":
    """Return the known means over the texts of each prompt."""
    return values.groupby("prompt", sort=False).mean().dropna()


def _mean(values: "pd.Series[float]", most: float) -> dict[str, object]:
    """Return the mean over prompts with its interval, from 0 to the most that a figure can be."""
    means = _by_prompt(values)
    row: dict[str, object] = {"prompts": len(means), "mean": means.mean()}
    if (mean := mean_over(means, block=1)) and mean.error:
        low, high = mean.interval(LEVEL)
        row |= {"low": max(low, 0.0), "high": min(high, most)}
    return row
