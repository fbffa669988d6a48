"""Figures of layers that are no counts."""

import pandas as pd

from sparsity_report.study.derived import layer_metrics


def sensitivity(by, parts):
    rows = [{"by": by, "part": part, "nll_increase": more} for part, more in parts]
    return pd.DataFrame(rows)


def test_sensitivity_is_that_of_the_part_a_layer_is_in(demo_study):
    layers = demo_study.facts.layers("Dense")
    cut = pd.concat(
        [
            sensitivity("group", [("attention_linear", 9.0), ("mlp_linear", 9.0)]),
            sensitivity("block", [("block 0", 0.5), ("block 2", 0.25)]),
        ]
    )
    figure = layer_metrics.measured_sensitivity(cut, layers)
    blocks = layers[layers["prunable"]].set_index("module_name")["block"]
    at = pd.Series(figure.amounts, figure.names)
    assert at[blocks.index[blocks == 0]].eq(0.5).all()
    assert at[blocks.index[blocks == 2]].eq(0.25).all()
    assert at[blocks.index[blocks == 1]].isna().all()
    first = blocks.index[blocks == 0][0]
    alone = layer_metrics.measured_sensitivity(sensitivity("layer", [(first, -0.1)]), layers)
    assert pd.Series(alone.amounts, alone.names).dropna().to_dict() == {first: -0.1}
