"""Violations of rules by a checkpoint, from its headers and one pass over its values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from sparsity_report.counting.bit_statistics import bit_statistics, nonzero_blocks
from sparsity_report.counting.n_m_patterns import Pattern
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.package_data import DEMO
from sparsity_report.findings.rules.deployment_notes import (
    Counted,
    announced_pattern,
    deployment_notes,
    varying,
)
from sparsity_report.findings.rules.prunable_tensors import Tensor, model_tensors
from sparsity_report.findings.rules.wanted_bounds import Bound, Rules, read_rules
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.sparse.cost import TRACE
from sparsity_report.sparse.runtime_support import MISREAD, REFUSED, RUNTIMES, layouts_of, support
from sparsity_report.weights.outline import Outline, read_outline

# Threads that count tensors: the smallest machines have two cores.
_THREADS = 2


@dataclass(frozen=True)
class Violation:
    """A broken rule.

    Attributes
    ----------
    rule, module : str
        Name of the rule, and the module or model that breaks it.
    wanted, actual : Phrase or str
    """

    rule: str
    module: str
    wanted: Phrase | str
    actual: Phrase | str

    def __str__(self) -> str:
        parts = {"module": self.module, "wanted": self.wanted, "actual": self.actual}
        return str(phrase("check.violation", **parts))


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
        Prunable weights and the zeros among them; None if no values were read.
    violations : tuple of Violation
    notes : tuple of Phrase
        What deployment meets, see :mod:`sparsity_report.findings.rules.deployment_notes`.
    """

    name: str
    parameters: int
    prunable: int | None
    zeros: int | None
    violations: tuple[Violation, ...] = ()
    notes: tuple[Phrase, ...] = ()

    def __bool__(self) -> bool:
        return not self.violations

    def sentences(self) -> list[str]:
        """Return the counts, the violations and the notes as lines of text."""
        head = phrase("check.parameters", model=self.name, count=self.parameters)
        if self.prunable:
            counts = {"zeros": self.zeros, "total": self.prunable, "count": self.parameters}
            head = phrase("check.counts", model=self.name, **counts, share=self._share)
        notes = [str(phrase("check.note", note=note)) for note in self.notes]
        return [str(head), *map(str, self.violations), *notes]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
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
            "notes": [str(note) for note in self.notes],
        }

    @property
    def _share(self) -> float | None:
        return self.zeros / self.prunable if self.prunable and self.zeros is not None else None


def check(
    model: str | os.PathLike[str] | None = None,
    *,
    rules: Rules | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    file: str | None = None,
    **wanted: str | bool | None,
) -> ModelCheck:
    """Check a checkpoint against rules, without building the model.

    Files are read in one pass, by range requests if they are on the Hub. Unpacked safetensors need
    neither torch nor transformers.

    Parameters
    ----------
    model : str, path or None
        A Hub id, a directory, a ``.safetensors`` or a ``.gguf`` file. None is the built-in demo
        model.
    rules : Rules, optional
        Rules of a file, instead of `wanted`.
    revision, subfolder, file : str, optional
        As for :func:`load`.
    **wanted : str or bool
        Rules by name. ``zeros`` bounds the share of zeros among the prunable weights, which are
        those of linear layers without embeddings, output head, norms and routers: ``">=50%"``,
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
        The model cannot be read, a rule is unknown, or rules contradict each other.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> checked = sr.check(zeros="<=1%", no_nan=True)
    >>> bool(checked), checked.zeros
    (True, 0)
    """
    asked = read_rules(wanted) if rules is None else rules
    outline = read_outline(model or DEMO, revision=revision, subfolder=subfolder, file=file)
    tensors = [*model_tensors(outline)] if asked.reads_values else []
    if not asked.reads_all:
        tensors = [each for each in tensors if each.matrix]
    two_four = Pattern(2, 4) if asked.runtime else None
    patterns = {*filter(None, (asked.pattern, announced_pattern(outline), two_four))}
    counted = _counted(tensors, [*patterns])
    violations = [*_of_headers(outline, asked), *_of_values(counted, outline.name, asked)]
    if asked.mask_of:
        violations += _revived(tensors, outline, asked.mask_of)
    supported = [*_runtime_support(outline, counted, asked.runtime)]
    violations += [
        Violation("runtime", outline.name, phrase("check.runnable", runtime=name), note)
        for name, verdict, note in supported
        if verdict in {REFUSED, MISREAD}
    ]
    notes = tuple(deployment_notes(outline, counted))
    if asked.audit:
        violations += [
            Violation("audit", outline.name, phrase("check.no_notes"), note) for note in notes
        ]
        notes = ()
    notes += tuple(note for _, verdict, note in supported if verdict not in {REFUSED, MISREAD})
    prunable = [each for each in counted if each.tensor.matrix]
    return ModelCheck(
        outline.name,
        outline.total,
        sum(each.counts.total for each in prunable) if asked.reads_values else None,
        sum(each.counts.zeros for each in prunable) if asked.reads_values else None,
        tuple(violations),
        notes,
    )


def _counted(tensors: Sequence[Tensor], patterns: Sequence[Pattern]) -> list[Counted]:
    def count(tensor: Tensor) -> Counted:
        if tensor.matrix is None or tensor.is_settled:
            return Counted(tensor, bit_statistics(tensor.entry, tensor.matrix, patterns))
        both = [
            bit_statistics(tensor.entry, each, patterns)
            for each in (tensor.matrix, tensor.matrix.turned)
        ]
        return Counted(tensor, both[0], tuple(both))

    with ThreadPoolExecutor(_THREADS) as pool:
        return [*pool.map(count, tensors)]


def _of_headers(outline: Outline, rules: Rules) -> Iterator[Violation]:
    if rules.params and outline.total not in rules.params:
        held = phrase("check.size", count=outline.total)
        yield Violation(
            "params", outline.name, phrase("check.wanted", bound=rules.params.text), held
        )


def _of_values(counted: Sequence[Counted], model: str, rules: Rules) -> Iterator[Violation]:
    prunable = [each for each in counted if each.tensor.matrix]
    if (rules.zeros or rules.layers or rules.pattern) and not prunable:
        raise SparsityReportError(f"{model} has no prunable matrices, so no rule applies to them")
    if rules.zeros:
        zeros, total = (
            sum(getattr(each.counts, n) for each in prunable) for n in ("zeros", "total")
        )
        yield from _out_of_bounds("zeros", model, rules.zeros, zeros, total)
    for each in counted:
        name, counts = each.tensor.name, each.counts
        if rules.layers and each.tensor.matrix:
            yield from _out_of_bounds("layers", name, rules.layers, counts.zeros, counts.total)
        if rules.pattern and each.tensor.matrix and (broken := each.broken(rules.pattern)):
            yield Violation("pattern", name, str(rules.pattern), broken)
        if rules.no_nan and (counts.nan or counts.infinite):
            held = phrase("check.not_finite", nan=counts.nan, infinite=counts.infinite)
            yield Violation("no-nan", name, phrase("check.finite"), held)


def _out_of_bounds(
    rule: str, name: str, bound: Bound, zeros: int, total: int
) -> Iterator[Violation]:
    if Fraction(zeros, total) not in bound:
        held = phrase("check.share", share=zeros / total, zeros=zeros, total=total)
        yield Violation(rule, name, phrase("check.wanted_zeros", bound=bound.text), held)


def _runtime_support(
    outline: Outline, counted: Sequence[Counted], runtime: str
) -> Iterator[tuple[str, str, Phrase]]:
    """Yield name, verdict and sentence about each layout of the weights in a runtime."""
    matrices = [each for each in counted if each.tensor.matrix]
    plain = [each.counts for each in matrices if not each.tensor.parameter.packing]
    zeros, total = (sum(getattr(counts, n) for counts in plain) for n in ("zeros", "total"))
    sparse = [each for each in matrices if each.tensor.is_settled and each.counts.zeros]
    layouts = layouts_of(
        {each.tensor.parameter.packing for each in matrices} - {""},
        is_gguf=outline.source == "gguf",
        has_zeros=zeros > TRACE * total,
        is_2_4=bool(sparse) and not any(each.broken(Pattern(2, 4)) for each in sparse),
        is_uneven=bool(varying(outline)),
    )
    for layout in layouts if runtime else ():
        cell, name = support(runtime, layout), RUNTIMES[runtime].name
        words = {
            "layout": phrase(f"runtime_layout.{layout}"),
            "verdict": phrase(f"runtime_verdict.{cell.verdict}"),
        }
        looked_up = {"version": cell.version, "source": cell.source, "date": cell.looked_at}
        yield name, cell.verdict, phrase("check.runtime", runtime=name, **words, **looked_up)


def _revived(tensors: Sequence[Tensor], outline: Outline, parent: str) -> Iterator[Violation]:
    """Yield the matrices in which zeros of the parent are not zero."""
    here = {each.parameter.name: each for each in tensors}
    before = [each for each in model_tensors(read_outline(parent)) if each.matrix]
    for old in before:
        new = here.get(old.parameter.name)
        if new is None or new.parameter.shape != old.parameter.shape:
            here_too = "lacks it" if new is None else f"holds it as {new.parameter.shape}"
            raise SparsityReportError(
                f"mask-of: {parent} has {old.parameter.name!r} of shape {old.parameter.shape}, and "
                f"{outline.name} {here_too}; sparsity-report pair aligns such models"
            )
        zeros = revived = 0
        blocks = (nonzero_blocks(old.entry), nonzero_blocks(new.entry))
        for kept, now in zip(*blocks, strict=True):
            zeros += kept.size - int(np.count_nonzero(kept))
            revived += int(np.count_nonzero(now & ~kept))
        if revived:
            wanted = phrase("check.mask", zeros=zeros, parent=parent)
            held = phrase("check.revived", revived=revived, share=revived / zeros)
            yield Violation("mask-of", new.name, wanted, held)
