import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Tiny, counts_as_derived
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparsity_report as sr
from sparsity_report.counting.allocation import compute_quotas

POLICIES = (sr.layerwise_magnitude, sr.random_unstructured)


@pytest.fixture
def weights(tiny):
    return sr.load(tiny)


def modules_of(weights):
    return [m for m in weights.modules if any(p.prunable for p in m.parameters)]


def hamilton(sizes, shares):
    """Round shares by the largest remainder, as seats are given to parties."""
    exact = [size * share for size, share in zip(sizes, shares, strict=True)]
    seats = [math.floor(number) for number in exact]
    order = sorted(range(len(exact)), key=lambda i: (-(exact[i] - seats[i]), i))
    for i in order[: round(math.fsum(exact)) - sum(seats)]:
        seats[i] += 1
    return seats


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1)), min_size=1))
def test_the_sum_is_exact_and_remainders_go_to_the_largest(layers):
    model = nn.Module()
    for number, (columns, rows, _) in enumerate(layers):
        model.add_module(f"fc{number}", nn.Linear(columns, rows, bias=False))
    weights = sr.load(model)
    shares = [share for *_, share in layers]
    sizes = [rows * columns for columns, rows, _ in layers]
    mapping = dict(zip((m.name for m in modules_of(weights)), shares, strict=True))
    result = compute_quotas(weights, None, mapping)
    assert list(result.counts.values()) == hamilton(sizes, shares)
    assert sum(result.counts.values()) == round(result.sparsity * sum(sizes))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_frame_mapping_and_rule_are_one(weights, policy):
    rule = {m.name: 0.1 + 0.2 * number for number, m in enumerate(modules_of(weights)[:3])}
    rule |= {m.name: 0.6 for m in modules_of(weights)[3:]}
    frame = pd.DataFrame({"module_name": list(rule), "sparsity": list(rule.values())})
    given_ = [rule, frame, lambda module: rule[module.name]]
    one, *others = (policy(weights, None, allocation=each) for each in given_)
    assert one.method.endswith(", given")
    for other in others:
        assert one.cuts == other.cuts
        assert one.sparsity == other.sparsity
    sizes = [p.total for p in weights.prunable]
    due = dict(zip((p.name for p in weights.prunable), hamilton(sizes, rule.values()), strict=True))
    assert {name: one.cuts[name].pruned for name in due} == due
    study = sr.compare(sr.dense(weights), sr.masked(one), sr.csr(one), patterns=True)
    assert study.variants["pruned"].dropna().tolist() == [sum(due.values())] * 2
    counts_as_derived(sr.masked(one))


@pytest.mark.parametrize("shares", [(1.0, 0.0), (2 / 3, 3 / 8)])
def test_shares_half_a_weight_off_are_refused(shares):
    """Nine weights do not round to eight, nor may ten of them go."""
    layers = {"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(4, 2, bias=False)}
    weights = sr.load(nn.ModuleDict(layers))
    with pytest.raises(sr.SparsityReportError, match=r"takes 9\.0 of the 17 .* the 8\.5 asked"):
        compute_quotas(weights, 0.5, dict(zip("ab", shares, strict=True)))


def test_names_of_prunings(weights):
    even = dict.fromkeys((m.name for m in modules_of(weights)), 0.5)
    owl = pd.DataFrame({"module_name": list(even), "sparsity": 0.5})
    owl.attrs["allocation"] = "owl"
    prunings = [
        sr.layerwise_magnitude(weights, 0.5, allocation=even),
        sr.layerwise_magnitude(weights, 0.5, allocation=owl), sr.random_unstructured(weights, 0.5),
        sr.random_unstructured(weights, 0.125, seed=3, allocation=None),
    ]  # fmt: skip
    assert [sr.masked(pruning).name for pruning in prunings] == [
        "Masked50LayerwiseGiven", "Masked50LayerwiseOWL", "Masked50Random", "Masked12.5RandomSeed3",
    ]  # fmt: skip


def test_equal_counts_are_the_same_zeros_only_of_the_same_rule(weights):
    even = dict.fromkeys((m.name for m in modules_of(weights)), 0.5)
    prunings = [
        sr.layerwise_magnitude(weights, 0.5), sr.layerwise_magnitude(weights, 0.5, allocation=even),
        sr.random_unstructured(weights, 0.5), sr.random_unstructured(weights, 0.5, seed=1),
        sr.random_unstructured(weights, 0.5, seed=1, allocation=even),
    ]  # fmt: skip
    names = "ABCDE"
    study = sr.compare(*(sr.masked(p, name=n) for p, n in zip(prunings, names, strict=True)))
    masks = [np.concatenate([p.mask(q.name).ravel() for q in weights.prunable]) for p in prunings]
    distinct = [
        name
        for place, name in enumerate(names)
        if not any(np.array_equal(masks[place], mask) for mask in masks[:place])
    ]
    assert list(study.facts.prunings) == distinct == ["A", "C", "D"]


WRONG = [
    ({"nothing": 0.5}, "has no prunable module 'nothing'"),
    ({}, "gets no share from allocation= for 'layers.0.fc1'"),
    (lambda module: 2.0, "allocation=: sparsity must be a number from 0 to 1, not 2"),  # noqa: ARG005
    (lambda module: None, "not None"),  # noqa: ARG005
    (lambda module: float("nan"), "not nan"),  # noqa: ARG005
    ("owl", r"allocation=sr\.owl\("),
    (3, "a frame, a mapping or a function, not a int"),
    (pd.DataFrame({"module_name": ["a"]}), "has no column 'sparsity'"),
    (pd.DataFrame({"module_name": ["a", "a"], "sparsity": 0.5}), "names a module twice"),
]


@pytest.mark.parametrize(("allocation", "message"), WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_wrong_allocations_are_one_line(weights, policy, allocation, message):
    with pytest.raises(sr.SparsityReportError, match=message) as caught:
        policy(weights, 0.5, allocation=allocation)
    assert "\n" not in str(caught.value)


def drawn(weights, seed, name, total, pruned):
    """Return the mask by the lowest random words, drawn at once."""
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()[:16]
    lots = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(total)
    keep = np.ones(total, dtype=bool)
    keep[np.argsort(lots, kind="stable")[:pruned]] = False
    return torch.from_numpy(keep).reshape(weights[name].shape)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 1.0])
def test_the_lots_of_a_seed(weights, seed, sparsity):
    pruning = sr.random_unstructured(weights, sparsity, seed=seed)
    assert pruning.pruned == round(sparsity * sum(p.total for p in weights.prunable))
    for p in weights.prunable:
        pruned = pruning.cuts[p.name].pruned if p.name in pruning.cuts else 0
        assert abs(pruned - sparsity * p.total) < 1
        due = drawn(weights, seed, p.name, p.total, pruned)
        np.testing.assert_array_equal(pruning.mask(p.name), due)
    assert pruning.threshold is None
    again = sr.random_unstructured(sr.load(Tiny()), sparsity, seed=seed)
    assert {name: c.lot for name, c in pruning.cuts.items()} == {
        name: c.lot for name, c in again.cuts.items()
    }


@pytest.mark.parametrize("block", [1, 7, 40])
def test_lots_are_drawn_block_by_block(weights, monkeypatch, block):
    complete = sr.masked(sr.random_unstructured(weights, 0.5)).module()
    monkeypatch.setattr("sparsity_report.counting.cuts._BLOCK", block)
    monkeypatch.setattr("sparsity_report.counting.policies.random_policy._BLOCK", block)
    for one, other in zip(
        sr.masked(sr.random_unstructured(weights, 0.5)).module().parameters(),
        complete.parameters(), strict=True,
    ):  # fmt: skip
        assert torch.equal(one, other)


def test_equal_lots_go_by_position(monkeypatch):
    dice = SimpleNamespace(random_raw=lambda size: np.full(size, 5, dtype=np.uint64))
    monkeypatch.setattr(np.random, "Philox", lambda key: dice)  # noqa: ARG005
    layer = nn.Linear(5, 2, bias=False)
    keep = sr.random_unstructured(sr.load(layer), 0.7).mask("weight")
    assert keep.flatten().tolist() == [False] * 7 + [True] * 3


def test_zeros_before_are_counted_and_nan_has_a_lot(tiny):
    with torch.no_grad():
        tiny.layers[0]["fc1"].weight[:, :3] = 0
        tiny.layers[1]["fc1"].weight[0, 0] = torch.nan
    weights = sr.load(tiny)
    for layout in (sr.masked, sr.csr):
        variant = layout(sr.random_unstructured(weights, 0.5))
        counts_as_derived(variant)
    with torch.no_grad():
        tiny.layers[0]["fc1"].weight[:, 3:] = 0
    with pytest.raises(sr.SparsityReportError, match="changed since they were counted"):
        variant.module()


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_impossible_seeds(weights, seed):
    with pytest.raises(sr.SparsityReportError, match="seed must be a whole number of 0 or more"):
        sr.random_unstructured(weights, 0.5, seed=seed)
