"""Compressed files against frames of arrays that NumPy masks, and the library's own reading."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import small_llama, study_of, zstd
from torch import nn

import sparsity_report as sr
from sparsity_report.study.derived.facts import CURVE_LAYOUTS
from sparsity_report.study.zstd_sizes import Frames


def frame_of(data):
    """Compress bytes at once: a frame that knows its length, at level 3."""
    stream = zstd.ZstdCompressor(level=3)
    stream.set_pledged_input_size(len(data))
    frame = stream.compress(data) + stream.flush()
    assert zstd.decompress(frame) == data
    assert zstd.get_frame_info(frame).decompressed_size == len(data)
    return len(frame)


def kept(tensor, threshold):
    """The bits of a tensor, what lies at or below a threshold as zero, by NumPy."""
    bits = tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.itemsize]).numpy()
    return np.where(tensor.float().abs().numpy() > threshold, bits, 0).astype(bits.dtype).tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_frames_are_those_of_masked_arrays(dtype):
    torch.manual_seed(0)
    # 1.5 MB in blocks of rows that are no blocks of zstd, so that windows and streams show.
    model = nn.ModuleDict({"fc1": nn.Linear(1100, 1400, bias=False, dtype=dtype)})
    weights = sr.load(model)
    pruning = sr.global_magnitude(weights, 0.4)
    frame = sr.compare(sr.dense(weights), sr.csr(pruning), zstd=True).patterns
    pruned = sr.masked(pruning).module()["fc1"].weight.data
    stored = [frame_of(kept(tensor, 0)) for tensor in (model["fc1"].weight.data, pruned)]
    assert frame["zstd_bytes"].tolist() == stored
    assert set(frame["zstd_version"]) == {zstd.zstd_version}


def test_ties_and_masks_count_not_thresholds_alone():
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc1": nn.Linear(64, 96, bias=False)})
    model["fc1"].weight.data.round_(decimals=1)
    variant = sr.masked(sr.n_m(sr.load(model), 2, 4))
    masked = variant.module()["fc1"].weight.detach().numpy() + np.float32(0)  # -0 becomes +0
    assert sr.weight_patterns(variant, zstd=True)["zstd_bytes"].tolist() == [
        frame_of(masked.tobytes())
    ]


@pytest.mark.parametrize("step", [7, 64, 1000, 65536, 300_000])
def test_a_frame_does_not_depend_on_the_pieces_it_comes_in(step):
    values = torch.randn(300_000, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    values = values[: 1000 * step]
    frames = Frames(1, values.nbytes)
    for piece in values.split(step):
        frames.add(piece, piece.abs() > 0.5)
    assert frames.sizes == [frame_of(kept(values, 0.5))]


def test_experts_have_a_frame_each_and_empty_ones_too():
    frames = Frames(matrices=3, size=0)
    assert frames.sizes == [frame_of(b"")] * 3
    study = study_of(sr.load(small_llama(), name="small"), 0.5, zstd=True)
    assert study.patterns["zstd_bytes"].gt(0).all()


def test_nothing_is_compressed_unless_asked_for(demo):
    study = study_of(demo, patterns=True)
    assert study.patterns[["zstd_bytes", "zstd_version"]].isna().all(axis=None)
    file = study.facts.storage("CSR30").loc["zstd"]
    assert file[["bytes", "ratio", "break_even", "lossless"]].isna().all()
    assert not any("zstd" in sentence for sentence in sr.summarize(study))
    assert study.facts.patterns("CSR30")["zstd_version"].isna().all()


def test_a_file_is_never_the_layout_one_computes_with(demo):
    study = study_of(demo, 0.3, zstd=True)
    facts = study.facts
    sizes = facts.storage("CSR30")["bytes"]
    assert sizes.drop(["2:4", "marlin_2:4", "ideal"]).idxmin() == "zstd"  # which do not hold it
    assert facts.smallest_layout("CSR30") == "bitmask"
    assert "zstd" not in facts.lossless("CSR30").index
    assert facts.smaller_file("CSR30") == sizes["zstd"] / sizes["dense"]
    assert "zstd" not in CURVE_LAYOUTS
    assert facts.break_even("CSR30", "zstd") is None
    plain = study_of(demo, 0.3, patterns=True)
    assert plain.facts.smaller_file("CSR30") is None


def test_variants_that_join_are_compressed_as_the_others(demo):
    study = sr.compare(sr.dense(demo), zstd=True)
    more = study.with_variants(sr.csr(sr.global_magnitude(demo, 0.6)))
    assert more.patterns["zstd_bytes"].notna().all()
    assert sr.compare(sr.dense(demo), patterns=True).with_variants(
        sr.csr(sr.global_magnitude(demo, 0.6))
    ).patterns["zstd_bytes"].isna().all()  # fmt: skip


WITHOUT = """
import sys
sys.modules["backports.zstd"] = sys.modules["compression"] = None
import sparsity_report as sr
from sparsity_report.cli import main
weights = sr.load()
for ask in (lambda: sr.compare(sr.dense(weights), zstd=True),
            lambda: sr.weight_patterns(sr.dense(weights), zstd=True)):
    try:
        ask()
    except sr.SparsityReportError as error:
        print(error)
study = sr.read_study(sys.argv[1])
more = study.with_variants(sr.csr(sr.global_magnitude(weights, 0.6)))
print(more.patterns["zstd_bytes"].isna().groupby(more.patterns["variant"]).all().to_dict())
sys.argv = ["sparsity-report", "run", "--zstd", "--out", sys.argv[2]]
main()
"""


def test_without_the_library_it_is_refused_before_anything_is_counted(demo, tmp_path):
    file = sr.compare(sr.dense(demo), zstd=True).save(tmp_path / "s.json")
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, file, tmp_path / "out"], capture_output=True, text=True
    )
    refused = "zstd: needs Python 3.14 or a further library; run pip install backports.zstd"
    assert run.stdout.splitlines() == [refused, refused, "{'CSR60': True, 'Dense': False}"]
    assert run.stderr.strip().endswith(refused)
    assert run.returncode == 2
    assert not (tmp_path / "out").exists()
