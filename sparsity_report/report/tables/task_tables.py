"""Tables of task scores, and of their paired differences."""

from collections.abc import Mapping
from typing import Any

from sparsity_report.report.tables import column_heads
from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.column_heads import columns_of
from sparsity_report.report.tables.table_model import Column, Table, table_of
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.paired_tasks import winners
from sparsity_report.study.derived.zero_shot import METRIC, SEVEN, other_scores, seven_tasks
from sparsity_report.study.harness_results import KEYS
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import distinct_names
from sparsity_report.words.sentences import say


def zero_shot(study: Comparison) -> Table | None:
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


def tasks(study: Comparison, limit: int = 100) -> Table | None:
    """Return all other scores, one column per variant; None where there are none."""
    if study.tasks is None or (frame := other_scores(study.tasks)).empty:
        return None
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    best = _winners(study)
    # By number, as a variant may be called like another column.
    places = {variant: str(place) for place, variant in enumerate(frame["variant"].unique())}
    for row in cells.plain_rows(frame):
        key = tuple(row[name] for name in KEYS if name != "variant")
        values = rows.setdefault(key, {"task": _score_name(row)})
        values[place := places[row["variant"]]] = row["value"], row["stderr"]
        if best.get(key) == row["variant"]:
            values[f"{place}_note"] = say("label.best_paired")
        if row["limited"]:
            values["task_note"] = say("column.partial_run")
    heads = zip(places.values(), distinct_names(list(places)), strict=True)
    columns = columns_of("task")
    columns += [Column(place, text, cells.FIGURE, width=1) for place, text in heads]
    shown = [dict.fromkeys(places.values()) | values for values in list(rows.values())[:limit]]
    caption = column_heads.caption_of(
        "caption.harness_scores", "caption.harness_scores_first", len(shown), len(rows)
    )
    return table_of("tasks", caption, columns, shown)


def task_sources(study: Comparison) -> Table | None:
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


def task_pairs(study: Comparison, limit: int = 100) -> Table | None:
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
    outcome = ("worse" if row["difference"] < 0 else "better") if row["separated"] else "open"
    ends = row["low"], row["high"]
    return {**row, "task": _score_name({**row, **name}), "interval": ends,
            "outcome": say(f"paired.{outcome}")}  # fmt: skip


def _winners(study: Comparison) -> dict[tuple[Any, ...], str]:
    """Return the pruning that beats all other ones in paired tests, by key of a score."""
    frame, names = study.task_pairs, study.facts.contenders
    return {} if frame is None or len(names) < 2 else winners(frame, names)
