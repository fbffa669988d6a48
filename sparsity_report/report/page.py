"""A study as one self-contained file, HTML or PDF, that opens anywhere and never loads anything.

Jinja2 writes the structure; Python hands it plain values, which reach the page escaped.
"""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape
from markupsafe import Markup, escape

from sparsity_report.draw.fonts import font_face_css
from sparsity_report.draw.vega import bundle
from sparsity_report.errors import SparsityReportError
from sparsity_report.files import write_file
from sparsity_report.findings.difference import Difference
from sparsity_report.report.cells import to_html
from sparsity_report.report.pdf import typeset
from sparsity_report.report.values import context, difference_context
from sparsity_report.study.study import Comparison
from sparsity_report.words import numbers
from sparsity_report.words.language import speaking, template_folders
from sparsity_report.words.names import clip, group_name, method_name, unturned
from sparsity_report.words.sentences import say


def write_report(
    study: Comparison,
    path: str | os.PathLike[str],
    *,
    template_dir: str | os.PathLike[str] | None = None,
    language: str | None = None,
) -> Path:
    """Write a study as one file with everything in it: numbers, charts, tables, conventions.

    Parameters
    ----------
    study : Comparison
    path : path-like
        Ends in ``.html`` or ``.pdf``.
    template_dir : path-like, optional
        Files here stand in for the package's own of the same name, such as ``report.css``.
    language : str, optional
        ``"en"``, ``"fr"``, or one with a catalogue ``languages/<language>.json`` in `template_dir`;
        default the one spoken, see :func:`sparsity_report.speaking`.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    SparsityReportError
        Another file type is asked for, a template is at fault, or the file cannot be written.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sr.write_report(study, f"{folder}/report.html").name
    'report.html'
    """
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in {".html", ".pdf"}:
        raise SparsityReportError(f"cannot write {target}: reports are .html or .pdf files")
    with speaking(language, template_dir) if language else nullcontext():
        shown, page = context(study, paper=kind == ".pdf"), b""
        if kind == ".pdf":
            page = typeset(environment(template_dir), shown)
        else:
            page = _render("report.html.j2", template_dir, shown, script=Markup(bundle())).encode()
    return write_file(target, page)


def write_diff(
    difference: Difference,
    path: str | os.PathLike[str],
    *,
    names: tuple[str, str] | None = None,
    template_dir: str | os.PathLike[str] | None = None,
    language: str | None = None,
) -> Path:
    """Write what changed between two studies as one HTML file.

    Parameters
    ----------
    difference : Difference
        From :func:`sparsity_report.diff`.
    path : path-like
        Ends in ``.html``.
    names : tuple of str, optional
        What to call the studies; default their models and fingerprints.
    template_dir, language : optional
        See :func:`write_report`.

    Returns
    -------
    pathlib.Path
        The path written.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sr.write_diff(sr.diff(study, study), f"{folder}/diff.html").name
    'diff.html'
    """
    target = Path(path)
    if target.suffix.lower() != ".html":
        raise SparsityReportError(f"cannot write {target}: what changed is an .html file")
    with speaking(language, template_dir) if language else nullcontext():
        values = difference_context(difference, names)
        return write_file(target, _render("diff.html.j2", template_dir, values))


def _render(
    name: str,
    template_dir: str | os.PathLike[str] | None,
    values: dict[str, Any],
    **further: Markup,
) -> str:
    try:
        template = environment(template_dir).get_template(name)
        return template.render(values, page=values, **further)
    except TemplateError as error:
        raise SparsityReportError(
            f"cannot render the report: {error!r}; check template_dir"
        ) from error


def environment(template_dir: str | os.PathLike[str] | None = None) -> Environment:
    """Return the one Jinja2 environment: the user's templates first, then the package's.

    HTML templates escape every value; an undefined one is an error.

    Examples
    --------
    >>> environment().from_string("{{ 1234567 | count }} {{ none | percent }}").render()
    '1\u202f234\u202f567 –'
    """
    templates = Environment(
        loader=FileSystemLoader(template_folders(template_dir)),
        autoescape=select_autoescape(["html", "html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "count": numbers.count,
        "percent": numbers.percent,
        "scaled": numbers.scaled,
        "times": numbers.times,
        "shape": numbers.shape,
        "figures": numbers.figures,
        "level": numbers.level,
        "group": group_name,
        "method": method_name,
        "clip": lambda text, limit=80: clip(text, limit),
        "unbroken": _unbroken,
        "table": to_html,
    }
    templates.globals |= {"_": say, "font_faces": lambda: Markup(font_face_css())}
    return templates


def _unbroken(sentence: str) -> Markup:
    """Keep numbers with their percent signs, and names from turning the text around them."""
    text = str(escape(unturned(sentence)))
    return Markup(re.sub(r"([\d.,]+\s%)", r'<span class="unbroken">\1</span>', text))
