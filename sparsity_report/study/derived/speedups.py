"""Speed-ups that exceed timing noise, measured by timing the same kernel twice.

Every sentence, table, chart and LaTeX command with a ratio of times shows it only if the verdict of
:func:`speeds` allows it.
"""

from typing import Any

import numpy as np
import pandas as pd

# Relative difference that the position of a matrix in memory alone explains.
TOLERANCE = 0.02
# Smallest number of rounds for an interval.
ENOUGH = 15
# The highest sparsity at which CSR is timed against dense.
HIGHEST = 0.99
# Times that agree so closely, from so many seconds, for so many sizes, the largest at least so
# many times the least, are ticks of a timer. Those of schedulers last 1 to 16 ms.
_ALIKE, _TICK, _SIZES, _TIMES = 0.01, 0.9e-3, 3, 2
# Relative difference of identical kernels above which no time is reported.
_UNSTEADY = 1.0
# Share of a thread's core that other programs may use during timing.
_OTHERS = 0.1
_PLACE = ["scope", "name", "tokens", "cache"]
#: Verdicts on a speed-up: it is valid; both variants run the same kernels; no control was timed;
#: other programs used cores that it needed; the times are ticks of a timer; it was timed too few
#: times; the control did not settle around 1; or the same kernel, timed twice, differed as much.
VERDICTS = ("stated", "same", "unknown", "crowded", "ticks", "few", "unsettled", "noise")


def reference(latency: pd.DataFrame) -> str:
    """Return the variant whose speed-up is 1 by definition."""
    steady = (latency["realised_speedup"] == 1).groupby(latency["variant"], sort=False).all()
    return str(steady.index[int(steady.argmax())])


def noise(low: Any, high: Any) -> Any:
    """Return the relative difference of the same kernel timed twice, from the control's ratios.

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
    """Return true where a control's ratios include 1, within :data:`TOLERANCE`."""
    return (low <= 1 + TOLERANCE) & (high >= 1 / (1 + TOLERANCE))


def crowded(frame: Any) -> Any:
    """Return true where other programs used cores that the timed threads needed.

    If the processor time of other programs is unknown, the load average beyond the timed threads
    replaces it.
    """
    room = frame["cores"] - frame["threads"] * (1 - _OTHERS)
    others = frame["others"].astype("Float64")
    others = others.fillna(frame["load"].astype("Float64") - frame["threads"])
    return (others > room).fillna(False).astype(bool)


def ticks(latency: pd.DataFrame) -> pd.Series:
    """Return true for times that shapes of different size share: ticks of a timer, not work.

    A thread that waits for a core gets it at the scheduler's next tick, whatever it computes.
    Layers differ in the bytes of their weights, forward passes in their tokens.

    Parameters
    ----------
    latency : pandas.DataFrame
        Of :func:`sparsity_report.latency`.
    """
    are_ticks = pd.Series(False, index=latency.index)
    sizes = latency["weight_bytes"].fillna(latency["tokens"]).astype(float)
    long = latency[latency["seconds"] >= _TICK]
    for _, rows in long.groupby(["variant", "scope"]):
        for seconds in rows["seconds"]:
            alike = rows.index[(rows["seconds"] / seconds - 1).abs() <= _ALIKE]
            shared = sizes[alike]
            if shared.nunique() >= _SIZES and shared.max() >= _TIMES * shared.min():
                are_ticks[alike] = True
    return are_ticks


def speeds(latency: pd.DataFrame, layouts: dict[str, str]) -> pd.DataFrame:
    """Return measured times with a verdict on each speed-up.

    A speed-up is stated only if the control's ratios include 1 and its interval lies outside the
    noise: the control's largest deviation from 1, in both directions and at least 2 %.

    Parameters
    ----------
    latency : pandas.DataFrame
        Of :func:`sparsity_report.latency`.
    layouts : dict
        Layout by variant; dense and masked variants run the same kernels.

    Returns
    -------
    pandas.DataFrame
        The rows with ``verdict``, one of :data:`VERDICTS`; ``noise``, see :func:`noise`; and
        ``withheld``, the verdict for which not even the time is reported, else null.
    """
    base = latency["variant"] == reference(latency)
    plain = latency["variant"].map(layouts).isin(("dense", "masked"))
    plain |= latency["kernel"] == "dense"
    keys = pd.MultiIndex.from_frame(latency[_PLACE].astype(object).fillna(""))
    # Keys for which the base runs dense kernels.
    beside = keys.isin(keys[base & plain])
    low, high = latency["realised_low"], latency["realised_high"]
    far = noise(latency["control_low"], latency["control_high"])
    band = 1 + np.fmax(far, TOLERANCE)
    same = base | (plain & beside)
    verdict = pd.Series("stated", index=latency.index)
    for why, holds in (
        ("noise", ~((low > band) | (high < 1 / band))),
        ("unsettled", ~settled(latency["control_low"], latency["control_high"])),
        ("few", latency["runs"] < ENOUGH),
        ("ticks", ticks(latency)),
        ("crowded", crowded(latency)),
        ("unknown", low.isna() | high.isna() | far.isna()),
    ):
        verdict = verdict.mask(holds, why)
    # The same kernels have a time, though no speed-up, unless they differed from themselves.
    is_timed = (verdict == "stated") | (same & (verdict == "noise") & (far <= _UNSTEADY))
    withheld = verdict.astype(object).mask(is_timed, None)
    return latency.assign(verdict=verdict.mask(same, "same"), noise=far, withheld=withheld)


def crossovers(latency: pd.DataFrame) -> pd.DataFrame:
    """Return the sparsity from which CSR is faster than dense, by layer shape.

    Parameters
    ----------
    latency : pandas.DataFrame
        Of :func:`sparsity_report.latency`.

    Returns
    -------
    pandas.DataFrame
        ``name, tokens, cache`` and ``crossover_low, crossover_sparsity, crossover_high``, one row
        per timed layer shape. ``verdict`` is ``stated``, ``never`` (dense is faster up to the
        highest timed sparsity), ``above`` (above the lower end, if at all) or ``unknown``.
    """
    rows = latency[(latency["scope"] == "layer") & (latency["variant"] == reference(latency))]
    rows = rows.drop_duplicates(["name", "tokens", "cache"])
    low, high = rows["crossover_low"], rows["crossover_high"]
    verdict = pd.Series("above", index=rows.index)
    verdict = verdict.mask(low >= HIGHEST, "never").mask(high.notna(), "stated")
    verdict = verdict.mask(low.isna(), "unknown")
    ends = ["crossover_low", "crossover_sparsity", "crossover_high"]
    return rows[["name", "tokens", "cache", *ends]].assign(verdict=verdict)
