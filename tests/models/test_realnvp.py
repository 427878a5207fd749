"""RealNVP: invertible, its log-determinants true, its density normalised and followed by its sampler."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines import checkpoint
from baselines.config import build_config
from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import dequantise, logit, split_nats
from baselines.errors import UserError
from baselines.flows.realnvp import Config, RealNvp
from baselines.nets.couplings import (
    AffineCoupling,
    Chain,
    Elementwise,
    FactorOut,
    Flatten,
    Flow,
    Squeeze,
    channelwise,
    checkerboard,
)
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

DIGITS = ImageShape(1, 8, 8, 17)
SHAPES = [
    DIGITS,
    ImageShape(1, 3, 3, 2),
    oracles.TWO_PIXELS,
    ImageShape(3, 6, 4, 256),  # 6x4 is squeezed once, to 3x2
    ImageShape(1, 5, 4, 2),
]
DOUBLE = Noise(3, dtype=torch.float64)


def small(shape: ImageShape, seed: int = 0, perturb: float = 0.1, scales: int = 3, alpha: float = 0.01) -> RealNvp:
    model = oracles.built("realnvp", shape, {"width": 6, "scales": scales, "alpha": alpha}, perturb, seed)
    assert isinstance(model, RealNvp)
    return model


def inputs(shape: ImageShape, n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *shape.chw, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decoding_inverts_encoding_and_the_log_determinants_cancel(shape: ImageShape) -> None:
    flow, x = small(shape).flow, inputs(shape)
    z, log_det = (found.detach() for found in flow(x))
    assert z.shape == (3, shape.dims)
    assert float((z - x.flatten(1)).abs().max()) > 0.1, "premise: the flow does something"
    assert float(log_det.abs().min()) > 1e-3, "premise: it changes volume"
    assert oracles.inverse_error(flow, x) < 1e-10
    assert oracles.log_det_sum(flow, x) < 1e-10


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_log_determinants_are_those_of_the_autograd_jacobian(shape: ImageShape) -> None:
    flow, x = small(shape).flow, inputs(shape, 2)
    z, log_det = flow(x)
    torch.testing.assert_close(log_det, oracles.log_det_by_autograd(flow, x))
    torch.testing.assert_close(flow(z, reverse=True)[1], oracles.log_det_by_autograd(flow, z.detach(), reverse=True))


def coupling(mask: Tensor) -> AffineCoupling:
    channels = mask.shape[0]
    return AffineCoupling(torch.nn.Conv2d(channels, 2 * channels, 3, padding=1), mask)


def initialised() -> Flow:
    made = Elementwise(4, 2, 4).double()
    made.initialise(2 + 3 * inputs(ImageShape(4, 2, 4), 20))
    return made


FLOWS = {
    "chain": lambda: Chain(coupling(checkerboard(4, 2, 4, 0)), Squeeze(), coupling(channelwise(16, 1, 2, 1))),
    "checkerboard": lambda: coupling(checkerboard(4, 2, 4, 1)),
    "channelwise": lambda: coupling(channelwise(4, 2, 4, 0)),
    "elementwise": initialised,
    "factor-out": lambda: FactorOut(Chain(coupling(checkerboard(2, 2, 4, 0)), Flatten(2, 2, 4)), 4, 2, 4),
    "flatten": lambda: Flatten(4, 2, 4),
    "squeeze": Squeeze,
}


@pytest.mark.parametrize("name", FLOWS)
def test_every_layer_by_itself_is_invertible_with_a_true_log_determinant(name: str) -> None:
    torch.manual_seed(0)
    flow, x = FLOWS[name]().double(), inputs(ImageShape(4, 2, 4))
    assert oracles.inverse_error(flow, x) < 1e-12
    assert oracles.log_det_sum(flow, x) < 1e-12
    torch.testing.assert_close(flow(x)[1], oracles.log_det_by_autograd(flow, x), atol=1e-10, rtol=0)


def test_what_a_coupling_keeps_is_unchanged_and_two_parities_change_every_dimension() -> None:
    for mask in (checkerboard, channelwise):
        masks = [mask(4, 3, 5, parity) for parity in (0, 1)]
        assert torch.equal(masks[0] + masks[1], torch.ones(4, 3, 5))
        x = inputs(ImageShape(4, 3, 5))
        for kept in masks:
            z = coupling(kept).double()(x)[0]
            assert torch.equal((z != x).all(0), kept == 0)


def test_squeezing_keeps_neighbours_together() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    z = Squeeze()(x)[0]
    assert z.shape == (1, 4, 2, 2)
    assert z[0, :, 0, 0].tolist() == [0, 1, 4, 5]


def test_the_last_layers_are_zero_at_first_so_that_the_flow_is_the_identity() -> None:
    flow = RealNvp(DIGITS, Config()).double().flow
    x = inputs(DIGITS)
    z, log_det = flow(x)
    torch.testing.assert_close(z.sort(1).values, x.flatten(1).sort(1).values)  # but for the order of dimensions
    assert not log_det.any()


def test_factored_out_dimensions_follow_half_the_channels_of_each_scale() -> None:
    def parts(flow: torch.nn.Module) -> list[tuple[int, ...]]:
        return [module.factored for module in flow.modules() if isinstance(module, FactorOut)]

    assert parts(small(ImageShape(1, 28, 28)).flow) == [(2, 14, 14), (4, 7, 7)]  # 7x7 cannot be squeezed
    assert parts(small(DIGITS, scales=2).flow) == [(2, 4, 4)]
    assert parts(small(oracles.TWO_PIXELS).flow) == []


def test_masks_alternate_so_that_every_dimension_is_changed_at_every_scale() -> None:
    masks = [module.mask for module in small(DIGITS).flow.modules() if isinstance(module, AffineCoupling)]
    assert [tuple(mask.shape) for mask in masks] == [(1, 8, 8)] * 3 + [(4, 4, 4)] * 3 + [(2, 4, 4)] * 3 + [
        (8, 2, 2)
    ] * 3 + [(4, 2, 2)] * 4
    for before, after in itertools.pairwise(masks):
        assert before.shape != after.shape or torch.equal(before + after, torch.ones_like(before))


def test_training_starts_from_standardised_dimensions() -> None:
    model = RealNvp(DIGITS, Config())
    images = torch.randint(0, 17, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, :, :, 0] = 0  # a border without ink

    def context(step: int) -> Context:
        return Context(step, 0.0, torch.Generator().manual_seed(7), torch.device("cpu"))

    phase = model.phases()[0]
    phase.loss(Batch(images), context(0))
    y = dequantise(images, 17, context(0).uniform(*images.shape))
    z = model.eval().flow(logit(y, model.config.alpha)[0])[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(64), atol=1e-4, rtol=0)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    phase.loss(Batch(images[:32]), context(1))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items()), "only the first batch sets it"


@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_the_density_over_two_pixels_integrates_to_one(alpha: float) -> None:
    model = small(oracles.TWO_PIXELS, perturb=0.2, alpha=alpha)
    masses = oracles.bin_masses(model, alpha)
    assert float(masses.std() / masses.mean()) > 0.1, "premise: far from uniform"
    assert float(masses.sum()) == pytest.approx(1, abs=5e-4)  # kinks of ReLU limit the quadrature


def test_the_sampler_follows_the_density_over_two_pixels() -> None:
    model = small(oracles.TWO_PIXELS, perturb=0.2, alpha=0.1)
    p = oracles.bin_masses(model, 0.1)
    found = oracles.sampler_distance(model, p, 20_000)
    assert abs(found.value - found.floor) < 5 * found.spread
    wrong = oracles.sampler_distance(model, p.flip(0), 20_000)
    assert wrong.value > wrong.floor + 20 * wrong.spread, "premise: the test sees another distribution"


def test_the_dequantised_bound_lies_above_the_exact_value_and_more_samples_tighten_it() -> None:
    model = small(oracles.TWO_PIXELS, perturb=0.2)
    p = oracles.bin_masses(model, model.config.alpha)
    x = torch.randint(0, 4, (2000, 1, 1, 2), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    exact = float(-p.log()[oracles.index_of(x, 4)].mean())
    one, sixteen = (
        float(split_nats(model, x, name, DOUBLE).total.mean()) for name in ("dequantised", "dequantised_k16")
    )
    assert exact < sixteen < one
    assert sixteen - exact < 0.3 * (one - exact)


def test_the_density_of_the_untrained_model_is_that_of_a_normal_under_the_logit() -> None:
    model = RealNvp(DIGITS, Config()).double()
    y = torch.rand(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = 0.01 + 0.98 * y
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(torch.logit(s)) + math.log(0.98) - (s * (1 - s)).log()
    torch.testing.assert_close(model.log_density(y), log_p.flatten(1).sum(1))


def test_same_noise_gives_the_same_image_whatever_the_batch() -> None:
    model = small(DIGITS)
    whole = model.sample(6, Draw(), DOUBLE)
    parts = [model.sample(2, Draw(), DOUBLE.at(i)) for i in (4, 0, 2)]
    assert torch.equal(whole, torch.cat([parts[1], parts[2], parts[0]]))
    assert not torch.equal(whole, model.sample(6, Draw(), Noise(4, dtype=torch.float64)))


def test_a_checkpoint_keeps_the_inverse_the_log_determinants_and_the_density(tmp_path: Path) -> None:
    model, again = small(DIGITS), small(DIGITS, seed=1)
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


def test_bad_settings_and_draws_are_told() -> None:
    for wrong in ({"scales": 0}, {"couplings": 1}, {"alpha": 0.5}, {"dropout": 1.0}, {"width": 0}):
        with pytest.raises(UserError, match="realnvp: expected"):
            build_config(Config, wrong, "realnvp")
    for draw, told in ((Draw("ddim"), "no sampler 'ddim'"), (Draw(steps=3), "takes no steps, got 3")):
        with pytest.raises(UserError, match=told):
            small(DIGITS).sample(1, draw, DOUBLE)
