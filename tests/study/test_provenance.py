"""Command, date and versions of a study: kept in its file and reports, apart from its identity."""

import json
import sys

import pytest
from helpers import command

import sparsity_report as sr
from sparsity_report.words.sentences import say


def run(folder, monkeypatch, seconds, *words):
    """Run at a given time; return the study file and the page."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(seconds))
    assert command("run", *words, "--out", folder).returncode == 0
    return [(folder / name).read_bytes() for name in ("study.json", "report.html")]


def test_equal_commands_at_one_time_write_equal_files(tmp_path, monkeypatch):
    words = ("--policy", "random", "--sparsity", "50%")
    one = run(tmp_path / "o", monkeypatch, 86_400, *words)
    assert run(tmp_path / "o", monkeypatch, 86_400, *words) == one
    later = run(tmp_path / "o", monkeypatch, 2 * 86_400, *words)
    first, second = (json.loads(file[0])["provenance"] for file in (one, later))
    assert (first["date"], second["date"]) == ("1970-01-02T00:00:00Z", "1970-01-03T00:00:00Z")
    assert first["seeds"] == [0]
    assert (first["study"], first["weights"]) == (second["study"], second["weights"])
    assert first["command"].startswith("sparsity-report run --policy random --sparsity 50% --out ")
    assert first["versions"]["sparsity-report"] == sr.__version__


def test_python_names_no_command_and_loaded_libraries_only(demo_study, monkeypatch):
    assert demo_study.provenance["command"] is None
    monkeypatch.delitem(sys.modules, "torch")
    study = sr.compare(sr.dense(sr.load()))
    assert study.provenance["versions"]["torch"] is None
    monkeypatch.undo()
    import torch

    assert study.with_measured().provenance["versions"]["torch"] == torch.__version__


def read_edited(study, file, edit):
    """Read a study whose file was edited."""
    data = json.loads(study.save(file).read_text(encoding="utf-8"))
    edit(data)
    file.write_text(json.dumps(data))
    return sr.read_study(file)


def test_a_study_that_is_read_and_extended_keeps_its_origin(demo_study, tmp_path):
    def edit(data):
        origin = {"command": "sparsity-report run <b>$x", "date": "2001-02-03T04:05:06Z"}
        data["provenance"] |= origin
        data["provenance"]["versions"] |= {"numpy": "1.0", "later": "9"}

    study = read_edited(demo_study, tmp_path / "s.json", edit).with_measured()
    for suffix, text in ((".html", "run &lt;b&gt;$x"), (".md", r"run \<b\>\$x")):
        report = sr.write_report(study, tmp_path / f"r{suffix}").read_text(encoding="utf-8")
        for part in (text, "2001-02-03T04:05:06Z", "numpy 1.0", study.fingerprint):
            assert part in report, part
    assert json.loads(study.save(tmp_path / "t.json").read_text())["provenance"]["study"] == (
        demo_study.fingerprint
    )


def test_files_without_provenance_are_read(demo_study, tmp_path):
    study = read_edited(demo_study, tmp_path / "s.json", lambda data: data.pop("provenance"))
    assert study.provenance is None
    page = sr.write_report(study, tmp_path / "r.md").read_text(encoding="utf-8")
    assert say("cite.unknown").split(",")[0] in page


@pytest.mark.parametrize(
    "wrong", [{"date": "yesterday"}, {"command": 3}, {"versions": []}, {"platform": None}]
)
def test_other_values_than_texts_are_refused(demo_study, tmp_path, wrong):
    with pytest.raises(sr.SparsityReportError, match="damaged"):
        read_edited(demo_study, tmp_path / "s.json", lambda data: data["provenance"].update(wrong))
