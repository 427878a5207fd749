"""Diffusion against closed forms: the real samplers and bounds, fed with the exact denoiser of Gaussian data."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from baselines.diffusion import gaussian_oracle as oracle
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_oracle import GaussianData
from baselines.diffusion.prediction import reading
from baselines.diffusion.process import Process, Transition, make_process, subsequence
from baselines.diffusion.sampling import SAMPLERS
from baselines.types import Draw

DATA = GaussianData(
    torch.tensor([0.0, 0.7, -0.4, 0.1], dtype=torch.float64), torch.tensor([1.0, 0.3, 0.02, 2.5], dtype=torch.float64)
)
LINEAR = make_process("linear", 1000, 1e-4, 0.02)
SHORT = make_process("linear", 60, 1e-4, 0.02)


def moves(process: Process, draw: Draw) -> list[Transition]:
    assert draw.steps is not None
    chosen = subsequence(draw.steps, process.timesteps, draw.spacing)  # type: ignore[arg-type]
    return [process.transition(t, s) for t, s in zip(reversed(chosen), [*reversed(chosen[:-1]), -1], strict=True)]


def nothing() -> Iterator[Tensor]:
    raise AssertionError("no noise may be drawn")
    yield torch.zeros(0)


@functools.cache
def affine(process: Process, t: float) -> tuple[Tensor, Tensor]:
    """The exact denoiser at t as (offset, gain), since half a million calls of it are made below."""
    move = process.transition(t, -1)
    offset = DATA.eps(torch.zeros_like(DATA.mean), move)
    return offset, DATA.eps(torch.ones_like(DATA.mean), move) - offset


def run(process: Process, draw: Draw, x: Tensor, noise: Iterator[Tensor]) -> tuple[Tensor, list[float]]:
    """The real sampler with the exact denoiser; also the timesteps at which it called it."""
    called: list[float] = []

    def eps(x_t: Tensor, t: float) -> Tensor:
        called.append(t)
        offset, gain = affine(process, t)
        return torch.addcmul(offset, x_t, gain)

    return SAMPLERS[draw.sampler].run(x, Denoiser(eps, process), draw, noise), called


def drawn_moments(process: Process, draw: Draw) -> tuple[Tensor, Tensor]:
    """Exact mean and variance of what the real sampler draws: it is linear in x_T and in each step's noise."""
    assert draw.steps is not None
    rows = draw.steps + 2  # row 0: all zero; row 1: x_T = 1; row i + 2: the i-th noise = 1
    x = torch.zeros(rows, 4, dtype=torch.float64)
    x[1] = 1

    def impulses() -> Iterator[Tensor]:
        for i in range(draw.steps or 0):
            one = torch.zeros(rows, 4, dtype=torch.float64)
            one[i + 2] = 1
            yield one

    out, _ = run(process, draw, x, impulses())
    return out[0], ((out[1:] - out[0]) ** 2).sum(0)


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param((*range(1, 41), 50, 64, 99, 100, 125, 333, 500, 501, 999, 1000), id="some"),
        pytest.param(range(1, 1001), id="every", marks=pytest.mark.slow),
    ],
)
def test_ddim_agrees_with_the_cos_squared_product_for_each_number_of_steps(numbers: Sequence[int]) -> None:
    x = torch.stack([torch.zeros(4), torch.ones(4)]).double()
    for steps in numbers:
        draw = Draw("ddim", steps, clip=False)
        out, called = run(LINEAR, draw, x, nothing())
        path = moves(LINEAR, draw)
        assert called == [move.t for move in path]
        assert len(called) == steps, "executed NFE is what was asked for"
        variance = oracle.deterministic_variance(DATA, path)
        torch.testing.assert_close((out[1] - out[0]) ** 2, variance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("spacing", ["uniform", "trailing", "quadratic"])
@pytest.mark.parametrize("eta", [0.0, 0.2, 0.5, 1.0])
def test_ddim_moments_agree_with_the_recursion_for_every_eta_and_spacing(eta: float, spacing: str) -> None:
    for steps in range(1, 61):
        draw = Draw("ddim", steps, eta, spacing, clip=False)
        mean, variance = drawn_moments(SHORT, draw)
        expected_mean, expected_variance = oracle.sampled_moments(DATA, moves(SHORT, draw), eta)
        torch.testing.assert_close(mean, expected_mean, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(variance, expected_variance, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 60])
def test_ddim_with_eta_one_is_ddpm_with_beta_tilde(steps: int) -> None:
    for ours, theirs in zip(
        drawn_moments(SHORT, Draw("ddim", steps, 1.0, clip=False)),
        drawn_moments(SHORT, Draw("ddpm", steps, clip=False)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_one_step_of_eta_one_is_the_ddpm_posterior() -> None:
    """Against Ho et al. 2020, eq. 11 and their posterior variance, written with betas."""
    generator = torch.Generator().manual_seed(0)
    x, eps, noise = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    beta = LINEAR.betas
    abar = (1 - beta).cumprod(0)
    for t in (1, 2, 10, 500, 999):
        chain = Process(beta[: t + 1])
        seen: list[float] = []

        def eps_fn(x_t: Tensor, at: float, seen: list[float] = seen) -> Tensor:
            seen.append(at)
            return eps if len(seen) == 1 else torch.full_like(x_t, torch.nan)

        stopped: list[Tensor] = []

        def only_once(x_t: Tensor, at: float, seen: list[float] = seen, stopped: list[Tensor] = stopped) -> Tensor:
            if seen:
                stopped.append(x_t.clone())
            return eps_fn(x_t, at, seen)

        SAMPLERS["ddim"].run(
            x, Denoiser(only_once, chain), Draw("ddim", t + 1, 1.0, clip=False), iter([noise] * (t + 1))
        )
        mean = (x - beta[t] / (1 - abar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()
        std = (beta[t] * (1 - abar[t - 1]) / (1 - abar[t])).sqrt()
        torch.testing.assert_close(stopped[0], mean + std * noise, rtol=1e-9, atol=1e-10)


def test_sigma_hat_has_the_mean_of_eta_one_and_the_larger_noise() -> None:
    steps = 20
    mean, variance = drawn_moments(SHORT, Draw("ddim", steps, variance="sigma_hat", clip=False))
    expected_mean, expected = oracle.sampled_moments(DATA, moves(SHORT, Draw("ddim", steps)), 1.0, sigma_hat=True)
    torch.testing.assert_close(mean, expected_mean, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(variance, expected, rtol=1e-10, atol=1e-12)


def test_the_forward_chain_step_by_step_equals_the_jump() -> None:
    signal, variance = 1.0, 0.0
    for t in range(1000):
        move = LINEAR.transition(t, t - 1)
        signal, variance = signal * math.sqrt(1 - move.beta), variance * (1 - move.beta) + move.beta
        assert signal == pytest.approx(math.sqrt(move.abar_t), rel=1e-11)
        assert variance == pytest.approx(move.noise_t, rel=1e-11)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_keeps_the_marginals_of_the_forward_process(eta: float) -> None:
    """x_t ~ q(x_t | x_0) and the true eps give x_s ~ q(x_s | x_0), whatever eta (Song et al. 2020, lemma 1)."""
    for t, s in ((999, 899), (500, 3), (10, 0)):
        move = LINEAR.transition(t, s)
        sigma2 = eta**2 * move.beta_tilde
        # x_t = sqrt(a) x_0 + sqrt(1-a) e; the step is linear, so follow the coefficients of x_0, e and z
        of_e = math.sqrt(move.noise_s - sigma2)
        assert of_e**2 + sigma2 == pytest.approx(move.noise_s, rel=1e-12)
        from baselines.diffusion.samplers import linear_step

        step = linear_step(move, reading("eps", LINEAR, t), sigma2, math.sqrt(sigma2))
        assert step.from_x * math.sqrt(move.abar_t) == pytest.approx(math.sqrt(move.abar_s), rel=1e-10)
        total = (step.from_x * math.sqrt(move.noise_t) + step.from_out) ** 2 + step.sigma**2
        assert total == pytest.approx(move.noise_s, rel=1e-8)


def test_the_linear_schedule_ends_where_the_paper_says() -> None:
    assert math.sqrt(float(LINEAR.abar[-1])) == pytest.approx(0.006353, rel=1e-3)
    assert float(LINEAR.noise[-1]) == pytest.approx(0.99996, abs=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "quadratic", "sigmoid"])
def test_the_tightest_bound_misses_the_entropy_by_the_prior_alone(schedule: str) -> None:
    process = make_process(schedule, 200, 1e-4, 0.02)  # type: ignore[arg-type]
    first, middle, last = oracle.bound_terms(process, DATA, "optimal")
    end = process.transition(process.timesteps - 1, -1)
    c = DATA.total_variance(end)
    gap = 0.5 * (c - 1 - c.log() + end.abar_t * DATA.mean**2)
    torch.testing.assert_close(first + middle.sum(0) + last - oracle.entropy(DATA), gap, rtol=1e-8, atol=1e-10)


def test_our_bound_terms_average_to_their_closed_form() -> None:
    """`transition_nats` and `prior_nats` as the model calls them, over many draws of x_0 and x_t."""
    generator = torch.Generator().manual_seed(1)
    n = 40_000
    x_0 = DATA.mean + DATA.variance.sqrt() * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    first, middle, _ = oracle.bound_terms(SHORT, DATA, "beta")
    prior = SHORT.prior_nats(x_0)
    assert float(prior.mean()) == pytest.approx(float(first.sum()), abs=4 * float(prior.std()) / n**0.5)
    for t in (1, 5, 30, 59):
        x_t = SHORT.diffuse(x_0, t, torch.randn(n, 4, generator=generator, dtype=torch.float64))
        x_0_hat = SHORT.predict_x0(x_t, DATA.eps(x_t, SHORT.transition(t, t - 1)), t)
        nats = SHORT.transition_nats(x_0, x_0_hat, t, SHORT.variance(t, "beta"))
        error = 4 * float(nats.std()) / n**0.5
        assert error < 0.05 * float(middle[t - 1].sum()), "the premise: the average is sharp"
        assert float(nats.mean()) == pytest.approx(float(middle[t - 1].sum()), abs=error)


@pytest.mark.parametrize("spacing", ["uniform", "trailing", "quadratic"])
def test_every_number_of_steps_is_exactly_that_many_distinct_timesteps(spacing: str) -> None:
    for total in (10, 60, 1000):
        for steps in range(1, total + 1):
            chosen = subsequence(steps, total, spacing)  # type: ignore[arg-type]
            assert len(chosen) == len(set(chosen)) == steps
            assert chosen == sorted(chosen)
            assert chosen[0] >= 0
            assert chosen[-1] < total
            if spacing == "uniform":
                assert chosen == [i * total // steps for i in range(steps)]
            if spacing == "trailing":
                assert chosen[-1] == total - 1


@pytest.mark.skipif("TRILEMMA_DATA" not in os.environ, reason="needs MNIST in TRILEMMA_DATA")
def test_the_table_of_exact_distances_on_the_spectrum_of_mnist() -> None:
    from baselines.data import catalogue
    from baselines.data.likelihood import to_signed

    images = catalogue.load("mnist").development
    x = to_signed(images, 256).flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    data = GaussianData(vectors.T @ x.mean(0), values.clamp(min=1e-12))
    table = {
        (0.0, False): (7.97, 2.47, 0.511, 0.178, 0.0497),
        (0.5, False): (8.98, 2.93, 0.615, 0.187, 0.0114),
        (1.0, False): (15.4, 5.76, 1.44, 0.477, 0.0105),
        (1.0, True): (25.1, 5.16, 0.650, 0.139, 0.0010),
    }
    for (eta, sigma_hat), row in table.items():
        for steps, published in zip((10, 20, 50, 100, 1000), row, strict=True):
            mean, variance = oracle.sampled_moments(data, moves(LINEAR, Draw("ddim", steps)), eta, sigma_hat)
            assert oracle.frechet(data, mean, variance) == pytest.approx(published, rel=0.02, abs=5e-5)
