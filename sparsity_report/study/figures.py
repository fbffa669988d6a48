"""Variants side by side as one frozen value: tables, sums and derived figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from sparsity_report.counting.n_m_patterns import Pattern, parse_pattern
from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.runtime_support import RUNTIMES, layouts_of
from sparsity_report.study.derived.existing_zeros import n_m_positions
from sparsity_report.study.derived.facts import Facts
from sparsity_report.study.derived.paired_scores import score_pairs
from sparsity_report.study.derived.paired_tasks import compared_variants, paired_tasks
from sparsity_report.study.derived.tracker_metrics import study_metrics
from sparsity_report.study.frames import StudyFrames
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import EXISTING

_RUNTIMES = ("variant", "layout", "runtime", "verdict", "version", "note", "source", "looked_at")
_SPARSE_TENSOR_CORES = Pattern(2, 4)


@dataclass(frozen=True, eq=False, repr=False)
class StudyFigures(StudyFrames):
    """Tables of a study with the figures derived from them, each computed once.

    ``sparsity_report.Study`` describes the tables.
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
    def score_pairs(self) -> pd.DataFrame | None:
        """Paired comparisons of perplexities, and distances from dense; None without losses.

        The columns are ``text, protocol, variant, against, p, separated, figure, value`` and the
        ends ``low`` and ``high`` of the interval at 95 %. Figures are ``perplexity_ratio`` and
        ``perplexity_difference`` of ``variant`` to ``against``, and ``kl`` and
        ``agreement``. Intervals of perplexities are corrected for the number of comparisons (Holm),
        those of distances are not. ``p`` is not corrected; it and ``separated`` are null for
        distances.

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
        rows = [
            {"variant": row["variant"], **RUNTIMES[runtime].cells[layout]._asdict()}
            for row in records(self.variants)
            for layout in _layouts(self.facts, row)
            for runtime in RUNTIMES
        ]
        return pd.DataFrame(rows, columns=[*_RUNTIMES])

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


def _layouts(facts: Facts, row: dict[str, Any]) -> tuple[str, ...]:
    variant, method = row["variant"], row["method"]
    is_opened = pd.isna(method) or method == EXISTING
    share = facts.total(variant, "sparsity_prunable") or 0.0
    pruned = {name for names in facts.already_pruned.values() for name in names}
    measured = n_m_positions(facts.patterns(variant))
    asked = "" if is_opened else method
    pattern = parse_pattern(measured.figures["pattern"] if measured else asked)
    # Without patterns, zeros of an opened model may be 2:4.
    is_unclear = is_opened and pattern is None and facts.study.patterns is None and share >= 0.5
    return layouts_of(
        facts.packings(variant) if is_opened else (),
        is_gguf=is_opened and row["source"] == "gguf",
        is_csr=row["layout"] == "csr",
        has_zeros=not is_unclear and share > 0 and (variant in pruned or not is_opened),
        is_2_4=pattern is not None and pattern.implies(_SPARSE_TENSOR_CORES),
        is_uneven=_is_uneven(facts.layers(variant)),
    )


def _is_uneven(layers: pd.DataFrame) -> bool:
    """Return whether one projection has different shapes in different blocks."""
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for row in records(layers.loc[layers["block"].notna(), ["module_name", "block", "shape"]]):
        words = (word for word in row["module_name"].split(".") if word != str(row["block"]))
        shapes.setdefault(".".join(words), set()).add(tuple(row["shape"]))
    return any(len(each) > 1 for each in shapes.values())
