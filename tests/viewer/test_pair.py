"""The viewer of a pair: its payload, read without the package, and its explorer."""

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
from sparsity_report.study.pairs.pair_cells import difference_map
from sparsity_report.study.pairs.pair_frames import survival_of
from sparsity_report.viewer.module import script
from sparsity_report.viewer.pair_explorer import PairExplorer
from sparsity_report.viewer.pair_payload import FIGURES, pair_payload

import sparsity_report as sr


@pytest.fixture(scope="module")
def pair(demo):
    """Two policies of one model; experts are gone, one module changed and one is unknown."""
    rows = [gone("expert", "model.experts", index, 4, 0, weights=9) for index in (1, 2)]
    pair = two_policies(demo, rows)
    layers = pair.layers.copy()
    moved = layers["module_name"] == "model.decoder.layers.1.fc2"
    layers.loc[moved, "relative_change"] = 0.125
    return replace(pair, layers=layers)


class Shown:
    """Figures as the viewer computes them: Σ amounts ÷ Σ sizes."""

    def __init__(self, pair):
        self.header, self.arrays = decode(pair_payload(pair))
        self.names = self.header["modules"]["names"]
        self.figures = {figure["key"]: figure for figure in self.header["figures"]}
        self.is_prunable = self.arrays[self.header["prunable"]]

    def value(self, key, inside):
        """A figure of the modules for which `inside` is true; None if it is unknown."""
        figure = self.figures[key]
        amounts, sizes = (self.arrays[figure[part]][inside] for part in ("amounts", "sizes"))
        value = math.fsum(amounts) / sizes.sum() if sizes.sum() else math.nan
        if math.isnan(value):
            return None
        return math.sqrt(value) if figure["root"] else value

    def among(self, names):
        return np.isin(self.names, list(names))


def same(found, expected):
    if pd.isna(expected):
        return found is None
    return found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_cells_are_those_of_the_map(pair):
    shown = Shown(pair)
    cells = difference_map(pair)
    assert len(shown.figures) == 6
    for number, names in enumerate(cells.grid.members):
        inside = shown.among(names)
        assert inside.sum() == len(names)
        rows = pair.layers[pair.layers["module_name"].isin(names) & (pair.layers["compared"] > 0)]
        cell = survival_of(None, rows) | {"moved": cells.cells["moved"][number]}
        for key in ("revived", "new"):
            cell[f"{key}_share"] = cell[key] / cell["compared"] if cell["compared"] else None
        for key in shown.figures:
            assert same(shown.value(key, inside), cell[key]), (key, names)
    assert shown.value("kept_share", shown.among([LOST])) is None
    assert shown.value("moved", shown.among([LOST])) > 0.4


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


def test_an_unknown_change_makes_sums_unknown(pair):
    layers, (name, other) = pair.layers.copy(), ("decoder.layers.0.fc1", "decoder.layers.0.fc2")
    rows = layers["module_name"].str.endswith(name)
    layers.loc[rows, "relative_change"] = None
    # Without any weight to change, the change is known.
    layers.loc[layers["module_name"].str.endswith(other), ["relative_change", "norm"]] = [None, 0]
    changed = replace(pair, layers=layers)
    shown = Shown(changed)
    assert shown.value("relative_change", shown.among(layers["module_name"][rows])) is None
    assert pd.isna(changed.survival["relative_change"][0])
    assert shown.value("relative_change", shown.is_prunable == 1) is None
    rest = layers["module_name"][layers["prunable"] & ~rows]
    known = replace(pair, layers=layers[~rows]).survival["relative_change"][0]
    assert same(shown.value("relative_change", shown.among(rest)), known)
    layers.loc[rows, "norm"] = None
    unknown = replace(pair, layers=layers)
    assert pd.isna(unknown.survival["relative_change"][0])
    assert Shown(unknown).value("relative_change", shown.is_prunable == 1) is None


def test_details_are_the_rows_of_the_pair(pair):
    shown = Shown(pair)
    rows = pair.layers.drop_duplicates("module_name").set_index("module_name")
    details = {label: (values, kind) for label, values, kind in shown.header["rows"]}
    columns = {
        "Weights before": "weight_before", "Weights in both": "compared", "Zeros kept": "kept",
        "Zeros revived": "revived", "New zeros": "new", "Weights changed": "changed",
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
        "kind": "expert", "label": "Removed experts", "name": "block 0",
        "module": "model.experts", "among": 4, "gone": [1, 2],
    }  # fmt: skip
    assert Shown(replace(pair, removed=pair.removed.head(0))).header["removed"] == []


def test_the_start_is_what_differs_most(pair):
    shown = Shown(pair)
    most = max(
        (name for name, prunable in zip(shown.names, shown.is_prunable, strict=True) if prunable),
        key=lambda name: abs(shown.value("moved", shown.among([name]))),
    )
    assert shown.header["start"]["detail"] == most
    assert shown.header["start"]["metric"] == "moved"
    nowhere = pd.array([None] * len(pair.layers), dtype="Int64")
    flat = Shown(replace(pair, layers=pair.layers.assign(block=nowhere)))
    assert set(flat.header["modules"]["blocks"]) == {None}
    assert flat.names == shown.names


def test_hostile_names_are_data(pair):
    names = dict(zip(pair.layers["module_name"], hostile.TEXTS.values(), strict=False))
    renamed = [f"{n}.{names.get(n, '')}" for n in pair.layers["module_name"]]
    shown = Shown(replace(pair, layers=pair.layers.assign(module_name=renamed)))
    assert set(shown.names) <= set(renamed)


FC1 = "model.decoder.layers.0.fc1"
ANSWERS = """
import { readFileSync } from "node:fs";
const [, script, payload, chosen] = process.argv;
const { Figures, open } = await import(script);
const figures = new Figures(await open(readFileSync(payload)));
const value = (metric, members) => figures.value(figures.metric({ metric }), members);
const entries = (keys, of) => Object.fromEntries(keys.map((key) => [key, of(key)]));
const metrics = figures.metrics.map(({ key }) => key);
const all = (members) => entries(metrics, (metric) => value(metric, members));
const scopes = entries(figures.data.scopes, (name) => figures.scope(name, {}));
process.stdout.write(JSON.stringify([scopes, JSON.parse(chosen).map(all)]));
"""


@pytest.mark.tools
def test_the_script_shows_the_same_figures(pair, tmp_path):
    shown, rng = Shown(pair), np.random.default_rng(5)
    count = len(shown.names)
    chosen = [rng.permutation(count)[: rng.integers(1, count + 1)].tolist() for _ in range(60)]
    chosen += [[place] for place in range(count)] + [[]]
    (tmp_path / "viewer.mjs").write_text(script(), encoding="utf-8")
    (tmp_path / "payload").write_bytes(pair_payload(pair))
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


@pytest.fixture
def explorer(pair):
    return PairExplorer(pair)


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


@pytest.mark.parametrize("metric", FIGURES)
def test_layers_and_chart_are_the_rows_of_the_pair(explorer, pair, metric):
    explorer.select(metric=metric)
    rows = pair.layers[pair.layers["prunable"]].set_index("module_name")
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


def test_search_scope_and_selection_choose_the_layers(explorer, pair):
    explorer.select(search="0 FC")
    assert list(explorer.layers()["module_name"]) == [FC1, FC1.replace("fc1", "fc2")]
    explorer.select(search="", modules="mlp_linear")
    assert set(explorer.layers()["group"]) == {"mlp_linear"}
    explorer.select(modules="all")
    assert len(explorer.layers()) > pair.layers["prunable"].sum()
    explorer.select(selection=[LOST, FC1, FC1])
    assert explorer.state["selection"] == (LOST, FC1)
    assert explorer.state["detail"] == LOST  # as before
    assert set(explorer.layers()["module_name"]) == {LOST, FC1}
    explorer.select(selection=[FC1])
    assert explorer.state["detail"] == FC1


def test_unknown_values_are_refused_in_one_line(explorer):
    before = explorer.state
    for name, value in (
        ("metric", "beauty"), ("group", "heads"), ("module", "nowhere"), ("sort", "beauty"),
        ("selection", ["nowhere"]),
    ):  # fmt: skip
        with pytest.raises(sr.SparsityReportError, match=f"{name}: .* use one of"):
            setattr(explorer, name, value)
    assert explorer.state == before
    with pytest.raises(sr.SparsityReportError, match="no form of a pair"):
        explorer.copied("recipe")


def test_undo_redo_and_reset_go_through_the_states(explorer):
    first = explorer.state
    explorer.select(metric="iou")
    explorer.select(selection=[FC1])
    explorer.undo()
    assert explorer.state == first._replace(metric="iou")
    explorer.undo()
    explorer.undo()
    assert explorer.state == first
    explorer.redo()
    assert explorer.state["metric"] == "iou"
    explorer.reset()
    assert explorer.state == first
    explorer.undo()
    assert explorer.state["metric"] == "iou"


def test_the_page_sets_several_traits_at_once(explorer):
    explorer.set_state({"selection": [FC1], "module": FC1, "metric": "iou", "sort": "-iou"})
    assert (explorer.state["metric"], explorer.state["sort"], explorer.state["detail"]) == (
        "iou",
        "-iou",
        FC1,
    )
    explorer.undo()
    assert explorer.state["selection"] == ()
    assert explorer.state["metric"] == "moved"


def test_code_shows_the_same_view(explorer, pair):
    explorer.select(metric="iou", search="it's", detail=FC1)
    code = explorer.copied("python").replace("sr.explore(pair)", "PairExplorer(pair)")
    names = {"PairExplorer": PairExplorer, "pair": pair}
    exec(code, names)
    assert names["explorer"].state == explorer.state


def test_a_page_without_a_kernel_starts_with_the_view(explorer, pair):
    explorer.select(metric="iou", detail=FC1)
    header, _ = decode(explorer._page_payload())
    assert (header["start"]["metric"], header["start"]["detail"]) == ("iou", FC1)
    kept = explorer._repr_mimebundle_()
    assert 'class="sparsity-viewer ' in kept["text/html"]
    assert kept["text/plain"].split("\n") == sr.summarize(pair)
    explorer.close()


def test_without_blocks_and_with_hostile_names(pair):
    nowhere = pd.array([None] * len(pair.layers), dtype="Int64")
    names = dict(zip(pair.layers["module_name"], hostile.TEXTS.values(), strict=False))
    renamed = [f"{n}.{names.get(n, '')}" for n in pair.layers["module_name"]]
    flat = PairExplorer(
        replace(pair, layers=pair.layers.assign(block=nowhere, module_name=renamed))
    )
    for name in flat.layers()["module_name"]:
        flat.module = name
    fields = json.dumps([*walk(flat.chart.to_dict(), "field")])
    assert not any(text in fields for text in hostile.TEXTS.values())


def walk(part, key):
    for inner in part.values() if isinstance(part, dict) else part:
        if isinstance(inner, (dict, list)):
            yield from walk(inner, key)
    if isinstance(part, dict) and key in part:
        yield part[key]
