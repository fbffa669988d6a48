"""Intervals over correlated units, against scipy and against series with a known mean."""

import math

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from sparsity_report.study.block_bootstrap import (
    Mean,
    block_length,
    holm_levels,
    mean_over,
    t_quantile,
    t_tails,
)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 60, 199])
def test_the_distribution_of_student(degrees):
    for value in (0.0, 0.3, 2.0, 5.0, 40.0):
        assert t_tails(value, degrees) == pytest.approx(
            2 * scipy.stats.t.sf(value, degrees), abs=1e-11
        )
    for share in (0.05, 0.01, 0.05 / 21):
        quantile = scipy.stats.t.ppf(1 - share / 2, degrees)
        assert t_quantile(share, degrees) == pytest.approx(quantile, rel=1e-6)


def test_independent_units_are_scipys_bootstrap():
    values = np.random.default_rng(3).gamma(4.0, size=300)
    mean = mean_over(values, block=1)
    bootstrap = scipy.stats.bootstrap((values,), np.mean, n_resamples=9999, rng=1)
    assert mean.error == pytest.approx(bootstrap.standard_error, rel=0.03)
    ends = bootstrap.confidence_interval
    assert mean.interval() == pytest.approx((ends.low, ends.high), abs=0.06 * mean.error * 2)


def test_the_variance_is_that_of_drawn_blocks():
    """The closed form equals the spread of means of blocks that are really drawn."""
    draws = np.random.default_rng(5)
    values, weights = draws.normal(size=120).cumsum(), draws.integers(3, 9, 120).astype(float)
    mean = mean_over(values, weights)
    assert (mean.block, mean.blocks) == (24, 5)  # a random walk asks for longer blocks than fit
    assert mean.needed > 24
    places = (draws.integers(0, 120, (20000, 5))[:, :, None] + np.arange(24)) % 120
    around = values - mean.estimate * weights
    drawn = around[places].mean(axis=(1, 2)) / weights.mean()
    # One degree of freedom is lost.
    corrected = drawn.std() * math.sqrt(120 / (120 - 24))
    assert mean.error == pytest.approx(corrected, rel=0.02)
    assert mean.estimate == pytest.approx(values.sum() / weights.sum())


def series(correlation, units, number, seed=0):
    """Autoregressive series of variance 1."""
    steps = np.random.default_rng(seed).normal(size=(number, units + 100))
    scale = math.sqrt(1 - correlation**2)
    return scipy.signal.lfilter([scale], [1, -correlation], steps)[:, 100:]


# `optimal_block_length` of arch 8.0.0, column `circular`, for series of the test.
ARCH = {
    (0.0, 50): 2.223758, (0.3, 50): 2.227714, (0.7, 50): 2.337942, (0.9, 50): 6.874744,
    (0.3, 200): 4.563559, (0.7, 200): 17.73466, (0.9, 200): 22.401355, (0.7, 2000): 28.252009,
    (-0.6, 100): 3.095232, (0.95, 20): 3.554997,
}  # fmt: skip


def test_block_lengths_are_those_of_arch():
    for seed, ((correlation, units), expected) in enumerate(ARCH.items()):
        steps = np.random.default_rng(seed).normal(size=units)
        values = scipy.signal.lfilter([1], [1, -correlation], steps)
        assert block_length(values - values.mean()) == pytest.approx(expected, abs=1e-6)
        mean = mean_over(values)
        root, most = round(math.sqrt(units)), units // 5
        assert mean.needed == max(root, round(3 * expected))
        assert mean.block == max(root, min(mean.needed, most))
        assert mean.blocks == units // mean.block >= 5


def test_block_lengths_without_a_variance():
    assert mean_over([0.25] * 100).block == 10
    alternating = mean_over([1.0, 3.0] * 50)
    assert alternating.block <= 20
    assert math.isfinite(alternating.error)


@pytest.mark.parametrize(
    ("correlation", "units"),
    [(0.0, 100), (0.3, 100), (0.5, 100), (0.0, 200), (0.5, 200), (0.7, 200), (0.9, 2000)],
)
def test_coverage(correlation, units):
    """95 % of the intervals contain the mean, which is zero."""
    means = [mean_over(row) for row in series(correlation, units, 2000)]
    covered = [low <= 0 <= high for low, high in map(Mean.interval, means)]
    # Two standard errors of 2,000 trials are one percentage point.
    assert 0.93 <= np.mean(covered) <= 0.975
    wide = [low <= 0 <= high for low, high in (mean.interval(0.99) for mean in means)]
    assert 0.975 <= np.mean(wide) <= 0.999


def test_few_or_infinite_values_have_no_interval():
    assert mean_over([1.0] * 4, block=1) is None
    assert mean_over([1.0, math.nan] * 50) is None
    assert mean_over([1.0, math.inf] * 50) is None
    assert mean_over(range(20)) is not None  # five blocks of four
    same = mean_over([0.0] * 100)
    assert same.interval() == (0.0, 0.0)
    assert same.p_value == 1.0
    assert mean_over([1.0] * 100).p_value == 0.0


def test_holm():
    """Against the definition: step down until the first that is not significant."""
    draws = np.random.default_rng(0)
    for _ in range(200):
        p_values = draws.beta(0.3, 3, size=6).tolist()
        levels = holm_levels(p_values)
        rejected = {place for place, p in enumerate(p_values) if p < 1 - levels[place]}
        expected = set()
        for rank, place in enumerate(np.argsort(p_values)):
            if p_values[place] >= 0.05 / (6 - rank):
                break
            expected.add(int(place))
        assert rejected == expected
    assert holm_levels([]) == []


def test_the_interval_excludes_zero_exactly_where_the_test_rejects():
    means = [
        mean_over(row + shift)
        for shift, row in zip(np.linspace(0, 1, 12), series(0.3, 100, 12), strict=True)
    ]
    levels = holm_levels([mean.p_value for mean in means])
    rejected = [mean.p_value < 1 - level for mean, level in zip(means, levels, strict=True)]
    assert any(rejected)
    assert not all(rejected)
    for mean, level, is_rejected in zip(means, levels, rejected, strict=True):
        low, high = mean.interval(level)
        assert (low > 0 or high < 0) == is_rejected
