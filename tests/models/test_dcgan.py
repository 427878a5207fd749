"""DCGAN: the value of its game on a discrete toy, its gradients, and the architecture of the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor, nn

from baselines.contract import Batch, Context, Draw, Noise
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans.dcgan import Config, Dcgan
from baselines.gans.losses import discriminator_loss, generator_loss
from baselines.nets.conv import double, halve, halvings
from baselines.nets.slow_norm import SlowBatchNorm
from baselines.types import ImageShape

SHAPES = {
    "digits": ImageShape(1, 8, 8, 17),
    "mnist": ImageShape(1, 28, 28, 256),
    "binary": ImageShape(1, 3, 3, 2),
    "rgb": ImageShape(3, 32, 32, 256),
    "oblong": ImageShape(3, 5, 17, 256),
}


def context(step: int = 0) -> Context:
    return Context(step, 0.5, torch.Generator().manual_seed(step), torch.device("cpu"))


def batch_of(shape: ImageShape, n: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randint(0, shape.levels, (n, *shape.chw), generator=generator, dtype=torch.uint8))


def game(p: list[int], q: list[int]) -> tuple[float, Tensor]:
    """min over D of the discriminator's loss, and the D(x) that reaches it; p, q: samples at each of len(p) points."""
    points = torch.arange(len(p))
    real, fake = points.repeat_interleave(torch.tensor(p)), points.repeat_interleave(torch.tensor(q))
    logits = torch.zeros(len(p), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        total = discriminator_loss(logits[real], logits[fake]).total
        total.backward()
        return total

    optimiser.step(loss)
    return loss().item(), torch.sigmoid(logits.detach())


# The game (Goodfellow et al. 2014, section 4)


def test_at_equal_distributions_the_best_discriminator_answers_half_and_loses_two_ln_two() -> None:
    value, d = game([4, 3, 2, 1], [4, 3, 2, 1])
    assert value == pytest.approx(2 * math.log(2), abs=1e-10)
    torch.testing.assert_close(d, torch.full((4,), 0.5, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("q", [[1, 2, 3, 4], [5, 3, 1, 1], [1, 1, 1, 7]])
def test_at_other_distributions_its_loss_is_two_ln_two_less_two_jsd(q: list[int]) -> None:
    p = [4, 3, 2, 1]
    value, d = game(p, q)
    jsd = jensenshannon(p, q) ** 2
    assert jsd > 0.01
    assert value == pytest.approx(2 * math.log(2) - 2 * jsd, abs=1e-8)
    np.testing.assert_allclose(d.numpy(), np.array(p) / (np.array(p) + np.array(q)), atol=1e-4)


def test_the_generators_loss_does_not_saturate_where_the_discriminator_is_sure() -> None:
    logits = torch.tensor([-12.0], requires_grad=True)
    (ours,) = torch.autograd.grad(generator_loss(logits).total, logits)
    (minimax,) = torch.autograd.grad(torch.log(1 - torch.sigmoid(logits)).mean(), logits)
    assert float(ours) == pytest.approx(-1, abs=1e-4)
    assert abs(float(minimax)) < 1e-4
    assert generator_loss(torch.tensor([0.0])).total.item() == pytest.approx(math.log(2))


# Gradients


def test_the_gradient_reaches_all_of_the_generator_and_each_loss_its_own_network() -> None:
    shape = SHAPES["digits"]
    model = Dcgan(shape, Config())
    model.generator_loss(batch_of(shape), context()).total.backward()
    for name, parameter in model.generator.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    model.zero_grad()
    model.discriminator_loss(batch_of(shape), context()).total.backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert all(float(p.grad.abs().max()) > 0 for p in model.discriminator.parameters() if p.grad is not None)
    assert [phase.modules for phase in model.phases()] == [("discriminator",), ("generator",)]


def test_a_step_of_each_network_lowers_its_own_loss() -> None:
    shape = SHAPES["digits"]
    torch.manual_seed(0)
    model, batch = Dcgan(shape, Config()), batch_of(shape, 64)
    for phase in model.phases():
        parameters = [p for name in phase.modules for p in model.get_submodule(name).parameters()]
        before = phase.loss(batch, context()).total
        gradients = torch.autograd.grad(before, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 1e-3 * gradient
            assert float(phase.loss(batch, context()).total) < float(before)


def test_the_discriminator_sees_real_and_generated_images_blurred_by_no_more_than_their_level() -> None:
    shape = SHAPES["digits"]
    model = Dcgan(shape, Config())
    seen: list[Tensor] = []
    model.discriminator.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = batch_of(shape)
    model.discriminator_loss(batch, context())
    noise = (seen[0] - to_signed(batch.images, 17)) * 8  # in levels
    assert 0.45 < float(noise.abs().max()) <= 0.5 + 1e-5
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1 / math.sqrt(12), rel=0.1)


# The architecture (Radford et al. 2016, section 3)


def kinds(network: nn.Module) -> list[str]:
    known = (nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.ConvTranspose2d, nn.Conv2d)
    leaves = [layer for layer in network.modules() if not list(layer.children())]
    return [next((k.__name__ for k in known if isinstance(layer, k)), type(layer).__name__) for layer in leaves]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_architecture_is_the_papers(shape: ImageShape) -> None:
    model = Dcgan(shape, Config(width=8))
    g, d = kinds(model.generator), kinds(model.discriminator)
    assert not [kind for kind in g + d if "Pool" in kind or kind == "Linear"], "no pooling, no dense layers"
    ups = [layer for layer in model.generator.modules() if isinstance(layer, nn.ConvTranspose2d)]
    downs = [layer for layer in model.discriminator.modules() if isinstance(layer, nn.Conv2d)]
    assert all(layer.stride == (2, 2) for layer in ups[1:] + downs[:-1])
    assert g.count("BatchNorm2d") == g.count("ReLU") == len(ups) - 1, "batch norm in G after all but its output"
    assert g[-2:] == ["ConvTranspose2d", "Tanh"]
    assert d[:2] == ["Conv2d", "LeakyReLU"], "none after D's input"
    assert d.count("LeakyReLU") == len(downs) - 1
    assert d.count("BatchNorm2d") == len(downs) - 2
    z = torch.randn(4, model.config.latent)
    assert model.generator(z).shape == (4, *shape.chw)
    assert model.discriminator(model.generator(z)).shape == (4,)


def test_weights_begin_as_in_the_paper() -> None:
    torch.manual_seed(0)
    model = Dcgan(SHAPES["mnist"], Config())
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 10_000:
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        if isinstance(layer, nn.BatchNorm2d):
            assert float(layer.weight.detach().mean()) == pytest.approx(1, abs=0.02)


def test_a_size_halves_and_doubles_back_with_nothing_cropped() -> None:
    assert halvings((28, 28), smallest=4) == ((28, 28), (14, 14), (7, 7), (4, 4))
    for height in range(2, 34):
        size = (height, 2 * height - 1)
        half = halve(1, 2, size)(torch.zeros(1, 1, *size))
        assert half.shape[2:] == halvings(size, smallest=1)[1]
        assert double(2, 1, size)(half).shape[2:] == size


# Sampling


def test_running_statistics_start_at_the_first_batch_and_then_average_over_the_wanted_span() -> None:
    layer = SlowBatchNorm(1, slowest=0.02)
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)) + 5
    for value in values:
        layer(value + torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))
        if int(layer.num_batches_tracked) == 1:
            assert float(layer.running_mean) == pytest.approx(float(value), rel=1e-6)
    weights = 0.02 * 0.98 ** torch.arange(1999, -1, -1).double()
    assert float(layer.running_mean) == pytest.approx(float(weights @ values.double()), rel=1e-4)


def test_sampling_uses_running_statistics_and_all_levels_are_reachable() -> None:
    shape = SHAPES["digits"]
    model = Dcgan(shape, Config()).eval()
    images = model.sample(3, Draw(), Noise(0))
    assert torch.equal(images, model.sample(3, Draw(), Noise(0)))
    assert torch.equal(images[1:], model.sample(2, Draw(), Noise(0, first=1)))
    last = [layer for layer in model.generator.modules() if isinstance(layer, nn.ConvTranspose2d)][-1]
    with torch.no_grad():
        for layer in model.generator.modules():
            if isinstance(layer, SlowBatchNorm):
                layer.train()
        model.generator(torch.randn(500, model.config.latent))
        model.eval()
        last.weight.mul_(4)
    assert set(model.sample(200, Draw(), Noise(0)).unique().tolist()) == set(range(17))


def test_bad_choices_are_refused() -> None:
    with pytest.raises(UserError, match=r"dcgan\.latent"):
        Config(latent=0)
    with pytest.raises(UserError, match="ddim"):
        Dcgan(SHAPES["digits"], Config()).sample(1, Draw("ddim"), Noise(0))
