"""A study as parts of a thesis in LaTeX: figures, tables, and numbers that never go stale."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
import vl_convert
from jinja2 import Environment, TemplateError

import sparsity_report
from sparsity_report import charts
from sparsity_report.comparison import Comparison, variant_stems
from sparsity_report.errors import SparsityReportError
from sparsity_report.files import check_folder, write_file
from sparsity_report.findings import baseline, conventions, summarize
from sparsity_report.latex import (
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
from sparsity_report.report import environment
from sparsity_report.structure import records

_GENERIC = {"serif", "sans-serif", "monospace", "cursive", "fantasy", "system-ui"}
_DASHES = [[1, 0], [7, 2], [4, 2, 1, 2], [1.5, 2]]
_TEMPLATES = ("numbers.tex", "captions.tex", "findings.tex", "sparsity-report.bib", "example.tex")
# Of this version.
_YEAR = 2026
_SIZES = {"stored_bytes": "B", "flops_per_token": "FLOPs", "useful_flops_per_token": "FLOPs"}


class Plate(NamedTuple):
    """A figure: how to draw it at any width, and the text that goes with it."""

    file: str
    command: str
    draw: Callable[[float], alt.LayerChart | None]


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
    family = _family(font)
    templates = environment(template_dir)
    check_folder(folder)

    files: dict[str, str | bytes] = {}
    captions: dict[str, tuple[str, Tex]] = {}
    for plate in _plates(study):
        for place, width in widths.items():
            chart = plate.draw(width * 72 / 2.54)
            if chart is None:
                break
            spec = chart.to_dict()
            title = spec.pop("title")
            said = f"{title['text']}: {title['subtitle']}.".replace(" · ", "; ")
            captions[plate.file] = (Tex(plate.command), tex(said))
            for kind, content in _drawn(spec, family, greyscale).items():
                files[f"figures/{plate.file}_{place}.{kind}"] = content
    tables = _tables(study, top, text_cm)
    files |= {f"tables/{name}.tex": table for name, table in tables.items()}
    shown = {
        "study": study,
        "models": tex(charts.model_names(study)),
        "fingerprints": tex(", ".join(study.variants["fingerprint"].unique())),
        "numbers": _numbers(study),
        "captions": captions,
        "tables": list(tables),
        "findings": summarize(study),
        "conventions": conventions(study),
        "version": sparsity_report.__version__,
        "year": _YEAR,
        "base": Tex(_variant_commands(study)[baseline(study)]),
        "text_cm": text_cm,
        "column_cm": column_cm,
    }
    files |= _rendered(templates, shown)
    return [write_file(folder / name, content) for name, content in files.items()]


def _plates(study: Comparison) -> list[Plate]:
    plates = [
        Plate(look.file, name, lambda width, metric=metric: charts.group_bars(study, metric, width))
        for (metric, look), name in zip(
            charts.METRICS.items(), ("Sparsity", "Parameters", "Flops"), strict=True
        )
    ]
    stems, names = variant_stems(study), _variant_commands(study)
    plates += [
        Plate(
            f"map_{stems[variant]}",
            f"Map{names[variant]}",
            lambda width, variant=variant: charts.sparsity_map(study, variant, width),
        )
        for variant in charts.distinct_prunings(study)
    ]
    return [*plates, Plate("csr_bytes", "Bytes", lambda w: charts.csr_bytes_curve(study, w))]


def _drawn(spec: dict[str, Any], family: str | None, greyscale: bool) -> dict[str, str | bytes]:
    """Draw once, as SVG, and turn that into the other formats."""
    if family:
        spec["config"]["font"] = family
    if greyscale:
        spec = _grey(spec)
    svg = vl_convert.vegalite_to_svg(spec, vl_version=charts.VEGALITE, allowed_base_urls=[])
    # A point is a point for whoever places the file, too.
    sized = re.sub(r'(<svg[^>]*? width="[\d.]+)(" height="[\d.]+)', r"\1pt\2pt", svg, count=1)
    return {"pdf": vl_convert.svg_to_pdf(svg), "svg": sized, "png": _png(svg)}


def _png(svg: str) -> bytes:
    data: bytes = vl_convert.svg_to_png(svg, scale=1, ppi=300)
    return data


def _grey(part: Any, channel: str = "") -> Any:
    """Take the colours out of a chart: bars get steps of lightness, lines dashes."""
    if isinstance(part, list):
        return [_grey(item, channel) for item in part]
    if isinstance(part, str):
        return _as_grey(part) if re.fullmatch("#[0-9a-fA-F]{6}", part) else part
    if not isinstance(part, dict):
        return part
    made = {
        # Names in the data may look like colours.
        key: item if key in {"data", "datasets", "domain"} else _grey(item, key)
        for key, item in part.items()
    }
    scale = made.get("scale", {})
    if "scheme" in scale:
        made["scale"] = {**scale, "scheme": "greys", "reverse": True}
    elif "range" in scale:
        made["scale"] = {**scale, "range": _grey_range(channel, len(scale["range"]))}
    return made


def _grey_range(channel: str, steps: int) -> list[Any]:
    if channel == "strokeDash":
        return [_DASHES[step % len(_DASHES)] for step in range(steps)]
    if channel == "fill":
        return [_hex(255 - 255 * step / max(1, steps - 1)) for step in range(steps)]
    return ["#000000"] * steps


def _as_grey(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return _hex(0.299 * red + 0.587 * green + 0.114 * blue)


def _hex(level: float) -> str:
    return f"#{round(level):02x}" + f"{round(level):02x}" * 2


def _family(font: str | None) -> str | None:
    """Return a list of families that ends in a generic one, so that no text can vanish."""
    if font is None:
        return None
    names = [name.strip().strip("'\"") for name in font.split(",")]
    named = [name for name in names if name and name not in _GENERIC]
    if named == names and not any(map(_installed, named)):
        raise SparsityReportError(
            f"font {font!r} is not installed on this machine; install it, name another, or name a "
            f"generic family after it: {font + ', serif'!r}"
        )
    generic = [name for name in names if name in _GENERIC] or ["sans-serif"]
    return ", ".join([*(f"'{name}'" for name in named), *generic])


def _installed(name: str) -> bool:
    """Whether text in a family, and in no other, leaves a trace in a PDF."""
    text = f'<text y="9" font-family="{html.escape(repr(name))}">Hg</text>'
    drawn: bytes = vl_convert.svg_to_pdf(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{text}</svg>'
    )
    return b"/Font" in drawn


def _tables(study: Comparison, top: int, text_cm: float) -> dict[str, str]:
    """Return the tables by file name."""
    names, of = variant_stems(study), tex(charts.model_names(study))
    tables = {"totals": _totals_table(study, of), "sparsity": _sparsity_table(study, of)}
    for variant, stem in names.items():
        tables[f"groups_{stem}"] = _groups_table(study, variant, stem)
    for variant in charts.distinct_prunings(study):
        rows = charts.prunable_rows(study, variant).sort_values(
            "share", ascending=False, kind="stable"
        )
        for end, own in (("most", rows.head(top)), ("least", rows.iloc[::-1].head(top))):
            tables[f"layers_{end}_{names[variant]}"] = _layers_table(
                own, end, variant, names[variant], text_cm
            )
    return tables


def _totals_table(study: Comparison, of: Tex) -> str:
    totals = study.totals
    frame = pd.DataFrame({("", "Variant"): [clipped(v, 30) for v in totals["variant"]]})
    for head, column in (
        ("prunable", "sparsity_prunable"),
        ("non-emb.", "sparsity_non_embedding"),
        ("model", "sparsity_model"),
    ):
        frame[("Zeros / \\%", head)] = _percents(totals[column])
    frame[("Stored", "bytes")] = _integers(totals["stored_bytes"])
    frame[("FLOPs", "per token")] = _integers(totals["flops_per_token"])
    caption = (
        f"Totals of {of}. Zeros are those of the prunable weights, of all parameters but "
        "embeddings and output head, and of all parameters."
    )
    return _latex(frame, caption, "totals")


def _sparsity_table(study: Comparison, of: Tex) -> str:
    pivot = study.pivot("sparsity")
    frame = pd.DataFrame({"Variant": [clipped(v, 30) for v in pivot.columns]})
    for group, row in zip(pivot.index, pivot.to_numpy(), strict=True):
        frame[tex(charts.group_name(str(group)))] = _percents(row)
    caption = f"Zeros of {of} in percent of each group's parameters, biases included."
    return _latex(frame, caption, "sparsity")


def _groups_table(study: Comparison, variant: str, stem: str) -> str:
    own = study.groups[study.groups["variant"] == variant]
    frame = pd.DataFrame(
        {
            "Group": [tex(charts.group_name(str(group))) for group in own["group"]],
            "Modules": _integers(own["modules"]),
            "Parameters": _integers(own["total"]),
            "Nonzero": _integers(own["nonzero"]),
            "Zeros / \\%": _percents(own["sparsity"]),
            "FLOPs/token": _integers(own["flops_per_token"]),
            "Bytes": _integers(own["stored_bytes"]),
        }
    )
    caption = f"Groups of modules of {clipped(variant, 40)}; zeros per parameter of the group."
    return _latex(frame, caption, f"groups-{stem}")


def _layers_table(own: pd.DataFrame, end: str, variant: str, stem: str, text_cm: float) -> str:
    frame = pd.DataFrame(
        {
            "Module": [clipped(name, 80) for name in own["module_name"]],
            "Weights": _integers(own["weight_total"]),
            "Zeros / \\%": _percents(own["share"]),
        }
    )
    caption = f"The {end} sparse layers of {clipped(variant, 40)}: zeros per weight."
    return _latex(frame, caption, f"layers-{end}-{stem}", first_cm=text_cm - 6)


def _latex(frame: pd.DataFrame, caption: str, label: str, first_cm: float | None = None) -> str:
    """Write a table for booktabs and siunitx; its first column is text, the others numbers."""
    widest = [
        max((len(re.sub(r"\D.*", "", cell)) for cell in frame[column]), default=1) or 1
        for column in frame.columns[1:]
    ]
    points = [any("." in cell for cell in frame[column]) for column in frame.columns[1:]]
    kinds = [
        f"S[table-format={digits}{'.1' if point else '.0'}]"
        for digits, point in zip(widest, points, strict=True)
    ]
    first = f">{{\\raggedright\\arraybackslash}}p{{{first_cm:g}cm}}" if first_cm else "l"
    written: str = frame.style.hide(axis="index").to_latex(
        hrules=True,
        siunitx=True,
        column_format=" ".join([first, *kinds]),
        caption=caption,
        label=f"tab:{label}",
        position="htbp",
        position_float="centering",
        multicol_align="c",
    )
    return written


def _integers(column: Any) -> list[str]:
    return ["{\\textendash}" if pd.isna(cell) else str(int(cell)) for cell in column]


def _percents(column: Any) -> list[str]:
    return ["{\\textendash}" if pd.isna(cell) else bare_percent(cell) for cell in column]


def _variant_commands(study: Comparison) -> dict[str, str]:
    variants = list(study.variants["variant"])
    return dict(zip(variants, command_names(variants), strict=True))


def _numbers(study: Comparison) -> list[tuple[str, Tex]]:
    """Return a command for every number a text would quote."""
    commands: list[tuple[str, Tex]] = []
    variants, base = _variant_commands(study), baseline(study)
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
    named = dict(zip(groups, command_names(map(charts.group_name, groups)), strict=True))
    for row in records(study.groups):
        name = f"{variants[row['variant']]}{named[row['group']]}"
        commands += _of_row(name, row, ("variant", "group"))
    names = command_names(name for name, _ in commands)
    return [(Tex(name), value) for name, (_, value) in zip(names, commands, strict=True)]


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


def _rendered(templates: Environment, shown: dict[str, Any]) -> dict[str, str]:
    made = templates.overlay(
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
    try:
        return {n: made.get_template(f"thesis/{n}.j2").render(shown) for n in _TEMPLATES}
    except TemplateError as error:
        raise SparsityReportError(
            f"cannot write the thesis kit: {error!r}; check template_dir"
        ) from error
