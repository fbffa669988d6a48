"""Studies in files: read back as they were, upgraded, refused in one line; CSV is inert."""

import csv
import functools
import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import jsonschema
import measurements
import pandas as pd
import pytest
import saved
import torch
from helpers import Tiny, study_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparsity_report as sr
from sparsity_report.study.files.digest import EDITED, UNTOLD, digest_of
from sparsity_report.study.files.study_file import variant_stems, write_csv
from sparsity_report.study.files.upgrade import upgrade, uses_of
from sparsity_report.study.schema import MEASURED, json_schema, json_schema_text, typed
from sparsity_report.words.sentences import say_note

pytestmark = pytest.mark.slow(seconds=40)

HERE = Path(__file__).parent
SCHEMA = HERE.parents[1] / "docs" / "study.schema.json"
PARTS = ("variants", "layers", "groups", "totals", "storage")


@pytest.fixture
def study(tiny):
    return study_of(sr.load(tiny, name="tiny"), 0.5)


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
    study = study_of(sr.load(Tiny(), name="tiny"), 0.5, zstd=True)
    return study.save(tmp_path_factory.mktemp("whole") / "s.json").read_text()


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def measured(data, part, /, **cells):
    """Put in a table of one good row, but for the cells given."""
    frame = {
        "latency": measurements.latency,
        "speedups": measurements.speedups,
        "quality": lambda: measurements.quality().assign(layout="dense", top1=33 / 99),
        "sensitivity": lambda: measurements.sensitivity(1).assign(
            weight_total=156, pruned=78, perplexity=8.0 * math.exp(0.09)
        ),
        "continuations": measurements.continuations,
        "tasks": measurements.tasks,
    }[part]().head(1)
    row = frame.astype(object).where(frame.notna(), None).to_dict("records")[0] | cells
    data[part] = {"columns": [*row], "rows": [[*row.values()]]}


def set_cell(data, table, row, column, value):
    data[table]["rows"][row][data[table]["columns"].index(column)] = value


# Columns of times that versions before 6 did not have.
SINCE_6 = (
    "cache", "realised_low", "realised_high", "control", "control_low", "control_high",
    "weight_bytes", "bound_seconds", "bound_share", "crossover_low", "crossover_high", "cores",
    "others", "load", "frequency", "cache_bytes", "bandwidth",
)  # fmt: skip


# What can be computed again: each is refused, whoever has computed the digest anew.
CONTRADICTIONS = [
    (lambda d, part=part, cells=cells: measured(d, part, **cells), message)
    for part, cells, message in [
        ("latency", {"seconds": 1.8}, "seconds: is not between"),
        ("latency", {"realised_share": 0.9}, "realised_share: is not the ratio"),
        ("latency", {"realised_high": 0.9}, "realised_speedup: is not between realised_low and"),
        ("latency", {"realised_low": 1.1}, "realised_speedup: is not between realised_low and"),
        ("latency", {"control_low": 1.05}, "control_low: is more than control_high"),
        ("latency", {"control_low": 0}, "row 0, control_low: is less than"),
        ("latency", {"bound_seconds": 1.5, "bound_share": 0.75}, "bound_seconds: is not the ratio"),
        ("latency", {"bound_share": 0.6}, "bound_share: is not the ratio"),
        ("latency", {"crossover_low": 0.7}, "crossover_sparsity: is not between crossover_low and"),
        ("latency", {"cache": "on disk"}, "row 0, cache: is not one of in cache, out of cache"),
        ("latency", {"runs": 0}, "row 0, runs: is less than 1"),
        ("latency", {"tokens": 0}, "row 0, tokens: is less than 1"),
        ("latency", {"threads": 0}, "row 0, threads: is less than 1"),
        ("latency", {"scope": "model", "sparsity": 0.5}, "sparsity: is not that of the variant"),
        ("latency", {"promised_speedup": "1"}, "promised_speedup: is not a number"),
        ("speedups", {"realised_high": 0.9}, "realised_speedup: is not between realised_low and"),
        ("speedups", {"realised_speedup": 1.2, "realised_high": 1.3}, "speedup: is not 1 of what"),
        ("speedups", {"control_low": 1.05}, "control_low: is more than control_high"),
        ("speedups", {"against": "CSR50"}, "against: is not the variant whose speed-ups are 1"),
        ("speedups", {"measurement": 0}, "row 0, measurement: is less than 1"),
        ("quality", {"perplexity": 10.00001}, "exp\\(nll\\)"),
        ("quality", {"perplexity": None}, "exp\\(nll\\)"),
        ("quality", {"top1": 0.25}, "top1: is no share of those scored"),
        ("quality", {"scored": 98}, "scored: is not what window and stride"),
        ("quality", {"stride": 64}, "scored: is not what window and stride"),
        ("quality", {"stride": 65}, "stride: is more than window"),
        ("quality", {"stride": 0}, "row 0, stride: is less than 1"),
        ("quality", {"window": 101}, "window: is more than the tokens"),
        ("quality", {"window": 1}, "row 0, window: is less than 2"),
        ("quality", {"scored": 0}, "row 0, scored: is less than 1"),
        ("quality", {"layout": "csr"}, "layout: is not that of the variant"),
        ("quality", {"sparsity": 0.3}, "sparsity: is not that of the variant"),
        ("quality", {"model": "tiny", "method": "n_m"}, "method: is not that of the variant"),
        ("quality", {"protocol": "ours"}, "protocol: is not one of sliding, wikitext2-2048"),
        ("quality", {"protocol": "ptb"}, "stride: is not the protocol's"),
        ("quality", {"protocol": "ptb", "stride": 64}, "window: is not the protocol's"),
        ("quality", {"protocol": "wikitext2-max", "stride": 64}, "scored: is not what window"),
        (
            "quality",
            {"protocol": "c4-256x2048", "window": 2048, "stride": 2048, "tokens": 256 * 2048 + 1},
            "tokens: are more than the protocol's",
        ),
        ("quality", {"against": None}, "agreement: is measured against nothing"),
        ("quality", {"agreement": None}, "agreement: is measured against nothing"),
        ("quality", {"flips": None}, "flips: is measured against nothing"),
        ("quality", {"kl": 0.001}, "kl: is not 0 against itself"),
        ("quality", {"kl": -0.001}, "row 0, kl: is less than 0"),
        ("quality", {"agreement": 0.99}, "agreement: is no share of those scored"),
        ("quality", {"agreement": 98 / 99}, "kl: is not 0 against itself"),
        ("quality", {"flips": 1 / 99}, "flips: is more than other guesses"),
        ("quality", {"flips": 1 / 98, "agreement": 0.0}, "flips: is no share of those scored"),
        ("continuations", {"variant": "nobody"}, "variant"),
        ("continuations", {"continuation": None}, "continuation: is missing"),
        ("sensitivity", {"sparsity": 0.4}, "sparsity: is not pruned"),
        ("sensitivity", {"protocol": "ptb"}, "stride: is not the protocol's"),
        ("sensitivity", {"pruned": 157, "sparsity": 1.0}, "pruned: is more than weight_total"),
        ("sensitivity", {"nll_increase": 0.1}, "nll_increase: is not the ratio"),
        ("sensitivity", {"perplexity": 0.5}, "nll_increase: is not the ratio"),
        ("sensitivity", {"part": "block 2"}, "part: is none of the layers"),
        ("sensitivity", {"by": "group"}, "part: is none of the layers"),
        ("sensitivity", {"modules": 9}, "part: is none of the layers"),
        ("sensitivity", {"weight_total": 999, "pruned": 999, "sparsity": 1.0}, "none of the lay"),
        ("sensitivity", {"stride": 65}, "stride: is more than window"),
        ("tasks", {"variant": "x"}, "tasks, row 0, variant: is not among the variants"),
        ("tasks", {"value": 1.5}, "value: is an accuracy that is not between 0 and 1"),
        ("tasks", {"stderr": -0.1}, "row 0, stderr: is less than 0"),
        ("tasks", {"samples": 0}, "row 0, samples: is less than 1"),
        ("tasks", {"n_shot": "5"}, "n_shot: is not a whole number"),
    ]
] + [
    (partial(set_cell, table="patterns", row=7, column=column, value=value), message)
    for column, value, message in [
        ("sparsity", 0.123, "sparsity: is no share of the matrix"),
        ("sparsity", 0.0, "row 7, sparsity: is not that of the layer"),
        ("rows", 7, "row 7, "),
        ("rows", 2**62, "row 7, "),
        ("zero_rows", 0.01, "zero_rows: is no share of the matrix"),
        ("fill_4", 0.01, "fill_4: is no share of the blocks"),
        ("head_sparsity", [0.0, 1.0], "head_sparsity: is not the sparsity"),
        ("expected_sparsity", 0.01, "expected_sparsity: is not that of the threshold"),
        ("gap_padding", 10**6, "gap_padding: is more than a sixteenth"),
        ("tile_padding", 8, "tile_padding: does not fill up"),
        ("tile_padding", 1, "tile_padding: does not fill up"),
        ("zstd_bytes", 9, "zstd_bytes: is no size of a frame"),
        ("zstd_bytes", 10**6, "zstd_bytes: is no size of a frame"),
        ("zstd_bytes", None, "zstd_version: says of what is unknown"),
        ("zstd_version", None, "zstd_version: says of what is unknown"),
        ("zstd_version", "1.5", "zstd_version: is none"),
        ("zstd_version", "1.5.7 and more", "zstd_version: is none"),
    ]
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="x"), "is not a study"),
        (lambda d: d.update(version=8), "newer than this program's 7; upgrade"),
        (lambda d: d.update(version="5"), 'version is "5", not a whole number'),
        (lambda d: d.update(version=0), "version 0 never was"),
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
        (lambda d: set_cell(d, "layers", 3, "shape", "1"), "layers, row 3, shape"),
        (lambda d: set_cell(d, "layers", 3, "uses", None), "layers, row 3, uses: is missing"),
        (lambda d: set_cell(d, "layers", 3, "stored_bytes", -4), "row 3, stored_bytes: is less"),
        (lambda d: set_cell(d, "layers", 3, "total", None), "row 3, total: is missing"),
        (lambda d: set_cell(d, "layers", 3, "total", "70"), "row 3, total: is not a whole number"),
        (lambda d: set_cell(d, "layers", 3, "prunable", 1), "row 3, prunable: is not true or"),
        (
            lambda d: set_cell(d, "layers", 3, "weight_total", 71),
            "weight_total: is more than total",
        ),
        (lambda d: set_cell(d, "layers", 3, "total", float("nan")), "NaN is not a number"),
        (lambda d: set_cell(d, "layers", 3, "total", 10**4000), "a number of 4,001 digits"),
        (lambda d: set_cell(d, "layers", 3, "dtype", "float" + "9" * 5000), "no type of numbers"),
        (lambda d: set_cell(d, "layers", 3, "total", 2**70), "is damaged"),
        (lambda d: set_cell(d, "variants", 1, "model", "\ud800"), "text that is not Unicode"),
        (lambda d: d.update(notes=[functools.reduce(lambda x, _: [x], range(99), 1)]), "not text"),
        (lambda d: d.update(findings="x"), "findings: are not text"),
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
        (lambda d: measured(d, "latency", variant="x"), "latency, row 0, variant"),
        (lambda d: measured(d, "latency", seconds=-1.0), "row 0, seconds"),
        (lambda d: measured(d, "latency", seconds=None), "row 0, seconds: is missing"),
        (lambda d: measured(d, "latency", scope="all"), "row 0, scope: is not one of"),
        (lambda d: d.update(notes=[3]), "notes: are not text"),
        *CONTRADICTIONS,
    ],
)
def test_damaged_studies(whole, tmp_path, change, message):
    path = tmp_path / "s.json"
    path.write_text(whole)
    edit(path, change)
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        sr.read_study(path)
    assert "\n" not in str(caught.value)


def test_the_row_that_is_not_good_is_counted_in_the_whole_table(whole, tmp_path):
    data = json.loads(whole)
    measured(data, "quality", perplexity=None, nll=800.0)
    rows = data["quality"]["rows"]
    measured(data, "quality", perplexity=0.0, nll=0.0)
    data["quality"]["rows"][:0] = rows
    (tmp_path / "s.json").write_text(json.dumps(data))
    with pytest.raises(sr.SparsityReportError, match=r"quality, row 1, perplexity: is not exp"):
        sr.read_study(tmp_path / "s.json")


def reseal(path):
    """Compute the digest anew, as whoever means to deceive does."""
    edit(path, lambda data: data.update(digest=digest_of(data)))


@pytest.mark.parametrize("change", [change for change, _ in CONTRADICTIONS])
def test_what_contradicts_itself_is_refused_whatever_its_digest(whole, tmp_path, change):
    path = tmp_path / "s.json"
    path.write_text(whole)
    edit(path, change)
    reseal(path)
    with pytest.raises(sr.SparsityReportError):
        sr.read_study(path)


@pytest.mark.parametrize("part", MEASURED)
def test_the_rows_that_are_changed_there_are_good(whole, tmp_path, part):
    path = tmp_path / "s.json"
    path.write_text(whole)
    edit(path, lambda data: measured(data, part))
    reseal(path)
    assert len(getattr(sr.read_study(path, strict=True), part)) == 1


EDITS = [
    lambda d: d["notes"].append("peer reviewed"),
    lambda d: d["findings"].clear(),
    lambda d: d.update(written_by="me"),
    lambda d: set_cell(d, "variants", 0, "model", "GPT-5"),
    lambda d: set_cell(d, "variants", 1, "method", "n_m"),
    lambda d: measured(d, "quality", perplexity=2.0, nll=math.log(2.0)),
    lambda d: d.pop("digest"),
    lambda d: d.update(digest=None),
    lambda d: d.update(anything=1),
]


@pytest.mark.parametrize("change", EDITS)
def test_an_edited_study_says_so_wherever_it_is_shown(whole, tmp_path, change):
    path, again = tmp_path / "s.json", tmp_path / "again.json"
    path.write_text(whole)
    assert not sr.read_study(path, strict=True).notes
    edit(path, change)
    study = sr.read_study(path)
    assert study.notes[-1] == EDITED
    assert sr.summarize(study)[0].startswith("This study was edited by hand after it was written")
    with pytest.raises(sr.SparsityReportError, match=r"s\.json is not as it was written: this stu"):
        sr.read_study(path, strict=True)
    # Saved again it says so still, and once.
    study.save(again)
    assert sr.read_study(again, strict=True).notes == study.notes
    edit(again, change)
    assert sr.read_study(again).notes.count(EDITED) == 1
    with sr.speaking("fr"):
        assert sr.summarize(study)[0].startswith("Cette étude a été modifiée à la main")


def test_page_paper_thesis_and_explorer_say_that_a_study_was_edited(whole, tmp_path):
    (tmp_path / "s.json").write_text(whole)
    edit(tmp_path / "s.json", lambda data: data["notes"].append("peer reviewed"))
    study = sr.read_study(tmp_path / "s.json")
    said = "study was edited by hand after it was written"
    page = sr.write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count(said) == 2  # first of the summary, and among the notes of the model
    sr.write_thesis(study, tmp_path / "thesis")
    assert said in (tmp_path / "thesis" / "findings.tex").read_text(encoding="utf-8")
    assert said in repr(sr.explore(study)._repr_mimebundle_())
    changed = sr.diff(study, sr.compare(sr.dense(sr.load(Tiny()))))
    assert changed.sentences()[0] == "The study before was edited by hand after it was written."


def test_a_formatter_edits_nothing(whole, tmp_path):
    path = tmp_path / "s.json"
    data = dict(reversed(json.loads(whole).items()))
    path.write_text(json.dumps(data, indent=2, ensure_ascii=True))
    assert sr.read_study(path, strict=True).notes == ()


def test_what_is_said_twice_is_refused(whole, tmp_path):
    path = tmp_path / "s.json"
    path.write_text('{"notes": ["x"], ' + whole[1:])
    with pytest.raises(sr.SparsityReportError, match="an object has a name twice"):
        sr.read_study(path)


def test_an_older_version_cannot_tell_and_says_so():
    path = HERE / "version4.json"
    assert sr.read_study(path).notes == (UNTOLD,)
    with sr.speaking("fr"):
        assert say_note(UNTOLD).startswith("cette étude a été écrite par une version")
    with pytest.raises(sr.SparsityReportError, match="kept no digest"):
        sr.read_study(path, strict=True)


def of_version_1():
    return json.loads((HERE / "version1.json").read_text(encoding="utf-8"))


def left_apart(one, other):
    keys = ["module_name", "sparsity"]
    assert one.levels[keys].equals(other.levels[keys])
    return (one.levels["weight_nonzero"] - other.levels["weight_nonzero"]).abs()


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_an_older_version_is_what_this_one_makes_of_the_same_models(version):
    """The fixtures were written by ``saved.study()`` of the time, but for what was measured."""
    old, new = sr.read_study(HERE / f"version{version}.json"), saved.study()
    assert not old.facts.packings()
    # Shares of a bucket of magnitudes were rounded otherwise, within what they may be off.
    for frame in (old.levels, new.levels):
        assert (left_apart(old, new) <= frame["uncertainty"]).all()
    assert left_apart(old, new).max() <= 1
    assert old.by_level.totals["weight_nonzero"].equals(new.by_level.totals["weight_nonzero"])
    new = replace(new, levels=old.levels)
    if version < 3:  # how files packed weights was not written
        assert old.layers["packing"].isna().all()
        new = replace(new, layers=new.layers.assign(packing=None))
    if version < 6:  # no control was timed, and not told where weights came from
        assert old.latency[list(SINCE_6)].isna().all(axis=None)
        untold = new.latency.assign(**dict.fromkeys(SINCE_6))
        new = replace(new, latency=typed("latency", untold))
        assert set(old.facts.speeds["verdict"]) == {"same", "unknown"}
    # Heads of BERT's output projection were not known.
    unknown = old.patterns["head_sparsity"].isna() & new.patterns["head_sparsity"].notna()
    names = new.patterns.loc[unknown, "module_name"].str
    assert names.endswith("attention.output.dense").tolist() == [True] * (version < 4)
    # Nor how many zeros some layouts store, and nothing was compressed.
    later = ["zstd_bytes", "zstd_version", *["gap_padding", "tile_padding"] * (version < 6)]
    kept = {name: old.patterns[name] for name in ("head_sparsity", *later)}
    assert old.patterns[later].isna().all(axis=None)
    new = replace(new, patterns=new.patterns.assign(**kept))
    for part in (*PARTS, "levels", "patterns", "latency", "sensitivity"):
        pd.testing.assert_frame_equal(getattr(old, part), getattr(new, part), obj=part)
    assert (old.convention, old.context) == (new.convention, new.context)
    assert old.notes == ((UNTOLD,) if version < 5 else ())
    for part in ("tasks", "continuations"):
        assert (getattr(old, part) is None) == (version < 6)
        assert version < 6 or getattr(old, part).equals(getattr(new, part))
    assert old.at_level(0.37).equals(new.at_level(0.37))
    # What version 1 did not write of a perplexity is known where its variant is in the study.
    if version == 1:
        assert old.quality["model"].tolist() == ["tiny", "tiny", None]
        assert old.quality["method"].tolist() == [None, "global_magnitude", None]
    distance = ["against", "kl", "agreement", "flips"]
    assert version == 6 or old.quality[distance].isna().all(axis=None)
    assert old.quality["protocol"].tolist() == ["sliding"] * 3
    rest = new.quality.columns.difference(["model", "method", *distance])
    assert old.quality[rest].equals(new.quality[rest])


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_an_upgraded_study_is_saved_as_one_of_today(version, tmp_path):
    study = sr.read_study(HERE / f"version{version}.json")
    again = sr.read_study(study.save(tmp_path / "s.json"))
    assert json.loads((tmp_path / "s.json").read_text())["version"] == 7
    assert again.notes == study.notes == ((UNTOLD,) if version < 5 else ())
    assert (again.tasks is None) == (version < 6)
    for part in (*PARTS, "levels", "patterns", "latency", "quality", "sensitivity"):
        pd.testing.assert_frame_equal(getattr(study, part), getattr(again, part), obj=part)


@pytest.mark.parametrize(("used", "experts"), [(1, 3), (2, 7), (8, 128), (4, 60)])
def test_uses_of_version_1_are_found_in_its_flops(used, experts):
    for weights in (8, 64, 10**6, 10**9 + 7):
        row = {
            "row_pointers": 3, "flops_per_sequence": 0, "layout": "dense", "shape": (1, weights),
            "weight_total": weights, "flops_per_token": round(2 * weights * used / experts),
        }  # fmt: skip
        found = uses_of(row)
        assert round(2 * weights * found) == row["flops_per_token"]
        if weights >= 10**6:
            assert found == used / experts


@pytest.mark.parametrize("left", [None, 0])
def test_levels_of_version_1_are_dropped_where_uses_are_not_known(left):
    data = of_version_1()
    rows = data["layers"]["rows"] = [r for r in data["layers"]["rows"] if r[0] == "CSR30"]
    if left == 0:  # a layer in CSR without a nonzero shows no uses
        for column in ("weight_nonzero", "flops_per_token"):
            set_cell(data, "layers", 1, column, 0)
        assert rows[1][1] == "layers.0.self_attn.q_proj"
    upgrade(data)
    assert (data["levels"] is None) == (left == 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["layers"]["rows"][0].pop(), "is damaged"),
        (lambda d: d["layers"]["rows"].pop(), "is damaged"),
        (lambda d: d.pop("quality"), "is damaged"),
        (lambda d: d["layers"]["columns"].remove("columns"), "is damaged"),
        (lambda d: set_cell(d, "layers", 3, "nonzero", -1), "layers, row 3, nonzero"),
        (lambda d: set_cell(d, "layers", 3, "flops_per_token", "x"), "is damaged"),
    ],
)
def test_damaged_studies_of_version_1(tmp_path, change, message):
    data = of_version_1()
    change(data)
    (tmp_path / "s.json").write_text(json.dumps(data))
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        sr.read_study(tmp_path / "s.json")
    assert "\n" not in str(caught.value)


def test_the_schema_in_the_documentation_is_that_of_the_program():
    """If not: ``SCHEMA.write_text(json_schema_text())``."""
    assert SCHEMA.read_text(encoding="utf-8") == json_schema_text()


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The text of a study that has all there is."""
    return saved.study().save(tmp_path_factory.mktemp("s") / "s.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_saved_studies_are_valid(study, everything, schema, tmp_path):
    schema.validate(json.loads(everything))
    schema.validate(json.loads(study.save(tmp_path / "t.json").read_text()))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("layers"),
        lambda d: d.update(version=1),
        lambda d: d.update(context=0),
        lambda d: d["layers"]["columns"].reverse(),
        lambda d: d["layers"]["rows"][0].pop(),
        lambda d: d["layers"]["rows"][0].append(1),
        lambda d: set_cell(d, "layers", 1, "total", None),
        lambda d: set_cell(d, "layers", 1, "total", 1.5),
        lambda d: set_cell(d, "layers", 1, "total", -1),
        lambda d: set_cell(d, "layers", 1, "sparsity", 1.5),
        lambda d: set_cell(d, "layers", 1, "group", "my own"),
        lambda d: set_cell(d, "layers", 1, "shape", [-1]),
        lambda d: set_cell(d, "variants", 0, "layout", "bsr"),
        lambda d: set_cell(d, "latency", 0, "seconds", 0),
        lambda d: set_cell(d, "patterns", 0, "head_sparsity", [2]),
        lambda d: d["levels"]["weight_nonzero"][0].__setitem__(0, "many"),
    ],
)
def test_the_schema_refuses(everything, schema, change):
    data = json.loads(everything)
    change(data)
    assert next(schema.iter_errors(data), None) is not None


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


# A formula may follow whatever ends a line or a cell for some reader.
BREAKS = [
    "",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "\v",
    "\f",
    "\x00",
    "\x1c",
    "\x85",
    "\u2028",
    ";",
    "a;",
    'a";',
]


@pytest.mark.parametrize(
    "name", [*(f"{end}=1+1" for end in BREAKS), "+1", "-1", "@x", "\tx", "a\r"]
)
def test_csv_cells_are_inert(tmp_path, name):
    model = nn.Module()
    model.add_module(name, nn.Linear(2, 2))
    model.add_module(f"a{name}", nn.Linear(2, 2))
    study = sr.compare(sr.dense(model, name=f"{name}|' /C calc'!A0"))
    for path in write_csv(study, tmp_path):
        text = path.read_bytes().decode()
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        # Readers that know no quotes, and that take all of Unicode's line ends for one.
        rows += [line.split(separator) for line in text.splitlines() for separator in ",;\t"]
        assert len(text.splitlines()) == text.count("\n")
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "+", "@", "\t", "\r")), (path.name, cell)
            assert not re.match(r"-(?!\d)", cell), (path.name, cell)
            assert cell.isprintable(), (path.name, cell)
    layers = pd.read_csv(tmp_path / f"layers_{next(iter(variant_stems(study).values()))}.csv")
    assert len(layers) == 2


def test_cells_of_csv_that_are_harmless_stay_as_they_are(tmp_path):
    cells = {"a;b": "a;b", "é  x": "é  x", "'=1": "'=1", "a=b-c": "a=b-c", "a,b": "a,b"}
    cells |= {"\r=1": r"\r=1", "a\r=1": r"a\r=1", "=1;-2": "'=1;'-2", "\x1b[31m": r"\x1b[31m"}
    model = nn.Module()
    for name in cells:
        model.add_module(name, nn.Linear(2, 2))
    write_csv(sr.compare(sr.dense(model)), tmp_path)
    assert pd.read_csv(tmp_path / "layers_dense.csv")["module_name"].tolist() == [*cells.values()]


def test_variants_of_alike_names_do_not_overwrite_each_other(tiny, tmp_path):
    study = sr.compare(sr.dense(tiny, name="a/b"), sr.dense(tiny, name="A B"))
    names = {path.name for path in write_csv(study, tmp_path)}
    assert {"layers_a-b.csv", "layers_a-b-2.csv"} <= names
