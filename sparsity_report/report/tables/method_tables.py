"""The table of a paper on pruning: the results of every method."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sparsity_report.report.tables import study_tables
from sparsity_report.report.tables.table_model import Cell, Table, cell_of, plain_rows, table_of
from sparsity_report.study.derived.heads_experts import kept_words
from sparsity_report.study.derived.protocol_scores import ANY_TOKENIZER, PROTOCOL, by_protocol
from sparsity_report.study.derived.zero_shot import one_version, seven_tasks
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.schema import TABLES, Column, columns_of
from sparsity_report.untrusted.display_text import distinct_names, short_name
from sparsity_report.words import value_formats as formats
from sparsity_report.words.display_names import layout_name, method_name
from sparsity_report.words.number_format import level
from sparsity_report.words.sentences import say

# Figures by column.
_Figures = dict[str, Any]


def results(study: StudyFigures) -> Table:
    """Return the dense model and every pruning, with quality, size and speed.

    A pruning in several layouts has a row for each that differs in a figure. Figures that are
    unknown or zero for all variants have no column.
    """
    entries, facts, by_variant = _entries(study), study.facts, _figures_of(study)
    possible = _result_columns(study, by_variant)
    # Target sparsities are titles if there are several, or a pattern.
    kinds = {*entries["kind"]} - {""}
    is_titled = len(kinds) > 1 or any(":" in kind for kind in kinds) or len(facts.lacking) > 1
    rows: list[_Figures] = []
    named: set[str] = set()
    for row in records(entries.assign(kind=entries["kind"] if is_titled else "")):
        layouts = {v: by_variant[v] for v in facts.layouts_of(row["variant"]) if v not in named}
        named |= {*layouts}
        title = {"title": _title(row, entries["model"].nunique() > 1)}
        rows += [
            title | each for each in _layout_rows(facts.layouts, row["label"], layouts, possible)
        ]
    others = (name for name in facts.layouts if name not in named)
    rows += [{"title": "", "method": short_name(name), **by_variant[name]} for name in others]
    columns = [column for column in possible if any(row.get(column.name) for row in rows)]
    unknown = dict.fromkeys(column.name for column in columns)
    # A value with its interval needs more room than a number.
    widths = (1.6, *(1.8 if column.format.unit is None else 1 for column in columns))
    options: dict[str, Any] = {"title": "title", "style": "compared", "widths": widths}
    values = [unknown | row for row in rows]
    method = columns_of("method", {"method": formats.name_format(80)})
    caption, note = _caption(study), _note(study, values)
    return table_of("results", caption, [*method, *columns], values, note=note, **options)


def _title(entry: Mapping[str, Any], has_models: bool) -> str:
    """Return the kind of sparsity of an entry, after its model if there are several."""
    if not has_models:
        return str(entry["kind"])
    return say("format.model_kind", **entry) if entry["kind"] else str(entry["model"])


def _layout_rows(
    names: Mapping[str, str],
    label: str,
    layouts: Mapping[str, _Figures],
    columns: Sequence[Column],
) -> list[_Figures]:
    """Return the rows of one pruning; layouts whose known figures read the same share a row."""
    rows: dict[str, tuple[_Figures, dict[str, str]]] = {}
    for variant, known in layouts.items():
        texts = {
            c.name: cell_of(known[c.name], c).text for c in columns if known.get(c.name) is not None
        }
        for row, cells in rows.values():
            if all(cells.get(key, text) == text for key, text in texts.items()):
                row |= {key: value for key, value in known.items() if row.get(key) is None}
                cells |= texts
                break
        else:
            rows[names[variant]] = dict(known), texts
    if len(rows) == 1:
        return [{"method": label, **row} for row, _ in rows.values()]
    return [
        {"method": say("results.method_layout", method=label, layout=layout_name(layout)), **row}
        for layout, (row, _) in rows.items()
    ]


def _figures_of(study: StudyFigures) -> dict[str, _Figures]:
    """Return the figures of every variant by column; None where unknown."""
    facts = study.facts
    scores = {row["variant"]: row for row in plain_rows(_scored(study)) if row["perplexity"]}
    means = _mean_accuracies(study)
    by_variant = {}
    for name in facts.layouts:
        row: _Figures = {
            "zeros": facts.total(name, "sparsity_prunable"),
            "stored_bytes": facts.size_as_stored(name),
            "useful_flops_per_token": facts.total(name, "useful_flops_per_token"),
            "accuracy": means.get(name),
            "perplexity": _perplexity(study, scores[name]) if name in scores else None,
        }
        if (layout := facts.common_layout([name])) is not None:
            size = int(facts.storage(name, "model")["bytes"][layout])
            is_common = size == facts.size(name, _smallest(study) or "")
            row["smallest"] = Cell(size, "" if is_common else layout_name(layout))
        speeds = facts.whole_speeds(name)
        for speed in records(speeds[speeds["verdict"] == "stated"]):
            ends = (speed[f"realised_{key}"] for key in ("speedup", "low", "high"))
            row[f"speed_{speed['tokens']}"] = tuple(ends)
        by_variant[name] = row
    return by_variant


def _perplexity(study: StudyFigures, row: Mapping[str, Any]) -> Cell:
    """Return a perplexity with its interval, marked if it is the lowest or not separated from it.

    A perplexity no better than uniform guessing has no interval.
    """
    pairs, variant = study.facts.paired(row), row["variant"]
    first, mark = pairs.first_alike.get(variant, variant), ""
    for best in map(pairs.best, pairs.rivals):
        if first in best and not mark:
            mark = say("results.lowest" if len(best) == 1 else "results.shared_lowest")
    value, size = row["perplexity"], study.facts.vocabulary(variant)
    ends = study.facts.score_ends(variant, value) if not size or value < size else None
    form = formats.perplexity(size)
    if ends is None:
        return Cell(value, mark, form)
    return Cell((value, *ends), mark, formats.estimate(form))


def _scored(study: StudyFigures) -> pd.DataFrame:
    """Return the scores by the protocol that scored the most variants, one row per variant."""
    protocol = PROTOCOL if study.variants["fingerprint"].nunique() == 1 else ANY_TOKENIZER
    names = study.variants["variant"]
    frames = [
        scored[scored["variant"].isin(names)].drop_duplicates("variant")
        for scored in by_protocol(study.quality, protocol)
    ]
    return max(frames, key=len, default=pd.DataFrame(columns=[*TABLES["quality"]]))


def _mean_accuracies(study: StudyFigures) -> dict[str, tuple[float, float]]:
    """Return the mean of the seven zero-shot tasks with its error, by variant."""
    if study.tasks is None or "mean" not in one_version(study.tasks):
        return {}
    if (frame := seven_tasks(study.tasks)) is None:
        return {}
    means = frame[frame["task"] == "mean"]
    pairs = zip(means["value"], means["stderr"], strict=True)
    return dict(zip(means["variant"], pairs, strict=True))


def _smallest(study: StudyFigures) -> str | None:
    """Return the layout that is smallest for each pruning, or as small; None without one."""
    facts = study.facts
    common = facts.common_layout(facts.prunings) if facts.prunings else None
    smallest = {name: facts.common_layout([name]) or "" for name in facts.prunings}
    is_smallest = common and all(
        facts.size(name, common) == facts.size(name, each) for name, each in smallest.items()
    )
    return common if is_smallest else None


def _result_columns(study: StudyFigures, by_variant: Mapping[str, _Figures]) -> list[Column]:
    """Return all columns that results may have."""
    facts, rows = study.facts, by_variant.values()
    sizes = ["stored_bytes"]
    if facts.prunings and not facts.csr_variants:
        # Masks alone save nothing, so that the size of all variants is that of dense.
        is_one = len({row["stored_bytes"] for row in rows}) == 1
        sizes = ["smallest"] if is_one else ["stored_bytes", "smallest"]
    known = [row[key] for row in rows for key in sizes if row.get(key)]
    unit, form = formats.one_unit([s.value if isinstance(s, Cell) else s for s in known], "B")
    work = [f for row in rows if (f := row["useful_flops_per_token"])]
    flops, form_of_work = formats.one_unit(work, "FLOPs")
    smallest = _smallest(study)
    named = "results.size_as" if smallest else "results.smallest_size"
    keys = {key for row in rows for key in row if key.startswith("speed_")}
    labels = {
        "stored_bytes": say("results.size", unit=unit),
        "smallest": say(named, unit=unit, layout=smallest),
        "useful_flops_per_token": say("results.useful_flops", unit=flops),
    }
    names = f"zeros perplexity accuracy {' '.join(sizes)} useful_flops_per_token"
    forms = dict.fromkeys(sizes, form) | {"useful_flops_per_token": form_of_work}
    columns = columns_of(names, forms, **labels)
    for tokens in sorted(int(key.removeprefix("speed_")) for key in keys):
        title = say("results.speed", tokens=tokens)
        columns.append(Column(f"speed_{tokens}", text=title, format=formats.REALISED))
    return columns


def _caption(study: StudyFigures) -> str:
    if (scored := _scored(study)).empty:
        return say("caption.results")
    first = records(scored)[0]
    text = first["text"], first["text_fingerprint"]
    return say("caption.results_scores", text=text, protocol=first["protocol"])


def _note(study: StudyFigures, rows: Sequence[_Figures]) -> str:
    """Return denominators, and the computation of intervals and marks that the rows have."""
    has_zeros = any(row.get("zeros") for row in rows)
    sentences = [say("table_note.results" if has_zeros else "table_note.results_sizes")]
    if dtypes := study.facts.unpacked_dtypes(study.facts.baseline):
        sentences.append(say("table_note.results_unpacked", dtypes=dtypes))
    cells = [row["perplexity"] for row in rows if row.get("perplexity")]
    if any(isinstance(cell.value, tuple) for cell in cells):
        sentences.append(study_tables.paired_note(study, records(_scored(study))[0]))
    if any(cell.note for cell in cells):
        sentences.append(
            say("table_note.lowest" if study.facts.contenders else "table_note.lowest_choice")
        )
    return " ".join(sentences)


def _entries(study: StudyFigures) -> pd.DataFrame:
    """Return ``kind``, ``label``, ``model`` and ``variant`` of the unpruned models and prunings."""
    facts, frame = study.facts, study.facts.methods
    models = frame.drop_duplicates("fingerprint").set_index("fingerprint")["model"]
    names = dict(zip(models.index, distinct_names(list(models)), strict=True))
    variants = study.variants.set_index("variant")
    scores = variants["expert_score"]
    rows, fewer = [], facts.lacking
    for row in records(frame):
        share = facts.level(row["variant"]) if pd.notna(row["sparsity"]) else None
        kind = row["kind"] if pd.notna(row["kind"]) else level(share)
        has_policy = pd.notna(row["policy"])
        policy = method_name(row["policy"] or "magnitude") if has_policy else ""
        is_scored = facts.expert_lists and scores[row["variant"]] not in {None, "expert_list"}
        if is_scored:
            policy = method_name(scores[row["variant"]])
        label = policy[:1].upper() + policy[1:] or short_name(row["variant"])
        if is_scored and not has_policy:
            kind = kept_words(fewer[row["variant"]], "results.experts")
            row["fingerprint"] = variants["fingerprint"][facts.baseline]
        elif row["sparsity"] == 0 and not has_policy:
            kind = ""
            if len(names) > 1 and row["variant"] not in fewer:
                label = say("name.dense_baseline")  # one row for all models
        elif not has_policy and row["variant"] == facts.baseline:
            label = say("name.as_opened")
        rows.append((kind, label, names[row["fingerprint"]], row["variant"]))
    entries = pd.DataFrame(rows, columns=["kind", "label", "model", "variant"])
    # Two of one policy and sparsity have the names of their variants.
    repeated = entries.duplicated(["kind", "label", "model"], keep=False)
    return entries.assign(label=entries["label"].mask(repeated, entries["variant"].map(short_name)))
