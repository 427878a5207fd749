"""WGAN-GP: the penalty of critics whose slope is known, the interpolates, n_critic, and no batch norm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from baselines import trainer
from baselines.contract import Batch, Context
from baselines.data import catalogue
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans.losses import between, gradient_penalty, slopes
from baselines.gans.wgan_gp import Config, WganGp
from baselines.types import Budget, ImageShape

SHAPES = {
    "digits": ImageShape(1, 8, 8, 17),
    "mnist": ImageShape(1, 28, 28, 256),
    "binary": ImageShape(1, 3, 3, 2),
    "rgb": ImageShape(3, 5, 17, 256),
}


def context(step: int = 0) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(step), torch.device("cpu"))


def batch_of(shape: ImageShape, n: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randint(0, shape.levels, (n, *shape.chw), generator=generator, dtype=torch.uint8))


def images(n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Real and generated images and places between them, float64."""
    g = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, 2, 3, 4, generator=g, dtype=torch.float64) for _ in range(2))
    return real, fake, torch.rand(n, generator=g, dtype=torch.float64)


# The penalty


@pytest.mark.parametrize("slope", [1.0, 0.25, 3.0])
def test_the_penalty_is_zero_for_a_critic_of_unit_slope_and_else_the_squared_excess(slope: float) -> None:
    real, fake, places = images()
    direction = torch.randn(real[0].numel(), dtype=torch.float64)
    direction *= slope / direction.norm()

    def linear(x: Tensor) -> Tensor:
        return x.flatten(1) @ direction + 7

    def cone(x: Tensor) -> Tensor:  # the distance to a point, whose slope is 1 everywhere else
        return slope * (x - 5).flatten(1).norm(dim=1)

    for critic in (linear, cone):
        assert gradient_penalty(critic, real, fake, places).item() == pytest.approx((slope - 1) ** 2, abs=1e-12)


def test_the_slope_is_that_of_finite_differences_at_points_between_the_pairs() -> None:
    real, fake, places = images()

    def bent(x: Tensor) -> Tensor:
        return (x.flatten(1) ** 3).sum(1) / 3 + x.flatten(1).prod(1)

    points = between(real, fake, places)
    for k, e in enumerate(places):
        torch.testing.assert_close(points[k], e * real[k] + (1 - e) * fake[k])
    h = 1e-6
    numeric = []
    for k in range(len(points)):
        shifts = h * torch.eye(points[0].numel(), dtype=torch.float64).view(-1, *points.shape[1:])
        numeric.append(((bent(points[k] + shifts) - bent(points[k] - shifts)) / (2 * h)).norm())
    torch.testing.assert_close(slopes(bent, points), torch.stack(numeric), rtol=1e-6, atol=1e-6)


def test_the_penalty_teaches_the_critic_a_unit_slope() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.LeakyReLU(), nn.Linear(16, 1), nn.Flatten(0)).double()
    real, fake, places = images(64)
    optimiser = torch.optim.Adam(critic.parameters(), 1e-2)
    before = gradient_penalty(critic, real, fake, places).item()
    for _ in range(100):
        optimiser.zero_grad()
        gradient_penalty(critic, real, fake, places).backward()
        optimiser.step()
    assert gradient_penalty(critic, real, fake, places).item() < 0.05 * before


# The model


def test_the_critics_loss_is_made_of_the_difference_and_ten_times_the_penalty() -> None:
    shape = SHAPES["digits"]
    model, batch = WganGp(shape, Config(critic_width=8, width=8)), batch_of(shape)
    losses = model.critic_loss(batch, context())
    keyed = context()
    with torch.no_grad():
        model.generator.train()
        fake = model.generator(keyed.normal(8, model.latent))
        x = to_signed(batch.images, 17)
        distance = model.critic(x).mean() - model.critic(fake).mean()
    penalty = gradient_penalty(model.critic, x, fake, keyed.uniform(8))
    torch.testing.assert_close(losses.parts["distance"], distance)
    torch.testing.assert_close(losses.parts["penalty"], penalty)
    torch.testing.assert_close(losses.total, 10 * penalty - distance)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_critic_has_no_batch_norm_and_judges_each_image_by_itself(shape: ImageShape) -> None:
    model = WganGp(shape, Config(critic_width=8, width=8))
    assert not [m for m in model.critic.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    x = to_signed(batch_of(shape).images, shape.levels)
    model.critic.train()
    torch.testing.assert_close(model.criticise(x)[:2], model.criticise(x[:2]), rtol=1e-4, atol=1e-5)
    assert model.generator(torch.randn(3, model.latent)).shape == (3, *shape.chw)


def test_the_critic_learns_n_critic_times_on_fresh_batches_for_each_time_of_the_generator(tmp_path: Path) -> None:
    digits = catalogue.load("digits")
    config = Config(critic_steps=5, critic_width=4, width=4)
    model = WganGp(digits.shape, config)
    seen: list[Tensor] = []
    loss = model.critic_loss

    def noted(batch: Batch, context: Context) -> object:
        seen.append(batch.images)
        return loss(batch, context)

    model.critic_loss = noted  # type: ignore[assignment, method-assign]
    size = config.training.batch_size
    run = trainer.Trainer(model, digits, 0, Budget(images=size * 5 * 3), tmp_path)
    run.run()
    steps = {name: int(o.state_dict()["state"][0]["step"]) for name, o in run.optimisers.items()}
    assert steps == {"critic": 15, "generator": 3}
    assert len({batch.numpy().tobytes() for batch in seen}) == 15


def test_an_interrupted_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    digits = catalogue.load("digits")

    def run(folder: str) -> trainer.Trainer:
        torch.manual_seed(0)
        model = WganGp(digits.shape, Config(critic_width=4, width=4))
        return trainer.Trainer(model, digits, 1, Budget(images=64 * 6), tmp_path / folder)

    whole, parts = run("whole"), run("parts")
    whole.run()
    run("parts").run(stop_after=2)
    parts.run()
    assert parts.state.resumed == 1, "the premise"
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name
    assert [*whole.snapshots.taken] == [*parts.snapshots.taken]
    assert all(torch.equal(x, parts.snapshots.taken[n]) for n, x in whole.snapshots.taken.items())


@pytest.mark.parametrize("wrong", [{"penalty": 0.0}, {"critic_steps": 0}, {"latent": 0}], ids=str)
def test_bad_choices_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"wgan_gp\.{next(iter(wrong))}: expected"):
        Config(**wrong)  # type: ignore[arg-type]
