"""Sections of a report on a study."""

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sparsity_report.draw import charts, theme
from sparsity_report.draw.measured_charts import CHARTS
from sparsity_report.draw.theme import FILED
from sparsity_report.draw.vega import unchecked
from sparsity_report.findings.study_findings import conventions
from sparsity_report.findings.verdict import verdict
from sparsity_report.hooks import hooks
from sparsity_report.report import sections, study_maps
from sparsity_report.report.sections import Block, Drawing, Fold, Heading, Medium, Section, Text
from sparsity_report.report.tables import method_tables, speed_tables, study_tables
from sparsity_report.report.tables.table_model import Table, plain_rows, to_columns
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.cards import Card
from sparsity_report.study.derived.protocol_scores import by_protocol
from sparsity_report.study.files.csv_files import csv_text, variant_stems
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.viewer.study_payload import packed_note, study_payload
from sparsity_report.words.display_names import head, layout_name
from sparsity_report.words.number_format import figures, percent, scaled, times
from sparsity_report.words.sentences import first, say

# Most rows of all variants' layers that a page holds as tables: 250 kB. It holds more as data.
_ROWS = 600
# Rows of all variants' layers from which a PDF has none; most of them in it; scores in a thesis.
_UNPRINTED, _PAPER_ROWS, _SCORES = 6_000, 3_000, 40
# Most letters of compressed CSV in a page.
_ENCLOSED = 2_000_000
# Variants from which a table of their groups replaces bars, and beside which scores have room.
_BARS, _SCORED = 6, 5
# Findings in sight, and unclassified modules in a list.
_IN_SIGHT, _UNCLASSIFIED = 3, 50

_CONVENTIONS = {"standard": "name.convention_standard", "notebook": "name.convention_notebook"}
_Measured = Sequence[Callable[[Comparison], Table | None]]
_QUALITY: _Measured = (
    study_tables.quality,
    study_tables.distance,
    study_tables.sensitivity,
    study_tables.continuations,
    study_tables.zero_shot,
    method_tables.task_grid,
    study_tables.tasks,
    study_tables.task_sources,
)
_SPEED: _Measured = (speed_tables.latency, speed_tables.crossover, speed_tables.speedups)
# Columns of tables in a thesis.
_COLUMNS = {
    "totals": {
        "kit": "sparsity_prunable sparsity_non_embedding sparsity_model stored_bytes "
        "flops_per_token"
    },
    "groups": {"kit": "modules total nonzero sparsity flops_per_token stored_bytes"},
    "storage": {"kit": "bytes ratio model_bytes break_even"},
}

_PERPLEXITY = ",.2f"
# Title and note of each card.
_CARDS = {
    "total": ("metric.parameters", "card.of_variant"),
    "prunable_total": ("card.prunable_weights", "card.of_variant"),
    "sparsity_prunable": ("metric.zeros", "card.of_prunable_variant"),
    "stored_bytes": ("metric.stored_bytes", "card.of_model_variant"),
    "perplexity": ("card.perplexity", "card.perplexity_variant_text"),
    "smallest": ("card.smallest_lossless_layout", "card.layout_prunable_to_dense"),
    "speed": ("label.times_as_fast", "card.speedup_interval"),
    "flops_per_token": ("metric.flops_per_token", "card.flops_ratio_counted"),
}
# Notes of cards where the baseline is packed.
_PACKED = {
    "total": "card.parameters_bits_per_weight",
    "stored_bytes": "card.model_bytes_ratio_unpacked",
    "smallest": "card.layout_prunable_to_unpacked",
}


@unchecked()
def study_document(study: Comparison, medium: Medium) -> dict[str, Any]:
    """Return the values that the templates of a study show, in the language in use."""
    models, findings = theme.model_names(study), hooks.sentences(study)
    levels = study.variants["asked_sparsity"].dropna().unique()
    names = ", ".join(map(short_name, study.variants["variant"]))
    return sections.document(
        study_sections(study, medium),
        models=models,
        names=[models],
        title=f"{models}: {names}",
        chips=_chips(study),
        levels=[say("format.level_share", share=share) for share in levels],
        verdict=str(verdict(study)),
        cards=study_cards(study),
        lead=study_maps.first_map(study, study_maps.domain_of(medium)),
        payload=None if medium.is_paper else study_payload(study),
        findings=findings[:_IN_SIGHT],
        further=findings[_IN_SIGHT:],
        variants=plain_rows(study.variants),
        totals=plain_rows(study.totals),
        groups=plain_rows(study.groups),
        audit=study.audit,
        conventions=[*map(str, conventions(study))],
        notes=[*map(str, study.notes)],
        fingerprint=study.fingerprint,
    )


@unchecked()
def study_sections(study: Comparison, medium: Medium) -> list[Section]:
    """Return the sections of a report on a study."""
    parts = sections.titled(
        {
            "compared": ("page.compared_heading", _compared(study, medium)),
            "map": ("page.map_heading", study_maps.map_blocks(study, medium)),
            "totals": ("page.sparsities_heading", _totals(study, medium)),
            "groups": ("page.groups_heading", _groups(study, medium)),
            "quality": ("page.quality_heading", _quality(study, medium)),
            "storage": ("page.storage_heading", _storage(study, medium)),
            "flops": ("page.speed_heading", _speed(study, medium)),
            "audit": ("page.audit_heading", _audit(study, medium)),
            "layers": ("page.layers_heading", _layers(study, medium)),
            "conventions": ("page.conventions_cite_heading", _conventions(study, medium)),
            "model": ("page.model_heading", _model(study, medium)),
        }
    )
    if not medium.is_paper:
        return parts
    appendix = [replace(part, is_appendix=True) for part in parts if part.key == "layers"]
    return [part for part in parts if part.key != "layers"] + appendix


def _compared(study: Comparison, medium: Medium) -> Iterator[Block]:
    table = method_tables.compared(study)
    if table is None:
        return
    if medium.is_kit:
        yield from _numbered(method_tables.side_by_side(study))
    elif medium.is_paper:
        yield from table.fitting(6, 60, say("caption.compared_continued"))
    else:
        yield table


def _totals(study: Comparison, medium: Medium) -> Iterator[Block]:
    table = study_tables.totals(study)
    if medium.is_kit:
        caption = say("thesis.totals_caption", models=theme.model_names(study))
        turned = replace(table.turned(head("variant")), caption=caption)
        yield turned.for_medium(_COLUMNS, medium.name)
        return
    yield Text(say("page.sparsities_intro"))
    if medium.is_paper:
        yield from table.fitting(4, 52, say("caption.totals_continued"))
    else:
        style = "roomy" if method_tables.compared(study) is None else "folded"
        yield Fold(table.caption, (table,), style)


def _bars(study: Comparison, metric: str, medium: Medium) -> Block | None:
    """Return the bars of a metric by group."""
    if medium.is_kit:
        commands = dict(zip(FILED, ("Sparsity", "Parameters", "Flops"), strict=True))
        draw = partial(charts.group_bars, study, metric)
        return Drawing(str(FILED[metric].file), commands[metric], draw)
    chart = charts.group_bars(study, metric, once=True)
    return sections.chart_of(chart, study_tables.comparison(study, metric))


def _groups(study: Comparison, medium: Medium) -> Iterator[Block | None]:
    figures, tables = study_tables.comparison(study, "sparsity"), study_tables.groups(study)
    number = len(study.variants)
    if medium.is_kit:
        caption = say("thesis.group_zeros_caption", models=theme.model_names(study))
        yield _bars(study, "sparsity", medium)
        yield replace(figures.turned(head("variant")), caption=caption)
        for variant, stem in variant_stems(study).items():
            table = study_tables.groups(study, variant).for_medium(_COLUMNS, medium.name)
            yield replace(table, key=f"groups_{stem}")
    elif number <= _BARS:
        yield _bars(study, "sparsity", medium)
    elif medium.is_paper:
        yield from figures.fitting(8, 60, figures.caption)
        yield Text(say("page.html_groups_note"))
    else:
        yield figures
    if medium.name == "page" and number > 3:
        yield Fold(say("page.groups_all_variants"), (tables,))
    elif medium.name == "page" or (medium.is_paper and number <= _BARS):
        yield sections.folded_or_all(tables.caption, tables, medium.is_paper, "roomy")


def _measured(study: Comparison, tables: _Measured, medium: Medium) -> Iterator[Block | None]:
    """Yield charts and tables of measurements; a page has the table below its chart."""
    for make in tables:
        if (table := make(study)) is None:
            continue
        draw = CHARTS.get(table.key)
        chart = sections.chart_of(draw(study), table) if draw else None
        yield chart
        yield table if medium.is_paper or chart is None else None
        if table.key == "quality" and not _is_all_compared(study):
            yield from method_tables.method_grids(study)


def _kit_figures(study: Comparison, *names: str) -> Iterator[Drawing]:
    for name in names:
        yield Drawing(name, name.capitalize(), partial(CHARTS[name], study))


def _is_all_compared(study: Comparison) -> bool:
    """Tell whether the comparison of policies has every perplexity already."""
    compared = study.compared
    if study.quality is None or compared is None:
        return False
    shown = {v for f in compared.figures if f.key == "perplexity" for v in f.values}
    protocols = list(by_protocol(study.quality))
    scored = study.quality["variant"]
    return len(protocols) == 1 and shown.issuperset(scored[scored.isin(study.variants["variant"])])


def _quality(study: Comparison, medium: Medium) -> Iterator[Block | None]:
    if not medium.is_kit:
        yield from _measured(study, _QUALITY, medium)
        return
    yield from _kit_figures(study, "quality", "distance", "sensitivity")
    for make in (study_tables.quality, study_tables.distance, study_tables.continuations):
        yield make(study)
    if scores := study_tables.zero_shot(study):
        yield from _numbered(scores.turned(head("task")).parts(_SCORED, scores.caption))
    tasks = study_tables.tasks(study)
    yield tasks if tasks and len(tasks.rows) <= _SCORES else None
    yield from method_tables.method_grids(study)
    yield method_tables.task_grid(study)


def _storage(study: Comparison, medium: Medium) -> Iterator[Block | None]:
    prunings = study_maps.headline_first(study)
    tables = [study_tables.storage(study, variant) for variant in prunings]
    if medium.is_kit:
        stems = variant_stems(study)
        yield Drawing("csr_bytes", "Bytes", partial(charts.csr_bytes_curve, study))
        for variant in study.facts.prunings:
            table = study_tables.storage(study, variant).for_medium(_COLUMNS, medium.name)
            yield replace(table, key=f"storage_{stems[variant]}")
        return
    if (curve := charts.csr_bytes_curve(study)) is None:
        yield Text(say("page.storage_empty"))
    else:
        chart = sections.chart_of(curve, study_tables.curve(study))
        packed = packed_note(study)
        yield Text(say("page.storage_note"))
        yield Text(packed) if packed else None
        yield chart
        yield chart.table if chart and medium.is_paper else None
    if medium.is_paper:
        yield from tables[:1]
        yield Text(say("page.html_layouts_note")) if tables[1:] else None
    elif tables:
        yield study_tables.useful(study, prunings[0])
        yield Fold(say("page.all_layouts_of", variants=prunings), tuple(tables))
    if tables:
        yield Text(say("page.break_even_note"), "note")


def _speed(study: Comparison, medium: Medium) -> Iterator[Block | None]:
    if medium.is_kit:
        yield _bars(study, "flops_per_token", medium)
        yield from _kit_figures(study, "speed", "crossover")
        yield speed_tables.speedups(study)
        return
    yield Text(say("page.flops_note"))
    yield _bars(study, "flops_per_token", medium)
    if speeds := [*_measured(study, _SPEED, medium)]:
        yield Heading("speed", say("page.measured_here_heading"))
        yield from speeds
    if study.facts.prunings:
        table = study_tables.published()
        summary = say("page.published_kernels_summary", count=len(table.rows))
        yield Heading("elsewhere", say("page.measured_elsewhere_heading"))
        yield sections.folded_or_all(summary, table, medium.is_paper)


def _audit(study: Comparison, medium: Medium) -> Iterator[Block | None]:
    prunings = study_maps.headline_first(study)
    extremes = [e for v in prunings if (e := study_tables.extremes(study, v, medium.top))]
    if medium.is_kit:
        stems = variant_stems(study)
        for variant in study.facts.prunings:
            for table in study_tables.extremes(study, variant, medium.top) or ():
                yield replace(table, key=f"{table.key}_{stems[variant]}")
        return
    unusual = [matrices for v in prunings if (matrices := study_tables.unusual(study, v))]
    yield Text(say("page.audit_intro"))
    yield from map(Text, study.audit or [say("page.audit_nothing")])
    yield from unusual[:1]
    for pair in extremes[:1]:
        beside, summary = sections.Beside(pair), say("page.extremes_summary")
        yield sections.folded_or_all(summary, beside, medium.is_paper, "roomy")
    further: tuple[Block, ...] = (*unusual[1:], *map(sections.Beside, extremes[1:]))
    if further and medium.is_paper:
        yield Text(say("page.html_audit_note"))
    elif further:
        yield Fold(say("page.audit_other_variants"), further)
    if names := [clip(name, 200) for name in study.unclassified]:
        yield Heading("unclassified", say("page.unclassified_heading"))
        yield Text(say("page.unclassified_intro"))
        yield sections.Bullets(tuple(first(names, _UNCLASSIFIED)), are_names=True)


def _layers(study: Comparison, medium: Medium) -> Iterator[Block]:
    if medium.name == "page":
        values = {"rows": _csv_rows(study), "layers": [*_layer_tables(study)]}
        yield sections.Partial("layer_rows", values)
    if not medium.is_paper:
        return
    if len(study.layers) > _UNPRINTED:
        yield Text(say("page.html_layers_only_note"))
        return
    variants = list(study.variants["variant"])
    most = _PAPER_ROWS // len(variants)
    tables = [study_tables.layers(study, variant) for variant in variants]
    # A comparison of policies lists the modules once, with the zeros of each policy beside them.
    compared = study_tables.modules_compared(study)
    if max(len(table.rows) for table in tables) > most:
        yield Text(say("page.html_layers_note"))
    for variant, table in zip(variants[:1] if compared else variants, tables, strict=False):
        number = len(table.rows)
        first = say("caption.modules_first", shown=most, number=number, variant=variant)
        yield table if number <= most else table.with_rows(table.rows[:most], first)
    if compared and len(compared.rows) <= most:
        continued = say("caption.modules_compared_continued")
        yield from compared.fitting(10, 90, continued)


def _layer_tables(study: Comparison) -> Iterator[dict[str, Any]]:
    """Yield a table per variant; of many rows as data, without columns of the first variant."""
    first: dict[str, list[str]] = {}
    for variant in study.variants["variant"]:
        table = study_tables.layers(study, variant)
        part = {"variant": variant, "modules": len(table.rows), "table": table, "data": None}
        if len(study.layers) > _ROWS:
            columns = to_columns(table)
            data = {key: texts for key, texts in columns.items() if texts != first.get(key)}
            first = first or columns
            text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
            part |= {"table": table.with_rows([]), "data": _packed(text)}
        yield part


def _csv_rows(study: Comparison) -> str | None:
    """Return all layers as compressed CSV in Base64; None if that is too long for a page."""
    letters = _packed(csv_text(study.layers))
    return letters if len(letters) <= _ENCLOSED else None


def _packed(text: str) -> str:
    """Return text compressed, in Base64."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _conventions(study: Comparison, medium: Medium) -> Iterator[Block]:
    if medium.is_kit:
        return
    bullets = sections.Bullets(tuple(map(str, conventions(study))))
    title = say("page.counting_conventions")
    yield sections.folded_or_all(title, bullets, medium.is_paper, "roomy")
    yield Heading("cite", say("page.cite_heading"))
    yield Text(say("page.cite_intro"))
    citation = say(
        "page.citation",
        models=clip(theme.model_names(study), 120),
        convention=say(_CONVENTIONS[study.convention]),
        study=study.fingerprint,
        weights=", ".join(study.variants["fingerprint"].unique()),
    )
    yield sections.Partial("citation", {"text": citation})


def _model(study: Comparison, medium: Medium) -> Iterator[Block | None]:
    if not medium.is_kit:
        yield study_tables.models(study)
        yield study_tables.variants(study)
        for note in map(str, study.notes):
            yield Text(f"{note[:1].upper()}{note[1:]}.")
        yield Text(say("page.fingerprint_note"))
        yield Text(say("page.pruning_shapes_note"))
    yield _bars(study, "param_frac", medium)


def _numbered(tables: Iterable[Table]) -> Iterator[Table]:
    """Yield tables of one key, those after the first with their place in it."""
    for place, table in enumerate(tables, 1):
        yield table if place == 1 else replace(table, key=f"{table.key}_{place}")


def _chips(study: Comparison) -> list[tuple[str, str, str]]:
    """Return each variant with its outline and fill, compared ones in the order of their table."""
    inks, compared = theme.palette(study), study.compared
    ordered = [] if compared is None else list(compared.variants)
    places = iter(ordered)
    names = (next(places) if name in ordered else name for name in inks)
    return [(name, *inks[name]) for name in names]


def study_cards(study: Comparison) -> list[dict[str, str]]:
    """Return each large number with its title and its note: denominator and variant."""
    return [
        sections.card(say(_CARDS[c.key][0]), _card_number(c), _card_note(study, c))
        for c in study.cards
    ]


def _card_number(shown: Card) -> str:
    if shown.key == "speed" and shown.value is None:
        return say("card.speed_no_difference")
    if shown.key == "perplexity":
        return figures(shown.value, _PERPLEXITY)
    if shown.against or shown.key == "smallest":
        return times(shown.value)
    if shown.key.startswith("sparsity"):
        return percent(shown.value)
    return scaled(shown.value, "B" if shown.key == "stored_bytes" else "")


def _card_note(study: Comparison, shown: Card) -> str:
    facts, values = study.facts, dict(shown.more)
    note = _CARDS[shown.key][1]
    dtypes = facts.unpacked_dtypes(facts.baseline) if shown.key in _PACKED else None
    if shown.key == "stored_bytes" and shown.against:
        note = _PACKED[shown.key] if dtypes else "card.model_bytes_ratio"
    elif dtypes and shown.key != "stored_bytes":
        note = _PACKED[shown.key]
    elif values.get("before") is not None:
        note = "card.perplexity_before"
    if shown.key == "smallest":
        values["layout"] = layout_name(values["layout"])
    elif shown.key == "speed":
        values["tokens"] = say("format.token_count", tokens=int(values["tokens"]))
    elif shown.key == "perplexity":
        values["text"] = short_name(values["text"])
        values["before"] = figures(values.get("before"), _PERPLEXITY)
    return say(
        note,
        variant=shown.variant,
        against=shown.against or facts.baseline,
        dtypes=dtypes,
        bits=facts.bits_per_weight(shown.variant) if dtypes else None,
        **values,
    )
