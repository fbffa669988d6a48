"""Metrics of the viewer: their names, and the amounts and sizes of those that the payload holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.study.derived import layer_metrics
from sparsity_report.study.derived.layer_metrics import LayerFigure, module_magnitudes
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.schema import COLUMNS, METRICS, Column
from sparsity_report.study.survival import gone_weights, zeros_left
from sparsity_report.viewer.payload import Floats
from sparsity_report.words import display_names
from sparsity_report.words.sentences import say

# Metrics whose square is a sum ÷ a sum.
_ROOTS = {"deviation", "relative_change"}


def _metric(column: Column, note: str) -> dict[str, Any]:
    kind = column.format.axis
    words = {"key": column.name, "kind": kind, "label": column.label, "note": note}
    signs = {"signed": kind == "points", "root": column.name in _ROOTS}
    return {**words, **signs}


def study_metrics(study: StudyFigures) -> list[tuple[dict[str, Any], LayerFigure | None]]:
    """Return the metrics of a study, each with its figure unless the script has it from counts."""
    metrics: list[tuple[dict[str, Any], LayerFigure | None]] = []
    for key, column in METRICS.items():
        if key != "sensitivity":
            ratio = "bytes_ratio_packed" if study.facts.packings() else "bytes_ratio"
            name = {"bytes_ratio": ratio, "sparsity": "weight_sparsity"}.get(key, key)
            words = {"label": display_names.head(name), "parts": column.ratio or (key,)}
            metrics.append((_metric(column, say(f"note.{name}")) | words, None))
    frame = study.sensitivity
    if frame is not None and len(frame):
        cut = layer_metrics.finest(frame)
        first = study.facts.layers(str(study.variants["variant"].iloc[0]))
        note = say(f"explorer.sensitivity_note.{cut}", level=float(frame["sparsity"].median()))
        metric = {**_metric(COLUMNS["sensitivity"], note), "ofParts": cut != "layer"}
        metrics.append((metric, layer_metrics.measured_sensitivity(frame, first)))
    return metrics


def compared_metrics(rows: pd.DataFrame) -> list[tuple[dict[str, Any], LayerFigure]]:
    """Return the metrics of two checkpoints, each with its figure.

    A figure of several modules is the sum of their amounts ÷ the sum of their sizes, or the square
    root of that, as in ``survival``. It is unknown where an amount is, and without sizes.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`compared_layers`.
    """
    norms = (rows["norm"] ** 2).where(rows["compared"] > 0, 0)
    changes = (rows["relative_change"] ** 2 * norms).where(norms.ne(0), 0)
    before, zeros = rows["zeros_before"], rows["kept"] + rows["revived"]
    sums = {
        "moved": (gone_weights(rows) + zeros_left(rows) - before, rows["weight_before"]),
        "kept_share": (rows["kept"], zeros),
        "revived_share": (rows["revived"], rows["compared"]),
        "new_share": (rows["new"], rows["compared"]),
        "relative_change": (changes, norms),
        "iou": (rows["kept"], zeros + rows["new"]),
    }
    names = pd.Index(rows["module_name"])
    metrics = []
    for key, parts in sums.items():
        amounts, sizes = (part.to_numpy(dtype=float, na_value=np.nan) for part in parts)
        metric = _metric(COLUMNS[key], say(f"pair.metric_note.{key}"))
        if not np.isnan(amounts).all():
            metrics.append((metric, LayerFigure(names, amounts, sizes)))
    return metrics


def compared_layers(study: StudyFigures) -> pd.DataFrame:
    """Return the modules of either checkpoint that have weights, those of the base first."""
    matches = study.facts.table("matches")
    layers = matches[(matches["weight_before"] > 0) | (matches["weight_after"] > 0)]
    return layers.drop_duplicates("module_name").reset_index(drop=True)


def aligned(figure: LayerFigure, names: pd.Index[str]) -> tuple[Floats, Floats]:
    """Return amounts and sizes of modules, 0 for those that the figure lacks."""
    places = figure.names.get_indexer(names)
    # The last element serves the modules that the figure lacks, whose place is -1.
    amounts, sizes = (np.append(part, 0.0)[places] for part in (figure.amounts, figure.sizes))
    return amounts, sizes


def spreads(study: StudyFigures) -> dict[str, float]:
    """Return the root mean square of weights before pruning, by module.

    It is known of modules with one tensor whose magnitudes were counted, of wide types to within
    0.4 %, half a bucket.
    """
    magnitudes = {} if study.weights is None else module_magnitudes(study.weights)
    name = str(study.variants["variant"].iloc[0])
    first = study.facts.layers(name).set_index("module_name")
    sizes = {name: math.prod(shape) for name, shape in first["shape"].items()}
    alone = first["weight_total"].eq(pd.Series(sizes))
    return {
        name: spread
        for name, counts in magnitudes.items()
        if counts.total
        and alone.get(name, False)
        and math.isfinite(spread := counts.root_mean_square)
    }
