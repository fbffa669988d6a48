"""Global pruning within bounds per layer, against a walk over all weights."""

import json
import math

import numpy as np
import pytest
import torch
from helpers import models
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsity_report as sr
from sparsity_report.counting.bounds import find_bounded_levels, resolve_bounds
from sparsity_report.counting.policies import prunable_counts

SHARES = st.sampled_from([0.0, 0.2, 0.29, 0.5, 0.75, 1.0])
BOUND = SHARES | st.tuples(SHARES, SHARES).map(lambda pair: tuple(sorted(pair)))


def prunable_modules(weights):
    return [m for m in weights.modules if any(p.prunable for p in m.parameters)]


def greedy(weights, sparsity, bounds):
    """Return the pruned weights, found one by one, skipping layers at their bound."""
    modules = prunable_modules(weights)
    sizes, owners, parts = [], [], []
    for place, module in enumerate(modules):
        for p in (p for p in module.parameters if p.prunable):
            part = weights.tensor(p.name).detach().to(torch.float64).abs().numpy().ravel()
            sizes.append(part)
            owners.append(np.full(part.size, place))
            parts.append(p.name)
    flat, owner = np.concatenate(sizes), np.concatenate(owners)
    total = np.bincount(owner, minlength=len(modules))
    zeros = np.bincount(owner, flat == 0, minlength=len(modules))
    least, most = np.zeros(len(modules), int), total.copy()
    for place, module in enumerate(modules):
        bound = bounds.get(module.name, bounds.get(module.group, 1.0))
        low, high = bound if isinstance(bound, tuple) else (0.0, bound)
        least[place] = math.ceil(round(low * int(total[place]), 6))
        most[place] = math.floor(round(high * int(total[place]), 6))
    least, most = np.minimum(least, most), np.maximum(most, zeros)
    target = round(sparsity * flat.size)
    if not least.sum() <= target <= most.sum():
        return None
    order = np.argsort(flat, kind="stable")
    # The lower bound of a layer is reserved from the start.
    gone, spoken, free = np.zeros(flat.size, bool), least.copy(), target - least.sum()
    taken = np.zeros(len(modules), int)
    for one in order:
        place = owner[one]
        if taken[place] < spoken[place]:
            gone[one] = True
            taken[place] += 1
        elif free and taken[place] < most[place]:
            gone[one], free = True, free - 1
            taken[place] += 1
    split = np.split(~gone, np.cumsum([len(s) for s in sizes])[:-1])
    return dict(zip(parts, split, strict=True))


@settings(max_examples=80)
@given(models(), st.floats(0, 1), st.data())
def test_zeros_are_those_of_a_walk_past_full_layers(model, sparsity, data):
    weights = sr.load(model)
    names = [m.name for m in prunable_modules(weights)]
    keys = st.sampled_from([*names, *{m.group for m in prunable_modules(weights)}])
    bounds = data.draw(st.dictionaries(keys, BOUND, max_size=3))
    expected = greedy(weights, sparsity, bounds)
    if expected is None:
        with pytest.raises(sr.SparsityReportError, match="leave room for"):
            sr.bounded_magnitude(weights, sparsity, bounds)
        return
    pruning = sr.bounded_magnitude(weights, sparsity, bounds)
    assert pruning.pruned == round(sparsity * sum(p.total for p in weights.prunable))
    for name, keep in expected.items():
        assert np.array_equal(pruning.mask(name).numpy().ravel(), keep)


def test_without_bounds_it_is_global_pruning(demo):
    for level in (0.0, 0.3, 0.777, 1.0):
        plain, free = sr.global_magnitude(demo, level), sr.bounded_magnitude(demo, level, {})
        assert all(torch.equal(plain.mask(p.name), free.mask(p.name)) for p in demo.prunable)


def test_real_weights_make_up_for_bound_layers(demo):
    first = next(m.name for m in prunable_modules(demo) if m.group == "mlp_linear")
    bounds = {"attention_linear": 0.2, first: (0.37, 0.37)}
    pruning = sr.bounded_magnitude(demo, 0.5, bounds)
    expected = greedy(demo, 0.5, bounds)
    for name, keep in expected.items():
        assert np.array_equal(pruning.mask(name).numpy().ravel(), keep)
    # A public call of another policy with the shares that came out takes the same weights.
    layers = sr.masked(pruning).layers()
    rows = layers[layers["prunable"]]
    names, left, total = (rows[key] for key in ("module_name", "weight_nonzero", "weight_total"))
    shares = dict(zip(names, 1 - left / total, strict=True))
    again = sr.layerwise_magnitude(demo, 0.5, allocation=shares)
    assert all(torch.equal(pruning.mask(p.name), again.mask(p.name)) for p in demo.prunable)


def test_levels_are_what_pruning_there_gives(demo):
    bounds = {"mlp_linear": 0.4}
    counts = prunable_counts(demo)
    parts = resolve_bounds(demo, bounds, counts)
    total, (_, most) = int(parts.totals.sum()), parts.reach
    targets = [round(share * total) for share in (0.0, 0.1, 0.3, most / total)]
    for target, (gone, slack) in zip(
        targets, find_bounded_levels(counts, parts, targets), strict=True
    ):
        assert gone.sum() == target
        exact = sr.bounded_magnitude(demo, target / total, bounds)
        pruned = [sum(exact.cuts[t].pruned for t in ts if t in exact.cuts) for ts in parts.tensors]
        assert (np.abs(gone - pruned) <= slack).all()


WRONG = (
    ({"nothing": 0.5}, "no prunable module or group 'nothing'"),
    ({"mlp_linear": 1.5}, r"bound 1\.5 of 'mlp_linear' is not valid"),
    ({"mlp_linear": (0.1, 0.2, 0.3)}, "give a share from 0 to 1, or two shares"),
    ({"mlp_linear": (0.4, 0.2)}, "lower bound of .mlp_linear. is above the upper"),
    ({"mlp_linear": 0.1, "attention_linear": 0.1}, r"leave room for 0\.00 % to 10\.00 % .* 50\.00"),
)


@pytest.mark.parametrize(("bounds", "message"), WRONG, ids=[json.dumps(b) for b, _ in WRONG])
def test_bounds_that_are_none_are_refused(demo, bounds, message):
    with pytest.raises(sr.SparsityReportError, match=message):
        sr.bounded_magnitude(demo, 0.5, bounds)
