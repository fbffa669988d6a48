"""The section on where zeros are: maps of blocks, small maps, spread of layers, heads, experts."""

from collections.abc import Iterator
from functools import partial

from sparsity_report.draw import heat_maps
from sparsity_report.draw.spread_charts import blocks_chart, spread_chart
from sparsity_report.report import sections
from sparsity_report.report.sections import Block, Chart, Medium, Text, chart_of
from sparsity_report.report.tables import method_tables, study_tables
from sparsity_report.report.tables.latex import variant_commands
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.files.csv_files import variant_stems
from sparsity_report.words.sentences import say

_TOO_MANY = {"heads": "map.too_many_heads", "experts": "map.too_many_experts"}


def map_blocks(study: Comparison, medium: Medium) -> Iterator[Block | None]:
    """Yield the content of the section."""
    if medium.is_kit:
        yield from _kit_figures(study)
        return
    domain = domain_of(medium)
    if any(not study.facts.cells(variant).empty for variant in study.facts.prunings):
        yield Text(_map_note(study))
        yield from _small_maps(study, domain)
        yield chart_of(spread_chart(study), study_tables.spread(study))
        yield chart_of(blocks_chart(study), method_tables.blocks(study))
        yield _excess(study)
        yield from _heads_and_experts(study, medium)
    else:
        yield Text(say("page.map_empty"))
    if not medium.is_paper and (levels := study_tables.tenths(study)):
        yield sections.Fold(levels.caption, (levels,))


def domain_of(medium: Medium) -> tuple[float, float] | None:
    """Return the ends of the colors: all shares on a page; None on paper, where maps decide."""
    return None if medium.is_paper else (0.0, 1.0)


def headline_first(study: Comparison) -> list[str]:
    """Return the prunings, the one of the headline first."""
    return sorted(study.facts.prunings, key=lambda name: name != study.facts.pruning)


def first_map(study: Comparison, domain: tuple[float, float] | None) -> Chart | None:
    """Return the map of the headline's pruning, or else of the first that has one."""
    for variant in headline_first(study):
        if (chart := heat_maps.sparsity_map(study, variant, domain=domain)) is not None:
            table = study_tables.zeros_map(study, variant)
            return chart_of(chart, table, _key(study, variant))
    return None


def _kit_figures(study: Comparison) -> Iterator[Block]:
    """Yield a map per pruning, and the overlay of policies."""
    commands, stems = variant_commands(study), variant_stems(study)
    for variant in study.facts.prunings:
        draw = partial(heat_maps.sparsity_map, study, variant)
        yield sections.Drawing(f"map_{stems[variant]}", f"Map{commands[variant]}", draw)
    yield sections.Drawing("blocks", "Blocks", partial(blocks_chart, study))


def _small_maps(study: Comparison, domain: tuple[float, float] | None) -> Iterator[Block | None]:
    """Yield small maps of several prunings; those with equal shares in all cells as a sentence."""
    mapped = [v for v in study.side_by_side if not study.facts.cells(v).empty]
    if len(mapped) < 2:
        return
    maps: list[Chart] = []
    uniform: dict[str, list[str]] = {}
    for variant in mapped:
        if (share := heat_maps.even(study, variant)) is not None:
            uniform.setdefault(share, []).append(variant)
            continue
        key, table = f"small-{_key(study, variant)}", study_tables.zeros_map(study, variant)
        if chart := chart_of(heat_maps.small_map(study, variant, domain), table, key):
            maps.append(chart)
    if uniform:
        key = "map.uniform_zeros"
        yield Text(" ".join(say(key, variants=uniform[share], share=share) for share in uniform))
    large = next(variant for variant in headline_first(study) if variant in mapped)
    if len(maps) == 1 and heat_maps.even(study, large) is None:
        return  # the summary shows it already
    ends = domain or heat_maps.zeros_domain(study)
    colors, caption = heat_maps.colors(ends), say("caption.small_maps")
    yield sections.multiples(maps, colors, "map-colors", caption)


def _excess(study: Comparison) -> Chart | None:
    """Return the map of zeros minus expected ones of the first pruning that has one."""
    for variant in headline_first(study):
        if (chart := heat_maps.excess_map(study, variant)) is not None:
            return chart_of(chart, study_tables.excess_map(study, variant))
    return None


def _heads_and_experts(study: Comparison, medium: Medium) -> Iterator[Block | None]:
    """Yield maps of the headline's heads and experts, or that they are too many."""
    variant = next(iter(headline_first(study)), "")
    maps, undrawn = [], []
    for place, part in enumerate(study.facts.parts(variant) if variant else ()):
        table = study_tables.inside(variant, part)
        if chart := chart_of(heat_maps.part_map(part, variant), table, f"{part.key}{place}"):
            maps.append(chart)
        else:
            undrawn.append(Text(say(_TOO_MANY[part.key], number=len(part.rows))))
    if maps or undrawn:
        note = say("map.heads_experts_note", variant=variant)
        yield sections.Heading("inside", say("page.heads_experts_heading"))
        yield from undrawn
        yield Text(note) if maps and not medium.is_paper else None
        yield sections.multiples(maps, heat_maps.colors((0.0, 1.0)), "inside-colors", note)


def _map_note(study: Comparison) -> str:
    """Return the content of a cell, and the effect of a global threshold."""
    facts = study.facts
    layers = max((facts.cells(variant)["layers"].max() for variant in facts.prunings), default=1)
    methods = study.variants.set_index("variant")["method"].loc[list(facts.prunings)]
    key = "map.cell_many_matrices" if layers > 1 else "map.cell_one_matrix"
    note = say(key, layers=int(layers))
    if not methods.str.startswith("global_magnitude").any():
        return note
    return f"{say('map.global_threshold_note')} {note}"


def _key(study: Comparison, variant: str) -> str:
    return f"map{list(study.variants['variant']).index(variant)}"
