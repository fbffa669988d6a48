"""Ranks among many small matrices with ties: exact sums, monotone for each tensor."""

import numpy as np
import torch
from helpers import count
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsity_report.counting.ranks import apportion, find_levels

# Within one bucket and out of it, zeros, what float32 can hardly hold, and infinity.
MAGNITUDES = [0.0, 1e-42, 3e-42, 0.5, 1.0, 1 + 2**-20, 1 + 2**-9, 1 + 2**-8, 2.0, float("inf")]


@st.composite
def matrices(draw):
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    dtypes = st.sampled_from([torch.float32, torch.float32, torch.float64, torch.float16])
    some = draw(st.lists(st.sampled_from(MAGNITUDES), min_size=1, max_size=4))
    value = st.tuples(st.sampled_from(some), st.sampled_from([1, -1])).map(np.prod)
    return [
        torch.tensor(draw(st.lists(value, min_size=size, max_size=size)), dtype=draw(dtypes))
        for size in sizes
    ]


@settings(max_examples=60)
@given(matrices())
def test_every_rank_is_exact_in_sum_and_no_tensor_gets_weights_back(tensors):
    counts = {str(number): count(tensor) for number, tensor in enumerate(tensors)}
    values = np.concatenate([tensor.to(torch.float64).abs().numpy() for tensor in tensors])
    owners = np.repeat(np.arange(len(tensors)), [tensor.numel() for tensor in tensors])
    order = np.argsort(values, kind="stable")
    lost_before = np.zeros(len(tensors), dtype=int)
    ranks = range(1, values.size + 1)
    for rank, level in zip(ranks, find_levels(counts, ranks), strict=True):
        lost = level.below + level.ties
        assert lost.sum() == rank
        assert (lost >= lost_before).all()
        truth = np.bincount(owners[order[:rank]], minlength=len(tensors))
        assert (np.abs(lost - truth) <= level.slack).all()
        assert not level.exact or level.threshold == values[order[rank - 1]]
        # A level alone is the level among others.
        (alone,) = find_levels(counts, [rank])
        assert (alone.below + alone.ties).tolist() == lost.tolist()
        lost_before = lost


def test_threshold_without_refining_is_the_lower_end_of_the_bucket():
    tensors = torch.tensor([1 + 2**-9], dtype=torch.float16), torch.tensor([1 + 2**-20])
    (level,) = find_levels({str(t.dtype): count(t) for t in tensors}, [1])
    assert (level.threshold, level.exact) == (1.0, False)


@given(
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 200)), min_size=1, max_size=30).filter(any)
)
def test_shares_of_a_bucket(on):
    on, before = np.array(on), np.zeros(len(on), dtype=int)
    for rank in range(1, on.sum() + 1):
        shares = apportion(on, rank)
        assert shares.sum() == rank
        assert (before <= shares).all()
        assert (shares <= on).all()
        before = shares
    assert before.tolist() == on.tolist()


def test_shares_are_fair_and_those_of_equals_do_not_stand_in_a_row():
    for total in (10**6, 10**13):
        on = np.random.default_rng(0).integers(0, total, 50)
        shares = apportion(on, int(on.sum()) // 3)
        assert shares.sum() == on.sum() // 3
        assert np.abs(shares - on / 3).max() < 2
    ones = apportion(np.ones(10_000, dtype=int), 3_000)
    assert np.abs(ones.reshape(20, -1).sum(axis=1) - 150).max() <= 2
