"""Sections of a report: paragraphs, charts and tables in order, for every renderer.

``study_sections`` declares the sections once for each `Medium`. The HTML page, the PDF and the
thesis kit iterate over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from markupsafe import Markup

from sparsity_report.draw import export
from sparsity_report.draw.heat_map_svg import HeatMap
from sparsity_report.draw.vega_lite import VegaLite
from sparsity_report.report.tables.table_model import Table

#: The page has the background, so that one drawing serves the light and the dark theme.
TRANSPARENT = {"background": "transparent"}


#: Destination of sections: HTML, Markdown, a PDF or a thesis kit.
Medium: TypeAlias = Literal["page", "markdown", "paper", "kit"]


class _Content:
    """Content of a section; `kind` is its name in templates."""

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Text(_Content):
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Chart(_Content):
    """A chart with its alternative text, and the table of its data if no other table has them."""

    key: str
    caption: str
    alt: str
    drawn: Mapping[str, Any] | HeatMap
    table: Table | None

    @cached_property
    def picture(self) -> Markup:
        """The chart as SVG, drawn when a renderer first shows it."""
        if isinstance(self.drawn, HeatMap):
            return Markup(self.drawn.svg())
        return Markup(export.slim(export.svg(self.drawn, self.key)))


@dataclass(frozen=True)
class Drawing(_Content):
    """A figure of a thesis kit, drawn at any width.

    Attributes
    ----------
    file, command : str
        Stem of its files, and end of the LaTeX command of its caption.
    draw : callable
        Accepts ``width`` in points; returns None if there is nothing to draw.
    """

    file: str
    command: str
    draw: Callable[..., VegaLite | HeatMap | None]


@dataclass(frozen=True)
class Multiples(_Content):
    """Small charts side by side with a shared color bar."""

    charts: tuple[Chart, ...]
    colors: Chart
    caption: str


@dataclass(frozen=True)
class Bullets(_Content):
    """A list of sentences."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Viewer(_Content):
    """The interactive view of a payload, and the map in its place where scripts do not run."""

    payload: bytes
    still: Chart | None


@dataclass(frozen=True)
class Partial(_Content):
    """Content shown by the template ``sections/<name>.html.j2`` or ``typst/<name>.typ.j2``."""

    name: str
    values: Mapping[str, Any]


Block: TypeAlias = Text | Chart | Drawing | Multiples | Bullets | Viewer | Partial | Table


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes
    ----------
    key : str
        Anchor of the section, and name of a template that replaces the common one.
    title : str
    blocks : tuple of Block
    is_appendix : bool
        True for details at the end, folded on a page and left out of a PDF.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]
    is_appendix: bool = False

    @property
    def tables(self) -> list[Table]:
        """Tables of the section."""
        return [block for block in self.blocks if isinstance(block, Table)]


def chart_of(
    chart: VegaLite | HeatMap | None, table: Table | None, key: str = "", caption: str = ""
) -> Chart | None:
    """Return a drawn chart with its data; None without a chart.

    Key and caption are those of the table if not given.
    """
    if chart is None:
        return None
    if table is not None:
        key, caption = key or table.key, caption or table.caption
    if isinstance(chart, HeatMap):
        return Chart(key, caption, chart.alt, chart, table)
    spec = chart.to_dict() | TRANSPARENT
    spec["config"]["padding"] |= {"left": 0, "top": 0, "bottom": 0}
    return Chart(key, caption, spec["description"], spec, table)


def multiples(charts: Iterable[Chart], colors: HeatMap, key: str, caption: str) -> Multiples | None:
    """Return small charts side by side with the bar of their colors; None without a chart."""
    drawn = tuple(charts)
    bar = chart_of(colors, drawn[0].table, key) if drawn else None
    return None if bar is None else Multiples(drawn, bar, caption)
