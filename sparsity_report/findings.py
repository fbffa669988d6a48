"""The study in plain sentences with their numbers: said once, shown everywhere."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sparsity_report.comparison import Comparison
from sparsity_report.cost import csr_break_even, value_bytes
from sparsity_report.structure import records
from sparsity_report.wording import join, percent, scaled

_COUNTING = (
    "One multiply-add is two FLOPs; norms, biases, softmax, activations and attention scores are "
    "not counted.",
    "Useful FLOPs are two per nonzero weight whatever the layout; dense kernels do not skip zeros.",
    "CSR bytes are nnz·(v + i) + (rows + 1)·i for values of v bytes and indices of i bytes.",
    "Shares of zeros name their denominator: the prunable weights; all parameters but embeddings "
    "and output head; all parameters of the model.",
)
_EXPERTS = (
    "Of a mixture of experts FLOPs are those of the router and the experts one token is sent to; "
    "where zeros count, in expectation over uniform routing."
)
_SEQUENCE = "Poolers and classification heads run once per sequence and are counted apart."
_TWO_STACKS = (
    "FLOPs per token of an encoder-decoder are those of one source token through the encoder (and "
    "the keys and values of cross-attention) plus one target token through the decoder."
)
_TIES = {
    "standard": "An embedding look-up costs no FLOPs; a tied output head is stored and counted "
    "once, under the embedding, and costs 2·V·d FLOPs.",
    "notebook": "Notebook convention: an embedding look-up is charged 2·V·d FLOPs, and a tied "
    "output head is counted again in totals and shares.",
}


def summarize(study: Comparison) -> list[str]:
    """Return what is worth knowing of a study, most important first.

    The first three sentences, where there is a pruned variant, say how much is zero of what,
    what that does to storage, and what it does to the arithmetic.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> study = sr.compare(sr.dense(sr.load()), sr.masked(pruning), sr.csr(pruning))
    >>> print(sr.summarize(study)[1][:44])
    CSR30 stores 1.33 times the bytes of Dense (
    """
    said = [*_zeros(study), *_storage(study), *_arithmetic(study), *_spread(study)]
    said += [*_unusual(study), *_active(study), *_attention(study)]
    return said + _already_zero(study) + _unclassified(study)


def conventions(study: Comparison) -> list[str]:
    """Return the conventions behind the numbers, to be printed with every table."""
    said = [*_COUNTING, _TIES[study.convention]]
    if (study.layers["active_total"] < study.layers["total"]).any():
        said.append(_EXPERTS)
    if (study.layers["flops_per_sequence"] > 0).any():
        said.append(_SEQUENCE)
    words = {word for name in study.layers["module_name"] for word in name.split(".")}
    if {"encoder", "decoder"} <= words:
        said.append(_TWO_STACKS)
    return said


def baseline(study: Comparison) -> str:
    """Name of the variant others are compared with: the first dense one, else the first."""
    rows = records(study.variants)
    return str(next((row for row in rows if row["layout"] == "dense"), rows[0])["variant"])


def _same(rows: list[dict[str, Any]], *keys: str) -> list[list[dict[str, Any]]]:
    """Rows that agree in `keys`, together, in their order."""
    together: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        together.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(together.values())


def _names(rows: list[dict[str, Any]]) -> str:
    return join([row["variant"] for row in rows])


def _zeros(study: Comparison) -> list[str]:
    known = study.totals["pruned"].notna() & study.totals["nonzero"].notna()
    pruned = records(study.totals[known])
    said = []
    for same in _same(pruned, "pruned", "asked_sparsity", "prunable_total", "total"):
        row = same[0]
        verb = "sets" if len(same) == 1 else "set"
        said.append(
            f"{_names(same)} {verb} {row['pruned']:,} of {row['prunable_total']:,} prunable "
            f"weights to zero (asked {100 * row['asked_sparsity']:g} %): "
            f"{percent(row['sparsity_prunable'])} of the prunable weights, "
            f"{percent(row['sparsity_non_embedding'])} of the non-embedding parameters, "
            f"{percent(row['sparsity_model'])} of the whole model."
        )
    return said


def _storage(study: Comparison) -> list[str]:
    base = baseline(study)
    totals = records(study.totals)
    reference = next(row["stored_bytes"] for row in totals if row["variant"] == base)
    if pd.isna(reference):
        return []
    said = []
    for row in totals:
        if row["layout"] != "csr" or row["variant"] == base or pd.isna(row["stored_bytes"]):
            continue
        own = study.layers[study.layers["variant"] == row["variant"]]
        dtypes = own.loc[own["layout"] == "csr", "dtype"].unique()
        breaks = [
            f"with {dtype} values and int32 indices from "
            f"{100 * csr_break_even(value_bytes(dtype), 4):.0f} % sparsity"
            for dtype in dtypes
        ]
        said.append(
            f"{row['variant']} stores {row['stored_bytes'] / reference:.2f} times the bytes of "
            f"{base} ({scaled(row['stored_bytes'], 'B')} against {scaled(reference, 'B')}); "
            f"CSR pays off {join(breaks)}."
        )
    return said


def _arithmetic(study: Comparison) -> list[str]:
    base = baseline(study)
    totals = records(study.totals)
    reference = next(row["flops_per_token"] for row in totals if row["variant"] == base)
    if pd.isna(reference) or not reference:
        return []
    said = [f"Per token {base} does {scaled(reference, 'FLOPs')}"]
    if masked := [row for row in totals if row["layout"] == "masked"]:
        said.append(f"{_names(masked)} the same, because dense kernels do not skip zeros")
    said += [
        f"{row['variant']} does {scaled(row['flops_per_token'], 'FLOPs')}, "
        f"{row['flops_per_token'] / reference:.2f} times as many on paper"
        for row in totals
        if row["layout"] == "csr" and row["variant"] != base and pd.notna(row["flops_per_token"])
    ]
    return ["; ".join(said) + "."]


def _spread(study: Comparison) -> list[str]:
    pruned = records(study.variants[study.variants["threshold"].notna()])
    said = []
    for same in _same(pruned, "fingerprint", "threshold"):
        own = study.layers[
            (study.layers["variant"] == same[0]["variant"]) & study.layers["prunable"]
        ]
        if len(own) < 2 or own["weight_nonzero"].isna().any():
            continue
        share = 1 - own["weight_nonzero"] / own["weight_total"]
        low, high = (
            f"{percent(float(share.iloc[i]))} of {own['module_name'].iloc[i]}"
            for i in (int(share.argmin()), int(share.argmax()))
        )
        said.append(
            f"The zeros of {_names(same)} are not spread evenly: one threshold, "
            f"|w| ≤ {same[0]['threshold']:.4g}, takes {low} and {high}."
        )
    return said


def _unusual(study: Comparison) -> list[str]:
    """Name the matrix that differs most from a Gaussian of its own spread."""
    frame = study.patterns
    if frame is None:
        return []
    frame = frame[frame["expected_sparsity"].notna() & frame["sparsity"].notna()]
    if frame.empty:
        return []
    name = frame["variant"].iloc[0]
    own = frame[frame["variant"] == name]
    row = own.iloc[int((own["sparsity"] - own["expected_sparsity"]).abs().argmax())]
    return [
        f"The most unusual matrix of {name} is {row['parameter']}: {percent(row['sparsity'])} "
        f"zeros where a Gaussian of its spread would have {percent(row['expected_sparsity'])}."
    ]


def _active(study: Comparison) -> list[str]:
    row = records(study.totals)[0]
    if row["active_total"] == row["total"]:
        return []
    return [
        f"One token sees {scaled(row['active_total'], 'parameters')} of the "
        f"{scaled(row['total'], 'parameters')} stored, "
        f"{percent(row['active_total'] / row['total'])}; the others belong to experts it is not "
        "sent to."
    ]


def _attention(study: Comparison) -> list[str]:
    if study.context is None:
        return []
    cost = study.totals["attention_flops_per_token"].iloc[0]
    if pd.isna(cost):
        return ["FLOPs of attention scores are not known for this architecture."]
    return [
        f"Attention over {study.context:,} positions adds {scaled(float(cost), 'FLOPs')} per "
        "token, the same in every variant."
    ]


def _already_zero(study: Comparison) -> list[str]:
    said = []
    as_they_come = study.totals["pruned"].isna() & study.totals["nonzero"].notna()
    for row in records(study.totals[as_they_come]):
        if zeros := row["total"] - row["nonzero"]:
            said.append(
                f"{row['variant']} holds {zeros:,} zeros as it comes, "
                f"{percent(zeros / row['total'])} of its parameters."
            )
    return said


def _unclassified(study: Comparison) -> list[str]:
    names = study.unclassified
    if not names:
        return []
    first = study.layers[study.layers["variant"] == study.variants["variant"].iloc[0]]
    share = float(first.loc[first["group"] == "other", "param_frac"].sum())
    plural = "module matches" if len(names) == 1 else "modules match"
    return [
        f"{len(names)} {plural} no grouping rule and stand under other ({percent(share)} of the "
        f"parameters), first {names[0]}."
    ]
