"""Quality against bytes of variants scored by one protocol.

The bytes are those of the prunable weights in the smallest lossless layout. Quality is known for
measured variants only, never for levels between them.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.derived.zero_shot import METRIC, one_version, seven_tasks
from sparsity_report.study.layers import records
from sparsity_report.study.levels import same_level
from sparsity_report.study.policy_names import is_level_of

# Columns in which two comparable scores of a task agree.
_ONE_TASK = ["task", "metric", "filter", "n_shot", "samples", "limited", "task_version"]
# Relative difference that rounding makes between layouts of one pruning.
_ROUNDING = 1e-3


class Place(NamedTuple):
    """Sparsity and bytes of a variant.

    Attributes
    ----------
    source : str
        Fingerprint of its model.
    method : str or None
        The pruning method.
    sparsity : float
        Zeros ÷ prunable weights.
    bytes : int
        Bytes of the prunable weights in the smallest lossless layout.
    """

    source: str
    method: str | None
    sparsity: float
    bytes: int


class Point(NamedTuple):
    """Variants with one place and one score.

    Attributes
    ----------
    variants : tuple of str
    place : Place
    value : float
    error : float or None
        Standard error, if the evaluation harness reports one.
    """

    variants: tuple[str, ...]
    place: Place
    value: float
    error: float | None


class Tradeoff(NamedTuple):
    """Comparable scores at two places or more.

    Attributes
    ----------
    measure : str
        ``"perplexity"``, the name of a task, or ``"mean"`` of the seven zero-shot tasks.
    subject : str
        The text and its protocol, or the metric of a task.
    more_is_better : bool or None
    points : tuple of Point
        In the order of the study.
    left_out : tuple of str
        Variants whose score is not finite, or whose bytes are unknown.
    """

    measure: str
    subject: str
    more_is_better: bool | None
    points: tuple[Point, ...] = ()
    left_out: tuple[str, ...] = ()


# Scores without their places, and the rows that hold them.
_Scores = tuple[Tradeoff, pd.DataFrame]


def places(facts: Facts) -> dict[str, Place]:
    """Return the places of all variants whose zeros and bytes are known."""
    known = {}
    for row in records(facts.study.variants):
        variant = str(row["variant"])
        share, layout = facts.total(variant, "sparsity_prunable"), facts.smallest_layout(variant)
        if share is not None and layout is not None:
            size = int(facts.storage(variant)["bytes"][layout])
            known[variant] = Place(row["fingerprint"], row["method"], share, size)
    return known


def tradeoff(
    quality: pd.DataFrame | None, tasks: pd.DataFrame | None, places: Mapping[str, Place]
) -> Tradeoff | None:
    """Return the comparable scores of the most variants: perplexity, else zero-shot accuracy.

    The mean of the seven zero-shot tasks precedes single tasks. Of equally many variants, the first
    protocol or task counts.

    Parameters
    ----------
    quality, tasks : pandas.DataFrame or None
        As of a study.
    places : mapping of str to Place
        By variant, see :func:`places`.

    Returns
    -------
    Tradeoff or None
        None if no scores at two different numbers of bytes are comparable.

    Examples
    --------
    >>> place = Place("f", None, 0.0, 400)
    >>> places = {"Dense": place, "CSR50": place._replace(sparsity=0.5, bytes=300)}
    >>> tasks = pd.DataFrame({"variant": [*places], "task": "t", "value": [1, 0.5]})
    >>> tasks = tasks.assign(metric="acc", stderr=0.25, higher_is_better=True, filter="none")
    >>> tasks = tasks.assign(n_shot=0, samples=4, limited=False, task_version="1")
    >>> scores = tradeoff(None, tasks, places)
    >>> scores.measure, [(point.place.bytes, point.value) for point in scores.points]
    ('t', [(400, 1.0), (300, 0.5)])
    """
    for kind in (_perplexities(quality), _means(tasks), _tasks(tasks)):
        placed = [_placed(scores, rows, places) for scores, rows in kind]
        several = [one for one in placed if len({point.place.bytes for point in one.points}) > 1]
        if several:
            return max(several, key=lambda one: len(one.points))
    return None


def _perplexities(quality: pd.DataFrame | None) -> Iterator[_Scores]:
    for rows in by_protocol(quality):
        passage = f"{rows['text'].iloc[0]} ({rows['protocol'].iloc[0]})"
        values = rows[["variant"]].assign(value=rows["perplexity"], stderr=math.nan)
        yield Tradeoff("perplexity", passage, False), values


def _means(tasks: pd.DataFrame | None) -> Iterator[_Scores]:
    seven = None if tasks is None else seven_tasks(tasks)
    if tasks is not None and seven is not None and "mean" in one_version(tasks):
        yield Tradeoff("mean", METRIC, True), seven[seven["task"] == "mean"]


def _tasks(tasks: pd.DataFrame | None) -> Iterator[_Scores]:
    if tasks is None:
        return
    alike = [name for name in _ONE_TASK if name in tasks]
    rows = tasks.astype(dict.fromkeys(alike, object))
    for _, part in rows.groupby(alike, sort=False, dropna=False):
        higher = part["higher_is_better"].dropna()
        better = bool(higher.iloc[0]) if higher.nunique() == 1 else None
        yield Tradeoff(str(part["task"].iloc[0]), str(part["metric"].iloc[0]), better), part


def _placed(scores: Tradeoff, rows: pd.DataFrame, places: Mapping[str, Place]) -> Tradeoff:
    points: list[Point] = []
    left_out = []
    for row in records(rows.drop_duplicates("variant")):
        variant, value, error = str(row["variant"]), row["value"], row["stderr"]
        place = places.get(variant)
        if place is None or pd.isna(value) or not math.isfinite(value):
            left_out.append(variant)
            continue
        point = Point((variant,), place, float(value), None if pd.isna(error) else float(error))
        same = next((at for at, known in enumerate(points) if _coincide(known, point)), None)
        if same is None:
            points.append(point)
        else:
            known = points[same]
            points[same] = known._replace(variants=(*known.variants, variant))
    return scores._replace(points=tuple(points), left_out=tuple(left_out))


def _coincide(one: Point, other: Point) -> bool:
    """Return true if the marks of two points would coincide."""
    near = math.isclose(one.value, other.value, rel_tol=_ROUNDING)
    return near and one.place == other.place and one.error == other.error


def measured_levels(facts: Facts, policy: str) -> list[tuple[float, float]]:
    """Return the sparsity and perplexity of variants of the first model pruned by a policy.

    The unpruned model is at the level of the zeros it has. Only the text and protocol by which most
    variants were scored counts, the first of several. Of two variants at one level, such as one
    masked and one CSR, the worse counts.
    """
    study = facts.study
    if study.quality is None:
        return []
    named = zip(study.variants["variant"], study.variants["method"], strict=True)
    counted = [v for v, how in named if facts.is_of_first(v) and is_level_of(how, policy)]
    scores = study.quality[study.quality["variant"].isin(counted)]
    most: dict[float, float] = {}
    for rows in by_protocol(scores[scores["perplexity"].notna()]):
        points: dict[float, float] = {}
        for row in records(rows):
            if (share := facts.total(row["variant"], "sparsity_prunable")) is not None:
                level = next((known for known in points if same_level(known, share)), share)
                points[level] = max(points.get(level, 0.0), float(row["perplexity"]))
        most = points if len(points) > len(most) else most
    return sorted(most.items())
