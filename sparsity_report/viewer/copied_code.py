"""A study at a level as text to copy: Python or a command."""

import re
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.n_m_patterns import is_pattern, pattern_at
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.package_data import DEMO
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.policy_names import EXISTING, GLOBAL
from sparsity_report.study.layers import records
from sparsity_report.study.schema import METRICS
from sparsity_report.weights.tensor_slices import FileSlice, LocalFile
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Attributes of an explorer that are variants of its study.
_VARIANTS = {"variant", "against"}
# Methods that the command line has, and their names there.
_POLICIES = {
    "global_magnitude": "magnitude",
    "layerwise_magnitude": "layerwise",
    "random, seed 0": "random",
}
# Measurements that statements do not repeat, and attributes that need them.
_MEASURED = ("quality", "tasks", "latency", "sensitivity")
_OF_MEASURED = {"metric": "sensitivity", "curve": "quality"}


class Shown(NamedTuple):
    """A variant or a level of a study, as an explorer shows it.

    Attributes
    ----------
    study : Study
    variant : str or None
        A variant of the study; None for a level of it.
    sparsity : float
        The level.
    view : mapping
        Attributes of an explorer that differ from their defaults, in the order to set them.
    policy : str
        Policy of the level: ``"global_magnitude"``, ``"layerwise_magnitude"``, or an N:M family
        such as ``"N:4"``.
    """

    study: Study
    variant: str | None
    sparsity: float
    view: Mapping[str, Any]
    policy: str = GLOBAL

    @property
    def method(self) -> str | None:
        """Pruning method; None if nothing is pruned."""
        if self.variant is None and (pattern := pattern_at(self.policy, self.sparsity)):
            return str(pattern)
        if self.variant is None:
            return self.policy
        method: str | None = self._described["method"]
        return method

    @property
    def asked(self) -> float | None:
        """Requested share of zeros among the prunable weights."""
        asked = self.sparsity if self.variant is None else self._described["asked_sparsity"]
        return None if pd.isna(asked) else float(asked)

    @property
    def _described(self) -> Any:
        return self.study.variants.set_index("variant").loc[self.variant]


def study_code(study: Study) -> tuple[str, set[str]]:
    """Return statements that repeat a study, and the variants that they repeat.

    Comments tell what they omit.

    Raises
    ------
    SparsityReportError
        No variant can be repeated.
    """
    lines = ["import sparsity_report as sr", "", _opening(study)]
    variants, known = [], set()
    first = study.variants["fingerprint"].iloc[0]
    prunings: dict[tuple[Any, ...], str] = {}
    for row in records(study.variants):
        name, method, asked = row["variant"], row["method"], row["asked_sparsity"]
        call = _call(method, asked) if row["fingerprint"] == first else None
        if call is None:
            why = "another model" if row["fingerprint"] != first else f"pruned by {method!r}"
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
        pruning = prunings[method, asked]
        variants.append(f"sr.{row['layout']}({pruning}, name={name!r})")
    if not variants:
        raise SparsityReportError(say("copy.error_no_repeatable_variant"))
    lines += ["study = sr.compare(", *(f"    {variant}," for variant in variants), ")"]
    if measured := [name for name in _MEASURED if getattr(study, name) is not None]:
        lines += [
            f"# Not measured anew: {', '.join(measured)}. study.save('study.json') keeps what was",
            "# measured, and study = sr.read_study('study.json') has it.",
        ]
    return "\n".join(lines), known


def as_python(shown: Shown) -> str:
    """Return statements that repeat the study and the explorer, with comments on what they omit."""
    code, known = study_code(shown.study)
    lines = [code]
    lines += ["explorer = sr.explore(study)"]
    for name, value in shown.view.items():
        if name in _OF_MEASURED and value == _OF_MEASURED[name]:
            lines.append(f"# explorer.{name} = {value!r}  # needs what was measured")
        elif name == "metric" and value not in METRICS:
            lines.append(f"# {value!r} is a figure of your own: sr.explore(study, columns=…)")
        elif name not in _VARIANTS or value in known or (name, shown.variant) == ("variant", None):
            lines.append(f"explorer.{name} = {value!r}")
    if shown.variant is None:
        call = _call(shown.method, shown.sparsity)
        lines += ["", "# The level, exactly", f"pruning = {call}"]
    return "\n".join([*lines, "explorer", ""])


def as_command(shown: Shown) -> str:
    """Return the command that writes a report of this pruning."""
    method, asked = shown.method, shown.asked
    policy = method if is_pattern(method) else _POLICIES.get(method or "")
    source = _source(shown.study)
    words = ["sparsity-report", "run", *([source] if source else [])]
    if method == EXISTING:
        words.append("--as-is")
    elif policy is None or asked is None:
        raise SparsityReportError(
            say("copy.error_unsupported_pruning", code='sr.write_report(study, "report.html")')
        )
    else:
        words += ["--sparsity", f"{asked:g}", "--policy", policy]
    return shlex.join([*words, "--out", "results"]) + "\n"


def _call(method: str | None, asked: Any) -> str | None:
    """Return the call that repeats a pruning; None if a level does not determine it."""
    if method is None:
        return ""
    if method == EXISTING:
        return "sr.existing_zeros(weights)"
    if method in {"global_magnitude", "layerwise_magnitude"}:
        return f"sr.{method}(weights, {float(asked)!r})"
    if match := re.fullmatch(r"random, seed (\d+)", method):
        return f"sr.random_unstructured(weights, {float(asked)!r}, seed={match[1]})"
    if is_pattern(method):
        return f"sr.n_m(weights, {', '.join(method.split(':'))})"
    return None


def _opening(study: Study) -> str:
    """Return the line that opens the model."""
    if study.weights is not None and study.weights.source == "module":
        return f"weights = sr.load(model)  # the module that was opened as {study.weights.name!r}"
    source = _source(study)
    return f"weights = sr.load({source!r})" if source else "weights = sr.load()"


def _source(study: Study) -> str:
    """Return the argument of ``load``; empty for the demo model."""
    path = None if study.weights is None else _path(study.weights)
    if path is not None and path.resolve().parent == DEMO.resolve():
        return ""
    name = str(study.variants["model"].iloc[0])
    if path is None or _HUB_ID.fullmatch(name):
        return name
    return str(path.parent if path.name.endswith((".safetensors", ".bin")) else path)


def _path(weights: Weights) -> Any:
    """Return the file of the first prunable weights; None unless it is on this machine."""
    for p in weights.prunable[:1]:
        for part in weights.slices(p.name):
            for source in part.sources():
                if isinstance(source, FileSlice) and isinstance(source.file, LocalFile):
                    return source.file.path
    return None


#: Functions that write a copy, by the name of its form.
FORMS = {"python": as_python, "command": as_command}
