"""Studies in files: read back as they were, refused in one line; CSV is inert."""

import contextlib
import functools
import json
import math
from dataclasses import replace
from functools import partial

import experts
import measurements
import pandas as pd
import pytest
import torch
from helpers import Tiny, study_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparsity_report as sr
from sparsity_report.study.files.csv_files import write_csv
from sparsity_report.study.files.json_files import digest_of
from sparsity_report.study.frames import EDITED_STUDY
from sparsity_report.study.schema import MEASURED
from sparsity_report.words.sentences import say


@pytest.fixture
def study(tiny):
    return study_of(sr.load(tiny, name="tiny"), 0.5)


def equal(one, other):
    for part in ("variants", "layers", "groups", "totals"):
        pd.testing.assert_frame_equal(getattr(one, part), getattr(other, part))
    return (one.convention, one.notes) == (other.convention, other.notes)


@settings(max_examples=15)
@given(st.floats(0, 1), st.sampled_from(["standard", "notebook"]), st.text(min_size=1))
def test_round_trip_of_anything(tmp_path_factory, level, convention, name):
    weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(3, 4), "empty": empty_linear()}))
    pruning = sr.global_magnitude(weights, level)
    study = sr.compare(sr.dense(weights, name=name + "_"), sr.csr(pruning), convention=convention)
    file = study.save(tmp_path_factory.mktemp("s") / "study.json")
    again = sr.read_study(file)
    assert equal(study, again)
    assert again.save(file.with_name("again.json")).read_bytes() == file.read_bytes()


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


def reseal(path):
    """Compute the digest of an edited file anew."""
    edit(path, lambda data: data.update(digest=digest_of(data)))


def measured(data, part, /, **cells):
    """Put in a table of one good row, but for the cells given."""
    frame = {
        "latency": measurements.latency,
        "quality": lambda: measurements.quality().assign(layout="dense", top1=33 / 99),
        "sensitivity": lambda: measurements.sensitivity(1).assign(
            weight_total=156, pruned=78, perplexity=8.0 * math.exp(0.09)
        ),
        "continuations": measurements.continuations,
        "tasks": measurements.tasks,
        "experts": lambda: experts.table("Dense", 1, 2).assign(module_name="layers.0.fc1"),
    }[part]().head(1)
    row = frame.astype(object).where(frame.notna(), None).to_dict("records")[0] | cells
    data[part] = {"columns": [*row], "rows": [[*row.values()]]}


def set_cell(data, table, row, column, value):
    data[table]["rows"][row][data[table]["columns"].index(column)] = value


# Numbers that no study can hold: each is refused, also with a digest of the edited content.
IMPOSSIBLE = [
    (lambda d, part=part, cells=cells: measured(d, part, **cells), message)
    for part, cells, message in [
        ("latency", {"seconds": 1.8}, "seconds_low: is more than seconds"),
        ("latency", {"seconds_high": 1.9}, "seconds: is more than seconds_high"),
        ("latency", {"realised_high": 0.9}, "realised_speedup: is more than realised_high"),
        ("latency", {"realised_low": 1.1}, "realised_low: is more than realised_speedup"),
        ("latency", {"control_low": 1.05}, "control_low: is more than control_high"),
        ("latency", {"control_low": 0}, "row 0, control_low: is less than"),
        ("latency", {"crossover_low": 0.7}, "crossover_low: is more than crossover_sparsity"),
        ("latency", {"cache": "on disk"}, "row 0, cache: is not one of in cache, out of cache"),
        ("latency", {"runs": 0}, "row 0, runs: is less than 1"),
        ("latency", {"promised_speedup": "1"}, "promised_speedup: is not a number"),
        ("quality", {"scored": 101}, "scored: is more than tokens"),
        ("quality", {"stride": 65}, "stride: is more than window"),
        ("quality", {"window": 101}, "window: is more than tokens"),
        ("quality", {"window": 1}, "row 0, window: is less than 2"),
        ("quality", {"protocol": "ours"}, "protocol: is not one of sliding, wikitext2-2048"),
        ("quality", {"against": None}, "agreement: is missing, or compared with nothing"),
        ("quality", {"agreement": None}, "agreement: is missing, or compared with nothing"),
        ("quality", {"flips": None}, "flips: is missing, or compared with nothing"),
        ("quality", {"kl": -0.001}, "row 0, kl: is less than 0"),
        ("continuations", {"variant": "nobody"}, "variant"),
        ("continuations", {"continuation": None}, "continuation: is missing"),
        ("sensitivity", {"pruned": 157, "sparsity": 1.0}, "pruned: is more than weight_total"),
        ("tasks", {"samples": 0}, "row 0, samples: is less than 1"),
        ("tasks", {"n_shot": "5"}, "n_shot: is not a whole number"),
        ("experts", {"is_kept": 1}, "row 0, is_kept: is not true or false"),
    ]
] + [
    (
        partial(set_cell, table="patterns", row=7, column="rows", value=2**62),
        "row 7, rows: the matrix is larger than its layer",
    )
]


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda d: d.update(format="x"), "is not a study"),
     (lambda d: d.update(version=4), "version 4 is newer than this program's 3; upgrade"),
     (lambda d: d.update(version=2), "version 2 is older than this program's 3; make the study"),
     (lambda d: d.update(version="1"), 'version is "1", not a whole number'),
     (lambda d: d.update(version=0), "version is 0, not a whole number from 1"),
     (lambda d: d.update(convention="x"), "convention must be one of"),
     (lambda d: d.pop("layers"), "is damaged"),
     (lambda d: d["layers"]["columns"].pop(), "is damaged"),
     (lambda d: set_cell(d, "layers", 3, "sparsity", 0.123), "layers, row 3, sparsity: 0.123"),
     (lambda d: set_cell(d, "layers", 3, "nonzero", 1), "layers, row 3, sparsity"),
     (lambda d: set_cell(d, "groups", 1, "total", 7), "groups, row 1, total: 7 should be"),
     (lambda d: set_cell(d, "totals", 0, "sparsity_model", 0.5), "totals, row 0"),
     (lambda d: d["variants"]["rows"].pop(), "layers, row .*, variant: is not among"),
     (lambda d: d["variants"]["rows"].append(d["variants"]["rows"][0]), "variants, row 3"),
     (lambda d: set_cell(d, "variants", 0, "variant", "Other"), "variants, row 0, variant: has"),
     (lambda d: set_cell(d, "variants", 1, "layout", "x"), "variants, row 1, layout"),
     (lambda d: set_cell(d, "variants", 1, "asked_sparsity", 30), "row 1, asked_sparsity"),
     (lambda d: set_cell(d, "variants", 1, "model", 3), "row 1, model: is not text"),
     (lambda d: set_cell(d, "layers", 3, "weight_nonzero", 10**6), "row 3, weight_nonzero"),
     (lambda d: set_cell(d, "layers", 3, "module_name", "lm_head"), "module_name: occurs twice"),
     (lambda d: set_cell(d, "layers", 3, "group", "<b>"), "layers, row 3, group"),
     (lambda d: set_cell(d, "layers", 3, "shape", [1, "x"]), "layers, row 3, shape"),
     (lambda d: set_cell(d, "layers", 3, "uses", None), "layers, row 3, uses: is missing"),
     (lambda d: set_cell(d, "layers", 3, "stored_bytes", -4), "row 3, stored_bytes: is less"),
     (lambda d: set_cell(d, "layers", 3, "total", None), "row 3, total: is missing"),
     (lambda d: set_cell(d, "layers", 3, "total", "70"), "row 3, total: is not a whole number"),
     (lambda d: set_cell(d, "layers", 3, "prunable", 1), "row 3, prunable: is not true or"),
     (lambda d: set_cell(d, "layers", 3, "weight_total", 71), "weight_total: is more than total"),
     (lambda d: set_cell(d, "layers", 3, "total", float("nan")), "NaN is not a number"),
     (lambda d: set_cell(d, "layers", 3, "total", 10**4000), "a number of 4,001 digits"),
     (lambda d: set_cell(d, "layers", 3, "dtype", "float" + "9" * 5000), "no type of numbers"),
     (lambda d: set_cell(d, "layers", 3, "total", 2**70), "is damaged"),
     (lambda d: set_cell(d, "variants", 1, "model", "\ud800"), "text that is not Unicode"),
     (lambda d: d.update(notes=[functools.reduce(lambda x, _: [x], range(99), 1)]),
      "notes: are not a list of texts"),
     (lambda d: d.update(findings="x"), "findings: are not a list of texts"),
     (lambda d: d["levels"]["modules"].pop(), "levels, weight_nonzero: is not one"),
     (lambda d: d["levels"]["modules"].__setitem__(0, "x"), "not the prunable ones"),
     (lambda d: d["levels"]["modules"].__setitem__(0, "layers.1.fc1"), "occurs twice"),
     (lambda d: d["levels"]["sparsities"].__setitem__(1, 0.5), "levels: a mod|levels: spars"),
     (lambda d: d["levels"]["weight_nonzero"][1].pop(), "is damaged"),
     (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(0, 61), "fc1 at 0, .*61 is neg"),
     (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(3, 1),
      "fc1 at 0.04, .*more than there"),
     (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(3, -1), "fc1 at 0.03, .*-1 is"),
     (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(3, 1.5), "is not one whole"),
     (lambda d: d["levels"]["weight_nonzero"][1].__setitem__(3, 2**70), "is not one whole"),
     (lambda d: d["levels"]["uncertainty"][1].__setitem__(3, -2), "uncertainty: -2 is"),
     (lambda d: d["patterns"]["rows"][0].pop(), "is damaged"),
     (lambda d: set_cell(d, "patterns", 0, "module_name", "x"), "patterns, row 0, module_name"),
     (lambda d: set_cell(d, "patterns", 2, "fill_8", 1.5), "patterns, row 2, fill_8"),
     (lambda d: set_cell(d, "patterns", 2, "head_sparsity", [2]), "row 2, head_sparsity"),
     (lambda d: d.update(latency={"columns": ["a", "a"], "rows": []}), "is damaged"),
     (lambda d: d.update(latency={"columns": ["a"], "rows": [[1, 2]]}), "is damaged"),
     (lambda d: d.update(quality={"columns": ["variant"], "rows": [["x"]]}), "is damaged"),
     (lambda d: measured(d, "quality", perplexity=1.0, nll=0.0, top1=1.5), "row 0, top1"),
     (lambda d: measured(d, "latency", variant="x"), "latency, row 0, variant"),
     (lambda d: measured(d, "latency", seconds=None), "row 0, seconds: is missing"),
     (lambda d: measured(d, "latency", scope="all"), "row 0, scope: is not one of"), *IMPOSSIBLE],
)  # fmt: skip
def test_damaged_studies(whole, tmp_path, change, message):
    path = tmp_path / "s.json"
    path.write_text(whole)
    edit(path, change)
    with contextlib.suppress(ValueError):  # NaN has no digest
        reseal(path)
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        sr.read_study(path)
    assert "\n" not in str(caught.value)


def test_the_row_that_is_not_good_is_counted_in_the_whole_table(whole, tmp_path):
    data = json.loads(whole)
    measured(data, "quality", perplexity=None, nll=800.0)
    rows = data["quality"]["rows"]
    measured(data, "quality", scored=101)
    data["quality"]["rows"][:0] = rows
    (tmp_path / "s.json").write_text(json.dumps(data))
    with pytest.raises(sr.SparsityReportError, match=r"quality, row 1, scored: is more than"):
        sr.read_study(tmp_path / "s.json")


@pytest.mark.parametrize("part", MEASURED)
def test_the_rows_that_are_changed_there_are_good(whole, tmp_path, part):
    path = tmp_path / "s.json"
    path.write_text(whole)
    edit(path, lambda data: measured(data, part))
    reseal(path)
    assert len(getattr(sr.read_study(path, strict=True), part)) == 1


REVIEWED = "peer reviewed"
EDITS = [
    lambda d: d["notes"].append(REVIEWED), lambda d: d["findings"].clear(),
    lambda d: d.update(written_by="me"), lambda d: set_cell(d, "variants", 0, "model", "GPT-5"),
    lambda d: set_cell(d, "variants", 1, "method", "n_m"),
    lambda d: measured(d, "quality", perplexity=2.0, nll=math.log(2.0)), lambda d: d.pop("digest"),
    lambda d: d.update(digest=None), lambda d: d.update(anything=1),
]  # fmt: skip


@pytest.mark.parametrize("change", EDITS)
def test_an_edited_study_says_so_wherever_it_is_shown(whole, tmp_path, change):
    path, again = tmp_path / "s.json", tmp_path / "again.json"
    path.write_text(whole)
    assert not sr.read_study(path, strict=True).notes
    edit(path, change)
    study = sr.read_study(path)
    assert study.notes[-1] == say(EDITED_STUDY)
    assert sr.summarize(study)[0].startswith("This study was edited by hand after it was written")
    with pytest.raises(
        sr.SparsityReportError, match=r"s\.json: this study was edited by hand after"
    ):
        sr.read_study(path, strict=True)
    # Saved again it says so still, and once.
    study.save(again)
    assert sr.read_study(again, strict=True).notes == study.notes
    edit(again, change)
    assert sr.read_study(again).notes.count(say(EDITED_STUDY)) == 1


def test_page_paper_thesis_and_explorer_say_that_a_study_was_edited(whole, tmp_path):
    (tmp_path / "s.json").write_text(whole)
    edit(tmp_path / "s.json", lambda data: data["notes"].append(REVIEWED))
    study = sr.read_study(tmp_path / "s.json")
    said = "study was edited by hand after it was written"
    page = sr.write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count(said) == 2  # first of the summary, and among the notes of the model
    sr.write_thesis(study, tmp_path / "thesis")
    assert said in (tmp_path / "thesis" / "findings.tex").read_text(encoding="utf-8")
    assert said in repr(sr.explore(study)._repr_mimebundle_())


def test_a_formatter_edits_nothing(whole, tmp_path):
    path = tmp_path / "s.json"
    data = dict(reversed(json.loads(whole).items()))
    path.write_text(json.dumps(data, indent=2, ensure_ascii=True))
    assert sr.read_study(path, strict=True).notes == ()


def test_duplicate_keys_are_refused(whole, tmp_path):
    path = tmp_path / "s.json"
    path.write_text('{"notes": [], ' + whole[1:])
    with pytest.raises(sr.SparsityReportError, match="an object has a name twice"):
        sr.read_study(path)


def test_files_of_another_kind_are_refused_by_name(whole, tmp_path):
    """A file that begins as a study does is a damaged one; all else is something else."""
    (tmp_path / "page.html").write_text("<!doctype html>")
    (tmp_path / "x.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}" + b"\xff" * 4000)
    (tmp_path / "empty.json").write_text("")
    with pytest.raises(sr.SparsityReportError, match=r"is a folder; give the study.json in"):
        sr.read_study(tmp_path)
    for name in ("page.html", "x.safetensors", "empty.json"):
        with pytest.raises(sr.SparsityReportError, match=f"{name}: is not a study of .*; give"):
            sr.read_study(tmp_path / name)
    for text in (whole.encode()[:-9], b'{"a": "\xff' + b"a" * 4000):
        (tmp_path / "cut.json").write_bytes(text)
        with pytest.raises(sr.SparsityReportError, match=r"cut.json is damaged: ") as refused:
            sr.read_study(tmp_path / "cut.json")
        assert len(str(refused.value)) < 300


def test_notes_are_read_as_they_were(study, tmp_path):
    notes = (say("note.csr_kept_masked", count=2, all=3, names=["a", "b"]), "x")
    noted = replace(study, notes=notes)
    assert sr.read_study(noted.save(tmp_path / "s.json"), strict=True).notes == notes


def test_csv_files(study, tmp_path):
    written = {path.name for path in write_csv(study, tmp_path / "structural_layers")}
    assert written == {
        *(
            f"{kind}_{v}.csv"
            for kind in ("layers", "groups")
            for v in ("dense", "masked50", "csr50")
        ),
        "comparison.csv", "totals.csv", "storage.csv",
        *(f"pivot_{metric}.csv" for metric in ("sparsity", "param_frac", "flops_per_token")),
    }  # fmt: skip
    read = pd.read_csv(tmp_path / "structural_layers" / "layers_masked50.csv")
    own = study.layers[study.layers["variant"] == "Masked50"]
    assert read["nonzero"].tolist() == own["nonzero"].tolist()
    assert read["sparsity"].equals(own["sparsity"].reset_index(drop=True))
    comparison = pd.read_csv(tmp_path / "structural_layers" / "comparison.csv")
    assert comparison["total"].sum() == 3 * sum(p.numel() for p in Tiny().parameters())


def test_cells_of_csv_that_are_harmless_stay_as_they_are(tmp_path):
    cells = {"a;b": "a;b", "é  x": "é  x", "a=b-c": "a=b-c", "a,b": "a,b"}
    cells |= {
        "'=1": "''=1", "\r=1": r"\r=1", "a\r=1": r"a\r=1", "=1;-2": "'=1;'-2",
        "\x1b[31m": r"\x1b[31m",
    }  # fmt: skip
    model = nn.Module()
    for name in cells:
        model.add_module(name, nn.Linear(2, 2))
    write_csv(sr.compare(sr.dense(model)), tmp_path)
    assert pd.read_csv(tmp_path / "layers_dense.csv")["module_name"].tolist() == [*cells.values()]


def test_variants_of_alike_names_do_not_overwrite_each_other(tiny, tmp_path):
    study = sr.compare(sr.dense(tiny, name="a/b"), sr.dense(tiny, name="A B"))
    names = {path.name for path in write_csv(study, tmp_path)}
    assert {"layers_a-b.csv", "layers_a-b-2.csv"} <= names
