"""A model that holds NaN or infinity is counted and shown everywhere; only NaN cannot be pruned."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Tiny, command, count, study_of
from safetensors.torch import save_file
from torch import nn

import sparsity_report as sr
from sparsity_report.counting.counts import count_weights
from sparsity_report.study.derived import existing_zeros
from sparsity_report.words.sentences import say

NAN = say(
    "note.weights_nan", model="tiny", count=3, tensors=2,
    names=["layers.0.fc1.weight", "layers.1.fc2.weight"],
)  # fmt: skip
INFINITE = say(
    "note.weights_infinite", model="tiny", count=2, tensors=1, names=["layers.0.fc1.weight"]
)
EVERY_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])


def with_nan(dtype=torch.float32):
    torch.manual_seed(0)
    model = Tiny(dtype=dtype)
    with torch.no_grad():
        model.layers[0]["fc1"].weight[0, :2] = torch.nan
        model.layers[0]["fc1"].weight[0, 2] = 0
        model.layers[1]["fc2"].weight[0, 0] = -torch.nan
        model.layers[0]["norm"].weight[0] = torch.nan
    return model


def with_infinity(dtype=torch.float32):
    torch.manual_seed(0)
    model = Tiny(dtype=dtype)
    with torch.no_grad():
        model.layers[0]["fc1"].weight[0, :2] = torch.tensor([torch.inf, -torch.inf])
    return model


@EVERY_DTYPE
def test_nan_is_a_nonzero_named_in_the_audit(dtype, tmp_path):
    study = sr.compare(sr.dense(sr.load(with_nan(dtype), name="tiny")), patterns=True)
    rows = study.layers.set_index("module_name")
    assert rows.loc["layers.0.fc1", ["weight_total", "weight_nonzero"]].tolist() == [60, 59]
    assert study.notes == (NAN,)
    assert study.audit[0] == f"N{str(NAN)[1:]}."
    assert study.levels is None
    assert study.by_level is None
    with pytest.raises(sr.SparsityReportError, match=r"keeps no levels: .* or NaN"):
        study.at_level(0.3)
    mean = study.patterns.set_index("parameter")["mean_abs"]
    assert mean[mean.isna()].index.tolist() == ["layers.0.fc1.weight", "layers.1.fc2.weight"]
    read = sr.read_study(study.save(tmp_path / "s.json"))
    assert (read.notes, read.audit, read.levels) == (study.notes, study.audit, None)


@EVERY_DTYPE
def test_only_pruning_is_refused(dtype):
    weights = sr.load(with_nan(dtype))
    for prune in (
        lambda: sr.global_magnitude(weights, 0.3), lambda: sr.layerwise_magnitude(weights, 0.3),
        lambda: sr.n_m(weights, 1, 2), lambda: sr.sweep(weights, [0.3]),
    ):  # fmt: skip
        with pytest.raises(sr.SparsityReportError, match=r"fc1.weight holds 2 NaN.*compare\(dense"):
            prune()
    assert sr.params_size_and_sparsity(with_nan(dtype))["nonzero"] > 0


def test_every_reader_of_a_study_with_nan(tmp_path):
    study = sr.compare(sr.dense(sr.load(with_nan(), name="tiny")), patterns=True)
    read = sr.read_study(study.save(tmp_path / "s.json"))
    for number, at_hand in enumerate((study, read)):
        html = sr.write_report(at_hand, tmp_path / f"{number}.html").read_text(encoding="utf-8")
        assert "hold 3 NaN in 2 tensors" in html.replace("\u00a0", " ")
        explorer = sr.explore(at_hand)
        explorer.select(detail="layers.0.fc1")
    sr.write_report(read, tmp_path / "r.pdf")
    sr.write_thesis(read, tmp_path / "thesis")
    sr.write_csv(read, tmp_path / "csv")


def test_the_command_line_says_what_to_do_about_nan(tmp_path):
    save_file({"fc1.weight": torch.tensor([[torch.nan, 1.0]])}, tmp_path / "m.safetensors")
    outcome = command("run", tmp_path / "m.safetensors", "--out", tmp_path / "out")
    assert outcome.returncode == 2
    assert "fc1.weight holds 1 NaN" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@EVERY_DTYPE
def test_infinity_is_counted_pruned_last_and_saved(dtype, tmp_path):
    weights = sr.load(with_infinity(dtype), name="tiny")
    study = study_of(weights, 0.5, patterns=True)
    assert study.notes == (INFINITE,)
    assert study.audit[0] == f"N{str(INFINITE)[1:]}."
    deepest = sr.masked(sr.global_magnitude(weights, 1.0))
    assert deepest.pruning.threshold == torch.inf
    study = study.with_variants(deepest, sr.masked(sr.global_magnitude(weights, 310 / 312)))
    # Of 312 prunable weights two are infinite: a threshold that is infinite is not a number.
    assert study.variants["threshold"].isna().tolist() == [True, False, False, True, False]
    assert study.totals["prunable_nonzero"].tolist() == [312, 156, 156, 0, 2]
    spread = study.patterns[study.patterns["parameter"] == "layers.0.fc1.weight"]
    assert spread[["mean_abs", "std", "expected_sparsity"]].isna().all(axis=None)
    read = sr.read_study(study.save(tmp_path / "s.json"))
    json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)
    assert read.variants.equals(study.variants)
    assert read.patterns.equals(study.patterns)
    assert read.levels.equals(study.levels)


@pytest.mark.parametrize("infinite", [1, 20, 60])
def test_the_explorer_draws_what_is_finite(infinite):
    model = with_infinity()
    with torch.no_grad():
        model.layers[0]["fc1"].weight.view(-1)[:infinite] = torch.inf
    explorer = sr.explore(study_of(sr.load(model), 0.5))
    explorer.select(detail="layers.0.fc1")
    stored = [{"variant": variant} for variant in explorer.study.variants["variant"]]
    for shown in (*stored, *({"sparsity": level} for level in (0.0, 0.99))):
        explorer.select(**shown)
        json.dumps(explorer.chart.to_dict(), allow_nan=False)


def test_infinite_elements():
    tally = count(torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0, 0.0]))
    assert (tally.infinite, tally.nan, tally.nonzero) == (2, 1, 4)
    assert tally.root_mean_square == np.inf
    assert count(torch.tensor([1e300], dtype=torch.float64)).infinite == 1
    assert count(torch.tensor([3e38])).infinite == 0
    assert count(torch.ones(0)).infinite == 0
    assert sr.dense(nn.Linear(2, 2)).layers()["total"].sum() == 6


@pytest.mark.parametrize("size", [1e300, 1.7e308, 1e-200, 5e-324])
def test_extremes_of_float64_are_counted_and_have_no_false_deviation(size, tmp_path):
    """Squares of these values leave float64, and values leave float32."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc1": nn.Linear(8, 8, bias=False, dtype=torch.float64)})
    with torch.no_grad():
        model["fc1"].weight[:] = size
        model["fc1"].weight[0, :4] = 0
    study = sr.compare(sr.dense(sr.load(model, name="extreme")), patterns=True)
    assert study.totals["nonzero"].tolist() == [60]
    row = study.patterns.iloc[0]
    assert row["least_abs"] == size
    assert pd.isna(row["std"])
    assert existing_zeros.smallest_kept(study.patterns) is None
    weights = sr.load(model)
    (counted,) = count_weights(weights).values()
    assert not math.isfinite(counted.root_mean_square)
    is_beyond = size > float(np.finfo(np.float32).max)
    notes = [note for note in study.notes if "infinite or exceed float32" in note]
    assert len(notes) == is_beyond
    mask = sr.global_magnitude(weights, 0.5).mask(weights.prunable[0].name)
    assert int(mask.sum()) == 32
    sr.write_report(study, tmp_path / "page.html")
