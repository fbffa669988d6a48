"""From weights and a pruning decision to rows: what each module holds, does and costs.

Everything here is derived from counts; no tensor is read or changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.cuts import Cut, Pruning
from sparsity_report.counting.histogram import Floats, Integers, Magnitudes
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import csr_bytes, dense_bytes, index_bytes
from sparsity_report.sparse.shares import zero_shares
from sparsity_report.study.schema import CONVENTIONS, SUMMED, typed
from sparsity_report.weights.groups import GROUPS
from sparsity_report.weights.parameters import Parameter
from sparsity_report.weights.weights import Weights

Flags = npt.NDArray[np.bool_]


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
        Whether the prunable matrices are stored and multiplied as CSR.
    convention : {"standard", "notebook"}
        ``"notebook"`` charges embedding look-ups ``2·V·d`` and counts a tied head again in totals
        and shares, as the notebook this package grew out of.

    Returns
    -------
    pandas.DataFrame
        The table ``layers`` of the schema: counts in elements, ``stored_bytes`` in bytes, FLOPs
        with one multiply-add as two, shares as fractions of 1. Of mixture-of-experts layers a
        token sees ``active_total`` parameters, and FLOPs are those of its k of E experts, in
        expectation over uniform routing where zeros count: ``uses`` says how often a token is
        multiplied by the module's matrices, k/E of experts. Poolers and classification heads run
        once per sequence: their FLOPs stand in ``flops_per_sequence``, and ``uses`` is 0. The
        matrices of a module would have ``row_pointers`` in CSR and at most ``columns`` columns.
        These three are null without matrices.
    """
    check_convention(convention)
    cuts: Mapping[str, Cut] = pruning.cuts if pruning else {}
    parameters = _Parameters(weights, counts, cuts, csr, convention == "notebook")
    frame = pd.DataFrame({"variant": variant} | parameters.described() | parameters.summed())
    return with_shares(frame)


def with_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill in the shares of layers or groups, and give every column its type."""
    shares = {
        "sparsity": zero_shares(frame["total"], frame["nonzero"]),
        "param_frac": frame["total"] / frame.groupby("variant")["total"].transform("sum"),
    }
    return typed("groups" if "modules" in frame else "layers", frame.assign(**shares))


def summed_by(frame: pd.DataFrame, codes: npt.NDArray[np.intp], size: int) -> pd.DataFrame:
    """Sum layers that share a code; what is unknown of one is unknown of all.

    Parameters
    ----------
    frame : pandas.DataFrame
        As of ``study.layers`` or :meth:`Levels.at`.
    codes : numpy.ndarray
        Of each row, the number of the sum it belongs to.
    size : int
        How many sums there are.

    Returns
    -------
    pandas.DataFrame
        One row per sum, the columns of the frame that can be summed; ``int64``, or ``Int64`` where
        sums are unknown.

    Examples
    --------
    >>> frame = pd.DataFrame({"total": [1, 2, 4], "nonzero": pd.array([1, 2, None], dtype="Int64")})
    >>> summed_by(frame, np.array([1, 1, 0]), 2).values.tolist()
    [[4, <NA>], [3, 3]]
    """
    sums: dict[str, Any] = {}
    for column in (*SUMMED, "dense_bytes", "csr_bytes"):
        if column not in frame:
            continue
        cells = frame[column]
        sums[column] = added(cells.to_numpy(dtype=np.int64, na_value=0), codes, size)
        if (unknown := cells.isna().to_numpy()).any():
            mask = np.bincount(codes[unknown], minlength=size) > 0
            sums[column] = pd.arrays.IntegerArray(sums[column], mask)
    return pd.DataFrame(sums)


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
    variants, names = pd.factorize(layers["variant"])
    codes = variants * len(GROUPS) + pd.Categorical(layers["group"], GROUPS).codes
    present, codes = np.unique(codes, return_inverse=True)
    frame = summed_by(layers, codes, len(present))
    frame["variant"] = np.asarray(names)[present // len(GROUPS)]
    frame["group"] = np.array(GROUPS)[present % len(GROUPS)]
    frame["modules"] = np.bincount(codes)
    return with_shares(frame)


def total_frame(layers: pd.DataFrame) -> pd.DataFrame:
    """Sum layers per variant, with three sparsities that each name their denominator.

    Returns
    -------
    pandas.DataFrame
        ``sparsity_prunable`` over the weights that pruning may choose from,
        ``sparsity_non_embedding`` over all but the groups embedding and lm_head,
        ``sparsity_model`` over every parameter.
    """
    codes, names = pd.factorize(layers["variant"])
    frame = summed_by(layers, codes, len(names))
    frame.insert(0, "variant", np.asarray(names))
    for part, inside, prefix in (
        ("prunable", layers["prunable"], "weight_"),
        ("non_embedding", ~layers["group"].isin(_EMBEDDING_GROUPS), ""),
    ):
        sums = summed_by(layers[inside], codes[inside], len(names))
        for of in ("total", "nonzero"):
            frame[f"{part}_{of}"] = sums[prefix + of]
    for part, prefix in (
        ("prunable", "prunable_"),
        ("non_embedding", "non_embedding_"),
        ("model", ""),
    ):
        frame[f"sparsity_{part}"] = zero_shares(frame[f"{prefix}total"], frame[f"{prefix}nonzero"])
    return frame


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


class _Parameters:
    """Every parameter of a model under a pruning and a layout, as columns to sum per module.

    Numbers below zero are unknown.
    """

    def __init__(
        self,
        weights: Weights,
        counts: Mapping[str, Magnitudes],
        cuts: Mapping[str, Cut],
        csr: bool,
        notebook: bool,
    ) -> None:
        self._modules, self._all = weights.modules, list(weights.parameters)
        sizes = _integers(len(module.parameters) for module in self._modules)
        self._first = np.cumsum(sizes) - sizes
        self._cuts = cuts
        self._total = _integers(p.total for p in self._all)
        self._left = _integers(_left(weights, counts, cuts))
        self._layouts = [_layout(p, csr, p.name in cuts) for p in self._all]
        self._matrix = _flags(p.matrix is not None for p in self._all)
        self._owned = _flags(p.tied_to is None for p in self._all)
        self._counted = self._owned | notebook
        lookup = (notebook and len(p.shape) == 2 and p.name.endswith("weight") for p in self._all)
        self._multiplied = self._matrix | _flags(lookup)
        # A module's weight is its first matrix or, without one, its first parameter.
        places = np.arange(len(self._all))
        earliest = np.minimum.reduceat(np.where(self._matrix, places, len(places)), self._first)
        self._without = earliest == len(places)
        self._main = np.where(self._without, self._first, earliest)
        # It is the module that a token passes through, so its matrices have the same uses.
        self._uses = np.array([float(self._all[place].uses) for place in self._main])

    def described(self) -> dict[str, Any]:
        """Return what modules and their weights are."""
        mains = [self._all[place] for place in self._main]
        return {
            "module_name": [module.name for module in self._modules],
            "block": [module.block for module in self._modules],
            "group": [module.group for module in self._modules],
            "shape": [p.shape for p in mains],
            "dtype": [p.dtype for p in mains],
            "layout": [self._layouts[place] for place in self._main],
            "prunable": np.logical_or.reduceat(_flags(p.prunable for p in self._all), self._first),
            "tied_to": [p.tied_to for p in mains],
        }

    def summed(self) -> dict[str, Any]:
        """Return numbers of elements, and the cost that follows from them."""
        weight = self._matrix.copy()
        weight[self._main] = True
        weight &= self._counted
        sparse = _flags(layout == "csr" for layout in self._layouts)
        per_token = _flags(module.per == "token" for module in self._modules)
        flops = self._flops(np.where(sparse, self._left, self._total))
        total = self._sum(self._total, self._counted)
        inputs = np.maximum.reduceat(
            _integers(p.matrix and p.matrix[1] for p in self._all), self._first
        )
        pointers = self._sum(
            _integers(p.matrix and _row_pointers(p) for p in self._all), self._matrix
        )
        return {
            "total": total,
            "nonzero": self._sum(self._left, self._counted),
            "weight_total": self._sum(self._total, weight),
            "weight_nonzero": self._sum(self._left, weight),
            "row_pointers": _masked(pointers, self._without),
            "columns": _masked(inputs, self._without),
            "uses": np.where(self._without, np.nan, self._uses * per_token),
            "flops_per_token": _only(flops, per_token),
            "useful_flops_per_token": _only(self._flops(self._left), per_token),
            "flops_per_sequence": _only(flops, ~per_token),
            "active_total": used(total.to_numpy(dtype=np.int64), np.minimum(self._uses, 1)),
            "stored_bytes": self._sum(
                _integers(map(self._bytes, range(len(self._all)))), self._owned
            ),
        }

    def _sum(self, numbers: Integers, among: Flags) -> pd.arrays.IntegerArray:
        """Sum over each module; null where a number of those among is unknown."""
        known = numbers >= 0
        return pd.arrays.IntegerArray(
            np.add.reduceat(np.where(among & known, numbers, 0), self._first),
            np.logical_or.reduceat(among & ~known, self._first),
        )

    def _flops(self, elements: Integers) -> pd.arrays.IntegerArray:
        """Return FLOPs of the elements of each module's matrices, two each time they are used."""
        sums = self._sum(elements, self._multiplied)
        doubled = 2 * sums.to_numpy(dtype=np.int64, na_value=0)
        return pd.arrays.IntegerArray(used(doubled, self._uses), sums.isna())

    def _bytes(self, place: int) -> int | None:
        """Bytes of a parameter; None where they follow from nonzeros that are not known."""
        parameter, layout, nonzero = self._all[place], self._layouts[place], int(self._left[place])
        as_held = layout == parameter.layout and parameter.name not in self._cuts
        if parameter.held_bytes is not None and as_held:
            return parameter.held_bytes
        if layout == "dense" or parameter.matrix is None:
            return dense_bytes(parameter.total, parameter.itemsize)
        return None if nonzero < 0 else _csr_stored(parameter, nonzero)


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
    if csr and parameter.prunable:
        return "csr"
    # What is neither CSR nor dense is made dense to be pruned.
    return "dense" if cut and parameter.layout != "csr" else parameter.layout


def _csr_stored(parameter: Parameter, nonzero: int) -> int:
    """Bytes of a matrix, or of all experts' matrices in one tensor, stored as CSR."""
    assert parameter.matrix is not None
    index = index_bytes(nonzero, parameter.matrix[1])
    return csr_bytes(nonzero, _row_pointers(parameter) - 1, parameter.itemsize, index)


def _row_pointers(parameter: Parameter) -> int:
    """Row pointers of a matrix in CSR, ``rows + 1``; of E experts in one tensor E times as many."""
    assert parameter.matrix is not None
    return parameter.experts * (parameter.matrix[0] + 1)


def _integers(numbers: Iterable[int | None]) -> Integers:
    return np.array([-1 if n is None else n for n in numbers], dtype=np.int64)


def _flags(flags: Iterable[bool]) -> Flags:
    return np.fromiter(flags, dtype=bool)


def _masked(numbers: Any, unknown: Flags) -> pd.arrays.IntegerArray:
    return pd.arrays.IntegerArray(np.asarray(numbers, dtype=np.int64), unknown)


def _only(numbers: pd.arrays.IntegerArray, rows: Flags) -> pd.arrays.IntegerArray:
    """Keep the numbers of some rows, of others zero."""
    known = numbers.to_numpy(dtype=np.int64, na_value=0)
    return pd.arrays.IntegerArray(np.where(rows, known, 0), numbers.isna() & rows)
