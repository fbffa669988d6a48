"""Use of experts in a study: the table, its file, and experts that fit into a budget of bytes."""

import itertools
import math
from dataclasses import replace

import experts
import numpy as np
import pandas as pd
import pytest
import torch

import sparsity_report as sr
from sparsity_report.counting.kept_experts import KeptExperts
from sparsity_report.study.derived.expert_use import fewer_experts
from sparsity_report.study.variants import Variant


@pytest.fixture(scope="module")
def weights():
    return experts.mixture(blocks=2, count=4)


@pytest.fixture(scope="module")
def study(weights):
    plain = sr.compare(sr.dense(weights), patterns=True)
    return plain.with_measured(experts=experts.use(2, 4))


def kept_variant(weights, kept, use):
    """A variant as of ``sr.without_experts``, here with the weights of the full model."""
    return Variant("Kept", weights, None, "dense", KeptExperts(weights, kept, "given", use=use))


def test_a_study_has_the_experts_of_its_variants(weights):
    kept = {f"model.layers.{block}.mlp.experts": (0, 3) for block in range(2)}
    use = experts.use(2, 4)
    study = sr.compare(kept_variant(weights, kept, use), sr.dense(weights))
    frame = study.experts
    assert list(frame.columns) == [
        *("variant", "module_name", "block", "expert", "is_kept"),
        *("tokens", "gate_mass", "output_norm", "saliency"),
    ]
    lacking, full = (frame[frame["variant"] == name] for name in ("Kept", "Dense"))
    assert lacking["is_kept"].tolist() == [True, False, False, True] * 2
    assert full["is_kept"].all()
    for part in (lacking, full):
        assert part["gate_mass"].tolist() == use["gate_mass"].tolist()
        assert part["tokens"].tolist() == use["tokens"].tolist()
    assert list(fewer_experts(study)) == ["Kept"]
    assert sr.compare(sr.dense(weights)).experts is None


def test_a_list_without_calibration_says_what_is_kept(weights):
    kept = {f"model.layers.{block}.mlp.experts": (1, 2) for block in range(2)}
    alone = sr.compare(kept_variant(weights, kept, None)).experts
    assert alone["is_kept"].tolist() == [False, True, True, False] * 2
    assert alone["block"].tolist() == [0] * 4 + [1] * 4
    assert alone[["tokens", "gate_mass", "output_norm", "saliency"]].isna().all(axis=None)
    # The use that another list of the same weights brings holds for both.
    other = replace(kept_variant(weights, kept, experts.use(2, 4)), name="Other")
    both = sr.compare(kept_variant(weights, kept, None), other).experts
    masses = [rows["gate_mass"].tolist() for _, rows in both.groupby("variant")]
    assert masses == [experts.use(2, 4)["gate_mass"].tolist()] * 2


def test_a_calibration_brings_its_text(weights):
    ids = torch.arange(96) * 7 % 32
    calibration = sr.calibrate(weights, ids, window=32)
    study = sr.compare(sr.dense(weights)).with_measured(experts=calibration)
    assert calibration.basis.note in study.notes
    assert study.experts["tokens"].tolist() == calibration.experts["tokens"].tolist()
    assert study.experts["tokens"].sum() == 96 * 2 * 2  # two experts in each of two blocks
    plain = sr.compare(sr.dense(weights)).with_measured(experts=calibration.experts)
    pd.testing.assert_frame_equal(plain.experts, study.experts)


def test_further_variants_bring_their_experts(weights):
    kept = {"model.layers.0.mlp.experts": (0, 1, 3)}
    study = sr.compare(sr.dense(weights))
    more = study.with_variants(kept_variant(weights, kept, experts.use(2, 4)))
    assert set(more.experts["variant"]) == {"Kept"}
    assert int((~more.experts["is_kept"]).sum()) == 1


def test_a_study_with_experts_is_read_back(study, tmp_path):
    read = sr.read_study(study.save(tmp_path / "study.json"))
    pd.testing.assert_frame_equal(read.experts, study.experts)
    pd.testing.assert_frame_equal(read.expert_budgets, study.expert_budgets)
    files = {path.name: path for path in sr.write_csv(study, tmp_path / "csv")}
    table = pd.read_csv(files["experts.csv"])
    assert table["gate_mass"].tolist() == pytest.approx(study.experts["gate_mass"].tolist())
    assert len(pd.read_csv(files["expert_budgets.csv"])) == len(study.expert_budgets)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"module_name": "model.layers.9.mlp.experts", "expert": range(8)}, "has no layer"),
        ({"expert": 0}, "occurs twice"),
        ({"gate_mass": -1.0}, "gate_mass: is less than 0"),
        ({"tokens": 0.5}, "tokens"),
        ({"variant": "Other"}, "not among the variants"),
    ],
)
def test_impossible_experts_are_refused(weights, change, why):
    study = sr.compare(sr.dense(weights))
    frame = experts.table("Dense", 2, 4)
    with pytest.raises(sr.SparsityReportError, match=why):
        study.with_measured(experts=frame.assign(**change))


def best(use, number, column):
    """Share of a column that the experts with the highest saliency of each module have."""
    part = total = 0
    for _, rows in use.groupby("module_name"):
        scores = np.nan_to_num(rows["saliency"].to_numpy(float))
        places = sorted(range(len(rows)), key=lambda place: (-scores[place], place))[:number]
        part += rows[column].to_numpy()[places].sum()
        total += rows[column].sum()
    return part / total


def test_budgets_by_arithmetic(study, weights):
    """Experts of 32 × 48 and 48 × 16 weights, with a scale of two bytes per row of each."""
    frame, use = study.expert_budgets, experts.use(2, 4)
    one = {bits: 2 * ((32 * 48 + 48 * 16) * bits // 8 + 2 * (32 + 48)) for bits in (3, 4, 8)}
    one[16] = 2 * 2 * (32 * 48 + 48 * 16)
    assert [*zip(frame["budget_bits"], frame["bits"], strict=True)] == [
        (budget, bits)
        for budget, bits in itertools.product((8, 4, 3), (3, 4, 8, 16))
        if bits >= budget and one[bits] <= 4 * one[budget]
    ]
    for row in frame.to_dict("records"):
        budget = 4 * one[row["budget_bits"]]
        fitting = max(n for n in range(5) if n * one[row["bits"]] <= budget)
        assert (row["budget_bytes"], row["fitting"], row["experts"]) == (budget, fitting, 4)
        assert row["bytes"] == fitting * one[row["bits"]]
        if fitting < 2:  # a token uses two
            assert math.isnan(row["gate_share"])
            assert math.isnan(row["token_share"])
        else:
            assert row["gate_share"] == pytest.approx(best(use, fitting, "gate_mass"))
            assert row["token_share"] == pytest.approx(best(use, fitting, "tokens"))
    patterns = study.patterns[study.patterns["expert"].notna()]
    norms = [weights.tensor(p.name).double().norm() for p in weights.prunable if p.experts > 1]
    total = math.sqrt(sum(float(norm) ** 2 for norm in norms))
    for bits, error in zip(frame["bits"], frame["rounding_error"], strict=True):
        assert error == pytest.approx(math.hypot(*patterns[f"rounding_{bits}"]) / total)


def test_budgets_without_use_or_with_unknown_errors(study, weights):
    use, bare = experts.use(2, 4), sr.compare(sr.dense(weights), patterns=True)
    plain = bare.expert_budgets
    assert plain[["gate_share", "token_share"]].isna().all(axis=None)
    assert plain["fitting"].tolist() == study.expert_budgets["fitting"].tolist()
    assert sr.compare(sr.dense(weights)).expert_budgets is None
    assert sr.compare(sr.dense(sr.load()), patterns=True).expert_budgets is None
    for unknown in (use.assign(saliency=None), use[use["block"] == 0]):
        blind = bare.with_measured(experts=unknown).expert_budgets
        assert blind["gate_share"].isna().all()
        assert list(blind.index) == list(range(len(blind)))
