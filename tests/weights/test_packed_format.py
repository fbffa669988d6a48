"""A packed format is one class and one line: a toy format is recognized, declared and decoded."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers import refused
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.weights.packed.format_detection import FORMATS
from sparsity_report.weights.packed.packed_format import PackedFormat
from sparsity_report.weights.packed.rowwise import Rowwise


class Thirds(PackedFormat):
    """Signed bytes that count thirds."""

    needs = ("thirds",)
    layouts: ClassVar = {"thirds": ("toy",)}

    def decode(self, parts):
        """Return the decoder."""
        codes, shape = parts.need("thirds", "int8"), parts.matrix("thirds")
        return Rowwise(shape, "thirds", parts.all, codes, factor=1 / 3)


@pytest.fixture
def thirds():
    FORMATS.append(Thirds())
    yield
    FORMATS.pop()


def folder(path, method):
    torch.manual_seed(0)
    codes = torch.randint(-3, 4, (6, 8), dtype=torch.int8)
    save_file({"layers.0.mlp.up_proj.thirds": codes}, path / "model.safetensors")
    config = {"model_type": "custom", "quantization_config": {"quant_method": method}}
    (path / "config.json").write_text(json.dumps(config))
    return codes


@pytest.mark.usefixtures("thirds")
def test_toy_format_is_counted(tmp_path):
    codes = folder(tmp_path, "toy")
    weights = sr.load(tmp_path, config=False)
    (weight,) = weights.parameters
    assert (weight.name, weight.packing) == ("layers.0.mlp.up_proj.weight", "thirds")
    values = weights.tensor(weight.name).numpy()
    np.testing.assert_allclose(values, codes.numpy() / 3, rtol=1e-6)
    (row,) = sr.compare(sr.dense(weights)).layers.to_dict("records")
    nonzero = int(codes.count_nonzero())
    assert (row["total"], row["nonzero"], row["file_bytes"]) == (48, nonzero, 48)


@pytest.mark.usefixtures("thirds")
def test_toy_format_is_checked_against_the_configuration(tmp_path):
    folder(tmp_path, "gptq")
    refused("packed by gptq, but they are thirds", tmp_path)


def test_toy_format_is_unknown_without_registration(tmp_path):
    folder(tmp_path, "toy")
    refused("packed by 'toy', which is not supported", tmp_path)
