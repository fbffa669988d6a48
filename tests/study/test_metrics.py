"""Figures of layers that are no counts, against sums over the weights themselves."""

import math

import numpy as np
import pytest

import sparsity_report as sr
from sparsity_report.study import metrics


def of(figure, names):
    return figure.amounts[names].sum() / figure.sizes[names].sum()


@pytest.fixture(scope="module")
def study(demo):
    prunings = [sr.global_magnitude(demo, 0.3), sr.n_m(demo, 2, 4)]
    return sr.compare(sr.dense(demo), *map(sr.masked, prunings), patterns=True)


def weights_of(demo, name):
    return np.concatenate(
        [
            demo.tensor(p.name).detach().float().numpy().ravel()
            for m in demo.modules
            for p in m.parameters
            if m.name == name and p.prunable
        ]
    )


def test_beyond_a_bell_curve(demo, study):
    pruning = sr.global_magnitude(demo, 0.3)
    patterns = study.patterns[study.patterns["variant"] == "Masked30"]
    figure = metrics.beyond(patterns)
    for name in list(figure.amounts.index[:4]):
        values = weights_of(demo, name)
        expected = math.erf(pruning.threshold / (values.std() * math.sqrt(2)))
        zeros = (np.abs(values) <= pruning.threshold).mean()
        assert of(figure, [name]) == pytest.approx(zeros - expected, abs=1e-4)
    # Without one threshold there is no expectation.
    two_four = study.patterns[study.patterns["variant"] == "Masked2:4"]
    assert metrics.beyond(two_four).amounts.isna().all()
