"""Parameters, zeros, bytes and FLOPs of each module, derived from counts; no tensor is read."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.cuts import Cut
from sparsity_report.counting.histogram import Floats, Integers, Magnitudes, Steps
from sparsity_report.counting.pruning import Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import csr_bytes, dense_bytes, index_bytes
from sparsity_report.sparse.shares import zero_shares
from sparsity_report.study.schema import CONVENTIONS, DENOMINATORS, SUMMED, typed
from sparsity_report.weights.anatomy.groups import GROUPS
from sparsity_report.weights.weights import Parameter, Weights

# Scaling-law papers leave both vocabulary matrices out: Kaplan et al. 2020, section 2.1.
_EMBEDDING_GROUPS = ("embedding", "lm_head")
# Experts of a layer, and depths of a model, up to which ratios of them are recovered exactly.
_LARGEST_RATIO = 2**16
Flags = npt.NDArray[np.bool_]


class LayerTable:
    """Layers of the variants of a model; what variants share is computed once.

    Parameters
    ----------
    weights : Weights
        The model.
    counts : mapping of str to Magnitudes
        Counts before pruning, by name of stored parameter.
    convention : {"standard", "notebook"}
        ``"notebook"`` charges embedding look-ups ``2·V·d`` and counts a tied head again in totals
        and shares, as the source notebook does.
    """

    def __init__(
        self, weights: Weights, counts: Mapping[str, Magnitudes], convention: str = "standard"
    ) -> None:
        check_convention(convention)
        is_notebook = convention == "notebook"
        self._counts, self._runs = counts, csr_parameters(weights)
        self._parameters = parameters = list(weights.parameters)
        sizes, places = [p.total for p in parameters], np.arange(len(parameters))
        ends = np.cumsum([0, *(len(m.parameters) for m in weights.modules)], dtype=np.intp)
        self._starts = ends[:-1]
        matrix = _flags(p.matrix for p in parameters)
        # The weight of a module: its first matrix or, without one, its first parameter.
        first = np.minimum.reduceat(np.where(matrix, places, len(places)), self._starts)
        self._mains = np.where(first < len(places), first, self._starts)
        self._counted = _flags(is_notebook or not p.tied_to for p in parameters)
        self._weight = self._counted & (matrix | np.isin(places, self._mains))
        lookup = _flags(len(p.shape) == 2 and p.name.endswith("weight") for p in parameters)
        self._multiplied = matrix | (lookup & is_notebook)
        main = [parameters[place] for place in self._mains]
        self._uses = np.array([p.uses for p in main], dtype=float)
        self._once = np.array([p.uses_per_sequence for p in main], dtype=float)
        prunable = self._any(p.prunable for p in parameters)
        runs = pd.Series(self._any(p.name in self._runs for p in parameters), dtype="boolean")
        widths = [p.matrix[1] if p.matrix else 0 for p in parameters]
        total = self._sums(sizes, self._counted)
        self._shared = pd.DataFrame(
            {
                "module_name": [module.name for module in weights.modules],
                "block": [module.block for module in weights.modules],
                "group": [module.group for module in weights.modules],
                "shape": [p.shape for p in main],
                "dtype": [p.dtype for p in main],
                "packing": [p.packing for p in main],
                "total": total,
                "prunable": prunable,
                "runs_as_csr": runs.where(prunable).array,
                "weight_total": self._sums(sizes, self._weight),
                "row_pointers": self._sums(map(_row_pointers, parameters)),
                "columns": pd.array(np.maximum.reduceat(widths, self._starts), dtype="Int64"),
                "uses": self._uses,
                "active_total": _used(total, np.minimum(np.maximum(self._uses, self._once), 1)),
                "tied_to": [p.tied_to for p in main],
            }
        )
        self._shared.loc[~matrix[self._mains], ["row_pointers", "columns", "uses"]] = pd.NA

    def frame(
        self, variant: str, pruning: Pruning | None = None, *, csr: bool = False
    ) -> pd.DataFrame:
        """Return one row per module that owns parameters.

        Parameters
        ----------
        variant : str
            Content of the first column.
        pruning : Pruning, optional
            The weights that are set to zero.
        csr : bool
            Whether the prunable matrices are stored and multiplied as CSR, where the model can.

        Returns
        -------
        pandas.DataFrame
            The table ``layers`` of the schema: counts in elements, sizes in bytes, one multiply-add
            as two FLOPs, shares as fractions of 1.

            In a mixture of experts, ``active_total`` counts the parameters that a token sees. FLOPs
            are those of its k of E experts, in expectation over uniform routing where zeros count.
            ``uses`` is the number of times a token is multiplied by the matrices of the module: k/E
            for experts, 0 where no token of a text passes. ``flops_per_sequence`` holds what is
            done once per sequence, as by a pooler.

            ``runs_as_csr`` is false where some prunable matrix of the module cannot run as CSR; a
            CSR variant keeps such a module masked. In CSR the matrices of a module have
            ``row_pointers`` and at most ``columns`` columns. ``uses``, ``row_pointers`` and
            ``columns`` are null for modules without matrices.

            ``packing`` is the format in which a file packs the weight. ``file_bytes`` are the bytes
            of its tensors on disk, null if the file holds something else: values in memory, pruned,
            or CSR. For packed prunable weights, ``expected_rounding_sparsity`` is the share that
            rounding to the levels of the file would make zero in a centered Gaussian with the same
            root mean square σ, ``erf(s / (2·σ·√2))`` for a step s. Where zero is not a level, it is
            the share expected within half a step of zero, and ``near_zero_share`` is the actual
            share.
        """
        cuts, counts = pruning.cuts if pruning else {}, self._counts
        left = [_nonzero(p, counts, cuts) for p in self._parameters]
        stored = [
            _stored(p, nonzero, cuts.get(p.name), counts.get(p.name), csr and p.name in self._runs)
            for p, nonzero in zip(self._parameters, left, strict=True)
        ]
        layouts, elements, in_memory, in_file, expected, near = zip(*stored, strict=True)
        flops = 2 * self._sums(elements, self._multiplied)
        useful_flops = 2 * self._sums(left, self._multiplied)
        weight_total = self._shared["weight_total"].array
        frame = self._shared.assign(
            variant=variant,
            layout=[layouts[place] for place in self._mains],
            nonzero=self._sums(left, self._counted),
            weight_nonzero=self._sums(left, self._weight),
            flops_per_token=_used(flops, self._uses),
            useful_flops_per_token=_used(useful_flops, self._uses),
            flops_per_sequence=_used(flops, self._once),
            stored_bytes=self._sums(in_memory),
            file_bytes=self._sums(in_file),
            expected_rounding_sparsity=self._sums(expected, self._weight, "Float64") / weight_total,
            near_zero_share=self._sums(near, self._weight) / weight_total,
        )
        return with_shares(frame)

    def _any(self, flags: Iterable[Any]) -> Flags:
        """Return whether a flag is set for any parameter of each module."""
        return np.logical_or.reduceat(_flags(flags), self._starts)

    def _sums(
        self, numbers: Iterable[float | None], inside: Any = True, dtype: str = "Int64"
    ) -> Any:
        """Return the sum over each module; unknown if one of its numbers inside is."""
        values = pd.array(list(numbers), dtype=dtype)  # type: ignore[call-overload]
        known, unknown = values.to_numpy(dtype.lower(), na_value=0), values.isna() & inside
        sums = pd.array(np.add.reduceat(known * inside, self._starts), dtype=dtype)  # type: ignore[call-overload]
        sums[np.logical_or.reduceat(unknown, self._starts)] = pd.NA
        return sums


def csr_parameters(weights: Weights) -> frozenset[str]:
    """Return the names of the parameters that a CSR variant stores as CSR.

    A module has all of its prunable parameters among them, or none.
    """
    prunable = ([p for p in module.parameters if p.prunable] for module in weights.modules)
    return frozenset(p.name for ps in prunable if all(p.runs_as_csr for p in ps) for p in ps)


def with_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Return layers or groups with their shares, every column of its type."""
    totals = frame["total"].astype("int64")
    fractions = totals / totals.groupby(frame["variant"]).transform("sum")
    shares = {"sparsity": zero_shares(frame["total"], frame["nonzero"]), "param_frac": fractions}
    return typed("groups" if "modules" in frame else "layers", frame.assign(**shares))


def summed(grouped: Any) -> pd.DataFrame:
    """Return the sums of a grouped frame; a sum with an unknown part is unknown.

    Examples
    --------
    >>> frame = pd.DataFrame({"total": [1, 2, 4], "nonzero": pd.array([1, 2, None], dtype="Int64")})
    >>> summed(frame.groupby([1, 1, 0])).values.tolist()
    [[4, <NA>], [3, 3]]
    """
    sums: pd.DataFrame = grouped.sum()
    return sums.mask(grouped.count().ne(grouped.size(), axis=0))


def group_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the sums of layers per variant and group; variants keep their order."""
    variants, _ = pd.factorize(layers["variant"])
    groups = pd.Categorical(layers["group"], GROUPS).codes
    grouped = layers.iloc[np.lexsort((groups, variants))].groupby(["variant", "group"], sort=False)
    frame = summed(grouped[list(SUMMED)]).assign(modules=grouped.size())
    return with_shares(frame.reset_index())


def total_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the sums of layers per variant, with three sparsities.

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
    for part in DENOMINATORS:
        prefix = "" if part == "model" else f"{part}_"
        frame[f"sparsity_{part}"] = zero_shares(frame[f"{prefix}total"], frame[f"{prefix}nonzero"])
    return frame.reset_index()


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def used(numbers: Integers, uses: Floats) -> Integers:
    """Return ``round(numbers · uses)`` row by row, exactly, half to even.

    Uses such as k of E experts are ratios of small integers, which are recovered from the float.

    Examples
    --------
    >>> used(np.array([3, 9, 10]), np.array([1 / 6, 1 / 6, 2.0])).tolist()
    [0, 2, 20]
    """
    products = numbers.copy()
    for share in np.unique(uses[uses != 1]):
        ratio, rows = use_ratio(share), uses == share
        quotient, rest = np.divmod(numbers[rows] * ratio.numerator, ratio.denominator)
        twice = 2 * rest
        odd = (twice == ratio.denominator) & (quotient % 2 == 1)
        products[rows] = quotient + ((twice > ratio.denominator) | odd)
    return products


def use_ratio(uses: float) -> Fraction:
    """Return the ratio of small integers that a number of uses is closest to.

    Examples
    --------
    >>> use_ratio(2 / 3)
    Fraction(2, 3)
    """
    return Fraction(uses).limit_denominator(_LARGEST_RATIO)


def check_convention(convention: str) -> None:
    """Refuse an unknown convention."""
    if convention not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise SparsityReportError(f"convention must be one of {known}, not {convention!r}")


def check_context(context: int | None) -> None:
    """Refuse a context that is not a positive number of tokens."""
    is_count = type(context) is int and context > 0
    if context is not None and not is_count:
        raise SparsityReportError(f"context must be a positive number of tokens, not {context!r}")


def _flags(values: Iterable[Any]) -> Flags:
    """Return the truth of each value."""
    return np.fromiter(map(bool, values), dtype=np.bool_)


def _stored(
    parameter: Parameter,
    nonzero: int | None,
    cut: Cut | None,
    counted: Magnitudes | None,
    is_csr: bool,
) -> tuple[str, int | None, int | None, int | None, float | None, int | None]:
    """Return figures of a parameter as a variant stores it; None where unknown.

    They are the layout, the elements that a product multiplies by, the bytes, those in the file
    (None also if it holds something else), the expected zeros by rounding, and the weights near
    zero if zero is no level.
    """
    is_pruned = cut is not None and cut.changes
    # Pruning makes sparse layouts other than CSR dense.
    before = "dense" if is_pruned and parameter.layout != "csr" else parameter.layout
    layout = "csr" if is_csr else before
    total, in_memory, in_file = parameter.total, _bytes(parameter, nonzero, layout), None
    expected = near = None
    if not is_pruned and layout == parameter.layout:
        in_file = parameter.file_bytes
        if parameter.memory_bytes is not None:
            in_memory = parameter.memory_bytes
        if counted is not None and counted.steps:
            expected, near = _rounding(counted, counted.steps)
    if parameter.tied_to:
        in_memory, in_file = 0, None if in_file is None else 0
    elements = nonzero if layout == "csr" else total
    return layout, elements, in_memory, in_file, expected, near


def _bytes(parameter: Parameter, nonzero: int | None, layout: str) -> int | None:
    """Return the bytes in a layout; None if they depend on an unknown number of nonzeros."""
    if layout == "dense" or parameter.matrix is None:
        return dense_bytes(parameter.total, parameter.itemsize)
    if nonzero is None:
        return None
    index, rows = index_bytes(nonzero, parameter.matrix[1]), _row_pointers(parameter) - 1
    return csr_bytes(nonzero, rows, parameter.itemsize, index)


def _rounding(counted: Magnitudes, steps: Steps) -> tuple[float | None, int | None]:
    """Return the expected zeros by rounding, and the weights near zero if zero is no level."""
    deviation = counted.root_mean_square
    if not deviation > 0 or counted.nan or counted.infinite:
        return None, None
    return steps.expected_zeros(deviation), None if steps.rounding.has_zero else steps.near


def _nonzero(
    parameter: Parameter, counts: Mapping[str, Magnitudes], cuts: Mapping[str, Cut]
) -> int | None:
    """Return the nonzeros that cuts leave in a parameter; None where unknown."""
    owner = parameter.tied_to or parameter.name
    counted = counts.get(owner)
    # Unknown for values on the meta device and for a view of a part of its owner.
    if counted is None or (parameter.tied_to and counted.total != parameter.total):
        return None
    return cuts[owner].nonzero_after(counted) if owner in cuts else counted.nonzero


def _row_pointers(parameter: Parameter) -> int:
    """Return the row pointers in CSR: ``rows + 1``, E times as many for E experts in one tensor."""
    return parameter.experts * (parameter.matrix[0] + 1) if parameter.matrix else 0


def _used(elements: Any, uses: Floats) -> Any:
    """Return :func:`used` of an array of numbers that may be unknown."""
    numbers = pd.array(used(elements.to_numpy("int64", na_value=0), uses), dtype="Int64")
    numbers[elements.isna()] = pd.NA
    return numbers
