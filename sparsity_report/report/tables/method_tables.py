"""The tables of a paper on pruning: methods by sparsity and model, the best in bold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.report.tables.table_model import (
    NAME,
    SCORE,
    SHARE,
    Body,
    Cell,
    Column,
    Row,
    Table,
    kind_of,
    name,
    table_of,
)
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.perplexity import ANY_TOKENIZER, by_protocol
from sparsity_report.study.derived.winners import best_of, best_rows
from sparsity_report.study.derived.zero_shot import SEVEN, one_version, seven_tasks
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import distinct_names, short_name
from sparsity_report.words.column_titles import head
from sparsity_report.words.display_names import policy_name
from sparsity_report.words.number_format import percent
from sparsity_report.words.sentences import say

# A share in percent, whose sign stands in the caption.
_PERCENT = SCORE._replace(write=lambda value: SCORE.write((value, None)))
# Of rows, by their names, figures by column.
_Scores = dict[str, dict[str, Any]]


class _Entry(NamedTuple):
    """A variant in a grid: its row, and the column of its model."""

    kind: str
    label: str
    model: str
    variant: str


def method_grids(study: Comparison) -> list[Table]:
    """Return perplexities, a table per protocol: methods by kind of sparsity, models across.

    Parameters
    ----------
    study : Comparison
        See :func:`sparsity_report.combine` for several models.

    Returns
    -------
    list of Table
        Of each protocol by which at least two prunings were scored.
    """
    frame = study.quality
    if frame is None or frame.empty:
        return []
    entries = list(_entries(study))
    tables: list[Table] = []
    for scored in by_protocol(frame, ANY_TOKENIZER):
        scores = scored.drop_duplicates("variant")
        known = [entry for entry in entries if entry.variant in set(scores["variant"])]
        if sum(entry.kind != "" for entry in known) >= 2:
            tables.append(_grid(known, scores, len(tables)))
    return tables


def _entries(study: Comparison) -> Iterator[_Entry]:
    """Yield the study's models and prunings, each place of the grid once."""
    frame = study.facts.methods
    models = frame.drop_duplicates("fingerprint").set_index("fingerprint")["model"]
    shown = dict(zip(models.index, distinct_names(list(models)), strict=True))
    labels: list[tuple[str, str, str, str]] = []
    for row in records(frame):
        kind = row["kind"] if pd.notna(row["kind"]) else percent(row["sparsity"], digits=0)
        bare, foreign = row["sparsity"] == 0, pd.isna(row["policy"])
        label = short_name(row["variant"]) if foreign else _policy(row["policy"])
        if bare and foreign:
            kind, label = "", say("name.dense_baseline")
        labels.append((kind, label, shown[row["fingerprint"]], row["variant"]))
    places = [label[:3] for label in labels]
    for kind, label, model, variant in labels:
        # Two of one policy and sparsity are told apart by their own names.
        again = places.count((kind, label, model)) > 1
        yield _Entry(kind, short_name(variant) if again else label, model, variant)


def _policy(policy: str) -> str:
    said = policy_name(policy)
    return said[:1].upper() + said[1:]


def _grid(entries: Sequence[_Entry], scored: pd.DataFrame, at: int) -> Table:
    metric = "perplexity"
    values = scored.set_index("variant")[metric]
    values = values.astype(object).where(values.notna(), None)
    models = list(dict.fromkeys(entry.model for entry in entries))
    heads = models if len(models) > 1 else [head(metric)]
    columns = [
        Column(model, head, kind_of(metric), width=1)
        for model, head in zip(models, heads, strict=True)
    ]
    bodies = []
    for of, inside in _by(entries, "kind"):
        scores: _Scores = {entry.label: {} for entry in inside}
        strong: set[tuple[str, str]] = set()
        for entry in inside:
            scores[entry.label][entry.model] = values[entry.variant]
        for model, rivals in _by(inside if of else (), "model"):
            best = best_rows(scored[scored["variant"].isin(_variants(rivals))], metric)
            strong |= {(entry.label, model) for entry in rivals if entry.variant in best}
        bodies.append(_body(of, columns, scores, strong))
    said = records(scored)[0]
    caption = say(
        "caption.method_grid",
        metric=head(metric),
        models=models,
        **{key: said[key] for key in ("window", "stride")},
        **{key: short_name(said[key]) for key in ("protocol", "text", "text_fingerprint")},
    )
    key = f"{metric}_grid" + (f"_{at + 1}" if at else "")
    return Table(key, caption, (_method(), *columns), tuple(bodies))


def _variants(entries: Sequence[_Entry]) -> list[str]:
    return [entry.variant for entry in entries]


def task_grid(study: Comparison) -> Table | None:
    """Return zero-shot accuracies: methods by kind of sparsity down, each model by itself.

    Parameters
    ----------
    study : Comparison
        See :func:`sparsity_report.combine` for several models.

    Returns
    -------
    Table or None
        None where fewer than two prunings have scores of the seven tasks, or none has all.
    """
    if study.tasks is None or (frame := seven_tasks(study.tasks)) is None:
        return None
    known = frame.dropna(subset=["value"])
    of: _Scores = {}
    for row in records(known):
        of.setdefault(row["variant"], {})[row["task"]] = row["value"]
    entries = [entry for entry in _entries(study) if entry.variant in of]
    if sum(entry.kind != "" for entry in entries) < 2:
        return None
    titles = {**SEVEN, "mean": say("column.mean")}
    columns = [Column(key, title, _PERCENT, width=1) for key, title in titles.items()]
    several = len({entry.model for entry in entries}) > 1
    comparable = one_version(study.tasks)
    bodies = []
    for model, inside in _by(entries, "model"):
        for kind, rows in _by(inside, "kind"):
            name = say("format.model_kind", model=model, kind=kind) if kind else model
            scores = {entry.label: of[entry.variant] for entry in rows}
            bold = comparable if kind else ()
            strong = _highest(scores, bold)
            bodies.append(_body(name if several else kind, columns, scores, strong))
    caption = _of_tasks(entries, known, comparable)
    return Table("zero_shot_grid", caption, (_method(), *columns), tuple(bodies))


def _of_tasks(entries: Sequence[_Entry], known: pd.DataFrame, comparable: Sequence[str]) -> str:
    """Say what stands in a grid of tasks, and what bold means there: no test."""
    errors = known[known["variant"].isin([entry.variant for entry in entries])]
    means = errors["task"] == "mean"
    highest = "caption.bold_standard_errors"
    untold = "caption.bold_no_standard_error"
    said = [
        say("caption.zero_shot_grid", models=list(dict.fromkeys(entry.model for entry in entries))),
        say(
            highest if errors["stderr"].notna().any() else untold,
            error=errors["stderr"][~means].max(),
            mean=errors["stderr"][means].max(),
        ),
    ]
    if apart := [title for task, title in SEVEN.items() if task not in comparable]:
        said.append(say("caption.no_winner_versions", tasks=apart))
    return " ".join(said)


def _method() -> Column:
    return Column("method", say("column.method_head"), name(80), width=1.6)


def _by(entries: Sequence[_Entry], part: str) -> Iterator[tuple[str, list[_Entry]]]:
    """Yield entries that have a kind, or a model, in common."""
    for value in dict.fromkeys(getattr(entry, part) for entry in entries):
        yield value, [entry for entry in entries if getattr(entry, part) == value]


def _highest(scores: _Scores, keys: Sequence[str]) -> set[tuple[str, str]]:
    """Return where the highest of a column stands, by row and column."""
    strong = set()
    for key in keys:
        column = {label: of.get(key) for label, of in scores.items()}
        strong |= {(label, key) for label in best_of(column, "accuracy")}
    return strong


def _body(
    title: str, columns: Sequence[Column], scores: _Scores, strong: Collection[tuple[str, str]]
) -> Body:
    """Return a row to each label; what stands where `strong` says is strong."""
    rows = (
        Row(
            (
                Cell(label, NAME),
                *(Cell(of.get(c.key), c.kind, strong=(label, c.key) in strong) for c in columns),
            )
        )
        for label, of in scores.items()
    )
    return Body(tuple(rows), title)


def blocks(study: Comparison) -> Table | None:
    """Return zeros per block, policies side by side; None where they cannot differ."""
    rivals = study.facts.rivals
    if not rivals:
        return None
    shares = {v: study.facts.blocks(v).set_index("block")["sparsity"] for v in rivals}
    numbers = sorted(set().union(*(of.index for of in shares.values())))
    values = [{"block": n, **{v: of.get(n) for v, of in shares.items()}} for n in numbers]
    columns = [Column("block", head("block"), kind_of("block"))]
    columns += [
        Column(v, text, SHARE) for v, text in zip(rivals, distinct_names(rivals), strict=True)
    ]
    caption = say("caption.zeros_per_block")
    return table_of("blocks", caption, columns, values)
