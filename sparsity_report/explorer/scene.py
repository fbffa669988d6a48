"""Look and data of the picture of a study in a state."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from sparsity_report.draw import theme
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.tradeoff_chart import tradeoff_shape
from sparsity_report.explorer.control_state import GROUPINGS, LIVE, QUALITY, State, order_of
from sparsity_report.explorer.curves import CostCurve, QualityCurve
from sparsity_report.explorer.map_metrics import DIFFERENCE
from sparsity_report.explorer.picture import Data, Look, cell_rows, looked
from sparsity_report.explorer.picture_layout import Room, plan
from sparsity_report.explorer.view import Floats, View, block_name
from sparsity_report.study.derived.heatmap_grid import OUTSIDE
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words.number_format import count
from sparsity_report.words.sentences import say

# Smallest ends of colors and bars, below which values are noise.
_LEAST = {"points": 0.01, "nats": 0.001}


# By variant, and by bar.
_Values = dict[str, dict[str, float]]


class _Bars(NamedTuple):
    """The bars in their order, their reach and their colors."""

    names: list[str]
    rows: Rows
    reach: tuple[float, float]
    inks: list[tuple[str, str, str]]


class Scene:
    """The picture of a view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.figures, self.magnitudes = view.figures, view.magnitudes
        self.costs, self.quality = CostCurve(view), None
        if (shape := tradeoff_shape(view.study)) and view.study.tradeoff:
            self.quality = QualityCurve(view, view.study.tradeoff, shape)

    def kind(self, state: State) -> str:
        """Return the kind of the metric: a share, a number, a ratio or another figure."""
        return self.figures.metrics[state.metric].kind

    def look_and_data(self, state: State) -> tuple[Look, Data]:
        """Return the look of the picture and its data."""
        grid = self.view.placement(state).grid
        cells, bars = self.view.cell_values(state), self._bars(state)
        domain, curve = self._domain(state, cells), self.curve(state)
        look = Look(
            width=state.width,
            name=self.figures.name(state.metric),
            kind=self.kind(state),
            # Without values above zero there is no logarithmic scale.
            log=state.log_scale and self.kind(state) == "number" and domain[0] > 0,
            blocks=tuple(map(block_name, grid.blocks)),
            projections=tuple(grid.projections),
            domain=domain,
            bars=tuple(bars.names),
            variants=tuple(bars.inks),
            reach=bars.reach,
            curve=1.08 * self.costs.top,
            quality=curve.shape if isinstance(curve, QualityCurve) else None,
            plan=plan(self._room, state.width),
            alt=self._alt(state, cells),
        )
        rows = self._cells(state, cells, look)
        data: Data = {"cells": rows, "bars": bars.rows, "notes": self._notes(state)}
        data |= {"looked": looked(rows, grid, state.detail), **curve.rows(state)}
        if look.plan.histogram:
            data |= self.magnitudes.rows(state)
        return look, data

    @cached_property
    def _room(self) -> Room:
        """Space that the picture needs at most, for any variant and any modules in view."""
        view, texts = self.view, _legend_names(self.view.variants)
        variants = view.study.variants.drop_duplicates("fingerprint")["variant"]
        placed = [view.placed(v, scope) for v in variants for scope in view.scopes()[:2]]
        first = view.placed(view.variants[0], view.scopes()[0]).grid
        bars = [names for place in placed for names, _ in place.bars.values()]
        live = _legend_names([view.study.facts.baseline, *LIVE]) if view.policies else ()
        projections = [place.grid.projections for place in placed]
        return Room(
            blocks=max(len(place.grid.blocks) for place in placed),
            rows=len(first.projections),
            most_rows=max(map(len, projections)),
            letters=max((len(name) for names in projections for name in names), default=0),
            groups=max(map(len, bars)),
            group_letters=max((len(name) for names in bars for name in names), default=0),
            legends=tuple(filter(None, (texts, live))),
            curve=self.costs.top > 0 or self.quality is not None,
            lines=max(3 if self.costs.top > 0 else 0, self.quality.legend() if self.quality else 0),
            histogram=bool(self.magnitudes.counts),
        )

    def curve(self, state: State) -> CostCurve | QualityCurve:
        """Return the curve in view."""
        return self.quality if self.quality and state.curve == QUALITY else self.costs

    def members(self, state: State, kind: str, at: Any) -> list[str]:
        """Return the modules of a row, a cell of the map, a group of bars, or a name on an axis.

        `at` is the index of a row or a cell, the index or name of a bar, or the name of a
        ``block`` or a ``projection``.
        """
        placement = self.view.placement(state)
        if kind == "row":
            return [self.view.names[at]]
        if kind == "cell":
            return placement.grid.members[at]
        if kind == "block":
            return self.view.brushed(state, [at], placement.grid.projections)
        if kind == "projection":
            return self.view.brushed(state, list(map(block_name, placement.grid.blocks)), [at])
        bars, (names, codes) = self._bars(state).names, placement.bars[state.grouping]
        name = at if isinstance(at, str) else bars[at] if 0 <= at < len(bars) else None
        return list(placement.names[codes == names.index(name)]) if name in names else []

    def variant(self, state: State, text: str) -> str | None:
        """Return the variant with a name in the legend."""
        compared = self._compared(state)
        return dict(zip(_legend_names(compared), compared, strict=True)).get(text)

    def _compared(self, state: State) -> list[str]:
        """Return the variants of the bars; for metrics that are not counts, the one in view."""
        if self.figures.is_figure(state.metric):
            return [state.variant]
        return [self.view.study.facts.baseline, *LIVE] if state.live else self.view.variants

    def _domain(self, state: State, cells: Floats) -> tuple[float, float]:
        """Return the ends of the colors; at a level those without pruning, so that they stay."""
        kind = self.kind(state)
        if kind == "share":
            return 0.0, 1.0
        if state.live and kind == "number":
            cells = self.view.cell_values(state._replace(sparsity=self.view.start(state)))
        known = cells[np.isfinite(cells)]
        if kind in {"points", "nats"}:
            # Equally far on both sides of zero.
            grid = self.view.placement(state).grid
            far = self._furthest(state, known, grid.codes, len(grid.cells))
            far = max(far, _LEAST[kind])
            # Costs alone need one side only.
            return (0.0, far) if kind == "nats" and known.min(initial=0.0) >= 0 else (-far, far)
        if kind == "own":
            return _ends(known)
        if kind == "ratio":
            return 0.0, float(known.max(initial=2.0))
        if state.log_scale and (known > 0).any():
            low = float(known[known > 0].min())
            return low, max(float(known.max()), low * 1.01)
        return 0.0, float(known.max(initial=0.0)) or 1.0

    def _furthest(self, state: State, known: Floats, codes: Any, size: int) -> float:
        """Return the largest absolute value; at a level that of all levels, so that it stays."""
        if self.figures.depends_on_level(state):
            return self.view.furthest(state, codes, size)
        return float(np.abs(known).max(initial=0.0))

    def text(self, value: float, state: State) -> str:
        """Return a value of the metric with its unit."""
        text = theme.write(value, self.kind(state))
        if self.kind(state) == "points":
            return say("format.value_percentage_points", value=text)
        is_loss = self.kind(state) == "nats"
        return say("format.value_nats_per_token", value=text) if is_loss else text

    def _cells(self, state: State, values: Floats, look: Look) -> Rows:
        placed = self.view.placement(state)
        unknown, selected = say("explorer.value_unknown"), set(state.selection)
        cells = [cell._replace(block=block_name(cell.block)) for cell in placed.grid.cells]
        shown = np.where(np.isfinite(values) & ~(look.log & (values <= 0)), values, np.nan)
        labels = [self.text(v, state) if math.isfinite(v) else unknown for v in values.tolist()]
        rows = cell_rows(cells, shown.tolist(), labels, placed.tips)
        for row, members in zip(rows, placed.grid.members, strict=True):
            row["on"] = not selected or not selected.isdisjoint(members)
        return rows

    def _bars(self, state: State) -> _Bars:
        """Return the bars of the compared variants."""
        compared = self._compared(state)
        values = {v: self.view.bar_values(state._replace(variant=v)) for v in compared}
        names = list(dict.fromkeys(name for bars in values.values() for name in bars))
        # A selection changes the values of bars, but neither their order nor the axis.
        unselected = values
        if state.selection:
            every = state._replace(selection=())
            unselected = {v: self.view.bar_values(every._replace(variant=v)) for v in compared}
        in_view = unselected[state.variant]
        order = order_of([in_view.get(name, math.nan) for name in names], state.sort)
        names = [names[place] for place in order]
        shown = dict(zip(compared, _legend_names(compared), strict=True))
        placement = self.view.placement(state)
        keys, codes = placement.bars[state.grouping]
        lit = {keys[code] for code in codes[np.isin(placement.names, list(state.selection))]}
        kind = self.kind(state)
        rows: Rows = []
        for variant, bars in values.items():
            for name, value in bars.items():
                known = value if math.isfinite(value) else None
                label = theme.write(value, kind) if name in lit or not lit else ""
                place = {"kind": "bar", "id": names.index(name), "group": name}
                texts = {"variant": shown[variant], "value": known, "label": label}
                rows.append({**place, **texts, "on": name in lit or not state.selection})
        reach = self._reach(state, unselected)
        inks = theme.palette(self.view.study)
        if state.live:
            side = [self.view.study.facts.baseline, *LIVE]
            inks = dict(zip(side, theme.layout_inks().values(), strict=True))
        return _Bars(names, rows, reach, [(shown[v], *inks[v]) for v in compared])

    def _reach(self, state: State, values: _Values) -> tuple[float, float]:
        """Return the ends of the bars without a selection; at a level, those of all levels."""
        if not self.figures.is_figure(state.metric):
            return 0.0, self._longest(state, values)
        # No mean of layers exceeds all of them.
        inside = self.view.placement(state).inside
        layers = self.view.values(state, self.view.frame(state))[inside]
        known = layers[np.isfinite(layers)]
        if self.kind(state) == "own":
            return _ends(np.append(known, 0.0))
        far = self._furthest(state, known, np.arange(len(layers)), len(layers))
        far = max(far, _LEAST[self.kind(state)])
        less = self.figures.depends_on_level(state) or known.min(initial=0.0) < 0
        return -far if less else 0.0, far

    def _longest(self, state: State, values: _Values) -> float:
        """Return the end of bars of counts."""
        kind = self.kind(state)
        if state.live and kind == "share":
            return 1.0
        start = state._replace(selection=())
        if state.live:
            start = start._replace(sparsity=self.view.start(state))
            values = {v: self.view.bar_values(start._replace(variant=v)) for v in values}
        far = [v for bars in values.values() for v in bars.values()]
        if kind != "number":
            # No share and no ratio of layers exceeds all of theirs.
            layers = [self.view.layer_values(start._replace(variant=v)) for v in values]
            far = [float(np.nanmax(one, initial=0.0)) for one in layers]
        longest = float(np.nanmax([0.0, *far]))
        return max(longest, 0.1) if kind == "share" else longest or 1.0

    def _is_of_level(self, state: State) -> bool:
        """Return whether the values in view are those of a level."""
        is_count = state.live and not self.figures.is_figure(state.metric)
        return is_count or self.figures.depends_on_level(state)

    def _notes(self, state: State) -> Rows:
        """Return the lines under the titles."""
        metric, grid = self.figures.metrics[state.metric], self.view.placement(state).grid
        shown = self.view.shown(state)
        if state.metric == DIFFERENCE:
            other = short_name(state.against)
            shown = say("explorer.variant_difference", shown=shown, other=other)
        cells = self.figures.note(state.metric)
        if self.figures.depends_on_variant(state.metric):
            cells = f"{shown} · {cells}"
        if (most := max(map(len, grid.members), default=0)) > 1:
            cells += " · " + say("chart.layers_per_cell_note", layers=count(most))
        bars = say(metric.note)
        if self._is_of_level(state):
            bars = say("explorer.at_level", level=state.sparsity) + f" · {bars}"
        if state.selection:
            bars = say("explorer.count_selected", count=count(len(state.selection))) + f" · {bars}"
        layer = clip(state.detail, 48) if state.detail else say("explorer.layer_none")
        texts = {
            "cells": cells,
            "bars": bars,
            "curve": self.curve(state).note(state),
            "histogram": say("explorer.histogram_note", layer=layer),
        }
        beside = self.magnitudes.other_layer(state)
        if beside is not None:
            two = say("explorer.histogram_note_two_layers", layer=layer, other=clip(beside, 48))
            texts["histogram"] = two
        return [{"panel": panel, "text": text} for panel, text in texts.items()]

    def _alt(self, state: State, cells: Floats) -> str:
        """Return the alternative text, which is the same at every level."""
        grid = self.view.placement(state).grid
        known = cells[np.isfinite(cells)]
        shown = say("explorer.alt_level") if state.live else self.view.shown(state)
        span = say("explorer.alt_unknown_values")
        if self._is_of_level(state):
            span = say("explorer.alt_level_values")
        elif known.size:
            low, high = (self.text(float(end), state) for end in (known.min(), known.max()))
            span = say("explorer.alt_value_range", low=low, high=high)
        blocks, projections = len(set(grid.blocks) - {OUTSIDE}), len(grid.projections)
        sizes = {"blocks": count(blocks), "projections": count(projections)}
        names = {"metric": self.figures.name(state.metric), "shown": shown, "span": span}
        grouping, curve = say(GROUPINGS[state.grouping]), self.curve(state).alt()
        return say("explorer.picture_alt", grouping=grouping, curve=curve, **names, **sizes)


def _ends(values: Floats) -> tuple[float, float]:
    """Return the smallest and the largest value, at a distance from each other."""
    low, high = (float(end(values)) if values.size else 0.0 for end in (np.min, np.max))
    return (low, high) if low < high else (low - abs(low), high + (abs(high) or 1.0))


def _legend_names(variants: Sequence[str]) -> tuple[str, ...]:
    return tuple(distinct_names([say(LIVE[name]) if name in LIVE else name for name in variants]))
