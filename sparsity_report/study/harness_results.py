"""Scores on tasks from the result files of evaluation harnesses, as a tidy frame.

Files of lm-evaluation-harness (EleutherAI) are read with or without a filter after the metric
(``"acc,none"``, since 0.4), and files of lighteval (Hugging Face). Keys of a task that are not
scores are left out, as is the mean of all tasks that lighteval adds.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sparsity_report.errors import printable
from sparsity_report.study.harness_samples import (
    PAIRING,
    reading,
    results_file,
    unpack,
    with_outcomes,
)
from sparsity_report.study.schema import TABLES, check, refuse, typed
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, check_nesting, open_file, parse_json

LM_EVAL, LIGHTEVAL = "lm-evaluation-harness", "lighteval"
#: Columns that identify a score: no two rows of a study agree in all of them.
KEYS = ("variant", "task", "metric", "filter", "n_shot")
# Metrics that are shares of 1 whatever the task.
_SHARES = ("acc", "acc_norm")
# Keys that harnesses write next to the scores of a task.
_NOT_SCORES = ("alias", "name", "sample_len", "sample_count", "samples", " ")
# The metric of a task whose answers were generated but not scored.
_BYPASS = "bypass"
_STDERR = "_stderr"
# Harnesses add the outcomes of documents in another order.
_ROUNDING = 1e-6
# Arguments that name the model, in the order of the harness: an adapter before its base.
_MODEL_ARGUMENTS = ("peft", "delta", "pretrained", "model", "path", "engine")
_Object = Mapping[str, Any]
# Facts about a task, its scores, and by metric whether higher is better.
_Task = tuple[dict[str, Any], _Object, _Object]


def read_lm_eval(path: str | os.PathLike[str], variant: str | None = None) -> pd.DataFrame:
    """Read the scores on tasks that an evaluation harness wrote, as a tidy frame.

    Parameters
    ----------
    path : path-like
        A ``results_….json`` of lm-evaluation-harness or lighteval, or a folder that holds one.
        Samples that were logged with it (``--log_samples``, or ``--save-details`` of lighteval)
        are read, too. Its details are parquet files, which need pyarrow.
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
        A file is not of a known harness, too large, damaged, or contradicts itself; or a folder
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
    file = results_file(Path(path))
    kind = f"a results file of {LM_EVAL} or {LIGHTEVAL}"
    with reading(file, kind, "give a file that one of them wrote"):
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
        frame = with_outcomes(frame, file)
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


def _rows(results: Any) -> Iterator[dict[str, Any]]:
    """Yield a row per score of a task."""
    data = _object(results, "it")
    if data.get("config_general") is not None:
        tasks = _lighteval_tasks(data)
    elif any(key in data for key in ("config", "configs", "versions")):
        tasks = _lm_eval_tasks(data)
    else:
        raise ValueError("it has neither config nor config_general")
    for described, scores, better in tasks:
        for score in _scores(described["task"], scores):
            higher = better.get(score["metric"])
            known = higher if isinstance(higher, bool) else None
            yield {**described, **score, "higher_is_better": known}


def _lm_eval_tasks(data: _Object) -> Iterator[_Task]:
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
            "limited": _limited(samples, number.get("original"), config, "limit"),
            "task_version": _version(versions.get(task)),
        }
        yield facts | described, scores, _member(better, task)


def _lighteval_tasks(data: _Object) -> Iterator[_Task]:
    general = _member(data, "config_general")
    sha = _text(general, "lighteval_sha")
    config = _member(general, "model_config")
    facts = {
        "evaluated_model": _text(general, "model_name") or _text(config, "model_name"),
        "harness": LIGHTEVAL,
        "harness_version": None if sha == "?" else sha,
    }
    configs, versions = _member(data, "config_tasks"), _member(data, "versions")
    for task, scores in _all_tasks(data):
        if task == "all":
            continue
        # Tasks are named (suite|)task|examples, and their configurations without the examples.
        name, _, shots = task.rpartition("|")
        is_number = shots.isdecimal() and shots.isascii() and len(shots) <= 9
        number = _member(configs, task) or _member(configs, name)
        samples = number.get("effective_num_docs")
        samples = None if samples == -1 else _count(samples, "effective_num_docs", low=1)
        described = {
            "task": task,
            "n_shot": _count(int(shots), "examples") if is_number else None,
            "samples": samples,
            "limited": _limited(samples, number.get("original_num_docs"), general, "max_samples"),
            "task_version": _version(versions.get(task)),
        }
        yield facts | described, scores, {}


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
        if filtered != bool(comma) or metric in (*_NOT_SCORES, _BYPASS):
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


def _limited(samples: int | None, original: Any, config: _Object, key: str) -> bool | None:
    """Return whether only a part of a task was run, by its samples or by the configuration."""
    every = None if original == -1 else _count(original, "samples", low=1)
    if samples is not None and every is not None:
        return samples < every
    return config[key] is not None if key in config else None


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
