"""The samplers as algorithms: against the papers' updates written plainly, their calls counted, their noise watched."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.process import Process, make_process, subsequence
from baselines.diffusion.samplers import ddim, ddpm
from baselines.diffusion.sampling import SAMPLERS
from baselines.errors import UserError
from baselines.noise import Noise
from baselines.types import Draw

PROCESS = make_process("linear", 100, 1e-4, 0.02)
CHW = (2, 3, 3)
EVERY_KIND = [
    Draw("ddpm", 25, variance="beta"),
    Draw("ddpm", 25, variance="beta_tilde"),
    Draw("ddim", 25),
    Draw("ddim", 25, eta=0.5, spacing="trailing"),
    Draw("ddim", 25, eta=1.0, spacing="quadratic", clip=False),
    Draw("ddim", 25, variance="sigma_hat"),
]


def eps_fn(x: Tensor, t: float) -> Tensor:
    """A nonlinear stand-in for a network, image by image."""
    return torch.sin(3 * x + 0.1 * t) + 0.2 * x.roll(1, -1)


def start(n: int = 4) -> Tensor:
    return Noise(1, dtype=torch.float64).normal("x_T", n, CHW)


def stream(n: int = 4, first: int = 0) -> Iterator[Tensor]:
    return Noise(1, first=first, dtype=torch.float64).normals("steps", n, CHW, 100)


def run(draw: Draw, process: Process = PROCESS) -> Tensor:
    return SAMPLERS[draw.sampler].run(start(), Denoiser(eps_fn, process), draw, stream())


def plain_ancestral(draw: Draw, larger: bool) -> Tensor:
    """Ho et al. 2020, algorithm 2 by eqs. 7 and 15, over the chain made of the chosen timesteps."""
    x, noise = start(), stream()
    abar_all = (1 - PROCESS.betas).cumprod(0)
    chosen = subsequence(draw.steps or PROCESS.timesteps, PROCESS.timesteps, "uniform")
    abar = abar_all[chosen]
    for i in reversed(range(len(chosen))):
        a, s = abar[i], abar[i - 1] if i else torch.tensor(1.0, dtype=torch.float64)
        beta = 1 - a / s
        x_0 = (x - (1 - a).sqrt() * eps_fn(x, chosen[i])) / a.sqrt()
        if draw.clip:
            x_0 = x_0.clamp(-1, 1)
        x = s.sqrt() * beta / (1 - a) * x_0 + (1 - beta).sqrt() * (1 - s) / (1 - a) * x
        if i > 0:
            variance = beta if larger else (1 - s) / (1 - a) * beta
            x = x + variance.sqrt() * next(noise)
    return x


def plain_ddim(draw: Draw) -> Tensor:
    """Song et al. 2020, eqs. 12 and 16, with eps made consistent with a clamped x_0."""
    x, noise = start(), stream()
    abar_all = (1 - PROCESS.betas).cumprod(0)
    chosen = subsequence(draw.steps or PROCESS.timesteps, PROCESS.timesteps, draw.spacing)  # type: ignore[arg-type]
    for i in reversed(range(len(chosen))):
        a = abar_all[chosen[i]]
        s = abar_all[chosen[i - 1]] if i else torch.tensor(1.0, dtype=torch.float64)
        eps = eps_fn(x, chosen[i])
        x_0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        if draw.clip:
            x_0 = x_0.clamp(-1, 1)
            eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        sigma = draw.eta * ((1 - s) / (1 - a) * (1 - a / s)).sqrt()
        x = s.sqrt() * x_0 + (1 - s - sigma**2).clamp(min=0).sqrt() * eps
        if sigma > 0:
            x = x + sigma * next(noise)
    return x


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 37, 100])
@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_ddpm_is_ancestral_sampling_of_the_chosen_timesteps(variance: str, steps: int, clip: bool) -> None:
    draw = Draw("ddpm", steps, variance=variance, clip=clip)
    torch.testing.assert_close(run(draw), plain_ancestral(draw, variance == "beta"), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("spacing", ["uniform", "trailing", "quadratic"])
@pytest.mark.parametrize(("steps", "eta"), [(1, 0.0), (2, 1.0), (30, 0.0), (30, 0.4), (30, 1.0), (100, 0.7)])
def test_ddim_is_equation_12_on_any_timesteps(steps: int, eta: float, spacing: str, clip: bool) -> None:
    draw = Draw("ddim", steps, eta, spacing, clip=clip)
    torch.testing.assert_close(run(draw), plain_ddim(draw), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [1, 10, 73, 100])
def test_ddpm_is_a_corner_of_ddim_on_the_same_noise(steps: int, clip: bool) -> None:
    small, large = (Draw("ddpm", steps, variance=v, clip=clip) for v in ("beta_tilde", "beta"))
    torch.testing.assert_close(run(small), run(Draw("ddim", steps, eta=1.0, clip=clip)))
    torch.testing.assert_close(run(large), run(Draw("ddim", steps, variance="sigma_hat", clip=clip)))
    if steps > 1:
        assert not torch.allclose(run(small), run(large)), "the premise: the variances differ"


@pytest.mark.parametrize("draw", EVERY_KIND, ids=Draw.label)
def test_the_network_is_called_once_per_chosen_timestep_last_first(draw: Draw) -> None:
    called: list[float] = []

    def watched(x: Tensor, t: float) -> Tensor:
        called.append(t)
        return eps_fn(x, t)

    SAMPLERS[draw.sampler].run(start(), Denoiser(watched, PROCESS), draw, stream())
    assert called == subsequence(25, 100, draw.spacing)[::-1]  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", EVERY_KIND, ids=Draw.label)
def test_noise_is_drawn_only_where_it_is_used(draw: Draw) -> None:
    drawn = 0

    def counted() -> Iterator[Tensor]:
        nonlocal drawn
        for noise in stream():
            drawn += 1
            yield noise

    SAMPLERS[draw.sampler].run(start(), Denoiser(eps_fn, PROCESS), draw, counted())
    silent = draw.sampler == "ddim" and draw.eta == 0 and draw.variance is None
    assert drawn == (0 if silent else 24), "none in the last step, none at all for a deterministic sampler"


@pytest.mark.parametrize("draw", EVERY_KIND, ids=Draw.label)
def test_image_i_is_the_same_in_any_batch(draw: Draw) -> None:
    whole, sampler = run(draw), SAMPLERS[draw.sampler].run
    for i in range(4):
        alone = sampler(start()[i : i + 1], Denoiser(eps_fn, PROCESS), draw, stream(1, first=i))
        torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("draw", EVERY_KIND, ids=Draw.label)
def test_neither_x_t_nor_the_prediction_is_written_to(draw: Draw) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def same_tensor(x: Tensor, t: float) -> Tensor:
        seen.append((x, x.clone()))
        return x

    SAMPLERS[draw.sampler].run(start(), Denoiser(same_tensor, PROCESS), draw, stream())
    assert all(torch.equal(now, then) for now, then in seen)


@pytest.mark.parametrize("draw", [draw for draw in EVERY_KIND if draw.clip], ids=Draw.label)
def test_clipped_samples_end_in_the_pixel_range(draw: Draw) -> None:
    free = SAMPLERS[draw.sampler].run(
        start(),
        Denoiser(eps_fn, PROCESS),
        Draw(draw.sampler, 25, draw.eta, draw.spacing, draw.variance, clip=False),
        stream(),
    )
    assert float(free.abs().max()) > 1, "the premise: without clipping they do not"
    assert float(run(draw).abs().max()) <= 1 + 1e-12


def test_clipping_that_never_binds_changes_nothing() -> None:
    def point(x: Tensor, t: float) -> Tensor:
        """The exact denoiser of one image of value 0.3."""
        move = PROCESS.transition(t, -1)
        return (x - math.sqrt(move.abar_t) * 0.3) / math.sqrt(move.noise_t)

    for eta in (0.0, 0.5, 1.0):
        free, clipped = (
            ddim(start(), Denoiser(point, PROCESS), Draw("ddim", 20, eta, clip=clip), stream())
            for clip in (False, True)
        )
        torch.testing.assert_close(free, clipped, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(clipped, torch.full_like(clipped, 0.3), rtol=1e-9, atol=1e-9)


def test_what_a_sampler_does_not_have_is_refused() -> None:
    refused = [
        (ddpm, Draw("ddpm", 10, eta=0.5), r"'ddpm' has no eta, got 0\.5"),
        (ddpm, Draw("ddpm", 10, variance="sigma_hat"), r"variance: 'ddpm' has beta, beta_tilde here, got 'sigma_hat'"),
        (ddim, Draw("ddim", 10, eta=1.5), r"eta: expected 0 to 1, got 1\.5"),
        (ddim, Draw("ddim", 10, variance="beta"), r"variance: 'ddim' has sigma_hat .* got 'beta'"),
        (ddim, Draw("ddim", 10, eta=0.5, variance="sigma_hat"), r"sigma_hat takes the mean of eta=1, got eta=0\.5"),
        (ddim, Draw("ddim", 10, eta=1.0, variance="sigma_hat"), r"takes the mean of eta=1, got eta=1; leave it out"),
        (ddim, Draw("ddim", 101), r"steps: expected 1 to 100"),
        (ddim, Draw("ddim", 10, options={"temperature": 2.0}), r"'ddim' has none, got temperature"),
    ]
    for sampler, draw, message in refused:
        with pytest.raises(UserError, match=message):
            sampler(start(), Denoiser(eps_fn, PROCESS), draw, stream())
