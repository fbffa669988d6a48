"""A study as parts of a thesis in LaTeX: figures, tables, and numbers that never go stale."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from jinja2 import Environment

import sparsity_report
from sparsity_report.draw.paper_figures import draw, font_family, plates
from sparsity_report.draw.theme import model_names
from sparsity_report.draw.vega import unchecked
from sparsity_report.errors import SparsityReportError, check_options
from sparsity_report.files.atomic import check_folder, together, write_file
from sparsity_report.findings.summary import conventions
from sparsity_report.hooks import hooks
from sparsity_report.report.tables import method_tables as grids
from sparsity_report.report.tables import speed_tables as speeds
from sparsity_report.report.tables import study_tables as tables
from sparsity_report.report.tables.latex import (
    Tex,
    group_commands,
    quantity,
    tex,
    to_latex,
    variant_commands,
)
from sparsity_report.report.tables.markdown import to_markdown
from sparsity_report.report.tables.policy_table import side_by_side
from sparsity_report.report.tables.table_model import SHARE, Table, figures, kind_of, share, to_html
from sparsity_report.report.templates import environment, render
from sparsity_report.report.thesis.kit import Drawing, Kit, camel, commands_of, number
from sparsity_report.report.thesis.pair_thesis import pair_kit
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.zero_shot import seven_tasks
from sparsity_report.study.files.csv_files import variant_stems
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.column_titles import head as title
from sparsity_report.words.languages import speaking, spoken
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from typing_extensions import Unpack

_TEMPLATES = ("numbers.tex", "captions.tex", "findings.tex", "sparsity-report.bib", "example.tex")
# What columns of figures side by side take beside the words of their rows.
_COMPARED_CM = 11
# Of this version.
_YEAR = 2026
_TOTALS = (
    "sparsity_prunable",
    "sparsity_non_embedding",
    "sparsity_model",
    "stored_bytes",
    "flops_per_token",
)
_GROUPS = ("modules", "total", "nonzero", "sparsity", "flops_per_token", "stored_bytes")
_STORAGE = ("bytes", "ratio", "model_bytes", "break_even")
# So that it is not taken for that of the group called attention.
_RENAMED = {"attention_flops_per_token": "attention_itself_flops_per_token"}
_RATIO = figures(".2f")
# Rows of scores that a page of a thesis holds.
_SCORES = 40
# Variants whose scores with ± stand side by side.
_SCORED = 5
# Letters of a module's name from which it has to break in its column.
_LONG_NAME = 45


class Paper(TypedDict, total=False):
    """How the figures look: widths in centimetres, family of their text, colours or greys."""

    column_cm: float
    text_cm: float
    font: str | None
    greyscale: bool


def write_thesis(
    study: Comparison | Pair,
    directory: str | os.PathLike[str],
    *,
    top: int = 10,
    template_dir: str | os.PathLike[str] | None = None,
    language: str | None = None,
    **paper: Unpack[Paper],
) -> list[Path]:
    r"""Write figures, tables and numbers that a thesis in LaTeX takes in as they are.

    ``figures/<name>_column`` and ``figures/<name>_text`` as PDF, SVG and PNG (300 dpi), without a
    title: that is in ``captions.tex``. ``tables/*.tex`` are for booktabs and siunitx, with caption
    and label, and the same as ``.md`` and ``.html``; ``compared`` has several prunings side by
    side; where they were scored, ``perplexity_grid`` has methods by sparsity and model,
    ``zero_shot_grid`` by sparsity and task, the best in bold. ``numbers.tex`` names every figure a
    text would quote, such as ``\MaskedThirtySparsityModel``. ``findings.tex`` says what
    :func:`summarize` says, ``sparsity-report.bib`` is for citing, and ``example.tex`` uses all of
    it. All files are written, or none is.

    Of two checkpoints the figures are where they differ, what is gone and how their zeros overlap,
    and numbers are such as ``\PrunableWeightsRemoved``.

    Parameters
    ----------
    study : Comparison or Pair
    directory : path-like
        Made if missing.
    top : int
        Number of most and of least sparse layers in their tables.
    template_dir : path-like, optional
        Files in its folder ``thesis`` stand in for the package's own of the same name.
    language : str, optional
        See :func:`write_report`. Names of commands and files are the same in every language.
    column_cm, text_cm : float
        Widths of the figures in centimetres, 8.5 and 16 unless told.
    font : str, optional
        Font family of the figures, ``"Latin Modern Roman"`` say. It has to be installed, unless a
        generic family is named after it: ``"Palatino, serif"``.
    greyscale : bool
        Draw in black, white and greys, told apart by lightness and dashes.

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
    check_options("write_thesis", paper, Paper.__annotations__)
    widths = {"column": paper.get("column_cm", 8.5), "text": paper.get("text_cm", 16.0)}
    for place, width in widths.items():
        if not 4 <= width <= 100:
            raise SparsityReportError(f"{place}_cm must be from 4 to 100 centimetres, not {width}")
    folder, family = Path(directory), font_family(paper.get("font"))
    templates = latex_templates(environment(template_dir))
    check_folder(folder)
    with speaking(language, template_dir) if language else nullcontext():
        kit = pair_kit(study, top) if isinstance(study, Pair) else _kit(study, top)
        captions, files = _figures(kit, widths, family, paper.get("greyscale", False))
        for stem, table in kit.tables.items():
            files |= {
                f"tables/{stem}.tex": _latex(stem, table, widths["text"]),
                f"tables/{stem}.md": to_markdown(table),
                f"tables/{stem}.html": f"{to_html(table)}\n",
            }
        shown = {
            "language": spoken(),
            "numbers": commands_of(kit.numbers),
            "captions": captions,
            "tables": [Tex(stem) for stem in kit.tables],
            "version": sparsity_report.__version__,
            "year": _YEAR,
            **kit.shown,
            **{f"{place}_cm": width for place, width in widths.items()},
        }
        files |= {
            file: render(templates, f"thesis/{file}.j2", shown, "write the thesis kit")
            for file in _TEMPLATES
        }
    with together(folder):
        return [write_file(folder / path, content) for path, content in files.items()]


def _kit(study: Comparison, top: int) -> Kit:
    """Return what a thesis takes of a study."""
    variants = variant_commands(study)
    drawings = [
        Drawing(p.file, p.name + (variants[p.variant] if p.variant else ""), p.draw)
        for p in plates(study)
    ]
    shown = {
        "study": study,
        "models": tex(model_names(study)),
        "fingerprints": tex(", ".join(study.variants["fingerprint"].unique())),
        "findings": hooks.sentences(study),
        "conventions": conventions(study),
        "packed": bool(study.facts.packings(study.facts.baseline)),
        "base": Tex(variants[study.facts.baseline]),
        "pair": False,
    }
    return Kit(drawings, _tables(study, top), _numbers(study), shown)


@unchecked()
def _figures(
    kit: Kit, widths: Mapping[str, float], family: str | None, greyscale: bool
) -> tuple[dict[Tex, tuple[Tex, Tex]], dict[str, str | bytes]]:
    """Return by file name the figures' commands and captions, and what is drawn."""
    captions: dict[Tex, tuple[Tex, Tex]] = {}
    files: dict[str, str | bytes] = {}
    for drawing in kit.drawings:
        for place, width in widths.items():
            chart = drawing.draw(width=width * 72 / 2.54)
            if chart is None:
                break
            spec = chart.to_dict(validate=False)
            title = spec.pop("title")
            note = title.get("subtitle", "").replace(" · ", say("format.clause_separator"))
            said = "format.title_note" if note else "format.title_sentence"
            caption = say(said, title=title["text"], note=note)
            captions[Tex(drawing.file)] = (Tex(drawing.command), tex(caption))
            for kind, content in draw(spec, family, greyscale).items():
                files[f"figures/{drawing.file}_{place}.{kind}"] = content
    return captions, files


def _tables(study: Comparison, top: int) -> dict[str, Table]:
    """Return the tables by file name."""
    stems, prunings, head = variant_stems(study), study.facts.prunings, say("column.variant")
    of_totals = say("thesis.totals_caption", models=model_names(study))
    of_sparsity = say("thesis.group_zeros_caption", models=model_names(study))
    parts = {
        "totals": tables.totals(study).turned(head).only(*_TOTALS).called(of_totals),
        "sparsity": tables.comparison(study, "sparsity").turned(head).called(of_sparsity),
    }
    for place, part in enumerate(side_by_side(study), 1):
        parts["compared" if place == 1 else f"compared_{place}"] = part
    for variant, stem in stems.items():
        parts[f"groups_{stem}"] = tables.groups(study, variant).only(*_GROUPS)
    for variant in prunings:
        parts[f"storage_{stems[variant]}"] = tables.storage(study, variant).only(*_STORAGE)
    if quality := tables.quality(study):
        parts["quality"] = quality
    if distance := tables.distance(study):
        parts["distance"] = distance
    if continuations := tables.continuations(study):
        parts["continuations"] = continuations
    if seven := tables.zero_shot(study):
        # Eight columns of ± are too wide, and so are those of many variants.
        of_few = seven.turned(title("task")).parts(_SCORED, seven.caption)
        parts |= {f"zero_shot_{n}" if n > 1 else "zero_shot": t for n, t in enumerate(of_few, 1)}
    if (scores := tables.tasks(study)) and len(scores.rows) <= _SCORES:
        parts["tasks"] = scores
    parts |= {grid.key: grid for grid in grids.method_grids(study)}
    if tasks := grids.task_grid(study):
        parts[tasks.key] = tasks
    if speedups := speeds.speedups(study):
        parts[speedups.key] = speedups
    for variant in prunings:
        for table in tables.extremes(study, variant, top) or ():
            parts[f"{table.key}_{stems[variant]}"] = table
    return parts


def _latex(stem: str, table: Table, text_cm: float) -> str:
    long = any(len(row.cells[0].text) > _LONG_NAME for row in table.rows)
    first_cm = text_cm - 6 if long else None
    if table.key == "compared":
        first_cm = text_cm - _COMPARED_CM
    return to_latex(table, stem.replace("_", "-"), first_cm)


def _numbers(study: Comparison) -> list[tuple[str, Tex]]:
    """Return a command for every number a text would quote."""
    commands: list[tuple[str, Tex]] = []
    variants = variant_commands(study)
    for row in records(study.totals):
        stem = variants[row["variant"]]
        commands.append((f"{stem}Name", tex(short_name(row["variant"]))))
        commands += _of_row(stem, row, ("variant", "layout"))
        bits = study.facts.bits_per_weight(row["variant"])
        commands.append((f"{stem}BitsPerWeight", quantity(bits, _RATIO)))
        for column in ("stored_bytes", "flops_per_token"):
            ratio = study.facts.ratio(row["variant"], column)
            commands.append((f"{stem}{camel(column)}Ratio", quantity(ratio, _RATIO)))
    groups = list(dict.fromkeys(study.groups["group"]))
    # In English whatever language is spoken: a text goes on to compile.
    english = group_commands(groups)
    named = dict(zip(groups, english, strict=True))
    for row in records(study.groups):
        stem = f"{variants[row['variant']]}{named[row['group']]}"
        commands += _of_row(stem, row, ("variant", "group"))
    return [*commands, *_measured_numbers(study, variants)]


def _measured_numbers(study: Comparison, variants: Mapping[str, str]) -> Iterator[tuple[str, Tex]]:
    """Yield perplexity, accuracy and whole forward passes of the study's variants."""
    for row in [] if study.quality is None else records(study.quality):
        if stem := variants.get(row["variant"]):
            yield f"{stem}Perplexity", quantity(row["perplexity"], _RATIO)
            yield f"{stem}PerplexityProtocol", tex(row["protocol"])
            yield f"{stem}TopOne", quantity(row["top1"], SHARE)
            yield f"{stem}KL", quantity(row["kl"], kind_of("kl"))
            yield f"{stem}Agreement", quantity(row["agreement"], kind_of("agreement"))
            yield f"{stem}Flips", quantity(row["flips"], kind_of("flips"))
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
        stem = f"{variants[row['variant']]}ZeroShot{camel(row['task'])}"
        yield stem, quantity(row["value"], share(2))
        yield f"{stem}Error", quantity(row["stderr"], share(2))


def _of_row(stem: str, row: dict[str, Any], without: tuple[str, ...]) -> Iterator[tuple[str, Tex]]:
    for column, value in row.items():
        if column in without:
            continue
        yield from number(stem + camel(_RENAMED.get(column, column)), value, column)


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
