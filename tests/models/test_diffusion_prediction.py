"""What a network may answer in: each reading gives what the others give, on chains that end in pure noise too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from baselines.contract import Batch, Context, Noise
from baselines.diffusion.ddpm import Config, Ddpm
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_oracle import GaussianData, frechet
from baselines.diffusion.prediction import Prediction, reading, target
from baselines.diffusion.process import Process, make_process, subsequence, with_zero_terminal
from baselines.diffusion.sampling import SAMPLERS
from baselines.errors import UserError
from baselines.types import Draw, ImageShape

LINEAR = make_process("linear", 50, 1e-4, 0.02)
TERMINAL = with_zero_terminal(LINEAR)
DATA = GaussianData(
    torch.tensor([0.3, -0.5], dtype=torch.float64).view(2, 1, 1),
    torch.tensor([0.04, 0.6], dtype=torch.float64).view(2, 1, 1),
)
KINDS: tuple[Prediction, ...] = get_args(Prediction)
DRAWS = [Draw("ddim", 20), Draw("ddim", 20, 0.6, "trailing", clip=False), Draw("ddpm")]


def posterior_mean(x_t: Tensor, process: Process, t: float) -> Tensor:
    """E[x_0 | x_t] of Gaussian data, by Bayes' rule for a product of two Gaussians."""
    signal, noise = process.signal(t), process.sigma(t) ** 2
    precision = 1 / DATA.variance + signal**2 / noise
    return (DATA.mean / DATA.variance + signal * x_t / noise) / precision


def exact(prediction: Prediction, process: Process) -> Denoiser:
    """The perfect network of this kind, from its target's definition."""

    def network(x_t: Tensor, t: float) -> Tensor:
        x_0 = posterior_mean(x_t, process, t)
        wanted = target(prediction, process, t)
        return wanted.from_x0 * x_0 + wanted.from_eps * (x_t - process.signal(t) * x_0) / process.sigma(t)

    return Denoiser(network, process, prediction)


def start(n: int = 6) -> Tensor:
    return Noise(3, dtype=torch.float64).normal("x_T", n, (2, 1, 1))


def stream(n: int = 6) -> Iterator[Tensor]:
    return Noise(3, dtype=torch.float64).normals("steps", n, (2, 1, 1), 50)


@pytest.mark.parametrize("prediction", KINDS)
def test_reading_inverts_the_target(prediction: Prediction) -> None:
    x_0, eps = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (0, 1, 20, 49):
        wanted, read = target(prediction, LINEAR, t), reading(prediction, LINEAR, t)
        x_t, out = LINEAR.diffuse(x_0, t, eps), wanted.from_x0 * x_0 + wanted.from_eps * eps
        torch.testing.assert_close(read.x0_from_x * x_t + read.x0_from_out * out, x_0, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(read.eps_from_x * x_t + read.eps_from_out * out, eps, rtol=1e-9, atol=1e-10)


def test_the_mean_is_the_posteriors() -> None:
    """Ho et al. 2020, eq. 7, written with betas."""
    abar, t = (1 - LINEAR.betas).cumprod(0), 30
    beta = LINEAR.betas[t]
    of_0 = abar[t - 1].sqrt() * beta / (1 - abar[t])
    of_t = (1 - beta).sqrt() * (1 - abar[t - 1]) / (1 - abar[t])
    x_0, eps = 0.7, -1.3
    x_t = abar[t].sqrt() * x_0 + (1 - abar[t]).sqrt() * eps
    wanted = target("mean", LINEAR, t)
    assert wanted.from_x0 * x_0 + wanted.from_eps * eps == pytest.approx(float(of_0 * x_0 + of_t * x_t), rel=1e-10)


@pytest.mark.parametrize(
    "draw", [Draw("ddim", 20), Draw("ddim", 20, 0.6, "trailing", clip=False), Draw("ddpm")], ids=str
)
@pytest.mark.parametrize("prediction", KINDS)
def test_all_readings_of_the_truth_draw_the_same(prediction: Prediction, draw: Draw) -> None:
    ours = SAMPLERS[draw.sampler].run(start(), exact(prediction, LINEAR), draw, stream())
    by_eps = SAMPLERS[draw.sampler].run(start(), exact("eps", LINEAR), draw, stream())
    torch.testing.assert_close(ours, by_eps, rtol=1e-8, atol=1e-9)


def test_a_zero_terminal_chain_ends_in_pure_noise_and_starts_where_it_did() -> None:
    assert math.isinf(TERMINAL.log_abar(49))
    assert (TERMINAL.signal(49), TERMINAL.sigma(49)) == (0, 1)
    assert TERMINAL.signal(0) == pytest.approx(LINEAR.signal(0), rel=1e-12)
    assert all(TERMINAL.signal(t) < LINEAR.signal(t) for t in range(1, 50))
    assert float(TERMINAL.prior_nats(torch.ones(1, 2, 1, 1, dtype=torch.float64))) == 0, "so L_T vanishes"


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_pure_noise_is_left_by_x0_and_v_alone(prediction: Prediction) -> None:
    """From x_T that holds nothing, samples of the exact denoiser have the data's moments, where others start biased."""
    draw = Draw("ddim", 50, 1.0, "trailing", clip=False)

    def drawn(process: Process, kind: Prediction) -> GaussianData:
        x = Noise(5, dtype=torch.float64).normal("x_T", 4000, (2, 1, 1))
        noise = Noise(5, dtype=torch.float64).normals("steps", 4000, (2, 1, 1), 50)
        out = SAMPLERS["ddim"].run(x, exact(kind, process), draw, noise)
        return GaussianData(out.mean(0), out.var(0))

    found = drawn(TERMINAL, prediction)
    assert frechet(DATA, found.mean, found.variance) < 0.01
    with pytest.raises(UserError, match="tells no x_0 of pure noise"):
        drawn(TERMINAL, "eps")
    with pytest.raises(UserError, match="tells no x_0 of pure noise"):
        Ddpm(ImageShape(1, 8, 8, 17), Config(zero_terminal=True))


def test_time_of_inverts_log_abar_between_timesteps_too() -> None:
    for t in (-1, -0.25, 0, 0.5, 17, 33.3, 49):
        assert LINEAR.time_of(LINEAR.log_abar(t)) == pytest.approx(t, abs=1e-9)
    assert LINEAR.log_abar(10.5) == pytest.approx((LINEAR.log_abar(10) + LINEAR.log_abar(11)) / 2)
    assert (LINEAR.time_of(0.5), LINEAR.time_of(-1e9)) == (-1, 49)


@pytest.mark.parametrize("prediction", KINDS)
def test_the_loss_is_the_square_error_of_the_target(prediction: Prediction) -> None:
    model = Ddpm(ImageShape(1, 8, 8, 17), Config(timesteps=20, widths=(4, 4), prediction=prediction))
    answered: list[tuple[Tensor, Tensor]] = []

    def nothing(x_t: Tensor, time: Tensor) -> Tensor:
        answered.append((x_t, time))
        return torch.zeros_like(x_t)

    model.unet.forward = nothing  # type: ignore[method-assign]
    images = torch.full((40, 1, 8, 8), 12, dtype=torch.uint8)
    loss = model.loss(Batch(images), Context(0, 0.0, torch.Generator().manual_seed(0), torch.device("cpu"))).total
    (x_t, time), x_0 = answered[0], 12 / 8 - 1
    expected = []
    for i, t in enumerate((time * 20 / 1000).round().int().tolist()):
        eps = (x_t[i] - model.process.signal(t) * x_0) / model.process.sigma(t)
        wanted = target(prediction, model.process, t)
        expected.append((wanted.from_x0 * x_0 + wanted.from_eps * eps).square().mean())
    assert float(loss) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-4)


def test_the_analytic_variance_of_gaussian_data_is_the_best_reverse_variance() -> None:
    """beta_tilde + (weight of x_0)^2 Var[x_0 | x_t], estimated by the square error of the exact denoiser."""
    shape = ImageShape(1, 1, 1, 256)
    model = Ddpm(shape, Config(timesteps=20, widths=(4, 4), analytic_variance=True, bound_variance="analytic"))
    data = GaussianData(torch.tensor(0.0), torch.tensor(0.09))

    def network(x_t: Tensor, time: Tensor) -> Tensor:
        t = round(float(time) * 20 / 1000)
        return data.eps(x_t, model.process.transition(t, -1))

    model.unet.forward = network  # type: ignore[method-assign]
    levels = (0.3 * torch.randn(100, 1, 1, 1, generator=torch.Generator().manual_seed(1)) + 1) * 127.5
    model.finish(levels.round().clamp(0, 255).to(torch.uint8), Noise(0))
    for t in range(20):
        truth = float(data.posterior_variance(model.process.transition(t, -1)))
        assert float(model.x0_variance[t]) == pytest.approx(truth, rel=0.6), "of 100 draws"
    ratio = [
        float(model.x0_variance[t]) / float(data.posterior_variance(model.process.transition(t, -1))) for t in range(20)
    ]
    assert sum(ratio) / 20 == pytest.approx(1, abs=0.2)
    x = Noise(0).normal("x_t", 2, shape.chw)
    for t in range(20):
        move = model.process.transition(max(t, 1), max(t, 1) - 1)
        more = move.mean_x0**2 * float(model.x0_variance[t]) if t > 0 else 0.0
        assert float(model.reverse(x, t)[1]) == pytest.approx(move.beta_tilde + more, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_with_the_analytic_variance_gaussian_data_keep_their_marginals_in_any_number_of_steps(steps: int) -> None:
    """Their reverse kernels are Gaussian, so that x_t keeps its variance C; E[x_0 | x_t] at t = 0 has l^2 a / C."""
    data = GaussianData(torch.zeros((), dtype=torch.float64), torch.tensor(0.09, dtype=torch.float64))
    every = [LINEAR.transition(t, -1) for t in range(50)]
    denoiser = Denoiser(
        lambda x, t: data.eps(x, every[int(t)]),
        LINEAR,
        x0_variance=tuple(float(data.posterior_variance(move)) for move in every),
    )
    draw = Draw("ddpm", steps, variance="analytic", clip=False)
    last, first = (every[t] for t in (subsequence(steps, 50, "uniform")[-1], 0))
    rows = torch.zeros(steps, 1, dtype=torch.float64)  # x_T of one deviation, then one in each step's noise
    rows[0] = data.total_variance(last).sqrt()
    impulses = iter(torch.eye(steps, dtype=torch.float64)[1:, :, None])
    variance = float(SAMPLERS["ddpm"].run(rows, denoiser, draw, impulses).square().sum())
    assert variance == pytest.approx(0.09**2 * first.abar_t / float(data.total_variance(first)), rel=1e-9)


def test_the_analytic_variance_is_one_that_images_can_have_where_next_to_nothing_is_left_of_them() -> None:
    """An eps that is wrong by 0.1 tells an x_0 that is wrong by thousands at the end of the cosine schedule."""
    model = Ddpm(ImageShape(1, 2, 2, 17), Config(widths=(4, 4), analytic_variance=True))
    images = torch.randint(0, 17, (30, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    process, noised = model.process, Noise(0).normals("analytic", 30, (1, 2, 2), 1000)
    model.unet.forward = lambda x_t, time: next(noised) + 0.1  # type: ignore[method-assign]
    model.finish(images, Noise(0))
    assert float(process.sigma(999) / process.signal(999)) * 0.1 > 1000, "the premise"
    assert float(model.x0_variance.min()) >= 0
    assert float(model.x0_variance.max()) <= 1
    seen: list[Tensor] = []

    def grey(x_t: Tensor, t: float) -> Tensor:
        seen.append(x_t)
        return x_t / process.sigma(t)

    draw = Draw("ddpm", 10, spacing="trailing", variance="analytic")
    normals = Noise(1).normals("steps", 500, (1, 2, 2), 10)
    x_T = Noise(1).normal("x_T", 500, (1, 2, 2))
    SAMPLERS["ddpm"].run(x_T, replace(model.denoiser, network=grey), draw, normals)
    spreads = [float(x_t.square().mean()) for x_t in seen]
    assert max(spreads) < 2.2, "images in [-1, 1] and noise have at most 2"
