"""The widgets of an explorer that have scripts in the page: its place there, and its chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import anywidget
import traitlets

from sparsity_report.draw.vega import bundle

_HERE = Path(__file__).parent
STYLE = (_HERE / "explorer.css").read_text(encoding="utf-8")


class Shell(anywidget.AnyWidget):
    """The place of an explorer in the page: its width, its keys, its style."""

    _esm = (_HERE / "shell.js").read_text(encoding="utf-8")
    _css = STYLE
    key = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    # Of further views of the same explorer, each of which draws for its own.
    widths: Any = traitlets.List().tag(sync=True)
    live = traitlets.Bool().tag(sync=True)


class Picture(alt.JupyterChart):
    """A JupyterChart that works offline, swaps data by name, and draws anew only for a new chart.

    The front end of its base keeps every view it has drawn listening, so that an explorer would
    slow down with every change of the metric.
    """

    _esm = ""
    data = traitlets.Dict().tag(sync=True)
    brushed = traitlets.Bool().tag(sync=True)
    further: Any = traitlets.List().tag(sync=True)
    # Columns and rows of the map in their order, and how it is walked.
    axes: Any = traitlets.List([[], []]).tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    # The alternative text, where it changes and the chart does not.
    described = traitlets.Unicode().tag(sync=True)
    # What the curve is called for those who go along it by keys.
    along = traitlets.Unicode().tag(sync=True)
    # The level, or as text the mark, that the curve was pulled to, and how often it was.
    pulled: Any = traitlets.List().tag(sync=True)

    def __init__(self) -> None:
        script = (_HERE / "explorer.js").read_text(encoding="utf-8")
        self._esm = bundle() + script
        super().__init__(None)  # type: ignore[arg-type]
