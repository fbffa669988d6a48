"""PyTorch archives: counted as torch loads them, by the names of their records, or refused."""

import pytest
import torch
from fuzz.pickles import archived, members_of
from fuzz.truth import count, counted
from helpers import refused

from sparsity_report.findings.model_counts import model_counts
from sparsity_report.untrusted import limits
from sparsity_report.weights.loading import open_to_count


@pytest.fixture
def file(tmp_path):
    """Three matrices of one size with 256, 0 and 192 nonzeros."""
    matrices = torch.ones(16, 16), torch.zeros(16, 16), torch.ones(16, 16).tril(3).triu(-3)
    path = tmp_path / "pytorch_model.bin"
    torch.save({f"h.{n}.weight": matrix for n, matrix in enumerate(matrices)}, path)
    return path


@pytest.mark.parametrize("change", ["reordered", "exchanged"])
def test_records_are_found_by_their_names(file, change):
    """Torch computes offsets from the order of records, where it does not read them by name."""
    members = members_of(file.read_bytes())
    one, other = (n for n, (name, _) in enumerate(members) if name.endswith(("data/1", "data/2")))
    members[one], members[other] = members[other], members[one]
    if change == "exchanged":
        names = members[other][0], members[one][0]
        for place, name in zip((one, other), names, strict=True):
            members[place] = name, members[place][1]
    file.write_bytes(archived(members))
    state = torch.load(file, weights_only=True)
    expected = {key.removesuffix(".weight"): count(tensor) for key, tensor in state.items()}
    assert counted(file, allow_pickle=True) == expected


@pytest.mark.parametrize("size", [0, 512, 1023, 1025])
def test_records_of_another_size_are_refused(file, size):
    """The bytes that follow are those of other tensors."""
    members = members_of(file.read_bytes())
    cut = [(n, (d * 2)[:size] if n.endswith("data/1") else d) for n, d in members]
    file.write_bytes(archived(cut))
    with pytest.raises(RuntimeError, match="record size"):
        torch.load(file, weights_only=True)
    refused("cannot be read as a PyTorch state dict: record size", file, allow_pickle=True)


def test_two_records_of_one_name_are_refused(file):
    members = members_of(file.read_bytes())
    with pytest.warns(UserWarning, match="Duplicate name"):
        file.write_bytes(archived([*members, members[-3]]))
    refused("it holds '.*' twice", file, allow_pickle=True)


def test_tensors_without_values_are_refused(file):
    torch.save({"h.0.weight": torch.empty(3, 3, device="meta")}, file)
    refused("'h.0.weight' is a meta tensor, which has no values", file, allow_pickle=True)


def test_tensors_far_larger_than_their_file_are_refused(file):
    """A single stored value unfolds to 16 GiB."""
    torch.save({"h.0.weight": torch.ones(1).expand(2**20, 2**12)}, file)
    refused("sparse or repeated values unfold to 17,179,869,184 bytes", file, allow_pickle=True)
    sparse = torch.sparse_coo_tensor([[0], [1]], [1.0], (2**15, 2**14))
    torch.save({"h.0.weight": sparse}, file)
    refused("sparse or repeated values unfold to 2,147,483,648 bytes", file, allow_pickle=True)


def test_a_pickle_that_is_larger_than_any_is_refused(file, monkeypatch):
    monkeypatch.setattr(limits, "PICKLE_BYTES", 200)
    refused("data.pkl' has more than 200 bytes", file, allow_pickle=True)


def test_bytes_of_tensors_that_are_held_in_memory(file):
    """Sparse ones take the bytes of their arrays, not those of the matrix in memory."""
    torch.manual_seed(0)
    matrix = torch.randn(16, 8).relu()
    nonzero = int(matrix.count_nonzero())
    torch.save(
        {"h.0.weight": matrix.T, "h.1.weight": matrix.to_sparse(),
         "h.2.weight": matrix.to_sparse_csr(),
         "h.3.weight": torch.as_strided(matrix.flatten(), (4, 8), (3, 1))},
        file,
    )  # fmt: skip
    counts = model_counts(open_to_count(file, allow_pickle=True), ())
    coo, csr = nonzero * (4 + 2 * 8), nonzero * (4 + 8) + 17 * 8
    assert counts["tensor_bytes"] == 128 * 4 + coo + csr + 32 * 4
    assert counts["parameters"] == 3 * 128 + 32
