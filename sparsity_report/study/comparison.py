"""Several variants side by side, as one frozen value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from sparsity_report.counting.counts import count_notes, count_weights
from sparsity_report.counting.progress import Progress
from sparsity_report.errors import SparsityReportError
from sparsity_report.hooks import Saved, hooks
from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.derived.paired_facts import score_pairs
from sparsity_report.study.derived.paired_tasks import compared_variants, paired_tasks
from sparsity_report.study.derived.runtime_frame import runtime_frame
from sparsity_report.study.derived.strip import Tile, strip
from sparsity_report.study.derived.tracker_metrics import study_metrics
from sparsity_report.study.expert_use import expert_budgets, experts_frame
from sparsity_report.study.files.value_bounds import check_measured
from sparsity_report.study.frames import StudyFrames
from sparsity_report.study.layers import check_context, check_convention, with_shares
from sparsity_report.study.levels.sweep import level_table
from sparsity_report.study.levels.tradeoff import Tradeoff, places, tradeoff
from sparsity_report.study.patterns import variant_patterns
from sparsity_report.study.schema import TABLES, check, typed
from sparsity_report.study.variants import (
    Variant,
    csr_note,
    fingerprint,
    listed,
    variant_row,
)


@dataclass(frozen=True, eq=False, repr=False)
class Study(StudyFrames, Saved):
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
    weights : Weights or None
        The weights of the first variant, for exact further levels. Not saved.

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

    @cached_property
    def facts(self) -> Facts:
        """Figures derived from the tables, each computed once.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.facts.baseline, study.facts.prunings
        ('Dense', ('Masked30',))
        """
        return Facts(self)

    @cached_property
    def strip(self) -> tuple[Tile, ...]:
        """The four figures at the head of a report, from dense to pruned.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> len(study.strip)
        4
        """
        return strip(self.facts)

    @cached_property
    def side_by_side(self) -> tuple[str, ...]:
        """The distinct prunings by sparsity, those of the first pruned model before others.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.side_by_side
        ('Masked30',)
        """
        return tuple(dict.fromkeys([*self.facts.contenders, *self.facts.prunings]))

    @cached_property
    def tradeoff(self) -> Tradeoff | None:
        """Quality against bytes of the variants scored by one protocol.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.tradeoff is None  # nothing was scored
        True
        """
        return tradeoff(self.quality, self.tasks, places(self.facts))

    @cached_property
    def score_pairs(self) -> pd.DataFrame | None:
        """Paired comparisons of perplexities, and distances from dense; None without losses.

        The columns are ``text, protocol, variant, against, p, separated, figure, value, low, high,
        low_99, high_99``. Figures are ``perplexity_ratio`` and ``perplexity_difference`` of
        ``variant`` to ``against``, and ``kl``, ``reverse_kl`` and ``agreement``. Intervals from
        ``low`` to ``high`` have a confidence of 95 %, the wider ones of 99 %. Those of perplexities
        are corrected for the number of comparisons (Holm), those of distances are not. ``p`` is not
        corrected; it and ``separated`` are null for distances.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.score_pairs is None  # nothing was scored
        True
        """
        return score_pairs(self.facts)

    @cached_property
    def task_pairs(self) -> pd.DataFrame | None:
        """Paired differences of task scores from dense and between prunings; None without scores.

        The columns are ``variant, against, task, metric, filter, n_shot, tasks, documents, lost,
        gained, difference, p, level, low, high, separated, obstacle``. The task is null where
        ``tasks`` tasks are pooled. ``lost`` documents are right for ``against`` only, ``gained``
        ones for ``variant`` only. ``level`` is the confidence of the interval from ``low`` to
        ``high``, corrected for the number of comparisons (Holm). Differences whose test is
        significant at that level and whose interval excludes zero are ``separated``, by chance with
        a probability of at most 5 % for all comparisons together. ``obstacle`` is null, or the
        column by which two runs are not paired; ``outcomes`` if no file holds them.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.task_pairs is None  # no task was run
        True
        """
        tasks = self.tasks
        return None if tasks is None else paired_tasks(tasks, compared_variants(self.facts, tasks))

    @cached_property
    def expert_budgets(self) -> pd.DataFrame | None:
        """Experts that fit in more bits into the bytes of all in fewer; None without patterns.

        One row per budget, which is the bytes of all experts in ``budget_bits``, and per width:
        ``fitting`` of the ``experts`` of a module and their ``bytes``, scales included;
        ``gate_share`` and ``token_share`` of so many experts with the highest saliency in each
        module, null if a token uses more; ``rounding_error`` = ‖W − Q(W)‖₂ ÷ ‖W‖₂ of all experts.
        None for packed weights, unknown errors, and modules with unequal numbers of experts, too.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.expert_budgets is None  # no patterns were counted
        True
        """
        return expert_budgets(self.facts)

    @cached_property
    def runtimes(self) -> pd.DataFrame:
        """Runtimes beside variants: sparse kernels, dense kernels or a refusal, with a source.

        The columns are ``variant, layout, runtime, verdict, version, note, source, looked_at``. A
        variant that was pruned here counts as the checkpoint that it is saved as: dense with zeros,
        or CSR tensors. A variant with neither zeros nor uneven shapes has no row.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.runtimes.query("variant == 'CSR30' and runtime == 'vLLM'")["verdict"].tolist()
        ['refused']
        """
        return runtime_frame(self.facts)

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
        return hooks.audit(self)

    def metrics(self) -> dict[str, float]:
        """Return a flat dict of figures for W&B, TensorBoard, MLflow or trackio.

        Returns
        -------
        dict of str to float
            Figures by name, such as ``Masked30/sparsity/prunable``: sums, sparsity by group,
            scores, and speed-ups that exceed timing noise. Unknown figures are left out. Letters
            that a tracker would replace become ``_``, and names stay distinct.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.masked(sr.global_magnitude(sr.load(), sparsity=0.3)))
        >>> round(study.metrics()["Masked30/sparsity/prunable"], 3)
        0.3
        """
        return study_metrics(self.facts)

    def at_level(self, sparsity: float) -> pd.DataFrame:
        """Return every layer of the first variant's model at one kept level.

        No model is read.

        Parameters
        ----------
        sparsity : float
            0, 0.01, … 0.99 of the prunable weights; every 0.05 above 10,000 modules.

        Returns
        -------
        pandas.DataFrame
            One row per module with the columns of :func:`sweep`, ``uncertainty`` in weights.

        Raises
        ------
        SparsityReportError
            The study has no levels, or lacks this one.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.dense(sr.load()))
        >>> frame = study.at_level(0.5)
        >>> bool(frame["csr_bytes"].sum() > frame["dense_bytes"].sum())
        True
        """
        if self.by_level is None:
            raise SparsityReportError(
                "the study keeps no levels: nothing is prunable, or values are not known or NaN; "
                "compare a model with known prunable weights first"
            )
        return self.by_level.at(sparsity)

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
        return replace(self, **parts, notes=(*self.notes, *further.notes))

    def pivot(self, metric: str) -> pd.DataFrame:
        """Return a table of groups × variants for one column of :attr:`groups`.

        Parameters
        ----------
        metric : str
            A column of numbers, such as ``"sparsity"``.

        Returns
        -------
        pandas.DataFrame
            Groups as rows, variants as columns.

        Raises
        ------
        SparsityReportError
            :attr:`groups` has no such column.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pruning = sr.global_magnitude(weights, sparsity=0.3)
        >>> study = sr.compare(sr.dense(weights), sr.masked(pruning))
        >>> list(study.pivot("sparsity").columns)
        ['Dense', 'Masked30']
        """
        if metric not in self.groups.columns[2:]:
            raise SparsityReportError(
                f"pivot: no metric {metric!r}; use one of {', '.join(self.groups.columns[2:])}"
            )
        order = list(dict.fromkeys(self.groups["group"]))
        indexed = self.groups.set_index(["group", "variant"])[metric]
        return indexed.unstack().reindex(index=order, columns=list(self.variants["variant"]))

    def with_measured(
        self,
        *,
        latency: pd.DataFrame | None = None,
        quality: pd.DataFrame | None = None,
        sensitivity: pd.DataFrame | None = None,
        continuations: pd.DataFrame | None = None,
        tasks: pd.DataFrame | None = None,
        experts: Any = None,
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
        return replace(self, **frames, notes=(*self.notes, *notes))


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
        and shares.
    context : int, optional
        Number of positions a token attends to. The column ``attention_flops_per_token`` of
        ``totals`` then holds the FLOPs of scores and weighted values, ``2·context·(query width +
        value width)`` per attention layer, at most the positions of a sliding window. It is null
        without a context and for unknown attention.
    patterns : bool
        Whether to find the positions of zeros in each matrix, which reads the prunable weights
        once more, see :func:`sparsity_report.weight_patterns`. Of a mixture of experts it also
        finds the errors of rounding experts to few bits, for :attr:`Study.expert_budgets`.
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
    frames = [variant.layers(convention, progress) for variant in variants]
    models = dict.fromkeys(variant.weights for variant in variants)
    prints = {model: fingerprint(model, count_weights(model)) for model in models}
    described = [variant_row(v, prints[v.weights], context) for v in variants]
    notes: list[str] = []
    for model in models:
        notes += [*model.notes, *count_notes(model)]
    sparse = dict.fromkeys(variant.weights for variant in variants if variant.layout == "csr")
    notes += [note for model in sparse if (note := csr_note(model))]
    notes += [note for variant in variants for note in variant.notes]
    return Study(
        variants=typed("variants", pd.DataFrame(described)),
        layers=pd.concat(frames, ignore_index=True),
        convention=convention,
        context=context,
        patterns=variant_patterns(variants, progress=progress) if patterns else None,
        experts=experts_frame(variants),
        notes=tuple(notes),
        levels=level_table(variants[0].weights),
        weights=variants[0].weights,
    )


def _check_distinct(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SparsityReportError(
            f"compare: two variants are called {twice[0]!r}; give one of them another name="
        )
