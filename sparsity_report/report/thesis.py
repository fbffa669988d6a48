"""A study as parts of a thesis in LaTeX: figures, tables, and numbers that never go stale."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, TemplateError

import sparsity_report
from sparsity_report.draw import charts
from sparsity_report.draw.paper import draw, font_family, plates, variant_commands
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files import check_folder, write_file
from sparsity_report.findings.measured import LAYOUT_NAMES
from sparsity_report.findings.summary import baseline, conventions, summarize
from sparsity_report.report.latex import (
    Tex,
    bare_percent,
    clipped,
    command_names,
    decimal,
    prefixed,
    share,
    tex,
    whole,
)
from sparsity_report.report.page import environment
from sparsity_report.study.layers import records
from sparsity_report.study.study import Comparison, variant_stems
from sparsity_report.words.language import speaking, spoken
from sparsity_report.words.sentences import message, say

_TEMPLATES = ("numbers.tex", "captions.tex", "findings.tex", "sparsity-report.bib", "example.tex")
# Of this version.
_YEAR = 2026
_ENDS = {
    "most": message("Most sparse layers of {variant}: zeros ÷ weights"),
    "least": message("Least sparse layers of {variant}: zeros ÷ weights"),
}
_SIZES = {"stored_bytes": "B", "flops_per_token": "FLOPs", "useful_flops_per_token": "FLOPs"}


def write_thesis(
    study: Comparison,
    directory: str | os.PathLike[str],
    *,
    column_cm: float = 8.5,
    text_cm: float = 16.0,
    font: str | None = None,
    greyscale: bool = False,
    top: int = 10,
    template_dir: str | os.PathLike[str] | None = None,
    language: str | None = None,
) -> list[Path]:
    r"""Write figures, tables and numbers that a thesis in LaTeX takes in as they are.

    ``figures/<name>_column`` and ``figures/<name>_text`` as PDF, SVG and PNG (300 dpi), without a
    title: that is in ``captions.tex``. ``tables/*.tex`` are for booktabs and siunitx, with caption
    and label. ``numbers.tex`` names every figure a text would quote, such as
    ``\MaskedThirtySparsityModel``. ``findings.tex`` says what :func:`summarize` says,
    ``sparsity-report.bib`` is for citing, and ``example.tex`` uses all of it.

    Parameters
    ----------
    study : Comparison
    directory : path-like
        Made if missing.
    column_cm, text_cm : float
        Widths of the figures in centimetres.
    font : str, optional
        Font family of the figures, ``"Latin Modern Roman"`` say. It has to be installed, unless a
        generic family is named after it: ``"Palatino, serif"``.
    greyscale : bool
        Draw in black, white and greys, told apart by lightness and dashes.
    top : int
        Number of most and of least sparse layers in their tables.
    template_dir : path-like, optional
        Files in its folder ``thesis`` stand in for the package's own of the same name.
    language : str, optional
        See :func:`write_report`. Names of commands and files are the same in every language.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    SparsityReportError
        A width is impossible, the font is missing, a template is at fault, or a file cannot be
        written.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = sr.write_thesis(study, folder)
    >>> [path.name for path in written[:3]]
    ['sparsity_column.pdf', 'sparsity_column.svg', 'sparsity_column.png']
    """
    folder = Path(directory)
    widths = {"column": column_cm, "text": text_cm}
    for place, width in widths.items():
        if not 4 <= width <= 100:
            raise SparsityReportError(f"{place}_cm must be from 4 to 100 centimetres, not {width}")
    family = font_family(font)
    templates = environment(template_dir)
    check_folder(folder)
    with speaking(language, template_dir) if language else nullcontext():
        captions, files = _figures(study, widths, family, greyscale)
        tables = _tables(study, top, text_cm)
        files |= {f"tables/{name}.tex": table for name, table in tables.items()}
        shown = {
            "study": study,
            "language": spoken(),
            "models": tex(charts.model_names(study)),
            "fingerprints": tex(", ".join(study.variants["fingerprint"].unique())),
            "numbers": _numbers(study),
            "captions": captions,
            "tables": [Tex(name) for name in tables],
            "findings": summarize(study),
            "conventions": conventions(study),
            "version": sparsity_report.__version__,
            "year": _YEAR,
            "base": Tex(variant_commands(study)[baseline(study)]),
            "text_cm": text_cm,
            "column_cm": column_cm,
        }
        files |= _rendered(templates, shown)
    return [write_file(folder / name, content) for name, content in files.items()]


def _figures(
    study: Comparison, widths: dict[str, float], family: str | None, greyscale: bool
) -> tuple[dict[Tex, tuple[Tex, Tex]], dict[str, str | bytes]]:
    """Return by file name the figures' commands and captions, and what is drawn."""
    captions: dict[Tex, tuple[Tex, Tex]] = {}
    files: dict[str, str | bytes] = {}
    for plate in plates(study):
        for place, width in widths.items():
            chart = plate.draw(width=width * 72 / 2.54)
            if chart is None:
                break
            spec = chart.to_dict()
            title = spec.pop("title")
            note = title["subtitle"].replace(" · ", say("; "))
            said = say("{title}: {note}.", title=title["text"], note=note)
            captions[Tex(plate.file)] = (Tex(plate.command), tex(said))
            for kind, content in draw(spec, family, greyscale).items():
                files[f"figures/{plate.file}_{place}.{kind}"] = content
    return captions, files


def _tables(study: Comparison, top: int, text_cm: float) -> dict[str, str]:
    """Return the tables by file name."""
    names = variant_stems(study)
    tables = {"totals": _totals_table(study), "sparsity": _sparsity_table(study)}
    for variant, stem in names.items():
        tables[f"groups_{stem}"] = _groups_table(study, variant, stem)
    for variant in charts.distinct_prunings(study):
        tables[f"storage_{names[variant]}"] = _storage_table(study, variant, names[variant])
    if study.quality is not None and not study.quality.empty:
        tables["quality"] = _quality_table(study)
    for variant in charts.distinct_prunings(study):
        rows = charts.prunable_rows(study, variant).sort_values(
            "share", ascending=False, kind="stable"
        )
        for end, own in (("most", rows.head(top)), ("least", rows.iloc[::-1].head(top))):
            tables[f"layers_{end}_{names[variant]}"] = _layers_table(
                own, end, variant, names[variant], text_cm
            )
    return tables


def _totals_table(study: Comparison) -> str:
    totals, zeros = study.totals, tex(say("Zeros / %"))
    frame = pd.DataFrame({("", tex(say("Variant"))): [clipped(v, 30) for v in totals["variant"]]})
    for head, column in (
        (say("prunable"), "sparsity_prunable"),
        (say("non-emb."), "sparsity_non_embedding"),
        (say("model"), "sparsity_model"),
    ):
        frame[(zeros, tex(head))] = _percents(totals[column])
    for head, column in (
        (say("Stored\nbytes"), "stored_bytes"),
        (say("FLOPs\nper token"), "flops_per_token"),
    ):
        over, _, under = head.partition("\n")
        frame[(tex(over), tex(under))] = _integers(totals[column])
    caption = say(
        "Totals of {models}. Zeros are those of the prunable weights, of all parameters but "
        "embeddings and output head, and of all parameters.",
        models=charts.model_names(study),
    )
    return _latex(frame, caption, "totals")


def _sparsity_table(study: Comparison) -> str:
    pivot = study.pivot("sparsity")
    frame = pd.DataFrame({tex(say("Variant")): [clipped(v, 30) for v in pivot.columns]})
    for group, row in zip(pivot.index, pivot.to_numpy(), strict=True):
        frame[tex(charts.group_name(str(group)))] = _percents(row)
    caption = say(
        "Zeros of {models} in percent of each group's parameters, biases included.",
        models=charts.model_names(study),
    )
    return _latex(frame, caption, "sparsity")


def _groups_table(study: Comparison, variant: str, stem: str) -> str:
    own = study.groups[study.groups["variant"] == variant]
    columns = {
        say("Group"): [tex(charts.group_name(str(group))) for group in own["group"]],
        say("Modules"): _integers(own["modules"]),
        say("Parameters"): _integers(own["total"]),
        say("Nonzero"): _integers(own["nonzero"]),
        say("Zeros / %"): _percents(own["sparsity"]),
        say("FLOPs/token"): _integers(own["flops_per_token"]),
        say("Bytes"): _integers(own["stored_bytes"]),
    }
    caption = say(
        "Groups of modules of {variant}; zeros per parameter of the group.",
        variant=printable(variant, 40),
    )
    return _latex(_headed(columns), caption, f"groups-{stem}")


def _storage_table(study: Comparison, variant: str, stem: str) -> str:
    own = study.storage[(study.storage["variant"] == variant) & study.storage["bytes"].notna()]
    weights = own[own["scope"] == "prunable"]
    model = own[own["scope"] == "model"].set_index("layout").reindex(weights["layout"])
    columns = {
        say("Layout"): [tex(say(LAYOUT_NAMES[layout])) for layout in weights["layout"]],
        say("Prunable weights"): _integers(weights["bytes"]),
        say("÷ dense"): _decimals(weights["ratio"]),
        say("Whole model"): _integers(model["bytes"]),
        say("Break-even / %"): _percents(weights["break_even"]),
    }
    caption = say("Bytes of {variant} in every layout", variant=printable(variant, 40)) + "."
    return _latex(_headed(columns), caption, f"storage-{stem}")


def _quality_table(study: Comparison) -> str:
    frame = study.quality
    assert frame is not None
    columns = {
        say("Variant"): [clipped(name, 30) for name in frame["variant"]],
        say("Zeros / %"): _percents(frame["sparsity"]),
        say("Perplexity"): _decimals(frame["perplexity"]),
        say("First guesses right / %"): _percents(frame["top1"]),
    }
    first = frame.iloc[0]
    caption = say(
        "Perplexity and next-token accuracy on {text}: {scored:,} tokens in windows of {window:,}, "
        "stride {stride:,}.",
        text=printable(str(first["text"]), 40),
        scored=int(first["scored"]),
        window=int(first["window"]),
        stride=int(first["stride"]),
    )
    return _latex(_headed(columns), caption, "quality")


def _layers_table(own: pd.DataFrame, end: str, variant: str, stem: str, text_cm: float) -> str:
    columns = {
        say("Module"): [clipped(name, 80) for name in own["module_name"]],
        say("Weights"): _integers(own["weight_total"]),
        say("Zeros / %"): _percents(own["share"]),
    }
    long = own["module_name"].str.len().max() > 45
    caption = say(_ENDS[end], variant=printable(variant, 40))
    first_cm = text_cm - 6 if long else None
    return _latex(_headed(columns), caption, f"layers-{end}-{stem}", first_cm)


def _headed(columns: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({tex(head): cells for head, cells in columns.items()})


def _latex(frame: pd.DataFrame, caption: str, label: str, first_cm: float | None = None) -> str:
    """Write a table for booktabs and siunitx; its first column is text, the others numbers."""
    kinds = [f"S[table-format={_number_format(frame[column])}]" for column in frame.columns[1:]]
    first = f">{{\\raggedright\\arraybackslash}}p{{{first_cm:g}cm}}" if first_cm else "l"
    written: str = frame.style.hide(axis="index").to_latex(
        hrules=True,
        siunitx=True,
        column_format=" ".join([first, *kinds]),
        caption=tex(caption),
        label=f"tab:{label}",
        position="htbp",
        position_float="centering",
        multicol_align="c",
    )
    return written


def _number_format(cells: Iterable[str]) -> str:
    """Return the widest number of a column in siunitx's terms: <2.1 leaves room for <10.0."""
    parts = [re.fullmatch(r"([<>]?)(\d+)\.?(\d*)", cell) for cell in cells]
    found = [part.groups() for part in parts if part]
    sign = max((sign for sign, _, _ in found), default="")
    before, after = (max((len(part[k]) for part in found), default=1) for k in (1, 2))
    return f"{sign}{before}.{after}"


def _integers(column: Any) -> list[str]:
    return ["{\\textendash}" if pd.isna(cell) else str(int(cell)) for cell in column]


def _percents(column: Any) -> list[str]:
    return ["{\\textendash}" if pd.isna(cell) else bare_percent(cell) for cell in column]


def _decimals(column: Any) -> list[str]:
    return ["{\\textendash}" if pd.isna(cell) else f"{cell:.2f}" for cell in column]


def _numbers(study: Comparison) -> list[tuple[str, Tex]]:
    """Return a command for every number a text would quote."""
    commands: list[tuple[str, Tex]] = []
    variants, base = variant_commands(study), baseline(study)
    totals = records(study.totals)
    reference = next(row for row in totals if row["variant"] == base)
    for row in totals:
        name = variants[row["variant"]]
        commands.append((f"{name}Name", clipped(row["variant"], 40)))
        commands += _of_row(name, row, ("variant", "layout"))
        for column in ("stored_bytes", "flops_per_token"):
            known = pd.notna(row[column]) and pd.notna(reference[column]) and reference[column]
            ratio = row[column] / reference[column] if known else None
            commands.append((f"{name}{_camel(column)}Ratio", decimal(ratio)))
    groups = list(dict.fromkeys(study.groups["group"]))
    # In English whatever language is spoken: a text goes on to compile.
    named = dict(
        zip(groups, command_names(charts.GROUP_NAMES.get(g, g) for g in groups), strict=True)
    )
    for row in records(study.groups):
        name = f"{variants[row['variant']]}{named[row['group']]}"
        commands += _of_row(name, row, ("variant", "group"))
    commands += _measured_numbers(study, variants)
    names = command_names(name for name, _ in commands)
    return [(Tex(name), value) for name, (_, value) in zip(names, commands, strict=True)]


def _measured_numbers(study: Comparison, variants: Mapping[str, str]) -> list[tuple[str, Tex]]:
    """Perplexity, accuracy and whole forward passes of the study's variants."""
    made: list[tuple[str, Tex]] = []
    for row in [] if study.quality is None else records(study.quality):
        if name := variants.get(row["variant"]):
            made.append((f"{name}Perplexity", decimal(row["perplexity"])))
            made.append((f"{name}TopOne", share(row["top1"])))
    for row in [] if study.latency is None else records(study.latency):
        if row["scope"] == "model":
            name = f"{variants[row['variant']]}{row['tokens']}Tokens"
            made.append((f"{name}Realised", decimal(row["realised_speedup"])))
            made.append((f"{name}Promised", decimal(row["promised_speedup"])))
    return made


def _of_row(name: str, row: dict[str, Any], without: tuple[str, ...]) -> list[tuple[str, Tex]]:
    made = []
    for column, value in row.items():
        if column in without:
            continue
        command = name + _camel(column)
        if "sparsity" in column or column == "param_frac":
            made.append((command, share(value)))
        elif column == "threshold":
            made.append((command, decimal(value, ".6g")))
        else:
            made.append((command, whole(value)))
            made.append((f"{command}Short", prefixed(value, _SIZES.get(column, ""))))
    return made


def _camel(column: str) -> str:
    return "".join(word.capitalize() for word in column.split("_"))


def latex_templates(templates: Environment) -> Environment:
    """Return an environment for templates whose braces are LaTeX's: ``<<value>>``, ``<% if %>``."""
    return templates.overlay(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        autoescape=False,
        finalize=tex,
        keep_trailing_newline=True,
    )


def _rendered(templates: Environment, shown: dict[str, Any]) -> dict[str, str]:
    made = latex_templates(templates)
    try:
        return {n: made.get_template(f"thesis/{n}.j2").render(shown) for n in _TEMPLATES}
    except TemplateError as error:
        raise SparsityReportError(
            f"cannot write the thesis kit: {error!r}; check template_dir"
        ) from error
