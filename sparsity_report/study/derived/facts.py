"""What every reader needs of a study, computed once, with one denominator per name.

Page, PDF, thesis, explorer, command line and sentences take figures from here and derive none.
Two figures whose denominators differ have two names:

- ``sparsity`` of a *layer* or a cell is zeros ÷ weights of its matrices, biases left out; of a
  *group* zeros ÷ all its parameters, biases included; of the *model* there are three, see
  ``study.totals``.
- ``bytes`` of the *prunable weights* are those of the prunable matrices alone; ``stored_bytes``
  are those of the whole *model*. Each has its own ratio to dense.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sparsity_report.errors import SparsityReportError
from sparsity_report.sparse.shares import bits_per_weight, ratio, zero_shares
from sparsity_report.sparse.shares import break_even as break_even_share
from sparsity_report.study.derived.cards import Card, cards
from sparsity_report.study.derived.heads_experts import Inner, Part, inner, parts
from sparsity_report.study.derived.heatmap_grid import Cell, Grid
from sparsity_report.study.derived.layer_metrics import beyond
from sparsity_report.study.derived.layer_spread import Spread, spread_of, uneven
from sparsity_report.study.derived.perplexity import Scored, scored
from sparsity_report.study.derived.policy_comparison import Comparables, comparables, passages
from sparsity_report.study.derived.policy_names import selection_rule
from sparsity_report.study.derived.pruning_methods import methods
from sparsity_report.study.derived.rounded_zeros import Rounded, rounded
from sparsity_report.study.derived.speedups import crossovers, reference, speeds
from sparsity_report.study.derived.zero_rows import Dead, dead
from sparsity_report.study.frames import StudyFrames
from sparsity_report.study.layers import records, summed
from sparsity_report.study.levels.levels import dense_sizes, selected, variant_sums
from sparsity_report.study.levels.tradeoff import Place, Tradeoff, places, tradeoff
from sparsity_report.study.schema import FILES
from sparsity_report.study.storage_layouts import layout_ends

# Layouts of the curve of bytes against sparsity.
CURVE_LAYOUTS = ("dense", "csr_int32", "csr_int64", "bitmask")
# A model that somebody else pruned: above this share of zeros they are no accident.
_PRUNED_BY_OTHERS = 0.01


class Facts:
    """The figures of a study that more than one reader shows.

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
        self._study = study
        self._totals = study.totals.set_index("variant")
        by_variant = study.layers.groupby("variant", sort=False)
        self._layers = {str(name): rows for name, rows in by_variant}

    @cached_property
    def baseline(self) -> str:
        """The variant others are compared with: the first dense one, else the first."""
        variants = self._study.variants
        dense = variants.loc[variants["layout"] == "dense", "variant"]
        return str(dense.iloc[0] if len(dense) else variants["variant"].iloc[0])

    @cached_property
    def prunings(self) -> tuple[str, ...]:
        """The first variant of each distinct set of zeros, whoever pruned it.

        Equal counts are not equal zeros: 2:4 and layerwise 50 % leave as many weights in every
        layer. Magnitude policies that leave as many do leave the same, as each takes the smallest;
        so do a policy whose shares of layers were found in two ways, and one that takes no more
        than what was zero before.
        """
        return tuple(dict.fromkeys(self._first_alike.values()))

    @cached_property
    def side_by_side(self) -> tuple[str, ...]:
        """The distinct prunings, from the fewest to the most zeros where they are compared."""
        order = [] if self.compared is None else self.compared.variants[1:]
        return (*order, *(name for name in self.prunings if name not in order))

    @property
    def pruning(self) -> str | None:
        """The first variant with the zeros of the headline; None where it is not pruned."""
        return self._first_alike.get(self.headline)

    @cached_property
    def _first_alike(self) -> dict[str, str]:
        """The first variant with the same zeros, by each variant that is pruned."""
        first: dict[tuple[object, ...], str] = {}
        alike: dict[str, str] = {}
        for row in records(self._study.variants):
            variant, fingerprint = row["variant"], row["fingerprint"]
            left = self._left(variant)
            share = self.total(variant, "sparsity_prunable") or 0.0
            if pd.notna(row["pruned"]) or share > _PRUNED_BY_OTHERS:
                policy = self._policy(row, left)
                alike[variant] = first.setdefault((fingerprint, policy, left), variant)
        return alike

    def _left(self, variant: str) -> tuple[int, ...]:
        """Nonzero weights of each layer, -1 where they are not known."""
        return tuple(self._layers[variant]["weight_nonzero"].astype("Int64").fillna(-1))

    def _policy(self, row: dict[str, Any], left: tuple[int, ...]) -> str:
        """Name the rule that chose the zeros, and from what; one that removed none chose none."""
        fingerprint, method = row["fingerprint"], row["method"]
        variants = self._study.variants
        as_they_come = variants["pruned"].isna() & (variants["fingerprint"] == fingerprint)
        if left in map(self._left, variants.loc[as_they_come, "variant"]):
            return ""
        rule = selection_rule(method)
        if rule == "magnitude":
            return rule
        basis = ("basis_fingerprint", "basis_windows", "basis_window")
        return ", ".join([rule, *(str(row[key]) for key in basis if pd.notna(row[key]))])

    @cached_property
    def headline(self) -> str:
        """The one variant that cards and first sentences speak of: the first CSR one if any."""
        variants = self._study.variants
        sparse = variants.loc[variants["layout"] == "csr", "variant"]
        beside = [str(variant) for variant in sparse if variant != self.baseline]
        return (*beside, *self.prunings, self.baseline)[0]

    @cached_property
    def cards(self) -> tuple[Card, ...]:
        """What people look for first, see :func:`.cards.cards`."""
        return tuple(cards(self))

    def total(self, variant: str, column: str) -> float | None:
        """Return a figure of ``study.totals``; None where it is unknown."""
        value = self._totals[column][variant]
        return None if pd.isna(value) else float(value)

    def ratio(self, variant: str, column: str) -> float | None:
        """Return a figure of ``study.totals`` ÷ the baseline's."""
        return ratio(self._totals[column][variant], self._totals[column][self.baseline])

    def layers(self, variant: str) -> pd.DataFrame:
        """Return a variant's rows of ``study.layers``.

        Raises
        ------
        SparsityReportError
            The study has no such variant.
        """
        if variant not in self._layers:
            raise SparsityReportError(
                f"no variant {variant!r}; the study has {', '.join(self._layers)}"
            )
        return self._layers[variant]

    def dense_bytes(self, variant: str) -> pd.Series:
        """Return the bytes that each layer of a variant takes with nothing stored sparse."""
        return dense_sizes(self.layers(variant))

    def sums(self, variant: str, modules: Collection[str] = ()) -> pd.Series[Any]:
        """Return sums over some modules of a variant, or all, see :func:`.levels.variant_sums`."""
        return variant_sums(self.layers(variant), modules)

    def prunable(self, variant: str) -> pd.DataFrame:
        """Return a variant's layers with prunable weights of known values, and their ``share``.

        ``share`` is zeros ÷ weights of the layer's matrices.
        """
        layers = self.layers(variant)
        known = layers["prunable"] & (layers["weight_total"] > 0) & layers["weight_nonzero"].notna()
        rows = layers[known]
        return rows.assign(share=zero_shares(rows["weight_total"], rows["weight_nonzero"]))

    def kept_masked(self, variant: str) -> pd.DataFrame:
        """Return a variant's prunable layers that do not run as CSR, see ``study.layers``."""
        layers = self.layers(variant)
        return layers[layers["prunable"] & ~layers["runs_as_csr"].fillna(True).astype(bool)]

    def spread(self, variant: str) -> Spread | None:
        """Return how unevenly a variant's zeros lie; None of fewer than two prunable layers."""
        return spread_of(self.prunable(variant))

    def uneven(self, variant: str) -> bool:
        """Whether they do so by more than chance, see :func:`.spread.uneven`."""
        return uneven(self.prunable(variant))

    def grid(self, variant: str) -> Grid:
        """Return where the prunable layers in numbered blocks stand in a heat map."""
        return Grid(self._in_blocks(variant))

    def cells(self, variant: str) -> pd.DataFrame:
        """Return one row per cell of a variant's heat map.

        Returns
        -------
        pandas.DataFrame
            ``block`` (a label, ``"14–27"`` where neighbours are merged), ``projection``,
            ``layers`` (how many the cell holds), ``total`` and ``nonzero`` weights, ``sparsity``
            of the cell, ``low`` and ``high`` of its layers. Empty without numbered blocks.
        """
        rows = self._in_blocks(variant)
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

    def excess(self, variant: str) -> pd.DataFrame:
        """Return zeros minus what Gaussians would have, of the cells of a variant's heat map.

        Returns
        -------
        pandas.DataFrame
            As of :meth:`cells`, with ``excess``: (zeros − Σ expected zeros) ÷ weights of the
            matrices in a cell, each expected with its own spread at the variant's one threshold.
            Empty where no expectation is known; a cell with a matrix without one is null.
        """
        frame, cells = self._study.patterns, self.cells(variant)
        rows = None if frame is None else frame[frame["variant"] == variant]
        if rows is None or rows["expected_sparsity"].isna().all() or cells.empty:
            return cells.assign(excess=pd.Series(dtype=float)).iloc[:0]
        figure = beyond(rows)
        parts = pd.DataFrame({"more": figure.amounts, "weights": figure.sizes})
        inside = parts.reindex(self._in_blocks(variant)["module_name"]).reset_index(drop=True)
        sums = summed(inside.groupby(self.grid(variant).codes)).astype(float)
        return cells.assign(excess=(sums["more"] / sums["weights"]).to_numpy())

    def blocks(self, variant: str) -> pd.DataFrame:
        """Return zeros of each numbered block's prunable weights.

        Returns
        -------
        pandas.DataFrame
            ``block``, ``total`` and ``nonzero`` weights, ``sparsity`` = zeros ÷ weights.
        """
        rows = self._in_blocks(variant)
        sums = rows.groupby(rows["block"].astype("int64"))[["weight_total", "weight_nonzero"]].sum()
        frame = sums.set_axis(["total", "nonzero"], axis=1).astype("int64").reset_index()
        return frame.assign(sparsity=zero_shares(frame["total"], frame["nonzero"]))

    @cached_property
    def methods(self) -> pd.DataFrame:
        """The models as they come and each distinct pruning, see :func:`.methods.methods`."""
        shares = {variant: self.total(variant, "sparsity_prunable") for variant in self.prunings}
        return methods(self._study.variants, shares)

    @cached_property
    def compared(self) -> Comparables | None:
        """The prunings of the first model pruned side by side, see :mod:`.compared`."""
        return comparables(self)

    def passages(self, names: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield what variants were scored on alike, see :func:`.compared.passages`."""
        return passages(self._study.quality, names)

    def parts(self, variant: str) -> list[Part]:
        """Return zeros of heads and experts of a variant, see :func:`.inside.parts`."""
        if (frame := self._study.patterns) is None:
            return []
        inside = self._in_blocks(variant)
        grid = self.grid(variant)
        names = [grid.cells[code].projection for code in grid.codes]
        projections = dict(zip(inside["module_name"], names, strict=True))
        return list(parts(frame[frame["variant"] == variant], projections))

    def inner(self, variant: str, module: str) -> Inner | None:
        """Return what a module's matrices hold; None where they were not looked at."""
        if (frame := self._study.patterns) is None:
            return None
        rows = frame[(frame["variant"] == variant) & (frame["module_name"] == module)]
        return None if rows.empty else inner(rows)

    def dead(self, variant: str) -> Dead | None:
        """Return what of a variant is zero throughout; None where matrices were not looked at."""
        if (frame := self._study.patterns) is None:
            return None
        rows = frame[frame["variant"] == variant]
        return None if rows.empty else dead(rows)

    @cached_property
    def rivals(self) -> tuple[str, ...]:
        """Distinct prunings of the first model pruned, where their zeros in blocks can differ."""
        frame = self.methods
        pruned = frame[frame["variant"].isin(self.prunings)]
        if pruned.empty:
            return ()
        first = next(v for v in self.prunings if v in set(pruned["variant"]))
        model = frame.set_index("variant")["fingerprint"][first]
        names = pruned.loc[pruned["fingerprint"] == model, "variant"]
        return tuple(names) if len(names) > 1 and len(self.blocks(first)) > 1 else ()

    def _in_blocks(self, variant: str) -> pd.DataFrame:
        rows = self.prunable(variant)
        return rows[rows["block"].notna()]

    def extremes(self, variant: str, limit: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the prunable layers with the largest and with the smallest share of zeros."""
        ranked = self.prunable(variant).sort_values("share", ascending=False, kind="stable")
        return ranked.head(limit), ranked.iloc[::-1].head(limit)

    def unusual(self, variant: str, limit: int = 10) -> pd.DataFrame | None:
        """Return the matrices furthest from what a Gaussian of their spread would have.

        Rows of ``study.patterns``; None where no expectation is known.
        """
        if (frame := self._study.patterns) is None:
            return None
        rows = frame[frame["variant"] == variant]
        away = (rows["sparsity"] - rows["expected_sparsity"]).abs().dropna()
        return None if away.empty else rows.loc[away.nlargest(limit).index]

    def storage(self, variant: str, scope: str = "prunable") -> pd.DataFrame:
        """Return the rows of ``study.storage`` of one variant and scope, by ``layout``."""
        frame = self._study.storage
        rows = frame[(frame["variant"] == variant) & (frame["scope"] == scope)]
        return rows.set_index("layout")

    def break_even(
        self, variant: str, layout: str = "csr_int32", modules: Collection[str] = ()
    ) -> float | None:
        """Return the sparsity from which a layout of the prunable weights beats dense.

        Of all modules, or of those named; None where it never does or is unknown.
        """
        if not modules:
            value = self.storage(variant)["break_even"].get(layout)
            return None if pd.isna(value) else float(value)
        rows = self.layers(variant)
        line = _line(layout_ends(rows[selected(rows, modules)]), layout)
        share = None if line is None else break_even_share(*line[1:])
        return None if pd.isna(share) else float(share)

    @cached_property
    def speeds(self) -> pd.DataFrame | None:
        """What was timed, and what of it may be told; None where nothing was.

        See :func:`sparsity_report.study.derived.speedups.speeds`.
        """
        frame, variants = self._study.latency, self._study.variants
        if frame is None or frame.empty:
            return None
        return speeds(frame, dict(zip(variants["variant"], variants["layout"], strict=True)))

    @cached_property
    def crossovers(self) -> pd.DataFrame | None:
        """From which sparsity CSR layers are faster, if timed; see :func:`.speed.crossovers`."""
        return None if self.speeds is None else crossovers(self.speeds)

    @property
    def speed_base(self) -> str:
        """The variant that speeds are against."""
        assert self._study.latency is not None
        return reference(self._study.latency)

    @cached_property
    def speedups(self) -> pd.DataFrame | None:
        """:attr:`speeds` of every ``measurement``, each ``against`` its own reference."""
        if (frame := self._study.speedups) is None:
            if self.speeds is None:
                return None
            return self.speeds.assign(measurement=1, against=self.speed_base)
        variants = self._study.variants
        layouts = dict(zip(variants["variant"], variants["layout"], strict=True))
        runs = [speeds(rows, layouts) for _, rows in frame.groupby("measurement")]
        return pd.concat(runs, ignore_index=True)

    def whole_speeds(self, variant: str) -> pd.DataFrame:
        """Return the rows of :attr:`speeds` of a variant's whole forward passes; maybe none."""
        if (frame := self.speeds) is None:
            return pd.DataFrame(columns=["tokens", "verdict", "realised_speedup"])
        return frame[(frame["scope"] == "model") & (frame["variant"] == variant)]

    def scored(self, variant: str) -> Scored | None:
        """Return a variant's perplexity beside the baseline's, see :func:`.scored.scored`."""
        return scored(self._study.quality, variant, self.baseline)

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where variants stand whose zeros and bytes are known, see :class:`.tradeoff.Place`."""
        return places(self, self._study.variants)

    @cached_property
    def tradeoff(self) -> Tradeoff | None:
        """Quality against bytes of what was scored alike, see :func:`.tradeoff.tradeoff`."""
        return tradeoff(self._study.quality, self._study.tasks, self.places)

    @property
    def levels(self) -> pd.DataFrame | None:
        """The first variant's model at every level of global magnitude pruning.

        See :meth:`.levels.Levels.sums`; None where the study keeps no levels.
        """
        levels = self._study.by_level
        return None if levels is None else levels.model

    def marks(self) -> list[tuple[str, float]]:
        """Return where the study's own prunings stand on the scale of levels."""
        shares = ((variant, self.total(variant, "sparsity_prunable")) for variant in self.prunings)
        return [(variant, share) for variant, share in shares if share is not None]

    @cached_property
    def _baseline_ends(self) -> pd.DataFrame:
        return layout_ends(self.layers(self.baseline))

    def curve(self, sparsities: Sequence[float] | None = None) -> pd.DataFrame:
        """Return bytes of the prunable weights in each layout against sparsity.

        From the integers of ``study.storage``: each layout is a straight line from its bytes
        without zeros to those with nothing but zeros, every matrix at the same sparsity.

        Parameters
        ----------
        sparsities : sequence of float, optional
            By default 0, 1, … 100 %.

        Returns
        -------
        pandas.DataFrame
            ``sparsity, layout, bytes, ratio`` (to dense bytes); empty where nothing is prunable.
        """
        shares = np.arange(101) / 100 if sparsities is None else np.asarray(sparsities, dtype=float)
        lines = []
        for layout in CURVE_LAYOUTS:
            if (line := _line(self._baseline_ends, layout)) is None:
                continue
            total, dense, full, empty = line
            # Weights are whole numbers, and so are bytes.
            left = total - np.rint(total * shares)
            size = empty + np.rint((full - empty) * left / total).astype(np.int64)
            frame = pd.DataFrame({"sparsity": shares, "bytes": size, "ratio": size / dense})
            lines.append(frame.assign(layout=layout))
        columns = ["sparsity", "layout", "bytes", "ratio"]
        if not lines:
            return pd.DataFrame(columns=columns)
        return pd.concat(lines, ignore_index=True)[columns]

    @property
    def dtypes(self) -> list[str]:
        """Types of the prunable weights of the baseline, the commonest first."""
        rows = self.layers(self.baseline)
        sizes = rows[rows["prunable"]].groupby("dtype", sort=False)["weight_total"].sum()
        return list(sizes.sort_values(ascending=False, kind="stable").index)

    def packings(self, variant: str | None = None) -> list[str]:
        """Return how files pack weights of a variant, or of any; empty where they do not."""
        layers = self._study.layers if variant is None else self.layers(variant)
        return sorted(set(layers["packing"].dropna()) - {""})

    def unpacked_dtypes(self, variant: str) -> list[str]:
        """Return the types that packed weights of a variant are counted in."""
        layers = self.layers(variant)
        return list(layers.loc[layers["packing"].fillna("") != "", "dtype"].unique())

    def bits_per_weight(self, variant: str) -> float | None:
        """Return bits in the file ÷ parameters of a variant's model.

        None where one is not known, and where the convention counts tied weights again, which a
        file holds once.
        """
        again = self._study.convention == "notebook" and self.layers(variant)["tied_to"].notna()
        if np.any(again):
            return None
        return bits_per_weight(self.total(variant, "file_bytes"), self.total(variant, "total"))

    def rounded(self, variant: str) -> list[Rounded]:
        """Return what rounding in the file explains of a variant's zeros, where that is known."""
        return list(rounded(self.layers(variant)))

    def lossless(self, variant: str) -> pd.DataFrame:
        """Return the rows of :meth:`storage` that lose no weight and whose bytes are known.

        Without compressed files, from which nothing computes.
        """
        rows = self.storage(variant).drop(index=list(FILES), errors="ignore")
        return rows[rows["lossless"].fillna(False).astype(bool) & rows["bytes"].notna()]

    def smaller_file(self, variant: str) -> float | None:
        """Return bytes ÷ dense bytes of the prunable weights as a file compressed by zstd.

        None where it was not measured, and where the smallest layout that one computes with is as
        small.
        """
        rows, layout = self.storage(variant), self.smallest_layout(variant)
        size = rows["bytes"].get("zstd")
        if layout is None or pd.isna(size) or size >= rows["bytes"][layout]:
            return None
        return float(rows["ratio"]["zstd"])

    def zstd_versions(self, variant: str) -> list[str]:
        """Return the versions of zstd that a variant's matrices were compressed with."""
        if (frame := self._study.patterns) is None:
            return []
        return sorted(frame.loc[frame["variant"] == variant, "zstd_version"].dropna().unique())

    def smallest_layout(self, variant: str) -> str | None:
        """Return the lossless layout that takes the fewest bytes for the prunable weights."""
        rows = self.lossless(variant)
        return None if rows.empty else str(rows["bytes"].astype("int64").idxmin())


def _line(ends: pd.DataFrame, layout: str) -> list[int] | None:
    """Return total weights and the bytes dense, full and empty of a layout; None if unknown."""
    if layout not in ends.index or ends.loc[layout].isna().any():
        return None
    return [int(number) for number in ends.loc[[layout]].to_numpy()[0]]
