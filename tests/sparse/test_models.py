"""Every architecture runs as CSR with the same outputs, and counts as it was derived."""

import copy

import pytest
import torch
from helpers import swept
from safetensors.torch import load_model, save_model
from zoo.cases import CASES, built

import sparsity_report as sr

pytestmark = pytest.mark.filterwarnings("ignore")  # advice on kernels that are not installed


@pytest.fixture(scope="module", params=swept(CASES, 3), ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def variant(case):
    return sr.csr(sr.global_magnitude(sr.load(built(case)), sparsity=0.6))


def outputs(model, case):
    model.set_experts_implementation("eager")
    with torch.inference_mode():
        found = model.eval()(**case.reads())
    return found["logits"] if "logits" in found else found["last_hidden_state"]


def test_csr_equals_masked(case, variant):
    masked, csr = sr.masked(variant.pruning).module(), variant.module()
    expected = outputs(masked, case)
    assert expected.isfinite().all()
    torch.testing.assert_close(outputs(csr, case), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs(copy.deepcopy(csr), case), expected, rtol=1e-4, atol=1e-5)


def test_a_saved_model_is_as_large_as_derived(case, variant, tmp_path):
    model, path = variant.module(), tmp_path / "model.safetensors"
    save_model(model, path)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    own = {id(b): b for b in model.buffers()}
    arrays = {id(b) for m in model.modules() if hasattr(m, "crow_indices") for b in m.buffers()}
    names = {id(b): n for n, b in model.named_buffers() if n in model.state_dict()}
    others = sum(b.nbytes for key, b in own.items() if key in names and key not in arrays)
    derived = int(variant.layers()["stored_bytes"].sum())
    assert path.stat().st_size == header + derived + others

    twin = sr.csr(sr.global_magnitude(variant.weights, sparsity=0.2)).module()
    load_model(twin, path)
    assert torch.equal(outputs(twin, case), outputs(model, case))
