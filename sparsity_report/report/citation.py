"""The BibTeX entry by which a page, a PDF and a thesis kit cite their numbers."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import sparsity_report
from sparsity_report.files.package_data import shipped
from sparsity_report.report.tables.latex import tex
from sparsity_report.study.figures import StudyFigures
from sparsity_report.words.sentences import say


def bibtex(study: StudyFigures) -> list[str]:
    """Return the lines of an entry for a study with its fingerprints."""
    note = say("cite.fingerprints", study=study.fingerprint, weights=weights(study))
    software = _software()
    released = software.get("date-released")
    title = re.sub(r"\b([A-Z]\w*)", r"{\1}", software["title"])
    return [
        "@misc{sparsity-report,",
        f"  author       = {{{{{software['authors'][0]['name']}}}}},",
        f"  title        = {{{title}}},",
        f"  howpublished = {{Python package, version {sparsity_report.__version__}}},",
        *([f"  year         = {{{released.year}}},"] if released else []),
        f"  note         = {{{tex(note)}}}",
        "}",
    ]


@cache
def _software() -> dict[str, Any]:
    """Return the fields of CITATION.cff."""
    path = next(filter(Path.is_file, shipped("CITATION.cff")))
    fields: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return fields


def weights(study: StudyFigures) -> str:
    """Return the fingerprints of the weights of a study."""
    return ", ".join(study.variants["fingerprint"].unique())
