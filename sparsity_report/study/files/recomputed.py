"""What of measurements and patterns can be computed again: whether it is what is written.

Sums and ratios of floats are compared to rounding, all else exactly; what is unknown agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.sparse.cost import value_bytes
from sparsity_report.study.derived.speedups import reference
from sparsity_report.study.frames import StudyFrames
from sparsity_report.study.harness_results import check_results
from sparsity_report.study.patterns import expected_sparsity
from sparsity_report.study.schema import BLOCKS, GAP, PROTOCOLS, SLIDING, TILE, refuse
from sparsity_report.study.zstd_sizes import frame_bounds

# Of figures that are computed again from others, relative.
_ROUNDING = 1e-9
# Beyond it the exponential is no number any more, and a perplexity is null.
_LARGEST_NLL = 700
# Bytes of a value of complex128.
_WIDEST = 16
#: What tells one way of scoring a text from another.
PASSAGE = ["protocol", "window", "stride", "dtype", "text_fingerprint"]
Flags = npt.NDArray[np.bool_]


def _check_latency(study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse times out of order, and speed-ups that are not ratios of the times and FLOPs."""
    check_variants("latency", study, frame)
    ordered = frame["seconds"].between(frame["seconds_low"], frame["seconds_high"])
    refuse("latency", ordered, "seconds: is not between seconds_low and seconds_high")
    share = frame["realised_speedup"] / frame["promised_speedup"]
    refuse("latency", _close(frame["realised_share"], share), "realised_share: is not the ratio")
    for middle, low, high in (
        ("realised_speedup", "realised_low", "realised_high"),
        ("crossover_sparsity", "crossover_low", "crossover_high"),
    ):
        within = ~(frame[low] > frame[middle]) & ~(frame[middle] > frame[high])
        refuse("latency", within, f"{middle}: is not between {low} and {high}")
    turned = frame["control_low"] > frame["control_high"]
    refuse("latency", ~turned, "control_low: is more than control_high")
    bound = frame["weight_bytes"] / frame["bandwidth"]
    refuse("latency", _close(frame["bound_seconds"], bound), "bound_seconds: is not the ratio")
    share = frame["bound_seconds"] / frame["seconds"]
    refuse("latency", _close(frame["bound_share"], share), "bound_share: is not the ratio")
    products = {"realised_speedup": frame["realised_speedup"] * frame["seconds"]}
    bases = {"realised_speedup": frame["seconds"]}
    whole = frame["scope"] == "model"
    if study.convention == "standard":  # as what is measured is counted
        totals = study.totals.set_index("variant")
        share = frame["variant"].map(totals["sparsity_prunable"]).where(whole)
        refuse("latency", _close(frame["sparsity"], share), "sparsity: is not that of the variant")
        flops = frame["variant"].map(totals["flops_per_token"]).where(whole)
        bases["promised_speedup"] = flops
        products["promised_speedup"] = frame["promised_speedup"] * flops
    keys = ["scope", "name", "tokens", "cache"]
    groups = frame.groupby(keys, sort=False, dropna=False).ngroup()
    for column, product in products.items():
        base = bases[column].where(frame["realised_speedup"] == 1)
        good = _among(product, base, groups)
        refuse("latency", good, f"{column}: is not the ratio to a row of speed-up 1")


def _check_speedups(study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse speed-ups out of order, and measurements that have another reference."""
    check_variants("speedups", study, frame)
    middle, low, high = (frame[f"realised_{end}"] for end in ("speedup", "low", "high"))
    within = ~(low > middle) & ~(middle > high)
    refuse("speedups", within, "realised_speedup: is not between realised_low and realised_high")
    turned = frame["control_low"] > frame["control_high"]
    refuse("speedups", ~turned, "control_low: is more than control_high")
    bases = {number: reference(rows) for number, rows in frame.groupby("measurement")}
    right = frame["against"] == frame["measurement"].map(bases)
    refuse("speedups", right, "against: is not the variant whose speed-ups are 1")
    one = (frame["variant"] != frame["against"]) | (middle == 1)
    refuse("speedups", one, "realised_speedup: is not 1 of what others are measured against")


def _check_quality(study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse scores that no text gives, and those of other variants than the study's."""
    nll, perplexity = frame["nll"], frame["perplexity"]
    due = np.exp(nll.clip(upper=_LARGEST_NLL))
    known = perplexity.notna() == (nll < _LARGEST_NLL)
    refuse("quality", known & _close(perplexity, due), "perplexity: is not exp(nll)")
    inside = frame["window"] <= frame["tokens"]
    refuse("quality", inside, "window: is more than the tokens of the text")
    _check_stride("quality", frame)
    scored = frame["scored"] == _tokens_scored(frame)
    refuse("quality", scored, "scored: is not what window and stride score of the tokens")
    for column in ("top1", "agreement", "flips"):
        share = _whole(frame[column], frame["scored"])
        refuse("quality", share, f"{column}: is no share of those scored")
    _check_distance(frame)
    facts = study.variants.merge(study.totals[["variant", "sparsity_prunable"]], on="variant")
    facts = facts.set_index("variant")
    within = frame["variant"].isin(facts.index)
    columns = {"layout": "layout", "sparsity": "sparsity_prunable"}
    if study.convention != "standard":
        del columns["sparsity"]
    for column, fact in columns.items():
        due = frame["variant"].map(facts[fact])
        good = (frame[column] == due) | due.isna() | ~within
        refuse("quality", good.fillna(True), f"{column}: is not that of the variant")
    # Where the model is not known, nor is the method: of a version that did not write them.
    due = frame["variant"].map(facts["method"])
    good = (frame["method"] == due) | (frame["method"].isna() & due.isna())
    refuse("quality", good | ~within | frame["model"].isna(), "method: is not that of the variant")


def _tokens_scored(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return how many of the tokens each protocol scores."""
    # The first token of a window that overlaps no other has nothing before it.
    windows = -(-frame["tokens"] // frame["window"])
    unscored = windows.where(frame["stride"] == frame["window"], 1)
    whole = frame["tokens"] // frame["window"] * (frame["window"] - 1)
    return (frame["tokens"] - unscored).where(frame["protocol"] == SLIDING, whole)


def _check_distance(frame: pd.DataFrame) -> None:
    """Refuse guesses that are further from, or nearer to, those of dense than both are right."""
    flips, agreement = frame["flips"].fillna(0), frame["agreement"].fillna(0)
    told = frame["against"].notna()
    for column in ("agreement", "flips"):
        refuse("quality", frame[column].notna() == told, f"{column}: is measured against nothing")
    refuse("quality", frame["kl"].isna() | told, "kl: is measured against nothing")
    # A guess that is no longer right, or right now, is another one.
    refuse("quality", flips + agreement <= 1 + _ROUNDING, "flips: is more than other guesses")
    keys = ["variant", "model", *PASSAGE]
    dense = frame.drop_duplicates(keys).set_index(keys)["top1"]
    rows = pd.MultiIndex.from_frame(frame[["against", *keys[1:]]])
    lost = (frame["top1"] - dense.reindex(rows).to_numpy()).abs().fillna(0)
    refuse("quality", ~told | (lost <= flips + _ROUNDING), "flips: is less than top1 changed")
    itself = told & (frame["against"] == frame["variant"])
    same = (frame["kl"] == 0) & (agreement == 1) & (flips == 0)
    refuse("quality", ~itself | same, "kl: is not 0 against itself")


def _check_sensitivity(study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse losses that are not those of the scores, and parts that the study does not have."""
    _check_stride("sensitivity", frame)
    inside = frame["pruned"] <= frame["weight_total"]
    refuse("sensitivity", inside, "pruned: is more than weight_total")
    share = frame["pruned"] / frame["weight_total"]
    refuse("sensitivity", _close(frame["sparsity"], share), "sparsity: is not pruned ÷ weights")
    with np.errstate(divide="ignore", invalid="ignore"):  # of what is refused below
        increase = np.log(frame["perplexity"].clip(lower=1)) - np.log(frame["dense_perplexity"])
    # A mean negative log likelihood is not negative.
    possible = (frame[["perplexity", "dense_perplexity"]].fillna(1) >= 1 - _ROUNDING).all(axis=1)
    same = possible & _close(frame["nll_increase"], increase, absolute=_ROUNDING)
    refuse("sensitivity", same, "nll_increase: is not the ratio of the perplexities")
    dense = frame.assign(hits=frame["top1"] + frame["top1_drop"]).groupby(["by", *PASSAGE])
    for column in ("dense_perplexity", "hits"):
        low, high = dense[column].transform("min"), dense[column].transform("max")
        one = _close(low, high, absolute=_ROUNDING)
        refuse("sensitivity", one, f"{column.replace('hits', 'top1_drop')}: dense is not one model")
    refuse("sensitivity", _of_layers(study.layers, frame), "part: is none of the layers")


def _check_continuations(study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse what variants write that the study does not have, and two endings of one prompt."""
    check_variants("continuations", study, frame)
    once = ~frame.duplicated(["variant", "prompt"])
    refuse("continuations", once, "prompt: is continued twice")


def _check_tasks(study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse scores that cannot be, and those of no variant."""
    check_variants("tasks", study, frame)
    check_results(frame)


def check_variants(table: str, study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse rows of a variant that the study does not have."""
    among = frame["variant"].isin(study.variants["variant"])
    refuse(table, among, "variant: is not among the variants")


def _check_patterns(study: StudyFrames, frame: pd.DataFrame) -> None:
    """Refuse shares that are no shares of the matrix, and zeros that the layers do not have."""
    size = frame["rows"].astype(float) * frame["columns"]
    for column, of in (("sparsity", size), ("zero_rows", frame["rows"]),
                       ("zero_columns", frame["columns"])):  # fmt: skip
        refuse("patterns", _whole(frame[column], of), f"{column}: is no share of the matrix")
    for block in BLOCKS:
        blocks = -(-frame["rows"] // block) * -(-frame["columns"] // block)
        good = _whole(frame[f"fill_{block}"], blocks)
        refuse("patterns", good, f"fill_{block}: is no share of the blocks")
    zeros = (frame["sparsity"].fillna(0).astype(float) * size).round()
    means = pd.Series([np.mean(heads) if heads else np.nan for heads in frame["head_sparsity"]])
    same = _close(means, frame["sparsity"], absolute=_ROUNDING)
    refuse("patterns", same, "head_sparsity: is not the sparsity")
    thresholds = frame["variant"].map(study.variants.set_index("variant")["threshold"])
    pairs = zip(thresholds, frame["std"], strict=True)
    due = pd.Series([expected_sparsity(*pair) for pair in pairs], dtype=float)
    good = _close(frame["expected_sparsity"], due)
    refuse("patterns", good, "expected_sparsity: is not that of the threshold")
    keys = ["variant", "module_name"]
    sums = frame[keys].assign(size=size, zeros=zeros).groupby(keys).sum()
    layers = study.layers.set_index(keys).loc[sums.index]
    pruned = layers["weight_total"] - layers["weight_nonzero"]
    within = (sums["size"] <= layers["weight_total"]) & (sums["zeros"] <= pruned).fillna(True)
    whole = (sums["size"] < layers["weight_total"]) | (sums["zeros"] == pruned).fillna(True)
    fits = pd.MultiIndex.from_frame(frame[keys]).map((within & whole).to_dict())
    refuse("patterns", fits, "sparsity: is not that of the layer")
    _check_padding(frame, size - zeros, zeros)
    _check_compressed(study.layers, frame)


def _check_padding(frame: pd.DataFrame, nonzeros: pd.Series, zeros: pd.Series) -> None:
    """Refuse stored zeros that fill nothing up, or that are more than runs of zeros can be."""
    stored = nonzeros + frame["tile_padding"].astype("Float64")
    tiles = -(-frame["rows"] // TILE) * -(-frame["columns"] // TILE)
    filled = (frame["tile_padding"] <= 7 * tiles) & (stored % 8 == 0)
    refuse("patterns", filled.fillna(True), "tile_padding: does not fill up the nonzeros")
    few = (frame["gap_padding"] <= zeros // GAP).fillna(True)
    refuse("patterns", few, "gap_padding: is more than a sixteenth of the zeros")


def _check_compressed(layers: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Refuse frames that no matrix of the size fits in, or that are larger than zstd makes them."""
    told = frame["zstd_version"].notna()
    refuse("patterns", told == frame["zstd_bytes"].notna(), "zstd_version: says of what is unknown")
    version = frame["zstd_version"].fillna("0.0.0").astype(str)
    refuse("patterns", version.str.fullmatch(r"\d{1,3}(\.\d{1,3}){2}"), "zstd_version: is none")
    keys = ["variant", "module_name"]
    dtypes = layers.set_index(keys)["dtype"].map(value_bytes)
    narrow = dtypes.reindex(pd.MultiIndex.from_frame(frame[keys])).to_numpy(dtype=np.int64)
    # Parameters of one module may be of different types, of which the layer names one.
    several = frame.groupby(keys)["parameter"].transform("nunique").to_numpy() > 1
    values = (frame["rows"] * frame["columns"]).to_numpy(dtype=np.int64)
    least, _ = frame_bounds(values * np.where(several, 1, narrow))
    _, most = frame_bounds(values * np.where(several, _WIDEST, narrow))
    within = ((frame["zstd_bytes"] >= least) & (frame["zstd_bytes"] <= most)).fillna(True)
    refuse("patterns", within, "zstd_bytes: is no size of a frame of the matrix")


def _check_stride(table: str, frame: pd.DataFrame) -> None:
    """Refuse windows that the protocol does not have."""
    refuse(table, frame["stride"] <= frame["window"], "stride: is more than window")
    beside = (frame["protocol"] == SLIDING) | (frame["stride"] == frame["window"])
    refuse(table, beside, "stride: is not the protocol's")
    fixed = frame["protocol"].map({name: window for name, (window, _) in PROTOCOLS.items()})
    refuse(table, fixed.isna() | (frame["window"] == fixed), "window: is not the protocol's")
    if "tokens" in frame:
        most = frame["protocol"].map({name: windows for name, (_, windows) in PROTOCOLS.items()})
        within = most.isna() | (frame["tokens"] <= most * frame["window"])
        refuse(table, within, "tokens: are more than the protocol's")


def _of_layers(layers: pd.DataFrame, frame: pd.DataFrame) -> Flags:
    """Whether each part is one of the layers, with no more modules and weights than they have."""
    block = "block " + layers["block"].astype(str)
    names = {
        "block": block.mask(layers["block"].isna(), "outside blocks"),
        "group": layers["group"],
        "layer": layers["module_name"],
    }
    good: Flags = np.zeros(len(frame), dtype=bool)
    for by, parts in names.items():
        sums = layers.groupby(["variant", parts.rename("part")])["weight_total"]
        sizes = pd.DataFrame({"modules": sums.size(), "weights": sums.sum()})
        most = sizes.groupby("part").max()
        rows = frame["by"] == by
        due = most.reindex(frame["part"]).reset_index(drop=True)
        fits = (frame["modules"] <= due["modules"]) & (frame["weight_total"] <= due["weights"])
        good |= (rows & fits).to_numpy(dtype=bool)
    return good


def _close(have: Any, due: Any, absolute: float = 0.0) -> Flags:
    """Whether numbers are those that are due, or one of them is not known."""
    one, other = (side.astype("Float64").to_numpy(float, na_value=np.nan) for side in (have, due))
    close: Flags = np.isclose(one, other, rtol=_ROUNDING, atol=absolute)
    unknown: Flags = np.isnan(one) | np.isnan(other)
    return close | unknown


def _among(products: pd.Series, bases: pd.Series, groups: pd.Series) -> Flags:
    """Whether each product is one of the bases of its group, where both are known."""
    left, right = (
        pd.DataFrame({"number": side.astype("Float64").astype(float), "group": groups})
        .dropna()
        .reset_index(names="row")
        .sort_values("number")
        for side in (products, bases)
    )
    right["base"] = right["number"]
    nearest = pd.merge_asof(
        left, right.drop(columns="row"), on="number", by="group", direction="nearest"
    )
    good: Flags = np.ones(len(products), dtype=bool)
    good[nearest["row"]] = _close(nearest["number"], nearest["base"])
    return good


def _whole(share: pd.Series, of: pd.Series) -> Flags:
    """Whether a share stands for a whole number, or is not known."""
    sizes = of.to_numpy(dtype=float)
    counts = share.astype("Float64").to_numpy(float, na_value=np.nan) * sizes
    good: Flags = np.isnan(counts)
    good |= np.abs(counts - np.round(counts)) <= _ROUNDING * np.maximum(sizes, 1)
    return good


#: What checks each table.
RECOMPUTED: Mapping[str, Callable[[StudyFrames, pd.DataFrame], None]] = {
    "patterns": _check_patterns,
    "latency": _check_latency,
    "speedups": _check_speedups,
    "quality": _check_quality,
    "sensitivity": _check_sensitivity,
    "continuations": _check_continuations,
    "tasks": _check_tasks,
}
