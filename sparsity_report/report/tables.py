"""Every table of the product, declared once: its heads, its rows, and how each cell is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd

from sparsity_report.draw.look import FILED
from sparsity_report.findings.difference import TOTALS, Difference, name_of, written
from sparsity_report.report.cells import (
    CODE,
    COUNT,
    DURATION,
    MODULE,
    NAME,
    SHAPE,
    SHARE,
    SPAN,
    TIMES,
    WORDS,
    Body,
    Cell,
    Column,
    Kind,
    Row,
    Table,
    figures,
    name,
    rows_of,
    share,
    table_of,
)
from sparsity_report.study.layers import records
from sparsity_report.study.schema import head
from sparsity_report.study.study import Comparison
from sparsity_report.words.language import spoken
from sparsity_report.words.names import clip, group_name, layout_name, method_name
from sparsity_report.words.numbers import count, percent
from sparsity_report.words.sentences import message, say

_LONG_NAME = name(2000)
_GROUP = Kind(group_name)
_LAYOUT = Kind(layout_name)
_METHOD = Kind(lambda method: "–" if method is None else clip(method_name(method), 40), tag="bdi")
_LOSSLESS = {True: message("yes"), False: message("no"), None: message("unknown")}
_THRESHOLD = figures(".6g")
_PERPLEXITY = figures(",.2f")
# Part, prefix of its columns, label and denominator.
_SPARSITIES = (
    (
        "prunable",
        "prunable_",
        message("Sparsity of the prunable weights"),
        message("zeros ÷ weights that pruning may choose from"),
    ),
    (
        "non_embedding",
        "non_embedding_",
        message("Sparsity of the non-embedding parameters"),
        message("zeros ÷ all parameters but embeddings and output head"),
    ),
    (
        "model",
        "",
        message("Sparsity of the whole model"),
        message("zeros ÷ all parameters, each stored tensor once"),
    ),
)
_MOST, _LEAST = (
    message("Most sparse layers of {variant}: zeros ÷ weights"),
    message("Least sparse layers of {variant}: zeros ÷ weights"),
)


def models(study: Comparison) -> Table:
    """Return the models that were counted."""
    columns = [
        _titled("model", MODULE, width=1),
        _titled("architecture", MODULE, width=1),
        _titled("source", name(200), width=1.4),
        Column("fingerprint", say("Fingerprint of the weights"), CODE),
    ]
    values = study.variants.drop_duplicates("fingerprint")
    return table_of("models", say("The weights that were counted"), columns, values, "facts")


def variants(study: Comparison) -> Table:
    """Return how each variant came to be."""
    columns = [
        _titled("variant", NAME, width=1),
        _titled("layout", _LAYOUT),
        _titled("method", _METHOD),
        _titled("asked_sparsity", SHARE),
        Column("threshold", say("Threshold |w| ≤"), _THRESHOLD),
        Column("fingerprint", say("Weights"), CODE),
    ]
    return table_of("variants", say("What was made of them"), columns, study.variants, "facts")


def totals(study: Comparison) -> Table:
    """Return the three sparsities and the costs, one column per variant."""
    by_variant = _records(study.totals)

    def row(key: str, kind: Kind, label: str, note: str = "", style: str = "") -> Row:
        cells = (Cell(of_variant[key], kind) for of_variant in by_variant)
        return Row((Cell(label, WORDS, note), *cells), style, key=key)

    shares = []
    for part, total, label, note in _SPARSITIES:
        shares += [
            row(f"sparsity_{part}", share(2), say(label), say(note), "lead"),
            row(f"{total}total", COUNT, say("of"), style="part"),
            row(f"{total}nonzero", COUNT, say("nonzero"), style="part"),
        ]
    costs = [
        row("asked_sparsity", SHARE, head("asked_sparsity")),
        row("pruned", COUNT, head("pruned")),
        row("threshold", _THRESHOLD, say("Threshold |w| ≤")),
        row("stored_bytes", COUNT, head("stored_bytes")),
        *(row(key, COUNT, head(key), note) for key, note in _work(study)),
    ]
    columns = [Column("", "", WORDS, width=6.4 - min(4, len(by_variant)))]
    columns += [Column(v["variant"], clip(v["variant"], 40), COUNT, width=1) for v in by_variant]
    style = "totals wide" if len(by_variant) > 5 else "totals"
    bodies = (Body(tuple(shares)), Body(tuple(costs)))
    return Table("totals", say("Totals per variant"), tuple(columns), bodies, style)


def _work(study: Comparison) -> Iterator[tuple[str, str]]:
    """Yield columns of work per token, and what each counts."""
    yield "flops_per_token", say("as the layout computes them")
    yield "useful_flops_per_token", say("two per nonzero weight")
    if study.totals["flops_per_sequence"].fillna(0).any():
        yield "flops_per_sequence", say("modules that see one position only, such as a pooler")
    if study.context:
        positions = count(study.context)
        yield (
            "attention_flops_per_token",
            say("scores and weighted values over {positions} positions", positions=positions),
        )
    if (study.totals["active_total"] != study.totals["total"]).any():
        yield "active_total", say("the router and the experts a token is sent to")


def groups(study: Comparison, variant: str | None = None) -> Table:
    """Return the groups of one variant, or of each under its name."""
    columns = (
        _titled("group", _GROUP, width=1),
        _titled("modules", COUNT),
        _titled("total", COUNT),
        _titled("nonzero", COUNT),
        Column("sparsity", say("Zeros ÷ parameters"), SHARE),
        _titled("flops_per_token", COUNT),
        _titled("useful_flops_per_token", COUNT),
        _titled("stored_bytes", COUNT),
        _titled("param_frac", SHARE),
    )
    bodies = [
        Body(rows_of(columns, rows), clip(title, 80))
        for title, rows in study.groups.groupby("variant", sort=False)
        if variant in {None, title}
    ]
    if variant is None:
        caption = say(
            "Groups of modules per variant; sparsity is zeros ÷ parameters of the group, biases "
            "included"
        )
        return Table("groups", caption, columns, tuple(bodies), "groups")
    caption = say(
        "Groups of modules of {variant}; zeros per parameter of the group.",
        variant=clip(variant, 40),
    )
    return Table("groups", caption, columns, (Body(bodies[0].rows),), "groups")


def layers(study: Comparison, variant: str) -> Table:
    """Return all modules of a variant."""
    columns = [
        _titled("module_name", _LONG_NAME, width=1),
        _titled("group", _GROUP),
        _titled("shape", SHAPE),
        Column("stored_as", say("Stored as"), WORDS),
        _titled("total", COUNT),
        _titled("nonzero", COUNT),
        Column("sparsity", say("Zeros ÷ parameters"), SHARE),
        _titled("flops_per_token", COUNT),
        _titled("useful_flops_per_token", COUNT),
        _titled("stored_bytes", COUNT),
    ]
    frame = study.facts.layers(variant)
    tied = say("tied to")
    frame = frame.assign(
        stored_as=frame["layout"] + " " + frame["dtype"],
        module_name_note=[
            "" if pd.isna(other) else f"{tied} {clip(other, 2000)}" for other in frame["tied_to"]
        ],
    )
    caption = say(
        "All {number:,} modules of {variant}; sparsity is zeros ÷ parameters of the module",
        number=len(frame),
        variant=clip(variant, 40),
    )
    return table_of("layers", caption, columns, frame, "layers sortable")


def extremes(study: Comparison, variant: str, limit: int = 10) -> tuple[Table, Table] | None:
    """Return the most and the least sparse prunable layers; None where nothing is prunable."""
    columns = [
        _titled("module_name", MODULE, width=1),
        _titled("weight_total", COUNT),
        Column("share", say("Zeros ÷ weights"), SHARE),
    ]
    most, least = (
        table_of(key, say(caption, variant=clip(variant, 40)), columns, rows)
        for key, caption, rows in zip(
            ("layers_most", "layers_least"),
            (_MOST, _LEAST),
            study.facts.extremes(variant, limit),
            strict=True,
        )
    )
    return (most, least) if most.rows else None


def unusual(study: Comparison, variant: str) -> Table | None:
    """Return the matrices furthest from a Gaussian; None where no expectation is known."""
    frame = study.facts.unusual(variant)
    if frame is None:
        return None
    pattern = Kind(lambda n_m: "–" if n_m is None else f"{n_m[0]}, {percent(n_m[1])}", "")
    columns = (
        _titled("parameter", MODULE, width=1),
        Column("sparsity", say("Observed"), SHARE),
        Column("expected_sparsity", say("Expected"), SHARE),
        _titled("mean_abs", figures("#.3g")),
        _titled("std", figures("#.3g")),
        _titled("zero_rows", SHARE),
        _titled("zero_columns", SHARE),
        Column("n_m", say("N:M, complying"), pattern),
        _titled("fill_8", SHARE),
    )
    expert = say("expert")
    values = [
        {
            **row,
            "n_m": None if row["n_m"] is None else (row["n_m"], row["n_m_share"]),
            "parameter_note": "" if row["expert"] is None else f"{expert} {row['expert']}",
        }
        for row in _records(frame)
    ]
    caption = say(
        "Matrices of {variant} furthest from a Gaussian of their own spread",
        variant=clip(variant, 40),
    )
    return Table("unusual", caption, columns, (Body(rows_of(columns, values)),), fold=8)


def storage(study: Comparison, variant: str) -> Table:
    """Return the bytes of the prunable weights and of the model in every layout."""
    weights, model = say("Prunable weights"), say("Whole model")
    columns = [
        _titled("layout", _LAYOUT, width=1.6),
        Column("bytes", say("Bytes"), COUNT, weights, 1),
        Column("ratio", say("÷ dense"), TIMES, weights, 1),
        Column("model_bytes", say("Bytes"), COUNT, model, 1),
        Column("model_ratio", say("÷ dense"), TIMES, model, 1),
        _titled("break_even", SHARE, width=1),
        _titled("lossless", Kind(lambda known: say(_LOSSLESS[known])), width=1),
    ]
    of_model = study.facts.storage(variant, "model")[["bytes", "ratio"]].add_prefix("model_")
    frame = study.facts.storage(variant).join(of_model).reset_index()
    caption = say("Bytes of {variant} in every layout", variant=clip(variant, 40))
    return table_of("storage", caption, columns, frame[frame["bytes"].notna()])


def curve(study: Comparison) -> Table:
    """Return the bytes of the prunable weights in each layout at every tenth of sparsity."""
    frame = study.facts.curve([step / 10 for step in range(11)])
    wide = frame.pivot_table(index="sparsity", columns="layout", values="bytes", sort=False)
    columns = [_titled("sparsity", share(0), width=1.6)]
    columns += [Column(key, layout_name(key), COUNT, width=1) for key in wide.columns]
    caption = say(
        "Bytes of the prunable weights in each layout, from integers, row pointers included."
    )
    return table_of("curve", caption, columns, wide.reset_index())


def zeros_map(study: Comparison, variant: str) -> Table:
    """Return the shares of zeros of a variant's heat map, block by projection."""
    grid, cells = study.facts.grid(variant), study.facts.cells(variant)
    known = cells.set_index(["block", "projection"])["sparsity"].to_dict()
    columns = [_titled("block", WORDS, width=1.6)]
    columns += [Column(key, clip(key, 40), SHARE, width=1) for key in grid.projections]
    values = [
        {"block": block, **{key: known.get((block, key)) for key in grid.projections}}
        for block in grid.blocks
    ]
    alone = message("{variant}: share of zeros per weight matrix, block by projection.")
    merged = message(
        "{variant}: share of zeros of all weight matrices in a cell, block by projection."
    )
    one_each = cells["layers"].max() == 1
    caption = say(alone if one_each else merged, variant=clip(variant, 40))
    return table_of("map", caption, columns, values)


def comparison(study: Comparison, metric: str) -> Table:
    """Return one figure of all groups and variants."""
    look = FILED[metric]
    pivot = study.pivot(metric)
    kind = SHARE if look.kind == "share" else COUNT
    columns = [_titled("group", _GROUP, width=1.6)]
    columns += [Column(key, clip(key, 40), kind, width=1) for key in pivot.columns]
    caption = say("{title}: {note}.", title=say(look.title), note=say(look.note))
    return table_of(str(look.file), caption, columns, pivot.reset_index())


def levels(study: Comparison) -> Table | None:
    """Return what global magnitude pruning would leave at every level of the study."""
    if (frame := study.facts.levels) is None:
        return None
    zeros, flops, size = say("Zeros"), say("FLOPs per token"), say("Stored bytes")
    columns = [
        Column("sparsity", say("Global sparsity"), share(0)),
        Column("zeros", say("prunable weights"), COUNT, zeros),
        Column("sparsity_prunable", say("of the prunable weights"), SHARE, zeros),
        Column("sparsity_model", say("of the whole model"), SHARE, zeros),
        Column("flops_per_token", say("in CSR"), COUNT, flops),
        Column("flops_ratio", say("÷ dense"), TIMES, flops),
        Column("stored_bytes", say("in CSR"), COUNT, size),
        Column("bytes_ratio", say("÷ dense"), TIMES, size),
    ]
    caption = say(
        "Global magnitude pruning at ten levels; FLOPs and bytes with the prunable matrices in CSR"
    )
    return table_of("levels", caption, columns, frame)


def latency(study: Comparison) -> Table | None:
    """Return the times of layers and forward passes; None where none were measured."""
    frame = study.latency
    if frame is None or frame.empty:
        return None
    columns = [
        _titled("variant", NAME, width=1.6),
        Column("name", say("What"), NAME, width=1),
        _titled("tokens", COUNT, width=1),
        _titled("seconds", DURATION, width=1),
        Column("quartiles", say("Quartiles"), SPAN, width=1),
        _titled("promised_speedup", TIMES, width=1),
        _titled("realised_speedup", TIMES, width=1),
        _titled("kernel", NAME, width=1),
    ]
    values = [
        {**row, "quartiles": (row["seconds_low"], row["seconds_high"])} for row in _records(frame)
    ]
    caption = say(
        "Measured time per call on {machine}.", machine=clip(frame["machine"].iloc[0], 200)
    )
    return table_of("speed", caption, columns, values)


def crossover(study: Comparison) -> Table | None:
    """Return from which sparsity CSR layers are faster; None where no shape ever was."""
    frame = study.latency
    if frame is None or not frame["crossover_sparsity"].notna().any():
        return None
    columns = [
        Column("name", say("Shape"), NAME, width=1.6),
        _titled("tokens", COUNT, width=1),
        Column("crossover_sparsity", say("Sparsity"), share(0), width=1),
    ]
    by_shape = frame[frame["scope"] == "layer"].drop_duplicates(["name", "tokens"])
    caption = say("Sparsity from which a CSR layer is faster than the dense one.")
    return table_of("crossover", caption, columns, by_shape)


def quality(study: Comparison) -> Table | None:
    """Return perplexities and accuracies; None where none were measured."""
    frame = study.quality
    if frame is None or frame.empty:
        return None
    windows = Kind(lambda sizes: " / ".join(count(size) for size in sizes))
    columns = [
        _titled("variant", NAME, width=1.6),
        _titled("sparsity", SHARE, width=1),
        _titled("perplexity", _PERPLEXITY, width=1),
        _titled("top1", SHARE, width=1),
        _titled("text", NAME, width=1),
        _titled("scored", COUNT, width=1),
        Column("windows", say("Window / stride"), windows, width=1),
        _titled("dtype", WORDS, width=1),
    ]
    values = [{**row, "windows": (row["window"], row["stride"])} for row in _records(frame)]
    prints = ", ".join(dict.fromkeys(f"{f}" for f in frame["text_fingerprint"]))
    caption = say("Perplexity and next-token accuracy; text {prints}.", prints=prints)
    return table_of("quality", caption, columns, values)


def scored_on(study: Comparison) -> str | None:
    """Say on what perplexities were scored; None where not all of them were on the same."""
    assert study.quality is not None
    different = study.quality[["text", "scored", "window", "stride"]].drop_duplicates()
    if len(different) > 1:
        return None
    text, *sizes = different.iloc[0]
    return say(
        "Perplexity and next-token accuracy on {text}: {scored:,} tokens in windows of {window:,}, "
        "stride {stride:,}.",
        text=clip(text, 40),
        **dict(zip(("scored", "window", "stride"), map(int, sizes), strict=True)),
    )


def sensitivity(study: Comparison) -> Table | None:
    """Return what pruning one part alone costs; None where it was not measured."""
    frame = study.sensitivity
    if frame is None or frame.empty:
        return None
    columns = [
        _titled("part", NAME, width=1.6),
        _titled("weight_total", COUNT, width=1),
        _titled("sparsity", SHARE, width=1),
        _titled("perplexity", _PERPLEXITY, width=1),
        _titled("nll_increase", figures("+.4f"), width=1),
        _titled("top1_drop", share(2), width=1),
        _titled("global_sparsity", SHARE, width=1),
    ]
    caption = say("One part pruned at a time, all others as they are.")
    return table_of("sensitivity", caption, columns, frame)


def difference_totals(difference: Difference) -> Table:
    """Return every total of two studies side by side."""
    old, new = (s.totals.set_index("variant") for s in (difference.before, difference.after))
    rows = []
    for variant in dict.fromkeys([*old.index, *new.index]):
        for what in TOTALS:
            row = _before_and_after(variant, "", what, *(t[what].get(variant) for t in (old, new)))
            changed = row.cells[-2].text != row.cells[-1].text
            rows.append(row._replace(style="changed" if changed else ""))
    caption = say("Totals per variant, before and after")
    table = Table("totals", caption, _change_columns(), (Body(tuple(rows)),))
    return table.only("variant", "what", "before", "after")


def difference_modules(difference: Difference, limit: int) -> Table:
    """Return what changed in modules, so many rows at most."""
    changes = difference.changes[difference.changes["module_name"].notna()]
    rows = tuple(
        _before_and_after(r["variant"], r["module_name"], r["what"], r["before"], r["after"])
        for r in records(changes.head(limit))
    )
    caption = say("Modules that changed")
    return Table("modules", caption, _change_columns(), (Body(rows),), "sortable")


def _change_columns() -> tuple[Column, ...]:
    return (
        _titled("variant", NAME),
        _titled("module_name", name(200)),
        Column("what", say("What"), WORDS),
        Column("before", say("Before"), COUNT),
        Column("after", say("After"), COUNT),
    )


def _before_and_after(variant: str, module: str, what: str, before: Any, after: Any) -> Row:
    kind = Kind(partial(_fact, what), "")
    named = (Cell(variant, NAME), Cell(module, name(200)), Cell(name_of(what), WORDS))
    return Row((*named, Cell(before, kind), Cell(after, kind)))


def _fact(what: str, value: Any) -> str:
    """Write a fact as tables do, with thin spaces between thousands."""
    text = written(what, value)
    return text if isinstance(value, str) else text.replace(spoken().thousands, "\u202f")


def _titled(key: str, kind: Kind, width: float = 0) -> Column:
    """Return a column under the title that its frame declares."""
    return Column(key, head(key), kind, width=width)


def _records(frame: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Rows as plain values; what is unknown is None."""
    return [*records(frame.astype(object).where(frame.notna(), None))]
