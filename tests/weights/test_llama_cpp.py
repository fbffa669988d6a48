"""Mixtures cut as GGUF, against checkpoints that are cut first, and then converted by llama.cpp.

``converted/llama_cpp.tar.xz`` has llama.cpp's files and logits. ``converted/write.py`` writes it.
"""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from smaller_mixtures import CONVERTED, keep, logits, to_convert

import sparsity_report as sr

pytestmark = pytest.mark.filterwarnings("ignore")
# llama.cpp rounds what it multiplies with MXFP4 to eight bits.
PRECISION = {"GptOss MXFP4": 0.3}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    with tarfile.open(Path(__file__).with_name("converted") / "llama_cpp.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("case", CONVERTED)
def test_cut_file_equals_the_converted_cut_checkpoint(case, converted, tmp_path):
    weights = sr.load(converted / case / "whole.gguf")
    cut = sr.write_checkpoint(sr.without_experts(keep(weights)), tmp_path / "cut.gguf")
    assert cut.read_bytes() == (converted / case / "smaller.gguf").read_bytes()


@pytest.mark.parametrize("case", [case for case in CONVERTED if "Q4" not in case])
def test_llama_cpp_and_transformers_compute_the_same(case, converted, tmp_path):
    computed = np.load(converted / case / "logits.npy")
    expected = logits(sr.load(to_convert(tmp_path, case)).module())[0].numpy()
    atol = PRECISION.get(case, 1e-4)
    np.testing.assert_allclose(computed, expected, atol=atol, rtol=0)
