"""Loops of numba and of NumPy against each other, the dtypes of torch and plain sums."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparsity_report.pairing import value_loops
from sparsity_report.pairing.tally import SideCount
from sparsity_report.pairing.value_loops import count_values, tally_values
from sparsity_report.weights.torch_tensors import to_array

COMPILED = value_loops.compiled_compare()


@pytest.fixture(params=[COMPILED, None], ids=["numba", "numpy"])
def loops(request, monkeypatch):
    monkeypatch.setattr(value_loops, "compiled_compare", lambda: request.param)


def tally(before, after, grouped=False):
    return tally_values(to_array(before), to_array(after), grouped)


BOTH = pytest.mark.usefixtures("loops")


def patterns(dtype):
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_is_the_number_that_torch_has_for_it(dtype):
    """Return values with NaN, infinity, denormal numbers and zeros of both signs."""
    halves = patterns(dtype)
    for wide in (torch.float32, torch.float64):
        for result in (
            tally(halves, halves.to(wide)), tally(halves.to(wide), halves),
        ):  # fmt: skip
            assert (result.kept, result.revived, result.new, result.changed) == (2, 0, 0, 0)
            assert result.before.zeros == result.after.zeros == 2
        doubles = halves.to(wide)
        doubled = torch.where(doubles.isfinite(), doubles * 2, doubles)
        finite = int((doubles.isfinite() & doubles.ne(0)).sum())
        assert tally(halves, doubled).changed == finite


@BOTH
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8])
def test_every_byte_is_the_number_that_torch_has_for_it(dtype):
    values = torch.arange(256, dtype=torch.uint8).view(dtype)
    result = tally(values, values.double())
    assert result.untouched
    assert result.before.zeros == result.kept == int((values.double() == 0).sum())


@BOTH
def test_large_integers_are_not_rounded_together():
    before = torch.tensor([2**24, 2**40, 2**52], dtype=torch.int64)
    assert tally(before, before + 1).changed == 3
    assert tally(before.int()[:1], before.int()[:1] + 1).changed == 1


@BOTH
@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097, 3 * 4096 + 5])
@pytest.mark.parametrize(
    ("one", "other"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16),
     (torch.float16, torch.float16), (torch.bfloat16, torch.float32)],
)  # fmt: skip
def test_small_changes_keep_their_digits(size, one, other):
    """The norm of a small change is accurate; a difference of squares would be zero."""
    generator = torch.Generator().manual_seed(size)
    before = torch.randn(size, generator=generator).to(one)
    after = before.clone()
    bits = after.view(torch.int32 if one == torch.float32 else torch.int16)
    bits[torch.rand(size, generator=generator) < 0.01] += 1
    bits[0] += 1
    a, b = before.double().numpy(), after.to(other).double().numpy()
    result = tally(before, after.to(other))
    assert result.changed == int((a != b).sum()) > 0
    due = np.linalg.norm(b - a) / np.linalg.norm(a)
    assert result.relative_change == pytest.approx(due, rel=1e-11)
    assert result.square_after == pytest.approx(b @ b, rel=1e-11)
    assert result.product == pytest.approx(a @ b, rel=1e-11)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert result.correlation == pytest.approx(cosine, rel=1e-11)


@BOTH
def test_infinity_and_nan_stay_what_they_are():
    """Reordered sums still treat NaN and infinity correctly."""
    before = torch.ones(4096)
    for value in (float("inf"), float("nan")):
        after = before.clone()
        after[100] = value
        for one, other in ((before, after), (after, before)):
            result = tally(one, other)
            assert result.changed == 1
            assert result.relative_change is None
            assert result.before.zeros == result.after.zeros == 0
        assert tally(after, after).untouched
    assert tally(torch.tensor([float("inf"), 1]), torch.tensor([float("inf"), 1])).change == 0


@BOTH
def test_groups_count_where_few_others_are_zero():
    """One percent of the groups may be dense, even all in one place."""
    values = torch.ones(1024, 512)
    values[:, ::2] = 0
    values[:10] = 1
    values[10, 2::4] = 0
    other = torch.ones(1024, 512)
    other[::3, 1:8] = 0
    sides = values.reshape(-1), other.reshape(-1)
    due = []
    for flat in sides:
        four, eight = ((flat.reshape(-1, many) != 0).sum(1) for many in (4, 8))
        due.append(
            tuple(int(some.sum()) for some in (four <= 1, eight <= 2, four <= 2, eight <= 4))
        )
    assert due[0] != due[1]
    result = tally(*sides, True)
    assert [result.before.groups, result.after.groups] == due
    assert (result.before.n_m, result.after.n_m) == ("2:4", None)
    assert tally(*(side.to(torch.int8) for side in sides), True) == result
    assert result.before.grouped == result.after.grouped == values.numel()
    for flat, shown in zip(sides, due, strict=True):
        alone = count_values(to_array(flat), grouped=True)
        zeros = int((flat == 0).sum())
        assert alone == SideCount(flat.numel(), zeros, shown, flat.numel())
    assert tally(*sides).before.grouped == tally(*sides).after.grouped == 0
    assert count_values(to_array(sides[0])).grouped == 0


@BOTH
def test_rows_that_do_not_belong_together_are_refused():
    for one, other in ((np.ones(16), np.ones(8)), (np.ones((2, 8)), np.ones((2, 8)))):
        for sides in ((one, other), (other, one)):
            with pytest.raises(ValueError, match="not one-dimensional and equal"):
                tally_values(*sides)


@BOTH
def test_views_are_read_as_what_they_are():
    values = np.arange(-8.0, 8)
    for some in (values, values[::2], (values * (1 + 1j)).imag):
        result = tally_values(some, some.copy())
        assert result.untouched
        assert result.before.zeros == 1


FORKED = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
import torch
from safetensors.torch import save_file
import sparsity_report as sr

torch.manual_seed(0)
wide, narrow = ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj"), "post_norm"
tensors = {f"layers.{b}.{n}.weight": torch.randn(1024, 1024) for b in range(4) for n in wide}
tensors |= {f"layers.{b}.{narrow}.weight": torch.ones(256) for b in range(4)}
os.makedirs(sys.argv[1])
save_file(tensors, sys.argv[1] + "/model.safetensors")
weights = sr.load(sys.argv[1], config=False)
pruned = sr.global_magnitude(weights, 0.5)
with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
    print(sr.compare_checkpoints(weights, pruned, executor=pool).matches["new"].sum())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_that_is_forked_waits_for_no_compiler(tmp_path):
    """Prunable tensors are compared by threads and norms by the process at the same time."""
    line = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "model")]
    run = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert run.stdout == f"{4 * 3 * 2**20 // 2}\n", run.stderr


DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool),
]
ODD = [0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 1e-45, -1e-45, 6e-8, 1e-310, 1e200]

SUMS = ("square", "change", "product", "square_before", "square_after")


def drawn(dtype, size, seed, odd):
    """Return values with many ties and zeros of both signs, at random."""
    generator = torch.Generator().manual_seed(seed)
    values = (4 * torch.randn(size, generator=generator, dtype=torch.float64)).round() / 2
    values = torch.copysign(values, torch.randn(size, generator=generator))
    if odd and dtype.is_floating_point:
        places = torch.randint(size, (size // 50 + 1,), generator=generator)
        choice = torch.randint(len(ODD), places.shape, generator=generator)
        values[places] = torch.tensor(ODD, dtype=torch.float64)[choice]
    return values.abs().to(dtype) if dtype == torch.uint8 else values.to(dtype)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_counts_as_compiled_loops_do(dtype, odd, monkeypatch):
    for seed, size in enumerate((1, 8, 4097, 2**15 + 8, 100_000)):
        before, after = (drawn(dtype, size, 2 * seed + side, odd) for side in (0, 1))
        after = torch.where(torch.arange(size) % 3 == 0, before, after)
        grouped, counts, sums = size % 8 == 0, [], []
        for loop in (COMPILED, None):
            monkeypatch.setattr(value_loops, "compiled_compare", lambda loop=loop: loop)
            result = tally(before, after, grouped)
            sums.append([getattr(result, name) for name in SUMS])
            counts.append(replace(result, **dict.fromkeys(SUMS, 0.0)))
        assert counts[0] == counts[1]
        assert counts[0].after == count_values(to_array(after), grouped)
        assert sums[0] == pytest.approx(sums[1], rel=1e-12, nan_ok=True)
        one, other = before.double().numpy(), after.double().numpy()
        gone, went = one == 0, other == 0
        changed = ~gone & ~went & (one != other) & ~(np.isnan(one) & np.isnan(other))
        fates = (gone & went, gone & ~went, ~gone & went, changed)
        assert [result.kept, result.revived, result.new, result.changed] == [
            int(fate.sum()) for fate in fates
        ]


def test_numpy_compares_where_numba_is_missing_or_may_not_compile(monkeypatch):
    assert COMPILED is not None
    choose = value_loops.compiled_compare.__wrapped__
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert choose() is None
    monkeypatch.setitem(sys.modules, "numba", None)
    assert choose() is None
