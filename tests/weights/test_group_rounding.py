"""Errors of rounding to few bits agree with rounding one group at a time in double precision."""

import math

import numpy as np
import pytest
import torch
import transformers

import sparsity_report as sr
from sparsity_report.weights.packed.group_rounding import (
    GROUP,
    WIDTHS,
    rounded_bytes,
    squared_errors,
)


def rounded(group, bits):
    """A group after rounding: the nearest of all levels, ties to the even code."""
    scale = torch.tensor(np.abs(group).max() * 2 / (2**bits - 1)).float().bfloat16().double().item()
    codes = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    return np.array([min(codes * scale, key=lambda level: abs(level - w)) for w in group])


def squares(matrix, bits):
    """The squared error of a matrix of outputs × inputs."""
    if bits == 16:
        return float((matrix.double() - matrix.bfloat16().double()).square().sum())
    rows = matrix.double().numpy()
    groups = [row[k : k + GROUP] for row in rows for k in range(0, len(row), GROUP)]
    return sum(((rounded(group, bits) - group) ** 2).sum() for group in groups)


def errors_of(matrix):
    """The squared errors of a matrix by bits."""
    return dict(zip(WIDTHS, squared_errors(matrix)[1:].tolist(), strict=True))


@pytest.mark.parametrize("columns", [GROUP, 3 * GROUP, 70, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_errors_are_those_of_each_group(columns, dtype):
    torch.manual_seed(columns)
    matrix = torch.randn(7, columns).to(dtype)
    matrix[2] = 0
    found = errors_of(matrix)
    for bits in WIDTHS:
        wanted = squares(matrix, bits) if bits < 16 or dtype == torch.float32 else 0
        assert found[bits] == pytest.approx(wanted, rel=1e-5), bits


def test_levels_have_no_error():
    """Codes times a power of two are exact, and −4 is a code of 3 bits but 4 is not."""
    matrix = torch.tensor([[-3.5, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0]])
    assert errors_of(matrix)[3] == pytest.approx(0.5**2)
    assert errors_of(-matrix)[3] == pytest.approx(0.5**2)


def test_unknown_values_have_no_error():
    for value in (math.nan, math.inf):
        assert not math.isfinite(errors_of(torch.tensor([[1.0, value]]))[4])


def test_bytes_count_scales():
    assert rounded_bytes(10, 128, 16) == 10 * 128 * 2
    assert rounded_bytes(10, 128, 4) == 10 * 128 // 2 + 10 * 2 * 2
    assert rounded_bytes(10, 130, 8) == 10 * 130 + 10 * 3 * 2
    assert rounded_bytes(3, 7, 3) == 8 + 3 * 2


def test_patterns_have_the_errors_of_experts_in_both_directions():
    """gpt-oss stores inputs first; Mixtral outputs first."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 16, "hidden_size": 96, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 3,
             "num_experts_per_tok": 2}  # fmt: skip
    oss = transformers.GptOssConfig(head_dim=16, layer_types=["full_attention"], **sizes)
    models = [
        transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes)),
        transformers.GptOssForCausalLM(oss),
    ]
    for model, turned in zip(models, (False, True), strict=True):
        weights = sr.load(model)
        frame = sr.weight_patterns(sr.dense(weights))
        rows = frame[frame["expert"].notna()]
        assert len(rows) == 2 * 3
        assert (
            frame.loc[frame["expert"].isna(), ["weight_norm", "rounding_4"]].isna().all(axis=None)
        )
        for row in rows.to_dict("records"):
            matrix = weights.tensor(row["parameter"])[row["expert"]].detach()
            matrix = matrix.T if turned else matrix
            assert row["weight_norm"] == pytest.approx(float(matrix.double().norm()))
            for bits in WIDTHS:
                wanted = math.sqrt(squares(matrix, bits))
                assert row[f"rounding_{bits}"] == pytest.approx(wanted, rel=1e-5)
