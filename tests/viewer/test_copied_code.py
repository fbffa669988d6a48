"""Statements and commands of the payload, which make the study and its levels again."""

import re
import shlex

import pytest
from helpers import Tiny
from payloads import decode

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.viewer.study_payload import study_payload


@pytest.fixture(scope="module")
def study(demo):
    lots = sr.random_unstructured(demo, 0.5, seed=3)
    prunings = [sr.global_magnitude(demo, 0.3), lots, sr.n_m(demo, 2, 4)]
    return sr.compare(sr.dense(demo), *map(sr.masked, prunings), sr.csr(prunings[0]))


def header(study):
    return decode(study_payload(study))[0]


def executed(text):
    place = {}
    exec(compile(text, "copied", "exec"), place)
    return place


def test_statements_make_the_study_again(study):
    place = executed(header(study)["code"])
    assert place["study"].fingerprint == study.fingerprint


def test_statements_keep_what_was_counted(demo):
    options = {"convention": "notebook", "context": 64, "patterns": True}
    study = sr.compare(sr.dense(demo), **options)
    again = executed(header(study)["code"])["study"]
    assert again.fingerprint == study.fingerprint
    assert (again.convention, again.context) == ("notebook", 64)
    assert again.patterns.equals(study.patterns)
    named = header(sr.compare(sr.dense(sr.load(DEMO, config=False))))
    assert "sr.load(config=False)" in named["code"]
    assert named["command"].endswith(" --by-names")


def test_a_module_in_memory_has_no_command(tmp_path):
    saved = sr.compare(sr.dense(Tiny())).save(tmp_path / "study.json")
    found = header(sr.read_study(saved))
    assert "weights = sr.load(model)" in found["code"]
    assert found["command"] is None


def test_calls_prune_to_their_levels(study):
    place = executed(header(study)["code"])
    policies = [each for each in header(study)["policies"] if "levels" in each]
    assert len(policies) == 4
    for policy in policies:
        for level, call in list(zip(policy["levels"], policy["calls"], strict=True))[1::33]:
            # Layerwise pruning rounds in each of 24 layers.
            assert eval(call, place).pruned == pytest.approx(level * 786_432, abs=12), call


def test_omitted_variants_are_named(study, demo):
    imported = sr.import_mask(demo, {p.name: demo.tensor(p.name) > 0 for p in demo.prunable})
    name = "evil\n'import os"
    found = header(study.with_variants(sr.masked(imported, name=name)))
    assert re.search(r"# .*evil\\n.* is left out", found["code"])
    assert list(executed(found["code"])["study"].variants["variant"]) == list(
        study.variants["variant"]
    )
    assert [v["name"] for v in found["variants"] if not v["isRepeated"]] == [name]


def test_commands_prune_so(study):
    found = header(study)
    assert shlex.split(found["command"]) == ["sparsity-report", "run"]
    commands = {variant["name"]: variant["command"] for variant in found["variants"]}
    assert commands["CSR30"] == "--sparsity 0.3 --policy magnitude"
    assert commands["Masked2:4"] == "--policy 2:4"
    assert (commands["Dense"], commands[study.variants["variant"][2]]) == (None, None)
    policies = {policy["key"]: policy for policy in found["policies"]}
    assert policies["layerwise_magnitude"]["commands"][40] == "--sparsity 0.4 --policy layerwise"
