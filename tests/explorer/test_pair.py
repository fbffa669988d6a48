"""The explorer of a pair: pictures and tables show the rows of the pair."""

import json
import math
from dataclasses import replace

import hostile
import pandas as pd
import pytest
from explored import chart_texts, html_tables, html_texts, widget_texts, widgets
from ipywidgets import Dropdown
from pairs import LOST, gone, two_policies
from wording import wording

import sparsity_report as sr
from sparsity_report.explorer.box_explorer import Picture

THIN = "\u202f"


@pytest.fixture(scope="module")
def pair(demo):
    """Two policies of one model; a module and a few experts are gone, another module is untold."""
    rows = [gone("expert", "model.experts", index, 4, 0, weights=9) for index in (1, 2)]
    pair = two_policies(demo, rows)
    layers = pair.layers.copy()
    moved = layers["module_name"] == "model.decoder.layers.1.fc2"
    layers.loc[moved, "relative_change"] = 0.125
    return replace(pair, layers=layers)


@pytest.fixture(scope="module")
def opened(pair):
    built = sr.explore(pair)
    built._shell.width = 1000
    return built


@pytest.fixture
def explorer(opened):
    """The one explorer, as it was opened."""
    opened.group, opened.metric = "all", "moved"
    return opened


def data(explorer, name):
    return explorer.chart["datasets"][name]


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


@pytest.mark.parametrize(
    "metric", ["moved", "kept_share", "revived_share", "new_share", "relative_change", "iou"]
)
def test_cells_are_the_rows_of_the_pair(explorer, pair, metric):
    explorer.metric = metric
    rows = pair.layers[pair.layers["prunable"] & pair.layers["block"].notna()]
    expected = {
        name: by_hand(row, metric) for name, row in rows.set_index("module_name").iterrows()
    }
    shown = {cell["tip"]: cell["value"] for cell in data(explorer, "cells")}
    assert shown == {
        name: None if value is None else pytest.approx(value) for name, value in expected.items()
    }
    known = [value for value in expected.values() if value is not None]
    assert max(map(abs, known)) > 0
    colors = explorer.chart.to_dict(validate=True)["vconcat"][0]["hconcat"][0]["layer"][0]
    domain = colors["encoding"]["color"]["scale"]["domain"]
    assert domain[0] <= min(known)
    assert max(known) <= domain[-1]
    if metric == "moved":
        assert domain[1] == 0
        assert domain[0] == -domain[2]


def test_a_layer_has_its_own_counts_and_matrix(explorer, pair):
    name = "model.decoder.layers.3.fc2"
    explorer.module = name
    row = pair.layers.set_index("module_name").loc[name]
    (table,) = html_tables(explorer._detail.value)[1:]
    written = dict(table)
    titles = {
        "Weights before": "weight_before", "Weights in both": "compared", "Zeros kept": "kept",
        "Zeros revived": "revived", "New zeros": "new", "Weights changed": "changed",
    }  # fmt: skip
    for title, key in titles.items():
        assert written[title] == f"{int(row[key]):,}".replace(",", THIN), title
    rest = row["compared"] - row["kept"] - row["revived"] - row["new"]
    parts = {(c["projection"], c["block"]): c["value"] for c in data(explorer, "overlap")}
    assert parts == {
        ("zero before", "zero"): row["kept"] / row["compared"],
        ("zero before", "nonzero"): row["revived"] / row["compared"],
        ("nonzero before", "zero"): row["new"] / row["compared"],
        ("nonzero before", "nonzero"): rest / row["compared"],
    }
    assert math.isclose(sum(parts.values()), 1)
    described = explorer.chart["description"].replace(THIN, " ")
    assert described.startswith(f"Matrix of {name}, ")
    assert f"{100 * row['kept'] / row['compared']:.1f} % zero in both" in described
    assert data(explorer, "looked") == [{"block": "3", "projection": "fc2"}]
    explorer.module = LOST
    assert data(explorer, "overlap") == []
    assert "Matrix of" not in explorer.chart["description"]
    assert wording("pair.layer_weights_not_shared") in html_texts(explorer._detail.value)


def test_a_click_the_menus_and_python_say_the_same(explorer):
    (picture,) = [one for one in widgets(explorer) if isinstance(one, Picture)]
    menus = {one.description: one for one in widgets(explorer) if isinstance(one, Dropdown)}
    spec = picture.spec
    cell = next(one for one in data(explorer, "cells") if one["tip"].endswith("1.fc2"))
    explorer._heard(None, {"cell": cell["id"], "more": False}, None)
    assert explorer.module == menus["Layer"].value == "model.decoder.layers.1.fc2"
    assert picture.spec is spec or picture.spec == spec
    assert picture.data["looked"] == [{"block": "1", "projection": "fc2"}]
    explorer._heard(None, {"cell": 10_000}, None)
    explorer._heard(None, {"brush": {}}, None)
    assert explorer.module == "model.decoder.layers.1.fc2"
    menus["Metric"].value = "iou"
    assert explorer.metric == "iou"
    group = explorer.pair.layers.set_index("module_name")["group"]["model.decoder.layers.0.fc1"]
    other = "model.decoder.layers.0.self_attn.q_proj"
    explorer.module = other
    explorer.group = group
    assert menus["Group"].value == group
    assert {c["projection"] for c in data(explorer, "cells")} == {"fc1", "fc2"}
    assert all("fc" in name for _, name in menus["Layer"].options)
    assert explorer.module == menus["Layer"].value != other
    assert "experts" in picture.described.lower()
    for name, value in (("metric", "beauty"), ("group", "heads"), ("module", other)):
        with pytest.raises(sr.SparsityReportError, match=f"{name}: .* use one of"):
            setattr(explorer, name, value)


def test_strips_stand_below_where_something_is_gone(explorer, pair):
    rows = [
        (row["place"], row["gone"])
        for values in explorer.chart["datasets"].values()
        for row in values
        if "gone" in row and "place" in row
    ]
    assert rows == [(0, False), (1, True), (2, True), (3, False)]
    full = sr.explore(replace(pair, removed=pair.removed.head(0)))
    assert len(full.chart["vconcat"]) == 1


def test_what_is_kept_in_a_notebook_is_what_was_shown(explorer):
    explorer.metric, explorer.module = "iou", "model.decoder.layers.0.fc1"
    kept = explorer._repr_mimebundle_()
    assert kept["text/plain"].split("\n") == sr.summarize(explorer.pair)
    texts = html_texts(kept["text/html"])
    assert {"Overlap of zeros (IoU)", "model.decoder.layers.0.fc1"} <= set(texts)
    assert explorer.chart["description"] in texts
    assert "data:image/png;base64," in kept["text/html"]


def test_without_blocks_there_is_no_map_but_every_layer(pair):
    nowhere = pd.array([None] * len(pair.layers), dtype="Int64")
    flat = sr.explore(replace(pair, layers=pair.layers.assign(block=nowhere)))
    flat._shell.width = 400
    assert "cells" not in flat.chart["datasets"]
    flat.module = "model.decoder.layers.3.fc2"
    assert len(data(flat, "overlap")) == 4
    assert wording("pair.map_unavailable") in " · ".join(widget_texts(flat))
    with pytest.raises(sr.SparsityReportError, match="takes no weights="):
        sr.explore(pair, columns=pair.layers)


def test_hostile_names_are_text(pair):
    names = dict(zip(pair.layers["module_name"], hostile.TEXTS.values(), strict=False))
    layers = pair.layers.assign(
        module_name=[f"{n}.{names.get(n, '')}" for n in pair.layers["module_name"]]
    )
    explorer = sr.explore(replace(pair, layers=layers))
    explorer._shell.width = 1000
    for name in explorer._scene.modules("all"):
        explorer.module = name
        assert not set("<>") & set(explorer._detail.value.split("<h3>")[1].split("</h3>")[0])
        assert "<script" not in explorer._detail.value
        assert "<img" not in explorer._detail.value
    spec = explorer.chart.to_dict(validate=True)
    spec.pop("datasets")
    fields = json.dumps(list(walk(spec, "field")))
    assert not any(text in fields for text in hostile.TEXTS.values())


def walk(part, key):
    for inner in part.values() if isinstance(part, dict) else part:
        if isinstance(inner, (dict, list)):
            yield from walk(inner, key)
    if isinstance(part, dict) and key in part:
        yield part[key]


def test_it_speaks_french(pair):
    with sr.speaking("fr"):
        explorer = sr.explore(pair)
        explorer._shell.width = 1000
        sentences = sr.summarize(pair)
    english = sr.explore(pair)
    english._shell.width = 1000
    for metric in ("kept_share", "relative_change", "moved"):
        explorer.metric = english.metric = metric
        texts, others = (
            {*widget_texts(one), *chart_texts(one.chart)} for one in (explorer, english)
        )
        same = {t for t in texts & others if any(letter.isalpha() for letter in t)}
        names = {*pair.layers["module_name"], *pair.layers["after_name"].dropna()}
        # Words that both languages have.
        allowed = {"fc1", "fc2", "demo", "expert", "attention", "MLP", "module"}
        assert {
            t for t in same if t not in names | allowed and "_proj" not in t and "→" not in t
        } == set(), metric
    # Pages set a thin space before a unit, as in tables.
    wording = [text.replace("\u00a0", THIN) for text in html_texts(explorer._head.value)]
    assert sentences[0].replace("\u00a0", THIN) in wording
