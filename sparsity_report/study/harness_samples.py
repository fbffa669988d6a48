"""Outcomes per document from the samples that evaluation harnesses log, packed for a study.

lm-evaluation-harness writes ``samples_<task>_<date>.jsonl`` beside its results with
``--log_samples``, and lighteval writes ``details_<task>_<date>.parquet`` with ``--save-details``. A
study keeps one bit per document, in the order of the documents' hashes, and fingerprints of all
documents, prompts and targets. Two runs are paired if these fingerprints are equal.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.errors import SparsityReportError, explained, printable
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_nesting, open_file, parse_json

#: Columns of the table of tasks that pair two runs; null without outcomes per document.
PAIRING = ("documents_fingerprint", "targets_fingerprint", "prompts_fingerprint", "outcomes")
# Outcomes of wrong and right answers; True and 1.0 equal 1.
_OUTCOMES = (0, 1)
# Columns of lighteval's details; the other ones are answers and logits.
_DETAILS = ("doc", "metric", "model_response.input", "model_response.input_tokens")
_Key = tuple[str, str | None]


class _Sample(NamedTuple):
    """One document: its hashes, its number, and the scores by metric and filter."""

    document: str
    target: str
    prompt: str
    number: str
    scores: Mapping[_Key, Any]


def results_file(path: Path) -> Path:
    """Return the results file of a folder that a harness wrote; a file as it is.

    Raises
    ------
    SparsityReportError
        The folder holds no results file, or several.
    """
    if not path.is_dir():
        return path
    files = sorted(path.rglob("results_*.json"))
    if len(files) == 1:
        return files[0]
    names = " and ".join(printable(str(file.relative_to(path)), 120) for file in files[:2])
    several = f"holds {len(files):,} results files, such as {names}; give one of them"
    raise SparsityReportError(
        f"{path}: {several if files else 'holds no results_….json; give a folder of a harness'}"
    )


def reading(path: Path, kind: str, advice: str) -> AbstractContextManager[None]:
    """Turn errors from reading a file that a harness wrote into one-line errors."""

    def explain(error: Exception) -> str:
        if isinstance(error, OSError):
            return f"cannot read {path}: {error.strerror or error}"
        return f"{path}: is not {kind}: {error}; {advice}"

    return explained(explain, OSError, ValueError)


def with_outcomes(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Return scores with the outcomes per document that are logged beside their file.

    Metrics whose outcomes are not all 0 or 1, or for which lower is better, keep none.

    Raises
    ------
    SparsityReportError
        A file of samples is damaged, too large, or needs a library that is missing.
    """
    date = file.stem.rpartition("_")[2]
    paths = {path.name: path for folder in _folders(file, date) for path in folder.glob("*")}
    columns: dict[str, Any] = {name: [None] * len(frame) for name in PAIRING}
    for task, rows in frame.reset_index().groupby("task", sort=False):
        names = [f"samples_{task}_{date}.jsonl"]
        names += [f"details_{task}_{date}.{suffix}" for suffix in ("jsonl", "json", "parquet")]
        path = next((paths[name] for name in names if name in paths), None)
        if path is None:
            continue
        keys: dict[_Key, int] = {
            (row["metric"], row["filter"] or None): row["index"]
            for row in rows.to_dict("records")
            if row["higher_is_better"] is not False
        }
        for key, texts in _packed(path, keys).items():
            for name, text in zip(PAIRING, texts, strict=True):
                columns[name][keys[key]] = text
    return frame.assign(**columns)


def unpack(outcomes: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return whether each document was answered right.

    Raises
    ------
    ValueError
        The text is not one that :func:`pack` returns.

    Examples
    --------
    >>> unpack(pack([1, 0, 1])).tolist()
    [True, False, True]
    """
    number, _, text = outcomes.partition(":")
    bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if not number.isdecimal() or len(number) > 9 or not 0 <= 8 * len(bits) - int(number) < 8:
        raise ValueError("outcomes: do not hold one bit per document")
    return np.unpackbits(bits, count=int(number)).astype(bool)


def pack(outcomes: Collection[int]) -> str:
    """Return outcomes as their number and one bit each, in base64."""
    bits = np.packbits(np.fromiter(outcomes, bool, len(outcomes))).tobytes()
    return f"{len(outcomes)}:{base64.b64encode(bits).decode()}"


def _folders(file: Path, date: str) -> Iterator[Path]:
    """Yield the folders that may hold the samples of a results file."""
    yield file.parent
    for parent in file.absolute().parents:
        if parent.name == "results":
            yield parent.parent / "details" / file.absolute().parent.relative_to(parent) / date


def _packed(path: Path, keys: Collection[_Key]) -> dict[_Key, tuple[str, ...]]:
    """Return the columns of :data:`PAIRING` by metric and filter; empty without hashes."""
    read = _parquet_rows if path.suffix == ".parquet" else _json_rows
    samples: dict[_Key, list[_Sample]] = {key: [] for key in keys}
    advice = "give one that the harness wrote, or move the results file to another folder to read "
    with reading(path, "a file of samples", f"{advice}its scores alone"):
        for row in read(path):
            check_nesting(row)
            if (sample := _sample(row, keys)) is None:
                return {}
            for key in sample.scores:
                samples[key].append(sample)
            if any(len(each) > limits.DOCUMENTS for each in samples.values()):
                raise ValueError(f"it has more than {limits.DOCUMENTS:,} documents")
    columns = {}
    for key, listed in samples.items():
        listed.sort(key=lambda sample: sample[:4])
        scores = [sample.scores[key] for sample in listed]
        if scores and all(isinstance(s, int | float) and s in _OUTCOMES for s in scores):
            prints = (_hash([sample[place] for sample in listed]) for place in range(3))
            columns[key] = (*(each[:16] for each in prints), pack(scores))
    return columns


def _sample(row: Any, keys: Collection[_Key]) -> _Sample | None:
    """Return a document of either harness; None if it was logged without hashes."""
    if not isinstance(row, dict):
        raise ValueError(f"{printable(repr(row), 60)} is not an object")
    if isinstance(document := row.get("doc"), dict) and isinstance(row.get("metric"), dict):
        response = row.get("model_response") or {}
        asked = document.get("query"), document.get("choices")
        prompt = response.get("input") or response.get("input_tokens"), document.get("instruction")
        scores = {key: row["metric"][key[0]] for key in keys if key[0] in row["metric"]}
        target = _hash(document.get("gold_index"))
        return _Sample(_hash(asked), target, _hash(prompt), str(document.get("id")), scores)
    hashes: list[Any] = [row.get(f"{part}_hash") for part in ("doc", "target", "prompt")]
    if not all(isinstance(each, str) and len(each) <= limits.DIGITS * 4 for each in hashes):
        return None
    of_filter = row.get("filter", "none")
    known = (key for key in keys if (key[1] or "none") == of_filter and key[0] in row)
    number = f"{row.get('doc_id')!s:.40}"
    document, target, prompt = hashes
    return _Sample(document, target, prompt, number, {key: row[key[0]] for key in known})


def _json_rows(path: Path) -> Iterator[Any]:
    """Yield the objects of a file with one JSON text per line."""
    with open_file(path) as file:
        while line := file.readline(limits.SAMPLE_BYTES + 1):
            if len(line) > limits.SAMPLE_BYTES:
                raise ValueError(f"a line has more than {limits.SAMPLE_BYTES:,} bytes")
            yield parse_json(line, once=True)


def _parquet_rows(path: Path) -> Iterator[Any]:
    """Yield the rows of a parquet file as objects."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise SparsityReportError(
            f"{path}: reading parquet needs pyarrow, which is not installed; run pip install "
            "pyarrow, or move the results file to another folder to read its scores alone"
        ) from error
    try:
        with open_file(path) as file:
            table = parquet.ParquetFile(file)
            for batch in table.iter_batches(batch_size=256, columns=list(_DETAILS)):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(printable(str(error), 200)) from error


def _hash(value: Any) -> str:
    """Return the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()
