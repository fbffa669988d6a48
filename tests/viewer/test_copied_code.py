"""Copied tables and code that say the same again where they are pasted."""

import json
import re
import shlex

import pytest
import yaml

import sparsity_report as sr
from sparsity_report.viewer.copied_code import Shown, copied


@pytest.fixture(scope="module")
def study(demo):
    lots = sr.random_unstructured(demo, 0.5, seed=3)
    prunings = [sr.global_magnitude(demo, 0.3), lots, sr.n_m(demo, 2, 4)]
    return sr.compare(sr.dense(demo), *map(sr.masked, prunings), sr.csr(prunings[0]))


def at_level(study, sparsity, bounds=None):
    rows = study.at_level(sparsity)
    return Shown(study, None, sparsity, bounds or {}, rows, {"sparsity": sparsity})


def of_variant(study, variant):
    rows = study.facts.layers(variant)
    return Shown(study, variant, 0.0, {}, rows, {"variant": variant, "metric": "nonzero"})


def executed(text):
    place = {}
    exec(compile(text, "copied", "exec"), place)
    return place


def test_python_makes_the_study_and_the_explorer_again(study):
    place = executed(copied("python", of_variant(study, "Masked2:4")))
    assert place["study"].fingerprint == study.fingerprint
    assert place["explorer"].variant == "Masked2:4"
    assert place["explorer"].metric == "nonzero"


def test_python_of_a_level_prunes_it_exactly(study, demo):
    bounds = {"mlp_linear": 0.5}
    place = executed(copied("python", at_level(study, 0.4, bounds)))
    expected = sr.bounded_magnitude(demo, 0.4, bounds)
    assert place["pruning"].cuts == expected.cuts
    assert place["explorer"].sparsity == 0.4


def test_python_says_what_it_leaves_out(study, demo):
    imported = sr.import_mask(demo, {p.name: demo.tensor(p.name) > 0 for p in demo.prunable})
    more = study.with_variants(sr.masked(imported, name="evil\n'import os"))
    text = copied("python", of_variant(more, "CSR30"))
    assert re.search(r"# .*evil\\n.* is left out", text)
    assert executed(text)["explorer"].variant == "CSR30"


def test_json_holds_the_layers(study):
    told = json.loads(copied("json", at_level(study, 0.4)))
    rows = study.at_level(0.4)
    rows = rows[rows["prunable"]]
    nonzero = dict(zip(rows["module_name"], rows["weight_nonzero"], strict=True))
    assert {name: layer["nonzero"] for name, layer in told["layers"].items()} == nonzero
    assert (told["method"], told["sparsity"]) == ("global_magnitude", 0.4)


def test_the_recipe_lists_a_share_for_every_target(study):
    text = copied("recipe", at_level(study, 0.4))
    ((name, modifier),) = yaml.safe_load(text)["pruning_stage"]["pruning_modifiers"].items()
    assert name == "SparseGPTModifier"
    assert set(modifier) == {"sparsity", "mask_structure", "targets"}
    rows = study.at_level(0.4)
    rows = rows[rows["prunable"]]
    for module, total, left, share, target in zip(
        rows["module_name"], rows["weight_total"], rows["weight_nonzero"], modifier["sparsity"],
        modifier["targets"], strict=True,
    ):  # fmt: skip
        assert share == pytest.approx(1 - left / total, abs=1e-6)
        assert [m for m in rows["module_name"] if re.match(target[3:], m)] == [module]
    assert "no one-shot pruning by magnitude" in text


def test_the_recipe_of_a_pattern_is_a_mask_structure(study):
    recipe = yaml.safe_load(copied("recipe", of_variant(study, "Masked2:4")))
    modifier = recipe["pruning_stage"]["pruning_modifiers"]["SparseGPTModifier"]
    assert (modifier["sparsity"], modifier["mask_structure"]) == (0.5, "2:4")


def test_the_command_prunes_so(study):
    words = shlex.split(copied("thesis", of_variant(study, "CSR30")))
    assert words[:2] == ["sparsity-report", "run"]
    assert words[2:6] == ["--sparsity", "0.3", "--policy", "magnitude"]
    assert words[6:8] == ["--write", "thesis"]
    with pytest.raises(sr.SparsityReportError, match="command line does not support"):
        copied("thesis", at_level(study, 0.4, {"mlp_linear": 0.5}))


def test_nothing_pruned_has_no_recipe(study):
    with pytest.raises(sr.SparsityReportError, match="nothing is pruned"):
        copied("recipe", of_variant(study, "Dense"))
