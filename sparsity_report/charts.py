"""Frame → Altair chart: pure functions of a study; no model is read and nothing is printed.

Names of models and modules are only ever data of a chart: columns have fixed names of their own,
and orders are given as domains, because a sort order would be compiled into an expression.
One pixel is one point, so that a chart of ``TEXT_WIDTH`` prints 16 cm wide.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import altair as alt
import pandas as pd
import vl_convert

from sparsity_report.comparison import Comparison, variant_stems
from sparsity_report.cost import csr_break_even, csr_bytes, dense_bytes, value_bytes
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files import write_file
from sparsity_report.findings import percent, scaled

Chart: TypeAlias = "alt.Chart | alt.LayerChart | alt.VConcatChart"

TEXT_WIDTH = round(16 * 72 / 2.54)
COLUMN_WIDTH = round(8.6 * 72 / 2.54)
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
INK, MUTED, GRID = "#222222", "#666666", "#e3e3e3"
DENSE, MASKED, CSR, BITMASK = "#0072B2", "#D55E00", "#000000", "#009E73"
GROUP_NAMES = {
    "attention_linear": "attention",
    "mlp_linear": "MLP",
    "lm_head": "output head",
    "ssm": "state space",
    "other_linear": "other linear",
}

_LAYOUT_COLOURS = {"dense": DENSE, "masked": MASKED, "csr": CSR}
_FURTHER_COLOURS = (BITMASK, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_ROWS_LIMIT = 5000
_PERCENT_TICKS = "format(100 * datum.value, '~r') + ' %'"


class Metric(NamedTuple):
    """How one column of ``study.groups`` is drawn."""

    title: str
    axis: str
    file: str


METRICS = {
    "sparsity": Metric("Zeros per group", "share of zeros in the group", "sparsity"),
    "param_frac": Metric("Parameters per group", "share of all parameters", "param_frac"),
    "flops_per_token": Metric("Arithmetic per group", "FLOPs per token", "flops"),
}


def group_bars(study: Comparison, metric: str) -> Chart:
    """Return bars per group with the variants side by side; what is unknown shows as "–".

    Parameters
    ----------
    study : Comparison
    metric : {"sparsity", "param_frac", "flops_per_token"}

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> group_bars(study, "sparsity").to_dict()["width"]
    454
    """
    return _styled(_group_bars(study, metric, list(study.variants["variant"])))


def variant_bars(study: Comparison, variant: str, metric: str) -> Chart:
    """Return one bar per group for one variant; parameters as for :func:`group_bars`."""
    _check_variant(study, variant)
    return _styled(_group_bars(study, metric, [variant]))


def sparsity_map(study: Comparison, variant: str) -> Chart | None:
    """Return a heat map of the prunable weights' sparsity, Transformer block × projection.

    Returns
    -------
    altair chart or None
        None where the variant has no prunable weights in numbered blocks.
    """
    drawn = _sparsity_map(study, variant, TEXT_WIDTH)
    return None if drawn is None else _styled(drawn)


def csr_bytes_curve(study: Comparison) -> Chart | None:
    """Return bytes ÷ dense bytes of each layout against sparsity, with the study's own levels.

    Returns
    -------
    altair chart or None
        None where nothing is prunable.
    """
    drawn = _curve(study, TEXT_WIDTH)
    return None if drawn is None else _styled(drawn)


def hero(study: Comparison) -> Chart:
    """Return the picture of a study: where the zeros land, how unevenly, and when CSR pays."""
    variant = (pruned_variants(study) or [study.variants["variant"].iloc[0]])[0]
    gap = 60
    half = (TEXT_WIDTH * 4 // 3 - gap) // 2
    top = _sparsity_map(study, variant, 2 * half + gap - 40)
    strip, curve = _strip(study, variant, half - 50), _curve(study, half - 20)
    below = [chart for chart in (strip, curve) if chart is not None]
    rows = [chart for chart in (top, alt.hconcat(*below, spacing=gap)) if chart and (chart is top or below)]
    if not rows:
        return group_bars(study, "sparsity")
    return _styled(alt.vconcat(*rows, spacing=28), description=" ".join(_texts(rows)))
