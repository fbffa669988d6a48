"""Compiled loops against the dtypes of torch and plain sums of NumPy."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from sparsity_report.pairing.loops import alone, tally


def patterns(dtype):
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_is_the_number_that_torch_has_for_it(dtype):
    """NaN and infinity, numbers below the normal ones, and both zeros among them."""
    halves = patterns(dtype)
    for wide in (torch.float32, torch.float64):
        for found in (tally(halves, halves.to(wide)), tally(halves.to(wide), halves)):
            assert (found.kept, found.revived, found.new, found.changed) == (2, 0, 0, 0)
            assert found.zeros_before == found.zeros_after == 2
        doubles = halves.to(wide)
        doubled = torch.where(doubles.isfinite(), doubles * 2, doubles)
        finite = int((doubles.isfinite() & doubles.ne(0)).sum())
        assert tally(halves, doubled).changed == finite


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8])
def test_every_byte_is_the_number_that_torch_has_for_it(dtype):
    values = torch.arange(256, dtype=torch.uint8).view(dtype)
    found = tally(values, values.double())
    assert found.untouched
    assert found.zeros_before == found.kept == int((values.double() == 0).sum())


def test_large_integers_are_not_rounded_together():
    before = torch.tensor([2**24, 2**40, 2**52], dtype=torch.int64)
    assert tally(before, before + 1).changed == 3
    assert tally(before.int()[:1], before.int()[:1] + 1).changed == 1


@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097, 3 * 4096 + 5])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
    ],
)
def test_small_changes_keep_their_digits(size, one, other):
    """As far as doubles go; of the difference of two squares none would be left."""
    generator = torch.Generator().manual_seed(size)
    before = torch.randn(size, generator=generator).to(one)
    after = before.clone()
    bits = after.view(torch.int32 if one == torch.float32 else torch.int16)
    bits[torch.rand(size, generator=generator) < 0.01] += 1
    bits[0] += 1
    a, b = before.double().numpy(), after.to(other).double().numpy()
    found = tally(before, after.to(other))
    assert found.changed == int((a != b).sum()) > 0
    due = np.linalg.norm(b - a) / np.linalg.norm(a)
    assert found.relative_change == pytest.approx(due, rel=1e-11)
    assert found.square_after == pytest.approx(b @ b, rel=1e-11)
    assert found.product == pytest.approx(a @ b, rel=1e-11)


def test_infinity_and_nan_stay_what_they_are():
    """Compiled in any order of sums, but not as if there were no such numbers."""
    before = torch.ones(4096)
    for value in (float("inf"), float("nan")):
        after = before.clone()
        after[100] = value
        for one, other in ((before, after), (after, before)):
            found = tally(one, other)
            assert found.changed == 1
            assert found.relative_change is None
            assert found.zeros_before == found.zeros_after == 0
        assert tally(after, after).untouched


def test_groups_count_where_few_others_are_zero():
    """A hundredth of the groups may be dense, wherever they are: all in one place, too."""
    values = torch.ones(1024, 512)
    values[:, ::2] = 0
    values[:10] = 1
    values[10, 2::4] = 0
    flat = values.reshape(-1)
    for found in (tally(flat, flat, True), alone(flat, before=True, grouped=True)):
        four = (flat.reshape(-1, 4) != 0).sum(1)
        eight = (flat.reshape(-1, 8) != 0).sum(1)
        due = [(four <= 1), (eight <= 2), (four <= 2), (eight <= 4)]
        assert found.groups_before == tuple(int(some.sum()) for some in due)
        assert found.n_m[0] == "2:4"


def test_without_compilation_it_says_why():
    code = "import torch; from sparsity_report.pairing.loops import tally\ntally(*torch.ones(2, 8))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "unset NUMBA_DISABLE_JIT" in run.stderr
