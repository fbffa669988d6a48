"""The controls of a study's explorer: menus, search, slider, tools and buttons."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer.actions import DENSE, FREE, NOW
from sparsity_report.explorer.box_explorer import Choices, linked_menus
from sparsity_report.explorer.control_state import CURVES, GROUPINGS, LIVE, SORTS
from sparsity_report.explorer.details import policy_label
from sparsity_report.explorer.view import View
from sparsity_report.untrusted.display_text import distinct_names
from sparsity_report.viewer.copied_code import FORMS
from sparsity_report.words import number_format
from sparsity_report.words.display_names import group_name, head
from sparsity_report.words.sentences import say

# Functions of the buttons and of the field of the budget, by name.
Actions = Mapping[str, Callable[..., None]]
# Most levels of which each has a label under the slider.
_TICKS = 8
#: Traits that have a menu, and the keys of its label; the title of the column if empty.
MENUS = {
    "variant": "explorer.shown_variant_menu",
    "metric": "explorer.metric_menu",
    "modules": "",
    "grouping": "explorer.bar_grouping_menu",
    "sort": "explorer.sort_menu",
    "curve": "explorer.curve_menu",
    "policy": "explorer.pruning_policy_menu",
    "against": "explorer.compare_with_menu",
}
_BOUNDS = {
    DENSE: "explorer.bound_dense",
    NOW: "explorer.bound_current",
    FREE: "explorer.bound_none",
}
# Labels and tooltips of the buttons.
_BUTTONS = {
    "add": ("explorer.add_variants", "explorer.add_variants_tooltip"),
    "clear": ("explorer.clear_selection", "explorer.clear_selection_tooltip"),
    "undo": ("explorer.undo", "explorer.undo_tooltip"),
    "redo": ("explorer.redo", "explorer.redo_tooltip"),
    "reset": ("explorer.reset", "explorer.reset_tooltip"),
    "bound": ("explorer.bound_button", "explorer.bound_tooltip"),
    "copy": ("explorer.copy_button", "explorer.copy_tooltip"),
}


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
        Widgets from top to bottom.
    cards : ipywidgets.HTML
        Large numbers of the value in view.
    level : Level
        The slider.
    bounds, copies : ipywidgets.Dropdown
        Menus of the bounds of layers, and of the forms of copies.
    """

    def __init__(
        self, explorer: traitlets.HasTraits, view: View, parts: Any, shown: Any, actions: Actions
    ) -> None:
        self._parts = parts
        self._message, self.cards = widgets.HTML(), widgets.HTML()
        labels = {
            name: say(key) if key else head(name)
            for name, key in MENUS.items()
            if len(choices(view, name)) > (name == "curve")
        }
        menus = linked_menus(explorer, labels, partial(choices, view))
        self._menus = {
            name: menus[name] for name in ("variant", "against", "policy") if name in menus
        }
        log_scale = widgets.Checkbox(description=say("explorer.log_scale"), indent=False)
        search = widgets.Text(
            description=say("explorer.search"), placeholder=say("explorer.search_placeholder")
        )
        self.level = Level(
            name=say("explorer.sparsity_slider"), field=say("explorer.sparsity_field")
        )
        self.offer_levels(view, menus["policy"].value if "policy" in menus else "")
        limits = [
            (say("explorer.bound_at_most", share=n / 10), f"{n / 10:g}") for n in range(1, 10)
        ]
        kinds = [*((say(key), kind) for kind, key in _BOUNDS.items()), *limits]
        self.bounds = widgets.Dropdown(options=kinds, description=say("explorer.layer_bounds"))
        forms = [(say(key), form) for form, key in FORMS.items()]
        self.copies = widgets.Dropdown(options=forms, description=say("explorer.copy_as"))
        budget = widgets.Text(
            description=say("explorer.budget"),
            placeholder=say("explorer.budget_placeholder"),
            continuous_update=False,
        )
        budget.observe(lambda change: self._try(actions["within"], change["new"]), "value")
        # A menu alone would act at every arrow key.
        buttons = {name: self._button(name, actions[name]) for name in _BUTTONS}
        buttons["add"].disabled = not view.policies
        self._steps = [buttons[name] for name in ("undo", "redo", "reset")]
        top = [menu for name, menu in menus.items() if name not in {"policy", "against"}]
        policy = [menus["policy"]] if "policy" in menus else []
        bound, copy = (self.bounds, buttons["bound"]), (self.copies, buttons["copy"])
        tools = _box("sx-controls", menus["against"], budget, *bound, *copy)
        tools.add_class("sx-tools")
        self.rows = [
            _box("sx-controls", *top, search, log_scale, buttons["clear"]),
            _box("sx-level", *policy, self.level, _box("sx-add", buttons["add"], self._message)),
            tools,
            _box("sx-now", shown, _box("sx-steps", *self._steps)),
            self.cards,
        ]
        linked = {"log_scale": log_scale, "search": search, "sparsity": self.level}
        for name, control in linked.items():
            traitlets.link((explorer, name), (control, "value"))

    def _button(self, name: str, act: Callable[[], None]) -> Any:
        """Return a button that is disabled while it acts; afterwards it has the focus again."""
        text, tooltip = map(say, _BUTTONS[name])
        button = widgets.Button(description=text, tooltip=tooltip)

        def press(_: Any) -> None:
            button.disabled = True
            try:
                self._try(act)
            finally:
                button.disabled = False

        button.on_click(press)
        return button

    def _try(self, act: Callable[..., None], *values: str) -> None:
        """Act, and show an error as a message."""
        try:
            act(*values)
        except SparsityReportError as error:
            self.tell(str(error))

    def offer(self, view: View, variant: str) -> None:
        """Give the menus of variants and policies new options and keep the chosen ones."""
        for name, menu in self._menus.items():
            value = variant if name == "variant" else menu.value
            if options := choices(view, name):
                with menu.hold_trait_notifications():
                    menu.options, menu.value = options, value

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
        self._message.value = str(self._parts.said(text))

    def allow(self, back: bool, forward: bool, reset: bool) -> None:
        """Enable the buttons of the possible steps."""
        for button, is_possible in zip(self._steps, (back, forward, reset), strict=True):
            button.disabled = not is_possible


def _box(style: str, *parts: Any) -> Any:
    kind = widgets.VBox if style == "sx-add" else widgets.Box
    box = kind(list(parts))
    box.add_class(style)
    return box
