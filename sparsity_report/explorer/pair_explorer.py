"""Two checkpoints in a notebook: one linked view of where they differ and of each layer."""

from __future__ import annotations

import difflib
from typing import Any

import ipywidgets as widgets
import traitlets
from markupsafe import Markup

from sparsity_report.draw.pair_charts import both
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer import still_picture
from sparsity_report.explorer.actions import speaks
from sparsity_report.explorer.anywidget_host import Live, announce, early_picture
from sparsity_report.explorer.details import Reading, Shown
from sparsity_report.explorer.page_widgets import STYLE, Picture, Shell
from sparsity_report.explorer.pair_scene import ALL, METRICS, PairScene, PairState
from sparsity_report.explorer.picture import filled, with_data
from sparsity_report.explorer.still_picture import Still
from sparsity_report.report.tables import pair_tables
from sparsity_report.report.templates import environment
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.untrusted.display_text import clip, distinct_names
from sparsity_report.words.display_names import group_name
from sparsity_report.words.languages import spoken
from sparsity_report.words.sentences import say

_STATE = ("metric", "group", "module")


class PairExplorer(Live):
    """Two checkpoints in one linked view; every attribute here can be set and observed.

    Attributes
    ----------
    pair : Pair
        What is shown.
    metric : str
        ``"moved"``: the share of the base's weights that is zero or gone, after − before;
        ``"kept_share"`` of the zeros, ``"revived_share"`` and ``"new_share"`` of the weights that
        stand in both, ``"relative_change"``, or ``"iou"``, zeros in both ÷ zeros in either.
    group : str
        ``"all"`` or a group of modules, which the map and the menu of layers are of.
    module : str
        The layer looked at closely.
    chart : altair chart
        The picture as it stands, with its data, ready for ``.save``.
    """

    pair = traitlets.Instance(Pair, read_only=True)
    metric = traitlets.Unicode("moved").tag(sync=True)
    group = traitlets.Unicode(ALL).tag(sync=True)
    module = traitlets.Unicode().tag(sync=True)
    chart = traitlets.Any(read_only=True)

    def __init__(self, pair: Pair) -> None:
        self.language = spoken()
        self._scene = PairScene(pair)
        self._picture: Picture | None = None
        self._width, self._quiet = still_picture.WIDTH, True
        self._parts: Any = environment().get_template("explorer.html.j2").module
        self._shell = Shell(key=format(id(self), "x"))
        self._beside, self._made = Still(self._still, self._shell.key), early_picture()
        self._head, self._shown, self._detail = (widgets.HTML() for _ in range(3))
        self._shown.add_class("sx-state")
        super().__init__()
        self.set_trait("pair", pair)
        self.module = self._scene.first(ALL)
        self._menus = self._made_menus()
        self._place = widgets.Box()
        controls, below = widgets.Box([*self._menus.values()]), widgets.Box([self._detail])
        now = widgets.Box([self._shown])
        parts = {"controls": controls, "now": now, "chart": self._place, "below": below}
        for style, box in parts.items():
            box.add_class(f"sx-{style}")
        self._detail.add_class("sx-alone")
        # Names of modules are longer than what other menus offer.
        self._menus["module"].add_class("sx-names")
        self.children = [self._shell, self._head, *parts.values()]
        self.add_class("sparsity-explorer")
        self._shell.observe(self._measured, "width")
        self._quiet = False
        self._refresh()
        self.observe(self._changed, [*_STATE])

    def _made_menus(self) -> dict[str, Any]:
        titles = {
            "metric": say("explorer.metric_menu"),
            "group": say("explorer.group_menu"),
            "module": say("explorer.layer_menu"),
        }
        menus = {
            name: widgets.Dropdown(
                options=self._choices(name), value=getattr(self, name) or None, description=title
            )
            for name, title in titles.items()
        }
        for name, menu in menus.items():
            menu.observe(self._chosen(name), "value")
        return menus

    def _chosen(self, name: str) -> Any:
        def choose(change: Any) -> None:
            if not self._quiet and change["new"] is not None:
                setattr(self, name, change["new"])

        return choose

    def _choices(self, name: str) -> list[tuple[str, str]]:
        """Return what a menu offers: text for people, and the value of the trait."""
        if name == "metric":
            return [(say(metric.name), key) for key, metric in METRICS.items()]
        if name == "group":
            return [
                (say("explorer.choice_all") if g == ALL else group_name(g), g)
                for g in self._scene.groups
            ]
        modules = self._scene.modules(self.group)
        return list(zip(distinct_names(modules, 80), modules, strict=True))

    @speaks
    def _changed(self, change: Any) -> None:
        if self._quiet:
            return
        self._quiet = True
        try:
            if change["name"] == "group":
                modules = self._scene.modules(self.group)
                if self.module not in modules:
                    self.module = self._scene.first(self.group)
                self._menus["module"].options = self._choices("module")
            for name, menu in self._menus.items():
                menu.value = getattr(self, name) or None
        finally:
            self._quiet = False
        self._refresh()
        announce(self)

    def _state(self) -> PairState:
        return PairState(self.metric, self.group, self.module, self._width)

    def _refresh(self) -> None:
        """Bring the view up to what the attributes say."""
        state = self._state()
        spec, data = self._scene.spec(state), self._scene.data(state)
        described = self._scene.described(state)
        self.set_trait("chart", filled({**spec, "description": described}, data))
        self._shown.value = str(self._parts.state(self._reading()))
        self._detail.value = self._layer()
        if self._picture is None:
            return
        with self._picture.hold_sync():
            self._picture.data = data
            self._picture.described = described
            self._picture.hint = say(
                "explorer.map_keys_hint", metric=say(METRICS[self.metric].name)
            )
            self._picture.axes = self._scene.axes(self.group)
            self._picture.spec = spec
        self._beside.follow()

    def _reading(self) -> Shown:
        metric = METRICS[self.metric]
        text = say(metric.name)
        if self._scene.shown(self.group) is None:
            text = say("pair.map_unavailable")
        return Shown(False, say("pair.map_kind"), text, say(metric.layer_note))

    def _layer(self) -> str:
        """Return what is known of the layer looked at, as HTML."""
        if not self.module:
            return ""
        zeros = self._scene.zeros(self.module)
        about = "" if zeros["compared"] else say("pair.layer_weights_not_shared")
        table = pair_tables.layer(self.pair, self.module)
        return str(self._parts.layer(Reading(clip(self.module, 2000), about, [], [table], "")))

    def _heading(self) -> Any:
        return self._parts.head(
            both(self.pair), self.pair.sentences(), pair_tables.totals(self.pair)
        )

    # What the person does in the browser.

    @speaks
    def _measured(self, change: Any) -> None:
        """Draw for the width there is; only now, so that nothing is drawn where nobody looks."""
        self._width = max(320, change["new"])
        if self._picture is not None:
            self._refresh()
            return
        self._picture = self._made or Picture()
        self._picture.on_msg(self._heard)
        self._head.value = str(self._heading())
        self._refresh()
        self._place.children = [self._picture]
        self._shell.live = True

    @speaks
    def _heard(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if isinstance(cell := content.get("cell"), int):
            self.module = self._scene.at(self.group, cell, self.module) or self.module

    @traitlets.validate(*_STATE)
    @speaks
    def _check_name(self, proposal: Any) -> Any:
        """Refuse what no menu offers."""
        name, value = proposal["trait"].name, proposal["value"]
        known = [key for _, key in self._choices(name)] or [""]
        if value in known:
            return value
        if name == "module":
            known = [*(difflib.get_close_matches(value, known, 1) or known[:1]), "…"]
        words = {"trait": name, "known": ", ".join(known), "value": repr(value)}
        raise SparsityReportError(say("explorer.choice_unknown", **words))

    # What a cell keeps.

    @speaks
    def _still(self) -> dict[str, str]:
        state = self._state()._replace(width=still_picture.WIDTH)
        spec = self._scene.spec(state)
        drawn = still_picture.picture(with_data(spec, self._scene.data(state)))
        page = self._parts.still(
            self._shell.key,
            Markup(STYLE),
            self._heading(),
            self._parts.state(self._reading()),
            self._scene.described(state),
            drawn,
            None,
            None,
        )
        # The layer's own counts stand in no picture.
        kinds = f"sx-still sx-still-{self._shell.key} mathjax_ignore tex2jax_ignore"
        html = f'{page}<div class="{kinds}">{self._layer()}</div>'
        return {"text/html": html, "text/plain": "\n".join(self.pair.sentences())}
