"""The explorer in Python: its state, its arithmetic, and requests of the page."""

import base64
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Tiny, study_of
from ipywidgets import VBox
from payloads import decode
from torch import nn
from traitlets import TraitError

import sparsity_report as sr
from sparsity_report.viewer.view_state import AT_LEVEL
from sparsity_report.words.sentences import say

LAYERS = [f"model.decoder.layers.{n}.fc1" for n in range(4)]


@pytest.fixture
def explorer(demo_study):
    return sr.explore(demo_study)


def sent_by(explorer):
    """Return the list that collects what the explorer sends to the page from now on."""
    sent = []
    explorer.send = lambda message, _=None: sent.append(message)
    return sent


def zeros(explorer):
    rows = explorer.layers()
    gone = rows["weight_total"] - rows["weight_nonzero"]
    return dict(zip(rows["module_name"], gone, strict=True))


def pruned(pruning):
    rows = sr.masked(pruning).layers()
    rows = rows[rows["prunable"]]
    gone = rows["weight_total"] - rows["weight_nonzero"]
    return dict(zip(rows["module_name"], gone, strict=True))


def in_view(explorer):
    return tuple(explorer.state[key] for key in ("variant", "sparsity", "layout"))


def test_it_opens_on_the_first_pruning(explorer):
    assert in_view(explorer) == ("CSR30", 0.3, "csr")
    shown = {"modules": "prunable", "against": "Dense", "policy": "global_magnitude"}
    assert explorer.state | shown == explorer.state


def test_slider_shows_a_level_and_a_variant_moves_the_slider(explorer):
    explorer.select(sparsity=0.61)
    assert in_view(explorer) == (AT_LEVEL, 0.61, "csr")
    explorer.select(variant="CSR30")
    assert in_view(explorer) == ("CSR30", 0.3, "csr")
    explorer.select(policy="N:4")
    assert in_view(explorer) == (AT_LEVEL, 0.25, "csr")


@pytest.mark.parametrize("layout", ["csr", "bitmask", "dense"])
@pytest.mark.parametrize("variant", ["CSR30", AT_LEVEL])
def test_bytes_and_flops_are_those_of_the_layout(explorer, layout, variant):
    explorer.select(sparsity=0.7, modules="all")
    explorer.select(variant=variant, layout=layout)
    rows = explorer.layers()
    left, weights = rows["weight_nonzero"].astype(int), rows["weight_total"].astype(int)
    beside = 4 * (rows["total"] - weights)
    pointers = rows["row_pointers"].fillna(0).astype(int)
    size = {
        "csr": 8 * left + 4 * pointers, "bitmask": 4 * left + weights // 8, "dense": 4 * weights,
    }  # fmt: skip
    expected = beside + size[layout].where(rows["prunable"], 4 * weights)
    assert rows["stored_bytes"].tolist() == expected.tolist()
    assert rows["bytes_before"].tolist() == (4 * rows["total"]).tolist()
    flops = 2 * (left if layout == "csr" else weights)
    inside = rows["prunable"]
    assert rows["flops_per_token"][inside].tolist() == flops[inside].tolist()


def test_a_level_that_the_study_lacks_is_counted_exactly(explorer, demo, tmp_path):
    """By ``select``, by a value of the state and by the page; it stays in the study and page."""
    explorer.select(sparsity=0.637)
    assert in_view(explorer) == (AT_LEVEL, 0.637, "csr")
    assert zeros(explorer) == pruned(sr.global_magnitude(demo, 0.637))
    assert not explorer.layers()["uncertainty"].any()
    explorer.select(policy="layerwise_magnitude")
    assert explorer.state["sparsity"] == 0.637
    assert zeros(explorer) == pruned(sr.layerwise_magnitude(demo, 0.637))
    explorer.state = {**explorer.state, "policy": "global_magnitude", "sparsity": 0.9991}
    assert zeros(explorer) == pruned(sr.global_magnitude(demo, 0.9991))
    sent = sent_by(explorer)
    level = {"policy": "global_magnitude", "sparsity": 0.4321}
    explorer._handle_custom_msg({"type": "level", "level": level}, [])
    assert [each["text"] for each in sent] == ["43.21 % is counted exactly."]
    # The page shows the level, unless the view has changed.
    assert explorer.state["sparsity"] == 0.9991
    # Round levels follow from the histograms to within an error, until the page asks for one.
    explorer.select(sparsity=0.6)
    assert explorer.layers()["uncertainty"].any()
    explorer._handle_custom_msg({"type": "level", "level": level | {"sparsity": 0.6}}, [])
    assert not explorer.layers()["uncertainty"].any()
    assert zeros(explorer) == pruned(sr.global_magnitude(demo, 0.6))
    header, _ = decode(explorer.payload)
    assert {0.637, 0.9991, 0.4321} < {*header["policies"][0]["levels"]}
    saved = sr.explore(sr.read_study(explorer.study.save(tmp_path / "study.json")))
    saved.select(sparsity=0.637)
    assert zeros(saved) == pruned(sr.global_magnitude(demo, 0.637))
    with pytest.warns(UserWarning, match=r"63.8 % is not kept in this study; .* is 63.7 %"):
        saved.select(sparsity=0.638)
    assert saved.state["sparsity"] == 0.637


def test_level_of_another_policy_becomes_a_variant(explorer, demo):
    explorer.select(policy="layerwise_magnitude")
    explorer.select(sparsity=0.5)
    assert zeros(explorer) == pruned(sr.layerwise_magnitude(demo, 0.5))
    explorer.add()
    assert explorer.state["variant"] == "CSR50Layerwise"
    assert zeros(explorer) == pruned(sr.layerwise_magnitude(demo, 0.5))


def test_level_becomes_exact_variants(explorer, demo):
    explorer.select(layout="bitmask")
    explorer.select(sparsity=0.45)
    explorer.add()
    assert explorer.state["layout"] == "bitmask"
    explorer.select(layout="csr", sparsity=0.45)
    explorer.add()
    pruning = sr.global_magnitude(demo, 0.45)
    want = sr.compare(sr.masked(pruning), sr.csr(pruning)).layers
    have = explorer.study.layers
    have = have[have["variant"].isin(["Masked45", "CSR45"])].reset_index(drop=True)
    assert have.equals(want)
    assert explorer.state["variant"] == "CSR45"
    header, _ = decode(explorer.payload)
    assert [each["name"] for each in header["variants"]][3:] == ["Masked45", "CSR45"]
    explorer.select(sparsity=0.45)
    explorer.add()
    assert len(explorer.study.variants) == 5


def test_a_level_is_not_taken_for_another_pruning_of_its_name(demo):
    other = sr.masked(sr.layerwise_magnitude(demo, 0.6), name="Masked60")
    explorer = sr.explore(sr.compare(sr.dense(demo), other))
    explorer.select(sparsity=0.6)
    before = explorer.state
    with pytest.raises(sr.SparsityReportError, match="two variants are called 'Masked60'"):
        explorer.add()
    assert (len(explorer.study.variants), explorer.state) == (2, before)


def test_layers_are_in_the_order_of_the_table(explorer):
    explorer.select(sort="-sparsity")
    rows = explorer.layers()
    shares = 1 - rows["weight_nonzero"] / rows["weight_total"]
    assert (np.diff(shares) <= 0).all()
    explorer.select(search="FC layers.1")
    assert set(explorer.layers()["module_name"]) == {
        f"model.decoder.layers.1.fc{n}" for n in (1, 2)
    }
    explorer.select(selection=LAYERS[:2][::-1])
    explorer.select(sort="module")
    assert explorer.layers()["module_name"].tolist() == LAYERS[:2]
    assert explorer.state["detail"] == LAYERS[0]
    explorer.select(selection=[], search="", sort="")
    explorer.select(modules="norm")
    assert set(explorer.layers()["group"]) == {"norm"}
    explorer.select(modules="block 3")
    assert {*explorer.layers()["block"]} == {3}
    assert set(explorer.layers()["group"]) == {"attention_linear", "mlp_linear", "norm"}


WRONG = [
    ("selection", ["model.decoder.layers.0.fc9"], r"'.*fc9' is not a valid choice.*fc\d, …"),
    ("selection", [["fc1"]], r"selection: \['fc1'\] is not a valid choice"),
    ("selection", 5, "selection: 5 is not a valid choice"),
    ("selection", "fc1", "selection: 'fc1' is not a valid choice"),
    ("selection", LAYERS[0], r"selection: '.*' is not a valid choice; use a list of names"),
    ("sparsity", 1.5, "sparsity: 1.5 is out of range"),
    ("sparsity", math.nan, "sparsity: nan is out of range"),
    ("sparsity", "half", "sparsity: 'half' is out of range"),
    ("metric", "beauty", "metric: .*; use one of sparsity, deviation, total"),
    ("variant", "Sparse", "use one of Dense, Masked30, CSR30, at level"),
    ("layout", "masked", "layout: 'masked' .* csr, bitmask, dense"),
    ("modules", "block 99", "modules: 'block 99' .* prunable, all, .*, block 3$"),
    ("detail", "fc9", "detail: 'fc9' is not a valid choice; use one of .*, …"),
    ("sort", "+total", "sort: "),
    ("search", 5, "search: 5 is not a valid choice"),
    ("colour", "red", "state: 'colour' is not a valid choice; use one of sparsity, policy"),
]


@pytest.mark.parametrize(("name", "value", "wording"), WRONG)
def test_wrong_value_changes_nothing(explorer, name, value, wording):
    before = explorer.state
    with pytest.raises(sr.SparsityReportError, match=wording):
        explorer.select(grouping="block", **{name: value})
    assert explorer.state == before
    # From the page, too: all goes back, with the reason.
    sent = sent_by(explorer)
    explorer.set_state({"state": before | {"grouping": "block", name: value}})
    assert explorer.state == before
    assert [message["type"] for message in sent] == ["error"]


def test_study_is_extended_by_add_only(explorer):
    with pytest.raises(TraitError, match="read-only"):
        explorer.study = sr.compare(sr.dense(Tiny()))


def test_page_keeps_changes_of_python_that_it_has_not_seen(explorer):
    before = explorer.state
    explorer.select(metric="total")
    shown = {"variant": AT_LEVEL, "sparsity": 0.5, "layout": "bitmask", "selection": LAYERS[:1]}
    explorer.set_state({"state": before | shown | {"changed": [*shown]}})
    assert explorer.state == before | shown | {"metric": "total"}


def test_messages_of_the_page(explorer):
    sent = sent_by(explorer)

    def answer(**message):
        explorer._handle_custom_msg(message, [])
        return sent.pop()

    explorer._handle_custom_msg({"type": "nothing"}, [])
    assert sent == []
    explorer.select(sparsity=0.6)
    said = answer(type="add", id="1")
    assert (said["type"], said["id"]) == ("said", "1")
    assert "CSR60" in said["text"]
    # A level is counted; the page shows it, unless something else was done meanwhile.
    before, level = explorer.state, {"policy": "global_magnitude", "sparsity": 0.617}
    assert answer(type="level", id="4", level=level)["text"] == "61.7 % is counted exactly."
    assert explorer.state == before
    assert 0.617 in explorer.study.by_policy["global_magnitude"].sparsities
    # Each request has an answer, also where the kernel fails.
    explorer.set_trait("study", replace(explorer.study, weights=None))
    refused = answer(type="add", id="2")
    assert (refused["type"], refused["id"]) == ("error", "2")
    assert "holds no weights" in refused["text"]
    explorer.add = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        answer(type="add", id="3")
    assert sent.pop() == {"type": "error", "id": "3", "text": say("explorer.request_failed")}


def test_reports_of_the_page_and_of_python(explorer, tmp_path):
    sent = sent_by(explorer)
    explorer.select(sparsity=0.6)
    explorer.add()
    written = sr.write_report(explorer, tmp_path / "report.md").read_text()
    assert "CSR60" in written
    assert sr.summarize(explorer) == sr.summarize(explorer.study)
    names = {path.name for path in sr.write_csv(explorer, tmp_path / "tables")}
    assert {"layers_csr60.csv", "groups_csr60.csv"} <= names
    explorer._handle_custom_msg({"type": "report", "kind": "html", "id": "7"}, [])
    begun, answer = sent[-2:]
    assert begun == {"type": "said", "text": "Writing the report…"}
    assert answer == {"type": "said", "id": "7"}
    # Other kinds, and paths among them, write nothing.
    with pytest.raises(KeyError):
        explorer._handle_custom_msg({"type": "report", "kind": "/../../x.html", "id": "8"}, [])
    assert sent[-1]["type"] == "error"
    assert sent[-1]["id"] == "8"


def test_study_from_a_file_needs_its_weights(demo_study, demo, minilm, tmp_path):
    read = sr.read_study(demo_study.save(tmp_path / "study.json"))
    explorer = sr.explore(read)
    explorer.select(sparsity=0.5)
    with pytest.raises(sr.SparsityReportError, match=r"explore\(study, weights=sr.load"):
        explorer.add()
    header, _ = decode(explorer.payload)
    assert header["histograms"] is None
    assert "weights=sr.load(" in header["whyNoHistogram"]
    sr.explore(read, weights=demo).add()
    with pytest.raises(sr.SparsityReportError, match="MiniLM has the fingerprint"):
        sr.explore(read, weights=minilm)
    with pytest.raises(sr.SparsityReportError, match="explore: the study has no layers"):
        sr.explore(replace(demo_study, layers=demo_study.layers.iloc[:0]))


def shown(explorer):
    """Return the values of the chart by block and projection."""
    (rows,) = explorer.chart.to_dict()["datasets"].values()
    return {(row["block"], row["projection"]): row["value"] for row in rows}


def test_chart_has_the_values_of_the_study(demo):
    pruning = sr.n_m(demo, 2, 4)
    study = sr.compare(sr.dense(demo), sr.masked(pruning), sr.csr(sr.global_magnitude(demo, 0.3)))
    explorer = sr.explore(study)
    explorer.select(variant="CSR30")
    cells = study.facts.cells("CSR30")
    expected = {(c.block, c.projection): c.sparsity for c in cells.itertuples()}
    assert shown(explorer) == pytest.approx(expected)
    explorer.select(metric="difference", against="Masked2:4")
    assert shown(explorer) == pytest.approx({key: n - 0.5 for key, n in expected.items()})
    explorer.select(metric="bytes_ratio")
    rows = study.facts.layers("CSR30").set_index("module_name")
    ratio = rows["stored_bytes"] / (4 * rows["total"])
    assert shown(explorer)["1", "fc1"] == pytest.approx(ratio[LAYERS[1]])
    weights = demo.tensor(f"{LAYERS[0]}.weight").double()
    spread = float((weights**2).mean() ** 0.5)
    explorer.select(metric="deviation")
    assert shown(explorer)["0", "fc1"] == pytest.approx(spread, rel=0.01)


def stack(layers, of):
    model = nn.Module()
    model.layers = nn.ModuleList(
        nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(of)) for _ in range(layers)
    )
    return sr.load(model)


@pytest.mark.parametrize("size", ["real", "large"])
def test_chart_is_saved_at_any_size(smollm2, size, tmp_path):
    weights = smollm2 if size == "real" else stack(100, 100)
    explorer = sr.explore(sr.compare(sr.dense(weights)))
    for form in ("svg", "png", "pdf"):
        explorer.chart.save(tmp_path / f"chart.{form}")
        assert (tmp_path / f"chart.{form}").stat().st_size > 5_000


def test_it_stands_in_a_box_before_it_is_shown(explorer):
    assert VBox([explorer]).get_state()["children"] == [f"IPY_MODEL_{explorer.model_id}"]


def test_page_without_a_kernel_starts_with_the_state(explorer):
    explorer.select(sparsity=0.6, layout="bitmask")
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    packed = re.search(r'data-payload="([^"]+)"', bundle["text/html"])[1]
    header, _ = decode(base64.b64decode(packed))
    assert header["start"] == explorer.state
    assert (explorer.state["sparsity"], explorer.state["layout"]) == (0.6, "bitmask")
    assert "CSR30" in bundle["text/plain"]


def on_meta():
    with torch.device("meta"):
        return sr.load(Tiny())


def zeroed():
    model = Tiny()
    nn.init.zeros_(model.layers[0]["fc1"].weight)
    return sr.load(model)


ODD = {
    "one pruned": lambda: sr.compare(sr.csr(sr.global_magnitude(sr.load(Tiny()), 0.5))),
    "zeroed": lambda: study_of(zeroed(), patterns=True),
    "all zero": lambda: study_of(sr.load(nn.Sequential(nn.Linear(3, 2)).requires_grad_(False))),
    "unknown values": lambda: sr.compare(sr.dense(on_meta())),
    "nothing prunable": lambda: sr.compare(sr.dense(nn.ModuleDict({"n": nn.LayerNorm(4)}))),
    "no blocks": lambda: study_of(sr.load(nn.ModuleDict({"fc1": nn.Linear(4, 4)}))),
    "two models": lambda: sr.compare(sr.dense(Tiny(), name="A"), sr.dense(nn.Linear(2, 3))),
    "float16": lambda: study_of(sr.load(Tiny(dtype=torch.float16)), 0.9),
    "seventeen": lambda: sr.compare(
        *(sr.masked(sr.global_magnitude(sr.load(Tiny()), s / 20)) for s in range(1, 18))
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ODD)
def test_odd_studies_can_be_explored(kind):
    explorer = sr.explore(ODD[kind]())
    header, _ = decode(explorer.payload)
    levels = [AT_LEVEL] if any("levels" in each for each in header["policies"]) else []
    for variant in [*(each["name"] for each in header["variants"]), *levels]:
        explorer.select(variant=variant)
        for modules in header["scopes"]:
            explorer.select(modules=modules)
            assert len(explorer.layers()) <= len(explorer.study.layers)
    explorer.select(modules="all")
    for metric in header["metrics"]:
        explorer.select(metric=metric["key"])
        json.dumps(explorer.chart.to_dict(), allow_nan=False)
