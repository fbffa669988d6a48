"""Metrics of the map that are not counts: differences, excess zeros, sensitivity, columns."""

import math
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from explored import html_tables, html_texts, widgets
from helpers import study_of
from hostile import TEXTS
from measurements import put_in

import sparsity_report as sr
from sparsity_report.draw import export
from sparsity_report.explorer.box_explorer import Picture
from sparsity_report.study.derived.heads_experts import inner
from sparsity_report.study.schema import TABLES

pytestmark = pytest.mark.slow

NAMES = [
    f"model.decoder.layers.{block}.{name}"
    for block in range(4)
    for name in (*(f"self_attn.{x}_proj" for x in ("k", "v", "q", "out")), "fc1", "fc2")
]
MINE = pd.DataFrame({"module_name": NAMES, "rank": range(24), "norm": [None, *range(23)]})


@pytest.fixture(scope="module")
def study(demo):
    prunings = [sr.global_magnitude(demo, 0.3), sr.n_m(demo, 2, 4)]
    built = sr.compare(sr.dense(demo), *map(sr.masked, prunings), patterns=True)
    blocks = [{"by": "block", "part": f"block {n}", "nll_increase": x} for n, x in BLOCKS.items()]
    return put_in(built, sensitivity=measured(blocks))


BLOCKS = {0: 0.5, 1: 0.25, 3: -0.125}


def measured(rows):
    """A table of sensitivity with what is asked for, the rest as one may find it."""
    full = {
        "modules": 6, "weight_total": 196608, "pruned": 98304, "sparsity": 0.5,
        "perplexity": 10.0, "dense_perplexity": 10.0, "top1": 0.5, "top1_drop": 0.0,
        "threshold": 0.1, "std": 0.1, "global_sparsity": 0.5, "protocol": "sliding",
        "window": 8, "stride": 8, "dtype": "float32", "text": "t", "text_fingerprint": "f",
    }  # fmt: skip
    return pd.DataFrame([full | row for row in rows])[[*TABLES["sensitivity"].names]]


@pytest.fixture
def explorer(study):
    built = sr.explore(study, columns=MINE)
    built._shell.width = 900
    return built


def cells(explorer):
    return {row["tip"]: row["value"] for row in explorer.chart["datasets"]["cells"]}


def bars(explorer):
    return {row["group"]: row["value"] for row in explorer.chart["datasets"]["bars"]}


def zeros_of(pruning, names):
    modules = dict(sr.masked(pruning).module().named_modules())
    return {name: (modules[name].weight == 0).numpy() for name in names}


def test_a_difference_of_two_variants_and_of_a_level(explorer, demo):
    gone = {
        "Masked30": zeros_of(sr.global_magnitude(demo, 0.3), NAMES),
        "Masked2:4": zeros_of(sr.n_m(demo, 2, 4), NAMES),
        "Masked at level": zeros_of(sr.global_magnitude(demo, 0.7), NAMES),
    }
    explorer.metric, explorer.against, explorer.sparsity = "difference", "Masked2:4", 0.7
    for explorer.variant in ("Masked30", "Masked2:4", "Masked at level"):
        if explorer.variant == "Masked at level":
            explorer.sparsity = 0.7
        shown, other = gone[explorer.variant], gone["Masked2:4"]
        shares = {name: shown[name].mean() - other[name].mean() for name in NAMES}
        assert cells(explorer) == pytest.approx(shares, abs=1e-3)
        mlp = [name for name in NAMES if ".fc" in name]
        sizes = {n: z.size for n, z in gone["Masked30"].items()}
        mean = sum(shares[n] * sizes[n] for n in mlp) / sum(sizes[n] for n in mlp)
        assert bars(explorer)["MLP"] == pytest.approx(mean, abs=1e-3)
    (cell, *_) = explorer.chart["datasets"]["cells"]
    assert cell["label"].endswith(" percentage points")
    note = explorer.chart["datasets"]["notes"][0]["text"]
    assert note.startswith("Masked at 70 % (level) minus Masked2:4 · difference in zeros")


def scale(explorer):
    spec = explorer.chart.to_dict(validate=False)
    return next(
        part["layer"][0]["encoding"]["color"]
        for column in spec["hconcat"]
        for part in column["vconcat"]
        if part["name"] == "cells"
    )


@pytest.mark.parametrize("metric", ["difference", "beyond"])
def test_colors_are_even_at_zero_and_stay_while_the_level_moves(explorer, metric):
    explorer.metric, explorer.variant = metric, "Masked at level"
    ends, observed = set(), []
    for explorer.sparsity in (0.01, 0.25, 0.6, 0.99):
        low, middle, high = scale(explorer)["scale"]["domain"]
        ends.add((low, middle, high))
        observed += [value for value in cells(explorer).values() if value is not None]
    ((low, middle, high),) = ends
    assert (low, middle) == (-high, 0)
    assert max(map(abs, observed)) <= high
    assert scale(explorer)["legend"]["title"].endswith(", percentage points")


def test_zeros_beyond_a_bell_curve(explorer, demo, study):
    explorer.metric, explorer.variant = "beyond", "Masked30"
    weights = {name: demo.tensor(f"{name}.weight").double().numpy().ravel() for name in NAMES}
    for cut, label in ((sr.global_magnitude(demo, 0.3).threshold, "Masked30"), (None, "level")):
        if label == "level":
            explorer.sparsity = 0.6
            cut = sr.global_magnitude(demo, 0.6).threshold
        for name, value in cells(explorer).items():
            spread = math.sqrt((weights[name] ** 2).mean())
            zeros = (np.abs(weights[name]) <= cut).mean()
            expected = math.erf(cut / spread / math.sqrt(2))
            assert value == pytest.approx(zeros - expected, abs=0.006), (label, name)
    # By no one threshold, there is nothing to expect.
    explorer.variant = "Masked2:4"
    assert set(cells(explorer).values()) == {None}
    explorer.policy = "layerwise_magnitude"
    assert set(cells(explorer).values()) == {None}
    figures = study.facts.excess("Masked30")
    explorer.variant = "Masked30"
    assert [*cells(explorer).values()] == pytest.approx(figures["excess"].tolist())


def test_zeros_beyond_a_bell_curve_where_nobody_looked_for_patterns(demo, study):
    pruning = sr.global_magnitude(demo, 0.3)
    built = sr.explore(sr.compare(sr.dense(demo), sr.masked(pruning)))
    built._shell.width = 900
    built.metric, built.variant = "beyond", "Masked30"
    excess = study.facts.excess("Masked30")["excess"]
    assert [*cells(built)] == NAMES
    assert [*cells(built).values()] == pytest.approx(excess.tolist(), abs=0.006)


def test_sensitivity_is_of_the_part_that_was_pruned(explorer):
    explorer.metric = "sensitivity"
    matches = cells(explorer)
    for name, value in matches.items():
        assert value == BLOCKS.get(int(name.split(".")[3])), name
    # The cost of a group is not that of a block.
    assert set(bars(explorer).values()) == {None}
    explorer.grouping = "block"
    assert bars(explorer) == {"0": 0.5, "1": 0.25, "2": None, "3": -0.125}
    before = explorer.chart["datasets"]["cells"]
    explorer.sparsity = 0.9
    assert explorer.chart["datasets"]["cells"] == before
    explorer.detail = NAMES[0]
    figures = {row[0]: row[1:] for row in html_tables(explorer._detail.value)[0]}
    assert figures["Sensitivity"][0] == "+0.500"
    assert "only its block pruned, at 50 %" in figures["Sensitivity"][1]


def test_figures_of_ones_own(explorer):
    explorer.metric = "rank"
    assert cells(explorer) == dict(zip(NAMES, range(24), strict=True))
    mlp = [k for k, name in enumerate(NAMES) if ".fc" in name]
    assert bars(explorer)["MLP"] == sum(mlp) / len(mlp)
    explorer.sort = "largest first"
    assert explorer.layers()["module_name"].tolist() == NAMES[::-1]
    assert html_tables(explorer._table.value)[0][1][-1] == "23"
    explorer.metric = "norm"
    assert cells(explorer)[NAMES[0]] is None
    assert bars(explorer)["attention"] is None


def test_the_state_is_kept_undone_and_copied(explorer):
    explorer.metric, explorer.against = "difference", "Masked30"
    shown = explorer._state()
    explorer.reset()
    assert (explorer.metric, explorer.against) == ("sparsity", "Dense")
    explorer.undo()
    assert explorer._state() == shown
    assert "explorer.against = 'Masked30'" in explorer.copied("python")
    assert "Difference" in "".join(html_texts(explorer._still()["text/html"])) + str(
        explorer._still()["text/html"]
    )
    (picture,) = [one for one in widgets(explorer) if isinstance(one, Picture)]
    assert picture.hint == "Map of Difference per layer: arrow keys move, Enter selects"
    with pytest.raises(sr.SparsityReportError, match=r"against: .*; use one of Dense, Masked30"):
        explorer.against = "CSR at level"


def test_columns_have_any_name(demo):
    """It is shown, and no program."""
    elsewhere = ("typst", "latex", "bibtex", "formula", "terminal")
    texts = [text for name, text in [*TEXTS.items()][:50] if not name.startswith(elsewhere)]
    mine = pd.DataFrame({"module_name": NAMES} | dict.fromkeys(texts, range(24)))
    built = sr.explore(sr.compare(sr.dense(demo)), columns=mine)
    built._shell.width = 900
    for text in texts:
        built.metric = text
        assert cells(built)[NAMES[3]] == 3
        for html in (built._table.value, built._detail.value):
            assert not re.search("<(script|img|svg|style)", html)
    export.svg(built.chart.to_dict())


def test_columns_are_copied_and_refused(demo_study):
    mine = MINE.copy()
    built = sr.explore(demo_study, columns=mine)
    mine["rank"] = 0
    built._shell.width = 900
    built.metric = "rank"
    assert cells(built)[NAMES[5]] == 5
    with pytest.raises(sr.SparsityReportError, match="'total' is already the name of a metric"):
        sr.explore(demo_study, columns=MINE.rename(columns={"rank": "total"}))
    with pytest.raises(sr.SparsityReportError, match="is not a frame with the column module_name"):
        sr.explore(demo_study, columns=[1])
    alone = sr.explore(study_of(sr.load()))
    with pytest.raises(sr.SparsityReportError, match=r"metric: .*; use one of sparsity, total"):
        alone.metric = "sensitivity"


# Over and inside the layer looked at.


def test_another_pruning_s_threshold_and_another_layer_lie_over_a_histogram(demo_study, demo):
    other = sr.global_magnitude(demo, 0.5)
    built = sr.explore(demo_study.with_variants(sr.masked(other)))
    built._shell.width = 900
    built.variant = "Masked30"
    data = built.chart["datasets"]
    assert len(data["threshold"]) == 1
    before = data["magnitudes"]
    built.against = "Masked50"
    mine, its = built.chart["datasets"]["threshold"]
    assert mine["at"] == pytest.approx(sr.global_magnitude(demo, 0.3).threshold)
    assert (its["at"], its["other"]) == (pytest.approx(other.threshold), True)
    assert its["label"] == f"Masked50: {other.threshold:.3g}"
    assert built.chart["datasets"]["outline"] == []
    built.selection = ["model.decoder.layers.1.fc1", "model.decoder.layers.0.self_attn.out_proj"]
    built.detail = built.selection[1]
    data = built.chart["datasets"]
    steps = data["outline"]
    # Bins have equal areas, except for the outermost thousandth.
    areas = [
        sum(bar["height"] * (bar["to"] - bar["from"]) for bar in data["magnitudes"]),
        sum(a["height"] * (b["from"] - a["from"]) for a, b in pairwise(steps)),
    ]
    assert areas[0] == pytest.approx(areas[1], rel=0.003)
    assert max(row["height"] for row in [*steps, *data["magnitudes"]]) == pytest.approx(1)
    weights = demo.tensor("model.decoder.layers.1.fc1.weight").abs().flatten().double().numpy()
    inside, _ = np.histogram(weights, [row["from"] for row in steps])
    heights = inside / np.diff([row["from"] for row in steps])
    matches = np.array([row["height"] for row in steps[:-1]])
    assert matches / matches.max() == pytest.approx(heights / heights.max(), abs=0.02)
    note = next(row["text"] for row in data["notes"] if row["panel"] == "histogram")
    assert note.endswith("self_attn.out_proj; line: model.decoder.layers.1.fc1")
    built.selection = ()
    assert [bar["height"] for bar in built.chart["datasets"]["magnitudes"]] == [
        bar["height"] for bar in before
    ]


def test_heads_and_dead_rows_of_the_layer_looked_at(explorer, demo):
    explorer.variant, explorer.detail = "Masked30", NAMES[3]
    gone = zeros_of(sr.global_magnitude(demo, 0.3), NAMES)[NAMES[3]]
    heads = gone.reshape(128, 4, 32).mean(axis=(0, 2))
    matches = re.findall(r'style="--at: ([^"]+)"', explorer._detail.value)
    assert [float(share) for share in matches] == pytest.approx(heads.tolist())
    figures = {row[0]: row[1:] for row in html_tables(explorer._detail.value)[0]}
    for name, axis in (("Zero rows", 1), ("Zero columns", 0)):
        assert figures[name] == [str(int(gone.all(axis=axis).sum())), "of 128"]
    # Levels have no such counts.
    explorer.sparsity = 0.6
    assert "Zero rows" not in explorer._detail.value
    assert "sx-parts" not in explorer._detail.value


def test_rows_are_no_columns():
    linear = torch.nn.Linear(7, 5)
    with torch.no_grad():
        linear.weight[1], linear.weight[:, [0, 4, 6]] = 0, 0
    weights = sr.load(torch.nn.ModuleDict({"fc": linear}))
    built = sr.explore(sr.compare(sr.dense(weights), patterns=True))
    built._shell.width = 900
    built.detail = "fc"
    figures = {row[0]: row[1:] for row in html_tables(built._detail.value)[0]}
    assert figures["Zero rows"] == ["1", "of 5"]
    assert figures["Zero columns"] == ["3", "of 7"]


def test_experts_of_a_layer():
    rows = [(0, 0.5), (1, 0.25), (0, 0.0), (1, 1.0)]
    frame = pd.DataFrame(
        [
            {"module_name": "m", "expert": expert, "rows": 4, "columns": size, "sparsity": share,
             "zero_rows": 0.5, "zero_columns": 0.0, "head_sparsity": None}
            for (expert, share), size in zip(rows, (2, 2, 6, 6), strict=True)
        ]
    )  # fmt: skip
    matches = inner(frame)
    assert matches.experts == pytest.approx((0.5 * 2 / 8, (0.25 * 2 + 6) / 8))
    assert (matches.rows, matches.zero_rows, matches.columns, matches.heads) == (16, 8, 16, ())


def test_the_curve_is_pulled_to_the_nearest_level(explorer):
    """Bands cover all of x, each around the zeros of its level; a variant gives way to a level."""
    (picture,) = [one for one in widgets(explorer) if isinstance(one, Picture)]
    bands = explorer.chart["datasets"]["pulls"]
    assert [bands[0]["from"], bands[-1]["to"]] == [0, 1]
    assert all(a["to"] == b["from"] for a, b in pairwise(bands))
    shares = explorer.study.facts.levels.set_index("sparsity")["sparsity_prunable"]
    for band in bands:
        assert band["from"] <= shares[band["id"]] <= band["to"]
    picture.pulled = [0.62, 1]
    assert (explorer.sparsity, explorer.variant) == (0.62, "Masked at level")
    explorer.variant = "Masked30"
    picture.pulled = [0.3, 2]
    assert (explorer.sparsity, explorer.variant) == (0.3, "Masked at level")


def test_a_figure_is_copied(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explorer.metric, explorer.against = "difference", "Masked30"
    exec(compile(explorer.copied("figure"), "copied", "exec"), {})
    assert (tmp_path / "difference.pdf").read_bytes().startswith(b"%PDF")
    explorer.metric = "rank"
    assert "# 'rank' is a figure of your own" in explorer.copied("python")
    # Statements do not repeat a measurement; a comment names it, and they run without it.
    explorer.metric = "sensitivity"
    text = explorer.copied("figure")
    assert "# Not measured anew: sensitivity." in text
    assert "\nexplorer.metric" not in text
    exec(compile(text, "copied", "exec"), {})
    assert (tmp_path / "sensitivity.pdf").read_bytes().startswith(b"%PDF")
