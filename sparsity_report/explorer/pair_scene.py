"""Picture of a pair's explorer: a map, the zeros of one layer, and strips of removed units."""

from functools import lru_cache
from typing import Any, NamedTuple

import altair as alt

from sparsity_report.draw import marks, pair_charts, theme
from sparsity_report.draw.heat_maps import extremes
from sparsity_report.draw.theme import SCREEN, Metric
from sparsity_report.draw.vega import unchecked
from sparsity_report.explorer.picture import Data, Spec, cell_rows, chart_spec, looked, map_cells
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import DifferenceMap, figure_map, strips
from sparsity_report.study.pairs.pair_frames import survival_of
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.pair_labels import strip_names, strip_title
from sparsity_report.words.sentences import say

ALL = "all"
METRICS = {
    "moved": Metric("pair.metric_zero_or_removed", "points", "pair.metric_zero_or_removed_note"),
    "kept_share": Metric("pair.metric_zeros_kept", "share", "pair.metric_zeros_kept_note"),
    "revived_share": Metric("pair.metric_zeros_revived", "share", "pair.metric_zeros_revived_note"),
    "new_share": Metric("pair.metric_new_zeros", "share", "pair.metric_new_zeros_note"),
    "relative_change": Metric(
        "pair.metric_relative_change", "share", "pair.metric_relative_change_note"
    ),
    "iou": Metric("pair.metric_zeros_iou", "share", "pair.metric_zeros_iou_note"),
}
# Shares with a scale from 0 to 1; other scales end at the largest value.
_FULL_SCALE = {"kept_share", "iou"}
# Page width from which the matrix is beside the map; the matrix; spaces and the right edge.
_WIDE, _MATRIX, _GAP, _BELOW, _EDGE = 900, 160, 40, 26, 16
# Widths of the longest name and of a letter.
_NAMES, _LETTER = 150, 6.2
_ROW, _TALLEST = 24, 480
_APART: Spec = {"scale": dict.fromkeys(("x", "y", "color"), "independent")}


class PairState(NamedTuple):
    """Traits of the explorer and the width of its picture."""

    metric: str
    group: str
    module: str
    width: int


class PairScene:
    """The picture of a pair as chart and data; another layer only changes the data."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.map = lru_cache(maxsize=16)(self._map)
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

    def _map(self, group: str) -> DifferenceMap | None:
        """Return the map of a group, or of all; None without layers in numbered blocks."""
        return figure_map(self.pair, None if group == ALL else group)

    def first(self, group: str) -> str:
        """Return the module that differs most, of those in the map if there are any."""
        if (shown := self.map(group)) is None:
            return next(iter(self.modules(group)), "")
        return shown.grid.members[int(shown.cells["moved"].abs().argmax())][0]

    def at(self, group: str, cell: int, module: str) -> str | None:
        """Return the module of a clicked cell: the one after `module` if that is in the cell."""
        shown = self.map(group)
        if shown is None or not 0 <= cell < len(shown.grid.members):
            return None
        members = shown.grid.members[cell]
        place = members.index(module) + 1 if module in members else 0
        return members[place % len(members)]

    def zeros(self, module: str) -> dict[str, Any]:
        """Return the counts of one module's zeros, as a row of ``pair.survival``."""
        rows = self._layers[self._layers["module_name"] == module]
        return survival_of(None, rows[rows["compared"] > 0])

    def axes(self, group: str) -> list[list[str]]:
        """Return the columns and the rows of the map."""
        shown = self.map(group)
        return [[], []] if shown is None else [shown.grid.blocks, shown.grid.projections]

    def _alt(self, state: PairState) -> str:
        """Return the alternative text of the picture."""
        zeros = self.zeros(state.module)
        texts = [pair_charts.strip_words(strip) for strip in self._strips]
        if (shown := self.map(state.group)) is not None:
            texts.insert(0, _map_text(shown, state.metric))
        text = clip(" ".join(texts), 1500)
        if not zeros["compared"]:
            return text
        return f"{pair_charts.overlap_words(zeros, clip(state.module, 80))} {text}"

    def _data(self, state: PairState) -> Data:
        """Return the cells of the map and the zeros of the layer in detail."""
        zeros, shown = self.zeros(state.module), self.map(state.group)
        data: Data = {"overlap": pair_charts.overlap_rows(zeros) if zeros["compared"] else []}
        if shown is None:
            return data
        values, kind = shown.cells[state.metric].tolist(), METRICS[state.metric].kind
        labels = [theme.write(value, kind) for value in values]
        tips = [_tip(members) for members in shown.grid.members]
        cells = cell_rows(shown.grid.cells, values, labels, tips)
        return data | {"cells": cells, "looked": looked(cells, shown.grid, state.module)}

    def picture(self, state: PairState) -> tuple[Spec, Data, str]:
        """Return the chart without its data, the data, and the alternative text."""
        return self._specs(state._replace(module="")), self._data(state), self._alt(state)

    def _name_width(self, group: str) -> float:
        """Return the room for names on the left."""
        names = [say("chart.overlap_nonzero_before"), *self.axes(group)[1]]
        names += [name for strip in self._strips for name in strip_names(strip)]
        return min(_NAMES, 10 + _LETTER * max(map(len, names)))

    @unchecked()
    def _spec(self, state: PairState) -> Spec:
        is_wide, shown = state.width >= _WIDE, self.map(state.group)
        names = self._name_width(state.group)
        plot = max(120, state.width - names - _EDGE)
        data: Spec = {"pointed": []}
        overlap = alt.NamedData(name="overlap")
        matrix = _part(pair_charts.overlap_mark(overlap, _MATRIX, SCREEN), data)
        parts: list[Spec] = [matrix | {"title": say("chart.overlap_title")}]
        if shown is not None:
            width = plot - (names + _MATRIX + _GAP if is_wide else 0)
            parts.insert(0, _part(_heat_map(state.metric, shown, width), data))
            if is_wide:
                parts = [{"hconcat": parts, "spacing": _GAP, "resolve": _APART}]
        for strip in self._strips:
            if (chart := pair_charts.strip_mark(strip, plot, SCREEN)) is not None:
                parts.append(_part(chart, data) | {"title": strip_title(strip)})
        # The same room for names keeps the plots below each other.
        config = theme.config(SCREEN) | {"padding": 2, "axisLeft": {"minExtent": names}}
        layout = {"vconcat": parts, "spacing": _BELOW, "resolve": _APART}
        return chart_spec(layout, state.width, config, data)


def _part(chart: alt.LayerChart, datasets: Spec) -> Spec:
    """Return a part as Vega-Lite; its inline data is added to `datasets`."""
    spec: Spec = chart.to_dict(validate=False, context={"top_level": False, "datasets": datasets})
    return spec


def _heat_map(metric: str, shown: DifferenceMap, width: float) -> alt.LayerChart:
    values = shown.cells[metric].dropna()
    far = max(0.001, float(values.abs().max())) if len(values) else 1.0
    meant, name = METRICS[metric], say(METRICS[metric].name)
    points = meant.kind == "points"
    shape = marks.HeatMap(
        blocks=tuple(shown.grid.blocks),
        projections=tuple(shown.grid.projections),
        width=width,
        row=min(_ROW, _TALLEST / len(shown.grid.projections)),
        kind=meant.kind,
        title=say("explorer.unit_percentage_points") if points else say(meant.note),
        domain=(-far, far) if points else (0.0, 1.0 if metric in _FULL_SCALE else far),
        tips=(("tip", say("column.module")), ("label", name)),
        below=True,
        selectable=True,
        sizes=SCREEN,
    )
    chart = map_cells(shape)
    chart.title = alt.TitleParams(text=name, limit=width + _NAMES)
    return chart


def _tip(members: list[str]) -> str:
    if len(members) == 1:
        return clip(members[0], 200)
    return say("pair.map_cell_more", name=clip(members[0], 160), n=len(members) - 1)


def _map_text(shown: DifferenceMap, metric: str) -> str:
    """Return the cells with the least and the greatest value as a sentence."""
    name, kind = say(METRICS[metric].name), METRICS[metric].kind
    if shown.cells[metric].isna().all():
        return say("pair.map_alt_unknown", metric=name)
    return say("pair.map_alt_range", metric=name, **extremes(shown.cells, metric, kind))
