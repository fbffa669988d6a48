"""The seven zero-shot tasks that pruning papers compare by, and whose model a file says it ran.

BoolQ, RTE, HellaSwag, WinoGrande, ARC-easy, ARC-challenge and OpenBookQA: the table of Wanda (Sun
et al. 2023, arXiv:2306.11695), whose code runs them with lm-evaluation-harness without examples
(github.com/locuslab/wanda, ``lib/eval.py``). The metric here is accuracy, ``acc``, of all seven;
``acc_norm`` of some, as other papers have it, is another figure and never mixed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.study.layers import records

#: Names of the tasks in lm-evaluation-harness, and in papers.
SEVEN = {
    "boolq": "BoolQ",
    "rte": "RTE",
    "hellaswag": "HellaSwag",
    "winogrande": "WinoGrande",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "openbookqa": "OBQA",
}
METRIC = "acc"


class Doubt(NamedTuple):
    """A variant whose scores are of a file that names another model than one expects."""

    variant: str
    named: str
    model: str
    before: bool


def seven_tasks(tasks: pd.DataFrame) -> pd.DataFrame | None:
    """Return the seven accuracies of every variant that has some, and their mean.

    Taken are scores without examples in the prompt, of whole tasks, as far as that is told.

    Parameters
    ----------
    tasks : pandas.DataFrame
        As of a study.

    Returns
    -------
    pandas.DataFrame or None
        ``variant, task, value, stderr``, where ``task`` is ``"mean"`` for the mean of a variant
        that has all seven; its standard error is ``√Σ stderr² ÷ 7``, of tasks that are
        independent. None where no variant has all seven.
    """
    rows = tasks[_taken(tasks)]
    means = []
    for variant, of_variant in rows.groupby("variant", sort=False):
        if len(of_variant) == len(SEVEN) and of_variant["value"].notna().all():
            errors = of_variant["stderr"].to_numpy(dtype=float)
            error = float(np.sqrt((errors**2).sum())) / len(SEVEN)
            means.append((variant, "mean", float(of_variant["value"].mean()), error))
    if not means:
        return None
    columns = ["variant", "task", "value", "stderr"]
    return pd.concat([rows[columns], pd.DataFrame(means, columns=columns)], ignore_index=True)


def one_version(tasks: pd.DataFrame) -> tuple[str, ...]:
    """Return which of the seven all variants ran in one version, with ``"mean"`` where all are.

    Only these are compared: another version may ask other questions, or score them otherwise.
    """
    rows = tasks[_taken(tasks)]
    versions = rows.groupby("task")["task_version"].nunique(dropna=False)
    alike = tuple(task for task in SEVEN if versions.get(task, 1) <= 1)
    return (*alike, "mean") if len(alike) == len(SEVEN) else alike


def other_scores(tasks: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are not in the table of the seven."""
    return tasks if seven_tasks(tasks) is None else tasks[~_taken(tasks)]


def doubts(variants: pd.DataFrame, tasks: pd.DataFrame) -> Iterator[Doubt]:
    """Yield variants whose scores come from a file of another model, as far as names tell.

    Names differ for harmless reasons: a model has one on a Hub, another on a disk, and Wanda's own
    code hands the harness a pruned model under the name of the one before. So nothing is refused.
    Told is a file that names neither the source nor the name of a variant that was analysed as it
    came (the last part of a path is compared), and one that names what a variant was before it was
    pruned here.
    """
    known = tasks.dropna(subset=["evaluated_model"]).drop_duplicates(["variant", "evaluated_model"])
    described = variants.set_index("variant")
    for row in records(known):
        of_variant = described.loc[row["variant"]]
        names = {_last(of_variant[key]) for key in ("source", "model")}
        pruned_here = pd.notna(of_variant["pruned"])
        if (_last(row["evaluated_model"]) in names) == pruned_here:
            yield Doubt(
                row["variant"], row["evaluated_model"], of_variant["model"], bool(pruned_here)
            )


def _taken(tasks: pd.DataFrame) -> pd.Series:
    """Whether each row belongs into the table; where two would stand in one cell, neither does."""
    right = tasks["task"].isin(SEVEN) & (tasks["metric"] == METRIC)
    right &= tasks["filter"].isna() | (tasks["filter"] == "none")
    right &= (tasks["n_shot"].isna() | (tasks["n_shot"] == 0)).astype(bool)
    right &= ~tasks["limited"].fillna(False).astype(bool)
    return right & ~tasks[right].duplicated(["variant", "task"], keep=False).reindex(
        tasks.index, fill_value=False
    )


def _last(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold()
