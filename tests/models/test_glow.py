"""Glow: each layer what the paper says, invertible with a true log-determinant; its scales, prior and temperature."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from baselines import checkpoint
from baselines.config import build_config
from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import dequantise, from_signed, logit
from baselines.errors import UserError
from baselines.flows.glow import Config, Glow, Network, multi_scale
from baselines.nets.couplings import AffineCoupling, Chain, Elementwise, Flatten, Flow, SplitCoupling, Squeeze
from baselines.nets.glow_layers import ActNorm, InvertibleConv, SplitPrior
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

DIGITS = ImageShape(1, 8, 8, 17)
SHAPES = [
    DIGITS,
    ImageShape(1, 3, 3, 2),
    oracles.TWO_PIXELS,
    ImageShape(3, 6, 4, 256),  # squeezed once, to 3x2
    ImageShape(3, 5, 4, 2),  # not squeezed: couplings of one channel by two
]
DOUBLE = Noise(3, dtype=torch.float64)


def small(shape: ImageShape, seed: int = 0, perturb: float = 0.1, scales: int = 3) -> Glow:
    model = oracles.built("glow", shape, {"width": 6, "steps": 2, "scales": scales}, perturb, seed)
    assert isinstance(model, Glow)
    return model


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def moved(flow: Flow) -> Flow:
    """In float64, no weight where its initialisation put it."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in flow.double().parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow


LAYERS = {
    "actnorm": lambda: ActNorm(5),
    "conv": lambda: InvertibleConv(5),
    "coupling": lambda: SplitCoupling(Network(3, 4, 2, 3, Config(width=4)), 5),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_by_itself_is_invertible_with_a_true_log_determinant(name: str) -> None:
    flow, x = moved(LAYERS[name]()).eval(), inputs(3, 5, 2, 3)
    z, log_det = flow(x)
    assert float((z - x).detach().abs().max()) > 0.1, "premise: it does something"
    assert float(log_det.detach().abs().min()) > 1e-3, "premise: it changes volume"
    assert oracles.inverse_error(flow, x) < 1e-12
    assert oracles.log_det_sum(flow, x) < 1e-12
    torch.testing.assert_close(log_det, oracles.log_det_by_autograd(flow, x))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_whole_flow_is_invertible_with_a_true_log_determinant(shape: ImageShape) -> None:
    flow, x = small(shape).flow, inputs(2, *shape.chw)
    z, log_det = flow(x)
    assert z.shape == (2, shape.dims)
    assert oracles.inverse_error(flow, x) < 1e-9
    assert oracles.log_det_sum(flow, x) < 1e-9
    torch.testing.assert_close(log_det, oracles.log_det_by_autograd(flow, x))


def test_actnorm_begins_by_standardising_each_channel_of_the_first_batch() -> None:
    x = inputs(20, 4, 3, 2) * torch.tensor([1.0, 2.0, 5.0, 0.0]).view(4, 1, 1) + 3
    flow = ActNorm(4).double()
    z = flow.initialise(x)
    torch.testing.assert_close(z, flow(x)[0].detach())
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    std = z.std((0, 2, 3), correction=0)
    torch.testing.assert_close(std, torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    assert sum(p.numel() for p in flow.parameters()) == 8, "per channel, not per place"


def test_training_starts_with_every_actnorm_set_from_the_first_batch_and_only_from_that() -> None:
    model = Glow(DIGITS, Config(steps=2, scales=2))
    images = torch.randint(0, 17, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def context(step: int) -> Context:
        return Context(step, 0.0, torch.Generator().manual_seed(7), torch.device("cpu"))

    phase = model.phases()[0]
    phase.loss(Batch(images), context(0))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    y = dequantise(images, 17, context(0).uniform(*images.shape))
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, out: seen.append(out[0]))
        for module in model.modules()
        if isinstance(module, ActNorm)
    ]
    model.eval().flow(logit(y, model.config.alpha)[0])
    assert len(seen) == len(hooks) == 4
    for z in seen:
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(z.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(z.shape[1]), atol=1e-3, rtol=0)
    phase.loss(Batch(images[:32]), context(1))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_the_convolution_begins_as_a_rotation_and_its_determinant_is_read_off_its_factors() -> None:
    flow, x = InvertibleConv(6), inputs(2, 6, 3, 2)
    torch.testing.assert_close(flow.weight() @ flow.weight().T, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(flow.double()(x)[1].detach(), torch.zeros(2, dtype=torch.float64), atol=1e-5, rtol=0)
    moved(flow)
    expected = 3 * 2 * torch.linalg.slogdet(flow.weight()).logabsdet  # eq. 9
    torch.testing.assert_close(flow(x)[1], expected.expand(2))
    torch.testing.assert_close(flow(x)[0], torch.einsum("dc,bchw->bdhw", flow.weight(), x))
    assert {tuple(row) for row in flow.permutation.tolist()} == {tuple(row) for row in torch.eye(6).tolist()}


def test_a_coupling_is_the_identity_at_first_and_keeps_its_first_channels_always() -> None:
    torch.manual_seed(0)
    flow, x = SplitCoupling(Network(3, 4, 4, 2, Config()), 5).double(), inputs(3, 5, 4, 2)
    z, log_det = flow(x)
    assert torch.equal(z, x)
    assert not log_det.any()
    z = moved(flow).eval()(x)[0]
    assert ((z != x).flatten(2).all(2) == torch.tensor([False, False, False, True, True])).all()


def test_what_is_split_off_has_the_gaussian_density_that_the_rest_determines() -> None:
    torch.manual_seed(0)
    prior = Network(2, 4, 3, 2, Config(), linear=True)
    flow, x = SplitPrior(Flatten(2, 3, 2), prior, 4, 3, 2), inputs(5, 4, 3, 2)
    z, log_det = flow.double()(x)
    assert torch.equal(z, torch.cat([x[:, :2].flatten(1), x[:, 2:].flatten(1)], 1)), "at first as it is"
    moved(flow)
    z, log_det = flow(x)
    assert torch.equal(z[:, :12], x[:, :2].flatten(1))
    mean, raw = prior(x[:, :2]).chunk(2, 1)
    log_p = Normal(mean, (2 * (raw / 2).tanh()).exp()).log_prob(x[:, 2:]).flatten(1).sum(1)
    standard = Normal(0.0, 1.0).log_prob(z[:, 12:]).sum(1)
    torch.testing.assert_close(standard + log_det, log_p)
    assert oracles.inverse_error(flow, x) < 1e-12
    torch.testing.assert_close(log_det, oracles.log_det_by_autograd(flow, x))


def kinds(flow: torch.nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Squeezes, splits and the last Gaussian, in order of `encode`, with the size of what is split off."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for module in flow.modules():
        if isinstance(module, Squeeze):
            found.append(("squeeze", ()))
        elif isinstance(module, SplitPrior):
            found.append(("split", module.factored))
        elif isinstance(module, Elementwise):
            found.append(("prior", tuple(module.mean.shape)))
    return found


def test_each_scale_squeezes_and_splits_half_off_until_a_side_is_odd() -> None:
    def scales(shape: ImageShape, number: int) -> list[tuple[str, tuple[int, ...]]]:
        return sorted(kinds(multi_scale(*shape.chw, number, Config(steps=2))), key=lambda kind: -math.prod(kind[1]))

    assert scales(DIGITS, 1) == [("prior", (4, 4, 4)), ("squeeze", ())]
    assert scales(DIGITS, 2) == [("split", (2, 4, 4)), ("prior", (8, 2, 2)), ("squeeze", ()), ("squeeze", ())]
    assert scales(ImageShape(3, 28, 28), 5) == [
        ("split", (6, 14, 14)),
        ("prior", (24, 7, 7)),
        ("squeeze", ()),
        ("squeeze", ()),
    ]
    assert scales(ImageShape(1, 3, 4), 3) == [("prior", (1, 3, 4))]


def test_every_step_is_actnorm_then_convolution_then_coupling() -> None:
    for shape, last in ((DIGITS, SplitCoupling), (oracles.TWO_PIXELS, AffineCoupling)):
        flow = multi_scale(*shape.chw, 1, Config(steps=3))
        assert isinstance(flow, Chain)
        names = [type(module) for module in flow.flows if isinstance(module, ActNorm | InvertibleConv | last)]
        assert names == [ActNorm, InvertibleConv, last] * 3


def test_a_grey_image_that_cannot_be_squeezed_is_changed_everywhere() -> None:
    flow = small(ImageShape(1, 3, 3, 2)).flow
    jacobian = torch.func.jacrev(lambda v: flow(v[None])[0][0])(inputs(1, 3, 3)).reshape(9, 9)
    between = jacobian - jacobian.diagonal().diag()
    assert (between.abs().sum(1) > 1e-6).all()


def test_temperature_scales_the_noise_of_every_prior() -> None:
    model = small(DIGITS)
    z = DOUBLE.normal("z", 6, (64,))
    assert torch.equal(model.sample(6, Draw(), DOUBLE), model.sample(6, Draw(options={"temperature": 1.0}), DOUBLE))
    cool = model.sample(6, Draw(options={"temperature": 0.5}), DOUBLE)
    assert torch.equal(cool, from_signed(model.decode(0.5 * z), 17))
    assert not torch.equal(cool, model.sample(6, Draw(), DOUBLE))
    with torch.no_grad():
        y = torch.stack([model.flow(t * z, reverse=True)[0] for t in (1.0, 0.5, 0.01)])
    spread = y.std(1).mean((1, 2, 3))
    assert spread[2] < 0.1 * spread[1] < 0.1 * spread[0]


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": True}, {"temperature": "hot"}, {"heat": 1.0}])
def test_a_wrong_temperature_is_told_before_anything_is_trained(wrong: dict[str, bool | float | str]) -> None:
    with pytest.raises(UserError, match="expected a positive temperature or none"):
        Glow.check_draw(Config(), Draw(options=wrong))


def test_a_checkpoint_keeps_the_permutations_and_so_the_density(tmp_path: Path) -> None:
    model, again = small(DIGITS), small(DIGITS, seed=1)
    checkpoint.save(tmp_path, "model", model.state_dict(), {})
    loaded = checkpoint.load(tmp_path, "model")
    assert loaded is not None
    y = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    assert not torch.equal(model.log_density(y), again.log_density(y))
    again.load_state_dict(loaded[0])
    assert torch.equal(model.log_density(y), again.log_density(y))
    assert torch.equal(model.sample(3, Draw(), DOUBLE), again.sample(3, Draw(), DOUBLE))


def test_bad_settings_are_told() -> None:
    for wrong in ({"scales": 0}, {"steps": 1}, {"alpha": 0.5}, {"dropout": 1.0}, {"width": 0}):
        with pytest.raises(UserError, match="glow: expected"):
            build_config(Config, wrong, "glow")
    with pytest.raises(UserError, match="dequantisation: expected one of 'uniform', 'variational', got 'none'"):
        build_config(Config, {"dequantisation": "none"}, "glow")
    with pytest.raises(UserError, match="takes no steps, got 3"):
        small(DIGITS).sample(1, Draw(steps=3), DOUBLE)
