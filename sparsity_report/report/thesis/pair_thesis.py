"""Two checkpoints compared as parts of a thesis: their figures, tables and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sparsity_report.draw.pair_charts import both, difference_chart, overlap_chart, strip_chart
from sparsity_report.report.tables import pair_tables
from sparsity_report.report.tables.latex import Tex, group_commands, tex
from sparsity_report.report.tables.table_model import COUNT, SHARE, Table
from sparsity_report.report.thesis.kit import Drawing, Kit, camel, number
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import ROWS
from sparsity_report.untrusted.display_text import short_name

# Rows that a page of a thesis holds.
_ROWS = 40
_SURVIVAL = ("compared", "kept", "revived", "new", "kept_share", "iou", "changed")
_REMOVED = ("module", "gone", "among", "numbers")
# How commands call what is gone, in English whatever language is spoken.
_GONE = {
    "block": "Blocks", "attention": "Attentions", "mlp": "Mlps", "layer": "Layers",
    "expert": "Experts", "head": "Heads", "kv_head": "KeyValueHeads", "channel": "Channels",
    "vocabulary": "Tokens", "width": "Width",
}  # fmt: skip


def pair_kit(pair: Pair, top: int) -> Kit:
    """Return what a thesis takes of two checkpoints.

    Parameters
    ----------
    pair : Pair
    top : int
        Number of the layers that agree least.
    """
    drawings = [
        Drawing("difference", "Difference", partial(difference_chart, pair)),
        *(
            Drawing(f"gone_{kind}", f"Gone{_GONE[kind]}", partial(strip_chart, pair, kind))
            for kind in ROWS
        ),
        Drawing("overlap", "Overlap", partial(overlap_chart, pair)),
    ]
    shown = {
        "models": tex(both(pair)),
        "findings": pair.sentences(),
        "conventions": [],
        "fingerprints": "",
        "pair": True,
    }
    return Kit(drawings, _tables(pair, top), [*_numbers(pair)], shown)


def _tables(pair: Pair, top: int) -> dict[str, Table]:
    parts = {
        "totals": pair_tables.totals(pair),
        "sparsities": pair_tables.sparsities(pair),
        "survival": pair_tables.survival(pair).only(*_SURVIVAL),
        "groups": pair_tables.groups(pair),
    }
    if removed := pair_tables.removed(pair, _ROWS):
        parts["removed"] = removed.only(*_REMOVED)
    if least := pair_tables.extremes(pair, top):
        parts["least_agreeing"] = least.only("kept", "revived", "new", "iou")
    return parts


def _numbers(pair: Pair) -> Iterator[tuple[str, Tex]]:
    """Yield a command for every number a text would quote."""
    for side, name in zip(("Before", "After"), pair.models["model"], strict=True):
        yield f"{side}Name", tex(short_name(name))
    for row in records(pair.totals):
        stem = camel(row["figure"])
        for column in ("before", "after", "removed"):
            yield from number(f"{stem}{camel(column)}", row[column], row["figure"], COUNT)
        yield from number(f"{stem}RemovedShare", row["share"], "share", SHARE)
    for row in records(pair.sparsities):
        for column in ("sparsity_before", "sparsity_itself", "gone_of_base"):
            yield from number(f"{camel(row['of'])}{camel(column)}", row[column], column, SHARE)
    groups = [row["group"] for row in records(pair.survival)]
    english = group_commands(groups)
    for stem, row in zip(english, records(pair.survival), strict=True):
        for column in ("compared", "zeros_before", "zeros_after", "kept", "revived", "new"):
            yield from number(f"{stem}{camel(column)}", row[column], column, COUNT)
        for column in ("kept_share", "iou", "relative_change"):
            yield from number(f"{stem}{camel(column)}", row[column], column, SHARE)
        yield from number(f"{stem}Changed", row["changed"], "changed", COUNT)
    for kind, rows in pair.removed.groupby("kind", sort=False):
        yield from number(f"{_GONE[str(kind)]}Gone", len(rows), "gone", COUNT)
        yield from number(f"{_GONE[str(kind)]}GoneWeights", int(rows["weights"].sum()), "", COUNT)
