"""Solvers past DDIM: against plain transcriptions, the exact solution on Gaussian data, and each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_oracle import GaussianData
from baselines.diffusion.grids import falling_times, karras_levels, level, log_abar_of, time_of_level
from baselines.diffusion.prediction import target
from baselines.diffusion.process import Process, make_process, with_zero_terminal
from baselines.diffusion.samplers import linear_step, run_steps
from baselines.diffusion.sampling import SAMPLERS
from baselines.errors import UserError
from baselines.noise import Noise
from baselines.types import Draw, Scalar

LINEAR = make_process("linear", 1000, 1e-4, 0.02)
COSINE = make_process("cosine", 1000, 1e-4, 0.02)
TERMINAL = with_zero_terminal(LINEAR)
DATA = GaussianData(
    torch.tensor([0.0, 0.7, -0.4, 0.1], dtype=torch.float64), torch.tensor([1.0, 0.3, 0.02, 2.5], dtype=torch.float64)
)
CHW = (2, 3, 3)
WIDE: dict[str, Scalar] = {"sigma_max": 1e6, "sigma_min": 1e-6}  # the whole chain
DRAWS = [
    Draw("dpmpp_2m", 12),
    Draw("dpmpp_2m", 12, spacing="trailing", clip=False),
    Draw("dpmpp_2m", 12, spacing="log_snr"),
    Draw("euler", 12),
    Draw("heun", 12),
    Draw("heun", 12, options={"s_churn": 4.0, "s_noise": 1.003}, clip=False),
    Draw("pf_ode", 5),
    Draw("langevin", 12),
    Draw("langevin", 12, variance="beta", options={"corrections": 2, "snr": 0.1}, clip=False),
]


def label(draw: Draw) -> str:
    return draw.label()


def exact_x0(x_t: Tensor, process: Process, t: float) -> Tensor:
    """E[x_0 | x_t] by Bayes' rule for a product of two Gaussians, at any real time."""
    signal, noise = process.signal(t), process.sigma(t) ** 2
    return (DATA.mean / DATA.variance + signal * x_t / noise) / (1 / DATA.variance + signal**2 / noise)


def exact(process: Process) -> Denoiser:
    return Denoiser(lambda x_t, t: exact_x0(x_t, process, t), process, "x0")


def exact_flow(x: Tensor, process: Process, t: float, s: float) -> Tensor:
    """The PF-ODE of Gaussian data carries standardised values along (Song et al. 2021, eq. 13, solved by hand)."""

    def spread(at: float) -> Tensor:
        return (math.exp(process.log_abar(at)) * DATA.variance - math.expm1(process.log_abar(at))).sqrt()

    return process.signal(s) * DATA.mean + (x - process.signal(t) * DATA.mean) / spread(t) * spread(s)


def wavy(x: Tensor, t: float) -> Tensor:
    """A nonlinear stand-in for a network, image by image, smooth in time."""
    return torch.sin(2 * x + 0.01 * t) + 0.2 * x.roll(1, -1)


def start(n: int = 4) -> Tensor:
    return Noise(1, dtype=torch.float64).normal("x_T", n, CHW)


def stream(n: int = 4, first: int = 0) -> Iterator[Tensor]:
    return Noise(1, first=first, dtype=torch.float64).normals("steps", n, CHW, 50)


def run(draw: Draw, denoiser: Denoiser, x: Tensor | None = None, noise: Iterator[Tensor] | None = None) -> Tensor:
    given = start() if x is None else x
    return SAMPLERS[draw.sampler].run(given, denoiser, draw, stream() if noise is None else noise)


def slopes(errors: list[float]) -> list[float]:
    """log2 of the ratio of neighbouring errors: the order, where the steps double."""
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


# What all have in common


@pytest.mark.parametrize("process", [LINEAR, COSINE, with_zero_terminal(LINEAR)], ids=["linear", "cosine", "terminal"])
@pytest.mark.parametrize("draw", DRAWS, ids=label)
def test_executed_calls_and_noises_are_those_told(draw: Draw, process: Process) -> None:
    calls = drawn = 0

    def counted(x: Tensor, t: float) -> Tensor:
        nonlocal calls
        calls += 1
        assert 0 <= t <= 999
        return 0.3 * torch.tanh(x)

    def noises() -> Iterator[Tensor]:
        nonlocal drawn
        for value in stream():
            drawn += 1
            yield value

    sampler = SAMPLERS[draw.sampler]
    for steps in (1, 2, draw.steps):
        calls = drawn = 0
        asked = replace(draw, steps=steps)
        out = run(asked, Denoiser(counted, process, "x0"), noise=noises())
        assert calls == sampler.evaluations(process, asked)
        assert drawn <= sampler.noises(process, asked)
        assert (drawn > 0) == (sampler.noises(process, asked) > 0)
        assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("draw", DRAWS, ids=label)
def test_image_i_is_the_same_in_any_batch(draw: Draw) -> None:
    whole = run(draw, Denoiser(wavy, LINEAR))
    for i in range(4):
        alone = run(draw, Denoiser(wavy, LINEAR), start()[i : i + 1], stream(1, first=i))
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("draw", DRAWS, ids=label)
def test_neither_x_t_nor_the_prediction_is_written_to(draw: Draw) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def same_tensor(x: Tensor, t: float) -> Tensor:
        seen.append((x, x.clone()))
        return x

    x = start()
    run(draw, Denoiser(same_tensor, LINEAR), x)
    assert all(torch.equal(now, then) for now, then in seen)
    assert torch.equal(x, start())


@pytest.mark.parametrize("draw", DRAWS, ids=label)
def test_every_kind_of_prediction_gives_the_same_images(draw: Draw) -> None:
    def of(kind: str) -> Tensor:
        def network(x_t: Tensor, t: float) -> Tensor:
            x_0 = 0.4 * torch.tanh(x_t)
            wanted = target(kind, LINEAR, t)  # type: ignore[arg-type]
            eps = (x_t - LINEAR.signal(t) * x_0) / LINEAR.sigma(t)
            return wanted.from_x0 * x_0 + wanted.from_eps * eps

        return run(draw, Denoiser(network, LINEAR, kind))  # type: ignore[arg-type]

    for kind in ("eps", "v", "mean"):
        torch.testing.assert_close(of(kind), of("x0"), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("draw", [d for d in DRAWS if d.clip], ids=label)
def test_clipped_samples_end_in_the_pixel_range(draw: Draw) -> None:
    denoiser = Denoiser(lambda x, t: 1.5 * torch.tanh(3 * x), LINEAR, "x0")
    assert float(run(replace(draw, clip=False), denoiser).abs().max()) > 1.1, "the premise"
    assert float(run(draw, denoiser).abs().max()) <= 1 + 1e-12


# DPM-Solver++(2M)


def plain_dpmpp_2m(
    x: Tensor, process: Process, times: list[float], network: Callable[[Tensor, float], Tensor]
) -> Tensor:
    """Lu et al. 2022, algorithm 2, in lambda, alpha and sigma as the paper writes it; then x_0 of the last x."""
    alpha = [process.signal(t) for t in times]
    sigma = [process.sigma(t) for t in times]
    lamda = [math.log(a / s) for a, s in zip(alpha, sigma, strict=True)]

    def data(i: int, x: Tensor) -> Tensor:
        return (x - sigma[i] * network(x, times[i])) / alpha[i]

    buffer = [data(0, x)]
    for i in range(1, len(times)):
        h = lamda[i] - lamda[i - 1]
        d = buffer[-1]
        if i > 1:
            r = (lamda[i - 1] - lamda[i - 2]) / h
            d = (1 + 1 / (2 * r)) * buffer[-1] - 1 / (2 * r) * buffer[-2]
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * (math.exp(-h) - 1) * d
        buffer.append(data(i, x))
    return buffer[-1]


@pytest.mark.parametrize("spacing", ["uniform", "trailing", "quadratic", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 3, 17])
def test_dpmpp_is_algorithm_2_and_then_the_predicted_x_0(steps: int, spacing: str) -> None:
    times = falling_times(LINEAR, steps, spacing)
    ours = run(Draw("dpmpp_2m", steps, spacing=spacing, clip=False), Denoiser(wavy, LINEAR))
    torch.testing.assert_close(ours, plain_dpmpp_2m(start(), LINEAR, times, wavy), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("spacing", ["uniform", "trailing", "quadratic"])
def test_one_step_of_dpmpp_is_ddim(spacing: str, clip: bool) -> None:
    for process in (LINEAR, COSINE):
        ours, ddim = (
            run(Draw(name, 1, spacing=spacing, clip=clip), Denoiser(wavy, process)) for name in ("dpmpp_2m", "ddim")
        )
        torch.testing.assert_close(ours, ddim, rtol=1e-12, atol=1e-12)
        two, ddim = (
            run(Draw(name, 2, spacing=spacing, clip=clip), Denoiser(wavy, process)) for name in ("dpmpp_2m", "ddim")
        )
        torch.testing.assert_close(two, ddim, rtol=1e-9, atol=1e-9)  # the first step and the last are DDIM's


def test_log_snr_times_are_evenly_spaced_and_end_at_both_ends_of_the_chain() -> None:
    times = falling_times(LINEAR, 21, "log_snr")
    lamda = [-math.log(level(LINEAR, t)) for t in times]
    assert (times[0], times[-1]) == (999.0, 0.0)
    np.testing.assert_allclose(np.diff(lamda), np.diff(lamda)[0], rtol=1e-9)
    assert falling_times(LINEAR, 1, "log_snr") == [999.0]
    for process in (COSINE, with_zero_terminal(LINEAR)):
        assert level(process, 999) > 1000, "the premise: it ends in next to pure noise, or in nothing else"
        assert level(process, falling_times(process, 5, "log_snr")[0]) == pytest.approx(160, rel=1e-6)
    assert falling_times(LINEAR, 2, "log_snr") == [999.0, 0.0]


def short_chains(timesteps: int) -> Iterator[Process]:
    for schedule, terminal in itertools.product(("linear", "quadratic", "sigmoid", "cosine"), (False, True)):
        yield make_process(schedule, timesteps, 1e-4, 0.02, terminal)  # type: ignore[arg-type]


@pytest.mark.parametrize("timesteps", [2, 3, 10])
def test_every_sampler_makes_every_number_of_steps_of_every_chain(timesteps: int) -> None:
    for process in short_chains(timesteps):
        for steps, draw in itertools.product(range(1, timesteps + 1), DRAWS):
            out = run(replace(draw, steps=steps), Denoiser(lambda x, t: 0.3 * torch.tanh(x), process, "x0"))
            assert bool(torch.isfinite(out).all()), (draw, steps)
            assert float(out.abs().max()) < 5, (draw, steps)


@pytest.mark.parametrize("timesteps", [2, 10, 50, 200])
def test_log_snr_times_fall_from_the_chains_end_to_timestep_0_on_every_chain(timesteps: int) -> None:
    for process in short_chains(timesteps):
        end = process.timesteps - 1
        for steps in range(1, timesteps + 1):
            times = falling_times(process, steps, "log_snr")
            assert len(times) == steps
            assert all(t > s for t, s in itertools.pairwise(times)), (steps, times)
            assert times[0] == end or level(process, times[0]) == pytest.approx(160, rel=1e-6)
            assert times[-1] == 0 or steps == 1
            h = np.diff([-math.log(level(process, t)) for t in times[1:]])
            np.testing.assert_allclose(h, h[0] if len(h) else 0, rtol=1e-6)


@pytest.mark.parametrize("process", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize(
    ("sampler", "order", "steps", "within"),
    [
        ("dpmpp_2m", 2, 80, 0.25),
        ("euler", 1, 80, 0.1),
        ("heun", 2, 80, 0.2),
        ("pf_ode", 4, 20, 0.4),
    ],
)
def test_the_order_of_convergence_is_the_algorithms(
    sampler: str, order: int, steps: int, within: float, process: Process
) -> None:
    """On the exact denoiser, against the exact solution up to timestep 0 and the predicted x_0 from there."""
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors, begin = [], falling_times(process, 1, "log_snr")[0] if sampler == "dpmpp_2m" else 999
    truth = exact_x0(exact_flow(x, process, begin, 0), process, 0)
    for k in range(4):
        draw = Draw(sampler, steps * 2**k, spacing="log_snr", clip=False)
        if sampler != "dpmpp_2m":
            draw = Draw(sampler, steps * 2**k, clip=False, options=WIDE)
        errors.append(float((run(draw, exact(process), x) - truth).abs().max()))
    assert errors[-1] < 0.05
    assert slopes(errors)[-1] == pytest.approx(order, abs=within), errors


# Heun and Euler


def plain_edm(
    x: Tensor, process: Process, draw: Draw, network: Callable[[Tensor, float], Tensor], churn: float, s_noise: float
) -> Tensor:
    """Karras et al. 2022, algorithm 2 (algorithm 1 where churn = 0), x already at the first level."""
    steps, high, low = draw.steps or 0, level(process, 999), level(process, 0)
    sigmas = np.append(
        (high ** (1 / 7) + np.arange(steps) / max(steps - 1, 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7, 0
    )
    sigmas[0], noise = high, stream()

    def denoised(x: Tensor, sigma: float) -> Tensor:
        t = time_of_level(process, sigma)
        scaled = x / math.sqrt(1 + sigma**2)
        x_0 = x - sigma * network(scaled, t)
        return x_0.clamp(-1, 1) if draw.clip else x_0

    for i in range(steps):
        gamma = min(churn / steps, math.sqrt(2) - 1)
        hat = min(sigmas[i] * (1 + gamma), high)
        if hat > sigmas[i]:
            x = x + math.sqrt(hat**2 - sigmas[i] ** 2) * s_noise * next(noise)
        d = (x - denoised(x, hat)) / hat
        after = x + (sigmas[i + 1] - hat) * d
        if sigmas[i + 1] > 0:
            d2 = (after - denoised(after, sigmas[i + 1])) / sigmas[i + 1]
            after = x + (sigmas[i + 1] - hat) * (d / 2 + d2 / 2)
        x = after
    return x


@pytest.mark.parametrize(("churn", "s_noise"), [(0.0, 1.0), (3.0, 1.0), (40.0, 1.0), (3.0, 1.1)])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_heun_is_the_papers_algorithm(steps: int, clip: bool, churn: float, s_noise: float) -> None:
    draw = Draw("heun", steps, clip=clip, options={**WIDE, "s_churn": churn, "s_noise": s_noise})
    first = start() * math.sqrt(1 + level(LINEAR, 999) ** 2)
    expected = plain_edm(first, LINEAR, draw, wavy, churn, s_noise)
    torch.testing.assert_close(run(draw, Denoiser(wavy, LINEAR)), expected, rtol=1e-7, atol=1e-7)


def test_the_levels_are_the_papers_and_churn_stays_between_its_bounds() -> None:
    levels = karras_levels(18, 80.0, 0.002, 7.0)
    expected = (80 ** (1 / 7) + np.arange(18) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(levels, expected, rtol=1e-12)
    assert (levels[0], levels[-1]) == (80.0, 0.002)
    churned = Draw("heun", 18, options={"s_churn": 10, "s_tmin": 0.05, "s_tmax": 50})
    inside = [sigma for sigma in karras_levels(18, 80.0, level(LINEAR, 0), 7.0) if 0.05 <= sigma <= 50]
    assert 0 < len(inside) < 17, "the premise: some are inside"
    assert SAMPLERS["heun"].noises(LINEAR, churned) == len(inside)


def test_euler_is_ddim_over_the_same_times() -> None:
    levels = karras_levels(9, 80.0, level(LINEAR, 0), 7.0)
    times = [*(time_of_level(LINEAR, sigma) for sigma in levels), -1.0]
    denoiser = Denoiser(wavy, LINEAR)
    pairs = itertools.pairwise(times)
    steps = [linear_step(LINEAR.transition(t, s), denoiser.reading(t), 0.0, 0.0) for t, s in pairs]
    for clip in (True, False):
        ddim = run_steps(start(), denoiser, steps, stream(), clip)
        torch.testing.assert_close(run(Draw("euler", 9, clip=clip), denoiser), ddim, rtol=1e-8, atol=1e-8)


def test_times_and_levels_are_inverse() -> None:
    for process in (LINEAR, COSINE):
        for t in (0.0, 0.4, 17.0, 500.3, 998.9, 999.0):
            assert time_of_level(process, level(process, t)) == pytest.approx(t, abs=1e-6)
            assert log_abar_of(level(process, t)) == pytest.approx(process.log_abar(t), rel=1e-9)


# The probability-flow ODE


def test_the_ode_agrees_with_an_adaptive_solver_of_scipy() -> None:
    """In x_t and log abar, not in the variables that ours solves in: dx / dlog abar = (x - eps / sigma) / 2."""

    def still(x: Tensor) -> Tensor:
        return torch.sin(2 * x) + 0.2 * x.roll(1, -1)

    def right_side(log_abar: float, y: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(y).view(1, *CHW)
        sigma = math.sqrt(-math.expm1(log_abar))
        return 0.5 * (x - still(x) / sigma).flatten().numpy()

    low, high = log_abar_of(80.0), COSINE.log_abar(0)
    ours = run(Draw("pf_ode", 400, clip=False), Denoiser(lambda x, t: still(x), COSINE))
    for i in range(2):
        found = solve_ivp(right_side, (low, high), start()[i].flatten().numpy(), rtol=1e-10, atol=1e-12)
        x = torch.from_numpy(found.y[:, -1]).view(1, *CHW)
        x_0 = COSINE.predict_x0(x, still(x), 0)
        torch.testing.assert_close(ours[i : i + 1], x_0, rtol=5e-5, atol=1e-5)


# Langevin


def plain_langevin(draw: Draw, network: Callable[[Tensor, float], Tensor], corrections: int, snr: float) -> Tensor:
    """Song et al. 2021, algorithms 3 and 5, image by image, with the predictor in Ho et al.'s form (eq. 11)."""
    abar = (1 - LINEAR.betas).cumprod(0)
    chosen = [int(t) for t in falling_times(LINEAR, draw.steps or 0, "uniform")]
    rows = []
    for i in range(4):
        x, noise = start()[i : i + 1], stream(1, first=i)
        for t, s in zip(chosen, [*chosen[1:], -1], strict=True):
            a, b = abar[t], abar[s] if s >= 0 else torch.tensor(1.0, dtype=torch.float64)
            beta = 1 - a / b

            def eps(x: Tensor, a: Tensor = a, t: int = t) -> Tensor:
                """The network's; with clip that of a predicted x_0 in [-1, 1]."""
                out = network(x, t)
                x_0 = (x - (1 - a).sqrt() * out) / a.sqrt()
                return (x - a.sqrt() * x_0.clamp(-1, 1)) / (1 - a).sqrt() if draw.clip else out

            for _ in range(corrections):
                z, g = next(noise), -eps(x) / (1 - a).sqrt()
                size = 2 * (1 - beta) * (snr * z.norm() / g.norm()) ** 2
                x = x + size * g + (2 * size).sqrt() * z
            x = (x - beta / (1 - a).sqrt() * eps(x)) / (1 - beta).sqrt()
            if s >= 0:
                variance = beta if draw.variance == "beta" else (1 - b) / (1 - a) * beta
                x = x + variance.sqrt() * next(noise)
        rows.append(x)
    return torch.cat(rows)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("variance", [None, "beta"])
@pytest.mark.parametrize(("corrections", "snr"), [(0, 0.16), (1, 0.16), (3, 0.05)])
def test_langevin_is_predictor_and_corrector_of_the_paper(
    corrections: int, snr: float, variance: str | None, clip: bool
) -> None:
    options: dict[str, Scalar] = {"corrections": corrections, "snr": snr}
    draw = Draw("langevin", 15, variance=variance, options=options, clip=clip)
    expected = plain_langevin(draw, wavy, corrections, snr)
    torch.testing.assert_close(run(draw, Denoiser(wavy, LINEAR)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("clip", [True, False])
def test_without_corrections_langevin_is_ancestral_sampling(clip: bool) -> None:
    ours = run(Draw("langevin", 15, options={"corrections": 0}, clip=clip), Denoiser(wavy, LINEAR))
    torch.testing.assert_close(ours, run(Draw("ddpm", 15, clip=clip), Denoiser(wavy, LINEAR)), rtol=1e-8, atol=1e-8)


def test_corrections_bring_few_steps_nearer_to_the_data() -> None:
    """With the exact score, Langevin steps mend the variance that six ancestral steps lose."""
    n, dims = 4000, 64
    data = GaussianData(torch.full((dims,), 0.2, dtype=torch.float64), torch.full((dims,), 0.25, dtype=torch.float64))

    def network(x_t: Tensor, t: float) -> Tensor:
        return data.eps(x_t, LINEAR.transition(t, -1))

    def variance(corrections: int) -> float:
        draw = Draw("langevin", 6, options={"corrections": corrections, "snr": 0.3}, clip=False)
        noise = Noise(2, dtype=torch.float64)
        x = SAMPLERS["langevin"].run(
            noise.normal("x_T", n, (dims,)), Denoiser(network, LINEAR), draw, noise.normals("steps", n, (dims,), 60)
        )
        return float(x.var(0).mean())

    plain, mended = (abs(variance(m) - 0.25) for m in (0, 8))
    assert plain > 0.05, "the premise: six steps are too few"
    assert mended < 0.5 * plain


# What is refused


def test_what_a_solver_does_not_have_is_refused_before_any_call() -> None:
    def silent(x: Tensor, t: float) -> Tensor:
        raise AssertionError("called")

    refused: list[tuple[Process, Draw, str]] = [
        (LINEAR, Draw("dpmpp_2m", 10, eta=0.5), r"'dpmpp_2m' has no eta, got 0\.5"),
        (LINEAR, Draw("dpmpp_2m", 10, variance="beta"), r"'dpmpp_2m' has no variance, got 'beta'"),
        (LINEAR, Draw("dpmpp_2m", 10, spacing="cubic"), r"spacing: expected one of .*quadratic, log_snr, got 'cubic'"),
        (LINEAR, Draw("dpmpp_2m", 1001), r"steps: expected 1 to 1000"),
        (LINEAR, Draw("dpmpp_2m", 10, options={"order": 3}), r"'dpmpp_2m' has none, got order"),
        (LINEAR, Draw("heun", 10, spacing="trailing"), r"'heun' has noise levels of its own, got spacing 'trailing'"),
        (LINEAR, Draw("heun", 0), r"steps: expected at least 1, got 0"),
        (LINEAR, Draw("heun", 5, options={"rho": 0.5}), r"options\.rho: expected a number of 1 to 1e\+06, got 0\.5"),
        (LINEAR, Draw("heun", 5, options={"s_churn": -1}), r"options\.s_churn: expected a number of 0 or more, got -1"),
        (LINEAR, Draw("heun", 5, options={"s_churn": True}), r"options\.s_churn: expected a number .* got True"),
        (LINEAR, Draw("heun", 5, options={"sigma_max": 0.001}), r"expected levels within the chain's 0\.01 to 157"),
        (LINEAR, Draw("pf_ode", 5, options={"rho": 7}), r"'pf_ode' has sigma_max, sigma_min, got rho"),
        (LINEAR, Draw("langevin", 5, eta=1.0), r"'langevin' has no eta"),
        (LINEAR, Draw("langevin", 5, variance="analytic"), r"'langevin' has beta, beta_tilde, got 'analytic'"),
        (
            LINEAR,
            Draw("langevin", 5, options={"corrections": 1.5}),
            r"corrections: expected a whole number of 0 to 1e\+06, got 1\.5",
        ),
        (LINEAR, Draw("langevin", 5, options={"snr": "high"}), r"options\.snr: expected a number .* got 'high'"),
    ]
    for process, draw, message in refused:
        with pytest.raises(UserError, match=message):
            SAMPLERS[draw.sampler].check(Denoiser(silent, process), draw)
        with pytest.raises(UserError, match=message):
            run(draw, Denoiser(silent, process))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e200])
def test_numbers_without_end_are_refused_but_where_they_mean_no_limit(value: float) -> None:
    for sampler, name in (
        *itertools.product(("heun", "euler"), ("rho", "sigma_max", "sigma_min", "s_noise")),
        *itertools.product(("pf_ode",), ("sigma_max", "sigma_min")),
        *itertools.product(("langevin",), ("corrections", "snr")),
    ):
        with pytest.raises(UserError, match=rf"options\.{name}: expected .* to 1e\+06, got"):
            SAMPLERS[sampler].check(Denoiser(wavy, TERMINAL), Draw(sampler, 5, options={name: value}))
    endless: dict[str, Scalar] = {"s_tmax": math.inf, "s_churn": math.inf}
    assert bool(torch.isfinite(run(Draw("heun", 5, options=endless), Denoiser(wavy, LINEAR))).all())
