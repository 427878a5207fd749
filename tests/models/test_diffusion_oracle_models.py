"""The oracle models: exact moments against closed forms and drawn samples, exact bounds against exact likelihoods."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.contract import Draw, Noise
from baselines.data import catalogue
from baselines.data.likelihood import image_nats, to_signed
from baselines.diffusion import gaussian_oracle, oracle_gaussian, oracle_pixels
from baselines.diffusion.gaussian_oracle import GaussianData
from baselines.diffusion.oracle_gaussian import OracleGaussian
from baselines.diffusion.oracle_pixels import OraclePixels
from baselines.diffusion.pixel_oracle import PixelData, bound_terms
from baselines.diffusion.process import make_process
from baselines.diffusion.samplers import moves
from baselines.errors import UserError
from baselines.types import ImageShape, Scalar
from bench.measure.workload import capture_calls
from bench.metrics.base import Subject
from bench.metrics.exact import ExactFrechet, frechet_distance

SHAPE = ImageShape(1, 4, 4, 17)
S_CHURN: dict[str, Scalar] = {"s_churn": 20.0}
LINEAR_DRAWS = [
    Draw("ddpm", 12, clip=False),
    Draw("ddim", 12, 0.3, "trailing", clip=False),
    Draw("dpmpp_2m", 12, clip=False),
    Draw("euler", 12, clip=False),
    Draw("heun", 12, clip=False, options=S_CHURN),
    Draw("pf_ode", 12, clip=False),
]


def images(n: int = 400, shape: ImageShape = SHAPE) -> Tensor:
    """Smooth structure and noise, so that pixels are correlated and differ in their variance."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(n, 1, 1, 1, generator=generator) + torch.linspace(-1, 1, shape.width)
    noise = torch.randn(n, *shape.chw, generator=generator) * torch.linspace(0.2, 2, shape.height).view(-1, 1)
    return (8 + 2 * (base + noise)).round().clamp(0, shape.levels - 1).to(torch.uint8)


def gaussian(terminal: bool = False, schedule: Literal["linear", "cosine"] = "linear") -> OracleGaussian:
    config = oracle_gaussian.Config(timesteps=60, schedule=schedule, zero_terminal=terminal)
    model = OracleGaussian(SHAPE, config)
    model.fit(images(), Noise(0))
    return model


def pixels(timesteps: int = 60) -> OraclePixels:
    model = OraclePixels(SHAPE, oracle_pixels.Config(timesteps=timesteps))
    model.fit(images(), Noise(0))
    return model


# Gaussian


def test_the_fit_is_the_images_mean_and_covariance() -> None:
    model, x = gaussian(), to_signed(images(), 17).flatten(1).double()
    basis = model.exact.basis
    torch.testing.assert_close(basis @ model.exact.mean, x.mean(0))
    covariance = basis @ model.exact.variance.diag() @ basis.T
    np.testing.assert_allclose(covariance.numpy(), np.cov(x.numpy().T), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_denoiser_is_the_conditional_expectation_of_joint_gaussians(terminal: bool) -> None:
    """E[x_0 | x_t] = mu + Cov(x_0, x_t) Cov(x_t)^-1 (x_t - E x_t), in pixels, without any eigenbasis."""
    model = gaussian(terminal)
    x = to_signed(images(), 17).flatten(1).double()
    mean, covariance = x.mean(0), torch.cov(x.T)
    x_t = Noise(1, dtype=torch.float64).normal("x", 3, SHAPE.chw)
    for t in (1, 17.5, 58, 59):
        a = math.exp(model.process.log_abar(t))
        total = a * covariance + (1 - a) * torch.eye(16, dtype=torch.float64)
        gain = torch.linalg.solve(total, math.sqrt(a) * covariance)
        expected = mean + (x_t.flatten(1) - math.sqrt(a) * mean) @ gain
        torch.testing.assert_close(model.denoiser.x_0(x_t, t).flatten(1), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("spacing", ["uniform", "trailing"])
@pytest.mark.parametrize(("eta", "sigma_hat"), [(0.0, False), (0.5, False), (1.0, False), (1.0, True)])
def test_exact_moments_of_ddim_are_those_of_the_recursion(eta: float, sigma_hat: bool, spacing: str) -> None:
    model = gaussian()
    for steps in (1, 7, 60):
        draw = Draw("ddim", steps, 0.0 if sigma_hat else eta, spacing, "sigma_hat" if sigma_hat else None, clip=False)
        found = model.exact_moments(draw)
        data = GaussianData(found.data_mean, found.data_variance)
        mean, variance = gaussian_oracle.sampled_moments(data, moves(model.process, draw), eta, sigma_hat)
        torch.testing.assert_close(found.mean, mean, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(found.variance, variance, rtol=1e-9, atol=1e-11)
        assert frechet_distance(found) == pytest.approx(gaussian_oracle.frechet(data, mean, variance), rel=1e-9)


@pytest.mark.parametrize("draw", LINEAR_DRAWS, ids=Draw.label)
def test_drawn_samples_have_the_exact_moments(draw: Draw) -> None:
    """Along every eigenvector, within what 20,000 draws tell."""
    model, n = gaussian(), 20_000
    noise = Noise(3)
    x_0 = model.draw_x0(noise.normal("x_T", n, SHAPE.chw), draw, noise).flatten(1).double() @ model.exact.basis
    found = model.exact_moments(draw)
    mean_error = (x_0.mean(0) - found.mean).abs() / (found.variance / n).sqrt()
    assert float(mean_error.max()) < 4.5
    assert float((x_0.var(0) / found.variance - 1).abs().max()) < 4.5 * (2 / n) ** 0.5


@pytest.mark.parametrize(
    "draw", [Draw("ddim", 9, clip=False), Draw("heun", 5, clip=False), Draw("pf_ode", 5, clip=False)]
)
def test_the_eigenbasis_changes_nothing_where_no_noise_is_added(draw: Draw) -> None:
    model = gaussian()
    x_T = Noise(1, dtype=torch.float64).normal("x_T", 3, SHAPE.chw)
    ours = model.draw_x0(x_T, draw, Noise(0))
    in_pixels = super(OracleGaussian, model).draw_x0(x_T, draw, Noise(0))
    torch.testing.assert_close(ours, in_pixels, rtol=1e-9, atol=1e-9)


def test_its_calls_are_counted_in_either_basis() -> None:
    for clip in (True, False):
        for sampler, calls in (("ddim", 9), ("heun", 17), ("pf_ode", 37), ("langevin", 18)):
            with capture_calls(gaussian()) as seen:
                pass
            model = gaussian()
            with capture_calls(model) as seen:
                model.sample(2, Draw(sampler, 9, clip=clip), Noise(0))
            assert seen.count == calls


def test_a_chain_that_ends_in_pure_noise_loses_nothing_of_the_mean() -> None:
    """trailing starts at T - 1, where x_T ~ N(0, 1) holds nothing of the data; on the plain chain it should."""
    draw = Draw("ddim", 20, spacing="trailing", clip=False)
    plain, terminal = (gaussian(of_pure_noise).exact_moments(draw) for of_pure_noise in (False, True))
    torch.testing.assert_close(terminal.mean, terminal.data_mean, rtol=1e-9, atol=1e-12)
    assert float((plain.mean - plain.data_mean).abs().max()) > 1e-4, "the premise: the plain chain does lose some"


def test_moments_that_are_not_known_are_refused_and_told_by_the_metric() -> None:
    model, metric = gaussian(), ExactFrechet()
    for draw, message in (
        (Draw("ddim", 5), "clip = false"),
        (Draw("langevin", 5, clip=False), "'langevin' is not linear"),
    ):
        with pytest.raises(UserError, match=message):
            model.exact_moments(draw)
        assert message.split("'")[-1] in (metric.unavailable(Subject(0, model=model, draw=draw)) or "")
    exact = Subject(0, model=model, draw=Draw("ddim", 5, clip=False))
    assert metric.unavailable(exact) is None
    (found,) = metric.measure(exact)
    assert found.metric == "fd_exact[pixels]"
    assert found.value == frechet_distance(model.exact_moments(Draw("ddim", 5, clip=False)))
    other = Subject(0, model=pixels(), draw=Draw("ddim", 5))
    assert metric.unavailable(other) is None
    assert metric.measure(other) == ()


@pytest.mark.skipif("TRILEMMA_DATA" not in os.environ, reason="needs MNIST in TRILEMMA_DATA")
def test_the_model_gives_the_table_of_mnist() -> None:
    """The figures of `test_diffusion_oracle` from the real sampler on the model's own fit, here of the train split."""
    dataset = catalogue.load("mnist")
    model = OracleGaussian(dataset.shape, oracle_gaussian.Config())
    model.fit(dataset.train.images, Noise(0))
    table = {(0.0, None): (7.97, 2.47, 0.511), (1.0, None): (15.4, 5.76, 1.44), (0.0, "sigma_hat"): (25.1, 5.16, 0.65)}
    for (eta, variance), row in table.items():
        for steps, expected in zip((10, 20, 50), row, strict=True):
            draw = Draw("ddim", steps, eta, variance=variance, clip=False)
            assert frechet_distance(model.exact_moments(draw)) == pytest.approx(expected, rel=0.02)


# Pixels


def test_the_pixels_denoiser_is_bayes_rule_by_hand() -> None:
    model, t = pixels(), 20
    x_t = Noise(1, dtype=torch.float64).normal("x", 2, SHAPE.chw)
    found = model.denoiser.x_0(x_t, t)
    signal, sigma = model.process.signal(t), model.process.sigma(t)
    for i, d in ((0, 3), (1, 15)):
        x = float(x_t[i].flatten()[d])
        levels = np.linspace(-1, 1, 17)
        joint = model.exact.probability[d].numpy() * np.exp(-((x - signal * levels) ** 2) / (2 * sigma**2))
        assert float(found[i].flatten()[d]) == pytest.approx(float(joint @ levels / joint.sum()), rel=1e-9)


def test_the_exact_likelihood_averages_to_the_entropy_over_its_own_samples() -> None:
    model = pixels()
    draws = torch.distributions.Categorical(probs=model.exact.probability).sample((4000,))
    nats = image_nats(model, draws.view(-1, *SHAPE.chw).to(torch.uint8), "exact", Noise(0)).total
    entropy = float(model.exact.data.entropy().sum())
    assert float(nats.mean()) == pytest.approx(entropy, abs=4.5 * float(nats.std()) / 4000**0.5)


@pytest.mark.parametrize("name", ["vlb", "vlb_optimal"])
def test_the_bound_of_images_averages_to_its_quadrature(name: str) -> None:
    """Each part, over images of the model's own pixels: one draw a timestep against Gauss-Hermite nodes."""
    torch.manual_seed(0)
    model = pixels(30)
    draws = torch.distributions.Categorical(probs=model.exact.probability).sample((3000,))
    nats = image_nats(model, draws.view(-1, *SHAPE.chw).to(torch.uint8), name, Noise(0))
    terms = bound_terms(model.process, model.exact.data, "optimal" if name == "vlb_optimal" else "beta")
    for part, expected in zip(("L_T", "L_{t-1}", "L_0"), terms, strict=True):
        values = nats.parts[part].double()
        error = 4.5 * float(values.std()) / 3000**0.5
        assert error < 0.05 * float(nats.total.mean()), "the premise: the average is sharp"
        assert float(values.mean()) == pytest.approx(float(expected.sum()), abs=error)
    torch.testing.assert_close(nats.curves["L_t"][:, 1:].sum(1), nats.parts["L_{t-1}"])
    torch.testing.assert_close(nats.total, nats.parts["L_T"] + nats.parts["L_{t-1}"] + nats.parts["L_0"])


def test_the_bound_lies_above_the_entropy_and_closes_in_on_it_with_longer_chains() -> None:
    """Gaussian reverse steps become exact as they shrink; what then remains is the prior's L_T."""
    data = PixelData(torch.tensor([[0.5, 0.2, 0.05, 0.25], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64))
    gaps = []
    for timesteps in (10, 30, 100, 1000):
        process = make_process("linear", timesteps, 1e-4, 0.02)
        first, middle, last = bound_terms(process, data, "optimal")
        loose = [term if term.ndim == 1 else term.sum(0) for term in bound_terms(process, data, "beta")]
        gaps.append(first + middle.sum(0) + last - data.entropy())
        assert bool((sum(loose) - data.entropy() > gaps[-1]).all()), "the tightest variance and decoder lose less"
        assert bool((gaps[-1] > first).all())
    assert all(bool((after < before).all()) for before, after in itertools.pairwise(gaps))
    assert float(gaps[-1].max()) < 0.02
    assert float(gaps[0].min()) > 0.05, "the premise: a short chain loses more"


def test_the_optimal_variance_is_a_minimum() -> None:
    """Of the expected L_{t-1}: scaling every reverse variance up or down costs more."""
    data = PixelData(torch.tensor([[0.5, 0.2, 0.05, 0.25]], dtype=torch.float64))
    process, t, n = make_process("linear", 30, 1e-4, 0.02), 12, 200_000
    generator = torch.Generator().manual_seed(0)
    chosen = torch.multinomial(data.probability[0], n, replacement=True, generator=generator)
    x_0 = data.values[chosen].view(n, 1)
    x_t = process.diffuse(x_0, t, torch.randn(n, 1, generator=generator, dtype=torch.float64))
    guess, spread = data.x_0(x_t, process, t)
    move = process.transition(t, t - 1)
    best = move.beta_tilde + move.mean_x0**2 * spread

    def cost(factor: float) -> float:
        return float(process.transition_nats(x_0, guess, t, factor * best).mean())

    assert cost(1.0) < min(cost(0.9), cost(1.1))


def test_samples_of_the_pixel_oracle_have_its_histograms() -> None:
    """Many small ancestral steps of the exact denoiser draw from the data itself; each pixel by Pearson's statistic."""
    model = OraclePixels(SHAPE, oracle_pixels.Config(timesteps=1000))
    model.fit(images(), Noise(0))
    n = 3000
    drawn = model.sample(n, Draw("ddpm", 1000), Noise(0)).flatten(1).long()
    p = model.exact.probability
    counts = torch.stack([(drawn == level).sum(0) for level in range(17)], 1).double()
    distance = 0.5 * (counts / n - p).abs().sum(1)
    own = torch.distributions.Categorical(probs=p).sample((n,))
    floor = 0.5 * (torch.stack([(own == level).sum(0) for level in range(17)], 1) / n - p).abs().sum(1)
    assert float(distance.mean()) < 1.6 * float(floor.mean())
    coarse = model.sample(n, Draw("ddpm", 5), Noise(0)).flatten(1).long()
    few = torch.stack([(coarse == level).sum(0) for level in range(17)], 1).double()
    assert 0.5 * float((few / n - p).abs().sum(1).mean()) > 2 * float(distance.mean()), "the premise: steps matter"


def test_what_a_config_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match=r"oracle_pixels\.smoothing: expected a positive number, got 0"):
        oracle_pixels.Config(smoothing=0)
    with pytest.raises(UserError, match="timesteps: expected at least 2"):
        OracleGaussian(SHAPE, oracle_gaussian.Config(timesteps=1))
    with pytest.raises(UserError, match="steps: expected 1 to 60"):
        OracleGaussian.check_draw(oracle_gaussian.Config(timesteps=60), Draw("ddim", 61))
    assert replace(oracle_gaussian.Config(), timesteps=30).process.timesteps == 30
