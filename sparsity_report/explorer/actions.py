"""What an explorer is asked for beyond looking: variants, budgets, bounds, copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import traitlets

from sparsity_report.counting.bounds import bounded_magnitude
from sparsity_report.errors import SparsityReportError
from sparsity_report.explorer.anywidget_host import Live
from sparsity_report.explorer.budget_tools import FREE, Actions, bounds_with, held
from sparsity_report.explorer.control_state import CSR_AT_LEVEL, MASKED_AT_LEVEL, State
from sparsity_report.explorer.controls import Controls
from sparsity_report.explorer.history import History
from sparsity_report.explorer.view import View, bounded_levels
from sparsity_report.findings.budget_findings import budgeted
from sparsity_report.report.copied_code import FORMS, Shown, copied
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.levels.budget import level_within, read_budget
from sparsity_report.study.levels.sweep import pruned_at
from sparsity_report.study.variants import Variant, csr, masked
from sparsity_report.words.languages import speaking
from sparsity_report.words.sentences import say


def speaks(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of an explorer, whenever it is called, speak the explorer's language."""

    @wraps(method)
    def speak(self: Any, *args: Any, **options: Any) -> Any:
        with speaking(self.language):
            return method(self, *args, **options)

    return speak


class Asked(Live):
    """An explorer as far as it prunes, solves budgets, holds layers and is copied."""

    study: Comparison
    language: Any
    policy: Any
    sparsity: Any
    variant: Any
    selection: Any
    detail: Any
    bounds = traitlets.Dict()
    # Where the explorer stood when something was told.
    _told: State | None = None
    _view: View
    _history: History
    _controls: Controls
    _shell: Any

    if TYPE_CHECKING:

        def _state(self) -> State: ...

    @speaks
    def add(self) -> None:
        """Prune at the level exactly and put the variants, masked and CSR, into the study."""
        weights = self.study.weights
        if weights is None:
            raise SparsityReportError(
                say("explorer.add_needs_weights", code="explore(study, weights=sr.load(…))")
            )
        if self.bounds:
            pruning = bounded_magnitude(weights, self.sparsity, self.bounds)
        else:
            pruning = pruned_at(weights, self.policy, self.sparsity)
        pruned = [self._named(variant) for variant in (masked(pruning), csr(pruning))]
        known = set(self._view.variants)
        self.study = self.study.with_variants(*(v for v in pruned if v.name not in known))
        self.variant = pruned[1].name

    def _named(self, variant: Variant) -> Variant:
        """Give a number to a variant whose name one has that was pruned within other bounds."""
        if not self.bounds:
            return variant
        left, number, name = variant.layers()["nonzero"].tolist(), 2, variant.name
        while name in self._view.variants:
            if self.study.facts.layers(name)["nonzero"].tolist() == left:
                break
            name, number = f"{variant.name}-{number}", number + 1
        return replace(variant, name=name)

    @speaks
    def within(self, budget: str) -> str:
        """Let the slider stand where a budget ends, and return why there.

        See :func:`sparsity_report.level_within` for what a budget is; that of bytes and FLOPs is of
        the levels of the policy.
        """
        if self.bounds and read_budget(budget).kind == "perplexity":
            raise SparsityReportError(say("explorer.bounds_without_perplexity"))
        solved = level_within(self._view.study, budget, policy=self.policy)
        self.sparsity = solved.sparsity
        self.variant = MASKED_AT_LEVEL if solved.dense else CSR_AT_LEVEL
        return budgeted(solved)

    @speaks
    def copied(self, form: str) -> str:
        """Return what is shown as Python, JSON, a recipe, a command or a figure's file.

        Parameters
        ----------
        form : {"python", "json", "recipe", "thesis", "figure"}
        """
        state, first = self._state(), self._history.first
        first_set = ["bounds", "policy", "sparsity", "variant"] if state.live else []
        names = [*first_set, *State._fields[:-1]]
        changed = [n for n in dict.fromkeys(names) if getattr(state, n) != getattr(first, n)]
        skipped = () if state.live else ("policy", "sparsity", "bounds")
        view = {name: getattr(state, name) for name in changed if name not in skipped}
        return copied(
            form,
            Shown(
                self.study,
                None if state.live else state.variant,
                state.sparsity,
                state.bounds if state.live else {},
                self._view.frame(state),
                view,
                state.policy,
            ),
        )

    @property
    def actions(self) -> Actions:
        """What the tools do."""
        return Actions(self._asked, self._hold, self._copy, self.tell)

    def tell(self, text: str) -> None:
        """Show a message until something else is shown than now."""
        self._told = self._state()._replace(width=0)
        self._controls.tell(text)

    def told(self) -> bool:
        """Return whether what is told is of what is shown."""
        return self._told == self._state()._replace(width=0)

    @speaks
    def _asked(self, budget: str) -> None:
        self.tell(self.within(budget) if budget.strip() else "")

    @speaks
    def _hold(self, how: str) -> None:
        """Bound what is selected, or looked at; with nothing selected all is set free."""
        names = self.selection or ((self.detail,) if self.detail and how != FREE else ())
        rows = self._view.frame(self._state())
        self.bounds = dict(bounds_with(self.bounds, rows, names, how))
        self.tell(held(self.bounds, self._view.levels(self._state())))

    @speaks
    def _copy(self, form: str) -> None:
        self._shell.send({"copy": self.copied(form)})
        self.tell(say("explorer.copied_form", form=say(FORMS[form])))

    @traitlets.validate("bounds")
    @speaks
    def _check_bounds(self, proposal: Any) -> dict[str, Any]:
        """Refuse bounds of what there is not, and those that leave no room."""
        given = proposal["value"].items()
        bounds = {k: tuple(v) if isinstance(v, list) else v for k, v in given}
        if bounds:
            bounded_levels(self.study.weights, tuple(bounds.items()))
        return bounds

    def nearest(self, sparsity: float) -> float:
        """Return the level of the policy that is nearest."""
        kept = self._view.policies.get(self.policy)
        levels = kept.sparsities if kept else [sparsity]
        return min(levels, key=lambda level: abs(level - sparsity))

    @traitlets.validate("sparsity")
    @speaks
    def _check_sparsity(self, proposal: Any) -> float:
        value = proposal["value"]
        if self._view.policies and not 0 <= value < 1:
            wrong = say("explorer.sparsity_out_of_range", value=repr(value))
            raise SparsityReportError(wrong)
        return self.nearest(value)
