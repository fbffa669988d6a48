"""Zeros that rounding creates, in rounded Gaussian weights and by the rule of each format."""

import math
from concurrent.futures import ProcessPoolExecutor

import gguf
import numpy as np
import packing
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from wording import of_key, wording

import sparsity_report as sr
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import Magnitudes, Steps, count_slices
from sparsity_report.findings.audit import audit
from sparsity_report.findings.study_findings import study_findings
from sparsity_report.weights.packed.rowwise import nearest_to_zero
from sparsity_report.weights.sources.gguf_files import ROUNDINGS, BlockSlice, block_steps
from sparsity_report.weights.tensor_slices import LocalFile, Rounding
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.number_format import percent

# Position of the low bits of codes in a block, and the byte that sets them for every weight.
LOW_BITS = {
    "Q4_0": (2, 18, 0x11), "Q4_1": (4, 20, 0x11), "Q5_0": (6, 22, 0x11), "Q5_1": (8, 24, 0x11),
    "Q8_0": (2, 34, 0x01), "Q2_K": (16, 80, 0x55), "Q3_K": (32, 96, 0x55), "Q4_K": (16, 144, 0x11),
    "Q5_K": (48, 176, 0x11), "Q6_K": (0, 128, 0x11), "MXFP4": (1, 17, 0x11),
}  # fmt: skip


@pytest.mark.parametrize(
    ("way", "share"),
    [
        # Without a share: of groups of 32, whose largest weight is smaller than that of 128.
        ("gptq-4-v1", None), ("gptq-3-v1", None), ("gptq-8-v1", None), ("gptq-2-v1", None),
        ("gptq-4-v1-zero", None), ("gptq-4-v2-shuffled", None), ("awq", None),
        ("pack-quantized-4-symmetric", None), ("pack-quantized-3-zero", None),
        ("pack-quantized-shuffled", None),
        ("nf4", 0.09), ("mxfp4", 0.08), ("nvfp4-modelopt", 0.07), ("int8", 0.01), ("fp8-blocks", 0),
    ],
)  # fmt: skip
def test_gaussian_weights_have_the_zeros_that_are_expected(way, share, tmp_path):
    weights, means = packing.packed_matrix(tmp_path / "m", way, packing.gaussian())
    row = sr.compare(sr.dense(weights)).layers.iloc[0]
    zeros = float((means == 0).float().mean())
    assert row["sparsity"] == pytest.approx(zeros)
    assert row["expected_rounding_sparsity"] == pytest.approx(zeros, rel=0.05, abs=3e-4)
    assert np.isnan(row["near_zero_share"])
    if share is not None:
        assert row["expected_rounding_sparsity"] == pytest.approx(share, abs=0.01)


def test_the_share_is_a_product_written_out(tmp_path):
    """For int8 with one scale per row, compare with the formula for each row."""
    weights, means = packing.packed_matrix(tmp_path / "m", "int8", packing.gaussian())
    steps = packing.gaussian().abs().amax(1).double() / 127
    sigma = float(means.double().square().mean().sqrt())
    expected = float(torch.erf(steps / (2 * sigma * math.sqrt(2))).mean())
    row = sr.compare(sr.dense(weights)).layers.iloc[0]
    assert row["expected_rounding_sparsity"] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_without_a_zero_those_within_half_a_step_are_counted(bits, tmp_path):
    weights, means = packing.packed_matrix(tmp_path / "m", f"mlx-{bits}", packing.gaussian(0.5))
    scales = packing.mlx(packing.gaussian(0.5), bits)[0]["scales"].abs()
    near = means.reshape(512, -1, 32).abs() <= scales[..., None] / 2
    row = sr.compare(sr.dense(weights)).layers.iloc[0]
    assert row["near_zero_share"] == float(near.double().mean()) > 0.49
    sigma = float(means.double().square().mean().sqrt())
    expected = float(torch.erf(scales.double() / (2 * sigma * math.sqrt(2))).mean())
    assert row["expected_rounding_sparsity"] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0", "Q8_0", "Q4_1", "Q5_1"])
def test_blocks_of_gguf(kind, tmp_path):
    number = GGMLQuantizationType[kind]
    raw = gguf.quants.quantize(packing.gaussian().numpy(), number)
    (tmp_path / "w").write_bytes(raw.tobytes())
    part = BlockSlice(512 * 1024, "float32", LocalFile.look_up(tmp_path / "w"), 0, kind)
    tally = count_slices({"": part.cut((512, 1024))})[""]
    values, steps = dequantize(raw, number), block_steps(kind, raw.reshape(-1, raw.size // 2**14))
    near = np.abs(values.reshape(len(steps), -1)) <= steps / 2
    zeros = np.count_nonzero(near if kind.endswith("1") else values == 0)
    assert tally.steps.near == (zeros if kind.endswith("1") else 0)
    assert tally.steps.expected_zeros(tally.root_mean_square) == pytest.approx(zeros, rel=0.03)
    assert tally.nonzero == np.count_nonzero(values)
    assert tally.steps.counts.sum() == tally.total == values.size


@pytest.mark.parametrize("kind", ROUNDINGS)
def test_a_step_is_what_one_more_in_a_code_makes(kind):
    """Compare with the gguf library, for blocks whose codes differ by one."""
    size, rng = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1], np.random.default_rng(1)
    blocks = rng.integers(0, 256, (64, size), np.uint8)
    if kind == "MXFP4":
        blocks[:, 0] = rng.integers(100, 150, 64)
    else:
        # Scales that are no infinity: the top bit of the exponent is off.
        for place in {"Q2_K": (81, 83), "Q3_K": (109,), "Q6_K": (209,)}.get(kind, (1, 3)):
            blocks[:, place] &= 0xBF
    first, last, low = LOW_BITS[kind]
    with_low, without = blocks.copy(), blocks.copy()
    without[:, first:last] = 0
    with_low[:, first:last] = low
    number = GGMLQuantizationType[kind]
    apart = np.abs(dequantize(with_low, number) - dequantize(without, number))
    steps = block_steps(kind, blocks)
    width = 0.5 if kind == "MXFP4" else 1
    text = width * steps.repeat(apart.shape[1] // steps.shape[1], axis=1)
    np.testing.assert_allclose(text, apart, rtol=1e-3, atol=1e-3 * float(apart.max()))
    assert width == 2 * ROUNDINGS[kind].above


def test_levels_around_zero():
    table = nearest_to_zero(packing.NF4)
    assert (table.below, table.above) == (0.09105003625154495 / 2, 0.07958029955625534 / 2)
    assert nearest_to_zero(packing.FP4) == Rounding(0.25, 0.25)
    assert nearest_to_zero([math.nan, *range(-128, 128)]) == Rounding()
    assert nearest_to_zero([1.0, 2.0]) is nearest_to_zero([0.0, 1.0]) is None


def test_steps_add_up_where_they_are_alike():
    one = Steps(Rounding(), np.array([1.0, 2.0]), np.array([3, 4]), 5)
    sums = one.merged(Steps(Rounding(), np.array([2.0, 3.0]), np.array([10, 20]), 7))
    assert (sums.values.tolist(), sums.counts.tolist()) == ([1, 2, 3], [3, 14, 20])
    assert sums.near == 12
    assert one.merged(Steps(Rounding(has_zero=False), one.values, one.counts)) is None
    assert one.merged(None) is None
    assert (Magnitudes(0, 0) + Magnitudes(7, 7, steps=one)).steps is one


def test_a_pruned_variant_and_one_as_csr_are_not_what_was_rounded(tmp_path):
    weights, _ = packing.packed_matrix(tmp_path / "m", "nf4", packing.gaussian())
    pruning = sr.global_magnitude(weights, 0.3)
    rows = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning)).layers
    assert rows["expected_rounding_sparsity"].notna().tolist() == [True, False, False]


@pytest.mark.parametrize("way", ["sparse-bitmask", "sparse-24"])
def test_rounding_explains_no_zero_of_unrounded_tensors(way, tmp_path):
    weights, _ = packing.packed_matrix(tmp_path / "m", way, packing.gaussian(0.5))
    variant = sr.dense(weights)
    rows = sr.compare(variant).layers
    assert rows["expected_rounding_sparsity"].tolist() == [0.0]
    assert rows["near_zero_share"].isna().all()
    assert variant.is_pruned


@pytest.mark.parametrize("way", ["nf4", "mlx-4"])
def test_workers_and_cached_counts_agree(way, tmp_path):
    text = []
    with ProcessPoolExecutor(1) as pool:
        for options in (
            {}, {"cache": tmp_path / "c"}, {"cache": tmp_path / "c"}, {"executor": pool},
        ):  # fmt: skip
            weights, _ = packing.packed_matrix(tmp_path / "m", way, packing.gaussian())
            steps = count_weights(weights, **options)["layers.0.q_proj.weight"].steps
            text.append((steps.rounding, steps.values.tolist(), steps.counts.tolist(), steps.near))
    assert text[0] == text[1] == text[2] == text[3]
    assert list((tmp_path / "c").iterdir())
    assert (text[0][-1] > 0) == (way == "mlx-4")


def about_rounding(findings):
    keys = [key for key in catalogue() if key.startswith("rounding.")]
    return [finding for key in keys for finding in of_key(findings, key)]


def test_without_zeros_there_is_nothing_to_explain(tmp_path):
    weights, _ = packing.packed_matrix(tmp_path / "m", "fp8-blocks", packing.gaussian())
    study = sr.compare(sr.dense(weights))
    assert not about_rounding([*study_findings(study), *audit(study)])


def test_unclear_cases_have_no_share(tmp_path):
    """Prune 10 %, of which rounding would hide 7 %."""
    weights, _ = packing.packed_matrix(tmp_path / "m", "nvfp4-modelopt", packing.gaussian(0.1))
    findings = study_findings(sr.compare(sr.dense(weights)))
    assert of_key(findings, "rounding.zeros.undecided")


@pytest.mark.parametrize(("pruned", "outcome"), [(0.0, "alike"), (0.5, "more")])
def test_audit_names_formats_without_a_zero(pruned, outcome, tmp_path):
    weights, means = packing.packed_matrix(tmp_path / "m", "mlx-4", packing.gaussian(pruned))
    study = sr.compare(sr.dense(weights))
    (finding,) = about_rounding(audit(study))
    zeros = float((means == 0).double().mean())
    near, expected = (
        100 * study.layers[column].iloc[0]
        for column in ("near_zero_share", "expected_rounding_sparsity")
    )
    assert finding == wording(
        f"rounding.near_zeros.{outcome}", packings="mlx-4bit-g32",
        sparsity=percent(zeros, space=" ").removesuffix(" %"), weights="524\u202f288",
        variant="Dense", near_zero=f"{near:.1f}", expected=f"{expected:.1f}",
    )  # fmt: skip
    assert not about_rounding(study_findings(study))
