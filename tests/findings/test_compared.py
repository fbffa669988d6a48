"""Which policy is best at what: said of what was measured or is exact, ties and silence said."""

from dataclasses import replace

import measurements
import pandas as pd
import pytest
import torch

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


def test_bytes_of_equal_counts_are_a_tie_and_silence_is_said(study):
    (said,) = policy_findings(study)
    assert said.startswith("Pruned to 50 %, CSR50 and CSR50Layerwise take the same 0.53 of")
    assert said.endswith("what any of them costs in quality and time was not measured.")


def test_the_lower_perplexity_wins_and_the_digits_shown_decide(study):
    (said,) = policy_findings(scored(study, 10.0, 11.75, 12.5))
    assert "lowest perplexity on some.txt: CSR50, 11.75, against 12.50;" in said
    assert "nearest to Dense (KL, nats per token): CSR50, 0.125, against 0.250." in said
    (said,) = policy_findings(scored(study, 10.0, 12.501, 12.499))
    assert "perplexity on some.txt is 12.50 for all;" in said
    assert "lowest" not in said
    # The one of the lower perplexity has fewer first guesses of dense's: 33 of 99, against 66.
    (said,) = policy_findings(scored(study, 10.0, 12.5, 11.75))
    assert (
        "none is told to have a lower perplexity on some.txt than the others: 11.75 to 12.50;"
        in said
    )


@pytest.mark.parametrize(
    ("ends", "fastest"), [((0.5, 0.6), True), ((0.41, 0.6), False)], ids=["apart", "overlapping"]
)
def test_a_speed_within_anothers_interval_is_no_win(study, ends, fastest):
    (said,) = policy_findings(timed(study, *ends))
    wins = "fastest with 1 token at a time: CSR50Layerwise, 0.55 (0.50 to 0.60) times as fast"
    assert (wins in said) is fastest
    assert ("none is told to be faster than the others with 1 token at a time" in said) is (
        not fastest
    )


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
    (said,) = policy_findings(study)
    row = study.storage.query("variant == 'Blocks' and scope == 'prunable' and layout == 'bsr_32'")
    ratio = f"{row['bytes'].iloc[0] / (4 * 64 * 64):.2f}"
    assert f"fewest bytes in a lossless layout: Blocks, {ratio} of dense as BSR 32 × 32" in said
    assert isinstance(study.facts.compared.figures, tuple)
    assert pd.notna(row["bytes"].iloc[0])
