"""The explorer of any value: a picture, a heading and a layer as one widget, and a still picture.

A notebook shows the box of ipywidgets. In marimo the same object is an anywidget whose script
draws the widgets of the box.
"""

import difflib
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import anywidget
import ipywidgets as widgets
import traitlets
from IPython.display import display
from markupsafe import Markup

from sparsity_report.draw.vega import bundle
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer import still_picture
from sparsity_report.explorer.picture import Data, Spec, filled, with_data
from sparsity_report.explorer.still_picture import Still
from sparsity_report.hooks import hooks
from sparsity_report.report.tables.table_model import Table
from sparsity_report.report.templates import environment
from sparsity_report.words.languages import speaking, spoken
from sparsity_report.words.sentences import say

Choices = list[tuple[str, str]]
_HERE = Path(__file__).parent
_STYLE = (_HERE / "explorer.css").read_text(encoding="utf-8")
# Narrowest picture, in pixels.
NARROWEST = 320


def in_own_language(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of an explorer that runs in the language in which the explorer was made."""

    @wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        with speaking(self.language):
            return method(self, *args, **options)

    return call


def in_marimo() -> bool:
    """Return whether the code runs in a marimo notebook."""
    marimo = sys.modules.get("marimo")
    return marimo is not None and bool(marimo.running_in_notebook())


class Shown(NamedTuple):
    """A label of the value in view: a level or a variant, and its extent."""

    live: bool
    kind: str
    text: str
    part: str


class Subject(NamedTuple):
    """The study or pair of an explorer, with the title and the table above its controls."""

    value: Any
    title: str
    totals: Table


class StillParts(NamedTuple):
    """Contents of a still picture.

    Attributes
    ----------
    spec : dict
        The chart without its data.
    data : dict
    alt : str
        Its alternative text.
    slider : dict or None
        Slider of the page to which a notebook is exported.
    packed : str or None
        The slider's chart, compressed.
    below : str
        HTML below the picture.
    """

    spec: Spec
    data: Data
    alt: str
    slider: Any = None
    packed: str | None = None
    below: str = ""


class Shell(anywidget.AnyWidget):
    """The place of an explorer in the page, with its width, its keys and its style."""

    _esm = (_HERE / "shell.js").read_text(encoding="utf-8")
    _css = _STYLE
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


class BaseExplorer(widgets.VBox):  # type: ignore[misc]
    """A box of widgets that a notebook cell shows, followed by a still picture.

    A subclass defines ``_refresh``, ``_heard``, ``_subject``, ``_label`` and ``_still_parts``.

    Attributes
    ----------
    chart : altair chart
        The picture with its data, ready for ``.save``.
    changes_seen : int
        Number of changes that the browser has reported; marimo's value changes with it.
    lost : str
        Text that marimo shows without a kernel, for example in an exported page.
    """

    _esm = traitlets.Unicode((_HERE / "live.js").read_text(encoding="utf-8")).tag(sync=True)
    _css = traitlets.Unicode((_HERE / "live.css").read_text(encoding="utf-8")).tag(sync=True)
    changes_seen = traitlets.Int().tag(sync=True)
    lost = traitlets.Unicode().tag(sync=True)
    chart = traitlets.Any(read_only=True)

    def __init__(self, **traits: Any) -> None:
        self.language = spoken()
        self._quiet = False
        self._width = still_picture.WIDTH
        self._parts: Any = environment().get_template("explorer.html.j2").module
        self._shell = Shell(key=format(id(self), "x"))
        self._still_display = Still(self._still, self._shell.key)
        self._picture: Picture | None = None
        # marimo keeps the script of a widget with the cell that makes it; later no cell runs.
        self._early_picture = Picture() if in_marimo() else None
        self._head, self._shown, self._detail = (widgets.HTML() for _ in range(3))
        self._shown.add_class("sx-state")
        self._place = widgets.Box()
        self._place.add_class("sx-chart")
        super().__init__(**traits)
        self.add_class("sparsity-explorer")
        self._shell.observe(self._measured, ["width", "widths"])

    @traitlets.default("lost")
    def _default_lost(self) -> str:
        return say("explorer.kernel_missing")

    # Subclasses define these.

    @abstractmethod
    def _refresh(self) -> None:
        """Show the state of the traits."""

    @abstractmethod
    def _heard(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        """Act on a message from the browser."""

    @abstractmethod
    def _subject(self) -> Subject:
        """Return the value, its title and its totals."""

    @abstractmethod
    def _label(self) -> Shown:
        """Return the label of the value in view."""

    @abstractmethod
    def _still_parts(self) -> StillParts:
        """Return the contents of the still picture."""

    # Both share these.

    def _heading(self) -> Any:
        """Return the HTML above the controls."""
        value, title, totals = self._subject()
        return self._parts.head(title, hooks.sentences(value), totals)

    @contextmanager
    def _silently(self) -> Iterator[None]:
        """Set traits without a refresh."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _draw(self, spec: Spec, data: Data, alt: str, **traits: Any) -> None:
        """Show a picture and update the label and the still picture."""
        self.set_trait("chart", filled({**spec, "description": alt}, data))
        self._shown.value = str(self._parts.state(self._label()))
        if self._picture is None:
            return
        with self._picture.hold_sync():
            for name, value in {"data": data, "described": alt, **traits, "spec": spec}.items():
                setattr(self._picture, name, value)
        self._still_display.follow()

    def _announce(self) -> None:
        """Run the cells of marimo again that read the explorer."""
        if in_marimo():
            self.send({"changed": True})

    @in_own_language
    def _measured(self, change: Any) -> None:
        """Draw for the width of the page; before it is known nothing is drawn."""
        if change["name"] == "width":
            self._width = max(NARROWEST, change["new"])
        elif self._picture is None:
            return
        opened = self._picture is not None
        if not opened:
            self._open(self._early_picture or Picture())
        self._refresh()
        if not opened:
            self._place.children = [self._picture]
            self._shell.live = True

    def _open(self, picture: Picture) -> None:
        """Connect the picture of the page."""
        self._picture = picture
        picture.on_msg(self._heard)
        self._head.value = str(self._heading())

    @in_own_language
    def _still(self) -> dict[str, str]:
        """Return the still picture by MIME type."""
        parts = self._still_parts()
        drawn = still_picture.picture(with_data(parts.spec, parts.data))
        top = (self._shell.key, Markup(_STYLE), self._heading(), self._parts.state(self._label()))
        page = self._parts.still(*top, parts.alt, drawn, parts.slider, parts.packed)
        text = "\n".join(hooks.sentences(self._subject().value))
        return {"text/html": f"{page}{parts.below}", "text/plain": text}

    def _ipython_display_(self, **_: Any) -> None:
        """Show the widget and the still picture, which follows it."""
        display(self._view_bundle(), raw=True)  # type: ignore[no-untyped-call]
        self._still_display.display()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget with its still picture as one bundle."""
        return self._view_bundle() if in_marimo() else {**self._view_bundle(), **self._still()}

    def _view_bundle(self) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": view}


def linked_menus(
    explorer: Any, labels: Mapping[str, str], choices: Callable[[str], Choices]
) -> dict[str, Any]:
    """Return menus linked to traits, by the name of the trait.

    Parameters
    ----------
    explorer : BaseExplorer
    labels : mapping of str to str
        Label of each menu, by the name of its trait.
    choices : callable
        Return what the menu of a trait offers: text, and the value of the trait.
    """
    menus = {}
    for name, label in labels.items():
        value, options = getattr(explorer, name) or None, choices(name)
        menus[name] = widgets.Dropdown(options=options, value=value, description=label)
        if options:
            traitlets.link((explorer, name), (menus[name], "value"))
    return menus


def require_choices(
    name: str, values: Sequence[Any], known: Sequence[str], *, are_modules: bool = False
) -> None:
    """Refuse values of a trait that its menu does not offer.

    Raises
    ------
    SparsityReportError
        A value is unknown. Of modules the message names the closest one only.
    """
    names = set(known)
    for value in values:
        if isinstance(value, str) and value in names:
            continue
        if are_modules:
            known = [*(difflib.get_close_matches(str(value), known, 1) or known[:1]), "…"]
        words = {"trait": name, "known": ", ".join(known), "value": repr(value)}
        raise SparsityReportError(say("explorer.choice_unknown", **words))
