"""Where zeros landed, in pictures: maps side by side, how unevenly, what was not expected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sparsity_report.draw import charts
from sparsity_report.draw.gaussian_excess import excess_map
from sparsity_report.draw.heads_experts_map import inside_charts
from sparsity_report.draw.layer_strips import spread_chart
from sparsity_report.draw.policy_overlay import blocks_chart
from sparsity_report.draw.small_multiples import colours, even, small_map
from sparsity_report.report.page_figures import Figure, figure_of
from sparsity_report.report.tables import method_tables, study_tables
from sparsity_report.study.comparison import Comparison
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.sentences import say


class Multiples(NamedTuple):
    """Maps of several prunings, and the colours that they share.

    Attributes
    ----------
    figures : list of Figure
        Of prunings whose cells are not all alike.
    colours : Figure or None
        None where there is no map.
    even : str
        Which prunings have the same share of zeros in every cell, so that a map says nothing.
    """

    figures: list[Figure]
    colours: Figure | None
    even: str = ""


class Pictures(NamedTuple):
    """Further pictures of a study's zeros, those of one pruning of the headline's.

    Attributes
    ----------
    spread, blocks, excess : Figure or None
    inside : list of Figure
        Heads by projection, experts, small.
    inside_note : str
        What they show.
    inside_colours : Figure or None
    untold : list of str
        What has too many parts to be drawn.
    """

    spread: Figure | None
    blocks: Figure | None
    excess: Figure | None
    inside: list[Figure]
    inside_note: str
    inside_colours: Figure | None
    untold: list[str]


def first_map(study: Comparison, domain: tuple[float, float] | None) -> Figure | None:
    """Return the map of the pruning that first sentences speak of, else of the first that has one.

    Parameters
    ----------
    study : Comparison
    domain : tuple of float or None
        Ends of the colours; None from the least to the most that maps show.
    """
    for variant in _headline_first(study):
        if (chart := charts.sparsity_map(study, variant, domain=domain)) is not None:
            return figure_of(chart, study_tables.zeros_map(study, variant), _key(study, variant))
    return None


def multiples(study: Comparison, domain: tuple[float, float] | None) -> Multiples | None:
    """Return a small map of each of several prunings; None of fewer than two, see `first_map`."""
    mapped = [v for v in study.facts.side_by_side if not study.facts.cells(v).empty]
    if len(mapped) < 2:
        return None
    figures: list[Figure] = []
    alike: dict[str, list[str]] = {}
    for variant in mapped:
        if (share := even(study, variant)) is not None:
            alike.setdefault(share, []).append(variant)
        elif (chart := small_map(study, variant, domain)) is not None:
            key = f"small-{_key(study, variant)}"
            figures.append(figure_of(chart, study_tables.zeros_map(study, variant), key))
    large = next(variant for variant in _headline_first(study) if variant in mapped)
    if len(figures) == 1 and even(study, large) is None:
        figures = []  # it stands large already
    bar = colours(domain or charts.zeros_domain(study)) if figures else None
    said = [say("map.uniform_zeros", variants=names, share=share) for share, names in alike.items()]
    return Multiples(
        figures,
        None if bar is None else figure_of(bar, figures[0].table, "map-colours"),
        " ".join(said),
    )


def pictures(study: Comparison) -> Pictures:
    """Return what else is to be seen of the zeros, as far as it is known."""
    spread, blocks = spread_chart(study), blocks_chart(study)
    by_block = method_tables.blocks(study)
    inside, untold = [], []
    for part in _inside(study):
        if isinstance(part, Figure):
            inside.append(part)
        else:
            untold.append(part)
    return Pictures(
        None if spread is None else figure_of(spread, study_tables.spread(study)),
        None if blocks is None or by_block is None else figure_of(blocks, by_block),
        _excess(study),
        inside,
        say("map.heads_experts_note", variant=short_name(_headline(study) or "")),
        figure_of(colours((0.0, 1.0)), inside[0].table, "inside-colours") if inside else None,
        untold,
    )


def _excess(study: Comparison) -> Figure | None:
    """Return the map of zeros minus expected ones of the first pruning that has one."""
    for variant in _headline_first(study):
        if (chart := excess_map(study, variant)) is not None:
            return figure_of(chart, study_tables.excess_map(study, variant))
    return None


def _inside(study: Comparison) -> Iterator[Figure | str]:
    """Yield maps of heads and experts of the headline's zeros, or that they are too many."""
    variant = _headline(study)
    many = {"heads": "map.too_many_heads", "experts": "map.too_many_experts"}
    for place, part in enumerate(inside_charts(study, variant) if variant else ()):
        if part.chart is None:
            yield say(many[part.key], number=len(part.rows))
        else:
            table = study_tables.inside(variant or "", part.key, part.projection, part.rows)
            yield figure_of(part.chart, table, f"{part.key}{place}")


def _headline(study: Comparison) -> str | None:
    """Name the pruning whose insides are shown."""
    return study.facts.pruning or (*study.facts.prunings, None)[0]


def _headline_first(study: Comparison) -> list[str]:
    """Return the prunings, first the one that first sentences speak of."""
    return sorted(study.facts.prunings, key=lambda name: name != study.facts.pruning)


def _key(study: Comparison, variant: str) -> str:
    return f"map{list(study.variants['variant']).index(variant)}"
