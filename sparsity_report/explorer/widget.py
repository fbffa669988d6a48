"""The explorer of a notebook: a study in one linked view, with a live sparsity slider."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, overload

import ipywidgets as widgets
import pandas as pd
import traitlets

from sparsity_report.counting.counts import count_weights
from sparsity_report.draw.theme import model_names
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer import actions, details, still_picture
from sparsity_report.explorer import box_explorer as base_explorer
from sparsity_report.explorer.box_explorer import BaseExplorer, in_own_language
from sparsity_report.explorer.control_state import (
    CSR_AT_LEVEL,
    LIVE,
    MASKED_AT_LEVEL,
    MODEL_ORDER,
    State,
)
from sparsity_report.explorer.controls import MENUS, Controls, choices
from sparsity_report.explorer.history import History
from sparsity_report.explorer.picture import pictures
from sparsity_report.explorer.scene import Scene
from sparsity_report.explorer.view import View, bounded_levels
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.policy_names import GLOBAL
from sparsity_report.study.levels.budget import budget_finding, level_within, read_budget
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.variants import fingerprint
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.viewer.copied_code import FORMS
from sparsity_report.viewer.pair_explorer import PairExplorer
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

# Most further views of one explorer, such as a second tab, each drawn for its width.
_VIEWS = 3
# Fields of the state that are traits: all but the width.
_TRAITS: tuple[str, ...] = State._fields[:-1]
# Changes of other traits draw another map, without the brush.
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
    """Return the explorer of a study or a pair, for a notebook cell.

    The explorer keeps the language in use, see :func:`sparsity_report.speaking`.

    Parameters
    ----------
    study : Comparison or Pair
        Value to explore.
    weights : Weights, optional
        Weights of the first variant, for a study that was read from a file. They are needed for
        histograms and to add a level as a variant.
    columns : pandas.DataFrame, optional
        Further metrics of the map: ``module_name``, once each, and columns of numbers, whose names
        are those of the metrics.

    Returns
    -------
    Explorer or PairExplorer
        The widget.

    Raises
    ------
    SparsityReportError
        If `study` is neither a study nor a pair, or is empty, `weights` are not those of the
        first variant, or `columns` holds other values than numbers.

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
            raise SparsityReportError(
                "explore: a pair takes no weights= and no columns=; call explore(pair)"
            )
        return PairExplorer(study)
    if not isinstance(study, Comparison):
        raise SparsityReportError(
            f"explore: a {type(study).__name__} is neither a study nor a pair; make one with "
            "compare() or compare_checkpoints()"
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


class Explorer(BaseExplorer):
    """A study in one linked view; every attribute here can be set and observed.

    Attributes
    ----------
    study : Comparison
        The study; :meth:`add` adds variants.
    selection : tuple of str
        Names of the selected modules; empty: all are shown alike.
    sparsity : float
        The level of the slider. Moving it shows the level instead of a variant. While a variant
        is shown, the slider stands at its sparsity.
    policy : str
        Pruning policy of the level: ``"global_magnitude"``, and those of
        ``"layerwise_magnitude"``, ``"N:4"`` and ``"N:8"`` that follow exactly from the counts.
    variant : str
        The variant in view: a name of the study, ``"Masked at level"`` or ``"CSR at level"``.
    metric : str
        ``"sparsity"``, ``"flops_per_token"``, ``"total"``, ``"nonzero"``, ``"stored_bytes"``,
        ``"bytes_ratio"``; ``"difference"``, the sparsity minus that of `against`; ``"beyond"``,
        zeros minus those of a Gaussian, and ``"sensitivity"``, where they are known; or a column
        of your own.
    against : str
        The variant of the study to compare with.
    modules : str
        ``"prunable"``, ``"all"`` or a group.
    grouping : {"group", "projection", "block"}
        What each bar sums over.
    sort : {"model order", "largest first", "smallest first"}
    log_scale : bool
        Whether counts, FLOPs and bytes have a logarithmic scale.
    curve : {"quality", "bytes"}
        Quality against bytes, where variants were scored, or bytes against sparsity.
    search : str
        Selects the modules whose names contain it, ignoring case.
    detail : str or None
        The module in detail.
    bounds : dict
        Largest sparsity of layers or groups at a level of global pruning; the others make up for
        it. See :func:`sparsity_report.bounded_magnitude`.
    chart : altair chart
        The picture with its data, ready for ``.save``.
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
    bounds = traitlets.Dict()

    def __init__(self, study: Comparison, columns: pd.DataFrame | None = None) -> None:
        # Later changes of the caller's frame do not change what is shown.
        self._columns = columns.copy() if isinstance(columns, pd.DataFrame) else columns
        self._view = View(study, None, self._columns)
        self._scene, self._pictures = Scene(self._view), pictures()
        self._brushed: tuple[str, ...] = ()
        super().__init__(study=study)
        with self._silently():
            self.policy = next(iter(self._view.policies), "")
            self.sparsity = self._nearest(0.3)
            self.variant = self._first_variant()
            self.against = study.facts.baseline
            self.modules = self._view.scopes()[0]
            self.curve = next(iter(self._view.curves), "")
            self._move_slider_to_variant()
            self.detail = self._view.sparsest(self._state())
        self._history = History(self._state())
        acts = {name: getattr(self, name) for name in ("add", "undo", "redo", "reset")}
        acts |= {"within": self._apply_budget, "clear": lambda: setattr(self, "selection", ())}
        acts |= {"bound": self._bound_layers, "copy": self._copy}
        self._controls = Controls(self, self._view, self._parts, self._shown, acts)
        self._table = widgets.HTML()
        below = widgets.Box([self._table, self._detail])
        below.add_class("sx-below")
        self.children = [self._shell, self._head, *self._controls.rows, self._place, below]
        for part in (self._shell, self._controls.level):
            part.on_msg(self._heard)
        self._refresh()
        self.observe(self._changed, [*_TRAITS, "search", "study"])

    def _first_variant(self) -> str:
        """Return the first pruning; of a study without any, a level if there are levels."""
        prunings = self.study.facts.prunings
        if not prunings and self._view.policies:
            return MASKED_AT_LEVEL
        return (*prunings, self._view.variants[0])[0]

    def layers(self) -> pd.DataFrame:
        """Return the selected layers in view, in the order of the table.

        Without a selection, return all layers in view. The columns are those of ``study.layers``,
        at a level those of :meth:`Comparison.at_level`.
        """
        return self._view.layers(self._state())

    @in_own_language
    def add(self) -> None:
        """Prune exactly at the level and add the variants, masked and CSR, to the study."""
        pruned = actions.level_variants(self._view, self._state())
        known = set(self._view.variants)
        self.study = self.study.with_variants(*(v for v in pruned if v.name not in known))
        self.variant = pruned[1].name

    @in_own_language
    def within(self, budget: str) -> str:
        """Move the slider to the level that meets a budget, and return the reason.

        See :func:`sparsity_report.level_within` for budgets. Budgets of bytes and FLOPs use the
        levels of the policy.
        """
        if self.bounds and read_budget(budget).kind == "perplexity":
            raise SparsityReportError(say("explorer.bounds_without_perplexity"))
        solved = level_within(self._view.study, budget, policy=self.policy)
        self.sparsity = solved.sparsity
        self.variant = MASKED_AT_LEVEL if solved.dense else CSR_AT_LEVEL
        return str(budget_finding(solved))

    @in_own_language
    def copied(self, form: str) -> str:
        """Return the value in view as code, a command or a file.

        Parameters
        ----------
        form : {"python", "json", "recipe", "thesis", "figure"}
        """
        return actions.copied_view(form, self._view, self._state(), self._history.first)

    @in_own_language
    def undo(self) -> None:
        """Undo the last change."""
        self._restore(self._history.back())

    @in_own_language
    def redo(self) -> None:
        """Take back the last :meth:`undo`."""
        self._restore(self._history.forward())

    @in_own_language
    def reset(self) -> None:
        """Show the first state again."""
        self._history.note(self._history.first._replace(width=self._width), "reset")
        self._restore(self._history.first)

    def _restore(self, state: State) -> None:
        """Set every trait to a state; the study keeps the added variants."""
        with self._silently():
            self.search, self._brushed = "", ()
            if state.bounds != self.bounds:
                self.policy, self.bounds = GLOBAL, dict(state.bounds)
                self._renew_view()
            for name in sorted(_TRAITS, key="policy".__ne__):
                self.set_trait(name, getattr(state, name))
            self._controls.offer_levels(self._view, self.policy)
            self.sparsity = state.sparsity
        self._controls.tell("")
        self._refresh()
        self._announce()

    def _state(self) -> State:
        return State._make([*(getattr(self, name) for name in _TRAITS), self._width])

    def _subject(self) -> base_explorer.Subject:
        return base_explorer.Subject(
            self.study, model_names(self.study), details.totals(self.study)
        )

    def _label(self) -> base_explorer.Shown:
        return details.shown(self._state())

    def _still_parts(self) -> base_explorer.StillParts:
        look, data = self._scene.look_and_data(self._state()._replace(width=still_picture.WIDTH))
        # Numbers in many cells would make a saved notebook much larger.
        look = look._replace(numbers=len(data["cells"]) <= still_picture.NUMBERED)
        slider = still_picture.sliding(self.study, len(data["cells"]))
        return base_explorer.StillParts(self._pictures.compiled(look), data, look.alt, *slider)

    # Changes of traits and their consequences.

    @in_own_language
    def _changed(self, change: Any) -> None:
        if self._quiet:
            return
        name, message = change["name"], ""
        with self._silently():
            if name == "study":
                self._renew_view()
                if self._picture is not None:
                    self._head.value = str(self._heading())
            elif name in {"bounds", "policy"}:
                if name == "bounds":
                    self.policy = GLOBAL
                    self._renew_view()
                self._controls.offer_levels(self._view, self.policy)
                self.sparsity = self._nearest(self.sparsity)
                self._show_level()
            elif name == "sparsity":
                self._show_level()
            elif name == "variant":
                self._move_slider_to_variant()
            elif name == "search":
                text = self.search.casefold()
                names = self._view.names if text else ()
                self.selection = tuple(name for name in names if text in name.casefold())
                if text and not self.selection:
                    message = say("explorer.search_no_match", text=short_name(self.search))
            elif name == "selection" and self.search:
                self.search = ""
            if name in {"selection", "search"} and self.selection:
                self.detail = self.detail if self.detail in self.selection else self.selection[0]
            if name not in _KEEP_THE_BRUSH or self._brushed != self.selection:
                self._brushed = ()
        if name != "study":
            self._history.note(self._state(), name)
        self._controls.tell(message)
        self._refresh()
        self._announce()

    def _renew_view(self) -> None:
        self._view = View(self.study, self.bounds, self._columns)
        self._scene = Scene(self._view)
        self._controls.offer(self._view, self.variant)

    def _show_level(self) -> None:
        """Show the level instead of a variant, in the layout of that variant."""
        if self.variant not in LIVE and self._view.policies:
            layout = self.study.variants.set_index("variant")["layout"][self.variant]
            self.variant = MASKED_AT_LEVEL if layout == "masked" else CSR_AT_LEVEL

    def _move_slider_to_variant(self) -> None:
        """Move the slider to the sparsity of the variant in view, if its model is the first's."""
        if self.variant in LIVE:
            return
        share = self.study.facts.total(self.variant, "sparsity_prunable")
        if share is not None and self.study.facts.is_of_first(self.variant):
            self.sparsity = self._nearest(share)

    def _nearest(self, sparsity: float) -> float:
        """Return the nearest level of the policy."""
        policy = self._view.policies.get(self.policy)
        levels = policy.sparsities if policy else [sparsity]
        return min(levels, key=lambda level: abs(level - sparsity))

    def _refresh(self) -> None:
        state, controls, view = self._state(), self._controls, self._view
        look, data = self._scene.look_and_data(state)
        others = [w for w in self._shell.widths if w != self._width][:_VIEWS]
        further = [
            self._pictures.compiled(self._scene.look_and_data(state._replace(width=width))[0])
            for width in (max(base_explorer.NARROWEST, other) for other in others)
        ]
        hint = say("explorer.map_keys_hint", metric=look.name)
        along = say("explorer.quality_curve_keys_hint")
        axes, brushed = [list(look.blocks), list(look.projections)], bool(self._brushed)
        traits = {"hint": hint, "along": along, "axes": axes, "brushed": brushed}
        self._draw(self._pictures.compiled(look), data, look.alt, further=further, **traits)
        if self._picture is None:
            return
        controls.level.live = state.live
        controls.cards.value = str(self._parts.cards(*details.cards(view, state)))
        first = self._history.first._replace(width=state.width)
        controls.allow(*self._history.can_go, reset=state != first)
        self._table.value = str(self._parts.layers(details.layers(view, state)))
        layer = details.layer(view, state)
        self._detail.value = str(self._parts.layer(layer)) if layer else ""

    # Actions of the browser.

    def _open(self, picture: base_explorer.Picture) -> None:
        super()._open(picture)
        picture.observe(self._pulled, "pulled")

    @in_own_language
    def _heard(self, _: Any, content: dict[str, Any], __: Any) -> None:
        state, more = self._state(), bool(content.get("more"))
        ((kind, at), *_) = content.items()
        if kind in {"undo", "redo", "reset"}:
            getattr(self, kind)()
        elif kind == "level":
            # The slider was pressed at its place: show that level instead of a variant.
            with self._silently():
                self._show_level()
            self._changed({"name": "level"})
        elif kind == "brush":
            names = self._view.brushed(state, at.get("block", []), at.get("projection", []))
            self._brushed = self.selection = tuple(names)
        elif kind == "row" and not more:
            self.detail = self._view.names[at]
        elif kind == "variant":
            self.variant = self._scene.variant(state, at) or self.variant
        else:
            self._select(self._scene.members(state, kind, at), more)

    @in_own_language
    def _pulled(self, change: Any) -> None:
        """Show the measured variant or the level to which the curve was pulled."""
        at = change["new"][0]
        if isinstance(at, str) and self._scene.quality:
            self.variant = self._scene.quality.variant(at) or self.variant
            return
        level = self._nearest(float(at))
        if level == self.sparsity:
            self._heard(None, {"level": level}, None)
        self.sparsity = level

    def _select(self, names: list[str], more: bool) -> None:
        """Select modules, with `more` in addition; clear those that were selected."""
        if more:
            clear = set(names) <= set(self.selection)
            others = [name for name in self.selection if name not in names]
            names = others if clear else [*others, *names]
        elif tuple(names) == self.selection:
            names = []
        self.selection = tuple(names)

    @in_own_language
    def _apply_budget(self, budget: str) -> None:
        self._controls.tell(self.within(budget) if budget.strip() else "")

    @in_own_language
    def _bound_layers(self) -> None:
        """Bound the selection, or else the layer in detail; no selection frees all layers."""
        how = self._controls.bounds.value
        names = self.selection or ((self.detail,) if self.detail and how != actions.FREE else ())
        rows = self._view.frame(self._state())
        self.bounds = dict(actions.bounds_with(self.bounds, rows, names, how))
        self._controls.tell(actions.bounds_text(self.bounds, self._view.levels(self._state())))

    @in_own_language
    def _copy(self) -> None:
        form = self._controls.copies.value
        self._shell.send({"copy": self.copied(form)})
        self._controls.tell(say("explorer.copied_form", form=say(FORMS[form])))

    # Checks of new values.

    @traitlets.validate(*MENUS)
    @in_own_language
    def _check_choice(self, proposal: Any) -> Any:
        """Refuse values that the menu does not offer."""
        name, value = proposal["trait"].name, proposal["value"]
        base_explorer.require_choices(
            name, [value], [key for _, key in choices(self._view, name)] or [""]
        )
        return value

    @traitlets.validate("detail", "selection")
    @in_own_language
    def _check_modules(self, proposal: Any) -> Any:
        """Refuse modules that the study does not have."""
        name, value = proposal["trait"].name, proposal["value"]
        modules = value if name == "selection" else () if value is None else (value,)
        base_explorer.require_choices(name, modules, self._view.names, are_modules=True)
        return tuple(dict.fromkeys(value)) if name == "selection" else value

    @traitlets.validate("bounds")
    @in_own_language
    def _check_bounds(self, proposal: Any) -> dict[str, Any]:
        """Refuse bounds of unknown modules, and bounds that leave no room."""
        bounds = {
            name: tuple(bound) if isinstance(bound, list) else bound
            for name, bound in proposal["value"].items()
        }
        if bounds:
            bounded_levels(self.study.weights, tuple(bounds.items()))
        return bounds

    @traitlets.validate("sparsity")
    @in_own_language
    def _check_sparsity(self, proposal: Any) -> float:
        """Return the nearest level; refuse what is not a sparsity."""
        value = proposal["value"]
        if self._view.policies and not 0 <= value < 1:
            raise SparsityReportError(say("explorer.sparsity_out_of_range", value=repr(value)))
        return self._nearest(value)

    @traitlets.validate("study")
    @in_own_language
    def _check_study(self, proposal: Any) -> Comparison:
        """Refuse studies that do not begin with the variants of this one."""
        study: Comparison = proposal["value"]
        before, after = (s.variants[["variant", "fingerprint"]] for s in (self._view.study, study))
        if not after.head(len(before)).equals(before):
            raise SparsityReportError(say("explorer.study_not_extended"))
        return study
