"""Weights scored with norms of activations, compared with Python's sort."""

import numpy as np
import pytest
import torch
from helpers import DTYPES, counts_as_derived
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparsity_report as sr
from sparsity_report.counting.cuts import InputNorms, cut_groups, cut_rows
from sparsity_report.counting.pruning import Pruning
from sparsity_report.counting.pruning_policies import Wanda


def lowest(weight, norms, counts):
    """Return the mask of each row, with Python's sort."""
    keep = np.ones(weight.shape, dtype=bool)
    numbers = weight.detach().double().abs().numpy()
    for row, count in enumerate(counts):
        scores = [
            np.inf if w == np.inf else w * n for w, n in zip(numbers[row], norms, strict=True)
        ]
        keep[row, sorted(range(len(scores)), key=scores.__getitem__)[:count]] = False
    return keep


@settings(max_examples=20)
@given(st.data())
def test_rows_lose_their_lowest_scores(data):
    columns, outputs = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    layer = nn.Linear(columns, outputs, dtype=data.draw(st.sampled_from(DTYPES)), bias=False)
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-3, 4, layer.weight.shape) / 7)
        if data.draw(st.booleans()):
            layer.weight[0, 0] = -torch.inf
    norms = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.3]),
                                        min_size=columns, max_size=columns)))  # fmt: skip
    count = data.draw(st.integers(0, layer.weight.numel()))
    weights = sr.load(layer)
    scales = {"weight": InputNorms(norms[None], outputs)}
    pruning = Pruning(weights, 0.5, Wanda(), cut_rows(weights, scales, {"weight": count}))
    each, more = divmod(count, outputs)
    keep = lowest(layer.weight, norms, [each + (row < more) for row in range(outputs)])
    np.testing.assert_array_equal(pruning.mask("weight"), keep)
    assert pruning.pruned == count == int((~keep).sum())
    counts_as_derived(sr.masked(pruning, name="M"))


@pytest.mark.parametrize("block", [1, 7, 40])
def test_blocks_make_no_difference(block, monkeypatch):
    torch.manual_seed(0)
    weights = sr.load(nn.Linear(8, 12, bias=False))
    scales = {"weight": InputNorms(np.arange(8.0)[None], 12)}
    complete = [cut_rows(weights, scales, {"weight": 41}), cut_groups(weights, scales, (2, 4))]
    masks = [cuts["weight"].mask(weights.array("weight")) for cuts in complete]
    for name in ("_BLOCK", "_SCORES"):
        monkeypatch.setattr(f"sparsity_report.counting.cuts.{name}", block)
    again = [cut_rows(weights, scales, {"weight": 41}), cut_groups(weights, scales, (2, 4))]
    for cuts, mask in zip(again, masks, strict=True):
        np.testing.assert_array_equal(cuts["weight"].mask(weights.array("weight")), mask)
