"""InfoGAN: what its information term is, whom it reaches, and what codes and images owe each other."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal

from baselines import trainer
from baselines.contract import Batch, Codes, Context, Draw, Inferred, Noise, Training
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans.infogan import MODEL, SWEEP, Config, Infogan, code_losses, deformed
from baselines.types import Budget, ImageShape
from bench.metrics.base import Subject
from bench.metrics.codes import ClusterAccuracy, InformationBound

DIGITS = ImageShape(1, 8, 8, 17)


def context(step: int = 0) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(step), torch.device("cpu"))


def batch_of(n: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randint(0, 17, (n, *DIGITS.chw), generator=generator, dtype=torch.uint8))


def built(config: Config | None = None) -> Infogan:
    torch.manual_seed(0)
    return Infogan(DIGITS, config or Config())


def warmed(config: Config | None = None) -> Infogan:
    """In evaluation mode, when batch norm has seen what it is to scale."""
    model = built(config)
    for step in range(5):
        model.generator_loss(batch_of(), context(step))
    return model.eval()


# The information term (Chen et al. 2016, section 5)


def test_the_losses_are_cross_entropy_and_the_gaussians_likelihood() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, mean, log_std = (torch.randn(9, k, generator=generator) for k in (4, 3, 3))
    codes = Codes(torch.randint(4, (9,), generator=generator), 2 * torch.rand(9, 3, generator=generator) - 1)
    category, continuous = code_losses(codes, Inferred(logits.log_softmax(1), mean, log_std))
    torch.testing.assert_close(category, -Categorical(logits=logits).log_prob(codes.category).mean())
    expected = -Normal(mean, log_std.exp()).log_prob(codes.continuous).sum(1).mean()
    torch.testing.assert_close(continuous, expected)


@pytest.mark.parametrize("part", ["category", "continuous"])
def test_the_information_reaches_all_of_the_generator_by_gradient(part: str) -> None:
    model = built()
    parts = model.generator_loss(batch_of(), context()).parts
    for (name, parameter), gradient in zip(
        model.generator.named_parameters(),
        torch.autograd.grad(parts[part], list(model.generator.parameters())),
        strict=True,
    ):
        assert float(gradient.abs().max()) > 0, (name, tuple(parameter.shape))


def test_telling_real_from_generated_moves_the_trunk_and_not_the_head_that_infers_codes() -> None:
    model = built()
    for loss in (model.discriminator_loss, model.generator_loss):
        game = loss(batch_of(), context()).parts["game"]
        found = torch.autograd.grad(game, list(model.inference.parameters()), allow_unused=True, retain_graph=True)
        assert all(gradient is None for gradient in found)
        found = torch.autograd.grad(game, list(model.trunk.parameters()))
        assert all(float(gradient.abs().max()) > 0 for gradient in found)


def test_the_information_moves_the_trunk_and_the_inference_and_not_the_critic() -> None:
    model = built()
    parts = model.discriminator_loss(batch_of(), context()).parts
    information = parts["category"] + parts["continuous"]
    critic = torch.autograd.grad(information, list(model.critic.parameters()), allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in critic)
    shared = [*model.trunk.parameters(), *model.inference.parameters()]
    assert all(float(gradient.abs().max()) > 0 for gradient in torch.autograd.grad(information, shared))


def test_both_heads_stand_on_one_trunk_that_sees_each_image_once() -> None:
    model, seen = built(), []
    model.trunk.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    model.discriminator_loss(batch_of(), context())
    assert seen == [16, 16]
    seen.clear()
    model.generator_loss(batch_of(), context())
    assert seen == [16]


def test_the_total_is_the_game_and_the_weighted_information() -> None:
    losses = built(Config(category_weight=0.7, continuous_weight=0.3)).generator_loss(batch_of(), context())
    parts = losses.parts
    torch.testing.assert_close(losses.total, parts["game"] + 0.7 * parts["category"] + 0.3 * parts["continuous"])


# Codes


def test_codes_come_from_their_prior_and_hang_on_the_image_alone() -> None:
    model = built()
    codes = model.draw_codes(6000, Noise(3))
    counts = torch.bincount(codes.category, minlength=10).double()
    assert float(((counts - 600) ** 2 / 600).sum()) < 27.9, "chi-squared with 9 degrees of freedom, 1 in 1000"
    assert float(codes.continuous.abs().max()) <= 1
    assert float(codes.continuous.mean()) == pytest.approx(0, abs=0.03)
    assert float(codes.continuous.var()) == pytest.approx(1 / 3, abs=0.02)
    later = model.draw_codes(5, Noise(3, first=7))
    assert torch.equal(later.category, codes.category[7:12])
    assert torch.equal(later.continuous, codes.continuous[7:12])


def test_a_sample_is_what_is_generated_from_its_codes_and_other_codes_give_other_images() -> None:
    model, noise = warmed(), Noise(0)
    with torch.no_grad():
        codes = model.draw_codes(12, noise)
        images = model.sample(12, Draw(), noise)
        assert torch.equal(images, model.generate(codes, noise))
        turned = model.generate(Codes((codes.category + 1) % 10, codes.continuous), noise)
        flipped = model.generate(Codes(codes.category, -codes.continuous), noise)
    assert not torch.equal(images, turned)
    assert not torch.equal(images, flipped)


def test_what_is_inferred_of_an_image_is_a_distribution_that_no_other_image_changes() -> None:
    model = built().eval()
    x = batch_of(6).images
    with torch.no_grad():
        whole, alone = model.infer(x), model.infer(x[2:3])
    torch.testing.assert_close(whole.log_probabilities.exp().sum(1), torch.ones(6))
    assert whole.mean.shape == whole.log_std.shape == (6, 2)
    for name in ("log_probabilities", "mean", "log_std"):
        torch.testing.assert_close(getattr(alone, name)[0], getattr(whole, name)[2], atol=1e-5, rtol=1e-4)


def test_discriminator_and_inference_see_images_blurred_by_no_more_than_half_a_level() -> None:
    model, seen = built(Config(deformation=0)), []
    model.trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = batch_of()
    model.discriminator_loss(batch, context())
    noise = (seen[0] - to_signed(batch.images, 17)) * 8  # in levels
    assert 0.45 < float(noise.abs().max()) <= 0.5 + 1e-5


def spot(right: float, down: float) -> Tensor:
    """A smooth spot in an image of 32x32, its place in sides from the centre."""
    place = (torch.arange(32) + 0.5) / 32 - 0.5
    return torch.exp(-((place[None, :] - right) ** 2 + (place[:, None] - down) ** 2) / (2 * 0.08**2))[None, None]


def test_deformed_images_move_by_what_is_said_and_no_more() -> None:
    assert torch.equal(deformed(spot(0.1, 0), 0, context()), spot(0.1, 0))
    for strength in (0.5, 1.0):
        found = deformed(spot(0.2, 0.1).expand(2000, -1, -1, -1), strength, context())[:, 0]
        place = (torch.arange(32) + 0.5) / 32 - 0.5
        mass = found.sum((1, 2))
        right, down = (found.sum(1) * place).sum(1) / mass - 0.2, (found.sum(2) * place).sum(1) / mass - 0.1
        moved = (right**2 + down**2).sqrt()
        # a shift of 6 % of the side along both axes, and of a place 0.22 sides off the centre a turn of 10 degrees and
        # a zoom of 8 %
        assert 0.03 * strength < float(moved.mean()) < float(moved.max()) < strength * (0.06 * 2**0.5 + 0.06)
        assert abs(float(right.mean())) < 0.005
        assert abs(float(down.mean())) < 0.005


def test_real_and_generated_images_are_deformed_and_the_gradient_passes() -> None:
    image = torch.zeros(3, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(deformed(image, 1.0, context()).sum(), image)
    assert float(gradient[..., 2:-2, 2:-2].min()) > 0
    model, seen = built(), []
    model.trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = batch_of()
    model.discriminator_loss(batch, context())
    assert float((seen[0] - to_signed(batch.images, 17)).abs().max()) > 0.5, "far more than half a level"


def test_pictures_show_a_row_a_category_and_the_codes_swept_past_their_prior() -> None:
    model = warmed(Config(categories=4, continuous=1))
    by_category, swept = model.pictures(batch_of(2).images, Noise(0))
    assert by_category.images.shape[0] == swept.images.shape[0] == 4
    assert (SWEEP[0], SWEEP[-1]) == (-2, 2)
    assert swept.columns == tuple(f"{value:g}" for value in SWEEP)
    with torch.no_grad():
        noise = Noise(0)
        expected = model.generate(Codes(torch.tensor([2]), torch.tensor([[-1.0]])), noise)[0]
    assert torch.equal(swept.images[2, SWEEP.index(-1.0)], expected)
    assert not torch.equal(swept.images[2, 0], swept.images[2, -1]), "the code matters"
    assert len(built(Config(continuous=0)).pictures(batch_of(2).images, Noise(0))) == 1


# Learning


def patterns(n: int, seed: int) -> Split:
    """Three kinds of 4x4 images, each with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    kinds = torch.zeros(3, 1, 4, 4)
    kinds[0, :, :2], kinds[1, :, :, :2], kinds[2, :, 1:3, 1:3] = 12, 12, 12
    noise = torch.randint(0, 5, (n, 1, 4, 4), generator=generator)
    return Split((kinds[labels] + noise).to(torch.uint8), labels)


def test_it_finds_three_kinds_of_images_without_labels(tmp_path: Path) -> None:
    shape = ImageShape(1, 4, 4, 17)
    splits = patterns(400, 0), patterns(100, 1), patterns(200, 2)
    data = Dataset("patterns", shape, *splits, "here", "none", classes=3)
    config = Config(latent=4, categories=3, continuous=1, width=16, hidden=32, training=Training(32, 0.95))
    model = trainer.build(MODEL, shape, config, 0)
    trainer.Trainer(model, data, 0, Budget(images=32 * 300), tmp_path).run()
    subject = Subject(0, dataset=data, model=model)
    (clusters,) = ClusterAccuracy().measure(subject)
    bound = InformationBound().measure(subject)[0]
    assert clusters.value > 0.8, "chance is a third"
    assert 0.8 * math.log(3) < bound.value <= math.log(3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latent", 0),
        ("categories", 1),
        ("continuous", -1),
        ("category_weight", -0.1),
        ("hidden", 0),
        ("deformation", -1.0),
    ],
)
def test_bad_choices_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"infogan\.{key}: expected .*, got {value}"):
        Config(**{key: value})  # type: ignore[arg-type]


def test_it_has_no_other_sampler() -> None:
    with pytest.raises(UserError, match="ddim"):
        built().sample(1, Draw("ddim"), Noise(0))
