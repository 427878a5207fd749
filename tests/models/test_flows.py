"""What every flow owes, asked of each by the registry: invertible, log-determinants true, its sampler its density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import checkpoint, registry, trainer
from baselines.contract import Batch, Context, Draw, HasDensity, HasLatent, Noise
from baselines.data.likelihood import dequantise, image_nats, logit, split_nats
from baselines.errors import DivergedError, UserError
from baselines.flows.logit_flow import LogitFlow
from baselines.nets.couplings import Chain, Elementwise
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

DIGITS = ImageShape(1, 8, 8, 17)
SHAPES = [
    DIGITS,
    ImageShape(1, 3, 3, 2),
    oracles.TWO_PIXELS,
    ImageShape(3, 6, 4, 256),  # RealNVP squeezes 6x4 once, to 3x2
    ImageShape(1, 5, 4, 2),
]
DOUBLE = Noise(3, dtype=torch.float64)

SMALL: Mapping[str, Mapping[str, Any]] = {
    "glow": {"width": 6, "steps": 2},
    "iaf": {"width": 20, "hidden_layers": 2, "layers": 3},
    "maf": {"width": 20, "hidden_layers": 2, "layers": 3},
    "realnvp": {"width": 6},
}
"""Sizes for tests where the default takes long."""


def is_flow(name: str) -> bool:
    model = registry.load(name).model
    return isinstance(trainer.build(model, oracles.TWO_PIXELS, model.config(), 0), HasDensity)


NAMES = [name for name in registry.names() if registry.load(name).family == "flows" and is_flow(name)]


def small(name: str, shape: ImageShape, perturb: float = 0.1, seed: int = 0, **config: Any) -> LogitFlow:
    model = oracles.built(name, shape, {**SMALL.get(name, {}), **config}, perturb, seed)
    assert isinstance(model, LogitFlow)
    return model


def inputs(shape: ImageShape, n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *shape.chw, generator=generator, dtype=torch.float64)


def some_images(shape: ImageShape, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, shape.levels, (n, *shape.chw), generator=generator).to(torch.uint8)


def test_there_are_flows_to_ask_and_each_has_a_latent() -> None:
    assert {"realnvp", "maf", "iaf"} <= set(NAMES)
    for name in NAMES:
        assert isinstance(small(name, DIGITS), HasLatent)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_decoding_inverts_encoding_and_the_log_determinants_cancel(name: str, shape: ImageShape) -> None:
    flow, x = small(name, shape).flow, inputs(shape)
    z, log_det = (found.detach() for found in flow(x))
    assert z.shape == (3, shape.dims)
    assert float((z - x.flatten(1)).abs().max()) > 0.1, "premise: the flow does something"
    assert float(log_det.abs().min()) > 1e-3, "premise: it changes volume"
    assert oracles.inverse_error(flow, x) < 1e-10
    assert oracles.log_det_sum(flow, x) < 1e-10


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_log_determinants_are_those_of_the_autograd_jacobian(name: str, shape: ImageShape) -> None:
    flow, x = small(name, shape).flow, inputs(shape, 2)
    z, log_det = flow(x)
    torch.testing.assert_close(log_det, oracles.log_det_by_autograd(flow, x))
    torch.testing.assert_close(flow(z, reverse=True)[1], oracles.log_det_by_autograd(flow, z.detach(), reverse=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns_from_the_density_as_finite_differences_say(name: str) -> None:
    model = small(name, ImageShape(1, 4, 4, 4))
    y = torch.rand(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = dict(model.flow.named_parameters())
    gradients = torch.autograd.grad(model.log_density(y).sum(), list(weights.values()))
    for (path, weight), gradient in zip(weights.items(), gradients, strict=True):
        direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        values = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):  # the second goes back through the start
                weight += step * direction
                values.append(float(model.log_density(y).sum()))
            weight += 1e-6 * direction
        expected = (values[0] - values[1]) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-5), path
    assert any(bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_layer_standardises_the_first_batch_pixel_by_pixel(name: str) -> None:
    model = small(name, DIGITS, perturb=0).float()
    images = some_images(DIGITS, 64)
    images[:, :, :, 0] = 0  # a border without ink

    def context(step: int) -> Context:
        return Context(step, 0.0, torch.Generator().manual_seed(7), torch.device("cpu"))

    phase = model.phases()[0]
    phase.loss(Batch(images), context(0))
    y = dequantise(images, 17, context(0).uniform(*images.shape))
    assert isinstance(model.flow, Chain)
    first = model.flow.flows[0]
    assert isinstance(first, Elementwise)
    z = first(logit(y, model.config.alpha)[0])[0].detach().flatten(1)
    torch.testing.assert_close(z.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(64), atol=1e-4, rtol=0)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    phase.loss(Batch(images[:32]), context(1))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items()), "only the first batch sets it"


@pytest.mark.parametrize("name", NAMES)
def test_the_density_of_the_untrained_model_is_that_of_a_normal_under_the_logit(name: str) -> None:
    model = small(name, DIGITS, perturb=0)
    y = torch.rand(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = 0.01 + 0.98 * y
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(torch.logit(s)) + math.log(0.98) - (s * (1 - s)).log()
    log_p = log_p.flatten(1).sum(1)
    torch.testing.assert_close(model.log_density(y), log_p, rtol=1e-6, atol=0)  # Glow's rotations are float32's


@pytest.mark.parametrize("alpha", [0.01, 0.1])
@pytest.mark.parametrize("name", NAMES)
def test_the_density_over_two_pixels_integrates_to_one(name: str, alpha: float) -> None:
    model = small(name, oracles.TWO_PIXELS, alpha=alpha)
    masses = oracles.bin_masses(model, alpha)
    assert float(masses.std() / masses.mean()) > 0.1, "premise: far from uniform"
    assert float(masses.sum()) == pytest.approx(1, abs=5e-4)  # kinks of ReLU limit the quadrature


@pytest.mark.parametrize("name", NAMES)
def test_the_sampler_follows_the_density_over_two_pixels(name: str) -> None:
    model = small(name, oracles.TWO_PIXELS, alpha=0.1)
    p = oracles.bin_masses(model, 0.1)
    found = oracles.sampler_distance(model, p, 20_000)
    assert abs(found.value - found.floor) < 5 * found.spread
    wrong = oracles.sampler_distance(model, p.flip(0), 20_000)
    assert wrong.value > wrong.floor + 20 * wrong.spread, "premise: the test sees another distribution"


@pytest.mark.parametrize("name", NAMES)
def test_the_dequantised_bound_lies_above_the_exact_value_and_more_samples_tighten_it(name: str) -> None:
    model = small(name, oracles.TWO_PIXELS)
    p = oracles.bin_masses(model, model.config.alpha)
    x = torch.randint(0, 4, (2000, 1, 1, 2), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    exact = float(-p.log()[oracles.index_of(x, 4)].mean())
    one, sixteen = (
        float(split_nats(model, x, name, DOUBLE).total.mean()) for name in ("dequantised", "dequantised_k16")
    )
    assert exact < sixteen < one
    assert sixteen - exact < 0.5 * (one - exact)


@pytest.mark.parametrize("name", NAMES)
def test_same_noise_gives_the_same_image_whatever_the_batch(name: str) -> None:
    model = small(name, DIGITS)
    whole = model.sample(6, Draw(), DOUBLE)
    parts = [model.sample(2, Draw(), DOUBLE.at(i)) for i in (4, 0, 2)]
    assert torch.equal(whole, torch.cat([parts[1], parts[2], parts[0]]))
    assert not torch.equal(whole, model.sample(6, Draw(), Noise(4, dtype=torch.float64)))


@pytest.mark.parametrize("name", NAMES)
def test_training_mode_leaks_nothing_between_images(name: str) -> None:
    model = small(name, DIGITS).train()
    ours, others, more = inputs(DIGITS, 9).sigmoid().split(3)
    found = []
    for neighbours in (others, more):
        torch.manual_seed(0)
        found.append(model.log_density(torch.cat([ours, neighbours]))[:3].detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)
    assert not torch.allclose(found[0], model.eval().log_density(ours).detach()), "premise: there is dropout"


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_keeps_the_inverse_the_log_determinants_and_the_density(name: str, tmp_path: Path) -> None:
    model, again = small(name, DIGITS), small(name, DIGITS, seed=1)
    checkpoint.save(tmp_path, "model", model.state_dict(), {})
    loaded = checkpoint.load(tmp_path, "model")
    assert loaded is not None
    again.load_state_dict(loaded[0])
    x = inputs(DIGITS)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.flow(x), again.flow(x), strict=True))
    assert oracles.inverse_error(again.flow, x) < 1e-10
    assert oracles.log_det_sum(again.flow, x) < 1e-10
    torch.testing.assert_close(again.flow(x)[1], oracles.log_det_by_autograd(again.flow, x))
    y = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(model.log_density(y), again.log_density(y))


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_that_is_not_a_number_fails_and_is_not_averaged_away(name: str) -> None:
    model = small(name, DIGITS)
    with torch.no_grad():
        for parameter in model.flow.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(DivergedError, match="NaN"):
        image_nats(model, some_images(DIGITS, 2), "dequantised", DOUBLE)


@pytest.mark.parametrize("name", NAMES)
def test_bad_settings_and_draws_are_told(name: str) -> None:
    for wrong in ({"alpha": 0.5}, {"dropout": 1.0}, {"width": 0}):
        with pytest.raises(UserError, match=f"{name}: expected"):
            small(name, DIGITS, **wrong)
    for draw, told in ((Draw("ddim"), "no sampler 'ddim'"), (Draw(steps=3), "takes no steps, got 3")):
        with pytest.raises(UserError, match=told):
            small(name, DIGITS).sample(1, draw, DOUBLE)
