"""The state of a viewer: its valid values, what follows from a change in Python, and its layers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import traitlets

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.shares import zero_shares
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.heatmap_grid import Grid
from sparsity_report.study.levels import in_layout
from sparsity_report.study.schema import METRICS
from sparsity_report.viewer.payload import Codes, Contents, Floats, common_ratio, nearest
from sparsity_report.viewer.viewer_metrics import aligned, compared_layers, spreads
from sparsity_report.words.sentences import say

State = Mapping[str, Any]

#: The variant in view while a level is.
AT_LEVEL = "at level"
#: Keys of the state of two sides, A and B: the variant, or the policy and the sparsity of a level.
A, B = ("variant", "policy", "sparsity"), ("against", "against_policy", "against_sparsity")
# Columns of side B that follow those of A.
_BESIDE = [
    "weight_total", "weight_nonzero", "weight_sparsity", "nonzero", "flops_per_token",
    "stored_bytes",
]  # fmt: skip
_CHOICES = {
    "layout": ("csr", "bitmask", "dense"),
    "grouping": ("group", "projection", "block"),
    "colors": ("auto", "fitted", "full"),
}
# A place that is not between two digits.
_WHOLE = "(?!(?<=[0-9])(?=[0-9]))"
# Most choices that a message lists.
_LISTED = 20


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
        A key or a value is unknown. Of many choices the message names the closest one only.
    """
    _require("state", changes, list(header["start"]))
    choices, modules = _choices(header), header["modules"]["names"]
    for name, value in changes.items():
        if name == "selection":
            if not isinstance(value, list | tuple):
                raise _refused(name, value, "a list of names")
            _require(name, value, modules)
        elif name == "detail":
            _require(name, [] if value is None else [value], modules)
        elif name in {"sparsity", "against_sparsity"}:
            if not isinstance(value, int | float) or not 0 <= value <= 0.999999:
                raise RefusedValueError(say("explorer.sparsity_out_of_range", value=repr(value)))
        elif name != "search":
            _require(name, [value], choices[name])
        elif not isinstance(value, str):
            raise _refused(name, value, "a text")


def with_consequences(header: Mapping[str, Any], state: State, changes: State) -> dict[str, Any]:
    """Return a state after checked changes, as the viewer's script follows them.

    On each side, a policy or a sparsity shows the nearest level, and a variant its sparsity; A
    decides the layout. A new selection shows its last module in detail.
    """
    after = {**state, **changes}
    policies = {e["key"]: e for e in header.get("policies", ()) if "levels" in e}
    for shown, policy, share in (A, B):
        levels = policies[after[policy]]["levels"] if after.get(policy) in policies else ()
        if shown in changes and after[shown] != AT_LEVEL:
            variant = next(v for v in header["variants"] if v["name"] == after[shown])
            if shown == "variant" and "layout" not in changes:
                after["layout"] = "csr" if variant["layout"] == "csr" else "dense"
            if levels and variant["sparsity"] is not None:
                after[share] = nearest(levels, variant["sparsity"])
        elif levels and changes.keys() & {policy, share}:
            after[share], after[shown] = nearest(levels, after[share]), AT_LEVEL
    after["selection"] = list(dict.fromkeys(after["selection"]))
    if changes.get("selection") and after["detail"] not in after["selection"]:
        after["detail"] = after["selection"][-1]
    return after


def other_side(state: State) -> dict[str, Any]:
    """Return the state that shows side B alone."""
    return {**state, **{a: state[b] for a, b in zip(A, B, strict=True)}, "metric": "sparsity"}


def _choices(header: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Return the values that the menus of the viewer offer."""
    metrics = [metric["key"] for metric in header["metrics"]]
    variants = [variant["name"] for variant in header.get("variants", ())]
    policies = [e["key"] for e in header.get("policies", ()) if "levels" in e]
    shown = [*variants, *([AT_LEVEL] if policies else [])]
    keys = ("module", *metrics, *(("sparsity_b", "stored_bytes_b") if variants else ()))
    return {
        **_CHOICES,
        "metric": metrics,
        "modules": [*header["scopes"], *header["blocks"]],
        "sort": ["", *keys, *(f"-{key}" for key in keys)],
        **dict.fromkeys(("policy", "against_policy"), policies or [""]),
        **dict.fromkeys(("variant", "against"), shown),
    }


def _require(name: str, values: Iterable[Any], known: Sequence[str]) -> None:
    choices = set(known)
    for value in values:
        if not isinstance(value, str) or value not in choices:
            near = difflib.get_close_matches(str(value), known, 1) or known[:1]
            listed = [*near, "…"] if len(known) > _LISTED else known
            raise _refused(name, value, f"one of {', '.join(listed)}")


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
        self._study, self._contents, self._state = study, contents, state
        self._figures, self._header = contents.figures, contents.header
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
            policy, sparsity = self._state["policy"], self._state["sparsity"]
            rows = self._study.by_policy[policy].at(sparsity)
            entry = next(e for e in self._header["policies"] if e["key"] == policy)
            # As the page: its bound is one share of the weights of each layer at a level.
            bound = entry["slack"][entry["levels"].index(sparsity)]
            uncertain = np.ceil(bound * rows["weight_total"].to_numpy(float, na_value=0))
            rows["uncertainty"] = np.where(rows["prunable"], uncertain, 0).astype(np.int64)
            rows["sparsity"] = zero_shares(rows["total"], rows["nonzero"])
        rows = rows.assign(bytes_before=before, weight_sparsity=self.values("sparsity", rows))
        if not self._is_level and layout == self._study.facts.layouts[variant].replace(
            "masked", "dense"
        ):
            return rows
        return rows.assign(**in_layout(modules, layout, rows["weight_nonzero"]))

    def in_view(self) -> pd.DataFrame:
        """Return the selected layers, or those that the search finds in the scope, sorted."""
        rows, state = self.rows(), self._state
        # The page has the order of the first variant that has a module.
        places = pd.Index(self._header["modules"]["names"]).get_indexer(rows["module_name"])
        rows = rows.iloc[np.argsort(places)]
        if state["selection"]:
            rows = rows[rows["module_name"].isin(state["selection"])]
        else:
            rows = _in_scope(rows, state["modules"])
            if state["search"].strip():
                rows = rows[rows["module_name"].isin(_matching(self._header, state["search"]))]
        if key := state["sort"].removeprefix("-"):
            names = rows["module_name"].str.replace(
                "[0-9]+", lambda digits: digits[0].rjust(9, "0"), regex=True
            )
            column = names if key == "module" else pd.Series(self.values(key, rows), rows.index)
            is_up = not state["sort"].startswith("-")
            rows = rows.loc[column.sort_values(ascending=is_up, kind="stable").index]
        return self._beside(rows.reset_index(drop=True))

    def _beside(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return layers with columns of side B, if the difference is in view."""
        if self._state["metric"] != "difference":
            return rows
        other = self._b_rows(rows).filter([*_BESIDE, "uncertainty"]).add_suffix("_b")
        return rows.join(other).assign(difference=self.values("difference", rows))

    @cached_property
    def _b(self) -> LayerValues:
        return LayerValues(self._study, self._contents, other_side(self._state))

    def _b_rows(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of side B for layers, null where it lacks one."""
        return self._b.rows().set_index("module_name").reindex(rows["module_name"]).reset_index()

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
        if (key := metric.removesuffix("_b")) != metric:
            return self._b._parts(key, self._b_rows(rows))
        if metric == "difference":
            zeros, size = self._parts("sparsity", rows)
            others, other = self._parts("sparsity_b", rows)
            # A layer of another size has no difference.
            return zeros - others, np.where(size == other, np.asarray(size), np.nan)
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
    """Return the layers of a group or block, the prunable ones, or all."""
    if modules == "all":
        return rows
    blocks = "block " + rows["block"].astype("Int64").astype(str)
    named = (rows["group"] == modules) | (blocks == modules)
    return rows[rows["prunable"] if modules == "prunable" else named]


def _matching(header: Mapping[str, Any], search: str) -> Iterator[str]:
    """Yield the modules whose names and labels contain all words of a search, with whole numbers.

    ``block 1`` is one word, which block 10 does not contain.
    """
    modules, labels = header["modules"], header["labels"]["groups"]
    words = re.findall(r"block\s+[0-9]+|\S+", search.lower())
    wanted = [re.compile(_WHOLE + re.escape(" ".join(word.split())) + _WHOLE) for word in words]
    for k, name in enumerate(modules["names"]):
        block, layer, group = (modules[key][k] for key in ("blocks", "projections", "groups"))
        place = "" if block is None else f"block {block} · {layer}"
        text = "\n".join((name, modules["shown"].get(k, name), labels[group], place)).lower()
        if all(word.search(text) for word in wanted):
            yield name
