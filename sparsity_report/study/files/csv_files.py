"""A study as CSV files for a spreadsheet, in which no cell is taken for a formula."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sparsity_report.errors import legible
from sparsity_report.files.atomic import write_file
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.files.study_sources import StudySource, study_or_saved
from sparsity_report.study.schema import CHANGED, MATCHED, MEASURED
from sparsity_report.untrusted.display_text import file_name

# Possible beginnings of a formula, as OWASP lists them: at the start of a cell or after any
# separator of cells, quoted or not, after blank and invisible characters, also with the wide signs
# of East Asia. The scripts of a page read the same file.
FORMULA = re.compile(
    json.loads(Path(__file__).with_name("formula.json").read_text(encoding="utf-8"))["pattern"]
)
PIVOTS = ("sparsity", "param_frac", "flops_per_token")


def write_csv(study: StudySource, folder: str | os.PathLike[str]) -> list[Path]:
    r"""Write the tables of a study as CSV files for a spreadsheet.

    Each variant gets ``layers_<variant>.csv`` and ``groups_<variant>.csv``. All variants together
    get ``comparison.csv`` (sums per group), ``totals.csv``, ``storage.csv`` and
    ``pivot_<metric>.csv``, and each measurement its file: ``latency.csv``, ``quality.csv``,
    ``score_pairs.csv`` (paired comparisons with 95 % intervals), ``sensitivity.csv``,
    ``continuations.csv``, ``tasks.csv``, ``experts.csv`` (use by the router). Two checkpoints get
    ``matches.csv``, ``removed.csv``, ``survival.csv`` and ``changes.csv``, and zeros over training
    ``history.csv`` besides.

    Text that a spreadsheet would take for a formula gets a leading apostrophe. Invisible
    characters are spelled out (``\r``, ``\u202e``).

    Parameters
    ----------
    study : Study, Explorer or path-like
        The study to write, its explorer, or the path of a saved one.
    folder : path-like
        The folder of the files, created if missing.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    SparsityReportError
        A file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = sr.write_csv(study, folder)
    >>> [file.name for file in files][:3]
    ['layers_dense.csv', 'groups_dense.csv', 'comparison.csv']
    """
    folder, figures = Path(folder), study_or_saved("write_csv", study)
    files = {}
    for variant, stem in variant_stems(figures).items():
        for kind, frame in (("layers", figures.layers), ("groups", figures.groups)):
            files[f"{kind}_{stem}.csv"] = frame[frame["variant"] == variant]
    files["comparison.csv"] = figures.groups
    derived = ("totals", "storage", "score_pairs")
    for part in (*derived, *MEASURED, "history", *MATCHED, *CHANGED):
        if (frame := getattr(figures, part)) is not None:
            files[f"{part}.csv"] = frame
    for metric in PIVOTS:
        files[f"pivot_{metric}.csv"] = figures.pivot(metric).reset_index()
    return [write_file(folder / name, csv_text(frame)) for name, frame in files.items()]


def variant_stems(study: StudyFigures) -> Mapping[str, str]:
    """Return a distinct part of a file name for each variant."""
    stems: dict[str, str] = {}
    for variant in study.variants["variant"]:
        stem = base = file_name(variant)
        number = 2
        while stem in stems.values():
            stem, number = f"{base}-{number}", number + 1
        stems[variant] = stem
    return stems


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV text, with cells as :func:`write_csv` writes them."""

    def guard(cell: object) -> object:
        return FORMULA.sub("'", legible(cell)) if isinstance(cell, str) else cell

    safe = frame.rename(columns=guard)
    for column in safe.columns[[not pd.api.types.is_numeric_dtype(t) for t in safe.dtypes]]:
        safe[column] = safe[column].map(guard)
    return safe.to_csv(index=False, lineterminator="\n")
