"""Tables of two checkpoints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.findings.checkpoint_labels import (
    block_names,
    blocks_axis,
    strip_names,
    strip_title,
)
from sparsity_report.report.tables.table_model import Table, caption_of, noted, table_of
from sparsity_report.study.derived.removed_strips import BlockShares, Strip
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.schema import Column, columns_of
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.display_names import display_name, group_name, head
from sparsity_report.words.number_format import count
from sparsity_report.words.sentences import say
from sparsity_report.words.value_formats import COUNT, SHARE, WORDS, Format, name_format

# Columns of a study that count what a figure of a pair does.
_COLUMNS = {
    "prunable_weights": "prunable_total",
    "parameters": "total",
    "active_parameters": "active_total",
}
# Removed weights; negative where weights were added.
_SHARE_TAKEN = Format(lambda share: SHARE.write(share).replace("-", "−"), "%", places=2)
_TAKEN = Format(lambda number: COUNT.write(number).replace("-", "−"), "")
# Sums over the removed parts of a module.
_REMOVED = "weights parameters bytes flops_per_token"
# Most spans of removed indices in a cell of a table, and of a strip.
_SOME, _LISTED = 4, 500


def changes(study: StudyFigures) -> Table:
    """Return what was removed from the model: weights, parameters, bytes and FLOPs."""
    caption = say("caption.removed_totals")
    frame = study.facts.table("changes")
    values = frame[frame["group"].isna()]
    values = values.assign(figure=values["figure"].replace(_COLUMNS).map(head))
    return table_of("changes", caption, _figure_columns("figure"), values)


def changed_groups(study: StudyFigures) -> Table:
    """Return what was removed from each group of modules."""
    sides = ["before", "after"]
    frame = study.facts.table("changes").dropna(subset="group")
    frame = frame.assign(group=frame["group"].map(group_name))
    frame = frame[~frame[sides].eq(0).fillna(False).all(axis=1)]
    is_known = frame[sides].fillna(0).any(axis=1).groupby(frame["figure"]).transform("any")
    rows = frame[is_known].assign(title=frame["figure"].replace(_COLUMNS).map(head))
    caption, columns = say("caption.removed_groups"), _figure_columns("group")
    return table_of("changed_groups", caption, columns, rows, title="title", style="groups")


def _figure_columns(first: str) -> list[Column]:
    keys = f"{first} before after removed share"
    kinds = dict(zip(keys.split(), (WORDS, COUNT, COUNT, _TAKEN, _SHARE_TAKEN), strict=True))
    return columns_of(keys, kinds)


def survival(study: StudyFigures) -> Table:
    """Return the fate of zeros of the prunable weights that both models have."""
    caption = say("caption.zero_survival")
    everything = say("name.all_prunable_weights")
    frame = study.facts.table("survival")
    names = [everything if pd.isna(g) else group_name(g) for g in frame["group"]]
    columns = columns_of(
        "group compared zeros_before zeros_after kept revived new kept_share iou surviving changed "
        "relative_change",
        {"group": WORDS},
    )
    return table_of("survival", caption, columns, frame.assign(group=names), widths=(1.4, 1))


def blocks(shown: BlockShares) -> Table:
    """Return the fate of zeros and weights by block, as drawn in columns."""
    columns = columns_of(
        "name weight_before removed zeros kept revived new share",
        {"name": name_format(80), "removed": COUNT, "zeros": COUNT, "share": SHARE},
        name=head("block"),
        zeros=head("zeros_before"),
        share=blocks_axis(shown),
    )
    values = shown.rows.assign(name=block_names(shown))
    return table_of("blocks", say("caption.pair_blocks"), columns, values, widths=(1.2, 1))


def strip(shown: Strip) -> Table:
    """Return the removed parts of a kind, row by row of their strip."""
    values = [
        {
            "where": where,
            "gone": len(row.gone),
            "among": row.among,
            "numbers": _listed(row.gone, _LISTED),
            "certainty": row.certainty,
        }
        for where, row in zip(strip_names(shown), shown.rows, strict=True)
    ]
    columns = columns_of(
        "where gone among numbers certainty",
        {"where": name_format(80), "gone": COUNT, "numbers": WORDS},
        where=say("label.location"),
        **_removed_heads(),
    )
    caption = say("caption.removed_strip", title=strip_title(shown))
    return table_of(f"strip_{shown.kind}", caption, columns, values, widths=(1.4, 0, 0, 3, 0))


def _removed_heads() -> dict[str, str]:
    return {"gone": say("column.removed_head"), "numbers": say("column.indices_in_base")}


def _listed(numbers: Sequence[int], limit: int) -> str:
    """List numbers, neighbors as a span, and how many follow after so many spans."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if numbers else []
    spans = [(int(run[0]), int(run[-1])) for run in runs]
    shown = [
        count(first) if first == last else f"{count(first)}–{count(last)}"
        for first, last in spans[:limit]
    ]
    if more := sum(last - first + 1 for first, last in spans[limit:]):
        shown.append(say("format.count_more", count=more))
    return ", ".join(shown)


def removed(study: StudyFigures, limit: int) -> Table | None:
    """Return the removed parts of the base, a row per kind and module, at most `limit` rows."""
    frame = study.facts.table("removed")
    if frame.empty:
        return None
    parts = frame.groupby(["kind", "module"], sort=False)
    sums = dict.fromkeys(_REMOVED.split(), "sum")
    rows = parts.agg({"among": "first", "certainty": "min", **sums}).assign(gone=parts.size())
    indices = (sorted(map(int, rows["index"].dropna())) for _, rows in parts)
    rows["numbers"] = [_listed(numbers, _SOME) or None for numbers in indices]
    rows = rows.reset_index()
    rows["kind"] = [display_name("kind", kind) for kind in rows["kind"]]
    columns = columns_of(
        f"kind module gone among numbers certainty {_REMOVED}",
        {"kind": WORDS, "module": name_format(200), "numbers": WORDS},
        **_removed_heads(),
    )
    shown, keys = rows.head(limit), ("caption.removed_parts", "caption.removed_parts_first")
    caption = caption_of(*keys, len(shown), len(rows))
    looks: dict[str, Any] = {"style": "sortable", "widths": (0.8, 1.6, 0, 0, 1.4, 0)}
    return table_of("removed", caption, columns, shown, **looks)


def small(study: StudyFigures, limit: int = 20) -> list[Table]:
    """Return the tables of a terminal: removed parts, and the fate of zeros."""
    gone = removed(study, limit)
    parts = [] if gone is None else [gone.only("module", "gone", "among", "numbers", "weights")]
    kept = survival(study)
    if study.facts.table("survival")[["kept", "revived", "new"]].fillna(0).to_numpy().any():
        parts.append(kept.only("compared", "kept", "revived", "new", "kept_share", "iou"))
    return parts


def matches(study: StudyFigures, limit: int) -> Table:
    """Return all modules of both models, at most `limit` rows."""
    every = study.facts.table("matches")
    frame = every.head(limit)
    renamed = frame["after_name"].notna() & (frame["after_name"] != frame["module_name"])
    notes = frame["after_name"].map(lambda name: clip(name, 2000)).where(renamed, "")
    notes = notes.mask(frame["untouched"], say("column.untouched"))
    values = frame.assign(
        module_name=noted(frame["module_name"], notes),
        group=frame["group"].map(group_name),
        alignment=[display_name("alignment", how) for how in frame["alignment"]],
    )
    # The alignment is of no interest if every module was matched by name.
    plain = (every["alignment"] == "name").all()
    recognized = "" if plain else "alignment certainty "
    columns = columns_of(
        f"module_name group {recognized}weight_before weight_after zeros_before zeros_after "
        "kept revived new iou changed relative_change correlation",
        {"module_name": name_format(2000), "group": WORDS, "alignment": WORDS},
    )
    keys = ("caption.pair_modules_all", "caption.pair_modules_first")
    caption = caption_of(*keys, len(frame), len(every))
    looks: dict[str, Any] = {"style": "layers sortable", "widths": (1.6, 0)}
    return table_of("matches", caption, columns, values, **looks)
