"""Actions of the explorer: budgets, bounds of layers, and copied code."""

import json

import numpy as np
import pytest
from explored import widgets

import sparsity_report as sr

pytestmark = pytest.mark.slow


@pytest.fixture
def explorer(demo_study):
    built = sr.explore(demo_study)
    built._shell.width = 900
    return built


def control(explorer, text):
    """The control with a description."""
    (matches,) = [w for w in widgets(explorer) if getattr(w, "description", "") == text]
    return matches


def zeros(explorer):
    explorer.selection = ()
    rows = explorer.layers()
    rows = rows[rows["prunable"]]
    gone = rows["weight_total"] - rows["weight_nonzero"]
    return dict(zip(rows["module_name"], gone, strict=True)), int(rows["weight_total"].sum())


def pruned(pruning):
    """Zeros per layer of a materialized variant."""
    rows = sr.masked(pruning).layers()
    rows = rows[rows["prunable"]]
    gone = rows["weight_total"] - rows["weight_nonzero"]
    return dict(zip(rows["module_name"], gone, strict=True))


def test_a_budget_moves_the_slider_and_says_why(explorer):
    control(explorer, "Budget").value = "0.5 × FLOPs"
    assert (explorer.sparsity, explorer.variant) == (0.59, "CSR at level")
    assert (
        "59\u202f%" in explorer._controls._message.value
        or "59 %" in explorer._controls._message.value
    )
    control(explorer, "Budget").value = "1 kB"
    assert explorer.sparsity == 0.59
    assert "out of reach" in explorer._controls._message.value
    control(explorer, "Budget").value = "1 GB"
    assert (explorer.sparsity, explorer.variant) == (0.0, "Masked at level")


def test_held_layers_are_made_up_for_exactly(explorer, demo):
    first, second, third = list(explorer.layers()["module_name"])[:3]
    explorer.sparsity = 0.5
    menu, button = control(explorer, "Layer bounds"), control(explorer, "Apply")
    for names, how in (((first,), "dense"), ((second,), "0.2"), ((third,), "now")):
        before, total = zeros(explorer)
        explorer.selection = names
        menu.value = how
        button.click()
    explorer.sparsity = 0.7
    after, _ = zeros(explorer)
    assert sum(after.values()) == round(0.7 * total)
    assert after[first] == 0
    assert after[third] == before[third]
    bounds = {first: 0.0, second: 0.2, third: (before[third] / 16384,) * 2}
    assert explorer.bounds == bounds
    exact = pruned(sr.bounded_magnitude(demo, 0.7, bounds))
    slack = explorer.layers().set_index("module_name")["uncertainty"]
    assert all(abs(after[name] - exact[name]) <= slack[name] for name in after)
    explorer.add()
    assert explorer.variant == "CSR70Bounded"
    assert zeros(explorer)[0] == exact
    # The same level within other bounds is another variant.
    explorer.bounds = {first: 0.5}
    explorer.sparsity = 0.7
    explorer.add()
    assert explorer.variant == "CSR70Bounded-2"
    assert zeros(explorer)[0] == pruned(sr.bounded_magnitude(demo, 0.7, {first: 0.5}))


def test_holding_is_undone_and_ends(explorer):
    explorer.sparsity = 0.5
    plain, _ = zeros(explorer)
    explorer.bounds = {"mlp_linear": 0.1}
    assert explorer.sparsity < 0.5
    explorer.undo()
    assert explorer.bounds == {}
    assert explorer.sparsity == 0.5
    assert zeros(explorer)[0] == plain
    explorer.redo()
    assert explorer.bounds == {"mlp_linear": 0.1}
    control(explorer, "Layer bounds").value = "free"
    control(explorer, "Apply").click()
    assert explorer.bounds == {}
    assert len(control(explorer, "Pruning policy").options) > 1


WRONG = (
    ({"nothing": 0.1}, "no prunable module or group 'nothing'"),
    ({"mlp_linear": 2}, "bound 2 of 'mlp_linear' is not valid"),
    ({"mlp_linear": (0.4, 0.1)}, "lower bound of .mlp_linear. is above the upper"),
)


@pytest.mark.parametrize(("bounds", "message"), WRONG, ids=[m for _, m in WRONG])
def test_bounds_that_are_none_leave_all_as_it_was(explorer, bounds, message):
    with pytest.raises(sr.SparsityReportError, match=message):
        explorer.bounds = bounds
    assert explorer.bounds == {}


def test_a_study_from_a_file_has_no_weights_to_hold(demo_study, tmp_path):
    explorer = sr.explore(sr.read_study(demo_study.save(tmp_path / "s.json")))
    with pytest.raises(sr.SparsityReportError, match="holds no weights; to set layer bounds"):
        explorer.bounds = {"mlp_linear": 0.1}


def test_python_that_is_copied_makes_the_explorer_again(explorer):
    sent = []
    explorer._shell.send = sent.append
    explorer.bounds = {"attention_linear": 0.2}
    explorer.sparsity, explorer.metric = 0.4, "nonzero"
    explorer.selection = tuple(explorer.layers()["module_name"][:2])
    control(explorer, "Copy").click()
    (message,) = sent
    place = {}
    exec(compile(message["copy"], "copied", "exec"), place)
    again = place["explorer"]
    names = ("bounds", "policy", "sparsity", "variant", "metric", "selection", "detail")
    assert [getattr(again, n) for n in names] == [getattr(explorer, n) for n in names]
    assert again.layers().equals(explorer.layers())
    total = again.study.weights
    assert place["pruning"].pruned == round(0.4 * sum(p.total for p in total.prunable))


@pytest.mark.parametrize("policy", ["layerwise_magnitude", "N:4"])
def test_copies_know_the_policy(explorer, policy):
    explorer.policy = policy
    explorer.sparsity = 0.5
    raised = json.loads(explorer.copied("json"))
    assert raised["method"] == ("2:4" if policy == "N:4" else policy)
    place = {}
    exec(compile(explorer.copied("python"), "copied", "exec"), place)
    rows = explorer.layers()
    gone = (rows["weight_total"] - rows["weight_nonzero"]).sum()
    assert place["pruning"].pruned == gone
    assert np.isclose(place["explorer"].sparsity, 0.5)
