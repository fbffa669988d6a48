"""The explorer of a notebook: a study in one linked view, with a live sparsity slider."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import anywidget
import ipywidgets as widgets
import pandas as pd
import traitlets
import vl_convert
from IPython.display import display

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.policies import global_magnitude
from sparsity_report.draw import charts
from sparsity_report.draw.vega import VEGALITE, bundle
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.explorer import picture as panels
from sparsity_report.explorer.picture import LIVE, METRICS
from sparsity_report.explorer.scene import GROUPINGS, SORTS, Scene, State
from sparsity_report.findings.summary import summarize
from sparsity_report.report.page import environment
from sparsity_report.study.layers import records
from sparsity_report.study.study import Comparison
from sparsity_report.study.variants import csr, fingerprint, masked
from sparsity_report.weights.weights import Weights

_HERE = Path(__file__).parent
_STYLE = (_HERE / "explorer.css").read_text(encoding="utf-8")
_LISTED = 200
_STILL_WIDTH, _NUMBERED = 940, 100


def explore(study: Comparison, weights: Weights | None = None) -> Explorer:
    """Return the explorer of a study, to be shown by a notebook cell.

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
        mine = fingerprint(weights, count_weights(weights))
        first = study.variants["fingerprint"].iloc[0]
        if mine != first:
            raise SparsityReportError(
                f"explore: {weights.name} has the fingerprint {mine}, the study's first variant "
                f"{first}; give the weights the study was made of"
            )
        study = replace(study, weights=weights)
    return Explorer(study)


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
    metric : str
        A key of :data:`sparsity_report.explorer.picture.METRICS`.
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
    sparsity = traitlets.Float(0.3)
    variant = traitlets.Unicode()
    metric = traitlets.Unicode("sparsity")
    modules = traitlets.Unicode("prunable")
    grouping = traitlets.Unicode("group")
    sort = traitlets.Unicode(SORTS[0])
    log_scale = traitlets.Bool(False)
    search = traitlets.Unicode()
    detail = traitlets.Unicode(None, allow_none=True)
    chart = traitlets.Any(read_only=True)

    def __init__(self, study: Comparison) -> None:
        self._scene = Scene(study)
        self._picture: Picture | None = None
        self._width = _STILL_WIDTH
        self._brushed = self._quiet = False
        self._parts: Any = environment().get_template("explorer.html.j2").module
        self._shell = Shell(key=format(id(self), "x"))
        self._head, self._cards, self._table, self._detail, self._said = (
            widgets.HTML() for _ in range(5)
        )
        self._place = widgets.Box(layout={"display": "block"})
        self._place.add_class("sx-chart")
        with self._silently():
            super().__init__(study=study)
            pruned = charts.distinct_prunings(study)
            self.variant = (pruned or self._scene.variants)[0]
            self.modules = self._scene.scopes()[0]
            asked = study.variants["asked_sparsity"].dropna()
            self.sparsity = self._nearest(float(asked.iloc[0]) if len(asked) else 0.3)
            self.detail = self._scene.first_detail(self._state())
        self._controls = self._make_controls()
        self.children = [
            self._shell,
            self._head,
            *self._controls,
            self._place,
            self._rows(self._table, self._detail),
        ]
        self.add_class("sparsity-explorer")
        self._shell.observe(self._measured, "width")
        self._shell.on_msg(lambda _, content, __: self._heard(content))
        self._refresh()
        self.observe(
            self._changed,
            ["study", "selection", "sparsity", "variant", "metric", "modules", "grouping", "sort",
             "log_scale", "search", "detail"],
        )  # fmt: skip

    def layers(self) -> pd.DataFrame:
        """Return the selected layers of what is shown, in the order of the table.

        With nothing selected, all layers in view. Columns as of ``study.layers``; at a level, as of
        :meth:`Comparison.at_level`.
        """
        return self._scene.layers(self._state())

    def add(self) -> None:
        """Prune at the level exactly and put the variants, masked and CSR, into the study."""
        weights = self.study.weights
        if weights is None:
            raise SparsityReportError(
                "a study read from a file holds no weights; "
                "explore(study, weights=sr.load(…)) makes levels into variants"
            )
        pruning = global_magnitude(weights, self.sparsity)
        new = (masked(pruning), csr(pruning))
        known = set(self._scene.variants)
        self.study = self.study.with_variants(*(v for v in new if v.name not in known))
        self.variant = new[1].name

    def _ipython_display_(self, **_: Any) -> None:
        """Show the widget, and beside it a picture for where no kernel answers."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        for bundle_ in ({"application/vnd.jupyter.widget-view+json": view}, self._still()):
            display(bundle_, raw=True)  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the widget with its still picture, for those who ask for one bundle."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": view, **self._still()}

    def _still(self) -> dict[str, str]:
        look, data = self._scene.look_and_data(self._state()._replace(width=_STILL_WIDTH))
        if len(data["cells"]) > _NUMBERED:
            # Digits are what a saved notebook would grow by most, and the colours say it.
            data["cells"] = [cell | {"digits": ""} for cell in data["cells"]]
        drawn = vl_convert.vegalite_to_jpeg(
            {**panels.compiled(look), "datasets": data},
            vl_version=VEGALITE, scale=1, quality=72, allowed_base_urls=[],
        )  # fmt: skip
        page = self._parts.still(
            self._shell.key, _STYLE, **self._headings(), alt=look.said,
            picture=base64.b64encode(drawn).decode(),
        )  # fmt: skip
        return {"text/html": str(page), "text/plain": "\n".join(summarize(self.study))}

    def _state(self) -> State:
        return State(
            self.variant, self.sparsity, self.metric, self.modules, self.grouping, self.sort,
            self.log_scale, self.selection, self.detail, self._width,
        )  # fmt: skip

    def _headings(self) -> dict[str, Any]:
        return {
            "models": charts.model_names(self.study),
            "findings": summarize(self.study),
            "totals": records(self.study.totals),
            "palette": list(charts.palette(self.study).values()),
        }

    # What has changed, and what follows from it.

    def _changed(self, change: Any) -> None:
        if self._quiet:
            return
        name = change["name"]
        with self._silently():
            if name == "study":
                self._scene = Scene(self.study)
                self._offer()
                self._show_study()
            elif name == "sparsity" and self.variant not in LIVE[1:]:
                self.variant = LIVE[1] if self._shown_layout() == "masked" else LIVE[2]
            elif name == "search":
                self.selection = self._matching() if self.search else ()
            elif name == "selection" and self.search:
                self.search = ""
            if name in {"selection", "search"} and self.selection and (
                self.detail not in self.selection
            ):  # fmt: skip
                self.detail = self.selection[0]
            if name not in {"detail", "sparsity", "log_scale", "sort"}:
                self._brushed = False
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
        self.set_trait("chart", panels.filled(panels.picture(look), data))
        if self._picture is None:
            return
        with self._picture.hold_sync():
            self._picture.brushed = self._brushed
            self._picture.data = data
            self._picture.spec = panels.compiled(look)
        cards, note = self._scene.cards(self.sparsity)
        parts = self._parts
        self._cards.value = str(parts.cards(cards, note))
        self._table.value = str(parts.table(**self._scene.table(state, _LISTED)))
        detail = self._scene.detail(state)
        self._detail.value = str(parts.detail(**detail)) if detail else ""
        if self.search and not self.selection:
            self._say(f"no module name holds {printable(self.search, 40)!r}")
        else:
            self._say("")

    def _show_study(self) -> None:
        if self._picture is None:
            return
        self._head.value = str(self._parts.head(**self._headings()))

    def _say(self, text: str) -> None:
        self._said.value = str(self._parts.said(text))

    def _shown_layout(self) -> str:
        layouts = self.study.variants.set_index("variant")["layout"]
        return str(layouts.get(self.variant, "csr"))

    def _matching(self) -> tuple[str, ...]:
        words = self.search.casefold()
        return tuple(name for name in self._scene.names if words in name.casefold())

    def _nearest(self, sparsity: float) -> float:
        levels = self._scene.levels.sparsities if self._scene.levels else [sparsity]
        return min(levels, key=lambda level: abs(level - sparsity))

    # What the person does in the browser.

    def _measured(self, change: Any) -> None:
        """Draw for the width there is; only now, so that nothing is drawn where nobody looks."""
        self._width = max(320, change["new"])
        if self._picture is None:
            self._picture = Picture()
            self._picture.on_msg(lambda _, content, __: self._heard(content))
            self._show_study()
            self._refresh()
            self._place.children = [self._picture]
            self._shell.live = True
        else:
            self._refresh()

    def _heard(self, content: dict[str, Any]) -> None:
        state, more = self._state(), bool(content.get("more"))
        if "brush" in content:
            at = content["brush"]
            blocks, projections = at.get("block", []), at.get("projection", [])
            names = self._scene.brushed(state, blocks, projections)
            self._brushed = bool(names)
            self._select(names, brushed=True)
            return
        if "row" in content:
            names = [self._scene.names[content["row"]]]
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
        self._select(names)

    def _select(self, names: list[str], brushed: bool = False) -> None:
        if tuple(names) == self.selection:
            return
        with self._silently():
            self.search = ""
            self.selection = tuple(names)
            if names and self.detail not in names:
                self.detail = names[0]
            self._brushed = brushed and bool(names)
        self._refresh()

    # What may be set.

    @traitlets.validate("selection")
    def _check_selection(self, proposal: Any) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(proposal["value"]))
        known = set(self._scene.names)
        if unknown := [name for name in names if name not in known]:
            near = difflib.get_close_matches(str(unknown[0]), self._scene.names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SparsityReportError(f"selection: no module {unknown[0]!r}{hint}")
        return names

    @traitlets.validate("detail")
    def _check_detail(self, proposal: Any) -> str | None:
        name = proposal["value"]
        if name is not None and name not in set(self._scene.names):
            raise SparsityReportError(f"detail: no module {name!r}")
        return name  # type: ignore[no-any-return]

    @traitlets.validate("sparsity")
    def _check_sparsity(self, proposal: Any) -> float:
        if self._scene.levels is None:
            return float(proposal["value"])
        if not 0 <= proposal["value"] < 1:
            raise SparsityReportError(f"sparsity is from 0 to 0.99, not {proposal['value']!r}")
        return self._nearest(proposal["value"])

    @traitlets.validate("variant", "metric", "modules", "grouping", "sort")
    def _check_choice(self, proposal: Any) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        if value not in (known := [key for _, key in self._choices(name)]):
            raise SparsityReportError(f"{name} is one of {', '.join(known)}, not {value!r}")
        return str(value)

    def _choices(self, name: str) -> list[tuple[str, str]]:
        """Return what a control offers: the text for people, and the value."""
        if name == "variant":
            live = LIVE[1:] if self._scene.levels is not None else ()
            shown = charts.distinct_names(self._scene.variants)
            return [*zip(shown, self._scene.variants, strict=True), *((n, n) for n in live)]
        if name == "metric":
            return [(look.title, key) for key, look in METRICS.items()]
        if name == "modules":
            named = {"prunable": "prunable", "all": "all"}
            return [(named.get(k, charts.group_name(k)), k) for k in self._scene.scopes()]
        return [(one, one) for one in (GROUPINGS if name == "grouping" else SORTS)]

    # The controls.

    def _make_controls(self) -> list[Any]:
        self._menus = {
            name: widgets.Dropdown(
                options=self._choices(name), value=getattr(self, name), description=title
            )
            for name, title in (
                ("variant", "Show"), ("metric", "Metric"), ("modules", "Modules"),
                ("grouping", "Bars by"), ("sort", "Sort"),
            )
        }  # fmt: skip
        log = widgets.Checkbox(description="logarithmic", indent=False)
        search = widgets.Text(
            description="Search", placeholder="part of a name", continuous_update=True
        )
        clear = widgets.Button(description="Select nothing", tooltip="Show all layers alike again")
        clear.on_click(lambda _: self._select([]))
        levels = self._scene.levels
        steps = levels.sparsities if levels else [0.0, 0.01]
        slider = widgets.FloatSlider(
            min=0, max=steps[-1], step=steps[1] - steps[0], description="Prune at",
            readout_format=".0%", disabled=levels is None,
        )  # fmt: skip
        button = widgets.Button(
            description="Add as variants", tooltip="Prune exactly at this level and keep it",
            disabled=levels is None,
        )  # fmt: skip
        button.on_click(partial(self._add_clicked, button))
        for name, control in (
            *self._menus.items(), ("log_scale", log), ("search", search), ("sparsity", slider),
        ):  # fmt: skip
            traitlets.link((self, name), (control, "value"))
        even = self.study.facts.break_even(self.study.facts.baseline) if levels else None
        track = widgets.VBox([slider, widgets.HTML(str(self._parts.scale(even, steps[-1])))])
        level = widgets.Box([track, widgets.VBox([button, self._said])])
        for box, name in ((track, "sx-track"), (level.children[1], "sx-add"), (level, "sx-level")):
            box.add_class(name)
        controls = widgets.Box([*self._menus.values(), search, log, clear])
        controls.add_class("sx-controls")
        return [controls, level, self._cards]

    def _offer(self) -> None:
        """Give the menu of variants its new choices without a change of the one shown."""
        menu = self._menus["variant"]
        with menu.hold_trait_notifications():
            menu.options = self._choices("variant")
            menu.value = self.variant

    def _add_clicked(self, button: Any, _: Any) -> None:
        button.disabled = True
        try:
            self.add()
        except SparsityReportError as error:
            self._say(str(error))
        finally:
            button.disabled = False

    @staticmethod
    def _rows(*parts: Any) -> Any:
        box = widgets.Box(list(parts))
        box.add_class("sx-below")
        return box


class Shell(anywidget.AnyWidget):
    """The place of an explorer in the page: its width, its keys, its style."""

    _esm = (_HERE / "shell.js").read_text(encoding="utf-8")
    _css = _STYLE
    key = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(0).tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)


class Picture(alt.JupyterChart):
    """A JupyterChart that works offline, swaps data by name, and draws anew only for a new chart.

    The front end of its base keeps every view it has drawn listening, so that an explorer would
    slow down with every change of the metric.
    """

    _esm = ""
    data = traitlets.Dict().tag(sync=True)
    brushed = traitlets.Bool(False).tag(sync=True)

    def __init__(self) -> None:
        script = (_HERE / "explorer.js").read_text(encoding="utf-8")
        self._esm = bundle() + script
        super().__init__(None)  # type: ignore[arg-type]
