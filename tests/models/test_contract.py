"""What every registered model owes the harness, asked of each by the registry: a new model file is tested by itself."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from baselines import registry, trainer
from baselines.config import build_config, config_values
from baselines.contract import (
    Distils,
    Draw,
    Fits,
    GenerativeModel,
    Given,
    HasDensity,
    HasLatent,
    HasLikelihood,
    Illustrates,
    Noise,
    Trains,
)
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import from_signed, image_nats, kinds
from baselines.errors import UserError
from baselines.types import Budget, ImageShape, Task
from tests.models.conditions import ATTRIBUTES, conditions_for, requests_for

SHAPES = {
    "digits": ImageShape(1, 8, 8, 17),
    "mnist": ImageShape(1, 28, 28, 256),
    "binary": ImageShape(1, 3, 3, 2),
    "rgb": ImageShape(3, 8, 8, 256),
}
NAMES = registry.names()
SMALL: Mapping[str, Mapping[str, object]] = {
    "aae": {"width": 16, "widest": 32, "units": 64},
    "gated_pixelcnn": {"width": 16, "layers": 3},
    "gmm": {"components": 10},
    "iaf": {"layers": 4, "width": 64},
    "made": {"hidden": [100]},
    "maf": {"layers": 4, "width": 64},
    "nade": {"hidden": 50},
    "pixelcnn": {"width": 24, "blocks": 2},
    "pixelcnnpp": {"width": 8, "blocks": 1, "components": 3},
    "pixelrnn_diagonal": {"width": 16, "layers": 2},
    "pixelrnn_row": {"width": 16, "layers": 2},
    "wavenet": {"width": 16, "skip": 16, "cycles": 1},
}
"""Sizes where the defaults take long and a test needs no more."""
PIXEL_BY_PIXEL = frozenset(name for name in NAMES if registry.load(name).family == "autoregressive") | {"wavenet"}
DRAWN = [
    pytest.param(name, shape, marks=[pytest.mark.slow] if shape == "mnist" and name in PIXEL_BY_PIXEL else [])
    for shape in SHAPES
    for name in NAMES
]
"""Every model on every shape; 784 steps one after the other are a matter of time alone."""


def images_of(shape: ImageShape, n: int = 48) -> torch.Tensor:
    """Images with structure: a level for each image, plus independent pixels."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randint(0, shape.levels, (n, 1, 1, 1), generator=generator)
    noise = torch.randint(-3, 4, (n, *shape.chw), generator=generator)
    return (base + noise).clamp(0, shape.levels - 1).to(torch.uint8)


def dataset_of(shape: ImageShape, task: Task = "unconditional") -> Dataset:
    def split(images: torch.Tensor) -> Split:
        attributes = torch.stack([torch.arange(len(images)) % len(values) for values in ATTRIBUTES.values()], 1)
        return Split(images, attributes=attributes, requests=requests_for(task, images))

    images, offers = images_of(shape), frozenset({"unconditional", task})
    parts = split(images[:32]), split(images[32:40]), split(images[40:])
    return Dataset("toy", shape, *parts, "here", "none", tasks=offers, conditions=conditions_for(task, shape))


def given_for(name: str, shape: ImageShape, first: int, n: int) -> Given | None:
    """What the model is given for images first .. first + n - 1; None if it takes noise alone."""
    requests = requests_for(registry.load(name).model.task, images_of(shape))
    return None if requests is None else requests.given.at(first, n)


def build(name: str, shape: ImageShape, small: bool = False) -> GenerativeModel:
    """A fresh model; one that learns from another has been shown a teacher, whose answers are not all 0.

    small: networks, batches and chains no larger than a test needs, where the defaults are.
    """
    model = registry.load(name).model
    config = build_config(model.config, {}, name)
    if small:
        known, short = config_values(config), dict(SMALL.get(name, {}))
        if "training" in known:
            short["training"] = {"batch_size": 20}
        if "timesteps" in known:
            short["timesteps"] = min(40, known["timesteps"])
        config = build_config(model.config, short, name)
    built = trainer.build(model, shape, config, 0, conditions_for(model.task, shape))
    if isinstance(built, Distils):
        built.learn_from(teacher_of(*built.teacher(config), shape))
    return built


def teacher_of(name: str, values: Mapping[str, object], shape: ImageShape) -> GenerativeModel:
    model, generator = registry.load(name).model, torch.Generator().manual_seed(0)
    teacher = trainer.build(model, shape, build_config(model.config, values, name), seed=0)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return teacher


def learned(name: str, shape: ImageShape) -> GenerativeModel:
    """A copy of the model after a moment of training (or its fit), in evaluation mode."""
    return copy.deepcopy(_learned(name, shape))


@functools.cache
def _learned(name: str, shape: ImageShape) -> GenerativeModel:
    task = registry.load(name).model.task
    model, dataset = build(name, shape, small=True), dataset_of(shape, task)
    if isinstance(model, Fits):
        trainer.fit(model, dataset, 0)
    else:
        assert isinstance(model, Trains)
        budget = Budget(images=2 * model.training_config.batch_size)
        with tempfile.TemporaryDirectory() as folder:
            trainer.Trainer(model, dataset, 0, budget, Path(folder), task=task).run()
    return model.eval()


def a_draw(model: GenerativeModel) -> Draw:
    takes = "steps" in model.draw_keys and model.samplers != ("native",)
    return Draw(model.samplers[-1 if takes else 0], steps=3 if takes else None)


@pytest.mark.parametrize("name", NAMES)
def test_it_names_its_paper_and_has_exactly_one_way_to_learn(name: str) -> None:
    entry = registry.load(name)
    model = build(name, SHAPES["digits"])
    assert entry.model.title
    assert len(entry.model.source) > 5
    assert entry.family in registry.FAMILIES
    assert isinstance(model, Trains) != isinstance(model, Fits)
    if isinstance(model, Trains):
        assert model.phases()
        assert model.selection is None or model.selection in kinds(model)
        assert bool(model.averaged) == (model.training_config.ema_decay > 0), "what an EMA follows is named"
        assert model.network is None or not model.averaged or model.network in model.averaged, "it is what is drawn"
    if model.network is not None:
        model.get_submodule(model.network)


@pytest.mark.parametrize(("name", "shape"), DRAWN)
def test_samples_are_uint8_levels_and_image_i_does_not_depend_on_the_batch(name: str, shape: str) -> None:
    size = SHAPES[shape]
    model = learned(name, size)
    noise, draw = Noise(5), a_draw(model)
    with torch.no_grad():
        whole = model.sample(4, draw, noise, given_for(name, size, 0, 4))
        one, rest = given_for(name, size, 0, 1), given_for(name, size, 1, 3)
        parts = torch.cat([model.sample(1, draw, noise, one), model.sample(3, draw, noise.at(1), rest)])
        given = given_for(name, size, 0, 4)
        differs = any(not torch.equal(whole, model.sample(4, draw, Noise(seed), given)) for seed in (6, 7, 8))
    assert whole.shape == (4, *size.chw)
    assert whole.dtype == torch.uint8
    assert int(whole.max()) < size.levels
    differences = (whole.int() - parts.int()).abs()
    assert int(differences.max()) <= 1, "pixels may differ by a level of rounding at most"
    assert float((differences > 0).float().mean()) < 0.01
    task = registry.load(name).model.task
    assert differs == ("translation" not in task), "another seed gives other images, but translations"


@pytest.mark.parametrize("name", [name for name in NAMES if registry.load(name).model.task != "unconditional"])
def test_a_conditional_model_answers_what_it_is_given_and_refuses_to_guess(name: str) -> None:
    shape = SHAPES["rgb"]
    model = learned(name, shape)
    draw = a_draw(model)
    with torch.no_grad():
        ours = model.sample(6, draw, Noise(5), given_for(name, shape, 0, 6))
        others = model.sample(6, draw, Noise(5), given_for(name, shape, 6, 6))
    assert not torch.equal(ours, others)
    with pytest.raises(UserError, match="given"):
        model.sample(2, draw, Noise(5))
    with pytest.raises(UserError, match=r"given|rows"):
        model.sample(2, draw, Noise(5), given_for(name, shape, 0, 3))


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load_keep_samples_and_likelihood(name: str, tmp_path: Path) -> None:
    from baselines import checkpoint

    shape = SHAPES["digits"]
    model = learned(name, shape)
    checkpoint.save(tmp_path, "model", model.state_dict(), {})
    loaded = checkpoint.load(tmp_path, "model")
    assert loaded is not None
    again = build(name, shape, small=True)
    again.load_state_dict(loaded[0])
    again.eval()
    x, draw = images_of(shape, 4), a_draw(model)
    with torch.no_grad():
        given = given_for(name, shape, 0, 3)
        assert torch.equal(model.sample(3, draw, Noise(1), given), again.sample(3, draw, Noise(1), given))
        for likelihood in kinds(model):
            ours = image_nats(model, x, likelihood, Noise(2)).total
            torch.testing.assert_close(image_nats(again, x, likelihood, Noise(2)).total, ours, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_are_finite_per_image_and_alike_in_any_batch(name: str) -> None:
    shape = SHAPES["digits"]
    model = learned(name, shape)
    if not kinds(model):
        assert not isinstance(model, HasLikelihood | HasDensity)
        return
    x = images_of(shape, 6)
    for likelihood, kind in kinds(model).items():
        assert kind in ("exact", "upper_bound", "estimate")
        with torch.no_grad():
            nats = image_nats(model, x, likelihood, Noise(9))
            halves = [image_nats(model, x[i : i + 3], likelihood, Noise(9, first=i)).total for i in (0, 3)]
        assert nats.total.shape == (6,)
        torch.testing.assert_close(torch.cat(halves), nats.total, rtol=1e-3, atol=1e-2)
        if nats.parts:
            torch.testing.assert_close(sum(nats.parts.values()), nats.total, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_latent_is_decoded_to_pixels_that_are_not_rounded_each_by_itself(name: str, shape: str) -> None:
    size = SHAPES[shape]
    if not isinstance(build(name, size, small=True), HasLatent):
        return
    model = learned(name, size)
    assert isinstance(model, HasLatent)
    z = torch.randn(5, model.latent, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        images = model.decode(z)
        parts = torch.cat([model.decode(z[:1]), model.decode(z[1:])])
        precise = model.double().decode(z.double())
    assert images.shape == (5, *size.chw)
    assert images.dtype == torch.float32
    assert bool(torch.isfinite(images).all())
    assert float(images.abs().max()) <= 1
    torch.testing.assert_close(parts, images, rtol=1e-4, atol=1e-4)
    assert precise.dtype == torch.float64
    torch.testing.assert_close(precise.float(), images, rtol=1e-3, atol=1e-3)
    inner = images[images.abs() < 1]
    assert bool((images[0] != images[1]).any()), "the latent matters"
    steps = (inner + 1) * ((size.levels - 1) / 2)
    assert float((steps - steps.round()).abs().max()) > 0.05, "not rounded"


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("aae", Draw()),
        ("ae", Draw()),
        ("dcgan", Draw()),
        ("glow", Draw()),
        ("realnvp", Draw()),
        ("vae", Draw("mean")),
    ],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_samples_are_decoded_latents_rounded_to_levels(name: str, draw: Draw, shape: str) -> None:
    size = SHAPES[shape]
    model = learned(name, size)
    assert isinstance(model, HasLatent)
    with torch.no_grad():
        samples = model.sample(20, draw, Noise(4))
        rounded = from_signed(model.decode(Noise(4).normal("z", 20, (model.latent,))), size.levels)
    differences = (samples.int() - rounded.int()).abs()
    assert int(differences.max()) <= 1
    assert float((differences > 0).float().mean()) < 1e-3, "only where a pixel lies between two levels"


@pytest.mark.parametrize("name", NAMES)
def test_each_phase_moves_its_own_parameters_only(name: str, tmp_path: Path) -> None:
    task = registry.load(name).model.task
    model, dataset = build(name, SHAPES["digits"]), dataset_of(SHAPES["digits"], task)
    if not isinstance(model, Trains):
        return
    run = trainer.Trainer(model, dataset, 0, Budget(images=1000), tmp_path, task=task)
    model.train()
    for phase in run.phases:
        before = {name: p.clone() for name, p in model.named_parameters()}
        for step in range(3):
            run.state.step = step
            run._update(phase, run.batches.at(0, model.training_config.batch_size), 0.5, 0)
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        owned = {n for n, _ in model.named_parameters() if n.startswith(tuple(f"{m}." for m in phase.modules))}
        assert moved
        assert moved <= owned


@pytest.mark.parametrize("shape", ["digits", "rgb"])
@pytest.mark.parametrize(
    "name", [name for name in NAMES if isinstance(build(name, SHAPES["digits"], small=True), Illustrates)]
)
def test_what_a_model_shows_of_itself_is_labelled_within_its_levels_and_made_again_the_same(
    name: str, shape: str
) -> None:
    size = SHAPES[shape]
    model = build(name, size, small=True).eval()
    assert isinstance(model, Illustrates)
    real = images_of(size, 5)
    before = real.clone()
    first, again = model.pictures(real, Noise(1)), model.pictures(real, Noise(1))
    assert first
    assert torch.equal(real, before)
    for strip, same in zip(first, again, strict=True):
        assert strip.title
        assert strip.caption
        assert strip.images.shape[2:] == size.chw
        assert int(strip.images.max()) < size.levels
        assert torch.equal(strip.images, same.images)
    assert len({strip.title for strip in first}) == len(first)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_and_a_wrong_type_are_named(name: str) -> None:
    config = registry.load(name).model.config
    with pytest.raises(UserError, match=r"no_such_key"):
        build_config(config, {"no_such_key": 1}, name)
    for key, value in config_values(config()).items():
        if isinstance(value, int) and not isinstance(value, bool):
            with pytest.raises(UserError, match=rf"{name}\.{key}: .*'many'"):
                build_config(config, {key: "many"}, name)
            break


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_sampler_is_refused(name: str) -> None:
    model = build(name, SHAPES["digits"])
    assert "no-such" not in model.samplers
