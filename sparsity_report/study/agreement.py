"""Whether the parts of a study that was read agree with each other; if not, where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.weights.groups import GROUPS

_LAYOUTS = ("dense", "masked", "csr")
_WHOLE = ("total", "weight_total", "row_pointers", "columns", "active_total", "stored_bytes")


def check_parts(
    variants: pd.DataFrame,
    layers: pd.DataFrame,
    levels: pd.DataFrame | None,
    patterns: pd.DataFrame | None,
    measured: Mapping[str, pd.DataFrame | None],
) -> None:
    """Refuse tables that contradict each other.

    Raises
    ------
    ValueError
        Names the table, the row and what is wrong with it.
    """
    _check_variants(variants, layers)
    _refuse(
        "layers", layers["variant"].isin(variants["variant"]), "variant: is not among the variants"
    )
    _check_layers(layers)
    first = layers[layers["variant"] == variants["variant"].iloc[0]]
    if levels is not None:
        _check_levels(levels, first)
    names = set(variants["variant"])
    if patterns is not None:
        _check_patterns(patterns, set(zip(layers["variant"], layers["module_name"], strict=True)))
    for part, frame in measured.items():
        if frame is not None:
            _check_measured(part, frame, names)


def _refuse(part: str, good: Any, wrong: str) -> None:
    """Name the first row that is not good."""
    flags = np.asarray(good, dtype=bool)
    if not flags.all():
        raise ValueError(f"{part}, row {int(flags.argmin())}, {wrong}")


def _texts(part: str, frame: pd.DataFrame, *columns: str) -> None:
    for column in columns:
        good = [isinstance(cell, str) for cell in frame[column]]
        _refuse(part, good, f"{column}: is not text")


def _check_variants(variants: pd.DataFrame, layers: pd.DataFrame) -> None:
    if variants.empty:
        raise ValueError("variants: there are none")
    _texts("variants", variants, "variant", "layout", "model", "fingerprint")
    _refuse("variants", ~variants["variant"].duplicated(), "variant: occurs twice")
    _refuse("variants", variants["variant"].isin(layers["variant"]), "variant: has no layers")
    _refuse("variants", variants["layout"].isin(_LAYOUTS), "layout: is not one")
    asked = variants["asked_sparsity"]
    _refuse("variants", asked.isna() | asked.between(0, 1), "asked_sparsity: is not a share")
    own = layers[layers["prunable"]]
    zeros = (own["weight_total"] - own["weight_nonzero"]).groupby(own["variant"]).sum(min_count=1)
    found = variants["variant"].map(zeros)
    enough = (variants["pruned"] <= found).fillna(True)
    _refuse("variants", enough, "pruned: is more than the layers have zeros")


def _check_layers(layers: pd.DataFrame) -> None:
    _texts("layers", layers, "variant", "module_name", "group", "dtype", "layout")
    _refuse("layers", ~layers.duplicated(["variant", "module_name"]), "module_name: occurs twice")
    _refuse("layers", layers["group"].isin(GROUPS), "group: is not one")
    for part, whole in (
        ("nonzero", "total"),
        ("weight_nonzero", "weight_total"),
        ("weight_total", "total"),
    ):
        inside = (layers[part] >= 0) & (layers[part] <= layers[whole])
        _refuse("layers", inside.fillna(True), f"{part}: is not between 0 and {whole}")
    for column in _WHOLE:
        _refuse("layers", (layers[column] >= 0).fillna(True), f"{column}: is negative")
    sizes = [all(type(n) is int and n >= 0 for n in shape) for shape in layers["shape"]]
    _refuse("layers", sizes, "shape: is not one")


def _check_levels(levels: pd.DataFrame, first: pd.DataFrame) -> None:
    names = levels["module_name"].drop_duplicates().tolist()
    steps = levels["sparsity"].drop_duplicates().to_numpy()
    if len(names) * len(steps) != len(levels):
        raise ValueError("levels: a module or a sparsity occurs twice")
    if not (np.diff(steps) > 0).all() or not 0 <= steps[0] <= steps[-1] < 1:
        raise ValueError("levels: sparsities do not rise from 0 to less than 1")
    sizes = first[first["prunable"]].set_index("module_name")["weight_total"]
    if set(names) != set(sizes.index):
        raise ValueError("levels: the modules are not the prunable ones of the first variant")
    totals = sizes.loc[names].to_numpy(dtype=np.int64)[:, None]
    shape = (len(names), len(steps))
    left, slack = (
        levels[column].to_numpy(dtype=np.int64).reshape(shape)
        for column in ("weight_nonzero", "uncertainty")
    )
    for column, counts in (("weight_nonzero", left), ("uncertainty", slack)):
        wrong = (counts < 0) | (counts > totals)
        if wrong.any():
            module, step = np.argwhere(wrong)[0]
            raise ValueError(
                f"levels, {names[module]} at {steps[step]:g}, {column}: {counts[module, step]} is "
                f"not between 0 and its {totals[module, 0]} weights"
            )
    if (rising := np.diff(left, axis=1) > 0).any():
        module, step = np.argwhere(rising)[0]
        raise ValueError(
            f"levels, {names[module]} at {steps[step + 1]:g}: more is left than at a lower sparsity"
        )
    zeros, whole = (totals - left).sum(axis=0), int(totals.sum())
    for step, found in zip(steps.tolist(), zeros.tolist(), strict=True):
        if found < round(step * whole):
            raise ValueError(f"levels at {step:g}: {found} zeros are fewer than were asked for")


def _check_patterns(patterns: pd.DataFrame, known: set[tuple[str, str]]) -> None:
    rows = zip(patterns["variant"], patterns["module_name"], strict=True)
    _refuse("patterns", [row in known for row in rows], "module_name: has no layer")
    _texts("patterns", patterns, "parameter")
    shares = [
        column
        for column in patterns.columns
        if column.startswith(("fill_", "zero_")) or column.endswith(("sparsity", "share"))
    ]
    for column in shares:
        cells = patterns[column] if column == "head_sparsity" else patterns[column].map(_alone)
        good = [cell is None or all(0 <= share <= 1 for share in cell) for cell in cells]
        _refuse("patterns", good, f"{column}: is not a share")


def _alone(share: float) -> tuple[float, ...]:
    return () if pd.isna(share) else (share,)


def _check_measured(part: str, frame: pd.DataFrame, names: set[str]) -> None:
    if "seconds" in frame:
        _refuse(part, frame["variant"].isin(names), "variant: is not among the variants")
        _refuse(part, frame["seconds"] > 0, "seconds: is not a time")
    if "top1" in frame:
        _refuse(part, frame["top1"].isna() | frame["top1"].between(0, 1), "top1: is not a share")
        _refuse(
            part,
            frame["sparsity"].isna() | frame["sparsity"].between(0, 1),
            "sparsity: is not a share",
        )
    if {"nll", "perplexity"} <= set(frame):
        known = frame[frame["perplexity"].notna()]
        close = np.isclose(np.log(known["perplexity"].astype(float)), known["nll"].astype(float))
        _refuse(part, close, "perplexity: is not exp(nll)")
