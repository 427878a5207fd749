"""What makes improved_ddpm faithful: the learned variance, L_hybrid with its stopped gradient, importance sampling."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from baselines import registry, trainer
from baselines.config import build_config
from baselines.contract import Batch, Context, Draw, Noise, Trains
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import image_nats, to_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_diffusion import GaussianDiffusion
from baselines.diffusion.improved_ddpm import Config, ImprovedDdpm
from baselines.diffusion.process import make_process, subsequence
from baselines.diffusion.samplers import DDPM
from baselines.diffusion.timesteps import LossHistory, draw_timesteps
from baselines.diffusion.variational import ChainTables, Kernel
from baselines.errors import UserError
from baselines.nets.unet import UNet
from baselines.types import Budget, ImageShape

SHAPE = ImageShape(1, 4, 4, 17)
PROCESS = make_process("linear", 50, 1e-4, 0.02)


def model(**config: Any) -> ImprovedDdpm:
    torch.manual_seed(0)
    made = ImprovedDdpm(SHAPE, build_config(Config, {"timesteps": 12, "widths": [4, 4], **config}, "improved_ddpm"))
    with torch.no_grad():
        for parameter in made.parameters():  # the zero-initialised layers too, so that nothing is trivially 0
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made.eval()


def images(n: int, shape: ImageShape = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, shape.levels, (n, *shape.chw), generator=generator, dtype=torch.uint8)


def context(seed: int) -> Context:
    return Context(0, 0.0, torch.Generator().manual_seed(seed), torch.device("cpu"))


# The learned variance


def network(x: Tensor, t: float) -> Tensor:
    """A nonlinear stand-in that answers eps and v, v beyond [-1, 1] too, as the paper leaves it free."""
    return torch.cat([torch.sin(3 * x + 0.1 * t), 1.5 * torch.cos(x - t)], 1)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 17, 50])
def test_the_ancestral_sampler_draws_with_equation_15_of_the_shorter_chain(steps: int, clip: bool) -> None:
    noise = [Noise(1, dtype=torch.float64).fork(i).normal("z", 3, (2, 2, 2)) for i in range(steps + 1)]
    draw = Draw("ddpm", steps, clip=clip)
    ours = DDPM.run(noise[0], Denoiser(network, PROCESS, learned_variance=True), draw, iter(noise[1:]))
    chosen = subsequence(steps, 50, "uniform")
    abar = (1 - PROCESS.betas).cumprod(0)[chosen]
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    beta = 1 - abar / before
    tilde = beta * (1 - before) / (1 - abar)
    tilde[0] = tilde[1] if steps > 1 else beta[0]
    x = noise[0]
    for i in reversed(range(steps)):
        eps, v = network(x, chosen[i]).chunk(2, 1)
        x_0 = (x - (1 - abar[i]).sqrt() * eps) / abar[i].sqrt()
        x_0 = x_0.clamp(-1, 1) if clip else x_0
        mean = before[i].sqrt() * beta[i] / (1 - abar[i]) * x_0
        mean = mean + (1 - beta[i]).sqrt() * (1 - before[i]) / (1 - abar[i]) * x
        share = (v + 1) / 2
        sigma = torch.exp(0.5 * (share * beta[i].log() + (1 - share) * tilde[i].log()))
        x = mean + (sigma * noise[steps - i] if i > 0 else 0)
    torch.testing.assert_close(ours, x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("v", "variance"), [(-1.0, "beta_tilde"), (1.0, "beta")])
def test_at_the_ends_of_its_range_it_is_a_fixed_variance(v: float, variance: str) -> None:
    def ends(x: Tensor, t: float) -> Tensor:
        return torch.cat([torch.sin(x + t), torch.full_like(x, v)], 1)

    def run(draw: Draw) -> Tensor:
        noises = Noise(0, dtype=torch.float64).normals("steps", 3, (1, 2, 2), 20)
        x = Noise(0, dtype=torch.float64).normal("x_T", 3, (1, 2, 2))
        return DDPM.run(x, Denoiser(ends, PROCESS, learned_variance=True), draw, noises)

    torch.testing.assert_close(run(Draw("ddpm", 20)), run(Draw("ddpm", 20, variance=variance)))


def test_a_network_with_more_answers_leaves_its_input_to_the_first() -> None:
    net = UNet(3, 6, (4, 4))
    torch.nn.init.ones_(net.gain.bias)
    x = torch.randn(2, 3, 5, 5)
    out = net(x, torch.tensor([3.0]))
    torch.testing.assert_close(out, torch.cat([x, torch.zeros_like(x)], 1))


@pytest.mark.parametrize("variance", ["learned", "beta", "beta_tilde"])
def test_the_bound_is_its_definition_by_other_libraries(variance: str) -> None:
    """L_{t-1} by torch's divergence of Gaussians, L_0 by scipy's cdf, the variance by eq. 15."""
    ours, x = model(bound_variance=variance), images(3)
    nats, draws = ours.nats(x, "vlb", Noise(3)), Noise(3).normals("vlb", 3, SHAPE.chw, 12)
    beta = ours.process.betas
    abar = (1 - beta).cumprod(0)
    tilde = torch.cat([beta[1:2] * (1 - abar[:1]) / (1 - abar[1:2]), beta[1:] * (1 - abar[:-1]) / (1 - abar[1:])])
    x_0, terms = to_signed(x, 17).double(), []
    for t in range(12):
        x_t = abar[t].sqrt() * x_0 + (1 - abar[t]).sqrt() * next(draws)
        with torch.no_grad():
            eps, v = ours.answer(x_t.float(), t).double().chunk(2, 1)
        share = {"learned": (v + 1) / 2, "beta": torch.ones_like(v), "beta_tilde": torch.zeros_like(v)}[variance]
        std = torch.exp(0.5 * (share * beta[t].log() + (1 - share) * tilde[t].log()))
        guess = ((x_t - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()).clamp(-1, 1)
        if t == 0:
            edges = np.concatenate([[-np.inf], (np.arange(1, 17) - 0.5) / 8 - 1, [np.inf]])
            levels, at = x.long().numpy(), stats.norm(guess.numpy(), std.numpy())
            flip = (to_signed(x, 17).double() > guess).numpy()  # in its own tail a difference of cdfs keeps its digits
            chance = np.where(
                flip, at.sf(edges[levels]) - at.sf(edges[levels + 1]), at.cdf(edges[levels + 1]) - at.cdf(edges[levels])
            )
            sharp = chance.min() > 0
            assert sharp, "the premise: no pixel's chance underflows"
            terms.append(torch.from_numpy(-np.log(chance)).flatten(1).sum(1))
        else:
            of_0 = abar[t - 1].sqrt() * beta[t] / (1 - abar[t])
            of_t = (1 - beta[t]).sqrt() * (1 - abar[t - 1]) / (1 - abar[t])
            q, p = Normal(of_0 * x_0 + of_t * x_t, tilde[t].sqrt()), Normal(of_0 * guess + of_t * x_t, std)
            terms.append(kl_divergence(q, p).flatten(1).sum(1))
    torch.testing.assert_close(nats.curves["L_t"].double(), torch.stack(terms, 1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(nats.total, sum(nats.parts.values()), rtol=1e-5, atol=1e-3)


# Training


@pytest.mark.parametrize("t", [0, 1, 7, 49])
def test_the_terms_in_training_are_those_of_the_process(t: int) -> None:
    tables, shape = ChainTables(PROCESS, "eps"), ImageShape(1, 4, 4, 17)
    x, generator = images(5), torch.Generator().manual_seed(t)
    x_0 = to_signed(x, 17)
    x_0_hat = x_0 + 0.03 * torch.randn(x_0.shape, generator=generator)
    small, large = PROCESS.log_variances(t)
    ratio = (large - small) * torch.rand(x_0.shape, generator=generator)
    ours = tables.nats(x, x_0, Kernel(x_0_hat, ratio), torch.full((5,), t), shape.levels)
    variance = torch.exp(ratio.double() + small)
    if t > 0:
        expected = PROCESS.transition_nats(x_0.double(), x_0_hat.double(), t, variance)
    else:
        at = Normal(x_0_hat.double(), variance.sqrt())
        upper = torch.where(x == 16, torch.inf, x_0.double() + 1 / 16)
        lower = torch.where(x == 0, -torch.inf, x_0.double() - 1 / 16)
        expected = -(at.cdf(upper) - at.cdf(lower)).log().flatten(1).sum(1)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-5)


def test_the_bound_teaches_the_variance_alone() -> None:
    """Stop-gradient: the predicted eps learns from L_simple whatever lambda is, v from lambda L_vlb (sec. 3.1)."""

    def gradients(weight: float) -> tuple[Tensor, Tensor]:
        ours = model(vlb_weight=weight)
        ours.loss(Batch(images(30)), context(0)).total.backward()  # type: ignore[no-untyped-call]
        assert isinstance(ours.unet, UNet)
        gradient = ours.unet.head.weight.grad
        assert gradient is not None
        return gradient[0], gradient[1]

    (mean, variance), (mean_10, variance_10) = gradients(0.001), gradients(0.01)
    torch.testing.assert_close(mean, mean_10)
    torch.testing.assert_close(10 * variance, variance_10)
    assert float(variance.abs().max()) > 0


@pytest.mark.parametrize("importance", [False, True])
def test_the_loss_estimates_the_bound_that_is_measured(importance: bool) -> None:
    ours, x = model(importance=importance), images(40)
    if importance:
        assert ours.history is not None
        ours.history.counts.fill_(10)
        ours.history.losses.copy_(torch.rand(12, 10, generator=torch.Generator().manual_seed(0)) + 0.05)
        ours.history.note = lambda t, losses: None  # type: ignore[method-assign]
    with torch.no_grad():
        drawn = torch.stack([ours.loss(Batch(x), context(seed)).parts["vlb"] for seed in range(600)])
        bound = [ours.nats(x, "vlb", Noise(seed)).curves["L_t"].sum(1).mean() for seed in range(60)]
    every = torch.stack(bound) / (math.log(2) * SHAPE.dims)
    error = 4 * math.hypot(float(drawn.std()) / 600**0.5, float(every.std()) / 60**0.5)
    assert error < 0.05 * float(every.mean()), "the premise: both averages are sharp"
    assert float(drawn.mean()) == pytest.approx(float(every.mean()), abs=error)


@pytest.mark.parametrize("objective", ["hybrid", "vlb"])
def test_training_lowers_the_bound(objective: str, tmp_path: Path) -> None:
    x = images(64)[:, :, :1, :1].expand(64, *SHAPE.chw).contiguous()  # of one level each: there is something to learn
    dataset = Dataset("toy", SHAPE, Split(x[:48]), Split(x[48:56]), Split(x[56:]), "here", "none")
    config = Config(timesteps=12, widths=(8, 8), schedule="linear", prediction="v", objective=objective)  # type: ignore[arg-type]
    ours = trainer.build(registry.load("improved_ddpm").model, SHAPE, config, 0)
    before = image_nats(ours, dataset.test.images, "vlb", Noise(0)).total.mean()
    trainer.Trainer(ours, dataset, 0, Budget(images=32 * 200), tmp_path).run()
    assert float(image_nats(ours, dataset.test.images, "vlb", Noise(0)).total.mean()) < 0.8 * float(before)


# Importance sampling


def test_timesteps_are_drawn_by_the_root_mean_square_of_their_losses() -> None:
    history = LossHistory(5)
    t = torch.arange(5).repeat_interleave(9)
    history.note(t, torch.rand(45))
    torch.testing.assert_close(history.probabilities(), torch.full((5,), 0.2, dtype=torch.float64))
    history.note(torch.arange(4), torch.rand(4))
    torch.testing.assert_close(history.probabilities(), torch.full((5,), 0.2, dtype=torch.float64))  # one has nine
    losses = torch.rand(5, 10, generator=torch.Generator().manual_seed(0))
    for column in losses.T:
        history.note(torch.arange(5), column)
    moments = losses.double().square().mean(1).sqrt()
    expected = 0.999 * moments / moments.sum() + 0.001 / 5
    torch.testing.assert_close(history.probabilities(), expected)
    counted, total = torch.zeros(5), torch.zeros(5)
    for seed in range(1000):
        drawn, weights = draw_timesteps(16, 5, context(seed), history)
        assert torch.equal(drawn, drawn.sort().values)
        counted += torch.bincount(drawn, minlength=5)
        total.index_add_(0, drawn, weights)
    torch.testing.assert_close(counted.double() / 16_000, expected, rtol=0.05, atol=0)
    (
        torch.testing.assert_close(total / 16_000, torch.full((5,), 0.2), rtol=0.05, atol=0),
        "so a weighted mean is unbiased",
    )


def test_the_history_keeps_the_latest_losses_of_each_timestep() -> None:
    history, kept = LossHistory(3), {t: [] for t in range(3)}  # type: dict[int, list[float]]
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        t = torch.randint(0, 3, (14,), generator=generator).sort().values
        losses = torch.rand(14, generator=generator)
        history.note(t, losses)
        for at, loss in zip(t.tolist(), losses.tolist(), strict=True):
            kept[at].append(loss)
    for t, values in kept.items():
        assert int(history.counts[t]) == len(values)
        assert sorted(history.losses[t].tolist()) == sorted(values[-10:])


@pytest.mark.parametrize("name", ["improved_ddpm", "dpm"])
def test_losses_are_weighed_in_the_mean_and_remembered_as_they_are(name: str) -> None:
    """Weights of the kind 1 / p in what is remembered would make rare timesteps common, and common ones rare."""
    described = registry.load(name).model
    objective = {"objective": "vlb"} if name == "improved_ddpm" else {}
    config = {"timesteps": 12, "widths": [4, 4], "importance": True, **objective}
    ours: Any = trainer.build(described, SHAPE, build_config(described.config, config, name), 0)
    ours.history.counts.fill_(10)
    ours.history.losses.copy_(torch.rand(12, 10, generator=torch.Generator().manual_seed(0)) + 0.05)
    t, weights = draw_timesteps(24, 12, context(0), ours.history)
    assert float(weights.std()) > 0.1, "the premise: they are no equals"
    noted: list[tuple[Tensor, Tensor]] = []
    ours.history.note = lambda *args: noted.append(args)
    total = ours.loss(Batch(images(24)), context(0)).total
    (at, losses), *rest = noted
    assert not rest
    assert torch.equal(at, t)
    torch.testing.assert_close(total, (weights * losses).mean())


def test_an_interrupted_training_remembers_the_losses(tmp_path: Path) -> None:
    x = images(48)
    dataset = Dataset("toy", SHAPE, Split(x[:32]), Split(x[32:40]), Split(x[40:]), "here", "none")

    def run(folder: str, *stops: int) -> dict[str, Tensor]:
        for stop in (*stops, None):
            ours = model(objective="vlb", importance=True)
            trainer.Trainer(ours, dataset, 0, Budget(images=32 * 40), tmp_path / folder).run(stop)
        return ours.state_dict()

    whole, parts = run("whole"), run("parts", 7, 25)
    assert int(whole["history.counts"].min()) >= 10, "the premise: timesteps are drawn by their losses"
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


# The whole family


@pytest.mark.parametrize("timesteps", [10, 1200, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["ddpm", "improved_ddpm", "dpm"])
def test_chains_of_10_and_4000_steps_train_sample_and_are_bounded(name: str, timesteps: int, tmp_path: Path) -> None:
    shape = ImageShape(1, 2, 2, 17)
    x = images(16, shape)
    dataset = Dataset("toy", shape, Split(x[:8]), Split(x[8:12]), Split(x[12:]), "here", "none")
    described = registry.load(name).model
    config = {"timesteps": timesteps, "widths": [2, 2], "training": {"batch_size": 8}}
    ours = trainer.build(described, shape, build_config(described.config, config, name), 0)
    assert isinstance(ours, GaussianDiffusion)
    state = trainer.Trainer(ours, dataset, 0, Budget(images=80), tmp_path).run()
    assert all(math.isfinite(row[key]) for row in state.curve for key in row)
    for draw in (Draw(steps=10), Draw("ddim", 7), *([Draw()] if timesteps == 10 else [])):
        assert ours.sample(2, draw, Noise(0)).shape == (2, 1, 2, 2)
    nats = image_nats(ours, x[:2], "vlb", Noise(0))
    assert nats.curves["L_t"].shape == (2, timesteps)
    assert bool((nats.parts["L_{t-1}"] > 0).all())


@pytest.mark.parametrize("name", ["ddpm", "improved_ddpm", "dpm"])
def test_a_network_is_drawn_from_at_the_times_that_it_was_trained_at(name: str) -> None:
    described = registry.load(name).model
    ours = trainer.build(described, SHAPE, build_config(described.config, {"timesteps": 10, "widths": [4, 4]}, name), 0)
    assert isinstance(ours, GaussianDiffusion)
    asked: list[Tensor] = []
    ours.unet.register_forward_pre_hook(lambda module, args: asked.append(args[1]))
    ours.phases()[0].loss(Batch(images(10)), context(0))
    trained = asked[0].tolist()
    asked.clear()
    ours.eval().sample(1, Draw(), Noise(0))
    assert trained == pytest.approx([float(time) for time in reversed(asked)])
    assert trained == pytest.approx([100.0 * t for t in range(10)]), "whatever T is, times span the same range"


@pytest.mark.parametrize("variance", ["beta", "beta_tilde", "learned", "analytic"])
@pytest.mark.parametrize("name", ["ddpm", "improved_ddpm", "dpm"])
def test_every_variance_serves_bound_and_sampler(name: str, variance: str) -> None:
    described = registry.load(name).model
    config = {"timesteps": 10, "widths": [4, 4], "bound_variance": variance}
    if name == "ddpm" and variance == "learned":
        with pytest.raises(UserError, match="bound_variance"):
            build_config(described.config, config, name)
        return
    if variance == "analytic":
        with pytest.raises(UserError, match=f"{name}: bound_variance 'analytic' needs analytic_variance = true"):
            build_config(described.config, config, name)
    built = build_config(described.config, {**config, "analytic_variance": variance == "analytic"}, name)
    ours = trainer.build(described, SHAPE, built, 0).eval()
    assert isinstance(ours, Trains)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    ours.finish(images(20), Noise(0))
    assert image_nats(ours, images(3), "vlb", Noise(0)).total.shape == (3,)
    assert ours.sample(2, Draw("ddpm", 5, variance=variance), Noise(0)).shape == (2, *SHAPE.chw)


def test_the_first_step_has_the_noise_of_a_quarter_of_a_level_or_what_is_asked_for() -> None:
    long = {"timesteps": 1000}
    plain = make_process("cosine", 1000, 1e-4, 0.02).betas
    ours = model(**long).process.betas
    assert math.sqrt(float(ours[0])) == pytest.approx(2 / 16 / 4), "17 levels lie 2 / 16 apart"
    assert torch.equal(ours[1:], plain[1:])
    fine = ImprovedDdpm(ImageShape(1, 4, 4, 256), Config(widths=(4, 4)))
    assert torch.equal(fine.process.betas, plain), "never less than the schedule's own"
    assert float(model(beta_first=0.1).process.betas[0]) == 0.1
    with pytest.raises(UserError, match=r"expected 0 < beta_first < 1, got 1"):
        model(beta_first=1.0)
    with pytest.raises(UserError, match=r"expected vlb_weight > 0, got 0"):
        model(vlb_weight=0.0)
