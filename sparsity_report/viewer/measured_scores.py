"""Measured scores of variants and of levels, as the viewer shows them."""

from collections.abc import Callable, Iterator

import pandas as pd

from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.derived.zero_shot import METRIC, SEVEN, one_version, seven_tasks
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import is_level_of
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.number_format import perplexity, plus_minus, with_error
from sparsity_report.words.sentences import say

# Columns in which two comparable scores of a task agree.
_ONE_TASK = ["task", "metric", "filter", "n_shot", "samples", "limited", "task_version"]
# Largest difference of two shares that are one level, by rounding to whole weights.
_SAME_LEVEL = 1e-4
# The name of a measurement, and its texts by variant.
_Scores = tuple[str, dict[str, str]]


def measured_scores(study: StudyFigures) -> _Scores | None:
    """Return the name of a measurement and its texts by variant; None without two variants.

    Perplexity precedes the mean of the seven zero-shot tasks, and this precedes single tasks. Of
    several protocols or tasks, the first with the most variants counts.
    """
    for measured in (_perplexities, _means, _tasks):
        name, texts = max(measured(study), key=lambda each: len(each[1]), default=("", {}))
        if len(texts) > 1:
            return name, texts
    return None


def _perplexities(study: StudyFigures) -> Iterator[_Scores]:
    for rows in by_protocol(study.quality):
        known = rows[rows["variant"].isin(study.facts.layouts) & rows["perplexity"].notna()]
        known = known.drop_duplicates("variant")
        scores = zip(known["variant"], known["perplexity"], strict=True)
        sized = {name: (score, study.facts.vocabulary(name)) for name, score in scores}
        texts = {name: perplexity(score, space="") for name, score in sized.items()}
        yield say("label.perplexity"), texts


def _means(study: StudyFigures) -> Iterator[_Scores]:
    seven = None if study.tasks is None else seven_tasks(study.tasks)
    if study.tasks is not None and seven is not None and "mean" in one_version(study.tasks):
        means = seven[seven["task"] == "mean"]
        yield say("chart.mean_accuracy_seven_tasks"), _written(means, with_error)


def _tasks(study: StudyFigures) -> Iterator[_Scores]:
    if study.tasks is not None:
        rows = study.tasks.astype(dict.fromkeys(_ONE_TASK, object))
        for (task, metric, *_), part in rows.groupby(_ONE_TASK, sort=False, dropna=False):
            write = with_error if metric == METRIC and task in SEVEN else plus_minus
            name = f"{clip(SEVEN.get(str(task), task), 24)}, {clip(metric, 16)}"
            yield name, _written(part, write)


def _written(rows: pd.DataFrame, write: Callable[[float, float], str]) -> dict[str, str]:
    """Return the scores of variants with their standard errors, where these are known."""
    known = rows.dropna(subset="value").drop_duplicates("variant")
    return {row["variant"]: write(row["value"], row["stderr"]) for row in records(known)}


def measured_levels(study: StudyFigures, policy: str) -> list[tuple[float, float]]:
    """Return the sparsity and perplexity of variants of the first model pruned by a policy.

    The unpruned model is at the level of the zeros it has. Only the text and protocol by which most
    variants were scored counts, the first of several. Of two variants at one level, such as one
    masked and one CSR, the worse counts.
    """
    if study.quality is None:
        return []
    facts = study.facts
    named = zip(study.variants["variant"], study.variants["method"], strict=True)
    counted = [v for v, how in named if facts.is_of_first(v) and is_level_of(how, policy)]
    scores = study.quality[study.quality["variant"].isin(counted)]
    most: dict[float, float] = {}
    for rows in by_protocol(scores[scores["perplexity"].notna()]):
        points: dict[float, float] = {}
        for row in records(rows):
            if (share := facts.total(row["variant"], "sparsity_prunable")) is not None:
                level = next((known for known in points if abs(known - share) < _SAME_LEVEL), share)
                points[level] = max(points.get(level, 0.0), float(row["perplexity"]))
        most = points if len(points) > len(most) else most
    return sorted(most.items())
