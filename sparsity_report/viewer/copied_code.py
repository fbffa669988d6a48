"""A study and its levels as Python and as commands, which the viewer joins with its state."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sparsity_report.counting.pruning_policies import read_method
from sparsity_report.files.package_data import DEMO
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.weights.tensor_slices import LocalFile
from sparsity_report.words.sentences import says

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Measurements that statements do not repeat.
_MEASURED = ("quality", "tasks", "latency", "sensitivity")


class CopiedCode:
    """Statements and commands that repeat a study, its variants and levels.

    Parameters
    ----------
    study : Study

    Attributes
    ----------
    study_code : str
        Statements that repeat the study, with comments on what they omit; empty if they would omit
        every variant.
    repeated : frozenset of str
        Names of the variants that the statements repeat.
    command : str or None
        The command that opens the model; None for a module in memory.
    """

    def __init__(self, study: StudyFigures) -> None:
        self._first = study.variants["fingerprint"].iloc[0]
        self.study_code, self.repeated = _statements(study)
        source = _source(study)
        words = "sparsity-report", "run", source, "--by-names" if _is_by_names(study) else ""
        self.command = None if _is_module(study) else shlex.join(filter(None, words))

    def of_variant(self, row: Mapping[str, Any]) -> str | None:
        """Return the options that prune a variant so; None if the command line does not."""
        policy = read_method(row["method"]) if row["fingerprint"] == self._first else None
        return None if policy is None else policy.command(_known(row["asked_sparsity"]))


def _statements(study: StudyFigures) -> tuple[str, frozenset[str]]:
    """Return statements that repeat a study, and the variants that they repeat."""
    lines = ["import sparsity_report as sr", "", _opening(study)]
    variants, known = [], set()
    first = study.variants["fingerprint"].iloc[0]
    prunings: dict[tuple[Any, ...], str] = {}
    for row in records(study.variants):
        name, method, asked = row["variant"], row["method"], row["asked_sparsity"]
        policy, is_first = read_method(method), row["fingerprint"] == first
        call = policy.python(_known(asked)) if policy else None
        if not is_first or (call is None and method is not None):
            why = f"pruned by {method!r}" if is_first else "another model"
            lines.append(f"# {name!r} is left out: {why}, which the study cannot say how to repeat")
            continue
        known.add(name)
        if method is None:
            variants.append(f"sr.dense(weights, name={name!r})")
            continue
        if (method, asked) not in prunings:
            pruning = f"pruning_{len(prunings) + 1}"
            prunings[method, asked] = pruning
            lines += [f"{pruning} = {call}", f"assert {pruning}.pruned == {int(row['pruned'])}"]
        variants.append(f"sr.{row['layout']}({prunings[method, asked]}, name={name!r})")
    if not variants:
        return "", frozenset()
    defaults = {"convention": "standard", "context": None, "patterns": False}
    given = {**vars(study), "patterns": study.patterns is not None}
    variants += [f"{k}={given[k]!r}" for k, default in defaults.items() if given[k] != default]
    lines += ["study = sr.compare(", *(f"    {argument}," for argument in variants), ")"]
    if measured := [name for name in _MEASURED if getattr(study, name) is not None]:
        lines += [
            f"# Not measured anew: {', '.join(measured)}. study.save('study.json') keeps what was",
            "# measured, and study = sr.read_study('study.json') has it.",
        ]
    return "\n".join(lines), frozenset(known)


def _known(asked: Any) -> float | None:
    return None if pd.isna(asked) else float(asked)


def _opening(study: StudyFigures) -> str:
    """Return the line that opens the model."""
    if _is_module(study):
        name = str(study.variants["model"].iloc[0])
        return f"weights = sr.load(model)  # the module that was opened as {name!r}"
    source = _source(study)
    arguments = [*([repr(source)] if source else []), *["config=False"] * _is_by_names(study)]
    return f"weights = sr.load({', '.join(arguments)})"


def _is_module(study: StudyFigures) -> bool:
    """Return whether the first model was a module in memory."""
    return bool(study.variants["source"].iloc[0] == "module")


def _is_by_names(study: StudyFigures) -> bool:
    """Return whether the groups of the first model follow from names; unknown for saved studies."""
    notes = () if study.weights is None else study.weights.notes
    return any(says(note, "note.config_unused") for note in notes)


def _source(study: StudyFigures) -> str:
    """Return the argument of ``load``; empty for the demo model."""
    files = () if study.weights is None else study.weights.files
    path = files[0].path if files and isinstance(files[0], LocalFile) else None
    if path is not None and path.resolve().parent == DEMO.resolve():
        return ""
    name = str(study.variants["model"].iloc[0])
    if path is None or _HUB_ID.fullmatch(name):
        return name
    return str(path.parent if path.name.endswith((".safetensors", ".bin")) else path)
