"""PixelCNN: normalised, its sampler follows its density, no conditional sees what comes later."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import jacrev
from torch.nn import functional as F

from baselines import checkpoint
from baselines.autoregressive.pixelcnn import Config, PixelCnn
from baselines.config import build_config
from baselines.contract import Draw, Noise
from baselines.errors import UserError
from baselines.nets.masked import MaskedConv2d, causal_mask
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

RGB = ImageShape(3, 3, 4, 5)
DIGITS = ImageShape(1, 8, 8, 17)
DOUBLE = Noise(3, dtype=torch.float64)


def small(shape: ImageShape, seed: int = 0, perturb: float = 0.1, first_kernel: int = 7) -> PixelCnn:
    config = {"width": 12, "blocks": 2, "first_kernel": first_kernel}
    model = oracles.built("pixelcnn", shape, config, perturb, seed)
    assert isinstance(model, PixelCnn)
    return model


@torch.no_grad()
def naive_sample(model: PixelCnn, n: int, noise: Noise) -> Tensor:
    """The definition: the whole network for every pixel and colour, and the first level whose CDF exceeds u."""
    uniform = noise.uniform("pixels", n, model.shape.chw)
    x = torch.zeros(n, *model.shape.chw, dtype=torch.uint8)
    for row in range(model.shape.height):
        for column in range(model.shape.width):
            for colour in range(model.shape.channels):
                cdf = model.net(x)[:, :, colour, row, column].softmax(1).cumsum(1)
                above = cdf > uniform[:, colour, row, column, None]
                x[:, colour, row, column] = above.double().argmax(1).to(torch.uint8)
    return x


@pytest.mark.parametrize("shape", [oracles.BINARY, ImageShape(3, 1, 3, 2), ImageShape(3, 1, 1, 5)], ids=str)
def test_probabilities_of_all_images_sum_to_one(shape: ImageShape) -> None:
    p = oracles.probabilities(small(shape))
    assert len(p) == shape.levels**shape.dims
    assert float(p.std() / p.mean()) > 0.1, "premise: far from uniform"
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("shape", [oracles.BINARY, ImageShape(3, 1, 3, 2)], ids=str)
def test_the_sampler_follows_the_density(shape: ImageShape) -> None:
    model = small(shape, perturb=0.3)
    p = oracles.probabilities(model)
    found = oracles.sampler_distance(model, p, 20_000)
    assert abs(found.value - found.floor) < 5 * found.spread
    wrong = oracles.sampler_distance(model, p.flip(0), 20_000)
    assert wrong.value > wrong.floor + 20 * wrong.spread, "premise: the test sees another distribution"


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("shape", [DIGITS, RGB], ids=str)
def test_no_conditional_depends_on_a_later_pixel_or_colour(shape: ImageShape, mode: str) -> None:
    model = small(shape).train(mode == "train")
    found, rank = oracles.dependence(model), oracles.raster_order(shape)
    assert oracles.leaks(found, rank) == 0
    assert found.diagonal().all(), "premise: a change of a pixel is seen"
    assert oracles.leaks(found, rank.flip(0)) > 0, "premise: in another order there would be leaks"


def test_the_autograd_jacobian_of_the_logits_is_zero_for_later_pixels_and_not_for_earlier_ones() -> None:
    model = small(RGB)
    rank = oracles.raster_order(RGB)
    signed = torch.rand(1, *RGB.chw, dtype=torch.float64) * 2 - 1
    model.net._scaled = lambda x: x  # type: ignore[method-assign] # real numbers in place of levels
    jacobian = jacrev(lambda x: model.net(x)[0].flatten(1).sum(0))(signed)
    reached = jacobian.view(RGB.dims, RGB.dims) != 0
    assert not (reached & ~oracles.allowed(rank)).any()
    assert (reached & oracles.allowed(rank)).sum() > 0.8 * oracles.allowed(rank).sum()


def test_colours_of_one_pixel_condition_each_other_in_the_order_red_green_blue() -> None:
    shape = ImageShape(3, 1, 1, 4)
    found = oracles.dependence(small(shape), bases=8)
    expected = torch.ones(3, 3).tril().bool()  # R | nothing, G | R, B | R, G; and each on itself
    assert torch.equal(found, expected)


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


def test_default_context_is_all_but_the_blind_spot() -> None:
    model = oracles.built("pixelcnn", DIGITS)
    found, rank = oracles.dependence(model, bases=3), oracles.raster_order(DIGITS)
    fraction = oracles.context_fraction(found, rank)
    assert 0.85 < fraction < 1, fraction


def test_training_mode_leaks_nothing_between_images() -> None:
    model = small(DIGITS)
    assert oracles.batch_leak(model) == 0


@pytest.mark.parametrize("shape", [DIGITS, RGB, oracles.BINARY], ids=str)
def test_cached_sampling_equals_naive_sampling_bit_for_bit(shape: ImageShape) -> None:
    model = small(shape)
    naive = naive_sample(model, 16, DOUBLE)
    assert set(naive.flatten().tolist()) == set(range(shape.levels)), "premise: every level occurs"
    assert torch.equal(model.sample(16, Draw(), DOUBLE), naive)


def test_same_noise_gives_the_same_image_whatever_the_batch() -> None:
    model = small(RGB)
    whole = model.sample(6, Draw(), DOUBLE)
    parts = [model.sample(2, Draw(), DOUBLE.at(i)) for i in (4, 0, 2)]
    assert torch.equal(whole, torch.cat([parts[1], parts[2], parts[0]]))
    assert not torch.equal(whole, model.sample(6, Draw(), Noise(4, dtype=torch.float64)))


def test_nats_are_the_sum_of_the_map_and_of_each_pixels_own_log_probability() -> None:
    model = small(RGB)
    x = torch.randint(0, RGB.levels, (5, *RGB.chw), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    nats = model.nats(x, "exact", DOUBLE)
    p = model.net(x).softmax(1).detach()
    by_hand = torch.tensor(
        [[-p[b, int(v), c, i, j].log() for (c, i, j), v in _pixels(x[b])] for b in range(len(x))], dtype=torch.float64
    )
    torch.testing.assert_close(nats.total, by_hand.sum(1))
    torch.testing.assert_close(nats.maps["pixels"].flatten(1), by_hand)


def _pixels(image: Tensor) -> list[tuple[tuple[int, int, int], Tensor]]:
    return [
        ((c, i, j), image[c, i, j])
        for c in range(image.shape[0])
        for i in range(image.shape[1])
        for j in range(image.shape[2])
    ]


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


def test_a_checkpoint_keeps_density_and_samples(tmp_path: Path) -> None:
    model, again = small(RGB), small(RGB, seed=1)
    checkpoint.save(tmp_path, "model", model.state_dict(), {})
    loaded = checkpoint.load(tmp_path, "model")
    assert loaded is not None
    assert not torch.equal(model.sample(4, Draw(), DOUBLE), again.sample(4, Draw(), DOUBLE))
    again.load_state_dict(loaded[0])
    assert torch.equal(model.sample(4, Draw(), DOUBLE), again.sample(4, Draw(), DOUBLE))


def test_bad_settings_and_draws_are_told() -> None:
    for wrong in ({"first_kernel": 4}, {"kernel": 2}, {"dropout": 1.0}, {"width": 0}):
        with pytest.raises(UserError, match="pixelcnn: expected"):
            build_config(Config, wrong, "pixelcnn")
    for draw, told in ((Draw("ddim"), "no sampler 'ddim'"), (Draw(steps=3), "takes no steps, got 3")):
        with pytest.raises(UserError, match=told):
            small(DIGITS).sample(1, draw, DOUBLE)
