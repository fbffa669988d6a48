"""Studies as JSON files that are read back exactly.

A file holds the SHA-256 digest of its content as JSON without white space and with sorted names,
so a formatter may lay it out anew. The digest reveals edits. It is not a signature. Sections and
columns that this release does not know are left out, and a note names them.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sparsity_report
from sparsity_report.errors import SparsityReportError, opening
from sparsity_report.study import schema
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.files.value_bounds import check_study
from sparsity_report.study.frames import EDITED_STUDY
from sparsity_report.study.layers import with_shares
from sparsity_report.study.levels import LEVEL_COUNTS, level_matrices, level_rows
from sparsity_report.study.provenance import read_provenance
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, open_file, read_json
from sparsity_report.words.sentences import say

#: The text by which a program recognizes the file.
FORMAT = "sparsity-report/study"
#: Tables that may be null.
MAYBE = ("levels", *schema.OPTIONAL, *schema.MATCHED)
#: Stored tables, and tables that follow from those, repeated for other programs and checked.
TABLES, DERIVED = ("variants", "layers", *MAYBE), ("groups", "totals", *schema.CHANGED)
# Attributes that are plain values, and the other content of a file.
_SETTINGS = ("convention", "context")
_COMMON = ("format", "version", "written_by", "digest", "notes", "findings", "provenance")
# Bytes in which a JSON object begins, after white space.
_BEGINNING = 64


def content_of(study: StudyFigures, findings: Sequence[str]) -> dict[str, Any]:
    """Return the content of the file of a study, with its digest.

    Parameters
    ----------
    study : Study
    findings : sequence of str
        Sentences about the study.
    """
    data = {
        "format": FORMAT,
        "version": schema.VERSION,
        "written_by": f"sparsity-report {sparsity_report.__version__}",
        "digest": "",
        **{name: getattr(study, name) for name in _SETTINGS},
        "notes": list(study.notes),
        "findings": list(findings),
        "provenance": study.provenance and {**study.provenance, **study.identity},
        **{part: _plain(part, getattr(study, part)) for part in (*TABLES, *DERIVED)},
    }
    data["digest"] = digest_of(data)
    return data


def read_figures(path: str | os.PathLike[str], *, strict: bool = False) -> StudyFigures:
    """Read the study in a JSON file, as ``sparsity_report.read_study`` describes."""
    source = Path(path)
    with opening(source, "study"):
        _check_beginning(source)
        most, values = limits.STUDY_BYTES, limits.STUDY_VALUES
        data = read_json(source, most=most, values=values, once=True, finite=True)
        return figures_in(source, data, strict=strict)


def figures_in(source: Path, data: Mapping[str, Any], *, strict: bool = False) -> StudyFigures:
    """Return the study in the content of a file, see :func:`read_figures`."""
    _check_format(source, data)
    notes = _read_texts("notes", data["notes"])
    if is_edited := data.get("digest") != digest_of(data):
        notes = (*notes, say(EDITED_STUDY))
    tables: dict[str, Any] = {part: _read_table(part, data.get(part)) for part in TABLES}
    if names := list(_unread(data)):
        notes = (say("note.unread_parts", names=names), *notes)
    settings: dict[str, Any] = {name: data[name] for name in _SETTINGS}
    settings["provenance"] = read_provenance(data.get("provenance"))
    study = StudyFigures(**tables, **settings, notes=notes)
    check_study(study)
    for part in ("layers", *DERIVED):
        _check_same(part, getattr(study, part), data[part])
    if strict and is_edited:
        raise SparsityReportError(f"{source}: {say(EDITED_STUDY)}; read it without strict")
    return study


def digest_of(data: Mapping[str, Any]) -> str:
    """Return the digest of a file's content, without the digest that it holds.

    Examples
    --------
    >>> one, other = {"a": 1, "b": [0.5]}, {"b": [0.5], "a": 1, "digest": "any"}
    >>> digest_of(one) == digest_of(other)
    True
    """
    content = {name: value for name, value in data.items() if name != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_beginning(source: Path) -> None:
    """Refuse a folder, and a file that does not begin as a JSON object does."""
    if source.is_dir():
        raise SparsityReportError(f"{source} is a folder; give the study.json in it")
    with open_file(source) as file:
        if not file.read(_BEGINNING).lstrip().startswith(b"{"):
            raise _other_file(source)


def _other_file(source: Path) -> SparsityReportError:
    return SparsityReportError(
        f"{source}: is not a study of sparsity-report; give a study.json that study.save or the "
        "command line wrote"
    )


def _check_format(source: Path, data: Mapping[str, Any]) -> None:
    """Refuse a file of another format or version."""
    if data.get("format") != FORMAT:
        raise _other_file(source)
    if (version := check_integer(data["version"], "version", low=1)) != schema.VERSION:
        age, advice = "older", "make the study again from its model"
        if version > schema.VERSION:
            age, advice = "newer", "upgrade sparsity-report"
        raise SparsityReportError(
            f"{source}: format version {version} is {age} than this program's {schema.VERSION}; "
            f"{advice}"
        )
    _read_texts("findings", data["findings"])


def _read_texts(name: str, data: Any) -> tuple[str, ...]:
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise ValueError(f"{name}: are not a list of texts")
    return tuple(data)


def _plain(table: str, frame: pd.DataFrame | None) -> dict[str, Any] | None:
    """Return a table as JSON values; levels as one row of counts per module, which is shorter."""
    if frame is None or table != "levels":
        return None if frame is None else schema.plain_table(frame)
    names, sparsities, counts = level_matrices(frame)
    rows = {name: numbers.tolist() for name, numbers in counts.items()}
    return {"modules": names, "sparsities": sparsities, **rows}


def _read_table(table: str, data: Any) -> pd.DataFrame | None:
    """Return a table from JSON values; None for one that is null."""
    if data is None and table in MAYBE:
        return None
    if table == "levels":
        return _read_levels(data)
    frame = schema.read(table, data)
    return with_shares(frame) if table == "layers" else frame


def _unread(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield sections and columns of a file that this release does not know."""
    tables = (*TABLES, *DERIVED)
    yield from (name for name in data if name not in {*_COMMON, *_SETTINGS, *tables})
    for table in tables:
        columns = (data.get(table) or {}).get("columns", [])
        yield from (f"{table}.{name}" for name in columns[len(schema.TABLES[table]) :])


def _read_levels(matrix: Mapping[str, Any]) -> pd.DataFrame:
    modules, sparsities = matrix["modules"], matrix["sparsities"]
    counts = {name: np.array(matrix[name]) for name in LEVEL_COUNTS}
    for name, numbers in counts.items():
        if numbers.shape != (len(modules), len(sparsities)) or numbers.dtype.kind != "i":
            raise ValueError(f"levels, {name}: is not one whole number per module and sparsity")
    return level_rows(modules, sparsities, *counts.values())


def _check_same(part: str, frame: pd.DataFrame | None, saved: Mapping[str, Any] | None) -> None:
    """Refuse a table of a file that does not follow from the other tables."""
    computed = _plain(part, frame)
    if computed is None or saved is None:
        if computed is not saved:
            raise ValueError(f"table {part} does not follow from the others")
        return
    names, later = computed["columns"], saved["columns"]
    shared = min(len(names), len(later))
    same = names[:shared] == later[:shared] and len(computed["rows"]) == len(saved["rows"])
    if not same:
        raise ValueError(f"table {part} does not follow from the others")
    for number, (due, row) in enumerate(zip(computed["rows"], saved["rows"], strict=True)):
        if row[:shared] != due[:shared]:
            cells = zip(names, row, due, strict=False)
            name, have, want = next(cell for cell in cells if cell[1] != cell[2])
            raise ValueError(f"{part}, row {number}, {name}: {have!r} should be {want!r}")
