"""Numbers of a thesis kit: a LaTeX command for every number that a text would quote."""

from collections.abc import Iterator, Mapping
from typing import Any

from sparsity_report.report.pair_sections import KINDS
from sparsity_report.report.tables import latex
from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.latex import Tex, quantity, tex
from sparsity_report.report.tables.table_model import COUNT, SHARE, Kind, kind_of
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.zero_shot import seven_tasks
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.untrusted.display_text import short_name

# Units of quantities with a short form.
_UNITS = {
    **dict.fromkeys(("stored_bytes", "file_bytes", "kv_cache_bytes_per_token"), "B"),
    **dict.fromkeys(("flops_per_token", "useful_flops_per_token"), "FLOPs"),
}
# Keeps the command apart from that of the group called attention.
_RENAMED = {"attention_flops_per_token": "attention_itself_flops_per_token"}
_RATIO = cells.figures(".2f")

_Numbers = Iterator[tuple[str, Tex]]


def commands_of(value: Comparison | Pair) -> list[tuple[Tex, Tex]]:
    """Return the names of LaTeX commands, all different, and their numbers."""
    numbers = [*(_pair_numbers(value) if isinstance(value, Pair) else _study_numbers(value))]
    names = latex.command_names((command for command, _ in numbers), longest=None)
    return [(Tex(command), text) for command, (_, text) in zip(names, numbers, strict=True)]


def _study_numbers(study: Comparison) -> _Numbers:
    variants = latex.variant_commands(study)
    for row in records(study.totals):
        name = row.pop("variant")
        yield f"{variants[name]}Name", tex(short_name(name))
        yield from _row_numbers(variants[name], row, without="layout")
        bits = study.facts.bits_per_weight(name)
        yield f"{variants[name]}BitsPerWeight", quantity(bits, _RATIO)
        for column in ("stored_bytes", "flops_per_token"):
            ratio = study.facts.ratio(name, column)
            yield f"{variants[name]}{_camel(column)}Ratio", quantity(ratio, _RATIO)
    groups = latex.group_commands(study.groups["group"].unique())
    for row in records(study.groups):
        yield from _row_numbers(variants[row.pop("variant")] + groups[row["group"]], row, "group")
    yield from _measured_numbers(study, variants)


def _measured_numbers(study: Comparison, variants: Mapping[str, str]) -> _Numbers:
    """Yield perplexities, speeds of whole forward passes and zero-shot accuracies."""
    for row in [] if study.quality is None else records(study.quality):
        if stem := variants.get(row["variant"]):
            yield f"{stem}Perplexity", quantity(row["perplexity"], _RATIO)
            yield f"{stem}PerplexityProtocol", tex(row["protocol"])
            yield f"{stem}TopOne", quantity(row["top1"], SHARE)
            yield f"{stem}KL", quantity(row["kl"], kind_of("kl"))
            for column in ("agreement", "flips"):
                yield f"{stem}{_camel(column)}", quantity(row[column], kind_of(column))
    speeds = study.facts.speeds
    for row in [] if speeds is None else records(speeds[speeds["scope"] == "model"]):
        stem = f"{variants[row['variant']]}{row['tokens']}Tokens"
        yield f"{stem}Promised", quantity(row["promised_speedup"], _RATIO)
        if row["verdict"] == "stated":
            yield f"{stem}Realised", quantity(row["realised_speedup"], _RATIO)
            yield f"{stem}RealisedLow", quantity(row["realised_low"], _RATIO)
            yield f"{stem}RealisedHigh", quantity(row["realised_high"], _RATIO)
    scores = None if study.tasks is None else seven_tasks(study.tasks)
    for row in [] if scores is None else records(scores):
        stem = f"{variants[row['variant']]}ZeroShot{_camel(row['task'])}"
        yield stem, quantity(row["value"], cells.share(2))
        yield f"{stem}Error", quantity(row["stderr"], cells.share(2))


def _pair_numbers(pair: Pair) -> _Numbers:
    for side, name in zip(("Before", "After"), pair.models["model"], strict=True):
        yield f"{side}Name", tex(short_name(name))
    for row in records(pair.totals):
        stem = _camel(row["figure"])
        for column in ("before", "after", "removed"):
            yield from _number(f"{stem}{_camel(column)}", row[column], row["figure"], COUNT)
        yield f"{stem}RemovedShare", quantity(row["share"], SHARE)
    for row in records(pair.sparsities):
        for column in ("sparsity_before", "sparsity_itself", "gone_of_base"):
            yield f"{_camel(row['of'])}{_camel(column)}", quantity(row[column], SHARE)
    groups = latex.group_commands(pair.survival["group"])
    for row in records(pair.survival):
        stem = groups[row["group"]]
        for column in ("compared", "zeros_before", "zeros_after", "kept", "revived", "new"):
            yield from _number(f"{stem}{_camel(column)}", row[column], column, COUNT)
        for column in ("kept_share", "iou", "relative_change"):
            yield f"{stem}{_camel(column)}", quantity(row[column], SHARE)
        yield from _number(f"{stem}Changed", row["changed"], "changed", COUNT)
    for kind, rows in pair.removed.groupby("kind", sort=False):
        yield from _number(f"{KINDS[str(kind)]}Gone", len(rows), "gone", COUNT)
        yield from _number(f"{KINDS[str(kind)]}GoneWeights", int(rows["weights"].sum()), "", COUNT)


def _row_numbers(stem: str, row: Mapping[str, Any], without: str) -> _Numbers:
    for column, value in row.items():
        if column != without:
            yield from _number(stem + _camel(_RENAMED.get(column, column)), value, column)


def _number(command: str, value: Any, key: str, kind: Kind | None = None) -> _Numbers:
    """Yield a number under a command, and a count in short, too."""
    kind = kind or kind_of(key)
    yield command, quantity(value, kind)
    if kind is COUNT:
        yield f"{command}Short", quantity(value, cells.scaled(_UNITS.get(key, "")))


def _camel(column: str) -> str:
    """Return the name of a column as a part of a command: ``StoredBytes``."""
    return "".join(word.capitalize() for word in column.split("_"))
