"""Which measured speeds may be told: those that the same kernel, timed twice, does not reach.

Everything that tells a ratio of times, a sentence, a cell, a chart or a command of LaTeX, asks
:func:`speeds` whether it may.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

# Where two copies of a matrix lie in memory makes them differ by as much.
TOLERANCE = 0.02
# Rounds from which an interval means something.
ENOUGH = 15
# The highest sparsity at which CSR is timed against dense.
HIGHEST = 0.99
# How much of a thread's core others may take while it is timed.
_OTHERS = 0.1
_PLACE = ["scope", "name", "tokens", "cache"]
#: Why a speed is told or not: it may be; both run the same kernels; no control was timed beside
#: it; other programs had cores that it needed; it was timed too few times; the control did not
#: settle around 1; or the same kernel twice was as far apart.
VERDICTS = ("stated", "same", "unknown", "crowded", "few", "unsettled", "noise")


def reference(latency: pd.DataFrame) -> str:
    """Name the variant whose speed-up is 1 by definition."""
    steady = (latency["realised_speedup"] == 1).groupby(latency["variant"], sort=False).all()
    return str(steady.index[int(steady.argmax())])


def noise(low: Any, high: Any) -> Any:
    """Return how far apart the same kernel was twice, as a part of 1, from the control's spread.

    Parameters
    ----------
    low, high : float, or Series of float
        Smallest and largest ratio of the control.

    Examples
    --------
    >>> float(noise(0.8, 1.1)), float(noise(1.0, 1.5))
    (0.25, 0.5)
    """
    return np.maximum(np.maximum(high, 1 / low), 1) - 1


def settled(low: Any, high: Any) -> Any:
    """Whether a control's spread holds 1, within what memory alone explains."""
    return (low <= 1 + TOLERANCE) & (high >= 1 / (1 + TOLERANCE))


def crowded(frame: Any) -> Any:
    """Whether other programs had cores that the threads needed; not where it is not known.

    Where their work is not known, the load average beyond one's own threads stands for it.
    """
    room = frame["cores"] - frame["threads"] * (1 - _OTHERS)
    others = frame["others"].astype("Float64")
    others = others.fillna(frame["load"].astype("Float64") - frame["threads"])
    return (others > room).fillna(False).astype(bool)


def speeds(latency: pd.DataFrame, layouts: dict[str, str]) -> pd.DataFrame:
    """Return measured times with what may be told of them.

    A ratio is stated only where its interval leaves out 1 and lies outside the spread of the
    control, widened to as much the other way and to 2 % at least, and the control itself holds 1.

    Parameters
    ----------
    latency : pandas.DataFrame
        Of :func:`sparsity_report.measure_latency`.
    layouts : dict
        The layout of each variant: dense and masked ones run the same kernels.

    Returns
    -------
    pandas.DataFrame
        With ``verdict``, one of :data:`VERDICTS`, and ``noise``, see :func:`noise`.
    """
    base = latency["variant"] == reference(latency)
    plain = latency["variant"].map(layouts).isin(("dense", "masked"))
    plain |= latency["kernel"] == "dense"
    keys = pd.MultiIndex.from_frame(latency[_PLACE].astype(object).fillna(""))
    # Places where the base runs dense kernels.
    beside = keys.isin(keys[base & plain])
    low, high = latency["realised_low"], latency["realised_high"]
    far = noise(latency["control_low"], latency["control_high"])
    band = 1 + np.fmax(far, TOLERANCE)
    verdict = pd.Series("stated", index=latency.index)
    for why, holds in (
        ("noise", ~((low > band) | (high < 1 / band))),
        ("unsettled", ~settled(latency["control_low"], latency["control_high"])),
        ("few", latency["runs"] < ENOUGH),
        ("crowded", crowded(latency)),
        ("unknown", low.isna() | high.isna() | far.isna()),
        ("same", base | (plain & beside)),
    ):
        verdict = verdict.mask(holds, why)
    return latency.assign(verdict=verdict, noise=far)


def crossovers(latency: pd.DataFrame) -> pd.DataFrame:
    """Return from which sparsity CSR layers are faster, as far as it may be told.

    Parameters
    ----------
    latency : pandas.DataFrame
        Of :func:`sparsity_report.measure_latency`.

    Returns
    -------
    pandas.DataFrame
        ``name, tokens, cache`` and ``crossover_low, crossover_sparsity, crossover_high``, a row to
        each layer shape that was timed; ``verdict`` is ``stated``, ``never`` (not even at the
        highest sparsity that was timed), ``above`` (somewhere above the lower end, if at all) or
        ``unknown``.
    """
    rows = latency[(latency["scope"] == "layer") & (latency["variant"] == reference(latency))]
    rows = rows.drop_duplicates(["name", "tokens", "cache"])
    low, high = rows["crossover_low"], rows["crossover_high"]
    verdict = pd.Series("above", index=rows.index)
    verdict = verdict.mask(low >= HIGHEST, "never").mask(high.notna(), "stated")
    verdict = verdict.mask(low.isna(), "unknown")
    ends = ["crossover_low", "crossover_sparsity", "crossover_high"]
    return rows[["name", "tokens", "cache", *ends]].assign(verdict=verdict)
