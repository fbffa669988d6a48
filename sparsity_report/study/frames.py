"""The tables of a study with their sums, as one frozen value."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from sparsity_report.counting.pruning import Ladder
from sparsity_report.study.layers import group_frame, total_frame
from sparsity_report.study.levels import Levels, level_rows
from sparsity_report.study.losses import losses_frame
from sparsity_report.study.provenance import Provenance
from sparsity_report.study.schema import TABLES, plain_table, typed
from sparsity_report.study.storage_layouts import storage_frame, with_packed_bytes
from sparsity_report.study.survival import change_frame, survival_frame
from sparsity_report.study.sweep import ladders
from sparsity_report.study.variants import Variant
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say, says

#: Key of the note about a file whose content does not match its digest.
EDITED_STUDY = "note.study_edited"


@dataclass(frozen=True, eq=False, repr=False)
class StudyFrames:
    """The tables of a study, their sums, and the model at every kept level.

    :class:`~sparsity_report.study.figures.Study` describes each table.
    """

    variants: pd.DataFrame
    layers: pd.DataFrame
    convention: str = "standard"
    context: int | None = None
    patterns: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    levels: pd.DataFrame | None = None
    latency: pd.DataFrame | None = None
    quality: pd.DataFrame | None = None
    sensitivity: pd.DataFrame | None = None
    continuations: pd.DataFrame | None = None
    tasks: pd.DataFrame | None = None
    experts: pd.DataFrame | None = None
    history: pd.DataFrame | None = None
    matches: pd.DataFrame | None = None
    removed: pd.DataFrame | None = None
    provenance: Provenance | None = None
    weights: Weights | None = field(default=None, repr=False)
    opened: tuple[Variant, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", tuple(dict.fromkeys(self.notes)))

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Sums per variant and group.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> dense = study.groups.query("variant == 'Dense'")
        >>> bool(dense["total"].sum() == study.totals["total"].iloc[0])
        True
        """
        return group_frame(self.layers)

    @cached_property
    def totals(self) -> pd.DataFrame:
        """Sums per variant, with three sparsities that each name their denominator.

        ``newly_zeroed`` are the prunable weights that the pruning turned into zeros.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.totals[["variant", "sparsity_prunable"]].round(3).values.tolist()
        [['Dense', 0.0], ['Masked30', 0.3], ['CSR30', 0.3]]
        """
        columns = [name for name in TABLES["totals"] if name in self.variants]
        sums = self.variants[columns].merge(total_frame(self.layers), on="variant", how="left")
        zeros = sums["prunable_total"] - sums["prunable_nonzero"].astype("Int64")
        new = zeros - sums["zeros_before"].astype("Int64")
        return typed("totals", sums.assign(newly_zeroed=new))

    @cached_property
    def survival(self) -> pd.DataFrame | None:
        """Fate of zeros per ``group`` of prunable weights; None without ``matches``.

        The first row (null) is for all. Of the weights that both models have, ``zeros_before`` =
        ``kept`` + ``revived`` and ``zeros_after`` = ``kept`` + ``new``. ``kept_share`` is kept ÷
        zeros before, ``iou`` is kept ÷ zeros of either. Of ``surviving`` weights, nonzero in both,
        ``changed`` have another value. Of the ``modules``, ``untouched`` are unchanged.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> study = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> int(study.survival["new"].iloc[0])  # all of the 393,216 zeros
        393216
        """
        return None if self.matches is None else survival_frame(self.matches)

    @cached_property
    def changes(self) -> pd.DataFrame | None:
        """Sizes of two checkpoints per ``group``, null for the model; None without matches.

        The figures are ``prunable_weights``, ``parameters``, ``active_parameters`` and
        ``flops_per_token`` of a token, ``stored_bytes``, and ``file_bytes`` in the files.
        ``removed`` is before − after, so it is negative if something was added. Zeros that are
        still stored are not removed.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> study = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> study.changes.set_index("figure")["removed"].head(2).tolist()
        [0, 0]
        """
        if self.matches is None:
            return None
        by_variant = self.layers.groupby("variant", sort=False)
        before, after = (by_variant.get_group(name) for name in self.variants["variant"].iloc[:2])
        return change_frame(before, after)

    @cached_property
    def losses(self) -> pd.DataFrame | None:
        """Losses of each variant by protocol and span of scored tokens; None if none are kept.

        ``begin`` is the first token of a span, and ``tokens`` the number of its tokens.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.losses is None  # nothing was scored
        True
        """
        return losses_frame(self.quality)

    @cached_property
    def storage(self) -> pd.DataFrame:
        """Bytes of every variant's matrices in every layout, from integers alone.

        ``scope`` is ``"layer"`` (the prunable matrices of one module, without biases), ``"group"``
        and ``"prunable"`` (sums of layers) or ``"model"`` (every parameter; those that are not
        prunable stay as they are). ``bytes`` is null if the layout does not apply or zeros are
        unknown. ``ratio`` is bytes ÷ dense bytes. ``lossless`` is whether the layout can hold every
        nonzero, null if unknown.

        ``break_even`` is the sparsity from which the layout is smaller than dense, row pointers
        included. For 2:4 it is the sparsity of the layout; for BSR, whose bytes depend on the
        places of zeros, it is null.

        Where a file packs the weights, other layouts hold the unpacked values. Then ``ratio`` and
        ``break_even`` compare with the bytes in that file before pruning, the layout ``file``. They
        are null in a study without the opened model.

        Matrices that the model cannot run as CSR stay dense in the CSR layouts. ``csr_int32`` holds
        at most 2³¹ − 1 nonzeros and columns in a tensor.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> rows = study.storage.query("variant == 'CSR30' and scope == 'model'")
        >>> size = rows.set_index("layout")["bytes"]
        >>> bool(size["csr_int32"] > size["dense"])
        True
        """
        return storage_frame(with_packed_bytes(self.layers, self.variants), self.patterns)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of a hash of the variants and every count.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> len(study.fingerprint), study.fingerprint == sr.compare(sr.masked(pruning)).fingerprint
        (16, False)
        """
        tables = (plain_table(frame) for frame in (self.variants, self.layers))
        data = [*tables, self.convention, self.context]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]

    @property
    def identity(self) -> dict[str, Any]:
        """Fingerprints of the study and of its weights, and seeds of random choices.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> sr.compare(sr.masked(sr.random_unstructured(sr.load(), 0.3, seed=7))).identity["seeds"]
        [7]
        """
        methods = " ".join(self.variants[["method", "expert_score"]].fillna("").to_numpy().ravel())
        return {
            "study": self.fingerprint,
            "weights": [*self.variants["fingerprint"].unique()],
            "seeds": sorted({int(seed) for seed in re.findall(r"\bseed (\d+)", methods)}),
        }

    @property
    def unclassified(self) -> tuple[str, ...]:
        """Names of the modules that no rule classifies; their group is ``other``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.unclassified
        ()
        """
        names = self.layers.loc[self.layers["group"] == "other", "module_name"]
        return tuple(dict.fromkeys(names))

    @cached_property
    def by_level(self) -> Levels | None:
        """The first variant's model at every kept level; None without levels.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> study.by_level.sparsities[:3]
        [0.0, 0.01, 0.02]
        """
        return None if self.levels is None else Levels(self._first, self.levels)

    @cached_property
    def by_policy(self) -> dict[str, Levels]:
        """The first variant's model at levels of every policy that its counts say exactly.

        The policies are ``"global_magnitude"``; ``"layerwise_magnitude"`` where the size of every
        tensor is known; ``"N:4"`` and ``"N:8"`` at n of m weights pruned, where no weight was zero
        before and every row is a whole number of groups. Empty without levels.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
        >>> study = sr.compare(sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning))
        >>> sorted(study.by_policy)
        ['N:4', 'N:8', 'global_magnitude', 'layerwise_magnitude']
        """
        if (by_level := self.by_level) is None:
            return {}
        known = ladders(self._first, self.levels, self.weights)
        return {
            key: Levels(self._first, level_rows(by_level.names, *ladder))
            for key, ladder in known.items()
            if isinstance(ladder, Ladder)
        }

    @property
    def _first(self) -> pd.DataFrame:
        """The layers of the first variant."""
        first = self.variants["variant"].iloc[0]
        return self.layers[self.layers["variant"].eq(first)]


def note_findings(notes: Iterable[str], keys: Collection[str]) -> list[str]:
    """Return the notes with some keys as findings."""
    chosen = [note for note in notes if any(says(note, key) for key in keys)]
    return [say("format.note_sentence", note=note) for note in chosen]
