"""What the explorer of two checkpoints draws: a map, a layer's zeros, strips of what is gone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.pair_charts import (
    overlap_mark,
    overlap_rows,
    overlap_words,
    strip_mark,
    strip_words,
)
from sparsity_report.draw.strip_labels import strip_names, strip_title
from sparsity_report.draw.theme import INK, SCREEN, VERMILLION, Metric
from sparsity_report.draw.vega import unchecked
from sparsity_report.explorer.picture import Data, Spec
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import DifferenceMap, figure_map, strips
from sparsity_report.study.pairs.pair_frames import survival_of
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.sentences import say

ALL = "all"
_LAYER_NOTE = "pair.metric_relative_change_note"
METRICS = {
    "moved": Metric(
        "pair.metric_zero_or_removed", "points", *["pair.metric_zero_or_removed_note"] * 2
    ),
    "kept_share": Metric("pair.metric_zeros_kept", "share", *["pair.metric_zeros_kept_note"] * 2),
    "revived_share": Metric(
        "pair.metric_zeros_revived", "share", *["pair.metric_zeros_revived_note"] * 2
    ),
    "new_share": Metric("pair.metric_new_zeros", "share", *["pair.metric_new_zeros_note"] * 2),
    "relative_change": Metric("pair.metric_relative_change", "share", *[_LAYER_NOTE] * 2),
    "iou": Metric("pair.metric_zeros_iou", "share", *["pair.metric_zeros_iou_note"] * 2),
}
# Shares that are drawn from 0 to 1; of others the scale ends at the largest.
_WHOLE = {"kept_share", "iou"}
# Width from which the matrix stands beside the map, and its own; room between and at the edge.
_WIDE, _MATRIX, _GAP, _BELOW, _EDGE = 900, 160, 40, 26, 16
# Of names at most, and of a letter.
_NAMES, _LETTER = 150, 6.2
_ROW, _TALLEST = 24, 480
_APART: Spec = {"scale": dict.fromkeys(("x", "y", "color"), "independent")}


class PairState(NamedTuple):
    """What the controls say."""

    metric: str
    group: str
    module: str
    width: int


class PairScene:
    """The picture of a pair as chart and data; moving to another layer only swaps data.

    Parameters
    ----------
    pair : Pair
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._maps = lru_cache(maxsize=16)(self._map)
        self._specs = lru_cache(maxsize=32)(self._spec)
        layers = pair.layers[(pair.layers["weight_before"] > 0) | (pair.layers["weight_after"] > 0)]
        self._layers = layers.drop_duplicates("module_name")
        self.groups: list[str] = [ALL, *dict.fromkeys(layers["group"])]
        self._strips = list(strips(pair))

    def modules(self, group: str) -> list[str]:
        """Return the modules of a group, or all, in model order."""
        rows = self._layers
        return list(
            rows["module_name"] if group == ALL else rows.loc[rows["group"] == group, "module_name"]
        )

    def shown(self, group: str) -> DifferenceMap | None:
        """Return the map of a group, or of all; None of one without layers in numbered blocks."""
        return self._maps(group)

    def _map(self, group: str) -> DifferenceMap | None:
        return figure_map(self.pair, None if group == ALL else group)

    def first(self, group: str) -> str:
        """Return the module that differs most, of those in the map if there are any."""
        if (shown := self.shown(group)) is None:
            return next(iter(self.modules(group)), "")
        return shown.grid.members[int(shown.cells["moved"].abs().argmax())][0]

    def at(self, group: str, cell: int, module: str) -> str | None:
        """Return the module that a click on a cell means: where one is shown, the next of it."""
        shown = self.shown(group)
        if shown is None or not 0 <= cell < len(shown.grid.members):
            return None
        members = shown.grid.members[cell]
        return (
            members[(members.index(module) + 1) % len(members)] if module in members else members[0]
        )

    def zeros(self, module: str) -> dict[str, Any]:
        """Return what became of the zeros of one module, as a row of ``pair.survival``."""
        rows = self._layers[self._layers["module_name"] == module]
        return survival_of(None, rows[rows["compared"] > 0])

    def axes(self, group: str) -> list[list[str]]:
        """Return columns and rows of the map in their order."""
        shown = self.shown(group)
        return [[], []] if shown is None else [shown.grid.blocks, shown.grid.projections]

    def said(self, metric: str, group: str) -> str:
        """Say what the picture shows to those who cannot see it."""
        name = say(METRICS[metric].name)
        said = [strip_words(strip) for strip in self._strips]
        if (shown := self.shown(group)) is not None:
            said[:0] = [_map_words(name, shown.cells, metric)]
        return clip(" ".join(said), 1500)

    def data(self, state: PairState) -> Data:
        """Return what changes with the layer looked at, and the cells of the map."""
        zeros, shown = self.zeros(state.module), self.shown(state.group)
        data: Data = {"overlap": overlap_rows(zeros) if zeros["compared"] else []}
        if shown is None:
            return data
        kind = METRICS[state.metric].kind
        cells = shown.cells
        data["cells"] = [
            {
                "kind": "cell",
                "id": place,
                "block": block,
                "projection": projection,
                "value": None if pd.isna(value) else float(value),
                "label": theme.write(None if pd.isna(value) else value, kind),
                "tip": _tip(shown.grid.members[place]),
                "on": True,
            }
            for place, (block, projection, value) in enumerate(
                zip(cells["block"], cells["projection"], cells[state.metric], strict=True)
            )
        ]
        looked = [
            {"block": row["block"], "projection": row["projection"]}
            for row, members in zip(data["cells"], shown.grid.members, strict=True)
            if state.module in members
        ]
        return data | {"looked": looked, "pointed": []}

    def spec(self, state: PairState) -> Spec:
        """Return the chart without its data."""
        return self._specs(state._replace(module=""))

    def described(self, state: PairState) -> str:
        """Return the alternative text: of the layer looked at, too, with which no chart changes."""
        zeros, said = self.zeros(state.module), self.said(state.metric, state.group)
        if not zeros["compared"]:
            return said
        return f"{overlap_words(zeros, clip(state.module, 80))} {said}"

    def _named(self, group: str) -> float:
        """Return the room that names need on the left."""
        names = [say("chart.overlap_nonzero_before"), *self.axes(group)[1]]
        names += [name for strip in self._strips for name in strip_names(strip)]
        return min(_NAMES, 10 + _LETTER * max(map(len, names)))

    @unchecked()
    def _spec(self, state: PairState) -> Spec:
        wide = state.width >= _WIDE
        shown, named = self.shown(state.group), self._named(state.group)
        plot = max(120, state.width - named - _EDGE)
        datasets: Spec = {}
        matrix = _plain(overlap_mark(alt.NamedData(name="overlap"), _MATRIX, SCREEN), datasets)
        matrix["title"] = say("chart.overlap_title")
        parts: list[Spec] = [matrix]
        if shown is not None:
            side = named + _MATRIX + _GAP if wide else 0
            cells = _plain(_cells(state.metric, shown, plot - side), datasets)
            parts = (
                [{"hconcat": [cells, matrix], "spacing": _GAP, "resolve": _APART}]
                if wide
                else [cells, matrix]
            )
        for strip in self._strips:
            if (chart := strip_mark(strip, plot, SCREEN)) is not None:
                parts.append(_plain(chart, datasets) | {"title": strip_title(strip)})
        return {
            "$schema": alt.SCHEMA_URL,
            "vconcat": parts,
            "spacing": _BELOW,
            "resolve": _APART,
            "description": self.said(state.metric, state.group),
            "usermeta": {"width": state.width},
            "background": "white",
            # Room for names is the same left of all, that they stand below each other.
            "config": theme.config(SCREEN) | {"padding": 2, "axisLeft": {"minExtent": named}},
            "datasets": datasets,
        }


def _plain(chart: alt.LayerChart, datasets: Spec) -> Spec:
    """Write a part as Vega-Lite, its data apart: altair would copy it whole, again and again."""
    spec: Spec = chart.to_dict(validate=False, context={"top_level": False, "datasets": datasets})
    return spec


def _cells(metric: str, shown: DifferenceMap, width: float) -> alt.LayerChart:
    known = shown.cells[metric].dropna()
    far = max(0.001, float(known.abs().max())) if len(known) else 1.0
    of, projections = METRICS[metric], tuple(shown.grid.projections)
    domain = (-far, far) if of.kind == "points" else (0.0, 1.0 if metric in _WHOLE else far)
    name = say(of.name)
    shape = marks.HeatMap(
        blocks=tuple(shown.grid.blocks),
        projections=projections,
        width=width,
        row=min(_ROW, _TALLEST / len(projections)),
        kind=of.kind,
        title=say("explorer.unit_percentage_points") if of.kind == "points" else say(of.layer_note),
        domain=domain,
        tips=(("tip", say("column.module")), ("label", name)),
        below=True,
        selectable=True,
        sizes=SCREEN,
    )
    chart = marks.heat_map(alt.NamedData(name="cells"), shape)
    looked, pointed = (alt.NamedData(name=name) for name in ("looked", "pointed"))
    chart.layer += [marks.outlined(looked, shape, INK), marks.outlined(pointed, shape, VERMILLION)]
    chart.title = alt.TitleParams(text=name, limit=width + _NAMES)
    return chart


def _tip(members: list[str]) -> str:
    if len(members) == 1:
        return clip(members[0], 200)
    first = clip(members[0], 160)
    return say("pair.map_cell_more", name=first, n=len(members) - 1)


def _map_words(name: str, cells: pd.DataFrame, metric: str) -> str:
    """Say where a figure is least and most."""
    known = records(cells[cells[metric].notna()].sort_values(metric, kind="stable"))
    if not known:
        return say("pair.map_alt_unknown", metric=name)
    low, high, kind = known[0], known[-1], METRICS[metric].kind
    return say(
        "pair.map_alt_range",
        metric=name,
        low=theme.write(low[metric], kind),
        low_block=low["block"],
        low_projection=low["projection"],
        high=theme.write(high[metric], kind),
        high_block=high["block"],
        high_projection=high["projection"],
    )
