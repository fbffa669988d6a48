"""Tables of task scores, and of paired comparisons of tasks and of perplexities."""

from collections.abc import Mapping
from typing import Any

from sparsity_report.report.tables import column_heads
from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.column_heads import columns_of, key_of_name, side_by_side
from sparsity_report.report.tables.table_model import Column, Table, table_of
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.paired_tasks import winners
from sparsity_report.study.derived.zero_shot import METRIC, SEVEN, other_scores, seven_tasks
from sparsity_report.study.harness_results import KEYS
from sparsity_report.study.layers import records
from sparsity_report.words.display_names import head
from sparsity_report.words.sentences import say


def zero_shot(study: Study) -> Table | None:
    """Return the table of seven zero-shot tasks; None where no variant has all of them."""
    if study.tasks is None or (scores := seven_tasks(study.tasks)) is None:
        return None
    titles = {**SEVEN, "mean": say("column.mean")}
    best = {key[:2]: variant for key, variant in _winners(study).items()}
    rows: dict[str, dict[str, Any]] = {}
    for score in records(scores):
        row = rows.setdefault(score["variant"], dict.fromkeys(titles))
        row |= {"variant": score["variant"], score["task"]: (score["value"], score["stderr"])}
        if best.get((score["task"], METRIC)) == score["variant"]:
            row[f"{score['task']}_note"] = say("label.best_paired")
    columns = columns_of("variant", (1.1,))
    columns += [Column(task, title, cells.SCORE, width=1) for task, title in titles.items()]
    return table_of("zero_shot", say("caption.zero_shot"), columns, rows.values())


def tasks(study: Study, limit: int = 100) -> Table | None:
    """Return all other scores, one column per variant; None where there are none."""
    if study.tasks is None or (frame := other_scores(study.tasks)).empty:
        return None
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    best = _winners(study)
    names = [*frame["variant"].unique()]
    for row in cells.plain_rows(frame):
        key = tuple(row[name] for name in KEYS if name != "variant")
        values = rows.setdefault(key, {"task": _score_name(row)})
        values[column := key_of_name(row["variant"])] = row["value"], row["stderr"]
        if best.get(key) == row["variant"]:
            values[f"{column}_note"] = say("label.best_paired")
        if row["limited"]:
            values["task_note"] = say("column.partial_run")
    columns = [*columns_of("task"), *side_by_side(names, cells.FIGURE)]
    shown = [dict.fromkeys(map(key_of_name, names)) | row for row in list(rows.values())[:limit]]
    caption = column_heads.caption_of(
        "caption.harness_scores", "caption.harness_scores_first", len(shown), len(rows)
    )
    return table_of("tasks", caption, columns, shown)


def task_sources(study: Study) -> Table | None:
    """Return the sources of scores for a citation; None where none is known."""
    keys = "variant evaluated_model harness harness_version results_file results_fingerprint"
    if study.tasks is None or study.tasks[keys.split()[1:]].isna().all(axis=None):
        return None
    files = study.tasks.groupby(keys.split(), sort=False, dropna=False).size()
    columns = columns_of(f"{keys} scores", evaluated_model=say("column.evaluated_model_head"))
    values = files.rename("scores").reset_index()
    return table_of("task_sources", say("caption.score_sources"), columns, values)


def _score_name(row: Mapping[str, Any]) -> str:
    """Name a score: its task, metric, filter and the examples in the prompt."""
    parts = [row["task"], row["metric"]]
    if row["filter"] not in (None, "none"):
        parts.append(row["filter"])
    if row["n_shot"] is not None:
        parts.append(say("format.shots", shots=row["n_shot"]))
    return ", ".join(parts)


def task_pairs(study: Study, limit: int = 100) -> Table | None:
    """Return the paired differences of scores; None where no two runs are paired."""
    frame = study.task_pairs
    if frame is None or frame["p"].isna().all():
        return None
    known = frame[frame["p"].notna()]
    shown = known.head(limit)
    groups = []
    for (variant, against), rows in shown.groupby(["variant", "against"], sort=False):
        title = say("label.paired_with", variant=variant, against=against)
        groups.append((title, [_pair_row(row) for row in cells.plain_rows(rows)]))
    keys = "task documents lost gained difference interval p outcome"
    caption = column_heads.caption_of(
        "caption.task_pairs", "caption.task_pairs_first", len(shown), len(known)
    )
    return cells.grouped("task_pairs", caption, columns_of(keys, (1.6, 0)), groups)


def _pair_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a paired difference."""
    name = {"task": say("label.pooled_tasks", tasks=row["tasks"])} if row["task"] is None else {}
    return {**_compared(row, row["difference"]), "task": _score_name({**row, **name})}


def score_pairs(study: Study) -> Table | None:
    """Return paired comparisons of perplexities and distances from dense; None without losses."""
    if (frame := study.score_pairs) is None:
        return None
    groups = []
    shown = frame[frame["figure"].ne("perplexity_difference")]
    for figure, rows in shown.groupby("figure", sort=False):
        kind = cells.kind_of(str(figure))
        ends = cells.interval(kind.write)
        kinds = {"value_kind": kind, "interval_kind": ends, "interval_99_kind": ends}
        listed = [
            {
                **kinds,
                **_compared(row, 1 - row["value"]),
                "pair": say("label.paired_with", **row),
                "interval_99": (row["low_99"], row["high_99"]),
            }
            for row in cells.plain_rows(rows)
        ]
        groups.append((head(str(figure)), listed))
    columns = columns_of("pair value interval interval_99 p outcome", (1.6, 0))
    return cells.grouped("score_pairs", say("caption.score_pairs"), columns, groups)


def _compared(row: Mapping[str, Any], gain: float) -> dict[str, Any]:
    """Return a row with its interval and its outcome, which is null where nothing was tested."""
    outcome = ("worse" if gain < 0 else "better") if row["separated"] else "open"
    text = None if row["separated"] is None else say(f"paired.{outcome}")
    return {**row, "interval": (row["low"], row["high"]), "outcome": text}


def _winners(study: Study) -> dict[tuple[Any, ...], str]:
    """Return the pruning that beats all other ones in paired tests, by key of a score."""
    frame = study.task_pairs
    return {} if frame is None else winners(frame, study.facts.contenders)
