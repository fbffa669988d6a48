"""Figures of layers that are no counts, against sums over the weights themselves."""

import numpy as np
import pandas as pd
import pytest

import sparsity_report as sr
from sparsity_report.study.derived import layer_metrics


def of(figure, names):
    inside = figure.names.get_indexer(names)
    return figure.amounts[inside].sum() / figure.sizes[inside].sum()


def difference(rows, before):
    return layer_metrics.difference(layer_metrics.zeros_of(rows), layer_metrics.zeros_of(before))


def values_of(figure):
    return dict(zip(figure.names, figure.amounts.tolist(), strict=True))


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


def test_a_difference_is_that_of_the_zeros_of_the_weights(demo, study):
    rows = {name: study.facts.layers(name) for name in study.variants["variant"]}
    figure = difference(rows["Masked2:4"], rows["Masked30"])
    names = [m.name for m in demo.modules if any(p.prunable for p in m.parameters)][:5]
    models = [sr.masked(p).module() for p in (sr.n_m(demo, 2, 4), sr.global_magnitude(demo, 0.3))]
    zeros = [
        sum(int((dict(model.named_modules())[n].weight == 0).sum()) for n in names)
        for model in models
    ]
    size = sum(weights_of(demo, name).size for name in names)
    assert of(figure, names) == pytest.approx((zeros[0] - zeros[1]) / size, abs=1e-12)
    assert (difference(rows["Dense"], rows["Dense"]).amounts == 0).all()


def test_layers_of_other_sizes_have_no_difference(study):
    rows = study.facts.layers("Dense")
    other = rows.assign(weight_total=rows["weight_total"] + 1)
    assert np.isnan(difference(rows, other).amounts).all()
    assert np.isnan(difference(rows, rows.iloc[:0]).amounts).all()


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
