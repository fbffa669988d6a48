"""The state of a viewer: its valid values, and what follows from a change in Python."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import traitlets

from sparsity_report.errors import SparsityReportError
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
            _require_modules(name, value if isinstance(value, list | tuple) else [value], modules)
        elif name == "detail":
            _require_modules(name, [] if value is None else [value], modules)
        elif name == "sparsity":
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise RefusedValueError(say("explorer.sparsity_out_of_range", value=repr(value)))
        elif name != "search":
            _require(name, [value], choices[name])
        elif not isinstance(value, str):
            raise _refused(name, value, ["a text"])


def with_consequences(header: Mapping[str, Any], state: State, changes: State) -> dict[str, Any]:
    """Return a state after checked changes, as the viewer's script follows them.

    A policy or a sparsity shows the nearest level, a variant its layout and its place on the
    slider. A new selection shows its last module in detail.
    """
    after = {**state, **changes}
    levels = _levels_of(header, after.get("policy", ""))
    if "variant" in changes and after["variant"] != AT_LEVEL:
        variant = next(v for v in header["variants"] if v["name"] == after["variant"])
        if "layout" not in changes:
            after["layout"] = "csr" if variant["layout"] == "csr" else "dense"
        if levels and variant["isFirst"] and variant["sparsity"] is not None:
            after["sparsity"] = _nearest(levels, variant["sparsity"])
    elif levels and changes.keys() & {"policy", "sparsity"}:
        after["sparsity"], after["variant"] = _nearest(levels, after["sparsity"]), AT_LEVEL
    after["selection"] = list(dict.fromkeys(after["selection"]))
    if changes.get("selection") and after["detail"] not in after["selection"]:
        after["detail"] = after["selection"][-1]
    return after


def _levels_of(header: Mapping[str, Any], policy: str) -> Sequence[float]:
    """Return the levels of a policy; none if it has none."""
    entries = header.get("policies", ())
    return next((e["levels"] for e in entries if e["key"] == policy and "levels" in e), ())


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
            raise _refused(name, value, known)


def _require_modules(name: str, values: Sequence[Any], modules: Sequence[str]) -> None:
    names = set(modules)
    for value in values:
        if not isinstance(value, str) or value not in names:
            near = difflib.get_close_matches(str(value), modules, 1) or modules[:1]
            raise _refused(name, value, [*near, "…"])


def _refused(name: str, value: Any, known: Sequence[str]) -> RefusedValueError:
    words = {"trait": name, "known": ", ".join(known), "value": repr(value)}
    return RefusedValueError(say("explorer.choice_unknown", **words))
