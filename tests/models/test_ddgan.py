"""Denoising diffusion GAN: chain and posterior in closed form, what D sees, whom each loss moves, and its T calls."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import from_signed, to_signed
from baselines.diffusion.ddgan import Config, Ddgan, spread_of_batch, vp_betas
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE
from baselines.types import ImageShape
from bench.measure.workload import capture_calls

SHAPE = ImageShape(1, 8, 8, 17)
SMALL = {"widths": (8, 8), "discriminator_width": 8, "latent": 4, "beta_max": 20.0}  # beta_max as in the paper


def model(**changes: object) -> Ddgan:
    torch.manual_seed(0)
    made = Ddgan(SHAPE, Config(**{**SMALL, **changes})).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():  # the zero-initialised layers too, so that nothing is trivially 0
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


def context(seed: int = 0, step: int = 1) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(seed), torch.device("cpu"))


def images(n: int) -> Tensor:
    return torch.randint(0, 17, (n, *SHAPE.chw), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


# The chain


@pytest.mark.parametrize("timesteps", [1, 2, 4, 8])
def test_the_betas_are_the_integral_of_the_diffusions_rate_over_each_step(timesteps: int) -> None:
    for t, beta in enumerate(vp_betas(timesteps, 0.1, 20.0).tolist()):
        rate, _ = integrate.quad(lambda s: 0.1 + s * 19.9, t / timesteps, (t + 1) / timesteps)
        assert beta == pytest.approx(1 - math.exp(-rate), rel=1e-9)


@pytest.mark.parametrize("timesteps", [1, 4])
def test_pairs_have_the_moments_of_the_forward_chain(timesteps: int) -> None:
    """Of one grey image: x_{t-1} ~ N(sqrt(a) x_0, 1 - a) and x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) e."""
    ours = model(timesteps=timesteps)
    grey = torch.full((400, *SHAPE.chw), 12, dtype=torch.uint8)
    before, x_t, t = ours.pair(Batch(grey), context())
    beta = vp_betas(timesteps, 0.1, 20.0)
    abar = torch.cat([torch.ones(1), (1 - beta).cumprod(0)])
    assert t.bincount(minlength=timesteps).tolist() == [400 // timesteps] * timesteps
    for i in range(timesteps):
        earlier, later = (x[t == i].double().flatten() for x in (before, x_t))
        n = len(earlier)
        signal, noise = float(abar[i].sqrt()), float(1 - abar[i])
        assert float(earlier.mean()) == pytest.approx(0.5 * signal, abs=4 * math.sqrt(noise / n) + 1e-6)
        assert float(earlier.var()) == pytest.approx(noise, rel=4 * math.sqrt(2 / n), abs=1e-9)
        rest = later - math.sqrt(1 - beta[i]) * earlier
        assert float(rest.mean()) == pytest.approx(0, abs=4 * math.sqrt(float(beta[i]) / n))
        assert float(rest.var()) == pytest.approx(float(beta[i]), rel=4 * math.sqrt(2 / n))


@pytest.mark.parametrize("timesteps", [1, 2, 4, 8])
def test_the_posterior_is_bayes_rule(timesteps: int) -> None:
    """q(x_{t-1} | x_t, x_0) by precisions: 1 / (1 - a) of the prior, (1 - beta) / beta of the step."""
    ours = model(timesteps=timesteps)
    beta = vp_betas(timesteps, 0.1, 20.0)
    abar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])
    x_0, x_t, noise = (Noise(k).normal("x", 3, SHAPE.chw) for k in (1, 2, 3))
    for t in range(timesteps):
        drawn = ours.posterior(x_0, x_t, torch.full((3,), t), noise)
        if t == 0:
            torch.testing.assert_close(drawn, x_0, rtol=0, atol=1e-6)
            continue
        prior, step = 1 / (1 - abar[t]), (1 - beta[t]) / beta[t]
        variance = 1 / (prior + step)
        mean = variance * (prior * abar[t].sqrt() * x_0 + step * x_t / (1 - beta[t]).sqrt())
        torch.testing.assert_close(drawn, (mean + variance.sqrt() * noise).float(), rtol=1e-4, atol=1e-5)


def test_with_the_true_image_a_denoised_pair_is_a_forward_pair() -> None:
    """G that knows x_0: the generated x_{t-1} has the chain's own moments beside x_t."""
    ours = model()
    grey = torch.full((4000, *SHAPE.chw), 12, dtype=torch.uint8)
    before, x_t, t = ours.pair(Batch(grey), context())
    drawn = ours.posterior(to_signed(grey, 17), x_t, t, Noise(4).normal("x", len(grey), SHAPE.chw))
    for i in range(1, 4):
        one, other, later = (x[t == i].flatten() for x in (before, drawn, x_t))
        assert float(other.mean()) == pytest.approx(float(one.mean()), abs=0.02)
        assert float(other.std()) == pytest.approx(float(one.std()), abs=0.02)
        joint = [float(torch.corrcoef(torch.stack([x, later]))[0, 1]) for x in (one, other)]
        assert joint[0] == pytest.approx(joint[1], abs=0.02)


# What the discriminator sees


def test_the_discriminator_sees_the_pair_and_the_time() -> None:
    ours, seen = model(), list[tuple[Tensor, ...]]()
    ours.discriminator.register_forward_pre_hook(lambda module, args: seen.append(args))
    ours.discriminator_loss(Batch(images(8)), context(5))
    (real, real_x_t, real_t), (fake, fake_x_t, fake_t) = seen
    before, x_t, t = ours.pair(Batch(images(8)), context(5))
    assert torch.equal(real_x_t, x_t)
    assert torch.equal(fake_x_t, x_t), "both of one x_t"
    assert torch.equal(real_t, t)
    assert torch.equal(fake_t, t)
    data = t == 0
    assert torch.equal(real[~data], before[~data])
    assert 0 < float((real - before)[data].abs().max()) <= 1 / 16 + 1e-6, "half a level where x_{t-1} is data"
    assert not torch.allclose(fake, real, atol=0.1)
    with torch.no_grad():
        logits = ours.discriminator(before, x_t, t)
        for other in ((before.flip(0), x_t, t), (before, x_t.flip(0), t), (before, x_t, (t + 1) % 4)):
            assert not torch.allclose(ours.discriminator(*other), logits, atol=1e-3)


@pytest.mark.parametrize("turn", ["discriminator", "generator"])
def test_images_at_the_data_are_blurred_by_half_a_level_either_way(turn: str) -> None:
    """What D is shown less what was drawn: uniform over a level's width, two thirds of the way to it in the mean."""
    ours, drawn, seen = model(), list[Tensor](), list[tuple[Tensor, ...]]()
    denoise = ours.denoise
    ours.denoise = lambda *args: drawn.append(denoise(*args)) or drawn[-1]  # type: ignore[method-assign,func-returns-value]
    ours.discriminator.register_forward_pre_hook(lambda module, args: seen.append(args))
    if turn == "discriminator":
        ours.discriminator_loss(Batch(images(80)), context(5))
        plain = [ours.pair(Batch(images(80)), context(5))[0], *drawn]
    else:
        ours.generator_loss(Batch(images(80)), context(5))
        plain = drawn
    assert len(seen) == len(plain)
    for (shown, _, t), before in zip(seen, plain, strict=True):
        assert torch.equal(shown[t > 0], before[t > 0])
        moved = (16 * (shown - before))[t == 0].detach()
        assert 0.99 < float(moved.max()) <= 1 + 1e-4, "in units of half a level"
        assert -1 - 1e-4 <= float(moved.min()) < -0.99
        assert float(moved.std()) == pytest.approx(1 / math.sqrt(3), rel=0.05)


def test_the_losses_are_the_non_saturating_games() -> None:
    ours, logits = model(r1=0.0), list[Tensor]()
    ours.discriminator.register_forward_hook(lambda module, args, out: logits.append(out))
    d = ours.discriminator_loss(Batch(images(8)), context(5)).total
    g = ours.generator_loss(Batch(images(8)), context(5)).total
    real, fake, seen_by_g = (torch.sigmoid(out.double()) for out in logits)
    assert float(d.detach()) == pytest.approx(float(-(real.log().mean() + (1 - fake).log().mean()).detach()), rel=1e-5)
    assert float(g.detach()) == pytest.approx(float(-seen_by_g.log().mean().detach()), rel=1e-5)


class Linear(nn.Module):
    """A discriminator whose slope is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SHAPE.chw))

    def forward(self, before: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return (before * self.weight).flatten(1).sum(1) + 5 * x_t.flatten(1).sum(1)


def test_the_penalty_is_the_slope_in_the_earlier_image_every_so_often() -> None:
    ours = model(r1=0.3, r1_every=4)
    ours.discriminator = Linear()  # type: ignore[assignment]
    for step in range(9):
        losses = ours.discriminator_loss(Batch(images(8)), context(5, step))
        plain = float((losses.parts["real"] + losses.parts["fake"]).detach())
        if step % 4:
            assert "r1" not in losses.parts
            assert float(losses.total.detach()) == pytest.approx(plain)
            continue
        wanted = 0.3 / 2 * float(ours.discriminator.weight.detach().square().sum())
        assert float(losses.parts["r1"].detach()) == pytest.approx(wanted, rel=1e-5)
        assert float(losses.total.detach()) == pytest.approx(plain + 4 * wanted, rel=1e-5)


def test_gradients_reach_all_of_the_network_whose_turn_it_is() -> None:
    ours = model()
    ours.generator_loss(Batch(images(8)), context()).total.backward()
    for name, parameter in ours.generator.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    ours.zero_grad(set_to_none=True)
    ours.discriminator_loss(Batch(images(8)), context(0, 0)).total.backward()
    assert all(parameter.grad is None for parameter in ours.generator.parameters())
    for name, parameter in ours.discriminator.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    assert [phase.modules for phase in ours.phases()] == [("discriminator",), ("generator",)]


def test_a_batch_of_copies_has_no_spread() -> None:
    h = Noise(1).normal("h", 1, (3, 2, 2)).expand(6, 3, 2, 2)
    assert float(spread_of_batch(h).max()) < 1e-3
    varied = Noise(1).normal("h", 500, (3, 2, 2))
    torch.testing.assert_close(spread_of_batch(2 * varied), torch.full((500, 1, 2, 2), 2.0), rtol=0.05, atol=0)
    pair = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    torch.testing.assert_close(spread_of_batch(pair), torch.ones(2, 1, 2, 2))  # the batch is all there is


# Draws


@pytest.mark.parametrize("timesteps", [1, 2, 4, 8])
def test_the_generator_is_called_once_a_step(timesteps: int) -> None:
    ours = model(timesteps=timesteps)
    with capture_calls(ours) as calls:
        ours.sample(3, Draw(), Noise(0))
    assert calls.count == timesteps


def test_a_draw_is_the_chain_of_posteriors_of_the_generators_answers_at_the_times_of_training() -> None:
    ours, asked = model(), list[Tensor]()
    handle = ours.generator.register_forward_pre_hook(lambda module, args: asked.append(args[1]))
    drawn = ours.sample(3, Draw(), Noise(5))
    in_draws = [float(time) for time in asked]
    assert in_draws == [TIME_RANGE * t / 4 for t in (3, 2, 1, 0)]
    asked.clear()
    ours.generator_loss(Batch(images(8)), context())
    assert sorted({float(time) for time in asked[0]}, reverse=True) == in_draws
    handle.remove()
    x, z, steps = Noise(5).normal("x_T", 3, SHAPE.chw), Noise(5).normals("z", 3, (4,), 4), Noise(5)
    with torch.no_grad():
        for t, noise in zip((3, 2, 1, 0), steps.normals("steps", 3, SHAPE.chw, 4), strict=False):
            x_0 = ours.generator(x, torch.full((3,), TIME_RANGE * t / 4), next(z))
            x = ours.posterior(x_0, x, torch.full((3,), t), noise)
    assert int((drawn.int() - from_signed(x, 17).int()).abs().max()) <= 1


def test_one_step_is_a_plain_conditional_gan() -> None:
    """At T = 1 what D sees and what is drawn is G's own answer; x_1 tells next to nothing of x_0."""
    ours, seen = model(timesteps=1), list[tuple[Tensor, ...]]()
    assert ours.process.signal(0) < 0.01
    ours.generator.register_forward_hook(lambda module, args, out: seen.append((*args, out)))
    ours.discriminator.register_forward_pre_hook(lambda module, args: seen.append(args))
    loss = ours.generator_loss(Batch(images(8)), context()).total
    (_, _, _, generated), (shown, x_t, t) = seen
    assert float((shown - generated).abs().max().detach()) <= 1 / 16 + 1e-6
    with torch.no_grad():
        assert float(loss) == pytest.approx(float(F.softplus(-ours.discriminator(shown, x_t, t)).mean()), rel=1e-6)
    noise = Noise(3)
    drawn = ours.sample(5, Draw(), noise)
    z = next(noise.normals("z", 5, (4,), 1))
    with torch.no_grad():
        by_hand = ours.generator(noise.normal("x_T", 5, SHAPE.chw), torch.zeros(1), z)
    assert torch.equal(drawn, ((by_hand + 1) * 8).round().to(torch.uint8))


def test_z_matters_as_the_noise_does() -> None:
    ours = model()
    x = Noise(1).normal("x", 4, SHAPE.chw)
    time = torch.tensor([250.0])
    with torch.no_grad():
        one, other = (ours.generator(x, time, Noise(k).normal("z", 4, (4,))) for k in (1, 2))
        alone = ours.generator(x[:1], time, Noise(1).normal("z", 1, (4,)))
        each = ours.generator(x, time.expand(4), Noise(1).normal("z", 4, (4,)))
    assert not torch.allclose(one, other, atol=1e-2)
    torch.testing.assert_close(alone, one[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(each, one, rtol=1e-4, atol=1e-5)


def test_bad_choices_are_refused() -> None:
    for draw, message in ((Draw("ddim", 4), "no sampler 'ddim'"), (Draw(steps=2), "takes no steps")):
        with pytest.raises(UserError, match=message):
            Ddgan.check_draw(Config(), draw)
    for changes, message in (
        ({"timesteps": 0}, r"ddgan\.timesteps: expected 1 to 100"),
        ({"beta_min": 0.0}, "beta_min"),
        ({"latent": 0}, r"ddgan\.latent"),
        ({"widths": ()}, r"ddgan\.widths"),
        ({"r1": -1.0}, r"ddgan\.r1"),
    ):
        with pytest.raises(UserError, match=message):
            Config(**changes)  # type: ignore[arg-type]
