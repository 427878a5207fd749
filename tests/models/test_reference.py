"""The reference fits against scipy, scikit-learn and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import CategoricalNB
from torch import Tensor

from baselines.contract import Draw, Noise
from baselines.data import digits
from baselines.data.likelihood import dequantise
from baselines.errors import UserError
from baselines.reference import gaussian, gmm, histogram, real
from baselines.types import ImageShape

TINY = ImageShape(1, 2, 2, 3)


def images_of(shape: ImageShape, n: int, seed: int = 0) -> Tensor:
    """Correlated images: two random patterns in random proportions, rounded to the levels."""
    rng = np.random.default_rng(seed)
    patterns, weights = rng.random((2, shape.dims)), rng.random((n, 2))
    x = np.round(weights @ patterns / 2 * (shape.levels - 1) + rng.normal(0, 0.3, (n, shape.dims)))
    return torch.from_numpy(x.clip(0, shape.levels - 1).astype(np.uint8)).view(n, *shape.chw)


def y_of(images: Tensor, levels: int, seed: int = 0) -> Tensor:
    u = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return dequantise(images, levels, u)


# Independent pixels


def test_the_histogram_is_a_naive_bayes_classifier_of_one_class() -> None:
    data = digits.load()
    x, test = data.train.images.flatten(1).numpy(), data.test.images
    model = histogram.Histogram(data.shape, histogram.Config(smoothing=0.37))
    model.fit(data.train.images, Noise(0))
    bayes = CategoricalNB(alpha=0.37, min_categories=17).fit(x, np.zeros(len(x)))
    theirs = sum(bayes.feature_log_prob_[j][0, test.flatten(1).numpy()[:, j]] for j in range(64))
    np.testing.assert_allclose(-model.nats(test, "exact", Noise(0)).total.numpy(), theirs, rtol=1e-10)


def test_the_histogram_sums_to_one_over_all_images_and_its_samples_follow_it() -> None:
    model = histogram.Histogram(TINY, histogram.Config(smoothing=30.0))
    model.fit(images_of(TINY, 60), Noise(0))
    every = torch.tensor(list(itertools.product(range(3), repeat=4)), dtype=torch.uint8).view(-1, 1, 2, 2)
    p = torch.exp(-model.nats(every, "exact", Noise(0)).total)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    drawn = model.sample(6000, Draw(), Noise(1)).flatten(1).long() @ torch.tensor([27, 9, 3, 1])
    counts = torch.bincount(drawn, minlength=81)
    assert float(6000 * p.min()) > 5, "the chi-square law holds where each image is expected a few times"
    assert stats.chisquare(counts.numpy(), 6000 * p.numpy()).pvalue > 1e-3


def test_the_left_out_likelihood_is_that_of_refitting_without_each_image_and_is_maximised() -> None:
    x = images_of(TINY, 12)
    for a in (0.1, 2.0):
        brute = 0.0
        for i in range(len(x)):
            model = histogram.Histogram(TINY, histogram.Config(smoothing=a))
            model.fit(torch.cat([x[:i], x[i + 1 :]]), Noise(0))
            brute -= float(model.nats(x[i : i + 1], "exact", Noise(0)).total)
        assert histogram.left_out_log_likelihood(histogram.level_counts(x, 3), a) == pytest.approx(brute)
    counts = torch.tensor([[9.0, 1.0, 2.0], [7.0, 4.0, 1.0]]).double().view(1, 1, 2, 3)
    exact = optimize.minimize_scalar(
        lambda log_a: -histogram.left_out_log_likelihood(counts, float(np.exp(log_a))),
        bounds=(-6, 6),
        method="bounded",
    )
    assert histogram.best_smoothing(counts) == pytest.approx(np.exp(exact.x), rel=0.15)  # half a step of the grid


# One Gaussian


def test_the_gaussian_density_is_that_of_scipy() -> None:
    shape = ImageShape(2, 2, 3, 9)
    x = images_of(shape, 300)
    model = gaussian.Gaussian(shape, gaussian.Config(ridge=0.2))
    model.fit(x, Noise(0))
    flat = x.flatten(1).double().numpy()
    covariance = (np.cov(flat.T, bias=True) + (0.2 + 1 / 12) * np.eye(12)) / 81
    y = y_of(x[:20], 9)
    theirs = stats.multivariate_normal((flat.mean(0) + 0.5) / 9, covariance).logpdf(y.flatten(1).numpy())
    np.testing.assert_allclose(model.log_density(y).numpy(), theirs, rtol=1e-9)


def test_the_gaussian_is_the_limit_of_fits_to_many_dequantisations() -> None:
    x = images_of(TINY, 200)
    model = gaussian.Gaussian(TINY, gaussian.Config(ridge=0.0))
    model.fit(x, Noise(0))
    y = torch.cat([y_of(x, 3, seed) for seed in range(400)]).flatten(1).numpy()
    np.testing.assert_allclose(model.mean.numpy(), y.mean(0), atol=2e-3)
    np.testing.assert_allclose((model.factor @ model.factor.T).numpy(), np.cov(y.T), atol=1e-3)


@pytest.mark.parametrize("build", [gaussian.Gaussian, gmm.Gmm])
def test_samples_have_the_mean_and_the_correlations_of_the_data(
    build: type[gaussian.Gaussian | gmm.Gmm],
) -> None:
    data = digits.load()
    model = build(data.shape, (gaussian.Config if build is gaussian.Gaussian else gmm.Config)())
    model.fit(data.train.images, Noise(0))
    fake = model.sample(4000, Draw(), Noise(1)).flatten(1).double().numpy()
    real_ = data.train.images.flatten(1).double().numpy()
    # Clamping to the levels moves the moments of pixels that are almost always empty: compare the others
    inner = (np.abs(real_.mean(0) - 8) < 4) & (real_.std(0) > 3)
    assert inner.sum() > 20
    assert np.abs(fake.mean(0) - real_.mean(0))[inner].max() < 0.9
    difference = np.corrcoef(fake[:, inner].T) - np.corrcoef(real_[:, inner].T)
    assert np.abs(difference).mean() < 0.05


# A mixture


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_the_mixture_on_all_directions_is_the_one_of_scikit_learn(covariance: str) -> None:
    shape = ImageShape(1, 2, 3, 256)
    x = images_of(shape, 400)
    config = gmm.Config(components=5, covariance=covariance, ridge=4.0)  # type: ignore[arg-type]
    model = gmm.Gmm(shape, config)
    model.fit(x, Noise(8))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(8))
    u = Noise(8).uniform("dequantise", 400, shape.chw).double()
    y = dequantise(x[order], 256, u).flatten(1).numpy()
    # A rotation changes no mixture, but it changes the axes of a diagonal one: fit in the model's own
    axes = model.basis.numpy()
    theirs = GaussianMixture(
        5, covariance_type=covariance, reg_covar=4 / 256**2, max_iter=config.most_iterations, random_state=8
    ).fit((y - y.mean(0)) @ axes)
    points = y_of(x[:50], 256, seed=5)
    expected = theirs.score_samples((points.flatten(1).numpy() - y.mean(0)) @ axes)
    np.testing.assert_allclose(model.log_density(points).numpy(), expected, rtol=1e-6)


def test_the_mixture_on_some_directions_is_a_density_over_the_whole_image() -> None:
    shape = ImageShape(1, 3, 3, 256)
    x = images_of(shape, 300)
    model = gmm.Gmm(shape, gmm.Config(components=3, directions=4))
    model.fit(x, Noise(2))
    basis, rest = model.basis.numpy(), float(model.rest_std) ** 2
    others = np.eye(9) - basis @ basis.T
    density = 0.0
    y = y_of(x[:30], 256)
    for weight, mean, factor in zip(model.weights, model.means.numpy(), model.factors.numpy(), strict=True):
        covariance = basis @ factor @ factor.T @ basis.T + rest * others
        normal = stats.multivariate_normal(model.mean.numpy() + basis @ mean, covariance)
        density = density + float(weight) * normal.pdf(y.flatten(1).numpy())
    np.testing.assert_allclose(model.log_density(y).numpy(), np.log(density), rtol=1e-8)
    fake = model.sample(20_000, Draw(), Noise(3)).flatten(1).double().numpy()
    total = np.cov(x.flatten(1).double().numpy().T)
    assert np.abs(np.cov(fake.T) - total).max() < 0.06 * total.max()


def test_the_fit_depends_on_the_seed_alone() -> None:
    x = images_of(TINY, 200)
    fits = []
    for seed in (1, 1, 2):
        model = gmm.Gmm(TINY, gmm.Config(components=4, images_per_component=10))
        model.fit(x, Noise(seed))
        fits.append(model.log_density(y_of(x, 3)))
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])


def test_a_large_image_and_few_images_are_fitted_too() -> None:
    shape = ImageShape(1, 28, 28, 256)
    x = images_of(shape, 40)
    model = gmm.Gmm(shape, gmm.Config())
    model.fit(x, Noise(0))
    assert int((model.weights > 0).sum()) == 1, "forty images make one component of 64 directions"
    assert bool(torch.isfinite(model.log_density(y_of(x, 256))).all())
    assert model.sample(2, Draw(), Noise(0)).shape == (2, 1, 28, 28)


def test_a_config_out_of_range_is_named() -> None:
    with pytest.raises(UserError, match=r"gmm\.components"):
        gmm.Config(components=0)
    with pytest.raises(UserError, match=r"gaussian\.ridge"):
        gaussian.Config(ridge=-1.0)
    with pytest.raises(UserError, match=r"histogram\.smoothing"):
        histogram.Config(smoothing=0.0)


# Real images


def test_each_real_image_comes_once_before_any_comes_again_in_an_order_of_the_seed() -> None:
    x = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1)
    shape = ImageShape(1, 1, 1, 256)
    model = real.Real(shape, real.Config())
    model.fit(x, Noise(0))
    drawn = torch.cat([model.sample(n, Draw(), Noise(4, first)) for first, n in ((0, 7), (7, 23), (30, 10))]).flatten()
    assert sorted(drawn[:30].tolist()) == list(range(30))
    assert torch.equal(drawn[30:], drawn[:10])
    assert not torch.equal(model.sample(30, Draw(), Noise(5)).flatten(), drawn[:30])


def test_real_images_survive_a_checkpoint_whatever_their_number() -> None:
    shape = ImageShape(1, 2, 2, 3)
    model, again = real.Real(shape, real.Config()), real.Real(shape, real.Config())
    model.fit(images_of(shape, 17), Noise(0))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.images, model.images)
    with pytest.raises(RuntimeError, match="size mismatch"):
        real.Real(ImageShape(1, 3, 3, 3), real.Config()).load_state_dict(model.state_dict())


def test_real_images_must_have_been_fitted() -> None:
    with pytest.raises(UserError, match="fitted"):
        real.Real(TINY, real.Config()).sample(1, Draw(), Noise(0))
