"""The payload, decoded anew with numpy, holds the counts, levels and bytes of the study."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Tiny, count, study_of
from measurements import put_in, quality, seven
from payloads import decode
from safetensors.numpy import load_file
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

import sparsity_report as sr
from sparsity_report.counting.pruning_policies import families
from sparsity_report.files.package_data import DEMO
from sparsity_report.study.derived.heads_experts import inner
from sparsity_report.viewer.payload import Arrays, encode
from sparsity_report.viewer.study_payload import coarse_histogram, study_payload

RNG = np.random.default_rng(7)


def columns(header, arrays, variant=0):
    return {key: arrays[at] for key, at in header["variants"][variant]["arrays"].items()}


@pytest.mark.parametrize("size", [0, 1, 200, 2**20, 2**52])
def test_levels_come_back(size):
    matrix = RNG.integers(0, size + 1, (5, 7))
    arrays = Arrays()
    arrays.levels(matrix)
    arrays.numbers([0.1, np.nan, -np.inf, 2.0**53])
    header, (levels, values) = decode(encode({"x": "é\ud800"}, arrays))
    np.testing.assert_array_equal(levels, matrix)
    np.testing.assert_array_equal(values, [0.1, np.nan, -np.inf, 2.0**53])
    assert header["x"] == "é\ud800"


def test_equal_arrays_are_stored_once():
    arrays = Arrays()
    assert [arrays.numbers([1, 2]), arrays.numbers([1.0, 2.0]), arrays.numbers([2, 1])] == [0, 0, 1]
    # Equal bytes of two shapes are two arrays.
    assert arrays.levels(np.zeros((2, 3), int)) != arrays.levels(np.zeros((3, 2), int))


@pytest.fixture(scope="module")
def several(demo):
    """Dense, masked and CSR of the demo, and another model beside them."""
    pruning = sr.global_magnitude(demo, 0.3)
    torch.manual_seed(0)
    other = sr.dense(sr.load(Tiny()), name="Tiny")
    return sr.compare(sr.dense(demo), sr.masked(pruning), sr.csr(pruning), other)


def test_the_most_of_a_bitmask_is_reached_by_the_worst_split(demo):
    levels = sr.compare(sr.dense(demo)).by_level
    most = levels.at_most("stored_bytes", "bitmask") - levels.total("stored_bytes", "bitmask")
    # Every weight of the demo has as many bytes, so the split over layers changes nothing.
    assert (most == 0).all()
    assert (levels.at_most("stored_bytes", "dense") == levels.total("stored_bytes", "dense")).all()


def disabled(study):
    header, _ = decode(study_payload(study))
    return {e["key"]: e["disabled"] for e in header["policies"] if "disabled" in e}


def linear(*sizes, zeros=False):
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Linear(*size) for size in sizes))
    if zeros:
        model[0].weight.data[0, 0] = 0
    return sr.compare(sr.dense(sr.load(model)))


def test_policies_without_levels_have_a_reason():
    never = {key for key, policy in families().items() if policy.needs}
    assert disabled(linear((16, 8))).keys() == never
    reasons = disabled(linear((16, 8), (12, 8)))
    assert reasons.keys() == never | {"N:8"}
    assert "whole groups of 8" in reasons["N:8"]
    reasons = disabled(linear((16, 8), zeros=True))
    assert reasons.keys() == never | {"N:4", "N:8"}
    assert "zero before" in reasons["N:4"]


@pytest.mark.parametrize(
    ("scored", "first"), [(["Dense", "Masked30"], "Masked30"), (["Dense", "CSR30"], "CSR30")]
)
def test_the_first_view_shows_a_variant_with_a_score(demo_study, scored, first):
    scores = quality(((0.0, 8.0), (0.3, 9.0)), scored)
    start = decode(study_payload(put_in(demo_study, quality=scores)))[0]["start"]
    assert (start["variant"], start["layout"]) == (first, "csr")


def test_scores_are_perplexities_else_accuracies(demo_study):
    sides = ("Dense", 0.0), ("Masked30", 0.125)
    tasks = pd.concat([seven(name, name, less) for name, less in sides])
    mean = (0.75 + 0.625 + 0.5 + 0.6875 + 0.71875 + 0.375 + 0.3125) / 7
    for frame, scores in (
        (tasks, [mean, mean - 0.125]),
        (tasks[tasks["task"] == "rte"], [0.625, 0.5]),
    ):
        study = put_in(demo_study, tasks=frame)
        texts = decode(study_payload(study))[0]["quality"]["texts"]
        assert [texts["0"][:5], texts["1"][:5]] == [f"{100 * score:.2f}" for score in scores]
    study = put_in(study, quality=quality(((0.0, 8.0), (0.3, 9.0)), ("Dense", "Masked30")))
    assert decode(study_payload(study))[0]["quality"]["texts"] == {"0": "8.0", "1": "9.0"}


def test_histograms_are_the_density_of_the_weights(several, demo):
    header, arrays = decode(study_payload(several))
    kept = header["histograms"]
    rows, top = (arrays[kept[key]] for key in ("rows", "top"))
    heights = arrays[kept["heights"]].reshape(len(rows), kept["bins"])
    names = [header["modules"]["names"][int(row)] for row in rows]
    module = next(m for m in demo.modules if m.name == names[0])
    weights = next(p for p in module.parameters if p.prunable)
    values = load_file(DEMO / "model.safetensors")[weights.name].ravel()
    counts, _ = np.histogram(np.abs(values), kept["bins"], (0, top[0]))
    assert np.abs(heights[0] / 255 - counts / counts.max()).max() < 0.12
    assert heights.max(axis=1).tolist() == [255] * len(rows)
    assert arrays[header["deviation"]][int(rows[0])] == pytest.approx(
        np.sqrt(np.mean(values.astype(float) ** 2)), rel=0.01
    )


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_the_zeros_of_a_pruned_checkpoint_are_the_highest_bar(share):
    values = np.abs(RNG.normal(size=40_000).astype(np.float32))
    values[values < np.quantile(values, share)] = 0
    top, heights = coarse_histogram(count(torch.from_numpy(values)))
    counts, edges = np.histogram(values, len(heights), (0, top))
    threshold = values[values > 0].min()
    assert heights.argmax() == 0
    assert counts[0] > counts[1:].max()
    assert (heights[1:][edges[2:] <= threshold] == 0).all()  # the gap
    whole = edges[1:-1] > threshold
    assert np.abs(heights[1:] / 255 - counts[1:] / counts[0])[whole].max() < 0.12


def test_a_comb_of_few_values_stays_a_comb():
    top, heights = coarse_histogram(count(torch.tensor([0.25, 0.5, 0.5, 1.0]).half()))
    assert np.flatnonzero(heights).tolist() == [int(40 * v / top) for v in (0.25, 0.5, 1.0)]
    assert coarse_histogram(count(torch.full((4,), 0.5).half()))[0] == 0.5 * 1.02
    # The largest magnitude is shown where more than 99.9 % of the weights are zero.
    few = torch.zeros(5000).index_fill(0, torch.tensor([0, 1]), 0.25)
    assert coarse_histogram(count(few.index_fill(0, torch.tensor([1]), 0.5).half()))[0] == 0.5


@pytest.mark.parametrize("patterns", [False, True])
def test_the_spread_is_the_root_mean_square(patterns):
    """Of weights with a mean other than zero, too, whose standard deviation is smaller."""
    model = nn.ModuleDict({"fc1": nn.Linear(4, 4, bias=False)})
    nn.init.constant_(model["fc1"].weight, 1.0)
    header, arrays = decode(study_payload(sr.compare(sr.dense(model), patterns=patterns)))
    assert arrays[header["deviation"]] == pytest.approx([1.0], rel=2**-8)


def test_positions_of_zeros(demo):
    pruning = sr.n_m(demo, 2, 4)
    study = sr.compare(sr.dense(demo), sr.masked(pruning), patterns=True)
    header, arrays = decode(study_payload(study))
    prunable = np.flatnonzero(columns(header, arrays)["prunable"]).tolist()
    assert header["twoFour"] == {"0": [], "1": prunable}
    name = header["modules"]["names"][prunable[0]]
    zeros = inner(study.facts.patterns("Masked2:4"))[name]
    assert header["inner"]["1"][str(prunable[0])]["heads"] == list(zeros.heads)


def test_zeros_inside_matrices():
    config = MixtralConfig(
        vocab_size=32, hidden_size=12, intermediate_size=20, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    layer = model.model.layers[0]
    with torch.no_grad():
        layer.self_attn.q_proj.weight[:6] = 0
        layer.mlp.experts.gate_up_proj[1] = layer.mlp.experts.down_proj[1] = 0
        layer.mlp.experts.gate_up_proj[2, :5] = 0
    study = sr.compare(sr.dense(sr.load(model)), patterns=True)
    header, _ = decode(study_payload(study))
    inside = {header["modules"]["names"][int(k)]: v for k, v in header["inner"]["0"].items()}
    queries, experts = (
        inside[f"model.layers.0.{name}"] for name in ("self_attn.q_proj", "mlp.experts")
    )
    assert queries == {"heads": [1, 0], "experts": [], "zero_rows": 6, "zero_columns": 0}
    # Rows of an expert's matrices are 40 and 12, and columns 12 and 20.
    assert experts["experts"] == [0, 1, pytest.approx(5 * 12 / (40 * 12 + 12 * 20))]
    assert experts["heads"] == []
    assert (experts["zero_rows"], experts["zero_columns"]) == (40 + 12 + 5, 12 + 20)


def test_smollm2_is_small(smollm2):
    assert len(study_payload(study_of(smollm2))) <= 100_000


def test_a_layer_takes_two_hundred_bytes():
    torch.manual_seed(0)
    model = nn.Module()
    model.layers = nn.ModuleList(
        nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(100)) for _ in range(10)
    )
    study = sr.compare(sr.dense(sr.load(model)))
    assert len(study.by_level.sparsities) == 100
    assert len(study_payload(study)) <= 200 * 1000
