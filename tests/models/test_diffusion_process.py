"""The forward process against the papers' formulas written plainly, and against torch's and scipy's Gaussians."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal, kl_divergence

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.process import Process, Schedule, make_process, subsequence
from baselines.diffusion.sampling import SAMPLERS
from baselines.errors import UserError
from baselines.noise import Noise
from baselines.types import Draw

SCHEDULES: tuple[Schedule, ...] = ("linear", "quadratic", "sigmoid", "cosine")
LINEAR = make_process("linear", 1000, 1e-4, 0.02)


def test_at_a_thousand_steps_the_schedules_are_those_of_the_papers() -> None:
    plain = {
        "linear": np.linspace(1e-4, 0.02, 1000),
        "quadratic": np.linspace(1e-4**0.5, 0.02**0.5, 1000) ** 2,
        "sigmoid": 1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.02 - 1e-4) + 1e-4,
    }
    for schedule, betas in plain.items():
        ours = make_process(schedule, 1000, 1e-4, 0.02)  # type: ignore[arg-type]
        np.testing.assert_allclose(ours.betas.numpy(), betas, rtol=1e-12)


@pytest.mark.parametrize("timesteps", [10, 1000, 4000])
def test_cosine_keeps_its_signal_up_to_the_clipped_last_step(timesteps: int) -> None:
    t = np.arange(1, timesteps + 1) / timesteps
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    f_0 = np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    process = make_process("cosine", timesteps, 1e-4, 0.02)
    np.testing.assert_allclose(process.abar.numpy()[:-1], (f / f_0)[:-1], rtol=1e-9)
    assert float(process.betas[-1]) == 0.999
    assert f[-1] < 1e-12, "the premise: unclipped, the last step would leave no signal at all"


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("timesteps", [2, 10, 137, 4000])
def test_a_chain_of_any_length_ends_in_noise(schedule: Schedule, timesteps: int) -> None:
    process = make_process(schedule, timesteps, 1e-4, 0.02)
    assert process.timesteps == timesteps
    assert float(process.betas.min()) > 0
    assert float(process.betas.max()) < 1
    assert float(process.noise[-1]) > 0.99
    assert bool((process.abar.diff() < 0).all())
    if schedule in ("linear", "sigmoid") and timesteps > 2:
        reference = make_process(schedule, 1000, 1e-4, 0.02)
        assert math.log(process.abar[-1]) == pytest.approx(math.log(reference.abar[-1]), rel=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_zero_terminal_chain_is_shifted_and_scaled_between_its_own_first_step_and_pure_noise(
    schedule: Schedule,
) -> None:
    """Lin et al. 2023, algorithm 1: sqrt(abar) is moved linearly, its first value stays, its last becomes 0."""
    plain, ours = (make_process(schedule, 100, 1e-4, 0.02, zero_terminal=z) for z in (False, True))
    root, moved = (process.abar.sqrt().numpy() for process in (plain, ours))
    np.testing.assert_allclose(moved, np.interp(root, [root[-1], root[0]], [0.0, root[0]]), atol=1e-12)
    assert (ours.signal(99), ours.sigma(99)) == (0, 1)


def test_first_noise_variances_keep_their_digits() -> None:
    assert float(LINEAR.noise[0]) == pytest.approx(1e-4, rel=1e-14)
    assert LINEAR.transition(0, -1).beta == pytest.approx(1e-4, rel=1e-14)


@pytest.mark.parametrize(("t", "s"), [(1, 0), (7, 6), (500, 499), (999, 899), (60, 3)])
def test_the_posterior_is_bayes_rule(t: int, s: int) -> None:
    """q(x_s | x_t, x_0) from the product of q(x_t | x_s) and q(x_s | x_0), one step or many."""
    move = LINEAR.transition(t, s)
    abar = np.cumprod(1 - LINEAR.betas.numpy())
    a, b = math.sqrt(abar[t] / abar[s]), 1 - abar[t] / abar[s]
    precision = a**2 / b + 1 / (1 - abar[s])
    assert move.beta_tilde == pytest.approx(1 / precision, rel=1e-8)
    assert move.mean_xt == pytest.approx(a / b / precision, rel=1e-8)
    assert move.mean_x0 == pytest.approx(math.sqrt(abar[s]) / (1 - abar[s]) / precision, rel=1e-8)


def test_into_the_data_the_posterior_is_the_data() -> None:
    move = LINEAR.transition(50, -1)
    assert (move.mean_x0, move.mean_xt, move.beta_tilde) == (pytest.approx(1), 0, 0)


def test_diffuse_draws_from_q_and_predict_x0_undoes_it() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.tensor([[-0.8, 0.3]], dtype=torch.float64).expand(200_000, 2)
    eps = torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    for t in (0, 100, 999):
        x_t = LINEAR.diffuse(x_0, t, eps)
        a = float(torch.prod(1 - LINEAR.betas[: t + 1]))
        for pixel in (0, 1):
            p = stats.kstest(x_t[:, pixel].numpy(), stats.norm(math.sqrt(a) * x_0[0, pixel], math.sqrt(1 - a)).cdf)
            assert p.pvalue > 1e-3
        torch.testing.assert_close(LINEAR.predict_x0(x_t, eps, t), x_0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
@pytest.mark.parametrize("t", [1, 2, 40, 99])
def test_bound_terms_are_torchs_divergences_of_gaussians(t: int, variance: str) -> None:
    process = make_process("linear", 100, 1e-4, 0.02)
    generator = torch.Generator().manual_seed(t)
    x_0, x_0_hat, x_t = (torch.randn(5, 2, 3, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    move, var = process.transition(t, t - 1), process.variance(t, variance)  # type: ignore[arg-type]
    q = Normal(move.mean_x0 * x_0 + move.mean_xt * x_t, math.sqrt(move.beta_tilde))
    p = Normal(move.mean_x0 * x_0_hat + move.mean_xt * x_t, math.sqrt(var))
    expected = kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(process.transition_nats(x_0, x_0_hat, t, var), expected, rtol=1e-8, atol=1e-10)
    a = process.abar[-1]
    prior = kl_divergence(Normal(a.sqrt() * x_0, (1 - a).sqrt()), Normal(torch.zeros(()).double(), 1.0))
    torch.testing.assert_close(process.prior_nats(x_0), prior.flatten(1).sum(1), rtol=1e-8, atol=1e-10)


def test_the_reverse_variance_is_positive_everywhere() -> None:
    for schedule in SCHEDULES:
        process = make_process(schedule, 1000, 1e-4, 0.02)
        for t in range(1000):
            assert process.variance(t, "beta") == pytest.approx(float(process.betas[t]), rel=1e-9)
            assert 0 < process.variance(t, "beta_tilde") <= process.variance(max(t, 1), "beta")


def test_the_terms_apart_sum_to_the_bound_as_one_expectation() -> None:
    """Ho et al., eq. 3 by quadrature against eq. 5: one pixel, two steps, L_0 left out on both sides."""
    process = make_process("linear", 2, 1e-4, 0.02)
    x_0, guess = 0.4, 0.1  # the reverse mean uses this x_0_hat, whatever x_t
    move, var = process.transition(1, 0), process.variance(1, "beta")

    nodes, weights = np.polynomial.hermite_e.hermegauss(20)  # exact for what is quadratic in two normals
    z_1, z_2 = np.meshgrid(nodes, nodes, indexing="ij")
    first = stats.norm(math.sqrt(process.abar[0]) * x_0, math.sqrt(process.noise[0]))
    x_1 = first.mean() + first.std() * z_1
    last = stats.norm(math.sqrt(1 - process.betas[1]) * x_1, math.sqrt(process.betas[1]))
    x_2 = last.mean() + last.std() * z_2
    reverse = stats.norm(move.mean_x0 * guess + move.mean_xt * x_2, math.sqrt(var))
    ratio = first.logpdf(x_1) + last.logpdf(x_2) - stats.norm.logpdf(x_2) - reverse.logpdf(x_1)
    value = float((np.outer(weights, weights) * ratio).sum() / (2 * math.pi))
    x, hat = torch.full((1, 1), x_0, dtype=torch.float64), torch.full((1, 1), guess, dtype=torch.float64)
    ours = process.prior_nats(x) + process.transition_nats(x, hat, 1, var)
    assert float(ours) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("steps", [5, 10, 20, 50, 100])
def test_quadratic_spacing_is_the_papers_where_its_squares_are_distinct(steps: int) -> None:
    theirs = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2]
    ours = subsequence(steps, 1000, "quadratic")
    if len(set(theirs)) == steps:
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= 1, "a square may round to either side"
    else:
        first_free = next(i for i in range(steps) if theirs[i] > steps)
        assert max(abs(a - b) for a, b in zip(ours[first_free:], theirs[first_free:], strict=True)) <= 1


def test_trailing_is_the_mirror_image_of_uniform() -> None:
    for steps in range(1, 138):
        uniform, trailing = subsequence(steps, 137, "uniform"), subsequence(steps, 137, "trailing")
        assert trailing == [136 - t for t in reversed(uniform)]


def test_what_cannot_be_asked_for_is_refused() -> None:
    with pytest.raises(UserError, match=r"steps: expected 1 to 1000 .* got 1001"):
        subsequence(1001, 1000, "uniform")
    with pytest.raises(UserError, match=r"steps: expected 1 to 1000 .* got 0"):
        subsequence(0, 1000, "uniform")
    with pytest.raises(UserError, match=r"spacing: expected one of uniform, trailing, quadratic, got 'cubic'"):
        subsequence(10, 1000, "cubic")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"schedule: expected one of .* got 'cubic'"):
        make_process("cubic", 1000, 1e-4, 0.02)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"timesteps: expected at least 2, got 1"):
        make_process("cosine", 1, 1e-4, 0.02)
    with pytest.raises(UserError, match=r"expected 0 < start <= end < 1, got 0\.02, 0\.0001"):
        make_process("linear", 1000, 0.02, 1e-4)
    for rates in ((1e-4, 0.03), (1e-3, 0.02)):
        with pytest.raises(UserError, match=r"beta_start, beta_end: the cosine schedule takes neither, got"):
            make_process("cosine", 1000, *rates)
    with pytest.raises(UserError, match=r"linear', timesteps 100, .*beta_end 0\.99: no chain follows: betas: expected"):
        make_process("linear", 100, 1e-4, 0.99)
    with pytest.raises(UserError, match=r"a log abar of -35 or more, got -307; take a smaller beta_end"):
        make_process("linear", 100, 1e-4, 0.5)
    with pytest.raises(ValueError, match="float64"):
        Process(torch.tensor([0.1]))
    with pytest.raises(ValueError, match="in \\(0, 1\\)"):
        Process(torch.tensor([1.0, 0.1], dtype=torch.float64))


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("timesteps", [2, 100, 1000])
@pytest.mark.parametrize("schedule", ["linear", "quadratic", "sigmoid"])
def test_a_chain_beyond_what_numbers_hold_is_refused_and_every_other_one_is_sampled(
    schedule: Schedule, timesteps: int, zero_terminal: bool
) -> None:
    made = refused = 0
    for beta_end in (0.001, 0.02, 0.05, 0.06, 0.07, 0.2, 0.5, 0.9, 0.99, 0.999999):
        try:
            process = make_process(schedule, timesteps, 1e-4, beta_end, zero_terminal)
        except UserError:
            refused += 1
            continue
        made += 1
        denoiser = Denoiser(lambda x, t: 0.3 * torch.tanh(x), process, "x0" if zero_terminal else "eps")
        noise = Noise(0).normals("steps", 2, (1, 2, 2), 100)
        for draw in (Draw("ddim", 2, spacing="trailing"), Draw("heun", 4), Draw("dpmpp_2m", 4, spacing="log_snr")):
            if draw.steps is not None and draw.steps <= timesteps:
                x_0 = SAMPLERS[draw.sampler].run(torch.ones(2, 1, 2, 2), denoiser, draw, noise)
                assert bool(torch.isfinite(x_0).all()), (beta_end, draw)
    assert made >= 2
    assert refused >= 2 or (timesteps == 2 and zero_terminal), "of that nothing is left but the first timestep"
