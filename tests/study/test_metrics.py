"""Figures of layers that are no counts."""

import pandas as pd
import pytest

import sparsity_report as sr
from sparsity_report.study.derived import layer_metrics


def values_of(figure):
    return dict(zip(figure.names, figure.amounts.tolist(), strict=True))


@pytest.fixture(scope="module")
def study(demo):
    prunings = [sr.global_magnitude(demo, 0.3), sr.n_m(demo, 2, 4)]
    return sr.compare(sr.dense(demo), *map(sr.masked, prunings), patterns=True)


def sensitivity(by, parts):
    rows = [{"by": by, "part": part, "nll_increase": more} for part, more in parts]
    return pd.DataFrame(rows)


def test_sensitivity_is_that_of_the_part_a_layer_is_in(study):
    layers = study.facts.layers("Dense")
    cut = pd.concat(
        [
            sensitivity("group", [("attention_linear", 9.0), ("mlp_linear", 9.0)]),
            sensitivity("block", [("block 0", 0.5), ("block 2", 0.25)]),
        ]
    )
    figure = layer_metrics.measured_sensitivity(cut, layers)
    blocks = layers[layers["prunable"]].set_index("module_name")["block"]
    at = pd.Series(values_of(figure))
    assert at[blocks.index[blocks == 0]].eq(0.5).all()
    assert at[blocks.index[blocks == 2]].eq(0.25).all()
    assert at[blocks.index[blocks == 1]].isna().all()
    first = blocks.index[blocks == 0][0]
    alone = layer_metrics.measured_sensitivity(sensitivity("layer", [(first, -0.1)]), layers)
    assert pd.Series(values_of(alone)).dropna().to_dict() == {first: -0.1}
