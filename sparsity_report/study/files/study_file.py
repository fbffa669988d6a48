"""A study in files: JSON that is read back exactly, and CSV for a spreadsheet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sparsity_report
from sparsity_report.errors import SparsityReportError, legible, opening
from sparsity_report.files.atomic import together, write_file
from sparsity_report.study import schema
from sparsity_report.study.comparison import Comparison, check_context
from sparsity_report.study.files.agreement import check_agreement
from sparsity_report.study.files.digest import digest_of, doubt
from sparsity_report.study.files.upgrade import upgrade
from sparsity_report.study.layers import check_convention, with_shares
from sparsity_report.study.levels.levels import LEVEL_COUNTS, level_matrices, level_rows
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.display_text import file_name
from sparsity_report.untrusted.gates import check_integer, read_json

# Where a formula may begin: with the cell, or behind what separates cells in half of Europe, in
# quotes or not, and with the wide signs of East Asia.
FORMULA = re.compile(r'(^|;)(?=["\s]*[=+\-@＝＋－＠])')
PIVOTS = ("sparsity", "param_frac", "flops_per_token")


def write_study(study: Comparison, path: str | os.PathLike[str], findings: Sequence[str]) -> Path:
    """Write a study as JSON, see :meth:`Comparison.save`."""
    data = {
        "format": schema.FORMAT,
        "version": schema.VERSION,
        "written_by": f"sparsity-report {sparsity_report.__version__}",
        "digest": "",
        "convention": study.convention,
        "context": study.context,
        "notes": list(study.notes),
        # For readers without this program, which says them anew from the numbers.
        "findings": list(findings),
        **{part: schema.plain_table(getattr(study, part)) for part in schema.ALWAYS},
        "levels": None if study.levels is None else _level_matrix(study.levels),
        **{
            part: None if (frame := getattr(study, part)) is None else schema.plain_table(frame)
            for part in schema.OPTIONAL
        },
    }
    data["digest"] = digest_of(data)
    return write_file(path, json.dumps(data, ensure_ascii=False, allow_nan=False))


def read_study(path: str | os.PathLike[str], *, strict: bool = False) -> Comparison:
    """Read a study written by :meth:`Comparison.save`, also by the versions before.

    The file holds a digest of its content. Where that is not the content's, ``study.notes`` and
    every report say that the study was edited after it was written. What follows from other
    figures, of measurements too, is computed again in any case, and has to agree. A formatter may
    set the file out anew; a program that writes numbers in another way (1 for 1.0) edits it. The
    digest is no signature: whoever means to deceive can compute it.

    Parameters
    ----------
    path : path-like
    strict : bool
        Refuse a study that was edited, or that is too old to tell.

    Raises
    ------
    SparsityReportError
        The file is damaged, from a newer version, or disagrees with itself.
    """
    source = Path(path)
    with opening(source, "study"):
        data = _parsed(source)
        if note := doubt(data):
            if strict:
                raise SparsityReportError(f"{source} is not as it was written: {note}")
            data["notes"] = [*dict.fromkeys([*data["notes"], note])]
        if data["version"] < schema.VERSION:
            upgrade(data)
        study = _study_of(data)
        check_agreement(study)
        _check_derived(study, data)
    return study


def _parsed(source: Path) -> dict[str, Any]:
    """Return what a file says, if it is a study of a known version."""
    data = read_json(source, most=limits.STUDY_BYTES, once=True, finite=True)
    if not isinstance(data, dict) or data.get("format") != schema.FORMAT:
        raise SparsityReportError(f"{source} is not a study of sparsity-report")
    version = check_integer(data["version"], "version")
    if version > schema.VERSION:
        raise SparsityReportError(
            f"{source} is of version {version}, newer than this program's "
            f"{schema.VERSION}; upgrade sparsity-report"
        )
    for part in ("notes", "findings"):
        texts = data[part]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{part}: are not text")
    return data


def _study_of(data: Mapping[str, Any]) -> Comparison:
    """Make a study of its tables, each typed and within bounds."""
    frames: dict[str, Any] = {
        part: None if data[part] is None else schema.read(part, data[part])
        for part in schema.OPTIONAL
    }
    check_convention(data["convention"])
    check_context(data["context"])
    return Comparison(
        variants=schema.read("variants", data["variants"]),
        layers=with_shares(schema.read("layers", data["layers"])),
        convention=data["convention"],
        context=data["context"],
        notes=tuple(data["notes"]),
        levels=_read_levels(data["levels"]),
        **frames,
    )


def write_csv(study: Comparison, directory: str | os.PathLike[str]) -> list[Path]:
    r"""Write the study as CSV files for a spreadsheet.

    Per variant ``layers_<variant>.csv`` and ``groups_<variant>.csv``; all variants together as
    ``comparison.csv`` (per group), ``totals.csv`` and ``storage.csv``; ``pivot_<metric>.csv``; and
    what was measured as ``latency.csv``, ``speedups.csv`` (of several runs), ``quality.csv``,
    ``sensitivity.csv``, ``continuations.csv`` and ``tasks.csv``.
    Text that a spreadsheet would take for a formula gets a leading apostrophe, and what would not
    be seen is written out (``\r``, ``\u202e``), as a line that ends early would begin another cell.
    All files are written, or none is.

    Parameters
    ----------
    study : Comparison
    directory : path-like
        Made if missing.

    Returns
    -------
    list of pathlib.Path
        What was written.
    """
    folder = Path(directory)
    files = {}
    for variant, stem in variant_stems(study).items():
        for kind, frame in (("layers", study.layers), ("groups", study.groups)):
            files[f"{kind}_{stem}.csv"] = frame[frame["variant"] == variant]
    files["comparison.csv"] = study.groups
    for part in ("totals", "storage", *schema.MEASURED):
        if (frame := getattr(study, part)) is not None:
            files[f"{part}.csv"] = frame
    for metric in PIVOTS:
        files[f"pivot_{metric}.csv"] = study.pivot(metric).reset_index()
    with together(folder):
        return [write_file(folder / name, csv_text(frame)) for name, frame in files.items()]


def variant_stems(study: Comparison) -> Mapping[str, str]:
    """Give each variant a file name part of its own."""
    stems: dict[str, str] = {}
    for variant in study.variants["variant"]:
        stem = base = file_name(variant)
        number = 2
        while stem in stems.values():
            stem, number = f"{base}-{number}", number + 1
        stems[variant] = stem
    return stems


def csv_text(frame: pd.DataFrame) -> str:
    """Write a frame as :func:`write_csv` does."""
    return _inert(frame).to_csv(index=False, lineterminator="\n")


def _inert(frame: pd.DataFrame) -> pd.DataFrame:
    def guard(cell: object) -> object:
        if not isinstance(cell, str):
            return cell
        return FORMULA.sub(r"\1'", legible(cell))

    safe = frame.rename(columns=guard)
    for column in safe.columns[[not pd.api.types.is_numeric_dtype(t) for t in safe.dtypes]]:
        safe[column] = safe[column].map(guard)
    return safe


def _level_matrix(levels: pd.DataFrame) -> dict[str, Any]:
    """One row of counts per module: an eighth of the size of a table."""
    names, sparsities, counts = level_matrices(levels)
    rows = {name: numbers.tolist() for name, numbers in counts.items()}
    return {"modules": names, "sparsities": sparsities, **rows}


def _read_levels(matrix: Mapping[str, Any] | None) -> pd.DataFrame | None:
    if matrix is None:
        return None
    modules, sparsities = matrix["modules"], matrix["sparsities"]
    counts = {name: np.array(matrix[name]) for name in LEVEL_COUNTS}
    for name, numbers in counts.items():
        if numbers.shape != (len(modules), len(sparsities)) or numbers.dtype.kind != "i":
            raise ValueError(f"levels, {name}: is not one whole number per module and sparsity")
    return level_rows(modules, sparsities, counts)


def _check_derived(study: Comparison, data: Mapping[str, Any]) -> None:
    """Refuse a file whose tables no longer follow from its layers."""
    for part in ("layers", "groups", "totals"):
        right, saved = schema.plain_table(getattr(study, part)), data[part]
        if right["columns"] != saved["columns"] or len(right["rows"]) != len(saved["rows"]):
            raise ValueError(f"table {part} does not follow from the layers")
        for number, (due, row) in enumerate(zip(right["rows"], saved["rows"], strict=True)):
            if row != due:
                cells = zip(right["columns"], row, due, strict=True)
                name, have, want = next(cell for cell in cells if cell[1] != cell[2])
                raise ValueError(f"{part}, row {number}, {name}: {have!r} should be {want!r}")
