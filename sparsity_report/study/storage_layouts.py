"""Bytes of the prunable matrices of each variant in every storage layout."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.counting.n_m_patterns import KNOWN, Pattern
from sparsity_report.sparse import cost
from sparsity_report.sparse.shares import break_even
from sparsity_report.study.layers import summed
from sparsity_report.study.schema import BLOCKS, LAYOUTS, TABLES, typed

_Size = Callable[[Any], Any]
_SUMMED = ["total", "nonzero", "bytes", "dense", "empty", "full"]


def storage_frame(layers: pd.DataFrame, patterns: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the bytes of every variant's matrices in every layout, from integers alone.

    Parameters
    ----------
    layers : pandas.DataFrame
        The table ``layers`` of a study.
    patterns : pandas.DataFrame, optional
        The table ``patterns`` of a study. Without it, block formats and compliance with 2:4 are
        unknown.

    Returns
    -------
    pandas.DataFrame
        As :attr:`sparsity_report.Study.storage`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> frame = sr.compare(sr.csr(pruning)).storage.set_index(["scope", "layout"])
    >>> frame.loc[("prunable", ["csr_int32", "bitmask"]), "ratio"].round(3).tolist()
    [1.406, 0.731]
    """
    matrices = _matrices(layers)
    if matrices.empty:
        return typed("storage", pd.DataFrame(columns=list(TABLES["storage"])))
    sized = _layer_sizes(matrices, patterns)
    everything = pd.concat([sized, _others(layers)])
    frame = pd.concat(
        [
            sized.drop(columns="group"),
            _summed(sized.assign(scope="group", name=sized["group"])),
            _summed(sized.assign(scope="prunable", name="prunable weights")),
            _summed(everything.assign(scope="model", name="whole model")),
        ],
        ignore_index=True,
    )
    frame["ratio"] = frame["bytes"] / frame["dense"]
    frame["break_even"] = break_even(frame["dense"], frame["full"], frame["empty"])
    fixed = frame["layout"].isin(["2:4", "marlin_2:4"]) & frame["bytes"].notna()
    frame.loc[fixed, "break_even"] = 0.5
    return typed("storage", frame)


def layout_ends(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the bytes of each layout of a variant at 0 % and 100 % sparsity.

    Parameters
    ----------
    layers : pandas.DataFrame
        The rows of one variant in ``study.layers``.

    Returns
    -------
    pandas.DataFrame
        By ``layout``: ``total`` weights, and the bytes if ``dense``, without zeros (``full``) and
        with only zeros (``empty``). With z zeros, ``full − z·(full − empty) ÷ total`` bytes.
    """
    sizes = _layer_sizes(_matrices(layers)).groupby("layout", sort=False)
    return summed(sizes[["total", "dense", "full", "empty"]])


def layout_curve(ends: pd.DataFrame, sparsities: Sequence[float] | None = None) -> pd.DataFrame:
    """Return the bytes of layouts at several sparsities, from their lines, see :func:`layout_ends`.

    Parameters
    ----------
    ends : pandas.DataFrame
        Of :func:`layout_ends`, for the layouts of the curve.
    sparsities : sequence of float, optional
        By default 0, 1, … 100 %.

    Returns
    -------
    pandas.DataFrame
        ``sparsity, layout, bytes, ratio`` (to dense bytes).
    """
    shares = np.arange(101) / 100 if sparsities is None else np.asarray(sparsities, dtype=float)
    lines = ends.astype("int64")
    total, dense, full, empty = (lines[[name]].to_numpy() for name in lines)
    # Both weights and bytes are whole numbers.
    left = total - np.rint(total * shares)
    size = empty + np.rint((full - empty) * left / total).astype(np.int64)
    return pd.DataFrame(
        {
            "sparsity": np.tile(shares, len(lines)),
            "layout": lines.index.repeat(len(shares)),
            "bytes": size.ravel(),
            "ratio": (size / dense).ravel(),
        }
    )


def _matrices(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have prunable matrices."""
    return layers[_prunable(layers) & (layers["weight_total"] > 0)]


def _prunable(layers: pd.DataFrame) -> pd.Series:
    return layers["prunable"] & layers["row_pointers"].notna()


def _summed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the sums of layers; a sum with an unknown part is unknown."""
    grouped = frame.groupby(["variant", "scope", "name", "layout"], sort=False)
    sums = summed(grouped[_SUMMED])
    sums["lossless"] = _all(grouped["lossless"], grouped.size())
    return sums.reset_index()


def _layer_sizes(layers: pd.DataFrame, patterns: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row per layer and layout, with the ends ``empty`` and ``full`` of its line."""
    # Any: the formulas are typed for one matrix and compute many at a time.
    layers = layers.reset_index(drop=True)
    n: Any = layers["weight_total"].astype("Int64")
    z: Any = layers["weight_nonzero"].astype("Int64")
    v: Any = layers["dtype"].map(cost.value_bytes).astype("int64")  # even of no layers
    pointers: Any = layers["row_pointers"]
    facts = layers[["variant", "module_name", "group"]].rename(columns={"module_name": "name"})
    facts = facts.assign(scope="layer", total=n, nonzero=z, dense=cost.dense_bytes(n, v))
    sums = _pattern_sums(facts, patterns)
    parts: dict[str, dict[str, pd.Series]] = {}

    def add(
        layout: str, size: _Size, used: Any = z, slots: Any = n, fits: Any = None, kept: Any = True
    ) -> None:
        sizes = {"bytes": size(used), "empty": size(0 * slots), "full": size(slots)}
        lossless = pd.Series(kept, index=facts.index, dtype="boolean")
        if used is not z:  # of patterns, which may be unknown
            lossless = lossless.where(sizes["bytes"].notna())
        part = sizes | {"lossless": lossless}
        parts[layout] = part if fits is None else {k: part[k].where(fits) for k in part}

    add("dense", lambda _: facts["dense"])
    runs: Any = layers["runs_as_csr"].astype(bool)

    def add_csr(layout: str, size: _Size, fits: Any = None) -> None:
        fits = None if fits is None else ~runs | fits.fillna(True).astype(bool)
        add(layout, lambda k: size(k).where(runs, facts["dense"]), fits=fits)

    narrow = layers["columns"] <= 2**15
    int32 = (z < 2**31) & (layers["columns"] < 2**31)
    add_csr("csr_int16", lambda k: cost.csr_bytes(k, pointers - 1, v, 2) + 2 * pointers, narrow)
    add_csr("csr_int32", lambda k: cost.csr_bytes(k, pointers - 1, v, 4), int32)
    add_csr("csr_int64", lambda k: cost.csr_bytes(k, pointers - 1, v, 8))
    for b in BLOCKS:
        ends = sums[f"pointers_{b}"]
        add(
            f"bsr_{b}",
            lambda k, b=b, ends=ends: cost.bsr_bytes(k, b, ends - 1, v, 4),  # type: ignore[misc]
            used=sums[f"filled_{b}"],
            slots=sums[f"slots_{b}"],
        )
    add("bitmask", lambda k: cost.bitmask_bytes(n, k, v))
    add("2:4", lambda _: cost.two_four_bytes(n, v), kept=sums["two_four"])
    groups = _in_whole_groups(layers)
    add("marlin_2:4", lambda _: cost.marlin_two_four_bytes(n), fits=groups, kept=False)
    columns = {
        name: pd.concat([part[name] for part in parts.values()]).array
        for name in ("bytes", "empty", "full", "lossless")
    }
    frame = pd.concat([facts] * len(parts))
    frame = frame.assign(layout=np.repeat(list(parts), len(facts)), **columns)
    return frame.sort_index(kind="stable")


def _in_whole_groups(layers: pd.DataFrame) -> pd.Series:
    """Return whether each layer has equal matrices whose rows are whole groups of 128."""
    sizes = pd.Series([math.prod(shape) for shape in layers["shape"]], index=layers.index)
    return (sizes == layers["weight_total"]) & (layers["columns"] % 128 == 0)


def _pattern_sums(facts: pd.DataFrame, patterns: pd.DataFrame | None) -> pd.DataFrame:
    """Return block counts and compliance with 2:4 per layer; null without patterns."""
    if patterns is None:
        patterns = typed("patterns", pd.DataFrame(columns=list(TABLES["patterns"])))
    sizes: dict[str, Any] = {}
    for b in BLOCKS:
        down, across = -(-patterns["rows"] // b), -(-patterns["columns"] // b)
        sizes[f"slots_{b}"], sizes[f"pointers_{b}"] = down * across, down + 1
        sizes[f"filled_{b}"] = (patterns[f"fill_{b}"] * down * across).round()
    names = [str(pattern) for pattern in KNOWN if pattern.implies(Pattern(2, 4))]
    complies = (patterns["n_m_share"] == 1) & patterns["n_m"].isin(names)
    # A matrix named after another pattern may still comply with 2:4; one named 2:4 does not.
    two_four = complies.astype("boolean").mask(~complies & (patterns["n_m"] != "2:4"))
    modules = pd.MultiIndex.from_frame(facts[["variant", "name"]])
    rows = modules.get_indexer(pd.MultiIndex.from_frame(patterns[["variant", "module_name"]]))
    sums = summed(pd.DataFrame(sizes, index=patterns.index).groupby(rows)).astype("Int64")
    grouped = two_four.groupby(rows)
    return sums.assign(two_four=_all(grouped, grouped.size())).reindex(facts.index)


def _all(grouped: Any, size: pd.Series) -> Any:
    """Return whether all of a group are true; one false decides, whatever is unknown."""
    worst = grouped.min()
    return worst.where((grouped.count() == size) | (worst == False))  # noqa: E712


def _others(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the parameters outside prunable matrices, with the same bytes in every layout."""
    inside = _prunable(layers)
    total, nonzero = (
        (layers[name] - layers[f"weight_{name}"].where(inside, 0)).astype("Int64")
        for name in ("total", "nonzero")
    )
    size = layers["stored_bytes"].where(~inside, total * layers["dtype"].map(cost.value_bytes))
    sizes = dict.fromkeys(("bytes", "dense", "empty", "full"), size.astype("Int64"))
    rest = layers[["variant"]].assign(total=total, nonzero=nonzero, lossless=True, **sizes)
    return rest.merge(pd.DataFrame({"layout": LAYOUTS}), how="cross")
