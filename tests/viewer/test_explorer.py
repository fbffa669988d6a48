"""The explorer in Python: its traits, its arithmetic, what the page asks of it, and its end."""

import gc
import gzip
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Tiny, study_of
from ipywidgets.widgets import widget as registry
from payloads import decode
from torch import nn

import sparsity_report as sr
from sparsity_report.viewer.layer_values import AT_LEVEL, State

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


def state(explorer):
    return State._make(getattr(explorer, name) for name in State._fields)


def test_it_opens_on_the_first_pruning(explorer):
    assert (explorer.variant, explorer.sparsity, explorer.byte_layout) == ("CSR30", 0.3, "csr")
    assert (explorer.modules, explorer.against, explorer.policy) == (
        *("prunable", "Dense", "global_magnitude"),
    )


def test_a_dense_model_alone_opens_on_a_level(demo):
    explorer = sr.explore(sr.compare(sr.dense(demo)))
    assert (explorer.variant, explorer.sparsity) == (AT_LEVEL, 0.3)
    assert sum(zeros(explorer).values()) == round(0.3 * 786_432)


def test_the_slider_shows_a_level_and_a_variant_moves_the_slider(explorer):
    explorer.sparsity = 0.612
    assert (explorer.variant, explorer.sparsity, explorer.byte_layout) == (AT_LEVEL, 0.61, "csr")
    explorer.variant = "CSR30"
    assert (explorer.sparsity, explorer.byte_layout) == (0.3, "csr")
    explorer.policy = "N:4"
    assert (explorer.variant, explorer.sparsity, explorer.byte_layout) == (AT_LEVEL, 0.25, "csr")


@pytest.mark.parametrize("layout", ["csr", "bitmask", "dense"])
@pytest.mark.parametrize("variant", ["CSR30", AT_LEVEL])
def test_bytes_and_flops_are_those_of_the_layout(explorer, layout, variant):
    explorer.sparsity, explorer.modules = 0.7, "all"
    explorer.variant, explorer.byte_layout = variant, layout
    rows = explorer.layers()
    left, weights = rows["weight_nonzero"].astype(int), rows["weight_total"].astype(int)
    beside = 4 * (rows["total"] - weights)
    pointers = rows["row_pointers"].fillna(0).astype(int)
    size = {
        "csr": 8 * left + 4 * pointers,
        "bitmask": 4 * left + weights // 8,
        "dense": 4 * weights,
    }
    expected = beside + size[layout].where(rows["prunable"], 4 * weights)
    assert rows["stored_bytes"].tolist() == expected.tolist()
    assert rows["dense_bytes"].tolist() == (4 * rows["total"]).tolist()
    flops = 2 * (left if layout == "csr" else weights)
    inside = rows["prunable"]
    assert rows["flops_per_token"][inside].tolist() == flops[inside].tolist()


def test_a_budget_uses_the_layout_in_view(explorer):
    explorer.variant = "CSR30"
    assert explorer.within("2 MB").startswith("80 %: the model takes 1.96 MB as CSR")
    assert (explorer.sparsity, explorer.variant, explorer.byte_layout) == (0.8, AT_LEVEL, "csr")
    explorer.byte_layout, explorer.modules = "bitmask", "all"
    assert "as bitmask" in explorer.within("2 MB")
    assert explorer.layers()["stored_bytes"].sum() <= 2_000_000
    explorer.sparsity -= 0.01
    assert explorer.layers()["stored_bytes"].sum() > 2_000_000
    explorer.within("1 GB")
    assert (explorer.sparsity, explorer.byte_layout) == (0.0, "dense")
    with pytest.raises(sr.SparsityReportError, match="out of reach; dense tensors"):
        explorer.within("1 kB")


def test_a_level_of_another_policy_becomes_a_variant(explorer, demo):
    explorer.policy = "layerwise_magnitude"
    explorer.sparsity = 0.5
    assert zeros(explorer) == pruned(sr.layerwise_magnitude(demo, 0.5))
    explorer.add()
    assert explorer.variant == "CSR50Layerwise"
    assert zeros(explorer) == pruned(sr.layerwise_magnitude(demo, 0.5))


def test_undo_redo_and_reset(explorer):
    first = state(explorer)
    explorer.undo()
    assert state(explorer) == first
    explorer.metric = "total"
    explorer.sparsity = 0.6
    second = state(explorer)
    explorer.undo()
    assert (explorer.sparsity, explorer.metric) == (0.3, "total")
    explorer.redo()
    explorer.redo()
    assert state(explorer) == second
    explorer.reset()
    assert state(explorer) == first
    explorer.undo()
    assert state(explorer) == second


def test_a_level_becomes_exact_variants(explorer, demo):
    explorer.byte_layout = "csr"
    explorer.sparsity = 0.45
    explorer.add()
    pruning = sr.global_magnitude(demo, 0.45)
    want = sr.compare(sr.masked(pruning), sr.csr(pruning)).layers
    have = explorer.study.layers
    have = have[have["variant"].isin(["Masked45", "CSR45"])].reset_index(drop=True)
    assert have.equals(want)
    assert explorer.variant == "CSR45"
    header, _ = decode(explorer.payload)
    assert [each["name"] for each in header["variants"]][3:] == ["Masked45", "CSR45"]
    explorer.sparsity = 0.45
    explorer.add()
    assert len(explorer.study.variants) == 5


def test_layers_are_in_the_order_of_the_table(explorer):
    explorer.sort = "-sparsity"
    rows = explorer.layers()
    shares = 1 - rows["weight_nonzero"] / rows["weight_total"]
    assert (np.diff(shares) <= 0).all()
    explorer.search = "FC layers.1"
    assert set(explorer.layers()["module_name"]) == {
        f"model.decoder.layers.1.fc{n}" for n in (1, 2)
    }
    explorer.selection = LAYERS[:2][::-1]
    explorer.sort = "module"
    assert explorer.layers()["module_name"].tolist() == LAYERS[:2]
    assert explorer.detail == LAYERS[0]
    explorer.selection, explorer.search, explorer.sort = (), "", ""
    explorer.modules = "norm"
    assert set(explorer.layers()["group"]) == {"norm"}


WRONG = [
    ("selection", ["model.decoder.layers.0.fc9"], r"'.*fc9' is not a valid choice.*fc\d, …"),
    ("selection", [["fc1"]], r"selection: \['fc1'\] is not a valid choice"),
    ("selection", 5, "selection: 5 is not a valid choice"),
    ("selection", "fc1", "selection: 'fc1' is not a valid choice"),
    ("sparsity", 1.5, "sparsity: 1.5 is out of range"),
    ("sparsity", math.nan, "sparsity: nan is out of range"),
    ("metric", "beauty", "metric: .*; use one of sparsity, total"),
    ("variant", "Sparse", "use one of Dense, Masked30, CSR30, at level"),
    ("byte_layout", "masked", "byte_layout: 'masked' .* csr, bitmask, dense"),
    ("detail", "fc9", "detail: 'fc9' is not a valid choice; use one of .*, …"),
    ("sort", "+total", "sort: "),
]


@pytest.mark.parametrize(("name", "value", "wording"), WRONG)
def test_a_wrong_value_changes_nothing(explorer, name, value, wording):
    before = state(explorer)
    with pytest.raises(sr.SparsityReportError, match=wording):
        setattr(explorer, name, value)
    assert state(explorer) == before
    # From the page, together with a good one: both go back, with the reason.
    sent = sent_by(explorer)
    explorer.set_state({"grouping": "block", name: value})
    assert state(explorer) == before
    assert [message["type"] for message in sent] == ["error"]


def test_another_study_is_refused(explorer):
    with pytest.raises(sr.SparsityReportError, match="study: the new study must extend"):
        explorer.study = sr.compare(sr.dense(Tiny()))


def test_the_page_changes_several_traits_in_one_step(explorer):
    first = state(explorer)
    wanted = {"variant": AT_LEVEL, "sparsity": 0.5, "byte_layout": "bitmask"}
    explorer.set_state({**wanted, "selection": LAYERS[:1], "detail": LAYERS[1]})
    assert explorer.detail == LAYERS[1]
    assert (explorer.sparsity, explorer.byte_layout) == (0.5, "bitmask")
    explorer.set_state({"sparsity": 0.4, "variant": AT_LEVEL})
    assert explorer.sparsity == 0.4
    explorer.undo()
    explorer.undo()
    assert state(explorer) == first


def test_messages_of_the_page(explorer):
    sent = sent_by(explorer)

    def answer(**message):
        explorer._handle_custom_msg(message, [])
        return sent.pop()

    assert answer(type="copy", form="python") == {
        "type": "copied", "text": explorer.copied("python")
    }  # fmt: skip
    assert answer(type="copy", form="poem")["type"] == "error"
    drawn = answer(type="histogram", module=LAYERS[0])
    assert (drawn["module"], max(drawn["heights"])) == (LAYERS[0], 255)
    explorer._handle_custom_msg({"type": "histogram", "module": "nothing"}, [])
    assert sent == []
    assert "CSR30" in list(explorer.study.variants["variant"])
    explorer.sparsity = 0.6
    assert "CSR60" in answer(type="add")["text"]


def test_a_study_from_a_file_needs_its_weights(demo_study, demo, minilm, tmp_path):
    read = sr.read_study(demo_study.save(tmp_path / "study.json"))
    explorer = sr.explore(read)
    explorer.sparsity = 0.5
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


@pytest.mark.parametrize("policy", ["global_magnitude", "layerwise_magnitude", "N:4"])
def test_copied_python_makes_the_explorer_again(explorer, policy):
    explorer.policy = policy
    explorer.sparsity, explorer.metric, explorer.byte_layout = 0.5, "nonzero", "bitmask"
    explorer.selection = LAYERS[:2]
    place = {}
    exec(compile(explorer.copied("python"), "copied", "exec"), place)
    again = place["explorer"]
    assert state(again) == state(explorer)
    assert again.layers().equals(explorer.layers())
    assert place["pruning"].pruned == 786_432 // 2
    explorer.variant = "Masked30"
    exec(compile(explorer.copied("python"), "copied", "exec"), place)
    # A variant does not depend on the policy of levels.
    shown = {"policy": "", "sparsity": 0.0}
    assert state(place["explorer"])._replace(**shown) == state(explorer)._replace(**shown)


def shown(explorer):
    """Return the values of the chart by block and projection."""
    (rows,) = explorer.chart.to_dict()["datasets"].values()
    return {(row["block"], row["projection"]): row["value"] for row in rows}


def test_the_chart_has_the_values_of_the_study(demo):
    pruning = sr.n_m(demo, 2, 4)
    study = sr.compare(sr.dense(demo), sr.masked(pruning), sr.csr(sr.global_magnitude(demo, 0.3)))
    explorer = sr.explore(study, columns=pd.DataFrame({"module_name": LAYERS, "rank": range(4)}))
    explorer.variant = "CSR30"
    cells = study.facts.cells("CSR30")
    expected = {(c.block, c.projection): c.sparsity for c in cells.itertuples()}
    assert shown(explorer) == pytest.approx(expected)
    explorer.metric, explorer.against = "difference", "Masked2:4"
    assert shown(explorer) == pytest.approx({key: n - 0.5 for key, n in expected.items()})
    explorer.metric = "bytes_ratio"
    rows = study.facts.layers("CSR30").set_index("module_name")
    ratio = rows["stored_bytes"] / (4 * rows["total"])
    assert shown(explorer)["1", "fc1"] == pytest.approx(ratio[LAYERS[1]])
    explorer.metric = "rank"
    assert [shown(explorer)[str(n), "fc1"] for n in range(4)] == [0, 1, 2, 3]
    assert shown(explorer)["0", "fc2"] is None
    weights = demo.tensor(f"{LAYERS[0]}.weight").double()
    spread = float((weights**2).mean() ** 0.5)
    explorer.metric = "deviation"
    assert shown(explorer)["0", "fc1"] == pytest.approx(spread, rel=0.01)
    explorer.metric, explorer.sparsity = "beyond", 0.6
    cut = sr.global_magnitude(demo, 0.6).threshold
    more = float((weights.abs() <= cut).double().mean()) - math.erf(cut / spread / math.sqrt(2))
    assert shown(explorer)["0", "fc1"] == pytest.approx(more, abs=0.01)


def stack(layers, of):
    model = nn.Module()
    model.layers = nn.ModuleList(
        nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(of)) for _ in range(layers)
    )
    return sr.load(model)


@pytest.mark.parametrize("size", ["real", "large"])
def test_the_chart_is_saved_at_any_size(smollm2, size, tmp_path):
    weights = smollm2 if size == "real" else stack(100, 100)
    explorer = sr.explore(sr.compare(sr.dense(weights)))
    for form in ("svg", "png", "pdf"):
        explorer.chart.save(tmp_path / f"chart.{form}")
        assert (tmp_path / f"chart.{form}").stat().st_size > 5_000


def test_an_explorer_without_a_name_ends(demo_study):
    def run():
        explorer = sr.explore(demo_study)
        explorer._repr_mimebundle_()
        return explorer

    explorer = run()
    gc.collect()
    before = set(registry._instances)
    for _ in range(12):
        explorer = run()
    gc.collect()
    assert len(registry._instances) == len(before)
    assert explorer.model_id in registry._instances
    explorer._handle_custom_msg({"type": "closed"}, [])
    assert len(registry._instances) == len(before) - 1
    explorer.sparsity = 0.6
    view = explorer._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] in registry._instances


def test_not_displayed_it_is_no_widget_of_the_page(demo_study):
    before = len(registry._instances)
    explorer = sr.explore(demo_study)
    assert len(registry._instances) == before
    assert explorer.comm is None


def test_the_page_without_a_kernel_starts_with_the_state(explorer):
    explorer.sparsity, explorer.byte_layout = 0.6, "bitmask"
    header, _ = decode(explorer._page_payload())
    start = header["start"]
    assert (start["sparsity"], start["layout"]) == (0.6, "bitmask")
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    assert "<script>" in bundle["text/html"]
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
    metrics = explorer._choices("metric")
    for variant in explorer._choices("variant"):
        explorer.variant = variant
        for modules in explorer._choices("modules"):
            explorer.modules = modules
            assert len(explorer.layers()) <= len(explorer.study.layers)
    explorer.modules = "all"
    for explorer.metric in metrics:
        json.dumps(explorer.chart.to_dict(), allow_nan=False)
    assert gzip.decompress(explorer._page_payload())
