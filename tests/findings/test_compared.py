"""Which policy is best at what: said of what was measured or is exact, ties and silence said."""

from dataclasses import replace

import measurements
import pandas as pd
import pytest
import torch
from wording import wording

import sparsity_report as sr
from sparsity_report.findings.policy_findings import policy_findings


@pytest.fixture(scope="module")
def study(demo):
    policies = sr.global_magnitude(demo, 0.5), sr.layerwise_magnitude(demo, 0.5)
    return sr.compare(sr.dense(demo), *map(sr.csr, policies))


def scored(study, *perplexities):
    names = ("Dense", "CSR50", "CSR50Layerwise")
    levels = tuple(zip((0.0, 0.5, 0.5), perplexities, strict=True))
    return replace(study, quality=measurements.quality(levels, names))


def timed(study, low, high):
    frame = measurements.latency(("Dense", "CSR50Layerwise", "CSR50"))
    frame = frame[(frame["scope"] == "model") & (frame["tokens"] == 1)].copy()
    frame.loc[frame["variant"] == "CSR50Layerwise", ["realised_low", "realised_high"]] = low, high
    mean = (low + high) / 2
    frame.loc[frame["variant"] == "CSR50Layerwise", "realised_speedup"] = mean
    return replace(study, latency=frame)


def clauses(study):
    (finding,) = policy_findings(study)
    return finding.values["clauses"]


def test_bytes_of_equal_counts_are_a_tie_and_silence_is_said(study):
    (finding,) = policy_findings(study)
    assert [clause.key for clause in finding.values["clauses"]] == [
        "policy.smallest_layout_equal", "policy.quality_not_measured",
    ]  # fmt: skip
    assert "50 % sparsity, CSR50 and CSR50Layerwise take the same 0.53 times" in str(finding)


def test_the_lower_perplexity_wins_and_the_digits_shown_decide(study):
    _, perplexity, kl = clauses(scored(study, 10.0, 11.75, 12.5))
    assert str(perplexity) == wording(
        "policy.perplexity_lowest", text="some.txt", best="CSR50", values="11.75", others="12.50"
    )
    assert str(kl) == wording(
        "policy.kl_lowest", base="Dense", best="CSR50", values="0.125", others="0.250"
    )
    _, perplexity, _ = clauses(scored(study, 10.0, 12.501, 12.499))
    assert str(perplexity) == wording("policy.perplexity_equal", text="some.txt", values="12.50")
    # The one of the lower perplexity has fewer first guesses of dense's: 33 of 99, against 66.
    _, perplexity, _ = clauses(scored(study, 10.0, 12.5, 11.75))
    assert str(perplexity) == wording(
        "policy.perplexity_no_winner", text="some.txt", values="11.75 to 12.50"
    )


@pytest.mark.parametrize(
    ("ends", "fastest"), [((0.5, 0.6), True), ((0.41, 0.6), False)], ids=["apart", "overlapping"]
)
def test_a_speed_within_anothers_interval_is_no_win(study, ends, fastest):
    speed = clauses(timed(study, *ends))[-1]
    assert speed.key == ("policy.fastest" if fastest else "policy.speed_no_winner")
    assert "with 1 token at a time" in str(speed)
    assert ("CSR50Layerwise, 0.55 (0.50 to 0.60) times as fast" in str(speed)) is fastest


def test_zeros_in_blocks_take_fewer_bytes():
    torch.manual_seed(0)
    weights = sr.load(torch.nn.ModuleDict({"fc1": torch.nn.Linear(64, 64, bias=False)}), name="b")
    mask = torch.ones(64, 64, dtype=torch.bool)
    mask[:32] = False
    blocks = sr.import_mask({"fc1.weight": mask}, weights)
    study = sr.compare(
        sr.dense(weights), sr.masked(blocks, name="Blocks"),
        sr.masked(sr.global_magnitude(weights, 0.5)), patterns=True,
    )  # fmt: skip
    layout, *_ = clauses(study)
    row = study.storage.query("variant == 'Blocks' and scope == 'prunable' and layout == 'bsr_32'")
    ratio = f"{row['bytes'].iloc[0] / (4 * 64 * 64):.2f}"
    assert layout.key == "policy.smallest_layout"
    assert f"{ratio} times the dense bytes for Blocks as BSR 32 × 32" in str(layout)
    assert isinstance(study.compared.figures, tuple)
    assert pd.notna(row["bytes"].iloc[0])
