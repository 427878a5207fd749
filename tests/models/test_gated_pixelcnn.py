"""Gated PixelCNN: two stacks without a blind spot, gates, and a conditional model that is a mixture over classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.autoregression import Known
from baselines.autoregressive.gated_pixelcnn import Config, GatedPixelCnn, Layer
from baselines.config import build_config
from baselines.contract import Batch, Context, Draw, Given, Noise
from baselines.errors import UserError
from baselines.nets.raster import schedule
from baselines.types import ImageShape
from bench.measure.workload import capture_calls
from tests.models import oracles_likelihood as oracles

WIDE = ImageShape(1, 4, 20, 3)
WIDE_RGB = ImageShape(3, 3, 16, 4)
RGB = ImageShape(3, 3, 4, 5)
DOUBLE = Noise(3, dtype=torch.float64)
CLASSES = 3


def small(shape: ImageShape, perturb: float = 0.2, **config: Any) -> GatedPixelCnn:
    model = oracles.built("gated_pixelcnn", shape, {"width": 9, "layers": 2, **config}, perturb)
    assert isinstance(model, GatedPixelCnn)
    return model


def conditional(shape: ImageShape, perturb: float = 0.3) -> GatedPixelCnn:
    """Of three classes, seen 5, 1 and 2 times."""
    model = small(shape, perturb, conditional=True, classes=CLASSES)
    model.counts.copy_(torch.tensor([5, 1, 2]))
    with torch.no_grad():
        for layer in model.net.layers:
            assert isinstance(layer, Layer)
            assert layer.classes is not None
            layer.classes.weight.normal_(std=2.0)
    return model


def of_class(label: int, n: int) -> Given:
    return Given(torch.full((n,), label))


@pytest.mark.parametrize("shape", [WIDE, WIDE_RGB], ids=str)
def test_fronts_on_wide_images_equal_naive_sampling_and_take_fewer_calls(shape: ImageShape) -> None:
    model = small(shape, first_kernel=3)
    _, height, width = shape.chw
    with capture_calls(model) as calls:
        fast = model.sample(4, Draw(), DOUBLE)
    skew = 3  # two layers, each reaching one column to the right
    assert calls.count == shape.channels * (width + skew * (height - 1)) < shape.dims, "premise: fronts"
    assert torch.equal(fast, model.sample(4, Draw("naive"), DOUBLE))


def test_small_images_are_drawn_pixel_by_pixel_with_the_row_above_in_one_pass() -> None:
    steps = list(schedule(8, 8, (3, 1, 1, 1, 1)))
    assert len(steps) == 64
    assert [region.row for region, above in steps if above is not None] == list(range(1, 8))
    assert len(list(schedule(28, 28, (3, 1, 1, 1, 1, 1)))) == 28 + 9 * 27


@pytest.mark.parametrize("first_kernel", [3, 5])
def test_a_pixel_sees_as_far_right_above_it_as_the_layers_reach_in_all(first_kernel: int) -> None:
    """Where PixelCNN is blind: in the row above, and at any distance to the right that the vertical stack covers."""
    shape = ImageShape(1, 3, 9, 4)
    found = oracles.dependence(small(shape, first_kernel=first_kernel), bases=6).view(3, 9, 3, 9)
    reach = first_kernel // 2 + 1
    assert found[1, 4, 0].tolist() == [abs(c - 4) <= reach for c in range(9)]
    assert found[2, 4, 1].tolist() == [abs(c - 4) <= reach for c in range(9)]
    assert found[1, 8, 1, :8].tolist() == [8 - c <= reach for c in range(8)]


@torch.no_grad()
def test_a_layer_is_two_gated_convolutions_joined_one_row_up() -> None:
    """By whole kernels with zeros where nothing may be seen (Fig. 2 and eq. 2)."""
    torch.manual_seed(0)
    width = 6
    layer = Layer(False, width, RGB, Config(conditional=True, classes=2)).double().eval()
    v, h = torch.randn(2, 2, width, 3, 4, dtype=torch.float64)
    labels = torch.tensor([1, 0])
    assert layer.classes is not None
    assert layer.horizontal.position is not None
    layer.horizontal.position.normal_()
    of_v, of_h = layer.classes.weight[labels].split(2 * width, 1)

    kernel = torch.zeros(2 * width, width, 3, 3, dtype=torch.float64)
    kernel[:, :, :2] = layer.vertical.weight
    above = F.conv2d(v, kernel, layer.vertical.bias, padding=1)
    new_v = gate(above + of_v[:, :, None, None])
    kernel = torch.zeros(2 * width, width, 3, 3, dtype=torch.float64)
    kernel[:, :, 1, :2] = layer.horizontal.masked_weight()[:, :, 0]
    row = F.conv2d(h, kernel, layer.horizontal.bias, padding=1) + layer.horizontal.position
    down = torch.cat([torch.zeros_like(above[:, :, :1]), above[:, :, :-1]], 2)
    row = row + torch.einsum("oi,bihw->bohw", layer.link.weight[:, :, 0, 0], down) + layer.link.bias[:, None, None]
    gated = gate(row + of_h[:, :, None, None])
    out = torch.einsum("oi,bihw->bohw", layer.out.masked_weight()[:, :, 0, 0], gated) + layer.out.bias[:, None, None]
    found_v, found_h = layer(v, h, labels, None)
    torch.testing.assert_close(found_v, v + new_v)
    torch.testing.assert_close(found_h, h + out)


def gate(x: Tensor) -> Tensor:
    f, g = x.split(x.shape[1] // 2, 1)
    return f.tanh() * g.sigmoid()


@torch.no_grad()
def test_a_conditional_models_likelihood_is_that_of_the_mixture_over_training_classes() -> None:
    model = conditional(oracles.BINARY)
    images = oracles.all_images(oracles.BINARY)
    each = torch.stack(
        [-model.dimension_nats(images, of_class(h, len(images))).flatten(1).sum(1) for h in range(CLASSES)]
    )
    torch.testing.assert_close(each.exp().sum(1), torch.ones(CLASSES, dtype=torch.float64))
    assert float((each[0].exp() - each[1].exp()).abs().sum()) > 0.3, "premise: classes differ"
    expected = (torch.tensor([6, 2, 3], dtype=torch.float64) / 11) @ each.exp()  # each class once more than seen
    torch.testing.assert_close(oracles.probabilities(model), expected)


@torch.no_grad()
@pytest.mark.parametrize("shape", [oracles.BINARY, RGB], ids=str)
def test_a_conditional_models_conditionals_are_those_of_its_joint(shape: ImageShape) -> None:
    model = conditional(shape)
    x = torch.randint(0, shape.levels, (6, *shape.chw), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    log_p = model.log_conditionals(x)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(6, *shape.chw, dtype=torch.float64))
    own = -log_p.gather(1, x.long()[:, None])[:, 0]
    torch.testing.assert_close(model.nats(x, "exact", DOUBLE).maps["pixels"], own)
    rank = oracles.raster_order(shape)
    assert oracles.leaks(oracles.dependence(model), rank) == 0


def test_without_labels_a_conditional_model_draws_from_its_mixture_and_with_them_from_their_class() -> None:
    model = conditional(oracles.BINARY)
    p = oracles.probabilities(model)
    found = oracles.sampler_distance(model, p, 20_000)
    assert abs(found.value - found.floor) < 5 * found.spread
    with torch.no_grad():
        images = oracles.all_images(oracles.BINARY)
        log_p = -model.dimension_nats(images, of_class(1, len(images))).flatten(1).sum(1)
    drawn = oracles.index_of(model.sample(20_000, Draw(), DOUBLE, of_class(1, 20_000)), 2)
    counts = torch.bincount(drawn, minlength=len(p)).double() / 20_000
    assert float((counts - log_p.exp()).abs().sum()) / 2 < 0.6 * float((counts - p).abs().sum()) / 2


@pytest.mark.parametrize("given", [None, Given(torch.tensor([0, 2, 1, 1]))], ids=["mixture", "labels"])
@pytest.mark.parametrize("shape", [ImageShape(1, 5, 5, 4), RGB, WIDE], ids=str)
def test_conditional_draws_equal_naive_ones_and_keep_what_is_known(shape: ImageShape, given: Given | None) -> None:
    model, uniform = conditional(shape), DOUBLE.uniform("pixels", 4, shape.chw)
    whole = model.draw(uniform, None, given)
    assert torch.equal(whole, model.draw_naively(uniform, None, given))
    assert torch.equal(model.draw(uniform, Known(whole, shape.dims // 2), given), whole)
    other = Known(whole.flip(0), shape.dims // 2)
    assert torch.equal(model.draw(uniform, other, given), model.draw_naively(uniform, other, given))
    assert torch.equal(model.sample(4, Draw(), DOUBLE, given), model.sample(4, Draw("naive"), DOUBLE, given))


def test_classes_are_counted_while_training_and_labels_are_asked_for() -> None:
    model = small(RGB, conditional=True, classes=CLASSES)
    x = torch.zeros(4, *RGB.chw, dtype=torch.uint8)
    context = Context(0, 0.0, torch.Generator(), torch.device("cpu"))
    phase = model.phases()[0]
    for labels in ([0, 1, 1, 1], [1, 1, 0, 1]):
        phase.loss(Batch(x, torch.tensor(labels)), context)
    assert model.counts.tolist() == [2, 6, 0]
    torch.testing.assert_close(model.log_frequencies.exp(), torch.tensor([3, 7, 1], dtype=torch.float64) / 11)
    with pytest.raises(UserError, match="data set with labels"):
        phase.loss(Batch(x), context)
    with pytest.raises(UserError, match=r"labels 0 \.\. 2 \(classes\), got 0 \.\. 3"):
        model.sample(2, Draw(), DOUBLE, Given(torch.tensor([0, 3])))


def test_bad_settings_are_told() -> None:
    for wrong in ({"first_kernel": 4}, {"kernel": 1}, {"dropout": 1.0}, {"width": 0}, {"classes": 0}):
        with pytest.raises(UserError, match="gated_pixelcnn: expected"):
            build_config(Config, wrong, "gated_pixelcnn")
