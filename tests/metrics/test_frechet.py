"""The Fréchet distance against closed forms, scipy's matrix square root and torch-fidelity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from bench.metrics.base import Subject
from bench.metrics.extractors import PixelExtractor
from bench.metrics.frechet import Frechet, bootstrap_distances, frechet_distance, frechet_distance_of_moments
from bench.metrics.frechet_infinity import FrechetInfinity, frechet_infinity
from bench.stats import Strata, normal_interval, reflected_interval

Array = NDArray[np.float64]


def matched(n: int, mean: Array, root: Array, rng: np.random.Generator) -> Array:
    """n points whose sample mean is `mean` and whose sample covariance is root root^T, to rounding."""
    noise = rng.normal(size=(n, root.shape[1]))
    q, _ = np.linalg.qr(noise - noise.mean(0))
    return mean + np.sqrt(n - 1) * q @ root.T


def analytic(mean: Array, root: Array, other_mean: Array, other_root: Array) -> float:
    """The distance by scipy's matrix square root."""
    a, b = root @ root.T, other_root @ other_root.T
    cross = np.trace(linalg.sqrtm(a @ b)).real
    return float(((mean - other_mean) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross)


def test_moment_matched_gaussians_have_their_analytic_distance(rng: np.random.Generator) -> None:
    for d in (1, 5, 40):
        means = rng.normal(size=(2, d))
        roots = rng.normal(size=(2, d, d)) + 2 * np.eye(d)
        real = matched(3 * d + 5, means[0], roots[0], rng)
        generated = matched(4 * d + 3, means[1], roots[1], rng)
        np.testing.assert_allclose(np.cov(real.T), (roots[0] @ roots[0].T).squeeze(), atol=1e-9)  # the premise
        expected = analytic(means[0], roots[0], means[1], roots[1])
        assert frechet_distance(real=real, generated=generated) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 200), (200, 300)], ids=["N<d", "one N<d", "singular"])
def test_low_rank_covariances_have_the_distance_of_their_subspace(n: int, m: int, rng: np.random.Generator) -> None:
    d, rank = 60, 12
    basis, _ = np.linalg.qr(rng.normal(size=(d, rank)))
    inner = rng.normal(size=(2, rank, rank)) + np.eye(rank)
    means = rng.normal(size=(2, d))
    real = matched(n, means[0], basis @ inner[0], rng)
    generated = matched(m, means[1], basis @ inner[1], rng)
    expected = analytic(np.zeros(rank), inner[0], np.zeros(rank), inner[1]) + ((means[0] - means[1]) ** 2).sum()
    assert frechet_distance(real=real, generated=generated) == pytest.approx(expected, rel=1e-10)


def test_covariances_of_disjoint_subspaces_have_no_cross_term(rng: np.random.Generator) -> None:
    real, generated = np.zeros((50, 6)), np.zeros((70, 6))
    real[:, :3], generated[:, 3:] = rng.normal(size=(50, 3)), rng.normal(size=(70, 3))
    expected = ((real.mean(0) - generated.mean(0)) ** 2).sum() + real.var(0, ddof=1).sum()
    expected += generated.var(0, ddof=1).sum()
    assert frechet_distance(real=real, generated=generated) == pytest.approx(expected, rel=1e-12)


def test_a_common_offset_does_not_move_it(rng: np.random.Generator) -> None:
    real, generated = 0.01 * rng.normal(size=(300, 16)), 0.012 * rng.normal(size=(200, 16))
    plain = frechet_distance(real=real, generated=generated)
    assert frechet_distance(real=real + 100, generated=generated + 100) == pytest.approx(plain, rel=1e-8)


def test_a_shift_costs_its_square_and_nothing_costs_nothing(rng: np.random.Generator) -> None:
    real = rng.normal(size=(90, 7))
    assert frechet_distance(real=real, generated=real[::-1]) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(real=real, generated=real + 0.5) == pytest.approx(7 * 0.25, rel=1e-12)


def test_collapsed_samples_leave_the_real_trace(rng: np.random.Generator) -> None:
    real = rng.normal(size=(90, 7))
    one = np.repeat(real.mean(0, keepdims=True), 40, 0)
    assert frechet_distance(real=real, generated=one) == pytest.approx(real.var(0, ddof=1).sum(), rel=1e-12)


def test_it_agrees_with_torch_fidelity(rng: np.random.Generator) -> None:
    real = rng.normal(size=(500, 32)) @ rng.normal(size=(32, 32))
    generated = rng.gamma(2.0, size=(700, 32))
    stats = [fid_features_to_statistics(torch.from_numpy(x)) for x in (generated, real)]
    theirs = fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID]
    assert frechet_distance(real=real, generated=generated) == pytest.approx(theirs, rel=1e-9)


def test_real_and_generated_cannot_be_swapped_by_position(rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, 2))
    with pytest.raises(TypeError):
        frechet_distance(x, x)  # type: ignore[misc]


@pytest.mark.parametrize("shape", [(1, 3), (5,), (5, 4)])
def test_shapes_that_do_not_fit_are_named(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="expected"):
        frechet_distance(real=rng.normal(size=(5, 3)), generated=np.zeros(shape))


def test_moments_give_the_same_as_features_even_where_singular(rng: np.random.Generator) -> None:
    for rank in (8, 5):
        real = rng.normal(size=(60, rank)) @ rng.normal(size=(rank, 8))
        generated = rng.normal(size=(50, rank)) @ rng.normal(size=(rank, 8))
        found = frechet_distance_of_moments(
            mean_real=real.mean(0),
            cov_real=np.cov(real.T),
            mean_generated=generated.mean(0),
            cov_generated=np.cov(generated.T),
        )
        assert found == pytest.approx(frechet_distance(real=real, generated=generated), rel=1e-6)


def test_a_resample_has_the_distance_of_the_rows_it_drew(rng: np.random.Generator) -> None:
    real, generated = 3 + rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    found = bootstrap_distances(real=real, generated=generated, replicates=5, rng=np.random.default_rng(1))
    again = np.random.default_rng(1)
    for value in found:
        rows, drawn = real[again.integers(40, size=40)], generated[again.integers(30, size=30)]
        assert value == pytest.approx(frechet_distance(real=rows, generated=drawn), rel=1e-9)


def test_reflected_intervals_cover_the_truth_where_percentiles_never_do(rng: np.random.Generator) -> None:
    d, trials = 16, 60
    scale = np.sqrt(1.2)
    truth = d * (scale - 1) ** 2 + d * 0.05**2
    reflected = percentile = 0
    for _ in range(trials):
        real, generated = rng.normal(size=(150, d)), scale * rng.normal(size=(300, d)) + 0.05
        value = frechet_distance(real=real, generated=generated)
        resampled = bootstrap_distances(real=real, generated=generated, replicates=100, rng=rng)
        low, high = reflected_interval(value, resampled, floor=0)
        reflected += low <= truth <= high
        low, high = np.quantile(resampled, [0.025, 0.975])
        percentile += low <= truth <= high
    assert reflected >= 0.9 * trials
    assert percentile <= 0.1 * trials


def test_extrapolation_takes_the_bias_out_and_its_interval_covers(rng: np.random.Generator) -> None:
    d, trials = 16, 30
    truth = d * (np.sqrt(1.5) - 1) ** 2
    plain, infinite, covered = [], [], 0
    for _ in range(trials):
        real, generated = rng.normal(size=(160, d)), np.sqrt(1.5) * rng.normal(size=(320, d))
        plain.append(frechet_distance(real=real, generated=generated))
        value, fit_error = frechet_infinity(real=real, generated=generated, rng=rng)
        infinite.append(value)
        resampled = bootstrap_distances(real=real, generated=generated, replicates=60, rng=rng)
        low, high = normal_interval(value, float(np.hypot(fit_error, resampled.std(ddof=1))))
        covered += low <= truth <= high
    bias = np.mean(plain) - truth
    assert bias > 5 * np.std(plain) / np.sqrt(trials)  # the premise
    assert abs(np.mean(infinite) - truth) < 0.15 * bias
    assert covered >= 0.9 * trials


def test_a_stratified_reference_is_resampled_as_it_was_drawn(rng: np.random.Generator) -> None:
    # ten far classes: their chance shares are most of the bias, and a stratified reference has none of it
    centres = 10 * rng.normal(size=(10, 8))
    labels = np.repeat(np.arange(10), 20)
    plain, stratified, biases = [], [], []
    infinite: list[float] = []
    for _ in range(25):
        real = centres[labels] + rng.normal(size=(200, 8))
        generated = centres[rng.integers(10, size=600)] + rng.normal(size=(600, 8))
        value = frechet_distance(real=real, generated=generated)
        biases.append(value)  # the truth is 0
        pair = {"real": real, "generated": generated}
        plain.append(bootstrap_distances(**pair, replicates=40, rng=rng).mean() - value)
        strata = Strata.of(labels)
        stratified.append(bootstrap_distances(**pair, replicates=40, rng=rng, strata=strata).mean() - value)
        infinite.append(frechet_infinity(**pair, rng=rng, strata=strata).value)
    assert np.mean(stratified) == pytest.approx(np.mean(biases), rel=0.25)
    assert np.mean(plain) > 2 * np.mean(biases)
    assert abs(np.mean(infinite)) < 3 * np.std(infinite) / np.sqrt(len(infinite))


def test_extrapolation_of_few_images_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="expected N/d"):
        frechet_infinity(real=rng.normal(size=(30, 16)), generated=rng.normal(size=(90, 16)), rng=rng)


def test_few_images_get_no_interval_and_the_reason(subject: Callable[..., Subject]) -> None:
    (many,) = Frechet().measure(subject())
    assert many.low is not None
    assert many.high is not None
    assert "N/d = 37.5 generated, 30 real" in many.note
    few = subject(samples=6)
    (found,) = Frechet().measure(few)
    assert (found.low, found.high) == (None, None)
    assert "no interval" in found.note
    assert "N/d" in str(FrechetInfinity().unavailable(few))
    assert FrechetInfinity().unavailable(subject()) is None


def test_a_bias_too_large_to_reflect_gets_no_interval(subject: Callable[..., Subject]) -> None:
    (trusted,) = Frechet(100).measure(subject(test=640, samples=640, side=8, extractor=PixelExtractor()))
    (doubted,) = Frechet(100).measure(subject(test=160, samples=160, side=8, extractor=PixelExtractor()))
    assert trusted.low is not None
    assert doubted.low is None
    assert "fd_inf" in doubted.note
