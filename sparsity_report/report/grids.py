"""The tables of a paper on pruning: methods by sparsity and model, the best in bold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.report.cells import (
    NAME,
    SHARE,
    Body,
    Cell,
    Column,
    Kind,
    Row,
    Table,
    kind_of,
    name,
    table_of,
)
from sparsity_report.study.layers import records
from sparsity_report.study.methods import PROTOCOL, best
from sparsity_report.study.schema import head
from sparsity_report.study.study import Comparison
from sparsity_report.words.names import distinct_names, policy_name, short_name
from sparsity_report.words.numbers import percent
from sparsity_report.words.sentences import say

# Of which more is better; of the others less.
_LARGEST = ("top1", "agreement")


class _Entry(NamedTuple):
    """A variant in a grid: its row, and the column of its model."""

    kind: str
    label: str
    model: str
    variant: str


def method_grids(study: Comparison, metric: str = "perplexity") -> list[Table]:
    """Return one table per protocol: methods by kind of sparsity down, models across.

    Parameters
    ----------
    study : Comparison
        See :func:`sparsity_report.combine` for several models.
    metric : str
        A column of ``study.quality``.

    Returns
    -------
    list of Table
        Of each protocol by which at least two prunings were scored.
    """
    frame = study.quality
    if frame is None or frame.empty:
        return []
    entries = list(_entries(study))
    tables: list[Table] = []
    for _, scored in frame.groupby(list(PROTOCOL), sort=False):
        values = scored.drop_duplicates("variant").set_index("variant")[metric]
        values = values.astype(object).where(values.notna(), None)
        known = [entry for entry in entries if entry.variant in values.index]
        if sum(entry.kind != "" for entry in known) >= 2:
            said = records(scored)[0]
            tables.append(
                _grid(
                    known,
                    {str(key): value for key, value in values.items()},
                    metric,
                    said,
                    len(tables),
                )
            )
    return tables


def _entries(study: Comparison) -> Iterator[_Entry]:
    """Yield the study's models and prunings, each place of the grid once."""
    frame = study.facts.methods
    models = frame.drop_duplicates("fingerprint").set_index("fingerprint")["model"]
    shown = dict(zip(models.index, distinct_names(list(models)), strict=True))
    labels: list[tuple[str, str, str, str]] = []
    for row in records(frame):
        kind = row["kind"] if pd.notna(row["kind"]) else percent(row["sparsity"], digits=0)
        bare, foreign = row["sparsity"] == 0, pd.isna(row["policy"])
        label = short_name(row["variant"]) if foreign else _policy(row["policy"])
        if bare and foreign:
            kind, label = "", say("Dense")
        labels.append((kind, label, shown[row["fingerprint"]], row["variant"]))
    places = [label[:3] for label in labels]
    for kind, label, model, variant in labels:
        # Two of one policy and sparsity are told apart by their own names.
        again = places.count((kind, label, model)) > 1
        yield _Entry(kind, short_name(variant) if again else label, model, variant)


def _policy(policy: str) -> str:
    said = policy_name(policy)
    return said[:1].upper() + said[1:]


def _grid(
    entries: Sequence[_Entry], values: dict[str, Any], metric: str, scored: dict[str, Any], at: int
) -> Table:
    kinds = list(dict.fromkeys(entry.kind for entry in entries))
    models = list(dict.fromkeys(entry.model for entry in entries))
    kind, largest = kind_of(metric), metric in _LARGEST
    heads = models if len(models) > 1 else [head(metric)]
    columns = [Column("method", say("Method"), name(80), width=1.6)]
    columns += [
        Column(model, head, kind, width=1) for model, head in zip(models, heads, strict=True)
    ]
    bodies = tuple(
        Body(tuple(_rows(entries, of, models, values, kind, largest)), of) for of in kinds
    )
    caption = say(
        "{metric} of {models:names} by method and share of the prunable weights asked for; "
        "protocol {protocol}, {text} ({text_fingerprint}) in windows of {window:,}, stride "
        "{stride:,}; the best of each in bold.",
        metric=head(metric),
        models=models,
        **{key: scored[key] for key in ("window", "stride")},
        **{key: short_name(scored[key]) for key in ("protocol", "text", "text_fingerprint")},
    )
    return Table(f"{metric}_grid" + (f"_{at + 1}" if at else ""), caption, tuple(columns), bodies)


def _rows(
    entries: Sequence[_Entry],
    kind: str,
    models: Sequence[str],
    values: dict[str, Any],
    look: Kind,
    largest: bool,
) -> Iterator[Row]:
    """Yield the rows of one kind of sparsity; the best of each model is strong."""
    inside = [entry for entry in entries if entry.kind == kind]
    strong: set[str] = set()
    for model in models:
        of = [entry.variant for entry in inside if entry.model == model]
        marks = best([values[variant] for variant in of], largest=largest)
        strong |= {variant for variant, mark in zip(of, marks, strict=True) if mark and kind}
    labels = list(dict.fromkeys(entry.label for entry in inside))
    for label in labels:
        variants = {entry.model: entry.variant for entry in inside if entry.label == label}
        cells = [
            Cell(values.get(variants.get(model, "")), look, strong=variants.get(model) in strong)
            for model in models
        ]
        yield Row((Cell(label, NAME), *cells))


def blocks(study: Comparison) -> Table | None:
    """Return zeros per block, policies side by side; None where they cannot differ."""
    rivals = study.facts.rivals
    if not rivals:
        return None
    shares = {v: study.facts.blocks(v).set_index("block")["sparsity"] for v in rivals}
    numbers = sorted(set().union(*(of.index for of in shares.values())))
    values = [{"block": n, **{v: of.get(n) for v, of in shares.items()}} for n in numbers]
    columns = [Column("block", head("block"), kind_of("block"))]
    columns += [
        Column(v, text, SHARE) for v, text in zip(rivals, distinct_names(rivals), strict=True)
    ]
    caption = say("Zeros per block ÷ its prunable weights, by policy.")
    return table_of("blocks", caption, columns, values)
