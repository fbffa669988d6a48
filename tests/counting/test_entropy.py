"""Bits of an ideal code, held against entropies that scipy computes from the values themselves."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

import sparsity_report as sr
from sparsity_report.counting.entropy import code_bits, information
from sparsity_report.counting.histogram import Magnitudes, count
from sparsity_report.study.derived.ideal_code import bits_per_prunable_weight

# Bits of sign, exponent and mantissa.
_FIELDS = {"bfloat16": (8, 7), "float16": (5, 10), "float32": (8, 23)}


def fields(values):
    """Sign, exponent and mantissa of numbers, of float32 the first 7 bits of the mantissa."""
    name = str(values.dtype).removeprefix("torch.")
    wide = torch.int32 if name == "float32" else torch.int16
    bits = values.view(wide).numpy().astype(np.int64)
    _, mantissa = _FIELDS[name]
    plain = bits & ((1 << (8 * values.element_size() - 1)) - 1)
    fraction = plain & ((1 << mantissa) - 1)
    return plain >> mantissa, fraction >> 16 if name == "float32" else fraction


def bits_of(symbols):
    """n times the entropy of symbols."""
    counts = np.unique(symbols, return_counts=True, axis=0)[1]
    return entropy(counts, base=2) * counts.sum() if counts.size else 0.0


def bits_of_study(study, variant):
    return bits_per_prunable_weight(study.entropy, variant)


def expected(values):
    exponents, fractions = fields(values)
    kept = (values != 0).numpy()
    exponents, fractions = exponents[kept], fractions[kept]
    joint = bits_of(np.stack([exponents, fractions], axis=1))
    rest = 16 * kept.sum() if values.dtype == torch.float32 else 0
    exponent = bits_of(exponents)
    return bits_of(kept), kept.sum(), exponent, joint - exponent + rest


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_parts_are_the_entropies_of_the_fields(dtype):
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(20_000, generator=generator)
    values[::7] = 0
    values[1::97] *= 1e-6  # subnormal in float16
    values[2] = 1e-40  # and in float32
    values = values.to(getattr(torch, dtype))
    counted = count(values)
    found = code_bits(counted, dtype, counted.nonzero)
    assert found == pytest.approx(expected(values), rel=1e-9)
    if dtype != "float32":
        magnitudes = values.view(torch.int16).numpy() & 0x7FFF
        assert sum(found) == pytest.approx(bits_of(magnitudes) + counted.nonzero, rel=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.97, 1.0])
def test_pruned_weights_are_zeros(share):
    values = torch.randn(5000, generator=torch.Generator().manual_seed(4)).to(torch.bfloat16)
    counted = count(values)
    order = values.abs().sort(stable=True).indices
    pruned = values.clone()
    pruned[order[: round(share * 5000)]] = 0
    left = int((pruned != 0).sum())
    assert code_bits(counted, "bfloat16", left) == pytest.approx(expected(pruned), rel=1e-9)


def test_weights_of_which_no_code_is_known():
    tally = count(torch.tensor([1.0, float("nan")]))
    assert code_bits(tally, "float32", 2) is None
    assert code_bits(count(torch.tensor([1.0, float("inf")])), "float32", 2) is None
    assert code_bits(count(torch.tensor([1.0])), "float64", 1) is None
    assert code_bits(count(torch.tensor([0.0])), "float32", 1) is None, "more nonzeros than before"
    assert code_bits(Magnitudes(0, 0), "float32", 0) == (0, 0, 0, 0)
    assert information(np.array([8, 0, 8])) == 16


def test_trained_weights_in_bfloat16_need_about_eleven_bits(minilm_path):
    """Zhang et al. 2025 (DFloat11): exponents of bfloat16 models take 2.6 bits."""
    weights = sr.load(minilm_path)
    names = [p.name for p in weights.prunable][:12]
    sums, total = np.zeros(4), 0
    for name in names:
        values = weights.tensor(name).to(torch.bfloat16)
        counted = count(values)
        sums += code_bits(counted, "bfloat16", counted.nonzero)
        total += values.numel()
    zeros, signs, exponents, mantissas = sums / total
    assert zeros < 0.01
    assert signs > 0.99
    assert 2.3 < exponents < 3.0
    assert 6.8 < mantissas <= 7
    assert 10.4 < sum(sums) / total < 11.2


@pytest.fixture(scope="module")
def study():
    weights = sr.load()
    prunings = [sr.global_magnitude(weights, 0.5), sr.layerwise_magnitude(weights, 0.4)]
    positional = [sr.n_m(weights, 2, 4), sr.random_unstructured(weights, 0.5)]
    return sr.compare(sr.dense(weights), *map(sr.masked, [*prunings, *positional]))


def test_bits_of_variants(study):
    weights = study.weights
    by_variant = study.entropy.groupby("variant")[["zero_bits", "sign_bits", "mantissa_bits"]]
    pruned = by_variant.get_group("Masked50").sum()
    module = sr.masked(sr.global_magnitude(weights, 0.5)).module()
    values = dict(module.named_parameters())
    due = sum(np.array(expected(values[p.name].detach().flatten())) for p in weights.prunable)
    assert pruned.tolist() == pytest.approx([due[0], due[1], due[3]], rel=1e-9)
    facts = bits_of_study(study, "Masked50")
    total = sum(p.total for p in weights.prunable)
    assert facts["ideal_bits"] == pytest.approx(sum(due) / total)
    # The histogram does not know which weights other rules take.
    assert bits_of_study(study, "Masked2:4") is None
    assert bits_of_study(study, "Masked50Random") is None
    assert bits_of_study(study, "Masked40Layerwise")["ideal_bits"] > facts["ideal_bits"]


def test_the_ideal_code_is_a_floor_in_the_storage_table(study):
    frame = (
        study.storage[study.storage["variant"] == "Masked50"]
        .set_index(["scope", "layout"])
        .sort_index()
    )
    ideal, dense = (frame.loc[[("prunable", name)]].iloc[0] for name in ("ideal", "dense"))
    bits = bits_of_study(study, "Masked50")["ideal_bits"] * ideal["total"]
    layers = int((study.layers["prunable"] & study.layers["variant"].eq("Dense")).sum())
    assert 0 <= int(ideal["bytes"]) - bits / 8 <= layers
    rows = frame.loc["prunable"].query("lossless == True and layout != 'ideal'")
    assert ideal["bytes"] < rows["bytes"].min()
    assert np.isnan(ideal["break_even"])
    assert ideal["lossless"]
    model = frame.loc["model"]["bytes"]
    rest = model["dense"] - dense["bytes"]
    assert model["ideal"] == ideal["bytes"] + rest
    assert study.facts.smallest_layout("Masked50") != "ideal"


def test_packed_weights_have_no_ideal_code(smollm2):
    bits = sr.compare(sr.dense(smollm2)).entropy
    assert all(p.packing for p in smollm2.prunable)
    assert len(bits) == len(smollm2.prunable)
    assert bits["zero_bits"].isna().all()
