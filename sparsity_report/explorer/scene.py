"""What the picture shows of a study in a given state: how it is built, and its data."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.draw import look as looks
from sparsity_report.draw.look import METRICS
from sparsity_report.explorer.magnitudes import LayerMagnitudes, Rows, histogram_rows
from sparsity_report.explorer.picture import CURVES, EVEN, Data, Look
from sparsity_report.explorer.view import (
    LARGEST_FIRST,
    LIVE,
    MODEL_ORDER,
    Floats,
    State,
    View,
    block_name,
)
from sparsity_report.study.grid import OUTSIDE
from sparsity_report.words.names import clip, distinct_names
from sparsity_report.words.numbers import count
from sparsity_report.words.sentences import message, say


class _Bars(NamedTuple):
    """The bars in their order, and how they are drawn."""

    names: list[str]
    rows: Rows
    longest: float
    inks: list[tuple[str, str, str]]


class Scene:
    """From a view and a state to a picture."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.magnitudes = LayerMagnitudes(view)

    def look_and_data(self, state: State) -> tuple[Look, Data]:
        """Return how the picture is built and what it shows."""
        grid = self.view.placement(state).grid
        cells, bars = self.view.cell_values(state), self._bars(state)
        curve = self._curve(state.sparsity)
        look = Look(
            width=state.width,
            metric=state.metric,
            log=state.log_scale and state.kind == "number",
            blocks=tuple(map(block_name, grid.blocks)),
            projections=tuple(grid.projections),
            domain=self._domain(state, cells),
            bars=tuple(bars.names),
            variants=tuple(bars.inks),
            longest=bars.longest,
            curve=1.08 * max((point["value"] for point in curve.get("curve", [])), default=0.0),
            histogram=bool(self.magnitudes.counts),
            alt=self._alt(state, cells),
        )
        data: Data = {
            "cells": self._cells(state, cells, look),
            "bars": bars.rows,
            "notes": self._notes(state),
            **curve,
        }
        if look.histogram:
            rows: tuple[Rows, Rows] = ([], [])
            if magnitudes := self.magnitudes.of(state):
                rows = histogram_rows(magnitudes, self.magnitudes.threshold(state))
            data["magnitudes"], data["threshold"] = rows
        return look, data

    def members(self, state: State, kind: str, place: int) -> list[str]:
        """Return the names behind a cell of the map or a group of bars."""
        placement = self.view.placement(state)
        if kind == "cell":
            return placement.grid.members[place]
        bars, (names, codes) = self._bars(state).names, placement.bars[state.grouping]
        if place >= len(bars) or bars[place] not in names:
            return []
        return list(placement.names[codes == names.index(bars[place])])

    def _domain(self, state: State, cells: Floats) -> tuple[float, float]:
        """Return the ends of the colours; at a level those of nothing pruned, so that they stay."""
        if state.kind == "share":
            return 0.0, 1.0
        if state.live and state.kind == "number":
            cells = self.view.cell_values(state._replace(sparsity=0.0))
        known = cells[np.isfinite(cells)]
        if state.kind == "ratio":
            return 0.0, float(known.max(initial=2.0))
        if state.log_scale and (known > 0).any():
            low = float(known[known > 0].min())
            return low, max(float(known.max()), low * 1.01)
        return 0.0, float(known.max(initial=0.0)) or 1.0

    def _cells(self, state: State, values: Floats, look: Look) -> Rows:
        placed = self.view.placement(state)
        grid, chosen = placed.grid, set(state.selection)
        unknown, rows = say("unknown"), []
        for place, (cell, value) in enumerate(zip(grid.cells, values.tolist(), strict=True)):
            known = math.isfinite(value) and not (look.log and value <= 0)
            rows.append(
                {
                    "kind": "cell",
                    "id": place,
                    "block": block_name(cell.block),
                    "projection": cell.projection,
                    "value": value if known else None,
                    "label": looks.write(value, state.kind) if math.isfinite(value) else unknown,
                    "tip": placed.tips[place],
                    "on": not chosen or not chosen.isdisjoint(grid.members[place]),
                }
            )
        return rows

    def _bars(self, state: State) -> _Bars:
        """Return the bars of the variants that stand side by side."""
        facts = self.view.study.facts
        compared = [facts.baseline, *LIVE] if state.live else self.view.variants
        values = {v: self.view.bar_values(state._replace(variant=v)) for v in compared}
        names = list(dict.fromkeys(name for bars in values.values() for name in bars))
        names = _sorted(names, values[state.variant], state.sort)
        spoken_names = [say(name) if name in LIVE else name for name in compared]
        shown = dict(zip(compared, distinct_names(spoken_names), strict=True))
        placement = self.view.placement(state)
        keys, codes = placement.bars[state.grouping]
        lit = {keys[code] for code in codes[np.isin(placement.names, list(state.selection))]}
        rows: Rows = [
            {
                "kind": "bar",
                "id": names.index(name),
                "group": name,
                "variant": shown[variant],
                "value": value if math.isfinite(value) else None,
                "label": looks.write(value, state.kind),
                "on": name in lit or not state.selection,
            }
            for variant, bars in values.items()
            for name, value in bars.items()
        ]
        longest = self._longest(state, values)
        inks = looks.palette(self.view.study)
        if state.live:
            inks = dict(zip(compared, looks.layout_inks().values(), strict=True))
        return _Bars(names, rows, longest, [(shown[v], *inks[v]) for v in compared])

    def _longest(self, state: State, values: dict[str, dict[str, float]]) -> float:
        """Return how far bars reach; at a level, how far they reach at any."""
        share = state.kind == "share"
        if state.live and share:
            return 1.0
        if state.live:
            start = state._replace(sparsity=0.0)
            values = {v: self.view.bar_values(start._replace(variant=v)) for v in values}
        longest = float(np.nanmax([0.0, *(v for bars in values.values() for v in bars.values())]))
        return max(longest, 0.1) if share else longest or 1.0

    def _curve(self, sparsity: float) -> Data:
        """Return bytes and FLOPs of the whole model as CSR ÷ dense, and where the level stands."""
        levels, row = self.view.study.facts.levels, self.view.level_row(sparsity)
        if row is None or levels is None:
            return {}
        curve = [
            {"sparsity": share, "value": value, "line": say(line)}
            for column, line in CURVES.items()
            for share, value in levels[["sparsity_prunable", column]].dropna().to_numpy()
        ]
        curve += [{"sparsity": end, "value": 1.0, "line": say(EVEN)} for end in (0.0, 1.0)]
        top = 1.04 * max(point["value"] for point in curve)
        level: Rows = []
        if pd.notna(row["bytes_ratio"]):
            here = {"sparsity": row["sparsity_prunable"], "value": row["bytes_ratio"], "top": top}
            level = [here | {"label": say("{sparsity:percent}: {value:times}", **here)}]
        even: Rows = []
        if (share := self.view.break_even) is not None:
            label = say("pays from {share:percent}", share=share)
            even = [{"sparsity": share, "value": 1.0, "label": label}]
        return {"curve": curve, "even": even, "level": level}

    def _notes(self, state: State) -> Rows:
        """Return the lines under the titles."""
        metric, grid = METRICS[state.metric], self.view.placement(state).grid
        cells = f"{self.view.shown(state)} · {say(metric.layer_note)}"
        if (most := max(map(len, grid.members), default=0)) > 1:
            cells += " · " + say("a cell holds up to {layers} layers", layers=count(most))
        bars = say(metric.note)
        if state.live:
            bars = say("at {level:level}", level=state.sparsity) + f" · {bars}"
        layer = clip(state.detail, 48) if state.detail else say("none")
        texts = {
            "cells": cells,
            "bars": bars,
            "curve": say(
                message("stored bytes, unpacked, and FLOPs of the whole model")
                if self.view.study.facts.unpacked_dtypes(self.view.variants[0])
                else message("stored bytes and FLOPs of the whole model")
            ),
            "histogram": say("{layer}, before pruning", layer=layer),
        }
        return [{"panel": panel, "text": text} for panel, text in texts.items()]

    def _alt(self, state: State, cells: Floats) -> str:
        """Return the alternative text of the picture, which stays while a level moves."""
        grid = self.view.placement(state).grid
        known = cells[np.isfinite(cells)]
        shown = say("a level") if state.live else self.view.shown(state)
        span = say("unknown values")
        if state.live:
            span = say("values that follow the level")
        elif known.size:
            low, high = (looks.write(float(end), state.kind) for end in (known.min(), known.max()))
            span = say("from {low} to {high}", low=low, high=high)
        return say(
            "{metric} of {shown}: heat map of {blocks} blocks by {projections} projections, "
            "{span}; bars per {grouping}; bytes and FLOPs of CSR against dense at every level; "
            "histogram of one layer's magnitudes.",
            metric=say(METRICS[state.metric].name),
            shown=shown,
            blocks=count(len(set(grid.blocks) - {OUTSIDE})),
            projections=count(len(grid.projections)),
            span=span,
            grouping=say(state.grouping),
        )


def _sorted(names: list[str], values: dict[str, float], sort: str) -> list[str]:
    """Order bars by the values of the variant shown; unknown ones come last."""
    if sort == MODEL_ORDER:
        return names
    known = [name for name in names if math.isfinite(values.get(name, math.nan))]
    known.sort(key=values.__getitem__, reverse=sort == LARGEST_FIRST)
    return list(dict.fromkeys([*known, *names]))
