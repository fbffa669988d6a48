"""The explorer of a notebook: a study in one linked view, with a live sparsity slider."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, overload

import ipywidgets as widgets
import pandas as pd
import traitlets
from markupsafe import Markup

from sparsity_report.counting.counts import count_weights
from sparsity_report.draw.theme import model_names
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer import details, still_picture
from sparsity_report.explorer.actions import Asked, speaks
from sparsity_report.explorer.anywidget_host import announce, early_picture
from sparsity_report.explorer.budget_tools import Tools
from sparsity_report.explorer.control_state import (
    CSR_AT_LEVEL,
    LIVE,
    MASKED_AT_LEVEL,
    MODEL_ORDER,
    State,
)
from sparsity_report.explorer.controls import Controls, choices
from sparsity_report.explorer.history import History
from sparsity_report.explorer.page_widgets import STYLE, Picture, Shell
from sparsity_report.explorer.pair_explorer import PairExplorer
from sparsity_report.explorer.picture import filled, pictures, with_data
from sparsity_report.explorer.scene import Scene
from sparsity_report.explorer.still_picture import Still
from sparsity_report.explorer.view import View
from sparsity_report.hooks import hooks
from sparsity_report.report.templates import environment
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.policy_names import GLOBAL
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.variants import fingerprint
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.weights.weights import Weights
from sparsity_report.words.languages import spoken
from sparsity_report.words.sentences import say

# Views of one explorer, besides the first, that are drawn for their own widths.
_VIEWS = 3
# Of the state all but the width are attributes of an explorer.
_STATE: tuple[str, ...] = State._fields[:-1]
# Of these the value is a name, or names, that there are.
_CHOSEN = ("variant", "against", "policy", "metric", "modules", "grouping", "sort", "curve")
_NAMED = (*_CHOSEN, "detail", "selection")
# A change of others draws another map, without the brush.
_KEEP_THE_BRUSH = {"policy", "bounds", "sparsity", "sort", "log_scale", "selection", "detail"}


@overload
def explore(
    study: Comparison, weights: Weights | None = None, *, columns: pd.DataFrame | None = None
) -> Explorer: ...


@overload
def explore(study: Pair) -> PairExplorer: ...


def explore(
    study: Comparison | Pair, weights: Weights | None = None, *, columns: pd.DataFrame | None = None
) -> Explorer | PairExplorer:
    """Return the explorer of a study, or of two checkpoints, to be shown by a notebook cell.

    It speaks the language that is spoken when it is made, see :func:`sparsity_report.speaking`.

    Parameters
    ----------
    study : Comparison or Pair
    weights : Weights, optional
        The first variant's, for a study that was read from a file: with them histograms are drawn
        and a level becomes a variant.
    columns : pandas.DataFrame, optional
        Figures of your own: ``module_name``, once each, and columns of numbers, each a metric of
        the map by its name.

    Returns
    -------
    Explorer or PairExplorer

    Raises
    ------
    SparsityReportError
        It is no study and no pair, or an empty one, `weights` are not those it was made of, or
        `columns` holds what is no number.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> explorer = sr.explore(sr.compare(sr.dense(sr.load()), sr.masked(pruning)))
    >>> explorer.sparsity = 0.6
    >>> explorer.selection = [n for n in explorer.layers()["module_name"] if "fc1" in n]
    >>> len(explorer.layers())
    4
    >>> pair = sr.compare_checkpoints(sr.load(), pruning)
    >>> sr.explore(pair).metric
    'moved'
    """
    if isinstance(study, Pair):
        if weights is not None or columns is not None:
            raise SparsityReportError("explore: a pair takes no weights= and no columns=")
        return PairExplorer(study)
    if not isinstance(study, Comparison):
        raise SparsityReportError(
            f"explore: a {type(study).__name__} is no study and no pair; compare() or "
            "compare_checkpoints() makes one"
        )
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
    return Explorer(study, columns)


class Explorer(Asked):
    """A study in one linked view; every attribute here can be set and observed.

    Attributes
    ----------
    study : Comparison
        What is shown; :meth:`add` puts variants in.
    selection : tuple of str
        Names of the selected modules; empty: nothing is singled out.
    sparsity : float
        The level the slider stands at. Moving it shows the level in place of a variant; where a
        variant is shown the slider stands at its zeros.
    policy : str
        How a level is pruned: ``"global_magnitude"``, and of ``"layerwise_magnitude"``,
        ``"N:4"`` and ``"N:8"`` those that follow exactly from what was counted.
    variant : str
        The variant shown: a name of the study's, ``"Masked at level"`` or ``"CSR at level"``.
    metric : str
        ``"sparsity"``, ``"flops_per_token"``, ``"total"``, ``"nonzero"``, ``"stored_bytes"``,
        ``"bytes_ratio"``; ``"difference"`` of the zeros from those of `against`; ``"beyond"`` what
        a bell curve expects and ``"sensitivity"``, where these are known; a column of your own.
    against : str
        The variant of the study that what is shown is compared with.
    modules : str
        ``"prunable"``, ``"all"`` or a group.
    grouping : {"group", "projection", "block"}
        What the bars sum over.
    sort : {"model order", "largest first", "smallest first"}
    log_scale : bool
        Whether counts, FLOPs and bytes are drawn on a logarithmic scale.
    curve : {"quality", "bytes"}
        Quality against bytes, where variants were scored, or bytes over sparsity.
    search : str
        Selects the modules with this in their names, whatever the case.
    detail : str or None
        The module looked at closely.
    bounds : dict
        What single layers or groups lose at most at a level of global pruning, the others making up
        for it; see :func:`sparsity_report.bounded_magnitude`.
    chart : altair chart
        The picture as it stands, with its data, ready for ``.save``.
    """

    study = traitlets.Instance(Comparison)
    selection = traitlets.Tuple()
    sparsity = traitlets.Float().tag(sync=True)
    policy = traitlets.Unicode().tag(sync=True)
    variant = traitlets.Unicode().tag(sync=True)
    metric = traitlets.Unicode("sparsity").tag(sync=True)
    against = traitlets.Unicode().tag(sync=True)
    modules = traitlets.Unicode("prunable").tag(sync=True)
    grouping = traitlets.Unicode("group").tag(sync=True)
    sort = traitlets.Unicode(MODEL_ORDER).tag(sync=True)
    log_scale = traitlets.Bool().tag(sync=True)
    curve = traitlets.Unicode().tag(sync=True)
    search = traitlets.Unicode().tag(sync=True)
    detail = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    chart = traitlets.Any(read_only=True)

    def __init__(self, study: Comparison, columns: pd.DataFrame | None = None) -> None:
        self.language = spoken()
        # What its owner changes later is not what was looked at.
        self._columns = columns.copy() if isinstance(columns, pd.DataFrame) else columns
        self._view = View(study, None, self._columns)
        self._scene, self._pictures = Scene(self._view), pictures()
        self._picture: Picture | None = None
        self._width = still_picture.WIDTH
        self._brushed: tuple[str, ...] = ()
        self._quiet = False
        self._parts: Any = environment().get_template("explorer.html.j2").module
        self._shell = Shell(key=format(id(self), "x"))
        self._beside, self._made = Still(self._still, self._shell.key), early_picture()
        self._head, self._table, self._detail = (widgets.HTML() for _ in range(3))
        self._place, below = widgets.Box(), widgets.Box([self._table, self._detail])
        self._place.add_class("sx-chart")
        below.add_class("sx-below")
        with self._silently():
            super().__init__(study=study)
            self.policy = next(iter(self._view.policies), "")
            self.sparsity = self.nearest(0.3)
            self.variant = self._first_shown()
            self.against = study.facts.baseline
            self.modules = self._view.scopes()[0]
            self.curve = next(iter(self._view.curves), "")
            self._stand_at_variant()
            self.detail = self._view.sparsest(self._state())
        self._history = History(self._state())
        actions = {
            "add": self._add_clicked,
            "nothing": lambda: self.set_trait("selection", ()),
            "undo": self.undo,
            "redo": self.redo,
            "reset": self.reset,
        }
        self._controls = Controls(self, self._view, self._parts, actions)
        self._tools = Tools(self.actions, self._controls.against)
        above = [*self._controls.rows[:2], self._tools.row, *self._controls.rows[2:]]
        self.children = [self._shell, self._head, *above, self._place, below]
        self.add_class("sparsity-explorer")
        self._shell.observe(self._measured, ["width", "widths"])
        for part in (self._shell, self._controls.level):
            part.on_msg(self._heard)
        self._refresh()
        self.observe(self._changed, [*_STATE, "search", "study"])

    def _first_shown(self) -> str:
        """Return what is shown first: what was pruned, else a level, for a model has no zeros."""
        first = (*self.study.facts.prunings, self._view.variants[0])[0]
        return first if self.study.facts.prunings or not self._view.policies else MASKED_AT_LEVEL

    def layers(self) -> pd.DataFrame:
        """Return the selected layers of what is shown, in the order of the table.

        With nothing selected, all layers in view. Columns as of ``study.layers``; at a level, as of
        :meth:`Comparison.at_level`.
        """
        return self._view.layers(self._state())

    @speaks
    def undo(self) -> None:
        """Show what was shown before the last change."""
        self._show_again(self._history.back())

    @speaks
    def redo(self) -> None:
        """Take back the last :meth:`undo`."""
        self._show_again(self._history.forward())

    @speaks
    def reset(self) -> None:
        """Show what was shown first."""
        self._history.note(self._history.first._replace(width=self._width), "reset")
        self._show_again(self._history.first)

    def _show_again(self, state: State) -> None:
        """Set every trait as it was; the study keeps the variants that were added."""
        with self._silently():
            self.search, self._brushed = "", ()
            if state.bounds != self.bounds:
                self.policy, self.bounds = GLOBAL, dict(state.bounds)
                self._look_anew()
            for name in sorted(_STATE, key="policy".__ne__):
                self.set_trait(name, getattr(state, name))
            self._controls.offer_levels(self._view, self.policy)
            self.sparsity = state.sparsity
        self._refresh()
        announce(self)

    @speaks
    def _still(self) -> dict[str, str]:
        look, data = self._scene.look_and_data(self._state()._replace(width=still_picture.WIDTH))
        # Numbers are what a saved notebook would grow by most, and the colours say it.
        look = look._replace(numbers=len(data["cells"]) <= still_picture.NUMBERED)
        drawn = still_picture.picture(with_data(self._pictures.compiled(look), data))
        style = Markup(STYLE)
        moving, packed = still_picture.sliding(self.study, len(data["cells"]))
        page = self._parts.still(
            self._shell.key,
            style,
            self._heading(),
            self._parts.state(details.shown(self._state())),
            look.alt,
            drawn,
            moving,
            packed,
        )
        return {"text/html": str(page), "text/plain": "\n".join(hooks.sentences(self.study))}

    def _state(self) -> State:
        return State._make([*(getattr(self, name) for name in _STATE), self._width])

    def _heading(self) -> Any:
        findings, totals = hooks.sentences(self.study), details.totals(self.study)
        return self._parts.head(model_names(self.study), findings, totals)

    # What has changed, and what follows from it.

    @speaks
    def _changed(self, change: Any) -> None:
        if self._quiet:
            return
        name = change["name"]
        with self._silently():
            if name == "study":
                self._look_anew()
                self._show_heading()
            elif name == "bounds":
                self.policy = GLOBAL
                self._look_anew()
                self._controls.offer_levels(self._view, self.policy)
                self.sparsity = self.nearest(self.sparsity)
                self._show_level()
            elif name == "policy":
                self._controls.offer_levels(self._view, self.policy)
                self.sparsity = self.nearest(self.sparsity)
                self._show_level()
            elif name == "sparsity":
                self._show_level()
            elif name == "variant":
                self._stand_at_variant()
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
        if name != "study":
            self._history.note(self._state(), name)
        self._refresh()
        announce(self)

    def _look_anew(self) -> None:
        self._view = View(self.study, self.bounds, self._columns)
        self._scene = Scene(self._view)
        self._controls.offer(self._view, self.variant)

    def _show_level(self) -> None:
        """Show the level in place of a variant, in its layout."""
        if self.variant not in LIVE and self._view.policies:
            layout = self.study.variants.set_index("variant")["layout"][self.variant]
            self.variant = MASKED_AT_LEVEL if layout == "masked" else CSR_AT_LEVEL

    def _stand_at_variant(self) -> None:
        """Let the slider stand where the variant shown does, if that is of the same model."""
        if self.variant in LIVE:
            return
        prints = self.study.variants.set_index("variant")["fingerprint"]
        share = self.study.facts.total(self.variant, "sparsity_prunable")
        if share is not None and prints[self.variant] == prints.iloc[0]:
            self.sparsity = self.nearest(share)

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
        spec = self._pictures.compiled(look)
        self.set_trait("chart", filled(spec, data))
        if self._picture is None:
            return
        with self._picture.hold_sync():
            self._picture.brushed = bool(self._brushed)
            self._picture.data = data
            self._picture.hint = say("explorer.map_keys_hint", metric=look.name)
            self._picture.along = say("explorer.quality_curve_keys_hint")
            self._picture.axes = [list(look.blocks), list(look.projections)]
            self._picture.spec = spec
            self._picture.further = [
                self._pictures.compiled(self._scene.look_and_data(state._replace(width=w))[0])
                for w in self._further()
            ]
        self._beside.follow()
        controls = self._controls
        controls.level.live = state.live
        controls.shown.value = str(self._parts.state(details.shown(state)))
        controls.cards.value = str(self._parts.cards(*details.cards(self._view, state)))
        first = self._history.first._replace(width=state.width)
        controls.allow(*self._history.can_go, reset=state != first)
        self._table.value = str(self._parts.layers(details.layers(self._view, state)))
        layer = details.layer(self._view, state)
        self._detail.value = str(self._parts.layer(layer)) if layer else ""
        lost = say("explorer.search_no_match", text=short_name(self.search))
        if self.search and not self.selection:
            self._controls.tell(lost)
        elif not self.told():
            self._controls.tell("")

    def _further(self) -> list[int]:
        """Return the widths of other views, of so many as a person looks at."""
        return [max(320, w) for w in self._shell.widths if w != self._width][:_VIEWS]

    def _show_heading(self) -> None:
        if self._picture is not None:
            self._head.value = str(self._heading())

    # What the person does in the browser.

    @speaks
    def _measured(self, change: Any) -> None:
        """Draw for the width there is; only now, so that nothing is drawn where nobody looks."""
        if change["name"] == "width":
            self._width = max(320, change["new"])
        elif self._picture is None:
            return
        if self._picture is not None:
            self._refresh()
            return
        self._picture = self._made or Picture()
        self._picture.on_msg(self._heard)
        self._picture.observe(self._pulled, "pulled")
        self._show_heading()
        self._refresh()
        self._place.children = [self._picture]
        self._shell.live = True

    @speaks
    def _heard(self, _: Any, content: dict[str, Any], __: Any) -> None:
        state, more = self._state(), bool(content.get("more"))
        ((kind, at), *_) = content.items()
        if kind in {"undo", "redo", "reset"}:
            getattr(self, kind)()
        elif kind == "level":
            # Asked for where it stands already, in place of a variant.
            with self._silently():
                self._show_level()
            self._changed({"name": "level"})
        elif kind == "brush":
            names = self._view.brushed(state, at.get("block", []), at.get("projection", []))
            self._brushed = self.selection = tuple(names)
        elif kind == "row" and not more:
            # Looking at one layer keeps the rest.
            self.detail = self._view.names[at]
        elif kind == "variant":
            self.variant = self._scene.variant(state, at) or self.variant
        else:
            self._select(self._scene.members(state, kind, at), more)

    @speaks
    def _pulled(self, change: Any) -> None:
        """Show what the curve was pulled to: a measured variant, or a level in place of one."""
        at = change["new"][0]
        if isinstance(at, str):
            self.variant = self._scene.quality.variant(at) or self.variant
            return
        level = self.nearest(float(at))
        if level == self.sparsity:
            self._heard(None, {"level": level}, None)
        self.sparsity = level

    def _select(self, names: list[str], more: bool) -> None:
        """Select modules, beside those selected if wanted; what is selected is let go."""
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

    @traitlets.validate(*_NAMED)
    @speaks
    def _check_name(self, proposal: Any) -> Any:
        """Refuse what no menu offers, or a module the study does not have."""
        name, value = proposal["trait"].name, proposal["value"]
        if name in {"detail", "selection"}:
            known = self._view.names
        else:
            known = [key for _, key in choices(self._view, name)] or [""]
        names, asked = set(known), value if name == "selection" else (value,)
        for one in asked if value is not None else ():
            if isinstance(one, str) and one in names:
                continue
            if known is self._view.names:
                known = [*(difflib.get_close_matches(str(one), known, 1) or known[:1]), "…"]
            words = {"trait": name, "known": ", ".join(known), "value": repr(one)}
            raise SparsityReportError(say("explorer.choice_unknown", **words))
        return tuple(dict.fromkeys(value)) if name == "selection" else value

    @traitlets.validate("study")
    @speaks
    def _check_study(self, proposal: Any) -> Comparison:
        """Let variants be added; the menus and the slider are of the study there was."""
        study: Comparison = proposal["value"]
        before, after = (s.variants[["variant", "fingerprint"]] for s in (self._view.study, study))
        if not after.head(len(before)).equals(before):
            raise SparsityReportError(say("explorer.study_not_extended"))
        return study
