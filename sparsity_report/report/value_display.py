"""A study as text for ``repr``, and in a notebook cell as HTML without a script.

A cell has findings, a map of zeros and a small table. It shows only figures
that are already computed, and loads no chart library.
"""

import pandas as pd
from markupsafe import escape

from sparsity_report.draw.heat_map_svg import NAMESPACE, HeatMap, MapCell
from sparsity_report.draw.heat_maps import history_map
from sparsity_report.findings.first_screen import first_screen
from sparsity_report.findings.study_findings import study_findings
from sparsity_report.findings.verdict import verdict
from sparsity_report.report.tables import checkpoint_tables, study_tables
from sparsity_report.report.tables.html import to_html
from sparsity_report.report.tables.table_model import Table, table_of
from sparsity_report.report.template_files import template_text
from sparsity_report.study.derived.removed_strips import base_maps
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.heatmap_grid import Grid
from sparsity_report.study.schema import CHANGED, MATCHED, MEASURED, columns_of
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.sentences import say, some

# Most rows of a table and most sentences in a cell.
_ROWS, _SENTENCES = 20, 12
# Width of a map without cells, greatest widths of a cell and of a map, and greatest heights of a
# row and of all rows.
_NARROW, _WIDE, _WIDTH, _ROW, _TALLEST = 130, 24, 480, 16, 240


def describe(study: StudyFigures) -> str:
    """Return the text of a study in a few lines."""
    models, names = (list(study.variants[key].unique()) for key in ("model", "variant"))
    title = say(
        "repr.study_summary",
        models=[*map(short_name, models)],
        variants=some([*map(short_name, names)], 8),
        modules=study.layers["module_name"].nunique(),
    )
    optional = ("history", *MATCHED, *CHANGED, *MEASURED)
    measured = [name for name in optional if getattr(study, name) is not None]
    frames = ["layers", "groups", "totals", "storage", *measured]
    return "\n".join([title, verdict(study), say("repr.frame_names", frames=frames)])


def bundle(study: StudyFigures) -> dict[str, str]:
    """Return a study as HTML and text, by MIME type.

    Parameters
    ----------
    study : Study

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sorted(bundle(sr.compare(sr.dense(sr.load()))))
    ['text/html', 'text/plain']
    """
    return {"text/html": _html(study), "text/plain": describe(study)}


def _html(study: StudyFigures) -> str:
    maps, table = _pruned(study) if study.matches is None else _matched(study)
    head = first_screen(study)
    texts = [" · ".join(head["kicker"]), *map(str, head["all_lines"])]
    if study.matches is not None:
        findings = (each for each in study_findings(study) if each != head["verdict"])
        texts += [*findings][:_SENTENCES]
    lines = [f'<p class="verdict">{escape(head["verdict"])}</p>']
    lines += [f'<p class="soft">{escape(text)}</p>' for text in texts]
    parts = [*map(_figure, maps)]
    if table.rows:
        parts.append(f'<div class="wide">{to_html(table)}</div>')
    body = f'<div class="parts">{"".join(parts)}</div>' if parts else ""
    style = template_text("notebook/cell.css").partition("*/")[2].replace("\n", "")
    return f'<style>{style}</style><div class="sparsity-report">{"".join(lines)}{body}</div>'


def _pruned(study: StudyFigures) -> tuple[list[HeatMap], Table]:
    """Return the map of the headline's variant, and totals."""
    variant, ratio = study.facts.headline, study.facts.ratio
    grid, cells = study.facts.grid(variant), study.facts.cells(variant)
    title = say("cell.map_zero_share", variant=variant)
    maps = [] if cells.empty else [_map(title, grid, cells, "sparsity")]
    ratios = [ratio(name, "stored_bytes") for name in study.totals["variant"]]
    frame = study.totals.assign(ratio=pd.Series(ratios, dtype="float64"))
    base, packed = study.facts.baseline, study.facts.packings(study.facts.baseline)
    columns = columns_of(
        "variant sparsity_prunable sparsity_model stored_bytes ratio flops_per_token",
        ratio=say("column.ratio_to_file" if packed else "column.ratio_to_variant", variant=base),
        **study_tables.unpacked_labels(study),
    )
    more = len(frame) - _ROWS
    caption = say("format.count_more", count=more) if more > 0 else ""
    table = table_of("cell", caption, columns, frame.head(_ROWS))
    return maps, table


def _matched(study: StudyFigures) -> tuple[list[HeatMap], Table]:
    """Return maps of the base, and sizes; of a history, its map and the zeros by group."""
    if study.history is not None:
        drawn = history_map(study, _WIDTH)
        return [drawn] if drawn else [], checkpoint_tables.survival(study)
    maps = []
    if (maps_of_base := base_maps(study.facts.table("matches"))) is not None:
        for column in ("before", "after"):
            if maps_of_base[1][column].nunique() > 1:
                maps.append(_map(say(f"cell.base_map.{column}"), *maps_of_base, column))
    return maps, checkpoint_tables.changes(study)


def _map(title: str, grid: Grid, cells: pd.DataFrame, column: str) -> HeatMap:
    rows = cells[["block", "projection", column]].itertuples(index=False, name=None)
    return HeatMap(
        blocks=grid.blocks,
        names=grid.projections,
        cells=[MapCell(*row) for row in rows],
        width=min(_WIDTH, _NARROW + _WIDE * len(grid.blocks)),
        row=min(_ROW, _TALLEST / len(grid.projections)),
        alt=title,
        axis=say("chart.x_transformer_block"),
        legend=say("chart.zeros_label"),
    )


def _figure(shape: HeatMap) -> str:
    """Return a map as a figure with its title."""
    title = escape(shape.alt)
    drawn = shape.svg().replace(NAMESPACE, f'role="img" aria-label="{title}"', 1)
    return f'<figure style="width:{shape.width}px"><p class="soft">{title}</p>{drawn}</figure>'
