"""From weights and a pruning decision to rows: what each module holds, does and costs.

Everything here is derived from counts; no tensor is read or changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.histogram import Floats, Integers, Magnitudes
from sparsity_report.counting.pruning import Cut, Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import csr_bytes, dense_bytes, index_bytes
from sparsity_report.sparse.shares import zero_shares
from sparsity_report.study.schema import CONVENTIONS, SUMMED, typed
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.weights.anatomy.parameters import Parameter
from sparsity_report.weights.weights import Weights

# Scaling-law papers leave both vocabulary matrices out: Kaplan et al. 2020, section 2.1.
_EMBEDDING_GROUPS = ("embedding", "lm_head")
# Experts of a layer, and depths of a model, up to which ratios of them are recovered exactly.
_LARGEST_RATIO = 2**16


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
        Whether the prunable matrices are stored and multiplied as CSR, where the model can.
    convention : {"standard", "notebook"}
        ``"notebook"`` charges embedding look-ups ``2·V·d`` and counts a tied head again in totals
        and shares, as the notebook this package grew out of.

    Returns
    -------
    pandas.DataFrame
        The table ``layers`` of the schema: counts in elements, bytes in bytes, FLOPs
        with one multiply-add as two, shares as fractions of 1. Of mixture-of-experts layers a
        token sees ``active_total`` parameters, and FLOPs are those of its k of E experts, in
        expectation over uniform routing where zeros count: ``uses`` says how often a token is
        multiplied by the module's matrices, k/E of experts, 0 where no token of a text comes by.
        What is done once per sequence, as by a pooler, stands in ``flops_per_sequence``. Where not
        all prunable matrices of a module run as CSR, ``runs_as_csr`` is false, and a CSR variant
        keeps them masked. The
        matrices of a module would have ``row_pointers`` in CSR and at most ``columns`` columns.
        These three are null without matrices. ``packing`` is how the file packs the weight, empty
        where it does not; ``file_bytes`` are those of its tensors on disk, null where they are not
        on disk as they are here: in memory, pruned, or as CSR. Of packed prunable weights
        ``expected_rounding_sparsity`` is the share that rounding to the file's levels would make
        zero of a centred Gaussian with the same root mean square, ``erf(s / (2·σ·√2))`` of a step
        s. Where zero is no level it is the share that would come to lie within half a step of
        zero, and ``near_zero_share`` the share that does.
    """
    check_convention(convention)
    cuts, runs = pruning.cuts if pruning else {}, csr_parameters(weights)
    parameters = _parameter_frame(weights, counts, cuts, runs if csr else frozenset())
    module, matrix = parameters["module"], parameters["matrix"]
    counted = parameters["tied_to"].isna() | (convention == "notebook")
    # A module's weight is its first matrix or, without one, its first parameter.
    places = matrix.astype(int).groupby(module).idxmax()
    main = parameters.loc[places].reset_index(drop=True)
    weight = counted & (matrix | matrix.index.isin(places))
    multiplied = matrix | (parameters["lookup"] & (convention == "notebook"))
    total, nonzero = parameters["total"], parameters["nonzero"]
    elements = total.mask(parameters["layout"] == "csr", nonzero)
    sums = summed(
        pd.DataFrame(
            {
                "total": total.where(counted, 0),
                "nonzero": nonzero.where(counted, 0),
                "weight_total": total.where(weight, 0),
                "weight_nonzero": nonzero.where(weight, 0),
                "row_pointers": parameters["row_pointers"],
                "flops_per_token": 2 * elements.where(multiplied, 0),
                "useful_flops_per_token": 2 * nonzero.where(multiplied, 0),
                "stored_bytes": parameters["stored_bytes"],
                "file_bytes": parameters["file_bytes"],
                "expected_zeros": parameters["expected_zeros"].where(weight, 0),
                "near_zeros": parameters["near_zeros"].where(weight, 0),
            }
        ).groupby(module)
    )
    uses, once = main["uses"].to_numpy(), main["uses_per_sequence"].to_numpy()
    derived: dict[str, Any] = {
        "variant": variant,
        "module_name": [module.name for module in weights.modules],
        "block": [module.block for module in weights.modules],
        "group": [module.group for module in weights.modules],
        "prunable": (prunable := parameters["prunable"].groupby(module).any()),
        "runs_as_csr": parameters["name"].isin(runs).groupby(module).any().where(prunable),
        "row_pointers": sums["row_pointers"].where(main["matrix"]),
        "columns": parameters["columns"].groupby(module).max().where(main["matrix"]),
        "uses": main["uses"].where(main["matrix"]),
        "flops_per_token": _used(sums["flops_per_token"], uses),
        "useful_flops_per_token": _used(sums["useful_flops_per_token"], uses),
        "flops_per_sequence": _used(sums["flops_per_token"], once),
        "active_total": _used(sums["total"], np.minimum(np.maximum(uses, once), 1)),
        "expected_rounding_sparsity": sums["expected_zeros"] / sums["weight_total"],
        "near_zero_share": sums["near_zeros"] / sums["weight_total"],
    }
    facts = main[["shape", "dtype", "packing", "layout", "tied_to"]]
    return with_shares(facts.join(sums).assign(**derived))


def csr_parameters(weights: Weights) -> frozenset[str]:
    """Name the prunable parameters that a CSR variant stores as CSR: all of a module or none."""
    prunable = ([p for p in module.parameters if p.prunable] for module in weights.modules)
    return frozenset(p.name for ps in prunable if all(p.runs_as_csr for p in ps) for p in ps)


def with_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill in the shares of layers or groups, and give every column its type."""
    shares = {
        "sparsity": zero_shares(frame["total"], frame["nonzero"]),
        "param_frac": frame["total"] / frame.groupby("variant")["total"].transform("sum"),
    }
    return typed("groups" if "modules" in frame else "layers", frame.assign(**shares))


def summed(grouped: Any) -> pd.DataFrame:
    """Sum a frame's rows by group; what is unknown of one is unknown of all.

    Examples
    --------
    >>> frame = pd.DataFrame({"total": [1, 2, 4], "nonzero": pd.array([1, 2, None], dtype="Int64")})
    >>> summed(frame.groupby([1, 1, 0])).values.tolist()
    [[4, <NA>], [3, 3]]
    """
    sums: pd.DataFrame = grouped.sum()
    return sums.mask(grouped.count().ne(grouped.size(), axis=0))


def added(numbers: Integers, codes: npt.NDArray[np.intp], size: int) -> Integers:
    """Sum the rows of numbers that share a code.

    Examples
    --------
    >>> added(np.array([[1, 2], [3, 4], [5, 6]]), np.array([1, 1, 0]), 2).tolist()
    [[5, 6], [4, 6]]
    """
    sums = np.zeros((size, *numbers.shape[1:]), dtype=np.int64)
    np.add.at(sums, codes, numbers)
    return sums


def group_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Sum layers per variant and group, the table ``groups``; variants keep their order."""
    variants, _ = pd.factorize(layers["variant"])
    groups = pd.Categorical(layers["group"], GROUPS).codes
    grouped = layers.iloc[np.lexsort((groups, variants))].groupby(["variant", "group"], sort=False)
    frame = summed(grouped[list(SUMMED)]).assign(modules=grouped.size())
    return with_shares(frame.reset_index())


def total_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Sum layers per variant, with three sparsities that each name their denominator.

    Returns
    -------
    pandas.DataFrame
        ``sparsity_prunable`` over the weights that pruning may choose from,
        ``sparsity_non_embedding`` over all but the groups embedding and lm_head,
        ``sparsity_model`` over every parameter.
    """
    frame = summed(layers.groupby("variant", sort=False)[list(SUMMED)])
    for part, inside, prefix in (
        ("prunable", layers["prunable"], "weight_"),
        ("non_embedding", ~layers["group"].isin(_EMBEDDING_GROUPS), ""),
    ):
        names = [f"{prefix}total", f"{prefix}nonzero"]
        sums = summed(layers[inside].groupby("variant", sort=False)[names])
        sums = sums.reindex(frame.index, fill_value=0)
        frame[[f"{part}_total", f"{part}_nonzero"]] = sums
    for part, prefix in (
        ("prunable", "prunable_"),
        ("non_embedding", "non_embedding_"),
        ("model", ""),
    ):
        frame[f"sparsity_{part}"] = zero_shares(frame[f"{prefix}total"], frame[f"{prefix}nonzero"])
    return frame.reset_index()


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def used(numbers: Integers, uses: Floats) -> Integers:
    """Return ``round(numbers · uses)`` row by row, exactly, half to even.

    Uses such as k of E experts are ratios of small numbers, which a float stands for exactly
    enough to be known again.

    Examples
    --------
    >>> used(np.array([3, 9, 10]), np.array([1 / 6, 1 / 6, 2.0])).tolist()
    [0, 2, 20]
    """
    products = numbers.copy()
    for share in np.unique(uses[uses != 1]):
        ratio, rows = Fraction(share).limit_denominator(_LARGEST_RATIO), uses == share
        whole, rest = np.divmod(numbers[rows] * ratio.numerator, ratio.denominator)
        twice = 2 * rest
        odd = (twice == ratio.denominator) & (whole % 2 == 1)
        products[rows] = whole + ((twice > ratio.denominator) | odd)
    return products


def check_convention(convention: str) -> None:
    """Refuse a convention that does not exist."""
    if convention not in CONVENTIONS:
        raise SparsityReportError(
            f"convention must be one of {', '.join(CONVENTIONS)}, not {convention!r}"
        )


def check_context(context: int | None) -> None:
    """Refuse what is no number of positions."""
    whole = isinstance(context, int) and not isinstance(context, bool)
    if context is not None and not (whole and context > 0):
        raise SparsityReportError(f"context must be a positive number of tokens, not {context!r}")


def _parameter_frame(
    weights: Weights,
    counts: Mapping[str, Magnitudes],
    cuts: Mapping[str, Cut],
    csr: Collection[str],
) -> pd.DataFrame:
    """Return every parameter under a pruning, some as CSR, to be summed per module."""
    parameters = list(weights.parameters)
    sizes = [len(module.parameters) for module in weights.modules]
    left = list(_left(weights, counts, cuts))
    layouts = [_layout(p, p.name in csr, p.name in cuts) for p in parameters]
    stored = [
        0 if p.tied_to else _bytes(p, layout, nonzero, p.name in cuts)
        for p, layout, nonzero in zip(parameters, layouts, left, strict=True)
    ]
    # As it is in the file: neither pruned nor converted.
    kept = [
        p.name not in cuts and layout == p.layout
        for p, layout in zip(parameters, layouts, strict=True)
    ]
    held = [_file_bytes(p) if as_is else None for p, as_is in zip(parameters, kept, strict=True)]
    rounded = [
        _rounded(counts.get(p.name)) if as_is else (None, None)
        for p, as_is in zip(parameters, kept, strict=True)
    ]
    return pd.DataFrame(
        {
            "name": [p.name for p in parameters],
            "module": np.repeat(np.arange(len(sizes)), sizes),
            "shape": [p.shape for p in parameters],
            "dtype": [p.dtype for p in parameters],
            "packing": [p.packing for p in parameters],
            "layout": layouts,
            "tied_to": [p.tied_to for p in parameters],
            "prunable": [p.prunable for p in parameters],
            "uses": [float(p.uses) for p in parameters],
            "uses_per_sequence": [float(p.uses_per_sequence) for p in parameters],
            "matrix": [p.matrix is not None for p in parameters],
            "lookup": [len(p.shape) == 2 and p.name.endswith("weight") for p in parameters],
            "total": pd.array([p.total for p in parameters], dtype="Int64"),
            "nonzero": pd.array(left, dtype="Int64"),
            "columns": pd.array([p.matrix[1] if p.matrix else 0 for p in parameters], "Int64"),
            "row_pointers": pd.array(list(map(_row_pointers, parameters)), dtype="Int64"),
            "stored_bytes": pd.array(stored, dtype="Int64"),
            "file_bytes": pd.array(held, dtype="Int64"),
            "expected_zeros": pd.array([expected for expected, _ in rounded], dtype="Float64"),
            "near_zeros": pd.array([near for _, near in rounded], dtype="Int64"),
        }
    )


def _left(
    weights: Weights, counts: Mapping[str, Magnitudes], cuts: Mapping[str, Cut]
) -> Iterator[int | None]:
    """Yield the nonzeros that cuts leave of each parameter; None where not known."""
    owners = {p.tied_to for p in weights.parameters}
    totals = {p.name: p.total for p in weights.parameters if p.name in owners}
    for p in weights.parameters:
        owner = p.tied_to or p.name
        counted = counts.get(owner)
        # Unknown: values on the meta device, and a view of only a part of its owner.
        if counted is None or (p.tied_to and totals[owner] != p.total):
            yield None
        else:
            yield cuts[owner].nonzero_after(counted) if owner in cuts else counted.nonzero


def _layout(parameter: Parameter, csr: bool, cut: bool) -> str:
    if csr:
        return "csr"
    # What is neither CSR nor dense is made dense to be pruned.
    return "dense" if cut and parameter.layout != "csr" else parameter.layout


def _bytes(parameter: Parameter, layout: str, nonzero: int | None, cut: bool) -> int | None:
    """Bytes of a parameter; None where they follow from nonzeros that are not known."""
    if parameter.held_bytes is not None and layout == parameter.layout and not cut:
        return parameter.held_bytes
    if layout == "dense" or parameter.matrix is None:
        return dense_bytes(parameter.total, parameter.itemsize)
    if nonzero is None:
        return None
    index = index_bytes(nonzero, parameter.matrix[1])
    return csr_bytes(nonzero, _row_pointers(parameter) - 1, parameter.itemsize, index)


def _file_bytes(parameter: Parameter) -> int | None:
    """Bytes of a parameter in its file; None of values in memory."""
    known = parameter.file_bytes is not None
    return 0 if known and parameter.tied_to else parameter.file_bytes


def _rounded(counted: Magnitudes | None) -> tuple[float | None, int | None]:
    """Return the zeros that rounding explains, and the weights that stand near to zero for one."""
    if counted is None or not (steps := counted.steps):
        return None, None
    deviation = counted.root_mean_square
    if not deviation or counted.nan or counted.infinite:
        return None, None
    near = None if steps.rounding.has_zero else steps.near
    return steps.expected_zeros(deviation), near


def _row_pointers(parameter: Parameter) -> int:
    """Row pointers of a matrix in CSR, ``rows + 1``; of E experts in one tensor E times as many."""
    return parameter.experts * (parameter.matrix[0] + 1) if parameter.matrix else 0


def _used(elements: pd.Series, uses: Floats) -> pd.Series:
    """Return :func:`used` of numbers that may be unknown."""
    numbers = used(elements.to_numpy(dtype=np.int64, na_value=0), uses)
    return pd.Series(numbers, dtype="Int64").mask(elements.isna())
