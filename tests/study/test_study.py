import csv
import json

import pandas as pd
import pytest
import torch
from helpers import Tiny, study_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparsity_report as sr
from sparsity_report.study.study import MEASURED, write_csv


@pytest.fixture
def study(tiny):
    return study_of(sr.load(tiny, name="tiny"), 0.5)


def test_names_follow_the_level(tiny):
    weights = sr.load(tiny)
    names = {
        0.3: "Masked30",
        0.5: "Masked50",
        0.305: "Masked30.5",
        0.0: "Masked0",
        1.0: "Masked100",
    }
    for level, name in names.items():
        assert sr.masked(sr.global_magnitude(weights, level)).name == name
    assert sr.csr(sr.global_magnitude(weights, 0.29)).name == "CSR29"


def test_any_number_of_variants_of_any_models(tiny):
    others = [sr.dense(Tiny(blocks=b), name=f"Blocks{b}") for b in (1, 3)]
    pruned = sr.masked(sr.global_magnitude(sr.load(tiny), 0.3))
    study = sr.compare(sr.dense(tiny), pruned, *others)
    assert study.totals["variant"].tolist() == ["Dense", "Masked30", "Blocks1", "Blocks3"]
    assert study.pivot("modules").loc["attention_linear"].tolist() == [2, 2, 1, 3]


def test_names_must_differ(tiny):
    with pytest.raises(sr.SparsityReportError, match="two variants are called 'Dense'"):
        sr.compare(sr.dense(tiny), sr.dense(tiny))
    with pytest.raises(sr.SparsityReportError, match="at least one variant"):
        sr.compare()
    with pytest.raises(sr.SparsityReportError, match="no metric 'beauty'"):
        sr.compare(sr.dense(tiny)).pivot("beauty")


def test_masked_and_csr_want_a_pruning(tiny):
    for make in (sr.masked, sr.csr):
        with pytest.raises(sr.SparsityReportError, match="goes into dense"):
            make(sr.load(tiny))


def equal(one, other):
    for part in ("variants", "layers", "groups", "totals"):
        pd.testing.assert_frame_equal(getattr(one, part), getattr(other, part))
    return (one.convention, one.notes) == (other.convention, other.notes)


def test_round_trip(study, tmp_path):
    again = sr.read_study(study.save(tmp_path / "s.json"))
    assert equal(study, again)
    again.save(tmp_path / "t.json")
    assert (tmp_path / "s.json").read_bytes() == (tmp_path / "t.json").read_bytes()


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 1), st.sampled_from(["standard", "notebook"]), st.text(min_size=1))
def test_round_trip_of_anything(tmp_path_factory, level, convention, name):
    weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 4), "empty": empty_linear()}))
    pruning = sr.global_magnitude(weights, level)
    study = sr.compare(sr.dense(weights, name=name + "_"), sr.csr(pruning), convention=convention)
    file = study.save(tmp_path_factory.mktemp("s") / "study.json")
    assert equal(study, sr.read_study(file))


def test_unknown_is_null(tmp_path):
    study = sr.compare(sr.dense(nn.ModuleDict({"fc1": empty_linear()})))
    data = json.loads(study.save(tmp_path / "s.json").read_text())
    row = dict(zip(data["layers"]["columns"], data["layers"]["rows"][0], strict=True))
    assert (row["sparsity"], row["block"], row["tied_to"]) == (None, None, None)
    assert row["shape"] == [2, 0]


def empty_linear():
    layer = nn.Linear(1, 2, bias=False)
    layer.weight = nn.Parameter(torch.empty(2, 0))
    return layer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study with everything in it, as text."""
    torch.manual_seed(0)
    study = study_of(sr.load(Tiny(), name="tiny"), 0.5, patterns=True)
    return study.save(tmp_path_factory.mktemp("whole") / "s.json").read_text()


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def measured(data, part, **cells):
    columns = MEASURED[part]
    data[part] = {"columns": [*columns], "rows": [[cells.get(column) for column in columns]]}


def set_cell(data, table, row, column, value):
    data[table]["rows"][row][data[table]["columns"].index(column)] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="x"), "is not a study"),
        (lambda d: d.update(version=2), "newer than this program's 1; upgrade"),
        (lambda d: d.update(convention="x"), "convention must be one of"),
        (lambda d: d.pop("layers"), "is damaged"),
        (lambda d: d["layers"]["columns"].pop(), "is damaged"),
        (lambda d: set_cell(d, "layers", 3, "sparsity", 0.123), "layers, row 3, sparsity: 0.123"),
        (lambda d: set_cell(d, "layers", 3, "nonzero", 1), "layers, row 3, sparsity"),
        (lambda d: set_cell(d, "groups", 1, "total", 7), "groups, row 1, total: 7 should be"),
        (lambda d: set_cell(d, "totals", 0, "sparsity_model", 0.5), "totals, row 0"),
        (lambda d: set_cell(d, "layers", 0, "total", "many"), "is damaged"),
        (lambda d: d["variants"]["rows"].pop(), "layers, row .*, variant: is not among"),
        (lambda d: d["variants"]["rows"].append(d["variants"]["rows"][0]), "variants, row 3"),
        (lambda d: set_cell(d, "variants", 0, "variant", "Other"), "variants, row 0, variant: has"),
        (lambda d: set_cell(d, "variants", 1, "layout", "x"), "variants, row 1, layout"),
        (lambda d: set_cell(d, "variants", 1, "asked_sparsity", 30), "row 1, asked_sparsity"),
        (lambda d: set_cell(d, "variants", 1, "pruned", 157), "row 1, pruned: is more than"),
        (lambda d: set_cell(d, "variants", 1, "model", 3), "row 1, model: is not text"),
        (lambda d: set_cell(d, "layers", 3, "nonzero", -1), "layers, row 3, nonzero"),
        (lambda d: set_cell(d, "layers", 3, "weight_nonzero", 10**6), "row 3, weight_nonzero"),
        (lambda d: set_cell(d, "layers", 3, "module_name", "lm_head"), "module_name: occurs twice"),
        (lambda d: set_cell(d, "layers", 3, "group", "<b>"), "layers, row 3, group"),
        (lambda d: set_cell(d, "layers", 3, "shape", [1, "x"]), "layers, row 3, shape"),
        (lambda d: set_cell(d, "layers", 3, "total", float("nan")), "NaN is no number"),
        (lambda d: d["levels"]["modules"].pop(), "levels, weight_nonzero: is not one"),
        (lambda d: d["levels"]["modules"].__setitem__(0, "x"), "not the prunable ones"),
        (lambda d: d["levels"]["modules"].__setitem__(0, "layers.1.fc1"), "occurs twice"),
        (lambda d: d["levels"]["sparsities"].__setitem__(1, 0.5), "levels: a mod|levels: spars"),
        (lambda d: d["levels"]["weight_nonzero"][1].pop(), "is damaged"),
        (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(0, 61), "fc1 at 0, .*61 is not"),
        (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(3, 1), "fc1 at 0.04: more is left"),
        (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(3, -1), "fc1 at 0.03, .*-1 is"),
        (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(3, 1.5), "is not one whole"),
        (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(3, 2**70), "is not one whole"),
        (lambda d: d["levels"]["uncertainty"][1].__setitem__(3, -2), "uncertainty: -2 is not"),
        (
            lambda d: d["levels"].update(
                weight_nonzero=[[n[0]] * 100 for n in d["levels"]["weight_nonzero"]]
            ),
            "levels at 0.01: 0 zeros are fewer",
        ),
        (lambda d: d["patterns"]["rows"][0].pop(), "is damaged"),
        (lambda d: set_cell(d, "patterns", 0, "module_name", "x"), "patterns, row 0, module_name"),
        (lambda d: set_cell(d, "patterns", 2, "fill_8", 1.5), "patterns, row 2, fill_8"),
        (lambda d: set_cell(d, "patterns", 2, "head_sparsity", [2]), "row 2, head_sparsity"),
        (lambda d: d.update(latency={"columns": ["a", "a"], "rows": []}), "is damaged"),
        (lambda d: d.update(latency={"columns": ["a"], "rows": [[1, 2]]}), "is damaged"),
        (lambda d: d.update(quality={"columns": ["variant"], "rows": [["x"]]}), "is damaged"),
        (lambda d: measured(d, "quality", perplexity=5.0, nll=1.0, top1=0.5), "exp\\(nll\\)"),
        (lambda d: measured(d, "quality", perplexity=1.0, nll=0.0, top1=1.5), "row 0, top1"),
        (lambda d: measured(d, "latency", variant="x", seconds=1.0), "latency, row 0, variant"),
        (lambda d: measured(d, "latency", variant="Dense", seconds=-1.0), "row 0, seconds"),
        (lambda d: d.update(notes=[3]), "notes: are not text"),
    ],
)
def test_damaged_studies(whole, tmp_path, change, message):
    path = tmp_path / "s.json"
    path.write_text(whole)
    edit(path, change)
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        sr.read_study(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00"])
def test_not_a_study(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(sr.SparsityReportError, match=r"s\.json is"):
        sr.read_study(tmp_path / "s.json")
    with pytest.raises(sr.SparsityReportError, match="cannot read"):
        sr.read_study(tmp_path / "gone.json")


def test_csv_files(study, tmp_path):
    written = {path.name for path in write_csv(study, tmp_path / "structural_layers")}
    assert written == {
        *(
            f"{kind}_{v}.csv"
            for kind in ("layers", "groups")
            for v in ("dense", "masked50", "csr50")
        ),
        "comparison.csv",
        "totals.csv",
        "storage.csv",
        *(f"pivot_{metric}.csv" for metric in ("sparsity", "param_frac", "flops_per_token")),
    }
    read = pd.read_csv(tmp_path / "structural_layers" / "layers_masked50.csv")
    own = study.layers[study.layers["variant"] == "Masked50"]
    assert read["nonzero"].tolist() == own["nonzero"].tolist()
    assert read["sparsity"].equals(own["sparsity"].reset_index(drop=True))
    comparison = pd.read_csv(tmp_path / "structural_layers" / "comparison.csv")
    assert comparison["total"].sum() == 3 * sum(p.numel() for p in Tiny().parameters())


def test_csv_cells_are_inert(tmp_path):
    model = nn.Module()
    names = ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx"]
    for name in names:
        model.add_module(name, nn.Linear(2, 2))
    study = sr.compare(sr.dense(model, name="=cmd|' /C calc'!A0"))
    write_csv(study, tmp_path)
    for path in tmp_path.iterdir():
        with path.open(newline="") as file:
            for row in csv.reader(file):
                assert not any(cell[:1] in set("=+@\t\r") for cell in row), path.name
                assert not any(cell[:1] == "-" and not cell[1:2].isdigit() for cell in row)


def test_variants_of_alike_names_do_not_overwrite_each_other(tiny, tmp_path):
    study = sr.compare(sr.dense(tiny, name="a/b"), sr.dense(tiny, name="A B"))
    names = {path.name for path in write_csv(study, tmp_path)}
    assert {"layers_a-b.csv", "layers_a-b-2.csv"} <= names


def test_fingerprint_tells_models_apart(tiny):
    one = sr.compare(sr.dense(tiny)).variants.loc[0, "fingerprint"]
    with torch.no_grad():
        tiny.layers[0]["fc1"].weight[0, 0] *= 2
    two = sr.compare(sr.dense(tiny)).variants.loc[0, "fingerprint"]
    assert one != two
    assert len(one) == 16


def test_nothing_is_modified(tiny):
    before = {name: p.clone() for name, p in tiny.named_parameters()}
    weights = sr.load(tiny)
    study_of(weights)
    sr.csr(sr.global_magnitude(weights, 0.9)).module()
    assert all(torch.equal(p, before[name]) for name, p in tiny.named_parameters())
    assert sr.compare(sr.dense(weights)).layers.equals(sr.compare(sr.dense(tiny)).layers)
