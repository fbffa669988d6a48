"""Published checkpoints, counted exactly; the oracles are plain numpy over the whole model."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from helpers import counted, study_of

import sparsity_report as sr


def test_minilm(minilm):
    study = study_of(minilm)
    dense = study.totals.set_index("variant").loc["Dense"]
    embedding = (30_522 + 512 + 2) * 384
    block = 4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 4 * 384
    pooler = 384 * 384 + 384
    assert dense["total"] == embedding + 2 * 384 + 6 * block + pooler == 22_713_216
    assert dense["total"] - dense["nonzero"] == 387
    assert dense["prunable_total"] == 6 * (4 * 384**2 + 2 * 384 * 1536)
    assert study.unclassified == ()


def test_minilm_against_numpy(minilm):
    weights = [minilm.tensor(p.name).numpy().ravel() for p in minilm.prunable]
    everything = np.sort(np.abs(np.concatenate(weights)))
    pruning = sr.global_magnitude(minilm, 0.3)
    assert pruning.pruned == round(0.3 * everything.size)
    assert pruning.threshold == everything[pruning.pruned - 1]


def test_minilm_from_its_module_is_the_same(minilm, minilm_path):
    from transformers import BertModel

    module = sr.load(BertModel.from_pretrained(minilm_path), name="MiniLM")
    files, memory = study_of(minilm), study_of(module)
    assert counted(files.layers).equals(counted(memory.layers))
    assert files.variants["fingerprint"].equals(memory.variants["fingerprint"])


def test_minilm_runs_pruned(minilm):
    pruning = sr.global_magnitude(minilm, 0.3)
    ids = torch.arange(1000, 1012)[None]
    with torch.no_grad():
        dense = sr.dense(minilm).module()(ids).last_hidden_state
        masked = sr.masked(pruning).module()(ids).last_hidden_state
        csr = sr.csr(pruning).module()(ids).last_hidden_state
    assert not torch.allclose(dense, masked, atol=1e-3)
    assert torch.allclose(masked, csr, atol=1e-4)


def test_smollm2(smollm2):
    study = study_of(smollm2)
    totals = study.totals.set_index("variant")
    block = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 576 * 1536
    assert totals.loc["Dense", "total"] == 49_152 * 576 + 30 * (block + 2 * 576) + 576
    assert totals.loc["Dense", "total"] == 134_515_008
    assert totals.loc["Dense", "prunable_total"] == 30 * block == 106_168_320
    assert len(smollm2.prunable) == 30 * 7 == 210
    assert totals.loc["Masked30", "pruned"] == 31_850_496
    assert totals.loc["Masked30", "threshold"] == 0.06671142578125
    prunable = study.layers[(study.layers["variant"] == "Masked30") & study.layers["prunable"]]
    zeros = int((prunable["weight_total"] - prunable["weight_nonzero"]).sum())
    assert zeros == 31_850_496
    assert study.unclassified == ()


@pytest.mark.parametrize("page", ["reference/packed-formats.md", "how-to/adapters-gguf-pickles.md"])
def test_documentation_tells_the_file_of_smollm2_from_its_tensors(page, smollm2_path):
    tensors = gguf.GGUFReader(smollm2_path).tensors
    size, weights = (sum(int(getattr(t, n)) for t in tensors) for n in ("n_bytes", "n_elements"))
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    assert f"{smollm2_path.stat().st_size / 1e6:.1f} MB" in text
    assert f"{size / 1e6:.1f} MB" in text
    assert f"{8 * size / weights:.2f} bits" in text
    assert f"{4 * weights / 1e6:.0f} MB" in text


def test_smollm2_has_thousands_of_weights_on_its_threshold(smollm2):
    pruning = sr.global_magnitude(smollm2, 0.3)
    on_it = below = 0
    for parameter in smollm2.prunable:
        magnitudes = np.abs(smollm2.tensor(parameter.name).numpy())
        on_it += int((magnitudes == pruning.threshold).sum())
        below += int((magnitudes < pruning.threshold).sum())
    assert on_it == 16_400
    assert below < pruning.pruned < below + on_it


def test_smollm2_one_block_loses_most_of_its_values(smollm2):
    """What the picture in the README shows: one threshold, very different layers."""
    layers = sr.masked(sr.global_magnitude(smollm2, 0.3)).layers().set_index("module_name")
    value = layers.loc["model.layers.0.self_attn.v_proj"]
    mask = np.abs(smollm2.tensor("model.layers.0.self_attn.v_proj.weight").numpy())
    assert 1 - value["weight_nonzero"] / value["weight_total"] == pytest.approx(
        (mask <= 0.06671142578125).mean(), abs=1e-3
    )
