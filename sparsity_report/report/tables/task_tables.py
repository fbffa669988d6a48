"""Tables of task scores, and of paired comparisons of tasks and of perplexities."""

from collections.abc import Mapping
from typing import Any

from sparsity_report.report.tables.table_model import (
    Cell,
    Table,
    caption_of,
    key_of_name,
    plain_rows,
    side_by_side,
    table_of,
)
from sparsity_report.study.derived.paired_tasks import winners
from sparsity_report.study.derived.zero_shot import (
    METRIC,
    SEVEN,
    one_version,
    other_scores,
    seven_tasks,
)
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.harness_results import KEYS
from sparsity_report.study.layers import records
from sparsity_report.study.schema import COLUMNS, Column
from sparsity_report.words import value_formats as formats
from sparsity_report.words.number_format import is_guessing
from sparsity_report.words.sentences import say


def zero_shot(study: StudyFigures) -> Table | None:
    """Return the table of seven zero-shot tasks; None where no variant has all of them."""
    if study.tasks is None or (scores := seven_tasks(study.tasks)) is None:
        return None
    titles = {**SEVEN, "mean": say("column.mean")}
    columns = [Column(task, text=title, format=formats.SCORE) for task, title in titles.items()]
    best = {key[:2]: variant for key, variant in _winners(study).items()}
    rows: dict[str, dict[str, Any]] = {}
    for score in records(scores):
        row = rows.setdefault(score["variant"], dict.fromkeys(column.name for column in columns))
        is_best = best.get((score["task"], METRIC)) == score["variant"]
        note = say("label.best_paired") if is_best else ""
        row["variant"] = score["variant"]
        row[score["task"]] = Cell((score["value"], score["stderr"]), note)
    note, alike = say("table_note.zero_shot"), one_version(study.tasks)
    if others := [title for task, title in SEVEN.items() if task not in alike]:
        note += " " + say("table_note.task_versions_differ", tasks=others)
    columns = [COLUMNS["variant"], *columns]
    options: dict[str, Any] = {"widths": (1.1, 1), "note": note}
    return table_of("zero_shot", say("caption.zero_shot"), columns, rows.values(), **options)


def tasks(study: StudyFigures, limit: int = 100) -> Table | None:
    """Return all other scores, one column per variant; None where there are none."""
    if study.tasks is None or (frame := other_scores(study.tasks)).empty:
        return None
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    best = _winners(study)
    names = [*frame["variant"].unique()]
    for row in plain_rows(frame):
        key = tuple(row[name] for name in KEYS if name != "variant")
        values = rows.setdefault(key, dict.fromkeys(map(key_of_name, names)))
        note = say("label.best_paired") if best.get(key) == row["variant"] else ""
        values[key_of_name(row["variant"])] = Cell((row["value"], row["stderr"]), note)
        if row["limited"] or "task" not in values:
            note = say("column.partial_run") if row["limited"] else ""
            values["task"] = Cell(_score_name(row), note)
    columns = [COLUMNS["task"], *side_by_side(names, formats.FIGURE)]
    listed = list(rows.values())[:limit]
    keys = ("caption.harness_scores", "caption.harness_scores_first")
    return table_of("tasks", caption_of(*keys, len(listed), len(rows)), columns, listed)


def task_sources(study: StudyFigures) -> Table | None:
    """Return the sources of scores for a citation; None where none is known."""
    keys = "variant evaluated_model harness harness_version results_file results_fingerprint"
    if study.tasks is None or study.tasks[keys.split()[1:]].isna().all(axis=None):
        return None
    files = study.tasks.groupby(keys.split(), sort=False, dropna=False).size()
    values = files.rename("scores").reset_index()
    return table_of("task_sources", say("caption.score_sources"), f"{keys} scores", values)


def _score_name(row: Mapping[str, Any]) -> str:
    """Name a score: its task, metric, filter and the examples in the prompt."""
    parts = [row["task"], row["metric"]]
    if row["filter"] not in (None, "none"):
        parts.append(row["filter"])
    if row["n_shot"] is not None:
        parts.append(say("format.shots", shots=row["n_shot"]))
    return ", ".join(parts)


def task_pairs(study: StudyFigures, limit: int = 100) -> Table | None:
    """Return the paired differences of scores; None where no two runs are paired."""
    frame = study.task_pairs
    if frame is None or frame["p"].isna().all():
        return None
    known = frame[frame["p"].notna()]
    listed = known.head(limit)
    columns = "task documents lost gained difference interval p outcome"
    caption = caption_of("caption.task_pairs", "caption.task_pairs_first", len(listed), len(known))
    rows = map(_pair_row, plain_rows(listed))
    options: dict[str, Any] = {"widths": (1.6, 0), "note": say("table_note.task_pairs")}
    return table_of("task_pairs", caption, columns, rows, title="pair", **options)


def _pair_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a paired difference."""
    name = {"task": say("label.pooled_tasks", tasks=row["tasks"])} if row["task"] is None else {}
    return {**_compared(row, row["difference"]), "task": _score_name({**row, **name})}


def score_pairs(study: StudyFigures) -> Table | None:
    """Return paired comparisons of perplexities and distances from dense; None without losses."""
    if (frame := study.score_pairs) is None or study.quality is None:
        return None
    listed = frame[frame["figure"].ne("perplexity_difference")]
    scores = study.quality.set_index(["text", "protocol", "variant"])["perplexity"].to_dict()
    rows = (_score_row(study, row, scores) for row in plain_rows(listed))
    columns, caption = "pair value interval p outcome", say("caption.score_pairs")
    options: dict[str, Any] = {"widths": (1.6, 0), "note": say("table_note.score_pairs")}
    return table_of("score_pairs", caption, columns, rows, title="title", **options)


def _score_row(
    study: StudyFigures, row: Mapping[str, Any], scores: Mapping[Any, Any]
) -> dict[str, Any]:
    """Return the cells of a paired comparison; a perplexity of guessing has no ratio."""
    column, size = COLUMNS[row["figure"]], study.facts.vocabulary(row["variant"])
    score = scores[row["text"], row["protocol"], row["variant"]]
    value = Cell(row["value"], format=column.format)
    ends = Cell((row["low"], row["high"]), format=formats.interval(column.format))
    if row["figure"] == "perplexity_ratio" and is_guessing(score, size):
        value, ends = Cell(score, format=formats.perplexity(size)), Cell(None, format=column.format)
    cells = {"title": column.label, "value": value, "interval": ends}
    return _compared(row, 1 - row["value"]) | cells


def _compared(row: Mapping[str, Any], gain: float) -> dict[str, Any]:
    """Return a row with its variants, interval and outcome, null where nothing was tested."""
    outcome = ("worse" if gain < 0 else "better") if row["separated"] else "open"
    text = None if row["separated"] is None else say(f"paired.{outcome}")
    pair = say("label.paired_with", variant=row["variant"], against=row["against"])
    return {**row, "pair": pair, "interval": (row["low"], row["high"]), "outcome": text}


def _winners(study: StudyFigures) -> dict[tuple[object, ...], str]:
    """Return the pruning that beats all other ones in paired tests, by key of a score."""
    frame = study.task_pairs
    return {} if frame is None else winners(frame, study.facts.shares(study.facts.contenders))
