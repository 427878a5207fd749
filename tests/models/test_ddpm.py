"""What makes the ddpm model faithful: its loss, its bound, and DDIM as another way to draw from the same weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import to_signed
from baselines.diffusion.ddpm import Config, Ddpm
from baselines.errors import UserError
from baselines.types import ImageShape
from bench.measure.workload import capture_calls

SHAPE = ImageShape(1, 8, 8, 17)


def model(timesteps: int = 40) -> Ddpm:
    torch.manual_seed(0)
    made = Ddpm(SHAPE, Config(timesteps=timesteps, widths=(8, 8))).eval()
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
        def normals(self, purpose: str, n: int, shape: tuple[int, ...]):  # type: ignore[no-untyped-def]
            for value in super().normals(purpose, n, shape):
                seen.append(purpose)
                yield value

    ours.sample(2, Draw("ddim", 10, eta=0.0), Watched(0))
    assert seen == []
    ours.sample(2, Draw("ddim", 10, eta=1.0), Watched(0))
    assert len(seen) == 9, "every step but the last adds noise"


def test_the_loss_estimates_the_mean_over_all_timesteps() -> None:
    """Stratified timesteps leave L_simple unbiased: compared with the plain average over every t."""
    ours, x = model(), images(20)
    x_0 = to_signed(x, 17)
    with torch.no_grad():
        drawn = torch.stack([ours.loss(Batch(x), context(seed)).total for seed in range(400)])
        noise = Noise(5).normals("check", len(x), SHAPE.chw)
        every = []
        for t in range(40):
            for _ in range(10):
                eps = next(noise)
                every.append((ours.eps(ours.process.diffuse(x_0, t, eps), t) - eps).square().mean())
    plain = torch.stack(every)
    error = 4 * math.hypot(float(drawn.std()) / 400**0.5, float(plain.std()) / 400**0.5)
    assert error < 0.05 * float(plain.mean()), "the premise: both averages are sharp"
    assert float(drawn.mean()) == pytest.approx(float(plain.mean()), abs=error)


def test_the_bound_has_its_three_parts_and_a_perfect_last_step_costs_nothing() -> None:
    ours, x = model(), images(4)
    nats = ours.nats(x, "vlb", Noise(3))
    assert set(nats.parts) == {"L_T", "L_{t-1}", "L_0"}
    assert all(bool((part >= 0).all()) for part in nats.parts.values())
    x_0 = to_signed(x, 17)
    abar = (1 - ours.process.betas).prod().item()
    by_hand = 0.5 * (abar * x_0**2 + (1 - abar) - 1 - math.log(1 - abar)).flatten(1).sum(1)
    torch.testing.assert_close(nats.parts["L_T"], by_hand, rtol=1e-4, atol=1e-4)


def test_the_bound_bounds_a_known_entropy() -> None:
    """Of uniform random images no model's bound can lie below log(levels) a pixel."""
    nats = model(200).nats(images(50), "vlb", Noise(0)).total
    assert float(nats.mean()) > 64 * math.log(17)


def test_averaged_weights_are_what_samples_come_from() -> None:
    assert Ddpm.averaged == ("unet",)
    assert Ddpm.network == "unet"
