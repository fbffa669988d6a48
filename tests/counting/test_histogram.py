import gc

import numpy as np
import pytest
import torch
from helpers import count
from safetensors.torch import save_file
from torch import nn

import sparsity_report as sr
from sparsity_report.counting import counts
from sparsity_report.counting.histogram import bucket_of, count_slice, count_together, refine_slices
from sparsity_report.weights.torch_tensors import tensor_slices, to_array

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2]
INTEGERS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]


def count_nonzero(tensor):
    """Count without a histogram, like a tensor that is not prunable."""
    return sum(count_slice(part, False).nonzero for part in tensor_slices(tensor))


def awkward(dtype):
    """Return zeros of both signs, the smallest and largest numbers, and repeated values."""
    numbers = torch.tensor([0.0, -0.0, 1.0, -1.0, 1.0, 0.5, -2.0, 3.0, 96.0], dtype=torch.float64)
    if dtype.is_floating_point and dtype.itemsize > 1:
        info = torch.finfo(dtype)
        edges = [info.max, info.min, info.smallest_normal, -info.smallest_normal / 2]
        numbers = torch.cat([numbers, torch.tensor(edges, dtype=torch.float64)])
    return numbers.to(dtype)


def expected(tensor):
    """Count with Python's own numbers."""
    magnitudes = [abs(float(x)) for x in tensor.to(torch.float64)]
    return {value: magnitudes.count(value) for value in sorted(set(magnitudes))}


@pytest.mark.parametrize("dtype", [*FLOATS, *FLOAT8, *INTEGERS, torch.bool], ids=str)
def test_counts_are_those_of_python(dtype):
    tensor = awkward(dtype) if dtype != torch.uint8 else torch.tensor([0, 255, 3, 3], dtype=dtype)
    tally, by_hand = count(tensor), expected(tensor)
    zeros = by_hand.get(0.0, 0)
    assert tally.total == tensor.numel()
    assert tally.nonzero == tensor.numel() - zeros == count_nonzero(tensor)
    assert tally.counts.sum() == tensor.numel()
    if dtype.itemsize <= 2:
        assert tally.exact
        assert dict(zip(tally.values.tolist(), tally.counts.tolist(), strict=True)) == by_hand
    else:
        numbers = bucket_of(np.array(list(by_hand)))
        for bucket, size in zip(bucket_of(tally.values), tally.counts, strict=True):
            inside = {
                v: c for (v, c), n in zip(by_hand.items(), numbers, strict=True) if n == bucket
            }
            assert sum(inside.values()) == size
            values, counts = refine_slices({"": tensor_slices(tensor)}, int(bucket))[""]
            assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == inside


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_small_tensors_counted_together_equal_each_alone(dtype):
    odd = torch.tensor([0.0, -0.0, 1e-45, 5e-324, np.inf, -np.inf, np.nan, 1.0, 1.001, 1e300])
    tensors = [odd.to(dtype), odd[:2].to(dtype), odd[6:7].to(dtype), torch.zeros(1, dtype=dtype)]
    tensors += [torch.randn(size).to(dtype) for size in (1, 7, 4096)]
    for histogram in (True, False):
        together = [*count_together([*map(to_array, tensors)], histogram)]
        for tensor, tally in zip(tensors, together, strict=True):
            (alone,) = (count_slice(part, histogram) for part in tensor_slices(tensor))
            for name in ("total", "nonzero", "nan", "exact", "infinite"):
                assert getattr(tally, name) == getattr(alone, name)
            # Fingerprints cover the text of numbers.
            assert repr(tally.nonzero) == repr(alone.nonzero)
            np.testing.assert_array_equal(tally.values, alone.values)
            np.testing.assert_array_equal(tally.counts, alone.counts)


def test_int8_minimum_is_128_not_negative():
    assert count(torch.tensor([-128], dtype=torch.int8)).values.tolist() == [128.0]


@pytest.mark.parametrize("dtype", [*FLOATS, *FLOAT8], ids=str)
def test_nan_is_counted_apart_and_is_not_zero(dtype):
    tensor = torch.tensor([float("nan"), 0.0, 1.0, float("nan")]).to(dtype)
    tally = count(tensor)
    assert (tally.nan, tally.nonzero, tally.counts.sum()) == (2, 3, 2)


def test_nan_marked_in_the_low_half_is_not_infinity():
    bits = torch.tensor([0x7F800001, 0x7F800000, 0xFF800000 - 2**32], dtype=torch.int64)
    tensor = bits.to(torch.int32).view(torch.float32)
    tally = count(tensor)
    assert tally.nan == 1
    assert (tally.values.tolist(), tally.counts.tolist()) == ([np.inf], [2])


@pytest.mark.parametrize("shape", [(0,), (), (3, 0), (5, 7)])
def test_shapes(shape):
    tensor = torch.ones(shape)
    assert count(tensor).total == count(tensor).nonzero == tensor.numel()


def test_complex_and_views():
    assert count_nonzero(torch.tensor([0j, 1j, 1 + 0j])) == 2
    assert count(torch.tensor([3 + 4j])).nonzero == 1
    wide = torch.arange(12.0).reshape(3, 4)
    assert count(wide.T).nonzero == count(wide[:, ::2]).nonzero + 6 == 11


def test_more_than_one_chunk():
    tensor = torch.zeros(2**20 * 2 + 5)
    tensor[[0, 2**20 - 1, 2**20, -1]] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    tally = count(tensor)
    assert (tally.nonzero, tally.values.tolist()) == (4, [0.0, 1.0, 2.0, 3.0, 4.0])


def test_counting_changes_nothing_of_the_model(tmp_path):
    save_file({"fc1.weight": torch.randn(8, 8)}, tmp_path / "x.safetensors")
    for weights in (sr.load(tmp_path / "x.safetensors"), sr.load(nn.Linear(4, 4))):
        before = dict(vars(weights))
        sr.global_magnitude(weights, 0.3, cache=tmp_path / "kept")
        assert vars(weights) == before
        known = counts.count_weights(weights)
        assert known.keys() == {p.name for p in weights.stored}
        with pytest.raises(TypeError):
            known["fc1.weight"] = None


def test_counts_live_as_long_as_their_model():
    weights = sr.load(nn.Linear(4, 4))
    sr.global_magnitude(weights, 0.3)
    assert weights in counts._MEMORIES
    many = len(counts._MEMORIES)
    del weights
    gc.collect()
    assert len(counts._MEMORIES) < many
