"""What makes the ddpm model faithful: its loss, its bound, and DDIM as another way to draw from the same weights."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import discretised_gaussian, to_signed
from baselines.diffusion.ddpm import Config, Ddpm
from baselines.errors import UserError
from baselines.types import ImageShape
from bench.measure.workload import capture_calls

SHAPE = ImageShape(1, 8, 8, 17)


def model(timesteps: int = 40, bound_variance: Literal["beta", "beta_tilde"] = "beta") -> Ddpm:
    torch.manual_seed(0)
    made = Ddpm(SHAPE, Config(timesteps=timesteps, widths=(8, 8), bound_variance=bound_variance)).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # the zero-initialised layers too, so that nothing is trivially 0
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


def images(n: int) -> Tensor:
    return torch.randint(0, 17, (n, *SHAPE.chw), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def context(seed: int) -> Context:
    return Context(0, 0.0, torch.Generator().manual_seed(seed), torch.device("cpu"))


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 1), ("ddim", 7), ("ddim", 40), ("ddpm", 30), ("native", None)])
def test_executed_network_calls_are_the_steps_asked_for(sampler: str, steps: int | None) -> None:
    ours = model()
    with capture_calls(ours) as calls:
        ours.sample(2, Draw(sampler, steps), Noise(0))
    assert calls.count == (steps or 40)


def test_more_steps_than_the_chain_has_are_refused() -> None:
    for steps in (0, 41):
        with pytest.raises(UserError, match="steps"):
            model().sample(1, Draw("ddim", steps), Noise(0))


def test_ddim_with_eta_zero_is_a_function_of_x_t_alone() -> None:
    ours, seen = model(), []

    class Watched(Noise):
        def normals(self, purpose: str, n: int, shape: tuple[int, ...], steps: int):  # type: ignore[no-untyped-def]
            for value in super().normals(purpose, n, shape, steps):
                seen.append(purpose)
                yield value

    ours.sample(2, Draw("ddim", 10, eta=0.0), Watched(0))
    assert seen == []
    ours.sample(2, Draw("ddim", 10, eta=1.0), Watched(0))
    assert len(seen) == 9, "every step but the last adds noise"


def test_the_start_and_the_steps_of_a_draw_have_noise_of_their_own() -> None:
    asked: list[str] = []

    class Watched(Noise):
        def normal(self, purpose: str, n: int, shape: tuple[int, ...]) -> Tensor:
            asked.append(purpose)
            return super().normal(purpose, n, shape)

        def normals(self, purpose: str, n: int, shape: tuple[int, ...], steps: int):  # type: ignore[no-untyped-def]
            asked.append(purpose)
            return super().normals(purpose, n, shape, steps)

    model().sample(2, Draw(), Watched(0))
    assert len(asked) == len(set(asked)) == 2


def test_the_loss_estimates_the_mean_over_all_timesteps() -> None:
    """Stratified timesteps leave L_simple unbiased: compared with the plain average over every t."""
    ours, x = model(), images(20)
    x_0 = to_signed(x, 17)
    with torch.no_grad():
        drawn = torch.stack([ours.loss(Batch(x), context(seed)).total for seed in range(400)])
        noise = Noise(5).normals("check", len(x), SHAPE.chw, 400)
        every = []
        for t in range(40):
            for _ in range(10):
                eps = next(noise)
                every.append((ours.answer(ours.process.diffuse(x_0, t, eps), t) - eps).square().mean())
    plain = torch.stack(every)
    error = 4 * math.hypot(float(drawn.std()) / 400**0.5, float(plain.std()) / 400**0.5)
    assert error < 0.05 * float(plain.mean()), "the premise: both averages are sharp"
    assert float(drawn.mean()) == pytest.approx(float(plain.mean()), abs=error)


def test_times_between_timesteps_are_the_networks_own_whatever_was_asked_before() -> None:
    ours, x = model(), Noise(0).normal("x", 2, SHAPE.chw)
    with torch.no_grad():
        for t in (3.0, 10 / 3, 2.6, 3.0):
            for dtype in (torch.float32, torch.float64):
                by_hand = ours.to(dtype).unet(x.to(dtype), torch.tensor([1000 * t / 40], dtype=dtype))
                assert torch.equal(ours.answer(x.to(dtype), t), by_hand)


def test_the_bound_has_its_three_parts_and_a_perfect_last_step_costs_nothing() -> None:
    ours, x = model(), images(4)
    nats = ours.nats(x, "vlb", Noise(3))
    assert set(nats.parts) == {"L_T", "L_{t-1}", "L_0"}
    assert all(bool((part >= 0).all()) for part in nats.parts.values())
    x_0 = to_signed(x, 17)
    abar = (1 - ours.process.betas).prod().item()
    by_hand = 0.5 * (abar * x_0**2 + (1 - abar) - 1 - math.log(1 - abar)).flatten(1).sum(1)
    torch.testing.assert_close(nats.parts["L_T"], by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_the_bound_is_its_definition_by_other_libraries(variance: Literal["beta", "beta_tilde"]) -> None:
    """L_{t-1} by torch's divergence of Gaussians with Ho et al.'s means (eqs. 7, 10), L_0 by scipy's cdf (eq. 13)."""
    ours, x = model(12, variance), images(3)
    nats, draws = ours.nats(x, "vlb", Noise(3)), Noise(3).normals("vlb", 3, SHAPE.chw, 12)
    beta = ours.process.betas
    abar = (1 - beta).cumprod(0)
    tilde = beta[1:] * (1 - abar[:-1]) / (1 - abar[1:])
    x_0, middle = to_signed(x, 17).double(), torch.zeros(3, dtype=torch.float64)
    for t in range(12):
        x_t = abar[t].sqrt() * x_0 + (1 - abar[t]).sqrt() * next(draws)
        with torch.no_grad():
            eps = ours.answer(x_t.float(), t).double()
        guess = ((x_t - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()).clamp(-1, 1)
        if t == 0:
            std = float((beta[0] if variance == "beta" else tilde[0]).sqrt())  # t = 0 has no beta_tilde of its own
            edges = np.concatenate([[-np.inf], (np.arange(1, 17) - 0.5) / 8 - 1, [np.inf]])
            levels, at = x.long().numpy(), stats.norm(guess.numpy(), std)
            chance = at.cdf(edges[levels + 1]) - at.cdf(edges[levels])
            sharp = torch.from_numpy(chance > 1e-30)
            assert float(sharp.double().mean()) > 0.1, "the premise: a difference of cdfs can be taken of many pixels"
            log_std = torch.tensor(math.log(std), dtype=torch.float64)
            pixels = discretised_gaussian(x, guess, log_std, 17)
            torch.testing.assert_close(pixels[sharp], torch.from_numpy(np.log(chance))[sharp], rtol=1e-6, atol=1e-9)
            last = -pixels.flatten(1).sum(1)
        else:
            of_0 = abar[t - 1].sqrt() * beta[t] / (1 - abar[t])
            of_t = (1 - beta[t]).sqrt() * (1 - abar[t - 1]) / (1 - abar[t])
            q = Normal(of_0 * x_0 + of_t * x_t, tilde[t - 1].sqrt())
            p = Normal(of_0 * guess + of_t * x_t, (beta[t] if variance == "beta" else tilde[t - 1]).sqrt())
            middle += kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(nats.parts["L_{t-1}"].double(), middle, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(nats.parts["L_0"].double(), last, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(nats.total, sum(nats.parts.values()), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("chw", [(1, 8, 8), (1, 3, 3), (3, 5, 7)])
def test_a_time_that_all_images_share_gives_what_a_time_each_gives(chw: tuple[int, int, int]) -> None:
    """Sampling folds the shared time into the normalisations; training does not. Odd sizes keep their size."""
    made = Ddpm(ImageShape(*chw, levels=17), Config(widths=(8, 8, 16), attention=True)).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    x = Noise(0).normal("x", 5, chw)
    with torch.no_grad():
        shared, each = made.unet(x, torch.tensor([300.0])), made.unet(x, torch.full((5,), 300.0))
        other = made.unet(x, torch.tensor([700.0]))
    assert shared.shape == x.shape
    torch.testing.assert_close(shared, each, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(shared, other, atol=0.1), "the premise: the time matters"


def test_the_bound_bounds_a_known_entropy() -> None:
    """Of uniform random images no model's bound can lie below log(levels) a pixel."""
    nats = model(200).nats(images(50), "vlb", Noise(0)).total
    assert float(nats.mean()) > 64 * math.log(17)


def test_averaged_weights_are_what_samples_come_from() -> None:
    assert Ddpm.averaged == ("unet",)
    assert Ddpm.network == "unet"
