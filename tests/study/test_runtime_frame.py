"""Runtimes beside the variants of a study: the layout of each follows from its weights."""

import json
from pathlib import Path

import packing
import pytest
from helpers import Tiny
from torch import nn

import sparsity_report as sr

TABLE = Path(sr.__file__).parent / "sparse" / "runtime_support.json"


def layouts(*variants, **options):
    study = sr.compare(*variants, **options)
    pairs = study.runtimes[["variant", "layout"]].drop_duplicates()
    return [*pairs.itertuples(index=False, name=None)]


def test_cells_are_those_of_the_file():
    pruning = sr.global_magnitude(sr.load(), 0.3)
    frame = sr.compare(sr.dense(sr.load()), sr.masked(pruning), sr.csr(pruning)).runtimes
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["runtimes"]
    stored = {"Masked30": "zeros", "CSR30": "csr"}
    expected = [
        (variant, layout, row["key"], *row["cells"][layout].values())
        for variant, layout in stored.items()
        for row in rows
    ]
    columns = ["variant", "layout", "runtime", "verdict", "version", "source", "looked_at", "note"]
    known = frame[columns].astype(object).where(frame[columns].notna(), None)
    assert [*known.itertuples(index=False, name=None)] == expected


def test_patterns_are_read_from_weights_and_from_methods():
    weights = sr.load()
    half, pattern = sr.global_magnitude(weights, 0.5), sr.n_m(weights, 2, 4)
    for patterns in (False, True):
        pairs = layouts(sr.masked(half), sr.masked(pattern, name="N"), patterns=patterns)
        assert pairs == [("Masked50", "zeros"), ("N", "2:4")]
    opened = sr.load(sr.masked(pattern).module(), name="opened")
    assert layouts(sr.dense(opened), patterns=True) == [("Dense", "2:4")]
    # Half of the weights are zero, at positions that nobody looked at.
    assert layouts(sr.dense(opened)) == []
    fewer = sr.load(sr.masked(sr.global_magnitude(weights, 0.4)).module(), name="fewer")
    assert layouts(sr.dense(fewer)) == [("Dense", "zeros")]


def test_4_8_is_no_pattern_of_sparse_tensor_cores():
    assert layouts(sr.masked(sr.n_m(sr.load(), 4, 8), name="N"), patterns=True) == [("N", "zeros")]


@pytest.mark.parametrize(
    ("way", "stored"), [("sparse-bitmask", "sparse-bitmask"), ("sparse-24", "sparse-24-bitmask")]
)
def test_packed_formats_are_those_of_the_file_until_it_is_pruned(way, stored, tmp_path):
    folder, _ = packing.packed_llama(tmp_path, way)
    weights = sr.load(folder)
    pruning = sr.global_magnitude(weights, 0.9)
    pairs = layouts(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
    assert pairs == [("Dense", stored), ("Masked90", "zeros"), ("CSR90", "csr")]


def test_shapes_that_differ_between_blocks_are_uneven():
    model = Tiny(blocks=3)
    assert layouts(sr.dense(sr.load(model, name="even"))) == []
    block = model.layers[1]
    block["fc1"] = nn.Linear(block["fc1"].in_features, 5)
    block["fc2"] = nn.Linear(5, block["fc2"].out_features)
    assert layouts(sr.dense(sr.load(model, name="uneven"))) == [("Dense", "uneven")]
