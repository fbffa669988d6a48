"""Bytes of the prunable matrices of each variant in every storage layout."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.counting.n_m_patterns import KNOWN, Pattern
from sparsity_report.sparse import cost
from sparsity_report.sparse.shares import break_even
from sparsity_report.study.layers import summed
from sparsity_report.study.levels import bytes_beside
from sparsity_report.study.schema import BLOCKS, LAYOUTS, TABLES, typed

_Size = Callable[[Any], Any]
# Layouts of the curve of bytes against sparsity.
_CURVE = ("dense", "csr_int32", "csr_int64", "bitmask")
_ENDS = ["total", "base", "full", "empty"]
_SUMMED = ["total", "nonzero", "bytes", "base", "empty", "full"]


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
    frame["ratio"] = frame["bytes"] / frame["base"]
    share = break_even(frame["base"], frame["full"], frame["empty"])
    frame["break_even"] = share.mask(frame["layout"].str.startswith("bsr"))
    is_smaller = (frame["bytes"] < frame["base"]).fillna(False).astype(bool)
    frame.loc[frame["layout"].eq("2:4") & is_smaller, "break_even"] = 0.5
    packed = layers.loc[_is_packed(layers), "variant"]
    # A file is a layout where it packs weights.
    return typed("storage", frame[frame["layout"].ne("file") | frame["variant"].isin(packed)])


def with_packed_bytes(layers: pd.DataFrame, variants: pd.DataFrame) -> pd.DataFrame:
    """Return layers with ``packed_bytes``, the bytes in the file of a packed layer before pruning.

    They are null for layers that no file packs, and unknown without a variant of the opened model.
    """
    model = ["model", "source", "fingerprint"]
    rows = layers[["variant", "module_name", "file_bytes"]]
    rows = rows.merge(variants[["variant", *model]], on="variant", how="left")
    opened = rows.groupby([*model, "module_name"], sort=False)["file_bytes"].transform("first")
    return layers.assign(packed_bytes=opened.array)


def layout_curve(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the bytes of layouts at 0, 1, … 100 % sparsity, the same in every matrix.

    Parameters
    ----------
    layers : pandas.DataFrame
        The rows of one variant in ``study.layers``.

    Returns
    -------
    pandas.DataFrame
        ``sparsity, layout, bytes, ratio`` (to dense bytes); empty if nothing is prunable.
    """
    shares = np.arange(101) / 100
    # Bytes fall linearly from ``full`` without zeros to ``empty`` with zeros alone.
    sizes = summed(_layer_sizes(_matrices(layers)).groupby("layout", sort=False)[_ENDS])
    lines = sizes.reindex([*_CURVE]).dropna().astype("int64")
    total, base, full, empty = (lines[[name]].to_numpy() for name in lines)
    # Both weights and bytes are whole numbers.
    left = total - np.rint(total * shares)
    size = empty + np.rint((full - empty) * left / total).astype(np.int64)
    return pd.DataFrame(
        {
            "sparsity": np.tile(shares, len(lines)),
            "layout": lines.index.repeat(len(shares)),
            "bytes": size.ravel(),
            "ratio": (size / base).ravel(),
        }
    )


def _matrices(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have prunable matrices."""
    return layers[_prunable(layers) & (layers["weight_total"] > 0)]


def _prunable(layers: pd.DataFrame) -> pd.Series:
    return layers["prunable"] & layers["row_pointers"].notna()


def _is_packed(layers: pd.DataFrame) -> pd.Series:
    return layers["packing"].fillna("").ne("")


def _packed_bytes(layers: pd.DataFrame) -> pd.Series:
    """Return the bytes in the file of layers that it packs, of opened layers without a column."""
    return layers.get("packed_bytes", layers["file_bytes"]).astype("Int64")


def _summed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the sums of layers; a sum with an unknown part is unknown."""
    grouped = frame.groupby(["variant", "scope", "name", "layout"], sort=False)
    sums = summed(grouped[_SUMMED])
    sums["lossless"] = _all(grouped["lossless"])
    return sums.reset_index()


def _layer_sizes(layers: pd.DataFrame, patterns: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row per layer and layout, with the ends ``empty`` and ``full`` of its line."""
    # Any: the formulas are typed for one matrix and compute many at a time.
    layers = layers.reset_index(drop=True)
    n: Any = layers["weight_total"].astype("Int64")
    z: Any = layers["weight_nonzero"].astype("Int64")
    v: Any = layers["dtype"].map(cost.value_bytes).astype("int64")  # even of no layers
    rows: Any = layers["row_pointers"] - 1
    dense: Any = cost.dense_bytes(n, v)
    runs = layers["runs_as_csr"].astype(bool)
    facts = layers[["variant", "module_name", "group"]].rename(columns={"module_name": "name"})
    base = dense.mask(_is_packed(layers), _packed_bytes(layers) - bytes_beside(layers))
    facts = facts.assign(scope="layer", total=n, nonzero=z, base=base)
    sums = _pattern_sums(facts, patterns)

    def csr(i: int) -> _Size:
        return lambda k: cost.csr_bytes(k, rows, v, i).where(runs, dense)  # type: ignore[attr-defined]

    def bsr(b: int) -> _Size:
        return lambda k: cost.bsr_bytes(k, b, sums[f"pointers_{b}"] - 1, v, 4)  # type: ignore[arg-type]

    # The stored values or blocks, the most of them, and the bytes of a number of them.
    formulas: dict[str, tuple[Any, Any, _Size]] = {
        "file": (z, n, lambda _: base),
        "dense": (z, n, lambda _: dense),
        "csr_int32": (z, n, csr(4)),
        "csr_int64": (z, n, csr(8)),
        **{f"bsr_{b}": (sums[f"filled_{b}"], sums[f"slots_{b}"], bsr(b)) for b in BLOCKS},
        "bitmask": (z, n, lambda k: cost.bitmask_bytes(n, k, v)),
        "2:4": (z, n, lambda _: cost.two_four_bytes(n, v)),
    }
    parts = []
    for layout, (used, slots, size) in formulas.items():
        figures = {"bytes": size(used), "empty": size(0 * slots), "full": size(slots)}
        lossless = sums["two_four"] if layout == "2:4" else pd.Series(True, facts.index, "boolean")
        if layout.startswith("bsr"):  # patterns may be unknown
            lossless = lossless.where(figures["bytes"].notna())
        if layout == "file":  # whether its format can hold other values is unknown
            lossless = lossless.where(layers["file_bytes"].notna())
        part = pd.DataFrame({"layout": layout, **figures, "lossless": lossless})
        if layout == "csr_int32":
            fits = (z < 2**31) & (layers["columns"] < 2**31)
            part = part.where(~runs | fits.fillna(True).astype(bool)).assign(layout=layout)
        parts.append(facts.join(part))
    return pd.concat(parts).sort_index(kind="stable")


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
    return sums.assign(two_four=_all(two_four.groupby(rows))).reindex(facts.index)


def _all(grouped: Any) -> Any:
    """Return whether all of a group are true; one false decides, whatever is unknown."""
    worst = grouped.min()
    return worst.where((grouped.count() == grouped.size()) | (worst == False))  # noqa: E712


def _others(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the parameters outside prunable matrices, the same in every layout but the file."""
    inside = _prunable(layers)
    total, nonzero = (
        (layers[name] - layers[f"weight_{name}"].where(inside, 0)).astype("Int64")
        for name in ("total", "nonzero")
    )
    beside = bytes_beside(layers)
    base = beside.mask(_is_packed(layers) & ~inside, _packed_bytes(layers))
    sizes = dict.fromkeys(("bytes", "empty", "full"), beside)
    rest = layers[["variant"]].assign(total=total, nonzero=nonzero, lossless=True, **sizes)
    rest = rest.assign(base=base).merge(pd.DataFrame({"layout": LAYOUTS}), how="cross")
    for name in sizes:
        rest[name] = rest[name].mask(rest["layout"].eq("file"), rest["base"])
    return rest
