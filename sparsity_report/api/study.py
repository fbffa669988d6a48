"""The public class Study: figures of several variants, with their sentences, display and file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sparsity_report.counting.counts import count_notes, count_weights
from sparsity_report.counting.progress import Progress
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.study.derived.heads_experts import experts_frame
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.files.json_files import content_of
from sparsity_report.study.files.study_sources import StudySource, read_saved, study_or_saved
from sparsity_report.study.files.value_bounds import check_measured
from sparsity_report.study.layers import LayerTable, check_context, check_convention, with_shares
from sparsity_report.study.patterns import variant_patterns
from sparsity_report.study.provenance import provenance, refreshed
from sparsity_report.study.schema import TABLES, check, typed
from sparsity_report.study.sweep import level_table
from sparsity_report.study.variants import (
    Variant,
    csr_note,
    fingerprint,
    listed,
    variant_notes,
    variant_row,
)

if TYPE_CHECKING:
    from sparsity_report.counting.pruning import Calibration
    from sparsity_report.study.published_scores import Reproduction


@dataclass(frozen=True, eq=False, repr=False)
class Study(StudyFigures):
    """Variants of a model side by side, as data that can be saved, read and rendered.

    Attributes
    ----------
    variants : pandas.DataFrame
        One row per variant: model, source, fingerprint, method, asked sparsity, threshold.
    layers : pandas.DataFrame
        One row per variant and module that owns parameters; the reference of the study file
        describes the columns.
    convention : str
        ``"standard"`` or ``"notebook"``.
    context : int or None
        Number of positions a token attends to, for the FLOPs of attention scores.
    patterns : pandas.DataFrame or None
        Positions of zeros in each matrix, see :func:`sparsity_report.weight_patterns`.
    notes : tuple of str
        Remarks on how the models were opened and counted.
    levels : pandas.DataFrame or None
        Nonzeros that global magnitude pruning leaves in each prunable module of the first
        variant's weights, at every percent.
    latency, quality, sensitivity : pandas.DataFrame or None
        Results of :func:`sparsity_report.latency`, :func:`sparsity_report.perplexity` and
        :func:`sparsity_report.sensitivity`.
    continuations : pandas.DataFrame or None
        Texts that variants write after a prompt, see :func:`sparsity_report.continuations`.
    tasks : pandas.DataFrame or None
        Scores on tasks that another program ran, see :func:`sparsity_report.read_lm_eval`.
    experts : pandas.DataFrame or None
        Use of experts by the router on a text, see :func:`sparsity_report.calibrate`; ``is_kept``
        is false of those that the variant lacks.
    history : pandas.DataFrame or None
        Zeros over training by step and module, see :attr:`Track.history`; at most 100 steps.
    matches : pandas.DataFrame or None
        Of two checkpoints, one row per module of the base, then one per module that only the model
        after has; see :func:`compare_checkpoints`.
    removed : pandas.DataFrame or None
        Of two checkpoints, one row per removed part of the base.
    provenance : mapping or None
        Command, date, library versions and platform; None in files that do not have them.
    weights : Weights or None
        The weights of the first variant, for exact further levels. Not saved.
    opened : tuple of Variant
        The variants, whose weights can be read again. Not saved; empty in a study that was read.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
    >>> study.variants["variant"].tolist()
    ['Dense', 'Masked30', 'CSR30']
    >>> study.totals["total"].nunique()  # zeros are parameters, too
    1
    """

    def __repr__(self) -> str:
        from sparsity_report.report.value_display import describe

        return describe(self)

    def _repr_mimebundle_(
        self,
        include: Iterable[str] | None = None,  # noqa: ARG002
        exclude: Iterable[str] | None = None,  # noqa: ARG002
    ) -> dict[str, str]:
        """Return the study as HTML and text, for the front end to choose from."""
        from sparsity_report.report.value_display import bundle

        return bundle(self)

    def sentences(self) -> list[str]:
        """Return the findings about the study as sentences, most important first.

        Returns
        -------
        list of str
            Sentences.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.masked(sr.global_magnitude(sr.load(), 0.5)))
        >>> isinstance(study.sentences()[0], str)
        True
        """
        from sparsity_report.findings.study_findings import study_findings

        return [*study_findings(self)]

    @property
    def audit(self) -> list[str]:
        """Sentences on everything that a careful reviewer would flag.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> all(isinstance(sentence, str) for sentence in study.audit)
        True
        """
        from sparsity_report.findings.audit import audit

        return audit(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the value as JSON, which :func:`read_study` reads back.

        Parameters
        ----------
        path : path-like
            The file to write.

        Returns
        -------
        pathlib.Path
            The file.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.dense(sr.load()))
        >>> with TemporaryDirectory() as folder:
        ...     again = sr.read_study(study.save(Path(folder, "study.json")))
        >>> again.fingerprint == study.fingerprint
        True
        """
        return write_file(path, json.dumps(self.to_json(), ensure_ascii=False))

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file that :meth:`save` writes, as plain values.

        Returns
        -------
        dict
            Tables as lists of rows; null is unknown.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> sr.compare(sr.dense(sr.load())).to_json()["format"]
        'sparsity-report/study'
        """
        return content_of(self, self.sentences())

    def with_variants(self, *variants: Variant, progress: Progress | None = None) -> Study:
        """Return the study with further variants after the present ones.

        Parameters
        ----------
        *variants : Variant
            From :func:`dense`, :func:`masked` or :func:`csr`, with new names.
        progress : callable, optional
            Called with the bytes read, the bytes in all and the name of the tensor.

        Returns
        -------
        Study
            A new study; measurements and levels are kept.

        Raises
        ------
        SparsityReportError
            Two variants have one name.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.dense(sr.load()))
        >>> more = study.with_variants(sr.csr(sr.global_magnitude(study.weights, 0.6)))
        >>> more.variants["variant"].tolist()
        ['Dense', 'CSR60']
        """
        if not variants:
            return self
        further = compare(
            *variants,
            convention=self.convention,
            context=self.context,
            patterns=self.patterns is not None,
            progress=progress,
        )
        names = [*self.variants["variant"], *further.variants["variant"]]
        _check_distinct(names)
        parts = {
            part: pd.concat([getattr(self, part), getattr(further, part)], ignore_index=True)
            for part in ("variants", "layers", "patterns", "experts")
            if getattr(self, part) is not None or getattr(further, part) is not None
        }
        parts["variants"] = typed("variants", parts["variants"])
        parts["layers"] = with_shares(parts["layers"])
        opened = (*self.opened, *variants)
        return replace(self, **parts, notes=(*self.notes, *further.notes), opened=opened)

    def with_measured(
        self,
        *,
        latency: pd.DataFrame | None = None,
        quality: pd.DataFrame | None = None,
        sensitivity: pd.DataFrame | None = None,
        continuations: pd.DataFrame | None = None,
        tasks: pd.DataFrame | None = None,
        experts: Calibration | pd.DataFrame | None = None,
    ) -> Study:
        """Return the study with measurements added; those not given stay.

        Parameters
        ----------
        latency, quality, sensitivity, continuations : pandas.DataFrame, optional
            The frame that the measuring function returns.
        tasks : pandas.DataFrame, optional
            A frame with the columns ``variant``, ``task``, ``metric`` and ``value``, and any
            others of the table ``tasks``, such as ``stderr``.
        experts : Calibration or pandas.DataFrame, optional
            Use of experts from :func:`calibrate`, of the variant that others are compared with
            unless there is a column ``variant``. A calibration adds a note about its text.

        Returns
        -------
        Study
            A new study.

        Raises
        ------
        SparsityReportError
            A frame has other columns than the measuring function returns, or impossible numbers.

        Examples
        --------
        >>> import pandas as pd
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.dense(sr.load()))
        >>> row = {"variant": "Dense", "task": "boolq", "metric": "acc", "value": 0.75}
        >>> study.with_measured(tasks=pd.DataFrame([row])).tasks["value"].tolist()
        [0.75]
        """
        given = {
            "latency": latency, "quality": quality, "sensitivity": sensitivity,
            "continuations": continuations, "tasks": tasks, "experts": experts,
        }  # fmt: skip
        frames: dict[str, Any] = {part: f for part, f in given.items() if f is not None}
        if tasks is not None:
            needed = ("variant", "task", "metric", "value")
            unknown = [name for name in TABLES["tasks"] if name not in tasks]
            if not set(needed) & set(unknown):
                frames["tasks"] = tasks.assign(**dict.fromkeys(unknown))[[*TABLES["tasks"]]]
        notes: list[str] = []
        if experts is not None and not isinstance(experts, pd.DataFrame):
            notes, frames["experts"] = [experts.basis.note], experts.experts
        if experts is not None and "variant" not in frames["experts"]:
            rows = frames["experts"].assign(variant=self.facts.baseline, is_kept=True)
            frames["experts"] = rows.reindex(columns=[*TABLES["experts"]])
        for part, frame in frames.items():
            if [*frame.columns] != [*TABLES[part]]:
                raise SparsityReportError(
                    f"with_measured: the columns of {part} are not those of its table; give a "
                    f"frame with the columns {', '.join(TABLES[part])}"
                )
            try:
                frames[part] = typed(part, frame.reset_index(drop=True))
                check(part, frames[part])
                check_measured(part, self, frames[part])
            except ValueError as error:
                raise SparsityReportError(
                    f"with_measured: {error}; give the frame that the measuring function returns"
                ) from error
        # Measuring may have added notes about the weights.
        notes += count_notes(self.weights) if self.weights else ()
        origin = refreshed(self.provenance)
        return replace(self, **frames, notes=(*self.notes, *notes), provenance=origin)


def compare(
    *variants: Variant,
    convention: str = "standard",
    context: int | None = None,
    patterns: bool = False,
    progress: Progress | None = None,
) -> Study:
    """Compare variants side by side.

    Parameters
    ----------
    *variants : Variant
        From :func:`dense`, :func:`masked`, :func:`csr` or :func:`without_experts`, of one model or
        several.
    convention : {"standard", "notebook"}
        ``"notebook"`` charges embedding look-ups ``2·V·d`` and counts a tied head again in totals
        and shares. Prunable weights are those chosen by ``blacklist`` of :func:`load`.
    context : int, optional
        Number of positions a token attends to. The column ``attention_flops_per_token`` of
        ``totals`` then holds the FLOPs of scores and weighted values, ``2·context·(query width +
        value width)`` per attention layer, at most the positions of a sliding window. It is null
        without a context and for unknown attention.
    patterns : bool
        Whether to find the positions of zeros in each matrix, which reads the prunable weights
        once more, see :func:`sparsity_report.weight_patterns`. The study, its file and its reports
        then have N:M patterns, blocks, dead rows and columns, and the zeros of all heads and
        experts. The explorer counts heads and experts without it, layer by layer, in a kernel.
    progress : callable, optional
        Called with the bytes read, the bytes in all and the name of the tensor.

    Returns
    -------
    Study
        The study of the variants.

    Raises
    ------
    SparsityReportError
        There is no variant, two have one name, or an option is not valid.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pruning = sr.global_magnitude(weights, sparsity=0.3)
    >>> study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
    >>> study.totals["variant"].tolist()
    ['Dense', 'Masked30', 'CSR30']
    """
    check_convention(convention)
    check_context(context)
    if not variants:
        raise SparsityReportError("compare: there are no variants; give at least one")
    _check_distinct([variant.name for variant in listed("compare", variants)])
    counts = {v.weights: count_weights(v.weights, progress) for v in variants}
    tables = {model: LayerTable(model, counted, convention) for model, counted in counts.items()}
    frames = [tables[v.weights].frame(v.name, v.pruning, csr=v.layout == "csr") for v in variants]
    prints = {model: fingerprint(model, counted) for model, counted in counts.items()}
    described = [variant_row(v, counts[v.weights], prints[v.weights], context) for v in variants]
    notes: list[str] = []
    for model in counts:
        notes += [*model.notes, *count_notes(model)]
    sparse = dict.fromkeys(variant.weights for variant in variants if variant.layout == "csr")
    notes += [note for model in sparse if (note := csr_note(model))]
    notes += variant_notes(variants)
    return Study(
        variants=typed("variants", pd.DataFrame(described)),
        layers=pd.concat(frames, ignore_index=True),
        convention=convention,
        context=context,
        patterns=variant_patterns(variants, progress=progress) if patterns else None,
        experts=experts_frame(variants),
        notes=tuple(notes),
        levels=level_table(variants[0].weights, counts[variants[0].weights]),
        provenance=provenance(),
        weights=variants[0].weights,
        opened=variants,
    )


def _check_distinct(names: Sequence[str]) -> None:
    """Refuse a name that two variants have."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SparsityReportError(
            f"compare: two variants are called {twice[0]!r}; give one of them another name="
        )


def summarize(study: StudySource | Reproduction) -> list[str]:
    """Return the findings about a study as sentences, most important first.

    Parameters
    ----------
    study : Study, Explorer, Reproduction or path-like
        The study, its explorer, the comparison with a paper, or the path of a saved study.

    Returns
    -------
    list of str
        Sentences.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> study = sr.compare(sr.dense(sr.load()), sr.masked(pruning), sr.csr(pruning))
    >>> print(sr.summarize(study)[0].partition(" CSR")[0])
    With 30 % of 786 k prunable weights zero,
    """
    from sparsity_report.findings.study_findings import study_findings
    from sparsity_report.study.published_scores import Reproduction

    if isinstance(study, Reproduction):
        return study.sentences()
    return study_findings(study_or_saved("summarize", study))


def read_study(path: str | os.PathLike[str], *, strict: bool = False) -> Study:
    """Read a study that :meth:`Study.save` wrote.

    The tables of sums are computed again and must agree with the file. The file also holds a
    digest of its content. If the digest differs, ``study.notes`` and every report say that the
    study was edited. A formatter may lay the file out anew; writing a number in another way, such
    as 1 for 1.0, is an edit. The digest is not a signature: anyone can compute it.

    Parameters
    ----------
    path : path-like
        A JSON file, or a log of :func:`track`, whose first and last states become the study.
    strict : bool, default False
        Refuse a study that was edited.

    Returns
    -------
    Study
        The study as it was saved, without its weights.

    Raises
    ------
    SparsityReportError
        The file is not a study, is damaged, comes from another version, or contradicts itself.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read = sr.read_study(study.save(pathlib.Path(folder, "study.json")))
    >>> read.layers.equals(study.layers)
    True
    """
    return as_study(read_saved(path, strict=strict))


def as_study(figures: StudyFigures) -> Study:
    """Return a study of the same tables with the members of the public class."""
    if isinstance(figures, Study):
        return figures
    return Study(**{field.name: getattr(figures, field.name) for field in fields(figures)})
