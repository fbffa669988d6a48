"""The explorers as a cell shows them: a box of widgets, or one anywidget where marimo runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import traitlets
from IPython.display import display

from sparsity_report.explorer.page_widgets import Picture
from sparsity_report.explorer.still_picture import Still
from sparsity_report.words.sentences import say

_HERE = Path(__file__).parent


def in_marimo() -> bool:
    """Return whether a notebook of marimo runs this."""
    marimo = sys.modules.get("marimo")
    return marimo is not None and bool(marimo.running_in_notebook())


def early_picture() -> Picture | None:
    """Return the picture where it must be made before it is looked at.

    marimo keeps the script of a widget with the cell that makes it; later no cell runs.
    """
    return Picture() if in_marimo() else None


def announce(explorer: Live) -> None:
    """Let cells of marimo that read the explorer run again."""
    if in_marimo():
        explorer.send({"changed": True})


class Live(widgets.VBox):  # type: ignore[misc]
    """A box of widgets that a cell shows, with a still picture for where no kernel answers.

    marimo takes a widget with ``_esm`` for an anywidget and draws it by that: the script draws
    the very widgets of the box, for whose models it asks.

    Attributes
    ----------
    seen : int
        How many changes the browser has told back; with that marimo's value has changed.
    lost : str
        What marimo shows where no kernel answers, as in a page that it has exported.
    """

    _esm = traitlets.Unicode((_HERE / "live.js").read_text(encoding="utf-8")).tag(sync=True)
    _css = traitlets.Unicode((_HERE / "live.css").read_text(encoding="utf-8")).tag(sync=True)
    seen = traitlets.Int().tag(sync=True)
    lost = traitlets.Unicode().tag(sync=True)
    _beside: Still

    if TYPE_CHECKING:

        def _still(self) -> dict[str, str]: ...

    @traitlets.default("lost")
    def _lost(self) -> str:
        return say("explorer.kernel_missing")

    def _ipython_display_(self, **_: Any) -> None:
        """Show the widget, and beside it the picture, which follows it."""
        display(self._live(), raw=True)  # type: ignore[no-untyped-call]
        self._beside.display()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget with its picture, for those who ask for one bundle."""
        return self._live() if in_marimo() else {**self._live(), **self._still()}

    def _live(self) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": view}
