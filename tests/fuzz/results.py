"""Files of evaluation harnesses: each score is what the file says, or the file is refused.

The judge reads the file by rules of its own, which are those of ``sr.read_lm_eval`` said again.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from random import Random
from typing import Any

import harnesses

import sparsity_report as sr
from fuzz.family import Base, Family, Files
from fuzz.mutators import TEXTS, damage_bytes, damage_json, dumped, marked, number, parsed

NAME = "results.json"
_NAMES = (*TEXTS, "boolq", "acc", "acc,none", "acc_stderr,none", "all", "alias", "a|b|5", "mmlu")
_BESIDE = {"alias", "name", "sample_len", "sample_count", "samples", " ", "bypass"}


def _bases(_: Path) -> list[Base]:
    made = {
        "today": harnesses.lm_eval(),
        "before": harnesses.old_lm_eval(),
        "lighteval": harnesses.lighteval(),
    }
    return [Base(name, {NAME: json.dumps(told).encode()}) for name, told in made.items()]


def damage_text(random: Random, files: Files) -> None:
    """Change one thing anywhere in the file."""
    if (told := parsed(_data(files))) is not None:
        files[NAME] = dumped(damage_json(random, told, _NAMES))


def damage_scores(random: Random, files: Files) -> None:
    """Change a score, its name, or the name of its task."""
    told = parsed(_data(files))
    tables = [
        part
        for part in ("results", "groups")
        if isinstance(told, dict) and isinstance(told.get(part), dict) and told[part]
    ]
    if not tables:
        return
    tasks = told[random.choice(tables)]
    task = random.choice(list(tasks))
    scores = tasks[task]
    if random.random() < 0.2 or not isinstance(scores, dict) or not scores:
        tasks[random.choice((*_NAMES, *tasks))] = tasks.pop(task)
    else:
        key = random.choice(list(scores))
        value = scores[key]
        kind = random.randrange(5)
        if kind == 0:
            scores[random.choice((*_NAMES, *scores))] = scores.pop(key)
        elif kind == 1:
            del scores[key]
        elif kind == 2 and isinstance(value, float):
            scores[key] = random.choice((value + 1e-9, -value, value * 100, 1 - value, 1.0, 0))
        else:
            scores[key] = random.choice((marked(number(random)), "N/A", "", None, True, [value]))
    files[NAME] = dumped(told)


def damage_facts(random: Random, files: Files) -> None:
    """Change what is said of a task or of the run beside the scores."""
    told = parsed(_data(files))
    parts = ("n-shot", "versions", "n-samples", "higher_is_better", "configs", "config",
             "config_general", "config_tasks")  # fmt: skip
    there = [part for part in parts if isinstance(told, dict) and told.get(part)]
    if not there:
        return
    part = random.choice(there)
    told[part] = damage_json(random, told[part], _NAMES)
    if random.random() < 0.2:
        told[random.choice((*parts, "results"))] = told.pop(part)
    files[NAME] = dumped(told)


def damage_file(random: Random, files: Files) -> None:
    """Change some bytes."""
    files[NAME] = damage_bytes(random, _data(files))


def _data(files: Files) -> bytes:
    data = files[NAME]
    assert isinstance(data, bytes)
    return data


def _judge(folder: Path, _: Base) -> str:
    frame = sr.read_lm_eval(folder / NAME, variant="Dense")
    data = (folder / NAME).read_bytes()
    told = json.loads(data)
    due = _by_lighteval(told) if told.get("config_general") is not None else _by_lm_eval(told)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    read = {
        (row["task"], row["metric"], row["filter"]): [row[name] for name in _FACTS] for row in rows
    }
    if read != due:
        return f"read as {_differing(read, due)}, not {_differing(due, read)}"
    if any(row["results_fingerprint"] != hashlib.sha256(data).hexdigest()[:16] for row in rows):
        return "another fingerprint"
    wrong = [row for row in rows if row["metric"] in {"acc", "acc_norm"} and not _share(row)]
    return f"an accuracy of {wrong[0]['value']}" if wrong else ""


_FACTS = ("value", "stderr", "n_shot", "samples", "limited", "task_version", "evaluated_model")
_Scores = dict[tuple[str, str, str | None], list[Any]]


def _share(row: dict[str, Any]) -> bool:
    return row["value"] is None or 0 <= row["value"] <= 1


def _differing(one: _Scores, other: _Scores) -> Any:
    return {key: value for key, value in one.items() if other.get(key) != value}


def _by_lm_eval(told: Any) -> _Scores:
    config = told.get("config") or {}
    name = told.get("model_name")
    if not isinstance(name, str) or not name:
        name = _pretrained(config.get("model_args"))
    due: _Scores = {}
    for task, metric, filter_name, value, stderr in _every(told):
        configs = (told.get("configs") or {}).get(task) or {}
        given = [(told.get("n-shot") or {}).get(task), configs.get("num_fewshot")]
        given = [shots for shots in [*given, config.get("num_fewshot")] if shots is not None]
        counts = (told.get("n-samples") or {}).get(task) or {}
        effective, original = (_int(counts.get(key)) for key in ("effective", "original"))
        limited = config["limit"] is not None if "limit" in config else None
        if effective is not None and original not in (None, -1):
            limited = effective < original
        version = _words((told.get("versions") or {}).get(task))
        shots = _int(given[0]) if given else None
        due[task, metric, filter_name] = [
            value, stderr, shots, effective, limited, version, _cut(name),
        ]  # fmt: skip
    return due


def _by_lighteval(told: Any) -> _Scores:
    general = told["config_general"]
    name = general.get("model_name")
    if not isinstance(name, str) or not name:
        name = (general.get("model_config") or {}).get("model_name")
    due: _Scores = {}
    for task, metric, filter_name, value, stderr in _every(told, without="all"):
        without, _, shots = task.rpartition("|")
        configs = told.get("config_tasks") or {}
        counts = configs.get(task) or configs.get(without) or {}
        effective, original = (
            _int(counts.get(f"{key}_num_docs")) for key in ("effective", "original")
        )
        effective = None if effective == -1 else effective
        limited = general["max_samples"] is not None if "max_samples" in general else None
        if effective is not None and original not in (None, -1):
            limited = effective < original
        of_name = int(shots) if shots.isascii() and shots.isdigit() and len(shots) < 10 else None
        version = _words((told.get("versions") or {}).get(task))
        due[task, metric, filter_name] = [
            value, stderr, of_name, effective, limited, version, _cut(name),
        ]  # fmt: skip
    return due


def _every(
    told: Any, without: str = ""
) -> list[tuple[str, str, str | None, float | None, float | None]]:
    """Every score with its standard error, of groups, too."""
    every = []
    all_tasks = {**(told.get("groups") or {}), **told["results"]}
    for task, scores in all_tasks.items():
        if without and task == without:
            continue
        commas = [key for key in scores if "," in key]
        for key in commas or scores:
            metric, _, filter_name = key.partition(",")
            if metric in _BESIDE or metric.endswith("_stderr"):
                continue
            error = f"{metric}_stderr,{filter_name}" if commas else f"{metric}_stderr"
            pair = [_float(each) for each in (scores[key], scores.get(error))]
            every.append((task, metric, filter_name if commas else None, *pair))
    return every


def _float(value: Any) -> float | None:
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else None


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _words(value: Any) -> str | None:
    return None if value in (None, "", "N/A") else str(value)[:4096]


def _pretrained(arguments: Any) -> Any:
    if isinstance(arguments, str):
        split = [item.split("=", 1) for item in arguments.split(",") if "=" in item]
        arguments = {item[0].strip(): item[1] for item in split}
    if not isinstance(arguments, dict):
        return None
    for key in ("peft", "delta", "pretrained", "model", "path", "engine"):
        if isinstance(arguments.get(key), str) and arguments[key]:
            return arguments[key]
    return None


def _cut(name: Any) -> str | None:
    return name[:4096] if isinstance(name, str) and name else None


_DAMAGE = (damage_text, damage_scores, damage_scores, damage_facts, damage_file)
RESULTS = Family("results", _bases, _DAMAGE, _judge, quick=80)
