"""Tables of studies."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from sparsity_report.draw.theme import FILED
from sparsity_report.findings.published_kernels import PUBLISHED
from sparsity_report.report.tables.column_heads import (
    by_cell,
    columns_of,
    head_of,
    key_of_name,
    side_by_side,
)
from sparsity_report.report.tables.table_model import (
    COUNT,
    FIGURE,
    POINTS,
    SCORE,
    SHARE,
    TIMES,
    WORDS,
    Body,
    Cell,
    Column,
    Row,
    Table,
    kind_of,
    name,
    plain_rows,
    rows_of,
    share,
    table_of,
)
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.policy_comparison import ALWAYS, USEFUL
from sparsity_report.study.derived.protocol_scores import PROTOCOL
from sparsity_report.study.derived.zero_shot import SEVEN, other_scores, seven_tasks
from sparsity_report.study.harness_results import KEYS
from sparsity_report.study.layers import records
from sparsity_report.study.zstd_sizes import LEVEL
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words.column_titles import head
from sparsity_report.words.display_names import layout_name, part_name
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import count
from sparsity_report.words.sentences import say

_CELL = ["block", "projection"]  # of a heat map
_LETTERS = 2000  # of a text written by a model
# Widths on paper of the first column and of the others, which are as wide as their text.
_FIRST = (1, 0)
# Label and denominator by part.
_SPARSITIES = {
    "prunable": ("sparsity.prunable", "sparsity.prunable_note"),
    "non_embedding": ("sparsity.non_embedding", "sparsity.non_embedding_note"),
    "model": ("sparsity.model", "sparsity.model_note"),
}
_EXTREMES = {
    "layers_most": "caption.most_sparse_layers",
    "layers_least": "caption.least_sparse_layers",
}


def models(study: Comparison) -> Table:
    """Return the models that were counted."""
    keys, prints = "model architecture source fingerprint", say("column.weights_fingerprint")
    columns = columns_of(keys, (1, 1, 1.4, 0), fingerprint=prints)
    values = study.variants.drop_duplicates("fingerprint")
    return table_of("models", say("caption.counted_weights"), columns, values, "facts")


def variants(study: Comparison) -> Table:
    """Return the pruning and the layout of each variant."""
    keys = "variant layout method asked_sparsity threshold fingerprint"
    columns = columns_of(keys, _FIRST, fingerprint=say("explorer.column_weights"))
    return table_of("variants", say("caption.variants"), columns, study.variants, "facts")


def totals(study: Comparison) -> Table:
    """Return the three sparsities and the costs, one column per variant."""
    by_variant = [
        {**row, "bits_per_weight": study.facts.bits_per_weight(row["variant"])}
        for row in plain_rows(study.totals)
    ]

    def row(key: str, label: str = "", note: str = "", style: str = "") -> Row:
        kind = share(2) if style == "lead" else kind_of(key)
        cells = (Cell(of_variant[key], kind) for of_variant in by_variant)
        return Row((Cell(label or head_of(key), WORDS, note), *cells), style, key=key)

    shares = []
    for part, (label, note) in _SPARSITIES.items():
        prefix = "" if part == "model" else f"{part}_"
        shares += [
            row(f"sparsity_{part}", say(label), say(note), "lead"),
            row(f"{prefix}total", say("label.of_total"), style="part"),
            row(f"{prefix}nonzero", say("label.nonzero"), style="part"),
        ]
    costs = [row(key) for key in ("asked_sparsity", "pruned", "threshold")]
    if study.facts.packings():
        costs.append(row("file_bytes", note=say("column.file_bytes_note")))
        costs.append(row("bits_per_weight", note=say("column.bits_per_weight_note")))
    costs.append(row("stored_bytes", _unpacked(study).get("stored_bytes", "")))
    costs += [row(key, note=note) for key, note in _work(study)]
    names = [row["variant"] for row in by_variant]
    columns = [Column("", "", WORDS, width=6.4 - min(4, len(names))), *side_by_side(names)]
    style = "totals wide" if len(names) > 5 else "totals"
    bodies = (Body(tuple(shares)), Body(tuple(costs)))
    return Table("totals", say("caption.totals"), tuple(columns), bodies, style)


def _work(study: Comparison) -> Iterator[tuple[str, str]]:
    """Yield columns of work per token, each with a note on what it counts."""
    yield "flops_per_token", say("column.flops_per_token_note")
    yield "useful_flops_per_token", say("column.useful_flops_note")
    if study.totals["flops_per_sequence"].fillna(0).any():
        yield ("flops_per_sequence", say("column.flops_per_sequence_note"))
    if study.context:
        positions = count(study.context)
        yield ("attention_flops_per_token", say("column.attention_flops_note", positions=positions))
    if (study.totals["active_total"] != study.totals["total"]).any():
        yield "active_total", say("column.active_parameters_note")


def groups(study: Comparison, variant: str | None = None) -> Table:
    """Return the groups of one variant, or of each under its name."""
    columns = columns_of(
        "group modules total nonzero sparsity flops_per_token useful_flops_per_token "
        f"{_sizes(study)} param_frac",
        _FIRST,
        sparsity=say("column.zero_share_of_parameters"),
        **_unpacked(study),
    )
    if variant is not None:
        frame = study.groups[study.groups["variant"] == variant]
        caption = say("caption.groups_of_variant", variant=short_name(variant))
        return table_of("groups", caption, columns, frame, "groups")
    caption = say("caption.groups_all_variants")
    bodies = (
        Body(rows_of(columns, rows), clip(title, 80))
        for title, rows in study.groups.groupby("variant", sort=False)
    )
    return Table("groups", caption, tuple(columns), tuple(bodies), "groups")


def layers(study: Comparison, variant: str) -> Table:
    """Return all modules of a variant."""
    frame, tied = study.facts.layers(variant), say("column.tied_to")
    rounded = ("expected_rounding_sparsity", "near_zero_share")
    columns = columns_of(
        "module_name group shape stored_as total nonzero sparsity "
        f"{' '.join(key for key in rounded if frame[key].notna().any())} flops_per_token "
        f"useful_flops_per_token {_sizes(study)}",
        _FIRST,
        {"module_name": name(2000)},
        sparsity=say("column.zero_share_of_parameters"),
        **_unpacked(study),
    )
    packings = frame["packing"].fillna("")
    frame = frame.assign(
        stored_as=packings.where(packings == "", packings + " → ")
        + frame["layout"]
        + " "
        + frame["dtype"],
        module_name_note=[
            "" if pd.isna(other) else f"{tied} {clip(other, 2000)}" for other in frame["tied_to"]
        ],
    )
    caption = say("caption.modules_all", number=len(frame), variant=short_name(variant))
    return table_of("layers", caption, columns, frame, "layers sortable")


def modules_compared(study: Comparison) -> Table | None:
    """Return the zeros of every module of prunings side by side; None of fewer than two."""
    if (compared := study.compared) is None:
        return None
    frame = study.layers[study.layers["variant"].isin(compared.variants)]
    wide = frame.pivot(index="module_name", columns="variant", values="sparsity")
    order = study.facts.layers(compared.baseline)["module_name"]
    wide = wide.loc[order, compared.variants].rename(columns=key_of_name).reset_index()
    (module,) = columns_of("module_name")
    columns = [module._replace(kind=name(2000), width=3)]
    columns += side_by_side(compared.variants, SHARE)
    return table_of("modules_compared", say("caption.modules_compared"), columns, wide, "layers")


def extremes(study: Comparison, variant: str, limit: int = 10) -> tuple[Table, Table] | None:
    """Return the most and the least sparse prunable layers; None where no two of them differ."""
    spread = study.facts.spread(variant)
    if spread and SHARE.write(spread.low) == SHARE.write(spread.high):
        return None
    columns = columns_of("module_name weight_total share", _FIRST)
    frames = study.facts.extremes(variant, limit)
    most, least = (
        table_of(key, say(caption, variant=short_name(variant)), columns, frame)
        for (key, caption), frame in zip(_EXTREMES.items(), frames, strict=True)
    )
    return (most, least) if most.rows else None


def unusual(study: Comparison, variant: str) -> Table | None:
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
    caption = say("caption.unusual_matrices", variant=short_name(variant))
    return replace(table_of("unusual", caption, columns, frame), fold=8)


def storage(study: Comparison, variant: str) -> Table:
    """Return the bytes of the prunable weights and of the model in every layout."""
    weights, model = say("card.prunable_weights"), say("name.whole_model")
    over = ("", weights, weights, model, model, "", "")
    columns = columns_of("layout bytes ratio model_bytes model_ratio break_even lossless")
    columns = [c._replace(over=head) for c, head in zip(columns, over, strict=True)]
    of_model = study.facts.storage(variant, "model")[["bytes", "ratio"]].add_prefix("model_")
    frame = study.facts.storage(variant).join(of_model).reset_index()
    unpacked = study.facts.unpacked_dtypes(variant)
    caption = say(
        "caption.storage_unpacked" if unpacked else "caption.storage",
        variant=short_name(variant),
        dtypes=unpacked,
    )
    if versions := study.facts.zstd_versions(variant):
        caption = say("caption.storage_zstd", caption=caption, versions=versions, level=LEVEL)
    return table_of("storage", caption, columns, frame[frame["bytes"].notna()])


def useful(study: Comparison, variant: str) -> Table:
    """Return the rows of :func:`storage` for dense, CSR and lossless layouts that save a tenth."""
    table = storage(study, variant)
    rows = study.facts.storage(variant)
    saves = rows["lossless"].fillna(False).astype(bool) & (rows["ratio"] <= USEFUL).fillna(False)
    kept = {"dense", ALWAYS, *rows.index[saves]}
    shown = [row for row in table.rows if row.cells[0].value in kept]
    plain = "caption.storage_useful"
    return table.with_rows(shown, say(plain, variant=short_name(variant)))


def published() -> Table:
    """Return published speeds of sparse kernels, in the words of their sources."""
    values = [
        {
            "kernel": each.kernel,
            "kernel_note": layout_name(each.layout) if each.layout != each.kernel.lower() else "",
            "zeros": each.zeros.replace(" %", "\u202f%") or None,
            "crossover": each.crossover,
            "speedup": f"{each.speedup}\u202f×".replace(".", spoken().decimal)
            if each.speedup
            else None,
            # A key of the catalogue, or the name of a product.
            "against": say(each.against) if "." in each.against else each.against,
            "hardware": each.hardware or None,
            "source": each.source,
            "source_note": f"“{each.words}”",
        }
        for each in PUBLISHED
    ]
    columns = [
        Column("kernel", say("column.kernel_head"), WORDS, width=1.3),
        Column("zeros", say("metric.zeros"), WORDS, width=0.8),
        Column("crossover", say("column.faster_than_dense_from"), share(0), width=0.9),
        Column("speedup", say("label.times_as_fast"), WORDS, width=0.9),
        Column("against", say("column.compared_with"), WORDS, width=1.1),
        Column("hardware", say("column.hardware"), WORDS, width=1.1),
        Column("source", head("source"), WORDS, width=3.6),
    ]
    return table_of("published", say("caption.published_kernels"), columns, values, "published")


def curve(study: Comparison) -> Table:
    """Return the bytes of the prunable weights in each layout at every tenth of sparsity."""
    frame = study.facts.curve([step / 10 for step in range(11)])
    wide = frame.pivot_table(index="sparsity", columns="layout", values="bytes", sort=False)
    columns = [Column("sparsity", head("sparsity"), share(0), width=1.6)]
    columns += [Column(key, layout_name(key), COUNT, width=1) for key in wide.columns]
    unpacked = study.facts.unpacked_dtypes(study.facts.baseline)
    caption = say(
        "caption.layout_bytes_unpacked" if unpacked else "caption.layout_bytes", dtypes=unpacked
    )
    return table_of("curve", caption, columns, wide.reset_index())


def zeros_map(study: Comparison, variant: str) -> Table:
    """Return the shares of zeros of a variant's heat map, block by projection."""
    cells = study.facts.cells(variant)
    one_each = cells["layers"].max() == 1
    caption = say(
        "caption.zeros_map" if one_each else "caption.zeros_map_merged", variant=short_name(variant)
    )
    figures = cells.set_index(_CELL)["sparsity"]
    return by_cell("map", caption, study.facts.grid(variant), figures, SHARE)


def excess_map(study: Comparison, variant: str) -> Table:
    """Return zeros minus expected zeros of a variant's heat map, block by projection."""
    caption = say("caption.excess_map", variant=short_name(variant))
    figures = study.facts.excess(variant).set_index(_CELL)["excess"]
    return by_cell("excess", caption, study.facts.grid(variant), figures, POINTS)


def spread(study: Comparison) -> Table:
    """Return the least and the most sparse layer of each pruning."""
    spreads = {name: study.facts.spread(name) for name in study.side_by_side}
    values = [{"variant": name, **spread._asdict()} for name, spread in spreads.items() if spread]
    for row in values:
        if row["low"] == row["high"]:
            row |= {"least": None, "most": None}
    low, high = say("column.least_sparse_layer"), say("column.most_sparse_layer")
    columns = [
        *columns_of("variant", _FIRST),
        Column("low", say("chart.zeros_label"), SHARE, low),
        Column("least", say("kind.layer"), name(80), low),
        Column("high", say("chart.zeros_label"), SHARE, high),
        Column("most", say("kind.layer"), name(80), high),
    ]
    return table_of("spread", say("caption.layer_spread"), columns, values)


def inside(variant: str, key: str, projection: str, rows: pd.DataFrame) -> Table:
    """Return zeros of heads or experts, block by number."""
    wide = rows.pivot(index="block", columns="part", values="sparsity")
    wide.columns = [str(number) for number in wide.columns]
    heads = "caption.zeros_by_head"
    experts = "caption.zeros_by_expert"
    caption = say(
        heads if key == "heads" else experts, variant=short_name(variant), projection=projection
    )
    columns = [*columns_of("block"), *side_by_side(wide.columns, SHARE)]
    return table_of(key, caption, columns, wide.rename(columns=key_of_name).reset_index())


def comparison(study: Comparison, metric: str) -> Table:
    """Return one figure of all groups and variants."""
    look, pivot = FILED[metric], study.pivot(metric)
    columns = [*columns_of("group"), *side_by_side(pivot.columns, kind_of(metric))]
    caption = say("format.title_note", title=say(look.title), note=say(look.note))
    return table_of(look.file, caption, columns, pivot.rename(columns=key_of_name).reset_index())


def levels(study: Comparison) -> Table | None:
    """Return zeros, FLOPs and bytes after global magnitude pruning at every level."""
    if (frame := study.facts.levels) is None:
        return None
    zeros, flops = say("metric.zeros"), say("metric.flops_per_token")
    size = _unpacked(study).get("stored_bytes") or say("metric.stored_bytes")
    columns = [
        Column("sparsity", say("column.global_sparsity_head"), share(0)),
        Column("zeros", say("column.prunable_weights"), COUNT, zeros),
        Column("sparsity_prunable", say("column.of_prunable_weights"), SHARE, zeros),
        Column("sparsity_model", say("column.of_whole_model"), SHARE, zeros),
        Column("flops_per_token", say("column.in_csr"), COUNT, flops),
        Column("flops_ratio", say("column.ratio_to_dense"), TIMES, flops),
        Column("stored_bytes", say("column.in_csr"), COUNT, size),
        Column("bytes_ratio", say("column.ratio_to_dense"), TIMES, size),
    ]
    return table_of("levels", say("caption.levels"), columns, frame)


def quality(study: Comparison) -> Table | None:
    """Return perplexities and accuracies; None where none were measured.

    The caption has the text and the protocol if all rows share them, else columns have.
    """
    frame = study.quality
    if frame is None or frame.empty:
        return None
    passage = scored_on(study)
    windows: Any = [*zip(frame["window"], frame["stride"], strict=True)]
    further = "" if passage else " protocol text text_fingerprint scored windows dtype"
    columns = columns_of(f"variant sparsity perplexity top1{further}")
    caption = passage or say("caption.quality")
    return table_of("quality", caption, columns, frame.assign(windows=windows))


def distance(study: Comparison) -> Table | None:
    """Return divergences of variants from dense; None where none were measured."""
    frame = study.quality
    if frame is None or frame.empty or frame["kl"].isna().all():
        return None
    bases = list(dict.fromkeys(frame["against"].dropna()))
    several = "" if len(bases) == 1 else " against"
    passage = _passage(study)
    more = "" if passage else " protocol text text_fingerprint"
    columns = columns_of(f"variant sparsity{several} kl agreement flips{more}")
    caption = say(
        "caption.distance",
        bases=[short_name(base) for base in bases],
        passage=passage or say("caption.passages_differ"),
    )
    return table_of("distance", caption, columns, frame[frame["kl"].notna()])


def scored_on(study: Comparison) -> str | None:
    """Return the text and protocol of all perplexities as a sentence; None if they differ."""
    if (passage := _passage(study)) is None:
        return None
    return say("caption.quality_passage", passage=passage)


def _passage(study: Comparison) -> str | None:
    """Return the text and protocol of all perplexities as a clause; None if they differ."""
    assert study.quality is not None
    different = study.quality[[*PROTOCOL]].drop_duplicates()
    if len(different) > 1:
        return None
    known = records(different)[0]
    return say(
        "caption.passage",
        **known | {key: short_name(known[key]) for key in ("text", "text_fingerprint", "dtype")},
    )


def zero_shot(study: Comparison) -> Table | None:
    """Return the table of seven zero-shot tasks; None where no variant has all of them."""
    if study.tasks is None or (scores := seven_tasks(study.tasks)) is None:
        return None
    pairs: Any = list(zip(scores["value"], scores["stderr"], strict=True))
    wide = scores.assign(pair=pairs).pivot(index="variant", columns="task", values="pair")
    values = [
        {"variant": variant, **{task: _pair(wide, variant, task) for task in (*SEVEN, "mean")}}
        for variant in dict.fromkeys(scores["variant"])
    ]
    columns = columns_of("variant", (1.1,))
    columns += [Column(task, title, SCORE, width=1) for task, title in SEVEN.items()]
    columns.append(Column("mean", say("column.mean"), SCORE, width=1))
    return table_of("zero_shot", say("caption.zero_shot"), columns, values)


def tasks(study: Comparison, limit: int = 100) -> Table | None:
    """Return all other scores, one column per variant; None where there are none."""
    if study.tasks is None or (frame := other_scores(study.tasks)).empty:
        return None
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    # By number, as a variant may be called like another column.
    places = {variant: str(place) for place, variant in enumerate(frame["variant"].unique())}
    for row in plain_rows(frame):
        key = tuple(row[name] for name in KEYS if name != "variant")
        values = rows.setdefault(key, {"task": _score_name(row)})
        values[places[row["variant"]]] = row["value"], row["stderr"]
        if row["limited"]:
            values["task_note"] = say("column.partial_run")
    heads = zip(places.values(), distinct_names(list(places)), strict=True)
    columns = columns_of("task")
    columns += [Column(place, text, FIGURE, width=1) for place, text in heads]
    shown = [dict.fromkeys(places.values()) | values for values in list(rows.values())[:limit]]
    caption = say(
        "caption.harness_scores" if len(rows) <= limit else "caption.harness_scores_first",
        shown=limit,
        number=len(rows),
    )
    return table_of("tasks", caption, columns, shown)


def task_sources(study: Comparison) -> Table | None:
    """Return the sources of scores for a citation; None where none is known."""
    keys = "variant evaluated_model harness harness_version results_file results_fingerprint"
    if study.tasks is None or study.tasks[keys.split()[1:]].isna().all(axis=None):
        return None
    files = study.tasks.groupby(keys.split(), sort=False, dropna=False).size()
    columns = columns_of(f"{keys} scores", evaluated_model=say("column.evaluated_model_head"))
    return table_of(
        "task_sources", say("caption.score_sources"), columns, files.rename("scores").reset_index()
    )


def _score_name(row: Mapping[str, Any]) -> str:
    """Name a score: its task, metric, filter and the examples in the prompt."""
    parts = [row["task"], row["metric"]]
    parts += [row["filter"]] if row["filter"] not in (None, "none") else []
    shots = row["n_shot"]
    return ", ".join([*parts, *([] if shots is None else [say("format.shots", shots=shots)])])


def _pair(wide: pd.DataFrame, variant: str, task: str) -> tuple[float, float] | None:
    pair = wide[task][variant] if task in wide else None
    return pair if isinstance(pair, tuple) else None


def continuations(study: Comparison) -> Table | None:
    """Return continuations of each prompt by variant; None without any."""
    frame = study.continuations
    if frame is None or frame.empty:
        return None
    columns = columns_of("variant continuation", _FIRST)
    columns[1] = columns[1]._replace(kind=name(_LETTERS), width=3)
    bodies = tuple(
        Body(rows_of(columns, rows), clip(prompt, _LETTERS))
        for prompt, rows in frame.groupby("prompt", sort=False)
    )
    caption = say("caption.continuations")
    return Table("continuations", caption, tuple(columns), bodies, "facts")


def sensitivity(study: Comparison) -> Table | None:
    """Return the cost of pruning one part alone; None where it was not measured."""
    frame = study.sensitivity
    if frame is None or frame.empty:
        return None
    keys = "part weight_total sparsity perplexity nll_increase top1_drop global_sparsity"
    caption = say("caption.sensitivity")
    parts = zip(frame["by"], frame["part"], strict=True)
    named = frame.assign(part=[part_name(by, part) for by, part in parts])
    return table_of("sensitivity", caption, columns_of(keys), named)


def _sizes(study: Comparison) -> str:
    """Return the columns of bytes that tables of a study have."""
    return "file_bytes stored_bytes" if study.facts.packings() else "stored_bytes"


def _unpacked(study: Comparison) -> dict[str, str]:
    """Return the head of stored bytes where some are of packed weights."""
    return {"stored_bytes": say("column.stored_bytes_unpacked")} if study.facts.packings() else {}
