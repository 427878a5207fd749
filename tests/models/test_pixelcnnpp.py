"""PixelCNN++: mixtures over whole pixels, colours linear in earlier ones, streams of several sizes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.autoregression import invert_cdf
from baselines.autoregressive.pixelcnnpp import Config, Double, Level, PixelCnnPp, concat_elu, invert_mixture
from baselines.config import build_config
from baselines.contract import Draw, Noise
from baselines.data.likelihood import logistic_mixture_levels
from baselines.errors import UserError
from baselines.nets.raster import Memory, Region
from baselines.types import ImageShape
from bench.measure.workload import capture_calls
from tests.models import oracles_likelihood as oracles

RGB = ImageShape(3, 3, 4, 5)
DOUBLE = Noise(3, dtype=torch.float64)


def small(shape: ImageShape, perturb: float = 0.2, **config: Any) -> PixelCnnPp:
    model = oracles.built("pixelcnnpp", shape, {"width": 8, "blocks": 1, "components": 3, **config}, perturb)
    assert isinstance(model, PixelCnnPp)
    return model


def rounded(level: int, levels: int, mean: Tensor, scale: Tensor) -> Tensor:
    """A logistic's mass of one level, by differences of its CDF, the outer bins open."""
    low = -torch.inf if level == 0 else (2 * level - 1) / (levels - 1) - 1
    high = torch.inf if level == levels - 1 else (2 * level + 1) / (levels - 1) - 1
    return torch.sigmoid((high - mean) / scale) - torch.sigmoid((low - mean) / scale)


@torch.no_grad()
def test_a_pixel_is_one_mixture_over_red_green_and_blue_with_linear_means() -> None:
    """P(r, g, b) = sum_k pi_k P_k(r) P_k(g | r) P_k(b | r, g), with eq. 3 for the means, of every colour there is."""
    shape = ImageShape(3, 1, 1, 4)
    model = small(shape, perturb=0.3)
    images = oracles.all_images(shape)
    found = torch.exp(-model.nats(images, "exact", DOUBLE).total)
    out = model.net(images[:1])[0, :, 0, 0].view(3, 10)
    pi, means, scales, slopes = out[:, 0].softmax(0), out[:, 1:4], out[:, 4:7].exp(), out[:, 7:].tanh()
    assert float(slopes.abs().max()) > 0.3, "premise: colours matter to each other"
    for image, p in zip(images[:, :, 0, 0].tolist(), found, strict=True):
        r, g, _ = (2 * level / 3 - 1 for level in image)
        mean = means[:, 0], means[:, 1] + slopes[:, 0] * r, means[:, 2] + slopes[:, 1] * r + slopes[:, 2] * g
        each = [rounded(image[c], 4, mean[c], scales[:, c]) for c in range(3)]
        torch.testing.assert_close(p, (pi * each[0] * each[1] * each[2]).sum())


def test_the_mixtures_own_cdf_inverts_as_its_cumulated_levels_do() -> None:
    torch.manual_seed(0)
    for levels in (2, 17, 256):
        weights, mean, log_scale = torch.randn(3, 500, 4, dtype=torch.float64)
        uniform = torch.rand(500, dtype=torch.float64)
        mixture = weights, mean, 2 * log_scale - 3
        expected = invert_cdf(logistic_mixture_levels(*mixture, levels), uniform)
        assert len(expected.unique()) > min(levels, 17) // 2, "premise: many levels occur"
        assert torch.equal(invert_mixture(*mixture, levels, uniform), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 7), (6, 4), (8, 8)])
@pytest.mark.parametrize("sizes", [1, 2, 3])
def test_any_size_can_be_halved_and_doubled_and_fast_draws_equal_naive_ones(size: tuple[int, int], sizes: int) -> None:
    shape = ImageShape(2, *size, 5)
    model = small(shape, sizes=sizes)
    with capture_calls(model) as calls:
        fast = model.sample(2, Draw(), DOUBLE)
    assert calls.count == shape.height * shape.width
    assert torch.equal(fast, model.sample(2, Draw("naive"), DOUBLE))


def test_smaller_sizes_are_passed_through_for_every_other_pixel_of_every_other_row() -> None:
    model = small(ImageShape(1, 8, 6, 5), sizes=3)
    called = []
    for level in model.net.modules():
        if isinstance(level, Level):
            level.register_forward_pre_hook(lambda level, _: called.append(level.size))
    model.sample(1, Draw(), DOUBLE)
    assert [called.count(size) for size in ((8, 6), (4, 3), (2, 2))] == [48, 12, 4]


@torch.no_grad()
def test_the_downward_stream_sees_the_rows_above_and_the_other_the_pixels_row_too() -> None:
    """Two sizes; by changing one pixel at a time."""
    shape = ImageShape(1, 6, 6, 5)
    net = small(shape).net
    x = torch.randint(0, 5, (1, 1, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def streams(x: Tensor) -> tuple[Tensor, Tensor]:
        y = net._scaled(x)
        return net.level(net.above(y), net.row_above(y) + net.left(y))

    before = streams(x)
    for row, column in itertools.product(range(6), range(6)):
        changed = x.clone()
        changed[0, 0, row, column] = (changed[0, 0, row, column] + 1) % 5
        u, ul = ((a != b).any(1)[0] for a, b in zip(streams(changed), before, strict=True))
        rank = torch.arange(36).view(6, 6)
        assert not u[: row + 1].any()
        assert u[row + 1 :, column].all()
        assert not ul[rank <= rank[row, column]].any()
        assert ul[rank == rank[row, column] + 1].all() or column == 5


@torch.no_grad()
def test_doubling_is_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    layer, x = Double(3).double(), torch.randn(2, 3, 2, 3, dtype=torch.float64)
    weight = layer.conv.weight[:, :, 0, 0].view(2, 2, 3, 3).permute(3, 2, 0, 1)  # (into, out, row, column)
    whole = torch.nn.functional.conv_transpose2d(x, weight, stride=2) + layer.conv.bias.view(2, 2, 3).permute(
        2, 0, 1
    ).repeat(1, 2, 3)
    torch.testing.assert_close(layer(x, (4, 6)), whole)
    torch.testing.assert_close(layer(x, (3, 5)), whole[:, :, :3, :5])
    memory = Memory(2, 3, 5)
    layer.keep(x[:, :, 1].transpose(1, 2).reshape(-1, 3), Region(1, 0, 1, 3), memory)
    found = memory.recall(layer, Region(2, 0, 1, 5)).view(2, 5, 3)
    torch.testing.assert_close(found, whole[:, :, 2, :5].transpose(1, 2))


def test_concatenated_elus_keep_both_signs() -> None:
    x = torch.tensor([[2.0, -3.0]])
    expected = torch.tensor([[2.0, torch.e**-3 - 1, torch.e**-2 - 1, 3.0]])
    torch.testing.assert_close(concat_elu(x), expected)


def test_bad_settings_are_told() -> None:
    for wrong in ({"width": 0}, {"blocks": 0}, {"sizes": 0}, {"components": 0}, {"dropout": -0.1}):
        with pytest.raises(UserError, match="pixelcnnpp: expected"):
            build_config(Config, wrong, "pixelcnnpp")
