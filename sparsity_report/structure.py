"""From weights and a pruning decision to rows: what each module holds, does and costs.

Everything here is derived from counts; no tensor is read or changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from sparsity_report.cost import csr_bytes, dense_bytes, index_bytes, linear_flops, sparse_flops
from sparsity_report.errors import SparsityReportError
from sparsity_report.groups import GROUPS
from sparsity_report.magnitudes import Magnitudes
from sparsity_report.pruning import Pruning
from sparsity_report.weights import Module, Parameter, Weights

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
    owned = {parameter.name: parameter for parameter in weights.parameters}
    rows = []
    for module in weights.modules:
        row = _Row(module, owned, counts, pruning, csr, convention == "notebook")
        rows.append({"variant": variant, **row.as_dict()})
    frame = pd.DataFrame(rows, columns=list(LAYER_COLUMNS))
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


class _Row:
    """The numbers of one module."""

    def __init__(
        self,
        module: Module,
        owned: Mapping[str, Parameter],
        counts: Mapping[str, Magnitudes],
        pruning: Pruning | None,
        csr: bool,
        notebook: bool,
    ) -> None:
        self.module = module
        self._owned, self._counts, self._pruning = owned, counts, pruning
        self._csr, self._notebook = csr, notebook
        self._left = {p.name: self._count(p) for p in module.parameters}

    def as_dict(self) -> dict[str, object]:
        weight = self.module.weight
        assert weight is not None
        parameters = self.module.parameters
        matrices = [p for p in parameters if p.matrix] or [weight]
        per_sequence = self.module.per == "sequence"
        flops = _sum(map(self._flops, parameters))
        return {
            "module_name": self.module.name,
            "block": self.module.block,
            "group": self.module.group,
            "shape": weight.shape,
            "dtype": weight.dtype,
            "layout": self._layout(weight),
            "total": sum(self._total(p) for p in parameters),
            "nonzero": _sum(self._nonzero(p) for p in parameters if self._is_counted(p)),
            "prunable": any(p.prunable for p in parameters),
            "weight_total": sum(self._total(p) for p in matrices),
            "weight_nonzero": _sum(self._nonzero(p) for p in matrices if self._is_counted(p)),
            "row_pointers": sum(map(row_pointers, matrices)) if matrices[0].matrix else None,
            "columns": max((p.matrix[1] for p in matrices if p.matrix), default=None),
            "flops_per_token": 0 if per_sequence else flops,
            "useful_flops_per_token": 0 if per_sequence else _sum(map(self._useful, parameters)),
            "flops_per_sequence": flops if per_sequence else 0,
            "active_total": sum(
                self._total(p) if p.uses >= 1 else round(p.uses * self._total(p))
                for p in parameters
            ),
            "stored_bytes": _sum(self._bytes(p) for p in parameters if p.tied_to is None),
            "tied_to": weight.tied_to,
        }

    def _is_counted(self, parameter: Parameter) -> bool:
        return self._notebook or parameter.tied_to is None

    def _is_multiplied(self, parameter: Parameter) -> bool:
        lookup = self._notebook and len(parameter.shape) == 2
        return parameter.matrix is not None or (lookup and parameter.name.endswith("weight"))

    def _layout(self, parameter: Parameter) -> str:
        return "csr" if self._csr and parameter.prunable else parameter.layout

    def _total(self, parameter: Parameter) -> int:
        return parameter.total if self._is_counted(parameter) else 0

    def _nonzero(self, parameter: Parameter) -> int | None:
        return self._left[parameter.name]

    def _count(self, parameter: Parameter) -> int | None:
        owner = self._owned[parameter.tied_to or parameter.name]
        seen = self._counts.get(owner.name)
        # Unknown: values on the meta device, and a view of only a part of its owner.
        if seen is None or owner.total != parameter.total:
            return None
        cut = self._pruning.cuts.get(owner.name) if self._pruning else None
        return cut.nonzero_after(seen) if cut else seen.nonzero

    def _useful(self, parameter: Parameter) -> int | None:
        if not self._is_multiplied(parameter):
            return 0
        nonzero = self._nonzero(parameter)
        return None if nonzero is None else useful_flops(parameter, nonzero)

    def _flops(self, parameter: Parameter) -> int | None:
        if not self._is_multiplied(parameter):
            return 0
        if self._layout(parameter) == "csr":
            return self._useful(parameter)
        flops = parameter.experts * linear_flops(*(parameter.matrix or parameter.shape))
        return flops if parameter.uses == 1 else round(parameter.uses * flops)

    def _bytes(self, parameter: Parameter) -> int | None:
        if parameter.held_bytes is not None and self._pruning is None:
            return parameter.held_bytes
        if self._layout(parameter) == "dense" or parameter.matrix is None:
            return dense_bytes(parameter.total, parameter.itemsize)
        nonzero = self._nonzero(parameter)
        return None if nonzero is None else csr_stored(parameter, nonzero)


def _sum(numbers: Iterable[int | None]) -> int | None:
    """Sum, or None where one of the numbers is unknown."""
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def _total(column: pd.Series[Any]) -> int | None:
    total = column.sum(skipna=False)
    return None if pd.isna(total) else int(total)


def _sparsity(total: pd.Series, nonzero: pd.Series) -> pd.Series:
    """Share of zeros; NaN, which is null in files, where there is nothing to be sparse."""
    return 1 - nonzero.astype(float) / total.where(total > 0).astype(float)
