"""Two sides beside each other, A − B: variants and levels, against masks of the weights."""

import json
from itertools import product

import numpy as np
import pytest
from helpers import Tiny
from viewer_pages import Page

import sparsity_report as sr
from sparsity_report.viewer.study_payload import study_payload
from sparsity_report.viewer.view_state import AT_LEVEL
from sparsity_report.words.number_format import percent, points

# A state of each side, and the pruning that has its zeros.
SIDES = {
    "variant": ({"variant": "Masked2:4"}, lambda w: sr.n_m(w, 2, 4)),
    "global": (
        {"policy": "global_magnitude", "sparsity": 0.37}, lambda w: sr.global_magnitude(w, 0.37)
    ),
    "layerwise": (
        {"policy": "layerwise_magnitude", "sparsity": 0.6}, lambda w: sr.layerwise_magnitude(w, 0.6)
    ),
    "pattern": ({"policy": "N:4", "sparsity": 0.75}, lambda w: sr.n_m(w, 1, 4)),
    "exact": (
        {"policy": "global_magnitude", "sparsity": 0.637}, lambda w: sr.global_magnitude(w, 0.637)
    ),
}  # fmt: skip
OTHER = {"variant": "against", "policy": "against_policy", "sparsity": "against_sparsity"}


def beside(a, b):
    """Return the state that compares two sides."""
    return {"metric": "difference", **a, **{OTHER[key]: value for key, value in b.items()}}


@pytest.fixture(scope="module")
def study(demo):
    prunings = [sr.n_m(demo, 2, 4), sr.layerwise_magnitude(demo, 0.3)]
    other = sr.dense(sr.load(Tiny()), name="Tiny")
    return sr.compare(sr.dense(demo), *map(sr.masked, prunings), other)


@pytest.fixture(scope="module")
def zeros(demo):
    """Masks of zeros of the pruning of each side, by module."""

    def of(pruning):
        return {p.name.removesuffix(".weight"): ~pruning.mask(p.name) for p in demo.prunable}

    return {name: of(make(demo)) for name, (_, make) in SIDES.items()}


@pytest.mark.parametrize(("one", "other"), [*product(SIDES, ["variant", "layerwise", "global"])])
def test_layers_have_both_sides_and_their_difference(study, zeros, one, other):
    explorer = sr.explore(study)
    explorer.select(**beside(SIDES[one][0], SIDES[other][0]))
    rows = explorer.layers().set_index("module_name")
    assert list(rows.index) == list(zeros[one])
    for name, row in rows.iterrows():
        a, b = (side[name].sum() for side in (zeros[one], zeros[other]))
        have = row["weight_total"] - row["weight_nonzero"]
        have_b = row["weight_total_b"] - row["weight_nonzero_b"]
        errors = [row.get("uncertainty", 0), row.get("uncertainty_b", 0)]
        errors = [0 if np.isnan(error) else error for error in errors]
        assert abs(have - a) <= errors[0]
        assert abs(have_b - b) <= errors[1]
        size = zeros[one][name].size
        assert abs(size * row["difference"] - (a - b)) <= sum(errors) + 1e-6
        assert row["difference"] == pytest.approx((have - have_b) / size)
    if one == other:
        assert (rows["difference"] == 0).all()
    (cells,) = explorer.chart.to_dict()["datasets"].values()
    assert sorted(cell["value"] for cell in cells) == pytest.approx(sorted(rows["difference"]))


def test_layers_of_one_side_are_unknown(study):
    explorer = sr.explore(study)
    explorer.select(metric="difference", variant="Dense", against="Tiny")
    rows = explorer.layers()
    assert rows["difference"].isna().all()
    assert rows["weight_nonzero_b"].isna().all()
    assert rows["stored_bytes"].gt(0).all()
    explorer.select(metric="sparsity")
    assert not {"difference", "weight_nonzero_b"} & set(explorer.layers())


def test_a_chart_names_both_sides(study):
    explorer = sr.explore(study)
    explorer.select(**beside({"variant": "Masked2:4"}, SIDES["layerwise"][0]))
    text = json.dumps(explorer.chart.to_dict(), ensure_ascii=False).replace("\u202f", " ")
    assert "Masked2:4 − layerwise magnitude at 60 %" in text


def opening(explorer):
    return [explorer.state[key] for key in ("metric", "variant", "against")]


def test_two_prunings_at_one_level_open_beside_each_other(demo):
    """The later one is A. Of two prunings at two levels, the other one is B."""
    half, patterned = sr.global_magnitude(demo, 0.5), sr.n_m(demo, 2, 4)
    low, lots = sr.global_magnitude(demo, 0.3), sr.random_unstructured(demo, 0.5, seed=3)
    dense = sr.dense(demo)
    pair = [dense, sr.masked(half), sr.masked(patterned)]
    for more in ([], [sr.masked(low)], [sr.csr(patterned)]):
        explorer = sr.explore(sr.compare(*pair, *more))
        assert opening(explorer) == ["difference", "Masked2:4", "Masked50"]
    for others in ([dense, sr.masked(half), sr.csr(half)], [*pair, sr.masked(lots)]):
        explorer = sr.explore(sr.compare(*others))
        assert opening(explorer)[::2] == ["sparsity", "Dense"]
    explorer = sr.explore(sr.compare(dense, sr.masked(low), sr.masked(half)))
    assert opening(explorer) == ["sparsity", "Masked50", "Masked30"]


class Shown(Page):
    """A page with a viewer alone, and its texts."""

    def text(self, name):
        return self.page.locator(name).inner_text().replace("\u202f", " ").replace("\xa0", " ")


@pytest.fixture
def page(chromium, study, tmp_path):
    with Shown(chromium, tmp_path, study_payload(study)) as page:
        yield page
        assert page.complaints == []


@pytest.mark.tools
def test_controls_of_both_sides(page, study, zeros):
    """The menu and the level of side B, the sentence, the table, the bars and the swap."""
    page.set(variant="Masked2:4", metric="difference")
    page.page.select_option(".sv-against", "policy layerwise_magnitude")
    level = page.page.locator(".sv-against-level")
    level.fill("60")
    level.press("Enter")
    name = "model.decoder.layers.0.fc1"
    a, b = (zeros[side][name].mean() for side in ("variant", "layerwise"))
    sentence = page.text(".sv-sentence")
    assert "A, Masked2:4: 50.0 % of 786 k prunable weights are zero." in sentence
    assert "B, layerwise magnitude at 60 %: 60.0 %. A − B is −10.0 points." in sentence
    heads = page.page.locator(".sv-head button").all_inner_texts()
    assert [head.replace("\xa0", " ") for head in heads][1:4] == [
        "Weight sparsity of A", "Weight sparsity of B", "A − B"
    ]  # fmt: skip
    row = page.page.locator(".sv-row", has_text="0.fc1").locator("> div").all_inner_texts()
    shares = [percent(share, space=" ") for share in (a, b)]
    assert [cell.replace("\u202f", " ") for cell in row[1:4]] == [*shares, points(a - b)]
    page.set(sort="-sparsity_b", metric="sparsity")
    explorer = sr.explore(study)
    explorer.select(**{**page.state, "detail": None})
    order = explorer.layers()["module_name"].tolist()
    assert page.run("viewer.table.rows.map((i) => viewer.figures.modules.names[i])") == order
    page.set(metric="difference", sort="")
    page.page.locator("[data-panel=groups]").click()
    bars = page.page.locator(".sv-details").text_content().replace("\u202f", " ")
    assert "A 50.0 %, B 60.0 %" in bars
    page.page.locator(".sv-swap").click()
    state = page.state
    assert (state["variant"], state["policy"], state["sparsity"]) == (
        AT_LEVEL, "layerwise_magnitude", 0.6
    )  # fmt: skip
    assert state["against"] == "Masked2:4"
    assert "A − B is +10.0 points" in page.text(".sv-sentence")
    names = {}
    exec(page.run("(viewer.tools.clip = String, viewer.tools.copy('python'))"), names)
    again = names["explorer"].state
    assert {key: again[key] for key in state if key != "detail"} == {
        key: value for key, value in state.items() if key != "detail"
    }


@pytest.mark.tools
def test_a_layer_shows_both_thresholds(page, demo):
    page.set(**beside(SIDES["layerwise"][0], {"policy": "global_magnitude", "sparsity": 0.3}))
    labels = page.page.locator(".sv-details svg text").all_text_contents()
    cut = sr.global_magnitude(demo, 0.3).threshold
    assert any(label.startswith("A smallest 60.0") for label in labels)
    assert any(label.startswith(f"B |w| ≈ {cut:.2g}"[:12]) for label in labels)
    page.set(against="Masked2:4")
    labels = page.page.locator(".sv-details svg text").all_text_contents()
    assert not any(label.startswith("B ") for label in labels)


@pytest.mark.tools
@pytest.mark.parametrize("width", [244, 505])
def test_a_saved_picture_names_both_sides_and_the_layer(page, width):
    page.set(**beside(SIDES["layerwise"][0], SIDES["global"][0]))
    shapes = page.run(
        f"viewer.tools.picture(viewer.store.state, {width})"
        ".parts.flatMap(([{ shapes }, x]) => shapes.map((one) => ({ ...one, x: one.x + x })))"
    )
    texts = [shape for shape in shapes if shape["t"] == "text"]
    title = " ".join(shape["text"] for shape in texts if shape.get("weight") == 600)
    title = title.replace("\u202f", " ").replace("\xa0", " ")
    assert "A layerwise magnitude at 60 %, B global magnitude at 37 %" in title
    assert page.run("viewer.figures.nameOf(viewer.store.state.detail)") in [
        shape["text"] for shape in texts
    ]
    for shape in texts:
        if shape.get("anchor", "start") == "start":
            assert shape["x"] + 5 * len(shape["text"]) <= width, shape


@pytest.mark.tools
def test_unknown_layers_are_said(page):
    page.set(variant="Dense", metric="difference", against="Tiny")
    assert "Unknown layers: 24." in page.text(".sv-sentence")
    row = page.page.locator(".sv-row").first.locator("> div").all_inner_texts()
    assert row[2:4] == ["–", "–"]
    assert row[6] == "–"
    assert "to select layers" in page.text(".sv-sum")
    # The last state is kept by name, and others are refused.
    kept = {"against": "none", "against_policy": "N:4", "against_sparsity": 0.51}
    page.run(f"viewer.recall({json.dumps(kept)})")
    state = page.state
    assert (state["against"], state["against_policy"], state["against_sparsity"]) == (
        "Tiny", "N:4", 0.5
    )  # fmt: skip
