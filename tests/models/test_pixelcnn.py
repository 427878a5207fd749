"""PixelCNN: its masks, their blind spot, and fronts of pixels that are as many whatever its depth."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from baselines.autoregressive.pixelcnn import Config, PixelCnn
from baselines.config import build_config
from baselines.contract import Draw, Noise
from baselines.errors import UserError
from baselines.nets.masked import MaskedConv2d, causal_mask
from baselines.types import ImageShape
from bench.measure.workload import capture_calls
from tests.models import oracles_likelihood as oracles

DIGITS = ImageShape(1, 8, 8, 17)
DOUBLE = Noise(3, dtype=torch.float64)


def small(shape: ImageShape, seed: int = 0, perturb: float = 0.1, first_kernel: int = 7) -> PixelCnn:
    config = {"width": 12, "blocks": 2, "first_kernel": first_kernel}
    model = oracles.built("pixelcnn", shape, config, perturb, seed)
    assert isinstance(model, PixelCnn)
    return model


def test_the_blind_spot_is_that_of_a_single_masked_stack() -> None:
    model = small(DIGITS, first_kernel=3)
    found = oracles.dependence(model, bases=6).view(8, 8, 8, 8)
    for row in range(8):
        for column in range(8):
            for other in range(8):
                for beside in range(8):
                    if (other, beside) == (row, column):
                        continue
                    seen = _reaches(layers=3, up=row - other, right=beside - column)
                    assert bool(found[row, column, other, beside]) == seen, (row, column, other, beside)


def _reaches(layers: int, up: int, right: int) -> bool:
    """Whether a stack of 3x3 layers, one of mask A, sees the pixel `up` rows above and `right` columns to the right.

    Each layer moves up a row and by -1, 0 or 1 columns, or one to the left in its row, or (mask B) not at all; so
    nothing right of the diagonal is seen.
    """
    places = {(0, 0)}
    for layer in range(layers):
        steps = [(1, -1), (1, 0), (1, 1), (0, -1)] + ([(0, 0)] if layer < layers - 1 else [])
        places = {(u + du, r + dr) for u, r in places for du, dr in steps}
    return (up, right) in places


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_takes_a_call_for_each_front_however_deep_the_network_is(blocks: int, channels: int) -> None:
    shape = ImageShape(channels, 6, 11, 4)
    config = {"width": 6, "blocks": blocks, "first_kernel": 5, "kernel": 3}
    model = oracles.built("pixelcnn", shape, config)
    with capture_calls(model) as calls:
        fast = model.sample(3, Draw(), DOUBLE)
    assert calls.count == channels * (11 + 3 * 5), "skew 3: the first layer reaches two columns to the right"
    assert torch.equal(fast, model.sample(3, Draw("naive"), DOUBLE))


def test_leaving_out_the_masked_rows_equals_the_whole_masked_kernel() -> None:
    layer = MaskedConv2d(6, 9, 5, "A", 3).double()
    x = torch.randn(2, 6, 4, 7, dtype=torch.float64)
    whole = torch.zeros(9, 6, 5, 5, dtype=torch.float64)
    whole[:, :, :3] = (layer.weight * layer.mask).detach()
    torch.testing.assert_close(layer(x), F.conv2d(x, whole, layer.bias, padding=2))


def test_mask_b_adds_to_mask_a_the_pixels_own_colour() -> None:
    a, b = causal_mask("A", 3, 6, 3, 3), causal_mask("B", 3, 6, 3, 3)
    centre = (b - a)[:, :, 1, 1]
    assert torch.equal(centre, torch.eye(3).repeat_interleave(2, 0))
    assert float((b - a).sum()) == float(centre.sum())
    with pytest.raises(ValueError, match="odd kernel"):
        causal_mask("A", 3, 6, 4, 3)
    with pytest.raises(ValueError, match="divisible by 3"):
        causal_mask("A", 3, 7, 3, 3)


def test_bad_settings_and_draws_are_told() -> None:
    for wrong in ({"first_kernel": 4}, {"kernel": 2}, {"dropout": 1.0}, {"width": 0}):
        with pytest.raises(UserError, match="pixelcnn: expected"):
            build_config(Config, wrong, "pixelcnn")
    for draw, told in ((Draw("ddim"), "no sampler 'ddim'"), (Draw(steps=3), "takes no steps, got 3")):
        with pytest.raises(UserError, match=told):
            small(DIGITS).sample(1, draw, DOUBLE)
