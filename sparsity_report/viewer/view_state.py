"""The state of a viewer: its valid values, what follows from a change in Python, and its layers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import traitlets

from sparsity_report.errors import SparsityReportError
from sparsity_report.study.derived import layer_metrics
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.heatmap_grid import Grid
from sparsity_report.study.levels import in_layout
from sparsity_report.study.schema import METRICS
from sparsity_report.viewer.payload import Codes, Contents, Floats, common_ratio
from sparsity_report.viewer.viewer_metrics import aligned, compared_layers, spreads
from sparsity_report.words.sentences import say

State = Mapping[str, Any]

#: The variant in view while a level is.
AT_LEVEL = "at level"
_CHOICES = {
    "layout": ("csr", "bitmask", "dense"),
    "grouping": ("group", "projection", "block"),
    "curve": ("bytes", "quality"),
}


class RefusedValueError(SparsityReportError, traitlets.TraitError):
    """A value that a state does not accept; traitlets restores the values before it."""


def check_state(header: Mapping[str, Any], changes: State) -> None:
    """Refuse changes of a state.

    Parameters
    ----------
    header : mapping
        Header of the payload.
    changes : mapping
        New values of some keys of ``header["start"]``.

    Raises
    ------
    RefusedValueError
        A key or a value is unknown. Of modules the message names the closest one only.
    """
    _require("state", changes, list(header["start"]))
    choices, modules = _choices(header), header["modules"]["names"]
    for name, value in changes.items():
        if name == "selection":
            if not isinstance(value, list | tuple):
                raise _refused(name, value, "a list of names")
            _require_modules(name, value, modules)
        elif name == "detail":
            _require_modules(name, [] if value is None else [value], modules)
        elif name == "sparsity":
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise RefusedValueError(say("explorer.sparsity_out_of_range", value=repr(value)))
        elif name != "search":
            _require(name, [value], choices[name])
        elif not isinstance(value, str):
            raise _refused(name, value, "a text")


def with_consequences(header: Mapping[str, Any], state: State, changes: State) -> dict[str, Any]:
    """Return a state after checked changes, as the viewer's script follows them.

    A policy or a sparsity shows the nearest level, a variant its layout and its place on the
    slider. A new selection shows its last module in detail.
    """
    after = {**state, **changes}
    policies = {e["key"]: e for e in header.get("policies", ()) if "levels" in e}
    levels = policies[after["policy"]]["levels"] if after.get("policy") in policies else ()
    if "variant" in changes and after["variant"] != AT_LEVEL:
        variant = next(v for v in header["variants"] if v["name"] == after["variant"])
        if "layout" not in changes:
            after["layout"] = "csr" if variant["layout"] == "csr" else "dense"
        if levels and variant["sparsity"] is not None:
            after["sparsity"] = _nearest(levels, variant["sparsity"])
    elif levels and changes.keys() & {"policy", "sparsity"}:
        after["sparsity"], after["variant"] = _nearest(levels, after["sparsity"]), AT_LEVEL
    after["selection"] = list(dict.fromkeys(after["selection"]))
    if changes.get("selection") and after["detail"] not in after["selection"]:
        after["detail"] = after["selection"][-1]
    return after


def _nearest(levels: Sequence[float], sparsity: float) -> float:
    return min(levels, key=lambda level: abs(level - sparsity))


def _choices(header: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Return the values that the menus of the viewer offer."""
    metrics = [metric["key"] for metric in header["metrics"]]
    variants = [variant["name"] for variant in header.get("variants", ())]
    policies = [e["key"] for e in header.get("policies", ()) if "levels" in e]
    keys = ("module", *metrics)
    return {
        **_CHOICES,
        "metric": metrics,
        "modules": header["scopes"],
        "sort": ["", *keys, *(f"-{key}" for key in keys)],
        "policy": policies or [""],
        "variant": [*variants, *([AT_LEVEL] if policies else [])],
        "against": variants,
    }


def _require(name: str, values: Iterable[Any], known: Sequence[str]) -> None:
    for value in values:
        if not isinstance(value, str) or value not in known:
            raise _refused(name, value, f"one of {', '.join(known)}")


def _require_modules(name: str, values: Sequence[Any], modules: Sequence[str]) -> None:
    names = set(modules)
    for value in values:
        if not isinstance(value, str) or value not in names:
            near = difflib.get_close_matches(str(value), modules, 1) or modules[:1]
            raise _refused(name, value, f"one of {', '.join([*near, '…'])}")


def _refused(name: str, value: Any, known: str) -> RefusedValueError:
    words = {"trait": name, "known": known, "value": repr(value)}
    return RefusedValueError(say("explorer.choice_unknown", **words))


class LayerValues:
    """Values of the layers of a study in a state of its viewer.

    Parameters
    ----------
    study : Study
    contents : Contents
        What the viewer shows of it.
    state : mapping
    """

    def __init__(self, study: StudyFigures, contents: Contents, state: State) -> None:
        self._study, self._figures, self._state = study, contents.figures, state
        self._roots = {m["key"] for m in contents.header["metrics"] if m.get("root")}
        self._is_level = state.get("variant") == AT_LEVEL

    def rows(self) -> pd.DataFrame:
        """Return every layer of the variant or level in view.

        The columns are those of ``study.layers`` or of a level, with bytes and FLOPs in the byte
        layout, and ``bytes_before``: dense, or in the file that packs the weights. For two
        checkpoints they are those of ``study.matches``, and the metrics.
        """
        if self._study.matches is not None:
            rows = compared_layers(self._study)
            return rows.assign(**{key: self.values(key, rows) for key in self._figures})
        first = str(self._study.variants["variant"].iloc[0])
        variant = first if self._is_level else self._state["variant"]
        rows = modules = self._study.facts.layers(variant).reset_index(drop=True)
        before = self._study.facts.bytes_before(variant).array
        layout = self._state["layout"]
        if self._is_level:
            rows = self._study.by_policy[self._state["policy"]].at(self._state["sparsity"])
        elif layout == ("csr" if self._study.facts.layouts[variant] == "csr" else "dense"):
            return rows.assign(bytes_before=before)
        sizes = in_layout(modules, layout, rows["weight_nonzero"])
        return rows.assign(bytes_before=before, **sizes)

    def in_view(self) -> pd.DataFrame:
        """Return the selected layers, or those that the search finds in the scope, sorted."""
        rows, state = self.rows(), self._state
        if state["selection"]:
            rows = rows[rows["module_name"].isin(state["selection"])]
        else:
            rows = _in_scope(rows, state["modules"])
            for word in state["search"].casefold().split():
                rows = rows[rows["module_name"].str.casefold().str.contains(word, regex=False)]
        if key := state["sort"].removeprefix("-"):
            names = rows["module_name"].str.replace(
                "[0-9]+", lambda digits: digits[0].rjust(9, "0"), regex=True
            )
            column = names if key == "module" else pd.Series(self.values(key, rows), rows.index)
            is_up = not state["sort"].startswith("-")
            rows = rows.loc[column.sort_values(ascending=is_up, kind="stable").index]
        return rows.reset_index(drop=True)

    def cells(self) -> tuple[pd.DataFrame, Grid]:
        """Return ``block``, ``projection`` and ``value`` of the cells of the map, and its grid."""
        inside = _in_scope(self.rows(), self._state["modules"])
        grid = Grid(inside)
        frame = pd.DataFrame(grid.cells, columns=["block", "projection"])
        return frame.assign(value=self.values(self._state["metric"], inside, grid.codes)), grid

    def values(self, metric: str, rows: pd.DataFrame, codes: Codes = None) -> Floats:
        """Return a metric of layers, or of those with a common code; NaN where unknown."""
        amounts, sizes = self._parts(metric, rows)
        if sizes is not None:
            amounts = np.where(sizes == 0, 0.0, amounts)
        return common_ratio(amounts, sizes, codes, is_root=metric in self._roots)

    def _parts(self, metric: str, rows: pd.DataFrame) -> tuple[Floats, Floats | None]:
        """Return amounts and sizes of a metric; the value of several layers is their ratio."""
        names = pd.Index(rows["module_name"])
        if metric in self._figures:
            return aligned(self._figures[metric], names)

        if metric == "difference":
            before = layer_metrics.zeros_of(self._study.facts.layers(self._state["against"]))
            return aligned(layer_metrics.difference(layer_metrics.zeros_of(rows), before), names)
        rows = rows.assign(zeros=rows["weight_total"] - rows["weight_nonzero"])
        if metric == "deviation":
            is_first = self._is_level or self._study.facts.is_of_first(self._state["variant"])
            known = spreads(self._study) if is_first else {}
            squares = np.array([known.get(name, np.nan) for name in names]) ** 2
            rows = rows.assign(squares=squares * rows["weight_total"].astype(float))
        amounts, *sizes = (
            rows[part].to_numpy(dtype=float, na_value=np.nan)
            for part in METRICS[metric].ratio or (metric,)
        )
        return amounts, sizes[0] if sizes else None


def _in_scope(rows: pd.DataFrame, modules: str) -> pd.DataFrame:
    """Return the layers of a group, the prunable ones, or all."""
    if modules == "all":
        return rows
    return rows[rows["prunable"] if modules == "prunable" else rows["group"] == modules]
