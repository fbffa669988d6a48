"""Tables of studies."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.report.tables.table_model import (
    Body,
    Cell,
    Row,
    Table,
    caption_of,
    plain_rows,
    side_by_side,
    table_of,
    wide_table,
)
from sparsity_report.study.derived.heads_experts import Part
from sparsity_report.study.derived.paired_scores import ranked_parts
from sparsity_report.study.derived.protocol_scores import PROTOCOL
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.schema import COLUMNS, DENOMINATORS, Column, columns_of
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words import value_formats as formats
from sparsity_report.words.display_names import layout_name, part_name
from sparsity_report.words.sentences import say

_LETTERS = 2000  # of a text written by a model
_TEXTS = 40  # about as many continuations
_SMALL = 0.005  # share of the parameters below which a group without zeros has no row
# Widths on paper of the first column and of the others, which are as wide as their text.
_FIRST = (1, 0)
# Columns of totals in a thesis.
_KIT = "sparsity_prunable sparsity_non_embedding sparsity_model stored_bytes flops_per_token"


def models(study: StudyFigures) -> Table:
    """Return the models that were counted, and of two checkpoints which is the base."""
    options: dict[str, Any] = {"style": "facts", "widths": (1, 1, 1.4, 0)}
    names = "model architecture source weights_fingerprint"
    values = study.variants.assign(weights_fingerprint=study.variants["fingerprint"])
    if study.matches is None:
        values = values.drop_duplicates("fingerprint")
    else:
        names, options["widths"] = f"variant {names}", (0.7, 1, 1, 1.4, 0)
    return table_of("models", say("caption.counted_weights"), names, values, **options)


def variants(study: StudyFigures) -> Table:
    """Return the pruning and the layout of each variant."""
    names = "variant layout method asked_sparsity threshold fingerprint"
    columns = columns_of(names, fingerprint=say("explorer.column_weights"))
    options: dict[str, Any] = {"style": "facts", "widths": _FIRST}
    return table_of("variants", say("caption.variants"), columns, study.variants, **options)


class Total(NamedTuple):
    """A row of the totals: a column of them, a note on what it counts, and its style."""

    column: Column
    note: str = ""
    style: str = ""


def total_rows(study: StudyFigures) -> list[Total]:
    """Return the three sparsities with their counts, then the costs."""
    rows = []
    for part in DENOMINATORS:
        prefix = "" if part == "model" else f"{part}_"
        share: dict[str, Any] = {"format": formats.share(2), "text": say(f"sparsity.{part}")}
        note = say(f"sparsity_note.{part}")
        rows.append(Total(replace(COLUMNS[f"sparsity_{part}"], **share), note, "lead"))
        for count, key in (("total", "label.of_total"), ("nonzero", "label.nonzero")):
            rows.append(Total(replace(COLUMNS[f"{prefix}{count}"], text=say(key)), "", "part"))
        if study.facts.base_shares:
            share["text"] = COLUMNS["gone_of_base"].label
            rows.append(Total(Column(f"gone_{part}", **share), "", "lead"))
    costs = dict(_costs(study))
    columns = columns_of(" ".join(costs), **unpacked_labels(study))
    return [*rows, *map(Total, columns, costs.values())]


def totals(study: StudyFigures) -> Table:
    """Return the three sparsities and the costs, one column per variant."""
    figures = by_variant(study)
    rows: dict[bool, list[Row]] = {True: [], False: []}
    for column, note, style in total_rows(study):
        values = (Cell(each[column.name], format=column.format) for each in figures)
        first = Cell(column.label, note, formats.WORDS)
        rows[bool(style)].append(Row((first, *values), style))
    names = [row["variant"] for row in figures]
    columns = (Column("", format=formats.WORDS), *side_by_side(names))
    style = "totals wide" if len(names) > 5 else "totals"
    bodies = tuple(Body(tuple(part)) for part in rows.values())
    widths = (6.4 - min(4, len(names)), 1)
    return Table("totals", say("caption.totals"), columns, bodies, style, widths)


def totals_by_variant(study: StudyFigures, caption: str) -> Table:
    """Return the three sparsities and the main costs, one row per variant."""
    rows = by_variant(study)
    names = distinct_names([row["variant"] for row in rows])
    named = [{**row, "variant": name} for row, name in zip(rows, names, strict=True)]
    columns = [column for column, *_ in total_rows(study) if column.name in _KIT.split()]
    return table_of("totals", caption, [COLUMNS["variant"], *columns], named)


def by_variant(study: StudyFigures) -> list[dict[str, Any]]:
    """Return the totals of each variant by column; None where unknown."""
    gone = {f"gone_{part}": share for part, share in study.facts.base_shares.items()}
    rows: list[dict[str, Any]] = [
        {
            **row,
            **dict.fromkeys(gone),
            "bits_per_weight": study.facts.bits_per_weight(row["variant"]),
        }
        for row in plain_rows(study.totals)
    ]
    if gone:
        rows[1] |= gone
    return rows


def _costs(study: StudyFigures) -> Iterator[tuple[str, str]]:
    """Yield columns of pruning, bytes and work per token, each with a note on what it counts."""
    if study.matches is None:
        keys = ("asked_sparsity", "zeros_before", "newly_zeroed", "threshold")
        yield from dict.fromkeys(keys, "").items()
    if study.facts.packings():
        yield "file_bytes", say("column.file_bytes_note")
        yield "bits_per_weight", say("column.bits_per_weight_note")
    yield "stored_bytes", ""
    yield "flops_per_token", say("column.flops_per_token_note")
    yield "useful_flops_per_token", say("column.useful_flops_note")
    if study.totals["flops_per_sequence"].fillna(0).any():
        yield "flops_per_sequence", say("column.flops_per_sequence_note")
    if study.context:
        note = say("column.attention_flops_note", positions=study.context)
        yield "attention_flops_per_token", note
    if (study.totals["active_total"] != study.totals["total"]).any():
        yield "active_total", say("column.active_parameters_note")


def group_columns(study: StudyFigures) -> str:
    """Return the names of the columns of groups."""
    sizes = "file_bytes stored_bytes" if study.facts.packings() else "stored_bytes"
    counts = "modules total nonzero sparsity flops_per_token useful_flops_per_token"
    return f"group {counts} {sizes} param_frac"


def groups(study: StudyFigures) -> Table:
    """Return the groups of each variant; small groups without zeros in any variant are left out."""
    labels = {"sparsity": say("column.zero_share_of_parameters"), **unpacked_labels(study)}
    columns = columns_of(group_columns(study), **labels)
    all_of = study.groups.groupby("group", sort=False)
    kept = (all_of["param_frac"].max() >= _SMALL) | (all_of["sparsity"].max() > 0)
    rows = study.groups[study.groups["group"].map(kept)]
    names = [*rows["variant"].unique()]
    rows = rows.replace({"variant": dict(zip(names, distinct_names(names, 80), strict=True))})
    options: dict[str, Any] = {"title": "variant", "style": "groups", "widths": _FIRST}
    options["note"] = say("table_note.groups")
    return table_of("groups", say("caption.groups_all_variants"), columns, rows, **options)


def storage(study: StudyFigures, variant: str) -> Table:
    """Return the bytes of the prunable weights and of the model in the layouts that are chosen.

    BSR has rows where its blocks make it smaller than dense, CSR has 64-bit indices where 32 bits
    do not suffice.
    """
    unpacked = study.facts.unpacked_dtypes(variant)
    ratio = say("column.ratio_to_file" if unpacked else "column.ratio_to_dense")
    labels = {"bytes": say("label.prunable_bytes"), "ratio_to_dense": ratio}
    model = study.facts.storage(variant, "model")[["bytes", "ratio", "break_even"]]
    frame = model.rename(columns={"bytes": "model_bytes", "ratio": "ratio_to_dense"})
    frame = frame.join(study.facts.storage(variant)[["bytes", "lossless"]])
    known, dense = frame["bytes"].dropna(), frame["bytes"].get("dense", 0)
    is_hidden = known.index.str.startswith("bsr") & (known >= dense)
    is_hidden |= known.index.isin(["csr_int64"]) & ("csr_int32" in known)
    rows = frame.loc[known.index[~is_hidden]].reset_index()
    note = say("table_note.storage", base=ratio.removeprefix("÷ "))
    if unpacked:
        note = say("table_note.storage_unpacked", dtypes=unpacked) + " " + note
    if lossy := [layout_name(each) for each in rows.loc[rows["lossless"].eq(False), "layout"]]:
        note += " " + say("table_note.not_lossless", names=lossy)
    columns = columns_of("layout bytes model_bytes ratio_to_dense break_even", **labels)
    caption = say("caption.storage", share=study.facts.total(variant, "sparsity_prunable"))
    return table_of("storage", caption, columns, rows, note=note)


def zeros_map(study: StudyFigures, variant: str) -> Table:
    """Return the shares of zeros of a variant's heat map, block by projection."""
    frame, grid = study.facts.cells(variant), study.facts.grid(variant)
    key = "caption.zeros_map" if frame["layers"].max() == 1 else "caption.zeros_map_merged"
    caption = say(key, variant=variant)
    wide = frame.pivot(index="block", columns="projection", values="sparsity")
    wide = wide.reindex(index=grid.blocks, columns=grid.projections)
    return wide_table("map", caption, wide, formats.SHARE)


def inside(variant: str, part: Part) -> Table:
    """Return zeros of heads or experts, block by number."""
    wide = part.rows.pivot(index="block", columns="part", values="sparsity").rename(columns=str)
    key = f"caption.zeros_by.{part.key}"
    caption = say(key, variant=variant, projection=part.projection)
    return wide_table(part.key, caption, wide, formats.SHARE)


def quality(study: StudyFigures) -> Table | None:
    """Return perplexities, accuracies and divergences from dense; None where none were measured.

    The caption has the text and the protocol if all rows share them, else columns have.
    """
    frame = study.quality
    if frame is None or frame.empty:
        return None
    shared, rows = passage(study), []
    for row in plain_rows(frame):
        pairs, variant, against = study.facts.paired(row), row["variant"], row["against"]
        contrast: Any = pairs.from_dense(variant)
        ratio = contrast and contrast.ratio
        if pairs.are_alike(variant, against):
            same = Cell(say("results.same_weights"), format=formats.WORDS)
            # A divergence of equal weights is rounding.
            ratio, row["kl"], row["agreement"] = None if variant == against else same, None, None
        form = formats.perplexity(study.facts.vocabulary(variant))
        row |= {"perplexity": Cell(row["perplexity"], format=form), "perplexity_vs_dense": ratio}
        rows.append(row | {"windows": (row["window"], row["stride"])})
    figures = ("perplexity_vs_dense", "kl", "agreement", "flips")
    known = [key for key in figures if any(row.get(key) for row in rows)]
    further = "" if shared else "protocol text text_fingerprint scored windows dtype"
    columns = columns_of(f"variant sparsity perplexity top1 {' '.join(known)} {further}")
    caption = say("caption.quality_passage" if shared else "caption.quality", passage=shared)
    note = paired_note(study, rows[0]) if shared and study.facts.paired(rows[0]).contrasts else ""
    return table_of("quality", caption, columns, rows, note=note)


def paired_note(study: StudyFigures, row: Mapping[str, Any]) -> str:
    """Return how the intervals of perplexities by the protocol of a row were computed."""
    pairs = study.facts.paired(row)
    means = [contrast.nll for contrast in pairs.contrasts.values()]
    blocks, needed = ([getattr(mean, key) for mean in means] for key in ("block", "needed"))
    note = say("table_note.paired", correction=pairs.correction, span=row["span"], blocks=blocks)
    if needed != blocks:
        note += " " + say("table_note.paired_dependent", needed=max(needed))
    return note


def passage(study: StudyFigures) -> str | None:
    """Return the text and protocol of all perplexities as a clause; None if they differ."""
    if study.quality is None:
        return None
    different = study.quality[[*PROTOCOL]].drop_duplicates()
    if len(different) > 1:
        return None
    known = records(different)[0]
    text = known["text"], known["text_fingerprint"]
    return say("caption.passage", **known | {"text": text, "dtype": short_name(known["dtype"])})


def continuations(study: StudyFigures) -> Table | None:
    """Return continuations of each prompt by variant; None without any."""
    frame = study.continuations
    if frame is None or frame.empty:
        return None
    columns = columns_of("variant continuation", {"continuation": formats.name_format(_LETTERS)})
    prompts = frame["prompt"].unique()
    first = prompts[: max(1, _TEXTS * len(prompts) // len(frame))]
    texts = frame[frame["prompt"].isin(first)]
    texts = texts.assign(prompt=[clip(prompt, _LETTERS) for prompt in texts["prompt"]])
    keys = ("caption.continuations", "caption.continuations_first")
    caption = caption_of(*keys, len(texts), len(frame))
    options: dict[str, Any] = {"title": "prompt", "style": "facts", "widths": (1, 3)}
    return table_of("continuations", caption, columns, texts, **options)


def sensitivity(study: StudyFigures) -> Table | None:
    """Return the cost of pruning one part alone; None where it was not measured."""
    frame = study.sensitivity
    if frame is None or frame.empty:
        return None
    keys = "part weight_total sparsity perplexity nll_increase top1_drop global_sparsity"
    note = ""
    if (ranks := ranked_parts(frame)) is not None:
        frame = frame.assign(**{str(name): ranks[name].to_numpy() for name in ranks})
        keys = keys.replace("nll_increase", "nll_increase increase_low increase_high rank")
        note = say("table_note.sensitivity")
    parts = zip(frame["by"], frame["part"], strict=True)
    form = formats.perplexity(study.facts.vocabulary(study.facts.baseline))
    named = frame.assign(part=[part_name(by, part) for by, part in parts])
    columns = columns_of(keys, {"perplexity": form})
    return table_of("sensitivity", say("caption.sensitivity"), columns, named, note=note)


def unpacked_labels(study: StudyFigures) -> dict[str, str]:
    """Return the head of stored bytes where some are of packed weights."""
    return {"stored_bytes": say("column.stored_bytes_unpacked")} if study.facts.packings() else {}


def expert_map(rows: pd.DataFrame, figure: str, variant: str) -> Table:
    """Return a figure of :func:`.expert_use.router_use`, expert by block."""
    rows = rows[rows["block"].notna()]
    wide = rows.pivot(index="expert", columns="block", values=figure).rename(columns=str)
    removed = int((~rows["is_kept"]).sum())
    caption = say(f"caption.{figure}", variant=variant, removed=removed, experts=len(rows))
    return wide_table(figure, caption, wide, formats.TIMES)
