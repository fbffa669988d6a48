"""Tables of two checkpoints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.findings.checkpoint_findings import block_names, blocks_axis
from sparsity_report.report.tables.table_model import Table, caption_of, table_of, wide_table
from sparsity_report.study.derived.removed_strips import BlockShares
from sparsity_report.study.derived.zero_losses import fate_shares, kept_by_place, module_losses
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.schema import Column, columns_of
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
# Columns of zeros over training.
_COUNTED = "zeros_before zeros_after kept revived new kept_share"
# Sums over the removed parts of a module.
_REMOVED = "weights parameters bytes flops_per_token"
# Most spans of removed indices in a cell of a document, and of a terminal.
_LISTED, _SOME = 40, 4


def changes(study: StudyFigures) -> Table:
    """Return what was removed from the model: weights, parameters, bytes and FLOPs."""
    caption = say("caption.removed_totals")
    values = _changes(study)
    values = values[values["group"].isna()].assign(figure=values["title"])
    return table_of("changes", caption, _figure_columns("figure"), values)


def changed_groups(study: StudyFigures) -> Table:
    """Return what was removed from each group of modules."""
    sides = ["before", "after"]
    frame = _changes(study).dropna(subset="group")
    frame = frame.assign(group=frame["group"].map(group_name))
    frame = frame[~frame[sides].eq(0).fillna(False).all(axis=1)]
    is_known = frame[sides].fillna(0).any(axis=1).groupby(frame["figure"]).transform("any")
    caption, columns = say("caption.removed_groups"), _figure_columns("group")
    options = {"title": "title", "style": "groups"}
    return table_of("changed_groups", caption, columns, frame[is_known], **options)


def _changes(study: StudyFigures) -> pd.DataFrame:
    """Return the changes with titles; only packed weights have bytes in the file and unpacked."""
    frame, columns = study.facts.table("changes"), _COLUMNS
    if study.facts.packings():
        columns = columns | {"stored_bytes": "stored_bytes_unpacked"}
    else:
        frame = frame[frame["figure"] != "file_bytes"]
    return frame.assign(title=frame["figure"].replace(columns).map(head))


def _figure_columns(first: str) -> list[Column]:
    keys = f"{first} before after removed share"
    kinds = dict(zip(keys.split(), (WORDS, COUNT, COUNT, _TAKEN, _SHARE_TAKEN), strict=True))
    return columns_of(keys, kinds)


def survival(study: StudyFigures) -> Table:
    """Return the fate of zeros of the prunable weights that both models have."""
    is_history = study.history is not None
    caption = say("caption.history_groups" if is_history else "caption.zero_survival")
    everything = say("name.all_prunable_weights")
    frame = study.facts.table("survival")
    names = [everything if pd.isna(g) else group_name(g) for g in frame["group"]]
    columns = columns_of(
        "group compared zeros_before zeros_after kept revived new kept_share iou surviving changed "
        "relative_change",
        {"group": WORDS},
    )
    table = table_of("survival", caption, columns, frame.assign(group=names), widths=(1.4, 1))
    names = [*_COUNTED.split()] if is_history else [*frame.columns[frame.notna().any()]]
    return table.only(*names)


def blocks(shares: BlockShares) -> Table:
    """Return the fate of zeros and weights by block, as drawn in columns."""
    columns = columns_of(
        "name weight_before removed zeros kept revived new share",
        {"name": name_format(80), "removed": COUNT, "zeros": COUNT, "share": SHARE},
        name=head("block"),
        zeros=head("zeros_before"),
        share=blocks_axis(shares),
    )
    values = shares.rows.assign(name=block_names(shares))
    has_zeros = values[["zeros", "new"]].any(axis=None)
    caption = say("caption.pair_blocks" if has_zeros else "caption.pair_blocks_removed")
    table = table_of("blocks", caption, columns, values, widths=(1.2, 1))
    return table if has_zeros else table.only("name", "weight_before", "removed", "share")


def timeline(study: StudyFigures) -> Table:
    """Return the fate of the pruned weights, and new zeros, by group and step."""
    frame = fate_shares(study.facts.table("history"), "step", "group")
    frame = frame.assign(group=frame["group"].map(group_name))
    columns = "step pruned kept revived new kept_share"
    return table_of("timeline", say("caption.timeline"), columns, frame, title="group")


def history_map(study: StudyFigures) -> Table:
    """Return the shares of the pruned weights that are zero, by step and place."""
    frame = kept_by_place(study.facts.table("history"), study.layers)
    wide = frame.pivot(index="place", columns="step", values="kept_share")
    wide = wide.loc[frame["place"].unique()].rename_axis("module_name").rename(columns=str)
    return wide_table("history_map", say("caption.history_map"), wide, SHARE)


def losses(study: StudyFigures, limit: int) -> Table | None:
    """Return the modules that lost most zeros; None if none lost any."""
    frame = module_losses(study.facts.table("history"))
    if frame.empty:
        return None
    first, keys = frame.head(limit), ("caption.losses", "caption.losses_first")
    names = "module_name pruned revived kept_share seen new n_m_kept"
    columns = columns_of(names, {"seen": COUNT})
    table = table_of(
        "losses", caption_of(*keys, len(first), len(frame)), columns, first,
        note=say("table_note.losses"), widths=(2, 0),
    )  # fmt: skip
    return table.only(*first.columns[first.notna().any()])


def _listed(numbers: Sequence[int], limit: int) -> str:
    """List numbers, neighbors as a span, and how many follow after so many spans."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if numbers else []
    spans = [(int(run[0]), int(run[-1])) for run in runs]
    listed = [
        count(first) if first == last else f"{count(first)}–{count(last)}"
        for first, last in spans[:limit]
    ]
    if more := sum(last - first + 1 for first, last in spans[limit:]):
        listed.append(say("format.count_more", count=more))
    return ", ".join(listed)


def removed(study: StudyFigures, limit: int, spans: int = _LISTED) -> Table | None:
    """Return the removed parts of the base, a row per kind and module, at most `limit` rows."""
    frame = study.facts.table("removed")
    if frame.empty:
        return None
    parts = frame.groupby(["kind", "module"], sort=False)
    sums = dict.fromkeys(_REMOVED.split(), "sum")
    rows = parts.agg({"among": "first", "certainty": "min", **sums}).assign(gone=parts.size())
    indices = (sorted(map(int, rows["index"].dropna())) for _, rows in parts)
    rows["numbers"] = [_listed(numbers, spans) or None for numbers in indices]
    rows = rows.reset_index()
    rows["kind"] = [display_name("kind", kind) for kind in rows["kind"]]
    columns = columns_of(
        f"kind module gone among numbers certainty {_REMOVED}",
        {"kind": WORDS, "module": name_format(200), "numbers": WORDS},
        gone=say("column.removed_head"),
        numbers=say("column.indices_in_base"),
    )
    first, keys = rows.head(limit), ("caption.removed_parts", "caption.removed_parts_first")
    caption = caption_of(*keys, len(first), len(rows))
    options: dict[str, Any] = {"style": "sortable", "widths": (0.8, 1.6, 0, 0, 1.4, 0)}
    return table_of("removed", caption, columns, first, **options)


def small(study: StudyFigures, limit: int = 20) -> list[Table]:
    """Return the tables of a terminal: removed parts, and the fate of zeros."""
    gone = removed(study, limit, _SOME)
    parts = [] if gone is None else [gone.only("module", "gone", "among", "numbers", "weights")]
    kept = survival(study)
    if study.facts.table("survival")[["kept", "revived", "new"]].fillna(0).to_numpy().any():
        parts.append(kept.only("compared", "kept", "revived", "new", "kept_share", "iou"))
    return parts
