"""Rows of the curve: bytes and FLOPs against sparsity, or quality against bytes."""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import pandas as pd

from sparsity_report.draw import tradeoff_chart
from sparsity_report.draw.marks import Rows
from sparsity_report.explorer.control_state import State
from sparsity_report.explorer.picture import CURVES, EVEN, Data
from sparsity_report.explorer.view import View
from sparsity_report.study.derived.policy_names import is_level_of
from sparsity_report.study.levels.levels import same_level
from sparsity_report.study.levels.tradeoff import Tradeoff, places
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.number_format import count
from sparsity_report.words.number_format import level as written
from sparsity_report.words.score_text import measure_name, score_text
from sparsity_report.words.sentences import say

# Distance from a mark at which a pull lands on it, as a share of the width.
_NEAR = 0.015
# Most marks in the alternative text.
_IN_TEXT = 8


class CostCurve:
    """Bytes and FLOPs of CSR against dense at every level of a policy."""

    def __init__(self, view: View) -> None:
        self.view = view

    @cached_property
    def top(self) -> float:
        """Greatest ratio of any selection: a sum of layers is no worse than one of them."""
        ratios: list[float] = []
        pairs = {"csr_bytes": "dense_bytes", "csr_flops_per_token": "flops_per_token"}
        for levels in self.view.policies.values():
            start = levels.frame([0])
            for sparse, dense in pairs.items():
                inside = start[start["prunable"] & (start[dense] > 0)]
                ratios += (inside[sparse] / inside[dense]).dropna().astype(float).tolist()
        most = max(ratios, default=0.0)
        model = self.view.study.facts.levels
        highest = 0.0 if model is None else float(model[list(CURVES)].max(skipna=True).max())
        # One tiny layer does not make all others flat.
        return max(1.0, min(most, 2 * highest)) if highest > 0 else 0.0

    def rows(self, state: State) -> Data:
        """Return bytes and FLOPs as CSR ÷ dense, and the place of the state."""
        levels = self.view.curve(state)
        if levels is None or not self.top:
            return {}
        curve: Rows = [
            {"sparsity": share, "value": value, "line": say(line)}
            for column, line in CURVES.items()
            for share, value in levels[["sparsity_prunable", column]].dropna().to_numpy().tolist()
        ]
        if curve:
            curve += [{"sparsity": end, "value": 1.0, "line": say(EVEN)} for end in (0.0, 1.0)]
        even: Rows = []
        if curve and (share := self.view.break_even(state.selection)) is not None:
            label = say("explorer.break_even", share=share)
            even = [{"sparsity": share, "value": 1.0, "label": label}]
        pulls = _bands(levels, "sparsity_prunable", 1.0) if curve else []
        return {"curve": curve, "even": even, "level": self._level(state), "pulls": pulls}

    def _level(self, state: State) -> Rows:
        """Return the point of a level, or the rule of a variant at its sparsity."""
        row = self.view.sums(state)
        share, value = row["sparsity_prunable"], row["bytes_ratio"]
        if pd.isna(share) or (state.live and pd.isna(value)):
            return []
        label = say("format.sparsity_times", sparsity=share, value=value)
        if not state.live:
            name = clip(short_name(state.variant), 24)
            label = say("format.name_percent_share", name=name, share=share)
        place = {"sparsity": share, "value": value if state.live else None, "top": 1.04 * self.top}
        return [place | {"label": label}]

    def note(self, state: State) -> str:
        """Return the line under the title."""
        unpacked = self.view.study.facts.unpacked_dtypes(self.view.variants[0])
        if state.selection:
            keys = ("explorer.cost_note_selection", "explorer.cost_note_selection_unpacked")
            return say(keys[bool(unpacked)], n=count(len(state.selection)))
        keys = ("explorer.cost_note_model", "explorer.cost_note_model_unpacked")
        return say(keys[bool(unpacked)])

    def alt(self) -> str:
        """Return the alternative text."""
        return say("explorer.cost_curve_alt")


class QualityCurve:
    """Quality against bytes of measured variants of the model; levels have bytes only."""

    def __init__(self, view: View, tradeoff: Tradeoff, shape: tradeoff_chart.TradeoffShape) -> None:
        self.view, self.tradeoff, self.shape = view, tradeoff, shape
        self._lines, self._points = tradeoff_chart.tradeoff_rows(view.study)
        self._levels = lru_cache(maxsize=None)(self._at_levels)
        self._stops = lru_cache(maxsize=8)(self._pulls)

    def rows(self, state: State) -> Data:
        """Return the lines, the marks, and the place of the state."""
        (place, *_) = level = self._level(state) or [{}]
        points = [{**row, "on": row["id"] == place.get("on")} for row in self._points]
        rows = {"curve": self._lines, "points": points, "level": level if place else []}
        return rows | {"pulls": self._stops(state.policy)}

    def variant(self, at: str) -> str | None:
        """Return the first variant of a mark."""
        points = self.tradeoff.points
        return points[int(at)].variants[0] if at.isdigit() and int(at) < len(points) else None

    @property
    def _measure(self) -> str:
        return measure_name(self.tradeoff)

    def _level(self, state: State) -> Rows:
        size, on, name, at = self._standing(state)
        if size is None:
            return []
        where = say("format.name_size", name=name, size=tradeoff_chart.place_text(size))
        score = say("explorer.not_measured")
        if on is not None:
            text = score_text(self.tradeoff, self.tradeoff.points[on])
            score = say("format.name_size", name=self._measure, size=text)
        tip = self._tip(state.policy, state.sparsity) if state.live else f"{where} · {score}"
        mark = None if on is None else str(on)
        row = {"bytes": size, "on": mark, "at": at, "open": on is None, "tip": tip}
        left = size > 0.5 * self.shape.most
        return [row | {"left": left, "label": f"{where}\n{score}"}]

    def _standing(self, state: State) -> tuple[int | None, int | None, str, str | float]:
        """Return bytes and measured point of the state, its name and its place on the curve."""
        if not state.live:
            points = enumerate(self.tradeoff.points)
            on = next((k for k, point in points if state.variant in point.variants), None)
            place = places(self.view.study.facts).get(state.variant)
            name = clip(short_name(state.variant), 24)
            return place and place.bytes, on, name, "" if on is None else str(on)
        row, on = self._at(state.policy, state.sparsity)
        return int(row["bytes"]), on, written(state.sparsity), state.sparsity

    def _of_policy(self, policy: str) -> list[int]:
        """Return the points at levels of a policy."""
        source = self.view.study.variants["fingerprint"].iloc[0]
        places = enumerate(point.place for point in self.tradeoff.points)
        return [k for k, p in places if p.source == source and is_level_of(p.method, policy)]

    def _at_levels(self, policy: str) -> pd.DataFrame:
        """Return the bytes and the sparsity of every level of a policy."""
        levels = self.view.study.by_policy[policy]
        return levels.smallest.assign(sparsity_prunable=levels.model["sparsity_prunable"])

    def _pulls(self, policy: str) -> Rows:
        """Return bands of x for the pointer: those of levels, and over them those of marks."""
        if policy not in self.view.policies:
            return []
        levels, most = self._levels(policy), self.shape.most
        rows = _bands(levels.iloc[::-1], "bytes", most, last=True)
        for row in rows:
            row["tip"] = self._tip(policy, row["id"])
        for k in self._of_policy(policy):
            row, away = self._points[k], _NEAR * most
            tip = say("format.name_size", name=row["variant"], size=row["label"])
            ends = {"from": row["bytes"] - away, "to": min(row["bytes"] + away, most)}
            rows.append({"kind": "pull", "id": str(k), **ends, "tip": tip})
        return rows

    def _tip(self, policy: str, level: float) -> str:
        row, on = self._at(policy, level)
        text = tradeoff_chart.place_text(int(row["bytes"]))
        words = {"level": level, "size": text, "layout": layout_name(str(row["layout"]))}
        if on is None:
            return say("explorer.level_tip_unmeasured", **words)
        name = self._points[on]["variant"]
        return say("explorer.level_tip_measured", name=name, **words)

    def _at(self, policy: str, level: float) -> tuple[pd.Series[Any], int | None]:
        """Return the row of a level, and the point measured there."""
        levels = self._levels(policy)
        row = levels[levels["sparsity"] == level].iloc[0]
        # No variant was pruned within bounds.
        known = [] if self.view.bounded else self._of_policy(policy)
        places = {k: self.tradeoff.points[k].place.sparsity for k in known}
        share = row["sparsity_prunable"]
        return row, next((k for k, known in places.items() if same_level(known, share)), None)

    def note(self, state: State) -> str:
        """Return the line under the title."""
        del state
        note = say("explorer.quality_note", of=clip(self.tradeoff.subject, 40))
        if self.tradeoff.left_out:
            names = [short_name(name) for name in self.tradeoff.left_out]
            note += " · " + say("chart.omitted_points_note", names=names)
        return note

    def alt(self) -> str:
        """Return the alternative text."""
        rows = [say("explorer.quality_point_alt", **row) for row in self._points[:_IN_TEXT]]
        return say("explorer.quality_curve_alt", measure=self._measure, rows=rows)

    def legend(self) -> int:
        """Return the number of lines in the legend."""
        return 0 if len(self.shape.lines) < 2 else min(tradeoff_chart.NAMED, len(self.shape.lines))


def _bands(levels: pd.DataFrame, column: str, end: float, *, last: bool = False) -> Rows:
    """Return the part of x that is nearest to each level, from 0 to the end.

    Of levels at one place, the first one has it, or the last one.
    """
    known = levels[["sparsity", column]].dropna()
    known = known.drop_duplicates(column, keep="last" if last else "first")
    places = known[column].astype(float).tolist()
    middles = [0.0, *((a + b) / 2 for a, b in pairwise(places)), end]
    return [
        {"kind": "pull", "id": level, "from": low, "to": high, "tip": written(level)}
        for level, (low, high) in zip(known["sparsity"].tolist(), pairwise(middles), strict=True)
    ]
