"""Reports as one self-contained file, HTML, PDF or Markdown, that loads nothing.

Jinja2 writes the structure; Python hands it plain values, which reach the page escaped.
"""

import os
from pathlib import Path

import sparsity_report
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.findings.first_screen import model_names
from sparsity_report.findings.verdict import verdict
from sparsity_report.report.markdown_report import to_report
from sparsity_report.report.pdf import typeset
from sparsity_report.report.sections import Medium
from sparsity_report.report.study_sections import study_document
from sparsity_report.report.templates import environment, render
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.files.study_sources import StudySource, study_or_saved
from sparsity_report.viewer.study_payload import study_payload

# Media by suffix.
_MEDIA: dict[str, Medium] = {".html": "page", ".pdf": "paper", ".md": "markdown"}


def write_report(
    study: StudySource,
    path: str | os.PathLike[str],
    *,
    template_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a study as one file: numbers, charts, tables, conventions.

    Parameters
    ----------
    study : Study, Explorer or path-like
        A value from :func:`sparsity_report.compare` or
        :func:`sparsity_report.compare_checkpoints`, its explorer, or the path of a saved study. An
        explorer's variants are all written.
    path : path-like
        Ends in ``.html``, ``.pdf`` or ``.md``. Markdown has the tables of the charts in place of
        pictures.
    template_dir : path-like, optional
        Folder with files that replace the package's files of the same name, such as
        ``report.css``.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    SparsityReportError
        The path has another suffix, a template is faulty, or the file cannot be written.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sr.write_report(study, f"{folder}/report.html").name
    'report.html'
    """
    value: StudyFigures = study_or_saved("write_report", study)
    target = Path(path)
    if (suffix := target.suffix.lower()) not in _MEDIA:
        *others, last = _MEDIA
        raise SparsityReportError(
            f"cannot write {target}: reports are {', '.join(others)} or {last} files; change the "
            "suffix"
        )
    templates = environment(template_dir)
    document = study_document(value, _MEDIA[suffix])
    if suffix == ".pdf":
        return write_file(target, typeset(templates, document))
    if suffix == ".md":
        return write_file(target, to_report(document))
    return write_file(target, render(templates, "report.html.j2", document, "render the report"))


def write_explorer(study: StudyFigures, path: Path) -> Path:
    """Write the verdict on a study and its viewer as one page; return the path."""
    variables = {
        "program": f"sparsity-report {sparsity_report.__version__}",
        "title": model_names(study),
        "verdict": verdict(study),
        "payload": study_payload(study),
    }
    text = render(environment(), "explore.html.j2", variables, "render the explorer")
    return write_file(path, text)
