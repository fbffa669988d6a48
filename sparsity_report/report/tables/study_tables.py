"""Tables of studies."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from sparsity_report.report.tables import column_heads
from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.column_heads import columns_of, side_by_side, wide_table
from sparsity_report.report.tables.table_model import Body, Cell, Column, Row, Table, table_of
from sparsity_report.sparse.shares import zero_shares
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.heads_experts import Part
from sparsity_report.study.derived.paired_scores import DISTANCES, Ends, distance, ranked_parts
from sparsity_report.study.derived.protocol_scores import PROTOCOL
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import part_name
from sparsity_report.words.sentences import say

_LETTERS = 2000  # of a text written by a model
_TEXTS = 40  # about as many continuations
_SMALL = 0.005  # share of the parameters below which a group without zeros has no row
# Widths on paper of the first column and of the others, which are as wide as their text.
_FIRST = (1, 0)
# Label and denominator by part.
_SPARSITIES = {
    "prunable": ("sparsity.prunable", "sparsity.prunable_note"),
    "non_embedding": ("sparsity.non_embedding", "sparsity.non_embedding_note"),
    "model": ("sparsity.model", "sparsity.model_note"),
}
_INSIDE = {"heads": "caption.zeros_by_head", "experts": "caption.zeros_by_expert"}


def models(study: Study) -> Table:
    """Return the models that were counted, and of two checkpoints which is the base."""
    keys, prints = "model architecture source fingerprint", say("column.weights_fingerprint")
    columns, values = columns_of(keys, (1, 1, 1.4, 0), fingerprint=prints), study.variants
    if study.matches is None:
        values = values.drop_duplicates("fingerprint")
    else:
        columns = [*columns_of("variant", (0.7,)), *columns]
    return table_of("models", say("caption.counted_weights"), columns, values, "facts")


def variants(study: Study) -> Table:
    """Return the pruning and the layout of each variant."""
    keys = "variant layout method asked_sparsity threshold fingerprint"
    columns = columns_of(keys, _FIRST, fingerprint=say("explorer.column_weights"))
    return table_of("variants", say("caption.variants"), columns, study.variants, "facts")


def totals(study: Study) -> Table:
    """Return the three sparsities and the costs, one column per variant."""
    by_variant = [
        {**row, "bits_per_weight": study.facts.bits_per_weight(row["variant"])}
        for row in cells.plain_rows(study.totals)
    ]
    if gone := {f"gone_{part}": share for part, share in study.facts.base_shares.items()}:
        by_variant[1] |= gone

    def row(key: str, label: str = "", note: str = "", style: str = "") -> Row:
        kind = cells.share(2) if style == "lead" else cells.kind_of(key)
        first = Cell(label or column_heads.head_of(key), cells.WORDS, note)
        return Row((first, *(Cell(each.get(key), kind) for each in by_variant)), style, key=key)

    shares = []
    for part, (label, note) in _SPARSITIES.items():
        prefix = "" if part == "model" else f"{part}_"
        shares += [
            row(f"sparsity_{part}", say(label), say(note), "lead"),
            row(f"{prefix}total", say("label.of_total"), style="part"),
            row(f"{prefix}nonzero", say("label.nonzero"), style="part"),
        ]
        if gone:
            shares.append(row(f"gone_{part}", column_heads.head_of("gone_of_base"), "", "lead"))
    labels = _unpacked(study)
    costs = [row(key, labels.get(key, ""), note) for key, note in _costs(study)]
    names = [row["variant"] for row in by_variant]
    columns = [Column("", "", cells.WORDS, width=6.4 - min(4, len(names))), *side_by_side(names)]
    style = "totals wide" if len(names) > 5 else "totals"
    bodies = (Body(tuple(shares)), Body(tuple(costs)))
    return Table("totals", say("caption.totals"), tuple(columns), bodies, style)


def _costs(study: Study) -> Iterator[tuple[str, str]]:
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


def groups(study: Study) -> Table:
    """Return the groups of each variant; small groups without zeros in any variant are left out."""
    columns = columns_of(
        "group modules total nonzero sparsity flops_per_token useful_flops_per_token "
        f"{_sizes(study)} param_frac",
        _FIRST,
        sparsity=say("column.zero_share_of_parameters"),
        **_unpacked(study),
    )
    all_of = study.groups.groupby("group", sort=False)
    kept = (all_of["param_frac"].max() >= _SMALL) | (all_of["sparsity"].max() > 0)
    rows = study.groups[study.groups["group"].map(kept)]
    frames = rows.groupby("variant", sort=False)
    groups = ((clip(title, 80), rows) for title, rows in frames)
    return cells.grouped("groups", say("caption.groups_all_variants"), columns, groups, "groups")


def layers_compared(study: Study) -> Table:
    """Return all modules with the zeros of each distinct pruning, else of the first variant."""
    variants = [*study.side_by_side] or [study.facts.headline]
    frame = study.layers[study.layers["variant"].isin(variants)]
    frame = frame[frame["weight_total"] > 0]
    shares = zero_shares(frame["weight_total"], frame["weight_nonzero"])
    wide = frame.assign(share=shares).pivot(index="module_name", columns="variant", values="share")
    rows = frame[frame["variant"] == variants[0]].drop_duplicates("module_name")
    shared = rows[["module_name", "group", "shape", "weight_total"]].set_index("module_name")
    wide = shared.join(wide[variants].rename(columns=column_heads.key_of_name)).reset_index()
    columns = columns_of(
        "module_name group shape weight_total", _FIRST, {"module_name": cells.name(2000)}
    )
    columns += side_by_side(variants, cells.SHARE)
    return table_of("layers", say("caption.layers_compared"), columns, wide, "layers sortable")


def unusual(study: Study, variant: str) -> Table | None:
    """Return the matrices furthest from a Gaussian; None where no expectation is known."""
    frame = study.facts.unusual(variant)
    if frame is None:
        return None
    columns = columns_of(
        "parameter sparsity expected_sparsity mean_abs std zero_rows zero_columns n_m fill_8",
        _FIRST,
        sparsity=say("column.observed"),
    )
    expert, pairs = say("kind.expert"), zip(frame["n_m"], frame["n_m_share"], strict=True)
    n_m: Any = [None if pd.isna(kind) else (kind, complying) for kind, complying in pairs]
    notes = ["" if pd.isna(place) else f"{expert} {place}" for place in frame["expert"]]
    frame = frame.assign(n_m=n_m, parameter_note=notes)
    caption = say("caption.unusual_matrices", variant=variant)
    return replace(table_of("unusual", caption, columns, frame), fold=8)


def storage(study: Study, variant: str) -> Table:
    """Return the bytes of the prunable weights and of the model in every layout."""
    weights, model = say("card.prunable_weights"), say("name.whole_model")
    over = ("", weights, weights, model, model, "", "")
    columns = columns_of("layout bytes ratio model_bytes model_ratio break_even lossless")
    columns = [c._replace(over=head) for c, head in zip(columns, over, strict=True)]
    of_model = study.facts.storage(variant, "model")[["bytes", "ratio"]].add_prefix("model_")
    frame = study.facts.storage(variant).join(of_model).reset_index()
    unpacked = study.facts.unpacked_dtypes(variant)
    key = "caption.storage_unpacked" if unpacked else "caption.storage"
    caption = say(key, variant=variant, dtypes=unpacked)
    return table_of("storage", caption, columns, frame[frame["bytes"].notna()])


def curve_caption(study: Study) -> str:
    """Return the caption of the curves of bytes against sparsity."""
    unpacked = study.facts.unpacked_dtypes(study.facts.baseline)
    key = "caption.layout_bytes_unpacked" if unpacked else "caption.layout_bytes"
    return say(key, dtypes=unpacked)


def zeros_map(study: Study, variant: str) -> Table:
    """Return the shares of zeros of a variant's heat map, block by projection."""
    frame, grid = study.facts.cells(variant), study.facts.grid(variant)
    key = "caption.zeros_map" if frame["layers"].max() == 1 else "caption.zeros_map_merged"
    caption = say(key, variant=variant)
    return column_heads.by_cell("map", caption, grid, frame, "sparsity", cells.SHARE)


def inside(variant: str, part: Part) -> Table:
    """Return zeros of heads or experts, block by number."""
    wide = part.rows.pivot(index="block", columns="part", values="sparsity").rename(columns=str)
    key = _INSIDE[part.key]
    caption = say(key, variant=variant, projection=part.projection)
    return wide_table(part.key, caption, wide, cells.SHARE)


def quality(study: Study) -> Table | None:
    """Return perplexities, accuracies and divergences from dense; None where none were measured.

    The caption has the text and the protocol if all rows share them, else columns have.
    """
    frame = study.quality
    if frame is None or frame.empty:
        return None
    about = passage(study)
    kinds = [cells.perplexity(study.facts.vocabulary(name)) for name in frame["variant"]]
    rows = [
        {
            **row,
            "windows": (row["window"], row["stride"]),
            "perplexity_kind": kind,
            "realised": ratio_to_dense(study, row),
            **{figure: distance(row, figure) for figure in DISTANCES},
        }
        for row, kind in zip(cells.plain_rows(frame), kinds, strict=True)
    ]
    known = [key for key in ("realised", *DISTANCES) if any(row[key] for row in rows)]
    known += ["flips"] if frame["kl"].notna().any() else []
    further = "" if about else "protocol text text_fingerprint scored windows dtype"
    heads = {"realised": say("results.perplexity_ratio")}
    keys = f"variant sparsity perplexity top1 {' '.join(known)} {further}"
    formats = {
        figure: cells.estimates(cells.kind_of(figure), (row[figure] for row in rows))
        for figure in DISTANCES
    }
    columns = columns_of(keys, (1.6, 1), formats, **heads)
    caption = say("caption.quality_passage" if about else "caption.quality", passage=about)
    if about and "realised" in known:
        caption += " " + paired_note(study, rows[0], known)
    return table_of("quality", caption, columns, rows)


def ratio_to_dense(study: Study, row: Mapping[str, Any]) -> Ends | None:
    """Return a perplexity ÷ that of dense with its interval; None if it is unknown."""
    contrast = study.facts.paired(row).from_dense(row["variant"])
    return contrast.ratio if contrast else None


def paired_note(study: Study, row: Mapping[str, Any], columns: Collection[str]) -> str:
    """Return how the intervals of columns by the protocol of a row were computed."""
    contrasts = study.facts.paired(row).contrasts
    block = next(iter(contrasts.values())).nll.block
    note = say("caption.paired", number=len(contrasts), span=row["span"], block=block)
    if "perplexity_note" in columns:
        note += " " + say("caption.paired_lowest")
    return f"{note} {say('caption.paired_distances')}" if {*DISTANCES} & {*columns} else note


def passage(study: Study) -> str | None:
    """Return the text and protocol of all perplexities as a clause; None if they differ."""
    if study.quality is None:
        return None
    different = study.quality[[*PROTOCOL]].drop_duplicates()
    if len(different) > 1:
        return None
    known = records(different)[0]
    text = known["text"], known["text_fingerprint"]
    return say("caption.passage", **known | {"text": text, "dtype": short_name(known["dtype"])})


def continuations(study: Study) -> Table | None:
    """Return continuations of each prompt by variant; None without any."""
    frame = study.continuations
    if frame is None or frame.empty:
        return None
    columns = columns_of("variant continuation", (1, 3), {"continuation": cells.name(_LETTERS)})
    prompts = frame["prompt"].unique()
    first = prompts[: max(1, _TEXTS * len(prompts) // len(frame))]
    shown = frame[frame["prompt"].isin(first)]
    groups = (
        (clip(prompt, _LETTERS), rows) for prompt, rows in shown.groupby("prompt", sort=False)
    )
    caption = column_heads.caption_of(
        "caption.continuations", "caption.continuations_first", len(shown), len(frame)
    )
    return cells.grouped("continuations", caption, columns, groups, "facts")


def sensitivity(study: Study) -> Table | None:
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
    kinds = {"perplexity": cells.perplexity(study.facts.vocabulary(study.facts.baseline))}
    named = frame.assign(part=[part_name(by, part) for by, part in parts])
    return table_of("sensitivity", caption, columns_of(keys, (1.6, 1), kinds), named)


def _sizes(study: Study) -> str:
    """Return the columns of bytes that tables of a study have."""
    return "file_bytes stored_bytes" if study.facts.packings() else "stored_bytes"


def _unpacked(study: Study) -> dict[str, str]:
    """Return the head of stored bytes where some are of packed weights."""
    return {"stored_bytes": say("column.stored_bytes_unpacked")} if study.facts.packings() else {}
