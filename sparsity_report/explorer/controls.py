"""The explorer's controls: menus, search, slider and buttons, and what they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from sparsity_report.explorer.control_state import CURVES, GROUPINGS, LIVE, SORTS
from sparsity_report.explorer.details import policy_label
from sparsity_report.explorer.view import View
from sparsity_report.untrusted.display_text import distinct_names
from sparsity_report.words import number_format
from sparsity_report.words.column_titles import head
from sparsity_report.words.display_names import group_name
from sparsity_report.words.sentences import say

Choices = list[tuple[str, str]]
# Levels up to which each has its text under the slider.
_TICKS = 8


def choices(view: View, name: str) -> Choices:
    """Return what a menu offers: text for people, and the value of the trait of that name."""
    if name == "against":
        return list(zip(distinct_names(view.variants), view.variants, strict=True))
    if name == "variant":
        levels = LIVE if view.policies else {}
        texts = [*distinct_names(view.variants), *map(say, levels.values())]
        return list(zip(texts, [*view.variants, *levels], strict=True))
    if name == "policy":
        return [(policy_label(policy), policy) for policy in view.policies]
    if name == "metric":
        keys = list(view.figures.metrics)
        return list(zip(distinct_names(list(map(view.figures.name, keys))), keys, strict=True))
    if name == "curve":
        return [(say(CURVES[key]), key) for key in view.curves]
    if name == "modules":
        named = {"prunable": say("column.prunable"), "all": say("explorer.choice_all")}
        return [(named.get(key) or group_name(key), key) for key in view.scopes()]
    labels = GROUPINGS if name == "grouping" else SORTS
    return [(say(key), value) for value, key in labels.items()]


class Level(anywidget.AnyWidget):
    """The slider: a range over the levels of a policy, its scale, and a field to type one in."""

    _esm = (Path(__file__).parent / "level.js").read_text(encoding="utf-8")
    value = traitlets.Float().tag(sync=True)
    levels = traitlets.List([0.0]).tag(sync=True)
    texts = traitlets.List(["–"]).tag(sync=True)
    ticks: Any = traitlets.List().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    field = traitlets.Unicode().tag(sync=True)
    live = traitlets.Bool().tag(sync=True)
    disabled = traitlets.Bool().tag(sync=True)


class Controls:
    """The controls of an explorer, linked to its traits.

    Attributes
    ----------
    rows : list
        Widgets in the order they stand.
    shown, cards : ipywidgets.HTML
        What is shown, and its large numbers.
    level : Level
        The slider.
    against : ipywidgets.Dropdown
        What is compared with.
    """

    def __init__(
        self,
        explorer: traitlets.HasTraits,
        view: View,
        parts: Any,
        actions: Mapping[str, Callable[[], None]],
    ) -> None:
        self._parts = parts
        self._said, self.shown, self.cards = (widgets.HTML() for _ in range(3))
        self.shown.add_class("sx-state")
        names = {
            "variant": say("explorer.shown_variant_menu"),
            "metric": say("explorer.metric_menu"),
            "modules": head("modules"),
            "grouping": say("explorer.bar_grouping_menu"),
            "sort": say("explorer.sort_menu"),
            "curve": say("explorer.curve_menu"),
            "policy": say("explorer.pruning_policy_menu"),
            "against": say("explorer.compare_with_menu"),
        }
        menus = {
            name: widgets.Dropdown(
                options=choices(view, name), value=getattr(explorer, name), description=title
            )
            for name, title in names.items()
            if len(choices(view, name)) > (name == "curve")
        }
        self._variants, self._policies = menus["variant"], menus.get("policy")
        self.against = menus["against"]
        logarithmic = widgets.Checkbox(description=say("explorer.log_scale"), indent=False)
        search = widgets.Text(
            description=say("explorer.search"), placeholder=say("explorer.search_placeholder")
        )
        nothing = _button(
            say("explorer.clear_selection"),
            say("explorer.clear_selection_tooltip"),
            actions["nothing"],
        )
        self._steps = [
            _button(say("explorer.undo"), say("explorer.undo_tooltip"), actions["undo"]),
            _button(say("explorer.redo"), say("explorer.redo_tooltip"), actions["redo"]),
            _button(say("explorer.reset"), say("explorer.reset_tooltip"), actions["reset"]),
        ]
        top = [menus[name] for name in names if name in menus and name not in {"policy", "against"}]
        steps = _box("sx-steps", *self._steps)
        self.level = Level(
            name=say("explorer.sparsity_slider"), field=say("explorer.sparsity_field")
        )
        self.offer_levels(view, menus["policy"].value if "policy" in menus else "")
        self._add = _button(
            say("explorer.add_variants"), say("explorer.add_variants_tooltip"), actions["add"]
        )
        self._add.disabled = not view.policies
        track = [menus["policy"]] if "policy" in menus else []
        level = _box("sx-level", *track, self.level, _box("sx-add", self._add, self._said))
        controls = _box("sx-controls", *top, search, logarithmic, nothing)
        self.rows = [controls, level, _box("sx-now", self.shown, steps), self.cards]
        linked = menus | {"log_scale": logarithmic, "search": search, "sparsity": self.level}
        for name, control in linked.items():
            traitlets.link((explorer, name), (control, "value"))

    def offer(self, view: View, variant: str) -> None:
        """Give the menus of variants new choices without a change of those shown."""
        shown = {"variant": (self._variants, variant), "against": (self.against, None)}
        for name, (menu, value) in shown.items():
            kept = menu.value if value is None else value
            with menu.hold_trait_notifications():
                menu.options = choices(view, name)
                menu.value = kept
        if self._policies is not None and view.policies:
            chosen = self._policies.value
            with self._policies.hold_trait_notifications():
                self._policies.options = choices(view, "policy")
                self._policies.value = chosen

    def offer_levels(self, view: View, policy: str) -> None:
        """Let the slider go over the levels of a policy."""
        kept = view.policies.get(policy)
        self.level.disabled = kept is None
        if kept is None:
            return
        levels, even = kept.sparsities, view.break_even()
        every = [share for share in (0, 0.25, 0.5, 0.75, 0.99) if share <= levels[-1]]
        shares = levels if len(levels) <= _TICKS else every
        ticks: list[tuple[float, str, bool]] = [(s, number_format.level(s), False) for s in shares]
        if even is not None and even <= levels[-1]:
            ticks.append((even, say("explorer.csr_break_even", share=even), True))
        with self.level.hold_sync():
            self.level.levels, self.level.ticks = levels, ticks
            self.level.texts = [number_format.level(share) for share in levels]

    def tell(self, text: str) -> None:
        """Show a message beside the slider."""
        self._said.value = str(self._parts.said(text))

    def allow(self, back: bool, forward: bool, reset: bool) -> None:
        """Let steps be taken that there are."""
        for button, possible in zip(self._steps, (back, forward, reset), strict=True):
            button.disabled = not possible


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
    kind = widgets.VBox if style == "sx-add" else widgets.Box
    box = kind(list(parts))
    box.add_class(style)
    return box
