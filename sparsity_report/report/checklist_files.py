"""The reporting checklist as Markdown, as JSON and as a badge."""

import json
import os
from pathlib import Path
from typing import Any

from markupsafe import escape

import sparsity_report
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.findings.rules.reporting_checklist import Checklist, Item, checklist
from sparsity_report.findings.study_findings import study_findings
from sparsity_report.report.tables import table_model as cells
from sparsity_report.report.tables.markdown import paragraph, to_markdown
from sparsity_report.report.tables.table_model import Column, table_of
from sparsity_report.study.comparison import Study
from sparsity_report.study.files.json_files import content_of
from sparsity_report.words.sentences import first, say

VERSION = 1
# Width of a letter of a badge, and space beside its texts.
_LETTER, _SPACE = 6.2, 10
_STATES = {
    "not stated": "checklist.not_stated",
    "not applicable": "checklist.not_applicable",
}


def write_checklist(
    study: Study | Checklist | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    link: str | None = None,
) -> Path:
    """Write the reporting checklist "Pruning Report 1.0" of a study, or a badge with its count.

    Parameters
    ----------
    study : Study, Checklist or path-like
        A study, the path of a saved one, or what :func:`checklist` returns for it.
    path : path-like
        Ends in ``.md``, ``.json`` or, for the badge, ``.svg``. All name the digest of the file that
        :meth:`Study.save` writes.
    link : str, optional
        Address of the saved study, to which Markdown and badge link.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    SparsityReportError
        The path has another suffix, or the file cannot be written.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     badge = sr.write_checklist(study, f"{folder}/badge.svg", link="study.json")
    ...     "pruning report 1.0: 3 of 5 answered" in badge.read_text(encoding="utf-8")
    True
    """
    writers = {".md": _markdown, ".json": _json, ".svg": _badge}
    target = Path(path)
    if (write := writers.get(target.suffix.lower())) is None:
        known = ", ".join(writers)
        raise SparsityReportError(
            f"cannot write {target}: a checklist is a file of {known}; change the suffix"
        )
    shown = study if isinstance(study, Checklist) else checklist(study)
    findings = [*map(str, study_findings(shown.study))]
    digest = content_of(shown.study, findings)["digest"]
    return write_file(target, write(shown, digest, link))


def answer_text(item: Item, limit: int | None = None) -> str:
    """Return the first answers to a question, or its state if there are none."""
    answers = item.answers if limit is None else first(item.answers, limit)
    return "; ".join(map(str, answers)) or say(_STATES[item.state])


def _markdown(shown: Checklist, digest: str, link: str | None) -> str:
    study = say("checklist.study", fingerprint=shown.study.fingerprint, digest=digest)
    address = f" [{paragraph(study)}](<{_address(link)}>)" if link else paragraph(study)
    title, note = paragraph(str(shown.title)), paragraph(say("checklist.note"))
    heads = {key: say(f"checklist.{key}") for key in ("question_head", "answer_head")}
    columns = [Column(key, head, cells.WORDS) for key, head in heads.items()]
    rows = [(str(item.question), answer_text(item)) for item in shown.items]
    table = table_of("checklist", "", columns, [dict(zip(heads, row, strict=True)) for row in rows])
    return f"# {title}\n\n{to_markdown(table)}\n{note}\n\n{address.strip()}\n"


def _address(link: str) -> str:
    """Return an address without the characters that end it in Markdown."""
    return "".join(f"%{ord(sign):02X}" if sign in "<>\\\n\r" else sign for sign in link)


def _json(shown: Checklist, digest: str, link: str | None) -> str:
    items: list[dict[str, Any]] = [
        {
            "key": item.key,
            "question": str(item.question),
            "state": item.state,
            "answers": [*map(str, item.answers)],
        }
        for item in shown.items
    ]
    data = {
        "format": "sparsity-report/checklist",
        "version": VERSION,
        "written_by": f"sparsity-report {sparsity_report.__version__}",
        "study": {"fingerprint": shown.study.fingerprint, "digest": digest, "link": link},
        "answered": shown.answered,
        "applicable": shown.applicable,
        "items": items,
    }
    return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


def _badge(shown: Checklist, digest: str, link: str | None) -> str:
    """Return two texts side by side as SVG, which needs no server."""
    texts = "pruning report 1.0", f"{shown.answered} of {shown.applicable} answered"
    first, second = (round(_LETTER * len(text)) for text in texts)
    left, width = first + 2 * _SPACE, first + second + 4 * _SPACE
    label = ": ".join(texts)
    picture = (
        f'<rect width="{left}" height="20" fill="#333"/>'
        f'<rect x="{left}" width="{width - left}" height="20" fill="#0072b2"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{_SPACE}" y="14" textLength="{first}">{texts[0]}</text>'
        f'<text x="{left + _SPACE}" y="14" textLength="{second}">{texts[1]}</text></g>'
    )
    if link:
        picture = f'<a href="{escape(link)}">{picture}</a>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
        f'aria-label="{label}"><title>{label}; study {digest}</title>{picture}</svg>\n'
    )
