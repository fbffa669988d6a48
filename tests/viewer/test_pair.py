"""The viewer of two checkpoints: its payload, read without the package, and its explorer."""

import json
import math
import subprocess
from dataclasses import replace

import hostile
import numpy as np
import pandas as pd
import pytest
from browser import node
from pairs import LOST, gone, two_policies
from payloads import decode

import sparsity_report as sr
from sparsity_report.viewer.embed import widget_module
from sparsity_report.viewer.study_payload import study_payload

METRICS = ("moved", "kept_share", "revived_share", "new_share", "relative_change", "iou")


@pytest.fixture(scope="module")
def pair(demo):
    """Two policies of one model; experts are gone, one module changed and one is unknown."""
    rows = [gone("expert", "model.experts", index, 4, 0, weights=9) for index in (1, 2)]
    pair = two_policies(demo, rows)
    matches = pair.matches.copy()
    moved = matches["module_name"] == "model.decoder.layers.1.fc2"
    matches.loc[moved, "relative_change"] = 0.125
    return replace(pair, matches=matches)


class Shown:
    """Figures as the viewer computes them: Σ amounts ÷ Σ sizes."""

    def __init__(self, pair):
        self.header, self.arrays = decode(study_payload(pair))
        self.names = self.header["modules"]["names"]
        self.metrics = {metric["key"]: metric for metric in self.header["metrics"]}
        self.is_prunable = self.arrays[self.header["prunable"]]

    def value(self, key, inside):
        """A figure of the modules for which `inside` is true; None if it is unknown."""
        metric = self.metrics[key]
        amounts, sizes = (self.arrays[metric[part]][inside] for part in ("amounts", "sizes"))
        value = math.fsum(amounts) / sizes.sum() if sizes.sum() else math.nan
        if math.isnan(value):
            return None
        return math.sqrt(value) if metric["root"] else value

    def among(self, names):
        return np.isin(self.names, list(names))


def same(found, expected):
    if pd.isna(expected):
        return found is None
    return found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_sums_are_those_of_the_table_of_zeros(pair):
    shown = Shown(pair)
    groups = np.array(shown.header["modules"]["groups"])
    for row in pair.survival.to_dict("records"):
        inside = shown.is_prunable == 1
        if not pd.isna(row["group"]):
            inside = inside & (groups == row["group"])
        for key in ("kept_share", "iou", "relative_change"):
            assert same(shown.value(key, inside), row[key]), (key, row["group"])
        for key in ("revived", "new"):
            assert same(shown.value(f"{key}_share", inside), row[key] / row["compared"])
        parts = {"bothZero": "kept", "onlyBefore": "revived", "onlyAfter": "new"}
        for part, column in {**parts, "neither": "surviving"}.items():
            assert shown.arrays[shown.header["overlap"][part]][inside].sum() == row[column]


def test_unknown_change_makes_sums_unknown(pair):
    rows, (name, other) = pair.matches.copy(), ("decoder.layers.0.fc1", "decoder.layers.0.fc2")
    unknown = rows["module_name"].str.endswith(name)
    rows.loc[unknown, "relative_change"] = None
    # Without any weight to change, the change is known.
    rows.loc[rows["module_name"].str.endswith(other), ["relative_change", "norm"]] = [None, 0]
    changed = replace(pair, matches=rows)
    shown = Shown(changed)
    assert shown.value("relative_change", shown.among(rows["module_name"][unknown])) is None
    assert pd.isna(changed.survival["relative_change"][0])
    assert shown.value("relative_change", shown.is_prunable == 1) is None
    rest = rows["module_name"][rows["prunable"] & ~unknown]
    known = replace(pair, matches=rows[~unknown]).survival["relative_change"][0]
    assert same(shown.value("relative_change", shown.among(rest)), known)
    rows.loc[unknown, "norm"] = None
    assert pd.isna(replace(pair, matches=rows).survival["relative_change"][0])
    shown = Shown(replace(pair, matches=rows))
    assert shown.value("relative_change", shown.is_prunable == 1) is None


def test_details_are_the_rows_of_the_matches(pair):
    shown = Shown(pair)
    rows = pair.matches.drop_duplicates("module_name").set_index("module_name")
    details = {label: (values, kind) for label, values, kind in shown.header["rows"]}
    columns = {
        "Weights before": "weight_before", "Weights in both": "compared", "Zeros kept": "kept",
        "Zeros revived": "revived", "New zeros": "new",
        "Weights changed, of those nonzero in both": "changed",
    }  # fmt: skip
    for label, column in columns.items():
        place, kind = details[label]
        assert kind == "count"
        expected = rows.loc[shown.names, column].astype(float)
        assert np.array_equal(shown.arrays[place], expected)
    texts, kind = details["Shape before"]
    assert kind == "text"
    for name, text in zip(shown.names, texts, strict=True):
        sizes = rows["shape_before"][name]
        assert text is None or [int(part) for part in text.split("×")] == list(sizes)


def test_removed_experts_are_named(pair):
    (row,) = Shown(pair).header["removed"]
    assert row == {
        "label": "Removed experts", "name": "block 0",
        "module": "model.experts", "among": 4, "gone": [1, 2],
    }  # fmt: skip
    assert Shown(replace(pair, removed=pair.removed.head(0))).header["removed"] == []


def test_first_detail_differs_most(pair):
    shown = Shown(pair)
    most = max(
        (name for name, prunable in zip(shown.names, shown.is_prunable, strict=True) if prunable),
        key=lambda name: abs(shown.value("moved", shown.among([name]))),
    )
    assert shown.header["start"]["detail"] == most
    assert shown.header["start"]["metric"] == "moved"


FC1 = "model.decoder.layers.0.fc1"
ANSWERS = """
import { readFileSync } from "node:fs";
const [, script, payload, chosen] = process.argv;
const { default: { Figures, open } } = await import(script);
const figures = new Figures(await open(readFileSync(payload)));
const value = (metric, members) => figures.value(figures.metric({ metric }), members);
const entries = (keys, of) => Object.fromEntries(keys.map((key) => [key, of(key)]));
const metrics = figures.metrics.map(({ key }) => key);
const all = (members) => entries(metrics, (metric) => value(metric, members));
const scopes = entries(figures.data.scopes, (name) => figures.scope(name, {}));
process.stdout.write(JSON.stringify([scopes, JSON.parse(chosen).map(all)]));
"""


@pytest.mark.tools
def test_script_shows_the_same_figures(pair, tmp_path):
    shown, rng = Shown(pair), np.random.default_rng(5)
    count = len(shown.names)
    chosen = [rng.permutation(count)[: rng.integers(1, count + 1)].tolist() for _ in range(60)]
    chosen += [[place] for place in range(count)] + [[]]
    (tmp_path / "viewer.mjs").write_text(widget_module(), encoding="utf-8")
    (tmp_path / "payload").write_bytes(study_payload(pair))
    line = [node(), "--input-type=module", "-e", ANSWERS, tmp_path / "viewer.mjs"]
    run = subprocess.run(
        [*line, tmp_path / "payload", json.dumps(chosen)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    scopes, values = json.loads(run.stdout)
    for members, figures in zip(chosen, values, strict=True):
        inside = np.isin(np.arange(count), members)
        for key, value in figures.items():
            assert same(value, shown.value(key, inside)), (key, members)
    groups = np.array(shown.header["modules"]["groups"])
    expected = {"all": groups == groups, "prunable": shown.is_prunable == 1}
    for name, members in scopes.items():
        assert members == np.flatnonzero(expected.get(name, groups == name)).tolist()


def by_hand(row, metric):
    """A figure of one layer, from the integers of its row."""
    stands, before = row["compared"], row["kept"] + row["revived"]
    gone = row["weight_before"] - stands
    return {
        "moved": lambda: (
            (gone + row["kept"] + row["new"] - row["zeros_before"]) / row["weight_before"]
        ),
        "kept_share": lambda: row["kept"] / before if before else None,
        "revived_share": lambda: row["revived"] / stands if stands else None,
        "new_share": lambda: row["new"] / stands if stands else None,
        "relative_change": lambda: row["relative_change"] if stands else None,
        "iou": lambda: row["kept"] / (before + row["new"]) if before + row["new"] else None,
    }[metric]()


@pytest.mark.parametrize("metric", METRICS)
def test_layers_and_chart_are_the_rows_of_the_matches(pair, metric):
    explorer = sr.explore(pair)
    explorer.select(metric=metric)
    rows = pair.matches[pair.matches["prunable"]].set_index("module_name")
    expected = {name: by_hand(row, metric) for name, row in rows.iterrows()}
    shown = explorer.layers().set_index("module_name")[metric]
    assert list(shown.index) == list(expected)
    for name, value in expected.items():
        assert shown[name] == pytest.approx(np.nan if value is None else value, nan_ok=True)
    known = [value for value in expected.values() if value is not None]
    assert max(map(abs, known)) > 0
    spec = explorer.chart.to_dict()
    (cells,) = [data for data in spec["datasets"].values() if "value" in data[0]]
    drawn = sorted(cell["value"] for cell in cells if cell["value"] is not None)
    assert drawn == pytest.approx(sorted(known))
    explorer.select(sort=f"-{metric}")
    values = explorer.layers()[metric]
    assert list(values.dropna()) == sorted(known, reverse=True)
    assert values.isna().sum() == values.tail(values.isna().sum()).isna().sum()


def test_search_scope_and_selection_choose_the_layers(pair):
    explorer = sr.explore(pair)
    explorer.select(search="0 FC")
    assert list(explorer.layers()["module_name"]) == [FC1, FC1.replace("fc1", "fc2")]
    explorer.select(search="", modules="mlp_linear")
    assert set(explorer.layers()["group"]) == {"mlp_linear"}
    explorer.select(modules="all")
    assert len(explorer.layers()) > pair.matches["prunable"].sum()
    explorer.select(selection=[LOST, FC1, FC1])
    assert explorer.state["selection"] == [LOST, FC1]
    assert explorer.state["detail"] == LOST  # as before
    assert set(explorer.layers()["module_name"]) == {LOST, FC1}
    explorer.select(selection=[FC1])
    assert explorer.state["detail"] == FC1


def test_values_of_a_study_of_levels_are_refused(pair):
    explorer = sr.explore(pair)
    before = explorer.state
    for name, value in (("metric", "total"), ("sparsity", 0.5), ("variant", "before")):
        with pytest.raises(sr.SparsityReportError, match=f"'{value}'|'{name}'.* use one of"):
            explorer.select(**{name: value})
    assert explorer.state == before
    with pytest.raises(sr.SparsityReportError, match="two checkpoints have no levels"):
        explorer.add()
    with pytest.raises(sr.SparsityReportError, match="take no weights="):
        sr.explore(pair, sr.load())


def test_without_blocks_and_with_hostile_names(pair):
    nowhere = pd.array([None] * len(pair.matches), dtype="Int64")
    names = dict(zip(pair.matches["module_name"], hostile.TEXTS.values(), strict=False))
    renamed = [f"{n}.{names.get(n, '')}" for n in pair.matches["module_name"]]
    flat = replace(pair, matches=pair.matches.assign(block=nowhere, module_name=renamed))
    header = Shown(flat).header
    assert set(header["modules"]["names"]) <= set(renamed)
    assert set(header["modules"]["blocks"]) == {None}
    explorer = sr.explore(flat)
    for name in explorer.layers()["module_name"]:
        explorer.select(detail=name)
    fields = json.dumps([*walk(explorer.chart.to_dict(), "field")])
    assert not any(text in fields for text in hostile.TEXTS.values())


def walk(part, key):
    for inner in part.values() if isinstance(part, dict) else part:
        if isinstance(inner, (dict, list)):
            yield from walk(inner, key)
    if isinstance(part, dict) and key in part:
        yield part[key]
