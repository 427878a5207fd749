"""StarGAN: its losses by the paper's equations, what each network learns from, and one generator for all domains."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import trainer
from baselines.contract import Batch, Conditions, Context, Draw, Given, Noise
from baselines.data import catalogue
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.gans.losses import slope_penalty
from baselines.gans.stargan import MODEL, Config, StarGan, attribute_loss, coloured
from baselines.given import Requests
from baselines.types import Budget, ImageShape
from bench.metrics.attributes import judge_for

SHAPE = ImageShape(3, 8, 8, 256)
ATTRIBUTES = {"ink": ("red", "green", "blue"), "inverted": ("no", "yes")}
SMALL = Config(width=4, halvings=1, blocks=1, critic_width=4, critic_steps=2)


def conditions(shape: ImageShape = SHAPE) -> Conditions:
    return Conditions(attributes=ATTRIBUTES, source=shape)


def built(config: Config = SMALL, shape: ImageShape = SHAPE) -> StarGan:
    torch.manual_seed(0)
    return StarGan(shape, config, conditions(shape))


def context(seed: int = 0) -> Context:
    return Context(0, 0.5, torch.Generator().manual_seed(seed), torch.device("cpu"))


def values(n: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(len(v), (n,), generator=generator) for v in ATTRIBUTES.values()], 1)


def batch(n: int = 6, shape: ImageShape = SHAPE) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, shape.levels, (n, *shape.chw), generator=generator, dtype=torch.uint8)
    return Batch(images, attributes=values(n))


def maps(attributes: Tensor) -> Tensor:
    return torch.cat([F.one_hot(attributes[:, i], len(v)) for i, v in enumerate(ATTRIBUTES.values())], 1).float()


class Spy(nn.Module):
    """Stands for the generator, notes what it is asked for and answers with what it is told to."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer, self.seen = answer, []
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        self.seen.append((images, target))
        return self.weight * self.answer(images, target)  # type: ignore


# The losses (section 3.1)


def test_the_gradient_penalty_is_zero_for_a_unit_slope_and_the_square_of_what_others_are_off() -> None:
    x = torch.randn(7, *SHAPE.chw)
    unit = torch.randn(SHAPE.chw)
    unit = unit / unit.norm()

    def linear(slope: float) -> float:
        return slope_penalty(lambda y: slope * (y * unit).sum((1, 2, 3)), x).item()

    assert linear(1.0) == pytest.approx(0, abs=1e-10)
    assert linear(3.0) == pytest.approx(4, rel=1e-5)
    assert linear(0.0) == pytest.approx(1)
    # of |x|^2 / 2 the slope is |x|, image by image
    found = slope_penalty(lambda y: y.square().sum((1, 2, 3)) / 2, x)
    assert found.item() == pytest.approx(float((x.flatten(1).norm(dim=1) - 1).square().mean()), rel=1e-5)


def test_the_penalty_is_taken_between_real_and_translated_images_and_teaches_the_critic() -> None:
    model, places = built(), []
    model.discriminator.register_forward_pre_hook(lambda module, args: places.append(args[0].detach()))
    model.generator = Spy(lambda x, c: -x)  # type: ignore[assignment]
    found = model.discriminator_loss(batch(), context())
    real = to_signed(batch().images, 256)
    weight = places[2] / real
    assert torch.equal(places[0], real)
    assert torch.equal(places[1], -real)
    spread = weight.flatten(1)
    torch.testing.assert_close(spread, spread[:, :1].expand_as(spread), atol=1e-3, rtol=0)
    assert len(spread[:, 0].round(decimals=3).unique()) == 6, "a place of its own for each image"
    assert bool((spread.abs() <= 1 + 1e-3).all())
    slope = torch.autograd.grad(found.parts["penalty"], [*model.discriminator.trunk.parameters()], allow_unused=True)
    assert any(g is not None and bool((g != 0).any()) for g in slope)


def test_the_discriminator_learns_values_on_real_images_alone_and_the_generator_on_translated_ones() -> None:
    model = built()
    b, seed = batch(), 4
    d = model.discriminator_loss(b, context(seed))
    real = to_signed(b.images, 256)
    assert b.attributes is not None
    logits = model.discriminator(real)[1]
    log_p = torch.cat([part.log_softmax(1) for part in logits.split((3, 2), 1)], 1)
    expected = -(log_p * maps(b.attributes)).sum(1).mean()  # eq. 2
    torch.testing.assert_close(d.parts["class"], expected)

    spy = Spy(lambda x, c: x.flip(3))
    model.generator = spy  # type: ignore[assignment]
    g = model.generator_loss(b, context(seed))
    target = spy.seen[0][1]
    log_p = torch.cat([part.log_softmax(1) for part in model.discriminator(real.flip(3))[1].split((3, 2), 1)], 1)
    torch.testing.assert_close(g.parts["class"], -(log_p * target).sum(1).mean())  # eq. 3


def test_totals_are_the_papers_sums() -> None:
    weights = {"lambda_cls": 0.7, "lambda_rec": 3.0, "lambda_gp": 5.0}
    model = built(dataclasses.replace(SMALL, **weights))
    d = model.discriminator_loss(batch(), context())
    expected = -d.parts["distance"] + 5 * d.parts["penalty"] + 0.7 * d.parts["class"]  # eqs. 5 and 8
    torch.testing.assert_close(d.total, expected)
    g = model.generator_loss(batch(), context())
    expected = -g.parts["critic"] + 0.7 * g.parts["class"] + 3 * g.parts["reconstruction"]  # eq. 6
    torch.testing.assert_close(g.total, expected)


def test_an_image_is_brought_back_by_the_values_that_it_had() -> None:
    """The second call starts from the first's answer and asks for the original labels, not for the targets."""
    model = built()
    spy = Spy(lambda x, c: 0.5 * x)
    model.generator = spy  # type: ignore[assignment]
    b = batch(40)
    found = model.generator_loss(b, context())
    (first, target), (second, back) = spy.seen[:2]
    assert b.attributes is not None
    torch.testing.assert_close(second, 0.5 * first)
    assert torch.equal(back, maps(b.attributes))
    assert not torch.equal(target, back)
    assert found.parts["reconstruction"].item() == pytest.approx(float((0.75 * first).abs().mean()), rel=1e-5)


def test_targets_are_drawn_anew_and_evenly() -> None:
    model, spy = built(), Spy(lambda x, c: x)
    model.generator = spy  # type: ignore[assignment]
    for seed in range(50):
        model.generator_loss(batch(40), context(seed))
    seen = torch.stack([target for _, target in spy.seen[::2]])
    assert not torch.equal(seen[0], seen[1])
    share = seen.mean((0, 1))
    assert share.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2], abs=0.04)


def test_a_discriminator_that_is_sure_loses_nothing_and_one_that_guesses_the_logarithms() -> None:
    attributes = values(50)
    assert float(attribute_loss(100 * maps(attributes), attributes, (3, 2))) == pytest.approx(0, abs=1e-6)
    guess = float(attribute_loss(torch.zeros(50, 5), attributes, (3, 2)))
    assert guess == pytest.approx(math.log(3) + math.log(2))


def test_each_loss_moves_its_own_network_and_reaches_all_of_it() -> None:
    model = built(Config(width=8, critic_width=8))
    for phase in model.phases():
        ours = dict(model.get_submodule(phase.modules[0]).named_parameters())
        gradients = torch.autograd.grad(phase.loss(batch(), context()).total, [*ours.values()])
        for name, gradient in zip(ours, gradients, strict=True):
            assert bool((gradient != 0).any()), (phase.name, name)
    critic, generator = model.phases()
    assert (critic.repeat, generator.repeat) == (1, 1)
    assert [phase.repeat for phase in built(Config(critic_steps=5)).phases()] == [5, 1]
    assert critic.modules == ("discriminator",)
    assert generator.modules == ("generator",)


# The networks


def test_one_generator_serves_all_domains_and_every_pixel_sees_every_value() -> None:
    model = built().double().eval()
    images = torch.rand(1, *SHAPE.chw, dtype=torch.float64) * 2 - 1
    target = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    out = model.generator(images, target)
    centre = out[0, :, 3:5, 3:5].flatten()
    slopes = torch.stack([torch.autograd.grad(pixel, target, retain_graph=True)[0][0] for pixel in centre])
    assert bool((slopes.abs() > 1e-9).all()), "instance norm of constant maps would leave nothing"
    assert not [name for name, _ in model.named_children() if name not in ("generator", "discriminator")]


def test_instance_norm_right_behind_the_first_convolution_would_erase_the_target() -> None:
    """The premise of the departure that the module tells of."""
    conv = nn.Conv2d(5, 4, 7)  # where nothing is padded
    one, other = (torch.zeros(1, 5, 16, 16) for _ in range(2))
    image = torch.randn(3, 16, 16)
    one[0, :3], other[0, :3] = image, image
    one[0, 3], other[0, 4] = 1, 1
    norm = nn.InstanceNorm2d(4)
    torch.testing.assert_close(norm(conv(one)), norm(conv(other)), atol=1e-5, rtol=0)
    assert not torch.allclose(conv(one), conv(other), atol=1e-2)


def test_amplified_colours_keep_lightness_and_hue_and_can_be_taken_back() -> None:
    images = torch.rand(4, 3, 5, 6, dtype=torch.float64) * 2 - 1
    found = coloured(images, 10.0)
    grey = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    by_matrix = torch.einsum("cd,bdhw->bchw", 10 * (torch.eye(3, dtype=torch.float64) - grey) + grey, images)
    torch.testing.assert_close(found, by_matrix)
    torch.testing.assert_close(coloured(found, 0.1), images)
    torch.testing.assert_close(coloured(images, 1.0), images)
    alone = torch.rand(4, 1, 5, 6)
    torch.testing.assert_close(coloured(alone, 10.0), alone, msg="of one channel there is no colour")
    ground = torch.tensor([[-1.0, 1.0]]).view(2, 1, 1, 1).expand(2, 3, 5, 6)
    torch.testing.assert_close(coloured(ground, 10.0), ground)


def test_the_generator_sees_amplified_colours_and_the_discriminator_images_as_they_are() -> None:
    model, plain = (built(dataclasses.replace(SMALL, colour=colour)) for colour in (10.0, 1.0))
    images, target = to_signed(batch().images, 256), maps(values(6))
    assert not torch.allclose(model.generator(images, target), plain.generator(images, target))
    torch.testing.assert_close(model.generator(images, target), plain.generator(coloured(images, 10.0), target))
    for found, expected in zip(model.discriminator(images), plain.discriminator(images), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "shape", [ImageShape(1, 3, 3, 2), ImageShape(1, 28, 28, 17), ImageShape(3, 5, 17, 256)], ids=str
)
@pytest.mark.parametrize("halvings", [0, 1, 2, 5])
def test_any_size_is_translated_and_judged(shape: ImageShape, halvings: int) -> None:
    model = built(Config(width=2, halvings=halvings, blocks=1, critic_width=2), shape)
    b = batch(3, shape)
    for phase in model.phases():
        assert bool(torch.isfinite(phase.loss(b, context()).total))
    critic, told = model.discriminator(to_signed(b.images, shape.levels))
    assert critic.shape == (3,)
    assert told.shape == (3, 5)
    assert b.attributes is not None
    assert model.translate(b.images, b.attributes).shape == b.images.shape


# Sampling


def test_it_draws_the_given_images_with_the_given_values_and_no_chance() -> None:
    model, b = built().eval(), batch()
    given = Given(images=b.images, attributes=b.attributes)
    with torch.no_grad():
        found = model.sample(6, Draw(), Noise(0), given)
        assert torch.equal(found, model.sample(6, Draw(), Noise(9), given))
        one = model.sample(1, Draw(), Noise(0), given.at(4, 1))
        assert int((found[4:5].int() - one.int()).abs().max()) <= 1
        other = Given(images=b.images, attributes=values(6, seed=3))
        assert not torch.equal(found, model.sample(6, Draw(), Noise(0), other))


def test_what_it_cannot_do_is_refused() -> None:
    model, b = built(), batch()
    given = Given(images=b.images, attributes=b.attributes)
    for poor in (None, Given(images=b.images), Given(attributes=b.attributes)):
        with pytest.raises(UserError, match="given"):
            model.sample(6, Draw(), Noise(0), poor)
    with pytest.raises(UserError, match="5 rows"):
        model.sample(5, Draw(), Noise(0), given)
    assert b.attributes is not None
    for wrong in (b.attributes + 2, b.attributes - 3, b.attributes[:, :1]):
        with pytest.raises(UserError, match="ink, inverted"):
            model.translate(b.images, wrong)
    with pytest.raises(UserError, match="attributes"):
        model.generator_loss(Batch(b.images), context())
    with pytest.raises(UserError, match="domain data"):
        StarGan(SHAPE, SMALL, Conditions())
    with pytest.raises(UserError, match="source images"):
        StarGan(SHAPE, SMALL, conditions(ImageShape(1, 8, 8, 256)))
    for name, value in {
        "width": 0,
        "halvings": -1,
        "kernel": 4,
        "colour": 0.0,
        "critic_steps": 0,
        "lambda_rec": -1.0,
        "lambda_gp": math.nan,
    }.items():
        with pytest.raises(UserError, match=rf"stargan\.{name}"):
            Config(**{name: value})  # type: ignore[arg-type]


def test_pictures_show_each_value_of_each_attribute_and_leave_the_others_as_they_are() -> None:
    model, spy, b = built().eval(), Spy(lambda x, c: x), batch(5)
    model.generator = spy  # type: ignore[assignment]
    requests = Requests(Given(images=b.images, attributes=values(5, seed=8)), originals=b.attributes)
    (strip,) = model.pictures_of(requests, Noise(0))
    assert strip.columns == ("source", "ink: red", "ink: green", "ink: blue", "inverted: no", "inverted: yes")
    assert torch.equal(strip.images[:, 0], b.images)
    assert b.attributes is not None
    for column, (_, target) in enumerate(spy.seen):
        wanted = b.attributes.clone()
        wanted[:, 0 if column < 3 else 1] = column if column < 3 else column - 3
        assert torch.equal(target, maps(wanted))


# Training


def toy(n: int = 32) -> Dataset:
    """Images of one colour, whose attribute tells which."""
    attributes = values(n)
    images = torch.zeros(n, *SHAPE.chw, dtype=torch.uint8)
    images[torch.arange(n), attributes[:, 0]] = 200
    images = torch.where(attributes[:, 1].view(-1, 1, 1, 1) == 1, 255 - images, images)
    split = Split(images, attributes=attributes)
    return Dataset(
        "toy",
        SHAPE,
        split,
        split,
        split,
        "here",
        "none",
        tasks=frozenset({"domain_translation"}),
        conditions=conditions(),
    )


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    def run(folder: str, stops: tuple[int, ...]) -> dict[str, Tensor]:
        for stop in (*stops, None):
            model = built()
            budget = Budget(images=6 * SMALL.critic_steps * SMALL.training.batch_size)
            trainer.Trainer(model, toy(), 0, budget, tmp_path / folder, task="domain_translation").run(stop)
        return model.state_dict()

    whole, pieces = run("whole", ()), run("pieces", (2, 5))
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    assert not torch.equal(whole["generator.image.0.weight"], built().state_dict()["generator.image.0.weight"])


@pytest.mark.slow
def test_digits_are_kept_on_changed_and_on_kept_grounds_if_colours_are_amplified_and_else_on_one_of_the_two(
    tmp_path: Path,
) -> None:
    data = catalogue.load("digits-domains")
    asked = data.val.requests
    assert asked is not None
    assert asked.given.images is not None
    assert asked.given.attributes is not None
    assert asked.attributes is not None
    assert asked.originals is not None
    changed = asked.originals[:, 1] != asked.given.attributes[:, 1]
    judge = judge_for("digits-domains")
    assert judge is not None
    kept = {}
    for colour in (1.0, 10.0):
        model = trainer.build(MODEL, data.shape, Config(colour=colour), 0, data.conditions)
        trainer.Trainer(model, data, 0, Budget(images=6_000), tmp_path / f"{colour}", task="domain_translation").run()
        with torch.no_grad():
            moved = model.sample(len(asked), Draw(), Noise(0), asked.given)
        told = torch.from_numpy(judge.judge(moved, 256)["digit"].argmax(1))
        right = (told == asked.attributes[:, -1]).float()
        kept[colour] = float(right[changed].mean()), float(right[~changed].mean())
    assert min(kept[1.0]) < 0.3, kept
    assert min(kept[10.0]) > 0.5, kept
