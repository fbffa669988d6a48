"""Widgets of an explorer with scripts in the page: its place in the page, and its chart."""

from pathlib import Path
from typing import Any

import altair as alt
import anywidget
import traitlets

from sparsity_report.draw.vega import bundle

_HERE = Path(__file__).parent
STYLE = (_HERE / "explorer.css").read_text(encoding="utf-8")


class Shell(anywidget.AnyWidget):
    """The place of an explorer in the page, with its width, its keys and its style."""

    _esm = (_HERE / "shell.js").read_text(encoding="utf-8")
    _css = STYLE
    key = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    # Widths of further views of the same explorer.
    widths: Any = traitlets.List().tag(sync=True)
    live = traitlets.Bool().tag(sync=True)


class Picture(alt.JupyterChart):
    """A JupyterChart that works offline, swaps data by name, and compiles only new charts.

    The script of its base class keeps every drawn view alive, which slows down an explorer.
    """

    _esm = ""
    data = traitlets.Dict().tag(sync=True)
    brushed = traitlets.Bool().tag(sync=True)
    further: Any = traitlets.List().tag(sync=True)
    # Columns and rows of the map, and the help for its keys.
    axes: Any = traitlets.List([[], []]).tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    # Alternative text, which may change without the chart.
    described = traitlets.Unicode().tag(sync=True)
    # Help for the keys of the curve.
    along = traitlets.Unicode().tag(sync=True)
    # The level, or as text the mark, to which the curve was pulled, and the number of pulls.
    pulled: Any = traitlets.List().tag(sync=True)

    def __init__(self) -> None:
        script = (_HERE / "explorer.js").read_text(encoding="utf-8")
        self._esm = bundle() + script
        super().__init__(None)  # type: ignore[arg-type]
