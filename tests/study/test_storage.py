"""Bytes in every layout against the arrays that libraries make of the same matrices."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import nn
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.study.levels import in_layout
from sparsity_report.study.schema import LAYOUTS, SCOPES, TABLES

NAMED = {case.name: case for case in CASES}
MODELS = ["OPT", "GPT-2", "BERT", "Mixtral (fused experts)", "GPT-OSS (transposed experts)"]


@pytest.fixture(params=[name for name in NAMED if name.split(" (")[0] in {
    m.split(" (")[0] for m in MODELS}])  # fmt: skip
def variant(request):
    pruning = sr.global_magnitude(sr.load(built(NAMED[request.param])), sparsity=0.7)
    return sr.masked(pruning)


def matrices(variant):
    """Every prunable matrix as (out, in), by module."""
    model = variant.module()
    for module in variant.weights.modules:
        own = [p for p in module.parameters if p.prunable]
        found = []
        for p in own:
            tensor = model.get_parameter(p.name).detach()
            for one in tensor if tensor.ndim == 3 else [tensor]:
                found.append((one.T if p.transposed else one).contiguous())
        if own:
            yield module.name, found


def sizes(matrix):
    dense = matrix.numpy()
    csr, wide = scipy.sparse.csr_matrix(dense), matrix.to_sparse_csr()
    arrays = {
        "dense": [dense], "csr_int32": [csr.data, csr.indices, csr.indptr],
        "csr_int64": [wide.values(), wide.crow_indices(), wide.col_indices()],
        "bitmask": [csr.data, np.packbits(dense != 0)],
    }  # fmt: skip
    for b in (4, 8, 16, 32):
        padded = np.pad(dense, [(0, -n % b) for n in dense.shape])
        bsr = scipy.sparse.bsr_matrix(padded, blocksize=(b, b))
        arrays[f"bsr_{b}"] = [bsr.data, bsr.indices, bsr.indptr]
    assert csr.indices.dtype == np.int32
    return {layout: sum(a.nbytes for a in own) for layout, own in arrays.items()}


def test_layers_are_as_large_as_the_arrays(variant):
    study = sr.compare(variant, patterns=True)
    frame = study.storage[study.storage["scope"] == "layer"].set_index(["name", "layout"])
    seen = 0
    for name, found in matrices(variant):
        for layout, size in pd.DataFrame(sizes(each) for each in found).sum().items():
            assert frame.loc[(name, layout), "bytes"] == size, (name, layout)
            seen += 1
    layouts = {*LAYOUTS} - {"2:4", "file"}
    assert seen == len(layouts) * frame.index.get_level_values("name").nunique() > 0


def test_sums():
    pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    study = sr.compare(sr.dense(pruning.weights), sr.csr(pruning), patterns=True)
    frame = study.storage
    assert list(frame.columns) == [*TABLES["storage"]]
    assert tuple(dict.fromkeys(frame["scope"])) == SCOPES
    keyed = frame.groupby(["variant", "scope", "layout"])["bytes"].sum()
    for layout in LAYOUTS[1:]:
        of = {scope: keyed["CSR30", scope, layout] for scope in SCOPES}
        assert of["layer"] == of["group"] == of["prunable"]
        assert of["model"] - of["prunable"] == 4 * (957440 - 786432)
    totals = study.totals.set_index("variant")["stored_bytes"]
    assert keyed["CSR30", "model", "csr_int32"] == totals["CSR30"]
    assert keyed["Dense", "model", "dense"] == totals["Dense"]


def test_break_even_is_where_the_sizes_meet():
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc1": nn.Linear(96, 64), "fc2": nn.Linear(64, 32)})
    plain = sr.compare(sr.dense(model)).storage
    edges = plain[plain["scope"] == "prunable"].set_index("layout")["break_even"]
    assert np.isnan(edges["dense"])
    assert edges["2:4"] == 0.5
    n, pointers = 96 * 64 + 64 * 32, 65 + 33
    assert edges["csr_int32"] == pytest.approx(1 - (4 * n - 4 * pointers) / (8 * n))
    assert edges["bitmask"] == pytest.approx(1 / 32)
    assert edges["csr_int64"] == pytest.approx(1 - (4 * n - 8 * pointers) / (12 * n))


def test_two_four_is_lossless_only_where_every_group_complies():
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc1": nn.Linear(64, 32), "fc2": nn.Linear(64, 32)})
    whole = sr.compare(sr.masked(sr.n_m(sr.load(model), 2, 4)), patterns=True)
    some = sr.compare(sr.masked(sr.global_magnitude(sr.load(model), 0.5)), patterns=True)
    unknown = sr.compare(sr.masked(sr.global_magnitude(sr.load(model), 0.5)))
    for study, expected in ((whole, True), (some, False), (unknown, None)):
        frame = study.storage[study.storage["layout"] == "2:4"]
        found = frame.set_index("scope")["lossless"]
        answers = {None if pd.isna(value) else bool(value) for value in found}
        assert answers == {expected}


def test_unknown_values_give_unknown_bytes():
    with torch.device("meta"):
        model = nn.ModuleDict({"fc1": nn.Linear(8, 4)})
    frame = sr.compare(sr.dense(model)).storage.set_index(["scope", "layout"])
    assert frame.loc[("model", "dense"), "bytes"] == 4 * 36
    assert pd.isna(frame.loc[("model", "csr_int32"), "bytes"])
    assert pd.notna(frame.loc[("model", "csr_int32"), "break_even"])


def test_nothing_prunable():
    assert sr.compare(sr.dense(nn.LayerNorm(4))).storage.empty


def test_a_bias_of_another_type_has_its_bytes():
    """Totals, layouts and levels have one size, whichever variant comes first."""
    layer = nn.Linear(64, 32)
    layer.weight.data = layer.weight.data.bfloat16()
    pruning = sr.global_magnitude(sr.load(nn.ModuleDict({"fc1": layer})), 0.5)
    variants = sr.dense(pruning.weights), sr.masked(pruning), sr.csr(pruning)
    matrix, bias = 64 * 32, 32 * 4
    dense, csr = 2 * matrix + bias, matrix // 2 * (2 + 4) + 33 * 4 + bias
    study = sr.compare(*variants)
    assert study.totals["stored_bytes"].tolist() == [dense, dense, csr]
    model = study.storage[study.storage["scope"] == "model"].set_index(["layout", "variant"])
    assert model.loc["dense", "bytes"].tolist() == [dense] * 3
    assert model.loc["csr_int32", "bytes"].tolist()[1:] == [csr] * 2
    assert in_layout(study.layers, "dense")["stored_bytes"].tolist() == [dense] * 3
    for variant in variants:
        (level,) = sr.compare(variant).at_level(0.5).to_dict("records")
        assert (level["dense_bytes"], level["csr_bytes"]) == (dense, csr)
