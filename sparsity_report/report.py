"""A study as one self-contained file, HTML or PDF, that opens anywhere and never loads anything.

Jinja2 writes the structure; Python hands it plain values, which reach the page escaped.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape
from markupsafe import Markup

from sparsity_report import charts, display
from sparsity_report.comparison import Comparison
from sparsity_report.context import context
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files import write_file
from sparsity_report.typesetting import typeset


def write_report(
    study: Comparison,
    path: str | os.PathLike[str],
    *,
    template_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a study as one file with everything in it: numbers, charts, tables, conventions.

    Parameters
    ----------
    study : Comparison
    path : path-like
        Ends in ``.html`` or ``.pdf``.
    template_dir : path-like, optional
        Files here stand in for the package's own of the same name, such as ``report.css``.

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
    try:
        templates, shown = environment(template_dir), context(study)
        page: str | bytes
        if kind == ".pdf":
            page = typeset(templates, shown)
        else:
            page = templates.get_template("report.html.j2").render(shown, script=_bundle())
    except TemplateError as error:
        raise SparsityReportError(
            f"cannot render the report: {error!r}; check template_dir"
        ) from error
    return write_file(target, page)


def environment(template_dir: str | os.PathLike[str] | None = None) -> Environment:
    """Return the one Jinja2 environment: the user's templates first, then the package's.

    HTML templates escape every value; an undefined one is an error.

    Examples
    --------
    >>> environment().from_string("{{ 1234567 | count }} {{ none | percent }}").render()
    '1\u202f234\u202f567 –'
    """
    if template_dir is not None and not Path(template_dir).is_dir():
        raise SparsityReportError(f"template_dir {template_dir} is not a folder")
    here = Path(__file__).parent
    # Installed, the templates are inside the package; in an editable checkout they are beside it.
    folders = [here / "templates", here.parent / "templates"]
    if template_dir is not None:
        folders.insert(0, Path(template_dir))
    made = Environment(
        loader=FileSystemLoader(folders),
        autoescape=select_autoescape(["html", "html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": display.count,
        "percent": display.percent_text,
        "scaled": display.scaled_text,
        "times": display.times,
        "shape": display.shape,
        "group": charts.group_name,
        "clip": lambda text, limit=80: printable(str(text), limit),
        "unbroken": display.unbroken,
    }
    return made


@lru_cache(maxsize=1)
def _bundle() -> Markup:
    # The types of vl_convert ask for a snippet, its documentation does not.
    bundle: str = vl_convert.javascript_bundle(vl_version=charts.VEGALITE)  # type: ignore[call-arg]
    return Markup(re.sub(r"<(?=/script|!--)", r"\\x3c", bundle, flags=re.IGNORECASE))
