"""Logs of zeros over training: JSON lines after one that describes the model.

A record is a line, so a killed run loses at most the line that it was writing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from sparsity_report.errors import SparsityReportError, explained, opening
from sparsity_report.study.files.json_files import content_of, figures_in
from sparsity_report.study.schema import plain_table, read
from sparsity_report.study.zero_history import ZeroHistory, add_record
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, open_file, parse_json

#: The text by which a program recognizes the file.
FORMAT = "sparsity-report/track"
MODES = ("report", "raise", "hold")
# Bytes at the start of a log that have its format.
_BEGINNING = 64


def log_header(history: ZeroHistory) -> str:
    """Return the first line of a log, whose version is that of the study in it."""
    return _line({"format": FORMAT, **history.settings, "study": content_of(history.first, [])})


def log_line(record: pd.DataFrame) -> str:
    """Return a record as a line of a log."""
    return _line(plain_table(record))


def read_log(path: str | os.PathLike[str]) -> ZeroHistory:
    """Read a log; a last line that is not complete is left out.

    Raises
    ------
    SparsityReportError
        The file cannot be read, is no log, or a line is damaged.
    """
    source = Path(path)
    with opening(source, "log"):
        lines = whole_lines(source)
        history = _read_header(source, next(lines, b""))
        names = history.first.layers["module_name"].tolist()
        for record in _read_records(source, [*lines], names):
            add_record(history, record)
    return history


def is_log(source: Path) -> bool:
    """Return True if a file begins as a log does."""
    if not source.is_file():
        return False
    with opening(source, "study"), open_file(source) as file:
        return f'"{FORMAT}"'.encode() in file.read(_BEGINNING)


def whole_lines(source: Path) -> Iterator[bytes]:
    """Yield the lines of a file that are complete."""
    with open_file(source) as file:
        while line := file.readline(limits.STUDY_BYTES):
            if line.endswith(b"\n"):
                yield line


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _read_records(source: Path, lines: list[bytes], names: list[str]) -> list[pd.DataFrame]:
    """Return the records of lines, read as one table; one by one where a line is damaged."""
    with suppress(LookupError, TypeError, ValueError, SparsityReportError):
        tables = [parse_json(line, once=True, finite=True) for line in lines]
        alike = {"columns": tables[0]["columns"], "rows": [*chain(*(t["rows"] for t in tables))]}
        if all(t["columns"] == alike["columns"] and len(t["rows"]) == len(names) for t in tables):
            rows = read("history", alike)
            ends = range(0, len(rows), len(names))
            return [_checked(rows.iloc[end : end + len(names)], names) for end in ends]
    return [_read_record(f"{source}: line {n:,}", line, names) for n, line in enumerate(lines, 2)]


def _read_record(where: str, line: bytes, names: list[str]) -> pd.DataFrame:
    kinds = LookupError, TypeError, ValueError
    with explained(lambda error: f"{where} is damaged: {error}; remove it", *kinds):
        return _checked(read("history", parse_json(line, once=True, finite=True)), names)


def _checked(record: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    if record["module_name"].tolist() != names or record["step"].nunique() != 1:
        raise ValueError("its modules are not those of the first line")
    return record.reset_index(drop=True)


def _read_header(source: Path, line: bytes) -> ZeroHistory:
    data: Any = None
    if line.startswith(b"{"):
        data = parse_json(line, once=True, finite=True, values=limits.STUDY_VALUES)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SparsityReportError(
            f"{source}: is no log of zeros; give a file that track(…, log=…) wrote"
        )
    first, fingerprint, mode = figures_in(source, data["study"]), data["fingerprint"], data["mode"]
    if mode not in MODES or not isinstance(fingerprint, str) or len(first.variants) != 1:
        raise ValueError("its first line is not that of a log")
    every = check_integer(data["every"], "every", low=1)
    return ZeroHistory(first, {"every": every, "mode": mode, "fingerprint": fingerprint})
