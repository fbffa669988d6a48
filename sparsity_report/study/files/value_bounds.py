"""Bounds that protect readers of a file from false or impossible numbers.

An edited file is recognized by its digest. The checks here refuse only what no study can
hold: counts beyond their total, intervals whose ends are reversed, names that nothing has.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.study.frames import StudyFrames
from sparsity_report.study.harness_results import check_results
from sparsity_report.study.layers import check_context, check_convention
from sparsity_report.study.levels import level_matrices
from sparsity_report.study.losses import check_losses
from sparsity_report.study.schema import OPTIONAL, SIDES, refuse

# Columns of which none exceeds the next one, by table.
_RISING = {
    "layers": ["nonzero total", "weight_nonzero weight_total total"],
    "sensitivity": ["pruned weight_total"],
    "quality": ["stride window tokens", "scored tokens"],
    "latency": [
        *("seconds_low seconds seconds_high", "crossover_low crossover_sparsity crossover_high"),
        *("realised_low realised_speedup realised_high", "control_low control_high"),
    ],
    "history": ["kept zeros", "new zeros"],
    "matches": [
        *("compared weight_before", "compared weight_after"),
        *("zeros_before weight_before", "zeros_after weight_after"),
    ],
}
# Columns of which no two rows have the same values.
_UNIQUE = {
    "variants": ["variant"],
    "layers": ["variant", "module_name"],
    "continuations": ["variant", "prompt"],
    "experts": ["variant", "module_name", "expert"],
    "history": ["step", "module_name"],
}
# Tables whose rows are of variants of the study; scores may be of further levels.
_OF_VARIANTS = ("layers", "patterns", "latency", "continuations", "tasks", "experts")


def check_study(study: StudyFrames) -> None:
    """Refuse a study with impossible numbers.

    Raises
    ------
    ValueError
        Names the table, the row and what is wrong with it.
    """
    check_convention(study.convention)
    check_context(study.context)
    variants, layers = study.variants, study.layers
    if variants.empty:
        raise ValueError("variants: there are none")
    _check_rows("variants", study, variants)
    refuse("variants", variants["variant"].isin(layers["variant"]), "variant: has no layers")
    _check_rows("layers", study, layers)
    # No type is wider than complex128, and its bits are read from its name.
    wide = layers["dtype"].str.contains(r"\d{4}")
    refuse("layers", ~wide.astype(bool), "dtype: is no type of numbers")
    known = layers["runs_as_csr"].notna() == layers["prunable"]
    refuse("layers", known, "runs_as_csr: is missing, or known of what is not prunable")
    refuse("layers", layers["uses"].notna() | ~layers["prunable"], "uses: is missing")
    if study.levels is not None:
        _check_levels(study.levels, layers[layers["variant"] == variants["variant"].iloc[0]])
    for table in OPTIONAL:
        if (frame := getattr(study, table)) is not None:
            check_measured(table, study, frame)
    _check_matches(study)


def check_measured(table: str, study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse measurements with impossible numbers, see :func:`check_study`."""
    _check_rows(table, study, frame)
    if table == "patterns":
        _check_patterns(frame, study.layers)
    elif table == "quality":
        for column in ("agreement", "flips"):
            known = frame[column].notna() == frame["against"].notna()
            refuse(table, known, f"{column}: is missing, or compared with nothing")
        check_losses(frame)
    elif table == "sensitivity":
        check_losses(frame)
    elif table == "tasks":
        check_results(frame)
    elif table in ("experts", "history"):
        known = frame["module_name"].isin(study.layers["module_name"])
        refuse(table, known, "module_name: has no layer")
        if table == "history" and (frame.empty or study.matches is None):
            raise ValueError("history: has no steps, or no matches of its first and last step")


def _check_matches(study: StudyFrames) -> None:
    """Refuse two checkpoints with impossible numbers, see :func:`check_study`."""
    matches, removed = study.matches, study.removed
    if matches is None or removed is None or len(study.variants) < len(SIDES):
        if matches is not removed:
            raise ValueError("matches: are not those of two checkpoints with removed parts")
        return
    _check_rows("matches", study, matches)
    for parts, most in (
        (["kept", "revived", "new", "changed"], "compared"),
        (["kept", "revived"], "zeros_before"),
        (["kept", "new"], "zeros_after"),
    ):
        fits = matches[parts].sum(axis=1) <= matches[most]
        refuse("matches", fits, f"{most}: is less than its parts")


def _check_rows(table: str, study: StudyFrames, frame: pd.DataFrame) -> None:
    if table in _OF_VARIANTS:
        known = frame["variant"].isin(study.variants["variant"])
        refuse(table, known, "variant: is not among the variants")
    if keys := _UNIQUE.get(table):
        refuse(table, ~frame.duplicated(keys), f"{keys[-1]}: occurs twice")
    for names in _RISING.get(table, ()):
        for part, most in pairwise(names.split()):
            within = ~(frame[part] > frame[most]).fillna(False)
            refuse(table, within, f"{part}: is more than {most}")


def _check_patterns(frame: pd.DataFrame, layers: pd.DataFrame) -> None:
    """Refuse matrices that no layer has, and counts that do not fit into them."""
    keys = ["variant", "module_name"]
    totals = layers.set_index(keys)["weight_total"]
    places = pd.MultiIndex.from_frame(frame[keys])
    refuse("patterns", places.isin(totals.index), "module_name: has no layer")
    size: Any = frame["rows"].astype(float) * frame["columns"]
    within = size.to_numpy() <= totals.loc[places].to_numpy()
    refuse("patterns", within, "rows: the matrix is larger than its layer")


def _check_levels(levels: pd.DataFrame, first: pd.DataFrame) -> None:
    """Refuse levels of other modules than the prunable ones, or counts beyond their weights."""
    if levels["module_name"].nunique() * levels["sparsity"].nunique() != len(levels):
        raise ValueError("levels: a module or a sparsity occurs twice")
    names, steps, counts = level_matrices(levels)
    if not (np.diff(steps) > 0).all() or steps[0] != 0 or steps[-1] >= 1:
        raise ValueError("levels: sparsities do not rise from 0 to less than 1")
    sizes = first[first["prunable"]].set_index("module_name")["weight_total"]
    if set(names) != set(sizes.index):
        raise ValueError("levels: the modules are not the prunable ones of the first variant")
    totals = sizes.loc[names].to_numpy(dtype=np.int64)[:, None]
    rising = np.diff(counts["weight_nonzero"], axis=1, prepend=totals) > 0
    beyond = {name: (numbers < 0) | (numbers > totals) for name, numbers in counts.items()}
    for column, wrong in {**beyond, "weight_nonzero": rising | beyond["weight_nonzero"]}.items():
        if wrong.any():
            module, step = np.argwhere(wrong)[0]
            raise ValueError(
                f"levels, {names[module]} at {steps[step]:g}, {column}: "
                f"{counts[column][module, step]} is negative or more than there were"
            )
