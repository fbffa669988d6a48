"""What the prunable matrices of each variant would take in every storage layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.cost import (
    bitmask_bytes,
    bsr_bytes,
    coo_bytes,
    csr_bytes,
    dense_bytes,
    two_four_bytes,
    value_bytes,
)
from sparsity_report.patterns import BLOCKS
from sparsity_report.structure import records

STORAGE_COLUMNS = (
    "variant",
    "scope",
    "name",
    "layout",
    "total",
    "nonzero",
    "bytes",
    "ratio",
    "break_even",
    "lossless",
)
LAYOUTS = (
    "dense",
    "csr_int16",
    "csr_int32",
    "csr_int64",
    "coo_int32",
    "coo_int64",
    *(f"bsr_{size}" for size in BLOCKS),
    "bitmask",
    "2:4",
)
SCOPES = ("layer", "group", "prunable", "model")
_SUMMED = ["total", "nonzero", "bytes", "dense", "empty", "full"]


class _Size(NamedTuple):
    """Bytes of a matrix in a layout: as it is, and what the line through both ends starts from."""

    bytes: int | None
    empty: int | None  # if it held nothing
    full: int | None  # if it held every weight
    lossless: bool | None


class _Blocks(NamedTuple):
    """Blocks of one size in the matrices of a module."""

    filled: int
    slots: int
    pointers: int


class _Look(NamedTuple):
    """What a look at the values adds for the matrices of one module."""

    blocks: Mapping[int, _Blocks]
    two_four: bool | None


def storage_frame(layers: pd.DataFrame, patterns: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the bytes of every variant's matrices in every layout, from integers alone.

    Parameters
    ----------
    layers : pandas.DataFrame
        As of a study.
    patterns : pandas.DataFrame, optional
        As of a study. Without them the block formats are unknown, and so is whether a matrix
        complies with 2:4.

    Returns
    -------
    pandas.DataFrame
        With the columns ``STORAGE_COLUMNS``. ``scope`` is ``"layer"`` (the prunable matrices of
        one module, biases left out), ``"group"`` and ``"prunable"`` (sums of these) or
        ``"model"`` (every parameter, those that are not prunable as they are). ``bytes`` is null
        where the layout does not apply or zeros are unknown, ``ratio`` is bytes ÷ dense bytes.
        ``break_even`` is the sparsity from which the layout is smaller than dense, row pointers
        included; of BSR if zeros came in whole blocks, of 2:4 the sparsity it takes.
        ``lossless`` says whether the layout can hold every nonzero; null where that is unknown.

        ``csr_int16`` has int16 columns, for at most 32,768 of them, and int32 row pointers;
        ``csr_int32`` holds at most 2³¹ − 1 nonzeros in a tensor; torch's COO has int64 indices.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> frame = sr.compare(sr.csr(pruning)).storage.set_index(["scope", "layout"])
    >>> frame.loc[("prunable", ["csr_int32", "bitmask"]), "ratio"].round(3).tolist()
    [1.406, 0.731]
    """
    sized = pd.DataFrame(_layer_sizes(layers, patterns))
    if sized.empty:
        return pd.DataFrame(columns=list(STORAGE_COLUMNS))
    sized = sized.astype(dict.fromkeys(_SUMMED, "Int64") | {"lossless": "boolean"})
    whole = pd.concat([sized, _others(layers)])
    frame = pd.concat(
        [
            sized.drop(columns="group"),
            _summed(sized.assign(scope="group", name=sized["group"])),
            _summed(sized.assign(scope="prunable", name="prunable weights")),
            _summed(whole.assign(scope="model", name="whole model")),
        ],
        ignore_index=True,
    )
    frame["ratio"] = (frame["bytes"] / frame["dense"]).astype(float)
    gain = (frame["dense"] - frame["empty"]) / (frame["full"] - frame["empty"])
    frame["break_even"] = (1 - gain.astype(float)).where(frame["full"] > frame["empty"])
    frame.loc[frame["layout"] == "2:4", "break_even"] = 0.5
    return frame[list(STORAGE_COLUMNS)]


def _summed(frame: pd.DataFrame) -> pd.DataFrame:
    """Sum layers; what is unknown of one is unknown of all."""
    grouped = frame.groupby(["variant", "scope", "name", "layout"], sort=False)
    sums = grouped[_SUMMED].sum()
    sums = sums.mask(grouped[_SUMMED].count().ne(grouped.size(), axis=0))
    known = grouped["lossless"].count() == grouped.size()
    # Kleene: one that loses makes all lose, whatever is unknown of the others.
    sums["lossless"] = grouped["lossless"].min().where(lambda worst: known | (worst == False))  # noqa: E712
    return sums.reset_index()


def _layer_sizes(
    layers: pd.DataFrame, patterns: pd.DataFrame | None
) -> Iterator[dict[str, object]]:
    own = layers[layers["prunable"] & layers["row_pointers"].notna() & (layers["weight_total"] > 0)]
    looks = {} if patterns is None else _looks(patterns)
    for row in records(own):
        v = value_bytes(row["dtype"])
        facts = {
            "variant": row["variant"],
            "scope": "layer",
            "name": row["module_name"],
            "group": row["group"],
            "total": row["weight_total"],
            "nonzero": row["weight_nonzero"],
            "dense": dense_bytes(row["weight_total"], v),
        }
        look = looks.get((row["variant"], row["module_name"]))
        for layout, size in zip(LAYOUTS, _sizes(row, v, look), strict=True):
            yield facts | {"layout": layout} | size._asdict()


def _sizes(row: Mapping[str, Any], v: int, look: _Look | None) -> Iterator[_Size]:
    n, pointers = row["weight_total"], row["row_pointers"]
    z = None if pd.isna(row["weight_nonzero"]) else int(row["weight_nonzero"])

    def line(size: Callable[[int], int], used: int | None = z, slots: int = n) -> _Size:
        return _Size(None if used is None else size(used), size(0), size(slots), True)

    none = _Size(None, None, None, None)
    yield line(lambda _: dense_bytes(n, v), 0)
    narrow = line(lambda k: csr_bytes(k, pointers - 1, v, 2) + 2 * pointers)
    yield narrow if row["columns"] <= 2**15 else none
    yield line(lambda k: csr_bytes(k, pointers - 1, v, 4)) if (z or 0) < 2**31 else none
    yield line(lambda k: csr_bytes(k, pointers - 1, v, 8))
    yield line(lambda k: coo_bytes(k, v, 4))
    yield line(lambda k: coo_bytes(k, v, 8))
    for b in BLOCKS:
        if look is None:
            yield none
            continue
        filled, slots, own = look.blocks[b]
        yield line(partial(bsr_bytes, block=b, block_rows=own - 1, v=v, i=4), filled, slots)
    yield line(lambda k: bitmask_bytes(n, k, v))
    yield line(lambda _: two_four_bytes(n, v), 0)._replace(lossless=look.two_four if look else None)


def _looks(patterns: pd.DataFrame) -> dict[tuple[str, str], _Look]:
    looks: dict[Any, _Look] = {}
    for key, own in patterns.groupby(["variant", "module_name"], sort=False):
        blocks = {}
        for b in BLOCKS:
            down, across = -(-own["rows"] // b), -(-own["columns"] // b)
            filled = (own[f"fill_{b}"] * down * across).round()
            blocks[b] = _Blocks(
                int(filled.sum()), int((down * across).sum()), int((down + 1).sum())
            )
        looks[key] = _Look(blocks, _complies(own))
    return looks


def _complies(patterns: pd.DataFrame) -> bool | None:
    """Whether matrices comply with 2:4 throughout; what complies with 1:4 or 2:8 does."""
    whole = patterns["n_m_share"] == 1
    if (whole & patterns["n_m"].isin(["1:4", "2:4", "2:8"])).all():
        return True
    # Where 2:4 was not named, another pattern fits better and says nothing of this one.
    return None if (~whole & (patterns["n_m"] != "2:4")).any() else False


def _others(layers: pd.DataFrame) -> pd.DataFrame:
    """Return what is not a prunable matrix, the same bytes beside every layout."""
    inside = (layers["prunable"] & layers["row_pointers"].notna()).to_numpy()
    v = layers["dtype"].map({d: value_bytes(d) for d in layers["dtype"].unique()})
    rest = layers["total"] - layers["weight_total"]
    own = pd.DataFrame(
        {
            "variant": layers["variant"],
            "total": layers["total"].where(~inside, rest),
            "nonzero": layers["nonzero"].where(
                ~inside, layers["nonzero"] - layers["weight_nonzero"]
            ),
            "bytes": layers["stored_bytes"].where(~inside, rest * v),
        }
    ).astype({"total": "Int64", "nonzero": "Int64", "bytes": "Int64"})
    for column in ("dense", "empty", "full"):
        own[column] = own["bytes"]
    own["lossless"] = pd.array([True] * len(own), dtype="boolean")
    return own.merge(pd.DataFrame({"layout": LAYOUTS}), how="cross")
