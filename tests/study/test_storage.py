"""Bytes in every layout against the arrays that libraries make of the same matrices."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from helpers import zstd
from torch import nn
from zoo.cases import CASES, built

import sparsity_report as sr
from sparsity_report.study.patterns import Zeros
from sparsity_report.study.schema import LAYOUTS, SCOPES, TABLES
from sparsity_report.study.storage_layouts import storage_frame

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
                found.append(((one.T if p.transposed else one).contiguous(), p.transposed))
        if own:
            yield module.name, found


def sizes(matrix, transposed):
    dense = matrix.numpy()
    csr, coo = scipy.sparse.csr_matrix(dense), scipy.sparse.coo_matrix(dense)
    wide, pairs = matrix.to_sparse_csr(), matrix.to_sparse_coo().coalesce()
    arrays = {
        "dense": [dense],
        "csr_int32": [csr.data, csr.indices, csr.indptr],
        "csr_int16": [csr.data, csr.indices.astype(np.int16), csr.indptr],
        "csr_int64": [wide.values(), wide.crow_indices(), wide.col_indices()],
        "coo_int32": [coo.data, coo.row, coo.col],
        "coo_int64": [pairs.values(), pairs.indices()],
        "bitmask": [csr.data, np.packbits(dense != 0)],
    }
    for b in (4, 8, 16, 32):
        padded = np.pad(dense, [(0, -n % b) for n in dense.shape])
        bsr = scipy.sparse.bsr_matrix(padded, blocksize=(b, b))
        arrays[f"bsr_{b}"] = [bsr.data, bsr.indices, bsr.indptr]
    stored, offsets = tiles_of(dense)
    arrays["tca_bme"] = [stored, offsets, np.zeros(8 * 64 * (len(offsets) // 5), np.uint8)]
    arrays["macko"] = macko_of(dense)
    stream = zstd.ZstdCompressor(level=3)
    stream.set_pledged_input_size(dense.nbytes)
    held = dense.T if transposed else dense  # as the model holds it
    kept = np.where(held != 0, held, np.float32(0)).tobytes()
    arrays["zstd"] = [np.zeros(len(stream.compress(kept) + stream.flush()), np.uint8)]
    assert csr.indices.dtype == coo.row.dtype == np.int32
    return {layout: sum(a.nbytes for a in own) for layout, own in arrays.items()}


def tiles_of(dense):
    """Values and offsets of a tensor-core bitmap, tile by tile, as SpInfer's code makes them."""
    padded = np.pad(dense, [(0, -n % 64) for n in dense.shape])
    values, tiles = [], 0
    for top in range(0, len(padded), 64):
        for left in range(0, padded.shape[1], 64):
            tile = padded[top : top + 64, left : left + 64]
            kept = tile[tile != 0].tolist()
            values += kept + [0] * (-len(kept) % 8)
            tiles += 1
    return np.array(values, dtype=dense.dtype), np.zeros(5 * tiles + 1, dtype=np.int32)


def macko_of(dense):
    """Values, gaps of four bits and row pointers, as MACKO's code makes them."""
    values, pointers = [], [0]
    for row in dense.tolist():
        gap = 0
        for value in row:
            if value != 0 or gap == 15:
                values.append(value)
                gap = 0
            else:
                gap += 1
        pointers.append(len(values))
    values += [0] * (-len(values) % 8)
    gaps = np.zeros(len(values) // 2, dtype=np.uint8)
    return [np.array(values, dtype=dense.dtype), gaps, np.array(pointers, dtype=np.int32)]


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(64, 128), (70, 33), (1, 300), (130, 16)])
def test_zeros_that_are_stored_are_counted_block_by_block(sparsity, shape):
    torch.manual_seed(0)
    mask = (torch.rand(shape) >= sparsity).numpy()
    values = [a[0] for a in (macko_of(mask.astype(float)), tiles_of(mask.astype(float)))]
    kept = np.count_nonzero(mask)
    by_rows, by_columns = Zeros(*shape), Zeros(*shape)
    for start in range(0, shape[0], 64):
        by_rows.add(start, 0, mask[start : start + 64])
    for start in range(0, shape[1], 64):
        by_columns.add(0, start, mask[:, start : start + 64])
    for zeros in (by_rows, by_columns):
        assert kept + zeros.tile_padding == len(values[1])
        assert -(-(kept + zeros.gap_padding) // 8) * 8 == len(values[0])


def test_sparse_marlin_rounds_and_takes_rows_of_whole_groups():
    model = nn.ModuleDict({"fc1": nn.Linear(256, 64), "fc2": nn.Linear(96, 64)}).half()
    study = sr.compare(sr.masked(sr.n_m(sr.load(model), 2, 4)), patterns=True)
    frame = study.storage.set_index(["scope", "name", "layout"])
    known, unknown = (frame.loc["layer", name, "marlin_2:4"] for name in ("fc1", "fc2"))
    # Half of the weights in half a byte, two bits for each of four, two bytes to each 128.
    assert known["bytes"] == 256 * 64 // 2 // 2 + 256 * 64 * 2 // 16 + 64 * 2 * 2
    assert known["break_even"] == 0.5
    assert known["lossless"] == False  # noqa: E712
    assert unknown[["bytes", "break_even", "lossless"]].isna().all()
    assert "marlin_2:4" not in study.facts.lossless(study.variants["variant"][0]).index


def test_break_even_of_half_precision():
    model = nn.ModuleDict({"fc1": nn.Linear(4096, 64, bias=False)}).half()
    edges = sr.compare(sr.dense(model), patterns=True).storage.set_index(["scope", "layout"])
    n, edge = 4096 * 64, edges["break_even"]["layer"]
    assert edge["macko"] == pytest.approx((n // 2 + 65 * 4) / (2.5 * n))
    assert edge["tca_bme"] == pytest.approx((n // 8 + 64 * 20 + 4) / (2 * n))


def test_layers_are_as_large_as_the_arrays(variant):
    study = sr.compare(variant, zstd=True)
    frame = study.storage[study.storage["scope"] == "layer"].set_index(["name", "layout"])
    seen = 0
    for name, found in matrices(variant):
        for layout, size in pd.DataFrame(sizes(*each) for each in found).sum().items():
            assert frame.loc[(name, layout), "bytes"] == size, (name, layout)
            seen += 1
    # No arrays show the bits of an ideal code, see tests/counting/test_entropy.py.
    layouts = {*LAYOUTS} - {"2:4", "marlin_2:4", "ideal"}
    assert seen == len(layouts) * frame.index.get_level_values("name").nunique() > 0


def test_sums():
    pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    study = sr.compare(sr.dense(pruning.weights), sr.csr(pruning), zstd=True)
    frame = study.storage
    assert tuple(frame.columns) == TABLES["storage"].names
    assert tuple(dict.fromkeys(frame["scope"])) == SCOPES
    keyed = frame.groupby(["variant", "scope", "layout"])["bytes"].sum()
    for layout in LAYOUTS:
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
    assert edges["csr_int16"] == pytest.approx(1 - (4 * n - 4 * pointers) / (6 * n))
    assert edges["bitmask"] == pytest.approx(1 / 32)
    for layout in ("csr_int16", "csr_int32", "csr_int64", "coo_int32", "coo_int64"):
        ratios = [ratio(model, edges[layout] + step, layout) for step in (-0.01, 0.01)]
        assert ratios[0] > 1 > ratios[1]


def ratio(model, sparsity, layout):
    frame = sr.compare(sr.masked(sr.global_magnitude(sr.load(model), sparsity))).storage
    return frame[frame["scope"] == "prunable"].set_index("layout").loc[layout, "ratio"]


def test_half_precision_two_four_is_nine_sixteenths():
    study = sr.compare(sr.dense(nn.ModuleDict({"fc1": nn.Linear(64, 32).to(torch.bfloat16)})))
    frame = study.storage.set_index(["scope", "layout"])
    assert frame.loc[("layer", "2:4"), "ratio"] == 9 / 16


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


def test_limits_of_narrow_indices_are_told_from_integers():
    study = sr.compare(sr.dense(nn.ModuleDict({"fc1": nn.Linear(8, 4, bias=False)})))
    layers = study.layers.assign(weight_total=2**33, weight_nonzero=2**31, columns=2**15 + 1)
    frame = storage_frame(layers).set_index(["scope", "layout"])["bytes"]
    assert frame["layer", "csr_int64"] == 2**31 * 12 + 5 * 8
    assert pd.isna(frame["layer", "csr_int32"])
    assert pd.isna(frame["layer", "csr_int16"])
    layers = layers.assign(weight_nonzero=2**31 - 1, columns=2**15)
    frame = storage_frame(layers).set_index(["scope", "layout"])["bytes"]
    assert frame["layer", "csr_int32"] == (2**31 - 1) * 8 + 5 * 4
    assert frame["layer", "csr_int16"] == (2**31 - 1) * 6 + 5 * 4


def test_unknown_values_give_unknown_bytes():
    with torch.device("meta"):
        model = nn.ModuleDict({"fc1": nn.Linear(8, 4)})
    frame = sr.compare(sr.dense(model)).storage.set_index(["scope", "layout"])
    assert frame.loc[("model", "dense"), "bytes"] == 4 * 36
    assert pd.isna(frame.loc[("model", "csr_int32"), "bytes"])
    assert pd.notna(frame.loc[("model", "csr_int32"), "break_even"])


def test_nothing_prunable():
    assert sr.compare(sr.dense(nn.LayerNorm(4))).storage.empty
