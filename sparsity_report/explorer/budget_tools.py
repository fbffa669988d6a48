"""The explorer's tools: a budget, bounds of layers, and what is copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ipywidgets as widgets
import pandas as pd

from sparsity_report.counting.bounds import Bounds
from sparsity_report.errors import SparsityReportError
from sparsity_report.report.copied_code import FORMS
from sparsity_report.sparse.shares import zero_share
from sparsity_report.study.levels.levels import Levels
from sparsity_report.words.sentences import say

# How layers are held: not at all, as they come, or as they are now; else a share at most.
FREE, DENSE, NOW = "free", "dense", "now"
_HOLDS = {DENSE: "explorer.bound_dense", NOW: "explorer.bound_current", FREE: "explorer.bound_none"}
_MOST = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))


class Actions(NamedTuple):
    """What the tools do; each may refuse in one line, which is told."""

    within: Callable[[str], None]
    hold: Callable[[str], None]
    copy: Callable[[str], None]
    tell: Callable[[str], None]


class Tools:
    """A row of controls that act on an explorer.

    Attributes
    ----------
    row : ipywidgets.Box
    """

    def __init__(self, actions: Actions, against: Any) -> None:
        self._tell = actions.tell
        budget = widgets.Text(
            description=say("explorer.budget"),
            placeholder=say("explorer.budget_placeholder"),
            continuous_update=False,
        )
        budget.observe(lambda change: self._do(actions.within, change["new"]), "value")
        holds = widgets.Dropdown(options=_holds(), description=say("explorer.layer_bounds"))
        which = say("explorer.bound_tooltip")
        forms = [(say(name), key) for key, name in FORMS.items()]
        copies = widgets.Dropdown(options=forms, description=say("explorer.copy_as"))
        where = say("explorer.copy_tooltip")
        pairs = (
            *(holds, self._button(say("explorer.bound_button"), which, actions.hold, holds)),
            *(copies, self._button(say("explorer.copy_button"), where, actions.copy, copies)),
        )
        self.row = widgets.Box([against, budget, *pairs])
        self.row.add_class("sx-controls")
        self.row.add_class("sx-tools")

    def _button(self, text: str, tooltip: str, act: Callable[[str], None], menu: Any) -> Any:
        """Return the button that does what is chosen: a menu by itself acts at every arrow key."""
        button = widgets.Button(description=text, tooltip=tooltip)
        button.on_click(lambda _: self._do(act, menu.value))
        return button

    def _do(self, act: Callable[[str], None], value: str) -> None:
        try:
            act(value)
        except SparsityReportError as error:
            self._tell(str(error))


def bounds_with(bounds: Bounds, rows: pd.DataFrame, names: Iterable[str], how: str) -> Bounds:
    """Return bounds with those of some layers changed; of no layers, none is left.

    Parameters
    ----------
    bounds : mapping
        By module or group.
    rows : pandas.DataFrame
        Layers as they are now.
    names : iterable of str
        Of modules; those without prunable weights are passed over.
    how : str
        ``"free"``, ``"dense"``, ``"now"`` or a share at most.
    """
    chosen = list(names)
    if how == FREE and not chosen:
        return {}
    changed = dict(bounds)
    prunable = rows[rows["prunable"] & rows["module_name"].isin(chosen)]
    if prunable.empty:
        raise SparsityReportError(say("explorer.bound_needs_selection"))
    columns = (prunable[key] for key in ("module_name", "weight_total", "weight_nonzero"))
    for name, total, nonzero in zip(*columns, strict=True):
        if how == FREE:
            changed.pop(name, None)
        elif how == NOW:
            share = zero_share(total, nonzero) or 0.0
            changed[name] = (share, share)
        else:
            changed[name] = 0.0 if how == DENSE else float(how)
    return changed


def held(bounds: Bounds, levels: Levels | None) -> str:
    """Say how many layers or groups are held, and over which levels the slider still goes."""
    if not bounds or levels is None:
        return say("explorer.bounds_empty")
    return say(
        "explorer.bounds_summary",
        n=len(bounds),
        low=levels.sparsities[0],
        high=levels.sparsities[-1],
    )


def _holds() -> list[tuple[str, str]]:
    most = [(say("explorer.bound_at_most", share=share), f"{share:g}") for share in _MOST]
    return [*((say(text), key) for key, text in _HOLDS.items()), *most]
