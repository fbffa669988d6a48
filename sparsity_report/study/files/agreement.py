"""Whether the tables of a study that was read agree with each other; if not, where they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sparsity_report.study.files.recomputed import RECOMPUTED, check_variants
from sparsity_report.study.frames import StudyFrames
from sparsity_report.study.levels.levels import level_matrices
from sparsity_report.study.schema import refuse


def check_agreement(study: StudyFrames) -> None:
    """Refuse tables that contradict each other.

    Raises
    ------
    ValueError
        Names the table, the row and what is wrong with it.
    """
    variants, layers = study.variants, study.layers
    _check_variants(variants, layers)
    _check_layers(layers)
    check_variants("layers", study, layers)
    if study.levels is not None:
        _check_levels(study.levels, layers[layers["variant"] == variants["variant"].iloc[0]])
    if study.patterns is not None:
        layer_keys, pattern_keys = (
            pd.MultiIndex.from_frame(frame[["variant", "module_name"]])
            for frame in (layers, study.patterns)
        )
        refuse("patterns", pattern_keys.isin(layer_keys), "module_name: has no layer")
    for table, check in RECOMPUTED.items():
        if (frame := getattr(study, table)) is not None:
            check(study, frame)


def _check_variants(variants: pd.DataFrame, layers: pd.DataFrame) -> None:
    if variants.empty:
        raise ValueError("variants: there are none")
    refuse("variants", ~variants["variant"].duplicated(), "variant: occurs twice")
    refuse("variants", variants["variant"].isin(layers["variant"]), "variant: has no layers")
    rows = layers[layers["prunable"]]
    zeros = (rows["weight_total"] - rows["weight_nonzero"]).groupby(rows["variant"])
    enough = variants["pruned"] <= variants["variant"].map(zeros.sum(min_count=1))
    refuse("variants", enough.fillna(True), "pruned: is more than the layers have zeros")


def _check_layers(layers: pd.DataFrame) -> None:
    refuse("layers", ~layers.duplicated(["variant", "module_name"]), "module_name: occurs twice")
    for part, whole in (
        ("nonzero", "total"),
        ("weight_nonzero", "weight_total"),
        ("weight_total", "total"),
    ):
        inside = (layers[part] <= layers[whole]).fillna(True)
        refuse("layers", inside, f"{part}: is more than {whole}")
    # No type is wider than complex128, and its bits are read from its name.
    wide = layers["dtype"].str.contains(r"\d{4}")
    refuse("layers", ~wide.astype(bool), "dtype: is no type of numbers")
    told = layers["runs_as_csr"].notna() == layers["prunable"]
    refuse("layers", told, "runs_as_csr: is told of what is not prunable, or missing")
    refuse("layers", layers["uses"].notna() | ~layers["prunable"], "uses: is missing")


def _check_levels(levels: pd.DataFrame, first: pd.DataFrame) -> None:
    if levels["module_name"].nunique() * levels["sparsity"].nunique() != len(levels):
        raise ValueError("levels: a module or a sparsity occurs twice")
    names, steps, counts = level_matrices(levels)
    if not (np.diff(steps) > 0).all() or not 0 <= steps[0] <= steps[-1] < 1:
        raise ValueError("levels: sparsities do not rise from 0 to less than 1")
    sizes = first[first["prunable"]].set_index("module_name")["weight_total"]
    if set(names) != set(sizes.index):
        raise ValueError("levels: the modules are not the prunable ones of the first variant")
    totals = sizes.loc[names].to_numpy(dtype=np.int64)[:, None]
    for column, numbers in counts.items():
        if (wrong := (numbers < 0) | (numbers > totals)).any():
            module, step = np.argwhere(wrong)[0]
            raise ValueError(
                f"levels, {names[module]} at {steps[step]:g}, {column}: {numbers[module, step]} is "
                f"not between 0 and its {totals[module, 0]} weights"
            )
    left = counts["weight_nonzero"]
    if (rising := np.diff(left, axis=1) > 0).any():
        module, step = np.argwhere(rising)[0]
        raise ValueError(
            f"levels, {names[module]} at {steps[step + 1]:g}: more is left than at a lower sparsity"
        )
    zeros, whole = (totals - left).sum(axis=0), int(totals.sum())
    for step, count in zip(steps, zeros.tolist(), strict=True):
        if count < round(step * whole):
            raise ValueError(f"levels at {step:g}: {count} zeros are fewer than were asked for")
