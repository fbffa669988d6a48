"""The explorer's controls: menus, search, slider and buttons, and what they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import traitlets

from sparsity_report.draw.look import METRICS
from sparsity_report.explorer.picture import SHOWN
from sparsity_report.explorer.view import GROUPINGS, LIVE, SORTS, View
from sparsity_report.study.schema import head
from sparsity_report.words.names import distinct_names, group_name
from sparsity_report.words.sentences import say

Choices = list[tuple[str, str]]


def choices(view: View, name: str) -> Choices:
    """Return what a menu offers: text for people, and the value of the trait of that name."""
    if name == "variant":
        levels = LIVE if view.levels is not None else ()
        texts = [*distinct_names(view.variants), *map(say, levels)]
        return list(zip(texts, [*view.variants, *levels], strict=True))
    if name == "metric":
        return [(say(METRICS[key].name), key) for key in SHOWN]
    if name == "modules":
        named = {"prunable": say("prunable"), "all": say("all")}
        return [(named.get(key) or group_name(key), key) for key in view.scopes()]
    return [(say(key), key) for key in (GROUPINGS if name == "grouping" else SORTS)]


class Controls:
    """The controls of an explorer, linked to its traits.

    Attributes
    ----------
    rows : list
        Widgets in the order they stand.
    cards : ipywidgets.HTML
        The large numbers of a level.
    """

    def __init__(
        self,
        explorer: traitlets.HasTraits,
        view: View,
        parts: Any,
        add: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._said, self.cards = widgets.HTML(), widgets.HTML()
        names = {
            "variant": say("Show"),
            "metric": say("Metric"),
            "modules": head("modules"),
            "grouping": say("Bars by"),
            "sort": say("Sort"),
        }
        menus = {
            name: widgets.Dropdown(
                options=choices(view, name), value=getattr(explorer, name), description=title
            )
            for name, title in names.items()
        }
        self._variants = menus["variant"]
        logarithmic = widgets.Checkbox(description=say("logarithmic"), indent=False)
        search = widgets.Text(description=say("Search"), placeholder=say("part of a name"))
        nothing = _button(
            say("Select nothing"),
            say("Show all layers alike again"),
            lambda: explorer.set_trait("selection", ()),
        )
        top = [*menus.values(), search, logarithmic, nothing]
        slider, level = self._level(view, add)
        self.rows = [_box("sx-controls", *top), level, self.cards]
        linked = menus | {"log_scale": logarithmic, "search": search, "sparsity": slider}
        for name, control in linked.items():
            traitlets.link((explorer, name), (control, "value"))

    def _level(self, view: View, add: Callable[[], None]) -> tuple[Any, Any]:
        """Return the slider and the row it stands in."""
        steps = view.levels.sparsities if view.levels else [0.0, 0.01]
        slider = widgets.FloatSlider(
            min=0,
            max=steps[-1],
            step=steps[1] - steps[0],
            description=say("Prune at"),
            readout_format=".0%",
            disabled=view.levels is None,
        )
        button = _button(
            say("Add as variants"), say("Prune exactly at this level and keep it"), add
        )
        button.disabled = view.levels is None
        scale = widgets.HTML(str(self._parts.scale(view.break_even, steps[-1])))
        track = _box("sx-track", slider, scale)
        return slider, _box("sx-level", track, _box("sx-add", button, self._said))

    def offer(self, view: View, variant: str) -> None:
        """Give the menu of variants new choices without a change of the one shown."""
        with self._variants.hold_trait_notifications():
            self._variants.options = choices(view, "variant")
            self._variants.value = variant

    def tell(self, text: str) -> None:
        """Show a message beside the slider."""
        self._said.value = str(self._parts.said(text))


def _button(text: str, tooltip: str, pressed: Callable[[], None]) -> Any:
    """Return a button that cannot be pressed again before it is done."""
    button = widgets.Button(description=text, tooltip=tooltip)

    def press(_: Any) -> None:
        button.disabled = True
        try:
            pressed()
        finally:
            button.disabled = False

    button.on_click(press)
    return button


def _box(style: str, *parts: Any) -> Any:
    kind = widgets.VBox if style in {"sx-track", "sx-add"} else widgets.Box
    box = kind(list(parts))
    box.add_class(style)
    return box
