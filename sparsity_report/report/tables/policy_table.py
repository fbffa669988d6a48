"""The comparison of policies: a column per variant, the best of each row in bold."""

from dataclasses import replace
from typing import Any

from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.table_model import Body, Cell, Column, Kind, Row, Table, kind_of
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.policy_comparison import Compared
from sparsity_report.untrusted.display_text import distinct_names, short_name
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.number_format import THIN, UNKNOWN, percent
from sparsity_report.words.sentences import say


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
    caption = say("caption.compared_same_sparsity" if shown.contests else "caption.compared")
    if any(figure.guesses for figure in shown.figures):
        caption = f"{caption} {say('caption.compared_scores_distinguished')}"
    return Table("compared", caption, tuple(columns), (Body(rows),), "compared")


def _row(study: Comparison, figure: Compared, names: list[str]) -> Row:
    title, note, kind = _ROWS[figure.key]
    facts = study.facts
    scope = figure.subject
    if figure.key == "layout":
        scope = layout_name(scope)
    elif figure.key == "realised":
        scope = say("format.token_count", tokens=int(scope))
    values = {
        "of": short_name(scope),
        "base": short_name(facts.baseline),
        "speed_base": short_name(facts.speed_base) if figure.key == "realised" else "",
    }
    shown = [Cell(say(title, **values), cells.WORDS, say(note, **values) if note else "")]
    for name in names:
        value: Any = figure.values[name]
        below = ""
        if figure.key == "smallest" and value is not None:
            value, layout = value
            below = layout_name(layout)
        shown.append(Cell(value, kind, below, name in figure.best))
    return Row(tuple(shown), "part" if figure.key == "layout" else "")


def side_by_side(study: Comparison) -> list[Table]:
    """Return the table of :func:`compared` for LaTeX: units in row heads, and few columns."""
    table = compared(study)
    if table is None:
        return []
    bodies = tuple(Body(tuple(map(_with_unit, body.rows)), body.title) for body in table.bodies)
    longest = max(len(column.head) for column in table.columns)
    columns = max(1, min(_COLUMNS, _LETTERS // longest))
    return replace(table, bodies=bodies).parts(columns, table.caption)


def _with_unit(row: Row) -> Row:
    first, *others = row.cells
    words = [first.note] if first.note else []
    words += ["%"] if others[-1].kind.unit == "%" else []
    text = f"{first.text} ({', '.join(words)})" if words else first.text
    return row._replace(cells=(Cell(text, first.kind), *others))
