"""A study as parts of a thesis in LaTeX: figures, tables, and numbers by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from jinja2 import Environment

import sparsity_report
from sparsity_report.draw.paper_figures import figure_of, files_of, font_family
from sparsity_report.errors import SparsityReportError, check_options
from sparsity_report.files.atomic import check_folder, write_file
from sparsity_report.findings.first_screen import model_names
from sparsity_report.findings.study_findings import conventions, study_findings
from sparsity_report.findings.verdict import verdict
from sparsity_report.report.checkpoint_sections import KINDS
from sparsity_report.report.markdown_report import to_markdown
from sparsity_report.report.sections import Drawing, Section
from sparsity_report.report.study_sections import bibtex, study_sections, weights
from sparsity_report.report.tables import latex, study_tables
from sparsity_report.report.tables.latex import Tex, quantity, tex, to_latex, variant_commands
from sparsity_report.report.templates import environment, render
from sparsity_report.study.derived.zero_shot import seven_tasks
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.files.study_sources import StudySource, study_or_saved
from sparsity_report.study.layers import records
from sparsity_report.study.schema import COLUMNS
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words import value_formats as formats
from sparsity_report.words.sentences import say
from sparsity_report.words.value_formats import COUNT, MULTIPLE, SHARE, TIMES, Format

_TEMPLATES = ("numbers.tex", "captions.tex", "findings.tex", "example.tex")

# Units of quantities with a short form.
_UNITS = {
    **dict.fromkeys(("total", "parameters"), ""),
    **dict.fromkeys(("stored_bytes", "file_bytes"), "B"),
    **dict.fromkeys(("flops_per_token", "useful_flops_per_token"), "FLOPs"),
}
# Columns whose commands have other names. That of attention is not one of the group attention.
_RENAMED = {
    "attention_flops_per_token": "attention_itself_flops_per_token",
    "flops_per_token": "performed_flops_per_token",
    "flops_per_sequence": "performed_flops_per_sequence",
}

_Numbers = Iterator[tuple[str, Tex]]


class Paper(TypedDict, total=False):
    """Options of figures: widths in centimeters, and font family."""

    column_cm: float
    text_cm: float
    font: str | None


def write_thesis(
    study: StudySource,
    folder: str | os.PathLike[str],
    *,
    template_dir: str | os.PathLike[str] | None = None,
    **paper: Unpack[Paper],
) -> list[Path]:
    r"""Write figures, tables and numbers for a thesis in LaTeX.

    The folder gets these files, or none of them:

    - ``figures/<name>_column`` and ``figures/<name>_text`` as PDF and SVG. Their
      titles are in ``captions.tex``.
    - ``tables/<name>.tex`` for booktabs and siunitx, with caption and label, and the same tables
      as ``.md``. ``results`` has every method with quality, size and speed.
    - ``numbers.tex``, a command for each number of totals, groups and results, such as
      ``\MaskedThirtySparsityModel`` or, of two checkpoints, ``\PrunableWeightsRemoved``.
    - ``findings.tex`` with the verdict and the sentences of :func:`summarize`,
      ``sparsity-report.bib`` for citations, and ``example.tex``, a document with all the others.

    Parameters
    ----------
    study : Study, Explorer or path-like
        The study to write, its explorer, or the path of a saved one.
    folder : path-like
        Created if missing.
    template_dir : path-like, optional
        Folder whose subfolder ``thesis`` replaces templates of the same name.
    **paper
        ``column_cm`` and ``text_cm``, widths of the figures in centimeters (8.5 and 16);
        ``font``, a font family such as ``"Latin Modern Roman"``, which must be installed unless a
        generic family follows it, as in ``"Palatino, serif"``.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    SparsityReportError
        A width is impossible, the font is missing, a template is faulty, or a file cannot be
        written.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = sr.write_thesis(study, folder)
    >>> [path.name for path in written[:2]]
    ['csr_bytes_column.pdf', 'csr_bytes_column.svg']
    """
    value: StudyFigures = study_or_saved("write_thesis", study)
    check_options("write_thesis", paper, Paper.__annotations__)
    widths = {"column": paper.get("column_cm", 8.5), "text": paper.get("text_cm", 16.0)}
    for place, width in widths.items():
        if not 4 <= width <= 100:
            raise SparsityReportError(f"{place}_cm must be from 4 to 100 centimeters, not {width}")
    folder, family = Path(folder), font_family(paper.get("font"))
    templates = latex_templates(environment(template_dir))
    check_folder(folder)
    sections = study_sections(value, "kit")
    captions, files = _figures(sections, widths, family)
    tables = [table for section in sections for table in section.tables]
    for table in tables:
        files |= {
            f"tables/{table.key}.tex": to_latex(table, table.key.replace("_", "-")),
            f"tables/{table.key}.md": to_markdown(table),
        }
    packings = value.facts.packings(value.facts.baseline)
    variables = {
        "numbers": commands_of(value),
        "captions": captions,
        "tables": [Tex(table.key) for table in tables],
        "version": sparsity_report.__version__,
        "findings": study_findings(value),
        "models": tex(model_names(value)),
        "verdict": verdict(value),
        "fingerprint": value.fingerprint,
        "weights": tex(weights(value)),
        "conventions": conventions(value),
        "packed": bool(packings),
        "size": Tex("FileBytes" if packings else "StoredBytes"),
        "base": Tex(variant_commands(value)[value.facts.baseline]),
        **{f"{place}_cm": width for place, width in widths.items()},
    }
    files["sparsity-report.bib"] = "\n".join([*bibtex(value), ""])
    files |= {
        file: render(templates, f"thesis/{file}.j2", variables, "write the thesis kit")
        for file in _TEMPLATES
    }
    return [write_file(folder / path, content) for path, content in files.items()]


def _figures(
    sections: Iterable[Section], widths: Mapping[str, float], family: str | None
) -> tuple[dict[Tex, tuple[Tex, Tex]], dict[str, str | bytes]]:
    """Return the commands and captions of the figures by file name, and the files."""
    captions: dict[Tex, tuple[Tex, Tex]] = {}
    files: dict[str, str | bytes] = {}
    blocks = (block for section in sections for block in section.blocks)
    for drawing in (block for block in blocks if isinstance(block, Drawing)):
        for place, width in widths.items():
            chart = drawing.draw(width=width * 72 / 2.54)
            if chart is None:
                break
            title, note, plain = figure_of(chart, family)
            clauses = filter(None, note.split(" · "))
            caption = say("format.paragraph", statements=[title, *clauses])
            captions[Tex(drawing.file)] = (Tex(drawing.command), tex(caption))
            for kind, content in files_of(plain).items():
                files[f"figures/{drawing.file}_{place}.{kind}"] = content
    return captions, files


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


def commands_of(study: StudyFigures) -> list[tuple[Tex, Tex]]:
    """Return the names of LaTeX commands, all different, and their numbers."""
    numbers = [*_variant_numbers(study), *_checkpoint_numbers(study)]
    names = latex.command_names((command for command, _ in numbers), longest=None)
    return [(Tex(command), text) for command, (_, text) in zip(names, numbers, strict=True)]


def _variant_numbers(study: StudyFigures) -> _Numbers:
    """Yield the numbers of the tables of totals and of groups, then those of measurements."""
    variants, is_packed = variant_commands(study), study.facts.packings(study.facts.baseline)
    totals = (total.column.name for total in study_tables.total_rows(study))
    names = " ".join(name for name in totals if name in COLUMNS)
    for row, (name, command) in zip(study_tables.by_variant(study), variants.items(), strict=True):
        yield f"{command}Name", tex(short_name(name))
        yield from _cells(command, row, names)
        for column in ("stored_bytes", "flops_per_token"):
            ratio = study.facts.ratio(name, column)
            to_file = "ToFile" if is_packed and column == "stored_bytes" else ""
            yield f"{command}{_camel(column)}{to_file}Ratio", quantity(ratio, MULTIPLE)
    groups = latex.group_commands(study.groups["group"].unique())
    columns = study_tables.group_columns(study).removeprefix("group ")
    for group in records(study.groups):
        stem = variants[group["variant"]] + groups[group["group"]]
        yield from _cells(stem, group, columns)
    yield from _measured_numbers(study, variants)


def _measured_numbers(study: StudyFigures, variants: Mapping[str, str]) -> _Numbers:
    """Yield perplexities, speeds of whole forward passes and zero-shot accuracies."""
    for row in [] if study.quality is None else records(study.quality):
        if stem := variants.get(row["variant"]):
            vocabulary = study.facts.vocabulary(row["variant"])
            yield f"{stem}Perplexity", quantity(row["perplexity"], formats.perplexity(vocabulary))
            yield f"{stem}PerplexityProtocol", tex(row["protocol"])
            yield f"{stem}TopOne", quantity(row["top1"], SHARE)
            is_same = study.facts.paired(row).are_alike(row["variant"], row["against"])
            # A divergence of equal weights is rounding.
            yield f"{stem}KL", quantity(0.0 if is_same else row["kl"], COLUMNS["kl"].format)
            yield from _cells(stem, row, "agreement flips")
    speeds = study.facts.speeds
    for row in [] if speeds is None else records(speeds[speeds["scope"] == "model"]):
        stem = f"{variants[row['variant']]}{row['tokens']}Tokens"
        yield f"{stem}Promised", quantity(row["promised_speedup"], TIMES)
        if row["verdict"] == "stated":
            yield f"{stem}Realised", quantity(row["realised_speedup"], TIMES)
            yield from _cells(stem, row, "realised_low realised_high")
    scores = None if study.tasks is None else seven_tasks(study.tasks)
    for row in [] if scores is None else records(scores):
        stem = f"{variants[row['variant']]}ZeroShot{_camel(row['task'])}"
        yield stem, quantity(row["value"], formats.share(2))
        yield f"{stem}Error", quantity(row["stderr"], formats.share(2))


def _cells(stem: str, row: Mapping[str, Any], columns: str) -> _Numbers:
    """Yield columns of a row, and in short those of large quantities."""
    for column in columns.split():
        command = stem + _camel(column)
        yield from _number(command, row[column], column, COLUMNS[column].format)


def _checkpoint_numbers(study: StudyFigures) -> _Numbers:
    """Yield the numbers of two checkpoints: removed sizes, shares of the base, fate of zeros."""
    changes = study.facts.table("changes")
    for row in records(changes[changes["group"].isna()]):
        stem = _camel(row["figure"])
        yield from _number(f"{stem}Removed", row["removed"], row["figure"])
        yield f"{stem}RemovedShare", quantity(row["share"], SHARE)
    for part, share in study.facts.base_shares.items():
        yield f"{_camel(part)}GoneOfBase", quantity(share, SHARE)
    groups = latex.group_commands(study.facts.table("survival")["group"])
    for row in records(study.facts.table("survival")):
        stem = groups[row["group"]]
        yield from _cells(stem, row, "compared zeros_before zeros_after kept revived new")
        yield from _cells(stem, row, "kept_share iou relative_change changed")
    for kind, rows in study.facts.table("removed").groupby("kind", sort=False):
        yield from _number(f"{KINDS[str(kind)]}Gone", len(rows), "gone")
        yield from _number(f"{KINDS[str(kind)]}GoneWeights", int(rows["weights"].sum()), "")


def _number(command: str, value: Any, key: str, form: Format = COUNT) -> _Numbers:
    """Yield a number under a command, and in short where it is a large quantity."""
    yield command, quantity(value, form)
    if key in _UNITS:
        yield f"{command}Short", quantity(value, formats.scaled(_UNITS[key]))


def _camel(column: str) -> str:
    """Return the name of a column as a part of a command: ``StoredBytes``."""
    name = _RENAMED.get(column, column)
    return "".join(word.capitalize() for word in name.split("_"))
