"""Results of other programs: what evaluation harnesses wrote of a model, as a tidy frame.

Read are files of lm-evaluation-harness (EleutherAI), of the versions that name a filter behind each
metric (``"acc,none"``, since 0.4) and of those before, and of lighteval (Hugging Face). Keys of a
task that are no scores are left out, and so is lighteval's mean of all its tasks: it mixes them.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.study.schema import TABLES, check, refuse, typed
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, check_nesting, open_file, parse_json

LM_EVAL, LIGHTEVAL = "lm-evaluation-harness", "lighteval"
#: What makes a score one: no two rows of a study agree in all of it.
KEYS = ("variant", "task", "metric", "filter", "n_shot")
# Metrics that are shares of 1 whatever the task.
_SHARES = ("acc", "acc_norm")
# What harnesses write beside the scores of a task.
_BESIDE = ("alias", "name", "sample_len", "sample_count", "samples", " ")
# Stands for scores of a task that was only generated for.
_NOT_SCORED = "bypass"
_STDERR = "_stderr"
# Where arguments name the model, in the order that the harness looks: an adapter before its base.
_MODEL_ARGUMENTS = ("peft", "delta", "pretrained", "model", "path", "engine")


class _Score(NamedTuple):
    metric: str
    filter: str | None
    value: float | None
    stderr: float | None


def read_lm_eval(path: str | os.PathLike[str], variant: str | None = None) -> pd.DataFrame:
    """Read what an evaluation harness wrote of a model: its scores on tasks, as a tidy frame.

    Parameters
    ----------
    path : path-like
        A ``results_….json`` of lm-evaluation-harness or lighteval.
    variant : str, optional
        Name of the variant that was evaluated, for
        :meth:`~sparsity_report.Comparison.with_measured`. A file names a model, and several
        variants may be of one.

    Returns
    -------
    pandas.DataFrame
        One row per ``task``, ``metric`` and ``filter`` of the answers: ``value`` and ``stderr`` as
        the harness wrote them, null where it wrote no number; ``higher_is_better``, ``n_shot``,
        ``samples`` and whether they were ``limited`` to a part of the task; ``task_version``,
        ``evaluated_model``, ``harness``, ``harness_version``, ``results_file`` and the first half
        of its SHA-256, ``results_fingerprint``, which is what a citation needs.

    Raises
    ------
    SparsityReportError
        It is not such a file, too large, damaged, or contradicts itself.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import sparsity_report as sr
    >>> told = {"results": {"boolq": {"acc,none": 0.75, "acc_stderr,none": 0.01}}, "config": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "results.json")
    ...     _ = file.write_text(json.dumps(told))
    ...     frame = sr.read_lm_eval(file, variant="Dense")
    >>> frame[["variant", "task", "metric", "value", "stderr"]].to_numpy().tolist()
    [['Dense', 'boolq', 'acc', 0.75, 0.01]]
    """
    file = Path(path)
    try:
        with open_file(file) as opened:
            data = opened.read(limits.RESULTS_BYTES + 1)
        if len(data) > limits.RESULTS_BYTES:
            raise ValueError(f"it has more than {limits.RESULTS_BYTES:,} bytes")
        told = parse_json(data, once=True)
        check_nesting(told)
        rows = list(_rows(told))
        if not rows:
            raise ValueError("it holds no scores")
        if len(rows) > limits.RESULTS:
            raise ValueError(f"it holds more than {limits.RESULTS:,} scores")
        facts = {
            "variant": "" if variant is None else variant,
            "results_file": file.name,
            "results_fingerprint": hashlib.sha256(data).hexdigest()[:16],
        }
        names = list(TABLES["tasks"].names)
        frame = typed("tasks", pd.DataFrame([row | facts for row in rows], columns=names))
        check("tasks", frame)
        check_results(frame)
    except OSError as error:
        raise SparsityReportError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise SparsityReportError(
            f"{file} is no results file of {LM_EVAL} or {LIGHTEVAL} that can be read: {error}"
        ) from error
    return frame if variant is not None else frame.assign(variant=None)


def check_results(frame: pd.DataFrame) -> None:
    """Refuse scores that cannot be: shares beyond 1, and one score with two values."""
    share = frame["metric"].isin(_SHARES)
    inside = frame["value"].between(0, 1) | frame["value"].isna() | ~share
    refuse("tasks", inside, "value: is an accuracy that is not between 0 and 1")
    refuse("tasks", frame["task"].str.len() > 0, "task: has no name")
    refuse("tasks", frame["metric"].str.len() > 0, "metric: has no name")
    refuse("tasks", ~frame.duplicated(list(KEYS)), "task: occurs twice with the same metric")


def _rows(told: Any) -> Iterator[dict[str, Any]]:
    data = _object(told, "it")
    general = data.get("config_general")
    if general is not None:
        yield from _lighteval_rows(data, _object(general, "config_general"))
    elif any(key in data for key in ("config", "configs", "versions")):
        yield from _lm_eval_rows(data)
    else:
        raise ValueError("it has neither config nor config_general")


def _lm_eval_rows(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    config = _member(data, "config")
    parts = {
        part: _member(data, part)
        for part in ("n-shot", "versions", "configs", "n-samples", "higher_is_better")
    }
    version = _text(data, "lm_eval_version") or _text(data, "git_hash")
    facts = {
        "evaluated_model": _text(data, "model_name") or _named(config.get("model_args")),
        "harness": LM_EVAL,
        "harness_version": version,
    }
    for task, scores in _all_tasks(data):
        counts = _member(parts["n-samples"], task)
        shots = _first(
            parts["n-shot"].get(task),
            _member(parts["configs"], task).get("num_fewshot"),
            config.get("num_fewshot"),
        )
        samples = _whole(counts.get("effective"), "n-samples", low=1)
        of_task = {
            "task": task,
            "n_shot": _whole(shots, "n-shot"),
            "samples": samples,
            "limited": _limited(samples, counts.get("original"), config, "limit"),
            "task_version": _version(parts["versions"].get(task)),
        }
        better = _member(parts["higher_is_better"], task)
        for score in _scores(task, scores):
            higher = better.get(score.metric)
            known = higher if isinstance(higher, bool) else None
            yield {**facts, **of_task, **score._asdict(), "higher_is_better": known}


def _lighteval_rows(
    data: Mapping[str, Any], general: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
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
        # Named suite|task|examples, or without the suite; configs are named without the examples.
        name, _, shots = task.rpartition("|")
        of = _member(configs, task) or _member(configs, name)
        samples = of.get("effective_num_docs")
        samples = None if samples == -1 else _whole(samples, "effective_num_docs", low=1)
        of_task = {
            "task": task,
            "n_shot": _whole(int(shots), "examples") if _short_number(shots) else None,
            "samples": samples,
            "limited": _limited(samples, of.get("original_num_docs"), general, "max_samples"),
            "task_version": _version(versions.get(task)),
        }
        for score in _scores(task, scores):
            yield {**facts, **of_task, **score._asdict(), "higher_is_better": None}


def _all_tasks(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield tasks, and groups of tasks, which some versions write apart, others twice."""
    tasks, groups = _object(data.get("results"), "results"), _member(data, "groups")
    for task, scores in {**tasks, **groups}.items():
        if len(task) > limits.NAME_LENGTH:
            raise ValueError(f"a task's name of {len(task):,} characters")
        if task in groups and task in tasks:
            one, other = (list(_scores(task, each[task])) for each in (tasks, groups))
            if one != other:
                raise ValueError(f"{_short(task)} has other scores as a group than as a task")
        yield task, scores


def _scores(task: str, told: Any) -> Iterator[_Score]:
    """Yield the scores of a task; where one key names a filter, those without are no scores."""
    scores = _object(told, _short(task))
    filtered = any("," in key for key in scores)
    for key, value in scores.items():
        metric, comma, after = key.partition(",")
        if filtered != bool(comma) or metric in (*_BESIDE, _NOT_SCORED):
            continue
        if metric.endswith(_STDERR):
            if metric.removesuffix(_STDERR) + comma + after not in scores:
                raise ValueError(f"{_short(task)} has {_short(key)}, and nothing that it is of")
            continue
        what = f"{_short(task)}, {_short(key)}"
        error = scores.get(metric + _STDERR + comma + after)
        filter_name = after if comma else None
        yield _Score(metric, filter_name, _number(value, what), _number(error, f"{what}, stderr"))


def _limited(
    samples: int | None, original: Any, config: Mapping[str, Any], key: str
) -> bool | None:
    """Whether only a part of a task was run: by its samples, or by what was asked for."""
    whole_task = None if original == -1 else _whole(original, "samples", low=1)
    if samples is not None and whole_task is not None:
        return samples < whole_task
    return config[key] is not None if key in config else None


def _number(value: Any, what: str) -> float | None:
    """Return a score; None where the harness could not compute it."""
    if value is None or value == "N/A":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what}: {printable(repr(value), 60)} is no number")
    return float(value) if math.isfinite(value) else None


def _whole(value: Any, what: str, low: int = 0) -> int | None:
    """Return a number of examples; None where the harness wrote none, or a word such as N/A."""
    if value is None or isinstance(value, str):
        return None
    return check_integer(value, what, low, limits.ALL_VALUES)


def _version(value: Any) -> str | None:
    """Return a task's version as text: harnesses write 0, 1.0, or words."""
    if value is None or value in ("N/A", ""):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"versions: {printable(repr(value), 60)} is none")
    return str(value)[: limits.NAME_LENGTH]


def _named(arguments: Any) -> str | None:
    """Return the model that a harness's arguments name: text such as ``pretrained=x,dtype=y``."""
    if isinstance(arguments, str):
        pairs = (item.partition("=") for item in arguments.split(","))
        arguments = {name.strip(): value for name, _, value in pairs}
    if not isinstance(arguments, dict):
        return None
    names = (_text(arguments, key) for key in _MODEL_ARGUMENTS)
    return next((name for name in names if name), None)


def _text(data: Mapping[str, Any], key: str) -> str | None:
    value = data.get(key)
    return value[: limits.NAME_LENGTH] if isinstance(value, str) and value else None


def _member(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object inside another; an empty one where it is missing."""
    return {} if data.get(key) is None else _object(data[key], _short(key))


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {printable(repr(value), 60)}, not an object")
    return value


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _short_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 9


def _short(name: str) -> str:
    return printable(name, 80)
