"""Violations of rules by a checkpoint, from its headers and one pass over its values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sparsity_report.counting.matrix_counts import MatrixCount, nonzero_blocks
from sparsity_report.counting.n_m_patterns import Pattern
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.package_data import DEMO
from sparsity_report.findings.deployment_notes import announced_pattern, deployment_notes, varying
from sparsity_report.findings.model_counts import (
    CountedModel,
    count_tensors,
    expert_sentences,
    model_experts,
)
from sparsity_report.findings.wanted_bounds import Bound, Rules, Wanted, read_rules
from sparsity_report.sparse.cost import TRACE
from sparsity_report.sparse.runtime_support import MISREAD, REFUSED, RUNTIMES, layouts_of
from sparsity_report.sparse.shares import ratio
from sparsity_report.weights.loading import load, open_to_count
from sparsity_report.weights.weights import Parameter, Weights
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Violation:
    """A broken rule.

    Attributes
    ----------
    rule, module : str
        Name of the rule, and the module or model that breaks it.
    wanted, actual : str
    """

    rule: str
    module: str
    wanted: str
    actual: str

    def __str__(self) -> str:
        parts = {"module": self.module, "wanted": self.wanted, "actual": self.actual}
        return say("check.violation", **parts)


@dataclass(frozen=True)
class ModelCheck:
    """Result of :func:`check`; true if no rule is violated.

    Attributes
    ----------
    name : str
        Name of the model.
    parameters : int
        Number of parameters, tied ones once.
    prunable, zeros : int or None
        Prunable weights and the zeros among them; None if they are unknown or were not read.
    violations : tuple of Violation
        Broken rules, each with ``rule``, ``module``, ``wanted`` and ``actual``.
    notes : tuple of str
        What deployment meets.
    experts : dict or None
        Experts of a mixture, as in the JSON of ``sparsity-report count``.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> checked = sr.check(pattern="2:4")
    >>> isinstance(checked, sr.ModelCheck), bool(checked), checked.violations[0].rule
    (True, False, 'pattern')
    """

    name: str
    parameters: int
    prunable: int | None
    zeros: int | None
    violations: tuple[Violation, ...] = ()
    notes: tuple[str, ...] = ()
    experts: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return not self.violations

    def sentences(self) -> list[str]:
        """Return the counts, the violations and the notes as lines of text.

        Returns
        -------
        list of str
            Sentences.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> print(sr.check(zeros=">=50%").sentences()[1][:35])
        demo: wanted >=50% zeros, found 0.0
        """
        head = say("check.parameters", model=self.name, count=self.parameters)
        if self.prunable:
            counts = {"zeros": self.zeros, "total": self.prunable, "count": self.parameters}
            head = say("check.counts", model=self.name, **counts, share=self._share)
        notes = [say("check.note", note=note) for note in self.notes]
        experts = expert_sentences(self.experts) if self.experts else ()
        return [head, *experts, *map(str, self.violations), *notes]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values.

        Returns
        -------
        dict
            ``model``, ``ok``, ``parameters``, ``prunable``, ``zeros``, ``share``, ``violations``,
            ``notes`` and ``experts``. Null is unknown.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> sr.check(no_nan=True).to_json()["ok"]
        True
        """
        violations = [
            {key: str(value) for key, value in vars(each).items()} | {"text": str(each)}
            for each in self.violations
        ]
        return {
            "model": self.name,
            "ok": bool(self),
            "parameters": self.parameters,
            "prunable": self.prunable,
            "zeros": self.zeros,
            "share": self._share,
            "violations": violations,
            "notes": list(self.notes),
            "experts": self.experts,
        }

    @property
    def _share(self) -> float | None:
        return ratio(self.zeros, self.prunable)


def check(
    model: str | os.PathLike[str] | Weights | nn.Module | None = None,
    *,
    base: str | os.PathLike[str] | nn.Module | None = None,
    allow_pickle: bool = False,
    **wanted: Unpack[Wanted],
) -> ModelCheck:
    """Check a checkpoint against rules, without building the model.

    Files are read in one pass, by range requests if they are on the Hub. Unpacked safetensors
    whose headers decide need neither torch nor transformers.

    Parameters
    ----------
    model : str, path, Weights, nn.Module or None
        A Hub id, a directory, a ``.safetensors`` or a ``.gguf`` file, or an open model. None is
        the built-in demo model.
    base : str, path or nn.Module, optional
        Base model of `model`, which is then a LoRA adapter; the merged weights are checked.
    allow_pickle : bool
        Open PyTorch pickles, with ``weights_only=True``.
    **wanted : str or bool
        Rules by name. ``zeros`` bounds the share of zeros among the prunable weights, which are
        those of linear layers inside the blocks, without norms and routers: ``">=50%"``,
        ``"<=0.6"``, ``"40%..60%"``, or ``"==50%"``, at the precision written. ``layers`` bounds
        the share of each prunable matrix. ``pattern`` is the pattern of each along the inputs,
        such as ``"2:4"``. ``mask_of`` is a model whose zeros must be zero here. ``params`` bounds
        the number of parameters: ``"6.5B..7.5B"``. ``no_nan=True`` forbids NaN and infinite
        values. ``runtime`` names a runtime that must run the layout. ``audit=True`` turns notes
        into violations.

    Returns
    -------
    ModelCheck
        True if there are no violations; `violations` and `notes` as values.

    Raises
    ------
    SparsityReportError
        The model cannot be read, a rule is unknown, rules contradict each other, or a rule is about
        prunable weights and no class explains the files.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> checked = sr.check(zeros="<=1%", no_nan=True)
    >>> bool(checked), checked.zeros
    (True, 0)
    """
    asked = read_rules(wanted)
    weights = open_to_count(DEMO if model is None else model, base, allow_pickle=allow_pickle)
    two_four = Pattern(2, 4) if asked.runtime else None
    patterns = {*filter(None, (asked.pattern, announced_pattern(weights), two_four))}

    needed = {p.name for p in weights.prunable} if asked.reads_prunable else set()

    def is_read(parameter: Parameter) -> bool:
        return asked.reads_all or parameter.name in needed

    counted = count_tensors(weights, is_read, [*patterns])
    violations = [*_violations(counted, asked)]
    if asked.mask_of:
        violations += _revived(counted, asked.mask_of, _named_alike(asked.mask_of, weights))
    notes = [*deployment_notes(counted)]
    if asked.audit:
        wanted_notes = say("check.no_notes")
        violations += [Violation("audit", weights.name, wanted_notes, note) for note in notes]
        notes = []
    for verdict, note in _runtime_support(counted, asked.runtime):
        if verdict in {REFUSED, MISREAD}:
            runnable = say("check.runnable", runtime=RUNTIMES[asked.runtime].name)
            violations.append(Violation("runtime", weights.name, runnable, note))
        else:
            notes.append(note)
    is_known = not weights.undecided and (asked.reads_all or asked.reads_prunable)
    prunable, zeros = (counted.total, counted.zeros) if is_known else (None, None)
    counts, experts = (weights.total, prunable, zeros), model_experts(weights, counted)
    return ModelCheck(weights.name, *counts, tuple(violations), tuple(notes), experts)


def _named_alike(parent: str, weights: Weights) -> Weights:
    """Open a model under names on disk, or in memory, as those of an open one."""
    opened, is_in_memory = open_to_count(parent), bool(weights.architecture)
    if bool(opened.architecture) == is_in_memory:
        return opened
    return load(parent, config=is_in_memory, stream=True)


def _violations(model: CountedModel, rules: Rules) -> Iterator[Violation]:
    """Yield violations of all rules but those about other models and runtimes."""
    name, total = model.weights.name, model.weights.total
    if rules.params and total not in rules.params:
        wanted = say("check.wanted", bound=rules.params.text)
        yield Violation("params", name, wanted, say("check.size", count=total))
    if (rules.zeros or rules.layers or rules.pattern) and not model.matrices:
        raise SparsityReportError(f"{name} has no prunable matrices, so no rule applies to them")
    yield from _out_of_bounds("zeros", name, rules.zeros, model)
    for each in model.matrices:
        yield from _out_of_bounds("layers", each.name, rules.layers, each.counts)
        if rules.pattern and (broken := each.broken(rules.pattern)):
            yield Violation("pattern", each.name, str(rules.pattern), broken)
    for each in model.tensors if rules.no_nan else ():
        if each.counts.nan or each.counts.infinite:
            numbers = {"nan": each.counts.nan, "infinite": each.counts.infinite}
            actual = say("check.not_finite", **numbers)
            yield Violation("no-nan", each.name, say("check.finite"), actual)


def _out_of_bounds(
    rule: str, name: str, bound: Bound | None, counts: MatrixCount | CountedModel
) -> Iterator[Violation]:
    zeros, total = counts.zeros, counts.total
    if bound and Fraction(zeros, total) not in bound:
        actual = say("check.share", share=zeros / total, zeros=zeros, total=total)
        yield Violation(rule, name, say("check.wanted_zeros", bound=bound.text), actual)


def _runtime_support(model: CountedModel, runtime: str) -> Iterator[tuple[str, str]]:
    """Yield verdict and sentence about each layout of the weights in a runtime."""
    if not runtime:
        return
    plain = [each.counts for each in model.matrices if not each.parameter.packing]
    zeros, total = (sum(getattr(counts, n) for counts in plain) for n in ("zeros", "total"))
    sparse = [each for each in model.settled if each.counts.zeros]
    layouts = layouts_of(
        {each.parameter.packing for each in model.matrices} - {""},
        is_gguf=model.weights.source == "gguf",
        has_zeros=zeros > TRACE * total,
        is_2_4=bool(sparse) and not any(each.broken(Pattern(2, 4)) for each in sparse),
        is_uneven=bool(varying(model.weights)),
    )
    for layout in layouts:
        cell = RUNTIMES[runtime].cells[layout]
        words = {
            "layout": say(f"runtime_layout.{layout}"),
            "verdict": say(f"runtime_verdict.{cell.verdict}"),
        }
        looked_up = {"version": cell.version, "source": cell.source, "date": cell.looked_at}
        name = RUNTIMES[runtime].name
        yield cell.verdict, say("check.runtime", runtime=name, **words, **looked_up)


def _revived(model: CountedModel, parent: str, old_model: Weights) -> Iterator[Violation]:
    """Yield the matrices in which zeros of the parent are not zero."""
    here = {each.parameter.name: each for each in model.tensors}
    for old in old_model.prunable:
        name, new = old.name, here.get(old.name)
        if new is None or new.parameter.shape != old.shape:
            here_too = "lacks it" if new is None else f"holds it as {new.parameter.shape}"
            raise SparsityReportError(
                f"mask-of: {parent} has {name!r} of shape {old.shape}, and {model.weights.name} "
                f"{here_too}; sparsity-report pair aligns such models"
            )
        zeros = revived = 0
        entries = (old_model.entry(old), model.weights.entry(new.parameter))
        for kept, now in zip(*map(nonzero_blocks, entries), strict=True):
            zeros += kept.size - int(np.count_nonzero(kept))
            revived += int(np.count_nonzero(now & ~kept))
        if revived:
            wanted = say("check.mask", zeros=zeros, parent=parent)
            actual = say("check.revived", revived=revived, share=revived / zeros)
            yield Violation("mask-of", new.name, wanted, actual)
