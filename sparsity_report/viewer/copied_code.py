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
        opening, self.command = _opening(study)
        self.study_code, self.repeated = _statements(study, opening)

    def of_variant(self, row: Mapping[str, Any]) -> str | None:
        """Return the options that prune a variant so; None if the command line does not."""
        policy = read_method(row["method"]) if row["fingerprint"] == self._first else None
        return None if policy is None else policy.command(_known(row["asked_sparsity"]))


def _statements(study: StudyFigures, opening: str) -> tuple[str, frozenset[str]]:
    """Return statements that repeat a study, and the variants that they repeat."""
    lines = ["import sparsity_report as sr", "", opening]
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


def _opening(study: StudyFigures) -> tuple[str, str | None]:
    """Return the statement and the command that open the model; no command for a module."""
    if study.variants["source"].iloc[0] == "module":
        name = str(study.variants["model"].iloc[0])
        return f"weights = sr.load(model)  # the module that was opened as {name!r}", None
    source = _source(study)
    notes = () if study.weights is None else study.weights.notes
    # Unknown for saved studies.
    is_by_names = any(says(note, "note.config_unused") for note in notes)
    arguments = [*([repr(source)] if source else []), *["config=False"] * is_by_names]
    words = "sparsity-report", "run", source, "--by-names" if is_by_names else ""
    return f"weights = sr.load({', '.join(arguments)})", shlex.join(filter(None, words))


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
