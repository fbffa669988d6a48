"""Figures of a paper: any width and font, as PDF and SVG, and PNG of a study."""

import html
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from sparsity_report.draw import export
from sparsity_report.draw.charts import csr_bytes_curve, timeline_chart
from sparsity_report.draw.heat_map_svg import HeatMap
from sparsity_report.draw.heat_maps import history_map, sparsity_map
from sparsity_report.draw.measured_charts import CHARTS
from sparsity_report.draw.vega_lite import VegaLite
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.files.csv_files import variant_stems
from sparsity_report.study.files.study_sources import StudySource, study_or_saved

# Title and note of a chart, and the chart without them.
_Figure: TypeAlias = "tuple[str, str, Mapping[str, Any] | HeatMap]"
_GENERIC = {"serif", "sans-serif", "monospace", "cursive", "fantasy", "system-ui"}


def write_figures(study: StudySource, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the charts of a study as PNG files at twice their size in print.

    The files are ``sparsity_map_<variant>.png`` per pruning; ``csr_bytes.png``; and ``speed.png``,
    ``quality.png`` and ``sensitivity.png`` of the measurements; and ``timeline.png`` and
    ``history_map.png`` of zeros over training. A chart in which everything is
    equal is left out.

    Parameters
    ----------
    study : Study, Explorer or path-like
        Study to draw, its explorer, or the path of a saved one.
    folder : path-like
        Folder of the files; created if missing.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    SparsityReportError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in sr.write_figures(study, folder)]
    ['csr_bytes.png']
    """
    figures: StudyFigures = study_or_saved("write_figures", study)
    stems = variant_stems(figures)
    drawn: dict[str, VegaLite | HeatMap | None] = {
        f"sparsity_map_{stems[variant]}": sparsity_map(figures, variant)
        for variant in figures.facts.prunings
    }
    drawn["csr_bytes"] = csr_bytes_curve(figures)
    drawn |= {name: draw(figures) for name, draw in CHARTS.items()}
    drawn |= {"timeline": timeline_chart(figures), "history_map": history_map(figures)}
    folder = Path(folder)
    return [
        write_file(folder / f"{name}.png", export.png(chart))
        for name, chart in drawn.items()
        if chart is not None
    ]


def figure_of(chart: VegaLite | HeatMap, family: str | None) -> _Figure:
    """Return title, note and chart of a figure, in a font family; the caption has the first two."""
    if isinstance(chart, HeatMap):
        plain = replace(chart, title="", note="", font=family or chart.font)
        return chart.title, chart.note, plain
    spec = chart.to_dict()
    title = spec.pop("title")
    if family:
        spec["config"]["font"] = family
    return title["text"], " ".join(title.get("subtitle", ())), spec


def files_of(chart: Mapping[str, Any] | HeatMap) -> dict[str, str | bytes]:
    """Draw a chart as SVG, and convert it to PDF."""
    svg = export.svg(chart)
    # The size in points holds in LaTeX and browsers, too.
    sized = re.sub(r'(<svg[^>]*? width="[\d.]+)(" height="[\d.]+)', r"\1pt\2pt", svg, count=1)
    return {"pdf": export.pdf(svg), "svg": sized}


def font_family(font: str | None) -> str | None:
    """Return a list of font families that ends in a generic one, so that no text disappears."""
    if font is None:
        return None
    names = [name.strip().strip("'\"") for name in font.split(",")]
    named = [name for name in names if name and name not in _GENERIC]
    if named == names and not any(map(_installed, named)):
        raise SparsityReportError(
            f"font: {font!r} is not installed; install it, name another one, or add a generic "
            f"family: {font + ', serif'!r}"
        )
    generic = [name for name in names if name in _GENERIC] or ["sans-serif"]
    return ", ".join([*(f"'{name}'" for name in named), *generic])


def _installed(name: str) -> bool:
    """Return whether a PDF of text in this family only embeds a font."""
    text = f'<text y="9" font-family="{html.escape(repr(name))}">Hg</text>'
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{text}</svg>'
    return b"/Font" in export.pdf(drawn)
