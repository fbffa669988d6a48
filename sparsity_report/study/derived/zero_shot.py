"""The seven zero-shot tasks by which pruning papers compare, and checks of the evaluated model.

The tasks are BoolQ, RTE, HellaSwag, WinoGrande, ARC-easy, ARC-challenge and OpenBookQA, as in Wanda
(Sun et al. 2023, arXiv:2306.11695), whose code runs them by lm-evaluation-harness without examples
(github.com/locuslab/wanda, ``lib/eval.py``). The metric is accuracy, ``acc``, of all seven.
``acc_norm``, which other papers report for some of them, is a different figure and is not mixed in.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import EXISTING

#: Names of the tasks in lm-evaluation-harness, and in papers.
SEVEN = {
    "boolq": "BoolQ", "rte": "RTE", "hellaswag": "HellaSwag", "winogrande": "WinoGrande",
    "arc_easy": "ARC-e", "arc_challenge": "ARC-c", "openbookqa": "OBQA",
}  # fmt: skip
METRIC = "acc"


def seven_tasks(tasks: pd.DataFrame) -> pd.DataFrame | None:
    """Return the seven accuracies of every variant, and their mean.

    Only scores of complete tasks without examples in the prompt count; unknown settings pass.

    Parameters
    ----------
    tasks : pandas.DataFrame
        As of a study.

    Returns
    -------
    pandas.DataFrame or None
        ``variant, task, value, stderr``. The task ``"mean"`` is the mean of a variant with all
        seven; its standard error is ``√Σ stderr² ÷ 7``, for independent tasks. None if no variant
        has all seven.
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
    """Return the tasks that all variants ran in one version, with ``"mean"`` if all seven are.

    Versions of a task may differ in questions or scoring, so their scores are not compared.
    """
    rows = tasks[_taken(tasks)]
    versions = rows.groupby("task")["task_version"].nunique(dropna=False)
    alike = tuple(task for task in SEVEN if versions.get(task, 1) <= 1)
    return (*alike, "mean") if len(alike) == len(SEVEN) else alike


def other_scores(tasks: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are not in the table of the seven tasks."""
    return tasks if seven_tasks(tasks) is None else tasks[~_taken(tasks)]


def doubts(variants: pd.DataFrame, tasks: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield variants whose scores come from a file that names an unexpected model.

    The keys are ``variant``, its ``model``, the one that the file has ``named``, and ``before``,
    true if that is the model before pruning.

    Names can differ for harmless reasons: a model has one name on a Hub and another on disk, and
    Wanda's code evaluates a pruned model under the name of the unpruned one. So no score is
    refused. For an unpruned variant, a file is doubtful if it names neither the variant's source
    nor its model (the last parts of paths are compared); for a pruned one, if it names either.
    """
    known = tasks.dropna(subset=["evaluated_model"]).drop_duplicates(["variant", "evaluated_model"])
    described = variants.set_index("variant")
    for row in records(known):
        of_variant = described.loc[row["variant"]]
        names = {_last(of_variant[key]) for key in ("source", "model")}
        # The zeros of an opened model are those of its file.
        pruned_here = pd.notna(of_variant["pruned"]) and of_variant["method"] != EXISTING
        named = row["evaluated_model"]
        if (_last(named) in names) == pruned_here:
            doubt = {"variant": row["variant"], "named": named, "model": of_variant["model"]}
            yield doubt | {"before": pruned_here}


def _taken(tasks: pd.DataFrame) -> pd.Series:
    """Return true for rows of the seven tasks; of two rows for one cell, neither counts."""
    right = tasks["task"].isin(SEVEN) & (tasks["metric"] == METRIC)
    right &= tasks["filter"].isna() | (tasks["filter"] == "none")
    right &= (tasks["n_shot"].isna() | (tasks["n_shot"] == 0)).astype(bool)
    right &= ~tasks["limited"].fillna(False).astype(bool)
    return right & ~tasks[["variant", "task"]].where(right).duplicated(keep=False)


def _last(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold()
