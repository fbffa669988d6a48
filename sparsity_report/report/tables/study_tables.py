"""Tables of studies."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import product
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
from sparsity_report.study.derived.paired_scores import (
    DISTANCES,
    Ends,
    distance,
    distance_mean,
    ranked_parts,
)
from sparsity_report.study.derived.protocol_scores import PROTOCOL, by_protocol
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.schema import COLUMNS, DENOMINATORS, Column, columns_of
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words import value_formats as formats
from sparsity_report.words.display_names import part_name
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
    return table_of("groups", say("caption.groups_all_variants"), columns, rows, **options)


def storage(study: StudyFigures, variant: str) -> Table:
    """Return the bytes of the prunable weights and of the model in every layout.

    BSR has rows where its blocks make it smaller than dense.
    """
    weights, model = say("card.prunable_weights"), say("name.whole_model")
    unpacked = study.facts.unpacked_dtypes(variant)
    ratio = say("column.ratio_to_file" if unpacked else "column.ratio_to_dense")
    texts = {"ratio_to_dense": ratio, "model_ratio": ratio}
    sizes = columns_of("bytes ratio_to_dense model_bytes model_ratio", **texts)
    scopes = zip(sizes, (weights, weights, model, model), strict=True)
    labels = {column.name: f"{scope}, {column.label}" for column, scope in scopes}
    of_model = study.facts.storage(variant, "model")[["bytes", "ratio", "break_even"]]
    frame = study.facts.storage(variant).drop(columns="break_even")
    frame = frame.join(of_model.rename(columns={"bytes": "model_bytes", "ratio": "model_ratio"}))
    frame = frame.reset_index().rename(columns={"ratio": "ratio_to_dense"})
    dense = frame.loc[frame["layout"].eq("dense"), "bytes"].max()
    is_shown = ~frame["layout"].str.startswith("bsr") | (frame["bytes"] < dense)
    caption = say("caption.storage", variant=variant)
    if unpacked:
        caption += " " + say("caption.storage_unpacked", dtypes=unpacked)
    caption += " " + say("caption.storage_note", base=ratio.removeprefix("÷ "))
    columns = columns_of(f"layout {' '.join(labels)} break_even lossless", **labels)
    return table_of("storage", caption, columns, frame[frame["bytes"].notna() & is_shown])


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
    shared = passage(study)
    rows = [
        {
            **row,
            "windows": (row["window"], row["stride"]),
            "perplexity": perplexity_cell(study, row["variant"], row["perplexity"]),
            "perplexity_vs_dense": _compared(study, row),
            **{figure: distance(row, figure, study.facts.paired(row)) for figure in DISTANCES},
        }
        for row in plain_rows(frame)
    ]
    known = [key for key in ("perplexity_vs_dense", *DISTANCES) if any(row[key] for row in rows)]
    known += ["flips"] if frame["kl"].notna().any() else []
    further = "" if shared else "protocol text text_fingerprint scored windows dtype"
    keys = f"variant sparsity perplexity top1 {' '.join(known)} {further}"
    distances = {
        figure: formats.estimates(COLUMNS[figure].format, (row[figure] for row in rows))
        for figure in DISTANCES
    }
    columns = columns_of(keys, distances)
    caption = say("caption.quality_passage" if shared else "caption.quality", passage=shared)
    if shared and study.facts.paired(rows[0]).contrasts:
        caption += " " + paired_note(study, rows[0], known)
    return table_of("quality", caption, columns, rows)


def perplexity_cell(study: StudyFigures, variant: str, value: Any, note: str = "") -> Cell:
    """Return a perplexity in the format of the vocabulary of a variant's model."""
    return Cell(value, note, formats.perplexity(study.facts.vocabulary(variant)))


def ratio_to_dense(study: StudyFigures, row: Mapping[str, Any]) -> Ends | None:
    """Return a perplexity ÷ that of dense with its interval; None if it is unknown."""
    contrast = study.facts.paired(row).from_dense(row["variant"])
    return contrast.ratio if contrast else None


def _compared(study: StudyFigures, row: Mapping[str, Any]) -> Ends | Cell | None:
    """Return the ratio of a perplexity to that of dense, or that the weights are the same."""
    is_other = row["variant"] != row["against"]
    if is_other and study.facts.paired(row).are_alike(row["variant"], row["against"]):
        return Cell(say("results.same_weights"), format=formats.WORDS)
    return ratio_to_dense(study, row)


def paired_note(study: StudyFigures, row: Mapping[str, Any], columns: Collection[str]) -> str:
    """Return how the intervals of columns by the protocol of a row were computed."""
    pairs = study.facts.paired(row)
    means = [contrast.nll for contrast in pairs.contrasts.values()]
    distances = {*DISTANCES} & {*columns}
    scores = next(s for s in map(records, by_protocol(study.quality))
                  if study.facts.paired(s[0]) is pairs)  # fmt: skip
    others = [each for each in scores if not pairs.are_alike(each["variant"], each["against"])]
    means += filter(None, (distance_mean(*each) for each in product(others, distances)))
    blocks, needed = ([getattr(mean, key) for mean in means] for key in ("block", "needed"))
    note = say("caption.paired", correction=pairs.correction, span=row["span"], blocks=blocks)
    if needed != blocks:
        note += " " + say("caption.paired_dependent", needed=max(needed))
    if "perplexity_note" in columns:
        note += " " + say("caption.paired_lowest")
    return f"{note} {say('caption.paired_distances')}" if distances else note


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
    caption = say("caption.sensitivity")
    if (ranks := ranked_parts(frame)) is not None:
        frame = frame.assign(**{str(name): ranks[name].to_numpy() for name in ranks})
        keys = keys.replace("nll_increase", "nll_increase increase_low increase_high rank")
        caption += " " + say("caption.sensitivity_ranks")
    parts = zip(frame["by"], frame["part"], strict=True)
    form = formats.perplexity(study.facts.vocabulary(study.facts.baseline))
    named = frame.assign(part=[part_name(by, part) for by, part in parts])
    return table_of("sensitivity", caption, columns_of(keys, {"perplexity": form}), named)


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
