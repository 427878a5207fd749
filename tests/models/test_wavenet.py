"""WaveNet: the paper's layers by other means, dilations that reach all, ring buffers that cost one step a step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from baselines.autoregression import Known
from baselines.config import build_config
from baselines.contract import Draw, Noise
from baselines.data.likelihood import image_nats, to_signed
from baselines.errors import UserError
from baselines.flows.wavenet import CausalLayer, Config, FeatureDropout, WaveNet, dilations
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

GREY = ImageShape(1, 6, 6, 17)
RGB = ImageShape(3, 3, 4, 5)
DOUBLE = Noise(3, dtype=torch.float64)


def small(shape: ImageShape, perturb: float = 0.3, **values: object) -> WaveNet:
    model = oracles.built("wavenet", shape, {"width": 8, "skip": 6, **values}, perturb)
    assert isinstance(model, WaveNet)
    return model


def images(shape: ImageShape, n: int) -> Tensor:
    return torch.randint(0, shape.levels, (n, *shape.chw), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


# The layers


@pytest.mark.parametrize("dilation", [1, 2, 5, 40])
def test_a_causal_layer_is_a_dilated_convolution_of_kernel_two_over_zeros(dilation: int) -> None:
    torch.manual_seed(0)
    layer = CausalLayer(3, 4, dilation, 20, positions=False).double()
    h = torch.randn(2, 20, 3, dtype=torch.float64)
    kernel = torch.stack(layer.weight.chunk(2, 1), 2)  # (out, into, 2): the past, then now
    expected = F.conv1d(F.pad(h.mT, (dilation, 0)), kernel, layer.bias, dilation=dilation).mT
    torch.testing.assert_close(layer(h), expected)


def by_convolutions(model: WaveNet, x: Tensor) -> Tensor:
    """The logits (B, levels, D) along the sequence, from the paper's equations with `conv1d` and no code of ours."""
    net, length = model.net, model.shape.dims
    channels, height, width = model.shape.chw
    sequence = [
        to_signed(x[:, c, i, j].double(), model.shape.levels)
        for i in range(height)
        for j in range(width)
        for c in range(channels)
    ]
    h = torch.stack([torch.zeros_like(sequence[0]), *sequence[:-1]], 1)[:, None]  # (B, 1, D), shifted by one

    def causal(layer: CausalLayer, h: Tensor, dilation: int) -> Tensor:
        kernel = torch.stack(layer.weight.chunk(2, 1), 2)
        out = F.conv1d(F.pad(h, (dilation, 0)), kernel, layer.bias, dilation=dilation)
        assert layer.position is not None
        return out + layer.position.T

    h = causal(net.first, h, 1)
    total = torch.zeros(len(x), net.skip, length, dtype=h.dtype)
    for gate, out, dilation in zip(net.gates, net.outs, dilations(model.shape.dims) * model.config.cycles, strict=True):
        assert isinstance(gate, CausalLayer)
        filtered, gated = causal(gate, h, dilation).chunk(2, 1)
        z = filtered.tanh() * gated.sigmoid()  # eq. 2
        z = F.conv1d(z, out.get_parameter("weight")[..., None], out.get_parameter("bias"))
        total, h = total + z[:, : net.skip], h + z[:, net.skip :]
    hidden = F.conv1d(total.relu(), net.hidden.weight[..., None], net.hidden.bias)
    return F.conv1d(hidden.relu(), net.last.weight[..., None], net.last.bias)


@pytest.mark.parametrize("shape", [GREY, RGB], ids=str)
def test_the_conditionals_are_those_of_the_papers_convolutions(shape: ImageShape) -> None:
    model, x = small(shape, cycles=2), images(shape, 3)
    found = model.log_conditionals(x)
    expected = by_convolutions(model, x).log_softmax(1)
    in_order = found.flatten(2)[:, :, model.order]
    assert float(expected.detach().std(2).min()) > 1e-3, "premise: places differ"
    torch.testing.assert_close(in_order, expected)


# Dilations


def test_one_cycle_of_dilations_is_powers_of_two() -> None:
    assert dilations(64) == (1, 2, 4, 8, 16, 32)
    assert dilations(784) == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # the paper's
    assert dilations(1) == ()


@pytest.mark.parametrize("shape", [GREY, RGB, ImageShape(1, 1, 7, 3), ImageShape(1, 7, 1, 3)], ids=str)
def test_every_earlier_value_is_in_sight_of_one_cycle_and_not_without_its_last_dilation(shape: ImageShape) -> None:
    def reached(steps: tuple[int, ...]) -> set[int]:
        places = {1, 2}  # of the first layer of the shifted sequence
        for step in steps:
            places |= {place + step for place in places}
        return places

    steps = dilations(shape.dims)
    assert set(range(1, shape.dims)) <= reached(steps)
    assert not set(range(1, shape.dims)) <= reached(steps[:-1])
    model = small(shape, cycles=1, width=32)
    assert oracles.context_fraction(oracles.dependence(model, 8), model.order.argsort()) == 1


# Sampling


def test_a_draw_costs_the_work_of_one_pass() -> None:
    model = small(GREY).requires_grad_(False)
    with FlopCounterMode(display=False) as whole:
        model.log_conditionals(images(GREY, 4))
    with FlopCounterMode(display=False) as drawn:
        model.draw(DOUBLE.uniform("u", 4, GREY.chw))
    with FlopCounterMode(display=False) as completed:
        model.draw(DOUBLE.uniform("u", 4, GREY.chw), Known(images(GREY, 4), 20))
    assert drawn.get_total_flops() == whole.get_total_flops() == completed.get_total_flops() > 0


def test_a_ring_buffer_holds_as_many_places_as_its_dilation() -> None:
    model = small(GREY, cycles=1)
    memory = model.steps(4)
    with torch.no_grad():
        for k in range(GREY.dims):
            memory.tell(k, torch.zeros(4, dtype=torch.uint8))
    rings = [tuple(ring.shape) for ring in memory.cache.rings()]
    assert rings == [(1, 4, 1), *((dilation, 4, 8) for dilation in dilations(GREY.dims))]


@pytest.mark.parametrize("values", [{"mixtures": 3}, {"cycles": 1}, {"positions": False}], ids=str)
@pytest.mark.parametrize("shape", [GREY, RGB], ids=str)
def test_every_option_samples_as_the_naive_loop_does_bit_for_bit(shape: ImageShape, values: dict[str, object]) -> None:
    model = small(shape, **values)
    naive = model.sample(6, Draw("naive"), DOUBLE)
    assert len(naive.unique()) > 2, "premise: it varies"
    assert torch.equal(model.sample(6, Draw(), DOUBLE), naive)
    known = Known(images(shape, 6), 10)
    uniform = DOUBLE.uniform("pixels", 6, shape.chw)
    assert torch.equal(model.draw(uniform, known), model.draw_naively(uniform, known))


# Mixtures


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_a_mixture_of_logistics_is_normalised_and_its_nats_are_its_conditionals(levels: int) -> None:
    shape = ImageShape(3, 2, 3, levels)
    model, x = small(shape, mixtures=4), images(shape, 3)
    log_p = model.log_conditionals(x)
    assert log_p.shape == (3, levels, *shape.chw)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(3, *shape.chw, dtype=torch.float64))
    own = -log_p.gather(1, x.long()[:, None])[:, 0]
    torch.testing.assert_close(image_nats(model, x, "exact", DOUBLE).maps["pixels"], own)


def test_a_mixture_sums_to_one_over_all_images_and_sees_no_later_value() -> None:
    model = small(oracles.BINARY, mixtures=2)
    assert float(oracles.probabilities(model).sum()) == pytest.approx(1, abs=1e-9)
    found = oracles.dependence(small(RGB, mixtures=2, width=32))
    rank = small(RGB).order.argsort()
    assert oracles.leaks(found, rank) == 0
    assert oracles.context_fraction(found, rank) == 1


# The rest


def test_dropout_drops_a_feature_in_all_places_of_an_image_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    h = torch.ones(2000, 5, 8)
    dropped = FeatureDropout(0.25).train()(h)
    assert bool((dropped == dropped[:, :1]).all())
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 4 / 3]))
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(FeatureDropout(0.25).eval()(h), h)


def test_same_noise_gives_the_same_image_whatever_the_batch() -> None:
    model = small(RGB)
    whole = model.sample(6, Draw(), DOUBLE)
    assert torch.equal(whole, torch.cat([model.sample(2, Draw(), DOUBLE.at(i)) for i in (0, 2, 4)]))


def test_bad_settings_are_told() -> None:
    for wrong in ({"width": 0}, {"skip": 0}, {"cycles": 0}, {"mixtures": -1}, {"dropout": 1.0}):
        with pytest.raises(UserError, match="wavenet: expected"):
            build_config(Config, wrong, "wavenet")
