"""Flow matching: solvers against the exact flow of Gaussian data, and the loss against its closed-form minimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import to_signed
from baselines.diffusion.flow_matching import Config, FlowMatching
from baselines.diffusion.velocity import SOLVERS, Velocity
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE
from baselines.types import ImageShape
from bench.measure.workload import capture_calls

SHAPE = ImageShape(1, 8, 8, 17)
MEAN = torch.tensor([0.0, 0.7, -0.4, 0.1], dtype=torch.float64)
VARIANCE = torch.tensor([1.0, 0.3, 0.02, 2.5], dtype=torch.float64)


def gaussian_velocity(x: Tensor, t: float) -> Tensor:
    """E[eps - x_0 | x_t] of data N(MEAN, VARIANCE): x_t has mean (1 - t) mu and variance C = (1 - t)^2 lambda + t^2."""
    c = (1 - t) ** 2 * VARIANCE + t**2
    return -MEAN + (t - (1 - t) * VARIANCE) / c * (x - (1 - t) * MEAN)


def exact_flow(x_1: Tensor) -> Tensor:
    """Where the ODE takes x_1: (x_t - (1 - t) mu) / sqrt(C_t) is constant along it."""
    return MEAN + VARIANCE.sqrt() * x_1


def start(n: int = 50) -> Tensor:
    return Noise(1, dtype=torch.float64).normal("x_1", n, (4,))


def model(config: Config | None = None) -> FlowMatching:
    torch.manual_seed(0)
    made = FlowMatching(SHAPE, config or Config(widths=(8, 8))).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


def images(n: int) -> Tensor:
    return torch.randint(0, 17, (n, *SHAPE.chw), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def context(seed: int) -> Context:
    return Context(0, 0.0, torch.Generator().manual_seed(seed), torch.device("cpu"))


# The solvers


def order(name: str, velocity: Velocity, exact: Tensor) -> float:
    """The slope of log error over log S."""
    steps = [40, 80, 160, 320]
    errors = [float((SOLVERS[name].run(start(), velocity, s) - exact).abs().max()) for s in steps]
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


@pytest.mark.parametrize("name", SOLVERS)
def test_errors_fall_with_the_order_that_the_solver_claims(name: str) -> None:
    """dx/dt = cos(3t) x^2 has the solution 1/x_0 = 1/x_1 + sin(3)/3; Gaussian data have their own."""
    shrunk = torch.tanh(start()) / 2

    def curved(x: Tensor, t: float) -> Tensor:
        return math.cos(3 * t) * x**2

    errors = [
        float((SOLVERS[name].run(shrunk, curved, s) - 1 / (1 / shrunk + math.sin(3) / 3)).abs().max())
        for s in (400, 800)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(SOLVERS[name].order, abs=0.15)
    gaussian = order(name, gaussian_velocity, exact_flow(start()))
    if name == "midpoint":
        assert gaussian == pytest.approx(3, abs=0.15), "its second-order error cancels along a Gaussian flow"
    else:
        assert gaussian == pytest.approx(SOLVERS[name].order, abs=0.15)


def test_eulers_steps_are_the_product_of_their_gains() -> None:
    for steps in (1, 3, 10):
        error, deviation = torch.zeros_like(MEAN), torch.ones_like(MEAN)
        for i in range(steps, 0, -1):
            t = i / steps
            gain = 1 - (t - (1 - t) * VARIANCE) / ((1 - t) ** 2 * VARIANCE + t**2) / steps
            error, deviation = gain * error, gain * deviation
        torch.testing.assert_close(
            SOLVERS["euler"].run(start(), gaussian_velocity, steps), MEAN + error + deviation * start()
        )


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_straight_flow_takes_one_step(name: str, steps: int) -> None:
    """Every path keeps its velocity where noise and data are joined by a shift."""
    shift = torch.tensor([0.5, -0.2, 0.0, 1.0], dtype=torch.float64)
    x_0 = SOLVERS[name].run(start(), lambda x, t: shift.expand_as(x), steps)
    torch.testing.assert_close(x_0, start() - shift, rtol=1e-12, atol=1e-12)
    curved = SOLVERS[name].run(start(), gaussian_velocity, steps)
    assert not torch.allclose(curved, exact_flow(start()), atol=1e-4), "the premise: not every flow does"


def test_a_flow_to_one_point_is_straight_for_solvers_that_do_not_ask_at_the_data() -> None:
    def to_a_point(x: Tensor, t: float) -> Tensor:
        return (x - 0.3) / t

    for name in ("euler", "midpoint"):
        x_0 = SOLVERS[name].run(start(), to_a_point, 1)
        torch.testing.assert_close(x_0, torch.full_like(x_0, 0.3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_writes_to_nothing_that_it_is_given(name: str) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(x: Tensor, t: float) -> Tensor:
        seen.append((x, x.clone()))
        return x

    SOLVERS[name].run(start(), watched, 4)
    assert len(seen) == 4 * SOLVERS[name].evaluations
    assert all(torch.equal(now, then) for now, then in seen)


# The model


@pytest.mark.parametrize("sampler", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 10, None])
def test_executed_network_calls_are_steps_times_the_solvers_own(sampler: str, steps: int | None) -> None:
    ours = model()
    with capture_calls(ours) as calls:
        ours.sample(2, Draw(sampler, steps), Noise(0))
    assert calls.count == (steps or 10) * SOLVERS[sampler].evaluations


def test_native_is_the_midpoint_rule() -> None:
    ours = model()
    assert torch.equal(ours.sample(3, Draw(), Noise(0)), ours.sample(3, Draw("midpoint", 10), Noise(0)))
    assert torch.equal(ours.sample(3, Draw(steps=4), Noise(0)), ours.sample(3, Draw("midpoint", 4), Noise(0)))


def test_the_loss_is_the_square_error_of_the_velocity_of_straight_paths() -> None:
    ours, x, seen = model(), images(16), list[tuple[Tensor, Tensor]]()
    ours.unet.register_forward_pre_hook(lambda module, args: seen.append(args))
    loss = float(ours.loss(Batch(x), context(3)).total.detach())
    x_t, time = seen[0]
    t = (time / TIME_RANGE).view(-1, 1, 1, 1)
    x_0 = to_signed(x, 17)
    eps = (x_t - (1 - t) * x_0) / t
    assert abs(float(eps.mean())) < 0.15, "the premise: noise is recovered"
    assert float(eps.std()) == pytest.approx(1, abs=0.05)
    with torch.no_grad():
        by_hand = (ours.unet(x_t, time) - (eps - x_0)).square().mean()
    assert loss == pytest.approx(float(by_hand), rel=1e-3)


def test_an_all_zero_velocity_loses_what_the_data_say() -> None:
    """E |eps - x_0|^2 = 1 + E x_0^2 a pixel; the fresh network answers 0."""
    ours, x = FlowMatching(SHAPE, Config(widths=(8, 8))), images(64)
    with torch.no_grad():
        losses = torch.stack([ours.loss(Batch(x), context(seed)).total for seed in range(200)])
    wanted = 1 + float(to_signed(x, 17).square().mean())
    assert float(losses.mean()) == pytest.approx(wanted, abs=4 * float(losses.std()) / math.sqrt(200))


@pytest.mark.parametrize("times", ["uniform", "logit_normal"])
def test_times_are_stratified_and_follow_their_law(times: str) -> None:
    ours = model(Config(widths=(8, 8), times=times, times_mean=0.3, times_std=0.8))  # type: ignore[arg-type]
    law = stats.uniform if times == "uniform" else stats.norm
    drawn = [ours.draw_times(50, context(seed)) for seed in range(100)]
    for batch in drawn:
        assert bool(((batch >= 0) & (batch <= 1)).all())
        values = batch.double() if times == "uniform" else (torch.logit(batch.double()) - 0.3) / 0.8
        places = law.cdf(values.numpy())
        assert np.all(np.abs(places * 50 - (np.arange(50) + 0.5)) < 0.5 + 1e-2), "one in each of 50 parts"
    inside = np.concatenate([batch.numpy() for batch in drawn])
    values = inside if times == "uniform" else (np.log(inside / (1 - inside)) - 0.3) / 0.8
    assert stats.kstest(values, law.cdf).pvalue > 0.01


def test_what_it_cannot_draw_is_refused() -> None:
    refused = [
        (Draw("euler", 0), "steps: expected 1 to 1000, got 0"),
        (Draw("euler", 1001), "steps"),
        (Draw("ddim", 5), "no sampler 'ddim'"),
        (Draw("heun", 5, eta=0.5), "takes no eta"),
        (Draw("heun", 5, spacing="trailing"), "takes no spacing"),
        (Draw("heun", 5, options={"temperature": 2.0}), "has none, got temperature|takes no options"),
    ]
    for draw, message in refused:
        with pytest.raises(UserError, match=message):
            FlowMatching.check_draw(Config(), draw)
    with pytest.raises(UserError, match="times_std"):
        Config(times_std=0.0)
