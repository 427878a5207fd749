"""What every autoregressive model owes, asked of each by the registry: normalised, causal, its sampler its density."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from baselines import registry, trainer
from baselines.autoregression import Autoregressive, Known, invert_cdf, raster_order
from baselines.config import build_config
from baselines.contract import Draw, Given, Noise
from baselines.data import markov_mesh
from baselines.data.likelihood import image_nats, split_nats
from baselines.errors import DivergedError
from baselines.types import Budget, ImageShape
from tests.models import oracles_likelihood as oracles

RGB = ImageShape(3, 3, 4, 5)
GREY = ImageShape(1, 6, 6, 17)
TINY_RGB = ImageShape(3, 1, 3, 2)
DOUBLE = Noise(3, dtype=torch.float64)

SMALL: Mapping[str, Mapping[str, Any]] = {
    "gated_pixelcnn": {"width": 24, "layers": 3},
    "pixelcnn": {"width": 12, "blocks": 2},
    "pixelcnnpp": {"width": 8, "blocks": 1, "components": 3},
    "pixelrnn_diagonal": {"width": 24, "layers": 2},
    "pixelrnn_row": {"width": 24, "layers": 2},
    "wavenet": {"width": 48, "skip": 24, "cycles": 1},
}
"""Sizes for tests where the default takes long."""

SMALLER: Mapping[str, Mapping[str, Any]] = {
    **SMALL,
    "gated_pixelcnn": {"width": 16, "layers": 3},
    "made": {"hidden": [200]},
    "nade": {"hidden": 100},
    "pixelrnn_diagonal": {"width": 16, "layers": 2},
    "pixelrnn_row": {"width": 16, "layers": 2},
    "wavenet": {"width": 32, "skip": 16, "cycles": 1},
}
"""Sizes for learning."""

CONTEXT = {"pixelcnn": 0.7, "pixelrnn_row": 0.7}
"""The least share of the allowed context that a model whose masks have a blind spot must see; all others see it all."""


def is_autoregressive(name: str) -> bool:
    model = registry.load(name).model
    return isinstance(trainer.build(model, oracles.BINARY, model.config(), 0), Autoregressive)


NAMES = [name for name in registry.names() if registry.load(name).family in ("autoregressive", "flows")]
NAMES = [name for name in NAMES if is_autoregressive(name)]


def built(name: str, shape: ImageShape, perturb: float = 0.1, seed: int = 0) -> Autoregressive:
    model = oracles.built(name, shape, SMALL.get(name, {}), perturb, seed)
    assert isinstance(model, Autoregressive)
    return model


def rank_of(model: Autoregressive) -> Tensor:
    """The position (D,) of each dimension in the model's order."""
    return model.order.argsort()


def some_images(shape: ImageShape, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.levels, (n, *shape.chw), generator=generator).to(torch.uint8)


def test_there_are_models_to_ask() -> None:
    assert "pixelcnn" in NAMES


@pytest.mark.parametrize("shape", [oracles.BINARY, TINY_RGB, ImageShape(3, 1, 1, 5)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_of_all_images_sum_to_one(name: str, shape: ImageShape) -> None:
    p = oracles.probabilities(built(name, shape))
    assert len(p) == shape.levels**shape.dims
    assert float(p.std() / p.mean()) > 0.05, "premise: far from uniform"
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("shape", [oracles.BINARY, TINY_RGB], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_sampler_follows_the_density(name: str, shape: ImageShape) -> None:
    model = built(name, shape, perturb=0.3)
    p = oracles.probabilities(model)
    found = oracles.sampler_distance(model, p, 6_000)
    assert abs(found.value - found.floor) < 5 * found.spread
    wrong = oracles.sampler_distance(model, p.flip(0), 6_000)
    assert wrong.value > wrong.floor + 20 * wrong.spread, "premise: the test sees another distribution"


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("shape", [GREY, RGB], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_no_conditional_depends_on_a_later_dimension(name: str, shape: ImageShape, mode: str) -> None:
    model = built(name, shape).train(mode == "train")
    found, rank = oracles.dependence(model), rank_of(model)
    assert oracles.leaks(found, rank) == 0
    assert found.diagonal().all(), "premise: a change of a pixel is seen"
    assert oracles.leaks(found, rank.flip(0)) > 0, "premise: in another order there would be leaks"


@pytest.mark.parametrize("name", NAMES)
def test_the_autograd_jacobian_is_zero_for_later_dimensions_and_not_for_the_context_that_is_claimed(name: str) -> None:
    model = built(name, RGB)
    rank = rank_of(model)
    x = torch.rand(1, *RGB.chw, dtype=torch.float64) * (RGB.levels - 1)
    weights = torch.rand(RGB.levels, 1, dtype=torch.float64)  # a plain sum of logarithms may hide a level's change
    jacobian = jacrev(lambda v: (model.log_conditionals(v)[0].flatten(1) * weights).sum(0))(x)
    reached = jacobian.view(RGB.dims, RGB.dims) != 0
    assert not (reached & ~oracles.allowed(rank)).any()
    assert (reached & oracles.allowed(rank)).sum() >= CONTEXT.get(name, 0.95) * oracles.allowed(rank).sum()


@pytest.mark.parametrize("name", NAMES)
def test_the_context_that_is_used_is_all_but_a_known_blind_spot(name: str) -> None:
    model = oracles.built(name, ImageShape(1, 8, 8, 17))
    assert isinstance(model, Autoregressive)
    fraction = oracles.context_fraction(oracles.dependence(model, bases=3), rank_of(model))
    if name in CONTEXT:
        assert CONTEXT[name] <= fraction < 1, fraction
    else:
        assert fraction == 1


@pytest.mark.parametrize("name", NAMES)
def test_colours_of_one_pixel_condition_each_other_in_the_order_red_green_blue(name: str) -> None:
    model = built(name, ImageShape(3, 1, 1, 4))
    found = oracles.dependence(model, bases=8)
    expected = torch.ones(3, 3).tril().bool()  # R | nothing, G | R, B | R, G; and each on itself
    assert torch.equal(model.order, torch.arange(3)), "premise: the colours are drawn in this order"
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_training_mode_leaks_nothing_between_images(name: str) -> None:
    assert oracles.batch_leak(built(name, GREY)) == 0


@pytest.mark.parametrize("shape", [GREY, RGB, oracles.BINARY], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_fast_sampling_equals_naive_sampling_bit_for_bit(name: str, shape: ImageShape) -> None:
    model = built(name, shape)
    naive = model.sample(8, Draw("naive"), DOUBLE)
    assert len(naive.unique()) == shape.levels, "premise: every level occurs"
    assert torch.equal(model.sample(8, Draw(), DOUBLE), naive)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "naive"])
@pytest.mark.parametrize("shape", [GREY, RGB], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_known_is_kept_and_the_rest_is_drawn_given_it(name: str, shape: ImageShape, fast: bool) -> None:
    """The first half of a sample, with the sample's own uniforms, brings its second half back."""
    model = built(name, shape)
    draw = model.draw if fast else model.draw_naively
    uniform = DOUBLE.uniform("pixels", 3, shape.chw)
    whole = draw(uniform)
    assert torch.equal(draw(uniform, Known(whole, shape.dims // 2)), whole)
    other = draw(uniform, Known(some_images(shape, 3), shape.dims // 2)).flatten(1)
    first, rest = model.order[: shape.dims // 2], model.order[shape.dims // 2 :]
    assert torch.equal(other[:, first], some_images(shape, 3).flatten(1)[:, first])
    assert not torch.equal(other[:, rest], whole.flatten(1)[:, rest]), "what is known matters"


@pytest.mark.parametrize("name", NAMES)
def test_nats_are_the_conditionals_of_the_pixels_own_levels(name: str) -> None:
    model, x = built(name, RGB), some_images(RGB, 5)
    log_p = model.log_conditionals(x).detach()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(5, *RGB.chw, dtype=torch.float64))
    nats = model.nats(x, "exact", DOUBLE)
    own = -log_p.gather(1, x.long()[:, None])[:, 0]
    torch.testing.assert_close(nats.maps["pixels"].detach(), own)
    torch.testing.assert_close(nats.total.detach(), own.flatten(1).sum(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_that_is_not_a_number_fails_and_is_not_averaged_away(name: str) -> None:
    model = built(name, GREY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(DivergedError, match="NaN"):
        image_nats(model, some_images(GREY, 2), "exact", DOUBLE)


@pytest.mark.parametrize("name", NAMES)
def test_training_on_the_markov_mesh_closes_some_of_the_gap_to_its_entropy(name: str, tmp_path: Path) -> None:
    dataset = markov_mesh.load()
    assert dataset.truth is not None
    x = dataset.test.images[:300]
    truth = dataset.truth(x).mean()
    entry = registry.load(name).model
    gaps = []
    for images in (320, 1_600):
        model = trainer.build(entry, dataset.shape, build_config(entry.config, SMALLER.get(name, {}), name), 0)
        assert isinstance(model, Autoregressive)
        trainer.Trainer(model, dataset, 0, Budget(images=images), tmp_path / str(images)).run()
        gaps.append(float(split_nats(model.eval(), x, "exact", Noise(0)).total.double().mean() - truth) / 64)
    assert 0 < gaps[1] < gaps[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_that_ships_has_a_sampler_of_its_own(name: str) -> None:
    kind = type(built(name, GREY))
    assert kind.steps is not Autoregressive.steps or kind.draw is not Autoregressive.draw


class Independent(Autoregressive):
    """Pixels of given shares, and nothing else: what a model has to bring at the least."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.shape, self.config = shape, None
        self.logits = torch.linspace(-1, 1, shape.levels * shape.dims).view(1, shape.levels, *shape.chw)

    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        return self.logits.log_softmax(1).expand(len(x), -1, -1, -1, -1)


def test_a_model_that_brings_its_conditionals_alone_is_drawn_naively() -> None:
    model = Independent(GREY)
    images = model.sample(3, Draw(), DOUBLE)
    assert torch.equal(images, model.sample(3, Draw(sampler="naive"), DOUBLE))
    uniform = DOUBLE.uniform("pixels", 3, GREY.chw)
    log_p = model.log_conditionals(images)
    assert int(images[1, 0, 2, 3]) == int(invert_cdf(log_p[1:2, :, 0, 2, 3], uniform[1:2, 0, 2, 3])[0])
    kept = model.draw(uniform, Known(some_images(GREY, 3), 20))
    assert torch.equal(kept.flatten(1)[:, :20], some_images(GREY, 3).flatten(1)[:, :20])


def test_the_inverse_cdf_gives_each_level_its_share_of_the_unit_interval() -> None:
    p = torch.tensor([[0.5, 0.0, 0.25, 0.25]], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.4999, 0.5, 0.7499, 0.75, 0.999999], dtype=torch.float64)
    levels = invert_cdf(p.log().expand(6, 4), uniform)
    assert levels.tolist() == [0, 0, 2, 2, 3, 3]


def test_raster_order_goes_by_rows_then_columns_then_colours() -> None:
    shape = ImageShape(3, 2, 4, 5)
    assert torch.equal(raster_order(shape).argsort(), oracles.raster_order(shape))
