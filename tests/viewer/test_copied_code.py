"""Copied tables and code that say the same again where they are pasted."""

import re
import shlex

import pytest

import sparsity_report as sr
from sparsity_report.viewer.copied_code import Shown, as_command, as_python


@pytest.fixture(scope="module")
def study(demo):
    lots = sr.random_unstructured(demo, 0.5, seed=3)
    prunings = [sr.global_magnitude(demo, 0.3), lots, sr.n_m(demo, 2, 4)]
    return sr.compare(sr.dense(demo), *map(sr.masked, prunings), sr.csr(prunings[0]))


def at_level(study, sparsity):
    return Shown(study, None, sparsity, {"sparsity": sparsity})


def of_variant(study, variant):
    return Shown(study, variant, 0.0, {"variant": variant, "metric": "nonzero"})


def executed(text):
    place = {}
    exec(compile(text, "copied", "exec"), place)
    return place


def test_python_makes_the_study_and_the_explorer_again(study):
    place = executed(as_python(of_variant(study, "Masked2:4")))
    assert place["study"].fingerprint == study.fingerprint
    assert place["explorer"].variant == "Masked2:4"
    assert place["explorer"].metric == "nonzero"


def test_python_of_a_level_prunes_it_exactly(study, demo):
    place = executed(as_python(at_level(study, 0.4)))
    assert place["pruning"].cuts == sr.global_magnitude(demo, 0.4).cuts
    assert place["explorer"].sparsity == 0.4


def test_python_says_what_it_leaves_out(study, demo):
    imported = sr.import_mask(demo, {p.name: demo.tensor(p.name) > 0 for p in demo.prunable})
    more = study.with_variants(sr.masked(imported, name="evil\n'import os"))
    text = as_python(of_variant(more, "CSR30"))
    assert re.search(r"# .*evil\\n.* is left out", text)
    assert executed(text)["explorer"].variant == "CSR30"


def test_the_command_prunes_so(study):
    words = shlex.split(as_command(of_variant(study, "CSR30")))
    assert words[:2] == ["sparsity-report", "run"]
    assert words[2:] == ["--sparsity", "0.3", "--policy", "magnitude", "--out", "results"]
    assert shlex.split(as_command(at_level(study, 0.4)))[3] == "0.4"
    with pytest.raises(sr.SparsityReportError, match="command line does not support"):
        as_command(of_variant(study, study.variants["variant"][2]))
