"""Width and vocabulary cut together, with and without evidence for the channels."""

import pytest
import structural
import torch
from safetensors.torch import load_file
from structural import Left, shuffled, written

import sparsity_report as sr

CUT = Left(
    vocabulary=shuffled(70, 96), width=shuffled(48, 64),
    config={"vocab_size": 70, "hidden_size": 48},
)  # fmt: skip


def test_norms_that_are_all_alike_tell_nothing(bases, tmp_path):
    tensors = load_file(bases("llama") / "model.safetensors")
    ones = {name: torch.ones_like(v) if "norm" in name else v for name, v in tensors.items()}
    config = (bases("llama") / "config.json").read_text()
    base = written(tmp_path / "base", ones)
    (base / "config.json").write_text(config)
    after = structural.pruned(base, tmp_path / "after", CUT)
    with pytest.raises(sr.SparsityReportError, match="both the width and the vocabulary were cut"):
        sr.compare_checkpoints(base, after)
