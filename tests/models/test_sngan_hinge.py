"""SNGAN: the hinge in closed form, and layers whose largest singular value is 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from baselines import trainer
from baselines.contract import Batch, Context
from baselines.data import catalogue
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans.losses import hinge_loss
from baselines.gans.sngan_hinge import Config, SnganHinge
from baselines.types import Budget, ImageShape

SHAPES = {"digits": ImageShape(1, 8, 8, 17), "binary": ImageShape(1, 3, 3, 2), "rgb": ImageShape(3, 16, 16, 256)}


def context(step: int = 0) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(step), torch.device("cpu"))


def batch_of(shape: ImageShape, n: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randint(0, shape.levels, (n, *shape.chw), generator=generator, dtype=torch.uint8))


def layers(model: SnganHinge) -> list[nn.Module]:
    return [m for m in model.discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def largest(layer: nn.Module) -> float:
    """The largest singular value of the weights as a matrix outputs x everything else, by numpy's SVD."""
    weight = layer.weight.detach().flatten(1).double().numpy()  # type: ignore[union-attr, operator]
    return float(np.linalg.svd(weight, compute_uv=False)[0])


def test_the_hinge_is_its_formula_and_pays_nothing_beyond_the_margins() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.25, -0.5])
    assert hinge_loss(real, fake).total.item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.25 + 0.5) / 3)
    sure = torch.tensor([1.0, 4.0], requires_grad=True)
    loss = hinge_loss(sure, -sure).total
    assert loss.item() == 0


def test_at_equal_distributions_no_verdict_pays_less_than_two() -> None:
    values = torch.linspace(-3, 3, 61)
    assert min(hinge_loss(v[None], v[None]).total.item() for v in values) == pytest.approx(2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_layer_of_d_has_largest_singular_value_one_and_none_of_g_is_touched(shape: ImageShape) -> None:
    torch.manual_seed(0)
    model = SnganHinge(shape, Config(discriminator_width=12, width=8))
    assert len(layers(model)) >= 2
    assert all(is_parametrized(layer, "weight") for layer in layers(model))
    assert not any(is_parametrized(layer) for layer in model.generator.modules())
    x = to_signed(batch_of(shape).images, shape.levels)
    with torch.no_grad():
        for layer in layers(model):
            layer.parametrizations.weight.original.mul_(5)  # type: ignore[union-attr, operator]
        for _ in range(300):  # power iterations, one a call
            model.discriminator(x)
    model.eval()
    for layer in layers(model):
        assert largest(layer) == pytest.approx(1, rel=1e-3)
        raw = layer.parametrizations.weight.original.detach().flatten(1).double().numpy()  # type: ignore[union-attr]
        assert np.linalg.svd(raw, compute_uv=False)[0] > 2, "the premise: the weights themselves are larger"


def test_in_training_one_power_iteration_an_update_keeps_up(tmp_path: Path) -> None:
    digits = catalogue.load("digits")
    torch.manual_seed(0)
    model = SnganHinge(digits.shape, Config(discriminator_width=8, width=8))
    trainer.Trainer(model, digits, 0, Budget(images=32 * 60), tmp_path).run()
    for layer in layers(model):
        assert largest(layer) == pytest.approx(1, rel=0.05)


def test_evaluation_does_not_move_the_power_iteration() -> None:
    model = SnganHinge(SHAPES["digits"], Config(discriminator_width=8, width=8)).eval()
    x = to_signed(batch_of(SHAPES["digits"]).images, 17)
    before = {name: value.clone() for name, value in model.named_buffers()}
    first = model.discriminator(x)
    assert torch.equal(first, model.discriminator(x))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_the_generator_climbs_what_the_discriminator_says() -> None:
    shape = SHAPES["digits"]
    torch.manual_seed(0)
    model, batch = SnganHinge(shape, Config(discriminator_width=8, width=8)), batch_of(shape, 32)
    parameters = list(model.generator.parameters())
    before = model.generator_loss(batch, context()).total
    gradients = torch.autograd.grad(before, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-2 * gradient
    assert float(model.generator_loss(batch, context()).total.detach()) < float(before.detach())


def test_an_interrupted_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    """The vectors of the power iteration are part of the state."""
    digits = catalogue.load("digits")

    def run(folder: str) -> trainer.Trainer:
        torch.manual_seed(0)
        model = SnganHinge(digits.shape, Config(discriminator_width=4, width=4))
        return trainer.Trainer(model, digits, 1, Budget(images=32 * 8), tmp_path / folder)

    whole, parts = run("whole"), run("parts")
    whole.run()
    run("parts").run(stop_after=3)
    parts.run()
    assert parts.state.resumed == 1, "the premise"
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name


def test_bad_choices_are_refused() -> None:
    with pytest.raises(UserError, match=r"sngan_hinge\.discriminator_steps: expected"):
        Config(discriminator_steps=0)
