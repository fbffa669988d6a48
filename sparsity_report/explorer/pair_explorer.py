"""The explorer of a pair: a map of where two checkpoints differ, and one layer closely."""

from typing import Any

import ipywidgets as widgets
import traitlets

from sparsity_report.explorer import box_explorer as base_explorer
from sparsity_report.explorer.box_explorer import BaseExplorer, in_own_language
from sparsity_report.explorer.details import Reading
from sparsity_report.explorer.pair_scene import ALL, METRICS, PairScene, PairState
from sparsity_report.explorer.still_picture import WIDTH
from sparsity_report.report.tables import pair_tables
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.untrusted.display_text import clip, distinct_names
from sparsity_report.words.display_names import group_name
from sparsity_report.words.pair_labels import both
from sparsity_report.words.sentences import say

# Traits that have a menu, and the keys of its label.
_MENUS = {
    "metric": "explorer.metric_menu",
    "group": "explorer.group_menu",
    "module": "explorer.layer_menu",
}


class PairExplorer(BaseExplorer):
    """Two checkpoints in one linked view; every attribute here can be set and observed.

    Attributes
    ----------
    pair : Pair
        The two checkpoints.
    metric : str
        ``"moved"``: the share of the base's weights that is zero or removed, after − before;
        ``"kept_share"`` of the zeros; ``"revived_share"`` and ``"new_share"`` of the weights that
        are in both; ``"relative_change"``; or ``"iou"``, zeros in both ÷ zeros in either.
    group : str
        ``"all"`` or a group of modules, for the map and the menu of layers.
    module : str
        The layer in detail.
    chart : altair chart
        The picture with its data, ready for ``.save``.
    """

    pair = traitlets.Instance(Pair, read_only=True)
    metric = traitlets.Unicode("moved").tag(sync=True)
    group = traitlets.Unicode(ALL).tag(sync=True)
    module = traitlets.Unicode().tag(sync=True)

    def __init__(self, pair: Pair) -> None:
        self._scene = PairScene(pair)
        super().__init__()
        self.set_trait("pair", pair)
        self.module = self._scene.first(ALL)
        labels = {name: say(key) for name, key in _MENUS.items()}
        self._menus = base_explorer.linked_menus(self, labels, self._choices)
        # Names of modules are longer than the options of other menus.
        self._menus["module"].add_class("sx-names")
        self._detail.add_class("sx-alone")
        controls, below = widgets.Box([*self._menus.values()]), widgets.Box([self._detail])
        now = widgets.Box([self._shown])
        for style, box in {"controls": controls, "now": now, "below": below}.items():
            box.add_class(f"sx-{style}")
        self.children = [self._shell, self._head, controls, now, self._place, below]
        self._refresh()
        self.observe(self._changed, [*_MENUS])

    def _choices(self, name: str) -> base_explorer.Choices:
        """Return the options of a menu: text and the value of the trait."""
        if name == "metric":
            return [(say(metric.name), key) for key, metric in METRICS.items()]
        if name == "group":
            texts = {ALL: say("explorer.choice_all")}
            return [(texts.get(group) or group_name(group), group) for group in self._scene.groups]
        modules = self._scene.modules(self.group)
        return list(zip(distinct_names(modules, 80), modules, strict=True))

    @in_own_language
    def _changed(self, change: Any) -> None:
        if self._quiet:
            return
        with self._silently():
            if change["name"] == "group":
                modules = self._scene.modules(self.group)
                chosen = self.module if self.module in modules else self._scene.first(self.group)
                # New options choose the first one.
                self._menus["module"].options = self._choices("module")
                self.module = chosen
        self._refresh()
        self._announce()

    def _state(self, width: int | None = None) -> PairState:
        return PairState(self.metric, self.group, self.module, width or self._width)

    def _refresh(self) -> None:
        state = self._state()
        self._detail.value = self._layer()
        hint = say("explorer.map_keys_hint", metric=say(METRICS[self.metric].name))
        axes = self._scene.axes(self.group)
        self._draw(*self._scene.picture(state), hint=hint, axes=axes)

    def _label(self) -> base_explorer.Shown:
        metric = METRICS[self.metric]
        text = say(metric.name if self._scene.map(self.group) else "pair.map_unavailable")
        return base_explorer.Shown(False, say("pair.map_kind"), text, say(metric.note))

    def _layer(self) -> str:
        """Return the layer in detail as HTML."""
        if not self.module:
            return ""
        is_compared = self._scene.zeros(self.module)["compared"]
        about = "" if is_compared else say("pair.layer_weights_not_shared")
        table = pair_tables.layer(self.pair, self.module)
        return str(self._parts.layer(Reading(clip(self.module, 2000), about, [], [table], "")))

    def _subject(self) -> base_explorer.Subject:
        return base_explorer.Subject(self.pair, both(self.pair), pair_tables.totals(self.pair))

    def _still_parts(self) -> base_explorer.StillParts:
        state = self._state(WIDTH)
        # The picture does not show the counts of the layer.
        style = f"sx-still sx-still-{self._shell.key} mathjax_ignore tex2jax_ignore"
        below = f'<div class="{style}">{self._layer()}</div>'
        return base_explorer.StillParts(*self._scene.picture(state), below=below)

    @in_own_language
    def _heard(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if isinstance(cell := content.get("cell"), int):
            self.module = self._scene.at(self.group, cell, self.module) or self.module

    @traitlets.validate(*_MENUS)
    @in_own_language
    def _check_choice(self, proposal: Any) -> Any:
        """Refuse values that the menu does not offer."""
        name, value = proposal["trait"].name, proposal["value"]
        known = [key for _, key in self._choices(name)] or [""]
        base_explorer.require_choices(name, [value], known, are_modules=name == "module")
        return value
