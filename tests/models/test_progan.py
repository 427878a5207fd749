"""ProGAN: how it grows, that nothing jumps while it does, and the layers that keep it stable."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines import checkpoint, trainer
from baselines.contract import Batch, Context, Draw, Noise, Training
from baselines.data.dataset import Dataset, Split
from baselines.errors import UserError
from baselines.gans.losses import slope_penalty
from baselines.gans.progan import MODEL, Config, Progan
from baselines.gans.progressive import Growth, at_growth, doubled, growth_at, halved, resolutions
from baselines.nets.equalised import EqualisedConv, EqualisedLinear, MinibatchDeviation, PixelNorm
from baselines.types import Budget, ImageShape

LARGE = ImageShape(1, 16, 16, 256)
SMALL = Config(latent=8, width=4, widest=8, grown=0.5, training=Training(8, 0.9))


def context(fraction: float = 0.9, seed: int = 0) -> Context:
    return Context(0, fraction, torch.Generator().manual_seed(seed), torch.device("cpu"))


def images_of(shape: ImageShape = LARGE, n: int = 8) -> Tensor:
    return torch.randint(0, shape.levels, (n, *shape.chw), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def built(shape: ImageShape = LARGE, config: Config = SMALL) -> Progan:
    torch.manual_seed(0)
    return Progan(shape, config)


# Growth (Karras et al. 2018, section 2)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((16, 16), ((4, 4), (8, 8), (16, 16))),
        ((28, 28), ((7, 7), (14, 14), (28, 28))),
        ((8, 8), ((4, 4), (8, 8))),
        ((3, 3), ((3, 3),)),
        ((5, 17), ((5, 17),)),
        ((12, 24), ((3, 6), (6, 12), (12, 24))),
    ],
)
def test_sizes_double_up_to_the_images_own(size: tuple[int, int], expected: tuple[tuple[int, int], ...]) -> None:
    assert resolutions(size) == expected


def test_stages_learn_and_fade_in_by_turns_in_equal_parts_of_the_budget() -> None:
    places = [growth_at((i + 0.5) / 10, 3, 0.4) for i in range(10)]
    assert [p.stage for p in places[:4]] == [0, 1, 1, 2]
    assert [p.alpha for p in places[:4]] == pytest.approx([1, 0.5, 1, 0.5])
    assert [p.settled for p in places[:3:2]] == pytest.approx([0.5, 0.5])
    assert all((p.stage, p.alpha) == (2, 1) for p in places[4:])
    assert growth_at(0.1, 3, 0.4) == Growth(1, alpha=0.0)
    assert growth_at(1.0, 3, 0.4) == Growth(2, settled=1.0)
    assert growth_at(0.3, 1, 0.4).stage == 0, "a single stage does not grow"


@pytest.mark.parametrize("stage", [1, 2])
def test_the_generator_fades_in_without_a_jump(stage: int) -> None:
    model = built()
    z = torch.randn(5, 8)
    before, begun = model.generator(z, Growth(stage - 1)), model.generator(z, Growth(stage, 0.0))
    torch.testing.assert_close(begun, doubled(before), rtol=0, atol=0)
    whole, nearly = model.generator(z, Growth(stage)), model.generator(z, Growth(stage, 1 - 1e-6))
    torch.testing.assert_close(nearly, whole, rtol=0, atol=1e-4)
    half = model.generator(z, Growth(stage, 0.5))
    torch.testing.assert_close(half, (begun + whole) / 2)
    assert not torch.allclose(begun, whole, atol=0.1), "the premise: a jump would show"


@pytest.mark.parametrize("stage", [1, 2])
def test_the_discriminator_fades_in_without_a_jump(stage: int) -> None:
    model = built()
    x = torch.randn(5, 1, *model.resolutions[stage])
    begun = model.discriminator(x, Growth(stage, 0.0))
    torch.testing.assert_close(begun, model.discriminator(halved(x), Growth(stage - 1)))
    whole, nearly = model.discriminator(x, Growth(stage)), model.discriminator(x, Growth(stage, 1 - 1e-6))
    torch.testing.assert_close(nearly, whole, rtol=0, atol=1e-4)
    assert not torch.allclose(begun, whole, atol=1e-2), "the premise: a jump would show"


def test_real_images_are_brought_to_the_stage_and_faded_alike() -> None:
    x = torch.randn(3, 2, 8, 8)
    means = torch.from_numpy(x.numpy().reshape(3, 2, 4, 2, 4, 2).mean((3, 5)))
    torch.testing.assert_close(at_growth(x, Growth(0), 2), means)
    blocks = means.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(at_growth(x, Growth(1, 0.0), 2), blocks)
    torch.testing.assert_close(at_growth(x, Growth(1, 0.25), 2), 0.75 * blocks + 0.25 * x)
    assert torch.equal(at_growth(x, Growth(1), 2), x)


@pytest.mark.parametrize("begins", [0.125, 0.375])
def test_the_critics_distance_does_not_jump_where_a_stage_begins(begins: float) -> None:
    model = built()  # four parts of an eighth of the budget: stage 1 begins at 1/8, stage 2 at 3/8
    batch = Batch(images_of())
    before, after = (
        model.discriminator_loss(batch, context(fraction)).parts["distance"] for fraction in (begins - 1e-6, begins)
    )
    assert model.growth(begins).stage == model.growth(begins - 1e-6).stage + 1
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_only_what_a_stage_uses_has_a_gradient_and_at_the_end_all_of_both_networks() -> None:
    model = built()
    model.generator_loss(Batch(images_of()), context(0.0)).total.backward()
    learns = {name for name, p in model.generator.named_parameters() if p.grad is not None}
    assert learns == set(model._weights(0))
    assert not any(name.startswith("blocks") for name in learns)
    model.zero_grad(set_to_none=True)
    for loss in (model.discriminator_loss, model.generator_loss):
        loss(Batch(images_of()), context(0.9)).total.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    smaller = {f"{name}.{i}." for name in ("generator.to_image", "discriminator.from_image") for i in (0, 1)}
    assert {name for name in idle if not name.startswith(tuple(smaller))} <= {"discriminator.end.6.bias"}
    assert {name for name in idle if "to_image" in name}, "the premise: smaller stages have outputs of their own"


# Layers (section 4)


def test_weights_are_kept_at_unit_size_and_scaled_when_they_are_used() -> None:
    torch.manual_seed(0)
    linear, conv = EqualisedLinear(200, 300), EqualisedConv(64, 64)
    x, images = torch.randn(500, 200), torch.randn(4, 64, 12, 12)
    for layer in (linear, conv):
        assert float(layer.weight.detach().std()) == pytest.approx(1, abs=0.02)
        assert not layer.bias.detach().any()
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight * math.sqrt(2 / 200)))
    expected = F.conv2d(images, linear_weight(conv), padding=1)
    torch.testing.assert_close(conv(images), expected)
    assert float(F.relu(linear(x)).detach().square().mean()) == pytest.approx(1, rel=0.05), (
        "He et al.: rectifiers keep the size"
    )


def linear_weight(conv: EqualisedConv) -> Tensor:
    return conv.weight * math.sqrt(2 / (64 * 9))


def test_one_step_of_adam_moves_each_layer_by_the_same_share_of_its_scale() -> None:
    torch.manual_seed(0)
    layers = [EqualisedLinear(10, 10), EqualisedLinear(1000, 10)]
    shares = []
    for layer in layers:
        before = layer.weight.detach().clone()
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.01, betas=(0.0, 0.99))
        layer(torch.randn(4, layer.weight.shape[1])).square().sum().backward()
        optimiser.step()
        moved = (layer.weight.detach() - before).abs() * layer.scale
        shares.append(float(moved.mean() / (before * layer.scale).std()))
    assert shares[0] == pytest.approx(shares[1], rel=0.15)
    assert shares[1] == pytest.approx(0.01, rel=0.05)


def test_pixel_norm_makes_the_mean_square_over_channels_one_at_each_place() -> None:
    x = 7 * torch.randn(3, 16, 4, 5)
    found = PixelNorm()(x)
    torch.testing.assert_close(found.square().mean(1), torch.ones(3, 4, 5))
    torch.testing.assert_close(found[1, :, 2, 3], x[1, :, 2, 3] / x[1, :, 2, 3].square().mean().sqrt())


def test_the_deviation_of_the_batch_is_one_more_channel() -> None:
    x = torch.randn(6, 5, 3, 2)
    found = MinibatchDeviation()(x)
    assert found.shape == (6, 6, 3, 2)
    assert torch.equal(found[:, :5], x)
    expected = float(np.std(x.numpy(), axis=0).mean())
    torch.testing.assert_close(found[:, 5], torch.full((6, 3, 2), expected), rtol=1e-4, atol=1e-5)
    alike = MinibatchDeviation()(x[:1].expand(6, -1, -1, -1))
    assert float(alike[:, 5].max()) < 1e-3, "a batch of one image shows none"


# The loss (appendix A.1)


@pytest.mark.parametrize("slope", [1.0, 0.25, 3.0])
def test_the_penalty_is_none_for_a_slope_of_one_and_else_the_square_of_what_is_off(slope: float) -> None:
    direction = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    direction *= slope / direction.norm()
    found = slope_penalty(lambda x: (x * direction).sum((1, 2, 3)), torch.randn(7, 2, 4, 4, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor((slope - 1) ** 2, dtype=torch.float64))


def test_the_loss_is_distance_penalty_and_drift() -> None:
    batch = Batch(images_of())
    plain = built(config=Config(**{**SMALL.__dict__, "penalty": 0.0, "drift": 0.0}))
    weighed = built(config=Config(**{**SMALL.__dict__, "penalty": 3.0, "drift": 0.5}))
    on_real: list[Tensor] = []
    weighed.discriminator.register_forward_hook(lambda module, args, out: on_real.append(out))
    told, losses = plain.discriminator_loss(batch, context()), weighed.discriminator_loss(batch, context())
    torch.testing.assert_close(told.total, -told.parts["distance"])
    drift = 0.5 * on_real[0].square().mean()
    torch.testing.assert_close(losses.total - told.total, 3 * losses.parts["penalty"] + drift, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.parts["distance"], on_real[0].mean() - on_real[1].mean())
    lower = weighed.generator_loss(batch, context()).total
    torch.testing.assert_close(lower, -on_real[-1].mean())


def test_the_penalty_reaches_the_critic() -> None:
    model = built()
    penalty = model.discriminator_loss(Batch(images_of()), context()).parts["penalty"]
    found = torch.autograd.grad(penalty, [model.discriminator.blocks[0][0].weight])  # type: ignore[index]
    assert float(found[0].abs().max()) > 0


# What is drawn


def test_each_size_is_drawn_with_the_weights_that_its_stage_was_left_with() -> None:
    model = built().eval()
    latents = Noise(0).normal("z", 4, (8,))
    with torch.no_grad():
        expected = model.generator(latents, Growth(1))
        torch.nn.init.normal_(model.generator.dense[1].weight)  # type: ignore[arg-type, index]
        images = [model.sample_at(i, 4, Noise(0)) for i in range(3)]
    assert [tuple(x.shape) for x in images] == [(4, 1, 4, 4), (4, 1, 8, 8), (4, 1, 16, 16)]
    assert torch.equal(images[1], ((expected + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    assert torch.equal(images[2], model.sample(4, Draw(), Noise(0)))


def test_a_stages_weights_are_the_mean_over_the_second_half_of_its_own_time() -> None:
    model = built()
    bias = model.generator.start[2].bias  # type: ignore[index]
    fractions = [0.0, 0.05, 0.07, 0.1, 0.12, 0.13, 0.2, 0.35, 0.45, 0.9]  # stage 0 ends at 0.125, stage 1 at 0.375
    for i, fraction in enumerate(fractions):
        with torch.no_grad():
            bias.fill_(float(i))
        model.generator_loss(Batch(images_of()), context(fraction))
    place = list(model._weights(0)).index("start.2.bias")
    first = sum(p.numel() for p in list(model._weights(0).values())[:place])
    assert model.get_buffer("stage_0")[first : first + 8].tolist() == pytest.approx([3.0] * 8)  # of 2, 3, 4
    assert model.remembered.tolist() == [3, 1]
    assert model.get_buffer("stage_1")[first : first + 8].tolist() == pytest.approx([7.0] * 8)


def test_a_run_that_is_interrupted_while_it_grows_ends_like_one_that_is_not(tmp_path: Path) -> None:
    splits = [Split(images_of(n=n)) for n in (40, 8, 8)]
    data = Dataset("noise", LARGE, *splits, "here", "none")
    budget = Budget(images=8 * 20)

    def run(folder: str, *stops: int) -> dict[str, Tensor]:
        for stop in (*stops, None):
            model = trainer.build(MODEL, LARGE, SMALL, 0)
            trainer.Trainer(model, data, 0, budget, tmp_path / folder).run(stop_after=stop)
        return model.state_dict()

    whole, parts = run("whole"), run("parts", 2, 5, 9)
    assert whole["remembered"].tolist()[0] > 0, "the premise: a stage was left behind"
    assert checkpoint.load(tmp_path / "parts", "state") is not None
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_the_generator_is_drawn_from_with_averaged_weights() -> None:
    model = built()
    assert model.averaged == ("generator",)
    assert model.training_config.ema_decay > 0
    assert [phase.modules for phase in model.phases()] == [("discriminator",), ("generator",)]


def test_pictures_show_the_same_latents_at_each_size() -> None:
    model = built(config=SMALL).eval()
    growth, _ = model.pictures(images_of(), Noise(0))
    assert growth.rows == ("4x4", "8x8", "16x16")
    small = model.sample_at(0, growth.images.shape[1], Noise(0))
    assert torch.equal(growth.images[0, :, :, ::4, ::4], small)
    assert torch.equal(growth.images[0, :, :, 3::4, 3::4], small)


@pytest.mark.parametrize(
    ("key", "value"), [("latent", 0), ("width", 0), ("penalty", -1.0), ("drift", -0.1), ("grown", 1.0), ("grown", 0.0)]
)
def test_bad_choices_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"progan\.{key}: expected .*, got {value}"):
        Config(**{key: value})  # type: ignore[arg-type]
