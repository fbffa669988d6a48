"""Figures of a study that more than one reader shows, each with one definition.

Page, PDF, thesis, explorer, command line and sentences take figures from here and derive none.
Two figures with different denominators have different names:

- ``sparsity`` of a *layer* or a cell is zeros ÷ weights of its matrices, without biases; of a
  *group* zeros ÷ all its parameters, with biases; ``study.totals`` has three of the *model*.
- ``bytes`` of the *prunable weights* are those of the prunable matrices; ``stored_bytes`` are those
  of the whole *model*. Each has its own ratio to dense.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.cost import TRACE
from sparsity_report.sparse.shares import bits_per_weight, ratio, zero_shares
from sparsity_report.study.derived.existing_zeros import Positions, positions
from sparsity_report.study.derived.heads_experts import (
    Dead,
    Part,
    dead,
    expert_lists,
    fewer_experts,
    kept_words,
    parts,
)
from sparsity_report.study.derived.layer_metrics import Spread, spread_of
from sparsity_report.study.derived.paired_scores import Paired, paired_by_protocol
from sparsity_report.study.derived.protocol_scores import Scored, key_of, scored
from sparsity_report.study.derived.speedups import crossovers, reference, speeds
from sparsity_report.study.frames import StudyFrames
from sparsity_report.study.heatmap_grid import Cell, Grid
from sparsity_report.study.layers import records
from sparsity_report.study.levels import in_layout
from sparsity_report.study.policy_names import EXISTING, methods, selection_rule
from sparsity_report.study.rounded_zeros import is_pruned
from sparsity_report.study.schema import TABLES
from sparsity_report.study.storage_layouts import with_packed_bytes
from sparsity_report.study.survival import base_shares
from sparsity_report.words.sentences import say

# Largest distance of zeros from a target that is reached.
_NEAR = 0.005


class Facts:
    """The figures of a study, by variant.

    Parameters
    ----------
    study : StudyFrames

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> facts = sr.compare(sr.dense(sr.load()), sr.masked(pruning), sr.csr(pruning)).facts
    >>> facts.baseline, facts.headline, facts.prunings
    ('Dense', 'CSR30', ('Masked30',))
    >>> round(facts.ratio("CSR30", "stored_bytes"), 2)
    1.33
    """

    def __init__(self, study: StudyFrames) -> None:
        self.study = study
        self._totals = study.totals.set_index("variant")
        by_variant = study.layers.groupby("variant", sort=False)
        self._layers = {str(name): rows for name, rows in by_variant}
        self._prunable: dict[str, pd.DataFrame] = {}

    @cached_property
    def layouts(self) -> dict[str, str]:
        """The layout of each variant."""
        variants = self.study.variants
        return dict(zip(variants["variant"], variants["layout"], strict=True))

    @cached_property
    def baseline(self) -> str:
        """The variant that others are compared with: the first dense one, else the first."""
        dense = (name for name, layout in self.layouts.items() if layout == "dense")
        return next(dense, next(iter(self.layouts)))

    @cached_property
    def prunings(self) -> tuple[str, ...]:
        """The first variant of each distinct set of zeros.

        Equal counts per layer do not make equal zeros: 2:4 and layerwise 50 % leave as many weights
        in every layer. Two magnitude policies with equal counts do, as each prunes the smallest
        weights of a layer. So do policies that prune no more than the zeros of the model.
        """
        return tuple(dict.fromkeys(self._first_alike.values()))

    @property
    def pruning(self) -> str | None:
        """The first variant with the zeros of the headline; None if it is not pruned."""
        return self._first_alike.get(self.headline)

    @cached_property
    def _first_alike(self) -> dict[str, str]:
        """The first variant with the same zeros, by pruned variant.

        A variant named for the zeros of an opened model comes before the model itself.
        """
        keys: dict[str, tuple[object, ...]] = {}
        for row in records(self.study.variants):
            variant, left = row["variant"], self._left(row["variant"])
            share = self.total(variant, "sparsity_prunable") or 0.0
            if pd.notna(row["pruned"]) or share > TRACE:
                keys[variant] = (row["fingerprint"], self._policy(row, left), left)
        ordered = sorted(keys, key=lambda variant: variant not in self._existing)
        first = {keys[variant]: variant for variant in reversed(ordered)}
        return {variant: first[key] for variant, key in keys.items()}

    def layouts_of(self, variant: str) -> list[str]:
        """Return the variants with the same zeros as a variant, itself among them."""
        first = self._first_alike.get(variant, variant)
        return [name for name in self.layouts if self._first_alike.get(name, name) == first]

    @cached_property
    def _existing(self) -> set[str]:
        """The variants whose pruning is the zeros of the opened model."""
        variants = self.study.variants
        return {*variants.loc[variants["method"] == EXISTING, "variant"]}

    @cached_property
    def already_pruned(self) -> dict[str, tuple[str, ...]]:
        """The variants that keep the zeros of a model pruned before, by the first of each model.

        Variants of :func:`sparsity_report.existing_zeros` come before the model itself.
        """
        variants = self.study.variants
        models: dict[str, tuple[str, ...]] = {}
        for _, rows in variants.groupby("fingerprint", sort=False):
            opened = list(rows.loc[rows["method"].isna(), "variant"])
            names = [name for name in rows["variant"] if name in self._existing]
            if not names and any(is_pruned(self.layers(name)) for name in opened[:1]):
                names = opened[:1]
            models |= {names[0]: tuple(names)} if names else {}
        return models

    def positions(self, variant: str) -> Positions | None:
        """Return the pattern that a variant's zeros form, see :mod:`.existing_zeros`."""
        return positions(self.patterns(variant), self.spread(variant))

    def _left(self, variant: str) -> tuple[int, ...]:
        """Return the nonzero weights of each layer, -1 where unknown."""
        return tuple(self._layers[variant]["weight_nonzero"].astype("Int64").fillna(-1))

    def _policy(self, row: dict[str, Any], left: tuple[int, ...]) -> str:
        """Return the rule that chose the zeros, and its calibration; empty if it removed none."""
        fingerprint, method = row["fingerprint"], row["method"]
        variants = self.study.variants
        unpruned = variants["pruned"].isna() & (variants["fingerprint"] == fingerprint)
        if left in map(self._left, variants.loc[unpruned, "variant"]):
            return ""
        rule = selection_rule(method)
        if rule == "magnitude":
            return rule
        basis = ("basis_fingerprint", "basis_windows", "basis_window")
        return ", ".join([rule, *(str(row[key]) for key in basis if pd.notna(row[key]))])

    @cached_property
    def headline(self) -> str:
        """The variant of the strip and of details: the first CSR one at the main level, if any."""
        rivals = self.main_level[1] if self.contenders else ()
        sparse = [n for n in self.csr_variants if self._first_alike.get(n) in rivals]
        ordered = (*sparse, *rivals, *self.csr_variants, *self.prunings, self.baseline)
        return str(ordered[0])

    @cached_property
    def csr_variants(self) -> list[str]:
        """The CSR variants other than the baseline."""
        return [n for n, layout in self.layouts.items() if layout == "csr" and n != self.baseline]

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of the study by name; without rows if the study has none."""
        frame: pd.DataFrame | None = getattr(self.study, name)
        return pd.DataFrame(columns=[*TABLES[name]]) if frame is None else frame

    @property
    def sides(self) -> tuple[str, str]:
        """The variants of two compared checkpoints: the base, and the model made from it."""
        before, after, *_ = self.layouts
        return before, after

    @property
    def size_figure(self) -> str:
        """The bytes that compare two checkpoints: those of the files where weights are packed."""
        return "file_bytes" if self.packings() else "stored_bytes"

    @cached_property
    def base_shares(self) -> dict[str, float | None]:
        """The share of the base that is zero or removed, see :func:`.survival.base_shares`."""
        if self.study.matches is None or self.study.history is not None:
            return {}
        return base_shares(self._totals.loc[[*self.sides]], self.study.matches)

    def is_of_first(self, variant: str) -> bool:
        """Return whether a variant is of the same model as the first one."""
        prints = self.study.variants.set_index("variant")["fingerprint"]
        return bool(prints[variant] == prints.iloc[0])

    def total(self, variant: str, column: str) -> float | None:
        """Return a figure of ``study.totals``; None if unknown."""
        return _known(self._totals[column][variant])

    def ratio(self, variant: str, column: str) -> float | None:
        """Return a figure of ``study.totals`` ÷ the baseline's; bytes ÷ those of a packed file."""
        base = self._totals[column][self.baseline]
        if column == "stored_bytes" and self.packings(self.baseline):
            base = self.size(self.baseline, "file")
        return ratio(self._totals[column][variant], base)

    def vocabulary(self, variant: str) -> int | None:
        """Return the number of tokens that a variant's model chooses from; None if unknown.

        These are the rows of the output head, else of the only embedding. A variant that is not in
        the study has those of its baseline.
        """
        rows = self._layers.get(variant, self._layers[self.baseline])
        for group in ("lm_head", "embedding"):
            sizes = [shape[0] for shape in rows.loc[rows["group"] == group, "shape"] if len(shape)]
            if sizes:
                return int(max(sizes)) if group == "lm_head" or len(sizes) == 1 else None
        return None

    def layers(self, variant: str) -> pd.DataFrame:
        """Return a variant's rows of ``study.layers``.

        Raises
        ------
        SparsityReportError
            The study has no such variant.
        """
        if variant not in self._layers:
            known = ", ".join(self._layers)
            raise SparsityReportError(f"no variant {variant!r}; the study has {known}")
        return self._layers[variant]

    def prunable(self, variant: str) -> pd.DataFrame:
        """Return a variant's layers with prunable weights of known values.

        The column ``share`` is zeros ÷ weights of the layer's matrices.
        """
        if variant not in self._prunable:
            rows = self.layers(variant)
            rows = rows[rows["prunable"] & (rows["weight_total"] > 0)]
            rows = rows[rows["weight_nonzero"].notna()]
            shares = zero_shares(rows["weight_total"], rows["weight_nonzero"])
            self._prunable[variant] = rows.assign(share=shares)
        return self._prunable[variant]

    def is_mixture(self, variant: str) -> bool:
        """Return whether a token uses only some of the experts of a variant."""
        layers = self.layers(variant)
        uses = layers["uses"].fillna(1)
        return bool(((uses > 0) & (uses < 1) & (layers["group"] == "mlp_linear")).any())

    def lacks_head(self, variant: str) -> bool:
        """Return whether a variant embeds tokens and has no head that predicts them."""
        groups = {*self.layers(variant)["group"]}
        return "embedding" in groups and groups.isdisjoint({"lm_head", "other"})

    def kept_masked(self, variant: str) -> pd.DataFrame:
        """Return a variant's prunable layers that cannot run as CSR."""
        layers = self.layers(variant)
        return layers[layers["prunable"] & ~layers["runs_as_csr"].fillna(True).astype(bool)]

    def spread(self, variant: str) -> Spread | None:
        """Return the least and the most sparse layer; None of fewer than two prunable layers."""
        return spread_of(self.prunable(variant))

    def grid(self, variant: str) -> Grid:
        """Return the heat map's cells of the prunable layers, if some are in numbered blocks."""
        return Grid(self._mapped(variant))

    def cells(self, variant: str) -> pd.DataFrame:
        """Return one row per cell of a variant's heat map.

        Returns
        -------
        pandas.DataFrame
            ``block`` (a label, ``"14–27"`` for merged neighbors, ``"outside"``), ``projection``,
            ``layers`` (their number), ``total`` and ``nonzero`` weights, ``sparsity`` of the cell,
            and ``low`` and ``high`` of its layers. Empty without numbered blocks.
        """
        rows = self._mapped(variant)
        grid = Grid(rows)
        frame = rows.groupby(grid.codes).agg(
            layers=("share", "size"),
            total=("weight_total", "sum"),
            nonzero=("weight_nonzero", "sum"),
            low=("share", "min"),
            high=("share", "max"),
        )
        frame.insert(3, "sparsity", zero_shares(frame["total"], frame["nonzero"]))
        return pd.concat([pd.DataFrame(grid.cells, columns=list(Cell._fields)), frame], axis=1)

    @cached_property
    def methods(self) -> pd.DataFrame:
        """The unpruned models and each distinct pruning, see :func:`.policy_names.methods`."""
        variants = self.study.variants
        opened = variants.loc[variants["method"].isna(), "variant"]
        names = [name for name in self._first_alike if name in {*self.prunings, *opened}]
        shares = {variant: self.total(variant, "sparsity_prunable") for variant in names}
        return methods(variants, shares)

    @cached_property
    def first_prunings(self) -> pd.DataFrame:
        """The rows of :attr:`methods` of distinct prunings of the first pruned model."""
        pruned = self.methods[self.methods["variant"].isin(self.prunings)]
        prints = dict(zip(pruned["variant"], pruned["fingerprint"], strict=True))
        first = next((prints[name] for name in self.prunings if name in prints), "")
        return pruned[pruned["fingerprint"].eq(first)]

    @property
    def contenders(self) -> tuple[str, ...]:
        """The distinct prunings of the first pruned model by sparsity; the baseline only alone."""
        rows = self.study.variants
        opened = {*rows.loc[rows["method"].isna(), "variant"]}
        # Zeros of an opened model that rounding explains are no pruning.
        pruned = {name for names in self.already_pruned.values() for name in names}
        pruned = set() if self.lacking else pruned  # choices of experts are compared instead
        names = [n for n in self.first_prunings["variant"] if n not in opened or n in pruned]
        others = [n for n in names if self.baseline not in self.layouts_of(n)]
        return tuple(others or names)

    @cached_property
    def main_level(self) -> tuple[float, list[str]]:
        """The highest sparsity that most contenders share, and these.

        It is the target unless the zeros differ from it.
        """
        levels = defaultdict[float, list[str]](list)
        for name in self.contenders:
            levels[self.level(name)].append(name)
        return max(levels.items(), key=lambda level: (len(level[1]), level[0]))

    def paired(self, score: Scored | Mapping[str, Any]) -> Paired:
        """Return the comparisons of the study's scores by a score's text and protocol."""
        return self._paired[score.key if isinstance(score, Scored) else key_of(score)]

    def level(self, name: str) -> float:
        """Return the target of a pruning, or its share of zeros if that differs."""
        target = float(self.methods.set_index("variant")["sparsity"][name])
        share = self.total(name, "sparsity_prunable") or target
        return round(target if abs(share - target) <= _NEAR else share, 3)

    def level_of(self, names: Sequence[str]) -> str:
        """Return the level of rivals in words, see :attr:`.Paired.rivals`."""
        if names[0] in self.lacking:
            return kept_words(self.lacking[names[0]])
        alike = self.layouts_of(names[0])
        share = self.level(next(name for name in self.prunings if name in alike))
        return say("level.sparsity", share=share)

    @cached_property
    def lacking(self) -> dict[str, pd.DataFrame]:
        """The router use of the variants that lack some experts, see :mod:`.heads_experts`."""
        return fewer_experts(self.study)

    @cached_property
    def expert_lists(self) -> list[list[str]]:
        """The variants that lack experts, see :func:`.heads_experts.expert_lists`."""
        return expert_lists(self.study.variants, self.lacking)

    def score_ends(self, variant: str, perplexity: float) -> tuple[float, float] | None:
        """Return the interval of a measured perplexity against dense as measured; None if unknown.

        It is the perplexity of dense times the ends of the ratio.
        """
        if (frame := self.study.quality) is None:
            return None
        rows = frame[frame["variant"].eq(variant) & frame["perplexity"].eq(perplexity)]
        for row in records(rows):
            if contrast := self.paired(row).from_dense(variant):
                _, low, high = contrast.ratio
                return low * contrast.base, high * contrast.base
        return None

    @cached_property
    def _paired(self) -> dict[tuple[Any, ...], Paired]:
        return paired_by_protocol(self)

    def size(self, variant: str, layout: str) -> float | None:
        """Return the bytes of a variant's whole model in a layout; ``"csr"`` as its CSR variant.

        ``"file"`` is null for models whose file packs no weights.
        """
        if layout == "csr":
            alike = (name for name in self.layouts_of(variant) if self.layouts[name] == "csr")
            return self.total(name, "stored_bytes") if (name := next(alike, None)) else None
        return _known(self.storage(variant, "model")["bytes"].get(layout))

    def size_before(self, variant: str) -> float | None:
        """Return the bytes of a variant's model that layouts are compared with.

        They are those in the file that packs its weights, else the dense bytes. Other layouts hold
        the values of packed weights unpacked.
        """
        return self.size(variant, "file" if self.packings(variant) else "dense")

    def bytes_before(self, variant: str) -> pd.Series:
        """Return the bytes of each layer of a variant that layouts are compared with."""
        rows = self.layers(variant)
        if self.packings(variant):
            layers = with_packed_bytes(self.study.layers, self.study.variants)
            return layers["packed_bytes"][rows.index]
        is_sparse = rows["prunable"] & rows["layout"].eq("csr")
        return rows["stored_bytes"].mask(is_sparse, in_layout(rows, "dense")["stored_bytes"])

    def size_as_stored(self, variant: str) -> float | None:
        """Return the bytes of a variant, in the file if it was opened from one that packs it."""
        in_file = self.total(variant, "file_bytes") if self.packings(variant) else None
        return self.total(variant, "stored_bytes") if in_file is None else in_file

    @cached_property
    def original(self) -> str | None:
        """The variant before the prunings of :attr:`contenders`; None if it is not in the study.

        Their unpruned model, or the baseline, if they were opened as pruned models of its size.
        """
        variants = self.study.variants.set_index("variant")
        first = next(iter(self.contenders), self.baseline)
        opened = variants["method"].isna() | (variants["method"] == EXISTING)
        same = opened & (variants["fingerprint"] == variants["fingerprint"][first])
        if not opened[first]:
            return next(iter(variants.index[same]), None)
        columns = ("total", "prunable_total")
        is_one_size = all(self.total(first, c) == self.total(self.baseline, c) for c in columns)
        return self.baseline if is_one_size else None

    def parts(self, variant: str) -> list[Part]:
        """Return the sparsity of heads and experts of a variant, see :mod:`.heads_experts`."""
        inside, grid = self._mapped(variant), self.grid(variant)
        names = [grid.cells[code].projection for code in grid.codes]
        projections = dict(zip(inside["module_name"], names, strict=True))
        return list(parts(self.patterns(variant), projections))

    def dead(self, variant: str) -> Dead | None:
        """Return rows, columns, heads and layers without nonzeros; None without patterns."""
        rows = self.patterns(variant)
        return None if rows.empty else dead(rows)

    def patterns(self, variant: str) -> pd.DataFrame:
        """Return a variant's rows of ``study.patterns``; none if the study has no patterns."""
        frame = self.table("patterns")
        return frame[frame["variant"] == variant]

    def _mapped(self, variant: str) -> pd.DataFrame:
        """Return the prunable layers; none of them without numbered blocks."""
        rows = self.prunable(variant)
        return rows if rows["block"].notna().any() else rows.iloc[:0]

    def storage(self, variant: str, scope: str = "prunable") -> pd.DataFrame:
        """Return the rows of ``study.storage`` of one variant and scope, by ``layout``."""
        return self._storage_tables[variant, scope]

    @cached_property
    def _storage_tables(self) -> dict[tuple[str, str], pd.DataFrame]:
        frame = self.study.storage.set_index("layout")
        tables: Any = frame.groupby(["variant", "scope"], sort=False)
        return defaultdict(lambda: frame.iloc[:0], list(tables))

    def break_even(self, variant: str, layout: str = "csr_int32") -> float | None:
        """Return the sparsity of prunable weights from which a model in a layout is smaller.

        It is compared with :meth:`size_before`. None where it never is smaller or is unknown.
        """
        return _known(self.storage(variant, "model")["break_even"].get(layout))

    @cached_property
    def speeds(self) -> pd.DataFrame | None:
        """Measured times with a verdict on each, see :func:`.speedups.speeds`; None without any."""
        frame = self.study.latency
        return None if frame is None or frame.empty else speeds(frame, self.layouts)

    @cached_property
    def crossovers(self) -> pd.DataFrame | None:
        """Sparsities from which CSR layers are faster, see :func:`.speedups.crossovers`."""
        return None if self.speeds is None else crossovers(self.speeds)

    @property
    def speed_base(self) -> str:
        """The variant that speed-ups are relative to."""
        assert self.study.latency is not None
        return reference(self.study.latency)

    def whole_speeds(self, variant: str) -> pd.DataFrame:
        """Return the rows of :attr:`speeds` of a variant's whole forward passes."""
        if (frame := self.speeds) is None:
            return pd.DataFrame(columns=["tokens", "verdict", "realised_speedup"])
        return frame[(frame["scope"] == "model") & (frame["variant"] == variant)]

    def scored(self, variant: str) -> Scored | None:
        """Return a pruning's perplexity beside that before it; None where it was not scored."""
        alike, before = self.layouts_of(variant), self.original
        known = "" if before is None or before in alike else before
        scores = (scored(self.study.quality, name, known) for name in alike)
        return next((score for score in scores if score is not None), None)

    def shares(self, variants: Iterable[str]) -> dict[str, float]:
        """Return the zeros ÷ prunable weights of the variants of the study where it is known."""
        known = {v: self.total(v, "sparsity_prunable") for v in variants if v in self.layouts}
        return {variant: share for variant, share in known.items() if share is not None}

    def dtypes(self, variant: str | None = None) -> list[str]:
        """Return types of prunable weights of a variant, or the baseline, the commonest first."""
        rows = self.layers(variant or self.baseline)
        sizes = rows[rows["prunable"]].groupby("dtype", sort=False)["weight_total"].sum()
        return list(sizes.sort_values(ascending=False, kind="stable").index)

    def packings(self, variant: str | None = None) -> list[str]:
        """Return the packed formats of a variant's weights, or of all variants."""
        layers = self.study.layers if variant is None else self.layers(variant)
        return sorted(set(layers["packing"].dropna()) - {""})

    def unpacked_dtypes(self, variant: str) -> list[str]:
        """Return the types that a variant's packed weights are unpacked to for counting."""
        layers = self.layers(variant)
        return list(layers.loc[layers["packing"].fillna("") != "", "dtype"].unique())

    def bits_per_weight(self, variant: str) -> float | None:
        """Return bits in the file ÷ parameters of a variant's model.

        None if one is unknown, or if the convention counts tied weights again, which a file holds
        once.
        """
        again = self.study.convention == "notebook" and self.layers(variant)["tied_to"].notna()
        if np.any(again):
            return None
        return bits_per_weight(self.total(variant, "file_bytes"), self.total(variant, "total"))

    def lossless(self, variant: str, scope: str = "prunable") -> pd.DataFrame:
        """Return the rows of :meth:`storage` that lose no weight and whose bytes are known."""
        rows = self.storage(variant, scope)
        return rows[rows["lossless"].fillna(False).astype(bool) & rows["bytes"].notna()]

    def common_layout(self, variants: Iterable[str]) -> str | None:
        """Return the layout of the whole model with the fewest bytes, lossless for all variants.

        Of equals it is 2:4, which has kernels, if that is one.
        """
        sizes = [self.lossless(name, "model")["bytes"] for name in variants]
        sums = pd.concat(sizes, axis=1, join="inner").sum(axis=1)
        ties = sums.index[sums == sums.min()]
        return "2:4" if "2:4" in ties else next(map(str, ties), None)


def _known(number: Any) -> float | None:
    return None if pd.isna(number) else float(number)
