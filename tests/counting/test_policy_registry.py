"""A policy is a class of names and a function: everything else asks these two."""

import numpy as np
import pytest
from helpers import command
from payloads import decode

import sparsity_report as sr
from sparsity_report.cli.policy_grid import read_sparsity
from sparsity_report.counting import pruning_policies
from sparsity_report.counting.imported_masks import MaskCut
from sparsity_report.counting.n_m_patterns import Pattern
from sparsity_report.counting.policies.policy_registry import LEFT, PRUNE, prune
from sparsity_report.counting.pruning import Ladder, Pruning
from sparsity_report.counting.pruning_policies import Policy, read_method, read_option
from sparsity_report.viewer.copied_code import CopiedCode
from sparsity_report.viewer.study_payload import study_payload


class FirstWeights(Policy):
    """The first weights of each tensor."""

    name = "first_weights"
    options = ("first",)
    word = "First"
    function = "first_weights"


def prune_first(policy, weights, sparsity, inputs):  # noqa: ARG001
    cuts = {}
    for p in weights.prunable:
        pruned = round(sparsity * p.total)
        keep = np.arange(p.total) >= pruned
        cuts[p.name] = MaskCut(pruned, p.total - pruned, np.packbits(keep))
    return Pruning(weights, sparsity, policy, cuts)


def first_left(policy, counts):  # noqa: ARG001
    levels = counts.ladder.sparsities
    left = counts.totals[:, None] - np.rint(np.outer(counts.totals, levels)).astype(int)
    return "some weights are zero" if counts.zeros else Ladder(levels, left, left * 0)


@pytest.fixture
def registered(monkeypatch):
    policies = (*pruning_policies.POLICIES, FirstWeights)
    monkeypatch.setattr(pruning_policies, "POLICIES", policies)
    monkeypatch.setitem(PRUNE, FirstWeights, prune_first)
    monkeypatch.setitem(LEFT, FirstWeights, first_left)


@pytest.mark.usefixtures("registered")
def test_registered_policy_reaches_commands_study_page_and_viewer(demo, tmp_path):
    done = command("prune", "--policy", "first", "--sparsity", "25%", "-o", tmp_path / "p")
    assert done.returncode == 0, done.stderr
    pruned = sr.load(tmp_path / "p")
    for p in pruned.prunable:
        flat = pruned.tensor(p.name).flatten()
        assert not flat[: p.total // 4].any()
        assert flat[p.total // 4 :].all()

    done = command(
        "run", "--policy", "first,magnitude", "--sparsity", "0.5", "--write", "html,study",
        "-o", tmp_path / "r",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    saved = sr.read_study(tmp_path / "r" / "study.json")
    assert "Masked50First" in list(saved.variants["variant"])
    assert "first_weights" in (tmp_path / "r" / "report.html").read_text()

    study = sr.compare(sr.dense(demo), sr.masked(prune(read_option("first"), demo, 0.5, None)))
    rows = study.layers[study.layers["prunable"] & study.layers["variant"].eq("Masked50First")]
    assert (2 * rows["weight_nonzero"]).tolist() == rows["weight_total"].tolist()
    assert len(saved.facts.prunings) == 2
    levels = saved.by_policy["first_weights"]
    assert levels.left[:, levels.sparsities.index(0.25)].tolist() == [
        3 * p.total // 4 for p in demo.prunable
    ]
    (entry,) = [
        each
        for each in decode(study_payload(saved))[0]["policies"]
        if each["key"] == "first_weights"
    ]
    call = "sr.first_weights(weights, 0.25)"
    assert entry["label"] == "first_weights"
    assert call in entry["calls"]
    assert "--sparsity 0.25 --policy first" in entry["commands"]
    copied = CopiedCode(study)
    assert "sr.first_weights(weights, 0.5)" in copied.study_code
    row = study.variants.set_index("variant").loc["Masked50First"]
    assert copied.of_variant(row) == "--sparsity 0.5 --policy first"


def test_methods_of_a_study_are_read_back(demo):
    prunings = [
        sr.global_magnitude(demo, 0.3),
        sr.layerwise_magnitude(demo, None, allocation=lambda module: 0.25),  # noqa: ARG005
        sr.n_m(demo, 2, 4),
        sr.random_unstructured(demo, 0.3, seed=7),
        sr.existing_zeros(demo),
    ]
    for pruning in prunings:
        assert read_method(pruning.method) == pruning.policy
    calibrated = "wanda_one_pass, 2:4", "wanda_one_pass, owl", "wanda_one_pass"
    assert [read_method(method).option for method in calibrated] == ["wanda-2:4", "owl", "wanda"]
    for unknown in (None, "", "reap", "random, seed x", "random, a, b", "2:4, 2:4", "02:4"):
        assert read_method(unknown) is None


@pytest.mark.parametrize("name", ["magnitude", "layerwise", "2:4", "wanda", "owl", "wanda-4:8"])
def test_names_on_the_command_line_are_read_back(name):
    policy = read_option(name)
    assert policy.option == name
    assert policy.pattern == {"2:4": Pattern(2, 4), "wanda-4:8": Pattern(4, 8)}.get(name)


def test_python_and_command_prune_alike(demo):
    for name in ("magnitude", "layerwise", "2:4", "random"):
        policy = read_option(name)
        pruning = eval(policy.python(0.5), {"sr": sr, "weights": demo})
        assert pruning.policy == policy
        if policy.pattern:
            assert policy.command(0.5) == f"--policy {name}"
            continue
        assert policy.command(0.5) == f"--sparsity 0.5 --policy {name}"
        # All digits: fewer prune other weights.
        assert read_sparsity(policy.command(1 / 3).split()[1]) == 1 / 3
    assert read_option("wanda").python(0.5) is read_option("owl").command(0.5) is None
    assert read_method("random, seed 1").command(0.5) is None
    assert read_method("layerwise_magnitude, given").python(0.5) is None
    assert read_method("global_magnitude").python(None) is None
