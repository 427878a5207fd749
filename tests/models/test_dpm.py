"""What makes dpm faithful: forward rates, reverse steps that perturb the forward ones, the full bound as its loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from baselines.config import build_config
from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import discretised_gaussian, to_signed
from baselines.diffusion.dpm import Config, Dpm, erasing_process
from baselines.errors import UserError
from baselines.types import ImageShape

SHAPE = ImageShape(1, 4, 4, 17)


def model(std: float = 0.1, **config: Any) -> Dpm:
    made = Dpm(SHAPE, build_config(Config, {"timesteps": 12, "widths": [4, 4], **config}, "dpm")).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.copy_(std * noise)
    return made


def images(n: int) -> Tensor:
    return torch.randint(0, 17, (n, *SHAPE.chw), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("timesteps", [2, 10, 1000, 4000])
def test_the_rates_erase_an_equal_share_of_the_signal_each(timesteps: int) -> None:
    process = erasing_process(timesteps)
    theirs = 1 / np.linspace(timesteps, 2, timesteps)
    np.testing.assert_allclose(process.betas.numpy(), theirs, rtol=1e-12)
    shares = -process.abar.diff()
    assert float(process.abar[-1]) == pytest.approx(1 / timesteps, rel=0.5)
    if timesteps >= 1000:
        torch.testing.assert_close(shares, torch.full_like(shares, 1 / timesteps), rtol=0.01, atol=0)


def test_the_first_step_has_the_variance_that_is_asked_for_or_that_of_a_quarter_of_a_level() -> None:
    assert float(model(beta_1=0.1).process.betas[0]) == 0.1
    assert math.sqrt(float(model().process.betas[0])) == pytest.approx(2 / 16 / 4), "17 levels lie 2 / 16 apart"
    assert torch.equal(model(beta_1=0.1).process.betas[1:], erasing_process(12).betas[1:])


def test_a_network_that_answers_nothing_reverses_by_the_forward_step() -> None:
    """Mean sqrt(1 - beta) x and variance beta (the paper's appendix: reverse steps perturb the forward kernel)."""
    ours = model(std=0.0)
    x = Noise(0).normal("x", 3, SHAPE.chw)
    for t in range(1, 12):
        move = ours.process.transition(t, t - 1)
        x_0, variance = ours.reverse(x, t)
        torch.testing.assert_close(move.mean_x0 * x_0 + move.mean_xt * x, math.sqrt(1 - move.beta) * x)
        torch.testing.assert_close(variance, torch.full_like(x, move.beta), rtol=1e-4, atol=0)


def test_the_learned_variance_is_the_papers_sigmoid_in_bound_and_sampler() -> None:
    ours, x = model(std=0.3), Noise(0).normal("x", 3, SHAPE.chw)
    for t in (0, 1, 5, 11):
        time = torch.tensor([t * 1000 / 12])
        with torch.no_grad():
            z = ours.unet(x, time).chunk(2, 1)[1]
            beta = float(ours.process.betas[t])
            expected = torch.sigmoid(z / math.sqrt(12) + math.log(beta / (1 - beta)))
            torch.testing.assert_close(ours.reverse(x, t)[1], expected, rtol=1e-4, atol=1e-7)
        assert float((expected / beta).log().std()) > 1e-3, "the premise: it is perturbed"


def test_where_beta_and_beta_tilde_are_one_number_the_variance_is_that_number() -> None:
    """At the end of a long chain 1 - abar no longer changes."""
    ours, x = model(std=0.3, timesteps=1000, schedule="linear", beta_end=0.067), Noise(0).normal("x", 3, SHAPE.chw)
    logs = [ours.process.log_variances(t) for t in range(1000)]
    assert logs[999][0] == logs[999][1], "the premise"
    for t in (0, 500, 900, 950, 998, 999):
        with torch.no_grad():
            _, variance = ours.reverse(x, t)
        assert bool(torch.isfinite(variance).all())
    torch.testing.assert_close(variance, torch.full_like(x, float(ours.process.betas[999])), rtol=1e-5, atol=0)
    with torch.no_grad():
        x_0 = ours.draw_x0(x, Draw("ddpm", 20, spacing="trailing"), Noise(0))
    assert bool(torch.isfinite(x_0).all())


def test_the_rates_of_another_schedule_are_refused() -> None:
    with pytest.raises(UserError, match=r"the erasing schedule takes neither, got 0\.001, 0\.02; leave them out"):
        model(beta_start=0.001)


def test_native_sampling_draws_from_these_kernels() -> None:
    ours = model(std=0.05)
    x_T, plain = Noise(4).normal("x_T", 2, SHAPE.chw), Noise(4).normals("steps", 2, SHAPE.chw, 12)
    x = x_T
    with torch.no_grad():
        for t in reversed(range(12)):
            move = ours.process.transition(t, t - 1)
            x_0, variance = ours.reverse(x, t)
            x = move.mean_x0 * x_0.clamp(-1, 1) + move.mean_xt * x
            if t > 0:
                x = x + variance.sqrt() * next(plain)
        torch.testing.assert_close(ours.draw_x0(x_T, Draw(), Noise(4)), x, rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_bound_at_its_timesteps() -> None:
    """T L_t in bits/dim by torch's divergence of Gaussians, the mean not clamped; L_0 by the discretised decoder."""
    ours, x, n = model(importance=False), images(24), 24
    losses = ours.loss(Batch(x), Context(0, 0.0, torch.Generator().manual_seed(3), torch.device("cpu")))
    same = Context(0, 0.0, torch.Generator().manual_seed(3), torch.device("cpu"))
    t = ((torch.arange(n) + same.uniform(n)) / n * 12).long()
    eps, x_0 = same.normal(n, *SHAPE.chw).double(), to_signed(x, 17).double()
    assert set(t.tolist()) == set(range(12)), "the premise: every timestep occurs"
    expected = []
    for i in range(n):
        at = int(t[i])
        x_t = ours.process.diffuse(x_0[i : i + 1], at, eps[i : i + 1])
        with torch.no_grad():
            guess, variance = (value.double() for value in ours.reverse(x_t.float(), at))
        if at == 0:
            expected.append(-discretised_gaussian(x[i : i + 1], guess, 0.5 * variance.log(), 17).sum())
            continue
        move = ours.process.transition(at, at - 1)
        q = Normal(move.mean_x0 * x_0[i] + move.mean_xt * x_t, math.sqrt(move.beta_tilde))
        p = Normal(move.mean_x0 * guess + move.mean_xt * x_t, variance.sqrt())
        expected.append(kl_divergence(q, p).sum())
    bits = 12 * torch.stack(expected).mean() / (16 * math.log(2))
    assert float(losses.total.detach()) == pytest.approx(float(bits), rel=1e-3)


def test_the_loss_teaches_mean_and_variance() -> None:
    ours = model(std=0.05)
    ours.loss(
        Batch(images(30)), Context(0, 0.0, torch.Generator().manual_seed(0), torch.device("cpu"))
    ).total.backward()  # type: ignore[no-untyped-call]
    gradient = ours.unet.get_submodule("head").weight.grad
    assert isinstance(gradient, Tensor)
    assert bool((gradient.flatten(1).abs().amax(1) > 1e-6).all())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match=r"dpm: expected 0 < beta_1 < 1, got 0"):
        model(beta_1=0.0)
    with pytest.raises(UserError, match=r"timesteps: expected at least 2, got 1"):
        model(timesteps=1)
