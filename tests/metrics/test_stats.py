"""Intervals against scipy's own and against their nominal coverage."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.stats import (
    Strata,
    line_at_zero,
    mean_over_images,
    mean_over_seeds,
    normal_interval,
    paired_difference,
    reflected_interval,
    resample_counts,
)


def test_the_t_interval_is_scipys(rng: np.random.Generator) -> None:
    x = rng.normal(size=4)
    expected = scipy_stats.t.interval(0.95, 3, loc=x.mean(), scale=scipy_stats.sem(x))
    found = mean_over_seeds(x)
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.value, found.n) == (pytest.approx(x.mean()), 4)


def test_the_interval_of_logarithms_is_scipys_of_the_geometric_mean_and_never_below_0(rng: np.random.Generator) -> None:
    x = rng.lognormal(0, 2, size=3)
    logs = np.log(x)
    low, high = scipy_stats.t.interval(0.95, 2, loc=logs.mean(), scale=scipy_stats.sem(logs))
    found = mean_over_seeds(x, "log")
    assert found.value == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))
    plain = mean_over_seeds(x)
    assert plain.low is not None
    assert plain.low < 0 < np.exp(low), "the premise: the plain interval leaves what the quantity can be"
    assert mean_over_seeds(7 * x, "log").low == pytest.approx(7 * np.exp(low)), "whatever the unit"
    with pytest.raises(ValueError, match="above 0"):
        mean_over_seeds([1.0, 0.0, 2.0], "log")


def test_the_interval_of_a_share_stays_a_share() -> None:
    high, low = mean_over_seeds([1.0, 0.99, 0.9], "share"), mean_over_seeds([0.0, 0.01, 0.1], "share")
    plain = mean_over_seeds([1.0, 0.99, 0.9])
    assert plain.high is not None
    assert plain.high > 1, "the premise"
    assert (high.low, high.high) == (plain.low, 1.0)
    assert low.low == 0.0


def test_the_interval_over_images_is_the_normal_one(rng: np.random.Generator) -> None:
    x = rng.exponential(size=400)
    found = mean_over_images(x)
    expected = scipy_stats.norm.interval(0.95, loc=x.mean(), scale=scipy_stats.sem(x))
    assert (found.low, found.high) == pytest.approx(expected)


def test_one_value_has_no_interval() -> None:
    assert mean_over_seeds([3.0]) == (3.0, None, None, 1)
    assert mean_over_images([3.0]) == (3.0, None, None, 1)


def test_pairing_takes_out_what_two_runs_share(rng: np.random.Generator) -> None:
    shared = 100 * rng.normal(size=6)
    a, b = shared + 1 + 0.01 * rng.normal(size=6), shared
    found = paired_difference(list(a), list(b))
    expected = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_is_dropped_from_a_mean(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        mean_over_seeds(bad)
    with pytest.raises(ValueError, match="one length"):
        paired_difference([1.0, 2.0], [1.0])


def test_reflection_of_a_symmetric_unbiased_statistic_is_the_percentile_interval(rng: np.random.Generator) -> None:
    half = rng.normal(size=500)
    replicates = 5 + np.concatenate([half, -half])
    assert reflected_interval(5, replicates) == pytest.approx(tuple(np.quantile(replicates, [0.025, 0.975])))


def test_reflection_is_clipped_to_the_floor() -> None:
    low, high = reflected_interval(1.0, np.linspace(2, 4, 101), floor=0)
    assert (low, high) == (0, 0)


def test_resamples_draw_n_of_n(rng: np.random.Generator) -> None:
    counts = resample_counts(50, 400, rng)
    assert counts.shape == (400, 50)
    assert (counts.sum(1) == 50).all()
    missed = (counts == 0).mean()
    assert missed == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)


def test_strata_keep_their_shares(rng: np.random.Generator) -> None:
    labels = np.array([2, 0, 1, 2, 2, 0, 7, 2, 2, 0] * 6)
    groups = Strata.of(labels)
    drawn = [groups.resample(rng) for _ in range(300)]
    assert all((np.sort(labels[index]) == np.sort(labels)).all() for index in drawn)
    missed = 1 - np.mean([len(np.unique(index[labels[index] == 2])) for index in drawn]) / 30
    assert missed == pytest.approx((1 - 1 / 30) ** 30, abs=0.02)
    subset = groups.subset(2, rng)
    assert len(np.unique(subset)) == len(subset) == 30
    assert (np.bincount(labels[subset]) * 2 == np.bincount(labels)).all()


def test_one_stratum_is_plain_resampling() -> None:
    plain = Strata.of(np.zeros(20)).resample(np.random.default_rng(0))
    assert (plain == np.random.default_rng(0).integers(20, size=20)).all()


def test_the_intercept_and_its_error_are_scipys(rng: np.random.Generator) -> None:
    x = np.linspace(1, 3, 7)
    y = 2 + 0.5 * x + 0.1 * rng.normal(size=7)
    expected = scipy_stats.linregress(x, y)
    assert line_at_zero(x, y) == pytest.approx((expected.intercept, expected.intercept_stderr))
    with pytest.raises(ValueError, match="three or more"):
        line_at_zero([1, 1, 1], [1, 2, 3])


def test_normal_bounds_are_the_95_percent_ones() -> None:
    assert normal_interval(0, 1) == pytest.approx(scipy_stats.norm.interval(0.95))


def test_statistics_import_no_torch() -> None:
    code = "import sys, bench.stats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
