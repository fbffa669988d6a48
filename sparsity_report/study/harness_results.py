"""Scores on tasks, and outcomes per document, from the files of lm-evaluation-harness.

Keys of a task with or without a filter after the metric (``"acc,none"``, since 0.4) are read. Those
that are not scores are left out.

With ``--log_samples``, the harness writes ``samples_<task>_<date>.jsonl`` beside its results. A
study keeps one bit per document, in the order of the documents' hashes, and fingerprints of all
documents, prompts and targets. Two runs are paired if these fingerprints are equal.
"""

import base64
import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.errors import SparsityReportError, explained, printable
from sparsity_report.study.schema import TABLES, check, refuse, typed
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, check_nesting, open_file, parse_json

LM_EVAL = "lm-evaluation-harness"
#: Columns that identify a score: no two rows of a study agree in all of them.
KEYS = ("variant", "task", "metric", "filter", "n_shot")
#: Columns that pair two runs; null without outcomes per document.
PAIRING = ("documents_fingerprint", "targets_fingerprint", "prompts_fingerprint", "outcomes")
# Outcomes of wrong and right answers; True and 1.0 equal 1.
_OUTCOMES = (0, 1)
# Metrics that are shares of 1 whatever the task.
_SHARES = ("acc", "acc_norm")
# Keys that harnesses write next to the scores of a task; bypass is that of unscored answers.
_NOT_SCORES = ("alias", "name", "sample_len", "sample_count", "samples", " ", "bypass")
_STDERR = "_stderr"
# Harnesses add the outcomes of documents in another order.
_ROUNDING = 1e-6
# Arguments that name the model, in the order of the harness: an adapter before its base.
_MODEL_ARGUMENTS = ("peft", "delta", "pretrained", "model", "path", "engine")
_Object = Mapping[str, Any]
_Key = tuple[str, str | None]


def read_lm_eval(path: str | os.PathLike[str], variant: str | None = None) -> pd.DataFrame:
    """Read the scores on tasks that lm-evaluation-harness wrote, as a tidy frame.

    Parameters
    ----------
    path : path-like
        A ``results_….json`` of the harness, or a folder that holds one. Samples that were logged
        with it (``--log_samples``) are read, too.
    variant : str, optional
        Name of the variant that was evaluated, for
        :meth:`~sparsity_report.Study.with_measured`. A file names only a model, which may
        have several variants.

    Returns
    -------
    pandas.DataFrame
        One row per ``task``, ``metric`` and ``filter`` of the answers. ``value`` and ``stderr`` are
        as in the file, null where it has no number. ``higher_is_better``, ``n_shot``, ``samples``
        and ``limited`` (whether only a part of the task was run) describe the run. A citation needs
        ``task_version``, ``evaluated_model``, ``harness``, ``harness_version``, ``results_file``
        and ``results_fingerprint``, the first 16 digits of the SHA-256 of the file. ``outcomes``
        has one bit per document of metrics that are 0 or 1, and ``documents_fingerprint``,
        ``targets_fingerprint`` and ``prompts_fingerprint`` tell whether two runs are paired; all
        four are null without samples.

    Raises
    ------
    SparsityReportError
        A file is not of the harness, too large, damaged, or contradicts itself; or a folder
        holds several results.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import sparsity_report as sr
    >>> results = {"results": {"boolq": {"acc,none": 0.75, "acc_stderr,none": 0.01}}, "config": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "results.json")
    ...     _ = file.write_text(json.dumps(results))
    ...     frame = sr.read_lm_eval(file, variant="Dense")
    >>> frame[["variant", "task", "metric", "value", "stderr"]].to_numpy().tolist()
    [['Dense', 'boolq', 'acc', 0.75, 0.01]]
    """
    file = _results_file(Path(path))
    with _reading(file, f"a results file of {LM_EVAL}", "give a file that it wrote"):
        with open_file(file) as opened:
            data = opened.read(limits.RESULTS_BYTES + 1)
        if len(data) > limits.RESULTS_BYTES:
            raise ValueError(f"it has more than {limits.RESULTS_BYTES:,} bytes")
        results = parse_json(data, once=True)
        check_nesting(results)
        rows = list(_rows(results))
        if not rows:
            raise ValueError("it holds no scores")
        if len(rows) > limits.RESULTS:
            raise ValueError(f"it holds more than {limits.RESULTS:,} scores")
        facts = {
            "variant": "" if variant is None else variant,
            "results_file": file.name,
            "results_fingerprint": hashlib.sha256(data).hexdigest()[:16],
        }
        names = list(TABLES["tasks"])
        frame = pd.DataFrame([row | facts for row in rows], columns=names)
        frame = typed("tasks", frame)
        check("tasks", frame)
        frame = _with_outcomes(frame, file)
        check_results(frame)
    return frame if variant is not None else frame.assign(variant=None)


def check_results(frame: pd.DataFrame) -> None:
    """Refuse impossible scores: shares beyond 1, and two values of one score."""
    share = frame["metric"].isin(_SHARES)
    inside = frame["value"].between(0, 1) | frame["value"].isna() | ~share
    refuse("tasks", inside, "value: is an accuracy that is not between 0 and 1")
    refuse("tasks", frame["task"].str.len() > 0, "task: has no name")
    refuse("tasks", frame["metric"].str.len() > 0, "metric: has no name")
    refuse("tasks", ~frame.duplicated(list(KEYS)), "task: occurs twice with the same metric")
    known = frame[[*PAIRING]].notna()
    refuse("tasks", known.all(axis=1) | ~known.any(axis=1), "outcomes: lack a fingerprint")
    pairs = zip(frame["outcomes"], frame["value"], strict=True)
    agree = [not (isinstance(o, str) and abs(unpack(o).mean() - v) > _ROUNDING) for o, v in pairs]
    refuse("tasks", agree, "outcomes: have another mean, so the samples are of another run")
    numbers = frame["outcomes"].str.split(":").str[0].groupby(frame["documents_fingerprint"])
    alike = ~(numbers.transform("nunique") > 1)
    refuse("tasks", alike, "outcomes: are not as many as others of the same documents")


def _rows(results: Any) -> Iterator[dict[str, Any]]:
    """Yield a row per score of a task."""
    data = _object(results, "it")
    if not any(key in data for key in ("config", "configs", "versions")):
        raise ValueError("it has neither config nor versions")
    config = _member(data, "config")
    n_shot, versions, configs, counts, better = (
        _member(data, part)
        for part in ("n-shot", "versions", "configs", "n-samples", "higher_is_better")
    )
    facts = {
        "evaluated_model": _text(data, "model_name") or _named(config.get("model_args")),
        "harness": LM_EVAL,
        "harness_version": _text(data, "lm_eval_version") or _text(data, "git_hash"),
    }
    for task, scores in _all_tasks(data):
        number = _member(counts, task)
        settings = (_member(configs, task), config)
        given = (n_shot.get(task), *(each.get("num_fewshot") for each in settings))
        shots = next((number for number in given if number is not None), None)
        samples = _count(number.get("effective"), "n-samples", low=1)
        described = {
            "task": task,
            "n_shot": _count(shots, "n-shot"),
            "samples": samples,
            "limited": _limited(samples, number.get("original"), config),
            "task_version": _version(versions.get(task)),
        }
        is_higher = _member(better, task)
        for score in _scores(task, scores):
            higher = is_higher.get(score["metric"])
            known = higher if isinstance(higher, bool) else None
            yield {**facts, **described, **score, "higher_is_better": known}


def _all_tasks(data: _Object) -> Iterator[tuple[str, _Object]]:
    """Yield tasks and groups of tasks, which some versions write separately, others twice."""
    tasks, groups = _object(data.get("results"), "results"), _member(data, "groups")
    for task, scores in {**tasks, **groups}.items():
        if len(task) > limits.NAME_LENGTH:
            raise ValueError(f"a task's name of {len(task):,} characters")
        is_both = task in groups and task in tasks
        if is_both and list(_scores(task, tasks[task])) != list(_scores(task, scores)):
            raise ValueError(f"{_short(task)} has other scores as a group than as a task")
        yield task, scores


def _scores(task: str, results: Any) -> Iterator[dict[str, Any]]:
    """Yield the scores of a task; if any key names a filter, keys without are not scores."""
    scores = _object(results, _short(task))
    filtered = any("," in key for key in scores)
    for key, value in scores.items():
        metric, comma, after = key.partition(",")
        if filtered != bool(comma) or metric in _NOT_SCORES:
            continue
        if metric.endswith(_STDERR):
            if metric.removesuffix(_STDERR) + comma + after not in scores:
                raise ValueError(f"{_short(task)} has {_short(key)} without its score")
            continue
        label = f"{_short(task)}, {_short(key)}"
        error = scores.get(metric + _STDERR + comma + after)
        yield {
            "metric": metric,
            "filter": after if comma else None,
            "value": _number(value, label),
            "stderr": _number(error, f"{label}, stderr"),
        }


def _limited(samples: int | None, original: Any, config: _Object) -> bool | None:
    """Return whether only a part of a task was run, by its samples or by the configuration."""
    every = _count(original, "samples", low=1)
    if samples is not None and every is not None:
        return samples < every
    return config["limit"] is not None if "limit" in config else None


def _number(value: Any, label: str) -> float | None:
    """Return a score; None if the harness could not compute it."""
    if value is None or value == "N/A":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{label}: {printable(repr(value), 60)} is not a number")
    return float(value) if math.isfinite(value) else None


def _count(value: Any, label: str, low: int = 0) -> int | None:
    """Return a number of examples; None if the harness wrote none, or a word such as N/A."""
    if value is None or isinstance(value, str):
        return None
    return check_integer(value, label, low, limits.ALL_VALUES)


def _version(value: Any) -> str | None:
    """Return the version of a task as text; harnesses write 0, 1.0, or words."""
    if value is None or value in ("N/A", ""):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"versions: {printable(repr(value), 60)} is not a version")
    return str(value)[: limits.NAME_LENGTH]


def _named(arguments: Any) -> str | None:
    """Return the model that arguments such as ``pretrained=x,dtype=y`` name."""
    if isinstance(arguments, str):
        pairs = (item.partition("=") for item in arguments.split(","))
        arguments = {name.strip(): value for name, _, value in pairs}
    if not isinstance(arguments, dict):
        return None
    return next((name for key in _MODEL_ARGUMENTS if (name := _text(arguments, key))), None)


def _text(data: _Object, key: str) -> str | None:
    value = data.get(key)
    return value[: limits.NAME_LENGTH] if isinstance(value, str) and value else None


def _member(data: _Object, key: str) -> _Object:
    """Return an object inside another; an empty one if it is missing."""
    return {} if data.get(key) is None else _object(data[key], _short(key))


def _object(value: Any, label: str) -> _Object:
    if not isinstance(value, dict):
        raise ValueError(f"{label} is {printable(repr(value), 60)}, not an object")
    return value


def _short(name: str) -> str:
    return printable(name, 80)


def _results_file(path: Path) -> Path:
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


def _reading(path: Path, kind: str, advice: str) -> AbstractContextManager[None]:
    """Turn errors from reading a file that a harness wrote into one-line errors."""

    def explain(error: Exception) -> str:
        if isinstance(error, OSError):
            return f"cannot read {path}: {error.strerror or error}"
        return f"{path}: is not {kind}: {error}; {advice}"

    return explained(explain, OSError, ValueError)


def _with_outcomes(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Return scores with the outcomes per document that are logged beside their file.

    Metrics whose outcomes are not all 0 or 1, or for which lower is better, keep none.

    Raises
    ------
    SparsityReportError
        A file of samples is damaged or too large.
    """
    date = file.stem.rpartition("_")[2]
    # A name from the file must not lead to another folder.
    paths = {path.name: path for path in file.parent.glob("samples_*.jsonl")}
    columns: dict[str, Any] = {name: [None] * len(frame) for name in PAIRING}
    for task, rows in frame.reset_index().groupby("task", sort=False):
        if (path := paths.get(f"samples_{task}_{date}.jsonl")) is None:
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
    is_count = number.isdecimal() and len(number) <= 9 and int(number) > 0
    if not is_count or not 0 <= 8 * len(bits) - int(number) < 8:
        raise ValueError("outcomes: do not hold one bit per document")
    return np.unpackbits(bits, count=int(number)).astype(bool)


def pack(outcomes: Collection[int]) -> str:
    """Return outcomes as their number and one bit each, in base64."""
    bits = np.packbits(np.fromiter(outcomes, bool, len(outcomes))).tobytes()
    return f"{len(outcomes)}:{base64.b64encode(bits).decode()}"


def _packed(path: Path, keys: Collection[_Key]) -> dict[_Key, tuple[str, ...]]:
    """Return the columns of :data:`PAIRING` by metric and filter; empty without hashes."""
    samples: dict[_Key, list[tuple[Any, ...]]] = {key: [] for key in keys}
    advice = "give one that the harness wrote, or move the results file to another folder to read "
    with _reading(path, "a file of samples", f"{advice}its scores alone"):
        for row in _json_rows(path):
            check_nesting(row)
            if (identity := _identity(row)) is None:
                return {}
            for (metric, of_filter), listed in samples.items():
                if metric in row and (of_filter or "none") == row.get("filter", "none"):
                    listed.append((*identity, row[metric]))
            if any(len(each) > limits.DOCUMENTS for each in samples.values()):
                raise ValueError(f"it has more than {limits.DOCUMENTS:,} documents")
    columns = {}
    for key, listed in samples.items():
        if not listed:
            continue
        listed.sort(key=itemgetter(0, 1, 2, 3))
        *hashes, _, scores = zip(*listed, strict=True)
        if all(isinstance(s, int | float) and s in _OUTCOMES for s in scores):
            texts = (json.dumps(each).encode() for each in hashes)
            prints = (hashlib.sha256(text).hexdigest()[:16] for text in texts)
            columns[key] = (*prints, pack(scores))
    return columns


def _identity(row: Any) -> tuple[str, ...] | None:
    """Return the hashes and the number of a document; None if it was logged without hashes."""
    if not isinstance(row, dict):
        raise ValueError(f"{printable(repr(row), 60)} is not an object")
    hashes: list[Any] = [row.get(f"{part}_hash") for part in ("doc", "target", "prompt")]
    if not all(isinstance(each, str) and len(each) <= limits.DIGITS * 4 for each in hashes):
        return None
    return (*hashes, f"{row.get('doc_id')!s:.40}")


def _json_rows(path: Path) -> Iterator[Any]:
    """Yield the objects of a file with one JSON text per line."""
    with open_file(path) as file:
        while line := file.readline(limits.SAMPLE_BYTES + 1):
            if len(line) > limits.SAMPLE_BYTES:
                raise ValueError(f"a line has more than {limits.SAMPLE_BYTES:,} bytes")
            yield parse_json(line, once=True)
