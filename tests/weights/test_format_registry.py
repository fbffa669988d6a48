"""A packed format is one value in a file of a family, and a family one line of registration."""

import json

import pytest
import torch
from safetensors.torch import save_file

import sparsity_report as sr
from sparsity_report.weights.packed import format_detection
from sparsity_report.weights.packed.rowwise import Rowwise
from sparsity_report.weights.packed.tensor_groups import PackedFormat


def row_codes(parts):
    """Integers with a scale to each row."""
    codes = parts.need("row_codes", "int8")
    shape = parts.matrix("row_codes")
    return Rowwise(shape, "rows-int8", parts.all, codes, scales=(parts.scales("row_scale", shape),))


ROWS = PackedFormat(row_codes, ("row_codes", "row_scale"), (), {"rows": ("rows-",)})


def write(folder, method, **further):
    codes = torch.tensor([[0, 2, -3, 0], [1, 0, 0, 0]], dtype=torch.int8)
    tensors = {"row_codes": codes, "row_scale": torch.tensor([[0.5], [2.0]]), **further}
    save_file({f"up_proj.{name}": t for name, t in tensors.items()}, folder / "model.safetensors")
    config = {"model_type": "custom", "quantization_config": {"quant_method": method}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(format_detection, "FORMATS", (*format_detection.FORMATS, ROWS))


@pytest.mark.usefixtures("registered")
def test_registered_format_is_decoded_and_checked(tmp_path):
    weights = sr.load(write(tmp_path, "rows"))
    assert weights.tensor("up_proj.weight").tolist() == [[0, 1, -1.5, 0], [2, 0, 0, 0]]
    row = sr.compare(sr.dense(weights)).layers.iloc[0]
    assert (row["total"], row["nonzero"], row["packing"]) == (8, 3, "rows-int8")
    with pytest.raises(sr.SparsityReportError, match="packed by gptq, but they are rows-int8"):
        sr.load(write(tmp_path, "gptq"))
    with pytest.raises(sr.SparsityReportError, match="this format has no such tensor"):
        sr.load(write(tmp_path, "rows", g_idx=torch.zeros(4, dtype=torch.int32)))


def test_unregistered_method_is_refused(tmp_path):
    with pytest.raises(sr.SparsityReportError, match="'rows', which is not supported"):
        sr.load(write(tmp_path, "rows"))
