"""AE and AAE: what is fitted ex post, whose parameters an update moves, and priors against their closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from baselines import trainer
from baselines.autoencoders import aae, ae
from baselines.autoencoders.aae import Aae
from baselines.autoencoders.ae import Ae
from baselines.autoencoders.bottleneck import pixel_error, to_pixels
from baselines.autoencoders.priors import SIDE, Gaussian, Mixture, Prior, SwissRoll, prior_for
from baselines.contract import Batch, Context, Draw, Noise, Training
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import from_signed
from baselines.errors import UserError
from baselines.types import Budget, ImageShape

SHAPE = ImageShape(1, 8, 8, 17)
SMALL = {"width": 8, "widest": 16, "training": Training(batch_size=16, ema_decay=0.9)}


def images(n: int, seed: int = 0) -> Tensor:
    """The left and the right half are of one level each: two numbers tell an image."""
    left, right = torch.randint(0, 17, (2, n, 1, 1, 1), generator=torch.Generator().manual_seed(seed))
    return torch.cat([half.expand(n, 1, 8, 4) for half in (left, right)], 3).to(torch.uint8)


def dataset() -> Dataset:
    return Dataset("halves", SHAPE, Split(images(100)), Split(images(20, 1)), Split(images(20, 2)), "here", "none")


def context(step: int = 0) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(step), torch.device("cpu"))


def trained(folder: Path, stops: tuple[int, ...] = ()) -> Ae:
    """A small AE after 20 steps, interrupted where asked."""
    for stop in (*stops, None):
        torch.manual_seed(0)
        model = Ae(SHAPE, ae.Config(latent=3, **SMALL))  # type: ignore[arg-type]
        trainer.Trainer(model, dataset(), 0, Budget(images=320), folder).run(stop_after=stop)
    return model.eval()


# AE: what it draws from


def test_the_gaussian_is_that_of_the_codes_of_all_train_images_by_the_weights_that_are_kept(tmp_path: Path) -> None:
    model = trained(tmp_path)
    with torch.no_grad():
        codes = model.encode(dataset().train.images).double().numpy()
    assert codes.std(0).min() > 1e-3, "the premise: codes differ"
    np.testing.assert_allclose(model.mean.numpy(), codes.mean(0), rtol=1e-4, atol=1e-5)
    covariance = np.cov(codes.T, bias=True)
    np.testing.assert_allclose((model.factor @ model.factor.T).numpy(), covariance, rtol=1e-3, atol=1e-5)
    lengths = model.factor.norm(dim=0)
    assert bool((lengths[:-1] >= lengths[1:]).all()), "principal axes come first"


def test_draws_of_the_prior_have_the_codes_moments_and_are_what_samples_decode(tmp_path: Path) -> None:
    model = trained(tmp_path)
    with torch.no_grad():
        draws = model.prior(4000, Noise(1)).double()
        samples = model.sample(50, Draw(), Noise(1))
    torch.testing.assert_close(
        draws.mean(0), model.mean.double(), atol=5 * float(draws.std(0).max()) / 4000**0.5, rtol=0
    )
    covariance = (model.factor @ model.factor.T).double()
    assert float((draws.T.cov() - covariance).norm() / covariance.norm()) < 0.1
    with torch.no_grad():
        assert torch.equal(samples, from_signed(model.pixels(draws[:50].float()), 17))


def test_codes_that_lie_on_a_line_are_drawn_on_that_line(tmp_path: Path) -> None:
    model = trained(tmp_path)
    line = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, -2.0, 0.5]) + 4
    model.encode = lambda x: line[: len(x)]  # type: ignore[method-assign]
    model.fit_ex_post(dataset().train.images, Noise(0))
    off = (model.prior(200, Noise(3)) - 4) @ torch.tensor([2.0, 1.0, 0.0])
    assert float(off.abs().max()) < 1e-4
    assert float(model.prior(200, Noise(3))[:, 1].std()) == pytest.approx(float(line[:, 1].std()), rel=0.2)


def test_an_interrupted_training_ends_with_the_same_gaussian(tmp_path: Path) -> None:
    whole, parts = trained(tmp_path / "whole"), trained(tmp_path / "parts", stops=(3, 11))
    assert float(whole.mean.abs().max()) > 0
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def test_the_code_of_an_image_does_not_change_and_hangs_on_that_image_alone(tmp_path: Path) -> None:
    model, x = trained(tmp_path), images(6, 3)
    with torch.no_grad():
        codes = model.encode(x)
        assert torch.equal(codes, model.encode(x))
        torch.testing.assert_close(model.encode(x[2:3]), codes[2:3])
        assert torch.equal(model.draw_codes(x, Noise(1)), codes)


def test_errors_of_pixels_are_the_mean_square_and_the_cross_entropy_of_grey_values() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 17, (5, 1, 4, 4), generator=generator, dtype=torch.uint8)
    out = torch.randn(5, 1, 4, 4, generator=generator)
    unit, p = x.double().numpy() / 16, 1 / (1 + np.exp(-out.double().numpy()))
    squared = float(((out.double().numpy() + 1) / 2 - unit).__pow__(2).mean())
    assert float(pixel_error("mse", out, x, 17)) == pytest.approx(squared, rel=1e-5)
    entropy = -(unit * np.log(p) + (1 - unit) * np.log(1 - p)).mean()
    assert float(pixel_error("bce", out, x, 17)) == pytest.approx(float(entropy), rel=1e-5)
    inner = x.clamp(1, 15)
    for loss, best in (("mse", inner / 8 - 1), ("bce", torch.logit(inner / 16))):
        assert torch.equal(from_signed(to_pixels(loss, best), 17), inner), "the least error is the image itself"  # type: ignore[arg-type]
        least = float(pixel_error(loss, best, inner, 17))  # type: ignore[arg-type]
        assert least < float(pixel_error(loss, best + 0.1, inner, 17))  # type: ignore[arg-type]
        assert least < float(pixel_error(loss, best - 0.1, inner, 17))  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_a_two_dimensional_code_learns_what_tells_images_of_two_numbers(loss: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    training = Training(batch_size=32, ema_decay=0.9)
    model = Ae(SHAPE, ae.Config(latent=2, loss=loss, width=8, widest=16, lr=5e-3, training=training))  # type: ignore
    trainer.Trainer(model, dataset(), 0, Budget(images=32 * 250), tmp_path).run()
    x = dataset().test.images
    with torch.no_grad():
        error = (model.reconstruct(x).double() - x.double()).square().mean()
    assert float(error) < 0.4 * float(x.double().var(0, correction=0).mean())


# AAE: three updates


def small_aae(**values: object) -> Aae:
    torch.manual_seed(0)
    return Aae(SHAPE, aae.Config(**{"latent": 2, "units": 16, **SMALL, **values}))  # type: ignore[arg-type]


def test_the_three_updates_come_in_the_papers_order_and_move_only_their_own_parameters(tmp_path: Path) -> None:
    model = small_aae()
    run = trainer.Trainer(model, dataset(), 0, Budget(images=1000), tmp_path)
    model.train()
    moved = []
    for phase in run.phases:
        before = {name: p.clone() for name, p in model.named_parameters()}
        for _ in range(3):  # the last layer of a residual block begins at zero
            run._update(phase, run.batches.at(0, 16), 0.5, 0)
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        own = {name for name in before if name.startswith(phase.modules)}
        assert changed == own, phase.name
        moved.append((phase.name, {name.split(".")[0] for name in changed}))
    assert moved == [
        ("reconstruction", {"encoder", "decoder"}),
        ("discriminator", {"discriminator"}),
        ("encoder", {"encoder"}),
    ]


def test_the_adversarial_losses_are_those_of_a_gan_whose_real_images_are_draws_of_the_prior() -> None:
    model, batch = small_aae(), Batch(images(16))
    losses = model.discriminator_loss(batch, context())
    with torch.no_grad():
        draws = context().normal(16, 2)
        d_prior, d_codes = (torch.sigmoid(model.discriminator(z)) for z in (draws, model.encode(batch.images)))
    expected = -(d_prior.log().mean() + (1 - d_codes).log().mean())
    torch.testing.assert_close(losses.total, expected)
    torch.testing.assert_close(model.encoder_loss(batch, context()).total, -d_codes.log().mean())
    with torch.no_grad():
        for parameter in model.discriminator.parameters():
            parameter.zero_()  # D = 1/2 everywhere
    assert model.discriminator_loss(batch, context()).total.item() == pytest.approx(2 * math.log(2))
    assert model.encoder_loss(batch, context()).total.item() == pytest.approx(math.log(2))


class Box(Prior):
    """Uniform over a square that lies beside the origin."""

    numbers = 2

    def draw(self, normal: Tensor) -> Tensor:
        return 2 * torch.special.ndtr(normal) + torch.tensor([1.0, -3.0])


def test_codes_come_to_follow_a_prior_of_which_nothing_is_known_but_its_draws() -> None:
    model, x = small_aae(), images(400)
    model.codes = Box()
    phases = model.phases()
    optimisers = [
        torch.optim.Adam([p for name in phase.modules for p in model.get_submodule(name).parameters()], lr=2e-3)
        for phase in phases
    ]

    def inside() -> float:
        with torch.no_grad():
            off = model.encode(x) - torch.tensor([2.0, -2.0])
        return float((off.abs() < 1.2).all(1).float().mean())

    assert inside() < 0.2, "the premise: codes begin elsewhere"
    for step in range(200):
        batch = Batch(x[(step * 64) % 336 :][:64])
        for phase, optimiser in zip(phases, optimisers, strict=True):
            optimiser.zero_grad()
            phase.loss(batch, context(step)).total.backward()
            optimiser.step()
    assert inside() > 0.5
    with torch.no_grad():
        spread = model.encode(x).std(0)
        samples = model.prior(1000, Noise(0))
    assert bool(((spread > 0.1) & (spread < 1)).all()), f"that of the square is {1 / 3**0.5:.2f}, got {spread}"
    assert bool(((samples - torch.tensor([2.0, -2.0])).abs() <= 1).all())


@pytest.mark.parametrize(("prior", "numbers"), [("gaussian", 2), ("mixture", 3), ("swiss_roll", 3)])
def test_the_latent_is_the_standard_normal_numbers_that_a_draw_of_the_prior_is_made_of(
    prior: str, numbers: int
) -> None:
    model = small_aae(prior=prior).eval()
    z = Noise(2).normal("z", 5, (numbers,))
    draws = prior_for(prior, 2, 10).draw(z)  # type: ignore[arg-type]
    assert model.latent == numbers
    assert torch.equal(model.prior(5, Noise(2)), draws)
    assert torch.equal(model.prior(3, Noise(2, first=2)), draws[2:])
    with torch.no_grad():
        assert torch.equal(model.decode(z), model.pixels(draws))
        assert torch.equal(model.sample(5, Draw(), Noise(2)), from_signed(model.pixels(draws), 17))


# Priors


def normal(n: int, numbers: int) -> Tensor:
    return torch.randn(n, numbers, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("components", [1, 2, 3, 10, 25])
def test_a_mixture_has_equal_shares_on_a_circle_each_with_its_two_deviations(components: int) -> None:
    prior, n = Mixture(components), 20_000
    z = prior.draw(normal(n, prior.numbers)).numpy()
    turn = 2 * math.pi / components
    angle = np.arctan2(z[:, 1], z[:, 0])
    k = np.round(angle / turn).astype(int) % components  # nearest mean by angle
    rotated = z[:, 0] + 1j * z[:, 1]
    local = rotated * np.exp(-1j * turn * k) - prior.radius
    if components > 2:
        assert stats.chisquare(np.bincount(k, minlength=components)).pvalue > 1e-3
        assert prior.across * 6 <= 2 * prior.radius * math.sin(math.pi / components) + 1e-9, "neighbours keep apart"
    for values, deviation in ((local.real, prior.along), (local.imag, prior.across)):
        assert values.mean() == pytest.approx(0, abs=0.02)
        assert values.std() == pytest.approx(deviation, rel=0.06)


def test_a_swiss_roll_is_filled_evenly_along_its_length() -> None:
    prior = SwissRoll()
    u = torch.linspace(0.001, 0.999, 2001, dtype=torch.float64)
    spine = prior.place(u).numpy()
    steps = np.hypot(*np.diff(spine, axis=0).T)[200:]  # but for the innermost tenth
    assert steps.max() / steps.min() < 1.35, "equal shares are about equal lengths"
    radius, angle = np.hypot(*spine.T), np.unwrap(np.arctan2(spine[:, 1], spine[:, 0]))
    np.testing.assert_allclose(np.diff(angle) / np.diff(radius), 2 * math.pi * prior.turns / prior.radius, rtol=1e-6)
    z = prior.draw(normal(20_000, prior.numbers))
    off = z - prior.place(torch.special.ndtr(normal(20_000, 3)[:, 0]))
    assert float(off.std()) == pytest.approx(prior.noise, rel=0.02)
    gap = prior.radius / prior.turns
    assert gap > 6 * prior.noise, "turns keep apart"


def test_a_gaussians_chart_has_cells_of_equal_probability_and_other_charts_lie_on_their_priors() -> None:
    chart = Gaussian(2).chart()
    assert chart is not None
    across, down = chart.points[0, :, 0].double().numpy(), chart.points[:, 0, 1].double().numpy()
    np.testing.assert_allclose(stats.norm.cdf(across), (np.arange(SIDE) + 0.5) / SIDE, atol=1e-6)
    np.testing.assert_allclose(stats.norm.cdf(down), 1 - (np.arange(SIDE) + 0.5) / SIDE, atol=1e-6)
    assert Gaussian(3).chart() is None
    for prior in (Mixture(10), SwissRoll()):
        chart = prior.chart()
        assert (len(chart.rows), len(chart.columns), 2) == tuple(chart.points.shape)
        draws = prior.draw(normal(20_000, prior.numbers)).float()
        assert float(torch.cdist(chart.points.flatten(0, 1), draws).min(1).values.max()) < 0.1


def test_bad_choices_are_refused() -> None:
    with pytest.raises(UserError, match=r"latent = 2, got 5"):
        aae.Config(prior="swiss_roll", latent=5)
    with pytest.raises(UserError, match=r"components: expected at least 1, got 0"):
        prior_for("mixture", 2, 0)
    with pytest.raises(UserError, match=r"dropout in \[0, 1\), got 1"):
        aae.Config(dropout=1.0)
    with pytest.raises(UserError, match="dropout"):
        ae.Config(dropout=-0.1)
    with pytest.raises(UserError, match="latent"):
        ae.Config(latent=0)
    with pytest.raises(UserError, match="units"):
        aae.Config(units=0)


# Pictures


def test_pictures_are_reconstructions_walks_between_images_and_the_map_of_the_space(tmp_path: Path) -> None:
    model, real = trained(tmp_path), images(12, 4)
    with torch.no_grad():
        codes, back = model.encode(real), model.reconstruct(real)
        first, between, walks = model.pictures(real, Noise(1))
        middle = model.images((codes[0] + codes[1])[None] / 2)[0]
        end = model.decode(Noise(1).normal("interpolation", 8, (3,)))[:4]
    assert torch.equal(first.images[0], real[:10])
    assert torch.equal(first.images[1], back[:10])
    assert torch.equal(between.images[:, 0], real[0:8:2])
    assert torch.equal(between.images[:, -1], real[1:8:2])
    assert torch.equal(between.images[:, 1], back[0:8:2])
    assert torch.equal(between.images[0, 5], middle)
    assert torch.equal(walks.images[:, 0], from_signed(end, 17))
    flat = small_aae(prior="mixture", components=4).eval()
    chart = flat.chart()
    assert chart is not None
    shown = flat.pictures(real, Noise(1))[-1]
    assert shown.rows[0] == "component 1"
    assert torch.equal(shown.images[1], flat.images(chart.points[1]))
