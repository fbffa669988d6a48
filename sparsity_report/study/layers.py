"""From weights and a pruning decision to rows: what each module holds, does and costs.

Everything here is derived from counts; no tensor is read or changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.cuts import Cut, Pruning
from sparsity_report.counting.histogram import Integers, Magnitudes
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import csr_bytes, dense_bytes, index_bytes, sparse_flops
from sparsity_report.weights.groups import GROUPS
from sparsity_report.weights.parameters import Parameter
from sparsity_report.weights.weights import Weights

Flags = npt.NDArray[np.bool_]

CONVENTIONS = ("standard", "notebook")
LAYER_COLUMNS = (
    "variant",
    "module_name",
    "block",
    "group",
    "shape",
    "dtype",
    "layout",
    "total",
    "nonzero",
    "sparsity",
    "prunable",
    "weight_total",
    "weight_nonzero",
    "row_pointers",
    "columns",
    "flops_per_token",
    "useful_flops_per_token",
    "flops_per_sequence",
    "active_total",
    "stored_bytes",
    "param_frac",
    "tied_to",
)
SUMMED = (
    "total",
    "nonzero",
    "weight_total",
    "weight_nonzero",
    "flops_per_token",
    "useful_flops_per_token",
    "flops_per_sequence",
    "active_total",
    "stored_bytes",
)
# Unknown where the values are unknown.
_COUNTED = (
    "nonzero",
    "weight_nonzero",
    "flops_per_token",
    "useful_flops_per_token",
    "flops_per_sequence",
    "stored_bytes",
)
GROUP_COLUMNS = ("variant", "group", "modules", *SUMMED, "sparsity", "param_frac")
# Scaling-law papers leave both vocabulary matrices out: Kaplan et al. 2020, section 2.1.
_EMBEDDING_GROUPS = ("embedding", "lm_head")


def layer_frame(
    weights: Weights,
    counts: Mapping[str, Magnitudes],
    *,
    variant: str,
    pruning: Pruning | None = None,
    csr: bool = False,
    convention: str = "standard",
) -> pd.DataFrame:
    """Return one row per module that owns parameters.

    Parameters
    ----------
    weights : Weights
    counts : mapping of str to Magnitudes
        By name of stored parameter, before pruning.
    variant : str
        Goes into the first column.
    pruning : Pruning, optional
        What is set to zero.
    csr : bool
        Whether the prunable matrices are stored and multiplied as CSR.
    convention : {"standard", "notebook"}
        ``"notebook"`` charges embedding look-ups ``2·V·d`` and counts a tied head again in totals
        and shares, as the notebook this package grew out of.

    Returns
    -------
    pandas.DataFrame
        With the columns ``LAYER_COLUMNS``: counts in elements, ``stored_bytes`` in bytes, FLOPs
        with one multiply-add as two, shares as fractions of 1. Of mixture-of-experts layers a
        token sees ``active_total`` parameters, and FLOPs are those of its k of E experts, in
        expectation over uniform routing where zeros count. Poolers and classification heads run
        once per sequence: their FLOPs stand in ``flops_per_sequence``. The matrices of a module
        would have ``row_pointers`` in CSR and at most ``columns`` columns; null without matrices.
    """
    check_convention(convention)
    columns = _columns(weights, counts, pruning, csr, convention == "notebook")
    frame = pd.DataFrame({"variant": variant} | columns, columns=list(LAYER_COLUMNS))
    return with_shares(frame)


def with_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill the columns that follow from others and give every column its type."""
    frame = frame.copy()
    for column in ("block", "row_pointers", "columns"):
        frame[column] = frame[column].astype("Int64")
    for column in _COUNTED:
        known = frame[column].astype("Int64")
        frame[column] = known if known.hasnans else known.astype("int64")
    frame["sparsity"] = _sparsity(frame["total"], frame["nonzero"])
    frame["param_frac"] = frame["total"] / frame.groupby("variant")["total"].transform("sum")
    frame["tied_to"] = frame["tied_to"].astype(object).where(frame["tied_to"].notna(), None)
    return frame


def group_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Sum layers per variant and group; variants and groups keep their order.

    Returns
    -------
    pandas.DataFrame
        With the columns ``GROUP_COLUMNS``.
    """
    ordered = layers.assign(
        variant=pd.Categorical(layers["variant"], layers["variant"].unique()),
        group=pd.Categorical(layers["group"], GROUPS),
    )
    grouped = ordered.groupby(["variant", "group"], observed=True)
    frame = grouped[list(SUMMED)].sum(min_count=0)
    unknown = grouped[list(SUMMED)].count().ne(grouped.size(), axis=0)
    frame = frame.mask(unknown) if unknown.any(axis=None) else frame
    frame.insert(0, "modules", grouped.size())
    frame = frame.reset_index()
    frame = frame.astype({"variant": object, "group": object})
    frame["sparsity"] = _sparsity(frame["total"], frame["nonzero"])
    frame["param_frac"] = frame["total"] / frame.groupby("variant")["total"].transform("sum")
    return frame[list(GROUP_COLUMNS)]


def total_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Sum layers per variant, with three sparsities that each name their denominator.

    Returns
    -------
    pandas.DataFrame
        ``sparsity_prunable`` over the weights that pruning may choose from,
        ``sparsity_non_embedding`` over all but the groups embedding and lm_head,
        ``sparsity_model`` over every parameter.
    """
    rows = []
    for variant, own in layers.groupby("variant", sort=False):
        row: dict[str, object] = {"variant": variant}
        row |= {column: _total(own[column]) for column in SUMMED}
        prunable = own[own["prunable"]]
        inner = own[~own["group"].isin(_EMBEDDING_GROUPS)]
        parts = {
            "prunable": (prunable["weight_total"], prunable["weight_nonzero"]),
            "non_embedding": (inner["total"], inner["nonzero"]),
        }
        for part, (total, nonzero) in parts.items():
            row[f"{part}_total"], row[f"{part}_nonzero"] = _total(total), _total(nonzero)
        rows.append(row)
    frame = pd.DataFrame(rows)
    for part, prefix in (
        ("prunable", "prunable_"),
        ("non_embedding", "non_embedding_"),
        ("model", ""),
    ):
        frame[f"sparsity_{part}"] = _sparsity(frame[f"{prefix}total"], frame[f"{prefix}nonzero"])
    return frame


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def useful_flops(parameter: Parameter, nonzero: int) -> int:
    """Floating-point operations on the nonzeros of a matrix, per token in expectation."""
    uses = parameter.uses
    return round(uses * sparse_flops(nonzero)) if uses != 1 else sparse_flops(nonzero)


def csr_stored(parameter: Parameter, nonzero: int) -> int:
    """Bytes of a matrix, or of all experts' matrices in one tensor, stored as CSR."""
    assert parameter.matrix is not None
    index = index_bytes(nonzero, parameter.matrix[1])
    return csr_bytes(nonzero, row_pointers(parameter) - 1, parameter.itemsize, index)


def row_pointers(parameter: Parameter) -> int:
    """Row pointers of a matrix in CSR, ``rows + 1``; of E experts in one tensor E times as many."""
    assert parameter.matrix is not None
    return parameter.experts * (parameter.matrix[0] + 1)


def check_convention(convention: str) -> None:
    """Refuse a convention that does not exist."""
    if convention not in CONVENTIONS:
        raise SparsityReportError(
            f"convention must be one of {', '.join(CONVENTIONS)}, not {convention!r}"
        )


def _columns(
    weights: Weights,
    counts: Mapping[str, Magnitudes],
    pruning: Pruning | None,
    csr: bool,
    notebook: bool,
) -> dict[str, Any]:
    """Columns of :func:`layer_frame` that follow from no others, in the order of the modules."""
    modules, parameters = weights.modules, list(weights.parameters)
    sizes = np.array([len(module.parameters) for module in modules], dtype=np.int64)
    first = np.cumsum(sizes) - sizes

    def integers(numbers: Iterable[int | None]) -> Integers:
        return np.array([-1 if n is None else n for n in numbers], dtype=np.int64)

    def summed(numbers: Integers, among: Flags, unknown: Flags | None = None) -> Any:
        """Sum over each module; null where a number of those among is unknown."""
        sums = np.add.reduceat(np.where(among, numbers, 0), first)
        if unknown is None:
            return sums
        return pd.arrays.IntegerArray(sums, np.logical_or.reduceat(among & unknown, first))

    cuts: Mapping[str, Cut] = pruning.cuts if pruning else {}
    total = integers(p.total for p in parameters)
    left = integers(_left(weights, counts, cuts))
    owned = np.array([p.tied_to is None for p in parameters], dtype=bool)
    matrix = np.array([p.matrix is not None for p in parameters], dtype=bool)
    prunable = np.array([p.prunable for p in parameters], dtype=bool)
    lookup = [len(p.shape) == 2 and p.name.endswith("weight") for p in parameters]
    layouts = [
        "csr"
        if csr and p.prunable
        # What is neither is made dense to be pruned.
        else "dense"
        if p.name in cuts and p.layout != "csr"
        else p.layout
        for p in parameters
    ]
    sparse = np.array([layout == "csr" for layout in layouts], dtype=bool)

    counted = owned | notebook
    multiplied = matrix | np.array([notebook and flag for flag in lookup], dtype=bool)
    # A module's weight is its first matrix or, without one, its first parameter.
    place = np.arange(total.size)
    earliest = np.minimum.reduceat(np.where(matrix, place, total.size), first)
    main = np.where(earliest < total.size, earliest, first)
    weight = matrix.copy()
    weight[main] = True
    mains = [parameters[i] for i in main]
    inputs = integers(p.matrix and p.matrix[1] for p in parameters)
    without = ~np.logical_or.reduceat(matrix, first)

    useful = integers(map(useful_flops, parameters, left.tolist()))
    flops = np.where(sparse, useful, integers(useful_flops(p, p.total) for p in parameters))
    active = integers(p.total if p.uses >= 1 else round(p.uses * p.total) for p in parameters)
    stored = [
        _stored(p, layout, nonzero, p.name in cuts)
        for p, layout, nonzero in zip(parameters, layouts, left.tolist(), strict=True)
    ]
    per_token = np.repeat([module.per == "token" for module in modules], sizes)
    unknown = left < 0
    return {
        "module_name": [module.name for module in modules],
        "block": [module.block for module in modules],
        "group": [module.group for module in modules],
        "shape": [p.shape for p in mains],
        "dtype": [p.dtype for p in mains],
        "layout": [layouts[i] for i in main],
        "total": summed(total, counted),
        "nonzero": summed(left, counted, unknown),
        "prunable": np.logical_or.reduceat(prunable, first),
        "weight_total": summed(total, weight & counted),
        "weight_nonzero": summed(left, weight & counted, unknown),
        "row_pointers": pd.arrays.IntegerArray(
            summed(integers(p.matrix and row_pointers(p) for p in parameters), matrix), without
        ),
        "columns": pd.arrays.IntegerArray(np.maximum.reduceat(inputs, first), without),
        "flops_per_token": summed(flops, multiplied & per_token, unknown & sparse),
        "useful_flops_per_token": summed(useful, multiplied & per_token, unknown),
        "flops_per_sequence": summed(flops, multiplied & ~per_token, unknown & sparse),
        "active_total": summed(active, counted),
        "stored_bytes": summed(integers(stored), owned, integers(stored) < 0),
        "tied_to": [p.tied_to for p in mains],
    }


def _left(
    weights: Weights, counts: Mapping[str, Magnitudes], cuts: Mapping[str, Cut]
) -> Iterator[int | None]:
    """Yield the nonzeros that cuts leave of each parameter; None where not known."""
    totals = {p.name: p.total for p in weights.parameters}
    for p in weights.parameters:
        owner = p.tied_to or p.name
        seen = counts.get(owner)
        # Unknown: values on the meta device, and a view of only a part of its owner.
        if seen is None or totals[owner] != p.total:
            yield None
        else:
            yield cuts[owner].nonzero_after(seen) if owner in cuts else seen.nonzero


def _stored(parameter: Parameter, layout: str, nonzero: int, cut: bool) -> int | None:
    """Bytes of a parameter; None where they follow from nonzeros that are not known."""
    if parameter.held_bytes is not None and layout == parameter.layout and not cut:
        return parameter.held_bytes
    if layout == "dense" or parameter.matrix is None:
        return dense_bytes(parameter.total, parameter.itemsize)
    return None if nonzero < 0 else csr_stored(parameter, nonzero)


def _total(column: pd.Series[Any]) -> int | None:
    total = column.sum(skipna=False)
    return None if pd.isna(total) else int(total)


def _sparsity(total: pd.Series, nonzero: pd.Series) -> pd.Series:
    """Share of zeros; NaN, which is null in files, where there is nothing to be sparse."""
    return 1 - nonzero.astype(float) / total.where(total > 0).astype(float)
