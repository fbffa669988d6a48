"""Use of experts in a study: the table and its file."""

from dataclasses import replace

import experts
import pandas as pd
import pytest
import torch

import sparsity_report as sr
from sparsity_report.counting.kept_experts import KeptExperts
from sparsity_report.study.derived.heads_experts import fewer_experts
from sparsity_report.study.variants import Variant


@pytest.fixture(scope="module")
def weights():
    return experts.mixture(blocks=2, count=4)


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


@pytest.mark.parametrize(
    ("change", "why"),
    [({"module_name": "model.layers.9.mlp.experts", "expert": range(8)}, "has no layer"),
     ({"expert": 0}, "occurs twice"), ({"gate_mass": -1.0}, "gate_mass: is less than 0"),
     ({"tokens": 0.5}, "tokens"), ({"variant": "Other"}, "not among the variants")],
)  # fmt: skip
def test_impossible_experts_are_refused(weights, change, why):
    study = sr.compare(sr.dense(weights))
    frame = experts.table("Dense", 2, 4)
    with pytest.raises(sr.SparsityReportError, match=why):
        study.with_measured(experts=frame.assign(**change))
