"""Counts from bits agree with plain arithmetic, with torch and with the counts of opened models."""

import tracemalloc

import numpy as np
import pytest
import structural
import torch
from gguf import GGMLQuantizationType
from helpers import write_gguf
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.matrix_counts import count_entry, nonzero_blocks
from sparsity_report.counting.n_m_patterns import KNOWN, Pattern, find_pattern
from sparsity_report.weights.matrix_direction import Matrix, as_matrix, input_first
from sparsity_report.weights.sources.safetensors import read_header
from sparsity_report.weights.tensor_slices import Entry
from sparsity_report.weights.torch_tensors import TensorSlice

FLOATS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip


def on_disk(folder, tensor):
    save_file({"w": tensor}, folder / "w.safetensors")
    (entry,) = read_header(folder / "w.safetensors")
    return entry


def held(tensor):
    return Entry("w", tuple(tensor.shape), TensorSlice.from_tensor(tensor))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_code_means_what_torch_says(dtype, tmp_path):
    bits, size = np.random.default_rng(0), dtype.itemsize
    raw = bits.integers(0, 256, (2**16, size), dtype=np.uint8)
    if size <= 2:
        raw = np.arange(256**size, dtype=f"u{size}").view(np.uint8)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, torch.finfo(dtype).tiny]
    odd = torch.tensor(special, dtype=torch.float64).to(dtype)
    values = torch.cat([torch.from_numpy(raw.reshape(-1)).view(dtype), odd])
    wide = values.to(torch.float64)  # exact for all of them
    expected = (wide == 0).sum(), wide.isnan().sum(), wide.isinf().sum()
    for entry in (on_disk(tmp_path, values), held(values)):
        counts = count_entry(entry)
        assert (counts.zeros, counts.nan, counts.infinite) == tuple(map(int, expected))
        assert counts.total == len(values)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool], ids=str)
def test_integers_are_zero_or_not(dtype, tmp_path):
    values = torch.tensor([0, 1, 0, -128]).to(dtype)
    counts = count_entry(on_disk(tmp_path, values))
    assert (counts.zeros, counts.nan) == (2, 0)


def sparse_experts(seed, experts, outputs, inputs):
    """Random experts with zeros of every kind: scattered, groups, rows, columns, whole experts."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(experts, outputs, inputs)).astype(np.float32)
    values[random.random(values.shape) < random.choice([0, 0.4, 0.8])] = 0
    for _ in range(6):
        e, row, start = (int(random.integers(n)) for n in values.shape)
        values[e, row, start // 128 * 128 :][:128] = 0
    values[:, int(random.integers(outputs))] = 0
    values[0, :, int(random.integers(inputs))] = -0.0
    values[random.integers(experts)] *= random.integers(2)
    return values


def in_words(values, patterns):
    """The same counts without blocks: `values` are experts × outputs × inputs."""
    filled, inputs = values != 0, values.shape[-1]

    def first(flags, width):
        places = np.argwhere(flags)
        return (*map(int, places[0][:2]), int(places[0][2]) * width) if len(places) else None

    expected = {"complying": {}, "violations": {}}
    for pattern in patterns:
        if inputs % pattern.m == 0:
            kept = filled.reshape(*values.shape[:2], -1, pattern.m).sum(-1)
            expected["complying"][pattern] = int((kept <= pattern.n).sum())
            if at := first(kept > pattern.n, pattern.m):
                expected["violations"][pattern] = at
    return expected


SHAPES = [(1, 5, 256), (3, 40, 96), (2, 700, 640), (1, 3, 40), (2, 8, 7), (1, 4, 1), (4, 300, 384)]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_groups_rows_and_columns_in_both_directions(shape, turned, tmp_path):
    patterns = [*KNOWN, Pattern(3, 5), Pattern(8, 16)]
    for seed in range(6):
        values = sparse_experts(seed, *shape)
        stored = np.ascontiguousarray(values.swapaxes(1, 2)) if turned else values
        entry = on_disk(tmp_path, torch.from_numpy(stored))
        counts = count_entry(entry, as_matrix(stored.shape, turned), patterns)
        for name, expected in in_words(values, patterns).items():
            assert getattr(counts, name) == expected, (name, seed)
        np.testing.assert_array_equal(counts.rows, (values != 0).sum(2))
        np.testing.assert_array_equal(counts.columns, (values != 0).sum(1))
        assert counts.zeros == np.count_nonzero(values == 0)


def test_blocks_of_flags_are_the_values(tmp_path):
    values = torch.from_numpy(sparse_experts(1, 1, 70, 90)).to(torch.bfloat16)
    blocks = [*nonzero_blocks(on_disk(tmp_path, values), 1000)]
    assert {len(block) for block in blocks[:-1]} == {1000}
    np.testing.assert_array_equal(np.concatenate(blocks), (values != 0).flatten().numpy())


def test_memory_stays_small(tmp_path):
    entry = on_disk(tmp_path, torch.zeros(2048, 4096))
    for matrix in (Matrix(2048, 4096), as_matrix((2048, 4096), True)):
        tracemalloc.start()
        count_entry(entry, matrix, KNOWN)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.6 * entry.values.nbytes, matrix


def agree(weights, entries):
    """Counts from bits of the file's tensors equal those of the opened model."""
    frame = sr.weight_patterns(sr.dense(weights))
    counted, direction = count_weights(weights), input_first({k: e.shape for k, e in entries})
    assert {name for name, _ in entries} >= {p.name for p in weights.prunable}
    for name, entry in entries:
        parameter = weights[name]
        if parameter.tied_to:
            continue
        assert count_entry(entry).zeros == parameter.total - counted[name].nonzero
        if not parameter.prunable:
            continue
        assert direction[name] == parameter.transposed, name
        counts = count_entry(entry, as_matrix(entry.shape, parameter.transposed), KNOWN)
        (row,) = frame[frame["parameter"] == name].to_dict("records")
        assert (counts.rows == 0).mean() == pytest.approx(row["zero_rows"])
        assert (counts.columns == 0).mean() == pytest.approx(row["zero_columns"])
        groups = {p: counts.total // p.m for p in counts.complying}
        best = find_pattern(counts.complying, counts.total) or max(
            groups, key=lambda p: counts.complying[p] / groups[p]
        )
        share = counts.complying[best] / groups[best]
        assert (str(best), share) == (row["n_m"], pytest.approx(row["n_m_share"]))


@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2", "bert"])
def test_the_same_as_of_an_opened_model(kind, tmp_path):
    base = structural.base_of(kind, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    random = torch.Generator().manual_seed(0)
    for values in tensors.values():
        if values.ndim == 2:
            values[:, 4:7] = 0
            values[len(values) // 2] = 0
            values *= torch.rand(values.shape, generator=random) > 0.6
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    entries = read_header(base / "model.safetensors")
    weights = sr.load(base)
    names = {p.name for p in weights.parameters}
    agree(weights, [(e.key, e) for e in entries if e.key in names])
    by_names = {p.name: p.transposed for p in sr.load(base, config=False).prunable}
    assert by_names.items() >= {p.name: p.transposed for p in weights.prunable}.items()


def test_quantized_blocks_are_decoded(tmp_path):
    values = sparse_experts(2, 1, 64, 64)[0]
    kinds = {"blk.0.ffn_up.weight": "Q8_0", "blk.0.ffn_down.weight": "Q4_0", "output.weight": "F16"}
    tensors = {name: (values, GGMLQuantizationType[kind]) for name, kind in kinds.items()}
    write_gguf(tmp_path / "m.gguf", tensors, architecture="mystery")
    weights = sr.load(tmp_path / "m.gguf")
    agree(weights, [(name, weights.entries(name)[0]) for name in kinds])


def test_experts_show_their_direction():
    llama4 = {"e.gate_up_proj": (16, 50, 160), "e.down_proj": (16, 80, 50)}
    granite = {"e.input_linear.weight": (4, 60, 20), "e.output_linear.weight": (4, 20, 30)}
    gpt_oss = {"e.w": (4, 20, 60), "e.w_bias": (4, 60), "e.v": (4, 20, 20), "e.v_bias": (4, 20)}
    apart = {"e.up": (4, 20, 60), "e.down": (4, 60, 20)}
    assert set(input_first(llama4).values()) == {True}
    assert set(input_first(granite).values()) == {False}
    assert input_first(gpt_oss) | {"e.w_bias": 0, "e.v_bias": 0} == {
        "e.w": True, "e.w_bias": 0, "e.v": True, "e.v_bias": 0,
    }  # fmt: skip
    assert set(input_first(apart).values()) == {None}


def test_square_matrices_follow_the_others_only_if_those_agree():
    square = {"s.weight": (4, 4), "s.bias": (4,)}
    turned, plain = {"a.weight": (4, 8), "a.bias": (8,)}, {"b.weight": (8, 4), "b.bias": (8,)}
    assert input_first(square)["s.weight"] is None
    assert input_first(square | turned)["s.weight"] is True
    assert input_first(square | plain)["s.weight"] is False
    assert input_first(square | turned | plain)["s.weight"] is None
