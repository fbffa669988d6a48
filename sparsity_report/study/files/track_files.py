"""Logs of zeros over training: JSON lines, of which the first describes the model.

A record is a line, so that a killed run loses at most the line that it was writing. A record whose
step is at or before earlier ones supersedes them, as after training was started again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sparsity_report.counting.n_m_patterns import read_pattern
from sparsity_report.errors import SparsityReportError, opening
from sparsity_report.study.derived.zero_history import COUNTS, ZeroHistory
from sparsity_report.study.files.json_files import content_of, figures_in
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, open_file, parse_json

#: The text by which a program recognizes the file.
FORMAT = "sparsity-report/track"
MODES = ("report", "raise", "hold")
_VERSION = 1


def log_header(history: ZeroHistory) -> str:
    """Return the first line of a log."""
    modules = {
        name: cells.astype(object).where(cells.notna(), None).tolist()
        for name, cells in history.modules.items()
    }
    data = {
        "format": FORMAT,
        "version": _VERSION,
        **history.settings,
        "modules": modules,
        "study": content_of(history.first, []),
    }
    return log_line(data)


def log_line(data: Mapping[str, Any]) -> str:
    """Return a line of a log."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def read_log(path: str | os.PathLike[str]) -> ZeroHistory:
    """Read a log; a last line that is not complete is left out.

    Raises
    ------
    SparsityReportError
        The file cannot be read, is no log, or a line is damaged.
    """
    source = Path(path)
    with opening(source, "log"):
        lines = _lines(source)
        history = _read_header(source, next(lines, b""))
        for number, line in enumerate(lines, 2):
            try:
                history.add(_read_record(history, parse_json(line, once=True, finite=True)))
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise SparsityReportError(
                    f"{source}: line {number:,} is damaged ({error}); remove it"
                ) from error
    return history


def complete_bytes(path: Path) -> int:
    """Return the bytes of a file up to the end of its last whole line."""
    with open_file(path) as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


def _lines(source: Path) -> Iterator[bytes]:
    with open_file(source) as file:
        while line := file.readline(limits.STUDY_BYTES):
            if line.endswith(b"\n"):
                yield line


def _read_header(source: Path, line: bytes) -> ZeroHistory:
    data = None
    if line.startswith(b"{"):
        data = parse_json(line, once=True, finite=True, values=limits.STUDY_VALUES)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SparsityReportError(
            f"{source}: is not a log of zeros; give a file that track(…, log=…) wrote"
        )
    if check_integer(data["version"], "version", low=1) != _VERSION:
        raise SparsityReportError(f"{source}: is of another version; upgrade sparsity-report")
    first = figures_in(source, data["study"])
    fingerprint, mode, every = data["fingerprint"], data["mode"], data["every"]
    if mode not in MODES or not isinstance(fingerprint, str):
        raise ValueError("its settings are not those of a log")
    settings = {
        "fingerprint": fingerprint,
        "mode": mode,
        "every": check_integer(every, "every", low=1),
    }
    if len(first.variants) != 1:
        raise ValueError("its first line holds more than one state")
    sizes = first.layers["weight_total"].tolist()
    pruned, patterns = data["modules"]["pruned"], data["modules"]["n_m"]
    _check_counts("pruned", pruned, sizes)
    if len(patterns) != len(sizes) or not all(p is None or read_pattern(p) for p in patterns):
        raise ValueError("n_m: is not one pattern per module")
    modules = pd.DataFrame(
        {"pruned": pd.array(pruned, "Int64"), "n_m": pd.Series(patterns, dtype=object)}
    )
    return ZeroHistory(first, modules, settings)


def _read_record(history: ZeroHistory, data: Any) -> dict[str, Any]:
    record = {"step": check_integer(data["step"], "step")}
    layers = history.first.layers
    most = {
        "nonzero": layers["total"].tolist(),
        "useful_flops_per_token": layers["flops_per_token"].tolist(),
    }
    most["kept"] = history.modules["pruned"].fillna(0).tolist()
    for name in COUNTS:
        record[name] = data[name]
        _check_counts(name, data[name], most.get(name, layers["weight_total"].tolist()))
    masked = history.modules["pruned"].notna().tolist()
    if [number is not None for number in record["kept"]] != masked:
        raise ValueError("kept: is not known of the modules with a mask")
    return record


def _check_counts(name: str, numbers: Any, most: list[Any]) -> None:
    """Refuse other lists than of one number per module, up to its size; null is unknown."""
    if not isinstance(numbers, list) or len(numbers) != len(most):
        raise ValueError(f"{name}: is not one number per module")
    for number, size in zip(numbers, most, strict=True):
        if number is not None and not (type(number) is int and 0 <= number <= size):
            raise ValueError(f"{name}: {number!r} is not a count up to {size}")
