"""Tables of a paper on pruning: policies side by side, and methods by sparsity and model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.column_heads import wide_table
from sparsity_report.report.tables.table_model import Body, Cell, Column, Kind, Row, Table, kind_of
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.policy_comparison import Compared
from sparsity_report.study.derived.protocol_scores import ANY_TOKENIZER, by_protocol
from sparsity_report.study.derived.zero_shot import SEVEN, one_version, seven_tasks
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import distinct_names, short_name
from sparsity_report.words.display_names import head, layout_name, policy_name
from sparsity_report.words.number_format import THIN, UNKNOWN, percent
from sparsity_report.words.sentences import say

# A share in percent; the caption has the sign.
_PERCENT = cells.SCORE._replace(write=lambda value: cells.SCORE.write((value, None)))
# Figures by row label and column.
_Scores = dict[str, dict[str, Any]]


def _ends(ends: tuple[float, float] | None) -> str:
    """Write the shares of the least and the most sparse layer, once if they read the same."""
    if ends is None:
        return UNKNOWN
    low, high = map(percent, ends)
    return low if low == high else f"{low.removesuffix(f'{THIN}%')}–{high}"


# Most columns of figures, and letters of their heads, in a table for LaTeX.
_COLUMNS, _LETTERS = 4, 45
# Head, note and format of each row, by figure.
_ROWS: dict[str, tuple[str, str, Kind]] = {
    "sparsity_prunable": ("metric.zeros", "compared.of_prunable_weights", cells.share(2)),
    "spread": ("compared.zeros_per_layer", "compared.least_to_most_sparse", Kind(_ends, "%")),
    "dead_rows": ("compared.zero_outputs", "compared.whole_matrix_rows", cells.COUNT),
    "dead_heads": ("compared.zero_attention_heads", "compared.per_projection", cells.COUNT),
    "smallest": ("card.smallest_lossless_layout", "compared.of_dense_bytes", cells.TIMES),
    "layout": ("compared.as_layout", "", cells.TIMES),
    "perplexity": ("card.perplexity", "compared.on_text", kind_of("perplexity")),
    "kl": ("compared.kl_from_base", "explorer.unit_nats_per_token", kind_of("kl")),
    "agreement": ("compared.top1_agreement", "compared.on_text", kind_of("agreement")),
    "realised": ("compared.speedup_over_base", "compared.tokens_at_a_time",
                 kind_of("realised")),
}  # fmt: skip


def compared(study: Comparison) -> Table | None:
    """Return the baseline and the prunings of one model side by side.

    Returns
    -------
    Table or None
        None of fewer than two distinct prunings.
    """
    shown = study.compared
    if shown is None:
        return None
    names = shown.variants
    over = {name: percent(level, digits=0) for level, group in shown.sets for name in group}
    columns = [Column("", "", cells.WORDS, width=1.8)]
    columns += [
        Column(name, text, cells.COUNT, over.get(name, ""), width=1)
        for name, text in zip(names, distinct_names(names), strict=True)
    ]
    rows = tuple(_row(study, figure, names) for figure in shown.figures)
    return Table("compared", say("caption.compared"), tuple(columns), (Body(rows),), "compared")


def _row(study: Comparison, figure: Compared, names: list[str]) -> Row:
    title, note, kind = _ROWS[figure.key]
    facts = study.facts
    scope = figure.subject
    if figure.key == "layout":
        scope = layout_name(scope)
    elif figure.key == "realised":
        scope = say("format.token_count", tokens=int(scope))
    speed_base = facts.speed_base if figure.key == "realised" else ""
    values = {"of": scope, "base": facts.baseline, "speed_base": speed_base}
    shown = [Cell(say(title, **values), cells.WORDS, say(note, **values) if note else "")]
    for name in names:
        value: Any = figure.values[name]
        below = ""
        if figure.key == "smallest" and value is not None:
            value, layout = value
            below = layout_name(layout)
        shown.append(Cell(value, kind, below))
    return Row(tuple(shown), "part" if figure.key == "layout" else "")


def side_by_side(study: Comparison) -> list[Table]:
    """Return the table of :func:`compared` for LaTeX: units in row heads, and few columns."""
    table = compared(study)
    if table is None:
        return []
    bodies = tuple(Body(tuple(map(_with_unit, body.rows)), body.title) for body in table.bodies)
    return replace(table, bodies=bodies).fitting(_COLUMNS, _LETTERS, table.caption)


def _with_unit(row: Row) -> Row:
    first, *others = row.cells
    words = [first.note] if first.note else []
    words += ["%"] if others[-1].kind.unit == "%" else []
    text = f"{first.text} ({', '.join(words)})" if words else first.text
    return row._replace(cells=(Cell(text, first.kind), *others))


def method_grids(study: Comparison) -> list[Table]:
    """Return perplexities, a table per protocol: methods by kind of sparsity, models across.

    Parameters
    ----------
    study : Comparison
        See :func:`sparsity_report.combine` for several models.

    Returns
    -------
    list of Table
        A table of each protocol by which at least two prunings were scored.
    """
    if study.quality is None or study.quality.empty:
        return []
    entries = _entries(study)
    tables: list[Table] = []
    for scored in by_protocol(study.quality, ANY_TOKENIZER):
        scores = scored.drop_duplicates("variant")
        known = entries[entries["variant"].isin(scores["variant"])]
        if (known["kind"] != "").sum() >= 2:
            tables.append(_perplexities(known, scores, len(tables)))
    return tables


def _entries(study: Comparison) -> pd.DataFrame:
    """Return ``kind``, ``label``, ``model`` and ``variant`` of each place of a grid."""
    frame = study.facts.methods
    models = frame.drop_duplicates("fingerprint").set_index("fingerprint")["model"]
    names = dict(zip(models.index, distinct_names(list(models)), strict=True))
    rows = []
    for row in records(frame):
        kind = row["kind"] if pd.notna(row["kind"]) else percent(row["sparsity"], digits=0)
        has_policy = pd.notna(row["policy"])
        label = policy_name(row["policy"]) if has_policy else short_name(row["variant"])
        label = label[:1].upper() + label[1:] if has_policy else label
        if row["sparsity"] == 0 and not has_policy:
            kind, label = "", say("name.dense_baseline")
        rows.append((kind, label, names[row["fingerprint"]], row["variant"]))
    entries = pd.DataFrame(rows, columns=["kind", "label", "model", "variant"])
    # Two of one policy and sparsity have the names of their variants.
    repeated = entries.duplicated(["kind", "label", "model"], keep=False)
    return entries.assign(label=entries["label"].mask(repeated, entries["variant"].map(short_name)))


def _perplexities(entries: pd.DataFrame, scored: pd.DataFrame, place: int) -> Table:
    values = scored.set_index("variant")["perplexity"]
    values = values.astype(object).where(values.notna(), None)
    models = list(entries["model"].unique())
    heads = models if len(models) > 1 else [head("perplexity")]
    columns = [
        Column(model, text, kind_of("perplexity"), width=1)
        for model, text in zip(models, heads, strict=True)
    ]
    bodies = []
    for kind, rows in entries.groupby("kind", sort=False):
        scores: _Scores = {}
        for row in records(rows):
            scores.setdefault(row["label"], {})[row["model"]] = values[row["variant"]]
        bodies.append(_body(str(kind), columns, scores))
    first = records(scored)[0]
    caption = say(
        "caption.method_grid",
        metric=head("perplexity"),
        models=models,
        **{key: first[key] for key in ("window", "stride")},
        **{key: short_name(first[key]) for key in ("protocol", "text", "text_fingerprint")},
    )
    key = "perplexity_grid" + (f"_{place + 1}" if place else "")
    return Table(key, caption, (_method(), *columns), tuple(bodies))


def task_grid(study: Comparison) -> Table | None:
    """Return zero-shot accuracies by model, kind of sparsity and method.

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
    by_variant: _Scores = {}
    for row in records(known):
        by_variant.setdefault(row["variant"], {})[row["task"]] = row["value"]
    entries = _entries(study)
    entries = entries[entries["variant"].isin(by_variant)]
    if (entries["kind"] != "").sum() < 2:
        return None
    titles = {**SEVEN, "mean": say("column.mean")}
    columns = [Column(key, title, _PERCENT, width=1) for key, title in titles.items()]
    bodies = []
    for model, inside in entries.groupby("model", sort=False):
        for kind, rows in inside.groupby("kind", sort=False):
            title = say("format.model_kind", model=model, kind=kind) if kind else str(model)
            scores = {row["label"]: by_variant[row["variant"]] for row in records(rows)}
            title = title if entries["model"].nunique() > 1 else str(kind)
            bodies.append(_body(title, columns, scores))
    caption = _task_caption(entries, known, study.tasks)
    return Table("zero_shot_grid", caption, (_method(), *columns), tuple(bodies))


def _task_caption(entries: pd.DataFrame, known: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Return the content of a grid of tasks, and the largest standard errors."""
    shown = known[known["variant"].isin(entries["variant"])]
    errors, means = shown["stderr"], shown["task"] == "mean"
    key = "caption.standard_errors" if errors.notna().any() else "caption.no_standard_error"
    sentences = [
        say("caption.zero_shot_grid", models=list(entries["model"].unique())),
        say(key, error=errors[~means].max(), mean=errors[means].max()),
    ]
    if others := [title for task, title in SEVEN.items() if task not in one_version(tasks)]:
        sentences.append(say("caption.task_versions_differ", tasks=others))
    return " ".join(sentences)


def _method() -> Column:
    return Column("method", say("column.method_head"), cells.name(80), width=1.6)


def _body(title: str, columns: Sequence[Column], scores: _Scores) -> Body:
    """Return a row per label."""
    rows = []
    for label, row in scores.items():
        figures = (Cell(row.get(c.key), c.kind) for c in columns)
        rows.append(Row((Cell(label, cells.NAME), *figures)))
    return Body(tuple(rows), title)


def blocks(study: Comparison) -> Table | None:
    """Return zeros per block, policies side by side; None where they cannot differ."""
    rivals = study.facts.rivals
    if not rivals:
        return None
    shares = {v: study.facts.blocks(v).set_index("block")["sparsity"] for v in rivals}
    wide = pd.DataFrame(shares).rename_axis("block").sort_index()
    return wide_table("blocks", say("caption.zeros_per_block"), wide, cells.SHARE)
