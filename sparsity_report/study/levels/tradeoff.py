"""Quality against bytes: where variants stand that were scored alike, and what levels take.

The bytes are those of the prunable weights in the smallest layout that loses none, as
``facts.smallest_layout`` has it. Quality is known of variants alone; nothing is said of a level
that none of them stands at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import pandas as pd

from sparsity_report.study.derived.perplexity import by_protocol
from sparsity_report.study.derived.zero_shot import METRIC, one_version, seven_tasks
from sparsity_report.study.layers import records

# In what two scores of a task agree that may be compared.
_ONE_TASK = ["task", "metric", "filter", "n_shot", "samples", "limited", "task_version"]
# Layouts of one pruning score alike but for rounding, which is less than this part.
_ROUNDING = 1e-3


class Place(NamedTuple):
    """Where a variant stands, whatever it scored.

    Attributes
    ----------
    source, model : str
        Fingerprint and name of the model that it is of.
    method : str or None
        How it was pruned.
    sparsity : float
        Zeros ÷ prunable weights.
    layout : str
        The smallest lossless one.
    bytes : int
        Of the prunable weights in it.
    """

    source: str
    model: str
    method: str | None
    sparsity: float
    layout: str
    bytes: int


class Point(NamedTuple):
    """Variants that stand at one place and scored alike, and their score.

    Attributes
    ----------
    variants : tuple of str
    place : Place
    value : float
    error : float or None
        The standard error, where the harness that scored tells one.
    """

    variants: tuple[str, ...]
    place: Place
    value: float
    error: float | None


class Tradeoff(NamedTuple):
    """What was scored alike of at least two places.

    Attributes
    ----------
    measure : str
        ``"perplexity"``, else the name of a task, or ``"mean"`` of the seven.
    of : str
        The text and its protocol, or the metric of a task.
    more_is_better : bool or None
    points : tuple of Point
        In the order of the study.
    left_out : tuple of str
        Variants whose score is no number, or whose bytes are not known.
    """

    measure: str
    of: str
    more_is_better: bool | None
    points: tuple[Point, ...]
    left_out: tuple[str, ...]


class _Scores(NamedTuple):
    measure: str
    of: str
    more_is_better: bool | None
    rows: pd.DataFrame


class Sizes(Protocol):
    """What is known of variants; ``study.facts`` are such."""

    def total(self, variant: str, column: str) -> float | None:
        """Return a figure of ``study.totals``."""
        ...

    def smallest_layout(self, variant: str) -> str | None:
        """Return the lossless layout of the fewest bytes."""
        ...

    def storage(self, variant: str) -> pd.DataFrame:
        """Return the prunable weights by layout."""
        ...


def places(sizes: Sizes, variants: pd.DataFrame) -> dict[str, Place]:
    """Return where the variants stand whose zeros and bytes are known.

    Parameters
    ----------
    sizes : Sizes
    variants : pandas.DataFrame
        As of a study.
    """
    found = {}
    for row in records(variants):
        variant, method = str(row["variant"]), row["method"]
        share, layout = sizes.total(variant, "sparsity_prunable"), sizes.smallest_layout(variant)
        if share is None or layout is None:
            continue
        found[variant] = Place(
            str(row["fingerprint"]),
            str(row["model"]),
            None if pd.isna(method) else str(method),
            share,
            layout,
            int(sizes.storage(variant)["bytes"][layout]),
        )
    return found


def tradeoff(
    quality: pd.DataFrame | None, tasks: pd.DataFrame | None, places: Mapping[str, Place]
) -> Tradeoff | None:
    """Return what most variants were scored on alike: a text by perplexity, else a task.

    Of equally many the first. The mean of the seven zero-shot tasks comes before any task.

    Parameters
    ----------
    quality, tasks : pandas.DataFrame or None
        As of a study.
    places : mapping of str to Place
        By variant, of those whose bytes are known.

    Returns
    -------
    Tradeoff or None
        None where nothing was scored at two different places.

    Examples
    --------
    >>> place = Place("f", "m", None, 0.0, "dense", 400)
    >>> places = {"Dense": place, "CSR50": place._replace(sparsity=0.5, bytes=300)}
    >>> tasks = pd.DataFrame({"variant": [*places], "task": "t", "value": [1, 0.5]})
    >>> tasks = tasks.assign(metric="acc", stderr=0.25, higher_is_better=True, filter="none")
    >>> tasks = tasks.assign(n_shot=0, samples=4, limited=False, task_version="1")
    >>> found = tradeoff(None, tasks, places)
    >>> found.measure, [(point.place.bytes, point.value) for point in found.points]
    ('t', [(400, 1.0), (300, 0.5)])
    """
    for scores in (_perplexities(quality), _means(tasks), _tasks(tasks)):
        best: Tradeoff | None = None
        for one in scores:
            found = _placed(one, places)
            if len({point.place.bytes for point in found.points}) > 1 and (
                best is None or len(found.points) > len(best.points)
            ):
                best = found
        if best is not None:
            return best
    return None


def _perplexities(quality: pd.DataFrame | None) -> Iterator[_Scores]:
    if quality is None:
        return
    for part in by_protocol(quality):
        of = f"{part['text'].iloc[0]} ({part['protocol'].iloc[0]})"
        scored = part[["variant"]].assign(value=part["perplexity"], stderr=math.nan)
        yield _Scores("perplexity", of, False, scored)


def _means(tasks: pd.DataFrame | None) -> Iterator[_Scores]:
    seven = None if tasks is None else seven_tasks(tasks)
    if tasks is not None and seven is not None and "mean" in one_version(tasks):
        yield _Scores("mean", METRIC, True, seven[seven["task"] == "mean"])


def _tasks(tasks: pd.DataFrame | None) -> Iterator[_Scores]:
    if tasks is None:
        return
    alike = [name for name in _ONE_TASK if name in tasks]
    rows = tasks.astype(dict.fromkeys(alike, object))
    for _, part in rows.groupby(alike, sort=False, dropna=False):
        higher = part["higher_is_better"].dropna()
        better = bool(higher.iloc[0]) if higher.nunique() == 1 else None
        yield _Scores(str(part["task"].iloc[0]), str(part["metric"].iloc[0]), better, part)


def _placed(scores: _Scores, places: Mapping[str, Place]) -> Tradeoff:
    points: list[Point] = []
    left_out = []
    for row in records(scores.rows.drop_duplicates("variant")):
        variant, value, error = str(row["variant"]), row["value"], row["stderr"]
        place = places.get(variant)
        if place is None or pd.isna(value) or not math.isfinite(value):
            left_out.append(variant)
            continue
        point = Point((variant,), place, float(value), None if pd.isna(error) else float(error))
        alike = next((at for at, known in enumerate(points) if _alike(known, point)), None)
        if alike is None:
            points.append(point)
        else:
            known = points[alike]
            points[alike] = known._replace(variants=(*known.variants, variant))
    measure, of, better, _ = scores
    return Tradeoff(measure, of, better, tuple(points), tuple(left_out))


def _alike(one: Point, other: Point) -> bool:
    """Whether two marks would be one."""
    near = math.isclose(one.value, other.value, rel_tol=_ROUNDING)
    return near and one.place == other.place and one.error == other.error
