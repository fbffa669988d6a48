"""The explorer of a notebook: a study in one linked view, with a live sparsity slider."""

from __future__ import annotations

import base64
import difflib
import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import altair as alt
import anywidget
import ipywidgets as widgets
import pandas as pd
import traitlets
import vl_convert
from IPython.display import display
from markupsafe import Markup

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.policies import global_magnitude
from sparsity_report.draw.look import model_names
from sparsity_report.draw.vega import VEGALITE, bundle, check_room
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer import reading
from sparsity_report.explorer.controls import Controls, choices
from sparsity_report.explorer.picture import Pictures, filled
from sparsity_report.explorer.scene import Scene
from sparsity_report.explorer.view import (
    CSR_AT_LEVEL,
    LIVE,
    MASKED_AT_LEVEL,
    MODEL_ORDER,
    State,
    View,
)
from sparsity_report.findings.summary import summarize
from sparsity_report.report.templates import environment
from sparsity_report.report.values import slider
from sparsity_report.study.study import Comparison
from sparsity_report.study.variants import csr, fingerprint, masked
from sparsity_report.weights.weights import Weights
from sparsity_report.words.language import speaking, spoken
from sparsity_report.words.names import short_name
from sparsity_report.words.sentences import say

_HERE = Path(__file__).parent
_STYLE = (_HERE / "explorer.css").read_text(encoding="utf-8")
# Of the still picture: its width, and cells up to which it has their numbers.
_STILL_WIDTH, _NUMBERED = 940, 100
# Cells up to which a notebook holds all levels, too, for the page that it is exported to.
_SLIDING = 400
# Of the state all but the width are attributes of an explorer.
_STATE: tuple[str, ...] = State._fields[:-1]
# A change of others draws another map, without the brush.
_KEEP_THE_BRUSH = {"sparsity", "sort", "log_scale", "selection", "detail"}


def explore(study: Comparison, weights: Weights | None = None) -> Explorer:
    """Return the explorer of a study, to be shown by a notebook cell.

    It speaks the language that is spoken when it is made, see :func:`sparsity_report.speaking`.

    Parameters
    ----------
    study : Comparison
    weights : Weights, optional
        The first variant's, for a study that was read from a file: with them histograms are drawn
        and a level becomes a variant.

    Returns
    -------
    Explorer

    Raises
    ------
    SparsityReportError
        The study is empty, or `weights` are not those it was made of.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> explorer = sr.explore(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
    >>> explorer.sparsity = 0.6
    >>> explorer.selection = [n for n in explorer.layers()["module_name"] if "fc1" in n]
    >>> len(explorer.layers())
    4
    """
    if study.layers.empty:
        raise SparsityReportError("explore: the study has no layers; compare() a model first")
    if weights is not None:
        given = fingerprint(weights, count_weights(weights))
        first = study.variants["fingerprint"].iloc[0]
        if given != first:
            raise SparsityReportError(
                f"explore: {weights.name} has the fingerprint {given}, the study's first variant "
                f"{first}; give the weights the study was made of"
            )
        study = replace(study, weights=weights)
    return Explorer(study)


def _speaks(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of an explorer, whenever it is called, speak the explorer's language."""

    @wraps(method)
    def speak(self: Explorer, *args: Any, **options: Any) -> Any:
        with speaking(self.language):
            return method(self, *args, **options)

    return speak


class Explorer(widgets.VBox):  # type: ignore[misc]
    """A study in one linked view; every attribute here can be set and observed.

    Attributes
    ----------
    study : Comparison
        What is shown; :meth:`add` puts variants in.
    selection : tuple of str
        Names of the selected modules; empty: nothing is singled out.
    sparsity : float
        The level the slider stands at. Moving it shows the level in place of a variant.
    variant : str
        The variant shown: a name of the study's, ``"Masked at level"`` or ``"CSR at level"``.
    metric : {"sparsity", "flops_per_token", "total", "nonzero", "stored_bytes", "bytes_ratio"}
    modules : str
        ``"prunable"``, ``"all"`` or a group.
    grouping : {"group", "projection", "block"}
        What the bars sum over.
    sort : {"model order", "largest first", "smallest first"}
    log_scale : bool
        Whether counts, FLOPs and bytes are drawn on a logarithmic scale.
    search : str
        Selects the modules with this in their names, whatever the case.
    detail : str or None
        The module looked at closely.
    chart : altair chart
        The picture as it stands, with its data, ready for ``.save``.
    """

    study = traitlets.Instance(Comparison)
    selection = traitlets.Tuple()
    sparsity = traitlets.Float()
    variant = traitlets.Unicode()
    metric = traitlets.Unicode("sparsity")
    modules = traitlets.Unicode("prunable")
    grouping = traitlets.Unicode("group")
    sort = traitlets.Unicode(MODEL_ORDER)
    log_scale = traitlets.Bool()
    search = traitlets.Unicode()
    detail = traitlets.Unicode(None, allow_none=True)
    chart = traitlets.Any(read_only=True)

    def __init__(self, study: Comparison) -> None:
        self.language = spoken()
        self._view = View(study)
        self._scene, self._pictures = Scene(self._view), Pictures()
        self._picture: Picture | None = None
        self._width = _STILL_WIDTH
        self._brushed: tuple[str, ...] = ()
        self._quiet = False
        self._parts: Any = environment().get_template("explorer.html.j2").module
        self._shell = Shell(key=format(id(self), "x"))
        self._head, self._table, self._detail = (widgets.HTML() for _ in range(3))
        self._place, below = widgets.Box(), widgets.Box([self._table, self._detail])
        self._place.add_class("sx-chart")
        below.add_class("sx-below")
        with self._silently():
            super().__init__(study=study)
            self.variant = (*study.facts.prunings, self._view.variants[0])[0]
            self.modules = self._view.scopes()[0]
            asked = study.variants["asked_sparsity"].dropna()
            self.sparsity = self._nearest(float(asked.iloc[0]) if len(asked) else 0.3)
            self.detail = self._view.sparsest(self._state())
        self._controls = Controls(self, self._view, self._parts, self._add_clicked)
        self.children = [self._shell, self._head, *self._controls.rows, self._place, below]
        self.add_class("sparsity-explorer")
        self._shell.observe(self._measured, "width")
        self._shell.on_msg(self._heard)
        self._refresh()
        self.observe(self._changed, [*_STATE, "search", "study"])

    def layers(self) -> pd.DataFrame:
        """Return the selected layers of what is shown, in the order of the table.

        With nothing selected, all layers in view. Columns as of ``study.layers``; at a level, as of
        :meth:`Comparison.at_level`.
        """
        return self._view.layers(self._state())

    @_speaks
    def add(self) -> None:
        """Prune at the level exactly and put the variants, masked and CSR, into the study."""
        weights = self.study.weights
        if weights is None:
            raise SparsityReportError(
                say(
                    "a study read from a file holds no weights; {code} makes levels into variants",
                    code="explore(study, weights=sr.load(…))",
                )
            )
        pruning = global_magnitude(weights, self.sparsity)
        pruned = (masked(pruning), csr(pruning))
        known = set(self._view.variants)
        self.study = self.study.with_variants(*(v for v in pruned if v.name not in known))
        self.variant = pruned[1].name

    def _ipython_display_(self, **_: Any) -> None:
        """Show the widget, and beside it a picture for where no kernel answers."""
        for part in (self._widget_view(), self._still()):
            display(part, raw=True)  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget with its still picture, for those who ask for one bundle."""
        return {**self._widget_view(), **self._still()}

    def _widget_view(self) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": view}

    @_speaks
    def _still(self) -> dict[str, str]:
        look, data = self._scene.look_and_data(self._state()._replace(width=_STILL_WIDTH))
        # Numbers are what a saved notebook would grow by most, and the colours say it.
        look = look._replace(numbers=len(data["cells"]) <= _NUMBERED)
        check_room()
        drawn = vl_convert.vegalite_to_jpeg(
            {**self._pictures.compiled(look), "datasets": data},
            vl_version=VEGALITE, scale=1, quality=72, allowed_base_urls=[],
        )  # fmt: skip
        picture = base64.b64encode(drawn).decode()
        style = Markup(_STYLE)
        moving = slider(self.study) if len(data["cells"]) <= _SLIDING else None
        packed = moving and _packed(f"[{moving['spec']},{moving['texts']}]")
        page = self._parts.still(
            self._shell.key, style, self._heading(), look.alt, picture, moving, packed
        )
        return {"text/html": str(page), "text/plain": "\n".join(summarize(self.study))}

    def _state(self) -> State:
        return State._make([*(getattr(self, name) for name in _STATE), self._width])

    def _heading(self) -> Any:
        findings, totals = summarize(self.study), reading.totals(self.study)
        return self._parts.head(model_names(self.study), findings, totals)

    # What has changed, and what follows from it.

    @_speaks
    def _changed(self, change: Any) -> None:
        if self._quiet:
            return
        name = change["name"]
        with self._silently():
            if name == "study":
                self._view = View(self.study)
                self._scene = Scene(self._view)
                self._controls.offer(self._view, self.variant)
                self._show_heading()
            elif name == "sparsity" and self.variant not in LIVE:
                layout = self.study.variants.set_index("variant")["layout"][self.variant]
                self.variant = MASKED_AT_LEVEL if layout == "masked" else CSR_AT_LEVEL
            elif name == "search":
                words = self.search.casefold()
                names = self._view.names if words else ()
                self.selection = tuple(one for one in names if words in one.casefold())
            elif name == "selection" and self.search:
                self.search = ""
            moved = name in {"selection", "search"} and self.selection
            if moved and self.detail not in self.selection:
                self.detail = self.selection[0]
            if name not in _KEEP_THE_BRUSH or self._brushed != self.selection:
                self._brushed = ()
        self._refresh()

    @contextmanager
    def _silently(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _refresh(self) -> None:
        """Bring the view up to what the attributes say."""
        state = self._state()
        look, data = self._scene.look_and_data(state)
        self.set_trait("chart", filled(self._pictures.chart(look), data))
        if self._picture is None:
            return
        with self._picture.hold_sync():
            self._picture.brushed = bool(self._brushed)
            self._picture.data = data
            self._picture.spec = self._pictures.compiled(look)
        self._controls.cards.value = str(
            self._parts.cards(*reading.cards(self._view, self.sparsity))
        )
        self._table.value = str(self._parts.layers(reading.layers(self._view, state)))
        layer = reading.layer(self._view, self._scene.magnitudes, state)
        self._detail.value = str(self._parts.layer(layer)) if layer else ""
        lost = say("no module name holds “{text}”", text=short_name(self.search))
        self._controls.tell(lost if self.search and not self.selection else "")

    def _show_heading(self) -> None:
        if self._picture is not None:
            self._head.value = str(self._heading())

    def _nearest(self, sparsity: float) -> float:
        levels = self._view.levels.sparsities if self._view.levels else [sparsity]
        return min(levels, key=lambda level: abs(level - sparsity))

    # What the person does in the browser.

    @_speaks
    def _measured(self, change: Any) -> None:
        """Draw for the width there is; only now, so that nothing is drawn where nobody looks."""
        self._width = max(320, change["new"])
        if self._picture is not None:
            self._refresh()
            return
        self._picture = Picture()
        self._picture.on_msg(self._heard)
        self._show_heading()
        self._refresh()
        self._place.children = [self._picture]
        self._shell.live = True

    @_speaks
    def _heard(self, _: Any, content: dict[str, Any], __: Any) -> None:
        state, more = self._state(), bool(content.get("more"))
        if "brush" in content:
            at = content["brush"]
            names = self._view.brushed(state, at.get("block", []), at.get("projection", []))
            self._brushed = self.selection = tuple(names)
            return
        if "row" in content:
            names = [self._view.names[content["row"]]]
            # A row of a selection is looked at; the selection stays.
            if names[0] in self.selection and not more:
                self.detail = names[0]
                return
        else:
            kind = "cell" if "cell" in content else "bar"
            names = self._scene.members(state, kind, content[kind])
        if more:
            inside = set(names) <= set(self.selection)
            kept = [n for n in self.selection if n not in names]
            names = kept if inside else [*kept, *names]
        elif tuple(names) == self.selection:
            names = []
        self.selection = tuple(names)

    def _add_clicked(self) -> None:
        try:
            self.add()
        except SparsityReportError as error:
            self._controls.tell(str(error))

    # What may be set.

    @traitlets.validate("variant", "metric", "modules", "grouping", "sort", "detail", "selection")
    @_speaks
    def _check_name(self, proposal: Any) -> Any:
        """Refuse what no menu offers, or a module the study does not have."""
        name, value = proposal["trait"].name, proposal["value"]
        if name in {"detail", "selection"}:
            known = self._view.names
        else:
            known = [key for _, key in choices(self._view, name)]
        names, asked = set(known), value if name == "selection" else (value,)
        for one in asked if value is not None else ():
            if isinstance(one, str) and one in names:
                continue
            if known is self._view.names:
                known = [*(difflib.get_close_matches(str(one), known, 1) or known[:1]), "…"]
            words = {"trait": name, "known": ", ".join(known), "value": repr(one)}
            raise SparsityReportError(say("{trait} is one of {known}, not {value}", **words))
        return tuple(dict.fromkeys(value)) if name == "selection" else value

    @traitlets.validate("study")
    @_speaks
    def _check_study(self, proposal: Any) -> Comparison:
        """Let variants be added; the menus and the slider are of the study there was."""
        study: Comparison = proposal["value"]
        before, after = (s.variants[["variant", "fingerprint"]] for s in (self._view.study, study))
        if not after.head(len(before)).equals(before):
            raise SparsityReportError(
                say("study: variants may be added; make another explorer for another study")
            )
        return study

    @traitlets.validate("sparsity")
    @_speaks
    def _check_sparsity(self, proposal: Any) -> float:
        value = proposal["value"]
        if self._view.levels and not 0 <= value < 1:
            wrong = say("sparsity is from 0 to 0.99, not {value}", value=repr(value))
            raise SparsityReportError(wrong)
        return self._nearest(value)


def _packed(text: str) -> str:
    """Return text at a tenth of its length: notebooks are kept, and few are exported."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


class Shell(anywidget.AnyWidget):
    """The place of an explorer in the page: its width, its keys, its style."""

    _esm = (_HERE / "shell.js").read_text(encoding="utf-8")
    _css = _STYLE
    key = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    live = traitlets.Bool().tag(sync=True)


class Picture(alt.JupyterChart):
    """A JupyterChart that works offline, swaps data by name, and draws anew only for a new chart.

    The front end of its base keeps every view it has drawn listening, so that an explorer would
    slow down with every change of the metric.
    """

    _esm = ""
    data = traitlets.Dict().tag(sync=True)
    brushed = traitlets.Bool().tag(sync=True)

    def __init__(self) -> None:
        script = (_HERE / "explorer.js").read_text(encoding="utf-8")
        self._esm = bundle() + script
        super().__init__(None)  # type: ignore[arg-type]
