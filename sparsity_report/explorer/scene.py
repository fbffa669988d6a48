"""What the explorer shows of a study in a given state: frames and plain values, no widgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.counting.policies import prunable_counts
from sparsity_report.draw import charts
from sparsity_report.errors import printable
from sparsity_report.explorer import picture as panels
from sparsity_report.explorer.picture import LIVE, METRICS, OUTSIDE, Data, Floats, Look
from sparsity_report.findings.summary import baseline
from sparsity_report.sparse.cost import bitmask_bytes, csr_bytes, dense_bytes, value_bytes
from sparsity_report.study.layers import records
from sparsity_report.study.levels import Levels, thresholds
from sparsity_report.study.patterns import expected_sparsity
from sparsity_report.study.study import Comparison
from sparsity_report.words.numbers import count, percent_text, scaled_text, times

SORTS = ("model order", "largest first", "smallest first")
GROUPINGS = ("group", "projection", "block")
_MASKED, _CSR = 1, 2


class State(NamedTuple):
    """What the controls say."""

    variant: str
    sparsity: float
    metric: str
    modules: str
    grouping: str
    sort: str
    log: bool
    selection: tuple[str, ...]
    detail: str | None
    width: int


class _Map(NamedTuple):
    """Where the modules of a variant stand in the heat map."""

    inside: npt.NDArray[np.bool_]
    codes: npt.NDArray[np.intp]
    places: list[tuple[str, str]]
    tips: list[str]
    keys: dict[str, list[str]]


class Scene:
    """A study prepared for looking: what depends on no control is computed once."""

    def __init__(self, study: Comparison) -> None:
        self.study = study
        self.levels: Levels | None = study.by_level
        self.variants: list[str] = list(study.variants["variant"])
        self.names: list[str] = list(dict.fromkeys(study.layers["module_name"]))
        self._own = {
            str(name): _with_dense(own.reset_index(drop=True))
            for name, own in study.layers.groupby("variant", sort=False)
        }
        self._maps: dict[tuple[str, str], _Map] = {}
        self._live: dict[tuple[str, float], pd.DataFrame] = {}

    def scopes(self) -> list[str]:
        """Return what the view can be narrowed to."""
        layers = self.study.layers
        some = ["prunable"] if layers["prunable"].any() else []
        return [*some, "all", *dict.fromkeys(layers["group"])]

    def frame(self, variant: str, sparsity: float) -> pd.DataFrame:
        """Return every layer of a variant, or at the level, with ``dense_bytes``."""
        if variant in self._own:
            return self._own[variant]
        if (variant, sparsity) not in self._live:
            at = self.at(sparsity)
            masked = at.assign(stored_bytes=at["dense_bytes"])
            sparse = at["flops_per_token"].where(~at["prunable"], at["useful_flops_per_token"])
            made = at.assign(stored_bytes=at["csr_bytes"], flops_per_token=sparse)
            self._live |= {(LIVE[_MASKED], sparsity): masked, (LIVE[_CSR], sparsity): made}
        return self._live[variant, sparsity]

    def at(self, sparsity: float) -> pd.DataFrame:
        """Return every layer of the first variant's model at a level."""
        assert self.levels is not None
        if ("", sparsity) not in self._live:
            # The level before is not asked for again; what nothing is pruned from is.
            self._live = {key: own for key, own in self._live.items() if key[1] == 0}
            self._live["", sparsity] = self.levels.at(sparsity)
        return self._live["", sparsity]

    def model(self, variant: str) -> str:
        """Return the variant whose rows stand for a shown one: at a level, the first."""
        return variant if variant in self._own else self.variants[0]

    def layers(self, state: State) -> pd.DataFrame:
        """Return the selected layers of the shown variant, else all in view, as sorted."""
        frame = self.frame(state.variant, state.sparsity)
        keep = _in_scope(frame, state.modules)
        if state.selection:
            keep = frame["module_name"].isin(state.selection)
        own = frame[keep]
        if state.sort == SORTS[0]:
            return own.reset_index(drop=True)
        by = _each(own, state.metric)
        order = by.sort_values(ascending=state.sort == SORTS[2], kind="stable", na_position="last")
        return own.loc[order.index].reset_index(drop=True)

    def members(self, state: State, kind: str, place: int) -> list[str]:
        """Return the names behind a cell of the map or a group of bars."""
        here = self._map(self.model(state.variant), state.modules)
        names = self._own[self.model(state.variant)]["module_name"].to_numpy()
        if kind == "cell":
            return list(names[here.inside][here.codes == place])
        bars = self._bar_names(state)
        wanted = bars[place] if place < len(bars) else None
        return [
            str(name)
            for name, key in zip(names[here.inside], here.keys[state.grouping], strict=True)
            if key == wanted
        ]

    def brushed(self, state: State, blocks: Sequence[str], projections: Sequence[str]) -> list[str]:
        """Return the names behind the cells of a brush."""
        here = self._map(self.model(state.variant), state.modules)
        names = self._own[self.model(state.variant)]["module_name"].to_numpy()[here.inside]
        hit = [b in blocks and p in projections for b, p in here.places]
        return list(names[np.array(hit, dtype=bool)[here.codes]]) if hit else []

    def look_and_data(self, state: State) -> tuple[Look, Data]:
        """Return how the picture is built and what it shows."""
        here = self._map(self.model(state.variant), state.modules)
        frame = self.frame(state.variant, state.sparsity)[here.inside]
        live = state.variant not in self._own
        of = panels.sums(frame, here.codes, len(here.places))
        found = panels.values(of, state.metric, weights=True)
        bars, data_bars, longest, looks = self._bars(state, live)
        rows = list(dict.fromkeys(block for block, _ in here.places))
        rows.sort(key=lambda block: -1 if block == OUTSIDE else int(block))
        curve = 0.0
        if self.levels is not None:
            curve = max(1.0, float(self._ratios[:, 1].max()), float(self._ratios[:, 2].max()))
        ends = found
        if live and METRICS[state.metric].kind == "number":
            ends = panels.values(
                panels.sums(self.frame(state.variant, 0.0)[here.inside], here.codes, found.size),
                state.metric,
            )
        look = Look(
            width=state.width,
            metric=state.metric,
            log=state.log,
            rows=tuple(rows),
            columns=tuple(dict.fromkeys(projection for _, projection in here.places)),
            shades=panels.shades(ends, state.metric, log=state.log, fixed=live),
            bars=tuple(bars),
            variants=tuple(looks),
            longest=longest,
            curve=curve,
            histogram=bool(self.counts),
            said=self._said(state, found, here),
        )
        chosen = np.isin(frame["module_name"].to_numpy(), list(state.selection))
        on = np.ones(len(here.places), dtype=bool)
        if state.selection:
            on = np.bincount(here.codes[chosen], minlength=len(here.places)) > 0
        data: Data = {
            "cells": panels.cell_rows(found, here.places, here.tips, on, look),
            "bars": data_bars,
            "notes": self._notes(state, live),
        }
        if look.curve:
            data |= self._curve(state.sparsity)
        if look.histogram:
            seen = self._magnitudes(state)
            both = panels.histogram_rows(seen, self.threshold(state)) if seen else ([], [])
            data["magnitudes"], data["threshold"] = both
        return look, data

    def cards(self, sparsity: float) -> tuple[list[dict[str, str]], str]:
        """Return what a level means for the model in large numbers, and how sure they are."""
        if self.levels is None:
            return [], ""
        at = self.at(sparsity)
        prunable = at[at["prunable"]]
        total, left = (int(prunable[f"weight_{part}"].sum()) for part in ("total", "nonzero"))
        everything, nonzero = at["total"].sum(), at["nonzero"].sum(skipna=False)
        dense, sparse = at["dense_bytes"].sum(skipna=False), at["csr_bytes"].sum(skipna=False)
        flops = at["flops_per_token"].sum(skipna=False)
        fewer = self.frame(LIVE[_CSR], sparsity)["flops_per_token"].sum(skipna=False)
        share = None if pd.isna(nonzero) else 1 - nonzero / everything
        even = self.study.facts.break_even(self.study.facts.baseline)
        pays = "CSR never pays" if even is None else f"pays from {percent_text(even, 0)}"
        cards = [
            ("Zeros of the prunable weights", percent_text(1 - left / total),
             f"{scaled_text(total - left, '')} of {scaled_text(total, '')}"),
            ("Zeros of the whole model", percent_text(share), f"of {scaled_text(everything, '')}"),
            ("Bytes as CSR", times(sparse / dense) if dense else "–",
             f"{scaled_text(sparse, 'B')} against {scaled_text(dense, 'B')}; {pays}"),
            ("FLOPs per token as CSR", times(fewer / flops) if flops else "–",
             f"{scaled_text(fewer, '')} against {scaled_text(flops, '')}, on paper"),
        ]  # fmt: skip
        slack = int(at["uncertainty"].max())
        note = ""
        if slack:
            widest = (at["uncertainty"] / at["weight_total"].where(at["weight_total"] > 0)).max()
            note = (
                "The number pruned in all is exact; how it spreads over layers is interpolated, "
                f"to within {count(slack)} weights of a layer, {percent_text(widest, 2)} at most. "
                "A variant is exact."
            )
        keys = ("title", "number", "note")
        return [dict(zip(keys, card, strict=True)) for card in cards], note

    def table(self, state: State, limit: int) -> dict[str, Any]:
        """Return what the table of layers shows."""
        own = self.layers(state)
        places = {name: place for place, name in enumerate(self.names)}
        total, left = own["weight_total"].sum(), own["weight_nonzero"].sum(skipna=False)
        shown = f"{printable(state.variant, 40)}"
        if state.variant not in self._own:
            shown = f"CSR at {percent_text(state.sparsity, 0)}"
            if state.variant == LIVE[_MASKED]:
                shown = f"Masked at {percent_text(state.sparsity, 0)}"
        what = "selected" if state.selection else "in view"
        plural = "layer" if len(own) == 1 else "layers"
        zeros = percent_text(None if pd.isna(left) or not total else 1 - left / total)
        more = len(own) - limit
        return {
            "caption": f"{count(len(own))} {plural} {what} · {shown} · "
            f"{scaled_text(total, '')} weights, {zeros} zeros",
            "metric": state.metric,
            "rows": [
                row
                | {
                    "place": places[row["module_name"]],
                    "share": _share(row),
                    "ratio": _ratio(row["stored_bytes"], row["dense_bytes"]),
                    "detail": row["module_name"] == state.detail,
                }
                for row in records(own.head(limit))
            ],
            "more": f"{count(more)} more: explorer.layers() has them all." if more > 0 else "",
        }

    def detail(self, state: State) -> dict[str, Any] | None:
        """Return what is known of one layer."""
        frame = self.frame(state.variant, state.sparsity)
        own = frame[frame["module_name"] == state.detail]
        if own.empty:
            return None
        (row,) = records(own)
        total, nonzero = row["weight_total"], row["weight_nonzero"]
        facts = [
            ("Zeros", percent_text(_share(row)), f"{count(_less(total, nonzero))} of "
             f"{count(total)} weights"),
        ]  # fmt: skip
        note = ""
        threshold, seen = self.threshold(state), self._magnitudes(state)
        expected = self._expected(state, threshold, seen)
        if expected is not None:
            facts.append(
                ("Expected", percent_text(expected), "for a Gaussian of the layer's own spread")
            )
        facts.append(
            ("FLOPs per token", scaled_text(row["flops_per_token"], ""),
             f"{scaled_text(row['useful_flops_per_token'], '')} on nonzeros")
        )  # fmt: skip
        if threshold is not None and row["prunable"]:
            facts.append(("Threshold", f"{threshold:.4g}", "magnitudes up to it are pruned"))
        if not seen:
            note = self._why_no_histogram(bool(row["prunable"]))
        variants = [
            one | {"share": _share(one), "shown": variant == state.variant}
            for variant, rows in self._own.items()
            for one in records(rows[rows["module_name"] == state.detail])
        ]
        return {
            "row": row,
            "facts": facts,
            "variants": variants,
            "layouts": _layouts(row),
            "latency": self._latency(row),
            "note": note,
        }

    def threshold(self, state: State) -> float | None:
        """Return the magnitude up to which the shown variant, or the level, prunes."""
        if state.variant in self._own:
            cut = self.study.variants.set_index("variant")["threshold"][state.variant]
            return None if pd.isna(cut) else float(cut)
        if not self.counts or self.levels is None:
            return None
        at = int(np.argmin(np.abs(np.array(self.levels.sparsities) - state.sparsity)))
        return self._thresholds[at]

    def first_detail(self, state: State) -> str | None:
        """Return the layer to look at first: the one with the largest share of zeros."""
        own = self.layers(state)
        if own.empty:
            return None
        share = _each(own, "sparsity").fillna(-1).to_numpy()
        return str(own["module_name"].iloc[int(share.argmax())])

    @cached_property
    def counts(self) -> dict[str, Magnitudes]:
        """Magnitudes per prunable module of the first variant; empty without its weights."""
        weights = self.study.weights
        if weights is None or self.levels is None:
            return {}
        counted, found = prunable_counts(weights), {}
        for module in weights.modules:
            own = [counted[p.name] for p in module.parameters if p.name in counted]
            if own:
                found[module.name] = sum(own[1:], own[0])
        return found

    @cached_property
    def _thresholds(self) -> list[float | None]:
        assert self.study.weights is not None
        assert self.levels is not None
        return thresholds(self.study.weights, self.levels.sparsities)

    @cached_property
    def _ratios(self) -> Floats:
        """Per level: sparsity, bytes and FLOPs of the prunable layers as CSR ÷ dense."""
        assert self.levels is not None
        totals = self.levels.totals
        return np.column_stack(
            [
                totals["sparsity"].to_numpy(dtype=float),
                totals["csr_bytes"].to_numpy(dtype=float) / max(1, self.levels.dense_bytes),
                totals["useful_flops_per_token"].to_numpy(dtype=float)
                / max(1, self.levels.dense_flops),
            ]
        )

    def _map(self, variant: str, modules: str) -> _Map:
        if (variant, modules) not in self._maps:
            frame = self._own[variant]
            inside = _in_scope(frame, modules).to_numpy()
            own = frame[inside]
            grid = charts.grid(own)
            blocks = [OUTSIDE if pd.isna(block) else str(block) for block in grid["block"]]
            pairs = list(zip(blocks, grid["projection"], strict=True))
            order = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
            members: dict[tuple[str, str], list[str]] = {pair: [] for pair in order}
            for pair, name in zip(pairs, own["module_name"], strict=True):
                members[pair].append(name)
            self._maps[variant, modules] = _Map(
                inside,
                np.array([order[pair] for pair in pairs], dtype=np.intp),
                list(order),
                [
                    printable(names[0], 90)
                    + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                    for names in members.values()
                ],
                {
                    "group": [charts.group_name(str(group)) for group in own["group"]],
                    "projection": list(grid["projection"]),
                    "block": _thinned(blocks),
                },
            )
        return self._maps[variant, modules]

    def _compared(self, live: bool) -> list[str]:
        """Return the variants whose bars stand side by side."""
        return [baseline(self.study), *LIVE[1:]] if live else self.variants

    def _bar_sums(self, state: State, variant: str, sparsity: float) -> tuple[list[str], Floats]:
        here = self._map(self.model(variant), state.modules)
        keys = here.keys[state.grouping]
        order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        codes = np.array([order[key] for key in keys], dtype=np.intp)
        of = panels.sums(self.frame(variant, sparsity)[here.inside], codes, len(order))
        return list(order), panels.values(of, state.metric)

    def _bar_names(self, state: State) -> list[str]:
        """Return the bars' names in their order."""
        live = state.variant not in self._own
        found = [self._bar_sums(state, variant, state.sparsity) for variant in self._compared(live)]
        names = list(dict.fromkeys(name for own, _ in found for name in own))
        if state.sort == SORTS[0]:
            return names
        main, values = self._bar_sums(state, state.variant, state.sparsity)
        known = {n: v for n, v in zip(main, values.tolist(), strict=True) if np.isfinite(v)}
        down = state.sort == SORTS[1]
        return sorted(
            names, key=lambda n: (n not in known, -known.get(n, 0) if down else known.get(n, 0))
        )

    def _bars(
        self, state: State, live: bool
    ) -> tuple[list[str], list[dict[str, Any]], float, list[tuple[str, str, str]]]:
        compared = self._compared(live)
        names = self._bar_names(state)
        place = {name: number for number, name in enumerate(names)}
        shown = dict(zip(compared, charts.distinct_names(compared), strict=True))
        main = self._map(self.model(state.variant), state.modules)
        own = self._own[self.model(state.variant)]["module_name"].to_numpy()[main.inside]
        keys = np.array(main.keys[state.grouping], dtype=object)
        lit = set(keys[np.isin(own, list(state.selection))]) if state.selection else set(names)
        kind = METRICS[state.metric].kind
        rows, longest = [], 0.0
        for variant in compared:
            found, values = self._bar_sums(state, variant, state.sparsity)
            for name, value in zip(found, values.tolist(), strict=True):
                known = bool(np.isfinite(value))
                rows.append(
                    {
                        "kind": "bar",
                        "id": place[name],
                        "group": name,
                        "variant": shown[variant],
                        "value": value if known else None,
                        "at": value if known else 0.0,
                        "label": panels.write(value, state.metric) if known else "–",
                        "on": name in lit,
                    }
                )
            reach = self._bar_sums(state, variant, 0.0)[1] if live else values
            longest = max(longest, float(np.nanmax(reach, initial=0.0)))
        if kind == "share":
            longest = 1.0 if live else max(longest, 0.1)
        return names, rows, longest or 1.0, self._palette(compared, shown, live)

    def _palette(
        self, compared: list[str], shown: dict[str, str], live: bool
    ) -> list[tuple[str, str, str]]:
        if live:
            inks = charts.layout_inks()
            return [
                (shown[variant], *inks[layout])
                for variant, layout in zip(compared, ("dense", "masked", "csr"), strict=True)
            ]
        inks = charts.palette(self.study)
        return [(shown[variant], *inks[variant]) for variant in compared]

    def _curve(self, sparsity: float) -> Data:
        assert self.levels is not None
        lines = ("bytes of CSR", "FLOPs of CSR")
        curve = [
            {"sparsity": row[0], "ratio": row[1 + column], "line": line}
            for column, line in enumerate(lines)
            for row in self._ratios.tolist()
        ]
        curve += [{"sparsity": end, "ratio": 1.0, "line": "dense"} for end in (0.0, 1.0)]
        even = self.study.facts.break_even(self.study.facts.baseline)
        pays = []
        if even is not None:
            pays = [{"sparsity": even, "ratio": 1.0, "label": f"pays from {100 * even:.0f} %"}]
        at = int(np.argmin(np.abs(self._ratios[:, 0] - sparsity)))
        ratio = float(self._ratios[at, 1])
        here = {"sparsity": sparsity, "ratio": ratio,
                "label": f"{100 * sparsity:.0f} %: {ratio:.2f} ×"}  # fmt: skip
        return {"curve": curve, "even": pays, "here": [here]}

    def _notes(self, state: State, live: bool) -> list[dict[str, Any]]:
        level = f"{100 * state.sparsity:.0f} %"
        shown = printable(state.variant, 40)
        if live:
            shown = f"Masked at {level}" if state.variant == LIVE[_MASKED] else f"CSR at {level}"
        note = METRICS[state.metric].note
        name = printable(state.detail or "none", 48)
        bars = "zeros ÷ parameters, biases included" if state.metric == "sparsity" else note
        return [
            {"panel": "cells", "text": f"{shown} · {note}"},
            {"panel": "bars", "text": f"{'at ' + level + ' · ' if live else ''}{bars}"},
            {"panel": "curve", "text": "prunable layers at every level"},
            {"panel": "histogram", "text": f"{name}, before pruning"},
        ]

    def _said(self, state: State, found: Floats, here: _Map) -> str:
        blocks = len({block for block, _ in here.places} - {OUTSIDE})
        known = found[np.isfinite(found)]
        span = "unknown values"
        if known.size:
            ends = (panels.write(float(end), state.metric) for end in (known.min(), known.max()))
            span = " to ".join(ends)
        live = state.variant not in self._own
        shown = "a level" if live else printable(state.variant, 40)
        return (
            f"{METRICS[state.metric].title} of {shown}"
            f": heat map of {blocks} blocks by {len({p for _, p in here.places})} projections"
            f"{'' if live else ', from ' + span}; bars per {state.grouping}; bytes and FLOPs of "
            "CSR against dense at every level; histogram of one layer's magnitudes."
        )

    def _magnitudes(self, state: State) -> Magnitudes | None:
        prints = self.study.variants.set_index("variant")["fingerprint"]
        if prints[self.model(state.variant)] != prints.iloc[0]:
            return None
        return self.counts.get(state.detail or "")

    def _expected(
        self, state: State, threshold: float | None, seen: Magnitudes | None
    ) -> float | None:
        if seen is not None and threshold is not None and seen.counts.sum():
            return expected_sparsity(threshold, panels.spread(seen))
        frame = self.study.patterns
        if frame is None or state.variant not in self._own:
            return None
        own = frame[(frame["variant"] == state.variant) & (frame["module_name"] == state.detail)]
        mean = own["expected_sparsity"].mean()
        return None if pd.isna(mean) else float(mean)

    def _why_no_histogram(self, prunable: bool) -> str:
        if not prunable:
            return "Magnitudes are counted for prunable weights only."
        if self.study.weights is None:
            return (
                "For the histogram: sr.explore(study, weights=sr.load(…)); a file has no weights."
            )
        return "No histogram: the values of these weights are not at hand."

    def _latency(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what was measured of layers of this shape, out × in."""
        frame = self.study.latency
        if frame is None or pd.isna(row["row_pointers"]):
            return []
        columns = row["columns"]
        rows = row["row_pointers"] - 1 if len(row["shape"]) == 2 else math.prod(row["shape"][1:])
        if len(row["shape"]) == 3:
            rows //= columns
        own = (frame["scope"] == "layer") & (frame["name"] == f"{rows} × {columns}")
        return records(frame[own])


def _with_dense(own: pd.DataFrame) -> pd.DataFrame:
    sizes = [value_bytes(dtype) for dtype in own["dtype"]]
    return own.assign(dense_bytes=own["total"] * sizes)


def _in_scope(frame: pd.DataFrame, modules: str) -> pd.Series[bool]:
    if modules == "all":
        return pd.Series(True, index=frame.index)
    return frame["prunable"] if modules == "prunable" else frame["group"] == modules


def _each(own: pd.DataFrame, metric: str) -> pd.Series[float]:
    of = panels.sums(own, np.arange(len(own), dtype=np.intp), len(own))
    return pd.Series(panels.values(of, metric, weights=True), index=own.index)


def _share(row: dict[str, Any]) -> float | None:
    total, nonzero = row["weight_total"], row["weight_nonzero"]
    return None if pd.isna(nonzero) or not total else 1 - nonzero / total


def _ratio(number: Any, of: Any) -> float | None:
    return None if pd.isna(number) or pd.isna(of) or not of else number / of


def _less(total: Any, nonzero: Any) -> Any:
    return None if pd.isna(nonzero) else total - nonzero


def _thinned(blocks: list[str]) -> list[str]:
    """Merge neighbouring blocks to at most 32, for bars."""
    numbers = sorted({int(block) for block in blocks if block != OUTSIDE})
    step = 1 + (len(numbers) - 1) // 32 if numbers else 1
    if step == 1:
        return blocks
    name: dict[str, str] = {}
    for start in range(0, len(numbers), step):
        part = numbers[start : start + step]
        name |= dict.fromkeys(map(str, part), f"{part[0]}–{part[-1]}")
    return [name.get(block, block) for block in blocks]


def _layouts(row: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Return bytes of a matrix in each layout, from integers."""
    nonzero, total = row["weight_nonzero"], row["weight_total"]
    if pd.isna(nonzero) or pd.isna(row["row_pointers"]) or not row["prunable"] or not total:
        return []
    v, n, pointers = value_bytes(row["dtype"]), int(nonzero), int(row["row_pointers"])
    dense = dense_bytes(total, v)
    sizes = {
        "dense": dense,
        "CSR, int32 indices": csr_bytes(n, pointers - 1, v, 4),
        "CSR, int64 indices": csr_bytes(n, pointers - 1, v, 8),
        "bitmask": bitmask_bytes(total, n, v),
    }
    return [(name, size, size / dense) for name, size in sizes.items()]
